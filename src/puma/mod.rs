//! The role `heeler ask`: one question to a Puma, in a short-lived program of the service's user.
//!
//! Whatever a Puma answers was written by an application: no root parses it. The keeper gets numbers and
//! short texts ([`crate::wire::puma`]). The question comes on stdin and the token is nowhere else.
#![forbid(unsafe_code)]

mod control;
mod exposed;
mod state;
mod stats;

use std::io::{Read, Write, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;

use crate::model::limits;
use crate::model::puma::{
    Answer, Ask, Control, ControlUrl, Question, Said, Secret, StateFile, Token, Trouble,
    TroubleKind,
};

/// Reads a question, asks, prints the answer. Exits 0 whatever the answer is, 2 without a question, 1 when
/// nobody takes the answer.
#[must_use]
pub fn run() -> ExitCode {
    let mut text = String::new();
    let read = stdin().lock().take(QUESTION_BYTES_MAX).read_to_string(&mut text);
    let Some(question) = read.ok().and_then(|_| Question::decode(&text)) else {
        // Not what was read: a token may be in it.
        eprintln!("there is no question on stdin; `heeler ask` is heeler's own");
        return ExitCode::from(2);
    };
    let answer = answer(&question).encode();
    let mut out = stdout().lock();
    match out.write_all(answer.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

const QUESTION_BYTES_MAX: u64 = 64 << 10;

fn answer(question: &Question) -> Answer {
    let (state, mut exposed, known) = match &question.control {
        Control::State(path) => match state::read(path) {
            Ok(found) => (Some(found.file), exposed::of_state(path), Ok((found.url, found.token))),
            Err(trouble) => (None, Vec::new(), Err(trouble)),
        },
        Control::Url { url, token } => {
            let token = token_of(token);
            (None, Vec::new(), token.map(|token| (url.clone(), token)))
        }
    };
    let said = known.and_then(|(url, token)| {
        let url = absolute(url, state.as_ref())?;
        exposed.extend(exposed::of_control(&url, token.as_ref()));
        let body = control::ask(&url, token.as_ref(), question.ask)?;
        match question.ask {
            Ask::Stats => stats::parse(&body).map(Said::Stats),
            Ask::ReloadWorkerDirectory | Ask::PhasedRestart | Ask::Restart => Ok(Said::Accepted),
        }
    });
    Answer { state, exposed, said }
}

fn token_of(token: &Token) -> Result<Option<Secret>, Trouble> {
    match token {
        Token::None => Ok(None),
        Token::Said(secret) => Ok(Some(secret.clone())),
        Token::File(path) => state::token(path).map(Some),
    }
}

/// A socket's path that is not absolute counts from where Puma was started.
fn absolute(url: ControlUrl, state: Option<&StateFile>) -> Result<ControlUrl, Trouble> {
    let ControlUrl::Unix(path) = url else { return Ok(url) };
    if path.is_absolute() {
        return Ok(ControlUrl::Unix(path));
    }
    let from = state.and_then(|state| state.running_from.as_ref());
    let from = from.map(|from| Path::new(from.raw())).filter(|from| from.is_absolute());
    let from = from.ok_or_else(|| {
        Trouble::new(TroubleKind::Address, "its path is not absolute, and where it begins unknown")
    })?;
    Ok(ControlUrl::Unix(from.join(path)))
}

/// A file of the service's user, at most so long. Whatever it is instead is not waited for.
fn read_file(path: &Path) -> Result<Vec<u8>, Trouble> {
    use std::os::unix::fs::OpenOptionsExt;
    let shown = path.display();
    let failed = |kind, why: &str| Trouble::new(kind, &format!("failed to read {shown}: {why}"));
    // A FIFO would be waited for at the open.
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = std::fs::File::options().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(|error| {
        let absent = error.kind() == std::io::ErrorKind::NotFound;
        let kind = if absent { TroubleKind::Absent } else { TroubleKind::State };
        failed(kind, &error.to_string())
    })?;
    if !file.metadata().is_ok_and(|facts| facts.is_file()) {
        return Err(failed(TroubleKind::State, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let most = limits::PUMA_STATE_BYTES_MAX as u64;
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(TroubleKind::State, &error.to_string()))?;
    if bytes.len() as u64 > most {
        return Err(failed(TroubleKind::State, &format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}
