//! `heeler mail test`, and the line about mail in a status.
#![forbid(unsafe_code)]

use crate::cli::render::Style;
use crate::model::text::escape;
use crate::wire::control::{MailStatus, MailTestAnswer};

/// What came of a test, server by server.
#[must_use]
pub fn mail_test(answer: &MailTestAnswer) -> String {
    let mut out = String::new();
    if !answer.text.is_empty() {
        out.push_str(&format!("{}\n", escape(&answer.text)));
    }
    if !answer.servers.is_empty() {
        out.push_str(&format!("a test mail to {}:\n", escape(&answer.to.join(", "))));
    }
    for server in &answer.servers {
        let word = if server.delivered { "taken" } else { "FAILED" };
        // What was said names the server, too.
        let said = escape(&server.text);
        let name = escape(&server.server);
        let said = said.strip_prefix(&format!("{name}: ")).unwrap_or(&said).to_owned();
        out.push_str(&format!("  {name}: {word}: {said}\n"));
    }
    out
}

/// What is wrong with mail, if anything.
#[must_use]
pub fn mail_line(mail: &MailStatus, style: &Style) -> String {
    let Some(since) = mail.failing_since_unix_ms else { return String::new() };
    let why = escape(mail.trouble.as_deref().unwrap_or_default());
    let (waiting, since) = (mail.waiting, style.moment(since));
    let alerts = if waiting == 1 { "1 alert waits" } else { &format!("{waiting} alerts wait") };
    format!("mail is not delivered since {since}, {alerts}: {why}\n")
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::wire::control::{MailTestResult, VERSION};

    #[test]
    fn each_server_has_its_line_and_nothing_of_it_is_raw() {
        let server = |delivered, text: &str| MailTestResult {
            server: "smtp.example.com:587".to_owned(),
            delivered,
            text: format!("smtp.example.com:587: {text}"),
        };
        let servers = vec![server(true, "250 ok"), server(false, "550 no\u{1b}[2J")];
        let to = vec!["ops@example.com".to_owned()];
        let answer = MailTestAnswer { version: VERSION, to, servers, text: String::new() };
        assert_eq!(
            mail_test(&answer),
            "a test mail to ops@example.com:\n  smtp.example.com:587: taken: 250 ok\n  \
             smtp.example.com:587: FAILED: 550 no\\x1b[2J\n"
        );
    }

    #[test]
    fn mail_that_works_has_no_line() {
        let style = Style { width: None, colour: false, zone: TimeZone::UTC, now_unix_ms: 9000 };
        let mut mail = MailStatus { waiting: 2, failing_since_unix_ms: None, trouble: None };
        assert_eq!(mail_line(&mail, &style), "");
        mail.failing_since_unix_ms = Some(5000);
        mail.trouble = Some("connection refused".to_owned());
        assert_eq!(
            mail_line(&mail, &style),
            "mail is not delivered since 00:00:05, 2 alerts wait: connection refused\n"
        );
    }
}
