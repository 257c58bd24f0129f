//! What will go off some day: nothing fails yet, and nothing is done about it but telling.

use std::time::Duration;

use crate::model::limits;

/// What is found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HazardKind {
    /// The directory that a master works in was deleted: no worker that it forks can boot.
    DirectoryDeleted,
    /// The program that a master runs was deleted: it was upgraded, and never restarted.
    ProgramDeleted,
    /// Workers run more than one release.
    Mixed,
    /// A release was deployed, and no worker runs it.
    NeverRestarted,
    /// Everybody on the machine could command it.
    Exposed,
}

impl HazardKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::DirectoryDeleted,
        Self::ProgramDeleted,
        Self::Mixed,
        Self::NeverRestarted,
        Self::Exposed,
    ];

    /// The word in records.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::DirectoryDeleted => "directory-deleted",
            Self::ProgramDeleted => "program-deleted",
            Self::Mixed => "mixed",
            Self::NeverRestarted => "never-restarted",
            Self::Exposed => "exposed",
        }
    }

    /// For so long it may be so: a deploy takes its time.
    #[must_use]
    pub fn patience(self) -> Duration {
        match self {
            Self::DirectoryDeleted | Self::ProgramDeleted => limits::HAZARD_DELETED_PATIENCE,
            Self::Mixed | Self::NeverRestarted => limits::HAZARD_DEPLOY_PATIENCE,
            Self::Exposed => Duration::ZERO,
        }
    }
}
