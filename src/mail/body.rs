//! The text of a mail, for somebody who was asleep a minute ago: what and where, then the story, the
//! last output, what comes next, and what to type. 80 columns, at most [`limits::ALERT_BYTES_MAX`].

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::mail::{HostFacts, words};
use crate::model::incident::{Alert, Cause, StoryLine};
use crate::model::limits;
use crate::model::text::escape;
use crate::model::time::Wall;

const COLUMNS: usize = 80;
/// The shares of the text. Their sum, with the few fixed words, fits the bound.
const HEAD_BYTES: usize = 2 << 10;
const STORY_BYTES: usize = 8 << 10;
const OUTPUT_BYTES: usize = 3 << 10;
const NEXT_BYTES: usize = 1 << 10;
const OUTPUT_LINES: usize = 20;
const WORD_CHARS: usize = 400;

const _: () =
    assert!(HEAD_BYTES + STORY_BYTES + OUTPUT_BYTES + NEXT_BYTES + 1024 < limits::ALERT_BYTES_MAX);

/// The whole text.
pub(super) fn text(alert: &Alert, host: &HostFacts) -> String {
    let mut out = String::new();
    head(&mut out, alert, host);
    story(&mut out, alert, &host.zone);
    output(&mut out, alert);
    let next = escape(alert.next.trim());
    if !next.is_empty() {
        out.push_str("\nWhat happens next\n");
        out.push_str(&bounded(&wrapped(&next, "  ", "  "), NEXT_BYTES));
    }
    commands(&mut out, alert);
    out
}

fn head(out: &mut String, alert: &Alert, host: &HostFacts) {
    let hostname: String = escape(&host.hostname).chars().take(255).collect();
    let line = format!("{} on {hostname}: {}", alert.incident.service, words::sentence(alert));
    out.push_str(&bounded(&wrapped(&line, "", "  "), HEAD_BYTES));
}

/// The story with local times. Past the bound its middle goes: how it began and how it ended stay.
fn story(out: &mut String, alert: &Alert, zone: &TimeZone) {
    let incident = &alert.incident;
    if incident.story.is_empty() {
        return;
    }
    out.push_str(&format!("\nWhat happened ({})\n", zone_words(incident.opened, zone)));
    let blocks: Vec<_> = incident.story.iter().map(|line| block(line, zone)).collect();
    let (mut first, mut last) = (blocks.len(), blocks.len());
    let total: usize = blocks.iter().map(Block::len).sum();
    if total > STORY_BYTES || incident.dropped_lines > 0 {
        first = fitting(blocks.iter().map(Block::len), STORY_BYTES / 2).min(blocks.len() / 2);
        let rest = blocks[first..].iter().rev();
        last = blocks.len() - fitting(rest.map(Block::len), STORY_BYTES / 2);
    }
    let mut day = "";
    for (at, block) in blocks.iter().enumerate() {
        if (first..last).contains(&at) {
            continue;
        }
        if at == last {
            left_out(out, last - first, incident.dropped_lines);
        }
        if day != block.day {
            out.push_str(&format!("  {}\n", block.day));
            day = &block.day;
        }
        out.push_str(&block.text);
    }
}

fn left_out(out: &mut String, here: usize, before: u32) {
    let lines = here.saturating_add(usize::try_from(before).unwrap_or(usize::MAX));
    out.push_str(&format!("  [... {lines} more ...]\n"));
}

/// How many of these lengths fit.
fn fitting(lengths: impl Iterator<Item = usize>, bytes_max: usize) -> usize {
    let mut left = bytes_max;
    lengths.take_while(|length| left.checked_sub(*length).map(|rest| left = rest).is_some()).count()
}

/// One line of the story, shown.
struct Block {
    day: String,
    text: String,
}

impl Block {
    /// As if each had its day over it: an upper bound.
    fn len(&self) -> usize {
        self.day.len() + 3 + self.text.len()
    }
}

fn block(line: &StoryLine, zone: &TimeZone) -> Block {
    const LINE_BYTES: usize = 1 << 10;
    let (day, time) = match local(line.at) {
        Some(at) => {
            let at = at.to_zoned(zone.clone());
            (at.strftime("%A, %Y-%m-%d").to_string(), at.strftime("%H:%M:%S%.3f").to_string())
        }
        None => (String::from("at an unknown time"), String::from("--:--:--.---")),
    };
    let text = escape(line.text.trim());
    let shown = wrapped(&text, &format!("  {time}  "), &" ".repeat(16));
    Block { day, text: bounded(&shown, LINE_BYTES) }
}

/// A moment, short, for a list.
pub(super) fn clock(at: Wall, zone: &TimeZone) -> String {
    local(at).map_or_else(
        || "at an unknown time".to_owned(),
        |at| at.to_zoned(zone.clone()).strftime("%a %H:%M:%S").to_string(),
    )
}

fn zone_words(at: Wall, zone: &TimeZone) -> String {
    let Some(at) = local(at) else {
        return "times are local".to_owned();
    };
    let at = at.to_zoned(zone.clone());
    match at.strftime("%Z").to_string() {
        name if name.starts_with(['+', '-']) => format!("times are UTC{}", at.strftime("%:z")),
        name if name == "UTC" => "times are UTC".to_owned(),
        name => format!("times are {name}, UTC{}", at.strftime("%:z")),
    }
}

fn local(at: Wall) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

/// The last lines of what a command printed, behind a bar, so that none of them can look like ours.
fn output(out: &mut String, alert: &Alert) {
    let mut lines = alert.incident.output.lines();
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    if lines.is_empty() {
        return;
    }
    let shown: Vec<_> =
        lines.iter().map(|line| format!("  | {}\n", words::cut(line, WORD_CHARS))).collect();
    let fit = fitting(shown.iter().rev().take(OUTPUT_LINES).map(String::len), OUTPUT_BYTES);
    out.push_str("\nThe last that the command printed\n");
    if fit < shown.len() {
        out.push_str(&format!("  [... {} lines before ...]\n", shown.len() - fit));
    }
    out.extend(shown[shown.len() - fit..].iter().map(String::as_str));
}

/// What to type.
fn commands(out: &mut String, alert: &Alert) {
    let name = &alert.incident.service;
    out.push_str("\nTo look\n");
    if name.is_heelers() {
        out.push_str("  heeler status\n");
    } else {
        let first = match alert.incident.cause {
            Cause::StuckWorker => "workers",
            Cause::Down
            | Cause::SetAside
            | Cause::UpUnwanted
            | Cause::Definition
            | Cause::Unkillable
            | Cause::Unclear
            | Cause::Check(..)
            | Cause::CheckUnknown(..)
            | Cause::Hazard(_) => "status",
        };
        out.push_str(&format!("  heeler why {name}\n  heeler {first} {name}\n"));
    }
    if alert.incident.closed.is_some() {
        return;
    }
    let (title, command) = match alert.incident.cause {
        Cause::Down => ("To start it by hand", "start"),
        Cause::SetAside => ("To have it up and watched again", "start"),
        Cause::UpUnwanted => ("To have it stopped, or to want it up", "stop"),
        Cause::Definition => {
            let mended = "\nWhen it is mended, to have it read again\n  heeler reload-config\n";
            out.push_str(mended);
            return;
        }
        Cause::Unkillable
        | Cause::Unclear
        | Cause::Check(..)
        | Cause::CheckUnknown(..)
        | Cause::Hazard(_)
        | Cause::StuckWorker => ("To have heeler leave it alone while you work on it", "unmonitor"),
    };
    out.push_str(&format!("\n{title}\n  heeler {command} {name}\n"));
    if alert.incident.cause == Cause::UpUnwanted {
        out.push_str(&format!("  heeler start {name}\n"));
    }
}

/// Words in lines of at most 80 characters. A longer word (a path, a URL) stays whole, up to a bound
/// that keeps every line within what RFC 5322 allows.
fn wrapped(text: &str, first: &str, next: &str) -> String {
    let (mut out, mut line) = (String::new(), first.to_owned());
    let mut empty = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let word = words::cut(word, WORD_CHARS);
        if !empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            out.push_str(&line);
            out.push('\n');
            line = next.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(&word);
        empty = false;
    }
    out.push_str(&line);
    out.push('\n');
    out
}

/// A text that ends with a line break, cut to so many bytes.
fn bounded(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max - 4).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...\n", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_at_80_and_long_words_stay_whole() {
        let text = wrapped(&"word ".repeat(40), "  ", "    ");
        assert!(text.lines().all(|line| line.len() <= COLUMNS && line.starts_with("  ")), "{text}");
        let path = format!("/{}", "x".repeat(200));
        assert_eq!(
            wrapped(&format!("see {path} there"), "", " "),
            format!("see\n {path}\n there\n")
        );
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        for bytes in 8..40 {
            let text = bounded(&format!("{}\n", "\u{1f415}".repeat(20)), bytes);
            assert!(text.len() <= bytes && text.ends_with('\n'), "{bytes}: {text}");
        }
    }
}
