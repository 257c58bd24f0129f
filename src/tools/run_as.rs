//! `heeler run-as USER -- CMD..`: a command exactly as an action would run it.
//!
//! The very code of the shim, in this process: same steps, same environment, stdin /dev/null; only
//! the output goes on to the terminal as it comes.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::model::ids::{ActionId, ServiceName};
use crate::model::job::{AtDeadline, Ended, Job, JobKind, Outcome};
use crate::model::process::{Exit, Pid};
use crate::model::service::Command;
use crate::model::text::escape;
use crate::model::time::Mono;
use crate::shim::{Last, Witness, keep};
use crate::sys::fork::{leave_behind, signals_as_events};
use crate::sys::{privilege, user};

/// What a tool exits with when nothing was executed, as env(1) and timeout(1) do.
const NOT_EXECUTED: u8 = 125;
/// "Not allowed", of every heeler command.
const NOT_ALLOWED: u8 = 5;

/// Runs a command as a user, without a deadline. Gives the command's exit code; 128 + n when it was
/// killed by signal n; 125 when it was not executed, with the reason on stderr; 5 when the caller
/// is not root and named somebody else.
#[must_use]
pub fn run_as(name: &str, argv: Vec<OsString>) -> ExitCode {
    match argv.into_iter().map(OsString::into_string).collect() {
        Ok(argv) => run(&job(name, argv), Last::Execute),
        Err(word) => {
            eprintln!("heeler: failed to run the command: {word:?} is not UTF-8 text");
            ExitCode::from(NOT_EXECUTED)
        }
    }
}

/// Runs any job here, output to stdout; [`run_as`]'s exit codes.
#[must_use]
pub fn run(job: &Job, last: Last<'_>) -> ExitCode {
    if let Err(text) = only_yourself(job) {
        eprintln!("heeler: {text}");
        return ExitCode::from(NOT_ALLOWED);
    }
    let events = match signals_as_events() {
        Ok(events) => events,
        Err(error) => {
            eprintln!("heeler: failed to take over the signals: {error}");
            return ExitCode::from(NOT_EXECUTED);
        }
    };
    let mut terminal = Terminal { code: NOT_EXECUTED };
    let leftover = keep(job, last, None, Some(&events), &mut terminal);
    if leftover.is_held() {
        eprintln!("heeler: what the command left running still holds its output; it lives on");
        if let Err(error) = leave_behind(|| leftover.drain()) {
            eprintln!("heeler: failed to stay behind for it: {error}; its next print may end it");
        }
    }
    ExitCode::from(terminal.code)
}

/// A job of no service, for a person.
pub(super) fn job(name: &str, argv: Vec<String>) -> Job {
    let service = ServiceName::parse("run-as").unwrap_or_else(|_| unreachable!("a valid name"));
    Job {
        action: ActionId(0),
        service,
        kind: JobKind::Exec,
        command: Command {
            systemctl: None,
            argv: argv.into_iter().map(Box::from).collect(),
            timeout: None,
            env: Vec::new(),
            cwd: None,
        },
        user: Some(name.into()),
        group: None,
        env: Vec::new(),
        env_file: None,
        cwd: None,
        deadline: Mono::NEVER,
        reason: "asked for on the command line".to_owned(),
        main: None,
        at_deadline: AtDeadline::Group,
        input: None,
    }
}

fn only_yourself(job: &Job) -> Result<(), String> {
    if privilege::is_root() {
        return Ok(());
    }
    let own = user::find(None, None).map_err(|error| format!("failed to find you: {error}"))?;
    match job.user.as_deref().map(|name| (name, user::find(Some(name), None))) {
        Some((name, found)) if found.as_ref().map(|account| account.uid) != Ok(own.uid) => {
            Err(format!(
                "only root can run a command as {}; you can as yourself: {}",
                escape(name),
                own.name
            ))
        }
        Some(_) | None => Ok(()),
    }
}

/// Shows how it goes to the person who asked.
struct Terminal {
    code: u8,
}

impl Witness for Terminal {
    fn child_waits(&mut self, _child: Pid) -> std::io::Result<()> {
        Ok(())
    }

    fn executed(&mut self) {}

    fn output(&mut self, bytes: &[u8]) {
        // The command's own bytes to its own user: not ours to change. Nobody reading is no error.
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    fn remark(&mut self, line: &str) {
        eprintln!("{}", escape(line));
    }

    fn ended(&mut self, outcome: &Outcome) {
        self.code = match &outcome.ended {
            Ended::Exited(Exit::Code(code)) => u8::try_from(code & 0xff).unwrap_or(1),
            Ended::Exited(Exit::Signal(signal)) => u8::try_from(128 + signal).unwrap_or(255),
            Ended::TimedOut | Ended::NotExecuted { .. } | Ended::Lost => {
                eprintln!("heeler: the command {}", outcome.ended);
                NOT_EXECUTED
            }
        };
    }
}
