//! The Pumas of a night: where each lies, what its releases are, how heeler is told of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::shop::own;

/// How many workers each has.
pub(super) const WORKERS: usize = 4;
/// As many have to serve whatever a rule says.
pub(super) const MIN: usize = 2;
/// What a worker has to go in.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// One Puma.
pub(super) struct App {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    port: u16,
}

/// What a release is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Release {
    Good,
    /// It boots for three seconds.
    Slow,
    /// It raises as it boots.
    Raising,
    /// It answers 500.
    Wrong,
}

/// How an answer was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Good,
    Wrong,
    /// None, or half of one, or one that came too late.
    Lost,
}

impl App {
    /// Lays it down with its first release.
    pub(super) fn new(at: u16) -> Self {
        let app = Self { port: 9300 + at, ..Self::named(&format!("night{at}")) };
        fs::create_dir_all(app.dir.join("run")).expect("mkdir");
        fs::write(app.dir.join("port"), app.port.to_string()).expect("write");
        fs::write(app.dir.join("puma.rb"), include_str!("../app/night.rb")).expect("write");
        app.release(1, Release::Good);
        app.point_at(1);
        own(Path::new("/home/deploy"));
        app
    }

    /// One that is nowhere yet.
    pub(super) fn named(name: &str) -> Self {
        let dir = Path::new("/home/deploy/apps").join(name);
        Self { name: name.to_owned(), dir, port: 0 }
    }

    /// Its file in conf.d. A worker older than `age_s` is to go, whether it hangs or not.
    pub(super) fn definition(&self, age_s: u64) -> String {
        let (dir, port) = (self.dir.display(), self.port);
        let start = format!("puma -C {dir}/puma.rb </dev/null >>{dir}/run/out 2>&1 &");
        let check = |rest: &str| format!("\n[[check]]\n{rest}\n");
        format!(
            "user = \"deploy\"\npidfile = \"{dir}/run/puma.pid\"\n\
             start = {{ run = {start:?}, shell = true, cwd = \"{dir}/current\" }}\n\
             every = \"500ms\"\nstart_period = \"1s\"\nstop_timeout = \"3s\"\n\
             start_limit = \"1000 per 10m\"\n\
             [puma]\nstate = \"{dir}/run/puma.state\"\ncurrent = \"{dir}/current\"\n\
             workers = {WORKERS}\nrollback = \"symlink\"\n\
             [workers]\nmin = {MIN}\nstop_timeout = \"{}s\"\nbudget = \"1000 per 10m\"\n",
            STOP_TIMEOUT.as_secs()
        ) + &check(&format!(
            "type = \"http\"\nurl = \"http://127.0.0.1:{port}/up\"\nevery = \"2s\"\ntimeout = \"2s\""
        )) + &check(
            "type = \"worker\"\nif = \"memory > 120MiB\"\nfor = \"2 of 3\"\n\
             then = \"recycle worker\"",
        ) + &check(
            "type = \"worker\"\nif = \"state = T\"\nfor = \"6 of 6\"\nthen = \"kill worker\"",
        ) + &check(&format!(
            "type = \"worker\"\nif = \"age > {age_s}s\"\nfor = \"1 of 1\"\nthen = \"kill worker\""
        ))
    }

    /// Lays a release down.
    pub(super) fn release(&self, number: u32, how: Release) {
        let application = include_str!("../app/night.ru");
        let text = match how {
            Release::Good => format!("STATUS = 200\n{application}"),
            Release::Slow => format!("sleep 3\nSTATUS = 200\n{application}"),
            Release::Wrong => format!("STATUS = 500\n{application}"),
            Release::Raising => "raise 'boom'\n".to_owned(),
        };
        let dir = self.release_dir(number);
        fs::create_dir_all(&dir).expect("mkdir");
        fs::write(dir.join("config.ru"), text).expect("write");
        own(&dir);
    }

    pub(super) fn release_dir(&self, number: u32) -> PathBuf {
        self.dir.join(format!("releases/{number}"))
    }

    /// Points `current` at a release, in one step.
    pub(super) fn point_at(&self, number: u32) {
        let next = self.dir.join("next");
        symlink(format!("releases/{number}"), &next).expect("link");
        fs::rename(&next, self.dir.join("current")).expect("rename");
    }

    /// The release that `current` leads to.
    pub(super) fn current(&self) -> PathBuf {
        fs::canonicalize(self.dir.join("current")).unwrap_or_default()
    }

    /// Tells Puma something, as deploy.
    pub(super) fn pumactl(&self, command: &str) {
        let state = self.dir.join("run/puma.state");
        let told = Command::new("setpriv")
            .args(["--reuid=1500", "--regid=1500", "--init-groups", "pumactl", "-S"])
            .arg(state)
            .arg(command)
            .current_dir(self.dir.join("current"))
            .output();
        assert!(
            told.is_ok_and(|output| output.status.success()),
            "{}: pumactl {command}",
            self.name
        );
    }

    /// Asks for a page; waits for the answer no longer than this.
    pub(super) fn ask(&self, path: &str, limit: Duration) -> Answer {
        let Some(answer) = self.whole_answer(path, limit) else { return Answer::Lost };
        if answer.split(' ').nth(1) == Some("200") { Answer::Good } else { Answer::Wrong }
    }

    fn whole_answer(&self, path: &str, limit: Duration) -> Option<String> {
        let at = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut stream = TcpStream::connect_timeout(&at, limit).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: night\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.ends_with("\r\n\r\nok").then_some(answer)
    }

    /// What Puma wrote.
    pub(super) fn output(&self) -> String {
        fs::read_to_string(self.dir.join("run/out")).unwrap_or_default()
    }
}

/// `CLOCK_MONOTONIC` in ms: the clock of the fixture's log too.
pub(super) fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is a clock");
    u64::try_from(Duration::from(time).as_millis()).expect("not that late")
}
