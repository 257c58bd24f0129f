//! From inputs to classes: what each input means for a service.

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::input::{Confirmation, Delivery, Input};
use crate::engine::judge;
use crate::engine::state::{By, ExitKind, Sent, Stage, State, StopBy};
use crate::engine::table::{Class, Where};
use crate::model::event::EventKind;
use crate::model::ids::AskId;
use crate::model::incident::Cause;
use crate::model::intent::Desired;
use crate::model::job::{JobKind, Ladder, Outcome};
use crate::model::limits;
use crate::model::order::{Order, ReplyResult};
use crate::model::process::{Absence, Identification, ProcessIdentity};
use crate::model::service::Life;
use crate::model::text::Untrusted;
use crate::model::time::Mono;
use crate::model::unit::UnitEnd;

impl State {
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
                    match survivors {
                        Ok(survivors) => self.surveyed(cx, survivors),
                        Err(why) => self.survey_failed(cx, &why),
                    }
                }
            }
            Input::Sampled { ask, seen, .. } => {
                if answers(&mut self.asked.sample, ask, cx) {
                    self.judge(cx, seen);
                }
            }
            Input::CrewSeen { ask, seen, puma, .. } => self.crew_seen(cx, ask, seen, puma),
            Input::PumaAsked { ask, heard, .. } => self.puma_asked(cx, ask, heard),
            Input::VerifyOrdered { request, within, who, .. } => {
                self.order_verified(cx, request, within, &who);
            }
            Input::Hazards { found, .. } => self.found(cx, &found),
            Input::WorkerSignalled { ask, result, evidence, .. } => {
                self.worker_signalled(cx, ask, &result, evidence.as_ref());
            }
            Input::WorkerOrdered { request, pick, who, .. } => {
                self.order_worker(cx, request, pick, &who);
            }
            Input::Observed { ask, seen, .. } => self.observed(cx, ask, seen),
            Input::Confirmed { ask, how, .. } => {
                if answers(&mut self.asked.confirm, ask, cx) {
                    self.confirmed(cx, how);
                }
            }
            Input::Launched { action, identity, .. } => {
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
            Input::Remarked { text, .. } => self.narrate(cx, text),
            Input::Finished { action, outcome, .. } => self.finished(cx, action, outcome),
            Input::Signalled { ask, result, .. } => {
                if self.asked.reload.is_some_and(|(asked, _)| asked == ask) {
                    self.reload_signalled(cx, result);
                } else if !self.survivor_signalled(cx, ask, &result)
                    && answers(&mut self.asked.signal, ask, cx)
                {
                    self.signalled(cx, result);
                }
            }
            Input::Ordered { request, order, who, .. } => self.order(cx, request, order, who),
        }
    }

    /// The answer to a look, or to whether a process known from a record lives (`held`).
    pub(super) fn looked(
        &mut self,
        cx: &mut Cx<'_>,
        held: Option<ProcessIdentity>,
        found: Identification,
    ) {
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

    pub(super) fn identified(&mut self, cx: &mut Cx<'_>, found: Identification) {
        let in_order = matches!(found, Identification::Succeeded(_));
        match found {
            Identification::One(identity) | Identification::Succeeded(identity) => {
                self.resolve(cx, Cause::Unclear, "it can be told again");
                if in_order {
                    self.succeeded_in_order();
                }
                let nobody = matches!(self.place(), Where::Clearing | Where::Backoff);
                if self.main != Some(identity) || nobody {
                    self.happen(cx, Class::Appeared, Some(identity));
                } else if let Stage::Starting(starting) = &self.stage
                    && starting.before == Some(identity)
                    && starting.ended.is_some()
                {
                    self.stayed_the_same(cx);
                }
            }
            Identification::None(absence) => {
                self.resolve(cx, Cause::Unclear, "there is nothing there now");
                self.missing(cx, absence);
            }
            Identification::Refused(why) => self.unclear(cx, &why, "heeler may not touch it"),
            Identification::Unknown(_) if self.may_soon_be_told(cx.now.mono) => {}
            Identification::Unknown(why) => {
                self.unclear(cx, &why, "it cannot be told whether it runs")
            }
        }
    }

    pub(super) fn missing(&mut self, cx: &mut Cx<'_>, absence: Absence) {
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
                let unasked = clearing.exit == ExitKind::Unasked && clearing.by == By::Heeler;
                let by_pidfile = matches!(self.def.life, Life::Pidfile(_));
                let orderly = if absence == Absence::NoPidfile && by_pidfile {
                    Some("it removed its pidfile")
                } else if absence == Absence::Inactive(UnitEnd::Success) {
                    Some("its unit ended by itself or was stopped (Result=success)")
                } else {
                    None
                };
                if let Absence::Inactive(end) = absence {
                    clearing.ended = Some(end);
                }
                if let Some(words) = orderly
                    && unasked
                    && clearing.successor_until.is_none()
                {
                    let until = clearing.began + self.def.exit_delay;
                    clearing.successor_until = Some(until);
                    let wait = crate::model::units::show_duration(self.def.exit_delay);
                    self.narrate(
                        cx,
                        format!("{words}, an orderly exit: waiting {wait} for a successor"),
                    );
                    // A deploy's own restart is nobody's mail; that none came is told once it is known.
                    self.tell_no_sooner(Cause::Down, until + limits::TELL_AFTER);
                }
                self.say_who_is_at_work(cx, absence);
                self.clear_on(cx);
            }
            Stage::Starting(_) => self.start_missing(cx, absence),
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
                if self.place() == Where::Absent && self.waits_for_others() {
                    let text = "it is down";
                    self.answer(cx, |order| order == Order::Stop, ReplyResult::Done, text);
                    return;
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

    /// What its manager says, for the story and, where nothing is amiss, for the log.
    fn say_who_is_at_work(&mut self, cx: &mut Cx<'_>, absence: Absence) {
        if let Stage::Clearing(clearing) = &mut self.stage
            && clearing.said.replace(absence) == Some(absence)
        {
            return;
        }
        let wait = crate::model::units::show_duration(self.def.start_timeout);
        let text = match absence {
            Absence::Coming => format!("its manager is bringing it up: waiting up to {wait}"),
            Absence::Going => format!("its manager is taking it down: waiting up to {wait}"),
            Absence::Inactive(end) if end != UnitEnd::Success => format!("its unit is down: {end}"),
            Absence::ManagerComing => "its user manager is not up yet: waiting for it".to_owned(),
            Absence::NoManager(uid) => format!("its user manager, user@{uid}.service, is gone"),
            Absence::Stale(_) | Absence::NoPidfile | Absence::NoProcess | Absence::Inactive(_) => {
                return;
            }
        };
        self.narrate_new(cx, text);
    }

    /// Its manager was asked by somebody to put another in the place of the one that is gone: a deploy,
    /// not an incident; unless its manager has said that the one before had failed.
    fn succeeded_in_order(&mut self) {
        if let Stage::Clearing(clearing) = &self.stage
            && clearing.exit == ExitKind::Unasked
            && matches!(clearing.ended, None | Some(UnitEnd::Success))
        {
            self.dismiss(Cause::Down);
        }
    }

    /// While it is being started what names it is being written: nobody is told of a moment of that.
    fn may_soon_be_told(&mut self, now: Mono) -> bool {
        let Stage::Starting(starting) = &mut self.stage else { return false };
        let since = *starting.unclear_since.get_or_insert(now);
        now.since(since) < limits::WRITING && now < starting.deadline
    }

    /// Something is there that may not be touched, or nothing can be told: said, and looked at again.
    pub(super) fn unclear(&mut self, cx: &mut Cx<'_>, why: &Untrusted, words: &str) {
        let title = format!("{words}: {why}");
        if !self.open.contains_key(&Cause::Unclear) {
            self.open_incident(cx, Cause::Unclear, title.clone(), cx.now.mono + limits::TELL_AFTER);
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

    pub(super) fn exited(
        &mut self,
        cx: &mut Cx<'_>,
        identity: ProcessIdentity,
        exit: Option<crate::model::process::Exit>,
    ) {
        if self.main == Some(identity) {
            self.died(cx, identity, exit);
        } else if self.worker_exited(cx, identity) {
        } else if matches!(self.stage, Stage::Clearing(_)) {
            self.survivor_gone(cx, identity);
        } else {
            cx.counters.dropped_answers += 1;
        }
    }

    pub(super) fn confirmed(&mut self, cx: &mut Cx<'_>, how: Confirmation) {
        match how {
            Confirmation::Same => {
                self.resolve(cx, Cause::Unclear, "it is as it should be again");
                let up = matches!(self.place(), Where::Present | Where::StartPeriod);
                if up && self.open.get(&Cause::Down).is_some_and(|open| open.settles_at.is_none()) {
                    // It was open when an earlier keeper ended.
                    self.settle_down_incident(cx);
                }
            }
            Confirmation::ClaimChanged => self.identify(cx),
            Confirmation::Gone => self.died_meanwhile(cx),
        }
    }

    /// The held main process is gone, and nobody said when or how.
    pub(super) fn died_meanwhile(&mut self, cx: &mut Cx<'_>) {
        if let Some(main) = self.main {
            self.died(cx, main, None);
        }
    }

    pub(super) fn finished(
        &mut self,
        cx: &mut Cx<'_>,
        action: crate::model::ids::ActionId,
        outcome: Outcome,
    ) {
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
            JobKind::Start | JobKind::Restart | JobKind::Reload | JobKind::Instance => {
                if !outcome.ended.succeeded() {
                    self.happened(
                        cx,
                        EventKind::Failed,
                        crate::engine::job::describe(kind, &outcome),
                    );
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
                let text = crate::engine::job::describe(kind, &outcome);
                let good = outcome.ended.succeeded();
                let event = if good { EventKind::Acted } else { EventKind::Failed };
                self.happened(cx, event, text);
                self.verify_job_ended(cx, action, &outcome);
                self.clear_anew(cx);
                self.act_on_pending(cx);
            }
            // The engine asks for looks and probes by an effect of their own.
            JobKind::Look | JobKind::Ask | JobKind::Probe(_) => {}
        }
    }

    /// A survivor had its stop signal, or did not: answers whether this was about one.
    pub(super) fn survivor_signalled(
        &mut self,
        cx: &mut Cx<'_>,
        ask: AskId,
        result: &Delivery,
    ) -> bool {
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
                self.happened(
                    cx,
                    EventKind::Failed,
                    format!("a signal to an orphan was not sent: {why}"),
                );
            }
        }
        true
    }

    pub(super) fn signalled(&mut self, cx: &mut Cx<'_>, result: Delivery) {
        match result {
            Delivery::Sent => {
                if let Stage::Killing { sent, .. } = &mut self.stage {
                    *sent = Sent::Confirmed;
                }
                self.was_told_to_go(cx);
            }
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
                    cx.push(Effect::RecordLadder { service: self.def.name.clone(), ladder: None });
                    self.leaving = None;
                    self.stage = Stage::Watching;
                    judge::forget_windows(self, cx.now.mono);
                    self.since = cx.now;
                    self.look_at = cx.now.mono + self.def.every;
                    self.confirm(cx);
                }
            }
        }
    }

    /// Only now: a record of a signal that was never sent would let the next keeper kill without warning.
    pub(super) fn was_told_to_go(&mut self, cx: &mut Cx<'_>) {
        if let Stage::Stopping { target, by: by @ StopBy::Signalling, kill_at } = &mut self.stage {
            *by = StopBy::Ladder;
            let (target, kill_at) = (*target, *kill_at);
            cx.push(Effect::RecordLadder {
                service: self.def.name.clone(),
                ladder: Some(Ladder { identity: target, kill_at }),
            });
        }
    }
}

/// Whether this answer is the one awaited; a late one is counted.
pub(super) fn answers(slot: &mut Option<(AskId, Mono)>, ask: AskId, cx: &mut Cx<'_>) -> bool {
    let awaited = slot.is_some_and(|(awaited, _)| awaited == ask);
    if awaited {
        *slot = None;
    } else {
        cx.counters.dropped_answers += 1;
    }
    awaited
}
