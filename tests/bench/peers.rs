//! The watchdogs: where each is, and how it is asked to watch the same services.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::rig::Ground;
use crate::server::Ports;

/// Who watches. What keeps its own children (runit, s6, supervisord) looks at nothing but their end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watchdog {
    Heeler,
    Monit,
    Runit,
    S6,
    Supervisord,
    /// No watchdog, but what the machine allows: a bare loop of pidfd, vfork and exec (helper.c); of workers,
    /// a bare loop that reads the same files.
    Limit,
}

/// What is watched about each service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// That its process is there.
    Existence,
    /// Also its cpu and memory.
    Conditions,
    /// That its process is there and a page answers.
    Page,
    /// That its process is there, and of each of its workers the memory and the age.
    Workers,
    /// The same as `Existence`, of a foreground program that heeler keeps itself.
    Run,
    /// Pages without a process, and so many more that accept and never answer.
    Pages { silent: usize },
    /// A process that is not there and that nobody starts.
    Definitions,
}

/// What a watchdog is asked to do.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) services: usize,
    pub(crate) watch: Watch,
    pub(crate) every: Duration,
    /// Sleeping processes that nobody watches.
    pub(crate) strangers: usize,
}

impl Setup {
    /// A look every second, and no strangers.
    pub(crate) fn new(services: usize, watch: Watch) -> Self {
        Self { services, watch, every: Duration::from_secs(1), strangers: 0 }
    }
}

/// Where a watchdog finds what it is to watch, and leaves what it writes.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) dir: &'a Path,
    pub(crate) disk: &'a Path,
    pub(crate) ports: Ports,
}

/// How long a page may take.
const TIMEOUT_S: u64 = 5;
const HEELER: &str = env!("CARGO_BIN_EXE_heeler");

impl Watchdog {
    pub(crate) const ALL: [Self; 6] =
        [Self::Heeler, Self::Monit, Self::Runit, Self::S6, Self::Supervisord, Self::Limit];
    pub(crate) const BOTH: [Self; 2] = [Self::Heeler, Self::Monit];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Heeler => "heeler",
            Self::Monit => "Monit",
            Self::Runit => "runit",
            Self::S6 => "s6",
            Self::Supervisord => "supervisord",
            Self::Limit => "limit",
        }
    }

    pub(crate) fn installed(self) -> bool {
        self == Self::Limit || self.program().is_some()
    }

    /// Where its program is, if it is installed. The limit has none of its own.
    pub(crate) fn program(self) -> Option<PathBuf> {
        let name = match self {
            Self::Heeler => return Some(HEELER.into()),
            Self::Limit => return None,
            Self::Monit => "monit",
            Self::Runit => "runsvdir",
            Self::S6 => "s6-svscan",
            Self::Supervisord => "supervisord",
        };
        let dirs = ["/usr/bin", "/usr/sbin", "/bin", "/usr/local/bin", "/usr/local/sbin"];
        dirs.into_iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
    }

    /// Its name and version.
    pub(crate) fn version(self) -> String {
        let said = |command: &mut Command| {
            let output = command.output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text.lines().next()?.trim_start_matches("This is ").to_owned();
            (!line.is_empty()).then_some(line)
        };
        let package =
            |name| said(Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]));
        let version = match self {
            Self::Heeler => return said(Command::new(HEELER).arg("--version")).unwrap_or_default(),
            Self::Monit => {
                let said = self.program().and_then(|path| said(Command::new(path).arg("-V")));
                return said.unwrap_or_else(|| "Monit".to_owned());
            }
            Self::Runit => package("runit"),
            Self::S6 => package("s6"),
            Self::Supervisord => package("supervisor"),
            Self::Limit => return "limit (a bare loop in C)".to_owned(),
        };
        format!("{} {}", self.name(), version.unwrap_or_else(|| "of unknown version".to_owned()))
    }

    /// Whether services are its own children, which it starts itself.
    pub(crate) fn keeps_children(self, watch: Watch) -> bool {
        match self {
            Self::Heeler => watch == Watch::Run,
            Self::Monit | Self::Limit => false,
            Self::Runit | Self::S6 | Self::Supervisord => true,
        }
    }

    /// Writes its configuration; the command that runs it in the foreground.
    pub(crate) fn configure(self, site: &Site<'_>, setup: &Setup) -> Vec<String> {
        let program = self.program().map(|path| path.display().to_string()).unwrap_or_default();
        match self {
            Self::Heeler => vec![program, "run".to_owned(), site.heeler(setup)],
            Self::Monit => vec![program, "-I".to_owned(), "-c".to_owned(), site.monit(setup)],
            Self::Runit => vec![program, "-P".to_owned(), site.run_scripts("chpst -u", setup)],
            Self::S6 => {
                let dir = site.run_scripts("s6-setuidgid", setup);
                vec![program, "-c".to_owned(), "3000".to_owned(), dir]
            }
            Self::Supervisord => {
                vec![program, "-n".to_owned(), "-c".to_owned(), site.supervisord(setup)]
            }
            Self::Limit if setup.watch == Watch::Workers => {
                let [helper, pids] = [site.ground.helper(), site.dir.join("pids")]
                    .map(|path| path.display().to_string());
                let (services, ms) = (setup.services.to_string(), setup.every.as_millis());
                vec![helper, "read".to_owned(), pids, services, ms.to_string()]
            }
            Self::Limit => {
                let (uid, gid) = (site.ground.uid.to_string(), site.ground.gid.to_string());
                let (log, pids) = (site.dir.join("starts"), site.dir.join("pids"));
                let [helper, log, pids] =
                    [site.ground.helper(), log, pids].map(|path| path.display().to_string());
                vec![helper, "limit".to_owned(), log, pids, setup.services.to_string(), uid, gid]
            }
        }
    }
}

impl Site<'_> {
    fn pidfile(&self, id: usize) -> PathBuf {
        self.dir.join(format!("pids/s{id}.pid"))
    }

    /// The command of a service: `svc` is its start program, `run` the service itself.
    fn command(&self, word: &str, id: usize) -> [String; 5] {
        let [helper, log, pidfile] =
            [self.ground.helper(), self.dir.join("starts"), self.pidfile(id)]
                .map(|path| path.display().to_string());
        [helper, word.to_owned(), log, pidfile, id.to_string()]
    }

    fn heeler(&self, setup: &Setup) -> String {
        let conf = self.disk.join("conf.d");
        fs::create_dir(&conf).expect("mkdir");
        let run = self.dir.join("run");
        let settings = format!(
            "state_dir = {:?}\nrun_dir = {run:?}\nsocket = {:?}\n[defaults]\nevery = \"{}ms\"\n\
             cwd = \"/\"\nstart_period = \"0s\"\nstart_limit = \"1000000 per 1h\"\n",
            self.disk.join("state"),
            run.join("sock"),
            setup.every.as_millis(),
        );
        fs::write(conf.join("heeler.toml"), settings).expect("write");
        let user = self.ground.user.as_ref();
        let user = user.map(|user| format!("user = {user:?}\n")).unwrap_or_default();
        let page = |port: u16, id: usize| {
            format!(
                "[[check]]\ntype = \"http\"\nurl = \"http://127.0.0.1:{port}/{id}\"\n\
                 timeout = \"{TIMEOUT_S}s\"\n"
            )
        };
        for id in 0..setup.services {
            let process = || {
                let (pidfile, start) = (self.pidfile(id), self.command("svc", id));
                format!("{user}pidfile = {pidfile:?}\nstart = {start:?}\n")
            };
            let text = match setup.watch {
                Watch::Existence => process(),
                Watch::Conditions => {
                    process() + "[[check]]\nif = \"cpu > 99%\"\n[[check]]\nif = \"rss > 4GiB\"\n"
                }
                Watch::Page => process() + &page(self.ports.pages, id),
                Watch::Workers => {
                    process()
                        + "[workers]\nmatch = \"^bench worker\"\n\
                           [[check]]\ntype = \"worker\"\nif = \"memory > 4GiB\"\n\
                           [[check]]\ntype = \"worker\"\nif = \"age > 300d\"\n"
                }
                Watch::Run => format!("{user}run = {:?}\n", self.command("run", id)),
                Watch::Pages { silent: _ } => page(self.ports.pages, id),
                Watch::Definitions => {
                    format!("{user}pidfile = {:?}\nmode = \"observe\"\n", self.pidfile(id))
                }
            };
            fs::write(conf.join(format!("s{id}.toml")), text).expect("write");
        }
        for id in 0..setup.watch.silent() {
            let text = page(self.ports.silent, id);
            fs::write(conf.join(format!("silent{id}.toml")), text).expect("write");
        }
        conf.display().to_string()
    }

    fn monit(&self, setup: &Setup) -> String {
        let mut text = format!("set daemon {}\n", setup.every.as_secs());
        for (what, file) in
            [("log", "log"), ("pidfile", "pid"), ("idfile", "id"), ("statefile", "state")]
        {
            let _never = writeln!(text, "set {what} {}", self.disk.join(file).display());
        }
        let socket = self.dir.join("sock");
        let _never = writeln!(text, "set httpd unixsocket {} allow bench:bench", socket.display());
        let user = match self.ground.user {
            Some(_) => format!(" as uid {} and gid {}", self.ground.uid, self.ground.gid),
            None => String::new(),
        };
        let page = |port: u16, id: usize| {
            format!(
                "  if failed host 127.0.0.1 port {port} protocol http request \"/{id}\" \
                 with timeout {TIMEOUT_S} seconds then alert\n"
            )
        };
        let host = |name: &str, id: usize, port: u16| {
            format!("check host {name}{id} with address 127.0.0.1\n{}", page(port, id))
        };
        for id in 0..setup.services {
            let pidfile = self.pidfile(id);
            let pidfile = pidfile.display();
            let process = || {
                format!(
                    "check process s{id} with pidfile {pidfile}\n  \
                     start program = \"{}\"{user}\n  \
                     stop program = \"/bin/sh -c 'kill -TERM $(cat {pidfile})'\"\n",
                    self.command("svc", id).join(" ")
                )
            };
            text += &match setup.watch {
                Watch::Existence | Watch::Workers | Watch::Run => process(),
                Watch::Conditions => {
                    process() + "  if cpu > 99% then alert\n  if memory > 4 GB then alert\n"
                }
                Watch::Page => process() + &page(self.ports.pages, id),
                Watch::Pages { silent: _ } => host("s", id, self.ports.pages),
                Watch::Definitions => {
                    format!("check process s{id} with pidfile {pidfile}\n  mode passive\n")
                }
            };
        }
        for id in 0..setup.watch.silent() {
            text += &host("silent", id, self.ports.silent);
        }
        let conf = self.disk.join("monitrc");
        fs::write(&conf, text).expect("write");
        fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).expect("chmod");
        conf.display().to_string()
    }

    /// The directories of runit and s6: a `run` each, that becomes its user by `drop`.
    fn run_scripts(&self, drop: &str, setup: &Setup) -> String {
        let all = self.disk.join("service");
        let user = self.ground.user.as_ref();
        let drop = user.map(|user| format!("{drop} {user} ")).unwrap_or_default();
        for id in 0..setup.services {
            let dir = all.join(format!("s{id}"));
            fs::create_dir_all(&dir).expect("mkdir");
            let run = dir.join("run");
            let text = format!("#!/bin/sh\nexec {drop}{}\n", self.command("run", id).join(" "));
            fs::write(&run, text).expect("write");
            fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        all.display().to_string()
    }

    fn supervisord(&self, setup: &Setup) -> String {
        let [log, pid] = ["log", "pid"].map(|name| self.disk.join(name).display().to_string());
        let mut text =
            format!("[supervisord]\nlogfile={log}\npidfile={pid}\nminfds=20000\nminprocs=0\n");
        let user = self.ground.user.as_ref();
        let user = user.map(|user| format!("user={user}\n")).unwrap_or_default();
        for id in 0..setup.services {
            let command = self.command("run", id).join(" ");
            let _never = write!(
                text,
                "[program:s{id}]\ncommand={command}\n{user}autorestart=true\nstartsecs=0\n\
                 stdout_logfile=NONE\nstderr_logfile=NONE\n"
            );
        }
        let conf = self.disk.join("supervisord.conf");
        fs::write(&conf, text).expect("write");
        conf.display().to_string()
    }
}

impl Watch {
    /// Pages that never answer.
    fn silent(self) -> usize {
        match self {
            Self::Pages { silent } => silent,
            Self::Existence
            | Self::Conditions
            | Self::Page
            | Self::Workers
            | Self::Run
            | Self::Definitions => 0,
        }
    }

    /// Whether the harness has to have the processes there.
    pub(crate) fn has_processes(self) -> bool {
        match self {
            Self::Existence | Self::Conditions | Self::Page | Self::Workers | Self::Run => true,
            Self::Pages { .. } | Self::Definitions => false,
        }
    }

    /// Whether pages are asked for.
    pub(crate) fn has_pages(self) -> bool {
        match self {
            Self::Page | Self::Pages { .. } => true,
            Self::Existence | Self::Conditions | Self::Workers | Self::Run | Self::Definitions => {
                false
            }
        }
    }

    /// How many workers each service has.
    pub(crate) fn workers(self) -> usize {
        match self {
            Self::Workers => 8,
            Self::Existence
            | Self::Conditions
            | Self::Page
            | Self::Run
            | Self::Pages { .. }
            | Self::Definitions => 0,
        }
    }
}
