//! Services that are hard to stop (KIL).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::house::{House, PATIENCE, alive, lines, signal};
use crate::support::{Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\n";

fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The pids in a file of `srv`, one a line.
fn noted(house: &House, file: &str) -> Vec<u32> {
    let lines = lines(&house.path(&format!("srv/{file}")));
    lines.iter().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

#[test]
fn a_stopped_service_is_woken_to_go_by_itself() {
    let mut house = House::new("");
    house.daemon("shop", "", &format!("{QUICK}stop_timeout = \"10s\"\n"));
    house.open();
    let first = house.wait_up("shop", None);
    signal(first, "STOP");
    wait_for("it to be stopped", PATIENCE, || (state(first) == Some('T')).then_some(()));
    assert_eq!(house.heeler(&["restart", "shop"]).0, 0);
    assert_eq!(noted(&house, "shop.stops"), [first], "it did not go by itself");
    assert!(!house.log().contains("SIGKILL"), "{}", house.log());
}

#[test]
fn a_service_that_dies_while_it_is_stopped_is_no_trouble() {
    let mut house = House::new("");
    house.daemon("shop", "term=5", &format!("{QUICK}stop_timeout = \"10s\"\n"));
    house.open();
    for _ in 0..3 {
        let pid = house.wait_up("shop", None);
        let terms = house.path("srv/shop.terms");
        let killer = std::thread::spawn(move || {
            wait_for("it to be told to go", PATIENCE, || {
                lines(&terms).iter().any(|line| line.starts_with(&format!("{pid} "))).then_some(())
            });
            signal(pid, "KILL");
        });
        let (code, out, err) = house.heeler(&["stop", "shop"]);
        killer.join().expect("ends");
        assert_eq!(code, 0, "{out}{err}");
        assert_eq!(house.heeler(&["start", "shop"]).0, 0);
    }
    assert!(house.mails().is_empty(), "{:?}", house.mails());
}

/// KIL-05: what stays in the session and ignores TERM.
#[test]
fn what_a_stopped_service_leaves_is_named_and_then_no_longer_waited_for() {
    let mut house = House::new("");
    house.daemon(
        "shop",
        "stay",
        &format!("{QUICK}stop_timeout = \"1s\"\nstart_timeout = \"3s\"\n"),
    );
    house.open();
    let first = house.wait_up("shop", None);
    let rest = wait_for("its child", PATIENCE, || noted(&house, "shop.rests").first().copied());
    let began = Instant::now();
    assert_eq!(house.heeler(&["restart", "shop"]).0, 0);
    assert!(began.elapsed() >= Duration::from_secs(3), "it was not waited for");
    house.wait_up("shop", Some(first));
    let log = house.log();
    for words in [
        format!("waiting for what it left: pid {rest}"),
        format!("no longer waiting for what is left of it: {rest}"),
    ] {
        assert!(log.contains(&words), "{words:?} is not in\n{log}");
    }
    assert!(alive(rest), "a survivor without a socket is not killed");
    assert_eq!(house.doubles("shop"), 0);
}

/// KIL-05, without a control group; with one: tests/systemd/service.rs.
/// What left the session of its service cannot be told from a stranger: it is not touched.
#[test]
fn what_escaped_the_session_is_left_alone_and_holds_nothing_up() {
    let mut house = House::new("");
    house.daemon("shop", "escape", &format!("{QUICK}stop_timeout = \"1s\"\n"));
    house.open();
    house.wait_up("shop", None);
    let rest = wait_for("its child", PATIENCE, || noted(&house, "shop.rests").first().copied());
    assert_eq!(house.heeler(&["restart", "shop"]).0, 0);
    assert!(alive(rest));
    assert_eq!(house.doubles("shop"), 0);
    eprintln!(
        "escaped {rest}: {:?}",
        house.log().lines().filter(|l| l.contains(&rest.to_string())).collect::<Vec<_>>()
    );
}

#[test]
fn an_orphan_that_holds_a_listening_socket_goes_before_the_start() {
    let mut house = House::new("");
    house.daemon("shop", "orphan", &format!("{QUICK}stop_timeout = \"1s\"\n"));
    house.open();
    let first = house.wait_up("shop", None);
    let orphan =
        wait_for("its orphan", PATIENCE, || noted(&house, "shop.orphans").first().copied());
    signal(first, "KILL");
    house.wait_up("shop", Some(first));
    assert!(!alive(orphan), "the orphan still holds the socket");
    assert_eq!(house.doubles("shop"), 0);
}

/// KIL-10.
#[test]
fn one_that_answers_term_with_a_new_copy_is_adopted_at_a_restart() {
    let mut house = House::new("");
    house.daemon("shop", "term=respawn", &format!("{QUICK}stop_timeout = \"2s\"\n"));
    house.open();
    let first = house.wait_up("shop", None);
    assert_eq!(house.heeler(&["restart", "shop"]).0, 0);
    let second = house.wait_up("shop", Some(first));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((house.starts("shop"), house.doubles("shop")), (vec![first, second], 0));
}

/// It cannot be stopped by its own signal. heeler must not turn that into an endless race.
#[test]
fn one_that_answers_term_with_a_new_copy_is_not_chased_for_ever() {
    let mut house = House::new("");
    house.daemon("shop", "term=respawn", &format!("{QUICK}stop_timeout = \"2s\"\n"));
    house.open();
    house.wait_up("shop", None);
    let answer = std::thread::scope(|scope| {
        let stop = scope.spawn(|| house.heeler(&["stop", "shop"]));
        std::thread::sleep(Duration::from_secs(6));
        eprintln!("starts in 6 s: {}", house.starts("shop").len());
        stop.join().expect("answers")
    });
    eprintln!("{answer:?}\n{}", house.log());
    assert!(house.starts("shop").len() < 20, "{}", house.starts("shop").len());
}

/// KIL-11.
#[test]
fn a_stop_command_that_says_done_and_did_nothing_is_followed_by_signals() {
    let mut house = House::new("");
    house.daemon("shop", "", &format!("{QUICK}stop = \"/bin/true\"\nstop_timeout = \"1s\"\n"));
    house.open();
    let pid = house.wait_up("shop", None);
    let (code, out, err) = house.heeler(&["stop", "shop"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(!alive(pid));
    assert!(house.log().contains(&format!("pid {pid}")), "{}", house.log());
    assert!(house.log().contains("is still there after the stop command"), "{}", house.log());
    assert_eq!(noted(&house, "shop.stops"), [pid], "it had its time after TERM");
}

/// KIL-12.
#[test]
fn a_stop_command_that_hangs_is_ended_with_its_group_and_followed_by_signals() {
    let mut house = House::new("");
    let mark = house.path("srv/stopper");
    let hang = format!("sleep 1000 & echo $! > {}; wait", mark.display());
    let stop = format!("stop = {{ run = {hang:?}, shell = true, timeout = \"3s\" }}");
    house.daemon("shop", "", &format!("{QUICK}{stop}\nstop_timeout = \"1s\"\n"));
    house.open();
    let pid = house.wait_up("shop", None);
    let (code, out, err) = house.heeler(&["stop", "shop"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(!alive(pid));
    let sleeper = fs::read_to_string(&mark).expect("it ran").trim().parse().expect("a pid");
    wait_for("its group to be gone", PATIENCE, || (!alive(sleeper)).then_some(()));
    assert_eq!(house.heeler(&["start", "shop"]).0, 0);
    assert_eq!(house.doubles("shop"), 0);
}

#[test]
fn one_held_by_a_debugger_dies_of_kill() {
    if !can_run(&[Need::Program("/usr/bin/gdb", "gdb")]) {
        return;
    }
    let mut house = House::new("");
    house.daemon("shop", "", &format!("{QUICK}stop_timeout = \"1s\"\n"));
    house.open();
    let pid = house.wait_up("shop", None);
    let mut gdb = Command::new("gdb")
        .args(["-q", "-nx", "-batch", "-p", &pid.to_string(), "-ex", "shell sleep 30"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("gdb");
    wait_for("the debugger to hold it", PATIENCE, || (state(pid) == Some('t')).then_some(()));
    let (code, out, err) = house.heeler(&["restart", "shop"]);
    gdb.kill().expect("kill");
    gdb.wait().expect("wait");
    assert_eq!(code, 0, "{out}{err}");
    assert!(!alive(pid));
    assert_eq!(house.doubles("shop"), 0);
}

/// A frozen file system: who writes to it sleeps in the kernel and cannot be killed.
struct Frozen(PathBuf);

impl Frozen {
    fn make(dir: PathBuf) -> Option<Self> {
        let script = "mkdir -p $0/m && dd if=/dev/zero of=$0/img bs=1M count=16 status=none && \
                      mkfs.ext4 -qF $0/img && mount -o loop $0/img $0/m";
        let made = Command::new("sh")
            .args(["-c", script])
            .arg(&dir)
            .status()
            .is_ok_and(|end| end.success());
        made.then_some(Self(dir))
    }

    fn freeze(&self, how: &str) {
        let end =
            Command::new("fsfreeze").arg(how).arg(self.0.join("m")).status().expect("fsfreeze");
        assert!(end.success());
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let script = "fsfreeze -u $0/m 2>/dev/null; umount -l $0/m";
        let _ = Command::new("sh").args(["-c", script]).arg(&self.0).status();
    }
}

#[test]
fn what_even_kill_does_not_end_is_said_and_gets_no_second_copy() {
    let needs = [
        Need::Root,
        Need::Program("/usr/sbin/fsfreeze", "util-linux"),
        Need::Program("/usr/sbin/mkfs.ext4", "e2fsprogs"),
    ];
    if !can_run(&needs) {
        return;
    }
    let mut house = House::new("");
    let Some(frozen) = Frozen::make(house.path("frozen")) else {
        eprintln!("SKIPPED for want of: loop devices");
        return;
    };
    let stick = frozen.0.join("m/f");
    house.daemon(
        "shop",
        &format!("stick={}", stick.display()),
        &format!("{QUICK}stop_timeout = \"1s\"\n"),
    );
    house.daemon("other", "", QUICK);
    house.open();
    let pid = house.wait_up("shop", None);
    house.wait_up("other", None);
    frozen.freeze("-f");
    signal(pid, "USR1");
    wait_for("it to be stuck in the kernel", PATIENCE, || (state(pid) == Some('D')).then_some(()));
    let (code, out, err) = house.heeler(&["restart", "shop"]);
    assert_eq!(code, 1, "{out}{err}");
    let mail = wait_for("the mail", PATIENCE, || {
        house.mails().into_iter().find(|mail| mail.contains("does not die"))
    });
    assert!(mail.contains("starts no second copy"), "{mail}");
    assert!(mail.contains(&format!("pid {pid}: state D, wchan ")), "{mail}");
    eprintln!("{out}{err}\n{mail}");
    assert_eq!(house.starts("shop"), [pid]);
    // Nor does another heeler start one, and nobody else is held up.
    house.kill_keeper();
    house.open();
    let other = house.wait_up("other", None);
    signal(other, "KILL");
    house.wait_up("other", Some(other));
    assert_eq!(house.starts("shop"), [pid]);
    frozen.freeze("-u");
    let second = house.wait_up("shop", Some(pid));
    house.wait_starts("shop", &[pid, second]);
    assert_eq!(house.doubles("shop"), 0);
    assert!(!alive(pid));
}

#[test]
fn a_survivor_that_becomes_the_main_process_is_recorded_as_such() {
    let mut house = House::new("");
    // Of its own: titles are the same for all houses.
    let name = &format!("heir{}", std::process::id());
    let start = house.command(name, "stay");
    house.define(name, &format!("match = \"^service {name}\"\nstart = {start:?}\n{QUICK}"));
    house.open();
    let first = house.wait_up(name, None);
    let rest = wait_for("its child", PATIENCE, || {
        noted(&house, &format!("{name}.rests")).first().copied()
    });
    signal(first, "KILL");
    assert_eq!(house.wait_up(name, Some(first)), rest);
    let record = fs::read_to_string(house.path(&format!("run/svc/{name}/main"))).expect("a record");
    assert!(record.contains(&format!("\"pid\":{rest},")), "{record}");
}
