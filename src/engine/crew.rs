//! The workers of a service: looked at together, judged each by itself, taken away one by one.
//!
//! What a rule knows of a worker follows its identity. One worker at a time is told to go, the oldest
//! first, under the guard and within the budget; the next one's turn comes when a successor serves.

use std::collections::BTreeMap;

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::guard;
use crate::engine::input::Delivery;
use crate::engine::judge::next_slot;
use crate::engine::state::State;
use crate::engine::table::Where;
use crate::engine::tolerance::{Change, Window};
use crate::model::action::Action;
use crate::model::check::CheckKind;
use crate::model::crew::{Leaving, Member};
use crate::model::event::EventKind;
use crate::model::ids::{AskId, CheckIndex, RequestId};
use crate::model::incident::Cause;
use crate::model::intent::{Desired, Who};
use crate::model::limits;
use crate::model::observation::{Observation, Outcome, Verdict};
use crate::model::order::{Reply, ReplyResult, WorkerPick};
use crate::model::process::{Pid, ProcessIdentity, Signal};
use crate::model::service::Mode;
use crate::model::status::RuleState;
use crate::model::text::Untrusted;
use crate::model::time::Mono;
use crate::model::units::show_duration;
use crate::model::workers::{Kill, Workers};

/// What is known of the workers of one service under its present main process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crew {
    asked: Option<(AskId, Mono)>,
    due: Option<Mono>,
    /// As they were seen last.
    members: Vec<Member>,
    hands: BTreeMap<ProcessIdentity, Hand>,
    /// As many are to be there: the most that were, or what is left of them for good.
    wanted: usize,
    /// One that went has no successor since then.
    short_since: Option<Mono>,
    acting: Option<Acting>,
    /// When workers were taken away, oldest first: what the budget counts.
    taken: Vec<Mono>,
    /// Operators who asked for one to go, in their order.
    asked_for: Vec<AskedFor>,
}

/// One worker.
#[derive(Clone, Debug, Default)]
struct Hand {
    /// Of each check, by its place.
    windows: BTreeMap<usize, Window>,
    /// Since when its master waits for it to go.
    awaited_since: Option<Mono>,
    /// It did not go when it was told to: it is not told again.
    deaf: bool,
}

/// A worker is being taken away.
#[derive(Clone, Debug)]
struct Acting {
    worker: ProcessIdentity,
    manner: Manner,
    step: Step,
    began: Mono,
    request: Option<RequestId>,
}

/// Whether it is killed when it does not go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Recycle,
    Kill,
    /// It was told to go by its master, long ago.
    Stuck,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// A signal is on its way.
    Signalling(AskId, Push, Mono),
    /// It was told to go; then its time is over.
    Waiting(Mono),
    /// It was sent KILL.
    Killed(Mono),
}

/// How a worker is made to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Push {
    Term,
    Kill,
}

#[derive(Clone, Debug)]
struct AskedFor {
    request: RequestId,
    pick: WorkerPick,
    until: Mono,
}

/// Whether what a check saw before still counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counted {
    Alike,
    Anew,
}

/// What is to be done, before the guard was asked.
struct Plan {
    worker: ProcessIdentity,
    manner: Manner,
    why: String,
    check: Option<CheckIndex>,
    request: Option<RequestId>,
}

impl Crew {
    /// Another main process: nobody is known.
    pub(super) fn forget(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        *self = Self { taken, asked_for: std::mem::take(&mut self.asked_for), ..Self::default() };
    }

    pub(super) fn next_due(&self) -> Mono {
        let acting = self.acting.as_ref().map(|acting| match acting.step {
            Step::Signalling(_, _, until) | Step::Waiting(until) | Step::Killed(until) => until,
        });
        let asked = self.asked.map(|(_, until)| until);
        let operators = self.asked_for.iter().map(|asked| asked.until);
        operators.chain(acting).chain(asked).chain(self.due).min().unwrap_or(Mono::NEVER)
    }

    /// The state of a check of workers: the worst of theirs.
    pub(super) fn rule_state(&self, check: usize) -> RuleState {
        let states = self.hands.values().filter_map(|hand| hand.windows.get(&check));
        states.map(Window::state).fold(RuleState::Ok, |worst, state| match (worst, state) {
            (RuleState::Firing, _) | (_, RuleState::Firing) => RuleState::Firing,
            (RuleState::Pending, _) | (_, RuleState::Pending) => RuleState::Pending,
            (RuleState::Ok, RuleState::Ok) => RuleState::Ok,
        })
    }
}

impl State {
    /// Whether anything is to be known of workers.
    fn has_crew(&self) -> bool {
        self.def.workers.is_some()
    }

    /// What of the workers is due by time.
    pub(super) fn crew_due(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        if self.crew.asked.is_some_and(|(_, until)| now >= until) {
            self.crew.asked = None;
        }
        self.give_up_on_operators(cx);
        self.worker_late(cx);
        if self.has_crew() && self.crew.due.is_some_and(|due| now >= due) {
            self.look_at_crew(cx);
        }
    }

    /// Looks at them, if they are to be looked at now.
    pub(super) fn look_at_crew(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let up = matches!(self.place(), Where::Present | Where::StartPeriod | Where::Starting);
        let Some(main) = self.main.filter(|_| up && self.has_crew()) else {
            self.crew.due = None;
            return;
        };
        self.crew.due = Some(next_slot(now, self.crew_pace()));
        if self.crew.asked.is_none() {
            let ask = cx.ask();
            self.crew.asked = Some((ask, now + limits::ASK_TIMEOUT));
            let service = self.def.name.clone();
            cx.push(Effect::LookAtCrew { service, ask, main, reloaded: self.reloaded });
        }
    }

    /// As often as the most frequent check of them asks for; sooner while something is under way.
    fn crew_pace(&self) -> std::time::Duration {
        let busy = self.crew.acting.is_some()
            || self.crew.short_since.is_some()
            || !self.crew.asked_for.is_empty()
            || self.crew.members.iter().any(|member| member.leaving == Leaving::Awaited);
        let checks = self.def.checks.iter().filter(|check| check.kind == CheckKind::Worker);
        let pace = checks.map(|check| check.every).fold(self.def.every, std::time::Duration::min);
        if busy { pace.min(limits::CREW_BUSY_PACE) } else { pace }
    }

    /// The look came back.
    pub(super) fn crew_seen(
        &mut self,
        cx: &mut Cx<'_>,
        ask: AskId,
        seen: Result<Vec<Member>, Untrusted>,
    ) {
        if !crate::engine::answers::answers(&mut self.crew.asked, ask, cx) {
            return;
        }
        match seen {
            Ok(members) => {
                self.muster(cx, members);
                self.judge_crew(cx);
                self.answer_unfound(cx);
                self.take_one_away(cx);
            }
            Err(why) => self.crew_unknown(cx, &why),
        }
    }

    /// Who is there now, and who is not any more.
    fn muster(&mut self, cx: &mut Cx<'_>, members: Vec<Member>) {
        let now = cx.now.mono;
        let there = |worker: &ProcessIdentity| members.iter().any(|one| one.identity == *worker);
        if self.crew.acting.as_ref().is_some_and(|acting| !there(&acting.worker)) {
            self.worker_gone(cx);
        }
        self.crew.hands.retain(|worker, _| there(worker));
        for member in &members {
            let hand = self.crew.hands.entry(member.identity).or_default();
            hand.awaited_since = match member.leaving {
                Leaving::Awaited => Some(hand.awaited_since.unwrap_or(now)),
                Leaving::No => None,
            };
        }
        let count = members.len();
        if count >= self.crew.wanted {
            self.crew.wanted = count;
            self.crew.short_since = None;
        } else {
            let since = *self.crew.short_since.get_or_insert(now);
            if now.since(since) >= limits::CREW_SHORT_MAX {
                // Its master means to have fewer, or cannot have more: either way this is how it is.
                let wanted = self.crew.wanted;
                self.narrate(
                    cx,
                    format!("{count} workers where {wanted} were: going on with those"),
                );
                self.crew.wanted = count;
                self.crew.short_since = None;
            }
        }
        self.crew.members = members;
    }

    /// Each check of workers for each worker.
    fn judge_crew(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let def = self.def.clone();
        let acting = self.settled() && self.intent.desired == Desired::Up;
        for (at, check) in def.checks.iter().enumerate() {
            let Some(state) = self.checks.get_mut(at) else { continue };
            if check.kind != CheckKind::Worker || state.due > now {
                continue;
            }
            state.due = next_slot(now, check.every);
            let members = std::mem::take(&mut self.crew.members);
            let mut bad = None;
            let mut told = members.is_empty();
            let mut changes = Vec::new();
            for member in &members {
                let verdict = check.condition.judge(&member.seen, None);
                let Some(hand) = self.crew.hands.get_mut(&member.identity) else { continue };
                let fails = match verdict {
                    Verdict::Unknown => continue,
                    Verdict::Fail => true,
                    Verdict::Pass => false,
                };
                told = true;
                if fails {
                    bad.get_or_insert(member);
                }
                if !acting {
                    continue;
                }
                let window = hand.windows.entry(at).or_default();
                let pair = (check.tolerance, check.recover);
                let change = window.push(now, fails, pair, check.every);
                if change != Change::None {
                    changes.push((member, change));
                }
            }
            // What is shown of the check is the first that is bad, or the first there is.
            let shown = bad.or(members.first()).map(|member| member.seen.clone());
            if let (Some(state), Some(shown)) = (self.checks.get_mut(at), shown) {
                state.last = Some(shown.into());
            }
            let seen = match members.first() {
                Some(member) if !told => (member.seen.clone(), Verdict::Unknown),
                Some(_) | None => (Observation::ok(), Verdict::Pass),
            };
            self.unknowns(cx, at, check, (&seen.0, seen.1));
            for (member, change) in changes {
                match change {
                    Change::None => {}
                    Change::Fired => {
                        let pid = member.identity;
                        let values = check.condition.explain(&member.seen);
                        let title = format!("worker {pid}: {values}, {}", check.tolerance);
                        self.worker_fired(cx, at, title);
                    }
                    Change::StillFiring => self.worker_still(cx, at, member),
                    Change::Resolved => {}
                }
            }
            self.crew.members = members;
            self.close_if_over(cx, at);
        }
    }

    fn worker_fired(&mut self, cx: &mut Cx<'_>, at: usize, title: String) {
        let def = self.def.clone();
        let Some(check) = def.checks.get(at) else { return };
        let acts = check.then.iter().any(|action| !matches!(action, Action::Alert));
        let wait = if acts { limits::TELL_AFTER } else { std::time::Duration::ZERO };
        let cause = Cause::Check(check.kind, check.index);
        self.open_incident(cx, cause, title, cx.now.mono + wait);
        for action in &check.then {
            self.act(cx, check, action);
        }
    }

    fn worker_still(&mut self, cx: &mut Cx<'_>, at: usize, member: &Member) {
        let def = self.def.clone();
        let Some(check) = def.checks.get(at) else { return };
        if let Some(open) = self.open.get_mut(&Cause::Check(check.kind, check.index)) {
            let values = check.condition.explain(&member.seen);
            open.record.tell(cx.now.wall, format!("worker {} still: {values}", member.identity));
            cx.dirty = true;
        }
        for action in check.then.iter().filter(|action| action.repeats()) {
            self.act(cx, check, action);
        }
    }

    /// The incident of a check of workers is over when it fires for none of them.
    fn close_if_over(&mut self, cx: &mut Cx<'_>, at: usize) {
        let def = self.def.clone();
        let Some(check) = def.checks.get(at) else { return };
        let cause = Cause::Check(check.kind, check.index);
        if !self.open.contains_key(&cause) || self.crew.rule_state(at) == RuleState::Firing {
            return;
        }
        let acting = self.settled() && self.intent.desired == Desired::Up;
        if acting && self.crew.acting.is_none() {
            self.resolve(cx, cause, "no worker is like that any more");
            for action in &check.on_recovery {
                self.act(cx, check, action);
            }
        }
    }

    fn crew_unknown(&mut self, cx: &mut Cx<'_>, why: &Untrusted) {
        let def = self.def.clone();
        let seen = Observation::of(Outcome::Unknown(why.clone()));
        for (at, check) in def.checks.iter().enumerate() {
            if check.kind == CheckKind::Worker {
                self.unknowns(cx, at, check, (&seen, Verdict::Unknown));
            }
        }
    }

    // ---- taking one away ----------------------------------------------------------------------

    /// Tells the next worker to go, if there is reason to and nothing against it.
    fn take_one_away(&mut self, cx: &mut Cx<'_>) {
        if self.crew.acting.is_some() || !self.has_crew() {
            return;
        }
        let Some(plan) = self.next_to_go(cx) else { return };
        let by_operator = plan.request.is_some();
        let may_act = self.settled() && self.intent.desired == Desired::Up;
        if !by_operator && (!may_act || self.held_back().is_some()) {
            return;
        }
        let Some(workers) = self.def.workers.clone() else { return };
        let min = usize::try_from(workers.min).unwrap_or(usize::MAX);
        let wanted = self.crew.wanted;
        if let Err(refusal) = guard::may_go(&self.crew.members, plan.worker, min, wanted) {
            self.held(cx, &plan, &refusal.to_string());
            return;
        }
        if !by_operator && self.def.mode == Mode::Observe {
            let text = format!("would tell worker {} to go, but mode is \"observe\"", plan.worker);
            self.narrate_new(cx, text);
            return;
        }
        if !by_operator && !self.within_budget(cx.now.mono, &workers) {
            self.held(cx, &plan, &format!("the budget of {} is used up", workers.budget));
            return;
        }
        self.begin_to_go(cx, plan, &workers);
    }

    /// Whose turn it is: those operators asked for, then the one its master waits for in vain, then those
    /// that rules fire for, the oldest first.
    fn next_to_go(&mut self, cx: &mut Cx<'_>) -> Option<Plan> {
        let now = cx.now.mono;
        let by_age = {
            let mut members: Vec<_> = self.crew.members.iter().collect();
            members.sort_by_key(|member| (std::cmp::Reverse(member.age_ms), member.identity));
            members
        };
        let stuck = |member: &&&Member| self.is_stuck(member, now);
        for asked in &self.crew.asked_for {
            let found = match asked.pick {
                WorkerPick::Pid(pid) => by_age.iter().find(|member| member.identity.pid == pid),
                WorkerPick::Stuck => by_age.iter().find(stuck),
            };
            if let Some(member) = found {
                let manner = match asked.pick {
                    WorkerPick::Pid(_) => Manner::Kill,
                    WorkerPick::Stuck => Manner::Stuck,
                };
                return Some(Plan {
                    worker: member.identity,
                    manner,
                    why: "an operator asked for it".to_owned(),
                    check: None,
                    request: Some(asked.request),
                });
            }
        }
        if let Some(member) = by_age.iter().find(stuck) {
            let since = self.crew.hands.get(&member.identity).and_then(|hand| hand.awaited_since);
            let waited = show_duration(now.since(since.unwrap_or(now)));
            return Some(Plan {
                worker: member.identity,
                manner: Manner::Stuck,
                why: format!("its master has waited for it for {waited}"),
                check: None,
                request: None,
            });
        }
        by_age.iter().find_map(|member| self.rule_against(member))
    }

    /// Whether it was told to go by its master longer ago than the service gives it. Where the service says
    /// nothing, a long drain that somebody configured is not a hang.
    fn is_stuck(&self, member: &Member, now: Mono) -> bool {
        let timeout = self.def.workers.as_ref().and_then(|workers| workers.stop_timeout);
        let hand = self.crew.hands.get(&member.identity);
        let since = hand.filter(|hand| !hand.deaf).and_then(|hand| hand.awaited_since);
        timeout.zip(since).is_some_and(|(timeout, since)| now.since(since) >= timeout)
    }

    /// The first rule that fires for it and asks for it to go.
    fn rule_against(&self, member: &Member) -> Option<Plan> {
        let hand = self.crew.hands.get(&member.identity).filter(|hand| !hand.deaf)?;
        self.def.checks.iter().enumerate().find_map(|(at, check)| {
            let firing =
                hand.windows.get(&at).is_some_and(|window| window.state() == RuleState::Firing);
            let manner = check.then.iter().find_map(|action| match action {
                Action::RecycleWorker => Some(Manner::Recycle),
                Action::KillWorker => Some(Manner::Kill),
                Action::Alert
                | Action::Start
                | Action::Stop
                | Action::Restart
                | Action::Reload
                | Action::Exec(_)
                | Action::Unmonitor => None,
            });
            Some(Plan {
                worker: member.identity,
                manner: manner.filter(|_| firing)?,
                why: check.condition.explain(&member.seen),
                check: Some(check.index),
                request: None,
            })
        })
    }

    /// It is said once that a worker stays, and an alert tells it.
    fn held(&mut self, cx: &mut Cx<'_>, plan: &Plan, why: &str) {
        let text = format!("worker {} is held back: {why}", plan.worker);
        self.happened_new(cx, EventKind::Failed, text);
        if let Some(request) = plan.request {
            self.answer_for_worker(cx, request, ReplyResult::Failed, format!("not done: {why}"));
        }
        if let Some(index) = plan.check {
            self.tell_soon(cx, Cause::Check(CheckKind::Worker, index));
        }
    }

    fn within_budget(&mut self, now: Mono, workers: &Workers) -> bool {
        self.crew.taken.retain(|at| now.since(*at) < workers.budget.window);
        self.crew.taken.len() < usize::try_from(workers.budget.actions).unwrap_or(usize::MAX)
    }

    fn begin_to_go(&mut self, cx: &mut Cx<'_>, plan: Plan, workers: &Workers) {
        let now = cx.now.mono;
        self.crew.taken.push(now);
        let Plan { worker, manner, why, request, .. } = plan;
        let (push, text) = match (manner, workers.kill) {
            // It has had its time; where a KILL would hurt more than one it gets another TERM.
            (Manner::Stuck, Kill::Allowed) => {
                (Push::Kill, format!("killing worker {worker}: {why}"))
            }
            (Manner::Recycle | Manner::Kill | Manner::Stuck, _) => {
                (Push::Term, format!("telling worker {worker} to go: {why}"))
            }
        };
        self.happened(cx, EventKind::Acted, text);
        let step = self.push_worker(cx, worker, push);
        self.crew.acting = Some(Acting { worker, manner, step, began: now, request });
    }

    /// Sends a worker its signal. Answers what is waited for.
    fn push_worker(&mut self, cx: &mut Cx<'_>, worker: ProcessIdentity, push: Push) -> Step {
        let now = cx.now.mono;
        // Without a main process there are no workers of one: its time is over at once.
        let Some(main) = self.main else { return Step::Killed(now) };
        let ask = cx.ask();
        let service = self.def.name.clone();
        let (signal, why) = match push {
            Push::Term => (Signal::Term, "worker"),
            Push::Kill => (Signal::Kill, "worker that did not go"),
        };
        cx.push(Effect::SignalWorker { service, ask, main, worker, signal, why });
        Step::Signalling(ask, push, now + limits::ASK_TIMEOUT)
    }

    /// A signal to a worker was sent, or was not.
    pub(super) fn worker_signalled(
        &mut self,
        cx: &mut Cx<'_>,
        ask: AskId,
        result: &Delivery,
        evidence: Option<&Untrusted>,
    ) {
        let now = cx.now.mono;
        let timeout = self.worker_stop_timeout();
        let Some(acting) = &mut self.crew.acting else {
            cx.counters.dropped_answers += 1;
            return;
        };
        let Step::Signalling(awaited, push, _) = acting.step else {
            cx.counters.dropped_answers += 1;
            return;
        };
        if awaited != ask {
            cx.counters.dropped_answers += 1;
            return;
        }
        let worker = acting.worker;
        match result {
            Delivery::Sent => {
                acting.step = match push {
                    Push::Kill => Step::Killed(now + limits::KILL_TIMEOUT),
                    Push::Term => Step::Waiting(now + timeout),
                };
                if let Some(evidence) = evidence {
                    self.narrate(cx, format!("worker {worker} before its KILL: {evidence}"));
                }
                self.crew.due = Some(now + limits::CREW_BUSY_PACE);
            }
            Delivery::Gone => self.worker_gone(cx),
            Delivery::Refused(why) => {
                let text = format!("worker {worker} was not told to go: {why}");
                self.happened(cx, EventKind::Failed, text.clone());
                self.deaf(worker);
                self.end_acting(cx, ReplyResult::Failed, text);
            }
        }
    }

    fn worker_stop_timeout(&self) -> std::time::Duration {
        let of_workers = self.def.workers.as_ref().and_then(|workers| workers.stop_timeout);
        of_workers.unwrap_or(self.def.stop_timeout)
    }

    /// A worker that was watched is gone. Answers whether it was one.
    pub(super) fn worker_exited(&mut self, cx: &mut Cx<'_>, identity: ProcessIdentity) -> bool {
        let ours = self.crew.acting.as_ref().is_some_and(|acting| acting.worker == identity);
        if ours {
            self.worker_gone(cx);
        }
        ours
    }

    fn worker_gone(&mut self, cx: &mut Cx<'_>) {
        let Some(acting) = &self.crew.acting else { return };
        let worker = acting.worker;
        let took = show_duration(cx.now.mono.since(acting.began));
        self.crew.members.retain(|member| member.identity != worker);
        self.crew.hands.remove(&worker);
        self.crew.short_since = Some(cx.now.mono);
        self.crew.due = Some(cx.now.mono + limits::CREW_SUCCESSOR_POLL);
        let text = format!("worker {worker} is gone after {took}");
        self.narrate(cx, text.clone());
        self.end_acting(cx, ReplyResult::Done, text);
    }

    /// Its time is over, or an answer never came.
    fn worker_late(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let Some(acting) = &self.crew.acting else { return };
        let (worker, waited) = (acting.worker, show_duration(now.since(acting.began)));
        match (acting.step, acting.manner) {
            (Step::Signalling(.., until) | Step::Waiting(until) | Step::Killed(until), _)
                if now < until => {}
            (Step::Signalling(..), _) => {
                let text = "it cannot be told whether the signal was sent".to_owned();
                self.end_acting(cx, ReplyResult::Failed, text);
            }
            (Step::Waiting(_), Manner::Kill | Manner::Stuck) if self.may_kill(worker) => {
                let text =
                    format!("worker {worker} is still there after {waited}: sending SIGKILL");
                self.happened(cx, EventKind::Acted, text);
                let step = self.push_worker(cx, worker, Push::Kill);
                if let Some(acting) = &mut self.crew.acting {
                    acting.step = step;
                }
            }
            (Step::Waiting(_), _) => {
                let text =
                    format!("worker {worker} was told to go {waited} ago and is still there");
                self.happened(cx, EventKind::Failed, text.clone());
                self.deaf(worker);
                self.end_acting(cx, ReplyResult::Failed, text);
            }
            (Step::Killed(_), _) => {
                let text =
                    format!("worker {worker} does not die: KILL was sent and it is still there");
                self.happened(cx, EventKind::Failed, text.clone());
                self.deaf(worker);
                self.end_acting(cx, ReplyResult::Failed, text);
            }
        }
    }

    /// Whether a KILL hurts that worker alone.
    fn may_kill(&self, worker: ProcessIdentity) -> bool {
        let fragile =
            self.crew.members.iter().any(|one| one.identity == worker && one.fragile.is_some());
        let allowed =
            self.def.workers.as_ref().is_some_and(|workers| workers.kill == Kill::Allowed);
        allowed && !fragile
    }

    fn deaf(&mut self, worker: ProcessIdentity) {
        if let Some(hand) = self.crew.hands.get_mut(&worker) {
            hand.deaf = true;
        }
    }

    fn end_acting(&mut self, cx: &mut Cx<'_>, result: ReplyResult, text: String) {
        let Some(acting) = self.crew.acting.take() else { return };
        cx.push(Effect::Unwatch { service: self.def.name.clone(), identity: acting.worker });
        if let Some(request) = acting.request {
            self.answer_for_worker(cx, request, result, text);
        }
    }

    // ---- a new configuration ------------------------------------------------------------------

    /// The service is defined anew: each check that was at the first place is at the second now, and is
    /// counted as before or not.
    pub(super) fn carry_crew(
        &mut self,
        cx: &mut Cx<'_>,
        was: Option<&Workers>,
        places: &[(usize, usize, Counted)],
    ) {
        let is = self.def.workers.clone();
        if was.map(Workers::who) != is.as_ref().map(Workers::who) {
            self.dismiss_crew(cx, "who is a worker is said otherwise now");
        }
        for hand in self.crew.hands.values_mut() {
            let mut before = std::mem::take(&mut hand.windows);
            let moved = places.iter().filter_map(|(from, to, counted)| {
                let mut window = before.remove(from)?;
                if *counted == Counted::Anew {
                    window.clear();
                }
                Some((*to, window))
            });
            hand.windows = moved.collect();
        }
        if self.has_crew() && self.main.is_some() {
            self.crew.due = Some(cx.now.mono + limits::CREW_BUSY_PACE);
        }
    }

    /// It is watched no longer: what operators asked for is not done.
    pub(super) fn crew_parts(&mut self, cx: &mut Cx<'_>, why: &str) {
        self.dismiss_crew(cx, why);
        for asked in std::mem::take(&mut self.crew.asked_for) {
            self.answer_for_worker(cx, asked.request, ReplyResult::Failed, why.to_owned());
        }
    }

    // ---- operators ----------------------------------------------------------------------------

    /// An operator wants a worker gone, under the same guard as any rule.
    pub(super) fn order_worker(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestId,
        pick: WorkerPick,
        who: &Who,
    ) {
        let now = cx.now.mono;
        let which = match pick {
            WorkerPick::Pid(pid) => format!("worker {pid}"),
            WorkerPick::Stuck => "the stuck worker".to_owned(),
        };
        self.happened(cx, EventKind::Ordered, format!("kill of {which} asked by {who}"));
        let main =
            matches!((pick, self.main), (WorkerPick::Pid(pid), Some(main)) if main.pid == pid);
        let refusal = if !self.has_crew() {
            Some("it has no [workers] in its file".to_owned())
        } else if main {
            Some("that is the main process: `heeler restart` takes it away".to_owned())
        } else if self.main.is_none() {
            Some("it is not running".to_owned())
        } else {
            None
        };
        if let Some(text) = refusal {
            cx.push(Effect::Answer { request, reply: Reply { result: ReplyResult::Failed, text } });
            return;
        }
        let until = now + limits::ASK_TIMEOUT;
        self.crew.asked_for.push(AskedFor { request, pick, until });
        self.crew.due = Some(now);
    }

    fn give_up_on_operators(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let acting = self.crew.acting.as_ref().and_then(|acting| acting.request);
        let late: Vec<_> = self
            .crew
            .asked_for
            .iter()
            .filter(|asked| now >= asked.until && Some(asked.request) != acting)
            .map(|asked| asked.request)
            .collect();
        for request in late {
            let text = "its workers cannot be looked at now".to_owned();
            self.answer_for_worker(cx, request, ReplyResult::Failed, text);
        }
    }

    /// What an operator asked for is not there.
    fn answer_unfound(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let unfound: Vec<_> = self
            .crew
            .asked_for
            .iter()
            .filter(|asked| {
                !self.crew.members.iter().any(|member| match asked.pick {
                    WorkerPick::Pid(pid) => member.identity.pid == pid,
                    WorkerPick::Stuck => self.is_stuck(member, now),
                })
            })
            .map(|asked| (asked.request, asked.pick))
            .collect();
        for (request, pick) in unfound {
            let text = match pick {
                WorkerPick::Pid(Pid(pid)) => format!("there is no worker {pid}"),
                WorkerPick::Stuck => "no worker is stuck".to_owned(),
            };
            self.answer_for_worker(cx, request, ReplyResult::Failed, text);
        }
    }

    fn answer_for_worker(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestId,
        result: ReplyResult,
        text: String,
    ) {
        self.crew.asked_for.retain(|asked| asked.request != request);
        cx.push(Effect::Answer { request, reply: Reply { result, text } });
    }

    /// These are its workers no more, and why.
    pub(super) fn dismiss_crew(&mut self, cx: &mut Cx<'_>, why: &str) {
        if self.crew.acting.is_some() {
            self.end_acting(cx, ReplyResult::Failed, why.to_owned());
        }
        self.crew.forget();
        if self.has_crew() && self.main.is_some() {
            self.crew.due = Some(cx.now.mono + limits::CREW_BUSY_PACE);
        }
    }
}
