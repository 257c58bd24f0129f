//! What a heeler of each format version left behind, made by its own binary in a short life of services of
//! every kind: every later heeler reads it, and no damage to it makes one crash.
//!
//! `fixtures/v1`: `up` was killed and brought back; `stopped` and `deaf` were stopped by an operator, and
//! `deaf` is still being told to go; `alone` is not monitored; `ruled` was stopped by a rule; `broken` does
//! not start; `program` is one that heeler keeps; `watched` has only checks; `gone` was removed from conf.d.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use heeler::config::settings::Settings;
use heeler::config::{LoadAs, parse_service, parse_settings};
use heeler::model::event::EventKind;
use heeler::model::ids::CheckIndex;
use heeler::model::incident::Cause;
use heeler::model::intent::{Desired, Who};
use heeler::model::job::{Ended, JobKind};
use heeler::model::process::{Exit, Pid, ProcessIdentity, Uid};
use heeler::model::time::Wall;
use heeler::store::definitions::{self, DefinitionName};
use heeler::store::events::EventLog;
use heeler::store::journal::{Journal, Trust};
use heeler::store::{Ack, Message, Shutdown, StoreHandle};
use heeler::wire::shim::{ChildRecord, JobRecord, LadderRecord, MainRecord, OutcomeRecord, Record};

use crate::made::{name, settings};

const BOOT: &str = "1befe7f9-62f3-4634-b522-78492b6f2c33";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/fixtures/v1")
}

/// A copy that can be written to, where nothing waits for a disk.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    copy_into(&fixtures().join("state"), dir.path());
    dir
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("lists").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).expect("creates");
            copy_into(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

#[test]
fn the_memories_of_v1_are_read() {
    let dir = copy();
    let (_, restored) = Journal::open(dir.path(), BOOT, Trust::Whole, Wall(0));
    assert_eq!(restored.notes, [""; 0]);
    let names: Vec<_> = restored.memories.keys().map(ToString::to_string).collect();
    let expected = ["alone", "broken", "deaf", "program", "ruled", "stopped", "up", "watched"];
    assert_eq!(names, expected);
    let of = |service: &str| restored.memories[&name(service)].clone();
    let wish = |service: &str| (of(service).intent.desired, of(service).intent.by);
    let root = |pid| Who::Operator { uid: Uid(0), pid: Pid(pid) };
    assert_eq!(wish("up"), (Desired::Up, Who::Config));
    assert_eq!(wish("stopped"), (Desired::Down, root(29783)));
    assert_eq!(wish("alone"), (Desired::Unmonitored, root(29788)));
    assert_eq!(wish("ruled"), (Desired::Down, Who::Rule("process: memory > 1024 B".into())));
    let deaf = ProcessIdentity { pid: Pid(29729), started_ticks: 383_225 };
    assert_eq!((of("deaf").boot.main, of("deaf").boot.leaving), (Some(deaf), Some(deaf)));
    let broken = of("broken");
    assert_eq!((broken.open.len(), broken.incidents_opened, broken.boot.backoffs), (1, 1, 1));
    assert_eq!((broken.open[0].cause, broken.open[0].told), (Cause::Down, 2));
    assert_eq!(broken.open[0].output.head.raw(), "no database\n");
    assert!(broken.boot.backoff_until.is_some() && broken.boot.starts.len() == 2);
    let last = of("program").last.expect("its death");
    assert_eq!(last.title, "the main process 29711 is gone: killed by SIGKILL");
    assert!(last.closed.is_some() && last.story.len() == 4);
    let watched = of("watched");
    assert!(
        matches!(watched.open[0].cause, Cause::Check(kind, CheckIndex(1)) if kind.name() == "port")
    );
    assert_eq!(watched.fingerprints.len(), 1);
}

#[test]
fn the_alerts_of_v1_become_mails_and_its_starts_count() {
    let dir = copy();
    let (store, loaded) = StoreHandle::spawn(dir.path(), settings(BOOT), |_| {}).expect("starts");
    assert_eq!((loaded.pending_alerts, loaded.memories.len()), (8, 8));
    assert_eq!(store.shutdown(std::time::Duration::from_secs(30)), Shutdown::Clean);
    let mails: Vec<_> = fs::read_dir(dir.path().join("outbox"))
        .expect("lists")
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|ext| ext == "eml"))
        .map(|entry| fs::read_to_string(entry.path()).expect("reads"))
        .collect();
    assert_eq!(mails.len(), 8);
    let reading = |text: &str| mails.iter().filter(|mail| mail.contains(text)).count();
    assert_eq!(reading("To: ops@example.com\r\n"), 8);
    assert_eq!(reading("the main process 29711 is gone: killed by SIGKILL"), 1);
    assert_eq!(reading("Message-ID: <heeler.broken.1a22386998b.1.0@web1>"), 1);
    let starts = fs::read_to_string(dir.path().join("starts")).expect("reads");
    // Its two, of which the second crashed, and this one.
    assert_eq!(starts.matches("\"at_ms\"").count(), 3, "{starts}");
}

#[test]
fn the_events_of_v1_are_read_and_a_bad_byte_costs_one() {
    let dir = copy();
    let load = || {
        let (_, history, notes) = EventLog::open(dir.path());
        (history.iter().cloned().collect::<Vec<_>>(), notes)
    };
    let (events, notes) = load();
    assert_eq!((events.len(), notes), (42, vec![]));
    let ordered = events.iter().filter(|event| event.kind == EventKind::Ordered);
    let of: Vec<_> = ordered.map(|event| event.service.to_string()).collect();
    assert_eq!(of, ["stopped", "alone", "deaf"]);
    let path = dir.path().join("events");
    let good = fs::read(&path).expect("reads");
    for at in (0..good.len()).step_by(13) {
        let [one, two, three, _] = damaged(&good, at);
        for bad in [one, two, three] {
            fs::write(&path, bad).expect("writes");
            let found = load().0;
            assert!(
                found.iter().all(|event| events.contains(event)),
                "byte {at}: one was invented"
            );
            assert!(found.len() + 1 >= events.len(), "byte {at}: {} are left", found.len());
        }
    }
}

#[test]
fn the_last_good_definitions_of_v1_are_good() {
    let state = fixtures().join("state");
    let who = LoadAs::new(Uid(0), None, |_| None);
    let text =
        definitions::load(&state, &DefinitionName::Daemon).expect("loads").expect("is there");
    let (settings, _) = parse_settings("heeler.toml", &text, &who).expect("is good");
    assert_eq!(settings.mail.as_ref().map(|mail| mail.servers.len()), Some(1));
    let mut read = BTreeSet::new();
    for entry in fs::read_dir(state.join("last-good")).expect("lists").flatten() {
        let file = entry.file_name().into_string().expect("a name");
        if file == "heeler.toml" {
            continue;
        }
        let service = name(file.trim_end_matches(".toml"));
        let text = definitions::load(&state, &DefinitionName::Service(service.clone()));
        let text = text.expect("loads").expect("is there");
        parse_service(&service, &file, &text, &settings, &who).expect("is good");
        read.insert(service);
    }
    assert_eq!(read.len(), 8);
    let own = Settings::of(&who);
    assert_ne!(own.state_dir, settings.state_dir, "it says its own");
}

fn record<R: Record>(file: &str) -> R {
    let bytes = fs::read(fixtures().join("run/svc").join(file)).expect("reads");
    R::decode(&bytes).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn the_records_of_v1_are_read() {
    let identity = |pid, started_ticks| ProcessIdentity { pid: Pid(pid), started_ticks };
    let main: MainRecord = record("deaf/main");
    assert_eq!((main.identity, main.session), (identity(29729, 383_225), Pid(29729)));
    assert_eq!(main.claim.map(|claim| claim[1]), Some(10_060_036));
    let LadderRecord(ladder) = record("deaf/ladder");
    assert_eq!((ladder.identity, ladder.kill_at.as_nanos()), (main.identity, 4_444_145_421_591));
    let job: JobRecord = record("program/instance.job");
    assert_eq!(
        (&*job.boot, job.kind, job.before),
        (BOOT, JobKind::Instance, Some(identity(29711, 383_201)))
    );
    let child: ChildRecord = record("program/instance.child");
    assert_eq!((child.action, child.child), (job.action, identity(29799, 383_712)));
    let end: OutcomeRecord = record("program/instance.outcome");
    assert_eq!(end.outcome.ended, Ended::Exited(Exit::Signal(9)));
    let failed: OutcomeRecord = record("broken/action.outcome");
    assert_eq!(failed.outcome.ended, Ended::Exited(Exit::Code(43)));
    assert_eq!(failed.outcome.output.head.raw(), "no database\n");
    let probe: OutcomeRecord = record("watched/probe-2.outcome");
    assert_eq!(probe.outcome.output.head.raw(), "FINE | time=3ms\n");
}

/// What may become of a byte.
fn damaged(good: &[u8], at: usize) -> [Vec<u8>; 4] {
    let with = |value| {
        let mut bad = good.to_vec();
        bad[at] = value;
        bad
    };
    [with(good[at] ^ 1), with(good[at] ^ 0x80), with(b'9'), good[..at].to_vec()]
}

#[test]
fn no_bad_byte_in_a_record_of_v1_is_more_than_that() {
    let dirs = fs::read_dir(fixtures().join("run/svc")).expect("lists").flatten();
    let files = dirs.flat_map(|dir| fs::read_dir(dir.path()).expect("lists").flatten());
    let mut tried = 0;
    for path in files.map(|entry| entry.path()) {
        let good = fs::read(&path).expect("reads");
        for at in 0..good.len() {
            for bad in damaged(&good, at) {
                // Whatever its name says it is, it is read as everything.
                let _ = MainRecord::decode(&bad);
                let _ = JobRecord::decode(&bad);
                let _ = ChildRecord::decode(&bad);
                let _ = OutcomeRecord::decode(&bad);
                // Nobody is ever to be killed who has no number of a process.
                if let Ok(LadderRecord(ladder)) = LadderRecord::decode(&bad) {
                    assert!(ladder.identity.pid > Pid(0), "{}", path.display());
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 10_000, "{tried}");
}

#[test]
fn a_bad_byte_in_the_journal_of_v1_costs_one_record() {
    let dir = copy();
    let path = dir.path().join("journal");
    let good = fs::read(&path).expect("reads");
    let load = || Journal::open(dir.path(), BOOT, Trust::Whole, Wall(0)).1;
    let whole = load().memories;
    // Every byte of it is tried by its own test; here each hundredth or so of what really was written.
    for at in (0..good.len()).step_by(97) {
        let [one, two, three, cut] = damaged(&good, at);
        for bad in [one, two, three] {
            fs::write(&path, bad).expect("writes");
            let found = load().memories;
            let same =
                whole.iter().filter(|(name, memory)| found.get(*name) == Some(memory)).count();
            // The record that says that `gone` is gone may be the one.
            assert!(same + 1 >= whole.len() && found.len() <= whole.len() + 1, "byte {at}");
        }
        fs::write(&path, cut).expect("writes");
        let notes = load().notes;
        assert!(notes.len() <= 1, "cut at {at}: {notes:?}");
    }
}

#[test]
fn a_bad_byte_in_an_alert_of_v1_costs_that_alert_alone() {
    const AT_ONCE: usize = 900;
    let source = fixtures().join("state/outbox/queue");
    let entry = "20261128T185918Z-program.1a22386ad1b.1-0000.json";
    let good = fs::read(source.join(entry)).expect("reads");
    let all: Vec<_> = (0..good.len()).flat_map(|at| damaged(&good, at)).collect();
    let all: Vec<_> = all.into_iter().filter(|bad| *bad != good).collect();
    for (part, batch) in all.chunks(AT_ONCE).enumerate() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let queue = dir.path().join("outbox/queue");
        fs::create_dir_all(&queue).expect("creates");
        for (n, bad) in batch.iter().enumerate() {
            fs::write(queue.join(format!("{n:05}.json")), bad).expect("writes");
        }
        fs::copy(source.join(entry), queue.join(entry)).expect("copies");
        let (sender, acks) = std::sync::mpsc::channel();
        let (store, loaded) =
            StoreHandle::spawn(dir.path(), settings(BOOT), move |ack| drop(sender.send(ack)))
                .expect("starts");
        assert_eq!(loaded.pending_alerts, batch.len() + 1);
        let waiting = || {
            let names = fs::read_dir(&queue).expect("lists").flatten().map(|entry| entry.path());
            names.filter(|path| path.extension().is_some_and(|ext| ext == "json")).count()
        };
        while waiting() > 0 {
            // Whoever sends something does not wait for the next try.
            store.send([Message::Barrier(1)]);
            let durable = |ack: &Ack| matches!(ack, Ack::Durable(1) | Ack::NotDurable(1));
            while !durable(&acks.recv_timeout(std::time::Duration::from_secs(30)).expect("goes on"))
            {
            }
        }
        drop(store);
        let mails: Vec<_> = fs::read_dir(dir.path().join("outbox"))
            .expect("lists")
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.ends_with(".eml"))
            .collect();
        let expected = entry.replace(".json", ".eml");
        assert_eq!(mails, [expected], "part {part}: a damaged alert became a mail");
    }
}
