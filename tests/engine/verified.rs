//! Verified reloads: seen to their end, or taken back.

use std::path::PathBuf;

use heeler::model::action::Action;
use heeler::model::check::{Check, CheckKind};
use heeler::model::crew::{Duty, Member, PumaView};
use heeler::model::job::JobKind;
use heeler::model::observation::Observation;
use heeler::model::puma::TroubleKind;
use heeler::model::service::Service;
use heeler::model::workers::{Budget, Kill, Workers};

use crate::story::*;

pub(crate) fn puma(service: &mut Service) {
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

pub(crate) fn view(phase: u64, booted: u64, old: u64) -> PumaView {
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

pub(crate) fn of(release: &str, pid: i32) -> Member {
    Member { release: Some(release.into()), ..worker(pid, 100) }
}

pub(crate) fn begun(change: impl FnOnce(&mut Service)) -> Story {
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
pub(crate) fn is_replaced(story: &mut Story, old: i32, new: i32) {
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

pub(crate) fn puma_of(service: &mut Service) {
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
