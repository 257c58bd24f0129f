//! Errors of the exec in words, for someone at 3 a.m.: what is wrong, where, and what to do.
//!
//! Runs as the user, so what it can see is what the command could have seen.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::model::text::{Untrusted, escape};

/// Why a directory could not be entered.
pub(super) fn directory(path: &Path, error: &io::Error, user: &str) -> String {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
    match unreachable(path, user) {
        Some(why) => why,
        None if errno == Errno::EACCES => format!("{user} may not enter {}", show(path)),
        None => format!("{}: {}", show(path), errno.desc()),
    }
}

/// Why a program was not executed.
pub(super) fn execution(path: &Path, errno: Errno, user: &str) -> String {
    let shown = show(path);
    if errno == Errno::ENOENT {
        not_there(path, &shown, user)
    } else if errno == Errno::EACCES || errno == Errno::EPERM {
        not_allowed(path, errno, user)
    } else if errno == Errno::ENOEXEC {
        not_a_program(&shown)
    } else if errno == Errno::ETXTBSY {
        format!("{shown} is open for writing (a deploy still copies it?)")
    } else if errno == Errno::E2BIG {
        too_long()
    } else if errno == Errno::EAGAIN {
        process_limit(user)
    } else if errno == Errno::ELOOP {
        format!("{shown} leads through too many links or interpreters")
    } else {
        format!("{shown}: {}", errno.desc())
    }
}

/// Why a program would not be executed, as far as that can be told without trying.
pub(super) fn obstacle(path: &Path, user: &str) -> Option<String> {
    if let Some(why) = unreachable(path, user) {
        return Some(why);
    }
    let file = fs::metadata(path).is_ok_and(|meta| meta.is_file());
    if !file || access(path, AccessFlags::X_OK).is_err() {
        return Some(not_allowed(path, Errno::EACCES, user));
    }
    let name = interpreter(path)?;
    if fs::metadata(&name).is_err() {
        return Some(missing_interpreter(&show(path), &name));
    }
    access(Path::new(&name), AccessFlags::X_OK)
        .is_err()
        .then(|| not_allowed(path, Errno::EACCES, user))
}

fn not_there(path: &Path, shown: &str, user: &str) -> String {
    match (unreachable(path, user), interpreter(path)) {
        (Some(why), _) => why,
        (None, Some(name)) => missing_interpreter(shown, &name),
        (None, None) => format!(
            "{shown} is there but its program loader is not: it was made for another machine or \
             another C library (see `file {shown}`)"
        ),
    }
}

fn not_a_program(shown: &str) -> String {
    format!(
        "{shown} is neither a program for this machine nor a script that names its interpreter: \
         put #!/bin/sh in its first line"
    )
}

fn too_long() -> String {
    "the arguments are too long: one may have 128 KiB, all with the environment a quarter of the \
     stack limit"
        .to_owned()
}

fn process_limit(user: &str) -> String {
    format!(
        "the process limit of user {user} is reached (RLIMIT_NPROC; see `ulimit -u` and \
         `ps -u {user}`)"
    )
}

fn missing_interpreter(shown: &str, name: &str) -> String {
    if name.ends_with('\r') {
        return format!(
            "interpreter {} not found: {shown} has Windows line ends (CRLF); take them off with \
             sed -i 's/\\r$//' {shown}",
            escape(name)
        );
    }
    format!("interpreter {} not found: it is what the first line of {shown} names", escape(name))
}

fn not_allowed(path: &Path, errno: Errno, user: &str) -> String {
    let shown = show(path);
    if let Some(why) = unreachable(path, user) {
        return why;
    }
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return format!("{shown} is a directory, not a program"),
        Ok(meta) if !meta.is_file() => return format!("{shown} is not a regular file"),
        Ok(_) | Err(_) => {}
    }
    if access(path, AccessFlags::X_OK).is_err() {
        return format!("{user} may not execute {shown}: chmod +x it, or see its owner and group");
    }
    if let Some(name) = interpreter(path)
        && access(Path::new(&name), AccessFlags::X_OK).is_err()
    {
        return format!("{user} may not execute {}, the interpreter of {shown}", escape(&name));
    }
    format!(
        "{shown}: {}, though its mode allows it: is its file system mounted noexec, or does \
         SELinux or AppArmor deny it?",
        errno.desc()
    )
}

/// The first part of the path that is not there or cannot be passed; `None` if the user can get to
/// the end of it.
fn unreachable(path: &Path, user: &str) -> Option<String> {
    let mut parts: Vec<PathBuf> = path.ancestors().map(Path::to_owned).collect();
    parts.reverse();
    let mut above: Option<PathBuf> = None;
    for part in parts.into_iter().filter(|part| !part.as_os_str().is_empty()) {
        match fs::metadata(&part) {
            Ok(_) => above = Some(part),
            Err(error) if error.raw_os_error() == Some(Errno::EACCES as i32) => {
                let dir = above.unwrap_or_else(|| "/".into());
                return Some(format!(
                    "{user} may not search the directory {} on the way to {}",
                    show(&dir),
                    show(path)
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let link = fs::symlink_metadata(&part).is_ok();
                let what = if link { "leads nowhere (a dangling link)" } else { "does not exist" };
                return Some(format!("{} {what}", show(&part)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let file = above.unwrap_or(part);
                return Some(format!("{} is not a directory", show(&file)));
            }
            Err(_) => return None,
        }
    }
    None
}

/// What the first line of a script names, as the kernel reads it (execve(2)): up to a blank or the
/// line's end, with a `\r` still on it.
fn interpreter(path: &Path) -> Option<String> {
    let mut start = Vec::new();
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    file.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    // Blanks may stand before the name; a `\r` is no blank to the kernel.
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let name = line.split(blank).find(|word| !word.is_empty())?;
    Some(String::from_utf8_lossy(name).into_owned())
}

fn show(path: &Path) -> String {
    Untrusted::new(path.as_os_str().as_bytes()).to_string()
}
