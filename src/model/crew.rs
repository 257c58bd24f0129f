//! What one look at the workers of a service saw.

use crate::model::observation::Observation;
use crate::model::process::{Ours, ProcessIdentity};
use crate::model::text::Untrusted;
use crate::model::workers::Fragile;

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
    /// What the checks of workers judge.
    pub seen: Observation,
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
