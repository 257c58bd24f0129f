//! What the keeper holds after many restarts is what it held before. `HEELER_RESTARTS` sets how many
//! (2,000 for the whole thing; some hundred by default).

use std::fs;
use std::time::Duration;

use crate::support::house::{House, PATIENCE, pids, signal};
use crate::support::wait_for;

const MANY: usize = 20;

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
fn zombies(parent: u32) -> usize {
    let is = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with(&format!("Z {parent} ")))
        })
    };
    pids().iter().filter(|pid| is(pid)).count()
}

#[test]
fn many_restarts_leave_nothing_behind() {
    let restarts: usize =
        std::env::var("HEELER_RESTARTS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut house = House::new("");
    let common = "every = \"1s\"\nstart_period = \"100ms\"\nstart_limit = \"1000000 per 1h\"\n";
    let names: Vec<_> = (0..MANY).map(|n| format!("s{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        if n % 4 == 0 {
            let run = house.command(name, "foreground");
            house.define(name, &format!("run = {run:?}\n{common}"));
        } else {
            house.daemon(name, "", common);
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
    (0..restarts / MANY).for_each(|_| round(&house));
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
    assert!(after.rss_kib <= before.rss_kib + before.rss_kib / 10 + 512, "{before:?} {after:?}");
    let doubles: usize = names.iter().map(|name| house.doubles(name)).sum();
    assert_eq!(doubles, 0);
}
