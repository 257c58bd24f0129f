//! An alert as the bytes of a mail: pure, so the same alert is the same mail, whenever it is told.
//!
//! Whatever is in a name, a title or a command's output, there is one message with these headers:
//! every text that goes into a header has its control characters escaped first, and every foreign
//! line of the body is indented.
#![forbid(unsafe_code)]

mod body;
pub mod digest;
pub mod office;
mod words;

use jiff::tz::TimeZone;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Body, Mailbox, MessageBuilder, SinglePart};
use lettre::{Address, Message};

use crate::model::incident::Alert;
use crate::model::limits;
use crate::model::text::escape;
use crate::model::time::Wall;

/// What a mail needs to know of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostFacts {
    /// Its name, as the kernel tells it: any bytes, escaped where shown.
    pub hostname: Box<str>,
    /// The sender's address; `heeler@HOSTNAME` where nobody named one.
    pub from: Option<Box<str>>,
    /// The local user who gets what is addressed to nobody: `root`.
    pub user: Box<str>,
    /// The zone of the times in the text.
    pub zone: TimeZone,
}

/// Renders an alert: headers, an empty line, the text; line ends are CRLF.
#[must_use]
pub fn render(alert: &Alert, host: &HostFacts) -> Vec<u8> {
    let domain = ascii_host(&host.hostname);
    let (incident, root) = (&alert.incident, message_id(alert, 0, &domain));
    let subject = words::subject(alert, &host.hostname);
    let mut builder = head(time(alert), &alert.to, host, &domain, &subject)
        .message_id(Some(message_id(alert, alert.sequence, &domain)));
    if alert.sequence > 0 {
        builder = builder.in_reply_to(root.clone()).references(root);
    }
    builder = extra(builder, "X-Heeler-Service", incident.service.as_str());
    builder = extra(builder, "X-Heeler-Incident", &incident.token());
    builder = extra(builder, "X-Heeler-Kind", alert.kind.name());
    builder
        .singlepart(
            SinglePart::builder()
                .header(ContentType::TEXT_PLAIN)
                .body(encoded(body::text(alert, host))),
        )
        .expect("a message with one sender and at least one recipient is complete")
        .formatted()
}

/// The envelope's sender of every mail.
#[must_use]
pub fn envelope_sender(host: &HostFacts) -> String {
    sender(host, &ascii_host(&host.hostname)).to_string()
}

/// The envelope's recipients of a mail to these people: each as it was named, with its address. Nobody
/// named is the local user, under no name.
#[must_use]
pub fn envelope(to: &[Box<str>], host: &HostFacts) -> Vec<(Box<str>, String)> {
    let domain = ascii_host(&host.hostname);
    let mut pairs = Vec::new();
    for named in to.iter().take(limits::RECIPIENTS_MAX) {
        if let Some(address) = parse_address(named, &domain) {
            pairs.push((named.clone(), address.to_string()));
        }
    }
    if pairs.is_empty() {
        pairs.extend(recipients(&[], host, &domain).iter().map(|to| ("".into(), to.to_string())));
    }
    pairs
}

/// Who the machine says it is when it greets a mail server: a name in ASCII.
#[must_use]
pub fn hello(host: &HostFacts) -> String {
    ascii_host(&host.hostname)
}

/// The headers that every mail has.
fn head(
    at: Wall,
    to: &[Box<str>],
    host: &HostFacts,
    domain: &str,
    subject: &str,
) -> MessageBuilder {
    let mut builder = Message::builder()
        .header(digest::date(at))
        .from(Mailbox::new(Some("heeler".to_owned()), sender(host, domain)))
        .subject(header_text(subject));
    for address in recipients(to, host, domain) {
        builder = builder.to(Mailbox::new(None, address));
    }
    extra(builder, "Auto-Submitted", "auto-generated")
}

/// The text on its way. Plain text goes as it is, so that the file can be read with any pager (lettre
/// would encode all of it for one line of 77 columns); anything else as quoted-printable or base64.
fn encoded(text: String) -> Body {
    let plain = |c: char| c == '\n' || c == ' ' || c.is_ascii_graphic();
    if text.chars().all(plain) && text.lines().all(|line| line.len() <= LINE_BYTES_MAX) {
        let bytes = text.replace('\n', "\r\n").into_bytes();
        return Body::dangerous_pre_encoded(bytes, ContentTransferEncoding::SevenBit);
    }
    Body::new(text)
}

/// RFC 5322, 2.1.1.
const LINE_BYTES_MAX: usize = 998;

/// When an alert's last fact happened: its own time, the same whenever it is rendered.
#[must_use]
pub fn time(alert: &Alert) -> Wall {
    let incident = &alert.incident;
    let story = incident.story.last().map_or(incident.opened, |line| line.at);
    incident.opened.max(incident.told_at).max(story).max(incident.closed.unwrap_or_default())
}

/// The last second of the year 9999: past it a date header has no form.
const LAST_DATE_MS: u64 = 253_402_300_799_000;

/// `<heeler.TOKEN.SEQ@host>`. A service name may have dots and `@` where RFC 5322 allows none; they
/// become `/` and `=`, which no service name has, so two alerts never share a name.
fn message_id(alert: &Alert, sequence: u32, domain: &str) -> String {
    let mut left = String::from("heeler.");
    for c in alert.incident.token().chars() {
        left.push(match c {
            '@' => '=',
            '.' if left.ends_with('.') => '/',
            c => c,
        });
    }
    let dot = if left.ends_with('.') { "/" } else { "." };
    format!("<{left}{dot}{sequence}@{domain}>")
}

fn sender(host: &HostFacts, domain: &str) -> Address {
    let named = host.from.as_deref().and_then(|from| parse_address(from, domain));
    named.unwrap_or_else(|| local("heeler", domain))
}

fn recipients(to: &[Box<str>], host: &HostFacts, domain: &str) -> Vec<Address> {
    let named = to.iter().take(limits::RECIPIENTS_MAX);
    let mut addresses: Vec<_> = named.filter_map(|to| parse_address(to, domain)).collect();
    if addresses.is_empty() {
        addresses.push(parse_address(&host.user, domain).unwrap_or_else(|| local("root", domain)));
    }
    addresses
}

/// An address; a bare name is a user of this machine.
fn parse_address(text: &str, domain: &str) -> Option<Address> {
    let text = text.trim();
    let (user, at) = text.rsplit_once('@').unwrap_or((text, domain));
    if user.chars().chain(at.chars()).any(|c| c.is_control() || c.is_whitespace()) {
        return None;
    }
    Address::new(user, at).ok()
}

/// A user of this machine, whatever the machine is called.
fn local(user: &str, domain: &str) -> Address {
    Address::new(user, domain)
        .or_else(|_| Address::new(user, "localhost"))
        .expect("a plain word at localhost is an address")
}

fn extra(builder: MessageBuilder, name: &'static str, value: &str) -> MessageBuilder {
    let name = HeaderName::new_from_ascii_str(name);
    builder.raw_header(HeaderValue::new(name, header_text(value)))
}

/// One line of a header. `=?` would begin an encoded word that the reader's program decodes again.
fn header_text(text: &str) -> String {
    escape(text).replace("=?", "= ?")
}

/// A host name as it may stand in a Message-ID: letters, digits, inner dots and dashes.
fn ascii_host(hostname: &str) -> String {
    const BYTES_MAX: usize = 200;
    let mut host = String::new();
    for c in hostname.chars().take(BYTES_MAX) {
        match c {
            c if c.is_ascii_alphanumeric() => host.push(c),
            '.' if !host.ends_with(['.', '-']) => host.push('.'),
            '.' => {}
            _ if host.ends_with('.') => {}
            _ => host.push('-'),
        }
    }
    let trimmed = host.trim_matches(['.', '-']);
    if trimmed.is_empty() { "localhost".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::ServiceName;
    use crate::model::incident::{AlertKind, Cause, Incident};
    use crate::model::job::Output;

    fn alert(service: &str) -> Alert {
        let incident = Incident {
            service: ServiceName::parse(service).expect("a name"),
            number: 3,
            cause: Cause::Down,
            title: String::new(),
            opened: Wall(0x10),
            closed: None,
            story: vec![],
            dropped_lines: 0,
            output: Output::default(),
            told: 0,
            told_at: Wall(0),
        };
        Alert { incident, sequence: 2, kind: AlertKind::Fired, to: vec![], next: String::new() }
    }

    #[test]
    fn a_message_id_is_a_dot_atom_and_no_two_names_share_one() {
        let names = ["shop", "a..b", "a.b", "web@1", "a.", "a...b", "a.b.", "x@.@"];
        let ids: Vec<_> = names.iter().map(|name| message_id(&alert(name), 2, "h")).collect();
        assert_eq!(ids[0], "<heeler.shop.10.3.2@h>");
        assert_eq!(ids[1], "<heeler.a./b.10.3.2@h>");
        assert_eq!(ids[3], "<heeler.web=1.10.3.2@h>");
        for (n, id) in ids.iter().enumerate() {
            assert!(!id.contains("..") && id.matches('@').count() == 1, "{id}");
            assert!(!ids[..n].contains(id), "{id}");
        }
    }

    #[test]
    fn any_hostname_becomes_one_that_a_message_id_may_have() {
        let check = |from: &str, to: &str| assert_eq!(ascii_host(from), to, "{from:?}");
        check("web1.example.com", "web1.example.com");
        check("wéb 1\r\nBcc: x@evil", "w-b-1--Bcc--x-evil");
        check("..a..b-.c..", "a.b-c");
        check("", "localhost");
        check("\u{1f415}", "localhost");
        check(&"x".repeat(999), &"x".repeat(200));
    }

    #[test]
    fn addresses_that_are_none_are_left_out_and_nobody_is_the_local_user() {
        let host = HostFacts {
            hostname: "web1".into(),
            from: Some("not an address".into()),
            user: "root".into(),
            zone: TimeZone::UTC,
        };
        let to = |list: &[&str]| {
            let alert = Alert { to: list.iter().map(|to| (*to).into()).collect(), ..alert("shop") };
            let all = recipients(&alert.to, &host, "web1");
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(to(&[]), ["root@web1"]);
        assert_eq!(to(&["a@b.example\r\nBcc: x@evil", ""]), ["root@web1"]);
        assert_eq!(to(&["ops@example.com", "deploy"]), ["ops@example.com", "deploy@web1"]);
        assert_eq!(sender(&host, "web1").to_string(), "heeler@web1");
        assert_eq!(local("root", "not a domain").to_string(), "root@localhost");
    }
}
