//! Incidents: when one opens, what its story says, when it is told, when it counts as over.
//!
//! Action first, mail after: a death is told once its story has an end, or after
//! [`limits::TELL_AFTER`] without one; never twice for one restart.

use std::time::Duration;

use crate::engine::Cx;
use crate::engine::effect::{Effect, Level};
use crate::engine::state::{OpenIncident, Stage, State, Telling};
use crate::model::event::EventKind;
use crate::model::incident::{Alert, AlertKind, Cause, Incident};
use crate::model::intent::Desired;
use crate::model::job::Output;
use crate::model::limits;
use crate::model::service::Life;
use crate::model::time::{Mono, Wall};
use crate::model::units::show_duration;

/// How long it has to stay up before an ordinary death counts as mended.
const SETTLE: Duration = Duration::from_secs(10);

impl State {
    /// Opens an incident, or adds to the one that is open for this cause.
    pub(super) fn open_incident(
        &mut self,
        cx: &mut Cx<'_>,
        cause: Cause,
        title: String,
        tell_at: Mono,
    ) {
        let event = match cause {
            Cause::UpUnwanted
            | Cause::Unclear
            | Cause::Unkillable
            | Cause::Definition
            | Cause::Check(..)
            | Cause::Hazard(_)
            | Cause::StuckWorker
            | Cause::CheckUnknown(..) => Some(EventKind::Fired),
            // Whoever opens these knows what kind of thing it is.
            Cause::Down | Cause::SetAside => None,
        };
        self.open_incident_as(cx, event, cause, title, tell_at);
    }

    /// The same, where the event is another one.
    pub(super) fn open_incident_as(
        &mut self,
        cx: &mut Cx<'_>,
        event: Option<EventKind>,
        cause: Cause,
        title: String,
        tell_at: Mono,
    ) {
        let level = match cause {
            Cause::SetAside => Level::Info,
            Cause::Down
            | Cause::UpUnwanted
            | Cause::Unclear
            | Cause::Unkillable
            | Cause::Definition => Level::Error,
            Cause::Check(..) | Cause::CheckUnknown(..) | Cause::Hazard(_) | Cause::StuckWorker => {
                Level::Warning
            }
        };
        cx.log(&self.def.name, level, title.clone());
        if let Some(event) = event {
            cx.event(&self.def.name, event, &title);
        }
        cx.dirty = true;
        let one_of_many = cause == Cause::Down && self.limit.one_of_many().is_some();
        if let Some(open) = self.open.get_mut(&cause) {
            if one_of_many {
                // One of many: the last has their number.
                open.record.title.clone_from(&title);
            }
            // It looked over, and is not.
            open.settles_at = None;
            open.mended = None;
            if open.record.told == 0 {
                let long = cx.now.wall.since(open.record.opened) >= limits::TELL_AFTER;
                open.tell_at = if long { cx.now.mono } else { tell_at };
            }
            open.record.tell(cx.now.wall, title);
            return;
        }
        self.incidents_opened += 1;
        let mut record = Incident {
            service: self.def.name.clone(),
            number: self.incidents_opened,
            cause,
            title: title.clone(),
            opened: cx.now.wall,
            closed: None,
            story: Vec::new(),
            dropped_lines: 0,
            output: Output::default(),
            told: 0,
            told_at: Wall::default(),
        };
        record.tell(cx.now.wall, title);
        let telling = match self.held_back() {
            Some(_) if may_be_a_parents(cause) => Telling::HeldBack,
            Some(_) | None => Telling::Free,
        };
        let open = OpenIncident { telling, ..OpenIncident::of(record, tell_at) };
        self.open.insert(cause, Box::new(open));
    }

    /// Says what was decided or done: in the log, and in the story of what is open.
    pub(super) fn narrate(&mut self, cx: &mut Cx<'_>, text: String) {
        cx.log(&self.def.name, Level::Info, text.clone());
        for open in self.open.values_mut() {
            match open.record.cause {
                Cause::SetAside
                | Cause::Definition
                | Cause::CheckUnknown(..)
                | Cause::Hazard(_) => {}
                Cause::Down
                | Cause::UpUnwanted
                | Cause::Unclear
                | Cause::Unkillable
                | Cause::StuckWorker
                | Cause::Check(..) => {
                    open.record.tell(cx.now.wall, text.clone());
                    cx.dirty = true;
                }
            }
        }
    }

    /// The same of a transition, which goes into the history too.
    pub(super) fn happened(&mut self, cx: &mut Cx<'_>, kind: EventKind, text: String) {
        cx.event(&self.def.name, kind, &text);
        self.narrate(cx, text);
    }

    /// The same, unless it was said already.
    pub(super) fn happened_new(&mut self, cx: &mut Cx<'_>, kind: EventKind, text: String) {
        if !self.said(&text) {
            self.happened(cx, kind, text);
        }
    }

    /// The same of what ends in something that changes all the time.
    pub(super) fn happened_new_but_for(
        &mut self,
        cx: &mut Cx<'_>,
        kind: EventKind,
        head: &str,
        tail: &str,
    ) {
        if !self.told_any(|line| line.starts_with(head)) {
            self.happened(cx, kind, format!("{head}{tail}"));
        }
    }

    /// What is no transition, unless it was said already.
    pub(super) fn narrate_new(&mut self, cx: &mut Cx<'_>, text: String) {
        if !self.said(&text) {
            self.narrate(cx, text);
        }
    }

    fn said(&self, text: &str) -> bool {
        self.told_any(|line| line == text)
    }

    fn told_any(&self, is: impl Fn(&str) -> bool) -> bool {
        self.open.values().any(|open| open.record.story.iter().any(|line| is(&line.text)))
    }

    /// Adds what a command printed to the story.
    pub(super) fn show_output(&mut self, cx: &mut Cx<'_>, output: &Output) {
        for open in self.open.values_mut() {
            if matches!(open.record.cause, Cause::Down | Cause::Check(..) | Cause::Unkillable) {
                open.record.output = output.clone();
                cx.dirty = true;
            }
        }
    }

    /// It is up again: the incident is over once it has stayed so for a while.
    pub(super) fn settle_down_incident(&mut self, cx: &mut Cx<'_>) {
        let wait = if self.unsteady() { self.def.start_limit.window } else { SETTLE };
        let now = cx.now.mono;
        if let Some(open) = self.open.get_mut(&Cause::Down) {
            open.settles_at = Some(now + wait);
            open.mended = Some(cx.now.wall);
            if open.record.told == 0 {
                // One mail that is true: it waits for the end of the story.
                open.tell_at = now + SETTLE;
            }
        }
    }

    /// It looks over: it is, unless it shows again within a while.
    pub(super) fn looks_over(&mut self, cx: &Cx<'_>, cause: Cause) {
        if let Some(open) = self.open.get_mut(&cause).filter(|open| open.settles_at.is_none()) {
            open.settles_at = Some(cx.now.mono + SETTLE);
            open.mended = Some(cx.now.wall);
            if open.record.told == 0 {
                open.tell_at = cx.now.mono + SETTLE;
            }
        }
    }

    /// It only looked over.
    pub(super) fn only_looked_over(&mut self, cause: Cause) {
        if let Some(open) = self.open.get_mut(&cause) {
            (open.settles_at, open.mended) = (None, None);
        }
    }

    /// Whether it is mended only after a full window of health.
    fn unsteady(&self) -> bool {
        self.limit.troubled() || self.limit.restless()
    }

    /// The trouble is bad enough to be told now.
    pub(super) fn tell_soon(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        if let Some(open) = self.open.get_mut(&cause)
            && open.record.told == 0
        {
            open.tell_at = cx.now.mono;
        }
    }

    /// What is not told yet is told then at the earliest.
    pub(super) fn tell_no_sooner(&mut self, cause: Cause, at: Mono) {
        if let Some(open) = self.open.get_mut(&cause).filter(|open| open.record.told == 0) {
            open.tell_at = open.tell_at.max(at);
        }
    }

    /// It was no incident after all, and nobody was told of one.
    pub(super) fn dismiss(&mut self, cause: Cause) {
        if self.open.get(&cause).is_some_and(|open| open.record.told == 0) {
            self.open.remove(&cause);
        }
    }

    /// Closes an incident, if it is open, and tells.
    pub(super) fn resolve(&mut self, cx: &mut Cx<'_>, cause: Cause, how: &str) {
        if let Some(open) = self.open.remove(&cause) {
            let next = self.what_next(cx.now.mono);
            self.close(cx, *open, how, next);
        }
    }

    /// Closes an incident that is not among the open ones any more, and tells.
    pub(super) fn close(
        &mut self,
        cx: &mut Cx<'_>,
        mut open: OpenIncident,
        how: &str,
        next: String,
    ) {
        open.record.tell(cx.now.wall, format!("over: {how}"));
        open.record.closed = Some(open.mended.unwrap_or(cx.now.wall));
        let over = format!("over: {} ({how})", open.record.title);
        // What changed is one event, and that it ends is none; an operator's doing is one already.
        let cause = open.record.cause;
        let was_a_moment = cause.place().is_some() && open.settles_at.is_some();
        if cause != Cause::SetAside && !was_a_moment {
            cx.event(&self.def.name, EventKind::Resolved, &over);
        }
        cx.log(&self.def.name, Level::Info, over);
        cx.dirty = true;
        let kind =
            if open.record.told == 0 { AlertKind::FiredAndResolved } else { AlertKind::Resolved };
        let doubt = matches!(
            cause,
            Cause::SetAside | Cause::Unclear | Cause::Definition | Cause::CheckUnknown(..)
        );
        if doubt && open.record.told == 0 {
            // It passed before anybody heard of it: nothing to tell, and no incident to look back on.
            return;
        }
        let held = open.telling == Telling::HeldBack || self.held_back().is_some();
        if open.record.told == 0 && may_be_a_parents(cause) && held {
            // The parent's mail has told of it.
            self.last_incident = Some(open.record);
            return;
        }
        send(cx, &self.def.alert, &mut open.record, kind, next);
        self.last_incident = Some(open.record);
    }

    /// Tells what is due, and closes what has settled.
    pub(super) fn incidents_due(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let due = |open: &OpenIncident| {
            now >= open.tell_at || open.settles_at.is_some_and(|at| now >= at)
        };
        if !self.open.values().any(|open| due(open)) {
            return;
        }
        let settled: Vec<_> = self
            .open
            .iter()
            .filter(|(_, open)| open.settles_at.is_some_and(|at| now >= at))
            .map(|(cause, _)| *cause)
            .collect();
        for cause in settled {
            let how = match cause {
                Cause::Check(..) => "it happened, and that is all".to_owned(),
                Cause::StuckWorker => "its master waits for nobody any more".to_owned(),
                Cause::Down
                | Cause::UpUnwanted
                | Cause::Unclear
                | Cause::Unkillable
                | Cause::SetAside
                | Cause::Definition
                | Cause::Hazard(_)
                | Cause::CheckUnknown(..) => {
                    self.main.map(|main| format!("up since as pid {main}")).unwrap_or_default()
                }
            };
            self.resolve(cx, cause, &how);
        }
        let next = self.what_next(now);
        let remind = self.def.remind;
        let held = self.held_back().is_some();
        for open in self.open.values_mut().filter(|open| now >= open.tell_at) {
            if held && may_be_a_parents(open.record.cause) {
                open.telling = Telling::HeldBack;
                open.tell_at = now + remind;
                continue;
            }
            open.telling = Telling::Free;
            let kind = if open.record.told == 0 { AlertKind::Fired } else { AlertKind::Reminder };
            open.tell_at = now + remind_after(open.record.cause, remind);
            send(cx, &self.def.alert, &mut open.record, kind, next.clone());
            cx.dirty = true;
        }
    }

    /// What happens next, for a person who reads only the mail.
    pub(super) fn what_next(&self, now: Mono) -> String {
        let name = &self.def.name;
        if let Some(why) = self.held_back().filter(|_| self.intent.desired == Desired::Up) {
            return format!("heeler does nothing about it while that lasts: {why}");
        }
        match (self.intent.desired, &self.stage) {
            (Desired::Up | Desired::Down, Stage::Clearing(_) | Stage::Watching)
                if self.open.contains_key(&Cause::Unclear) =>
            {
                "heeler signals and starts nothing until it can prove what is meant: mend what is named \
                 above; it looks again by itself"
                    .to_owned()
            }
            (Desired::Unmonitored, _) => {
                format!("nothing: it is not monitored; `heeler monitor {name}` ends that")
            }
            (Desired::Down, Stage::Watching) => {
                format!("nothing: it is wanted down; `heeler start {name}` ends that")
            }
            (_, Stage::Killing { .. }) => {
                "heeler looks again and starts no second copy while the old one is there".to_owned()
            }
            (Desired::Up, Stage::Backoff { until }) => {
                let wait = show_duration(until.since(now));
                format!("heeler tries again in {wait}; `heeler start {name}` tries now")
            }
            (Desired::Up, Stage::Watching) if self.def.life == Life::Nothing => {
                "heeler goes on checking: it has no process that could be started".to_owned()
            }
            (Desired::Up, Stage::Watching) if self.main.is_none() && self.def.startable() => {
                "heeler looks again".to_owned()
            }
            (Desired::Up, Stage::Watching) if self.main.is_none() => {
                "heeler has no way to start it and waits for it to come back".to_owned()
            }
            (Desired::Up, Stage::Watching | Stage::StartPeriod { .. })
                if self.open.contains_key(&Cause::Down) && self.unsteady() =>
            {
                let window = show_duration(self.def.start_limit.window);
                format!("heeler goes on watching; it counts as mended after {window} without a death")
            }
            (Desired::Up, Stage::Watching | Stage::StartPeriod { .. }) => {
                "heeler goes on watching".to_owned()
            }
            (Desired::Up, Stage::Clearing(_)) => {
                "heeler waits for what is left of the old process, then starts it".to_owned()
            }
            (Desired::Up, Stage::Starting(_)) => "heeler waits for the start to succeed".to_owned(),
            (Desired::Up, Stage::Stopping { .. }) => {
                "heeler stops it and starts it again".to_owned()
            }
            (Desired::Down, _) => "heeler stops it".to_owned(),
        }
    }
}

/// How long after an alert it is told again.
pub(super) fn remind_after(cause: Cause, remind: Duration) -> Duration {
    match cause {
        Cause::Hazard(_) => remind.saturating_mul(limits::HAZARD_REMIND_TIMES),
        Cause::Down
        | Cause::UpUnwanted
        | Cause::Unclear
        | Cause::Unkillable
        | Cause::SetAside
        | Cause::Definition
        | Cause::StuckWorker
        | Cause::Check(..)
        | Cause::CheckUnknown(..) => remind,
    }
}

/// Whether a parent's trouble may be the reason.
fn may_be_a_parents(cause: Cause) -> bool {
    match cause {
        Cause::Down | Cause::Unclear | Cause::Check(..) | Cause::CheckUnknown(..) => true,
        Cause::UpUnwanted
        | Cause::Unkillable
        | Cause::SetAside
        | Cause::Definition
        | Cause::StuckWorker
        | Cause::Hazard(_) => false,
    }
}

fn send(cx: &mut Cx<'_>, to: &[Box<str>], record: &mut Incident, kind: AlertKind, next: String) {
    let sequence = record.told;
    record.told += 1;
    record.told_at = cx.now.wall;
    let incident = record.clone();
    let to = to.to_vec();
    cx.push(Effect::Alert(Box::new(Alert { incident, sequence, kind, to, next })));
}
