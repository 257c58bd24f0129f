//! Pidfiles that lie, through the whole of heeler (PID): nobody is signalled, and what a file holds that
//! only root may read appears nowhere.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;
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
