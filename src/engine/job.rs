//! Jobs: in the books before they are asked for, and told about when they end.

use crate::engine::Cx;
use crate::engine::effect::Effect;
use crate::engine::state::{RunningJob, State};
use crate::model::ids::ActionId;
use crate::model::incident::Cause;
use crate::model::job::{AtDeadline, Ended, Job, JobKind, Outcome};
use crate::model::service::Command;
use crate::model::time::Mono;
use crate::model::unit::Manager;
use crate::model::units::show_duration;

impl State {
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
        let lost_at = if instance { Mono::NEVER } else { deadline + SHIM_GRACE };
        if !instance {
            self.job = Some(RunningJob { action, kind, lost_at });
        }
        let call = command.systemctl.as_ref().map(|call| call.manager);
        // A manager is asked by its owner, in an environment that no service's settings change.
        let (user, group, env, env_file) = match call {
            Some(Manager::System) => (None, None, Vec::new(), None),
            Some(Manager::User) => (self.def.user.clone(), None, Vec::new(), None),
            None => (
                self.def.user.clone(),
                self.def.group.clone(),
                self.def.env.iter().chain(&command.env).cloned().collect(),
                self.def.env_file.clone(),
            ),
        };
        let reason = self
            .open
            .values()
            .find(|open| matches!(open.record.cause, Cause::Down | Cause::Check(..)))
            .map_or_else(|| reason.to_owned(), |open| open.record.title.clone());
        cx.push(Effect::Run(Box::new(Job {
            action,
            service: self.def.name.clone(),
            kind,
            user,
            group,
            env,
            env_file,
            cwd: command.cwd.clone().or_else(|| self.def.cwd.clone()),
            command,
            deadline,
            reason,
            main: self.main.or(self.last_main),
            input: None,
            at_deadline: match kind {
                JobKind::Exec
                | JobKind::Stop
                | JobKind::Look
                | JobKind::Ask
                | JobKind::Probe(_) => AtDeadline::Group,
                JobKind::Start | JobKind::Restart | JobKind::Reload | JobKind::Instance => {
                    AtDeadline::DirectChild
                }
            },
        })));
        action
    }
}

/// How long past its deadline a job's shim may take to end it before the job counts as lost.
const SHIM_GRACE: std::time::Duration = std::time::Duration::from_secs(20);

/// `the start command failed with code 1 after 0.2s: last line`.
pub(super) fn describe(kind: JobKind, outcome: &Outcome) -> String {
    let what = match kind {
        JobKind::Instance => "the program".to_owned(),
        JobKind::Start
        | JobKind::Stop
        | JobKind::Restart
        | JobKind::Reload
        | JobKind::Exec
        | JobKind::Look
        | JobKind::Ask
        | JobKind::Probe(_) => {
            format!("the {} command", kind.name())
        }
    };
    let after = match outcome.ended {
        Ended::Exited(_) | Ended::TimedOut => format!(" after {}", show_duration(outcome.took)),
        Ended::NotExecuted { .. } | Ended::Lost => String::new(),
    };
    let last = outcome.output.last_line().map(|line| format!(": {line}")).unwrap_or_default();
    format!("{what} {}{after}{last}", outcome.ended)
}
