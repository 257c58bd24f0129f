//! A stop, by command or by the signal ladder, and what does not want to go.

use heeler::model::job::{Ended, JobKind};
use heeler::model::order::Order;
use heeler::model::process::Signal;

use crate::story::*;

fn with_stop_command() -> Story {
    Story::of_running(cart_with(|service| service.stop = Some(command("bin/stop"))))
}

#[test]
fn it_goes_when_it_is_told_to() {
    let mut story = Story::of_running(cart());
    story.order(Order::Stop);
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 30s",
    );
    story.status_is("stopping, KILL in 30s");
    story.at("2s");
    story.exits_orderly(100);
    story.saw(
        "2s ladder over
         2s survey what 100 left
         2s answer 1 done: it is down",
    );
    story.status_is("stopped by root (pid 9)");
    story.ends();
}

#[test]
fn it_is_killed_once_its_time_is_over() {
    let mut story = Story::of_running(cart_with(|service| service.stop_signal = Signal::Quit));
    story.order(Order::Stop);
    story.at("30s");
    story.log_says("pid 100 is still there after 30s: sent SIGKILL");
    story.crashes(100);
    story.saw(
        "0s signal 100 QUIT
         0s ladder: 100 until 30s
         30s signal 100 KILL
         30s ladder over
         30s survey what 100 left
         30s remove the pidfile of 100
         30s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn it_is_gone_when_the_signal_arrives() {
    let mut story = Story::of_running(cart());
    story.dies_unseen(100);
    story.order(Order::Stop);
    // As good as stopped: no error, no mail.
    story.saw(
        "0s signal 100 TERM
         0s ladder over
         0s survey what 100 left
         0s remove the pidfile of 100
         0s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn its_stop_command_stops_it() {
    let mut story = with_stop_command();
    story.order(Order::Stop);
    story.at("3s");
    story.exits_orderly(100);
    story.at("4s");
    story.command_ends(JobKind::Stop, 0, "");
    story.at("5s");
    // Said only when the command is over, too: what it still does is no surprise to anybody.
    story.saw(
        "0s run stop: bin/stop
         3s ladder over
         3s survey what 100 left
         4s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn its_stop_command_succeeds_and_it_shuts_down_in_its_own_time() {
    let mut story = with_stop_command();
    story.order(Order::Stop);
    story.at("1s");
    story.command_ends(JobKind::Stop, 0, "");
    story.at("20s");
    story.exits_orderly(100);
    story.saw(
        "0s run stop: bin/stop
         20s ladder over
         20s survey what 100 left
         20s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn its_stop_command_succeeds_and_it_lives_on() {
    let mut story = with_stop_command();
    story.order(Order::Stop);
    story.at("1s");
    story.command_ends(JobKind::Stop, 0, "");
    story.at("30s");
    story.log_says("pid 100 is still there after the stop command");
    story.at("60s");
    story.crashes(100);
    story.saw(
        "0s run stop: bin/stop
         30s signal 100 TERM
         30s ladder: 100 until 1m
         1m signal 100 KILL
         1m ladder over
         1m survey what 100 left
         1m remove the pidfile of 100
         1m answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn its_stop_command_fails() {
    let mut story = with_stop_command();
    story.order(Order::Stop);
    story.at("1s");
    story.command_ends(JobKind::Stop, 1, "pumactl: connection refused");
    story.log_says("the stop command failed with code 1 after 1s: pumactl: connection refused");
    story.at("2s");
    story.exits_orderly(100);
    story.saw(
        "0s run stop: bin/stop
         1s signal 100 TERM
         1s ladder: 100 until 31s
         2s ladder over
         2s survey what 100 left
         2s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn its_stop_command_hangs() {
    let mut story = with_stop_command();
    story.order(Order::Stop);
    story.at("30s");
    story.command_times_out(JobKind::Stop);
    story.at("31s");
    story.exits_orderly(100);
    story.saw(
        "0s run stop: bin/stop
         30s signal 100 TERM
         30s ladder: 100 until 1m
         31s ladder over
         31s survey what 100 left
         31s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn its_stop_command_is_lost_with_its_shim() {
    let mut story = with_stop_command();
    story.order(Order::Stop);
    story.at("10s");
    story.finishes(JobKind::Stop, Ended::Lost, "");
    story.exits_orderly(100);
    story.saw(
        "0s run stop: bin/stop
         10s signal 100 TERM
         10s ladder: 100 until 40s
         10s ladder over
         10s survey what 100 left
         10s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn a_stop_command_that_outlives_the_process_is_awaited_before_the_start() {
    let mut story = with_stop_command();
    story.order(Order::Restart);
    story.at("3s");
    story.crashes(100);
    story.at("4s");
    // Its last deed may be to take the pidfile away: a start before that would lose its own.
    story.command_ends(JobKind::Stop, 0, "");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.saw(
        "0s run stop: bin/stop
         3s ladder over
         3s survey what 100 left
         4s remove the pidfile of 100
         4s run start: bin/start
         4s answer 1 done: up after 4s, pid 101",
    );
    story.ends();
}

#[test]
fn what_does_not_die_is_told_once_and_no_second_copy_is_started() {
    let mut story = Story::of_running(cart_with(|service| service.stop_timeout = span("5s")));
    story.order(Order::Restart);
    story.at("15s");
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 5s
         5s signal 100 KILL
         15s answer 1 failed: pid 100 does not die: KILL was sent and it is still there
         15s mail 1.0 fired: pid 100 does not die: KILL was sent and it is still there",
    );
    story.last_mail_says("starts no second copy while the old one is there");
    story.status_is("does not die");
    // For half an hour: looked at again, nothing said, nothing started.
    story.at("30m");
    story.saw("");
    // The disk comes back, and it goes at last.
    story.crashes(100);
    story.saw(
        "30m ladder over
         30m mail 1.1 resolved: pid 100 does not die: KILL was sent and it is still there
         30m survey what 100 left
         30m remove the pidfile of 100
         30m run start: bin/start",
    );
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("31m");
    story.saw("");
    story.ends();
}

#[test]
fn what_does_not_die_is_found_gone_even_if_nobody_said_so() {
    let mut story = Story::of_running(cart_with(|service| service.stop_timeout = span("5s")));
    story.order(Order::Stop);
    story.at("1m");
    story.reads();
    story.dies_unseen(100);
    story.at("70s");
    story.saw(
        "1m5s ladder over
         1m5s mail 2.1 resolved: pid 100 does not die: KILL was sent and it is still there
         1m5s survey what 100 left
         1m5s remove the pidfile of 100",
    );
    story.ends();
}

#[test]
fn a_signal_that_is_refused_is_said_and_not_repeated() {
    let mut story = Story::of_running(cart());
    story.world.refuses_signals = Some("its user changed from deploy to root");
    story.order(Order::Stop);
    story.at("2m");
    story.saw(
        "0s signal 100 TERM
         0s answer 1 failed: a signal was not sent: its user changed from deploy to root
         0s ladder over
         0s mail 2.0 fired: a signal was not sent: its user changed from deploy to root",
    );
    story.status_is("up, but stopped by root (pid 9)");
    // Asked again, it is tried again.
    story.world.refuses_signals = None;
    story.order(Order::Stop);
    story.exits_orderly(100);
    story.saw(
        "2m signal 100 TERM
         2m ladder: 100 until 2m30s
         2m ladder over
         2m survey what 100 left
         2m mail 2.1 resolved: a signal was not sent: its user changed from deploy to root
         2m answer 2 done: it is down",
    );
    story.ends();
}

#[test]
fn its_workers_are_waited_for_before_it_counts_as_stopped() {
    let mut story = Story::of_running(cart());
    story.world.left = vec![listener(110)];
    story.lives_unclaimed(110);
    story.order(Order::Stop);
    story.at("1s");
    story.exits_orderly(100);
    story.at("3s");
    story.crashes(110);
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 30s
         1s ladder over
         1s survey what 100 left
         3s signal 110 TERM
         3s answer 1 done: it is down",
    );
    story.ends();
}
