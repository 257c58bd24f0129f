//! CFG-07: so many reloads, a hundred at once, and nothing of them stays. `HEELER_RELOADS` sets how many
//! (10,000 for the whole thing; some hundred by default).

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::house::{House, PATIENCE};
use crate::support::wait_for;

const QUICK: &str = "every = \"1s\"\nstart_period = \"100ms\"\n";

/// Asks for a reload without a process of its own; what was answered.
fn reload(house: &House) -> String {
    let mut stream = UnixStream::connect(house.path("run/control.sock")).expect("connects");
    let request = "POST /v1/reload-config HTTP/1.1\r\nHost: heeler\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

/// What a process holds: descriptors, threads, resident KiB.
fn held(pid: u32) -> (usize, usize, u64) {
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).expect("it lives").count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    (count("fd"), count("task"), rss.trim().trim_end_matches(" kB").parse().expect("a number"))
}

/// A definition that is another one each time: its timeouts, its page, whether it has one.
fn define(house: &House, round: usize) {
    let check = format!(
        "[[check]]\ntype = \"http\"\nurl = \"http://127.0.0.1:9/{round}\"\nevery = \"1s\"\n\
         [[check]]\ntype = \"file\"\npath = \"/etc/passwd\"\nname = \"f{}\"\nif = \"changed\"\n",
        round % 7
    );
    let check = if round.is_multiple_of(3) { String::new() } else { check };
    house.daemon(
        "changing",
        "",
        &format!("{QUICK}stop_timeout = \"{}s\"\n{check}", 1 + round % 50),
    );
    let coming = house.path("conf.d/coming.toml");
    if round.is_multiple_of(2) {
        let allow = format!("allow = {{ no-user-{} = [\"status\"] }}\n", round % 100);
        house.daemon("coming", "", &format!("{QUICK}{allow}"));
    } else {
        drop(fs::remove_file(coming));
    }
}

#[test]
fn cfg_07_many_reloads_leave_nothing_behind_and_the_last_wins() {
    let reloads: usize =
        std::env::var("HEELER_RELOADS").ok().and_then(|n| n.parse().ok()).unwrap_or(600);
    let mut house = House::new("");
    for n in 0..10 {
        house.daemon(&format!("s{n}"), "", QUICK);
    }
    define(&house, 0);
    house.open();
    let pids: Vec<_> = (0..10).map(|n| house.wait_up(&format!("s{n}"), None)).collect();
    let rounds = |from: usize, count: usize| {
        for round in from..from + count {
            define(&house, round);
            let answer = reload(&house);
            assert!(answer.contains("\"good\":true"), "{answer}");
        }
    };
    let settled = || {
        // Idle threads go in their own time.
        std::thread::sleep(Duration::from_secs(12));
        held(house.keeper())
    };
    rounds(1, 100);
    let before = settled();
    rounds(101, reloads);
    // A hundred at once, while the file changes under them: what it is at last is in force.
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| (0..10).for_each(|_| drop(reload(&house))));
        }
        for round in 0..50 {
            define(&house, 1000 + 2 * round);
        }
    });
    define(&house, 2);
    assert!(reload(&house).contains("\"good\":true"));
    let after = settled();
    eprintln!("{reloads} reloads: (fds, threads, KiB) before {before:?}, after {after:?}");
    assert!(after.0 <= before.0 + 2 && after.1 <= before.1 + 2, "{before:?} {after:?}");
    assert!(after.2 <= before.2 + before.2 / 10 + 1024, "{before:?} {after:?}");
    for (n, pid) in pids.iter().enumerate() {
        assert_eq!(house.wait_up(&format!("s{n}"), None), *pid);
    }
    let (_, plan, _) = house.heeler(&["plan"]);
    assert_eq!(plan, "nothing changes: 12 services as before\n");
    wait_for("the last definition", PATIENCE, || {
        let checks = house.status("changing")["checks"].as_array().map(Vec::len);
        (checks == Some(2)).then_some(())
    });
    // The scout knows what is asked for now, not all that ever was.
    assert_eq!(house.doubles("changing") + house.doubles("coming"), 0);
}
