//! One exchange of HTTP/1.1 (RFC 9112) on a connection: a request out, a bounded answer in.
//!
//! No pool, no proxy, no decompression: what the server sent is what is judged. Only the caller's deadline
//! bounds the time.

use std::error::Error as _;
use std::pin::pin;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::checks::connect::{Progress, Stage, Trouble};
use crate::model::units::show_size;

/// Status line and headers; nginx sends at most 32 KiB of them, Apache 8 KiB a line.
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

/// Sends a request and reads its answer. `to` is the target's name in messages.
///
/// # Errors
/// `Failed`: what came is no whole answer.
pub(super) async fn exchange<S>(
    progress: &Progress,
    to: &str,
    stream: S,
    request: Request<Full<Bytes>>,
    read: Read,
) -> Result<Answer, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaken = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream));
    let (mut sender, connection) = shaken.await.map_err(|error| trouble(to, &error))?;
    let mut exchanged = pin!(async {
        let response = sender.send_request(request).await.map_err(|error| trouble(to, &error))?;
        answer(progress, to, response, read).await
    });
    let mut connection = pin!(connection);
    let mut gone = false;
    loop {
        tokio::select! {
            answer = &mut exchanged => return answer,
            // What is wrong with a connection is told to its exchange; what it had read is still there.
            _ended = &mut connection, if !gone => gone = true,
        }
    }
}

async fn answer(
    progress: &Progress,
    to: &str,
    response: Response<Incoming>,
    read: Read,
) -> Result<Answer, Trouble> {
    let (head, mut incoming) = response.into_parts();
    let status = told(head.status);
    progress.at(Stage::Receiving(format!("{to} answered {status} and began a body")));
    let keep_bytes = match read.keep {
        Keep::All => usize::MAX,
        Keep::Beginning => BEGINNING_BYTES,
    };
    let (mut kept, mut bytes, mut digest) = (Vec::new(), 0u64, Context::new(&SHA256));
    let mut end = End::Whole;
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| match trouble(to, &error) {
            Trouble::Failed(why) => Trouble::Failed(format!(
                "{to} answered {status}, but the body broke off after {}: {why}",
                show_size(bytes)
            )),
            Trouble::Unknown(why) => Trouble::Unknown(why),
        })?;
        // Trailers are no part of a body.
        let Ok(data) = frame.into_data() else { continue };
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
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// `200 OK`. The words are the standard's, not the server's.
pub(super) fn told(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => status.as_str().to_owned(),
    }
}

fn trouble(to: &str, error: &hyper::Error) -> Trouble {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    // Only hyper's server has a question for this kind; its words are all there is.
    Trouble::Failed(if error.is_parse() && error.to_string().contains("too large") {
        format!("{to} sent more than 64 KiB or 100 lines of headers")
    } else if error.is_incomplete_message() {
        format!("{to} closed the connection before its answer was whole")
    } else if error.is_parse() {
        format!("what {to} sent is not HTTP/1: {error}")
    } else {
        format!("the connection to {to} failed: {error}{cause}")
    })
}
