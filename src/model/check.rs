//! A check definition: type, `if / for / then`.

use std::time::Duration;

use crate::model::action::Action;
use crate::model::condition::Condition;
use crate::model::ids::CheckIndex;
use crate::model::tolerance::Tolerance;

/// One `[[check]]`, as the engine needs it. What the probe itself needs stays with the probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Its place in the file.
    pub index: CheckIndex,
    /// Its `name`, or its type and condition.
    pub label: Box<str>,
    /// Which type judges it.
    pub kind: CheckKind,
    /// The `if`.
    pub condition: Condition,
    /// The `for`.
    pub tolerance: Tolerance,
    /// The `recover`: as many good verdicts resolve it.
    pub recover: Tolerance,
    /// The `then`.
    pub then: Vec<Action>,
    /// The `else`: what to do on recovery.
    pub on_recovery: Vec<Action>,
    /// How often it is probed; a multiple of nothing, rounded to the schedule's slots.
    pub every: Duration,
    /// `repeat`: how often alert and exec happen again while it stays firing.
    pub repeat: Option<Duration>,
}

/// The types of checks. Each is one file under `checks/`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CheckKind {
    /// `checks/process.rs`: the metrics of the main process, from the sample the keeper takes once.
    Process,
}

impl CheckKind {
    /// Every type.
    pub const ALL: [Self; 1] = [Self::Process];

    /// The word in `type = "..."`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
        }
    }
}
