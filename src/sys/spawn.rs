//! Spawning heeler itself in another role, in the keeper's loop: quick, and never blocking.
//!
//! posix_spawn(3) shares the parent's memory until the exec (glibc: CLONE_VM | CLONE_VFORK), so it
//! costs the same whatever the keeper's size, and runs nothing of ours between fork and exec.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::unistd::pipe2;

use super::lock::Lock;
use super::selfexe::SelfExe;
use crate::model::process::{Exit, Gid, Pid, Uid};

/// Where the shim finds its plan.
const PLAN_FD: i32 = 3;
/// The action's lock: held open, never looked at.
const LOCK_FD: i32 = 4;
/// The pipe on which it says that the command was executed, and, by closing it, that it ended.
const STATUS_FD: i32 = 5;
/// Descriptors to pass are kept at or above this, so that putting one in its place (0 to 5)
/// cannot overwrite another.
pub(super) const FD_FLOOR: i32 = 16;

/// What the shim writes to its status pipe when the command has been executed.
pub const EXECUTED: u8 = b'L';

/// A shim that was spawned. Dropping it leaves the shim alone.
#[derive(Debug)]
pub struct Shim {
    /// Its number, for the log.
    pub pid: Pid,
    /// Readable once it ended; then [`reap`] it.
    pub pidfd: OwnedFd,
    /// Non-blocking read end: [`EXECUTED`] when the command was executed; end of file when the
    /// outcome record is in place and the lock is free (or the shim is lost).
    pub status: OwnedFd,
}

/// Spawns a shim with its plan and its lock; `title` (service, kind) is for people who read `ps`.
///
/// # Errors
/// When nothing was spawned; the lock is free again then.
pub fn spawn_shim(exe: &SelfExe, title: [&str; 2], plan: &[u8], lock: Lock) -> io::Result<Shim> {
    let plan = raise(sealed(plan)?)?;
    let lock = raise(lock.0)?;
    let (status, status_end) = pipe2(OFlag::O_CLOEXEC)?;
    let status_end = raise(status_end)?;
    fcntl(&status, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let null = raise(null()?)?;
    let null = null.as_fd();
    let fds = [null, null, null, plan.as_fd(), lock.as_fd(), status_end.as_fd()];
    let (pid, pidfd) = spawn(exe, &["heeler", "shim", title[0], title[1]], &fds)?;
    Ok(Shim { pid, pidfd, status })
}

/// A resolver that was spawned: questions in, answers out, for as long as its caller has patience.
#[derive(Debug)]
pub struct Resolver {
    /// Readable once it ended; also what it is killed by when its time is up.
    pub pidfd: OwnedFd,
    /// Non-blocking write end of its stdin; closing it says that there are no more questions.
    pub stdin: OwnedFd,
    /// Non-blocking read end of its stdout.
    pub stdout: OwnedFd,
}

/// Spawns `heeler resolve`, the child in which the name service may hang.
///
/// # Errors
/// When nothing was spawned.
pub fn spawn_resolver(exe: &SelfExe) -> io::Result<Resolver> {
    let (questions, stdin) = pipe2(OFlag::O_CLOEXEC)?;
    let (stdout, answers) = pipe2(OFlag::O_CLOEXEC)?;
    for ours in [&stdin, &stdout] {
        fcntl(ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let (questions, answers, null) = (raise(questions)?, raise(answers)?, raise(null()?)?);
    let fds = [questions.as_fd(), answers.as_fd(), null.as_fd()];
    let (_, pidfd) = spawn(exe, &["heeler", "resolve"], &fds)?;
    Ok(Resolver { pidfd, stdin, stdout })
}

/// A scout that was spawned. Dropping it closes its socket, which ends it.
#[derive(Debug)]
pub struct Scout {
    /// Its number, for the log.
    pub pid: Pid,
    /// Readable once it ended; then [`reap`] it.
    pub pidfd: OwnedFd,
    /// Non-blocking SOCK_SEQPACKET: packets in, packets out.
    pub socket: OwnedFd,
}

/// Spawns `heeler scout ROLE`, with the user it is to become (none: it stays who it is).
///
/// # Errors
/// When nothing was spawned.
pub fn spawn_scout(exe: &SelfExe, role: &str, user: Option<(Uid, Gid)>) -> io::Result<Scout> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    for end in [&socket, &theirs] {
        // Without root the kernel's own bound stays; then more packets wait here.
        let _wider = setsockopt(end, sockopt::SndBufForce, &SCOUT_SOCKET_BYTES);
    }
    let (theirs, null) = (raise(theirs)?, raise(null()?)?);
    let null = null.as_fd();
    let fds = [null, null, null, theirs.as_fd()];
    let user = user.map_or_else(|| "same".to_owned(), |(uid, gid)| format!("{}:{}", uid.0, gid.0));
    let (pid, pidfd) = spawn(exe, &["heeler", "scout", role, &user], &fds)?;
    Ok(Scout { pid, pidfd, socket })
}

/// Room for the packets of one burst of questions.
const SCOUT_SOCKET_BYTES: usize = 1 << 20;

/// How a child ended, once its pidfd is readable; `None` while it lives. It is reaped by this.
///
/// # Errors
/// When it is not this process's child, or was reaped before.
pub fn reap(pidfd: &OwnedFd) -> io::Result<Option<Exit>> {
    // waitid(2) by hand: nix's takes an exit by a real-time signal for an error.
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let fd = libc::id_t::try_from(pidfd.as_raw_fd()).map_err(io::Error::other)?;
    let flags = libc::WEXITED | libc::WNOHANG;
    // SAFETY: the kernel fills in the zeroed record, which lives here.
    Errno::result(unsafe { libc::waitid(libc::P_PIDFD, fd, info.as_mut_ptr(), flags) })?;
    // SAFETY: all zeros is a valid record, and means that nobody ended; the fields read are those
    // of a child's end, which is all that waitid reports here.
    let (pid, status, code) = unsafe {
        let info = info.assume_init();
        (info.si_pid(), info.si_status(), info.si_code)
    };
    Ok(match (pid, code) {
        (0, _) => None,
        (_, libc::CLD_EXITED) => Some(Exit::Code(status)),
        (_, _) => Some(Exit::Signal(status)),
    })
}

/// Ends a child of this process that is not needed any more (KILL, through its pidfd: unreaped, it
/// cannot be another process) and reaps it. Waits for its end: not on the loop.
pub fn end_child(pidfd: &OwnedFd) {
    if super::pidfd::send(pidfd, libc::SIGKILL).is_ok() {
        let mut ended = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
        let _readable = nix::poll::poll(&mut ended, nix::poll::PollTimeout::NONE);
    }
    let _reaped = reap(pidfd);
}

/// What a shim was given by [`spawn_shim`].
#[derive(Debug)]
pub struct Inherited {
    /// The framed plan, from its beginning.
    pub plan: File,
    /// The action's lock.
    pub lock: OwnedFd,
    /// The write end of the status pipe.
    pub status: OwnedFd,
}

/// Takes what the keeper passed, makes sure that no exec passes it on, and closes everything else.
/// To be called once, first of all, in the role `shim`.
///
/// # Errors
/// When this process was not spawned by [`spawn_shim`].
pub fn inherited() -> io::Result<Inherited> {
    super::defaults::close_from(STATUS_FD as u32 + 1, super::defaults::Closing::Now)?;
    super::defaults::close_from(PLAN_FD as u32, super::defaults::Closing::OnExec)?;
    let take = |fd: i32| {
        // SAFETY: the number is only looked at by fcntl(2), which answers EBADF when it is closed.
        fcntl(unsafe { BorrowedFd::borrow_raw(fd) }, FcntlArg::F_GETFD)?;
        // SAFETY: it is open, and nothing in this process owns it: the role was just entered.
        Ok::<_, io::Error>(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    Ok(Inherited { plan: take(PLAN_FD)?.into(), lock: take(LOCK_FD)?, status: take(STATUS_FD)? })
}

/// Opens a pidfd for a process that is this one's child and not yet reaped (pidfd_open(2)).
pub(super) fn pidfd_of_child(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes numbers only.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.0, 0) })?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from(Errno::EBADF))?;
    // SAFETY: the kernel just made this descriptor (close-on-exec) and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The same description under a number at or above [`FD_FLOOR`], closed on exec.
pub(super) fn raise(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= FD_FLOOR {
        return Ok(fd);
    }
    let raised = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(FD_FLOOR))?;
    // SAFETY: fcntl just made this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raised) })
}

/// /dev/null, both ways.
pub(super) fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

/// The bytes as a file in memory that nobody can change any more: unlike a pipe it cannot fill up.
pub(super) fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"heeler-plan", flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
    Ok(file.into())
}

/// Spawns `exe` with these arguments, an empty environment, default signals, a session of its own
/// and exactly these descriptors from 0 on.
fn spawn(exe: &SelfExe, argv: &[&str], fds: &[BorrowedFd<'_>]) -> io::Result<(Pid, OwnedFd)> {
    let path = exe.path_in_child()?;
    let argv = argv.iter().map(|arg| CString::new(*arg)).collect::<Result<Vec<_>, _>>()?;
    let actions = Actions::new(fds)?;
    let attributes = Attributes::new()?;
    let pid = posix_spawn(&path, &argv, &actions, &attributes)?;
    match pidfd_of_child(pid) {
        Ok(pidfd) => Ok((pid, pidfd)),
        Err(error) => {
            // Nobody could be told of its end: end it now. Unreaped, it still has its number.
            let child = nix::unistd::Pid::from_raw(pid.0);
            let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(child, None);
            Err(error)
        }
    }
}

fn posix_spawn(
    path: &CStr,
    argv: &[CString],
    actions: &Actions,
    attributes: &Attributes,
) -> io::Result<Pid> {
    let mut pointers: Vec<*mut libc::c_char> =
        argv.iter().map(|arg| arg.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    let environment = [std::ptr::null_mut::<libc::c_char>()];
    let mut pid = 0;
    // SAFETY: every pointer is to memory that lives until the call returns; both lists end with a
    // null pointer; posix_spawn(3) writes only the pid and does not change the strings.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            pointers.as_ptr(),
            environment.as_ptr(),
        )
    };
    if error == 0 { Ok(Pid(pid)) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// posix_spawn's list of what to do with descriptors; frees itself.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new(fds: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: it initialises the memory it is given.
        check(unsafe { libc::posix_spawn_file_actions_init(raw.as_mut_ptr()) })?;
        // SAFETY: the call succeeded, so the value is there.
        let mut actions = Self(unsafe { raw.assume_init() });
        for (fd, target) in fds.iter().zip(0..) {
            debug_assert!(fd.as_raw_fd() >= FD_FLOOR, "raised by the caller");
            // SAFETY: the list is initialised; the numbers are only stored.
            check(unsafe {
                libc::posix_spawn_file_actions_adddup2(&raw mut actions.0, fd.as_raw_fd(), target)
            })?;
        }
        Ok(actions)
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, freed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// posix_spawn's attributes: default signals, none blocked, a new session; frees itself.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: it initialises the memory it is given.
        check(unsafe { libc::posix_spawnattr_init(raw.as_mut_ptr()) })?;
        // SAFETY: the call succeeded, so the value is there.
        let mut attributes = Self(unsafe { raw.assume_init() });
        let mut all = MaybeUninit::uninit();
        let mut none = MaybeUninit::uninit();
        // SAFETY: both calls initialise the set they are given.
        let (all, none) = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::sigemptyset(none.as_mut_ptr());
            (all.assume_init(), none.assume_init())
        };
        let flags = libc::POSIX_SPAWN_SETSIGDEF
            | libc::POSIX_SPAWN_SETSIGMASK
            | i32::from(libc::POSIX_SPAWN_SETSID);
        let flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
        // SAFETY: the attributes are initialised; the sets are read and copied.
        unsafe {
            check(libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, &raw const all))?;
            check(libc::posix_spawnattr_setsigmask(&raw mut attributes.0, &raw const none))?;
            check(libc::posix_spawnattr_setflags(&raw mut attributes.0, flags))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, freed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

/// posix_spawn's family returns the error number itself.
fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}
