//! A verified reload: a phased restart of a Puma that is watched to its end, and taken back when the new
//! release does not boot, does not answer, or is not the one meant.
//!
//! Puma answers "ok" before it does anything, and knows "booted", not "healthy". So what counts is seen:
//! each new worker, the release it runs, the pages. The old workers are never taken away for it: while a
//! new one is not ready the guard keeps them.

use std::time::Duration;

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::state::State;
use crate::engine::table::Where;
use crate::model::check::CheckKind;
use crate::model::crew::{Duty, Member, PumaView};
use crate::model::event::EventKind;
use crate::model::ids::{ActionId, AskId, RequestId};
use crate::model::intent::Who;
use crate::model::job::{JobKind, Outcome};
use crate::model::limits;
use crate::model::observation::Verdict;
use crate::model::order::{Reply, ReplyResult};
use crate::model::process::ProcessIdentity;
use crate::model::puma::{Ask, Rollback};
use crate::model::service::Command;
use crate::model::text::Untrusted;
use crate::model::time::Mono;
use crate::model::units::show_duration;

/// One that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Verify {
    request: RequestId,
    began: Mono,
    deadline: Mono,
    step: Step,
    /// The workers from before.
    old: Vec<ProcessIdentity>,
    phase: Option<u64>,
    started_wall_ms: Option<u64>,
    /// What they ran, and what is to run.
    previous: Option<Untrusted>,
    target: Untrusted,
    /// Its master executed itself anew instead: it loads its application before it forks.
    manner: Manner,
    /// What Puma is to do once `current` points back.
    way_back: Ask,
    /// Bad answers of its pages, one after the other.
    bad_answers: u32,
    /// Good answers since the last new worker.
    good_answers: u32,
    /// Why it is taken back.
    why: Option<String>,
    /// What was told last of how far it is.
    told: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Phased,
    Hot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// What is there now is looked at.
    Looking,
    /// The new release tries itself.
    Trying(ActionId),
    /// Puma was asked to begin; past this it counts as silent.
    Asked(AskId, Mono),
    /// It said yes; then its phase is to change.
    Heard(Mono),
    /// Workers are replaced.
    Replacing,
    /// All are; it has to stay so until then.
    Settling(Mono),
    /// `current` goes back.
    Linking(ActionId),
    /// Puma was asked to fork from there.
    Returning(AskId, Mono),
    /// It is waited for until then.
    Returned(Mono),
}

impl Verify {
    pub(super) fn next_due(&self) -> Mono {
        match self.step {
            // The looks, which come often while this goes on, end a settling.
            Step::Looking | Step::Replacing | Step::Settling(_) | Step::Trying(_) => self.deadline,
            Step::Asked(_, until) | Step::Heard(until) => until.min(self.deadline),
            // Its job ends it. What goes back has a time of its own, and may outlast the one that was given.
            Step::Linking(_) => Mono::NEVER,
            Step::Returning(_, until) | Step::Returned(until) => until,
        }
    }

    fn is_going_back(&self) -> bool {
        matches!(self.step, Step::Linking(_) | Step::Returning(..) | Step::Returned(_))
    }
}

impl State {
    /// An operator wants a reload that is seen to its end.
    pub(super) fn order_verified(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestId,
        within: Option<Duration>,
        who: &Who,
    ) {
        self.happened(cx, EventKind::Ordered, format!("verified reload asked by {who}"));
        let refusal = if self.def.puma.is_none() {
            Some("only a Puma's reload can be verified: say [puma] in its file")
        } else if self.verify.is_some() {
            Some("a verified reload is under way already")
        } else if self.place() != Where::Present || self.main.is_none() {
            Some("it is not up and settled")
        } else if self.job.is_some() {
            Some("another action is under way")
        } else {
            None
        };
        if let Some(text) = refusal {
            let reply = Reply { result: ReplyResult::Failed, text: format!("not begun: {text}") };
            cx.push(Effect::Answer { request, reply });
            return;
        }
        let now = cx.now.mono;
        self.verify = Some(Box::new(Verify {
            request,
            began: now,
            deadline: now + within.unwrap_or(limits::VERIFY_TIMEOUT),
            step: Step::Looking,
            old: Vec::new(),
            phase: None,
            started_wall_ms: None,
            previous: None,
            target: Untrusted::default(),
            manner: Manner::Phased,
            way_back: Ask::PhasedRestart,
            bad_answers: 0,
            good_answers: 0,
            why: None,
            told: String::new(),
        }));
        self.look_at_crew_now(cx);
    }

    /// A look came back: what it means for the one under way.
    pub(super) fn verify_seen(
        &mut self,
        cx: &mut Cx<'_>,
        members: &[Member],
        view: Option<&PumaView>,
    ) {
        let Some(verify) = &self.verify else { return };
        let Some(view) = view else {
            if verify.step == Step::Looking {
                self.verify_ends(cx, ReplyResult::Failed, "not begun: Puma could not be asked");
            }
            return;
        };
        match verify.step {
            Step::Looking => self.verify_begins(cx, members, view),
            Step::Heard(_) | Step::Replacing | Step::Settling(_) => {
                self.verify_watches(cx, members, view);
            }
            Step::Returned(_) => self.verify_returned(cx, members, view),
            Step::Trying(_) | Step::Asked(..) | Step::Linking(_) | Step::Returning(..) => {}
        }
    }

    /// Before anything is touched.
    fn verify_begins(&mut self, cx: &mut Cx<'_>, members: &[Member], view: &PumaView) {
        let all_there = view.workers == view.booted && view.old == Some(0);
        let refusal = match &view.target {
            Err(why) => Some(format!("`current`: {why}. Puma would die of a restart")),
            Ok(_) if view.workers.is_none() => Some(format!("it is no cluster: {}", view.words)),
            Ok(_) if !all_there => Some(format!("it is not whole before: {}", view.words)),
            Ok(_) if members.is_empty() => Some("no worker of it was found".to_owned()),
            Ok(_) => None,
        };
        if let Some(why) = refusal {
            self.verify_ends(cx, ReplyResult::Failed, &format!("not begun: {why}"));
            return;
        }
        let Ok(target) = &view.target else { return };
        let Some(verify) = &mut self.verify else { return };
        verify.old = members.iter().map(|member| member.identity).collect();
        verify.phase = view.phase;
        verify.started_wall_ms = view.started_wall_ms;
        verify.previous = members.iter().find_map(|member| member.release.clone());
        verify.target = target.clone();
        let trial = self.def.puma.as_ref().and_then(|puma| puma.release.clone());
        match trial {
            Some(command) => {
                let cwd = command.cwd.clone().or_else(|| Some(target.raw().into()));
                let command = Command { cwd, ..command };
                let text = format!("trying the new release: {command}");
                self.happened(cx, EventKind::Acted, text);
                let deadline = cx.now.mono + command.timeout.unwrap_or(limits::TRIAL_TIMEOUT);
                let action = self.run(cx, JobKind::Exec, command, deadline, "verified reload");
                self.verify_goes_to(Step::Trying(action));
            }
            None => self.verify_asks(cx),
        }
    }

    fn verify_asks(&mut self, cx: &mut Cx<'_>) {
        let Some(verify) = &self.verify else { return };
        let text = format!("phased restart onto {}", verify.target);
        self.happened(cx, EventKind::Acted, text);
        let ask = self.ask_puma(cx, Ask::PhasedRestart);
        self.reloaded = Some(cx.now.mono);
        self.verify_goes_to(Step::Asked(ask, cx.now.mono + limits::ASK_TIMEOUT));
    }

    fn ask_puma(&mut self, cx: &mut Cx<'_>, what: Ask) -> AskId {
        let ask = cx.ask();
        cx.push(Effect::AskPuma { service: self.def.name.clone(), ask, what });
        ask
    }

    /// Puma heard, or did not.
    pub(super) fn puma_asked(&mut self, cx: &mut Cx<'_>, ask: AskId, heard: Result<(), Untrusted>) {
        let step = self.verify.as_ref().map(|verify| verify.step);
        match (step, heard) {
            (Some(Step::Asked(asked, _)), Ok(())) if asked == ask => {
                self.verify_goes_to(Step::Heard(cx.now.mono + limits::VERIFY_HEARD));
                self.look_at_crew_now(cx);
            }
            (Some(Step::Asked(asked, _)), Err(why)) if asked == ask => {
                let text = format!("not begun: {why}");
                self.verify_ends(cx, ReplyResult::Failed, &text);
            }
            (Some(Step::Returning(asked, _)), Ok(())) if asked == ask => {
                self.verify_goes_to(Step::Returned(cx.now.mono + limits::VERIFY_RETURN));
                self.look_at_crew_now(cx);
            }
            (Some(Step::Returning(asked, _)), Err(why)) if asked == ask => {
                let text = format!("Puma was not told to go back: {why}");
                self.verify_gives_up(cx, &text);
            }
            (_, _) => cx.counters.dropped_answers += 1,
        }
    }

    /// B to E of the procedure: boot loops, wrong releases, bad answers; and when all is done.
    fn verify_watches(&mut self, cx: &mut Cx<'_>, members: &[Member], view: &PumaView) {
        let now = cx.now.mono;
        let Some(verify) = &mut self.verify else { return };
        let hot = view.started_wall_ms != verify.started_wall_ms;
        let phased = view.phase > verify.phase;
        if !hot && !phased {
            // Not yet begun; the step's own time says how long that may last.
            return;
        }
        if hot && verify.manner == Manner::Phased {
            verify.manner = Manner::Hot;
            let text = "it loads its application before it forks: Puma made a full restart of it";
            self.happened(cx, EventKind::Acted, text.to_owned());
        }
        let Some(verify) = &mut self.verify else { return };
        if matches!(verify.step, Step::Heard(_)) {
            verify.step = Step::Replacing;
        }
        let is_new = |member: &&Member| !verify.old.contains(&member.identity);
        let new: Vec<_> = members.iter().filter(is_new).collect();
        let booted = new.iter().filter(|member| member.duty != Duty::Boots).count();
        let elsewhere = new.iter().find(|member| {
            member.duty != Duty::Boots
                && member.release.as_ref().is_some_and(|release| *release != verify.target)
        });
        let wrong = elsewhere.map(|member| {
            let release = member.release.clone().unwrap_or_default();
            format!("worker {} runs {release}, not {}", member.identity, verify.target)
        });
        let told = format!("{booted} of {} workers are new and ready", view.workers.unwrap_or(0));
        let left = members.iter().any(|member| verify.old.contains(&member.identity));
        let whole = view.workers == view.booted && view.old == Some(0);
        let done = whole && !left && booted == members.len() && wrong.is_none();
        let changed = verify.told != told;
        verify.told.clone_from(&told);
        if let Some(words) = &view.looping {
            // A worker of the new release that is ready, or will be, belongs to the newest phase: nothing
            // but another restart takes it away. Where none can be, what Puma has begun ends well by
            // itself as soon as it forks from the right place.
            if booted == 0 {
                verify.way_back = Ask::ReloadWorkerDirectory;
            }
            self.verify_goes_back(cx, format!("the new release does not boot ({words})"));
            return;
        }
        if let Some(wrong) = wrong {
            self.verify_goes_back(cx, wrong);
            return;
        }
        if changed {
            self.happened(cx, EventKind::Acted, told);
        }
        let bad = self.verify.as_ref().map_or(0, |verify| verify.bad_answers);
        if bad >= limits::VERIFY_BAD_ANSWERS {
            self.verify_goes_back(cx, format!("{bad} bad answers in a row of its pages"));
            return;
        }
        match self.verify.as_ref().map(|verify| verify.step) {
            Some(Step::Replacing) if done => {
                self.verify_goes_to(Step::Settling(now + limits::VERIFY_SETTLE));
            }
            Some(Step::Settling(_)) if !done => self.verify_goes_to(Step::Replacing),
            Some(Step::Settling(until)) if now >= until => self.verify_succeeds(cx),
            Some(_) | None => {}
        }
        self.probe_pages(cx);
    }

    fn verify_succeeds(&mut self, cx: &mut Cx<'_>) {
        let Some(verify) = &self.verify else { return };
        let took = show_duration(cx.now.mono.since(verify.began));
        let how = match verify.manner {
            Manner::Phased => "",
            Manner::Hot => " (by a full restart: it loads its application before it forks)",
        };
        let pages = match verify.good_answers {
            0 => ", no check looks at its pages".to_owned(),
            good => format!(", {good} good answers of its pages"),
        };
        let text = format!("verified after {took}: all workers run {}{how}{pages}", verify.target);
        self.verify_ends(cx, ReplyResult::Done, &text);
    }

    /// Its pages are asked more often than their checks say.
    fn probe_pages(&mut self, cx: &mut Cx<'_>) {
        let def = self.def.clone();
        for (check, state) in def.checks.iter().zip(&mut self.checks) {
            if is_of_pages(check.kind) && state.asked.is_none() {
                state.due = cx.now.mono;
            }
        }
        self.probe(cx);
    }

    /// A page answered while it is watched.
    pub(super) fn verify_observed(&mut self, kind: CheckKind, verdict: Verdict) {
        let Some(verify) = self.verify.as_mut().filter(|_| is_of_pages(kind)) else { return };
        match verdict {
            Verdict::Pass => {
                verify.bad_answers = 0;
                verify.good_answers += 1;
            }
            Verdict::Fail => verify.bad_answers += 1,
            Verdict::Unknown => {}
        }
    }

    // ---- back ---------------------------------------------------------------------------------

    /// The new release is not to stay.
    fn verify_goes_back(&mut self, cx: &mut Cx<'_>, why: String) {
        let Some(verify) = &mut self.verify else { return };
        if verify.is_going_back() {
            return;
        }
        verify.why = Some(why.clone());
        let previous = verify.previous.clone();
        let puma = self.def.puma.clone();
        let rollback = puma.as_ref().and_then(|puma| puma.rollback.clone());
        let current = puma.as_ref().and_then(|puma| puma.current.clone());
        let command = match (rollback, previous, current) {
            (Some(_), _, _) if self.job.is_some() => Err("another action is under way"),
            (Some(Rollback::Command(command)), _, _) => Ok(command),
            (Some(Rollback::Symlink), Some(previous), Some(current)) => {
                Ok(link(previous.raw(), &current.to_string_lossy()))
            }
            (Some(Rollback::Symlink), _, _) => Err("which release ran before was not seen"),
            (None, _, _) => Err("there is no `rollback` in its file"),
        };
        match command {
            Ok(command) => {
                let text = format!("the new release is taken back: {why}");
                self.happened(cx, EventKind::Failed, text);
                let deadline = cx.now.mono + command.timeout.unwrap_or(limits::TRIAL_TIMEOUT);
                let action = self.run(cx, JobKind::Exec, command, deadline, &why);
                self.verify_goes_to(Step::Linking(action));
            }
            Err(what) => {
                self.happened(
                    cx,
                    EventKind::Failed,
                    format!("the new release does not pass: {why}"),
                );
                self.verify_gives_up(cx, what);
            }
        }
    }

    /// Nothing more can be done: the old workers stay, and what to type is said.
    fn verify_gives_up(&mut self, cx: &mut Cx<'_>, what: &str) {
        let Some(verify) = &self.verify else { return };
        let why = verify.why.clone().unwrap_or_else(|| "it did not come to its end".to_owned());
        let text = format!(
            "failed: {why}; {what}. The old workers go on. Point `current` back and tell Puma \
             `pumactl {}`",
            verify.way_back.word()
        );
        self.verify_ends(cx, ReplyResult::Failed, &text);
    }

    /// A job of it ended. Answers whether it was one.
    pub(super) fn verify_job_ended(
        &mut self,
        cx: &mut Cx<'_>,
        action: ActionId,
        outcome: &Outcome,
    ) {
        let step = self.verify.as_ref().map(|verify| verify.step);
        let good = outcome.ended.succeeded();
        match step {
            Some(Step::Trying(tried)) if tried == action && good => self.verify_asks(cx),
            Some(Step::Trying(tried)) if tried == action => {
                let last = outcome.output.last_line().unwrap_or_default();
                let text = format!("not begun: the new release {}: {last}", outcome.ended);
                self.verify_ends(cx, ReplyResult::Failed, &text);
            }
            Some(Step::Linking(linked)) if linked == action && good => {
                let Some(way_back) = self.verify.as_ref().map(|verify| verify.way_back) else {
                    return;
                };
                let ask = self.ask_puma(cx, way_back);
                let until = cx.now.mono + limits::ASK_TIMEOUT;
                self.verify_goes_to(Step::Returning(ask, until));
            }
            Some(Step::Linking(linked)) if linked == action => {
                let last = outcome.output.last_line().unwrap_or_default();
                self.verify_gives_up(cx, &format!("and `current` was not pointed back: {last}"));
            }
            Some(_) | None => {}
        }
    }

    fn verify_returned(&mut self, cx: &mut Cx<'_>, members: &[Member], view: &PumaView) {
        let Some(verify) = &self.verify else { return };
        let whole = view.workers == view.booted && view.old == Some(0) && !members.is_empty();
        let previous = |member: &Member| {
            verify.previous.is_none()
                || member.release.is_none()
                || member.release == verify.previous
        };
        if whole && view.looping.is_none() && members.iter().all(previous) {
            let why = verify.why.clone().unwrap_or_default();
            let took = show_duration(cx.now.mono.since(verify.began));
            let release = verify.previous.clone().unwrap_or_default();
            let text = format!(
                "the new release did not pass, all workers run {release} again after {took}: {why}"
            );
            self.verify_ends(cx, ReplyResult::Failed, &text);
        }
    }

    // ---- time and ends ------------------------------------------------------------------------

    /// Its time, or the time of its step, is over.
    pub(super) fn verify_due(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let Some(verify) = &self.verify else { return };
        let late = now >= verify.deadline;
        match verify.step {
            Step::Asked(_, until) if now >= until || late => {
                self.verify_ends(cx, ReplyResult::Failed, "not begun: Puma did not answer");
            }
            Step::Heard(until) if now >= until => {
                let text = "not begun: Puma said yes and did nothing (is it a cluster, and phased \
                            restarts not switched off?)";
                self.verify_ends(cx, ReplyResult::Failed, text);
            }
            Step::Returning(_, until) if now >= until => {
                self.verify_gives_up(cx, "Puma did not answer when it was told to go back");
            }
            Step::Returned(until) if now >= until => {
                self.verify_gives_up(cx, "`current` points back, but not all workers came back");
            }
            Step::Looking | Step::Trying(_) if late => {
                self.verify_ends(cx, ReplyResult::Failed, "not begun: its time is over");
            }
            Step::Heard(_) | Step::Replacing | Step::Settling(_) if late => {
                let told = verify.told.clone();
                self.verify_goes_back(cx, format!("its time is over: {told}"));
                if let Some(verify) = &mut self.verify {
                    verify.deadline = now + limits::VERIFY_TIMEOUT;
                }
            }
            Step::Linking(_) if late => self.verify_gives_up(cx, "its time is over"),
            Step::Looking
            | Step::Trying(_)
            | Step::Asked(..)
            | Step::Heard(_)
            | Step::Replacing
            | Step::Settling(_)
            | Step::Linking(_)
            | Step::Returning(..)
            | Step::Returned(_) => {}
        }
    }

    /// Its master is gone: whatever comes next is an ordinary start, and of the release before.
    pub(super) fn verify_lost_master(&mut self, cx: &mut Cx<'_>) {
        let Some(verify) = &self.verify else { return };
        let begun = !matches!(verify.step, Step::Looking | Step::Trying(_));
        if begun && !verify.is_going_back() && self.job.is_none() {
            // The start after it waits for this.
            self.verify_goes_back(cx, "its master died of the new release".to_owned());
        }
        if self.verify.is_some() {
            let text = "failed: its master died of the new release; it is started again";
            self.verify_ends(cx, ReplyResult::Failed, text);
        }
    }

    /// What it is about is no longer watched as it was.
    pub(super) fn verify_parts(&mut self, cx: &mut Cx<'_>, how: &str) {
        if self.verify.is_some() {
            let text = format!("not seen to its end: {how}; `heeler workers` shows how they stand");
            self.verify_ends(cx, ReplyResult::Failed, &text);
        }
    }

    fn verify_goes_to(&mut self, step: Step) {
        if let Some(verify) = &mut self.verify {
            verify.step = step;
        }
    }

    fn verify_ends(&mut self, cx: &mut Cx<'_>, result: ReplyResult, text: &str) {
        let Some(verify) = self.verify.take() else { return };
        let kind = match result {
            ReplyResult::Done => EventKind::Acted,
            ReplyResult::Failed => EventKind::Failed,
        };
        self.happened(cx, kind, format!("verified reload: {text}"));
        let reply = Reply { result, text: text.to_owned() };
        cx.push(Effect::Answer { request: verify.request, reply });
    }
}

fn is_of_pages(kind: CheckKind) -> bool {
    matches!(kind, CheckKind::Http | CheckKind::Port)
}

/// Points a link elsewhere in one step: who reads it meanwhile sees the one or the other. Never to where
/// nothing is (deploys prune old releases): Puma's master dies of a restart onto that.
fn link(target: &str, link: &str) -> Command {
    let script = "test -d \"$0\" || { echo \"$0 is gone\"; exit 1; }; \
                  ln -s -- \"$0\" \"$1.heeler-$$\" && mv -T -- \"$1.heeler-$$\" \"$1\"";
    let argv = ["/bin/sh", "-c", script, target, link].map(Into::into).to_vec();
    Command { argv, timeout: None, env: Vec::new(), cwd: Some("/".into()), systemctl: None }
}
