//! The store thread: what it promises to those who send.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use heeler::model::intent::Desired;
use heeler::model::limits;
use heeler::store::definitions::{self, DefinitionName};
use heeler::store::{Ack, Message, Shutdown, StoreHandle};

use crate::made::{BOOT, alert, memory, name, open, settings};
use crate::support::wait_for;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_is_sent_before_a_barrier_is_there_after_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("a/b/heeler");
    let (store, loaded, acks) = open(&state);
    assert!(loaded.memories.is_empty() && loaded.pending_alerts == 0);
    assert!(loaded.notes[0].contains("no [mail] in heeler.toml"), "{:?}", loaded.notes);
    let down = memory(Desired::Down, 1);
    let text: Box<str> = "user = \"deploy\"\n".into();
    store.send([
        Message::Remember(vec![(name("shop"), down.clone()), (name("gone"), down.clone())]),
        Message::SaveDefinition(DefinitionName::Service(name("shop")), text.clone()),
        Message::Queue(Box::new(alert(0))),
        Message::Forget(name("gone")),
        Message::Barrier(9),
    ]);
    assert_eq!(acks.recv_timeout(PATIENCE), Ok(Ack::Durable(9)));
    let kept = definitions::load(&state, &DefinitionName::Service(name("shop")));
    assert_eq!(kept.expect("loads").as_deref(), Some(&*text));
    assert_eq!(store.shutdown(PATIENCE), Shutdown::Clean);
    let (_store, loaded, _acks) = open(&state);
    assert_eq!(loaded.memories.into_iter().collect::<Vec<_>>(), [(name("shop"), down)]);
    let mail = state.join("outbox/20260504T011502Z-shop.19df08d8e61.3-0000.eml");
    for (path, mode) in [
        (state.clone(), 0o700),
        (state.join("outbox"), 0o700),
        (state.join("outbox/queue"), 0o700),
        (state.join("last-good"), 0o700),
        (state.join("last-good/shop.toml"), 0o600),
        (state.join("journal"), 0o600),
        (state.join("starts"), 0o600),
        (mail, 0o600),
    ] {
        let facts = fs::metadata(&path);
        let list = || {
            fs::read_dir(state.join("outbox"))
                .map(|d| d.flatten().map(|e| e.path()).collect::<Vec<_>>())
        };
        let facts =
            facts.unwrap_or_else(|error| panic!("{}: {error}: {:?}", path.display(), list()));
        assert_eq!(facts.mode() & 0o777, mode, "{}", path.display());
    }
}

/// A disk that hangs: here the thread hangs in its acknowledgement, which is the same to a sender.
#[test]
fn a_store_that_hangs_holds_up_nobody_and_keeps_only_the_newest() {
    let dir = tempfile::tempdir().expect("a directory");
    let (entered, hangs) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let (store, _) = StoreHandle::spawn(dir.path(), settings(BOOT), move |ack| {
        let _ = entered.send(ack);
        let _ = held.recv();
    })
    .expect("starts");
    store.send([Message::Barrier(0)]);
    assert_eq!(hangs.recv_timeout(PATIENCE), Ok(Ack::Durable(0)));
    let begun = Instant::now();
    for n in 0..20_000 {
        store.send([Message::Remember(vec![(name("shop"), memory(Desired::Up, n))])]);
    }
    for n in 0..u32::try_from(limits::OUTBOX_MAILS_MAX).expect("small") + 5 {
        store.send([Message::Queue(Box::new(alert(n)))]);
    }
    store.send([Message::Barrier(1)]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(store.shutdown(Duration::from_millis(50)), Shutdown::Lost, "it says so and returns");
    drop(release);
    let journal = dir.path().join("journal");
    assert_eq!(hangs.recv_timeout(PATIENCE * 3), Ok(Ack::Durable(1)));
    let text = fs::read_to_string(journal).expect("reads");
    assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 1, "{text}");
    assert!(text.contains("\"incidents_opened\":19999"));
    let dropped = dir.path().join("outbox/dropped");
    let text = wait_for("the count", PATIENCE, || fs::read_to_string(&dropped).ok());
    assert!(text.starts_with("5 alerts were dropped"), "{text}");
}

#[test]
fn memories_that_heeler_crashes_of_are_set_aside_and_wishes_stay() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bad = memory(Desired::Down, 5);
    bad.last = Some(crate::made::incident());
    for crash in 0..4 {
        let (store, loaded, acks) = open(dir.path());
        assert_eq!(loaded.memories.len(), usize::from(crash > 0));
        assert!(!loaded.notes.iter().any(|note| note.contains("crashed")), "{crash}");
        store.send([Message::Remember(vec![(name("shop"), bad.clone())]), Message::Barrier(0)]);
        assert_eq!(acks.recv_timeout(PATIENCE), Ok(Ack::Durable(0)));
        // Dropped and not shut down: a crash. The thread is gone once its end of the channel is.
        drop(store);
        while acks.recv_timeout(PATIENCE).is_ok() {}
    }
    let (store, loaded, _acks) = open(dir.path());
    assert!(
        loaded.notes.iter().any(|note| note.contains("heeler crashed 3 times")),
        "{:?}",
        loaded.notes
    );
    let kept = &loaded.memories[&name("shop")];
    assert_eq!((kept.intent.clone(), &kept.last), (bad.intent.clone(), &None));
    assert_eq!(store.shutdown(PATIENCE), Shutdown::Clean);
    let names = fs::read_dir(dir.path()).expect("lists").flatten().map(|e| e.file_name());
    assert!(names.into_iter().any(|n| n.to_string_lossy().starts_with("journal.poisoned-")));
    let (_store, loaded, _acks) = open(dir.path());
    assert!(!loaded.notes.iter().any(|note| note.contains("crashed")), "{:?}", loaded.notes);
    assert_eq!(loaded.memories[&name("shop")].last, None, "what was set aside stays aside");
}

#[test]
fn a_directory_that_cannot_be_used_is_explained() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("writes");
    let error =
        StoreHandle::spawn(&file.join("heeler"), settings(BOOT), |_| {}).err().expect("fails");
    let text = error.to_string();
    assert!(text.starts_with("failed to create the directory /"), "{text}");
    assert!(text.contains("set state_dir in heeler.toml"), "{text}");
}

#[test]
fn a_damaged_entry_of_the_queue_is_set_aside_and_holds_up_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let queue = dir.path().join("outbox/queue");
    fs::create_dir_all(&queue).expect("creates");
    fs::write(queue.join("0-bad.json"), "\n00000000 {}\n").expect("writes");
    fs::write(queue.join(".half.json.tmp"), "half").expect("writes");
    let (store, loaded, acks) = open(dir.path());
    assert_eq!(loaded.pending_alerts, 1);
    store.send([Message::Queue(Box::new(alert(0)))]);
    let said = acks.recv_timeout(PATIENCE).expect("says");
    assert!(matches!(&said, Ack::NotPersistent(text) if text.contains("0-bad.json")), "{said:?}");
    assert_eq!(acks.recv_timeout(PATIENCE), Ok(Ack::Persistent));
    assert_eq!(store.shutdown(PATIENCE), Shutdown::Clean);
    let left: Vec<_> =
        fs::read_dir(&queue).expect("lists").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["0-bad.json.bad"]);
}

#[test]
fn a_wish_does_not_wait_behind_ten_thousand_definitions() {
    const MANY: usize = 300;
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("heeler");
    let (sender, acks) = mpsc::channel();
    let folder = state.join("last-good");
    let kept = move || fs::read_dir(&folder).map_or(0, Iterator::count);
    let count = kept.clone();
    // Asked in the store's own thread, so that it saves nothing meanwhile.
    let (store, _) = StoreHandle::spawn(&state, settings(BOOT), move |ack| {
        drop(sender.send((ack, count())));
    })
    .expect("the store starts");
    let file = |n: usize| DefinitionName::Service(name(&format!("s{n}")));
    let definitions = (0..MANY).map(|n| Message::SaveDefinition(file(n), "every = \"5s\"".into()));
    let wish = Message::Remember(vec![(name("shop"), memory(Desired::Down, 1))]);
    store.send(definitions.chain([wish, Message::Barrier(1)]));
    let (ack, saved) = acks.recv_timeout(PATIENCE).expect("an ack");
    assert_eq!(ack, Ack::Durable(1));
    assert!(saved < MANY / 2, "it waited for {saved} definitions");
    wait_for("all definitions to be kept", PATIENCE, || (kept() == MANY).then_some(()));
    // What is not kept yet at the end is kept then.
    let more = (MANY..2 * MANY).map(|n| Message::SaveDefinition(file(n), "every = \"6s\"".into()));
    store.send(more);
    assert_eq!(store.shutdown(PATIENCE), Shutdown::Clean);
    assert_eq!(kept(), 2 * MANY);
    let last = definitions::load(&state, &file(2 * MANY - 1)).expect("loads");
    assert_eq!(last.as_deref(), Some("every = \"6s\""));
}
