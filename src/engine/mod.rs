//! The pure core: a function of inputs.
//!
//! [`Engine::step`] is total and never fails. It reads no clock (`now` is an argument), does no I/O,
//! uses no randomness and holds nothing that can act: it answers with effects, and the shell carries
//! them out. The shell asks only [`Engine::next_wakeup`] about time; timers are named deadlines in the
//! state, so cancelling one is assigning a field.
//!
//! Each question the engine asks (an effect with an id) gets one answering input. An answer that is not
//! awaited any more is counted and dropped: late answers never surprise it.
#![forbid(unsafe_code)]

mod answers;
mod brake;
mod clearing;
mod crew;
mod dependency;
pub mod effect;
mod guard;
mod hazards;
pub mod input;
mod job;
mod judge;
mod lifecycle;
mod look;
mod notify;
mod orders;
mod reloading;
pub mod replace;
mod resume;
pub mod standing;
mod start_limit;
mod starting;
mod state;
mod status;
mod stopping;
pub mod table;
mod tolerance;
mod verified;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::brake::Brake;
use crate::engine::dependency::Edges;
use crate::engine::effect::{Effect, Level};
use crate::engine::input::Input;
use crate::engine::state::State;
use crate::engine::table::{Class, Where};
use crate::model::crew::CrewView;
use crate::model::event::{Event, EventKind};
use crate::model::ids::{ActionId, AskId, ServiceName};
use crate::model::intent::Desired;
use crate::model::job::InFlight;
use crate::model::memory::Memory;
use crate::model::service::Service;
use crate::model::status::{Status, Tally};
use crate::model::time::{Mono, Now};
use crate::model::workers::Budget;

/// All services and what is going on with each.
#[derive(Debug)]
pub struct Engine {
    /// Each for itself: the nodes of a tree are half empty, and a state is large.
    services: BTreeMap<ServiceName, Box<State>>,
    /// When each service is due next, soonest first.
    due: BTreeSet<(Mono, ServiceName)>,
    tally: Tally,
    common: Common,
    /// Who needs whom.
    edges: Edges,
}

/// What all services have in common.
#[derive(Debug)]
struct Common {
    next_id: u64,
    counters: Counters,
    brake: Brake,
}

/// What should be rare, counted so that it is seen.
#[derive(Clone, Default, Debug)]
pub struct Counters {
    /// Answers that nobody waited for any more.
    pub dropped_answers: u64,
    /// Inputs for a service that is not there.
    pub strangers: u64,
    /// Cells of the table that cannot happen, and did.
    pub impossible: Vec<(Where, Class)>,
    /// Every cell of the table that was visited.
    pub visited: BTreeSet<(u8, Where, Class)>,
}

impl Engine {
    /// An engine without services. `first_id` is where its action ids begin; no keeper of this machine
    /// may have used it or a higher one.
    #[must_use]
    pub fn new(first_id: u64) -> Self {
        Self {
            services: BTreeMap::new(),
            due: BTreeSet::new(),
            tally: Tally::default(),
            common: Common {
                next_id: first_id,
                counters: Counters::default(),
                brake: Brake::default(),
            },
            edges: Edges::default(),
        }
    }

    /// So much may be taken away on this machine in a window of time without anybody's order.
    pub fn brake_at(&mut self, budget: Budget) {
        self.common.brake.set(budget);
    }

    /// Takes a service in: what it was remembered as, and what an earlier keeper left in flight. Its
    /// first look begins at once.
    pub fn add(
        &mut self,
        now: Now,
        def: Arc<Service>,
        memory: Option<Memory>,
        in_flight: &InFlight,
        effects: &mut Vec<Effect>,
    ) {
        let name = def.name.clone();
        for taken in memory.iter().flat_map(|memory| &memory.boot.braked) {
            self.common.brake.recall(*taken);
        }
        let (state, resumed) = State::begin(now, def, memory);
        self.services.insert(name.clone(), Box::new(state));
        self.draw_edges(&name);
        self.hear_parents(&name);
        self.with(now, &name, effects, |state, cx| {
            state.resume_open(cx, resumed);
            state.take_up(cx, in_flight);
        });
        self.tell_children(now, &name, effects);
    }

    /// One thing happened. Effects are appended in the order in which they must be carried out.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        let Some(name) = service_of(&input).cloned() else {
            self.tick(now, effects);
            return;
        };
        let there = self.with(now, &name, effects, |state, cx| state.take_input(cx, input));
        if there.is_none() {
            self.common.counters.strangers += 1;
            return;
        }
        self.tell_children(now, &name, effects);
    }

    /// When the engine wants a [`Input::Tick`], at the latest.
    #[must_use]
    pub fn next_wakeup(&self) -> Mono {
        self.due.first().map_or(Mono::NEVER, |(due, _)| *due)
    }

    /// What must not be forgotten about a service.
    #[must_use]
    pub fn memory(&self, name: &ServiceName) -> Option<Memory> {
        self.services.get(name).map(|state| state.remember())
    }

    /// A service as it stands.
    #[must_use]
    pub fn status(&self, now: Now, name: &ServiceName) -> Option<Status> {
        self.services.get(name).map(|state| state.status(now))
    }

    /// How many services are how.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How its workers stand; `None` where it has none to speak of.
    #[must_use]
    pub fn crew(&self, now: Now, name: &ServiceName) -> Option<CrewView> {
        let state = self.services.get(name)?;
        let workers = state.def.workers.as_ref()?;
        Some(state.crew.view(now.mono, workers, state.reloaded))
    }

    /// The open incidents of a service, or its last one.
    #[must_use]
    pub fn incidents(&self, name: &ServiceName) -> Vec<crate::model::incident::Incident> {
        let Some(state) = self.services.get(name) else {
            return Vec::new();
        };
        let open: Vec<_> = state.open.values().map(|open| open.record.clone()).collect();
        if open.is_empty() { state.last_incident.iter().cloned().collect() } else { open }
    }

    /// What a check that asks for `changed` compares with, by [`crate::model::check::Check::mark`].
    #[must_use]
    pub fn fingerprint(&self, name: &ServiceName, check: u64) -> Option<u64> {
        let state = self.services.get(name)?;
        let mut all = state.def.checks.iter().zip(&state.checks);
        all.find(|(of, _)| of.mark() == check)?.1.fingerprint
    }

    /// The names of all services, in order.
    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// What should be rare.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.common.counters
    }

    /// Does something with a service that is there, and files it anew.
    fn with(
        &mut self,
        now: Now,
        name: &ServiceName,
        effects: &mut Vec<Effect>,
        what: impl FnOnce(&mut State, &mut Cx<'_>),
    ) -> Option<()> {
        let Self { services, due, tally, common, .. } = self;
        let state = services.get_mut(name)?;
        within(now, effects, common, state, what);
        file(due, tally, name, state);
        Some(())
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while self.due.first().is_some_and(|(at, _)| *at <= now.mono) {
            let Self { services, due, tally, common, .. } = self;
            let Some((_, name)) = due.pop_first() else { return };
            let Some(state) = services.get_mut(&name) else { continue };
            within(now, effects, common, state, State::time_passed);
            // A deadline that is still in the past after it was served would spin.
            debug_assert!(state.next_due() > now.mono, "{name}: {state:?}");
            state.filed = Mono::NEVER;
            file(due, tally, &name, state);
            self.tell_children(now, &name, effects);
        }
    }
}

fn within(
    now: Now,
    effects: &mut Vec<Effect>,
    common: &mut Common,
    state: &mut State,
    what: impl FnOnce(&mut State, &mut Cx<'_>),
) {
    let Common { next_id, counters, brake } = common;
    let mut cx = Cx { now, effects, next_id, dirty: false, counters, brake };
    what(state, &mut cx);
    if cx.dirty {
        cx.push(Effect::Persist { service: state.def.name.clone() });
    }
}

/// Files a service under its next deadline, and counts it as what it is now.
fn file(
    all: &mut BTreeSet<(Mono, ServiceName)>,
    tally: &mut Tally,
    name: &ServiceName,
    state: &mut State,
) {
    // heeler itself is none of them.
    let health = Some(state.health()).filter(|_| !name.is_heelers());
    if health != state.tallied {
        tally.count(health, state.tallied);
        state.tallied = health;
    }
    let due = state.next_due();
    if due != state.filed {
        let mut filed = (state.filed, name.clone());
        all.remove(&filed);
        filed.0 = due;
        all.insert(filed);
        state.filed = due;
    }
}

/// What a step works with: the moment, and where its effects go.
pub(crate) struct Cx<'a> {
    pub(crate) now: Now,
    effects: &'a mut Vec<Effect>,
    next_id: &'a mut u64,
    /// The memory of the service changed.
    pub(crate) dirty: bool,
    pub(crate) counters: &'a mut Counters,
    /// All services share it.
    pub(crate) brake: &'a mut Brake,
}

impl Cx<'_> {
    fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn id(&mut self) -> u64 {
        *self.next_id += 1;
        *self.next_id
    }

    fn ask(&mut self) -> AskId {
        AskId(self.id())
    }

    fn action(&mut self) -> ActionId {
        ActionId(self.id())
    }

    fn log(&mut self, service: &ServiceName, level: Level, text: String) {
        self.push(Effect::Log { service: service.clone(), level, text });
    }

    fn event(&mut self, service: &ServiceName, kind: EventKind, text: &str) {
        self.push(Effect::Event(Event::new(service.clone(), self.now.wall, kind, text)));
    }

    fn visited(&mut self, desired: Desired, place: Where, class: Class) {
        let row = match desired {
            Desired::Up => 0,
            Desired::Down => 1,
            Desired::Unmonitored => 2,
        };
        self.counters.visited.insert((row, place, class));
    }

    fn impossible(&mut self, service: &ServiceName, place: Where, class: Class) {
        self.counters.impossible.push((place, class));
        let text = format!("this should not happen, please report it: {class:?} while {place:?}");
        self.log(service, Level::Error, text);
    }
}

fn service_of(input: &Input) -> Option<&ServiceName> {
    match input {
        Input::Tick => None,
        Input::Identified { service, .. }
        | Input::Exited { service, .. }
        | Input::Surveyed { service, .. }
        | Input::Sampled { service, .. }
        | Input::CrewSeen { service, .. }
        | Input::Hazards { service, .. }
        | Input::PumaAsked { service, .. }
        | Input::VerifyOrdered { service, .. }
        | Input::WorkerSignalled { service, .. }
        | Input::WorkerOrdered { service, .. }
        | Input::Observed { service, .. }
        | Input::Confirmed { service, .. }
        | Input::Launched { service, .. }
        | Input::Finished { service, .. }
        | Input::Signalled { service, .. }
        | Input::Remarked { service, .. }
        | Input::Ordered { service, .. } => Some(service),
    }
}
