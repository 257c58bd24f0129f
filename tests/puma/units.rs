//! `unit =`: life, state and commands from deploy's own systemd, with the unit people have.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::orphans::hold_the_lock;
use crate::shop::{Shop, Way, app, as_deploy, freeze, masters, start_manager, up, workers, write};
use crate::support::house::{PATIENCE, alive, pids, signal};
use crate::support::wait_for;
use crate::world::world;

const UNIT: &str = "/home/deploy/.config/systemd/user/puma.service";

/// The unit of the story heeler was born from.
pub(crate) fn restarted_by_systemd() {
    let text = fs::read_to_string(UNIT).expect("the unit");
    let text = text.replace(
        "Restart=no",
        "ExecReload=/bin/kill -USR1 $MAINPID\nRestart=always\nRestartSec=1\nTimeoutStopSec=90",
    );
    write(Path::new(UNIT), &text);
}

fn main_pid() -> String {
    let output = as_deploy("systemctl --user show puma -p MainPID --value");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn systemctl(words: &str) {
    let output = as_deploy(&format!("systemctl --user {words}"));
    assert!(output.status.success(), "{words}: {output:?}");
}

#[test]
fn a_unit_is_started_restarted_reloaded_stopped() {
    world(|| {
        let mut shop = Shop::new(Way::Managed, "");
        restarted_by_systemd();
        let first = shop.open();
        assert_eq!(main_pid(), first.master.to_string());
        assert_eq!(first.env("XDG_RUNTIME_DIR"), Some("/run/user/1500"));
        let before = workers(first.master);
        let (code, out, err) = shop.house.heeler(&["reload", "shop"]);
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.contains("is still the same"), "{out}");
        wait_for("new workers under the same master", PATIENCE, || {
            let now = workers(first.master);
            (now.len() == 2 && now.iter().all(|pid| !before.contains(pid))).then_some(())
        });
        let second = shop.timed("heeler restart", Some(first.master), |shop| {
            let (code, out, err) = shop.house.heeler(&["restart", "shop"]);
            assert_eq!(code, 0, "{out}{err}");
        });
        assert_eq!(main_pid(), second.master.to_string());
        let (code, out, err) = shop.house.heeler(&["stop", "shop"]);
        assert_eq!(code, 0, "{out}{err}");
        assert_eq!((masters(), main_pid()), (vec![], "0".to_owned()));
        let third = shop.timed("heeler start", Some(second.master), |shop| {
            let (code, out, err) = shop.house.heeler(&["start", "shop"]);
            assert_eq!(code, 0, "{out}{err}");
        });
        assert_eq!(masters(), [third.master]);
        assert_eq!(shop.house.mails().len(), 0, "{:?}", shop.house.mails());
    });
}

#[test]
fn what_systemd_restarts_heeler_only_tells() {
    world(|| {
        let mut shop = Shop::new(Way::Managed, "");
        restarted_by_systemd();
        let first = shop.open();
        let second =
            shop.timed("kill -9 of the master, Restart=always", Some(first.master), |_| {
                signal(first.master, "KILL");
            });
        assert_eq!(main_pid(), second.master.to_string());
        assert_eq!(shop.starts(), 1, "{}", shop.house.log());
        let mails = shop.wait_mails(1);
        assert!(mails[0].contains("its manager is bringing it up"), "{}", mails[0]);
        // And a deploy's own restart is nobody's mail.
        systemctl("restart puma");
        let third = shop.wait_serving(Some(second.master));
        assert_eq!(main_pid(), third.master.to_string());
        assert_eq!((shop.starts(), shop.house.mails().len()), (1, 1), "{}", shop.house.log());
    });
}

#[test]
fn what_systemd_gives_up_on_heeler_brings_back() {
    world(|| {
        let mut shop = Shop::new(Way::Managed, "start_limit = \"50 per 10m\"");
        restarted_by_systemd();
        // systemd starts it five times in so long, on a slow machine too, and never again.
        let text = fs::read_to_string(UNIT).expect("the unit");
        write(Path::new(UNIT), &format!("[Unit]\nStartLimitIntervalSec=120\n{text}"));
        let mut last = shop.open();
        let began = Instant::now();
        for _ in 0..6 {
            signal(last.master, "KILL");
            last = wait_for("puma to serve", PATIENCE * 2, || {
                up().filter(|up| up.master != last.master)
            });
        }
        println!("MEASURED six kills in {:.1} s", began.elapsed().as_secs_f64());
        let log = shop.house.log();
        assert!(log.contains("systemd gave up on it") || shop.starts() > 1, "{log}");
        shop.wait_serving(None);
        let state = as_deploy("systemctl --user is-active puma");
        assert_eq!(String::from_utf8_lossy(&state.stdout).trim(), "active");
    });
}

/// Without heeler this is an outage of TimeoutStopSec: 90 s.
#[test]
fn a_worker_that_holds_its_unit_up_is_freed_from_it() {
    world(|| {
        let mut shop = Shop::new(Way::Managed, "");
        restarted_by_systemd();
        let first = shop.open();
        wait_for("both workers", PATIENCE, || (workers(first.master).len() == 2).then_some(()));
        let orphan = hold_the_lock();
        let what = "kill -9 of the master, a worker holds the lock, Restart=always";
        let second = shop.timed(what, Some(first.master), |_| signal(first.master, "KILL"));
        assert!(!alive(orphan));
        assert_eq!(masters(), [second.master]);
        assert_eq!(main_pid(), second.master.to_string());
    });
}

#[test]
fn a_stop_behind_heelers_back_is_ended_and_told() {
    world(|| {
        let mut shop = Shop::new(Way::Managed, "");
        let first = shop.open();
        let second = shop.timed("systemctl --user stop", Some(first.master), |_| {
            systemctl("stop puma");
        });
        assert_eq!(masters(), [second.master]);
        let mails = shop.wait_mails(1);
        let mail = mails[0].split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            mail.contains("its unit ended by itself or was stopped (Result=success)"),
            "{mail}"
        );
    });
}

#[test]
fn a_manager_that_hangs_holds_up_its_own_units_only() {
    world(|| {
        let mut shop = Shop::new(Way::Managed, "");
        restarted_by_systemd();
        shop.house.define("plain", "run = \"sleep 100000\"\nevery = \"500ms\"\n");
        let first = shop.open();
        let manager = manager();
        freeze(manager);
        signal(first.master, "KILL");
        let why = shop.wait_why("does not answer within 5s");
        println!("WHY\n{why}");
        let plain = shop.house.pid("plain").expect("runs");
        let began = Instant::now();
        signal(plain, "KILL");
        wait_for("the other service", Duration::from_secs(5), || {
            shop.house.pid("plain").filter(|pid| *pid != plain)
        });
        println!("MEASURED beside it: {} ms", began.elapsed().as_millis());
        let second = shop.timed("the manager goes on", Some(first.master), |_| {
            signal(manager, "CONT");
        });
        assert_eq!(masters(), [second.master]);
    });
}

#[test]
fn a_pidfile_that_names_another_master_is_a_finding() {
    world(|| {
        let mut shop = Shop::new(Way::Managed, "");
        let file = app("shared/pids/puma.pid");
        shop.define(&format!("unit = \"puma\"\npidfile = {file:?}\n"), "");
        let first = shop.open();
        assert_eq!(main_pid(), first.master.to_string());
        shop.house.close();
        // Somebody started a second Puma by hand, which took the pidfile over.
        let stranger = as_deploy("setsid sleep 100000 >/dev/null 2>&1 & echo $!");
        let stranger = String::from_utf8_lossy(&stranger.stdout).trim().to_owned();
        write(&file, &stranger);
        shop.house.open();
        let why = shop.wait_why("two masters?");
        assert!(why.contains(&format!("process {stranger}, which the pidfile names")), "{why}");
        assert!(alive(first.master) && alive(stranger.parse().expect("a pid")));
        assert_eq!(shop.starts(), 1, "{}", shop.house.log());
    });
}

#[test]
fn a_keeper_that_comes_back_finds_its_unit_again() {
    world(|| {
        let mut shop = Shop::new(Way::Managed, "");
        restarted_by_systemd();
        let first = shop.open();
        shop.house.close();
        shop.house.open();
        let same = shop.wait_serving(None);
        assert_eq!((same.master, shop.starts()), (first.master, 1), "{}", shop.house.log());
        // And what went while it was away, systemd has brought back.
        shop.house.close();
        signal(first.master, "KILL");
        let second =
            wait_for("puma to serve", PATIENCE, || up().filter(|up| up.master != first.master));
        shop.house.open();
        let held = shop.wait_serving(None);
        assert_eq!((held.master, shop.starts()), (second.master, 1), "{}", shop.house.log());
    });
}

#[test]
fn a_unit_that_is_not_there_is_told() {
    world(|| {
        let mut shop = Shop::new(Way::Managed, "");
        shop.define("unit = \"pumma\"\n", "");
        start_manager();
        shop.house.open();
        let why = shop.wait_why("there is no unit pumma.service");
        assert!(why.contains("daemon-reload"), "{why}");
        assert!(masters().is_empty());
    });
}

/// deploy's `systemd --user`.
fn manager() -> u32 {
    let is = |pid: &u32| crate::shop::title(*pid) == "/lib/systemd/systemd --user";
    pids().into_iter().find(is).expect("the manager runs")
}
