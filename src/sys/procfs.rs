//! The texts of /proc about one process: bounded reads, and parsers that are functions of bytes.
//!
//! A process writes parts of these texts itself (its name, its command line), so no parser may panic,
//! and none reads past what it knows. Layouts: proc_pid_stat(5) and its sister pages.

use std::fs::File;
use std::io::{self, Read};
use std::str;

use crate::model::limits;
use crate::model::process::Pid;
use crate::model::text::Untrusted;

/// Set in field 9 of `stat` for a thread of the kernel (`PF_KTHREAD`, include/linux/sched.h). Its
/// parent being process 2 says less: in a container process 2 is a process like others.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What /proc/PID/stat says, as far as heeler asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// The state letter.
    pub state: char,
    /// Its parent.
    pub parent: Pid,
    /// Its process group.
    pub pgrp: i32,
    /// Its session.
    pub session: i32,
    /// Whether it is a thread of the kernel.
    pub kernel_thread: bool,
    /// User and system time of its own, in clock ticks.
    pub cpu_ticks: u64,
    /// The same of children it has waited for.
    pub waited_ticks: u64,
    /// Threads.
    pub threads: u64,
    /// When it began, in clock ticks since boot.
    pub started_ticks: u64,
    /// Resident pages.
    pub resident_pages: u64,
}

/// What /proc/PID/status says, as far as heeler asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// The process that this number is a thread of: itself, for a process.
    pub tgid: Pid,
    /// Real user.
    pub uid_real: u32,
    /// Effective user.
    pub uid_effective: u32,
    /// Numbers it has, from our pid namespace inward: more than 1 inside a container of its own.
    pub namespaces: usize,
}

/// Memory of /proc/PID/smaps_rollup, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rollup {
    /// Proportional set size.
    pub pss_bytes: u64,
    /// Pages no other process maps.
    pub private_bytes: u64,
}

/// Storage traffic of /proc/PID/io, in bytes since the process began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Read.
    pub read_bytes: u64,
    /// Written.
    pub written_bytes: u64,
}

/// Reads a file of one process, at most `bytes_max` of it. `cmdline`, `environ`, `smaps_rollup`, `io`
/// and `stack` take locks of the process and can block for ever: never on the loop.
///
/// # Errors
/// As the kernel says; [`is_gone`] tells whether that means the process ended.
pub fn read(pid: Pid, name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = File::open(format!("/proc/{pid}/{name}"))?;
    let mut bytes = Vec::with_capacity(bytes_max.min(1024));
    file.take(bytes_max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether an error means that the process ended (ENOENT on opening, ESRCH on reading).
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// heeler itself.
#[must_use]
pub fn heeler() -> Pid {
    // The kernel's numbers end at 4194304, so the conversion cannot fail.
    Pid(i32::try_from(std::process::id()).unwrap_or(i32::MAX))
}

/// The parent of heeler.
#[must_use]
pub fn heelers_parent() -> Pid {
    Pid(i32::try_from(std::os::unix::process::parent_id()).unwrap_or(i32::MAX))
}

/// Reads and parses `stat`.
///
/// # Errors
/// As [`read`]; a text that is not one is `InvalidData`.
pub fn stat(pid: Pid) -> io::Result<Stat> {
    parse_stat(&read(pid, "stat", limits::PROC_FILE_BYTES_MAX)?).ok_or_else(|| odd("stat"))
}

/// Reads and parses `status`.
///
/// # Errors
/// As [`stat`].
pub fn status(pid: Pid) -> io::Result<Status> {
    parse_status(&read(pid, "status", limits::PROC_FILE_BYTES_MAX)?).ok_or_else(|| odd("status"))
}

/// The name of a process in brackets, as ps(1) shows it (`comm`: 15 bytes; never waits for the process,
/// as its command line may).
#[must_use]
pub fn name(pid: Pid) -> Untrusted {
    let name = read(pid, "comm", limits::UNTRUSTED_BYTES_MAX).unwrap_or_default();
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    Untrusted::new(&[b"[", name, b"]"].concat())
}

/// Every process number in /proc, in the kernel's order. Those that end meanwhile are in it or not.
///
/// # Errors
/// When /proc cannot be listed: then nothing is known about any process.
pub fn pids() -> io::Result<Vec<Pid>> {
    let mut pids = Vec::with_capacity(512);
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            pids.push(Pid(pid));
        }
    }
    if pids.is_empty() { Err(odd("a listing of processes")) } else { Ok(pids) }
}

/// Parses `stat`. The name in it is the process's own choice (`) R 1 (x`), so fields are counted from
/// the last `)`, behind which the kernel writes only numbers and one letter.
#[must_use]
pub fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let name_end = bytes.iter().rposition(|byte| *byte == b')')?;
    let text = str::from_utf8(bytes.get(name_end + 1..)?).ok()?;
    // Field 3 of the manual page is the first here.
    let mut fields = [""; 22];
    let mut words = text.split_ascii_whitespace();
    for field in &mut fields {
        *field = words.next()?;
    }
    let number = |field: usize| fields[field - 3].parse::<u64>().ok();
    // Children's times are signed in the kernel's format; they are never below zero.
    let ticks = |a, b| number(a)?.checked_add(number(b)?);
    let mut state = fields[0].chars();
    Some(Stat {
        state: state.next().filter(|c| c.is_ascii_alphabetic() && state.next().is_none())?,
        parent: Pid(fields[1].parse().ok()?),
        pgrp: fields[2].parse().ok()?,
        session: fields[3].parse().ok()?,
        kernel_thread: number(9)? & KERNEL_THREAD != 0,
        cpu_ticks: ticks(14, 15)?,
        waited_ticks: ticks(16, 17)?,
        threads: number(20)?,
        started_ticks: number(22)?,
        resident_pages: number(24)?,
    })
}

/// Parses `status`.
#[must_use]
pub fn parse_status(bytes: &[u8]) -> Option<Status> {
    let (mut tgid, mut uids, mut namespaces) = (None, None, 1);
    // The first line is the name, where the kernel escapes line breaks: it cannot forge a line.
    for line in bytes.split(|byte| *byte == b'\n').skip(1) {
        let Ok(line) = str::from_utf8(line) else {
            continue;
        };
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let mut words = value.split_ascii_whitespace();
        match key {
            "Tgid" => tgid = words.next()?.parse().ok(),
            "Uid" => uids = Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?)),
            "NSpid" => namespaces = words.count(),
            _ => {}
        }
    }
    let (uid_real, uid_effective) = uids?;
    Some(Status { tgid: Pid(tgid?), uid_real, uid_effective, namespaces })
}

/// Parses `statm`: resident pages.
#[must_use]
pub fn parse_resident_pages(bytes: &[u8]) -> Option<u64> {
    str::from_utf8(bytes).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Parses `smaps_rollup`.
#[must_use]
pub fn parse_rollup(bytes: &[u8]) -> Option<Rollup> {
    let kib = |name| value(bytes, name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok();
    let private = kib("Private_Clean")?.checked_add(kib("Private_Dirty")?)?;
    let huge = kib("Private_Hugetlb").unwrap_or(0);
    Some(Rollup {
        pss_bytes: kib("Pss")?.checked_mul(1024)?,
        private_bytes: private.checked_add(huge)?.checked_mul(1024)?,
    })
}

/// Parses `io`.
#[must_use]
pub fn parse_traffic(bytes: &[u8]) -> Option<Traffic> {
    let number = |name| value(bytes, name)?.parse().ok();
    Some(Traffic { read_bytes: number("read_bytes")?, written_bytes: number("write_bytes")? })
}

/// Parses `cgroup`: the path in the unified hierarchy or, where systemd does not keep its units there,
/// in its own (cgroups(7)). Seen from our cgroup namespace.
#[must_use]
pub fn parse_cgroup(bytes: &[u8]) -> Option<Box<str>> {
    let text = str::from_utf8(bytes).ok()?;
    let path = |hierarchy: &str| {
        text.lines().find_map(|line| {
            let (id, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            (controllers == hierarchy && (id == "0" || !hierarchy.is_empty())).then_some(path)
        })
    };
    let own = |path: &&str| path.len() > 1;
    let path = path("").filter(own).or_else(|| path("name=systemd")).or_else(|| path(""));
    path.filter(|path| path.starts_with('/')).map(Into::into)
}

/// Makes a title of `cmdline`: the NULs at its end cut off, those between arguments made spaces.
#[must_use]
pub fn parse_title(bytes: &[u8]) -> Untrusted {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text: Vec<u8> = bytes[..end].iter().map(|b| if *b == 0 { b' ' } else { *b }).collect();
    Untrusted::bounded(&text, limits::TITLE_BYTES_MAX)
}

/// The value of a `Name: value` line.
fn value<'a>(bytes: &'a [u8], name: &str) -> Option<&'a str> {
    let text = str::from_utf8(bytes).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the kernel's text is not {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] =
        b"77 () R 1 (x\n) S 5 70 69 0 -1 2097152 1 0 0 0 11 22 33 44 20 0 9 0 98765 1 2";
    const STATUS: &[u8] = b"Name:\tx\\nTgid:\t1\nTgid:\t77\nNgid:\t0\nPid:\t77\n\
        Uid:\t33\t34\t33\t33\nGid:\t33\t33\t33\t33\nNSpid:\t77\t4\n";
    const ROLLUP: &[u8] = b"5581-7ffd ---p 00000000 00:00 0    [rollup]\nRss:     1000 kB\n\
        Pss:      700 kB\nPss_Dirty:  1 kB\nPrivate_Clean:    4 kB\nPrivate_Dirty:    96 kB\n";
    const IO: &[u8] = b"rchar: 1\nwchar: 2\nread_bytes: 4096\nwrite_bytes: 8192\n";

    #[test]
    fn pid_14_the_name_in_stat_cannot_shift_its_fields() {
        let stat = parse_stat(STAT).expect("a stat line");
        assert_eq!((stat.state, stat.parent, stat.pgrp, stat.session), ('S', Pid(5), 70, 69));
        assert!(stat.kernel_thread);
        assert_eq!((stat.cpu_ticks, stat.waited_ticks), (33, 77));
        assert_eq!((stat.threads, stat.started_ticks), (9, 98765));
        assert_eq!(parse_stat(b"77 (x) S 5 70"), None);
    }

    #[test]
    fn status_is_read_past_a_forged_name() {
        let status = parse_status(STATUS).expect("a status text");
        let expected = Status { tgid: Pid(77), uid_real: 33, uid_effective: 34, namespaces: 2 };
        assert_eq!(status, expected);
        assert_eq!(parse_status(b"Name:\tx\nTgid:\t1\n"), None, "no Uid");
    }

    #[test]
    fn memory_traffic_and_cgroup() {
        let rollup = Rollup { pss_bytes: 700 << 10, private_bytes: 100 << 10 };
        assert_eq!(parse_rollup(ROLLUP), Some(rollup));
        assert_eq!(parse_rollup(b""), None, "unreadable is not zero");
        let traffic = Traffic { read_bytes: 4096, written_bytes: 8192 };
        assert_eq!(parse_traffic(IO), Some(traffic));
        assert_eq!(parse_resident_pages(b"100 25 3 1 0 9 0\n"), Some(25));
        assert_eq!(parse_cgroup(b"0::/a.slice/b\n").as_deref(), Some("/a.slice/b"));
        let hybrid = b"3:cpu:/\n1:name=systemd:/user.slice/x\n0::/\n";
        assert_eq!(parse_cgroup(hybrid).as_deref(), Some("/user.slice/x"));
    }

    #[test]
    fn titles_are_cut_and_escaped() {
        assert_eq!(parse_title(b"puma\0-C\0x y\0\0\0").raw(), "puma -C x y");
        assert_eq!(parse_title(b"\0\0").raw(), "");
        let hostile = [b"a\0\x1b[2J\xff".as_slice(), &[b'x'; 100_000]].concat();
        let title = parse_title(&hostile);
        assert!(title.raw().len() <= limits::TITLE_BYTES_MAX + 2);
        assert!(!title.to_string().chars().any(char::is_control));
    }

    /// Every parser, on every text with bytes changed, cut and repeated: none may panic.
    #[test]
    fn parsers_are_total() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below.max(1) as u64).expect("below a usize")
        };
        const SPICE: &[u8] = b"()\0\n\t :-9zZ\xff\x80/";
        for round in 0..60_000 {
            let mut text = [STAT, STATUS, ROLLUP, IO, b"0::/x\n"][round % 5].to_vec();
            for _ in 0..random(6) {
                let at = random(text.len());
                match random(4) {
                    0 if !text.is_empty() => text[at] = SPICE[random(SPICE.len())],
                    1 => text.truncate(at),
                    2 => text.insert(at, SPICE[random(SPICE.len())]),
                    _ => text.extend_from_within(at..),
                }
            }
            let _ = (parse_stat(&text), parse_status(&text), parse_rollup(&text));
            let _ = (parse_traffic(&text), parse_cgroup(&text), parse_resident_pages(&text));
            let _ = parse_title(&text);
        }
    }

    #[test]
    fn our_own_texts_parse() {
        let me = heeler();
        let stat = stat(me).expect("our stat");
        let status = status(me).expect("our status");
        assert_eq!(status.tgid, me);
        assert!(!stat.kernel_thread && stat.threads >= 1);
        assert!(parse_rollup(&read(me, "smaps_rollup", 4096).expect("our rollup")).is_some());
        assert!(parse_traffic(&read(me, "io", 4096).expect("our io")).is_some());
        assert!(pids().expect("/proc").contains(&me));
    }
}
