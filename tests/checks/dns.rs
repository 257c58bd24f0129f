//! `type = "dns"` against a name server that lies, stalls and cuts short on order. Every message is made
//! by hand: what the parser of heeler's library would make proves nothing about it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use heeler::checks::given::Setting;
use heeler::model::check::CheckKind;
use heeler::model::limits;
use heeler::model::metric::{Metric, Reading, Value};
use heeler::model::observation::{Observation, Outcome};

use crate::port::{defined, failed, probed, text};
use crate::servers::{longest_stand, network};

const SECOND: Duration = Duration::from_secs(1);
const A: u16 = 1;
const CNAME: u16 = 5;
const MX: u16 = 15;
const TXT: u16 = 16;
const SRV: u16 = 33;
/// Answer, recursion desired and available.
const OK: u16 = 0x8180;
const TRUNCATED: u16 = 0x0200;
/// The asked name, by a pointer to the question (RFC 1035, section 4.1.4).
const ASKED: [u8; 2] = [0xc0, 12];

/// What a server does with a question: the messages it sends.
type Answers = fn(&[u8]) -> Vec<Vec<u8>>;

/// A server by UDP and TCP on one port.
fn server(udp: Answers, tcp: Answers) -> SocketAddr {
    let (socket, listener) = std::iter::repeat_with(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let listener = TcpListener::bind(socket.local_addr().expect("has one"));
        listener.ok().map(|listener| (socket, listener))
    })
    .take(50)
    .flatten()
    .next()
    .expect("a port free for both");
    let address = socket.local_addr().expect("has one");
    thread::spawn(move || {
        let mut asked = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut asked) {
            for message in udp(&asked[..length]) {
                let _gone = socket.send_to(&message, from);
            }
        }
    });
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut length = [0; 2];
            let Ok(()) = stream.read_exact(&mut length) else { continue };
            let mut asked = vec![0; usize::from(u16::from_be_bytes(length))];
            let Ok(()) = stream.read_exact(&mut asked) else { continue };
            for message in tcp(&asked) {
                let length = u16::try_from(message.len()).expect("short enough");
                let _gone = stream.write_all(&[&length.to_be_bytes()[..], &message].concat());
            }
        }
    });
    address
}

fn silent(_asked: &[u8]) -> Vec<Vec<u8>> {
    Vec::new()
}

/// Head, question as it was asked, records.
fn message(asked: &[u8], flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let mut out = asked[..2].to_vec();
    let count = u16::try_from(records.len()).expect("few enough");
    for number in [flags, 1, count, 0, 0] {
        out.extend(number.to_be_bytes());
    }
    out.extend(&asked[12..]);
    out.extend(records.concat());
    out
}

fn record(name: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("short enough");
    let fixed = [&kind.to_be_bytes()[..], &[0, 1, 0, 0, 0, 60], &length.to_be_bytes()].concat();
    [name, &fixed, data].concat()
}

/// `www.example` as labels.
fn labels(name: &str) -> Vec<u8> {
    let labels = name.split('.').map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    [labels.collect::<Vec<_>>().concat(), vec![0]].concat()
}

fn ask(server: SocketAddr, keys: &[(&'static str, Setting)], limit: Duration) -> Observation {
    let mut all = vec![("query", text("www.example")), ("server", text(&server.to_string()))];
    all.extend_from_slice(keys);
    probed(&defined(CheckKind::Dns, &all), limit)
}

fn answers(seen: &Observation) -> Option<Reading> {
    seen.reading(&Metric::Answers)
}

fn counted(number: u64) -> Option<Reading> {
    Some(Reading::Exact(Value::Count(number)))
}

fn two(asked: &[u8]) -> Vec<Vec<u8>> {
    vec![message(
        asked,
        OK,
        &[record(&ASKED, A, &[192, 0, 2, 2]), record(&labels("WWW.Example"), A, &[192, 0, 2, 1])],
    )]
}

#[test]
fn an_answer_is_counted_matched_and_known_again() {
    let at = server(two, two);
    let seen = ask(at, &[], SECOND);
    assert_eq!((&seen.outcome, answers(&seen)), (&Outcome::Ok, counted(2)));
    assert_eq!(seen.detail.to_string(), "192.0.2.1, 192.0.2.2");
    assert!(seen.reading(&Metric::ResponseTime).is_some());

    let seen = ask(at, &[("expect", text("\\.2$")), ("protocol", text("tcp"))], SECOND);
    assert_eq!(seen.outcome, Outcome::Ok);
    let wrong = ask(at, &[("expect", text("^10\\."))], SECOND);
    let told = "no A record of www.example matches `expect`: 192.0.2.1, 192.0.2.2";
    assert_eq!((failed(&wrong).as_str(), answers(&wrong)), (told, counted(2)));

    // The order is the server's whim; the records are what `changed` is about.
    let turned = |asked: &[u8]| {
        let records = [record(&ASKED, A, &[192, 0, 2, 1]), record(&ASKED, A, &[192, 0, 2, 2])];
        vec![message(asked, OK, &records)]
    };
    let other = |asked: &[u8]| vec![message(asked, OK, &[record(&ASKED, A, &[192, 0, 2, 1])])];
    assert_eq!(ask(server(turned, silent), &[], SECOND).fingerprint, seen.fingerprint);
    assert_ne!(ask(server(other, silent), &[], SECOND).fingerprint, seen.fingerprint);
}

#[test]
fn records_have_the_text_of_zone_files() {
    fn each(asked: &[u8]) -> Vec<Vec<u8>> {
        let kind = u16::from_be_bytes([asked[asked.len() - 4], asked[asked.len() - 3]]);
        let data = match kind {
            MX => [&[0, 10][..], &labels("mail.example")].concat(),
            TXT => b"\x06v=spf1\x05 -all\x02\xff=".to_vec(),
            SRV => [&[0, 1, 0, 2, 0x14, 0x66][..], &labels("sip.example")].concat(),
            CNAME => labels("web.example"),
            12 => labels("host.example"),
            28 => [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7]].concat(),
            6 => {
                let numbers = [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5];
                [labels("ns.example"), labels("root.example"), numbers.to_vec()].concat()
            }
            _ => labels("ns.example"),
        };
        vec![message(asked, OK, &[record(&ASKED, kind, &data)])]
    }
    let at = server(each, silent);
    for (kind, shown) in [
        ("AAAA", "2001:db8::7"),
        ("CNAME", "web.example"),
        ("MX", "10 mail.example"),
        ("TXT", "v=spf1 -all\u{fffd}="),
        ("NS", "ns.example"),
        ("SRV", "1 2 5222 sip.example"),
        ("PTR", "host.example"),
        ("SOA", "ns.example root.example 1 2 3 4 5"),
    ] {
        let seen = ask(at, &[("record", text(kind))], SECOND);
        assert_eq!((seen.outcome, seen.detail.to_string()), (Outcome::Ok, shown.to_owned()));
    }
    let keys = [("query", text("192.0.2.7")), ("record", text("PTR"))];
    assert_eq!(ask(at, &keys, SECOND).outcome, Outcome::Ok);
}

/// NET-13: SERVFAIL and the other ways to say no.
#[test]
fn net_13_a_server_that_says_no_is_told_in_words() {
    fn code<const CODE: u16>(asked: &[u8]) -> Vec<Vec<u8>> {
        vec![message(asked, OK | CODE, &[])]
    }
    // A refusal without the question (RFC 1035 does not ask for it).
    fn bare(asked: &[u8]) -> Vec<Vec<u8>> {
        vec![[&asked[..2], &[0x81, 0x85], &[0; 8]].concat()]
    }
    let cases: [(Answers, &str); 6] = [
        (code::<0>, "www.example has no A record"),
        (code::<2>, "SERVFAIL: it failed to find out"),
        (code::<3>, "NXDOMAIN: there is no name www.example"),
        (code::<5>, "REFUSED: it does not want to answer this machine"),
        (bare, "REFUSED: it does not want to answer this machine"),
        (code::<11>, "with an error that is none for a question"),
    ];
    for (server_is, told) in cases {
        let seen = ask(server(server_is, silent), &[], SECOND);
        assert!(failed(&seen).ends_with(told), "{seen:?}");
        assert_eq!(answers(&seen), None);
    }
}

/// NET-13: aliases in a circle, too many of them, and records that nobody asked for.
#[test]
fn net_13_only_what_the_name_leads_to_counts() {
    fn circle(asked: &[u8]) -> Vec<Vec<u8>> {
        let records = [
            record(&ASKED, CNAME, &labels("b.example")),
            record(&labels("b.example"), CNAME, &labels("www.example")),
        ];
        vec![message(asked, OK, &records)]
    }
    fn itself(asked: &[u8]) -> Vec<Vec<u8>> {
        vec![message(asked, OK, &[record(&ASKED, CNAME, &ASKED)])]
    }
    fn chain(asked: &[u8]) -> Vec<Vec<u8>> {
        let next = |number: u32| labels(&format!("n{number}.example"));
        let mut records = vec![record(&ASKED, CNAME, &next(0))];
        records.extend((0..40).map(|number| record(&next(number), CNAME, &next(number + 1))));
        vec![message(asked, OK, &records)]
    }
    fn alias(asked: &[u8]) -> Vec<Vec<u8>> {
        let records = [
            record(&labels("b.example"), A, &[192, 0, 2, 1]),
            record(&ASKED, CNAME, &labels("b.example")),
            record(&labels("stranger.example"), A, &[203, 0, 113, 1]),
        ];
        vec![message(asked, OK, &records)]
    }
    fn dangling(asked: &[u8]) -> Vec<Vec<u8>> {
        vec![message(asked, OK, &[record(&ASKED, CNAME, &labels("b.example"))])]
    }
    fn stranger(asked: &[u8]) -> Vec<Vec<u8>> {
        vec![message(asked, OK, &[record(&labels("b.example"), A, &[192, 0, 2, 1])])]
    }
    let cases: [(Answers, &str); 5] = [
        (circle, "the aliases of www.example go in a circle"),
        (itself, "the aliases of www.example go in a circle"),
        (chain, "www.example has more than 16 aliases"),
        (dangling, "www.example is an alias of b.example, for which no A record came"),
        (stranger, "www.example has no A record"),
    ];
    for (server_is, told) in cases {
        assert_eq!(failed(&ask(server(server_is, silent), &[], SECOND)), told);
    }
    let seen = ask(server(alias, silent), &[], SECOND);
    assert_eq!((&seen.outcome, seen.detail.to_string()), (&Outcome::Ok, "192.0.2.1".to_owned()));
    assert_eq!(answers(&seen), counted(1));
}

#[test]
fn only_an_answer_to_this_question_is_believed() {
    fn true_one(asked: &[u8]) -> Vec<u8> {
        message(asked, OK, &[record(&ASKED, A, &[192, 0, 2, 1])])
    }
    fn lies(asked: &[u8]) -> Vec<Vec<u8>> {
        let lie = message(asked, OK, &[record(&ASKED, A, &[6, 6, 6, 6])]);
        let with = |at: usize, byte: u8| {
            let mut lie = lie.clone();
            lie[at] ^= byte;
            lie
        };
        let end = asked.len();
        // Another id, a question instead of an answer, another name, another type, another class; rubbish.
        vec![
            with(0, 1),
            with(1, 1),
            with(2, 0x80),
            with(14, 1),
            with(end - 3, 3),
            with(end - 1, 2),
            vec![],
            vec![7],
        ]
    }
    fn lies_first(asked: &[u8]) -> Vec<Vec<u8>> {
        [lies(asked), vec![true_one(asked)]].concat()
    }
    let seen = ask(server(lies_first, silent), &[], SECOND);
    assert_eq!((seen.outcome, seen.detail.to_string()), (Outcome::Ok, "192.0.2.1".to_owned()));

    let at = server(lies, silent);
    let why = failed(&ask(at, &[], Duration::from_millis(300)));
    assert_eq!(why, format!("no answer from the name server {at} within 300ms"));
    let why = failed(&ask(server(silent, lies), &[("protocol", text("tcp"))], SECOND));
    assert!(why.ends_with("is not about what it was asked"), "{why}");

    // A stranger on another port of the same machine, who saw the question.
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = socket.local_addr().expect("has one");
    thread::spawn(move || {
        let mut asked = [0; 512];
        let (length, from) = socket.recv_from(&mut asked).expect("a question");
        let asked = &asked[..length];
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let lie = message(asked, OK, &[record(&ASKED, A, &[6, 6, 6, 6])]);
        stranger.send_to(&lie, from).expect("sent, whoever takes it");
        socket.send_to(&true_one(asked), from).expect("it waits");
    });
    assert_eq!(ask(at, &[], SECOND).detail.to_string(), "192.0.2.1");
}

/// NET-13: an answer of 1000 records, which only TCP can carry.
#[test]
fn net_13_a_thousand_records_come_by_tcp_when_udp_was_cut_short() {
    fn cut(asked: &[u8]) -> Vec<Vec<u8>> {
        let mut cut = message(asked, OK | TRUNCATED, &[record(&ASKED, A, &[192, 0, 2, 1])]);
        // In the middle of a record, as some servers do.
        cut.truncate(cut.len() - 2);
        vec![cut]
    }
    fn thousand(asked: &[u8]) -> Vec<Vec<u8>> {
        let records: Vec<_> =
            (0..1000_u16).map(|n| record(&ASKED, A, &[10, 0, (n >> 8) as u8, n as u8])).collect();
        vec![message(asked, OK, &records)]
    }
    let began = Instant::now();
    let seen = ask(server(cut, thousand), &[], 2 * SECOND);
    assert_eq!((&seen.outcome, answers(&seen)), (&Outcome::Ok, counted(1000)));
    assert!(seen.detail.to_string().ends_with("10.0.0.100 and 996 more"), "{}", seen.detail);
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    let why = failed(&ask(server(cut, silent), &[], SECOND));
    assert!(why.ends_with("closed the connection before its answer was whole"), "{why}");
}

#[test]
fn no_answer_and_no_server_are_failures() {
    let at = server(silent, silent);
    let began = Instant::now();
    let why = failed(&ask(at, &[], Duration::from_millis(300)));
    assert_eq!(why, format!("no answer from the name server {at} within 300ms"));
    assert!(began.elapsed() < SECOND);
    let closed = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("has one");
    assert!(failed(&ask(closed, &[], SECOND)).contains("it was refused"));
    let why = failed(&ask(closed, &[("protocol", text("tcp"))], SECOND));
    assert!(why.contains("by TCP: it was refused"), "{why}");
}

#[test]
fn a_question_that_was_lost_is_asked_again() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = socket.local_addr().expect("has one");
    thread::spawn(move || {
        let mut asked = [0; 512];
        socket.recv_from(&mut asked).expect("the first, which is lost");
        let (length, from) = socket.recv_from(&mut asked).expect("the second");
        for answer in two(&asked[..length]) {
            socket.send_to(&answer, from).expect("it waits");
        }
    });
    assert_eq!(ask(at, &[], 5 * SECOND).outcome, Outcome::Ok);
}

#[test]
fn malformed_answers_are_failures_in_bounded_time() {
    fn pointer_to_itself(asked: &[u8]) -> Vec<Vec<u8>> {
        let own = u16::try_from(asked.len()).expect("short") | 0xc000;
        vec![message(asked, OK, &[record(&own.to_be_bytes(), A, &[192, 0, 2, 1])])]
    }
    fn promises(asked: &[u8]) -> Vec<Vec<u8>> {
        let mut out = message(asked, OK, &[]);
        out[6..12].fill(0xff);
        vec![out]
    }
    fn short_data(asked: &[u8]) -> Vec<Vec<u8>> {
        vec![message(asked, OK, &[record(&ASKED, A, &[192, 0, 2])])]
    }
    for server_is in [pointer_to_itself, promises, short_data] as [Answers; 3] {
        for protocol in ["udp", "tcp"] {
            let began = Instant::now();
            let seen = ask(server(server_is, server_is), &[("protocol", text(protocol))], SECOND);
            assert!(failed(&seen).contains("is malformed: "), "{seen:?}");
            assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
        }
    }
}

/// Every bit of a good answer flipped, and every length of it: never a crash, and never an answer that
/// was not given.
#[test]
fn no_damage_to_an_answer_crashes_or_hangs() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = socket.local_addr().expect("has one");
    let length = message(&[0; 29], OK, &[record(&ASKED, CNAME, &labels("b.example"))]).len();
    let cases = length * 8 + length;
    let damage = move |good: &mut Vec<u8>, case: usize| match case.checked_sub(length * 8) {
        Some(short) => good.truncate(short),
        None => good[case / 8] ^= 1 << (case % 8),
    };
    thread::spawn(move || {
        let mut asked = [0; 512];
        for case in 0..cases {
            let (length, from) = socket.recv_from(&mut asked).expect("a question");
            let records = [record(&ASKED, CNAME, &labels("b.example"))];
            let mut answer = message(&asked[..length], OK, &records);
            damage(&mut answer, case);
            let _gone = socket.send_to(&answer, from);
        }
    });
    let check = [("record", text("CNAME"))];
    for case in 0..cases {
        // A damaged head or question is ignored, so nothing comes within the time.
        let seen = ask(at, &check, Duration::from_millis(20));
        assert!(!matches!(seen.outcome, Outcome::Unknown(_)), "{case}: {seen:?}");
    }
}

/// The dearest message there is: each of its names is a pointer to a pointer to a pointer.
fn dear(asked: &[u8], name: &str) -> Vec<u8> {
    const RECORDS: usize = 3400;
    let mut out = asked[..2].to_vec();
    let count = u16::try_from(RECORDS + 1).expect("few enough");
    for number in [OK, 1, count, 0, 0] {
        out.extend(number.to_be_bytes());
    }
    out.extend(labels(name));
    out.extend([0, A as u8, 0, 1]);
    // A record of no type, for its data.
    let begins = out.len() + 12;
    let mut data = [&b"\x01a".repeat(120)[..], &[0]].concat();
    let mut last = begins;
    while begins + data.len() < 16_380 {
        let here = begins + data.len();
        data.extend((0xc000 | u16::try_from(last).expect("14 bits")).to_be_bytes());
        last = here;
    }
    out.extend(record(&ASKED, 99, &data));
    let name = (0xc000 | u16::try_from(last).expect("14 bits")).to_be_bytes();
    out.extend(record(&name, CNAME, &name).repeat(RECORDS));
    out
}

/// One that answers so is a load on its own check only, whether it answers the question or floods with others.
#[test]
fn the_dearest_answers_do_not_hold_up_the_loop() {
    fn once(asked: &[u8]) -> Vec<Vec<u8>> {
        vec![dear(asked, "www.example")]
    }
    fn flood(asked: &[u8]) -> Vec<Vec<u8>> {
        let mut all = vec![dear(asked, "www.exampl3"); 40];
        all.extend(two(asked));
        all
    }
    for (name, server, protocol) in [
        ("once by UDP", server(once, silent), "udp"),
        ("once by TCP", server(silent, once), "tcp"),
        ("a flood of others", server(flood, silent), "udp"),
    ] {
        let lines = format!(
            "type = \"dns\"\nquery = \"www.example\"\nserver = \"{server}\"\nprotocol = \"{protocol}\""
        );
        let began = Instant::now();
        let (seen, gap) = longest_stand(&network(&lines));
        println!("{name}: the loop stood for {gap:?}, it took {:?}", began.elapsed());
        assert!(gap < limits::LATE * 4, "{name}: the loop stood for {gap:?}");
        assert_eq!(seen.outcome == Outcome::Ok, name == "a flood of others", "{seen:?}");
    }
}
