//! The journal: one sealed line per memory, appended; the last one of each service counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::model::ids::ServiceName;
use crate::model::incident::Incident;
use crate::model::intent::Who;
use crate::model::job::Output;
use crate::model::limits;
use crate::model::memory::{BootMemory, Memory};
use crate::model::time::Wall;
use crate::store::appended::{Appended, Read, Survive};
use crate::store::line;
use crate::store::record::{BootRecord, Entry, FORMAT, IncidentRecord, MemoryRecord, Version};
use crate::store::{StoreError, file};

const NAME: &str = "journal";

/// The newest line of every service, and which of them are not on disk yet.
pub struct Journal {
    boot: Box<str>,
    newest: BTreeMap<ServiceName, String>,
    missing: BTreeSet<ServiceName>,
    file: Appended,
    compact_at: u64,
}

/// What a journal held.
#[derive(Default, Debug)]
pub struct Restored {
    /// The last memory of each service.
    pub memories: BTreeMap<ServiceName, Memory>,
    /// What somebody should know: damage, files set aside. One sentence each.
    pub notes: Vec<String>,
}

/// What becomes of the memories that are restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// They are used.
    Whole,
    /// Only the wishes are: what else is in them may be what heeler crashes of.
    WishesOnly,
}

impl Journal {
    /// Reads what is there. Never fails: what cannot be read is skipped or set aside, and said.
    /// `boot` is this boot's id: what another boot wrote about processes is dropped.
    pub fn open(dir: &Path, boot: &str, trust: Trust, now: Wall) -> (Self, Restored) {
        let mut journal = Self {
            boot: boot.into(),
            newest: BTreeMap::new(),
            missing: BTreeSet::new(),
            file: Appended::new(dir, NAME),
            compact_at: limits::JOURNAL_COMPACT_BYTES,
        };
        let mut restored = Restored::default();
        let mut found = Found::default();
        let read = journal.file.read(limits::JOURNAL_BYTES_MAX, |text| {
            found.take(text, boot, &mut restored.memories);
        });
        let aside = match read {
            Ok(None) => return (journal, restored),
            Ok(Some(read)) => journal.judge(read, &found, &mut restored.notes),
            Err(error) => {
                restored.notes.push(error.to_string());
                Some("bad")
            }
        };
        let aside = match trust {
            Trust::Whole => aside,
            Trust::WishesOnly => {
                restored.memories.values_mut().for_each(keep_wish);
                Some("poisoned")
            }
        };
        if let Some(why) = aside {
            restored.notes.push(match file::set_aside(dir, NAME, why, now) {
                Ok(path) => format!("the journal as it was is kept in {}", path.display()),
                Err(error) => error.to_string(),
            });
            // What is used of it is written anew, so that the next start finds only that.
            journal.compact_at = 0;
        }
        for (name, memory) in &restored.memories {
            journal.newest.insert(name.clone(), encode(name, memory, boot));
        }
        (journal, restored)
    }

    /// Takes the newest memory of a service. Durable after [`Journal::commit`].
    pub fn remember(&mut self, name: &ServiceName, memory: &Memory) {
        self.newest.insert(name.clone(), encode(name, memory, &self.boot));
        self.missing.insert(name.clone());
    }

    /// Forgets a service: its file is gone from conf.d.
    pub fn forget(&mut self, name: &ServiceName) {
        self.newest.remove(name);
        self.missing.insert(name.clone());
    }

    /// Makes everything taken so far durable: one write, one fdatasync.
    ///
    /// # Errors
    /// Nothing is lost: what may not have reached the disk is written again by the next commit.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        if self.file.was_removed() {
            self.missing.extend(self.newest.keys().cloned());
        }
        if self.missing.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        let mut forgotten = String::new();
        for name in &self.missing {
            match self.newest.get(name) {
                Some(line) => text.push_str(line),
                None => forgotten.push_str(&encode_forgotten(name, &self.boot)),
            }
        }
        // Last: a wish that goes on under another name is on disk twice rather than not at all.
        text.push_str(&forgotten);
        self.file.append(&text, Survive::PowerLoss)?;
        self.missing.clear();
        Ok(())
    }

    /// Rewrites the file once most of it is old. The old one stays until the new one is whole.
    ///
    /// # Errors
    /// The old file is untouched and goes on growing; tried again when it has doubled.
    pub fn compact_if_due(&mut self) -> Result<(), StoreError> {
        if self.file.bytes() < self.compact_at || !self.missing.is_empty() {
            return Ok(());
        }
        self.compact_at = self.file.bytes().max(limits::JOURNAL_COMPACT_BYTES) * 2;
        let text: String = self.newest.values().map(String::as_str).collect();
        self.file.replace(&text)?;
        self.compact_at = (self.file.bytes() * 2).max(limits::JOURNAL_COMPACT_BYTES);
        Ok(())
    }

    /// Says for what the file has to be set aside, if it has to.
    fn judge(&self, read: Read, found: &Found, notes: &mut Vec<String>) -> Option<&'static str> {
        let path = self.file.path();
        let shown = path.display();
        if read.cut {
            notes.push(format!("{shown} is too long: only its newest part was read"));
        }
        if let Some(first) = read.first_damage {
            let count = read.damaged;
            notes.push(format!(
                "{shown}: {count} damaged line(s) skipped, the first at byte {first}; the rest is used"
            ));
        }
        if found.not_understood > 0 {
            let count = found.not_understood;
            notes.push(format!("{shown}: {count} record(s) not understood and left out"));
        }
        if found.newer > 0 {
            notes.push(format!(
                "{shown} was written by a newer heeler ({} record(s)); this one cannot read them",
                found.newer
            ));
        }
        if let Some(error) = read.error {
            notes.push(error.to_string());
            return Some("bad");
        }
        (found.newer > 0).then_some("newer")
    }
}

#[derive(Default)]
struct Found {
    not_understood: u32,
    newer: u32,
}

impl Found {
    fn take(&mut self, text: &str, boot: &str, memories: &mut BTreeMap<ServiceName, Memory>) {
        if serde_json::from_str::<Version>(text).is_ok_and(|version| version.v > FORMAT) {
            self.newer += 1;
            return;
        }
        let entry = serde_json::from_str::<Entry>(text).ok();
        let named = entry.and_then(|e| Some((ServiceName::recall(&e.service).ok()?, e)));
        let Some((name, entry)) = named else {
            self.not_understood += 1;
            return;
        };
        let Some(record) = entry.memory else {
            memories.remove(&name);
            return;
        };
        let (mut memory, unknown) = record.restore();
        self.not_understood += unknown;
        if entry.boot != boot {
            memory.boot = BootMemory::default();
        }
        memories.insert(name, memory);
    }
}

/// What is left of a memory that may be what heeler crashes of.
fn keep_wish(memory: &mut Memory) {
    let Memory { intent: _, incidents_opened, open, last, fingerprints, claim: _, checks, boot } =
        memory;
    checks.clear();
    *incidents_opened = 0;
    open.clear();
    *last = None;
    fingerprints.clear();
    *boot = BootMemory::default();
}

/// The sealed line of a memory, of at most [`limits::JOURNAL_LINE_BYTES_MAX`].
fn encode(name: &ServiceName, memory: &Memory, boot: &str) -> String {
    let line = encode_whole(name, memory, boot);
    if line.len() <= limits::JOURNAL_LINE_BYTES_MAX {
        return line;
    }
    let line = encode_whole(name, &without_output(memory), boot);
    if line.len() <= limits::JOURNAL_LINE_BYTES_MAX {
        return line;
    }
    encode_whole(name, &bare(memory), boot)
}

fn encode_whole(name: &ServiceName, memory: &Memory, boot: &str) -> String {
    encode_entry(name, Some(memory.into()), boot)
}

fn encode_forgotten(name: &ServiceName, boot: &str) -> String {
    encode_entry::<IncidentRecord, BootRecord>(name, None, boot)
}

fn encode_entry<Open, Boot>(
    name: &ServiceName,
    memory: Option<MemoryRecord<Open, Boot>>,
    boot: &str,
) -> String
where
    Entry<Open, Boot>: serde::Serialize,
{
    let service = name.as_str().to_owned();
    let entry = Entry { v: FORMAT, boot: boot.to_owned(), service, memory };
    // Strings, numbers and lists only: nothing of it can fail to become JSON.
    line::seal(&serde_json::to_string(&entry).expect("a record of plain data becomes JSON"))
}

fn incidents(memory: &mut Memory) -> impl Iterator<Item = &mut Incident> {
    memory.open.iter_mut().chain(memory.last.as_mut())
}

fn without_output(memory: &Memory) -> Memory {
    let mut memory = memory.clone();
    incidents(&mut memory).for_each(|incident| incident.output = Output::default());
    memory
}

/// Small whatever it was: the wish, the first incidents, the beginning and end of their stories.
fn bare(memory: &Memory) -> Memory {
    const INCIDENTS: usize = 8;
    const TEXT_BYTES: usize = 192;
    const STARTS: usize = 64;
    let cut = |text: &mut String| {
        text.truncate((0..=TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
    };
    let mut memory = without_output(memory);
    memory.open.truncate(INCIDENTS);
    let BootMemory { starts, braked, workers_taken, .. } = &mut memory.boot;
    let braked_max = limits::HOST_BRAKE_REMEMBERED_MAX;
    for (moments, most) in [(starts, STARTS), (braked, braked_max), (workers_taken, STARTS)] {
        moments.drain(..moments.len().saturating_sub(most));
    }
    if let Who::Rule(label) = &mut memory.intent.by {
        let mut text = label.to_string();
        cut(&mut text);
        *label = text.into();
    }
    for incident in incidents(&mut memory) {
        cut(&mut incident.title);
        if incident.story.len() > 4 {
            let dropped = incident.story.drain(2..incident.story.len() - 2).count();
            let dropped = u32::try_from(dropped).unwrap_or(u32::MAX);
            incident.dropped_lines = incident.dropped_lines.saturating_add(dropped);
        }
        incident.story.iter_mut().for_each(|line| cut(&mut line.text));
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::incident::{Cause, StoryLine};
    use crate::model::intent::{Desired, Intent};
    use crate::model::text::Untrusted;
    use crate::model::time::Mono;

    fn huge() -> Memory {
        let output = Untrusted::bounded(&[1; 9000], 9000);
        let incident = Incident {
            service: ServiceName::parse(&"s".repeat(64)).expect("a name"),
            number: u32::MAX,
            cause: Cause::Down,
            title: "\u{1}".repeat(5_000),
            opened: Wall(u64::MAX),
            closed: Some(Wall(u64::MAX)),
            story: vec![StoryLine { at: Wall(u64::MAX), text: "\u{1}".repeat(200) }; 64],
            dropped_lines: u32::MAX,
            output: Output { head: output.clone(), tail: output, dropped_bytes: u64::MAX },
            told: u32::MAX,
            told_at: Wall(u64::MAX),
        };
        let by = Who::Rule("\u{1}".repeat(100_000).into());
        Memory {
            intent: Intent { desired: Desired::Down, by, at: Wall(u64::MAX) },
            incidents_opened: u32::MAX,
            open: vec![incident.clone(); 130],
            last: Some(incident),
            fingerprints: vec![(u64::MAX, u64::MAX); limits::CHECKS_PER_SERVICE_MAX],
            claim: Some(u64::MAX),
            checks: vec![u64::MAX; limits::CHECKS_PER_SERVICE_MAX],
            boot: BootMemory {
                starts: vec![Mono::NEVER; 1_000],
                braked: vec![Mono::NEVER; 1_000],
                workers_taken: vec![Mono::NEVER; 1_000],
                ..BootMemory::default()
            },
        }
    }

    #[test]
    fn the_largest_memory_fits_a_line_and_keeps_its_wish() {
        let name = ServiceName::parse(&"s".repeat(64)).expect("a name");
        let line = encode(&name, &huge(), "boot");
        assert!(line.len() <= limits::JOURNAL_LINE_BYTES_MAX, "{}", line.len());
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(NAME), line).expect("writes");
        let (_, restored) = Journal::open(dir.path(), "boot", Trust::Whole, Wall(0));
        assert_eq!(restored.memories[&name].intent.desired, Desired::Down);
        assert_eq!(restored.memories[&name].open.len(), 8);
        assert!(restored.notes.is_empty(), "{:?}", restored.notes);
    }

    #[test]
    fn a_word_this_version_does_not_know_costs_an_incident_and_not_the_wish() {
        let name = ServiceName::parse("shop").expect("a name");
        let mut memory = bare(&huge());
        memory.open.truncate(1);
        memory.open[0].service = name.clone();
        let line = encode_whole(&name, &memory, "boot");
        let text = line::unseal_file(line.as_bytes()).expect("whole");
        let newer = text.replacen("\"cause\":\"down\"", "\"cause\":{\"check\":[\"quantum\",0]}", 1);
        assert_ne!(text, newer);
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(NAME), line::seal(&newer)).expect("writes");
        let (_, restored) = Journal::open(dir.path(), "boot", Trust::Whole, Wall(0));
        assert_eq!(restored.memories[&name].intent.desired, Desired::Down);
        assert!(restored.memories[&name].open.is_empty());
        assert!(restored.notes[0].contains("1 record(s) not understood"), "{:?}", restored.notes);
    }
}
