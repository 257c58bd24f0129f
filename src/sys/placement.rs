//! Where in the hierarchy of control groups heeler and what it starts are put: below a group that a service
//! manager left to it (systemd's `Delegate=`), heeler itself in `keeper`, each service in `svc-NAME`.
//!
//! No controller is enabled there: systemd could then put a new heeler into the group no more (a group with
//! controllers for its children has no processes of its own), and the children of the last one keep the group
//! alive. What the groups are for is to know what belongs to a service, whatever session it is in.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::ids::ServiceName;

/// Where the unified hierarchy is: alone, or beside the old ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// heeler's own group.
const KEEPER: &str = "keeper";
/// How the groups of services begin.
const SERVICE: &str = "svc-";
/// What a manager marks a group with that it leaves to whoever is in it (systemd.resource-control(5)).
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// A group that was left to heeler.
#[derive(Debug)]
pub struct Delegated {
    /// As in /proc/PID/cgroup.
    path: String,
    place: PathBuf,
}

impl Delegated {
    /// The group that this process is in, if it was left to it.
    #[must_use]
    pub fn find() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        // systemd 254 puts heeler into its leaf by itself, where it is told to.
        let path = own.strip_suffix(&format!("/{KEEPER}")).unwrap_or(own);
        let place = place(path)?;
        (path.len() > 1 && is_delegated(&place)).then(|| Self { path: path.to_owned(), place })
    }

    /// Puts this process into its leaf, and removes the groups of services that nothing is in.
    ///
    /// # Errors
    /// When it stays where it is.
    pub fn settle(&self) -> io::Result<()> {
        enter(&format!("{}/{KEEPER}", self.path))?;
        for entry in fs::read_dir(&self.place)?.flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(SERVICE)) {
                // One that is in use is not removed by this.
                let _in_use = fs::remove_dir(entry.path());
            }
        }
        Ok(())
    }

    /// The group of a service, as in /proc/PID/cgroup. It is there once something was started in it.
    #[must_use]
    pub fn of(&self, service: &ServiceName) -> Box<str> {
        format!("{}/{SERVICE}{service}", self.path).into()
    }
}

/// Puts this process into a group, made if absent, below one that is there.
///
/// # Errors
/// When the group cannot be made or entered; the process stays where it was.
pub fn enter(path: &str) -> io::Result<()> {
    let (above, name) = path.rsplit_once('/').ok_or(io::ErrorKind::InvalidInput)?;
    let group = place(above).ok_or(io::ErrorKind::NotFound)?.join(name);
    let mut last = Ok(());
    // An empty one may be swept away between the two steps.
    for _ in 0..2 {
        match fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        last = fs::write(group.join("cgroup.procs"), "0");
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Where a group of the unified hierarchy is in the file system.
fn place(path: &str) -> Option<PathBuf> {
    let mount = MOUNTS.iter().find(|mount| Path::new(mount).join("cgroup.controllers").exists())?;
    let place = PathBuf::from(format!("{mount}{path}"));
    place.join("cgroup.procs").exists().then_some(place)
}

fn is_delegated(place: &Path) -> bool {
    let Ok(path) = CString::new(place.as_os_str().as_encoded_bytes()) else { return false };
    MARKS.iter().filter_map(|mark| CString::new(*mark).ok()).any(|mark| {
        let mut value = [0_u8; 2];
        // SAFETY: both strings end with a NUL and live for the call, which writes at most the two bytes of
        // the buffer that it is told of.
        let read = unsafe {
            libc::getxattr(path.as_ptr(), mark.as_ptr(), value.as_mut_ptr().cast(), value.len())
        };
        read == 1 && value[0] == b'1'
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_cannot_be_entered_is_an_error_and_nothing_is_made() {
        assert!(enter("/no-such-group-of-heeler/svc-shop").is_err());
        assert!(enter("svc").is_err());
    }

    #[test]
    fn a_group_is_a_services_own_by_its_name() {
        let delegated =
            Delegated { path: "/system.slice/heeler.service".into(), place: "/x".into() };
        let name = ServiceName::parse("shop@1").expect("a name");
        assert_eq!(&*delegated.of(&name), "/system.slice/heeler.service/svc-shop@1");
    }
}
