//! Names and numbers that identify things.

use std::fmt;
use std::sync::Arc;

use crate::model::limits;

/// The name of a service: the stem of its file in conf.d, `[A-Za-z0-9_.@-]{1,64}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// How it begins, so that most comparisons of a look-up are over here, and the order is that of the
    /// whole: services are looked up many times a second, and the texts are all over the memory.
    beginning: u64,
    text: Arc<str>,
}

impl ServiceName {
    /// Parses a name. Reserved words (what the command line means by them would be unclear) are refused.
    ///
    /// # Errors
    /// Says which rule the text broke.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text)?;
        if RESERVED.contains(&text) {
            return Err(NameError::Reserved);
        }
        Ok(Self::of(text))
    }

    fn of(text: &str) -> Self {
        // No name has a zero in it, so what is short comes first, as it should.
        let bytes = text.bytes().chain(std::iter::repeat(0));
        let beginning = bytes.take(8).fold(0, |all, byte| all << 8 | u64::from(byte));
        Self { beginning, text: text.into() }
    }

    /// heeler's own name: what is wrong with heeler itself is told under it. No file in conf.d can have it.
    #[must_use]
    pub fn heeler() -> Self {
        Self::of(HEELER)
    }

    /// Whether it is heeler's own.
    #[must_use]
    pub fn is_heelers(&self) -> bool {
        &*self.text == HEELER
    }

    /// Reads a name that heeler wrote down: a service's, or its own.
    ///
    /// # Errors
    /// As [`ServiceName::parse`].
    pub fn recall(text: &str) -> Result<Self, NameError> {
        if text == HEELER { Ok(Self::heeler()) } else { Self::parse(text) }
    }

    /// Whether a name may have this character.
    #[must_use]
    pub fn may_have(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '@' | '-')
    }

    /// The name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A number that only the name decides, the same on every machine and for ever (FNV-1a):
    /// what spreads services over their interval, in place of randomness.
    #[must_use]
    pub fn spread(&self) -> u64 {
        self.text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

const HEELER: &str = "heeler";
const RESERVED: [&str; 3] = ["all", HEELER, ".."];

/// What names of services and of groups have in common.
fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > limits::NAME_BYTES_MAX {
        return Err(NameError::Length);
    }
    if let Some(c) = text.chars().find(|c| !ServiceName::may_have(*c)) {
        return Err(NameError::Character(c));
    }
    if text.starts_with(['.', '-']) { Err(NameError::Reserved) } else { Ok(()) }
}

/// The name of a group of services: the same characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GroupName(Box<str>);

impl GroupName {
    /// Parses a name.
    ///
    /// # Errors
    /// Says which rule the text broke.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a text is not the name of a service or group, or no pattern of such names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// Empty, or longer than 64 bytes.
    Length,
    /// A character outside `[A-Za-z0-9_.@-]`.
    Character(char),
    /// Begins with a dot or a dash, or is a word of the command line.
    Reserved,
    /// A pattern with a `[` that has nothing in it, or no `]`.
    Bracket,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => {
                write!(f, "a name has 1 to {} characters", limits::NAME_BYTES_MAX)
            }
            Self::Character(c) => {
                write!(f, "a name has only letters, digits and _ . @ - (found {c:?})")
            }
            Self::Reserved => write!(f, "this name is reserved, or begins with a dot or a dash"),
            Self::Bracket => write!(f, "a pattern's [ needs characters and a ] after it"),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
    };
}

number! {
    /// One action of the engine. Never used twice on a machine: a keeper numbers from the wall clock
    /// of its start, so that records of an earlier keeper cannot be taken for its own.
    ActionId
}
number! {
    /// One question of the engine (`Identify`, `Survey`, `Sample`, `Signal`), answered exactly once.
    AskId
}
number! {
    /// One request of an operator.
    RequestId
}

/// The place of a check in its service's file, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CheckIndex(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_or_refused_with_the_reason() {
        for good in ["shop", "web@1", "a.b-c_d", &"x".repeat(64)] {
            assert!(ServiceName::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "a/b", "..", "a\nb", "a\"b", "all", "heeler", "-x", ".x", "ѕhop", &"x".repeat(65)]
        {
            assert!(ServiceName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(ServiceName::recall("heeler").is_ok_and(|name| name.is_heelers()));
        assert!(ServiceName::recall("shop").is_ok_and(|name| !name.is_heelers()));
        assert!(ServiceName::recall("all").is_err());
    }

    #[test]
    fn names_are_in_the_order_of_their_texts() {
        let texts = ["A", "a", "a.b", "ab", "abcdefgh", "abcdefgh.1", "abcdefgi", "b", "abcdefg"];
        for (one, other) in texts.iter().flat_map(|one| texts.map(|other| (*one, other))) {
            let [first, second] =
                [one, other].map(|text| ServiceName::parse(text).expect("a name"));
            assert_eq!(first.cmp(&second), one.cmp(other), "{one} {other}");
            assert_eq!(first == second, one == other, "{one} {other}");
        }
    }
}
