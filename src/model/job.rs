//! An action made concrete, and how it ended.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::ids::{ActionId, CheckIndex, ServiceName};
use crate::model::process::{Exit, Pid, ProcessIdentity};
use crate::model::puma::Secret;
use crate::model::service::Command;
use crate::model::text::Untrusted;
use crate::model::time::Mono;

/// One command to run as a user. It carries its own conditions; what runs it cannot widen it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// Which action.
    pub action: ActionId,
    /// Of which service.
    pub service: ServiceName,
    /// What for.
    pub kind: JobKind,
    /// What to execute.
    pub command: Command,
    /// As whom; `None` is the user heeler runs as.
    pub user: Option<Box<str>>,
    /// With another group than the primary one.
    pub group: Option<Box<str>>,
    /// Added to the built environment, in this order (later wins).
    pub env: Vec<(Box<str>, Box<str>)>,
    /// A file of more of it, opened as the user.
    pub env_file: Option<PathBuf>,
    /// The directory; the user's home where absent.
    pub cwd: Option<PathBuf>,
    /// When it has to have ended. [`Mono::NEVER`] for [`JobKind::Instance`].
    pub deadline: Mono,
    /// `HEELER_REASON`.
    pub reason: String,
    /// `HEELER_PID`: the main process before the action.
    pub main: Option<ProcessIdentity>,
    /// Who is ended at the deadline.
    pub at_deadline: AtDeadline,
    /// What it reads on stdin; nothing where absent. Neither in its command line nor in any record.
    pub input: Option<Secret>,
}

/// What a job is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobKind {
    /// The service's `start`.
    Start,
    /// The service's `stop`.
    Stop,
    /// The service's `restart`.
    Restart,
    /// The service's `reload`.
    Reload,
    /// The foreground program of `run`, kept for its whole life.
    Instance,
    /// A check's `exec`.
    Exec,
    /// The question to a manager how a unit stands: it acts on nothing, and waits for no action.
    Look,
    /// heeler's own question to the service's Puma.
    Ask,
    /// The program of a check: it acts on nothing, and waits for no action.
    Probe(CheckIndex),
}

impl JobKind {
    /// Every kind of action; looks, questions and probes are none.
    pub const ACTIONS: [Self; 6] =
        [Self::Start, Self::Stop, Self::Restart, Self::Reload, Self::Instance, Self::Exec];

    /// The word in records and in `HEELER_ACTION`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Instance => "run",
            Self::Exec => "exec",
            Self::Look => "look",
            Self::Ask => "ask",
            Self::Probe(_) => "probe",
        }
    }

    /// Whether its command brings the service up, and may return before that is there.
    #[must_use]
    pub fn brings_up(self) -> bool {
        match self {
            Self::Start | Self::Restart => true,
            Self::Stop
            | Self::Reload
            | Self::Instance
            | Self::Exec
            | Self::Look
            | Self::Ask
            | Self::Probe(_) => false,
        }
    }
}

/// Who is ended when a job is still running at its deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtDeadline {
    /// The shim's direct child only: what it started may be the service, coming up late.
    DirectChild,
    /// The whole process group.
    Group,
}

/// How a job ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// How.
    pub ended: Ended,
    /// What it printed.
    pub output: Output,
    /// How long it took.
    pub took: Duration,
}

/// The ways a job can end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The command ended.
    Exited(Exit),
    /// It was still running at its deadline and was ended.
    TimedOut,
    /// Nothing was executed: which step failed, why, and what to do.
    NotExecuted {
        /// The step, in words: `find the user`, `change directory`, `execute`.
        stage: Box<str>,
        /// The cause with its remedy.
        error: Untrusted,
    },
    /// The command was about to be executed or was, and its shim was lost before it could say more.
    Lost,
}

impl Ended {
    /// Whether the command ended with code 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self, Self::Exited(Exit::Code(0)))
    }

    /// Whether it is known to have failed. A lost one may have succeeded, and what it started may be on
    /// its way.
    #[must_use]
    pub fn failed(&self) -> bool {
        match self {
            Self::Exited(exit) => *exit != Exit::Code(0),
            Self::TimedOut | Self::NotExecuted { .. } => true,
            Self::Lost => false,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(exit) => exit.fmt(f),
            Self::TimedOut => f.write_str("was still running at its deadline and was ended"),
            Self::NotExecuted { stage, error } => {
                write!(f, "was not executed: failed to {stage}: {error}")
            }
            Self::Lost => f.write_str("was lost: its shim ended without a word"),
        }
    }
}

/// The beginning and the end of what a command printed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Output {
    /// Its first bytes.
    pub head: Untrusted,
    /// Its last bytes, where there is more than the head.
    pub tail: Untrusted,
    /// How many bytes between them were dropped.
    pub dropped_bytes: u64,
}

impl Output {
    /// The escaped lines, with a line that says what was dropped.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.head.lines();
        if self.dropped_bytes > 0 {
            lines.push(format!("[... {} bytes not kept ...]", self.dropped_bytes));
        }
        lines.extend(self.tail.lines());
        lines
    }

    /// The last line that says something.
    #[must_use]
    pub fn last_line(&self) -> Option<String> {
        self.lines().into_iter().rev().find(|line| !line.trim().is_empty())
    }
}

/// What an earlier keeper left in flight for a service, as its records in run_dir and the locks say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InFlight {
    /// Nothing.
    Nothing,
    /// A job that still runs (its lock is held); its end will be reported as any other's.
    Job {
        /// Which action.
        action: ActionId,
        /// What for.
        kind: JobKind,
        /// When it has to have ended.
        deadline: Mono,
        /// The main process before it.
        before: Option<ProcessIdentity>,
    },
    /// A stop ladder: this process was told to go and is to be killed then.
    Ladder(Ladder),
}

/// The stop ladder's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ladder {
    /// Who was told to go.
    pub identity: ProcessIdentity,
    /// When KILL is due.
    pub kill_at: Mono,
}

impl Job {
    /// The pid for `HEELER_PID`.
    #[must_use]
    pub fn main_pid(&self) -> Option<Pid> {
        self.main.map(|identity| identity.pid)
    }
}
