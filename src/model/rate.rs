//! So many in a window of time.

use std::fmt;
use std::time::Duration;

use crate::model::units::show_duration;

/// How many mails somebody gets: `30 per 10m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Mails; at least 1.
    pub mails: u32,
    /// In any window of this length.
    pub window: Duration,
}

impl Default for Rate {
    fn default() -> Self {
        Self { mails: 30, window: Duration::from_secs(600) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.mails, show_duration(self.window))
    }
}
