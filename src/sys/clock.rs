//! The clocks, and when this boot began.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use crate::model::time::{Mono, Now, Wall};

/// The moment, on both clocks. The monotonic one stands still while the machine sleeps.
#[must_use]
pub fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Mono::from_nanos(nanos(read(libc::CLOCK_MONOTONIC))), wall: Wall(millis(wall)) }
}

/// Milliseconds since boot, with the time the machine slept: what ages are measured on, because
/// field 22 of /proc/PID/stat counts on it (proc_pid_stat(5), time_namespaces(7)).
#[must_use]
pub fn boottime_ms() -> u64 {
    millis(read(libc::CLOCK_BOOTTIME))
}

/// The name of this boot: facts about processes mean nothing in another (random(4)).
///
/// # Errors
/// When /proc is not there.
pub fn boot_id() -> io::Result<Box<str>> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().into())
}

/// Clock ticks per second: the unit of the times in /proc/PID/stat (sysconf(3)).
#[must_use]
pub fn ticks_per_second() -> u64 {
    // SAFETY: sysconf only takes a number and only returns one.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// Clock ticks in milliseconds.
#[must_use]
pub fn ticks_to_ms(ticks: u64) -> u64 {
    let ms = u128::from(ticks) * 1000 / u128::from(ticks_per_second());
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// Whether NTP keeps the wall clock, as the kernel was told (adjtimex(2)); `None` where it does not say.
#[must_use]
pub fn is_synchronized() -> Option<bool> {
    // SAFETY: it is plain numbers; with no mode set adjtimex(2) changes nothing and fills it in.
    let (state, status) = unsafe {
        let mut asked: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut asked), asked.status)
    };
    (state >= 0).then_some(state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0)
}

/// When this boot began on the wall clock, in milliseconds since 1970. Two answers, because a wall
/// clock that was set forward since then (by NTP, or a virtual machine resumed from a snapshot hours
/// later) makes everything stamped before look older than this boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootWindow {
    /// By the clock as it was while the machine booted.
    pub earliest_ms: u64,
    /// By the clock as it is now. At least `earliest_ms`.
    pub latest_ms: u64,
}

/// Both answers. The earlier one is the birth of /dev/null, which the kernel makes while it boots and
/// nobody can set (statx(2); kernels before 5.18 do not tell it: then there is one answer).
/// A clock set *back* does not show: a pidfile then looks younger than it is.
#[must_use]
pub fn boot_window() -> BootWindow {
    let latest_ms = now().wall.0.saturating_sub(boottime_ms());
    let born = fs::metadata("/dev/null").and_then(|meta| meta.created()).ok();
    let born_ms = born.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(millis);
    BootWindow { earliest_ms: born_ms.map_or(latest_ms, |ms| ms.min(latest_ms)), latest_ms }
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec for the kernel to fill. The call cannot fail for the two
    // clocks of this module, and leaves zero if it did.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_run_and_agree() {
        let (first, boot) = (now(), boottime_ms());
        let second = now();
        assert!(second.mono > first.mono);
        assert!(boot >= first.mono.as_nanos() / 1_000_000, "boot time counts sleep as well");
        let window = boot_window();
        assert!(window.earliest_ms <= window.latest_ms && window.latest_ms < second.wall.0);
        assert_eq!(boot_id().map(|id| id.len()).ok(), Some(36));
        assert_eq!(ticks_to_ms(ticks_per_second() * 3), 3000);
    }
}
