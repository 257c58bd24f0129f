//! A journal in which bytes are wrong, missing, or from another version.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use heeler::model::ids::ServiceName;
use heeler::model::intent::Desired;
use heeler::model::memory::{BootMemory, Memory};
use heeler::model::time::Wall;
use heeler::store::journal::{Journal, Restored, Trust};

use crate::made::{BOOT, Seed, memory, name};

fn load(dir: &Path, boot: &str) -> Restored {
    Journal::open(dir, boot, Trust::Whole, Wall(1_777_857_302_113)).1
}

fn write(dir: &Path, memories: &[(ServiceName, Memory)]) {
    let (mut journal, _) = Journal::open(dir, BOOT, Trust::Whole, Wall(0));
    for (name, memory) in memories {
        journal.remember(name, memory);
        journal.commit().expect("commits");
    }
}

#[test]
fn every_field_comes_back() {
    for seed in 0..500 {
        let dir = tempfile::tempdir().expect("a directory");
        let mut made = Seed(seed);
        let shop = made.memory();
        write(dir.path(), &[(name("shop"), shop.clone())]);
        let restored = load(dir.path(), BOOT);
        assert_eq!(restored.memories, BTreeMap::from([(name("shop"), shop.clone())]), "{seed}");
        assert_eq!(restored.notes, [""; 0], "{seed}");
        let later = load(dir.path(), "another boot");
        let expected = Memory { boot: BootMemory::default(), ..shop };
        assert_eq!(later.memories[&name("shop")], expected, "{seed}: processes die with the boot");
    }
}

/// Every byte in turn flipped, overwritten and cut off: what comes back of a service is always one
/// of the memories it had, and the newest wherever its own record was not touched.
#[test]
fn one_bad_byte_loses_at_most_one_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let desired = [Desired::Up, Desired::Down, Desired::Unmonitored];
    let steps: Vec<_> = (0..6)
        .map(|n| {
            (name(["a", "b", "c"][n % 3]), memory(desired[n % 3], u32::try_from(n).expect("small")))
        })
        .collect();
    write(dir.path(), &steps);
    let path = dir.path().join("journal");
    let good = fs::read(&path).expect("reads");
    for at in 0..good.len() {
        for value in [good[at] ^ 1, good[at] ^ 0x80, b'\n', 0, good[at].wrapping_add(7)] {
            let mut bad = good.clone();
            bad[at] = value;
            fs::write(&path, &bad).expect("writes");
            let restored = load(dir.path(), BOOT);
            check(&restored.memories, &steps, 1, &format!("byte {at} = {value}"));
        }
        fs::write(&path, &good[..at]).expect("writes");
        let restored = load(dir.path(), BOOT);
        check(&restored.memories, &steps, 6, &format!("cut at {at}"));
        assert!(restored.notes.len() <= 1);
    }
}

fn check(
    found: &BTreeMap<ServiceName, Memory>,
    steps: &[(ServiceName, Memory)],
    lost_max: usize,
    what: &str,
) {
    let had = |name: &ServiceName| {
        steps.iter().filter(|(n, _)| n == name).map(|(_, m)| m).collect::<Vec<_>>()
    };
    let mut lost = 0;
    for service in [name("a"), name("b"), name("c")] {
        let all = had(&service);
        match found.get(&service) {
            Some(memory) => {
                assert!(all.contains(&memory), "{what}: invented {memory:?}");
                lost += usize::from(*memory != *all[1]);
            }
            None => lost += 2,
        }
    }
    assert!(found.len() <= 3 && lost <= lost_max, "{what}: {lost} records lost: {found:?}");
}

#[test]
fn damage_is_said_with_its_place_and_the_next_write_is_not_hurt_by_it() {
    let dir = tempfile::tempdir().expect("a directory");
    write(
        dir.path(),
        &[(name("a"), memory(Desired::Down, 1)), (name("b"), memory(Desired::Down, 2))],
    );
    let path = dir.path().join("journal");
    let good = fs::read(&path).expect("reads");
    // A crash in the middle of a write: no line end. What comes next must not be drawn into it.
    fs::write(&path, &good[..good.len() - 9]).expect("writes");
    write(dir.path(), &[(name("c"), memory(Desired::Up, 3))]);
    let restored = load(dir.path(), BOOT);
    assert_eq!(restored.memories.keys().map(ServiceName::as_str).collect::<Vec<_>>(), ["a", "c"]);
    let half = good.len() / 2 + 1;
    let expected = format!("1 damaged line(s) skipped, the first at byte {half}; the rest is used");
    assert!(restored.notes[0].ends_with(&expected), "{:?}", restored.notes);
}

/// CRA-08.
#[test]
fn the_journal_of_a_newer_heeler_is_set_aside_untouched() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal");
    // The checksum of this very text.
    let newer = "\nd0d2f3c1 {\"v\":2,\"all\":\"new\"}\n";
    fs::write(&path, newer).expect("writes");
    let (mut journal, restored) =
        Journal::open(dir.path(), BOOT, Trust::Whole, Wall(1_777_857_302_113));
    assert!(restored.memories.is_empty());
    assert!(restored.notes[0].contains("written by a newer heeler"), "{:?}", restored.notes);
    journal.compact_if_due().expect("compacts");
    let aside = dir.path().join("journal.newer-20260504T011502Z");
    assert_eq!(fs::read_to_string(aside).expect("is kept"), newer);
    assert_eq!(fs::read_to_string(&path).expect("is new"), "");
    journal.remember(&name("a"), &memory(Desired::Down, 1));
    journal.commit().expect("commits");
    let again = load(dir.path(), BOOT);
    assert_eq!((again.memories.len(), again.notes.len()), (1, 0), "{:?}", again.notes);
}

#[test]
fn what_is_no_file_is_set_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("journal")).expect("creates");
    write(dir.path(), &[(name("a"), memory(Desired::Down, 1))]);
    assert!(dir.path().join("journal.bad-19700101T000000Z").is_dir());
    assert_eq!(load(dir.path(), BOOT).memories.len(), 1);
}

#[test]
fn old_records_do_not_pile_up_and_forgotten_services_stay_forgotten() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = Journal::open(dir.path(), BOOT, Trust::Whole, Wall(0));
    let mut seed = Seed(1);
    let mut newest = BTreeMap::new();
    let path = dir.path().join("journal");
    let mut peak = 0;
    for n in 0..3000 {
        let service = name(&format!("s{}", n % 10));
        let memory = seed.memory();
        journal.remember(&service, &memory);
        newest.insert(service, memory);
        if n % 50 == 0 {
            journal.forget(&name("s3"));
            newest.remove(&name("s3"));
        }
        if n % 5 == 0 {
            journal.commit().expect("commits");
            journal.compact_if_due().expect("compacts");
            peak = peak.max(fs::metadata(&path).expect("is there").len());
        }
    }
    journal.forget(&name("s3"));
    newest.remove(&name("s3"));
    journal.commit().expect("commits");
    assert_eq!(load(dir.path(), BOOT).memories, newest);
    assert!((1 << 19..2 << 20).contains(&peak), "{peak}");
    assert_eq!(fs::metadata(&path).expect("is there").mode() & 0o777, 0o600);
}

#[test]
fn a_journal_that_somebody_removed_is_written_whole_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = Journal::open(dir.path(), BOOT, Trust::Whole, Wall(0));
    journal.remember(&name("a"), &memory(Desired::Down, 1));
    journal.commit().expect("commits");
    fs::remove_file(dir.path().join("journal")).expect("removes");
    journal.remember(&name("b"), &memory(Desired::Down, 2));
    journal.commit().expect("commits");
    assert_eq!(load(dir.path(), BOOT).memories.len(), 2);
}
