//! `heeler probe`: checks run once, for a person. What is seen goes nowhere else: no window, no alert, no
//! action, and nothing that a look leaves for the next one is kept.
//!
//! A trial takes the way of the real probe (sampler, file pool, scout, shim), a few at a time. A program
//! never runs twice at once: who asks while it runs gets what that run sees, be it a person or the engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::checks::{self, Files, Past, Probe};
use crate::engine::input::Input;
use crate::keeper::Keeper;
use crate::keeper::samples::{self, needs_of};
use crate::keeper::turn::Done;
use crate::model::check::{Check, CheckKind};
use crate::model::ids::{AskId, CheckIndex, ServiceName};
use crate::model::limits;
use crate::model::observation::{Observation, Outcome, Verdict};
use crate::model::sample::ProcessSample;
use crate::model::service::Service;
use crate::model::text::Untrusted;
use crate::wire::control::{ErrorAnswer, ErrorKind, ProbeAnswer, ProbedCheck, Response};

/// What is to be compared is looked at again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The questions of trials: the engine counts up from the wall clock and gets here in the year 2248.
const FIRST_ASK: u64 = 1 << 63;

/// The trials of the moment.
#[derive(Default)]
pub(super) struct Trials {
    /// Questions and requests so far.
    next: u64,
    open: BTreeMap<u64, Open>,
    /// Who waits for a run beside whoever began it, or in place of the engine.
    waiting: BTreeMap<AskId, Vec<Waiter>>,
    /// Looks that are to be repeated.
    again: Vec<(Instant, u64, Look)>,
    /// What is in the pool.
    in_pool: BTreeSet<Key>,
}

/// Who waits for a run of a check.
enum Waiter {
    /// The engine, by this question.
    Engine(AskId),
    /// A person: this request, this check of it.
    Person(u64, usize),
}

/// One request.
struct Open {
    reply: oneshot::Sender<Response>,
    def: Arc<Service>,
    probes: Vec<Probe>,
    /// Which checks, by their place in the definition, and what each saw.
    checks: Vec<(usize, Option<Arc<Observation>>)>,
    /// What has not begun yet.
    left: VecDeque<Look>,
    /// When each look that has begun is given up on.
    running: Vec<(Instant, Vec<usize>)>,
}

/// A look that serves some of the checks of a request (places in [`Open::checks`]), with what an earlier
/// look of this trial left for it.
enum Look {
    Process(Vec<usize>, Option<ProcessSample>),
    Check(usize, Option<Past>),
}

impl Look {
    fn places(&self) -> Vec<usize> {
        match self {
            Self::Process(places, _) => places.clone(),
            Self::Check(place, _) => vec![*place],
        }
    }
}

/// What a look in the pool brought; nothing where it crashed.
pub(super) struct Tried {
    request: u64,
    key: Key,
    look: Look,
    brought: Option<Brought>,
}

/// Of what a look is: its process, or one check. One of a kind is in the pool at a time, so that one that
/// hangs never becomes two.
type Key = (ServiceName, Option<CheckIndex>);

enum Brought {
    Sample(Result<ProcessSample, Untrusted>),
    Seen(Observation, Option<Past>),
}

impl Keeper {
    /// Runs the checks of a service once, or the one that is named.
    pub(super) fn try_checks(
        &mut self,
        service: &ServiceName,
        which: Option<&str>,
        reply: oneshot::Sender<Response>,
    ) {
        let refuse = |reply: oneshot::Sender<Response>, answer| {
            let _delivered = reply.send(Response::Error(answer));
        };
        let Some(served) = self.services.get(service) else {
            refuse(reply, ErrorAnswer::no_such_service(service.as_str()));
            return;
        };
        let (def, probes) = (Arc::clone(&served.def), served.probes.clone());
        let places: Vec<_> = match which {
            None => (0..def.checks.len()).collect(),
            Some(which) => match find(&def, which) {
                Ok(place) => vec![place],
                Err(why) => {
                    refuse(reply, ErrorAnswer::new(ErrorKind::NoSuchCheck, why));
                    return;
                }
            },
        };
        self.trials.open.retain(|_, open| !open.reply.is_closed());
        if self.trials.open.len() >= limits::TRIALS_MAX {
            let text = "as many probes are asked for as are done at once; try again";
            refuse(reply, ErrorAnswer::new(ErrorKind::Busy, text));
            return;
        }
        let is_process = |place: &usize| {
            def.checks.get(*place).is_some_and(|check| check.kind == CheckKind::Process)
        };
        let of_process: Vec<_> = (0..places.len()).filter(|at| is_process(&places[*at])).collect();
        let others = (0..places.len()).filter(|at| !is_process(&places[*at]));
        let mut left: VecDeque<_> = others.map(|at| Look::Check(at, None)).collect();
        if !of_process.is_empty() {
            // One sample serves all of them.
            left.push_front(Look::Process(of_process, None));
        }
        let checks = places.into_iter().map(|place| (place, None)).collect();
        let open = Open { reply, def, probes, checks, left, running: Vec::new() };
        self.trials.next += 1;
        let request = self.trials.next;
        self.trials.open.insert(request, open);
        self.go_on_trying(request);
    }

    /// Begins what there is room for, and answers when all is seen.
    fn go_on_trying(&mut self, request: u64) {
        while let Some(open) = self.trials.open.get_mut(&request) {
            if open.running.len() >= limits::TRIAL_LOOKS_MAX {
                return;
            }
            let Some(look) = open.left.pop_front() else { break };
            self.try_look(request, look);
        }
        let done = |open: &Open| open.left.is_empty() && open.running.is_empty();
        if self.trials.open.get(&request).is_some_and(done)
            && let Some(open) = self.trials.open.remove(&request)
        {
            let answer = self.tell(&open);
            let _delivered = open.reply.send(Response::Probe(answer));
        }
    }

    fn try_look(&mut self, request: u64, look: Look) {
        let Some(open) = self.trials.open.get_mut(&request) else { return };
        let (def, places) = (Arc::clone(&open.def), look.places());
        let placed = places.first().and_then(|at| open.checks.get(*at)).map(|(place, _)| *place);
        let Some((place, check)) = placed.and_then(|place| Some((place, def.checks.get(place)?)))
        else {
            return;
        };
        let probe = open.probes.get(place).cloned();
        let timeout = match probe {
            Some(Probe::Sample | Probe::Workers) | None => limits::FILE_POOL_DEADLINE,
            Some(Probe::Files(_) | Probe::Network(_) | Probe::Command(_) | Probe::Puma) => {
                check.timeout
            }
        };
        let until = Instant::now() + timeout + 2 * limits::PROBE_QUEUE_MAX + limits::SCOUT_GRACE;
        open.running.push((until, places));
        let name = def.name.clone();
        match (look, probe) {
            (look @ Look::Process(..), _) => self.try_sample(request, name, look),
            (look @ Look::Check(..), Some(Probe::Files(files))) => {
                self.try_files(request, (name, check.index), look, files);
            }
            (Look::Check(at, _), Some(Probe::Network(_) | Probe::Command(_) | Probe::Puma)) => {
                self.try_probe(request, at, name, check.index);
            }
            (Look::Check(at, _), Some(Probe::Workers)) => {
                let text = format!("`heeler workers {name}` shows what it is about");
                self.tried(request, at, Observation::unknown(&text));
            }
            (Look::Check(at, _), Some(Probe::Sample) | None) => {
                let seen = Observation::unknown("it has nothing to probe: this is a bug of heeler");
                self.tried(request, at, seen);
            }
        }
    }

    /// By the scout or a shim; where the program runs already, its end is waited for.
    fn try_probe(&mut self, request: u64, at: usize, service: ServiceName, check: CheckIndex) {
        let waiter = Waiter::Person(request, at);
        if let Some(ask) = self.program_under_way(&service, check) {
            self.trials.waiting.entry(ask).or_default().push(waiter);
            return;
        }
        let ask = self.trial_ask();
        self.trials.waiting.insert(ask, vec![waiter]);
        self.probe(service, check, ask);
    }

    /// The id of a question that is not the engine's.
    pub(super) fn trial_ask(&mut self) -> AskId {
        self.trials.next += 1;
        let began = self.now().wall.0 << 20;
        AskId(FIRST_ASK | began.wrapping_add(self.trials.next))
    }

    /// Whether the engine's question is answered by a run that a person asked for.
    pub(super) fn waits_for_trial(
        &mut self,
        service: &ServiceName,
        check: CheckIndex,
        ask: AskId,
    ) -> bool {
        if ask.0 & FIRST_ASK != 0 {
            return false;
        }
        let run = self.program_under_way(service, check).filter(|run| run.0 & FIRST_ASK != 0);
        if let Some(run) = run {
            self.trials.waiting.entry(run).or_default().push(Waiter::Engine(ask));
        }
        run.is_some()
    }

    /// A probe came back: to whoever waits for it.
    pub(super) fn observed(
        &mut self,
        service: ServiceName,
        check: CheckIndex,
        ask: AskId,
        seen: Observation,
    ) {
        for waiter in self.trials.waiting.remove(&ask).unwrap_or_default() {
            match waiter {
                Waiter::Engine(ask) => {
                    let (service, seen) = (service.clone(), seen.clone());
                    self.inbox.push_back(Input::Observed { service, ask, check, seen });
                }
                Waiter::Person(request, at) => self.tried(request, at, seen.clone()),
            }
        }
        if ask.0 & FIRST_ASK == 0 {
            self.inbox.push_back(Input::Observed { service, ask, check, seen });
        }
    }

    fn try_sample(&mut self, request: u64, service: ServiceName, look: Look) {
        let main = self.engine.status(self.now(), &service).and_then(|status| status.main);
        let open = self.trials.open.get(&request);
        let (Some(main), Some(mut needs)) = (main, open.map(|open| needs_of(&open.def))) else {
            self.tried_all(request, look.places(), &Observation::unknown("it is not running"));
            return;
        };
        // A person wants the number, be it far below the limit.
        needs.pss_above_bytes = needs.pss_above_bytes.map(|_| 0);
        let read = move || Brought::Sample(samples::sample_in_pool(main, needs));
        self.try_in_pool(request, (service, None), look, read);
    }

    fn try_files(
        &mut self,
        request: u64,
        (service, check): (ServiceName, CheckIndex),
        look: Look,
        files: Files,
    ) {
        let past = match &look {
            Look::Check(_, Some(past)) => Some(past.clone()),
            Look::Check(_, None) | Look::Process(..) => None,
        };
        let now = self.now();
        let recall = self.past_of(&service, check, files.clone());
        let read = move || {
            let (seen, past) = files.look(past.or_else(recall), now);
            Brought::Seen(seen, past)
        };
        self.try_in_pool(request, (service, Some(check)), look, read);
    }

    fn try_in_pool(
        &mut self,
        request: u64,
        key: Key,
        look: Look,
        read: impl FnOnce() -> Brought + Send + 'static,
    ) {
        if !self.trials.in_pool.insert(key.clone()) {
            let text = "the last look has not come back yet: does its file system hang? try `df`";
            self.tried_all(request, look.places(), &Observation::unknown(text));
            return;
        }
        self.pool.submit(move || {
            let brought = catch_unwind(AssertUnwindSafe(read)).ok();
            Done::Tried(Tried { request, key, look, brought })
        });
    }

    /// The pool brought something.
    pub(super) fn tried_in_pool(&mut self, tried: Tried) {
        let Tried { request, key, look, brought } = tried;
        self.trials.in_pool.remove(&key);
        let Some(open) = self.trials.open.get(&request) else { return };
        let (def, places) = (Arc::clone(&open.def), look.places());
        let (seen, again) = match (look, brought) {
            (Look::Process(of, before), Some(Brought::Sample(Ok(sample)))) => {
                let seen = checks::process::observe(&sample, before.as_ref(), needs_of(&def));
                (seen, before.is_none().then_some(Look::Process(of, Some(sample))))
            }
            (Look::Process(..), Some(Brought::Sample(Err(why)))) => {
                (Observation::of(Outcome::Unknown(why)), None)
            }
            (Look::Check(at, before), Some(Brought::Seen(seen, past))) => {
                let past = past.filter(|_| before.is_none());
                (seen, past.map(|past| Look::Check(at, Some(past))))
            }
            (Look::Process(..), Some(Brought::Seen(..)) | None)
            | (Look::Check(..), Some(Brought::Sample(_)) | None) => {
                (Observation::unknown("the look crashed: this is a bug of heeler"), None)
            }
        };
        let untold = |at: &usize| {
            let check = open.checks.get(*at).and_then(|(place, _)| def.checks.get(*place));
            check.is_some_and(|check| check.condition.judge(&seen, None) == Verdict::Unknown)
        };
        if seen.outcome == Outcome::Ok
            && places.iter().any(untold)
            && let Some(look) = again
        {
            // A rate has no value yet.
            self.trials.again.push((Instant::now() + AGAIN_AFTER, request, look));
            return;
        }
        self.tried_all(request, places, &seen);
    }

    fn tried_all(&mut self, request: u64, places: Vec<usize>, seen: &Observation) {
        for at in places {
            self.tried(request, at, seen.clone());
        }
    }

    /// One check of a request is done.
    fn tried(&mut self, request: u64, at: usize, seen: Observation) {
        let Some(open) = self.trials.open.get_mut(&request) else { return };
        if let Some((_, slot @ None)) = open.checks.get_mut(at) {
            *slot = Some(Arc::new(seen));
        }
        let undone = |at: &usize| open.checks.get(*at).is_some_and(|(_, seen)| seen.is_none());
        open.running.retain(|(_, of)| of.iter().any(undone));
        self.go_on_trying(request);
    }

    /// What is due by time: second looks, and what nobody waits for any longer.
    pub(super) fn trials_due(&mut self, now: Instant) {
        let (due, later) =
            std::mem::take(&mut self.trials.again).into_iter().partition(|(at, ..)| now >= *at);
        self.trials.again = later;
        let due: Vec<(Instant, u64, Look)> = due;
        for (_, request, look) in due {
            if let Some(open) = self.trials.open.get_mut(&request) {
                let places = look.places();
                open.running.retain(|(_, of)| *of != places);
                self.try_look(request, look);
            }
        }
        let late = |open: &Open| {
            let late = open.running.iter().filter(|(until, _)| now >= *until);
            late.flat_map(|(_, of)| of.clone()).collect::<Vec<_>>()
        };
        let late: Vec<_> = self.trials.open.iter().map(|(id, open)| (*id, late(open))).collect();
        for (request, late) in late {
            let text = "no answer came in time: does its file system hang? try `df`";
            self.tried_all(request, late, &Observation::unknown(text));
        }
    }

    /// When that is due next.
    pub(super) fn trials_wakeup(&self) -> Option<Instant> {
        let untils = self.trials.open.values().flat_map(|open| open.running.iter());
        let untils = untils.map(|(until, _)| *until);
        untils.chain(self.trials.again.iter().map(|(at, ..)| *at)).min()
    }

    fn tell(&self, open: &Open) -> ProbeAnswer {
        let told = open.checks.iter().filter_map(|(place, seen)| {
            let check: &Check = open.def.checks.get(*place)?;
            let seen = seen.as_deref()?;
            let before = self.engine.fingerprint(&open.def.name, check.mark());
            Some(ProbedCheck::new(check, seen, check.condition.judge(seen, before)))
        });
        ProbeAnswer::new(&open.def.name, told.collect())
    }
}

/// The place of the check that is meant: by its label, its number (from 1), or a part of its label that no
/// other has.
fn find(def: &Service, which: &str) -> Result<usize, String> {
    let labels = || def.checks.iter().map(|check| &*check.label);
    if let Some(place) = labels().position(|label| label == which) {
        return Ok(place);
    }
    let number = which.parse::<usize>().ok();
    let place = number.and_then(|number| number.checked_sub(1));
    if let Some(place) = place.filter(|place| *place < def.checks.len()) {
        return Ok(place);
    }
    let part = |label: &str| number.is_none() && label.contains(which);
    let mut parts = labels().enumerate().filter(|(_, label)| part(label));
    match (parts.next(), parts.next()) {
        (Some((place, _)), None) => Ok(place),
        (Some(_), Some(_)) => Err(format!(
            "more than one check of {} is called so: say its number, as `heeler probe {0}` shows it",
            def.name
        )),
        (None, _) => {
            Err(format!("{} has no such check; `heeler probe {0}` shows those it has", def.name))
        }
    }
}
