//! What a Puma says of itself and its workers.

use std::fmt;

use crate::model::process::Pid;

/// What `/stats` says. A number that is missing, null or none is absent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Of which Puma; said since 6.0.
    pub version: Option<Version>,
    /// When this program began, in milliseconds since 1970; newer after a hot restart.
    pub started_wall_ms: Option<u64>,
    /// What serves.
    pub form: Form,
}

/// `8.0.2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// The first number.
    pub major: u64,
    /// The second.
    pub minor: u64,
    /// The third; 0 where there is none.
    pub patch: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Whether it has workers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Form {
    /// It serves itself.
    Single(Threads),
    /// It has.
    Cluster(Cluster),
}

impl Default for Form {
    fn default() -> Self {
        Self::Single(Threads::default())
    }
}

/// A master and its workers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cluster {
    /// How many phased restarts there were since this program began.
    pub phase: Option<u64>,
    /// Its handles of workers: not the number that was configured.
    pub workers: Option<u64>,
    /// Those that said they had booted.
    pub booted: Option<u64>,
    /// Those of another phase.
    pub old: Option<u64>,
    /// Each.
    pub each: Vec<WorkerStatus>,
}

/// One worker, as its master knows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WorkerStatus {
    /// Its number in the master's pid namespace; absent while a `fork_worker` child has not said it.
    pub pid: Option<Pid>,
    /// Its place.
    pub index: Option<u64>,
    /// The phase it was forked in.
    pub phase: Option<u64>,
    /// Whether it said that it had booted.
    pub boot: Boot,
    /// When it was forked, in milliseconds since 1970.
    pub started_wall_ms: Option<u64>,
    /// Its last ping, likewise; seconds are as fine as it gets.
    pub checkin_wall_ms: Option<u64>,
    /// What it said with it.
    pub threads: Threads,
}

/// Whether a worker said that it had booted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Boot {
    /// Not yet.
    #[default]
    Booting,
    /// It did.
    Booted,
}

/// The threads of one process that serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Threads {
    /// Requests that wait for one.
    pub backlog: Option<u64>,
    /// Those there are, busy or not.
    pub running: Option<u64>,
    /// Those that are free, or could be made.
    pub capacity: Option<u64>,
    /// As many as there may be.
    pub most: Option<u64>,
    /// Requests served since it began.
    pub requests: Option<u64>,
}

impl Stats {
    /// The threads of every process that serves.
    pub fn threads(&self) -> impl Iterator<Item = &Threads> {
        let (single, each) = match &self.form {
            Form::Single(threads) => (Some(threads), [].as_slice()),
            Form::Cluster(cluster) => (None, cluster.each.as_slice()),
        };
        single.into_iter().chain(each.iter().map(|worker| &worker.threads))
    }

    /// Requests that wait, over all; absent until somebody said.
    #[must_use]
    pub fn backlog(&self) -> Option<u64> {
        let all: Vec<_> = self.threads().filter_map(|threads| threads.backlog).collect();
        if all.is_empty() {
            None
        } else {
            Some(all.iter().fold(0, |sum, n| sum.saturating_add(*n)))
        }
    }

    /// The busy share of all threads, in thousandths of a percent.
    #[must_use]
    pub fn busy_milli_percent(&self) -> Option<u64> {
        let both = self.threads().filter_map(|threads| Some((threads.capacity?, threads.most?)));
        let (free, most) = both.fold((0u128, 0u128), |(free, most), (capacity, of)| {
            (free + u128::from(capacity.min(of)), most + u128::from(of))
        });
        u64::try_from(((most - free) * 100_000).checked_div(most)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_share_and_the_backlog_are_over_all_workers() {
        let worker = |backlog, capacity, most| WorkerStatus {
            threads: Threads { backlog, capacity, most, ..Threads::default() },
            ..WorkerStatus::default()
        };
        let stats = |each| Stats {
            form: Form::Cluster(Cluster { each, ..Cluster::default() }),
            ..Stats::default()
        };
        let two = stats(vec![worker(Some(2), Some(0), Some(3)), worker(Some(1), Some(3), Some(3))]);
        assert_eq!((two.backlog(), two.busy_milli_percent()), (Some(3), Some(50_000)));
        // The second has not pinged yet.
        let young = stats(vec![worker(Some(0), Some(1), Some(4)), worker(None, None, None)]);
        assert_eq!((young.backlog(), young.busy_milli_percent()), (Some(0), Some(75_000)));
        assert_eq!((stats(vec![]).backlog(), stats(vec![]).busy_milli_percent()), (None, None));
        let odd =
            stats(vec![worker(Some(u64::MAX), Some(9), Some(3)), worker(Some(1), None, None)]);
        assert_eq!((odd.backlog(), odd.busy_milli_percent()), (Some(u64::MAX), Some(0)));
    }
}
