//! Becoming another user for good, and proving that there is no way back.

use std::fmt;
use std::io;

use nix::errno::Errno;
use nix::unistd::{
    Gid, Uid, geteuid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid,
};

use super::user::Account;

/// Whether this process can change users at all.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Why a process did not become its user. Nothing may be executed after one of these.
#[derive(Debug)]
pub enum DropError {
    /// A call failed; which.
    Call(&'static str, Errno),
    /// The kernel's own answer differs from what was asked; what differs.
    NotProved(&'static str),
}

impl fmt::Display for DropError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(call, errno) => write!(f, "{call}: {}", errno.desc()),
            Self::NotProved(what) => write!(f, "{what} is not as asked, though no call failed"),
        }
    }
}

/// Takes on the groups, then the user: in this order, since groups need root (setgroups(2)).
///
/// # Errors
/// The call that failed.
pub fn become_user(account: &Account) -> Result<(), DropError> {
    let call = |name| move |errno| DropError::Call(name, errno);
    let (uid, gid) = (Uid::from_raw(account.uid.0), Gid::from_raw(account.gid.0));
    let groups: Vec<Gid> = account.groups.iter().map(|gid| Gid::from_raw(gid.0)).collect();
    setgroups(&groups).map_err(call("setgroups"))?;
    setresgid(gid, gid, gid).map_err(call("setresgid"))?;
    clear_handed_down_capabilities().map_err(call("capset"))?;
    setresuid(uid, uid, uid).map_err(call("setresuid"))
}

/// Asks the kernel who this process is now, and tries to come back as root, which must fail.
///
/// # Errors
/// What is not as it has to be.
pub fn prove_user(account: &Account) -> Result<(), DropError> {
    let call = |name| move |errno| DropError::Call(name, errno);
    let (uid, gid) = (Uid::from_raw(account.uid.0), Gid::from_raw(account.gid.0));
    let uids = getresuid().map_err(call("getresuid"))?;
    if (uids.real, uids.effective, uids.saved) != (uid, uid, uid) {
        return Err(DropError::NotProved("the user"));
    }
    let gids = getresgid().map_err(call("getresgid"))?;
    if (gids.real, gids.effective, gids.saved) != (gid, gid, gid) {
        return Err(DropError::NotProved("the group"));
    }
    let sorted = |mut gids: Vec<u32>| {
        gids.sort_unstable();
        gids.dedup();
        gids
    };
    let have = getgroups().map_err(call("getgroups"))?.into_iter().map(Gid::as_raw).collect();
    if sorted(have) != sorted(account.groups.iter().map(|gid| gid.0).collect()) {
        return Err(DropError::NotProved("the list of groups"));
    }
    if uid.is_root() {
        return Ok(());
    }
    let (keep, root) = (u32::MAX, Uid::from_raw(0));
    if setresuid(Uid::from_raw(keep), root, Uid::from_raw(keep)).is_ok() {
        return Err(DropError::NotProved("the way back to root (it is open)"));
    }
    if gid.as_raw() != 0
        && setresgid(Gid::from_raw(keep), Gid::from_raw(0), Gid::from_raw(keep)).is_ok()
    {
        return Err(DropError::NotProved("the way back to root's group (it is open)"));
    }
    // A parent with SECBIT_NO_SETUID_FIXUP would leave us capable though no longer root.
    let caps = capabilities().map_err(call("capget"))?;
    if caps.iter().any(|set| set.effective != 0 || set.permitted != 0) {
        return Err(DropError::NotProved("the set of capabilities (it is not empty)"));
    }
    Ok(())
}

/// One half of the kernel's capability sets (capget(2), version 3 has two).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySet {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3` with pid 0 = this thread (capget(2)).
const THIS_THREAD: CapabilityHeader = CapabilityHeader { version: 0x2008_0522, pid: 0 };

fn capabilities() -> Result<[CapabilitySet; 2], Errno> {
    let mut header = THIS_THREAD;
    let mut sets = [CapabilitySet::default(); 2];
    // SAFETY: capget(2) reads the header and fills two sets for version 3; both live here, and
    // their layout is the kernel's (linux/capability.h).
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    Errno::result(result).map(|_| sets)
}

/// Empties the inheritable and ambient sets: the only capabilities that would pass an exec of the
/// user (capabilities(7)). The permitted set goes with setresuid.
fn clear_handed_down_capabilities() -> Result<(), Errno> {
    let mut sets = capabilities()?;
    for set in &mut sets {
        set.inheritable = 0;
    }
    let mut header = THIS_THREAD;
    // SAFETY: as in `capabilities`; the kernel only reads both.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    Errno::result(result)?;
    // SAFETY: prctl(2) with numbers only; the unused arguments must be 0.
    let result =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    match Errno::result(result) {
        // A kernel before 4.3 has no ambient set to clear.
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Gives the command a session keyring of its own, so that it cannot read keys of heeler's
/// (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING).
///
/// # Errors
/// When the kernel has keyrings, allows them, and still failed.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the name is the null pointer: an anonymous keyring (keyctl(2)); no memory is read.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>())
    };
    match Errno::result(result) {
        // No keyrings in this kernel or this container: then there are none to keep apart.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
