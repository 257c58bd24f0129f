//! kill -9 of a process that stores, at any moment; and the order of its system calls.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use heeler::model::intent::Desired;
use heeler::store::{Ack, Message, Shutdown, StoreHandle};

use crate::made::{BOOT, Seed, alert, memory, name, open, settings};
use crate::support::{Need, can_run};

const WRITE_TO: &str = "HEELER_TEST_WRITE_TO";
const STEPS: &str = "HEELER_TEST_STEPS";
const PATIENCE: Duration = Duration::from_secs(30);

/// The child: stores memory `n` and alert `n`, says `acked n` when they are durable, at most two
/// steps ahead. Runs only when it is asked for by the environment.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(WRITE_TO) else {
        return;
    };
    let steps: u32 = std::env::var(STEPS).ok().and_then(|n| n.parse().ok()).unwrap_or(u32::MAX);
    let (sender, acks) = mpsc::channel();
    let (store, loaded) = StoreHandle::spawn(Path::new(&dir), settings(BOOT), move |ack| {
        if let Ack::Durable(n) = ack {
            eprintln!("acked {n}");
        }
        let _ = sender.send(ack);
    })
    .expect("starts");
    let first = loaded.memories.get(&name("shop")).map_or(0, |memory| memory.incidents_opened);
    for n in first + 1..first.saturating_add(steps) {
        store.send([
            Message::Remember(vec![(name("shop"), memory(Desired::Down, n))]),
            Message::Queue(Box::new(alert(n))),
            Message::Barrier(u64::from(n)),
        ]);
        if n > first + 2 {
            let acked = acks.recv_timeout(PATIENCE).expect("an acknowledgement");
            assert!(matches!(acked, Ack::Durable(_)), "{acked:?}");
        }
    }
    assert_eq!(store.shutdown(PATIENCE), Shutdown::Clean);
}

fn child(dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "crash::writer", "--nocapture"]).env(WRITE_TO, dir);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// ALR-09. What was acknowledged is there; no half file is ever seen; every alert becomes a mail,
/// and told twice it is the same mail.
#[test]
fn a_hundred_kills_lose_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut seed = Seed(20_261_121);
    let mut newest = 0;
    for round in 0..100 {
        // The kills come faster than any real heeler would crash; that rule has its own test.
        let _ = fs::remove_file(dir.path().join("starts"));
        let acked = kill_one(dir.path(), Duration::from_micros(seed.below(20_000)));
        let (store, loaded, _acks) = open(dir.path());
        assert!(!loaded.notes.iter().any(|note| note.contains("aside")), "{:?}", loaded.notes);
        let found = loaded.memories.get(&name("shop")).map_or(0, |memory| memory.incidents_opened);
        assert!(acked.iter().all(|n| *n <= found), "round {round}: {acked:?} but found {found}");
        assert_eq!(store.shutdown(PATIENCE), Shutdown::Clean);
        let told = mails(&dir.path().join("outbox"));
        let lost: Vec<_> = acked.iter().filter(|n| !told.contains(n)).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} were acknowledged and are no mails");
        assert_eq!(fs::read_dir(dir.path().join("outbox/queue")).expect("lists").count(), 0);
        newest = found;
    }
    assert!(newest > 100, "the kills left time to do something: {newest}");
}

/// Starts a writer, kills it some time after its first word, and gives back what it acknowledged.
fn kill_one(dir: &Path, after: Duration) -> BTreeSet<u32> {
    let mut child = child(dir).spawn().expect("the writer starts");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let (sender, said) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let first = said.recv_timeout(PATIENCE).expect("the writer says something");
    let until = Instant::now() + after;
    let mut lines = vec![first];
    while let Ok(line) = said.recv_timeout(until.saturating_duration_since(Instant::now())) {
        lines.push(line);
    }
    child.kill().expect("kills");
    child.wait().expect("reaps");
    reader.join().expect("reads to the end");
    lines.extend(said.try_iter());
    lines.iter().filter_map(|line| line.strip_prefix("acked ")?.parse().ok()).collect()
}

/// The sequence numbers of the mails in an outbox, each of which must be whole; then removes them.
fn mails(outbox: &Path) -> BTreeSet<u32> {
    let mut told = BTreeSet::new();
    for entry in fs::read_dir(outbox).expect("lists").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        let Some(number) = name.strip_suffix(".eml").and_then(|stem| stem.rsplit('-').next())
        else {
            assert_eq!(name, "queue", "nothing else is left");
            continue;
        };
        let number = number.parse().expect("a number");
        let text = fs::read_to_string(entry.path()).expect("reads");
        let id = format!("Message-ID: <heeler.shop.19df08d8e61.3.{number}@web1>\r\n");
        assert!(text.contains(&id), "{text}");
        assert!(text.trim_end().ends_with("heeler start shop"), "whole: {text}");
        assert!(told.insert(number), "one file for one Message-ID");
        fs::remove_file(entry.path()).expect("removes");
    }
    told
}

/// CRA-07: power loss. A name is given only to a file that is durable, the directory follows before
/// anything else counts on it, and an entry leaves the queue only after its mail is durable.
#[test]
fn a_name_is_given_after_the_contents_are_durable_and_made_durable_before_it_counts() {
    if !can_run(&[Need::Program("/usr/bin/strace", "strace")]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let trace = dir.path().join("trace");
    let writer = child(&state);
    let mut strace = Command::new("/usr/bin/strace");
    strace.args(["-f", "-y", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2,unlink,write"]);
    strace.args(["-o"]).arg(&trace).arg(writer.get_program()).args(writer.get_args());
    let status = strace.env(WRITE_TO, &state).env(STEPS, "6").output().expect("strace runs").status;
    assert!(status.success());
    let text = fs::read_to_string(&trace).expect("reads");
    let (mut synced, mut names_to_sync) = (BTreeSet::new(), BTreeSet::new());
    let (mut renames, mut acked, mut journal) = (0, 0, Journal::Durable);
    for line in text.lines() {
        let quoted: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        let path = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        if line.contains("write(") && path.ends_with("/journal") {
            journal = Journal::Written;
        } else if line.contains("fdatasync(") && path.ends_with("/journal") {
            journal = Journal::Durable;
        } else if line.contains("fsync(") {
            names_to_sync.retain(|dir: &PathBuf| *dir != Path::new(&path));
            synced.insert(path);
        } else if line.contains("rename(") || line.contains("renameat") {
            renames += 1;
            assert!(synced.contains(quoted[0]), "renamed before it was durable: {line}");
            let folder = Path::new(quoted[1]).parent().expect("a folder");
            names_to_sync.insert(folder.to_owned());
        } else if line.contains("unlink(") && quoted[0].contains("/queue/") && line.ends_with("= 0")
        {
            assert!(!names_to_sync.contains(&state.join("outbox")), "too early: {line}");
        } else if line.contains("acked ") {
            acked += 1;
            assert_eq!(journal, Journal::Durable, "too early: {line}");
            assert!(!names_to_sync.contains(&state.join("outbox/queue")), "too early: {line}");
        }
    }
    assert!(renames >= 8 && acked == 5, "the trace shows something: {renames} {acked}\n{text}");
}

#[derive(PartialEq, Debug)]
enum Journal {
    Written,
    Durable,
}
