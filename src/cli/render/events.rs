//! `heeler events`: one line each, oldest first.
#![forbid(unsafe_code)]

use crate::cli::render::Style;
use crate::cli::render::text::{columns, field};
use crate::model::text::escape;
use crate::wire::control::{Event, Health};

/// How wide the columns are before the text. They only grow, so that what follows stays in line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns {
    service: usize,
    kind: usize,
}

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
        wide.kind = wide.kind.max(columns(&escape(&event.kind)));
    }
    let mut out = String::new();
    for event in events {
        let mut label = format!("{}  ", style.moment_in_columns(event.at_unix_ms));
        if whose == Whose::Shown {
            label.push_str(&format!("{:<width$}  ", escape(&event.service), width = wide.service));
        }
        let kind = escape(&event.kind);
        label.push_str(&format!("{kind:<width$}  ", width = wide.kind));
        let mut line = String::new();
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
