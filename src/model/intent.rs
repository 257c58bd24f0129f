//! What is wanted of a service, by whom, since when.

use std::fmt;

use crate::model::process::{Pid, Uid};
use crate::model::time::Wall;

/// What is wanted. Changed only by an operator or by a rule that says `stop` or `unmonitor`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Desired {
    /// Kept running.
    Up,
    /// Kept down: not started, and reported when found up.
    Down,
    /// Left alone: checks do not act.
    Unmonitored,
}

/// A wish, kept with who and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Intent {
    /// What.
    pub desired: Desired,
    /// By whom.
    pub by: Who,
    /// When.
    pub at: Wall,
}

/// Who asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    /// The configuration: a service in conf.d is wanted up.
    Config,
    /// A person, by the control socket.
    Operator {
        /// The credentials the kernel told.
        uid: Uid,
        /// The client's process.
        pid: Pid,
    },
    /// A rule, by its label.
    Rule(Box<str>),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str("the configuration"),
            Self::Operator { uid: Uid(0), pid } => write!(f, "root (pid {pid})"),
            Self::Operator { uid, pid } => write!(f, "uid {uid} (pid {pid})"),
            Self::Rule(label) => write!(f, "rule {label}"),
        }
    }
}
