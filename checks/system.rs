//! `type = "system"`: the machine as a whole.
//!
//! CPU shares are of all cores together, since the last look, and have no value at the first. Memory that
//! is available is the kernel's own estimate. Pressure is the share of the last ten seconds in which
//! something had to wait; kernels without it (`CONFIG_PSI`) give no value.
//! Sources: proc_loadavg(5), proc_stat(5), proc_meminfo(5), proc_uptime(5), Documentation/accounting/psi.rst.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use crate::checks::given::Key;
use crate::checks::{CheckType, Files, Probe, Unsaid};
use crate::model::limits;
use crate::model::metric::{Metric, Value};
use crate::model::observation::{Observation, Outcome};
use crate::model::text::Untrusted;
use crate::model::time::Now;

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || METRICS.to_vec(),
    unsaid: Unsaid::Required,
    timeout: Duration::from_secs(5),
    read: |_| Ok(Probe::Files(Files::System(Settings {}))),
};

const KEYS: [Key; 0] = [];

const METRICS: [Metric; 14] = [
    Metric::LoadPerCore,
    Metric::Load1,
    Metric::Load5,
    Metric::Load15,
    Metric::Cpu,
    Metric::IoWait,
    Metric::Steal,
    Metric::MemoryUsed,
    Metric::MemoryAvailable,
    Metric::SwapUsed,
    Metric::CpuPressure,
    Metric::MemoryPressure,
    Metric::IoPressure,
    Metric::Uptime,
];

/// There is one machine: nothing is to be said about which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {}

/// What a look leaves for the next: clock ticks of all cores since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Past {
    busy: u64,
    idle: u64,
    iowait: u64,
    steal: u64,
}

/// Looks once.
#[must_use]
pub fn look(_settings: &Settings, past: Option<Past>, _now: Now) -> (Observation, Option<Past>) {
    let mut metrics: Vec<(Metric, Value)> = Vec::new();
    let mut untold = Vec::new();
    let mut read = |name: &str| match kernel_file(name) {
        Ok(text) => text,
        Err(error) => {
            untold.push(format!("failed to read {name}: {error}"));
            String::new()
        }
    };
    let stat = read("/proc/stat");
    metrics.extend(loads(&read("/proc/loadavg"), cores(&stat)));
    metrics.extend(memory(&read("/proc/meminfo")));
    metrics.extend(uptime(&read("/proc/uptime")));
    let ticks = ticks(&stat);
    if let (Some(before), Some(ticks)) = (past, ticks) {
        metrics.extend(ticks.shares_since(&before));
    }
    for (metric, name) in [
        (Metric::CpuPressure, "/proc/pressure/cpu"),
        (Metric::MemoryPressure, "/proc/pressure/memory"),
        (Metric::IoPressure, "/proc/pressure/io"),
    ] {
        let share = kernel_file(name).ok().and_then(|text| pressure(&text));
        metrics.extend(share.map(|share| (metric, share)));
    }
    let outcome = if untold.is_empty() {
        Outcome::Ok
    } else {
        Outcome::Unknown(Untrusted::from(untold.join("; ").as_str()))
    };
    let seen = metrics
        .into_iter()
        .fold(Observation::of(outcome), |seen, (metric, value)| seen.with(metric, value));
    (seen, ticks)
}

/// A file of the kernel (or of root) about the machine, within a bound; what is no UTF-8 is replaced.
///
/// # Errors
/// As the kernel says.
pub(super) fn kernel_file(name: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(name)?.take(limits::KERNEL_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `0.26 0.42 0.31 1/100 1234`.
fn loads(text: &str, cores: u64) -> Vec<(Metric, Value)> {
    let mut out = Vec::new();
    let names = [Metric::Load1, Metric::Load5, Metric::Load15];
    for (metric, word) in names.into_iter().zip(text.split_ascii_whitespace()) {
        let Some(load) = milli(word) else { continue };
        if metric == Metric::Load1 && cores > 0 {
            out.push((Metric::LoadPerCore, Value::Decimal(load / cores)));
        }
        out.push((metric, Value::Decimal(load)));
    }
    out
}

/// Lines `cpu0`, `cpu1`, ...: one for each core that is online.
fn cores(stat: &str) -> u64 {
    let is = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    stat.lines().filter(is).count() as u64
}

/// `cpu user nice system idle iowait irq softirq steal guest guest_nice`; the last two are in the first
/// two already.
fn ticks(stat: &str) -> Option<Past> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let all: Vec<u64> =
        line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let field = |at: usize| all.get(at).copied().unwrap_or(0);
    let busy = [0, 1, 2, 5, 6].map(field).iter().fold(0u64, |sum, part| sum.saturating_add(*part));
    (all.len() >= 4).then(|| Past { busy, idle: field(3), iowait: field(4), steal: field(7) })
}

impl Past {
    fn shares_since(&self, before: &Self) -> Vec<(Metric, Value)> {
        // The time spent waiting for storage may go backwards (proc_stat(5)): then none was.
        let grown = |of: fn(&Self) -> u64| of(self).saturating_sub(of(before));
        let parts = [
            (Metric::Cpu, grown(|ticks| ticks.busy)),
            (Metric::IoWait, grown(|ticks| ticks.iowait)),
            (Metric::Steal, grown(|ticks| ticks.steal)),
        ];
        let idle = grown(|ticks| ticks.idle);
        let all = parts.iter().fold(u128::from(idle), |sum, (_, part)| sum + u128::from(*part));
        if all == 0 {
            return Vec::new();
        }
        let share = |part: u64| u64::try_from(u128::from(part) * 100_000 / all).unwrap_or(u64::MAX);
        parts.into_iter().map(|(metric, part)| (metric, Value::Percent(share(part)))).collect()
    }
}

/// Lines `MemTotal:  2048 kB`.
fn memory(text: &str) -> Vec<(Metric, Value)> {
    let kib = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim_end().parse().ok()
    };
    let used = |total: u64, free: u64| {
        let share = u128::from(total.saturating_sub(free)) * 100_000 / u128::from(total.max(1));
        Value::Percent(u64::try_from(share).unwrap_or(u64::MAX))
    };
    let mut out = Vec::new();
    // Before Linux 3.14 there is none.
    if let (Some(total), Some(available)) = (kib("MemTotal"), kib("MemAvailable")) {
        out.push((Metric::MemoryUsed, used(total, available)));
        out.push((Metric::MemoryAvailable, Value::Bytes(available.saturating_mul(1024))));
    }
    // Without swap nothing of it is used.
    if let (Some(total), Some(free)) = (kib("SwapTotal"), kib("SwapFree")) {
        out.push((Metric::SwapUsed, used(total, free)));
    }
    out
}

/// `13614.89 26020.91`: seconds since boot, and idle seconds of all cores.
fn uptime(text: &str) -> Option<(Metric, Value)> {
    let ms = milli(text.split_ascii_whitespace().next()?)?;
    Some((Metric::Uptime, Value::Duration(Duration::from_millis(ms))))
}

/// `some avg10=1.53 avg60=0.87 avg300=0.35 total=123`.
fn pressure(text: &str) -> Option<Value> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let share = line.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    milli(share).map(Value::Percent)
}

/// `12.5` as 12500; more than three decimals are cut.
fn milli(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part: u64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(metrics: &[(Metric, Value)], metric: &Metric) -> Option<Value> {
        metrics.iter().find(|(name, _)| name == metric).map(|(_, value)| *value)
    }

    #[test]
    fn the_machine_of_the_test_has_every_metric() {
        let now = Now::default();
        let (first, past) = look(&Settings {}, None, now);
        assert_eq!(first.outcome, Outcome::Ok);
        assert_eq!(first.reading(&Metric::Cpu), None, "no value on the first look");
        let mut before = past.expect("was read");
        before.busy = before.busy.saturating_sub(100);
        let (seen, _) = look(&Settings {}, Some(before), now);
        let psi = std::path::Path::new("/proc/pressure/cpu").exists();
        for metric in METRICS {
            let pressure = metric.name().ends_with("_pressure");
            assert_eq!(seen.reading(&metric).is_some(), psi || !pressure, "{metric:?}: {seen:?}");
        }
    }

    #[test]
    fn cpu_is_a_share_of_all_cores_between_two_looks() {
        let at = |text: &str| ticks(&format!("{text}\ncpu0 1 2 3 4\n")).expect("is a line");
        let before = at("cpu  100 0 50 1000 20 5 5 10 100 0");
        let after = at("cpu  150 0 80 1100 40 10 5 20 150 0");
        let shares = after.shares_since(&before);
        // 50 + 30 + 5 busy, 100 idle, 20 waiting, 10 stolen.
        assert_eq!(value(&shares, &Metric::Cpu), Some(Value::Percent(39_534)));
        assert_eq!(value(&shares, &Metric::IoWait), Some(Value::Percent(9_302)));
        assert_eq!(value(&shares, &Metric::Steal), Some(Value::Percent(4_651)));
        assert_eq!(before.shares_since(&before), [], "no time between");
        let back = Past { iowait: 0, ..after };
        assert_eq!(value(&back.shares_since(&before), &Metric::IoWait), Some(Value::Percent(0)));
        // Linux 2.4 had four fields.
        assert_eq!(at("cpu  1 2 3 4").steal, 0);
        for odd in ["cpu  1 2 3", "cpu  1 2 x 4", "cpux 1 2 3 4", ""] {
            assert_eq!(ticks(odd), None, "{odd}");
        }
    }

    #[test]
    fn loads_are_told_in_thousandths_and_per_core() {
        let stat = "cpu  1 2 3 4\ncpu0 1 2\ncpu3 1 2\nintr 5\n";
        assert_eq!(cores(stat), 2);
        let seen = loads("3.05 0.42 0.31 1/100 1234\n", 2);
        assert_eq!(value(&seen, &Metric::Load1), Some(Value::Decimal(3050)));
        assert_eq!(value(&seen, &Metric::LoadPerCore), Some(Value::Decimal(1525)));
        assert_eq!(value(&seen, &Metric::Load15), Some(Value::Decimal(310)));
        assert_eq!(loads("", 2), []);
        assert_eq!(loads("x y", 0), []);
    }

    #[test]
    fn memory_is_what_is_not_available() {
        let seen = memory(
            "MemTotal:  2000 kB\nMemFree: 1 kB\nMemAvailable:    500 kB\nSwapTotal: 1000 kB\nSwapFree: 750 kB\n",
        );
        assert_eq!(value(&seen, &Metric::MemoryUsed), Some(Value::Percent(75_000)));
        assert_eq!(value(&seen, &Metric::MemoryAvailable), Some(Value::Bytes(512_000)));
        assert_eq!(value(&seen, &Metric::SwapUsed), Some(Value::Percent(25_000)));
        let none = memory("MemTotal: 2000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n");
        assert_eq!(none, [(Metric::SwapUsed, Value::Percent(0))]);
        assert_eq!(memory("MemTotal: x kB\nMemAvailable: 5"), []);
    }

    #[test]
    fn pressure_and_uptime_are_read_to_the_thousandth() {
        let text = "some avg10=97.41 avg60=53.82 avg300=16.95 total=1\nfull avg10=1.00 avg60=0\n";
        assert_eq!(pressure(text), Some(Value::Percent(97_410)));
        assert_eq!(pressure("full avg10=1.00\n"), None);
        let up = Value::Duration(Duration::from_millis(13_614_890));
        assert_eq!(uptime("13614.89 26020.91\n"), Some((Metric::Uptime, up)));
        assert_eq!(milli("1.23456"), Some(1234));
        assert_eq!(
            [milli(""), milli("1.x"), milli("-1"), milli("99999999999999999999")],
            [None; 4]
        );
    }
}
