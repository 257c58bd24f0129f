//! heeler crashes, is told to end, is signalled, is started badly (CRA, and the like of RES).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::support::house::{House, PATIENCE, alive, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"2s\"\n";

/// When a process was started, in ticks: the same number is not enough.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

fn ask_without_waiting(house: &House, args: &[&str]) {
    let mut client = Command::new(HEELER)
        .env("HEELER_SOCKET", house.path("run/control.sock"))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the client runs");
    std::thread::spawn(move || client.wait());
}

/// CRA-02.
#[test]
fn killed_between_stop_and_start_it_starts_once() {
    let mut house = House::new("");
    // A keeper that is killed within the millisecond in which it gave the order knows of a death only.
    let patient = "exit_delay = \"300ms\"\nstart_limit = \"100 per 1m\"\n";
    house.daemon("shop", "", &format!("{QUICK}{patient}"));
    house.open();
    let mut last = house.wait_up("shop", None);
    for round in 1..=5 {
        ask_without_waiting(&house, &["restart", "shop"]);
        wait_for("the old one to go", PATIENCE, || (!alive(last)).then_some(()));
        house.kill_keeper();
        let _ = fs::remove_file(house.path("state/starts"));
        house.open();
        last = house.wait_up("shop", Some(last));
        assert_eq!((house.starts("shop").len(), house.doubles("shop")), (1 + round, 0));
    }
}

/// CRA-02: a start that brought up what has died since is not waited for a second time.
#[test]
fn killed_when_a_start_was_over_and_its_service_too_it_starts_anew() {
    let mut house = House::new("");
    let late = format!("{}; exec sleep 1", house.command("shop", ""));
    let pidfile = house.path("srv/shop.pid");
    let patient = "start_timeout = \"10m\"\nstart_limit = \"100 per 1m\"\n";
    let start = format!("start = {{ run = {late:?}, shell = true }}");
    house.define("shop", &format!("pidfile = {pidfile:?}\n{start}\n{QUICK}{patient}"));
    house.open();
    let first = house.wait_up("shop", None);
    // It hears neither of the end of the command nor of the death.
    signal(house.keeper(), "STOP");
    let outcome = house.path("run/svc/shop/action.outcome");
    wait_for("the command to end", PATIENCE, || outcome.exists().then_some(()));
    signal(first, "TERM");
    wait_for("its end and its pidfile's", PATIENCE, || {
        (!alive(first) && !house.path("srv/shop.pid").exists()).then_some(())
    });
    house.kill_keeper();
    house.open();
    house.wait_up("shop", Some(first));
    assert_eq!((house.starts("shop").len(), house.doubles("shop")), (2, 0));
}

/// CRA-03.
#[test]
fn killed_during_a_long_start_the_next_keeper_takes_it_over_with_its_deadline() {
    let mut house = House::new("");
    let slow = format!("sleep 2; exec {}", house.command("slow", ""));
    let pidfile = house.path("srv/slow.pid");
    house.define(
        "slow",
        &format!("pidfile = {pidfile:?}\nstart = {{ run = {slow:?}, shell = true }}\n{QUICK}"),
    );
    let mark = house.path("srv/hang.runs");
    let hang = format!("echo run >> {}; exec sleep 1000", mark.display());
    let pidfile = house.path("srv/hang.pid");
    let start = format!("start = {{ run = {hang:?}, shell = true, timeout = \"4s\" }}");
    house.define(
        "hang",
        &format!("pidfile = {pidfile:?}\n{start}\nstart_timeout = \"4s\"\n{QUICK}"),
    );
    let began = Instant::now();
    house.open();
    wait_for("the hanging command to run", PATIENCE, || mark.exists().then_some(()));
    house.kill_keeper();
    house.open();
    assert!(
        house.log().contains("an earlier heeler's start is still under way"),
        "{}",
        house.log()
    );
    let pid = house.wait_up("slow", None);
    assert_eq!((house.starts("slow"), house.doubles("slow")), (vec![pid], 0));
    wait_for("the deadline to end the command", PATIENCE, || {
        house.log().contains("still running at its deadline").then_some(())
    });
    let took = began.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(12)).contains(&took), "{took:?}");
    assert_eq!(
        fs::read_to_string(&mark).expect("is there"),
        "run\n",
        "it ran twice before its deadline"
    );
}

/// CRA-05; as a service of systemd: tests/systemd/service.rs.
#[test]
fn a_restart_of_heeler_changes_no_process() {
    let mut house = House::new("");
    for name in ["a", "b", "c"] {
        house.daemon(name, "children=2", QUICK);
        let run = house.command(&format!("run-{name}"), "foreground");
        house.define(&format!("run-{name}"), &format!("run = {run:?}\n{QUICK}"));
    }
    house.open();
    let names = ["a", "b", "c", "run-a", "run-b", "run-c"];
    let before = names.map(|name| house.wait_up(name, None));
    let began = before.map(started);
    for _ in 0..3 {
        assert_eq!(house.close(), Some(0));
        assert_eq!(before.map(started), began);
        house.open();
        assert_eq!(names.map(|name| house.wait_up(name, None)), before);
    }
    assert_eq!(before.map(started), began);
    assert!(house.mails().is_empty(), "{:?}", house.mails());
}

/// CRA-10: whatever an earlier heeler left names another process by now; heeler itself has no pidfile.
#[test]
fn records_that_name_a_stranger_lead_nobody_to_it() {
    let mut house = House::new("");
    house.daemon("deaf", "term=ignore", &QUICK.replace("2s", "1s"));
    let run = house.command("program", "foreground");
    house.define("program", &format!("run = {run:?}\n{QUICK}"));
    house.open();
    let (deaf, program) = (house.wait_up("deaf", None), house.wait_up("program", None));
    ask_without_waiting(&house, &["restart", "deaf"]);
    let ladder = house.path("run/svc/deaf/ladder");
    wait_for("the ladder's record", PATIENCE, || ladder.exists().then_some(()));
    house.kill_keeper();
    signal(deaf, "KILL");
    signal(program, "KILL");
    let mut stranger = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let records = [
        ("deaf/ladder", deaf),
        ("deaf/main", deaf),
        ("program/main", program),
        ("program/instance.child", program),
    ];
    for (record, pid) in records {
        let path = house.path("run/svc").join(record);
        let text = fs::read_to_string(&path).expect("a record");
        let (from, to) = (format!("\"pid\":{pid},"), format!("\"pid\":{},", stranger.id()));
        assert!(text.contains(&from), "{record}: {text}");
        fs::write(&path, text.replace(&from, &to)).expect("write");
    }
    house.open();
    house.wait_up("deaf", Some(deaf));
    house.wait_up("program", Some(program));
    assert!(stranger.try_wait().expect("wait").is_none(), "the stranger was killed");
    assert!(!house.log().contains(&format!("to pid {}", stranger.id())), "{}", house.log());
    stranger.kill().expect("kill");
    stranger.wait().expect("wait");
}

#[test]
fn records_that_are_garbage_are_none() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    let pid = house.wait_up("shop", None);
    for garbage in [
        "",
        "{}",
        "\u{0}\u{0}",
        "{\"v\":1,\"identity\":{\"pid\":-1,\"started_ticks\":1}}",
        "[[[[[[",
    ] {
        house.kill_keeper();
        let _ = fs::remove_file(house.path("state/starts"));
        for file in
            ["ladder", "main", "action.job", "action.child", "action.outcome", "instance.child"]
        {
            house.write(&format!("run/svc/shop/{file}"), garbage);
        }
        house.open();
        assert_eq!(house.wait_up("shop", None), pid, "{garbage:?}");
    }
    assert_eq!(house.starts("shop"), [pid]);
}

#[test]
fn three_crashes_in_a_row_keep_the_wishes_and_say_so() {
    let mut house = House::new("");
    house.daemon("down", "", QUICK);
    house.daemon("up", "", QUICK);
    house.open();
    let up = house.wait_up("up", None);
    house.wait_up("down", None);
    assert_eq!(house.heeler(&["stop", "down"]).0, 0);
    for _ in 0..4 {
        house.kill_keeper();
        house.open();
    }
    let log = house.log();
    assert!(log.contains("set aside") || log.contains("poison"), "{log}");
    assert_eq!(house.status("down")["desired"]["want"], "down");
    assert_eq!(house.wait_up("up", None), up);
    assert_eq!(house.starts("down").len(), 1);
    eprintln!("{}", log.lines().filter(|l| l.contains("aside")).collect::<Vec<_>>().join("\n"));
}

/// CRA-14.
#[test]
fn told_to_end_during_eight_actions_it_ends_at_once_and_they_go_on() {
    let mut house = House::new("");
    let names: Vec<_> = (0..8).map(|n| format!("s{n}")).collect();
    for name in &names {
        let slow = format!(
            "touch {}; sleep 6; exec {}",
            house.path(&format!("srv/{name}.began")).display(),
            house.command(name, "")
        );
        let pidfile = house.path(&format!("srv/{name}.pid"));
        house.define(
            name,
            &format!("pidfile = {pidfile:?}\nstart = {{ run = {slow:?}, shell = true }}\n{QUICK}"),
        );
    }
    house.open();
    wait_for("all starts to run", PATIENCE, || {
        names.iter().all(|name| house.path(&format!("srv/{name}.began")).exists()).then_some(())
    });
    let keeper = house.keeper();
    signal(keeper, "TERM");
    signal(keeper, "TERM");
    let began = Instant::now();
    assert_eq!(house.close(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    house.open();
    for name in &names {
        let pid = house.wait_up(name, None);
        assert_eq!((house.starts(name), house.doubles(name)), (vec![pid], 0));
    }
}

/// CRA-14.
#[test]
fn other_signals_end_nothing_or_end_it_in_order() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    let pid = house.wait_up("shop", None);
    let keeper = house.keeper();
    for name in ["HUP", "USR1", "USR2", "PIPE"] {
        signal(keeper, name);
        assert_eq!(house.heeler(&["status", "shop"]).0, 0, "SIG{name} ended heeler");
        assert_eq!(house.keeper(), keeper);
    }
    for (name, again) in [("INT", true), ("QUIT", true), ("TERM", false)] {
        signal(house.keeper(), name);
        assert_eq!(house.close(), Some(0), "SIG{name}");
        assert!(alive(pid));
        if again {
            house.open();
            assert_eq!(house.wait_up("shop", None), pid);
        }
    }
}

#[test]
fn started_without_any_open_descriptor_it_works() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    let run = house.command("program", "foreground");
    house.define("program", &format!("run = {run:?}\n{QUICK}"));
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-", HEELER]);
    house.open_by(command);
    for name in ["shop", "program"] {
        let first = house.wait_up(name, None);
        signal(first, "KILL");
        house.wait_up(name, Some(first));
        assert_eq!(house.heeler(&["restart", name]).0, 0);
        assert_eq!(house.doubles(name), 0);
    }
    assert_eq!(house.close(), Some(0));
}

/// A file system of a test, gone with it.
pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn tmpfs(at: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).expect("mkdir");
        let data = format!("size={size},mode=0755");
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(data.as_str()))
            .expect("mount");
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_run_dir_is_said_and_healed() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    let _mount = Mount::tmpfs(house.path("run"), "256k");
    house.daemon("shop", "", &format!("{QUICK}start_limit = \"100 per 1m\"\n"));
    house.open();
    let first = house.wait_up("shop", None);
    for room in ["action.child", "action.outcome"] {
        // The service is up before its start command has ended.
        let record = house.path("run/svc/shop").join(room);
        wait_for(room, PATIENCE, || fs::remove_file(&record).ok());
    }
    let _ = fs::write(house.path("run/ballast"), vec![1; 1 << 20]);
    signal(first, "KILL");
    wait_for("heeler to say it", PATIENCE, || {
        house.log().contains("No space left on device").then_some(())
    });
    let (code, out, err) = house.heeler(&["start", "shop"]);
    eprintln!("start on a full run_dir: {code} {out}{err}");
    fs::remove_file(house.path("run/ballast")).expect("remove");
    house.wait_up("shop", Some(first));
    assert_eq!(house.doubles("shop"), 0);
    assert_eq!(house.heeler(&["restart", "shop"]).0, 0);
}

#[test]
fn what_ended_while_no_keeper_ran_is_told_by_the_next() {
    let mut house = House::new("");
    let pidfile = house.path("srv/command.pid");
    // The first run of each ends badly, all others stay: nobody but the first can be told of.
    let first = |name: &str, end: &str| {
        let mark = house.path(&format!("srv/{name}.mark"));
        format!("test -e {0} && exec sleep 1000; touch {0}; {end}", mark.display())
    };
    let gate = house.path("srv/gate");
    let closed = format!("until test -e {}; do sleep 0.05; done", gate.display());
    let start = first("command", &format!("{closed}; echo no database; exit 43"));
    let run = first("program", &format!("{closed}; exit 44"));
    house.define(
        "command",
        &format!("pidfile = {pidfile:?}\nstart = {{ run = {start:?}, shell = true }}\n{QUICK}"),
    );
    house.define("program", &format!("run = {{ run = {run:?}, shell = true }}\n{QUICK}"));
    house.open();
    house.wait_up("program", None);
    let ends = ["command/action.outcome", "program/instance.outcome"]
        .map(|file| house.path("run/svc").join(file));
    wait_for("the command to run", PATIENCE, || {
        house.path("run/svc/command/action.child").exists().then_some(())
    });
    house.kill_keeper();
    fs::write(&gate, "").expect("opens");
    assert!(!house.log().contains("code 4"), "{}", house.log());
    wait_for("both to end", PATIENCE, || ends.iter().all(|file| file.exists()).then_some(()));
    house.open();
    for words in ["code 43", "code 44"] {
        wait_for(words, PATIENCE, || house.log().contains(words).then_some(()));
    }
}

/// How often a process waited for something and was woken.
fn waits(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("is there");
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"));
    line.and_then(|line| line.split('\t').nth(1)?.parse().ok()).expect("a number")
}

#[test]
fn an_adopted_program_is_not_polled_and_its_end_is_seen_at_once() {
    let mut house = House::new("");
    let run = house.command("program", "foreground");
    house.define("program", &format!("run = {run:?}\nevery = \"1h\"\nstart_period = \"0s\"\n"));
    house.open();
    let pid = house.wait_up("program", None);
    house.kill_keeper();
    house.open();
    assert_eq!(house.wait_up("program", None), pid);
    std::thread::sleep(Duration::from_secs(1));
    let before = waits(house.keeper());
    std::thread::sleep(Duration::from_secs(3));
    let woken = waits(house.keeper()) - before;
    assert!(woken < 20, "woken {woken} times in 3 s");
    let began = Instant::now();
    signal(pid, "KILL");
    wait_for("its second start", PATIENCE, || (house.starts("program").len() == 2).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(house.log().contains("killed by SIGKILL"), "{}", house.log());
    // The shim alone is killed: what it kept goes on, and is watched like any other process.
    let second = house.wait_up("program", Some(pid));
    house.kill_keeper();
    house.open();
    assert_eq!(house.wait_up("program", None), second);
    let record = fs::read_to_string(house.path("run/svc/program/instance.child")).expect("record");
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    let shim = record["shim"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    signal(shim.expect("a pid"), "KILL");
    wait_for("heeler to say it", PATIENCE, || {
        house.log().contains("the shim of its run is gone").then_some(())
    });
    assert_eq!(house.wait_up("program", None), second);
    signal(second, "KILL");
    house.wait_up("program", Some(second));
}
