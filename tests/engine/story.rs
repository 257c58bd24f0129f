//! How a story is told: one service, a small world around it, a fake clock, and a transcript of what the
//! engine did.
//!
//! A story changes the world (`crashes`, `appears`, `command_ends`, `order`), lets time pass (`at`), and
//! compares what happened with `saw`: one line each, in order, with the time since the beginning. The
//! world answers the engine's questions at once and truthfully, unless the story makes it silent.
//! Questions, log lines and writes of the memory are not in the transcript; they are judged on the way:
//!
//! - a signal goes only to a held process, and a job never starts beside another or beside a living main
//!   process;
//! - memory that changed is persisted in the same step; a new keeper gets exactly what was persisted;
//! - every order is answered once; alerts of an incident are numbered without a gap, none after its end;
//! - `ends` leaves nothing over: no job, no question, no ladder, no unread line, and five calm minutes
//!   in which nothing happens and nobody spins.

mod definitions;
mod late;
mod shell;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use heeler::engine::Engine;
use heeler::engine::input::Input;
use heeler::engine::replace::{Farewell, Wrong};
use heeler::model::change::Kept;
use heeler::model::ids::{AskId, CheckIndex, RequestId};
use heeler::model::incident::{Alert, Incident};
use heeler::model::intent::Who;
use heeler::model::job::{Ended, InFlight, Job, JobKind, Ladder, Outcome, Output};
use heeler::model::memory::Memory;
use heeler::model::observation::Observation;
use heeler::model::order::{Order, WorkerPick};
use heeler::model::process::{Exit, Pid, ProcessIdentity, Uid};
use heeler::model::service::{Life, Service};
use heeler::model::status::Status;
use heeler::model::text::Untrusted;
use heeler::model::time::{Mono, Now, Wall};

pub(crate) use self::definitions::*;
pub(crate) use self::world::*;

/// Where the monotonic clock stands when a story begins: not at zero, so that nothing relies on it.
const BEGIN: Duration = Duration::from_secs(3600);
const WALL_BEGIN_MS: u64 = 1_700_000_000_000;

pub(crate) struct Story {
    pub(crate) engine: Engine,
    def: Arc<Service>,
    /// Where the monotonic clock stood when the story began.
    begin: Duration,
    /// Since then.
    clock: Duration,
    pub(crate) world: World,
    transcript: Vec<String>,
    log: Vec<String>,
    /// The events that nobody has read yet, one line each.
    events: Vec<String>,
    pub(crate) mails: Vec<Alert>,
    jobs: Vec<(Job, Duration)>,
    held: BTreeSet<ProcessIdentity>,
    watched_workers: BTreeSet<ProcessIdentity>,
    /// Those that are gone: letting go of one is no mistake.
    forgotten_workers: BTreeSet<ProcessIdentity>,
    main: Option<ProcessIdentity>,
    unanswered: BTreeMap<&'static str, AskId>,
    memory: Option<Memory>,
    ladder: Option<Ladder>,
    requests: BTreeSet<RequestId>,
    last_request: u64,
    /// Late answers that the story gave on purpose.
    late_answers: u64,
    ticks: u32,
    /// Probes that were asked for.
    pub(crate) probes: u32,
    keepers: u64,
    ended: bool,
}

impl Story {
    /// A service that nobody has looked at yet. Nothing runs, there is no pidfile.
    pub(crate) fn of(def: Service) -> Self {
        Self {
            engine: Engine::new(0),
            def: Arc::new(with_places(def)),
            begin: BEGIN,
            clock: Duration::ZERO,
            world: World {
                claim: Claim::NoPidfile,
                alive: BTreeSet::new(),
                left: Vec::new(),
                survey_fails: None,
                sample: Some(memory_mib(100)),
                probe: Some(Observation::ok()),
                crew: Vec::new(),
                crew_coming: 0,
                puma: None,
                puma_hears: None,
                crew_is_slow: false,
                refuses_signals: None,
            },
            transcript: Vec::new(),
            log: Vec::new(),
            events: Vec::new(),
            mails: Vec::new(),
            jobs: Vec::new(),
            held: BTreeSet::new(),
            watched_workers: BTreeSet::new(),
            forgotten_workers: BTreeSet::new(),
            main: None,
            unanswered: BTreeMap::new(),
            memory: None,
            ladder: None,
            requests: BTreeSet::new(),
            last_request: 0,
            late_answers: 0,
            ticks: 0,
            probes: 0,
            keepers: 0,
            ended: false,
        }
    }

    /// The service is up as pid 100, adopted and past its start period; the clock starts again at zero.
    pub(crate) fn of_running(def: Service) -> Self {
        Self::of(def).up_and_running()
    }

    /// The same of a world that was arranged before.
    pub(crate) fn up_and_running(mut self) -> Self {
        self.appears(100);
        self.begins();
        self.at("2m");
        self.saw("");
        self.happened("0s started: up: pid 100");
        self.starts_again_at_zero();
        self
    }

    /// What is told from here on is told from zero.
    pub(crate) fn starts_again_at_zero(&mut self) {
        self.begin += self.clock;
        self.clock = Duration::ZERO;
        self.log.clear();
    }

    /// heeler takes the service in and looks for the first time.
    pub(crate) fn begins(&mut self) {
        self.keeper_returns();
    }

    // ---- what happens in the world ----

    /// A process comes up and writes its pidfile.
    pub(crate) fn appears(&mut self, pid: i32) {
        self.world.alive.insert(pid);
        self.world.claim = Claim::Names(pid);
    }

    /// Its manager brings a process up, because somebody asked it to.
    pub(crate) fn succeeds(&mut self, pid: i32) {
        self.world.alive.insert(pid);
        self.world.claim = Claim::Succeeds(pid);
    }

    /// A process that nothing names.
    pub(crate) fn lives_unclaimed(&mut self, pid: i32) {
        self.world.alive.insert(pid);
    }

    /// It dies; its pidfile, if it wrote one, stays.
    pub(crate) fn crashes(&mut self, pid: i32) {
        self.dies_unseen(pid);
        if self.held.contains(&identity(pid)) {
            self.input(Input::Exited {
                service: self.def.name.clone(),
                identity: identity(pid),
                exit: None,
            });
        }
    }

    /// A worker goes.
    pub(crate) fn worker_goes(&mut self, pid: i32) {
        let who = identity(pid);
        self.world.crew.retain(|member| member.identity != who);
        if self.watched_workers.remove(&who) {
            self.forgotten_workers.insert(who);
            let service = self.def.name.clone();
            self.input(Input::Exited { service, identity: who, exit: None });
        }
    }

    /// A worker goes, and another comes.
    pub(crate) fn is_succeeded(&mut self, old: i32, new: i32) {
        self.worker_goes(old);
        self.world.crew.push(worker(new, 100));
    }

    /// root wants a worker gone.
    pub(crate) fn order_worker(&mut self, pick: WorkerPick) {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.requests.insert(request);
        self.input(Input::WorkerOrdered {
            service: self.def.name.clone(),
            request,
            pick,
            who: Who::Operator { uid: Uid(0), pid: Pid(9) },
        });
    }

    /// root wants a reload that is seen to its end.
    pub(crate) fn order_verified(&mut self, within: Option<Duration>) {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.requests.insert(request);
        self.input(Input::VerifyOrdered {
            service: self.def.name.clone(),
            request,
            within,
            who: Who::Operator { uid: Uid(0), pid: Pid(9) },
        });
    }

    /// It removes its pidfile and goes.
    pub(crate) fn exits_orderly(&mut self, pid: i32) {
        self.world.claim = Claim::NoPidfile;
        self.crashes(pid);
    }

    /// It dies and the event is lost.
    pub(crate) fn dies_unseen(&mut self, pid: i32) {
        assert!(self.world.alive.remove(&pid), "{pid} does not live");
    }

    /// The running command of this kind ends with a code.
    pub(crate) fn command_ends(&mut self, kind: JobKind, code: i32, output: &str) {
        self.finishes(kind, Ended::Exited(Exit::Code(code)), output);
    }

    /// The shim ends the running command at its deadline.
    pub(crate) fn command_times_out(&mut self, kind: JobKind) {
        self.finishes(kind, Ended::TimedOut, "");
    }

    pub(crate) fn finishes(&mut self, kind: JobKind, ended: Ended, output: &str) {
        let found = self.jobs.iter().position(|(job, _)| job.kind == kind);
        let at = found.unwrap_or_else(|| panic!("no {} command runs", kind.name()));
        let (job, began) = self.jobs.remove(at);
        let output = Output { head: Untrusted::from(output), ..Output::default() };
        let outcome = Outcome { ended, output, took: self.clock - began };
        self.input(Input::Finished { service: self.def.name.clone(), action: job.action, outcome });
    }

    /// The foreground program was executed as this pid.
    pub(crate) fn launched(&mut self, pid: i32) {
        self.world.alive.insert(pid);
        self.held.insert(identity(pid));
        self.main = Some(identity(pid));
        let (job, _) = self.jobs.last().expect("a job was asked for");
        assert_eq!(job.kind, JobKind::Instance);
        self.input(Input::Launched {
            service: self.def.name.clone(),
            action: job.action,
            identity: identity(pid),
        });
    }

    /// root asks for something; answers are numbered from 1.
    pub(crate) fn order(&mut self, order: Order) {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.requests.insert(request);
        self.input(Input::Ordered {
            service: self.def.name.clone(),
            request,
            order,
            who: Who::Operator { uid: Uid(0), pid: Pid(9) },
        });
    }

    // ---- the keeper ----

    /// `kill -9` of heeler: what was not persisted is gone, nobody watches, jobs go on.
    pub(crate) fn keeper_dies(&mut self) {
        self.keepers += 1;
        self.engine = Engine::new(1_000_000 * self.keepers);
        self.held.clear();
        self.unanswered.clear();
        self.requests.clear();
        self.late_answers = 0;
    }

    /// The commands that ran end while no keeper is there to hear it.
    pub(crate) fn jobs_are_forgotten(&mut self) {
        self.jobs.clear();
    }

    /// A new keeper takes the service in, with the memory and the records of the old one.
    pub(crate) fn keeper_returns(&mut self) {
        let job = self.jobs.iter().find(|(job, _)| job.kind != JobKind::Instance);
        let in_flight = match (job, self.ladder) {
            (Some((job, _)), _) => InFlight::Job {
                action: job.action,
                kind: job.kind,
                deadline: job.deadline,
                before: job.main,
            },
            (None, Some(ladder)) => InFlight::Ladder(ladder),
            (None, None) => InFlight::Nothing,
        };
        let mut effects = Vec::new();
        let (now, def) = (self.now(), self.def.clone());
        self.engine.add(now, def, self.memory.clone(), &in_flight, &mut effects);
        self.carry_out(effects);
    }

    pub(crate) fn keeper_restarts(&mut self) {
        self.keeper_dies();
        self.keeper_returns();
    }

    // ---- the configuration ----

    /// The file of the service says something else, and is read.
    pub(crate) fn is_defined(&mut self, def: Service) {
        let def = with_places(def);
        let kept = heeler::config::diff::kept(&self.def, &def, |_, _| true);
        self.is_defined_as(def, &kept);
    }

    /// The same, and which check is which is said.
    pub(crate) fn is_defined_as(&mut self, def: Service, kept: &[Kept]) {
        self.def = Arc::new(with_places(def));
        let def = self.def.clone();
        self.engine_does(|engine, now, effects| engine.replace(now, def, kept, effects));
    }

    /// The file of the service says something else, and no keeper has read it.
    pub(crate) fn file_was_edited(&mut self, def: Service) {
        self.def = Arc::new(with_places(def));
    }

    /// The file of the service is bad, or good again.
    pub(crate) fn file_is(&mut self, bad: Option<&str>) {
        let wrong = bad.map(|title| Wrong {
            title: title.to_owned(),
            lines: vec![format!("cart.toml:3: {title}")],
        });
        let name = self.def.name.clone();
        self.engine_does(|engine, now, effects| {
            engine.definition_is(now, &name, wrong.as_ref(), effects);
        });
    }

    /// The file of the service is gone.
    pub(crate) fn is_forgotten(&mut self) {
        self.parts(&Farewell::Gone);
        self.memory = None;
    }

    /// The file of the service has another name.
    pub(crate) fn is_renamed(&mut self, def: Service) {
        let from = self.def.name.clone();
        let memory = self.engine.memory(&from);
        self.parts(&Farewell::Renamed(def.name.clone()));
        let now = self.now().wall;
        self.memory = memory.map(|memory| memory.renamed(&from, &def.name, now));
        self.def = Arc::new(with_places(def));
        self.keeper_returns();
    }

    fn parts(&mut self, why: &Farewell) {
        let name = self.def.name.clone();
        self.engine_does(|engine, now, effects| engine.remove(now, &name, why, effects));
        // The keeper lets go of everything that it holds for it.
        self.held.clear();
        self.main = None;
    }

    /// Nobody watches it any more: what it owned goes on, and nothing of it is heard.
    #[track_caller]
    pub(crate) fn ends_forgotten(mut self) {
        self.ended = true;
        assert_eq!(self.engine.next_wakeup(), Mono::NEVER);
        assert!(self.engine.memory(&self.def.name).is_none());
        assert_eq!(self.ladder, None, "a ladder is left");
        assert!(self.requests.is_empty(), "not answered: {:?}", self.requests);
        self.saw("");
    }

    // ---- time ----

    /// Lets time pass up to then, serving every wake-up the engine asks for.
    pub(crate) fn at(&mut self, when: &str) {
        let until = span(when);
        assert!(until >= self.clock, "{when} is past: it is {}", clock(self.clock));
        self.pass(until);
    }

    /// Whole seconds since the beginning.
    pub(crate) fn now_s(&self) -> u64 {
        self.clock.as_secs()
    }

    /// Lets time pass until the engine wants something executed.
    pub(crate) fn until_a_command_runs(&mut self) {
        while self.jobs.is_empty() {
            let due = Duration::from_nanos(self.engine.next_wakeup().as_nanos());
            assert!(due < self.begin + self.clock + span("3h"), "nothing will run");
            self.pass(due.saturating_sub(self.begin).max(self.clock));
        }
    }

    fn pass(&mut self, until: Duration) {
        let mut same_moment = 0;
        loop {
            let due = Duration::from_nanos(self.engine.next_wakeup().as_nanos());
            if due > self.begin + until {
                break;
            }
            let due = due.saturating_sub(self.begin).max(self.clock);
            same_moment = if due == self.clock { same_moment + 1 } else { 0 };
            assert!(same_moment < 20, "it spins at {}", clock(self.clock));
            self.clock = due;
            self.ticks += 1;
            self.input(Input::Tick);
        }
        self.clock = until;
    }

    fn now(&self) -> Now {
        let since_boot = self.begin + self.clock;
        let nanos = u64::try_from(since_boot.as_nanos()).unwrap();
        let wall = WALL_BEGIN_MS + u64::try_from(since_boot.as_millis()).unwrap();
        Now { mono: Mono::from_nanos(nanos), wall: Wall(wall) }
    }

    // ---- what was seen ----

    /// What happened since the last look, one line each: `12.05s  run start: bin/start`.
    #[track_caller]
    pub(crate) fn saw(&mut self, expected: &str) {
        let expected = lines(expected);
        let seen = std::mem::take(&mut self.transcript);
        assert!(
            seen == expected,
            "\nexpected:\n    {}\nseen:\n    {}\nlog:\n    {}\n",
            expected.join("\n    "),
            seen.join("\n    "),
            self.log.join("\n    ")
        );
    }

    /// The events since the last look, one line each: `12.05s exited: the main process 100 is gone`.
    #[track_caller]
    pub(crate) fn happened(&mut self, expected: &str) {
        let seen = std::mem::take(&mut self.events);
        assert_eq!(seen.join("\n"), lines(expected).join("\n"));
    }

    /// The lines since the last look, for what is not told line by line.
    pub(crate) fn takes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.transcript)
    }

    /// Lets time pass, up to ten minutes, until this worker has a signal. Answers whether it came.
    pub(crate) fn until_worker_is_told(&mut self, pid: i32) -> bool {
        let end = self.clock + span("10m");
        while self.clock < end {
            if self.takes().iter().any(|line| line.contains(&format!("worker {pid} "))) {
                return true;
            }
            self.pass(self.clock + span("1s"));
        }
        false
    }

    /// What happened up to now is not what this story is about.
    pub(crate) fn reads(&mut self) {
        self.transcript.clear();
        self.events.clear();
    }

    pub(crate) fn status(&self) -> Status {
        self.engine.status(self.now(), &self.def.name).expect("it is there")
    }

    #[track_caller]
    pub(crate) fn status_is(&self, words: &str) {
        assert_eq!(self.status().words, words);
    }

    pub(crate) fn incident(&self) -> Incident {
        self.engine.incidents(&self.def.name).pop().expect("there is one")
    }

    #[track_caller]
    pub(crate) fn log_says(&self, words: &str) {
        let found = self.log.iter().any(|line| line.contains(words));
        assert!(found, "not in the log: {words}\n    {}", self.log.join("\n    "));
    }

    /// How often the log has said so.
    pub(crate) fn times_logged(&self, words: &str) -> usize {
        self.log.iter().filter(|line| line.contains(words)).count()
    }

    #[track_caller]
    pub(crate) fn last_mail_says(&self, words: &str) {
        let mail = self.mails.last().expect("a mail was sent");
        let lines = mail.incident.story.iter().map(|line| line.text.clone());
        let text: Vec<_> = lines.chain([mail.next.clone()]).collect();
        let found = text.iter().any(|line| line.contains(words));
        assert!(found, "not in the mail: {words}\n    {}", text.join("\n    "));
    }

    /// The end of the story: nothing is left over, and nothing more happens.
    #[track_caller]
    pub(crate) fn ends(mut self) {
        self.ended = true;
        self.saw("");
        assert!(self.jobs.iter().all(|(job, _)| job.kind == JobKind::Instance), "a job is left");
        assert_eq!(self.ladder, None, "a ladder is left");
        assert!(self.requests.is_empty(), "not answered: {:?}", self.requests);
        assert!(self.unanswered.is_empty(), "unanswered: {:?}", self.unanswered);
        let wakeup = self.engine.next_wakeup();
        assert!(wakeup > self.now().mono, "it wants to be woken in the past");
        let own = if self.def.life == Life::Nothing {
            self.def.checks.iter().map(|check| check.every).min().unwrap_or(self.def.every)
        } else {
            self.def.every
        };
        assert!(wakeup <= self.now().mono + own * 2, "it sleeps for too long");
        self.ticks = 0;
        self.pass(self.clock + span("5m"));
        self.saw("");
        let checks = self.def.checks.iter().map(|check| check.every);
        let shortest = checks.chain([self.def.every]).min().unwrap().as_millis();
        let ticks = u128::from(self.ticks);
        let enough = 20 + 2 * 300_000 / shortest;
        assert!(ticks <= enough, "{ticks} wake-ups in five calm minutes");
        let counters = self.engine.counters();
        assert_eq!(counters.impossible, [], "impossible cells");
        assert_eq!(counters.strangers, 0);
        assert_eq!(counters.dropped_answers, self.late_answers, "dropped answers");
    }
}

/// Each check knows its place.
fn with_places(mut def: Service) -> Service {
    for (index, check) in def.checks.iter_mut().enumerate() {
        check.index = CheckIndex(u16::try_from(index).unwrap());
    }
    def
}

impl Drop for Story {
    fn drop(&mut self) {
        assert!(self.ended || std::thread::panicking(), "the story has no end");
    }
}

/// `1h2m3.05s`, exactly: two moments that differ look different.
fn clock(at: Duration) -> String {
    let (secs, ms) = (at.as_secs(), at.subsec_millis());
    let (hours, minutes, seconds) = (secs / 3600, secs / 60 % 60, secs % 60);
    let mut out = String::new();
    if hours > 0 {
        out.push_str(&format!("{hours}h"));
    }
    if minutes > 0 {
        out.push_str(&format!("{minutes}m"));
    }
    if seconds > 0 || ms > 0 || out.is_empty() {
        out.push_str(&seconds.to_string());
        if ms > 0 {
            out.push_str(format!(".{ms:03}").trim_end_matches('0'));
        }
        out.push('s');
    }
    out
}

/// The lines of a text, however they are indented.
fn lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect()
}
