//! Clearing: after a death, nothing is started until what is left of the old process is gone or dealt
//! with, and nobody else starts a successor.

use std::time::Duration;

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::state::{Asked, By, Clearing, ExitKind, Reaping, Stage, State, Surveyed};
use crate::engine::table::Class;
use crate::model::event::EventKind;
use crate::model::incident::Cause;
use crate::model::intent::Desired;
use crate::model::job::JobKind;
use crate::model::limits;
use crate::model::process::{Absence, Holding, Ours, ProcessIdentity, Signal};
use crate::model::service::Mode;
use crate::model::text::Untrusted;
use crate::model::time::Mono;

impl State {
    pub(super) fn begin_clearing(&mut self, cx: &mut Cx<'_>, exit: ExitKind, by: By) {
        let dead = match exit {
            ExitKind::Ours | ExitKind::Unasked => self.main.take(),
            ExitKind::NeverThere | ExitKind::ManagerFirst => None,
        };
        let now = cx.now.mono;
        self.resolve(cx, Cause::Unkillable, "it is gone");
        if let Some(dead) = dead {
            self.last_main = Some(dead);
            self.survey(cx, dead);
        }
        self.asked =
            Asked { survey: self.asked.survey.filter(|_| dead.is_some()), ..Asked::default() };
        let clearing = Clearing {
            survey_failed: false,
            surveyed: if dead.is_some() { Surveyed::Asked } else { Surveyed::Answered },
            survivors: Vec::new(),
            ended: None,
            said: None,
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
                    let (event, title) = (Some(EventKind::Fired), "it is not running".to_owned());
                    self.open_incident_as(cx, event, Cause::Down, title, tell_at);
                }
            }
        }
        self.enter(cx, Stage::Clearing(clearing));
        self.identify(cx);
    }

    /// Goes on with clearing after anything it waits for: the survey, the claim, a survivor, time.
    pub(super) fn clear_on(&mut self, cx: &mut Cx<'_>) {
        let (now, poll) = (cx.now.mono, self.poll());
        let Stage::Clearing(clearing) = &mut self.stage else {
            return;
        };
        if clearing.surveyed != Surveyed::Answered {
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
            JobKind::Start
            | JobKind::Restart
            | JobKind::Reload
            | JobKind::Instance
            | JobKind::Look
            | JobKind::Ask
            | JobKind::Probe(_) => true,
        });
        // Its manager is at work on it. A manager that takes too long is overtaken by a start; one that is
        // not there yet cannot be.
        let in_hand =
            absence.is_in_hand() && (now < clearing.deadline || absence == Absence::ManagerComing);
        if !nothing_left || !no_successor || !job_over || in_hand {
            if clearing.poll_at == Mono::NEVER {
                clearing.poll_at = now + poll;
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
        let dead = self.last_main.filter(|dead| absence == Absence::Stale(dead.pid));
        if let Some(dead) = dead {
            cx.push(Effect::RemoveStalePidfile { service: self.def.name.clone(), dead });
        }
        self.happen(cx, Class::Cleared, None);
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
                    format!("pid {} ({}) still holds a listening socket", left.identity, left.title)
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

    fn survey(&mut self, cx: &mut Cx<'_>, dead: ProcessIdentity) {
        let ask = cx.ask();
        self.asked.survey = Some((ask, cx.now.mono + limits::ASK_TIMEOUT));
        cx.push(Effect::Survey { service: self.def.name.clone(), ask, dead });
    }

    /// Asks again who is left, where that could not be told and it is time.
    pub(super) fn survey_due(&mut self, cx: &mut Cx<'_>) {
        if let Stage::Clearing(clearing) = &mut self.stage
            && matches!(clearing.surveyed, Surveyed::AgainAt(at) if cx.now.mono >= at)
            && let Some(dead) = self.last_main
        {
            clearing.surveyed = Surveyed::Asked;
            self.survey(cx, dead);
        }
    }

    /// It cannot be told who is left. That is not "nobody": it is asked again, for as long as survivors
    /// would be waited for.
    pub(super) fn survey_failed(&mut self, cx: &mut Cx<'_>, why: &Untrusted) {
        let now = cx.now.mono;
        let Stage::Clearing(clearing) = &mut self.stage else {
            return;
        };
        let first = !std::mem::replace(&mut clearing.survey_failed, true);
        let give_up = now >= clearing.deadline;
        clearing.surveyed = if give_up {
            Surveyed::Answered
        } else {
            Surveyed::AgainAt((now + limits::SURVEY_AGAIN).min(clearing.deadline))
        };
        if give_up {
            self.narrate(cx, format!("going on without knowing what it left: {why}"));
            self.clear_on(cx);
        } else if first {
            self.narrate(cx, format!("it cannot be told what it left, asking again: {why}"));
        }
    }

    /// A survivor went.
    pub(super) fn survivor_gone(&mut self, cx: &mut Cx<'_>, identity: ProcessIdentity) {
        if let Stage::Clearing(clearing) = &mut self.stage {
            clearing.survivors.retain(|left| left.identity != identity);
            self.clear_anew(cx);
        }
    }

    /// Their time is over; who they are is said.
    pub(super) fn let_go_of_survivors(&mut self, cx: &mut Cx<'_>) {
        let Stage::Clearing(clearing) = &mut self.stage else {
            return;
        };
        let left = std::mem::take(&mut clearing.survivors);
        let pids: Vec<_> = left.iter().map(|left| left.identity.to_string()).collect();
        for left in left {
            cx.push(Effect::Unwatch { service: self.def.name.clone(), identity: left.identity });
        }
        let pids = pids.join(", ");
        self.narrate(cx, format!("no longer waiting for what is left of it: {pids}"));
    }

    /// Survivors that hold a listening socket keep every new copy from serving: once their time to go by
    /// themselves is over they are told to, and then killed. Others are only waited for.
    pub(super) fn reap_survivors(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let grace = self.orphans_grace();
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
                Reaping::Told(now + grace),
                "orphan holds the listening socket",
                "told to go",
            ),
            Reaping::Told(until) if now >= until => {
                (Signal::Kill, Reaping::Killed, "orphan did not go", "sent KILL")
            }
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
        let asks: Vec<_> = holders.into_iter().map(|identity| (cx.ask(), identity)).collect();
        clearing.telling.clone_from(&asks);
        for (ask, identity) in asks {
            cx.push(Effect::Signal { service: self.def.name.clone(), ask, identity, signal, why });
            self.happened(
                cx,
                EventKind::Acted,
                format!("orphan {identity} holds a listening socket: {words}"),
            );
        }
    }

    /// How long an orphan that was told to go may take.
    fn orphans_grace(&self) -> Duration {
        match self.def.puma {
            Some(_) => self.def.stop_timeout.min(limits::PUMA_ORPHAN_GRACE),
            None => self.def.stop_timeout,
        }
    }
}
