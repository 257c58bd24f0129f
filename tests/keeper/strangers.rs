//! Strangers, nonsense and floods at the control socket of the real daemon (CTL-01, CTL-05).

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::house::{House, PATIENCE, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nexit_delay = \"100ms\"\n";
const NOBODY: u32 = 65534;

/// The client, as the user nobody.
fn nobody(house: &House, args: &[&str]) -> Output {
    let copy = house.path("heeler");
    if !copy.exists() {
        // By another process: while this one had it open for writing, another test's fork would too.
        let copied = Command::new("install").args(["-m", "755", HEELER]).arg(&copy).status();
        assert!(copied.expect("install").success());
    }
    let socket = house.path("run/control.sock");
    Command::new(copy)
        .env("HEELER_SOCKET", socket)
        .args(args)
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("runs")
}

fn perl(house: &House, uid: u32, program: &str) -> Command {
    let mut command = Command::new("perl");
    command
        .args(["-MIO::Socket::UNIX", "-e", program])
        .arg(house.path("run/control.sock"))
        .uid(uid)
        .gid(uid);
    command
}

#[test]
fn a_stranger_gets_nothing_not_even_an_answer() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    let pid = house.wait_up("shop", None);
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["restart", "shop"],
        &["why", "shop"],
        &["stop", "shop"],
    ] {
        let said = nobody(&house, args);
        assert!(!said.status.success() && said.stdout.is_empty(), "{args:?}: {said:?}");
        let err = String::from_utf8_lossy(&said.stderr);
        assert!(!err.contains(&pid.to_string()), "{err}");
        eprintln!("nobody {args:?}: {:?} {err}", said.status.code());
    }
    let read = "my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!; my $n = sysread $s, my $b, 100; print defined $n ? $n : 'error'";
    let said = perl(&house, NOBODY, read).output().expect("perl");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "0", "{said:?}");
    assert_eq!(house.pid("shop"), Some(pid));
}

#[test]
fn the_user_of_a_service_sees_and_restarts_that_one_alone() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.daemon("theirs", "", &format!("user = \"nobody\"\n{QUICK}"));
    house.open();
    let (shop, theirs) = (house.wait_up("shop", None), house.wait_up("theirs", None));
    let said = nobody(&house, &["status"]);
    let out = String::from_utf8_lossy(&said.stdout);
    assert!(out.contains("theirs") && !out.contains("shop"), "{out}");
    assert!(!nobody(&house, &["restart", "shop"]).status.success());
    let said = nobody(&house, &["restart", "theirs"]);
    assert!(said.status.success(), "{said:?}");
    assert_eq!(house.pid("shop"), Some(shop));
    assert_ne!(house.pid("theirs"), Some(theirs));
    let log = house.log();
    assert!(log.contains("restart asked by nobody") || log.contains("65534"), "{log}");
}

/// Nonsense of every kind, in a loop, on as many connections as it gets, until it is told to go.
const FLOOD: &str = r#"
$SIG{PIPE} = 'IGNORE'; my @held; my $n = 0; my $end = time + 60; $SIG{TERM} = sub { $end = 0 };
my @kinds = ("\0" x 70000, "GET / HTTP/9.9\r\n\r\n", "\xff\xfe\xfd\n" x 1000, "POST /v1/order HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n{",
  "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n" x 500, "POST /v1/order HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n[[[[", 'A' x (1 << 20), "");
while (time < $end) {
  my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or next; $s->blocking(0);
  syswrite $s, $kinds[$n++ % @kinds]; push @held, $s; shift @held if @held > 60;
}
print $n
"#;

/// Whoever is held up by a flood is so until that ends; a busy machine is quicker.
const HELD_UP: Duration = Duration::from_secs(10);

#[test]
fn a_flood_holds_up_neither_the_watch_nor_the_operator() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    house.daemon("shop", "", &format!("{QUICK}start_limit = \"100 per 1m\"\n"));
    // With a right, or it would not come past the door.
    house.daemon("theirs", "", &format!("user = \"nobody\"\n{QUICK}"));
    house.open();
    let mut last = house.wait_up("shop", None);
    house.wait_up("theirs", None);
    let flood: Vec<_> = [NOBODY, NOBODY]
        .map(|uid| perl(&house, uid, FLOOD).stdout(Stdio::piped()).spawn().expect("perl"))
        .into();
    let mut worst = Duration::ZERO;
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(1300));
        let starts = house.starts("shop").len();
        let began = Instant::now();
        signal(last, "KILL");
        wait_for("it to be back", PATIENCE, || (house.starts("shop").len() > starts).then_some(()));
        worst = worst.max(began.elapsed());
        last = house.wait_up("shop", Some(last));
        let began = Instant::now();
        let (code, _, err) = house.heeler(&["status", "shop"]);
        assert!(code == 0 || code == 1, "the operator was locked out: {code} {err}");
        assert!(began.elapsed() < HELD_UP, "{:?}", began.elapsed());
    }
    flood.iter().for_each(|flood| signal(flood.id(), "TERM"));
    let sent: Vec<_> = flood
        .into_iter()
        .map(|flood| {
            String::from_utf8_lossy(&flood.wait_with_output().expect("ends").stdout).into_owned()
        })
        .collect();
    eprintln!("back within {worst:?} beside floods of {sent:?} connections");
    assert!(worst < HELD_UP, "{worst:?}");
    assert_eq!(house.doubles("shop"), 0);
    let log = house.log();
    assert!(log.len() < 1 << 20, "the flood filled the log: {} bytes", log.len());
}

/// CTL-02: a group has the rights that `allow` gives it.
#[test]
fn a_group_of_allow_that_was_not_there_is_looked_up_again() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/unshare", "unshare(1)")]) {
        return;
    }
    let mut house = House::new("");
    house.daemon("shop", "", &format!("allow = {{ \"%helpers\" = [\"status\"] }}\n{QUICK}"));
    house.write("group", "root:x:0:\n");
    let groups = house.path("group").display().to_string();
    let mut command = Command::new("unshare");
    command.args([
        "-m",
        "sh",
        "-c",
        "mount --bind \"$0\" /etc/group; exec \"$@\"",
        &groups,
        HEELER,
    ]);
    house.open_by(command);
    house.wait_up("shop", None);
    let missing = "there is no user or group";
    wait_for("heeler to miss the group", PATIENCE, || house.log().contains(missing).then_some(()));
    assert!(!nobody(&house, &["status"]).status.success());
    house.write("group", &format!("root:x:0:\nhelpers:x:{NOBODY}:\n"));
    wait_for("its members to be let in", Duration::from_secs(45), || {
        let said = nobody(&house, &["status"]);
        String::from_utf8_lossy(&said.stdout).contains("shop").then_some(())
    });
}
