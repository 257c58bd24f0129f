//! What an operator asks: restarts, wishes that cross, answers.

use heeler::model::job::JobKind;
use heeler::model::order::Order;
use heeler::model::service::Mode;

use crate::story::*;

fn with_restart_command() -> Story {
    Story::of_running(cart_with(|service| service.restart = Some(command("bin/restart"))))
}

fn comes_up(story: &mut Story, pid: i32) {
    story.appears(pid);
    story.command_ends(JobKind::Start, 0, "");
}

#[test]
fn a_restart_is_stop_proof_of_death_and_start() {
    let mut story = Story::of_running(cart());
    story.order(Order::Restart);
    story.at("2s");
    story.exits_orderly(100);
    story.at("3s");
    comes_up(&mut story, 101);
    // Nobody is mailed about what was asked for.
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 30s
         2s ladder over
         2s survey what 100 left
         2s run start: bin/start
         3s answer 1 done: up after 3s, pid 101",
    );
    story.ends();
}

#[test]
fn a_restart_whose_start_fails_is_answered_and_goes_on() {
    let mut story = Story::of_running(cart());
    story.order(Order::Restart);
    story.exits_orderly(100);
    story.command_ends(JobKind::Start, 1, "syntax error");
    story.at("1s");
    comes_up(&mut story, 101);
    story.at("1m");
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 30s
         0s ladder over
         0s survey what 100 left
         0s run start: bin/start
         0s answer 1 failed: failed to start: the start command failed with code 1 after 0ms: syntax error
         1s run start: bin/start
         11s mail 1.0 fired and resolved: failed to start: the start command failed with code 1 after 0ms: syntax error",
    );
    story.ends();
}

#[test]
fn a_restart_command_brings_a_new_process() {
    let mut story = with_restart_command();
    story.order(Order::Restart);
    story.at("2s");
    story.exits_orderly(100);
    story.at("3s");
    story.command_ends(JobKind::Restart, 0, "");
    story.at("5s");
    // It daemonises: the pidfile comes after the command.
    story.appears(101);
    story.at("6s");
    story.saw(
        "0s run restart: bin/restart
         5.05s answer 1 done: up after 5s, pid 101",
    );
    story.ends();
}

#[test]
fn a_restart_command_that_leaves_the_process_is_a_restart_in_place() {
    let mut story = with_restart_command();
    story.order(Order::Restart);
    story.at("2s");
    story.command_ends(JobKind::Restart, 0, "");
    story.saw(
        "0s run restart: bin/restart
         2s answer 1 done: the restart command succeeded; pid 100 is still the same",
    );
    story.ends();
}

#[test]
fn a_restart_command_that_fails_and_harms_nothing() {
    let mut story = with_restart_command();
    story.order(Order::Restart);
    story.at("2s");
    story.command_ends(JobKind::Restart, 1, "config is invalid");
    story.status_is("up, start period 1m");
    story.saw(
        "0s run restart: bin/restart
         2s answer 1 failed: the restart command failed with code 1 after 2s: config is invalid",
    );
    story.ends();
}

#[test]
fn a_restart_command_that_fails_after_the_stop_is_followed_by_a_start() {
    let mut story = with_restart_command();
    story.order(Order::Restart);
    story.at("2s");
    story.exits_orderly(100);
    story.command_ends(JobKind::Restart, 1, "boom");
    story.at("3s");
    comes_up(&mut story, 101);
    story.at("1m");
    story.saw(
        "0s run restart: bin/restart
         2s answer 1 failed: failed to start: the restart command failed with code 1 after 2s: boom
         3s run start: bin/start
         13s mail 1.0 fired and resolved: failed to start: the restart command failed with code 1 after 2s: boom",
    );
    story.ends();
}

/// LOG-07.
#[test]
fn a_restart_asked_twice_is_done_once_and_answered_twice() {
    let mut story = Story::of_running(cart());
    story.order(Order::Restart);
    story.at("1s");
    story.order(Order::Restart);
    story.at("2s");
    story.exits_orderly(100);
    comes_up(&mut story, 101);
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 30s
         2s ladder over
         2s survey what 100 left
         2s run start: bin/start
         2s answer 1 done: up after 2s, pid 101
         2s answer 2 done: up after 1s, pid 101",
    );
    story.ends();
}

#[test]
fn a_restart_of_a_stopped_service_starts_it() {
    let mut story = Story::of_running(cart());
    story.order(Order::Stop);
    story.exits_orderly(100);
    story.reads();
    story.at("1m");
    story.order(Order::Restart);
    story.at("62s");
    comes_up(&mut story, 101);
    story.saw(
        "1m run start: bin/start
         1m2s answer 2 done: up after 2s, pid 101",
    );
    story.ends();
}

#[test]
fn a_start_of_what_runs_says_so() {
    let mut story = Story::of_running(cart());
    story.order(Order::Start);
    story.saw("0s answer 1 done: it is running already, pid 100");
    story.ends();
}

#[test]
fn a_stop_of_what_is_down_looks_first() {
    let mut story = Story::of_running(cart_with(|service| service.start = None));
    story.crashes(100);
    story.at("1m");
    story.reads();
    story.order(Order::Stop);
    story.saw(
        "1m mail 1.1 resolved: the main process 100 is gone
         1m answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn a_start_without_a_start_command_says_what_is_missing() {
    let mut story = Story::of(cart_with(|service| service.start = None));
    story.begins();
    story.at("10s");
    story.reads();
    story.order(Order::Start);
    story.saw(
        "10s answer 1 failed: there is no start command in its file: it can only be waited for",
    );
    story.order(Order::Stop);
    story.reads();
    story.ends();
}

#[test]
fn a_stop_during_a_restart_wins() {
    let mut story = Story::of_running(cart());
    story.order(Order::Restart);
    story.at("1s");
    story.order(Order::Stop);
    story.at("2s");
    story.exits_orderly(100);
    story.at("1m");
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 30s
         1s answer 1 failed: not finished: stop was asked by root (pid 9) meanwhile
         2s ladder over
         2s survey what 100 left
         2s answer 2 done: it is down",
    );
    story.ends();
}

#[test]
fn a_stop_during_a_restart_in_place_is_carried_out_after_it() {
    let mut story = with_restart_command();
    story.order(Order::Restart);
    story.at("1s");
    story.order(Order::Stop);
    story.at("2s");
    story.command_ends(JobKind::Restart, 0, "");
    story.at("3s");
    story.exits_orderly(100);
    story.saw(
        "0s run restart: bin/restart
         1s answer 1 failed: not finished: stop was asked by root (pid 9) meanwhile
         2s signal 100 TERM
         2s ladder: 100 until 32s
         3s ladder over
         3s survey what 100 left
         3s answer 2 done: it is down",
    );
    story.ends();
}

/// LOG-07.
#[test]
fn a_start_during_a_stop_wins() {
    let mut story = Story::of_running(cart());
    story.order(Order::Stop);
    story.at("1s");
    story.order(Order::Start);
    story.at("2s");
    story.exits_orderly(100);
    comes_up(&mut story, 101);
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 30s
         1s answer 1 failed: not finished: start was asked by root (pid 9) meanwhile
         2s ladder over
         2s survey what 100 left
         2s run start: bin/start
         2s answer 2 done: up after 1s, pid 101",
    );
    story.ends();
}

/// LOG-07.
#[test]
fn a_stop_during_a_start_stops_what_comes_up() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.at("1s");
    story.order(Order::Stop);
    story.at("3s");
    comes_up(&mut story, 101);
    story.at("4s");
    story.exits_orderly(101);
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         1s mail 1.0 fired and resolved: the main process 100 is gone
         3s signal 101 TERM
         3s ladder: 101 until 33s
         4s ladder over
         4s survey what 101 left
         4s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn a_stop_during_a_start_that_fails_is_done() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.at("1s");
    story.order(Order::Stop);
    story.at("2s");
    story.command_ends(JobKind::Start, 1, "");
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         1s mail 1.0 fired and resolved: the main process 100 is gone
         2s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn a_stop_while_clearing_does_not_wait_for_a_successor() {
    let mut story = Story::of_running(cart());
    story.exits_orderly(100);
    story.at("1s");
    story.order(Order::Stop);
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         1s mail 1.0 fired and resolved: the main process 100 is gone
         1s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn a_stop_during_back_off_is_done_at_once() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.command_ends(JobKind::Start, 1, "");
    story.order(Order::Stop);
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         0s mail 1.0 fired and resolved: the main process 100 is gone
         0s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn the_last_of_many_wishes_wins() {
    let mut story = Story::of_running(cart());
    for order in [Order::Stop, Order::Start, Order::Stop, Order::Restart, Order::Stop] {
        story.order(order);
    }
    story.at("1s");
    story.exits_orderly(100);
    story.at("1m");
    let failed =
        |by: &str| format!("failed: not finished: {by} was asked by root (pid 9) meanwhile");
    story.saw(&format!(
        "0s signal 100 TERM
         0s ladder: 100 until 30s
         0s answer 1 {}
         0s answer 2 {}
         0s answer 3 {}
         0s answer 4 {}
         1s ladder over
         1s survey what 100 left
         1s answer 5 done: it is down",
        failed("start"),
        failed("stop"),
        failed("restart"),
        failed("stop"),
    ));
    story.ends();
}

#[test]
fn an_order_acts_in_observe_mode_too() {
    let mut story = Story::of_running(cart_with(|service| service.mode = Mode::Observe));
    story.order(Order::Restart);
    story.exits_orderly(100);
    comes_up(&mut story, 101);
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 30s
         0s ladder over
         0s survey what 100 left
         0s run start: bin/start
         0s answer 1 done: up after 0ms, pid 101",
    );
    story.ends();
}

#[test]
fn an_order_to_what_may_not_be_touched_is_answered() {
    let mut story = Story::of(cart());
    story.world.claim = Claim::Refused("its user is www-data, not deploy");
    story.begins();
    story.at("10s");
    story.reads();
    story.order(Order::Start);
    story.saw("10s answer 1 failed: heeler may not touch it: its user is www-data, not deploy");
    story.ends();
}

#[test]
fn a_restart_command_that_hangs_is_ended_and_what_is_there_decides() {
    let mut story = with_restart_command();
    story.order(Order::Restart);
    story.at("60s");
    story.command_times_out(JobKind::Restart);
    story.saw(
        "0s run restart: bin/restart
         1m answer 1 failed: the restart command was still running at its deadline and was ended after 1m",
    );
    story.status_is("up, start period 1m");
    story.ends();
}

#[test]
fn a_restart_that_fails_while_nothing_can_be_told_starts_no_second_copy() {
    let mut story = with_restart_command();
    story.order(Order::Restart);
    story.at("1s");
    story.world.claim = Claim::Unknown("several match");
    story.command_ends(JobKind::Restart, 1, "");
    story.at("5m");
    story.saw(
        "0s run restart: bin/restart
         3s answer 1 failed: it cannot be told whether it runs: several match
         8s mail 1.0 fired: it cannot be told whether it runs: several match
         1m mail 1.1 resolved: it cannot be told whether it runs: several match",
    );
    // The old process was there all the time, and goes on being held.
    story.world.claim = Claim::Names(100);
    story.at("6m");
    story.status_is("up");
    story.saw("");
    story.ends();
}

#[test]
fn a_restart_during_a_start_is_as_good_as_done() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.at("1s");
    story.order(Order::Restart);
    story.at("2s");
    comes_up(&mut story, 101);
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         2s answer 1 done: up after 1s, pid 101
         12s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn a_start_while_it_does_not_die_is_answered_once_it_is_up() {
    let mut story = Story::of_running(cart_with(|service| service.stop_timeout = span("5s")));
    story.order(Order::Stop);
    story.at("1m");
    story.order(Order::Start);
    story.at("2m");
    story.crashes(100);
    comes_up(&mut story, 101);
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 5s
         5s signal 100 KILL
         15s answer 1 failed: pid 100 does not die: KILL was sent and it is still there
         15s mail 2.0 fired: pid 100 does not die: KILL was sent and it is still there
         2m ladder over
         2m mail 2.1 resolved: pid 100 does not die: KILL was sent and it is still there
         2m survey what 100 left
         2m remove the pidfile of 100
         2m run start: bin/start
         2m answer 2 done: up after 1m, pid 101",
    );
    story.ends();
}
