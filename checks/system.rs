//! `type = "system"`.

use std::time::Duration;

use crate::checks::given::Key;
use crate::checks::{CheckType, Files, Probe, Unsaid};
use crate::model::metric::Metric;
use crate::model::observation::Observation;
use crate::model::time::Now;

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::Age],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(5),
    read: |_| Ok(Probe::Files(Files::System(Settings {}))),
};

const KEYS: [Key; 0] = [];

/// What to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {}

/// What a look leaves for the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Past {}

/// Looks once.
#[must_use]
pub fn look(_settings: &Settings, _past: Option<Past>, _now: Now) -> (Observation, Option<Past>) {
    (Observation::ok(), None)
}
