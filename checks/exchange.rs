//! One exchange of HTTP/1.1 (RFC 9112): a connection, a request out, a bounded answer in.
//!
//! No pool, no proxy, no decompression: what the server sent is what is judged. Only the caller's deadline
//! bounds the time.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{self, Poll};

use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Request, Response, StatusCode};
use ring::digest::{Context, SHA256};
use tower::{Layer, Service};

use crate::checks::connect::{Milestone, Progress, Stage, Trouble, connect_trouble};
use crate::checks::tls::{Readied, Sight};
use crate::model::units::show_size;

/// Headers; nginx sends at most 32 KiB of them, Apache 8 KiB a line. reqwest has no such bound: it is
/// held once they are there. Until then hyper's own hold: a buffer of 408 KiB, 100 lines.
const HEAD_BYTES_MAX: usize = 64 << 10;
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

/// Whom a request goes to.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// A host of these addresses, each with the port; reqwest takes the first that answers.
    Tcp(String, Vec<SocketAddr>),
    /// A socket.
    Unix(PathBuf),
}

impl Peer {
    /// Its name in messages.
    fn told(&self) -> String {
        match self {
            Self::Tcp(host, addresses) => match addresses.first() {
                Some(address) => format!("{host}:{}", address.port()),
                None => host.clone(),
            },
            Self::Unix(path) => path.display().to_string(),
        }
    }

    /// What it is connected to by, where that is known: of several addresses reqwest does not say which.
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, addresses) => match addresses[..] {
                [only] => Some(only),
                [] | [_, ..] => None,
            },
            Self::Unix(_) => None,
        }
    }

    /// What a connection is made to, in messages.
    fn end(&self) -> String {
        self.address().map_or_else(|| self.told(), |address| address.to_string())
    }

    /// That it has taken a connection.
    pub(super) fn connected(&self, progress: &Progress) -> Milestone {
        let stage = Stage::Waiting(self.end(), self.address());
        Milestone { progress: progress.clone(), stage }
    }
}

/// Sends a request and reads its answer. `tls` is for this one connection.
///
/// # Errors
/// `Failed`: refused, not to be trusted, or what came is no whole answer. `Unknown`: heeler cannot
/// connect, or may not.
pub(super) async fn exchange(
    progress: &Progress,
    peer: &Peer,
    tls: Readied,
    request: Request,
    read: Read,
) -> Result<Answer, Trouble> {
    let Readied { config, sight } = tls;
    let builder = Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .no_proxy()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .connector_layer(Herald(peer.connected(progress)));
    let builder = match peer {
        Peer::Tcp(host, addresses) => builder.resolve_to_addrs(host, addresses),
        Peer::Unix(path) => builder.unix_socket(path.as_path()),
    };
    progress.at(Stage::Connecting(peer.end()));
    let told = |error| trouble(peer, progress, &sight, &error);
    let response = builder.build().map_err(told)?.execute(request).await.map_err(told)?;
    answer(progress, peer, response, read).await
}

async fn answer(
    progress: &Progress,
    peer: &Peer,
    mut response: Response,
    read: Read,
) -> Result<Answer, Trouble> {
    let to = peer.told();
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    if lines.sum::<usize>() > HEAD_BYTES_MAX {
        return Err(Trouble::Failed(too_large(&to)));
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
                words(&to, &error)
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

/// Tells that a connection stands: reqwest's connector, and a word when it is done.
#[derive(Clone)]
struct Herald(Milestone);

impl<S> Layer<S> for Herald {
    type Service = Heralded<S>;

    fn layer(&self, connector: S) -> Heralded<S> {
        Heralded { connector, connected: self.0.clone() }
    }
}

#[derive(Clone)]
struct Heralded<S> {
    connector: S,
    connected: Milestone,
}

impl<S, To> Service<To> for Heralded<S>
where
    S: Service<To>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, to: To) -> Self::Future {
        let (connecting, connected) = (self.connector.call(to), self.connected.clone());
        Box::pin(async move {
            let connection = connecting.await?;
            connected.reached();
            Ok(connection)
        })
    }
}

/// `200 OK`. The words are the standard's, not the server's.
pub(super) fn told(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => status.as_str().to_owned(),
    }
}

/// Whose trouble it is that there is no answer.
fn trouble(peer: &Peer, progress: &Progress, sight: &Sight, error: &reqwest::Error) -> Trouble {
    let io = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last();
    match io {
        Some(io) if progress.connecting() => connect_trouble(&peer.end(), io),
        // With the connection, but before there is HTTP: the handshake.
        Some(io) if error.is_connect() => sight.trouble(io),
        Some(_) | None => Trouble::Failed(words(&peer.told(), error)),
    }
}

/// What went wrong on a connection. reqwest's own words are about its insides; hyper below it knows.
fn words(to: &str, error: &reqwest::Error) -> String {
    let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>()) else {
        let inmost = causes(error).last().map(ToString::to_string).unwrap_or_default();
        return format!("the connection to {to} failed: {inmost}");
    };
    // Only hyper's server has a question for this kind; its words are all there is.
    if error.is_parse() && error.to_string().contains("too large") {
        too_large(to)
    } else if error.is_incomplete_message() {
        format!("{to} closed the connection before its answer was whole")
    } else if error.is_parse() {
        format!("what {to} sent is not HTTP/1: {error}")
    } else {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("the connection to {to} failed: {error}{cause}")
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
