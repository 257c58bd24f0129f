//! One request to the keeper, one answer. Blocking.
#![forbid(unsafe_code)]

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::cli::Rc;
use crate::model::text::escape;
use crate::wire::control::{ErrorAnswer, ErrorKind, Request};

/// Why there is no answer, and what to exit with.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) rc: Rc,
    /// For people.
    pub(super) text: String,
    /// What the keeper said, for `--json`.
    pub(super) body: Option<String>,
}

/// How long to wait for the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    /// The keeper answers at once when it is well.
    Short,
    /// As long as the action takes.
    Endless,
}

/// An answer, and the JSON it came as.
pub(super) struct Answer<T> {
    pub(super) value: T,
    pub(super) json: String,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const SHORT_PATIENCE: Duration = Duration::from_secs(30);
/// More than any keeper sends: a bound for the day something else listens there.
const ANSWER_BYTES_MAX: u64 = 32 << 20;
/// One line of an answer that goes on.
const LINE_BYTES_MAX: u64 = 1 << 20;
const SYSTEM_SOCKET: &str = "/run/heeler/control.sock";

/// Which socket: `--socket`, else `$HEELER_SOCKET`, else the caller's own keeper where there is one,
/// else the system's.
pub(super) fn socket_path(given: Option<PathBuf>) -> PathBuf {
    let from_env =
        || env::var_os("HEELER_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from);
    let var = |name: &str| env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    // Where the caller's own keeper has it by default (`config::settings`).
    let state =
        || var("XDG_STATE_HOME").or_else(|| var("HOME").map(|home| home.join(".local/state")));
    let own = || {
        let dir = var("XDG_RUNTIME_DIR").map(|dir| dir.join("heeler"));
        let path = dir.or_else(|| Some(state()?.join("heeler/run")))?.join("control.sock");
        (!nix::unistd::geteuid().is_root() && path.exists()).then_some(path)
    };
    given.or_else(from_env).or_else(own).unwrap_or_else(|| SYSTEM_SOCKET.into())
}

/// Asks.
pub(super) fn ask<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
    patience: Patience,
) -> Result<Answer<T>, Failure> {
    let mut stream = connect(socket)?;
    let limit = match patience {
        Patience::Short => Some(SHORT_PATIENCE),
        Patience::Endless => None,
    };
    let raw = stream
        .set_read_timeout(limit)
        .and_then(|()| exchange(&mut stream, request))
        .map_err(|error| lost(socket, &error))?;
    whole_answer(socket, &raw)
}

fn whole_answer<T: DeserializeOwned>(socket: &Path, raw: &[u8]) -> Result<Answer<T>, Failure> {
    read_answer(raw).ok_or_else(|| {
        if !raw.is_empty() {
            return foreign(socket);
        }
        let shown = escape(&socket.display().to_string());
        let text = format!(
            "heeler at {shown} ended before it answered; what it was told and had recorded goes on \
             when it is back: look with `heeler status`"
        );
        Failure { rc: Rc::Failed, text, body: None }
    })?
}

fn foreign(socket: &Path) -> Failure {
    let shown = escape(&socket.display().to_string());
    let text =
        format!("failed to understand the answer from {shown}: is it heeler that listens there?");
    Failure { rc: Rc::Failed, text, body: None }
}

fn ended(socket: &Path) -> Failure {
    let shown = escape(&socket.display().to_string());
    let text = format!("heeler at {shown} ended; its services go on without it");
    Failure { rc: Rc::NoDaemon, text, body: None }
}

/// Asks for an answer that goes on, and gives out each of its lines, until the keeper has no more to say
/// (which is a failure: it ended, or it could not wait) or the lines are wanted no more.
pub(super) fn listen(
    socket: &Path,
    request: &Request,
    mut each: impl FnMut(&str) -> ControlFlow<Rc>,
) -> Result<Rc, Failure> {
    let mut stream = connect(socket)?;
    let failed = |error: io::Error| lost(socket, &error);
    let written = stream.set_read_timeout(Some(SHORT_PATIENCE)).and_then(|()| {
        stream.set_write_timeout(Some(SHORT_PATIENCE))?;
        stream.write_all(&encode(request))
    });
    let mut reader = BufReader::new(&stream);
    let mut raw = Vec::new();
    let head = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut raw);
    // What it said counts more than that it did not listen.
    match head {
        Ok(0) => written.map_err(failed)?,
        Ok(_) => {}
        Err(error) => return Err(failed(written.err().unwrap_or(error))),
    }
    if !raw.starts_with(b"HTTP/1.1 200 ") {
        reader.take(ANSWER_BYTES_MAX).read_to_end(&mut raw).map_err(failed)?;
        return whole_answer::<ErrorAnswer>(socket, &raw).and_then(|_| Err(foreign(socket)));
    }
    stream.set_read_timeout(None).map_err(failed)?;
    let mut in_head = true;
    loop {
        raw.clear();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut raw);
        if read.map_err(failed)? == 0 || !raw.ends_with(b"\n") {
            return Err(ended(socket));
        }
        let line = std::str::from_utf8(&raw).map_err(|_| foreign(socket))?.trim_end();
        if in_head {
            in_head = !line.is_empty();
        } else if let Ok(ErrorAnswer { error, text, .. }) = serde_json::from_str(line) {
            let rc = if error == ErrorKind::Stopping { Rc::NoDaemon } else { Rc::Failed };
            return Err(Failure { rc, text: escape(&text), body: Some(format!("{line}\n")) });
        } else if let ControlFlow::Break(rc) = each(line) {
            return Ok(rc);
        }
    }
}

fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    // A keeper that is stopped leaves its backlog full, and then connect waits for ever.
    let (done, connected) = mpsc::channel();
    let path = socket.to_owned();
    thread::spawn(move || drop(done.send(UnixStream::connect(path))));
    let result = connected.recv_timeout(CONNECT_TIMEOUT).unwrap_or_else(|_| {
        let seconds = CONNECT_TIMEOUT.as_secs();
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("it took no call for {seconds} seconds"),
        ))
    });
    result.map_err(|error| {
        let shown = escape(&socket.display().to_string());
        let is = |kind| error.kind() == kind;
        let (rc, cause) = if is(io::ErrorKind::NotFound) {
            (Rc::NoDaemon, "no such file".to_owned())
        } else if is(io::ErrorKind::ConnectionRefused) {
            (Rc::NoDaemon, "nobody listens there".to_owned())
        } else if is(io::ErrorKind::PermissionDenied) {
            (Rc::NotAllowed, "permission denied".to_owned())
        } else {
            (Rc::NoDaemon, error.to_string())
        };
        let text = if rc == Rc::NotAllowed {
            format!("failed to reach heeler at {shown}: {cause}; is it another user's heeler?")
        } else {
            format!(
                "failed to reach heeler at {shown}: {cause}; is it running? start it with \
                 `systemctl start heeler` or `heeler run /etc/heeler/conf.d`"
            )
        };
        Failure { rc, text, body: None }
    })
}

fn encode(request: &Request) -> Vec<u8> {
    let request = request.encode();
    let head = format!(
        "{} {} HTTP/1.1\r\nHost: heeler\r\nContent-Length: {}\r\n\r\n",
        request.method,
        request.target,
        request.body.len()
    );
    [head.as_bytes(), request.body.as_bytes()].concat()
}

fn exchange(stream: &mut UnixStream, request: &Request) -> io::Result<Vec<u8>> {
    // A keeper that is busy, or that refuses the request from its head, answers and closes: what it
    // said counts more than that it did not listen to the end.
    let written = stream.write_all(&encode(request));
    let mut raw = Vec::new();
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut raw);
    if raw.is_empty() {
        written?;
        read?;
    }
    Ok(raw)
}

/// The connection was lost without a word.
fn lost(socket: &Path, error: &io::Error) -> Failure {
    let shown = escape(&socket.display().to_string());
    let is = |kind| error.kind() == kind;
    let (rc, text) = if is(io::ErrorKind::BrokenPipe) || is(io::ErrorKind::ConnectionReset) {
        // Closed with our request unread: that is how the keeper meets who has no right at all.
        let uid = nix::unistd::geteuid();
        let text = format!(
            "heeler at {shown} does not talk to uid {uid}, which has no right on any service; \
             root can grant it with `allow` in a service's file"
        );
        (Rc::NotAllowed, text)
    } else if is(io::ErrorKind::WouldBlock) {
        let seconds = SHORT_PATIENCE.as_secs();
        let text = format!(
            "heeler at {shown} took the call and has not answered for {seconds} seconds; \
             look at it with `systemctl status heeler`"
        );
        (Rc::NoDaemon, text)
    } else {
        (Rc::Failed, format!("failed to talk to heeler at {shown}: {error}"))
    };
    Failure { rc, text, body: None }
}

/// Reads an HTTP answer; `None` when it is not one, or cut short.
fn read_answer<T: DeserializeOwned>(raw: &[u8]) -> Option<Result<Answer<T>, Failure>> {
    let raw = std::str::from_utf8(raw).ok()?;
    let (head, body) = raw.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    if length.parse() != Ok(body.len()) {
        return None;
    }
    let json = body.to_owned();
    if code == "200" {
        let value = serde_json::from_str(body).ok()?;
        return Some(Ok(Answer { value, json }));
    }
    let ErrorAnswer { error, text, version: _ } = serde_json::from_str(body).ok()?;
    let rc = match error {
        ErrorKind::NoSuchService | ErrorKind::NoSuchCheck => Rc::NoService,
        ErrorKind::NotAllowed => Rc::NotAllowed,
        ErrorKind::BadRequest
        | ErrorKind::NoSuchPath
        | ErrorKind::WrongMethod
        | ErrorKind::TooLarge
        | ErrorKind::Busy
        | ErrorKind::Stopping
        | ErrorKind::TooSlow
        | ErrorKind::Other => Rc::Failed,
    };
    Some(Err(Failure { rc, text: escape(&text), body: Some(json) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::StatusAnswer;

    #[test]
    fn a_cut_or_foreign_answer_is_not_taken_for_one() {
        let body = r#"{"version":1,"services":[]}"#;
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let read = |raw: &str| read_answer::<StatusAnswer>(raw.as_bytes());
        assert!(matches!(read(&whole), Some(Ok(_))));
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_none(), "cut at {end}");
        }
        assert!(read("SSH-2.0-OpenSSH_9.2\r\n\r\n").is_none());
        assert!(read_answer::<StatusAnswer>(b"\xff").is_none());
    }
}
