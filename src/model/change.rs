//! What a new configuration changes.

use crate::model::ids::{CheckIndex, ServiceName};

/// Which of a service's checks before a change one of its checks after it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// None: it is new.
    New,
    /// The one of this place. It probes what it probed.
    Same(CheckIndex),
    /// The one of this place. It probes something else, or in another way.
    Other(CheckIndex),
}

/// A key whose value differs, both as they were written; empty where it is not said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyChange {
    /// Which: `stop_timeout`, `mail.rate`, `check \"page\": url`.
    pub key: String,
    /// Before.
    pub old: String,
    /// After.
    pub new: String,
}

/// What becomes of one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is watched from now on.
    Added(ServiceName),
    /// It is defined anew. Nothing differs in its file where only `[defaults]` does.
    Changed(ServiceName, Vec<KeyChange>),
    /// It has another name, and goes on under it.
    Renamed {
        /// The old one.
        from: ServiceName,
        /// The new one.
        to: ServiceName,
        /// What else differs.
        keys: Vec<KeyChange>,
    },
    /// It is watched no longer, and left as it is.
    Removed(ServiceName),
}
