//! Odd processes and files, made with what every Debian has (sh, perl-base), and ended with the test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use heeler::model::process::{Absence, Pid, ProcessIdentity, Uid};
use heeler::model::text::Untrusted;
use heeler::sys::identity::{ClaimStamp, Found, Owner, Proved, identify_recorded};
use heeler::sys::procfs;
use tempfile::TempDir;

/// The service's user in these tests (www-data on Debian; no name is needed).
pub(crate) const WWW: u32 = 33;
/// Another one.
pub(crate) const NOBODY: u32 = 65534;
/// Time for something that takes milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A process that is killed and waited for when the test ends.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("the process starts"))
    }

    /// One that only waits.
    pub(crate) fn idle(uid: u32) -> Self {
        Self::start(Command::new("sleep").arg("1000").uid(uid).gid(uid))
    }

    /// A perl program whose output is read line by line.
    pub(crate) fn perl(program: &str, uid: u32) -> (Self, Lines<BufReader<ChildStdout>>) {
        let mut command = Command::new("perl");
        command.args(["-e", &format!("$| = 1; {program}")]).uid(uid).gid(uid);
        let mut process = Self::start(command.stdout(Stdio::piped()));
        let output = process.0.stdout.take().expect("its output");
        (process, BufReader::new(output).lines())
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid(i32::try_from(self.0.id()).expect("a pid"))
    }

    pub(crate) fn identity(&self) -> ProcessIdentity {
        identity_of(self.pid())
    }

    /// Kills it and waits for it: its number is free afterwards.
    pub(crate) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Kills, when the test ends, what is no child of it.
pub(crate) struct Others(pub(crate) Vec<Proved>);

impl Drop for Others {
    fn drop(&mut self) {
        for other in &self.0 {
            let _ = heeler::sys::signal::send(other, heeler::model::process::Signal::Kill);
        }
    }
}

pub(crate) fn identity_of(pid: Pid) -> ProcessIdentity {
    let stat = procfs::stat(pid).expect("a living process");
    ProcessIdentity { pid, started_ticks: stat.started_ticks }
}

/// Proves a process by its start time.
pub(crate) fn hold(pid: Pid) -> Proved {
    one(identify_recorded(identity_of(pid))).0
}

/// The next line, as a number.
pub(crate) fn number(lines: &mut Lines<BufReader<ChildStdout>>) -> Pid {
    let line = lines.next().expect("a line").expect("readable");
    Pid(line.trim().parse().expect("a number"))
}

/// A directory below which only root writes, unless the test says otherwise.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = tempfile::Builder::new().prefix("heeler-test-").tempdir_in("/run");
        let place = place.expect("a directory in /run");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        Self(place)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A directory in it that belongs to `uid`.
    pub(crate) fn directory(&self, name: &str, uid: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("a directory");
        chown(&path, Some(uid), Some(uid)).expect("its owner");
        path
    }

    /// A pidfile in it.
    pub(crate) fn pidfile(&self, name: &str, text: &str, uid: u32) -> PathBuf {
        let path = self.path(name);
        write(&path, text, uid);
        path
    }
}

pub(crate) fn write(path: &Path, text: &str, uid: u32) {
    fs::write(path, text).expect("a file");
    chown(path, Some(uid), Some(uid)).expect("its owner");
}

/// A symbolic link that belongs to `uid`.
pub(crate) fn link(target: &Path, at: &Path, uid: u32) {
    std::os::unix::fs::symlink(target, at).expect("a link");
    std::os::unix::fs::lchown(at, Some(uid), Some(uid)).expect("its owner");
}

pub(crate) fn set_modified(path: &Path, wall_ms: u64) {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(wall_ms);
    File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(at))
        .expect("its time");
}

pub(crate) fn owner(uid: u32) -> Owner {
    Owner::of(Uid(uid))
}

pub(crate) fn one(found: Found) -> (Proved, ClaimStamp) {
    match found {
        Found::One(proved, stamp) => (proved, stamp),
        other => panic!("{other:?}, not one process"),
    }
}

pub(crate) fn none(found: Found) -> (Absence, String) {
    match found {
        Found::None(absence, note) => (absence, note.unwrap_or_default().to_string()),
        other => panic!("{other:?}, not none"),
    }
}

pub(crate) fn refused(found: Found, words: &str) -> Untrusted {
    match found {
        Found::Refused(text) if text.raw().contains(words) => text,
        other => panic!("{other:?}, not refused with {words:?}"),
    }
}

pub(crate) fn unknown(found: Found, words: &str) {
    match found {
        Found::Unknown(text) if text.raw().contains(words) => {}
        other => panic!("{other:?}, not unknown with {words:?}"),
    }
}

/// What a process calls itself, as `match` reads it.
pub(crate) fn title(pid: Pid) -> Untrusted {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    procfs::parse_title(&bytes[..bytes.len().min(1024)])
}
