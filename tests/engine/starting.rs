//! The first look, and what a start is.

use heeler::model::job::{Ended, JobKind};
use heeler::model::order::Order;
use heeler::model::process::Identification;
use heeler::model::service::{Life, Mode};

use crate::story::*;

#[test]
fn first_look_finds_it_up() {
    let mut story = Story::of(cart());
    story.appears(100);
    story.begins();
    story.status_is("up, start period 1m");
    story.at("1m");
    story.status_is("up");
    story.ends();
}

#[test]
fn first_look_finds_it_down() {
    let mut story = Story::of(cart());
    story.begins();
    story.saw("0s run start: bin/start");
    story.at("2s");
    story.command_ends(JobKind::Start, 0, "");
    story.at("3s");
    story.appears(100);
    story.at("30s");
    // Nobody is mailed because heeler began its work.
    story.saw("");
    story.ends();
}

#[test]
fn first_look_is_refused_and_nothing_is_started_over_it() {
    let mut story = Story::of(cart());
    story.world.claim = Claim::Refused("its user is www-data, not deploy");
    story.begins();
    story.at("1m");
    story.saw("5s mail 1.0 fired: heeler may not touch it: its user is www-data, not deploy");
    // Whoever put it there takes it away: now there is nothing, and it is started.
    story.world.claim = Claim::NoPidfile;
    story.at("70s");
    story.saw(
        "1m10s mail 1.1 resolved: heeler may not touch it: its user is www-data, not deploy
         1m10s run start: bin/start",
    );
    story.appears(100);
    story.command_ends(JobKind::Start, 0, "");
    story.at("2m");
    story.saw("");
    story.ends();
}

#[test]
fn first_look_cannot_tell_and_nothing_is_done() {
    let mut story = Story::of(cart());
    story.world.claim = Claim::Unknown("the user deploy cannot be resolved");
    story.begins();
    story.at("3s");
    story.appears(100);
    story.at("1m");
    // It could be told again, and was up all the time. The doubt was told, and its end.
    story.saw(
        "5s mail 1.0 fired: it cannot be told whether it runs: the user deploy cannot be resolved
         10s mail 1.1 resolved: it cannot be told whether it runs: the user deploy cannot be resolved",
    );
    story.ends();
}

#[test]
fn a_doubt_that_passes_before_it_was_told_is_no_mail() {
    let mut story = Story::of(cart_with(|service| service.every = span("2s")));
    story.world.claim = Claim::Unknown("several match");
    story.begins();
    story.appears(100);
    story.at("1m");
    story.saw("");
    story.ends();
}

#[test]
fn a_start_that_fails_is_told_at_once_and_tried_again_after_a_second() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start",
    );
    story.at("200ms");
    story.command_ends(JobKind::Start, 1, "bundler: command not found: puma\n");
    story.status_is("down, next start in 1s");
    story.log_says(
        "the start command failed with code 1 after 200ms: \
         bundler: command not found: puma",
    );
    story.at("1s200ms");
    story.saw("1.2s run start: bin/start");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("11.2s mail 1.0 fired and resolved: the main process 100 is gone");
    story.last_mail_says("the start command failed with code 1");
    story.last_mail_says("up again: pid 101, after 1.2s");
    story.ends();
}

#[test]
fn a_start_command_that_hangs_is_ended_at_its_deadline_only() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.at("30s");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         5s mail 1.0 fired: the main process 100 is gone",
    );
    story.command_times_out(JobKind::Start);
    story.log_says("the start command was still running at its deadline");
    story.at("31s");
    story.saw("31s run start: bin/start");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("41s mail 1.1 resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn a_late_start_is_adopted_and_never_killed() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.command_ends(JobKind::Start, 0, "");
    story.at("30s");
    story.log_says("failed to start: no process within 30s");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         5s mail 1.0 fired: the main process 100 is gone",
    );
    // It comes while the next try waits its second: it is taken, and no second one is started.
    story.appears(101);
    story.at("1m");
    story.saw("41s mail 1.1 resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn each_failure_is_told_with_its_own_reason() {
    let mut story = Story::of_running(cart());
    story.crashes(100);
    story.command_ends(JobKind::Start, 1, "no such release");
    story.at("1s");
    story.command_ends(JobKind::Start, 0, "");
    story.at("31s");
    story.log_says("31s failed to start: no process within 30s");
    story.at("32s");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("2m");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         0s run start: bin/start
         1s run start: bin/start
         5s mail 1.0 fired: the main process 100 is gone
         32s run start: bin/start
         42s mail 1.1 resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn the_process_counts_not_the_code_of_the_command() {
    let mut story = Story::of(cart());
    story.begins();
    story.appears(100);
    story.command_ends(JobKind::Start, 1, "warning: already starting");
    story.status_is("up, start period 1m");
    story.at("1m");
    story.saw("0s run start: bin/start");
    story.ends();
}

#[test]
fn up_before_the_start_command_ends() {
    let mut story = Story::of(cart());
    story.begins();
    story.at("500ms");
    story.appears(100);
    story.at("1s");
    story.status_is("up, start period 59s");
    story.at("25s");
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw("0s run start: bin/start");
    story.ends();
}

#[test]
fn a_foreground_program_is_up_once_it_is_executed() {
    let mut story = Story::of(foreground());
    story.world.claim = Claim::NoProcess;
    story.begins();
    story.at("100ms");
    story.launched(100);
    story.world.claim = Claim::Names(100);
    story.at("1m");
    story.saw("0s run run: bin/serve");
    story.ends();
}

#[test]
fn a_foreground_program_that_cannot_be_executed_says_which_step_failed() {
    let mut story = Story::of(foreground());
    story.world.claim = Claim::NoProcess;
    story.begins();
    let not_executed = || Ended::NotExecuted {
        stage: "find the user".into(),
        error: "no user is named deploy".into(),
    };
    story.finishes(JobKind::Instance, not_executed(), "");
    story.status_is("down, next start in 1s");
    story.log_says("was not executed: failed to find the user: no user is named deploy");
    story.at("1s");
    story.launched(100);
    story.world.claim = Claim::Names(100);
    story.at("1m");
    story.saw(
        "0s run run: bin/serve
         1s run run: bin/serve
         11s mail 1.0 fired and resolved: failed to start: the program was not executed: \
         failed to find the user: no user is named deploy",
    );
    story.ends();
}

#[test]
fn a_foreground_program_that_exits_at_once_is_tried_again() {
    let mut story = Story::of(foreground());
    story.world.claim = Claim::NoProcess;
    story.begins();
    story.launched(100);
    story.at("300ms");
    story.crashes(100);
    story.finishes(
        JobKind::Instance,
        Ended::Exited(heeler::model::process::Exit::Code(3)),
        "address already in use",
    );
    story.at("1s");
    story.saw(
        "0s run run: bin/serve
         0.3s survey what 100 left
         1s run run: bin/serve",
    );
    story.launched(101);
    story.world.claim = Claim::Names(101);
    story.at("1m");
    story.saw("11s mail 1.0 fired and resolved: the main process 100 is gone");
    let mail = story.mails.last().unwrap();
    assert_eq!(mail.incident.output.last_line().as_deref(), Some("address already in use"));
    story.ends();
}

#[test]
fn without_a_start_command_it_is_waited_for() {
    let mut story = Story::of_running(cart_with(|service| service.start = None));
    story.crashes(100);
    story.at("2m");
    story.saw(
        "0s survey what 100 left
         0s remove the pidfile of 100
         5s mail 1.0 fired: the main process 100 is gone",
    );
    story.last_mail_says("heeler has no way to start it and waits for it to come back");
    // Not one line per look.
    assert_eq!(story.times_logged("nothing can be started here"), 1);
    assert_eq!(story.times_logged("it is not running"), 0);
    story.appears(101);
    story.at("3m");
    story.saw("2m20s mail 1.1 resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn in_observe_mode_it_only_says_so() {
    let mut story = Story::of_running(cart_with(|service| service.mode = Mode::Observe));
    story.world.left = vec![listener(110)];
    story.lives_unclaimed(110);
    story.crashes(100);
    story.at("2m");
    // Nobody is signalled either.
    story.saw(
        "0s survey what 100 left
         5s mail 1.0 fired: the main process 100 is gone
         30s let go of 110
         30s remove the pidfile of 100",
    );
    assert_eq!(story.times_logged("would start it now, but mode is \"observe\""), 1);
    story.appears(101);
    story.at("3m");
    story.saw("2m20s mail 1.1 resolved: the main process 100 is gone");
    story.ends();
}

#[test]
fn first_look_finds_it_down_and_it_may_not_be_started() {
    let mut story = Story::of(cart_with(|service| service.mode = Mode::Observe));
    story.begins();
    story.at("1m");
    // Not "heeler began its work": it stays down, and somebody has to know.
    story.saw("5s mail 1.0 fired: it is not running");
    assert_eq!(story.times_logged("would start it now"), 1);
    story.appears(100);
    story.at("2m");
    story.saw("1m20s mail 1.1 resolved: it is not running");
    story.ends();
}

#[test]
fn first_look_finds_it_down_and_nothing_can_start_it() {
    let mut story = Story::of(cart_with(|service| service.start = None));
    story.begins();
    story.at("1m");
    story.saw("5s mail 1.0 fired: it is not running");
    story.appears(100);
    story.at("2m");
    story.saw("1m20s mail 1.1 resolved: it is not running");
    story.ends();
}

#[test]
fn a_slow_answer_does_not_start_it_twice() {
    let mut story = Story::of(cart());
    story.world.claim = Claim::Silent;
    story.begins();
    story.at("20s");
    story.status_is("being looked for");
    story.saw("");
    story.world.claim = Claim::NoPidfile;
    story.appears(100);
    story.identify_is_answered(Identification::One(identity(100)));
    story.at("1m");
    story.saw("");
    story.ends();
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let mut story = Story::of(cart());
    story.world.claim = Claim::Silent;
    story.begins();
    story.at("29s");
    story.appears(100);
    story.at("31s");
    story.status_is("up, start period 59s");
    story.saw("");
    story.ends();
}

#[test]
fn what_a_lost_command_started_may_be_on_its_way() {
    let mut story = Story::of(cart());
    story.begins();
    story.saw("0s run start: bin/start");
    story.finishes(JobKind::Start, Ended::Lost, "");
    story.at("5s");
    // No second copy beside one that has not written its pidfile yet.
    story.saw("");
    story.appears(101);
    story.at("30s");
    story.status_is("up, start period 35s");
    story.saw("");
    story.ends();
}

#[test]
fn a_lost_command_whose_service_never_comes_is_run_again() {
    let mut story = Story::of(cart());
    story.begins();
    story.saw("0s run start: bin/start");
    story.finishes(JobKind::Start, Ended::Lost, "");
    story.at("32s");
    story.saw("31s run start: bin/start");
    story.log_says("failed to start: the start command was lost: its shim ended without a word");
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("2m");
    story.saw(
        "42s mail 1.0 fired and resolved: failed to start: the start command was lost: its shim \
         ended without a word",
    );
    story.ends();
}

#[test]
fn a_foreground_program_that_is_executed_late_is_adopted() {
    let mut story = Story::of(foreground());
    story.world.claim = Claim::NoProcess;
    story.begins();
    // LDAP hung: the shim could not even find the user for so long.
    story.at("30s500ms");
    story.status_is("down, next start in 500ms");
    story.world.claim = Claim::Names(100);
    story.launched(100);
    story.late_answers_were_counted(1);
    story.at("2m");
    story.saw(
        "0s run run: bin/serve
         40.5s mail 1.0 fired and resolved: failed to start: no process within 30s",
    );
    story.ends();
}

#[test]
fn what_is_known_by_its_title_has_no_orderly_exit() {
    let mut story = Story::of_running(cart_with(|service| {
        service.life = Life::Match("^cart: master".into());
    }));
    story.world.claim = Claim::NoProcess;
    story.crashes(100);
    story.appears(101);
    story.command_ends(JobKind::Start, 0, "");
    story.at("1m");
    story.saw(
        "0s survey what 100 left
         0s run start: bin/start
         10s mail 1.0 fired and resolved: the main process 100 is gone",
    );
    story.ends();
}

#[test]
fn a_pidfile_that_is_half_written_for_a_moment_fails_no_start() {
    let mut story = Story::of(cart_with(|service| service.start = Some(command("bin/start"))));
    story.begins();
    story.order(Order::Start);
    story.reads();
    story.world.claim = Claim::Unknown("the pidfile does not begin with a process number");
    story.command_ends(JobKind::Start, 0, "");
    story.at("1s");
    story.saw("");
    story.appears(100);
    story.at("3s");
    let lines = story.takes();
    assert!(lines[0].contains("answer 1 done: "), "{lines:?}");
    story.at("2m");
    story.saw("");
    story.ends();
}
