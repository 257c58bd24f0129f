//! What definitions cost: how soon heeler is there, and what so many weigh.

use crate::Bench;
use crate::footprint::{Rest, row};
use crate::meter::cpu;
use crate::peers::{Setup, Watch, Watchdog};
use crate::table::{count, mib};

struct Load {
    answer_ms: f64,
    /// CPU until then.
    start_ms: f64,
    rest: Rest,
}

impl Bench {
    /// From exec until the control socket answers, with processes that are not there and are only
    /// watched for: no start, no stop, no look at a living one.
    pub(crate) fn loads(&self) {
        for services in self.size.loads {
            let case = format!("load, {}", count(*services));
            let setup = Setup::new(*services, Watch::Definitions);
            let outcome =
                self.run(&case, &Watchdog::BOTH, self.size.rounds, &setup, |rig, _| Load {
                    answer_ms: rig.ready.saturating_sub(rig.began) as f64 / 1e6,
                    start_ms: cpu(rig).as_secs_f64() * 1e3,
                    rest: Rest::of(rig, self.size.load_settle, self.size.cpu / 2),
                });
            row(&outcome, "control socket answers after, ms", |load| load.answer_ms);
            row(&outcome, "CPU until then, ms", |load| load.start_ms);
            row(&outcome, "CPU at rest, ms/s", |load| load.rest.cpu_ms_per_s);
            row(&outcome, "PSS at rest, MiB", |load| mib(load.rest.memory.pss_kib));
            outcome.noise();
        }
    }
}
