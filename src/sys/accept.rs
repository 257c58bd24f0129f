//! Whether heeler may take a process for the one a claim means: a pure function of facts.
//!
//! A claim is what somebody says ("the pidfile names 77"); facts are what the kernel says about 77
//! while a pidfd holds it. Signalling is allowed only on one of three grounds ([`Rule`]); everything
//! else is refused with the fact that differed, or is stale: the claim is about a process that is gone.

use crate::model::limits;
use crate::model::process::{Pid, ProcessIdentity, Uid};
use crate::model::unit::Manager;
use crate::sys::clock::BootWindow;

/// What the kernel says about one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Which process.
    pub identity: ProcessIdentity,
    /// When it began, in milliseconds since boot.
    pub started_boot_ms: u64,
    /// The process its number is a thread of.
    pub tgid: Pid,
    /// Its real user.
    pub uid_real: Uid,
    /// Its effective user.
    pub uid_effective: Uid,
    /// Whose code it runs.
    pub kind: Kind,
    /// Where it counts its processes.
    pub numbering: Numbering,
    /// Its control group.
    pub cgroup: Option<Box<str>>,
}

/// Whose code a process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A program.
    Program,
    /// The kernel's.
    Kernel,
}

/// The pid namespace of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Numbering {
    /// Ours: a number it writes down is a number we know.
    Ours,
    /// A container's of its own.
    Nested,
}

/// What is expected of the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The service's user.
    pub user: Uid,
    /// The service's own control group.
    pub cgroup: Option<Box<str>>,
    /// The process that heeler proved before to be the service's, in this boot.
    pub known: Option<ProcessIdentity>,
    /// heeler itself.
    pub heeler: Pid,
    /// Its parent.
    pub heelers_parent: Pid,
    /// When this boot began on the wall clock.
    pub boot: BootWindow,
}

/// Who says that this is the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimFacts {
    /// A pidfile.
    Pidfile {
        /// Its owner.
        owner: Uid,
        /// Who could have written it.
        writers: super::pidfile::Writers,
        /// When it was written, in milliseconds since 1970.
        modified_wall_ms: u64,
        /// Whether it is the file that [`Expected::known`] was proved by, untouched since.
        unchanged: bool,
    },
    /// heeler's own search among the processes of the service's user.
    Match,
    /// A manager of units (`MainPID`): the one of the service's user, or the machine's.
    Manager(Manager),
    /// heeler's own record of its child, or of a descendant of a process it had proved.
    Recorded(ProcessIdentity),
}

/// The ground on which heeler may signal a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// It is the very process heeler recorded (rule a).
    Recorded,
    /// It descends from a process heeler had proved (rule a).
    Descendant,
    /// It is in the service's own control group (rule a).
    OwnCgroup,
    /// It runs as the service's user, and root or that user says so (rule b).
    User,
    /// Root says so where only root can write (rule c).
    OnlyRootWrites,
}

/// The judgement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Acceptance {
    /// It may be watched and signalled, on this ground.
    Accepted(Rule),
    /// The process the claim is about is gone; another one has its number now. Says how that shows.
    Stale(String),
    /// It may not be touched. Names the fact that differed.
    Refused(String),
    /// The wall clock was set since this boot began, and whether the claim is stale hangs on that.
    Unclear(String),
}

/// Judges. Total, and silent about everything but its arguments.
#[must_use]
pub fn accept(facts: &Facts, expected: &Expected, claim: &ClaimFacts) -> Acceptance {
    let pid = facts.identity.pid;
    if pid.0 <= 1 {
        return Acceptance::Refused(format!("process {pid} is the machine's first process"));
    }
    if let ClaimFacts::Recorded(identity) = claim
        && *identity != facts.identity
    {
        return Acceptance::Stale(format!("process {pid} is a new one with the same number"));
    }
    if let (ClaimFacts::Pidfile { unchanged: true, .. }, Some(known)) = (claim, expected.known)
        && known.pid == pid
        && known != facts.identity
    {
        // Whatever the clocks say: this file was there before that process was.
        return Acceptance::Stale(format!("process {pid} is a new one with the dead one's number"));
    }
    let ground = untouchable(facts, expected).map_or_else(|| ground(facts, expected, claim), Err);
    match (ground, age(facts, expected, claim)) {
        // Proved before, or placed there by root: how old the file is says nothing more.
        (Ok(rule @ (Rule::Recorded | Rule::OwnCgroup)), _) => Acceptance::Accepted(rule),
        (_, Age::Stale(text)) | (Err(_), Age::Unclear(text)) => Acceptance::Stale(text),
        (Ok(_), Age::Unclear(text)) => Acceptance::Unclear(text),
        (Ok(rule), Age::Fits) => Acceptance::Accepted(rule),
        (Err(reason), Age::Fits) => Acceptance::Refused(reason),
    }
}

/// What heeler touches on no ground at all.
fn untouchable(facts: &Facts, expected: &Expected) -> Option<String> {
    let pid = facts.identity.pid;
    if facts.kind == Kind::Kernel {
        Some(format!("process {pid} is a thread of the kernel"))
    } else if facts.tgid != pid {
        Some(format!("{pid} is a thread id: the process is {}", facts.tgid))
    } else if pid == expected.heeler {
        Some(format!("process {pid} is heeler itself"))
    } else if pid == expected.heelers_parent {
        Some(format!("process {pid} is the parent of heeler"))
    } else {
        None
    }
}

/// The first of the three grounds that holds, or the fact that differed.
fn ground(facts: &Facts, expected: &Expected, claim: &ClaimFacts) -> Result<Rule, String> {
    let identity = Some(facts.identity);
    match claim {
        ClaimFacts::Recorded(_) => Ok(Rule::Recorded),
        ClaimFacts::Match => as_user(facts, expected),
        ClaimFacts::Manager(Manager::System) if in_own_cgroup(facts, expected) => {
            Ok(Rule::OwnCgroup)
        }
        ClaimFacts::Manager(Manager::System) => {
            Err(format!("process {} is not in the control group of its unit", facts.identity))
        }
        ClaimFacts::Manager(Manager::User) if under_manager(facts, expected.user) => {
            as_user(facts, expected)
        }
        ClaimFacts::Manager(Manager::User) => {
            let Facts { identity, .. } = facts;
            Err(format!("process {identity} is not under the manager of uid {}", expected.user))
        }
        ClaimFacts::Pidfile { .. } if expected.known == identity => Ok(Rule::Recorded),
        ClaimFacts::Pidfile { .. } if in_own_cgroup(facts, expected) => Ok(Rule::OwnCgroup),
        ClaimFacts::Pidfile { .. } if facts.numbering == Numbering::Nested => {
            let pid = facts.identity.pid;
            Err(format!("process {pid} is in a container with process numbers of its own"))
        }
        ClaimFacts::Pidfile { owner, writers, .. } => {
            let root = Uid(0);
            match as_user(facts, expected) {
                Ok(rule) if *owner == root || *owner == expected.user => Ok(rule),
                _ if *owner == root && *writers == super::pidfile::Writers::OnlyRoot => {
                    Ok(Rule::OnlyRootWrites)
                }
                Ok(_) => Err(format!(
                    "the pidfile belongs to uid {owner}, neither to root nor to uid {}",
                    expected.user
                )),
                Err(reason) => Err(reason),
            }
        }
    }
}

fn as_user(facts: &Facts, expected: &Expected) -> Result<Rule, String> {
    let (pid, user) = (facts.identity.pid, expected.user);
    let (real, effective) = (facts.uid_real, facts.uid_effective);
    if real == user && effective == user {
        Ok(Rule::User)
    } else if real == effective {
        Err(format!("process {pid} runs as uid {real}, not as uid {user}"))
    } else {
        Err(format!(
            "process {pid} runs as uid {real} with the rights of {effective}, not as {user}"
        ))
    }
}

/// Whether the kernel says that systemd's manager of this user holds the process.
fn under_manager(facts: &Facts, user: Uid) -> bool {
    let manager = super::cgroup::of_manager(user);
    facts.cgroup.as_deref().is_some_and(|cgroup| cgroup.starts_with(&manager))
}

fn in_own_cgroup(facts: &Facts, expected: &Expected) -> bool {
    let (Some(cgroup), Some(own)) = (facts.cgroup.as_deref(), expected.cgroup.as_deref()) else {
        return false;
    };
    // The root of the hierarchy is nobody's own.
    own.len() > 1
        && cgroup.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// How the age of a process goes with its pidfile's.
enum Age {
    /// It was there when the file was written.
    Fits,
    /// It began later, or the file is from an earlier boot.
    Stale(String),
    /// It looks so, but no longer when the clock is read as it was at boot.
    Unclear(String),
}

fn age(facts: &Facts, expected: &Expected, claim: &ClaimFacts) -> Age {
    let ClaimFacts::Pidfile { modified_wall_ms, .. } = claim else {
        return Age::Fits;
    };
    let slack_ms = u64::try_from(limits::PIDFILE_AGE_SLACK.as_millis()).unwrap_or(u64::MAX);
    let written_ms = modified_wall_ms.saturating_add(slack_ms);
    let begun_ms = |boot_ms: u64| boot_ms.saturating_add(facts.started_boot_ms);
    let BootWindow { earliest_ms, latest_ms } = expected.boot;
    let pid = facts.identity.pid;
    if written_ms < earliest_ms {
        Age::Stale("the pidfile is from before this boot".to_owned())
    } else if written_ms < begun_ms(earliest_ms) {
        Age::Stale(format!("process {pid} began after the pidfile was written"))
    } else if written_ms < begun_ms(latest_ms) {
        Age::Unclear(format!(
            "process {pid} looks younger than the pidfile, but the clock was set meanwhile"
        ))
    } else {
        Age::Fits
    }
}

#[cfg(test)]
mod tests;
