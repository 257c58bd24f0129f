//! `type = "worker"`: the metrics of each worker of the service, judged by itself.
//!
//! What a worker is says `[workers]`. One pass samples them all ([`needs`] says what for); state and
//! tolerance follow the identity of each.

use std::time::Duration;

use crate::checks::{CheckType, Probe, Unsaid, process};
use crate::model::condition::Condition;
use crate::model::metric::{Metric, Reading, Value};
use crate::model::observation::Observation;
use crate::model::sample::ProcessSample;
use crate::model::text::Untrusted;
use crate::model::workers::{Generation, Place, Worker, WorkerNeeds};

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &[],
    metrics: || METRICS.to_vec(),
    unsaid: Unsaid::Required,
    timeout: Duration::ZERO,
    read: |_| Ok(Probe::Workers),
};

/// What its conditions may use: of a process all that is its own, and how it stands to the others.
pub const METRICS: [Metric; 12] = [
    Metric::Memory,
    Metric::Rss,
    Metric::Private,
    Metric::Cpu,
    Metric::Age,
    Metric::Threads,
    Metric::Fds,
    Metric::ReadRate,
    Metric::WriteRate,
    Metric::State,
    Metric::Release,
    Metric::Stale,
];

/// What has to be read for a condition; those of several checks are joined with [`WorkerNeeds::and`].
#[must_use]
pub fn needs(condition: &Condition) -> WorkerNeeds {
    let release = condition.metrics().contains(&Metric::Release);
    WorkerNeeds { process: process::needs(condition), release }
}

/// How a worker stands to the others, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct About {
    /// Where its release stands to `current`.
    pub place: Option<Place>,
    /// Whether it is of an earlier generation.
    pub generation: Option<Generation>,
}

/// What a sample of one worker shows; `previous` is that of the same worker before.
#[must_use]
pub fn observe(
    worker: &Worker,
    previous: Option<&ProcessSample>,
    about: About,
    needs: WorkerNeeds,
) -> Observation {
    let mut seen = process::observe(&worker.sample, previous, needs.process);
    let place = about.place.map(|place| Value::Word(place.word()));
    let stale = about.generation.map(|generation| Value::yes(generation == Generation::Older));
    for (metric, value) in [(Metric::Release, place), (Metric::Stale, stale)] {
        seen.metrics.extend(value.map(|value| (metric, Reading::Exact(value))));
    }
    let title = format!("pid {}, {}", worker.identity().pid, worker.title);
    Observation { detail: Untrusted::from(title.as_str()), ..seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observation::{Outcome, Verdict};
    use crate::model::process::{Ours, Pid, ProcessIdentity};
    use crate::model::time::Mono;

    fn worker() -> Worker {
        let sample = ProcessSample {
            identity: ProcessIdentity { pid: Pid(77), started_ticks: 100 },
            at: Mono::from_nanos(1_000_000_000),
            age_ms: 7 * 3_600_000,
            cpu_ms: None,
            tree_cpu_ms: None,
            state: Some('S'),
            threads: None,
            rss_bytes: Some(700 << 20),
            pss_bytes: Some(660 << 20),
            private_bytes: None,
            tree_pss_bytes: None,
            fds: None,
            children: None,
            read_bytes: None,
            written_bytes: None,
        };
        Worker {
            sample,
            parent: Pid(70),
            title: "puma: cluster worker 0: 70 [shop]".into(),
            ours: Ours::Proved,
            release: None,
            program: None,
        }
    }

    fn judge(text: &str, about: About) -> Verdict {
        let condition = Condition::parse(text, &METRICS).expect("parses");
        condition.judge(&observe(&worker(), None, about, needs(&condition)), None)
    }

    #[test]
    fn each_is_judged_by_its_own_numbers_and_its_place() {
        let none = About::default();
        assert_eq!(judge("memory > 650MiB and age > 6h", none), Verdict::Fail);
        assert_eq!(judge("memory > 680MiB", none), Verdict::Pass);
        for metric in ["stale", "release = gone"] {
            assert_eq!(judge(metric, none), Verdict::Unknown, "{metric} is not known");
        }
        let about = |place, generation| About { place: Some(place), generation: Some(generation) };
        let old = about(Place::Gone, Generation::Older);
        assert_eq!(judge("release = gone and stale", old), Verdict::Fail);
        let new = about(Place::Current, Generation::Present);
        assert_eq!(judge("release != current or stale", new), Verdict::Pass);
    }

    #[test]
    fn what_could_not_be_read_is_unknown_and_the_worker_is_named() {
        let condition = Condition::parse("fds > 100", &METRICS).expect("parses");
        let seen = observe(&worker(), None, About::default(), needs(&condition));
        assert_eq!(seen.outcome, Outcome::Unknown("failed to read its open files".into()));
        assert_eq!(seen.detail.raw(), "pid 77, puma: cluster worker 0: 70 [shop]");
    }

    #[test]
    fn a_condition_asks_for_no_more_than_it_uses() {
        let of = |text: &str| needs(&Condition::parse(text, &METRICS).expect("parses"));
        assert_eq!(of("stale and age > 1h"), WorkerNeeds::default());
        assert!(of("release = gone").release && of("release = gone").process.is_empty());
        let both = of("rss > 1MiB").and(of("release = other"));
        assert!(both.release && both.process.rss && !both.process.private);
        assert!(Condition::parse("memory_total > 1MiB", &METRICS).is_err(), "not of a worker");
    }
}
