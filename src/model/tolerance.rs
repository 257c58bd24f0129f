//! The `for` of a check.

use std::fmt;
use std::time::Duration;

use crate::model::units;

/// How much of a bad thing is too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tolerance {
    /// `n` of the last `m` verdicts.
    Times {
        /// How many must be bad; at least 1.
        n: u8,
        /// Out of how many; at least `n`, at most 64.
        m: u8,
    },
    /// Every verdict for this long.
    Lasting(Duration),
}

impl Tolerance {
    /// `1 of 1`: the first one counts.
    pub const ONCE: Self = Self::Times { n: 1, m: 1 };

    /// How long it takes at least to know whether it is met, with a verdict so often.
    #[must_use]
    pub fn span(self, every: Duration) -> Duration {
        match self {
            Self::Times { m, .. } => every * u32::from(m),
            Self::Lasting(span) => span + every,
        }
    }

    /// Parses `3 of 5` or `90s`.
    ///
    /// # Errors
    /// Says what would be one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((n, m)) = text.split_once(" of ") else {
            return match units::parse_duration(text) {
                Ok(span) if span.is_zero() => {
                    Err("a tolerance of no time at all is `1 of 1`".to_owned())
                }
                Ok(span) => Ok(Self::Lasting(span)),
                Err(_) => {
                    Err("write a tolerance as `3 of 5` or as a duration like `90s`".to_owned())
                }
            };
        };
        let number = |text: &str| text.trim().parse::<u8>().ok();
        match (number(n), number(m)) {
            (Some(n), Some(m)) if n >= 1 && n <= m && m <= 64 => Ok(Self::Times { n, m }),
            _ => Err("in `n of m`, n is at least 1, m at least n and at most 64".to_owned()),
        }
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times { n, m } => write!(f, "{n} of {m}"),
            Self::Lasting(span) => write!(f, "for {}", units::show_duration(*span)),
        }
    }
}
