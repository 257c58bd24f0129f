//! Clients that follow the events (CTL-01, CTL-08): who hears what, and what becomes of one that does not
//! listen.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{End, Server, THEIRS, for_everyone, get};
use crate::support::{HEELER, Need, can_run, wait_for};

const LIMIT: Duration = Duration::from_secs(10);

fn following(server: &Server, target: &str) -> UnixStream {
    let before = server.followers();
    let mut stream = server.connect();
    stream.write_all(&get(target)).expect("it is taken");
    wait_for("the follower", LIMIT, || (server.followers() > before).then_some(()));
    stream
}

fn lines(stream: &UnixStream) -> impl Iterator<Item = String> + use<> {
    let reader = BufReader::new(stream.try_clone().expect("dup"));
    reader.lines().map(|line| line.expect("a line"))
}

#[test]
fn the_past_comes_first_and_then_what_happens() {
    let server = Server::start();
    let stream = following(&server, "/v1/events?service=shop&follow=true");
    server.happens("db", "nobody asked for this one");
    server.happens("shop", "a\x1b[2Jb\nc");
    let mut lines = lines(&stream).skip_while(|line| !line.is_empty()).skip(1);
    let past = r#"{"at_unix_ms":1000,"service":"shop","kind":"started","text":"up: pid 4107"}"#;
    assert_eq!(lines.next().as_deref(), Some(past));
    let next = lines.next().expect("the next one");
    assert_eq!(
        next,
        r#"{"at_unix_ms":7000,"service":"shop","kind":"started","text":"a\u001b[2Jb\nc"}"#
    );
    server.must_be_well();
}

/// What is in the buffers when it stops reading is all it gets; its place is free again.
#[test]
fn one_that_does_not_listen_is_hung_up_on_and_holds_up_nobody() {
    let server = Server::start();
    let mut deaf = following(&server, "/v1/events?follow=true&last=0");
    let mut attentive = lines(&following(&server, "/v1/events?follow=true&last=0"))
        .skip_while(|line| !line.is_empty())
        .skip(1);
    let long = "x".repeat(250);
    let begun = Instant::now();
    let mut told = 0;
    while server.followers() == 2 {
        server.happens("shop", &long);
        told += 1;
        assert!(attentive.next().expect("an event").contains(&long), "the other one hears");
        assert!(begun.elapsed() < 3 * LIMIT, "it was borne with for {told} events");
    }
    server.must_be_well();
    wait_for("the loop to hear of it", LIMIT, || {
        server.log().iter().any(|line| line.ends_with("is too slow")).then_some(())
    });
    let mut heard = Vec::new();
    deaf.read_to_end(&mut heard).expect("it is closed");
    let heard = heard.split(|byte| *byte == b'\n').count();
    assert!(heard < told, "{heard} of {told} events");
    server.happens("shop", "still there");
    assert!(attentive.next().expect("an event").contains("still there"));
}

/// One that is behind when the keeper has no more room for it is told so.
#[test]
fn one_that_is_too_far_behind_is_told() {
    let server = Server::start();
    let stream = following(&server, "/v1/events?service=shop&follow=true");
    // More at once than a client's task can take in between.
    while server.followers() == 1 {
        for _ in 0..100_000 {
            server.happens("shop", "again");
        }
    }
    let last = lines(&stream).last().expect("a line");
    assert!(
        last.starts_with(r#"{"version":1,"error":"too_slow","text":"too far behind"#),
        "{last}"
    );
    server.must_be_well();
}

#[test]
fn nobody_hears_of_what_it_may_not_see() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/setpriv", "util-linux")]) {
        return;
    }
    let server = Server::start();
    let program = for_everyone(&server, HEELER.as_ref());
    let heeler = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={THEIRS}"), format!("--regid={THEIRS}")]);
        command.arg("--clear-groups").arg(&program).arg("--socket").arg(&server.socket).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let said = heeler(&["events"]).output().expect("it runs");
    let out = String::from_utf8(said.stdout).expect("text");
    assert!(out.contains("theirs") && !out.contains("shop"), "{out}");
    assert_eq!(heeler(&["events", "shop"]).output().expect("it runs").status.code(), Some(4));
    assert_eq!(heeler(&["events", "s*", "-f"]).output().expect("it runs").status.code(), Some(4));
    let mut child = heeler(&["events", "--follow"]).spawn().expect("it runs");
    wait_for("the follower", LIMIT, || (server.followers() == 1).then_some(()));
    server.happens("shop", "secret");
    server.happens("theirs", "known");
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let lines: Vec<_> = stdout.lines().take(2).map(|line| line.expect("a line")).collect();
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
    assert!(lines[0].ends_with("theirs  started   up: pid 9"), "{lines:?}");
    assert!(lines[1].ends_with("theirs  started   known"), "{lines:?}");
}

#[test]
fn the_client_shows_each_as_it_comes_and_says_why_it_ends() {
    the_client_follows_to_the_end(End::Killed, "ended; its services go on without it");
    the_client_follows_to_the_end(End::Orderly, "heeler is stopping");
}

fn the_client_follows_to_the_end(end: End, says: &str) {
    let mut server = Server::start();
    let mut child = Command::new(HEELER)
        .arg("--socket")
        .arg(&server.socket)
        .args(["events", "shop", "-f"])
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    assert_eq!(line(), "1970-01-01 00:00:01  started   up: pid 4107");
    server.happens("shop", "\x1b[2J");
    assert_eq!(line(), "1970-01-01 00:00:07  started   \\x1b[2J");
    server.stop(end);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains(says), "{said}");
}

/// CTL-17.
#[test]
fn the_client_ends_with_its_reader() {
    let server = Server::start();
    let script = "\"$0\" events -f | head -n 1; echo \"${PIPESTATUS[0]}\"";
    let child = Command::new("bash")
        .args(["-c", script, HEELER])
        .env("HEELER_SOCKET", &server.socket)
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash runs");
    wait_for("the follower", LIMIT, || (server.followers() == 1).then_some(()));
    wait_for("it to end", LIMIT, || {
        server.happens("shop", "another");
        (server.followers() == 0).then_some(())
    });
    let output = child.wait_with_output().expect("it ends");
    let out = String::from_utf8(output.stdout).expect("text");
    assert!(out.contains("up: pid 4107") && out.ends_with("\n0\n"), "{out}");
}
