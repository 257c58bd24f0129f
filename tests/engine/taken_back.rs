//! Verified reloads that are taken back: when, how far, and what is never pointed at.

use heeler::model::crew::{Duty, Member, PumaView};
use heeler::model::job::JobKind;
use heeler::model::observation::Observation;
use heeler::model::order::Order;
use heeler::model::puma::TroubleKind;

use crate::story::*;
use crate::verified::{begun, is_replaced, of, puma_of, view};

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
