//! What can be said about a process that does not go.

use std::fmt;

use crate::model::limits;
use crate::model::process::ProcessIdentity;
use crate::model::text::Untrusted;
use crate::sys::identity::Held;
use crate::sys::{procfs, sampler};

/// What was readable of it. `None`: not readable (only root sees the stack).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// Of which process.
    pub identity: ProcessIdentity,
    /// The state letter; D is a wait inside the kernel that no signal ends.
    pub state: Option<char>,
    /// The function of the kernel it waits in.
    pub wchan: Option<Untrusted>,
    /// Its kernel stack, a line per function.
    pub stack: Option<Untrusted>,
    /// Open descriptors.
    pub fds: Option<u64>,
}

/// Collects it. Bounded; not on the loop, as `stack` takes a lock of the process.
#[must_use]
pub fn collect(held: &Held) -> Evidence {
    let identity = held.identity();
    let text = |name| {
        let bytes = procfs::read(identity.pid, name, limits::UNTRUSTED_BYTES_MAX).ok()?;
        Some(Untrusted::new(bytes.trim_ascii())).filter(|text| !matches!(text.raw(), "" | "0"))
    };
    let evidence = Evidence {
        identity,
        state: procfs::stat(identity.pid).ok().map(|stat| stat.state),
        wchan: text("wchan"),
        stack: text("stack"),
        fds: sampler::count_fds(identity.pid),
    };
    if held.is_alive() {
        evidence
    } else {
        Evidence { identity, state: None, wchan: None, stack: None, fds: None }
    }
}

/// What can be said at once: its state and where in the kernel it waits. Neither read waits for anything
/// (fs/proc: both look at the task alone), so the loop may ask.
#[must_use]
pub fn glance(held: &Held) -> Evidence {
    let identity = held.identity();
    let wchan = procfs::read(identity.pid, "wchan", limits::UNTRUSTED_BYTES_MAX).ok();
    let known = |text: &Untrusted| !matches!(text.raw(), "" | "0");
    let state = procfs::stat(identity.pid).ok().map(|stat| stat.state).filter(|_| held.is_alive());
    let wchan = wchan.map(|bytes| Untrusted::new(bytes.trim_ascii())).filter(known);
    Evidence { identity, state, wchan: wchan.filter(|_| state.is_some()), stack: None, fds: None }
}

impl fmt::Display for Evidence {
    /// `state D, wchan do_fsync, 12 descriptors`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            Some(state) => write!(f, "state {state}")?,
            None => f.write_str("state not readable")?,
        }
        if let Some(wchan) = &self.wchan {
            write!(f, ", wchan {wchan}")?;
        }
        if let Some(fds) = self.fds {
            write!(f, ", {fds} descriptors")?;
        }
        Ok(())
    }
}
