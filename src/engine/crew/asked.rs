//! Operators who want a worker gone: under the same guard as any rule, and answered once it is known.

use crate::engine::Cx;
use crate::engine::crew::AskedFor;
use crate::engine::effect::Effect;
use crate::engine::state::State;
use crate::model::crew::{Leaving, Member};
use crate::model::event::EventKind;
use crate::model::ids::RequestId;
use crate::model::intent::Who;
use crate::model::limits;
use crate::model::order::{Reply, ReplyResult, WorkerPick};
use crate::model::process::Pid;
use crate::model::time::Mono;
use crate::model::units::show_duration;

impl State {
    /// An operator wants a worker gone, under the same guard as any rule.
    pub(in crate::engine) fn order_worker(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestId,
        pick: WorkerPick,
        who: &Who,
    ) {
        let now = cx.now.mono;
        let which = match pick {
            WorkerPick::Pid(pid) => format!("worker {pid}"),
            WorkerPick::Stuck => "the stuck worker".to_owned(),
        };
        self.happened(cx, EventKind::Ordered, format!("kill of {which} asked by {who}"));
        let main =
            matches!((pick, self.main), (WorkerPick::Pid(pid), Some(main)) if main.pid == pid);
        let refusal = if !self.has_crew() {
            Some("it has no [workers] in its file".to_owned())
        } else if main {
            Some("that is the main process: `heeler restart` takes it away".to_owned())
        } else if self.main.is_none() {
            Some("it is not running".to_owned())
        } else {
            None
        };
        if let Some(text) = refusal {
            cx.push(Effect::Answer { request, reply: Reply { result: ReplyResult::Failed, text } });
            return;
        }
        let until = now + limits::ASK_TIMEOUT;
        self.crew.asked_for.push(AskedFor { request, pick, until });
        self.crew.due = Some(now);
    }

    pub(super) fn give_up_on_operators(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let acting = self.crew.acting.as_ref().and_then(|acting| acting.request);
        let late: Vec<_> = self
            .crew
            .asked_for
            .iter()
            .filter(|asked| now >= asked.until && Some(asked.request) != acting)
            .map(|asked| asked.request)
            .collect();
        for request in late {
            let text = match &self.crew.acting {
                Some(acting) => format!(
                    "not done: worker {} is being taken away, and one goes at a time",
                    acting.worker
                ),
                None => "its workers cannot be looked at now".to_owned(),
            };
            self.answer_for_worker(cx, request, ReplyResult::Failed, text);
        }
    }

    /// What an operator asked for is not there.
    pub(super) fn answer_unfound(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let unfound: Vec<_> = self
            .crew
            .asked_for
            .iter()
            .filter(|asked| {
                !self.crew.members.iter().any(|member| match asked.pick {
                    WorkerPick::Pid(pid) => member.identity.pid == pid,
                    WorkerPick::Stuck => self.looks_stuck(member, now),
                })
            })
            .map(|asked| (asked.request, asked.pick))
            .collect();
        for (request, pick) in unfound {
            let text = match pick {
                WorkerPick::Pid(Pid(pid)) => format!("there is no worker {pid}"),
                WorkerPick::Stuck => self.nobody_stuck(now),
            };
            self.answer_for_worker(cx, request, ReplyResult::Failed, text);
        }
    }

    /// Whether it is the stuck one for a person who says that one is. Where the service does not say how
    /// long a drain may take, the person does.
    pub(super) fn looks_stuck(&self, member: &Member, now: Mono) -> bool {
        let says = self.def.workers.as_ref().is_some_and(|workers| workers.stop_timeout.is_some());
        self.is_stuck(member, now) || (!says && member.leaving == Leaving::Awaited)
    }

    fn nobody_stuck(&self, now: Mono) -> String {
        let awaited = self.crew.members.iter().find(|member| member.leaving == Leaving::Awaited);
        let Some(member) = awaited else { return "no worker is stuck".to_owned() };
        let since = self.crew.hands.get(&member.identity).and_then(|hand| hand.awaited_since);
        let waited = show_duration(now.since(since.unwrap_or(now)));
        let pid = member.identity;
        format!("no worker is stuck: {pid} was told to go {waited} ago, and has its time")
    }

    pub(super) fn answer_for_worker(
        &mut self,
        cx: &mut Cx<'_>,
        request: RequestId,
        result: ReplyResult,
        text: String,
    ) {
        self.crew.asked_for.retain(|asked| asked.request != request);
        cx.push(Effect::Answer { request, reply: Reply { result, text } });
    }
}
