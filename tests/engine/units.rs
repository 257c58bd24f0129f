//! Units: their manager starts and stops them, and may be at work on them by itself.

use heeler::model::job::JobKind;
use heeler::model::order::Order;
use heeler::model::process::{Absence, Uid};
use heeler::model::unit::UnitEnd;

use crate::story::*;

fn down(end: UnitEnd) -> Claim {
    Claim::Managed(Absence::Inactive(end))
}

#[test]
fn systemd_restarts_it_and_heeler_stands_by_and_tells() {
    let mut story = Story::of_running(unit());
    story.world.claim = Claim::Managed(Absence::Coming);
    story.crashes(100);
    story.status_is("down, in the hands of its manager");
    story.at("1100ms");
    story.appears(101);
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         11.25s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    story.last_mail_says("its manager is bringing it up: waiting up to 30s");
    story.last_mail_says("up again: pid 101, after 1.2s");
    story.ends();
}

#[test]
fn a_deploys_own_restart_is_nobodys_mail() {
    let mut story = Story::of_running(unit());
    story.world.claim = Claim::Managed(Absence::Going);
    story.crashes(100);
    story.at("1s");
    story.succeeds(101);
    story.at("1m");
    story.saw("0s survey what 100 left");
    story.ends();
}

#[test]
fn what_systemd_gave_up_on_is_started_and_its_end_is_told() {
    let mut story = Story::of_running(unit());
    story.world.claim = down(UnitEnd::StartLimit);
    story.crashes(100);
    story.at("200ms");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         0s run start: systemctl --user start cart.service
         10.2s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    story.last_mail_says("its unit is down: systemd gave up on it: it was started too often");
    story.ends();
}

#[test]
fn who_stops_it_behind_heelers_back_has_five_seconds_to_start_it() {
    let mut story = Story::of_running(unit());
    story.world.claim = down(UnitEnd::Success);
    story.crashes(100);
    story.at("5200ms");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         5s run start: systemctl --user start cart.service
         15.2s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    story.last_mail_says("its unit ended by itself or was stopped");
    story.ends();
}

#[test]
fn a_worker_that_keeps_its_unit_from_going_is_reaped() {
    let mut story = Story::of_running(unit());
    story.world.claim = Claim::Managed(Absence::Going);
    story.lives_unclaimed(110);
    story.world.left = vec![listener(110)];
    story.crashes(100);
    story.at("10s");
    // It holds what every new copy needs, and systemd would wait for it for 90 seconds.
    story.crashes(110);
    story.world.claim = Claim::Managed(Absence::Coming);
    story.at("11s");
    story.appears(101);
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         2s signal 110 TERM
         5s mail 1.0 fired: the main process 100 is gone
         21.25s mail 1.1 resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn a_manager_that_takes_too_long_is_overtaken() {
    let mut story = Story::of_running(unit());
    story.world.claim = Claim::Managed(Absence::Going);
    story.crashes(100);
    story.at("30200ms");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("2m");
    story.saw(
        "0s survey what 100 left
         5s mail 1.0 fired: the main process 100 is gone
         30s run start: systemctl --user start cart.service
         40.2s mail 1.1 resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn a_unit_that_is_down_again_failed_to_start() {
    let mut story = Story::of(unit());
    story.world.claim = down(UnitEnd::Success);
    story.begins();
    story.at("100ms");
    story.world.claim = down(UnitEnd::ExitCode);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1200ms");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw(
        "0s run start: systemctl --user start cart.service
         1.1s run start: systemctl --user start cart.service
         11.2s mail 1.0 fired and resolved: failed to start: its unit is down again: its process failed (Result=exit-code)",
    );
    story.ends();
}

#[test]
fn a_look_from_before_the_start_ended_is_no_failure() {
    let mut story = Story::of(unit());
    story.world.claim = down(UnitEnd::Success);
    story.begins();
    story.world.claim = Claim::Silent;
    story.at("300ms");
    story.command_ends(JobKind::Start, 0, "");
    // What was asked at 250 ms is answered only now.
    story.identify_is_answered(heeler::model::process::Identification::None(Absence::Inactive(
        UnitEnd::Success,
    )));
    story.appears(101);
    story.at("2m");
    story.saw("0s run start: systemctl --user start cart.service");
    story.ends();
}

#[test]
fn at_boot_the_user_manager_is_waited_for() {
    let mut story = Story::of(unit());
    story.world.claim = Claim::Managed(Absence::ManagerComing);
    story.begins();
    story.at("100s");
    story.saw("");
    story.appears(100);
    story.at("3m");
    story.saw("");
    story.ends();
}

#[test]
fn a_user_manager_that_is_gone_is_started_and_the_unit_with_it() {
    let mut story = Story::of_running(unit());
    story.world.claim = Claim::Managed(Absence::NoManager(Uid(1500)));
    story.crashes(100);
    story.at("200ms");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         0s run start: systemctl start user@1500.service
         10.2s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    story.last_mail_says("its user manager, user@1500.service, is gone");
    story.ends();

    // A unit that does not come with its manager is started at once: that is one start, not two.
    let mut story = Story::of_running(unit());
    story.world.claim = Claim::Managed(Absence::NoManager(Uid(1500)));
    story.crashes(100);
    story.at("200ms");
    story.world.claim = down(UnitEnd::Success);
    story.command_ends(JobKind::Start, 0, "");
    story.until_a_command_runs();
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         0s run start: systemctl start user@1500.service
         0.2s run start: systemctl --user start cart.service
         10.2s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    assert_eq!(
        (story.times_logged("(1 of 5 per 10m)"), story.times_logged("(2 of 5 per 10m)")),
        (1, 0)
    );
    story.ends();
}

/// A manager that dies again and again is a start each time.
#[test]
fn a_manager_that_does_not_stay_uses_the_limit_up() {
    let mut story = Story::of_running(unit());
    story.world.claim = Claim::Managed(Absence::NoManager(Uid(1500)));
    story.crashes(100);
    for _ in 0..5 {
        story.until_a_command_runs();
        story.world.claim = down(UnitEnd::Success);
        story.command_ends(JobKind::Start, 0, "");
        story.until_a_command_runs();
        story.world.claim = Claim::Managed(Absence::NoManager(Uid(1500)));
        story.command_ends(JobKind::Start, 1, "Failed to connect to bus: Connection refused");
    }
    story.status_is("down, next start in 30s");
    assert_eq!(story.times_logged("(5 of 5 per 10m): systemctl start user@1500.service"), 1);
    story.until_a_command_runs();
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("30m");
    story.reads();
    story.ends();
}

#[test]
fn a_restart_is_its_stop_proof_of_death_and_its_start() {
    let mut story = Story::of_running(unit());
    story.order(Order::Restart);
    story.at("1s");
    story.world.claim = down(UnitEnd::Success);
    story.crashes(100);
    story.command_ends(JobKind::Stop, 0, "");
    story.at("2s");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.saw(
        "0s run stop: systemctl --user stop cart.service
         1s ladder over
         1s survey what 100 left
         1s run start: systemctl --user start cart.service
         2s answer 1 done: up after 2s, pid 101",
    );
    story.ends();
}

/// A manager waits for a worker that hangs, and is asked four times a second.
#[test]
fn what_a_manager_goes_on_saying_is_logged_once() {
    let mut story = Story::of_running(unit());
    story.order(Order::Restart);
    story.at("1s");
    story.world.claim = Claim::Managed(Absence::Going);
    story.crashes(100);
    story.command_ends(JobKind::Stop, 0, "");
    story.at("20s");
    story.world.claim = Claim::Managed(Absence::Coming);
    story.at("25s");
    assert_eq!(story.times_logged("is taking it down"), 1);
    assert_eq!(story.times_logged("is bringing it up"), 1);
    story.appears(101);
    story.at("30s");
    story.reads();
    story.ends();
}

#[test]
fn a_reload_of_its_unit_may_restart_it() {
    let mut story = Story::of_running(unit());
    story.order(Order::Reload);
    story.world.claim = Claim::Managed(Absence::Coming);
    story.crashes(100);
    story.at("1s");
    story.appears(101);
    story.command_ends(JobKind::Reload, 0, "");
    story.saw(
        "0s run reload: systemctl --user reload-or-restart cart.service
         1s answer 1 done: up after 1s, pid 101",
    );
    story.ends();
}
