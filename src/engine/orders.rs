//! What an operator asks, and when the answer is known.

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::judge;
use crate::engine::state::{By, Reaping, Stage, State, Waiter};
use crate::engine::table::{Class, Where};
use crate::model::event::EventKind;
use crate::model::ids::RequestId;
use crate::model::incident::Cause;
use crate::model::intent::{Desired, Intent, Who};
use crate::model::order::{Order, Reply, ReplyResult};
use crate::model::service::Life;

/// An operator who set a service aside is reminded less often than of a rule's doing.
pub(super) const REMIND_OPERATOR_TIMES: u32 = 6;

impl State {
    /// Takes an order: the wish is changed at once, the answer comes when it is fulfilled or cannot be.
    pub(super) fn order(&mut self, cx: &mut Cx<'_>, request: RequestId, order: Order, who: Who) {
        let about_a_process =
            matches!(order, Order::Start | Order::Stop | Order::Restart | Order::Reload);
        if about_a_process && self.def.life == Life::Nothing {
            let name = &self.def.name;
            let text = format!(
                "it has no process to {}: only its checks are watched \
                 (`heeler unmonitor {name}` sets them aside, `heeler monitor {name}` ends that)",
                order.name()
            );
            let reply = Reply { result: ReplyResult::Failed, text };
            cx.push(Effect::Answer { request, reply });
            return;
        }
        let asked = format!("{} asked by {who}", order.name());
        self.happened(cx, EventKind::Ordered, asked.clone());
        match order {
            // Whoever takes it in hand means what is there now, and nothing is taken back behind that.
            Order::Stop | Order::Restart | Order::Reload | Order::Unmonitor => {
                self.verify_parts(cx, &asked);
            }
            Order::Start | Order::Monitor => {}
        }
        if let Some(desired) = desired_by(order) {
            self.supersede(cx, order, desired, &who);
            if self.intent.desired != desired {
                self.intent = Intent { desired, by: who, at: cx.now.wall };
                self.wish_changed(cx, order);
            }
        }
        self.waiters.push(Waiter { request, order, before: self.main, at: cx.now.mono });
        let place = self.place();
        match order {
            Order::Start => self.order_start(cx, place),
            Order::Restart if self.main.is_none() => self.order_start(cx, place),
            Order::Restart => self.happen(cx, Class::WishRestart, None),
            Order::Reload => self.order_reload(cx),
            Order::Stop => self.order_stop(cx, place),
            Order::Monitor => {
                self.look_at = cx.now.mono;
                self.answer(cx, |order| order == Order::Monitor, ReplyResult::Done, "monitored");
            }
            Order::Unmonitor => {
                self.happen(cx, Class::WishLeave, None);
                let text = "not monitored: left alone until `heeler monitor`";
                self.answer(cx, |order| order == Order::Unmonitor, ReplyResult::Done, text);
            }
        }
        cx.dirty = true;
    }

    fn wish_changed(&mut self, cx: &mut Cx<'_>, order: Order) {
        match self.intent.desired {
            Desired::Up => {
                // What was seen before it was set aside says nothing about now.
                judge::forget_windows(self, cx.now.mono);
                self.resolve(cx, Cause::SetAside, "an operator ended it");
                self.resolve(cx, Cause::UpUnwanted, "it is wanted up");
            }
            Desired::Down | Desired::Unmonitored => {
                let title = format!("{} by {}", past(order), self.intent.by);
                let tell_at = cx.now.mono + self.def.remind * REMIND_OPERATOR_TIMES;
                self.open.remove(&Cause::SetAside);
                self.open_incident(cx, Cause::SetAside, title, tell_at);
                self.forget_checks(cx);
                if !matches!(self.stage, Stage::Watching) || self.main.is_none() {
                    self.resolve(cx, Cause::Down, "it is not wanted up any more");
                }
            }
        }
    }

    fn order_start(&mut self, cx: &mut Cx<'_>, place: Where) {
        self.limit.overrule();
        if !self.def.startable() && self.main.is_none() {
            let text = "there is no start command in its file: it can only be waited for";
            self.answer(cx, |_| true, ReplyResult::Failed, text);
            return;
        }
        if let Stage::Clearing(clearing) = &mut self.stage {
            // A person does not wait for a successor that may never come.
            clearing.by = By::Operator;
            clearing.successor_until = None;
            self.clear_on(cx);
            return;
        }
        if matches!(place, Where::Present | Where::StartPeriod) {
            self.answer_up(cx);
        } else {
            self.happen(cx, Class::WishStart, None);
        }
    }

    fn order_stop(&mut self, cx: &mut Cx<'_>, place: Where) {
        self.happen(cx, Class::WishStop, None);
        match place {
            // Down is answered only after a look: an answer is about what is, not what was known.
            Where::Absent => self.identify(cx),
            Where::Clearing => {
                if let Stage::Clearing(clearing) = &mut self.stage {
                    clearing.successor_until = None;
                    clearing.reaping = match clearing.reaping {
                        Reaping::Patient(until) => Reaping::Patient(until.min(cx.now.mono)),
                        told @ (Reaping::Told(_) | Reaping::Killed) => told,
                    };
                }
                self.clear_on(cx);
            }
            Where::Present
            | Where::Starting
            | Where::StartPeriod
            | Where::Stopping
            | Where::Killing
            | Where::Backoff => {}
        }
    }

    /// A newer wish ends the waiting for an older, different one.
    fn supersede(&mut self, cx: &mut Cx<'_>, order: Order, desired: Desired, who: &Who) {
        let text = format!("not finished: {} was asked by {who} meanwhile", order.name());
        let other = |old| desired_by(old).is_some_and(|old| old != desired);
        self.answer(cx, other, ReplyResult::Failed, &text);
    }

    /// It is up: answers whoever waited for that.
    pub(super) fn answer_up(&mut self, cx: &mut Cx<'_>) {
        let Some(main) = self.main else { return };
        let now = cx.now.mono;
        self.waiters.retain(|waiter| {
            let done = match waiter.order {
                Order::Start => true,
                Order::Restart | Order::Reload => waiter.before != Some(main),
                Order::Stop | Order::Monitor | Order::Unmonitor => false,
            };
            if done {
                let text = if waiter.before == Some(main) {
                    format!("it is running already, pid {main}")
                } else {
                    let took = crate::model::units::show_duration(now.since(waiter.at));
                    format!("up after {took}, pid {main}")
                };
                let reply = Reply { result: ReplyResult::Done, text };
                cx.push(Effect::Answer { request: waiter.request, reply });
            }
            !done
        });
    }

    /// Answers everybody whose order is one of those.
    pub(super) fn answer(
        &mut self,
        cx: &mut Cx<'_>,
        which: impl Fn(Order) -> bool,
        result: ReplyResult,
        text: &str,
    ) {
        self.waiters.retain(|waiter| {
            let theirs = which(waiter.order);
            if theirs {
                let reply = Reply { result, text: text.to_owned() };
                cx.push(Effect::Answer { request: waiter.request, reply });
            }
            !theirs
        });
    }
}

/// What is wanted of a service of which this is asked; a reload changes no wish.
fn desired_by(order: Order) -> Option<Desired> {
    match order {
        Order::Start | Order::Restart | Order::Monitor => Some(Desired::Up),
        Order::Stop => Some(Desired::Down),
        Order::Unmonitor => Some(Desired::Unmonitored),
        Order::Reload => None,
    }
}

fn past(order: Order) -> &'static str {
    match order {
        Order::Start => "started",
        Order::Stop => "stopped",
        Order::Restart => "restarted",
        Order::Reload => "reloaded",
        Order::Monitor => "monitored",
        Order::Unmonitor => "unmonitored",
    }
}
