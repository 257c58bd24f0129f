//! The configuration changes: what goes on, what begins anew, what ends.

use heeler::model::action::Action;
use heeler::model::change::Kept;
use heeler::model::ids::{CheckIndex, ServiceName};
use heeler::model::job::JobKind;
use heeler::model::observation::Observation;
use heeler::model::order::Order;
use heeler::model::service::{Life, Service};
use heeler::model::status::RuleState;

use crate::story::*;

fn comes_up(story: &mut Story, pid: i32) {
    story.appears(pid);
    story.command_ends(JobKind::Start, 0, "");
}

fn too_big(tolerance: &str) -> heeler::model::check::Check {
    rule("memory > 2600MiB", tolerance, Action::Alert)
}

fn too_busy() -> heeler::model::check::Check {
    rule("threads > 100", "1 of 1", Action::Alert)
}

fn checked(checks: Vec<heeler::model::check::Check>) -> Service {
    cart_with(|service| service.checks = checks)
}

fn states(story: &Story) -> Vec<RuleState> {
    story.status().checks.iter().map(|check| check.state).collect()
}

// ---- checks ----------------------------------------------------------------------------------

#[test]
fn an_unchanged_check_keeps_its_window_wherever_it_is_in_the_file() {
    let mut story = Story::of_running(checked(vec![too_big("3 of 5")]));
    story.world.sample = Some(memory_mib(2710));
    story.at("20s");
    assert_eq!(states(&story), [RuleState::Pending]);
    story.is_defined(checked(vec![too_busy(), too_big("3 of 5")]));
    assert_eq!(states(&story), [RuleState::Ok, RuleState::Pending]);
    story.at("30s");
    story.saw("30s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 5");
    story.world.sample = Some(memory_mib(100));
    story.at("40s");
    story.saw("40s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 5");
    story.ends();
}

#[test]
fn a_check_that_is_counted_otherwise_begins_to_count_anew_and_goes_on_firing() {
    let mut story = Story::of_running(checked(vec![too_big("2 of 2"), too_busy()]));
    story.world.sample = Some(memory_mib(2710));
    story.at("10s");
    story.is_defined(checked(vec![too_big("3 of 3"), too_busy()]));
    story.at("30s");
    story.saw("");
    story.at("40s");
    story.saw("40s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 3 of 3");
    // It fires: another number of verdicts is no reason to tell it again, nor that it is over.
    story.is_defined(checked(vec![too_big("1 of 1"), too_busy()]));
    assert_eq!(states(&story), [RuleState::Firing, RuleState::Ok]);
    story.at("1m");
    story.saw("");
    story.world.sample = Some(memory_mib(100));
    story.at("70s");
    story.saw("1m10s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 3 of 3");
    story.ends();
}

#[test]
fn the_incident_of_a_check_that_is_gone_is_closed_and_that_of_another_moves_with_it() {
    let busy = rule("memory > 2000MiB", "1 of 1", Action::Alert);
    let mut story = Story::of_running(checked(vec![too_big("1 of 1"), busy.clone()]));
    story.world.sample = Some(memory_mib(2710));
    story.at("10s");
    story.saw(
        "10s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 1 of 1
         10s mail 2.0 fired: memory (2710 MiB) > 2000 MiB, 1 of 1",
    );
    story.is_defined(checked(vec![busy]));
    story.saw("10s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 1 of 1");
    story.last_mail_says("over: it is no longer checked");
    assert_eq!(story.incident().cause.place(), Some(CheckIndex(0)));
    story.at("1m");
    story.saw("");
    story.world.sample = Some(memory_mib(100));
    story.at("70s");
    story.saw("1m10s mail 2.1 resolved: memory (2710 MiB) > 2000 MiB, 1 of 1");
    story.ends();
}

#[test]
fn an_answer_to_an_unchanged_check_counts_and_one_about_another_target_does_not() {
    let page_is = || probe("failed", "1 of 1", Action::Alert);
    let mut story = Story::of_running(checked(vec![page_is()]));
    story.world.probe = None;
    story.at("10s");
    story.is_defined(checked(vec![too_big("1 of 1"), page_is()]));
    story.probe_is_answered(Observation::failed("503"));
    story.at("11s");
    story.saw("10s mail 1.0 fired: failed (503), 1 of 1");
    story.at("20s");
    // The address is another one: nobody waits for what the old one said.
    story.is_defined_as(
        checked(vec![too_big("1 of 1"), page_is()]),
        &[Kept::Same(CheckIndex(0)), Kept::Other(CheckIndex(1))],
    );
    story.probe_is_answered(Observation::ok());
    story.late_answers_were_counted(1);
    story.saw("");
    assert_eq!(states(&story), [RuleState::Ok, RuleState::Firing]);
    story.world.probe = Some(Observation::ok());
    story.at("30s");
    story.saw("30s mail 1.1 resolved: failed (503), 1 of 1");
    story.ends();
}

#[test]
fn a_check_that_is_asked_more_often_is_asked_soon() {
    let daily = cart_with(|service| {
        let check = probe("failed", "1 of 1", Action::Alert);
        service.checks = vec![heeler::model::check::Check { every: span("1d"), ..check }];
    });
    let mut story = Story::of_running(daily);
    story.at("1h");
    let before = story.probes;
    story.is_defined(checked(vec![probe("failed", "1 of 1", Action::Alert)]));
    story.at("1h30s");
    assert_eq!(story.probes, before + 3);
    story.ends();
}

#[test]
fn what_a_rule_asked_for_behind_an_exec_is_done_unless_the_rule_is_gone() {
    for (there, expected) in [(true, "12s signal 100 TERM\n12s ladder: 100 until 42s"), (false, "")]
    {
        let mut both = too_big("1 of 1");
        both.then = vec![Action::Exec(command("bin/dump")), Action::Restart];
        let mut story = Story::of_running(checked(vec![both.clone()]));
        story.world.sample = Some(memory_mib(2710));
        story.at("10s");
        story.saw("10s run exec: bin/dump");
        let others = if there { vec![too_busy(), both] } else { vec![too_busy()] };
        story.is_defined(checked(others));
        story.at("12s");
        story.reads();
        story.command_ends(JobKind::Exec, 0, "");
        story.saw(expected);
        if there {
            story.exits_orderly(100);
            story.world.sample = Some(memory_mib(100));
            comes_up(&mut story, 101);
        }
        story.at("5m");
        story.reads();
        story.ends();
    }
}

// ---- what goes on ----------------------------------------------------------------------------

#[test]
fn a_stop_under_way_keeps_its_time_and_the_start_limit_its_count() {
    let mut story = Story::of_running(cart());
    for pid in 101..=105 {
        story.crashes(pid - 1);
        story.until_a_command_runs();
        comes_up(&mut story, pid);
    }
    story.at("2m");
    story.reads();
    story.order(Order::Restart);
    story.saw("2m signal 105 TERM\n2m ladder: 105 until 2m30s");
    story.is_defined(cart_with(|service| service.stop_timeout = span("5s")));
    story.at("2m10s");
    story.saw("");
    story.at("2m30s");
    story.saw("2m30s signal 105 KILL");
    story.exits_orderly(105);
    comes_up(&mut story, 106);
    story.reads();
    // Five starts of heeler's own are in the window, whatever the file was read for.
    story.is_defined(cart_with(|service| service.every = span("20s")));
    story.crashes(106);
    story.status_is("down, next start in 30s");
    story.until_a_command_runs();
    comes_up(&mut story, 107);
    story.at("1h");
    story.reads();
    story.ends();
}

#[test]
fn a_start_under_way_goes_on_with_its_own_command() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.reads();
    story.is_defined(cart_with(|service| service.start = Some(command("bin/other"))));
    story.at("20s");
    story.saw("5s mail 1.0 fired: the main process 100 is gone");
    comes_up(&mut story, 101);
    story.crashes(101);
    story.saw("20s survey what 101 left\n20s remove the pidfile of 101\n20s run start: bin/other");
    comes_up(&mut story, 102);
    story.at("10m");
    story.saw("30s mail 1.1 resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn what_it_may_do_now_it_does_at_once() {
    let observed = |service: &mut Service| service.start = None;
    let mut story = Story::of(cart_with(observed));
    story.begins();
    story.at("1h");
    story.reads();
    story.is_defined(cart());
    story.at("1h1s");
    story.saw("1h run start: bin/start");
    comes_up(&mut story, 100);
    story.at("2h");
    story.reads();
    story.ends();
}

#[test]
fn reminders_come_as_often_as_is_said_now() {
    let mut story = Story::of_running(checked(vec![too_big("1 of 1")]));
    story.world.sample = Some(memory_mib(2710));
    story.at("10s");
    story.saw("10s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 1 of 1");
    story.is_defined(cart_with(|service| {
        service.checks = vec![too_big("1 of 1")];
        service.remind = span("1h");
    }));
    story.at("1h1m");
    story.saw("1h10s mail 1.1 reminder: memory (2710 MiB) > 2600 MiB, 1 of 1");
    story.world.sample = Some(memory_mib(100));
    story.at("1h2m");
    story.reads();
    story.ends();
}

// ---- which process ---------------------------------------------------------------------------

fn elsewhere() -> Service {
    cart_with(|service| service.life = Life::Pidfile("/srv/cart/other.pid".into()))
}

#[test]
fn the_held_process_stays_until_the_new_claim_was_looked_at() {
    let mut story = Story::of_running(cart());
    story.world.claim = Claim::Silent;
    story.is_defined(elsewhere());
    story.status_is("up");
    story.lives_unclaimed(200);
    story.identify_is_answered(heeler::model::process::Identification::One(identity(200)));
    story.saw("0s let go of 100");
    story.status_is("up, start period 1m");
    story.world.claim = Claim::Names(200);
    story.at("10m");
    story.saw("");
    story.ends();
}

#[test]
fn a_new_claim_that_names_nobody_leaves_the_held_process_and_starts_no_second_one() {
    let mut story = Story::of_running(cart());
    story.world.claim = Claim::NoPidfile;
    story.is_defined(elsewhere());
    story.at("10m");
    story.saw("");
    story.status_is("up");
    story.crashes(100);
    story.at("10m6s");
    story.saw("10m survey what 100 left\n10m5s run start: bin/start");
    comes_up(&mut story, 101);
    story.at("20m");
    story.reads();
    story.ends();
}

#[test]
fn what_is_cleared_up_after_is_looked_for_at_the_new_claim_before_a_start() {
    let mut story = Story::of_running(cart());
    story.world.left = vec![survivor(110)];
    story.lives_unclaimed(110);
    story.crashes(100);
    story.at("3s");
    story.reads();
    // Under the old claim there was nobody; under the new one there is.
    story.appears(200);
    story.is_defined(elsewhere());
    story.status_is("up, start period 1m");
    story.saw("");
    story.crashes(110);
    story.late_answers_were_counted(1);
    story.at("10m");
    story.saw("13s mail 1.0 fired and resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn a_service_that_loses_its_process_lets_go_of_it_whatever_is_under_way() {
    let page_is = || probe("failed", "1 of 1", Action::Alert);
    let mut story = Story::of_running(checked(vec![page_is()]));
    story.order(Order::Stop);
    story.reads();
    story.is_defined(page(vec![page_is()]));
    story.saw(
        "0s ladder over
         0s let go of 100
         0s answer 1 failed: it has no process any more",
    );
    story.order(Order::Monitor);
    story.at("1h");
    story.saw("0s answer 2 done: monitored");
    story.status_is("watched");
    assert!(story.probes > 300);
    // And it gets one again.
    story.is_defined(checked(vec![page_is()]));
    story.saw("");
    story.at("1h1s");
    story.status_is("up, start period 59s");
    story.at("2h");
    story.saw("");
    story.ends();
}

// ---- files that go ---------------------------------------------------------------------------

#[test]
fn a_forgotten_service_is_not_touched_and_what_was_told_of_it_is_closed() {
    let mut story = Story::of_running(checked(vec![too_big("1 of 1")]));
    story.world.sample = Some(memory_mib(2710));
    story.at("10s");
    story.reads();
    story.order(Order::Restart);
    story.saw("10s signal 100 TERM\n10s ladder: 100 until 40s");
    story.is_forgotten();
    story.saw(
        "10s ladder over
         10s let go of 100
         10s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 1 of 1
         10s answer 1 failed: not finished: it is no longer watched: its file is gone",
    );
    story.last_mail_says("over: it is no longer watched: its file is gone");
    story.at("1h");
    story.ends_forgotten();
}

#[test]
fn a_renamed_service_goes_on_with_its_wish_and_is_told_of_under_its_new_name() {
    let named = |name: &str| {
        cart_with(|service| {
            service.name = ServiceName::parse(name).expect("a name");
            service.checks = vec![too_big("1 of 1")];
        })
    };
    let mut story = Story::of_running(named("cart"));
    story.world.sample = Some(memory_mib(2710));
    story.at("10s");
    story.saw("10s mail 1.0 fired: memory (2710 MiB) > 2600 MiB, 1 of 1");
    story.is_renamed(named("cart2"));
    story.saw("10s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 1 of 1");
    story.last_mail_says("it is watched as cart2 from now on");
    story.status_is("up");
    story.at("30s");
    story.saw("15s mail 2.0 fired: memory (2710 MiB) > 2600 MiB, 1 of 1");
    story.last_mail_says("its file was renamed: it was cart");
    story.order(Order::Stop);
    story.exits_orderly(100);
    story.reads();
    story.is_renamed(named("cart"));
    story.status_is("stopped by root (pid 9)");
    story.at("10m");
    story.saw("");
    story.ends();
}

#[test]
fn a_stop_under_way_goes_on_under_the_new_name() {
    let mut story = Story::of_running(cart());
    story.order(Order::Stop);
    story.at("10s");
    story.reads();
    story.is_renamed(cart_with(|service| {
        service.name = ServiceName::parse("cart2").expect("a name");
    }));
    story.saw("10s answer 1 failed: not finished: its file was renamed\n10s hold 100");
    story.at("30s");
    story.saw("30s signal 100 KILL");
    story.exits_orderly(100);
    story.saw("30s ladder over\n30s survey what 100 left");
    story.status_is("stopped by root (pid 9)");
    story.ends();
}

// ---- bad files -------------------------------------------------------------------------------

#[test]
fn a_bad_file_is_told_once_reminded_of_and_over_when_it_is_good() {
    let mut story = Story::of_running(cart());
    story.file_is(Some("cart.toml is bad: its last good definition stays in force"));
    story.at("1h");
    let bad = "cart.toml is bad: its last good definition stays in force";
    story.saw(&format!("5s mail 1.0 fired: {bad}"));
    story.last_mail_says("cart.toml:3:");
    assert_eq!(story.status().wrong, [format!("{bad} (since 1h)")]);
    // Read again, and still bad.
    story.file_is(Some(bad));
    story.at("4h6s");
    story.saw(&format!("4h5s mail 1.1 reminder: {bad}"));
    // A new keeper reads it, too.
    story.keeper_restarts();
    story.file_is(Some(bad));
    story.at("5h");
    story.saw("");
    story.file_is(None);
    story.saw(&format!("5h mail 1.2 resolved: {bad}"));
    story.ends();
}

#[test]
fn a_file_that_is_mended_at_once_is_nobodys_mail() {
    let mut story = Story::of_running(cart());
    story.file_is(Some("cart.toml is bad"));
    story.at("4s");
    story.file_is(None);
    story.at("1h");
    story.saw("");
    assert!(story.status().wrong.is_empty(), "{:?}", story.status().wrong);
    story.ends();
}

// ---- what was edited while no heeler ran -----------------------------------------------------

#[test]
fn a_new_keeper_knows_checks_by_what_they_are_and_closes_what_is_gone() {
    let busy = || rule("memory > 2000MiB", "1 of 1", Action::Alert);
    let mut story = Story::of_running(checked(vec![too_big("1 of 1"), busy()]));
    story.world.sample = Some(memory_mib(2710));
    story.at("10s");
    story.reads();
    story.keeper_dies();
    story.file_was_edited(checked(vec![busy()]));
    story.keeper_returns();
    story.saw("10s mail 1.1 resolved: memory (2710 MiB) > 2600 MiB, 1 of 1");
    story.last_mail_says("over: it is no longer checked");
    assert_eq!(story.incident().title, "memory (2710 MiB) > 2000 MiB, 1 of 1");
    assert_eq!(story.incident().cause.place(), Some(CheckIndex(0)));
    story.world.sample = Some(memory_mib(100));
    story.at("30s");
    story.saw("10.072s mail 2.1 resolved: memory (2710 MiB) > 2000 MiB, 1 of 1");
    story.ends();
}
