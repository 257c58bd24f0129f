//! The real binary: what it says and what it exits with (CTL-17).

use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use crate::harness::{BIG, End, Server};
use crate::support::HEELER;

fn heeler(server: &Server) -> Command {
    let mut command = Command::new(HEELER);
    command.env("HEELER_SOCKET", &server.socket).env_remove("COLUMNS").stdin(Stdio::null());
    command
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn err(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[test]
fn every_command_exits_with_its_number() {
    let server = Server::start();
    let table: [(&[&str], i32, &str, &str); 50] = [
        (&["status", "shop"], 0, "shop: up\n", ""),
        (&["status", "shop", "theirs"], 0, "SERVICE", ""),
        (&["status", "db"], 3, "db: down\n", ""),
        (&["status", "shop", "db"], 3, "SERVICE", ""),
        (&["status", "nix"], 4, "", "heeler: no such service: nix; `heeler status` lists"),
        (&["status", "a/b"], 4, "", "no such service: a/b"),
        (&["status", "\x1b[2J"], 4, "", "no such service: \\x1b[2J"),
        (
            &["status", "shop", "--json"],
            0,
            "{\"version\":1,\"services\":[{\"service\":\"shop\"",
            "",
        ),
        (&["status", "nix", "--json"], 4, "{\"version\":1,\"error\":\"no_such_service\"", "nix"),
        (&["status", "s*", "--group", "back"], 3, "SERVICE", ""),
        (&["status", "--group", "nix"], 4, "", "no service is in group nix; `heeler status`"),
        (&["status", "x*"], 4, "", "no service matches x*"),
        (&["status", "x["], 4, "", "no such service: x["),
        (&["restart", "sho?", "d[ab]"], 0, "shop: restart done\ndb: restart done\n", ""),
        (&["stop", "--group", "web"], 1, "shop: stop done\ntheirs: stop done\n", "heeler: bad:"),
        (&["restart", "--all", "--no-wait"], 1, "big: recorded\ndb: recorded\n", "heeler: bad:"),
        (&["restart", "shop", "x*"], 4, "", "no service matches x*"),
        (&["why", "shop"], 0, "shop: up\nnothing has happened", ""),
        (&["why", "nix"], 4, "", "no such service"),
        (&["events", "--last", "1", "--json"], 0, "{\"version\":1,\"events\":[{\"at", ""),
        (&["events", "shop"], 0, "1970-01-01 ", ""),
        (&["probe", "shop"], 0, " 1  pass     page: failed (503\\x1b[2J)\n", ""),
        (&["probe", "shop", "bad"], 1, " 1  FAIL     page: failed (503\\x1b[2J)\n", ""),
        (
            &["probe", "shop", "bad", "--json"],
            1,
            "{\"version\":1,\"service\":\"shop\",\"checks\"",
            "",
        ),
        (
            &["workers", "shop"],
            3,
            "shop  nobody\\x1b[2J is there; min 1, 3 of 3 actions left per 10m\n",
            "",
        ),
        (&["workers", "nix"], 4, "", "no such service"),
        (&["kill", "shop", "--worker", "77"], 0, "shop: worker 77 is gone after 1s\n", ""),
        (&["kill", "shop", "--stuck"], 1, "", "heeler: shop: no worker is stuck"),
        (&["kill", "shop"], 2, "", "--worker"),
        (&["kill", "nix", "--stuck"], 4, "", "no such service"),
        (&["reload", "shop", "--verified"], 0, "shop: verified after 12s\n", ""),
        (
            &["reload", "shop", "--verified", "--timeout", "90s"],
            1,
            "",
            "heeler: shop: its time is over: 90s\\x1b[2J\n",
        ),
        (
            &["reload", "shop", "--verified", "--json"],
            0,
            "{\"version\":1,\"results\":[{\"service\":\"shop\",\"result\":\"done\",",
            "",
        ),
        (&["reload", "nix", "--verified"], 4, "", "no such service"),
        (&["reload", "shop", "db", "--verified"], 2, "", "`--verified` is about one service"),
        (&["probe", "shop", "x"], 4, "", "heeler: shop has no such check"),
        (&["probe", "nix"], 4, "", "no such service"),
        (&["events", "nix"], 4, "", "no such service"),
        (&["events", "nix", "--follow"], 4, "", "no such service"),
        (&["restart", "shop"], 0, "shop: restart done\n", ""),
        (&["stop", "shop", "db"], 0, "shop: stop done\ndb: stop done\n", ""),
        (&["start", "bad"], 1, "", "heeler: bad: it did not\\x1b[2J come up\n"),
        (&["start", "bad", "shop"], 1, "shop: start done\n", "heeler: bad: it did not"),
        (&["restart", "slow", "--no-wait"], 0, "slow: recorded\n", ""),
        (&["monitor", "shop", "--json"], 0, "{\"version\":1,\"results\":[", ""),
        (&["unmonitor", "nix"], 4, "", "no such service"),
        (&["restart"], 2, "", "Usage"),
        (&["reload"], 2, "", "which service is to be reloaded?"),
        (&["reload", "d*", "sho?"], 0, "db: reload done\nshop: reload done\n", ""),
        (&["--version"], 0, "heeler 0.", ""),
    ];
    for (args, rc, stdout, stderr) in table {
        let output = heeler(&server).args(args).output().expect("it runs");
        let (out, err) = (out(&output), err(&output));
        assert_eq!(output.status.code(), Some(rc), "{args:?}\n{out}{err}");
        assert!(out.starts_with(stdout), "{args:?}: {out}");
        assert!(err.contains(stderr), "{args:?}: {err}");
        assert_eq!(
            (out.is_empty(), err.is_empty()),
            (stdout.is_empty(), stderr.is_empty()),
            "{args:?}"
        );
    }
    // All of them: the down one decides.
    let output = heeler(&server).arg("status").output().expect("it runs");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn no_daemon_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control.sock");
    let status = || Command::new(HEELER).arg("--socket").arg(&path).arg("status").output();
    let missing = status().expect("it runs");
    assert_eq!(missing.status.code(), Some(6));
    assert_eq!(
        err(&missing),
        format!(
            "heeler: failed to reach heeler at {}: no such file; is it running? start it with \
             `systemctl start heeler` or `heeler run /etc/heeler/conf.d`\n",
            path.display()
        )
    );
    drop(UnixListener::bind(&path).expect("it binds"));
    let dead = status().expect("it runs");
    assert_eq!(dead.status.code(), Some(6));
    assert!(err(&dead).contains("nobody listens there"));
}

#[test]
fn what_is_no_heeler_is_not_believed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control.sock");
    let listener = UnixListener::bind(&path).expect("it binds");
    let child = Command::new(HEELER)
        .args(["--socket", path.to_str().expect("text"), "status"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let (mut stream, _) = listener.accept().expect("it calls");
    std::io::Read::read(&mut stream, &mut [0; 4096]).expect("it asks");
    std::io::Write::write_all(&mut stream, b"220 mail ESMTP\r\n\r\n").expect("it is told");
    drop(stream);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("is it heeler that listens there?"));
}

/// The order waits with no deadline of its own; a keeper that ends meanwhile says so when it can, and is
/// told from a refusal when it cannot.
#[test]
fn a_keeper_that_ends_while_it_is_waited_for_is_said() {
    for (end, says) in [
        (End::Killed, "ended before it answered"),
        (End::Orderly, "heeler is stopping; what was recorded goes on when it is back"),
    ] {
        let mut server = Server::start();
        let child = heeler(&server)
            .args(["restart", "slow"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        crate::support::wait_for("the order", std::time::Duration::from_secs(10), || {
            (!server.log().is_empty()).then_some(())
        });
        server.stop(end);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1));
        assert!(err(&output).contains(says), "{}", err(&output));
    }
}

/// The exit code is the command's, whatever became of who was to read it.
#[test]
fn a_reader_that_went_away_changes_nothing() {
    let server = Server::start();
    let sh = |script: &str| {
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-c", script])
            .env("HEELER", HEELER)
            .env("HEELER_SOCKET", &server.socket)
            .env_remove("TERM")
            .env("LANG", "C")
            .output()
            .expect("bash runs");
        (output.status.code(), out(&output), err(&output))
    };
    let big = format!("$HEELER status {BIG}");
    let (code, first, said) = sh(&format!("{big} | head -n 1"));
    assert_eq!((code, first.as_str(), said.as_str()), (Some(0), "big: up\n", ""));
    assert_eq!(sh(&format!("{big} | true")).0, Some(0));
    assert_eq!(sh("$HEELER status db --json | true").0, Some(3));
    assert_eq!(sh("$HEELER status db >&-").0, Some(3));
    assert_eq!(sh("$HEELER status nix >&- 2>&-").0, Some(4));
    assert_eq!(sh("$HEELER start bad 2>&1 | true").0, Some(1));
    assert_eq!(sh("$HEELER --help | true").0, Some(0));
    assert_eq!(sh("$HEELER nonsense 2>&-").0, Some(2));
    let (code, _, said) = sh("$HEELER status shop >/dev/full");
    assert_eq!(code, Some(1));
    assert!(said.contains("failed to write the answer to stdout: No space left"), "{said}");
}
