//! What one look at the workers of a service saw.

use std::time::Duration;

use crate::model::observation::Observation;
use crate::model::process::{Ours, ProcessIdentity};
use crate::model::text::Untrusted;
use crate::model::time::Mono;
use crate::model::workers::{Budget, Fragile};

/// All of them, as they were seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Muster {
    /// Those there are.
    pub members: Vec<Member>,
    /// So many are on their way by their master's word, and were not seen: a worker that dies at boot is
    /// gone again before anybody looks.
    pub coming: usize,
}

/// One worker, as it was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Which process.
    pub identity: ProcessIdentity,
    /// What it calls itself.
    pub title: Untrusted,
    /// Whether it belongs to the user that workers are to belong to: no other is ever signalled.
    pub ours: Ours,
    /// How long it has lived, in milliseconds.
    pub age_ms: u64,
    /// Whether it counts as capacity.
    pub duty: Duty,
    /// Whether its master waits for it to go.
    pub leaving: Leaving,
    /// Why it must not be killed, whatever the configuration allows.
    pub fragile: Option<Fragile>,
    /// The directory it works in: the release it runs, where that is known.
    pub release: Option<Untrusted>,
    /// What the checks of workers judge.
    pub seen: Observation,
}

/// What a Puma says of itself, beside what its workers are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PumaView {
    /// Its phase: one more with each phased restart, 0 after a full one.
    pub phase: Option<u64>,
    /// When it executed itself last, in milliseconds since 1970.
    pub started_wall_ms: Option<u64>,
    /// Its workers; `None`: it is no cluster, or did not say.
    pub workers: Option<u64>,
    /// Those that booted.
    pub booted: Option<u64>,
    /// Those of an older phase.
    pub old: Option<u64>,
    /// A worker dies as it boots, again and again: in words.
    pub looping: Option<String>,
    /// How it stands, in words.
    pub words: String,
    /// The directory that `current` leads to, or why there is none.
    pub target: Result<Untrusted, Untrusted>,
}

/// Whether a worker counts as capacity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Duty {
    /// It serves, as far as can be told.
    Serves,
    /// It is not ready yet: nobody is taken away while one is, for it may never be.
    Boots,
    /// It does nothing: stopped, or in a state in which it cannot answer.
    Frozen,
}

impl Duty {
    /// The word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Serves => "serves",
            Self::Boots => "boots",
            Self::Frozen => "frozen",
        }
    }
}

/// Whether a master waits for a worker to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaving {
    /// It does not, or nobody can tell.
    No,
    /// It told this one to go, and nothing goes on before it did.
    Awaited,
}

/// How the workers of a service stand for who takes them away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CrewView {
    /// So many serve at least.
    pub min: u32,
    /// So many are to be there; 0 while nobody has been seen.
    pub wanted: usize,
    /// How many actions are normal.
    pub budget: Budget,
    /// How many of them are left now.
    pub left: u32,
    /// Who is being taken away.
    pub going: Option<ProcessIdentity>,
    /// Whom its master waits for, and for how long so far.
    pub awaited: Option<(ProcessIdentity, Duration)>,
    /// When the main process was reloaded last.
    pub reloaded: Option<Mono>,
}
