//! From a claim to a proved process: hold first, ask after, then prove that what was asked was held.
//!
//! pidfd_open pins whatever has the number now. The facts are read from /proc afterwards; that the
//! pidfd still is not readable then proves that the number belonged to the held process all the while.
//! [`crate::sys::accept`] judges, and only an accepted process becomes a [`Proved`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use crate::model::limits;
use crate::model::process::{Absence, Pid, ProcessIdentity, Uid};
use crate::model::text::Untrusted;
use crate::model::unit::Manager;
use crate::sys::accept::{self, Acceptance, ClaimFacts, Expected, Facts, Kind, Numbering, Rule};
use crate::sys::pidfile::{self, Claim, Reading, Seat, Spot, Stamp};
use crate::sys::vitals::Vitals;
use crate::sys::{cgroup, clock, pidfd, procfs};

/// A process that is held and known, but not proved to be ours: it may be watched, never signalled.
#[derive(Debug)]
pub struct Held {
    fd: OwnedFd,
    identity: ProcessIdentity,
    session: i32,
    pgrp: i32,
    vitals: Vitals,
}

impl Held {
    /// The files it is sampled from.
    pub(super) fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// Which process.
    #[must_use]
    pub fn identity(&self) -> ProcessIdentity {
        self.identity
    }

    /// Whether it lives; a zombie does not. One poll(2), below a microsecond.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !pidfd::has_ended(&self.fd)
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A process that is held and proved to be the one meant. The only thing `sys::signal` takes; nothing
/// outside `sys` can make one.
#[derive(Debug)]
pub struct Proved {
    held: Held,
    rule: Rule,
}

impl Proved {
    /// For the modules of `sys` that prove a process by another way than a claim.
    pub(super) fn new(held: Held, rule: Rule) -> Self {
        Self { held, rule }
    }

    /// Which process.
    #[must_use]
    pub fn identity(&self) -> ProcessIdentity {
        self.held.identity
    }

    /// On what ground it may be signalled.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Its session when it was identified.
    #[must_use]
    pub fn session(&self) -> i32 {
        self.held.session
    }

    /// Its process group when it was identified.
    #[must_use]
    pub fn pgrp(&self) -> i32 {
        self.held.pgrp
    }

    /// Whether it lives; a zombie does not. One poll(2), below a microsecond.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.held.is_alive()
    }

    /// The process without the right to signal it.
    #[must_use]
    pub fn held(&self) -> &Held {
        &self.held
    }
}

impl AsFd for Proved {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.held.as_fd()
    }
}

/// Whose process is looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The service's user.
    pub user: Uid,
    /// The service's own control group (as in /proc/PID/cgroup), where it has one.
    pub cgroup: Option<Box<str>>,
    /// The process that was proved before to be the service's, in this boot: then the age of its
    /// pidfile is no question, whatever the wall clock did since.
    pub known: Option<ProcessIdentity>,
    /// The state of the pidfile that `known` was proved by: while it is that, it names no other.
    pub known_by: Option<Stamp>,
}

impl Owner {
    /// A service of this user of which nothing else is known.
    #[must_use]
    pub fn of(user: Uid) -> Self {
        Self { user, cgroup: None, known: None, known_by: None }
    }

    fn expected(&self) -> Expected {
        Expected {
            user: self.user,
            cgroup: self.cgroup.clone(),
            known: self.known,
            heeler: procfs::heeler(),
            heelers_parent: procfs::heelers_parent(),
            boot: clock::boot_window(),
        }
    }
}

/// What identification found.
#[derive(Debug)]
pub enum Found {
    /// Exactly one living process, proved and held.
    One(Proved, ClaimStamp),
    /// Nothing lives there.
    None(Absence, Option<Untrusted>),
    /// Something lives there that heeler may not touch. Names the fact that differed.
    Refused(Untrusted),
    /// It cannot be told now.
    Unknown(Untrusted),
}

/// What the claim was, to see cheaply whether it still stands.
#[derive(Clone, Debug)]
pub enum ClaimStamp {
    /// The pidfile, in this state; and where that can be looked at again without hanging, if it can.
    Pidfile(Stamp, Option<Arc<Spot>>),
    /// Nothing that could change while the process lives.
    Standing,
}

impl ClaimStamp {
    /// Looks whether it still stands: for a pidfile, by one fstatat(2) where that cannot hang. Where it
    /// changed, or is only to be seen by a walk, it does not.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self {
            Self::Pidfile(stamp, Some(spot)) => spot.stamp() == Some(*stamp),
            Self::Pidfile(_, None) => false,
            Self::Standing => true,
        }
    }
}

impl PartialEq for ClaimStamp {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pidfile(ours, _), Self::Pidfile(theirs, _)) => ours == theirs,
            (Self::Standing, Self::Standing) => true,
            (Self::Pidfile(..), Self::Standing) | (Self::Standing, Self::Pidfile(..)) => false,
        }
    }
}

/// Finds the process a pidfile names. Not on the loop: the file may be on a file system that hangs.
#[must_use]
pub fn identify_pidfile(path: &Path, owner: &Owner) -> Found {
    identify_claim(pidfile::read(path), owner)
}

/// The same, with where it can be looked at again on the loop, if it can.
#[must_use]
pub fn identify_pidfile_and_seat(path: &Path, owner: &Owner) -> (Found, Option<Seat>) {
    match pidfile::read(path) {
        Reading::Absent(gap) => (NO_PIDFILE, gap.map(Seat::Gap)),
        Reading::Claim(claim) => {
            let seat = claim.spot.clone().map(Seat::Spot);
            (identify_claim(Reading::Claim(claim), owner), seat)
        }
        reading @ (Reading::Unsafe(_) | Reading::NotPid | Reading::Unreadable(_)) => {
            (identify_claim(reading, owner), None)
        }
    }
}

const NO_PIDFILE: Found = Found::None(Absence::NoPidfile, None);

/// The same where its pidfile was before, or was missing, which cannot hang. `None`: what is there now needs
/// a walk.
#[must_use]
pub fn identify_at(seat: &Seat, owner: &Owner) -> Option<Found> {
    match seat {
        Seat::Spot(spot) => Some(identify_claim(spot.read()?, owner)),
        Seat::Gap(gap) => gap.is_open().then_some(NO_PIDFILE),
    }
}

fn identify_claim(reading: Reading, owner: &Owner) -> Found {
    let Claim { pid, owner: file_owner, modified_wall_ms, writers, stamp, spot } = match reading {
        Reading::Claim(claim) => claim,
        Reading::Absent(_) => return NO_PIDFILE,
        Reading::Unsafe(reason) => return Found::Refused(reason),
        Reading::NotPid => return unknown("the pidfile does not begin with a process number"),
        Reading::Unreadable(reason) => return Found::Unknown(reason),
    };
    let claim = ClaimFacts::Pidfile {
        owner: file_owner,
        writers,
        modified_wall_ms,
        unchanged: owner.known_by == Some(stamp),
    };
    judge(pid, owner, &claim, Absence::Stale(pid), ClaimStamp::Pidfile(stamp, spot))
}

/// Finds the process that a manager calls the main one of a unit. The number may come from the service's
/// user; the kernel has to say that the process is under that manager (the machine's: in the unit's own
/// control group).
#[must_use]
pub fn identify_managed(manager: Manager, main: Pid, owner: &Owner) -> Found {
    let claim = ClaimFacts::Manager(manager);
    judge(main, owner, &claim, Absence::Coming, ClaimStamp::Standing)
}

/// The same where a pidfile names it: it has to be in the unit's own control group.
#[must_use]
pub fn identify_managed_by_pidfile(path: &Path, owner: &Owner) -> Found {
    match identify_pidfile(path, owner) {
        Found::One(proved, _) if matches!(proved.rule, Rule::User | Rule::OnlyRootWrites) => {
            Found::Refused(text(&format!(
                "process {}, which the pidfile names, is not in the control group of the unit: \
                 two masters? `systemctl status` shows the unit's own",
                proved.identity()
            )))
        }
        // The unit is up: who writes the pidfile is on its way.
        Found::None(_, note) => Found::None(Absence::Coming, note),
        found @ (Found::One(..) | Found::Refused(_) | Found::Unknown(_)) => found,
    }
}

/// The same where the title says which of the unit's processes it is.
#[must_use]
pub fn identify_managed_by_match(manager: Manager, pattern: &str, owner: &Owner) -> Found {
    let among = owner.cgroup.as_deref().map(cgroup::processes).unwrap_or(Ok(Vec::new()));
    let claim = ClaimFacts::Manager(manager);
    match among {
        Ok(among) => match match_among(pattern, owner, &claim, |regex| {
            Ok(among.iter().copied().filter(|pid| title_matches(*pid, regex)).collect())
        }) {
            Found::None(_, note) => Found::None(Absence::Coming, note),
            found @ (Found::One(..) | Found::Refused(_) | Found::Unknown(_)) => found,
        },
        Err(error) => unknown(&format!("failed to list the processes of the unit: {error}")),
    }
}

/// Finds a process again that heeler recorded in this boot: its child, or one it had proved.
#[must_use]
pub fn identify_recorded(identity: ProcessIdentity) -> Found {
    // The start time decides; the user is no part of this ground.
    let owner = Owner::of(Uid(u32::MAX));
    let claim = ClaimFacts::Recorded(identity);
    judge(identity.pid, &owner, &claim, Absence::NoProcess, ClaimStamp::Standing)
}

/// Finds the topmost process of the service's user whose title matches. Not on the loop: it reads
/// `cmdline`, which waits for the memory lock of the process and so can block for ever.
#[must_use]
pub fn identify_match(pattern: &str, owner: &Owner) -> Found {
    match_among(pattern, owner, &ClaimFacts::Match, |regex| matching(regex, owner.user))
}

fn match_among(
    pattern: &str,
    owner: &Owner,
    claim: &ClaimFacts,
    among: impl FnOnce(&Regex) -> io::Result<Vec<Pid>>,
) -> Found {
    let regex = match RegexBuilder::new(pattern).size_limit(limits::REGEX_BYTES_MAX).build() {
        Ok(regex) => regex,
        Err(error) => return unknown(&format!("failed to compile the match pattern: {error}")),
    };
    let matching = match among(&regex) {
        Ok(matching) => matching,
        Err(error) => return unknown(&format!("failed to look through /proc: {error}")),
    };
    let topmost: Vec<Pid> =
        matching.iter().copied().filter(|pid| is_topmost(*pid, &matching)).collect();
    match topmost.as_slice() {
        [] => Found::None(Absence::NoProcess, None),
        [pid] => {
            let standing = ClaimStamp::Standing;
            let found = judge(*pid, owner, claim, Absence::NoProcess, standing);
            match &found {
                // Again, now that it is held: the title read before may have been another process's.
                Found::One(proved, _) if !title_matches(*pid, &regex) && proved.is_alive() => {
                    unknown(&format!("process {pid} changed its title while it was identified"))
                }
                Found::One(..) | Found::None(..) | Found::Refused(_) | Found::Unknown(_) => found,
            }
        }
        several => {
            let list: Vec<String> = several.iter().take(8).map(Pid::to_string).collect();
            let count = several.len();
            unknown(&format!(
                "{count} processes match and none is above the others: {}",
                list.join(", ")
            ))
        }
    }
}

/// Holds the process with this number, gathers its facts and judges them.
fn judge(
    pid: Pid,
    owner: &Owner,
    claim: &ClaimFacts,
    absence: Absence,
    stamp: ClaimStamp,
) -> Found {
    let expected = owner.expected();
    let (held, facts) = match gather(pid) {
        Gathered::Gone => return Found::None(absence, None),
        // Waiting for init, it is as good as reaped; waiting for anybody else, somebody does not reap.
        Gathered::Zombie { parent: Pid(1) } => return Found::None(absence, None),
        Gathered::Zombie { parent } => {
            let note = format!("process {pid} is a zombie, parent PID {parent}");
            return Found::None(absence, Some(text(&note)));
        }
        Gathered::Unclear(reason) => return unknown(&reason),
        Gathered::Thread(facts) => (None, facts),
        Gathered::Process(held, facts) => (Some(held), facts),
    };
    match (accept::accept(&facts, &expected, claim), held) {
        (Acceptance::Accepted(rule), Some(held)) => match pidfd::send(&held.fd, 0) {
            Ok(()) => Found::One(Proved { held, rule }, stamp),
            Err(error) if procfs::is_gone(&error) => Found::None(absence, None),
            Err(error) => {
                unknown(&format!("heeler may not signal process {pid}: {}", pidfd::denied(&error)))
            }
        },
        (Acceptance::Accepted(_), None) => unknown(&format!("process {pid} could not be held")),
        (Acceptance::Stale(reason), _) => Found::None(absence, Some(text(&reason))),
        (Acceptance::Refused(reason), _) => Found::Refused(text(&reason)),
        (Acceptance::Unclear(reason), _) => unknown(&reason),
    }
}

/// What was gathered about a number.
pub(super) enum Gathered {
    /// Nobody has it.
    Gone,
    /// Its process ended and was not waited for.
    Zombie { parent: Pid },
    /// It is a thread's; what is known of it.
    Thread(Facts),
    /// A living process, held, with facts that were its own.
    Process(Held, Facts),
    /// It cannot be told.
    Unclear(String),
}

/// Holds first, asks after, proves last.
pub(super) fn gather(pid: Pid) -> Gathered {
    if pid.0 < 1 {
        return Gathered::Gone;
    }
    let fd = match pidfd::open(pid) {
        Ok(fd) => fd,
        Err(error) => return not_held(pid, &error),
    };
    let facts = facts(pid);
    // What follows could be read of the held process only, unless it is gone.
    let ended = pidfd::has_ended(&fd);
    match facts {
        Ok((facts, stat)) if !ended => {
            let identity = facts.identity;
            let vitals = Vitals::default();
            let held = Held { fd, identity, session: stat.session, pgrp: stat.pgrp, vitals };
            Gathered::Process(held, facts)
        }
        Ok((_, stat)) if still_named(&fd) => Gathered::Zombie { parent: stat.parent },
        Ok(_) => Gathered::Gone,
        Err(_) if ended => Gathered::Gone,
        Err(error) if procfs::is_gone(&error) => {
            Gathered::Unclear(format!("process {pid} lives but is hidden in /proc (hidepid)"))
        }
        Err(error) => Gathered::Unclear(format!("failed to examine process {pid}: {error}")),
    }
}

/// Whether the ended process still has its number, not having been waited for. It then is in /proc.
fn still_named(fd: &OwnedFd) -> bool {
    !matches!(pidfd::send(fd, 0), Err(error) if procfs::is_gone(&error))
}

/// Why a number could not be held.
fn not_held(pid: Pid, error: &io::Error) -> Gathered {
    match error.raw_os_error() {
        Some(libc::ESRCH) => Gathered::Gone,
        // ENOENT since 6.9, EINVAL before: the number of a thread.
        Some(libc::ENOENT | libc::EINVAL) => match facts(pid) {
            Ok((facts, _)) if facts.tgid != pid => Gathered::Thread(facts),
            Err(error) if procfs::is_gone(&error) => Gathered::Gone,
            Ok(_) | Err(_) => Gathered::Unclear(format!("failed to hold process {pid}: {error}")),
        },
        _ => Gathered::Unclear(format!("failed to hold process {pid}: {error}")),
    }
}

fn facts(pid: Pid) -> io::Result<(Facts, procfs::Stat)> {
    let stat = procfs::stat(pid)?;
    let status = procfs::status(pid)?;
    let cgroup = procfs::read(pid, "cgroup", limits::PROC_FILE_BYTES_MAX)?;
    let facts = Facts {
        identity: ProcessIdentity { pid, started_ticks: stat.started_ticks },
        started_boot_ms: clock::ticks_to_ms(stat.started_ticks),
        tgid: status.tgid,
        uid_real: Uid(status.uid_real),
        uid_effective: Uid(status.uid_effective),
        kind: if stat.kernel_thread { Kind::Kernel } else { Kind::Program },
        numbering: if status.namespaces > 1 { Numbering::Nested } else { Numbering::Ours },
        cgroup: procfs::parse_cgroup(&cgroup),
    };
    Ok((facts, stat))
}

/// The processes of `user` whose title matches. The directory of a process in /proc belongs to its
/// effective user, so most are passed over with one stat(2).
fn matching(regex: &Regex, user: Uid) -> io::Result<Vec<Pid>> {
    use std::os::unix::fs::MetadataExt;
    let heeler = procfs::heeler();
    let mut matching = Vec::new();
    for pid in procfs::pids()? {
        let of_user = std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == user.0);
        if of_user && pid != heeler && title_matches(pid, regex) {
            matching.push(pid);
        }
    }
    Ok(matching)
}

/// Whether a process has a title (kernel threads and zombies have none) and it matches.
fn title_matches(pid: Pid, regex: &Regex) -> bool {
    let bytes = procfs::read(pid, "cmdline", limits::TITLE_BYTES_MAX).unwrap_or_default();
    let title = procfs::parse_title(&bytes);
    !title.is_empty() && regex.is_match(title.raw())
}

/// Whether no ancestor of a process matches as well.
fn is_topmost(pid: Pid, matching: &[Pid]) -> bool {
    let mut above = pid;
    for _ in 0..limits::ANCESTORS_MAX {
        let Ok(stat) = procfs::stat(above) else {
            return true;
        };
        above = stat.parent;
        if above.0 <= 1 {
            return true;
        }
        if matching.contains(&above) {
            return false;
        }
    }
    true
}

fn text(words: &str) -> Untrusted {
    Untrusted::from(words)
}

fn unknown(words: &str) -> Found {
    Found::Unknown(text(words))
}
