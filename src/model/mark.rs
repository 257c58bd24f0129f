//! Numbers that stand for something across keepers.

/// A number that stands for these parts, in this order (FNV-1a): the same on every machine and for ever.
/// Against mistaking one for another, not against somebody who wants them to be mistaken.
#[must_use]
pub fn mark<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    parts.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, part| {
        // The length first: "ab" + "c" is not "a" + "bc".
        let hash = part.len().to_le_bytes().iter().fold(hash, fold);
        part.iter().fold(hash, fold)
    })
}
