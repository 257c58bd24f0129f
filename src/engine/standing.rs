//! How a Puma stands, from what it says and what its processes are.
//!
//! A single answer is no diagnosis: its control server has one thread, a worker is unbooted for a moment
//! after each restart, and `/stats` does not say how often one was forked. So what was seen before is
//! remembered, as little as tells one from the other.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::process::{Pid, ProcessIdentity};
use crate::model::puma::{Boot, Cluster, Form, Stats, Trouble, TroubleKind, WorkerStatus};
use crate::model::standing::{Share, Standing, Wedge};
use crate::model::time::{Mono, Now, Wall};
use crate::model::workers::{Phases, Worker, puma_index, releases};

/// So many looks in a row at a master inside the kernel.
const UNINTERRUPTIBLE_LOOKS: u32 = 3;
/// So many questions without an answer, over at least so long: one idle connection to a control server
/// keeps it from answering for half a minute.
const SILENT_MISSES: u32 = 3;
/// See [`SILENT_MISSES`].
const SILENT_FOR: Duration = Duration::from_secs(35);
/// So many births in one place, none of which was seen twice.
const LOOP_TRIES: u64 = 3;
/// What a worker may take to boot until its master kills it (60 s), and a look more.
const BOOT_PATIENCE: Duration = Duration::from_secs(70);
/// How long nobody may serve although somebody has booted.
const NOBODY_PATIENCE: Duration = Duration::from_secs(10);
/// A worker pings every 5 seconds. One that missed three is frozen: it does not serve.
const FROZEN_AFTER: Duration = Duration::from_secs(15);

/// One look at a Puma.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// When.
    pub now: Now,
    /// Its main process, if there is one.
    pub main: Option<Main>,
    /// Workers that live on without a main process.
    pub orphans: u64,
    /// What it said.
    pub stats: Result<&'a Stats, &'a Trouble>,
    /// Its workers' processes, where they were looked at.
    pub workers: &'a [&'a Worker],
    /// How many there should be, where the configuration says so.
    pub wanted: Option<u32>,
}

/// Its main process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Main {
    /// Which.
    pub identity: ProcessIdentity,
    /// The letter of its state.
    pub state: Option<char>,
    /// How long it has lived.
    pub age: Duration,
}

/// What is remembered of the looks before.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observer {
    of: Option<(ProcessIdentity, Option<u64>)>,
    has_answered: bool,
    uninterruptible: u32,
    silent: Option<(u32, Mono)>,
    /// The most workers that there were.
    most: u64,
    nobody_since: Option<Mono>,
    places: BTreeMap<u64, Births>,
}

/// Who was born in one place of a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Births {
    last: (Option<Pid>, Option<u64>),
    /// Of those that were not seen twice.
    tries: u64,
    since: Mono,
}

impl Observer {
    /// Takes in a look; says how it stands.
    pub fn look(&mut self, seen: &Seen<'_>) -> Standing {
        let Some(main) = seen.main else {
            *self = Self::default();
            return if seen.orphans > 0 { Standing::Orphans(seen.orphans) } else { Standing::Down };
        };
        if self.of.is_none_or(|(identity, _)| identity != main.identity) {
            *self = Self { of: Some((main.identity, None)), ..Self::default() };
        }
        let uninterruptible = main.state == Some('D');
        self.uninterruptible = if uninterruptible { self.uninterruptible + 1 } else { 0 };
        if main.state == Some('T') {
            return Standing::Wedged(Wedge::Stopped);
        }
        if self.uninterruptible >= UNINTERRUPTIBLE_LOOKS {
            return Standing::Wedged(Wedge::Uninterruptible);
        }
        match seen.stats {
            Ok(stats) => self.answered(seen, main, stats),
            Err(trouble) => self.not_answered(seen, main, trouble),
        }
    }

    fn not_answered(&mut self, seen: &Seen<'_>, main: Main, trouble: &Trouble) -> Standing {
        let now = seen.now.mono;
        if trouble.kind == TroubleKind::Silent {
            let (misses, since) = self.silent.unwrap_or((0, now));
            let misses = misses + 1;
            self.silent = Some((misses, since));
            let over = now.since(since);
            if misses >= SILENT_MISSES && over >= SILENT_FOR {
                return Standing::Wedged(Wedge::Silent { misses, over });
            }
        } else if trouble.kind.is_pumas() {
            // Somebody is there: it does not hang.
            self.silent = None;
        }
        let coming = match trouble.kind {
            TroubleKind::Silent
            | TroubleKind::Refused
            | TroubleKind::Absent
            | TroubleKind::State
            | TroubleKind::Garbled => !self.has_answered && main.age < BOOT_PATIENCE,
            TroubleKind::NotAsked
            | TroubleKind::Address
            | TroubleKind::Denied
            | TroubleKind::Forbidden
            | TroubleKind::Unavailable => false,
        };
        if coming {
            return Standing::Booting(Share { ready: 0, wanted: self.wanted(seen) });
        }
        Standing::Unclear(trouble.clone())
    }

    fn answered(&mut self, seen: &Seen<'_>, main: Main, stats: &Stats) -> Standing {
        self.silent = None;
        self.has_answered = true;
        let of = Some((main.identity, stats.started_wall_ms));
        if self.of != of {
            // It executed itself anew: every worker is another.
            let uninterruptible = self.uninterruptible;
            *self = Self { of, has_answered: true, uninterruptible, ..Self::default() };
        }
        match &stats.form {
            Form::Single(_) => Standing::Up(Share { ready: 1, wanted: 1 }),
            Form::Cluster(cluster) => self.cluster(seen, stats, cluster),
        }
    }

    fn cluster(&mut self, seen: &Seen<'_>, stats: &Stats, cluster: &Cluster) -> Standing {
        let now = seen.now;
        self.count_births(now.mono, cluster);
        self.most = self.most.max(cluster.workers.unwrap_or(0));
        let serving = cluster.each.iter().filter(|worker| serves(worker, seen.workers, now.wall));
        let ready = u64::try_from(serving.count()).unwrap_or(u64::MAX);
        let share = Share { ready, wanted: self.wanted(seen) };
        if ready > 0 {
            self.nobody_since = None;
        }
        let looping = self.places.iter().max_by_key(|(_, births)| births.tries);
        if let Some((index, births)) = looping.filter(|(_, births)| births.tries >= LOOP_TRIES) {
            let over = now.mono.since(births.since);
            return Standing::BootLoop { index: *index, tries: births.tries, over, share };
        }
        let booted = |worker: &&WorkerStatus| worker.boot == Boot::Booted;
        if let (Some(1..), Some(phase)) = (cluster.old, cluster.phase) {
            let new = |worker: &&WorkerStatus| worker.phase == Some(phase);
            let ready = cluster.each.iter().filter(|worker| booted(worker) && new(worker)).count();
            let ready = u64::try_from(ready).unwrap_or(u64::MAX);
            return Standing::Restarting { done: Share { ready, ..share }, phase };
        }
        if ready == 0 {
            let since = *self.nobody_since.get_or_insert(now.mono);
            let over = now.mono.since(since);
            let some_booted = cluster.each.iter().any(|worker| booted(&worker));
            let patience = if some_booted { NOBODY_PATIENCE } else { BOOT_PATIENCE };
            if over >= patience {
                return Standing::NotAnswering { over, wanted: share.wanted };
            }
            return if some_booted { Standing::Degraded(share) } else { Standing::Booting(share) };
        }
        if ready < share.wanted {
            let began = stats.started_wall_ms.map(|began| now.wall.since(Wall(began)));
            let young = began.is_some_and(|age| age < BOOT_PATIENCE);
            let some_booting = cluster.each.iter().any(|worker| !booted(&worker));
            let coming = young && some_booting;
            return if coming { Standing::Booting(share) } else { Standing::Degraded(share) };
        }
        match u64::try_from(releases_of(cluster, seen.workers)).unwrap_or(u64::MAX) {
            releases @ 2.. => Standing::Mixed { share, releases },
            0 | 1 => Standing::Up(share),
        }
    }

    /// A worker that is seen twice lives; one in whose place there is another each time does not.
    fn count_births(&mut self, now: Mono, cluster: &Cluster) {
        self.places.retain(|index, _| cluster.each.iter().any(|it| it.index == Some(*index)));
        for worker in &cluster.each {
            let birth = (worker.pid, worker.started_wall_ms);
            let (Some(index), true) = (worker.index, birth != (None, None)) else { continue };
            let first = Births { last: birth, tries: 0, since: now };
            let births = self.places.entry(index).or_insert(first);
            if births.last != birth {
                births.last = birth;
                births.tries += 1;
            } else if worker.boot == Boot::Booted {
                births.tries = 0;
            }
            if births.tries == 0 {
                births.since = now;
            }
        }
    }

    fn wanted(&self, seen: &Seen<'_>) -> u64 {
        seen.wanted.map_or(self.most, u64::from)
    }
}

/// Whether a worker serves: it has booted, still pings, and nobody stopped it.
#[must_use]
pub fn serves(status: &WorkerStatus, workers: &[&Worker], now: Wall) -> bool {
    let fresh = status.checkin_wall_ms.is_none_or(|at| now.since(Wall(at)) < FROZEN_AFTER);
    let stopped = process_of(status, workers)
        .is_some_and(|worker| matches!(worker.sample.state, Some('T' | 'Z' | 'X')));
    status.boot == Boot::Booted && fresh && !stopped
}

/// The process of a worker that its master speaks of: by its place, since the master may count processes
/// in a namespace of its own; else by its number.
#[must_use]
pub fn process_of<'w>(status: &WorkerStatus, workers: &[&'w Worker]) -> Option<&'w Worker> {
    let by_place = workers
        .iter()
        .find(|worker| status.index.is_some() && puma_index(worker.title.raw()) == status.index);
    let by_number = || {
        let is = |worker: &&&Worker| Some(worker.identity().pid) == status.pid;
        workers.iter().find(is).filter(|worker| puma_index(worker.title.raw()).is_none())
    };
    by_place.or_else(by_number).copied()
}

/// A worker's phase and its master's, by the master's word.
#[must_use]
pub fn phases_of(worker: &Worker, stats: &Stats) -> Option<Phases> {
    let Form::Cluster(cluster) = &stats.form else { return None };
    let status = cluster.each.iter().find(|status| process_of(status, &[worker]).is_some())?;
    Some(Phases { own: status.phase?, master: cluster.phase? })
}

/// How many releases the booted workers run.
fn releases_of(cluster: &Cluster, workers: &[&Worker]) -> usize {
    let booted = cluster.each.iter().filter(|status| status.boot == Boot::Booted);
    releases(booted.filter_map(|status| process_of(status, workers))).len()
}

/// Whether the booted workers run more than one release; `None` where it is not known of any.
#[must_use]
pub fn is_mixed(stats: &Stats, workers: &[&Worker]) -> Option<bool> {
    let Form::Cluster(cluster) = &stats.form else { return Some(false) };
    match releases_of(cluster, workers) {
        0 => None,
        count => Some(count > 1),
    }
}

#[cfg(test)]
mod tests;
