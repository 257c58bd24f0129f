//! The kernel's out-of-memory killer, as its counters tell: of a control group (`memory.events`, or
//! `memory.oom_control` of the old hierarchy) and of the whole machine (`oom_kill` of /proc/vmstat).
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::model::limits;
use crate::model::process::Pid;
use crate::sys::procfs;

/// Where the unified hierarchy is.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Where the old hierarchy of the memory controller is.
const OLD: &str = "/sys/fs/cgroup/memory";
const COUNTER: &str = "oom_kill";

/// The counter of the control group that a process's memory counts in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupKills {
    /// The group, as in /proc/PID/cgroup.
    pub group: Box<str>,
    file: PathBuf,
    count: u64,
}

impl GroupKills {
    /// As it stands; none where no group of the process has a counter, or nobody may read it.
    #[must_use]
    pub fn of(pid: Pid) -> Option<Self> {
        let bytes = procfs::read(pid, "cgroup", limits::PROC_FILE_BYTES_MAX).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let old = text.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path);
        let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
        old.and_then(|path| Self::at(Path::new(OLD), path, "memory.oom_control")).or_else(|| {
            let path = unified?;
            UNIFIED.iter().find_map(|mount| Self::near(Path::new(mount), path))
        })
    }

    /// The group itself, or the nearest above it that counts memory.
    fn near(mount: &Path, path: &str) -> Option<Self> {
        let above = path.char_indices().rev().filter(|(_, c)| *c == '/').map(|(at, _)| &path[..at]);
        [path].into_iter().chain(above).find_map(|path| Self::at(mount, path, "memory.events"))
    }

    fn at(mount: &Path, path: &str, file: &str) -> Option<Self> {
        let plain = !path.split('/').any(|part| part == "..");
        let file = mount.join(path.trim_start_matches('/')).join(file);
        let count = read(&file).filter(|_| plain)?;
        Some(Self { group: path.into(), file, count })
    }

    /// Whether it took somebody since. A group that is gone does not tell any more.
    #[must_use]
    pub fn rose(&self) -> bool {
        read(&self.file).is_some_and(|count| count > self.count)
    }
}

/// How often it took a process of this machine since boot.
#[must_use]
pub fn of_machine() -> Option<u64> {
    read(Path::new("/proc/vmstat"))
}

fn read(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(COUNTER)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_group_that_counts_memory_is_asked() {
        let dir = tempfile::tempdir().expect("a directory");
        let unit = dir.path().join("system.slice/heeler.service");
        fs::create_dir_all(unit.join("svc-shop")).expect("creates");
        let events = |kills: u32| {
            let text = format!("low 0\nhigh 0\nmax 9\noom 4\noom_kill {kills}\noom_group_kill 7\n");
            fs::write(unit.join("memory.events"), text).expect("writes");
        };
        events(2);
        let path = "/system.slice/heeler.service/svc-shop";
        let kills = GroupKills::near(dir.path(), path).expect("found");
        assert_eq!((&*kills.group, kills.count), ("/system.slice/heeler.service", 2));
        assert!(!kills.rose());
        events(3);
        assert!(kills.rose());
        fs::remove_file(unit.join("memory.events")).expect("removes");
        assert!(!kills.rose(), "a group that is gone tells nothing");
        assert_eq!(GroupKills::near(dir.path(), path), None);
        assert_eq!(GroupKills::at(dir.path(), "/../x", "memory.events"), None);
    }

    #[test]
    fn the_machine_has_a_counter() {
        assert!(of_machine().is_some());
    }
}
