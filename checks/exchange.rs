//! One exchange of HTTP/1.1 (RFC 9112): a connection, a request out, a bounded answer in.
//!
//! No pool, no proxy, no decompression: what the server sent is what is judged. Only the caller's deadline
//! bounds the time.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Request, Response, StatusCode};
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::checks::connect::{Progress, Stage, Tools, Trouble};
use crate::checks::door::{Comes, Entered, Near};
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
/// The same of a request: few are longer than this.
const REQUEST_AT_ONCE_BYTES: usize = 1 << 10;
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
/// for this one connection, and `request` makes the request anew.
///
/// # Errors
/// `Failed`: not to be trusted, or what came is no whole answer. `Unknown`: heeler's own means are short.
pub(super) async fn exchange<S>(
    tools: &Tools,
    to: &str,
    stream: S,
    tls: Option<Readied>,
    request: impl Fn() -> Request,
    read: Read,
) -> Result<Answer, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (config, sight) = tls.map(|Readied { config, sight }| (config, sight)).unzip();
    let entered = tools.shared.doors.ask(config.as_ref(), request).await;
    let Entered { asked, near, comes } = entered.map_err(|error| {
        Trouble::Unknown(format!("failed to prepare a connection within heeler: {error}"))
    })?;
    let line = Line::default();
    let exchanged = async {
        let response = asked.await.map_err(|error| line.trouble(to, sight.as_ref(), &error))?;
        line.answered.store(true, Ordering::Relaxed);
        line.heard.notify_one();
        answer(&tools.progress, to, &line, response, read).await
    };
    tokio::select! {
        biased;
        answer = exchanged => answer,
        trouble = line.carry(to, (&near, comes), stream) => Err(trouble),
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
    let body = Body { kept, bytes, end, fingerprint: u64::from_le_bytes(*first) };
    Ok(Answer { status, headers, body })
}

/// What carries the bytes between reqwest and a connection.
///
/// What reqwest sends is carried on: so the connection is made, named and closed as every probe's is, and a
/// server that sends interim answers for ever (RFC 9110, section 15.2) ends at a bound. Without one hyper
/// parses them as fast as they come, and the loop stands still for seconds.
#[derive(Default)]
struct Line {
    /// Whether the head of the answer is there, and who waits for it.
    answered: AtomicBool,
    heard: Notify,
    /// What broke the connection.
    broken: OnceLock<io::Error>,
}

impl Line {
    /// Carries until it is dropped, or until it is clear that there will be no answer.
    async fn carry(
        &self,
        to: &str,
        (near, comes): (&Near, Comes),
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Trouble {
        let (mut answers, mut requests) = tokio::io::split(stream);
        let ask = async {
            // A server may answer without having read all of a request.
            let _sent = forward(near, comes, &mut requests).await;
            std::future::pending().await
        };
        let listen = async {
            match self.listen(&mut answers, near).await {
                Ok(Heard::All) => {}
                Ok(Heard::TooMuch) => {
                    return Trouble::Failed(format!(
                        "the connection to {to} failed: it sent more than 512 KiB without an answer"
                    ));
                }
                Err(error) => drop(self.broken.set(error)),
            }
            // What was sent before is read before this.
            near.close();
            std::future::pending().await
        };
        tokio::select! {
            trouble = listen => trouble,
            never = ask => never,
        }
    }

    async fn listen(&self, from: &mut (impl AsyncRead + Unpin), near: &Near) -> io::Result<Heard> {
        let (mut buffer, mut carried) = (Vec::with_capacity(CARRIED_AT_ONCE_BYTES), 0);
        loop {
            buffer.clear();
            let bytes = from.read_buf(&mut buffer).await?;
            if bytes == 0 {
                return Ok(Heard::All);
            }
            carried += bytes;
            if carried > BEFORE_ANSWER_BYTES_MAX && !self.answered.load(Ordering::Relaxed) {
                // Part of it may be a body, and the head still on its way through reqwest.
                let head = tokio::time::timeout(HEAD_PARSED_WITHIN, self.heard.notified());
                if head.await.is_err() {
                    return Ok(Heard::TooMuch);
                }
            }
            // reqwest has seen enough where it hangs up; then the exchange ends.
            if near.write_all(&buffer).await.is_err() {
                return Ok(Heard::All);
            }
        }
    }

    /// Whose trouble it is that there is no answer.
    fn trouble(&self, to: &str, sight: Option<&Sight>, error: &reqwest::Error) -> Trouble {
        let io = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last();
        match (io, sight) {
            // With the connection, but before there is HTTP: the handshake.
            (Some(io), Some(sight)) if error.is_connect() => sight.trouble(io),
            (Some(_) | None, Some(_) | None) => Trouble::Failed(self.words(to, error)),
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

/// Carries all that there is of a request.
async fn forward(near: &Near, comes: Comes, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; REQUEST_AT_ONCE_BYTES];
    loop {
        let bytes = near.read(&mut buffer).await?;
        let part = &buffer[..bytes];
        to.write_all(part).await?;
        if bytes == 0 || (comes == Comes::Head && part.ends_with(b"\r\n\r\n")) {
            return Ok(());
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
