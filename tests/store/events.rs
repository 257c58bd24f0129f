//! The file of events: what comes back, and what it costs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use heeler::model::event::{Event, EventKind, History};
use heeler::model::limits;
use heeler::model::time::Wall;
use heeler::store::events::EventLog;
use heeler::store::{Message, Shutdown};

use crate::made::{name, open};

fn event(service: &str, n: u64, text: &str) -> Event {
    let kinds = EventKind::ALL;
    let kind = kinds[usize::try_from(n).expect("small") % kinds.len()];
    Event::new(name(service), Wall(1_777_857_302_113 + n), kind, text)
}

fn write(dir: &Path, events: &[Event]) {
    let (mut log, ..) = EventLog::open(dir);
    for event in events {
        log.take(event);
        log.commit().expect("commits");
    }
}

fn load(dir: &Path) -> (Vec<Event>, Vec<String>) {
    let (_, history, notes) = EventLog::open(dir);
    (history.iter().cloned().collect(), notes)
}

#[test]
fn they_come_back_in_their_order_whatever_is_in_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let texts = ["up: pid 7", "", "a\nb\r\u{1b}[2J\0", "ü漢\u{202e}", "{\"v\":1}", "\\n\\"];
    let events: Vec<_> = (0..)
        .zip(texts)
        .map(|(n, text)| event(["shop", "db"][usize::from(n > 2)], n, text))
        .collect();
    write(dir.path(), &events[..3]);
    write(dir.path(), &events[3..]);
    assert_eq!(load(dir.path()), (events, Vec::new()));
}

/// Every byte in turn changed or cut off: no event is invented, and only the one it is in is lost.
#[test]
fn one_bad_byte_loses_at_most_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let events: Vec<_> = (0..4).map(|n| event("shop", n, "up: pid 7")).collect();
    write(dir.path(), &events);
    let path = dir.path().join("events");
    let good = fs::read(&path).expect("reads");
    for at in 0..good.len() {
        for value in [good[at] ^ 1, good[at] ^ 0x80, b'\n', 0] {
            let mut bad = good.clone();
            bad[at] = value;
            fs::write(&path, &bad).expect("writes");
            let (found, notes) = load(dir.path());
            assert!(found.len() >= events.len() - 1, "byte {at} = {value}: {found:?}");
            assert!(found.iter().all(|event| events.contains(event)), "byte {at} = {value}");
            assert!(notes.len() <= 1, "{notes:?}");
        }
        fs::write(&path, &good[..at]).expect("writes");
        assert!(events.starts_with(&load(dir.path()).0), "cut at {at}");
        // The next one is not lost with the torn one before it.
        write(dir.path(), &[event("db", 9, "after")]);
        assert_eq!(load(dir.path()).0.last(), Some(&event("db", 9, "after")), "cut at {at}");
    }
}

#[test]
fn what_another_version_wrote_is_left_out_and_said() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), &[event("shop", 0, "known")]);
    let path = dir.path().join("events");
    let sealed = fs::read_to_string(&path).expect("reads");
    let line = |text: &str| {
        // Sealed as the store does it: CRC-32 of the text.
        let crc = !text.bytes().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
            })
        });
        format!("\n{crc:08x} {text}\n")
    };
    let text = sealed.trim().split_once(' ').expect("a sealed line").1;
    assert_eq!(line(text), sealed);
    let newer = text.replacen("\"v\":1", "\"v\":9", 1);
    let kind = text.replacen("\"ordered\"", "\"exploded\"", 1);
    let service = text.replacen("\"shop\"", "\"../shop\"", 1);
    assert!(newer != text && kind != text && service != text);
    let all = [newer, kind, service, "[]".to_owned()].map(|text| line(&text)).concat();
    fs::write(&path, all + &sealed).expect("writes");
    let (found, notes) = load(dir.path());
    assert_eq!(found, [event("shop", 0, "known")]);
    assert!(notes[0].contains("0 damaged line(s) and 4 not understood"), "{notes:?}");
}

#[test]
fn the_file_does_not_grow_with_the_years() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut log, mut history) = (EventLog::open(dir.path()).0, History::default());
    let path = dir.path().join("events");
    let (mut largest, mut written) = (0, 0);
    for n in 0..30_000 {
        let event =
            event(["a", "b", "c"][usize::try_from(n).expect("small") % 3], n, &"x".repeat(200));
        log.take(&event);
        history.push(event);
        if n % 10 == 0 {
            log.commit().expect("commits");
            log.compact_if_due().expect("compacts");
            let bytes = fs::metadata(&path).expect("is there").len();
            largest = largest.max(bytes);
            written += 10 * 300;
        }
    }
    log.commit().expect("commits");
    assert!(largest < 2 * limits::EVENTS_COMPACT_BYTES, "{largest} of {written} bytes");
    let (found, notes) = load(dir.path());
    assert_eq!(found, history.iter().cloned().collect::<Vec<_>>());
    assert!(found.len() == 3 * limits::EVENTS_PER_SERVICE_MAX && notes.is_empty(), "{notes:?}");
}

#[test]
fn a_file_that_was_taken_away_or_cannot_be_written_costs_nothing_that_comes_after() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("events");
    let (mut log, ..) = EventLog::open(dir.path());
    log.take(&event("shop", 0, "gone with the file"));
    log.commit().expect("commits");
    fs::remove_file(&path).expect("removes");
    fs::create_dir(&path).expect("something else is there");
    log.take(&event("shop", 1, "waits"));
    assert!(log.commit().is_err());
    fs::remove_dir(&path).expect("removes");
    log.take(&event("shop", 2, "comes"));
    log.commit().expect("commits");
    assert_eq!(load(dir.path()).0, [event("shop", 1, "waits"), event("shop", 2, "comes")]);
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).expect("links");
    fs::rename(dir.path().join("link"), &path).expect("a link in its place");
    let (found, notes) = load(dir.path());
    assert!(found.is_empty() && notes.len() == 1, "{notes:?}");
}

#[test]
fn the_thread_keeps_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, ..) = open(dir.path());
    let events: Vec<_> = (0..100).map(|n| event("shop", n, "again")).collect();
    for event in &events {
        store.send([Message::Happened(event.clone().into())]);
    }
    assert_eq!(store.shutdown(Duration::from_secs(20)), Shutdown::Clean);
    let (_store, loaded, _acks) = open(dir.path());
    assert_eq!(loaded.events.iter().cloned().collect::<Vec<_>>(), events);
}
