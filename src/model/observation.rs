//! What one probe saw.

use std::time::Duration;

use crate::model::metric::{Metric, Reading, Value};
use crate::model::text::Untrusted;

/// What one probe of one check saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    /// Whether the target behaved.
    pub outcome: Outcome,
    /// What a failure is about.
    pub failed_by: FailedBy,
    /// The metrics it measured. A metric that has no value yet (a rate on its first sample) is not in it.
    pub metrics: Vec<(Metric, Reading)>,
    /// How long the probe took.
    pub took: Duration,
    /// Stands for everything that `changed` is about; the same number means the same thing. None where
    /// there is nothing to compare.
    pub fingerprint: Option<u64>,
    /// What was seen, in one line, for people.
    pub detail: Untrusted,
}

impl Observation {
    /// The target behaved.
    #[must_use]
    pub fn ok() -> Self {
        Self::of(Outcome::Ok)
    }

    /// The target misbehaved, in words.
    #[must_use]
    pub fn failed(why: &str) -> Self {
        Self::of(Outcome::Failed(Untrusted::from(why)))
    }

    /// It cannot be told, and why.
    #[must_use]
    pub fn unknown(why: &str) -> Self {
        Self::of(Outcome::Unknown(Untrusted::from(why)))
    }

    /// Nothing but an outcome.
    #[must_use]
    pub fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            failed_by: FailedBy::State,
            metrics: Vec::new(),
            took: Duration::ZERO,
            fingerprint: None,
            detail: Untrusted::default(),
        }
    }

    /// With the exact value of a metric.
    #[must_use]
    pub fn with(mut self, metric: Metric, value: Value) -> Self {
        self.metrics.push((metric, Reading::Exact(value)));
        self
    }

    /// What would have been seen without new lines.
    pub(super) fn without_lines(&self) -> Self {
        let mut quiet = self.clone();
        match quiet.failed_by {
            FailedBy::State => {}
            FailedBy::Lines => quiet.outcome = Outcome::Ok,
        }
        for (_, reading) in quiet.metrics.iter_mut().filter(|(name, _)| *name == Metric::Matches) {
            *reading = Reading::Exact(Value::Count(0));
        }
        quiet
    }

    /// The reading of a metric, if it has one.
    #[must_use]
    pub fn reading(&self, metric: &Metric) -> Option<Reading> {
        self.metrics.iter().find(|(name, _)| name == metric).map(|(_, reading)| *reading)
    }
}

/// What a failure is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailedBy {
    /// How things are: it lasts until they are mended.
    State,
    /// New lines of a file, and nothing else: they were written once.
    Lines,
}

/// Whether the target behaved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It did.
    Ok,
    /// It did not: refused, wrong answer, too late.
    Failed(Untrusted),
    /// heeler could not tell (no permission, pool full, probe crashed, heeler late). It alerts; it never acts.
    Unknown(Untrusted),
}

/// What a condition says about an observation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The condition does not hold: all is well.
    Pass,
    /// The condition holds.
    Fail,
    /// It cannot be told: a metric has no value, or the observation is Unknown.
    Unknown,
}
