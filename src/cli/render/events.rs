//! `heeler events`: one line each, oldest first.
#![forbid(unsafe_code)]

use crate::cli::render::Style;
use crate::cli::render::text::{columns, field};
use crate::model::text::escape;
use crate::wire::control::{Event, Health};

/// How wide the names of services are. That only grows, so that what follows stays in line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns {
    service: usize,
}

/// The longest kind of event has so many letters.
const KIND: usize = 8;
/// A text with less room than this goes on a line of its own.
const TEXT_MIN: usize = 24;

/// Whether each line says whose event it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// All are of the one service that was asked for.
    Known,
    /// They are of several.
    Shown,
}

/// Some events, in columns no narrower than those before.
#[must_use]
pub fn events(events: &[Event], whose: Whose, wide: &mut Columns, style: &Style) -> String {
    for event in events {
        wide.service = wide.service.max(columns(&escape(&event.service)));
    }
    let mut out = String::new();
    for event in events {
        let mut label = format!("{}  ", style.date_and_time(event.at_unix_ms));
        if whose == Whose::Shown {
            label.push_str(&format!("{:<width$}  ", escape(&event.service), width = wide.service));
        }
        let kind = escape(&event.kind);
        label.push_str(&format!("{kind:<KIND$}  "));
        let mut line = String::new();
        if style.width.is_some_and(|width| columns(&label) + TEXT_MIN > width) {
            line.push_str(&format!("{}\n", label.trim_end()));
            label = "    ".to_owned();
        }
        field(&mut line, style.width, &label, &escape(&event.text));
        // Coloured once it is laid out: an escape has no width.
        out.push_str(&line.replacen(&kind, &style.by_health(tone(&event.kind), &kind), 1));
    }
    out
}

/// What a kind of event means for the service.
fn tone(kind: &str) -> Health {
    match kind {
        "exited" | "failed" | "gave up" => Health::Down,
        "fired" | "changed" => Health::Wanting,
        "started" | "resolved" => Health::Good,
        _ => Health::Other,
    }
}
