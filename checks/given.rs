//! The keys of a check type: declared by it, read and placed by the configuration.
//!
//! A type says which keys it has and what kind of value each takes; `config` reads them with file, line
//! and caret; the type then makes its settings of what was given. So one file is one type of check, and
//! none of them knows TOML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::service::Command;

/// One key of a check type.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// What it takes.
    pub kind: KeyKind,
    /// A value as one would write it, without quotes.
    pub example: &'static str,
}

/// What a key takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// A text on one line.
    Text,
    /// Any text that is not empty: line breaks are part of it.
    Bytes,
    /// A regular expression, matched against bytes; it has been compiled once, within its bound.
    Pattern,
    /// An absolute path.
    Path,
    /// A duration, at least so many milliseconds.
    Duration {
        /// The least.
        floor_ms: u64,
    },
    /// A number of bytes with its unit.
    Size,
    /// A whole number.
    Number {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// true or false.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A text or a number, or a list of them; each becomes a text.
    Words,
    /// A table of texts.
    Pairs,
    /// A command.
    Command,
}

/// A value that was given.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the value of the kind of its name")]
pub enum Setting {
    Text(String),
    Path(PathBuf),
    Duration(Duration),
    Number(u64),
    Flag(bool),
    Words(Vec<String>),
    Pairs(Vec<(String, String)>),
    Command(Command),
}

/// What was given for the keys of one check.
#[derive(Clone, Default, Debug)]
pub struct Given(BTreeMap<&'static str, Setting>);

impl Given {
    /// Takes a value in.
    pub fn put(&mut self, key: &'static str, setting: Setting) {
        self.0.insert(key, setting);
    }

    /// Whether a key was given.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// A text, a pattern's source, or one of a list of words.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Setting::Text(text) => Some(text),
            Setting::Path(_)
            | Setting::Duration(_)
            | Setting::Number(_)
            | Setting::Flag(_)
            | Setting::Words(_)
            | Setting::Pairs(_)
            | Setting::Command(_) => None,
        }
    }

    /// A path.
    #[must_use]
    pub fn path(&self, key: &str) -> Option<&Path> {
        if let Setting::Path(path) = self.0.get(key)? { Some(path) } else { None }
    }

    /// A duration.
    #[must_use]
    pub fn duration(&self, key: &str) -> Option<Duration> {
        if let Setting::Duration(span) = self.0.get(key)? { Some(*span) } else { None }
    }

    /// A number, or the bytes of a size.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        if let Setting::Number(number) = self.0.get(key)? { Some(*number) } else { None }
    }

    /// true or false; false where it was not said.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.0.get(key), Some(Setting::Flag(true)))
    }

    /// Words; none where they were not said.
    #[must_use]
    pub fn words(&self, key: &str) -> &[String] {
        if let Some(Setting::Words(words)) = self.0.get(key) { words } else { &[] }
    }

    /// A table of texts, in the order of the file; empty where it was not said.
    #[must_use]
    pub fn pairs(&self, key: &str) -> &[(String, String)] {
        if let Some(Setting::Pairs(pairs)) = self.0.get(key) { pairs } else { &[] }
    }

    /// A command.
    #[must_use]
    pub fn command(&self, key: &str) -> Option<&Command> {
        if let Setting::Command(command) = self.0.get(key)? { Some(command) } else { None }
    }
}

/// What is wrong with what was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// The key it is about. Where it was not given, that it is missing is what is wrong.
    pub key: &'static str,
    /// What.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl Wrong {
    /// Something is wrong with this key.
    #[must_use]
    pub fn new(key: &'static str, message: impl Into<String>, hint: &str) -> Self {
        let hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
        Self { key, message: message.into(), hint }
    }
}
