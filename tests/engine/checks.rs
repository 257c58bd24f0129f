//! Checks: when they fire, what they do, and when they are held.

use heeler::model::action::Action;
use heeler::model::check::Check;
use heeler::model::job::JobKind;
use heeler::model::observation::Observation;
use heeler::model::order::Order;
use heeler::model::service::Mode;
use heeler::model::status::RuleState;
use heeler::model::tolerance::Tolerance;

use crate::story::*;

fn with_checks(checks: Vec<Check>) -> Story {
    Story::of_running(cart_with(|service| service.checks = checks))
}

fn too_big(then: Action) -> Check {
    rule("memory > 2600MiB", "3 of 5", then)
}

fn samples(story: &mut Story, mib: u64) {
    story.world.sample = Some(memory_mib(mib));
}

fn comes_up(story: &mut Story, pid: i32) {
    story.appears(pid);
    story.command_ends(JobKind::Start, 0, "");
}

#[test]
fn it_fires_with_its_values_in_the_title_and_restarts() {
    let mut story = with_checks(vec![too_big(Action::Restart)]);
    samples(&mut story, 2710);
    story.at("20s");
    let check = story.status().checks.remove(0);
    assert_eq!(check.state, RuleState::Pending);
    assert_eq!(check.text, "memory (2710 MiB) > 2600 MiB, 2 of 5 so far, 3 of 5 fires");
    story.at("32s");
    story.exits_orderly(100);
    samples(&mut story, 100);
    comes_up(&mut story, 101);
    story.at("5m");
    story.saw(
        "30s signal 100 TERM
         30s ladder: 100 until 1m
         32s ladder over
         32s survey what 100 left
         32s run start: bin/start
         35s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         1m40s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5",
    );
    story.last_mail_says("restarting it because of memory > 2600MiB");
    story.last_mail_says("over: memory (100 MiB) > 2600 MiB");
    story.ends();
}

#[test]
fn nothing_is_acted_on_in_the_start_period() {
    let mut story = with_checks(vec![too_big(Action::Restart)]);
    story.crashes(100);
    samples(&mut story, 2710);
    comes_up(&mut story, 101);
    story.at("79s");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         10s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    // From its end on three bad ones are needed, whatever was seen before.
    story.at("79s");
    samples(&mut story, 100);
    story.at("5m");
    story.saw("");
    story.ends();
}

/// LOG-08: a start succeeds, and its port opens later: within the start period that is nobody's trouble; a
/// moment after it that is one restart.
#[test]
fn log_08_a_port_that_opens_late_is_waited_for_as_long_as_the_start_period() {
    let refused = || Some(Observation::failed("connection refused"));
    for (opens, restarts) in [("40s", 0), ("70s", 1)] {
        let mut story = Story::of(cart_with(|service| {
            service.start_period = span("60s");
            service.checks = vec![probe("failed", "1 of 1", Action::Restart)];
        }));
        story.world.probe = refused();
        story.begins();
        comes_up(&mut story, 101);
        story.at(opens);
        let seen = story.takes();
        let told = seen.iter().filter(|line| line.contains("signal 101 TERM")).count();
        assert_eq!(told, restarts, "{opens}: {seen:?}");
        if restarts > 0 {
            story.exits_orderly(101);
            story.until_a_command_runs();
            comes_up(&mut story, 102);
        }
        story.world.probe = Some(Observation::ok());
        story.at("10m");
        let seen = story.takes();
        assert!(!seen.iter().any(|line| line.contains("TERM")), "{opens}: {seen:?}");
        story.ends();
    }
}

#[test]
fn the_window_refills_after_the_action_then_the_restart_is_repeated_and_the_mail_is_not() {
    let mut story = with_checks(vec![too_big(Action::Restart)]);
    samples(&mut story, 2710);
    story.at("30s");
    story.exits_orderly(100);
    comes_up(&mut story, 101);
    story.at("109s");
    story.saw(
        "30s signal 100 TERM
         30s ladder: 100 until 1m
         30s ladder over
         30s survey what 100 left
         30s run start: bin/start
         35s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5",
    );
    story.at("120s");
    story.exits_orderly(101);
    samples(&mut story, 100);
    comes_up(&mut story, 102);
    story.at("5m");
    story.saw(
        "1m50s signal 101 TERM
         1m50s ladder: 101 until 2m20s
         2m ladder over
         2m survey what 101 left
         2m run start: bin/start
         3m mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5",
    );
    story.last_mail_says("still: memory (2710 MiB) > 2600 MiB");
    story.ends();
}

#[test]
fn an_alert_is_one_mail_per_firing_and_one_for_its_end() {
    let mut story = with_checks(vec![too_big(Action::Alert)]);
    samples(&mut story, 2710);
    story.at("1h");
    samples(&mut story, 100);
    story.at("2h");
    story.saw(
        "30s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         1h10s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5",
    );
    story.ends();
}

#[test]
fn an_alert_that_asks_to_be_repeated_is() {
    let mut check = too_big(Action::Alert);
    check.repeat = Some(span("1h"));
    let mut story = with_checks(vec![check]);
    samples(&mut story, 2710);
    story.at("3h");
    samples(&mut story, 100);
    story.at("6h");
    story.saw(
        "30s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         1h30s mail 1.1 reminder: memory (2710 MiB) > 2600 MiB, 3 of 5
         2h30s mail 1.2 reminder: memory (2710 MiB) > 2600 MiB, 3 of 5
         3h10s mail 1.3 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5",
    );
    story.ends();
}

#[test]
fn an_exec_happens_once_per_firing_unless_it_is_to_be_repeated() {
    let mut check = too_big(Action::Exec(command("bin/dump")));
    check.repeat = Some(span("10m"));
    let mut story = with_checks(vec![check]);
    samples(&mut story, 2710);
    story.at("31s");
    story.command_ends(JobKind::Exec, 0, "dumped");
    story.at("10m31s");
    story.command_ends(JobKind::Exec, 0, "dumped");
    story.saw(
        "30s run exec: bin/dump
         35s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         10m30s run exec: bin/dump",
    );
    // Not once nobody wants to know.
    story.order(Order::Unmonitor);
    story.at("1h");
    story.saw(
        "10m31s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5
         10m31s answer 1 done: not monitored: left alone until `heeler monitor`",
    );
    story.ends();
}

#[test]
fn a_crash_during_an_exec_waits_for_its_end() {
    let mut story = with_checks(vec![too_big(Action::Exec(command("bin/dump")))]);
    samples(&mut story, 2710);
    story.at("31s");
    story.crashes(100);
    samples(&mut story, 100);
    story.at("33s");
    story.command_ends(JobKind::Exec, 1, "");
    comes_up(&mut story, 101);
    story.at("3m");
    story.saw(
        "30s run exec: bin/dump
         31s survey what 100 left
         33s remove the pidfile of 100
         33s run start: bin/start
         35s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         43s mail 2.0 fired and resolved: the main process 100 is gone
         1m40s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5",
    );
    story.ends();
}

#[test]
fn one_good_verdict_may_not_be_enough_and_recovery_may_act() {
    let mut check = rule("memory > 2600MiB", "1 of 1", Action::Alert);
    check.recover = Tolerance::Times { n: 2, m: 2 };
    check.on_recovery = vec![Action::Exec(command("bin/all-clear"))];
    let mut story = with_checks(vec![check]);
    for (second, mib) in [("10s", 2710), ("20s", 100), ("30s", 2710), ("40s", 100), ("50s", 100)] {
        samples(&mut story, mib);
        story.at(second);
    }
    story.command_ends(JobKind::Exec, 0, "");
    story.saw(
        "10s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 1 of 1
         50s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 1 of 1
         50s run exec: bin/all-clear",
    );
    story.ends();
}

#[test]
fn a_duration_is_every_verdict_for_so_long() {
    let mut story = with_checks(vec![rule("memory > 2600MiB", "90s", Action::Alert)]);
    samples(&mut story, 2710);
    story.at("80s");
    samples(&mut story, 100);
    story.at("90s");
    samples(&mut story, 2710);
    story.at("190s");
    story.saw("3m10s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, for 1m30s");
    samples(&mut story, 100);
    story.at("200s");
    story.saw("3m20s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, for 1m30s");
    story.ends();
}

#[test]
fn unknown_never_acts_and_alerts_by_itself_after_three() {
    let mut story = with_checks(vec![rule("memory > 2600MiB", "1 of 1", Action::Restart)]);
    story.world.sample = Some(cannot_tell("permission denied"));
    story.at("1h");
    story.saw("30s mail 1.0 fired: memory > 2600MiB cannot be told: permission denied");
    story.world.sample = Some(memory_mib(100));
    story.at("2h");
    story.saw("1h10s mail 1.1 resolved: memory > 2600MiB cannot be told: permission denied");
    story.ends();
}

#[test]
fn unknown_verdicts_are_skipped_between_bad_ones() {
    let mut story = with_checks(vec![too_big(Action::Alert)]);
    for (second, seen) in [
        ("10s", memory_mib(2710)),
        ("20s", cannot_tell("busy")),
        ("30s", memory_mib(2710)),
        ("40s", cannot_tell("busy")),
        ("50s", memory_mib(2710)),
    ] {
        story.world.sample = Some(seen);
        story.at(second);
    }
    samples(&mut story, 100);
    story.at("1m");
    story.saw(
        "50s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         1m mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5",
    );
    story.ends();
}

/// LOG-09.
#[test]
fn two_rules_that_fire_together_are_one_action_with_two_reasons() {
    let threads = rule("memory > 2000MiB", "3 of 5", Action::Restart);
    let mut story = with_checks(vec![too_big(Action::Restart), threads]);
    samples(&mut story, 2710);
    story.at("30s");
    story.exits_orderly(100);
    samples(&mut story, 100);
    comes_up(&mut story, 101);
    story.at("2m");
    story.saw(
        "30s signal 100 TERM
         30s ladder: 100 until 1m
         30s ladder over
         30s survey what 100 left
         30s run start: bin/start
         35s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         35s mail 2.0 fired: memory (2710 MiB) > 2000 MiB, 3 of 5
         1m30s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5
         1m30s mail 2.1 resolved: memory (2710 MiB) > 2000 MiB, 3 of 5",
    );
    story.ends();
}

#[test]
fn a_rule_does_not_restart_what_an_operator_stopped() {
    let mut story = with_checks(vec![too_big(Action::Restart)]);
    samples(&mut story, 2710);
    story.at("20s");
    story.order(Order::Stop);
    story.at("25s");
    story.exits_orderly(100);
    story.at("10m");
    story.saw(
        "20s signal 100 TERM
         20s ladder: 100 until 50s
         25s ladder over
         25s survey what 100 left
         25s answer 1 done: it is down",
    );
    story.ends();
}

#[test]
fn in_observe_mode_a_rule_only_says_what_it_would_do() {
    let mut story = Story::of_running(cart_with(|service| {
        service.mode = Mode::Observe;
        service.checks = vec![too_big(Action::Restart)];
    }));
    samples(&mut story, 2710);
    story.at("10m");
    story.saw("35s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5");
    story.last_mail_says("would restart now (memory > 2600MiB), but mode is \"observe\"");
    samples(&mut story, 100);
    story.at("11m");
    story.reads();
    story.ends();
}

#[test]
fn a_late_sample_is_counted_and_dropped() {
    let mut story = with_checks(vec![rule("memory > 2600MiB", "1 of 1", Action::Restart)]);
    story.world.sample = None;
    story.at("10s");
    story.crashes(100);
    comes_up(&mut story, 101);
    // It is about the process before: too big or not, that one is gone.
    story.sample_is_answered(memory_mib(2710));
    story.late_answers_were_counted(1);
    samples(&mut story, 100);
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn an_exit_that_nobody_reported_costs_one_interval() {
    let mut story = Story::of_running(cart());
    story.at("11s");
    story.dies_unseen(100);
    story.at("20s");
    story.saw(
        "20s survey what 100 left
         20s remove the pidfile of 100
         20s run start: bin/start",
    );
    comes_up(&mut story, 101);
    story.at("1m");
    story.saw("30s mail 1.0 fired and resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn a_hot_restart_is_noticed_and_has_its_start_period() {
    let mut story = with_checks(vec![rule("memory > 2600MiB", "1 of 1", Action::Restart)]);
    story.at("5s");
    // The new master writes the pidfile while the old one still lives.
    story.appears(101);
    story.at("11s");
    story.status_is("up, start period 59s");
    story.saw("10s let go of 100");
    story.log_says("the main process changed from 100 to 101");
    // The sample that was on its way is about the old one.
    story.late_answers_were_counted(1);
    story.dies_unseen(100);
    story.at("2m");
    story.saw("");
    story.ends();
}

#[test]
fn a_process_that_lost_its_pidfile_goes_on() {
    let mut story = Story::of_running(cart());
    story.at("5s");
    story.world.claim = Claim::NoPidfile;
    story.at("1m");
    // The held process is better proof than a file: nothing is started beside it.
    story.saw("");
    story.status_is("up");
    story.exits_orderly(100);
    story.saw("1m survey what 100 left");
    story.at("65s");
    comes_up(&mut story, 101);
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn a_check_may_be_run_more_often_than_its_service_is_looked_at() {
    let mut check = too_big(Action::Alert);
    check.every = span("2s");
    let mut story = with_checks(vec![check]);
    story.at("10s");
    samples(&mut story, 2710);
    story.at("16s");
    samples(&mut story, 100);
    story.at("18s");
    story.saw(
        "16s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         18s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5",
    );
    story.ends();
}

#[test]
fn a_check_may_be_run_more_rarely() {
    let mut check = rule("memory > 2600MiB", "2 of 2", Action::Alert);
    check.every = span("1m");
    let mut story = with_checks(vec![check]);
    samples(&mut story, 2710);
    story.at("1m59s");
    story.saw("");
    story.at("2m");
    story.saw("2m mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 2 of 2");
    samples(&mut story, 100);
    story.at("3m");
    story.saw("3m mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 2 of 2");
    story.ends();
}

#[test]
fn the_actions_of_a_list_are_done_one_after_the_other() {
    let mut check = too_big(Action::Exec(command("bin/dump")));
    check.then.push(Action::Exec(command("bin/page-me")));
    check.then.push(Action::Restart);
    let mut story = Story::of_running(cart_with(|service| {
        service.stop = Some(command("bin/stop"));
        service.checks = vec![check];
    }));
    samples(&mut story, 2710);
    story.at("35s");
    story.command_ends(JobKind::Exec, 0, "");
    story.at("36s");
    story.command_ends(JobKind::Exec, 0, "");
    story.at("38s");
    story.exits_orderly(100);
    story.command_ends(JobKind::Stop, 0, "");
    samples(&mut story, 100);
    comes_up(&mut story, 101);
    story.at("3m");
    story.saw(
        "30s run exec: bin/dump
         35s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         35s run exec: bin/page-me
         36s run stop: bin/stop
         38s ladder over
         38s survey what 100 left
         38s run start: bin/start
         1m40s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5",
    );
    story.ends();
}

#[test]
fn what_waited_for_an_exec_is_not_done_to_another_process() {
    let mut check = too_big(Action::Exec(command("bin/dump")));
    check.then.push(Action::Restart);
    let mut story = with_checks(vec![check]);
    samples(&mut story, 2710);
    story.at("31s");
    story.crashes(100);
    samples(&mut story, 100);
    story.at("32s");
    story.command_ends(JobKind::Exec, 0, "");
    comes_up(&mut story, 101);
    story.at("3m");
    story.saw(
        "30s run exec: bin/dump
         31s survey what 100 left
         32s remove the pidfile of 100
         32s run start: bin/start
         35s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5
         42s mail 2.0 fired and resolved: the main process 100 is gone
         1m40s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5",
    );
    story.ends();
}
