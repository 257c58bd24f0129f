//! One file of conf.d: the service it defines.

use std::ops::Range;
use std::path::{Path, PathBuf};

use regex::RegexBuilder;
use toml::de::DeTable;

use crate::config::check::{Checks, checks};
use crate::config::command::{self, Stop, command};
use crate::config::defaults::{COMMON_KEYS, Defaults};
use crate::config::document::{Document, Field, field, get, shorten};
use crate::config::error::nearest;
use crate::config::settings::Settings;
use crate::config::{Definition, LoadAs};
use crate::model::action::Action;
use crate::model::check::CheckKind;
use crate::model::ids::ServiceName;
use crate::model::limits;
use crate::model::process::{Signal, Uid};
use crate::model::service::{Command, Life, Service};

/// Keys that only a service may have: who it is, and its commands.
pub(crate) const OWN_KEYS: [&str; 10] =
    ["user", "group", "pidfile", "match", "run", "start", "stop", "restart", "reload", "check"];
/// Keys of later versions, and what to do until then.
pub(crate) const LATER_KEYS: [(&str, &str); 7] = [
    (
        "unit",
        "say start = \"systemctl --user start NAME\", the same for stop and restart, and a pidfile",
    ),
    (
        "manager",
        "say start = \"systemctl start NAME\", the same for stop and restart, and a pidfile",
    ),
    ("depends_on", "leave it out; each service is watched by itself"),
    ("start_delay", "leave it out; `start_period` holds actions back after a start"),
    ("on_boot", "leave it out; a service is wanted up unless an operator stopped it"),
    ("workers", "leave it out; a [[check]] can look at the main process"),
    ("puma", "leave it out; name Puma's pidfile with `pidfile`"),
];

/// Reads the service out of its table.
pub(crate) fn service(
    doc: &mut Document<'_>,
    name: &ServiceName,
    table: &DeTable<'_>,
    settings: &Settings,
    who: &LoadAs,
) -> Option<Definition> {
    doc.known_keys(table, &[&OWN_KEYS[..], &COMMON_KEYS].concat(), &[], &LATER_KEYS);
    let user = get(doc, table, "user", |doc, at| user(doc, at, who));
    let group = get(doc, table, "group", account);
    let life = life(doc, table, settings);
    let [start, restart] = ["start", "restart"].map(|key| get(doc, table, key, command));
    let reload = get(doc, table, "reload", command::reload);
    let common = Defaults::read(doc, table, &settings.defaults);
    let checks = get(doc, table, "check", |doc, at| Some(checks(doc, at, common.every)));
    let startable = ["start", "run"].iter().any(|key| table.contains_key(*key));
    if let Some(at) = checks.as_ref().and_then(|checks| checks.starts.clone())
        && !startable
    {
        let message = "there is no way to start this service";
        doc.missing(Some(at), message, "say `start`, or `run`");
    }
    if let Some(at) = checks.as_ref().and_then(|checks| checks.reloads.clone())
        && !table.contains_key("reload")
    {
        let message = "there is no way to reload this service";
        doc.missing(Some(at), message, "say `reload`: a command, or { signal = \"HUP\" }");
    }
    let (stop, stop_signal) = ladder(doc, table, common.stop_signal);
    let checks = checks.unwrap_or(Checks::default());
    let life = life?;
    if life == Life::Nothing {
        without_process(doc, table, &checks);
    }
    let service = Service {
        name: name.clone(),
        user,
        group,
        groups: common.groups,
        life,
        start,
        stop,
        restart,
        reload,
        stop_signal,
        env: common.env,
        env_file: common.env_file,
        cwd: common.cwd,
        every: common.every,
        alert: common.alert,
        allow: common.allow,
        mode: common.mode,
        start_timeout: common.start_timeout,
        stop_timeout: common.stop_timeout,
        start_period: common.start_period,
        exit_delay: common.exit_delay,
        start_limit: common.start_limit,
        backoff: common.backoff,
        remind: common.remind,
        checks: checks.checks,
    };
    Some(Definition { service, probes: checks.probes })
}

/// A service without a process has nothing that could be started or stopped, or sampled.
fn without_process(doc: &mut Document<'_>, table: &DeTable<'_>, checks: &Checks) {
    let hint = "say which process it is: `pidfile`, `match` or `run`";
    doc.misplaced(table, &["start", "stop", "restart", "reload"], "needs a process", hint);
    let stops = |action: &Action| matches!(action, Action::Stop);
    for check in &checks.checks {
        let at = table.get("check").and_then(|all| all.get_ref().as_array());
        let at = at.and_then(|all| all.get(usize::from(check.index.0)));
        let span = at.map_or(0..0, |at| at.span());
        if check.kind == CheckKind::Process {
            doc.error(span, "there is no process that this check could look at", Some(hint));
        } else if check.then.iter().chain(&check.on_recovery).any(stops) {
            let hint = "\"unmonitor\" sets its checks aside";
            doc.error(span, "there is no process that this check could stop", Some(hint));
        }
    }
}

/// The stop command and the first signal of the ladder.
fn ladder(
    doc: &mut Document<'_>,
    table: &DeTable<'_>,
    common: Signal,
) -> (Option<Command>, Signal) {
    match get(doc, table, "stop", command::stop) {
        Some(Stop::Signal(signal)) => {
            if let Some(at) = field(table, "stop_signal") {
                let message = "`stop` names a signal already";
                doc.error(at.value.span(), message, Some("keep one of the two"));
            }
            (None, signal)
        }
        Some(Stop::Command(command)) => (Some(command), common),
        None => (None, common),
    }
}

fn user(doc: &mut Document<'_>, at: Field<'_>, who: &LoadAs) -> Option<Box<str>> {
    let name = account(doc, at)?;
    let own = who.user.as_deref() == Some(&*name) || name.parse() == Ok(who.uid.0);
    if who.uid != Uid(0) && !own {
        let message = format!("only root can run commands as `{name}`");
        let hint = "heeler runs as another user here: leave `user` out, or run heeler as root";
        doc.error(at.value.span(), message, Some(hint));
        return None;
    }
    Some(name)
}

/// The name of a user or group. Whether there is one is known when it is used.
pub(crate) fn account(doc: &mut Document<'_>, at: Field<'_>) -> Option<Box<str>> {
    let name = doc.string(at, "deploy")?;
    let bad = |c: char| c.is_whitespace() || c.is_control() || "/:,%".contains(c);
    if name.len() > limits::NAME_BYTES_MAX || name.contains(bad) || name.starts_with('-') {
        doc.error(
            at.value.span(),
            format!("`{}` is not the name of a {}", shorten(name), at.key),
            None,
        );
        return None;
    }
    Some(name.into())
}

const LIVES: [&str; 3] = ["pidfile", "match", "run"];

/// Which process it is: exactly one of `pidfile`, `match` and `run`.
fn life(doc: &mut Document<'_>, table: &DeTable<'_>, settings: &Settings) -> Option<Life> {
    let misspelt = |name: &str| !OWN_KEYS.contains(&name) && nearest(name, LIVES).is_some();
    let mut names = table.keys().take(limits::CONFIG_FINDINGS_MAX).map(|key| key.get_ref());
    let said = LIVES.iter().any(|key| table.contains_key(*key));
    if !said && !names.any(|name| misspelt(name)) {
        if table.contains_key("check") && !table.contains_key("start") {
            return Some(Life::Nothing);
        }
        let hint = "say `pidfile`, `match` or `run`; \
                    without a process there has to be a [[check]] of something else";
        doc.missing(None, "nothing says which process this service is", hint);
    }
    let says = |key| table.contains_key(key);
    let (by, excluded, hint): (_, &[&str], _) = match (says("run"), says("pidfile")) {
        (true, _) => (
            "run",
            &["pidfile", "match", "start", "restart"],
            "with `run` heeler itself starts the program and knows its process",
        ),
        (false, true) => ("pidfile", &["match"], "keep the pidfile: it names one process"),
        (false, false) => ("match", &[], ""),
    };
    doc.misplaced(table, excluded, &format!("cannot be together with `{by}`"), hint);
    let run = get(doc, table, "run", command);
    if let (Some(command), Some(at)) = (&run, field(table, "run"))
        && is_heeler(command)
    {
        doc.error(at.value.span(), MANAGES_ITSELF, Some(UNDER_SYSTEMD));
    }
    let pidfile = get(doc, table, "pidfile", |doc, at| pidfile(doc, at, settings));
    let pattern = get(doc, table, "match", pattern);
    run.map(Life::Run).or_else(|| pidfile.map(Life::Pidfile)).or_else(|| pattern.map(Life::Match))
}

const MANAGES_ITSELF: &str = "this would make heeler manage itself";
const UNDER_SYSTEMD: &str = "let systemd keep heeler: a unit with Restart=always";

fn is_heeler(command: &Command) -> bool {
    let program = command.argv.first().map(|word| Path::new(&**word));
    let named = program.and_then(Path::file_name).is_some_and(|name| name == "heeler");
    named && command.argv.get(1).is_some_and(|word| &**word == "run")
}

fn pidfile(doc: &mut Document<'_>, at: Field<'_>, settings: &Settings) -> Option<PathBuf> {
    let path = doc.path(at)?;
    if settings.owns(&path) || path.file_name().is_some_and(|name| name == "heeler.pid") {
        doc.error(at.value.span(), MANAGES_ITSELF, Some(UNDER_SYSTEMD));
        return None;
    }
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        doc.error(at.value.span(), "`pidfile` names a directory", None);
        return None;
    }
    Some(path)
}

fn pattern(doc: &mut Document<'_>, at: Field<'_>) -> Option<Box<str>> {
    let text = doc.string(at, "^puma .*shop")?;
    if text.len() > limits::PATTERN_BYTES_MAX {
        let message = format!("`match` is longer than {} bytes", limits::PATTERN_BYTES_MAX);
        doc.error(at.value.span(), message, None);
        return None;
    }
    // Compiled only to know that it can be: what is held is the text.
    match RegexBuilder::new(text).size_limit(limits::REGEX_BYTES_MAX).build() {
        Ok(regex) if OWN_TITLES.iter().any(|title| regex.is_match(title)) => {
            let message = "this pattern matches heeler itself";
            let hint = "say more of the title, for example with ^ where it begins";
            doc.error(at.value.span(), message, Some(hint));
            None
        }
        Ok(_) => Some(text.into()),
        Err(regex::Error::CompiledTooBig(_)) => {
            let message = "this regular expression is too large when compiled";
            doc.error(at.value.span(), message, Some("use smaller repetitions"));
            None
        }
        Err(error) => {
            let all = error.to_string();
            let why =
                all.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            doc.error(
                at.value.span(),
                format!("this is not a regular expression: {}", shorten(&why)),
                None,
            );
            None
        }
    }
}

const OWN_TITLES: [&str; 4] = [
    "heeler run",
    "/usr/bin/heeler run /etc/heeler/conf.d",
    "/usr/local/bin/heeler run conf.d",
    "heeler shim",
];

/// The place of a key's value, for a warning that needs more than this file.
pub(crate) fn place_of(table: &DeTable<'_>, key: &str) -> Range<usize> {
    field(table, key).map_or(0..0, |at| at.value.span())
}
