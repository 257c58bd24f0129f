//! Nothing waits for anything else: hanging commands and hanging file systems beside a healthy service.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::hanging::Hanging;
use crate::support::house::{House, PATIENCE, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstart_limit = \"100 per 1m\"\n";
const MANY: usize = 20;
/// Far less than any of what hangs takes, more than a busy machine does.
const NOT_HELD_UP: Duration = Duration::from_secs(5);

/// Kills a service some times, and answers the longest it was away.
fn longest_absence(house: &House, name: &str, times: usize) -> Duration {
    let mut worst = Duration::ZERO;
    for _ in 0..times {
        // Between two starts of heeler's own lies at least a second.
        std::thread::sleep(Duration::from_millis(1200));
        let starts = house.starts(name);
        let began = Instant::now();
        signal(*starts.last().expect("was started"), "KILL");
        wait_for(&format!("{name} to be back"), PATIENCE, || {
            (house.starts(name).len() > starts.len()).then_some(())
        });
        worst = worst.max(began.elapsed());
    }
    assert_eq!(house.doubles(name), 0);
    worst
}

#[test]
fn hanging_commands_hold_up_nobody_else() {
    let mut house = House::new("");
    house.daemon("healthy", "", QUICK);
    for n in 0..MANY {
        let pidfile = house.path(&format!("srv/start{n}.pid"));
        house.define(
            &format!("start{n}"),
            &format!("pidfile = {pidfile:?}\nstart = \"/bin/sleep 1000\"\n{QUICK}"),
        );
        house.daemon(&format!("stop{n}"), "", &format!("{QUICK}stop = \"/bin/sleep 1000\"\n"));
    }
    house.open();
    house.wait_up("healthy", None);
    for n in 0..MANY {
        house.wait_up(&format!("stop{n}"), None);
    }
    let names: Vec<_> = (0..MANY).map(|n| format!("stop{n}")).collect();
    let mut stop = Command::new(HEELER)
        .env("HEELER_SOCKET", house.path("run/control.sock"))
        .arg("stop")
        .args(&names)
        .stdout(Stdio::null())
        .spawn()
        .expect("the client");
    wait_for("a stop to be under way", PATIENCE, || {
        (house.status("stop7")["phase"] == "stopping").then_some(())
    });
    let worst = longest_absence(&house, "healthy", 3);
    eprintln!("beside {MANY} hanging starts and {MANY} hanging stops: back within {worst:?}");
    assert!(worst < NOT_HELD_UP, "{worst:?}");
    stop.kill().expect("kill");
    stop.wait().expect("wait");
}

#[test]
fn pidfiles_on_a_file_system_that_hangs_hold_up_nobody_else() {
    if !can_run(&[Need::Root, Need::Program("/dev/fuse", "a kernel with FUSE")]) {
        return;
    }
    let mut house = House::new("");
    let Some(hanging) = Hanging::make(&house.path("hanging")) else {
        eprintln!("SKIPPED for want of: the right to mount FUSE");
        return;
    };
    for n in 0..MANY {
        let pidfile = hanging.at.join(format!("{n}.pid"));
        house.define(
            &format!("hangs{n}"),
            &format!("pidfile = {pidfile:?}\nstart = \"/bin/true\"\n{QUICK}"),
        );
    }
    // By its name it is looked at last.
    house.daemon("zealous", "", QUICK);
    let began = Instant::now();
    house.open();
    house.wait_up("zealous", None);
    let up = began.elapsed();
    let worst = longest_absence(&house, "zealous", 3);
    eprintln!("beside {MANY} pidfiles that hang: up in {up:?}, back within {worst:?}");
    assert!(up < NOT_HELD_UP && worst < NOT_HELD_UP, "{up:?} {worst:?}");
    assert_eq!(house.heeler(&["restart", "zealous"]).0, 0);
    let began = Instant::now();
    assert_eq!(house.close(), Some(0));
    assert!(began.elapsed() < NOT_HELD_UP, "{:?}", began.elapsed());
}
