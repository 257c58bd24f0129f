//! What an operator sees. Pure: the same answer and style give the same text. Every text of the answer
//! is escaped here, whoever escaped it before.
#![forbid(unsafe_code)]

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::model::text::escape;
use crate::model::units;
use crate::wire::control::{Health, ServiceStatus};

mod detail;
mod doctor;
mod events;
mod mail;
mod probe;
mod state;
mod table;
mod text;
mod why;
mod workers;

pub use detail::detail;
pub use doctor::doctor;
pub use events::{Columns, Whose, events};
pub use mail::{mail_line, mail_test};
pub use probe::probe;
pub use state::state_line;
pub use table::table;
pub use why::why;
pub use workers::workers;

/// How to show.
#[derive(Clone, Debug)]
pub struct Style {
    /// Columns to fit into; unlimited when `None`.
    pub width: Option<usize>,
    /// Whether to use colour.
    pub colour: bool,
    /// The zone that times are shown in.
    pub zone: TimeZone,
    /// Now, in milliseconds since 1970.
    pub now_unix_ms: u64,
}

impl Style {
    /// A moment as short as it is clear: the time today, the day and time this year, else the date.
    fn moment(&self, unix_ms: u64) -> String {
        let (Some(then), Some(now)) = (self.zoned(unix_ms), self.zoned(self.now_unix_ms)) else {
            return "?".to_owned();
        };
        let format = if then.date() == now.date() {
            "%H:%M:%S"
        } else if then.year() == now.year() {
            "%b %d %H:%M"
        } else {
            "%Y-%m-%d"
        };
        then.strftime(format).to_string()
    }

    /// A moment in full.
    fn date_and_time(&self, unix_ms: u64) -> String {
        let then = self.zoned(unix_ms);
        then.map_or_else(|| "?".to_owned(), |then| then.strftime("%Y-%m-%d %H:%M:%S").to_string())
    }

    /// A moment in full, and how long ago it was.
    fn date_and_age(&self, unix_ms: u64) -> String {
        let age_ms = self.now_unix_ms.saturating_sub(unix_ms);
        format!("{} ({} ago)", self.date_and_time(unix_ms), span(age_ms))
    }

    fn zoned(&self, unix_ms: u64) -> Option<jiff::Zoned> {
        let ms = i64::try_from(unix_ms).ok()?;
        Some(Timestamp::from_millisecond(ms).ok()?.to_zoned(self.zone.clone()))
    }

    /// Coloured by health; the text may be padded already.
    fn by_health(&self, health: Health, text: &str) -> String {
        let code = match health {
            Health::Good => "32",
            Health::Wanting => "33",
            Health::Down => "31",
            Health::SetAside | Health::Other => return text.to_owned(),
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A span without its milliseconds, which tell a person nothing here.
fn span(ms: u64) -> String {
    match ms / 1000 {
        0 => "0s".to_owned(),
        seconds => units::show_duration(Duration::from_secs(seconds)),
    }
}

/// A span with its milliseconds.
fn span_exact(ms: u64) -> String {
    units::show_duration(Duration::from_millis(ms))
}

fn cpu(service: &ServiceStatus) -> Option<String> {
    service.cpu_milli_percent.map(units::show_percent)
}

fn memory(service: &ServiceStatus) -> Option<String> {
    service.memory_bytes.map(units::show_size)
}

/// `label: text`, or the text alone where it begins with the label, or is the label with its values.
fn check_text(label: &str, text: &str) -> String {
    // A name somebody gave has brackets of its own.
    let condition =
        !label.contains('(') && without_values(text).starts_with(&without_values(label));
    let same = text.starts_with(label) || condition;
    if same { escape(text) } else { escape(&format!("{label}: {text}")) }
}

/// A condition as it is written, but for its blanks.
fn without_values(text: &str) -> String {
    let mut depth = 0_u32;
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}
