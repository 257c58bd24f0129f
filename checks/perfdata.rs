//! What a Nagios plugin prints: a line for people, more of them, and numbers.
//!
//! ```text
//! TEXT | 'label'=value[UOM];[warn];[crit];[min];[max] ...
//! long text
//! long text | more numbers
//! still more numbers
//! ```
//!
//! Source: Monitoring Plugins Development Guidelines, "Plugin Output for Nagios" and "Performance data";
//! Nagios Core manual, "Plugin API". The thresholds behind a number are what the plugin judged by itself:
//! its exit code has them in it already, so they are passed over.
//!
//! All of it is a stranger's text. A number that cannot be had exactly enough is no number: negative, too
//! large, `U`, of a label that comes twice with two values.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::limits::{PERFDATA_LABEL_BYTES_MAX, PERFDATA_MAX};
use crate::model::metric::{Metric, Value};

/// How the names of these metrics begin.
pub const PREFIX: &str = "perfdata.";

/// The first line without its numbers.
#[must_use]
pub fn summary(text: &str) -> &str {
    let first = text.lines().next().unwrap_or_default();
    first.split_once('|').map_or(first, |(people, _)| people).trim()
}

/// The numbers, each under `perfdata.LABEL`. What a condition could not name is written `_` in a label.
#[must_use]
pub fn metrics(text: &str) -> Vec<(Metric, Value)> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let parts = [first, rest].map(|part| part.split_once('|').map_or("", |(_, numbers)| numbers));
    let mut found: BTreeMap<String, Option<Value>> = BTreeMap::new();
    for part in parts {
        let mut rest = part.trim_start();
        while !rest.is_empty() && found.len() < PERFDATA_MAX {
            let (label, after) = label(rest);
            let end = after.find(char::is_whitespace).unwrap_or(after.len());
            if let Some((label, number)) = label.zip(after[..end].strip_prefix('='))
                && !label.is_empty()
                && label.len() <= PERFDATA_LABEL_BYTES_MAX
            {
                let value = value(number.split(';').next().unwrap_or_default());
                let known = found.entry(name(&label)).or_insert(value);
                // Which of the two is meant nobody can tell.
                *known = known.filter(|known| Some(*known) == value);
            }
            rest = after[end..].trim_start();
        }
    }
    let exact = found.into_iter().filter_map(|(name, value)| Some((name, value?)));
    exact.map(|(name, value)| (Metric::Perfdata(name.into()), value)).collect()
}

/// A label, and what comes after it. One in quotes has `''` for a quote.
fn label(text: &str) -> (Option<String>, &str) {
    if let Some(quoted) = text.strip_prefix('\'') {
        let mut label = String::new();
        let mut chars = quoted.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c == '\'' && chars.next_if(|(_, next)| *next == '\'').is_none() {
                return (Some(label), &quoted[at + 1..]);
            }
            label.push(c);
        }
        // Never closed: where the labels behind it begin nobody can tell.
        return (None, "");
    }
    let end = text.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(text.len());
    (Some(text[..end].to_owned()), &text[end..])
}

/// The name of a label's metric: characters that a condition has no place for become `_`.
fn name(label: &str) -> String {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '%' | '-' | '/');
    let label = label.chars().map(|c| if word(c) { c } else { '_' });
    PREFIX.chars().chain(label).collect()
}

/// A number with its unit.
fn value(text: &str) -> Option<Value> {
    let (number, unit) = Number::parse(text)?;
    let factor = |known: &[(&str, u128)]| {
        known.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
    };
    if let Some(factor_ns) = factor(&SPANS_NS) {
        return number.times(factor_ns).map(Duration::from_nanos).map(Value::Duration);
    }
    if let Some(factor) = factor(&SIZES) {
        return number.times(factor).map(Value::Bytes);
    }
    match unit {
        "%" => number.times(1000).map(Value::Percent),
        // None, a counter's `c`, or one that heeler does not know: the number itself.
        _ if unit.chars().all(char::is_alphabetic) => number.times(1000).map(Value::Decimal),
        _ => None,
    }
}

const SPANS_NS: [(&str, u128); 4] =
    [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1)];
/// As in a condition: whoever writes what the plugin prints compares like with like.
const SIZES: [(&str, u128); 12] = [
    ("B", 1),
    ("KB", 1000),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

/// A number that is not negative: `digits` times ten to the power of `exponent`.
struct Number {
    digits: u128,
    exponent: i32,
}

impl Number {
    /// A number at the beginning of a text, and what comes after it.
    fn parse(text: &str) -> Option<(Self, &str)> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let run = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = rest.split_at(run(rest));
        let (part, rest) = match rest.strip_prefix('.') {
            Some(after) => after.split_at(run(after)),
            None => ("", rest),
        };
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let part = part.trim_end_matches('0');
        let digits = format!("0{whole}{part}").parse().ok()?;
        if negative && digits != 0 {
            return None;
        }
        let (power, rest) = power(rest).unwrap_or((0, rest));
        let exponent = power.checked_sub(i32::try_from(part.len()).ok()?)?;
        Some((Self { digits, exponent }, rest))
    }

    /// The number times a factor, without what is left behind the point.
    fn times(&self, factor: u128) -> Option<u64> {
        let product = self.digits.checked_mul(factor)?;
        let shift = 10_u128.checked_pow(self.exponent.unsigned_abs());
        let exact = match (self.exponent >= 0, shift) {
            (true, _) if product == 0 => 0,
            (true, shift) => product.checked_mul(shift?)?,
            (false, Some(shift)) => product / shift,
            // Smaller than anything that is counted here.
            (false, None) => 0,
        };
        u64::try_from(exact).ok()
    }
}

/// `e-05`, as some languages print small numbers.
fn power(text: &str) -> Option<(i32, &str)> {
    let rest = text.strip_prefix(['e', 'E'])?;
    let (sign, rest) = match rest.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, rest.strip_prefix('+').unwrap_or(rest)),
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let power: i32 = rest[..digits].parse().ok()?;
    Some((power.checked_mul(sign)?, &rest[digits..]))
}
