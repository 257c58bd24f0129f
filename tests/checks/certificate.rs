//! `type = "certificate"`, and what HTTPS and ports share with it: who is trusted, and what is said of
//! who is not.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use heeler::model::metric::{Metric, Reading, Value};
use heeler::model::observation::{Observation, Outcome};
use rustls::{ServerConnection, StreamOwned};

use crate::servers::{
    Authority, Dates, Shown, as_nobody, failure, ignorance, probe, self_signed,
    self_signed_authority, serve_tls, serve_with,
};

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// A directory with an authority's certificate in it.
struct Desk {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Desk {
    fn new() -> Self {
        let desk = Self {
            dir: tempfile::tempdir().expect("a directory"),
            authority: Authority::new("Own Authority", Dates::Valid),
        };
        fs::set_permissions(desk.dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        desk.write("ca.pem", &desk.authority.pem());
        desk
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A check of a server that shows this, by the authority of this desk.
    fn check(&self, shown: &Shown) -> Observation {
        let port = serve_tls(shown).port();
        probe(&format!(
            "type = \"certificate\"\nhost = \"localhost\"\nport = {port}\nca_file = {:?}",
            self.ca()
        ))
    }
}

fn expires_in(seen: &Observation) -> Option<u64> {
    let reading = seen.reading(&Metric::ExpiresIn)?;
    let Reading::Exact(Value::Duration(span)) = reading else { panic!("{reading:?}") };
    Some(span.as_secs())
}

#[test]
fn one_that_is_right_is_described() {
    let desk = Desk::new();
    let shown = desk.authority.issue(&NAMES, Dates::Valid);
    let seen = desk.check(&shown);
    assert_eq!(seen.outcome, Outcome::Ok);
    let told = "localhost, issued by Own Authority, valid until 2090-03-04 00:00 UTC";
    assert_eq!(seen.detail.to_string(), told);
    assert!(expires_in(&seen).is_some_and(|seconds| seconds > 20 * 365 * 86_400), "{seen:?}");
    assert!(seen.reading(&Metric::ResponseTime).is_some());
    // The same certificate is no change; another one is.
    assert_eq!(desk.check(&shown).fingerprint, seen.fingerprint);
    let renewed = desk.authority.issue(&NAMES, Dates::Valid);
    assert_ne!(desk.check(&renewed).fingerprint, seen.fingerprint);
}

#[test]
fn each_way_to_be_wrong_has_its_own_words() {
    let desk = Desk::new();
    let seen = desk.check(&desk.authority.issue(&NAMES, Dates::Expired));
    assert_eq!(
        failure(&seen),
        "the certificate has expired: localhost, issued by Own Authority, \
         was valid until 2021-03-04 00:00 UTC"
    );
    assert_eq!(expires_in(&seen), Some(0));
    let seen = desk.check(&desk.authority.issue(&NAMES, Dates::Unborn));
    assert_eq!(
        failure(&seen),
        "the certificate is not valid yet: localhost, issued by Own Authority, \
         is valid from 2089-01-02 00:00 UTC"
    );
    let seen = desk.check(&desk.authority.issue(&["a.example", "b.example"], Dates::Valid));
    assert_eq!(
        failure(&seen),
        "the certificate is not for localhost: it is for a.example, b.example; a.example, issued by \
         Own Authority, valid until 2090-03-04 00:00 UTC"
    );
    let stranger = Authority::new("Stranger", Dates::Valid);
    let seen = desk.check(&stranger.issue(&NAMES, Dates::Valid));
    assert_eq!(
        failure(&seen),
        "the certificate is not trusted: Stranger is not a known authority, and the server shows no \
         link from it to one; localhost, issued by Stranger, valid until 2090-03-04 00:00 UTC"
    );
    let seen = desk.check(&self_signed(&NAMES, Dates::Valid));
    assert!(failure(&seen).contains("is not trusted: it signed itself; localhost"), "{seen:?}");
    assert!(failure(&seen).ends_with("if this is right, name it as `ca_file`"), "{seen:?}");
}

#[test]
fn the_first_of_a_chain_to_expire_counts_and_is_named() {
    let desk = Desk::new();
    let middle = desk.authority.below("Middle", Dates::Expired);
    let seen = desk.check(&middle.issue(&NAMES, Dates::Valid).above(&[middle.der()]));
    assert_eq!(
        failure(&seen),
        "the certificate has expired: Middle, issued by Own Authority, was valid until 2021-03-04 \
         00:00 UTC (it is above localhost in the chain)"
    );
    assert_eq!(expires_in(&seen), Some(0));
    // Beyond a trusted authority nothing counts: an old cross-signature of it expires without harm.
    let middle = desk.authority.below("Middle", Dates::Valid);
    let gone = Authority::new("Gone", Dates::Expired).below("Own Authority", Dates::Expired);
    let shown = middle.issue(&NAMES, Dates::Valid).above(&[middle.der(), gone.der()]);
    let seen = desk.check(&shown);
    assert_eq!(seen.outcome, Outcome::Ok);
    assert!(expires_in(&seen).is_some_and(|seconds| seconds > 0), "{seen:?}");
}

#[test]
fn a_certificate_named_as_ca_file_is_trusted_as_it_is() {
    let desk = Desk::new();
    let own = self_signed(&NAMES, Dates::Valid);
    desk.write("ca.pem", &own.pem);
    assert_eq!(desk.check(&own).outcome, Outcome::Ok);
    // Even one that says it is an authority's, which otherwise no server may show.
    let openssl = self_signed_authority(&NAMES);
    let why = failure(&desk.check(&openssl));
    assert!(why.contains("is not trusted: "), "{why}");
    desk.write("ca.pem", &openssl.pem);
    assert_eq!(desk.check(&openssl).outcome, Outcome::Ok);
    // But not beyond its dates or its names.
    let old = self_signed(&NAMES, Dates::Expired);
    desk.write("ca.pem", &old.pem);
    assert!(failure(&desk.check(&old)).contains("has expired"));
    let other = self_signed(&["other.example"], Dates::Valid);
    desk.write("ca.pem", &other.pem);
    assert!(failure(&desk.check(&other)).contains("is not for localhost"));
}

#[test]
fn without_verify_only_the_dates_count() {
    let check = |shown: &Shown| {
        let port = serve_tls(shown).port();
        probe(&format!(
            "type = \"certificate\"\nhost = \"127.0.0.1\"\nport = {port}\nverify = \"none\""
        ))
    };
    assert_eq!(check(&self_signed(&["other.example"], Dates::Valid)).outcome, Outcome::Ok);
    let seen = check(&self_signed(&["other.example"], Dates::Expired));
    assert!(failure(&seen).contains("has expired: other.example"), "{seen:?}");
}

#[test]
fn without_a_ca_file_the_system_is_asked() {
    let shown = self_signed(&["localhost.heeler.example", "localhost"], Dates::Valid);
    let port = serve_tls(&shown).port();
    let seen = probe(&format!("type = \"certificate\"\nhost = \"localhost\"\nport = {port}"));
    // A machine without any authorities cannot tell.
    match &seen.outcome {
        Outcome::Failed(why) => assert!(why.raw().contains("it signed itself"), "{seen:?}"),
        Outcome::Unknown(why) => assert!(why.raw().contains("ca-certificates"), "{seen:?}"),
        Outcome::Ok => panic!("{seen:?}"),
    }
}

#[test]
fn a_ca_file_that_cannot_be_read_is_heelers_ignorance() {
    let desk = Desk::new();
    let port = serve_tls(&desk.authority.issue(&NAMES, Dates::Valid)).port();
    let check = move |ca: PathBuf| {
        probe(&format!(
            "type = \"certificate\"\nhost = \"localhost\"\nport = {port}\nca_file = {ca:?}"
        ))
    };
    let why = ignorance(&check(desk.dir.path().join("missing.pem")));
    assert!(
        why.starts_with("failed to read ca_file /") && why.contains("correct the path"),
        "{why}"
    );
    let why = ignorance(&check(desk.write("empty.pem", "nothing\n")));
    assert!(why.contains("empty.pem holds no certificate in PEM form"), "{why}");
    let why = ignorance(&check(desk.dir.path().to_owned()));
    assert!(why.contains("is not a file"), "{why}");
    let fifo = desk.dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    assert!(ignorance(&check(fifo)).contains("is not a file"));
    let secret = desk.write("secret.pem", &desk.authority.pem());
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("chmod");
    let why = ignorance(&as_nobody(move || check(secret)));
    assert!(why.contains("read as an ordinary user"), "{why}");
}

#[test]
fn what_is_no_tls_is_told_apart() {
    let check = |port: u16| {
        failure(&probe(&format!(
            "type = \"certificate\"\nhost = \"127.0.0.1\"\nport = {port}\nverify = \"none\""
        )))
    };
    // It begins to speak TLS with a server of HTTP, of nothing, and of half a handshake.
    let plain = serve_with(|mut stream| {
        let _read = stream.read(&mut [0; 64]);
        let _sent = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    assert_eq!(check(plain.port()), "what answers does not speak TLS");
    let silent = serve_with(|mut stream| {
        let _read = stream.read(&mut [0; 4096]);
    });
    let closed = "the connection was closed in the middle of the TLS handshake";
    assert_eq!(check(silent.port()), closed);
    let refusing = serve_with(|mut stream| {
        let _read = stream.read(&mut [0; 4096]);
        let _sent = stream.write_all(b"\x15\x03\x03\x00\x02\x02\x28");
    });
    assert_eq!(check(refusing.port()), "the server ended the TLS handshake: handshake failure");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("port").local_addr();
    let why = check(port.expect("address").port());
    assert!(why.contains("refused"), "{why}");
}

#[test]
fn a_mail_server_is_asked_for_tls_first() {
    let desk = Desk::new();
    let config = desk.authority.issue(&NAMES, Dates::Valid).config();
    let good = serve_with(move |mut stream| {
        stream.write_all(b"220-hello\r\n220 mail.example\r\n").expect("greets");
        let mut said = [0; 256];
        let read = stream.read(&mut said).expect("EHLO");
        assert!(said[..read].starts_with(b"EHLO "));
        stream.write_all(b"250-mail.example\r\n250-STARTTLS\r\n250 SIZE\r\n").expect("says");
        let read = stream.read(&mut said).expect("STARTTLS");
        assert_eq!(&said[..read], b"STARTTLS\r\n");
        stream.write_all(b"220 go ahead\r\n").expect("says");
        let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
        let _read = StreamOwned::new(session, stream).read(&mut said);
    });
    let check = |port: u16| {
        probe(&format!(
            "type = \"certificate\"\nhost = \"localhost\"\nport = {port}\nstarttls = \"smtp\"\n\
             ca_file = {:?}",
            desk.ca()
        ))
    };
    let seen = check(good.port());
    assert_eq!(seen.outcome, Outcome::Ok, "{seen:?}");
    let without = serve_with(|mut stream| {
        stream.write_all(b"220 mail\r\n").expect("greets");
        let _read = stream.read(&mut [0; 256]);
        stream.write_all(b"250 mail\r\n").expect("says");
        let _read = stream.read(&mut [0; 256]);
        stream.write_all(b"502 no\x1b[2J\r\n").expect("says");
        let _read = stream.read(&mut [0; 1]);
    });
    let why = failure(&check(without.port()));
    assert_eq!(why, "the mail server does not offer TLS: it says 502 no\\x1b[2J\\r\\n, wanted 220");
    let endless = serve_with(|mut stream| while stream.write_all(b"220-more\r\n").is_ok() {});
    assert_eq!(failure(&check(endless.port())), "the mail server's reply does not end");
}

#[test]
fn a_file_is_looked_at_before_it_is_put_to_use() {
    let desk = Desk::new();
    let check = |lines: &str| probe(&format!("type = \"certificate\"\n{lines}"));
    let good = desk.write("good.pem", &desk.authority.issue(&NAMES, Dates::Valid).pem);
    let seen = check(&format!("file = {good:?}"));
    assert_eq!(seen.outcome, Outcome::Ok, "nobody was asked to vouch for it: {seen:?}");
    assert!(expires_in(&seen).is_some_and(|seconds| seconds > 0));
    assert!(seen.reading(&Metric::ResponseTime).is_none());
    let ca = desk.ca();
    let seen = check(&format!("file = {good:?}\nca_file = {ca:?}\nserver_name = \"localhost\""));
    assert_eq!(seen.outcome, Outcome::Ok, "{seen:?}");
    let why = failure(&check(&format!("file = {good:?}\nserver_name = \"shop.example\"")));
    assert!(
        why.starts_with("the certificate is not for shop.example: it is for localhost"),
        "{why}"
    );
    let stranger = Authority::new("Stranger", Dates::Valid).issue(&NAMES, Dates::Valid);
    let stranger = desk.write("stranger.pem", &stranger.pem);
    let why = failure(&check(&format!("file = {stranger:?}\nca_file = {ca:?}")));
    assert!(why.contains("Stranger is not a known authority"), "{why}");
    let old = desk.write("old.pem", &desk.authority.issue(&NAMES, Dates::Expired).pem);
    let seen = check(&format!("file = {old:?}"));
    assert!(failure(&seen).contains("has expired: localhost"), "{seen:?}");
    assert_eq!(expires_in(&seen), Some(0));
    let why = ignorance(&check("file = \"/nowhere/x.pem\""));
    assert!(why.starts_with("failed to read the certificate file /nowhere/x.pem"), "{why}");
}

#[test]
fn a_hostile_certificate_is_only_words() {
    // A chain of a thousand, names that move a cursor: told, bounded, escaped.
    let desk = Desk::new();
    let names: Vec<String> = (0..500).map(|n| format!("n{n}.{}.example", "x".repeat(60))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let nasty = Authority::new("evil\r\nBcc: x\x1b[2J", Dates::Valid);
    let seen = desk.check(&nasty.issue(&names, Dates::Valid));
    let why = failure(&seen);
    assert!(why.contains("evil\\r\\nBcc: x\\x1b[2J"), "{why}");
    assert!(!why.chars().any(char::is_control) && why.len() < 2048, "{why}");
}
