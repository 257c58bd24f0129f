//! `[workers]`: what a worker of a service is, and what was seen of each.

use std::fmt;
use std::time::Duration;

use crate::model::process::{Ours, Pid, ProcessIdentity};
use crate::model::sample::{Needs, ProcessSample};
use crate::model::text::Untrusted;
use crate::model::units::show_duration;

/// What the title of a Puma's worker begins with. The number behind the colon is the master's in its own
/// pid namespace: nothing to be known by.
pub const PUMA_WORKER: &str = r"^puma: cluster worker \d+: ";

/// `[workers]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workers {
    /// A regular expression on the title, among the main process's descendants.
    pub pattern: Box<str>,
    /// Whose they are, where not the service's user: a name or a number.
    pub user: Option<Box<str>>,
    /// How long one that was told to go may take until it counts as stuck. Where it is not said, nobody
    /// but the master knows how long a drain may take.
    pub stop_timeout: Option<Duration>,
    /// The number that serves is never brought below this; at least 1.
    pub min: u32,
    /// How many worker actions are normal.
    pub budget: Budget,
    /// Whether one that does not go may be killed.
    pub kill: Kill,
}

/// How much may be taken away: `3 per 10m`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Actions; at least 1.
    pub actions: u32,
    /// In any window of this length.
    pub window: Duration,
}

impl Workers {
    /// What says who is a worker.
    #[must_use]
    pub fn who(&self) -> (&str, Option<&str>) {
        (&self.pattern, self.user.as_deref())
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { actions: 3, window: Duration::from_secs(600) }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.actions, show_duration(self.window))
    }
}

/// Whether a worker may be killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kill {
    /// When it does not go.
    Allowed,
    /// Never: TERM only.
    Refused(Fragile),
}

/// A master that loses more than the worker when one is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragile {
    /// A backend that dies of a signal may have left shared memory in disorder: the postmaster ends all
    /// others, and recovers from the log.
    Postgres,
}

impl Fragile {
    /// Known by the title of a worker.
    #[must_use]
    pub fn of_title(title: &str) -> Option<Self> {
        title.starts_with("postgres: ").then_some(Self::Postgres)
    }

    /// Titles of its workers, to try a pattern on.
    #[must_use]
    pub fn titles(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &[
                "postgres: deploy shop 127.0.0.1(40112) idle",
                "postgres: deploy shop [local] SELECT",
                "postgres: 15/main: deploy shop 127.0.0.1(40112) idle in transaction",
                "postgres: autovacuum worker process   shop",
                "postgres: 15/main: autovacuum worker shop",
                "postgres: parallel worker for PID 77",
                "postgres: checkpointer",
                "postgres: 15/main: walwriter",
            ],
        }
    }

    /// What a KILL would do, in words.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Postgres => {
                "Postgres ends all its connections when one of its processes is killed"
            }
        }
    }
}

/// Which raw facts the conditions on workers need. Title, parent and user are always read: by them it is
/// known who is a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WorkerNeeds {
    /// Of each process, as of a main process.
    pub process: Needs,
    /// The directory each works in, and whether that and its program are still there.
    pub release: bool,
}

impl WorkerNeeds {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { process: self.process.and(other.process), release: self.release || other.release }
    }
}

/// What was read of one worker at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Worker {
    /// Which process, and its numbers.
    pub sample: ProcessSample,
    /// Whose child it is: the main process's, or another worker's (Puma's `fork_worker`).
    pub parent: Pid,
    /// What it calls itself.
    pub title: Untrusted,
    /// Whether it belongs to the user that workers are to belong to: no other is ever signalled.
    pub ours: Ours,
    /// Where it works; `None`: not asked for, or not readable.
    pub release: Option<Release>,
    /// Whether its program file is still there; `None` likewise.
    pub program: Option<Presence>,
}

impl Worker {
    /// Which process.
    #[must_use]
    pub fn identity(&self) -> ProcessIdentity {
        self.sample.identity
    }

    /// Why it must not be killed, whatever the configuration allows.
    #[must_use]
    pub fn fragile(&self) -> Option<Fragile> {
        Fragile::of_title(self.title.raw())
    }
}

/// What was read of a main process that has workers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Master {
    /// The letter of its state.
    pub state: Option<char>,
    /// Where it works: what it forks next begins there. `None`: not asked for, or not readable.
    pub release: Option<Release>,
    /// Whether its program file is still there; `None` likewise.
    pub program: Option<Presence>,
}

/// The directory a process works in: the release it runs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Release {
    /// Its path, without the kernel's " (deleted)".
    pub path: Untrusted,
    /// Whether it is still there.
    pub presence: Presence,
}

/// Whether what a process uses still has a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Presence {
    /// It has.
    There,
    /// It was deleted.
    Deleted,
}

/// What `current` leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The directory itself, every link followed.
    pub path: Untrusted,
    /// When the link was made, in milliseconds since 1970.
    pub changed_wall_ms: u64,
}

/// How a release stands to `current`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// It is what `current` leads to.
    Current,
    /// It is another.
    Other,
    /// It was deleted under the process: whatever is forked there cannot boot.
    Gone,
}

impl Place {
    /// The words of the metric `release`.
    pub const WORDS: [&'static str; 3] = ["current", "other", "gone"];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Other => "other",
            Self::Gone => "gone",
        }
    }
}

/// How a release stands to `current`; `None` when it is still there and the target is not known.
#[must_use]
pub fn place(release: &Release, target: Option<&Target>) -> Option<Place> {
    match (release.presence, target) {
        (Presence::Deleted, _) => Some(Place::Gone),
        (Presence::There, Some(target)) if target.path == release.path => Some(Place::Current),
        (Presence::There, Some(_)) => Some(Place::Other),
        (Presence::There, None) => None,
    }
}

/// The releases of workers, each once. More than one is a mixture.
#[must_use]
pub fn releases<'w>(workers: impl IntoIterator<Item = &'w Worker>) -> Vec<&'w Release> {
    let mut found: Vec<_> =
        workers.into_iter().filter_map(|worker| worker.release.as_ref()).collect();
    found.sort();
    found.dedup();
    found
}

/// Whether a worker was born of the last (re)start or reload of its master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Generation {
    /// It was.
    Present,
    /// Of an earlier one.
    Older,
}

/// A worker's phase and its master's, as the master says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Phases {
    /// The worker's.
    pub own: u64,
    /// The master's.
    pub master: u64,
}

/// Which generation a worker is of. The master's own word first; else it is older than the last reload
/// when it began before it. `None`: nobody reloaded, and the master says nothing.
#[must_use]
pub fn generation(
    worker: ProcessIdentity,
    phases: Option<Phases>,
    reloaded_ticks: Option<u64>,
) -> Option<Generation> {
    let older = match (phases, reloaded_ticks) {
        (Some(phases), _) => phases.own < phases.master,
        (None, Some(reloaded)) => worker.started_ticks < reloaded,
        (None, None) => return None,
    };
    Some(if older { Generation::Older } else { Generation::Present })
}

/// The place of a Puma's worker in its cluster, by its title.
#[must_use]
pub fn puma_index(title: &str) -> Option<u64> {
    title.strip_prefix("puma: cluster worker ")?.split_once(": ")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(path: &str, presence: Presence) -> Release {
        Release { path: path.into(), presence }
    }

    #[test]
    fn a_release_is_current_another_or_gone() {
        let target = Target { path: "/srv/r2".into(), changed_wall_ms: 7 };
        let (there, gone) = (Presence::There, Presence::Deleted);
        for (path, presence, target, expected) in [
            ("/srv/r2", there, Some(&target), Some(Place::Current)),
            ("/srv/r1", there, Some(&target), Some(Place::Other)),
            ("/srv/r2/", there, Some(&target), Some(Place::Other)),
            ("/srv/r2", gone, Some(&target), Some(Place::Gone)),
            ("/srv/r1", gone, None, Some(Place::Gone)),
            ("/srv/r1", there, None, None),
        ] {
            assert_eq!(place(&release(path, presence), target), expected, "{path} {presence:?}");
        }
        for place in [Place::Current, Place::Other, Place::Gone] {
            assert!(Place::WORDS.contains(&place.word()));
        }
    }

    #[test]
    fn the_masters_word_decides_before_the_clock_does() {
        let worker = ProcessIdentity { pid: Pid(7), started_ticks: 100 };
        let phases = |own, master| Some(Phases { own, master });
        for (phases, reloaded, expected) in [
            (None, None, None),
            (None, Some(100), Some(Generation::Present)),
            (None, Some(101), Some(Generation::Older)),
            (phases(2, 2), Some(101), Some(Generation::Present)),
            (phases(1, 2), None, Some(Generation::Older)),
            // After a hot restart the master counts from 0 again.
            (phases(3, 0), Some(50), Some(Generation::Present)),
        ] {
            assert_eq!(generation(worker, phases, reloaded), expected, "{phases:?} {reloaded:?}");
        }
    }

    #[test]
    fn titles_say_the_index_and_who_must_not_be_killed() {
        for (title, index) in [
            ("puma: cluster worker 0: 4711 [shop]", Some(0)),
            ("puma: cluster worker 12: 39", Some(12)),
            ("puma: cluster worker x: 39 [shop]", None),
            ("puma 8.0.2 (tcp://0.0.0.0:9292) [shop]", None),
            ("puma: cluster worker ", None),
            ("", None),
        ] {
            assert_eq!(puma_index(title), index, "{title}");
        }
        let fragile = Fragile::Postgres;
        assert!(fragile.titles().iter().all(|title| Fragile::of_title(title) == Some(fragile)));
        for title in ["postgres", "/usr/bin/postgres -D /data", "php-fpm: pool postgres: x", ""] {
            assert_eq!(Fragile::of_title(title), None, "{title}");
        }
    }
}
