//! `kill -9` of heeler at a bad moment, and what the next keeper makes of it.

use heeler::model::action::Action;
use heeler::model::job::JobKind;
use heeler::model::order::Order;

use crate::story::*;

fn comes_up(story: &mut Story, pid: i32) {
    story.appears(pid);
    story.command_ends(JobKind::Start, 0, "");
}

#[test]
fn the_same_process_goes_on_as_if_nothing_had_been() {
    let mut story = Story::of_running(cart());
    story.keeper_restarts();
    story.status_is("up");
    story.at("10m");
    story.saw("");
    story.ends();
}

#[test]
fn the_same_process_without_its_pidfile_goes_on_too() {
    let mut story = Story::of_running(cart());
    story.world.claim = Claim::NoPidfile;
    story.keeper_restarts();
    story.status_is("up");
    story.at("10m");
    story.saw("0s hold 100");
    story.ends();
}

#[test]
fn another_process_that_came_meanwhile_is_adopted() {
    let mut story = Story::of_running(cart());
    story.keeper_dies();
    story.at("10s");
    story.dies_unseen(100);
    story.appears(101);
    story.at("20s");
    story.keeper_returns();
    story.status_is("up, start period 1m");
    story.at("10m");
    story.saw("");
    story.ends();
}

#[test]
fn a_death_that_nobody_saw_is_cleared_up_after_like_any_other() {
    let mut story = Story::of_running(cart());
    story.world.left = vec![listener(110)];
    story.lives_unclaimed(110);
    story.keeper_dies();
    story.dies_unseen(100);
    story.at("10s");
    story.keeper_returns();
    story.at("12s");
    story.crashes(110);
    story.saw(
        "10s hold 100
         10s survey what 100 left
         12s signal 110 TERM
         12s remove the pidfile of 100
         12s run start: bin/start",
    );
    comes_up(&mut story, 101);
    story.at("1m");
    story.saw("22s mail 1.0 fired and resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn a_stop_is_kept() {
    let mut story = Story::of_running(cart());
    story.order(Order::Stop);
    story.exits_orderly(100);
    story.at("1m");
    story.reads();
    story.keeper_restarts();
    story.status_is("stopped by root (pid 9)");
    story.at("20h");
    story.saw("");
    story.at("25h");
    story.saw("24h mail 1.0 fired: stopped by root (pid 9)");
    story.ends();
}

#[test]
fn an_unmonitor_is_kept() {
    let mut story = Story::of_running(cart());
    story.order(Order::Unmonitor);
    story.reads();
    story.keeper_dies();
    story.dies_unseen(100);
    story.keeper_returns();
    story.at("1h");
    story.saw("0s hold 100");
    story.status_is("down, not monitored (by root (pid 9))");
    story.ends();
}

#[test]
fn a_ladder_keeps_its_time() {
    let mut story = Story::of_running(cart());
    story.order(Order::Stop);
    story.at("10s");
    story.keeper_restarts();
    story.status_is("stopping, KILL in 20s");
    story.at("30s");
    story.crashes(100);
    // Told once, killed when the first keeper had said, and no answer: who asked saw the keeper go.
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 30s
         10s hold 100
         30s signal 100 KILL
         30s ladder over
         30s survey what 100 left
         30s remove the pidfile of 100",
    );
    story.status_is("stopped by root (pid 9)");
    story.ends();
}

#[test]
fn a_ladder_whose_process_went_meanwhile_is_over_at_once() {
    let mut story = Story::of_running(cart());
    story.order(Order::Restart);
    story.at("10s");
    story.keeper_dies();
    story.dies_unseen(100);
    story.at("12s");
    story.keeper_returns();
    comes_up(&mut story, 101);
    story.saw(
        "0s signal 100 TERM
         0s ladder: 100 until 30s
         12s hold 100
         12s ladder over
         12s survey what 100 left
         12s remove the pidfile of 100
         12s run start: bin/start",
    );
    story.ends();
}

#[test]
fn a_start_under_way_is_the_start() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.at("1s");
    story.keeper_restarts();
    story.at("3s");
    comes_up(&mut story, 101);
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         13s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn a_stop_command_under_way_is_the_stop() {
    let mut story =
        Story::of_running(cart_with(|service| service.stop = Some(command("bin/stop"))));
    story.order(Order::Restart);
    story.at("1s");
    story.keeper_restarts();
    story.at("3s");
    story.exits_orderly(100);
    story.command_ends(JobKind::Stop, 0, "");
    comes_up(&mut story, 101);
    story.saw(
        "0s run stop: bin/stop
         1s hold 100
         3s ladder over
         3s survey what 100 left
         3s run start: bin/start",
    );
    story.ends();
}

#[test]
fn a_restart_command_under_way_is_the_restart() {
    let mut story =
        Story::of_running(cart_with(|service| service.restart = Some(command("bin/restart"))));
    story.order(Order::Restart);
    story.at("1s");
    story.keeper_restarts();
    story.at("3s");
    story.exits_orderly(100);
    story.at("4s");
    story.appears(101);
    story.at("5s");
    story.command_ends(JobKind::Restart, 0, "");
    story.at("1m");
    // One restart, and nobody is mailed about a death that was asked for.
    story.saw(
        "0s run restart: bin/restart
         1s hold 100",
    );
    story.ends();
}

#[test]
fn a_back_off_is_kept() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    for second in ["1s", "2s", "3s", "4s"] {
        story.command_ends(JobKind::Start, 1, "");
        story.at(second);
    }
    story.command_ends(JobKind::Start, 1, "");
    story.at("10s");
    story.reads();
    story.keeper_restarts();
    story.status_is("down, next start in 24s");
    story.at("34s");
    comes_up(&mut story, 101);
    story.at("20m");
    story.reads();
    assert_eq!(story.incident().number, 1);
    story.ends();
}

#[test]
fn a_restart_that_was_not_begun_is_begun() {
    let mut story =
        Story::of_running(cart_with(|service| service.stop = Some(command("bin/stop"))));
    story.order(Order::Restart);
    story.at("1s");
    // The stop command fails while nobody is there to hear it: what is wanted is still known.
    story.keeper_dies();
    story.jobs_are_forgotten();
    story.keeper_returns();
    story.at("2s");
    story.exits_orderly(100);
    story.command_ends(JobKind::Stop, 0, "");
    comes_up(&mut story, 101);
    story.saw(
        "0s run stop: bin/stop
         1s run stop: bin/stop
         2s ladder over
         2s survey what 100 left
         2s run start: bin/start",
    );
    story.ends();
}

#[test]
fn killed_over_and_over_it_still_mails_once() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    comes_up(&mut story, 101);
    for second in 1..9 {
        story.at(&format!("{second}s"));
        story.keeper_restarts();
    }
    story.at("1m");
    story.reads();
    assert_eq!(story.mails.len(), 1);
    story.ends();
}

#[test]
fn a_rule_that_fires_goes_on_firing_in_the_same_incident() {
    let mut story = Story::of_running(cart_with(|service| {
        service.checks = vec![rule("memory > 2600MiB", "3 of 5", Action::Alert)];
    }));
    story.world.sample = Some(memory_mib(2710));
    story.at("40s");
    story.keeper_restarts();
    story.at("10m");
    story.world.sample = Some(memory_mib(100));
    story.at("11m");
    story.saw(
        "30s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         10m10s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5",
    );
    story.ends();
}
