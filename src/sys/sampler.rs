//! What the checks of a service need of its process, read once for all of them.
//!
//! In two parts: [`quick`] cannot block and may run on the loop; [`slow`] waits for locks of the
//! processes it reads and belongs in the pool. What could not be read is absent, never zero.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::model::limits;
use crate::model::process::{Pid, ProcessIdentity};
use crate::model::sample::{Needs, ProcessSample};
use crate::model::text::Untrusted;
use crate::sys::identity::Held;
use crate::sys::procfs::{self, Rollup, Stat};
use crate::sys::{clock, pidfd, vitals};

/// Reads what cannot block. `tree` is needed for `children` and `tree_cpu` only.
///
/// # Errors
/// When the process ended: then nothing that was read is known to be its own.
pub fn quick(held: &Held, needs: Needs, tree: Option<&Tree>) -> Result<ProcessSample, Untrusted> {
    let identity = held.identity();
    let pid = identity.pid;
    let cpu_ms = if needs.cpu && !needs.stat { vitals::cpu_ms(held).ok() } else { None };
    let fds = if needs.fds { count_fds(pid) } else { None };
    // Last what only a living process has: that it lives now says that it lived before.
    let whole = needs.stat || (needs.cpu && cpu_ms.is_none());
    let stat = if whole { vitals::stat(held).ok() } else { None };
    let rss = needs.rss || needs.pss_above_bytes.is_some();
    let resident = match stat {
        Some(stat) => Some(stat.resident_pages).filter(|_| rss),
        None if rss => vitals::resident_pages(held).ok(),
        None => None,
    };
    let lives = stat.is_some_and(|stat| !matches!(stat.state, 'Z' | 'X' | 'x'))
        || resident.is_some_and(|pages| pages > 0)
        || held.is_alive();
    let family = tree.and_then(|tree| tree.family(identity));
    let started_ms = clock::ticks_to_ms(identity.started_ticks);
    let sample = ProcessSample {
        identity,
        at: clock::now().mono,
        age_ms: clock::boottime_ms().saturating_sub(started_ms),
        cpu_ms: cpu_ms.or_else(|| stat.map(|stat| clock::ticks_to_ms(stat.cpu_ticks))),
        tree_cpu_ms: family.as_ref().filter(|_| needs.tree_cpu).map(Family::cpu_ms),
        state: stat.map(|stat| stat.state),
        threads: stat.map(|stat| stat.threads),
        rss_bytes: resident.and_then(|pages| pages.checked_mul(page_bytes())),
        pss_bytes: None,
        private_bytes: None,
        tree_pss_bytes: None,
        fds,
        children: family.as_ref().filter(|_| needs.children).map(|family| family.children),
        read_bytes: None,
        written_bytes: None,
    };
    if lives { Ok(sample) } else { Err(ended(pid)) }
}

/// Adds what may block for ever, because it waits for a lock of the process: PSS (only where the
/// resident size exceeds what the needs ask), USS, storage traffic, PSS of the tree.
///
/// # Errors
/// As [`quick`].
pub fn slow(
    held: &Held,
    needs: Needs,
    tree: Option<&Tree>,
    mut sample: ProcessSample,
) -> Result<ProcessSample, Untrusted> {
    let identity = held.identity();
    let pss = needs.wants_pss(sample.rss_bytes);
    let rollup = if pss || needs.private { rollup(identity.pid).ok() } else { None };
    sample.pss_bytes = rollup.filter(|_| pss).map(|rollup| rollup.pss_bytes);
    sample.private_bytes = rollup.filter(|_| needs.private).map(|rollup| rollup.private_bytes);
    if needs.io {
        let bytes = procfs::read(identity.pid, "io", limits::PROC_FILE_BYTES_MAX).ok();
        let traffic = bytes.and_then(|bytes| procfs::parse_traffic(&bytes));
        sample.read_bytes = traffic.map(|traffic| traffic.read_bytes);
        sample.written_bytes = traffic.map(|traffic| traffic.written_bytes);
    }
    if needs.tree_pss {
        let family = tree.and_then(|tree| tree.family(identity));
        sample.tree_pss_bytes = family.and_then(|family| family.pss_bytes(identity));
    }
    if held.is_alive() { Ok(sample) } else { Err(ended(identity.pid)) }
}

/// Open descriptors of a process: the size of its directory since Linux 6.2, else its entries.
#[must_use]
pub(super) fn count_fds(pid: Pid) -> Option<u64> {
    let path = format!("/proc/{pid}/fd");
    match fs::metadata(&path).ok()?.size() {
        0 => u64::try_from(fs::read_dir(&path).ok()?.count()).ok(),
        size => Some(size),
    }
}

/// Who descends from whom, of all processes, at one moment: read once for many services.
#[derive(Debug, Default)]
pub struct Tree {
    processes: HashMap<Pid, Stat>,
    children: HashMap<Pid, Vec<Pid>>,
}

impl Tree {
    /// Reads `stat` of every process. Costs about 10 µs each; does not block.
    ///
    /// # Errors
    /// When one that lives could not be read: a partial tree would pass for a small one.
    pub fn scan() -> io::Result<Self> {
        let mut tree = Self::default();
        for pid in procfs::pids()? {
            match procfs::stat(pid) {
                Ok(stat) => {
                    tree.children.entry(stat.parent).or_default().push(pid);
                    tree.processes.insert(pid, stat);
                }
                Err(error) if procfs::is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tree)
    }

    /// All descendants of a process, nearest first; `None` when the tree does not know it, or there
    /// are more than anybody adds up.
    #[must_use]
    pub fn descendants(&self, of: ProcessIdentity) -> Option<Vec<ProcessIdentity>> {
        let root = self.processes.get(&of.pid)?;
        if root.started_ticks != of.started_ticks {
            return None;
        }
        // A number reused during the scan could close a circle: nobody is taken twice.
        let mut found = vec![of];
        let mut next = 0;
        while let Some(parent) = found.get(next).copied() {
            next += 1;
            for pid in self.children.get(&parent.pid).into_iter().flatten() {
                let Some(stat) = self.processes.get(pid) else {
                    continue;
                };
                let identity = ProcessIdentity { pid: *pid, started_ticks: stat.started_ticks };
                if stat.started_ticks >= parent.started_ticks && *pid != of.pid {
                    found.push(identity);
                }
            }
            if found.len() > limits::TREE_PROCESSES_MAX {
                return None;
            }
        }
        found.remove(0);
        Some(found)
    }

    fn family(&self, of: ProcessIdentity) -> Option<Family> {
        let descendants = self.descendants(of)?;
        let all = std::iter::once(&of).chain(&descendants);
        let stats = all.filter_map(|identity| self.processes.get(&identity.pid));
        let cpu_ticks = stats.map(|stat| stat.cpu_ticks + stat.waited_ticks).sum();
        let direct = self.children.get(&of.pid).map_or(0, Vec::len);
        Some(Family { descendants, cpu_ticks, children: u64::try_from(direct).ok()? })
    }
}

/// What the tree says of one process.
struct Family {
    descendants: Vec<ProcessIdentity>,
    /// With the time of children waited for, so that the sum does not fall when a worker ends.
    cpu_ticks: u64,
    children: u64,
}

impl Family {
    fn cpu_ms(&self) -> u64 {
        clock::ticks_to_ms(self.cpu_ticks)
    }

    /// PSS of the process and its descendants. One that ended meanwhile counts nothing; one that
    /// lives and cannot be read makes the sum unknown.
    fn pss_bytes(&self, of: ProcessIdentity) -> Option<u64> {
        let mut sum = 0u64;
        for identity in std::iter::once(&of).chain(&self.descendants) {
            match rollup_of(*identity) {
                Ok(rollup) => sum = sum.checked_add(rollup.pss_bytes)?,
                Err(error) if procfs::is_gone(&error) => {}
                Err(_) => return None,
            }
        }
        Some(sum)
    }
}

/// PSS and USS of a process that is not held otherwise: held for the reading, so that the text is of
/// the process meant.
fn rollup_of(identity: ProcessIdentity) -> io::Result<Rollup> {
    let gone = || io::Error::from_raw_os_error(libc::ESRCH);
    let fd = pidfd::open(identity.pid)?;
    if procfs::stat(identity.pid)?.started_ticks != identity.started_ticks {
        return Err(gone());
    }
    let rollup = rollup(identity.pid);
    if pidfd::has_ended(&fd) { Err(gone()) } else { rollup }
}

fn rollup(pid: Pid) -> io::Result<Rollup> {
    let bytes = procfs::read(pid, "smaps_rollup", limits::PROC_FILE_BYTES_MAX)?;
    procfs::parse_rollup(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn page_bytes() -> u64 {
    // SAFETY: sysconf only takes a number and only returns one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

fn ended(pid: Pid) -> Untrusted {
    Untrusted::from(format!("process {pid} ended while it was read").as_str())
}
