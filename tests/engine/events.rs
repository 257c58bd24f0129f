//! The history of a service: what is an event, and what is not.

use heeler::model::action::Action;
use heeler::model::job::JobKind;
use heeler::model::observation::Observation;
use heeler::model::order::Order;
use heeler::model::service::{Backoff, Mode, StartLimit};

use crate::story::*;

fn comes_up(story: &mut Story, pid: i32) {
    story.appears(pid);
    story.command_ends(JobKind::Start, 0, "");
}

#[test]
fn a_crash_is_told_from_its_exit_to_its_end() {
    let mut story = Story::of(cart());
    story.begins();
    comes_up(&mut story, 100);
    story.at("2m");
    story.happened(
        "0s acted: starting (1 of 5 per 10m): bin/start
         0s started: up: pid 100",
    );
    story.crashes(100);
    comes_up(&mut story, 101);
    story.at("3m");
    story.happened(
        "2m exited: the main process 100 is gone
         2m acted: starting (2 of 5 per 10m): bin/start
         2m started: up again: pid 101, after 0ms
         2m10s resolved: over: the main process 100 is gone (up since as pid 101)",
    );
    story.reads();
    story.ends();
}

#[test]
fn who_asked_is_told_before_what_was_done() {
    let mut story = Story::of_running(cart());
    story.order(Order::Restart);
    story.at("1s");
    story.exits_orderly(100);
    comes_up(&mut story, 101);
    story.at("2m");
    story.order(Order::Stop);
    story.at("155s");
    story.exits_orderly(101);
    story.at("4m");
    story.order(Order::Monitor);
    story.at("241s");
    comes_up(&mut story, 102);
    story.at("10m");
    story.happened(
        "0s ordered: restart asked by root (pid 9)
         0s acted: stopping pid 100: sent SIGTERM
         1s exited: the main process 100 is gone
         1s acted: starting: bin/start
         1s started: up: pid 101
         2m ordered: stop asked by root (pid 9)
         2m acted: stopping pid 101: sent SIGTERM
         2m30s acted: pid 101 is still there after 30s: sent SIGKILL
         2m35s exited: the main process 101 is gone
         4m ordered: monitor asked by root (pid 9)
         4m fired: it is not running
         4m acted: starting (1 of 5 per 10m): bin/start
         4m1s started: up again: pid 102, after 1s
         4m11s resolved: over: it is not running (up since as pid 102)",
    );
    story.reads();
    story.ends();
}

#[test]
fn a_rule_fires_acts_and_resolves() {
    let check = rule("memory > 2600MiB", "3 of 5", Action::Restart);
    let mut story = Story::of_running(cart_with(|service| service.checks = vec![check]));
    story.world.sample = Some(memory_mib(2710));
    story.at("32s");
    story.exits_orderly(100);
    story.world.sample = Some(memory_mib(100));
    comes_up(&mut story, 101);
    story.at("5m");
    story.happened(
        "30s fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         30s acted: restarting it because of memory > 2600MiB
         30s acted: stopping pid 100: sent SIGTERM
         32s exited: the main process 100 is gone
         32s acted: starting (1 of 5 per 10m): bin/start
         32s started: up: pid 101
         1m40s resolved: over: memory (2710 MiB) > 2600 MiB, 3 of 5 (memory (100 MiB) > 2600 MiB)",
    );
    story.reads();
    story.ends();
}

#[test]
fn giving_up_for_a_while_is_told_and_a_failed_command_once() {
    let mut story = Story::of_running(cart_with(|service| {
        service.start_limit = StartLimit { starts: 1, window: span("10m") };
        service.backoff = Backoff { first: span("30s"), last: span("30s") };
    }));
    story.crashes(100);
    story.command_ends(JobKind::Start, 7, "no such database\n");
    story.at("1s");
    story.happened(
        "0s exited: the main process 100 is gone
         0s acted: starting (1 of 1 per 10m): bin/start
         0s failed: the start command failed with code 7 after 0ms: no such database
         0s gave up: the start limit of 1 per 10m is used up: the next start is in 30s",
    );
    story.at("30s");
    comes_up(&mut story, 101);
    story.at("20m");
    story.reads();
    story.ends();
}

#[test]
fn a_change_is_one_event_and_an_observer_says_what_it_would_do() {
    let restart = probe("changed", "1 of 1", Action::Restart);
    let mut story = Story::of_running(cart_with(|service| {
        service.checks = vec![restart];
        service.mode = Mode::Observe;
    }));
    let print = |print| Some(Observation { fingerprint: Some(print), ..Observation::ok() });
    story.world.probe = print(1);
    story.at("30s");
    story.happened("");
    story.world.probe = print(2);
    story.at("3m");
    story.happened(
        "40s changed: changed, 1 of 1
         40s acted: would restart now (changed), but mode is \"observe\"",
    );
    story.reads();
    story.ends();
}

#[test]
fn a_rule_that_sets_it_aside_and_what_cannot_be_told() {
    let check = probe("failed", "1 of 1", Action::Unmonitor);
    let mut story = Story::of_running(cart_with(|service| service.checks = vec![check]));
    story.world.probe = Some(cannot_tell("no route to host"));
    story.at("35s");
    story.world.probe = Some(Observation::ok());
    story.at("45s");
    story.world.probe = Some(Observation::failed("refused"));
    story.at("1m");
    story.happened(
        "30s fired: failed cannot be told: no route to host
         40s resolved: over: failed cannot be told: no route to host (it can be told again)
         50s fired: failed (refused), 1 of 1
         50s acted: no longer monitored, by rule failed
         50s resolved: over: failed (refused), 1 of 1 (no longer judged: it is not wanted up any more)",
    );
    story.reads();
    story.ends();
}

/// A new keeper that finds all as it was has nothing to tell; what the old one could not tell, it tells.
#[test]
fn a_keeper_that_returns_repeats_nothing() {
    let mut story = Story::of_running(cart());
    story.keeper_restarts();
    story.at("1m");
    story.happened("");
    story.keeper_dies();
    story.dies_unseen(100);
    story.keeper_returns();
    comes_up(&mut story, 101);
    story.at("2m");
    story.happened(
        "1m exited: the main process 100 is gone
         1m acted: starting (1 of 5 per 10m): bin/start
         1m started: up again: pid 101, after 0ms
         1m10s resolved: over: the main process 100 is gone (up since as pid 101)",
    );
    story.reads();
    story.ends();
}
