//! Who is at the other end of a Unix socket, as the kernel saw it when the connection was made
//! (SO_PEERCRED and SO_PEERGROUPS, unix(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::model::limits;
use crate::model::process::{Gid, Pid, Uid};

/// The other end: the credentials it had when it connected. What it gave up or handed on since then
/// does not show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its effective user.
    pub uid: Uid,
    /// Its effective group.
    pub gid: Gid,
    /// Its number then: for the record, never to signal.
    pub pid: Pid,
    /// Its supplementary groups.
    pub groups: Vec<Gid>,
}

/// Asks the kernel.
///
/// # Errors
/// When the descriptor is not a connected Unix socket.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let credentials = getsockopt(&socket, PeerCredentials)?;
    Ok(Peer {
        uid: Uid(credentials.uid()),
        gid: Gid(credentials.gid()),
        pid: Pid(credentials.pid()),
        groups: groups(&socket)?,
    })
}

fn groups(socket: &impl AsFd) -> io::Result<Vec<Gid>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(groups.len() * size_of::<libc::gid_t>())
            .map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `bytes` bytes into `groups`, which is that long, and the
        // socket is open for the length of the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = usize::try_from(bytes).unwrap_or(0) / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups.into_iter().map(Gid).collect());
        }
        let error = io::Error::last_os_error();
        // ERANGE: `bytes` now says how much it takes.
        if error.raw_os_error() != Some(libc::ERANGE)
            || count <= groups.len()
            || count > limits::PEER_GROUPS_MAX
        {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_other_end_of_a_pair_is_ourselves() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let peer = peer(&one).expect("its credentials");
        assert_eq!(peer.uid, Uid(nix::unistd::geteuid().as_raw()));
        assert_eq!(peer.pid, crate::sys::procfs::heeler());
        let ours: Vec<Gid> = nix::unistd::getgroups()
            .expect("our groups")
            .into_iter()
            .map(|group| Gid(group.as_raw()))
            .collect();
        assert_eq!(peer.groups, ours);
    }

    #[test]
    fn something_else_is_an_error() {
        assert!(peer(std::fs::File::open("/dev/null").expect("a file")).is_err());
    }
}
