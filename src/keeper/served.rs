//! What the keeper knows of one service beside the engine: whose it is, where its records are, which
//! processes are held for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::checks::Probe;
use crate::keeper::crews::Crew;
use crate::keeper::looks::Looking;
use crate::keeper::pumas::PumaKnown;
use crate::model::ids::CheckIndex;
use crate::model::process::{ProcessIdentity, Uid};
use crate::model::sample::{Needs, ProcessSample};
use crate::model::service::{Life, Service};
use crate::model::text::Untrusted;
use crate::sys::identity::{ClaimStamp, Proved};
use crate::sys::oom::GroupKills;
use crate::sys::pidfile::Seat;
use crate::sys::survey::{Hold, UnitGroup};

/// One service.
pub(super) struct Served {
    pub(super) def: Arc<Service>,
    /// A mark of its file's text.
    pub(super) text: u64,
    pub(super) file: File,
    /// The uid of its user; `None` until that could be looked up.
    pub(super) owner: Option<Uid>,
    /// The claim that it came with; what was asked before that is not about this one.
    pub(super) born: ClaimId,
    /// Which claim it is looked for by: what was found by another says nothing of this one.
    pub(super) claim: ClaimId,
    /// By which claim its main process was proved.
    pub(super) proved_by: ClaimId,
    /// `run_dir/svc/NAME`.
    pub(super) records: PathBuf,
    /// What all its conditions together need of a sample.
    pub(super) needs: Needs,
    /// Where its pidfile can be looked at on the loop.
    pub(super) seated: Option<Seated>,
    /// What the pool is doing for it.
    pub(super) in_pool: InPool,
    /// The state of the claim when it was last found good.
    pub(super) stamp: Option<ClaimStamp>,
    /// The processes held: the main one, and in clearing what a dead one left.
    pub(super) held: BTreeMap<ProcessIdentity, Holding>,
    /// What is known of main processes for the survey after their death.
    pub(super) families: BTreeMap<ProcessIdentity, Family>,
    /// What was said last of why nothing lives there: each look would say it again.
    pub(super) absence_note: Option<Untrusted>,
    /// What probes each of its checks, in their order.
    pub(super) probes: Arc<[Probe]>,
    /// What is known of the probes that look at files.
    pub(super) looking: BTreeMap<CheckIndex, Looking>,
    /// What is known of its workers.
    pub(super) crew: Crew,
    /// What is known of its unit.
    pub(super) unit: UnitKnown,
    /// What is known of its Puma.
    pub(super) puma: PumaKnown,
    /// The last sample, for rates.
    pub(super) last_sample: Option<ProcessSample>,
}

/// Whether a service has a file in conf.d.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum File {
    /// It has.
    There,
    /// It had. It is a foreground program that goes on, and is there to be stopped, nothing else.
    Gone,
}

/// What the last walk along the path of a pidfile came to.
pub(super) struct Seated {
    pub(super) seat: Seat,
    /// When the path was walked.
    pub(super) walked: Instant,
    /// When it was last seen to lead there.
    pub(super) led: Instant,
}

impl Seated {
    pub(super) fn now(seat: Seat) -> Self {
        let now = Instant::now();
        Self { seat, walked: now, led: now }
    }
}

/// One definition of what says which process is a service's: none is used twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ClaimId(pub(super) u64);

/// The tasks of one service in the pool: one of a kind, so that one that hangs never becomes two.
#[derive(Clone, Copy, Default)]
pub(super) struct InPool {
    /// Its claim is looked at.
    pub(super) look: bool,
    /// Its main process is sampled.
    pub(super) sample: bool,
    /// Its Puma's processes are looked at.
    pub(super) puma: Option<Instant>,
}

/// What is known of a service's unit.
#[derive(Default)]
pub(super) struct UnitKnown {
    /// Its control group, where its manager's word for it may be true.
    pub(super) cgroup: Option<Box<str>>,
    /// How often its manager had restarted it by itself when its main process was found.
    pub(super) restarts: Option<u64>,
    /// The process whose death was seen last, and when, in milliseconds since boot.
    pub(super) died: Option<(ProcessIdentity, u64)>,
}

impl Served {
    /// Where else than in its session a dead main process may have left something: the control group of
    /// its unit, if its death was seen; else what is in there may be its successor.
    pub(super) fn unit_group(&self, dead: ProcessIdentity) -> Option<UnitGroup> {
        let (Life::Unit(unit), Some((died, noticed_boot_ms))) = (&self.def.life, self.unit.died)
        else {
            return None;
        };
        let path = self.unit.cgroup.clone().filter(|_| died == dead)?;
        Some(UnitGroup { path, manager: unit.manager, noticed_boot_ms })
    }
}

/// A held process.
pub(super) struct Holding {
    pub(super) hold: Hold,
    /// Its token with the watcher; `None` where the kernel watches no more: then only looks tell its end.
    pub(super) token: Option<u64>,
}

impl Holding {
    /// The process, if it may be signalled.
    pub(super) fn proved(&self) -> Option<&Proved> {
        match &self.hold {
            Hold::Proved(proved) => Some(proved),
            Hold::Foreign(_) => None,
        }
    }
}

/// How the descendants of a process can be known after its death.
pub(super) struct Family {
    /// Its session.
    pub(super) session: i32,
    /// The inodes of its sockets when it was proved.
    pub(super) sockets: Vec<u64>,
    /// The control group that heeler had started it in.
    pub(super) group: Option<Box<str>>,
    /// What the out-of-memory killer had done in its control group by then.
    pub(super) memory: Option<GroupKills>,
}
