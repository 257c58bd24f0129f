//! The types of checks: one file each, registered by one line in [`of`]. See `checks/README.md`.
#![forbid(unsafe_code)]

pub mod process;

use crate::model::check::CheckKind;
use crate::model::condition::Condition;
use crate::model::metric::Metric;
use crate::model::observation::Observation;
use crate::model::sample::{Needs, ProcessSample};

/// Where a type of check runs, and what it offers there.
#[derive(Clone, Copy, Debug)]
pub enum CheckType {
    /// A pure look at the process sample that the keeper took once for all checks of the service.
    Sample {
        /// What its conditions may use.
        metrics: &'static [Metric],
        /// What has to be read for a condition.
        needs: fn(&Condition) -> Needs,
        /// What a sample shows, given the one before it.
        observe: fn(&ProcessSample, Option<&ProcessSample>, Needs) -> Observation,
    },
}

/// The type behind a word in `type = "..."`.
#[must_use]
pub fn of(kind: CheckKind) -> CheckType {
    match kind {
        CheckKind::Process => process::TYPE,
    }
}

impl CheckType {
    /// What its conditions may use.
    #[must_use]
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Self::Sample { metrics, .. } => metrics,
        }
    }
}
