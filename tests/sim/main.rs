//! Deterministic simulation of the engine: the real engine, a fake world, random services and faults, and
//! an oracle for each promise. A storm of faults, then calm, in which everything has to come right.
//!
//! ```text
//! cargo test --test sim                                     a fixed number of seeds
//! HEELER_SIM_SEEDS=20000 cargo test --test sim long_run     that many, beginning at HEELER_SIM_FIRST (0)
//! HEELER_SIM_SEED=17 cargo test --test sim replay -- --nocapture      one seed, everything told
//! ```
//! For long runs `CARGO_PROFILE_TEST_OPT_LEVEL=2` is worth its build.
#![forbid(unsafe_code)]

mod crew;
mod crew_oracles;
mod faults;
mod keeper;
mod life;
mod oracles;
mod prng;
mod reloads;
mod topology;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use heeler::engine::table::{Class, Move, Where, decide};
use heeler::model::intent::Desired;

use crate::faults::Fault;
use crate::world::{Report, World};

/// How many seeds an ordinary test run plays.
const SEEDS: u64 = 1000;
/// From so many on, even the rarest cells of the table are visited (a service that does not die while
/// another copy appears: two in a thousand seeds).
const SEEDS_FOR_ALL_CELLS: u64 = 8000;

#[test]
fn every_promise_holds_in_every_world() {
    let sum = play(0, SEEDS);
    sum.assert_clean();
    sum.assert_covered();
}

#[test]
fn long_run() {
    let Some(count) = number("HEELER_SIM_SEEDS") else {
        eprintln!("not asked for: HEELER_SIM_SEEDS=20000");
        return;
    };
    let sum = play(number("HEELER_SIM_FIRST").unwrap_or(0), count);
    sum.assert_clean();
    if count >= SEEDS {
        sum.assert_covered();
    }
}

#[test]
fn replay() {
    let Some(seed) = number("HEELER_SIM_SEED") else {
        eprintln!("not asked for: HEELER_SIM_SEED=17");
        return;
    };
    let report = World::new(seed, true).run();
    eprintln!("{report:?}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The cells of the table where something is to be done or held.
fn cells() -> impl Iterator<Item = (u8, Where, Class)> {
    let desired = [(0, Desired::Up), (1, Desired::Down), (2, Desired::Unmonitored)];
    desired.into_iter().flat_map(|(row, desired)| {
        Where::ALL.into_iter().flat_map(move |at| {
            Class::ALL
                .into_iter()
                .filter(move |class| decide(desired, at, *class) != Move::Impossible)
                .map(move |class| (row, at, class))
        })
    })
}

/// Cells that nothing leads to, though the table has an answer.
fn out_of_reach((row, at, class): (u8, Where, Class)) -> bool {
    let up = row == 0;
    match (at, class) {
        // Both stages take a missing claim into account themselves.
        (Where::Clearing | Where::Starting, Class::Missing) => true,
        // The old process of a restart command ends: noted, and the new one is awaited.
        (Where::Starting, Class::Died) => true,
        // Rules restart only what is settled; an order to restart what is not there is one to start it.
        (Where::Absent | Where::Clearing | Where::Backoff, Class::WishRestart) => up,
        // An order to start hurries the clearing, and is answered at once by what is up.
        (Where::Clearing | Where::StartPeriod, Class::WishStart) => up,
        // Who wants it down ends the start period.
        (Where::StartPeriod, Class::Appeared | Class::Missing | Class::Died | Class::Late) => {
            row == 1
        }
        // Whoever does not want it up any more ends the back-off.
        (Where::Backoff, Class::Appeared | Class::Missing | Class::Late) => !up,
        _ => false,
    }
}

/// All seeds of a run together.
#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    runs: u64,
    signals: u64,
    worker_signals: u64,
    alerts: u64,
    answers: u64,
    simulated: Duration,
    faults: BTreeMap<Fault, u64>,
    cells: BTreeSet<(u8, Where, Class)>,
    failed: Vec<String>,
}

fn play(first: u64, count: u64) -> Sum {
    let begin = Instant::now();
    let mut sum = Sum::default();
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for seed in first..first + count {
        match catch_unwind(AssertUnwindSafe(|| World::new(seed, false).run())) {
            Ok(report) => sum.add(report),
            Err(panic) => sum.failed.push(words(panic.as_ref(), seed)),
        }
        sum.seeds += 1;
    }
    std::panic::set_hook(quiet);
    sum.tell(begin.elapsed());
    sum
}

fn words(panic: &(dyn std::any::Any + Send), seed: u64) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    if text.starts_with("oracle") {
        text.to_owned()
    } else {
        format!("panic: seed {seed}: {}", text.chars().take(300).collect::<String>())
    }
}

impl Sum {
    fn add(&mut self, report: Report) {
        self.steps += report.steps;
        self.runs += report.runs;
        self.signals += report.signals;
        self.worker_signals += report.worker_signals;
        self.alerts += report.alerts;
        self.answers += report.answers;
        self.simulated += report.simulated;
        self.cells.extend(report.cells);
        for (fault, count) in report.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }

    fn tell(&self, took: Duration) {
        let per_second = self.steps as f64 / took.as_secs_f64();
        eprintln!(
            "{} seeds, {} steps ({per_second:.0} a second), {:?} simulated in {took:.1?}; \
             {} jobs, {} signals, {} to workers, {} alerts, {} answers; {} cells",
            self.seeds,
            self.steps,
            self.simulated,
            self.runs,
            self.signals,
            self.worker_signals,
            self.alerts,
            self.answers,
            self.cells.len()
        );
        eprintln!("faults: {:?}", self.faults);
        let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for text in &self.failed {
            let kind = text.split(':').next().unwrap_or_default();
            kinds.entry(kind).or_default().push(text);
        }
        for (kind, texts) in kinds {
            eprintln!("{kind}: {} seeds failed", texts.len());
            for text in texts.iter().take(6) {
                eprintln!("    {text}");
            }
        }
    }

    fn assert_clean(&self) {
        let first = self.failed.first().map(String::as_str).unwrap_or_default();
        assert!(
            self.failed.is_empty(),
            "{} of {} seeds failed, the first: {first}\n\
             replay with HEELER_SIM_SEED=n cargo test --test sim replay -- --nocapture",
            self.failed.len(),
            self.seeds
        );
    }

    fn assert_covered(&self) {
        let idle: Vec<_> = Fault::ALL
            .iter()
            .chain(&Fault::CREW)
            .filter(|fault| !self.faults.contains_key(fault))
            .collect();
        assert!(idle.is_empty(), "faults that never struck: {idle:?}");
        let missed: Vec<_> = cells()
            .filter(|cell| !self.cells.contains(cell) && !out_of_reach(*cell))
            .filter(|(row, at, class)| {
                let another_comes = *class == Class::Appeared && *row > 0;
                let rare = *at == Where::Killing
                    || (*at == Where::Stopping && (*row == 2 || another_comes));
                !rare || self.seeds >= SEEDS_FOR_ALL_CELLS
            })
            .collect();
        assert!(missed.is_empty(), "cells of the table that were never visited: {missed:?}");
        let reached: Vec<_> = self.cells.iter().filter(|cell| out_of_reach(**cell)).collect();
        assert!(reached.is_empty(), "cells that are listed as out of reach: {reached:?}");
    }
}
