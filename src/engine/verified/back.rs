//! The way back: the new release is not to stay, and the one before is put in its place again.

use crate::engine::Cx;
use crate::engine::state::State;
use crate::engine::verified::{Step, may_have_heard};
use crate::model::crew::{Member, PumaView};
use crate::model::event::EventKind;
use crate::model::job::JobKind;
use crate::model::limits;
use crate::model::order::ReplyResult;
use crate::model::puma::{Rollback, Trouble};
use crate::model::service::Command;
use crate::model::units::show_duration;

impl State {
    /// The new release is not to stay.
    pub(super) fn verify_goes_back(&mut self, cx: &mut Cx<'_>, why: String) {
        let Some(verify) = &mut self.verify else { return };
        if verify.is_going_back() {
            return;
        }
        verify.why = Some(why.clone());
        let previous = verify.previous.clone();
        let target = verify.target.raw().to_owned();
        let puma = self.def.puma.clone();
        let rollback = puma.as_ref().and_then(|puma| puma.rollback.clone());
        let current = puma.as_ref().and_then(|puma| puma.current.clone());
        let command = match (rollback, previous, current) {
            (Some(_), _, _) if self.job.is_some() => Err("another action is under way"),
            (Some(Rollback::Command(command)), _, _) => Ok(command),
            (Some(Rollback::Symlink), Some(previous), Some(current)) => {
                Ok(link(previous.raw(), &current.to_string_lossy(), &target))
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
    pub(super) fn verify_gives_up(&mut self, cx: &mut Cx<'_>, what: &str) {
        let Some(verify) = &self.verify else { return };
        let why = verify.why.clone().unwrap_or_else(|| "it did not come to its end".to_owned());
        let text = format!(
            "failed: {why}; {what}. The old workers go on. Point `current` back and tell Puma \
             `pumactl {}`",
            verify.way_back.word()
        );
        self.verify_ends(cx, ReplyResult::Failed, &text);
    }

    /// Puma heard that it is to go back, or did not; where it may have, it is watched all the same.
    pub(super) fn puma_asked_to_return(&mut self, cx: &mut Cx<'_>, heard: Result<(), Trouble>) {
        match heard {
            Err(why) if !may_have_heard(why.kind) => {
                self.verify_gives_up(cx, &format!("Puma was not told to go back: {why}"));
            }
            Ok(()) | Err(_) => {
                self.verify_goes_to(Step::Returned(cx.now.mono + limits::VERIFY_RETURN));
                self.look_at_crew_now(cx);
            }
        }
    }

    pub(super) fn verify_returned(&mut self, cx: &mut Cx<'_>, members: &[Member], view: &PumaView) {
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

    /// Its master is gone: whatever comes next is an ordinary start, and of the release before.
    pub(in crate::engine) fn verify_lost_master(&mut self, cx: &mut Cx<'_>) {
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
}

/// Points a link from one directory back to another in one step: who reads it meanwhile sees the one or the
/// other. Never to what is not there (Puma would die of it), nor when somebody pointed it elsewhere by now.
fn link(previous: &str, link: &str, from: &str) -> Command {
    let script = "test -d \"$0\" || { echo \"$0 is gone\"; exit 1; }; \
                  test \"$(readlink -f -- \"$1\")\" = \"$2\" || \
                  { echo \"$1 leads elsewhere by now\"; exit 1; }; \
                  ln -s -- \"$0\" \"$1.heeler-$$\" && mv -T -- \"$1.heeler-$$\" \"$1\"";
    let argv = ["/bin/sh", "-c", script, previous, link, from].map(Into::into).to_vec();
    Command { argv, timeout: None, env: Vec::new(), cwd: Some("/".into()), systemctl: None }
}
