//! Starting: once, within the limit, and judged by the process that is there, not by an exit code.

use crate::engine::Cx;
use crate::engine::job::describe;
use crate::engine::start_limit::Permission;
use crate::engine::state::{Brings, By, Clearing, ExitKind, Stage, Starting, State};
use crate::engine::table::Class;
use crate::model::event::EventKind;
use crate::model::incident::Cause;
use crate::model::job::{JobKind, Outcome};
use crate::model::limits;
use crate::model::memory::Acquaintance;
use crate::model::order::{Order, ReplyResult};
use crate::model::process::Absence;
use crate::model::process::Uid;
use crate::model::service::{Command, Life, Mode};
use crate::model::time::Mono;
use crate::model::unit::{Manager, Systemctl, UnitEnd, Verb};
use crate::model::units::show_duration;

impl State {
    /// Starts, if that is possible and allowed now.
    pub(super) fn start(&mut self, cx: &mut Cx<'_>) {
        let Stage::Clearing(Clearing { by, absence, exit, .. }) = self.stage else {
            return;
        };
        let (brings, missing) = match absence {
            Some((Absence::NoManager(uid), _)) => (Brings::Manager, Some(start_manager(uid))),
            Some(_) | None => (Brings::Service, None),
        };
        let goes_on = (exit, brings) == (ExitKind::ManagerFirst, Brings::Service);
        let stale = match absence {
            Some((Absence::Stale(pid), _)) => Some(pid),
            Some(_) | None => None,
        };
        let now = cx.now.mono;
        if !self.can_start() {
            let text = "nothing can be started here: waiting for it to come back";
            self.happened_new(cx, EventKind::GaveUp, text.to_owned());
            let waits = |order| matches!(order, Order::Start | Order::Restart);
            self.answer(cx, waits, ReplyResult::Failed, text);
            self.enter(cx, Stage::Watching);
            self.look_at = now + self.def.every;
            return;
        }
        let mut which = String::new();
        if by == By::Heeler {
            if let Some(why) = self.held_back() {
                self.happened_new(cx, EventKind::GaveUp, format!("not started: {why}"));
                self.enter(cx, Stage::Watching);
                self.look_at = now + self.def.every;
                return;
            }
            if self.delayed_until > now {
                let until = self.delayed_until;
                let wait = show_duration(until.since(now));
                self.narrate(cx, format!("its start_delay: starting it in {wait}"));
                self.enter(cx, Stage::Backoff { until });
                return;
            }
            if self.def.mode == Mode::Observe {
                self.happened_new(
                    cx,
                    EventKind::Acted,
                    "would start it now, but mode is \"observe\"".to_owned(),
                );
                self.enter(cx, Stage::Watching);
                self.look_at = now + self.def.every;
                return;
            }
            // Its manager's start and its own are one.
            let permission = if goes_on {
                None
            } else {
                Some(self.limit.ask(now, self.def.start_limit, self.def.backoff))
            };
            match permission {
                None => {}
                Some(Permission::Go) => {
                    let count = self.limit.started(now, self.def.start_limit);
                    which = format!(" ({count} of {})", self.def.start_limit);
                }
                Some(Permission::Gap(until)) => {
                    self.enter(cx, Stage::Backoff { until });
                    return;
                }
                Some(Permission::BackOff(until)) => {
                    self.back_off(cx, until);
                    return;
                }
            }
        }
        let (kind, command) = match (&self.def.life, missing.as_ref().or(self.def.start.as_ref())) {
            (Life::Run(command), _) => (JobKind::Instance, command.clone()),
            (Life::Pidfile(_) | Life::Match(_) | Life::Unit(_), Some(command)) => {
                (JobKind::Start, command.clone())
            }
            (Life::Pidfile(_) | Life::Match(_) | Life::Unit(_), None) | (Life::Nothing, _) => {
                return;
            }
        };
        let (action, deadline) = match self.job {
            // An earlier start command that never returned: it is still the action.
            Some(job) => (job.action, job.lost_at),
            None => {
                self.last_failure = None;
                self.happened(cx, EventKind::Acted, format!("starting{which}: {command}"));
                let timeout = command.timeout.unwrap_or(self.def.start_timeout);
                (self.run(cx, kind, command, now + timeout, "start"), now + self.def.start_timeout)
            }
        };
        // Whoever was to go is gone: from here on this is a start like any other.
        self.leaving = None;
        self.enter(
            cx,
            Stage::Starting(Starting {
                kind,
                brings,
                action: Some(action),
                ended: None,
                before: self.last_main,
                deadline,
                poll_at: now + self.poll(),
                by,
                stale,
                dead_on_arrival: None,
                unclear_since: None,
            }),
        );
    }

    pub(super) fn can_start(&self) -> bool {
        self.def.startable()
    }

    /// Whether it is not to be started by itself now, for a reason that is not its own.
    pub(super) fn waits_for_others(&self) -> bool {
        self.held_back().is_some() || self.acquaintance == Acquaintance::Left
    }

    /// Whether heeler may start it by itself.
    pub(super) fn may_start(&self) -> bool {
        self.def.startable() && self.def.mode == Mode::Active
    }

    pub(super) fn back_off(&mut self, cx: &mut Cx<'_>, until: Mono) {
        let wait = show_duration(until.since(cx.now.mono));
        let limit = self.def.start_limit;
        self.happened(
            cx,
            EventKind::GaveUp,
            format!("the start limit of {limit} is used up: the next start is in {wait}"),
        );
        self.enter(cx, Stage::Backoff { until });
        self.look_at = cx.now.mono + self.def.every;
        if self.limit.first_backoff()
            && let Some(open) = self.open.get_mut(&Cause::Down)
        {
            // Worth a mail even when the death was told: from here on nothing happens for a while.
            open.tell_at = cx.now.mono;
        }
    }

    /// Time passed, or something was learnt, during a start.
    pub(super) fn start_on(&mut self, cx: &mut Cx<'_>) {
        let (now, poll) = (cx.now.mono, self.poll());
        let Stage::Starting(starting) = &mut self.stage else {
            return;
        };
        if now >= starting.deadline {
            match self.job.filter(|job| Some(job.action) == starting.action) {
                // Its shim is about to end it and say so.
                Some(job) if now < job.lost_at => starting.deadline = job.lost_at,
                Some(_) | None if self.main.is_some() => {
                    self.stayed_the_same(cx);
                    return;
                }
                Some(_) | None => {
                    self.happen(cx, Class::Late, None);
                    return;
                }
            }
        }
        if now >= starting.poll_at {
            starting.poll_at = now + poll;
            self.identify(cx);
        }
    }

    /// There is no process yet. A command that failed will bring none; nor will one whose process is in
    /// the claim already, and dead: unless the claim changes while one can look twice.
    pub(super) fn start_missing(&mut self, cx: &mut Cx<'_>, absence: Absence) {
        let now = cx.now.mono;
        let Stage::Starting(starting) = &mut self.stage else { return };
        let Some((ended, at)) = &starting.ended else { return };
        let failed = ended.ended.failed();
        // A look that began before the command ended says nothing of what came of it.
        let seen_after = self.look_began >= *at;
        let down = absence.inactive().filter(|_| seen_after).map(|end| (end, starting.brings));
        starting.dead_on_arrival = match (absence, starting.dead_on_arrival) {
            (Absence::Stale(pid), _) if starting.stale == Some(pid) => None,
            (Absence::Stale(pid), Some((same, since))) if pid == same => Some((same, since)),
            (Absence::Stale(pid), _) => Some((pid, now)),
            (
                Absence::NoPidfile
                | Absence::NoProcess
                | Absence::Coming
                | Absence::Going
                | Absence::Inactive(_)
                | Absence::NoManager(_)
                | Absence::ManagerComing,
                _,
            ) => None,
        };
        let dead = starting
            .dead_on_arrival
            .filter(|(_, since)| now.since(*since) >= limits::DEAD_ON_ARRIVAL)
            .map(|(pid, _)| pid);
        if failed && self.main.is_some() {
            self.stayed_the_same(cx);
        } else if failed {
            self.happen(cx, Class::StartFailed, None);
        } else if let Some((end, brings)) = down.filter(|_| self.main.is_none()) {
            self.unit_did_not_come(cx, end, brings);
        } else if let Some(pid) = dead.filter(|_| self.main.is_none()) {
            self.last_failure = Some(format!("it came up as pid {pid} and was gone again"));
            self.happen(cx, Class::StartFailed, None);
        }
    }

    /// The start command ended, or the foreground program did before it was ever seen.
    pub(super) fn start_ended(&mut self, cx: &mut Cx<'_>, kind: JobKind, outcome: Outcome) {
        let succeeded = outcome.ended.succeeded();
        if !succeeded {
            self.last_failure = Some(describe(kind, &outcome));
        }
        let Stage::Starting(starting) = &mut self.stage else {
            return;
        };
        starting.action = None;
        starting.ended = Some((outcome, cx.now.mono));
        if !succeeded && kind == JobKind::Instance {
            self.happen(cx, Class::StartFailed, None);
        } else {
            self.identify(cx);
        }
    }

    /// The start is over, and the manager says that the unit is down.
    fn unit_did_not_come(&mut self, cx: &mut Cx<'_>, end: UnitEnd, brings: Brings) {
        match brings {
            Brings::Service => {
                self.last_failure = Some(format!("its unit is down again: {end}"));
                self.happen(cx, Class::StartFailed, None);
            }
            Brings::Manager => {
                self.narrate(cx, "its user manager is up again, without it".to_owned());
                let Stage::Starting(Starting { by, .. }) = self.stage else { return };
                self.begin_clearing(cx, ExitKind::ManagerFirst, by);
            }
        }
    }

    pub(super) fn retry(&mut self, cx: &mut Cx<'_>) {
        let Stage::Starting(starting) = &self.stage else {
            return;
        };
        let by = starting.by;
        let ended = starting.ended.clone();
        let why = self.last_failure.clone().unwrap_or_else(|| {
            format!("no process within {}", show_duration(self.def.start_timeout))
        });
        self.last_failure = Some(why.clone());
        let title = format!("failed to start: {why}");
        self.gone_at.get_or_insert(cx.now.mono);
        // A command that failed has been told of by itself.
        let told = ended.as_ref().is_some_and(|(ended, _)| !ended.ended.succeeded());
        if !self.open.contains_key(&Cause::Down) {
            let event = (!told).then_some(EventKind::Failed);
            let tell_at = cx.now.mono + limits::TELL_AFTER;
            self.open_incident_as(cx, event, Cause::Down, title.clone(), tell_at);
            // When the command ended there was nothing open yet that could show what it printed.
            if let Some((ended, _)) = &ended {
                self.show_output(cx, &ended.output);
            }
        } else if !told {
            self.happened(cx, EventKind::Failed, title.clone());
        }
        let waits = |order| matches!(order, Order::Start | Order::Restart | Order::Reload);
        self.answer(cx, waits, ReplyResult::Failed, &title);
        if by == By::Operator {
            // A person's start is not counted, but what follows is heeler's own: it keeps the gap.
            self.limit.overrule();
        }
        let now = cx.now.mono;
        let until = match self.limit.ask(now, self.def.start_limit, self.def.backoff) {
            Permission::Go | Permission::Gap(_) => now + limits::START_GAP_MIN,
            Permission::BackOff(until) => {
                self.back_off(cx, until);
                return;
            }
        };
        self.enter(cx, Stage::Backoff { until });
        self.look_at = now + self.def.every;
    }
}

/// What brings the manager of a user up, where lingering says that it is to be there.
fn start_manager(uid: Uid) -> Command {
    let unit = format!("user@{uid}.service").into();
    Command::systemctl(Systemctl { manager: Manager::System, verb: Verb::Start, unit })
}
