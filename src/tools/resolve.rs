//! The role `heeler resolve`: look-ups for the keeper, in a child that may hang or die of them.

use std::io::{BufRead, Read, Write, stdin, stdout};
use std::process::ExitCode;

use crate::model::limits;
use crate::model::text::Untrusted;
use crate::sys::user::{self, LookupError};
use crate::wire::resolve::{Answer, Question};

/// Answers each question on stdin by a line on stdout, at once; exits 0 after the last, 1 when the
/// keeper is gone, 2 when it was asked what is no question, or too much.
#[must_use]
pub fn run() -> ExitCode {
    let bytes_max = limits::RESOLVE_NAMES_MAX as u64 * (limits::NAME_BYTES_MAX as u64 + 8);
    let mut out = stdout().lock();
    for line in stdin().lock().take(bytes_max).lines().take(limits::RESOLVE_NAMES_MAX) {
        let Some(question) = line.ok().as_deref().and_then(Question::decode) else {
            return ExitCode::from(2);
        };
        let line = answer(question).encode();
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            return ExitCode::from(1);
        }
    }
    ExitCode::SUCCESS
}

fn answer(question: Question) -> Answer {
    let no = |name, error| match error {
        LookupError::NoUser(_) | LookupError::NoGroup(_) => Answer::Missing { name },
        LookupError::Reserved(_) | LookupError::Failed(..) => {
            Answer::Failed { name, error: Untrusted::from(error.to_string().as_str()) }
        }
    };
    match question {
        Question::User(name) => match user::find(Some(&name), None) {
            Ok(found) => Answer::User { name, uid: found.uid, gid: found.gid, home: found.home },
            Err(error) => no(name, error),
        },
        Question::Group(name) => match user::find_group(&name) {
            Ok(gid) => Answer::Group { name, gid },
            Err(error) => no(name, error),
        },
    }
}
