//! Whether what was stored makes heeler crash: the record of its last starts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::limits;
use crate::model::time::Wall;
use crate::store::journal::Trust;
use crate::store::record::FORMAT;
use crate::store::{StoreError, file, line};

const NAME: &str = "starts";
const BYTES_MAX: usize = 4096;

/// One start of a keeper on this state directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Start {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What it got from the store.
    pub restored: Restored,
    /// How it ended, as far as it is known.
    pub end: End,
}

/// What a start got from the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restored {
    /// Nothing but wishes, which are never what is wrong.
    Wishes,
    /// Incidents, counters, process facts.
    Memories,
}

/// How a start ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It was told to stop, and stopped.
    Clean,
    /// It is running, or crashed.
    Unknown,
}

/// Decides from the earlier starts, oldest first, whether the memories are to be used.
///
/// They are not when the last [`limits::POISON_STARTS`] all restored memories and crashed, and all of that
/// is within [`limits::POISON_WINDOW`]: then each crashed within that time of its restore, too.
#[must_use]
pub fn decide(earlier: &[Start], now: Wall) -> Trust {
    let last = &earlier[earlier.len().saturating_sub(limits::POISON_STARTS)..];
    let crashed = |start: &Start| start.restored == Restored::Memories && start.end == End::Unknown;
    let soon = |start: &Start| {
        u128::from(now.0.abs_diff(start.at_ms)) <= limits::POISON_WINDOW.as_millis()
    };
    if last.len() == limits::POISON_STARTS && last.iter().all(|s| crashed(s) && soon(s)) {
        Trust::WishesOnly
    } else {
        Trust::Whole
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    v: u32,
    starts: Vec<Start>,
}

/// The earlier starts, oldest first. A record that cannot be read is none: it only ever makes heeler
/// more careful.
#[must_use]
pub(super) fn load(dir: &Path) -> Vec<Start> {
    let bytes = file::read(&dir.join(NAME), BYTES_MAX).ok().flatten().unwrap_or_default();
    let record =
        line::unseal_file(&bytes).and_then(|text| serde_json::from_str::<Record>(text).ok());
    record.filter(|record| record.v <= FORMAT).map(|record| record.starts).unwrap_or_default()
}

/// Keeps the newest of these starts.
pub(super) fn save(dir: &Path, starts: &[Start]) -> Result<(), StoreError> {
    let newest = &starts[starts.len().saturating_sub(limits::POISON_STARTS)..];
    let record = Record { v: FORMAT, starts: newest.to_vec() };
    let text = serde_json::to_string(&record).expect("a record of plain data becomes JSON");
    file::put_durably(dir, NAME, line::seal(&text).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(second: u64, restored: Restored, end: End) -> Start {
        Start { at_ms: second * 1000, restored, end }
    }

    fn crash(second: u64) -> Start {
        start(second, Restored::Memories, End::Unknown)
    }

    #[test]
    fn three_crashes_in_a_minute_after_a_restore_and_nothing_less() {
        let at = |second: u64| Wall(second * 1000);
        let clean = start(10, Restored::Memories, End::Clean);
        let empty = start(10, Restored::Wishes, End::Unknown);
        assert_eq!(decide(&[crash(0), crash(10), crash(20)], at(30)), Trust::WishesOnly);
        assert_eq!(decide(&[clean, crash(15), crash(20), crash(25)], at(60)), Trust::WishesOnly);
        assert_eq!(decide(&[crash(0), crash(10), crash(20)], at(61)), Trust::Whole);
        assert_eq!(decide(&[crash(10), crash(20)], at(30)), Trust::Whole);
        assert_eq!(decide(&[crash(0), clean, crash(20)], at(30)), Trust::Whole);
        assert_eq!(decide(&[crash(0), empty, crash(20)], at(30)), Trust::Whole);
        assert_eq!(decide(&[], at(0)), Trust::Whole);
        assert_eq!(decide(&[crash(500), crash(510), crash(520)], at(30)), Trust::Whole);
    }

    #[test]
    fn only_the_newest_are_kept_and_nonsense_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(load(dir.path()), []);
        save(dir.path(), &[crash(0), crash(1), crash(2), crash(3)]).expect("saves");
        assert_eq!(load(dir.path()), [crash(1), crash(2), crash(3)]);
        std::fs::write(dir.path().join(NAME), "\n00000000 {}\n").expect("writes");
        assert_eq!(load(dir.path()), []);
    }
}
