//! HTTP checks: how late they come, and how many.

use std::time::Duration;

use crate::Bench;
use crate::meter::{Footprint, cpu, cpu_of};
use crate::peers::{Setup, Watch, Watchdog};
use crate::rig::{now, wait};
use crate::server::Record;
use crate::table::{Value, median, mib};

/// Healthy pages beside those that never answer.
const HEALTHY: usize = 20;

impl Bench {
    /// The pauses between two requests for a healthy page, every second, beside some that never answer.
    pub(crate) fn lateness(&self) {
        for (silent, time) in self.size.silent {
            let case = format!("lateness, {HEALTHY} pages beside {silent} that never answer");
            let setup = Setup::new(HEALTHY, Watch::Pages { silent: *silent });
            let outcome = self.run(&case, &Watchdog::BOTH, 1, &setup, |rig, _| {
                let from = now();
                wait(*time);
                Pauses::of(&rig.asked(), HEALTHY, from, now())
            });
            outcome.row("median pause, s", |runs| runs.first().and_then(Pauses::median));
            outcome.row("worst pause, s", |runs| runs.first().map(Pauses::worst));
            outcome.count("pauses", |runs| runs.iter().map(|pauses| pauses.whole.len()).sum());
            outcome.noise();
        }
    }

    /// One check of each page every second.
    pub(crate) fn throughput(&self) {
        let (pages, time) = (self.size.throughput, self.size.throughput_for);
        let case = format!("throughput, {pages} pages every 1 s");
        let setup = Setup::new(pages, Watch::Pages { silent: 0 });
        let outcome = self.run(&case, &Watchdog::BOTH, 1, &setup, |rig, watchdog| {
            wait(Duration::from_secs(3));
            let helpers = |rig: &crate::rig::Rig<'_>| {
                rig.own_processes().into_iter().filter(|pid| *pid != rig.daemon).collect::<Vec<_>>()
            };
            let (from, before, keeper) = (now(), cpu(rig), cpu_of(rig.daemon));
            wait(time);
            let (to, after, keeper) = (now(), cpu(rig), cpu_of(rig.daemon).saturating_sub(keeper));
            let all = after.saturating_sub(before);
            let asked = rig.asked();
            let seconds = (to - from) as f64 / 1e9;
            let ms_per_s = |cpu: Duration| cpu.as_secs_f64() * 1e3 / seconds;
            let came = asked.iter().filter(|asked| (from..to).contains(&asked.at)).count();
            Throughput {
                has_scout: watchdog == Watchdog::Heeler,
                came_per_s: came as f64 / seconds,
                pauses: Pauses::of(&asked, pages, from, to),
                cpu: [ms_per_s(keeper), ms_per_s(all.saturating_sub(keeper))],
                memory: [Footprint::of(&[rig.daemon]), Footprint::of(&helpers(rig))],
            }
        });
        let interval = setup.every.as_secs_f64();
        outcome.row("checks that came, 1/s", |runs| runs.first().map(|run| run.came_per_s));
        outcome.row("worst lateness, s", |runs| {
            let worst = runs.first()?.pauses.worst();
            Some(match worst {
                Value::Is(pause) => Value::Is((pause - interval).max(0.0)),
                Value::AtLeast(pause) => Value::AtLeast((pause - interval).max(0.0)),
            })
        });
        let row = |name, of: fn(&Throughput) -> Option<f64>| {
            outcome.row(name, |runs| runs.first().and_then(of));
        };
        row("CPU of all, ms/s", |run| Some(run.cpu.iter().sum()));
        row("CPU of a check, us", |run| {
            Some(run.cpu.iter().sum::<f64>() * 1e3 / run.came_per_s.max(1.0))
        });
        row("keeper's CPU, ms/s", |run| run.has_scout.then_some(run.cpu[0]));
        row("scout's CPU, ms/s", |run| run.has_scout.then_some(run.cpu[1]));
        row("PSS of all, MiB", |run| Some(run.memory.iter().map(|one| mib(one.pss_kib)).sum()));
        row("keeper's PSS, MiB", |run| run.has_scout.then_some(mib(run.memory[0].pss_kib)));
        row("scout's PSS, MiB", |run| run.has_scout.then_some(mib(run.memory[1].pss_kib)));
        outcome.noise();
    }
}

/// The daemon first, its helpers second.
struct Throughput {
    has_scout: bool,
    came_per_s: f64,
    pauses: Pauses,
    /// ms per second.
    cpu: [f64; 2],
    memory: [Footprint; 2],
}

/// The times between two requests for the same page, in seconds.
struct Pauses {
    /// Those that ended while it was measured.
    whole: Vec<f64>,
    /// The longest that had not ended by then.
    open: f64,
}

impl Pauses {
    /// From the last request before `from` on.
    fn of(asked: &[Record], pages: usize, from: u64, to: u64) -> Self {
        let mut last = vec![None; pages];
        let mut whole = Vec::new();
        for Record { at, id } in asked.iter().filter(|asked| asked.at < to) {
            let page = usize::try_from(*id).ok().and_then(|id| last.get_mut(id));
            let page = page.expect("only these pages are asked for");
            if let Some(before) = page.replace(*at).filter(|_| *at >= from) {
                whole.push(seconds(before, *at));
            }
        }
        let open = last.into_iter().map(|at| seconds(at.unwrap_or(from), to)).fold(0.0, f64::max);
        Self { whole, open }
    }

    fn median(&self) -> Option<Value> {
        let median = median(self.whole.iter().copied()).map(Value::Is);
        Some(median.unwrap_or(Value::AtLeast(self.open)))
    }

    /// What is open counts only where it is longer than all others: most are, for less than an interval.
    fn worst(&self) -> Value {
        let whole = self.whole.iter().copied().fold(0.0, f64::max);
        if whole >= self.open { Value::Is(whole) } else { Value::AtLeast(self.open) }
    }
}

fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}
