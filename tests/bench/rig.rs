//! One watchdog with its services in directories of its own; when it is dropped nothing is left.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Gid, Pid, Uid, User};
use tempfile::TempDir;

const HEELER: &str = env!("CARGO_BIN_EXE_heeler");
pub(crate) const MONIT: &str = "/usr/bin/monit";
/// Enough for a slow machine; who needs it all has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Set by Ctrl-C: the next wait ends the run, and everything is cleaned up on the way out.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Who watches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watchdog {
    Heeler,
    Monit,
}

impl Watchdog {
    pub(crate) fn version(self) -> String {
        let (program, option) = match self {
            Self::Heeler => (HEELER, "--version"),
            Self::Monit => (MONIT, "-V"),
        };
        let output = Command::new(program).arg(option).output().expect("the watchdog runs");
        let said = String::from_utf8_lossy(&output.stdout);
        said.lines().next().unwrap_or("?").trim_start_matches("This is ").to_owned()
    }
}

/// What is watched about each service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// That its process is there.
    Existence,
    /// Also its cpu and memory.
    Conditions,
    /// The same as `Existence`, of a foreground program that heeler keeps itself.
    Run,
}

/// The compiled helper and whom services run as.
pub(crate) struct Ground {
    dir: TempDir,
    uid: Uid,
    gid: Gid,
    user: Option<String>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let dir = tempdir(&std::env::temp_dir());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/helper.c");
        let helper = dir.path().join("helper");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-static", "-o"]).arg(&helper).arg(source);
        let done = cc.status().expect("failed to run cc: install gcc and libc6-dev");
        assert!(done.success(), "failed to compile tests/bench/helper.c: see above");
        let (mut uid, mut gid, mut user) = (Uid::current(), Gid::current(), None);
        if uid.is_root() {
            let other = User::from_name("nobody").ok().flatten().expect("there is a user nobody");
            (uid, gid, user) = (other.uid, other.gid, Some(other.name));
            let me = std::process::id().to_string();
            let nice = Command::new(&helper).args(["nice", &me]).status();
            assert!(
                nice.is_ok_and(|end| end.success()),
                "failed to raise the priority; is {} mounted noexec? set TMPDIR",
                dir.path().display()
            );
        }
        Self { dir, uid, gid, user }
    }

    pub(crate) fn helper(&self) -> PathBuf {
        self.dir.path().join("helper")
    }
}

/// A watchdog that runs and has looked at all its services.
pub(crate) struct Rig<'a> {
    ground: &'a Ground,
    watchdog: Watchdog,
    /// Services of another user must get here: pidfiles, the log of starts, and heeler's run_dir.
    dir: TempDir,
    /// On the disk of the project: configuration, state, the watchdog's log.
    disk: TempDir,
    init: Child,
    pub(crate) daemon: i32,
    services: usize,
    /// How much of the log of starts was read.
    seen: usize,
}

impl<'a> Rig<'a> {
    pub(crate) fn new(
        ground: &'a Ground,
        watchdog: Watchdog,
        services: usize,
        watch: Watch,
    ) -> Self {
        let (dir, disk) =
            (tempdir(&std::env::temp_dir()), tempdir(Path::new(env!("CARGO_TARGET_TMPDIR"))));
        let (pids, log) = (dir.path().join("pids"), dir.path().join("starts"));
        fs::create_dir(&pids).expect("mkdir");
        chown(&pids, Some(ground.uid.as_raw()), Some(ground.gid.as_raw())).expect("chown");
        fs::write(&log, "").expect("write");
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).expect("chmod");
        let argv = match watchdog {
            Watchdog::Heeler => heeler(ground, dir.path(), disk.path(), services, watch),
            Watchdog::Monit => monit(ground, dir.path(), disk.path(), services, watch),
        };
        let herd = if watch == Watch::Run { 0 } else { services };
        let output = fs::File::create(disk.path().join("output")).expect("create");
        let mut init = Command::new(ground.helper())
            .arg("init")
            .arg(&pids)
            .args([herd.to_string(), ground.uid.to_string(), ground.gid.to_string()])
            .args(argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            // Ctrl-C is ours: this one ends when we do.
            .process_group(0)
            .spawn()
            .expect("the helper runs");
        let mut line = String::new();
        let mut stdout = BufReader::new(init.stdout.take().expect("is a pipe"));
        stdout.read_line(&mut line).expect("the helper says a pid");
        let daemon = line.trim().parse().expect("the helper says a pid");
        let mut rig = Self { ground, watchdog, dir, disk, init, daemon, services, seen: 0 };
        rig.wait_ready();
        rig
    }

    /// Waits until the watchdog calls every service up.
    pub(crate) fn wait_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        while self.up() < self.services {
            let output = fs::read_to_string(self.disk.path().join("output")).unwrap_or_default();
            let last = output.lines().rev().take(5).collect::<Vec<_>>().join("\n");
            assert!(
                Instant::now() < end,
                "{} of {} services are up; last words:\n{last}",
                self.up(),
                self.services
            );
            assert!(exe(self.daemon).is_some(), "the watchdog ended; last words:\n{last}");
            wait(Duration::from_millis(200));
        }
    }

    /// How many services it calls up.
    fn up(&self) -> usize {
        let ask = |client: &mut Command| client.output().expect("the client runs").stdout;
        match self.watchdog {
            Watchdog::Heeler => {
                let mut client = Command::new(HEELER);
                client.arg("--socket").arg(self.dir.path().join("run/sock"));
                let said = ask(client.args(["status", "--json"]));
                let status: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
                let all = status["services"].as_array().map(Vec::as_slice).unwrap_or_default();
                all.iter().filter(|one| one["health"] == "good" && one["pid"].is_u64()).count()
            }
            Watchdog::Monit => {
                let conf = self.disk.path().join("monitrc");
                let said = ask(Command::new(MONIT).arg("-c").arg(conf).args(["summary", "-B"]));
                let said = String::from_utf8_lossy(&said);
                let up =
                    |line: &&str| line.contains(" OK ") && line.trim_end().ends_with("Process");
                said.lines().filter(up).count()
            }
        }
    }

    /// Kills the process of a service; the instant just before, in ns.
    pub(crate) fn kill(&self, id: usize) -> u64 {
        let pidfile = self.dir.path().join(format!("pids/s{id}.pid"));
        let text = fs::read_to_string(pidfile).expect("the service has a pidfile");
        let pid = text.trim().parse().expect("a pid");
        assert_eq!(exe(pid), Some(self.ground.helper()), "pid {pid} is none of ours");
        let instant = now();
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the process can be killed");
        instant
    }

    /// Waits for the next `count` starts; instants in ns, in order.
    pub(crate) fn starts(&mut self, count: usize) -> Vec<u64> {
        const RECORD: usize = 16;
        let end = Instant::now() + PATIENCE;
        loop {
            let log = fs::read(self.dir.path().join("starts")).expect("the log is readable");
            let new: Vec<u64> = log[self.seen..]
                .chunks_exact(RECORD)
                .map(|record| u64::from_ne_bytes(record[..8].try_into().expect("8 bytes")))
                .collect();
            if new.len() >= count {
                self.seen += new.len() * RECORD;
                return new;
            }
            assert!(
                Instant::now() < end,
                "waited {PATIENCE:?} for {count} starts, saw {}",
                new.len()
            );
            wait(Duration::from_millis(10));
        }
    }

    /// The processes that are the watchdog's, not services: all below, but the helpers.
    pub(crate) fn own_processes(&self) -> Vec<i32> {
        let mut todo = vec![i32::try_from(self.init.id()).expect("a pid")];
        let mut found = Vec::new();
        while let Some(pid) = todo.pop() {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                todo.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
            if exe(pid).is_some_and(|exe| exe != self.ground.helper()) {
                found.push(pid);
            }
        }
        found
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        drop(self.init.stdin.take());
        let _end = self.init.wait();
    }
}

fn heeler(ground: &Ground, dir: &Path, disk: &Path, services: usize, watch: Watch) -> Vec<String> {
    let conf = disk.join("conf.d");
    fs::create_dir(&conf).expect("mkdir");
    let run = dir.join("run");
    let settings = format!(
        "state_dir = {:?}\nrun_dir = {run:?}\nsocket = {:?}\n[defaults]\ncwd = \"/\"\nevery = \"1s\"\n\
         start_period = \"0s\"\nstart_limit = \"1000000 per 1h\"\n",
        disk.join("state"),
        run.join("sock"),
    );
    fs::write(conf.join("heeler.toml"), settings).expect("write");
    let user = ground.user.as_ref().map(|user| format!("user = {user:?}\n")).unwrap_or_default();
    for id in 0..services {
        let (helper, log, pidfile) =
            (ground.helper(), dir.join("starts"), dir.join(format!("pids/s{id}.pid")));
        let what = match watch {
            Watch::Existence | Watch::Conditions => {
                format!(
                    "pidfile = {pidfile:?}\nstart = [{helper:?}, \"svc\", {log:?}, {pidfile:?}, \"{id}\"]\n"
                )
            }
            Watch::Run => format!("run = [{helper:?}, \"run\", {log:?}, \"{id}\"]\n"),
        };
        let checks = match watch {
            Watch::Existence | Watch::Run => "",
            Watch::Conditions => "[[check]]\nif = \"cpu > 95%\"\n[[check]]\nif = \"rss > 1GiB\"\n",
        };
        fs::write(conf.join(format!("s{id}.toml")), format!("{user}{what}{checks}"))
            .expect("write");
    }
    [HEELER.as_ref(), "run".as_ref(), conf.as_path()]
        .map(|word: &Path| word.display().to_string())
        .into()
}

fn monit(ground: &Ground, dir: &Path, disk: &Path, services: usize, watch: Watch) -> Vec<String> {
    let mut text = "set daemon 1\n".to_owned();
    for (what, file) in
        [("log", "log"), ("pidfile", "pid"), ("idfile", "id"), ("statefile", "state")]
    {
        text += &format!("set {what} {}\n", disk.join(file).display());
    }
    text += &format!("set httpd unixsocket {} allow bench:bench\n", dir.join("sock").display());
    let user = match ground.user {
        Some(_) => format!(" as uid {} and gid {}", ground.uid, ground.gid),
        None => String::new(),
    };
    for id in 0..services {
        let (helper, log, pidfile) =
            (ground.helper(), dir.join("starts"), dir.join(format!("pids/s{id}.pid")));
        let (helper, log, pidfile) = (helper.display(), log.display(), pidfile.display());
        text += &format!(
            "check process s{id} with pidfile {pidfile}\n  start program = \"{helper} svc {log} {pidfile} {id}\"{user}\n  \
             stop program = \"/bin/sh -c 'kill -TERM $(cat {pidfile})'\"\n"
        );
        if watch == Watch::Conditions {
            text += "  if cpu > 95% then alert\n  if memory > 1 GB then alert\n";
        }
    }
    let conf = disk.join("monitrc");
    fs::write(&conf, text).expect("write");
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).expect("chmod");
    vec![MONIT.into(), "-I".into(), "-c".into(), conf.display().to_string()]
}

/// A directory that others may enter.
fn tempdir(below: &Path) -> TempDir {
    let dir = tempfile::Builder::new().prefix("heeler-bench-").tempdir_in(below).expect("mkdir");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    dir
}

fn exe(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// `CLOCK_MONOTONIC` in ns: the helper's clock.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is a clock");
    u64::try_from(Duration::from(time).as_nanos()).expect("not that late")
}

/// Sleeps; Ctrl-C meanwhile unwinds, so that everything is cleaned up.
pub(crate) fn wait(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        if INTERRUPTED.load(Ordering::Relaxed) {
            std::panic::resume_unwind(Box::new("interrupted"));
        }
        std::thread::sleep(left.min(Duration::from_millis(300)));
    }
}
