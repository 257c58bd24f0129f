//! A disk that is really full, and then is not.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use heeler::model::event::{Event, EventKind};
use heeler::model::intent::Desired;
use heeler::model::time::Wall;
use heeler::store::events::EventLog;
use heeler::store::journal::{Journal, Trust};
use heeler::store::{Ack, Message, Shutdown};

use crate::made::{BOOT, alert, incident, memory, name, open};
use crate::support::{Need, can_run};

const INSIDE: &str = "HEELER_TEST_FULL_DISK";
const PATIENCE: Duration = Duration::from_secs(20);

/// The child, in a mount namespace of its own, with a tiny file system at the path it is told.
#[test]
fn inside() {
    let Some(dir) = std::env::var_os(INSIDE) else {
        return;
    };
    let dir = Path::new(&dir);
    let state = dir.join("state");
    let (store, _, acks) = open(&state);
    // Longer than a page: what is appended does not fit into what the file has already.
    let mut shop = memory(Desired::Up, 1);
    shop.last = Some(incident());
    shop.last.as_mut().expect("just set").title = "x".repeat(6000);
    store.send([Message::Remember(vec![(name("shop"), shop.clone())]), Message::Barrier(1)]);
    assert_eq!(acks.recv_timeout(PATIENCE), Ok(Ack::Durable(1)));

    let event = Event::new(name("shop"), Wall(1), EventKind::Acted, &"x".repeat(250));
    let filler = dir.join("filler");
    let mut file = fs::File::create(&filler).expect("creates");
    while file.write_all(&[0; 512]).is_ok() {}
    let stopped =
        heeler::model::memory::Memory { intent: memory(Desired::Down, 0).intent, ..shop.clone() };
    store.send([
        Message::Remember(vec![(name("shop"), stopped.clone())]),
        Message::Queue(Box::new(alert(0))),
        Message::Happened(event.clone().into()),
        Message::Barrier(2),
    ]);
    assert_eq!(
        acks.recv_timeout(PATIENCE),
        Ok(Ack::NotDurable(2)),
        "an operator is not left waiting"
    );
    let said = acks.recv_timeout(PATIENCE).expect("says");
    assert!(
        matches!(&said, Ack::NotPersistent(text) if text.contains("free some space")),
        "{said:?}"
    );
    store.send([Message::Barrier(3)]);
    assert_eq!(acks.recv_timeout(PATIENCE), Ok(Ack::NotDurable(3)), "and it is said only once");
    let (_, restored) = Journal::open(&state, BOOT, Trust::Whole, Wall(0));
    assert_eq!(restored.memories[&name("shop")], shop, "the old good state is untouched");

    drop(file);
    fs::remove_file(&filler).expect("removes");
    assert_eq!(acks.recv_timeout(PATIENCE), Ok(Ack::Persistent), "it heals by itself");
    let (_, restored) = Journal::open(&state, BOOT, Trust::Whole, Wall(0));
    assert_eq!(restored.memories[&name("shop")], stopped);
    let (_, history, notes) = EventLog::open(&state);
    assert_eq!(history.iter().collect::<Vec<_>>(), [&event], "once: {notes:?}");
    assert_eq!(store.shutdown(PATIENCE), Shutdown::Clean);
    let mails = fs::read_dir(state.join("outbox")).expect("lists").flatten();
    assert_eq!(mails.filter(|e| e.path().extension().is_some_and(|x| x == "eml")).count(), 1);
    println!("the disk was full and healed");
}

#[test]
fn a_full_disk_loses_nothing_says_so_once_and_heals() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/unshare", "util-linux")]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let script = "mount -t tmpfs -o size=128k,mode=700 none \"$1\" && shift && exec \"$@\"";
    let output = Command::new("/usr/bin/unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().expect("this binary"))
        .args(["--exact", "space::inside", "--nocapture"])
        .env(INSIDE, dir.path())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("full and healed"), "{said}\n{why}");
}
