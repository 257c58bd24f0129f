//! `type = "directory"`.

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
    read: |_| Ok(Probe::Files(Files::Directory(Settings {}))),
};

const KEYS: [Key; 0] = [];

/// What to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {}

/// Looks once.
#[must_use]
pub fn look(_settings: &Settings, _now: Now) -> Observation {
    Observation::ok()
}
