//! What a held process is sampled from again and again: its clock, and two files of /proc, kept open.
//!
//! Opening one costs more than reading it. An open one belongs to its very process for ever: once that
//! ended, reading gives ESRCH, whoever has the number then (proc(5); fs/proc/base.c resolves the process
//! by `struct pid`, not by number).
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit};
use nix::time::{ClockId, clock_gettime};

use super::identity::Held;
use super::procfs::{self, Stat};

/// The files, each opened when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    stat: OnceLock<File>,
    statm: OnceLock<File>,
}

/// CPU time that all its threads used, in ms: a tenth of what reading `stat` for it costs. The clock goes
/// by the number, so the process has to be seen alive afterwards.
///
/// # Errors
/// As the kernel says: where nobody has that number.
pub(super) fn cpu_ms(held: &Held) -> io::Result<u64> {
    // What clock_getcpuclockid(3) makes of a number, without the system call that looks whether it is one.
    const PROCESS_CPU_CLOCK: i32 = 2;
    let id = (!held.identity().pid.0) << 3 | PROCESS_CPU_CLOCK;
    let used = clock_gettime(ClockId::from_raw(id)).map_err(io::Error::from)?;
    let ms = std::time::Duration::from(used).as_millis();
    Ok(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// What `stat` says.
///
/// # Errors
/// As the kernel says, and when it ended.
pub(super) fn stat(held: &Held) -> io::Result<Stat> {
    let mut text = [0; TEXT_BYTES_MAX];
    let length = read(held, &held.vitals().stat, "stat", &mut text)?;
    procfs::parse_stat(&text[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Its resident pages, by `statm`. All zeros once it is a zombie.
///
/// # Errors
/// As [`stat`].
pub(super) fn resident_pages(held: &Held) -> io::Result<u64> {
    let mut text = [0; TEXT_BYTES_MAX];
    let length = read(held, &held.vitals().statm, "statm", &mut text)?;
    procfs::parse_resident_pages(&text[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Both are one line: 52 numbers of at most 20 digits and a name of 15 bytes in `stat`.
const TEXT_BYTES_MAX: usize = 1280;

fn read(held: &Held, kept: &OnceLock<File>, name: &str, text: &mut [u8]) -> io::Result<usize> {
    if let Some(file) = kept.get() {
        return file.read_at(text, 0);
    }
    let file = File::open(format!("/proc/{}/{name}", held.identity().pid))?;
    if !held.is_alive() {
        // Its number may have been another one's when that was opened.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    let length = file.read_at(text, 0)?;
    if file.as_raw_fd() < keep_below() {
        let _kept_already = kept.set(file);
    }
    Ok(length)
}

/// Descriptors are kept open for this only while they are plenty: half of them are for actions, probes
/// and deaths.
fn keep_below() -> i32 {
    static BELOW: OnceLock<i32> = OnceLock::new();
    *BELOW.get_or_init(|| {
        let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        i32::try_from(soft / 2).unwrap_or(i32::MAX)
    })
}
