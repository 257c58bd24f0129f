//! From inputs to classes: what each input means for a service, and the periodic look.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::input::{Confirmation, Delivery, Input};
use crate::engine::judge;
use crate::engine::start_limit::StartRecord;
use crate::engine::state::{
    Asked, By, ExitKind, OpenIncident, RunningJob, Stage, Starting, State, StopBy, Surveyed,
};
use crate::engine::table::{Class, Where};
use crate::model::ids::AskId;
use crate::model::incident::Cause;
use crate::model::intent::{Desired, Intent, Who};
use crate::model::job::{Ended, InFlight, JobKind, Ladder, Outcome, Output};
use crate::model::limits;
use crate::model::memory::{BootMemory, Memory};
use crate::model::order::{Order, ReplyResult};
use crate::model::process::{Absence, Identification, ProcessIdentity};
use crate::model::service::{Life, Mode, Service};
use crate::model::text::Untrusted;
use crate::model::time::{Mono, Now};

impl State {
    /// A service as it is taken in, before its first look.
    pub(super) fn begin(now: Now, def: Arc<Service>, memory: Option<Memory>) -> Self {
        let fresh = Memory {
            intent: Intent {
                desired: Desired::Up,
                by: Who::Config,
                at: now.wall,
            },
            incidents_opened: 0,
            open: Vec::new(),
            last: None,
            boot: BootMemory::default(),
        };
        let memory = memory.unwrap_or(fresh);
        let spread = |every: std::time::Duration| {
            let nanos = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX).max(1);
            judge::next_slot(
                now.mono,
                std::time::Duration::from_nanos(def.name.spread() % nanos),
            )
        };
        let checks = def
            .checks
            .iter()
            .map(|check| judge::fresh(spread(check.every)))
            .collect();
        let look_at = spread(def.every).max(now.mono + std::time::Duration::from_millis(1));
        let mut state = Self {
            intent: memory.intent,
            main: None,
            last_main: memory.boot.main,
            recalled: memory.boot.main,
            stage: Stage::Watching,
            since: now,
            leaving: memory
                .boot
                .leaving
                .map(|identity| (identity, resumed_by(&def))),
            pending: Vec::new(),
            job: None,
            asked: Asked::default(),
            look_at,
            limit: StartRecord::recall(&memory.boot),
            checks,
            waiters: Vec::new(),
            open: BTreeMap::new(),
            last_incident: memory.last,
            incidents_opened: memory.incidents_opened,
            gone_at: None,
            last_failure: None,
            filed: Mono::NEVER,
            def,
        };
        for record in memory.open {
            state.resume_incident(now, record);
        }
        state
    }

    /// An incident that an earlier keeper had open: told at once if it never was, else reminded of.
    fn resume_incident(&mut self, now: Now, record: crate::model::incident::Incident) {
        let known = match record.cause {
            Cause::Check(kind, index) | Cause::CheckUnknown(kind, index) => self
                .def
                .checks
                .iter()
                .any(|check| (check.kind, check.index) == (kind, index)),
            Cause::Down
            | Cause::UpUnwanted
            | Cause::Unclear
            | Cause::Unkillable
            | Cause::SetAside => true,
        };
        if !known {
            return;
        }
        if let Cause::Check(_, index) = record.cause
            && let Some(check) = self.checks.get_mut(usize::from(index.0))
        {
            check.window.resume_firing();
        }
        let by_operator = matches!(self.intent.by, Who::Operator { .. });
        let tell_at = if record.told == 0 && record.cause == Cause::SetAside && by_operator {
            let first = self.def.remind * crate::engine::orders::REMIND_OPERATOR_TIMES;
            now.mono + first.saturating_sub(now.wall.since(record.opened))
        } else if record.told == 0 {
            now.mono + limits::TELL_AFTER
        } else {
            now.mono
                + self
                    .def
                    .remind
                    .saturating_sub(now.wall.since(record.told_at))
        };
        // Nobody is reminded within the first moments: the incident may be over already.
        let tell_at = tell_at.max(now.mono + limits::TELL_AFTER);
        self.open.insert(
            record.cause,
            OpenIncident {
                record,
                tell_at,
                settles_at: None,
                mended: None,
            },
        );
    }

    /// Takes up what is in flight, and looks.
    pub(super) fn take_up(&mut self, cx: &mut Cx<'_>, in_flight: &InFlight) {
        let now = cx.now.mono;
        match *in_flight {
            InFlight::Nothing => {}
            InFlight::Job {
                action,
                kind,
                deadline,
                before,
            } => {
                let lost_at = deadline.max(now) + limits::ASK_TIMEOUT;
                if kind != JobKind::Instance {
                    self.job = Some(RunningJob {
                        action,
                        kind,
                        lost_at,
                    });
                }
                match (kind, before) {
                    (JobKind::Start | JobKind::Restart | JobKind::Instance, _) => {
                        // Counted from when it began: keepers that come and go must not stretch it.
                        let whole = self.def.start_timeout;
                        let command = self.def.start.as_ref().and_then(|start| start.timeout);
                        let left = deadline + whole.saturating_sub(command.unwrap_or(whole));
                        let deadline = (now + whole).min(left.max(now));
                        let starting = Starting {
                            action: Some(action),
                            ended: None,
                            before,
                            deadline,
                            poll_at: now + limits::SUCCESSOR_POLL,
                            by: By::Heeler,
                        };
                        self.stage = Stage::Starting(starting);
                        if kind == JobKind::Restart {
                            // Until the command takes it away, the old process is the main one.
                            self.main = before;
                        }
                    }
                    (JobKind::Stop, Some(target)) => {
                        let kill_at = deadline.max(now + self.def.stop_timeout);
                        self.main = Some(target);
                        self.stage = Stage::Stopping {
                            target,
                            by: StopBy::Command,
                            kill_at,
                        };
                    }
                    (JobKind::Stop, None) | (JobKind::Exec, _) => {}
                }
            }
            InFlight::Ladder(ladder) => {
                self.main = Some(ladder.identity);
                self.leaving = self
                    .leaving
                    .or_else(|| Some((ladder.identity, resumed_by(&self.def))));
                let kill_at = ladder.kill_at;
                let target = ladder.identity;
                self.stage = Stage::Stopping {
                    target,
                    by: StopBy::Ladder,
                    kill_at,
                };
            }
        }
        match self.main {
            Some(target) => self.hold(cx, target),
            None => self.identify(cx),
        }
    }

    /// What must survive the keeper.
    pub(super) fn remember(&self) -> Memory {
        let mut boot = BootMemory {
            main: self.main.or(self.recalled).or(match self.stage {
                // Until it is cleared up after, the dead one still matters.
                Stage::Clearing(_) => self.last_main,
                Stage::Backoff { .. }
                | Stage::Watching
                | Stage::Starting(_)
                | Stage::StartPeriod { .. }
                | Stage::Stopping { .. }
                | Stage::Killing { .. } => None,
            }),
            leaving: self.leaving.map(|(identity, _)| identity),
            ..BootMemory::default()
        };
        self.limit.remember(&mut boot);
        Memory {
            intent: self.intent.clone(),
            incidents_opened: self.incidents_opened,
            open: self.open.values().map(|open| open.record.clone()).collect(),
            last: self.last_incident.clone(),
            boot,
        }
    }

    pub(super) fn take_input(&mut self, cx: &mut Cx<'_>, input: Input) {
        match input {
            Input::Tick => self.time_passed(cx),
            Input::Identified { ask, found, .. } => {
                if answers(&mut self.asked.identify, ask, cx) {
                    let held = self.asked.held.take().filter(|(held, _)| *held == ask);
                    self.looked(cx, held.map(|(_, identity)| identity), found);
                }
            }
            Input::Exited { identity, exit, .. } => self.exited(cx, identity, exit),
            Input::Surveyed { ask, survivors, .. } => {
                if answers(&mut self.asked.survey, ask, cx) {
                    self.surveyed(cx, survivors);
                }
            }
            Input::Sampled { ask, seen, .. } => {
                if answers(&mut self.asked.sample, ask, cx) {
                    self.judge(cx, &seen);
                }
            }
            Input::Confirmed { ask, how, .. } => {
                if answers(&mut self.asked.confirm, ask, cx) {
                    self.confirmed(cx, how);
                }
            }
            Input::Launched {
                action, identity, ..
            } => {
                let expected = matches!(
                    &self.stage,
                    Stage::Starting(starting) if starting.action == Some(action)
                );
                if expected {
                    self.happen(cx, Class::Appeared, Some(identity));
                } else {
                    cx.counters.dropped_answers += 1;
                    // Nobody waits for it, but it is there: look, and judge what is found.
                    self.identify(cx);
                }
            }
            Input::Finished {
                action, outcome, ..
            } => self.finished(cx, action, outcome),
            Input::Signalled { ask, result, .. } => {
                if !self.survivor_signalled(cx, ask, &result)
                    && answers(&mut self.asked.signal, ask, cx)
                {
                    self.signalled(cx, result);
                }
            }
            Input::Ordered {
                request,
                order,
                who,
                ..
            } => self.order(cx, request, order, who),
        }
    }

    // ---- answers -----------------------------------------------------------------------------

    /// The answer to a look, or to whether a process known from a record lives (`held`).
    fn looked(&mut self, cx: &mut Cx<'_>, held: Option<ProcessIdentity>, found: Identification) {
        let trusted = held.is_some() && held == self.main;
        let nobody = matches!(found, Identification::None(_));
        if trusted && nobody {
            // Taken as the main one on trust of a record: it died meanwhile.
            self.died_meanwhile(cx);
        } else if held.is_some() && nobody {
            // That one is gone. What the claim says now is another question.
            self.identify(cx);
        } else if let (Some(back), Identification::One(found)) = (held, &found)
            && trusted
            && back == *found
            && self.place() == Where::Present
        {
            // Still there: whoever waited for that is heard now.
            self.resolve(cx, Cause::Unclear, "it can be told again");
            self.recalled = Some(back);
            self.happen(cx, Class::Appeared, Some(back));
        } else {
            self.identified(cx, found);
        }
    }

    fn identified(&mut self, cx: &mut Cx<'_>, found: Identification) {
        match found {
            Identification::One(identity) => {
                self.resolve(cx, Cause::Unclear, "it can be told again");
                let nobody = matches!(self.place(), Where::Clearing | Where::Backoff);
                if self.main != Some(identity) || nobody {
                    self.happen(cx, Class::Appeared, Some(identity));
                } else if let Stage::Starting(starting) = &self.stage
                    && starting.before == Some(identity)
                    && starting.ended.is_some()
                {
                    self.restart_came_to_nothing(cx);
                }
            }
            Identification::None(absence) => {
                self.resolve(cx, Cause::Unclear, "there is nothing there now");
                self.missing(cx, absence);
            }
            Identification::Refused(why) => self.unclear(cx, &why, "heeler may not touch it"),
            Identification::Unknown(why) => {
                self.unclear(cx, &why, "it cannot be told whether it runs")
            }
        }
    }

    /// A restart command ended, or its time is over, and the held process is the one from before: a reload
    /// in place, or a failure. Nothing is started beside it.
    pub(super) fn restart_came_to_nothing(&mut self, cx: &mut Cx<'_>) {
        let (Stage::Starting(starting), Some(main)) = (&self.stage, self.main) else {
            return;
        };
        let (result, text) = match &starting.ended {
            Some(outcome) if outcome.ended.succeeded() => (
                ReplyResult::Done,
                format!("the restart command succeeded; pid {main} is still the same"),
            ),
            Some(outcome) => (
                ReplyResult::Failed,
                crate::engine::lifecycle::describe(JobKind::Restart, outcome),
            ),
            None => (
                ReplyResult::Failed,
                format!("the restart did not end in time; pid {main} is still the same"),
            ),
        };
        self.narrate(cx, text.clone());
        self.answer(cx, |order| order == Order::Restart, result, &text);
        self.answer_up(cx);
        self.stage = Stage::StartPeriod {
            until: cx.now.mono + self.def.start_period,
        };
        self.since = cx.now;
        cx.dirty = true;
        if self.intent.desired == Desired::Down {
            // Stop was asked during the restart, and nothing new will appear to be stopped.
            self.happen(cx, Class::WishStop, None);
        } else if self.def.start_period.is_zero() {
            self.settle(cx);
        }
    }

    fn missing(&mut self, cx: &mut Cx<'_>, absence: Absence) {
        let now = cx.now.mono;
        if let Some(recalled) = self.recalled.filter(|_| self.main.is_none()) {
            self.recalled = None;
            cx.dirty = true;
            // The claim is gone; the process an earlier keeper knew may not be. It goes on as the main
            // one until it is known to be gone, and then that is a death like any other.
            if matches!(self.stage, Stage::Watching) {
                self.main = Some(recalled);
            }
            self.hold(cx, recalled);
            return;
        }
        match &mut self.stage {
            Stage::Clearing(clearing) => {
                clearing.absence = Some((absence, now));
                let orderly = absence == Absence::NoPidfile
                    && clearing.exit == ExitKind::Unasked
                    && clearing.by == By::Heeler
                    && matches!(self.def.life, Life::Pidfile(_));
                if orderly && clearing.successor_until.is_none() {
                    let until = clearing.began + self.def.exit_delay;
                    clearing.successor_until = Some(until);
                    let wait = crate::model::units::show_duration(self.def.exit_delay);
                    self.narrate(
                        cx,
                        format!("it removed its pidfile, an orderly exit: waiting {wait} for a successor"),
                    );
                }
                self.clear_on(cx);
            }
            Stage::Starting(starting) => {
                let failed = starting
                    .ended
                    .as_ref()
                    .is_some_and(|ended| !ended.ended.succeeded());
                if failed && self.main.is_some() {
                    self.restart_came_to_nothing(cx);
                } else if failed {
                    self.happen(cx, Class::StartFailed, None);
                }
            }
            Stage::Watching
            | Stage::StartPeriod { .. }
            | Stage::Stopping { .. }
            | Stage::Killing { .. }
            | Stage::Backoff { .. } => {
                if self.place() == Where::Absent && self.intent.desired != Desired::Up {
                    // An earlier keeper may have had no time to say so.
                    self.resolve(cx, Cause::Down, "it is not wanted up any more");
                    self.resolve(cx, Cause::Unkillable, "it is gone");
                    self.forget_checks(cx);
                }
                // Clearing is for a start: where none may follow, it is enough to have said so.
                if !self.may_start() && self.open.contains_key(&Cause::Down) {
                    return;
                }
                self.happen(cx, Class::Missing, None);
                if self.place() == Where::Absent {
                    let text = "it is down";
                    self.answer(cx, |order| order == Order::Stop, ReplyResult::Done, text);
                }
            }
        }
    }

    /// Something is there that may not be touched, or nothing can be told: said, and looked at again.
    fn unclear(&mut self, cx: &mut Cx<'_>, why: &Untrusted, words: &str) {
        let title = format!("{words}: {why}");
        if !self.open.contains_key(&Cause::Unclear) {
            self.open_incident(
                cx,
                Cause::Unclear,
                title.clone(),
                cx.now.mono + limits::TELL_AFTER,
            );
            if let Some(down) = self.open.get_mut(&Cause::Down) {
                // It is why nothing is started.
                down.record.tell(cx.now.wall, title.clone());
            }
        }
        self.answer(cx, |_| true, ReplyResult::Failed, &title);
        let next = cx.now.mono + self.def.every;
        match &mut self.stage {
            Stage::Clearing(clearing) => {
                clearing.absence = None;
                clearing.poll_at = next;
            }
            Stage::Starting(_)
            | Stage::Watching
            | Stage::StartPeriod { .. }
            | Stage::Stopping { .. }
            | Stage::Killing { .. }
            | Stage::Backoff { .. } => {}
        }
    }

    fn exited(
        &mut self,
        cx: &mut Cx<'_>,
        identity: ProcessIdentity,
        exit: Option<crate::model::process::Exit>,
    ) {
        if self.main == Some(identity) {
            self.died(cx, identity, exit);
        } else if matches!(self.stage, Stage::Clearing(_)) {
            self.survivor_gone(cx, identity);
        } else {
            cx.counters.dropped_answers += 1;
        }
    }

    fn confirmed(&mut self, cx: &mut Cx<'_>, how: Confirmation) {
        match how {
            Confirmation::Same => {
                self.resolve(cx, Cause::Unclear, "it is as it should be again");
                let up = matches!(self.place(), Where::Present | Where::StartPeriod);
                let unsettled = |open: &OpenIncident| open.settles_at.is_none();
                if up && self.open.get(&Cause::Down).is_some_and(unsettled) {
                    // It was open when an earlier keeper ended.
                    self.settle_down_incident(cx);
                }
            }
            Confirmation::ClaimChanged => self.identify(cx),
            Confirmation::Gone => self.died_meanwhile(cx),
        }
    }

    /// The held main process is gone, and nobody said when or how.
    fn died_meanwhile(&mut self, cx: &mut Cx<'_>) {
        if let Some(main) = self.main {
            self.died(cx, main, None);
        }
    }

    fn finished(&mut self, cx: &mut Cx<'_>, action: crate::model::ids::ActionId, outcome: Outcome) {
        let job = self.job.filter(|job| job.action == action);
        let starts =
            matches!(&self.stage, Stage::Starting(starting) if starting.action == Some(action));
        let kind = match (job, starts) {
            (Some(job), _) => job.kind,
            (None, true) => JobKind::Instance,
            (None, false) => {
                // An instance's end is known by its process; a job given up on is over already.
                self.show_output(cx, &outcome.output);
                return;
            }
        };
        self.job = self.job.filter(|job| job.action != action);
        self.show_output(cx, &outcome.output);
        match kind {
            JobKind::Start | JobKind::Restart | JobKind::Instance => {
                if !outcome.ended.succeeded() {
                    self.narrate(cx, crate::engine::lifecycle::describe(kind, &outcome));
                }
                if starts {
                    self.start_ended(cx, kind, outcome);
                }
            }
            JobKind::Stop => {
                self.stop_ended(cx, &outcome);
                self.clear_anew(cx);
            }
            JobKind::Exec => {
                let text = crate::engine::lifecycle::describe(kind, &outcome);
                self.narrate(cx, text);
                self.clear_anew(cx);
                self.act_on_pending(cx);
            }
        }
    }

    /// A survivor had its stop signal, or did not: answers whether this was about one.
    fn survivor_signalled(&mut self, cx: &mut Cx<'_>, ask: AskId, result: &Delivery) -> bool {
        let Stage::Clearing(clearing) = &mut self.stage else {
            return false;
        };
        let Some(at) = clearing.telling.iter().position(|(of, _)| *of == ask) else {
            return false;
        };
        let (_, identity) = clearing.telling.swap_remove(at);
        match result {
            Delivery::Sent => clearing.told.push(identity),
            Delivery::Gone => {}
            Delivery::Refused(why) => {
                self.narrate(cx, format!("a signal to an orphan was not sent: {why}"));
            }
        }
        true
    }

    fn signalled(&mut self, cx: &mut Cx<'_>, result: Delivery) {
        match result {
            Delivery::Sent => self.was_told_to_go(cx),
            Delivery::Gone => self.confirm(cx),
            Delivery::Refused(why) => {
                let title = format!("a signal was not sent: {why}");
                let cause = match self.intent.desired {
                    Desired::Down => Cause::UpUnwanted,
                    Desired::Up | Desired::Unmonitored => Cause::Unclear,
                };
                self.open_incident(cx, cause, title.clone(), cx.now.mono);
                self.answer(cx, |_| true, ReplyResult::Failed, &title);
                if matches!(self.stage, Stage::Stopping { .. } | Stage::Killing { .. }) {
                    cx.push(Effect::RecordLadder {
                        service: self.def.name.clone(),
                        ladder: None,
                    });
                    self.leaving = None;
                    self.stage = Stage::Watching;
                    judge::forget_windows(self);
                    self.since = cx.now;
                    self.look_at = cx.now.mono + self.def.every;
                    self.confirm(cx);
                }
            }
        }
    }

    /// Only now: a record of a signal that was never sent would let the next keeper kill without warning.
    fn was_told_to_go(&mut self, cx: &mut Cx<'_>) {
        if let Stage::Stopping {
            target,
            by: by @ StopBy::Signalling,
            kill_at,
        } = &mut self.stage
        {
            *by = StopBy::Ladder;
            let (target, kill_at) = (*target, *kill_at);
            cx.push(Effect::RecordLadder {
                service: self.def.name.clone(),
                ladder: Some(Ladder {
                    identity: target,
                    kill_at,
                }),
            });
        }
    }

    // ---- questions ---------------------------------------------------------------------------

    /// Looks for the main process, unless the question is out already.
    pub(super) fn identify(&mut self, cx: &mut Cx<'_>) {
        if self.asked.identify.is_none() {
            let ask = cx.ask();
            self.asked.identify = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
            cx.push(Effect::Identify {
                service: self.def.name.clone(),
                ask,
            });
        }
    }

    fn hold(&mut self, cx: &mut Cx<'_>, identity: ProcessIdentity) {
        let ask = cx.ask();
        self.asked.identify = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
        self.asked.held = Some((ask, identity));
        cx.push(Effect::Hold {
            service: self.def.name.clone(),
            ask,
            identity,
        });
    }

    pub(super) fn confirm(&mut self, cx: &mut Cx<'_>) {
        if let (Some(identity), None) = (self.main, self.asked.confirm) {
            let ask = cx.ask();
            self.asked.confirm = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
            cx.push(Effect::Confirm {
                service: self.def.name.clone(),
                ask,
                identity,
            });
        }
    }

    // ---- time --------------------------------------------------------------------------------

    /// Serves every deadline that has passed.
    pub(super) fn time_passed(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        self.unanswered(cx);
        self.lost_job(cx);
        match &mut self.stage {
            Stage::Watching => {}
            Stage::Clearing(clearing) => {
                if now >= clearing.poll_at {
                    clearing.poll_at = now + limits::SUCCESSOR_POLL;
                    self.identify(cx);
                }
                self.clear_on(cx);
            }
            Stage::Starting(_) => self.start_on(cx),
            Stage::StartPeriod { until } | Stage::Backoff { until } => {
                if now >= *until {
                    self.happen(cx, Class::Late, None);
                }
            }
            Stage::Stopping { kill_at, .. } => {
                if now >= *kill_at {
                    self.happen(cx, Class::Late, None);
                }
            }
            Stage::Killing { look_at, .. } => {
                if now >= *look_at {
                    self.happen(cx, Class::Late, None);
                }
            }
        }
        if now >= self.look_at {
            self.look(cx);
        }
        self.repeats_due(cx);
        self.incidents_due(cx);
    }

    /// The periodic look: contradicts the event stream, and samples what checks ask for.
    fn look(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        self.look_at = judge::next_slot(now, self.def.every).max(now + limits::SUCCESSOR_POLL);
        cx.dirty |= self.limit.forgive(now, self.def.start_limit.window);
        match self.place() {
            Where::Absent | Where::Backoff => self.identify(cx),
            Where::Present | Where::StartPeriod => {
                self.confirm(cx);
                if self.sample_due(now) {
                    self.sample(cx);
                }
            }
            Where::Stopping | Where::Killing => self.confirm(cx),
            Where::Clearing | Where::Starting => {}
        }
        self.look_at = self
            .checks
            .iter()
            .filter(|check| check.due > now)
            .map(|check| check.due)
            .fold(self.look_at, Mono::min);
    }

    pub(super) fn schedule_first_look(&mut self, now: Mono) {
        self.look_at = self.look_at.max(now + limits::SUCCESSOR_POLL);
    }

    /// A question that was never answered is asked again: the shell lost it.
    fn unanswered(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let expired = |slot: &mut Option<(AskId, Mono)>| {
            let late = slot.is_some_and(|(_, until)| now >= until);
            if late {
                *slot = None;
            }
            late
        };
        expired(&mut self.asked.confirm);
        expired(&mut self.asked.sample);
        expired(&mut self.asked.signal);
        if expired(&mut self.asked.identify) {
            self.identify(cx);
        }
        if expired(&mut self.asked.survey)
            && let Stage::Clearing(clearing) = &mut self.stage
        {
            clearing.surveyed = Surveyed::Answered;
        }
    }

    /// A job whose shim should have ended it long ago.
    fn lost_job(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let Some(job) = self.job.as_mut().filter(|job| now >= job.lost_at) else {
            return;
        };
        if now.since(job.lost_at) > LATE {
            // Nothing ran for a while, this engine included: its shim gets its time, too.
            job.lost_at = now + limits::ASK_TIMEOUT;
            return;
        }
        let action = job.action;
        let outcome = Outcome {
            ended: Ended::Lost,
            output: Output::default(),
            took: std::time::Duration::ZERO,
        };
        self.finished(cx, action, outcome);
    }
}

/// Later than this, it is this engine that is late.
const LATE: std::time::Duration = std::time::Duration::from_secs(1);

/// On whose account a stop is that an earlier keeper began. Nobody remembers, so the start after it is
/// counted; where only operators act it was one's.
fn resumed_by(def: &Service) -> By {
    match def.mode {
        Mode::Active => By::Heeler,
        Mode::Observe => By::Operator,
    }
}

/// Whether this answer is the one awaited; a late one is counted.
fn answers(slot: &mut Option<(AskId, Mono)>, ask: AskId, cx: &mut Cx<'_>) -> bool {
    let awaited = slot.is_some_and(|(awaited, _)| awaited == ask);
    if awaited {
        *slot = None;
    } else {
        cx.counters.dropped_answers += 1;
    }
    awaited
}
