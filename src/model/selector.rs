//! Which services somebody means: by name, by pattern, by group, or all there are.

use std::fmt;

use crate::model::ids::{GroupName, NameError, ServiceName};
use crate::model::limits;

/// What chooses services.
#[derive(Clone, PartialEq, Eq)]
pub enum Selector {
    /// The one of this name.
    Name(ServiceName),
    /// Those whose name a pattern matches.
    Pattern(Pattern),
    /// Those in a group.
    Group(GroupName),
    /// Every one.
    All,
}

impl Selector {
    /// Reads a word of the command line: a pattern where it has a `*`, a `?` or a `[`, else a name.
    ///
    /// # Errors
    /// When it can be the name of no service, or match none.
    pub fn parse(word: &str) -> Result<Self, NameError> {
        if word.contains(['*', '?', '[']) {
            Pattern::parse(word).map(Self::Pattern)
        } else {
            ServiceName::parse(word).map(Self::Name)
        }
    }

    /// Whether it chooses a service.
    #[must_use]
    pub fn chooses(&self, name: &ServiceName, groups: &[GroupName]) -> bool {
        match self {
            Self::Name(one) => one == name,
            Self::Pattern(pattern) => pattern.matches(name.as_str()),
            Self::Group(group) => groups.contains(group),
            Self::All => true,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Pattern(pattern) => write!(f, "{pattern}"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A pattern of names, as a shell has it: `*` stands for any text, `?` for one character, `[a-c]` for one
/// of these, `[!a-c]` for one of the others.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    /// Any text, or none.
    Any,
    /// One character, whatever it is.
    One,
    /// This one.
    This(u8),
    /// One within these bounds.
    Within(Vec<(u8, u8)>),
    /// One outside of them.
    Outside(Vec<(u8, u8)>),
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// When it is too long, has a character that no name has, or a `[` without its `]`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > limits::NAME_PATTERN_BYTES_MAX {
            return Err(NameError::Length);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            let (part, left) = match c {
                // Two are as good as one, and cost more.
                '*' => (Part::Any, after.trim_start_matches('*')),
                '?' => (Part::One, after),
                '[' => set(after)?,
                c => (Part::This(byte(c)?), after),
            };
            parts.push(part);
            rest = left;
        }
        Ok(Self { text: text.into(), parts })
    }

    /// Whether it matches the whole of a name. Never more than length times length steps.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name = name.as_bytes();
        let (mut part, mut at) = (0, 0);
        // Where the last `*` is, and how far what it stands for has grown.
        let mut star: Option<(usize, usize)> = None;
        loop {
            let fits = match (self.parts.get(part), name.get(at)) {
                (Some(Part::Any), _) => {
                    star = Some((part, at));
                    part += 1;
                    continue;
                }
                (None, None) => return true,
                (Some(one), Some(byte)) => one.fits(*byte),
                (None, Some(_)) | (Some(_), None) => false,
            };
            if fits {
                (part, at) = (part + 1, at + 1);
                continue;
            }
            match star {
                Some((of, grown)) if grown < name.len() => {
                    star = Some((of, grown + 1));
                    (part, at) = (of + 1, grown + 1);
                }
                Some(_) | None => return false,
            }
        }
    }
}

impl Part {
    fn fits(&self, byte: u8) -> bool {
        let has = |ranges: &[(u8, u8)]| ranges.iter().any(|(a, z)| (*a..=*z).contains(&byte));
        match self {
            Self::Any | Self::One => true,
            Self::This(one) => *one == byte,
            Self::Within(ranges) => has(ranges),
            Self::Outside(ranges) => !has(ranges),
        }
    }
}

/// What follows a `[`, up to its `]`, and what is left.
fn set(text: &str) -> Result<(Part, &str), NameError> {
    let negated = text.starts_with(['!', '^']);
    let text = if negated { &text[1..] } else { text };
    let (inner, rest) = text.split_once(']').ok_or(NameError::Bracket)?;
    let mut ranges = Vec::new();
    let mut chars = inner.chars().peekable();
    while let Some(first) = chars.next() {
        let first = byte(first)?;
        let mut ahead = chars.clone();
        // A dash at the end is itself.
        let last = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(last)) => {
                chars = ahead;
                byte(last)?
            }
            (Some(_) | None, _) => first,
        };
        ranges.push((first, last));
    }
    if ranges.is_empty() {
        return Err(NameError::Bracket);
    }
    Ok((if negated { Part::Outside(ranges) } else { Part::Within(ranges) }, rest))
}

fn byte(c: char) -> Result<u8, NameError> {
    let byte = u8::try_from(c).map_err(|_| NameError::Character(c))?;
    if ServiceName::may_have(c) { Ok(byte) } else { Err(NameError::Character(c)) }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_those_of_a_shell() {
        for (pattern, yes, no) in [
            ("*", &["a", "web@1", "x-y.z"][..], &[][..]),
            ("web-*", &["web-", "web-1", "web-a-b"], &["web", "aweb-1", "we"]),
            ("*-db", &["-db", "a-db", "a-db-db"], &["db", "a-db1"]),
            ("a*b*c", &["abc", "axbxc", "abbcc", "abcbc"], &["ab", "acb", "abcd"]),
            ("web?", &["web1", "web-"], &["web", "web12"]),
            ("web[12]", &["web1", "web2"], &["web3", "web", "web12"]),
            ("web[0-9a-c]", &["web0", "web9", "webb"], &["webd", "webA"]),
            ("web[!0-9]", &["weba", "web."], &["web1", "web"]),
            ("web[^a]", &["webb"], &["weba"]),
            ("a[x-]", &["ax", "a-"], &["ay"]),
            ("**a**", &["a", "xax"], &["x"]),
            ("shop", &["shop"], &["sho", "shopp"]),
        ] {
            let parsed = Pattern::parse(pattern).expect(pattern);
            for name in yes {
                assert!(parsed.matches(name), "{pattern} should match {name}");
            }
            for name in no {
                assert!(!parsed.matches(name), "{pattern} should not match {name}");
            }
        }
    }

    /// The pattern for which a recursive matcher takes for ever, and this test with it.
    #[test]
    fn no_pattern_takes_long() {
        let long = "*a".repeat(limits::NAME_PATTERN_BYTES_MAX / 2 - 1) + "*b";
        let pattern = Pattern::parse(&long).expect("a pattern");
        let name = "a".repeat(limits::NAME_BYTES_MAX);
        assert!(!pattern.matches(&name));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = "*".repeat(limits::NAME_PATTERN_BYTES_MAX + 1);
        for bad in ["", "web[", "web[]", "web[!]", "a/*", "*\n", "*\u{1b}", "ш*", "[a/b]", &long] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_word_is_a_name_or_a_pattern() {
        let name = |text| ServiceName::parse(text).expect("a name");
        assert_eq!(Selector::parse("shop"), Ok(Selector::Name(name("shop"))));
        let web = Selector::parse("web-*").expect("a pattern");
        let group = GroupName::parse("web").expect("a group");
        assert!(
            web.chooses(&name("web-1"), &[])
                && !web.chooses(&name("shop"), std::slice::from_ref(&group))
        );
        let by_group = Selector::Group(group.clone());
        assert!(by_group.chooses(&name("shop"), &[group]) && !by_group.chooses(&name("web"), &[]));
        assert!(Selector::All.chooses(&name("shop"), &[]));
        assert!(Selector::parse("a/b").is_err() && Selector::parse("all").is_err());
    }
}
