//! Keeper and resolver: who is this user, which number has this group.
//!
//! Questions are lines, `user NAME` or `group NAME`; each answer is one line of JSON, in the order
//! of the questions.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::process::{Gid, Uid};
use crate::model::text::Untrusted;

/// One name to look up.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the thing of its name")]
pub enum Question {
    User(String),
    Group(String),
}

/// What the name service said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The user is there.
    User {
        /// As asked.
        name: String,
        /// Its number.
        uid: Uid,
        /// Its primary group.
        gid: Gid,
        /// Its home directory.
        home: PathBuf,
    },
    /// The group is there.
    Group {
        /// As asked.
        name: String,
        /// Its number.
        gid: Gid,
    },
    /// There is none of this name.
    Missing {
        /// As asked.
        name: String,
    },
    /// It could not be told.
    Failed {
        /// As asked.
        name: String,
        /// Why.
        error: Untrusted,
    },
}

impl Question {
    /// The line, with its end.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::User(name) => format!("user {name}\n"),
            Self::Group(name) => format!("group {name}\n"),
        }
    }

    /// Reads a line; `None` when it is not a question.
    #[must_use]
    pub fn decode(line: &str) -> Option<Self> {
        match line.split_once(' ')? {
            ("user", name) => Some(Self::User(name.to_owned())),
            ("group", name) => Some(Self::Group(name.to_owned())),
            (_, _) => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct WireAnswer {
    name: String,
    uid: Option<u32>,
    gid: Option<u32>,
    home: Option<String>,
    error: Option<String>,
}

impl Answer {
    /// The line, with its end.
    #[must_use]
    pub fn encode(&self) -> String {
        let none = |name: &String| WireAnswer {
            name: name.clone(),
            uid: None,
            gid: None,
            home: None,
            error: None,
        };
        let wire = match self {
            Self::User { name, uid, gid, home } => WireAnswer {
                uid: Some(uid.0),
                gid: Some(gid.0),
                home: Some(home.to_string_lossy().into_owned()),
                ..none(name)
            },
            Self::Group { name, gid } => WireAnswer { gid: Some(gid.0), ..none(name) },
            Self::Missing { name } => none(name),
            Self::Failed { name, error } => {
                WireAnswer { error: Some(error.raw().to_owned()), ..none(name) }
            }
        };
        let mut line = serde_json::to_string(&wire).unwrap_or_default();
        line.push('\n');
        line
    }

    /// Reads a line; `None` when it is not an answer.
    #[must_use]
    pub fn decode(line: &str) -> Option<Self> {
        let wire: WireAnswer = serde_json::from_str(line).ok()?;
        let name = wire.name;
        Some(match (wire.error, wire.uid, wire.gid, wire.home) {
            (Some(error), ..) => Self::Failed { name, error: error.as_str().into() },
            (None, Some(uid), Some(gid), Some(home)) => {
                Self::User { name, uid: Uid(uid), gid: Gid(gid), home: home.into() }
            }
            (None, None, Some(gid), _) => Self::Group { name, gid: Gid(gid) },
            (None, ..) => Self::Missing { name },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_come_back() {
        for question in [Question::User("a b".into()), Question::Group("ops".into())] {
            assert_eq!(Question::decode(question.encode().trim_end()), Some(question));
        }
        assert_eq!(Question::decode("deploy"), None);
        for answer in [
            Answer::User { name: "d".into(), uid: Uid(0), gid: Gid(1), home: "/home/d".into() },
            Answer::Group { name: "ops".into(), gid: Gid(7) },
            Answer::Missing { name: "x\n\"".into() },
            Answer::Failed { name: "y".into(), error: "timed out".into() },
        ] {
            let line = answer.encode();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert_eq!(Answer::decode(&line), Some(answer));
        }
        assert_eq!(Answer::decode("{}"), None);
    }
}
