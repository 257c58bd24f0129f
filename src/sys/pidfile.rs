//! Pidfiles: untrusted claims about which process is meant, read so that their owner cannot make root
//! open, wait for or believe something else (CVE-2018-16888; systemd's `chase_symlinks(CHASE_SAFE)`).
//!
//! What a file *says* is never shown, only whether it is a process number.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statfs;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::model::limits;
use crate::model::process::{Pid, ProcessIdentity, Uid};
use crate::model::text::Untrusted;
use crate::sys::way::Way;
use crate::sys::{clock, pidfd, procfs};

/// What came of reading a pidfile.
#[derive(Debug)]
pub enum Reading {
    /// It names a process.
    Claim(Claim),
    /// There is none; and where it would be, where it can be seen on the loop that it still is not there.
    Absent(Option<Gap>),
    /// It may not be believed, or not even opened. Says which step of the path, and why.
    Unsafe(Untrusted),
    /// It does not begin with a process number (it may be half written).
    NotPid,
    /// It cannot be read now.
    Unreadable(Untrusted),
}

/// What a pidfile claims, and how far it may be believed.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The process it names: a number, no more.
    pub pid: Pid,
    /// Who owns the file.
    pub owner: Uid,
    /// When it was written, in milliseconds since 1970.
    pub modified_wall_ms: u64,
    /// Who could have written it.
    pub writers: Writers,
    /// To notice a change.
    pub stamp: Stamp,
    /// Where it can be looked at again on the loop, if it can.
    pub spot: Option<Arc<Spot>>,
}

/// Who could have made a file say what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writers {
    /// The file, its directory and all above are root's, and nobody else may write to them.
    OnlyRoot,
    /// Others too.
    Others,
}

/// Which file it was and when it last changed: equal stamps mean an unchanged claim. The change time is
/// in it because nobody can set that one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    place: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// As plain numbers, for a record.
    #[must_use]
    pub fn numbers(&self) -> [i64; 6] {
        let (dev, ino) = self.place;
        let (modified, changed) = (self.modified, self.changed);
        [dev.cast_signed(), ino.cast_signed(), modified.0, modified.1, changed.0, changed.1]
    }

    /// Back from a record.
    #[must_use]
    pub fn from_numbers(numbers: [i64; 6]) -> Self {
        let [dev, ino, modified, modified_ns, changed, changed_ns] = numbers;
        Self {
            place: (dev.cast_unsigned(), ino.cast_unsigned()),
            modified: (modified, modified_ns),
            changed: (changed, changed_ns),
        }
    }

    fn of(stat: &FileStat) -> Self {
        Self {
            place: (stat.st_dev, stat.st_ino),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// Where a pidfile can be looked at again on the loop.
#[derive(Debug)]
pub enum Seat {
    /// It is here.
    Spot(Arc<Spot>),
    /// It is missing here.
    Gap(Gap),
}

/// The place of a pidfile, held: looking there cannot hang, whatever its owner puts into the path. The
/// directory is open, on a file system that needs no network and no other process to answer, and a link
/// in the file's place is not followed. What is *not* seen here is another directory in this one's place
/// ([`Spot::is_led_to`]), nor whose the directories above are by now: so the path itself has to be walked
/// anew ([`read`]) from time to time.
#[derive(Debug)]
pub struct Spot {
    directory: Arc<OwnedFd>,
    name: OsString,
    trust: Trust,
    way: Option<Way>,
}

/// The place of a pidfile that is not there: the last directory of its path that is, and what is missing in
/// it. On a file system that needs no network and no other process to answer.
#[derive(Debug)]
pub struct Gap {
    way: Way,
    name: OsString,
}

impl Gap {
    fn of(path: &Path, ahead: usize, directory: &OwnedFd) -> Option<Self> {
        // What is missing is a step of the path itself; what a link leads to is seen by a walk only.
        let there = path.ancestors().nth(ahead)?;
        let (parent, name) = (there.parent()?, there.file_name()?);
        let way = Way::to(parent, directory).filter(|_| is_local(directory))?;
        let gap = Self { way, name: name.to_owned() };
        gap.is_open().then_some(gap)
    }

    /// Whether there is nothing still, without ever hanging. No: it has to be walked to.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let seen = |directory: OwnedFd| {
            fstatat(directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
        };
        self.way.go().is_some_and(|directory| seen(directory) == Err(Errno::ENOENT))
    }
}

impl Spot {
    /// Reads the pidfile as [`read`] does, and never hangs. `None`: what is there now needs a walk.
    #[must_use]
    pub fn read(self: &Arc<Self>) -> Option<Reading> {
        let read = self.step()?.and_then(|walked| claim_of(&walked, Some(Arc::clone(self))));
        Some(read.unwrap_or_else(|reading| reading))
    }

    /// [`remove_if_names`] here, without ever hanging.
    #[must_use]
    pub fn remove_if_names(&self, dead: ProcessIdentity) -> Removal {
        match self.step() {
            Some(Ok(walked)) => remove_walked(&walked, dead),
            Some(Err(Reading::Absent(_))) => Removal::Absent,
            Some(Err(reading)) => Removal::Kept(keep_reason(reading)),
            None => kept("something else is in its place now"),
        }
    }

    /// Whether the path that was walked leads here still, where that can be told without ever hanging.
    #[must_use]
    pub fn is_led_to(&self) -> bool {
        self.way.as_ref().is_some_and(|way| way.go().is_some())
    }

    /// The stamp of what is there now. One fstatat(2), below a microsecond.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        fstatat(&*self.directory, self.name.as_os_str(), flags).ok().map(|stat| Stamp::of(&stat))
    }

    fn step(&self) -> Option<Result<Walked, Reading>> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = match openat(&*self.directory, self.name.as_os_str(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(error) => return Some(Err(failed(self.name.to_string_lossy(), error))),
        };
        let stat = fstat(&file).ok()?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return None;
        }
        let mut trust = self.trust.clone();
        let judged = trust.step(&self.name, &stat).and_then(|()| trust.end(&self.name, &stat));
        Some(judged.map(|()| Walked {
            directory: Arc::clone(&self.directory),
            name: self.name.clone(),
            file,
            stat,
            before: self.trust.clone(),
            trust,
        }))
    }
}

/// Whether a directory is on a file system of this machine (statfs(2), magic numbers of linux/magic.h).
/// What is not known not to hang counts as able to.
fn is_local(directory: &OwnedFd) -> bool {
    let local = [
        statfs::EXT4_SUPER_MAGIC,
        statfs::TMPFS_MAGIC,
        statfs::BTRFS_SUPER_MAGIC,
        statfs::OVERLAYFS_SUPER_MAGIC,
        statfs::XFS_SUPER_MAGIC,
    ];
    statfs::fstatfs(directory).is_ok_and(|fs| local.contains(&fs.filesystem_type()))
}

/// Reads a pidfile. Never waits for a FIFO or a device; hangs where the file system does, so not on
/// the loop.
#[must_use]
pub fn read(path: &Path) -> Reading {
    let read = walk(path).and_then(|walked| claim_of(&walked, spot_of(path, &walked)));
    read.unwrap_or_else(|reading| reading)
}

/// What came of wanting a dead process's pidfile gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Removal {
    /// It is deleted.
    Removed,
    /// There is nothing to delete.
    Absent,
    /// It was left alone, because of this.
    Kept(Untrusted),
}

/// Deletes a pidfile if it still names `dead`, and `dead` is. A file that a living process may have
/// written since is kept: its number may have been given to a new copy of the same service.
///
/// Between the last look and the deletion a few microseconds remain in which the file could be
/// written anew; the kernel has no call that closes them.
#[must_use]
pub fn remove_if_names(path: &Path, dead: ProcessIdentity) -> Removal {
    match walk(path) {
        Ok(walked) => remove_walked(&walked, dead),
        Err(Reading::Absent(_)) => Removal::Absent,
        Err(reading) => Removal::Kept(keep_reason(reading)),
    }
}

fn remove_walked(walked: &Walked, dead: ProcessIdentity) -> Removal {
    let claim = match claim_of(walked, None) {
        Ok(Reading::Claim(claim)) => claim,
        Ok(reading) | Err(reading) => return Removal::Kept(keep_reason(reading)),
    };
    if claim.pid != dead.pid {
        return kept("it names another process now");
    }
    if let Some(reason) = may_be_living(&claim, dead) {
        return kept(reason);
    }
    // A user's own link must not have root delete where that user could not.
    let directory_owner = fstat(&*walked.directory).map(|stat| Uid(stat.st_uid));
    if walked.trust.links == Links::SomeUsers && directory_owner != Ok(claim.owner) {
        return kept("a user's symbolic link leads to it in a directory of another owner");
    }
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    match fstatat(&*walked.directory, walked.name.as_os_str(), flags) {
        Ok(stat) if Stamp::of(&stat) == claim.stamp => {}
        Ok(_) => return kept("it has just been written"),
        Err(Errno::ENOENT) => return Removal::Absent,
        Err(error) => return kept(&error.desc().to_lowercase()),
    }
    match unlinkat(&*walked.directory, walked.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) => Removal::Removed,
        Err(Errno::ENOENT) => Removal::Absent,
        Err(error) => kept(&error.desc().to_lowercase()),
    }
}

/// Why the claim may be that of a living process, if it may.
fn may_be_living(claim: &Claim, dead: ProcessIdentity) -> Option<&'static str> {
    // Nobody has the number, or a zombie has: dead.
    let held = pidfd::open(claim.pid).ok().filter(|fd| !pidfd::has_ended(fd))?;
    let Ok(stat) = procfs::stat(claim.pid) else {
        return (!pidfd::has_ended(&held)).then_some("the process it names cannot be examined");
    };
    if stat.started_ticks == dead.started_ticks {
        return Some("the process it names lives");
    }
    let started_ms =
        clock::boot_window().earliest_ms.saturating_add(clock::ticks_to_ms(stat.started_ticks));
    let slack_ms = u64::try_from(limits::PIDFILE_AGE_SLACK.as_millis()).unwrap_or(u64::MAX);
    (claim.modified_wall_ms.saturating_add(slack_ms) >= started_ms)
        .then_some("a new process with the same number may have written it")
}

fn kept(reason: &str) -> Removal {
    Removal::Kept(Untrusted::from(reason))
}

fn keep_reason(reading: Reading) -> Untrusted {
    match reading {
        Reading::Unsafe(text) | Reading::Unreadable(text) => text,
        Reading::NotPid => Untrusted::from("it does not begin with a process number"),
        Reading::Claim(_) | Reading::Absent(_) => Untrusted::from("it changed while it was read"),
    }
}

/// A path followed to its end: the directory and name there, and the file (opened without access).
struct Walked {
    directory: Arc<OwnedFd>,
    name: OsString,
    file: OwnedFd,
    stat: FileStat,
    /// What was known in front of the file, and with it.
    before: Trust,
    trust: Trust,
}

/// Whose symbolic links were followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Links {
    OnlyRoots,
    SomeUsers,
}

/// Follows a path step by step. The rule: once a step belongs to a user other than root, that user
/// decides what lies behind it; so no step may belong to a third one, and the file at the end must
/// be that user's own. (systemd's rule also refuses to pass through root's directories again; then a
/// user's own absolute link, as every Capistrano release has, would be unsafe.)
fn walk(path: &Path) -> Result<Walked, Reading> {
    if !path.is_absolute() {
        return Err(refuse("the pidfile's path does not begin at the root"));
    }
    let steps = Mode::empty();
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = || open("/", flags | OFlag::O_DIRECTORY, steps).map_err(|e| failed("/", e));
    let mut directory = root()?;
    let mut trust = Trust { decider: None, writers: Writers::OnlyRoot, links: Links::OnlyRoots };
    trust.step(OsStr::new("/"), &stat_of(&directory, OsStr::new("/"))?)?;
    let mut ahead: VecDeque<OsString> = steps_of(path);
    let (mut taken, mut links) = (0, 0);
    while let Some(name) = ahead.pop_front() {
        taken += 1;
        if taken > limits::PATH_STEPS_MAX {
            return Err(refuse("the pidfile's path has too many steps"));
        }
        let next = openat(&directory, name.as_os_str(), flags, steps).map_err(|error| {
            if error == Errno::ENOENT {
                return Reading::Absent(Gap::of(path, ahead.len(), &directory));
            }
            failed(name.to_string_lossy(), error)
        })?;
        let stat = stat_of(&next, &name)?;
        let before = trust.clone();
        trust.step(&name, &stat)?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFLNK => {
                links += 1;
                if links > limits::PATH_LINKS_MAX {
                    return Err(refuse("the pidfile's path has too many symbolic links"));
                }
                let target =
                    readlinkat(&next, "").map_err(|e| failed(name.to_string_lossy(), e))?;
                let target = Path::new(&target);
                if target.is_absolute() {
                    directory = root()?;
                }
                for step in steps_of(target).into_iter().rev() {
                    ahead.push_front(step);
                }
            }
            libc::S_IFREG if ahead.is_empty() => {
                trust.end(&name, &stat)?;
                let directory = Arc::new(directory);
                return Ok(Walked { directory, name, file: next, stat, before, trust });
            }
            libc::S_IFDIR if !ahead.is_empty() => directory = next,
            kind => {
                let name = Untrusted::new(name.as_bytes());
                return Err(refuse(format!("{name} is {}, not a regular file", kind_words(kind))));
            }
        }
    }
    Err(refuse("the pidfile's path is a directory, not a regular file"))
}

/// Who decides what lies at the end of the path, as far as it was followed.
#[derive(Clone, Debug)]
struct Trust {
    decider: Option<(u32, Untrusted)>,
    writers: Writers,
    links: Links,
}

impl Trust {
    fn step(&mut self, name: &OsStr, stat: &FileStat) -> Result<(), Reading> {
        let link = stat.st_mode & libc::S_IFMT == libc::S_IFLNK;
        // A link's mode means nothing; a group's write permission also covers access lists (acl(5)).
        if stat.st_uid != 0 || (!link && stat.st_mode & 0o022 != 0) {
            self.writers = Writers::Others;
        }
        if link && stat.st_uid != 0 {
            self.links = Links::SomeUsers;
        }
        match &self.decider {
            Some((uid, _)) if stat.st_uid != 0 && stat.st_uid != *uid => {
                Err(self.strays(name, stat))
            }
            None if stat.st_uid != 0 => {
                self.decider = Some((stat.st_uid, Untrusted::new(name.as_bytes())));
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn end(&self, name: &OsStr, stat: &FileStat) -> Result<(), Reading> {
        match &self.decider {
            Some((uid, _)) if stat.st_uid != *uid => Err(self.strays(name, stat)),
            Some(_) | None => Ok(()),
        }
    }

    fn strays(&self, name: &OsStr, stat: &FileStat) -> Reading {
        let Some((uid, from)) = &self.decider else {
            return refuse("the pidfile's path is unsafe");
        };
        let name = Untrusted::new(name.as_bytes());
        let to = stat.st_uid;
        refuse(format!("{from} belongs to uid {uid} but leads to {name} of uid {to}"))
    }
}

/// How long whoever made an empty pidfile may take to write into it. After that it is what a full disk or
/// a power cut left (some file systems fill it with zeros), and names nobody: as good as none.
const WRITING_MS: u64 = 5000;

/// Reads the number in the file that was found. The file is opened only now that it is known to be a
/// regular one; O_NONBLOCK and O_NOCTTY stay for the case that it lies.
fn claim_of(walked: &Walked, spot: Option<Arc<Spot>>) -> Result<Reading, Reading> {
    let path = format!("/proc/self/fd/{}", walked.file.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = open(path.as_str(), flags, Mode::empty())
        .map_err(|error| failed(walked.name.to_string_lossy(), error))?;
    let mut bytes = Vec::new();
    let bytes_max = limits::PIDFILE_BYTES_MAX as u64;
    if let Err(error) = File::from(file).take(bytes_max + 1).read_to_end(&mut bytes) {
        return Err(Reading::Unreadable(Untrusted::from(error.to_string().as_str())));
    }
    // The stamp is older than the text: a file that was written between them will differ from it at
    // the next look.
    let stat = &walked.stat;
    let seconds_ms = u64::try_from(stat.st_mtime).unwrap_or(0).saturating_mul(1000);
    let Some(pid) = parse(&bytes) else {
        let blank = bytes.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace());
        let being_written = clock::now().wall.0.abs_diff(seconds_ms) < WRITING_MS;
        return Ok(if blank && !being_written { Reading::Absent(None) } else { Reading::NotPid });
    };
    Ok(Reading::Claim(Claim {
        pid,
        owner: Uid(stat.st_uid),
        modified_wall_ms: seconds_ms + u64::try_from(stat.st_mtime_nsec).unwrap_or(0) / 1_000_000,
        writers: walked.trust.writers,
        stamp: Stamp::of(stat),
        spot,
    }))
}

/// A user's link may lead elsewhere at any moment, and is only seen by walking.
fn spot_of(path: &Path, walked: &Walked) -> Option<Arc<Spot>> {
    let (directory, name) = (&walked.directory, &walked.name);
    let holds = walked.trust.links == Links::OnlyRoots && is_local(directory);
    // Behind a link in the file's own place a walk alone sees where it leads.
    let parent = path.parent().filter(|_| path.file_name() == Some(name));
    holds.then(|| {
        Arc::new(Spot {
            directory: Arc::clone(directory),
            name: name.clone(),
            trust: walked.before.clone(),
            way: parent.and_then(|parent| Way::to(parent, directory)),
        })
    })
}

/// Parses a pidfile: on its first line one number of at most 7 digits (the kernel's largest is 4194304),
/// with blanks around it or none; further lines are the program's own (Postgres has seven).
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Pid> {
    if bytes.len() > limits::PIDFILE_BYTES_MAX {
        return None;
    }
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = line.iter().position(|byte| !blank(byte))?;
    let end = line.iter().rposition(|byte| !blank(byte))? + 1;
    let digits = &line[start..end];
    if digits.len() > 7 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let pid = digits.iter().fold(0i32, |pid, digit| pid * 10 + i32::from(digit - b'0'));
    (pid > 0).then_some(Pid(pid))
}

fn steps_of(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from_vec(b"..".to_vec())),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}

fn stat_of(fd: &OwnedFd, name: &OsStr) -> Result<FileStat, Reading> {
    fstat(fd).map_err(|error| failed(name.to_string_lossy(), error))
}

fn refuse(text: impl Into<String>) -> Reading {
    Reading::Unsafe(Untrusted::from(text.into().as_str()))
}

fn failed(name: impl Display, error: Errno) -> Reading {
    if error == Errno::ENOENT {
        return Reading::Absent(None);
    }
    let text = format!("failed to open {name}: {}", error.desc().to_lowercase());
    Reading::Unreadable(Untrusted::from(text.as_str()))
}

fn kind_words(kind: libc::mode_t) -> &'static str {
    match kind {
        libc::S_IFDIR => "a directory",
        libc::S_IFIFO => "a FIFO",
        libc::S_IFSOCK => "a socket",
        libc::S_IFCHR | libc::S_IFBLK => "a device",
        _ => "a file with something behind it",
    }
}

#[cfg(test)]
mod tests;
