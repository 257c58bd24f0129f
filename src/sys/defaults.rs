//! What a process inherits and an exec keeps, put back to how a login would have it.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

/// Open files a command may have before it asks for more; select(2) breaks above 1023
/// (systemd.exec(5), LimitNOFILE).
const NOFILE_SOFT: u64 = 1024;
/// As many as it may ask for.
const NOFILE_HARD: u64 = 524_288;

/// Every signal, real-time ones too, back to its default, and none blocked: an ignored or blocked
/// signal passes an exec (signal(7)), and a service that cannot see TERM cannot be stopped.
///
/// # Errors
/// When the mask cannot be set; it always can.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=SIGNAL_MAX {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // A kernel `struct sigaction` of zeros: SIG_DFL, no flags, empty mask. The raw call is
        // needed because libc refuses the two signals it keeps for its threads (32 and 33).
        let default = [0_u64; 4];
        // SAFETY: rt_sigaction(2) reads at most 32 bytes here (handler, flags, restorer and an
        // 8-byte mask on every 64-bit Linux), which live for the call; no old action is asked for.
        let result = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
        Errno::result(result)?;
    }
    let none = nix::sys::signal::SigSet::empty();
    nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&none), None)?;
    Ok(())
}

/// Signals are numbered 1 to 64 on x86-64 and arm64 (signal(7)).
const SIGNAL_MAX: libc::c_int = 64;

/// The out-of-memory score, scheduling, file limit and umask of an ordinary process. Lowering what
/// was inherited always works; raising needs rights heeler may lack, and then stays as it was.
///
/// # Errors
/// The name of what stayed raised, and why.
pub fn reset_limits() -> Result<(), (&'static str, io::Error)> {
    umask(Mode::from_bits_truncate(0o022));
    // Refused only when it would be lower than what this process may have without
    // CAP_SYS_RESOURCE (proc(5), oom_score_adj): then it is the more easily killed, never the less.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    reset_scheduling().map_err(|error| ("scheduling", error))?;
    reset_open_files().map_err(|error| ("limit of open files", error))
}

fn reset_scheduling() -> io::Result<()> {
    let other = libc::sched_param { sched_priority: 0 };
    // SAFETY: sched_setscheduler(2) on this process reads the parameter, which lives here.
    Errno::result(unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const other) })?;
    // SAFETY: setpriority(2) takes numbers only. Who: this process.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) } != 0 {
        // Going from nice 5 to 0 needs CAP_SYS_NICE; being nicer than asked harms nobody.
        let error = io::Error::last_os_error();
        // SAFETY: getpriority(2) takes numbers only.
        if unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) } < 0 {
            return Err(error);
        }
    }
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    // SAFETY: ioprio_set(2) takes numbers only: this process, class none = follow nice. Where the
    // kernel lacks it there is nothing to reset.
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0) };
    Ok(())
}

fn reset_open_files() -> io::Result<()> {
    if setrlimit(Resource::RLIMIT_NOFILE, NOFILE_SOFT, NOFILE_HARD).is_ok() {
        return Ok(());
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let hard = hard.min(NOFILE_HARD);
    Ok(setrlimit(Resource::RLIMIT_NOFILE, NOFILE_SOFT.min(hard), hard)?)
}

/// As many open files as this process may have: each process under watch is one, and a login shell
/// grants 1024. A command gets its own limit by [`reset_limits`].
///
/// # Errors
/// When the kernel refuses; then the limit stays as it was.
pub fn raise_open_files() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Whether descriptors from `first` on are closed at once or by the next exec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    /// At once.
    Now,
    /// By the exec.
    OnExec,
}

/// Closes every descriptor from `first` on, known or not.
///
/// # Errors
/// When neither close_range(2) nor /proc/self/fd works.
pub fn close_from(first: u32, closing: Closing) -> io::Result<()> {
    let flags = match closing {
        Closing::Now => 0,
        Closing::OnExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: close_range(2) takes numbers only. The caller gives up every descriptor in the range:
    // no owner of one is used or dropped afterwards (the callers never return, or only mark them).
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if result == 0 {
        return Ok(());
    }
    // Before Linux 5.9 (5.11 for the flag): one by one. The list is read whole first.
    let listed: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in listed.into_iter().filter(|fd| u32::try_from(*fd).is_ok_and(|fd| fd >= first)) {
        // SAFETY: as above; a number that is closed already (the listing's own) gives EBADF.
        unsafe {
            match closing {
                Closing::Now => libc::close(fd),
                Closing::OnExec => libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC),
            }
        };
    }
    Ok(())
}
