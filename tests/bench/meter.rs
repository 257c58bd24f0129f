//! What a watchdog costs, and how noisy the machine was meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::rig::{Rig, wait};

/// Memory in KiB, and how many.
#[derive(Clone, Copy, Default)]
pub(crate) struct Footprint {
    pub(crate) pss_kib: u64,
    pub(crate) rss_kib: u64,
    pub(crate) private_kib: u64,
    pub(crate) threads: u64,
    pub(crate) processes: u64,
}

impl Footprint {
    /// Of these processes together.
    pub(crate) fn of(pids: &[i32]) -> Self {
        let mut sum = Self::default();
        for pid in pids {
            let memory =
                fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            sum.pss_kib += number(&memory, "Pss:");
            sum.rss_kib += number(&memory, "Rss:");
            sum.private_kib +=
                number(&memory, "Private_Clean:") + number(&memory, "Private_Dirty:");
            sum.threads += number(&status, "Threads:");
            sum.processes += 1;
        }
        sum
    }
}

/// The number behind a word at the beginning of a line.
fn number(text: &str, word: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_default();
    rest.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The CPU time of a watchdog until now, with the children it waited for.
pub(crate) fn cpu(rig: &Rig<'_>) -> Duration {
    rig.own_processes().into_iter().map(cpu_of).sum()
}

/// The CPU time of a process until now, with the children it waited for.
pub(crate) fn cpu_of(pid: i32) -> Duration {
    const CUTIME: usize = 13; // proc_pid_stat(5): field 16, counted from behind the name
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).and_then(clock_gettime);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let waited = fields.iter().skip(CUTIME).take(2).filter_map(|word| word.parse::<u64>().ok());
    clock.map(Duration::from).unwrap_or_default() + ticks(waited.sum())
}

/// The CPU time of everybody on the machine.
fn busy() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbers = stat.lines().next().unwrap_or("").split_whitespace().skip(1);
    let all: Vec<u64> = numbers.filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq
    ticks([0, 1, 2, 5, 6].into_iter().filter_map(|at| all.get(at)).sum())
}

fn ticks(count: u64) -> Duration {
    let second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hz| u32::try_from(hz).ok());
    Duration::from_secs(count) / second.unwrap_or(100)
}

/// How noisy the machine was during a case.
#[derive(Clone, Copy, Default)]
pub(crate) struct Noise {
    pub(crate) load: f64,
    /// CPUs' worth of what was neither the benchmark nor the watchdog.
    pub(crate) foreign: f64,
}

/// Begun before a case, ended after it.
pub(crate) struct Listening {
    since: Instant,
    busy: Duration,
    own: Duration,
}

impl Listening {
    pub(crate) fn begin(rig: &Rig<'_>) -> Self {
        Self { since: Instant::now(), busy: busy(), own: own(rig) }
    }

    pub(crate) fn end(self, rig: &Rig<'_>) -> Noise {
        let own = own(rig).saturating_sub(self.own);
        let foreign = (busy() - self.busy).saturating_sub(own);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        Noise { load, foreign: foreign.as_secs_f64() / self.since.elapsed().as_secs_f64() }
    }
}

/// The CPU time of the watchdog and of the benchmark.
fn own(rig: &Rig<'_>) -> Duration {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    cpu(rig) + cpu_of(me) + rig.server().map(cpu_of).unwrap_or_default()
}

/// Waits until less than a tenth of one CPU is busy, at most so long.
pub(crate) fn calm(patience: Duration) {
    let end = Instant::now() + patience;
    loop {
        let before = busy();
        wait(Duration::from_secs(1));
        if busy() - before < Duration::from_millis(100) || Instant::now() >= end {
            return;
        }
    }
}
