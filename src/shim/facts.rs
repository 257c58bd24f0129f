//! What a shim has to know about a process: its identity, its cgroup; and the time.

use std::fs::File;
use std::io::{self, Read};

use nix::time::{ClockId, clock_gettime};

use crate::model::limits;
use crate::model::process::{Pid, ProcessIdentity};
use crate::model::time::Mono;

/// Now, on the clock of deadlines (clock_gettime(2), CLOCK_MONOTONIC).
pub(super) fn now() -> Mono {
    // The clock exists on every Linux; were it missing, every deadline would count as passed.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Mono::NEVER, |time| {
        let whole = u64::try_from(time.tv_sec()).unwrap_or(0).saturating_mul(1_000_000_000);
        Mono::from_nanos(whole.saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0)))
    })
}

/// The identity of a process that cannot go away meanwhile (this one, or its unreaped child).
pub(super) fn identity(pid: Pid) -> io::Result<ProcessIdentity> {
    let stat = read(pid, "stat")?;
    // The name in field 2 may hold blanks and parentheses; the last `)` ends it (proc(5)).
    let started_ticks = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/PID/stat has no start time"))?;
    Ok(ProcessIdentity { pid, started_ticks })
}

/// Its cgroup: systemd's own hierarchy where there is one, else the unified one (cgroups(7)).
pub(super) fn cgroup(pid: Pid) -> io::Result<String> {
    let text = read(pid, "cgroup")?;
    let of = |key: &str| text.lines().find_map(|line| line.split_once(key)).map(|(_, path)| path);
    Ok(of(":name=systemd:").or_else(|| of("0::")).unwrap_or("/").to_owned())
}

fn read(pid: Pid, file: &str) -> io::Result<String> {
    let mut text = Vec::new();
    let path = format!("/proc/{pid}/{file}");
    File::open(path)?.take(limits::PIDFILE_BYTES_MAX as u64).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
