//! Reloading: the main process takes up its configuration or its new code, and goes on; and what a
//! restart in one go has in common with that: until its command took the old process away, that one is
//! still the main one.

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::input::Delivery;
use crate::engine::job::describe;
use crate::engine::state::{Brings, By, Stage, Starting, State};
use crate::engine::table::{Class, Where};
use crate::model::check::Check;
use crate::model::event::EventKind;
use crate::model::intent::Desired;
use crate::model::job::JobKind;
use crate::model::limits;
use crate::model::order::{Order, ReplyResult};
use crate::model::service::{Command, Reload};

impl State {
    /// Begins a reload of the main process.
    pub(super) fn begin_reload(&mut self, cx: &mut Cx<'_>) {
        let Some(main) = self.main else { return };
        match self.def.reload.clone() {
            None => {
                let text = "not reloaded: there is no `reload` in its file";
                self.reload_failed(cx, text);
            }
            Some(Reload::Signal(signal)) => {
                let ask = cx.ask();
                self.asked.reload = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
                let service = self.def.name.clone();
                cx.push(Effect::Signal { service, ask, identity: main, signal, why: "reload" });
                self.happened(
                    cx,
                    EventKind::Acted,
                    format!("reloading pid {main}: sent SIG{}", signal.name()),
                );
            }
            Some(Reload::Command(_)) if self.job.is_some() => {
                self.reload_failed(cx, "not reloaded: another action is under way");
            }
            Some(Reload::Command(command)) => self.reload_by_command(cx, command),
        }
    }

    fn reload_by_command(&mut self, cx: &mut Cx<'_>, command: Command) {
        let (now, before) = (cx.now.mono, self.main);
        let pid = before.map(|main| main.to_string()).unwrap_or_default();
        let timeout = command.timeout.unwrap_or(self.def.start_timeout);
        self.happened(cx, EventKind::Acted, format!("reloading pid {pid}: {command}"));
        let action = self.run(cx, JobKind::Reload, command, now + timeout, "reload");
        self.enter(
            cx,
            Stage::Starting(Starting {
                kind: JobKind::Reload,
                brings: Brings::Service,
                action: Some(action),
                ended: None,
                before,
                deadline: now + timeout,
                poll_at: now + self.poll(),
                by: By::Heeler,
                stale: None,
                dead_on_arrival: None,
                unclear_since: None,
            }),
        );
    }

    /// The signal of a reload was sent, or was not.
    pub(super) fn reload_signalled(&mut self, cx: &mut Cx<'_>, result: Delivery) {
        self.asked.reload = None;
        match result {
            Delivery::Sent => {
                let text = self.main.map(|main| format!("pid {main} was told to reload"));
                self.answer(cx, is_reload, ReplyResult::Done, &text.unwrap_or_default());
                let up = matches!(self.place(), Where::Present | Where::StartPeriod);
                if up && self.intent.desired != Desired::Down {
                    self.goes_on_anew(cx);
                }
            }
            Delivery::Gone => {
                self.reload_failed(cx, "not reloaded: it is gone");
                self.confirm(cx);
            }
            Delivery::Refused(why) => self.reload_failed(cx, &format!("not reloaded: {why}")),
        }
    }

    pub(super) fn reload_failed(&mut self, cx: &mut Cx<'_>, text: &str) {
        self.happened_new(cx, EventKind::Failed, text.to_owned());
        self.answer(cx, is_reload, ReplyResult::Failed, text);
    }

    /// A rule asks for it; like every action only of a service that is up and settled.
    pub(super) fn reload_by_rule(&mut self, cx: &mut Cx<'_>, check: &Check) {
        if self.place() == Where::Present && self.main.is_some() {
            self.happened(cx, EventKind::Acted, format!("reloading it because of {}", check.label));
            self.happen(cx, Class::WishReload, None);
        }
    }

    /// An operator asks for it. That says nothing about whether it is wanted up.
    pub(super) fn order_reload(&mut self, cx: &mut Cx<'_>) {
        let name = self.def.name.clone();
        match self.place() {
            Where::Present | Where::StartPeriod if self.intent.desired == Desired::Down => {
                let text = format!("not reloaded: it is wanted down (`heeler start {name}` first)");
                self.answer(cx, is_reload, ReplyResult::Failed, &text);
            }
            Where::Present | Where::StartPeriod => self.happen(cx, Class::WishReload, None),
            Where::Starting | Where::Clearing | Where::Stopping | Where::Killing => {
                let text = format!("not reloaded: it is {} now", self.phase());
                self.answer(cx, is_reload, ReplyResult::Failed, &text);
            }
            Where::Absent | Where::Backoff => {
                let text = format!("not reloaded: it is not running (`heeler start {name}`)");
                self.answer(cx, is_reload, ReplyResult::Failed, &text);
            }
        }
    }

    /// A restart command or a reload ended, or its time is over, and the held process is the one from
    /// before: a reload in place, or a failure. Nothing is started beside it.
    pub(super) fn stayed_the_same(&mut self, cx: &mut Cx<'_>) {
        let (Stage::Starting(starting), Some(main)) = (&self.stage, self.main) else {
            return;
        };
        let kind = starting.kind;
        let what = kind.name();
        let (result, event, text) = match &starting.ended {
            Some((outcome, _)) if outcome.ended.succeeded() => (
                ReplyResult::Done,
                Some(EventKind::Acted),
                format!("the {what} command succeeded; pid {main} is still the same"),
            ),
            // An event since it ended.
            Some((outcome, _)) => (ReplyResult::Failed, None, describe(kind, outcome)),
            None => (
                ReplyResult::Failed,
                Some(EventKind::Failed),
                format!("the {what} did not end in time; pid {main} is still the same"),
            ),
        };
        match event {
            Some(event) => self.happened(cx, event, text.clone()),
            None => self.narrate(cx, text.clone()),
        }
        let asked = if kind == JobKind::Reload { Order::Reload } else { Order::Restart };
        self.answer(cx, |order| order == asked, result, &text);
        self.answer_up(cx);
        self.goes_on_anew(cx);
        if self.intent.desired == Desired::Down {
            // Stop was asked meanwhile, and nothing new will appear to be stopped.
            self.happen(cx, Class::WishStop, None);
        } else if self.intent.desired == Desired::Up
            && self.waiters.iter().any(|waiter| waiter.order == Order::Restart)
        {
            // A reload is no restart: whoever asked for one meanwhile gets it now.
            self.happen(cx, Class::WishRestart, None);
        }
    }

    /// The same process with another configuration or other code: its start period begins.
    fn goes_on_anew(&mut self, cx: &mut Cx<'_>) {
        self.reloaded = Some(cx.now.mono);
        self.enter(cx, Stage::StartPeriod { until: cx.now.mono + self.def.start_period });
        if self.def.start_period.is_zero() && self.intent.desired != Desired::Down {
            self.settle(cx);
        }
    }
}

fn is_reload(order: Order) -> bool {
    order == Order::Reload
}
