//! What a pidfile may say.

use super::*;

#[test]
fn an_empty_pidfile_is_being_written_or_names_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("shop.pid");
    for blank in ["", "\n", "\0\0\0\0"] {
        std::fs::write(&path, blank).expect("write");
        assert!(matches!(read(&path), Reading::NotPid), "just made: {blank:?}");
        let file = File::options().write(true).open(&path).expect("open");
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        file.set_modified(old).expect("set the time");
        assert!(matches!(read(&path), Reading::Absent(_)), "left behind: {blank:?}");
    }
}

#[test]
fn only_a_first_line_that_is_a_number_is_a_pid() {
    for (text, pid) in [
        (b"123".as_slice(), 123),
        (b"123\n", 123),
        (b" 123\t\r\n", 123),
        (b"0000123\n", 123),
        (b"4194304\n/var/lib/postgresql\n1700000000\n", 4_194_304),
    ] {
        assert_eq!(parse(text), Some(Pid(pid)), "{text:?}");
    }
    for text in [
        b"".as_slice(),
        b"\n123\n",
        b"1  trailing",
        b"0",
        b"-1",
        b"+1",
        b"12345678",
        b"1\0",
        b"pid 1",
        b"1.0",
        b"\xff\xfe1",
        b"   ",
        &[b'1'; 5000],
        &[&b"123\n"[..], &[b'x'; 4096]].concat(),
    ] {
        assert_eq!(parse(text), None, "{text:?}");
    }
}

#[test]
fn every_byte_string_is_a_pid_or_is_not() {
    let mut seed = 1u64;
    const SPICE: &[u8] = b"0123456789 \t\r\n\0-+x\xff";
    for _ in 0..100_000 {
        let mut bytes = Vec::new();
        loop {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = usize::try_from(seed >> 40).expect("24 bits");
            if pick % 7 == 0 {
                break;
            }
            bytes.push(SPICE[pick % SPICE.len()]);
        }
        if let Some(Pid(pid)) = parse(&bytes) {
            assert!((1..=9_999_999).contains(&pid), "{bytes:?}");
        }
    }
}
