//! A process number that is given again. The kernel is made to do it in a private pid namespace, in
//! which this very test runs once more as the only program.

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use heeler::model::process::{Absence, Pid, ProcessIdentity, Signal, Uid};
use heeler::sys::identity::{identify_pidfile, identify_recorded};
use heeler::sys::pidfile::{Removal, remove_if_names};
use heeler::sys::signal::{Delivered, send};
use heeler::sys::survey::{DeadMain, survey};
use heeler::sys::{clock, procfs};

use crate::lab::{self, Place, Process, WWW, none, one, owner};
use crate::support::{Need, can_run};

const INSIDE: &str = "HEELER_TEST_INSIDE";

/// Whether this is the run inside. If not, makes it, and fails as it failed.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if can_run(&[Need::Root, Need::Program("/usr/bin/unshare", "util-linux")]) {
        let me = std::env::current_exe().expect("this program");
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]).arg(me);
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
        let output = command.output().expect("unshare runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
    }
    false
}

/// Starts a process that gets exactly this number.
fn with_number(pid: Pid, start: impl Fn() -> Process) -> Process {
    for _ in 0..50 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid.0 - 1).to_string()).expect("set");
        let process = start();
        if process.pid() == pid {
            return process;
        }
    }
    panic!("process {pid} was not given again");
}

/// A process to which a pidfile and a proof lead, then gone, and its number given to `uid`'s.
fn reused(uid: u32) -> (Place, Process, heeler::sys::identity::Proved) {
    let (place, mut process) = (Place::new(), Process::idle(WWW));
    let path = place.pidfile("x.pid", &process.pid().to_string(), WWW);
    let (proved, _) = one(identify_pidfile(&path, &owner(WWW)));
    let pid = process.pid();
    let identity = process.identity();
    process.end();
    // Start times are counted in ticks: the new one must not begin in the same.
    let begun = || clock::boottime_ms() / 10;
    crate::support::wait_for("the next tick", lab::SOON, || {
        (begun() > identity.started_ticks + 1).then_some(())
    });
    let second = with_number(pid, || Process::idle(uid));
    assert_ne!(second.identity(), identity);
    assert!(!proved.is_alive());
    (place, second, proved)
}

#[test]
fn a_number_given_again_is_not_the_process() {
    if !inside("namespace::a_number_given_again_is_not_the_process") {
        return;
    }
    let (place, second, proved) = reused(WWW);
    let path = place.path("x.pid");
    assert!(!proved.is_alive());
    assert_eq!(send(&proved, Signal::Kill), Delivered::Gone);
    assert!(procfs::stat(second.pid()).is_ok_and(|stat| stat.state != 'Z'), "the new one lives");
    assert_eq!(none(identify_recorded(proved.identity())).0, Absence::NoProcess);
    one(identify_recorded(second.identity()));
    // Only the file's age tells that it does not mean the new one, which is of the same user.
    lab::set_modified(&path, clock::boot_window().earliest_ms + 10);
    let (absence, note) = none(identify_pidfile(&path, &owner(WWW)));
    assert_eq!(absence, Absence::Stale(second.pid()));
    assert!(note.contains("began after"), "{note}");
    assert_eq!(remove_if_names(&path, proved.identity()), Removal::Removed);
}

#[test]
fn a_session_of_a_number_given_again_is_not_the_dead_ones() {
    if !inside("namespace::a_session_of_a_number_given_again_is_not_the_dead_ones") {
        return;
    }
    let (_place, second, proved) = reused(WWW);
    let dead = |identity: ProcessIdentity| DeadMain {
        cgroup: None,
        own_group: None,
        identity,
        user: Uid(WWW),
        sessions: vec![],
        session: 0,
        sockets: Vec::new(),
    };
    // The new one leads a group of that number, with a member.
    let pid = second.pid();
    drop(second);
    let leader = with_number(pid, || {
        let mut command = Command::new("sleep");
        Process::start(command.arg("1000").uid(WWW).process_group(0))
    });
    let mut command = Command::new("sleep");
    let mut member = Process::start(command.arg("1000").uid(WWW).process_group(pid.0));
    assert!(survey(&[dead(proved.identity())], &HashSet::new()).expect("surveyed").is_empty());
    // Once the leader itself is the dead one, the member is left of it.
    let identity = leader.identity();
    drop(leader);
    let left = survey(&[dead(identity)], &HashSet::new()).expect("surveyed");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].survivor.identity, member.identity());
    member.end();
}
