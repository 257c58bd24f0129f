//! Whether looking at a file can hang: only file systems of this machine answer for sure.

use std::path::Path;

use nix::sys::statfs::{self, FsType, statfs};

use crate::sys::pidfile;

/// Whether looking at `path` cannot hang, now or later: its file is on a file system that needs no
/// network and no other process to answer (statfs(2), magic numbers of linux/magic.h), and only root can
/// change what the path leads to. Whoever owns a step of it may put a link to a dead NFS there at any
/// moment. What is not known not to hang counts as able to. Itself it can hang: not on the loop.
#[must_use]
pub fn cannot_hang(path: &Path) -> bool {
    pidfile::only_root_decides(path) && is_local(path)
}

fn is_local(path: &Path) -> bool {
    const XFS: FsType = statfs::XFS_SUPER_MAGIC;
    let local = [
        statfs::EXT4_SUPER_MAGIC,
        statfs::TMPFS_MAGIC,
        statfs::BTRFS_SUPER_MAGIC,
        statfs::OVERLAYFS_SUPER_MAGIC,
        XFS,
    ];
    statfs(path).ok().is_some_and(|fs| local.contains(&fs.filesystem_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_not_a_place_for_pidfiles() {
        assert!(!is_local(Path::new("/proc/self/stat")));
        assert!(!is_local(Path::new("/nonexistent/dir/x.pid")));
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("x.pid"), dir.path().join("link.pid"));
        std::fs::write(&file, "77").expect("write");
        assert!(is_local(&file));
        std::os::unix::fs::symlink("/proc/self/stat", &link).expect("link");
        assert!(!is_local(&link), "what counts is where the link leads");
    }

    #[test]
    fn what_another_user_can_replace_may_hang_at_the_next_look() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("x.pid");
        std::fs::write(&file, "77").expect("write");
        // Below /tmp, where everybody can write.
        assert!(!cannot_hang(&file));
    }
}
