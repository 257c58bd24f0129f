//! Nothing waits for anything else: hanging commands and hanging file systems beside a healthy service.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::house::{House, PATIENCE, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstart_limit = \"100 per 1m\"\n";
const MANY: usize = 20;

/// A FUSE file system that never answers. Whoever looks at a file in it waits until it is dropped.
struct Hanging {
    holder: Child,
    at: PathBuf,
}

impl Hanging {
    fn make(house: &House) -> Option<Self> {
        let at = house.path("hanging");
        fs::create_dir(&at).expect("mkdir");
        let ready = house.path("hanging-ready");
        let script = "exec 3<>/dev/fuse && \
                      mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none \"$0\" && \
                      : > \"$1\" && exec sleep 1000";
        let mut holder = Command::new("sh")
            .args(["-c", script])
            .args([&at, &ready])
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let made = wait_for("the file system", PATIENCE, || {
            let ended = holder.try_wait().expect("wait").is_some();
            (ended || ready.exists()).then_some(!ended)
        });
        made.then_some(Self { holder, at })
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // With its holder the connection goes, and everybody who waits wakes with an error.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

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
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    stop.kill().expect("kill");
    stop.wait().expect("wait");
}

#[test]
fn pidfiles_on_a_file_system_that_hangs_hold_up_nobody_else() {
    if !can_run(&[Need::Root, Need::Program("/dev/fuse", "a kernel with FUSE")]) {
        return;
    }
    let mut house = House::new("");
    let Some(hanging) = Hanging::make(&house) else {
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
    assert!(up < Duration::from_secs(3), "{up:?}");
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    assert_eq!(house.heeler(&["restart", "zealous"]).0, 0);
    let began = Instant::now();
    assert_eq!(house.close(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
