//! One worker is taken away: whose turn it is, what speaks against it, and how it is made to go.

use crate::engine::Cx;
use crate::engine::crew::{Acting, Manner, Plan, Push, Step};
use crate::engine::effect::Effect;
use crate::engine::guard;
use crate::engine::input::Delivery;
use crate::engine::state::State;
use crate::model::action::Action;
use crate::model::check::CheckKind;
use crate::model::crew::{Leaving, Member};
use crate::model::event::EventKind;
use crate::model::ids::AskId;
use crate::model::incident::Cause;
use crate::model::intent::Desired;
use crate::model::limits;
use crate::model::order::{ReplyResult, WorkerPick};
use crate::model::process::{ProcessIdentity, Signal};
use crate::model::service::Mode;
use crate::model::status::RuleState;
use crate::model::text::Untrusted;
use crate::model::time::Mono;
use crate::model::units::show_duration;
use crate::model::workers::{Kill, Workers};

impl State {
    /// Tells the next worker to go, if there is reason to and nothing against it.
    pub(super) fn take_one_away(&mut self, cx: &mut Cx<'_>) {
        if self.crew.acting.is_some() || !self.has_crew() {
            return;
        }
        let Some(plan) = self.next_to_go(cx) else { return };
        let by_operator = plan.request.is_some();
        let may_act = self.settled() && self.intent.desired == Desired::Up;
        if may_act && !by_operator && plan.check.is_none() {
            self.stuck_found(cx, &plan);
        }
        if !by_operator && (!may_act || self.held_back().is_some()) {
            return;
        }
        if plan.check.is_some() && self.verify.is_some() {
            // No rule acts while that goes on; only the one that is waited for is taken out of its way.
            return;
        }
        let Some(workers) = self.def.workers.clone() else { return };
        let min = usize::try_from(workers.min).unwrap_or(usize::MAX);
        let muster = (self.crew.members.as_slice(), self.crew.coming);
        if let Err(refusal) = guard::may_go(muster, plan.worker, min, self.crew.wanted) {
            self.held(cx, &plan, &refusal.to_string());
            return;
        }
        if !by_operator && self.def.mode == Mode::Observe {
            let text = format!("would tell worker {} to go, but mode is \"observe\"", plan.worker);
            self.narrate_new(cx, text);
            return;
        }
        if !by_operator && cx.brake.ask(cx.now.mono).is_err() {
            self.held(cx, &plan, &cx.brake.words());
            return;
        }
        if !by_operator && !self.within_budget(cx.now.mono, &workers) {
            self.held(cx, &plan, &format!("the budget of {} is used up", workers.budget));
            return;
        }
        self.begin_to_go(cx, plan);
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
                WorkerPick::Stuck => by_age.iter().find(|member| self.looks_stuck(member, now)),
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
    pub(super) fn is_stuck(&self, member: &Member, now: Mono) -> bool {
        let timeout = self.def.workers.as_ref().and_then(|workers| workers.stop_timeout);
        let hand = self.crew.hands.get(&member.identity);
        let hand = hand.filter(|hand| hand.may_hear(Manner::Stuck));
        let since = hand.and_then(|hand| hand.awaited_since);
        timeout.zip(since).is_some_and(|(timeout, since)| now.since(since) >= timeout)
    }

    /// The first rule that fires for it and asks for it to go.
    fn rule_against(&self, member: &Member) -> Option<Plan> {
        let hand = self.crew.hands.get(&member.identity)?;
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
                manner: manner.filter(|manner| firing && hand.may_hear(*manner))?,
                why: check.condition.explain(&member.seen),
                check: Some(check.index),
                request: None,
            })
        })
    }

    /// It is said once that a worker stays, and an alert tells it.
    fn held(&mut self, cx: &mut Cx<'_>, plan: &Plan, why: &str) {
        let held = Some((plan.worker, why.to_owned()));
        if self.crew.held != held {
            self.crew.held = held;
            let text = format!("worker {} is held back: {why}", plan.worker);
            self.happened_new(cx, EventKind::Failed, text);
        }
        if let Some(request) = plan.request {
            self.answer_for_worker(cx, request, ReplyResult::Failed, format!("not done: {why}"));
        }
        match plan.check {
            Some(index) => self.tell_soon(cx, Cause::Check(CheckKind::Worker, index)),
            None => self.tell_soon(cx, Cause::StuckWorker),
        }
    }

    /// No rule of the service speaks of it, so it is an incident of its own: one for all that are stuck in
    /// one reload.
    fn stuck_found(&mut self, cx: &mut Cx<'_>, plan: &Plan) {
        if !self.open.contains_key(&Cause::StuckWorker) {
            let title = format!("worker {} does not go: {}", plan.worker, plan.why);
            let tell_at = cx.now.mono + limits::TELL_AFTER;
            self.open_incident(cx, Cause::StuckWorker, title, tell_at);
        }
    }

    /// That one is over once its master waits for nobody.
    pub(super) fn stuck_over(&mut self, cx: &mut Cx<'_>) {
        let awaited = self.crew.members.iter().any(|one| one.leaving == Leaving::Awaited);
        if awaited || self.crew.acting.as_ref().is_some_and(|acting| acting.manner == Manner::Stuck)
        {
            self.only_looked_over(Cause::StuckWorker);
        } else {
            self.looks_over(cx, Cause::StuckWorker);
        }
    }

    fn within_budget(&mut self, now: Mono, workers: &Workers) -> bool {
        self.crew.taken.retain(|at| now.since(*at) < workers.budget.window);
        self.crew.taken.len() < usize::try_from(workers.budget.actions).unwrap_or(usize::MAX)
    }

    fn begin_to_go(&mut self, cx: &mut Cx<'_>, plan: Plan) {
        let now = cx.now.mono;
        if let Some(workers) = &self.def.workers {
            self.crew.taken.retain(|at| now.since(*at) < workers.budget.window);
        }
        self.crew.taken.push(now);
        self.crew.held = None;
        cx.dirty = true;
        let Plan { worker, manner, why, request, .. } = plan;
        let (push, text) = match manner {
            // It has had its time; where a KILL would hurt more than one it gets another TERM.
            Manner::Stuck if self.may_kill(worker) => {
                (Push::Kill, format!("killing worker {worker}: {why}"))
            }
            Manner::Recycle | Manner::Kill | Manner::Stuck => {
                (Push::Term, format!("telling worker {worker} to go: {why}"))
            }
        };
        self.happened(cx, EventKind::Acted, text);
        let step = self.push_worker(cx, worker, push);
        self.crew.acting = Some(Acting { worker, manner, step, began: now, told: None, request });
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
    pub(in crate::engine) fn worker_signalled(
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
                // What was only tried has taken nobody away.
                let first = acting.request.is_none() && acting.told.replace(now).is_none();
                acting.step = match push {
                    Push::Kill => Step::Killed(now + limits::KILL_TIMEOUT),
                    Push::Term => Step::Waiting(now + timeout),
                };
                if first {
                    self.takes_away(cx);
                }
                if let Some(evidence) = evidence {
                    self.narrate(cx, format!("worker {worker} before its KILL: {evidence}"));
                }
                self.crew.due = Some(now + limits::CREW_BUSY_PACE);
            }
            Delivery::Gone => self.worker_gone(cx),
            Delivery::Refused(why) => {
                let text = format!("worker {worker} was not told to go: {why}");
                self.happened(cx, EventKind::Failed, text.clone());
                // It has heard nothing: its turn may come again, within the budget.
                self.end_acting(cx, ReplyResult::Failed, text);
            }
        }
    }

    fn worker_stop_timeout(&self) -> std::time::Duration {
        let of_workers = self.def.workers.as_ref().and_then(|workers| workers.stop_timeout);
        of_workers.unwrap_or(self.def.stop_timeout)
    }

    /// A worker that was watched is gone. Answers whether it was one.
    pub(in crate::engine) fn worker_exited(
        &mut self,
        cx: &mut Cx<'_>,
        identity: ProcessIdentity,
    ) -> bool {
        let ours = self.crew.acting.as_ref().is_some_and(|acting| acting.worker == identity);
        if ours {
            self.worker_gone(cx);
        }
        ours
    }

    pub(super) fn worker_gone(&mut self, cx: &mut Cx<'_>) {
        let Some(acting) = &self.crew.acting else { return };
        let worker = acting.worker;
        let took = show_duration(cx.now.mono.since(acting.began));
        self.crew.members.retain(|member| member.identity != worker);
        self.crew.hands.remove(&worker);
        self.crew.short_since = Some(cx.now.mono);
        self.crew.gone_at = Some(cx.now.mono);
        self.crew.due = Some(cx.now.mono + limits::CREW_SUCCESSOR_POLL);
        let text = format!("worker {worker} is gone after {took}");
        self.narrate(cx, text.clone());
        self.end_acting(cx, ReplyResult::Done, text);
    }

    /// Its time is over, or an answer never came.
    pub(super) fn worker_late(&mut self, cx: &mut Cx<'_>) {
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
        let manner = self.crew.acting.as_ref().map(|acting| acting.manner);
        if let Some(hand) = self.crew.hands.get_mut(&worker) {
            hand.deaf = manner;
        }
    }

    pub(super) fn end_acting(&mut self, cx: &mut Cx<'_>, result: ReplyResult, text: String) {
        let Some(acting) = self.crew.acting.take() else { return };
        cx.push(Effect::Unwatch { service: self.def.name.clone(), identity: acting.worker });
        if let Some(request) = acting.request {
            self.answer_for_worker(cx, request, result, text);
        }
    }
}
