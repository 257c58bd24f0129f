//! Carries out the moves of the table: what is held, adopted, let go of.

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::judge;
use crate::engine::state::{By, ExitKind, Stage, State};
use crate::engine::table::{self, Class, Move, Where};
use crate::model::event::EventKind;
use crate::model::incident::Cause;
use crate::model::intent::Desired;
use crate::model::limits;
use crate::model::memory::Acquaintance;
use crate::model::order::{Order, ReplyResult};
use crate::model::process::{Exit, ProcessIdentity};
use crate::model::service::Life;
use crate::model::time::Mono;
use crate::model::units::show_duration;

/// Why workers are not a service's any more.
const ANOTHER_MAIN: &str = "the main process is another one now";

impl State {
    /// Looks the class up and does what the table says. `identity`: the one that appeared.
    pub(super) fn happen(
        &mut self,
        cx: &mut Cx<'_>,
        class: Class,
        identity: Option<ProcessIdentity>,
    ) {
        let place = self.place();
        cx.visited(self.intent.desired, place, class);
        match table::decide(self.intent.desired, place, class) {
            Move::Hold => {}
            Move::Adopt => self.adopt(cx, identity),
            Move::AdoptUnwanted => self.adopt_unwanted(cx, identity),
            Move::AdoptAndStop => {
                self.take(cx, identity);
                self.begin_stop(cx, By::Operator);
            }
            Move::Clear => {
                let (exit, by) = match place {
                    Where::Stopping | Where::Killing => {
                        (ExitKind::Ours, self.leaving.map_or(By::Heeler, |(_, by)| by))
                    }
                    Where::Present | Where::StartPeriod => match self.asked_to_go() {
                        Some(by) => (ExitKind::Ours, by),
                        None => (ExitKind::Unasked, By::Heeler),
                    },
                    Where::Absent | Where::Clearing | Where::Starting | Where::Backoff => {
                        (ExitKind::NeverThere, By::Heeler)
                    }
                };
                self.begin_clearing(cx, exit, by);
            }
            Move::Start => self.start(cx),
            Move::StartNow => self.begin_clearing(cx, ExitKind::NeverThere, By::Operator),
            Move::Stop => {
                let by = if self.waiters.is_empty() { By::Heeler } else { By::Operator };
                self.begin_stop(cx, by);
            }
            Move::Reload => self.begin_reload(cx),
            Move::Kill => self.kill(cx),
            Move::Unkillable => self.unkillable(cx),
            Move::Retry => self.retry(cx),
            Move::Settle => self.settle(cx),
            Move::Rest => self.rest(cx),
            Move::Impossible => cx.impossible(&self.def.name, place, class),
        }
    }

    pub(super) fn enter(&mut self, cx: &mut Cx<'_>, stage: Stage) {
        self.stage = stage;
        self.since = cx.now;
        cx.dirty = true;
    }

    /// Holds a process as the main one, whatever was held before.
    pub(super) fn take(&mut self, cx: &mut Cx<'_>, identity: Option<ProcessIdentity>) {
        let Some(identity) = identity else { return };
        if let Some(old) = self.main.filter(|old| *old != identity) {
            cx.push(Effect::Unwatch { service: self.def.name.clone(), identity: old });
        }
        let another = self.main != Some(identity);
        self.main = Some(identity);
        if another {
            self.reloaded = None;
            self.dismiss_crew(cx, ANOTHER_MAIN);
        }
        self.recalled = None;
        self.asked.confirm = None;
        self.asked.sample = None;
        judge::forget_windows(self, cx.now.mono);
        cx.dirty = true;
    }

    pub(super) fn adopt(&mut self, cx: &mut Cx<'_>, identity: Option<ProcessIdentity>) {
        let before = self.main;
        let known = self.recalled.is_some() && self.recalled == identity;
        if !known && self.main.is_none() && matches!(self.def.life, Life::Run(_)) {
            // Nobody but an earlier keeper put this one in the place of the one that is remembered.
            self.recall_death(cx, self.recalled);
        }
        self.take(cx, identity);
        let pid = self.main.map(|main| main.to_string()).unwrap_or_default();
        if known {
            // An earlier keeper's process, still there: nothing new began.
            self.main_since = Mono::ZERO;
            self.enter(cx, Stage::Watching);
        } else {
            match (before, self.gone_at) {
                (Some(old), _) => {
                    self.happened(
                        cx,
                        EventKind::Started,
                        format!("the main process changed from {old} to {pid}"),
                    );
                }
                (None, Some(gone)) => {
                    let took = show_duration(cx.now.mono.since(gone));
                    self.happened(
                        cx,
                        EventKind::Started,
                        format!("up again: pid {pid}, after {took}"),
                    );
                }
                (None, None) => self.happened(cx, EventKind::Started, format!("up: pid {pid}")),
            }
            if matches!(&self.stage, Stage::Clearing(clearing) if clearing.successor_until.is_some())
            {
                // Somebody stopped it in order and started it again: a deploy, not an incident.
                self.dismiss(Cause::Down);
            }
            self.resolve(cx, Cause::Unkillable, "another process took its place");
            self.main_since = cx.now.mono;
            let until = cx.now.mono + self.def.start_period;
            self.enter(cx, Stage::StartPeriod { until });
        }
        self.gone_at = None;
        self.last_failure = None;
        self.acquaintance = Acquaintance::Known;
        self.limit.up(cx.now.mono);
        if !known && self.open.contains_key(&Cause::Down) {
            self.limit.returned();
        }
        self.resolve(cx, Cause::UpUnwanted, "it is wanted again");
        self.settle_down_incident(cx);
        self.schedule_first_look(cx.now.mono);
        if !known {
            judge::look_for_events(self, cx.now.mono);
        }
        self.answer_up(cx);
        if let Some((target, by)) = self.leaving {
            // What was set aside meanwhile is left alone.
            if Some(target) == self.main && self.intent.desired != Desired::Unmonitored {
                // The stop an earlier keeper was asked for and did not finish.
                self.begin_stop(cx, by);
                return;
            }
            self.leaving = None;
        }
        if self.def.start_period.is_zero() {
            self.settle(cx);
        }
    }

    pub(super) fn adopt_unwanted(&mut self, cx: &mut Cx<'_>, identity: Option<ProcessIdentity>) {
        let asked_to_go = self.leaving.is_some_and(|(target, _)| Some(target) == identity)
            || self.waiters.iter().any(|waiter| waiter.order == Order::Stop);
        self.take(cx, identity);
        if asked_to_go {
            self.begin_stop(cx, By::Operator);
            return;
        }
        self.enter(cx, Stage::Watching);
        self.schedule_first_look(cx.now.mono);
        let pid = self.main.map(|main| main.to_string()).unwrap_or_default();
        let title = format!("found up (pid {pid}) while it is wanted down");
        self.open_incident(cx, Cause::UpUnwanted, title, cx.now.mono);
    }

    pub(super) fn settle(&mut self, cx: &mut Cx<'_>) {
        self.enter(cx, Stage::Watching);
        judge::forget_windows(self, cx.now.mono);
    }

    pub(super) fn rest(&mut self, cx: &mut Cx<'_>) {
        if let Some(main) = self.main.take() {
            self.last_main = Some(main);
        }
        self.leaving = None;
        self.recalled = None;
        self.enter(cx, Stage::Watching);
        self.look_at = cx.now.mono + self.def.every;
        self.gone_at = None;
        self.limit.down();
        self.resolve(cx, Cause::UpUnwanted, "it is down");
        self.resolve(cx, Cause::Unkillable, "it is gone");
        if self.intent.desired != Desired::Up {
            self.resolve(cx, Cause::Down, "it is not wanted up any more");
            self.forget_checks(cx);
            self.answer(cx, |order| order == Order::Stop, ReplyResult::Done, "it is down");
        }
        self.answer(cx, |order| order == Order::Reload, ReplyResult::Failed, "it is down");
    }

    /// The held main process, or the one that was told to go, is gone.
    pub(super) fn died(&mut self, cx: &mut Cx<'_>, identity: ProcessIdentity, exit: Option<Exit>) {
        self.last_main = Some(identity);
        self.recalled = self.recalled.filter(|recalled| *recalled != identity);
        self.limit.down();
        let place = self.place();
        let words = how_gone(exit);
        match place {
            Where::Absent | Where::Clearing | Where::Backoff => {}
            Where::Present
            | Where::Starting
            | Where::StartPeriod
            | Where::Stopping
            | Where::Killing => cx.event(&self.def.name, EventKind::Exited, &death(identity, exit)),
        }
        match place {
            Where::Stopping | Where::Killing => {
                self.narrate(cx, format!("pid {identity} {words}"));
                cx.push(Effect::RecordLadder { service: self.def.name.clone(), ladder: None });
            }
            Where::Starting => self.narrate(cx, format!("the old process {identity} {words}")),
            // An earlier keeper told it to go, and did not live to see it gone.
            Where::Present | Where::StartPeriod if self.asked_to_go().is_some() => {
                self.narrate(cx, format!("pid {identity} {words}"));
            }
            Where::Present | Where::StartPeriod => match self.intent.desired {
                Desired::Up => {
                    self.gone_at.get_or_insert(cx.now.mono);
                    let title = format!("{}{}", death(identity, exit), self.how_often());
                    let tell_at = cx.now.mono + limits::TELL_AFTER;
                    self.open_incident(cx, Cause::Down, title, tell_at);
                }
                Desired::Down | Desired::Unmonitored => {
                    self.narrate(cx, format!("pid {identity} {words}"));
                }
            },
            Where::Absent | Where::Clearing | Where::Backoff => {}
        }
        self.resolve(cx, Cause::Unkillable, "it is gone");
        if place != Where::Starting {
            self.happen(cx, Class::Died, None);
        }
        self.main = None;
        self.dismiss_crew(cx, ANOTHER_MAIN);
        self.verify_lost_master(cx);
        cx.dirty = true;
    }

    /// What is added to a death that is one of many.
    fn how_often(&self) -> String {
        let Some(deaths) = self.limit.one_of_many() else { return String::new() };
        let window = show_duration(self.def.start_limit.window);
        format!(", {deaths} deaths without {window} of health between")
    }

    /// By whom the held main process was told to go.
    pub(super) fn asked_to_go(&self) -> Option<By> {
        self.leaving.filter(|(target, _)| Some(*target) == self.main).map(|(_, by)| by)
    }
}

/// What an incident's story says of a death.
pub(super) fn death(main: ProcessIdentity, exit: Option<Exit>) -> String {
    format!("the main process {main} {}", how_gone(exit))
}

/// Whether a line of a story says that.
pub(super) fn tells_death(line: &str, main: ProcessIdentity) -> bool {
    line.starts_with(&death(main, None))
}

fn how_gone(exit: Option<Exit>) -> String {
    exit.map_or_else(|| "is gone".to_owned(), |exit| format!("is gone: {exit}"))
}
