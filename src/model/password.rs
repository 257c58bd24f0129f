//! A password on its way from its file to the server that wants it.

use std::fmt;

/// A password: there is no way to print it, and nothing writes it down.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<str>);

impl Password {
    /// Takes what its file says; the line's end is not part of it. Nothing for what is none: empty, or
    /// with characters that no password may have (RFC 7617, section 2: no control characters).
    #[must_use]
    pub fn of_file(text: &str) -> Option<Self> {
        let line = text.trim_end_matches(['\r', '\n']);
        (!line.is_empty() && !line.contains(char::is_control)).then(|| Self(line.into()))
    }

    /// The password itself, for who is to be told it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_line_and_it_is_not_shown() {
        for (text, password) in [("geheim\n", "geheim"), ("a b\r\n", "a b"), (" \u{e9}", " \u{e9}")]
        {
            let read = Password::of_file(text).expect("is one");
            assert_eq!(read.reveal(), password);
            assert!(!format!("{read:?} {:?}", Some(&read)).contains(password));
        }
        for text in ["", "\n\n", "two\nlines", "tab\tin it", "nul\0"] {
            assert_eq!(Password::of_file(text), None, "{text:?}");
        }
    }
}
