//! One exchange of HTTP/1.1 (RFC 9112): a connection, a request out, a bounded answer in.
//!
//! No pool, no proxy, no decompression: what the server sent is what is judged. Only the caller's deadline
//! bounds the time.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Request, Response, StatusCode};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::checks::connect::{Progress, Stage, Trouble};
use crate::checks::tls::{Readied, Sight};
use crate::model::units::show_size;

/// Headers; nginx sends at most 32 KiB of them, Apache 8 KiB a line. reqwest has no such bound: this one is
/// held when they are there. What never becomes a head ends at hyper's: 100 lines, a buffer of 408 KiB.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// All that is carried until there is an answer: its head, interim answers before it, and what is read
/// ahead of its body. More than hyper's buffer, which has better words for a head without end.
const BEFORE_ANSWER_BYTES_MAX: usize = 8 * HEAD_BYTES_MAX;
/// How long reqwest may take to find the head in that.
const HEAD_PARSED_WITHIN: Duration = Duration::from_secs(1);
/// What is carried at once.
const CARRIED_AT_ONCE_BYTES: usize = 16 << 10;
/// What is kept of a body that no pattern asks for: enough to show how it begins.
const BEGINNING_BYTES: usize = 1024;
/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// What came of a body.
#[derive(Debug)]
pub(super) struct Body {
    /// All that was read, or its beginning, as was asked for.
    pub(super) kept: Vec<u8>,
    /// How many bytes were read.
    pub(super) bytes: u64,
    /// Whether that was all.
    pub(super) end: End,
    /// The first eight bytes of the SHA-256 of all that was read.
    pub(super) fingerprint: u64,
}

/// Where the reading of a body ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// At its end.
    Whole,
    /// At the most that is read.
    Cut,
}

/// How much of a body is read, and how much of that is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) bytes_max: u64,
    pub(super) keep: Keep,
}

/// What is kept of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keep {
    /// All that is read: it will be matched.
    All,
    /// How it begins, for people.
    Beginning,
}

/// Sends a request on a connection and reads its answer. `to` is the target's name in messages; `tls` is
/// for this one connection.
///
/// # Errors
/// `Failed`: not to be trusted, or what came is no whole answer. `Unknown`: heeler's own means are short.
pub(super) async fn exchange<S>(
    progress: &Progress,
    to: &str,
    stream: S,
    tls: Readied,
    request: Request,
    read: Read,
) -> Result<Answer, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Readied { config, sight } = tls;
    let (door, path) = door().map_err(|error| Trouble::Unknown(no_door(&error)))?;
    let client = Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .no_proxy()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .unix_socket(path)
        .build();
    let line = Line::default();
    let exchanged = async {
        let trouble = |error| line.trouble(to, &sight, &error);
        let response = client.map_err(trouble)?.execute(request).await.map_err(trouble)?;
        line.answered.send_replace(true);
        answer(progress, to, &line, response, read).await
    };
    tokio::select! {
        answer = exchanged => answer,
        trouble = line.carry(to, door, stream) => Err(trouble),
    }
}

async fn answer(
    progress: &Progress,
    to: &str,
    line: &Line,
    mut response: Response,
    read: Read,
) -> Result<Answer, Trouble> {
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    if lines.sum::<usize>() > HEAD_BYTES_MAX {
        return Err(Trouble::Failed(too_large(to)));
    }
    let shown = told(status);
    progress.at(Stage::Receiving(format!("{to} answered {shown} and began a body")));
    let keep_bytes = match read.keep {
        Keep::All => usize::MAX,
        Keep::Beginning => BEGINNING_BYTES,
    };
    let (mut kept, mut bytes, mut digest) = (Vec::new(), 0u64, Context::new(&SHA256));
    let mut end = End::Whole;
    loop {
        let chunk = response.chunk().await.map_err(|error| {
            Trouble::Failed(format!(
                "{to} answered {shown}, but the body broke off after {}: {}",
                show_size(bytes),
                line.words(to, &error)
            ))
        })?;
        let Some(data) = chunk else { break };
        let left = usize::try_from(read.bytes_max - bytes).unwrap_or(usize::MAX);
        let part = &data[..data.len().min(left)];
        digest.update(part);
        kept.extend_from_slice(&part[..part.len().min(keep_bytes - kept.len())]);
        bytes += part.len() as u64;
        if data.len() > left {
            end = End::Cut;
            break;
        }
    }
    let digest = digest.finish();
    let first = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
    let body = Body { kept, bytes, end, fingerprint: u64::from_le_bytes(*first) };
    Ok(Answer { status, headers, body })
}

/// What carries the bytes between reqwest and a connection.
///
/// reqwest opens its connections by itself and lets nobody see what comes on them. So it is given a socket
/// of heeler's own to open, and what it sends there is carried on: then the connection is made, named and
/// closed as every probe's is, and a server that sends interim answers for ever (RFC 9110, section 15.2)
/// ends at a bound. Without one hyper parses them as fast as they come, and the loop stands still for seconds.
#[derive(Default)]
struct Line {
    /// reqwest has opened it.
    entered: AtomicBool,
    /// The head of the answer is there.
    answered: watch::Sender<bool>,
    /// What broke the connection.
    broken: OnceLock<io::Error>,
}

impl Line {
    /// Carries until it is dropped, or until it is clear that there will be no answer.
    async fn carry(
        &self,
        to: &str,
        door: UnixListener,
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Trouble {
        let near = match enter(door).await {
            Ok(near) => near,
            Err(error) => return Trouble::Unknown(no_door(&error)),
        };
        self.entered.store(true, Ordering::Relaxed);
        let (mut answers, mut requests) = tokio::io::split(stream);
        let (mut from_reqwest, mut to_reqwest) = near.into_split();
        let ask = async {
            // A server may answer without having read all of a request.
            let _sent = tokio::io::copy(&mut from_reqwest, &mut requests).await;
            std::future::pending().await
        };
        let listen = async {
            match self.listen(&mut answers, &mut to_reqwest).await {
                Ok(Heard::All) => {}
                Ok(Heard::TooMuch) => {
                    return Trouble::Failed(format!(
                        "the connection to {to} failed: it sent more than 512 KiB without an answer"
                    ));
                }
                Err(error) => drop(self.broken.set(error)),
            }
            // What was sent before is read before this.
            drop(to_reqwest);
            std::future::pending().await
        };
        tokio::select! {
            trouble = listen => trouble,
            never = ask => never,
        }
    }

    async fn listen(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<Heard> {
        let mut answered = self.answered.subscribe();
        let (mut buffer, mut carried) = (vec![0; CARRIED_AT_ONCE_BYTES], 0);
        loop {
            let bytes = from.read(&mut buffer).await?;
            if bytes == 0 {
                return Ok(Heard::All);
            }
            carried += bytes;
            if carried > BEFORE_ANSWER_BYTES_MAX {
                // Part of it may be a body, and the head still on its way through reqwest.
                let head = answered.wait_for(|answered| *answered);
                if tokio::time::timeout(HEAD_PARSED_WITHIN, head).await.is_err() {
                    return Ok(Heard::TooMuch);
                }
            }
            // reqwest has seen enough where it hangs up; then the exchange ends.
            if to.write_all(&buffer[..bytes]).await.is_err() {
                return Ok(Heard::All);
            }
        }
    }

    /// Whose trouble it is that there is no answer.
    fn trouble(&self, to: &str, sight: &Sight, error: &reqwest::Error) -> Trouble {
        let io = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last();
        match io {
            Some(io) if !self.entered.load(Ordering::Relaxed) => Trouble::Unknown(no_door(io)),
            // With the connection, but before there is HTTP: the handshake.
            Some(io) if error.is_connect() => sight.trouble(io),
            Some(_) | None => Trouble::Failed(self.words(to, error)),
        }
    }

    /// What went wrong on the connection. reqwest's own words are about its insides; hyper below it knows.
    fn words(&self, to: &str, error: &reqwest::Error) -> String {
        let hyper = causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
        match (hyper, self.broken.get()) {
            // Only hyper's server has a question for this kind; its words are all there is.
            (Some(hyper), _) if hyper.is_parse() && hyper.to_string().contains("too large") => {
                too_large(to)
            }
            (Some(hyper), None) if hyper.is_incomplete_message() => {
                format!("{to} closed the connection before its answer was whole")
            }
            (Some(hyper), _) if hyper.is_parse() => {
                format!("what {to} sent is not HTTP/1: {hyper}")
            }
            (_, Some(broken)) => format!("the connection to {to} failed: {broken}"),
            (_, None) => {
                let inmost = causes(error).last().map(ToString::to_string).unwrap_or_default();
                format!("the connection to {to} failed: {inmost}")
            }
        }
    }
}

/// What came on a connection.
enum Heard {
    /// All there was, or all that was wanted.
    All,
    /// Too much for what comes before an answer.
    TooMuch,
}

/// A socket for reqwest to open: without a file, under a name that nobody can take first (unix(7), abstract
/// sockets).
fn door() -> io::Result<(UnixListener, PathBuf)> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
    let path = PathBuf::from(format!("\0heeler-{:032x}", u128::from_ne_bytes(random)));
    Ok((UnixListener::bind(&path)?, path))
}

/// Lets reqwest in, and nobody else: the name can be seen in /proc/net/unix.
async fn enter(door: UnixListener) -> io::Result<UnixStream> {
    let own = i32::try_from(std::process::id()).ok();
    loop {
        let (stream, _) = door.accept().await?;
        if stream.peer_cred()?.pid() == own {
            return Ok(stream);
        }
    }
}

fn no_door(error: &io::Error) -> String {
    format!("failed to prepare a connection within heeler: {error}")
}

/// `200 OK`. The words are the standard's, not the server's.
pub(super) fn told(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => status.as_str().to_owned(),
    }
}

fn too_large(to: &str) -> String {
    format!("{to} sent more than 64 KiB or 100 lines of headers")
}

/// An error and what is under it.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    successors(Some(first), |error| under(*error))
}

/// What is under an error. One of I/O hides what it holds from `source`.
fn under<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(held) => Some(held),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixStream};
    use std::process::Command;

    use super::*;

    #[test]
    fn nobody_else_comes_in_by_the_door() {
        const NAME: &str = "HEELER_TEST_DOOR";
        let reach = |name: &str| {
            let address = SocketAddr::from_abstract_name(name).expect("a name");
            UnixStream::connect_addr(&address).expect("connects")
        };
        if let Ok(name) = std::env::var(NAME) {
            // The stranger: all it gets is the end.
            assert_eq!(reach(&name).read(&mut [0; 1]).expect("reads"), 0);
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let (door, path) = door().expect("a door");
            let name = path.to_str().expect("text")[1..].to_owned();
            let test = "checks::exchange::tests::nobody_else_comes_in_by_the_door";
            let mut stranger = Command::new(std::env::current_exe().expect("this program"));
            stranger.args(["--exact", test]).env(NAME, &name);
            let stranger = tokio::task::spawn_blocking(move || stranger.status());
            let mut entering = std::pin::pin!(enter(door));
            let left = tokio::select! {
                status = stranger => status.expect("ends").expect("runs"),
                _in = &mut entering => panic!("the stranger was let in"),
            };
            assert!(left.success(), "the stranger was not sent away");
            let _own = reach(&name);
            entering.await.expect("heeler itself comes in");
        });
    }
}
