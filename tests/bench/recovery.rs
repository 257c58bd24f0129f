//! How soon a dead service is back.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::Bench;
use crate::peers::{Setup, Watch, Watchdog};
use crate::rig::{now, wait};
use crate::table::{count, median, percentile};

impl Bench {
    /// kill -9 to the first instruction of the start program, at random phases of the cycle.
    pub(crate) fn recoveries(&self) {
        for services in self.size.recoveries {
            self.recovery(*services);
        }
    }

    fn recovery(&self, services: usize) {
        let quoted = std::env::var("HEELER_BENCH_KILLS").ok();
        let quoted: Option<usize> =
            quoted.map(|text| text.parse().expect("HEELER_BENCH_KILLS is a number"));
        let (case, rounds) = (format!("recovery, {}", count(services)), self.size.rounds);
        let setup = Setup::new(services, Watch::Existence);
        let outcome = self.run(&case, &Watchdog::ALL, rounds, &setup, |rig, watchdog| {
            let kills = match watchdog {
                Watchdog::Heeler | Watchdog::Monit | Watchdog::Limit => self.size.kills,
                Watchdog::Runit | Watchdog::S6 | Watchdog::Supervisord => self.size.kills_of_peers,
            };
            let latency = |_| {
                // Past the second in which a watchdog may still be busy with the last one.
                wait(Duration::from_micros(1_200_000 + random(1_000_000)));
                let victim = random(services as u64);
                let killed = rig.kill(usize::try_from(victim).expect("fits"));
                let started = rig.starts(1).into_iter().find(|start| start.id == victim);
                let started = started.expect("only the one that was killed is started");
                started.at.saturating_sub(killed) as f64 / 1e6
            };
            (0..quoted.unwrap_or(kills).div_ceil(rounds)).map(latency).collect::<Vec<_>>()
        });
        for (share, name) in [(0.0, "min"), (0.5, "median"), (0.9, "p90"), (0.99, "p99")] {
            outcome.row(&format!("{name}, ms"), |runs| percentile(runs.concat(), share));
        }
        outcome.count("n", |runs| runs.iter().map(Vec::len).sum());
        outcome.noise();
    }

    /// All die at once: until the last start program runs.
    pub(crate) fn herd(&self) {
        let services = self.size.herd;
        let monit = std::env::var_os("HEELER_BENCH_MONIT_HERD").is_some();
        let who: Vec<_> =
            Watchdog::ALL.into_iter().filter(|who| monit || *who != Watchdog::Monit).collect();
        let case = format!("herd, all {services} die at once");
        let setup = Setup::new(services, Watch::Existence);
        let outcome = self.run(&case, &who, self.size.rounds, &setup, |rig, _| {
            wait(Duration::from_secs(2));
            let began = now();
            for id in 0..services {
                rig.kill(id);
            }
            let last = rig.starts(services).into_iter().map(|start| start.at).max();
            last.unwrap_or(began).saturating_sub(began) as f64 / 1e9
        });
        outcome.row("all are back, s", |runs| median(runs.iter().copied()));
        outcome.noise();
    }
}

/// Below `end`: each `RandomState` hashes nothing to another number.
fn random(end: u64) -> u64 {
    RandomState::new().build_hasher().finish() % end.max(1)
}
