//! `match`: the topmost process of the service's user whose title matches.

use std::os::unix::process::CommandExt;
use std::process::Command;

use heeler::model::process::Absence;
use heeler::sys::accept::Rule;
use heeler::sys::identity::identify_match;
use heeler::sys::procfs;

use crate::lab::{self, NOBODY, Process, SOON, WWW, none, one, owner, unknown};
use crate::support::{Need, can_run, wait_for};

/// A process of this title, once it has it.
fn titled(title: &str, uid: u32) -> Process {
    let process = Process::start(Command::new("sleep").arg0(title).arg("1000").uid(uid).gid(uid));
    wait_for("its title", SOON, || {
        lab::title(process.pid()).raw().starts_with(title).then_some(())
    });
    process
}

#[test]
fn pid_13_several_are_unknown_and_other_users_do_not_count() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let pattern = "^heeler-test-13 ";
    assert_eq!(none(identify_match(pattern, &owner(WWW))).0, Absence::NoProcess);
    let _impostor = titled("heeler-test-13", NOBODY);
    let _of_root = titled("heeler-test-13", 0);
    assert_eq!(none(identify_match(pattern, &owner(WWW))).0, Absence::NoProcess);
    let process = titled("heeler-test-13", WWW);
    let (proved, _) = one(identify_match(pattern, &owner(WWW)));
    assert_eq!((proved.identity(), proved.rule()), (process.identity(), Rule::User));
    let _second = titled("heeler-test-13", WWW);
    unknown(identify_match(pattern, &owner(WWW)), "2 processes match");
}

#[test]
fn the_topmost_is_taken_also_above_a_stranger() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/perl", "perl-base")]) {
        return;
    }
    // A master, below it a process of another title, below that a worker that matches again.
    let program = r#"$0 = "heeler-test-top master";
        if (!fork) { $0 = "between";
            if (!fork) { $0 = "heeler-test-top worker"; print "$$\n"; sleep 1000; exit }
            sleep 1000; exit }
        sleep 1000"#;
    let (master, mut lines) = Process::perl(program, WWW);
    let worker = lab::number(&mut lines);
    let _others = lab::Others(vec![
        lab::hold(procfs::stat(worker).expect("its stat").parent),
        lab::hold(worker),
    ]);
    let (proved, _) = one(identify_match("^heeler-test-top", &owner(WWW)));
    assert_eq!(proved.identity(), master.identity());
    let (proved, _) = one(identify_match("^heeler-test-top worker", &owner(WWW)));
    assert_eq!(proved.identity().pid, worker);
}

#[test]
fn a_pattern_that_is_none_is_unknown() {
    unknown(identify_match("(", &owner(WWW)), "pattern");
    unknown(identify_match("(x{1000}){1000}", &owner(WWW)), "pattern");
}
