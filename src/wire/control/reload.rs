//! What came of reading the configuration anew, and what would come of it.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::model::change::{BadFile, Change, Changes, KeyChange};
use crate::wire::control::VERSION;

/// What a reload did, or what one would do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// [`VERSION`] of the keeper.
    pub version: u32,
    /// Whether the directory could be read and nothing in it is wrong.
    pub good: bool,
    /// The directory.
    pub dir: String,
    /// Keys of heeler.toml that differ.
    #[serde(default)]
    pub settings: Vec<KeyDiff>,
    /// Those that count only from the next start of heeler on.
    #[serde(default)]
    pub needs_restart: Vec<KeyDiff>,
    /// Services that change.
    #[serde(default)]
    pub services: Vec<ServiceDiff>,
    /// How many services do not.
    #[serde(default)]
    pub unchanged: u64,
    /// Files that are not used.
    #[serde(default)]
    pub bad_files: Vec<BadFileNote>,
    /// What is wrong, and what is probably not meant: lines as `heeler validate` prints them.
    #[serde(default)]
    pub report_lines: Vec<String>,
    /// What else is to be said, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl ReloadAnswer {
    /// Of a directory that was read.
    #[must_use]
    pub fn new(dir: String, changes: &Changes, notes: Vec<String>) -> Self {
        let Changes { settings, needs_restart, services, unchanged, wrong, bad_files, report } =
            changes;
        Self {
            version: VERSION,
            good: !wrong,
            dir,
            settings: settings.iter().map(KeyDiff::of).collect(),
            needs_restart: needs_restart.iter().map(KeyDiff::of).collect(),
            services: services.iter().map(ServiceDiff::of).collect(),
            unchanged: *unchanged as u64,
            bad_files: bad_files.iter().map(BadFileNote::of).collect(),
            report_lines: report.clone(),
            notes,
        }
    }

    /// Of a directory that could not be read, or is not used: why, line by line.
    #[must_use]
    pub fn unusable(dir: String, report_lines: Vec<String>) -> Self {
        let notes = Vec::new();
        Self { good: false, report_lines, ..Self::new(dir, &Changes::default(), notes) }
    }
}

/// A key whose value differs, as it is written in the file; empty where it is not said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyDiff {
    /// Which.
    pub key: String,
    /// Before.
    pub old: String,
    /// After.
    pub new: String,
}

impl KeyDiff {
    fn of(change: &KeyChange) -> Self {
        let KeyChange { key, old, new } = change;
        Self { key: key.clone(), old: old.clone(), new: new.clone() }
    }
}

/// What becomes of one service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceDiff {
    /// Its name, afterwards.
    pub service: String,
    /// added, changed, renamed, removed.
    pub change: String,
    /// Its name before, where it is renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Keys of its file that differ; none where only `[defaults]` does.
    #[serde(default)]
    pub keys: Vec<KeyDiff>,
}

impl ServiceDiff {
    fn of(change: &Change) -> Self {
        let none: &[KeyChange] = &[];
        let (service, word, from, keys) = match change {
            Change::Added(name) => (name, "added", None, none),
            Change::Changed(name, keys) => (name, "changed", None, &**keys),
            Change::Renamed { from, to, keys } => (to, "renamed", Some(from), &**keys),
            Change::Removed(name) => (name, "removed", None, none),
        };
        Self {
            service: service.to_string(),
            change: word.to_owned(),
            from: from.map(ToString::to_string),
            keys: keys.iter().map(KeyDiff::of).collect(),
        }
    }
}

/// A file that is not used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BadFileNote {
    /// Its name.
    pub file: String,
    /// What is in force in its place, in words.
    pub instead: String,
}

impl BadFileNote {
    /// The wire's form.
    #[must_use]
    pub fn of(bad: &BadFile) -> Self {
        Self { file: bad.file.clone(), instead: bad.instead.words().to_owned() }
    }
}

/// How the configuration stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The directory.
    pub dir: String,
    /// Why it could not be read when that was last tried; absent if it could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Files that are not used.
    #[serde(default)]
    pub bad_files: Vec<BadFileNote>,
    /// Keys of heeler.toml that count only from the next start of heeler on.
    #[serde(default)]
    pub needs_restart: Vec<String>,
}
