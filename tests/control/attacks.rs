//! Clients that mean harm, or that are broken (CTL-05, CTL-07, CTL-08, CTL-09, CTL-10, CTL-13, CTL-16).

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::harness::{BIG, BIG_BYTES, Server, answer, get, order};
use crate::support::wait_for;

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_line_of_a_gigabyte_ends_at_its_bound() {
    let server = Server::start();
    let mut stream = server.connect();
    let block = vec![b'a'; 1 << 20];
    let begun = Instant::now();
    let taken = (0..1024).take_while(|_| stream.write_all(&block).is_ok()).count();
    assert!(taken < 2, "{taken} MiB were taken");
    assert!(begun.elapsed() < LIMIT);
    assert!(answer(stream).starts_with("HTTP/1.1 413 "));
    server.must_be_well();
}

#[test]
fn half_a_request_and_silence_is_told_off_and_holds_up_nobody() {
    let server = Server::start();
    let halves: [&[u8]; 3] = [
        b"",
        b"GET /v1/status HT",
        b"POST /v1/order HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n{",
    ];
    let streams: Vec<_> = halves
        .map(|half| {
            let mut stream = server.connect();
            stream.write_all(half).expect("it is taken");
            (Instant::now(), stream)
        })
        .into();
    server.must_be_well();
    for (begun, stream) in streams {
        let answer = answer(stream);
        assert!(answer.contains("no whole request came within 5 seconds"), "{answer}");
        assert!(begun.elapsed() > Duration::from_secs(4) && begun.elapsed() < LIMIT);
    }
    // A byte a second is silence too: the time is for the whole request.
    let mut stream = server.connect();
    let begun = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let mut one = [0];
    while stream.write_all(b"G").is_ok() && begun.elapsed() < LIMIT {
        match stream.read(&mut one) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => break,
        }
    }
    assert!(begun.elapsed() < LIMIT, "a slow client was borne with");
}

#[test]
fn rubbish_is_refused_at_once() {
    let server = Server::start();
    let good = get("/v1/status");
    let with = |from: &str, to: &[u8]| {
        let at = good.windows(from.len()).position(|part| part == from.as_bytes());
        let at = at.expect("it is there");
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    for (bytes, code, why) in [
        (vec![0; 100_000], "400", "NULs"),
        (b"\xff\xfe\xc3\x28".to_vec(), "400", "bad UTF-8"),
        (with("heeler", b"he\0eler"), "400", "a NUL in a header"),
        (with("/v1/status", b"/v1/status?service=%ff"), "400", "bad UTF-8, escaped"),
        (with("HTTP/1.1", b"HTTP/0.9"), "400", "an old version"),
        (with("HTTP/1.1", b"HTTP/2.0"), "400", "a new version"),
        (with("/v1/", b"/v9/"), "404", "another version of ours"),
        (with("/v1/status", b"http://heeler/v1/status"), "400", "absolute form"),
        (with("Host: heeler\r\n", b""), "400", "no Host"),
        (with("heeler\r\n", b"h\r\nHost: evil.example\r\n"), "400", "two Hosts"),
        (with("GET", b"DELETE"), "405", "an odd method"),
        (with("\r\n", b"\n"), "400", "bare LF"),
        (with("Host: heeler", b"Host: h\r\nTransfer-Encoding: chunked"), "400", "chunked"),
        (order("\u{0}\u{1}{"), "400", "a body that is not JSON"),
        (order(r#"{"order":"stop","services":["shop\u0000"]}"#), "400", "a NUL in a name"),
        (get("/v1/order?order=stop&service=shop"), "405", "an order by GET"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "400", "HTTP/2"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "400", "TLS"),
    ] {
        let begun = Instant::now();
        let answer = server.tell(&bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{why}: {answer}");
        assert!(answer.contains("{\"version\":1,\"error\":\""), "{why}: {answer}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{why} took {:?}", begun.elapsed());
    }
    server.must_be_well();
    assert!(!server.log().iter().any(|line| line.contains("Order")), "{:?}", server.log());
}

/// A browser does not speak to a Unix socket. Were it led there all the same, nothing says that another page
/// may read what comes back, and what it would send as a form is no order.
#[test]
fn ctl_13_no_answer_invites_another_page() {
    let server = Server::start();
    let from =
        "Host: evil.example\r\nOrigin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
    let form = "order=stop&services=shop";
    for bytes in [
        format!("GET /v1/status HTTP/1.1\r\n{from}\r\n"),
        format!("OPTIONS /v1/order HTTP/1.1\r\n{from}Access-Control-Request-Method: POST\r\n\r\n"),
        format!("POST /v1/order HTTP/1.1\r\n{from}Content-Length: {}\r\n\r\n{form}", form.len()),
    ] {
        let answer = server.tell(bytes.as_bytes());
        let head = answer.split("\r\n\r\n").next().unwrap_or_default().to_lowercase();
        assert!(head.starts_with("http/1.1 ") && !head.contains("access-control"), "{answer}");
        assert_eq!(head.contains(" 200 "), bytes.starts_with("GET"), "{answer}");
    }
    assert!(!server.log().iter().any(|line| line.contains("Order")), "{:?}", server.log());
}

#[test]
fn ten_thousand_requests_at_once_are_one() {
    let server = Server::start();
    let bytes = order(r#"{"order":"restart","services":["shop"]}"#).repeat(10_000);
    let answer = server.tell(&bytes);
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.contains("restart done"), "{answer}");
    server.must_be_well();
    assert_eq!(server.log().iter().filter(|line| line.contains("Restart")).count(), 1);
}

/// CTL-07: the order belongs to the loop; only the place of the client becomes free.
#[test]
fn clients_that_go_away_leave_their_orders_and_free_their_places() {
    let server = Server::start();
    let body = order(r#"{"order":"restart","services":["slow"]}"#);
    let heard =
        |server: &Server| server.log().iter().filter(|line| line.contains("Restart")).count();
    let streams: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(&body).expect("it is taken");
            stream
        })
        .collect();
    wait_for("all to be heard", LIMIT, || (heard(&server) == 16).then_some(()));
    assert!(server.tell(&get("/v1/status")).starts_with("HTTP/1.1 503 "), "the places are taken");
    drop(streams);
    wait_for("a free place", LIMIT, || {
        server.tell(&get("/v1/status?service=shop")).starts_with("HTTP/1.1 200 ").then_some(())
    });
    assert!(!server.log().contains(&"slow ended".to_owned()));
    server.let_slow_end();
    wait_for("all orders to end", LIMIT, || {
        (server.log().iter().filter(|line| *line == "slow ended").count() == 16).then_some(())
    });
    server.must_be_well();
}

/// Who only closed its sending side (`nc -N`) still gets its answer, and so does who sent too much.
#[test]
fn a_client_that_said_all_it_had_to_say_is_still_answered() {
    let server = Server::start();
    let body = order(r#"{"order":"restart","services":["slow"]}"#);
    let (mut half, mut chatty) = (server.connect(), server.connect());
    half.write_all(&body).expect("it is taken");
    half.shutdown(std::net::Shutdown::Write).expect("it is closed");
    chatty.write_all(&[&body[..], &[b'x'; 5000]].concat()).expect("it is taken");
    wait_for("both to be heard", LIMIT, || (server.log().len() == 2).then_some(()));
    server.must_be_well();
    server.let_slow_end();
    assert!(answer(half).contains("restart done"));
    assert!(answer(chatty).contains("restart done"));
}

/// CTL-08.
#[test]
fn a_client_that_does_not_take_its_answer_is_dropped() {
    let server = Server::start();
    let mut stream = server.connect();
    let begun = Instant::now();
    stream.write_all(&get(&format!("/v1/status?service={BIG}"))).expect("it is taken");
    server.must_be_well();
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let hung_up = poll(&mut fds, PollTimeout::from(10_000u16)).expect("poll");
    assert_eq!(hung_up, 1, "it was not dropped");
    assert!(begun.elapsed() > Duration::from_secs(4), "it was dropped too soon");
    assert!(answer(stream).len() < BIG_BYTES);
    // One that does take it gets all of it.
    assert!(server.tell(&get(&format!("/v1/status?service={BIG}"))).len() > BIG_BYTES);
}
