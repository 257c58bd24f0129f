//! `type = "port"`, and what all network probes begin with, against listeners of every temper.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use heeler::checks::connect::{self, Tools};
use heeler::checks::given::{Given, Setting};
use heeler::checks::{self, Network, Probe};
use heeler::model::check::CheckKind;
use heeler::model::metric::Metric;
use heeler::model::observation::{Observation, Outcome};
use nix::sys::socket::{Backlog, listen};

use crate::support::{Need, can_run, wait_for};

const SECOND: Duration = Duration::from_secs(1);

/// The settings of a check as the configuration would make them.
pub(crate) fn defined(kind: CheckKind, keys: &[(&'static str, Setting)]) -> Network {
    let mut given = Given::default();
    for (key, setting) in keys {
        given.put(key, setting.clone());
    }
    match (checks::of(kind).read)(&given).expect("good settings") {
        Probe::Network(network) => {
            // As the scout gets them.
            let sent = serde_json::to_vec(&network).expect("can be sent");
            assert_eq!(serde_json::from_slice::<Network>(&sent).expect("can be read"), network);
            network
        }
        other @ (Probe::Sample
        | Probe::Workers
        | Probe::Puma
        | Probe::Files(_)
        | Probe::Command(_)) => {
            panic!("{other:?} is not probed on the network")
        }
    }
}

/// Probes once, within its time, as the scout does.
pub(crate) fn probed(network: &Network, limit: Duration) -> Observation {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let tools = Tools::default();
        let seen = tokio::time::timeout(limit, network.probe(&tools)).await;
        seen.unwrap_or_else(|_| tools.progress.overdue(limit))
    })
}

pub(crate) fn text(text: &str) -> Setting {
    Setting::Text(text.to_owned())
}

/// What was said of a target that misbehaved.
pub(crate) fn failed(seen: &Observation) -> String {
    match &seen.outcome {
        Outcome::Failed(why) => why.to_string(),
        Outcome::Ok | Outcome::Unknown(_) => panic!("not failed: {seen:?}"),
    }
}

/// What was said where nothing could be told.
pub(crate) fn unknown(seen: &Observation) -> String {
    match &seen.outcome {
        Outcome::Unknown(why) => why.to_string(),
        Outcome::Ok | Outcome::Failed(_) => panic!("not unknown: {seen:?}"),
    }
}

/// Runs something in a network of its own, of which only root has one to give.
pub(crate) fn in_own_network(script: &'static str, run: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let script = format!("set -e; ip link set lo up; {script}");
        let done = Command::new("sh").arg("-c").arg(script).status().expect("sh runs");
        assert!(done.success());
        run();
    });
    thread.join().expect("all as expected");
}

pub(crate) fn network_needs() -> bool {
    can_run(&[
        Need::Root,
        Need::Program("/usr/sbin/ip", "iproute2"),
        Need::Program("/usr/sbin/nft", "nftables"),
    ])
}

fn port(port: u16, keys: &[(&'static str, Setting)]) -> Network {
    let mut all = vec![("port", Setting::Number(port.into()))];
    all.extend_from_slice(keys);
    defined(CheckKind::Port, &all)
}

fn expecting(address: SocketAddr, pattern: &str) -> Network {
    port(address.port(), &[("expect", text(pattern))])
}

/// A server that does this with each of its connections.
fn serve(each: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("has one");
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            each(stream);
        }
    });
    address
}

/// A port on which nobody listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("has one").port()
}

/// A listener whose backlog is full, with those who fill it.
fn full() -> (TcpListener, SocketAddr, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listen(&listener, Backlog::new(0).expect("a backlog")).expect("a smaller one");
    let address = listener.local_addr().expect("has one");
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let clients: Vec<_> = std::iter::from_fn(connect).take(16).collect();
    assert!(clients.len() < 16, "the backlog never filled");
    (listener, address, clients)
}

#[test]
fn a_connection_is_enough_and_its_absence_is_told() {
    let address = serve(drop);
    let seen = probed(&port(address.port(), &[]), SECOND);
    assert_eq!(seen.outcome, Outcome::Ok);
    assert!(seen.reading(&Metric::ResponseTime).is_some());

    let closed = closed_port();
    let seen = probed(&port(closed, &[]), SECOND);
    let told =
        format!("failed to connect to 127.0.0.1:{closed}: it was refused: nobody listens there");
    assert_eq!(failed(&seen), told);
    assert_eq!(seen.reading(&Metric::ResponseTime), None);
}

#[test]
fn net_15_who_never_accepts_takes_connections_and_answers_none() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("has one");
    assert_eq!(probed(&port(address.port(), &[]), SECOND).outcome, Outcome::Ok);
    // The first probe's connection waits too: closed, but never accepted.
    let why = failed(&probed(&expecting(address, "ok"), Duration::from_millis(300)));
    let told = format!(
        "{address} accepts connections but did not answer within 300ms; \
         2 connections wait in its backlog to be accepted"
    );
    assert_eq!(why, told);

    let (_listener, address, _clients) = full();
    let began = Instant::now();
    let why = failed(&probed(&port(address.port(), &[]), Duration::from_millis(300)));
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    let start = format!("no connection to {address} within 300ms; ");
    assert!(why.starts_with(&start) && why.contains("in its backlog to be accepted"), "{why}");
}

#[test]
fn the_backlog_is_only_that_of_this_machines_own_listener() {
    let (_listener, address, clients) = full();
    assert_eq!(connect::backlog(address), Some(clients.len() as u64));
    // 192.0.2.0/24 is nobody's (RFC 5737).
    let foreign = SocketAddr::from(([192, 0, 2, 1], address.port()));
    assert_eq!(connect::backlog(foreign), None);
    assert_eq!(connect::backlog(SocketAddr::from((Ipv4Addr::LOCALHOST, closed_port()))), None);

    let Ok(six) = TcpListener::bind("[::]:0") else { return };
    let port = six.local_addr().expect("has one").port();
    let _client = TcpStream::connect(("127.0.0.1", port)).expect("serves both families");
    for address in [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
    ] {
        assert_eq!(connect::backlog(address), Some(1), "{address}");
    }
}

#[test]
fn what_is_sent_and_expected_are_bytes() {
    let address = serve(|mut stream| {
        let mut asked = [0; 7];
        if stream.read_exact(&mut asked).is_ok() && &asked == b"PING\r\n\0" {
            let _gone = stream.write_all(b"\xff\0+PO");
            let _gone = stream.write_all(b"NG\r\n");
        }
    });
    let ask = |send: &str, expect: &str| {
        probed(&port(address.port(), &[("send", text(send)), ("expect", text(expect))]), SECOND)
    };
    let seen = ask("PING\\r\\n\\0", r"(?-u)^\xff\x00\+PONG\r\n$");
    assert_eq!(seen.outcome, Outcome::Ok);
    let why = failed(&ask("PING\\r\\n\\0", "BONG"));
    assert!(
        why.contains("its answer of 9 bytes does not match `expect`: \"\u{fffd}\\x00+PONG\\r\\n\""),
        "{why}"
    );
    let why = failed(&ask("PANG\\r\\n\\0", "PONG"));
    assert_eq!(
        why,
        format!("127.0.0.1 port {} closed the connection without an answer", address.port())
    );
}

#[test]
fn a_greeting_that_drips_is_matched_when_it_is_there_or_too_late() {
    let address = serve(|mut stream| {
        for byte in b"220 ok" {
            thread::sleep(Duration::from_millis(100));
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
        // Held open: only the match can end the probe.
        thread::sleep(2 * SECOND);
    });
    let seen = probed(&expecting(address, "^220 ok$"), 2 * SECOND);
    assert_eq!(seen.outcome, Outcome::Ok);
    let began = Instant::now();
    let why = failed(&probed(&expecting(address, "never"), Duration::from_millis(300)));
    // Every byte came in time; the whole did not.
    assert!(began.elapsed() < SECOND && why.contains("did not answer within 300ms"), "{why}");
}

#[test]
fn an_answer_without_end_is_read_up_to_its_bound() {
    let address = serve(|mut stream| while stream.write_all(&[b'a'; 4096]).is_ok() {});
    let began = Instant::now();
    let why = failed(&probed(&expecting(address, "(a+)+b"), 5 * SECOND));
    assert!(why.contains("the first 64 KiB from"), "{why}");
    assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
}

#[test]
fn a_byte_at_a_time_costs_no_pattern_over_all_for_each() {
    let address = serve(|mut stream| {
        let _slower = stream.set_nodelay(true);
        while stream.write_all(b"a").is_ok() {}
    });
    let began = Instant::now();
    let why = failed(&probed(&expecting(address, "(a|aa)+$x"), 20 * SECOND));
    assert!(why.contains("the first 64 KiB from"), "{why}");
    assert!(began.elapsed() < 10 * SECOND, "{:?}", began.elapsed());
}

#[test]
fn a_reset_is_a_failure_and_what_came_before_it_counts() {
    let reset_after = |said: &'static [u8]| {
        serve(move |mut stream| {
            let mut asked = [0; 1];
            let _one_of_many = stream.read(&mut asked);
            let _gone = stream.write_all(said);
            // Closed with unread bytes, it is reset.
        })
    };
    let ask = |address: SocketAddr| {
        let keys = [("send", text("many bytes")), ("expect", text("^hello"))];
        probed(&port(address.port(), &keys), SECOND)
    };
    assert!(failed(&ask(reset_after(b""))).contains("the connection broke"));
    let partial = failed(&ask(reset_after(b"hell")));
    assert!(
        partial.contains("the connection broke") || partial.contains("does not match"),
        "{partial}"
    );
}

/// NET-14: an address that swallows everything beside a good one.
#[test]
fn net_14_a_dead_address_does_not_eat_the_deadline() {
    let (_listener, dead, _clients) = full();
    let good = serve(drop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let connect = |address| async move {
            let stream = tokio::net::TcpStream::connect(address).await;
            stream.map_err(|error| connect::connect_trouble("it", &error))
        };
        let began = Instant::now();
        let (address, _stream) =
            connect::race(vec![dead, good], connect).await.expect("the good one");
        assert_eq!(address, good);
        assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    });
    // `localhost` may have both families; nobody listens on ::1.
    let seen = probed(&port(good.port(), &[("host", text("localhost"))]), SECOND);
    assert_eq!(seen.outcome, Outcome::Ok);
    // The unspecified address is this machine (ip(7)).
    let seen = probed(&port(good.port(), &[("host", text("0.0.0.0"))]), SECOND);
    assert_eq!(seen.outcome, Outcome::Ok);
}

#[test]
fn a_name_that_is_none_is_unknown() {
    let seen = probed(&port(80, &[("host", text("no such name"))]), 20 * SECOND);
    let why = unknown(&seen);
    assert!(why.starts_with("failed to resolve no such name: "), "{why}");
}

/// NET-21.
#[test]
fn net_21_unix_sockets_say_what_is_wrong_with_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let ask = |path: &Path| {
        probed(&defined(CheckKind::Port, &[("unix", Setting::Path(path.to_owned()))]), SECOND)
    };
    let at = |name: &str| dir.path().join(name);

    let listener = UnixListener::bind(at("good")).expect("a socket");
    assert_eq!(ask(&at("good")).outcome, Outcome::Ok);
    drop(listener);
    assert!(failed(&ask(&at("good"))).ends_with("nobody listens on it"));
    assert!(failed(&ask(&at("missing"))).ends_with("there is no such socket"));
    std::fs::write(at("file"), "").expect("writable");
    assert!(failed(&ask(&at("file"))).ends_with("it is not a socket"));
    let _datagrams = UnixDatagram::bind(at("datagrams")).expect("a socket");
    assert!(
        failed(&ask(&at("datagrams"))).ends_with("it is a socket of another type than a stream")
    );

    let crowded = UnixListener::bind(at("crowded")).expect("a socket");
    listen(&crowded, Backlog::new(0).expect("a backlog")).expect("a smaller one");
    let _waits = UnixStream::connect(at("crowded")).expect("the one place there is");
    let why = failed(&ask(&at("crowded")));
    assert!(why.ends_with("its backlog is full: nobody accepts what waits there"), "{why}");

    let _locked = UnixListener::bind(at("locked")).expect("a socket");
    let mode = |mode| std::fs::set_permissions(at("locked"), PermissionsExt::from_mode(mode));
    mode(0o000).expect("it is ours");
    let locked = at("locked");
    let seen = thread::scope(|scope| {
        let ask = scope.spawn(|| {
            // As nobody, in this thread alone; root would be let in.
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
            ask(&locked)
        });
        ask.join().expect("no panic")
    });
    assert!(unknown(&seen).contains("give the socket and its directories modes"), "{seen:?}");
}

#[test]
fn udp_is_refused_answered_or_silent() {
    let udp = |port_number: u16, keys: &[(&'static str, Setting)]| {
        let mut all = vec![("protocol", text("udp"))];
        all.extend_from_slice(keys);
        probed(&port(port_number, &all), Duration::from_millis(900))
    };
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = server.local_addr().expect("has one").port();
    let silent = udp(at, &[]);
    assert_eq!((silent.outcome, silent.metrics), (Outcome::Ok, Vec::new()));
    let why = failed(&udp(at, &[("send", text("hi")), ("expect", text("."))]));
    assert_eq!(why, format!("no answer from 127.0.0.1 port {at}/udp within 900ms"));

    thread::spawn(move || {
        let mut asked = [0; 100];
        while let Ok((length, from)) = server.recv_from(&mut asked) {
            let _gone = server.send_to(&[b"you said ", &asked[..length]].concat(), from);
        }
    });
    let seen = udp(at, &[("send", text("hi\\x21")), ("expect", text("^you said hi!$"))]);
    assert_eq!(seen.outcome, Outcome::Ok);
    assert!(seen.reading(&Metric::ResponseTime).is_some());
    let why = failed(&udp(at, &[("send", text("hi")), ("expect", text("ho"))]));
    assert!(why.ends_with("does not match `expect`: \"you said hi\""), "{why}");

    let closed = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("one").port();
    assert!(failed(&udp(closed, &[])).contains("it was refused"));
    assert!(failed(&udp(closed, &[("expect", text("."))])).contains("it was refused"));
}

/// NET-18: what a firewall or a route does to a connection, each in its own words.
#[test]
fn net_18_dropped_rejected_and_unreachable_are_told_apart() {
    if !network_needs() {
        return;
    }
    const RULES: &str = "
        ip route add unreachable 192.0.2.1; ip route add prohibit 192.0.2.2
        nft -f - <<'END'
        table inet f { chain input { type filter hook input priority 0;
            tcp dport 81 drop
            tcp dport 82 reject with tcp reset
            tcp dport 83 reject with icmp type admin-prohibited
            tcp dport 84 reject with icmp type host-unreachable
            udp dport 85 reject with icmp type port-unreachable
          }
        }
END";
    in_own_network(RULES, || {
        let ask = |host: &str, number| {
            probed(&port(number, &[("host", text(host))]), Duration::from_millis(400))
        };
        let local = |number| failed(&ask("127.0.0.1", number));
        assert_eq!(local(81), "no connection to 127.0.0.1:81 within 400ms");
        assert!(local(82).contains("it was refused"), "{}", local(82));
        assert!(local(83).contains("it is unreachable"), "{}", local(83));
        assert!(local(84).contains("it is unreachable"), "{}", local(84));
        assert!(failed(&ask("192.0.2.1", 80)).contains("it is unreachable"));
        assert!(unknown(&ask("192.0.2.2", 80)).contains("this machine forbids it"));
        assert!(unknown(&ask("192.0.2.3", 80)).contains("this machine has no route there"));
        let keys = [("protocol", text("udp"))];
        assert!(failed(&probed(&port(85, &keys), SECOND)).contains("it was refused"));
    });
}

#[test]
fn tls_is_spoken_where_it_is_asked_for() {
    let plain = serve(|mut stream| drop(stream.write_all(b"220 plain\r\n")));
    let seen = probed(&port(plain.port(), &[("tls", text("tls"))]), 2 * SECOND);
    assert!(matches!(seen.outcome, Outcome::Failed(_)), "{seen:?}");
    if !can_run(&[Need::Program("/usr/bin/openssl", "openssl")]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-keyout", "key.pem", "-out", "own.pem", "-days", "2", "-subj", "/CN=here"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .current_dir(&dir)
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl runs").success());
    let number = closed_port();
    let server = Command::new("openssl")
        .args(["s_server", "-quiet", "-cert", "own.pem", "-key", "key.pem", "-rev", "-accept"])
        .arg(format!("127.0.0.1:{number}"))
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut server = server.expect("openssl runs");
    wait_for("the server", 10 * SECOND, || TcpStream::connect(("127.0.0.1", number)).ok());
    let ask = |keys: &[(&'static str, Setting)]| {
        let mut all =
            vec![("tls", text("tls")), ("send", text("tar\\n")), ("expect", text("^rat"))];
        all.extend_from_slice(keys);
        probed(&port(number, &all), 5 * SECOND)
    };
    let (trusted, stranger, unverified) = (
        ask(&[("ca_file", Setting::Path(dir.path().join("own.pem")))]),
        ask(&[]),
        ask(&[("verify", text("none"))]),
    );
    server.kill().expect("it is ours");
    server.wait().expect("it ends");
    assert_eq!(trusted.outcome, Outcome::Ok);
    assert_eq!(unverified.outcome, Outcome::Ok);
    assert!(!matches!(stranger.outcome, Outcome::Ok), "{stranger:?}");
}

#[test]
fn probes_of_one_scout_share_what_they_share() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let address = serve(drop);
    let check = Arc::new(port(address.port(), &[("host", text("localhost"))]));
    runtime.expect("a runtime").block_on(async {
        let shared = Arc::default();
        let probes: Vec<_> = (0..100)
            .map(|_| {
                let tools = Tools { shared: Arc::clone(&shared), ..Tools::default() };
                let check = Arc::clone(&check);
                tokio::spawn(async move { check.probe(&tools).await.outcome })
            })
            .collect();
        for probe in probes {
            assert_eq!(probe.await.expect("no panic"), Outcome::Ok);
        }
    });
}

/// With one port left to lend, the kernel gives a client the very port it asks for: nobody listens, and
/// yet it is connected.
#[test]
fn a_connection_to_itself_is_no_server() {
    if !network_needs() {
        return;
    }
    in_own_network("echo 40000 40000 >/proc/sys/net/ipv4/ip_local_port_range", || {
        let itself = TcpStream::connect("127.0.0.1:40000").expect("it meets itself");
        assert_eq!(itself.local_addr().expect("one"), itself.peer_addr().expect("one"));
        // Reset instead of closed, so that the port is free again at once.
        nix::sys::socket::setsockopt(
            &itself,
            nix::sys::socket::sockopt::Linger,
            &libc::linger { l_onoff: 1, l_linger: 0 },
        )
        .expect("it lingers not");
        drop(itself);
        let why = failed(&probed(&port(40_000, &[]), SECOND));
        assert!(why.ends_with("it was refused: nobody listens there"), "{why}");
    });
}
