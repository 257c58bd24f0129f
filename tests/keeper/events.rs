//! The history of services: asked for, followed, and there again after `kill -9` (LOG-02, LOG-06).

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::house::{House, PATIENCE, signal};
use crate::support::{HEELER, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nexit_delay = \"100ms\"\n";

/// What happened to a service, `kind: text` each.
fn events(house: &House, args: &[&str]) -> Vec<String> {
    let (code, out, err) = house.heeler(&[&["events", "--json"], args].concat());
    assert_eq!(code, 0, "{err}");
    let all: Value = serde_json::from_str(&out).expect("JSON");
    let text = |event: &Value, key: &str| event[key].as_str().expect("a text").to_owned();
    let all = all["events"].as_array().expect("a list");
    assert!(
        all.windows(2).all(|two| two[0]["at_unix_ms"].as_u64() <= two[1]["at_unix_ms"].as_u64())
    );
    all.iter().map(|event| format!("{}: {}", text(event, "kind"), text(event, "text"))).collect()
}

#[test]
fn what_happened_is_there_in_its_order_and_after_a_crash_of_heeler() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.daemon("db", "", QUICK);
    house.open();
    let first = house.wait_up("shop", None);
    house.wait_up("db", None);
    signal(first, "KILL");
    let second = house.wait_up("shop", Some(first));
    assert_eq!(house.heeler(&["stop", "shop"]).0, 0);
    let seen = events(&house, &["shop"]);
    let mut rest = seen.iter();
    for (kind, part) in [
        ("acted", "starting".to_owned()),
        ("started", format!("up: pid {first}")),
        ("exited", format!("the main process {first} is gone")),
        ("acted", "starting".to_owned()),
        ("started", format!("pid {second}")),
        ("ordered", "stop asked by ".to_owned()),
        ("acted", format!("stopping pid {second}")),
        ("exited", format!("the main process {second} is gone")),
    ] {
        let found = rest.any(|line| line.starts_with(&format!("{kind}: ")) && line.contains(&part));
        assert!(found, "no {kind} with {part:?}, in order, in {seen:#?}");
    }
    let all = events(&house, &[]);
    assert_eq!(events(&house, &["--last", "3"]), all[all.len() - 3..]);
    // What is shown has been handed to the store, which writes it a moment later.
    let written = || std::fs::read_to_string(house.path("state/events")).unwrap_or_default();
    let lines = || written().lines().filter(|line| !line.is_empty()).count();
    wait_for("the events to be written", PATIENCE, || (lines() == all.len()).then_some(()));
    house.kill_keeper();
    house.open();
    assert_eq!(events(&house, &["shop"]), seen);
    let (_, out, _) = house.heeler(&["events", "shop", "--last", "1"]);
    let last = seen.last().and_then(|line| line.split_once(": ")).expect("an event").1;
    assert!(out.trim_end().ends_with(last), "{out}");
}

#[test]
fn who_follows_hears_of_it_as_it_happens_until_heeler_ends() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    let first = house.wait_up("shop", None);
    let mut client = Command::new(HEELER)
        .env("HEELER_SOCKET", house.path("run/control.sock"))
        .args(["events", "--follow", "--json", "sh*"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client runs");
    let mut lines = BufReader::new(client.stdout.take().expect("a pipe")).lines();
    let mut next = |part: &str| {
        let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(part)));
        line.expect(part).expect("text")
    };
    next(&format!("up: pid {first}"));
    signal(first, "KILL");
    next(&format!("the main process {first} is gone"));
    let second = house.wait_up("shop", Some(first));
    let line = next(&format!("up again: pid {second}"));
    let event: Value = serde_json::from_str(&line).expect("a line is JSON");
    assert_eq!((&event["service"], &event["kind"]), (&"shop".into(), &"started".into()));
    house.close();
    let output = client.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(6), "{output:?}");
}

#[test]
fn why_tells_an_operators_wish_from_a_rules() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    let check = "[[check]]\nif = \"age > 0s\"\nthen = \"unmonitor\"\nevery = \"300ms\"\n";
    house.daemon("set-aside", "", &format!("{QUICK}{check}"));
    house.open();
    house.wait_up("shop", None);
    assert_eq!(house.heeler(&["stop", "shop"]).0, 0);
    let (_, why, _) = house.heeler(&["why", "shop"]);
    let me = if nix::unistd::geteuid().is_root() { "root (pid " } else { "uid " };
    assert!(why.contains(&format!("next    it is as {me}")), "{why}");
    assert!(why.contains("wants it: down; `heeler start shop` ends that"), "{why}");
    assert!(!why.contains("a rule took it"), "{why}");
    house.wait_words("set-aside", "not monitored");
    let (_, why, _) = house.heeler(&["why", "set-aside"]);
    assert!(
        why.contains("next    a rule took it out of service: `heeler start set-aside`"),
        "{why}"
    );
    let seen = events(&house, &["set-aside"]);
    assert!(
        seen.iter().any(|line| line.starts_with("acted: no longer monitored, by rule")),
        "{seen:?}"
    );
}
