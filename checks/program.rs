//! `type = "program"`.

use std::time::Duration;

use crate::checks::given::{Key, KeyKind, Wrong};
use crate::checks::{CheckType, Probe, Unsaid};
use crate::model::job::Outcome;
use crate::model::metric::Metric;
use crate::model::observation::Observation;
use crate::model::service::Command;

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::ExitCode, Metric::Perfdata("perfdata.".into())],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(30),
    read: |given| match given.command("command") {
        Some(command) => Ok(Probe::Command(Settings { command: command.clone() })),
        None => Err(vec![Wrong::new("command", "this check does not say which `command`", "")]),
    },
};

const KEYS: [Key; 1] = [Key {
    name: "command",
    kind: KeyKind::Command,
    example: "/usr/lib/nagios/plugins/check_load",
}];

/// What to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The program.
    pub command: Command,
}

/// What its end and its output mean.
#[must_use]
pub fn read(_settings: &Settings, outcome: &Outcome) -> Observation {
    if outcome.ended.succeeded() { Observation::ok() } else { Observation::failed("") }
}
