//! `type = "process"`: the metrics of the main process.
//!
//! Rates compare two samples of the same identity; after a restart the first sample has none.

use std::time::Duration;

use crate::checks::{CheckType, Probe, Unsaid};
use crate::model::condition::Condition;
use crate::model::metric::{Metric, Reading, Value};
use crate::model::observation::{Observation, Outcome};
use crate::model::sample::{Needs, ProcessSample};
use crate::model::text::Untrusted;

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &[],
    metrics: || METRICS.to_vec(),
    unsaid: Unsaid::Required,
    timeout: Duration::ZERO,
    read: |_| Ok(Probe::Sample),
};

/// What its conditions may use.
pub const METRICS: [Metric; 13] = [
    Metric::Memory,
    Metric::Rss,
    Metric::Private,
    Metric::MemoryTotal,
    Metric::Cpu,
    Metric::CpuTotal,
    Metric::Age,
    Metric::Threads,
    Metric::Children,
    Metric::Fds,
    Metric::ReadRate,
    Metric::WriteRate,
    Metric::State,
];

/// What has to be read for a condition; those of several checks are joined with [`Needs::and`].
#[must_use]
pub fn needs(condition: &Condition) -> Needs {
    let mut all = Needs::default();
    for metric in condition.metrics() {
        match metric {
            // One less than the limit, so that `>=` has its exact value on the limit itself.
            Metric::Memory => {
                let limit = condition.exact_above(&metric);
                all.pss_above_bytes = if let Some(Value::Bytes(limit)) = limit {
                    Some(limit.saturating_sub(1))
                } else {
                    Some(0)
                };
            }
            Metric::Rss => all.rss = true,
            Metric::Private => all.private = true,
            Metric::MemoryTotal => all.tree_pss = true,
            Metric::Cpu => all.cpu = true,
            Metric::State | Metric::Threads => all.stat = true,
            Metric::CpuTotal => all.tree_cpu = true,
            Metric::Age => {}
            Metric::Children => all.children = true,
            Metric::Fds => all.fds = true,
            Metric::ReadRate | Metric::WriteRate => all.io = true,
            // Of other types: not among what is declared here.
            Metric::ResponseTime
            | Metric::Status
            | Metric::Size
            | Metric::ExpiresIn
            | Metric::Answers
            | Metric::Loss
            | Metric::ExitCode
            | Metric::Entries
            | Metric::Matches
            | Metric::Used
            | Metric::Free
            | Metric::InodesUsed
            | Metric::InodesFree
            | Metric::Load1
            | Metric::Load5
            | Metric::Load15
            | Metric::LoadPerCore
            | Metric::IoWait
            | Metric::Steal
            | Metric::MemoryUsed
            | Metric::MemoryAvailable
            | Metric::SwapUsed
            | Metric::CpuPressure
            | Metric::MemoryPressure
            | Metric::IoPressure
            | Metric::Uptime
            | Metric::ReceiveRate
            | Metric::SendRate
            | Metric::Errors
            | Metric::Saturation
            | Metric::Release
            | Metric::Stale
            | Metric::Booted
            | Metric::Workers
            | Metric::OldWorkers
            | Metric::Backlog
            | Metric::Busy
            | Metric::PumaPhase
            | Metric::Mixed
            | Metric::Perfdata(_) => {}
        }
    }
    all
}

/// What a sample shows. A fact that was needed and could not be read makes it Unknown, with its
/// name.
/// `took` is zero: a look at a sample takes no time of its own.
#[must_use]
pub fn observe(
    sample: &ProcessSample,
    previous: Option<&ProcessSample>,
    needs: Needs,
) -> Observation {
    let missing = missing(sample, needs);
    let outcome = if missing.is_empty() {
        Outcome::Ok
    } else {
        Outcome::Unknown(Untrusted::from(
            format!("failed to read its {}", missing.join(", ")).as_str(),
        ))
    };
    let previous =
        previous.filter(|before| before.identity == sample.identity && before.at < sample.at);
    let rate = |of: fn(&ProcessSample) -> Option<u64>, scale: u128| {
        let before = previous?;
        // A sum over descendants shrinks when one of them goes: then there is no rate this time.
        let grown = of(sample)?.checked_sub(of(before)?)?;
        let micros = sample.at.since(before.at).as_micros().max(1);
        Some(u64::try_from(u128::from(grown) * scale / micros).unwrap_or(u64::MAX))
    };
    // Milliseconds of CPU in microseconds of time: 1000 us per ms, and 100 000 thousandths of a
    // percent.
    let cpu = |of| rate(of, 1000 * 100_000).map(Value::Percent);
    let per_second = |of| rate(of, 1_000_000).map(Value::Rate);
    let bytes = |value: Option<u64>| value.map(Value::Bytes);
    let count = |value: Option<u64>| value.map(Value::Count);
    let memory = match (bytes(sample.pss_bytes), bytes(sample.rss_bytes)) {
        (Some(pss), _) => Some(Reading::Exact(pss)),
        // A page counts in full for RSS and in shares for PSS: never more.
        (None, Some(rss)) if needs.pss_above_bytes.is_some() => Some(Reading::AtMost(rss)),
        (None, _) => None,
    };
    let exact = [
        (Metric::Rss, bytes(sample.rss_bytes)),
        (Metric::Private, bytes(sample.private_bytes)),
        (Metric::MemoryTotal, bytes(sample.tree_pss_bytes)),
        (Metric::Cpu, cpu(|sample| sample.cpu_ms)),
        (Metric::CpuTotal, cpu(|sample| sample.tree_cpu_ms)),
        (Metric::Age, Some(Value::Duration(Duration::from_millis(sample.age_ms)))),
        (Metric::Threads, count(sample.threads)),
        (Metric::Children, count(sample.children)),
        (Metric::Fds, count(sample.fds)),
        (Metric::ReadRate, per_second(|sample| sample.read_bytes)),
        (Metric::WriteRate, per_second(|sample| sample.written_bytes)),
        (Metric::State, sample.state.map(Value::Letter)),
    ];
    let exact =
        exact.into_iter().filter_map(|(metric, value)| Some((metric, Reading::Exact(value?))));
    let metrics =
        memory.map(|reading| (Metric::Memory, reading)).into_iter().chain(exact).collect();
    Observation { metrics, ..Observation::of(outcome) }
}

/// The facts that were needed and are not there.
fn missing(sample: &ProcessSample, needs: Needs) -> Vec<&'static str> {
    let memory = match (needs.pss_above_bytes, sample.rss_bytes) {
        (Some(above), Some(rss)) => rss > above && sample.pss_bytes.is_none(),
        (Some(_), None) => sample.pss_bytes.is_none(),
        (None, _) => false,
    };
    let stat = sample.state.is_none() || sample.threads.is_none();
    let io = sample.read_bytes.is_none() || sample.written_bytes.is_none();
    let facts = [
        (memory, "memory (PSS)"),
        (needs.rss && sample.rss_bytes.is_none(), "resident size"),
        (needs.private && sample.private_bytes.is_none(), "private memory"),
        (needs.tree_pss && sample.tree_pss_bytes.is_none(), "descendants' memory"),
        (needs.cpu && sample.cpu_ms.is_none(), "CPU time"),
        (needs.stat && stat, "state and threads"),
        (needs.tree_cpu && sample.tree_cpu_ms.is_none(), "descendants' CPU time"),
        (needs.children && sample.children.is_none(), "children"),
        (needs.fds && sample.fds.is_none(), "open files"),
        (needs.io && io, "storage traffic"),
    ];
    facts.into_iter().filter_map(|(is_missing, name)| is_missing.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observation::Verdict;
    use crate::model::process::{Pid, ProcessIdentity};
    use crate::model::time::Mono;

    const MIB: u64 = 1 << 20;

    fn sample(at_ms: u64) -> ProcessSample {
        ProcessSample {
            identity: ProcessIdentity { pid: Pid(7), started_ticks: 100 },
            at: Mono::from_nanos(at_ms * 1_000_000),
            age_ms: 5000 + at_ms,
            cpu_ms: None,
            tree_cpu_ms: None,
            state: None,
            threads: None,
            rss_bytes: None,
            pss_bytes: None,
            private_bytes: None,
            tree_pss_bytes: None,
            fds: None,
            children: None,
            read_bytes: None,
            written_bytes: None,
        }
    }

    fn condition(text: &str) -> Condition {
        Condition::parse(text, &METRICS).expect("parses")
    }

    fn judge(text: &str, sample: &ProcessSample, previous: Option<&ProcessSample>) -> Verdict {
        let condition = condition(text);
        condition.judge(&observe(sample, previous, needs(&condition)), None)
    }

    #[test]
    fn every_metric_is_read_for_and_then_there() {
        for metric in METRICS {
            let text = format!(
                "{} > {}",
                metric.name(),
                metric.unit().example().replace(" (per second)", "")
            );
            let needs = needs(&condition(&text.replace("state > D", "state = D")));
            assert_eq!(needs.is_empty(), metric == Metric::Age, "{text}");
        }
        let full = |at_ms, grown| ProcessSample {
            cpu_ms: Some(grown),
            tree_cpu_ms: Some(grown),
            state: Some('S'),
            threads: Some(3),
            rss_bytes: Some(9 * MIB),
            pss_bytes: Some(5 * MIB),
            private_bytes: Some(4 * MIB),
            tree_pss_bytes: Some(6 * MIB),
            fds: Some(12),
            children: Some(2),
            read_bytes: Some(grown),
            written_bytes: Some(grown),
            ..sample(at_ms)
        };
        let seen = observe(&full(1000, 500), Some(&full(0, 0)), Needs::default());
        assert!(METRICS.iter().all(|metric| seen.reading(metric).is_some()), "{seen:?}");
    }

    #[test]
    fn memory_is_read_exactly_only_when_it_could_matter() {
        let above = |text| needs(&condition(text)).pss_above_bytes;
        assert_eq!(above("memory > 100MiB"), Some(100 * MIB - 1));
        assert_eq!(above("memory > 100MiB or memory >= 50MiB"), Some(50 * MIB - 1));
        assert_eq!(above("memory < 100MiB"), Some(0));
        assert_eq!(above("memory > 0B"), Some(0));
        assert_eq!(above("rss > 100MiB"), None);

        let small = ProcessSample { rss_bytes: Some(60 * MIB), ..sample(0) };
        assert_eq!(judge("memory > 100MiB", &small, None), Verdict::Pass);
        let seen = observe(&small, None, needs(&condition("memory > 100MiB")));
        assert_eq!(seen.reading(&Metric::Memory), Some(Reading::AtMost(Value::Bytes(60 * MIB))));
        let big =
            ProcessSample { rss_bytes: Some(150 * MIB), pss_bytes: Some(90 * MIB), ..sample(0) };
        assert_eq!(judge("memory > 100MiB", &big, None), Verdict::Pass);
        assert_eq!(judge("memory > 80MiB", &big, None), Verdict::Fail);
        let edge =
            ProcessSample { rss_bytes: Some(100 * MIB), pss_bytes: Some(100 * MIB), ..sample(0) };
        assert_eq!(judge("memory >= 100MiB", &edge, None), Verdict::Fail);
        assert_eq!(judge("memory > 100MiB", &edge, None), Verdict::Pass);
    }

    #[test]
    fn memory_that_could_not_be_read_is_unknown_and_named() {
        let unread = ProcessSample { rss_bytes: Some(150 * MIB), ..sample(0) };
        let condition = condition("memory > 100MiB");
        let seen = observe(&unread, None, needs(&condition));
        assert_eq!(seen.outcome, Outcome::Unknown("failed to read its memory (PSS)".into()));
        assert_eq!(condition.judge(&seen, None), Verdict::Unknown);
        assert_eq!(judge("fds > 5", &sample(0), None), Verdict::Unknown);
        let seen = observe(&sample(0), None, needs(&self::condition("fds > 5 or cpu > 5%")));
        let named = "failed to read its CPU time, open files";
        assert_eq!(seen.outcome, Outcome::Unknown(named.into()));
    }

    fn busy(at_ms: u64, cpu_ms: u64) -> ProcessSample {
        ProcessSample { cpu_ms: Some(cpu_ms), state: Some('R'), threads: Some(1), ..sample(at_ms) }
    }

    #[test]
    fn cpu_is_a_share_of_one_core_since_the_last_sample() {
        let cpu = |sample: &ProcessSample, previous| {
            observe(sample, previous, Needs::default()).reading(&Metric::Cpu)
        };
        let (before, after) = (busy(1000, 500), busy(3000, 2000));
        assert_eq!(cpu(&after, Some(&before)), Some(Reading::Exact(Value::Percent(75_000))));
        assert_eq!(
            cpu(&busy(3000, 6500), Some(&before)),
            Some(Reading::Exact(Value::Percent(300_000)))
        );
        assert_eq!(cpu(&after, None), None, "no value on the first sample");
        assert_eq!(judge("cpu > 50%", &after, None), Verdict::Unknown);
        assert_eq!(judge("cpu > 50%", &after, Some(&before)), Verdict::Fail);
        assert_eq!(cpu(&before, Some(&after)), None, "samples out of order");
        assert_eq!(cpu(&busy(3000, 100), Some(&before)), None, "a counter that shrank");
        assert_eq!(cpu(&busy(1000, 700), Some(&before)), None, "no time between");
        let other =
            ProcessSample { identity: ProcessIdentity { pid: Pid(7), started_ticks: 9 }, ..before };
        assert_eq!(cpu(&after, Some(&other)), None, "another process with the same number");
    }

    #[test]
    fn rates_are_per_second() {
        let traffic = |at_ms, bytes| ProcessSample {
            read_bytes: Some(bytes),
            written_bytes: Some(0),
            ..sample(at_ms)
        };
        let seen = observe(&traffic(2500, 20_000_000), Some(&traffic(500, 0)), Needs::default());
        assert_eq!(seen.reading(&Metric::ReadRate), Some(Reading::Exact(Value::Rate(10_000_000))));
        assert_eq!(seen.reading(&Metric::WriteRate), Some(Reading::Exact(Value::Rate(0))));
        let huge = observe(&traffic(1, u64::MAX), Some(&traffic(0, 0)), Needs::default());
        assert_eq!(huge.reading(&Metric::ReadRate), Some(Reading::Exact(Value::Rate(u64::MAX))));
    }
}
