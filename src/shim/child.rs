//! From a fork of the shim to the command, as one list in the order that must hold.
//!
//! Fail closed: the first step that fails ends the child, and nothing is executed, least of all as
//! root. Descriptors 0, 1 and 2 are in place and every other one of the shim's is closed before
//! this begins (`sys::fork`).

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::explain;
use super::report::{Message, Stage};
use crate::model::job::{Job, JobKind};
use crate::model::service::Command;
use crate::model::text::escape;
use crate::sys::defaults::{Closing, close_from, reset_limits, reset_signals};
use crate::sys::environment::{self, Environment, Facts};
use crate::sys::fork::{ChildSide, execute, exit_child, new_session};
use crate::sys::placement;
use crate::sys::privilege::{become_user, is_root, new_session_keyring, prove_user};
use crate::sys::user::{self, Account};

/// What the last step is.
#[derive(Clone, Copy)]
pub enum Last<'a> {
    /// Execute the command.
    Execute,
    /// Print the environment it would have had, a variable a line, escaped.
    ShowEnvironment,
    /// Execute nothing: print what this says, which only the user can tell.
    Ask(&'a dyn Fn(&AsUser<'_>) -> String),
}

/// A child that has become the user, and what it can tell.
pub struct AsUser<'a> {
    job: &'a Job,
    account: &'a Account,
    facts: &'a Facts,
    file: &'a [(String, String)],
}

impl AsUser<'_> {
    /// Who it is.
    #[must_use]
    pub fn account(&self) -> &Account {
        self.account
    }

    /// Which program a command would execute.
    ///
    /// # Errors
    /// Why it could not be, as far as that can be told without trying.
    pub fn program_of(&self, command: &Command) -> Result<PathBuf, String> {
        let job = Job { command: command.clone(), ..self.job.clone() };
        let env = environment::build(self.account, self.facts, &job, self.file);
        let env = env.map_err(|error| error.to_string())?;
        let cwd = command.cwd.as_ref().or(self.job.cwd.as_ref()).unwrap_or(&self.account.home);
        let program = match find_program(&command.argv, &env, cwd) {
            Ok(program) => program,
            Err(Failure::Because(why)) => return Err(why),
            Err(Failure::ShimGone) => return Err("nobody asks any more".to_owned()),
        };
        match explain::obstacle(&program, &self.account.name) {
            Some(why) => Err(why),
            None => Ok(program),
        }
    }

    /// Why it could not work in a directory.
    #[must_use]
    pub fn kept_out_of(&self, directory: &Path) -> Option<String> {
        let error = std::env::set_current_dir(directory).err()?;
        Some(explain::directory(directory, &error, &self.account.name))
    }

    /// What is missing for a command that talks to the user's manager.
    #[must_use]
    pub fn lacks_manager(&self) -> Option<String> {
        environment::explain_missing_manager(self.account.uid, &self.account.name, self.facts)
    }
}

/// Runs the list; never returns to the shim's code.
pub(super) fn run(side: &ChildSide, job: &Job, last: Last<'_>, cgroup: Option<&str>) -> Infallible {
    let failure = match steps(side, job, last, cgroup) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    if let Failure::Because(text) = failure {
        let _ = Message::Failed(text).send(&side.report);
    }
    exit_child(1)
}

/// Why the list was not finished.
enum Failure {
    /// The shim is gone: nobody would keep the deadline.
    ShimGone,
    Because(String),
}

fn because(error: impl ToString) -> Failure {
    Failure::Because(error.to_string())
}

/// Says where the child is. If the shim died, that fails, or ends the child by SIGPIPE: as good.
struct Voice<'a>(&'a File);

impl Voice<'_> {
    fn say(&self, message: &Message) -> Result<(), Failure> {
        message.send(self.0).map_err(|_| Failure::ShimGone)
    }

    fn begin(&self, stage: Stage) -> Result<(), Failure> {
        self.say(&Message::Stage(stage))
    }

    /// Waits a moment, but not past the shim's end: with nobody reading, the pipe is in error.
    fn pause(&self) {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, RETRY_AFTER_MS);
    }
}

fn steps(
    side: &ChildSide,
    job: &Job,
    last: Last<'_>,
    cgroup: Option<&str>,
) -> Result<Infallible, Failure> {
    let voice = Voice(&side.report);

    // 1. The gate: nothing happens before the shim has recorded who we are.
    voice.begin(Stage::WaitAtGate)?;
    (&side.gate).read_exact(&mut [0]).map_err(|_| Failure::ShimGone)?;

    // 2. The service's own control group, while we may. It is there to know what belongs to the service:
    //    no reason not to start it.
    if let Some(cgroup) = cgroup {
        voice.begin(Stage::EnterGroup)?;
        if let Err(error) = placement::enter(cgroup) {
            voice.say(&Message::Note(format!("heeler: failed to enter {cgroup}: {error}")))?;
        }
    }

    // 3. Who the user is. As root, since nobody else may be able to ask; it may hang (LDAP), which
    //    the shim's deadline ends. A name that is not found is never root.
    voice.begin(Stage::FindUser)?;
    let account = user::find(job.user.as_deref(), job.group.as_deref()).map_err(because)?;
    let changing = is_root();
    if !changing {
        refuse_others(&account)?;
    }

    // 4. Signals: an ignored or blocked one would pass the exec.
    voice.begin(Stage::ResetSignals)?;
    reset_signals().map_err(because)?;

    // 5. A session and group of its own: no terminal, no signal meant for heeler; and its number is
    //    the child's, by which the keeper knows descendants and the shim ends the group.
    voice.begin(Stage::BeginSession)?;
    new_session().map_err(because)?;

    // 6. Limits, priority, umask: while still root, since raising what was lowered needs it.
    voice.begin(Stage::ResetLimits)?;
    reset_limits().map_err(|(what, error)| because(format!("{what}: {error}")))?;

    // 7. Whatever a name service module opened goes with the exec.
    voice.begin(Stage::CloseDescriptors)?;
    close_from(3, Closing::OnExec).map_err(because)?;

    if changing {
        // 8. heeler's keys are not the command's.
        voice.begin(Stage::SeparateKeys)?;
        new_session_keyring().map_err(because)?;

        // 9. Groups, then group, then user: each needs the rights that the next gives up.
        voice.begin(Stage::BecomeUser)?;
        become_user(&account).map_err(because)?;

        // 10. Believe the kernel, not the return codes.
        voice.begin(Stage::ProveUser)?;
        prove_user(&account).map_err(because)?;
    }

    as_user(&voice, job, last, &account)
}

/// From here on every file is opened with the user's rights, and nothing is done as root.
fn as_user(
    voice: &Voice<'_>,
    job: &Job,
    last: Last<'_>,
    account: &Account,
) -> Result<Infallible, Failure> {
    // 11. The environment, from nothing.
    voice.begin(Stage::BuildEnvironment)?;
    let facts = Facts::read(account.uid);
    let file = match &job.env_file {
        Some(path) => environment::read_file(path, account.uid).map_err(because)?,
        None => Vec::new(),
    };
    let env = environment::build(account, &facts, job, &file).map_err(because)?;
    let print = |text: String| -> Result<Infallible, Failure> {
        voice.begin(Stage::Execute)?;
        std::io::stdout().write_all(text.as_bytes()).map_err(because)?;
        std::io::stdout().flush().map_err(because)?;
        exit_child(0);
    };
    match last {
        Last::Execute => {}
        Last::ShowEnvironment => return print(env.lines().map(|l| escape(&l) + "\n").collect()),
        Last::Ask(answer) => {
            return print(answer(&AsUser { job, account, facts: &facts, file: &file }));
        }
    }
    if environment::needs_user_manager(&job.command.argv)
        && let Some(hint) = environment::explain_missing_manager(account.uid, &account.name, &facts)
    {
        voice.say(&Message::Hint(hint))?;
    }

    // 12. The directory: a configured one or nothing; a home that is missing is no reason to fail.
    voice.begin(Stage::ChangeDirectory)?;
    let (directory, note) = change_directory(job, account)?;
    if let Some(note) = note {
        voice.say(&Message::Note(note))?;
    }

    // 13. The program, by the PATH the command will see.
    voice.begin(Stage::FindProgram)?;
    let program = find_program(&job.command.argv, &env, &directory)?;

    // 14. Nothing is left to do but this.
    voice.begin(Stage::Execute)?;
    Err(because(execute_or_explain(voice, &program, job, &env, account)?))
}

/// Without root there is one user heeler can run a command as: its own.
fn refuse_others(account: &Account) -> Result<(), Failure> {
    let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    if (account.uid.0, account.gid.0) == own {
        return Ok(());
    }
    Err(because(format!(
        "heeler does not run as root, so it can run commands only as its own user (uid {}, \
         gid {}), not as {} (uid {}, gid {})",
        own.0, own.1, account.name, account.uid.0, account.gid.0
    )))
}

fn change_directory(job: &Job, account: &Account) -> Result<(PathBuf, Option<String>), Failure> {
    let enter = |path: &Path| std::env::set_current_dir(path);
    if let Some(path) = job.command.cwd.as_ref().or(job.cwd.as_ref()) {
        return match enter(path) {
            Ok(()) => Ok((path.clone(), None)),
            Err(error) => Err(because(explain::directory(path, &error, &account.name))),
        };
    }
    let error = match enter(&account.home) {
        Ok(()) => return Ok((account.home.clone(), None)),
        Err(error) => explain::directory(&account.home, &error, &account.name),
    };
    enter(Path::new("/")).map_err(because)?;
    if matches!(job.kind, JobKind::Probe(_) | JobKind::Look | JobKind::Ask)
        && !account.home.exists()
    {
        // "nobody" has none, and a check's program needs none: it would be said at each run.
        return Ok(("/".into(), None));
    }
    Ok(("/".into(), Some(format!("heeler: the command ran in /, since its home failed: {error}"))))
}

/// As execvp(3) would, with the command's PATH; but a part of PATH that is not absolute is passed
/// over, so that the current directory never offers a program.
fn find_program(argv: &[Box<str>], env: &Environment, cwd: &Path) -> Result<PathBuf, Failure> {
    let name = argv.first().map(|name| &**name).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| because("the command is empty"))?;
    if name.contains('/') {
        return Ok(cwd.join(name));
    }
    let path = env.get("PATH").unwrap_or_default();
    let mut not_executable = None;
    for dir in path.split(':').filter(|dir| dir.starts_with('/')) {
        let candidate = Path::new(dir).join(name);
        if !candidate.is_file() {
            continue;
        }
        if nix::unistd::access(&candidate, nix::unistd::AccessFlags::X_OK).is_ok() {
            return Ok(candidate);
        }
        not_executable.get_or_insert(candidate);
    }
    not_executable.ok_or_else(|| {
        because(format!(
            "{} is in no directory of PATH ({}); write its whole path, or set PATH in the \
             service's env",
            escape(name),
            escape(path)
        ))
    })
}

/// Executes, or says why not. Being written to and the process limit may pass within moments.
fn execute_or_explain(
    voice: &Voice<'_>,
    program: &Path,
    job: &Job,
    env: &Environment,
    account: &Account,
) -> Result<String, Failure> {
    let nul = |_| because("an argument has a NUL byte");
    let text = |text: &str| CString::new(text).map_err(nul);
    let path = text(program.to_str().ok_or_else(|| because("the program's path is not UTF-8"))?)?;
    let argv = job.command.argv.iter().map(|arg| text(arg)).collect::<Result<Vec<_>, _>>()?;
    let env = env.lines().map(|line| text(&line)).collect::<Result<Vec<_>, _>>()?;
    let mut errno = execute(&path, &argv, &env);
    for _ in 0..RETRIES {
        if !matches!(errno, Errno::ETXTBSY | Errno::EAGAIN) {
            break;
        }
        voice.pause();
        errno = execute(&path, &argv, &env);
    }
    Ok(explain::execution(program, errno, &account.name))
}

const RETRIES: usize = 3;
const RETRY_AFTER_MS: u16 = 100;
