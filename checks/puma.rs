//! `type = "puma"`: what a Puma says of itself, and how that stands to what its processes are.
//!
//! It is asked by a program of heeler's own, run as the service's user; one answer serves all checks of
//! the service. How it stands is judged before (`engine::standing`): a single answer is no diagnosis.

use std::time::Duration;

use crate::checks::{CheckType, Probe, Unsaid, fingerprint};
use crate::model::metric::{Metric, Reading, Value};
use crate::model::observation::{Observation, Outcome};
use crate::model::puma::{Answer, Cluster, Form};
use crate::model::standing::{Standing, Verdict};
use crate::model::text::Untrusted;

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &[],
    metrics: || METRICS.to_vec(),
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(5),
    read: |_| Ok(Probe::Puma),
};

/// What its conditions may use.
pub const METRICS: [Metric; 7] = [
    Metric::Booted,
    Metric::Workers,
    Metric::OldWorkers,
    Metric::Backlog,
    Metric::Busy,
    Metric::PumaPhase,
    Metric::Mixed,
];

/// What was seen: the answer's numbers, the standing in words. `mixed`: whether its workers run more than
/// one release, where that is known.
#[must_use]
pub fn observe(answer: &Answer, standing: &Standing, mixed: Option<bool>) -> Observation {
    let words = standing.to_string();
    let outcome = match standing.verdict() {
        Verdict::Well => Outcome::Ok,
        Verdict::Ill => Outcome::Failed(Untrusted::from(words.as_str())),
        Verdict::Unclear => Outcome::Unknown(Untrusted::from(words.as_str())),
    };
    let stats = answer.stats();
    let cluster = stats.and_then(|stats| match &stats.form {
        Form::Cluster(cluster) => Some(cluster),
        Form::Single(_) => None,
    });
    let of = |number: fn(&Cluster) -> Option<u64>| Some(Value::Count(number(cluster?)?));
    let values = [
        (Metric::Booted, of(|cluster| cluster.booted)),
        (Metric::Workers, of(|cluster| cluster.workers)),
        (Metric::OldWorkers, of(|cluster| cluster.old)),
        (Metric::Backlog, stats.and_then(|stats| stats.backlog()).map(Value::Count)),
        (Metric::Busy, stats.and_then(|stats| stats.busy_milli_percent()).map(Value::Percent)),
        (Metric::PumaPhase, of(|cluster| cluster.phase)),
        (Metric::Mixed, mixed.map(Value::yes)),
    ];
    let values =
        values.into_iter().filter_map(|(metric, value)| Some((metric, Reading::Exact(value?))));
    let fingerprint = stats.map(|stats| {
        // It was restarted, one way or the other; or it is another Puma.
        let phase = cluster.and_then(|cluster| cluster.phase);
        let what = format!("{:?} {:?} {phase:?}", stats.version, stats.started_wall_ms);
        fingerprint([what.as_bytes()])
    });
    Observation {
        metrics: values.collect(),
        fingerprint,
        detail: Untrusted::from(words.as_str()),
        ..Observation::of(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::condition::Condition;
    use crate::model::observation;
    use crate::model::puma::{Said, Stats, Threads, Trouble, TroubleKind, WorkerStatus};
    use crate::model::standing::Share;

    fn answer(phase: u64) -> Answer {
        let threads =
            Threads { backlog: Some(4), capacity: Some(1), most: Some(4), ..Threads::default() };
        let each = vec![WorkerStatus { threads, ..WorkerStatus::default() }];
        let (workers, booted, old) = (Some(3), Some(2), Some(1));
        let form = Form::Cluster(Cluster { phase: Some(phase), workers, booted, old, each });
        let said = Ok(Said::Stats(Stats { form, ..Stats::default() }));
        Answer { state: None, exposed: Vec::new(), said }
    }

    #[test]
    fn its_numbers_can_be_asked_for() {
        let standing = Standing::Degraded(Share { ready: 2, wanted: 3 });
        let seen = observe(&answer(1), &standing, Some(true));
        assert!(METRICS.iter().all(|metric| seen.reading(metric).is_some()), "{seen:?}");
        assert_eq!(seen.outcome, Outcome::Failed("degraded 2/3".into()));
        for (text, holds) in [
            ("failed", true),
            ("booted < 3 and backlog > 3", true),
            ("busy >= 75% and old_workers = 1", true),
            ("workers != 3 or puma_phase > 1", false),
            ("mixed", true),
        ] {
            let condition = Condition::parse(text, &METRICS).expect("parses");
            let bad = condition.judge(&seen, None) == observation::Verdict::Fail;
            assert_eq!(bad, holds, "{text}");
        }
        let again = observe(&answer(1), &Standing::Up(Share { ready: 3, wanted: 3 }), None);
        assert_eq!((again.outcome, again.fingerprint), (Outcome::Ok, seen.fingerprint));
        assert_ne!(observe(&answer(2), &standing, None).fingerprint, seen.fingerprint);
    }

    #[test]
    fn what_cannot_be_told_is_unknown_and_has_no_numbers() {
        let trouble = Trouble::new(TroubleKind::Forbidden, "");
        let standing = Standing::Unclear(trouble.clone());
        let seen = observe(&Answer::none(trouble), &standing, None);
        let words = "unclear: Puma's control server refused the token";
        assert_eq!(seen.outcome, Outcome::Unknown(words.into()));
        assert_eq!((seen.metrics.len(), seen.fingerprint), (0, None));
    }
}
