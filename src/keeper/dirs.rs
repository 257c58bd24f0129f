//! The directories of records in `run_dir/svc`: each has its service's name, and goes with a service whose
//! file gets another one. A shim holds its directory open, so its records go along; its locks are open
//! files anyway.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::keeper::jobs::read_record;
use crate::model::ids::ServiceName;
use crate::sys::identity::{self, Found};
use crate::sys::lock::{self, TryLock};
use crate::wire::shim::{ChildRecord, JobRecord, Slot, SlotFile};

/// A service that has another name now.
pub(super) struct Move {
    pub(super) from: ServiceName,
    pub(super) to: ServiceName,
    /// The mark of what says which process is its.
    pub(super) claim: u64,
}

/// Gives each of them its new name. They may change names among each other: all go aside before any
/// gets its own. What is found in the place of a new name is an earlier service's, and goes.
///
/// Answers which could not be moved, and why; they are where they were.
pub(super) fn carry(svc: &Path, moves: &[Move]) -> Vec<(ServiceName, String)> {
    let mut failed = Vec::new();
    let mut aside = Vec::new();
    for one in moves.iter().filter(|one| !is_there_already(svc, one)) {
        match fs::rename(svc.join(one.from.as_str()), moving(svc, &one.to)) {
            Ok(()) => aside.push(one),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failed.push((one.to.clone(), error.to_string())),
        }
    }
    for one in aside {
        if let Err(error) = settle(svc, &one.to) {
            failed.push((one.to.clone(), error.to_string()));
        }
    }
    failed
}

/// Goes on with what an earlier keeper did not finish.
pub(super) fn finish(svc: &Path) -> io::Result<()> {
    for name in names(svc)? {
        if let Some(to) = name.strip_prefix(MOVING).and_then(|to| ServiceName::parse(to).ok()) {
            settle(svc, &to)?;
        } else if name.starts_with(OLD) {
            sweep(&svc.join(name));
        }
    }
    Ok(())
}

/// The services whose foreground program lives, by their directories.
pub(super) fn living(svc: &Path) -> Vec<ServiceName> {
    let names = names(svc).unwrap_or_default();
    let names = names.into_iter().filter(|name| instance_lives(&svc.join(name)));
    names.filter_map(|name| ServiceName::parse(&name).ok()).collect()
}

/// Whether the foreground program with these records lives, or is about to.
pub(super) fn instance_lives(records: &Path) -> bool {
    let lock = records.join(Slot::Instance.file(SlotFile::Lock));
    if !lock.exists() {
        return false;
    }
    if matches!(lock::try_lock(&lock), Ok(TryLock::Busy)) {
        return true;
    }
    let child: Option<ChildRecord> = read_record(records, &Slot::Instance.file(SlotFile::Child));
    child.is_some_and(|child| matches!(identity::identify_recorded(child.child), Found::One(..)))
}

/// No service's name begins with a dot.
const MOVING: &str = ".moving-";
const OLD: &str = ".old-";

fn moving(svc: &Path, to: &ServiceName) -> PathBuf {
    svc.join(format!("{MOVING}{to}"))
}

/// Whether an earlier keeper has moved it, and was killed before that was remembered.
fn is_there_already(svc: &Path, one: &Move) -> bool {
    let claim = |name: &ServiceName| {
        Slot::ACTIONS.into_iter().find_map(|slot| {
            let records = svc.join(name.as_str());
            read_record::<JobRecord>(&records, &slot.file(SlotFile::Job))?.claim
        })
    };
    claim(&one.to) == Some(one.claim) && claim(&one.from) != Some(one.claim)
}

/// Puts what was set aside in its place.
fn settle(svc: &Path, to: &ServiceName) -> io::Result<()> {
    let (aside, place, old) =
        (moving(svc, to), svc.join(to.as_str()), svc.join(format!("{OLD}{to}")));
    sweep(&old);
    match fs::rename(&place, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let moved = fs::rename(aside, place);
    sweep(&old);
    moved
}

/// Removes the records of an earlier service, unless something with a lock in there still lives.
fn sweep(old: &Path) {
    let held = |slot: Slot| {
        let lock = old.join(slot.file(SlotFile::Lock));
        lock.exists() && matches!(lock::try_lock(&lock), Ok(TryLock::Busy))
    };
    if !Slot::ACTIONS.into_iter().any(held) {
        // What stays is tried again by the next keeper.
        drop(fs::remove_dir_all(old));
    }
}

fn names(svc: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(svc) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::ActionId;
    use crate::model::job::JobKind;
    use crate::model::time::Mono;
    use crate::sys::records::write_record;
    use crate::wire::shim::Record;

    fn name(text: &str) -> ServiceName {
        ServiceName::parse(text).expect("a name")
    }

    fn moves(all: &[(&str, &str)]) -> Vec<Move> {
        // The claim of a service is the number of its first letter.
        let claim = |text: &str| u64::from(text.as_bytes()[0]);
        all.iter()
            .map(|(from, to)| Move { from: name(from), to: name(to), claim: claim(from) })
            .collect()
    }

    /// A directory for each, with a job of the service that it was made for.
    fn made(all: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for one in all {
            let records = dir.path().join(one);
            fs::create_dir(&records).expect("mkdir");
            let job = JobRecord {
                boot: "b".into(),
                action: ActionId(1),
                kind: JobKind::Instance,
                cause: (*one).to_owned(),
                before: None,
                deadline: Mono::NEVER,
                claim: Some(u64::from(one.as_bytes()[0])),
            };
            write_record(&records, "instance.job", &job.encode()).expect("write");
        }
        dir
    }

    /// Whose records are in which directory.
    fn found(dir: &tempfile::TempDir) -> String {
        let mut all = names(dir.path()).expect("list");
        all.sort();
        let whose = |name: &String| {
            let job: Option<JobRecord> = read_record(&dir.path().join(name), "instance.job");
            format!("{name}:{}", job.map(|job| job.cause).unwrap_or_default())
        };
        all.iter().map(whose).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn records_go_where_their_services_go() {
        for (there, all, expected) in [
            (&["a"][..], &[("a", "b")][..], "b:a"),
            (&["a", "b"], &[("a", "b"), ("b", "a")], "a:b b:a"),
            (&["a", "b", "c"], &[("a", "b"), ("b", "c"), ("c", "a")], "a:c b:a c:b"),
            // An earlier service's are in the way.
            (&["a", "b"], &[("a", "b")], "b:a"),
            (&[], &[("a", "b")], ""),
        ] {
            let dir = made(there);
            assert!(carry(dir.path(), &moves(all)).is_empty());
            assert_eq!(found(&dir), expected, "{all:?}");
            // A keeper that was killed before it remembered this does the same once more.
            assert!(carry(dir.path(), &moves(all)).is_empty());
            assert_eq!(found(&dir), expected, "{all:?} again");
        }
    }

    #[test]
    fn a_move_that_was_interrupted_is_finished() {
        let dir = made(&["a", "b"]);
        for (from, to) in [("a", ".moving-b"), ("b", ".moving-a")] {
            fs::rename(dir.path().join(from), dir.path().join(to)).expect("rename");
        }
        finish(dir.path()).expect("finishes");
        assert_eq!(found(&dir), "a:b b:a");
        let dir = made(&["a", "b"]);
        fs::rename(dir.path().join("a"), dir.path().join(".moving-b")).expect("rename");
        finish(dir.path()).expect("finishes");
        assert_eq!(found(&dir), "b:a");
    }

    #[test]
    fn what_still_holds_a_lock_is_not_swept_away() {
        let dir = made(&["a", "b"]);
        let lock = lock::try_lock(&dir.path().join("b/instance.lock")).expect("try");
        assert!(instance_lives(&dir.path().join("b")));
        assert_eq!(living(dir.path()), [name("b")]);
        assert!(carry(dir.path(), &moves(&[("a", "b")])).is_empty());
        assert_eq!(found(&dir), ".old-b:b b:a");
        drop(lock);
        finish(dir.path()).expect("finishes");
        assert_eq!(found(&dir), "b:a");
    }
}
