//! What an operator may ask, and the answer.

use crate::model::process::Pid;
use crate::model::service::Right;

/// A command to one service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum Order {
    Start,
    Stop,
    Restart,
    Reload,
    Monitor,
    Unmonitor,
}

impl Order {
    /// Every order.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::Stop, Self::Restart, Self::Reload, Self::Monitor, Self::Unmonitor];

    /// The right it needs.
    #[must_use]
    pub fn right(self) -> Right {
        match self {
            Self::Start => Right::Start,
            Self::Stop => Right::Stop,
            Self::Restart => Right::Restart,
            Self::Reload => Right::Reload,
            Self::Monitor => Right::Monitor,
            Self::Unmonitor => Right::Unmonitor,
        }
    }

    /// The word on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.right().name()
    }
}

/// Which worker an operator wants gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkerPick {
    /// This one.
    Pid(Pid),
    /// The one that its master waits for in vain.
    Stuck,
}

/// The answer to an order: once, when it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Whether what was asked is so.
    pub result: ReplyResult,
    /// One sentence: what was done, how it ended, what to look at.
    pub text: String,
}

/// Whether what was asked is so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyResult {
    /// It is.
    Done,
    /// It is not.
    Failed,
}
