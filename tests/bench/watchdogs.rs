//! heeler beside Monit and others on this machine, in one Markdown table: `cargo bench`.
//!
//! Needs gcc; what is installed of Monit, runit, s6 and supervisord fills its column, and a dash stands
//! where one is not there or cannot do such a thing; root for services of another user, for nice -15 and
//! for the memory of heeler's scout. The table goes to stdout, progress to stderr.
//!
//!     cargo bench                                  # all: about an hour
//!     cargo bench -- recovery load                 # rows that contain one of these
//!     cargo bench -- 'recovery, 200 services'      # as they stand in the table
//!     HEELER_BENCH_QUICK=1 cargo bench             # a trial of seven minutes: not to be quoted
//!     HEELER_BENCH_ROUNDS=1 cargo bench            # each case once instead of three times
//!     HEELER_BENCH_KILLS=300 cargo bench           # recoveries to quote
//!     HEELER_BENCH_MONIT_HERD=1 cargo bench        # Monit also has 200 deaths at once, three times
//!
//! | rows | what |
//! | --- | --- |
//! | recovery | kill -9 to the first instruction of the start program, at random phases of the cycle |
//! | herd | all die at once: until the last start program runs |
//! | footprint | CPU and memory when nothing happens: existence, cpu and rss, a page each every 10 s |
//! | strangers | the CPU of the same among many processes that nobody watches |
//! | workers | the CPU of a look at all workers of services of eight, each judged for memory and age |
//! | shims | what `run =` costs: one shim each |
//! | lateness | pauses between two requests for a healthy page, beside pages that never answer |
//! | throughput | HTTP checks that really came, and how late |
//! | load | from exec until the control socket answers, and what so many definitions cost |
//!
//! Fairness: the same services, start programs and order. heeler and Monit look every second (a page's
//! footprint: every ten), have their control socket, write their log and state to the project's disk,
//! and mail nobody. runit, s6 and supervisord keep the same program in the foreground as their own child
//! and look at nothing; the limit is a bare loop in C of pidfd, epoll, vfork and exec without log,
//! state or policy (of workers: one that reads the same files). Each case runs all in turn, each time from scratch, after a wait for a calm machine.
//! Instants are `CLOCK_MONOTONIC`: right before kill(2), the first thing in main of a static start
//! program, a web server's when it has the whole request. Memory and CPU are of the watchdog and all its
//! helpers, without the services and without that server. A check is all that is asked of one service
//! in one interval. Quote ratios of one run, never figures of two.

mod footprint;
mod load;
mod meter;
mod network;
mod peers;
mod recovery;
mod rig;
mod server;
mod table;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use meter::{Listening, calm};
use peers::{Setup, Watchdog};
use rig::{Ground, INTERRUPTED, Rig};
use table::{Outcome, Runs};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only wants to know that it builds.
    if !args.iter().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = args.into_iter().filter(|arg| !arg.starts_with('-')).collect();
    end_by_unwinding();
    let ground = Ground::new();
    let mut size = if std::env::var_os("HEELER_BENCH_QUICK").is_some() { QUICK } else { FULL };
    if let Some(rounds) = std::env::var("HEELER_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()) {
        size.rounds = rounds;
    }
    heading();
    let bench = Bench { ground, size, wanted, failed: Cell::new(0) };
    bench.recoveries();
    bench.herd();
    bench.footprints();
    bench.strangers();
    bench.workers();
    bench.shims();
    bench.lateness();
    bench.throughput();
    bench.loads();
    match bench.failed.get() {
        0 => ExitCode::SUCCESS,
        failed => {
            println!("\n{failed} runs failed, and have a dash: the log on stderr says why.");
            ExitCode::FAILURE
        }
    }
}

/// How much is done.
struct Size {
    /// The longest wait for a calm machine.
    calm: Duration,
    rounds: usize,
    recoveries: &'static [usize],
    kills: usize,
    /// Of the others, whose figures are known to be far off.
    kills_of_peers: usize,
    herd: usize,
    footprints: &'static [usize],
    pages: &'static [usize],
    strangers: usize,
    /// Services among the strangers.
    among: usize,
    workers: &'static [usize],
    shims: usize,
    /// How long CPU is measured at rest; and where looks come every ten seconds.
    cpu: Duration,
    cpu_of_pages: Duration,
    /// Pages that never answer, and how long the others are watched.
    silent: &'static [(usize, Duration)],
    throughput: usize,
    throughput_for: Duration,
    loads: &'static [usize],
    /// Until that a service is not there was told.
    load_settle: Duration,
}

const FULL: Size = Size {
    calm: Duration::from_secs(20),
    rounds: 3,
    recoveries: &[1, 200, 1000],
    kills: 30,
    kills_of_peers: 12,
    herd: 200,
    footprints: &[1, 10, 100, 1000],
    pages: &[100, 1000],
    strangers: 1000,
    among: 100,
    workers: &[1, 10, 50],
    shims: 100,
    cpu: Duration::from_secs(10),
    cpu_of_pages: Duration::from_secs(30),
    // Monit asks ten of them in 50 s.
    silent: &[
        (0, Duration::from_secs(30)),
        (10, Duration::from_secs(75)),
        (200, Duration::from_secs(45)),
    ],
    throughput: 500,
    throughput_for: Duration::from_secs(20),
    loads: &[1, 1000, 10_000],
    load_settle: Duration::from_secs(20),
};

const QUICK: Size = Size {
    calm: Duration::from_secs(1),
    rounds: 1,
    recoveries: &[1, 20],
    kills: 3,
    kills_of_peers: 2,
    herd: 20,
    footprints: &[1, 20],
    pages: &[20],
    strangers: 100,
    among: 20,
    workers: &[1, 3],
    shims: 5,
    cpu: Duration::from_secs(2),
    cpu_of_pages: Duration::from_secs(10),
    silent: &[(0, Duration::from_secs(4)), (2, Duration::from_secs(13))],
    throughput: 50,
    throughput_for: Duration::from_secs(4),
    loads: &[1, 100],
    load_settle: Duration::from_secs(8),
};

/// Ctrl-C and TERM end the run at its next wait.
fn end_by_unwinding() {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block().expect("signals can be blocked");
    std::thread::spawn(move || {
        let _which = signals.wait();
        eprintln!("interrupted: cleaning up");
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
}

fn heading() {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let (there, missing): (Vec<_>, Vec<_>) =
        Watchdog::ALL.into_iter().partition(|watchdog| watchdog.installed());
    let versions: Vec<_> = there.into_iter().map(Watchdog::version).collect();
    println!("{}; Linux {}, {cpus} CPUs.\n", versions.join(", "), kernel.trim());
    if !missing.is_empty() {
        let names: Vec<_> = missing.into_iter().map(Watchdog::name).collect();
        println!("Not installed: {}.\n", names.join(", "));
    }
    if !nix::unistd::geteuid().is_root() {
        println!("Not root: services run as this user, and the priority is not raised.\n");
    }
    println!(
        "The last row of a case tells its noise: load average, and CPUs' worth of other people's work.\n"
    );
    table::heading();
}

struct Bench {
    ground: Ground,
    size: Size,
    wanted: Vec<String>,
    /// Runs that came to nothing.
    failed: Cell<usize>,
}

impl Bench {
    /// Runs a case with each of these in turn, `rounds` times, each time from scratch; nothing of a
    /// case that is not wanted. A run that fails leaves the others alone.
    fn run<T>(
        &self,
        case: &str,
        who: &[Watchdog],
        rounds: usize,
        setup: &Setup,
        measure: impl Fn(&mut Rig<'_>, Watchdog) -> T,
    ) -> Outcome<T> {
        let wanted = self.wanted.is_empty() || self.wanted.iter().any(|word| case.contains(word));
        let mut runs = Watchdog::ALL.map(|watchdog| {
            (wanted && who.contains(&watchdog) && watchdog.installed()).then(Runs::default)
        });
        for round in 1..=rounds {
            for (watchdog, runs) in Watchdog::ALL.into_iter().zip(&mut runs) {
                let Some(runs) = runs else { continue };
                eprintln!("{case}: round {round} of {rounds}, {}", watchdog.name());
                calm(self.size.calm);
                let run = catch_unwind(AssertUnwindSafe(|| {
                    let mut rig = Rig::new(&self.ground, watchdog, setup);
                    let listening = Listening::begin(&rig);
                    let result = measure(&mut rig, watchdog);
                    (result, listening.end(&rig))
                }));
                match run {
                    Ok((result, noise)) => {
                        runs.results.push(result);
                        runs.noise.push(noise);
                    }
                    Err(why) if INTERRUPTED.load(Ordering::Relaxed) => resume_unwind(why),
                    Err(_said_already) => self.failed.set(self.failed.get() + 1),
                }
            }
        }
        Outcome { case: case.to_owned(), runs }
    }
}
