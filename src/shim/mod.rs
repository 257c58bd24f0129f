//! The parent of one command: it outlives heeler, keeps the deadline, records the outcome.
//!
//! The keeper spawned it with a plan, a lock and a status pipe (`sys::spawn`). It has one thread
//! and only ever waits with a deadline: whatever may hang (the name service, a dead NFS home) runs
//! in its child. What the child does is one list, in `child`.
#![forbid(unsafe_code)]

mod capture;
mod child;
mod explain;
mod keep;
mod orphans;
mod report;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::exit;

use crate::model::job::Outcome;
use crate::model::limits;
use crate::model::process::{Pid, ProcessIdentity};
use crate::sys::fork::{block_signals, set_name};
use crate::sys::lock::{TryLock, try_lock};
use crate::sys::procfs;
use crate::sys::records::write_record;
use crate::sys::spawn::{EXECUTED, Inherited, inherited};
use crate::wire::shim::{ChildRecord, OutcomeRecord, PLAN_BYTES_MAX, Plan, Record, Slot, SlotFile};

pub use child::{AsUser, Last};
pub use keep::{Interrupts, Leftover, Witness, keep};

/// The role `heeler shim`. Exits 0 when the outcome is recorded, 2 when it was given no whole plan
/// (nothing was executed), 1 when the outcome could not be recorded.
pub fn run() -> ! {
    // 1. Signals meant for heeler (a Ctrl-C, a service manager's TERM) must not end the command.
    if block_signals().is_err() {
        exit(2);
    }
    set_name(c"heeler-shim");
    // 2. Only plan, lock and status pipe stay open. The session is new: sys::spawn saw to it.
    let Ok(Inherited { plan, lock, status }) = inherited() else {
        exit(2);
    };
    // 3. It may live for months: it must not pin a file system.
    if std::env::set_current_dir("/").is_err() {
        exit(2);
    }
    // 4. The plan is whole, or nothing happens.
    let Ok(plan) = read_plan(plan) else {
        exit(2);
    };
    let mut recorder = Recorder { plan: &plan, held: Some((lock, status)), failed: false };
    let leftover = keep(&plan.job, Last::Execute, plan.cgroup.as_deref(), None, &mut recorder);
    let failed = recorder.failed;
    // 5. Whoever still holds the output must not die of SIGPIPE: it may be the service.
    if leftover.is_held() {
        read_on(&plan, leftover);
    }
    exit(i32::from(failed))
}

/// A check is run for ever, and what its program leaves at each run must not cost a shim each: one per
/// check reads on, for the daemon that was there first.
fn read_on(plan: &Plan, leftover: Leftover) {
    let slot = Slot::of(plan.job.kind);
    let _held = match slot {
        Slot::Action | Slot::Instance => None,
        Slot::Look | Slot::Ask | Slot::Probe(_) => {
            match try_lock(&plan.records.join(slot.file(SlotFile::Reader))) {
                Ok(TryLock::Taken(lock)) => Some(lock),
                Ok(TryLock::Busy) | Err(_) => return,
            }
        }
    };
    leftover.drain();
}

fn read_plan(file: File) -> io::Result<Plan> {
    let mut frame = Vec::new();
    file.take(PLAN_BYTES_MAX as u64 + 1).read_to_end(&mut frame)?;
    Plan::decode(&frame).map_err(|error| io::Error::other(error.to_string()))
}

/// Tells the keeper, the present one and any later, by records and the status pipe.
struct Recorder<'a> {
    plan: &'a Plan,
    /// The lock and the status pipe, until the outcome is recorded.
    held: Option<(OwnedFd, OwnedFd)>,
    failed: bool,
}

impl Recorder<'_> {
    fn record(&self, file: SlotFile, bytes: &[u8]) -> io::Result<()> {
        let name = Slot::of(self.plan.job.kind).file(file);
        write_record(&self.plan.records, &name, bytes)
    }
}

impl Witness for Recorder<'_> {
    fn child_waits(&mut self, child: Pid) -> io::Result<()> {
        let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let record = ChildRecord {
            action: self.plan.job.action,
            shim: identity(Pid(own))?,
            child: identity(child)?,
            cgroup: match &self.plan.cgroup {
                // It goes there once the gate is open.
                Some(cgroup) => cgroup.to_string(),
                None => cgroup(child)?,
            },
        };
        self.record(SlotFile::Child, &record.encode())
    }

    fn executed(&mut self) {
        if let Some((_, status)) = &self.held {
            // A keeper that is gone reads no pipe; its successor reads the records.
            let _ =
                status.try_clone().map(File::from).and_then(|mut pipe| pipe.write_all(&[EXECUTED]));
        }
    }

    // Both are in the outcome's output.
    fn output(&mut self, _bytes: &[u8]) {}

    fn remark(&mut self, _line: &str) {}

    fn ended(&mut self, outcome: &Outcome) {
        let record = OutcomeRecord { action: self.plan.job.action, outcome: outcome.clone() };
        self.failed = self.record(SlotFile::Outcome, &record.encode()).is_err();
        if let Some((lock, status)) = self.held.take() {
            // In this order: who sees the end of the status pipe finds the lock free.
            drop(lock);
            drop(status);
        }
    }
}

/// The identity of a process that cannot go away meanwhile: this one, or its unreaped child.
fn identity(pid: Pid) -> io::Result<ProcessIdentity> {
    Ok(ProcessIdentity { pid, started_ticks: procfs::stat(pid)?.started_ticks })
}

/// Its cgroup; `/` where the machine has none to speak of.
fn cgroup(pid: Pid) -> io::Result<String> {
    let text = procfs::read(pid, "cgroup", limits::PROC_FILE_BYTES_MAX)?;
    Ok(procfs::parse_cgroup(&text).map_or_else(|| "/".to_owned(), String::from))
}
