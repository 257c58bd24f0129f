//! The fake world: its clock, what is in it, and the loop that lets things happen in order of time.
//!
//! `life` lets processes and jobs live and die, `keeper` carries out what the engine asks, `oracles` judges.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use heeler::engine::Engine;
use heeler::engine::input::Input;
use heeler::model::ids::{ActionId, AskId, RequestId, ServiceName};
use heeler::model::job::{Ended, JobKind, Ladder, Outcome};
use heeler::model::memory::Memory;
use heeler::model::process::{Exit, Pid, ProcessIdentity, Signal};
use heeler::model::service::Service;
use heeler::model::time::{Mono, Now, Wall};

use crate::crew::{self, Crews, Look};
use crate::crew_oracles::CrewOracles;
use crate::faults::{Fault, Faults};
use crate::keeper::{Question, Stored};
use crate::oracles::{Judged, Oracles};
use crate::prng::Rng;
use crate::topology;

/// What is yet to happen.
#[derive(Debug)]
pub(crate) enum Ev {
    /// The keeper looks, and tells the engine what it sees.
    Look {
        epoch: u64,
        svc: usize,
        question: Question,
    },
    /// Something reaches the keeper.
    Input {
        epoch: u64,
        input: Box<Input>,
    },
    /// A command gets on with it.
    Job {
        svc: usize,
        action: ActionId,
        step: JobStep,
    },
    /// A process ends, if it still lives.
    Exit {
        identity: ProcessIdentity,
        exit: Exit,
        manner: Manner,
    },
    WritePidfile {
        svc: usize,
        identity: ProcessIdentity,
    },
    /// Somebody else starts the service.
    StartedByOther {
        svc: usize,
    },
    Commit {
        epoch: u64,
    },
    KeeperStart,
    /// A master gets on with it.
    CrewTurn {
        svc: usize,
    },
    /// A look at workers comes back; perhaps with what was seen when it began.
    CrewLook {
        epoch: u64,
        svc: usize,
        ask: AskId,
        main: ProcessIdentity,
        early: Option<Box<Look>>,
    },
    CrewOperator,
    /// Somebody deploys a good release in the calm.
    QuietReload {
        svc: usize,
    },
    Mischief,
    Operator,
    Calm,
}

#[derive(Clone, Debug)]
pub(crate) enum JobStep {
    Spawn { pidfile_after: Duration },
    Launch,
    Term,
    Respawn,
    End(Ended),
}

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// Its pidfile stays.
    Crash,
    /// It removes its pidfile first.
    Orderly,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Main,
    Child {
        holds_socket: bool,
        foreign: bool,
    },
    /// Nothing to do with any service.
    Stranger,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Starter {
    Heeler,
    Other,
}

#[derive(Clone, Debug)]
pub(crate) struct Proc {
    pub(crate) svc: usize,
    pub(crate) role: Role,
    pub(crate) parent: Option<ProcessIdentity>,
    pub(crate) by: Starter,
    pub(crate) born: Mono,
    /// It does not heed its stop signal until then.
    pub(crate) deaf_until: Mono,
    /// Not even KILL ends it until then.
    pub(crate) stuck_until: Mono,
    /// It outlives its parent.
    pub(crate) outlives: bool,
    /// The shim that waits for it.
    pub(crate) instance: Option<ActionId>,
}

#[derive(Clone, Debug)]
pub(crate) struct Shim {
    pub(crate) action: ActionId,
    pub(crate) kind: JobKind,
    pub(crate) deadline: Mono,
    pub(crate) before: Option<ProcessIdentity>,
}

/// One service as it really is.
#[derive(Debug)]
pub(crate) struct Svc {
    pub(crate) def: Arc<Service>,
    /// Every name it ever had.
    pub(crate) names: Vec<ServiceName>,
    pub(crate) file: File,
    pub(crate) pidfile: Option<Pidfile>,
    /// The job that holds the action lock.
    pub(crate) job: Option<Shim>,
    /// How a job ended that no keeper heard of.
    pub(crate) outcome: Option<(Shim, Outcome)>,
    /// The shim of `run` before its program was executed.
    pub(crate) launching: Option<ActionId>,
    pub(crate) ladder: Option<Ladder>,
    /// What is remembered of it, and under which name.
    pub(crate) stored: Option<(ServiceName, Memory)>,
    pub(crate) refused_until: Mono,
    pub(crate) unknown_until: Mono,
    pub(crate) deaf_signals_until: Mono,
    pub(crate) big_until: Mono,
    pub(crate) unseen_until: Mono,
}

/// Whether its file is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum File {
    There,
    /// It is not, and nobody watches it.
    Gone,
    /// It is not, and its program goes on, which can only be stopped.
    Unclaimed,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pidfile {
    pub(crate) pid: Pid,
    pub(crate) written: Mono,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) now: Mono,
    wall_skew_ms: i64,
    /// The longest wait from one mischief, one order, to the next.
    mischief_ms: u64,
    operator_ms: u64,
    queue: BTreeMap<(Mono, u64), Ev>,
    serial: u64,
    pub(crate) svcs: Vec<Svc>,
    pub(crate) procs: BTreeMap<ProcessIdentity, Proc>,
    next_pid: i32,
    // The keeper.
    pub(crate) engine: Option<Engine>,
    pub(crate) epoch: u64,
    pub(crate) tick_at: Mono,
    /// What this keeper holds a pidfd of.
    pub(crate) held: BTreeSet<(usize, ProcessIdentity)>,
    pub(crate) store: VecDeque<Stored>,
    pub(crate) next_request: u64,
    pub(crate) editions: u64,
    /// In calm, everything has to be mended within this.
    pub(crate) patience: Duration,
    pub(crate) oracles: Oracles,
    pub(crate) crews: Crews,
    pub(crate) crew_oracles: CrewOracles,
    pub(crate) report: Report,
    trace: bool,
}

/// What a seed showed.
#[derive(Default, Debug)]
pub(crate) struct Report {
    pub(crate) steps: u64,
    pub(crate) simulated: Duration,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) cells: BTreeSet<(u8, heeler::engine::table::Where, heeler::engine::table::Class)>,
    pub(crate) alerts: u64,
    pub(crate) answers: u64,
    pub(crate) runs: u64,
    pub(crate) signals: u64,
    pub(crate) worker_signals: u64,
}

const WALL_START_MS: i64 = 1_800_000_000_000;
/// Few numbers, so that they are reused all the time.
const PIDS: std::ops::Range<i32> = 300..700;

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let mut defs = topology::draw(&mut rng);
        let mut faults = Faults::draw(&mut rng);
        let mut crews = crew::draw(seed, &mut defs);
        faults.draw_crew(&mut crews.rng);
        let oracles = Oracles::new(&defs);
        let mischief_ms = rng.pick(&[1500, 5000, 15_000]);
        let operator_ms = rng.pick(&[3000, 15_000, 60_000]);
        let patience = defs.iter().enumerate().map(|(at, def)| {
            let crew = crews.masters.get(&at).map(|master| master.calm_span(def));
            patience(def) + crew.unwrap_or_default()
        });
        let patience = patience.max().unwrap_or_default();
        let svcs = defs.into_iter().map(Svc::new).collect();
        Self {
            seed,
            rng,
            faults,
            now: Mono::from_nanos(1_000_000_000_000),
            wall_skew_ms: 0,
            mischief_ms,
            operator_ms,
            queue: BTreeMap::new(),
            serial: 0,
            svcs,
            procs: BTreeMap::new(),
            next_pid: PIDS.start,
            engine: None,
            epoch: 0,
            tick_at: Mono::NEVER,
            held: BTreeSet::new(),
            store: VecDeque::new(),
            next_request: 0,
            editions: 0,
            patience,
            oracles,
            crews,
            crew_oracles: CrewOracles::default(),
            report: Report::default(),
            trace,
        }
    }

    /// Storm, then calm, then the last judgement.
    pub(crate) fn run(mut self) -> Report {
        let begin = self.now;
        let storm = self.rng.span(30_000, 300_000);
        for svc in 0..self.svcs.len() {
            if self.rng.chance(400) {
                self.started_by_other(svc);
            }
        }
        self.after(Duration::ZERO, Ev::KeeperStart);
        self.after(storm, Ev::Calm);
        self.next_mischief();
        self.next_operator();
        let masters: Vec<_> = self.crews.masters.keys().copied().collect();
        for svc in masters {
            self.after(Duration::ZERO, Ev::CrewTurn { svc });
        }
        self.after(Duration::ZERO, Ev::CrewOperator);
        let mut end = Mono::NEVER;
        while self.now < end {
            let event_at = self.queue.first_key_value().map_or(Mono::NEVER, |((at, _), _)| *at);
            let until = event_at.min(self.tick_at).min(end);
            self.now = self.now.max(until);
            if self.now >= end {
                break;
            }
            if self.tick_at <= event_at {
                self.step(Input::Tick);
            } else if let Some((_, event)) = self.queue.pop_first() {
                if matches!(event, Ev::Calm) {
                    end = self.now + self.patience + Duration::from_secs(150);
                }
                self.happen(event);
            }
            self.refresh();
        }
        self.judge_the_end();
        self.keep_counters();
        self.report.simulated = self.now.since(begin);
        self.report.faults = std::mem::take(&mut self.faults.counts);
        self.report
    }

    fn happen(&mut self, event: Ev) {
        match event {
            Ev::Look { epoch, svc, question } if epoch == self.epoch => self.look(svc, question),
            Ev::Input { epoch, input } if epoch == self.epoch => self.take(*input),
            Ev::Commit { epoch } if epoch == self.epoch => self.commit(),
            Ev::CrewLook { epoch, svc, ask, main, early } if epoch == self.epoch => {
                self.crew_looked(svc, ask, main, early);
            }
            Ev::Look { .. } | Ev::Input { .. } | Ev::Commit { .. } | Ev::CrewLook { .. } => {}
            Ev::CrewTurn { svc } => self.crew_turn(svc),
            Ev::CrewOperator => self.crew_operator(),
            Ev::QuietReload { svc } => self.verified_reload(svc, true),
            Ev::Job { svc, action, step } => self.job_step(svc, action, step),
            Ev::Exit { identity, exit, manner } => self.exit(identity, exit, manner),
            Ev::WritePidfile { svc, identity } => self.write_pidfile(svc, identity),
            Ev::StartedByOther { svc } => self.started_by_other(svc),
            Ev::KeeperStart => self.keeper_start(),
            Ev::Mischief => {
                if let Some(fault) = self.faults.mischief(&mut self.rng) {
                    self.mischief(fault);
                }
                self.next_mischief();
            }
            Ev::Operator => {
                if self.faults.has(Fault::Operator) {
                    self.operators();
                }
                self.next_operator();
            }
            Ev::Calm => self.calm(),
        }
    }

    fn next_mischief(&mut self) {
        let wait = self.rng.span(20, self.mischief_ms);
        self.after(wait, Ev::Mischief);
    }

    fn next_operator(&mut self) {
        let wait = self.rng.span(20, self.operator_ms);
        self.after(wait, Ev::Operator);
    }

    pub(crate) fn after(&mut self, wait: Duration, event: Ev) {
        self.serial += 1;
        self.queue.insert((self.now + wait, self.serial), event);
    }

    pub(crate) fn clock(&self) -> Now {
        let ms = i64::try_from(self.now.as_nanos() / 1_000_000).expect("a short simulation");
        let wall = WALL_START_MS + ms + self.wall_skew_ms;
        Now { mono: self.now, wall: Wall(u64::try_from(wall).expect("after 1970")) }
    }

    pub(crate) fn jump_wall(&mut self) {
        let by = i64::try_from(self.rng.below(7_200_000)).expect("small");
        self.wall_skew_ms += by - 3_600_000;
    }

    /// Nothing ran for a while: everything due meanwhile happens late.
    pub(crate) fn jump_clock(&mut self) {
        let by = self.rng.span(500, 90_000);
        self.now = self.now + by;
    }

    /// A number that is free, with the moment it is taken at.
    pub(crate) fn new_identity(&mut self, wanted: Option<Pid>) -> ProcessIdentity {
        let ticks = self.now.as_nanos() / 10_000_000;
        let taken = |pid: i32| {
            let stale = |svc: &Svc| svc.pidfile.is_some_and(|file| file.pid.0 == pid);
            self.procs.keys().any(|id| id.pid.0 == pid)
                // A stranger under a stale number is refused for as long as it lives.
                || self.faults.calm && self.svcs.iter().any(stale)
                || self.oracles.known.contains(&ProcessIdentity {
                    pid: Pid(pid),
                    started_ticks: ticks,
                })
        };
        let mut pid = wanted.map_or(self.next_pid, |pid| pid.0);
        while taken(pid) {
            self.next_pid =
                if self.next_pid + 1 >= PIDS.end { PIDS.start } else { self.next_pid + 1 };
            pid = self.next_pid;
        }
        let identity = ProcessIdentity { pid: Pid(pid), started_ticks: ticks };
        self.oracles.known.insert(identity);
        identity
    }

    pub(crate) fn alive(&self, identity: ProcessIdentity) -> bool {
        self.procs.contains_key(&identity)
    }

    /// The living main processes of a service, oldest first.
    pub(crate) fn mains(&self, svc: usize) -> Vec<ProcessIdentity> {
        let mut mains: Vec<_> = self
            .procs
            .iter()
            .filter(|(_, proc)| proc.svc == svc && proc.role == Role::Main)
            .map(|(identity, proc)| (proc.born, *identity))
            .collect();
        mains.sort();
        mains.into_iter().map(|(_, identity)| identity).collect()
    }

    pub(crate) fn index(&self, name: &ServiceName) -> usize {
        self.svcs
            .iter()
            .position(|svc| svc.names.contains(name))
            .expect("the engine names only services it was given")
    }

    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            let at = Duration::from_nanos(self.now.as_nanos() - 1_000_000_000_000);
            eprintln!("{:>10.3} {}", at.as_secs_f64(), text());
        }
    }

    /// A promise was broken.
    pub(crate) fn broken(&self, oracle: u32, svc: Option<usize>, text: &str) -> ! {
        let at = Duration::from_nanos(self.now.as_nanos() - 1_000_000_000_000).as_secs_f64();
        let name = svc.map_or("", |svc| self.svcs[svc].def.name.as_str());
        panic!("oracle {oracle}: seed {} at {at:.3}s {name}: {text}", self.seed)
    }

    fn keep_counters(&mut self) {
        if let Some(engine) = &self.engine {
            let counters = engine.counters();
            self.report.cells.extend(counters.visited.iter().copied());
            if let Some(cell) = counters.impossible.first() {
                let text = format!("the impossible happened: {cell:?}");
                self.broken(0, None, &text);
            }
        }
    }

    /// The keeper is gone, with everything that was only in its memory.
    pub(crate) fn kill_keeper(&mut self) {
        self.note(|| "KEEPER KILLED".to_owned());
        self.keep_counters();
        self.engine = None;
        self.epoch += 1;
        self.tick_at = Mono::NEVER;
        self.held.clear();
        let kept = self.rng.below(self.store.len() as u64 + 1);
        for _ in 0..kept {
            if let Some(item) = self.store.pop_front() {
                self.keep(item);
            }
        }
        self.store.clear();
        self.oracles.keeper_killed();
        self.crew_oracles.keeper_killed();
        let wait = if self.rng.chance(700) {
            self.rng.span(20, 1500)
        } else {
            self.rng.span(1000, 25_000)
        };
        self.after(wait, Ev::KeeperStart);
    }

    /// One input to the engine, and everything it answers.
    pub(crate) fn step(&mut self, input: Input) {
        let now = self.clock();
        let before = self.before(&input);
        let Some(engine) = &mut self.engine else {
            return;
        };
        let mut effects = Vec::new();
        let dropped = engine.counters().dropped_answers;
        let ticked = input == Input::Tick;
        engine.step(now, input.clone(), &mut effects);
        let judged =
            Judged { accepted: engine.counters().dropped_answers == dropped, input, before };
        if ticked && engine.next_wakeup() <= self.now {
            self.broken(8, None, "after a tick the next wake-up is not in the future");
        }
        self.report.steps += 1;
        self.after_step(&judged, &effects);
        self.carry_out(effects);
        self.plan_tick();
    }

    pub(crate) fn plan_tick(&mut self) {
        let Some(engine) = &self.engine else { return };
        let due = engine.next_wakeup();
        let late = if self.faults.strikes(&mut self.rng, Fault::LateTick, 5) {
            self.rng.span(0, 4000)
        } else {
            Duration::ZERO
        };
        self.tick_at = due + late;
    }

    pub(crate) fn look_later(&mut self, svc: usize, question: Question) {
        let wait = self.latency();
        let Some(wait) = wait else {
            self.note(|| format!("never answered: {question:?}"));
            return;
        };
        let epoch = self.epoch;
        self.after(wait, Ev::Look { epoch, svc, question });
    }

    /// How long the keeper takes for something; `None`: for ever.
    pub(crate) fn latency(&mut self) -> Option<Duration> {
        if self.faults.strikes(&mut self.rng, Fault::MissingAnswer, 8) {
            return None;
        }
        if self.faults.strikes(&mut self.rng, Fault::LateAnswer, 20) {
            return Some(self.rng.span(1000, 45_000));
        }
        Some(self.rng.span(0, 15))
    }

    pub(crate) fn new_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(crate) fn ask_is_from(&self, ask: AskId) -> bool {
        ask.0 / crate::keeper::IDS_PER_KEEPER == self.epoch
    }
}

/// What a service may take to come right.
pub(crate) fn patience(def: &Service) -> Duration {
    let checks = def.checks.iter().map(|check| check.every * 8).max();
    (def.start_timeout + def.stop_timeout) * 3
        + def.start_limit.window * 2
        + def.backoff.last
        + def.start_period
        + checks.unwrap_or_default()
}

impl Svc {
    fn new(def: Arc<Service>) -> Self {
        Self {
            names: vec![def.name.clone()],
            file: File::There,
            def,
            pidfile: None,
            job: None,
            outcome: None,
            launching: None,
            ladder: None,
            stored: None,
            refused_until: Mono::ZERO,
            unknown_until: Mono::ZERO,
            deaf_signals_until: Mono::ZERO,
            big_until: Mono::ZERO,
            unseen_until: Mono::ZERO,
        }
    }
}

/// Whether it is a signal that cannot be ignored.
pub(crate) fn kills(signal: Signal) -> bool {
    signal == Signal::Kill
}
