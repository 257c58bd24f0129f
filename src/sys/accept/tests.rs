//! The accept rule, case by case.

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
    ClaimFacts::Pidfile { owner, writers, modified_wall_ms, unchanged: false }
}

const OWN: ClaimFacts = ClaimFacts::Pidfile {
    owner: DEPLOY,
    writers: Writers::Others,
    modified_wall_ms: BOOT_MS + STARTED_MS + 1000,
    unchanged: false,
};

fn refused_with(acceptance: &Acceptance, words: &str) {
    let refused = matches!(acceptance, Acceptance::Refused(text) if text.contains(words));
    assert!(refused, "{acceptance:?}, not refused with {words:?}");
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
        for claim in [OWN, ClaimFacts::Match, ClaimFacts::Manager(Manager::User)] {
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
        for claim in [OWN, ClaimFacts::Match, ClaimFacts::Manager(Manager::User), recorded(&facts)]
        {
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
        accept(&facts, &expected(), &ClaimFacts::Manager(Manager::User))
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

#[test]
fn the_dead_ones_untouched_pidfile_names_no_new_process_whatever_the_clocks_say() {
    let unchanged = ClaimFacts::Pidfile {
        owner: DEPLOY,
        writers: Writers::Others,
        modified_wall_ms: BOOT_MS + STARTED_MS + 1000,
        unchanged: true,
    };
    let before = ProcessIdentity { pid: Pid(77), started_ticks: 49_999 };
    let judged = |known, claim: &ClaimFacts| {
        let known = Some(known);
        accept(&facts(), &Expected { known, ..expected() }, claim)
    };
    assert!(matches!(judged(before, &unchanged), Acceptance::Stale(_)));
    assert_eq!(judged(before, &OWN), Acceptance::Accepted(Rule::User));
    let same = facts().identity;
    assert_eq!(judged(same, &unchanged), Acceptance::Accepted(Rule::Recorded));
}
