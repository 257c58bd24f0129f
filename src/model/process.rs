//! Which process: identities, and what was found where one was expected.

use std::fmt;

use crate::model::text::Untrusted;
use crate::model::unit::UnitEnd;

/// A process number. A number alone never says which process: see [`ProcessIdentity`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A user number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Uid(pub u32);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A group number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gid(pub u32);

/// One process of this boot: its number and when it began (field 22 of /proc/PID/stat, clock ticks
/// since boot). An exec keeps it; a reused number does not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: Pid,
    /// When it began, in clock ticks since boot.
    pub started_ticks: u64,
}

impl fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid)
    }
}

/// What identification found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identification {
    /// Exactly one living process, proved to be the service's, now held by the keeper.
    One(ProcessIdentity),
    /// The same, and its manager put it there because somebody asked it to, not because the one before
    /// had died.
    Succeeded(ProcessIdentity),
    /// Nothing lives there, and this is how that shows.
    None(Absence),
    /// Something lives there that heeler may not touch. Names the fact that differed.
    Refused(Untrusted),
    /// It cannot be told now (no permission, several match, a user that cannot be resolved).
    Unknown(Untrusted),
}

/// How a missing process is missing. It tells a crash from an orderly exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absence {
    /// The claim still names this dead process: it had no time to clean up.
    Stale(Pid),
    /// There is no pidfile: never written, or removed by the process or its stop script.
    NoPidfile,
    /// Nothing matches, or the foreground program's shim has no child.
    NoProcess,
    /// Its manager is about to bring it up.
    Coming,
    /// Its manager is taking it down.
    Going,
    /// Its manager says that it is down, and how it came to be so.
    Inactive(UnitEnd),
    /// There is no manager to ask, though this user is to have one always.
    NoManager(Uid),
    /// There is no manager to ask yet: the machine was booted a moment ago.
    ManagerComing,
}

impl Absence {
    /// How its unit ended, where its manager says that it did.
    #[must_use]
    pub fn inactive(self) -> Option<UnitEnd> {
        match self {
            Self::Inactive(end) => Some(end),
            Self::Stale(_)
            | Self::NoPidfile
            | Self::NoProcess
            | Self::Coming
            | Self::Going
            | Self::NoManager(_)
            | Self::ManagerComing => None,
        }
    }

    /// Whether somebody else is at work on it: nothing is started meanwhile, for as long as a start may
    /// take.
    #[must_use]
    pub fn is_in_hand(self) -> bool {
        match self {
            Self::Coming | Self::Going | Self::ManagerComing => true,
            Self::Stale(_)
            | Self::NoPidfile
            | Self::NoProcess
            | Self::Inactive(_)
            | Self::NoManager(_) => false,
        }
    }
}

/// A process that outlived the dead main process it descends from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survivor {
    /// Which.
    pub identity: ProcessIdentity,
    /// What it calls itself.
    pub title: Untrusted,
    /// Whether it holds a listening socket: then no new copy can serve before it is gone.
    pub holds: Holding,
    /// Whether heeler may signal it (proved to be a descendant, and of the service's user).
    pub ours: Ours,
}

/// What a survivor holds on to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holding {
    /// A listening socket, proved by its inode.
    ListeningSocket,
    /// Nothing a new copy would need.
    Nothing,
}

/// Whether a survivor may be signalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ours {
    /// Proved.
    Proved,
    /// Another user's: waited for, never signalled.
    Foreign,
}

/// How a process ended, when somebody could know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(0) => f.write_str("ended by itself (code 0)"),
            Self::Code(code) => write!(f, "failed with code {code}"),
            Self::Signal(number) => match signal_name(*number) {
                Some(name) => write!(f, "killed by SIG{name}"),
                None => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// A signal that heeler may send or a service may ask for as its `stop_signal`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the signal of its name")]
pub enum Signal {
    Term,
    Kill,
    Cont,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
    Winch,
}

impl Signal {
    /// Every signal a configuration may name.
    pub const NAMED: [Self; 9] = [
        Self::Term,
        Self::Kill,
        Self::Cont,
        Self::Int,
        Self::Quit,
        Self::Hup,
        Self::Usr1,
        Self::Usr2,
        Self::Winch,
    ];

    /// Its name without `SIG`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Kill => "KILL",
            Self::Cont => "CONT",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Hup => "HUP",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Winch => "WINCH",
        }
    }

    /// Parses `TERM` or `SIGTERM`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("SIG").unwrap_or(text);
        Self::NAMED.into_iter().find(|signal| signal.name() == name)
    }
}

/// The name of a Linux signal number (x86-64 and arm64 agree on these).
fn signal_name(number: i32) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    usize::try_from(number).ok().and_then(|n| n.checked_sub(1)).and_then(|n| NAMES.get(n)).copied()
}
