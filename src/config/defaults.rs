//! The keys that a service and `[defaults]` have in common.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use crate::config::command::{self, env};
use crate::config::document::{Document, Field, get, shorten};
use crate::model::ids::GroupName;
use crate::model::limits;
use crate::model::process::Signal;
use crate::model::service::{Backoff, Grant, Grantee, Mode, OnBoot, Right, StartLimit};
use crate::model::units;

/// What `[defaults]` may say for every service.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    missing_docs,
    reason = "each is the key of its name, described in `model::service::Service`"
)]
pub struct Defaults {
    pub groups: Vec<GroupName>,
    pub stop_signal: Signal,
    pub env: Vec<(Box<str>, Box<str>)>,
    pub env_file: Option<PathBuf>,
    pub cwd: Option<PathBuf>,
    pub every: Duration,
    pub alert: Vec<Box<str>>,
    pub allow: Vec<Grant>,
    pub mode: Mode,
    pub start_timeout: Duration,
    pub stop_timeout: Duration,
    pub start_period: Duration,
    pub exit_delay: Duration,
    pub start_limit: StartLimit,
    pub backoff: Backoff,
    pub remind: Duration,
    pub start_delay: Duration,
    pub on_boot: OnBoot,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            stop_signal: Signal::Term,
            env: Vec::new(),
            env_file: None,
            cwd: None,
            every: Duration::from_secs(10),
            alert: Vec::new(),
            allow: Vec::new(),
            mode: Mode::Active,
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(30),
            start_period: Duration::from_secs(60),
            exit_delay: Duration::from_secs(5),
            start_limit: StartLimit { starts: 5, window: Duration::from_secs(10 * 60) },
            backoff: Backoff { first: Duration::from_secs(30), last: Duration::from_secs(30 * 60) },
            remind: Duration::from_secs(4 * 3600),
            start_delay: Duration::ZERO,
            on_boot: OnBoot::Last,
        }
    }
}

/// Keys that `[defaults]` may have too.
pub(crate) const COMMON_KEYS: [&str; 18] = [
    "groups",
    "stop_signal",
    "env",
    "env_file",
    "cwd",
    "every",
    "alert",
    "allow",
    "mode",
    "start_timeout",
    "stop_timeout",
    "start_period",
    "exit_delay",
    "start_limit",
    "backoff",
    "remind",
    "start_delay",
    "on_boot",
];
impl Defaults {
    /// Reads the common keys of a table over those of `base`.
    pub(crate) fn read(doc: &mut Document<'_>, table: &DeTable<'_>, base: &Self) -> Self {
        let mut out = base.clone();
        set(&mut out.groups, get(doc, table, "groups", groups));
        set(&mut out.stop_signal, get(doc, table, "stop_signal", command::signal));
        out.env.extend(get(doc, table, "env", env).unwrap_or_default());
        out.env_file = get(doc, table, "env_file", Document::path).or(out.env_file);
        out.cwd = get(doc, table, "cwd", Document::path).or(out.cwd);
        set(&mut out.alert, get(doc, table, "alert", addresses));
        set(&mut out.allow, get(doc, table, "allow", allow));
        set(&mut out.mode, get(doc, table, "mode", mode));
        set(&mut out.on_boot, get(doc, table, "on_boot", on_boot));
        set(&mut out.start_limit, get(doc, table, "start_limit", start_limit));
        set(&mut out.backoff, get(doc, table, "backoff", backoff));
        let spans = [
            (&mut out.every, "every", limits::EVERY_MIN),
            (&mut out.start_timeout, "start_timeout", limits::SPAN_MIN),
            (&mut out.stop_timeout, "stop_timeout", limits::SPAN_MIN),
            (&mut out.start_period, "start_period", Duration::ZERO),
            (&mut out.exit_delay, "exit_delay", Duration::ZERO),
            (&mut out.remind, "remind", limits::SPAN_MIN),
            (&mut out.start_delay, "start_delay", Duration::ZERO),
        ];
        for (slot, key, floor) in spans {
            set(slot, get(doc, table, key, |doc, at| doc.duration(at, floor)));
        }
        out
    }
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

fn groups(doc: &mut Document<'_>, at: Field<'_>) -> Option<Vec<GroupName>> {
    let mut groups = Vec::new();
    for item in doc.list(at, "for example: groups = [\"web\"]")? {
        let Some(text) = doc.string(item, "web") else { continue };
        match GroupName::parse(text) {
            Ok(group) if !groups.contains(&group) => groups.push(group),
            Ok(_) => {}
            Err(why) => {
                let message = format!("`{}` is not the name of a group", shorten(text));
                doc.error(item.value.span(), message, Some(&why.to_string()));
            }
        }
    }
    if groups.len() > limits::GROUPS_MAX {
        let message = format!("`groups` has more than {} entries", limits::GROUPS_MAX);
        doc.error(at.value.span(), message, None);
    }
    Some(groups)
}

fn addresses(doc: &mut Document<'_>, at: Field<'_>) -> Option<Vec<Box<str>>> {
    let hint = "for example: alert = [\"ops@example.com\"]";
    let items = doc.list(at, hint)?;
    Some(items.into_iter().filter_map(|item| address(doc, item)).collect())
}

/// A mail address: one `@`, and nothing that could begin another header or address.
pub(crate) fn address(doc: &mut Document<'_>, at: Field<'_>) -> Option<Box<str>> {
    let text = doc.string(at, "ops@example.com")?;
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && !"<>,;:\"()[]\\".contains(c);
    let parts = text.split_once('@');
    let sound = parts
        .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'));
    if !sound || !text.chars().all(fits) || text.len() > ADDRESS_BYTES_MAX {
        let message = format!("`{}` is not a mail address", shorten(text));
        doc.error(at.value.span(), message, Some("write it as name@host"));
        return None;
    }
    Some(text.into())
}

const ADDRESS_BYTES_MAX: usize = 254;

fn allow(doc: &mut Document<'_>, at: Field<'_>) -> Option<Vec<Grant>> {
    let hint = "for example: allow = { deploy = [\"restart\"], \"%ops\" = [\"all\"] }";
    let mut grants = Vec::new();
    for (key, value) in doc.table(at, hint)? {
        let who = key.get_ref().as_ref();
        let (name, group) = who.strip_prefix('%').map_or((who, false), |name| (name, true));
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            doc.error(key.span(), "this is not a user or %group", Some(hint));
            continue;
        }
        let to = if group { Grantee::Group(name.into()) } else { Grantee::User(name.into()) };
        let items = doc.list(Field { key: who, value }, hint).unwrap_or_default();
        let rights = items.into_iter().flat_map(|item| rights(doc, item)).collect();
        grants.push(Grant { to, rights });
    }
    Some(grants)
}

fn rights(doc: &mut Document<'_>, at: Field<'_>) -> Vec<Right> {
    let names: Vec<_> = Right::ALL.into_iter().map(Right::name).chain(["all"]).collect();
    let word = doc.word(at, "a right", &names);
    let meant =
        |right: &Right| word.as_deref().is_some_and(|word| word == "all" || word == right.name());
    Right::ALL.into_iter().filter(meant).collect()
}

fn mode(doc: &mut Document<'_>, at: Field<'_>) -> Option<Mode> {
    let word = doc.word(at, "a mode", &["active", "observe"])?;
    Some(if word == "observe" { Mode::Observe } else { Mode::Active })
}

fn on_boot(doc: &mut Document<'_>, at: Field<'_>) -> Option<OnBoot> {
    let word = doc.word(at, "what a boot may mean", &["start", "leave", "last"])?;
    Some(match word.as_str() {
        "start" => OnBoot::Start,
        "leave" => OnBoot::Leave,
        _ => OnBoot::Last,
    })
}

/// `5 per 10m`.
fn start_limit(doc: &mut Document<'_>, at: Field<'_>) -> Option<StartLimit> {
    let (starts, window) = per_window(doc, at, "a start limit", "5 per 10m")?;
    Some(StartLimit { starts, window })
}

/// So many, at least 1, in a window of time.
pub(crate) fn per_window(
    doc: &mut Document<'_>,
    at: Field<'_>,
    what: &str,
    example: &str,
) -> Option<(u32, Duration)> {
    const COUNT_MAX: u32 = 1_000_000;
    let text = doc.string(at, example)?;
    let parts = text.split_once(" per ").and_then(|(count, window)| {
        let count = count.trim().parse().ok().filter(|count| (1..=COUNT_MAX).contains(count))?;
        let window =
            units::parse_duration(window).ok().filter(|window| *window >= limits::SPAN_MIN)?;
        Some((count, window))
    });
    if parts.is_none() {
        let message = format!("`{}` is not {what}", shorten(text));
        let hint = format!("write it as \"{example}\": at least 1, in a window of time");
        doc.error(at.value.span(), message, Some(&hint));
    }
    parts
}

/// `30s to 30m`.
fn backoff(doc: &mut Document<'_>, at: Field<'_>) -> Option<Backoff> {
    let text = doc.string(at, "30s to 30m")?;
    let parts = text.split_once(" to ").and_then(|(first, last)| {
        let first = units::parse_duration(first).ok().filter(|first| *first >= limits::SPAN_MIN)?;
        let last = units::parse_duration(last).ok().filter(|last| *last >= first)?;
        Some(Backoff { first, last })
    });
    if parts.is_none() {
        let message = format!("`{}` is not a back-off", shorten(text));
        doc.error(
            at.value.span(),
            message,
            Some("write it as \"30s to 30m\": the first wait and the longest"),
        );
    }
    parts
}
