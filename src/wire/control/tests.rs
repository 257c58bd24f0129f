use super::*;
use crate::model::ids::CheckIndex;
use crate::model::job::Output;
use crate::model::limits;
use crate::model::order::{Order, WorkerPick};
use crate::model::process::{Pid, ProcessIdentity, Uid};
use crate::model::status::{Phase, RuleState};
use crate::model::text::Untrusted;
use crate::model::time::Wall;

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).expect("a good name")
}

fn sample(at_ms: u64, cpu_ms: u64) -> ProcessSample {
    ProcessSample {
        identity: ProcessIdentity { pid: Pid(7), started_ticks: 1 },
        at: Mono::from_nanos(at_ms * 1_000_000),
        age_ms: 60_000,
        cpu_ms: Some(cpu_ms),
        tree_cpu_ms: None,
        state: None,
        threads: None,
        rss_bytes: Some(2000),
        pss_bytes: None,
        private_bytes: None,
        tree_pss_bytes: None,
        fds: None,
        children: None,
        read_bytes: None,
        written_bytes: None,
    }
}

fn status() -> Status {
    Status {
        service: name("shop"),
        groups: Vec::new(),
        intent: Intent {
            desired: Desired::Down,
            by: Who::Operator { uid: Uid(0), pid: Pid(12) },
            at: Wall(5),
        },
        phase: Phase::StartPeriod,
        main: Some(ProcessIdentity { pid: Pid(7), started_ticks: 1 }),
        words: "up".to_owned(),
        since: Wall(1000),
        wrong: vec!["memory (3 MiB) > 2 MiB".to_owned()],
        checks: vec![status::CheckStatus {
            label: "memory".into(),
            state: RuleState::Firing,
            text: "memory (3 MiB) > 2 MiB".to_owned(),
        }],
        health: status::Health::SetAside,
    }
}

/// The golden form. A change here breaks scripts and other people's readers: raise `VERSION` instead.
#[test]
fn the_json_of_a_status_does_not_change() {
    let usage =
        Usage::of(&sample(3000, 1250), Some(&sample(1000, 1000)), Mono::from_nanos(4_000_000_000));
    let answer = Response::Status(StatusAnswer::new(vec![ServiceStatus::new(&status(), usage)]));
    let json = serde_json::to_string(&answer).expect("it serializes");
    assert_eq!(
        json,
        concat!(
            r#"{"version":1,"services":[{"service":"shop","state":"up","health":"set_aside","#,
            r#""phase":"start period","since_unix_ms":1000,"desired":{"want":"down","#,
            r#""by":"operator","by_text":"root (pid 12)","uid":0,"pid":12,"rule":null,"#,
            r#""at_unix_ms":5},"pid":7,"uptime_ms":61000,"cpu_milli_percent":12500,"#,
            r#""memory_bytes":2000,"memory_kind":"rss","wrong":["memory (3 MiB) > 2 MiB"],"#,
            r#""checks":[{"label":"memory","state":"firing","text":"memory (3 MiB) > 2 MiB"}],"groups":[]}]}"#
        )
    );
}

#[test]
fn cpu_needs_two_samples_of_one_process() {
    let other = ProcessSample {
        identity: ProcessIdentity { pid: Pid(7), started_ticks: 2 },
        ..sample(1000, 0)
    };
    let now = Mono::from_nanos(0);
    assert_eq!(Usage::of(&sample(3000, 9), None, now).cpu_milli_percent, None);
    assert_eq!(Usage::of(&sample(3000, 9), Some(&other), now).cpu_milli_percent, None);
    assert_eq!(Usage::of(&sample(3000, 9), Some(&sample(3000, 9)), now).cpu_milli_percent, None);
}

#[test]
fn why_shows_the_open_incidents_or_else_the_last() {
    let incident = |number| incident::Incident {
        service: name("shop"),
        number,
        cause: Cause::Check(crate::model::check::CheckKind::Process, CheckIndex(2)),
        title: "t".to_owned(),
        opened: Wall(255),
        closed: None,
        story: vec![incident::StoryLine { at: Wall(1), text: "seen".to_owned() }],
        dropped_lines: 0,
        output: Output { head: Untrusted::new(b"a\x1b\nb"), ..Output::default() },
        told: 1,
        told_at: Wall(2),
    };
    let mut memory = Memory {
        intent: status().intent,
        incidents_opened: 2,
        open: vec![incident(2)],
        last: Some(incident(1)),
        fingerprints: Vec::new(),
        claim: None,
        checks: Vec::new(),
        boot: crate::model::memory::BootMemory::default(),
    };
    let ids = |answer: WhyAnswer| answer.incidents.into_iter().map(|i| i.id).collect::<Vec<_>>();
    let answer = WhyAnswer::new(&status(), &memory);
    assert_eq!(answer.incidents[0].output_lines, ["a\\x1b", "b"]);
    assert_eq!(answer.incidents[0].check_index, Some(2));
    assert_eq!(ids(answer), ["shop.ff.2"]);
    memory.open.clear();
    assert_eq!(ids(WhyAnswer::new(&status(), &memory)), ["shop.ff.1"]);
}

#[test]
fn a_reader_passes_over_what_it_does_not_know() {
    let newer = r#"{"version":2,"new":[1],"services":[{"service":"a","state":"up","health":"splendid",
        "phase":"hovering","since_unix_ms":1,"desired":{"want":"up","by":"moon","by_text":"?","at_unix_ms":1,
        "x":1},"memory_kind":"zss","more":{}}]}"#;
    let answer: StatusAnswer = serde_json::from_str(newer).expect("a newer answer is read");
    assert_eq!(answer.services[0].health, Health::Other);
    assert_eq!(answer.services[0].memory_kind, Some(MemoryKind::Other));
}

#[test]
fn requests_come_back_as_they_were_written() {
    let selectors = |words: &[&str]| {
        words.iter().map(|word| Selector::parse(word).expect("a selector")).collect::<Vec<_>>()
    };
    let services = selectors(&["web@1", "b", "we?-[!a-c]*"]);
    let group = Selector::Group(crate::model::ids::GroupName::parse("web").expect("a group"));
    let chosen = [services.clone(), vec![group]].concat();
    let everything = [chosen.clone(), vec![Selector::All]].concat();
    for request in [
        Request::Status { services: Vec::new() },
        Request::Status { services: services.clone() },
        Request::Status { services: chosen },
        Request::Order { order: Order::Stop, services: everything, wait: true },
        Request::Why { service: name("b") },
        Request::Workers { service: name("b") },
        Request::Kill { service: name("b"), pick: WorkerPick::Stuck },
        Request::Kill { service: name("b"), pick: WorkerPick::Pid(Pid(77)) },
        Request::ReloadVerified { service: name("b"), within: None },
        Request::ReloadVerified { service: name("b"), within: Some(limits::VERIFY_TIMEOUT) },
        Request::Probe { service: name("b"), check: None },
        Request::Probe { service: name("b"), check: Some("memory > 1GiB \"\u{1b}".to_owned()) },
        Request::Events { services: Vec::new(), last: None, follow: Follow::No },
        Request::Events { services: services.clone(), last: Some(7), follow: Follow::Yes },
        Request::Order { order: Order::Restart, services, wait: false },
        Request::MailTest { to: vec!["ops@example.com".to_owned()] },
    ] {
        let Encoded { method, target, body } = request.encode();
        assert_eq!(Request::decode(method, &target, body.as_bytes()), Ok(request));
    }
}

#[test]
fn what_is_not_a_request_is_refused() {
    use ErrorKind::{BadRequest, NoSuchPath, WrongMethod};
    for (method, target, body, kind) in [
        ("GET", "/", "", NoSuchPath),
        ("GET", "/v2/status", "", NoSuchPath),
        ("GET", "/v1/../v1/status", "", NoSuchPath),
        ("POST", "/v1/status", "", WrongMethod),
        ("GET", "/v1/order", "", WrongMethod),
        ("get", "/v1/status", "", WrongMethod),
        ("GET", "/v1/status", "x", BadRequest),
        ("GET", "/v1/status?servce=a", "", BadRequest),
        ("GET", "/v1/status?service=a%00", "", BadRequest),
        ("GET", "/v1/status?service=a%2", "", BadRequest),
        ("GET", "/v1/status?service=%ff", "", BadRequest),
        ("GET", "/v1/status?service=../x", "", BadRequest),
        ("GET", "/v1/why", "", BadRequest),
        ("GET", "/v1/why?service=a&service=b", "", BadRequest),
        ("GET", "/v1/why?service=*", "", BadRequest),
        ("GET", "/v1/why?group=a", "", BadRequest),
        ("GET", "/v1/status?service=[", "", BadRequest),
        ("GET", "/v1/status?group=*", "", BadRequest),
        ("GET", "/v1/status?all=1", "", BadRequest),
        ("GET", "/v1/status?last=1", "", BadRequest),
        ("GET", "/v1/events?last=-1", "", BadRequest),
        ("GET", "/v1/events?last=", "", BadRequest),
        ("GET", "/v1/events?follow=yes", "", BadRequest),
        ("GET", "/v1/events?folow=true", "", BadRequest),
        ("POST", "/v1/events", "", WrongMethod),
        ("GET", "/v1/workers", "", BadRequest),
        ("GET", "/v1/workers?service=*", "", BadRequest),
        ("POST", "/v1/workers?service=a", "", WrongMethod),
        ("GET", "/v1/kill?service=a", "", WrongMethod),
        ("POST", "/v1/kill", "{}", BadRequest),
        ("POST", "/v1/kill", r#"{"service":"*"}"#, BadRequest),
        ("POST", "/v1/kill", r#"{"service":"a","worker":1}"#, BadRequest),
        ("POST", "/v1/kill", r#"{"service":"a","worker":-1}"#, BadRequest),
        ("POST", "/v1/kill", r#"{"service":"a","worker":4294967297}"#, BadRequest),
        // Misspelt it would be the stuck one's end.
        ("POST", "/v1/kill", r#"{"service":"a","pid":77}"#, BadRequest),
        ("GET", "/v1/reload-verified?service=a", "", WrongMethod),
        ("POST", "/v1/reload-verified", "", BadRequest),
        ("POST", "/v1/reload-verified", "{}", BadRequest),
        ("POST", "/v1/reload-verified?service=a", r#"{"service":"a"}"#, BadRequest),
        ("POST", "/v1/reload-verified", r#"{"service":"*"}"#, BadRequest),
        ("POST", "/v1/reload-verified", r#"{"services":["a"]}"#, BadRequest),
        ("POST", "/v1/reload-verified", r#"{"service":"a","timeout":5}"#, BadRequest),
        ("POST", "/v1/reload-verified", r#"{"service":"a","timeout_ms":0}"#, BadRequest),
        ("POST", "/v1/reload-verified", r#"{"service":"a","timeout_ms":999}"#, BadRequest),
        ("POST", "/v1/reload-verified", r#"{"service":"a","timeout_ms":86400001}"#, BadRequest),
        ("POST", "/v1/reload-verified", r#"{"service":"a","timeout_ms":-1}"#, BadRequest),
        ("POST", "/v1/reload-verified", r#"{"service":"a","timeout_ms":1e400}"#, BadRequest),
        ("POST", "/v1/reload-verified", r#"{"service":"a","timeout_ms":"10m"}"#, BadRequest),
        ("GET", "/v1/probe?service=a", "", WrongMethod),
        ("POST", "/v1/probe", r#"{"service":"*"}"#, BadRequest),
        ("POST", "/v1/probe", r#"{"check":"a"}"#, BadRequest),
        ("POST", "/v1/order", r#"{"order":"stop","groups":["a/b"]}"#, BadRequest),
        ("POST", "/v1/order", r#"{"order":"stop","all":false}"#, BadRequest),
        ("POST", "/v1/order", r#"{"order":"stop","all":"true"}"#, BadRequest),
        ("POST", "/v1/order?x", r#"{"order":"stop","services":["a"]}"#, BadRequest),
        ("POST", "/v1/order", r#"{"order":"stop","services":[]}"#, BadRequest),
        ("POST", "/v1/order", r#"{"order":"explode","services":["a"]}"#, BadRequest),
        ("POST", "/v1/order", r#"{"order":"stop"}"#, BadRequest),
        ("POST", "/v1/order", "", BadRequest),
        ("GET", "/v1/mail-test", "", WrongMethod),
        ("POST", "/v1/mail-test", "[\"a@b\"]", BadRequest),
        ("POST", "/v1/mail-test?to=a", "{}", BadRequest),
    ] {
        let refused = Request::decode(method, target, body.as_bytes()).expect_err(target);
        assert_eq!(refused.error, kind, "{method} {target} {body}");
    }
    let deep = "[".repeat(60_000);
    assert!(Request::decode("POST", "/v1/order", deep.as_bytes()).is_err());
    let many = |n: usize| {
        let body = serde_json::json!({"order": "stop", "services": vec!["a*"; n]}).to_string();
        Request::decode("POST", "/v1/order", body.as_bytes())
    };
    assert!(many(limits::CONTROL_PATTERNS_MAX).is_ok());
    let refused = many(limits::CONTROL_PATTERNS_MAX + 1).expect_err("too many");
    assert_eq!(refused.error, BadRequest);
    let escaped = Request::decode("GET", "/v1/status?service=%61", b"");
    assert_eq!(escaped, Ok(Request::Status { services: vec![Selector::Name(name("a"))] }));
}
