//! Pidfiles that lie, through the whole of heeler (PID): nobody is signalled, and what a file holds that
//! only root may read appears nowhere.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;

use crate::support::house::{House, PATIENCE, alive, signal};
use crate::support::{Need, can_run, wait_for};

const SECRET: &str = "root:$6$averysecrethash$:19000";
const NOBODY: u32 = 65534;

#[test]
fn a_pidfile_that_lies_hurts_nobody_and_tells_nothing() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    let dir = house.path("srv/theirs");
    fs::create_dir(&dir).expect("mkdir");
    chown(&dir, Some(NOBODY), Some(NOBODY)).expect("chown");
    let secret = house.path("secret");
    fs::write(&secret, format!("{SECRET}\n")).expect("write");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("chmod");
    let mut stranger = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let quick = "every = \"300ms\"\nexit_delay = \"200ms\"\nstart_timeout = \"1s\"\nstop_timeout = \"500ms\"\n";
    let names = ["init", "itself", "other", "fifo", "link", "zero", "dir", "huge", "text"];
    for name in names {
        let pidfile = dir.join(name);
        house.define(
            name,
            &format!("user = \"nobody\"\npidfile = {pidfile:?}\nstart = \"/bin/true\"\n{quick}"),
        );
    }
    let put = |name: &str, text: &str| {
        fs::write(dir.join(name), text).expect("write");
        chown(dir.join(name), Some(NOBODY), Some(NOBODY)).expect("chown");
    };
    put("init", "1\n");
    put("other", &format!("{}\n", stranger.id()));
    put("huge", &"9".repeat(1 << 20));
    put("text", &format!("\u{1b}[2J{SECRET}\n"));
    nix::unistd::mkfifo(&dir.join("fifo"), Mode::S_IRWXU).expect("mkfifo");
    symlink(&secret, dir.join("link")).expect("symlink");
    symlink("/dev/zero", dir.join("zero")).expect("symlink");
    fs::create_dir(dir.join("dir")).expect("mkdir");
    house.daemon("honest", "", "every = \"300ms\"\nexit_delay = \"200ms\"\n");
    house.open();
    put("itself", &format!("{}\n", house.keeper()));
    let honest = house.wait_up("honest", None);
    for name in names {
        let wrong = wait_for(&format!("{name} to be refused"), PATIENCE, || {
            let status = house.status(name);
            (status["pid"].is_null() && status["health"] != "ok").then_some(status)
        });
        eprintln!("{name}: {}, {}", wrong["state"], wrong["wrong"]);
    }
    // Asked to, heeler refuses as well.
    for name in names {
        let (code, out, err) = house.heeler(&["stop", name]);
        eprintln!("stop {name}: {code} {out}{err}");
    }
    // Whatever hangs or lies, the others are watched as ever.
    signal(honest, "KILL");
    let began = Instant::now();
    house.wait_up("honest", Some(honest));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(stranger.try_wait().expect("wait").is_none(), "a stranger was killed");
    let log = house.log();
    for pid in [1, house.keeper(), stranger.id()] {
        assert!(!log.contains(&format!("to pid {pid}")), "{log}");
    }
    let why: String = names.iter().map(|name| house.heeler(&["why", name]).1).collect();
    let status = house.heeler(&["status", "--json"]).1;
    for (place, text) in
        [("log", log), ("mails", house.mails().concat()), ("why", why), ("status", status)]
    {
        assert!(
            !text.contains("averysecrethash") || place == "nowhere",
            "the {place} shows it: {text}"
        );
        assert!(!text.contains('\u{1b}'), "the {place} has an escape sequence");
    }
    stranger.kill().expect("kill");
    stranger.wait().expect("wait");
}

#[test]
fn a_zombie_that_nobody_reaps_is_told_of_once() {
    let mut house = House::new("");
    let pidfile = house.path("srv/shop.pid");
    let mut zombie = Command::new("true").spawn().expect("true");
    wait_for("it to be one", PATIENCE, || (!alive(zombie.id())).then_some(()));
    house.write("srv/shop.pid", &format!("{}\n", zombie.id()));
    let lines = "start = \"/bin/sleep 1000\"\nevery = \"300ms\"\n";
    house.define("shop", &format!("pidfile = {pidfile:?}\n{lines}"));
    house.open();
    wait_for("it to be said", PATIENCE, || house.log().contains("is a zombie").then_some(()));
    // Ten looks later.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(house.log().matches("is a zombie").count(), 1, "{}", house.log());
    zombie.wait().expect("wait");
}

/// A deploy points `current` at the next release, whose process writes its pidfile there; then the one before
/// goes, with or without its pidfile.
#[test]
fn the_process_of_the_next_release_is_found_and_no_second_one_is_started() {
    if !can_run(&[Need::Root]) {
        return;
    }
    for leaves in ["its pidfile", "nothing"] {
        let mut house = House::new("");
        let (current, started) = (house.path("srv/current"), house.path("srv/started"));
        let mut sleepers = ["r1", "r2", "r3"].map(|release| {
            fs::create_dir(house.path(&format!("srv/{release}"))).expect("mkdir");
            Sleeper(Command::new("sleep").arg("1000").spawn().expect("sleep"))
        });
        let write = |release: &str, pid: u32| {
            house.write(&format!("srv/{release}/shop.pid"), &format!("{pid}\n"));
        };
        let srv = house.path("srv");
        let point_at = |release: &str| {
            let next = srv.join("next");
            symlink(srv.join(release), &next).expect("symlink");
            fs::rename(&next, &current).expect("rename");
        };
        let pids = sleepers.each_ref().map(|sleeper| sleeper.0.id());
        write("r2", pids[1]);
        write("r3", pids[2]);
        point_at("r1");
        let pidfile = current.join("shop.pid");
        let lines = "every = \"300ms\"\nexit_delay = \"300ms\"\nstart_period = \"200ms\"\n";
        let start = format!("start = [\"touch\", {started:?}]\n");
        house.define("shop", &format!("pidfile = {pidfile:?}\n{lines}"));
        house.open();
        // Where it was missing, and where it was.
        wait_for("it to be missed", PATIENCE, || {
            house.status("shop")["pid"].is_null().then_some(())
        });
        house.wait_words("shop", "down");
        point_at("r2");
        assert_eq!(house.wait_up("shop", None), pids[1]);
        house.define("shop", &format!("pidfile = {pidfile:?}\n{start}{lines}"));
        house.reload_well();
        point_at("r3");
        if leaves == "nothing" {
            fs::remove_file(house.path("srv/r2/shop.pid")).expect("removed");
        }
        sleepers[1].end();
        assert_eq!(house.wait_up("shop", Some(pids[1])), pids[2], "it left {leaves}");
        assert!(!started.exists(), "a second one was started beside it; it left {leaves}");
    }
}

/// A process that is there.
struct Sleeper(Child);

impl Sleeper {
    fn end(&mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.end();
    }
}
