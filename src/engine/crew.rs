//! The workers of a service: looked at together, judged each by itself, taken away one by one.
//!
//! What a rule knows of a worker follows its identity. One worker at a time is told to go, the oldest
//! first, under the guard and within the budget; the next one's turn comes when a successor serves.

use std::collections::BTreeMap;

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::judge::next_slot;
use crate::engine::state::State;
use crate::engine::table::Where;
use crate::engine::tolerance::{Change, Window};
use crate::model::action::Action;
use crate::model::check::{Check, CheckKind};
use crate::model::crew::{CrewView, Leaving, Member, Muster, PumaView};
use crate::model::ids::{AskId, CheckIndex, RequestId};
use crate::model::incident::Cause;
use crate::model::intent::Desired;
use crate::model::limits;
use crate::model::memory::BootMemory;
use crate::model::observation::{Observation, Outcome, Verdict};
use crate::model::order::{ReplyResult, WorkerPick};
use crate::model::process::ProcessIdentity;
use crate::model::status::RuleState;
use crate::model::text::Untrusted;
use crate::model::time::Mono;
use crate::model::workers::Workers;

mod asked;
mod going;

/// What is known of the workers of one service under its present main process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crew {
    asked: Option<(AskId, Mono)>,
    /// When that was asked.
    looked_at: Mono,
    due: Option<Mono>,
    /// As they were seen last.
    members: Vec<Member>,
    /// Not seen, and on their way.
    coming: usize,
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
    /// When one was gone last: what was looked at before that shows it still.
    gone_at: Option<Mono>,
    /// Who was held back last, and why: it is said once.
    held: Option<(ProcessIdentity, String)>,
    /// Of checks whose incident an earlier keeper opened: until when nothing here says that it is over.
    resumed: BTreeMap<usize, Mono>,
}

/// One worker.
#[derive(Clone, Debug, Default)]
struct Hand {
    /// Of each check, by its place.
    windows: BTreeMap<usize, Window>,
    /// Since when its master waits for it to go.
    awaited_since: Option<Mono>,
    /// What it did not go by: it is not told so again.
    deaf: Option<Manner>,
}

impl Hand {
    /// Whether there is a point in telling it so.
    fn may_hear(&self, manner: Manner) -> bool {
        match (self.deaf, manner) {
            (None, _) | (Some(Manner::Recycle), Manner::Kill | Manner::Stuck) => true,
            (Some(Manner::Recycle), Manner::Recycle) | (Some(Manner::Kill | Manner::Stuck), _) => {
                false
            }
        }
    }
}

/// A worker is being taken away.
#[derive(Clone, Debug)]
struct Acting {
    worker: ProcessIdentity,
    manner: Manner,
    step: Step,
    began: Mono,
    /// When a signal was sent to it last.
    told: Option<Mono>,
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
    /// What an earlier keeper remembered: who is a worker is seen anew.
    pub(super) fn recall(memory: &BootMemory) -> Self {
        Self { taken: memory.workers_taken.clone(), ..Self::default() }
    }

    /// When workers were taken away, oldest first.
    pub(super) fn taken(&self) -> Vec<Mono> {
        self.taken.clone()
    }

    /// Another main process: nobody is known.
    pub(super) fn forget(&mut self) {
        let Self { taken, asked_for, resumed, .. } = std::mem::take(self);
        *self = Self { taken, asked_for, resumed, ..Self::default() };
    }

    /// What checks saw of workers counts no more.
    pub(super) fn forget_verdicts(&mut self) {
        self.resumed.clear();
        self.hands.values_mut().for_each(|hand| hand.windows.clear());
    }

    /// The incident of this check is of an earlier keeper, whose verdicts nobody remembers.
    pub(super) fn resume_firing(&mut self, check: usize, not_over_before: Mono) {
        self.resumed.insert(check, not_over_before);
    }

    pub(super) fn next_due(&self) -> Mono {
        let acting = self.acting.as_ref().map(|acting| match acting.step {
            Step::Signalling(_, _, until) | Step::Waiting(until) | Step::Killed(until) => until,
        });
        let asked = self.asked.map(|(_, until)| until);
        // Who waits for what is being done is answered by its end, however long that takes.
        let done_for = self.acting.as_ref().and_then(|acting| acting.request);
        let waiting = self.asked_for.iter().filter(|asked| Some(asked.request) != done_for);
        let operators = waiting.map(|asked| asked.until);
        operators.chain(acting).chain(asked).chain(self.due).min().unwrap_or(Mono::NEVER)
    }

    /// What a person wants to know of it.
    pub(super) fn view(&self, now: Mono, workers: &Workers, reloaded: Option<Mono>) -> CrewView {
        let taken = self.taken.iter().filter(|at| now.since(**at) < workers.budget.window);
        let taken = u32::try_from(taken.count()).unwrap_or(u32::MAX);
        let awaited = self
            .hands
            .iter()
            .find_map(|(worker, hand)| hand.awaited_since.map(|since| (*worker, now.since(since))));
        CrewView {
            min: workers.min,
            wanted: self.wanted,
            budget: workers.budget,
            left: workers.budget.actions.saturating_sub(taken),
            going: self.acting.as_ref().map(|acting| acting.worker),
            awaited,
            reloaded,
        }
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
            self.crew.looked_at = now;
            let service = self.def.name.clone();
            cx.push(Effect::LookAtCrew { service, ask, main, reloaded: self.reloaded });
        }
    }

    /// Looks at them as soon as that can be.
    pub(super) fn look_at_crew_now(&mut self, cx: &mut Cx<'_>) {
        if self.crew.asked.is_none() {
            self.look_at_crew(cx);
        } else {
            self.crew.due = Some(cx.now.mono + limits::VERIFY_PACE);
        }
    }

    /// Looks at them before long, if there may be any.
    fn look_at_crew_soon(&mut self, cx: &Cx<'_>) {
        if self.has_crew() && self.main.is_some() {
            let soon = cx.now.mono + limits::CREW_BUSY_PACE;
            self.crew.due = Some(self.crew.due.map_or(soon, |due| due.min(soon)));
        }
    }

    /// Nobody looks at them while their master comes or goes; whatever ended that, they are looked at again.
    pub(super) fn look_at_crew_again(&mut self, cx: &Cx<'_>) {
        if self.crew.due.is_none() {
            self.look_at_crew_soon(cx);
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
        if self.verify.is_some() {
            limits::VERIFY_PACE
        } else if busy {
            pace.min(limits::CREW_BUSY_PACE)
        } else {
            pace
        }
    }

    /// The look came back.
    pub(super) fn crew_seen(
        &mut self,
        cx: &mut Cx<'_>,
        ask: AskId,
        seen: Result<Muster, Untrusted>,
        puma: Option<PumaView>,
    ) {
        let now = cx.now.mono;
        if !crate::engine::answers::answers(&mut self.crew.asked, ask, cx) {
            return;
        }
        let took = now.since(self.crew.looked_at);
        if self.crew.gone_at.is_some_and(|gone| now.since(gone) < took) {
            // It shows one that is gone since then, and hides that no successor is there.
            self.look_at_crew(cx);
            return;
        }
        match seen {
            Ok(Muster { members, coming }) => {
                self.crew.coming = coming;
                self.muster(cx, members);
                self.judge_crew(cx);
                self.answer_unfound(cx);
                // What was seen long ago is told, and nobody is taken away for it.
                if took <= limits::CREW_LOOK_FRESH {
                    self.take_one_away(cx);
                }
                self.stuck_over(cx);
                let members = self.crew.members.clone();
                self.verify_seen(cx, &members, puma.as_ref());
            }
            Err(why) => {
                self.crew_unknown(cx, &why);
                self.verify_cannot_see(cx, &why);
            }
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
            if self.crew.coming == 0 && now.since(since) >= limits::CREW_SHORT_MAX {
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
            // From when they were looked at: an answer that took a while must not let the next look pass by.
            state.due = next_slot(self.crew.looked_at, check.every);
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
            let shown = bad.or_else(|| members.first()).map(|member| member.seen.clone());
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
                    // That of an earlier keeper is still open, and was told.
                    Change::Fired if self.resumes(check, at) => {
                        self.worker_still(cx, at, member);
                    }
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

    fn resumes(&self, check: &Check, at: usize) -> bool {
        self.crew.resumed.contains_key(&at)
            && self.open.contains_key(&Cause::Check(check.kind, check.index))
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
        if self.crew.resumed.get(&at).is_some_and(|until| cx.now.mono < *until) {
            return;
        }
        self.crew.resumed.remove(&at);
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

    /// The service is defined anew: each check that was at the first place is at the second now, and is
    /// counted as before or not.
    pub(super) fn carry_crew(
        &mut self,
        cx: &mut Cx<'_>,
        was: Option<&Workers>,
        places: &[(usize, usize, Counted)],
    ) {
        let is = self.def.workers.clone();
        let mut resumed = std::mem::take(&mut self.crew.resumed);
        let moved = places.iter().filter_map(|(from, to, _)| Some((*to, resumed.remove(from)?)));
        self.crew.resumed = moved.collect();
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
        self.look_at_crew_soon(cx);
    }

    /// It is watched no longer: what operators asked for is not done.
    pub(super) fn crew_parts(&mut self, cx: &mut Cx<'_>, why: &str) {
        self.dismiss_crew(cx, why);
        for asked in std::mem::take(&mut self.crew.asked_for) {
            self.answer_for_worker(cx, asked.request, ReplyResult::Failed, why.to_owned());
        }
    }

    /// These are its workers no more, and why.
    pub(super) fn dismiss_crew(&mut self, cx: &mut Cx<'_>, why: &str) {
        if self.crew.acting.is_some() {
            self.end_acting(cx, ReplyResult::Failed, why.to_owned());
        }
        self.resolve(cx, Cause::StuckWorker, why);
        self.crew.forget();
        self.look_at_crew_soon(cx);
    }
}
