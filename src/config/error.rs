//! What is wrong in a configuration file, shown in the manner of rustc: file, line, column, the
//! source line with a caret, and what would be right.
//!
//! A [`Diagnostic`] carries its own excerpt of the source, so it can be kept and rendered without
//! the file. Excerpts and messages are bounded and escaped: a file's author cannot reach the
//! terminal.

use std::fmt;
use std::ops::Range;

use codespan_reporting::diagnostic as cs;
use codespan_reporting::files::{Error, Files};
use codespan_reporting::term;

use crate::model::text::escape;

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file as people know it; escaped.
    pub file: Box<str>,
    /// Where in the file; `None` when it is about the file as a whole.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used.
    Warning,
}

impl Severity {
    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A place in a file, with the part of the source line that is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    excerpt: String,
    mark: Range<usize>,
}

impl Diagnostic {
    /// A finding about a file as a whole.
    #[must_use]
    pub fn of_file(severity: Severity, file: &str, message: String, hint: Option<String>) -> Self {
        Self { severity, file: escape(file).into(), place: None, message, hint }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render(std::slice::from_ref(self)))
    }
}

/// Findings and how many there are, in so many services.
#[must_use]
pub fn summary(findings: &[Diagnostic], services: usize) -> String {
    let count = |n: usize, what: &str| match n {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    };
    let errors = findings.iter().filter(|found| found.severity == Severity::Error).count();
    let warnings = findings.len() - errors;
    let mut out = render(findings);
    out.push_str(&format!("{}, {}", count(services, "service"), count(errors, "error")));
    if warnings > 0 {
        out.push_str(&format!(", {}", count(warnings, "warning")));
    }
    out.push('\n');
    out
}

/// Shows findings as plain text, a blank line after each.
#[must_use]
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let config = term::Config { chars: term::Chars::ascii(), ..term::Config::default() };
    let mut out = String::new();
    for found in diagnostics {
        let severity = match found.severity {
            Severity::Error => cs::Severity::Error,
            Severity::Warning => cs::Severity::Warning,
        };
        let Some(place) = &found.place else {
            let header =
                format!("{}: {}\n --> {}\n", found.severity.name(), found.message, found.file);
            out.push_str(&header);
            out.extend(found.hint.iter().map(|hint| format!("  = help: {hint}\n")));
            out.push('\n');
            continue;
        };
        let shown = cs::Diagnostic::new(severity)
            .with_message(&found.message)
            .with_label(cs::Label::primary((), place.mark.clone()))
            .with_notes_iter(found.hint.iter().map(|hint| format!("help: {hint}")));
        let excerpt = Excerpt { file: &found.file, place };
        let from = out.len();
        if term::emit_to_string(&mut out, &config, &excerpt, &shown).is_err() {
            // Only a caret beyond its own excerpt could do this; the message must be seen even so.
            out.truncate(from);
            out.push_str(&format!("{}: {}\n\n", found.severity.name(), found.message));
        }
    }
    out
}

impl Place {
    /// The place of a range of bytes in `text`. A range over several lines is shown on its first.
    #[must_use]
    pub fn of(text: &str, span: &Range<usize>) -> Self {
        let start = floor(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor(text, span.end.clamp(start, line_end));
        let from = floor(text, line_start.max(start.saturating_sub(EXCERPT_BEFORE_BYTES)));
        let to = floor(text, line_end.min(from + EXCERPT_BYTES_MAX)).max(start);
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            excerpt: blank(&text[from..to]),
            mark: start - from..end.min(to) - from,
        }
    }
}

const EXCERPT_BEFORE_BYTES: usize = 80;
const EXCERPT_BYTES_MAX: usize = 160;

/// The last character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The text with what could move a cursor replaced by as many bytes that cannot, so that places
/// hold.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let harmless = c == '\t' || escape(c.encode_utf8(&mut [0; 4])).starts_with(c);
        match c.len_utf8() {
            _ if harmless => out.push(c),
            3 => out.push('\u{fffd}'),
            _ if c == '\r' => out.push(' '),
            len => out.extend(std::iter::repeat_n('?', len)),
        }
    }
    out
}

/// One line of a file as codespan wants to see files.
struct Excerpt<'a> {
    file: &'a str,
    place: &'a Place,
}

impl<'a> Files<'a> for Excerpt<'a> {
    type FileId = ();
    type Name = &'a str;
    type Source = &'a str;

    fn name(&'a self, (): ()) -> Result<&'a str, Error> {
        Ok(self.file)
    }

    fn source(&'a self, (): ()) -> Result<&'a str, Error> {
        Ok(&self.place.excerpt)
    }

    fn line_index(&'a self, (): (), _: usize) -> Result<usize, Error> {
        Ok(0)
    }

    fn line_number(&'a self, (): (), _: usize) -> Result<usize, Error> {
        Ok(self.place.line)
    }

    fn column_number(&'a self, (): (), _: usize, _: usize) -> Result<usize, Error> {
        Ok(self.place.column)
    }

    fn line_range(&'a self, (): (), _: usize) -> Result<Range<usize>, Error> {
        Ok(0..self.place.excerpt.len())
    }
}

/// The word of `known` that `word` was probably meant to be.
#[must_use]
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > NEAREST_BYTES_MAX {
        return None;
    }
    let allowed = (word.chars().count() / 3).max(1);
    let near = known.into_iter().map(|name| (distance(word, name), name));
    near.filter(|(steps, _)| *steps <= allowed)
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, name)| name)
}

const NEAREST_BYTES_MAX: usize = 64;

/// How many letters must be changed, added, dropped or swapped with their neighbour (optimal string
/// alignment), case ignored.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| text.to_lowercase().chars().collect::<Vec<_>>();
    let (a, b) = (letters(a), letters(b));
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, span: Range<usize>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            file: "conf.d/shop.toml".into(),
            place: Some(Place::of(text, &span)),
            message: "unknown key `memry`".to_owned(),
            hint: Some("did you mean `memory`?".to_owned()),
        }
    }

    #[test]
    fn it_looks_as_rustc_does() {
        let text = "user = \"x\"\n  memry = 5\n";
        assert_eq!(
            at(text, 13..18).to_string(),
            "error: unknown key `memry`\n  --> conf.d/shop.toml:2:3\n  |\n\
             2 |   memry = 5\n  |   ^^^^^\n  |\n  = help: did you mean `memory`?\n\n"
        );
    }

    #[test]
    fn a_file_cannot_reach_the_terminal_nor_flood_it() {
        let text = format!("a = \"\u{1b}[2J\u{9b}2J\u{202e}é\r{}\"", "x".repeat(1 << 20));
        for span in [0..1, 4..8, 30..text.len(), text.len()..text.len(), 6..7, 10..11] {
            let shown = at(&text, span).to_string();
            let hostile = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
            assert!(!shown.contains(hostile), "{shown:?}");
            assert!(shown.len() < 1000, "{}", shown.len());
        }
    }

    #[test]
    fn the_nearest_spelling() {
        let keys = ["pidfile", "match", "every", "alert"];
        for (wrong, right) in
            [("pidfle", "pidfile"), ("evrey", "every"), ("Match", "match"), ("alertt", "alert")]
        {
            assert_eq!(nearest(wrong, keys), Some(right));
        }
        assert_eq!(nearest("quux", keys), None);
        assert_eq!(nearest("", keys), None);
        assert_eq!(nearest(&"a".repeat(1 << 20), keys), None);
    }
}
