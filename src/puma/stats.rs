//! `/stats` of Puma 3 to 8: whatever is there, in whatever form, and nothing else.
//!
//! Keys came and went (`busy_threads` 6.6, `versions` 6.0, `last_status` keys by the year), so none is
//! needed: what is missing, null or not a number is absent.

use serde_json::Value;

use crate::model::limits;
use crate::model::process::Pid;
use crate::model::puma::{
    Boot, Cluster, Form, Stats, Threads, Trouble, TroubleKind, Version, WorkerStatus,
};

/// Parses the body of an answer.
pub(super) fn parse(body: &[u8]) -> Result<Stats, Trouble> {
    let garbled = |detail: &str| Trouble::new(TroubleKind::Garbled, detail);
    // Its recursion is bounded, its length was.
    let stats: Value = serde_json::from_slice(body)
        .map_err(|error| garbled(&format!("half an answer, or no JSON: {error}")))?;
    let form = if ["worker_status", "booted_workers", "workers"].iter().any(|key| has(&stats, key))
    {
        Form::Cluster(cluster(&stats))
    } else if ["running", "backlog", "pool_capacity"].iter().any(|key| has(&stats, key)) {
        Form::Single(threads(&stats))
    } else {
        return Err(garbled("it tells of neither workers nor threads"));
    };
    let version = stats.get("versions").and_then(|versions| versions.get("puma"));
    Ok(Stats {
        version: version.and_then(Value::as_str).and_then(version_of),
        started_wall_ms: moment(&stats, "started_at"),
        form,
    })
}

fn has(value: &Value, key: &str) -> bool {
    value.get(key).is_some_and(|value| !value.is_null())
}

fn cluster(stats: &Value) -> Cluster {
    let each = stats.get("worker_status").and_then(Value::as_array);
    let each = each.map(Vec::as_slice).unwrap_or_default();
    Cluster {
        phase: number(stats, "phase"),
        workers: number(stats, "workers"),
        booted: number(stats, "booted_workers"),
        old: number(stats, "old_workers"),
        each: each.iter().take(limits::WORKERS_MAX as usize).map(worker).collect(),
    }
}

fn worker(status: &Value) -> WorkerStatus {
    let pid = number(status, "pid").and_then(|pid| i32::try_from(pid).ok());
    WorkerStatus {
        pid: pid.filter(|pid| *pid > 0).map(Pid),
        index: number(status, "index"),
        phase: number(status, "phase"),
        boot: if is_true(status.get("booted")) { Boot::Booted } else { Boot::Booting },
        started_wall_ms: moment(status, "started_at"),
        checkin_wall_ms: moment(status, "last_checkin"),
        threads: status.get("last_status").map(threads).unwrap_or_default(),
    }
}

fn threads(status: &Value) -> Threads {
    Threads {
        backlog: number(status, "backlog"),
        running: number(status, "running"),
        capacity: number(status, "pool_capacity"),
        most: number(status, "max_threads"),
        requests: number(status, "requests_count"),
    }
}

fn number(value: &Value, key: &str) -> Option<u64> {
    match value.get(key)? {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `3.0` is 3; what a number of processes cannot be is none.
fn whole(number: f64) -> Option<u64> {
    let sound = number >= 0.0 && number.fract() == 0.0 && number < EXACT_BELOW;
    sound.then(|| format!("{number:.0}").parse().ok()).flatten()
}

/// Above it a float skips whole numbers.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

fn is_true(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(is)) => *is,
        Some(Value::String(text)) => text == "true",
        Some(Value::Number(number)) => number.as_u64() == Some(1),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => false,
    }
}

/// An RFC 3339 moment, in milliseconds since 1970.
fn moment(value: &Value, key: &str) -> Option<u64> {
    let moment: jiff::Timestamp = value.get(key)?.as_str()?.trim().parse().ok()?;
    u64::try_from(moment.as_millisecond()).ok()
}

/// `8.0.2`, `6.0.0.pre1`.
fn version_of(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(|part| part.parse().ok());
    Some(Version {
        major: numbers.next()??,
        minor: numbers.next().flatten().unwrap_or(0),
        patch: numbers.next().flatten().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Stats {
        parse(text.as_bytes()).unwrap_or_else(|trouble| panic!("{trouble}: {text}"))
    }

    fn cluster_of(text: &str) -> Cluster {
        match of(text).form {
            Form::Cluster(cluster) => cluster,
            Form::Single(threads) => panic!("{threads:?} is no cluster"),
        }
    }

    const EIGHT: &str = r#"{"started_at":"2026-11-20T17:27:25Z","workers":3,"phase":1,"booted_workers":2,
        "old_workers":1,"worker_status":[{"started_at":"2026-11-20T17:27:26Z","pid":9823,"index":0,"phase":1,
        "booted":true,"last_checkin":"2026-11-20T17:27:30Z","last_status":{"backlog":4,"running":1,
        "pool_capacity":3,"busy_threads":0,"io_threads":0,"backlog_max":0,"max_threads":3,
        "requests_count":70,"reactor_max":0}},{"pid":null,"index":1,"booted":false,"last_status":{}}],
        "versions":{"puma":"8.0.2","ruby":{"engine":"ruby","version":"3.1.2","patchlevel":20}}}"#;

    #[test]
    fn the_newest_says_everything() {
        let stats = of(EIGHT);
        assert_eq!(stats.version, Some(Version { major: 8, minor: 0, patch: 2 }));
        assert_eq!(stats.started_wall_ms, Some(1_795_195_645_000));
        let cluster = cluster_of(EIGHT);
        let numbers = (cluster.phase, cluster.workers, cluster.booted, cluster.old);
        assert_eq!(numbers, (Some(1), Some(3), Some(2), Some(1)));
        let [first, second] = cluster.each.as_slice() else { panic!("two of them") };
        assert_eq!((first.pid, first.index, first.boot), (Some(Pid(9823)), Some(0), Boot::Booted));
        assert_eq!(first.checkin_wall_ms, Some(1_795_195_650_000));
        let threads = Threads {
            backlog: Some(4),
            running: Some(1),
            capacity: Some(3),
            most: Some(3),
            requests: Some(70),
        };
        assert_eq!(first.threads, threads);
        let young = WorkerStatus { index: Some(1), ..WorkerStatus::default() };
        assert_eq!(*second, young, "a fork_worker child that has not said its number");
    }

    #[test]
    fn older_ones_and_odd_ones_say_what_they_say() {
        // Puma 3.12.
        let three = r#"{ "workers": 2, "phase": 0, "booted_workers": 2, "old_workers": 0, "worker_status":
            [{ "pid": 7, "index": 0, "phase": 0, "booted": true, "last_checkin": "2019-01-01T00:00:00Z",
            "last_status": { "backlog":0, "running":5, "pool_capacity":5, "max_threads":5 } }] }"#;
        let stats = of(three);
        assert_eq!((stats.version, stats.started_wall_ms), (None, None));
        assert_eq!(cluster_of(three).each[0].threads.capacity, Some(5));
        // Before 3.8 a worker said nothing of its threads.
        let bare = r#"{"workers":1,"booted_workers":1,"worker_status":[{"pid":7,"booted":true}]}"#;
        assert_eq!(cluster_of(bare).each[0].threads, Threads::default());
        let texts = r#"{"workers":"2","phase":"1","booted_workers":2.0,"old_workers":null,"worker_status":
            [{"pid":"77","index":"0","booted":"true","last_checkin":"yesterday","last_status":null}, 5, null]}"#;
        let cluster = cluster_of(texts);
        let numbers = (cluster.phase, cluster.workers, cluster.booted, cluster.old);
        assert_eq!(numbers, (Some(1), Some(2), Some(2), None));
        assert_eq!(cluster.each[0].pid, Some(Pid(77)));
        assert_eq!((cluster.each[0].boot, cluster.each[0].checkin_wall_ms), (Boot::Booted, None));
        assert_eq!(cluster.each[1..], [WorkerStatus::default(), WorkerStatus::default()]);
        let negative =
            r#"{"workers":-1,"booted_workers":1.5,"worker_status":[{"pid":-5},{"pid":0}]}"#;
        let cluster = cluster_of(negative);
        assert_eq!((cluster.workers, cluster.booted), (None, None));
        assert!(cluster.each.iter().all(|worker| worker.pid.is_none()), "a group is no process");
        let single = r#"{"started_at":"x","backlog":1,"running":5,"pool_capacity":4,"max_threads":5,
            "versions":{"puma":"6.0.0.pre1"}}"#;
        let stats = of(single);
        assert_eq!(stats.version, Some(Version { major: 6, minor: 0, patch: 0 }));
        assert_eq!((stats.backlog(), stats.busy_milli_percent()), (Some(1), Some(20_000)));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for text in
            ["", "{", "[]", "{}", "null", "5", r#"{"error":"x"}"#, &EIGHT[..EIGHT.len() / 2]]
        {
            let trouble = parse(text.as_bytes()).expect_err("is none");
            assert_eq!(trouble.kind, TroubleKind::Garbled, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes()).is_err());
        let many = format!(r#"{{"worker_status":[{}5]}}"#, "{},".repeat(100_000));
        assert_eq!(cluster_of(&many).each.len(), limits::WORKERS_MAX as usize);
        for at in 0..EIGHT.len() {
            let _whatever = parse(&EIGHT.as_bytes()[..at]);
        }
    }
}
