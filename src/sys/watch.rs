//! Seeing processes end: one epoll instance over their pidfds (epoll(7)).
//!
//! It is level-triggered: an exit is reported again and again until its pidfd is removed, so none can
//! be lost between two looks. Its own descriptor is readable while there is something to report, so a
//! larger loop can wait for all of them as one; a loop that is told of *changes* only (tokio's
//! `AsyncFd`) has to drain until nothing new comes before it waits again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::model::limits;

/// Processes under watch.
#[derive(Debug)]
pub struct Watch(Epoll);

impl Watch {
    /// An empty one.
    ///
    /// # Errors
    /// When heeler is out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Watches a process (a pidfd) under a token. One that has ended already is reported as well.
    ///
    /// # Errors
    /// When it is watched already, or the limit of watches (`fs.epoll.max_user_watches`) is reached.
    pub fn add(&self, process: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.0.add(process, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Watches it no more. Call it before the process is let go of.
    ///
    /// # Errors
    /// When it was not watched.
    pub fn remove(&self, process: impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(process)?)
    }

    /// Adds the tokens of ended processes to `ended`: at most [`limits::WATCH_BATCH`] of them, and
    /// never waits. Gives how many. What is not removed is given again, after all others.
    ///
    /// # Errors
    /// As epoll_wait(2); an interruption is none.
    pub fn drain(&self, ended: &mut Vec<u64>) -> io::Result<usize> {
        let mut events = [EpollEvent::empty(); limits::WATCH_BATCH];
        let count = loop {
            match self.0.wait(&mut events, EpollTimeout::ZERO) {
                Err(Errno::EINTR) => {}
                result => break result?,
            }
        };
        ended.extend(events.iter().take(count).map(EpollEvent::data));
        Ok(count)
    }
}

impl Watch {
    /// The same for a tokio loop; to be called inside its runtime.
    ///
    /// # Errors
    /// When the runtime's own epoll instance refuses it.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor belongs to the epoll instance in here, is the same whenever asked for,
        // and is closed only with `self`, which the `AsyncFd` owns and takes off the runtime first.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}
