//! The small files of run_dir: written whole by rename, read with a bound.
//!
//! run_dir is a tmpfs that only heeler's user can write, so a rename is enough: `kill -9` loses no
//! written page, and after a power cut the records of processes mean nothing.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::model::limits;

/// Puts a record in place: a reader sees the old one or the new one, never a part. Readable by
/// heeler's user only (it may hold what a command printed).
///
/// # Errors
/// When it cannot be written; the old one is in place then.
pub fn write_record(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    // The writer of a name is one process at a time (it holds the slot's lock), so the name of the
    // temporary file needs no luck; one that a killed writer left is written over.
    let temporary = dir.join(format!(".{name}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&temporary, dir.join(name))
}

/// Reads a record; `None` where there is none.
///
/// # Errors
/// When it cannot be read, or is longer than [`limits::RECORD_BYTES_MAX`].
pub fn read_record(dir: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(dir.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limits::RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limits::RECORD_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the record is too long"));
    }
    Ok(Some(bytes))
}

/// Removes a record; one that is not there is as good.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_record(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_replaced_whole_bounded_and_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(read_record(dir.path(), "main").expect("read"), None);
        write_record(dir.path(), "main", b"a long first text").expect("write");
        write_record(dir.path(), "main", b"second").expect("write");
        assert_eq!(read_record(dir.path(), "main").expect("read").as_deref(), Some(&b"second"[..]));
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1, "no temporary file stays");
        fs::write(dir.path().join("main"), vec![b' '; limits::RECORD_BYTES_MAX + 1]).expect("grow");
        assert!(read_record(dir.path(), "main").is_err());
        remove_record(dir.path(), "main").expect("remove");
        remove_record(dir.path(), "main").expect("remove again");
    }
}
