//! Workers: judged each by itself, taken away one by one, never the last of them.

use heeler::model::action::Action;
use heeler::model::check::{Check, CheckKind};
use heeler::model::order::{Order, WorkerPick};
use heeler::model::process::Pid;
use heeler::model::service::{Mode, Service};
use heeler::model::status::RuleState;
use heeler::model::workers::{Budget, Fragile, Kill, Workers};

use crate::story::*;

pub(crate) fn of_worker(condition: &str, tolerance: &str, then: Action) -> Check {
    Check { kind: CheckKind::Worker, ..rule(condition, tolerance, then) }
}

pub(crate) fn workers() -> Workers {
    Workers {
        pattern: "^cart: worker".into(),
        user: None,
        stop_timeout: Some(span("20s")),
        min: 2,
        budget: Budget::default(),
        kill: Kill::Allowed,
    }
}

pub(crate) fn with_workers(check: Check, change: impl FnOnce(&mut Service)) -> Story {
    let mut story = Story::of(cart_with(|service| {
        service.workers = Some(workers());
        service.checks = vec![check];
        change(service);
    }));
    story.world.crew = vec![worker(201, 100), worker(202, 100), worker(203, 100)];
    story.up_and_running()
}

pub(crate) fn leak(then: Action) -> Story {
    with_workers(of_worker("memory > 200MiB", "2 of 3", then), |_| {})
}

pub(crate) fn grows(story: &mut Story, pid: i32) {
    for member in &mut story.world.crew {
        if member.identity == identity(pid) {
            member.seen = memory_mib(300);
        }
    }
}

#[test]
fn a_worker_that_leaks_is_recycled_and_the_others_are_not() {
    let mut story = leak(Action::RecycleWorker);
    grows(&mut story, 202);
    story.at("20s");
    story.is_succeeded(202, 204);
    story.at("2m");
    story.saw(
        "11s worker 202 TERM
         16s mail 1.0 fired: worker 202: memory (300 MiB) > 200 MiB, 2 of 3
         21.2s mail 1.1 resolved: worker 202: memory (300 MiB) > 200 MiB, 2 of 3",
    );
    story.last_mail_says("telling worker 202 to go: memory (300 MiB) > 200 MiB");
    story.last_mail_says("worker 202 is gone after 9s");
    story.ends();
}

#[test]
fn kil_07_five_at_once_go_one_by_one_the_oldest_first_each_after_its_successor() {
    let mut story =
        with_workers(of_worker("memory > 200MiB", "1 of 1", Action::RecycleWorker), |s| {
            s.workers.as_mut().unwrap().budget.actions = 10;
        });
    story.world.crew = (201..=205).map(|pid| worker(pid, 300)).collect();
    story.at("15s");
    let told = story.takes();
    assert_eq!(told.iter().filter(|line| line.contains("TERM")).count(), 1, "{told:?}");
    assert!(told[0].ends_with("worker 201 TERM"), "{told:?}");
    story.worker_goes(201);
    // It went, and has no successor: nobody else goes.
    story.at("1m");
    assert_eq!(story.takes().iter().filter(|line| line.contains("TERM")).count(), 0);
    for (gone, next) in [(202, 301), (203, 302), (204, 303), (205, 304)] {
        story.world.crew.push(worker(next, 100));
        let seen = story.until_worker_is_told(gone);
        assert!(seen, "worker {gone} has its turn");
        story.worker_goes(gone);
    }
    story.world.crew.push(worker(305, 100));
    story.at("20m");
    story.reads();
    story.ends();
}

#[test]
fn one_that_does_not_go_is_killed_after_its_time_with_evidence() {
    let mut story = leak(Action::KillWorker);
    grows(&mut story, 203);
    story.at("33s");
    story.is_succeeded(203, 204);
    story.at("3m");
    story.saw(
        "11s worker 203 TERM
         16s mail 1.0 fired: worker 203: memory (300 MiB) > 200 MiB, 2 of 3
         31s worker 203 KILL
         44s mail 1.1 resolved: worker 203: memory (300 MiB) > 200 MiB, 2 of 3",
    );
    story.last_mail_says("worker 203 is still there after 20s: sending SIGKILL");
    story.last_mail_says("worker 203 before its KILL: state S");
    story.ends();
}

#[test]
fn recycle_never_kills_and_does_not_ask_twice() {
    let mut story = leak(Action::RecycleWorker);
    grows(&mut story, 201);
    story.at("10m");
    story.saw(
        "11s worker 201 TERM
         16s mail 1.0 fired: worker 201: memory (300 MiB) > 200 MiB, 2 of 3",
    );
    story.is_succeeded(201, 204);
    story.at("11m");
    story.reads();
    story.ends();
}

#[test]
fn at_the_minimum_a_leak_is_held_back_and_told() {
    let mut story = leak(Action::KillWorker);
    story.world.crew = vec![worker(201, 300), worker(202, 100)];
    story.at("3m");
    let lines = story.takes();
    assert!(lines.iter().all(|line| !line.contains("TERM")), "{lines:?}");
    assert!(lines[0].contains("mail 1.0 fired"), "{lines:?}");
    story.last_mail_says("worker 201 is held back: only 2 of 3 workers are there");
    // Two is what there is now: and then it is the last but one.
    story.log_says("worker 201 is held back: only 1 would serve without it, and min is 2");
    story.world.crew[0].seen = memory_mib(100);
    story.at("4m");
    story.reads();
    story.ends();
}

#[test]
fn one_that_dies_at_boot_before_anybody_looks_keeps_the_others_alive() {
    let mut story = leak(Action::KillWorker);
    story.world.crew = vec![worker(201, 300), worker(202, 300)];
    story.world.crew_coming = 1;
    // Longer than one that went is missed for.
    story.at("10m");
    let lines = story.takes();
    assert!(lines.iter().all(|line| line.contains("mail")), "{lines:?}");
    story.log_says("1 more not ready by their master's word, and may never be");
    story.world.crew_coming = 0;
    story.world.crew = vec![worker(201, 100), worker(202, 100), worker(203, 100)];
    story.at("11m");
    story.reads();
    story.ends();
}

#[test]
fn who_would_take_others_along_is_never_killed() {
    let mut story = leak(Action::KillWorker);
    grows(&mut story, 201);
    story.world.crew[0].fragile = Some(Fragile::Postgres);
    story.at("3m");
    story.saw(
        "11s worker 201 TERM
         16s mail 1.0 fired: worker 201: memory (300 MiB) > 200 MiB, 2 of 3",
    );
    story.log_says("worker 201 was told to go 20s ago and is still there");
    story.world.crew[0].seen = memory_mib(100);
    story.at("4m");
    story.reads();
    story.ends();
}

#[test]
fn the_budget_is_kept() {
    let mut story =
        with_workers(of_worker("memory > 200MiB", "1 of 1", Action::RecycleWorker), |s| {
            s.workers.as_mut().unwrap().budget = Budget { actions: 1, window: span("5m") };
        });
    grows(&mut story, 201);
    grows(&mut story, 202);
    story.at("10s");
    story.is_succeeded(201, 204);
    story.at("4m");
    let told = story.takes().iter().filter(|line| line.contains("TERM")).count();
    assert_eq!(told, 1);
    story.log_says("worker 202 is held back: the budget of 1 per 5m is used up");
    story.at("6m");
    let told = story.takes().iter().filter(|line| line.contains("worker 202 TERM")).count();
    assert_eq!(told, 1);
    story.is_succeeded(202, 205);
    story.at("8m");
    story.reads();
    story.ends();
}

#[test]
fn an_operator_takes_one_away_under_the_same_guard() {
    let mut story = leak(Action::Alert);
    story.order_worker(WorkerPick::Pid(Pid(202)));
    story.at("1s");
    story.worker_goes(202);
    story.saw(
        "0s worker 202 TERM
         1s answer 1 done: worker 202 is gone after 1s",
    );
    story.order_worker(WorkerPick::Pid(Pid(203)));
    story.at("3s");
    story.saw("1s answer 2 failed: not done: only 2 of 3 workers are there");
    story.world.crew.push(worker(204, 100));
    story.order_worker(WorkerPick::Pid(Pid(7)));
    story.order_worker(WorkerPick::Stuck);
    story.order_worker(WorkerPick::Pid(Pid(100)));
    story.at("5s");
    let lines = story.takes().join("\n");
    assert!(lines.contains("answer 3 failed: there is no worker 7"), "{lines}");
    assert!(lines.contains("answer 4 failed: no worker is stuck"), "{lines}");
    assert!(lines.contains("answer 5 failed: that is the main process"), "{lines}");
    story.at("1m");
    story.ends();
}

/// Whoever waits for what is being done is answered by its end, however long that takes: past the time of
/// an ordinary question heeler neither gives up nor asks itself all the time whether it is over.
#[test]
fn what_an_operator_waits_for_may_outlast_the_time_of_a_question_and_nobody_spins() {
    let mut story =
        with_workers(of_worker("memory > 200MiB", "1 of 1", Action::Alert), |service| {
            service.workers.as_mut().unwrap().stop_timeout = Some(span("2m"));
        });
    story.order_worker(WorkerPick::Pid(Pid(202)));
    story.order_worker(WorkerPick::Pid(Pid(203)));
    story.at("1m");
    story.saw(
        "0s worker 202 TERM
         30s answer 2 failed: not done: worker 202 is being taken away, and one goes at a time",
    );
    story.worker_goes(202);
    story.saw("1m answer 1 done: worker 202 is gone after 1m");
    story.world.crew.push(worker(204, 100));
    story.at("2m");
    story.ends();
}

#[test]
fn who_only_observes_takes_nobody_away_and_who_is_not_wanted_up_is_not_judged() {
    let check = of_worker("memory > 200MiB", "1 of 1", Action::KillWorker);
    let mut story = with_workers(check.clone(), |service| service.mode = Mode::Observe);
    grows(&mut story, 201);
    story.at("1m");
    story.saw("6s mail 1.0 fired: worker 201: memory (300 MiB) > 200 MiB, 1 of 1");
    story.log_says("would tell worker 201 to go, but mode is \"observe\"");
    story.world.crew[0].seen = memory_mib(100);
    story.at("2m");
    story.reads();
    story.ends();

    let mut story = with_workers(check, |_| {});
    story.order(Order::Unmonitor);
    story.reads();
    grows(&mut story, 201);
    story.at("10m");
    story.saw("");
    story.world.crew[0].seen = memory_mib(100);
    story.order(Order::Monitor);
    story.at("12m");
    story.reads();
    story.ends();
}

#[test]
fn a_new_master_has_workers_nobody_knows() {
    let mut story = leak(Action::KillWorker);
    grows(&mut story, 201);
    story.at("10s");
    assert_eq!(story.status().checks[0].state, RuleState::Pending);
    story.crashes(100);
    story.appears(101);
    story.command_ends(heeler::model::job::JobKind::Start, 0, "");
    assert_eq!(story.status().checks[0].state, RuleState::Ok);
    story.world.crew = vec![worker(211, 100), worker(212, 100), worker(213, 100)];
    story.at("3m");
    story.reads();
    story.ends();
}

// ---- a new configuration ---------------------------------------------------------------------

fn with_checks(checks: Vec<Check>, workers: Option<Workers>) -> Service {
    cart_with(|service| {
        service.workers = workers;
        service.checks = checks;
    })
}

#[test]
fn what_a_rule_knows_of_a_worker_goes_with_the_rule_wherever_it_is_in_the_file() {
    let leaks = || of_worker("memory > 200MiB", "3 of 5", Action::RecycleWorker);
    let mut story = with_workers(leaks(), |_| {});
    grows(&mut story, 202);
    story.at("12s");
    let other = of_worker("threads > 900", "1 of 1", Action::Alert);
    let few = Workers { min: 1, ..workers() };
    story.is_defined(with_checks(vec![other, leaks()], Some(few)));
    let states: Vec<_> = story.status().checks.iter().map(|check| check.state).collect();
    assert_eq!(states, [RuleState::Ok, RuleState::Pending]);
    story.at("25s");
    story.is_succeeded(202, 204);
    story.saw("23s worker 202 TERM");
    story.at("2m");
    let lines = story.takes().join("\n");
    assert!(lines.contains("fired: worker 202: memory (300 MiB) > 200 MiB, 3 of 5"), "{lines}");
    assert!(lines.contains("resolved: worker 202"), "{lines}");
    story.ends();
}

#[test]
fn a_rule_for_workers_that_is_gone_is_no_longer_checked() {
    let mut story = leak(Action::Alert);
    grows(&mut story, 202);
    story.at("30s");
    story.saw("11s mail 1.0 fired: worker 202: memory (300 MiB) > 200 MiB, 2 of 3");
    story.is_defined(with_checks(Vec::new(), Some(workers())));
    story.saw("30s mail 1.1 resolved: worker 202: memory (300 MiB) > 200 MiB, 2 of 3");
    story.last_mail_says("over: it is no longer checked");
    story.at("2m");
    story.saw("");
    story.ends();
}

#[test]
fn where_others_are_the_workers_now_nobody_goes_for_what_was_said_of_those_before() {
    let workers_of = |pattern: &str| Some(Workers { pattern: pattern.into(), ..workers() });
    for after in [workers_of("^other"), None] {
        let mut story = leak(Action::Alert);
        story.order_worker(WorkerPick::Pid(Pid(202)));
        story.at("1s");
        story.saw("0s worker 202 TERM");
        story.is_defined(with_checks(Vec::new(), after));
        story.saw("1s answer 1 failed: who is a worker is said otherwise now");
        story.world.crew = Vec::new();
        story.at("5m");
        story.saw("");
        story.ends();
    }
}

#[test]
fn who_asked_for_a_worker_of_a_service_that_is_forgotten_is_told_so() {
    let mut story = leak(Action::Alert);
    story.order_worker(WorkerPick::Pid(Pid(202)));
    story.at("1s");
    story.reads();
    story.order_worker(WorkerPick::Pid(Pid(203)));
    story.is_forgotten();
    let lines = story.takes().join("\n");
    let why = "not finished: it is no longer watched: its file is gone";
    assert!(lines.contains(&format!("answer 1 failed: {why}")), "{lines}");
    assert!(lines.contains(&format!("answer 2 failed: {why}")), "{lines}");
    story.at("5m");
    story.ends_forgotten();
}

#[test]
fn a_keeper_that_comes_back_has_no_fresh_budget() {
    let mut story =
        with_workers(of_worker("memory > 200MiB", "1 of 1", Action::RecycleWorker), |s| {
            s.workers.as_mut().unwrap().budget = Budget { actions: 1, window: span("5m") };
        });
    grows(&mut story, 201);
    story.at("5s");
    story.saw("1s worker 201 TERM");
    story.is_succeeded(201, 204);
    grows(&mut story, 202);
    story.at("10s");
    story.keeper_restarts();
    story.at("4m");
    story.log_says("worker 202 is held back: the budget of 1 per 5m is used up");
    story.reads();
    assert!(story.until_worker_is_told(202));
    story.ends();
}

#[test]
fn a_keeper_that_comes_back_does_not_say_that_a_workers_trouble_is_over() {
    let mut story = leak(Action::Alert);
    grows(&mut story, 202);
    story.at("15s");
    story.saw("11s mail 1.0 fired: worker 202: memory (300 MiB) > 200 MiB, 2 of 3");
    story.keeper_restarts();
    story.at("5m");
    story.saw("");
    for member in &mut story.world.crew {
        member.seen = memory_mib(100);
    }
    story.at("6m");
    let lines = story.takes();
    assert!(lines[0].contains("mail 1.1 resolved: worker 202"), "{lines:?}");
    story.ends();
}

#[test]
fn what_was_set_aside_and_is_watched_again_is_told_again() {
    let mut story = leak(Action::Alert);
    grows(&mut story, 202);
    story.at("15s");
    story.reads();
    story.order(Order::Unmonitor);
    story.reads();
    story.at("1m");
    story.order(Order::Monitor);
    story.at("2m");
    let lines = story.takes().join("\n");
    assert!(lines.contains("fired: worker 202: memory (300 MiB) > 200 MiB"), "{lines}");
    story.ends();
}

#[test]
fn one_that_was_not_told_because_of_a_doubt_is_told_once_there_is_none() {
    let mut story = leak(Action::RecycleWorker);
    grows(&mut story, 202);
    story.world.refuses_signals = Some("who is a worker is said otherwise meanwhile");
    story.at("12s");
    story.log_says("worker 202 was not told to go: who is a worker is said otherwise meanwhile");
    story.reads();
    story.world.refuses_signals = None;
    assert!(story.until_worker_is_told(202));
    story.is_succeeded(202, 204);
    story.at("12m");
    story.reads();
    story.ends();
}

#[test]
fn who_did_not_go_when_told_is_killed_once_its_file_says_kill() {
    let mut story = leak(Action::RecycleWorker);
    grows(&mut story, 202);
    story.at("1m");
    story.reads();
    story.log_says("worker 202 was told to go 20s ago and is still there");
    let kills = of_worker("memory > 200MiB", "2 of 3", Action::KillWorker);
    story.is_defined(with_checks(vec![kills], Some(workers())));
    story.at("1m30s");
    let lines = story.takes().join("\n");
    assert!(lines.contains("worker 202 TERM") && lines.contains("worker 202 KILL"), "{lines}");
    story.is_succeeded(202, 204);
    story.at("12m");
    story.reads();
    story.ends();
}

#[test]
fn a_look_that_is_answered_late_does_not_cost_the_next_one() {
    let mut story = leak(Action::RecycleWorker);
    grows(&mut story, 202);
    story.world.crew_is_slow = true;
    story.at("1s300ms");
    story.crew_is_answered();
    story.at("11s100ms");
    story.crew_is_answered();
    story.saw("11.1s worker 202 TERM");
    story.world.crew_is_slow = false;
    story.is_succeeded(202, 204);
    story.at("5m");
    story.reads();
    story.ends();
}

#[test]
fn for_what_was_seen_long_ago_nobody_is_taken_away() {
    let mut story =
        with_workers(of_worker("memory > 200MiB", "1 of 1", Action::RecycleWorker), |_| {});
    grows(&mut story, 202);
    story.world.crew_is_slow = true;
    story.at("21s");
    story.crew_is_answered();
    let lines = story.takes();
    assert!(!lines.iter().any(|line| line.contains("TERM")), "{lines:?}");
    story.world.crew_is_slow = false;
    assert!(story.until_worker_is_told(202));
    story.is_succeeded(202, 204);
    story.at("5m");
    story.reads();
    story.ends();
}

#[test]
fn what_an_earlier_keeper_told_of_one_rule_silences_no_other() {
    let mut story = leak(Action::Alert);
    grows(&mut story, 202);
    story.at("15s");
    story.saw("11s mail 1.0 fired: worker 202: memory (300 MiB) > 200 MiB, 2 of 3");
    story.keeper_restarts();
    // Its file has another rule in that place now.
    story.is_defined(with_checks(
        vec![of_worker("memory > 250MiB", "1 of 1", Action::Alert)],
        Some(workers()),
    ));
    story.at("1m");
    let lines = story.takes().join("\n");
    assert!(lines.contains("fired: worker 202: memory (300 MiB) > 250 MiB"), "{lines}");
    story.ends();
}

#[test]
fn a_signal_that_was_refused_uses_up_no_host_brake() {
    let mut story = leak(Action::RecycleWorker);
    story.engine.brake_at(Budget { actions: 1, window: span("1h") });
    grows(&mut story, 202);
    story.world.refuses_signals = Some("it belongs to another user");
    story.at("12s");
    story.reads();
    story.world.refuses_signals = None;
    assert!(story.until_worker_is_told(202));
    story.is_succeeded(202, 204);
    // And one that was sent does.
    grows(&mut story, 203);
    assert!(!story.until_worker_is_told(203));
    story.log_says("worker 203 is held back: the host brake of 1 per 1h is used up");
    story.reads();
    story.ends();
}

/// Its pidfile is gone, so the next keeper takes the process on trust of a record.
#[test]
fn a_new_keeper_looks_at_the_workers_of_a_master_that_nothing_names() {
    let mut story = leak(Action::RecycleWorker);
    story.keeper_dies();
    story.world.claim = Claim::NoPidfile;
    story.keeper_returns();
    story.at("1m");
    story.reads();
    grows(&mut story, 202);
    story.at("3m");
    let seen = story.takes().join("\n");
    assert!(seen.contains("worker 202 TERM"), "{seen}");
    story.is_succeeded(202, 204);
    story.at("5m");
    story.reads();
    story.ends();
}
