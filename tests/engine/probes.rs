//! Probes: checks of something else than the process, and services that have none.

use heeler::model::action::Action;
use heeler::model::check::Check;
use heeler::model::job::JobKind;
use heeler::model::metric::{Metric, Value};
use heeler::model::observation::Observation;
use heeler::model::order::Order;
use heeler::model::status::{Health, RuleState};

use crate::story::*;

fn with_probe(check: Check) -> Story {
    Story::of_running(cart_with(|service| service.checks = vec![check]))
}

fn refused() -> Option<Observation> {
    Some(Observation::failed("connection refused"))
}

#[test]
fn a_wrong_answer_three_times_of_five_restarts() {
    let mut story = with_probe(probe("failed", "3 of 5", Action::Restart));
    story.world.probe = refused();
    story.at("20s");
    let check = story.status().checks.remove(0);
    assert_eq!(check.state, RuleState::Pending);
    assert_eq!(check.text, "failed (connection refused), 2 of 5 so far, 3 of 5 fires");
    story.at("32s");
    story.exits_orderly(100);
    story.world.probe = Some(Observation::ok());
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("5m");
    story.saw(
        "30s signal 100 TERM
         30s ladder: 100 until 1m
         32s ladder over
         32s survey what 100 left
         32s run start: bin/start
         35s mail 1.0 fired: failed (connection refused), 3 of 5
         1m40s mail 1.1 resolved: failed (connection refused), 3 of 5",
    );
    story.ends();
}

#[test]
fn what_cannot_be_told_is_told_and_never_acts() {
    let mut story = with_probe(probe("failed", "1 of 1", Action::Restart));
    story.world.probe = Some(Observation::unknown("the name shop was not resolved"));
    story.at("2m");
    story.saw("30s mail 1.0 fired: failed cannot be told: the name shop was not resolved");
    story.world.probe = Some(Observation::ok());
    story.at("3m");
    story.saw("2m10s mail 1.1 resolved: failed cannot be told: the name shop was not resolved");
    story.ends();
}

#[test]
fn one_that_is_under_way_is_not_begun_twice() {
    let mut story = with_probe(probe("failed", "1 of 1", Action::Alert));
    story.world.probe = None;
    story.at("10s");
    let begun = story.probes;
    story.at("40s");
    assert_eq!(story.probes, begun);
    story.world.probe = Some(Observation::ok());
    story.probe_is_answered(Observation::ok());
    story.at("1m");
    assert!(story.probes > begun);
    story.ends();
}

#[test]
fn an_answer_about_the_process_before_says_nothing_of_this_one() {
    let mut story = with_probe(probe("failed", "1 of 1", Action::Restart));
    story.world.probe = None;
    story.at("10s");
    story.crashes(100);
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.reads();
    story.world.probe = Some(Observation::ok());
    story.at("12s");
    // The answer comes now that another process is there.
    story.probe_is_answered(Observation::failed("connection reset"));
    story.late_answers_were_counted(1);
    story.at("3m");
    story.saw("20s mail 1.0 fired and resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let mut story = with_probe(probe("failed", "1 of 1", Action::Alert));
    story.world.probe = None;
    story.at("10s");
    let begun = story.probes;
    story.world.probe = Some(Observation::ok());
    story.at("2m");
    assert!(story.probes > begun, "past its time and some more it counts as lost");
    story.forgets_the_probe();
    story.ends();
}

#[test]
fn nothing_is_probed_while_the_process_is_gone() {
    let mut story = with_probe(probe("failed", "1 of 1", Action::Restart));
    story.at("15s");
    story.crashes(100);
    let begun = story.probes;
    story.world.probe = refused();
    story.at("40s");
    assert_eq!(story.probes, begun);
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.world.probe = Some(Observation::ok());
    story.at("3m");
    story.reads();
    story.ends();
}

#[test]
fn a_change_is_told_once_with_what_was_done() {
    let mut story = with_probe(probe("changed", "1 of 1", Action::Exec(command("bin/reload"))));
    let seen = |fingerprint| {
        let detail = "index 7".into();
        Some(Observation { fingerprint: Some(fingerprint), detail, ..Observation::ok() })
    };
    story.world.probe = seen(1);
    story.at("30s");
    story.saw("");
    story.world.probe = seen(2);
    story.at("42s");
    story.command_ends(JobKind::Exec, 0, "");
    story.at("3m");
    story.saw(
        "40s run exec: bin/reload
         45s mail 1.0 fired and resolved: changed (index 7), 1 of 1",
    );
    story.last_mail_says("executing because of changed: bin/reload");
    story.world.probe = seen(1);
    story.at("3m15s");
    story.command_ends(JobKind::Exec, 0, "");
    story.at("4m");
    story.saw(
        "3m10s run exec: bin/reload
         3m15s mail 2.0 fired and resolved: changed (index 7), 1 of 1",
    );
    story.ends();
}

// ---- services without a process -------------------------------------------------------------------

fn watching(checks: Vec<Check>) -> Story {
    let mut story = Story::of(page(checks));
    story.begins();
    story
}

#[test]
fn a_service_without_a_process_is_its_checks() {
    let mut story = watching(vec![probe("failed", "2 of 2", Action::Alert)]);
    story.at("1m");
    story.saw("");
    story.status_is("watched");
    assert_eq!(story.status().health, Health::Good);
    story.world.probe = refused();
    story.at("2m");
    assert_eq!(story.status().health, Health::Wanting);
    story.reads();
    story.world.probe = Some(Observation::ok());
    story.at("3m");
    story.reads();
    assert_eq!(story.status().health, Health::Good);
    story.ends();
}

#[test]
fn it_cannot_be_started_or_stopped_and_says_so() {
    let mut story = watching(vec![probe("failed", "1 of 1", Action::Alert)]);
    for (order, n) in [(Order::Start, 1), (Order::Stop, 2), (Order::Restart, 3)] {
        story.order(order);
        let name = order.name();
        story.saw(&format!(
            "0s answer {n} failed: it has no process to {name}: only its checks are watched \
             (`heeler unmonitor cart` sets them aside, `heeler monitor cart` ends that)"
        ));
    }
    story.world.probe = refused();
    story.order(Order::Unmonitor);
    story.at("1m");
    story.saw("0s answer 4 done: not monitored: left alone until `heeler monitor`");
    story.status_is("not monitored (by root (pid 9))");
    story.order(Order::Monitor);
    story.at("1m20s");
    story.reads();
    assert_eq!(story.status().health, Health::Wanting);
    story.world.probe = Some(Observation::ok());
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn what_is_looked_at_once_a_day_is_looked_at_soon_after_the_start_too() {
    let daily = Check { every: span("24h"), ..probe("failed", "1 of 1", Action::Alert) };
    let mut story = watching(vec![daily]);
    story.at("15s");
    assert_eq!(story.probes, 1);
    story.at("23h");
    assert_eq!(story.probes, 1);
    story.at("25h");
    assert_eq!(story.probes, 2);
    story.ends();
}

// ---- across keepers, and in between ----------------------------------------------------------------

#[test]
fn what_changed_while_no_keeper_looked_is_told() {
    let mut story = with_probe(probe("changed", "1 of 1", Action::Alert));
    story.world.probe = print(1);
    story.at("20s");
    story.keeper_dies();
    story.world.probe = print(2);
    story.keeper_returns();
    story.at("1m");
    story.saw("25.067s mail 1.0 fired and resolved: changed, 1 of 1");
    story.keeper_restarts();
    story.at("2m");
    story.saw("");
    story.ends();
}

#[test]
fn failed_or_changed_goes_on_while_it_fails() {
    let mut story = with_probe(probe("failed or changed", "1 of 1", Action::Alert));
    story.world.probe = refused();
    story.at("1m");
    story.saw("10s mail 1.0 fired: failed (connection refused) or changed, 1 of 1");
    story.world.probe = print(1);
    story.at("2m");
    story.saw("1m10s mail 1.1 resolved: failed (connection refused) or changed, 1 of 1");
    story.ends();
}

#[test]
fn a_failure_without_the_value_that_is_asked_for_is_not_passed_over() {
    let mut story = with_probe(probe("response_time > 2s", "1 of 1", Action::Restart));
    story.world.probe = refused();
    story.at("2m");
    story.saw("30s mail 1.0 fired: response_time > 2s cannot be told: connection refused");
    story.world.probe =
        Some(Observation::ok().with(Metric::ResponseTime, Value::Duration(span("10ms"))));
    story.at("3m");
    story.saw("2m10s mail 1.1 resolved: response_time > 2s cannot be told: connection refused");
    story.ends();
}
