//! One TOML file being read: its values with their places, and everything found wrong so far.
//!
//! The walk goes on after a mistake, so that one run tells all of them.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::error::{Diagnostic, Place, Severity, nearest};
use crate::model::limits;
use crate::model::text::escape;
use crate::model::units;

/// A value with its place.
pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

/// A key with its value.
#[derive(Clone, Copy)]
pub(crate) struct Field<'t> {
    pub(crate) key: &'t str,
    pub(crate) value: &'t Value<'t>,
}

/// The file, and what was found.
pub(crate) struct Document<'a> {
    file: &'a str,
    /// With its secrets blanked out.
    text: Cow<'a, str>,
    found: Vec<(usize, Diagnostic)>,
    /// Lines that are not TOML: what they would have said is unknown, so nothing is called missing.
    broken: Vec<usize>,
    /// The programs of its commands, with their places.
    pub(crate) programs: Vec<(PathBuf, Range<usize>)>,
}

impl<'a> Document<'a> {
    /// Parses a file as far as it is TOML.
    pub(crate) fn parse(file: &'a str, text: &'a str) -> (Self, Spanned<DeTable<'a>>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let (found, broken, programs) = (Vec::new(), Vec::new(), Vec::new());
        let mut document = Self { file, text: Cow::Borrowed(text), found, broken, programs };
        let mut line_end = 0;
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            // One mistake makes the parser stumble on until the end of its line.
            if span.start < line_end {
                continue;
            }
            if document.found.len() > limits::CONFIG_FINDINGS_MAX {
                break;
            }
            line_end = text
                .get(span.start..)
                .and_then(|rest| rest.find('\n'))
                .map_or(text.len(), |at| span.start + at);
            let line = Place::of(text, &span).line;
            document.error(span, escape(error.message()), None);
            document.broken.push(line);
        }
        (document, table)
    }

    /// A value that is not shown, whatever is found on its line.
    pub(crate) fn hide(&mut self, value: &Value<'_>) {
        let span = value.span();
        if self.text.get(span.clone()).is_some() {
            let blank = "*".repeat(span.len());
            self.text.to_mut().replace_range(span, &blank);
        }
    }

    /// Something is wrong.
    pub(crate) fn error(
        &mut self,
        at: Range<usize>,
        message: impl Into<String>,
        hint: Option<&str>,
    ) {
        self.report(Severity::Error, &at, message.into(), hint);
    }

    /// Something is probably not meant.
    pub(crate) fn warn(
        &mut self,
        at: Range<usize>,
        message: impl Into<String>,
        hint: Option<&str>,
    ) {
        self.report(Severity::Warning, &at, message.into(), hint);
    }

    /// Something is not there. Not said when a broken line may have held it.
    pub(crate) fn missing(
        &mut self,
        at: Option<Range<usize>>,
        message: impl Into<String>,
        hint: &str,
    ) {
        match at {
            _ if !self.broken.is_empty() => {}
            Some(at) => self.error(at, message, Some(hint)),
            None => {
                let (message, hint) = (message.into(), Some(hint.to_owned()));
                let whole = Diagnostic::of_file(Severity::Error, self.file, message, hint);
                self.found.push((usize::MAX, whole));
            }
        }
    }

    fn report(
        &mut self,
        severity: Severity,
        at: &Range<usize>,
        message: String,
        hint: Option<&str>,
    ) {
        if self.found.len() > limits::CONFIG_FINDINGS_MAX {
            return;
        }
        let place = Place::of(&self.text, at);
        if self.broken.contains(&place.line) {
            return;
        }
        let (file, hint) = (escape(self.file).into(), hint.map(str::to_owned));
        self.found
            .push((at.start, Diagnostic { severity, file, place: Some(place), message, hint }));
    }

    /// What was found, in the order of the file.
    pub(crate) fn findings(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|(at, _)| *at);
        let more = self.found.len() > limits::CONFIG_FINDINGS_MAX;
        let mut found: Vec<_> = self.found.into_iter().map(|(_, diagnostic)| diagnostic).collect();
        if more {
            found.truncate(limits::CONFIG_FINDINGS_MAX);
            let message = "there is more; mend these first".to_owned();
            found.push(Diagnostic::of_file(Severity::Error, self.file, message, None));
        }
        found
    }

    /// Refuses every key that is not in `known`, those of `later` versions with what to do instead.
    pub(crate) fn known_keys(
        &mut self,
        table: &DeTable<'_>,
        known: &[&str],
        misplaced: &[&str],
        later: &[(&str, &str)],
    ) {
        for (key, _) in table {
            let (name, at) = (key.get_ref().as_ref(), key.span());
            if known.contains(&name) || misplaced.contains(&name) {
                continue;
            }
            if self.found.len() > limits::CONFIG_FINDINGS_MAX {
                break;
            }
            if let Some((_, hint)) = later.iter().find(|(word, _)| *word == name) {
                self.error(at, format!("`{name}` is not in this version yet"), Some(hint));
                continue;
            }
            let near = nearest(name, known.iter().copied());
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known keys: {}", known.join(", ")),
            };
            self.error(at, format!("unknown key `{}`", shorten(name)), Some(&hint));
        }
    }

    /// Refuses keys that are known, but not here. They are to be left to this by
    /// [`Document::known_keys`].
    pub(crate) fn misplaced(&mut self, table: &DeTable<'_>, keys: &[&str], what: &str, hint: &str) {
        for at in keys.iter().filter_map(|key| field(table, key)) {
            self.error(at.value.span(), format!("`{}` {what}", at.key), Some(hint));
        }
    }

    /// A word of a closed list.
    pub(crate) fn word(&mut self, field: Field<'_>, kind: &str, known: &[&str]) -> Option<String> {
        let text = self.string(field, known.first().copied().unwrap_or_default())?;
        if known.contains(&text) {
            return Some(text.to_owned());
        }
        let hint = match nearest(text, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are: {}", known.join(", ")),
        };
        self.error(field.value.span(), format!("`{}` is not {kind}", shorten(text)), Some(&hint));
        None
    }

    /// A text: not empty, no NUL, on one line.
    pub(crate) fn string<'t>(&mut self, field: Field<'t>, example: &str) -> Option<&'t str> {
        let DeValue::String(text) = field.value.get_ref() else {
            let hint = format!("for example: {} = {example:?}", field.key);
            self.expected("a text in quotes", field, Some(&hint));
            return None;
        };
        if text.trim().is_empty() {
            self.error(field.value.span(), format!("`{}` is empty", field.key), None);
            return None;
        }
        if text.contains('\0') {
            self.error(field.value.span(), format!("`{}` has a NUL byte in it", field.key), None);
            return None;
        }
        Some(text)
    }

    /// An absolute path.
    pub(crate) fn path(&mut self, field: Field<'_>) -> Option<PathBuf> {
        let text = self.string(field, "/absolute/path")?;
        if text.starts_with('/') {
            return Some(PathBuf::from(text));
        }
        let message = format!("`{}` is not an absolute path", field.key);
        self.error(
            field.value.span(),
            message,
            Some("begin it with /; ~ and variables are not replaced here"),
        );
        None
    }

    /// A duration of at least `floor`.
    pub(crate) fn duration(&mut self, field: Field<'_>, floor: Duration) -> Option<Duration> {
        let DeValue::String(text) = field.value.get_ref() else {
            let hint = format!("write a duration with its unit: {} = \"10s\"", field.key);
            self.expected("a duration", field, Some(&hint));
            return None;
        };
        match units::parse_duration(text) {
            Ok(span) if span >= floor => Some(span),
            Ok(_) => {
                let least = units::show_duration(floor);
                self.error(
                    field.value.span(),
                    format!("`{}` must be at least {least}", field.key),
                    None,
                );
                None
            }
            Err(error) => {
                let (message, hint) = error.0.split_once("; ").unwrap_or((&error.0, ""));
                let message = format!("`{}`: {}", field.key, escape(message));
                self.error(field.value.span(), message, Some(hint).filter(|hint| !hint.is_empty()));
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(crate) fn number(
        &mut self,
        field: Field<'_>,
        within: RangeInclusive<u32>,
        example: &str,
    ) -> Option<u32> {
        let number = field.value.get_ref().as_integer();
        let number = number
            .and_then(|number| u32::from_str_radix(number.as_str(), number.radix()).ok())
            .filter(|number| within.contains(number));
        if number.is_none() {
            let what = format!("a number from {} to {}", within.start(), within.end());
            let hint = format!("for example: {} = {example}", field.key);
            self.expected(&what, field, Some(&hint));
        }
        number
    }

    /// true or false.
    pub(crate) fn boolean(&mut self, field: Field<'_>) -> Option<bool> {
        let found = field.value.get_ref().as_bool();
        if found.is_none() {
            self.expected("true or false", field, None);
        }
        found
    }

    /// A table.
    pub(crate) fn table<'t>(&mut self, field: Field<'t>, hint: &str) -> Option<&'t DeTable<'t>> {
        let found = field.value.get_ref().as_table();
        if found.is_none() {
            self.expected("a table", field, Some(hint));
        }
        found
    }

    /// The elements of a list.
    pub(crate) fn list<'t>(&mut self, field: Field<'t>, hint: &str) -> Option<Vec<Field<'t>>> {
        let Some(array) = field.value.get_ref().as_array() else {
            self.expected("a list", field, Some(hint));
            return None;
        };
        Some(array.iter().map(|value| Field { key: field.key, value }).collect())
    }

    /// The value is of another type than it has to be.
    pub(crate) fn expected(&mut self, what: &str, field: Field<'_>, hint: Option<&str>) {
        let found = match field.value.get_ref() {
            DeValue::String(_) => "a text".to_owned(),
            DeValue::Integer(number) => format!("the number {}", shorten(&number.to_string())),
            DeValue::Float(number) => format!("the number {}", shorten(number.as_str())),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.error(
            field.value.span(),
            format!("`{}` has to be {what}, not {found}", field.key),
            hint,
        );
    }

    /// The place in the file of a range within the text of a string value.
    pub(crate) fn within(&self, value: &Value<'_>, inner: &Range<usize>) -> Range<usize> {
        let span = value.span();
        let found = self.text.get(span.clone()).zip(value.get_ref().as_str());
        // With escapes in the string its text is not found as it is: then the whole string is
        // marked.
        match found.and_then(|(raw, text)| raw.find(text)) {
            Some(at) => span.start + at + inner.start..span.start + at + inner.end,
            None => span,
        }
    }
}

/// The value of a key, where it is there, read by `read`.
pub(crate) fn get<'d, 't, T>(
    document: &mut Document<'d>,
    table: &'t DeTable<'t>,
    key: &'t str,
    read: impl FnOnce(&mut Document<'d>, Field<'t>) -> Option<T>,
) -> Option<T> {
    field(table, key).and_then(|field| read(document, field))
}

/// A key with its value, where it is there.
pub(crate) fn field<'t>(table: &'t DeTable<'t>, key: &'t str) -> Option<Field<'t>> {
    table.get(key).map(|value| Field { key, value })
}

/// A foreign word made fit for a message.
pub(crate) fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut out = escape(&text.chars().take(CHARS_MAX).collect::<String>());
    if text.chars().nth(CHARS_MAX).is_some() {
        out.push_str("...");
    }
    out
}
