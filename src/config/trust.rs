//! Whose word counts: every step of a path must belong to somebody trusted, and nobody else may
//! change it. Used for conf.d (whoever can write there commands root) and for the programs that run
//! as root (whoever can replace one is root).
//!
//! Because every directory on the way is only in trusted hands, nobody else can change a path
//! between the look and the open; the file itself is judged once more by its open descriptor.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;

use crate::model::limits;
use crate::model::password::Password;
use crate::model::process::Uid;
use crate::model::text::escape;

/// Who is trusted.
#[derive(Clone, Debug)]
pub struct Rule {
    owners: Vec<Uid>,
}

/// Why a path is not used.
#[derive(Debug)]
pub enum Refusal {
    /// It cannot be looked at.
    Io(io::Error),
    /// Somebody else could change it: what, and the command that mends it.
    Unsafe {
        /// Names the step, its owner and its mode.
        message: String,
        /// The command.
        hint: String,
    },
}

/// What a path led to.
#[derive(Debug)]
pub struct Resolved {
    /// The path without symbolic links.
    pub path: PathBuf,
    /// The owners met on the way.
    pub owners: BTreeSet<Uid>,
}

const LINKS_MAX: u32 = 40;
const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;

impl Rule {
    /// Trusts root and these.
    #[must_use]
    pub fn root_and(others: impl IntoIterator<Item = Uid>) -> Self {
        Self { owners: [Uid(0)].into_iter().chain(others).collect() }
    }

    /// Follows an absolute path, links included, and judges every step of it.
    ///
    /// # Errors
    /// At the first step that is missing or that somebody else could change.
    pub fn resolve(&self, path: &Path) -> Result<Resolved, Refusal> {
        let mut todo = parts(path);
        let mut resolved = Resolved { path: PathBuf::from("/"), owners: BTreeSet::new() };
        let mut links = 0;
        self.judge(&resolved.path, &std::fs::symlink_metadata("/").map_err(Refusal::Io)?)?;
        while let Some(part) = todo.pop() {
            if part == ".." {
                resolved.path.pop();
                continue;
            }
            let step = resolved.path.join(&part);
            let meta = std::fs::symlink_metadata(&step).map_err(Refusal::Io)?;
            self.judge(&step, &meta)?;
            resolved.owners.insert(Uid(meta.uid()));
            if !meta.file_type().is_symlink() {
                resolved.path = step;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Refusal::Io(io::Error::from_raw_os_error(libc::ELOOP)));
            }
            let target = std::fs::read_link(&step).map_err(Refusal::Io)?;
            if target.is_absolute() {
                resolved.path = PathBuf::from("/");
            }
            todo.extend(parts(&target));
        }
        Ok(resolved)
    }

    /// Opens `name` in a directory that [`Rule::resolve`] gave, and reads at most `bytes_max` of
    /// it. Never waits for another process (a FIFO), and reads nothing but a regular file.
    ///
    /// # Errors
    /// As [`Rule::resolve`]; [`io::ErrorKind::FileTooLarge`] when there is more.
    pub fn read(&self, dir: &Path, name: &OsString, bytes_max: usize) -> Result<Contents, Refusal> {
        let path = dir.join(name);
        let (file, owners) = match open(&path) {
            Ok(file) => (file, BTreeSet::new()),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                let resolved = self.resolve(&path)?;
                (open(&resolved.path).map_err(Refusal::Io)?, resolved.owners)
            }
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                return Err(not_a_file(&path, "a socket"));
            }
            Err(error) => return Err(Refusal::Io(error)),
        };
        let meta = file.metadata().map_err(Refusal::Io)?;
        if !meta.is_file() {
            let kind = if meta.is_dir() { "a directory" } else { "a device or a pipe" };
            return Err(not_a_file(&path, kind));
        }
        self.judge(&path, &meta)?;
        let mut contents = Contents { bytes: Vec::new(), owners };
        contents.owners.insert(Uid(meta.uid()));
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        let mut bounded = file.take(limit.saturating_add(1));
        bounded.read_to_end(&mut contents.bytes).map_err(Refusal::Io)?;
        if contents.bytes.len() > bytes_max {
            return Err(Refusal::Io(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        Ok(contents)
    }

    fn judge(&self, path: &Path, meta: &Metadata) -> Result<(), Refusal> {
        let (owner, mode) = (Uid(meta.uid()), meta.mode() & 0o7777);
        let shown = escape(&path.to_string_lossy());
        let quoted =
            shlex::try_quote(&shown).map_or_else(|_| shown.clone(), |text| text.into_owned());
        if !self.owners.contains(&owner) {
            let trusted = self.owners.last().copied().unwrap_or(Uid(0));
            return Err(Refusal::Unsafe {
                message: format!(
                    "{shown} is owned by {} (mode {mode:04o}), who could change it",
                    name(owner)
                ),
                hint: format!(
                    "if that is right, give it to {}: chown {trusted} {quoted}",
                    name(trusted)
                ),
            });
        }
        // The mode of a link means nothing; an entry of a sticky directory is safe from all but its
        // owner.
        let sticky = meta.is_dir() && mode & STICKY != 0;
        if meta.file_type().is_symlink() || sticky {
            return Ok(());
        }
        let others = mode & WRITABLE_BY_OTHERS != 0;
        let group = mode & WRITABLE_BY_GROUP != 0 && !private_group(meta);
        if others || group {
            let by = if others { "everybody".to_owned() } else { format!("group {}", meta.gid()) };
            let owner = name(owner);
            return Err(Refusal::Unsafe {
                message: format!("{shown} is writable by {by} (owner {owner}, mode {mode:04o})"),
                hint: format!("take that away: chmod go-w {quoted}"),
            });
        }
        Ok(())
    }
}

/// What was read.
#[derive(Debug)]
pub struct Contents {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The owners of the file, and of the steps when it is a link.
    pub owners: BTreeSet<Uid>,
}

/// Distributions give each user a group of the same number and a umask of 002; group-writable then
/// is writable by the owner. Never for root's group, which has members.
fn private_group(meta: &Metadata) -> bool {
    meta.uid() != 0 && meta.gid() == meta.uid()
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn not_a_file(path: &Path, kind: &str) -> Refusal {
    Refusal::Unsafe {
        message: format!("{} is {kind}, not a regular file", escape(&path.to_string_lossy())),
        hint: "move it away, or give it a name that does not end in .toml".to_owned(),
    }
}

/// The steps of a path, last first.
fn parts(path: &Path) -> Vec<OsString> {
    let step = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    let mut parts: Vec<_> = path.components().filter_map(step).collect();
    parts.reverse();
    parts
}

fn name(uid: Uid) -> String {
    if uid == Uid(0) { "root".to_owned() } else { format!("uid {uid}") }
}

/// Whether nobody else may read a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Secret {
    /// Nobody.
    Yes,
    /// Whoever likes.
    No,
}

/// Reads a file that only root or heeler's own user can write.
///
/// # Errors
/// Says which file, what is wrong with it, and what to do.
pub fn read_trusted(
    path: &Path,
    own: Uid,
    secret: Secret,
    bytes_max: usize,
) -> Result<String, String> {
    let shown = path.display();
    let fail = |error: io::Error| format!("{shown} cannot be read: {error}");
    let path = match Rule::root_and([own]).resolve(path) {
        Ok(path) => path,
        Err(Refusal::Io(error)) => return Err(fail(error)),
        Err(Refusal::Unsafe { message, hint }) => {
            return Err(format!("{shown} is not used: {message}; {hint}"));
        }
    };
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path.path).map_err(fail)?;
    let facts = file.metadata().map_err(fail)?;
    if !facts.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    if secret == Secret::Yes && facts.mode() & 0o077 != 0 {
        return Err(format!(
            "{shown} is not used: others may read it (mode {:04o}); `chmod 600 {shown}`",
            facts.mode() & 0o7777
        ));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > bytes_max {
        return Err(format!("{shown} is longer than {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| format!("{shown} is not text (UTF-8)"))
}

/// Reads a password from a file that only root or heeler's own user can read or write.
///
/// # Errors
/// Says which file, what is wrong with it, and what to do.
pub fn read_password(path: &Path, own: Uid) -> Result<Password, String> {
    let text = read_trusted(path, own, Secret::Yes, limits::PASSWORD_BYTES_MAX)
        .map_err(|why| format!("the password_file {why}"))?;
    Password::of_file(&text).ok_or_else(|| {
        let what = match text.trim().is_empty() {
            true => "is empty",
            false => "is not one line, or has control characters in it",
        };
        format!(
            "the password_file {} {what}: it holds the password and nothing else",
            path.display()
        )
    })
}
