//! The door by which reqwest comes to a connection of heeler's own.
//!
//! reqwest opens its connections by itself, and what it connects with cannot be made by anybody else. So it
//! is given a socket of heeler's to open: one without a file, under a name that nobody can take first
//! (unix(7), abstract sockets). The name can be seen in /proc/net/unix, so who else comes in is sent away,
//! and the next request gets another door.
//!
//! What came in is looked at without being watched, as long as that does: reqwest's task is ready to run when
//! it is expected to write, and has room for what it is to read.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::Poll;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use reqwest::redirect::Policy;
use reqwest::{Client, Request, Response};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::ClientConfig;
use tokio::sync::OnceCell;
use tokio::task::yield_now;

use crate::checks::connect::locked;
use crate::checks::tls;

/// So many who came before are sent away; then it is time for another door.
const STRANGERS_MAX: usize = 256;
/// So often others get their turn before what came in is watched.
const TURNS: usize = 8;

/// A door that is open, if there is one: opening it costs more than all else that reqwest does. Whoever
/// uses it has it for itself, and puts it back if only its own request came in: one that was given up in
/// the middle may have left something behind.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<Option<Door>>);

/// A request that came in.
pub(super) struct Entered {
    /// Its answer, still to come.
    pub(super) asked: Asked,
    /// Where its bytes are, and its answer's are to go.
    pub(super) near: Near,
    /// What of it comes.
    pub(super) comes: Comes,
}

/// What comes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Comes {
    /// A head, in one piece.
    Head,
    /// A body behind it, in as many pieces as there may be.
    Body,
}

type Asked = Pin<Box<dyn Future<Output = reqwest::Result<Response>> + Send>>;

impl Doors {
    /// Sends a request by reqwest. `request` makes it anew; `tls` is for this one connection.
    ///
    /// # Errors
    /// When heeler's own means are short.
    pub(super) async fn ask(
        &self,
        tls: Option<&ClientConfig>,
        request: impl Fn() -> Request,
    ) -> io::Result<Entered> {
        let kept = locked(&self.0).take();
        // One that strangers filled while nobody looked lets nobody in.
        if let Some(door) = kept
            && let Ok(entered) = self.ask_at(door, tls, &request).await
        {
            return Ok(entered);
        }
        self.ask_at(Door::open()?, tls, &request).await
    }

    async fn ask_at(
        &self,
        door: Door,
        tls: Option<&ClientConfig>,
        request: &impl Fn() -> Request,
    ) -> io::Result<Entered> {
        let failed = |error: reqwest::Error| io::Error::other(error);
        let request = request();
        // What speaks TLS says many things.
        let is_all = tls.is_none() && request.body().is_none();
        let comes = if is_all { Comes::Head } else { Comes::Body };
        let mut asked: Asked = match tls {
            None => Box::pin(door.client.execute(request)),
            Some(config) => {
                let client = client(config.clone(), &door.path).map_err(failed)?;
                Box::pin(client.execute(request))
            }
        };
        let mut visitors = Visitors::OwnOnly;
        let near = poll_fn(|context| {
            // It connects in here, and nobody else of this process does meanwhile.
            if let Poll::Ready(early) = asked.as_mut().poll(context) {
                let error = early.err().map_or_else(|| io::Error::other("an early answer"), failed);
                return Poll::Ready(Err(error));
            }
            door.accept(&mut visitors)
        });
        let near = near.await?;
        match visitors {
            Visitors::OwnOnly => drop(locked(&self.0).replace(door)),
            Visitors::Strangers => {}
        }
        Ok(Entered { asked, near, comes })
    }
}

/// Who came in by a door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Visitors {
    OwnOnly,
    Strangers,
}

/// A listening socket, and who knows its name.
struct Door {
    listener: UnixListener,
    path: PathBuf,
    /// For requests in clear.
    client: Client,
    own_pid: i32,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Door {
    fn open() -> io::Result<Self> {
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
        let name = format!("heeler-{:032x}", u128::from_ne_bytes(random));
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        // As tokio has them (and the kernel).
        let path = PathBuf::from(format!("\0{name}"));
        listener.set_nonblocking(true)?;
        // It speaks no TLS, and wants something all the same.
        let client = client(tls::nobody(), &path).map_err(io::Error::other)?;
        let own_pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        Ok(Self { listener, path, client, own_pid })
    }

    /// Lets heeler itself in, and nobody else.
    fn accept(&self, visitors: &mut Visitors) -> Poll<io::Result<Near>> {
        for _ in 0..=STRANGERS_MAX {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                // It will connect when it is polled the next time.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if getsockopt(&stream, PeerCredentials)?.pid() == self.own_pid {
                stream.set_nonblocking(true)?;
                return Poll::Ready(Ok(Near { stream, watched: OnceCell::new() }));
            }
            *visitors = Visitors::Strangers;
        }
        Poll::Ready(Err(io::Error::other("too many others came in by its door")))
    }
}

/// heeler's end of one of reqwest's connections.
#[derive(Debug)]
pub(super) struct Near {
    stream: UnixStream,
    watched: OnceCell<tokio::net::UnixStream>,
}

impl Near {
    /// Reads what there is; nothing at the end.
    ///
    /// # Errors
    /// As the socket says.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..TURNS {
            match (&self.stream).read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => yield_now().await,
                done => return done,
            }
        }
        let watched = self.watched().await?;
        loop {
            watched.readable().await?;
            match watched.try_read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// Writes it all.
    ///
    /// # Errors
    /// As the socket says.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match (&self.stream).write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let watched = self.watched().await?;
                    watched.writable().await?;
                    match watched.try_write(bytes) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                        done => done?,
                    }
                }
                done => done?,
            };
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Nothing more will be written.
    pub(super) fn close(&self) {
        let _closed = self.stream.shutdown(Shutdown::Write);
    }

    async fn watched(&self) -> io::Result<&tokio::net::UnixStream> {
        let watch = async || tokio::net::UnixStream::from_std(self.stream.try_clone()?);
        self.watched.get_or_try_init(watch).await
    }
}

/// A client whose connections all come in by a door: no proxy, no redirects, no pool.
fn client(config: ClientConfig, path: &Path) -> reqwest::Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .no_proxy()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .unix_socket(path)
        .build()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use reqwest::Method;

    use super::*;

    const NAME: &str = "HEELER_TEST_DOOR";
    const COUNT: &str = "HEELER_TEST_VISITS";
    const TEST: &str = "checks::door::tests::nobody_else_comes_in";

    fn name_of(doors: &Doors) -> Option<String> {
        locked(&doors.0).as_ref().map(|door| door.path.to_str().expect("text")[1..].to_owned())
    }

    /// Asks, and is answered by the one who came in.
    async fn asks(doors: &Doors) {
        let request =
            || Request::new(Method::GET, "http://shop.example/up".parse().expect("a URL"));
        let Entered { asked, near, comes } = doors.ask(None, request).await.expect("comes in");
        assert_eq!(comes, Comes::Head);
        let answer = async {
            let mut head = vec![0; 1024];
            let bytes = near.read(&mut head).await.expect("a request");
            let head = String::from_utf8_lossy(&head[..bytes]).into_owned();
            near.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("is written");
            head
        };
        let (response, head) = tokio::join!(asked, answer);
        assert_eq!(response.expect("an answer").status(), 204);
        assert!(head.starts_with("GET /up HTTP/1.1\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    /// Somebody else, who has come in so often as soon as this returns; all they get is the end.
    fn stranger(name: &str, visits: usize) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", TEST, "--nocapture"]).env(NAME, name);
        command.env(COUNT, visits.to_string()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("runs");
        let mut said = Vec::new();
        let out = child.stdout.as_mut().expect("is a pipe");
        while !said.ends_with(b"knocked") {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).expect("reads"), 1, "it ended without a word");
            said.extend(byte);
        }
        child
    }

    #[test]
    fn nobody_else_comes_in() {
        if let Ok(name) = std::env::var(NAME) {
            let address = SocketAddr::from_abstract_name(&name).expect("a name");
            let visits = std::env::var(COUNT).expect("a count").parse().expect("a number");
            let visit = |_| UnixStream::connect_addr(&address).expect("connects");
            let visits: Vec<_> = (0..visits).map(visit).collect();
            print!("knocked");
            io::stdout().flush().expect("is written");
            for mut visit in visits {
                // What was never accepted is reset where the door closes.
                assert!(matches!(visit.read(&mut [0]), Ok(0) | Err(_)), "it was spoken to");
            }
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let doors = Doors::default();
            asks(&doors).await;
            let first = name_of(&doors).expect("it stays open");
            asks(&doors).await;
            assert_eq!(name_of(&doors).as_ref(), Some(&first), "it is the same one");
            // One stranger, and more than are sent away.
            for visits in [1, STRANGERS_MAX + 9] {
                let known = name_of(&doors).expect("it stays open");
                let mut stranger = stranger(&known, visits);
                asks(&doors).await;
                assert_ne!(name_of(&doors), Some(known), "its name is known");
                asks(&doors).await;
                let ended = tokio::task::spawn_blocking(move || stranger.wait()).await;
                assert!(ended.expect("ends").expect("ends").success(), "it was not sent away");
            }
        });
    }
}
