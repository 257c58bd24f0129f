//! Oracles 6 and 9: everybody who asks is answered once, and what an answer says holds.

use heeler::model::ids::RequestId;
use heeler::model::intent::Desired;
use heeler::model::order::{Order, Reply, ReplyResult};

use crate::world::World;

impl World {
    pub(crate) fn judge_answer(&mut self, request: RequestId, reply: &Reply) {
        let now = self.now;
        if let Some((svc, again)) = self.crew_oracles.answered(request, now) {
            if again {
                self.broken(9, Some(svc), &format!("{request} answered again: {reply:?}"));
            }
            return;
        }
        let Some(asked) = self.oracles.requests.get_mut(&request) else {
            self.broken(9, None, &format!("nobody asked {request}: {reply:?}"));
        };
        asked.answers += 1;
        let svc = asked.svc;
        if asked.answers > 1 {
            self.broken(9, Some(svc), &format!("{request} answered again: {reply:?}"));
        }
    }

    /// The answer has reached the operator: what it says holds from now on.
    pub(crate) fn answered(&mut self, request: RequestId, reply: &Reply) {
        self.report.answers += 1;
        let Some(asked) = self.oracles.requests.get(&request) else {
            return;
        };
        let newest = self
            .oracles
            .requests
            .iter()
            .rfind(|(_, other)| other.svc == asked.svc)
            .is_some_and(|(newest, _)| *newest == request);
        if reply.result == ReplyResult::Done && newest && !asked.stale {
            let wish = match asked.order {
                Order::Start | Order::Restart | Order::Monitor => Some(Desired::Up),
                Order::Stop => Some(Desired::Down),
                Order::Unmonitor => Some(Desired::Unmonitored),
                // It says nothing about what is wanted.
                Order::Reload => return,
            };
            self.oracles.watched[asked.svc].wish = wish;
        }
    }
}
