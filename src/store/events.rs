//! The file of events: one sealed line each, appended; now and then written anew without what is old.
//!
//! An event is on disk a moment after it happened and survives `kill -9`; nobody waits for that, and it
//! is not worth a flush of the disk.

use std::collections::VecDeque;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::event::{Event, EventKind, History};
use crate::model::ids::ServiceName;
use crate::model::limits;
use crate::model::time::Wall;
use crate::store::StoreError;
use crate::store::appended::{Appended, Survive};
use crate::store::line;
use crate::store::record::{FORMAT, Version};

const NAME: &str = "events";

/// Events on their way to disk.
pub struct EventLog {
    file: Appended,
    /// Sealed lines that are not in the file yet.
    waiting: VecDeque<String>,
    compact_at: u64,
}

/// An event, as a line of the file.
#[derive(Serialize, Deserialize)]
struct EventRecord {
    v: u32,
    service: String,
    at_ms: u64,
    kind: String,
    text: String,
}

impl EventLog {
    /// Reads what is there. Never fails: what cannot be read is left out, and said.
    #[must_use]
    pub fn open(dir: &Path) -> (Self, History, Vec<String>) {
        let (file, waiting) = (Appended::new(dir, NAME), VecDeque::new());
        let mut log = Self { file, waiting, compact_at: limits::EVENTS_COMPACT_BYTES };
        let (history, notes) = log.load();
        (log, history, notes)
    }

    /// Takes an event. In the file after [`EventLog::commit`]; past the bound the oldest that waits is
    /// dropped.
    pub fn take(&mut self, event: &Event) {
        if self.waiting.len() >= limits::EVENTS_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(encode(event));
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// What could not be written waits for the next commit.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.file.was_removed();
        if self.waiting.is_empty() {
            return Ok(());
        }
        let text: String = self.waiting.iter().map(String::as_str).collect();
        let before = self.file.bytes();
        let written = self.file.append(&text, Survive::Kill);
        match written {
            Ok(()) => self.waiting.clear(),
            // What got there would be there twice.
            Err(_) => self.file.shorten(before),
        }
        written
    }

    /// Writes the file anew, once it is mostly of old events.
    ///
    /// # Errors
    /// The old file is untouched, and goes on growing.
    pub fn compact_if_due(&mut self) -> Result<(), StoreError> {
        if self.file.bytes() < self.compact_at {
            return Ok(());
        }
        self.compact_at = self.file.bytes().max(limits::EVENTS_COMPACT_BYTES) * 2;
        let (history, _) = self.load();
        let text: String = history.iter().map(encode).collect();
        self.file.replace(&text)?;
        self.compact_at = (self.file.bytes() * 2).max(limits::EVENTS_COMPACT_BYTES);
        Ok(())
    }

    fn load(&mut self) -> (History, Vec<String>) {
        let (mut history, mut notes, mut strange) = (History::default(), Vec::new(), 0);
        let read = self.file.read(limits::EVENTS_BYTES_MAX, |text| match decode(text) {
            Some(event) => history.push(event),
            None => strange += 1,
        });
        match read {
            Ok(None) => {}
            Ok(Some(read)) => {
                let shown = self.file.path();
                if read.damaged + strange > 0 {
                    let (damaged, shown) = (read.damaged, shown.display());
                    notes.push(format!(
                        "{shown}: {damaged} damaged line(s) and {strange} not understood: these events \
                         are lost"
                    ));
                }
                notes.extend(read.error.map(|error| error.to_string()));
            }
            Err(error) => notes.push(error.to_string()),
        }
        (history, notes)
    }
}

fn encode(event: &Event) -> String {
    let Event { service, at, kind, text } = event;
    let record = EventRecord {
        v: FORMAT,
        service: service.to_string(),
        at_ms: at.0,
        kind: kind.name().to_owned(),
        text: text.to_string(),
    };
    line::seal(&serde_json::to_string(&record).expect("a record of plain data becomes JSON"))
}

fn decode(text: &str) -> Option<Event> {
    serde_json::from_str::<Version>(text).ok().filter(|version| version.v <= FORMAT)?;
    let EventRecord { v: _, service, at_ms, kind, text } = serde_json::from_str(text).ok()?;
    let service = ServiceName::parse(&service).ok()?;
    Some(Event::new(service, Wall(at_ms), EventKind::of_name(&kind)?, &text))
}
