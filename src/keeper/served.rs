//! What the keeper knows of one service beside the engine: whose it is, where its records are, which
//! processes are held for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::process::{ProcessIdentity, Uid};
use crate::model::sample::{Needs, ProcessSample};
use crate::model::service::Service;
use crate::sys::identity::{ClaimStamp, Proved};
use crate::sys::survey::Hold;

/// One service.
pub(super) struct Served {
    pub(super) def: Arc<Service>,
    /// The uid of its user; `None` until that could be looked up.
    pub(super) owner: Option<Uid>,
    /// `run_dir/svc/NAME`.
    pub(super) records: PathBuf,
    /// What all its conditions together need of a sample.
    pub(super) needs: Needs,
    /// Whether its pidfile is on a file system of this machine, so that looking at it cannot hang.
    pub(super) claim_at: Place,
    /// The state of the claim when it was last found good.
    pub(super) stamp: Option<ClaimStamp>,
    /// The processes held: the main one, and in clearing what a dead one left.
    pub(super) held: BTreeMap<ProcessIdentity, Holding>,
    /// What is known of main processes for the survey after their death.
    pub(super) families: BTreeMap<ProcessIdentity, Family>,
    /// The last sample, for rates.
    pub(super) last_sample: Option<ProcessSample>,
}

/// Where a file is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On a file system that cannot hang on a network.
    Local,
    /// Elsewhere, or not known yet: only looked at from the pool.
    Elsewhere,
}

/// A held process.
pub(super) struct Holding {
    pub(super) hold: Hold,
    /// Its token with the watcher.
    pub(super) token: u64,
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
}
