//! What a program may do, and must not get by it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::support::house::{House, PATIENCE, alive, lines, signal};
use crate::support::{Need, can_run, wait_for};
use crate::{define, evil, house, shims, wait_says};

/// A name that no other run of these tests has: shims are known by it.
fn own(mode: &str) -> String {
    format!("{mode}-{}", std::process::id())
}

fn pids(file: &std::path::Path) -> Vec<u32> {
    lines(file).iter().filter_map(|line| line.parse().ok()).collect()
}

/// PLG-01, PLG-02.
#[test]
fn plg_01_and_02_endless_output_costs_no_memory_and_is_ended_in_time() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = house();
    for mode in ["spew", "big"] {
        let (command, _) = evil(&house, mode, mode);
        define(&house, &own(mode), &command, "every = \"500ms\"\ntimeout = \"1500ms\"");
    }
    house.open();
    let rss_kb = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let began_kb = rss_kb(house.keeper()).expect("the keeper");
    let (mut most_kb, mut seen) = (0, 0);
    let end = Instant::now() + Duration::from_secs(1);
    wait_for("a second of output", PATIENCE, || {
        if let Some(kb) = shims(&own("spew")).into_iter().find_map(rss_kb) {
            (most_kb, seen) = (most_kb.max(kb), seen + 1);
        }
        (Instant::now() > end && seen > 3).then_some(())
    });
    assert!(most_kb < 2048, "the shim grew to {most_kb} kB");
    let (text, _) = wait_says(&house, &own("spew"), "timed out after 1.5s");
    assert!(text.contains("[output cut: "), "{text}");
    assert!(text.len() < 1200, "{}", text.len());
    wait_for("the big one to end", PATIENCE, || {
        let (text, _) = wait_says(&house, &own("big"), "");
        (text.contains("timed out") || text.starts_with("failed (no")).then_some(())
    });
    let grown_kb = rss_kb(house.keeper()).expect("the keeper").saturating_sub(began_kb);
    assert!(grown_kb < 4096, "the keeper grew by {grown_kb} kB");
    assert!(house.log().len() < 20_000, "the log is {} bytes", house.log().len());
    assert!(house.mails().iter().all(|mail| mail.len() < 20_000));
    eprintln!("shim at most {most_kb} kB, keeper grew by {grown_kb} kB");
}

#[test]
fn plg_03_what_is_left_in_the_group_neither_holds_up_the_result_nor_lives_on() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = house();
    let modes = ["holdpipe", "silent-rest"];
    for mode in modes {
        let (command, _) = evil(&house, mode, mode);
        let lines = "every = \"500ms\"\ntimeout = \"20s\"\nif = \"exit_code = 0\"";
        define(&house, mode, &command, lines);
    }
    house.open();
    for mode in modes {
        let began = Instant::now();
        wait_says(&house, mode, "exit_code (0)");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let (_, file) = evil(&house, mode, mode);
        wait_for("what it left to be ended", PATIENCE, || {
            pids(&file).first().is_some_and(|pid| !alive(*pid)).then_some(())
        });
    }
}

#[test]
fn plg_04_what_hangs_stops_itself_or_ignores_term_is_ended() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = house();
    let modes = ["hang", "stop", "noterm"];
    for mode in modes {
        let (command, _) = evil(&house, mode, mode);
        define(&house, &own(mode), &command, "every = \"1h\"\ntimeout = \"1s\"");
    }
    house.open();
    for mode in modes {
        let (_, state) = wait_says(&house, &own(mode), "timed out after 1s");
        assert_eq!(state, "firing", "too late is a failure");
        let (_, file) = evil(&house, mode, mode);
        let pids = pids(&file);
        assert!(pids.len() == 1 && !alive(pids[0]), "{mode}: {pids:?}");
        assert_eq!(shims(&own(mode)), [0_u32; 0], "{mode}");
    }
}

#[test]
fn plg_06_what_leaves_its_session_is_named_and_left_alone() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = house();
    let modes = ["setsid", "daemonize"];
    for mode in modes {
        let (command, _) = evil(&house, mode, mode);
        define(&house, &own(mode), &command, "every = \"1h\"\nif = \"exit_code = 0\"");
    }
    house.open();
    for mode in modes {
        wait_says(&house, &own(mode), "exit_code (0)");
        let (_, file) = evil(&house, mode, mode);
        let pid = wait_for("its pid", PATIENCE, || pids(&file).first().copied());
        let named = format!("it left processes in sessions of their own, and they go on: {pid} [");
        wait_for("heeler to say so", PATIENCE, || house.log().contains(&named).then_some(()));
        assert!(alive(pid), "it may be a service that the program brought up");
        // A shim stays for as long as its output is held: who holds it must not die of SIGPIPE.
        assert_eq!(!shims(&own(mode)).is_empty(), mode == "daemonize", "{mode}");
        wait_for("its shim to go with it", PATIENCE, || {
            pids(&file).into_iter().for_each(|pid| signal(pid, "KILL"));
            shims(&own(mode)).is_empty().then_some(())
        });
    }
}

#[test]
fn plg_06_daemons_left_at_each_run_cost_one_shim_in_all() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = house();
    let (command, file) = evil(&house, "daemonize", "daemons");
    define(&house, &own("daemons"), &command, "every = \"200ms\"");
    house.open();
    wait_for("five daemons", PATIENCE, || (pids(&file).len() >= 5).then_some(()));
    assert_eq!(house.close(), Some(0));
    wait_for("the shims of the others to go", PATIENCE, || {
        (shims(&own("daemons")).len() == 1).then_some(())
    });
    let daemons = pids(&file);
    assert!(daemons.iter().all(|pid| alive(*pid)), "{daemons:?}");
    let told = house.log().matches("it left processes").count();
    assert_eq!(told, 1, "once, not at each run:\n{}", house.log());
    daemons.iter().for_each(|pid| signal(*pid, "KILL"));
    wait_for("the last shim to go", PATIENCE, || shims(&own("daemons")).is_empty().then_some(()));
}

/// PLG-07, PLG-10, PLG-12.
#[test]
fn plg_07_10_and_12_the_exit_decides_and_stdin_is_at_its_end() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = house();
    let script = house.path("srv/evil.sh");
    let script = script.display();
    let cases = [
        ("code 7", "", "failed with code 7: code it is"),
        ("code 2", "style = \"nagios\"", "CRITICAL (code 2): code it is"),
        ("code 3", "style = \"nagios\"", "UNKNOWN (code 3): code it is"),
        ("suicide SEGV", "", "killed by SIGSEGV"),
        ("suicide KILL", "", "killed by SIGKILL"),
        ("stdin", "", "failed with code 4: stdin is at its end"),
        ("closeout", "", "failed with code 5"),
    ];
    for (n, (mode, lines, _)) in cases.iter().enumerate() {
        let lines = format!("every = \"500ms\"\n{lines}");
        define(&house, &format!("case{n}"), &format!("/bin/sh {script} {mode}"), &lines);
    }
    house.open();
    for (n, (mode, _, words)) in cases.iter().enumerate() {
        let (_, state) = wait_says(&house, &format!("case{n}"), words);
        assert_eq!(state == "ok", *mode == "code 3", "{mode}: {state}");
    }
}

#[test]
fn plg_08_one_that_still_runs_is_not_run_twice_nor_by_the_next_keeper() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/flock", "util-linux")]) {
        return;
    }
    let mut house = house();
    let (command, file) = evil(&house, "slow", "slow");
    define(&house, "slow", &command, "every = \"200ms\"\nif = \"exit_code = 0\"");
    house.open();
    wait_for("three runs", PATIENCE, || (pids(&file).len() >= 3).then_some(()));
    let runs = pids(&file).len();
    wait_for("one more", PATIENCE, || (pids(&file).len() > runs).then_some(()));
    house.kill_keeper();
    let last = *pids(&file).last().expect("a run");
    assert!(alive(last), "it outlives the keeper");
    house.open();
    wait_says(&house, "slow", "exit_code (0)");
    assert!(!file.with_extension("pids.double").exists(), "two ran at once");
    house.close();
    let (command, file) = evil(&house, "hang", "hang");
    define(&house, "hang", &command, "every = \"200ms\"\ntimeout = \"4s\"");
    house.open();
    wait_for("it to run", PATIENCE, || pids(&file).first().copied());
    house.kill_keeper();
    house.open();
    wait_says(&house, "hang", "an earlier run of it is still under way");
    assert_eq!(pids(&file).len(), 1);
    wait_says(&house, "hang", "timed out after 4s");
}

#[test]
fn plg_09_what_it_prints_is_escaped_wherever_it_is_shown() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = house();
    let (command, _) = evil(&house, "esc", "esc");
    define(&house, "esc", &command, "every = \"500ms\"");
    house.open();
    let (_, state) = wait_says(&house, "esc", "failed with code 1: \\x1b]0;pwn\\x07\\x1b[2J");
    assert_eq!(state, "firing");
    let mail = wait_for("the mail", PATIENCE, || house.mails().first().cloned());
    let shown = [house.heeler(&["status", "esc"]).1, house.heeler(&["why", "esc"]).1, house.log()];
    for text in shown.iter().chain([&mail]) {
        assert!(!text.chars().any(|c| c.is_control() && !"\r\n\t".contains(c)), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("Bcc")), "{text}");
    }
}

#[test]
fn plg_11_one_that_is_gone_or_may_not_be_executed_is_unknown_and_recovers() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = house();
    let path = house.path("srv/plugin");
    let put = |house: &House, mode: u32| {
        // As a package manager does: never open for writing under its name.
        house.write("srv/plugin.new", "#!/bin/sh\nexit 0\n");
        let new = house.path("srv/plugin.new");
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).expect("chmod");
        fs::rename(&new, &path).expect("rename");
    };
    put(&house, 0o755);
    let command = path.display().to_string();
    let lines = "every = \"200ms\"\nif = \"failed or exit_code = 0\"\nthen = \"alert\"";
    define(&house, "plugin", &command, lines);
    let ghost = format!(
        "user = \"nosuchuser\"\nevery = \"300ms\"\n[[check]]\ntype = \"program\"\ncommand = {command:?}\nevery = \"200ms\"\n"
    );
    house.define("ghost", &ghost);
    house.open();
    wait_says(&house, "ghost", "failed to find the user");
    wait_says(&house, "plugin", "exit_code (0)");
    fs::remove_file(&path).expect("remove");
    let (text, _) = wait_says(&house, "plugin", "it was not executed");
    assert!(text.contains("srv/plugin"), "{text}");
    wait_for("an alert that it cannot be told", PATIENCE, || {
        house.mails().iter().any(|mail| mail.contains("cannot be told")).then_some(())
    });
    put(&house, 0o644);
    wait_says(&house, "plugin", "chmod +x it");
    put(&house, 0o755);
    wait_says(&house, "plugin", "exit_code (0)");
}
