//! One file of conf.d: the service it defines.

use std::ops::Range;

use toml::de::DeTable;

use crate::config::check::{Checks, checks};
use crate::config::command::{self, Stop, command};
use crate::config::defaults::{COMMON_KEYS, Defaults};
use crate::config::document::{Document, Field, field, get, shorten};
use crate::config::life::life;
use crate::config::puma::{self, puma};
use crate::config::settings::Settings;
use crate::config::workers::{self, workers};
use crate::config::{Definition, LoadAs};
use crate::model::action::Action;
use crate::model::check::{Check, CheckKind};
use crate::model::ids::ServiceName;
use crate::model::limits;
use crate::model::process::{Signal, Uid};
use crate::model::service::{Command, Life, Reload, Service, Together};
use crate::model::unit::{Systemctl, Unit, Verb};
use crate::model::workers::{Kill, Workers};

/// Keys that only a service may have: who it is, and its commands.
pub(crate) const OWN_KEYS: [&str; 16] = [
    "user",
    "group",
    "unit",
    "manager",
    "pidfile",
    "match",
    "run",
    "start",
    "stop",
    "restart",
    "reload",
    "depends_on",
    "restart_with",
    "workers",
    "puma",
    "check",
];

/// Reads the service out of its table.
pub(crate) fn service(
    doc: &mut Document<'_>,
    name: &ServiceName,
    table: &DeTable<'_>,
    settings: &Settings,
    who: &LoadAs,
) -> Option<Definition> {
    puma::hide_token(doc, table);
    doc.known_keys(table, &[&OWN_KEYS[..], &COMMON_KEYS].concat(), &[], &[]);
    let user = get(doc, table, "user", |doc, at| user(doc, at, who));
    let group = get(doc, table, "group", account);
    let life = life(doc, table, settings, who);
    let [start, restart] = ["start", "restart"].map(|key| get(doc, table, key, command));
    let reload = get(doc, table, "reload", command::reload);
    let common = Defaults::read(doc, table, &settings.defaults);
    let checks = get(doc, table, "check", |doc, at| Some(checks(doc, at, common.every)));
    let puma = get(doc, table, "puma", puma);
    let workers = workers(doc, table, puma.as_ref(), who);
    let startable = ["start", "run", "unit"].iter().any(|key| table.contains_key(*key));
    if let Some(at) = checks.as_ref().and_then(|checks| checks.starts.clone())
        && !startable
    {
        let message = "there is no way to start this service";
        doc.missing(Some(at), message, "say `start`, `run` or `unit`");
    }
    if let Some(at) = checks.as_ref().and_then(|checks| checks.reloads.clone())
        && !["reload", "unit"].iter().any(|key| table.contains_key(*key))
    {
        let message = "there is no way to reload this service";
        doc.missing(Some(at), message, "say `reload`: a command, or { signal = \"HUP\" }");
    }
    let (stop, stop_signal) = ladder(doc, table, common.stop_signal);
    let checks = checks.unwrap_or_default();
    let life = life?;
    if life == Life::Nothing {
        without_process(doc, table, &checks);
    } else {
        without_workers(doc, table, &checks);
    }
    if let (Some(Workers { kill: Kill::Refused(fragile), .. }), Some(at)) =
        (&workers, checks.kills.clone())
    {
        let hint = "\"recycle worker\" tells it to go, and waits";
        doc.error(at, fragile.why(), Some(hint));
    }
    let parents = get(doc, table, "depends_on", parents).unwrap_or_default();
    let restart_with = match get(doc, table, "restart_with", Document::boolean) {
        Some(true) => Together::Yes,
        Some(false) | None => Together::No,
    };
    if parents.is_empty() {
        let hint = "say which with `depends_on`";
        doc.misplaced(table, &["restart_with"], "is about services that it needs", hint);
    }
    let of_unit = |verb| match &life {
        Life::Unit(Unit { name, manager, .. }) => {
            let call = Systemctl { manager: *manager, verb, unit: name.clone() };
            Some(Command::systemctl(call))
        }
        Life::Pidfile(_) | Life::Match(_) | Life::Run(_) | Life::Nothing => None,
    };
    let signalled = table.contains_key("stop") || table.contains_key("stop_signal");
    let start = start.or_else(|| of_unit(Verb::Start));
    let stop = stop.or_else(|| of_unit(Verb::Stop).filter(|_| !signalled));
    let reload = reload.or_else(|| of_unit(Verb::ReloadOrRestart).map(Reload::Command));
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
        depends_on: parents.iter().map(|(name, _)| name.clone()).collect(),
        restart_with,
        start_delay: common.start_delay,
        on_boot: common.on_boot,
        workers,
        puma,
        checks: checks.checks,
    };
    let parents_at = parents.into_iter().map(|(_, at)| at).collect();
    Some(Definition { service, probes: checks.probes, parents_at })
}

/// The services it needs, each with its place in the file.
fn parents(doc: &mut Document<'_>, at: Field<'_>) -> Option<Vec<(ServiceName, Range<usize>)>> {
    let items = doc.list(at, "for example: depends_on = [\"postgres\"]")?;
    let mut parents: Vec<(ServiceName, Range<usize>)> = Vec::new();
    for item in items {
        let Some(text) = doc.string(item, "postgres") else { continue };
        match ServiceName::parse(text) {
            Ok(name) if parents.iter().all(|(other, _)| *other != name) => {
                parents.push((name, item.value.span()));
            }
            Ok(_) => doc.warn(item.value.span(), "this service is named twice", None),
            Err(error) => doc.error(item.value.span(), error.to_string(), None),
        }
    }
    Some(parents)
}

/// A service without a process has nothing that could be started or stopped, or sampled.
fn without_process(doc: &mut Document<'_>, table: &DeTable<'_>, checks: &Checks) {
    let hint = "say which process it is: `unit`, `pidfile`, `match` or `run`";
    let keys = ["start", "stop", "restart", "reload", "workers", "puma"];
    doc.misplaced(table, &keys, "needs a process", hint);
    let stops = |action: &Action| matches!(action, Action::Stop);
    for check in &checks.checks {
        let span = place_of_check(table, check);
        if matches!(check.kind, CheckKind::Process | CheckKind::Worker | CheckKind::Puma) {
            doc.error(span, "there is no process that this check could look at", Some(hint));
        } else if check.then.iter().chain(&check.on_recovery).any(stops) {
            let hint = "\"unmonitor\" sets its checks aside";
            doc.error(span, "there is no process that this check could stop", Some(hint));
        }
    }
}

/// A check of workers, or of a Puma, looks at what its table says.
fn without_workers(doc: &mut Document<'_>, table: &DeTable<'_>, checks: &Checks) {
    let says = |key| table.contains_key(key);
    for check in &checks.checks {
        if check.kind == CheckKind::Worker && !says("workers") && !says("puma") {
            workers::missing(doc, place_of_check(table, check), "workers");
        }
        if check.kind == CheckKind::Puma && !says("puma") {
            workers::missing(doc, place_of_check(table, check), "puma");
        }
    }
}

fn place_of_check(table: &DeTable<'_>, check: &Check) -> Range<usize> {
    let all = table.get("check").and_then(|all| all.get_ref().as_array());
    let at = all.and_then(|all| all.get(usize::from(check.index.0)));
    at.map_or(0..0, |at| at.span())
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

/// Whose commands and processes: without root nobody's but heeler's own user's.
pub(crate) fn user(doc: &mut Document<'_>, at: Field<'_>, who: &LoadAs) -> Option<Box<str>> {
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

/// The place of a key's value, for a warning that needs more than this file.
pub(crate) fn place_of(table: &DeTable<'_>, key: &str) -> Range<usize> {
    field(table, key).map_or(0..0, |at| at.value.span())
}
