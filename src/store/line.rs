//! Sealed lines: text that shows whether every one of its bytes is the one that was written.

use std::io::{self, BufRead, Read};

use crate::model::limits;

/// A line as it is written: line break, checksum, text, line break.
///
/// It brings its own beginning, so that a torn end before it, or a damaged line break between two
/// records, takes one record along and not two. The text has no line breaks (JSON has none).
pub(super) fn seal(text: &str) -> String {
    debug_assert!(!text.contains('\n'), "a sealed text is one line");
    // By concat it is allocated exactly as long: of each service one is held.
    [&format!("\n{:08x} ", crc32(text.as_bytes())), text, "\n"].concat()
}

/// The text of a line, if it is whole.
pub(super) fn unseal(line: &[u8]) -> Option<&str> {
    let (seal, text) = (line.get(..8)?, line.get(9..)?);
    let written = u32::from_str_radix(std::str::from_utf8(seal).ok()?, 16).ok()?;
    let whole = line[8] == b' ' && seal[0] != b'+' && written == crc32(text);
    whole.then(|| std::str::from_utf8(text).ok()).flatten()
}

/// The text of a file that is one sealed line.
pub(super) fn unseal_file(bytes: &[u8]) -> Option<&str> {
    unseal(bytes.strip_prefix(b"\n")?.strip_suffix(b"\n")?)
}

/// One line as it was found.
pub(super) enum Line {
    /// Its bytes, without the break.
    Bytes(Vec<u8>),
    /// It is longer than any that heeler writes.
    TooLong,
}

/// Reads the next line, keeping at most [`limits::JOURNAL_LINE_BYTES_MAX`] and the seal, with the
/// number of bytes it took. `None` at the end.
pub(super) fn next(reader: &mut impl BufRead) -> io::Result<Option<(Line, u64)>> {
    const KEEP: u64 = limits::JOURNAL_LINE_BYTES_MAX as u64 + 16;
    let (mut bytes, mut taken, mut long) = (Vec::new(), 0, false);
    loop {
        bytes.clear();
        let read = reader.by_ref().take(KEEP).read_until(b'\n', &mut bytes)? as u64;
        taken += read;
        let ended = bytes.last() == Some(&b'\n');
        bytes.truncate(bytes.len() - usize::from(ended));
        if taken == 0 {
            return Ok(None);
        }
        if ended || read < KEEP {
            let line = if long { Line::TooLong } else { Line::Bytes(bytes) };
            return Ok(Some((line, taken)));
        }
        long = true;
    }
}

/// CRC-32 (IEEE 802.3, reflected): finds every error of up to 32 bits in a row.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_everybody_means() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn a_changed_byte_never_passes_for_another_text() {
        let sealed = seal("{\"v\":1}");
        assert_eq!(unseal_file(sealed.as_bytes()), Some("{\"v\":1}"));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut bytes = sealed.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert!(matches!(unseal_file(&bytes), None | Some("{\"v\":1}")), "{at} {bit}");
            }
        }
    }

    #[test]
    fn a_line_longer_than_any_of_ours_is_passed_over() {
        let long = "x".repeat(limits::JOURNAL_LINE_BYTES_MAX * 3);
        let text = format!("{long}\nnext");
        let mut reader = text.as_bytes();
        let first = next(&mut reader).expect("reads").expect("a line");
        assert!(matches!(first, (Line::TooLong, taken) if taken == long.len() as u64 + 1));
        let second = next(&mut reader).expect("reads").expect("a line");
        assert!(matches!(second, (Line::Bytes(bytes), 4) if bytes == b"next"));
        assert!(next(&mut reader).expect("reads").is_none());
    }
}
