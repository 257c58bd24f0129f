//! The store thread: everything that waits for a disk, so that nobody else does.
//!
//! Senders put messages into an inbox and go on; the inbox keeps only what is newest of each service,
//! so it stays small however long a disk hangs. (A channel would grow.) Its lock is held for a map
//! insert or a `take`, never across I/O. One turn of the thread takes the whole inbox, makes it
//! durable (alerts first, then memories: a memory says "told" only of alerts that are on disk), then
//! acknowledges.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::mail::HostFacts;
use crate::model::event::{Event, History};
use crate::model::ids::ServiceName;
use crate::model::incident::Alert;
use crate::model::limits;
use crate::model::memory::Memory;
use crate::model::rate::Rate;
use crate::model::time::{Mono, Wall};
use crate::store::definitions::{self, DefinitionName, Due};
use crate::store::events::EventLog;
use crate::store::journal::{Journal, Trust};
use crate::store::letters::{Letters, MailStanding};
use crate::store::outbox::{Outbox, Turn};
use crate::store::starts::{self, End, Restored, Start};
use crate::store::{StoreError, file};
use crate::wire::post::{Letter, Posted};

/// What the store has to be told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `/proc/sys/kernel/random/boot_id`: what was written in another boot about processes is dropped.
    pub boot_id: Box<str>,
    /// For the mails.
    pub host: HostFacts,
    /// Whether somebody configured a way for mails to leave the machine.
    pub delivery: Delivery,
}

/// How mails are to be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// No `[mail]`: they stay in the outbox folder.
    Folder,
    /// `[mail]` names servers: they go out by [`Ack::Letter`], at most as many as this says.
    Smtp(Rate),
}

/// What was found at the start.
#[derive(Debug)]
pub struct Loaded {
    /// The last memory of each service.
    pub memories: BTreeMap<ServiceName, Memory>,
    /// What somebody should know, one sentence each, for the log.
    pub notes: Vec<String>,
    /// The newest events.
    pub events: History,
    /// Alerts that an earlier keeper queued and that become mails now.
    pub pending_alerts: usize,
}

/// Something to keep.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// The newest memories.
    Remember(Vec<(ServiceName, Memory)>),
    /// A service's file is gone from conf.d: its memory goes, with its last good text.
    Forget(ServiceName),
    /// An alert to put on its way.
    Queue(Box<Alert>),
    /// Something that happened. No barrier waits for it.
    Happened(Arc<Event>),
    /// Asks for one [`Ack`] once everything sent before is on disk, or could not be put there.
    Barrier(u64),
    /// The text of a file that was read and found good.
    SaveDefinition(DefinitionName, Box<str>),
    /// What became of a letter.
    Posted(Posted),
    /// Mail was seen to go out: what waits for its next try is tried now.
    TryMail,
    /// Mails are delivered otherwise from now on.
    Deliver(Box<HostFacts>, Delivery),
}

/// What the store says. Called on the store thread: it must not block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ack {
    /// Everything before this barrier is on disk.
    Durable(u64),
    /// It is not: it is kept in memory and tried again. The one answer to this barrier; an operator
    /// is told so rather than left waiting for a disk.
    NotDurable(u64),
    /// What is to be kept cannot be written, and why. Said once, until [`Ack::Persistent`].
    NotPersistent(String),
    /// Everything is on disk again.
    Persistent,
    /// A letter to deliver; answered by one [`Message::Posted`]. None follows before that.
    Letter(Box<Letter>),
    /// How mail stands, whenever that changes.
    Mail(MailStanding),
    /// Something about mail that somebody has to know.
    MailNote(String),
}

/// How a shutdown went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Shutdown {
    /// Everything is on disk.
    Clean,
    /// The disk took too long, or failed.
    Lost,
}

/// The senders' end. Dropping it without [`StoreHandle::shutdown`] still writes what was sent.
pub struct StoreHandle {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    /// Something was sent, or the thread ended.
    changed: Condvar,
}

#[derive(Default)]
struct Inbox {
    memories: BTreeMap<ServiceName, Option<Memory>>,
    alerts: VecDeque<Box<Alert>>,
    dropped_alerts: u64,
    events: VecDeque<Arc<Event>>,
    definitions: Due,
    barriers: Vec<u64>,
    posted: Vec<Posted>,
    try_mail: TryMail,
    deliver: Option<(HostFacts, Delivery)>,
    life: Life,
}

/// Whether mail was seen to go out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum TryMail {
    Now,
    #[default]
    WhenDue,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Life {
    #[default]
    Running,
    /// End after a last turn: a clean stop.
    Stop,
    /// End after a last turn: the handle was dropped, and nobody said that this is a stop.
    Abandoned,
    /// The thread ended.
    Ended(Shutdown),
}

impl StoreHandle {
    /// Loads what is in `state_dir` (made if absent) and starts the thread.
    ///
    /// # Errors
    /// When the directory cannot be made or entered, or no thread can be started. Damage inside it is
    /// no error, nor is a disk that takes nothing now: see [`Loaded::notes`].
    pub fn spawn(
        state_dir: &Path,
        settings: Settings,
        on_ack: impl Fn(Ack) + Send + 'static,
    ) -> Result<(Self, Loaded), StoreError> {
        let now = wall_now();
        let mut notes = Vec::new();
        match file::make_dir(state_dir) {
            Err(error) if !error.may_pass() => return Err(error),
            Err(error) => notes.push(error.to_string()),
            Ok(()) => {}
        }
        let there = notes.is_empty();
        let mut earlier = starts::load(state_dir);
        let trust = starts::decide(&earlier, now);
        let (mut journal, restored) = Journal::open(state_dir, &settings.boot_id, trust, now);
        let letters = Letters::of(settings.delivery, now);
        let outbox = Outbox::open(state_dir, settings.host, letters)?;
        let (event_log, events, strange) = EventLog::open(state_dir);
        notes.extend(restored.notes);
        notes.extend(strange);
        notes.extend(start_notes(trust, settings.delivery, &outbox, state_dir));
        // What was set aside is off the disk before this start is recorded: a crash between them
        // does not bring it back. The record says that this start got wishes only, so it takes
        // three more crashes to do this again.
        if let Err(error) = journal.compact_if_due() {
            notes.push(error.to_string());
        }
        earlier.push(Start {
            at_ms: now.0,
            restored: what_was_restored(&restored.memories),
            end: End::Unknown,
        });
        if there && let Err(error) = starts::save(state_dir, &earlier) {
            notes.push(error.to_string());
        }
        let loaded =
            Loaded { memories: restored.memories, notes, events, pending_alerts: outbox.pending() };
        let shared = Arc::new(Shared::default());
        let mut keeper = Keeper {
            state_dir: state_dir.to_owned(),
            shared: Arc::clone(&shared),
            journal,
            events: event_log,
            outbox,
            definitions: Due::new(),
            starts: earlier,
            trouble: None,
            standing: None,
            began: Instant::now(),
            on_ack,
        };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| keeper.run())).is_err() {
                    keeper.broken();
                }
            })
            .map_err(StoreError::at("start the store thread for", state_dir))?;
        Ok((Self { shared }, loaded))
    }

    /// Takes messages; never waits for a disk. Those of one call become durable together: send what
    /// one step of the engine asked for in one call.
    pub fn send(&self, messages: impl IntoIterator<Item = Message>) {
        let mut inbox = self.shared.lock();
        messages.into_iter().for_each(|message| inbox.take(message));
        drop(inbox);
        self.shared.changed.notify_all();
    }

    /// Writes what was sent and ends the thread, waiting at most so long for the disk.
    pub fn shutdown(self, patience: Duration) -> Shutdown {
        let end = Instant::now() + patience;
        let mut inbox = self.shared.lock();
        if inbox.life == Life::Running {
            inbox.life = Life::Stop;
            self.shared.changed.notify_all();
        }
        loop {
            if let Life::Ended(how) = inbox.life {
                return how;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Shutdown::Lost;
            }
            inbox = self.shared.wait(inbox, left);
        }
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        let mut inbox = self.shared.lock();
        if inbox.life == Life::Running {
            inbox.life = Life::Abandoned;
        }
        drop(inbox);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// A panic elsewhere cannot leave the inbox half changed: each change of it is one insert.
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inbox: MutexGuard<'a, Inbox>, limit: Duration) -> MutexGuard<'a, Inbox> {
        self.changed.wait_timeout(inbox, limit).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Inbox {
    fn take(&mut self, message: Message) {
        match message {
            Message::Remember(memories) => {
                self.memories.extend(memories.into_iter().map(|(name, m)| (name, Some(m))));
            }
            Message::Forget(name) => {
                self.definitions.insert(DefinitionName::Service(name.clone()), None);
                self.memories.insert(name, None);
            }
            Message::Queue(alert) => {
                if self.alerts.len() >= limits::OUTBOX_MAILS_MAX {
                    self.alerts.pop_front();
                    self.dropped_alerts += 1;
                }
                self.alerts.push_back(alert);
            }
            Message::Happened(event) => {
                if self.events.len() >= limits::EVENTS_MAX {
                    self.events.pop_front();
                }
                self.events.push_back(event);
            }
            Message::Barrier(id) => self.barriers.push(id),
            Message::SaveDefinition(name, text) => {
                self.definitions.insert(name, Some(text));
            }
            Message::Posted(posted) => self.posted.push(posted),
            Message::TryMail => self.try_mail = TryMail::Now,
            Message::Deliver(host, delivery) => self.deliver = Some((*host, delivery)),
        }
    }

    fn is_empty(&self) -> bool {
        self.memories.is_empty()
            && self.alerts.is_empty()
            && self.events.is_empty()
            && self.definitions.is_empty()
            && self.barriers.is_empty()
            && self.posted.is_empty()
            && self.try_mail == TryMail::WhenDue
            && self.deliver.is_none()
    }
}

/// The thread's own.
struct Keeper<OnAck> {
    state_dir: PathBuf,
    shared: Arc<Shared>,
    journal: Journal,
    events: EventLog,
    outbox: Outbox,
    /// Texts to keep (or, absent, to forget) that are not on disk yet.
    definitions: Due,
    starts: Vec<Start>,
    /// Why something is not on disk.
    trouble: Option<String>,
    /// How mail stood when that was last said.
    standing: Option<MailStanding>,
    began: Instant,
    on_ack: OnAck,
}

impl<OnAck: Fn(Ack)> Keeper<OnAck> {
    fn run(&mut self) {
        // The first turn finds what an earlier keeper left in the queue.
        let mut left = Turn::More;
        loop {
            let inbox = self.next(left);
            let life = inbox.life;
            let committed = self.commit(inbox);
            let delivered =
                if self.outbox.letters.is_some() { self.post() } else { self.outbox.deliver() };
            left = *delivered.as_ref().unwrap_or(&Turn::Done);
            // Each is tried, whatever became of the other.
            let of_events = self.events.compact_if_due();
            let tidied = self.journal.compact_if_due().and(of_events);
            let delivered = delivered.map(|_| ());
            if committed.is_ok() && !self.definitions.is_empty() {
                left = Turn::More;
            }
            self.say(committed.and(delivered).and(tidied));
            if life != Life::Running && (self.trouble.is_some() || self.definitions.is_empty()) {
                break self.end(life);
            }
        }
    }

    /// Gives the next letter out, and says how mail stands.
    fn post(&mut self) -> Result<Turn, StoreError> {
        let (letter, result) = self.outbox.next_letter(self.mono(), wall_now());
        for note in self.outbox.take_notes() {
            (self.on_ack)(Ack::MailNote(note));
        }
        let standing = self.outbox.standing();
        if let Some(now) = &standing
            && self.standing != standing
        {
            (self.on_ack)(Ack::Mail(now.clone()));
            self.standing = standing;
        }
        if let Some(letter) = letter {
            (self.on_ack)(Ack::Letter(Box::new(letter)));
        }
        result.map(|()| Turn::Done)
    }

    /// The time since this thread began.
    fn mono(&self) -> Mono {
        Mono::ZERO + self.began.elapsed()
    }

    /// Waits for something to do and takes all of it.
    fn next(&self, left: Turn) -> Inbox {
        let mut inbox = self.shared.lock();
        let retry = Instant::now() + limits::STORE_RETRY;
        while left == Turn::Done && inbox.life == Life::Running && inbox.is_empty() {
            let mail = match self.outbox.wakeup() {
                Mono::NEVER => Duration::MAX,
                at => at.since(self.mono()),
            };
            let wait = match &self.trouble {
                None => mail,
                Some(_) => retry.saturating_duration_since(Instant::now()),
            };
            if wait.is_zero() {
                break;
            }
            inbox = self.shared.wait(inbox, wait);
        }
        let life = inbox.life;
        mem::replace(&mut *inbox, Inbox { life, ..Inbox::default() })
    }

    /// Makes an inbox durable, and answers its barriers.
    fn commit(&mut self, inbox: Inbox) -> Result<(), StoreError> {
        let Inbox {
            memories,
            alerts,
            dropped_alerts,
            events,
            definitions,
            barriers,
            posted,
            try_mail,
            deliver,
            life: _,
        } = inbox;
        let (now, wall) = (self.mono(), wall_now());
        self.outbox.count_dropped(dropped_alerts);
        alerts.into_iter().for_each(|alert| self.outbox.queue(alert));
        for (name, memory) in memories {
            match memory {
                Some(memory) => self.journal.remember(&name, &memory),
                None => self.journal.forget(&name),
            }
        }
        self.definitions.extend(definitions);
        // Each is tried whatever became of the others: a damaged outbox must not cost a wish.
        let there = file::make_dir(&self.state_dir);
        let queued = self.outbox.commit(now);
        let remembered = self.journal.commit();
        let kept = definitions::keep_some(&self.state_dir, &mut self.definitions);
        // What became of letters is about what was queued before.
        let told = posted.iter().map(|one| self.outbox.posted(one, now, wall));
        let told = told.fold(Ok(()), Result::and);
        if let Some((host, delivery)) = deliver {
            self.outbox.deliver_by(host, delivery, now, wall);
        }
        if try_mail == TryMail::Now {
            self.outbox.try_now(now);
        }
        let result = there.and(queued).and(remembered).and(kept).and(told);
        for id in barriers {
            (self.on_ack)(if result.is_ok() { Ack::Durable(id) } else { Ack::NotDurable(id) });
        }
        events.iter().for_each(|event| self.events.take(event));
        let told = self.events.commit();
        result.and(told)
    }

    fn say(&mut self, result: Result<(), StoreError>) {
        let trouble = result.err().map(|error| error.to_string());
        let was = mem::replace(&mut self.trouble, trouble);
        match (&self.trouble, was) {
            (Some(text), None) => (self.on_ack)(Ack::NotPersistent(text.clone())),
            (None, Some(_)) => (self.on_ack)(Ack::Persistent),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    /// After a panic: nothing is written any more, and that is said rather than discovered.
    fn broken(&self) {
        let text = "the store thread crashed; restart heeler (no service is touched by that)";
        (self.on_ack)(Ack::NotPersistent(text.to_owned()));
        self.shared.lock().life = Life::Ended(Shutdown::Lost);
        self.shared.changed.notify_all();
    }

    fn end(&mut self, life: Life) {
        let mut how = if self.trouble.is_none() { Shutdown::Clean } else { Shutdown::Lost };
        if life == Life::Stop {
            if let Some(start) = self.starts.last_mut() {
                start.end = End::Clean;
            }
            if let Err(error) = starts::save(&self.state_dir, &self.starts) {
                how = Shutdown::Lost;
                self.say(Err(error));
            }
        }
        self.shared.lock().life = Life::Ended(how);
        self.shared.changed.notify_all();
    }
}

fn start_notes(trust: Trust, delivery: Delivery, outbox: &Outbox, dir: &Path) -> Vec<String> {
    let mut notes = Vec::new();
    if trust == Trust::WishesOnly {
        notes.push(format!(
            "heeler crashed {} times within a minute of restoring its memories: wishes and alerts \
             are kept, incidents and counters are not used",
            limits::POISON_STARTS
        ));
    }
    let folder = dir.join("outbox");
    let folder = folder.display();
    match delivery {
        Delivery::Folder => {
            notes.push(format!("there is no [mail] in heeler.toml: mails are kept in {folder}"));
        }
        Delivery::Smtp(_) if outbox.pending() > 0 => {
            let count = outbox.pending();
            notes.push(format!("{count} alerts of an earlier heeler still wait for a mail server"));
        }
        Delivery::Smtp(_) => {}
    }
    if outbox.dropped() > 0 {
        let count = outbox.dropped();
        notes.push(format!("{count} alerts were dropped so far: {folder} was full"));
    }
    notes
}

/// Whether there is more in the memories than wishes.
fn what_was_restored(memories: &BTreeMap<ServiceName, Memory>) -> Restored {
    let only_a_wish = |memory: &Memory| {
        // Who it is and which checks it has is no more than its file says.
        let Memory {
            intent: _,
            incidents_opened,
            open,
            last,
            fingerprints,
            claim: _,
            checks: _,
            boot,
        } = memory;
        *incidents_opened == 0
            && open.is_empty()
            && last.is_none()
            && fingerprints.is_empty()
            && *boot == Default::default()
    };
    if memories.values().all(only_a_wish) { Restored::Wishes } else { Restored::Memories }
}

fn wall_now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
