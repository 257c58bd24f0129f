//! Whether heeler may take a process for the one a claim means: a pure function of facts.
//!
//! A claim is what somebody says ("the pidfile names 77"); facts are what the kernel says about 77
//! while a pidfd holds it. Signalling is allowed only on one of three grounds ([`Rule`]); everything
//! else is refused with the fact that differed, or is stale: the claim is about a process that is gone.

use crate::model::limits;
use crate::model::process::{Pid, ProcessIdentity, Uid};
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
    },
    /// heeler's own search among the processes of the service's user.
    Match,
    /// The user manager of the service's user (`MainPID`).
    Manager,
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
    if let ClaimFacts::Recorded(identity) = claim {
        if *identity != facts.identity {
            return Acceptance::Stale(format!("process {pid} is a new one with the same number"));
        }
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
        ClaimFacts::Manager if under_manager(facts, expected.user) => as_user(facts, expected),
        ClaimFacts::Manager => {
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
        Err(format!("process {pid} runs as uid {real} with the rights of {effective}, not as {user}"))
    }
}

/// Whether the kernel says that systemd's manager of this user holds the process.
fn under_manager(facts: &Facts, user: Uid) -> bool {
    let manager = format!("/user.slice/user-{user}.slice/user@{user}.service/");
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
    let ClaimFacts::Pidfile { modified_wall_ms, .. } = claim else { return Age::Fits };
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
mod tests {
    use super::*;
    use crate::sys::pidfile::Writers;

    const BOOT_MS: u64 = 1_700_000_000_000;
    const STARTED_MS: u64 = 500_000;
    const DEPLOY: Uid = Uid(1000);
    const ROOT: Uid = Uid(0);
    const MALLORY: Uid = Uid(33);

    fn facts() -> Facts {
        Facts {
            identity: ProcessIdentity { pid: Pid(77), started_ticks: 50_000 },
            started_boot_ms: STARTED_MS,
            tgid: Pid(77),
            uid_real: DEPLOY,
            uid_effective: DEPLOY,
            kind: Kind::Program,
            numbering: Numbering::Ours,
            cgroup: Some("/user.slice/user-1000.slice/user@1000.service/app.slice/x".into()),
        }
    }

    fn expected() -> Expected {
        Expected {
            user: DEPLOY,
            cgroup: None,
            known: None,
            heeler: Pid(500),
            heelers_parent: Pid(499),
            boot: BootWindow { earliest_ms: BOOT_MS, latest_ms: BOOT_MS },
        }
    }

    fn pidfile(owner: Uid, writers: Writers, age_ms: i64) -> ClaimFacts {
        let modified_wall_ms = (BOOT_MS + STARTED_MS).saturating_add_signed(age_ms);
        ClaimFacts::Pidfile { owner, writers, modified_wall_ms }
    }

    const OWN: ClaimFacts = ClaimFacts::Pidfile {
        owner: DEPLOY,
        writers: Writers::Others,
        modified_wall_ms: BOOT_MS + STARTED_MS + 1000,
    };

    fn refused_with(acceptance: &Acceptance, words: &str) {
        match acceptance {
            Acceptance::Refused(text) => assert!(text.contains(words), "{text:?} lacks {words:?}"),
            other => panic!("{other:?}, not refused with {words:?}"),
        }
    }

    /// Every combination of who owns the file, who can write it, and whose the process is.
    #[test]
    fn grounds_b_and_c_table() {
        use Rule::{OnlyRootWrites, User};
        use Writers::{OnlyRoot, Others};
        for (owner, writers, process, ground) in [
            (ROOT, OnlyRoot, DEPLOY, Some(User)),
            (ROOT, Others, DEPLOY, Some(User)),
            (DEPLOY, Others, DEPLOY, Some(User)),
            (MALLORY, Others, DEPLOY, None),
            (ROOT, OnlyRoot, MALLORY, Some(OnlyRootWrites)),
            (ROOT, Others, MALLORY, None),
            (DEPLOY, Others, MALLORY, None),
            (MALLORY, Others, MALLORY, None),
            (ROOT, OnlyRoot, ROOT, Some(OnlyRootWrites)),
            (ROOT, Others, ROOT, None),
            (DEPLOY, Others, ROOT, None),
            (MALLORY, Others, ROOT, None),
        ] {
            let facts = Facts { uid_real: process, uid_effective: process, ..facts() };
            let found = accept(&facts, &expected(), &pidfile(owner, writers, 0));
            match ground {
                Some(rule) => assert_eq!(found, Acceptance::Accepted(rule), "{owner} {process}"),
                None => refused_with(&found, "uid"),
            }
        }
    }

    #[test]
    fn both_users_of_a_process_must_be_the_services() {
        for (real, effective) in [(ROOT, DEPLOY), (DEPLOY, ROOT), (MALLORY, MALLORY)] {
            let facts = Facts { uid_real: real, uid_effective: effective, ..facts() };
            for claim in [OWN, ClaimFacts::Match, ClaimFacts::Manager] {
                refused_with(&accept(&facts, &expected(), &claim), "runs as uid");
            }
        }
    }

    #[test]
    fn some_processes_are_touched_on_no_ground() {
        let recorded = |facts: &Facts| ClaimFacts::Recorded(facts.identity);
        let at = |pid| Facts {
            identity: ProcessIdentity { pid: Pid(pid), started_ticks: 1 },
            started_boot_ms: 10,
            tgid: Pid(pid),
            ..facts()
        };
        for (facts, words) in [
            (at(1), "first process"),
            (at(0), "first process"),
            (at(500), "heeler itself"),
            (at(499), "parent of heeler"),
            (Facts { tgid: Pid(70), ..facts() }, "thread id: the process is 70"),
            (Facts { kind: Kind::Kernel, ..facts() }, "thread of the kernel"),
        ] {
            let cgroup = facts.cgroup.clone();
            let expected = Expected { cgroup, known: Some(facts.identity), ..expected() };
            for claim in [OWN, ClaimFacts::Match, ClaimFacts::Manager, recorded(&facts)] {
                refused_with(&accept(&facts, &expected, &claim), words);
            }
        }
    }

    #[test]
    fn a_process_younger_than_its_pidfile_is_another_one() {
        let judged = |age_ms| accept(&facts(), &expected(), &pidfile(DEPLOY, Writers::Others, age_ms));
        for fits in [i64::MAX / 2, 86_400_000, 0, -1999, -2000] {
            assert_eq!(judged(fits), Acceptance::Accepted(Rule::User), "{fits}");
        }
        for younger in [-2001, -60_000] {
            assert!(matches!(judged(younger), Acceptance::Stale(text) if text.contains("after")));
        }
        for earlier_boot in [-502_001, -86_400_000] {
            assert!(matches!(judged(earlier_boot), Acceptance::Stale(text) if text.contains("boot")));
        }
    }

    #[test]
    fn stale_wins_over_refused_so_that_a_reused_number_blocks_no_start() {
        let stale = pidfile(DEPLOY, Writers::Others, -60_000);
        for reused_by in [
            Facts { uid_real: ROOT, uid_effective: ROOT, ..facts() },
            Facts { kind: Kind::Kernel, ..facts() },
            Facts { tgid: Pid(70), ..facts() },
            Facts { numbering: Numbering::Nested, ..facts() },
        ] {
            assert!(matches!(accept(&reused_by, &expected(), &stale), Acceptance::Stale(_)));
        }
        let heeler = Expected { heeler: Pid(77), ..expected() };
        assert!(matches!(accept(&facts(), &heeler, &stale), Acceptance::Stale(_)));
    }

    #[test]
    fn a_clock_set_forward_makes_no_living_process_stale() {
        // A virtual machine that slept 20 hours: what was written before looks 20 hours older.
        let boot = BootWindow { earliest_ms: BOOT_MS, latest_ms: BOOT_MS + 72_000_000 };
        let slept = Expected { boot, ..expected() };
        assert!(matches!(accept(&facts(), &slept, &OWN), Acceptance::Unclear(_)));
        let known = Expected { known: Some(facts().identity), ..slept.clone() };
        assert_eq!(accept(&facts(), &known, &OWN), Acceptance::Accepted(Rule::Recorded));
        let foreign = Facts { uid_real: ROOT, uid_effective: ROOT, ..facts() };
        assert!(matches!(accept(&foreign, &slept, &OWN), Acceptance::Stale(_)));
        let ancient = pidfile(DEPLOY, Writers::Others, -3_000_000);
        assert!(matches!(accept(&facts(), &slept, &ancient), Acceptance::Stale(_)));
    }

    #[test]
    fn a_known_identity_is_that_process_and_no_other_with_its_number() {
        let before = ProcessIdentity { pid: Pid(77), started_ticks: 49_999 };
        let old = pidfile(DEPLOY, Writers::Others, -60_000);
        let known = |identity| Expected { known: Some(identity), ..expected() };
        let accepted = Acceptance::Accepted(Rule::Recorded);
        assert_eq!(accept(&facts(), &known(facts().identity), &old), accepted);
        assert!(matches!(accept(&facts(), &known(before), &old), Acceptance::Stale(_)));
        let recorded = |identity| accept(&facts(), &expected(), &ClaimFacts::Recorded(identity));
        assert_eq!(recorded(facts().identity), accepted);
        assert!(matches!(recorded(before), Acceptance::Stale(_)));
    }

    #[test]
    fn a_control_group_is_the_services_own_or_it_is_not() {
        let judged = |own: &str, cgroup: &str| {
            let facts = Facts { cgroup: Some(cgroup.into()), uid_real: MALLORY, ..facts() };
            let expected = Expected { cgroup: Some(own.into()), ..expected() };
            accept(&facts, &expected, &OWN) == Acceptance::Accepted(Rule::OwnCgroup)
        };
        assert!(judged("/system.slice/shop.service", "/system.slice/shop.service"));
        assert!(judged("/system.slice/shop.service", "/system.slice/shop.service/worker"));
        assert!(!judged("/system.slice/shop.service", "/system.slice/shop.service2"));
        assert!(!judged("/system.slice/shop.service", "/system.slice"));
        assert!(!judged("/", "/"));
        assert!(!judged("", "/x"));
    }

    #[test]
    fn a_manager_vouches_only_for_what_the_kernel_says_it_holds() {
        let judged = |cgroup: &str| {
            let facts = Facts { cgroup: Some(cgroup.into()), ..facts() };
            accept(&facts, &expected(), &ClaimFacts::Manager)
        };
        let held = "/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service";
        assert_eq!(judged(held), Acceptance::Accepted(Rule::User));
        for elsewhere in [
            "/system.slice/shop.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/user.slice/user-33.slice/user@33.service/user.slice/user-1000.slice/user@1000.service/x",
        ] {
            refused_with(&judged(elsewhere), "not under the manager");
        }
    }

    #[test]
    fn a_number_from_a_container_is_not_one_of_ours() {
        let nested = Facts { numbering: Numbering::Nested, ..facts() };
        refused_with(&accept(&nested, &expected(), &OWN), "container");
        let found = accept(&nested, &expected(), &ClaimFacts::Match);
        assert_eq!(found, Acceptance::Accepted(Rule::User), "/proc gave us this number");
    }
}
