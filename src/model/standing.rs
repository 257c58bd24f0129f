//! How a Puma stands, in one word and its numbers.

use std::fmt;
use std::time::Duration;

use crate::model::puma::Trouble;
use crate::model::units::show_duration;

/// How a Puma stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// There is no process.
    Down,
    /// There is no master, and so many of its workers live on.
    Orphans(u64),
    /// It is on its way up.
    Booting(Share),
    /// It is as it should be.
    Up(Share),
    /// Fewer serve than should.
    Degraded(Share),
    /// All serve, and not the same.
    Mixed {
        /// Those that serve.
        share: Share,
        /// How many releases they run.
        releases: u64,
    },
    /// A phased restart is under way.
    Restarting {
        /// Workers of the new phase that have booted, of all.
        done: Share,
        /// The new phase.
        phase: u64,
    },
    /// A worker dies at boot, and its successor, and so on.
    BootLoop {
        /// Whose place it is.
        index: u64,
        /// As many were seen of them; there may have been more.
        tries: u64,
        /// In this time.
        over: Duration,
        /// Those that serve meanwhile.
        share: Share,
    },
    /// The master does nothing.
    Wedged(Wedge),
    /// Connections are taken, and nobody answers them.
    NotAnswering {
        /// For so long.
        over: Duration,
        /// How many should.
        wanted: u64,
    },
    /// It cannot be told.
    Unclear(Trouble),
}

/// So many of so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Those that are.
    pub ready: u64,
    /// Those that should be.
    pub wanted: u64,
}

/// How it shows that a master does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wedge {
    /// Somebody stopped it.
    Stopped,
    /// It waits inside the kernel.
    Uninterruptible,
    /// It has answered no question.
    Silent {
        /// So many of them.
        misses: u32,
        /// Since the first.
        over: Duration,
    },
}

impl Standing {
    /// Its word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Orphans(_) => "orphans",
            Self::Booting(_) => "booting",
            Self::Up(_) => "up",
            Self::Degraded(_) => "degraded",
            Self::Mixed { .. } => "mixed",
            Self::Restarting { .. } => "restarting",
            Self::BootLoop { .. } => "boot-loop",
            Self::Wedged(_) => "wedged",
            Self::NotAnswering { .. } => "not answering",
            Self::Unclear(_) => "unclear",
        }
    }

    /// Whether that is a failure, as far as it can be told.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Booting(_) | Self::Up(_) | Self::Mixed { .. } | Self::Restarting { .. } => {
                Verdict::Well
            }
            Self::Down
            | Self::Orphans(_)
            | Self::Degraded(_)
            | Self::BootLoop { .. }
            | Self::Wedged(_)
            | Self::NotAnswering { .. } => Verdict::Ill,
            Self::Unclear(_) => Verdict::Unclear,
        }
    }
}

/// What a standing means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It serves, or is about to.
    Well,
    /// It does not as it should.
    Ill,
    /// It cannot be told.
    Unclear,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ready, self.wanted)
    }
}

impl fmt::Display for Wedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("its master is stopped (state T)"),
            Self::Uninterruptible => f.write_str("its master waits inside the kernel (state D)"),
            Self::Silent { misses, over } => {
                let over = show_duration(*over);
                write!(f, "its control server did not answer {misses} times in {over}")
            }
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        match self {
            Self::Down => f.write_str(word),
            Self::Orphans(count) => write!(f, "{word}: {count} without a master"),
            Self::Booting(share) | Self::Up(share) | Self::Degraded(share) => {
                write!(f, "{word} {share}")
            }
            Self::Mixed { share, releases } => write!(f, "{word} {share}: {releases} releases"),
            Self::Restarting { done, phase } => write!(f, "{word} {done}, phase {phase}"),
            Self::BootLoop { index, tries, over, share } => {
                let over = show_duration(*over);
                write!(f, "{word}: worker {index} began {tries} times in {over}; {share} serve")
            }
            Self::Wedged(how) => write!(f, "{word}: {how}"),
            Self::NotAnswering { over, wanted } => {
                write!(f, "{word} for {}: 0/{wanted} serve", show_duration(*over))
            }
            Self::Unclear(trouble) => write!(f, "{word}: {trouble}"),
        }
    }
}
