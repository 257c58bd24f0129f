//! Whether looking at a file can hang: only file systems of this machine answer for sure.

use std::path::Path;

use nix::sys::statfs::{self, FsType, statfs};

/// Whether the directory of `path` is on a file system that needs no network and no other process to
/// answer (statfs(2), magic numbers of linux/magic.h). What is not known not to hang counts as able to.
/// Itself it can hang: not on the loop.
#[must_use]
pub fn is_local(path: &Path) -> bool {
    const XFS: FsType = statfs::XFS_SUPER_MAGIC;
    let local = [
        statfs::EXT4_SUPER_MAGIC,
        statfs::TMPFS_MAGIC,
        statfs::BTRFS_SUPER_MAGIC,
        statfs::OVERLAYFS_SUPER_MAGIC,
        XFS,
    ];
    path.parent()
        .and_then(|dir| statfs(dir).ok())
        .is_some_and(|fs| local.contains(&fs.filesystem_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_not_a_place_for_pidfiles() {
        assert!(!is_local(Path::new("/proc/self/stat")));
        assert!(!is_local(Path::new("/nonexistent/dir/x.pid")));
        assert!(is_local(
            &tempfile::tempdir()
                .expect("a directory")
                .path()
                .join("x.pid")
        ));
    }
}
