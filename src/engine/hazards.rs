//! What will go off some day: opened once it has been so for long enough, resolved when it is not any more.
//! It is told, reminded of rarely, and never acted on.

use std::collections::BTreeMap;

use crate::engine::Cx;
use crate::engine::state::State;
use crate::model::hazard::HazardKind;
use crate::model::incident::Cause;
use crate::model::intent::Desired;
use crate::model::text::Untrusted;
use crate::model::time::Mono;

/// Since when each is so.
pub(crate) type Hazards = BTreeMap<HazardKind, Mono>;

impl State {
    /// All that a look found.
    pub(super) fn found(&mut self, cx: &mut Cx<'_>, found: &[(HazardKind, Untrusted)]) {
        if self.intent.desired != Desired::Up || self.main.is_none() {
            self.hazards.clear();
            return;
        }
        let now = cx.now.mono;
        for kind in HazardKind::ALL {
            let cause = Cause::Hazard(kind);
            let Some((_, text)) = found.iter().find(|(one, _)| *one == kind) else {
                self.hazards.remove(&kind);
                self.resolve(cx, cause, "it is not so any more");
                continue;
            };
            let since = *self.hazards.entry(kind).or_insert(now);
            if now.since(since) >= kind.patience() && !self.open.contains_key(&cause) {
                self.open_incident(cx, cause, text.to_string(), now);
            }
        }
    }

    /// There is nothing any more that could go off.
    pub(super) fn no_hazards(&mut self, cx: &mut Cx<'_>, how: &str) {
        self.hazards.clear();
        for kind in HazardKind::ALL {
            self.resolve(cx, Cause::Hazard(kind), how);
        }
    }
}
