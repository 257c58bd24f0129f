//! What is mailed, when, and how it hangs together.

use heeler::model::incident::{Alert, AlertKind};
use heeler::model::job::JobKind;
use heeler::model::process::Absence;
use heeler::model::status::Health;

use crate::story::*;

fn comes_up(story: &mut Story, pid: i32) {
    story.appears(pid);
    story.command_ends(JobKind::Start, 0, "");
}

#[test]
fn an_ordinary_crash_is_one_mail_that_tells_the_whole_story() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.at("2s");
    story.command_ends(JobKind::Start, 0, "Puma starting in cluster mode...\n");
    story.at("3s");
    story.appears(101);
    story.at("1m");
    story.reads();
    let [mail] = story.mails.as_slice() else {
        panic!("one mail, not {}", story.mails.len());
    };
    assert_eq!(mail.kind, AlertKind::FiredAndResolved);
    assert_eq!(mail.to, ["ops@example.com".into()]);
    assert_eq!(mail.next, "heeler goes on watching");
    let output = mail.incident.output.last_line();
    assert_eq!(output.as_deref(), Some("Puma starting in cluster mode..."));
    let lines: Vec<_> = mail.incident.story.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(
        lines,
        [
            "the main process 100 is gone",
            "starting (1 of 5 per 10m): bin/start",
            "up again: pid 101, after 3s",
            "over: up since as pid 101",
        ]
    );
    story.ends();
}

#[test]
fn what_is_not_up_soon_is_told_then_and_reminded_of() {
    let mut story = Story::of_running(cart_with(|service| service.start = None));
    story.crashes(100);
    story.at("9h");
    story.reads();
    let kinds: Vec<_> = story.mails.iter().map(|mail| mail.kind).collect();
    assert_eq!(kinds, [AlertKind::Fired, AlertKind::Reminder, AlertKind::Reminder]);
    story.appears(101);
    story.at("10h");
    story.saw("9h20s mail 1.3 resolved: the main process 100 is gone");
    let tokens: Vec<_> = story.mails.iter().map(|mail| mail.incident.token()).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    story.ends();
}

#[test]
fn a_flapping_service_is_not_a_mail_per_death() {
    let mut story = Story::of_running(cart());
    // Up for three seconds at a time.
    for (n, pid) in (100..104).enumerate() {
        story.at(&format!("{}s", n * 4));
        story.crashes(pid);
        story.at(&format!("{}s", n * 4 + 1));
        comes_up(&mut story, pid + 1);
    }
    story.at("10m");
    assert_eq!(story.incident().closed, None, "a moment is no health");
    story.at("11m");
    story.reads();
    let kinds: Vec<_> = story.mails.iter().map(|mail| mail.kind).collect();
    assert_eq!(kinds, [AlertKind::Fired, AlertKind::Resolved]);
    let incident = story.incident();
    let deaths = incident.story.iter().filter(|line| line.text.contains("is gone")).count();
    assert_eq!((incident.number, deaths), (1, 4));
    assert_eq!(
        incident.title,
        "the main process 103 is gone, 4 deaths without 10m of health between"
    );
    story.ends();
}

#[test]
fn a_service_that_flaps_into_the_limit_is_not_called_mended_early() {
    let mut story = Story::of_running(cart());
    for (n, pid) in (100..105).enumerate() {
        story.at(&format!("{}s", n * 3));
        story.crashes(pid);
        comes_up(&mut story, pid + 1);
    }
    story.at("15s");
    story.crashes(105);
    story.at("45s");
    comes_up(&mut story, 106);
    story.at("10m40s");
    story.reads();
    assert_eq!(story.incident().closed, None);
    story.at("11m");
    story.saw(
        "10m45s mail 1.1 resolved: the main process 105 is gone, 6 deaths without 10m of health between",
    );
    story.ends();
}

#[test]
fn deaths_apart_are_incidents_apart() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    comes_up(&mut story, 101);
    story.at("1h");
    story.crashes(101);
    comes_up(&mut story, 102);
    story.at("2h");
    story.reads();
    let mails: Vec<_> = story.mails.iter().map(|mail| mail.incident.number).collect();
    assert_eq!(mails, [1, 2]);
    assert_ne!(story.mails[0].incident.token(), story.mails[1].incident.token());
    story.ends();
}

#[test]
fn a_long_story_keeps_its_beginning_and_its_end() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    for _ in 0..40 {
        story.command_ends(JobKind::Start, 1, "no");
        story.until_a_command_runs();
    }
    comes_up(&mut story, 101);
    story.at("24h");
    story.reads();
    let incident = story.incident();
    assert!(incident.dropped_lines > 0);
    assert_eq!(incident.story.first().unwrap().text, "the main process 100 is gone");
    assert_eq!(incident.story.last().unwrap().text, "over: up since as pid 101");
    story.ends();
}

#[test]
fn numbers_and_tokens_outlive_the_keeper() {
    let mut story = Story::of_running(cart_with(|service| service.start = None));
    story.crashes(100);
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         5s mail 1.0 fired: the main process 100 is gone",
    );
    story.keeper_restarts();
    story.at("4h1m");
    // Not told again, reminded in its own time.
    story.saw("4h5s mail 1.1 reminder: the main process 100 is gone");
    story.appears(101);
    story.at("5h");
    story.reads();
    story.crashes(101);
    story.at("5h1m");
    story.saw(
        "5h survey what 101 left
         5h remove the pidfile of 101
         5h5s mail 2.0 fired: the main process 101 is gone",
    );
    assert_eq!(story.mails[0].incident.token(), story.mails[2].incident.token());
    story.appears(102);
    story.at("5h2m");
    story.reads();
    story.ends();
}

/// A unit that its manager brings up again a second after each death, for ever (Restart=always,
/// StartLimitIntervalSec=0), up for so long each time; after an hour it is mended. The mails.
fn mails_of_a_unit_that_dies_again_and_again(up_for_s: u32) -> Vec<String> {
    let mut story = Story::of_running(unit());
    let each = up_for_s + 1;
    for n in 0..3600 / each {
        let pid = 100 + i32::try_from(n).expect("small");
        story.at(&format!("{}s", n * each));
        story.world.claim = Claim::Managed(Absence::Coming);
        story.crashes(pid);
        story.at(&format!("{}s", n * each + 1));
        story.appears(pid + 1);
    }
    ends_with_mails(story)
}

/// The same of a service whose start works each time, and which is gone a second later.
fn mails_of_a_service_that_dies_after_each_start() -> Vec<String> {
    let mut story = Story::of_running(cart());
    let (mut now_s, mut pid) = (0, 100);
    while now_s < 3600 {
        story.crashes(pid);
        story.until_a_command_runs();
        pid += 1;
        comes_up(&mut story, pid);
        now_s = story.now_s() + 1;
        story.at(&format!("{now_s}s"));
    }
    ends_with_mails(story)
}

fn ends_with_mails(mut story: Story) -> Vec<String> {
    let until = story.now_s() + 3600;
    story.at(&format!("{until}s"));
    let of = |mail: &Alert| format!("{}: {}", mail.kind.name(), mail.incident.title);
    let mails: Vec<_> = story.mails.iter().map(of).collect();
    println!("{mails:#?}");
    assert_eq!((story.status().words.as_str(), story.status().health), ("up", Health::Good));
    story.reads();
    story.ends();
    mails
}

/// ALR-08, as far as the engine goes: one incident that stays open, and says how often.
#[test]
fn alr_08_what_dies_again_and_again_is_one_incident_with_counts_and_its_end_is_told() {
    for (up_for_s, deaths, most) in [(1, 1800, 2), (11, 300, 4), (60, 59, 4), (590, 6, 4)] {
        let mails = mails_of_a_unit_that_dies_again_and_again(up_for_s);
        assert!(mails.len() <= most, "up for {up_for_s}s: {mails:#?}");
        let count = format!(", {deaths} deaths without 10m of health between");
        let last = mails.last().expect("a mail");
        assert!(last.starts_with("resolved: ") && last.contains(&count), "{mails:#?}");
    }
    let mails = mails_of_a_service_that_dies_after_each_start();
    assert!(mails.len() <= 3, "{mails:#?}");
    let last = mails.last().expect("a mail");
    assert!(last.starts_with("resolved: ") && last.contains("deaths without 10m"), "{mails:#?}");
}

#[test]
fn how_often_it_has_died_outlives_the_keeper_and_a_window_of_health_ends_it() {
    let mut story = Story::of_running(cart());
    for (n, pid) in (100..103).enumerate() {
        story.at(&format!("{}s", n * 20));
        story.crashes(pid);
        comes_up(&mut story, pid + 1);
    }
    story.at("50s");
    story.keeper_restarts();
    story.at("1m");
    story.crashes(103);
    assert_eq!(
        story.incident().title,
        "the main process 103 is gone, 4 deaths without 10m of health between"
    );
    comes_up(&mut story, 104);
    story.at("10m");
    assert_eq!(story.incident().closed, None);
    story.last_mail_says("it counts as mended after 10m without a death");
    assert_eq!(story.status().health, Health::Wanting, "it looks well, and may not be");
    story.at("11m1s");
    story.crashes(104);
    assert_eq!(story.incident().title, "the main process 104 is gone");
    comes_up(&mut story, 105);
    story.at("12m");
    story.reads();
    story.ends();
}
