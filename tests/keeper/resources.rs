//! What the keeper holds after many restarts is what it held before. `HEELER_RESTARTS` sets how many: a day
//! and night of trouble, compressed, is
//! `HEELER_RESTARTS=10000 cargo test --release --test keeper resources::many -- --nocapture` (ten minutes).

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::support::house::{House, PATIENCE, pids, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const MANY: usize = 20;
/// Of all services together.
const CHECKS: usize = 500;

/// What the keeper holds.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    fds: usize,
    threads: usize,
    rss_kib: u64,
}

fn held(keeper: u32) -> Held {
    let count =
        |what: &str| fs::read_dir(format!("/proc/{keeper}/{what}")).expect("it lives").count();
    let status = fs::read_to_string(format!("/proc/{keeper}/status")).expect("it lives");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let rss_kib = rss.trim().trim_end_matches(" kB").parse().expect("a number");
    Held { fds: count("fd"), threads: count("task"), rss_kib }
}

/// The ended children of a process that it did not reap.
pub(crate) fn zombies(parent: u32) -> usize {
    let is = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with(&format!("Z {parent} ")))
        })
    };
    pids().iter().filter(|pid| is(pid)).count()
}

/// RES-08: five hundred checks, and services that die over and over.
#[test]
fn many_restarts_leave_nothing_behind() {
    let restarts: usize =
        std::env::var("HEELER_RESTARTS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut house = House::new("");
    let mut common =
        "every = \"1s\"\nstart_period = \"100ms\"\nstart_limit = \"1000 per 1m\"\n".to_owned();
    for n in 0..CHECKS / MANY {
        common += &format!("[[check]]\nif = \"memory > {}GiB\"\nthen = \"restart\"\n", n + 1);
    }
    let names: Vec<_> = (0..MANY).map(|n| format!("s{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        if n % 4 == 0 {
            let run = house.command(name, "foreground");
            house.define(name, &format!("run = {run:?}\n{common}"));
        } else {
            house.daemon(name, "", &common);
        }
    }
    house.open();
    let mains = |house: &House| -> Vec<Option<u32>> {
        let (_, out, _) = house.heeler(&["status", "--json"]);
        let all: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let services = all["services"].as_array().cloned().unwrap_or_default();
        services
            .iter()
            .map(|one| one["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()))
            .collect()
    };
    let round = |house: &House| {
        let before = mains(house);
        for pid in before.iter().flatten() {
            signal(*pid, "KILL");
        }
        wait_for("all to be back", PATIENCE, || {
            let back = |(now, before): (&Option<u32>, &Option<u32>)| now.is_some() && now != before;
            mains(house).iter().zip(&before).all(back).then_some(())
        });
    };
    for name in &names {
        house.wait_up(name, None);
    }
    // What grows once (buffers, threads, the story of an incident) has grown after a few rounds.
    (0..4).for_each(|_| round(&house));
    let keeper = house.keeper();
    let settled = |house: &House| {
        for name in &names {
            house.wait_up(name, None);
        }
        // Shims end and idle threads go in their own time.
        std::thread::sleep(Duration::from_secs(12));
        held(keeper)
    };
    let before = settled(&house);
    let rounds = restarts / MANY;
    let mut tenths = Vec::new();
    for n in 1..=rounds {
        round(&house);
        if n % (rounds / 10).max(1) == 0 {
            tenths.push(held(keeper));
            eprintln!("after {} restarts: {:?}", n * MANY, held(keeper));
        }
    }
    let after = settled(&house);
    eprintln!(
        "{restarts} restarts: before {before:?}, after {after:?}, zombies {}",
        zombies(keeper)
    );
    assert_eq!(zombies(keeper), 0);
    assert!(
        after.fds <= before.fds + 2 && after.threads <= before.threads + 1,
        "{before:?} {after:?}"
    );
    // What is kept of the past (events, the last incident of each) is full after some thousand. From there on
    // what is in use is flat to the percent (mallinfo2); the heap around it grows in some steps of its own.
    match tenths.get(2).filter(|_| restarts >= 5000) {
        Some(third) => assert!(after.rss_kib <= third.rss_kib * 105 / 100, "{third:?} {after:?}"),
        None => assert!(
            after.rss_kib <= before.rss_kib + before.rss_kib / 10 + 512,
            "{before:?} {after:?}"
        ),
    }
    let doubles: usize = names.iter().map(|name| house.doubles(name)).sum();
    assert_eq!(doubles, 0);
}

/// epoll_ctl(2) that refuses every descriptor of heeler's own watch (tokio's are edge-triggered).
const NO_WATCHES: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/epoll.h>
int epoll_ctl(int ep, int op, int fd, struct epoll_event *event) {
  static int (*real)(int, int, int, struct epoll_event *);
  if (!real) real = dlsym(RTLD_NEXT, "epoll_ctl");
  if (op == EPOLL_CTL_ADD && event->events == EPOLLIN) { errno = ENOSPC; return -1; }
  return real(ep, op, fd, event);
}
"#;

#[test]
fn what_the_kernel_does_not_watch_is_looked_at() {
    if !can_run(&[Need::Program("/usr/bin/cc", "a C compiler")]) {
        return;
    }
    let mut house = House::new("");
    house.write("no_watches.c", NO_WATCHES);
    let library = house.path("no_watches.so");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(house.path("no_watches.c"))
        .status();
    assert!(made.expect("cc").success());
    house.daemon("shop", "", QUICK);
    let run = house.command("program", "foreground");
    house.define("program", &format!("run = {run:?}\n{QUICK}"));
    let mut command = Command::new(HEELER);
    command.env("LD_PRELOAD", &library);
    house.open_by(command);
    for name in ["shop", "program"] {
        let mut last = house.wait_up(name, None);
        for _ in 0..2 {
            signal(last, "KILL");
            last = house.wait_up(name, Some(last));
        }
        assert_eq!(house.heeler(&["restart", name]).0, 0);
        assert_eq!(house.doubles(name), 0);
    }
    let log = house.log();
    assert!(log.contains("is fs.epoll.max_user_watches too low?"), "{log}");
    wait_for("ended shims to be reaped", PATIENCE, || (zombies(house.keeper()) == 0).then_some(()));
}

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"2s\"\n";

/// A control group of the machine's own memory controller, of either hierarchy, with a limit.
struct SmallMemory(std::path::PathBuf);

impl SmallMemory {
    fn make(house: &House) -> Option<Self> {
        // A number of this process may be that of another one in another namespace.
        let house = house.path("");
        let name = house.file_name()?;
        let places =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        places.iter().find_map(|(mount, limit)| {
            let group = std::path::Path::new(mount).join(name);
            fs::create_dir(&group).ok()?;
            let small = Self(group);
            fs::write(small.0.join(limit), "40M").ok()?;
            // Where there is no swap there is nothing to forbid.
            let _no_swap = fs::write(small.0.join("memory.swap.max"), "0");
            Some(small)
        })
    }
}

impl Drop for SmallMemory {
    fn drop(&mut self) {
        let procs = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let pids: Vec<u32> = procs.lines().filter_map(|line| line.parse().ok()).collect();
        pids.iter().for_each(|pid| signal(*pid, "KILL"));
        wait_for("its group to be empty", PATIENCE, || fs::remove_dir(&self.0).ok());
    }
}

/// RES-07: the memory killer takes a service, and the story of its death says so.
#[test]
fn a_death_by_the_memory_killer_is_named() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let house = House::new("");
    let Some(small) = SmallMemory::make(&house) else {
        assert!(!can_run(&[Need::Program("/sys/fs/cgroup/memory", "a memory controller")]));
        return;
    };
    // It goes before the group does.
    let mut house = house;
    // Each goes into the small group, and eats there until it is taken, the first time, once the table is laid.
    let table = house.path("srv/table");
    let greedy = |name: &str| {
        let mark = house.path(&format!("srv/{name}.ate"));
        let (group, mark, table) = (small.0.display(), mark.display(), table.display());
        format!(
            "echo $$ >{group}/cgroup.procs; echo $$ >{mark}.pid; \
             test -e {mark} && exec sleep 1000000; touch {mark}; \
             until test -e {table}; do sleep 0.05; done; exec perl -e '$x .= \"x\" x (1 << 20) while 1'"
        )
    };
    let run = greedy("program");
    house.define("program", &format!("run = {{ run = {run:?}, shell = true }}\n{QUICK}"));
    house.write("srv/daemon.sh", &greedy("daemon"));
    let start = format!("setsid --fork sh {}", house.path("srv/daemon.sh").display());
    let pidfile = house.path("srv/daemon.ate.pid");
    house.define("daemon", &format!("pidfile = {pidfile:?}\nstart = {start:?}\n{QUICK}"));
    house.daemon("other", "", QUICK);
    house.open();
    let names = ["program", "daemon"];
    let first = names.map(|name| house.wait_up(name, None));
    let other = house.wait_up("other", None);
    fs::write(&table, "").expect("laid");
    // Of a group that it was in when it was proved, it is known whom the killer took; else only that it was
    // at work.
    let how = ["killed by SIGKILL", "took a process of the control group /heeler-test-"];
    for ((name, first), how) in names.iter().zip(first).zip(how) {
        house.wait_up(name, Some(first));
        wait_for(&format!("the story of {name}"), PATIENCE, || {
            let (_, why, _) = house.heeler(&["why", name]);
            (why.contains(how) && why.contains("out-of-memory killer")).then_some(())
        });
    }
    assert_eq!(house.pid("other"), Some(other));
}
