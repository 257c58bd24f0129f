//! A machine of the test's own: users, a directory, and shims run in it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output};
use std::time::Duration;

use heeler::model::ids::{ActionId, ServiceName};
use heeler::model::job::{AtDeadline, Ended, Job, JobKind, Outcome};
use heeler::model::process::Pid;
use heeler::model::service::Command;
use heeler::model::time::Mono;
use heeler::sys::lock::{Lock, TryLock, try_lock};
use heeler::sys::selfexe::SelfExe;
use heeler::sys::spawn::{Shim, reap, spawn_shim};
use heeler::wire::shim::{ChildRecord, OutcomeRecord, Plan, Record};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::support::{HEELER, wait_for};

pub(crate) const LONG_NAME: &str = "a-user-name-of-thirty-two-bytes1";

/// This thread's own view of /etc/passwd and /etc/group, and what it spawns has the same.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) exe: SelfExe,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir =
            tempfile::Builder::new().prefix("heeler-").tempdir_in("/tmp").expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let at = |name: &str| dir.path().join(name);
        for (name, uid) in [("deploy", 1500), ("records", 0), ("locked", 0)] {
            fs::create_dir(at(name)).expect("mkdir");
            chown(at(name), Some(uid), Some(uid)).expect("chown");
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o700)).expect("chmod");
        }
        let home = at("deploy").display().to_string();
        let locked = at("locked").display().to_string();
        let users = format!(
            "deploy:x:1500:1500::{home}:/bin/bash\nmany:x:1501:1501::/:/bin/sh\n\
             {LONG_NAME}:x:1502:59999::/:/bin/sh\n\
             ghost:x:1503:1503::/nowhere/ghost:/usr/sbin/nologin\n\
             locked:x:1504:1504::{locked}:/bin/sh\nminus:x:4294967295:1505::/:/bin/sh\n"
        );
        let mut groups = "deploy:x:1500:\nmany:x:1501:\nghost:x:1503:\nlocked:x:1504:\n\
                          ops:x:1601:deploy\nweb:x:1602:deploy,many\n\
                          db:x:1603:deploy\nother:x:1604:\n"
            .to_owned();
        groups.extend((0..200).map(|n| format!("g{n}:x:{}:many\n", 20_000 + n)));
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .expect("private mounts");
        for (file, more) in [("passwd", users), ("group", groups)] {
            let real = Path::new("/etc").join(file);
            let text = fs::read_to_string(&real).expect("read");
            fs::write(at(file), text + &more).expect("write");
            mount(Some(&at(file)), &real, none, MsFlags::MS_BIND, none).expect("bind mount");
        }
        Self { dir, exe: SelfExe::open_path(Path::new(HEELER)).expect("open heeler") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.path("records")
    }

    /// A file with this mode, owned by root.
    pub(crate) fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        path.display().to_string()
    }

    /// `heeler run-as USER -- ARGV`.
    pub(crate) fn run_as(&self, user: &str, argv: &[&str]) -> Output {
        Process::new(HEELER).args(["run-as", user, "--"]).args(argv).output().expect("run heeler")
    }

    pub(crate) fn lock(&self) -> Option<Lock> {
        match try_lock(&self.records().join("action.lock")).expect("try the lock") {
            TryLock::Taken(lock) => Some(lock),
            TryLock::Busy => None,
        }
    }

    pub(crate) fn spawn(&self, job: &Job) -> Running {
        let plan =
            Plan { boot: "test".into(), records: self.records(), cgroup: None, job: job.clone() };
        self.spawn_plan(&plan.encode().expect("encode"))
    }

    pub(crate) fn spawn_plan(&self, plan: &[u8]) -> Running {
        let lock = self.lock().expect("the lock is free");
        let shim = spawn_shim(&self.exe, ["shop", "start"], plan, lock).expect("spawn");
        Running { shim, records: self.records() }
    }

    /// Runs a job to its outcome.
    pub(crate) fn outcome(&self, job: &Job) -> Outcome {
        self.spawn(job).outcome()
    }

    /// The reason why a command was not executed.
    pub(crate) fn refusal(&self, job: &Job) -> String {
        let ended = self.outcome(job).ended;
        let Ended::NotExecuted { stage, error } = ended else {
            panic!("it should not have been executed, but it {ended}");
        };
        format!("{stage}: {error}")
    }
}

/// A shim at work.
pub(crate) struct Running {
    pub(crate) shim: Shim,
    pub(crate) records: PathBuf,
}

impl Running {
    /// The next byte of the status pipe; `None` at its end.
    pub(crate) fn status(&self) -> Option<u8> {
        let mut pipe = fs::File::from(self.shim.status.try_clone().expect("clone"));
        let mut byte = [0];
        wait_for("the shim's status", Duration::from_secs(20), || match pipe.read(&mut byte) {
            Ok(0) => Some(None),
            Ok(_) => Some(Some(byte[0])),
            Err(_) => None,
        })
    }

    pub(crate) fn end(&self) {
        while self.status().is_some() {}
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.end();
        self.recorded().expect("an outcome record").outcome
    }

    pub(crate) fn recorded(&self) -> Option<OutcomeRecord> {
        let bytes = fs::read(self.records.join("action.outcome")).ok()?;
        Some(OutcomeRecord::decode(&bytes).expect("a record"))
    }

    pub(crate) fn child(&self) -> ChildRecord {
        let bytes = fs::read(self.records.join("action.child")).expect("a child record");
        ChildRecord::decode(&bytes).expect("a record")
    }

    pub(crate) fn wait_for_exit(&self) -> heeler::model::process::Exit {
        wait_for("the shim's end", Duration::from_secs(20), || {
            reap(&self.shim.pidfd).expect("reap")
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = reap(&self.shim.pidfd);
    }
}

pub(crate) fn job(user: &str, argv: &[&str]) -> Job {
    Job {
        action: ActionId(7),
        service: ServiceName::parse("shop").expect("a name"),
        kind: JobKind::Start,
        command: Command {
            systemctl: None,
            argv: argv.iter().map(|arg| Box::from(*arg)).collect(),
            timeout: None,
            env: Vec::new(),
            cwd: None,
        },
        user: Some(user.into()),
        group: None,
        env: Vec::new(),
        env_file: None,
        cwd: None,
        deadline: now() + Duration::from_secs(20),
        reason: "a test".into(),
        main: None,
        at_deadline: AtDeadline::DirectChild,
        input: None,
    }
}

pub(crate) fn now() -> Mono {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
    Mono::from_nanos(u64::try_from(Duration::from(time).as_nanos()).expect("in range"))
}

/// Whether a process runs (not: is a zombie).
pub(crate) fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub(crate) fn text(output: &Outcome) -> String {
    output.output.lines().join("\n")
}
