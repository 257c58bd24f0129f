//! Services that need each other: one alert for all, nothing done to those that are not at fault, and the
//! order in which they come back.

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
use heeler::model::service::{Life, Mode, OnBoot, Service, Together};
use heeler::model::time::{Mono, Now, Wall};

use crate::story::{cart, identity, probe, span};

/// Several services in one engine; starts succeed at once unless they are forbidden.
struct Town {
    engine: Engine,
    clock: Duration,
    mains: BTreeMap<ServiceName, i32>,
    /// Services whose start does nothing.
    broken: BTreeSet<ServiceName>,
    /// Services whose page answers badly.
    sick: BTreeSet<ServiceName>,
    /// Services whose page takes its time, and what it will have said.
    slow: BTreeSet<ServiceName>,
    owed: Vec<Input>,
    memories: BTreeMap<ServiceName, Memory>,
    next_pid: i32,
    requests: u64,
    seen: Vec<String>,
    mails: Vec<String>,
    /// What the last one tells.
    last_mail: Vec<String>,
}

impl Town {
    fn of(services: &[Service]) -> Self {
        let mut town = Self {
            engine: Engine::new(0),
            clock: span("1h"),
            mains: BTreeMap::new(),
            broken: BTreeSet::new(),
            sick: BTreeSet::new(),
            slow: BTreeSet::new(),
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

    fn open(&mut self, services: &[Service]) {
        for service in services {
            let effects = self.add(service);
            self.carry_out(effects);
        }
    }

    /// All are there before anything is known of any.
    fn open_together(&mut self, services: &[Service]) {
        let effects = services.iter().map(|service| self.add(service)).collect::<Vec<_>>();
        effects.into_iter().for_each(|effects| self.carry_out(effects));
    }

    fn add(&mut self, service: &Service) -> Vec<Effect> {
        let mut effects = Vec::new();
        let memory = self.memories.get(&service.name).cloned();
        let def = Arc::new(service.clone());
        self.engine.add(self.now(), def, memory, &InFlight::Nothing, &mut effects);
        effects
    }

    /// A file is gone: the process goes on.
    fn forgets(&mut self, name: &str) {
        let mut effects = Vec::new();
        self.engine.remove(self.now(), &service_name(name), &Farewell::Gone, &mut effects);
        self.memories.remove(&service_name(name));
        self.carry_out(effects);
    }

    /// Others are needed from now on.
    fn needs(&mut self, service: Service) {
        let kept: Vec<_> = service.checks.iter().map(|check| Kept::Same(check.index)).collect();
        let mut effects = Vec::new();
        self.engine.replace(self.now(), Arc::new(service), &kept, &mut effects);
        self.carry_out(effects);
    }

    /// The machine boots: no process is left, and what was remembered of processes means nothing.
    fn boots(&mut self, services: &[Service]) {
        self.mains.clear();
        for memory in self.memories.values_mut() {
            memory.boot = heeler::model::memory::BootMemory::default();
        }
        self.engine = Engine::new(1_000_000);
        self.open(services);
    }

    fn now(&self) -> Now {
        let nanos = u64::try_from(self.clock.as_nanos()).unwrap();
        let wall = 1_700_000_000_000 + u64::try_from(self.clock.as_millis()).unwrap();
        Now { mono: Mono::from_nanos(nanos), wall: Wall(wall) }
    }

    fn passes(&mut self, text: &str) {
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

    fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.engine.step(self.now(), input, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut answers = VecDeque::new();
        for effect in effects {
            self.effect(effect, &mut answers);
        }
        for answer in answers {
            self.input(answer);
        }
    }

    fn effect(&mut self, effect: Effect, answers: &mut VecDeque<Input>) {
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
                let seen = if self.sick.contains(&service) {
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

    fn note(&mut self, text: String) {
        self.seen.push(text);
    }

    fn dies(&mut self, name: &str) {
        let service = service_name(name);
        let pid = self.mains.remove(&service).expect("it runs");
        self.input(Input::Exited { service, identity: identity(pid), exit: None });
    }

    fn order(&mut self, name: &str, order: Order) {
        self.requests += 1;
        let (service, request) = (service_name(name), RequestId(self.requests));
        let who = Who::Operator { uid: Uid(0), pid: Pid(1) };
        self.input(Input::Ordered { service, request, order, who });
    }

    fn words(&self, name: &str) -> String {
        self.engine.status(self.now(), &service_name(name)).expect("it is there").words
    }

    fn saw(&mut self) -> Vec<String> {
        std::mem::take(&mut self.seen)
    }

    /// How often the last mail says so.
    fn times_mailed(&self, line: &str) -> usize {
        self.last_mail.iter().filter(|told| *told == line).count()
    }

    fn mailed(&mut self) -> Vec<String> {
        std::mem::take(&mut self.mails)
    }
}

fn service_name(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn named(name: &str, parents: &[&str]) -> Service {
    Service {
        name: service_name(name),
        life: Life::Match(name.into()),
        depends_on: parents.iter().map(|parent| service_name(parent)).collect(),
        start_period: Duration::ZERO,
        ..cart()
    }
}

/// A web application with a page that is restarted when it answers badly.
fn app(name: &str, parents: &[&str]) -> Service {
    let mut service = named(name, parents);
    service.checks = vec![probe("failed", "1 of 1", Action::Restart)];
    service.checks[0].index = CheckIndex(0);
    service
}

#[test]
fn log_05_the_database_is_down_and_five_need_it_one_alert_five_held_back() {
    let names = ["a", "b", "c", "d", "e"];
    let mut services = vec![named("postgres", &[])];
    services.extend(names.iter().map(|name| app(name, &["postgres"])));
    let mut town = Town::of(&services);
    town.passes("2m");
    assert_eq!(town.saw().len(), 6, "all are started once");
    assert_eq!(town.mailed(), [""; 0]);

    town.broken.insert(service_name("postgres"));
    town.dies("postgres");
    // Its applications answer badly, and two of them do not live without it.
    town.sick.extend(names.iter().map(|name| service_name(name)));
    town.passes("10s");
    town.dies("d");
    town.dies("e");
    town.passes("10m");
    let seen = town.saw();
    assert!(seen.iter().all(|line| line.ends_with(" postgres")), "{seen:?}");
    let mails = town.mailed();
    assert!(mails.iter().all(|mail| mail.starts_with("postgres: ")), "{mails:?}");
    assert_eq!(town.times_mailed("held back until that is over: a, b, c, d, e"), 1);
    assert_eq!(town.words("a"), "up, held back: postgres is down, which it needs");
    assert_eq!(town.words("e"), "down, held back: postgres is down, which it needs");

    // It comes back: those that were down follow it, the others answer again by themselves.
    town.broken.clear();
    town.sick.clear();
    town.order("postgres", Order::Start);
    town.passes("15m");
    assert_eq!(town.saw(), ["start postgres", "start d", "start e"]);
    let mails = town.mailed();
    assert!(mails.iter().all(|mail| mail.starts_with("postgres: ")), "{mails:?}");
    assert_eq!((town.words("a"), town.words("e")), ("up".to_owned(), "up".to_owned()));
}

#[test]
fn the_mail_names_whoever_is_wanted_up_and_needs_it_by_others_too_and_not_hundreds() {
    let mut services = vec![named("db", &[]), named("app", &["db"]), named("edge", &["app"])];
    services.push(named("resting", &["db"]));
    let mut town = Town::of(&services);
    town.passes("1m");
    town.order("resting", Order::Stop);
    town.broken.insert(service_name("db"));
    town.dies("db");
    town.passes("10s");
    assert_eq!(town.times_mailed("held back until that is over: app, edge"), 1);

    let mut services = vec![named("db", &[])];
    services.extend((10..99).map(|n| named(&format!("app{n}"), &["db"])));
    let mut town = Town::of(&services);
    town.passes("1m");
    town.broken.insert(service_name("db"));
    town.dies("db");
    town.passes("10s");
    let told = town.last_mail.iter().find(|line| line.contains("app10")).expect("it is told");
    assert!(told.contains(" app10, app11, ") && told.ends_with(" and 73 more"), "{told}");
}

#[test]
fn who_is_still_in_trouble_when_its_parent_is_back_is_seen_to() {
    let mut town = Town::of(&[named("postgres", &[]), app("shop", &["postgres"])]);
    town.passes("2m");
    town.saw();
    town.broken.insert(service_name("postgres"));
    town.dies("postgres");
    town.sick.insert(service_name("shop"));
    town.passes("5m");
    town.broken.clear();
    town.order("postgres", Order::Start);
    town.saw();
    town.mailed();
    town.passes("30s");
    let seen = town.saw();
    assert!(seen.contains(&"TERM shop".to_owned()), "{seen:?}");
    let mails = town.mailed();
    assert!(mails.iter().any(|mail| mail.starts_with("shop: ")), "{mails:?}");
}

#[test]
fn what_was_asked_while_the_parent_was_away_is_not_held_against_anybody() {
    let mut town = Town::of(&[named("postgres", &[]), app("shop", &["postgres"])]);
    town.passes("2m");
    town.saw();
    town.broken.insert(service_name("postgres"));
    town.dies("postgres");
    town.sick.insert(service_name("shop"));
    town.slow.insert(service_name("shop"));
    town.passes("20s");
    assert!(!town.owed.is_empty(), "a page was asked");
    town.broken.clear();
    town.sick.clear();
    town.slow.clear();
    town.order("postgres", Order::Start);
    while town.words("shop") != "up" {
        town.passes("10ms");
    }
    // It answers only now, of when there was no database.
    let owed = std::mem::take(&mut town.owed);
    owed.into_iter().for_each(|answer| town.input(answer));
    town.passes("15m");
    assert!(town.saw().iter().all(|line| line.ends_with(" postgres")), "shop was restarted");
    let mails = town.mailed();
    assert!(mails.iter().all(|mail| mail.starts_with("postgres: ")), "{mails:?}");
}

#[test]
fn a_chain_comes_back_from_its_beginning() {
    let services =
        [named("disk", &[]), named("db", &["disk"]), named("app", &["db"]), named("else", &[])];
    let mut town = Town::of(&services);
    town.passes("1m");
    let seen = town.saw();
    let place = |name: &str| seen.iter().position(|line| line == &format!("start {name}")).unwrap();
    assert!(place("disk") < place("db") && place("db") < place("app"), "{seen:?}");
    town.broken.insert(service_name("disk"));
    town.dies("disk");
    town.dies("db");
    town.dies("app");
    town.passes("3m");
    assert!(town.saw().iter().all(|line| line == "start disk"));
    town.broken.clear();
    town.passes("1m");
    town.order("disk", Order::Start);
    town.passes("10m");
    assert_eq!(town.saw(), ["start disk", "start db", "start app"]);
}

#[test]
fn an_unmonitored_parent_holds_nothing_back_a_stopped_one_does_and_a_person_is_not_held() {
    let mut town = Town::of(&[named("db", &[]), named("app", &["db"])]);
    town.passes("1m");
    town.order("db", Order::Stop);
    town.dies_if_there("app");
    town.saw();
    town.passes("1m");
    assert_eq!(town.saw(), [""; 0]);
    assert_eq!(town.words("app"), "down, held back: db was stopped, which it needs");
    town.order("app", Order::Start);
    town.passes("10s");
    assert_eq!(town.saw(), ["start app"]);
    town.order("db", Order::Unmonitor);
    town.dies("app");
    town.passes("10s");
    assert_eq!(town.saw(), ["start app"]);
}

#[test]
fn a_restart_of_a_parent_leaves_its_children_alone_unless_they_ask() {
    let mut with = named("with", &["db"]);
    with.restart_with = Together::Yes;
    let mut observed = named("observed", &["db"]);
    observed.restart_with = Together::Yes;
    let mut town = Town::of(&[named("db", &[]), with, named("without", &["db"]), observed.clone()]);
    town.passes("1m");
    town.saw();
    town.order("db", Order::Restart);
    town.passes("30s");
    let seen = town.saw();
    assert_eq!(seen[..2], ["TERM db".to_owned(), "start db".to_owned()]);
    assert!(
        seen.contains(&"start with".to_owned()) && !seen.join(" ").contains("without"),
        "{seen:?}"
    );

    observed.mode = Mode::Observe;
    let mut town = Town::of(&[named("db", &[]), observed]);
    town.next_pid += 1;
    town.mains.insert(service_name("observed"), town.next_pid);
    town.passes("1m");
    town.saw();
    town.order("db", Order::Restart);
    town.passes("30s");
    assert_eq!(town.saw(), ["TERM db", "start db"]);
}

#[test]
fn who_comes_when_its_parent_is_back_hears_how_that_stands_now() {
    let services = [named("postgres", &[]), app("shop", &["postgres"])];
    let mut town = Town::of(&services);
    town.passes("2m");
    town.saw();
    // The files of both are gone, and back; the parent's first.
    town.forgets("shop");
    town.forgets("postgres");
    town.passes("1m");
    town.open_together(&services);
    town.passes("2m");
    assert_eq!((town.words("postgres"), town.words("shop")), ("up".to_owned(), "up".to_owned()));
    assert_eq!(town.saw(), [""; 0]);
    assert_eq!(town.mailed(), [""; 0]);
}

#[test]
fn a_service_that_needs_others_from_now_on_is_held_back_by_those_alone() {
    let mut town =
        Town::of(&[named("postgres", &[]), named("redis", &[]), app("shop", &["postgres"])]);
    town.passes("2m");
    town.saw();
    for name in ["postgres", "redis"] {
        town.broken.insert(service_name(name));
    }
    town.dies("postgres");
    town.passes("5s");
    assert_eq!(town.words("shop"), "up, held back: postgres is down, which it needs");
    town.needs(app("shop", &["redis"]));
    assert_eq!(town.words("shop"), "up");
    town.dies("redis");
    town.passes("5s");
    assert_eq!(town.words("shop"), "up, held back: redis is down, which it needs");
    town.forgets("redis");
    assert_eq!(town.words("shop"), "up");
    town.passes("5m");
    let mails = town.mailed();
    assert!(mails.iter().all(|mail| !mail.starts_with("shop: ")), "{mails:?}");
}

/// CRA-13: `on_boot`, and what was counted before the boot.
#[test]
fn a_boot_means_what_the_file_says() {
    let on_boot = |name: &str, on_boot| Service { on_boot, ..named(name, &[]) };
    let services = [
        on_boot("last", OnBoot::Last),
        on_boot("start", OnBoot::Start),
        on_boot("leave", OnBoot::Leave),
        Service { start_delay: span("30s"), ..named("late", &[]) },
    ];
    let mut town = Town::of(&services);
    // What is new waits for nothing but its delay.
    town.passes("20s");
    assert_eq!(town.saw(), ["start last", "start start", "start leave"]);
    town.passes("20s");
    assert_eq!(town.saw(), ["start late"]);
    town.order("last", Order::Stop);
    town.order("start", Order::Stop);
    town.saw();
    town.boots(&services);
    town.passes("20s");
    assert_eq!(town.saw(), ["start start"]);
    assert_eq!(town.words("leave"), "down, left so since boot (on_boot = \"leave\")");
    assert_eq!(town.words("late"), "down, next start in 10s");
    // A new keeper in the same boot knows that, too.
    town.engine = Engine::new(2_000_000);
    town.open(&services);
    town.passes("20s");
    assert_eq!(town.saw(), ["start late"]);
    assert_eq!(town.words("leave"), "down, left so since boot (on_boot = \"leave\")");
    // Once somebody has brought it up it is watched as any other.
    town.next_pid += 1;
    town.mains.insert(service_name("leave"), town.next_pid);
    town.passes("20s");
    assert_eq!(town.words("leave"), "up");
    town.dies("leave");
    town.passes("20s");
    assert_eq!(town.saw(), ["start leave"]);
    assert!(town.mailed().iter().all(|mail| mail.starts_with("leave: the main process")));
}

impl Town {
    fn dies_if_there(&mut self, name: &str) {
        if self.mains.contains_key(&service_name(name)) {
            self.dies(name);
        }
    }
}
