//! What is known of a death beside how it ended.

use std::time::{Duration, Instant};

use crate::engine::input::Input;
use crate::keeper::Keeper;
use crate::model::ids::ServiceName;
use crate::model::process::{Exit, ProcessIdentity};
use crate::sys::oom;

/// As the kernel counts it.
const SIGKILL: i32 = 9;
/// Deaths so near to a kill of the out-of-memory killer may be its doing.
const NEAR: Duration = Duration::from_secs(2);

/// What the out-of-memory killer did on this machine, as far as it was looked at.
pub(super) struct MemoryKills {
    count: Option<u64>,
    last_seen: Option<Instant>,
}

impl MemoryKills {
    pub(super) fn begin() -> Self {
        Self { count: oom::of_machine(), last_seen: None }
    }

    /// Whether it was at work just now.
    fn just_now(&mut self) -> bool {
        let count = oom::of_machine();
        let now = Instant::now();
        if count > self.count {
            self.last_seen = Some(now);
        }
        self.count = count;
        self.last_seen.is_some_and(|seen| now.duration_since(seen) < NEAR)
    }
}

impl Keeper {
    /// Tells the engine of a death, and what else is known of it.
    pub(super) fn died(
        &mut self,
        service: ServiceName,
        identity: ProcessIdentity,
        exit: Option<Exit>,
    ) {
        let remark = self.memory_killer(&service, identity, exit);
        self.inbox.push_back(Input::Exited { service: service.clone(), identity, exit });
        if let Some(text) = remark {
            self.inbox.push_back(Input::Remarked { service, text });
        }
    }

    fn memory_killer(
        &mut self,
        service: &ServiceName,
        identity: ProcessIdentity,
        exit: Option<Exit>,
    ) -> Option<String> {
        let family = self.services.get(service).and_then(|served| served.families.get(&identity));
        let group = family.and_then(|family| family.memory.as_ref()).filter(|kills| kills.rose());
        if let Some(kills) = group {
            return Some(format!(
                "the kernel's out-of-memory killer took a process of the control group {}: see `dmesg`, and \
                 the memory limit of that group",
                kills.group
            ));
        }
        let may_be = match exit {
            None | Some(Exit::Signal(SIGKILL)) => true,
            Some(Exit::Signal(_) | Exit::Code(_)) => false,
        };
        (may_be && self.memory_kills.just_now()).then(|| {
            "the kernel's out-of-memory killer was at work on this machine just then: see `dmesg`".to_owned()
        })
    }
}
