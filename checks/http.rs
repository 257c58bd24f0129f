//! `type = "http"`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checks::connect::Tools;
use crate::checks::given::Key;
use crate::checks::{CheckType, Network, Probe, Unsaid};
use crate::model::metric::Metric;
use crate::model::observation::Observation;

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::ResponseTime],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(10),
    read: |_| Ok(Probe::Network(Network::Http(Settings {}))),
};

const KEYS: [Key; 0] = [];

/// What to probe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {}

/// Probes once.
pub async fn probe(_settings: &Settings, _tools: &Tools) -> Observation {
    Observation::ok()
}
