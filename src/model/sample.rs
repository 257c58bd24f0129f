//! What was read of a process, once, for all checks of its service.

use crate::model::process::ProcessIdentity;
use crate::model::time::Mono;

/// Which raw facts a service's conditions need. Nothing else is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// Resident pages and, when they exceed this many bytes, PSS. `Some(0)` reads PSS always.
    pub pss_above_bytes: Option<u64>,
    /// Resident pages.
    pub rss: bool,
    /// USS.
    pub private: bool,
    /// CPU time.
    pub cpu: bool,
    /// State and threads: one read of /proc/PID/stat, which has CPU time and resident pages too.
    pub stat: bool,
    /// Open descriptors.
    pub fds: bool,
    /// Storage bytes read and written.
    pub io: bool,
    /// The number of direct children.
    pub children: bool,
    /// CPU time of all descendants.
    pub tree_cpu: bool,
    /// PSS of all descendants.
    pub tree_pss: bool,
}

impl Needs {
    /// Whether nothing is needed: a service that only asks to be alive is never read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let lower = match (self.pss_above_bytes, other.pss_above_bytes) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self {
            pss_above_bytes: lower,
            rss: self.rss || other.rss,
            private: self.private || other.private,
            cpu: self.cpu || other.cpu,
            stat: self.stat || other.stat,
            fds: self.fds || other.fds,
            io: self.io || other.io,
            children: self.children || other.children,
            tree_cpu: self.tree_cpu || other.tree_cpu,
            tree_pss: self.tree_pss || other.tree_pss,
        }
    }

    /// Whether a read may block for ever (`smaps_rollup` and `io` take locks of the target) or take as
    /// long as the target likes (before Linux 6.2 its descriptors are counted one by one), so that it
    /// has to be done off the loop.
    #[must_use]
    pub fn may_block(&self) -> bool {
        self.private || self.io || self.tree_pss || self.fds
    }

    /// Whether PSS has to be read, which may block as well: it cannot exceed the resident size, so below
    /// the limit it says nothing new.
    #[must_use]
    pub fn wants_pss(&self, rss_bytes: Option<u64>) -> bool {
        self.pss_above_bytes.is_some_and(|above| rss_bytes.is_none_or(|rss| rss > above))
    }
}

/// What was read of one main process at one moment. `None`: not needed, or not readable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessSample {
    /// Of which process.
    pub identity: ProcessIdentity,
    /// When.
    pub at: Mono,
    /// How long it has lived, in milliseconds (boot time, so a suspend counts).
    pub age_ms: u64,
    /// User and system time, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// The same with all descendants.
    pub tree_cpu_ms: Option<u64>,
    /// The state letter.
    pub state: Option<char>,
    /// Threads.
    pub threads: Option<u64>,
    /// Resident bytes.
    pub rss_bytes: Option<u64>,
    /// Proportional set size in bytes; absent when the resident size was too small to matter.
    pub pss_bytes: Option<u64>,
    /// Unshared bytes.
    pub private_bytes: Option<u64>,
    /// PSS with all descendants.
    pub tree_pss_bytes: Option<u64>,
    /// Open descriptors.
    pub fds: Option<u64>,
    /// Direct children.
    pub children: Option<u64>,
    /// Bytes read from storage since it began.
    pub read_bytes: Option<u64>,
    /// Bytes written to storage since it began.
    pub written_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_in_one_bounded_step_is_read_on_the_loop() {
        let quick = Needs { rss: true, stat: true, children: true, ..Needs::default() };
        assert!(!quick.may_block());
        for slow in [
            Needs { fds: true, ..quick },
            Needs { private: true, ..quick },
            Needs { io: true, ..quick },
        ] {
            assert!(slow.may_block(), "{slow:?}");
        }
        let bounded = Needs { pss_above_bytes: Some(100), ..quick };
        assert!(!bounded.may_block());
        assert!(!bounded.wants_pss(Some(100)) && !quick.wants_pss(Some(100)));
        assert!(bounded.wants_pss(Some(101)) && bounded.wants_pss(None));
    }
}
