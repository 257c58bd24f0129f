//! heeler's own program file, held open: an upgrade replaces the path, never what is spawned.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;

use super::spawn::FD_FLOOR;

/// An O_PATH descriptor of the program to spawn (open(2)): pins the file, reads nothing.
#[derive(Debug)]
pub struct SelfExe(OwnedFd);

impl SelfExe {
    /// The running program; to be taken at start.
    ///
    /// # Errors
    /// When /proc is not there, or no descriptor is left.
    pub fn open() -> io::Result<Self> {
        Self::open_path(Path::new("/proc/self/exe"))
    }

    /// Another program file: for a caller that is not heeler itself (a test, a bench).
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_path(path: &Path) -> io::Result<Self> {
        let fd = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        super::spawn::raise(fd).map(Self)
    }

    /// The path that names it in a child that still has the descriptor (proc(5): /proc/self/fd).
    pub(super) fn path_in_child(&self) -> io::Result<CString> {
        debug_assert!(self.0.as_raw_fd() >= FD_FLOOR, "raised when opened");
        fcntl(&self.0, FcntlArg::F_GETFD)?;
        CString::new(format!("/proc/self/fd/{}", self.0.as_raw_fd())).map_err(io::Error::from)
    }
}
