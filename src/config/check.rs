//! `[[check]]`: if / for / then.

use std::ops::Range;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::checks::{self, CheckType, Probe, Unsaid};
use crate::config::command::command;
use crate::config::document::{Document, Field, Value, field, get, shorten};
use crate::config::error::nearest;
use crate::config::probe::probe;
use crate::model::action::Action;
use crate::model::check::{Check, CheckKind};
use crate::model::condition::Condition;
use crate::model::ids::CheckIndex;
use crate::model::limits;
use crate::model::metric::Metric;
use crate::model::text::escape;
use crate::model::tolerance::Tolerance;

/// The checks of a service, and where one of them wants it started.
#[derive(Default)]
pub(crate) struct Checks {
    pub(crate) checks: Vec<Check>,
    /// What probes each of them.
    pub(crate) probes: Vec<Probe>,
    /// The first `start` or `restart`.
    pub(crate) starts: Option<Range<usize>>,
    /// The first `reload`.
    pub(crate) reloads: Option<Range<usize>>,
    /// The first "kill worker".
    pub(crate) kills: Option<Range<usize>>,
}

const KEYS: [&str; 9] = ["type", "name", "if", "for", "recover", "then", "else", "every", "repeat"];
/// What people call a type that has another name here.
const OTHER_NAMES: [(&str, &str); 10] = [
    ("tcp", "port"),
    ("udp", "port"),
    ("unix", "port"),
    ("socket", "port"),
    ("https", "http"),
    ("ping", "host"),
    ("icmp", "host"),
    ("content", "file"),
    ("cert", "certificate"),
    ("disk", "filesystem"),
];
const ACTIONS: [&str; 8] =
    ["alert", "start", "stop", "restart", "reload", "recycle worker", "kill worker", "unmonitor"];
const LABEL_BYTES_MAX: usize = 64;

/// Reads the value of `check`. `every` is the service's.
pub(crate) fn checks(doc: &mut Document<'_>, at: Field<'_>, every: Duration) -> Checks {
    let mut out = Checks::default();
    let hint = "each check is a table of its own, headed [[check]]";
    for (index, item) in (0..).zip(doc.list(at, hint).unwrap_or_default()) {
        if usize::from(index) >= limits::CHECKS_PER_SERVICE_MAX {
            let message =
                format!("more than {} checks in one service", limits::CHECKS_PER_SERVICE_MAX);
            doc.error(item.value.span(), message, Some("split it into two services"));
            break;
        }
        let Some(table) = doc.table(item, hint) else {
            continue;
        };
        let Some((check, probe)) =
            check(doc, item.value, table, CheckIndex(index), every, &mut out)
        else {
            continue;
        };
        let named = field(table, "name")
            .filter(|_| out.checks.iter().any(|other| other.label == check.label));
        if let Some(name) = named {
            doc.error(
                name.value.span(),
                format!("another check is named `{}` already", check.label),
                None,
            );
        }
        out.checks.push(check);
        out.probes.push(probe);
    }
    out
}

fn check(
    doc: &mut Document<'_>,
    whole: &Value<'_>,
    table: &DeTable<'_>,
    index: CheckIndex,
    every: Duration,
    found: &mut Checks,
) -> Option<(Check, Probe)> {
    let kind = match field(table, "type") {
        Some(at) => kind(doc, at)?,
        None => CheckKind::Process,
    };
    let of = checks::of(kind);
    // These look at what was asked for all checks of the service at once.
    let timed = !matches!(kind, CheckKind::Process | CheckKind::Worker | CheckKind::Puma);
    let own = of.keys.iter().map(|key| key.name).chain(timed.then_some("timeout"));
    doc.known_keys(table, &KEYS.into_iter().chain(own).collect::<Vec<_>>(), &[], &[]);
    let condition = condition(doc, whole, table, &of);
    let probe = probe(doc, whole, table, &of);
    let timeout = get(doc, table, "timeout", timeout).unwrap_or(of.timeout);
    let [tolerance, recover] =
        ["for", "recover"].map(|key| get(doc, table, key, tolerance).unwrap_or(Tolerance::ONCE));
    let then = get(doc, table, "then", |doc, at| actions(doc, at, found))
        .unwrap_or_else(|| vec![Action::Alert]);
    let on_recovery =
        get(doc, table, "else", |doc, at| actions(doc, at, found)).unwrap_or_default();
    let every =
        get(doc, table, "every", |doc, at| doc.duration(at, limits::EVERY_MIN)).unwrap_or(every);
    let repeat = get(doc, table, "repeat", |doc, at| doc.duration(at, limits::SPAN_MIN));
    let of_worker = |action: &Action| matches!(action, Action::RecycleWorker | Action::KillWorker);
    if let Some(at) = ["then", "else"].iter().find_map(|key| field(table, key))
        && kind != CheckKind::Worker
        && then.iter().chain(&on_recovery).any(of_worker)
    {
        let hint = "a worker is judged by a check with type = \"worker\"";
        doc.error(at.value.span(), "this check does not say which worker", Some(hint));
    }
    if let Some(at) = field(table, "repeat")
        && !then.iter().any(|action| matches!(action, Action::Alert | Action::Exec(_)))
    {
        let hint =
            "`repeat` is for alert and exec; start and restart repeat by themselves while it fires";
        doc.warn(at.value.span(), "there is nothing to repeat", Some(hint));
    }
    let name = get(doc, table, "name", label);
    let condition = condition?;
    let label = name.unwrap_or_else(|| format!("{}: {condition}", kind.name()).into());
    let check = Check {
        index,
        label,
        kind,
        condition,
        tolerance,
        recover,
        then,
        on_recovery,
        every,
        timeout,
        repeat,
    };
    Some((check, probe?))
}

/// How long a probe may take.
fn timeout(doc: &mut Document<'_>, at: Field<'_>) -> Option<Duration> {
    let span = doc.duration(at, limits::SPAN_MIN)?;
    if span > limits::PROBE_TIMEOUT_MAX {
        let most = crate::model::units::show_duration(limits::PROBE_TIMEOUT_MAX);
        doc.error(at.value.span(), format!("`timeout` is at most {most}"), None);
        return None;
    }
    Some(span)
}

fn kind(doc: &mut Document<'_>, at: Field<'_>) -> Option<CheckKind> {
    let text = at.value.get_ref().as_str().unwrap_or_default();
    if let Some((_, name)) = OTHER_NAMES.iter().find(|(other, _)| *other == text) {
        let message = format!("`{text}` is not a type of check");
        doc.error(at.value.span(), message, Some(&format!("it is called `{name}` here")));
        return None;
    }
    let names = CheckKind::ALL.map(CheckKind::name);
    let word = doc.word(at, "a type of check", &names)?;
    CheckKind::ALL.into_iter().find(|kind| kind.name() == word)
}

fn condition(
    doc: &mut Document<'_>,
    whole: &Value<'_>,
    table: &DeTable<'_>,
    of: &CheckType,
) -> Option<Condition> {
    const EXAMPLE: &str = "memory > 650MiB";
    let declared = &(of.metrics)();
    let of_process = declared.contains(&Metric::Memory);
    let Some(at) = field(table, "if") else {
        if of.unsaid == Unsaid::Failed {
            return Some(Condition::FAILED);
        }
        if !of_process {
            let first = declared.first();
            let like =
                first.map(|metric| format!("{} > {}", metric.name(), metric.unit().example()));
            let hint = format!("for example: if = {:?}", like.unwrap_or_default());
            doc.missing(Some(whole.span()), "this check does not say `if`", &hint);
            return None;
        }
        let message = "this check does not say `if`";
        let hint = format!(
            "for example: if = {EXAMPLE:?}; that the process is alive is watched without a check"
        );
        doc.missing(Some(whole.span()), message, &hint);
        return None;
    };
    let text = doc.string(at, EXAMPLE)?;
    match Condition::parse(text, declared) {
        Ok(condition) if of_process && condition.metrics().is_empty() => {
            let message = "this condition looks at nothing of the process";
            doc.error(at.value.span(), message, Some(&format!("for example: if = {EXAMPLE:?}")));
            None
        }
        Ok(condition) => Some(condition),
        Err(error) => {
            let word = text.get(error.span.clone()).unwrap_or_default();
            let near = nearest(word, declared.iter().map(|metric| metric.name()));
            let hint =
                near.filter(|near| *near != word).map(|near| format!("did you mean `{near}`?"));
            let place = doc.within(at.value, &error.span);
            // What a value should be is in the hint.
            let message = error.message.split("; write").next().unwrap_or_default();
            doc.error(place, escape(message), hint.or(error.hint).as_deref());
            None
        }
    }
}

fn tolerance(doc: &mut Document<'_>, at: Field<'_>) -> Option<Tolerance> {
    let text = doc.string(at, "3 of 5")?;
    match Tolerance::parse(text) {
        Ok(tolerance) => Some(tolerance),
        Err(message) => {
            doc.error(
                at.value.span(),
                format!("`{}` is not a tolerance", shorten(text)),
                Some(&message),
            );
            None
        }
    }
}

fn label(doc: &mut Document<'_>, at: Field<'_>) -> Option<Box<str>> {
    let text = doc.string(at, "memory is high")?;
    if text.len() > LABEL_BYTES_MAX || text.chars().any(char::is_control) {
        let message = format!("a name is one line of at most {LABEL_BYTES_MAX} bytes");
        doc.error(at.value.span(), message, None);
        return None;
    }
    Some(text.into())
}

/// `then` and `else`: one action or a list.
fn actions(doc: &mut Document<'_>, at: Field<'_>, found: &mut Checks) -> Option<Vec<Action>> {
    let items = match at.value.get_ref() {
        DeValue::Array(_) => doc.list(at, "")?,
        DeValue::String(_) | DeValue::Table(_) => vec![at],
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            doc.expected(
                "an action or a list of them",
                at,
                Some("for example: then = \"restart\""),
            );
            return None;
        }
    };
    if items.is_empty() {
        doc.error(at.value.span(), format!("`{}` names no action", at.key), Some("leave it out"));
    }
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        let Some(action) = action(doc, item) else {
            continue;
        };
        match action {
            Action::Start | Action::Restart => {
                found.starts.get_or_insert_with(|| item.value.span());
            }
            Action::Reload => {
                found.reloads.get_or_insert_with(|| item.value.span());
            }
            Action::KillWorker => {
                found.kills.get_or_insert_with(|| item.value.span());
            }
            Action::RecycleWorker
            | Action::Alert
            | Action::Stop
            | Action::Exec(_)
            | Action::Unmonitor => {}
        }
        out.push(action);
    }
    Some(out)
}

fn action(doc: &mut Document<'_>, at: Field<'_>) -> Option<Action> {
    if let Some(table) = at.value.get_ref().as_table() {
        doc.known_keys(table, &["exec"], &[], &[]);
        return get(doc, table, "exec", command).map(Action::Exec);
    }
    let text = at.value.get_ref().as_str().unwrap_or_default();
    if text == "exec" || text.starts_with("exec ") {
        let hint = format!("for example: {} = {{ exec = \"/usr/bin/program\" }}", at.key);
        doc.error(at.value.span(), "`exec` needs its command in a table", Some(&hint));
        return None;
    }
    match doc.word(at, "an action", &ACTIONS)?.as_str() {
        "start" => Some(Action::Start),
        "stop" => Some(Action::Stop),
        "restart" => Some(Action::Restart),
        "reload" => Some(Action::Reload),
        "recycle worker" => Some(Action::RecycleWorker),
        "kill worker" => Some(Action::KillWorker),
        "unmonitor" => Some(Action::Unmonitor),
        _ => Some(Action::Alert),
    }
}
