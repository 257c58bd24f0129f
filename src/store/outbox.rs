//! The outbox: one file per alert, named by the alert and not by the moment, so that an alert told
//! again after a crash replaces itself.
//!
//! `outbox/queue/STEM.json` is an alert that waits; `outbox/STEM.eml` is a mail. An alert counts as
//! queued once its file and its name are durable. It leaves the queue only after its mail is as
//! durable, so `kill -9` at any moment makes it at least once, with one Message-ID. Where mails go out by
//! SMTP it leaves the queue once a server has taken it (the letters' part: `letters.rs`).

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::mail::{self, HostFacts};
use crate::model::incident::Alert;
use crate::model::limits;
use crate::model::time::Mono;
use crate::store::letters::Letters;
use crate::store::record::{AlertRecord, FORMAT, Version};
use crate::store::{StoreError, file, line};

const DROPPED: &str = "dropped";

/// Alerts on their way.
pub struct Outbox {
    pub(super) folder: PathBuf,
    pub(super) queue: PathBuf,
    pub(super) host: HostFacts,
    /// Taken, and not durable yet.
    waiting: VecDeque<Box<Alert>>,
    /// Durable, and not a mail yet: names of files in the queue, oldest first.
    pub(super) queued: VecDeque<String>,
    /// Dropped, and not yet recorded as such.
    dropped: u64,
    /// What goes out by SMTP; without it mails become files.
    pub(super) letters: Option<Letters>,
    ground: Ground,
}

/// Whether the directories are there and what is in them is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ground {
    Laid,
    Missing,
}

/// What is left to do after a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Nothing.
    Done,
    /// More mails.
    More,
}

impl Outbox {
    /// Opens the outbox of a state directory, made if absent, with what an earlier keeper left in it. On a
    /// disk that takes nothing now that comes later.
    ///
    /// # Errors
    /// When the directories cannot be made or listed, and never will.
    pub fn open(
        state_dir: &Path,
        host: HostFacts,
        letters: Option<Letters>,
    ) -> Result<Self, StoreError> {
        let folder = state_dir.join("outbox");
        let queue = folder.join("queue");
        let (queued, waiting) = (VecDeque::new(), VecDeque::new());
        let ground = Ground::Missing;
        let mut outbox = Self { folder, queue, host, waiting, queued, dropped: 0, letters, ground };
        match outbox.lay() {
            Err(error) if !error.may_pass() => Err(error),
            Ok(()) | Err(_) => Ok(outbox),
        }
    }

    fn lay(&mut self) -> Result<(), StoreError> {
        if self.ground == Ground::Laid {
            return Ok(());
        }
        file::make_dir(&self.folder)?;
        file::make_dir(&self.queue)?;
        for dir in [&self.folder, &self.queue] {
            for half in file::names(dir, ".tmp")? {
                match file::remove(&dir.join(half)) {
                    // It takes room and does no harm.
                    Err(error) if error.may_pass() => {}
                    other => other?,
                }
            }
        }
        self.queued = file::names(&self.queue, ".json")?.into();
        self.ground = Ground::Laid;
        Ok(())
    }

    /// How many alerts were dropped here, for the start-up to say.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        dropped(&self.folder) + self.dropped
    }

    /// Alerts that are durable and not mails yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queued.len()
    }

    /// Alerts that no server has taken and no file tells.
    pub(super) fn untold(&self) -> usize {
        self.queued.len() + self.waiting.len()
    }

    /// Takes an alert. Durable after [`Outbox::commit`]; past the bound the oldest is dropped and counted.
    pub fn queue(&mut self, alert: Box<Alert>) {
        if self.waiting.len() >= limits::OUTBOX_MAILS_MAX
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.dropped += 1;
            if let Some(letters) = &mut self.letters {
                letters.dropped(&entry_name(&oldest));
            }
        }
        self.waiting.push_back(alert);
    }

    /// Counts alerts that were dropped before they came here.
    pub(super) fn count_dropped(&mut self, alerts: u64) {
        self.dropped += alerts;
    }

    /// Makes everything taken so far durable. What goes out by SMTP goes out even if that fails: a disk
    /// that is full is no reason to be silent.
    ///
    /// # Errors
    /// What could not be written waits for the next commit.
    pub fn commit(&mut self, now: Mono) -> Result<(), StoreError> {
        if let Some(letters) = &mut self.letters {
            for alert in &self.waiting {
                letters.add(&entry_name(alert), alert.to.clone(), Duration::ZERO, now);
            }
        }
        let result = self.lay().and_then(|()| self.write_waiting());
        while self.queued.len() > limits::OUTBOX_MAILS_MAX {
            if let Some(oldest) = self.queued.pop_front() {
                file::remove(&self.queue.join(&oldest))?;
                self.dropped += 1;
                if let Some(letters) = &mut self.letters {
                    letters.dropped(&oldest);
                }
            }
        }
        if self.letters.is_some() {
            self.record_dropped()?;
        }
        result
    }

    /// Writes as many as can be written.
    fn write_waiting(&mut self) -> Result<(), StoreError> {
        let mut written = Vec::new();
        let mut result = Ok(());
        for alert in &self.waiting {
            let name = entry_name(alert);
            result = file::put(&self.queue, &name, sealed(alert).as_bytes());
            if result.is_err() {
                break;
            }
            written.push(name);
        }
        if !written.is_empty() {
            // Until this is done none of them counts; written again they replace themselves.
            file::sync_dir(&self.queue)?;
        }
        self.waiting.drain(..written.len());
        for name in written {
            if !self.queued.contains(&name) {
                self.queued.push_back(name);
            }
        }
        result
    }

    /// An alert that waits, on disk or not.
    pub(super) fn entry(&self, name: &str) -> Entry {
        match self.waiting.iter().find(|alert| entry_name(alert) == name) {
            Some(alert) => Entry::Alert(alert.clone()),
            None => load(&self.queue.join(name)),
        }
    }

    /// The same, where it is not on disk.
    pub(super) fn not_on_disk(&mut self, name: &str) -> Option<&mut Alert> {
        self.waiting.iter_mut().find(|alert| entry_name(alert) == name).map(|alert| &mut **alert)
    }

    /// It waits no longer.
    pub(super) fn take_off(&mut self, name: &str) {
        self.queued.retain(|queued| queued != name);
        self.waiting.retain(|alert| entry_name(alert) != name);
    }

    /// Turns some of the queue into mails.
    ///
    /// # Errors
    /// What was not done stays in the queue. An entry that cannot be read is set aside, and is an
    /// error once.
    pub fn deliver(&mut self) -> Result<Turn, StoreError> {
        let turn: Vec<_> = self.queued.iter().take(limits::OUTBOX_TURN).cloned().collect();
        let (mut done, mut bad) = (Vec::new(), Ok(()));
        for name in &turn {
            let path = self.queue.join(name);
            match load(&path) {
                Entry::Alert(alert) => {
                    let mail = mail::render(&alert, &self.host);
                    file::put(&self.folder, &format!("{}.eml", stem(&alert)), &mail)?;
                    done.push(path);
                }
                // It stays for the heeler that wrote it.
                Entry::Newer => {}
                Entry::Bad(error) => {
                    set_aside(&path)?;
                    bad = Err(error);
                }
            }
        }
        if !done.is_empty() {
            file::sync_dir(&self.folder)?;
        }
        for path in &done {
            file::remove(path)?;
        }
        self.queued.drain(..turn.len());
        if !done.is_empty() {
            self.trim()?;
        }
        bad.map(|()| if self.queued.is_empty() { Turn::Done } else { Turn::More })
    }

    /// Keeps the number of mails within the bound: the oldest go, and are counted.
    pub(super) fn trim(&mut self) -> Result<(), StoreError> {
        let mut mails = file::names(&self.folder, ".eml")?;
        let over = mails.len().saturating_sub(limits::OUTBOX_MAILS_MAX);
        if over > 0 {
            let written = |name: &String| {
                std::fs::symlink_metadata(self.folder.join(name)).and_then(|f| f.modified()).ok()
            };
            mails.sort_by_cached_key(|name| (written(name), name.clone()));
            for name in &mails[..over] {
                file::remove(&self.folder.join(name))?;
                self.dropped += 1;
            }
        }
        self.record_dropped()
    }

    fn record_dropped(&mut self) -> Result<(), StoreError> {
        if self.dropped > 0 && self.ground == Ground::Laid {
            let total = dropped(&self.folder) + self.dropped;
            let text = format!(
                "{total} alerts were dropped here so far, always the oldest: at most {} are kept\n",
                limits::OUTBOX_MAILS_MAX
            );
            file::put_durably(&self.folder, DROPPED, text.as_bytes())?;
            self.dropped = 0;
        }
        Ok(())
    }
}

/// How many alerts an outbox has dropped, since somebody last removed its `dropped` file.
fn dropped(folder: &Path) -> u64 {
    let bytes = file::read(&folder.join(DROPPED), 1024).ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// What is in a file of the queue.
pub(super) enum Entry {
    Alert(Box<Alert>),
    Newer,
    Bad(StoreError),
}

/// Takes an entry that cannot be read out of the way.
pub(super) fn set_aside(path: &Path) -> Result<(), StoreError> {
    let aside = path.with_extension("json.bad");
    std::fs::rename(path, aside).map_err(StoreError::at("set aside", path))
}

/// An alert as its file has it.
pub(super) fn sealed(alert: &Alert) -> String {
    let text = serde_json::to_string(&AlertRecord::from(alert))
        .expect("a record of plain data becomes JSON");
    line::seal(&text)
}

pub(super) fn load(path: &Path) -> Entry {
    let bad = |why: &str| Entry::Bad(StoreError::new("read", path, io::Error::other(why)));
    let bytes = match file::read(path, limits::OUTBOX_ENTRY_BYTES_MAX) {
        Ok(bytes) => bytes.unwrap_or_default(),
        Err(error) => return Entry::Bad(error),
    };
    let Some(text) = line::unseal_file(&bytes) else {
        return bad("it is damaged (its checksum differs)");
    };
    if serde_json::from_str::<Version>(text).is_ok_and(|version| version.v > FORMAT) {
        return Entry::Newer;
    }
    let record = serde_json::from_str::<AlertRecord>(text).ok();
    match record.and_then(|record| Alert::try_from(record).ok()) {
        Some(alert) => Entry::Alert(Box::new(alert)),
        None => bad("it holds a word that this heeler does not know"),
    }
}

/// The name of an alert's file in the queue.
fn entry_name(alert: &Alert) -> String {
    format!("{}.json", stem(alert))
}

/// The name of an alert's files: when its incident began, its token, its number.
fn stem(alert: &Alert) -> String {
    let opened = file::stamp(alert.incident.opened);
    format!("{opened}-{}-{:04}", alert.incident.token(), alert.sequence)
}
