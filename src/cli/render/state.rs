//! The line about heeler's own state folder in a status.
#![forbid(unsafe_code)]

use crate::cli::render::Style;
use crate::model::text::escape;
use crate::wire::control::StateTrouble;

/// What is wrong with it.
#[must_use]
pub fn state_line(state: &StateTrouble, style: &Style) -> String {
    let (since, trouble) = (style.moment(state.since_unix_ms), escape(&state.trouble));
    format!("heeler's own state is kept in memory since {since}: {trouble}\n")
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn the_line_says_since_when_and_why_and_nothing_of_it_is_raw() {
        let style = Style { width: None, colour: false, zone: TimeZone::UTC, now_unix_ms: 9000 };
        let trouble = "failed to write /x\u{1b}[2J: No space left".to_owned();
        let line = state_line(&StateTrouble { since_unix_ms: 5000, trouble }, &style);
        let expected = "heeler's own state is kept in memory since 00:00:05: failed to write /x\\x1b[2J: \
                        No space left\n";
        assert_eq!(line, expected);
    }
}
