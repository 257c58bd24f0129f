//! What one probe saw.

use std::time::Duration;

use crate::model::metric::{Metric, Reading};
use crate::model::text::Untrusted;

/// What one probe of one check saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    /// Whether the target behaved.
    pub outcome: Outcome,
    /// The metrics it measured. A metric that has no value yet (a rate on its first sample) is not in it.
    pub metrics: Vec<(Metric, Reading)>,
    /// How long the probe took.
    pub took: Duration,
}

impl Observation {
    /// The reading of a metric, if it has one.
    #[must_use]
    pub fn reading(&self, metric: Metric) -> Option<Reading> {
        self.metrics.iter().find(|(name, _)| *name == metric).map(|(_, reading)| *reading)
    }
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
