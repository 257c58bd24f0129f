//! One watchdog with its services in directories of its own; when it is dropped nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Gid, Pid, Uid, User};
use tempfile::TempDir;

use crate::peers::{Setup, Site, Watch, Watchdog};
use crate::server::{self, Record, Server};

/// Enough for a slow machine; who needs it all has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Set by Ctrl-C: the next wait ends the run, and everything is cleaned up on the way out.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The compiled helper and whom services run as.
pub(crate) struct Ground {
    dir: TempDir,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) user: Option<String>,
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

/// A watchdog that runs and has looked at all it is to look at.
pub(crate) struct Rig<'a> {
    ground: &'a Ground,
    watchdog: Watchdog,
    setup: Setup,
    init: Child,
    crowd: Option<Child>,
    server: Option<Server>,
    pub(crate) daemon: i32,
    /// Right before the fork whose child became the watchdog, in ns.
    pub(crate) began: u64,
    /// When it was ready, in ns; with definitions alone, when its control socket answered.
    pub(crate) ready: u64,
    /// How many starts were read.
    seen: usize,
    /// Services of another user must get here: pidfiles, the log of starts, and heeler's run_dir. In memory, as /run
    /// is: on ext4 most of a first start is its search for inodes that the rig before has not just given back.
    dir: TempDir,
    /// On the disk of the project: configuration, state, the watchdog's log.
    disk: TempDir,
}

impl<'a> Rig<'a> {
    pub(crate) fn new(ground: &'a Ground, watchdog: Watchdog, setup: &Setup) -> Self {
        let (dir, disk) = (tempdir(&in_memory()), tempdir(Path::new(env!("CARGO_TARGET_TMPDIR"))));
        let (pids, log) = (dir.path().join("pids"), dir.path().join("starts"));
        fs::create_dir(&pids).expect("mkdir");
        chown(&pids, Some(ground.uid.as_raw()), Some(ground.gid.as_raw())).expect("chown");
        fs::write(&log, "").expect("write");
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).expect("chmod");
        let server = setup.watch.has_pages().then(|| Server::new(ground, dir.path()));
        let ports = server.as_ref().map(|server| server.ports).unwrap_or_default();
        let site = Site { ground, dir: dir.path(), disk: disk.path(), ports };
        let argv = watchdog.configure(&site, setup);
        let ours = setup.watch.has_processes() && !watchdog.keeps_children(setup.watch);
        let herd = if ours { setup.services } else { 0 };
        let whose = [ground.uid.to_string(), ground.gid.to_string()];
        let crowd = (setup.strangers > 0).then(|| {
            let mut crowd = Command::new(ground.helper());
            server::helper(crowd.arg("crowd").arg(setup.strangers.to_string()).args(&whose)).0
        });
        let output = fs::File::create(disk.path().join("output")).expect("create");
        let mut init = Command::new(ground.helper());
        init.arg("init").arg(&pids).arg(herd.to_string()).arg(setup.watch.workers().to_string());
        init.args(&whose).args(argv).stderr(output);
        let (init, said) = server::helper(&mut init);
        let (daemon, began) = said.trim().split_once(' ').expect("the helper says two numbers");
        let daemon = daemon.parse().expect("a pid");
        let began = began.parse().expect("an instant");
        let setup = *setup;
        let mut rig = Self {
            ground,
            watchdog,
            setup,
            init,
            crowd,
            server,
            daemon,
            began,
            ready: began,
            seen: 0,
            dir,
            disk,
        };
        if setup.watch == Watch::Definitions {
            rig.wait_answer();
        } else {
            rig.wait_ready();
        }
        rig.ready = now();
        rig
    }

    /// Waits until the watchdog calls every service up, and has asked for every page.
    fn wait_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (up, pages) = (self.up(), self.pages());
            let all = self.setup.services;
            if up >= all && pages >= all {
                self.seen = server::records(&self.dir.path().join("starts")).len();
                return;
            }
            let what = format!("{up} of {all} services are up, {pages} pages were asked for");
            self.check_alive(end, &what);
            wait(Duration::from_millis(200));
        }
    }

    /// # Panics
    /// When it is too late, or the watchdog ended.
    fn check_alive(&self, end: Instant, what: &str) {
        let output = fs::read_to_string(self.disk.path().join("output")).unwrap_or_default();
        let last = output.lines().rev().take(5).collect::<Vec<_>>().join("\n");
        assert!(Instant::now() < end, "{what}; last words:\n{last}");
        assert!(exe(self.daemon).is_some(), "the watchdog ended; last words:\n{last}");
    }

    /// How many services it calls up; of one that calls nothing anything, how many it started.
    fn up(&self) -> usize {
        if !self.setup.watch.has_processes() {
            return self.setup.services;
        }
        let ask = |client: &mut Command| client.output().expect("the client runs").stdout;
        match self.watchdog {
            Watchdog::Heeler => {
                let mut client = Command::new(env!("CARGO_BIN_EXE_heeler"));
                client.arg("--socket").arg(self.socket());
                let said = ask(client.args(["status", "--json"]));
                let status: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
                let all = status["services"].as_array().map(Vec::as_slice).unwrap_or_default();
                all.iter().filter(|one| one["health"] == "good" && one["pid"].is_u64()).count()
            }
            Watchdog::Monit => {
                let program = self.watchdog.program().expect("it runs");
                let conf = self.disk.path().join("monitrc");
                let said = ask(Command::new(program).arg("-c").arg(conf).args(["summary", "-B"]));
                let said = String::from_utf8_lossy(&said);
                let up =
                    |line: &&str| line.contains(" OK ") && line.trim_end().ends_with("Process");
                said.lines().filter(up).count()
            }
            Watchdog::Runit | Watchdog::S6 | Watchdog::Supervisord => {
                let pidfile = |id: &u64| self.dir.path().join(format!("pids/s{id}.pid")).exists();
                let started = server::records(&self.dir.path().join("starts"));
                let started: BTreeSet<_> = started.iter().map(|start| start.id).collect();
                started.iter().filter(|id| pidfile(id)).count()
            }
            Watchdog::Limit => {
                let output = fs::read_to_string(self.disk.path().join("output"));
                if output.is_ok_and(|text| text.contains("ready")) {
                    self.setup.services
                } else {
                    0
                }
            }
        }
    }

    /// How many pages were asked for.
    fn pages(&self) -> usize {
        let Some(server) = &self.server else { return self.setup.services };
        server.asked().iter().map(|asked| asked.id).collect::<BTreeSet<_>>().len()
    }

    /// Every request for a page so far.
    pub(crate) fn asked(&self) -> Vec<Record> {
        self.server.as_ref().map(Server::asked).unwrap_or_default()
    }

    /// Waits until the control socket answers.
    fn wait_answer(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            if self.answers().unwrap_or(false) {
                return;
            }
            self.check_alive(end, "the control socket does not answer");
            wait(Duration::from_millis(1));
        }
    }

    /// Whether the control socket has an answer to a small question.
    fn answers(&self) -> std::io::Result<bool> {
        let question = match self.watchdog {
            Watchdog::Heeler => "GET /v1/status?service=s0 HTTP/1.1\r\nHost: heeler\r\n\r\n",
            Watchdog::Runit | Watchdog::S6 | Watchdog::Supervisord | Watchdog::Limit => {
                return Ok(false);
            }
            // bench:bench
            Watchdog::Monit => {
                "GET /_ping HTTP/1.0\r\nAuthorization: Basic YmVuY2g6YmVuY2g=\r\n\r\n"
            }
        };
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(question.as_bytes())?;
        let mut line = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut line)?;
        Ok(line.ends_with(b" 200"))
    }

    fn socket(&self) -> PathBuf {
        let name = if self.watchdog == Watchdog::Heeler { "run/sock" } else { "sock" };
        self.dir.path().join(name)
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

    /// Waits for the next `count` starts.
    pub(crate) fn starts(&mut self, count: usize) -> Vec<Record> {
        let end = Instant::now() + PATIENCE;
        loop {
            let new = server::records(&self.dir.path().join("starts")).split_off(self.seen);
            if new.len() >= count {
                self.seen += new.len();
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
            if pid == self.daemon || exe(pid).is_some_and(|exe| exe != self.ground.helper()) {
                found.push(pid);
            }
        }
        found
    }

    /// The web server: it works for the benchmark.
    pub(crate) fn server(&self) -> Option<i32> {
        self.server.as_ref().map(Server::pid)
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        server::end(&mut self.init);
        if let Some(crowd) = &mut self.crowd {
            server::end(crowd);
        }
    }
}

/// Where everybody may write and a disk has no part.
fn in_memory() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() }
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
