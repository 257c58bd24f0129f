//! The keeper: the imperative shell around the engine. One loop, one thread that matters.
//!
//! The loop waits for a process to end, a shim to speak, the pool, the store, an operator, a signal, or
//! the engine's next deadline; turns each into inputs; steps the engine; carries out the effects. It
//! never waits for a disk, a log, a name service, a network or another process.
#![forbid(unsafe_code)]

mod apply;
mod cage;
pub mod control;
mod crews;
mod deaths;
mod dirs;
mod events;
mod hazards;
mod identify;
mod intake;
mod jobs;
mod log;
mod looks;
mod manager;
mod names;
mod operators;
mod passwords;
mod people;
mod pool;
mod post;
mod probes;
mod pumas;
mod reload;
pub mod rights;
mod roll;
mod samples;
mod scout;
mod served;
mod standing;
mod start;
mod trials;
mod turn;
mod units;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};

use crate::config::LoadAs;
use crate::engine::Engine;
use crate::engine::effect::{Effect, Level};
use crate::engine::input::Input;
use crate::keeper::control::ControlEvent;
use crate::keeper::deaths::MemoryKills;
use crate::keeper::events::Events;
use crate::keeper::jobs::Running;
use crate::keeper::log::Log;
use crate::keeper::manager::Manager;
use crate::keeper::operators::Operators;
use crate::keeper::people::People;
use crate::keeper::pool::Pool;
use crate::keeper::post::Post;
use crate::keeper::probes::Waiting;
use crate::keeper::reload::{Conf, Purpose};
use crate::keeper::scout::Scout;
use crate::keeper::served::{Seated, Served};
use crate::keeper::trials::Trials;
use crate::keeper::turn::{Done, DueSurvey, Source};
use crate::model::ids::{ActionId, AskId, CheckIndex, ServiceName};
use crate::model::process::ProcessIdentity;
use crate::model::time::{Mono, Now};
use crate::store::{Ack, Message, Shutdown, StoreHandle};
use crate::sys::alarm::Alarm;
use crate::sys::clock;
use crate::sys::placement::Delegated;
use crate::sys::selfexe::SelfExe;
use crate::sys::watch::Watch;

/// What `heeler run` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration directory.
    pub dir: PathBuf,
    /// `--demo`: a tree of the user who called sudo is accepted.
    pub demo: bool,
}

/// Runs the keeper until it is told to end. Services are left as they are.
#[must_use]
pub fn main(options: &Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(start::keep(options)),
        Err(error) => Err(format!("failed to start: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("heeler: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Everything the loop owns.
pub(crate) struct Keeper {
    engine: Engine,
    services: BTreeMap<ServiceName, Box<Served>>,
    inbox: VecDeque<Input>,
    effects: Vec<Effect>,
    surveys: Vec<DueSurvey>,
    /// How long the last one took.
    survey_took: Duration,
    /// What the store is to be given at the end of this turn.
    outgoing: Vec<Message>,
    /// Services whose memory changed in this turn.
    dirty: BTreeSet<ServiceName>,
    watcher: AsyncFd<Watch>,
    sources: BTreeMap<u64, Source>,
    next_token: u64,
    pool: Pool<Done>,
    store: StoreHandle,
    log: Log,
    manager: Manager,
    exe: SelfExe,
    /// The control group that was left to heeler.
    groups: Option<Delegated>,
    memory_kills: MemoryKills,
    boot_id: Box<str>,
    running: Vec<Running>,
    /// Shims to be reaped, each with its token at the watcher, or with the next look at one that is not
    /// watched.
    shims: BTreeMap<ActionId, (Result<u64, Instant>, OwnedFd)>,
    /// Deaths of `run` programs whose exit status is not known yet, and until when it is waited for.
    deferred_exits: Vec<(Instant, ServiceName, ProcessIdentity)>,
    operators: Operators,
    trials: Trials,
    events: Events,
    people: People,
    load_as: LoadAs,
    scout: Scout,
    /// Looks in the pool that are waited for, soonest deadline first.
    looks: BTreeSet<(Instant, ServiceName, CheckIndex)>,
    /// Looks at a Puma's processes that the pool is at, by when their time is over.
    pumas_in_pool: BTreeSet<(Instant, ServiceName)>,
    passwords: passwords::Passwords,
    programs_waiting: VecDeque<Waiting>,
    /// Looks at units that wait for others to end: at most one for each service.
    units_waiting: VecDeque<(ServiceName, AskId)>,
    /// Services whose Puma is to be asked.
    pumas_waiting: VecDeque<ServiceName>,
    post: Post,
    /// When unknown users are looked up again.
    look_up_at: Option<Instant>,
    conf: Conf,
    /// Foreground programs that go on though their files are gone.
    unclaimed: BTreeSet<ServiceName>,
    next_claim: u64,
}

/// What comes to the loop from elsewhere.
struct Ears {
    done: UnboundedReceiver<Done>,
    acks: UnboundedReceiver<Ack>,
    control: Receiver<ControlEvent>,
    people: UnboundedReceiver<people::Answer>,
    signals: Signals,
}

/// The signals that heeler hears. All that would end a program that does not know them are among
/// them: a stray one must not take the watch away.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }
}

impl Keeper {
    /// The loop.
    async fn watch_over(mut self, mut ears: Ears) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("failed to keep time: {error}");
        let mut alarm = Alarm::new().map_err(failed)?;
        let why = loop {
            self.turn();
            self.manager.turned(self.engine.tally());
            alarm.set(self.wakeup()).map_err(failed)?;
            tokio::select! {
                biased;
                ready = self.watcher.readable() => match ready {
                    Ok(mut guard) => {
                        guard.clear_ready();
                        drop(guard);
                        self.hear_descriptors();
                    }
                    Err(error) => return Err(format!("failed to wait for processes: {error}")),
                },
                Some(done) = ears.done.recv() => self.take_done(done),
                Some(event) = ears.control.recv() => self.hear_operator(event),
                Some(ack) = ears.acks.recv() => self.hear_store(ack),
                Some(answer) = ears.people.recv() => self.hear_people(answer),
                _ = ears.signals.terminate.recv() => break "terminated",
                _ = ears.signals.interrupt.recv() => break "interrupted",
                _ = ears.signals.quit.recv() => break "told to quit",
                _ = ears.signals.user1.recv() => self.say(Level::Info, "SIGUSR1 means nothing to heeler"),
                _ = ears.signals.user2.recv() => self.say(Level::Info, "SIGUSR2 means nothing to heeler"),
                _ = ears.signals.hangup.recv() => self.hang_up(),
                rang = alarm.rings() => {
                    rang.map_err(failed)?;
                    self.time_passed();
                }
            }
        };
        self.end(why)
    }

    /// SIGHUP: the configuration is read anew, and a log file that was moved away is begun anew.
    fn hang_up(&mut self) {
        self.log.reopen();
        self.read_configuration(Purpose::Reload, "SIGHUP".to_owned(), None);
    }

    fn end(mut self, why: &str) -> Result<(), String> {
        self.manager.stopping();
        self.say(Level::Info, &format!("{why}: heeler ends, all services go on as they are"));
        let shutdown = self.store.shutdown(SHUTDOWN_LIMIT);
        if shutdown == Shutdown::Lost {
            let text = "not everything could be written to the state folder; what is missing is seen again";
            self.log.say(now().wall, Level::Error, "heeler", text);
        }
        self.log.flush(Duration::from_secs(1));
        Ok(())
    }

    fn now(&self) -> Now {
        now()
    }

    fn say(&self, level: Level, text: &str) {
        self.log.say(now().wall, level, "heeler", text);
    }

    /// Everything that ended or spoke since the last look.
    fn hear_descriptors(&mut self) {
        let mut tokens = Vec::new();
        loop {
            tokens.clear();
            // Level-triggered: what is not taken off the watcher is told again, so nothing is lost.
            let got = self.watcher.get_ref().drain(&mut tokens).unwrap_or(0);
            let mut known = 0;
            for token in &tokens {
                let Some(source) = self.sources.get(token).cloned() else { continue };
                known += 1;
                match source {
                    Source::Process(service, identity) => {
                        self.sources.remove(token);
                        self.process_ended(service, identity);
                    }
                    Source::Status(action) => self.shim_speaks(action),
                    Source::Shim(action) => self.shim_ended(action),
                    Source::Adopted(action) => self.adopted_ended(action),
                    Source::ScoutSpeaks => self.scout_speaks(),
                    Source::ScoutEnded => self.scout_ended(),
                    Source::PostSpeaks => self.post_speaks(),
                    Source::PostEnded => self.post_ended(),
                }
            }
            if got == 0 || known == 0 {
                return;
            }
        }
    }

    fn take_done(&mut self, done: Done) {
        match done {
            Done::Identified { service, ask, found, came, claim, seat } => {
                let served = self.services.get_mut(&service);
                // Another place is to be looked at by now, or nobody asks.
                let Some(served) = served.filter(|served| served.claim == claim) else { return };
                served.in_pool.look = false;
                served.seated = seat.map(Seated::now);
                self.identified_as(service, ask, found, came);
            }
            Done::Sampled(sampled) => self.sampled_in_pool(sampled),
            Done::Looked(looked) => self.looked_in_pool(looked),
            Done::PumaSeen(seen) => self.puma_seen(*seen),
            Done::Tried(tried) => self.tried_in_pool(tried),
            Done::CrewLooked(looked) => self.crew_looked(looked),
            Done::RollSeen(seen) => self.roll_seen(seen),
            Done::WorkerProved(proved) => self.worker_proved(proved),
            Done::Surveyed(surveyed) => self.surveyed(surveyed),
            Done::PasswordRead(read) => self.password_read(read),
            Done::Read(read) => self.configuration_read(*read),
            Done::MailServer(read) => self.mail_server_read(&read.0, &read.1),
            Done::Nothing => {}
        }
    }

    fn time_passed(&mut self) {
        let instant = Instant::now();
        self.jobs_due(instant);
        self.operators_due(instant);
        self.pool.relieve(instant);
        self.scout_due(instant);
        self.looks_due(instant);
        self.pumas_due(instant);
        self.passwords_due(instant);
        self.programs_due(instant);
        self.trials_due(instant);
        self.post_due(instant);
        self.configuration_due(instant);
        if self.look_up_at.is_some_and(|at| instant >= at) {
            self.look_up_people();
            self.plan_look_up();
        }
        if self.engine.next_wakeup() <= now().mono {
            self.inbox.push_back(Input::Tick);
        }
    }

    /// The earliest deadline of the engine and of the shell itself.
    fn wakeup(&self) -> Instant {
        let instant = Instant::now();
        let engine = match self.engine.next_wakeup() {
            Mono::NEVER => instant + LONGEST_SLEEP,
            at => instant + at.since(now().mono).min(LONGEST_SLEEP),
        };
        let own = [
            self.jobs_wakeup(),
            self.operators_wakeup(),
            self.look_up_at,
            self.pool.wakeup(),
            self.scout_wakeup(),
            self.looks_wakeup(),
            self.pumas_wakeup(),
            self.passwords_wakeup(),
            self.programs_wakeup(),
            self.trials_wakeup(),
            self.post_wakeup(),
            self.configuration_wakeup(),
            self.manager.wakeup(self.engine.tally()),
        ];
        own.into_iter().flatten().fold(engine, Instant::min)
    }
}

const LONGEST_SLEEP: Duration = Duration::from_secs(60);
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

fn now() -> Now {
    clock::now()
}
