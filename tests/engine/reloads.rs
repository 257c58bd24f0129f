//! Reload: the main process takes up its configuration or its new code, and goes on.

use heeler::model::action::Action;
use heeler::model::job::JobKind;
use heeler::model::order::Order;
use heeler::model::process::Signal;
use heeler::model::service::{Reload, Service};

use crate::story::*;

fn by_command(service: &mut Service) {
    service.reload = Some(Reload::Command(command("bin/reload")));
}

fn by_signal(service: &mut Service) {
    service.reload = Some(Reload::Signal(Signal::Usr1));
}

#[test]
fn a_command_reloads_in_place_and_a_start_period_follows() {
    let mut story = Story::of_running(cart_with(by_command));
    story.order(Order::Reload);
    story.status_is("up, reloading, 30s left");
    story.at("2s");
    story.command_ends(JobKind::Reload, 0, "");
    story.status_is("up, start period 1m");
    story.saw(
        "0s run reload: bin/reload
         2s answer 1 done: the reload command succeeded; pid 100 is still the same",
    );
    story.ends();
}

#[test]
fn a_reload_that_fails_harms_nothing() {
    let mut story = Story::of_running(cart_with(by_command));
    story.order(Order::Reload);
    story.at("2s");
    story.command_ends(JobKind::Reload, 1, "config is invalid");
    story.saw(
        "0s run reload: bin/reload
         2s answer 1 failed: the reload command failed with code 1 after 2s: config is invalid",
    );
    story.ends();
}

#[test]
fn a_reload_that_hangs_is_ended_and_the_process_goes_on() {
    let mut story = Story::of_running(cart_with(by_command));
    story.order(Order::Reload);
    story.at("30s");
    story.command_times_out(JobKind::Reload);
    story.saw(
        "0s run reload: bin/reload
         30s answer 1 failed: the reload command was still running at its deadline and was ended after 30s",
    );
    story.ends();
}

#[test]
fn a_reload_may_replace_the_process() {
    let mut story = Story::of_running(cart_with(by_command));
    story.order(Order::Reload);
    story.at("2s");
    story.exits_orderly(100);
    story.at("3s");
    story.appears(101);
    story.command_ends(JobKind::Reload, 0, "");
    story.saw(
        "0s run reload: bin/reload
         3s answer 1 done: up after 3s, pid 101",
    );
    story.ends();
}

#[test]
fn a_reload_that_took_the_process_away_is_followed_by_a_start() {
    let mut story = Story::of_running(cart_with(by_command));
    story.order(Order::Reload);
    story.at("2s");
    story.exits_orderly(100);
    story.command_ends(JobKind::Reload, 1, "boom");
    story.at("3s");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw(
        "0s run reload: bin/reload
         2s answer 1 failed: failed to start: the reload command failed with code 1 after 2s: boom
         3s run start: bin/start
         13s mail 1.0 fired and resolved: failed to start: the reload command failed with code 1 after 2s: boom",
    );
    story.ends();
}

#[test]
fn a_signal_goes_to_the_main_process_and_nothing_is_told_to_go() {
    let mut story = Story::of_running(cart_with(by_signal));
    story.order(Order::Reload);
    story.status_is("up, start period 1m");
    // No ladder: nobody is to be killed for it.
    story.saw(
        "0s signal 100 USR1
         0s answer 1 done: pid 100 was told to reload",
    );
    story.ends();
}

#[test]
fn a_signal_that_may_not_be_sent_is_said() {
    let mut story = Story::of_running(cart_with(by_signal));
    story.world.refuses_signals = Some("process 100 runs as uid 7");
    story.order(Order::Reload);
    story.status_is("up");
    story.saw(
        "0s signal 100 USR1
         0s answer 1 failed: not reloaded: process 100 runs as uid 7",
    );
    story.ends();
}

#[test]
fn who_dies_of_its_reload_died() {
    let mut story = Story::of_running(cart_with(by_signal));
    story.order(Order::Reload);
    story.crashes(100);
    story.at("1s");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.reads();
    assert_eq!(story.incident().title, "the main process 100 is gone");
    story.ends();
}

#[test]
fn what_cannot_be_reloaded_is_told_why() {
    let mut story = Story::of_running(cart());
    story.order(Order::Reload);
    story.saw("0s answer 1 failed: not reloaded: there is no `reload` in its file");
    story.ends();

    let mut story = Story::of_running(cart_with(by_signal));
    story.order(Order::Stop);
    story.order(Order::Reload);
    story.exits_orderly(100);
    story.order(Order::Reload);
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 30s
         0s answer 2 failed: not reloaded: it is stopping now
         0s ladder over
         0s survey what 100 left
         0s answer 1 done: it is down
         0s answer 3 failed: not reloaded: it is not running (`heeler start cart`)",
    );
    story.ends();
}

#[test]
fn a_reload_changes_no_wish() {
    let mut story = Story::of_running(cart_with(by_command));
    story.order(Order::Unmonitor);
    story.order(Order::Reload);
    story.at("1s");
    story.command_ends(JobKind::Reload, 0, "");
    story.at("2m");
    story.status_is("up, not monitored (by root (pid 9))");
    story.reads();
    story.order(Order::Monitor);
    story.at("2m10s");
    story.reads();
    story.ends();
}

#[test]
fn a_stop_during_a_reload_waits_for_its_end() {
    let mut story = Story::of_running(cart_with(by_command));
    story.order(Order::Reload);
    story.order(Order::Stop);
    story.at("2s");
    story.command_ends(JobKind::Reload, 0, "");
    story.at("3s");
    story.exits_orderly(100);
    story.saw(
        "0s run reload: bin/reload
         2s answer 1 done: the reload command succeeded; pid 100 is still the same
         2s signal 100 TERM
         2s ladder: 100 until 32s
         3s ladder over
         3s survey what 100 left
         3s answer 2 done: it is down",
    );
    story.order(Order::Start);
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn a_rule_reloads_and_asks_again_only_after_the_start_period() {
    let mut story = Story::of_running(cart_with(|service| {
        by_signal(service);
        service.checks = vec![rule("memory > 200MiB", "2 of 2", Action::Reload)];
    }));
    story.world.sample = Some(memory_mib(300));
    story.at("1m40s");
    story.world.sample = Some(memory_mib(100));
    story.at("3m");
    story.saw(
        "20s signal 100 USR1
         25s mail 1.0 fired: memory (300 MiB) > 200 MiB, 2 of 2
         1m30s signal 100 USR1
         2m30s mail 1.1 resolved: memory (300 MiB) > 200 MiB, 2 of 2",
    );
    story.ends();
}

#[test]
fn a_new_keeper_takes_a_reload_over() {
    let mut story = Story::of_running(cart_with(by_command));
    story.order(Order::Reload);
    story.keeper_dies();
    story.at("1s");
    story.keeper_returns();
    story.status_is("up, reloading, 29s left");
    story.at("2s");
    story.command_ends(JobKind::Reload, 0, "");
    story.at("2m");
    story.saw(
        "0s run reload: bin/reload
         1s hold 100",
    );
    story.ends();
}

#[test]
fn a_restart_asked_for_during_a_reload_follows_it() {
    let mut story = Story::of_running(cart_with(by_command));
    story.order(Order::Reload);
    story.order(Order::Restart);
    story.at("1s");
    story.command_ends(JobKind::Reload, 0, "");
    story.at("2s");
    story.exits_orderly(100);
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.saw(
        "0s run reload: bin/reload
         1s answer 1 done: the reload command succeeded; pid 100 is still the same
         1s signal 100 TERM
         1s ladder: 100 until 31s
         2s ladder over
         2s survey what 100 left
         2s run start: bin/start
         2s answer 2 done: up after 2s, pid 101",
    );
    story.ends();
}
