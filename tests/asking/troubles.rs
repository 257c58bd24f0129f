//! A Puma that answers wrongly, late or never; and whoever asks says so, in time.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use heeler::model::limits;
use heeler::model::puma::{Ask, Control, Form, Question, TroubleKind};
use heeler::wire::puma::ROLE;

use crate::support::fake_puma::{FakePuma, NEED, ask_by, title};
use crate::support::house::PATIENCE;
use crate::support::{HEELER, can_run, wait_for};

#[test]
fn wrong_answers_and_none_are_told_apart_in_time() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&["workers=1"]);
    puma.wait_up(1);
    for (how, kind, words) in [
        ("after:30", TroubleKind::Silent, "says nothing"),
        ("silent", TroubleKind::Silent, "says nothing"),
        ("half", TroubleKind::Garbled, "half an answer"),
        ("half-head", TroubleKind::Garbled, "half an answer"),
        ("garbage", TroubleKind::Garbled, "does not speak HTTP"),
        ("close", TroubleKind::Garbled, "closed without an answer"),
        ("huge", TroubleKind::Garbled, "longer than"),
        ("endless", TroubleKind::Garbled, "longer than"),
    ] {
        puma.set("stats", how);
        let began = Instant::now();
        let trouble = puma.ask(Ask::Stats).said.expect_err("no answer");
        assert_eq!(trouble.kind, kind, "{how}: {trouble}");
        assert!(trouble.to_string().contains(words), "{how}: {trouble}");
        let patience = limits::PUMA_ANSWER_TIMEOUT + Duration::from_secs(2);
        assert!(began.elapsed() < patience, "{how}: {:?}", began.elapsed());
        // Whoever asked is gone; it goes on with the next.
        puma.unset("stats");
        wait_for("an answer", PATIENCE, || {
            puma.ask(Ask::Stats).stats().map(|_| ()).or_else(|| {
                // One that never answers is stuck with its client, as its own first-data timeout has it.
                matches!(how, "silent" | "after:30").then_some(())
            })
        });
        if matches!(how, "silent" | "after:30") {
            puma.signal("USR2");
            wait_for("it to answer again", PATIENCE, || puma.ask(Ask::Stats).stats().map(|_| ()));
        }
    }
    // In time, although late.
    puma.set("stats", "after:1");
    assert!(puma.ask(Ask::Stats).stats().is_some());
}

#[test]
fn an_idle_client_keeps_all_others_out_and_that_is_silence() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&["workers=1", "first-data-timeout=3"]);
    puma.wait_up(1);
    let idle = UnixStream::connect(puma.path("ctl.sock")).expect("connects");
    let trouble = puma.ask(Ask::Stats).said.expect_err("no answer");
    assert_eq!(trouble.kind, TroubleKind::Silent, "{trouble}");
    puma.wait_up(1);
    drop(idle);
}

#[test]
fn where_nobody_is_or_may_be_asked() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::new();
    let state = puma.path("puma.state");
    let asked =
        || ask_by(HEELER, &Question { control: Control::State(state.clone()), ask: Ask::Stats });
    let kind = |text: &str| {
        fs::write(&state, text).expect("write");
        asked().said.expect_err("nobody").kind
    };
    assert_eq!(asked().said.expect_err("no file").kind, TroubleKind::Absent);
    assert_eq!(kind("pid: 7\n"), TroubleKind::State);
    assert_eq!(kind("control_url: ssl://127.0.0.1:1\n"), TroubleKind::Address);
    assert_eq!(kind("control_url: unix:///nowhere/x.sock\n"), TroubleKind::Absent);
    assert_eq!(kind("control_url: unix://x.sock\n"), TroubleKind::Address);
    assert_eq!(kind("control_url: tcp://127.0.0.1:1\n"), TroubleKind::Refused);
    assert_eq!(kind(&format!("control_url: unix://{}\n", state.display())), TroubleKind::Refused);
    assert_eq!(kind(&"x".repeat(1 << 20)), TroubleKind::State);
    fs::remove_file(&state).expect("removed");
    nix::unistd::mkfifo(&state, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    assert_eq!(asked().said.expect_err("a pipe").kind, TroubleKind::State);
    fs::remove_file(&state).expect("removed");
    fs::create_dir(&state).expect("a directory");
    assert_eq!(asked().said.expect_err("a directory").kind, TroubleKind::State);
}

#[test]
fn an_odd_answer_has_only_what_is_sound_in_it() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&["workers=2"]);
    puma.wait_up(2);
    puma.set("stats", "null-pid");
    let cluster = puma.wait_cluster("a null", |it| it.each.iter().any(|it| it.pid.is_none()));
    assert_eq!(cluster.each.len(), 2);
    let long = "\\u001b[2J".repeat(1000);
    puma.set(
        "stats.json",
        &format!(r#"{{"workers":"2","worker_status":[{{"pid":-1,"{long}":1}}],"versions":{{"puma":"{long}"}}}}"#),
    );
    let answer = puma.ask(Ask::Stats);
    let stats = answer.stats().expect("stats");
    let Form::Cluster(cluster) = &stats.form else { panic!("a cluster") };
    assert_eq!((cluster.workers, stats.version), (Some(2), None));
    assert_eq!(cluster.each[0].pid, None);
    let text = answer.encode();
    assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text}");
}

#[test]
fn the_token_is_in_no_command_line_environment_or_output() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&["workers=1", "token=t0psekret"]);
    wait_for("an answer", PATIENCE, || puma.ask(Ask::Stats).stats().map(|_| ()));
    puma.set("stats", "silent");
    let question = Question {
        control: Control::Url {
            url: heeler::model::puma::ControlUrl::Unix(puma.path("ctl.sock")),
            token: heeler::model::puma::Token::Said(
                heeler::model::puma::Secret::token("t0psekret").expect("a token"),
            ),
        },
        ask: Ask::Stats,
    };
    let mut child = Command::new(HEELER)
        .arg(ROLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let asked = puma.log().matches("control stats").count();
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(question.encode().reveal().as_bytes()).expect("written");
    drop(stdin);
    wait_for("it to wait for an answer", PATIENCE, || {
        (puma.log().matches("control stats").count() > asked).then_some(())
    });
    let own = title(child.id());
    assert!(own.ends_with(" ask"), "{own}");
    for file in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{}/{file}", child.id())).expect("readable");
        assert!(!String::from_utf8_lossy(&text).contains("t0psekret"), "{file}");
    }
    let output = child.wait_with_output().expect("ends");
    for text in [output.stdout, output.stderr] {
        assert!(!String::from_utf8_lossy(&text).contains("t0psekret"));
    }
    // Without a question it says so, and not what it was given instead.
    let mut child = Command::new(HEELER)
        .arg(ROLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    child.stdin.take().expect("stdin").write_all(b"t0psekret\n").expect("written");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(2));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("t0psekret"));
}
