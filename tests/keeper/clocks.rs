//! Time that is not what it seems: a wall clock that is set, a machine that slept, clocks of its own.
//!
//! The wall clock is one for the whole machine, and others use it: only heeler's view of it is set here, by
//! a library under it. Boot time and monotonic time are a namespace's (time_namespaces(7)).

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::disk::preload;
use crate::support::house::{House, PATIENCE, alive, lines, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"2s\"\n\
                     start_limit = \"100 per 1m\"\n";

/// The wall clock is so many seconds ahead as the file MARK has bytes, less those of MARK.back.
const WALL: &str = r#"
#include <dlfcn.h>
#include <sys/stat.h>
#include <time.h>
static long bytes(const char *path) {
  struct stat facts;
  return stat(path, &facts) == 0 ? facts.st_size : 0;
}
int clock_gettime(clockid_t id, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(id, at);
  if (result == 0 && id == CLOCK_REALTIME) at->tv_sec += bytes("MARK") - bytes("MARK.back");
  return result;
}
"#;

const DAY: u64 = 86_400;

/// A house whose heeler sees another wall clock.
struct Wall {
    ahead: PathBuf,
    back: PathBuf,
    library: PathBuf,
}

impl Wall {
    fn of(house: &House) -> Option<Self> {
        let ahead = house.path("wall");
        let library =
            preload(house, "wall_clock", &WALL.replace("MARK", &ahead.to_string_lossy()))?;
        Some(Self { ahead, back: house.path("wall.back"), library })
    }

    fn heeler(&self) -> Command {
        let mut command = Command::new(HEELER);
        command.env("LD_PRELOAD", &self.library);
        command
    }

    fn set(&self, ahead: u64, back: u64) {
        for (file, seconds) in [(&self.ahead, ahead), (&self.back, back)] {
            let file = fs::File::create(file).expect("creates");
            file.set_len(seconds).expect("a length");
        }
    }
}

/// CLK-01, CLK-04: the wall clock jumps a day ahead and a day back. Intervals, deadlines, ages and limits do
/// not know it; nothing is restarted for it, and a death is still answered at once.
#[test]
fn a_wall_clock_that_is_set_changes_nothing() {
    let mut house = House::new("");
    let Some(wall) = Wall::of(&house) else { return };
    let aged = "[[check]]\nif = \"age > 12h\"\nfor = \"1 of 1\"\nthen = \"restart\"\n";
    house.daemon("daemon", "", &format!("{QUICK}{aged}"));
    let run = house.command("program", "foreground");
    house.define("program", &format!("run = {run:?}\n{QUICK}{aged}"));
    let runs = house.path("srv/runs");
    let often = format!("echo run >>{}", runs.display());
    house.define(
        "often",
        &format!(
            "every = \"500ms\"\n[[check]]\ntype = \"program\"\n\
             command = {{ run = {often:?}, shell = true }}\n"
        ),
    );
    house.open_by(wall.heeler());
    let mut daemon = house.wait_up("daemon", None);
    let mut program = house.wait_up("program", None);
    let mut programs = vec![program];
    for (step, ahead, back) in
        [("a day ahead", DAY, 0), ("back again", 0, 0), ("a day back", 0, DAY)]
    {
        wall.set(ahead, back);
        let (began, before) = (Instant::now(), lines(&runs).len());
        wait_for("eight more runs", PATIENCE, || (lines(&runs).len() >= before + 8).then_some(()));
        let took = began.elapsed();
        // Neither a burst of what seems to be missed nor silence until the clock is back.
        // The first of them may have been due a while ago.
        assert!(took >= Duration::from_millis(2500), "{step}: 8 runs in {took:?}");
        assert!(took < Duration::from_secs(15), "{step}: 8 runs in {took:?}");
        assert!(alive(daemon) && alive(program), "{step}: {}", house.log());
        assert_eq!(
            (house.pid("daemon"), house.pid("program")),
            (Some(daemon), Some(program)),
            "{step}"
        );
        // Told to go, it has its two seconds and no day.
        signal(program, "KILL");
        let died = Instant::now();
        program = house.wait_up("program", Some(program));
        assert!(died.elapsed() < Duration::from_secs(10), "{step}: {:?}", died.elapsed());
        programs.push(program);
    }
    house.wait_starts("program", &programs);
    wall.set(0, 0);
    signal(daemon, "KILL");
    daemon = house.wait_up("daemon", Some(daemon));
    assert_eq!((house.starts("daemon").len(), house.doubles("daemon")), (2, 0));
    assert_eq!((house.starts("program"), house.doubles("program")), (programs, 0));
    assert!(alive(daemon) && !house.log().contains("age ("), "{}", house.log());
    // What is said has the clock's own day.
    let log = house.log();
    let days: BTreeSet<_> = log.lines().filter_map(|line| line.get(..10)).collect();
    assert!((3..=4).contains(&days.len()), "{days:?}");
}

/// CLK-01 across a restart of heeler: it comes back to a clock that was set meanwhile, and to pidfiles that
/// look a day older or younger than they are.
#[test]
fn a_heeler_that_comes_back_to_another_wall_clock_restarts_nothing() {
    let mut house = House::new("");
    let Some(wall) = Wall::of(&house) else { return };
    house.daemon("daemon", "", QUICK);
    let run = house.command("program", "foreground");
    house.define("program", &format!("run = {run:?}\n{QUICK}"));
    house.open_by(wall.heeler());
    let before = [house.wait_up("daemon", None), house.wait_up("program", None)];
    assert_eq!(house.heeler(&["unmonitor", "program"]).0, 0);
    for (ahead, back) in [(DAY, 0), (0, DAY), (0, 0)] {
        house.kill_keeper();
        wall.set(ahead, back);
        house.open_by(wall.heeler());
        let now = [house.wait_up("daemon", None), house.wait_up("program", None)];
        assert_eq!(now, before, "{ahead} ahead, {back} back");
        assert_eq!(house.status("program")["desired"]["want"], "unmonitored");
    }
    assert_eq!((house.starts("daemon").len(), house.starts("program").len()), (1, 1));
}

/// CLK-03, CLK-05: a machine that was up for years, or slept for most of a day (boot time counts on while
/// monotonic time stands), is one on which ages are right and nothing else is different.
#[test]
fn ages_are_right_after_a_long_sleep_and_in_a_time_namespace() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/unshare", "util-linux")]) {
        return;
    }
    let clocks: [&[&str]; 2] =
        [&["--boottime", "80000"], &["--boottime", "100000000", "--monotonic", "100000000"]];
    for clocks in clocks {
        let mut house = House::new("");
        let old = "[[check]]\nif = \"age > 1h\"\nfor = \"1 of 1\"\nthen = \"restart\"\n\
                   [[check]]\nif = \"age > 3s\"\nfor = \"1 of 1\"\nthen = \"alert\"\n";
        house.daemon("daemon", "", &format!("{QUICK}{old}"));
        let run = house.command("program", "foreground");
        house.define("program", &format!("run = {run:?}\n{QUICK}{old}"));
        let heeler = || {
            let mut command = Command::new("/usr/bin/unshare");
            command.arg("--time").args(clocks).arg(HEELER);
            command
        };
        let began = Instant::now();
        house.open_by(heeler());
        let (daemon, program) = (house.wait_up("daemon", None), house.wait_up("program", None));
        for name in ["daemon", "program"] {
            let fires =
                |text: &str| text.contains(name) && text.contains("age (") && text.contains("> 3s");
            wait_for("its age to be seen", PATIENCE, || {
                house.log().lines().any(fires).then_some(())
            });
        }
        assert!(began.elapsed() >= Duration::from_millis(2500), "{:?}", began.elapsed());
        assert_eq!((house.pid("daemon"), house.pid("program")), (Some(daemon), Some(program)));
        assert!(!house.log().contains("> 1h"), "{}", house.log());
        house.kill_keeper();
        house.open_by(heeler());
        assert_eq!(house.wait_up("daemon", None), daemon);
        signal(daemon, "KILL");
        house.wait_up("daemon", Some(daemon));
        assert_eq!((house.starts("daemon").len(), house.doubles("daemon")), (2, 0));
        assert_eq!(house.doubles("program"), 0);
    }
}

/// CLK-03, RES-09: everything stands still for a while, as when a virtual machine is paused; then each check
/// runs once, and not as often as it was due, and nobody is held to have failed meanwhile.
#[test]
fn after_a_pause_each_check_runs_once() {
    let mut house = House::new("");
    let runs = house.path("srv/runs");
    let often = format!("echo run >>{}", runs.display());
    let checks = format!(
        "[[check]]\ntype = \"program\"\ncommand = {{ run = {often:?}, shell = true }}\n\
         [[check]]\nif = \"memory > 1GiB\"\nfor = \"1 of 1\"\nthen = \"restart\"\n"
    );
    house.daemon("shop", "", &format!("{}{checks}", QUICK.replace("300ms", "500ms")));
    house.open();
    let pid = house.wait_up("shop", None);
    wait_for("three runs", PATIENCE, || (lines(&runs).len() >= 3).then_some(()));
    let both = [house.keeper(), pid];
    both.iter().for_each(|pid| signal(*pid, "STOP"));
    // A shim that was begun before ends in this time; it is the pause itself that is meant.
    std::thread::sleep(Duration::from_secs(6));
    let before = lines(&runs).len();
    let woke = Instant::now();
    both.iter().for_each(|pid| signal(*pid, "CONT"));
    wait_for("a run", PATIENCE, || (lines(&runs).len() > before).then_some(()));
    wait_for("three runs", PATIENCE, || (lines(&runs).len() >= before + 3).then_some(()));
    assert!(woke.elapsed() >= Duration::from_millis(800), "a burst: {:?}", woke.elapsed());
    assert_eq!(house.pid("shop"), Some(pid));
    assert_eq!((house.starts("shop"), house.doubles("shop")), (vec![pid], 0));
    assert!(!house.log().contains("error"), "{}", house.log());
}
