//! What watching costs when nothing happens.

use std::time::Duration;

use crate::Bench;
use crate::meter::{Footprint, cpu};
use crate::peers::{Setup, Watch, Watchdog};
use crate::rig::{Rig, now, wait};
use crate::table::{Outcome, count, median, mib};

/// What one costs with nothing to do.
#[derive(Clone, Copy)]
pub(crate) struct Rest {
    pub(crate) memory: Footprint,
    pub(crate) cpu_ms_per_s: f64,
}

/// How long that while is, where nothing is wrong.
const SETTLE: Duration = Duration::from_secs(3);

impl Rest {
    /// Over so long a time, after a while in which what has just begun comes to rest.
    pub(crate) fn of(rig: &Rig<'_>, settle: Duration, time: Duration) -> Self {
        wait(settle);
        let (began, before) = (now(), cpu(rig));
        wait(time);
        let used = cpu(rig).saturating_sub(before).as_secs_f64() * 1e3;
        let seconds = (now() - began) as f64 / 1e9;
        Self { memory: Footprint::of(&rig.own_processes()), cpu_ms_per_s: used / seconds }
    }
}

impl Bench {
    pub(crate) fn footprints(&self) {
        let peers = Watchdog::ALL.into_iter().filter(|who| *who != Watchdog::Limit);
        let peers: Vec<_> = peers.collect();
        for services in self.size.footprints {
            let setup = Setup::new(*services, Watch::Existence);
            self.footprint("existence", &peers, &setup, self.size.cpu);
        }
        for services in self.size.footprints {
            let setup = Setup::new(*services, Watch::Conditions);
            self.footprint("cpu and rss", &Watchdog::BOTH, &setup, self.size.cpu);
        }
        for services in self.size.pages {
            let every = Duration::from_secs(10);
            let setup = Setup { every, ..Setup::new(*services, Watch::Page) };
            let what = "a page each every 10 s";
            self.footprint(what, &Watchdog::BOTH, &setup, self.size.cpu_of_pages);
        }
    }

    fn footprint(&self, what: &str, who: &[Watchdog], setup: &Setup, time: Duration) {
        let case = format!("footprint, {}, {what}", count(setup.services));
        let looks = |watchdog| match watchdog {
            Watchdog::Heeler | Watchdog::Monit => true,
            Watchdog::Runit | Watchdog::S6 | Watchdog::Supervisord | Watchdog::Limit => false,
        };
        let outcome = self.run(&case, who, 1, setup, |rig, watchdog| {
            (Rest::of(rig, SETTLE, time), looks(watchdog))
        });
        let checks_per_s = setup.services as f64 / setup.every.as_secs_f64();
        outcome.row("CPU, ms/s", |runs| median(runs.iter().map(|(rest, _)| rest.cpu_ms_per_s)));
        outcome.row("CPU of a check, us", |runs| {
            let looking = runs.iter().filter(|(_, looks)| *looks);
            median(looking.map(|(rest, _)| rest.cpu_ms_per_s * 1e3 / checks_per_s))
        });
        let memory = |name, of: fn(&Footprint) -> f64| {
            outcome.row(name, |runs| median(runs.iter().map(|(rest, _)| of(&rest.memory))));
        };
        memory("PSS, MiB", |memory| mib(memory.pss_kib));
        memory("RSS, MiB", |memory| mib(memory.rss_kib));
        memory("private, MiB", |memory| mib(memory.private_kib));
        memory("threads", |memory| memory.threads as f64);
        memory("processes", |memory| memory.processes as f64);
        outcome.noise();
    }

    /// The CPU of watching a few among many that nobody watches.
    pub(crate) fn strangers(&self) {
        for (watch, what) in [(Watch::Existence, "existence"), (Watch::Conditions, "cpu and rss")] {
            for strangers in [0, self.size.strangers] {
                let setup = Setup { strangers, ..Setup::new(self.size.among, watch) };
                let services = count(setup.services);
                let case = format!("strangers, {services}, {what}, among {strangers}");
                let outcome = self.run(&case, &Watchdog::BOTH, 1, &setup, |rig, _| {
                    Rest::of(rig, SETTLE, self.size.cpu).cpu_ms_per_s
                });
                outcome.row("CPU, ms/s", |runs| median(runs.iter().copied()));
                outcome.noise();
            }
        }
    }

    /// What one look at all workers costs, each of them judged by two rules. The limit reads the same files
    /// and makes nothing of them.
    pub(crate) fn workers(&self) {
        for services in self.size.workers {
            let setup = Setup::new(*services, Watch::Workers);
            let each = setup.watch.workers();
            let case = format!("workers, {} of {each}", count(setup.services));
            let who = [Watchdog::Heeler, Watchdog::Limit];
            let outcome = self.run(&case, &who, self.size.rounds, &setup, |rig, _| {
                Rest::of(rig, SETTLE, self.size.cpu).cpu_ms_per_s * setup.every.as_secs_f64()
            });
            outcome.row("CPU of a tick, ms", |runs| median(runs.iter().copied()));
            let all = (setup.services * each) as f64;
            outcome.row("CPU of a worker, us", |runs| {
                median(runs.iter().map(|tick| tick * 1e3 / all))
            });
            outcome.noise();
        }
    }

    /// What `run =` costs: one shim each. Only heeler has such a thing.
    pub(crate) fn shims(&self) {
        struct Shims {
            cpu_ms_per_s: f64,
            keeper: Footprint,
            shims: Footprint,
        }
        let services = self.size.shims;
        let case = format!("shims, {services} `run =`");
        let setup = Setup::new(services, Watch::Run);
        let outcome = self.run(&case, &[Watchdog::Heeler], 1, &setup, |rig, _| {
            let cpu_ms_per_s = Rest::of(rig, SETTLE, self.size.cpu).cpu_ms_per_s;
            let (keeper, shims): (Vec<_>, _) =
                rig.own_processes().into_iter().partition(|pid| *pid == rig.daemon);
            Shims { cpu_ms_per_s, keeper: Footprint::of(&keeper), shims: Footprint::of(&shims) }
        });
        let each = |kib: u64, all: &Shims| kib as f64 / all.shims.processes.max(1) as f64;
        row(&outcome, "keeper PSS, MiB", |all| mib(all.keeper.pss_kib));
        row(&outcome, "shims", |all| all.shims.processes as f64);
        row(&outcome, "shims' PSS together, MiB", |all| mib(all.shims.pss_kib));
        row(&outcome, "a shim's PSS, KiB", |all| each(all.shims.pss_kib, all));
        row(&outcome, "a shim's private, KiB", |all| each(all.shims.private_kib, all));
        row(&outcome, "CPU of all, ms/s", |all| all.cpu_ms_per_s);
        outcome.noise();
    }
}

/// The median of the rounds.
pub(crate) fn row<T>(outcome: &Outcome<T>, name: &str, of: impl Fn(&T) -> f64) {
    outcome.row(name, |runs| median(runs.iter().map(&of)));
}
