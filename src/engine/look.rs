//! Looking: the questions a service asks, its periodic look, and every deadline that passes.

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::judge;
use crate::engine::state::{Stage, State};
use crate::engine::table::{Class, Where};
use crate::model::ids::AskId;
use crate::model::job::{Ended, Outcome, Output};
use crate::model::limits;
use crate::model::process::ProcessIdentity;
use crate::model::service::Life;
use crate::model::text::Untrusted;
use crate::model::time::Mono;

impl State {
    /// Serves every deadline that has passed.
    pub(super) fn time_passed(&mut self, cx: &mut Cx<'_>) {
        let (now, poll) = (cx.now.mono, self.poll());
        self.unanswered(cx);
        self.lost_job(cx);
        match &mut self.stage {
            Stage::Watching => {}
            Stage::Clearing(clearing) => {
                if now >= clearing.poll_at {
                    clearing.poll_at = now + poll;
                    self.identify(cx);
                }
                self.survey_due(cx);
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
        self.crew_due(cx);
        self.verify_due(cx);
        self.repeats_due(cx);
        self.incidents_due(cx);
    }

    /// The periodic look: contradicts the event stream, and samples what checks ask for.
    pub(super) fn look(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        self.look_at = match self.def.life {
            // Nothing to look at but what its checks ask for.
            Life::Nothing => Mono::NEVER,
            Life::Pidfile(_) | Life::Match(_) | Life::Run(_) | Life::Unit(_) => {
                judge::next_slot(now, self.def.every).max(now + limits::SUCCESSOR_POLL)
            }
        };
        cx.dirty |= self.limit.forgive(now, self.def.start_limit.window);
        if self.job.is_none() {
            self.act_on_pending(cx);
        }
        match self.place() {
            Where::Absent | Where::Backoff => self.identify(cx),
            Where::Present | Where::StartPeriod => {
                self.confirm(cx);
                self.look_at_crew_again(cx);
                if !self.on_trust() {
                    if self.sample_due(now) {
                        self.sample(cx);
                    }
                    self.probe(cx);
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

    /// Whether the main process is one of a record, not found again yet: its values begin when it is.
    fn on_trust(&self) -> bool {
        let asked = self.asked.identify.map(|(ask, _)| ask);
        self.asked.held.is_some_and(|(ask, _)| Some(ask) == asked)
    }

    pub(super) fn schedule_first_look(&mut self, now: Mono) {
        self.look_at = self.look_at.max(now + limits::SUCCESSOR_POLL);
    }

    /// Looks for the main process, unless the question is out already.
    pub(super) fn identify(&mut self, cx: &mut Cx<'_>) {
        if self.asked.identify.is_none() && self.def.life != Life::Nothing {
            let ask = cx.ask();
            self.look_began = cx.now.mono;
            self.asked.identify = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
            cx.push(Effect::Identify { service: self.def.name.clone(), ask });
        }
    }

    pub(super) fn hold(&mut self, cx: &mut Cx<'_>, identity: ProcessIdentity) {
        let ask = cx.ask();
        self.look_began = cx.now.mono;
        self.asked.identify = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
        self.asked.held = Some((ask, identity));
        cx.push(Effect::Hold { service: self.def.name.clone(), ask, identity });
    }

    pub(super) fn confirm(&mut self, cx: &mut Cx<'_>) {
        if let (Some(identity), None) = (self.main, self.asked.confirm) {
            let ask = cx.ask();
            self.asked.confirm = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
            cx.push(Effect::Confirm { service: self.def.name.clone(), ask, identity });
        }
    }

    /// A question that was never answered is asked again: the shell lost it.
    pub(super) fn unanswered(&mut self, cx: &mut Cx<'_>) {
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
        let reload_lost = expired(&mut self.asked.reload);
        self.checks.iter_mut().for_each(|check| {
            expired(&mut check.asked);
        });
        if reload_lost {
            self.reload_failed(cx, "it cannot be told whether the signal was sent");
        }
        if expired(&mut self.asked.identify) {
            self.identify(cx);
        }
        if expired(&mut self.asked.survey) {
            self.survey_failed(cx, &Untrusted::from("no answer came"));
        }
    }

    /// A job whose shim should have ended it long ago.
    pub(super) fn lost_job(&mut self, cx: &mut Cx<'_>) {
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
