//! A scout as the keeper holds it: its process, its socket, and the packets it has not taken yet.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::keeper::Keeper;
use crate::keeper::scout::ScoutUser;
use crate::keeper::turn::{Done, Source};
use crate::model::limits;
use crate::model::process::{Gid, Pid, Uid};
use crate::sys::spawn;

/// How soon a packet that a scout did not take is offered again.
const DEAF_POLL: Duration = Duration::from_millis(5);

/// A scout's process.
pub(super) struct Caged {
    pub(super) pid: Pid,
    pub(super) since: Instant,
    /// Who it is; nobody but heeler where that is not root.
    pub(super) user: Option<(Uid, Gid)>,
    pub(super) packets: VecDeque<Vec<u8>>,
    pidfd: OwnedFd,
    socket: OwnedFd,
    tokens: [u64; 2],
    /// Since when it takes none.
    deaf_since: Option<Instant>,
}

impl Caged {
    /// Sends what it takes.
    ///
    /// # Errors
    /// When it has taken nothing for too long.
    pub(super) fn flush(&mut self) -> Result<(), String> {
        while let Some(packet) = self.packets.front() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), packet, flags) {
                Ok(_) => {
                    self.packets.pop_front();
                    self.deaf_since = None;
                }
                Err(Errno::EAGAIN) => {
                    let since = *self.deaf_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > limits::SCOUT_GRACE {
                        return Err("it takes nothing any more".to_owned());
                    }
                    return Ok(());
                }
                Err(Errno::EINTR) => {}
                // Its end is told by its pidfd.
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
                Err(error) => return Err(format!("failed to ask it: {}", error.desc())),
            }
        }
        Ok(())
    }

    /// When [`Caged::flush`] is due, if anything was not taken.
    pub(super) fn wakeup(&self) -> Option<Instant> {
        self.deaf_since.map(|_| Instant::now() + DEAF_POLL)
    }

    /// The next packet it sent, if there is one.
    ///
    /// # Errors
    /// When there is one larger than any.
    pub(super) fn receive<'a>(&self, buffer: &'a mut Vec<u8>) -> Result<Option<&'a [u8]>, String> {
        buffer.resize(limits::SCOUT_PACKET_BYTES_MAX, 0);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let length = loop {
            match recv(self.socket.as_raw_fd(), buffer, flags) {
                // Its end is told by its pidfd, with how it ended.
                Ok(0) | Err(Errno::EAGAIN | Errno::ECONNRESET) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(format!("failed to hear it: {}", error.desc())),
                Ok(length) => break length,
            }
        };
        let packet = buffer.get(..length);
        packet.map(Some).ok_or_else(|| "it said more than fits a packet".to_owned())
    }

    /// How it ended, once it has.
    pub(super) fn end(&self) -> Option<String> {
        match spawn::reap(&self.pidfd) {
            Ok(exit) => exit.map(|exit| format!("it ended: {exit}")),
            Err(error) => Some(format!("it ended, nobody knows how: {error}")),
        }
    }
}

impl Keeper {
    /// Starts a scout for a role; `speaks` and `ended` are what its socket and its end stand for.
    pub(super) fn cage(
        &mut self,
        role: &str,
        [speaks, ended]: [Source; 2],
    ) -> Result<Caged, String> {
        let user = match self.people.scout() {
            ScoutUser::Same => None,
            ScoutUser::Known(uid, gid) => Some((uid, gid)),
            ScoutUser::Unknown => {
                return Err("the user of heeler's scout could not be looked up yet".to_owned());
            }
        };
        let failed = |error| format!("failed to start heeler's {role} scout: {error}");
        let spawn::Scout { pid, pidfd, socket } =
            spawn::spawn_scout(&self.exe, role, user).map_err(failed)?;
        let watched =
            self.watch(&socket, speaks).and_then(|first| Ok([first, self.watch(&pidfd, ended)?]));
        let tokens = watched.map_err(|error| {
            spawn::end_child(&pidfd);
            failed(error)
        })?;
        let (packets, since) = (VecDeque::new(), Instant::now());
        Ok(Caged { pid, since, user, packets, pidfd, socket, tokens, deaf_since: None })
    }

    /// Scouts that are to be somebody else now make room for others.
    pub(super) fn scouts_change(&mut self) {
        let user = match self.people.scout() {
            ScoutUser::Same => None,
            ScoutUser::Known(uid, gid) => Some((uid, gid)),
            // Until that is known they stay who they are.
            ScoutUser::Unknown => return,
        };
        self.scout_is(user);
        self.post_is(user);
    }

    /// Ends a scout, if it has not ended.
    pub(super) fn put_down(&mut self, caged: Caged) {
        self.unwatch_fd(&caged.socket);
        self.unwatch_fd(&caged.pidfd);
        for token in caged.tokens {
            self.sources.remove(&token);
        }
        // It may be stuck in the kernel: the loop does not wait for its end.
        let pidfd = caged.pidfd;
        self.pool.submit(move || {
            spawn::end_child(&pidfd);
            Done::Nothing
        });
    }
}
