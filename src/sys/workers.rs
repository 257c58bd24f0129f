//! The workers of a main process: found, sampled in one pass for all checks, and proved.
//!
//! Not on the loop: titles wait for the memory lock of the process (`cmdline`), and what a process works
//! in may be on a file system that hangs.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

use crate::model::limits;
use crate::model::process::{Ours, Pid, ProcessIdentity, Uid};
use crate::model::text::Untrusted;
use crate::model::workers::{Master, Presence, Release, Target, Worker, WorkerNeeds};
use crate::sys::accept::{Kind, Rule};
use crate::sys::identity::{Gathered, Held, Proved, gather};
use crate::sys::sampler::Tree;
use crate::sys::{pidfd, procfs, sampler, vitals};

/// Who is a worker.
#[derive(Clone, Debug)]
pub struct Pattern {
    title: Regex,
    user: Uid,
}

impl Pattern {
    /// Whose title matches, of this user.
    ///
    /// # Errors
    /// When it is not a regular expression; it was one when it was loaded.
    pub fn new(pattern: &str, user: Uid) -> Result<Self, Untrusted> {
        let built = RegexBuilder::new(pattern).size_limit(limits::REGEX_BYTES_MAX).build();
        let title = built.map_err(|error| {
            text(&format!("failed to compile the pattern of the workers' titles: {error}"))
        })?;
        Ok(Self { title, user })
    }

    /// Whether a title is one of a worker. Kernel threads and zombies have none.
    #[must_use]
    pub fn fits(&self, title: &str) -> bool {
        !title.is_empty() && self.title.is_match(title)
    }
}

/// What one look saw.
#[derive(Debug)]
pub struct Crew {
    /// The main process.
    pub master: Master,
    /// Its workers, in the order of their numbers.
    pub workers: Vec<Hand>,
}

/// One worker, held: it may be watched, not signalled.
#[derive(Debug)]
pub struct Hand {
    /// The process.
    pub held: Held,
    /// What was read of it.
    pub worker: Worker,
}

/// Finds and samples the workers of a main process. `tree`: all processes, where they were read for
/// others already; else only this one's descendants are looked at.
///
/// # Errors
/// When the main process ended, or who descends from it cannot be told.
pub fn look(
    main: &Held,
    of: &Pattern,
    needs: WorkerNeeds,
    tree: Option<&Tree>,
) -> Result<Crew, Untrusted> {
    let main_pid = main.identity().pid;
    let found = match tree {
        Some(tree) => of_tree(tree, main.identity()),
        None => descendants(main),
    };
    let found = found.map_err(|error| {
        text(&format!("failed to find the descendants of process {main_pid}: {error}"))
    })?;
    let family: HashSet<Pid> = found.iter().copied().chain([main_pid]).collect();
    let mut workers = Vec::new();
    for pid in found {
        if workers.len() >= limits::WORKERS_MAX as usize {
            break;
        }
        workers.extend(hand(pid, &family, of, needs)?);
    }
    workers.sort_by_key(|hand| hand.worker.identity());
    let state = vitals::stat(main).ok().map(|stat| stat.state);
    let (release, program) = if needs.release { place_of(main_pid) } else { (None, None) };
    if !main.is_alive() {
        return Err(text(&format!("process {main_pid} ended while its workers were read")));
    }
    Ok(Crew { master: Master { state, release, program }, workers })
}

/// Holds and samples one descendant, if it is a worker.
fn hand(
    pid: Pid,
    family: &HashSet<Pid>,
    of: &Pattern,
    needs: WorkerNeeds,
) -> Result<Option<Hand>, Untrusted> {
    let (held, facts) = match gather(pid) {
        Gathered::Process(held, facts) if facts.kind == Kind::Program => (held, facts),
        Gathered::Process(..) | Gathered::Gone | Gathered::Zombie { .. } | Gathered::Thread(_) => {
            return Ok(None);
        }
        Gathered::Unclear(reason) => return Err(text(&reason)),
    };
    let title = title(pid);
    if !of.fits(title.raw()) {
        return Ok(None);
    }
    // Now that it is held: the number may have gone to a stranger since it was found.
    let parent = match vitals::stat(&held) {
        Ok(stat) if family.contains(&stat.parent) => stat.parent,
        Ok(_) | Err(_) => return Ok(None),
    };
    let sample = sampler::quick(&held, needs.process, None)
        .and_then(|sample| sampler::slow(&held, needs.process, None, sample));
    // One that ended meanwhile is no worker any more.
    let Ok(sample) = sample else { return Ok(None) };
    let (release, program) = if needs.release { place_of(pid) } else { (None, None) };
    let ours = if (facts.uid_real, facts.uid_effective) == (of.user, of.user) {
        Ours::Proved
    } else {
        Ours::Foreign
    };
    let title = Untrusted::from(title.raw());
    let worker = Worker { sample, parent, title, ours, release, program };
    Ok(held.is_alive().then_some(Hand { held, worker }))
}

/// Whether a worker may be signalled.
#[derive(Debug)]
pub enum Proving {
    /// It may.
    Proved(Proved),
    /// It is gone: as good.
    Gone,
    /// It may not. Names the fact that differed.
    Refused(Untrusted),
    /// It cannot be told now.
    Unknown(Untrusted),
}

/// Proves a process to be a worker of `main`: it is held first; then its title has to match, its user to
/// be the right one, and its parents, each held, to lead to `main`, which has to live all the while. The
/// main process itself never is one.
#[must_use]
pub fn prove(main: &Held, worker: ProcessIdentity, of: &Pattern) -> Proving {
    let pid = worker.pid;
    if pid == main.identity().pid {
        return refused(&format!("process {pid} is the main process itself"));
    }
    if [Pid(1), procfs::heeler(), procfs::heelers_parent()].contains(&pid) {
        return refused(&format!("process {pid} is not anybody's worker"));
    }
    let (held, facts) = match gather(pid) {
        Gathered::Process(held, facts) if held.identity() == worker => (held, facts),
        // Its number went to another.
        Gathered::Process(..) | Gathered::Gone | Gathered::Zombie { .. } => return Proving::Gone,
        Gathered::Thread(_) => return refused(&format!("{pid} is a thread id")),
        Gathered::Unclear(reason) => return Proving::Unknown(text(&reason)),
    };
    if facts.kind == Kind::Kernel {
        return refused(&format!("process {pid} is a thread of the kernel"));
    }
    for uid in [facts.uid_real, facts.uid_effective] {
        if uid != of.user {
            let user = of.user;
            return refused(&format!("worker {pid} belongs to uid {uid}, not to {user}"));
        }
    }
    let title = title(pid);
    if !of.fits(title.raw()) && held.is_alive() {
        let title = Untrusted::from(title.raw());
        return refused(&format!("process {pid} calls itself {title:?}: no worker does"));
    }
    match descends(&held, main) {
        Ok(true) => {}
        Ok(false) if held.is_alive() && main.is_alive() => {
            let main = main.identity();
            return refused(&format!("process {pid} does not descend from process {main}"));
        }
        Err(reason) if held.is_alive() => return Proving::Unknown(reason),
        Ok(false) | Err(_) => {}
    }
    if !held.is_alive() {
        return Proving::Gone;
    }
    if !main.is_alive() {
        let main = main.identity();
        return Proving::Unknown(text(&format!("process {main}, whose worker it was, has ended")));
    }
    match pidfd::send(&held, 0) {
        Ok(()) => Proving::Proved(Proved::new(held, Rule::Descendant)),
        Err(error) if procfs::is_gone(&error) => Proving::Gone,
        Err(error) => Proving::Unknown(text(&format!(
            "heeler may not signal process {pid}: {}",
            pidfd::denied(&error)
        ))),
    }
}

/// Whether the parents of a process, each held while it is asked, lead to `main`.
fn descends(of: &Held, main: &Held) -> Result<bool, Untrusted> {
    let above = |pid: Pid| procfs::stat(pid).map(|stat| stat.parent);
    let unknown = |error: io::Error| text(&format!("failed to read who its parents are: {error}"));
    let mut line: Vec<Held> = Vec::new();
    for _ in 0..limits::ANCESTORS_MAX {
        let child = line.last().map_or(of, |last| last).identity().pid;
        let parent = above(child).map_err(unknown)?;
        if parent == main.identity().pid {
            // Whoever answered was the one that is held, or it would be dead now.
            return Ok(line.iter().chain([of, main]).all(Held::is_alive));
        }
        if parent.0 <= 1 {
            return Ok(false);
        }
        let Gathered::Process(held, _) = gather(parent) else {
            return Err(text("a process between them ended meanwhile"));
        };
        // Still the parent, now that it is held: then it was this one.
        if above(child).map_err(unknown)? != parent {
            return Err(text("a process between them ended meanwhile"));
        }
        line.push(held);
    }
    Ok(false)
}

/// What `current` leads to now.
///
/// # Errors
/// When it is not there, leads nowhere, or is no directory: a Puma that is told to restart then dies.
pub fn target(current: &Path) -> Result<Target, Untrusted> {
    let failed = |what: &str, error: io::Error| text(&format!("{what}: {error}"));
    let link = fs::symlink_metadata(current).map_err(|error| failed("it is not there", error))?;
    let path = fs::canonicalize(current).map_err(|error| failed("it leads nowhere", error))?;
    if !fs::metadata(&path).is_ok_and(|facts| facts.is_dir()) {
        return Err(text("it does not lead to a directory"));
    }
    let changed = u64::try_from(link.mtime()).unwrap_or(0).saturating_mul(1000);
    let millis = u64::try_from(link.mtime_nsec()).unwrap_or(0) / 1_000_000;
    Ok(Target { path: path_text(path.as_os_str()), changed_wall_ms: changed + millis })
}

/// Where a process works, and whether its program is still there.
fn place_of(pid: Pid) -> (Option<Release>, Option<Presence>) {
    let release = link(pid, "cwd").map(|(path, presence)| Release { path, presence });
    (release, link(pid, "exe").map(|(_, presence)| presence))
}

/// What a link of /proc/PID names, without the kernel's mark for what was deleted.
fn link(pid: Pid, name: &str) -> Option<(Untrusted, Presence)> {
    let link = format!("/proc/{pid}/{name}");
    let path = fs::read_link(&link).ok()?.into_os_string();
    let Some(real) = path.as_bytes().strip_suffix(DELETED) else {
        return Some((path_text(&path), Presence::There));
    };
    // A name may end like that; what was deleted has no name at all.
    match fs::metadata(&link) {
        Ok(facts) if facts.nlink() > 0 => Some((path_text(&path), Presence::There)),
        Ok(_) => Some((path_text(OsStr::from_bytes(real)), Presence::Deleted)),
        Err(_) => None,
    }
}

const DELETED: &[u8] = b" (deleted)";

fn path_text(path: &OsStr) -> Untrusted {
    Untrusted::bounded(path.as_bytes(), libc::PATH_MAX as usize)
}

/// What a process calls itself; nothing where that cannot be read.
fn title(pid: Pid) -> Untrusted {
    let bytes = procfs::read(pid, "cmdline", limits::TITLE_BYTES_MAX).unwrap_or_default();
    procfs::parse_title(&bytes)
}

/// Every descendant, nearest first: by `children`, which costs as much as there are threads, or by a pass
/// over all processes where the kernel has no such file (CONFIG_PROC_CHILDREN).
fn descendants(main: &Held) -> io::Result<Vec<Pid>> {
    if !has_children_files() {
        return of_tree(&Tree::scan()?, main.identity());
    }
    let mut piece = vec![0; CHILDREN_PIECE_BYTES];
    let mut found = children(main.identity().pid, &mut piece)?;
    let mut seen: HashSet<Pid> = found.iter().copied().chain([main.identity().pid]).collect();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        match children(pid, &mut piece) {
            Ok(more) => found.extend(more.into_iter().filter(|pid| seen.insert(*pid))),
            Err(error) if procfs::is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        if found.len() > limits::TREE_PROCESSES_MAX {
            return Err(too_many());
        }
    }
    Ok(found)
}

fn of_tree(tree: &Tree, main: ProcessIdentity) -> io::Result<Vec<Pid>> {
    let all = tree.descendants(main).ok_or_else(too_many)?;
    Ok(all.into_iter().map(|identity| identity.pid).collect())
}

fn too_many() -> io::Error {
    io::Error::other(format!("it is gone, or has more than {}", limits::TREE_PROCESSES_MAX))
}

fn has_children_files() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| Path::new("/proc/thread-self/children").exists())
}

/// The children of a process: of each of its threads, since a child belongs to the one that forked it.
/// The kernel finds its place in a list that is read in pieces by counting, and passes over one for each
/// that ended meanwhile (proc(5)): so it is read in one piece, up to some 600 of them. Even so, who is not
/// in one look has not therefore ended: that says its pidfd.
fn children(pid: Pid, piece: &mut [u8]) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let mut read = || {
            let mut file = File::open(task.as_ref().ok()?.path().join("children")).ok()?;
            let mut bytes = Vec::new();
            while let Ok(length @ 1..) = file.read(piece) {
                bytes.extend_from_slice(&piece[..length]);
            }
            Some(bytes)
        };
        // A thread that ended left its children to another.
        found.extend(read().iter().flat_map(|bytes| parse_children(bytes)));
    }
    Ok(found)
}

/// More than the kernel gives at once.
const CHILDREN_PIECE_BYTES: usize = 64 << 10;

/// Parses `children`: numbers with a blank after each.
fn parse_children(bytes: &[u8]) -> impl Iterator<Item = Pid> + '_ {
    let words = bytes.split(|byte| byte.is_ascii_whitespace());
    words.filter_map(|word| str::from_utf8(word).ok()?.parse().ok().map(Pid))
}

fn refused(words: &str) -> Proving {
    Proving::Refused(text(words))
}

fn text(words: &str) -> Untrusted {
    Untrusted::from(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::workers::PUMA_WORKER;

    #[test]
    fn titles_of_workers_are_told_from_others() {
        let of = |pattern: &str| Pattern::new(pattern, Uid(0)).expect("a pattern");
        for (pattern, title, fits) in [
            (PUMA_WORKER, "puma: cluster worker 0: 4711 [shop]", true),
            (PUMA_WORKER, "puma: cluster worker 11: 39", true),
            (PUMA_WORKER, "puma 8.0.2 (unix:///srv/x.sock) [shop]", false),
            (PUMA_WORKER, "vim puma: cluster worker 0: 4711", false),
            (PUMA_WORKER, "", false),
            ("", "", false),
            ("", "x", true),
            ("^unicorn worker\\[", "unicorn worker[2] -c config/unicorn.rb", true),
            ("^unicorn worker\\[", "unicorn master -c config/unicorn.rb", false),
            ("^nginx: worker process", "nginx: worker process is shutting down", true),
            ("^php-fpm: pool www", "php-fpm: master process (/etc/php-fpm.conf)", false),
        ] {
            assert_eq!(of(pattern).fits(title), fits, "{pattern} {title}");
        }
        assert!(Pattern::new("(", Uid(0)).is_err());
    }

    #[test]
    fn children_are_numbers_and_nothing_else() {
        let parse = |bytes: &[u8]| parse_children(bytes).map(|pid| pid.0).collect::<Vec<_>>();
        assert_eq!(parse(b"12 345 \n6"), [12, 345, 6]);
        assert_eq!(parse(b""), Vec::<i32>::new());
        assert_eq!(parse(b"x 7 99999999999 \xff 8"), [7, 8]);
    }

    #[test]
    fn nobody_is_a_worker_of_its_own_or_of_a_stranger() {
        let Gathered::Process(own, _) = gather(procfs::heeler()) else { panic!("we live") };
        let everybody = Pattern::new("", Uid(nix::unistd::geteuid().as_raw())).expect("a pattern");
        let said = |proving| match proving {
            Proving::Refused(why) => why.raw().to_owned(),
            Proving::Proved(_) | Proving::Gone | Proving::Unknown(_) => {
                panic!("{proving:?} is not refused")
            }
        };
        let itself = prove(&own, own.identity(), &everybody);
        assert!(said(itself).contains("the main process itself"));
        // Forked by a thread that has ended since: it is found among another's.
        let spawn = || std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let mut child = std::thread::spawn(spawn).join().expect("a child");
        let pid = Pid(i32::try_from(child.id()).expect("a pid"));
        // vfork(2) lets the parent go on a moment before the kernel has made the new title.
        while fs::read(format!("/proc/{pid}/cmdline")).expect("it lives").is_empty() {
            std::thread::yield_now();
        }
        let Gathered::Process(held, _) = gather(pid) else { panic!("it lives") };
        assert!(said(prove(&held, own.identity(), &everybody)).contains("not anybody's worker"));
        assert!(descendants(&own).expect("ours").contains(&pid));
        let proving = prove(&own, held.identity(), &everybody);
        assert!(matches!(proving, Proving::Proved(_)), "{proving:?}");
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(matches!(prove(&own, held.identity(), &everybody), Proving::Gone));
    }
}
