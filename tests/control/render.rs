//! What an operator sees, against files under `expected/`. `HEELER_BLESS=1` rewrites them.

use std::path::Path;

use heeler::cli::render::{
    Columns, Style, Whose, detail, doctor, events, probe, table, why, workers,
};
use heeler::model::finding::Finding;
use heeler::wire::control::{
    CheckStatus, Event, Guard, Health, Incident, Measured, MemoryKind, ProbeAnswer, ProbeVerdict,
    ProbedCheck, ServiceStatus, StoryLine, WhyAnswer, Wish, WorkerRow, WorkersAnswer,
    WorkersVerdict,
};
use jiff::tz::TimeZone;

/// 2026-11-20 14:03:22 UTC.
const NOW: u64 = 1_795_183_402_000;
const MINUTE: u64 = 60_000;
const DAY: u64 = 1440 * MINUTE;

fn style(width: Option<usize>) -> Style {
    Style { width, colour: false, zone: TimeZone::UTC, now_unix_ms: NOW }
}

fn expect(name: &str, text: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control/expected");
    let path = dir.join(format!("{name}.txt"));
    if std::env::var_os("HEELER_BLESS").is_some() {
        std::fs::write(&path, text).expect("it is written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs; HEELER_BLESS=1 rewrites it", path.display());
}

fn service(name: &str, state: &str, health: Health, pid: Option<i32>) -> ServiceStatus {
    ServiceStatus {
        service: name.to_owned(),
        state: state.to_owned(),
        health,
        phase: "watching".to_owned(),
        since_unix_ms: NOW - 130 * MINUTE,
        desired: Wish {
            want: "up".to_owned(),
            by: "config".to_owned(),
            by_text: "the configuration".to_owned(),
            uid: None,
            pid: None,
            rule: None,
            at_unix_ms: NOW - 40 * DAY,
        },
        pid,
        uptime_ms: pid.map(|_| 130 * MINUTE),
        cpu_milli_percent: pid.map(|_| 12_500),
        memory_bytes: pid.map(|_| 2710 << 20),
        memory_kind: pid.map(|_| MemoryKind::Pss),
        wrong: Vec::new(),
        checks: Vec::new(),
        groups: Vec::new(),
    }
}

fn services() -> Vec<ServiceStatus> {
    let mut shop = service("shop", "up, but: memory", Health::Wanting, Some(4107));
    shop.wrong = vec![
        "memory (2710 MiB) > 2600 MiB, 3 of 5".to_owned(),
        "cpu (212.5%) > 200%, for 5m".to_owned(),
    ];
    shop.checks =
        [("memory", "firing", "memory (2710 MiB) > 2600 MiB"), ("slow", "ok", "age (2h) > 6h")]
            .map(|(label, state, text)| CheckStatus {
                label: label.to_owned(),
                state: state.to_owned(),
                text: text.to_owned(),
            })
            .into();
    let mut db = service("postgres@main", "down (stopped by root)", Health::SetAside, None);
    db.since_unix_ms = NOW - 3 * DAY;
    let mut mail = service("mail", "down, next try in 30s", Health::Down, None);
    mail.since_unix_ms = NOW - 400 * DAY;
    mail.wrong = vec!["failed\x1b[2J with code 1: cannot bind to 0.0.0.0:25\r\nBcc: x".to_owned()];
    vec![shop, db, mail, service("redis", "up", Health::Good, Some(99))]
}

fn story() -> Vec<StoryLine> {
    [
        (0, "process 4107 is gone: killed by SIGKILL"),
        (40, "process 4110 still holds a listening socket: puma: cluster worker 1: 4107 [shop]"),
        (2100, "started by `systemctl --user start puma-shop` as deploy"),
        (9000, "it did not come up: failed with code 1 (see the output below)"),
    ]
    .map(|(after_ms, text)| StoryLine {
        at_unix_ms: NOW - MINUTE + after_ms,
        text: text.to_owned(),
    })
    .into()
}

fn incident() -> Incident {
    Incident {
        id: "shop.19b.7".to_owned(),
        cause: "down".to_owned(),
        check_type: None,
        check_index: None,
        title: "it is down: killed by SIGKILL".to_owned(),
        opened_unix_ms: NOW - MINUTE,
        closed_unix_ms: None,
        story: story(),
        dropped_lines: 12,
        output_lines: vec!["bundler: command not found".to_owned(), "\x1b]0;owned\x07".to_owned()],
        alerts_sent: 1,
    }
}

fn examined() -> Vec<Finding> {
    let run = "try it as heeler would: `heeler run-as deploy -- CMD`";
    vec![
        Finding::ok("kernel", "Linux 6.1.0"),
        Finding::warning("sandbox", "there is no user \"heeler\"", "`useradd -r heeler` makes one"),
        Finding::error("shop", "start: deploy may not execute /srv/\x1b[2Jshop/start", run),
        Finding::error(&"s".repeat(64), "a service with the longest name there is", ""),
    ]
}

fn probed() -> ProbeAnswer {
    let good = ProbedCheck {
        number: 1,
        label: "memory > 2600MiB".to_owned(),
        check_type: "process".to_owned(),
        verdict: ProbeVerdict::Pass,
        text: "memory (120 MiB) > 2600 MiB".to_owned(),
        outcome: "ok".to_owned(),
        why: None,
        detail: None,
        metrics: [("memory", "120 MiB"), ("cpu", "12.5%")]
            .map(|(metric, value)| Measured { metric: metric.to_owned(), value: value.to_owned() })
            .into(),
        took_ms: 0,
    };
    let failed = ProbedCheck {
        number: 2,
        label: "page".to_owned(),
        check_type: "http".to_owned(),
        verdict: ProbeVerdict::Fail,
        text: "failed (status 503, not 200)".to_owned(),
        outcome: "failed".to_owned(),
        why: Some("status 503, not 200".to_owned()),
        detail: Some("\x1b]0;owned\x07 <html>".to_owned()),
        metrics: Vec::new(),
        took_ms: 1234,
    };
    let untold = ProbedCheck {
        number: 64,
        verdict: ProbeVerdict::Unknown,
        text: "failed or expires_in < 14d".to_owned(),
        outcome: "unknown".to_owned(),
        why: Some("no route to host".to_owned()),
        ..failed.clone()
    };
    ProbeAnswer { version: 1, service: "shop".to_owned(), checks: vec![good, failed, untold] }
}

fn happened() -> Vec<Event> {
    [
        (3 * DAY, "postgres@main", "ordered", "stop asked by root (pid 4242)"),
        (400 * DAY, "mail", "exited", "the main process 7 is gone: killed by SIGKILL"),
        (
            50_000,
            "shop",
            "gave up",
            "the start limit of 5 per 10m is used up: the next start is in 30s",
        ),
        (40_000, "shop", "fired", "body (\x1b]0;owned\x07) failed\r\nBcc: x, 3 of 5"),
        (30_000, "sho\x1bp", "a new\x1b[2J word", "of a newer heeler"),
    ]
    .map(|(ago_ms, service, kind, text)| Event {
        at_unix_ms: NOW - ago_ms,
        service: service.to_owned(),
        kind: kind.to_owned(),
        text: text.to_owned(),
    })
    .into()
}

fn history(whose: Whose, style: &Style) -> String {
    events(&happened(), whose, &mut Columns::default(), style)
}

fn crew() -> WorkersAnswer {
    let worker = |pid, duty: &str, release: &str| WorkerRow {
        pid,
        title: format!("puma: cluster worker {}: 4107 [shop]", pid % 10),
        age_ms: 130 * MINUTE,
        memory_bytes: Some(271 << 20),
        memory_kind: Some(MemoryKind::Pss),
        cpu_milli_percent: Some(12_500),
        state: Some("S".to_owned()),
        duty: duty.to_owned(),
        release: Some(release.to_owned()),
        release_path: Some(format!("/srv/shop/releases/20261120{pid}")),
        stale: Some(release == "other"),
        awaited_ms: None,
        ours: true,
    };
    let stuck = WorkerRow {
        awaited_ms: Some(42_000),
        state: Some("T".to_owned()),
        ..worker(4110, "frozen", "other")
    };
    let foreign = WorkerRow {
        title: "puma: cluster\x1b[2J worker".to_owned(),
        memory_bytes: None,
        cpu_milli_percent: None,
        state: None,
        release: None,
        release_path: None,
        stale: None,
        ours: false,
        ..worker(4112, "serves", "current")
    };
    WorkersAnswer {
        version: 1,
        service: "shop".to_owned(),
        verdict: WorkersVerdict::Well,
        standing: Some("restarting".to_owned()),
        text: "restarting 1/3, phase 2".to_owned(),
        guard: Guard {
            min: 2,
            wanted: 3,
            budget: 3,
            window_ms: 600_000,
            left: 2,
            going: Some(4110),
        },
        current: Some("/srv/shop/releases/202611204111".to_owned()),
        workers: vec![stuck, worker(4111, "serves", "current"), foreign],
    }
}

fn nobody() -> WorkersAnswer {
    let text = "not running".to_owned();
    let guard = Guard { going: None, wanted: 0, ..crew().guard };
    let verdict = WorkersVerdict::NotRunning;
    WorkersAnswer { verdict, text, guard, current: None, workers: Vec::new(), ..crew() }
}

fn answer(incidents: Vec<Incident>) -> WhyAnswer {
    let state = "down, next try in 30s".to_owned();
    WhyAnswer { version: 1, service: "shop".to_owned(), state, incidents, desired: None }
}

#[test]
fn it_fits_and_reads() {
    let closed = Incident {
        closed_unix_ms: Some(NOW - 12_000),
        alerts_sent: 2,
        dropped_lines: 0,
        ..incident()
    };
    for (name, width) in
        [("60", Some(60)), ("80", Some(80)), ("120", Some(120)), ("unlimited", None)]
    {
        let style = style(width);
        for (what, text) in [
            ("table", table(&services(), &style)),
            ("detail", detail(&services()[0], &style)),
            ("why-open", why(&answer(vec![incident()]), &style)),
            ("why-closed", why(&answer(vec![closed.clone()]), &style)),
            ("why-never", why(&answer(Vec::new()), &style)),
            ("doctor", doctor(&examined()[..3], &style)),
            ("probe", probe(&probed(), &style)),
            ("probe-none", probe(&ProbeAnswer { checks: Vec::new(), ..probed() }, &style)),
            ("workers", workers(&crew(), &style)),
            ("workers-none", workers(&nobody(), &style)),
            ("events-all", history(Whose::Shown, &style)),
            ("events-one", history(Whose::Known, &style)),
        ] {
            for line in text.lines() {
                let columns = line.chars().count();
                assert!(width.is_none_or(|width| columns <= width), "{what} {name}: {line:?}");
                assert_eq!(line, line.trim_end(), "{what} {name}");
                assert!(!line.chars().any(char::is_control), "{what} {name}: {line:?}");
            }
            expect(&format!("{what}-{name}"), &text);
        }
    }
}

/// No width, however silly, makes it panic or lose a service.
#[test]
fn every_width_shows_every_service() {
    for width in 0..200 {
        let text = table(&services(), &style(Some(width)));
        for name in ["shop", "postgres@main", "mail", "redis"] {
            assert!(text.contains(name), "{width}:\n{text}");
        }
        let texts = [
            doctor(&examined(), &style(Some(width))),
            probe(&probed(), &style(Some(width))),
            history(Whose::Shown, &style(Some(width))),
            workers(&crew(), &style(Some(width))),
            detail(&services()[0], &style(Some(width))),
            why(&answer(vec![incident()]), &style(Some(width))),
        ];
        assert!(texts.iter().all(|text| !text.is_empty()));
    }
}

#[test]
fn colour_is_the_only_escape_and_only_when_asked_for() {
    let colour = Style { colour: true, ..style(Some(100)) };
    let text = table(&services(), &colour);
    for code in ["\x1b[33mup, but: memory\x1b[0m", "\x1b[32mup\x1b[0m", "\x1b[31mdown, next try"] {
        assert!(text.contains(code), "{text:?}");
    }
    let plain = text.replace("\x1b[0m", "").replace("\x1b[31m", "");
    let plain = plain.replace("\x1b[32m", "").replace("\x1b[33m", "");
    assert_eq!(plain, table(&services(), &style(Some(100))));
}

#[test]
fn a_kind_of_event_has_its_colour_and_what_follows_stays_in_line() {
    let colour = Style { colour: true, ..style(Some(100)) };
    let text = history(Whose::Shown, &colour);
    for code in ["\x1b[31mgave up\x1b[0m", "\x1b[33mfired\x1b[0m", "  \x1b[31mexited\x1b[0m"] {
        assert!(text.contains(code), "{text:?}");
    }
    let mut wide = Columns::default();
    let first = events(&happened()[..2], Whose::Shown, &mut wide, &style(None));
    let next = events(&happened()[3..4], Whose::Shown, &mut wide, &style(None));
    let start = |line: &str, word: &str| line.find(word).expect(word);
    let lines: Vec<_> = first.lines().collect();
    assert_eq!(start(lines[0], "stop asked"), start(&next, "body"));
}

/// What an operator wanted is told from what a rule did.
#[test]
fn why_it_is_set_aside_and_how_that_ends() {
    let aside = || Incident { cause: "set_aside".to_owned(), ..incident() };
    let wish = |want: &str, by: &str| Wish {
        want: want.to_owned(),
        by: by.to_owned(),
        by_text: "uid 1000 (pid 7)".to_owned(),
        ..services()[0].desired.clone()
    };
    for (desired, says) in [
        (Some(wish("down", "operator")), "wants it: down; `heeler start shop` ends that"),
        (
            Some(wish("unmonitored", "operator")),
            "wants it: unmonitored; `heeler monitor shop` ends that",
        ),
        (Some(wish("down", "rule")), "a rule took it out of service"),
        (None, "a rule took it out of service"),
    ] {
        let text = why(&WhyAnswer { desired, ..answer(vec![aside()]) }, &style(None));
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn times_are_the_readers() {
    let zone = TimeZone::get("Europe/Athens").expect("the time zone database");
    let text = detail(&services()[3], &Style { zone, ..style(None) });
    assert!(text.contains("since   2026-11-20 13:53:22 (2h10m ago)"), "{text}");
}
