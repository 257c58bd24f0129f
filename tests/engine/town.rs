//! A town: several services in one engine, whose starts succeed at once unless they are forbidden.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use heeler::engine::Engine;
use heeler::engine::effect::Effect;
use heeler::engine::input::{Confirmation, Delivery, Input};
use heeler::engine::replace::Farewell;
use heeler::model::action::Action;
use heeler::model::change::Kept;
use heeler::model::ids::{CheckIndex, RequestId, ServiceName};
use heeler::model::intent::Who;
use heeler::model::job::{Ended, InFlight, JobKind, Outcome, Output};
use heeler::model::memory::Memory;
use heeler::model::observation::Observation;
use heeler::model::order::Order;
use heeler::model::process::{Absence, Exit, Identification, Pid, Uid};
use heeler::model::service::{Life, Service};
use heeler::model::time::{Mono, Now, Wall};

use crate::story::{cart, identity, probe, span};

/// Several services in one engine; starts succeed at once unless they are forbidden.
pub(crate) struct Town {
    pub(crate) engine: Engine,
    pub(crate) clock: Duration,
    pub(crate) mains: BTreeMap<ServiceName, i32>,
    /// Services whose start does nothing.
    pub(crate) broken: BTreeSet<ServiceName>,
    /// Services whose page answers badly.
    pub(crate) sick: BTreeSet<ServiceName>,
    /// Services whose page takes its time, and what it will have said.
    pub(crate) slow: BTreeSet<ServiceName>,
    /// Of whose page nothing can be told.
    pub(crate) unseen: BTreeSet<ServiceName>,
    pub(crate) owed: Vec<Input>,
    pub(crate) memories: BTreeMap<ServiceName, Memory>,
    pub(crate) next_pid: i32,
    pub(crate) requests: u64,
    pub(crate) seen: Vec<String>,
    pub(crate) mails: Vec<String>,
    /// What the last one tells.
    pub(crate) last_mail: Vec<String>,
}

impl Town {
    pub(crate) fn of(services: &[Service]) -> Self {
        let mut town = Self {
            engine: Engine::new(0),
            clock: span("1h"),
            mains: BTreeMap::new(),
            broken: BTreeSet::new(),
            sick: BTreeSet::new(),
            slow: BTreeSet::new(),
            unseen: BTreeSet::new(),
            owed: Vec::new(),
            memories: BTreeMap::new(),
            next_pid: 100,
            requests: 0,
            seen: Vec::new(),
            mails: Vec::new(),
            last_mail: Vec::new(),
        };
        town.open(services);
        town
    }

    pub(crate) fn open(&mut self, services: &[Service]) {
        for service in services {
            let effects = self.add(service);
            self.carry_out(effects);
        }
    }

    /// All are there before anything is known of any.
    pub(crate) fn open_together(&mut self, services: &[Service]) {
        let effects = services.iter().map(|service| self.add(service)).collect::<Vec<_>>();
        effects.into_iter().for_each(|effects| self.carry_out(effects));
    }

    pub(crate) fn add(&mut self, service: &Service) -> Vec<Effect> {
        let mut effects = Vec::new();
        let memory = self.memories.get(&service.name).cloned();
        let def = Arc::new(service.clone());
        self.engine.add(self.now(), def, memory, &InFlight::Nothing, &mut effects);
        effects
    }

    /// A file is gone: the process goes on.
    pub(crate) fn forgets(&mut self, name: &str) {
        let mut effects = Vec::new();
        self.engine.remove(self.now(), &service_name(name), &Farewell::Gone, &mut effects);
        self.memories.remove(&service_name(name));
        self.carry_out(effects);
    }

    /// Others are needed from now on.
    pub(crate) fn needs(&mut self, service: Service) {
        let kept: Vec<_> = service.checks.iter().map(|check| Kept::Same(check.index)).collect();
        let mut effects = Vec::new();
        self.engine.replace(self.now(), Arc::new(service), &kept, &mut effects);
        self.carry_out(effects);
    }

    /// `kill -9` of heeler, and another: what was persisted is there, and all else goes on.
    pub(crate) fn keeper_restarts(&mut self) {
        self.engine = Engine::new(3_000_000);
    }

    /// The machine boots: no process is left, and what was remembered of processes means nothing.
    pub(crate) fn boots(&mut self, services: &[Service]) {
        self.mains.clear();
        for memory in self.memories.values_mut() {
            memory.boot = heeler::model::memory::BootMemory::default();
        }
        self.engine = Engine::new(1_000_000);
        self.open(services);
    }

    pub(crate) fn now(&self) -> Now {
        let nanos = u64::try_from(self.clock.as_nanos()).unwrap();
        let wall = 1_700_000_000_000 + u64::try_from(self.clock.as_millis()).unwrap();
        Now { mono: Mono::from_nanos(nanos), wall: Wall(wall) }
    }

    pub(crate) fn passes(&mut self, text: &str) {
        let until = self.clock + span(text);
        let mut turns = 0;
        loop {
            let due = Duration::from_nanos(self.engine.next_wakeup().as_nanos());
            if due > until {
                break;
            }
            turns += 1;
            assert!(turns < 100_000, "it spins");
            self.clock = due.max(self.clock);
            self.input(Input::Tick);
        }
        self.clock = until;
    }

    pub(crate) fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.engine.step(self.now(), input, &mut effects);
        self.carry_out(effects);
    }

    pub(crate) fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut answers = VecDeque::new();
        for effect in effects {
            self.effect(effect, &mut answers);
        }
        for answer in answers {
            self.input(answer);
        }
    }

    pub(crate) fn effect(&mut self, effect: Effect, answers: &mut VecDeque<Input>) {
        match effect {
            Effect::Identify { service, ask } => {
                let found = match self.mains.get(&service) {
                    Some(pid) => Identification::One(identity(*pid)),
                    None => Identification::None(Absence::NoProcess),
                };
                answers.push_back(Input::Identified { service, ask, found });
            }
            Effect::Hold { service, ask, identity } => {
                let lives = self.mains.values().any(|pid| Pid(*pid) == identity.pid);
                let found = if lives {
                    Identification::One(identity)
                } else {
                    Identification::None(Absence::NoProcess)
                };
                answers.push_back(Input::Identified { service, ask, found });
            }
            Effect::Confirm { service, ask, .. } => {
                let lives = self.mains.contains_key(&service);
                let how = if lives { Confirmation::Same } else { Confirmation::Gone };
                answers.push_back(Input::Confirmed { service, ask, how });
            }
            Effect::Survey { service, ask, .. } => {
                answers.push_back(Input::Surveyed { service, ask, survivors: Ok(Vec::new()) });
            }
            Effect::Sample { service, ask, .. } => {
                answers.push_back(Input::Sampled { service, ask, seen: Observation::ok() });
            }
            Effect::Probe { service, check, ask } => {
                let seen = if self.unseen.contains(&service) {
                    Observation::unknown("no name")
                } else if self.sick.contains(&service) {
                    Observation::failed("500")
                } else {
                    Observation::ok()
                };
                let slow = self.slow.contains(&service);
                let answer = Input::Observed { service, ask, check, seen };
                if slow {
                    self.owed.push(answer);
                } else {
                    answers.push_back(answer);
                }
            }
            Effect::Run(job) => {
                self.note(format!("{} {}", job.kind.name(), job.service));
                if job.kind == JobKind::Start && !self.broken.contains(&job.service) {
                    self.next_pid += 1;
                    self.mains.insert(job.service.clone(), self.next_pid);
                }
                let outcome = Outcome {
                    ended: Ended::Exited(Exit::Code(0)),
                    output: Output::default(),
                    took: Duration::ZERO,
                };
                let (service, action) = (job.service, job.action);
                answers.push_back(Input::Finished { service, action, outcome });
            }
            Effect::Signal { service, ask, identity, signal, .. } => {
                self.note(format!("{} {service}", signal.name()));
                answers.push_back(Input::Signalled {
                    service: service.clone(),
                    ask,
                    result: Delivery::Sent,
                });
                self.mains.remove(&service);
                answers.push_back(Input::Exited { service, identity, exit: None });
            }
            Effect::Alert(alert) => {
                let incident = &alert.incident;
                self.mails.push(format!("{}: {}", incident.service, incident.title));
                self.last_mail = incident.story.iter().map(|line| line.text.clone()).collect();
            }
            Effect::Persist { service } => {
                let memory = self.engine.memory(&service).expect("it is there");
                self.memories.insert(service, memory);
            }
            Effect::LookAtCrew { .. }
            | Effect::SignalWorker { .. }
            | Effect::AskPuma { .. }
            | Effect::Unwatch { .. }
            | Effect::RecordLadder { .. }
            | Effect::RemoveStalePidfile { .. }
            | Effect::Event(_)
            | Effect::Log { .. }
            | Effect::Answer { .. } => {}
        }
    }

    pub(crate) fn note(&mut self, text: String) {
        self.seen.push(text);
    }

    pub(crate) fn dies(&mut self, name: &str) {
        let service = service_name(name);
        let pid = self.mains.remove(&service).expect("it runs");
        self.input(Input::Exited { service, identity: identity(pid), exit: None });
    }

    pub(crate) fn order(&mut self, name: &str, order: Order) {
        self.requests += 1;
        let (service, request) = (service_name(name), RequestId(self.requests));
        let who = Who::Operator { uid: Uid(0), pid: Pid(1) };
        self.input(Input::Ordered { service, request, order, who });
    }

    pub(crate) fn words(&self, name: &str) -> String {
        self.engine.status(self.now(), &service_name(name)).expect("it is there").words
    }

    /// How often the open incidents of a service say so.
    pub(crate) fn story(&self, name: &str, head: &str) -> usize {
        let open = self.engine.incidents(&service_name(name));
        let lines = open.iter().flat_map(|incident| &incident.story);
        lines.filter(|line| line.text.starts_with(head)).count()
    }

    pub(crate) fn saw(&mut self) -> Vec<String> {
        std::mem::take(&mut self.seen)
    }

    /// How often the last mail says so.
    pub(crate) fn times_mailed(&self, line: &str) -> usize {
        self.last_mail.iter().filter(|told| *told == line).count()
    }

    pub(crate) fn mailed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.mails)
    }
}

pub(crate) fn service_name(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

pub(crate) fn named(name: &str, parents: &[&str]) -> Service {
    Service {
        name: service_name(name),
        life: Life::Match(name.into()),
        depends_on: parents.iter().map(|parent| service_name(parent)).collect(),
        start_period: Duration::ZERO,
        ..cart()
    }
}

/// A web application with a page that is restarted when it answers badly.
pub(crate) fn app(name: &str, parents: &[&str]) -> Service {
    let mut service = named(name, parents);
    service.checks = vec![probe("failed", "1 of 1", Action::Restart)];
    service.checks[0].index = CheckIndex(0);
    service
}
