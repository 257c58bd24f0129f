//! The environment of a command: built from nothing, never inherited.
//!
//! [`Facts::read`] looks at the machine; [`build`] is pure. In this order, a later one winning:
//! HOME USER LOGNAME SHELL PATH, LANG and LC_*, XDG_RUNTIME_DIR and DBUS_SESSION_BUS_ADDRESS where
//! they are real, HEELER_*, the service's `env_file`, its `env`, the command's `env`.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::user::Account;
use crate::model::job::Job;
use crate::model::limits;
use crate::model::process::Uid;
use crate::model::text::escape;

/// Where programs are looked for unless the service's `env` says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables of a command, each name once, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Each as `NAME=value`.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(name, value)| format!("{name}={value}"))
    }

    /// Sets a variable, in the place it has or at the end.
    fn set(&mut self, name: &str, value: &str) -> Result<(), EnvironmentError> {
        if !is_name(name) {
            return Err(EnvironmentError::Name(name.to_owned()));
        }
        if value.contains('\0') {
            return Err(EnvironmentError::Nul(name.to_owned()));
        }
        match self.0.iter_mut().find(|(have, _)| have == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
        Ok(())
    }
}

/// What the machine says about the user.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// LANG and LC_* of the system, in order.
    pub locale: Vec<(String, String)>,
    /// /run/user/UID, if it is what it should be.
    pub runtime_dir: Option<PathBuf>,
    /// The user bus's socket, if it is there and theirs.
    pub bus: Option<PathBuf>,
    /// Whether the socket of the user's manager itself is there.
    pub manager: bool,
}

impl Facts {
    /// Reads them.
    #[must_use]
    pub fn read(uid: Uid) -> Self {
        let runtime_dir = PathBuf::from(format!("/run/user/{uid}"));
        // Not through a symbolic link: a directory of this very user that nobody else can enter,
        // as pam_systemd(8) makes it.
        let real = fs::symlink_metadata(&runtime_dir).is_ok_and(|meta| {
            meta.is_dir() && meta.uid() == uid.0 && meta.mode() & 0o7777 == 0o700
        });
        let bus = runtime_dir.join("bus");
        let bus_real = real
            && fs::symlink_metadata(&bus)
                .is_ok_and(|meta| meta.file_type().is_socket() && meta.uid() == uid.0);
        let manager = real && fs::symlink_metadata(runtime_dir.join("systemd/private")).is_ok();
        Self {
            manager,
            locale: system_locale(),
            runtime_dir: real.then_some(runtime_dir),
            bus: bus_real.then_some(bus),
        }
    }
}

/// Builds the environment of a job's command. `file` is what [`read_file`] gave.
///
/// # Errors
/// Names the variable that cannot be one.
pub fn build(
    account: &Account,
    facts: &Facts,
    job: &Job,
    file: &[(String, String)],
) -> Result<Environment, EnvironmentError> {
    let mut env = Environment::default();
    let text = |path: &Path| path.to_str().map(str::to_owned);
    let home = text(&account.home).ok_or(EnvironmentError::Home)?;
    env.set("HOME", &home)?;
    env.set("USER", &account.name)?;
    env.set("LOGNAME", &account.name)?;
    env.set("SHELL", &shell(account))?;
    env.set("PATH", DEFAULT_PATH)?;
    for (name, value) in &facts.locale {
        env.set(name, value)?;
    }
    if facts.locale.iter().all(|(name, _)| name != "LANG") {
        env.set("LANG", "C.UTF-8")?;
    }
    if let Some(dir) = facts.runtime_dir.as_deref().and_then(text) {
        env.set("XDG_RUNTIME_DIR", &dir)?;
    }
    if let Some(bus) = facts.bus.as_deref().and_then(text) {
        env.set("DBUS_SESSION_BUS_ADDRESS", &format!("unix:path={bus}"))?;
    }
    env.set("HEELER_SERVICE", job.service.as_str())?;
    env.set("HEELER_ACTION", job.kind.name())?;
    env.set("HEELER_REASON", &one_line(&job.reason))?;
    if let Some(pid) = job.main_pid() {
        env.set("HEELER_PID", &pid.to_string())?;
    }
    for (name, value) in file {
        env.set(name, value)?;
    }
    for (name, value) in job.env.iter().chain(&job.command.env) {
        env.set(name, value)?;
    }
    Ok(env)
}

/// The login shell, or /bin/sh where that would run nothing (`su -c` and editors use it).
fn shell(account: &Account) -> String {
    let shell = account.shell.to_str().unwrap_or_default();
    match shell.rsplit('/').next() {
        None | Some("" | "nologin" | "false" | "true" | "sync") => "/bin/sh".to_owned(),
        Some(_) => shell.to_owned(),
    }
}

/// One escaped line of at most 1 KiB: scripts put it into logs and mails.
fn one_line(text: &str) -> String {
    let mut line = escape(text);
    let end = (0..=line.len().min(limits::UNTRUSTED_BYTES_MAX))
        .rev()
        .find(|end| line.is_char_boundary(*end));
    line.truncate(end.unwrap_or(0));
    line
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Where the system's locale is: Debian's file, then everybody else's (locale.conf(5)).
fn system_locale() -> Vec<(String, String)> {
    for path in ["/etc/default/locale", "/etc/locale.conf"] {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| {
            file.take(limits::ENV_FILE_BYTES_MAX as u64).read_to_string(&mut text)
        });
        if read.is_ok() {
            return locale_lines(&text);
        }
    }
    Vec::new()
}

/// Of the system's file only what names a locale counts; a line that is not one is passed over,
/// since the file is not heeler's and a command must not fail for it.
fn locale_lines(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| parse_line(line).ok().flatten())
        .filter(|(name, _)| name == "LANG" || name.starts_with("LC_"))
        .collect()
}

/// Reads a service's `env_file`, as the user: whoever calls this has become the user before.
///
/// The file is `NAME=value` lines; blank lines and lines with `#` first are passed over; a value
/// may stand in single or double quotes, which are taken off; nothing else is expanded.
///
/// # Errors
/// When it cannot be opened, is not a plain file, is not root's or the user's own, can be written
/// by everybody, is too long, or has a line that is no variable (its number is named).
pub fn read_file(path: &Path, uid: Uid) -> Result<Vec<(String, String)>, EnvironmentError> {
    let fail = |why: String| EnvironmentError::File(path.to_owned(), why);
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| fail(error.to_string()))?;
    let meta = file.metadata().map_err(|error| fail(error.to_string()))?;
    if !meta.is_file() {
        return Err(fail("it is not a regular file".to_owned()));
    }
    if meta.uid() != 0 && meta.uid() != uid.0 {
        return Err(fail(format!("it belongs to uid {}, not to root or the user", meta.uid())));
    }
    if meta.mode() & 0o002 != 0 {
        return Err(fail("everybody can write it; chmod o-w it".to_owned()));
    }
    let mut bytes = Vec::new();
    let max = limits::ENV_FILE_BYTES_MAX;
    file.by_ref()
        .take(max as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fail(error.to_string()))?;
    if bytes.len() > max {
        return Err(fail(format!("it is longer than {max} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| fail("it is not UTF-8 text".to_owned()))?;
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        match parse_line(line) {
            Ok(Some(variable)) => found.push(variable),
            Ok(None) => {}
            Err(()) => return Err(fail(format!("line {number} is not NAME=value"))),
        }
    }
    Ok(found)
}

fn parse_line(line: &str) -> Result<Option<(String, String)>, ()> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').ok_or(())?;
    if !is_name(name) || value.contains('\0') {
        return Err(());
    }
    let quoted = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    Ok(Some((name.to_owned(), value.to_owned())))
}

/// Why there is no environment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EnvironmentError {
    /// Not a name.
    Name(String),
    /// A value with a NUL byte; whose.
    Nul(String),
    /// The home directory's path is not text.
    Home,
    /// The `env_file`, and what is wrong with it.
    File(PathBuf, String),
}

impl fmt::Display for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "{} is not a variable's name: letters, digits and _, no digit first",
                escape(name)
            ),
            Self::Nul(name) => write!(f, "the value of {name} has a NUL byte"),
            Self::Home => f.write_str("the path of the user's home directory is not UTF-8 text"),
            Self::File(path, why) => {
                write!(f, "env_file {}: {}", escape(&path.to_string_lossy()), escape(why))
            }
        }
    }
}

/// Whether a command line talks to the caller's own user manager.
#[must_use]
pub fn needs_user_manager(argv: &[Box<str>]) -> bool {
    const CLIENTS: [&str; 3] = ["systemctl", "systemd-run", "journalctl"];
    let client = |word: &str| word.rsplit('/').next().is_some_and(|name| CLIENTS.contains(&name));
    // Directly, or as the text of a shell's -c.
    let direct = argv.first().is_some_and(|program| client(program))
        && argv.iter().any(|arg| &**arg == "--user");
    let in_shell = || {
        argv.iter().any(|arg| {
            let mut words = arg.split_ascii_whitespace();
            words.by_ref().any(client) && words.any(|word| word == "--user")
        })
    };
    direct || in_shell()
}

/// What is missing when a command that needs the user's manager failed; `None` when nothing is.
#[must_use]
pub fn explain_missing_manager(uid: Uid, user: &str, facts: &Facts) -> Option<String> {
    if facts.runtime_dir.is_some() && !facts.manager && facts.bus.is_none() {
        return Some(format!(
            "heeler: {user} has no running user manager: /run/user/{uid} is there but neither \
             systemd/private nor bus in it; `systemctl restart user@{uid}` starts it, and \
             `loginctl enable-linger {user}` keeps it"
        ));
    }
    facts.runtime_dir.is_none().then(|| {
        format!(
            "heeler: {user} has no running user manager: /run/user/{uid} is missing (or is not \
             {user}'s own with mode 0700), so systemctl --user has nobody to talk to; \
             `loginctl enable-linger {user}` makes it, now and at every boot"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{ActionId, ServiceName};
    use crate::model::job::{AtDeadline, JobKind};
    use crate::model::process::Gid;
    use crate::model::service::Command;
    use crate::model::time::Mono;

    fn account(shell: &str) -> Account {
        Account {
            name: "deploy".into(),
            uid: Uid(1500),
            gid: Gid(1500),
            groups: vec![Gid(1500)],
            home: "/home/deploy".into(),
            shell: shell.into(),
        }
    }

    fn job(env: &[(&str, &str)], command_env: &[(&str, &str)]) -> Job {
        let boxed = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        Job {
            action: ActionId(1),
            service: ServiceName::parse("shop").expect("a name"),
            kind: JobKind::Start,
            command: Command {
                systemctl: None,
                argv: vec!["true".into()],
                timeout: None,
                env: boxed(command_env),
                cwd: None,
            },
            user: None,
            group: None,
            env: boxed(env),
            env_file: None,
            cwd: None,
            deadline: Mono::NEVER,
            reason: "memory\nBcc: x".into(),
            main: None,
            at_deadline: AtDeadline::DirectChild,
            input: None,
        }
    }

    fn shown(env: &Environment) -> Vec<String> {
        env.lines().collect()
    }

    #[test]
    fn it_is_exactly_the_table() {
        let facts = Facts {
            locale: locale_lines(
                "# system\nLANG=\"de_DE.UTF-8\"\nLC_TIME=C\nLANGUAGE=de\nPATH=/evil",
            ),
            runtime_dir: Some("/run/user/1500".into()),
            bus: Some("/run/user/1500/bus".into()),
            manager: true,
        };
        let env = build(&account("/bin/bash"), &facts, &job(&[], &[]), &[]).expect("build");
        assert_eq!(
            shown(&env),
            [
                "HOME=/home/deploy",
                "USER=deploy",
                "LOGNAME=deploy",
                "SHELL=/bin/bash",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG=de_DE.UTF-8",
                "LC_TIME=C",
                "XDG_RUNTIME_DIR=/run/user/1500",
                "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1500/bus",
                "HEELER_SERVICE=shop",
                "HEELER_ACTION=start",
                "HEELER_REASON=memory\\nBcc: x",
            ]
        );
    }

    #[test]
    fn the_later_wins_in_its_first_place() {
        let file = [("PATH".to_owned(), "/file".to_owned()), ("A".to_owned(), "file".to_owned())];
        let job = job(&[("A", "service"), ("B", "service")], &[("B", "command")]);
        let env = build(&account(""), &Facts::default(), &job, &file).expect("build");
        assert_eq!(env.get("PATH"), Some("/file"));
        assert_eq!(env.get("A"), Some("service"));
        assert_eq!(env.get("B"), Some("command"));
        assert_eq!(env.get("LANG"), Some("C.UTF-8"));
        assert_eq!(shown(&env).iter().filter(|line| line.starts_with("PATH=")).count(), 1);
    }

    #[test]
    fn a_shell_that_runs_nothing_is_not_handed_on() {
        for useless in ["", "/usr/sbin/nologin", "/bin/false", "/sbin/nologin"] {
            assert_eq!(shell(&account(useless)), "/bin/sh", "{useless}");
        }
        assert_eq!(shell(&account("/usr/bin/zsh")), "/usr/bin/zsh");
    }

    #[test]
    fn what_cannot_be_a_variable_is_refused_by_name() {
        for bad in ["", "1A", "A-B", "A B", "A=B", "Ä"] {
            let built = build(&account(""), &Facts::default(), &job(&[(bad, "x")], &[]), &[]);
            assert_eq!(built, Err(EnvironmentError::Name(bad.to_owned())), "{bad:?}");
        }
        let built = build(&account(""), &Facts::default(), &job(&[("A", "x\0y")], &[]), &[]);
        assert_eq!(built, Err(EnvironmentError::Nul("A".to_owned())));
    }

    #[test]
    fn an_env_file_is_read_or_refused_without_showing_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("env");
        let uid = Uid(nix::unistd::geteuid().as_raw());
        fs::write(&path, "# secrets\n\nA=1\nB=\"two words\"\nC='x=y'\n  D=\r\n").expect("write");
        let read = read_file(&path, uid).expect("read");
        let read: Vec<_> = read.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(read, [("A", "1"), ("B", "two words"), ("C", "x=y"), ("D", "")]);
        fs::write(&path, "A=1\nhunter2 password\n").expect("write");
        let error = read_file(&path, uid).expect_err("line 2 is no variable").to_string();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
        assert!(read_file(dir.path(), uid).is_err(), "a directory");
        assert!(read_file(Path::new("/dev/zero"), uid).is_err(), "a device");
    }

    #[test]
    fn a_command_for_the_user_manager_is_known_and_its_absence_explained() {
        let argv = |words: &[&str]| words.iter().map(|word| Box::from(*word)).collect::<Vec<_>>();
        for yes in [
            &["systemctl", "--user", "start", "x"][..],
            &["/usr/bin/systemd-run", "--user", "true"],
            &["bash", "-lc", "exec systemctl --user restart puma"],
        ] {
            assert!(needs_user_manager(&argv(yes)), "{yes:?}");
        }
        for no in [&["systemctl", "start", "x"][..], &["useradd", "--user"], &["echo", "--user"]] {
            assert!(!needs_user_manager(&argv(no)), "{no:?}");
        }
        let text =
            explain_missing_manager(Uid(1500), "deploy", &Facts::default()).expect("missing");
        assert!(text.contains("/run/user/1500") && text.contains("loginctl enable-linger deploy"));
        let mut there = Facts { runtime_dir: Some("/run/user/1500".into()), ..Facts::default() };
        let text = explain_missing_manager(Uid(1500), "deploy", &there).expect("nobody listens");
        assert!(text.contains("systemctl restart user@1500"));
        there.manager = true;
        assert_eq!(explain_missing_manager(Uid(1500), "deploy", &there), None);
    }
}
