//! Numbers with units as people write them, both ways: `10s`, `1h30m`, `2600MiB`, `95%`.

use std::fmt;
use std::time::Duration;

/// Why a text is not a duration, size or percent. Its `Display` says what would be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitError(pub String);

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const DURATIONS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];
const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Parses `500ms`, `10s`, `5m`, `2h`, `7d`, `1h30m`: whole numbers, each with its unit, largest first.
///
/// # Errors
/// On anything else; a bare number is told that its unit is missing.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let fail = |why: &str| {
        UnitError(format!("{why}; write a duration as 500ms, 10s, 5m, 2h, 7d or 1h30m"))
    };
    let (mut rest, mut total, mut last) = (text.trim(), 0u64, u64::MAX);
    if rest.is_empty() {
        return Err(fail("the duration is empty"));
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(|| fail("this is not a duration"))?;
        let word = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit = &after[..word];
        if unit.is_empty() {
            return Err(fail("the unit is missing"));
        }
        let (_, scale_ms) = *DURATIONS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| fail(&format!("{unit:?} is not a unit of time")))?;
        if scale_ms >= last {
            return Err(fail("the units must go from large to small"));
        }
        last = scale_ms;
        total = number
            .checked_mul(scale_ms)
            .and_then(|ms| total.checked_add(ms))
            .filter(|ms| *ms <= DURATION_MS_MAX)
            .ok_or_else(|| fail("this is longer than ten years"))?;
        rest = &after[word..];
    }
    Ok(Duration::from_millis(total))
}

const DURATION_MS_MAX: u64 = 10 * 366 * 86_400_000;

/// Parses `2600MiB`, `1.5GB`, `512KB`: `KB MB GB` are powers of 1000, `KiB MiB GiB` of 1024. In bytes.
///
/// # Errors
/// On anything else.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let fail = |why: &str| UnitError(format!("{why}; write a size as 512KB, 64MiB or 1.5GiB"));
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = (&text[..end], text[end..].trim_start());
    if digits.is_empty() {
        return Err(fail("this is not a size"));
    }
    if unit.is_empty() {
        return Err(fail("the unit is missing"));
    }
    let (_, scale) = *SIZES
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| fail(&format!("{unit:?} is not a unit of size")))?;
    let milli = parse_milli(digits).ok_or_else(|| fail("this is not a number"))?;
    let bytes = u128::from(milli) * u128::from(scale) / 1000;
    u64::try_from(bytes).map_err(|_| fail("this is too large"))
}

/// Parses `95%` or `12.5%` into thousandths of a percent.
///
/// # Errors
/// On anything else.
pub fn parse_percent(text: &str) -> Result<u64, UnitError> {
    let fail = || UnitError("write a percentage as 95% or 12.5%".to_owned());
    let digits = text.trim().strip_suffix('%').ok_or_else(fail)?;
    parse_milli(digits.trim_end()).ok_or_else(fail)
}

/// `12.5` as 12500: a number with up to three decimals, in thousandths.
pub(crate) fn parse_milli(digits: &str) -> Option<u64> {
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || part.len() > 3 || digits.ends_with('.') {
        return None;
    }
    let all = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !all(whole) || !all(part) {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// Shows a duration with its two largest units: `1h30m`, `45s`, `250ms`, `3.2s` below ten seconds.
#[must_use]
pub fn show_duration(span: Duration) -> String {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if ms < 1000 {
        return format!("{ms}ms");
    }
    if ms < 10_000 && ms % 1000 >= 100 {
        return format!("{}.{}s", ms / 1000, ms % 1000 / 100);
    }
    let mut out = String::new();
    let (mut left, mut shown) = (ms, 0);
    for (unit, scale_ms) in DURATIONS.iter().rev().filter(|(unit, _)| !matches!(*unit, "w" | "ms"))
    {
        if left >= *scale_ms {
            out.push_str(&format!("{}{unit}", left / scale_ms));
            left %= scale_ms;
            shown += 1;
        } else if shown == 1 {
            break;
        }
        if shown == 2 {
            break;
        }
    }
    out
}

/// Shows a number of bytes in the unit people compare in: `2710 MiB`, `312 KiB`, `12.4 GiB`.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..MIB => format!("{} KiB", bytes >> 10),
        MIB..10_485_760 => format!("{}.{} MiB", bytes / MIB, bytes % MIB * 10 / MIB),
        10_485_760..10_737_418_240 => format!("{} MiB", bytes / MIB),
        _ => format!("{}.{} GiB", bytes >> 30, (bytes >> 20) % 1024 * 10 / 1024),
    }
}

/// Shows thousandths: `4`, `4.5`, `0.125`.
#[must_use]
pub fn show_milli(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Shows thousandths of a percent: `95%`, `12.5%`.
#[must_use]
pub fn show_percent(milli: u64) -> String {
    match milli % 1000 / 100 {
        0 => format!("{}%", milli / 1000),
        tenth => format!("{}.{tenth}%", milli / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |text| parse_duration(text).map(|d| d.as_millis()).ok();
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("7d"), Some(604_800_000));
        for bad in ["", "10", "s", "10 s", "-1s", "1.5s", "30m1h", "1x", "99999999999d", "１s"] {
            assert_eq!(ms(bad), None, "{bad:?}");
        }
        let shown = |ms| show_duration(Duration::from_millis(ms));
        assert_eq!(shown(90 * 60_000), "1h30m");
        assert_eq!(shown(3_600_000 + 5_000), "1h");
        assert_eq!(shown(3250), "3.2s");
        assert_eq!(shown(45_000), "45s");
        assert_eq!(shown(7), "7ms");
    }

    #[test]
    fn sizes_and_percents() {
        assert_eq!(parse_size("2600MiB"), Ok(2600 << 20));
        assert_eq!(parse_size("1.5 GB"), Ok(1_500_000_000));
        for bad in ["12", "MB", "1.2345MB", "1mb", "99999999999TiB", "1..2MB"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_percent("12.5%"), Ok(12_500));
        assert!(parse_percent("95").is_err());
        assert_eq!(show_size(2710 << 20), "2710 MiB");
        assert_eq!(show_size(3 << 19), "1.5 MiB");
        assert_eq!(show_percent(12_500), "12.5%");
        assert_eq!([4000, 4500, 125, 0, 10_000].map(show_milli), ["4", "4.5", "0.125", "0", "10"]);
    }
}
