//! What survives `kill -9` and power loss: wishes, incidents, counters, alerts, last good definitions.
//!
//! Plain files that a person can read, no database: one journal of sealed lines ([`journal`]), a file of
//! events ([`events`]), one file per alert ([`outbox`]), one file per definition ([`definitions`]). One thread owns them all
//! ([`thread`]); nobody else waits for a disk. What must hold:
//!
//! - An old good file is replaced only by a whole new one: tmp, fsync, rename, fsync of the directory.
//! - What could not be written is kept in memory and tried again; it is said once, not lost.
//! - What cannot be read is skipped or set aside, and said; the rest is used.
#![forbid(unsafe_code)]

mod appended;
pub mod definitions;
pub mod events;
mod file;
pub mod journal;
mod letters;
mod line;
pub mod outbox;
mod record;
pub mod starts;
pub mod thread;

use std::path::{Path, PathBuf};
use std::{fmt, io};

pub use letters::MailStanding;
pub use thread::{Ack, Loaded, Message, Settings, Shutdown, StoreHandle};

/// A step on disk that failed: which, where, why, and what to do.
#[derive(Debug)]
pub struct StoreError {
    step: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl StoreError {
    /// `step` completes "failed to ... PATH".
    fn new(step: &'static str, path: &Path, cause: io::Error) -> Self {
        Self { step, path: path.to_owned(), cause }
    }

    /// Whether it may pass while heeler runs: a disk that is full, read-only, or does not answer rightly.
    /// What is wrong with an owner or a path stays wrong.
    fn may_pass(&self) -> bool {
        let kind = self.cause.kind();
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        full.contains(&kind)
            || kind == io::ErrorKind::ReadOnlyFilesystem
            || self.cause.raw_os_error() == Some(nix::errno::Errno::EIO as i32)
    }

    /// For `map_err`.
    fn at(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::new(step, path, cause)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, path, cause } = self;
        #[expect(clippy::wildcard_enum_match_arm, reason = "not our enum, and open")]
        let advice = match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space there (df -h, df -i)"
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "make the file system writable, or set state_dir in heeler.toml to another one"
            }
            io::ErrorKind::PermissionDenied => {
                "it must belong to the user heeler runs as; chown it, or set state_dir in heeler.toml"
            }
            _ => "check the file system (dmesg), or set state_dir in heeler.toml to another one",
        };
        write!(f, "failed to {step} {}: {cause}; {advice}", path.display())
    }
}

impl std::error::Error for StoreError {}
