//! Services that need each other: one alert for all, nothing done to those that are not at fault, and the
//! order in which they come back.

use heeler::engine::Engine;
use heeler::model::action::Action;
use heeler::model::check::Check;
use heeler::model::order::Order;
use heeler::model::service::{Mode, OnBoot, Service, Together};

use crate::story::span;

use crate::town::*;

#[test]
fn log_05_the_database_is_down_and_five_need_it_one_alert_five_held_back() {
    let names = ["a", "b", "c", "d", "e"];
    let mut services = vec![named("postgres", &[])];
    services.extend(names.iter().map(|name| app(name, &["postgres"])));
    let mut town = Town::of(&services);
    town.passes("2m");
    assert_eq!(town.saw().len(), 6, "all are started once");
    assert_eq!(town.mailed(), [""; 0]);

    town.broken.insert(service_name("postgres"));
    town.dies("postgres");
    // Its applications answer badly, and two of them do not live without it.
    town.sick.extend(names.iter().map(|name| service_name(name)));
    town.passes("10s");
    town.dies("d");
    town.dies("e");
    town.passes("10m");
    let seen = town.saw();
    assert!(seen.iter().all(|line| line.ends_with(" postgres")), "{seen:?}");
    let mails = town.mailed();
    assert!(mails.iter().all(|mail| mail.starts_with("postgres: ")), "{mails:?}");
    assert_eq!(town.times_mailed("held back until that is over: a, b, c, d, e"), 1);
    assert_eq!(town.words("a"), "up, held back: postgres is down, which it needs");
    assert_eq!(town.words("e"), "down, held back: postgres is down, which it needs");

    // It comes back: those that were down follow it, the others answer again by themselves.
    town.broken.clear();
    town.sick.clear();
    town.order("postgres", Order::Start);
    town.passes("15m");
    assert_eq!(town.saw(), ["start postgres", "start d", "start e"]);
    let mails = town.mailed();
    assert!(mails.iter().all(|mail| mail.starts_with("postgres: ")), "{mails:?}");
    assert_eq!((town.words("a"), town.words("e")), ("up".to_owned(), "up".to_owned()));
}

/// A doubt that was the parent's doing is forgotten with it, and nothing else of its check.
#[test]
fn what_was_told_before_the_parent_went_ends_when_it_is_over() {
    let told = Service { checks: app("a", &[]).checks, ..named("a", &["db"]) };
    let told = Service {
        checks: vec![Check { then: vec![Action::Alert], ..told.checks[0].clone() }],
        ..told
    };
    let mut town = Town::of(&[named("db", &[]), told]);
    town.passes("2m");
    town.sick.insert(service_name("a"));
    town.passes("1m");
    assert_eq!(town.mailed(), ["a: failed (500), 1 of 1"]);
    town.broken.insert(service_name("db"));
    town.dies("db");
    town.unseen.insert(service_name("a"));
    town.passes("2m");
    town.broken.clear();
    town.order("db", Order::Start);
    town.passes("2m");
    assert_eq!(town.words("a"), "up");
    town.unseen.clear();
    town.sick.clear();
    town.passes("15m");
    let memory = town.engine.memory(&service_name("a")).expect("is there");
    assert_eq!(memory.open, []);
}

#[test]
fn the_mail_names_whoever_is_wanted_up_and_needs_it_by_others_too_and_not_hundreds() {
    let mut services = vec![named("db", &[]), named("app", &["db"]), named("edge", &["app"])];
    services.push(named("resting", &["db"]));
    let mut town = Town::of(&services);
    town.passes("1m");
    town.order("resting", Order::Stop);
    town.broken.insert(service_name("db"));
    town.dies("db");
    town.passes("10s");
    assert_eq!(town.times_mailed("held back until that is over: app, edge"), 1);

    let mut services = vec![named("db", &[])];
    services.extend((10..99).map(|n| named(&format!("app{n}"), &["db"])));
    let mut town = Town::of(&services);
    town.passes("1m");
    town.broken.insert(service_name("db"));
    town.dies("db");
    town.passes("10s");
    let told = town.last_mail.iter().find(|line| line.contains("app10")).expect("it is told");
    assert!(told.contains(" app10, app11, ") && told.ends_with(" and 73 more"), "{told}");
}

/// postgres died and does not come back, and the page of the shop that needs it is bad.
fn shop_without_its_database() -> Town {
    let mut town = Town::of(&[named("postgres", &[]), app("shop", &["postgres"])]);
    town.passes("2m");
    town.saw();
    town.broken.insert(service_name("postgres"));
    town.dies("postgres");
    town.sick.insert(service_name("shop"));
    town
}

#[test]
fn who_is_still_in_trouble_when_its_parent_is_back_is_seen_to() {
    let mut town = shop_without_its_database();
    town.passes("5m");
    town.broken.clear();
    town.order("postgres", Order::Start);
    town.saw();
    town.mailed();
    town.passes("30s");
    let seen = town.saw();
    assert!(seen.contains(&"TERM shop".to_owned()), "{seen:?}");
    let mails = town.mailed();
    assert!(mails.iter().any(|mail| mail.starts_with("shop: ")), "{mails:?}");
}

#[test]
fn what_was_asked_while_the_parent_was_away_is_not_held_against_anybody() {
    let mut town = shop_without_its_database();
    town.slow.insert(service_name("shop"));
    town.passes("20s");
    assert!(!town.owed.is_empty(), "a page was asked");
    town.broken.clear();
    town.sick.clear();
    town.slow.clear();
    town.order("postgres", Order::Start);
    while town.words("shop") != "up" {
        town.passes("10ms");
    }
    // It answers only now, of when there was no database.
    let owed = std::mem::take(&mut town.owed);
    owed.into_iter().for_each(|answer| town.input(answer));
    town.passes("15m");
    assert!(town.saw().iter().all(|line| line.ends_with(" postgres")), "shop was restarted");
    let mails = town.mailed();
    assert!(mails.iter().all(|mail| mail.starts_with("postgres: ")), "{mails:?}");
}

#[test]
fn a_chain_comes_back_from_its_beginning() {
    let services =
        [named("disk", &[]), named("db", &["disk"]), named("app", &["db"]), named("else", &[])];
    let mut town = Town::of(&services);
    town.passes("1m");
    let seen = town.saw();
    let place = |name: &str| seen.iter().position(|line| line == &format!("start {name}")).unwrap();
    assert!(place("disk") < place("db") && place("db") < place("app"), "{seen:?}");
    town.broken.insert(service_name("disk"));
    town.dies("disk");
    town.dies("db");
    town.dies("app");
    town.passes("3m");
    assert!(town.saw().iter().all(|line| line == "start disk"));
    town.broken.clear();
    town.passes("1m");
    town.order("disk", Order::Start);
    town.passes("10m");
    assert_eq!(town.saw(), ["start disk", "start db", "start app"]);
}

#[test]
fn an_unmonitored_parent_holds_nothing_back_a_stopped_one_does_and_a_person_is_not_held() {
    let mut town = Town::of(&[named("db", &[]), named("app", &["db"])]);
    town.passes("1m");
    town.order("db", Order::Stop);
    town.dies_if_there("app");
    town.saw();
    town.passes("1m");
    assert_eq!(town.saw(), [""; 0]);
    assert_eq!(town.words("app"), "down, held back: db was stopped, which it needs");
    town.order("app", Order::Start);
    town.passes("10s");
    assert_eq!(town.saw(), ["start app"]);
    town.order("db", Order::Unmonitor);
    town.dies("app");
    town.passes("10s");
    assert_eq!(town.saw(), ["start app"]);
}

#[test]
fn a_restart_of_a_parent_leaves_its_children_alone_unless_they_ask() {
    let mut with = named("with", &["db"]);
    with.restart_with = Together::Yes;
    let mut observed = named("observed", &["db"]);
    observed.restart_with = Together::Yes;
    let mut town = Town::of(&[named("db", &[]), with, named("without", &["db"]), observed.clone()]);
    town.passes("1m");
    town.saw();
    town.order("db", Order::Restart);
    town.passes("30s");
    let seen = town.saw();
    assert_eq!(seen[..2], ["TERM db".to_owned(), "start db".to_owned()]);
    assert!(
        seen.contains(&"start with".to_owned()) && !seen.join(" ").contains("without"),
        "{seen:?}"
    );

    observed.mode = Mode::Observe;
    let mut town = Town::of(&[named("db", &[]), observed]);
    town.next_pid += 1;
    town.mains.insert(service_name("observed"), town.next_pid);
    town.passes("1m");
    town.saw();
    town.order("db", Order::Restart);
    town.passes("30s");
    assert_eq!(town.saw(), ["TERM db", "start db"]);
}

#[test]
fn who_comes_when_its_parent_is_back_hears_how_that_stands_now() {
    let services = [named("postgres", &[]), app("shop", &["postgres"])];
    let mut town = Town::of(&services);
    town.passes("2m");
    town.saw();
    // The files of both are gone, and back; the parent's first.
    town.forgets("shop");
    town.forgets("postgres");
    town.passes("1m");
    town.open_together(&services);
    town.passes("2m");
    assert_eq!((town.words("postgres"), town.words("shop")), ("up".to_owned(), "up".to_owned()));
    assert_eq!(town.saw(), [""; 0]);
    assert_eq!(town.mailed(), [""; 0]);
}

#[test]
fn a_service_that_needs_others_from_now_on_is_held_back_by_those_alone() {
    let mut town =
        Town::of(&[named("postgres", &[]), named("redis", &[]), app("shop", &["postgres"])]);
    town.passes("2m");
    town.saw();
    for name in ["postgres", "redis"] {
        town.broken.insert(service_name(name));
    }
    town.dies("postgres");
    town.passes("5s");
    assert_eq!(town.words("shop"), "up, held back: postgres is down, which it needs");
    town.needs(app("shop", &["redis"]));
    assert_eq!(town.words("shop"), "up");
    town.dies("redis");
    town.passes("5s");
    assert_eq!(town.words("shop"), "up, held back: redis is down, which it needs");
    town.forgets("redis");
    assert_eq!(town.words("shop"), "up");
    town.passes("5m");
    let mails = town.mailed();
    assert!(mails.iter().all(|mail| !mail.starts_with("shop: ")), "{mails:?}");
}

/// CRA-13: `on_boot`, and what was counted before the boot.
#[test]
fn a_boot_means_what_the_file_says() {
    let on_boot = |name: &str, on_boot| Service { on_boot, ..named(name, &[]) };
    let services = [
        on_boot("last", OnBoot::Last),
        on_boot("start", OnBoot::Start),
        on_boot("leave", OnBoot::Leave),
        Service { start_delay: span("30s"), ..named("late", &[]) },
    ];
    let mut town = Town::of(&services);
    // What is new waits for nothing but its delay.
    town.passes("20s");
    assert_eq!(town.saw(), ["start last", "start start", "start leave"]);
    town.passes("20s");
    assert_eq!(town.saw(), ["start late"]);
    town.order("last", Order::Stop);
    town.order("start", Order::Stop);
    town.saw();
    town.boots(&services);
    town.passes("20s");
    assert_eq!(town.saw(), ["start start"]);
    assert_eq!(town.words("leave"), "down, left so since boot (on_boot = \"leave\")");
    assert_eq!(town.words("late"), "down, next start in 10s");
    // A new keeper in the same boot knows that, too.
    town.engine = Engine::new(2_000_000);
    town.open(&services);
    town.passes("20s");
    assert_eq!(town.saw(), ["start late"]);
    assert_eq!(town.words("leave"), "down, left so since boot (on_boot = \"leave\")");
    // Once somebody has brought it up it is watched as any other.
    town.next_pid += 1;
    town.mains.insert(service_name("leave"), town.next_pid);
    town.passes("20s");
    assert_eq!(town.words("leave"), "up");
    town.dies("leave");
    town.passes("20s");
    assert_eq!(town.saw(), ["start leave"]);
    assert!(town.mailed().iter().all(|mail| mail.starts_with("leave: the main process")));
}

impl Town {
    fn dies_if_there(&mut self, name: &str) {
        if self.mains.contains_key(&service_name(name)) {
            self.dies(name);
        }
    }
}
