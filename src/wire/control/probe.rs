//! What checks saw that were run once, for a person.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::model::check::Check;
use crate::model::ids::ServiceName;
use crate::model::metric::{Metric, Reading};
use crate::model::observation::{Observation, Outcome, Verdict};
use crate::wire::control::VERSION;

/// What the checks of a service see now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// [`VERSION`] of the keeper.
    pub version: u32,
    /// Which service.
    pub service: String,
    /// In the order of its file.
    pub checks: Vec<ProbedCheck>,
}

impl ProbeAnswer {
    /// Of this version.
    #[must_use]
    pub fn new(service: &ServiceName, checks: Vec<ProbedCheck>) -> Self {
        Self { version: VERSION, service: service.to_string(), checks }
    }
}

/// What one check saw.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProbedCheck {
    /// Its number in its file, from 1.
    pub number: u32,
    /// Its label.
    pub label: String,
    /// Its type.
    pub check_type: String,
    /// What its condition says.
    pub verdict: ProbeVerdict,
    /// The condition with the values that were seen.
    pub text: String,
    /// ok, failed, unknown: how the target behaved, whatever the condition makes of it.
    pub outcome: String,
    /// Why, where it is not ok.
    pub why: Option<String>,
    /// What was seen, in one line.
    pub detail: Option<String>,
    /// All that was measured.
    #[serde(default)]
    pub metrics: Vec<Measured>,
    /// How long it took; a look at the process takes no time of its own.
    pub took_ms: u64,
}

/// One number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The word in a condition.
    pub metric: String,
    /// With its unit.
    pub value: String,
}

/// What a condition says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeVerdict {
    /// It does not hold: all is well.
    Pass,
    /// It holds.
    Fail,
    /// It cannot be told.
    Unknown,
    /// A word of a newer keeper.
    #[serde(other)]
    Other,
}

impl ProbeVerdict {
    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
            Self::Other => "other",
        }
    }
}

impl ProbedCheck {
    /// The wire's form of what was seen.
    #[must_use]
    pub fn new(check: &Check, seen: &Observation, verdict: Verdict) -> Self {
        let (outcome, why) = match &seen.outcome {
            Outcome::Ok => ("ok", None),
            Outcome::Failed(why) => ("failed", Some(why.to_string())),
            Outcome::Unknown(why) => ("unknown", Some(why.to_string())),
        };
        let metric = |(metric, reading): &(Metric, Reading)| Measured {
            metric: metric.name().to_owned(),
            value: reading.to_string(),
        };
        Self {
            number: u32::from(check.index.0) + 1,
            label: check.label.to_string(),
            check_type: check.kind.name().to_owned(),
            verdict: match verdict {
                Verdict::Pass => ProbeVerdict::Pass,
                Verdict::Fail => ProbeVerdict::Fail,
                Verdict::Unknown => ProbeVerdict::Unknown,
            },
            text: check.condition.explain(seen),
            outcome: outcome.to_owned(),
            why,
            detail: Some(seen.detail.to_string()).filter(|detail| !detail.is_empty()),
            metrics: seen.metrics.iter().map(metric).collect(),
            took_ms: u64::try_from(seen.took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
