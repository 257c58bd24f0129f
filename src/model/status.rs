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

/// How many services are how.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    good: u32,
    wanting: u32,
    down: u32,
    set_aside: u32,
}

impl Tally {
    /// One service is so now, and was so before.
    pub fn count(&mut self, now: Option<Health>, before: Option<Health>) {
        if let Some(before) = before {
            let of = self.of(before);
            *of = of.saturating_sub(1);
        }
        if let Some(now) = now {
            *self.of(now) += 1;
        }
    }

    fn of(&mut self, health: Health) -> &mut u32 {
        match health {
            Health::Good => &mut self.good,
            Health::Wanting => &mut self.wanting,
            Health::Down => &mut self.down,
            Health::SetAside => &mut self.set_aside,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { good, wanting, down, set_aside } = *self;
        let all = good + wanting + down + set_aside;
        write!(f, "{all} service{}", if all == 1 { "" } else { "s" })?;
        let parts = [
            (good, "as wanted"),
            (down, "down"),
            (wanting, "with trouble"),
            (set_aside, "stopped or not monitored"),
        ];
        let mut between = ": ";
        for (count, words) in parts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{between}{count} {words}")?;
            between = ", ";
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_follows_each_service_and_names_only_what_there_is() {
        let mut tally = Tally::default();
        assert_eq!(tally.to_string(), "0 services");
        tally.count(Some(Health::Down), None);
        assert_eq!(tally.to_string(), "1 service: 1 down");
        tally.count(Some(Health::Good), None);
        tally.count(Some(Health::SetAside), None);
        tally.count(Some(Health::Wanting), Some(Health::Down));
        let all = "3 services: 1 as wanted, 1 with trouble, 1 stopped or not monitored";
        assert_eq!(tally.to_string(), all);
        tally.count(None, Some(Health::Wanting));
        tally.count(Some(Health::Good), Some(Health::SetAside));
        assert_eq!(tally.to_string(), "2 services: 2 as wanted");
    }
}
