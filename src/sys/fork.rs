//! The one fork: a single-threaded process makes the child that becomes a command.
//!
//! Single-threaded is proved, not assumed: only then may the child look users up, allocate and
//! explain before it executes (fork(2), signal-safety(7)).

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{self, SigSet, SigmaskHow, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, Pid as RawPid, fork};

use super::defaults::{Closing, close_from};
use super::spawn::{FD_FLOOR, null, pidfd_of_child, sealed};
use crate::model::process::{Exit, Pid};

/// The ends of pipes that the child gets.
#[derive(Debug)]
pub struct ChildEnds {
    /// Becomes its stdin; /dev/null where absent.
    pub input: Option<OwnedFd>,
    /// Becomes its stdout and stderr.
    pub output: OwnedFd,
    /// On which it says how far it came.
    pub report: OwnedFd,
    /// At which it waits.
    pub gate: OwnedFd,
}

/// What the child's own code works with. Its descriptors 0, 1 and 2 are in place; these two are
/// closed by an exec; there are no others.
#[derive(Debug)]
pub struct ChildSide {
    /// The write end of the report pipe.
    pub report: File,
    /// The read end of the gate.
    pub gate: File,
}

/// A child that was forked and is not reaped: while this value lives, its number and its process
/// group's number cannot belong to anybody else, so signals can go by number.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

const REPORT_FD: i32 = 3;
const GATE_FD: i32 = 4;
/// What a child exits with when it could not even arrange its descriptors, or panicked.
const CHILD_BROKE: i32 = 125;

/// Forks a child that runs `body`. Every other descriptor of this process (locks, records, the
/// status pipe) is closed in it before `body` begins.
///
/// # Errors
/// When this process has more than one thread, or the kernel refuses.
pub fn fork_child(
    ends: ChildEnds,
    body: impl FnOnce(ChildSide) -> Infallible,
) -> io::Result<Child> {
    one_thread()?;
    keep_the_dead()?;
    let mut ends = ends;
    let stdin = match ends.input.take() {
        Some(input) => input,
        None => null()?,
    };
    // SAFETY: this process has exactly one thread, so no lock is held by another one that the
    // child lacks; the child never returns from `in_child`.
    match unsafe { fork() }? {
        ForkResult::Child => in_child(&stdin, &ends, body),
        ForkResult::Parent { child } => {
            let pid = Pid(child.as_raw());
            match pidfd_of_child(pid) {
                Ok(pidfd) => Ok(Child { pid, pidfd }),
                Err(error) => {
                    let _ = signal::kill(child, Signal::SIGKILL);
                    let _ = nix::sys::wait::waitpid(child, None);
                    Err(error)
                }
            }
        }
    }
}

fn in_child(stdin: &OwnedFd, ends: &ChildEnds, body: impl FnOnce(ChildSide) -> Infallible) -> ! {
    // A panic must not unwind into the parent's code, which would then run twice.
    let _ = catch_unwind(AssertUnwindSafe(|| match arrange(stdin, ends) {
        Ok(side) => match body(side) {},
        Err(_) => exit_child(CHILD_BROKE),
    }));
    exit_child(CHILD_BROKE)
}

/// What a command is to read on its stdin: whole, and nobody can change it.
///
/// # Errors
/// When the kernel has no memory or no descriptor.
pub fn sealed_input(bytes: &[u8]) -> io::Result<OwnedFd> {
    sealed(bytes)
}

/// Ends a forked child at once: no destructor of the parent's runs, no buffer of its is written.
pub fn exit_child(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Puts stdin, stdout, stderr, report and gate at 0 to 4 and closes the rest.
fn arrange(stdin: &OwnedFd, ends: &ChildEnds) -> io::Result<ChildSide> {
    let sources = [stdin, &ends.output, &ends.output, &ends.report, &ends.gate];
    let mut raised = [-1; 5];
    for (fd, source) in raised.iter_mut().zip(sources) {
        *fd = fcntl(source.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(FD_FLOOR))?;
    }
    for (fd, target) in raised.into_iter().zip(0..) {
        // SAFETY: both are numbers; what the targets were before is given up: this child never
        // returns to the code that owned them.
        Errno::result(unsafe { libc::dup2(fd, target) })?;
    }
    close_from(GATE_FD as u32 + 1, Closing::Now)?;
    // SAFETY: both were just made by dup2, and nothing else owns them.
    let (report, gate) = unsafe { (File::from_raw_fd(REPORT_FD), File::from_raw_fd(GATE_FD)) };
    for file in [&report, &gate] {
        fcntl(file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    debug_assert_eq!((report.as_raw_fd(), gate.as_raw_fd()), (REPORT_FD, GATE_FD));
    Ok(ChildSide { report, gate })
}

impl Child {
    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable once it ended.
    #[must_use]
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Signals the child alone. One that ended already is as good.
    pub fn signal(&self, signal: Signal) {
        let _ = signal::kill(RawPid::from_raw(self.pid.0), signal);
    }

    /// Signals the child and everyone in its process group. The child leads the group (it began a
    /// session), and being unreaped it keeps the number from being used again, even when dead.
    pub fn signal_group(&self, signal: Signal) {
        if killpg(RawPid::from_raw(self.pid.0), signal).is_err() {
            self.signal(signal);
        }
    }

    /// How it ended; gives it back while it lives.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn reap(self) -> io::Result<Result<Exit, Self>> {
        match super::spawn::reap(&self.pidfd)? {
            Some(exit) => Ok(Ok(exit)),
            None => Ok(Err(self)),
        }
    }
}

/// Forks a process that stays when this one goes, with no terminal and no standard descriptors, and
/// does `body` there: for a tool whose caller must not wait for what a command left behind.
///
/// # Errors
/// When this process has more than one thread, or the kernel refuses.
pub fn leave_behind(body: impl FnOnce()) -> io::Result<()> {
    let null = null()?;
    one_thread()?;
    // SAFETY: one thread, as in `fork_child`; the child never returns to the caller.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        return Ok(());
    }
    let _ = catch_unwind(AssertUnwindSafe(|| {
        for target in 0..=2 {
            // SAFETY: the standard descriptors are nobody's property.
            unsafe { libc::dup2(null.as_raw_fd(), target) };
        }
        if block_signals().is_ok() && new_session().is_ok() {
            body();
        }
    }));
    exit_child(0)
}

/// With SIGCHLD ignored, which an exec inherits, the kernel reaps children by itself (waitpid(2)):
/// their ends would be lost, and a number could be somebody else's when it is signalled.
///
/// # Errors
/// When the kernel refuses; it never does.
pub fn keep_the_dead() -> io::Result<()> {
    // SAFETY: SIG_DFL runs nothing of ours.
    unsafe { signal::signal(Signal::SIGCHLD, signal::SigHandler::SigDfl) }?;
    Ok(())
}

fn one_thread() -> io::Result<()> {
    if fs::read_dir("/proc/self/task")?.count() == 1 {
        return Ok(());
    }
    Err(io::Error::other("this process has more than one thread, so it cannot fork"))
}

/// Takes the signals of a terminal and a service manager as readable events instead (signalfd(2)).
///
/// # Errors
/// When no descriptor is left.
pub fn signals_as_events() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Blocks every signal that can be: what keeps a command must not end by one meant for heeler. The
/// child gets its own by [`super::defaults::reset_signals`].
///
/// # Errors
/// When the mask cannot be set; it always can.
pub fn block_signals() -> io::Result<()> {
    Ok(signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?)
}

/// Begins a session, and with it a process group, of this process alone (setsid(2)).
///
/// # Errors
/// When it leads a group already.
pub fn new_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}

/// Names this process in `ps` and `top` (prctl(2), PR_SET_NAME: 15 bytes are kept).
pub fn set_name(name: &std::ffi::CStr) {
    let _ = nix::sys::prctl::set_name(name);
}

/// Becomes another program; returns only when that failed, with why.
#[must_use]
pub fn execute(path: &CString, argv: &[CString], env: &[CString]) -> Errno {
    match nix::unistd::execve(path, argv, env) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}
