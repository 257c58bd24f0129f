//! heeler under a service manager: what it tells, its watchdog, its log. The manager and the journal of a
//! booted systemd are in tests/systemd; here they are sockets that can be made to misbehave.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::support::hanging::Hanging;
use crate::support::house::{House, PATIENCE, alive, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"2s\"\n";

/// The socket of a manager, and what it was told.
struct Manager(UnixDatagram);

impl Manager {
    /// Opens the house under it.
    fn open(house: &mut House, watchdog: Option<Duration>) -> Self {
        let path = house.path("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("binds");
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        // As sh, so that WATCHDOG_PID is known before heeler is.
        let mut command = Command::new("sh");
        let set = if watchdog.is_some() { "export WATCHDOG_PID=$$; " } else { "" };
        command.args(["-c", &format!("{set}exec \"$0\" \"$@\""), HEELER]);
        command.env("NOTIFY_SOCKET", &path);
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        house.open_by(command);
        Self(socket)
    }

    fn next(&self) -> String {
        let mut bytes = [0; 512];
        let n = self.0.recv(&mut bytes).expect("it is told something");
        String::from_utf8(bytes[..n].to_vec()).expect("text")
    }

    /// Waits until it is told so.
    fn told(&self, what: &str) -> String {
        loop {
            let told = self.next();
            if told.contains(what) {
                return told;
            }
        }
    }

    /// What it was told until now, unheard.
    fn clear(&self) -> usize {
        self.0.set_nonblocking(true).expect("non-blocking");
        let mut bytes = [0; 512];
        let count = std::iter::from_fn(|| self.0.recv(&mut bytes).ok()).count();
        self.0.set_nonblocking(false).expect("blocking");
        count
    }
}

#[test]
fn the_manager_is_told_when_it_is_ready_how_it_stands_and_that_it_ends() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.daemon("other", "", QUICK);
    let manager = Manager::open(&mut house, None);
    assert!(manager.next().starts_with("READY=1\nSTATUS=2 services"), "ready comes first");
    manager.told("STATUS=2 services: 2 as wanted");
    assert_eq!(house.heeler(&["stop", "shop"]).0, 0);
    manager.told("STATUS=2 services: 1 as wanted, 1 stopped or not monitored");
    let other = house.pid("other").expect("is up");
    let environ = fs::read(format!("/proc/{other}/environ")).expect("reads");
    assert!(
        !String::from_utf8_lossy(&environ).contains("NOTIFY"),
        "a child could speak for heeler"
    );
    signal(house.keeper(), "HUP");
    let reloading = manager.told("RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    manager.told("READY=1");
    assert_eq!(house.close(), Some(0));
    manager.told("STOPPING=1");
}

/// CRA-12, as far as heeler goes: no sign of life but from a loop that turns.
#[test]
fn a_loop_that_hangs_gives_no_sign_of_life() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    let manager = Manager::open(&mut house, Some(Duration::from_millis(400)));
    house.wait_up("shop", None);
    for _ in 0..5 {
        manager.told("WATCHDOG=1");
    }
    // One thread alone is held, that of the loop; those of the store and the log run on. Only the thread
    // that began to trace may end it.
    let (release, held) = mpsc::channel::<()>();
    let (stopped, is_held) = mpsc::channel();
    let thread = Pid::from_raw(i32::try_from(house.keeper()).expect("a pid"));
    let tracer = std::thread::spawn(move || {
        ptrace::seize(thread, ptrace::Options::empty()).expect("seized");
        ptrace::interrupt(thread).expect("held");
        let flags = nix::sys::wait::WaitPidFlag::__WALL;
        nix::sys::wait::waitpid(thread, Some(flags)).expect("is held");
        stopped.send(()).expect("told");
        let _ended = held.recv();
        ptrace::detach(thread, None).expect("let go");
    });
    is_held.recv().expect("held");
    manager.clear();
    manager.0.set_read_timeout(Some(Duration::from_secs(2))).expect("a limit");
    let silence = manager.0.recv(&mut [0; 64]);
    assert!(silence.is_err(), "a sign of life from a loop that does not turn");
    drop(release);
    tracer.join().expect("the tracer");
    manager.0.set_read_timeout(Some(PATIENCE)).expect("a limit");
    manager.told("WATCHDOG=1");
}

#[test]
fn a_manager_that_hangs_holds_nobody_up() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    let manager = Manager::open(&mut house, Some(Duration::from_millis(2)));
    let first = house.wait_up("shop", None);
    // Nobody reads: its queue is full by now, or soon.
    signal(first, "KILL");
    let second = house.wait_up("shop", Some(first));
    assert!(alive(second));
    wait_for("the queue to be full", PATIENCE, || {
        let filler = UnixDatagram::unbound().expect("a socket");
        filler.set_nonblocking(true).expect("non-blocking");
        filler.send_to(b"filler", house.path("notify")).is_err().then_some(())
    });
    assert_eq!(house.heeler(&["restart", "shop"]).0, 0);
    assert!(manager.clear() > 5);
    manager.told("WATCHDOG=1");
    assert_eq!(house.close(), Some(0));
}

#[test]
fn a_log_file_is_begun_anew_once_it_was_moved_away() {
    let mut house = House::new("");
    let own = format!("log = {:?}\n", house.path("own.log"));
    let settings = fs::read_to_string(house.path("conf.d/heeler.toml")).expect("reads");
    house.write("conf.d/heeler.toml", &(own + &settings));
    house.daemon("shop", "", QUICK);
    house.open();
    let first = house.wait_up("shop", None);
    assert!(house.log().contains("the log goes on in /"), "{}", house.log());
    let read = || fs::read_to_string(house.path("own.log")).unwrap_or_default();
    wait_for("the log", PATIENCE, || read().contains("ask with `heeler status`").then_some(()));
    fs::rename(house.path("own.log"), house.path("own.log.1")).expect("renames");
    signal(house.keeper(), "HUP");
    wait_for("a new file", PATIENCE, || read().contains("SIGHUP").then_some(()));
    signal(first, "KILL");
    wait_for("its death", PATIENCE, || read().contains(&format!("{first} is gone")).then_some(()));
    assert!(!house.log().contains("is gone"), "on standard error, too: {}", house.log());
}

#[test]
fn a_log_that_hangs_holds_nobody_up() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    let Some(_hanging) = Hanging::make(&house.path("hanging")) else {
        assert!(!can_run(&[Need::Program("/dev/fuse", "FUSE in the kernel")]));
        return;
    };
    let own = format!("log = {:?}\n", house.path("hanging/own.log"));
    let settings = fs::read_to_string(house.path("conf.d/heeler.toml")).expect("reads");
    house.write("conf.d/heeler.toml", &(own + &settings));
    house.daemon("shop", "", &format!("{QUICK}start_limit = \"100 per 1m\"\n"));
    house.open();
    let mut last = house.wait_up("shop", None);
    for _ in 0..3 {
        signal(last, "KILL");
        last = house.wait_up("shop", Some(last));
    }
    let began = Instant::now();
    assert_eq!(house.close(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
