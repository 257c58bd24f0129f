//! heeler beside Monit on this machine, in one Markdown table: `cargo bench`.
//!
//! Needs gcc; `/usr/bin/monit` fills the other column when it is there; root for services of another
//! user and for nice -15. About 20 minutes; the table goes to stdout, progress to stderr.
//!
//!     cargo bench                                  # all
//!     cargo bench -- recovery footprint            # rows that contain one of these
//!     HEELER_BENCH_QUICK=1 cargo bench             # a trial of four minutes: not to be quoted
//!     HEELER_BENCH_KILLS=300 cargo bench           # figures to quote
//!     HEELER_BENCH_MONIT_HERD=1 cargo bench        # Monit also has 200 deaths at once, three times
//!
//! Fairness: the same services, start programs and order; both look every second, have their control
//! socket, write their log and state to the project's disk, and tell nobody; each case runs both in
//! turn, with a wait for a calm machine before. Instants are `CLOCK_MONOTONIC`: right before kill(2),
//! and the first thing in main of a static start program. Memory and CPU are of the watchdog and all
//! its helpers, without the services. Quote ratios of one run, never figures of two.

mod meter;
mod rig;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use meter::{Footprint, Listening, Noise, calm, cpu};
use rig::{Ground, INTERRUPTED, MONIT, Rig, Watch, Watchdog, now, wait};

const ROUNDS: usize = 3;

/// How much is done.
struct Size {
    kills: usize,
    herd: usize,
    footprints: &'static [usize],
    runs: usize,
    cpu: Duration,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only wants to know that it builds.
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    let wanted: Vec<_> = args.into_iter().filter(|arg| !arg.starts_with('-')).collect();
    end_by_unwinding();
    let monit = Path::new(MONIT).exists();
    let ground = Ground::new();
    heading(monit);
    let quick = std::env::var_os("HEELER_BENCH_QUICK").is_some();
    let size = if quick {
        Size { kills: 6, herd: 20, footprints: &[1, 20], runs: 5, cpu: Duration::from_secs(2) }
    } else {
        let footprints = &[1, 100, 1000];
        Size { kills: 60, herd: 200, footprints, runs: 100, cpu: Duration::from_secs(10) }
    };
    let bench = Bench { ground, size, monit, wanted };
    bench.recovery(1);
    bench.recovery(bench.size.herd);
    bench.herd();
    for services in bench.size.footprints {
        bench.footprint(*services, Watch::Existence);
    }
    for services in bench.size.footprints {
        bench.footprint(*services, Watch::Conditions);
    }
    bench.shims();
}

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

fn heading(monit: bool) {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let other =
        if monit { Watchdog::Monit.version() } else { format!("no Monit ({MONIT} is not there)") };
    println!("{}, {other}, Linux {}, {cpus} CPUs\n", Watchdog::Heeler.version(), kernel.trim());
    if !nix::unistd::geteuid().is_root() {
        println!("Not root: services run as this user, and the priority is not raised.\n");
    }
    println!(
        "The last row of a case tells its noise: load average, and CPUs' worth of other people's work.\n"
    );
    let [heeler, monit, ratio] = ["heeler", "Monit", "Monit ÷ heeler"].map(str::to_owned);
    line("", [heeler, monit, ratio]);
    println!("| {:-<WIDTH$} | {:->12}: | {:->12}: | {:->13}: |", "", "", "", "");
}

struct Bench {
    ground: Ground,
    size: Size,
    monit: bool,
    wanted: Vec<String>,
}

impl Bench {
    /// kill -9 to the first instruction of the start command, at random phases of the cycle.
    fn recovery(&self, services: usize) {
        let kills = std::env::var("HEELER_BENCH_KILLS").ok();
        let kills = kills
            .map_or(self.size.kills, |text| text.parse().expect("HEELER_BENCH_KILLS is a number"));
        let case = format!("recovery, {}, {kills} kills", count(services));
        let [heeler, monit] =
            self.both(&case, ROUNDS, self.monit, services, Watch::Existence, |rig| {
                let mut all = Vec::new();
                for _ in 0..kills.div_ceil(ROUNDS) {
                    // Past the second in which a watchdog may still be busy with the last one.
                    wait(Duration::from_micros(1_200_000 + random(1_000_000)));
                    let victim = random(services as u64);
                    let killed = rig.kill(usize::try_from(victim).expect("fits"));
                    all.extend(
                        rig.starts(1)
                            .iter()
                            .map(|started| started.saturating_sub(killed) as f64 / 1e6),
                    );
                }
                all
            });
        for (share, name) in [(0.5, "median"), (0.9, "p90"), (0.99, "p99"), (0.0, "min")] {
            let of = |runs: &Runs<Vec<f64>>| percentile(runs.results.concat(), share);
            row(
                &format!("{case}: {name}, ms"),
                heeler.as_ref().and_then(of),
                monit.as_ref().and_then(of),
            );
        }
        noise(&case, &heeler, &monit);
    }

    /// All die at once: until the last start command runs.
    fn herd(&self) {
        let services = self.size.herd;
        let monit = self.monit && std::env::var_os("HEELER_BENCH_MONIT_HERD").is_some();
        let case = format!("herd, all {services} die at once");
        let [heeler, monit] = self.both(&case, ROUNDS, monit, services, Watch::Existence, |rig| {
            wait(Duration::from_secs(2));
            let began = now();
            for id in 0..services {
                rig.kill(id);
            }
            let last = rig.starts(services).into_iter().max().unwrap_or(began);
            let seconds = last.saturating_sub(began) as f64 / 1e9;
            rig.wait_ready();
            seconds
        });
        let of = |runs: &Runs<f64>| percentile(runs.results.clone(), 0.5);
        row(
            &format!("{case}: all are back, s"),
            heeler.as_ref().and_then(of),
            monit.as_ref().and_then(of),
        );
        noise(&case, &heeler, &monit);
    }

    /// What watching costs when nothing happens.
    fn footprint(&self, services: usize, watch: Watch) {
        let what = if watch == Watch::Conditions { ", cpu and memory" } else { "" };
        let case = format!("footprint, {}{what}", count(services));
        let [heeler, monit] =
            self.both(&case, 1, self.monit, services, watch, |rig| self.at_rest(rig));
        let figures = |runs: &Option<Runs<Rest>>| {
            let (memory, cpu) = runs.as_ref().and_then(|runs| runs.results.first().copied())?;
            let [threads, processes] = [memory.threads, memory.processes].map(|n| n as f64);
            Some([mib(memory.pss_kib), mib(memory.private_kib), threads, processes, cpu])
        };
        let (ours, theirs) = (figures(&heeler), figures(&monit));
        let names = ["PSS, MiB", "private, MiB", "threads", "processes", "CPU, ms/s"];
        for (at, name) in names.into_iter().enumerate() {
            let of = |all: Option<[f64; 5]>| all.map(|all| all[at]);
            row(&format!("{case}: {name}"), of(ours), of(theirs));
        }
        noise(&case, &heeler, &monit);
    }

    /// What `run =` costs: one shim each. Monit has nothing like it.
    fn shims(&self) {
        let services = self.size.runs;
        let case = format!("shims, {services} `run =`");
        let [heeler, _] = self.both(&case, 1, false, services, Watch::Run, |rig| {
            let (_, cpu) = self.at_rest(rig);
            let (keeper, shims): (Vec<_>, _) =
                rig.own_processes().into_iter().partition(|pid| *pid == rig.daemon);
            (Footprint::of(&keeper), Footprint::of(&shims), cpu)
        });
        let Some((keeper, shims, cpu)) = heeler.as_ref().and_then(|runs| runs.results.first())
        else {
            return;
        };
        let each = |kib: u64| kib as f64 / shims.processes.max(1) as f64;
        for (name, value) in [
            ("keeper PSS, MiB", mib(keeper.pss_kib)),
            ("shims", shims.processes as f64),
            ("shims' PSS together, MiB", mib(shims.pss_kib)),
            ("a shim's PSS, KiB", each(shims.pss_kib)),
            ("a shim's private, KiB", each(shims.private_kib)),
            ("CPU of all, ms/s", *cpu),
        ] {
            row(&format!("{case}: {name}"), Some(value), None);
        }
        noise(&case, &heeler, &None);
    }

    fn at_rest(&self, rig: &Rig<'_>) -> Rest {
        wait(Duration::from_secs(3));
        let (began, before) = (now(), cpu(rig));
        wait(self.size.cpu);
        let used = cpu(rig).saturating_sub(before).as_secs_f64() * 1e3;
        let memory = Footprint::of(&rig.own_processes());
        (memory, used / ((now() - began) as f64 / 1e9))
    }

    /// Runs a case with both in turn, `rounds` times, each time from scratch; nothing of a case that
    /// is not wanted.
    fn both<T>(
        &self,
        case: &str,
        rounds: usize,
        monit: bool,
        services: usize,
        watch: Watch,
        mut measure: impl FnMut(&mut Rig<'_>) -> T,
    ) -> [Option<Runs<T>>; 2] {
        let wanted = self.wanted.is_empty() || self.wanted.iter().any(|word| case.contains(word));
        let mut all = [wanted, wanted && monit].map(|runs| runs.then(Runs::default));
        for round in 1..=rounds {
            for (watchdog, runs) in [Watchdog::Heeler, Watchdog::Monit].into_iter().zip(&mut all) {
                let Some(runs) = runs else { continue };
                eprintln!("{case}: round {round} of {rounds}, {}", watchdog.version());
                let mut rig = Rig::new(&self.ground, watchdog, services, watch);
                calm();
                let listening = Listening::begin(&rig);
                runs.results.push(measure(&mut rig));
                runs.noise.push(listening.end(&rig));
            }
        }
        all
    }
}

/// What one costs with nothing to do: memory, and CPU in ms per second.
type Rest = (Footprint, f64);

/// What the rounds of one watchdog gave.
struct Runs<T> {
    results: Vec<T>,
    noise: Vec<Noise>,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self { results: Vec::new(), noise: Vec::new() }
    }
}

fn row(what: &str, heeler: Option<f64>, monit: Option<f64>) {
    if heeler.is_none() {
        return;
    }
    let ratio = heeler.zip(monit).filter(|(heeler, _)| *heeler > 0.0);
    let ratio = ratio.map(|(heeler, monit)| monit / heeler);
    line(what, [figure(heeler), figure(monit), figure(ratio)]);
}

fn noise<T>(case: &str, heeler: &Option<Runs<T>>, monit: &Option<Runs<T>>) {
    let of = |runs: &Option<Runs<T>>| {
        let all = runs.as_ref().map(|runs| runs.noise.as_slice()).unwrap_or_default();
        let load = all.iter().map(|noise| noise.load).reduce(f64::max)?;
        let foreign = all.iter().map(|noise| noise.foreign).sum::<f64>() / all.len() as f64;
        Some(format!("{load:.2} / {foreign:.2}"))
    };
    if heeler.is_none() {
        return;
    }
    let words = [of(heeler), of(monit), None].map(|said| said.unwrap_or_else(|| "–".to_owned()));
    line(&format!("{case}: noise"), words);
}

const WIDTH: usize = 60;

fn line(what: &str, [heeler, monit, ratio]: [String; 3]) {
    println!("| {what:WIDTH$} | {heeler:>13} | {monit:>13} | {ratio:>14} |");
}

/// The nearest rank.
fn percentile(mut all: Vec<f64>, share: f64) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(((all.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied()
}

fn count(services: usize) -> String {
    if services == 1 { "1 service".to_owned() } else { format!("{services} services") }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Below `end`: each `RandomState` hashes nothing to another number.
fn random(end: u64) -> u64 {
    RandomState::new().build_hasher().finish() % end.max(1)
}

/// Three digits that count.
fn figure(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}
