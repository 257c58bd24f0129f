//! The server side of the control socket: who is there, may it, what does it want, what is the answer.
//!
//! It decides nothing about services: an allowed request goes to the loop, and the loop's answer comes
//! back. Every client is a task of the keeper's one thread and can hold up nothing: its number, its
//! bytes and its time are bounded both ways. The order itself is the loop's from the moment it was
//! handed over; a client that goes away takes nothing back.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::timeout;

use crate::keeper::control::follow::Follower;
use crate::keeper::rights::{Peer, Rights};
use crate::model::event::Event;
use crate::model::limits;
use crate::model::process::Uid;
use crate::sys::peer;
use crate::wire::control::{Allowed, ErrorAnswer, ErrorKind, Follow, Request, Response};

mod follow;
mod http;

/// What the loop hears from the control socket. It logs each with the peer.
#[derive(Debug)]
pub enum ControlEvent {
    /// An allowed request, to be answered.
    Request(ControlRequest),
    /// Somebody asked for what it may not have, and was told so.
    Refused {
        /// Who.
        peer: Peer,
        /// For what.
        request: Request,
        /// What it was told.
        answer: ErrorAnswer,
    },
    /// Somebody who follows the events did not take them, and was hung up on.
    TooSlow {
        /// Who.
        peer: Peer,
    },
}

/// An allowed request.
#[derive(Debug)]
pub struct ControlRequest {
    /// Who asks.
    pub peer: Peer,
    /// What; every service it is about is named in it. A service may have gone since: then it is
    /// [`ErrorAnswer::no_such_service`], or left out of a status.
    pub request: Allowed,
    /// Takes the one answer. It may be closed already: the client did not wait.
    pub reply: oneshot::Sender<Response>,
    /// Where every event from then on goes, for a client that follows.
    pub follower: Option<mpsc::Sender<Arc<Event>>>,
}

/// The listening socket. Its file goes away with it.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Listens at `path`, open to all (who may what is decided by credentials). The caller holds the
    /// keeper's lock, so a socket that is there already is a dead keeper's and is replaced, without a
    /// moment in which there is none. The directory is made (0755) where it is missing.
    ///
    /// # Errors
    /// When the directory is not safe (somebody else could put their own socket there), or a step fails.
    pub fn bind(path: &Path) -> Result<Self, String> {
        let fail = |what: &str, error: io::Error| format!("failed to {what}: {error}");
        let shown = path.display();
        let (Some(dir), Some(name)) =
            (path.parent().filter(|dir| dir.is_absolute()), path.file_name())
        else {
            return Err(format!("the control socket {shown} must be an absolute path"));
        };
        // From here on without symbolic links, so that what was looked at is what is used.
        let path = &make_safe_dir(dir)?.join(name);
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(format!(
                    "failed to listen at {shown}: something that is not a socket is there; \
                     move it away or set `socket` in heeler.toml"
                ));
            }
            Ok(_) | Err(_) => {}
        }
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fail(&format!("remove {}", fresh.display()), error));
            }
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&fresh)
            .map_err(|error| fail(&format!("listen at {}", fresh.display()), error))?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o666))
            .and_then(|()| fs::rename(&fresh, path))
            .map_err(|error| fail(&format!("put the control socket at {shown}"), error))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves until the loop drops its end of `events`, then lets the clients there are hear that heeler
    /// is stopping (some seconds at most; the caller may drop it sooner). Rights count from the moment they are changed:
    /// for who may connect, and again when a request is whole.
    pub async fn serve(
        self,
        rights: watch::Receiver<Arc<Rights>>,
        events: mpsc::Sender<ControlEvent>,
    ) {
        let mut clients = Clients::default();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = clients.one_ends() => continue,
                () = events.closed() => break,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors: the connection stays in the backlog, so asking again at once
                // would spin.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(peer) = peer_of(&stream) else { continue };
            let now = Arc::clone(&rights.borrow());
            if !now.any(&peer) {
                // Closed before a byte is read: to a stranger heeler is a closed door.
                continue;
            }
            if !clients.has_place(peer.uid, now.everything(&peer)) {
                refuse_busy(stream);
                continue;
            }
            clients.add(peer.uid, client(stream, peer, rights.clone(), events.clone()));
        }
        while clients.tasks.join_next().await.is_some() {}
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // What cannot be removed is replaced by the next keeper.
        drop(fs::remove_file(&self.path));
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes the last directory where it is missing, and gives its path without symbolic links. Who can
/// write in it, or in one above it, could put a socket of their own there, or lead our chmod astray.
fn make_safe_dir(dir: &Path) -> Result<PathBuf, String> {
    let shown = dir.display();
    let fail = |error: io::Error| format!("failed to make {shown} for the control socket: {error}");
    if let (Some(above), Some(name)) = (dir.parent(), dir.file_name()) {
        let above = fs::canonicalize(above).map_err(fail)?;
        for dir in above.ancestors() {
            check_owner(dir, Above::Yes)?;
        }
        let fresh = above.join(name);
        match fs::create_dir(&fresh) {
            Ok(()) => {
                fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).map_err(fail)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fail(error)),
        }
    }
    let dir = fs::canonicalize(dir).map_err(fail)?;
    check_owner(&dir, Above::No)?;
    for above in dir.ancestors().skip(1) {
        check_owner(above, Above::Yes)?;
    }
    Ok(dir)
}

/// Whether a directory is above the socket's own one: there a sticky one (/tmp) will do, since in it
/// nobody can rename what is ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Above {
    Yes,
    No,
}

fn check_owner(dir: &Path, above: Above) -> Result<(), String> {
    let shown = dir.display();
    let found = fs::symlink_metadata(dir)
        .map_err(|error| format!("failed to look at {shown} for the control socket: {error}"))?;
    let own = nix::unistd::geteuid().as_raw();
    let sticky = above == Above::Yes && found.mode() & 0o1000 != 0;
    let writable = found.mode() & 0o022 != 0 && !sticky;
    if found.is_dir() && [own, 0].contains(&found.uid()) && !writable {
        return Ok(());
    }
    Err(format!(
        "failed to listen in {shown}: only root and heeler's own user may be able to write in it (it is \
         uid {}'s, mode {:o}), or another could put a false socket there; \
         choose another `socket` in heeler.toml",
        found.uid(),
        found.mode() & 0o7777
    ))
}

/// The peer's credentials, fixed by the kernel at connect (man 7 unix, `SO_PEERCRED`).
fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let peer = peer::peer(stream)?;
    let gids = std::iter::once(peer.gid).chain(peer.groups).collect();
    Ok(Peer { uid: peer.uid, gids, pid: peer.pid })
}

/// The clients of the moment.
#[derive(Default)]
struct Clients {
    tasks: JoinSet<()>,
    uids: HashMap<Id, Uid>,
}

impl Clients {
    /// Waits for a client to end; for ever when there is none.
    async fn one_ends(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.forget(ended),
            None => std::future::pending().await,
        }
    }

    fn has_place(&mut self, uid: Uid, everything: bool) -> bool {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(ended);
        }
        let of_uid = self.uids.values().filter(|other| **other == uid).count();
        let kept = if everything { 0 } else { limits::CONTROL_CLIENTS_KEPT };
        of_uid < limits::CONTROL_CLIENTS_PER_UID_MAX
            && self.uids.len() < limits::CONTROL_CLIENTS_MAX - kept
    }

    fn add(&mut self, uid: Uid, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.uids.insert(id, uid);
    }

    fn forget(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => error.id(),
        };
        self.uids.remove(&id);
    }
}

/// Says so without waiting: a fresh connection has room for it. Written past tokio, which has not yet
/// learned that the stream takes bytes.
fn refuse_busy(stream: UnixStream) {
    let text = "heeler has as many clients as it takes; try again, or end those that wait";
    let answer = Response::Error(ErrorAnswer::new(ErrorKind::Busy, text));
    if let Ok(mut stream) = stream.into_std() {
        drop(stream.write(&http::write_response(&answer)));
    }
}

/// One connection: one request, one answer.
async fn client(
    mut stream: UnixStream,
    peer: Peer,
    rights: watch::Receiver<Arc<Rights>>,
    events: mpsc::Sender<ControlEvent>,
) {
    let read = timeout(limits::CONTROL_REQUEST_TIMEOUT, http::read_request(&mut stream)).await;
    let answer = match read {
        Ok(Ok(request)) => {
            let authorized = rights.borrow().authorize(&peer, request.clone());
            match (authorized, request) {
                (Ok(allowed), Request::Events { services, follow: Follow::Yes, .. }) => {
                    let follower = Follower { peer, asked: services, rights };
                    match follow(&mut stream, follower, allowed, &events).await {
                        Some(answer) => answer,
                        None => return,
                    }
                }
                (Ok(allowed), _) => match ask_loop(&mut stream, peer, allowed, None, &events).await
                {
                    Some(answer) => answer,
                    None => return,
                },
                (Err(answer), request) => {
                    let refused = ControlEvent::Refused { peer, request, answer: answer.clone() };
                    // A loop that is gone cannot log it; the client is refused all the same.
                    drop(events.send(refused).await);
                    Response::Error(answer)
                }
            }
        }
        Ok(Err(http::NoRequest::Refused(answer))) => Response::Error(answer),
        Ok(Err(http::NoRequest::Gone)) => return,
        Err(_) => {
            let seconds = limits::CONTROL_REQUEST_TIMEOUT.as_secs();
            let text = format!("no whole request came within {seconds} seconds");
            Response::Error(ErrorAnswer::new(ErrorKind::BadRequest, text))
        }
    };
    // Who does not take its answer in time does not get it.
    if send(&mut stream, &http::write_response(&answer)).await == Taken::Whole {
        drop(stream.shutdown().await);
    }
}

/// How a client took what was written to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    Whole,
    /// It is gone.
    Gone,
    /// It did not take it in time.
    Late,
}

async fn send(stream: &mut UnixStream, bytes: &[u8]) -> Taken {
    match timeout(limits::CONTROL_RESPONSE_TIMEOUT, stream.write_all(bytes)).await {
        Ok(Ok(())) => Taken::Whole,
        Ok(Err(_)) => Taken::Gone,
        Err(_) => Taken::Late,
    }
}

/// Answers with the events there are, and with each that comes; `None` once that is over.
async fn follow(
    stream: &mut UnixStream,
    follower: Follower,
    allowed: Allowed,
    events: &mpsc::Sender<ControlEvent>,
) -> Option<Response> {
    let (to, coming) = mpsc::channel(limits::EVENTS_BEHIND_MAX);
    let answer = ask_loop(stream, follower.peer.clone(), allowed, Some(to), events).await?;
    let Response::Events(past) = answer else { return Some(answer) };
    follower.serve(stream, past, coming, events).await;
    None
}

/// Hands the request over and waits for the answer, as long as the action takes. `None` when the
/// client went away first: its place is free again, its order goes on.
async fn ask_loop(
    stream: &mut UnixStream,
    peer: Peer,
    request: Allowed,
    follower: Option<mpsc::Sender<Arc<Event>>>,
    events: &mpsc::Sender<ControlEvent>,
) -> Option<Response> {
    let stopping = || {
        let text = "heeler is stopping; what was recorded goes on when it is back";
        Response::Error(ErrorAnswer::new(ErrorKind::Stopping, text))
    };
    let (reply, answer) = oneshot::channel();
    let request = ControlRequest { peer, request, reply, follower };
    let handed = events.send(ControlEvent::Request(request)).await;
    if handed.is_err() {
        return Some(stopping());
    }
    tokio::select! {
        answer = answer => Some(answer.unwrap_or_else(|_| stopping())),
        () = gone(stream) => None,
    }
}

/// Returns when the client is gone. What it sends after its request is read and forgotten, up to the
/// bound of a request; then it is left unread, which costs that client alone (it is no longer noticed
/// when it goes). One that only closed its sending side still listens.
async fn gone(stream: &mut UnixStream) {
    let mut rubbish = [0; 1024];
    let mut left = limits::CONTROL_REQUEST_BYTES_MAX;
    while left > 0 {
        match stream.read(&mut rubbish).await {
            Ok(0) => break,
            Ok(more) => left = left.saturating_sub(more),
            Err(_) => return,
        }
    }
    match stream.ready(Interest::READABLE | Interest::WRITABLE).await {
        Ok(ready) if !ready.is_write_closed() => std::future::pending().await,
        Ok(_) | Err(_) => {}
    }
}
