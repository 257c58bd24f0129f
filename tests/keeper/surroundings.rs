//! Odd machines: a /proc that hides, a container, old control groups, a kernel that says no (ENV).

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Command, Stdio};

use crate::support::house::{House, PATIENCE, alive, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"1s\"\n";
const NEEDS: [Need; 3] = [
    Need::Root,
    Need::Program("/usr/bin/unshare", "util-linux"),
    Need::Program("/usr/bin/setpriv", "util-linux"),
];
const NOBODY: u32 = 65534;

/// A program in a mount namespace of its own, once this script has changed the view.
fn behind(script: &str, program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &format!("set -e\n{script}\nexec \"$0\" \"$@\""), program]);
    command
}

/// What the doctor says there.
fn doctor(house: &House) -> String {
    let said = Command::new("nsenter")
        .args(["--mount", "--target", &house.keeper().to_string(), HEELER, "doctor"])
        .arg(house.path("conf.d"))
        .output()
        .expect("nsenter runs");
    String::from_utf8_lossy(&said.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A process of root's that goes with the test.
struct Roots(Child);

impl Roots {
    fn begin() -> Self {
        Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("sleep"))
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Root sees through it: nothing is otherwise.
#[test]
fn env_01_a_proc_that_hides_processes_hides_none_from_root() {
    if !can_run(&NEEDS) {
        return;
    }
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.daemon("theirs", "", &format!("user = \"nobody\"\n{QUICK}"));
    house.open_by(behind("mount -t proc -o hidepid=2 proc /proc", HEELER));
    for name in ["shop", "theirs"] {
        let first = house.wait_up(name, None);
        signal(first, "KILL");
        let second = house.wait_up(name, Some(first));
        assert_eq!((house.starts(name), house.doubles(name)), (vec![first, second], 0));
    }
    assert!(!doctor(&house).contains("cannot be seen"), "{}", doctor(&house));
}

/// Without root, what is hidden is told, and nothing is started beside it.
#[test]
fn env_01_without_root_what_is_hidden_is_told_and_not_started_over() {
    if !can_run(&NEEDS) {
        return;
    }
    let mut house = House::new("");
    let roots = Roots::begin();
    house.daemon("own", "", QUICK);
    let (pidfile, mark) = (house.path("srv/roots.pid"), house.path("srv/started"));
    fs::write(&pidfile, roots.0.id().to_string()).expect("write");
    let start = format!("/usr/bin/touch {}", mark.display());
    house.define("roots", &format!("pidfile = {pidfile:?}\nstart = {start:?}\n{QUICK}"));
    let program = house.path("heeler");
    // By another process: while this one had it open for writing, another test's fork would too.
    let copied = Command::new("install").args(["-m", "755", HEELER]).arg(&program).status();
    assert!(copied.expect("install").success());
    fs::set_permissions(house.path("srv"), fs::Permissions::from_mode(0o755)).expect("chmod");
    let status = Command::new("chown").args(["-R", "65534:65534"]).arg(house.path("")).status();
    assert!(status.expect("chown").success());
    let script = "mount -t proc -o hidepid=2 proc /proc\n\
                  set -- setpriv --reuid=65534 --regid=65534 --clear-groups env -i HOME=/tmp \"$0\" \"$@\"\n\
                  exec \"$@\"";
    house.open_by(behind(script, program.to_str().expect("text")));
    let first = house.wait_up("own", None);
    signal(first, "KILL");
    house.wait_up("own", Some(first));
    let words = wait_for("it to be told", PATIENCE, || {
        let status = house.status("roots");
        let wrong = status["wrong"][0].as_str()?.to_owned();
        (wrong.contains("hidepid")).then_some((wrong, status["health"].clone()))
    });
    println!("{words:?}");
    assert!(words.0.contains("cannot be told whether it runs"), "{words:?}");
    assert!(!mark.exists(), "something was started beside what is there");
    let said = Command::new("nsenter")
        .args(["--mount", "--target", &house.keeper().to_string()])
        .args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .arg("doctor")
        .arg(house.path("conf.d"))
        .output()
        .expect("nsenter runs");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("other users' processes cannot be seen"), "{said}");
}

/// As in a container: heeler is process 1, nothing of systemd is there, control groups are read-only.
#[test]
fn env_02_in_a_container_it_keeps_services_and_says_once_where_they_stay() {
    if !can_run(&NEEDS) {
        return;
    }
    let mut house = House::new("");
    house.daemon("shop", "children=2", QUICK);
    let run = house.command("kept", "foreground");
    house.define("kept", &format!("run = {run:?}\n{QUICK}"));
    let mut command = Command::new("unshare");
    // A shell as process 1 gathers orphans, as the init of a container does.
    let script = "set -e\nmount --bind /sys/fs/cgroup /sys/fs/cgroup\n\
                  mount -o remount,bind,ro /sys/fs/cgroup\n\"$0\" \"$@\" & wait";
    command.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]);
    command.args(["sh", "-c", script, HEELER]);
    house.open_by(command);
    let inside = |args: &[&str]| {
        let unshare = house.keeper().to_string();
        let found = Command::new("pgrep").args(["-P", &unshare]).output().expect("pgrep");
        let init = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        let target = ["--target", &init, "--pid", "--mount"];
        let done = Command::new("nsenter").args(target).args(args).status();
        assert!(done.expect("nsenter runs").success());
    };
    for name in ["shop", "kept"] {
        let is_up = |not| {
            wait_for(&format!("{name} to be up"), PATIENCE, || {
                house.pid(name).filter(|pid| Some(*pid) != not)
            })
        };
        let first = is_up(None);
        inside(&["kill", "-9", &first.to_string()]);
        let second = is_up(Some(first));
        house.wait_starts(name, &[first, second]);
        assert_eq!(house.doubles(name), 0);
    }
    let said = "no control group was left to heeler: what it starts stays in its own";
    assert_eq!(house.log().matches(said).count(), 1, "{}", house.log());
}

/// Old control groups, both kinds, none.
#[test]
fn env_04_whatever_control_groups_there_are_services_are_kept_and_the_doctor_says_which() {
    if !can_run(&NEEDS) {
        return;
    }
    for (make, says) in [
        ("mkdir systemd memory", "control groups: old ones (v1)"),
        (
            "mkdir systemd unified; touch unified/cgroup.controllers",
            "a unified beside them (hybrid)",
        ),
        ("touch cgroup.controllers", "control groups: unified (v2)"),
        ("true", "no control groups are mounted"),
    ] {
        let mut house = House::new("");
        house.daemon("shop", "", QUICK);
        let script = format!("mount -t tmpfs none /sys/fs/cgroup\n(cd /sys/fs/cgroup; {make})");
        house.open_by(behind(&script, HEELER));
        let first = house.wait_up("shop", None);
        signal(first, "KILL");
        let second = house.wait_up("shop", Some(first));
        assert_eq!(house.heeler(&["restart", "shop"]).0, 0, "{make}");
        assert!(!alive(second));
        assert_eq!(house.doubles("shop"), 0);
        let said = doctor(&house);
        assert!(said.contains(says), "{make}: {said}");
    }
}

/// It cannot work there, and says why.
#[test]
fn env_05_without_a_whole_proc_it_ends_and_says_what_is_missing() {
    if !can_run(&NEEDS) {
        return;
    }
    let house = House::new("");
    for (script, says) in [
        ("mount -t proc -o subset=pid proc /proc", "subset=pid"),
        ("mount -t tmpfs none /proc", "is /proc mounted?"),
    ] {
        let ended = behind(script, HEELER).arg("run").arg(house.path("conf.d")).output();
        let ended = ended.expect("unshare runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        println!("{script}: {said}");
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("failed to ") && said.contains(says), "{said}");
    }
    let doctor = behind("mount -t proc -o subset=pid proc /proc", HEELER)
        .arg("doctor")
        .arg(house.path("conf.d"))
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(said.contains("/proc is mounted with subset=pid"), "{said}");
}

/// No security module is at hand that could be told to deny it; a missing capability is the same to kill(2).
#[test]
fn env_11_a_signal_that_root_may_not_send_is_told_with_who_may_have_denied_it() {
    if !can_run(&NEEDS) {
        return;
    }
    let mut house = House::new("");
    house.daemon("theirs", "", &format!("user = \"nobody\"\n{QUICK}"));
    chown(house.path("srv"), Some(NOBODY), Some(NOBODY)).expect("chown");
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-kill", "--inh-caps=-kill", HEELER]);
    house.open_by(command);
    let pid = wait_for("it to be up", PATIENCE, || house.starts("theirs").first().copied());
    let wrong = wait_for("it to be told", PATIENCE, || {
        house.status("theirs")["wrong"][0].as_str().map(str::to_owned)
    });
    println!("{wrong}");
    let why = format!("heeler may not signal process {pid}: Operation not permitted");
    assert!(wrong.contains(&why), "{wrong}");
    assert!(wrong.contains("SELinux, AppArmor or a missing CAP_KILL"), "{wrong}");
    let (code, out, err) = house.heeler(&["stop", "theirs"]);
    println!("{code} {out}{err}");
    assert_eq!(code, 1, "{out}{err}");
    assert!(alive(pid));
    assert_eq!(house.starts("theirs"), [pid], "no second copy");
}
