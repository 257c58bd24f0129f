//! One request to a control server: a connection of its own, short, with one deadline.
//!
//! A control server has one thread and reads nothing ahead: an idle connection to it keeps everybody else
//! out for half a minute (`reference/puma.md`, fact 14). So the request goes out at once, and the
//! connection never stays.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::model::limits;
use crate::model::puma::{Ask, ControlUrl, Secret, Trouble, TroubleKind};

/// Asks; gives the body of a good answer.
pub(super) fn ask(url: &ControlUrl, token: Option<&Secret>, ask: Ask) -> Result<Vec<u8>, Trouble> {
    let deadline = Instant::now() + limits::PUMA_ANSWER_TIMEOUT;
    let mut stream = open(url, deadline)?;
    let answer = exchange(&mut stream, &request(token, ask), deadline)?;
    body(&answer)
}

fn request(token: Option<&Secret>, ask: Ask) -> String {
    let query = token.map(|token| format!("?token={}", token.reveal())).unwrap_or_default();
    format!("GET /{}{query} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n", ask.word())
}

/// A connection, to whatever kind of socket.
trait Stream: Read + Write {
    /// How long the next call may wait.
    fn patience(&self, span: Duration) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn patience(&self, span: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(span))?;
        self.set_write_timeout(Some(span))
    }
}

impl Stream for TcpStream {
    fn patience(&self, span: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(span))?;
        self.set_write_timeout(Some(span))
    }
}

fn open(url: &ControlUrl, deadline: Instant) -> Result<Box<dyn Stream>, Trouble> {
    let failed = |error: &io::Error| not_connected(url, error);
    match url {
        ControlUrl::Unix(path) => {
            let stream = unix(UnixAddr::new(path), deadline).map_err(|error| failed(&error))?;
            Ok(Box::new(stream))
        }
        ControlUrl::Abstract(name) => {
            // The standard library's call may wait for ever where the backlog is full; but it knows
            // whether this is a name at all.
            SocketAddr::from_abstract_name(&**name).map_err(|error| failed(&error))?;
            let addr = UnixAddr::new_abstract(name.as_bytes());
            let stream = unix(addr, deadline).map_err(|error| failed(&error))?;
            Ok(Box::new(stream))
        }
        ControlUrl::Tcp { host, port } => {
            let found = (&**host, *port).to_socket_addrs().map_err(|error| {
                Trouble::new(TroubleKind::Address, &format!("failed to resolve {host}: {error}"))
            })?;
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for addr in found {
                match TcpStream::connect_timeout(&addr, left(deadline)?) {
                    Ok(stream) => return Ok(Box::new(stream)),
                    Err(error) => last = error,
                }
            }
            Err(failed(&last))
        }
    }
}

/// A Unix socket is waited for as long as a send is (unix(7), SO_SNDTIMEO): its backlog may be full.
fn unix(addr: nix::Result<UnixAddr>, deadline: Instant) -> io::Result<UnixStream> {
    let addr = addr?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let left = deadline.saturating_duration_since(Instant::now()).max(LEAST);
    let micros = i64::try_from(left.as_micros()).unwrap_or(i64::MAX);
    let span = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
    setsockopt(&fd, sockopt::SendTimeout, &span)?;
    connect(fd.as_raw_fd(), &addr)?;
    Ok(UnixStream::from(fd))
}

/// Zero would mean "for ever".
const LEAST: Duration = Duration::from_millis(1);

fn not_connected(url: &ControlUrl, error: &io::Error) -> Trouble {
    let kind = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => TroubleKind::Absent,
        Some(libc::EACCES | libc::EPERM) => TroubleKind::Denied,
        Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::ENETUNREACH | libc::EHOSTUNREACH) => {
            TroubleKind::Refused
        }
        Some(libc::ENAMETOOLONG | libc::EINVAL | libc::EPROTOTYPE | libc::ENOTSOCK) => {
            TroubleKind::Address
        }
        Some(libc::EAGAIN | libc::ETIMEDOUT | libc::EINPROGRESS) => return no_connection(url),
        // The standard library's own timeout has no number.
        None if error.kind() == io::ErrorKind::TimedOut => return no_connection(url),
        Some(_) | None => TroubleKind::NotAsked,
    };
    Trouble::new(kind, &format!("{url}: {error}"))
}

fn no_connection(url: &ControlUrl) -> Trouble {
    Trouble::new(TroubleKind::Silent, &format!("{url}: no connection"))
}

fn left(deadline: Instant) -> Result<Duration, Trouble> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late(0)) } else { Ok(left.max(LEAST)) }
}

fn late(bytes: usize) -> Trouble {
    let detail = match bytes {
        0 => "it takes connections and says nothing".to_owned(),
        bytes => format!("{bytes} bytes came, and then nothing"),
    };
    Trouble::new(TroubleKind::Silent, &detail)
}

/// Sends the request and reads to the end.
fn exchange(
    stream: &mut Box<dyn Stream>,
    request: &str,
    deadline: Instant,
) -> Result<Vec<u8>, Trouble> {
    let mut answer = Vec::new();
    let timed_out = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
    };
    let broken = |error: &io::Error| {
        Trouble::new(TroubleKind::Garbled, &format!("the connection broke: {error}"))
    };
    stream.patience(left(deadline)?).map_err(|error| broken(&error))?;
    stream.write_all(request.as_bytes()).map_err(|error| match timed_out(&error) {
        true => late(0),
        false => broken(&error),
    })?;
    let mut piece = [0; 16 << 10];
    loop {
        let patience = left(deadline).map_err(|_| late(answer.len()))?;
        stream.patience(patience).map_err(|error| broken(&error))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if timed_out(&error) => return Err(late(answer.len())),
            Err(error) => return Err(broken(&error)),
        }
        if answer.len() > limits::PUMA_ANSWER_BYTES_MAX {
            let most = limits::PUMA_ANSWER_BYTES_MAX;
            let detail = format!("the answer is longer than {most} bytes");
            return Err(Trouble::new(TroubleKind::Garbled, &detail));
        }
    }
}

/// The body of a whole, good answer.
fn body(answer: &[u8]) -> Result<Vec<u8>, Trouble> {
    let garbled = |detail: &str| Trouble::new(TroubleKind::Garbled, detail);
    if answer.is_empty() {
        return Err(garbled("the connection was closed without an answer"));
    }
    let (head, body) = split(answer).ok_or_else(|| garbled("half an answer"))?;
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let code = lines.next().and_then(status).ok_or_else(|| garbled("it does not speak HTTP"))?;
    let said = || String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]).into_owned();
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match code {
        200 if length.is_some_and(|length| body.len() < length) => Err(garbled("half an answer")),
        200 => Ok(body[..length.unwrap_or(body.len()).min(body.len())].to_vec()),
        401 | 403 => Err(Trouble::new(TroubleKind::Forbidden, &said())),
        404 => Err(Trouble::new(TroubleKind::Unavailable, &said())),
        code => Err(garbled(&format!("status {code}: {}", said()))),
    }
}

const SHOWN_BYTES: usize = 200;

fn split(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let find = |end: &[u8]| {
        let at = answer.windows(end.len()).position(|window| window == end)?;
        Some((&answer[..at], &answer[at + end.len()..]))
    };
    find(b"\r\n\r\n").or_else(|| find(b"\n\n"))
}

/// The code of a status line.
fn status(line: &str) -> Option<u16> {
    let code = line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    code.parse().ok().filter(|code| (100..1000).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_and_good_or_it_says_why_not() {
        let kind = |text: &str| body(text.as_bytes()).map_err(|trouble| trouble.kind);
        let good = Ok(b"{}".to_vec());
        for (text, expected) in [
            ("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}", good.clone()),
            ("HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\n{}rest", good.clone()),
            ("HTTP/1.0 200\n\n{}", good),
            ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n{}", Err(TroubleKind::Garbled)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n", Err(TroubleKind::Garbled)),
            ("HTTP/1.0 403 Forbidden\r\n\r\nInvalid auth token", Err(TroubleKind::Forbidden)),
            ("HTTP/1.0 404 Not Found\r\n\r\nUnsupported action", Err(TroubleKind::Unavailable)),
            ("HTTP/1.0 500 Oops\r\n\r\n", Err(TroubleKind::Garbled)),
            ("SSH-2.0-OpenSSH\r\n\r\n", Err(TroubleKind::Garbled)),
            ("HTTP/1.0 99999 x\r\n\r\n", Err(TroubleKind::Garbled)),
            ("", Err(TroubleKind::Garbled)),
        ] {
            assert_eq!(kind(text), expected, "{text:?}");
        }
    }

    #[test]
    fn only_what_heeler_ever_asks_can_be_asked() {
        let token = Secret::token("sekret");
        for ask in Ask::ALL {
            let line = request(token.as_ref(), ask);
            let first = line.lines().next().expect("a line");
            assert_eq!(first, format!("GET /{}?token=sekret HTTP/1.0", ask.word()));
        }
        assert!(request(None, Ask::Stats).starts_with("GET /stats HTTP/1.0\r\n"));
        for never in ["halt", "stop"] {
            assert!(Ask::ALL.iter().all(|ask| ask.word() != never));
        }
    }

    #[test]
    fn a_full_backlog_is_not_waited_for_longer_than_the_deadline() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("full.sock");
        let addr = UnixAddr::new(&path).expect("an address");
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener =
            socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("a socket");
        nix::sys::socket::bind(listener.as_raw_fd(), &addr).expect("bind");
        let backlog = nix::sys::socket::Backlog::new(0).expect("a backlog");
        nix::sys::socket::listen(&listener, backlog).expect("listen");
        let _first = UnixStream::connect(&path).expect("has room for one");
        let began = Instant::now();
        let trouble = ask(&ControlUrl::Unix(path.clone()), None, Ask::Stats).expect_err("is full");
        assert_eq!(trouble.kind, TroubleKind::Silent, "{trouble}");
        assert!(began.elapsed() < limits::PUMA_ANSWER_TIMEOUT * 2, "{:?}", began.elapsed());
        drop(listener);
        let kind = |url: &ControlUrl| ask(url, None, Ask::Stats).expect_err("nobody").kind;
        assert_eq!(kind(&ControlUrl::Unix(path)), TroubleKind::Refused);
        assert_eq!(kind(&ControlUrl::Unix(dir.path().join("absent"))), TroubleKind::Absent);
        assert_eq!(
            kind(&ControlUrl::Unix(std::path::Path::new("/").join("x".repeat(200)))),
            TroubleKind::Address
        );
        assert_eq!(kind(&ControlUrl::Abstract("heeler-nobody".into())), TroubleKind::Refused);
    }
}
