//! What the engine's questions are answered from.

use std::collections::BTreeSet;

use super::definitions::identity;
use heeler::engine::input::Confirmation;
use heeler::model::crew::{Duty, Leaving, Member, Muster, PumaView};
use heeler::model::metric::{Metric, Value};
use heeler::model::observation::Observation;
use heeler::model::process::{Absence, Identification, Ours, Pid, ProcessIdentity, Survivor};
use heeler::model::puma::TroubleKind;

/// What the engine's questions are answered from.
pub(crate) struct World {
    pub(crate) claim: Claim,
    pub(super) alive: BTreeSet<i32>,
    /// What the dead main process left.
    pub(crate) left: Vec<Survivor>,
    /// Why it cannot be told what it left.
    pub(crate) survey_fails: Option<&'static str>,
    /// What a sample reads; `None`: no answer.
    pub(crate) sample: Option<Observation>,
    /// What a probe sees; `None`: no answer.
    pub(crate) probe: Option<Observation>,
    /// Its workers.
    pub(crate) crew: Vec<Member>,
    /// On their way by their master's word, and not seen.
    pub(crate) crew_coming: usize,
    /// What their Puma says.
    pub(crate) puma: Option<PumaView>,
    /// Whether a look at its workers is answered when the story says so.
    pub(crate) crew_is_slow: bool,
    /// Why it does not hear what it is told.
    pub(crate) puma_hears: Option<TroubleKind>,
    /// Why signals are refused, if they are.
    pub(crate) refuses_signals: Option<&'static str>,
}

/// What names the main process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim {
    /// The pidfile names this pid, dead or alive.
    Names(i32),
    NoPidfile,
    NoProcess,
    /// Its manager says how it is missing.
    Managed(Absence),
    /// Its manager was asked by somebody to start this one.
    Succeeds(i32),
    /// Something is there that heeler may not touch.
    Refused(&'static str),
    /// It cannot be told.
    Unknown(&'static str),
    /// No answer comes.
    Silent,
}

impl World {
    pub(super) fn identification(&self) -> Option<Identification> {
        Some(match self.claim {
            Claim::Names(pid) if self.alive.contains(&pid) => Identification::One(identity(pid)),
            Claim::Names(pid) => Identification::None(Absence::Stale(Pid(pid))),
            Claim::Managed(absence) => Identification::None(absence),
            Claim::Succeeds(pid) => Identification::Succeeded(identity(pid)),
            Claim::NoPidfile => Identification::None(Absence::NoPidfile),
            Claim::NoProcess => Identification::None(Absence::NoProcess),
            Claim::Refused(why) => Identification::Refused(why.into()),
            Claim::Unknown(why) => Identification::Unknown(why.into()),
            Claim::Silent => return None,
        })
    }

    pub(super) fn muster(&self) -> Muster {
        Muster { members: self.crew.clone(), coming: self.crew_coming }
    }

    pub(super) fn lives(&self, who: ProcessIdentity) -> bool {
        self.alive.contains(&who.pid.0)
    }

    pub(super) fn confirmation(&self, who: ProcessIdentity) -> Confirmation {
        match self.claim {
            _ if !self.lives(who) => Confirmation::Gone,
            Claim::Names(pid) if pid == who.pid.0 => Confirmation::Same,
            Claim::Names(_) | Claim::NoPidfile => Confirmation::ClaimChanged,
            Claim::Managed(_)
            | Claim::Succeeds(_)
            | Claim::NoProcess
            | Claim::Refused(_)
            | Claim::Unknown(_)
            | Claim::Silent => Confirmation::Same,
        }
    }
}

/// An observation of the main process's memory.
pub(crate) fn memory_mib(mib: u64) -> Observation {
    Observation::ok().with(Metric::Memory, Value::Bytes(mib << 20))
}

/// What is seen of something that may change.
pub(crate) fn print(fingerprint: u64) -> Option<Observation> {
    Some(Observation { fingerprint: Some(fingerprint), ..Observation::ok() })
}

/// An observation that says nothing about the target.
pub(crate) fn cannot_tell(why: &str) -> Observation {
    Observation::unknown(why)
}

/// A worker that serves, of so many MiB; the higher its number, the younger.
pub(crate) fn worker(pid: i32, mib: u64) -> Member {
    Member {
        identity: identity(pid),
        title: "cart: worker".into(),
        ours: Ours::Proved,
        age_ms: 10_000_000 - u64::try_from(pid).unwrap(),
        duty: Duty::Serves,
        leaving: Leaving::No,
        fragile: None,
        release: Some("/srv/r1".into()),
        seen: memory_mib(mib),
    }
}
