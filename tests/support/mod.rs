//! What several test binaries share: skipping honestly, waiting for a condition, finding the binary.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]
#![allow(
    clippy::allow_attributes,
    reason = "expect would be unfulfilled in the binaries that use all of it"
)]

pub mod fake_puma;
pub mod hanging;
pub mod house;

use std::path::Path;
use std::time::{Duration, Instant};

/// The real binary under test.
pub const HEELER: &str = env!("CARGO_BIN_EXE_heeler");

/// Whether a test can run here. If not, says why; and fails where `.ci/run` forbids skipping
/// (`HEELER_NO_SKIP=1`).
#[must_use]
pub fn can_run(needs: &[Need]) -> bool {
    let missing: Vec<_> =
        needs.iter().filter(|need| !need.met()).map(|need| need.words()).collect();
    if missing.is_empty() {
        return true;
    }
    let why = missing.join(", ");
    assert!(std::env::var_os("HEELER_NO_SKIP").is_none(), "skipped for want of: {why}");
    eprintln!("SKIPPED for want of: {why}");
    false
}

/// One thing a test needs of the machine.
#[derive(Clone, Copy)]
pub enum Need {
    /// To be root.
    Root,
    /// A program, and the Debian package that has it.
    Program(&'static str, &'static str),
}

impl Need {
    fn met(self) -> bool {
        match self {
            Self::Root => nix::unistd::geteuid().is_root(),
            Self::Program(path, _) => Path::new(path).exists(),
        }
    }

    fn words(self) -> String {
        match self {
            Self::Root => "root".to_owned(),
            Self::Program(path, package) => format!("{path} (Debian package {package})"),
        }
    }
}

/// Those of several processes that are no child of another of them: a child has its master's title until it
/// has one of its own. `stat` reads /proc/PID/stat.
#[must_use]
pub fn without_children(pids: &[u32], stat: impl Fn(u32) -> String) -> Vec<u32> {
    let is_child = |pid: u32| {
        let stat = stat(pid);
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        parent.is_some_and(|parent| pids.contains(&parent))
    };
    pids.iter().copied().filter(|pid| !is_child(*pid)).collect()
}

/// Waits until `probe` gives a value, at most `limit`.
///
/// # Panics
/// When the limit passes, naming what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "waited {limit:?} for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
