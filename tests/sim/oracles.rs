//! The oracles: each promise, judged from the world's truth, the inputs and the effects, with models
//! of their own. Of the engine only what it shows anybody (status, incidents, counters) is used.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use heeler::engine::effect::Effect;
use heeler::engine::input::{Confirmation, Input};
use heeler::model::action::Action;
use heeler::model::change::Kept;
use heeler::model::check::{Check, CheckKind};
use heeler::model::ids::{CheckIndex, RequestId};
use heeler::model::incident::{Alert, Cause};
use heeler::model::intent::Desired;
use heeler::model::job::{Job, JobKind};
use heeler::model::limits;
use heeler::model::memory::Memory;
use heeler::model::metric::{Metric, Value};
use heeler::model::observation::{Observation, Outcome};
use heeler::model::order::{Order, Reply, ReplyResult};
use heeler::model::process::{Identification, ProcessIdentity, Signal};
use heeler::model::service::{Mode, Service};
use heeler::model::status::{Phase, Tally};
use heeler::model::time::Mono;
use heeler::model::tolerance::Tolerance;

use crate::topology::{MEMORY_LIMIT_BYTES, is_modelled};
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

/// One check's tolerance, on its own terms: the verdicts since the window was last emptied.
#[derive(Default)]
struct Model {
    bad: Vec<(Mono, bool)>,
    good: Vec<(Mono, bool)>,
    firing: bool,
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
        self.judge_verified(effects);
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

    // ---- a new configuration -----------------------------------------------------------------

    /// It is defined anew, from `old`: what is known of its checks goes on with those that are kept.
    pub(crate) fn oracles_redefine(&mut self, svc: usize, old: &Service, kept: &[Kept]) {
        let (now, view) = (self.now, self.see(svc));
        let def = self.svcs[svc].def.clone();
        self.oracles.stale_requests(svc);
        let watched = &mut self.oracles.watched[svc];
        let mut before: Vec<_> = watched.models.drain(..).map(Some).collect();
        let models = def.checks.iter().zip(kept).map(|(check, kept)| {
            let counted = |check: &Check| (check.condition.clone(), check.tolerance, check.recover);
            let (place, same) = match kept {
                Kept::New => return Model::default(),
                Kept::Same(place) => (usize::from(place.0), true),
                Kept::Other(place) => (usize::from(place.0), false),
            };
            let model = before[place].take().expect("each is kept once");
            match same && counted(&old.checks[place]) == counted(check) {
                true => model,
                false => Model { firing: model.firing, ..Model::default() },
            }
        });
        watched.models = models.collect();
        // What its rules did before is not what an operator wished.
        watched.wish = watched.wish.filter(|wish| view.is_some_and(|view| view.desired == *wish));
        watched.starts.clear();
        watched.stop_timeouts.push((now, def.stop_timeout));
    }

    /// It goes on under another name.
    pub(crate) fn oracles_part(&mut self, svc: usize) {
        self.oracles.stale_requests(svc);
        let watched = &mut self.oracles.watched[svc];
        (watched.view, watched.old) = (None, None);
    }

    /// Nobody watches it any more, and nothing is remembered.
    pub(crate) fn oracles_forget(&mut self, svc: usize) {
        self.oracles.stale_requests(svc);
        let watched = &mut self.oracles.watched[svc];
        (watched.view, watched.old, watched.wish) = (None, None, None);
        (watched.credit, watched.last_start) = (false, None);
        watched.starts.clear();
        watched.untold.clear();
        for model in &mut watched.models {
            *model = Model::default();
        }
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

    // ---- 4: tolerance ------------------------------------------------------------------------

    fn judge_sample(&mut self, svc: usize, view: View, seen: &Observation) {
        let def = self.svcs[svc].def.clone();
        let acting = view.phase == Phase::Watching && view.desired == Desired::Up;
        let bytes = seen.reading(&Metric::Memory).map(|reading| reading.value());
        if acting && view.main.is_some() && seen.outcome == Outcome::Ok && def.checks.len() == 1 {
            let bad = bytes > Some(Value::Bytes(MEMORY_LIMIT_BYTES));
            let check = &def.checks[0];
            let model = &mut self.oracles.watched[svc].models[0];
            model.push(self.now, bad, (check.tolerance, check.recover), check.every);
        }
        if !is_modelled(&def) {
            return;
        }
        let check = &def.checks[0];
        let cause = Cause::Check(check.kind, check.index);
        let engine = self.engine.as_ref().expect("it was just asked");
        let fires = engine
            .incidents(&def.name)
            .iter()
            .any(|incident| incident.closed.is_none() && incident.cause == cause);
        // What is not wanted up is not judged.
        let wanted = self.see(svc).is_some_and(|view| view.desired == Desired::Up);
        let model = self.oracles.watched[svc].models[0].firing && wanted;
        if fires != model {
            let text =
                format!("{} {}: fires {fires}, should {model}", check.label, check.tolerance);
            self.broken(4, Some(svc), &text);
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

    // ---- 9, 6: answers -----------------------------------------------------------------------

    pub(crate) fn judge_answer(&mut self, request: RequestId, reply: &Reply) {
        let now = self.now;
        if let Some((svc, again)) = self.crew_oracles.answered(request, now) {
            if again {
                self.broken(9, Some(svc), &format!("{request} answered again: {reply:?}"));
            }
            return;
        }
        let Some(asked) = self.oracles.requests.get_mut(&request) else {
            self.broken(9, None, &format!("nobody asked {request}: {reply:?}"));
        };
        asked.answers += 1;
        let svc = asked.svc;
        if asked.answers > 1 {
            self.broken(9, Some(svc), &format!("{request} answered again: {reply:?}"));
        }
    }

    /// The answer has reached the operator: what it says holds from now on.
    pub(crate) fn answered(&mut self, request: RequestId, reply: &Reply) {
        self.report.answers += 1;
        let Some(asked) = self.oracles.requests.get(&request) else {
            return;
        };
        let newest = self
            .oracles
            .requests
            .iter()
            .rfind(|(_, other)| other.svc == asked.svc)
            .is_some_and(|(newest, _)| *newest == request);
        if reply.result == ReplyResult::Done && newest && !asked.stale {
            let wish = match asked.order {
                Order::Start | Order::Restart | Order::Monitor => Some(Desired::Up),
                Order::Stop => Some(Desired::Down),
                Order::Unmonitor => Some(Desired::Unmonitored),
                // It says nothing about what is wanted.
                Order::Reload => return,
            };
            self.oracles.watched[asked.svc].wish = wish;
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

    // ---- 9, 10, 11: the end ------------------------------------------------------------------

    pub(crate) fn judge_the_end(&mut self) {
        self.note(|| "END".to_owned());
        if self.engine.is_none() {
            self.broken(11, None, "there is no keeper at the end");
        }
        for (request, asked) in &self.oracles.requests {
            if asked.answers == 0 && !asked.excused {
                let text = format!("{:?} ({request}) was never answered", asked.order);
                self.broken(9, Some(asked.svc), &text);
            }
        }
        self.judge_the_end_of_crews();
        for svc in 0..self.svcs.len() {
            // It went again while the mail that says it is down was still true.
            let told = self.engine.as_ref().is_some_and(|engine| {
                engine.incidents(&self.svcs[svc].def.name).iter().any(|incident| {
                    incident.cause == Cause::Down && incident.closed.is_none() && incident.told > 0
                })
            });
            // What may be a parent's doing is told by the parent's mail.
            let alone = self.svcs[svc].def.depends_on.is_empty();
            if let Some(at) = self.oracles.watched[svc].untold.first()
                && !told
                && alone
            {
                let ago = self.now.since(*at);
                self.broken(10, Some(svc), &format!("a death {ago:?} ago was never told"));
            }
            self.judge_calm(svc);
        }
    }

    /// Whether a service it needs is not there to be built on.
    fn held_back(&self, svc: usize) -> bool {
        self.svcs[svc].def.depends_on.iter().any(|parent| {
            let at = self.index(parent);
            let fires = self.engine.as_ref().is_some_and(|engine| {
                let incidents = engine.incidents(parent);
                incidents
                    .iter()
                    .any(|one| one.closed.is_none() && matches!(one.cause, Cause::Check(..)))
            });
            self.see(at).is_some_and(|view| match view.desired {
                Desired::Unmonitored => false,
                Desired::Down => true,
                Desired::Up => view.main.is_none() || fires,
            })
        })
    }

    fn judge_calm(&mut self, svc: usize) {
        let def = self.svcs[svc].def.clone();
        let Some(view) = self.see(svc) else { return };
        if let Some(job) = &self.svcs[svc].job {
            self.broken(11, Some(svc), &format!("a job is left: {job:?}"));
        }
        let mains = self.mains(svc);
        let able = def.startable() && def.mode == Mode::Active && !self.held_back(svc);
        let fine = match view.desired {
            Desired::Up => mains.len() == 1 && view.main == mains.first().copied() || !able,
            Desired::Down | Desired::Unmonitored => view.main == mains.first().copied(),
        };
        let resting = matches!(view.phase, Phase::Watching | Phase::StartPeriod);
        if !fine || !resting {
            let text = format!("after the calm: {view:?}, and there are {mains:?}");
            self.broken(11, Some(svc), &text);
        }
        let engine = self.engine.as_ref().expect("it was there");
        let down = !able && mains.is_empty();
        for incident in engine.incidents(&def.name) {
            let may_stay = match incident.cause {
                Cause::SetAside | Cause::UpUnwanted => true,
                Cause::Down => down,
                // Hazards are of the world outside; nothing in here mends them.
                Cause::Unclear
                | Cause::Unkillable
                | Cause::Definition
                | Cause::StuckWorker
                | Cause::Hazard(_) => false,
                // Of some workers nothing makes an end: they get old, or nobody may take them away.
                Cause::Check(CheckKind::Worker, _) => true,
                Cause::Check(..) | Cause::CheckUnknown(..) => down,
            };
            if incident.closed.is_none() && !may_stay {
                let text = format!("left open: {:?} {}", incident.cause, incident.title);
                self.broken(11, Some(svc), &text);
            }
        }
    }
}

impl Model {
    fn push(&mut self, now: Mono, bad: bool, (to, back): (Tolerance, Tolerance), every: Duration) {
        self.bad.push((now, bad));
        self.good.push((now, !bad));
        if !self.firing && met(&self.bad, to, every) {
            (self.firing, self.bad, self.good) = (true, Vec::new(), Vec::new());
        } else if self.firing && met(&self.good, back, every) {
            (self.firing, self.bad, self.good) = (false, Vec::new(), Vec::new());
        } else if self.firing && met(&self.bad, to, every) {
            self.bad.clear();
        }
    }
}

/// The definition: N of the last M, the last one being one of them; or every one for so long, at least
/// two, without a gap of over two intervals (and a half: looks are not on time to the nanosecond).
fn met(verdicts: &[(Mono, bool)], tolerance: Tolerance, every: Duration) -> bool {
    let Some((now, true)) = verdicts.last().copied() else {
        return false;
    };
    match tolerance {
        Tolerance::Times { n, m } => {
            let recent = verdicts.iter().rev().take(usize::from(m));
            recent.filter(|(_, is)| *is).count() >= usize::from(n)
        }
        Tolerance::Lasting(span) => {
            let mut first = now;
            let mut count = 0;
            for (at, is) in verdicts.iter().rev() {
                if !is || first.since(*at) > every * 2 + every / 2 {
                    break;
                }
                first = *at;
                count += 1;
            }
            count >= 2 && now.since(first) >= span
        }
    }
}
