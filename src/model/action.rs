//! What a check's `then` may ask for.

use std::fmt;

use crate::model::service::Command;

/// One thing to do when a check fires or resolves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Tell.
    Alert,
    /// Start if it is down.
    Start,
    /// Stop, and keep it down until an operator says otherwise.
    Stop,
    /// Stop, proof of death, start.
    Restart,
    /// Have it take up its configuration or its new code without a stop.
    Reload,
    /// Tell the worker to go, and wait.
    RecycleWorker,
    /// Tell the worker to go, and kill it when its time is over.
    KillWorker,
    /// Run a command, once per firing.
    Exec(Command),
    /// Stop watching, and say so until an operator ends it.
    Unmonitor,
}

impl Action {
    /// Whether the service is not wanted up any more after it.
    #[must_use]
    pub fn sets_aside(&self) -> bool {
        match self {
            Self::Stop | Self::Unmonitor => true,
            Self::Alert
            | Self::Start
            | Self::Restart
            | Self::Reload
            | Self::RecycleWorker
            | Self::KillWorker
            | Self::Exec(_) => false,
        }
    }

    /// Whether it is repeated while the check stays firing.
    #[must_use]
    pub fn repeats(&self) -> bool {
        match self {
            Self::Start | Self::Restart | Self::Reload | Self::RecycleWorker | Self::KillWorker => {
                true
            }
            Self::Alert | Self::Stop | Self::Exec(_) | Self::Unmonitor => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert => f.write_str("alert"),
            Self::Start => f.write_str("start"),
            Self::Stop => f.write_str("stop"),
            Self::Restart => f.write_str("restart"),
            Self::Reload => f.write_str("reload"),
            Self::RecycleWorker => f.write_str("recycle worker"),
            Self::KillWorker => f.write_str("kill worker"),
            Self::Exec(command) => write!(f, "exec {command}"),
            Self::Unmonitor => f.write_str("unmonitor"),
        }
    }
}
