//! The keys that a check type declares for itself: read, placed, and handed to it.

use std::time::Duration;

use regex::bytes::RegexBuilder;
use toml::de::{DeTable, DeValue};

use crate::checks::given::{Given, Key, KeyKind, Setting, Wrong};
use crate::checks::{CheckType, Probe};
use crate::config::command::command;
use crate::config::document::{Document, Field, Value, field, shorten};
use crate::model::limits;
use crate::model::text::escape;
use crate::model::units;

/// Reads the keys of a type, and makes its settings of them. `whole` is the check's table.
pub(crate) fn probe(
    doc: &mut Document<'_>,
    whole: &Value<'_>,
    table: &DeTable<'_>,
    kind: &CheckType,
) -> Option<Probe> {
    let mut given = Given::default();
    let mut good = true;
    for key in kind.keys {
        let Some(at) = field(table, key.name) else { continue };
        match setting(doc, at, key) {
            Some(setting) => given.put(key.name, setting),
            None => good = false,
        }
    }
    if !good {
        // What is wrong was said; what depends on it would only be noise.
        return None;
    }
    match (kind.read)(&given) {
        Ok(probe) => Some(probe),
        Err(wrong) => {
            for Wrong { key, message, hint } in wrong {
                match field(table, key) {
                    Some(at) => doc.error(at.value.span(), message, hint.as_deref()),
                    None => {
                        let hint = hint.unwrap_or_else(|| example(kind.keys, key));
                        doc.missing(Some(whole.span()), message, &hint);
                    }
                }
            }
            None
        }
    }
}

fn example(keys: &[Key], name: &str) -> String {
    let key = keys.iter().find(|key| key.name == name);
    key.map(|key| format!("for example: {name} = {:?}", key.example)).unwrap_or_default()
}

fn setting(doc: &mut Document<'_>, at: Field<'_>, key: &Key) -> Option<Setting> {
    match key.kind {
        KeyKind::Text => {
            let text = doc.string(at, key.example)?;
            if text.contains(['\n', '\r']) {
                doc.error(at.value.span(), format!("`{}` has to be one line", at.key), None);
                return None;
            }
            Some(Setting::Text(text.to_owned()))
        }
        KeyKind::Bytes => {
            let text = doc.string(at, key.example)?;
            Some(Setting::Text(text.to_owned()))
        }
        KeyKind::Pattern => pattern(doc, at, key.example).map(Setting::Text),
        KeyKind::Path => doc.path(at).map(Setting::Path),
        KeyKind::Duration { floor_ms } => {
            doc.duration(at, Duration::from_millis(floor_ms)).map(Setting::Duration)
        }
        KeyKind::Size => size(doc, at, key.example).map(Setting::Number),
        KeyKind::Number { min, max } => number(doc, at, min, max, key.example).map(Setting::Number),
        KeyKind::Flag => doc.boolean(at).map(Setting::Flag),
        KeyKind::OneOf(words) => {
            doc.word(at, &format!("a value of `{}`", at.key), words).map(Setting::Text)
        }
        KeyKind::Words => words(doc, at, key.example).map(Setting::Words),
        KeyKind::Pairs => pairs(doc, at, key.example).map(Setting::Pairs),
        KeyKind::Command => command(doc, at).map(Setting::Command),
    }
}

/// A regular expression for bytes, compiled once to be sure of it.
fn pattern(doc: &mut Document<'_>, at: Field<'_>, example: &str) -> Option<String> {
    let text = doc.string(at, example)?;
    if text.len() > limits::PATTERN_BYTES_MAX {
        let message = format!("`{}` is longer than {} bytes", at.key, limits::PATTERN_BYTES_MAX);
        doc.error(at.value.span(), message, None);
        return None;
    }
    match RegexBuilder::new(text).size_limit(limits::REGEX_BYTES_MAX).build() {
        Ok(_) => Some(text.to_owned()),
        Err(error) => {
            let why = error.to_string();
            let last = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let message = format!("`{}` is not a regular expression: {}", at.key, escape(last));
            doc.error(at.value.span(), message, Some("see https://docs.rs/regex#syntax"));
            None
        }
    }
}

fn size(doc: &mut Document<'_>, at: Field<'_>, example: &str) -> Option<u64> {
    let text = doc.string(at, example)?;
    match units::parse_size(text) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            doc.error(at.value.span(), format!("`{}`: {}", at.key, escape(&error.0)), None);
            None
        }
    }
}

fn number(doc: &mut Document<'_>, at: Field<'_>, min: u64, max: u64, example: &str) -> Option<u64> {
    let number = integer(at.value).filter(|number| (min..=max).contains(number));
    if number.is_none() {
        let hint = format!("for example: {} = {example}", at.key);
        doc.expected(&format!("a number from {min} to {max}"), at, Some(&hint));
    }
    number
}

fn integer(value: &Value<'_>) -> Option<u64> {
    let number = value.get_ref().as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A text or a number, or a list of them.
fn words(doc: &mut Document<'_>, at: Field<'_>, example: &str) -> Option<Vec<String>> {
    let items = match at.value.get_ref() {
        DeValue::Array(_) => doc.list(at, "")?,
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => vec![at],
    };
    if items.is_empty() || items.len() > limits::WORDS_MAX {
        let message = format!("`{}` has to have 1 to {} entries", at.key, limits::WORDS_MAX);
        doc.error(at.value.span(), message, Some(&format!("for example: {} = {example}", at.key)));
        return None;
    }
    let mut out = Vec::new();
    for item in items {
        match integer(item.value) {
            Some(number) => out.push(number.to_string()),
            None => out.push(doc.string(item, example)?.to_owned()),
        }
    }
    Some(out)
}

/// A table of texts.
fn pairs(doc: &mut Document<'_>, at: Field<'_>, example: &str) -> Option<Vec<(String, String)>> {
    let table = doc.table(at, &format!("for example: {} = {example}", at.key))?;
    if table.len() > limits::WORDS_MAX {
        let message = format!("`{}` has more than {} entries", at.key, limits::WORDS_MAX);
        doc.error(at.value.span(), message, None);
        return None;
    }
    let mut out: Vec<(usize, (String, String))> = Vec::new();
    for (name, value) in table {
        let DeValue::String(text) = value.get_ref() else {
            let message = format!("`{}` has to be a text", shorten(name.get_ref()));
            doc.error(value.span(), message, None);
            return None;
        };
        out.push((value.span().start, (name.get_ref().to_string(), text.to_string())));
    }
    // In the order of the file: headers may care.
    out.sort_by_key(|(at, _)| *at);
    Some(out.into_iter().map(|(_, pair)| pair).collect())
}
