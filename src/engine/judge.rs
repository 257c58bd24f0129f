//! From observations to verdicts, and from rules that fire to what they ask for.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Cx;
use crate::engine::effect::{Effect, Level};
use crate::engine::start_limit::Permission;
use crate::engine::state::{CheckState, State};
use crate::engine::table::{Class, Where};
use crate::engine::tolerance::{Change, Window};
use crate::model::action::Action;
use crate::model::check::{Check, CheckKind};
use crate::model::event::EventKind;
use crate::model::ids::AskId;
use crate::model::incident::Cause;
use crate::model::intent::{Desired, Intent, Who};
use crate::model::job::JobKind;
use crate::model::limits;
use crate::model::observation::{Observation, Outcome, Verdict};
use crate::model::service::{Command, Mode, Service};
use crate::model::time::Mono;
use crate::model::units::show_duration;

/// So many unknown observations in a row are worth an alert of their own.
const UNKNOWN_ALERT: u32 = 3;

impl State {
    /// Judges one sample by every process check that is due.
    pub(super) fn judge(&mut self, cx: &mut Cx<'_>, seen: Observation) {
        let seen = &Arc::new(seen);
        let now = cx.now.mono;
        let def = self.def.clone();
        let mut changes = Vec::new();
        for (at, check) in def.checks.iter().enumerate() {
            let Some(state) = self.checks.get_mut(at) else {
                continue;
            };
            if check.kind != CheckKind::Process || state.due > now {
                continue;
            }
            state.due = next_slot(now, check.every);
            let change = self.verdict(cx, at, check, seen, now);
            if change != Change::None {
                changes.push((at, check, change));
            }
        }
        self.follow(cx, changes, seen);
    }

    /// A probe of one check came back. The question says of which: since it was asked, the check may have
    /// got another place.
    pub(super) fn observed(&mut self, cx: &mut Cx<'_>, ask: AskId, seen: Observation) {
        let seen = &Arc::new(seen);
        let def = self.def.clone();
        let asks = |state: &CheckState| state.asked.is_some_and(|(awaited, _)| awaited == ask);
        let at = self.checks.iter().position(asks);
        let found = at.and_then(|at| Some((at, def.checks.get(at)?, self.checks.get_mut(at)?)));
        let Some((at, check, state)) = found else {
            cx.counters.dropped_answers += 1;
            return;
        };
        state.asked = None;
        let since = std::mem::replace(&mut state.looked_at, state.asked_at);
        let fingerprint = state.fingerprint;
        let is_stale = state.asked_at < self.judged_since;
        if is_stale && !check.condition.is_met_by_event(seen, fingerprint) {
            cx.counters.dropped_answers += 1;
            return;
        }
        self.verify_observed(at, check.condition.judge(seen, fingerprint));
        let change = self.verdict(cx, at, check, seen, since);
        self.follow(cx, vec![(at, check, change)], seen);
    }

    /// What one observation means for one check. Whatever happened by it did so after `since`.
    fn verdict(
        &mut self,
        cx: &mut Cx<'_>,
        at: usize,
        check: &Check,
        seen: &Arc<Observation>,
        since: Mono,
    ) -> Change {
        let before = self.checks.get(at).and_then(|state| state.fingerprint);
        let event = check.is_of_event() && check.condition.is_met_by_event(seen, before);
        let Some(state) = self.checks.get_mut(at) else {
            return Change::None;
        };
        let verdict = check.condition.judge(seen, before);
        state.last = Some(Arc::clone(seen));
        state.fingerprint = seen.fingerprint.or(before);
        if check.condition.is_of_change() {
            cx.dirty |= state.fingerprint != before;
        }
        self.unknowns(cx, at, check, (seen, verdict));
        let bad = match verdict {
            Verdict::Unknown => return Change::None,
            Verdict::Fail => true,
            Verdict::Pass => false,
        };
        if self.intent.desired != Desired::Up {
            return Change::None;
        }
        if let Some(why) = self.untimely(event.then_some(since)) {
            if event {
                self.tell_only(cx, at, check, seen, why);
            }
            return Change::None;
        }
        let Some(state) = self.checks.get_mut(at) else {
            return Change::None;
        };
        let change = state.push(cx.now.mono, bad, check);
        if change == Change::Fired && once(check, seen) {
            // It happened, and that is all: nothing is left to be resolved.
            state.window = Window::default();
        }
        change
    }

    /// Why nothing is done now about what a look saw, if so. Of what happened: after this moment.
    fn untimely(&self, event: Option<Mono>) -> Option<&'static str> {
        match self.place() {
            Where::Present => {
                let by_another = event.is_some_and(|since| since < self.main_since);
                by_another.then_some("it may be about the process before")
            }
            Where::StartPeriod => Some("it is in its start period"),
            Where::Absent
            | Where::Clearing
            | Where::Starting
            | Where::Stopping
            | Where::Killing
            | Where::Backoff => Some("its process is on its way out or in"),
        }
    }

    /// Something happened at a moment at which nothing may be done about it. No later look sees it again,
    /// so it is told.
    fn tell_only(
        &mut self,
        cx: &mut Cx<'_>,
        at: usize,
        check: &Check,
        seen: &Observation,
        why: &str,
    ) {
        let Some(state) = self.checks.get_mut(at) else { return };
        let change = state.push(cx.now.mono, true, check);
        match change {
            Change::None | Change::Resolved => return,
            // What it may not act on leaves nothing to be resolved.
            Change::Fired => state.window = Window::default(),
            Change::StillFiring => {}
        }
        let cause = Cause::Check(check.kind, check.index);
        let event = if once(check, seen) { EventKind::Changed } else { EventKind::Fired };
        let title = format!("{}, {}", check.condition.explain(seen), check.tolerance);
        self.open_incident_as(cx, Some(event), cause, title, cx.now.mono);
        if change == Change::Fired {
            self.ends_by_itself(cx, cause);
        }
        if check.then.iter().any(|action| *action != Action::Alert) {
            let text = format!("nothing is done about it ({}): {why}", check.label);
            self.happened_new(cx, EventKind::Acted, text);
        }
    }

    /// One mail, with what was done about it; but what happens again and again is told before it ends.
    fn ends_by_itself(&mut self, cx: &Cx<'_>, cause: Cause) {
        if let Some(open) = self.open.get_mut(&cause) {
            if cx.now.wall.since(open.record.opened) < limits::TELL_AFTER {
                open.tell_at = Mono::NEVER;
            }
            open.settles_at = Some(cx.now.mono + limits::TELL_AFTER);
        }
    }

    /// Does what the checks whose rule state changed ask for.
    fn follow(
        &mut self,
        cx: &mut Cx<'_>,
        mut changes: Vec<(usize, &Check, Change)>,
        seen: &Observation,
    ) {
        // What sets it aside goes first: a restart begun beside it would leave it down.
        changes.sort_by_key(|(_, check, _)| !check.then.iter().any(Action::sets_aside));
        for (at, check, change) in changes {
            if self.intent.desired != Desired::Up {
                break;
            }
            match change {
                Change::None => {}
                Change::Fired => self.fired(cx, at, check, seen),
                Change::StillFiring => self.still_firing(cx, check, seen),
                Change::Resolved => self.recovered(cx, at, check, seen),
            }
        }
        // A check may be due before the next look of the service.
        let own = self.def.checks.iter().zip(&self.checks);
        let own = own.filter(|(check, _)| check.kind != CheckKind::Worker);
        let soonest = own.map(|(_, state)| state.due).min();
        self.look_at = soonest.map_or(self.look_at, |due| due.min(self.look_at));
    }

    fn fired(&mut self, cx: &mut Cx<'_>, at: usize, check: &Check, seen: &Observation) {
        let cause = Cause::Check(check.kind, check.index);
        let acts = check.then.iter().any(|action| !matches!(action, Action::Alert));
        let tell_at = if acts { cx.now.mono + limits::TELL_AFTER } else { cx.now.mono };
        let title = format!("{}, {}", check.condition.explain(seen), check.tolerance);
        let event = if once(check, seen) { EventKind::Changed } else { EventKind::Fired };
        self.open_incident_as(cx, Some(event), cause, title, tell_at);
        if once(check, seen) {
            self.ends_by_itself(cx, cause);
        } else if let Some(state) = self.checks.get_mut(at) {
            state.repeat_at = check.repeat.map(|every| cx.now.mono + every);
        }
        for action in &check.then {
            self.act(cx, check, action);
        }
    }

    fn still_firing(&mut self, cx: &mut Cx<'_>, check: &Check, seen: &Observation) {
        let cause = Cause::Check(check.kind, check.index);
        if let Some(open) = self.open.get_mut(&cause)
            && check.then.iter().any(Action::repeats)
        {
            let text = format!("still: {}", check.condition.explain(seen));
            open.record.tell(cx.now.wall, text);
            cx.dirty = true;
        }
        for action in check.then.iter().filter(|action| action.repeats()) {
            self.act(cx, check, action);
        }
    }

    fn recovered(&mut self, cx: &mut Cx<'_>, at: usize, check: &Check, seen: &Observation) {
        if let Some(state) = self.checks.get_mut(at) {
            state.repeat_at = None;
        }
        self.resolve(cx, Cause::Check(check.kind, check.index), &check.condition.explain(seen));
        for action in &check.on_recovery {
            self.act(cx, check, action);
        }
    }

    /// Repeats alert and exec of firing checks that ask for it.
    pub(super) fn repeats_due(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        if !self.checks.iter().any(|check| check.repeat_at.is_some_and(|due| now >= due)) {
            return;
        }
        let acting = self.settled() && self.intent.desired == Desired::Up;
        let def = self.def.clone();
        for (at, check) in def.checks.iter().enumerate() {
            let Some(state) = self.checks.get_mut(at) else {
                continue;
            };
            if state.repeat_at.is_none_or(|due| now < due) {
                continue;
            }
            state.repeat_at = check.repeat.map(|every| now + every);
            if !acting {
                continue;
            }
            if let Some(open) = self.open.get_mut(&Cause::Check(check.kind, check.index))
                && check.then.contains(&Action::Alert)
            {
                open.tell_at = now;
            }
            for action in check.then.iter().filter(|action| matches!(action, Action::Exec(_))) {
                self.act(cx, check, action);
            }
        }
    }

    pub(super) fn act(&mut self, cx: &mut Cx<'_>, check: &Check, action: &Action) {
        match action {
            Action::Alert => {
                if let Some(open) = self.open.get_mut(&Cause::Check(check.kind, check.index))
                    && open.settles_at.is_none()
                {
                    open.tell_at = open.tell_at.min(cx.now.mono + limits::TELL_AFTER);
                }
                return;
            }
            // Which worker, and whether it may, is decided for all of them together.
            Action::RecycleWorker | Action::KillWorker => return,
            Action::Start
            | Action::Stop
            | Action::Restart
            | Action::Reload
            | Action::Exec(_)
            | Action::Unmonitor => {}
        }
        if self.verify.is_some() {
            let text =
                format!("would {action} now ({}), but a verified reload is under way", check.label);
            self.narrate_new(cx, text);
            return;
        }
        if let Some(why) = self.held_back() {
            let text = format!("would {action} now ({}), held back: {why}", check.label);
            self.happened_new(cx, EventKind::Acted, text);
            return;
        }
        if self.def.mode == Mode::Observe {
            self.happened(
                cx,
                EventKind::Acted,
                format!("would {action} now ({}), but mode is \"observe\"", check.label),
            );
            return;
        }
        if self.job.is_some_and(|job| job.kind == JobKind::Exec) {
            // `then = ["exec ...", "restart"]` means: first the one, then the other.
            self.wants(check, action);
            return;
        }
        match action {
            Action::Alert | Action::RecycleWorker | Action::KillWorker => {}
            // An action before it in the list may have set it aside.
            Action::Start | Action::Restart | Action::Reload
                if self.intent.desired != Desired::Up => {}
            Action::Start => self.happen(cx, Class::WishStart, None),
            Action::Restart => self.restart_by_rule(cx, check),
            Action::Reload => self.reload_by_rule(cx, check),
            Action::Stop => self.set_aside(cx, check, Desired::Down, Class::WishStop),
            Action::Unmonitor => self.set_aside(cx, check, Desired::Unmonitored, Class::WishLeave),
            Action::Exec(command) => self.exec(cx, check, command),
        }
    }

    /// It is done once it may be.
    fn wants(&mut self, check: &Check, action: &Action) {
        let waits = (check.index, action.clone());
        if !self.pending.contains(&waits) {
            self.pending.push(waits);
        }
    }

    /// What was waited for is over: what waited, unless the service is not to be acted on any more.
    pub(super) fn act_on_pending(&mut self, cx: &mut Cx<'_>) {
        let pending = std::mem::take(&mut self.pending);
        if !self.settled() || self.intent.desired != Desired::Up {
            return;
        }
        let def = self.def.clone();
        for (index, action) in pending {
            if let Some(check) = def.checks.get(usize::from(index.0)) {
                self.act(cx, check, &action);
            }
        }
    }

    /// A restart by rule is one of the starts that are counted; it must not stop what it may not start.
    fn restart_by_rule(&mut self, cx: &mut Cx<'_>, check: &Check) {
        if self.place() != Where::Present {
            return;
        }
        let now = cx.now.mono;
        if let Err(until) = cx.brake.ask(now) {
            let (wait, name) = (show_duration(until.since(now)), self.def.name.clone());
            let head = format!("not restarted: {}", cx.brake.words());
            let tail = format!("; again in {wait}, or now by `heeler restart {name}`");
            self.happened_new_but_for(cx, EventKind::GaveUp, &head, &tail);
            self.tell_soon(cx, Cause::Check(check.kind, check.index));
            return;
        }
        match self.limit.ask(now, self.def.start_limit, self.def.backoff) {
            Permission::Go => {
                self.takes_away(cx);
                self.happened(
                    cx,
                    EventKind::Acted,
                    format!("restarting it because of {}", check.label),
                );
                self.happen(cx, Class::WishRestart, None);
            }
            Permission::Gap(until) => {
                self.wants(check, &Action::Restart);
                self.look_at = self.look_at.min(until);
            }
            Permission::BackOff(until) => {
                let wait = show_duration(until.since(now));
                let limit = self.def.start_limit;
                let head = format!("not restarted: the start limit of {limit} is used up");
                let tail = format!("; again in {wait}");
                self.happened_new_but_for(cx, EventKind::GaveUp, &head, &tail);
                self.tell_soon(cx, Cause::Check(check.kind, check.index));
            }
        }
    }

    fn set_aside(&mut self, cx: &mut Cx<'_>, check: &Check, desired: Desired, class: Class) {
        let by = Who::Rule(check.label.clone());
        self.intent = Intent { desired, by, at: cx.now.wall };
        let title = match desired {
            Desired::Down => format!("stopped by rule {}", check.label),
            Desired::Up | Desired::Unmonitored => {
                format!("no longer monitored, by rule {}", check.label)
            }
        };
        let tell_at = cx.now.mono + limits::TELL_AFTER;
        self.open_incident_as(cx, Some(EventKind::Acted), Cause::SetAside, title, tell_at);
        self.happen(cx, class, None);
        self.forget_checks(cx);
    }

    /// Nobody judges what is not wanted up: its checks neither fire nor remind.
    pub(super) fn forget_checks(&mut self, cx: &mut Cx<'_>) {
        let causes: Vec<_> = self.open.keys().copied().filter(Cause::is_of_check).collect();
        for cause in causes {
            self.resolve(cx, cause, "no longer judged: it is not wanted up any more");
        }
        for check in &mut self.checks {
            check.window = Window::default();
            check.repeat_at = None;
        }
        self.crew.forget_verdicts();
    }

    fn exec(&mut self, cx: &mut Cx<'_>, check: &Check, command: &Command) {
        if self.job.is_some() {
            let text = format!("not executed, another action is under way: {command}");
            cx.log(&self.def.name, Level::Warning, text);
            return;
        }
        self.happened(
            cx,
            EventKind::Acted,
            format!("executing because of {}: {command}", check.label),
        );
        let deadline = cx.now.mono + command.timeout.unwrap_or(EXEC_TIMEOUT);
        self.run(cx, JobKind::Exec, command.clone(), deadline, &check.label);
    }

    /// Unknown has an alert of its own, and never acts.
    pub(super) fn unknowns(
        &mut self,
        cx: &mut Cx<'_>,
        at: usize,
        check: &Check,
        (seen, verdict): (&Observation, Verdict),
    ) {
        let cause = Cause::CheckUnknown(check.kind, check.index);
        let Some(state) = self.checks.get_mut(at) else {
            return;
        };
        let why = match (&seen.outcome, verdict) {
            (Outcome::Unknown(why), _) => Some(why),
            // It failed before there was the value that the condition asks for.
            (Outcome::Failed(why), Verdict::Unknown) => Some(why),
            (Outcome::Failed(_), Verdict::Pass | Verdict::Fail) | (Outcome::Ok, _) => None,
        };
        match why {
            Some(why) => {
                state.unknown = state.unknown.saturating_add(1);
                if state.unknown == UNKNOWN_ALERT {
                    let title = format!("{} cannot be told: {why}", check.label);
                    self.open_incident(cx, cause, title, cx.now.mono);
                }
            }
            None => {
                state.unknown = 0;
                self.resolve(cx, cause, "it can be told again");
            }
        }
    }

    /// Whether any check needs a sample now.
    pub(super) fn sample_due(&self, now: Mono) -> bool {
        let mut pairs = self.def.checks.iter().zip(&self.checks);
        pairs.any(|(check, state)| check.kind == CheckKind::Process && state.due <= now)
    }

    /// Sends out the probes that are due. One that is still under way is not begun twice: its check waits
    /// for its next turn.
    pub(super) fn probe(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let def = self.def.clone();
        for (check, state) in def.checks.iter().zip(&mut self.checks) {
            let together = matches!(check.kind, CheckKind::Process | CheckKind::Worker);
            if together || state.due > now {
                continue;
            }
            state.due = next_slot(now, check.every);
            if state.asked.is_none() {
                let ask = cx.ask();
                state.asked = Some((ask, now + check.timeout + limits::ASK_TIMEOUT));
                state.asked_at = now;
                let (service, check) = (def.name.clone(), check.index);
                cx.push(Effect::Probe { service, check, ask });
            }
        }
    }

    /// Sends the question for a sample.
    pub(super) fn sample(&mut self, cx: &mut Cx<'_>) {
        let Some(identity) = self.main else { return };
        if self.asked.sample.is_some() {
            return;
        }
        let ask = cx.ask();
        self.asked.sample = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
        cx.push(Effect::Sample { service: self.def.name.clone(), ask, identity });
    }
}

const EXEC_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether the condition holds for nothing but that something changed: that is an event, over with the
/// next look.
fn once(check: &Check, seen: &Observation) -> bool {
    check.condition.is_of_change() && check.condition.judge(seen, seen.fingerprint) != Verdict::Fail
}

/// Another process, or the end of an action: how things were before says nothing about now.
pub(super) fn forget_windows(state: &mut State, now: Mono) {
    for check in &mut state.checks {
        check.window.clear();
        check.unknown = 0;
    }
    forget_answers(state, now);
}

/// What was asked is asked anew. But for what happened: no other answer has that.
pub(super) fn forget_answers(state: &mut State, now: Mono) {
    state.judged_since = now;
    for (check, state) in state.def.checks.iter().zip(&mut state.checks) {
        if !check.is_of_event() {
            state.asked = None;
        }
    }
}

/// What happens once is looked for at once: by the next regular look it could not be told any more whether
/// it was before the process came or after.
pub(super) fn look_for_events(state: &mut State, now: Mono) {
    for (check, of_check) in state.def.checks.iter().zip(&mut state.checks) {
        if check.is_of_event() {
            of_check.due = now;
            state.look_at = state.look_at.min(now + limits::SUCCESSOR_POLL);
        }
    }
}

impl CheckState {
    fn push(&mut self, now: Mono, bad: bool, check: &Check) -> Change {
        self.window.push(now, bad, (check.tolerance, check.recover), check.every)
    }
}

/// When a service, or a check, is first due that is looked at so often: spread by its name. What is looked
/// at once a day is looked at once now, too.
pub(super) fn first_due(def: &Service, every: Duration, now: Mono) -> Mono {
    let nanos = u64::try_from(every.min(def.every).as_nanos()).unwrap_or(u64::MAX).max(1);
    next_slot(now, Duration::from_nanos(def.name.spread() % nanos))
}

/// A check that was never judged.
pub(super) fn fresh(due: Mono, fingerprint: Option<u64>) -> CheckState {
    CheckState {
        window: Window::default(),
        due,
        last: None,
        asked: None,
        asked_at: Mono::ZERO,
        looked_at: Mono::ZERO,
        fingerprint,
        unknown: 0,
        repeat_at: None,
    }
}

/// The next time on the grid: one interval on, rounded down to a slot so that checks share wake-ups.
pub(super) fn next_slot(now: Mono, every: Duration) -> Mono {
    let least = limits::SCHEDULE_SLOT.min(every / 4);
    let slot = (every / 10).clamp(least, limits::SCHEDULE_SLOT_MAX).as_nanos().max(1);
    let due = u128::from((now + every).as_nanos());
    Mono::from_nanos(u64::try_from(due / slot * slot).unwrap_or(u64::MAX))
}
