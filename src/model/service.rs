//! A service definition: one file of conf.d, with every default filled in.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::check::Check;
use crate::model::ids::{GroupName, ServiceName};
use crate::model::mark::mark;
use crate::model::process::Signal;
use crate::model::puma::Puma;
use crate::model::unit::{Manager, Systemctl, Unit, UnitMain};
use crate::model::workers::Workers;

/// One service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Whose it is: commands run as this user and the process must belong to it. `None`: the user
    /// heeler itself runs as.
    pub user: Option<Box<str>>,
    /// Another group than the user's primary one.
    pub group: Option<Box<str>>,
    /// By which it can be named together with others.
    pub groups: Vec<GroupName>,
    /// How its main process is known, if it has one.
    pub life: Life,
    /// How it is started, where a command does it (never with [`Life::Run`]).
    pub start: Option<Command>,
    /// How it is stopped; the signal ladder where absent.
    pub stop: Option<Command>,
    /// How it is restarted in one go; stop and start where absent.
    pub restart: Option<Command>,
    /// How it takes up its configuration or its new code without a stop.
    pub reload: Option<Reload>,
    /// The first signal of the ladder.
    pub stop_signal: Signal,
    /// Added to the environment of its commands.
    pub env: Vec<(Box<str>, Box<str>)>,
    /// A file of `NAME=value` lines, opened as the user.
    pub env_file: Option<PathBuf>,
    /// Where its commands run; the user's home where absent.
    pub cwd: Option<PathBuf>,
    /// How often it is looked at; an exit is noticed at once whatever this says.
    pub every: Duration,
    /// Who is told.
    pub alert: Vec<Box<str>>,
    /// Who else may command it.
    pub allow: Vec<Grant>,
    /// Whether actions are done or only reported.
    pub mode: Mode,
    /// How long a start may take until the process is there.
    pub start_timeout: Duration,
    /// How long a stop may take until KILL.
    pub stop_timeout: Duration,
    /// After a new main process: checks run, actions are held.
    pub start_period: Duration,
    /// After an orderly exit: how long a successor is waited for.
    pub exit_delay: Duration,
    /// How many automatic starts are normal.
    pub start_limit: StartLimit,
    /// What follows when they are used up.
    pub backoff: Backoff,
    /// Services it needs: while one is down or in trouble nothing is done about this one.
    pub depends_on: Vec<ServiceName>,
    /// Whether it is restarted when one of them was.
    pub restart_with: Together,
    /// How long its first start after a boot waits.
    pub start_delay: Duration,
    /// What a boot means for it.
    pub on_boot: OnBoot,
    /// How often an open incident is told again.
    pub remind: Duration,
    /// What its workers are, where it has any that matter.
    pub workers: Option<Workers>,
    /// That it is a Puma, and how that can be asked.
    pub puma: Option<Puma>,
    /// Its checks, in the order of the file.
    pub checks: Vec<Check>,
}

impl Service {
    /// Whether heeler knows how to start it.
    #[must_use]
    pub fn startable(&self) -> bool {
        self.start.is_some() || matches!(self.life, Life::Run(_))
    }

    /// Whether both find their main process in the same way.
    #[must_use]
    pub fn is_claimed_like(&self, other: &Self) -> bool {
        (&self.life, &self.user) == (&other.life, &other.user)
    }

    /// Whether both mean the same Puma, asked in the same way.
    #[must_use]
    pub fn is_asked_like(&self, other: &Self) -> bool {
        self.is_claimed_like(other) && self.puma == other.puma
    }

    /// A number that stands for what says which process is the main one, whatever the service is called:
    /// a file that got another name is known again by it.
    #[must_use]
    pub fn claim_mark(&self) -> u64 {
        fn path(path: Option<&PathBuf>) -> &[u8] {
            path.map_or(b"", |path| path.as_os_str().as_encoded_bytes())
        }
        let mut parts = vec![self.user.as_deref().unwrap_or_default().as_bytes()];
        match &self.life {
            Life::Pidfile(pidfile) => parts.extend([&b"pidfile"[..], path(Some(pidfile))]),
            Life::Match(pattern) => parts.extend([&b"match"[..], pattern.as_bytes()]),
            Life::Unit(Unit { name, manager, main }) => {
                let manager = match manager {
                    Manager::User => &b"user"[..],
                    Manager::System => b"system",
                };
                parts.extend([&b"unit"[..], manager, name.as_bytes()]);
                match main {
                    UnitMain::Manager => {}
                    UnitMain::Pidfile(pidfile) => parts.push(path(Some(pidfile))),
                    UnitMain::Match(pattern) => parts.push(pattern.as_bytes()),
                }
            }
            Life::Run(command) => {
                // The same program in another directory or with other variables is another service.
                let cwd = command.cwd.as_ref().or(self.cwd.as_ref());
                parts.extend([&b"run"[..], path(cwd), path(self.env_file.as_ref())]);
                parts.extend(command.argv.iter().map(|word| word.as_bytes()));
                for (name, value) in self.env.iter().chain(&command.env) {
                    parts.extend([&b"env"[..], name.as_bytes(), value.as_bytes()]);
                }
            }
            Life::Nothing => {
                let checks = self.checks.iter();
                parts.extend(
                    checks.flat_map(|check| [check.kind.name().as_bytes(), check.label.as_bytes()]),
                );
            }
        }
        mark(parts)
    }
}

/// How the main process of a service is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Life {
    /// The pid in this file.
    Pidfile(PathBuf),
    /// The topmost process of the service's user whose title matches this regular expression.
    Match(Box<str>),
    /// A foreground program kept by a shim that outlives heeler.
    Run(Command),
    /// A unit of systemd.
    Unit(Unit),
    /// There is none: only its checks matter (a disk, a page of somebody else's, a machine).
    Nothing,
}

/// How a service is reloaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reload {
    /// By a command.
    Command(Command),
    /// By a signal to its main process.
    Signal(Signal),
}

/// A command, as argv. There is no shell in it unless it was asked for, and then it is in `argv`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The program and its arguments; at least one, none with a NUL.
    pub argv: Vec<Box<str>>,
    /// Its own deadline; the service's `start_timeout` or `stop_timeout` where absent.
    pub timeout: Option<Duration>,
    /// Added to the service's `env`.
    pub env: Vec<(Box<str>, Box<str>)>,
    /// Its own directory.
    pub cwd: Option<PathBuf>,
    /// The call of systemctl that it is, where a unit gives it: that is asked in an environment of its own.
    pub systemctl: Option<Systemctl>,
}

impl Command {
    /// A call of systemctl.
    #[must_use]
    pub fn systemctl(call: Systemctl) -> Self {
        let argv = call.argv();
        Self { argv, timeout: None, env: Vec::new(), cwd: Some("/".into()), systemctl: Some(call) }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(call) = &self.systemctl {
            return call.fmt(f);
        }
        let plain = |arg: &str| {
            !arg.is_empty()
                && arg.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c))
        };
        for (n, arg) in self.argv.iter().enumerate() {
            let gap = if n == 0 { "" } else { " " };
            if plain(arg) {
                write!(f, "{gap}{arg}")?;
            } else {
                write!(f, "{gap}'{}'", crate::model::text::escape(arg).replace('\'', "'\\''"))?;
            }
        }
        Ok(())
    }
}

/// `5 per 10m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartLimit {
    /// Automatic starts and restarts; at least 1.
    pub starts: u32,
    /// In any window of this length.
    pub window: Duration,
}

impl fmt::Display for StartLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.starts, crate::model::units::show_duration(self.window))
    }
}

/// `30s to 30m`: doubles from the first to the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest.
    pub last: Duration,
}

/// What heeler does with its decisions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It acts.
    Active,
    /// Checks run, actions are only reported.
    Observe,
}

/// Whether a service is restarted with those it needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Together {
    /// It goes on; it reconnects by itself.
    No,
    /// It is.
    Yes,
}

/// What is wanted of a service after the machine was booted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnBoot {
    /// Up, whatever was wanted before.
    Start,
    /// Nothing, until somebody brings it up; from then on it is watched.
    Leave,
    /// What was wanted before.
    Last,
}

/// One entry of `allow`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// To whom.
    pub to: Grantee,
    /// What.
    pub rights: Vec<Right>,
}

/// A user or, written `%name`, a group.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the thing of its name")]
pub enum Grantee {
    User(Box<str>),
    Group(Box<str>),
}

/// One thing a person may do with a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum Right {
    Status,
    Start,
    Stop,
    Restart,
    Reload,
    Monitor,
    Unmonitor,
}

impl Right {
    /// Every right; what `"all"` grants.
    pub const ALL: [Self; 7] = [
        Self::Status,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Reload,
        Self::Monitor,
        Self::Unmonitor,
    ];
    /// What a service's own user may always do.
    pub const OWNER: [Self; 3] = [Self::Status, Self::Restart, Self::Reload];

    /// The word in `allow`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Monitor => "monitor",
            Self::Unmonitor => "unmonitor",
        }
    }
}
