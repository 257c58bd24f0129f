//! Files that are there whole or not at all.
//!
//! The order that must hold for a file to survive power loss: write a temporary file, fsync it,
//! rename it over the name, fsync the directory. Names are never followed through links and
//! temporary files are created anew, so nothing planted in the directory is written through.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::fcntl::OFlag;

use crate::model::limits;
use crate::model::time::Wall;
use crate::store::StoreError;

/// Makes a directory that only heeler's user can enter, if it is not there yet.
pub(super) fn make_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::at("create the directory", path))?;
    let facts = fs::metadata(path).map_err(StoreError::at("look at the directory", path))?;
    let own = nix::unistd::geteuid().as_raw();
    if facts.uid() != own {
        let cause = format!("it belongs to uid {}, and heeler runs as uid {own}", facts.uid());
        let cause = io::Error::new(io::ErrorKind::PermissionDenied, cause);
        return Err(StoreError::new("use the directory", path, cause));
    }
    if facts.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(StoreError::at("make private the directory", path))?;
    }
    Ok(())
}

/// Puts a whole file in place of whatever has the name, durable but for [`sync_dir`].
pub(super) fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let (path, tmp) = (dir.join(name), dir.join(format!(".{name}.tmp")));
    let written = write_new(&tmp, bytes)
        .map_err(StoreError::at("write", &tmp))
        .and_then(|()| fs::rename(&tmp, &path).map_err(StoreError::at("put in place", &path)));
    if written.is_err() {
        // Frees the space. If even that fails, the next try removes it first.
        let _ = fs::remove_file(&tmp);
    }
    written
}

fn write_new(tmp: &Path, bytes: &[u8]) -> io::Result<()> {
    absent_is_fine(fs::remove_file(tmp))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(tmp)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(StoreError::at("make durable the directory", dir))
}

/// [`put`] and [`sync_dir`].
pub(super) fn put_durably(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    put(dir, name, bytes)?;
    sync_dir(dir)
}

/// Removes a file; one that is not there is as good.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    absent_is_fine(fs::remove_file(path)).map_err(StoreError::at("remove", path))
}

/// Opens a regular file for reading. `None` when there is none.
pub(super) fn open(path: &Path) -> Result<Option<File>, StoreError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::new("open", path, error)),
    };
    let facts = file.metadata().map_err(StoreError::at("look at", path))?;
    if !facts.is_file() {
        let cause = io::Error::other("it is not a regular file");
        return Err(StoreError::new("read", path, cause));
    }
    Ok(Some(file))
}

/// Reads a file of at most `bytes_max`. `None` when there is none.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(StoreError::at("read", path))?;
    if bytes.len() > bytes_max {
        let cause = io::Error::other(format!("it is longer than {bytes_max} bytes"));
        return Err(StoreError::new("read", path, cause));
    }
    Ok(Some(bytes))
}

/// The names in a directory that end so, sorted.
pub(super) fn names(dir: &Path, suffix: &str) -> Result<Vec<String>, StoreError> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name.ends_with(suffix)
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    };
    list().map_err(StoreError::at("list", dir))
}

/// Gives `name` a second name that says what it is (`journal.bad-20260504T031502Z`), so that what
/// replaces it does not take it away; moves it where it cannot be linked. Says where it is now.
/// At most [`limits::SET_ASIDE_FILES_MAX`] are kept.
pub(super) fn set_aside(
    dir: &Path,
    name: &str,
    why: &str,
    now: Wall,
) -> Result<PathBuf, StoreError> {
    let path = dir.join(name);
    let stamp = stamp(now);
    let free = (0..=limits::SET_ASIDE_FILES_MAX)
        .map(|n| {
            dir.join(format!(
                "{name}.{why}-{stamp}{}",
                if n == 0 { String::new() } else { format!("-{n}") }
            ))
        })
        .find(|aside| fs::symlink_metadata(aside).is_err())
        .unwrap_or_else(|| dir.join(format!("{name}.{why}-{stamp}-last")));
    fs::hard_link(&path, &free)
        .or_else(|_| fs::rename(&path, &free))
        .map_err(StoreError::at("set aside", &path))?;
    sync_dir(dir)?;
    let mut old = Vec::new();
    for kind in ["bad", "newer", "poisoned"] {
        let prefix = format!("{name}.{kind}-");
        old.extend(names(dir, "")?.into_iter().filter(|n| n.starts_with(&prefix)));
    }
    // By the time in the name, whatever it was set aside for.
    old.sort_by_key(|n| n.rsplit_once(['d', 'r']).map(|(_, time)| time.to_owned()));
    for name in old.iter().take(old.len().saturating_sub(limits::SET_ASIDE_FILES_MAX)) {
        remove(&dir.join(name))?;
    }
    Ok(free)
}

/// A time in a file name: sorts as it passes.
pub(super) fn stamp(at: Wall) -> String {
    let time = i64::try_from(at.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{}ms", at.0), |t| t.strftime("%Y%m%dT%H%M%SZ").to_string())
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_planted_is_written_through() {
        let dir = tempfile::tempdir().expect("a directory");
        let outside = dir.path().join("outside");
        fs::write(&outside, "precious").expect("writes");
        for planted in ["x", ".x.tmp"] {
            std::os::unix::fs::symlink(&outside, dir.path().join(planted)).expect("links");
        }
        put_durably(dir.path(), "x", b"new").expect("replaces the links");
        assert_eq!(fs::read_to_string(&outside).expect("reads"), "precious");
        assert_eq!(fs::read_to_string(dir.path().join("x")).expect("reads"), "new");
        let mode = fs::metadata(dir.path().join("x")).expect("is there").mode();
        assert_eq!(mode & 0o7777, 0o600);
        std::os::unix::fs::symlink(&outside, dir.path().join("y")).expect("links");
        assert!(read(&dir.path().join("y"), 100).is_err());
    }

    #[test]
    fn only_so_many_files_are_kept_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        for second in 0..20 {
            put(dir.path(), "journal", b"x").expect("writes");
            let why = ["bad", "newer", "poisoned"][second % 3];
            set_aside(dir.path(), "journal", why, Wall(second as u64 * 1000)).expect("aside");
        }
        let kept: Vec<_> = names(dir.path(), "Z")
            .expect("lists")
            .iter()
            .map(|n| n[n.len() - 3..].to_owned())
            .collect();
        assert_eq!(kept.len(), limits::SET_ASIDE_FILES_MAX);
        assert!(kept.iter().all(|second| second.as_str() >= "12Z"), "the newest: {kept:?}");
    }
}
