//! The outbox where mails go out by SMTP, with a mail server that is played by the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, SystemTime};

use heeler::mail::HostFacts;
use heeler::model::ids::ServiceName;
use heeler::model::incident::{Alert, AlertKind, Cause, Incident};
use heeler::model::job::Output;
use heeler::model::limits;
use heeler::model::rate::Rate;
use heeler::model::time::Wall;
use heeler::store::thread::Delivery;
use heeler::store::{Ack, MailStanding, Message, Settings, Shutdown, StoreHandle};
use heeler::wire::post::{End, Fate, Letter, Posted};
use jiff::tz::TimeZone;

use crate::support::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);

struct Store {
    handle: StoreHandle,
    acks: Receiver<Ack>,
    standing: MailStanding,
    notes: Vec<String>,
}

impl Store {
    fn open(dir: &Path) -> Self {
        let zone = TimeZone::UTC;
        let host = HostFacts { hostname: "web1".into(), from: None, user: "root".into(), zone };
        let delivery = Delivery::Smtp(Rate::default());
        let (sender, acks) = mpsc::channel();
        let settings = Settings { boot_id: "boot".into(), host, delivery };
        let (handle, _) =
            StoreHandle::spawn(dir, settings, move |ack| drop(sender.send(ack))).expect("starts");
        Self { handle, acks, standing: MailStanding::default(), notes: Vec::new() }
    }

    fn queue(&self, alerts: impl IntoIterator<Item = Alert>) {
        self.handle.send(alerts.into_iter().map(|alert| Message::Queue(Box::new(alert))));
    }

    fn letter(&mut self) -> Letter {
        loop {
            let ack = self.acks.recv_timeout(PATIENCE).expect("a letter");
            if let Ack::Letter(letter) = ack {
                return *letter;
            }
            self.note(ack);
        }
    }

    fn note(&mut self, ack: Ack) {
        match &ack {
            Ack::Mail(standing) => self.standing = standing.clone(),
            Ack::MailNote(text) => self.notes.push(text.clone()),
            Ack::Durable(_)
            | Ack::NotDurable(_)
            | Ack::NotPersistent(_)
            | Ack::Persistent
            | Ack::Letter(_) => panic!("{ack:?}"),
        }
    }

    fn answer(&self, id: u64, fates: &[(End, &str)]) {
        let fates = fates.iter().map(|(end, text)| Fate { end: *end, text: (*text).into() });
        self.handle.send([Message::Posted(Posted { id, fates: fates.collect() })]);
    }

    /// Everything sent before is done, and what it led to was said.
    fn settle(&mut self) {
        self.handle.send([Message::Barrier(7)]);
        self.until(|ack| *ack == Ack::Durable(7));
        // A second turn: what the first one said last comes before its answer.
        self.handle.send([Message::Barrier(8)]);
        self.until(|ack| *ack == Ack::Durable(8));
    }

    fn until(&mut self, end: impl Fn(&Ack) -> bool) {
        loop {
            let ack = self.acks.recv_timeout(PATIENCE).expect("an answer");
            if end(&ack) {
                return;
            }
            self.note(ack);
        }
    }
}

fn alert(number: u32, to: &[&str]) -> Alert {
    let incident = Incident {
        service: ServiceName::parse("shop").expect("a name"),
        number,
        cause: Cause::Down,
        title: format!("trouble {number}"),
        opened: Wall(1_777_857_302_113 + u64::from(number) * 1000),
        closed: None,
        story: vec![],
        dropped_lines: 0,
        output: Output::default(),
        told: 0,
        told_at: Wall(0),
    };
    let to = to.iter().map(|to| (*to).into()).collect();
    Alert { incident, sequence: 0, kind: AlertKind::Fired, to, next: String::new() }
}

fn queued(dir: &Path) -> usize {
    fs::read_dir(dir.join("outbox/queue")).expect("lists").count()
}

fn message_id(letter: &Letter) -> &str {
    letter.text.lines().find(|line| line.starts_with("Message-ID: ")).expect("an id")
}

/// ALR-09: between "queued" and "taken" heeler may end at any moment; it is sent again, as the same mail.
#[test]
fn alr_09_it_is_sent_until_it_is_taken_and_is_the_same_mail() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(dir.path());
    store.queue([alert(1, &["ops@example.com"])]);
    let first = store.letter();
    assert_eq!(first.to, ["ops@example.com"]);
    drop(store);
    let mut store = Store::open(dir.path());
    let second = store.letter();
    assert_eq!(message_id(&first), message_id(&second));
    assert!(second.id > first.id);
    // A late answer to the first one means nothing.
    store.answer(first.id, &[(End::Delivered, "250 ok")]);
    store.settle();
    assert_eq!(queued(dir.path()), 1);
    store.answer(second.id, &[(End::Delivered, "250 ok")]);
    store.settle();
    assert_eq!(queued(dir.path()), 0);
    assert_eq!(store.handle.shutdown(PATIENCE), Shutdown::Clean);
    assert!(fs::read_dir(dir.path().join("outbox")).expect("lists").count() == 1, "only `queue`");
}

/// ALR-06: three days without a server and 10 000 events: the queue is bounded, what is dropped is counted
/// and told, and what is left comes in a few mails.
#[test]
fn alr_06_a_server_that_is_down_for_days() {
    // In memory: ten thousand alerts each wait for the disk, and after a minute another try would be due.
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let mut store = Store::open(dir.path());
    store.queue((0..10).map(|n| alert(n, &["ops@example.com"])));
    let first = store.letter();
    assert!(first.text.contains("Subject: [web1] 10 alerts (10 open, 0 over): shop"));
    store.answer(first.id, &[(End::Unreachable, "smtp:25: connection refused")]);
    store.settle();
    let (_, why) = store.standing.trouble.clone().expect("it is seen (ALR-10)");
    assert!(why.contains("connection refused"));
    for part in 0..100 {
        store.queue((0..100).map(|n| alert(10 + part * 100 + n, &["ops@example.com"])));
        store.settle();
    }
    assert_eq!(queued(dir.path()), limits::OUTBOX_MAILS_MAX);
    assert_eq!(store.standing.waiting, limits::OUTBOX_MAILS_MAX);
    let dropped = fs::read_to_string(dir.path().join("outbox/dropped")).expect("counted");
    assert!(dropped.starts_with("9010 alerts were dropped"), "{dropped}");
    store.handle.send([Message::TryMail]);
    let (mut mails, mut told) = (0, 0);
    while told < limits::OUTBOX_MAILS_MAX {
        let letter = store.letter();
        mails += 1;
        told += letter.text.matches("  shop: down: trouble ").count();
        assert_eq!(letter.text.contains("9010 older ones were dropped"), mails == 1, "{mails}");
        assert!(letter.text.len() < limits::OUTBOX_ENTRY_BYTES_MAX, "{}", letter.text.len());
        store.answer(letter.id, &[(End::Delivered, "250 ok")]);
    }
    store.settle();
    assert_eq!((mails, told, queued(dir.path())), (4, 1000, 0));
    assert_eq!(store.standing, MailStanding::default());
}

#[test]
fn what_is_refused_for_ever_is_kept_and_said_and_not_sent_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(dir.path());
    store.queue([alert(1, &["gone@example.com", "slow@example.com", "ops@example.com"])]);
    let letter = store.letter();
    let (never, later) = ("smtp:25: 550 no such user\r\n\u{1b}", "451 greylisted");
    store.answer(
        letter.id,
        &[(End::Refused, never), (End::Later, later), (End::Delivered, "250 ok")],
    );
    store.settle();
    let outbox = dir.path().join("outbox");
    let names: BTreeSet<_> = fs::read_dir(&outbox)
        .expect("lists")
        .map(|entry| entry.expect("lists").file_name().to_string_lossy().into_owned())
        .collect();
    let find = |end: &str| names.iter().find(|name| name.ends_with(end)).cloned();
    let refused = find(".refused").unwrap_or_else(|| panic!("{names:?}"));
    assert!(find(".eml").is_some(), "{names:?}");
    let note = fs::read_to_string(outbox.join(refused)).expect("reads");
    assert!(note.contains("gone@example.com: smtp:25: 550 no such user\\r\\n\\x1b"), "{note}");
    assert!(store.notes[0].contains("mail was refused for ever for gone@example.com"));
    // Only who is left gets it again, after a crash, too.
    drop(store);
    let mut store = Store::open(dir.path());
    let again = store.letter();
    assert_eq!(again.to, ["slow@example.com"]);
    assert_eq!(message_id(&again), message_id(&letter));
    store.answer(again.id, &[(End::Refused, "550 no")]);
    store.settle();
    assert_eq!(queued(dir.path()), 0);
}

#[test]
fn after_days_it_becomes_a_file_loudly() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(dir.path());
    store.queue([alert(1, &[])]);
    let letter = store.letter();
    assert_eq!(letter.to, ["root@web1"]);
    drop(store);
    let queue = dir.path().join("outbox/queue");
    let entry = wait_for("the file", PATIENCE, || fs::read_dir(&queue).ok()?.next()?.ok());
    let old = SystemTime::now() - limits::MAIL_AGE_MAX - Duration::from_secs(1);
    fs::File::open(entry.path()).and_then(|file| file.set_modified(old)).expect("touches");
    let mut store = Store::open(dir.path());
    store.settle();
    assert!(store.notes[0].contains("heeler stops trying"), "{:?}", store.notes);
    assert_eq!(queued(dir.path()), 0);
    let mails = fs::read_dir(dir.path().join("outbox")).expect("lists").flatten();
    assert_eq!(mails.filter(|e| e.path().extension().is_some_and(|x| x == "eml")).count(), 1);
}

#[test]
fn a_burst_is_one_mail_and_others_keep_their_thread() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(dir.path());
    store.queue((0..5).map(|n| alert(n, &["ops@example.com"])));
    store.queue([alert(9, &["dba@example.com"])]);
    let mut letters = vec![store.letter()];
    store.answer(letters[0].id, &[(End::Delivered, "250 ok")]);
    letters.push(store.letter());
    letters.sort_by(|a, b| a.to.cmp(&b.to));
    assert!(letters[0].text.contains("X-Heeler-Service: shop"));
    assert!(letters[1].text.contains("X-Heeler-Kind: digest"));
    assert_eq!(letters[1].text.matches("  shop: down: trouble ").count(), 5);
}

/// What the disk does not take is sent all the same: a full disk is when somebody has to hear of it.
#[test]
fn an_alert_that_cannot_be_written_is_sent_from_memory_and_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(dir.path());
    store.queue([alert(1, &["a@x"])]);
    let first = store.letter();
    // The file of the second cannot be written: something is in the place of its temporary one.
    let token = alert(2, &[]).incident.token();
    let second = format!("20260504T011504Z-{token}-0000.json");
    let in_its_place = dir.path().join(format!("outbox/queue/.{second}.tmp"));
    fs::create_dir_all(in_its_place.join("x")).expect("creates");
    store.answer(first.id, &[(End::Delivered, "250 ok")]);
    store.queue([alert(2, &["a@x", "b@x"])]);
    // It is said, and the letter comes; which is first does not matter.
    let mut letter = None;
    let mut refused = false;
    while letter.is_none() || !refused {
        match store.acks.recv_timeout(PATIENCE).expect("both") {
            Ack::Letter(came) => letter = Some(came),
            Ack::NotPersistent(text) if text.contains(&second) => refused = true,
            ack @ (Ack::Durable(_)
            | Ack::NotDurable(_)
            | Ack::NotPersistent(_)
            | Ack::Persistent
            | Ack::Mail(_)
            | Ack::MailNote(_)) => store.note(ack),
        }
    }
    let letter = letter.expect("it came");
    assert!(letter.text.contains("trouble 2"), "{}", letter.text);
    // One of two has it; the other gets it in the end, still from memory.
    store.answer(letter.id, &[(End::Delivered, "250 ok"), (End::Later, "451 busy")]);
    store.handle.send([Message::TryMail]);
    let again = store.letter();
    assert_eq!((message_id(&again), &again.to[..]), (message_id(&letter), &["b@x".to_owned()][..]));
    store.answer(again.id, &[(End::Delivered, "250 ok")]);
    store.until(|ack| *ack == Ack::Persistent);
    fs::remove_dir_all(&in_its_place).expect("removes");
    store.settle();
    assert_eq!(queued(dir.path()), 0);
    assert_eq!(store.handle.shutdown(PATIENCE), Shutdown::Clean);
}
