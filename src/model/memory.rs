//! What the engine must not forget about a service: what a keeper gets back after `kill -9`.

use crate::model::ids::ServiceName;
use crate::model::incident::Incident;
use crate::model::intent::Intent;
use crate::model::process::ProcessIdentity;
use crate::model::time::{Mono, Wall};

/// The memory of one service. Given to the store on every change, given back at the next start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memory {
    /// The wish in force.
    pub intent: Intent,
    /// Incidents opened so far.
    pub incidents_opened: u32,
    /// The open incidents.
    pub open: Vec<Incident>,
    /// The last closed incident.
    pub last: Option<Incident>,
    /// What each check that asks for `changed` saw last: a number that stands for the check, and the
    /// fingerprint.
    pub fingerprints: Vec<(u64, u64)>,
    /// What said which process was the main one ([`crate::model::service::Service::claim_mark`]): by it
    /// a service is known again whose file has another name. Absent in memories of an earlier heeler.
    pub claim: Option<u64>,
    /// The marks of its checks ([`crate::model::check::Check::mark`]), in the order that the open incidents
    /// count them by. Absent in memories of an earlier heeler.
    pub checks: Vec<u64>,
    /// What means something only within one boot.
    pub boot: BootMemory,
}

impl Memory {
    /// Of a service of which nothing is known but what is wanted.
    #[must_use]
    pub fn fresh(intent: Intent, boot: BootMemory) -> Self {
        Self {
            intent,
            incidents_opened: 0,
            open: Vec::new(),
            last: None,
            fingerprints: Vec::new(),
            claim: None,
            checks: Vec::new(),
            boot,
        }
    }

    /// The memory of a service whose file has another name now. Whoever was told of what is open was told
    /// of another service, so it is told anew, as a thread of its own.
    #[must_use]
    pub fn renamed(mut self, from: &ServiceName, to: &ServiceName, at: Wall) -> Self {
        for incident in &mut self.open {
            incident.service = to.clone();
            self.incidents_opened = self.incidents_opened.saturating_add(1);
            incident.number = self.incidents_opened;
            (incident.told, incident.told_at) = (0, Wall::default());
            incident.tell(at, format!("its file was renamed: it was {from}"));
        }
        self
    }
}

/// The part of a memory that dies with the boot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BootMemory {
    /// The last main process.
    pub main: Option<ProcessIdentity>,
    /// When heeler itself started it, oldest first: what the start limit counts.
    pub starts: Vec<Mono>,
    /// How often back-off was used since the last healthy window.
    pub backoffs: u32,
    /// How often it has come back from a death since then.
    pub returns: u32,
    /// Since when it has been healthy without a break.
    pub healthy_since: Option<Mono>,
    /// Until when a back-off lasts.
    pub backoff_until: Option<Mono>,
    /// Whether it was looked at in this boot.
    pub acquaintance: Acquaintance,
    /// The process that is to go (a stop or a restart was asked for) and is not gone yet.
    pub leaving: Option<ProcessIdentity>,
    /// When something of it was taken away that the host brake counts, oldest first.
    pub braked: Vec<Mono>,
    /// When workers of it were taken away, oldest first: what their budget counts.
    pub workers_taken: Vec<Mono>,
    /// Since when a verified reload of it has been under way: no later keeper sees it to its end.
    pub verifying: Option<Mono>,
}

/// Whether a service was looked at before in this boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Acquaintance {
    /// It was not.
    #[default]
    New,
    /// It was, and is left alone until somebody brings it up: `on_boot = "leave"`.
    Left,
    /// It was.
    Known,
}
