//! How a check comes to a file: a walk along its path that its owner cannot lead astray.
//!
//! heeler is root and tells people what it saw. A user who could put a symbolic link into the path would
//! have root read any file for him. So each step is opened without following, a link on the way counts
//! only when it is root's (nobody else can make one of those), and a link at the end only when the
//! definition says `follow = true`. What was found is held, and what is read later is that very file.
//! Sources: path_resolution(7), symlink(7), openat(2), proc_pid_fd(5).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::model::limits;
use crate::model::observation::Observation;

/// What is at the end of a path, held.
#[derive(Debug)]
pub struct Place {
    /// What the kernel says of it.
    pub stat: FileStat,
    /// Who could have chosen it.
    pub reach: Reach,
    /// Opened with `O_PATH`: it can be asked, not read.
    held: OwnedFd,
    /// The directory it was found in, and its name there.
    directory: OwnedFd,
    name: OsString,
}

/// What to do about a symbolic link that is not root's, and about one at the end of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Links {
    /// Do not look.
    Refuse,
    /// Follow: the definition asks for it.
    Follow,
}

/// Who could have chosen what a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// No link that others could have made was followed, and the file has no second name: what is in
    /// it may be shown.
    Plain,
    /// Others could have led here. What is in it is never shown.
    Planted,
}

/// Why a path leads nowhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Miss {
    /// Nothing is there.
    Absent(String),
    /// It cannot be told.
    Untold(String),
}

impl From<Miss> for Observation {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Absent(why) => Self::failed(&why),
            Miss::Untold(why) => Self::unknown(&why),
        }
    }
}

/// Walks to what a path names.
///
/// # Errors
/// When nothing is there, or it may not be looked at.
pub fn find(path: &Path, links: Links) -> Result<Place, Miss> {
    let root = || step(None, &OsString::from("/"), path);
    let mut directory = root()?;
    let mut held = step(None, &OsString::from("/"), path)?;
    let mut reach = Reach::Plain;
    let mut last = OsString::from("/");
    let mut ahead: VecDeque<OsString> = names(path).collect();
    let (mut steps, mut followed) = (0, 0);
    while let Some(name) = ahead.pop_front() {
        steps += 1;
        if steps > limits::PATH_STEPS_MAX {
            return Err(untold(path, "the path has too many steps"));
        }
        let next = step(Some(&directory), &name, path)?;
        let stat = fstat(&next).map_err(|error| errno(path, error))?;
        match kind(&stat) {
            SFlag::S_IFLNK => {
                followed += 1;
                if followed > limits::PATH_LINKS_MAX {
                    return Err(untold(path, "its symbolic links go round in circles"));
                }
                let own = stat.st_uid == 0 || stat.st_uid == nix::unistd::geteuid().as_raw();
                match links {
                    Links::Refuse if ahead.is_empty() => {
                        let why = "it is a symbolic link: say `follow = true` if that is meant";
                        return Err(untold(path, why));
                    }
                    Links::Refuse if !own => {
                        let name = name.to_string_lossy();
                        let why = format!(
                            "{name} in it is a symbolic link of uid {}, who could lead heeler to any \
                             file: name the path without it, or say `follow = true`",
                            stat.st_uid
                        );
                        return Err(untold(path, why));
                    }
                    Links::Follow if !own => reach = Reach::Planted,
                    Links::Refuse | Links::Follow => {}
                }
                // An empty name reads the very link that is held (readlinkat(2)).
                let target = readlinkat(&next, "").map_err(|error| errno(path, error))?;
                let target = Path::new(&target);
                if target.is_absolute() {
                    directory = root()?;
                    held = root()?;
                }
                for name in names(target).collect::<Vec<_>>().into_iter().rev() {
                    ahead.push_front(name);
                }
            }
            SFlag::S_IFDIR if !ahead.is_empty() => {
                directory = next;
                held = step(Some(&directory), &OsString::from("."), path)?;
            }
            _ if !ahead.is_empty() => {
                let text = format!("{}: {} is no directory", path.display(), name.display());
                return Err(Miss::Absent(text));
            }
            _ => {
                held = next;
                last = name;
            }
        }
    }
    let stat = fstat(&held).map_err(|error| errno(path, error))?;
    let beside = fstat(&directory).map_err(|error| errno(path, error))?;
    if is_perhaps_linked(&stat, &beside) {
        reach = Reach::Planted;
    }
    Ok(Place { stat, reach, held, directory, name: last })
}

impl Place {
    /// Its type, as a word with its article.
    #[must_use]
    pub fn is_a(&self) -> &'static str {
        match kind(&self.stat) {
            SFlag::S_IFREG => "a file",
            SFlag::S_IFDIR => "a directory",
            SFlag::S_IFIFO => "a FIFO",
            SFlag::S_IFSOCK => "a socket",
            SFlag::S_IFLNK => "a symbolic link",
            SFlag::S_IFCHR | SFlag::S_IFBLK => "a device",
            _ => "of a kind that heeler does not know",
        }
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        kind(&self.stat) == SFlag::S_IFREG
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        kind(&self.stat) == SFlag::S_IFDIR
    }

    /// Opens a regular file for reading: the very one that was found, whatever has its name by now.
    ///
    /// # Errors
    /// As the kernel says; what is not a regular file is never opened.
    pub fn open(&self) -> io::Result<File> {
        if !self.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        reopen(&self.held)
    }

    /// What is in it, where it is a directory.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn list(&self) -> io::Result<std::fs::ReadDir> {
        std::fs::read_dir(own_path(&self.held))
    }

    /// Looks for a regular file with this inode in the directory where this one was found, and says who could
    /// have chosen it.
    #[must_use]
    pub fn sibling(&self, inode: u64) -> Option<(File, Reach)> {
        use std::os::unix::fs::DirEntryExt;
        let entries = std::fs::read_dir(own_path(&self.directory)).ok()?;
        let entry =
            entries.take(limits::ROTATED_AMONG_MAX).flatten().find(|entry| entry.ino() == inode)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let held =
            openat(&self.directory, entry.file_name().as_os_str(), flags, Mode::empty()).ok()?;
        let stat = fstat(&held).ok()?;
        let same = kind(&stat) == SFlag::S_IFREG && stat.st_ino == inode;
        same.then(|| Some((reopen(&held).ok()?, self.reach_of(&stat)))).flatten()
    }

    /// Opens the regular file beside it whose name is its own and this ending, and says who could have
    /// chosen it.
    #[must_use]
    pub fn beside(&self, ending: &str) -> Option<(File, Reach)> {
        let mut name = self.name.clone();
        name.push(ending);
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let held = openat(&self.directory, name.as_os_str(), flags, Mode::empty()).ok()?;
        let stat = fstat(&held).ok()?;
        let is_file = kind(&stat) == SFlag::S_IFREG;
        is_file.then(|| Some((reopen(&held).ok()?, self.reach_of(&stat)))).flatten()
    }

    /// Who could have chosen a file that is in the same directory.
    fn reach_of(&self, stat: &FileStat) -> Reach {
        match fstat(&self.directory) {
            Ok(directory) if !is_perhaps_linked(stat, &directory) => self.reach,
            Ok(_) | Err(_) => Reach::Planted,
        }
    }
}

/// Whether a file may be somebody else's, linked into a directory: whoever may write to that may have done so
/// (link(2)).
fn is_perhaps_linked(stat: &FileStat, directory: &FileStat) -> bool {
    let others_write = directory.st_mode & 0o022 != 0 || directory.st_uid != stat.st_uid;
    kind(stat) == SFlag::S_IFREG && stat.st_nlink > 1 && others_write
}

/// What the mode says the thing is.
fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn own_path(held: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", held.as_raw_fd())
}

fn reopen(held: &OwnedFd) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    File::options().read(true).custom_flags(flags.bits()).open(own_path(held))
}

fn step(from: Option<&OwnedFd>, name: &OsString, path: &Path) -> Result<OwnedFd, Miss> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = match from {
        Some(from) => openat(from, name.as_os_str(), flags, Mode::empty()),
        None => open(name.as_os_str(), flags, Mode::empty()),
    };
    opened.map_err(|error| errno(path, error))
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn errno(path: &Path, error: Errno) -> Miss {
    if error == Errno::ENOENT {
        return Miss::Absent(format!("{} does not exist", path.display()));
    }
    if error == Errno::ENOTDIR {
        return Miss::Absent(format!("{}: a step of it is no directory", path.display()));
    }
    untold(path, io::Error::from(error))
}

fn untold(path: &Path, why: impl Display) -> Miss {
    Miss::Untold(format!("failed to look at {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_at_the_end_is_followed_only_on_request() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "x").expect("write");
        symlink("file", &link).expect("link");
        assert!(
            matches!(find(&link, Links::Refuse), Err(Miss::Untold(why)) if why.contains("follow"))
        );
        let found = find(&link, Links::Follow).expect("is there");
        assert_eq!((found.stat.st_size, found.reach), (1, Reach::Plain));
        symlink("loop", dir.path().join("loop")).expect("link");
        let looped = find(&dir.path().join("loop"), Links::Follow);
        assert!(matches!(looped, Err(Miss::Untold(why)) if why.contains("circles")));
    }

    #[test]
    fn a_link_on_the_way_counts_when_it_is_ours_and_paths_may_go_up() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("real")).expect("mkdir");
        fs::write(dir.path().join("real/file"), "xy").expect("write");
        symlink(dir.path().join("real"), dir.path().join("way")).expect("link");
        for path in ["way/file", "real/../way/./file"] {
            let found = find(&dir.path().join(path), Links::Refuse).expect("is there");
            assert_eq!(found.stat.st_size, 2, "{path}");
        }
        assert!(find(Path::new("/"), Links::Refuse).expect("is there").is_directory());
        assert!(find(dir.path(), Links::Refuse).expect("is there").is_directory());
        let below = find(&dir.path().join("real/file/x"), Links::Refuse);
        assert!(matches!(below, Err(Miss::Absent(_))), "{below:?}");
        let gone = find(&dir.path().join("nothing/x"), Links::Refuse);
        assert!(matches!(gone, Err(Miss::Absent(_))), "{gone:?}");
        let long = find(&dir.path().join("x".repeat(300)), Links::Refuse);
        assert!(matches!(long, Err(Miss::Untold(_))), "{long:?}");
    }

    #[test]
    fn what_was_found_is_read_whatever_has_its_name_by_now() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, "first").expect("write");
        let found = find(&path, Links::Refuse).expect("is there");
        fs::rename(&path, dir.path().join("old")).expect("rename");
        symlink("/etc/shadow", &path).expect("link");
        assert_eq!(io::read_to_string(found.open().expect("opens")).expect("reads"), "first");
        assert!(found.sibling(found.stat.st_ino).is_some(), "by its other name");
        assert!(found.sibling(1).is_none());
    }
}
