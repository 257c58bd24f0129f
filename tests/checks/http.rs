//! `type = "http"` against servers that misbehave in every way a server can.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use heeler::model::limits;
use heeler::model::metric::{Metric, Reading, Value};
use heeler::model::observation::{Observation, Outcome};

use crate::servers::{
    Authority, Dates, Wire, alone, as_nobody, failure, ignorance, longest_stand, network, probe,
    probe_within, request, self_signed, serve, serve_tls, serve_with, timed,
};

/// The server of these tests: the path says what it does.
fn hostile() -> SocketAddr {
    serve(|request, out| {
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        // Whoever has seen enough hangs up; that is no fault of the server's.
        let _sent = answer(&path, request, out);
    })
}

fn answer(path: &str, request: &str, out: &mut dyn Wire) -> std::io::Result<()> {
    let mut say = |bytes: &[u8]| out.write_all(bytes);
    let with = |body: &[u8], head: &str| {
        let mut all = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
        // Only the body may be other than text.
        let mut all = std::mem::take(&mut all).into_bytes();
        all.extend_from_slice(body);
        all
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match path {
        "/ok" => say(&with(b"hello OK\n", "200 OK\r\nX-Kind: a b\r\nX-Kind: second")),
        "/echo" => say(&with(request.as_bytes(), "200 OK")),
        "/status" => say(&with(b"x", &format!("{query} whatever"))),
        "/none" => say(format!("HTTP/1.1 {query} X\r\n\r\n").as_bytes()),
        "/slowheader" => {
            say(b"HTTP/1.1 200 OK\r\nX-A: ")?;
            loop {
                say(b"a")?;
                thread::sleep(Duration::from_millis(20));
            }
        }
        "/slowbody" => {
            say(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
            loop {
                say(b"x")?;
                thread::sleep(Duration::from_millis(20));
            }
        }
        "/noanswer" => {
            let _read = out.read(&mut [0]);
            Ok(())
        }
        "/endless" => {
            say(b"HTTP/1.1 200 OK\r\n\r\n")?;
            loop {
                say(&[b'A'; 16_384])?;
                SENT.fetch_add(16_384, Ordering::Relaxed);
            }
        }
        "/big" => {
            say(b"HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n")?;
            loop {
                say(&[b'B'; 16_384])?;
            }
        }
        "/crumbs" => {
            say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            let crumbs = b"1\r\na\r\n".repeat(1000);
            loop {
                say(&crumbs)?;
            }
        }
        "/redirect" => say(format!("HTTP/1.1 302 X\r\nLocation: {query}\r\n\r\n").as_bytes()),
        "/repeat" => say(format!("HTTP/1.1 307 X\r\nLocation: {query}\r\n\r\n").as_bytes()),
        "/loop" => say(b"HTTP/1.1 302 Found\r\nLocation: /loop\r\n\r\n"),
        "/chain" => match query.parse::<u32>() {
            Ok(left) if left > 0 => {
                say(format!("HTTP/1.1 301 X\r\nLocation: /chain?{}\r\n\r\n", left - 1).as_bytes())
            }
            _ => say(&with(b"end OK", "200 OK")),
        },
        "/badchunk" => say(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n",
        ),
        "/hugeheader" => {
            say(b"HTTP/1.1 200 OK\r\nX: ")?;
            loop {
                say(&[b'a'; 16_384])?;
                SENT.fetch_add(16_384, Ordering::Relaxed);
            }
        }
        "/manyheaders" => {
            say(b"HTTP/1.1 200 OK\r\n")?;
            (0..5000).try_for_each(|n| say(format!("X-{n}: y\r\n").as_bytes()))?;
            say(b"\r\nok")
        }
        "/badstatus" => say(b"HTTP/1.1 2OO OK\r\n\r\nok"),
        "/nostatus" => say(b"\x16\x03\x01\x02\x00\x01garbage\r\n\r\n"),
        "/http09" => say(b"just a body, no status line\n"),
        "/100s" => loop {
            say(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        },
        "/shortclen" => say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhello OK"),
        "/longclen" => say(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nhello OK"),
        "/close" => Ok(()),
        "/split" => {
            say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            say(format!("{:x}\r\n{}NEE\r\n", 70_003, ".".repeat(70_000)).as_bytes())?;
            thread::sleep(Duration::from_millis(50));
            say(b"5\r\nDLE..\r\n0\r\n\r\n")
        }
        "/latin1" => say(&with(b"caf\xe9 OK", "200 OK")),
        "/binary" => say(&with(&(0..=255).cycle().take(16_384).collect::<Vec<u8>>(), "200 OK")),
        "/nul" => say(&with(b"a\0OK\0b", "200 OK")),
        "/as" => say(&with(&[&[b'a'; 1 << 20][..], b"b"].concat(), "200 OK")),
        "/gzip" => say(&with(b"\x1f\x8bpacked", "200 OK\r\nContent-Encoding: gzip")),
        "/evil" => say(&with(b"\x1b[2J\r\nBcc: x\r\n\0\xff", "200 OK")),
        _ => say(&with(b"not found", "404 Not Found")),
    }
}

static SENT: AtomicU64 = AtomicU64::new(0);

/// A check of a path of that server, with more lines.
fn get(path: &str, lines: &str) -> Observation {
    probe(&format!("type = \"http\"\nurl = \"http://{}{path}\"\n{lines}", hostile()))
}

fn size(seen: &Observation) -> Option<u64> {
    let reading = seen.reading(&Metric::Size)?;
    let Reading::Exact(Value::Bytes(bytes)) = reading else { panic!("{reading:?}") };
    Some(bytes)
}

#[test]
fn a_good_answer_is_told() {
    let seen = get("/ok", "body = \"(?i)ok\"\nnot_body = \"error\"\nheader = { X-Kind = '^sec' }");
    assert_eq!(seen.outcome, Outcome::Ok, "{seen:?}");
    assert!(seen.detail.to_string().starts_with("200 OK, 9 B, "), "{seen:?}");
    assert_eq!(seen.reading(&Metric::Status), Some(Reading::Exact(Value::Count(200))));
    assert_eq!(size(&seen), Some(9));
    assert!(seen.reading(&Metric::ResponseTime).is_some());
    let own = get("/echo", "body = '(?i)\\r\\nuser-agent: heeler/[0-9.]+\\r'");
    assert_eq!(own.outcome, Outcome::Ok, "{own:?}");
    assert_eq!(get("/ok", "").fingerprint, seen.fingerprint);
    assert_ne!(get("/nul", "").fingerprint, seen.fingerprint);
}

#[test]
fn what_is_wrong_is_shown() {
    assert_eq!(
        failure(&get("/nope", "")),
        "status 404 Not Found, wanted 2xx; the body begins with \"not found\""
    );
    let why = failure(&get("/ok", "body = 'up and \\w+'"));
    assert_eq!(why, "the body does not match \"up and \\w+\": it begins with \"hello OK\\n\"");
    let why = failure(&get("/ok", "not_body = 'O.'"));
    assert_eq!(why, "the body matches \"O.\" (`not_body`): \"OK\\n\"");
    let why = failure(&get("/ok", "header = { x-kind = '^b', x-none = '.' }"));
    assert_eq!(
        why,
        "the header x-kind does not match \"^b\": it is \"a b\"; the header x-none is missing"
    );
    let why = failure(&get("/evil", "body = 'ok'"));
    assert!(why.contains("\"\\x1b[2J\\r\\nBcc: x\\r\\n\\x00\u{fffd}\""), "{why}");
    let seen = get("/status?503", "");
    assert_eq!(seen.reading(&Metric::Status), Some(Reading::Exact(Value::Count(503))));
}

/// NET-20.
#[test]
fn net_20_a_status_is_compared_with_the_set() {
    for code in [200, 201, 401, 403, 404, 500, 503, 999] {
        let good = get(&format!("/status?{code}"), "").outcome == Outcome::Ok;
        assert_eq!(good, code < 300, "{code}");
        let wanted = "status = [\"4xx\", 500, \"990-999\"]";
        let good = get(&format!("/status?{code}"), wanted).outcome == Outcome::Ok;
        assert_eq!(good, [401, 403, 404, 500, 999].contains(&code), "{code}");
    }
    for code in [204, 304] {
        assert_eq!(get(&format!("/none?{code}"), "status = [204, 304]").outcome, Outcome::Ok);
    }
    let why = failure(&get("/status?404", "status = [\"2xx\", 301, \"400-403\"]"));
    assert!(why.starts_with("status 404 Not Found, wanted 2xx or 301 or 400-403"), "{why}");
}

/// NET-02: a server that drips would outlive every timeout of a single read.
#[test]
fn net_02_what_drips_ends_at_the_callers_deadline() {
    let limit = Duration::from_millis(700);
    let late = |path: &str| {
        let lines = format!("type = \"http\"\nurl = \"http://{}{path}\"", hostile());
        let (seen, took) = timed(|| probe_within(&lines, limit));
        assert!(took >= limit && took < limit * 4, "{path}: {took:?}");
        failure(&seen)
    };
    for path in ["/slowheader", "/noanswer"] {
        let why = late(path);
        assert!(why.contains("accepts connections but did not answer within 700ms"), "{why}");
    }
    let why = late("/slowbody");
    assert!(why.contains("answered 200 OK and began a body, which did not end within"), "{why}");
}

/// Nobody accepts: the kernel does, and the backlog is what there is to say.
#[test]
fn a_listener_that_never_accepts_is_told_with_its_backlog() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let lines = format!("type = \"http\"\nurl = \"http://{address}/\"");
    let why = failure(&probe_within(&lines, Duration::from_millis(300)));
    assert_eq!(
        why,
        format!(
            "{address} accepts connections but did not answer within 300ms; \
             1 connection waits in its backlog to be accepted"
        )
    );
}

/// NET-03, by itself: what others allocate must not count.
#[test]
fn net_03_a_body_without_end_stops_at_its_bound() {
    // What was freed is given back at once: what is counted is what was held at one time.
    let malloc = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536")];
    if !alone("http::net_03_a_body_without_end_stops_at_its_bound", &malloc) {
        return;
    }
    let high = || {
        let status = fs::read_to_string("/proc/self/status").expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    let server = hostile();
    let get = |path: &str, lines: &str| {
        timed(|| probe(&format!("type = \"http\"\nurl = \"http://{server}{path}\"\n{lines}")))
    };
    get("/ok", "body = 'OK'");
    // What runs for the first time is read in from its file, and that is no memory of a body: so it runs.
    for path in ["/endless", "/big"] {
        get(path, "body = '^[AB]{9}'\nmax_body = '4KiB'");
        get(path, "body = 'needle'\nmax_body = '4KiB'");
    }
    let before = high();
    for path in ["/endless", "/big"] {
        let (seen, took) = get(path, "body = '^[AB]{9}'");
        assert_eq!(seen.outcome, Outcome::Ok);
        assert!(seen.detail.to_string().starts_with("200 OK, more than 1.0 MiB of body, "));
        assert_eq!(size(&seen), None, "it is not known");
        assert!(took < Duration::from_secs(5), "{took:?}");
        let why = failure(&get(path, "body = 'needle'\nmax_body = '64KiB'").0);
        assert!(why.contains("in its first 64 KiB (`max_body`): it begins with \""), "{why}");
    }
    let grown = high() - before;
    println!("NET-03: {grown} kB more, {} bytes taken", SENT.load(Ordering::Relaxed));
    assert!(grown < 3 << 10, "{grown} kB more");
    // What the kernel's buffers took besides.
    assert!(SENT.load(Ordering::Relaxed) < 24 << 20, "it read on");
}

/// One that floods is a load on its own check only: the loop that all probes share goes on.
#[test]
fn a_flood_does_not_hold_up_the_loop() {
    let server = hostile();
    for path in ["/endless", "/crumbs", "/100s", "/hugeheader", "/as"] {
        let more = "body = 'Z{9}'\nmax_body = '256KiB'";
        let network = network(&format!("type = \"http\"\nurl = \"http://{server}{path}\"\n{more}"));
        let (seen, gap) = longest_stand(&network);
        failure(&seen);
        println!("{path}: the loop stood for {gap:?}");
        // What the scout calls late, and a debug build.
        assert!(gap < limits::LATE * 4, "{path}: the loop stood for {gap:?}");
    }
}

/// NET-05.
#[test]
fn net_05_redirects_are_followed_only_as_far_as_asked() {
    let why = failure(&get("/loop", ""));
    let told =
        "status 302 Found, wanted 2xx; it redirects to \"/loop\" (`follow = 1` would follow it)";
    assert_eq!(why, told);
    assert_eq!(get("/loop", "status = 302").outcome, Outcome::Ok);
    let why = failure(&get("/loop", "follow = 5"));
    assert!(why.ends_with("after the 5 redirects that were followed"), "{why}");
    assert_eq!(get("/chain?5", "follow = 5\nbody = '^end'").outcome, Outcome::Ok);
    assert!(failure(&get("/chain?6", "follow = 5")).contains("status 301"));
    // To itself by its whole address.
    let server = hostile();
    let url = format!("http://{server}/redirect?http://{server}/ok");
    let seen = probe(&format!("type = \"http\"\nurl = \"{url}\"\nfollow = 1"));
    assert_eq!(seen.outcome, Outcome::Ok, "{seen:?}");
}

/// NET-06.
#[test]
fn net_06_a_redirect_leaves_neither_http_nor_tls() {
    for place in
        ["file:///etc/shadow", "ftp://127.0.0.1/x", "gopher://127.0.0.1:1/", "javascript:1"]
    {
        let why = failure(&get(&format!("/redirect?{place}"), "follow = 5"));
        assert!(why.contains("which is not followed: only http and https are"), "{why}");
        assert!(why.contains(&format!("status 302 Found to \"{place}\"")), "{why}");
    }
    let long = format!("/redirect?/{}", "x".repeat(9000));
    let why = failure(&get(&long, "follow = 1"));
    assert!(why.ends_with("which is too long to be asked for"), "{why}");
    let why = failure(&get("/redirect?http://[", "follow = 1"));
    assert!(why.ends_with("which is not a URL"), "{why}");
    // `//host` keeps the scheme; it is a stranger like any other.
    let other = hostile();
    let seen = get(&format!("/redirect?//{other}/echo"), "follow = 1\nbody = '^GET /echo '");
    assert_eq!(seen.outcome, Outcome::Ok, "{seen:?}");
}

/// NET-07.
#[test]
fn net_07_a_redirect_to_another_place_is_not_followed_where_that_is_said() {
    let (server, other) = (hostile(), hostile());
    let led = |to: &str| {
        let url = format!("http://{server}/redirect?{to}");
        probe(&format!("type = \"http\"\nurl = \"{url}\"\nfollow = 2\nfollow_to = \"same-host\""))
    };
    for home in ["/ok".to_owned(), format!("http://{server}/ok"), format!("//{server}/ok")] {
        assert_eq!(led(&home).outcome, Outcome::Ok, "{home}");
    }
    let port = other.port();
    for (to, what) in [
        (format!("http://127.0.0.1:{port}/ok"), "it is another port"),
        (format!("http://127.0.0.2:{port}/ok"), "it is another host"),
        ("http://169.254.169.254/latest".to_owned(), "it is another host"),
        (format!("https://127.0.0.1:{port}/ok"), "it is another port"),
    ] {
        let why = failure(&led(&to));
        let told =
            format!("status 302 Found to \"{to}\", which is not followed: {what} (`follow_to`)");
        assert_eq!(why, told);
    }
}

#[test]
fn what_is_for_one_server_is_told_to_no_other() {
    let secret = "headers = { Authorization = \"Basic eDp5\", X-Key = \"k3y\" }";
    let (server, other) = (hostile(), hostile());
    let check = |from: &str, to: &str, more: &str| {
        let lines = format!("url = \"http://{server}{from}?{to}\"\nfollow = 1\n{more}");
        probe(&format!("type = \"http\"\n{lines}\n{secret}"))
    };
    let kept = check("/redirect", "/echo", "body = '(?i)authorization: basic eDp5'");
    assert_eq!(kept.outcome, Outcome::Ok, "{kept:?}");
    let away = format!("http://{other}/echo");
    for pattern in ["(?i)authorization", "k3y", "Basic"] {
        let gone = check("/redirect", &away, &format!("not_body = '{pattern}'"));
        assert_eq!(gone.outcome, Outcome::Ok, "{gone:?}");
    }
    let why = failure(&check("/repeat", &away, "send = 'secret'"));
    assert!(why.ends_with("it would send the body to another server"), "{why}");
    let kept =
        check("/repeat", "/echo", "send = 'secret'\nbody = '(?s)^POST .*\\r\\n\\r\\nsecret$'");
    assert_eq!(kept.outcome, Outcome::Ok, "{kept:?}");
    let bare = check("/redirect", "/echo", "send = 'secret'\nbody = '^GET '\nnot_body = 'secret'");
    assert_eq!(bare.outcome, Outcome::Ok, "{bare:?}");
}

/// NET-08.
#[test]
fn net_08_what_is_no_http_is_told_within_bounds() {
    for (path, words) in [
        ("/badchunk", "the body broke off after 0 B"),
        ("/hugeheader", "sent more than 64 KiB or 100 lines of headers"),
        ("/manyheaders", "sent more than 64 KiB or 100 lines of headers"),
        ("/100s", "sent more than 512 KiB without an answer"),
        ("/badstatus", "is not HTTP/1: invalid HTTP status-code parsed"),
        ("/nostatus", "is not HTTP/1: "),
        ("/http09", "is not HTTP/1: "),
    ] {
        let (seen, took) = timed(|| get(path, ""));
        let why = failure(&seen);
        assert!(why.contains(words), "{path}: {why}");
        assert!(took < Duration::from_secs(5), "{path}: {took:?}");
    }
}

/// NET-09.
#[test]
fn net_09_a_body_that_is_not_as_long_as_it_says() {
    assert_eq!(size(&get("/shortclen", "body = '^hel$'")), Some(3));
    let why = failure(&get("/longclen", ""));
    assert!(why.contains("answered 200 OK, but the body broke off after 8 B"), "{why}");
    let why = failure(&get("/close", ""));
    assert!(why.ends_with("closed the connection before its answer was whole"), "{why}");
    // A close with bytes unread is a reset (RFC 2525, section 2.17).
    let reset = serve_with(|mut stream| {
        let _read = stream.read(&mut [0; 1]);
        let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab");
    });
    let why = failure(&probe(&format!("type = \"http\"\nurl = \"http://{reset}/\"")));
    assert!(why.contains("reset") || why.contains("broke off"), "{why}");
}

/// NET-10.
#[test]
fn net_10_a_match_across_chunks_is_found() {
    assert_eq!(get("/split", "body = 'NEEDLE'").outcome, Outcome::Ok);
    assert!(failure(&get("/split", "not_body = 'NEEDLE'")).contains("\"NEEDLE..\""));
}

/// NET-11.
#[test]
fn net_11_bytes_are_matched_as_bytes() {
    for (path, pattern) in [
        ("/latin1", r"caf(?-u:\xe9) OK"),
        ("/binary", r"(?-u:\x00\x01\x02)"),
        ("/binary", r"(?-u:\xfe\xff\x00)"),
        ("/nul", r"a\x00OK\x00b"),
    ] {
        assert_eq!(get(path, &format!("body = '{pattern}'")).outcome, Outcome::Ok, "{path}");
        assert!(failure(&get(path, "body = 'Z{9}'")).contains("it begins with"), "{path}");
    }
    // Nothing is unpacked: a bomb stays as small as it came.
    assert_eq!(size(&get("/gzip", "body = '^(?-u:\\x1f\\x8b)packed'")), Some(8));
}

/// NET-12.
#[test]
fn net_12_a_pattern_cannot_explode() {
    let (plain, without) = timed(|| get("/as", "max_body = '2MiB'"));
    assert_eq!(size(&plain), Some((1 << 20) + 1));
    let (seen, took) = timed(|| get("/as", "body = '(a+)+$'\nmax_body = '2MiB'"));
    assert!(failure(&seen).contains("does not match \"(a+)+$\""), "{seen:?}");
    println!("NET-12: {took:?} with the pattern, {without:?} without");
    // Exponential would be never; a debug build on a busy machine is not a release on an idle one.
    assert!(took < without + Duration::from_secs(2), "{took:?} {without:?}");
}

/// A proxy in the environment is for people's programs; through one, a check would judge the proxy.
#[test]
fn proxies_of_the_environment_are_ignored() {
    let dead = "http://127.0.0.1:9";
    let names =
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let env: Vec<_> = names.map(|name| (name, dead)).into();
    if alone("http::proxies_of_the_environment_are_ignored", &env) {
        assert_eq!(std::env::var("http_proxy").as_deref(), Ok(dead));
        assert_eq!(get("/ok", "").outcome, Outcome::Ok);
        assert_eq!(https(&["localhost"], Dates::Valid, "").outcome, Outcome::Ok);
    }
}

/// A check of a server whose certificate is issued by the `ca_file`.
fn https(names: &[&str], dates: Dates, lines: &str) -> Observation {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("Own Authority", Dates::Valid);
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, authority.pem()).expect("written");
    let port = serve_tls(&authority.issue(names, dates)).port();
    let url = format!("url = \"https://localhost:{port}/\"");
    probe(&format!("type = \"http\"\n{url}\nca_file = {ca:?}\nbody = '^ok$'\n{lines}"))
}

#[test]
fn https_trusts_whom_it_is_told_to() {
    let seen = https(&["localhost"], Dates::Valid, "");
    assert_eq!(seen.outcome, Outcome::Ok, "{seen:?}");
    assert!(seen.reading(&Metric::ExpiresIn).is_some());
    let seen = https(&["localhost"], Dates::Expired, "");
    assert!(failure(&seen).contains("has expired: localhost, issued by Own Authority"), "{seen:?}");
    let zero = Reading::Exact(Value::Duration(Duration::ZERO));
    assert_eq!(seen.reading(&Metric::ExpiresIn), Some(zero));
    let seen = https(&["other.example"], Dates::Valid, "");
    assert!(failure(&seen).contains("is not for localhost: it is for other.example"), "{seen:?}");
    assert_eq!(https(&["other.example"], Dates::Expired, "verify = 'none'").outcome, Outcome::Ok);
    let port = serve_tls(&self_signed(&["self.heeler.example"], Dates::Valid)).port();
    let seen = probe(&format!("type = \"http\"\nurl = \"https://localhost:{port}/\""));
    assert!(seen.outcome != Outcome::Ok, "{seen:?}");
}

#[test]
fn a_unix_socket_is_asked_like_a_port() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let path = dir.path().join("web.sock");
    let url = "type = \"http\"\nurl = \"http://shop.example/echo?x=1\"";
    let lines =
        format!("{url}\nunix = {path:?}\nbody = '(?i)^GET /echo.x=1 (?s:.*)host: shop.example\\r'");
    assert!(failure(&probe(&lines)).contains("there is no such socket"), "missing");
    let listener = UnixListener::bind(&path).expect("a socket");
    thread::spawn(move || {
        for mut stream in listener.incoming().take(2).flatten() {
            let asked = request(&mut stream).unwrap_or_default();
            let target = asked.split(' ').nth(1).unwrap_or_default().to_owned();
            let _sent = match target.contains("away") {
                true => answer("/redirect?http://127.0.0.1/", &asked, &mut stream),
                false => answer(&target, &asked, &mut stream),
            };
        }
    });
    let seen = probe(&lines);
    assert_eq!(seen.outcome, Outcome::Ok, "{seen:?}");
    let away = lines.replace("/echo", "/away").replace("body = ", "follow = 1\nbody = ");
    assert!(failure(&probe(&away)).ends_with("it leaves the Unix socket"));
    // Of the two it was to answer both are answered: its socket is closed, its path still there.
    crate::support::wait_for("the socket to be closed", Duration::from_secs(10), || {
        Some(failure(&probe(&lines))).filter(|why| why.contains("nobody listens on it"))
    });
}

#[test]
fn a_socket_that_may_not_be_opened_is_heelers_ignorance() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let path = dir.path().join("web.sock");
    let _listener = UnixListener::bind(&path).expect("a socket");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("chmod");
    let lines = format!("type = \"http\"\nurl = \"http://x/\"\nunix = {path:?}");
    let why = ignorance(&as_nobody(move || probe(&lines)));
    assert!(why.contains("the scout has no rights but those of everybody"), "{why}");
}

#[test]
fn what_is_not_there_is_refused_and_what_has_no_name_is_unknown() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("port").local_addr();
    let closed = closed.expect("an address");
    let seen = probe(&format!("type = \"http\"\nurl = \"http://{closed}/\""));
    assert!(failure(&seen).contains("refused"), "{seen:?}");
    let seen = probe("type = \"http\"\nurl = \"http://no-such-host.invalid/\"");
    assert!(ignorance(&seen).starts_with("failed to resolve no-such-host.invalid"), "{seen:?}");
}
