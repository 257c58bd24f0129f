//! The promises about workers, judged from what the keeper was told and what it then did.
#![expect(clippy::wildcard_enum_match_arm, reason = "they look at what is about workers alone")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use heeler::engine::effect::Effect;
use heeler::engine::input::{Delivery, Input};
use heeler::model::action::Action;
use heeler::model::check::CheckKind;
use heeler::model::crew::{Duty, Member};
use heeler::model::ids::RequestId;
use heeler::model::intent::Desired;
use heeler::model::job::JobKind;
use heeler::model::limits;
use heeler::model::order::WorkerPick;
use heeler::model::process::{Ours, ProcessIdentity, Signal};
use heeler::model::service::Mode;
use heeler::model::time::Mono;
use heeler::model::workers::Kill;

use crate::oracles::{Judged, View};
use crate::world::{World, kills};

/// What a reload that goes back may need beyond the time it was given: the job that turns the link, Puma's
/// own time, answers that never come.
const GOES_BACK: Duration = Duration::from_secs(300);

/// What one may need beyond its time that nobody takes back: the clock may have jumped meanwhile.
const ENDS: Duration = Duration::from_secs(120);

/// What was known and done, by service.
#[derive(Default)]
pub(crate) struct CrewOracles {
    seen: BTreeMap<usize, Seen>,
    requests: BTreeMap<RequestId, Asked>,
    told: BTreeMap<ProcessIdentity, Told>,
    /// Since when its master waits for it, also of one that is gone.
    awaited: BTreeMap<ProcessIdentity, Mono>,
    /// Those that the engine was told are gone.
    gone: BTreeMap<ProcessIdentity, Mono>,
    /// When a worker was begun to be taken away, and how many were there.
    taken: Vec<Taking>,
}

/// The last look that told anything.
struct Seen {
    main: ProcessIdentity,
    members: Vec<Member>,
}

struct Taking {
    svc: usize,
    main: ProcessIdentity,
    worker: ProcessIdentity,
    at: Mono,
    there: usize,
}

#[derive(Default)]
struct Told {
    term: Option<Mono>,
    last: Option<(Mono, Signal)>,
    refused: bool,
}

struct Asked {
    svc: usize,
    pick: Option<WorkerPick>,
    at: Mono,
    within: Duration,
    answered: Option<Mono>,
    /// Other orders came meanwhile, or its keeper is gone.
    disturbed: bool,
    excused: bool,
}

impl CrewOracles {
    pub(crate) fn was_told(&self, who: ProcessIdentity) -> bool {
        self.told.contains_key(&who)
    }

    pub(crate) fn awaits(&mut self, who: ProcessIdentity, now: Mono) {
        self.awaited.entry(who).or_insert(now);
    }

    pub(crate) fn keeper_killed(&mut self) {
        self.seen.clear();
        self.taken.clear();
        for asked in self.requests.values_mut() {
            asked.excused = true;
        }
        // What an earlier keeper did is unknown to the next one, which begins with TERM.
        for told in self.told.values_mut() {
            *told = Told::default();
        }
    }

    /// An ordinary order: what follows may be its doing.
    pub(crate) fn ordered(&mut self, svc: usize) {
        for asked in self.requests.values_mut().filter(|asked| asked.svc == svc) {
            asked.disturbed = true;
        }
    }

    /// Whether it was one of these.
    pub(crate) fn answered(&mut self, request: RequestId, now: Mono) -> Option<(usize, bool)> {
        let asked = self.requests.get_mut(&request)?;
        let again = asked.answered.replace(now).is_some();
        Some((asked.svc, again))
    }

    fn open(&self, svc: usize) -> impl Iterator<Item = &Asked> {
        self.requests
            .values()
            .filter(move |asked| asked.svc == svc && asked.answered.is_none() && !asked.excused)
    }
}

impl World {
    pub(crate) fn crew_request(
        &mut self,
        svc: usize,
        pick: Option<WorkerPick>,
        within: Duration,
    ) -> Option<RequestId> {
        self.engine.as_ref()?;
        let request = self.new_request();
        let at = self.now;
        let asked =
            Asked { svc, pick, at, within, answered: None, disturbed: false, excused: false };
        self.crew_oracles.requests.insert(request, asked);
        Some(request)
    }

    /// What the engine is about to hear.
    pub(crate) fn crew_hears(&mut self, judged: &Judged) {
        let now = self.now;
        match &judged.input {
            Input::CrewSeen { service, seen: Ok(muster), .. } if judged.accepted => {
                let svc = self.index(service);
                let Some(main) = judged.main_of(svc) else { return };
                let members = muster.members.clone();
                // Those of an old look may be known to be gone since.
                self.crew_oracles.seen.insert(svc, Seen { main, members });
            }
            Input::Exited { identity, .. } => {
                self.crew_oracles.gone.entry(*identity).or_insert(now);
            }
            Input::WorkerSignalled { result, service, .. } if judged.accepted => {
                let svc = self.index(service);
                let taking = self.crew_oracles.taken.iter().rfind(|one| one.svc == svc);
                let Some(worker) = taking.map(|one| one.worker) else { return };
                match result {
                    Delivery::Sent => {}
                    Delivery::Gone => {
                        self.crew_oracles.gone.entry(worker).or_insert(now);
                    }
                    Delivery::Refused(_) => {
                        self.crew_oracles.told.entry(worker).or_default().refused = true;
                    }
                }
            }
            _ => {}
        }
    }

    // ---- 13: signals to workers ---------------------------------------------------------------

    pub(crate) fn judge_worker_signal(
        &mut self,
        svc: usize,
        main: ProcessIdentity,
        who: ProcessIdentity,
        signal: Signal,
    ) {
        let now = self.now;
        let def = self.svcs[svc].def.clone();
        let view = self.view(svc);
        let Some(workers) = &def.workers else {
            self.broken(13, Some(svc), "it has no workers to signal");
        };
        let oracles = &self.crew_oracles;
        let seen = oracles.seen.get(&svc).filter(|seen| seen.main == main);
        let Some(seen) = seen.filter(|_| view.and_then(|view| view.main) == Some(main)) else {
            self.broken(13, Some(svc), &format!("{signal:?} to {who:?} of another main process"));
        };
        let member = seen.members.iter().find(|one| one.identity == who);
        let Some(member) = member.filter(|one| one.ours == Ours::Proved) else {
            self.broken(13, Some(svc), &format!("{signal:?} to {who:?}, no proved worker"));
        };
        let gone = |one: &ProcessIdentity| oracles.gone.contains_key(one);
        if gone(&who) {
            self.broken(13, Some(svc), &format!("{signal:?} to {who:?}, known to be gone"));
        }
        let told = oracles.told.get(&who);
        let last = told.and_then(|told| told.last);
        let limit = workers.stop_timeout.unwrap_or(def.stop_timeout);
        // A KILL after a TERM ends what that began.
        let follows = kills(signal)
            && last.is_some_and(|(_, last)| !kills(last))
            && oracles
                .taken
                .iter()
                .rfind(|one| one.svc == svc)
                .is_some_and(|one| one.worker == who);
        let asked = |asked: &Asked| match asked.pick {
            Some(WorkerPick::Pid(pid)) => who.pid == pid,
            Some(WorkerPick::Stuck) => true,
            None => false,
        };
        let by_operator = oracles.open(svc).any(asked);
        if kills(signal) {
            let by_term = told.and_then(|told| told.term);
            let by_master = oracles.awaited.get(&who).copied();
            let word = workers.stop_timeout.is_none()
                && by_master.is_some()
                && oracles.open(svc).any(|one| one.pick == Some(WorkerPick::Stuck));
            let since = by_term.into_iter().chain(by_master).min();
            if since.is_none_or(|since| now.since(since) < limit) && !word {
                let waited = since.map(|since| now.since(since));
                self.broken(14, Some(svc), &format!("KILL to worker {who:?} after {waited:?}"));
            }
            if member.fragile.is_some() || workers.kill != Kill::Allowed {
                self.broken(14, Some(svc), &format!("KILL to {who:?}, which takes others along"));
            }
        }
        let rule = !by_operator && !oracles.awaited.contains_key(&who);
        if !follows && rule && self.is_under_way(svc, &BTreeSet::new()) {
            let text = format!("a rule takes {who:?} while a verified reload is under way");
            self.broken(18, Some(svc), &text);
        }
        if !follows {
            let others = || seen.members.iter().filter(|one| one.identity != who);
            let serving =
                others().filter(|one| one.duty == Duty::Serves && !gone(&one.identity)).count();
            if serving < usize::try_from(workers.min).expect("small") {
                let text =
                    format!("{signal:?} to {who:?}: {serving} would serve of {}", workers.min);
                self.broken(15, Some(svc), &text);
            }
            if let Some(one) = others().find(|one| one.duty == Duty::Boots) {
                let text = format!("{signal:?} to {who:?} while {:?} boots", one.identity);
                self.broken(15, Some(svc), &text);
            }
            let there = 1 + others().filter(|one| !gone(&one.identity)).count();
            self.judge_taking(svc, main, who, there, by_operator);
            let taking = Taking { svc, main, worker: who, at: now, there };
            self.crew_oracles.taken.push(taking);
        }
        let told = self.crew_oracles.told.entry(who).or_default();
        told.last = Some((now, signal));
        if !kills(signal) {
            told.term.get_or_insert(now);
        }
    }

    /// One at a time, within the budget, only where somebody may.
    fn judge_taking(
        &self,
        svc: usize,
        main: ProcessIdentity,
        who: ProcessIdentity,
        there: usize,
        by_operator: bool,
    ) {
        let now = self.now;
        let def = &self.svcs[svc].def;
        let workers = def.workers.as_ref().expect("it has some");
        let oracles = &self.crew_oracles;
        let mine = || oracles.taken.iter().filter(|one| one.svc == svc);
        let limit = workers.stop_timeout.unwrap_or(def.stop_timeout).min(limits::KILL_TIMEOUT);
        for one in mine().filter(|one| one.main == main && one.worker != who) {
            match oracles.gone.get(&one.worker) {
                None => {
                    let told = &oracles.told[&one.worker];
                    let seen = oracles.seen[&svc].members.iter();
                    let is_there = seen.clone().any(|member| member.identity == one.worker);
                    let fresh = told.last.is_some_and(|(at, _)| now.since(at) < limit);
                    if is_there && fresh && !told.refused {
                        let text = format!("{who:?} is told to go while {:?} goes", one.worker);
                        self.broken(16, Some(svc), &text);
                    }
                }
                Some(at) => {
                    if now.since(*at) < limits::CREW_SHORT_MAX && there < one.there {
                        let text = format!("{who:?} goes before {:?} has a successor", one.worker);
                        self.broken(16, Some(svc), &text);
                    }
                }
            }
        }
        if by_operator {
            return;
        }
        let window = workers.budget.window;
        let recent = mine().filter(|one| now.since(one.at) < window).count();
        if recent >= usize::try_from(workers.budget.actions).expect("small") {
            let text = format!("{who:?} is beyond the budget of {}", workers.budget);
            self.broken(17, Some(svc), &text);
        }
        let desired = self.view(svc).map(|view| view.desired);
        if def.mode == Mode::Observe || desired != Some(Desired::Up) {
            let text = format!("a rule takes {who:?} away: {:?}, {desired:?}", def.mode);
            self.broken(12, Some(svc), &text);
        }
    }

    // ---- 18: verified reloads -----------------------------------------------------------------

    /// While one is under way, no rule of the service acts: nothing but what operators ask for is done to
    /// its main process, no command of a rule runs, and nobody sets it aside.
    pub(crate) fn judge_verified(&self, judged: &Judged, effects: &[Effect]) {
        let mut over = BTreeSet::new();
        for effect in effects {
            let (service, what) = match effect {
                Effect::Answer { request, .. } => {
                    over.insert(*request);
                    continue;
                }
                Effect::Run(job) => match job.kind {
                    JobKind::Stop | JobKind::Restart | JobKind::Reload => {
                        (&job.service, format!("{:?}", job.kind))
                    }
                    JobKind::Exec
                        if job.command.argv.first().is_some_and(|word| **word == *"/bin/exec") =>
                    {
                        (&job.service, "the command of a rule".to_owned())
                    }
                    JobKind::Exec
                    | JobKind::Start
                    | JobKind::Instance
                    | JobKind::Look
                    | JobKind::Ask
                    | JobKind::Probe(_) => continue,
                },
                Effect::Signal { service, identity, signal, .. } => {
                    let svc = self.index(service);
                    if !self.mains(svc).contains(identity) {
                        continue;
                    }
                    (service, format!("{signal:?}"))
                }
                Effect::Identify { .. }
                | Effect::Hold { .. }
                | Effect::Unwatch { .. }
                | Effect::Confirm { .. }
                | Effect::Survey { .. }
                | Effect::Sample { .. }
                | Effect::LookAtCrew { .. }
                | Effect::AskPuma { .. }
                | Effect::SignalWorker { .. }
                | Effect::Probe { .. }
                | Effect::RecordLadder { .. }
                | Effect::RemoveStalePidfile { .. }
                | Effect::Persist { .. }
                | Effect::Alert(_)
                | Effect::Event(_)
                | Effect::Log { .. } => continue,
            };
            let svc = self.index(service);
            if self.is_under_way(svc, &over) {
                let text = format!("{what} while a verified reload is under way");
                self.broken(18, Some(svc), &text);
            }
        }
        if let Some((svc, old)) = judged.before
            && let Some(view) = self.view(svc)
            && view.desired != old.desired
            && self.is_under_way(svc, &over)
        {
            let text = format!("{:?} while a verified reload is under way", view.desired);
            self.broken(18, Some(svc), &text);
        }
    }

    /// Whether one is, beside those that were just answered, and nothing else was asked for meanwhile.
    fn is_under_way(&self, svc: usize, over: &BTreeSet<RequestId>) -> bool {
        self.svcs[svc].def.depends_on.is_empty()
            && self.crew_oracles.requests.iter().any(|(request, one)| {
                one.svc == svc
                    && one.pick.is_none()
                    && one.answered.is_none()
                    && !one.excused
                    && !one.disturbed
                    && one.at < self.now
                    && !over.contains(request)
            })
    }

    pub(crate) fn judge_the_end_of_crews(&self) {
        for asked in self.crew_oracles.requests.values() {
            let limit = match asked.pick {
                Some(_) => limits::ASK_TIMEOUT * 4,
                None if self.goes_back(asked.svc) => asked.within + GOES_BACK,
                None => asked.within + ENDS,
            };
            let end = asked.answered.unwrap_or(self.now);
            let late = end.since(asked.at) > limit;
            if late && !asked.excused {
                let text = format!("{:?} had no answer within {limit:?}", asked.pick);
                self.broken(9, Some(asked.svc), &text);
            }
        }
        for svc in self.crews.masters.keys() {
            self.judge_bad_workers(*svc);
        }
    }

    fn goes_back(&self, svc: usize) -> bool {
        self.svcs[svc].def.puma.as_ref().is_some_and(|puma| puma.rollback.is_some())
    }

    /// In a healthy, quiet world a bad worker is finally gone, where anybody may take it.
    fn judge_bad_workers(&self, svc: usize) {
        let def = &self.svcs[svc].def;
        let Some(View { desired: Desired::Up, main: Some(main), .. }) = self.view(svc) else {
            return;
        };
        let workers = def.workers.as_ref().expect("it has some");
        let size = self.crews.masters[&svc].size;
        let may = usize::try_from(workers.min).expect("small") < size
            && def.mode == Mode::Active
            && def.depends_on.is_empty()
            && self.acts_on_leaks(svc);
        let left: BTreeSet<_> =
            self.workers_of(main).into_iter().filter(|who| self.crews.workers[who].leaks).collect();
        if may && !left.is_empty() {
            self.broken(19, Some(svc), &format!("workers that leak are left: {left:?}"));
        }
    }

    fn acts_on_leaks(&self, svc: usize) -> bool {
        self.svcs[svc].def.checks.iter().any(|check| {
            check.kind == CheckKind::Worker
                && check.label.starts_with("leak")
                && check
                    .then
                    .iter()
                    .any(|then| matches!(then, Action::RecycleWorker | Action::KillWorker))
        })
    }
}
