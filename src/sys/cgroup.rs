//! The processes of a control group, where the machine mounts its hierarchy (cgroups(7)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::limits;
use crate::model::process::{Pid, Uid};
use crate::model::unit::Manager;

/// Where systemd's hierarchy is: unified, unified beside the old ones, and the old one of its own.
const MOUNTS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
/// Groups within groups.
const DEPTH_MAX: usize = 8;

/// The control group of a unit as its manager named it, where that may be one of its own: the word of a
/// user's manager counts only below the group that the machine's manager gave it.
#[must_use]
pub fn of_unit(manager: Manager, user: Uid, cgroup: &str) -> Option<Box<str>> {
    let plain =
        cgroup.starts_with('/') && !cgroup.split('/').any(|part| part == ".." || part == ".");
    let own = match manager {
        Manager::User => cgroup.starts_with(&of_manager(user)),
        Manager::System => cgroup.ends_with(".service") || cgroup.contains(".service/"),
    };
    (plain && own).then(|| cgroup.into())
}

/// Where the groups of the units of a user's manager begin.
#[must_use]
pub fn of_manager(user: Uid) -> String {
    format!("/user.slice/user-{user}.slice/user@{user}.service/")
}

/// The processes in a group and in all groups below it.
///
/// # Errors
/// When it cannot be read. One that is not there has no processes.
pub fn processes(cgroup: &str) -> io::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    let places = MOUNTS.map(|mount| PathBuf::from(format!("{mount}{cgroup}")));
    if let Some(place) = places.iter().find(|place| place.join("cgroup.procs").exists()) {
        collect(place, DEPTH_MAX, &mut pids)?;
    }
    Ok(pids)
}

fn collect(place: &Path, depth: usize, pids: &mut Vec<Pid>) -> io::Result<()> {
    let text = match fs::read_to_string(place.join("cgroup.procs")) {
        Ok(text) => text,
        // It was taken away meanwhile; ENODEV is what an open one says of that.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        Err(error) => return Err(error),
    };
    let room = limits::CGROUP_PROCESSES_MAX.saturating_sub(pids.len());
    // 0 is a process of another pid namespace.
    let numbers = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1);
    pids.extend(numbers.take(room).map(Pid));
    if depth == 0 || pids.len() >= limits::CGROUP_PROCESSES_MAX {
        return Ok(());
    }
    for entry in fs::read_dir(place)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth - 1, pids)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_manager_names_groups_of_its_own_only() {
        let user = |cgroup| of_unit(Manager::User, Uid(1500), cgroup).is_some();
        let own = "/user.slice/user-1500.slice/user@1500.service/app.slice/puma.service";
        assert!(user(own));
        assert!(!user("/user.slice/user-1501.slice/user@1501.service/app.slice/puma.service"));
        assert!(!user("/system.slice/sshd.service") && !user("/") && !user(""));
        assert!(!user("/user.slice/user-1500.slice/user@1500.service/../../../system.slice"));
        let system = |cgroup| of_unit(Manager::System, Uid(0), cgroup).is_some();
        assert!(system("/system.slice/nginx.service") && system("/a.slice/b.service/sub"));
        assert!(!system("/init.scope") && !system("/system.slice") && !system("/"));
    }

    #[test]
    fn a_group_that_is_not_there_has_no_processes() {
        assert_eq!(processes("/system.slice/no-such.service").expect("reads"), []);
    }
}
