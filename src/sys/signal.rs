//! Sending signals: to a proved process, through its pidfd, and in no other way.

use crate::model::process::Signal;
use crate::model::text::Untrusted;
use crate::sys::identity::Proved;
use crate::sys::{pidfd, procfs};

/// What came of a signal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delivered {
    /// It was sent (a process that ended but was not waited for takes it without effect).
    Sent,
    /// The process was gone already: as good.
    Gone,
    /// The kernel did not allow it; a security module may have denied it.
    Failed(Untrusted),
}

/// Sends a signal. A stopped process acts on most only when CONT follows (not on KILL).
#[must_use]
pub fn send(target: &Proved, signal: Signal) -> Delivered {
    let number = match signal {
        Signal::Term => libc::SIGTERM,
        Signal::Kill => libc::SIGKILL,
        Signal::Cont => libc::SIGCONT,
        Signal::Int => libc::SIGINT,
        Signal::Quit => libc::SIGQUIT,
        Signal::Hup => libc::SIGHUP,
        Signal::Usr1 => libc::SIGUSR1,
        Signal::Usr2 => libc::SIGUSR2,
        Signal::Winch => libc::SIGWINCH,
    };
    if !target.is_alive() {
        return Delivered::Gone;
    }
    match pidfd::send(target, number) {
        Ok(()) => Delivered::Sent,
        Err(error) if procfs::is_gone(&error) => Delivered::Gone,
        Err(error) => Delivered::Failed(Untrusted::from(pidfd::denied(&error).as_str())),
    }
}
