//! The types of checks: one file each, registered by one line in [`of`]. See `checks/README.md`.
#![forbid(unsafe_code)]

pub mod certificate;
pub mod connect;
pub mod directory;
pub mod dns;
mod exchange;
pub mod file;
pub mod filesystem;
pub mod given;
pub mod host;
pub mod http;
mod login;
mod names;
mod nameserver;
pub mod network;
pub mod perfdata;
pub mod place;
pub mod port;
pub mod process;
pub mod program;
pub mod puma;
pub mod rights;
pub mod system;
pub mod tail;
pub mod tls;
pub mod worker;
pub mod x509;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checks::connect::Tools;
use crate::checks::given::{Given, Key, Wrong};
use crate::model::check::CheckKind;
use crate::model::mark::mark;
use crate::model::metric::Metric;
use crate::model::observation::Observation;
use crate::model::time::Now;

/// What a type of check is for the configuration.
#[derive(Clone, Copy, Debug)]
pub struct CheckType {
    /// Its own keys; those of every check (`if`, `for`, `every`, `timeout`, ...) come on top.
    pub keys: &'static [Key],
    /// What its conditions may use.
    pub metrics: fn() -> Vec<Metric>,
    /// What `if` is where it is not said.
    pub unsaid: Unsaid,
    /// How long a probe may take where `timeout` is not said.
    pub timeout: Duration,
    /// Makes the settings of what was given.
    pub read: fn(&Given) -> Result<Probe, Vec<Wrong>>,
}

/// What a check without an `if` means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsaid {
    /// `if = "failed"`.
    Failed,
    /// It has to be said: nothing of this type fails by itself.
    Required,
}

/// The settings of one check; which variant it is decides where it runs and what it may touch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// A pure look at the process sample that the keeper took once for all checks of the service.
    Sample,
    /// The same at the sample of each worker.
    Workers,
    /// A look at what the service's Puma answered when heeler asked it once for all such checks.
    Puma,
    /// Async, in the scout.
    Network(Network),
    /// On the file pool: whatever it reads may hang.
    Files(Files),
    /// A program run as the service's user, and a pure reading of what it printed.
    Command(program::Settings),
}

/// What the scout probes. Serialized, it is what the keeper hands to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the settings of the type of its name")]
pub enum Network {
    Http(Box<http::Settings>),
    Port(port::Settings),
    Certificate(certificate::Settings),
    Dns(dns::Settings),
    Host(host::Settings),
}

/// What the file pool looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the settings of the type of its name")]
pub enum Files {
    File(file::Settings),
    Directory(directory::Settings),
    Filesystem(filesystem::Settings),
    System(system::Settings),
    Network(network::Settings),
}

/// What a look leaves for the next one of the same check.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is of the type of its name")]
pub enum Past {
    File(file::Past),
    System(system::Past),
    Network(network::Past),
}

/// The type behind a word in `type = "..."`.
#[must_use]
pub fn of(kind: CheckKind) -> CheckType {
    match kind {
        CheckKind::Process => process::TYPE,
        CheckKind::Worker => worker::TYPE,
        CheckKind::Puma => puma::TYPE,
        CheckKind::Http => http::TYPE,
        CheckKind::Port => port::TYPE,
        CheckKind::Certificate => certificate::TYPE,
        CheckKind::Dns => dns::TYPE,
        CheckKind::Host => host::TYPE,
        CheckKind::Program => program::TYPE,
        CheckKind::File => file::TYPE,
        CheckKind::Directory => directory::TYPE,
        CheckKind::Filesystem => filesystem::TYPE,
        CheckKind::System => system::TYPE,
        CheckKind::Network => network::TYPE,
    }
}

impl Network {
    /// Probes once. Deadline, duration, concurrency and panics belong to the caller; where it got to is
    /// in `tools.progress`, for when its time is over.
    pub async fn probe(&self, tools: &Tools) -> Observation {
        match self {
            Self::Http(settings) => http::probe(settings, tools).await,
            Self::Port(settings) => port::probe(settings, tools).await,
            Self::Certificate(settings) => certificate::probe(settings, tools).await,
            Self::Dns(settings) => dns::probe(settings, tools).await,
            Self::Host(settings) => host::probe(settings, tools).await,
        }
    }
}

impl Network {
    /// The file of the password that a probe needs; the keeper reads it, for each probe.
    #[must_use]
    pub fn password_file(&self) -> Option<&Path> {
        match self {
            Self::Http(settings) => settings.password_file(),
            Self::Port(_) | Self::Certificate(_) | Self::Dns(_) | Self::Host(_) => None,
        }
    }
}

impl Files {
    /// Looks once. It may hang: the caller has a deadline, and a thread to lose.
    #[must_use]
    pub fn look(&self, past: Option<Past>, now: Now) -> (Observation, Option<Past>) {
        match self {
            Self::File(settings) => {
                let past = if let Some(Past::File(past)) = past { Some(past) } else { None };
                let (seen, past) = file::look(settings, past, now);
                (seen, past.map(Past::File))
            }
            Self::Directory(settings) => (directory::look(settings, now), None),
            Self::Filesystem(settings) => (filesystem::look(settings), None),
            Self::System(settings) => {
                let past = if let Some(Past::System(past)) = past { Some(past) } else { None };
                let (seen, past) = system::look(settings, past, now);
                (seen, past.map(Past::System))
            }
            Self::Network(settings) => {
                let past = if let Some(Past::Network(past)) = past { Some(past) } else { None };
                let (seen, past) = network::look(settings, past, now);
                (seen, past.map(Past::Network))
            }
        }
    }
}

impl Files {
    /// What has to be written down of a look's past, so that the next keeper goes on from there.
    #[must_use]
    pub fn keep(&self, past: Option<&Past>) -> Option<Vec<u8>> {
        match (self, past?) {
            (Self::File(settings), Past::File(past)) => file::keep(settings, past),
            // Rates begin anew with the second look.
            (
                Self::File(_)
                | Self::Directory(_)
                | Self::Filesystem(_)
                | Self::System(_)
                | Self::Network(_),
                Past::File(_) | Past::System(_) | Past::Network(_),
            ) => None,
        }
    }

    /// Reads it back; nothing where it is of other settings, or not understood.
    #[must_use]
    pub fn recall(&self, kept: &[u8]) -> Option<Past> {
        match self {
            Self::File(settings) => file::recall(settings, kept).map(Past::File),
            Self::Directory(_) | Self::Filesystem(_) | Self::System(_) | Self::Network(_) => None,
        }
    }
}

/// For fingerprints of what `changed` is about. Nothing hostile gains by a collision but its own change
/// unseen; a checksum of a file's content is a real one.
#[must_use]
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    mark(parts)
}
