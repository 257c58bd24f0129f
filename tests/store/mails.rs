//! What somebody reads at 3 a.m., compared byte for byte; and what nobody must be able to put there.
//! `HEELER_BLESS=1` writes the expected files anew.

use std::fs;
use std::path::Path;

use heeler::mail::render;
use heeler::model::check::CheckKind;
use heeler::model::ids::CheckIndex;
use heeler::model::incident::{Alert, AlertKind, Cause, Incident, StoryLine};
use heeler::model::job::Output;
use heeler::model::limits;
use heeler::model::text::Untrusted;
use heeler::model::time::Wall;

use crate::made::{alert, host, incident};

fn expect(name: &str, alert: &Alert) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/expected").join(name);
    let mail = render(alert, &host());
    let text = String::from_utf8(mail).expect("a mail is ASCII").replace("\r\n", "\n");
    if std::env::var_os("HEELER_BLESS").is_some() {
        fs::write(&path, &text).expect("writes");
    }
    let expected = fs::read_to_string(&path).expect("an expected mail");
    assert_eq!(text, expected, "{name} (HEELER_BLESS=1 accepts)");
}

fn story(lines: &[(u64, &str)]) -> Vec<StoryLine> {
    let opened = incident().opened.0;
    let line = |(ms, text): &(u64, &str)| StoryLine { at: Wall(opened + ms), text: (*text).into() };
    lines.iter().map(line).collect()
}

#[test]
fn brought_back_before_anybody_was_told() {
    let incident = Incident {
        closed: Some(Wall(incident().opened.0 + 412)),
        story: story(&[
            (0, "the main process 4711 was killed by SIGKILL"),
            (2, "nothing that it left behind holds a listening socket"),
            (3, "start, as deploy: systemctl --user start puma-shop"),
            (412, "up again as process 4790"),
        ]),
        ..incident()
    };
    let next = "nothing; its start period lasts until 03:16:02, then checks act again".to_owned();
    let kind = AlertKind::FiredAndResolved;
    expect("brought-back.eml", &Alert { incident, kind, next, ..alert(0) });
}

#[test]
fn down_and_it_does_not_come_back() {
    let printed = "bundler: failed to load command: puma\n\
        /srv/shop/config/environment.rb:5: undefined method 'credentials' for nil (NoMethodError)\n\
        \tfrom /srv/shop/config.ru:3\n\x1b[31mFatal\x1b[0m: caf\u{e9}\n";
    let incident = Incident {
        title: "the main process 4711 failed with code 1".to_owned(),
        story: story(&[
            (0, "the main process 4711 failed with code 1"),
            (20, "start, as deploy: systemctl --user start puma-shop"),
            (1900, "start failed with code 1"),
            (1901, "5 starts within 10m: the start limit is reached, and the next try waits"),
        ]),
        output: Output { head: printed.into(), ..Output::default() },
        ..incident()
    };
    let next = "the next start is at 03:15:34; each one after it waits twice as long, up to 30m, \
        and you are reminded every 4h"
        .to_owned();
    expect("down.eml", &Alert { incident, next, ..alert(0) });
}

#[test]
fn a_check_still_fires() {
    let incident = Incident {
        cause: Cause::Check(CheckKind::Process, CheckIndex(1)),
        title: "memory (2710 MiB) > 2600 MiB, 3 of 5".to_owned(),
        story: story(&[
            (0, "memory (2710 MiB) > 2600 MiB, 3 of 5"),
            (5, "restart: held back, postgres is down"),
            (14_400_000, "memory (2731 MiB) > 2600 MiB, 5 of 5"),
        ]),
        told: 1,
        told_at: Wall(incident().opened.0 + 14_400_000),
        ..incident()
    };
    let next = "restart as soon as postgres is up".to_owned();
    expect("reminder.eml", &Alert { incident, kind: AlertKind::Reminder, next, ..alert(1) });
}

#[test]
fn it_is_over_on_another_day() {
    let day = 86_400_000;
    let incident = Incident {
        cause: Cause::SetAside,
        title: "stopped by rule memory > 2600MiB".to_owned(),
        closed: Some(Wall(incident().opened.0 + day)),
        story: story(&[
            (0, "stop, as deploy: systemctl --user stop puma-shop"),
            (day, "root (pid 812) asked for start"),
        ]),
        dropped_lines: 12,
        ..incident()
    };
    let to = vec![];
    expect("over.eml", &Alert { incident, kind: AlertKind::Resolved, to, ..alert(2) });
}

/// The headers of a mail (unfolded) and its text (decoded no further than lines).
fn parts(mail: &[u8]) -> (Vec<String>, String) {
    let text = std::str::from_utf8(mail).expect("a mail is ASCII");
    assert!(text.is_ascii());
    assert!(
        !text.replace("\r\n", "").contains(['\r', '\n']),
        "line ends are CRLF and nothing else"
    );
    assert!(text.split("\r\n").all(|line| line.len() <= 998), "RFC 5322, 2.1.1");
    let (head, body) = text.split_once("\r\n\r\n").expect("headers and a text");
    let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    (unfolded.split("\r\n").map(str::to_owned).collect(), body.to_owned())
}

fn header_names(headers: &[String]) -> Vec<&str> {
    headers.iter().map(|line| line.split_once(": ").expect("a header").0).collect()
}

/// ALR-01, ALR-02, ALR-04: the same headers as of a harmless alert, whatever the texts are.
#[test]
fn no_text_can_become_a_header_or_end_the_message() {
    let plain = render(&Alert { next: "x".into(), ..alert(1) }, &host());
    let expected = parts(&plain).0;
    let hostile = [
        "x\r\nBcc: x@evil\r\n\r\nnew body".to_owned(),
        "\n.\n\nFrom x\n.\r\n".to_owned(),
        "=?utf-8?Q?=0D=0ABcc:_x@evil?=".to_owned(),
        "\u{1f415}\u{202e}\u{2028}\0\u{7f}\u{1b}[2J\u{85}".repeat(10),
        "\u{1f415}".repeat(5000),
        "a".repeat(5000),
        "a b ".repeat(2000),
        "\u{1}".repeat(5000),
        String::new(),
    ];
    for text in &hostile {
        let mut alert = Alert { next: text.clone(), ..alert(1) };
        alert.incident.title.clone_from(text);
        alert.incident.story = vec![StoryLine { at: Wall(u64::MAX), text: text.clone() }; 64];
        let output = Untrusted::bounded(text.as_bytes(), 4096);
        alert.incident.output = Output { head: output.clone(), tail: output, dropped_bytes: 7 };
        alert.to.push(text.clone().into());
        let mut host = host();
        host.hostname = text.clone().into();
        host.from = Some(text.clone().into());
        host.user = text.clone().into();
        let (headers, body) = parts(&render(&alert, &host));
        let names =
            |list: &[String]| header_names(list).join(" ").replace("Content-Transfer-Encoding", "");
        assert_eq!(names(&headers), names(&expected), "{text:?}");
        let subject = headers.iter().find(|line| line.starts_with("Subject: ")).expect("a subject");
        assert!(
            subject.len() < 12 * limits::SUBJECT_CHARS_MAX && !subject.contains('\u{1b}'),
            "{subject}"
        );
        assert!(!subject.contains("=?utf-8?Q?=0D"), "decoded again by its reader: {subject}");
        let id = headers.iter().find(|line| line.starts_with("Message-ID: ")).expect("an id");
        let host_part = id.split_once('@').expect("an at").1.trim_end_matches('>');
        assert!(
            host_part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')),
            "{id}"
        );
        assert!(!body.split("\r\n").any(|line| line == "." || line.starts_with("From ")), "{body}");
    }
}

#[test]
fn a_mail_is_bounded_whatever_happened() {
    let mut alert = Alert { next: "\u{1f415} next ".repeat(5000), ..alert(0) };
    alert.incident.title = "\u{1f415} title ".repeat(5000);
    alert.incident.story = vec![StoryLine { at: Wall(0), text: "\u{1f415} line ".repeat(500) }; 64];
    let output = Untrusted::bounded("\u{1f415} out\n".repeat(800).as_bytes(), 4096);
    alert.incident.output = Output { head: output.clone(), tail: output, dropped_bytes: 1 };
    let (_, body) = parts(&render(&alert, &host()));
    // Base64 of it is a third longer, and quoted-printable is chosen only when it is shorter.
    assert!(body.len() < limits::ALERT_BYTES_MAX * 3 / 2, "{}", body.len());
}

/// Rendered again, after a crash or by another keeper, it is the same mail; a thread has one root.
#[test]
fn one_incident_is_one_thread() {
    let root = "Message-ID: <heeler.shop.19df08d8e61.3.0@web1>";
    let (first, _) = parts(&render(&alert(0), &host()));
    assert!(first.iter().any(|line| line == root), "{first:?}");
    assert!(
        !first.iter().any(|line| line.starts_with("In-Reply-To") || line.starts_with("References"))
    );
    let (third, _) = parts(&render(&alert(2), &host()));
    assert!(third.iter().any(|line| line == "Message-ID: <heeler.shop.19df08d8e61.3.2@web1>"));
    for header in ["In-Reply-To", "References"] {
        assert!(
            third.iter().any(|l| *l == format!("{header}: <heeler.shop.19df08d8e61.3.0@web1>"))
        );
    }
    assert_eq!(render(&alert(2), &host()), render(&alert(2), &host()));
}
