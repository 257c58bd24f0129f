//! The raw calls on a descriptor that holds one process: pidfd_open(2), pidfd_send_signal(2), poll(2).
//!
//! A pidfd never comes to mean another process: once its process ended it answers ESRCH, whoever has
//! the number by then. It is readable from the moment the process ended, waited for or not.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::model::process::Pid;

/// Holds the process that has this number now (closed on exec).
///
/// # Errors
/// ESRCH: no such process. ENOENT or, before Linux 6.9, EINVAL: the number is a thread's.
pub(super) fn open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether this kernel has them.
#[must_use]
pub fn is_there() -> bool {
    open(Pid(std::process::id().cast_signed())).is_ok()
}

/// Sends a signal, or none (0) to ask whether one could be sent.
///
/// # Errors
/// ESRCH: the process ended and was waited for. EPERM: not ours to signal.
pub(super) fn send(fd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: `fd` is open for the length of the call, and a null siginfo is allowed: the kernel then
    // makes the one that kill(2) would.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the process has ended (a zombie has). A failed poll is reported as not ended: whoever acts
/// on a death must be sure of it.
pub(super) fn has_ended(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
        && fds[0].revents().is_some_and(|got| got.contains(PollFlags::POLLIN))
}

/// Whether a descriptor of the held process is a socket that listens; `None` when it cannot be told: a
/// kernel before 5.6, no right to look, or the descriptor was closed (pidfd_getfd(2), socket(7)).
pub(super) fn accepts_connections(process: impl AsFd, fd: RawFd) -> Option<bool> {
    let process = process.as_fd().as_raw_fd();
    // SAFETY: pidfd_getfd takes three integers and returns a new descriptor (close-on-exec) or -1.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, fd, 0) };
    let copy = RawFd::try_from(copy).ok().filter(|copy| *copy >= 0)?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };
    nix::sys::socket::getsockopt(&copy, nix::sys::socket::sockopt::AcceptConn).ok()
}

/// Why a signal was not sent. What root may not do the mode of nothing can give it (kill(2), EPERM).
pub(super) fn denied(error: &io::Error) -> String {
    if error.raw_os_error() == Some(libc::EPERM) && nix::unistd::geteuid().is_root() {
        return format!(
            "{error}, though heeler is root: does SELinux, AppArmor or a missing CAP_KILL deny it?"
        );
    }
    error.to_string()
}
