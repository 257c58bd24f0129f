//! SplitMix64: the one source of chance. The same seed gives the same world, on every machine.

use std::time::Duration;

/// A stream of numbers that only the seed decides.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True in so many of a thousand cases.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// A span between two bounds in milliseconds, with microseconds so that ties are rare.
    pub(crate) fn span(&mut self, min_ms: u64, max_ms: u64) -> Duration {
        let width_us = max_ms.saturating_sub(min_ms) * 1000;
        Duration::from_micros(min_ms * 1000 + self.below(width_us + 1))
    }

    /// A share of a span, in percent between two bounds.
    pub(crate) fn share(&mut self, of: Duration, min: u64, max: u64) -> Duration {
        let of_ms = u64::try_from(of.as_millis()).expect("spans of the simulation are short");
        self.span(of_ms * min / 100, of_ms * max / 100)
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        let at = usize::try_from(self.below(of.len() as u64)).expect("an index");
        of[at].clone()
    }
}
