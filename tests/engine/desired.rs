//! What is wanted, by whom, and what that means for what is found.

use heeler::model::action::Action;
use heeler::model::job::JobKind;
use heeler::model::order::Order;

use crate::story::*;

fn stopped() -> Story {
    let mut story = Story::of_running(cart());
    story.order(Order::Stop);
    story.exits_orderly(100);
    story.at("10s");
    story.reads();
    story
}

fn with_rule(then: Action) -> Story {
    Story::of_running(cart_with(|service| {
        service.checks = vec![rule("memory > 2600MiB", "3 of 5", then)];
    }))
}

#[test]
fn stopped_stays_stopped_and_is_mentioned_after_a_day() {
    let mut story = stopped();
    story.at("23h59m");
    story.saw("");
    story.at("29h");
    story.saw(
        "24h mail 1.0 fired: stopped by root (pid 9)
         28h mail 1.1 reminder: stopped by root (pid 9)",
    );
    story.last_mail_says("nothing: it is wanted down; `heeler start cart` ends that");
    story.order(Order::Start);
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.saw(
        "29h mail 1.2 resolved: stopped by root (pid 9)
         29h run start: bin/start
         29h answer 2 done: up after 0ms, pid 101",
    );
    story.ends();
}

#[test]
fn found_up_while_wanted_down_is_told_and_never_killed() {
    let mut story = stopped();
    story.at("15s");
    story.appears(101);
    story.at("1h");
    story.saw("20s mail 2.0 fired: found up (pid 101) while it is wanted down");
    story.status_is("up, but stopped by root (pid 9)");
    // Stopped for good, by a person.
    story.order(Order::Stop);
    story.exits_orderly(101);
    story.saw(
        "1h signal 101 TERM
         1h ladder: 101 until 1h30s
         1h ladder over
         1h survey what 101 left
         1h mail 2.1 resolved: found up (pid 101) while it is wanted down
         1h answer 2 done: it is down",
    );
    story.ends();
}

#[test]
fn found_up_while_wanted_down_and_gone_again() {
    let mut story = stopped();
    story.appears(101);
    story.at("1m");
    story.exits_orderly(101);
    story.at("2m");
    story.saw(
        "20s mail 2.0 fired: found up (pid 101) while it is wanted down
         1m mail 2.1 resolved: found up (pid 101) while it is wanted down",
    );
    story.ends();
}

#[test]
fn found_up_while_wanted_down_and_wanted_after_all() {
    let mut story = stopped();
    story.appears(101);
    story.at("1m");
    story.order(Order::Start);
    story.saw(
        "20s mail 2.0 fired: found up (pid 101) while it is wanted down
         1m mail 2.1 resolved: found up (pid 101) while it is wanted down
         1m answer 2 done: it is running already, pid 101",
    );
    story.ends();
}

#[test]
fn unmonitored_is_left_alone_whatever_happens() {
    let mut story = with_rule(Action::Restart);
    story.order(Order::Unmonitor);
    story.world.sample = Some(memory_mib(2710));
    story.at("10m");
    story.crashes(100);
    story.at("20m");
    story.saw("0s answer 1 done: not monitored: left alone until `heeler monitor`");
    story.status_is("down, not monitored (by root (pid 9))");
    // It is seen, for `status`, and that is all.
    story.appears(101);
    story.at("22m");
    story.status_is("up, not monitored (by root (pid 9))");
    story.saw("");
    story.ends();
}

#[test]
fn monitored_again_while_up_begins_to_count_anew() {
    let mut story = with_rule(Action::Restart);
    story.world.sample = Some(memory_mib(2710));
    story.at("20s");
    story.order(Order::Unmonitor);
    story.at("8h");
    story.order(Order::Monitor);
    // Two bad ones yesterday and one now are not three of five.
    story.at("8h20s");
    story.saw(
        "20s answer 1 done: not monitored: left alone until `heeler monitor`
         8h answer 2 done: monitored",
    );
    story.world.sample = Some(memory_mib(100));
    story.at("8h1m");
    story.saw("");
    story.ends();
}

#[test]
fn monitored_again_while_down_starts_it() {
    let mut story = Story::of_running(cart());
    story.order(Order::Unmonitor);
    story.exits_orderly(100);
    story.at("5m");
    story.reads();
    story.order(Order::Monitor);
    story.at("5m");
    story.saw(
        "5m answer 2 done: monitored
         5m run start: bin/start",
    );
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("6m");
    story.saw("5m10s mail 2.0 fired and resolved: it is not running");
    story.ends();
}

#[test]
fn unmonitored_during_a_restart_what_is_under_way_goes_on() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.order(Order::Unmonitor);
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         0s mail 1.0 fired and resolved: the main process 100 is gone
         0s answer 1 done: not monitored: left alone until `heeler monitor`",
    );
    // The start that was under way succeeds: the process is kept, nothing is acted on.
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("2m");
    story.status_is("up, not monitored (by root (pid 9))");
    story.crashes(101);
    story.at("3m");
    story.ends();
}

#[test]
fn unmonitored_while_orphans_are_waited_for_nobody_is_signalled() {
    let mut story = Story::of_running(cart());
    story.world.left = vec![listener(110)];
    story.lives_unclaimed(110);
    story.crashes(100);
    story.at("1s");
    story.order(Order::Unmonitor);
    story.at("2m");
    story.saw(
        "0s survey what 100 left
         1s mail 1.0 fired and resolved: the main process 100 is gone
         1s answer 1 done: not monitored: left alone until `heeler monitor`
         30s let go of 110
         30s remove the pidfile of 100",
    );
    story.ends();
}

#[test]
fn stopped_by_a_rule_is_kept_and_reminded_of() {
    let mut story = with_rule(Action::Stop);
    story.world.sample = Some(memory_mib(2710));
    story.at("40s");
    story.saw(
        "30s signal 100 TERM
         30s mail 1.0 fired and resolved: memory (2710 MiB) > 2600 MiB, 3 of 5
         30s ladder: 100 until 1m
         35s mail 2.0 fired: stopped by rule memory > 2600MiB",
    );
    story.exits_orderly(100);
    story.status_is("stopped by rule memory > 2600MiB");
    story.at("5h");
    story.saw(
        "40s ladder over
         40s survey what 100 left
         4h35s mail 2.1 reminder: stopped by rule memory > 2600MiB",
    );
    // Nothing but a person ends it: not a new keeper either.
    story.keeper_restarts();
    story.at("5h5m");
    story.saw("");
    story.world.sample = Some(memory_mib(100));
    story.order(Order::Start);
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("5h10m");
    story.saw(
        "5h5m mail 2.2 resolved: stopped by rule memory > 2600MiB
         5h5m run start: bin/start
         5h5m answer 1 done: up after 0ms, pid 101",
    );
    story.ends();
}

#[test]
fn unmonitored_by_a_rule_is_said() {
    let mut story = with_rule(Action::Unmonitor);
    story.world.sample = Some(memory_mib(2710));
    story.at("10m");
    story.status_is("up, not monitored (by rule memory > 2600MiB)");
    story.saw(
        "30s mail 1.0 fired and resolved: memory (2710 MiB) > 2600 MiB, 3 of 5
         35s mail 2.0 fired: no longer monitored, by rule memory > 2600MiB",
    );
    story.last_mail_says("`heeler monitor cart` ends that");
    story.world.sample = Some(memory_mib(100));
    story.order(Order::Monitor);
    story.at("11m");
    story.saw(
        "10m mail 2.1 resolved: no longer monitored, by rule memory > 2600MiB
         10m answer 1 done: monitored",
    );
    story.ends();
}
