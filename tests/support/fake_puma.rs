//! A Puma that misbehaves on order (`tests/puma/fake/puma.pl` says how), with its application.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use heeler::model::puma::{Answer, Ask, Cluster, Control, Form, Question, Stats};
use heeler::wire::puma::ROLE;

use super::house::{PATIENCE, alive, pids, signal};
use super::{HEELER, Need, wait_for};

/// What it needs.
pub const NEED: Need = Need::Program("/usr/bin/perl", "perl");
const SCRIPT: &str = include_str!("../puma/fake/puma.pl");

/// One fake Puma below a directory; all of it is killed when this goes.
pub struct FakePuma {
    dir: PathBuf,
    /// Its directory, where nobody else owns that.
    _own: Option<tempfile::TempDir>,
    child: Option<Child>,
}

impl FakePuma {
    /// One with release 1, not started yet.
    pub fn new() -> Self {
        let own = tempfile::Builder::new().prefix("fake-puma-").tempdir().expect("a directory");
        fs::set_permissions(own.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let dir = own.path().to_owned();
        let mut puma = Self::lay(dir);
        puma._own = Some(own);
        puma
    }

    /// The same in a directory of somebody's, who starts `perl DIR/puma.pl DIR` himself.
    pub fn lay(dir: PathBuf) -> Self {
        fs::create_dir_all(dir.join("knob")).expect("mkdir");
        fs::write(dir.join("puma.pl"), SCRIPT).expect("write");
        let puma = Self { dir, _own: None, child: None };
        puma.release(1);
        puma.point_at(1);
        puma
    }

    /// Started with these options, and up.
    pub fn start(options: &[&str]) -> Self {
        let mut puma = Self::new();
        puma.run(options);
        puma
    }

    /// Starts it, and waits until it has its state file.
    pub fn run(&mut self, options: &[&str]) {
        // It leads no group, so setsid need not fork: the child is the master.
        let log = fs::File::create(self.path("out")).expect("a file");
        let mut command = Command::new("/usr/bin/setsid");
        command.args(["perl", "--"]).arg(self.path("puma.pl")).arg(&self.dir).args(options);
        let command = command.stdin(Stdio::null()).stderr(log).stdout(Stdio::null());
        let _gone = fs::remove_file(self.path("puma.state"));
        self.child = Some(command.spawn().expect("perl runs"));
        wait_for("the fake Puma to be up", PATIENCE, || {
            let out = fs::read_to_string(self.path("out")).unwrap_or_default();
            assert!(out.is_empty(), "{out}");
            self.path("puma.state").exists().then_some(())
        });
    }

    /// A path below its directory.
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }

    /// Makes a release that boots.
    pub fn release(&self, number: u32) -> PathBuf {
        let path = self.path(&format!("releases/{number}"));
        fs::create_dir_all(&path).expect("mkdir");
        fs::write(path.join("config.ru"), "").expect("write");
        path
    }

    /// Makes a release that cannot boot.
    pub fn broken_release(&self, number: u32) -> PathBuf {
        let path = self.release(number);
        fs::write(path.join("BOOM"), "").expect("write");
        path
    }

    /// Points `current` at a release, as a deploy does: at once.
    pub fn point_at(&self, number: u32) {
        let next = self.path("next");
        let _gone = fs::remove_file(&next);
        symlink(format!("releases/{number}"), &next).expect("link");
        fs::rename(&next, self.path("current")).expect("rename");
    }

    /// Has it misbehave in this way.
    pub fn set(&self, knob: &str, value: &str) {
        let next = self.path(&format!("knob/.{knob}"));
        fs::write(&next, value).expect("write");
        fs::rename(next, self.path(&format!("knob/{knob}"))).expect("rename");
    }

    /// Has it behave again.
    pub fn unset(&self, knob: &str) {
        fs::remove_file(self.path(&format!("knob/{knob}"))).expect("was set");
    }

    /// Its master, by its pidfile.
    pub fn master(&self) -> u32 {
        let text = fs::read_to_string(self.path("puma.pid")).expect("a pidfile");
        text.trim().parse().expect("a number")
    }

    /// The session it leads, whoever started it; 0 when nobody did.
    fn session(&self) -> u32 {
        let pidfile = || fs::read_to_string(self.path("puma.pid")).ok()?.trim().parse().ok();
        self.child.as_ref().map(Child::id).or_else(pidfile).unwrap_or(0)
    }

    /// Its living workers by their titles, whoever their parent is now.
    pub fn workers(&self) -> Vec<u32> {
        let session = self.session();
        let worker = |pid: &u32| {
            title(*pid).starts_with("puma: cluster worker") && in_session(*pid, session)
        };
        pids().into_iter().filter(|pid| alive(*pid) && worker(pid)).collect()
    }

    /// Asks it as heeler does.
    pub fn ask(&self, ask: Ask) -> Answer {
        ask_by(HEELER, &Question { control: Control::State(self.path("puma.state")), ask })
    }

    /// What it says of its workers, once that is as wanted.
    pub fn wait_cluster(&self, what: &str, is: impl Fn(&Cluster) -> bool) -> Cluster {
        wait_for(what, PATIENCE, || match self.ask(Ask::Stats).stats() {
            Some(Stats { form: Form::Cluster(cluster), .. }) if is(cluster) => {
                Some(cluster.clone())
            }
            Some(_) | None => None,
        })
    }

    /// Waits until this many have booted, all of the master's phase.
    pub fn wait_up(&self, count: u64) -> Cluster {
        self.wait_cluster(&format!("{count} workers to be up"), |cluster| {
            (cluster.booted, cluster.old) == (Some(count), Some(0))
        })
    }

    /// What its application answers: the release it serves, and who did.
    pub fn get(&self) -> Option<(PathBuf, u32)> {
        let mut stream = UnixStream::connect(self.path("app.sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (release, pid) = answer.split_once("\r\n\r\n")?.1.trim().rsplit_once(' ')?;
        Some((release.into(), pid.parse().ok()?))
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Signals its master.
    pub fn signal(&self, name: &str) {
        signal(self.master(), name);
    }
}

impl Drop for FakePuma {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the fake Puma's log\n{}", self.log());
        }
        // The number names its session as long as anybody is in it.
        let session = self.session();
        for _ in 0..3 {
            let left = pids().into_iter().filter(|pid| session > 1 && in_session(*pid, session));
            left.for_each(|pid| signal(pid, "KILL"));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}

/// The role that asks, run as whoever runs this.
pub fn ask_by(heeler: &str, question: &Question) -> Answer {
    let mut child = Command::new(heeler)
        .arg(ROLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("heeler runs");
    let mut stdin = child.stdin.take().expect("its stdin");
    stdin.write_all(question.encode().reveal().as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("plain text");
    assert!(output.status.success(), "{:?}: {text}", output.status);
    Answer::decode(&text).unwrap_or_else(|| panic!("{text:?} is no answer"))
}

/// What a process calls itself.
pub fn title(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ")
}

/// Where a process works.
pub fn works_in(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_else(|_| Path::new("/gone").to_owned())
}

fn in_session(pid: u32, session: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let field = |stat: &str| stat.rsplit(") ").next()?.split(' ').nth(3)?.parse().ok();
    field(&stat) == Some(session)
}
