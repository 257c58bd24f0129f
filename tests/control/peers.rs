//! Other users (CTL-01, CTL-03), and the places they can take. A user is another process: this test binary
//! again, or the real one, under setpriv.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::harness::{GRANTED, STRANGER, Server, THEIRS, for_everyone};
use crate::support::{HEELER, Need, can_run};

const NEEDS: [Need; 2] = [Need::Root, Need::Program("/usr/bin/setpriv", "util-linux")];

fn as_user(uid: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={uid}")]).arg("--clear-groups");
    command
}

fn heeler(server: &Server, uid: u32, args: &[&str]) -> (Option<i32>, String) {
    let program = for_everyone(server, HEELER.as_ref());
    let socket = server.socket.to_str().expect("text");
    let output = as_user(uid).arg(program).args(["--socket", socket]).args(args).output();
    let output = output.expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

#[test]
fn each_user_sees_and_does_what_it_may() {
    if !can_run(&NEEDS) {
        return;
    }
    let server = Server::start();
    let table: [(u32, &[&str], i32, &str); 18] = [
        (THEIRS, &["status"], 0, "theirs"),
        (THEIRS, &["status", "shop"], 4, "no such service: shop"),
        (THEIRS, &["status", "nothing"], 4, "no such service: nothing"),
        (THEIRS, &["restart", "theirs"], 0, "theirs: restart done"),
        (THEIRS, &["stop", "theirs"], 5, "may not stop theirs, only: status, restart, reload"),
        (THEIRS, &["restart", "theirs", "shop"], 4, "no such service: shop"),
        (THEIRS, &["restart", "*"], 0, "theirs: restart done"),
        (THEIRS, &["restart", "--group", "web"], 0, "theirs: restart done"),
        (THEIRS, &["restart", "--all"], 0, "theirs: restart done"),
        (THEIRS, &["restart", "s*"], 4, "no service matches s*"),
        (THEIRS, &["status", "--group", "back"], 4, "no service is in group back"),
        (THEIRS, &["probe", "theirs"], 0, "pass"),
        (THEIRS, &["probe", "shop"], 4, "no such service: shop"),
        (THEIRS, &["stop", "t*"], 5, "may not stop theirs"),
        (GRANTED, &["start", "theirs"], 0, "theirs: start done"),
        (GRANTED, &["restart", "theirs"], 5, "may not restart theirs, only: status, start"),
        (STRANGER, &["status"], 5, "does not talk to uid 54323"),
        (STRANGER, &["restart", "theirs"], 5, "does not talk to uid 54323"),
    ];
    for (uid, args, rc, says) in table {
        let (code, text) = heeler(&server, uid, args);
        assert_eq!(code, Some(rc), "uid {uid} {args:?}: {text}");
        assert!(text.contains(says), "uid {uid} {args:?}: {text}");
        let hidden = ["db", "shop: "].iter().any(|hidden| text.contains(hidden));
        assert!(!hidden, "uid {uid} learned of what it may not see: {text}");
    }
    let log = server.log().join("\n");
    assert!(log.contains("refused uid 54321 Order { order: Stop"), "{log}");
    assert!(!log.contains("uid 54323"), "the stranger was heard: {log}");
    let asked = log.matches("uid 54321 Order { order: Restart").count();
    assert_eq!(asked, 6, "four done, two refused");
}

#[test]
fn a_stranger_meets_a_closed_door_before_it_says_a_word() {
    if !can_run(&NEEDS) {
        return;
    }
    let server = Server::start();
    let (mut child, mut lines, _stdin) = clients(&server, STRANGER, 1);
    assert_eq!(lines.next().expect("a line"), "held 0 busy 0 closed 1");
    drop(child.kill());
    child.wait().expect("it ends");
    assert_eq!(server.log(), Vec::<String>::new());
}

/// CTL-03: who it is was settled when it connected (SO_PEERCRED, unix(7)): whoever gives up root afterwards,
/// or hands the connection on, has let root speak.
#[test]
fn ctl_03_who_connected_as_root_is_root_whatever_it_becomes() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/perl", "perl-base")]) {
        return;
    }
    let server = Server::start();
    let program = r#"use IO::Socket::UNIX; my $drop = sub { $( = $) = "$ARGV[1] $ARGV[1]"; $< = $> = $ARGV[1]; };
        $drop->() if $ARGV[2] eq "first";
        my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "connect: $!";
        $drop->() if $ARGV[2] eq "then"; die "it is root" unless $> == $ARGV[1];
        $SIG{PIPE} = "IGNORE";
        print $s "GET /v1/status?service=shop HTTP/1.1\r\nHost: h\r\n\r\n"; print <$s>;"#;
    let ask = |when: &str| {
        let mut perl = Command::new("perl");
        perl.args(["-e", program]).arg(&server.socket).args([&STRANGER.to_string(), when]);
        let output = perl.output().expect("perl runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(ask("then").starts_with("HTTP/1.1 200 "), "{}", ask("then"));
    assert_eq!(ask("first"), "", "a stranger was answered");
}

/// One uid takes 16 places, all users together leave some to root.
#[test]
fn no_user_can_lock_the_operator_out() {
    if !can_run(&NEEDS) {
        return;
    }
    let server = Server::start();
    let (mut one, mut of_one, _held_one) = clients(&server, THEIRS, 20);
    assert_eq!(of_one.next().expect("a line"), "held 16 busy 4 closed 0");
    let (mut two, mut of_two, _held_two) = clients(&server, GRANTED, 20);
    assert_eq!(of_two.next().expect("a line"), "held 12 busy 8 closed 0");
    server.must_be_well();
    for child in [&mut one, &mut two] {
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
    }
}

/// Makes `number` connections as `uid`, and tells what became of them while it holds them.
fn clients(
    server: &Server,
    uid: u32,
    number: u32,
) -> (Child, impl Iterator<Item = String> + use<>, ChildStdin) {
    let myself = env::current_exe().expect("this test binary");
    let mut child = as_user(uid)
        .arg(for_everyone(server, &myself))
        .args(["--exact", "peers::be_clients", "--nocapture", "--quiet"])
        .env("HEELER_TEST_SOCKET", &server.socket)
        .env("HEELER_TEST_CLIENTS", number.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let lines = lines.map(|line| line.expect("text")).filter(|line| line.starts_with("held"));
    let stdin = child.stdin.take().expect("a pipe");
    (child, lines, stdin)
}

/// Not a test of its own: what [`clients`] runs as another user. Connects and says nothing.
#[test]
fn be_clients() {
    let (Some(socket), Ok(number)) =
        (env::var_os("HEELER_TEST_SOCKET"), env::var("HEELER_TEST_CLIENTS"))
    else {
        return;
    };
    let number: u32 = number.parse().expect("a number");
    let streams: Vec<_> =
        (0..number).map(|_| UnixStream::connect(&socket).expect("it listens")).collect();
    // Connections are met in their order: once the last is answered, all before it have been met.
    let last = streams.last().expect("at least one");
    let mut fds = [PollFd::new(last.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(4000u16)).expect("poll");
    let (mut held, mut busy, mut closed) = (Vec::new(), 0, 0);
    for mut stream in streams {
        stream.set_nonblocking(true).expect("it is set");
        let mut said = [0; 13];
        match stream.read(&mut said) {
            Err(_) => held.push(stream),
            Ok(0) => closed += 1,
            Ok(_) => busy += u32::from(said == *b"HTTP/1.1 503 "),
        }
    }
    println!("\nheld {} busy {busy} closed {closed}", held.len());
    std::io::stdout().flush().expect("it is told");
    drop(std::io::stdin().read(&mut [0]));
}
