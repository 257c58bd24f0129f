//! A verified reload: a phased restart of a Puma that is watched to its end, and taken back when the new
//! release does not boot, does not answer, or is not the one meant.
//!
//! Puma answers "ok" before it does anything, and knows "booted", not "healthy". So what counts is seen:
//! each new worker, the release it runs, the pages. The old workers are never taken away for it: while a
//! new one is not ready the guard keeps them.

mod back;
mod pages;

use std::time::Duration;

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::state::State;
use crate::engine::table::Where;
use crate::engine::verified::pages::{Before, Pages};
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
use crate::model::puma::{Ask, Trouble, TroubleKind};
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
    pages: Pages,
    /// Why Puma may not have heard: then it is said, when nothing follows.
    unheard: Option<Trouble>,
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

    pub(super) fn began(&self) -> Mono {
        self.began
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
            pages: Pages::default(),
            unheard: None,
            why: None,
            told: String::new(),
        }));
        cx.dirty = true;
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

    /// Its workers cannot be looked at: nothing is begun that could not be watched.
    pub(super) fn verify_cannot_see(&mut self, cx: &mut Cx<'_>, why: &Untrusted) {
        if self.verify.as_ref().is_some_and(|verify| verify.step == Step::Looking) {
            let text = format!("not begun: its workers cannot be looked at: {why}");
            self.verify_ends(cx, ReplyResult::Failed, &text);
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
        let pages = self.pages_before();
        let Some(verify) = &mut self.verify else { return };
        verify.pages = pages;
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
    pub(super) fn puma_asked(&mut self, cx: &mut Cx<'_>, ask: AskId, heard: Result<(), Trouble>) {
        let step = self.verify.as_ref().map(|verify| verify.step);
        if matches!(step, Some(Step::Asked(asked, _)) if asked == ask) {
            self.puma_asked_to_begin(cx, heard);
        } else if matches!(step, Some(Step::Returning(asked, _)) if asked == ask) {
            self.puma_asked_to_return(cx, heard);
        } else {
            cx.counters.dropped_answers += 1;
        }
    }

    fn puma_asked_to_begin(&mut self, cx: &mut Cx<'_>, heard: Result<(), Trouble>) {
        let mut wait = limits::VERIFY_HEARD;
        if let Err(why) = heard {
            if !may_have_heard(why.kind) {
                self.verify_ends(cx, ReplyResult::Failed, &format!("not begun: {why}"));
                return;
            }
            // What waits in its socket it still does, and then nobody must look away.
            wait += limits::ASK_TIMEOUT;
            if let Some(verify) = &mut self.verify {
                verify.unheard = Some(why);
            }
        }
        self.verify_goes_to(Step::Heard(cx.now.mono + wait));
        self.look_at_crew_now(cx);
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
        // One that was forked before Puma began runs what ran before, and is replaced like the old ones.
        let may_be_old = |member: &Member| view.old > Some(0) && member.release == verify.previous;
        let serves = |member: &&&Member| member.duty == Duty::Serves && !may_be_old(member);
        let ready = new.iter().filter(serves).count();
        // Where it could be read before, what cannot be read now proves nothing.
        let known = verify.previous.is_none() || new.iter().all(|member| member.release.is_some());
        let elsewhere = new.iter().find(|member| {
            member.duty != Duty::Boots
                && member.release.as_ref().is_some_and(|release| *release != verify.target)
                && !may_be_old(member)
        });
        let wrong = elsewhere.map(|member| {
            let release = member.release.clone().unwrap_or_default();
            format!("worker {} runs {release}, not {}", member.identity, verify.target)
        });
        let told = format!("{ready} of {} workers are new and ready", view.workers.unwrap_or(0));
        let seen_all = u64::try_from(ready).ok() == view.workers && ready == members.len();
        let left = members.iter().any(|member| verify.old.contains(&member.identity));
        let whole = view.workers == view.booted && view.old == Some(0);
        let done = whole && !left && seen_all && known && wrong.is_none();
        let changed = verify.told != told;
        verify.told.clone_from(&told);
        verify.pages.ready(ready);
        let bad = verify.pages.bad_in_a_row();
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
        if bad >= limits::VERIFY_BAD_ANSWERS {
            self.verify_goes_back(cx, format!("{bad} bad answers in a row of its pages"));
            return;
        }
        let Some(verify) = &mut self.verify else { return };
        if let Step::Settling(until) = verify.step {
            if !done {
                verify.step = Step::Replacing;
            } else if now >= until && verify.pages.are_well() {
                self.verify_succeeds(cx);
            }
        } else if verify.step == Step::Replacing && done {
            verify.pages.count_anew();
            verify.step = Step::Settling(now + limits::VERIFY_SETTLE);
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
        let pages = verify.pages.words();
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
    pub(super) fn verify_observed(&mut self, at: usize, verdict: Verdict) {
        if let Some(verify) = &mut self.verify {
            verify.pages.answered(at, verdict);
        }
    }

    fn pages_before(&self) -> Pages {
        let checks = self.def.checks.iter().zip(&self.checks).enumerate();
        let pages = checks.filter(|(_, (check, _))| is_of_pages(check.kind));
        Pages::of(pages.map(|(at, (check, state))| {
            let last = state.last.as_ref();
            let bad = last.is_some_and(|seen| {
                check.condition.judge(seen, state.fingerprint) == Verdict::Fail
            });
            (at, if bad { Before::Badly } else { Before::Well })
        }))
    }

    /// Its checks are others now, in other places.
    pub(super) fn verify_redefined(&mut self) {
        let pages = self.pages_before();
        if let Some(verify) = &mut self.verify {
            verify.pages = pages;
        }
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
                let what =
                    format!("and `current` was not pointed back ({}): {last}", outcome.ended);
                self.verify_gives_up(cx, &what);
            }
            Some(_) | None => {}
        }
    }

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
                let text = match &verify.unheard {
                    Some(why) => format!("not begun: {why}"),
                    None => {
                        "not begun: Puma said yes and did nothing (is it a cluster, and phased \
                             restarts not switched off?)"
                            .to_owned()
                    }
                };
                self.verify_ends(cx, ReplyResult::Failed, &text);
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
            }
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

    /// What it is about is no longer watched as it was.
    pub(super) fn verify_parts(&mut self, cx: &mut Cx<'_>, how: &str) {
        if self.verify.is_some() {
            let text = format!("not seen to its end: {how}; `heeler workers` shows how they stand");
            self.verify_ends(cx, ReplyResult::Failed, &text);
        }
    }

    /// An earlier keeper watched one, and nobody remembers how far it was. Whoever asked for it lost the
    /// connection; what Puma began goes on, under the guard as ever.
    pub(super) fn verify_was_left(&mut self, cx: &mut Cx<'_>) {
        let text = "verified reload: not seen to its end: heeler was restarted meanwhile; `heeler workers` \
                    shows how they stand";
        self.happened(cx, EventKind::Failed, text.to_owned());
        cx.dirty = true;
    }

    fn verify_goes_to(&mut self, step: Step) {
        if let Some(verify) = &mut self.verify {
            verify.step = step;
        }
    }

    fn verify_ends(&mut self, cx: &mut Cx<'_>, result: ReplyResult, text: &str) {
        let Some(verify) = self.verify.take() else { return };
        cx.dirty = true;
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

/// Whether it may have been told although it did not say so: its control server has one thread, and reads
/// what waits for it when whoever holds that goes.
fn may_have_heard(kind: TroubleKind) -> bool {
    match kind {
        TroubleKind::Silent | TroubleKind::Garbled => true,
        TroubleKind::NotAsked
        | TroubleKind::Absent
        | TroubleKind::State
        | TroubleKind::Address
        | TroubleKind::Denied
        | TroubleKind::Refused
        | TroubleKind::Forbidden
        | TroubleKind::Unavailable => false,
    }
}
