//! Several alerts in one mail: a line for each, then the stories; and the mail that tests the way.

use std::time::{Duration, UNIX_EPOCH};

use lettre::message::SinglePart;
use lettre::message::header::{ContentType, Date};

use crate::mail::{
    HostFacts, LAST_DATE_MS, ascii_host, body, extra, head, header_text, time, words,
};
use crate::model::incident::{Alert, AlertKind};
use crate::model::limits;
use crate::model::text::escape;
use crate::model::time::Wall;

/// What is to be said beside the alerts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Beside {
    /// How many of them the rate held back, and the rate in words.
    pub held_back: usize,
    /// `30 per 10m`.
    pub rate: String,
    /// How many others were dropped because too many waited.
    pub dropped: u64,
}

/// Renders alerts, at least one, oldest first, as one mail. Its name is made of theirs: the same alerts are
/// the same mail.
#[must_use]
pub fn digest(alerts: &[Alert], host: &HostFacts, beside: &Beside) -> Vec<u8> {
    let domain = ascii_host(&host.hostname);
    let names = alerts.iter().map(|alert| format!("{}.{}", alert.incident.token(), alert.sequence));
    let id = format!("<heeler.digest.{:016x}.{}@{domain}>", fingerprint(names), alerts.len());
    let to: Vec<_> = alerts.first().map(|alert| alert.to.clone()).unwrap_or_default();
    let at = alerts.iter().map(time).max().unwrap_or_default();
    let mut builder =
        head(at, &to, host, &domain, &subject(alerts, &host.hostname)).message_id(Some(id));
    builder = extra(builder, "X-Heeler-Kind", "digest");
    let text = text(alerts, host, beside);
    finish(builder, text)
}

/// The mail of `heeler mail test`.
#[must_use]
pub fn test_mail(to: &[Box<str>], server: &str, host: &HostFacts, now: Wall) -> Vec<u8> {
    let domain = ascii_host(&host.hostname);
    let server = escape(server);
    let id = fingerprint([server.clone(), now.0.to_string()].into_iter());
    let shown = escape(&host.hostname);
    let subject = format!("[{shown}] a test of heeler's mail");
    let mut builder = head(now, to, host, &domain, &subject)
        .message_id(Some(format!("<heeler.test.{:x}.{id:016x}@{domain}>", now.0)));
    builder = extra(builder, "X-Heeler-Kind", "test");
    let text = format!(
        "heeler on {shown} was asked for a test of its mail (`heeler mail test`).\n\
         This one came by {server}. Nothing is wrong.\n"
    );
    finish(builder, text)
}

fn finish(builder: lettre::message::MessageBuilder, text: String) -> Vec<u8> {
    builder
        .singlepart(
            SinglePart::builder().header(ContentType::TEXT_PLAIN).body(super::encoded(text)),
        )
        .expect("a message with one sender and at least one recipient is complete")
        .formatted()
}

/// A moment as a header.
pub(super) fn date(at: Wall) -> Date {
    Date::new(UNIX_EPOCH + Duration::from_millis(at.0.min(LAST_DATE_MS)))
}

fn subject(alerts: &[Alert], hostname: &str) -> String {
    let host: String = escape(hostname).chars().take(64).collect();
    let mut services: Vec<_> = alerts.iter().map(|alert| alert.incident.service.as_str()).collect();
    services.sort_unstable();
    services.dedup();
    let (open, over) = standing(alerts);
    let text = format!(
        "[{host}] {} alerts ({open} open, {over} over): {}",
        alerts.len(),
        services.join(", ")
    );
    header_text(&words::cut(&text, limits::SUBJECT_CHARS_MAX))
}

/// How many incidents of these are open by their last alert here, and how many are over.
fn standing(alerts: &[Alert]) -> (usize, usize) {
    let mut last = std::collections::BTreeMap::new();
    for alert in alerts {
        let over = matches!(alert.kind, AlertKind::Resolved | AlertKind::FiredAndResolved);
        last.insert(alert.incident.token(), over);
    }
    let over = last.values().filter(|over| **over).count();
    (last.len() - over, over)
}

fn text(alerts: &[Alert], host: &HostFacts, beside: &Beside) -> String {
    let shown: String = escape(&host.hostname).chars().take(255).collect();
    let (open, over) = standing(alerts);
    let mut out = format!(
        "{} alerts of heeler on {shown}, in one mail because they came together:\n\
         {open} incidents are open, {over} are over.\n",
        alerts.len()
    );
    if beside.held_back > 0 {
        out.push_str(&format!(
            "{} of them were held back: more mails were due than {} (`rate` in [mail]).\n",
            beside.held_back, beside.rate
        ));
    }
    if beside.dropped > 0 {
        out.push_str(&format!(
            "{} older ones were dropped: more than {} waited, and no mail server took them.\n",
            beside.dropped,
            limits::OUTBOX_MAILS_MAX
        ));
    }
    out.push('\n');
    for alert in alerts {
        let when = body::clock(time(alert), &host.zone);
        let line = format!("{when}  {}: {}", alert.incident.service, words::sentence(alert));
        out.push_str(&format!("  {}\n", words::cut(&line, limits::DIGEST_LINE_CHARS_MAX)));
    }
    // The newest say how it stands, so they are the ones to keep.
    let mut left = limits::DIGEST_STORIES_BYTES_MAX;
    let fits = |story: &String| left.checked_sub(story.len()).map(|rest| left = rest).is_some();
    let newest_first = alerts.iter().rev().map(|alert| body::text(alert, host));
    let stories: Vec<_> = newest_first.take_while(fits).collect();
    let out_of = alerts.len() - stories.len();
    if out_of > 0 {
        out.push_str(&format!(
            "\nThe stories of the oldest {out_of} are left out; `heeler why NAME` has the last one.\n"
        ));
    }
    for story in stories.iter().rev() {
        out.push_str(&format!("\n{}\n{story}", "-".repeat(72)));
    }
    out
}

/// FNV-1a over texts (with their ends), in 64 bits: a name, not a secret.
fn fingerprint(texts: impl Iterator<Item = String>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for text in texts {
        for byte in text.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::model::ids::ServiceName;
    use crate::model::incident::{Cause, Incident, StoryLine};
    use crate::model::job::Output;

    fn host() -> HostFacts {
        HostFacts { hostname: "web1".into(), from: None, user: "root".into(), zone: TimeZone::UTC }
    }

    fn alert(number: u32, text: &str) -> Alert {
        let incident = Incident {
            service: ServiceName::parse("shop").expect("a name"),
            number,
            cause: Cause::Down,
            title: text.to_owned(),
            opened: Wall(u64::from(number) * 1000),
            closed: None,
            story: vec![StoryLine { at: Wall(1), text: text.to_owned() }; 64],
            dropped_lines: 0,
            output: Output::default(),
            told: 0,
            told_at: Wall(0),
        };
        let to = vec!["ops@example.com".into()];
        Alert { incident, sequence: 0, kind: AlertKind::Fired, to, next: String::new() }
    }

    fn shown(count: u32, text: &str, beside: &Beside) -> String {
        let alerts: Vec<_> = (0..count).map(|n| alert(n, text)).collect();
        String::from_utf8(digest(&alerts, &host(), beside)).expect("a mail is ASCII")
    }

    #[test]
    fn each_alert_has_its_line_and_what_is_missing_is_counted() {
        let beside = Beside { held_back: 7, rate: "30 per 10m".to_owned(), dropped: 9000 };
        let mail = shown(250, "killed by SIGKILL", &beside);
        assert!(mail.contains("Subject: [web1] 250 alerts (250 open, 0 over): shop\r\n"), "{mail}");
        assert_eq!(mail.matches("  shop: down: killed by SIGKILL\r\n").count(), 250);
        assert!(mail.contains("7 of them were held back: more mails were due than 30 per 10m"));
        assert!(mail.contains("9000 older ones were dropped"));
        assert!(mail.contains("The stories of the oldest "));
        assert!(mail.len() < 256 << 10, "{}", mail.len());
    }

    #[test]
    fn a_digest_is_bounded_and_its_headers_are_its_own() {
        for text in ["x\r\nBcc: x@evil\r\n\r\n.\r\n", &"\u{1f415} ".repeat(5000), "\n.\n\nFrom x"] {
            let mail = shown(250, text, &Beside::default());
            assert!(mail.len() < 512 << 10, "{}", mail.len());
            assert!(mail.is_ascii() && !mail.replace("\r\n", "").contains(['\r', '\n']));
            assert!(!mail.contains("\r\nBcc:") && !mail.contains("\r\n.\r\n"), "{text:?}");
            assert!(!mail.contains("\r\nFrom x"));
        }
    }

    #[test]
    fn the_same_alerts_are_the_same_mail_and_others_are_another() {
        let id = |count| {
            let mail = shown(count, "x", &Beside::default());
            mail.lines().find(|line| line.starts_with("Message-ID: ")).map(str::to_owned)
        };
        assert_eq!(id(5), id(5));
        assert_ne!(id(5), id(6));
    }
}
