//! Workers whose master waits for them in vain: killed after their time, told of, and never against the guard.

use heeler::model::action::Action;
use heeler::model::crew::{Duty, Leaving};
use heeler::model::order::Order;
use heeler::model::workers::Fragile;

use crate::story::*;
use crate::workers::{leak, of_worker, with_workers};

#[test]
fn while_a_successor_cannot_boot_the_old_ones_survive_every_rule() {
    let mut story = leak(Action::KillWorker);
    story.world.crew = vec![worker(201, 300), worker(202, 300), worker(203, 100)];
    story.world.crew[2].duty = Duty::Boots;
    story.world.crew[0].leaving = Leaving::Awaited;
    story.at("5m");
    let lines = story.takes();
    assert!(lines.iter().all(|line| line.contains("mail")), "{lines:?}");
    story.log_says("worker 203 is not ready, and may never be");
    story.world.crew = vec![worker(201, 100), worker(202, 100), worker(203, 100)];
    story.at("6m");
    story.reads();
    story.ends();
}

#[test]
fn the_one_its_master_waits_for_is_stuck_after_its_time_and_killed() {
    let mut story = leak(Action::Alert);
    story.world.crew[0].leaving = Leaving::Awaited;
    story.at("22s");
    story.saw("21s worker 201 KILL");
    story.is_succeeded(201, 204);
    // The next one has its own time.
    story.world.crew[0].leaving = Leaving::Awaited;
    story.at("40s");
    // No rule spoke of it, and yet somebody was killed: that is told, once for all of this reload.
    story.saw("26s mail 1.0 fired: worker 201 does not go: its master has waited for it for 20s");
    story.at("45s");
    let lines = story.takes();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].ends_with("worker 202 KILL"), "{lines:?}");
    story.is_succeeded(202, 205);
    story.at("2m");
    story.saw(
        "55.25s mail 1.1 resolved: worker 201 does not go: its master has waited for it for 20s",
    );
    story.ends();
}

#[test]
fn one_mail_tells_of_a_stuck_one_that_is_gone_and_of_what_was_done_about_it() {
    let mut story = leak(Action::Alert);
    story.world.crew[0].leaving = Leaving::Awaited;
    story.at("22s");
    story.saw("21s worker 201 KILL");
    story.is_succeeded(201, 204);
    story.at("1m");
    story.saw(
        "32.25s mail 1.0 fired and resolved: worker 201 does not go: its master has waited for it for 20s",
    );
    story.log_says("killing worker 201: its master has waited for it for 20s");
    story.ends();
}

#[test]
fn a_stuck_one_that_is_held_back_is_told_at_once() {
    let mut story = leak(Action::Alert);
    story.world.crew[0].leaving = Leaving::Awaited;
    story.world.crew[2].duty = Duty::Boots;
    story.at("22s");
    story.saw("21s mail 1.0 fired: worker 201 does not go: its master has waited for it for 20s");
    story.log_says("worker 201 is held back: worker 203 is not ready, and may never be");
    story.world.crew[2].duty = Duty::Serves;
    story.at("23s");
    story.saw("23s worker 201 KILL");
    story.is_succeeded(201, 204);
    story.at("1m");
    story.reads();
    story.ends();
}

#[test]
fn a_long_drain_that_somebody_configured_is_no_hang() {
    let mut story =
        with_workers(of_worker("memory > 200MiB", "1 of 1", Action::Alert), |service| {
            service.workers.as_mut().unwrap().stop_timeout = None;
        });
    story.world.crew[0].leaving = Leaving::Awaited;
    story.at("1h");
    story.saw("");
    story.world.crew[0].leaving = Leaving::No;
    story.at("1h1m");
    story.ends();
}

#[test]
fn a_stuck_one_that_would_take_others_along_is_told_again_and_not_killed() {
    let mut story = leak(Action::Alert);
    story.world.crew[0].leaving = Leaving::Awaited;
    story.world.crew[0].fragile = Some(Fragile::Postgres);
    story.at("3m");
    story.saw(
        "21s worker 201 TERM
         26s mail 1.0 fired: worker 201 does not go: its master has waited for it for 20s",
    );
    story.log_says("worker 201 was told to go 20s ago and is still there");
    story.is_succeeded(201, 204);
    story.at("5m");
    let lines = story.takes();
    assert!(lines[0].contains("mail 1.1 resolved: worker 201 does not go"), "{lines:?}");
    story.ends();
}

#[test]
fn who_is_held_back_for_the_same_reason_is_one_event() {
    let mut story = leak(Action::Alert);
    story.world.crew.truncate(1);
    story.world.crew[0].leaving = Leaving::Awaited;
    story.at("10m");
    story.reads();
    assert_eq!(story.times_logged("worker 201 is held back: only 0 would serve"), 1);
    story.world.crew[0].leaving = Leaving::No;
    story.at("15m");
    story.reads();
    story.ends();
}

#[test]
fn who_is_left_alone_has_no_incident_of_a_stuck_worker() {
    let mut story = leak(Action::Alert);
    story.order(Order::Unmonitor);
    story.reads();
    story.world.crew[0].leaving = Leaving::Awaited;
    story.at("5m");
    story.saw("");
    story.order(Order::Monitor);
    story.at("6m");
    let lines = story.takes();
    assert!(lines.iter().any(|line| line.contains("worker 201 KILL")), "{lines:?}");
    story.is_succeeded(201, 204);
    story.at("10m");
    story.reads();
    story.ends();
}
