//! Stopping: by the service's command or the signal ladder; KILL only after its time; never a second
//! copy beside one that does not die.

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::job::describe;
use crate::engine::state::{Brings, By, Sent, Stage, Starting, State, StopBy, Told};
use crate::model::event::EventKind;
use crate::model::incident::Cause;
use crate::model::intent::Desired;
use crate::model::job::{JobKind, Outcome};
use crate::model::limits;
use crate::model::order::{Order, ReplyResult};
use crate::model::process::{ProcessIdentity, Signal};
use crate::model::service::Command;
use crate::model::units::show_duration;

impl State {
    /// Makes the main process go.
    pub(super) fn begin_stop(&mut self, cx: &mut Cx<'_>, by: By) {
        let Some(target) = self.main else { return };
        let now = cx.now.mono;
        let restartable = self.def.restart.is_some() && self.job.is_none();
        if self.intent.desired == Desired::Up && !self.def.startable() && !restartable {
            // What cannot be started again is not stopped.
            let text = "not restarted: there is no way to start it again now";
            self.happened_new(cx, EventKind::Failed, text.to_owned());
            self.answer(cx, |order| order == Order::Restart, ReplyResult::Failed, text);
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
                self.happened(cx, EventKind::Acted, format!("stopping pid {target}: {command}"));
                self.run(cx, JobKind::Stop, command, now + timeout, "stop");
                let kill_at = now + self.def.stop_timeout.max(timeout);
                self.enter(cx, Stage::Stopping { target, by: StopBy::Command, kill_at });
            }
            None => self.ladder(cx, target),
        }
    }

    pub(super) fn restart_by_command(
        &mut self,
        cx: &mut Cx<'_>,
        command: Command,
        target: ProcessIdentity,
        by: By,
    ) {
        let now = cx.now.mono;
        let timeout = command.timeout.unwrap_or(self.def.start_timeout + self.def.stop_timeout);
        let mut which = String::new();
        if by == By::Heeler {
            let count = self.limit.started(now, self.def.start_limit);
            which = format!(" ({count} of {})", self.def.start_limit);
        }
        self.happened(cx, EventKind::Acted, format!("restarting pid {target}{which}: {command}"));
        let action = self.run(cx, JobKind::Restart, command, now + timeout, "restart");
        self.leaving = None;
        self.enter(
            cx,
            Stage::Starting(Starting {
                kind: JobKind::Restart,
                brings: Brings::Service,
                action: Some(action),
                ended: None,
                before: Some(target),
                deadline: now + timeout,
                poll_at: now + self.poll(),
                by,
                stale: None,
                dead_on_arrival: None,
                unclear_since: None,
            }),
        );
    }

    /// The signal ladder: `stop_signal` and CONT now, KILL after `stop_timeout`.
    pub(super) fn ladder(&mut self, cx: &mut Cx<'_>, target: ProcessIdentity) {
        let kill_at = cx.now.mono + self.def.stop_timeout;
        let service = self.def.name.clone();
        let ask = cx.ask();
        self.asked.signal = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
        let signal = self.def.stop_signal;
        cx.push(Effect::Signal { service, ask, identity: target, signal, why: "stop" });
        self.happened(
            cx,
            EventKind::Acted,
            format!("stopping pid {target}: sent SIG{}", signal.name()),
        );
        self.enter(cx, Stage::Stopping { target, by: StopBy::Signalling, kill_at });
    }

    /// The stop command ended; whether the process did decides.
    pub(super) fn stop_ended(&mut self, cx: &mut Cx<'_>, outcome: &Outcome) {
        let Stage::Stopping { target, by: StopBy::Command, .. } = self.stage else {
            return;
        };
        if outcome.ended.succeeded() {
            // It may shut down in its own time: KILL stays where it is.
            self.confirm(cx);
        } else {
            self.happened(cx, EventKind::Failed, describe(JobKind::Stop, outcome));
            self.ladder(cx, target);
        }
    }

    pub(super) fn kill(&mut self, cx: &mut Cx<'_>) {
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
        let text = format!("pid {target} is still there after {waited}: sent SIGKILL");
        self.happened(cx, EventKind::Acted, text);
        self.send_kill(cx, target);
        let look_at = cx.now.mono + limits::KILL_TIMEOUT;
        let (told, sent) = (Told::NotYet, Sent::Unconfirmed);
        self.enter(cx, Stage::Killing { target, look_at, told, sent });
    }

    fn send_kill(&mut self, cx: &mut Cx<'_>, target: ProcessIdentity) {
        let ask = cx.ask();
        self.asked.signal = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
        cx.push(Effect::Signal {
            service: self.def.name.clone(),
            ask,
            identity: target,
            signal: Signal::Kill,
            why: "stop_timeout passed",
        });
    }

    pub(super) fn unkillable(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let every = self.def.every;
        let Stage::Killing { target, look_at, told, sent } = &mut self.stage else {
            return;
        };
        *look_at = now + every;
        let (target, sent) = (*target, *sent);
        let first = *told == Told::NotYet;
        *told = Told::Yes;
        if first {
            let title = format!("pid {target} does not die: KILL was sent and it is still there");
            self.open_incident(cx, Cause::Unkillable, title.clone(), now);
            self.answer(cx, |_| true, ReplyResult::Failed, &title);
        }
        if sent == Sent::Unconfirmed && self.asked.signal.is_none() {
            // Nobody knows whether it was: what was lost is said again.
            self.send_kill(cx, target);
        }
        self.confirm(cx);
    }
}
