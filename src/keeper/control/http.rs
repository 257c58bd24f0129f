//! The little of HTTP/1.1 that the control socket speaks. Strict: what is not plainly one request is
//! refused, so that no two readers can take the same bytes for different requests.
#![forbid(unsafe_code)]

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::model::limits;
use crate::wire::control::{ErrorAnswer, ErrorKind, Request, Response};

/// Why no request came of a connection.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The client went away before its request was whole: there is nobody to answer.
    Gone,
    /// To be told to the client.
    Refused(ErrorAnswer),
}

impl From<ErrorAnswer> for NoRequest {
    fn from(refusal: ErrorAnswer) -> Self {
        Self::Refused(refusal)
    }
}

/// Reads one request and not a byte of memory more than its bound. Bytes after it are left alone.
pub(super) async fn read_request(
    client: &mut (impl AsyncRead + Unpin),
) -> Result<Request, NoRequest> {
    let mut bytes = Vec::with_capacity(1024);
    let mut scanned = 0;
    let head_end = loop {
        if let Some(end) = find_head_end(&bytes, &mut scanned)? {
            break end;
        }
        if bytes.len() >= limits::CONTROL_HEAD_BYTES_MAX {
            let text = format!("the head is longer than {} bytes", limits::CONTROL_HEAD_BYTES_MAX);
            return Err(ErrorAnswer::new(ErrorKind::TooLarge, text).into());
        }
        read_some(client, &mut bytes, limits::CONTROL_HEAD_BYTES_MAX).await?;
    };
    let head = Head::parse(&bytes[..head_end])?;
    let end = head_end.saturating_add(head.content_length);
    if end > limits::CONTROL_REQUEST_BYTES_MAX {
        let text = format!("the request is over {} bytes", limits::CONTROL_REQUEST_BYTES_MAX);
        return Err(ErrorAnswer::new(ErrorKind::TooLarge, text).into());
    }
    while bytes.len() < end {
        read_some(client, &mut bytes, end).await?;
    }
    Ok(Request::decode(&head.method, &head.target, &bytes[head_end..end])?)
}

async fn read_some(
    client: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
    up_to: usize,
) -> Result<(), NoRequest> {
    let room = u64::try_from(up_to - bytes.len()).unwrap_or(0);
    match client.take(room).read_buf(bytes).await {
        Ok(0) | Err(_) => Err(NoRequest::Gone),
        Ok(_) => Ok(()),
    }
}

/// Looks at the bytes that came since the last look: the end of the head, or the first byte that no
/// head has (so that rubbish is refused at once and not after its time is up).
fn find_head_end(bytes: &[u8], scanned: &mut usize) -> Result<Option<usize>, ErrorAnswer> {
    while let Some(byte) = bytes.get(*scanned) {
        let at = *scanned;
        let before = at.checked_sub(1).map(|at| bytes[at]);
        match byte {
            b'\n' if before != Some(b'\r') => return Err(bad("a line ends without CR")),
            _ if before == Some(b'\r') && *byte != b'\n' => return Err(bad("a CR without LF")),
            b'\r' | b'\n' | b'\t' | b' '..=b'~' => {}
            _ => return Err(bad("the head has a byte that is not printable ASCII")),
        }
        *scanned += 1;
        if bytes[..=at].ends_with(b"\r\n\r\n") {
            return Ok(Some(*scanned));
        }
    }
    Ok(None)
}

#[derive(PartialEq, Eq, Debug)]
struct Head {
    method: String,
    target: String,
    content_length: usize,
}

impl Head {
    /// Parses what [`find_head_end`] let through, with its empty line.
    fn parse(bytes: &[u8]) -> Result<Self, ErrorAnswer> {
        let text = std::str::from_utf8(bytes).map_err(|_| bad("the head is not ASCII"))?;
        let text = text.strip_suffix("\r\n\r\n").ok_or_else(|| bad("the head has no end"))?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or("");
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad("the first line is not METHOD TARGET VERSION"));
        };
        if version != "HTTP/1.1" {
            return Err(bad("only HTTP/1.1 is spoken here"));
        }
        if !target.starts_with('/') || target.contains(['#', '\t']) {
            return Err(bad("the target must be a path"));
        }
        let (mut host, mut length) = (None, None);
        for (n, line) in lines.enumerate() {
            if n >= limits::CONTROL_HEADERS_MAX {
                return Err(bad("too many headers"));
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| bad("a header without colon"))?;
            if !is_token(name) {
                return Err(bad("a header with a bad name"));
            }
            let value = value.trim_matches([' ', '\t']);
            let seen = match name.to_ascii_lowercase().as_str() {
                "host" => host.replace(value),
                "content-length" => length.replace(value),
                "transfer-encoding" => return Err(bad("Transfer-Encoding is not spoken here")),
                _ => None,
            };
            if seen.is_some() {
                return Err(bad("a header is there twice"));
            }
        }
        if host.is_none() {
            return Err(bad("the Host header is missing"));
        }
        if !is_token(method) {
            return Err(bad("the method is not a word"));
        }
        let content_length = length.map_or(Ok(0), parse_length)?;
        Ok(Self { method: method.to_owned(), target: target.to_owned(), content_length })
    }
}

/// Digits only: what `parse` also takes (`+5`) is not a Content-Length.
fn parse_length(value: &str) -> Result<usize, ErrorAnswer> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(length) if digits => Ok(length),
        _ => Err(bad("Content-Length is not a number")),
    }
}

fn is_token(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

fn bad(text: &str) -> ErrorAnswer {
    ErrorAnswer::new(ErrorKind::BadRequest, text)
}

/// Writes an answer, head and body. One that would be over its bound becomes an error that says so.
pub(super) fn write_response(response: &Response) -> Vec<u8> {
    let too_large = || {
        let text = "the answer is too large: name the services, or fewer of them";
        Response::Error(ErrorAnswer::new(ErrorKind::TooLarge, text))
    };
    let body = serde_json::to_vec(response).ok();
    let body = body.filter(|body| body.len() <= limits::CONTROL_RESPONSE_BYTES_MAX);
    let (code, body) = match body {
        Some(body) => (code(response), body),
        None => (code(&too_large()), serde_json::to_vec(&too_large()).unwrap_or_default()),
    };
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len() + 1
    );
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&body);
    bytes.push(b'\n');
    bytes
}

/// What comes before an answer that has no length: it ends where the connection does.
pub(super) fn stream_head() -> &'static [u8] {
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"
}

fn code(response: &Response) -> &'static str {
    match response {
        Response::Status(_)
        | Response::Why(_)
        | Response::Events(_)
        | Response::Probe(_)
        | Response::Workers(_)
        | Response::Order(_)
        | Response::MailTest(_)
        | Response::Reload(_) => "200 OK",
        Response::Error(error) => match error.error {
            ErrorKind::BadRequest => "400 Bad Request",
            ErrorKind::NotAllowed => "403 Forbidden",
            ErrorKind::NoSuchPath | ErrorKind::NoSuchService | ErrorKind::NoSuchCheck => {
                "404 Not Found"
            }
            ErrorKind::WrongMethod => "405 Method Not Allowed",
            ErrorKind::TooLarge => "413 Content Too Large",
            ErrorKind::Busy | ErrorKind::Stopping | ErrorKind::TooSlow => "503 Service Unavailable",
            ErrorKind::Other => "500 Internal Server Error",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::{OrderAnswer, OrderResult};

    fn read(bytes: &[u8]) -> Result<Request, NoRequest> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let mut bytes = bytes;
        runtime.expect("a runtime").block_on(read_request(&mut bytes))
    }

    fn kind(bytes: &[u8]) -> Option<ErrorKind> {
        match read(bytes) {
            Err(NoRequest::Refused(refusal)) => Some(refusal.error),
            Err(NoRequest::Gone) => None,
            Ok(request) => panic!("{request:?} came of {:?}", String::from_utf8_lossy(bytes)),
        }
    }

    const CURL: &str =
        "GET /v1/status HTTP/1.1\r\nHost: heeler\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n";

    #[test]
    fn what_curl_sends_is_read_and_what_follows_is_not() {
        let status = Request::Status { services: Vec::new() };
        assert_eq!(read(CURL.as_bytes()).ok(), Some(status.clone()));
        assert_eq!(read(CURL.repeat(10_000).as_bytes()).ok(), Some(status.clone()));
        let body = r#"{"order":"stop","services":["a"]}"#;
        let order = format!(
            "POST /v1/order HTTP/1.1\r\nhost:x\r\nCONTENT-LENGTH: {}\r\n\r\n{body}",
            body.len()
        );
        assert!(matches!(read(order.as_bytes()), Ok(Request::Order { wait: true, .. })));
        // Every cut of it is a client that went away, never half a request.
        for end in 0..order.len() {
            assert_eq!(kind(&order.as_bytes()[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn whatever_could_be_read_two_ways_is_refused() {
        let get = "GET /v1/status HTTP/1.1\r\nHost: h\r\n";
        for (bytes, why) in [
            ("\r\n\r\n".to_owned(), "no request line"),
            ("GET /v1/status HTTP/1.1\r\n\r\n".to_owned(), "no Host"),
            (format!("{get}Host: h\r\n\r\n"), "two Hosts"),
            (format!("{get}Transfer-Encoding: chunked\r\n\r\n"), "chunked"),
            (format!("{get}Content-Length: 0\r\nContent-Length: 0\r\n\r\n"), "two lengths"),
            (format!("{get}Content-Length: 0\r\nTransfer-Encoding: x\r\n\r\n"), "both"),
            (format!("{get}Content-Length: +1\r\n\r\nx"), "signed length"),
            (format!("{get}Content-Length: 0x1\r\n\r\nx"), "hex length"),
            (format!("{get}Content-Length: 99999999999999999999\r\n\r\n"), "huge length"),
            (format!("{get}Content-Length:\r\n\r\n"), "no length"),
            (format!("{get}Content-Length : 0\r\n\r\n"), "space before colon"),
            (format!("{get} folded: x\r\n\r\n"), "folded header"),
            (format!("{get}no colon\r\n\r\n"), "no colon"),
            (CURL.replace("\r\n", "\n"), "bare LF"),
            (CURL.replace("Host", "\rHost"), "bare CR"),
            (CURL.replace("heeler", "hee\0ler"), "NUL"),
            (CURL.replace("heeler", "héeler"), "not ASCII"),
            (CURL.replace("HTTP/1.1", "HTTP/1.0"), "old version"),
            (CURL.replace("HTTP/1.1", "HTTP/2"), "new version"),
            (CURL.replace(" HTTP/1.1", ""), "no version"),
            (CURL.replace("/v1/status", "http://evil/v1/status"), "absolute form"),
            (CURL.replace("/v1/status", "*"), "asterisk form"),
            (CURL.replace("/v1/status", "/v1/status#x"), "fragment"),
            (CURL.replace("GET ", "GET  "), "two spaces"),
            (CURL.replace("GET", "G(T"), "not a method"),
            (format!("{get}{}\r\n", "A: b\r\n".repeat(64)), "too many headers"),
        ] {
            assert_eq!(kind(bytes.as_bytes()), Some(ErrorKind::BadRequest), "{why}");
        }
        for method in ["PUT", "DELETE", "HEAD", "BREW", "CONNECT"] {
            let bytes = CURL.replace("GET", method);
            assert_eq!(kind(bytes.as_bytes()), Some(ErrorKind::WrongMethod), "{method}");
        }
        assert_eq!(kind(b"\xff\xfe"), Some(ErrorKind::BadRequest));
    }

    #[test]
    fn what_is_too_large_is_refused_from_its_head_alone() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000));
        assert_eq!(kind(long.as_bytes()), Some(ErrorKind::TooLarge));
        let body = "POST /v1/order HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n";
        assert_eq!(kind(body.as_bytes()), Some(ErrorKind::TooLarge));
        let result = OrderResult {
            text: "x".repeat(limits::CONTROL_RESPONSE_BYTES_MAX),
            service: String::new(),
            result: crate::wire::control::OrderEnd::Done,
        };
        let written = write_response(&Response::Order(OrderAnswer::new(vec![result])));
        assert!(written.starts_with(b"HTTP/1.1 413 "));
    }

    /// Every one-byte change of a good request is a request or a refusal, and ends.
    #[test]
    fn no_byte_makes_it_panic() {
        for at in 0..CURL.len() {
            for byte in 0..=255 {
                let mut bytes = CURL.as_bytes().to_vec();
                bytes[at] = byte;
                drop(read(&bytes));
            }
        }
    }
}
