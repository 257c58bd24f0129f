//! The one sentence that an alert is: its subject, and the first line of its text.

use crate::mail::time;
use crate::model::incident::{Alert, AlertKind, Cause};
use crate::model::limits;
use crate::model::text::escape;
use crate::model::units::show_duration;

/// `[web1] shop: brought back after 0.4s (killed by SIGKILL)`, cut to a length that a list shows.
pub(super) fn subject(alert: &Alert, hostname: &str) -> String {
    let host: String = escape(hostname).chars().take(64).collect();
    let (service, title) = (&alert.incident.service, escape(alert.incident.title.trim()));
    let what = what(alert);
    let text = match title.as_str() {
        "" => format!("[{host}] {service}: {what}"),
        title => format!("[{host}] {service}: {what} ({title})"),
    };
    cut(&text, limits::SUBJECT_CHARS_MAX)
}

/// What it tells, in a few words: `down`, `brought back after 0.4s`, `still down after 4h`.
pub(super) fn what(alert: &Alert) -> String {
    let incident = &alert.incident;
    let lasted = show_duration(
        incident
            .closed
            .unwrap_or_else(|| time(alert))
            .since(incident.opened),
    );
    let (begun, over) = match incident.cause {
        Cause::Down => match alert.kind {
            AlertKind::FiredAndResolved => ("down", "brought back"),
            AlertKind::Fired | AlertKind::Resolved | AlertKind::Reminder => ("down", "up again"),
        },
        Cause::UpUnwanted => ("up, and wanted down", "as wanted again"),
        Cause::Unclear => ("not clear", "clear again"),
        Cause::Unkillable => ("does not die", "gone at last"),
        Cause::SetAside => ("set aside by its own rule", "watched again"),
        Cause::Check(..) => ("a check fires", "the check passes again"),
        Cause::CheckUnknown(..) => ("a check cannot be told", "the check can be told again"),
    };
    match alert.kind {
        AlertKind::Fired => begun.to_owned(),
        AlertKind::FiredAndResolved | AlertKind::Resolved => format!("{over} after {lasted}"),
        AlertKind::Reminder => format!("still {begun}, for {lasted}"),
    }
}

/// The first `chars_max` characters, with a mark where there was more.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars()
        .take(chars_max.saturating_sub(3))
        .chain("...".chars())
        .collect()
}
