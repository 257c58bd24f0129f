//! The one sentence that an alert is: its subject, and the first line of its text.

use crate::mail::time;
use crate::model::incident::{Alert, AlertKind, Cause};
use crate::model::limits;
use crate::model::text::escape;
use crate::model::units::show_duration;

/// `[web1] shop: brought back after 412ms (killed by SIGKILL)`, cut to a length that a list shows.
pub(super) fn subject(alert: &Alert, hostname: &str) -> String {
    let host: String = escape(hostname).chars().take(64).collect();
    let text = format!("[{host}] {}: {}", alert.incident.service, sentence(alert));
    cut(&text, limits::SUBJECT_CHARS_MAX)
}

/// What it tells. A title stands for itself when something begins; later it is the reason.
pub(super) fn sentence(alert: &Alert) -> String {
    let incident = &alert.incident;
    let title = escape(incident.title.trim());
    let until = incident.closed.unwrap_or_else(|| time(alert));
    let lasted = show_duration(until.since(incident.opened));
    match (alert.kind, incident.cause) {
        (AlertKind::Fired, Cause::Down) => format!("down: {title}"),
        (AlertKind::Fired, _) => title,
        (AlertKind::FiredAndResolved, Cause::Down) => {
            format!("brought back after {lasted} ({title})")
        }
        (AlertKind::Resolved, Cause::Down) => format!("up again after {lasted} ({title})"),
        // A change is seen, not mended: it has no end that anybody waits for.
        (AlertKind::FiredAndResolved, Cause::Check(..)) if title.starts_with("changed") => title,
        (AlertKind::FiredAndResolved | AlertKind::Resolved, _) => {
            format!("over after {lasted} ({title})")
        }
        (AlertKind::Reminder, Cause::Down) => format!("still down after {lasted} ({title})"),
        (AlertKind::Reminder, _) => format!("still so after {lasted} ({title})"),
    }
}

/// The first `chars_max` characters, with a mark where there was more.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max.saturating_sub(3)).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::check::CheckKind;
    use crate::model::ids::{CheckIndex, ServiceName};
    use crate::model::incident::Incident;
    use crate::model::job::Output;
    use crate::model::time::Wall;

    #[test]
    fn a_change_is_told_as_seen_and_trouble_as_over() {
        let told = |kind, title: &str| {
            let incident = Incident {
                service: ServiceName::parse("shop").expect("a name"),
                number: 1,
                cause: Cause::Check(CheckKind::Process, CheckIndex(0)),
                title: title.to_owned(),
                opened: Wall(0),
                closed: Some(Wall(2000)),
                story: vec![],
                dropped_lines: 0,
                output: Output::default(),
                told: 0,
                told_at: Wall(0),
            };
            sentence(&Alert { incident, sequence: 0, kind, to: vec![], next: String::new() })
        };
        let changed = "changed (/etc/passwd: 12ab, was 34cd)";
        assert_eq!(told(AlertKind::FiredAndResolved, changed), changed);
        let memory = "memory (3 MiB) > 2 MiB";
        assert_eq!(
            told(AlertKind::FiredAndResolved, memory),
            "over after 2s (memory (3 MiB) > 2 MiB)"
        );
    }
}
