//! `type = "port"`: whether something takes connections, and says what it should.
//!
//! By TCP and on a Unix socket, a connection is enough where neither `send` nor `expect` is given. UDP has
//! no connections (udp(7)): without `expect`, a refusal that comes back in a moment is a failure, and
//! silence is all well, since a server owes no answer to what it was sent.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::checks::connect::{self, Stage, Tools, Trouble, connect_trouble};
use crate::checks::given::{Given, Key, KeyKind, Wrong};
use crate::checks::tls::{self, Trust, Verify};
use crate::checks::{CheckType, Network, Probe, Unsaid};
use crate::model::limits;
use crate::model::metric::{Metric, Value};
use crate::model::observation::Observation;

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::ResponseTime],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(10),
    read: |given| read(given).map(|settings| Probe::Network(Network::Port(settings))),
};

const KEYS: [Key; 9] = [
    Key { name: "host", kind: KeyKind::Text, example: "127.0.0.1" },
    Key { name: "port", kind: KeyKind::Number { min: 1, max: 65_535 }, example: "6379" },
    Key { name: "unix", kind: KeyKind::Path, example: "/run/php/fpm.sock" },
    Key { name: "protocol", kind: KeyKind::OneOf(&["tcp", "udp"]), example: "tcp" },
    Key { name: "send", kind: KeyKind::Bytes, example: "PING\\r\\n" },
    Key { name: "tls", kind: KeyKind::OneOf(&["none", "tls"]), example: "tls" },
    Key { name: "ca_file", kind: KeyKind::Path, example: "/etc/ssl/own-ca.pem" },
    Key { name: "verify", kind: KeyKind::OneOf(&["full", "none"]), example: "full" },
    Key { name: "expect", kind: KeyKind::Pattern, example: "^\\+PONG" },
];

/// What is read of an answer until it matches.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// An answer this long is not matched anew for every byte: whoever sends them one by one would have the
/// pattern run over all of it each time.
const MATCH_EACH_BYTES: usize = 4 << 10;
/// How much such an answer has to grow by, or how long nothing may come, to be matched again.
const MATCH_STEP_BYTES: usize = 1 << 10;
/// See [`MATCH_STEP_BYTES`].
const MATCH_QUIET: Duration = Duration::from_millis(50);
/// How long a refusal by ICMP may take.
const UDP_REFUSAL: Duration = Duration::from_millis(500);
/// What is shown of an answer.
const SHOWN_BYTES: usize = 120;

/// What to probe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    to: To,
    send: Vec<u8>,
    expect: Option<String>,
}

/// Where.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum To {
    Tcp { host: String, port: u16, tls: Option<Trust> },
    Udp { host: String, port: u16 },
    Unix(PathBuf),
}

fn read(given: &Given) -> Result<Settings, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let host = given.text("host").unwrap_or("127.0.0.1").to_owned();
    let is_udp = given.text("protocol") == Some("udp");
    let tls = trust(given, &mut wrong);
    if tls.is_some() && (is_udp || given.has("unix")) {
        wrong.push(Wrong::new("tls", "TLS is spoken on a TCP port only", "give a `port`, by tcp"));
    }
    let to = match (given.path("unix"), given.number("port").map(u16::try_from)) {
        (Some(path), None) => {
            for key in ["host", "protocol"] {
                if given.has(key) {
                    wrong.push(Wrong::new(
                        key,
                        format!("`{key}` goes with `port`, not with `unix`"),
                        "",
                    ));
                }
            }
            if path.as_os_str().len() > limits::SOCKET_PATH_BYTES_MAX {
                let most = limits::SOCKET_PATH_BYTES_MAX;
                let message = format!("the path of a Unix socket has at most {most} bytes");
                wrong.push(Wrong::new("unix", message, "give the socket a shorter one"));
            }
            Some(To::Unix(path.to_owned()))
        }
        (None, Some(Ok(port))) if is_udp => Some(To::Udp { host, port }),
        (None, Some(Ok(port))) => Some(To::Tcp { host, port, tls }),
        (Some(_), Some(_)) => {
            wrong.push(Wrong::new(
                "unix",
                "`unix` and `port` exclude each other",
                "keep one of them",
            ));
            None
        }
        (None, Some(Err(_)) | None) => {
            let hint = "port = 6379, or unix = \"/run/redis.sock\"";
            wrong.push(Wrong::new("port", "it does not say which `port`", hint));
            None
        }
    };
    let send = unescape(given.text("send").unwrap_or_default()).unwrap_or_else(|message| {
        wrong.push(Wrong::new("send", message, "\\n, \\r, \\t, \\0, \\\\ and \\xHH are known"));
        Vec::new()
    });
    let expect = given.text("expect").map(str::to_owned);
    to.filter(|_| wrong.is_empty()).map(|to| Settings { to, send, expect }).ok_or(wrong)
}

/// Whom to trust, where TLS is asked for.
fn trust(given: &Given, wrong: &mut Vec<Wrong>) -> Option<Trust> {
    if given.text("tls") != Some("tls") {
        for key in ["ca_file", "verify"].into_iter().filter(|key| given.has(key)) {
            let message = format!("`{key}` says nothing without TLS");
            wrong.push(Wrong::new(key, message, "add tls = \"tls\""));
        }
        return None;
    }
    let verify = if given.text("verify") == Some("none") { Verify::None } else { Verify::Full };
    Some(Trust { ca_file: given.path("ca_file").map(PathBuf::from), verify })
}

/// The bytes a text stands for.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        let escape = after.chars().next().ok_or("`send` ends with a single \\")?;
        rest = &after[escape.len_utf8()..];
        out.push(match escape {
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            '0' => 0,
            '\\' => b'\\',
            'x' => {
                let digits = rest.get(..2).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
                let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
                rest = rest.get(2..).unwrap_or_default();
                byte.ok_or("\\x needs two hexadecimal digits")?
            }
            other => return Err(format!("\\{other} has no meaning")),
        });
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// Probes once.
pub async fn probe(settings: &Settings, tools: &Tools) -> Observation {
    let began = Instant::now();
    match attempt(settings, tools).await {
        Ok(Answer::Came) => {
            Observation::ok().with(Metric::ResponseTime, Value::Duration(began.elapsed()))
        }
        Ok(Answer::NotOwed) => Observation::ok(),
        Err(trouble) => trouble.into(),
    }
}

/// What is all well.
enum Answer {
    /// The target did what was asked of it.
    Came,
    /// It said nothing, and need not: there is no time to measure.
    NotOwed,
}

async fn attempt(settings: &Settings, tools: &Tools) -> Result<Answer, Trouble> {
    let expect = settings.expect.as_deref().map(compile).transpose()?;
    match &settings.to {
        To::Tcp { host, port, tls } => {
            let stream = connect::tcp(tools, host, *port).await?;
            let whom = format!("{host} port {port}");
            match tls {
                None => talk(stream, &whom, &settings.send, expect.as_ref()).await,
                Some(trust) => {
                    let stream = tls::connect(tools, stream, host, trust).await?;
                    talk(stream, &whom, &settings.send, expect.as_ref()).await
                }
            }
        }
        To::Unix(path) => {
            let stream = connect::unix(tools, path).await?;
            talk(stream, &path.display().to_string(), &settings.send, expect.as_ref()).await
        }
        To::Udp { host, port } => {
            let addresses = connect::addresses(tools, host, *port).await?;
            tools.progress.at(Stage::Asking(format!("{host} port {port}/udp")));
            let ask = |address| ask(address, settings.send.clone(), expect.clone());
            connect::race(addresses, ask).await.map(|(_, answer)| answer)
        }
    }
}

/// It was compiled once already, within the same bound.
fn compile(pattern: &str) -> Result<Regex, Trouble> {
    let built = RegexBuilder::new(pattern).size_limit(limits::REGEX_BYTES_MAX).build();
    built.map_err(|error| Trouble::Unknown(format!("failed to compile `expect`: {error}")))
}

/// Sends, and reads until what comes matches.
async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    whom: &str,
    send: &[u8],
    expect: Option<&Regex>,
) -> Result<Answer, Trouble> {
    let lost = |doing: &str, error: &io::Error| {
        Trouble::Failed(format!("failed to {doing} {whom}: the connection broke: {error}"))
    };
    if !send.is_empty() {
        let sent = async {
            stream.write_all(send).await?;
            stream.flush().await
        };
        sent.await.map_err(|error| lost("send to", &error))?;
    }
    let Some(expect) = expect else { return Ok(Answer::Came) };
    let mut answer = Vec::new();
    let mut matched_at = 0;
    loop {
        let room = (ANSWER_BYTES_MAX - answer.len()) as u64;
        let mut read = (&mut stream).take(room);
        let unmatched = answer.len() > matched_at;
        let patience = if unmatched { MATCH_QUIET } else { limits::PROBE_TIMEOUT_MAX };
        let more = match timeout(patience, read.read_buf(&mut answer)).await {
            Ok(Ok(0)) => More::Never,
            Ok(Ok(_)) => More::Maybe,
            Ok(Err(error)) => {
                // What came before a reset counts too.
                if expect.is_match(&answer) {
                    return Ok(Answer::Came);
                }
                return Err(lost("read from", &error));
            }
            Err(_quiet) => More::NotNow,
        };
        let is_due = match more {
            More::Never | More::NotNow => true,
            More::Maybe => {
                answer.len() < MATCH_EACH_BYTES || answer.len() - matched_at >= MATCH_STEP_BYTES
            }
        };
        if is_due {
            matched_at = answer.len();
            if expect.is_match(&answer) {
                return Ok(Answer::Came);
            }
        }
        if let More::Never = more {
            return Err(Trouble::Failed(mismatch(whom, &answer)));
        }
    }
}

/// What may still come.
enum More {
    /// More, perhaps.
    Maybe,
    /// Nothing for a moment.
    NotNow,
    /// Nothing: the peer closed, or as much was read as may be.
    Never,
}

fn mismatch(whom: &str, answer: &[u8]) -> String {
    match answer.len() {
        0 => format!("{whom} closed the connection without an answer"),
        ANSWER_BYTES_MAX => {
            format!("the first 64 KiB from {whom} do not match `expect`: {}", excerpt(answer))
        }
        length => format!(
            "{whom} closed the connection, and its answer of {length} bytes does not match \
             `expect`: {}",
            excerpt(answer)
        ),
    }
}

fn excerpt(answer: &[u8]) -> String {
    let begin = String::from_utf8_lossy(&answer[..answer.len().min(SHOWN_BYTES)]);
    let more = if answer.len() > SHOWN_BYTES { "..." } else { "" };
    format!("\"{begin}\"{more}")
}

/// Sends one datagram to one address; none has to come back unless it is expected. Connected, the socket
/// takes datagrams from that address only, and is told of a refusal (udp(7)).
async fn ask(address: SocketAddr, send: Vec<u8>, expect: Option<Regex>) -> Result<Answer, Trouble> {
    let whom = format!("{address}/udp");
    let trouble = |error: io::Error| connect_trouble(&whom, &error);
    let socket = connect::udp(address).await.map_err(trouble)?;
    socket.send(&send).await.map_err(trouble)?;
    let Some(expect) = expect else {
        return match timeout(UDP_REFUSAL, receive(&socket)).await {
            Ok(answer) => answer.map(|_| Answer::Came).map_err(trouble),
            Err(_silence) => Ok(Answer::NotOwed),
        };
    };
    let answer = receive(&socket).await.map_err(trouble)?;
    if expect.is_match(&answer) {
        return Ok(Answer::Came);
    }
    Err(Trouble::Failed(format!(
        "the answer of {} bytes from {whom} does not match `expect`: {}",
        answer.len(),
        excerpt(&answer)
    )))
}

async fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut answer = Vec::with_capacity(ANSWER_BYTES_MAX);
    socket.recv_buf(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(
            unescape("PING\\r\\n\\0\\xfF\\\\x41").as_deref(),
            Ok(&b"PING\r\n\0\xff\\x41"[..])
        );
        assert_eq!(unescape("ünï\r\n").as_deref(), Ok("ünï\r\n".as_bytes()));
        for wrong in ["\\", "\\q", "\\x", "\\x4", "\\xg0", "\\x+1", "\\xü", "\\ü"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
    }
}
