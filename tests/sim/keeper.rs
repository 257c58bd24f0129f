//! The keeper's part: carries out the engine's effects against the fake world, each after its own time.

use std::time::Duration;

use heeler::engine::Engine;
use heeler::engine::effect::Effect;
use heeler::engine::input::{Confirmation, Delivery, Input};
use heeler::model::ids::{AskId, CheckIndex, RequestId, ServiceName};
use heeler::model::incident::Alert;
use heeler::model::intent::Who;
use heeler::model::job::{InFlight, JobKind};
use heeler::model::memory::Memory;
use heeler::model::metric::{Metric, Value};
use heeler::model::observation::{Observation, Outcome};
use heeler::model::order::{Order, Reply};
use heeler::model::process::{
    Absence, Holding, Identification, Ours, Pid, ProcessIdentity, Signal, Survivor, Uid,
};
use heeler::model::service::Life;
use heeler::model::time::Mono;
use heeler::model::unit::UnitEnd;
use heeler::model::workers::Budget;

use crate::faults::Fault;
use crate::topology::{MEMORY_LIMIT_BYTES, RELOAD_SIGNAL};
use crate::world::{Ev, File, Role, Starter, World, kills};

/// Action ids of one keeper never meet those of another.
pub(crate) const IDS_PER_KEEPER: u64 = 1_000_000_000;

/// A question on its way.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Identify(AskId),
    Hold(AskId, ProcessIdentity),
    Confirm(AskId, ProcessIdentity),
    Survey(AskId, ProcessIdentity),
    Sample(AskId, ProcessIdentity),
    Probe(AskId, CheckIndex),
    Signalled(AskId, Delivery),
}

/// What the store thread has still to write, in order.
#[derive(Debug)]
pub(crate) enum Stored {
    Memory(usize, ServiceName, Box<Memory>),
    Forget(usize),
    Alert(Box<Alert>, u64),
    Answer(RequestId, Reply),
}

impl World {
    /// A new keeper: restores, adopts what is in flight, looks.
    pub(crate) fn keeper_start(&mut self) {
        self.note(|| "keeper starts".to_owned());
        let mut engine = Engine::new(self.epoch * IDS_PER_KEEPER);
        // The brake has its own stories: here everything is in trouble all the time.
        engine.brake_at(Budget { actions: 4096, window: Duration::from_secs(1) });
        self.engine = Some(engine);
        for svc in 0..self.svcs.len() {
            if self.svcs[svc].file != File::There {
                self.found_without_file(svc);
                continue;
            }
            // As a value, not as bytes.
            let stored = self.svcs[svc].stored.clone();
            let name = self.svcs[svc].def.name.clone();
            let at = self.clock().wall;
            let memory = stored.map(|(was, memory)| match was == name {
                true => memory,
                false => memory.renamed(&was, &name, at),
            });
            self.begin_with(svc, memory);
        }
        self.plan_tick();
    }

    /// The engine is given a service.
    pub(crate) fn begin_with(&mut self, svc: usize, memory: Option<Memory>) {
        let in_flight = self.in_flight(svc);
        self.note(|| format!("{} in flight: {in_flight:?}", self.svcs[svc].def.name));
        let def = self.svcs[svc].def.clone();
        let now = self.clock();
        let mut effects = Vec::new();
        let Some(engine) = &mut self.engine else {
            return;
        };
        engine.add(now, def, memory.clone(), &in_flight, &mut effects);
        self.oracles_restart(svc, memory.as_ref());
        self.carry_out(effects);
    }

    pub(crate) fn in_flight(&mut self, svc: usize) -> InFlight {
        let shim = self.svcs[svc].job.clone();
        if let Some(shim) = shim {
            return job_in_flight(&shim);
        }
        if let Some(ladder) = self.svcs[svc].ladder {
            return InFlight::Ladder(ladder);
        }
        if let Some((shim, outcome)) = self.svcs[svc].outcome.take() {
            if self.rng.chance(500) {
                let input = Input::Finished {
                    service: self.svcs[svc].def.name.clone(),
                    action: shim.action,
                    outcome,
                };
                self.input_later(Duration::from_millis(1), input);
                return job_in_flight(&shim);
            }
            return InFlight::Nothing;
        }
        let launched = self.mains(svc).first().and_then(|main| self.procs[main].instance);
        let sees_instance = self.rng.chance(500);
        let instance = self.svcs[svc].launching.or_else(|| launched.filter(|_| sees_instance));
        instance.map_or(InFlight::Nothing, |action| InFlight::Job {
            action,
            kind: JobKind::Instance,
            deadline: Mono::NEVER,
            before: None,
        })
    }

    pub(crate) fn input_later(&mut self, wait: Duration, input: Input) {
        let epoch = self.epoch;
        let input = Box::new(input);
        self.after(wait, Ev::Input { epoch, input });
    }

    pub(crate) fn take(&mut self, input: Input) {
        if let Input::Finished { service, action, .. } = &input {
            let svc = self.index(service);
            let heard = |(shim, _): &(crate::world::Shim, _)| shim.action == *action;
            if self.svcs[svc].outcome.as_ref().is_some_and(heard) {
                self.svcs[svc].outcome = None;
            }
        }
        self.step(input);
    }

    /// In order, and perhaps not to the end.
    pub(crate) fn carry_out(&mut self, effects: Vec<Effect>) {
        let several = effects.len() > 1;
        for effect in effects {
            if self.engine.is_none() {
                return;
            }
            if several && self.faults.strikes(&mut self.rng, Fault::KillBetween, 2) {
                self.kill_keeper();
                return;
            }
            self.trace_effect(&effect);
            self.carry_out_one(effect);
        }
    }

    fn trace_effect(&self, effect: &Effect) {
        self.note(|| match effect {
            Effect::Log { service, text, .. } => format!("{service} | {text}"),
            Effect::Alert(alert) => format!(
                "  ALERT {:?} {} #{} {}",
                alert.kind,
                alert.incident.token(),
                alert.sequence,
                alert.incident.title
            ),
            Effect::Run(job) => {
                format!("  RUN {} {:?} {} main {:?}", job.service, job.kind, job.action, job.main)
            }
            Effect::Persist { service } => format!("  persist {service}"),
            Effect::Identify { .. }
            | Effect::Hold { .. }
            | Effect::Unwatch { .. }
            | Effect::Confirm { .. }
            | Effect::Survey { .. }
            | Effect::Sample { .. }
            | Effect::LookAtCrew { .. }
            | Effect::SignalWorker { .. }
            | Effect::AskPuma { .. }
            | Effect::Probe { .. }
            | Effect::Signal { .. }
            | Effect::RecordLadder { .. }
            | Effect::RemoveStalePidfile { .. }
            | Effect::Event(_)
            | Effect::Answer { .. } => format!("  {effect:?}"),
        });
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Identify { service, ask } => self.ask(&service, Question::Identify(ask)),
            Effect::Hold { service, ask, identity } => {
                self.ask(&service, Question::Hold(ask, identity));
            }
            Effect::Confirm { service, ask, identity } => {
                self.ask(&service, Question::Confirm(ask, identity));
            }
            Effect::Survey { service, ask, dead } => {
                self.ask(&service, Question::Survey(ask, dead));
            }
            Effect::Sample { service, ask, identity } => {
                self.ask(&service, Question::Sample(ask, identity));
            }
            effect @ (Effect::LookAtCrew { .. }
            | Effect::AskPuma { .. }
            | Effect::SignalWorker { .. }) => self.crew_effect(effect),
            Effect::Probe { service, ask, check } => {
                self.ask(&service, Question::Probe(ask, check));
            }
            Effect::Unwatch { service, identity } => {
                let svc = self.index(&service);
                self.held.remove(&(svc, identity));
            }
            Effect::Run(job) => {
                let svc = self.index(&job.service);
                self.judge_run(svc, &job);
                self.report.runs += 1;
                self.begin_job(svc, &job);
            }
            Effect::Signal { service, ask, identity, signal, .. } => {
                let svc = self.index(&service);
                if signal == RELOAD_SIGNAL {
                    let result = if self.alive(identity) { Delivery::Sent } else { Delivery::Gone };
                    self.look_later(svc, Question::Signalled(ask, result));
                    return;
                }
                if self.procs.get(&identity).is_some_and(|proc| proc.role == Role::Main) {
                    self.judge_stop(svc, identity);
                    self.oracles.aim(identity);
                }
                let result = self.signal(svc, identity, signal);
                self.look_later(svc, Question::Signalled(ask, result));
            }
            Effect::RecordLadder { service, ladder } => {
                let svc = self.index(&service);
                self.svcs[svc].ladder = ladder;
            }
            Effect::RemoveStalePidfile { service, dead } => {
                let svc = self.index(&service);
                let names_dead = self.svcs[svc].pidfile.is_some_and(|file| file.pid == dead.pid);
                if names_dead && !self.procs.keys().any(|id| id.pid == dead.pid) {
                    self.svcs[svc].pidfile = None;
                }
            }
            Effect::Persist { service } => {
                let svc = self.index(&service);
                let memory = self.engine.as_ref().and_then(|engine| engine.memory(&service));
                let memory = memory.expect("it asked for it to be kept");
                self.store_later(Stored::Memory(svc, service, Box::new(memory)));
            }
            Effect::Alert(alert) => {
                let epoch = self.epoch;
                self.store_later(Stored::Alert(alert, epoch));
            }
            Effect::Answer { request, reply } => {
                self.judge_answer(request, &reply);
                self.store_later(Stored::Answer(request, reply));
            }
            Effect::Log { .. } | Effect::Event(_) => {}
        }
    }

    fn ask(&mut self, service: &ServiceName, question: Question) {
        let svc = self.index(service);
        self.look_later(svc, question);
    }

    pub(crate) fn store_later(&mut self, item: Stored) {
        if self.store.is_empty() {
            let wait = if self.faults.strikes(&mut self.rng, Fault::SlowStore, 100) {
                self.rng.span(100, 6000)
            } else {
                self.rng.span(1, 60)
            };
            let epoch = self.epoch;
            self.after(wait, Ev::Commit { epoch });
        }
        self.store.push_back(item);
    }

    /// The store thread's group is on disk; only now are answers given.
    pub(crate) fn commit(&mut self) {
        self.judge_tally();
        while let Some(item) = self.store.pop_front() {
            match item {
                Stored::Answer(request, reply) => self.answered(request, &reply),
                kept @ (Stored::Memory(..) | Stored::Alert(..) | Stored::Forget(_)) => {
                    self.keep(kept);
                }
            }
        }
    }

    pub(crate) fn keep(&mut self, item: Stored) {
        match item {
            Stored::Memory(svc, name, memory) => {
                self.oracles.memory_kept(svc, &memory);
                self.svcs[svc].stored = Some((name, *memory));
            }
            Stored::Forget(svc) => self.svcs[svc].stored = None,
            Stored::Alert(alert, epoch) => {
                self.report.alerts += 1;
                self.judge_alert(&alert, epoch);
            }
            Stored::Answer(..) => {}
        }
    }

    // ---- looking -----------------------------------------------------------------------------

    /// What an identification would find, with nothing in its way.
    pub(crate) fn claimed(&self, svc: usize) -> Identification {
        match &self.svcs[svc].def.life {
            Life::Pidfile(_) => self.claimed_by_pidfile(svc),
            Life::Match(_) | Life::Unit(_) => match self.mains(svc)[..] {
                [] => Identification::None(Absence::NoProcess),
                [one] => Identification::One(one),
                [..] => Identification::Unknown("several match".into()),
            },
            Life::Nothing => Identification::None(Absence::NoProcess),
            Life::Run(_) => self
                .mains(svc)
                .first()
                .map_or(Identification::None(Absence::NoProcess), |one| Identification::One(*one)),
        }
    }

    fn claimed_by_pidfile(&self, svc: usize) -> Identification {
        let Some(file) = self.svcs[svc].pidfile else {
            return Identification::None(Absence::NoPidfile);
        };
        let Some((identity, proc)) = self.procs.iter().find(|(id, _)| id.pid == file.pid) else {
            return Identification::None(Absence::Stale(file.pid));
        };
        if proc.svc != svc || proc.role != Role::Main {
            return Identification::Refused("it belongs to another user".into());
        }
        if proc.born > file.written {
            return Identification::Refused("it is younger than the pidfile".into());
        }
        Identification::One(*identity)
    }

    pub(crate) fn look(&mut self, svc: usize, question: Question) {
        if self.svcs[svc].file == File::Gone {
            return;
        }
        let service = self.svcs[svc].def.name.clone();
        let input = match question {
            Question::Identify(ask) => {
                Input::Identified { service, ask, found: self.identify(svc) }
            }
            Question::Hold(ask, identity) => {
                let ours = self.procs.get(&identity).is_some_and(|proc| proc.svc == svc);
                let found = if ours {
                    self.held.insert((svc, identity));
                    Identification::One(identity)
                } else {
                    Identification::None(Absence::NoProcess)
                };
                Input::Identified { service, ask, found }
            }
            Question::Confirm(ask, identity) => {
                let how = self.confirm(svc, identity);
                Input::Confirmed { service, ask, how }
            }
            Question::Survey(ask, dead) => {
                let fails = self.faults.strikes(&mut self.rng, Fault::FailingSurvey, 150);
                let survivors = match fails {
                    true => Err("no descriptor is free".into()),
                    false => Ok(self.survey(svc, dead)),
                };
                Input::Surveyed { service, ask, survivors }
            }
            Question::Sample(ask, identity) => {
                let seen = self.sample(svc, identity);
                Input::Sampled { service, ask, seen }
            }
            Question::Probe(ask, check) => {
                let seen = self.reading(svc, true);
                Input::Observed { service, ask, check, seen }
            }
            Question::Signalled(ask, result) => Input::Signalled { service, ask, result },
        };
        self.note(|| format!("{} {input:?}", self.svcs[svc].def.name));
        self.step(input);
    }

    fn identify(&mut self, svc: usize) -> Identification {
        let truth = &self.svcs[svc];
        if truth.unknown_until > self.now {
            return Identification::Unknown("the user cannot be resolved now".into());
        }
        let found = self.claimed(svc);
        if let Identification::One(identity) = found {
            if self.svcs[svc].refused_until > self.now {
                return Identification::Refused("its user differs".into());
            }
            self.held.insert((svc, identity));
        }
        match self.svcs[svc].def.life {
            Life::Unit(_) => self.told_by_manager(found),
            Life::Pidfile(_) | Life::Match(_) | Life::Run(_) | Life::Nothing => found,
        }
    }

    /// What a manager adds to it.
    fn told_by_manager(&mut self, found: Identification) -> Identification {
        match found {
            // Only what somebody else started did its manager put there in order.
            Identification::One(identity)
                if self.procs.get(&identity).is_some_and(|proc| proc.by == Starter::Other)
                    && self.rng.chance(500) =>
            {
                Identification::Succeeded(identity)
            }
            Identification::None(_) => Identification::None(
                match self.faults.strikes(&mut self.rng, Fault::ManagerAtWork, 300) {
                    true => self.rng.pick(&[Absence::Coming, Absence::Going]),
                    false => Absence::Inactive(self.rng.pick(&[
                        UnitEnd::Success,
                        UnitEnd::Signal,
                        UnitEnd::StartLimit,
                    ])),
                },
            ),
            other @ (Identification::One(_)
            | Identification::Succeeded(_)
            | Identification::Refused(_)
            | Identification::Unknown(_)) => other,
        }
    }

    fn confirm(&self, svc: usize, identity: ProcessIdentity) -> Confirmation {
        if !self.alive(identity) {
            return Confirmation::Gone;
        }
        let same = match self.svcs[svc].def.life {
            Life::Pidfile(_) => self.svcs[svc].pidfile.is_some_and(|file| file.pid == identity.pid),
            Life::Match(_) | Life::Run(_) | Life::Unit(_) | Life::Nothing => true,
        };
        if same { Confirmation::Same } else { Confirmation::ClaimChanged }
    }

    fn survey(&mut self, svc: usize, dead: ProcessIdentity) -> Vec<Survivor> {
        let left: Vec<_> = self
            .procs
            .iter()
            .filter(|(_, proc)| proc.parent == Some(dead))
            .map(|(identity, proc)| (*identity, proc.role))
            .collect();
        let mut survivors = Vec::new();
        for (identity, role) in left {
            let Role::Child { holds_socket, foreign } = role else {
                continue;
            };
            self.held.insert((svc, identity));
            let holds = if holds_socket { Holding::ListeningSocket } else { Holding::Nothing };
            let ours = if foreign { Ours::Foreign } else { Ours::Proved };
            survivors.push(Survivor { identity, title: "worker".into(), holds, ours });
        }
        survivors
    }

    fn sample(&mut self, svc: usize, identity: ProcessIdentity) -> Observation {
        let there = self.alive(identity);
        self.reading(svc, there)
    }

    /// What a sample or a probe reads: now and then too much, now and then nothing.
    fn reading(&mut self, svc: usize, there: bool) -> Observation {
        let outcome = if !there || self.svcs[svc].unseen_until > self.now {
            Outcome::Unknown("not readable".into())
        } else {
            Outcome::Ok
        };
        let big = self.svcs[svc].big_until > self.now && self.rng.chance(800);
        let bytes = if big { MEMORY_LIMIT_BYTES * 2 } else { MEMORY_LIMIT_BYTES / 5 };
        Observation::of(outcome).with(Metric::Memory, Value::Bytes(bytes))
    }

    fn signal(&mut self, svc: usize, identity: ProcessIdentity, signal: Signal) -> Delivery {
        if !self.alive(identity) {
            return Delivery::Gone;
        }
        if self.svcs[svc].deaf_signals_until > self.now {
            return Delivery::Refused("it cannot be proved".into());
        }
        self.judge_signal(svc, identity, signal);
        self.report.signals += 1;
        if kills(signal) {
            self.killed(identity);
        } else {
            self.told_to_go(identity);
        }
        Delivery::Sent
    }

    // ---- people ------------------------------------------------------------------------------

    /// One or several orders at once.
    pub(crate) fn operators(&mut self) {
        let orders = if self.rng.chance(800) { 1 } else { 2 + self.rng.below(3) };
        let svc = usize::try_from(self.rng.below(self.svcs.len() as u64)).expect("an index");
        for _ in 0..orders {
            self.faults.count(Fault::Operator);
            let order = self.rng.pick(&Order::ALL);
            self.order(svc, order);
        }
    }

    pub(crate) fn order(&mut self, svc: usize, order: Order) {
        // Of one without a file an operator can only want the end.
        let allowed = match self.svcs[svc].file {
            File::There => true,
            File::Gone => false,
            File::Unclaimed => order == Order::Stop,
        };
        if self.engine.is_none() || !allowed {
            return;
        }
        let request = self.new_request();
        let service = self.svcs[svc].def.name.clone();
        self.note(|| format!("OPERATOR {service}: {order:?} ({request})"));
        self.oracles.ordered(svc, request, order, self.now);
        self.crew_oracles.ordered(svc);
        let who = Who::Operator { uid: Uid(0), pid: Pid(4242) };
        self.step(Input::Ordered { service, request, order, who });
    }
}

fn job_in_flight(shim: &crate::world::Shim) -> InFlight {
    InFlight::Job {
        action: shim.action,
        kind: shim.kind,
        deadline: shim.deadline,
        before: shim.before,
    }
}
