//! The operator's side: the command line, the client of the control socket, and what is shown.
//!
//! Blocking and single: it asks once and waits as long as the action takes. What needs no daemon
//! (`run`, `validate`, `run-as`, `env`) is only recognized here and done by other roles, which this
//! module may not know: `main.rs` brings them.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

mod args;
mod client;
mod commands;
mod completions;
mod doctor;
mod manual;
pub mod render;

pub use args::{Chosen, ClientCommand, Invocation, Local, parse};
pub use doctor::{Wanted, doctor};

/// How a command ended, for scripts. The numbers are those of LSB where it has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Rc {
    /// Done, or all is well.
    Ok = 0,
    /// It was tried and did not come out.
    Failed = 1,
    /// The command line is not one.
    Usage = 2,
    /// The service is not running.
    NotRunning = 3,
    /// There is no such service, or none that the caller may see.
    NoService = 4,
    /// The caller may not.
    NotAllowed = 5,
    /// There is no daemon to ask.
    NoDaemon = 6,
}

impl From<Rc> for ExitCode {
    fn from(rc: Rc) -> Self {
        Self::from(rc as u8)
    }
}

/// What this module cannot do by itself.
#[derive(Clone, Copy)]
pub struct Outside {
    /// Does a command that needs no daemon.
    pub local: fn(Local) -> ExitCode,
    /// The width of the terminal on stdout in columns; `None` when stdout is not one or does not tell.
    pub columns: fn() -> Option<u16>,
}

/// The whole command line: `args` begins with the program's name.
#[must_use]
pub fn main(args: Vec<OsString>, outside: Outside) -> ExitCode {
    match parse(args) {
        Ok(Invocation::Client { socket, json, command }) => {
            commands::run(socket, json, &command, outside.columns).into()
        }
        Ok(Invocation::Print(text)) => print(&text, Rc::Ok).into(),
        Ok(Invocation::Local(local)) => (outside.local)(local),
        Err(rc) => rc.into(),
    }
}

/// Prints to stdout. A reader that went away (`| head`) had enough: no error, and `rc` stands. Any
/// other failure to print is one.
pub fn print(text: &str, rc: Rc) -> Rc {
    match write_out(text) {
        Written::Failed => rc.max(Rc::Failed),
        Written::Yes | Written::NobodyReads => rc,
    }
}

/// How writing to stdout went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Written {
    Yes,
    NobodyReads,
    /// And that was said.
    Failed,
}

fn write_out(text: &str) -> Written {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Written::Yes,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Written::NobodyReads,
        Err(error) => {
            complain(&format!("failed to write the answer to stdout: {error}"));
            Written::Failed
        }
    }
}

/// Prints a line to stderr; when that is closed there is nobody left to tell.
fn complain(text: &str) {
    drop(writeln!(io::stderr().lock(), "heeler: {text}"));
}
