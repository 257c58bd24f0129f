//! A worker that cannot see its master die keeps the listening socket. A new Puma could never start:
//! heeler makes it go first, and says who held on.

use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use crate::shop::{Shop, Way, freeze, get, masters, puma_log, workers};
use crate::support::house::{PATIENCE, alive, signal};
use crate::support::wait_for;
use crate::world::world;

/// What holds the worker.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Held {
    /// It is stopped: CONT frees it, and then it goes on TERM.
    Stopped,
    /// A C extension has Ruby's one lock: nothing but KILL is heard.
    Lock,
}

#[test]
fn stopped_started_in_the_background() {
    world(|| orphan_is_dealt_with(Way::Background, Held::Stopped));
}

#[test]
fn locked_started_in_the_background() {
    world(|| orphan_is_dealt_with(Way::Background, Held::Lock));
}

#[test]
fn locked_started_by_a_script() {
    world(|| orphan_is_dealt_with(Way::Script, Held::Lock));
}

#[test]
fn stopped_in_the_foreground() {
    world(|| orphan_is_dealt_with(Way::Foreground, Held::Stopped));
}

#[test]
fn locked_in_the_foreground() {
    world(|| orphan_is_dealt_with(Way::Foreground, Held::Lock));
}

#[test]
fn stopped_in_its_users_systemd() {
    world(|| orphan_is_dealt_with(Way::Unit, Held::Stopped));
}

#[test]
fn locked_in_its_users_systemd() {
    world(|| orphan_is_dealt_with(Way::Unit, Held::Lock));
}

fn orphan_is_dealt_with(way: Way, held: Held) {
    let mut shop = Shop::new(way, "");
    let first = shop.open();
    let master = first.master;
    wait_for("both workers", PATIENCE, || (workers(master).len() == 2).then_some(()));
    let orphan = match held {
        Held::Stopped => {
            freeze(first.worker);
            first.worker
        }
        Held::Lock => hold_the_lock(),
    };
    let began = Instant::now();
    let second =
        shop.timed(&format!("kill -9 of the master, a worker {held:?}"), Some(master), |_| {
            signal(master, "KILL");
        });
    println!("the orphan is {}", if alive(orphan) { "alive" } else { "gone" });
    assert!(!alive(orphan), "{:?}", began.elapsed());
    assert_eq!(masters(), [second.master]);
    assert_eq!(shop.starts(), 2, "a start beside the orphan: {}", shop.house.log());
    let log = puma_log();
    assert!(!log.contains("EADDRINUSE") && !log.contains("already"), "{log}");
    let why = shop.why();
    println!("WHY\n{why}");
    // systemd itself frees what is merely stopped: it sends CONT with its TERM.
    if way != Way::Unit || held == Held::Lock {
        let who = format!("pid {orphan} (");
        let told =
            |line: &str| line.contains(&who) && line.contains("still holds a listening socket");
        assert!(why.lines().any(told), "{who:?} is not in\n{why}");
        assert!(
            why.contains(&format!("orphan {orphan} holds a listening socket: told to go")),
            "{why}"
        );
    }
    let killed = why.contains(&format!("orphan {orphan} holds a listening socket: sent KILL"));
    assert_eq!(killed, held == Held::Lock, "{why}");
}

/// Has a worker hold the lock for an hour; which one.
pub(crate) fn hold_the_lock() -> u32 {
    // The request is never answered; its connection stays open with the thread.
    thread::spawn(|| {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect("127.0.0.1:9292").expect("connects");
        stream.write_all(b"GET /gvl?s=3600 HTTP/1.0\r\n\r\n").expect("writes");
        let _ended = stream.read(&mut [0]);
    });
    wait_for("a worker to sleep with the lock", PATIENCE, || {
        // Only the other one answers then, again and again.
        let mut answers: Vec<u32> = Vec::new();
        for _ in 0..12 {
            let said: serde_json::Value = serde_json::from_str(&get("/up")?).ok()?;
            answers.push(u32::try_from(said["pid"].as_u64()?).ok()?);
        }
        let free = *answers.first()?;
        let master = masters().first().copied()?;
        let locked: Vec<_> =
            workers(master).into_iter().filter(|pid| !answers.contains(pid)).collect();
        (answers.iter().all(|pid| *pid == free) && locked.len() == 1 && is_locked(locked[0]))
            .then(|| locked[0])
    })
}

/// Whether a thread of the process sleeps in the kernel by the clock and none of it does anything else.
pub(crate) fn is_locked(pid: u32) -> bool {
    let tasks =
        std::fs::read_dir(format!("/proc/{pid}/task")).map(|dir| dir.flatten().collect::<Vec<_>>());
    tasks.unwrap_or_default().iter().any(|task| {
        std::fs::read_to_string(task.path().join("wchan")).is_ok_and(|at| at.contains("nanosleep"))
    })
}
