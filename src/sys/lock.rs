//! A lock that lives as long as any process holds its open file description (flock(2)).
//!
//! The keeper takes it and hands that very description to the shim: there is no moment at which
//! neither has it. The file is never unlinked: two files of one name would be two locks.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A lock that is held. Dropping it closes this process's descriptor and never says "unlock", so
/// whoever inherited the description keeps the lock.
#[derive(Debug)]
pub struct Lock(pub(super) OwnedFd);

/// What came of trying.
#[derive(Debug)]
pub enum TryLock {
    /// It was free and is ours now.
    Taken(Lock),
    /// Somebody lives who holds it.
    Busy,
}

/// Takes the lock of this file, made where absent, without waiting.
///
/// # Errors
/// When the file cannot be opened or locked; a lock held by somebody else is no error.
pub fn try_lock(path: &Path) -> io::Result<TryLock> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    // SAFETY: flock(2) on a descriptor that `file` owns; no memory is involved.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(TryLock::Taken(Lock(file.into())));
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(TryLock::Busy),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_busy_and_a_dropped_one_is_free() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("action.lock");
        let first = try_lock(&path).expect("try");
        assert!(matches!(first, TryLock::Taken(_)));
        assert!(matches!(try_lock(&path).expect("try"), TryLock::Busy));
        drop(first);
        assert!(matches!(try_lock(&path).expect("try"), TryLock::Taken(_)));
    }

    #[test]
    fn a_copy_of_the_description_keeps_it_when_the_first_holder_lets_go() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("action.lock");
        let TryLock::Taken(lock) = try_lock(&path).expect("try") else { panic!("it was free") };
        let inherited = lock.0.try_clone().expect("a copy");
        drop(lock);
        assert!(matches!(try_lock(&path).expect("try"), TryLock::Busy));
        drop(inherited);
        assert!(matches!(try_lock(&path).expect("try"), TryLock::Taken(_)));
    }
}
