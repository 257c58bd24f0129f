//! The last good text of every file in conf.d, for the day when the file there is not good. Its first line is
//! a comment with a checksum: what a bad disk made of a definition must not be run.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::ids::ServiceName;
use crate::model::limits;
use crate::store::{StoreError, file, line};

/// Which file of conf.d.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DefinitionName {
    /// `heeler.toml`. No service can have this name: it is reserved.
    Daemon,
    /// `NAME.toml`.
    Service(ServiceName),
}

impl fmt::Display for DefinitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => f.write_str("heeler.toml"),
            Self::Service(name) => write!(f, "{name}.toml"),
        }
    }
}

/// The last good text, if one was kept.
///
/// # Errors
/// When it is there and cannot be read, is no text, or is not what was written.
pub fn load(state_dir: &Path, name: &DefinitionName) -> Result<Option<String>, StoreError> {
    let path = folder(state_dir).join(name.to_string());
    let bad = |why: String| StoreError::new("read", &path, std::io::Error::other(why));
    let Some(bytes) = file::read(&path, limits::CONFIG_FILE_BYTES_MAX + seal("").len())? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|error| bad(error.utf8_error().to_string()))?;
    let damaged = || bad("it is damaged (its checksum differs)".to_owned());
    match text.strip_prefix(MARK) {
        Some(rest) => match rest.split_at_checked(CHECKSUM_BYTES) {
            Some((_, inner)) if text == format!("{}{inner}", seal(inner)) => {
                Ok(Some(inner.to_owned()))
            }
            Some(_) | None => Err(damaged()),
        },
        // What is left of one that was cut off.
        None if MARK.starts_with(&text) => Err(damaged()),
        // As earlier heelers wrote it.
        None => Ok(Some(text)),
    }
}

const MARK: &str = "# heeler wrote this; checksum ";
/// With its line break.
const CHECKSUM_BYTES: usize = 9;

/// The line above a text.
fn seal(text: &str) -> String {
    format!("{MARK}{:08x}\n", line::crc32(text.as_bytes()))
}

/// Texts to be kept as the last good ones; where there is none, the file is no longer in conf.d.
pub type Due = BTreeMap<DefinitionName, Option<Box<str>>>;

/// Keeps some of them, and takes them out: not more at once than a wish may have to wait behind.
///
/// # Errors
/// Of the first one that cannot be: it stays, with those behind it, and so does what was kept before.
pub fn keep_some(state_dir: &Path, due: &mut Due) -> Result<(), StoreError> {
    let mut written = 0;
    let kept = (0..LOOKED_AT_ONCE).try_for_each(|_| {
        let Some(entry) = due.first_entry().filter(|_| written < WRITTEN_AT_ONCE) else {
            return Ok(());
        };
        match entry.get() {
            Some(text) => written += usize::from(save(state_dir, entry.key(), text)? == Saved::Now),
            None => file::remove(&folder(state_dir).join(entry.key().to_string()))?,
        }
        entry.remove();
        Ok(())
    });
    if written > 0 {
        file::sync_dir(&folder(state_dir))?;
    }
    kept
}

/// Each that is written is waited for on its way to the disk.
const WRITTEN_AT_ONCE: usize = 16;
/// What is kept already is read, to see that.
const LOOKED_AT_ONCE: usize = 512;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Saved {
    Now,
    /// It was kept already.
    Before,
}

/// Keeps a text, durable but for its name. Written only when it differs from the one that is kept.
fn save(state_dir: &Path, name: &DefinitionName, text: &str) -> Result<Saved, StoreError> {
    if load(state_dir, name).ok().flatten().as_deref() == Some(text) {
        return Ok(Saved::Before);
    }
    let folder = folder(state_dir);
    file::make_dir(&folder)?;
    let sealed = format!("{}{text}", seal(text));
    file::put(&folder, &name.to_string(), sealed.as_bytes())?;
    Ok(Saved::Now)
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("last-good")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_last_good_text_comes_back_and_is_not_written_twice() {
        let dir = tempfile::tempdir().expect("a directory");
        let shop = DefinitionName::Service(ServiceName::parse("shop").expect("a name"));
        assert_eq!(load(dir.path(), &shop).expect("loads"), None);
        let keep = |name: &DefinitionName, text: Option<&str>| {
            let mut due = Due::from([(name.clone(), text.map(Into::into))]);
            keep_some(dir.path(), &mut due).expect("is kept");
            assert!(due.is_empty());
        };
        keep(&shop, None);
        keep(&shop, Some("user = \"deploy\"\n"));
        keep(&DefinitionName::Daemon, Some(""));
        let file = dir.path().join("last-good/shop.toml");
        let inode = || std::fs::metadata(&file).expect("is there").ino();
        let first = inode();
        // A held descriptor keeps the number from being used again.
        let _held = std::fs::File::open(&file).expect("opens");
        keep(&shop, Some("user = \"deploy\"\n"));
        assert_eq!(inode(), first, "the same text is not written again");
        keep(&shop, Some("user = \"web\"\n"));
        assert_ne!(inode(), first);
        assert_eq!(load(dir.path(), &shop).expect("loads").as_deref(), Some("user = \"web\"\n"));
        assert_eq!(load(dir.path(), &DefinitionName::Daemon).expect("loads").as_deref(), Some(""));
        keep(&shop, None);
        assert_eq!(load(dir.path(), &shop).expect("loads"), None);
    }

    #[test]
    fn no_damaged_text_passes_for_another_definition() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = "run = \"/usr/bin/shop --port 80\"\n# heeler wrote this; checksum 0\nuser = \"deploy\"\n";
        save(dir.path(), &DefinitionName::Daemon, text).expect("saves");
        let file = dir.path().join("last-good/heeler.toml");
        let good = std::fs::read(&file).expect("reads");
        let mut damaged = Vec::new();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                damaged.push((at, bad));
            }
            damaged.push((at, good[..at].to_vec()));
        }
        for (at, bad) in damaged {
            std::fs::write(&file, &bad).expect("writes");
            if let Ok(Some(read)) = load(dir.path(), &DefinitionName::Daemon) {
                // The mark itself may be what is damaged: then it is no comment, or one that says less.
                let whole = at < MARK.len() && read.ends_with(&format!("\n{text}"));
                assert!(read == text || whole, "byte {at}: {read:?}");
            }
        }
        // Without a checksum, as earlier heelers wrote it.
        std::fs::write(&file, "every = \"5s\"\n").expect("writes");
        let old = load(dir.path(), &DefinitionName::Daemon).expect("loads");
        assert_eq!(old.as_deref(), Some("every = \"5s\"\n"));
    }
}
