//! The scout that mails, spoken to as the keeper does.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use heeler::mail::{self, HostFacts};
use heeler::model::ids::ServiceName;
use heeler::model::incident::{Alert, AlertKind, Cause, Incident, StoryLine};
use heeler::model::job::Output;
use heeler::model::process::{Exit, Gid, Uid};
use heeler::model::time::Wall;
use heeler::sys::selfexe::SelfExe;
use heeler::sys::spawn;
use heeler::wire::post::{End, Fate, Letter, Login, Posted, Security, Server as At, Setup, ToPost};
use jiff::tz::TimeZone;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::server::{Fault, Manners, Papers, Server, Step};
use crate::support::{HEELER, Need, can_run, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);
/// A server's time for one answer in these tests.
const COMMAND_MS: u64 = 700;

struct Scout {
    scout: spawn::Scout,
}

impl Scout {
    fn start(servers: Vec<At>) -> Self {
        Self::start_as(servers, None)
    }

    fn start_as(servers: Vec<At>, user: Option<(Uid, Gid)>) -> Self {
        let exe = SelfExe::open_path(Path::new(HEELER)).expect("the program");
        let scout = spawn::spawn_scout(&exe, "mail", user).expect("a scout");
        let scout = Self { scout };
        scout.say(&ToPost::Setup(Setup {
            hello: "web1.example.com".to_owned(),
            connect_ms: COMMAND_MS,
            command_ms: COMMAND_MS,
            whole_ms: 10 * COMMAND_MS,
            servers,
        }));
        scout
    }

    fn say(&self, message: &ToPost) {
        for packet in message.packets() {
            self.send(&packet);
        }
    }

    fn send(&self, packet: &[u8]) {
        let fd = self.scout.socket.as_raw_fd();
        wait_for("room in the socket", PATIENCE, || send(fd, packet, MsgFlags::empty()).ok());
    }

    fn deliver(&self, to: &[&str], text: &str) -> Vec<Fate> {
        self.say(&ToPost::Letter(letter(1, to, text)));
        let posted = self.hear();
        assert_eq!((posted.id, posted.fates.len()), (1, to.len()));
        posted.fates
    }

    fn hear(&self) -> Posted {
        let fd = self.scout.socket.as_raw_fd();
        let mut buffer = vec![0; 1 << 17];
        wait_for("an answer", PATIENCE, || {
            let length = recv(fd, &mut buffer, MsgFlags::empty()).ok()?;
            assert!(length > 0, "the scout ended");
            Some(Posted::decode(&buffer[..length]).expect("an answer").remove(0))
        })
    }

    fn end(self) -> Exit {
        let spawn::Scout { pidfd, socket, .. } = self.scout;
        drop(socket);
        wait_for("its end", PATIENCE, || spawn::reap(&pidfd).expect("reaps"))
    }

    /// The most memory it ever had.
    fn peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.scout.pid);
        let status = std::fs::read_to_string(path).expect("it lives");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
        line.split_ascii_whitespace().nth(1).expect("a number").parse().expect("a number")
    }
}

fn letter(id: u64, to: &[&str], text: &str) -> Letter {
    let to = to.iter().map(ToString::to_string).collect();
    Letter { id, only: None, from: "heeler@web1.example.com".to_owned(), to, text: text.to_owned() }
}

fn at(server: &Server, security: Security, papers: &Papers) -> At {
    At {
        host: "localhost".to_owned(),
        port: server.port,
        security,
        login: None,
        trusted: Some(papers.authority.clone()),
        broken: None,
    }
}

fn login(server: At) -> At {
    let login = Login { user: "alert".to_owned(), password: "geh eim\u{e9}".to_owned() };
    At { login: Some(login), ..server }
}

const TEXT: &str = "Subject: x\r\n\r\nhello\r\n";
const OPS: &[&str] = &["ops@example.com"];

#[test]
fn by_starttls_and_by_tls_with_each_login_it_arrives() {
    let papers = Papers::new();
    for (implicit, security) in [(false, Security::StartTls), (true, Security::Tls)] {
        for auth in ["PLAIN LOGIN", "LOGIN", "CRAM-MD5 PLAIN"] {
            let server = Server::start(&papers, implicit, Manners { auth, ..Manners::default() });
            let scout = Scout::start(vec![login(at(&server, security, &papers))]);
            let fates = scout.deliver(OPS, TEXT);
            assert_eq!(fates[0].end, End::Delivered, "{:?}", fates[0]);
            assert!(fates[0].text.raw().contains("250 queued as 4711"), "{:?}", fates[0]);
            let [mail] = &server.mails()[..] else { panic!("one mail") };
            assert!(mail.encrypted && mail.to == OPS && mail.from == "heeler@web1.example.com");
            assert_eq!(mail.login, Some(("alert".to_owned(), "geh eim\u{e9}".to_owned())));
            assert!(mail.text().starts_with(TEXT));
            let clear: Vec<_> =
                server.heard().into_iter().filter(|said| said.starts_with('!')).collect();
            let expected: &[&str] =
                if implicit { &[] } else { &["!EHLO web1.example.com", "!STARTTLS"] };
            assert_eq!(clear, expected, "nothing else was said in clear");
            assert_eq!(scout.end(), Exit::Code(0));
        }
    }
}

#[test]
fn without_rights_it_delivers_as_well() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let papers = Papers::new();
    let server = Server::start(&papers, false, Manners::default());
    let servers = vec![at(&server, Security::StartTls, &papers)];
    let scout = Scout::start_as(servers, Some((Uid(65_534), Gid(65_534))));
    assert_eq!(scout.deliver(OPS, TEXT)[0].end, End::Delivered);
    let path = format!("/proc/{}/status", scout.scout.pid);
    let status = std::fs::read_to_string(path).expect("it lives");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
}

/// ALR-05: whatever a server does, and wherever, its letter goes by the next one; alone, it is told apart
/// what is the server's trouble and what it said of the letter.
#[test]
fn alr_05_a_server_that_misbehaves_anywhere() {
    use Step::{Auth, Banner, Data, Ehlo, End as AtEnd, Handshake, Mail, Rcpt, StartTls};
    let papers = Papers::new();
    let good = Server::start(&papers, false, Manners { auth: "PLAIN", ..Manners::default() });
    let mut cases = Vec::new();
    for step in [Banner, Ehlo, StartTls, Handshake, Auth, Mail, Rcpt, Data, AtEnd] {
        cases.push((step, Fault::Hang, End::Unreachable));
        cases.push((step, Fault::Drop, End::Unreachable));
        cases.push((step, Fault::Endless("250-x\r\n"), End::Unreachable));
        cases.push((step, Fault::Endless("nonsense"), End::Unreachable));
        if step != Handshake {
            let about_it = matches!(step, Rcpt | AtEnd);
            let later = if about_it { End::Later } else { End::Unreachable };
            let never = if about_it { End::Refused } else { End::Unreachable };
            cases.push((step, Fault::Say("451 4.7.1 not \u{e9} now"), later));
            cases.push((step, Fault::Say("550 5.1.1 never"), never));
        }
    }
    let tries: Vec<_> = cases
        .into_iter()
        .map(|(step, fault, end)| {
            let fault = Some((step, fault.clone()));
            let manners = Manners { fault: fault.clone(), auth: "PLAIN", ..Manners::default() };
            let bad = Server::start(&papers, false, manners);
            let bad_one = login(at(&bad, Security::StartTls, &papers));
            let good_one = login(at(&good, Security::StartTls, &papers));
            let name = format!("{fault:?}");
            let try_it = move || {
                let began = Instant::now();
                let scout = Scout::start(vec![bad_one.clone()]);
                let alone = scout.deliver(OPS, TEXT);
                assert_eq!(alone[0].end, end, "{fault:?}: {:?}", alone[0]);
                assert!(!alone[0].text.is_empty(), "{fault:?}");
                assert!(scout.peak_kib() < 40 << 10, "{fault:?}: {} KiB", scout.peak_kib());
                let both = Scout::start(vec![bad_one, good_one]);
                let both = both.deliver(OPS, TEXT);
                let expected = if end == End::Refused { End::Refused } else { End::Delivered };
                assert_eq!(both[0].end, expected, "{fault:?}: {:?}", both[0]);
                let took = began.elapsed();
                // What hangs is waited for twice, and never as long as a whole mail may take.
                assert!(took < Duration::from_secs(45), "{fault:?} took {took:?}");
                assert!(bad.mails().is_empty());
                expected == End::Delivered
            };
            std::thread::Builder::new().name(name).spawn(try_it).expect("a thread")
        })
        .collect();
    let delivered = tries.into_iter().map(|one| one.join().expect("passes"));
    let delivered = delivered.filter(|delivered| *delivered).count();
    assert_eq!(good.mails().len(), delivered, "each once");
}

#[test]
fn alr_05_a_server_that_refuses_connections_or_has_no_name() {
    let papers = Papers::new();
    let mut gone = Server::start(&papers, false, Manners::default());
    let mut refusing = at(&gone, Security::StartTls, &papers);
    gone.down();
    let good = Server::start(&papers, false, Manners::default());
    let nameless = At { host: "nowhere.invalid".to_owned(), ..refusing.clone() };
    let broken = At { broken: Some("the password_file /x is open".to_owned()), ..refusing.clone() };
    refusing.host = "127.0.0.1".to_owned();
    let scout = Scout::start(vec![nameless, refusing.clone(), broken.clone()]);
    let fate = scout.deliver(OPS, TEXT).remove(0);
    assert_eq!(fate.end, End::Unreachable);
    for part in ["nowhere.invalid:", "refused", "password_file /x is open"] {
        assert!(fate.text.raw().contains(part), "{part}: {fate:?}");
    }
    let scout = Scout::start(vec![refusing, broken, at(&good, Security::StartTls, &papers)]);
    assert_eq!(scout.deliver(OPS, TEXT)[0].end, End::Delivered);
}

/// ALR-07: nothing is sent that somebody on the way could read or change.
#[test]
fn alr_07_no_downgrade_no_false_certificate_no_password_in_clear() {
    let papers = Papers::new();
    let stranger = Papers::new();
    let wrong_name = Papers::for_names(&["other.example.com"]);
    let auth = Manners { auth: "PLAIN", ..Manners::default() };
    let stripped = Manners { no_starttls: true, ..auth.clone() };
    let injected = Some((Step::StartTls, Fault::Say("220 go\r\n250 AUTH PLAIN")));
    let plain = Server::start(&papers, false, stripped);
    let false_one = Server::start(&stranger, false, auth.clone());
    let misnamed = Server::start(&wrong_name, true, auth.clone());
    let injecting = Server::start(&papers, false, Manners { fault: injected, ..auth.clone() });
    let local = Server::start(&papers, false, auth);
    let cases = [
        (&plain, login(at(&plain, Security::StartTls, &papers)), "STARTTLS"),
        (&false_one, login(at(&false_one, Security::StartTls, &papers)), "UnknownIssuer"),
        (&misnamed, login(at(&misnamed, Security::Tls, &wrong_name)), "not valid for name"),
        (&injecting, login(at(&injecting, Security::StartTls, &papers)), "TLS"),
        (&local, login(at(&local, Security::None, &papers)), "in clear"),
    ];
    for (server, way, why) in cases {
        let fate = Scout::start(vec![way]).deliver(OPS, TEXT).remove(0);
        assert_eq!(fate.end, End::Unreachable, "{fate:?}");
        assert!(fate.text.raw().contains(why), "{why}: {fate:?}");
        let heard = server.heard();
        let secret = |said: &String| said.contains("AUTH") || said.contains("MAIL");
        assert!(!heard.iter().any(secret), "{why}: {heard:?}");
        assert!(server.mails().is_empty());
    }
    // Where nobody logs in, a server on this machine may be spoken to in clear.
    let scout = Scout::start(vec![at(&local, Security::None, &papers)]);
    assert_eq!(scout.deliver(OPS, TEXT)[0].end, End::Delivered);
}

#[test]
fn what_is_said_of_one_recipient_concerns_no_other() {
    let papers = Papers::new();
    let manners = |text, only_for| Manners {
        fault: Some((Step::Rcpt, Fault::Say(text))),
        only_for: Some(only_for),
        ..Manners::default()
    };
    let first = Server::start(&papers, false, manners("550 5.1.1 no such user", "gone@"));
    let scout = Scout::start(vec![at(&first, Security::StartTls, &papers)]);
    let to = ["gone@example.com", "ops@example.com", "not an address"];
    let ends = |fates: Vec<Fate>| fates.into_iter().map(|fate| fate.end).collect::<Vec<_>>();
    assert_eq!(ends(scout.deliver(&to[..2], TEXT)), [End::Refused, End::Delivered]);
    assert_eq!(first.mails()[0].to, ["ops@example.com"]);
    first.behave(manners("451 4.7.1 greylisted", "slow@"));
    let second = Server::start(&papers, false, manners("451 4.7.1 greylisted", "slow@"));
    let ways = [&first, &second].map(|server| at(server, Security::StartTls, &papers));
    let scout = Scout::start(ways.into());
    let fates = scout.deliver(&["slow@example.com", "ops@example.com"], TEXT);
    assert_eq!(ends(fates), [End::Later, End::Delivered]);
    assert_eq!((first.mails().len(), second.mails().len()), (2, 0), "ops got it once");
}

/// ALR-01, ALR-02, ALR-04, as the server gets it: one message, its headers its own, dots stuffed.
#[test]
fn alr_01_02_04_one_message_whatever_is_in_it() {
    let papers = Papers::new();
    let server = Server::start(&papers, false, Manners::default());
    let scout = Scout::start(vec![at(&server, Security::StartTls, &papers)]);
    let hostile = [
        "x\r\nBcc: x@evil\r\n\r\nnew body".to_owned(),
        "\n.\n\nFrom x\n.\r\n.\r\nMAIL FROM:<evil>".to_owned(),
        "\u{1f415}\u{202e}\0\u{1b}[2J \u{e9}".repeat(50),
        "\u{1f415}".repeat(5000),
    ];
    for (count, text) in (1..).zip(&hostile) {
        let incident = Incident {
            service: ServiceName::parse("shop").expect("a name"),
            number: 3,
            cause: Cause::Down,
            title: text.clone(),
            opened: Wall(1_777_857_302_113),
            closed: None,
            story: vec![StoryLine { at: Wall(1), text: text.clone() }],
            dropped_lines: 0,
            output: Output { head: text.as_str().into(), ..Output::default() },
            told: 0,
            told_at: Wall(0),
        };
        let next = text.clone();
        let alert =
            Alert { incident, sequence: 0, kind: AlertKind::Fired, to: vec!["ops@x".into()], next };
        let host = HostFacts {
            hostname: text.as_str().into(),
            from: None,
            user: "root".into(),
            zone: TimeZone::UTC,
        };
        let sent = String::from_utf8(mail::render(&alert, &host)).expect("ASCII");
        assert_eq!(scout.deliver(OPS, &sent)[0].end, End::Delivered);
        let mails = server.mails();
        assert_eq!(mails.len(), count, "{text:?}");
        let got = &mails[count - 1];
        assert_eq!(got.text().trim_end(), sent.trim_end());
        assert!(got.raw.split("\r\n").all(|line| line.len() <= 999));
        assert_eq!(got.header("Bcc"), None);
        assert!(got.header("Subject").is_some_and(|subject| subject.is_ascii()));
        assert!(got.header("Message-ID").is_some_and(|id| id.starts_with("<heeler.shop.")));
    }
    let dots = "Subject: x\r\n\r\n.\r\n..\r\n.x\r\n";
    assert_eq!(scout.deliver(OPS, dots)[0].end, End::Delivered);
    let last = server.mails().pop().expect("a mail");
    assert!(last.raw.contains("\r\n..\r\n...\r\n..x\r\n"), "{:?}", last.raw);
    assert!(last.text().starts_with(dots));
}

#[test]
fn a_long_letter_comes_whole_and_what_is_no_message_ends_it() {
    let papers = Papers::new();
    let server = Server::start(&papers, false, Manners::default());
    let scout = Scout::start(vec![at(&server, Security::StartTls, &papers)]);
    let long = format!("Subject: x\r\n\r\n{}", format!("{}\r\n", "x".repeat(76)).repeat(6000));
    assert_eq!(scout.deliver(OPS, &long)[0].end, End::Delivered);
    assert!(server.mails()[0].text().starts_with(&long));
    scout.send(b"nonsense");
    let pidfd = &scout.scout.pidfd;
    let end = wait_for("its end", PATIENCE, || spawn::reap(pidfd).expect("reaps"));
    assert_eq!(end, Exit::Code(2));
}

/// Somebody waits for the answer to a test: it overtakes a letter whose server hangs.
#[test]
fn a_test_waits_for_no_letter() {
    let papers = Papers::new();
    let hang = Some((Step::Banner, Fault::Hang));
    let bad = Server::start(&papers, false, Manners { fault: hang, ..Manners::default() });
    let good = Server::start(&papers, false, Manners::default());
    let ways = [&bad, &good].map(|server| at(server, Security::StartTls, &papers));
    let scout = Scout::start(ways.into());
    scout.say(&ToPost::Letter(letter(1, OPS, TEXT)));
    scout.say(&ToPost::Letter(Letter { only: Some(1), ..letter(2, OPS, TEXT) }));
    assert_eq!([scout.hear().id, scout.hear().id], [2, 1]);
    assert_eq!(good.mails().len(), 2);
}
