//! A file of sealed lines that grows at its end, and is now and then written anew without what is old.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::store::line::{self, Line};
use crate::store::{StoreError, file};

/// The file, and how it stands.
pub(super) struct Appended {
    dir: PathBuf,
    name: &'static str,
    file: Option<File>,
    bytes: u64,
}

/// What lines must survive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Survive {
    /// `kill -9` of heeler.
    Kill,
    /// Loss of power, too.
    PowerLoss,
}

/// How reading went.
#[derive(Default, Debug)]
pub(super) struct Read {
    /// Lines that are not what was written, and where the first of them is.
    pub(super) damaged: u32,
    pub(super) first_damage: Option<u64>,
    /// Whether only the newest part was read.
    pub(super) cut: bool,
    /// Why reading ended too soon.
    pub(super) error: Option<StoreError>,
}

impl Appended {
    /// A file that was not looked at yet.
    pub(super) fn new(dir: &Path, name: &'static str) -> Self {
        Self { dir: dir.to_owned(), name, file: None, bytes: 0 }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(self.name)
    }

    /// How long it is.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the texts of its whole lines, at most this much of its end. `None` when there is no file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn read(
        &mut self,
        bytes_max: u64,
        mut take: impl FnMut(&str),
    ) -> Result<Option<Read>, StoreError> {
        let path = self.path();
        let Some(mut file) = file::open(&path)? else { return Ok(None) };
        self.bytes = file.metadata().map_or(0, |facts| facts.len());
        let start = self.bytes.saturating_sub(bytes_max);
        let mut read = Read { cut: start > 0, ..Read::default() };
        let mut offset = start;
        let mut all = || -> std::io::Result<()> {
            file.seek(SeekFrom::Start(start))?;
            let mut reader = BufReader::new(&mut file);
            while let Some((line, taken)) = line::next(&mut reader)? {
                let text = match &line {
                    Line::Bytes(bytes) if bytes.is_empty() => Some(None),
                    Line::Bytes(bytes) => line::unseal(bytes).map(Some),
                    Line::TooLong => None,
                };
                match text {
                    Some(text) => text.into_iter().for_each(&mut take),
                    None => {
                        read.damaged = read.damaged.saturating_add(1);
                        read.first_damage.get_or_insert(offset);
                    }
                }
                offset += taken;
            }
            Ok(())
        };
        read.error = all().map_err(StoreError::at("read", &path)).err();
        Ok(Some(read))
    }

    /// Whether somebody removed it: what is written to it now would be gone with our descriptor.
    pub(super) fn was_removed(&mut self) -> bool {
        let gone = |file: &File| file.metadata().is_ok_and(|facts| facts.nlink() == 0);
        let removed = self.file.as_ref().is_some_and(gone);
        if removed {
            self.file = None;
        }
        removed
    }

    /// Adds sealed lines.
    ///
    /// # Errors
    /// Some of it may have been written.
    pub(super) fn append(&mut self, text: &str, survive: Survive) -> Result<(), StoreError> {
        let path = self.path();
        let file = match self.file.take() {
            Some(file) => file,
            None => self.opened(&path)?,
        };
        let written = (&file).write_all(text.as_bytes()).and_then(|()| match survive {
            Survive::Kill => Ok(()),
            Survive::PowerLoss => file.sync_data(),
        });
        self.bytes = file.metadata().map_or(self.bytes, |facts| facts.len());
        self.file = Some(file);
        written.map_err(StoreError::at("write", &path))
    }

    /// Takes back what was added beyond this length: it will be added again.
    pub(super) fn shorten(&mut self, bytes: u64) {
        if let Some(file) = &self.file
            && file.set_len(bytes).is_ok()
        {
            self.bytes = bytes;
        }
    }

    /// Puts these lines in place of all. The old file stays until the new one is whole.
    ///
    /// # Errors
    /// The old file is untouched.
    pub(super) fn replace(&mut self, text: &str) -> Result<(), StoreError> {
        // The descriptor of the old file must not be written to again, even if only the directory
        // could not be made durable.
        self.file = None;
        file::put(&self.dir, self.name, text.as_bytes())?;
        self.bytes = text.len() as u64;
        file::sync_dir(&self.dir)
    }

    fn opened(&self, path: &Path) -> Result<File, StoreError> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(path)
            .map_err(StoreError::at("open", path))?;
        file::sync_dir(&self.dir)?;
        Ok(file)
    }
}
