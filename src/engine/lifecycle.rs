//! Carries out the moves of the table: stages, their deadlines, and the effects they need.

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::judge;
use crate::engine::start_limit::Permission;
use crate::engine::state::{
    Asked, By, Clearing, ExitKind, Reaping, RunningJob, Stage, Starting, State, StopBy, Surveyed,
    Told,
};
use crate::engine::table::{self, Class, Move, Where};
use crate::model::ids::ActionId;
use crate::model::incident::Cause;
use crate::model::intent::Desired;
use crate::model::job::{AtDeadline, Ended, Job, JobKind, Outcome};
use crate::model::limits;
use crate::model::order::{Order, ReplyResult};
use crate::model::process::{Absence, Exit, Holding, Ours, ProcessIdentity, Signal};
use crate::model::service::{Command, Life, Mode};
use crate::model::time::Mono;
use crate::model::units::show_duration;

/// How long past its deadline a job's shim may take to end it before the job counts as lost.
const SHIM_GRACE: std::time::Duration = std::time::Duration::from_secs(20);

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
                    Where::Stopping | Where::Killing => (
                        ExitKind::Ours,
                        self.leaving.map_or(By::Heeler, |(_, by)| by),
                    ),
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
                let by = if self.waiters.is_empty() {
                    By::Heeler
                } else {
                    By::Operator
                };
                self.begin_stop(cx, by);
            }
            Move::Kill => self.kill(cx),
            Move::Unkillable => self.unkillable(cx),
            Move::Retry => self.retry(cx),
            Move::Settle => self.settle(cx),
            Move::Rest => self.rest(cx),
            Move::Impossible => cx.impossible(&self.def.name, place, class),
        }
    }

    fn enter(&mut self, cx: &mut Cx<'_>, stage: Stage) {
        self.stage = stage;
        self.since = cx.now;
        cx.dirty = true;
    }

    // ---- being there -------------------------------------------------------------------------

    /// Holds a process as the main one, whatever was held before.
    fn take(&mut self, cx: &mut Cx<'_>, identity: Option<ProcessIdentity>) {
        let Some(identity) = identity else { return };
        if let Some(old) = self.main.filter(|old| *old != identity) {
            cx.push(Effect::Unwatch {
                service: self.def.name.clone(),
                identity: old,
            });
        }
        self.main = Some(identity);
        self.recalled = None;
        self.asked.confirm = None;
        self.asked.sample = None;
        judge::forget_windows(self);
        cx.dirty = true;
    }

    fn adopt(&mut self, cx: &mut Cx<'_>, identity: Option<ProcessIdentity>) {
        let before = self.main;
        let known = self.recalled.is_some() && self.recalled == identity;
        self.take(cx, identity);
        let pid = self.main.map(|main| main.to_string()).unwrap_or_default();
        if known {
            // An earlier keeper's process, still there: nothing new began.
            self.enter(cx, Stage::Watching);
        } else {
            match (before, self.gone_at) {
                (Some(old), _) => {
                    self.narrate(cx, format!("the main process changed from {old} to {pid}"));
                }
                (None, Some(gone)) => {
                    let took = show_duration(cx.now.mono.since(gone));
                    self.narrate(cx, format!("up again: pid {pid}, after {took}"));
                }
                (None, None) => self.narrate(cx, format!("up: pid {pid}")),
            }
            self.resolve(cx, Cause::Unkillable, "another process took its place");
            let until = cx.now.mono + self.def.start_period;
            self.enter(cx, Stage::StartPeriod { until });
        }
        self.gone_at = None;
        self.last_failure = None;
        self.limit.up(cx.now.mono);
        self.resolve(cx, Cause::UpUnwanted, "it is wanted again");
        self.settle_down_incident(cx);
        self.schedule_first_look(cx.now.mono);
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

    fn adopt_unwanted(&mut self, cx: &mut Cx<'_>, identity: Option<ProcessIdentity>) {
        let asked_to_go = self
            .leaving
            .is_some_and(|(target, _)| Some(target) == identity)
            || self
                .waiters
                .iter()
                .any(|waiter| waiter.order == Order::Stop);
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
        judge::forget_windows(self);
    }

    fn rest(&mut self, cx: &mut Cx<'_>) {
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
            self.answer(
                cx,
                |order| order == Order::Stop,
                ReplyResult::Done,
                "it is down",
            );
        }
    }

    // ---- going away --------------------------------------------------------------------------

    /// The held main process, or the one that was told to go, is gone.
    pub(super) fn died(&mut self, cx: &mut Cx<'_>, identity: ProcessIdentity, exit: Option<Exit>) {
        self.last_main = Some(identity);
        self.recalled = self.recalled.filter(|recalled| *recalled != identity);
        self.limit.down();
        let place = self.place();
        let words = exit.map_or_else(|| "is gone".to_owned(), |exit| format!("is gone: {exit}"));
        match place {
            Where::Stopping | Where::Killing => {
                self.narrate(cx, format!("pid {identity} {words}"));
                cx.push(Effect::RecordLadder {
                    service: self.def.name.clone(),
                    ladder: None,
                });
            }
            Where::Starting => self.narrate(cx, format!("the old process {identity} {words}")),
            // An earlier keeper told it to go, and did not live to see it gone.
            Where::Present | Where::StartPeriod if self.asked_to_go().is_some() => {
                self.narrate(cx, format!("pid {identity} {words}"));
            }
            Where::Present | Where::StartPeriod => match self.intent.desired {
                Desired::Up => {
                    self.gone_at.get_or_insert(cx.now.mono);
                    let title = format!("the main process {identity} {words}");
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
        cx.dirty = true;
    }

    /// By whom the held main process was told to go.
    fn asked_to_go(&self) -> Option<By> {
        self.leaving.filter(|(target, _)| Some(*target) == self.main).map(|(_, by)| by)
    }

    fn begin_clearing(&mut self, cx: &mut Cx<'_>, exit: ExitKind, by: By) {
        let dead = match exit {
            ExitKind::Ours | ExitKind::Unasked => self.main.take(),
            ExitKind::NeverThere => None,
        };
        let now = cx.now.mono;
        self.resolve(cx, Cause::Unkillable, "it is gone");
        if let Some(dead) = dead {
            self.last_main = Some(dead);
            let ask = cx.ask();
            self.asked.survey = Some((ask, now + limits::ASK_TIMEOUT));
            cx.push(Effect::Survey {
                service: self.def.name.clone(),
                ask,
                dead,
            });
        }
        self.asked = Asked {
            survey: self.asked.survey.filter(|_| dead.is_some()),
            ..Asked::default()
        };
        let clearing = Clearing {
            surveyed: if dead.is_some() {
                Surveyed::Asked
            } else {
                Surveyed::Answered
            },
            survivors: Vec::new(),
            absence: None,
            successor_until: None,
            deadline: now + self.def.start_timeout,
            reaping: Reaping::Patient(now + limits::CLEARING_PATIENCE),
            telling: Vec::new(),
            told: Vec::new(),
            poll_at: Mono::NEVER,
            by,
            exit,
            began: now,
        };
        // A service that was not there when heeler first looked in this boot is started, and that is all;
        // unless it will not be.
        let missed = self.last_main.is_some() || !self.may_start();
        if exit == ExitKind::NeverThere
            && self.intent.desired == Desired::Up
            && by == By::Heeler
            && missed
        {
            self.gone_at.get_or_insert(now);
            match self.open.get_mut(&Cause::Down) {
                // Known: every look would add the same line to the log and to the story.
                Some(open) => open.settles_at = None,
                None => {
                    let tell_at = now + limits::TELL_AFTER;
                    self.open_incident(cx, Cause::Down, "it is not running".to_owned(), tell_at);
                }
            }
        }
        self.enter(cx, Stage::Clearing(clearing));
        self.identify(cx);
    }

    /// Goes on with clearing after anything it waits for: the survey, the claim, a survivor, time.
    pub(super) fn clear_on(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let Stage::Clearing(clearing) = &mut self.stage else {
            return;
        };
        if clearing.surveyed == Surveyed::Asked {
            return;
        }
        let Some((absence, seen_at)) = clearing.absence else {
            return;
        };
        if now >= clearing.deadline && !clearing.survivors.is_empty() {
            self.let_go_of_survivors(cx);
            self.clear_on(cx);
            return;
        }
        let nothing_left = clearing.survivors.is_empty();
        let no_successor = clearing.successor_until.is_none_or(|until| now >= until);
        // A stop command may outlive the process: it could take the new pidfile away. Nor is a running
        // exec a start. Both have a deadline; a start command that lingers is taken as the start.
        let job_over = self.job.is_none_or(|job| match job.kind {
            JobKind::Stop | JobKind::Exec => false,
            JobKind::Start | JobKind::Restart | JobKind::Instance => true,
        });
        if !nothing_left || !no_successor || !job_over {
            if clearing.poll_at == Mono::NEVER {
                clearing.poll_at = now + limits::SUCCESSOR_POLL;
            }
            self.reap_survivors(cx);
            return;
        }
        if now.since(seen_at) > limits::SUCCESSOR_POLL {
            // The last look is old: nobody is started over a successor that came meanwhile.
            clearing.absence = None;
            clearing.poll_at = Mono::NEVER;
            self.identify(cx);
            return;
        }
        let dead = self
            .last_main
            .filter(|dead| absence == Absence::Stale(dead.pid));
        if let Some(dead) = dead {
            cx.push(Effect::RemoveStalePidfile {
                service: self.def.name.clone(),
                dead,
            });
        }
        self.happen(cx, Class::Cleared, None);
    }

    /// Their time is over; who they are is said.
    fn let_go_of_survivors(&mut self, cx: &mut Cx<'_>) {
        let Stage::Clearing(clearing) = &mut self.stage else {
            return;
        };
        let left = std::mem::take(&mut clearing.survivors);
        let pids: Vec<_> = left.iter().map(|left| left.identity.to_string()).collect();
        for left in left {
            cx.push(Effect::Unwatch {
                service: self.def.name.clone(),
                identity: left.identity,
            });
        }
        let pids = pids.join(", ");
        self.narrate(
            cx,
            format!("no longer waiting for what is left of it: {pids}"),
        );
    }

    /// The survey's answer: who outlived the main process.
    pub(super) fn surveyed(
        &mut self,
        cx: &mut Cx<'_>,
        survivors: Vec<crate::model::process::Survivor>,
    ) {
        let Stage::Clearing(clearing) = &mut self.stage else {
            return;
        };
        clearing.surveyed = Surveyed::Answered;
        let lines: Vec<_> = survivors
            .iter()
            .map(|left| match left.holds {
                Holding::ListeningSocket => {
                    format!(
                        "pid {} ({}) still holds a listening socket",
                        left.identity, left.title
                    )
                }
                Holding::Nothing => {
                    format!("pid {} ({}) is still there", left.identity, left.title)
                }
            })
            .collect();
        clearing.survivors = survivors;
        for line in lines {
            self.narrate(cx, format!("waiting for what it left: {line}"));
        }
        self.clear_on(cx);
    }

    /// A survivor went.
    pub(super) fn survivor_gone(&mut self, cx: &mut Cx<'_>, identity: ProcessIdentity) {
        if let Stage::Clearing(clearing) = &mut self.stage {
            clearing.survivors.retain(|left| left.identity != identity);
            self.clear_anew(cx);
        }
    }

    /// Goes on with clearing after something that may have brought a successor up before it ended: the
    /// last look says nothing about that.
    pub(super) fn clear_anew(&mut self, cx: &mut Cx<'_>) {
        if let Stage::Clearing(clearing) = &mut self.stage
            && clearing.absence.take_if(|(_, seen_at)| *seen_at < cx.now.mono).is_some()
        {
            self.identify(cx);
        }
        self.clear_on(cx);
    }

    /// Survivors that hold a listening socket keep every new copy from serving: once their time to go by
    /// themselves is over they are told to, and then killed. Others are only waited for.
    fn reap_survivors(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let stop_timeout = self.def.stop_timeout;
        let acts = self.def.mode == Mode::Active;
        let (startable, desired) = (self.can_start(), self.intent.desired);
        let Stage::Clearing(clearing) = &mut self.stage else {
            return;
        };
        // They may be all that still serves: taken away only for a start that follows, or for a stop.
        let wanted = match desired {
            Desired::Up => startable && (acts || clearing.by == By::Operator),
            Desired::Down => true,
            Desired::Unmonitored => false,
        };
        if !wanted {
            clearing.reaping = match clearing.reaping {
                Reaping::Patient(until) if now >= until => Reaping::Patient(clearing.deadline),
                Reaping::Told(until) if now >= until => Reaping::Killed,
                other @ (Reaping::Patient(_) | Reaping::Told(_) | Reaping::Killed) => other,
            };
            return;
        }
        let (signal, next, why, words) = match clearing.reaping {
            Reaping::Patient(until) if now >= until => (
                Signal::Term,
                Reaping::Told(now + stop_timeout),
                "orphan holds the listening socket",
                "told to go",
            ),
            Reaping::Told(until) if now >= until => (
                Signal::Kill,
                Reaping::Killed,
                "orphan did not go",
                "sent KILL",
            ),
            Reaping::Patient(_) | Reaping::Told(_) | Reaping::Killed => return,
        };
        let holders: Vec<_> = clearing
            .survivors
            .iter()
            .filter(|left| left.holds == Holding::ListeningSocket && left.ours == Ours::Proved)
            .filter(|left| signal != Signal::Kill || clearing.told.contains(&left.identity))
            .map(|left| left.identity)
            .collect();
        if holders.is_empty() {
            clearing.reaping = Reaping::Killed;
            return;
        }
        if let Reaping::Told(kill_at) = next {
            // Whoever is told to go gets its whole time, whatever the start timeout says.
            clearing.deadline = clearing.deadline.max(kill_at + limits::KILL_TIMEOUT);
        }
        clearing.reaping = next;
        let asks: Vec<_> = holders
            .into_iter()
            .map(|identity| (cx.ask(), identity))
            .collect();
        clearing.telling.clone_from(&asks);
        for (ask, identity) in asks {
            cx.push(Effect::Signal {
                service: self.def.name.clone(),
                ask,
                identity,
                signal,
                why,
            });
            self.narrate(
                cx,
                format!("orphan {identity} holds a listening socket: {words}"),
            );
        }
    }

    // ---- starting ----------------------------------------------------------------------------

    /// Starts, if that is possible and allowed now.
    fn start(&mut self, cx: &mut Cx<'_>) {
        let Stage::Clearing(Clearing { by, .. }) = self.stage else {
            return;
        };
        let now = cx.now.mono;
        if !self.can_start() {
            let text = "nothing can be started here: waiting for it to come back";
            self.narrate_new(cx, text.to_owned());
            let waits = |order| matches!(order, Order::Start | Order::Restart);
            self.answer(cx, waits, ReplyResult::Failed, text);
            self.enter(cx, Stage::Watching);
            self.look_at = now + self.def.every;
            return;
        }
        let mut which = String::new();
        if by == By::Heeler {
            if self.def.mode == Mode::Observe {
                self.narrate_new(cx, "would start it now, but mode is \"observe\"".to_owned());
                self.enter(cx, Stage::Watching);
                self.look_at = now + self.def.every;
                return;
            }
            match self.limit.ask(now, self.def.start_limit, self.def.backoff) {
                Permission::Go => {
                    let count = self.limit.started(now, self.def.start_limit);
                    which = format!(" ({count} of {})", self.def.start_limit);
                }
                Permission::Gap(until) => {
                    self.enter(cx, Stage::Backoff { until });
                    return;
                }
                Permission::BackOff(until) => {
                    self.back_off(cx, until);
                    return;
                }
            }
        }
        let (kind, command) = match (&self.def.life, &self.def.start) {
            (Life::Run(command), _) => (JobKind::Instance, command.clone()),
            (Life::Pidfile(_) | Life::Match(_), Some(command)) => (JobKind::Start, command.clone()),
            (Life::Pidfile(_) | Life::Match(_), None) => return,
        };
        let (action, deadline) = match self.job {
            // An earlier start command that never returned: it is still the action.
            Some(job) => (job.action, job.lost_at),
            None => {
                self.last_failure = None;
                self.narrate(cx, format!("starting{which}: {command}"));
                let timeout = command.timeout.unwrap_or(self.def.start_timeout);
                (
                    self.run(cx, kind, command, now + timeout, "start"),
                    now + self.def.start_timeout,
                )
            }
        };
        self.enter(
            cx,
            Stage::Starting(Starting {
                action: Some(action),
                ended: None,
                before: self.last_main,
                deadline,
                poll_at: now + limits::SUCCESSOR_POLL,
                by,
            }),
        );
    }

    fn can_start(&self) -> bool {
        self.def.startable()
    }

    /// Whether heeler may start it by itself.
    pub(super) fn may_start(&self) -> bool {
        self.def.startable() && self.def.mode == Mode::Active
    }

    fn back_off(&mut self, cx: &mut Cx<'_>, until: Mono) {
        let wait = show_duration(until.since(cx.now.mono));
        let limit = self.def.start_limit;
        self.narrate(
            cx,
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
        let now = cx.now.mono;
        let Stage::Starting(starting) = &mut self.stage else {
            return;
        };
        if now >= starting.deadline {
            match self.job.filter(|job| Some(job.action) == starting.action) {
                // Its shim is about to end it and say so.
                Some(job) if now < job.lost_at => starting.deadline = job.lost_at,
                Some(_) | None if self.main.is_some() => {
                    self.restart_came_to_nothing(cx);
                    return;
                }
                Some(_) | None => {
                    self.happen(cx, Class::Late, None);
                    return;
                }
            }
        }
        if now >= starting.poll_at {
            starting.poll_at = now + limits::SUCCESSOR_POLL;
            self.identify(cx);
        }
    }

    /// The start command ended, or the foreground program did before it was ever seen.
    pub(super) fn start_ended(&mut self, cx: &mut Cx<'_>, kind: JobKind, outcome: Outcome) {
        let failed = !outcome.ended.succeeded();
        if failed {
            self.last_failure = Some(describe(kind, &outcome));
        }
        let Stage::Starting(starting) = &mut self.stage else {
            return;
        };
        starting.action = None;
        starting.ended = Some(outcome);
        if failed && kind == JobKind::Instance {
            self.happen(cx, Class::StartFailed, None);
        } else {
            self.identify(cx);
        }
    }

    fn retry(&mut self, cx: &mut Cx<'_>) {
        let Stage::Starting(starting) = &self.stage else {
            return;
        };
        let by = starting.by;
        let ended = starting.ended.clone();
        let why = self.last_failure.clone().unwrap_or_else(|| {
            format!(
                "no process within {}",
                show_duration(self.def.start_timeout)
            )
        });
        self.last_failure = Some(why.clone());
        let title = format!("failed to start: {why}");
        self.gone_at.get_or_insert(cx.now.mono);
        if !self.open.contains_key(&Cause::Down) {
            self.open_incident(
                cx,
                Cause::Down,
                title.clone(),
                cx.now.mono + limits::TELL_AFTER,
            );
            // When the command ended there was nothing open yet that could show what it printed.
            if let Some(ended) = &ended {
                self.show_output(cx, &ended.output);
            }
        } else if ended.is_none_or(|ended| ended.ended.succeeded()) {
            // A command that failed has been told of by itself.
            self.narrate(cx, title.clone());
        }
        let waits = |order| matches!(order, Order::Start | Order::Restart);
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

    // ---- stopping ----------------------------------------------------------------------------

    /// Makes the main process go.
    pub(super) fn begin_stop(&mut self, cx: &mut Cx<'_>, by: By) {
        let Some(target) = self.main else { return };
        let now = cx.now.mono;
        let restartable = self.def.restart.is_some() && self.job.is_none();
        if self.intent.desired == Desired::Up && !self.def.startable() && !restartable {
            // What cannot be started again is not stopped.
            let text = "not restarted: there is no way to start it again now";
            self.narrate_new(cx, text.to_owned());
            self.answer(
                cx,
                |order| order == Order::Restart,
                ReplyResult::Failed,
                text,
            );
            self.leaving = None;
            return;
        }
        self.leaving = Some((target, by));
        if self.intent.desired == Desired::Up
            && self.job.is_none()
            && let Some(command) = self.def.restart.clone()
        {
            self.restart_by_command(cx, command, target, by);
            return;
        }
        match self.def.stop.clone().filter(|_| self.job.is_none()) {
            Some(command) => {
                let timeout = command.timeout.unwrap_or(self.def.stop_timeout);
                self.narrate(cx, format!("stopping pid {target}: {command}"));
                self.run(cx, JobKind::Stop, command, now + timeout, "stop");
                let kill_at = now + self.def.stop_timeout.max(timeout);
                self.enter(
                    cx,
                    Stage::Stopping {
                        target,
                        by: StopBy::Command,
                        kill_at,
                    },
                );
            }
            None => self.ladder(cx, target),
        }
    }

    fn restart_by_command(
        &mut self,
        cx: &mut Cx<'_>,
        command: Command,
        target: ProcessIdentity,
        by: By,
    ) {
        let now = cx.now.mono;
        let timeout = command
            .timeout
            .unwrap_or(self.def.start_timeout + self.def.stop_timeout);
        let mut which = String::new();
        if by == By::Heeler {
            let count = self.limit.started(now, self.def.start_limit);
            which = format!(" ({count} of {})", self.def.start_limit);
        }
        self.narrate(cx, format!("restarting pid {target}{which}: {command}"));
        let action = self.run(cx, JobKind::Restart, command, now + timeout, "restart");
        self.leaving = None;
        self.enter(
            cx,
            Stage::Starting(Starting {
                action: Some(action),
                ended: None,
                before: Some(target),
                deadline: now + timeout,
                poll_at: now + limits::SUCCESSOR_POLL,
                by,
            }),
        );
    }

    /// The signal ladder: `stop_signal` and CONT now, KILL after `stop_timeout`.
    fn ladder(&mut self, cx: &mut Cx<'_>, target: ProcessIdentity) {
        let kill_at = cx.now.mono + self.def.stop_timeout;
        let service = self.def.name.clone();
        let ask = cx.ask();
        self.asked.signal = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
        let signal = self.def.stop_signal;
        cx.push(Effect::Signal {
            service,
            ask,
            identity: target,
            signal,
            why: "stop",
        });
        self.narrate(
            cx,
            format!("stopping pid {target}: sent SIG{}", signal.name()),
        );
        self.enter(
            cx,
            Stage::Stopping {
                target,
                by: StopBy::Signalling,
                kill_at,
            },
        );
    }

    /// The stop command ended; whether the process did decides.
    pub(super) fn stop_ended(&mut self, cx: &mut Cx<'_>, outcome: &Outcome) {
        let Stage::Stopping {
            target,
            by: StopBy::Command,
            ..
        } = self.stage
        else {
            return;
        };
        if outcome.ended.succeeded() {
            // It may shut down in its own time: KILL stays where it is.
            self.confirm(cx);
        } else {
            self.narrate(cx, describe(JobKind::Stop, outcome));
            self.ladder(cx, target);
        }
    }

    fn kill(&mut self, cx: &mut Cx<'_>) {
        let Stage::Stopping { target, by, kill_at } = self.stage else {
            return;
        };
        if matches!(by, StopBy::Command | StopBy::Signalling) {
            // Nobody is killed who is not known to have been told to go.
            let after = match by {
                StopBy::Command => "the stop command",
                StopBy::Signalling | StopBy::Ladder => "a signal that nobody confirmed",
            };
            self.narrate(cx, format!("pid {target} is still there after {after}"));
            self.ladder(cx, target);
            return;
        }
        // Since it was told to go, be it by an earlier keeper.
        let waited = show_duration(self.def.stop_timeout + cx.now.mono.since(kill_at));
        self.narrate(
            cx,
            format!("pid {target} is still there after {waited}: sent SIGKILL"),
        );
        let service = self.def.name.clone();
        let ask = cx.ask();
        self.asked.signal = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
        let signal = Signal::Kill;
        cx.push(Effect::Signal {
            service,
            ask,
            identity: target,
            signal,
            why: "stop_timeout passed",
        });
        let look_at = cx.now.mono + limits::KILL_TIMEOUT;
        self.enter(
            cx,
            Stage::Killing {
                target,
                look_at,
                told: Told::NotYet,
            },
        );
    }

    fn unkillable(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let every = self.def.every;
        let Stage::Killing {
            target,
            look_at,
            told,
        } = &mut self.stage
        else {
            return;
        };
        *look_at = now + every;
        let target = *target;
        let first = *told == Told::NotYet;
        *told = Told::Yes;
        if first {
            let title = format!("pid {target} does not die: KILL was sent and it is still there");
            self.open_incident(cx, Cause::Unkillable, title.clone(), now);
            self.answer(cx, |_| true, ReplyResult::Failed, &title);
        }
        self.confirm(cx);
    }

    // ---- jobs --------------------------------------------------------------------------------

    /// Puts a job in the books, then asks for it.
    pub(super) fn run(
        &mut self,
        cx: &mut Cx<'_>,
        kind: JobKind,
        command: Command,
        deadline: Mono,
        reason: &str,
    ) -> ActionId {
        let action = cx.action();
        let instance = kind == JobKind::Instance;
        let deadline = if instance { Mono::NEVER } else { deadline };
        let lost_at = if instance {
            Mono::NEVER
        } else {
            deadline + SHIM_GRACE
        };
        if !instance {
            self.job = Some(RunningJob {
                action,
                kind,
                lost_at,
            });
        }
        let env = self.def.env.iter().chain(&command.env).cloned().collect();
        let reason = self
            .open
            .values()
            .find(|open| matches!(open.record.cause, Cause::Down | Cause::Check(..)))
            .map_or_else(|| reason.to_owned(), |open| open.record.title.clone());
        cx.push(Effect::Run(Box::new(Job {
            action,
            service: self.def.name.clone(),
            kind,
            user: self.def.user.clone(),
            group: self.def.group.clone(),
            env,
            env_file: self.def.env_file.clone(),
            cwd: command.cwd.clone().or_else(|| self.def.cwd.clone()),
            command,
            deadline,
            reason,
            main: self.main.or(self.last_main),
            at_deadline: match kind {
                JobKind::Exec | JobKind::Stop => AtDeadline::Group,
                JobKind::Start | JobKind::Restart | JobKind::Instance => AtDeadline::DirectChild,
            },
        })));
        action
    }
}

/// `the start command failed with code 1 after 0.2s: last line`.
pub(super) fn describe(kind: JobKind, outcome: &Outcome) -> String {
    let what = match kind {
        JobKind::Instance => "the program".to_owned(),
        JobKind::Start | JobKind::Stop | JobKind::Restart | JobKind::Exec => {
            format!("the {} command", kind.name())
        }
    };
    let after = match outcome.ended {
        Ended::Exited(_) | Ended::TimedOut => format!(" after {}", show_duration(outcome.took)),
        Ended::NotExecuted { .. } | Ended::Lost => String::new(),
    };
    let last = outcome
        .output
        .last_line()
        .map(|line| format!(": {line}"))
        .unwrap_or_default();
    format!("{what} {}{after}{last}", outcome.ended)
}
