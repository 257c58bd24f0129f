//! A check definition: type, `if / for / then`.

use std::time::Duration;

use crate::model::action::Action;
use crate::model::condition::Condition;
use crate::model::ids::CheckIndex;
use crate::model::tolerance::Tolerance;

/// One `[[check]]`, as the engine needs it. What the probe itself needs stays with the probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Its place in the file.
    pub index: CheckIndex,
    /// Its `name`, or its type and condition.
    pub label: Box<str>,
    /// Which type judges it.
    pub kind: CheckKind,
    /// The `if`.
    pub condition: Condition,
    /// The `for`.
    pub tolerance: Tolerance,
    /// The `recover`: as many good verdicts resolve it.
    pub recover: Tolerance,
    /// The `then`.
    pub then: Vec<Action>,
    /// The `else`: what to do on recovery.
    pub on_recovery: Vec<Action>,
    /// How often it is probed; a multiple of nothing, rounded to the schedule's slots.
    pub every: Duration,
    /// How long one probe may take. A look at the process sample has no time of its own.
    pub timeout: Duration,
    /// `repeat`: how often alert and exec happen again while it stays firing.
    pub repeat: Option<Duration>,
}

impl Check {
    /// A number that stands for it across keepers, wherever it is in its file: of its type and label
    /// (FNV-1a).
    #[must_use]
    pub fn mark(&self) -> u64 {
        let bytes = self.kind.name().bytes().chain([0]).chain(self.label.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// Whether one look may find what no later one does: a change, or lines of a file.
    #[must_use]
    pub fn is_of_event(&self) -> bool {
        self.kind == CheckKind::File || self.condition.is_of_change()
    }
}

/// The types of checks. Each is one file under `checks/`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "each is described at the head of the file of its name")]
pub enum CheckKind {
    Process,
    Worker,
    Puma,
    Http,
    Port,
    Certificate,
    Dns,
    Host,
    Program,
    File,
    Directory,
    Filesystem,
    System,
    Network,
}

impl CheckKind {
    /// Every type.
    pub const ALL: [Self; 14] = [
        Self::Process,
        Self::Worker,
        Self::Puma,
        Self::Http,
        Self::Port,
        Self::Certificate,
        Self::Dns,
        Self::Host,
        Self::Program,
        Self::File,
        Self::Directory,
        Self::Filesystem,
        Self::System,
        Self::Network,
    ];

    /// The word in `type = "..."`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Worker => "worker",
            Self::Puma => "puma",
            Self::Http => "http",
            Self::Port => "port",
            Self::Certificate => "certificate",
            Self::Dns => "dns",
            Self::Host => "host",
            Self::Program => "program",
            Self::File => "file",
            Self::Directory => "directory",
            Self::Filesystem => "filesystem",
            Self::System => "system",
            Self::Network => "network",
        }
    }
}
