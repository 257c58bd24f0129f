//! The start limit: the brake on heeler's own starts.

use heeler::model::action::Action;
use heeler::model::job::JobKind;
use heeler::model::order::Order;
use heeler::model::service::{Backoff, Service, StartLimit};

use crate::story::*;

/// Up as pid 100, with a limit that is easy to reach.
fn braked(starts: u32, change: impl FnOnce(&mut Service)) -> Story {
    Story::of_running(cart_with(|service| {
        service.start_limit = StartLimit { starts, window: span("10m") };
        change(service);
    }))
}

fn start_fails(story: &mut Story) {
    story.command_ends(JobKind::Start, 1, "");
}

fn comes_up(story: &mut Story, pid: i32) {
    story.appears(pid);
    story.command_ends(JobKind::Start, 0, "");
}

/// LOG-01.
#[test]
fn five_starts_then_back_off_that_doubles_to_half_an_hour() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    for second in ["1s", "2s", "3s", "4s"] {
        start_fails(&mut story);
        story.at(second);
    }
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         1s run start: bin/start
         2s run start: bin/start
         3s run start: bin/start
         4s run start: bin/start",
    );
    start_fails(&mut story);
    story.status_is("down, next start in 30s");
    story.at("4s");
    story.saw("4s mail 1.0 fired: the main process 100 is gone");
    story.last_mail_says("the start limit of 5 per 10m is used up: the next start is in 30s");
    story.last_mail_says("heeler tries again in 30s; `heeler start cart` tries now");
    for next in ["34s", "94s", "214s", "454s", "934s", "1894s", "3694s", "5494s"] {
        story.at(next);
        start_fails(&mut story);
    }
    story.saw(
        "34s run start: bin/start
         1m34s run start: bin/start
         3m34s run start: bin/start
         7m34s run start: bin/start
         15m34s run start: bin/start
         31m34s run start: bin/start
         1h1m34s run start: bin/start
         1h31m34s run start: bin/start",
    );
    // Never silent: the incident is open, and says so again.
    story.at("7294s");
    comes_up(&mut story, 101);
    story.at("3h");
    story.saw(
        "2h1m34s run start: bin/start
         2h11m34s mail 1.1 resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn a_back_off_that_lasts_is_reminded_of() {
    let mut story = braked(1, |service| {
        service.remind = span("10m");
        service.backoff = Backoff { first: span("30m"), last: span("30m") };
    });
    story.crashes(100);
    start_fails(&mut story);
    story.at("25m");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         0s mail 1.0 fired: the main process 100 is gone
         10m mail 1.1 reminder: the main process 100 is gone
         20m mail 1.2 reminder: the main process 100 is gone",
    );
    story.last_mail_says("heeler tries again in 10m");
    story.appears(101);
    story.at("45m");
    // Healthy for a full window: over.
    story.saw(
        "30m mail 1.3 reminder: the main process 100 is gone
         35m10s mail 1.4 resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn the_first_back_off_is_told_even_when_the_death_was() {
    let mut story = braked(2, |_| {});
    story.crashes(100);
    story.at("6s");
    start_fails(&mut story);
    story.at("7s");
    start_fails(&mut story);
    story.at("7s");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         5s mail 1.0 fired: the main process 100 is gone
         7s run start: bin/start
         7s mail 1.1 reminder: the main process 100 is gone",
    );
    story.last_mail_says("heeler tries again in 30s");
    story.at("37s");
    start_fails(&mut story);
    story.at("97s");
    comes_up(&mut story, 101);
    story.at("15m");
    // The later ones are not: they are in the story.
    story.saw(
        "37s run start: bin/start
         1m37s run start: bin/start
         11m37s mail 1.2 resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn an_operators_start_overrides_the_wait_and_is_not_counted() {
    let mut story = braked(2, |_| {});
    story.crashes(100);
    start_fails(&mut story);
    story.at("1s");
    start_fails(&mut story);
    story.at("5s");
    story.order(Order::Start);
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         1s run start: bin/start
         1s mail 1.0 fired: the main process 100 is gone
         5s run start: bin/start",
    );
    comes_up(&mut story, 101);
    story.at("11m");
    story.saw(
        "5s answer 1 done: up after 0ms, pid 101
         10m5s mail 1.1 resolved: the main process 100 is gone",
    );
    // A full window of health later the whole limit is there again.
    story.crashes(101);
    story.saw(
        "11m survey what 101 left
         11m remove the pidfile of 101
         11m run start: bin/start",
    );
    story.log_says("starting (1 of 2 per 10m): bin/start");
    comes_up(&mut story, 102);
    story.at("12m");
    story.saw("11m10s mail 2.0 fired and resolved: the main process 101 is gone");
    story.ends();
}

#[test]
fn an_operators_start_that_fails_is_answered_and_goes_on_within_the_limit() {
    let mut story = braked(1, |_| {});
    story.crashes(100);
    start_fails(&mut story);
    story.at("5s");
    story.order(Order::Start);
    start_fails(&mut story);
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         0s mail 1.0 fired: the main process 100 is gone
         5s run start: bin/start
         5s answer 1 failed: failed to start: the start command failed with code 1 after 0ms",
    );
    story.status_is("down, next start in 1m");
    story.at("65s");
    comes_up(&mut story, 101);
    story.at("15m");
    story.saw(
        "1m5s run start: bin/start
         11m5s mail 1.1 resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn an_adopted_start_is_not_counted() {
    let mut story = braked(1, |_| {});
    for (n, pid) in (100..105).enumerate() {
        story.exits_orderly(pid);
        story.appears(pid + 1);
        story.at(&format!("{}s", (n + 1) * 100));
    }
    // Five of them, and the one start that is allowed is still there.
    story.crashes(105);
    story.log_says("starting (1 of 1 per 10m): bin/start");
    comes_up(&mut story, 106);
    story.at("15m");
    // The deploys are nobody's mail.
    assert_eq!(story.mails.len(), 1);
    story.reads();
    story.ends();
}

#[test]
fn two_starts_keep_a_second_between_them() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    comes_up(&mut story, 101);
    story.at("100ms");
    story.crashes(101);
    story.at("1s");
    comes_up(&mut story, 102);
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         0.1s survey what 101 left
         0.1s remove the pidfile of 101
         1s run start: bin/start
         11s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn a_restart_by_rule_that_may_not_start_does_not_stop_it() {
    let mut story = braked(1, |service| {
        service.start_period = span("0s");
        service.checks = vec![rule("memory > 2600MiB", "1 of 1", Action::Restart)];
    });
    story.crashes(100);
    comes_up(&mut story, 101);
    story.at("10s");
    story.world.sample = Some(memory_mib(2710));
    story.at("40s");
    story.status_is("up");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         10s mail 1.0 fired and resolved: the main process 100 is gone
         20s mail 2.0 fired: memory (2710 MiB) > 2600 MiB, 1 of 1",
    );
    story.last_mail_says("not restarted: the start limit of 1 per 10m is used up; again in 30s");
    story.world.sample = Some(memory_mib(100));
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn a_restart_by_command_and_rule_is_counted_too() {
    let mut story = braked(1, |service| {
        service.start_period = span("0s");
        service.restart = Some(command("bin/restart"));
        service.checks = vec![rule("memory > 2600MiB", "1 of 1", Action::Restart)];
    });
    story.world.sample = Some(memory_mib(2710));
    story.at("10s");
    story.saw("10s run restart: bin/restart");
    story.crashes(100);
    story.appears(101);
    story.command_ends(JobKind::Restart, 0, "");
    story.at("20s");
    story.status_is("up");
    story.log_says("not restarted: the start limit of 1 per 10m is used up; again in 30s");
    story.world.sample = Some(memory_mib(100));
    story.at("2m");
    story.reads();
    story.ends();
}
