//! One exchange of HTTP/1.1 (RFC 9112): a connection, a request out, a bounded answer in.
//!
//! The request and the answer are reqwest's; hyper, of which reqwest is made, speaks between them. reqwest's
//! client opens its connections by itself: then nobody knows who does not answer, and nothing bounds what is
//! read before an answer. No pool, no proxy, no decompression: what the server sent is what is judged. Only
//! the caller's deadline bounds the time.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use hyper::Uri;
use hyper::client::conn::http1;
use hyper::rt::ReadBufCursor;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Body, Request, Response, StatusCode};
use ring::digest::{self, SHA256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::checks::connect::{Progress, Stage, Trouble};
use crate::model::units::show_size;

/// Headers; nginx sends at most 32 KiB of them, Apache 8 KiB a line. What never becomes a head ends at hyper's
/// own bounds: 100 lines, a buffer of 408 KiB.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// All that is carried until there is an answer: its head, interim answers before it, and what is read
/// ahead of its body. More than hyper's buffer, which has better words for a head without end.
const BEFORE_ANSWER_BYTES_MAX: usize = 8 * HEAD_BYTES_MAX;
/// What is read at once.
const CARRIED_AT_ONCE_BYTES: usize = 8 << 10;
/// What is kept of a body that no pattern asks for: enough to show how it begins.
const BEGINNING_BYTES: usize = 1024;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Received,
}

/// What came of a body.
#[derive(Debug)]
pub(super) struct Received {
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

/// Sends a request on a connection and reads its answer. `to` is the target's name in messages.
///
/// # Errors
/// `Failed`: what came is no whole answer. `Unknown`: the request cannot be said in HTTP.
pub(super) async fn exchange<S>(
    progress: &Progress,
    to: &str,
    stream: S,
    request: Request,
    read: Read,
) -> Result<Answer, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = in_origin_form(request).map_err(|error| {
        Trouble::Unknown(format!("there is no way to ask {to} for this: {error}"))
    })?;
    let failed = |error: hyper::Error| Trouble::Failed(words(to, &error));
    let before_answer = AtomicBool::new(true);
    let line = Line { stream, before_answer: &before_answer, carried_bytes: 0 };
    let (mut sender, connection) = http1::Builder::new()
        .max_header_size(HEAD_BYTES_MAX)
        .handshake(line)
        .await
        .map_err(failed)?;
    let exchanged = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        before_answer.store(false, Ordering::Relaxed);
        answer(progress, to, response.map(Body::wrap).into(), read).await
    };
    let carried = async {
        // What ends it is heard by whoever waits for the answer or its body.
        let _ended = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        answer = exchanged => answer,
        never = carried => never,
    }
}

async fn answer(
    progress: &Progress,
    to: &str,
    mut response: Response,
    read: Read,
) -> Result<Answer, Trouble> {
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    let shown = told(status);
    progress.at(Stage::Receiving(format!("{to} answered {shown} and began a body")));
    let keep_bytes = match read.keep {
        Keep::All => usize::MAX,
        Keep::Beginning => BEGINNING_BYTES,
    };
    let (mut kept, mut bytes, mut digest) = (Vec::new(), 0u64, digest::Context::new(&SHA256));
    let mut end = End::Whole;
    loop {
        let chunk = response.chunk().await.map_err(|error| {
            Trouble::Failed(format!(
                "{to} answered {shown}, but the body broke off after {}: {}",
                show_size(bytes),
                words(to, &error)
            ))
        })?;
        let Some(data) = chunk else { break };
        let left = usize::try_from(read.bytes_max - bytes).unwrap_or(usize::MAX);
        let part = &data[..data.len().min(left)];
        digest.update(part);
        let keep = &part[..part.len().min(keep_bytes - kept.len())];
        if kept.capacity() - kept.len() < keep.len() {
            // Twice as much each time, as a vector grows by itself, but never more than there will be.
            let most = usize::try_from(read.bytes_max).unwrap_or(usize::MAX).min(keep_bytes);
            kept.reserve_exact(kept.len().min(most - kept.len()).max(keep.len()));
        }
        kept.extend_from_slice(keep);
        bytes += part.len() as u64;
        if data.len() > left {
            end = End::Cut;
            break;
        }
    }
    let digest = digest.finish();
    let first = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
    let body = Received { kept, bytes, end, fingerprint: u64::from_le_bytes(*first) };
    Ok(Answer { status, headers, body })
}

/// A connection as hyper reads and writes it.
///
/// A server that sends interim answers for ever (RFC 9110, section 15.2) ends at a bound: hyper parses them as
/// fast as they come, and the loop would stand still for seconds.
struct Line<'a, S> {
    stream: S,
    before_answer: &'a AtomicBool,
    carried_bytes: usize,
}

impl<S: AsyncRead + Unpin> hyper::rt::Read for Line<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let before_answer = self.before_answer.load(Ordering::Relaxed);
        if before_answer && self.carried_bytes > BEFORE_ANSWER_BYTES_MAX {
            let text = "it sent more than 512 KiB without an answer";
            return Poll::Ready(Err(io::Error::other(text)));
        }
        let mut room = [MaybeUninit::uninit(); CARRIED_AT_ONCE_BYTES];
        let most = into.remaining().min(CARRIED_AT_ONCE_BYTES);
        let mut part = ReadBuf::uninit(&mut room[..most]);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
        into.put_slice(part.filled());
        self.carried_bytes = self.carried_bytes.saturating_add(part.filled().len());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> hyper::rt::Write for Line<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A request as a server is asked (RFC 9112, section 3.2.1): the path alone, and the host beside it.
fn in_origin_form(request: Request) -> Result<hyper::Request<Body>, Box<dyn Error>> {
    let host = match (request.url().host_str(), request.url().port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let mut request = hyper::Request::<Body>::try_from(request)?;
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    let headers = request.headers_mut();
    headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.entry(header::HOST).or_insert(HeaderValue::try_from(host)?);
    Ok(request)
}

/// What went wrong on a connection. reqwest's own words are about its insides; hyper below it knows.
fn words(to: &str, error: &(dyn Error + 'static)) -> String {
    let hyper = causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    match hyper {
        // Only hyper's server has a question for this kind; its words are all there is.
        Some(hyper) if hyper.is_parse() && hyper.to_string().contains("too large") => too_large(to),
        Some(hyper) if hyper.is_parse() => format!("what {to} sent is not HTTP/1: {hyper}"),
        Some(hyper) if hyper.is_incomplete_message() => {
            format!("{to} closed the connection before its answer was whole")
        }
        Some(_) | None => {
            let inmost = causes(error).last().map(ToString::to_string).unwrap_or_default();
            format!("the connection to {to} failed: {inmost}")
        }
    }
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
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |error| under(*error))
}

/// What is under an error. One of I/O hides what it holds from `source`.
fn under<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(held) => Some(held),
        None => error.source(),
    }
}
