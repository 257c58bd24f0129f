//! Verified reloads: seen to their end, or taken back.

use std::path::PathBuf;

use heeler::model::action::Action;
use heeler::model::check::{Check, CheckKind};
use heeler::model::crew::{Duty, Member, PumaView};
use heeler::model::job::JobKind;
use heeler::model::observation::Observation;
use heeler::model::order::Order;
use heeler::model::puma::TroubleKind;
use heeler::model::service::Service;
use heeler::model::workers::{Budget, Kill, Workers};

use crate::story::*;
use crate::workers::of_worker;

fn puma(service: &mut Service) {
    service.workers = Some(Workers {
        pattern: "^cart".into(),
        user: None,
        stop_timeout: Some(span("20s")),
        min: 1,
        budget: Budget::default(),
        kill: Kill::Allowed,
    });
    service.puma = Some(a_puma());
    service.checks = vec![Check {
        kind: CheckKind::Http,
        every: span("10s"),
        ..probe("failed", "3 of 3", Action::Restart)
    }];
}

fn view(phase: u64, booted: u64, old: u64) -> PumaView {
    PumaView {
        phase: Some(phase),
        started_wall_ms: Some(1000),
        workers: Some(2),
        booted: Some(booted),
        old: Some(old),
        looping: None,
        words: format!("up {booted}/2"),
        target: Ok("/srv/r2".into()),
    }
}

fn of(release: &str, pid: i32) -> Member {
    Member { release: Some(release.into()), ..worker(pid, 100) }
}

fn begun(change: impl FnOnce(&mut Service)) -> Story {
    let mut story = Story::of_running(cart_with(|service| {
        puma(service);
        change(service);
    }));
    story.world.crew = vec![of("/srv/r1", 201), of("/srv/r1", 202)];
    story.world.puma = Some(view(0, 2, 0));
    story.at("5s");
    story.reads();
    story.order_verified(None);
    story
}

/// One after the other is replaced.
fn is_replaced(story: &mut Story, old: i32, new: i32) {
    let at = story.world.crew.iter().position(|one| one.identity == identity(old)).unwrap();
    story.world.crew[at] = of("/srv/r2", new);
}

#[test]
fn a_good_release_takes_over_and_that_is_said_when_it_is_so() {
    let mut story = begun(|_| {});
    story.saw("5s puma phased-restart");
    story.world.puma = Some(view(1, 2, 1));
    is_replaced(&mut story, 201, 211);
    story.at("7s");
    is_replaced(&mut story, 202, 212);
    story.world.puma = Some(view(1, 2, 0));
    story.at("20s");
    let lines = story.takes();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("answer 1 done: verified after 1"), "{lines:?}");
    assert!(lines[0].contains("all workers run /srv/r2, "), "{lines:?}");
    assert!(lines[0].contains("good answers of its pages"), "{lines:?}");
    story.log_says("1 of 2 workers are new and ready");
    story.log_says("2 of 2 workers are new and ready");
    story.at("2m");
    story.reads();
    story.ends();
}

/// Each that a rule takes away would keep it from its end. What the rule wants is done afterwards.
#[test]
fn no_rule_takes_a_worker_away_while_one_is_under_way() {
    let mut story = begun(|service| {
        let leak = rule("memory > 200MiB", "1 of 1", Action::RecycleWorker);
        service.checks.push(Check { kind: CheckKind::Worker, ..leak });
        service.checks[1].every = span("1s");
    });
    story.saw("5s puma phased-restart");
    story.world.puma = Some(view(1, 2, 0));
    story.world.crew = vec![of("/srv/r2", 211), of("/srv/r2", 212)];
    story.world.crew[0].seen = memory_mib(300);
    story.at("14s");
    let lines = story.takes();
    assert!(lines.iter().all(|line| !line.contains("worker 211 TERM")), "{lines:?}");
    assert!(story.until_worker_is_told(211));
    story.worker_goes(211);
    story.world.crew.push(of("/srv/r2", 213));
    story.at("2m");
    story.reads();
    story.ends();
}

/// One that dies before Puma begins has a successor from where Puma stood until then. Puma replaces that one,
/// too: nothing is wrong with the release.
#[test]
fn a_successor_that_was_forked_before_puma_began_is_one_of_the_old() {
    let mut story = begun(|_| {});
    story.saw("5s puma phased-restart");
    story.world.puma = Some(view(1, 2, 2));
    story.world.crew[0] = of("/srv/r1", 203);
    story.at("6s");
    story.saw("");
    story.world.puma = Some(view(1, 2, 1));
    is_replaced(&mut story, 202, 212);
    story.at("7s");
    is_replaced(&mut story, 203, 213);
    story.world.puma = Some(view(1, 2, 0));
    story.at("20s");
    let lines = story.takes();
    assert!(lines[0].contains("answer 1 done: verified after 1"), "{lines:?}");
    story.at("2m");
    story.reads();
    story.ends();
}

/// But where all are of the newest phase, it is Puma that forks from the wrong place.
#[test]
fn one_of_the_release_before_is_wrong_once_all_are_new() {
    let mut story = begun(|_| {});
    story.saw("5s puma phased-restart");
    story.world.puma = Some(view(1, 2, 0));
    story.world.crew = vec![of("/srv/r1", 211), of("/srv/r2", 212)];
    story.at("6s");
    let lines = story.takes();
    assert!(lines[0].contains("run exec: /bin/sh -c 'test -d"), "{lines:?}");
    story.log_says("worker 211 runs /srv/r1, not /srv/r2");
    story.command_ends(JobKind::Exec, 0, "");
    story.world.crew = vec![of("/srv/r1", 221), of("/srv/r1", 222)];
    story.world.puma = Some(view(2, 2, 0));
    story.at("10s");
    story.reads();
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn one_that_does_not_boot_is_taken_back_within_two_seconds_and_the_old_ones_serve_on() {
    let mut story = begun(|_| {});
    story.reads();
    let looping = Some("boot-loop: worker 0 began 3 times in 600ms; 1/2 serve".to_owned());
    let mut broken = of("/srv/r2", 211);
    broken.duty = Duty::Boots;
    story.world.crew = vec![broken, of("/srv/r1", 202)];
    story.world.puma = Some(PumaView { looping, ..view(1, 1, 1) });
    story.at("7s");
    let lines = story.takes();
    assert!(lines[0].contains("run exec: /bin/sh -c 'test -d"), "{lines:?}");
    assert!(lines[0].ends_with("/srv/r1 /srv/current /srv/r2"), "{lines:?}");
    story.command_ends(JobKind::Exec, 0, "");
    story.saw("7s puma reload-worker-directory");
    story.world.crew = vec![of("/srv/r1", 221), of("/srv/r1", 222)];
    story.world.puma = Some(view(1, 2, 0));
    story.at("10s");
    let lines = story.takes();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("answer 1 failed: the new release did not pass"), "{lines:?}");
    assert!(lines[0].contains("all workers run /srv/r1 again"), "{lines:?}");
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn where_the_release_before_is_gone_puma_is_not_sent_there() {
    let mut story = begun(|_| {});
    story.reads();
    let looping = Some("boot-loop: worker 0 began 3 times in 600ms; 1/2 serve".to_owned());
    story.world.puma = Some(PumaView { looping, ..view(1, 1, 1) });
    story.at("7s");
    story.reads();
    story.command_ends(JobKind::Exec, 1, "/srv/r1 is gone");
    let lines = story.takes();
    assert_eq!(lines.len(), 1, "Puma was asked: {lines:?}");
    assert!(
        lines[0].contains("`current` was not pointed back (failed with code 1): /srv/r1 is gone"),
        "{lines:?}"
    );
    story.ends();
}

#[test]
fn one_that_answers_badly_is_taken_back_and_no_rule_restarts_it_meanwhile() {
    let mut story =
        begun(|service| service.checks[0].tolerance = heeler::model::tolerance::Tolerance::ONCE);
    story.reads();
    story.world.puma = Some(view(1, 2, 1));
    is_replaced(&mut story, 201, 211);
    story.world.probe = Some(Observation::failed("500"));
    story.at("7s");
    let lines = story.takes();
    assert!(lines.iter().any(|line| line.contains("run exec: /bin/sh")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("TERM")), "{lines:?}");
    story.log_says("but a verified reload is under way");
    story.world.probe = Some(Observation::ok());
    story.command_ends(JobKind::Exec, 0, "");
    // Its ready worker is of the newest phase: Puma would keep it.
    story.saw("7s puma phased-restart");
    story.world.crew = vec![of("/srv/r1", 221), of("/srv/r1", 222)];
    story.world.puma = Some(view(1, 2, 0));
    story.at("10s");
    story.reads();
    story.at("3m");
    story.reads();
    story.ends();
}

#[test]
fn without_a_rollback_it_stops_there_and_says_what_to_type() {
    let mut story = begun(|service| service.puma.as_mut().unwrap().rollback = None);
    story.reads();
    let looping = Some("boot-loop".to_owned());
    story.world.puma = Some(PumaView { looping, ..view(1, 1, 1) });
    story.at("6s");
    let lines = story.takes();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("there is no `rollback` in its file"), "{lines:?}");
    assert!(lines[0].contains("pumactl reload-worker-directory"), "{lines:?}");
    story.world.puma = Some(view(1, 2, 0));
    story.at("2m");
    story.reads();
    story.ends();
}

/// A link is never pointed at a guess.
#[test]
fn what_ran_before_and_was_not_seen_is_not_gone_back_to() {
    let mut story = Story::of_running(cart_with(puma_of));
    let unseen = |pid| Member { release: None, ..worker(pid, 100) };
    story.world.crew = vec![unseen(201), unseen(202)];
    story.world.puma = Some(view(0, 2, 0));
    story.order_verified(None);
    story.reads();
    story.world.puma = Some(PumaView { looping: Some("boot-loop".into()), ..view(1, 1, 1) });
    story.at("2s");
    let lines = story.takes();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("which release ran before was not seen"), "{lines:?}");
    assert!(lines[0].contains("pumactl reload-worker-directory"), "{lines:?}");
    story.log_says("the new release does not pass: the new release does not boot");
    story.world.puma = Some(view(1, 2, 0));
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn what_must_not_be_begun_is_not() {
    for (puma, expected) in [
        (
            Some(PumaView { target: Err("leads nowhere".into()), ..view(0, 2, 0) }),
            "Puma would die of a restart",
        ),
        (Some(view(0, 1, 0)), "it is not whole before"),
        (Some(view(1, 2, 1)), "it is not whole before"),
        (Some(PumaView { workers: None, ..view(0, 2, 0) }), "it is no cluster"),
        (None, "Puma could not be asked"),
    ] {
        let mut story = Story::of_running(cart_with(puma_of));
        story.world.crew = vec![of("/srv/r1", 201), of("/srv/r1", 202)];
        story.world.puma = puma;
        story.order_verified(None);
        let lines = story.takes();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].contains("failed: not begun: ") && lines[0].contains(expected),
            "{lines:?}"
        );
        story.at("2m");
        story.reads();
        story.ends();
    }
    let mut story = Story::of_running(cart());
    story.order_verified(None);
    story.saw("0s answer 1 failed: not begun: only a Puma's reload can be verified: say [puma] in its file");
    story.ends();
}

fn puma_of(service: &mut Service) {
    puma(service);
}

#[test]
fn a_release_that_fails_its_own_trial_is_never_let_in() {
    let mut story = begun(|service| {
        service.puma.as_mut().unwrap().release = Some(command("bin/boot"));
    });
    story.saw("5s run exec: bin/boot");
    story.at("6s");
    story.command_ends(JobKind::Exec, 1, "no such table");
    story.saw("6s answer 1 failed: not begun: the new release failed with code 1: no such table");
    story.at("2m");
    story.ends();
}

#[test]
fn a_full_restart_instead_is_said_and_verified_alike() {
    let mut story = begun(|_| {});
    story.reads();
    story.world.crew = vec![of("/srv/r2", 211), of("/srv/r2", 212)];
    story.world.puma = Some(PumaView { started_wall_ms: Some(2000), ..view(0, 2, 0) });
    story.at("20s");
    let lines = story.takes();
    assert!(lines[0].contains("by a full restart"), "{lines:?}");
    story.log_says("Puma made a full restart of it");
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn puma_says_yes_and_does_nothing() {
    let mut story = begun(|_| {});
    story.reads();
    story.at("16s");
    let lines = story.takes();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("Puma said yes and did nothing"), "{lines:?}");
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn its_time_over_it_is_taken_back() {
    let mut story = Story::of_running(cart_with(puma_of));
    story.world.crew = vec![of("/srv/r1", 201), of("/srv/r1", 202)];
    story.world.puma = Some(view(0, 2, 0));
    story.order_verified(Some(span("30s")));
    story.reads();
    story.world.puma = Some(view(1, 2, 1));
    is_replaced(&mut story, 201, 211);
    story.at("31s");
    let lines = story.takes();
    assert!(lines.iter().any(|line| line.contains("run exec: /bin/sh")), "{lines:?}");
    story.command_ends(JobKind::Exec, 0, "");
    story.world.crew = vec![of("/srv/r1", 221), of("/srv/r1", 222)];
    story.world.puma = Some(view(1, 2, 0));
    story.at("40s");
    story.log_says("its time is over: 1 of 2 workers are new and ready");
    story.reads();
    story.at("3m");
    story.reads();
    story.ends();
}

#[test]
fn going_back_may_outlast_the_time_that_was_given() {
    let mut story = Story::of_running(cart_with(puma_of));
    story.world.crew = vec![of("/srv/r1", 201), of("/srv/r1", 202)];
    story.world.puma = Some(view(0, 2, 0));
    story.order_verified(Some(span("20s")));
    story.reads();
    let looping = Some("boot-loop".to_owned());
    story.world.puma = Some(PumaView { looping, ..view(1, 1, 1) });
    story.at("25s");
    story.command_ends(JobKind::Exec, 0, "");
    let lines = story.takes();
    assert_eq!(lines.last().map(String::as_str), Some("25s puma reload-worker-directory"));
    story.at("40s");
    story.saw("");
    story.world.puma = Some(view(1, 2, 0));
    story.at("45s");
    let lines = story.takes().join("\n");
    assert!(lines.contains("all workers run /srv/r1 again"), "{lines}");
    story.at("3m");
    story.reads();
    story.ends();
}

#[test]
fn a_master_that_dies_of_it_comes_up_with_the_release_before() {
    let mut story = begun(|_| {});
    story.reads();
    story.world.claim = Claim::Names(100);
    story.crashes(100);
    let lines = story.takes();
    assert!(lines.iter().any(|line| line.contains("run exec: /bin/sh -c 'test -d")), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.contains("answer 1 failed: failed: its master died")),
        "{lines:?}"
    );
    assert!(!lines.iter().any(|line| line.contains("run start")), "{lines:?}");
    story.command_ends(JobKind::Exec, 0, "");
    story.until_a_command_runs();
    let lines = story.takes();
    assert!(lines.iter().any(|line| line.contains("run start: bin/start")), "{lines:?}");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn one_that_is_under_way_goes_on_over_a_reload_unless_the_puma_is_another_one() {
    let mut story = begun(|_| {});
    story.saw("5s puma phased-restart");
    story.is_defined(cart_with(|service| {
        puma(service);
        service.stop_timeout = span("3s");
    }));
    story.world.puma = Some(view(1, 2, 1));
    is_replaced(&mut story, 201, 211);
    story.at("7s");
    story.log_says("1 of 2 workers are new and ready");
    story.saw("");
    story.is_defined(cart_with(|service| {
        puma(service);
        service.puma.as_mut().unwrap().current = Some(PathBuf::from("/srv/elsewhere"));
    }));
    story.saw(
        "7s answer 1 failed: not seen to its end: its Puma is another one in the new configuration; \
         `heeler workers` shows how they stand",
    );
    is_replaced(&mut story, 202, 212);
    story.world.puma = Some(view(1, 2, 0));
    story.at("2m");
    story.saw("");
    story.ends();
}

#[test]
fn a_keeper_that_comes_back_says_that_nobody_saw_it_to_its_end() {
    let mut story = begun(|_| {});
    story.saw("5s puma phased-restart");
    story.keeper_restarts();
    story.at("1m");
    let words = "verified reload: not seen to its end: heeler was restarted meanwhile";
    assert_eq!(story.times_logged(words), 1);
    // And that is told once.
    story.keeper_restarts();
    story.at("2m");
    assert_eq!(story.times_logged(words), 1);
    story.reads();
    story.ends();
}

#[test]
fn an_operator_who_takes_it_in_hand_means_what_is_there_and_nothing_is_taken_back() {
    for order in [Order::Stop, Order::Restart, Order::Unmonitor] {
        let mut story = begun(|service| service.stop = None);
        story.world.puma = Some(view(1, 2, 1));
        is_replaced(&mut story, 201, 211);
        story.at("6s");
        story.reads();
        story.order(order);
        let asked = format!("not seen to its end: {} asked by", order.name());
        let lines = story.takes();
        assert!(lines.iter().any(|line| line.contains(&asked)), "{lines:?}");
        story.crashes(100);
        story.at("15s");
        let lines = story.takes();
        assert!(!lines.iter().any(|line| line.contains("run exec")), "{lines:?}");
        if order == Order::Restart {
            story.appears(101);
            story.command_ends(JobKind::Start, 0, "");
            story.world.crew.clear();
        }
        story.at("5m");
        story.reads();
        story.ends();
    }
}

#[test]
fn what_has_not_answered_since_all_are_new_is_not_verified() {
    let mut story = begun(|_| {});
    story.reads();
    is_replaced(&mut story, 201, 211);
    is_replaced(&mut story, 202, 212);
    story.world.puma = Some(view(1, 2, 0));
    // Its pages hang: no answer is no good answer.
    story.world.probe = None;
    story.at("30s");
    story.saw("");
    story.world.probe = Some(Observation::ok());
    story.forgets_the_probe();
    story.at("1m30s");
    let lines = story.takes();
    assert!(lines[0].contains("answer 1 done: verified after "), "{lines:?}");
    assert!(!lines[0].contains(" 0 good answers"), "{lines:?}");
    story.at("5m");
    story.reads();
    story.ends();
}

#[test]
fn workers_that_are_frozen_or_not_seen_are_not_ready() {
    let seen = |change: &dyn Fn(&mut Story)| {
        let mut story = begun(|_| {});
        story.reads();
        is_replaced(&mut story, 201, 211);
        is_replaced(&mut story, 202, 212);
        story.world.puma = Some(view(1, 2, 0));
        change(&mut story);
        story.at("1m");
        story.saw("");
        story.world.crew = vec![of("/srv/r2", 211), of("/srv/r2", 212)];
        story.at("2m");
        let lines = story.takes();
        assert!(lines[0].contains("answer 1 done: verified after "), "{lines:?}");
        story.at("5m");
        story.reads();
        story.ends();
    };
    seen(&|story| story.world.crew[1].duty = Duty::Frozen);
    // Others than Puma speaks of: their titles are not those of workers.
    seen(&|story| story.world.crew.truncate(1));
    seen(&|story| story.world.crew.clear());
    seen(&|story| story.world.crew[0].release = None);
}

#[test]
fn a_release_that_mends_a_page_is_let_in() {
    let mut story = Story::of_running(cart_with(|service| {
        puma(service);
        service.checks[0].then = vec![Action::Alert];
    }));
    story.world.crew = vec![of("/srv/r1", 201), of("/srv/r1", 202)];
    story.world.puma = Some(view(0, 2, 0));
    story.world.probe = Some(Observation::failed("500"));
    story.at("15s");
    story.order_verified(None);
    story.reads();
    // The old ones answer badly, as before.
    story.world.puma = Some(view(1, 2, 2));
    story.at("20s");
    is_replaced(&mut story, 201, 211);
    story.world.puma = Some(view(1, 2, 1));
    story.at("25s");
    story.saw("15.5s mail 1.0 fired: failed (500), 3 of 3");
    is_replaced(&mut story, 202, 212);
    story.world.puma = Some(view(1, 2, 0));
    story.world.probe = Some(Observation::ok());
    story.at("40s");
    let lines = story.takes().join("\n");
    assert!(lines.contains("answer 1 done: verified after "), "{lines}");
    story.at("5m");
    story.reads();
    story.ends();
}

#[test]
fn what_was_not_heard_to_say_yes_may_do_it_all_the_same() {
    let mut story = Story::of_running(cart_with(puma_of));
    story.world.crew = vec![of("/srv/r1", 201), of("/srv/r1", 202)];
    story.world.puma = Some(view(0, 2, 0));
    story.world.puma_hears = Some(TroubleKind::Silent);
    story.order_verified(None);
    story.at("20s");
    story.saw("0s puma phased-restart");
    // Whoever held its control server went.
    is_replaced(&mut story, 201, 211);
    is_replaced(&mut story, 202, 212);
    story.world.puma = Some(view(1, 2, 0));
    story.at("40s");
    let lines = story.takes();
    assert!(lines[0].contains("answer 1 done: verified after "), "{lines:?}");
    story.at("2m");
    story.ends();

    // What cannot have heard is not waited for.
    let mut story = Story::of_running(cart_with(puma_of));
    story.world.crew = vec![of("/srv/r1", 201), of("/srv/r1", 202)];
    story.world.puma = Some(view(0, 2, 0));
    story.world.puma_hears = Some(TroubleKind::Forbidden);
    story.order_verified(None);
    let lines = story.takes();
    assert!(lines[1].starts_with("0s answer 1 failed: not begun: "), "{lines:?}");
    story.at("2m");
    story.ends();
}

#[test]
fn no_rule_takes_a_worker_away_meanwhile() {
    let mut story = begun(|service| {
        service.checks.push(of_worker("memory > 50MiB", "1 of 1", Action::RecycleWorker));
    });
    story.reads();
    story.at("9s");
    let lines = story.takes();
    assert!(!lines.iter().any(|line| line.contains("TERM")), "{lines:?}");
    is_replaced(&mut story, 201, 211);
    is_replaced(&mut story, 202, 212);
    story.world.puma = Some(view(1, 2, 0));
    story.at("1m");
    story.reads();
    story.at("5m");
    story.reads();
    story.ends();
}

#[test]
fn what_could_not_be_watched_is_not_begun() {
    let mut story = Story::of_running(cart_with(puma_of));
    story.world.crew_is_slow = true;
    story.order_verified(None);
    story.crew_cannot_be_seen("the last look at its processes has not come back for 5s");
    story.saw(
        "0s answer 1 failed: not begun: its workers cannot be looked at: \
         the last look at its processes has not come back for 5s",
    );
    story.world.crew_is_slow = false;
    story.at("2m");
    story.reads();
    story.ends();
}

#[test]
fn what_was_not_heard_to_go_back_may_do_it_all_the_same() {
    let mut story = begun(|_| {});
    story.reads();
    let looping = Some("boot-loop".to_owned());
    story.world.puma = Some(PumaView { looping, ..view(1, 1, 1) });
    story.world.puma_hears = Some(TroubleKind::Silent);
    story.at("6s");
    story.reads();
    story.command_ends(JobKind::Exec, 0, "");
    story.saw("6s puma reload-worker-directory");
    story.world.puma = Some(view(1, 2, 0));
    story.at("8s");
    let lines = story.takes().join("\n");
    assert!(lines.contains("all workers run /srv/r1 again"), "{lines}");
    story.at("2m");
    story.reads();
    story.ends();
}
