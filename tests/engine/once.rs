//! What happens once, a line or a change: it is told even when nothing may be done about it, for no later
//! look sees it again.

use heeler::model::action::Action;
use heeler::model::check::{Check, CheckKind};
use heeler::model::job::JobKind;
use heeler::model::metric::{Metric, Value};
use heeler::model::observation::{FailedBy, Observation};
use heeler::model::order::Order;

use crate::story::*;

fn lines(count: u64) -> Option<Observation> {
    Some(Observation::ok().with(Metric::Matches, Value::Count(count)))
}

/// `cart` with one rule, which acts. No line yet, and nothing changed.
fn with_rule(condition: &str, tolerance: &str, start_period: &str) -> Story {
    with_rule_every("1s", condition, tolerance, start_period)
}

fn with_rule_every(every: &str, condition: &str, tolerance: &str, start_period: &str) -> Story {
    let rule = probe(condition, tolerance, Action::Restart);
    let rule = Check { kind: CheckKind::File, every: span(every), ..rule };
    let mut story = Story::of(cart_with(|service| {
        service.checks = vec![rule];
        service.start_period = span(start_period);
    }));
    story.world.probe = Some(Observation { fingerprint: Some(1), ..lines(0).unwrap() });
    story.up_and_running()
}

/// It dies, and another one comes up.
fn dies_and_returns(story: &mut Story) {
    story.crashes(100);
    returns_as(story, 101);
}

fn returns_as(story: &mut Story, pid: i32) {
    story.until_a_command_runs();
    story.appears(pid);
    story.command_ends(JobKind::Start, 0, "");
}

/// It was told to go, and goes; another one comes, and all is well.
fn ends_well(mut story: Story, old: i32, new: i32) {
    story.dies_unseen(old);
    returns_as(&mut story, new);
    story.at("5m");
    story.reads();
    story.ends();
}

#[test]
fn the_last_words_of_a_process_are_told_and_restart_nothing() {
    for start_period in ["1m", "0s"] {
        let mut story = with_rule("matches > 0", "1 of 1", start_period);
        story.at("10500ms");
        story.world.probe = lines(2);
        dies_and_returns(&mut story);
        let begun = story.probes;
        story.at("11s");
        assert_eq!(story.probes, begun + 1, "it is looked for at once");
        story.world.probe = lines(0);
        story.at("50s");
        let seen = story.takes().join("\n");
        assert!(seen.contains("mail 2.0 fired and resolved: matches (2) > 0, 1 of 1"), "{seen}");
        assert!(!seen.contains("signal 101"), "{start_period}: {seen}");
        let why = match start_period {
            "0s" => "it may be about the process before",
            _ => "it is in its start period",
        };
        story.log_says(&format!("nothing is done about it (matches > 0): {why}"));
        // What the new one says is its own.
        story.at("2m");
        story.world.probe = lines(1);
        story.at("2m1s");
        let seen = story.takes().join("\n");
        assert!(seen.contains("signal 101 TERM"), "{start_period}: {seen}");
        story.world.probe = lines(0);
        ends_well(story, 101, 102);
    }
}

#[test]
fn a_line_that_is_answered_during_a_stop_is_told() {
    let mut story = with_rule("matches > 0", "1 of 1", "1m");
    story.world.probe = None;
    story.at("10s");
    story.order(Order::Restart);
    story.saw(
        "10s signal 100 TERM
         10s ladder: 100 until 40s",
    );
    story.probe_is_answered(lines(1).unwrap());
    story.log_says("nothing is done about it (matches > 0): its process is on its way out or in");
    story.world.probe = lines(0);
    story.at("20s");
    story.saw("15s mail 1.0 fired and resolved: matches (1) > 0, 1 of 1");
    ends_well(story, 100, 101);
}

/// `content` without an `if`: the lines are the failure.
#[test]
fn lines_that_are_the_failure_are_told_too() {
    let mut story = with_rule("failed", "1 of 1", "1m");
    story.at("10500ms");
    let seen = Observation::failed("a new line matches: FATAL: no memory");
    story.world.probe = Some(Observation { failed_by: FailedBy::Lines, ..seen });
    dies_and_returns(&mut story);
    story.at("11s");
    story.world.probe = lines(0);
    story.at("50s");
    let seen = story.takes().join("\n");
    assert!(seen.contains("fired and resolved: failed (a new line matches: FATAL"), "{seen}");
    assert!(!seen.contains("signal 101"), "{seen}");
    story.ends();
}

/// Its process is another one when the answer comes: how things were is nobody's, a line is told.
#[test]
fn an_answer_that_was_under_way_when_the_process_died_is_told() {
    let mut story = with_rule("matches > 0", "1 of 1", "1m");
    story.world.probe = None;
    story.at("10s");
    dies_and_returns(&mut story);
    story.reads();
    story.probe_is_answered(lines(1).unwrap());
    story.late_answers_were_counted(0);
    story.world.probe = lines(0);
    story.at("5m");
    let seen = story.takes().join("\n");
    assert!(seen.contains("fired and resolved: matches (1) > 0, 1 of 1"), "{seen}");
    story.ends();
}

#[test]
fn how_things_were_with_the_process_before_is_nobodys() {
    let mut story = with_rule("failed", "1 of 1", "0s");
    story.world.probe = None;
    story.at("10s");
    dies_and_returns(&mut story);
    story.at("11s");
    story.probe_is_answered(Observation::failed("mode 0666"));
    story.late_answers_were_counted(1);
    story.world.probe = lines(0);
    story.at("5m");
    let seen = story.takes().join("\n");
    assert!(!seen.contains("mode 0666") && !seen.contains("signal"), "{seen}");
    story.ends();
}

#[test]
fn a_change_that_is_seen_in_the_start_period_is_told() {
    let mut story = with_rule("changed", "1 of 1", "1m");
    story.at("10500ms");
    dies_and_returns(&mut story);
    story.at("20s");
    story.reads();
    story.world.probe = print(2);
    story.at("5m");
    story.saw(
        "20.5s mail 1.0 fired and resolved: the main process 100 is gone
         25.5s mail 2.0 fired and resolved: changed, 1 of 1",
    );
    story.log_says("nothing is done about it (changed): it is in its start period");
    story.ends();
}

/// It is not put off until there is peace.
#[test]
fn lines_that_go_on_and_on_in_a_long_start_period_are_told() {
    let mut story = with_rule("matches > 0", "1 of 1", "10m");
    story.at("10500ms");
    story.world.probe = lines(1);
    dies_and_returns(&mut story);
    story.at("30s");
    let seen = story.takes().join("\n");
    assert!(seen.contains("mail 2.0 fired: matches (1) > 0, 1 of 1"), "{seen}");
    story.world.probe = lines(0);
    story.at("1m");
    story.saw("34.5s mail 2.1 resolved: matches (1) > 0, 1 of 1");
    story.at("15m");
    story.saw("");
    story.ends();
}

#[test]
fn of_what_is_not_wanted_up_nothing_is_told() {
    let mut story = with_rule("matches > 0", "1 of 1", "1m");
    story.world.probe = None;
    story.at("10s");
    story.order(Order::Stop);
    story.reads();
    story.probe_is_answered(lines(1).unwrap());
    story.dies_unseen(100);
    story.at("1m");
    let seen = story.takes().join("\n");
    assert!(!seen.contains("matches"), "{seen}");
    story.ends();
}

/// How things are is no event: a failure in the start period is passed over, with a line or without.
#[test]
fn what_fails_with_or_without_a_line_is_no_event() {
    let mut story = with_rule("failed or matches > 0", "1 of 1", "1m");
    story.at("10500ms");
    story.world.probe =
        Some(Observation::failed("mode 0666").with(Metric::Matches, Value::Count(3)));
    dies_and_returns(&mut story);
    story.at("30s");
    story.world.probe = lines(0);
    story.at("5m");
    let seen = story.takes().join("\n");
    assert!(!seen.contains("mode 0666"), "{seen}");
    story.ends();
}

#[test]
fn a_tolerance_is_kept_where_nothing_is_done() {
    let mut story = with_rule("matches > 0", "3 of 5", "1m");
    story.at("10500ms");
    story.world.probe = lines(1);
    dies_and_returns(&mut story);
    story.at("12s");
    story.world.probe = lines(0);
    story.at("1m");
    let seen = story.takes().join("\n");
    assert!(!seen.contains("matches"), "two looks of three: {seen}");
    story.world.probe = lines(1);
    story.at("1m5s");
    story.world.probe = lines(0);
    story.at("3m");
    let seen = story.takes().join("\n");
    assert!(seen.contains("fired and resolved: matches (1) > 0, 3 of 5"), "{seen}");
    story.ends();
}

/// Two starts are a second apart at least; what asks for the second one is not forgotten meanwhile.
#[test]
fn a_restart_that_comes_too_soon_after_a_start_waits() {
    let mut story = with_rule_every("200ms", "changed", "1 of 1", "0s");
    story.at("10s");
    dies_and_returns(&mut story);
    story.at("10500ms");
    let seen = story.takes().join("\n");
    assert!(seen.contains("run start") && !seen.contains("mail"), "{seen}");
    story.world.probe = print(2);
    story.at("10900ms");
    story.saw("");
    story.at("12s");
    let seen = story.takes().join("\n");
    assert!(seen.contains("signal 101 TERM"), "{seen}");
    ends_well(story, 101, 102);
}
