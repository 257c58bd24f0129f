//! After an exit: what is left of the old process, and who may come after it.

use heeler::model::job::JobKind;
use heeler::model::order::Order;
use heeler::model::process::{Ours, Survivor};

use crate::story::*;

#[test]
fn a_crash_is_followed_by_a_start_at_once() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start",
    );
    story.at("1s");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("11s mail 1.0 fired and resolved: the main process 100 is gone");
    story.last_mail_says("starting (1 of 5 per 10m): bin/start");
    story.last_mail_says("up again: pid 101, after 1s");
    story.last_mail_says("heeler goes on watching");
    story.ends();
}

#[test]
fn an_orderly_exit_waits_for_a_successor_then_starts() {
    let mut story = Story::of_running(cart());
    story.exits_orderly(100);
    story.status_is("down, waiting for a successor");
    story.at("5s");
    story.saw(
        "0s survey what 100 left
         5s run start: bin/start",
    );
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("15s mail 1.0 fired and resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn a_deploy_that_stops_and_starts_it_is_not_raced() {
    let mut story = Story::of_running(cart());
    story.exits_orderly(100);
    story.at("4s900ms");
    story.appears(101);
    story.at("1m");
    // Nobody is mailed: a deploy is not an incident. The log has it.
    story.saw("0s survey what 100 left");
    story.log_says("an orderly exit: waiting 5s for a successor");
    story.log_says("up again: pid 101, after 4.9s");
    story.ends();
}

#[test]
fn a_successor_that_comes_just_too_late_is_adopted_beside_the_start() {
    let mut story = Story::of_running(cart());
    story.exits_orderly(100);
    story.at("5s100ms");
    story.appears(101);
    story.at("6s");
    story.status_is("up, start period 59s");
    story.command_ends(JobKind::Start, 1, "already running");
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         5s run start: bin/start
         15.15s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn an_exit_delay_of_zero_waits_for_nobody() {
    let mut story = Story::of_running(cart_with(|service| service.exit_delay = span("0s")));
    story.exits_orderly(100);
    story.saw(
        "0s survey what 100 left
         0s run start: bin/start",
    );
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("10s mail 1.0 fired and resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn its_workers_go_by_themselves_first() {
    let mut story = Story::of_running(cart());
    story.world.left = vec![listener(110), survivor(111)];
    story.lives_unclaimed(110);
    story.lives_unclaimed(111);
    story.crashes(100);
    story.status_is("clearing up: waiting for 110, 111");
    story.at("300ms");
    story.crashes(111);
    story.at("500ms");
    story.crashes(110);
    story.saw(
        "0s survey what 100 left
         0.5s remove the pidfile of 100
         0.5s run start: bin/start",
    );
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("10.5s mail 1.0 fired and resolved: the main process 100 is gone");
    story.last_mail_says("pid 110 (cart: worker 0) still holds a listening socket");
    story.ends();
}

#[test]
fn an_orphan_on_the_listening_socket_is_told_to_go_then_killed() {
    let mut story = Story::of_running(cart_with(|service| service.stop_timeout = span("10s")));
    story.world.left = vec![listener(110), survivor(111)];
    story.lives_unclaimed(110);
    story.lives_unclaimed(111);
    story.crashes(100);
    story.at("2s");
    story.saw(
        "0s survey what 100 left
         2s signal 110 TERM",
    );
    story.at("12s");
    story.saw(
        "5s mail 1.0 fired: the main process 100 is gone
         12s signal 110 KILL",
    );
    story.crashes(110);
    // The other one holds nothing: it is waited for, and never signalled.
    story.at("29s");
    story.status_is("clearing up: waiting for 111");
    story.saw("");
    story.at("30s");
    story.saw(
        "30s let go of 111
         30s remove the pidfile of 100
         30s run start: bin/start",
    );
    story.log_says("no longer waiting for what is left of it: 111");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("40s mail 1.1 resolved: the main process 100 is gone");
    story.last_mail_says("orphan 110 holds a listening socket: told to go");
    story.last_mail_says("orphan 110 holds a listening socket: sent KILL");
    story.ends();
}

#[test]
fn an_orphan_of_a_puma_drains_nothing_and_has_five_seconds() {
    let mut story = Story::of_running(cart_with(|service| service.puma = Some(a_puma())));
    story.world.left = vec![listener(110)];
    story.lives_unclaimed(110);
    story.crashes(100);
    story.at("7s");
    let lines = story.takes();
    assert!(lines.contains(&"2s signal 110 TERM".to_owned()), "{lines:?}");
    assert!(lines.contains(&"7s signal 110 KILL".to_owned()), "{lines:?}");
    story.crashes(110);
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.reads();
    story.ends();
}

#[test]
fn an_orphan_that_is_told_to_go_and_goes() {
    let mut story = Story::of_running(cart());
    story.world.left = vec![listener(110)];
    story.lives_unclaimed(110);
    story.crashes(100);
    story.at("3s");
    story.crashes(110);
    story.saw(
        "0s survey what 100 left
         2s signal 110 TERM
         3s remove the pidfile of 100
         3s run start: bin/start",
    );
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("13s mail 1.0 fired and resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn another_users_orphan_is_never_signalled() {
    let mut story = Story::of_running(cart());
    story.world.left = vec![Survivor { ours: Ours::Foreign, ..listener(110) }];
    story.lives_unclaimed(110);
    story.crashes(100);
    story.at("30s");
    story.saw(
        "0s survey what 100 left
         5s mail 1.0 fired: the main process 100 is gone
         30s let go of 110
         30s remove the pidfile of 100
         30s run start: bin/start",
    );
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("40s mail 1.1 resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn the_workers_of_a_service_that_cannot_be_started_again_are_left_serving() {
    let mut story = Story::of_running(cart_with(|service| service.start = None));
    story.world.left = vec![listener(110)];
    story.lives_unclaimed(110);
    story.crashes(100);
    story.at("2m");
    story.saw(
        "0s survey what 100 left
         5s mail 1.0 fired: the main process 100 is gone
         30s let go of 110
         30s remove the pidfile of 100",
    );
    story.appears(101);
    story.at("3m");
    story.saw("2m20s mail 1.1 resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn a_successor_is_adopted_while_orphans_are_waited_for() {
    let mut story = Story::of_running(cart());
    story.world.left = vec![survivor(110)];
    story.lives_unclaimed(110);
    story.crashes(100);
    story.at("1s");
    story.appears(101);
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         11.05s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn an_operator_does_not_wait_for_a_successor() {
    let mut story = Story::of_running(cart());
    story.exits_orderly(100);
    story.at("1s");
    story.order(Order::Start);
    story.saw(
        "0s survey what 100 left
         1s run start: bin/start",
    );
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw(
        "1s answer 1 done: up after 0ms, pid 101
         11s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn somebody_elses_process_on_the_pidfile_is_not_started_over() {
    let mut story = Story::of_running(cart());
    story.world.claim = Claim::Refused("its user is root, not deploy");
    story.crashes(100);
    story.at("1m");
    // Somebody else's process took the pidfile: nothing is started over it.
    story.saw(
        "0s survey what 100 left
         5s mail 1.0 fired: the main process 100 is gone
         5s mail 2.0 fired: heeler may not touch it: its user is root, not deploy",
    );
    story.appears(101);
    story.at("2m");
    story.saw(
        "1m10s mail 2.1 resolved: heeler may not touch it: its user is root, not deploy
         1m20s mail 1.1 resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn survivors_are_let_go_while_a_successor_is_still_awaited() {
    let mut story = Story::of_running(cart_with(|service| {
        service.start_timeout = span("3s");
        service.exit_delay = span("10s");
    }));
    story.world.left = vec![survivor(110)];
    story.lives_unclaimed(110);
    story.exits_orderly(100);
    story.at("9s");
    story.status_is("down, waiting for a successor");
    story.appears(101);
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         3s let go of 110",
    );
    story.ends();
}

#[test]
fn an_orphan_that_does_not_die_is_named_and_then_started_beside() {
    let mut story = Story::of_running(cart_with(|service| service.stop_timeout = span("5s")));
    story.world.left = vec![listener(110)];
    story.lives_unclaimed(110);
    story.crashes(100);
    story.at("30s");
    story.saw(
        "0s survey what 100 left
         2s signal 110 TERM
         5s mail 1.0 fired: the main process 100 is gone
         7s signal 110 KILL
         30s let go of 110
         30s remove the pidfile of 100
         30s run start: bin/start",
    );
    story.log_says("no longer waiting for what is left of it: 110");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("40s mail 1.1 resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn what_cannot_be_surveyed_is_not_started_over_at_once() {
    let mut story = Story::of_running(cart());
    story.world.left = vec![listener(110)];
    story.lives_unclaimed(110);
    story.world.survey_fails = Some("no descriptor is free");
    story.crashes(100);
    story.log_says("it cannot be told what it left, asking again: no descriptor is free");
    story.at("1s500ms");
    story.world.survey_fails = None;
    story.at("4s");
    story.crashes(110);
    story.saw(
        "0s survey what 100 left
         1s survey what 100 left
         2s survey what 100 left
         2s signal 110 TERM
         4s remove the pidfile of 100
         4s run start: bin/start",
    );
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("14s mail 1.0 fired and resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn what_can_never_be_surveyed_is_started_after_the_start_timeout_and_says_so() {
    let mut story = Story::of_running(cart_with(|service| service.start_timeout = span("3s")));
    story.world.survey_fails = Some("no descriptor is free");
    story.crashes(100);
    story.at("4s");
    story.saw(
        "0s survey what 100 left
         1s survey what 100 left
         2s survey what 100 left
         3s survey what 100 left
         3s remove the pidfile of 100
         3s run start: bin/start",
    );
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("14s mail 1.0 fired and resolved: the main process 100 is gone");
    story.last_mail_says("going on without knowing what it left: no descriptor is free");
    story.ends();
}
