//! The scout's cage: an unprivileged user, no capabilities, no way to new ones, no core dump, no file.
//!
//! Entered before a single byte of the network is read; a scout that cannot enter it does not begin.
//! Sources: capabilities(7), prctl(2), setrlimit(2), proc(5) (`dumpable`: who may look into a process).

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, getppid};

use super::defaults::{Closing, close_from};
use super::privilege;
use super::user::Account;
use crate::model::process::{Gid, Uid};

/// Where a scout finds its end of the keeper's socket: the first descriptor after the standard ones, as
/// `sys::spawn::spawn_scout` passes it.
const SOCKET_FD: i32 = 3;

/// The keeper's end of the socket that this process was given; nothing else stays open. To be called once,
/// first of all, in the role `scout`.
///
/// # Errors
/// When this process was not spawned as a scout.
pub fn inherited_socket() -> io::Result<OwnedFd> {
    close_from(SOCKET_FD as u32 + 1, Closing::Now)?;
    close_from(SOCKET_FD as u32, Closing::OnExec)?;
    // SAFETY: the number is only looked at by fcntl(2), which answers EBADF when it is closed.
    fcntl(unsafe { BorrowedFd::borrow_raw(SOCKET_FD) }, FcntlArg::F_GETFD)?;
    // SAFETY: it is open, and nothing in this process owns it: the role was just entered.
    Ok(unsafe { OwnedFd::from_raw_fd(SOCKET_FD) })
}

/// Enters it for good. `user` is who to become, where this process is root; without root it stays who it
/// is, and there is no boundary but the rest of the cage.
///
/// # Errors
/// The step that failed: nothing may be done after one.
pub fn enter(user: Option<(Uid, Gid)>) -> Result<(), String> {
    let step = |what: &'static str| move |error: io::Error| format!("failed to {what}: {error}");
    chdir("/").map_err(io::Error::from).map_err(step("change directory"))?;
    umask(Mode::from_bits_truncate(0o077));
    if let Some((uid, gid)) = user {
        if uid.0 == 0 {
            return Err("failed to become the scout's user: root is none".to_owned());
        }
        let account = Account {
            name: String::new(),
            uid,
            gid,
            groups: Vec::new(),
            home: "/".into(),
            shell: "/".into(),
        };
        drop_bounding_set().map_err(step("give up the bounding set of capabilities"))?;
        privilege::become_user(&account)
            .map_err(|error| format!("failed to become uid {}: {error}", uid.0))?;
        privilege::prove_user(&account)
            .map_err(|error| format!("failed to prove uid {}: {error}", uid.0))?;
    }
    flag(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(step("give up new privileges"))?;
    // Nobody of the same user (another daemon that runs as nobody, the other scout) looks into it.
    flag(libc::PR_SET_DUMPABLE, 0).map_err(step("forbid core dumps"))?;
    for (limit, most) in [(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_FSIZE, 0)] {
        setrlimit(limit, most, most).map_err(io::Error::from).map_err(step("set its limits"))?;
    }
    die_with_parent().map_err(step("be bound to the keeper"))
}

/// A scout without its keeper is nobody's: it ends with it, even where it hangs. Setting a user clears
/// this, so it comes after.
fn die_with_parent() -> io::Result<()> {
    let parent = getppid();
    flag(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    if getppid() == parent { Ok(()) } else { Err(io::Error::other("it is gone")) }
}

/// No exec of this process or of a child can ever have a capability again.
fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..=CAPABILITY_MAX {
        match flag(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            // The first number that this kernel does not have.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Capabilities are numbered from 0, and there are at most 64 (capget(2), version 3).
const CAPABILITY_MAX: libc::c_ulong = 63;

fn flag(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: each option used here takes one number and zeros (prctl(2)); no memory is touched.
    Errno::result(unsafe { libc::prctl(option, value, 0, 0, 0) }).map(drop).map_err(io::Error::from)
}
