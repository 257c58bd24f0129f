//! Masters and their workers: how they are replaced, leak, get stuck and change their release.
//!
//! Drawn from a stream of chance of its own: a world without workers is what it was before there were any.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "it takes what is about workers; the world takes the rest"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use heeler::engine::effect::Effect;
use heeler::engine::input::{Delivery, Input};
use heeler::model::action::Action;
use heeler::model::check::{Check, CheckKind};
use heeler::model::condition::Condition;
use heeler::model::crew::{Duty, Leaving, Member, Muster, PumaView};
use heeler::model::ids::{ActionId, AskId, CheckIndex};
use heeler::model::intent::Who;
use heeler::model::job::Job;
use heeler::model::metric::{Metric, Value};
use heeler::model::observation::Observation;
use heeler::model::order::WorkerPick;
use heeler::model::process::{Exit, Ours, Pid, ProcessIdentity, Signal, Uid};
use heeler::model::puma::{Ask, Control, Puma, Rollback, Trouble, TroubleKind};
use heeler::model::service::{Command, Service};
use heeler::model::text::Untrusted;
use heeler::model::time::Mono;
use heeler::model::tolerance::Tolerance;
use heeler::model::workers::{Budget, Fragile, Kill, Workers};

use crate::faults::Fault;
use crate::prng::Rng;
use crate::topology::MEMORY_LIMIT_BYTES;
use crate::world::{Ev, Manner, Proc, Role, Starter, World, kills};

/// No verified reload of the simulation is given longer.
pub(crate) const WITHIN_MAX: Duration = Duration::from_secs(60);

/// The master of one service, and the link that its deploys turn.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) size: usize,
    /// Under which process these are.
    main: Option<ProcessIdentity>,
    phase: u64,
    started_wall_ms: u64,
    /// What it forks from, and what `current` leads to.
    release: u64,
    pub(crate) current: u64,
    before: u64,
    /// Releases whose workers do not boot.
    bad: BTreeSet<u64>,
    /// It cannot fork until then.
    forkless_until: Mono,
    /// Nobody can look at them until then, or ask Puma.
    unseen_until: Mono,
    mute_until: Mono,
    /// The job that turns `current` back.
    linking: Option<ActionId>,
}

/// One worker as it really is.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) main: ProcessIdentity,
    pub(crate) leaks: bool,
    serves_at: Mono,
    frozen_until: Mono,
    /// Since when its master waits for it to go.
    pub(crate) awaited_since: Option<Mono>,
    phase: u64,
    release: u64,
    fragile: bool,
    ours: Ours,
}

/// What a look saw.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    members: Result<Vec<Member>, Untrusted>,
    puma: Option<PumaView>,
}

/// Everything about workers.
pub(crate) struct Crews {
    pub(crate) rng: Rng,
    pub(crate) masters: BTreeMap<usize, Master>,
    pub(crate) workers: BTreeMap<ProcessIdentity, Worker>,
}

/// Gives some of the services workers.
pub(crate) fn draw(seed: u64, defs: &mut [Arc<Service>]) -> Crews {
    let mut rng = Rng::new(seed ^ 0x7c3a_91e5_0f6b_d284);
    let mut masters = BTreeMap::new();
    // They cost much time; a long run has many.
    if rng.chance(250) {
        for (svc, def) in defs.iter_mut().enumerate() {
            if rng.chance(500) {
                let size = 1 + rng.below(6);
                *def = Arc::new(with_workers(&mut rng, (**def).clone(), size));
                masters.insert(svc, Master::new(usize::try_from(size).expect("small")));
            }
        }
    }
    Crews { rng, masters, workers: BTreeMap::new() }
}

fn with_workers(rng: &mut Rng, mut def: Service, size: u64) -> Service {
    let min = 1 + rng.below(size);
    def.workers = Some(Workers {
        pattern: "^worker".into(),
        user: None,
        stop_timeout: rng.chance(700).then(|| Duration::from_secs(1 + rng.below(10))),
        min: u32::try_from(min).expect("small"),
        budget: Budget {
            actions: u32::try_from(1 + rng.below(3)).expect("small"),
            window: Duration::from_secs(5 + rng.below(30)),
        },
        kill: if rng.chance(250) { Kill::Refused(Fragile::Postgres) } else { Kill::Allowed },
    });
    if rng.chance(600) {
        def.puma = Some(Puma {
            control: Control::State(PathBuf::from("/srv/puma.state")),
            current: Some(PathBuf::from("/srv/current")),
            workers: Some(u32::try_from(size).expect("small")),
            rollback: match rng.below(3) {
                0 => None,
                1 => Some(Rollback::Symlink),
                _ => Some(Rollback::Command(command("rollback"))),
            },
            release: rng.chance(200).then(|| command("trial")),
        });
    }
    for _ in 0..rng.pick(&[1, 1, 2]) {
        let at = u16::try_from(def.checks.len()).expect("few");
        def.checks.push(check(rng, at));
    }
    def
}

fn check(rng: &mut Rng, at: u16) -> Check {
    let (label, condition, metric) = match rng.below(4) {
        0 => ("age", "age > 90s", Metric::Age),
        _ => ("leak", "memory > 500MiB", Metric::Memory),
    };
    Check {
        index: CheckIndex(at),
        label: format!("{label}{at}").into(),
        kind: CheckKind::Worker,
        condition: Condition::parse(condition, &[metric]).expect("is one"),
        tolerance: rng.pick(&[Tolerance::ONCE, Tolerance::Times { n: 2, m: 3 }]),
        recover: Tolerance::ONCE,
        then: match rng.below(5) {
            0 => vec![Action::Alert],
            1 | 2 => vec![Action::RecycleWorker],
            _ => vec![Action::KillWorker],
        },
        on_recovery: Vec::new(),
        every: Duration::from_secs(1 + rng.below(6)),
        timeout: Duration::from_secs(5),
        repeat: None,
    }
}

fn command(word: &str) -> Command {
    Command {
        argv: vec![format!("/bin/{word}").into()],
        timeout: None,
        env: Vec::new(),
        cwd: None,
        systemctl: None,
    }
}

impl Master {
    fn new(size: usize) -> Self {
        Self {
            size,
            main: None,
            phase: 0,
            started_wall_ms: 0,
            release: 1,
            current: 1,
            before: 1,
            bad: BTreeSet::new(),
            forkless_until: Mono::ZERO,
            unseen_until: Mono::ZERO,
            mute_until: Mono::ZERO,
            linking: None,
        }
    }

    /// In the calm, everything of theirs has to be mended within so long beyond the rest.
    pub(crate) fn calm_span(&self, def: &Service) -> Duration {
        let Some(workers) = &def.workers else { return Duration::ZERO };
        let each = workers.budget.window + def.stop_timeout + Duration::from_secs(20);
        let turns = u32::try_from(self.size + 3).expect("small");
        each * turns + if def.puma.is_some() { Duration::from_secs(120) } else { Duration::ZERO }
    }
}

impl World {
    fn mischievous(&mut self, fault: Fault, permille: u64) -> bool {
        self.faults.strikes(&mut self.crews.rng, fault, permille)
    }

    /// The living workers of a main process, oldest first.
    pub(crate) fn workers_of(&self, main: ProcessIdentity) -> Vec<ProcessIdentity> {
        let mine = |(who, worker): (&ProcessIdentity, &Worker)| {
            let proc = self.procs.get(who).filter(|_| worker.main == main)?;
            Some((proc.born, *who))
        };
        let mut workers: Vec<_> = self.crews.workers.iter().filter_map(mine).collect();
        workers.sort();
        workers.into_iter().map(|(_, who)| who).collect()
    }

    // ---- what masters do ----------------------------------------------------------------------

    /// A master gets on with it.
    pub(crate) fn crew_turn(&mut self, svc: usize) {
        let wait = self.crews.rng.span(200, 900);
        self.after(wait, Ev::CrewTurn { svc });
        let Some(main) = self.mains(svc).first().copied() else { return };
        let now = self.now;
        self.crews.workers.retain(|who, _| self.procs.contains_key(who));
        let wall = self.clock().wall.0;
        let Some(master) = self.crews.masters.get_mut(&svc) else { return };
        if master.main != Some(main) {
            master.main = Some(main);
            (master.phase, master.started_wall_ms, master.release) = (0, wall, master.current);
        }
        let (size, phase) = (master.size, master.phase);
        let can_fork = master.forkless_until <= now;
        let workers = self.workers_of(main);
        if can_fork {
            for _ in workers.len()..size {
                self.fork(svc, main);
            }
        }
        self.spoil(svc, &workers);
        // A phased restart: the next one goes when all that are new serve.
        let all = workers.iter().map(|who| (*who, self.crews.workers[who].clone()));
        let all: Vec<_> = all.collect();
        let waiting = all.iter().any(|(_, one)| one.awaited_since.is_some() || one.serves_at > now);
        let old = all.iter().find(|(_, one)| one.phase < phase).map(|(who, _)| *who);
        if let Some(old) = old.filter(|_| !waiting && workers.len() == size) {
            self.await_end(old);
        }
        // Puma's own patience.
        for (who, one) in all {
            if one.awaited_since.is_some_and(|at| now.since(at) > Duration::from_secs(60)) {
                self.killed(who);
            }
        }
    }

    fn await_end(&mut self, who: ProcessIdentity) {
        let now = self.now;
        if let Some(worker) = self.crews.workers.get_mut(&who) {
            worker.awaited_since.get_or_insert(now);
        }
        self.told_to_go(who);
    }

    fn fork(&mut self, svc: usize, main: ProcessIdentity) {
        if self.mischievous(Fault::NoSuccessor, 40) {
            let until = self.now + self.crews.rng.span(1000, 80_000);
            self.crews.masters.get_mut(&svc).expect("a master").forkless_until = until;
            return;
        }
        let deaf = self.mischievous(Fault::StuckWorker, 60);
        let stuck = deaf && self.crews.rng.chance(150);
        let fragile = self.mischievous(Fault::FragileWorker, 30);
        let foreign = self.mischievous(Fault::ForeignWorker, 30);
        let boots = self.crews.rng.span(100, 3000);
        let identity = self.new_identity(None);
        let never = |is: bool| if is { Mono::NEVER } else { Mono::ZERO };
        self.procs.insert(
            identity,
            Proc {
                svc,
                role: Role::Child { holds_socket: true, foreign },
                parent: Some(main),
                by: Starter::Other,
                born: self.now,
                deaf_until: never(deaf),
                stuck_until: never(stuck),
                outlives: false,
                instance: None,
            },
        );
        let now = self.now;
        let master = &self.crews.masters[&svc];
        let bad = master.bad.contains(&master.release);
        let worker = Worker {
            main,
            leaks: false,
            serves_at: if bad { Mono::NEVER } else { now + boots },
            frozen_until: Mono::ZERO,
            awaited_since: None,
            phase: master.phase,
            release: master.release,
            fragile,
            ours: if foreign { Ours::Foreign } else { Ours::Proved },
        };
        self.note(|| format!("WORLD worker {identity:?} of {main:?}: {worker:?}"));
        self.crews.workers.insert(identity, worker);
    }

    /// What befalls the workers and those who look at them.
    fn spoil(&mut self, svc: usize, workers: &[ProcessIdentity]) {
        if workers.is_empty() {
            return;
        }
        let who = self.crews.rng.pick(workers);
        let until = self.now + self.crews.rng.span(500, 40_000);
        if self.mischievous(Fault::WorkerLeaks, 60) {
            self.crews.workers.get_mut(&who).expect("it lives").leaks = true;
        }
        if self.mischievous(Fault::FrozenWorker, 10) {
            self.crews.workers.get_mut(&who).expect("it lives").frozen_until = until;
        }
        if self.mischievous(Fault::StuckWorker, 20) {
            self.procs.get_mut(&who).expect("it lives").deaf_until = Mono::NEVER;
            self.await_end(who);
        }
        if self.mischievous(Fault::WorkerCrash, 10) {
            self.exit(who, Exit::Signal(11), Manner::Crash);
        }
        if self.mischievous(Fault::CrewUnseen, 10) {
            self.crews.masters.get_mut(&svc).expect("a master").unseen_until = until;
        }
        if self.mischievous(Fault::PumaMute, 10) {
            self.crews.masters.get_mut(&svc).expect("a master").mute_until = until;
        }
    }

    // ---- looks --------------------------------------------------------------------------------

    /// How long it takes; `None`: for ever.
    fn crew_latency(&mut self) -> Option<Duration> {
        if self.mischievous(Fault::CrewAnswerMissing, 8) {
            return None;
        }
        if self.mischievous(Fault::CrewAnswerLate, 20) {
            return Some(self.crews.rng.span(500, 35_000));
        }
        Some(self.crews.rng.span(0, 15))
    }

    fn crew_later(&mut self, input: Input) {
        match self.crew_latency() {
            Some(wait) => self.input_later(wait, input),
            None => self.note(|| format!("never answered: {input:?}")),
        }
    }

    /// Carries out what concerns workers.
    pub(crate) fn crew_effect(&mut self, effect: Effect) {
        match effect {
            Effect::LookAtCrew { service, ask, main, .. } => {
                let svc = self.index(&service);
                if !self.crews.masters.contains_key(&svc) {
                    self.broken(13, Some(svc), "it has no workers to look at");
                }
                // What is seen may be old when it is told.
                let early = self.crews.rng.chance(300).then(|| self.crew_look(svc, main));
                if let Some(wait) = self.crew_latency() {
                    let epoch = self.epoch;
                    let early = early.map(Box::new);
                    self.after(wait, Ev::CrewLook { epoch, svc, ask, main, early });
                }
            }
            Effect::SignalWorker { service, ask, main, worker, signal, .. } => {
                let svc = self.index(&service);
                self.judge_worker_signal(svc, main, worker, signal);
                self.report.worker_signals += 1;
                let result = self.signal_worker(svc, main, worker, signal);
                self.note(|| format!("worker {worker:?} {signal:?}: {result:?}"));
                self.crew_later(Input::WorkerSignalled { service, ask, result, evidence: None });
            }
            Effect::AskPuma { service, ask, what } => {
                let svc = self.index(&service);
                let heard = self.puma_hears(svc, what);
                self.note(|| format!("puma {what:?}: {heard:?}"));
                self.crew_later(Input::PumaAsked { service, ask, heard });
            }
            other => unreachable!("nothing about workers: {other:?}"),
        }
    }

    pub(crate) fn crew_looked(
        &mut self,
        svc: usize,
        ask: AskId,
        main: ProcessIdentity,
        early: Option<Box<Look>>,
    ) {
        let look = early.map_or_else(|| self.crew_look(svc, main), |look| *look);
        let Look { members, puma } = look;
        let service = self.svcs[svc].def.name.clone();
        let seen = members.map(|members| Muster { members, coming: 0 });
        self.step(Input::CrewSeen { service, ask, seen, puma });
    }

    fn crew_look(&mut self, svc: usize, main: ProcessIdentity) -> Look {
        let unseen = self.crews.masters[&svc].unseen_until > self.now;
        if unseen || !self.alive(main) {
            return Look { members: Err("/proc cannot be read".into()), puma: None };
        }
        let members: Vec<_> =
            self.workers_of(main).into_iter().map(|who| self.member(who)).collect();
        let mute = self.crews.masters[&svc].mute_until > self.now;
        let has_puma = self.svcs[svc].def.puma.is_some();
        let puma = (has_puma && !mute).then(|| self.puma_view(svc, &members));
        Look { members: Ok(members), puma }
    }

    fn member(&self, who: ProcessIdentity) -> Member {
        let worker = &self.crews.workers[&who];
        let age = self.now.since(self.procs[&who].born);
        let bytes = if worker.leaks { MEMORY_LIMIT_BYTES * 2 } else { MEMORY_LIMIT_BYTES / 5 };
        Member {
            identity: who,
            title: "worker".into(),
            ours: worker.ours,
            age_ms: u64::try_from(age.as_millis()).expect("short"),
            duty: if worker.serves_at > self.now {
                Duty::Boots
            } else if worker.frozen_until > self.now {
                Duty::Frozen
            } else {
                Duty::Serves
            },
            leaving: if worker.awaited_since.is_some() { Leaving::Awaited } else { Leaving::No },
            fragile: worker.fragile.then_some(Fragile::Postgres),
            release: Some(format!("/srv/r{}", worker.release).as_str().into()),
            seen: Observation::ok()
                .with(Metric::Memory, Value::Bytes(bytes))
                .with(Metric::Age, Value::Duration(age)),
        }
    }

    fn puma_view(&self, svc: usize, members: &[Member]) -> PumaView {
        let master = &self.crews.masters[&svc];
        let count = |n: usize| Some(u64::try_from(n).expect("few"));
        let booted = members.iter().filter(|one| one.duty != Duty::Boots).count();
        let old = members
            .iter()
            .filter(|one| self.crews.workers[&one.identity].phase < master.phase)
            .count();
        let looping = members.iter().any(|one| {
            one.duty == Duty::Boots
                && master.bad.contains(&self.crews.workers[&one.identity].release)
        });
        PumaView {
            phase: Some(master.phase),
            started_wall_ms: Some(master.started_wall_ms),
            workers: count(master.size),
            booted: count(booted),
            old: count(old),
            looping: looping.then(|| "boot-loop".to_owned()),
            words: format!("up {booted}/{}", master.size),
            target: Ok(format!("/srv/r{}", master.current).as_str().into()),
        }
    }

    // ---- signals and questions ----------------------------------------------------------------

    fn signal_worker(
        &mut self,
        svc: usize,
        main: ProcessIdentity,
        who: ProcessIdentity,
        signal: Signal,
    ) -> Delivery {
        if !self.alive(who) {
            return Delivery::Gone;
        }
        let under = self.crews.workers.get(&who).is_some_and(|worker| worker.main == main);
        if !under || self.svcs[svc].deaf_signals_until > self.now {
            return Delivery::Refused("it cannot be proved".into());
        }
        self.held.insert((svc, who));
        if kills(signal) {
            self.killed(who);
        } else {
            self.told_to_go(who);
        }
        Delivery::Sent
    }

    fn puma_hears(&mut self, svc: usize, what: Ask) -> Result<(), Trouble> {
        if self.mains(svc).is_empty() || self.mischievous(Fault::PumaMute, 60) {
            return Err(Trouble::new(TroubleKind::Refused, ""));
        }
        if self.mischievous(Fault::PumaIdle, 200) {
            return Ok(());
        }
        let hot = self.crews.rng.chance(150);
        let wall = self.clock().wall.0;
        let master = self.crews.masters.get_mut(&svc).expect("a master");
        master.release = master.current;
        match what {
            Ask::PhasedRestart if hot => {
                (master.phase, master.started_wall_ms) = (0, wall + 1);
                let main = master.main;
                for who in main.map(|main| self.workers_of(main)).unwrap_or_default() {
                    self.exit(who, Exit::Code(0), Manner::Crash);
                }
            }
            Ask::PhasedRestart | Ask::ReloadWorkerDirectory => {
                master.phase += 1;
                if self.mischievous(Fault::DeadlyReload, 100)
                    && let Some(main) = self.mains(svc).first().copied()
                {
                    self.exit(main, Exit::Code(1), Manner::Crash);
                }
            }
            Ask::Stats | Ask::Restart => {
                let text = format!("Puma is not to be asked {what:?} here");
                self.broken(13, Some(svc), &text);
            }
        }
        Ok(())
    }

    /// A job of a verified reload may turn `current` back.
    pub(crate) fn crew_job(&mut self, svc: usize, job: &Job) {
        let turns = job
            .command
            .argv
            .iter()
            .any(|word| word.contains("ln -s") || word.contains("/bin/rollback"));
        if let Some(master) = self.crews.masters.get_mut(&svc).filter(|_| turns) {
            master.linking = Some(job.action);
        }
    }

    pub(crate) fn crew_job_succeeded(&mut self, svc: usize, action: ActionId) {
        if let Some(master) = self.crews.masters.get_mut(&svc)
            && master.linking.take_if(|linking| *linking == action).is_some()
        {
            master.current = master.before;
        }
    }

    // ---- people -------------------------------------------------------------------------------

    /// Somebody deploys, or wants a worker gone.
    pub(crate) fn crew_operator(&mut self) {
        let wait = self.crews.rng.span(1000, 40_000);
        self.after(wait, Ev::CrewOperator);
        let svcs: Vec<_> = self.crews.masters.keys().copied().collect();
        if self.faults.calm || svcs.is_empty() || !self.faults.has(Fault::CrewOperator) {
            return;
        }
        self.faults.count(Fault::CrewOperator);
        let svc = self.crews.rng.pick(&svcs);
        if self.crews.rng.chance(400) {
            let good = !self.mischievous(Fault::BadRelease, 400);
            self.verified_reload(svc, good);
            return;
        }
        let workers = self.mains(svc).first().map(|main| self.workers_of(*main));
        let workers = workers.unwrap_or_default();
        let pick = match self.crews.rng.below(4) {
            0 => WorkerPick::Stuck,
            1 => WorkerPick::Pid(Pid(i32::try_from(self.crews.rng.below(900)).expect("small"))),
            _ if workers.is_empty() => WorkerPick::Stuck,
            _ => WorkerPick::Pid(self.crews.rng.pick(&workers).pid),
        };
        let Some(request) = self.crew_request(svc, Some(pick), Duration::ZERO) else { return };
        let service = self.svcs[svc].def.name.clone();
        self.note(|| format!("OPERATOR {service}: worker {pick:?} ({request})"));
        self.step(Input::WorkerOrdered { service, request, pick, who: OPERATOR });
    }

    pub(crate) fn verified_reload(&mut self, svc: usize, good: bool) {
        let span = self.crews.rng.span(5000, 60_000).min(WITHIN_MAX);
        let Some(request) = self.crew_request(svc, None, span) else { return };
        let master = self.crews.masters.get_mut(&svc).expect("a master");
        if self.svcs[svc].def.puma.is_some() {
            master.before = master.release;
            master.current += 1;
            if !good {
                master.bad.insert(master.current);
            }
        }
        let service = self.svcs[svc].def.name.clone();
        self.note(|| format!("OPERATOR {service}: verified reload, good {good} ({request})"));
        let within = Some(span);
        self.step(Input::VerifyOrdered { service, request, within, who: OPERATOR });
    }

    // ---- calm ---------------------------------------------------------------------------------

    /// What is theirs to mend is mended. Workers that leak and were not told to go yet stay as they are,
    /// for heeler to find.
    pub(crate) fn crew_calm(&mut self) {
        let now = self.now;
        for master in self.crews.masters.values_mut() {
            master.bad.clear();
            master.forkless_until = now;
            master.unseen_until = now;
            master.mute_until = now;
        }
        let all: Vec<_> =
            self.crews.workers.keys().copied().filter(|who| self.alive(*who)).collect();
        for who in all {
            let told = self.crew_oracles.was_told(who);
            let worker = self.crews.workers.get_mut(&who).expect("it lives");
            worker.frozen_until = now;
            worker.serves_at = worker.serves_at.min(now + Duration::from_secs(3));
            let over = worker.fragile || worker.ours != Ours::Proved;
            if worker.awaited_since.is_some() || told || over {
                self.exit(who, Exit::Code(0), Manner::Crash);
            }
        }
        let svcs: Vec<_> = self.crews.masters.keys().copied().collect();
        for svc in svcs {
            let wait = self.crews.rng.span(20_000, 70_000);
            if self.svcs[svc].def.puma.is_some() {
                self.after(wait, Ev::QuietReload { svc });
            }
        }
    }
}

const OPERATOR: Who = Who::Operator { uid: Uid(0), pid: Pid(4343) };
