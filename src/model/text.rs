//! Text that somebody else wrote.

use std::fmt;

use crate::model::limits;

/// Text from outside (a process title, command output, an answer): bounded when taken in, escaped
/// when shown. There is no way to print it raw, so it cannot forge a header, a log line or a terminal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Untrusted(Box<str>);

impl Untrusted {
    /// Takes bytes in: at most [`limits::UNTRUSTED_BYTES_MAX`], bad UTF-8 replaced.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self::bounded(bytes, limits::UNTRUSTED_BYTES_MAX)
    }

    /// The same with another bound, in bytes.
    #[must_use]
    pub fn bounded(bytes: &[u8], bytes_max: usize) -> Self {
        let cut = &bytes[..bytes.len().min(bytes_max)];
        Self(String::from_utf8_lossy(cut).into())
    }

    /// The text itself, for matching and storing; never for showing.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The escaped text with line breaks kept: for the body of a mail, where a line is a line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lines().map(escape).collect()
    }
}

impl From<&str> for Untrusted {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(&self.0))
    }
}

impl fmt::Debug for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Makes a text safe for one line of a terminal, a log or a header: control characters, line
/// separators and direction overrides become visible escapes; everything else stays.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => {
                out.extend(c.escape_unicode());
            }
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_or_begins_a_header_survives() {
        let hostile = Untrusted::new(b"ok\r\nBcc: x@evil\x1b[2J\x07\0\xff\xe2\x80\xae");
        let shown = hostile.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        assert_eq!(shown, "ok\\r\\nBcc: x@evil\\x1b[2J\\x07\\x00\u{fffd}\\u{202e}");
    }

    #[test]
    fn it_is_bounded() {
        assert_eq!(Untrusted::new(&[b'a'; 1 << 20]).raw().len(), limits::UNTRUSTED_BYTES_MAX);
    }
}
