//! What the program of a check left behind in sessions of its own.
//!
//! Its process group is ended with it. Who left the group did so on purpose (a daemon: perhaps a service
//! that the program brought up), so it is named and left alone. It is known without a cgroup: orphans
//! among a subreaper's descendants become its children (prctl(2), PR_SET_CHILD_SUBREAPER), and a process
//! cannot get out of being one.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid as RawPid;

use crate::model::process::Pid;
use crate::model::text::escape;
use crate::sys::procfs;

/// So many are named.
const NAMED_MAX: usize = 5;

/// From here on orphans among the descendants become children of this process. Where the kernel refuses,
/// they are not known, and nothing else changes.
pub(super) fn adopt() {
    let _ = prctl::set_child_subreaper(true);
}

/// What is left now that the program itself was reaped and its `group` was killed, in a line for people;
/// from here on orphans are init's, as everywhere.
pub(super) fn left_behind(group: Pid) -> Option<String> {
    let left = if reap_the_dead() { children_outside(group) } else { Vec::new() };
    let _ = prctl::set_child_subreaper(false);
    if left.is_empty() {
        return None;
    }
    let named: Vec<_> = left
        .iter()
        .take(NAMED_MAX)
        .map(|pid| format!("{pid} {}", escape(procfs::name(*pid).raw())))
        .collect();
    let more = match left.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "heeler: it left processes in sessions of their own, and they go on: {}{more}",
        named.join(", ")
    ))
}

/// Whether any child is left that has not ended.
fn reap_the_dead() -> bool {
    loop {
        match waitpid(RawPid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Those of the group were killed and are on their way.
fn children_outside(group: Pid) -> Vec<Pid> {
    let own = procfs::heeler();
    let mut pids = procfs::pids().unwrap_or_default();
    pids.retain(|pid| {
        procfs::stat(*pid).is_ok_and(|stat| {
            stat.parent == own && stat.pgrp != group.0 && !matches!(stat.state, 'Z' | 'X')
        })
    });
    pids
}
