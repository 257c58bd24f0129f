//! A service as it stands, in words.

use crate::engine::state::{Clearing, OpenIncident, Stage, State, ago};
use crate::model::check::CheckKind;
use crate::model::incident::Cause;
use crate::model::intent::Desired;
use crate::model::job::JobKind;
use crate::model::memory::Acquaintance;
use crate::model::service::Life;
use crate::model::status::{CheckStatus, Health, RuleState, Status};
use crate::model::time::Now;
use crate::model::tolerance::Tolerance;
use crate::model::units::show_duration;

impl State {
    pub(super) fn status(&self, now: Now) -> Status {
        let wrong: Vec<_> = self
            .wrong()
            .map(|open| {
                format!("{} (since {})", open.record.title, ago(now.wall, open.record.opened))
            })
            .collect();
        Status {
            service: self.def.name.clone(),
            groups: self.def.groups.clone(),
            intent: self.intent.clone(),
            phase: self.phase(),
            main: self.main,
            words: self.words(now),
            since: self.since.wall,
            health: self.health(),
            wrong,
            checks: self.check_statuses(),
        }
    }

    fn words(&self, now: Now) -> String {
        let mono = now.mono;
        match (&self.stage, self.intent.desired, self.main) {
            (Stage::Watching, Desired::Up, _) if self.def.life == Life::Nothing => {
                "watched".to_owned()
            }
            (Stage::Watching, Desired::Unmonitored, _) if self.def.life == Life::Nothing => {
                format!("not monitored (by {})", self.intent.by)
            }
            (Stage::Watching, Desired::Up, Some(_)) => match self.held_back() {
                Some(why) => format!("up, held back: {why}"),
                None => "up".to_owned(),
            },
            (Stage::Watching, Desired::Up, None)
                if self.recalled.is_some() || self.asked.identify.is_some() =>
            {
                "being looked for".to_owned()
            }
            (Stage::Watching, Desired::Up, None) if self.acquaintance == Acquaintance::Left => {
                "down, left so since boot (on_boot = \"leave\")".to_owned()
            }
            (Stage::Watching, Desired::Up, None) => match self.held_back() {
                Some(why) => format!("down, held back: {why}"),
                None => "down".to_owned(),
            },
            (Stage::Watching, Desired::Down, None) => format!("stopped by {}", self.intent.by),
            (Stage::Watching, Desired::Down, Some(_)) => {
                format!("up, but stopped by {}", self.intent.by)
            }
            (Stage::Watching, Desired::Unmonitored, main) => {
                let is = if main.is_some() { "up" } else { "down" };
                format!("{is}, not monitored (by {})", self.intent.by)
            }
            (Stage::Clearing(clearing), _, _) if clearing.successor_until.is_some() => {
                "down, waiting for a successor".to_owned()
            }
            (Stage::Clearing(Clearing { absence: Some((absence, _)), .. }), _, _)
                if absence.is_in_hand() =>
            {
                "down, in the hands of its manager".to_owned()
            }
            (Stage::Clearing(clearing), _, _) if !clearing.survivors.is_empty() => {
                let pids: Vec<_> =
                    clearing.survivors.iter().map(|left| left.identity.to_string()).collect();
                format!("clearing up: waiting for {}", pids.join(", "))
            }
            (Stage::Clearing(_), _, _) => "clearing up".to_owned(),
            (Stage::Starting(starting), _, _) if starting.kind == JobKind::Reload => {
                format!("up, reloading, {} left", show_duration(starting.deadline.since(mono)))
            }
            (Stage::Starting(starting), _, _) => {
                format!("starting, {} left", show_duration(starting.deadline.since(mono)))
            }
            (Stage::StartPeriod { until }, _, _) => {
                format!("up, start period {}", show_duration(until.since(mono)))
            }
            (Stage::Stopping { kill_at, .. }, _, _) => {
                format!("stopping, KILL in {}", show_duration(kill_at.since(mono)))
            }
            (Stage::Killing { .. }, _, _) => "does not die".to_owned(),
            (Stage::Backoff { until }, _, _) => {
                format!("down, next start in {}", show_duration(until.since(mono)))
            }
        }
    }

    /// What is open and counts.
    fn wrong(&self) -> impl Iterator<Item = &OpenIncident> {
        let counts = |open: &&OpenIncident| match open.record.cause {
            Cause::SetAside => false,
            // Up for a moment between two deaths is not well.
            Cause::Down if self.limit.restless() => true,
            Cause::Down
            | Cause::UpUnwanted
            | Cause::Unclear
            | Cause::Unkillable
            | Cause::Definition
            | Cause::Check(..)
            | Cause::CheckUnknown(..)
            | Cause::Hazard(_)
            | Cause::StuckWorker => open.settles_at.is_none(),
        };
        self.open.values().map(AsRef::as_ref).filter(counts)
    }

    pub(super) fn health(&self) -> Health {
        let wrong = self.wrong().next().is_some();
        match (self.intent.desired, self.main, &self.stage) {
            (Desired::Up, None, _) if self.def.life == Life::Nothing => {
                if wrong {
                    Health::Wanting
                } else {
                    Health::Good
                }
            }
            (Desired::Up, None, _) => Health::Down,
            (Desired::Up, Some(_), Stage::Watching | Stage::StartPeriod { .. }) if !wrong => {
                Health::Good
            }
            (Desired::Up, Some(_), _) => Health::Wanting,
            (Desired::Down | Desired::Unmonitored, _, _) if wrong => Health::Wanting,
            (Desired::Down | Desired::Unmonitored, _, _) => Health::SetAside,
        }
    }

    fn check_statuses(&self) -> Vec<CheckStatus> {
        let pairs = self.def.checks.iter().zip(&self.checks);
        pairs
            .map(|(check, state)| {
                let mut text = match &state.last {
                    Some(seen) => check.condition.explain(seen),
                    None => check.condition.to_string(),
                };
                let rule = if check.kind == CheckKind::Worker {
                    self.crew.rule_state(usize::from(check.index.0))
                } else {
                    state.window.state()
                };
                // Which worker is how far would be another sentence: `heeler workers` shows them.
                if rule == RuleState::Pending && check.kind != CheckKind::Worker {
                    text.push_str(&match check.tolerance {
                        Tolerance::Times { .. } => {
                            let (bad, of) = state.window.progress();
                            format!(", {bad} of {of} so far, {} fires", check.tolerance)
                        }
                        Tolerance::Lasting(_) => format!(", not yet {}", check.tolerance),
                    });
                }
                CheckStatus { label: check.label.clone(), state: rule, text }
            })
            .collect()
    }
}
