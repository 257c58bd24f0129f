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

/// What a new configuration changes, for people.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Keys of `heeler.toml`.
    pub settings: Vec<KeyChange>,
    /// Keys of `heeler.toml` that count only from the next start of heeler on.
    pub needs_restart: Vec<KeyChange>,
    /// Services that change.
    pub services: Vec<Change>,
    /// Services that do not.
    pub unchanged: usize,
    /// Whether anything is wrong: a file, or a dependency that was dropped.
    pub wrong: bool,
    /// Files that are bad.
    pub bad_files: Vec<BadFile>,
    /// What is wrong and what is probably not meant, as `heeler validate` says it.
    pub report: Vec<String>,
}

/// A file that is not used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadFile {
    /// Its name.
    pub file: String,
    /// What is in force in its place.
    pub instead: Instead,
}

/// What is in force in the place of a bad file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instead {
    /// What it said when it was last good.
    LastGood,
    /// Nothing: its service is not watched.
    Nothing,
    /// The defaults.
    Defaults,
}

impl Instead {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::LastGood => "its last good definition stays in force",
            Self::Nothing => "there is no good definition of it, so it is not watched",
            Self::Defaults => "the defaults are in force",
        }
    }
}
