//! A scout that dies, hangs or lies is replaced; nothing is ever done because of it.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::cage::{seen, wait_scout};
use crate::server::Server;
use crate::support::house::{House, PATIENCE, signal};
use crate::support::{Need, can_run, wait_for};

const SERVICES: usize = 40;

/// Services that would be restarted at the first failure of their page.
fn house_under_load(server: &Server, services: usize) -> House {
    let mut house = House::new("");
    for n in 0..services {
        let check = format!(
            "[[check]]\ntype = \"http\"\nurl = {:?}\ntimeout = \"2s\"\nevery = \"200ms\"\nthen = \"restart\"\n",
            server.url("/ok")
        );
        let lines = format!("every = \"1s\"\nstart_period = \"100ms\"\n{check}");
        house.daemon(&format!("s{n}"), "", &lines);
    }
    house.open();
    for n in 0..services {
        house.wait_up(&format!("s{n}"), None);
    }
    house
}

fn nothing_was_done(house: &House, services: usize) {
    for n in 0..services {
        let name = format!("s{n}");
        assert_eq!(house.starts(&name).len(), 1, "{name} was restarted:\n{}", house.log());
    }
}

#[test]
fn killed_every_second_under_load() {
    let seconds: u64 =
        std::env::var("HEELER_SCOUT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let server = Server::begin();
    let house = house_under_load(&server, SERVICES);
    let mut scout = wait_scout(&house, None);
    let began = server.asked();
    for second in 1..=seconds {
        std::thread::sleep(Duration::from_secs(1));
        let before = server.asked();
        signal(scout, "KILL");
        scout = wait_scout(&house, Some(scout));
        wait_for("the new scout to probe", PATIENCE, || (server.asked() > before).then_some(()));
        eprintln!("kill {second}: {} probes so far", server.asked() - began);
    }
    nothing_was_done(&house, SERVICES);
    assert!(house.log().contains("is replaced: it ended: killed by SIGKILL"), "{}", house.log());
}

#[test]
fn one_that_hangs_is_replaced_and_the_keeper_goes_on() {
    let server = Server::begin();
    let house = house_under_load(&server, 3);
    let scout = wait_scout(&house, None);
    signal(scout, "STOP");
    let stopped = Instant::now();
    // Nobody waits for it: a service that dies meanwhile is back at once.
    let pid = house.wait_up("s0", None);
    signal(pid, "KILL");
    house.wait_up("s0", Some(pid));
    let back = stopped.elapsed();
    assert!(back < Duration::from_secs(3), "{back:?}");
    let next = wait_scout(&house, Some(scout));
    eprintln!("back after {back:?}, a new scout after {:?}", stopped.elapsed());
    let before = server.asked();
    wait_for("the new scout to probe", PATIENCE, || (server.asked() > before + 5).then_some(()));
    assert_eq!(wait_scout(&house, None), next);
    assert_eq!((house.starts("s1").len(), house.starts("s2").len()), (1, 1), "{}", house.log());
    assert!(
        house.log().contains("it does not answer")
            || house.log().contains("takes nothing any more")
    );
}

/// Writes into the scout's own end of its socket, as whoever has taken it over could (pidfd_getfd(2)).
fn say_as_the_scout(scout: u32, perl: &str) {
    let script = format!(
        "my $p = syscall(434, {scout}, 0); die \"pidfd_open: $!\" if $p < 0;\n\
         my $fd = syscall(438, $p, 3, 0); die \"pidfd_getfd: $!\" if $fd < 0;\n\
         open(my $s, '+<&=', $fd) or die $!; binmode $s;\n{perl}\n"
    );
    let status = Command::new("perl").args(["-e", &script]).status().expect("perl");
    assert!(status.success());
}

#[test]
fn one_that_talks_nonsense_is_replaced_and_nothing_is_done() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let server = Server::begin();
    let house = house_under_load(&server, 3);
    // Noise; half a frame; a frame of another kind; an answer to a question nobody asked, which says
    // that the target failed; a packet larger than any.
    let lies = [
        "syswrite $s, join('', map { chr(rand 256) } 1 .. 4000);",
        "syswrite $s, \"S\\x40\\0\\0\\0abc\";",
        "syswrite $s, \"D\\x08\\0\\0\\0\" . (\"\\0\" x 8);",
        "syswrite $s, \"S\\x1e\\0\\0\\0\" . pack('Q<CQ<CQ<Cvv', 12345, 1, 0, 0, 0, 0, 0, 0) . 'x';",
        "for my $ask (1 .. 3000) { syswrite $s, \"S\\x1f\\0\\0\\0\" . \
         pack('Q<CQ<CQ<Cvv', $ask, 1, 0, 0, 0, 0, 0, 0) }",
        "syswrite $s, 'S' x 150000;",
    ];
    for lie in lies {
        let scout = wait_scout(&house, None);
        say_as_the_scout(scout, lie);
        let next = wait_scout(&house, Some(scout));
        let before = server.asked();
        wait_for("the new scout to probe", PATIENCE, || (server.asked() > before).then_some(()));
        eprintln!("scout {scout} was replaced by {next} after {lie:.50}");
    }
    nothing_was_done(&house, 3);
    let log = house.log();
    assert!(log.contains("it talks nonsense: "), "{log}");
    assert!(log.contains("it answers what it was not asked"), "{log}");
}

#[test]
fn a_page_that_fails_is_still_seen_after_all_that() {
    let server = Server::begin();
    let mut house = House::new("");
    server.page(&house, "good", "/ok", "every = \"300ms\"");
    server.page(&house, "bad", "/bad", "every = \"300ms\"");
    house.open();
    let scout = wait_scout(&house, None);
    signal(scout, "KILL");
    wait_scout(&house, Some(scout));
    wait_for("the failure to be seen", PATIENCE, || {
        seen(&house, "bad").contains("500").then_some(())
    });
    wait_for("the good one to be seen good", PATIENCE, || {
        seen(&house, "good").starts_with("failed (no").then_some(())
    });
}

#[test]
fn heelers_own_pause_fails_no_service() {
    // RES-09: everything of heeler stands still for longer than any timeout.
    let server = Server::begin();
    let house = house_under_load(&server, 3);
    let scout = wait_scout(&house, None);
    let before = server.asked();
    wait_for("probes", PATIENCE, || (server.asked() > before + 3).then_some(()));
    for pid in [house.keeper(), scout] {
        signal(pid, "STOP");
    }
    std::thread::sleep(Duration::from_secs(6));
    let paused = server.asked();
    for pid in [house.keeper(), scout] {
        signal(pid, "CONT");
    }
    std::thread::sleep(Duration::from_millis(300));
    let burst = server.asked() - paused;
    assert!(burst <= 3 * 3, "{burst} probes at once: missed ones are not made up for");
    wait_for("probes to go on", PATIENCE, || (server.asked() > paused + 9).then_some(()));
    nothing_was_done(&house, 3);
}
