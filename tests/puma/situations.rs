//! What happens to the shop: the same whoever keeps it. How long until it is well again, and how many
//! requests were lost meanwhile, is the answer.

use std::collections::BTreeSet;
use std::fs;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::keepers::{Deploy, Stand, WORKERS, Wants, all_workers};
use crate::load::ask;
use crate::orphans::is_locked;
use crate::shop::{Way, add_release, app, freeze, masters, point_at};
use crate::support::house::{PATIENCE, signal};
use crate::support::wait_for;
use crate::verified::{GOOD, RAISES, WRONG};

/// Something that happens.
pub(crate) struct Situation {
    pub(crate) name: &'static str,
    pub(crate) ways: &'static [Way],
    /// For Puma's configuration.
    pub(crate) ruby: &'static str,
    /// For heeler's.
    pub(crate) toml: &'static str,
    /// Makes it happen.
    pub(crate) happen: fn(&Stand) -> Happened,
    /// What has not healed by then counts as never.
    pub(crate) limit: Duration,
}

/// What happened, to be mended.
pub(crate) struct Happened {
    pub(crate) began: Instant,
    /// Who may not be there any more.
    pub(crate) gone: BTreeSet<u32>,
    pub(crate) wants: Wants,
    pub(crate) deploy: Option<Deploy>,
    /// What somebody else meanwhile came to know.
    pub(crate) witness: Option<JoinHandle<String>>,
}

const PLAIN: &[Way] = &[Way::Script];
const BOTH: &[Way] = &[Way::Script, Way::Managed];
/// Puma replaces them in this order.
const FIRST: usize = 0;
const LAST: usize = WORKERS - 1;
/// Puma itself waits for an hour; heeler is told what a request may take.
const PATIENT: &str = "worker_shutdown_timeout 3600\n";
const HURRIED: &str = "[workers]\nstop_timeout = \"10s\"\n";
const MINUTE: Duration = Duration::from_secs(60);
/// Longer than Puma's `worker_timeout` and than systemd's `TimeoutStopSec`.
const LONG: Duration = Duration::from_secs(100);

/// An old worker is in the way of a phased restart.
const fn stuck(
    name: &'static str,
    ways: &'static [Way],
    happen: fn(&Stand) -> Happened,
) -> Situation {
    Situation { name, ways, ruby: PATIENT, toml: HURRIED, happen, limit: MINUTE }
}

const fn other(
    name: &'static str,
    ways: &'static [Way],
    happen: fn(&Stand) -> Happened,
) -> Situation {
    Situation { name, ways, ruby: "", toml: HURRIED, happen, limit: MINUTE }
}

pub(crate) const ALL: [Situation; 21] = [
    other("a good release", BOTH, |stand| deploys(stand, 2, GOOD)),
    stuck("a phased restart, the first in line holds the GVL", BOTH, |stand| {
        held_up(stand, lock, FIRST)
    }),
    stuck("a phased restart, the last in line holds the GVL", PLAIN, |stand| {
        held_up(stand, lock, LAST)
    }),
    stuck("a phased restart, the first in line is stopped (SIGSTOP)", BOTH, |stand| {
        held_up(stand, freeze, FIRST)
    }),
    stuck("a phased restart, the last in line is stopped (SIGSTOP)", PLAIN, |stand| {
        held_up(stand, freeze, LAST)
    }),
    stuck(
        "a phased restart, the first in line has a request that never ends (`ensure`)",
        PLAIN,
        |stand| held_up(stand, never_ends, FIRST),
    ),
    stuck(
        "a phased restart, the last in line has a request that never ends (`ensure`)",
        PLAIN,
        |stand| held_up(stand, never_ends, LAST),
    ),
    Situation {
        ruby: "",
        ..stuck("a phased restart, the first in line is stopped, Puma's own 30 s", PLAIN, |stand| {
            held_up(stand, freeze, FIRST)
        })
    },
    Situation {
        name: "a phased restart, a worker drains for 60 s, as it may (`worker_shutdown_timeout 3600`)",
        ways: PLAIN,
        ruby: PATIENT,
        toml: "",
        happen: |stand| {
            let long = on(all_workers()[0], "/slow?s=60", |_| {
                // Nothing of it is seen but that it came: it is the only one that could be asked.
                thread::sleep(Duration::from_millis(300));
                true
            });
            let answered = thread::spawn(move || match long.join().expect("the client") {
                Some(code) => format!("the request of 60 s got its {code}"),
                None => "the request of 60 s was cut".to_owned(),
            });
            Happened { witness: Some(answered), ..deploys(stand, 2, GOOD) }
        },
        limit: LONG,
    },
    Situation {
        limit: LONG,
        ..other("kill -9 of the master, a worker holds the GVL", BOTH, |_| {
            lock(all_workers()[0]);
            master_dies()
        })
    },
    Situation {
        limit: LONG,
        ..other("kill -9 of the master, a worker is stopped (SIGSTOP)", BOTH, |_| {
            freeze(all_workers()[0]);
            master_dies()
        })
    },
    other("the new code raises at boot", BOTH, |stand| deploys(stand, 2, RAISES)),
    other("the new code boots and answers 500", PLAIN, |stand| deploys(stand, 2, WRONG)),
    other("the new code boots in 5 s, and well", PLAIN, |stand| {
        deploys(stand, 2, &format!("sleep 5\n{GOOD}"))
    }),
    Situation {
        ruby: "preload_app!\n",
        ..other("preloaded, a good release", PLAIN, |stand| deploys(stand, 2, GOOD))
    },
    Situation {
        ruby: "preload_app!\n",
        ..other("preloaded, the new code raises at boot", BOTH, |stand| deploys(stand, 2, RAISES))
    },
    other("a phased restart while `current` leads nowhere", BOTH, |stand| {
        let began = Instant::now();
        let deploy = Some(stand.deploy(9));
        Happened { began, gone: BTreeSet::new(), wants: Wants::Any, deploy, witness: None }
    }),
    other("its release was pruned without a restart, and a worker dies", PLAIN, |_| {
        add_release(2, GOOD);
        point_at(2);
        fs::remove_dir_all(app("releases/1")).expect("remove");
        let before = all_workers();
        let began = Instant::now();
        signal(before[0], "KILL");
        happened(began, before)
    }),
    other("a worker leaks 250 MiB", PLAIN, |_| {
        let leaky = all_workers()[0];
        on(leaky, "/grow?mb=250", Asked::is_finished);
        happened(Instant::now(), [leaky])
    }),
    Situation {
        limit: LONG,
        ..other("a worker hangs: it holds the GVL", PLAIN, |_| {
            let hung = all_workers()[0];
            lock(hung);
            happened(Instant::now(), [hung])
        })
    },
    Situation {
        limit: LONG,
        ..other("a worker hangs: it is stopped (SIGSTOP)", PLAIN, |_| {
            let hung = all_workers()[0];
            freeze(hung);
            happened(Instant::now(), [hung])
        })
    },
];

fn happened(began: Instant, gone: impl IntoIterator<Item = u32>) -> Happened {
    let gone = gone.into_iter().collect();
    Happened { began, gone, wants: Wants::Current, deploy: None, witness: None }
}

/// A worker hangs, and a good release comes.
fn held_up(stand: &Stand, hang: fn(u32), place: usize) -> Happened {
    hang(all_workers()[place]);
    deploys(stand, 2, GOOD)
}

pub(crate) fn deploys(stand: &Stand, number: u32, text: &str) -> Happened {
    add_release(number, text);
    let began = Instant::now();
    let deploy = Some(stand.deploy(number));
    // Who may stay is said by `current`: where it is taken back, those that were there before may.
    Happened { deploy, ..happened(began, []) }
}

fn master_dies() -> Happened {
    let before = all_workers();
    let began = Instant::now();
    signal(masters()[0], "KILL");
    happened(began, before)
}

type Asked = JoinHandle<Option<u16>>;

/// Asks this worker and no other: the others are stopped for a moment, until what was asked for is seen.
fn on(worker: u32, path: &'static str, mut seen: impl FnMut(&Asked) -> bool) -> Asked {
    let others: Vec<_> = all_workers().into_iter().filter(|pid| *pid != worker).collect();
    others.iter().for_each(|pid| freeze(*pid));
    let asked = thread::spawn(move || ask(path, Duration::from_secs(3600)));
    wait_for(path, PATIENCE, || seen(&asked).then_some(()));
    others.iter().for_each(|pid| signal(*pid, "CONT"));
    asked
}

fn lock(worker: u32) {
    on(worker, "/gvl?s=3600", |_| is_locked(worker));
}

fn never_ends(worker: u32) {
    on(worker, "/ensure", |_| {
        fs::read_to_string(app("shared/stuck")).is_ok_and(|named| named == worker.to_string())
    });
}
