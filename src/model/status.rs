//! What is known about a service now: what `heeler status` shows.

use std::fmt;

use crate::model::ids::{GroupName, ServiceName};
use crate::model::intent::{Desired, Intent};
use crate::model::process::ProcessIdentity;
use crate::model::time::Wall;

/// What heeler is doing with a service now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Nothing but looking.
    Watching,
    /// The main process is gone; what it left behind is waited for.
    Clearing,
    /// A start is under way.
    Starting,
    /// It is there and may need a while: checks run, actions are held.
    StartPeriod,
    /// It was told to go.
    Stopping,
    /// KILL was sent.
    Killing,
    /// Its reload is under way.
    Reloading,
    /// Started too often; the next try waits.
    Backoff,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 8] = [
        Self::Watching,
        Self::Clearing,
        Self::Starting,
        Self::StartPeriod,
        Self::Stopping,
        Self::Killing,
        Self::Reloading,
        Self::Backoff,
    ];

    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Watching => "watching",
            Self::Clearing => "clearing",
            Self::Starting => "starting",
            Self::StartPeriod => "start period",
            Self::Stopping => "stopping",
            Self::Killing => "killing",
            Self::Reloading => "reloading",
            Self::Backoff => "backoff",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A service as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Its name.
    pub service: ServiceName,
    /// Its groups.
    pub groups: Vec<GroupName>,
    /// What is wanted.
    pub intent: Intent,
    /// What heeler is doing.
    pub phase: Phase,
    /// Its main process, when there is one.
    pub main: Option<ProcessIdentity>,
    /// The state in words: `up`, `down (stopped by root)`, `starting`, `up, but: ...`.
    pub words: String,
    /// Since when it is in that state.
    pub since: Wall,
    /// What is wrong, with values; empty when nothing is.
    pub wrong: Vec<String>,
    /// Its checks.
    pub checks: Vec<CheckStatus>,
    /// Overall.
    pub health: Health,
}

/// Overall, for exit codes and colour.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Health {
    /// As wanted, and no check fires.
    Good,
    /// Something is wrong or under way.
    Wanting,
    /// Wanted up and not there.
    Down,
    /// Nobody wants to know: stopped or unmonitored.
    SetAside,
}

impl Health {
    /// The health of a wish that is fulfilled.
    #[must_use]
    pub fn of_rest(desired: Desired) -> Self {
        match desired {
            Desired::Up => Self::Good,
            Desired::Down | Desired::Unmonitored => Self::SetAside,
        }
    }
}

/// A check as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckStatus {
    /// Its label.
    pub label: Box<str>,
    /// ok, pending, firing, unknown, or not judged yet.
    pub state: RuleState,
    /// The condition with its last values.
    pub text: String,
}

/// The state of a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the words of the plan")]
pub enum RuleState {
    Ok,
    Pending,
    Firing,
}

impl RuleState {
    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}
