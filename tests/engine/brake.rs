//! The host brake: trouble of the machine is not mended by restarting everything on it.

use heeler::model::order::Order;
use heeler::model::workers::Budget;

use crate::story::span;
use crate::town::*;

fn of_six() -> (Town, [&'static str; 6]) {
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut town = Town::of(&names.map(|name| app(name, &[])));
    town.engine.brake_at(Budget { actions: 3, window: span("10m") });
    town.passes("2m");
    assert_eq!(town.saw().len(), 6, "all are started once");
    (town, names)
}

#[test]
fn when_all_pages_fail_at_once_no_more_are_restarted_than_the_brake_allows() {
    let (mut town, names) = of_six();
    town.sick.extend(names.map(service_name));
    town.passes("1m");
    let seen = town.saw();
    assert_eq!(seen.iter().filter(|line| line.starts_with("TERM")).count(), 3, "{seen:?}");
    // Each says why, once.
    let held: Vec<_> = names.iter().filter(|name| town.story(name, HELD) == 1).collect();
    assert!(held.len() >= 3, "{held:?}");
    assert!(names.iter().all(|name| town.story(name, HELD) <= 1));

    // An operator is not held back, and an order is not heeler's own doing.
    town.order(held[0], Order::Restart);
    let seen = town.saw();
    assert!(seen.contains(&format!("TERM {}", held[0])), "{seen:?}");

    // Who is well again is left alone; the next window has three more for the others.
    town.passes("8m");
    assert_eq!(town.saw(), [""; 0]);
    town.passes("2m");
    let seen = town.saw();
    assert_eq!(seen.iter().filter(|line| line.starts_with("TERM")).count(), 3, "{seen:?}");
}

#[test]
fn what_is_down_is_brought_up_whatever_the_brake_says() {
    let (mut town, names) = of_six();
    for name in names {
        town.dies(name);
    }
    town.passes("10s");
    let seen = town.saw();
    assert_eq!(seen.iter().filter(|line| line.starts_with("start")).count(), 6, "{seen:?}");
}

#[test]
fn a_keeper_that_comes_back_has_no_fresh_brake() {
    let (mut town, names) = of_six();
    town.sick.extend(names.map(service_name));
    town.passes("1m");
    town.saw();
    let services = names.map(|name| app(name, &[]));
    town.keeper_restarts();
    town.engine.brake_at(Budget { actions: 3, window: span("10m") });
    town.open(&services);
    town.passes("8m");
    let seen = town.saw();
    assert!(!seen.iter().any(|line| line.starts_with("TERM")), "{seen:?}");
}

const HELD: &str = "not restarted: the host brake of 3 per 10m is used up";
