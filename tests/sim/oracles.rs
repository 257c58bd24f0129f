//! The oracles: each promise, judged from the world's truth, the inputs and the effects, with models
//! of their own. Of the engine only what it shows anybody (status, incidents, counters) is used.
//!
//! An oracle is believed once it was seen to fire. What made those of workers fire, and in how many of 1000
//! seeds:
//!
//! | Oracle | What was broken in the engine for it | Seeds |
//! | --- | --- | --- |
//! | 9 | an operator's request for a worker is forgotten when its time is over | 5 |
//! | 9 | a verified reload ends without an answer | 128 |
//! | 9 | an operator is answered twice for a worker | 61 |
//! | 12 | `mode = "observe"` is not asked before a worker is taken | 5 |
//! | 12 | nor whether the service is wanted up | 1 |
//! | 13 | the guard takes another user's worker | 3 |
//! | 13 | the end of a worker that is being taken is not heard | 3 |
//! | 14 | KILL after half the grace (16 too: the next one is told too early) | 9 |
//! | 14 | a stuck one is killed after half its time | 11 |
//! | 14 | KILL where it is refused; where it takes others along | 9; 1 |
//! | 15 | `min` is not asked; another one may be booting | 64; 23 |
//! | 16 | one that went needs no successor | 16 |
//! | 17 | no budget | 45 |
//! | 18 | rules act while a verified reload is under way | 4 |
//! | 19 | no rule takes a worker away | 9 |

mod answers;
mod calm;
mod definitions;
mod tolerance;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use heeler::engine::effect::Effect;
use heeler::engine::input::{Confirmation, Input};
use heeler::model::action::Action;
use heeler::model::check::Check;
use heeler::model::ids::{CheckIndex, RequestId};
use heeler::model::incident::{Alert, Cause};
use heeler::model::intent::Desired;
use heeler::model::job::{Job, JobKind};
use heeler::model::limits;
use heeler::model::memory::Memory;
use heeler::model::order::Order;
use heeler::model::process::{Identification, ProcessIdentity, Signal};
use heeler::model::service::{Mode, Service};
use heeler::model::status::{Phase, Tally};
use heeler::model::time::Mono;

use crate::oracles::tolerance::Model;
use crate::world::{Role, Starter, World, kills};

/// How long a living process may go unnoticed before a start beside it is a broken promise.
const DETECTION: Duration = Duration::from_millis(150);

/// Everything the oracles remember.
pub(crate) struct Oracles {
    watched: Vec<Watched>,
    requests: BTreeMap<RequestId, Request>,
    /// By token: the sequences on disk, each with the keeper that told it.
    alerts: BTreeMap<String, Vec<(u32, u64)>>,
    /// Every identity there ever was.
    pub(crate) known: BTreeSet<ProcessIdentity>,
    /// When each process first had a stop signal or stop command from heeler.
    told_to_go: BTreeMap<ProcessIdentity, Mono>,
    /// Whom heeler meant to stop, whether or not that reached it.
    aimed: BTreeSet<ProcessIdentity>,
    paces: VecDeque<(Mono, usize)>,
}

struct Request {
    svc: usize,
    order: Order,
    answers: u32,
    excused: bool,
    /// It was given before what is in force now.
    stale: bool,
}

/// What anybody may see of a service.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct View {
    pub(crate) phase: Phase,
    pub(crate) main: Option<ProcessIdentity>,
    pub(crate) desired: Desired,
}

struct Watched {
    view: Option<View>,
    /// The one before.
    old: Option<View>,
    models: Vec<Model>,
    /// The process an identification would find, and since when.
    claim: Option<(ProcessIdentity, Mono)>,
    /// The acknowledged wish, until a newer order is given.
    wish: Option<Desired>,
    wanted_down_at: Mono,
    /// An operator's start or restart that no start was made for yet.
    credit: bool,
    /// Automatic starts since it is defined so, and whether they are on disk; and the last of all.
    starts: Vec<(Mono, bool)>,
    last_start: Option<Mono>,
    /// How long its main process was given to go, since when.
    stop_timeouts: Vec<(Mono, Duration)>,
    /// Deaths nobody was told of yet.
    untold: Vec<Mono>,
}

/// What a step was given, and how things were before.
pub(crate) struct Judged {
    pub(crate) input: Input,
    pub(crate) accepted: bool,
    pub(crate) before: Option<(usize, View)>,
}

impl Judged {
    /// The main process the service had before it.
    pub(crate) fn main_of(&self, svc: usize) -> Option<ProcessIdentity> {
        self.before.filter(|(at, _)| *at == svc).and_then(|(_, view)| view.main)
    }
}

impl Oracles {
    pub(crate) fn new(defs: &[Arc<Service>]) -> Self {
        let watched = |def: &Arc<Service>| Watched {
            view: None,
            old: None,
            models: def.checks.iter().map(|_| Model::default()).collect(),
            claim: None,
            wish: None,
            wanted_down_at: Mono::ZERO,
            credit: false,
            starts: Vec::new(),
            last_start: None,
            stop_timeouts: vec![(Mono::ZERO, def.stop_timeout)],
            untold: Vec::new(),
        };
        Self {
            watched: defs.iter().map(watched).collect(),
            requests: BTreeMap::new(),
            alerts: BTreeMap::new(),
            known: BTreeSet::new(),
            told_to_go: BTreeMap::new(),
            aimed: BTreeSet::new(),
            paces: VecDeque::new(),
        }
    }

    pub(crate) fn keeper_killed(&mut self) {
        for request in self.requests.values_mut() {
            request.excused = true;
        }
        for watched in &mut self.watched {
            watched.view = None;
            // What was not yet recorded is not known to the next keeper.
            watched.starts.retain(|(_, kept)| *kept);
            watched.last_start = watched.starts.last().map(|(at, _)| *at);
            watched.untold.clear();
        }
    }

    pub(crate) fn memory_kept(&mut self, svc: usize, memory: &Memory) {
        for start in &mut self.watched[svc].starts {
            start.1 |= memory.boot.starts.contains(&start.0);
        }
    }

    pub(crate) fn aim(&mut self, target: ProcessIdentity) {
        self.aimed.insert(target);
    }

    /// What is answered from now on says nothing of what is wished.
    fn stale_requests(&mut self, svc: usize) {
        for request in self.requests.values_mut().filter(|request| request.svc == svc) {
            request.stale = true;
        }
    }

    pub(crate) fn ordered(&mut self, svc: usize, request: RequestId, order: Order, now: Mono) {
        let entry = Request { svc, order, answers: 0, excused: false, stale: false };
        self.requests.insert(request, entry);
        let watched = &mut self.watched[svc];
        watched.wish = None;
        match order {
            Order::Start | Order::Restart | Order::Monitor => watched.credit = true,
            Order::Stop => watched.wanted_down_at = now,
            Order::Unmonitor | Order::Reload => {}
        }
    }
}

impl World {
    /// How a service is shown now.
    pub(crate) fn view(&self, svc: usize) -> Option<View> {
        self.see(svc)
    }

    fn see(&self, svc: usize) -> Option<View> {
        let status = self.engine.as_ref()?.status(self.clock(), &self.svcs[svc].def.name)?;
        Some(View { phase: status.phase, main: status.main, desired: status.intent.desired })
    }

    /// The counts that the engine keeps are those of its services.
    pub(crate) fn judge_tally(&self) {
        let Some(engine) = &self.engine else { return };
        let mut counted = Tally::default();
        for name in engine.names() {
            let status = engine.status(self.clock(), name).expect("it is there");
            counted.count(Some(status.health), None);
        }
        assert_eq!(engine.tally(), counted);
    }

    /// Which processes an identification would find, kept up to date after everything that happens.
    pub(crate) fn refresh(&mut self) {
        for svc in 0..self.svcs.len() {
            let blind = self.svcs[svc].unknown_until.max(self.svcs[svc].refused_until) > self.now;
            let claimed = match self.claimed(svc) {
                Identification::One(identity) if !blind => Some(identity),
                Identification::One(_)
                | Identification::Succeeded(_)
                | Identification::None(_)
                | Identification::Refused(_)
                | Identification::Unknown(_) => None,
            };
            let old = self.oracles.watched[svc].claim;
            if old.map(|(identity, _)| identity) != claimed {
                self.oracles.watched[svc].claim = claimed.map(|identity| (identity, self.now));
            }
        }
    }

    pub(crate) fn before(&self, input: &Input) -> Option<(usize, View)> {
        let service = match input {
            Input::Exited { service, .. }
            | Input::Confirmed { service, .. }
            | Input::Sampled { service, .. }
            | Input::CrewSeen { service, .. }
            | Input::Observed { service, .. } => service,
            Input::Tick
            | Input::Identified { .. }
            | Input::Surveyed { .. }
            | Input::Launched { .. }
            | Input::Finished { .. }
            | Input::Signalled { .. }
            | Input::Remarked { .. }
            | Input::Hazards { .. }
            | Input::PumaAsked { .. }
            | Input::VerifyOrdered { .. }
            | Input::WorkerSignalled { .. }
            | Input::WorkerOrdered { .. }
            | Input::Ordered { .. } => return None,
        };
        let svc = self.index(service);
        let known = self.svcs[svc].def.name == *service;
        Some((svc, self.see(svc).filter(|_| known)?))
    }

    pub(crate) fn after_step(&mut self, judged: &Judged, effects: &[Effect]) {
        self.judge_pace(effects.len());
        self.crew_hears(judged);
        self.judge_verified(judged, effects);
        let mut touched: BTreeSet<_> = effects.iter().filter_map(|e| self.svc_of(e)).collect();
        touched.extend(judged.before.map(|(svc, _)| svc));
        match (&judged.input, judged.before) {
            (Input::Sampled { seen, .. } | Input::Observed { seen, .. }, Some((svc, view)))
                if judged.accepted =>
            {
                self.judge_sample(svc, view, seen);
            }
            (Input::Exited { identity, .. }, Some((svc, view))) if view.main == Some(*identity) => {
                self.note_death(svc, view);
            }
            (Input::Confirmed { how: Confirmation::Gone, .. }, Some((svc, view)))
                if judged.accepted =>
            {
                self.note_death(svc, view);
            }
            _ => {}
        }
        for svc in touched {
            self.look_at_view(svc);
        }
    }

    fn svc_of(&self, effect: &Effect) -> Option<usize> {
        match effect {
            Effect::Persist { service } | Effect::RecordLadder { service, .. } => {
                Some(self.index(service))
            }
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
            | Effect::Run(_)
            | Effect::Signal { .. }
            | Effect::RemoveStalePidfile { .. }
            | Effect::Alert(_)
            | Effect::Event(_)
            | Effect::Log { .. }
            | Effect::Answer { .. } => None,
        }
    }

    fn look_at_view(&mut self, svc: usize) {
        let Some(view) = self.see(svc) else { return };
        let old = self.oracles.watched[svc].view.replace(view);
        // Out of clearing without a start of heeler's: a deploy's own restart is nobody's mail.
        let cleared = old.is_some_and(|old| old.phase == Phase::Clearing);
        if cleared
            && matches!(view.phase, Phase::Watching | Phase::StartPeriod)
            && view.main.is_some()
        {
            self.oracles.watched[svc].untold.clear();
        }
        self.oracles.watched[svc].old = old;
        let settled = |view: View| view.phase == Phase::Watching && view.main.is_some();
        let fresh = old.is_none_or(|old| !settled(old) || old.main != view.main);
        let wanted = view.desired == Desired::Up;
        if settled(view) && fresh || !wanted {
            for model in &mut self.oracles.watched[svc].models {
                model.bad.clear();
                model.good.clear();
                model.firing &= wanted;
            }
        }
        let wished_down = old.is_some_and(|old| old.desired != Desired::Down);
        if view.desired == Desired::Down && wished_down {
            self.oracles.watched[svc].wanted_down_at = self.now;
        }
        let wish = self.oracles.watched[svc].wish;
        let rules = self.svcs[svc].def.checks.iter().any(|check| {
            check.then.iter().any(|then| matches!(then, Action::Stop | Action::Unmonitor))
        });
        if let Some(wish) = wish
            && wish != view.desired
            && (wish != Desired::Up || !rules)
        {
            let text = format!("acknowledged {wish:?}, but it is {:?}", view.desired);
            self.broken(6, Some(svc), &text);
        }
    }

    pub(crate) fn oracles_restart(&mut self, svc: usize, memory: Option<&Memory>) {
        let def = self.svcs[svc].def.clone();
        let fires = |check: &Check| {
            // Its checks may have been others then.
            let cause = |place| Cause::Check(check.kind, CheckIndex(place));
            memory.is_some_and(|memory| {
                let places = (0..).zip(&memory.checks);
                let of = places.filter(|(_, mark)| **mark == check.mark());
                of.map(|(place, _)| cause(place))
                    .any(|cause| memory.open.iter().any(|one| one.cause == cause))
            })
        };
        let model = |check| Model { firing: fires(check), ..Model::default() };
        self.oracles.watched[svc].models = def.checks.iter().map(model).collect();
        self.look_at_view(svc);
    }

    // ---- 8: no spinning ----------------------------------------------------------------------

    fn judge_pace(&mut self, effects: usize) {
        let now = self.now;
        let span = Duration::from_secs(5);
        self.oracles.paces.push_back((now, effects));
        while self.oracles.paces.front().is_some_and(|(at, _)| now.since(*at) > span) {
            self.oracles.paces.pop_front();
        }
        let steps = self.oracles.paces.len();
        let bound = self.svcs.len() * 5 * 70 + 100;
        if steps > bound {
            let text = format!("{steps} steps in {span:?}");
            self.broken(8, None, &text);
        }
        if effects > 60 * self.svcs.len() {
            self.broken(8, None, &format!("{effects} effects in one step"));
        }
    }

    // ---- 10: deaths and alerts ---------------------------------------------------------------

    fn note_death(&mut self, svc: usize, view: View) {
        let ours = matches!(view.phase, Phase::Watching | Phase::StartPeriod);
        // One that an earlier keeper told to go is no death to tell: whatever made it go tells.
        let told = view.main.is_some_and(|main| self.oracles.told_to_go.contains_key(&main));
        // What may be a parent's doing is told by the parent's mail.
        let alone = self.svcs[svc].def.depends_on.is_empty();
        if ours && !told && alone && view.desired == Desired::Up {
            let now = self.now;
            self.oracles.watched[svc].untold.push(now);
        }
    }

    pub(crate) fn judge_alert(&mut self, alert: &Alert, epoch: u64) {
        let svc = self.index(&alert.incident.service);
        if alert.incident.cause == Cause::Down {
            self.oracles.watched[svc].untold.clear();
        }
        let token = alert.incident.token();
        let told = self.oracles.alerts.entry(token.clone()).or_default();
        let again = told.iter().find(|(sequence, _)| *sequence == alert.sequence).copied();
        let next = told.len();
        told.push((alert.sequence, epoch));
        if let Some((_, by)) = again {
            if by == epoch {
                let text = format!("alert {token} {} twice", alert.sequence);
                self.broken(10, Some(svc), &text);
            }
            self.oracles.alerts.entry(token).or_default().pop();
        } else if usize::try_from(alert.sequence).ok() != Some(next) {
            let text = format!("alert {token} has number {}, not {next}", alert.sequence);
            self.broken(10, Some(svc), &text);
        }
    }

    // ---- 1, 5, 6, 7: starts ------------------------------------------------------------------

    pub(crate) fn judge_run(&mut self, svc: usize, job: &Job) {
        if let Some(running) = &self.svcs[svc].job {
            let text = format!("{:?} while {:?} runs", job.kind, running.kind);
            self.broken(1, Some(svc), &text);
        }
        let view = self.see(svc);
        match job.kind {
            JobKind::Start | JobKind::Instance => {
                if self.svcs[svc].launching.is_some() {
                    self.broken(1, Some(svc), "a program is launched while another is");
                }
                self.judge_copies(svc);
                self.judge_start(svc, job.main, view);
            }
            JobKind::Restart => self.judge_start(svc, job.main, view),
            JobKind::Stop => {
                if let Some(main) = job.main {
                    self.judge_stop(svc, main);
                    self.oracles.aimed.insert(main);
                    let now = self.now;
                    self.oracles.told_to_go.entry(main).or_insert(now);
                }
            }
            // What it takes away it puts another in the place of: as heeler's doing, nobody's stop.
            JobKind::Reload => {
                if let Some(main) = job.main {
                    self.oracles.aimed.insert(main);
                }
            }
            JobKind::Exec | JobKind::Look | JobKind::Ask | JobKind::Probe(_) => {}
        }
    }

    fn judge_copies(&self, svc: usize) {
        let watched = &self.oracles.watched[svc];
        if let Some((identity, since)) = watched.claim
            && self.now.since(since) > DETECTION
            && self.alive(identity)
        {
            self.broken(7, Some(svc), &format!("a start beside the living {identity:?}"));
        }
        if let Some(held) = watched.view.and_then(|view| view.main)
            && self.alive(held)
        {
            self.broken(7, Some(svc), &format!("a start beside the held {held:?}"));
        }
    }

    fn judge_start(&mut self, svc: usize, before: Option<ProcessIdentity>, view: Option<View>) {
        let desired = view.map(|view| view.desired);
        if desired != Some(Desired::Up) {
            self.broken(12, Some(svc), &format!("started while it is wanted {desired:?}"));
        }
        let def = self.svcs[svc].def.clone();
        let now = self.now;
        let watched = &mut self.oracles.watched[svc];
        if matches!(watched.wish, Some(Desired::Down | Desired::Unmonitored)) {
            self.broken(6, Some(svc), "started after a stop was acknowledged");
        }
        if std::mem::take(&mut watched.credit) {
            return;
        }
        let last = watched.last_start.replace(now);
        watched.starts.push((now, false));
        let window = def.start_limit.window;
        let recent = watched.starts.iter().filter(|(at, _)| now.since(*at) < window).count();
        // Whoever told the last one to go, before it only observed, brings up the next.
        let finishes = before.is_some_and(|main| self.oracles.aimed.contains(&main));
        if def.mode == Mode::Observe && !finishes {
            self.broken(5, Some(svc), "started by itself while it only observes");
        }
        let Some(last) = last else { return };
        let gap = now.since(last);
        if gap < limits::START_GAP_MIN {
            self.broken(5, Some(svc), &format!("two automatic starts within {gap:?}"));
        }
        if recent > usize::try_from(def.start_limit.starts).expect("small")
            && gap < def.backoff.first
        {
            let text = format!("{recent} starts in {window:?}, the last {gap:?} after another");
            self.broken(5, Some(svc), &text);
        }
    }

    // ---- 2, 3, 12: signals -------------------------------------------------------------------

    /// A signal reaches a living process.
    pub(crate) fn judge_signal(&mut self, svc: usize, to: ProcessIdentity, signal: Signal) {
        let Some(proc) = self.procs.get(&to) else {
            return;
        };
        let proper = match proc.role {
            Role::Main => true,
            Role::Child { foreign, .. } => !foreign,
            Role::Stranger => false,
        };
        if proc.svc != svc || !proper {
            self.broken(3, Some(svc), &format!("{signal:?} to {to:?}, which is {:?}", proc.role));
        }
        let main = proc.role == Role::Main;
        let held = self.see(svc).and_then(|view| view.main);
        if main && held != Some(to) {
            self.broken(3, Some(svc), &format!("{signal:?} to {to:?}, which is not held"));
        }
        if !kills(signal) {
            let now = self.now;
            self.oracles.told_to_go.entry(to).or_insert(now);
            return;
        }
        let stop_timeout = self.oracles.told_to_go.get(&to).map_or(Duration::ZERO, |told| {
            // That of any definition since then: a second stop has another than the first.
            let history = &self.oracles.watched[svc].stop_timeouts;
            let first = history.iter().rposition(|(from, _)| from <= told).unwrap_or_default();
            history[first..].iter().map(|(_, timeout)| *timeout).min().unwrap_or_default()
        });
        // What a dead Puma left drains nothing.
        let puma = self.svcs[svc].def.puma.is_some();
        let stop_timeout = match proc.role {
            Role::Child { .. } if puma => stop_timeout.min(limits::PUMA_ORPHAN_GRACE),
            Role::Child { .. } | Role::Main | Role::Stranger => stop_timeout,
        };
        match self.oracles.told_to_go.get(&to) {
            None => self.broken(2, Some(svc), &format!("KILL to {to:?}, never told to go")),
            Some(told) if self.now.since(*told) < stop_timeout => {
                let waited = self.now.since(*told);
                self.broken(2, Some(svc), &format!("KILL to {to:?} after only {waited:?}"));
            }
            Some(_) => {}
        }
    }

    /// Nobody may be stopped whom nobody wants stopped.
    pub(crate) fn judge_stop(&mut self, svc: usize, target: ProcessIdentity) {
        let (Some(view), Some(proc)) = (self.see(svc), self.procs.get(&target)) else {
            return;
        };
        let told = self.oracles.aimed.contains(&target);
        let watched = &self.oracles.watched[svc];
        match view.desired {
            Desired::Up => {}
            Desired::Down if told => {}
            Desired::Unmonitored if told => {}
            Desired::Unmonitored => {
                self.broken(12, Some(svc), "it is not monitored, and stopped");
            }
            Desired::Down => {
                let found_up = proc.by == Starter::Other && proc.born > watched.wanted_down_at;
                let was_starting = watched.old.is_some_and(|view| view.phase == Phase::Starting);
                // Whoever asked for a stop and waits for it means a successor too.
                let asked = self.oracles.requests.values().any(|request| {
                    request.svc == svc && request.order == Order::Stop && request.answers == 0
                });
                if found_up && !was_starting && !asked {
                    self.broken(12, Some(svc), "it was found up while wanted down, and stopped");
                }
            }
        }
    }
}
