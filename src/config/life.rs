//! Which process a service is.

use std::path::{Path, PathBuf};

use regex::RegexBuilder;
use toml::de::DeTable;

use crate::config::LoadAs;
use crate::config::command::command;
use crate::config::document::{Document, Field, field, get, shorten};
use crate::config::error::nearest;
use crate::config::service::OWN_KEYS;
use crate::config::settings::Settings;
use crate::model::limits;
use crate::model::process::Uid;
use crate::model::service::{Command, Life};
use crate::model::unit::{Manager, Unit, UnitMain};

const LIVES: [&str; 4] = ["unit", "pidfile", "match", "run"];

/// Which process it is: exactly one of `unit`, `pidfile`, `match` and `run`; beside a unit `pidfile` or
/// `match` says which of its processes is the main one.
pub(crate) fn life(
    doc: &mut Document<'_>,
    table: &DeTable<'_>,
    settings: &Settings,
    who: &LoadAs,
) -> Option<Life> {
    let misspelt = |name: &str| !OWN_KEYS.contains(&name) && nearest(name, LIVES).is_some();
    let mut names = table.keys().take(limits::CONFIG_FINDINGS_MAX).map(|key| key.get_ref());
    let said = LIVES.iter().any(|key| table.contains_key(*key));
    if !said && !names.any(|name| misspelt(name)) {
        if table.contains_key("check") && !table.contains_key("start") {
            return Some(Life::Nothing);
        }
        let hint = "say `unit`, `pidfile`, `match` or `run`; \
                    without a process there has to be a [[check]] of something else";
        doc.missing(None, "nothing says which process this service is", hint);
    }
    let says = |key| table.contains_key(key);
    let (by, excluded, hint): (_, &[&str], _) = match (says("run"), says("pidfile")) {
        (true, _) => (
            "run",
            &["unit", "manager", "pidfile", "match", "start", "restart"],
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
    let pattern = get(doc, table, "match", |doc, at| pattern(doc, at, "^puma .*shop"));
    let unit = get(doc, table, "unit", unit_name);
    let said = get(doc, table, "manager", manager);
    if !table.contains_key("unit") {
        doc.misplaced(
            table,
            &["manager"],
            "says whose unit it is, and there is none",
            "say `unit`",
        );
    }
    if let Some(name) = unit {
        // root's own units are the machine's, unless somebody says that they are not.
        let of_machine = who.uid == Uid(0) && !table.contains_key("user");
        let default = if of_machine { Manager::System } else { Manager::User };
        let main = match (pidfile, pattern) {
            (Some(path), _) => UnitMain::Pidfile(path),
            (None, Some(pattern)) => UnitMain::Match(pattern),
            (None, None) => UnitMain::Manager,
        };
        return Some(Life::Unit(Unit { name, manager: said.unwrap_or(default), main }));
    }
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

/// A regular expression on titles.
pub(crate) fn pattern(doc: &mut Document<'_>, at: Field<'_>, example: &str) -> Option<Box<str>> {
    let text = doc.string(at, example)?;
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

/// The whole name of a service unit (systemd.unit(5)).
fn unit_name(doc: &mut Document<'_>, at: Field<'_>) -> Option<Box<str>> {
    let name = doc.string(at, "puma-shop")?;
    let kinds = ["socket", "timer", "target", "path", "mount", "slice", "scope", "device", "swap"];
    let kind = name.rsplit_once('.').map(|(_, kind)| kind);
    if let Some(kind) = kind.filter(|kind| kinds.contains(kind)) {
        let message = format!("`{}` is a {kind}: only services have a process", shorten(name));
        doc.error(at.value.span(), message, Some("name the .service that it starts"));
        return None;
    }
    let whole = match kind {
        Some("service") => name.to_owned(),
        Some(_) | None => format!("{name}.service"),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || ":_.@\\-".contains(c);
    let template = whole.ends_with("@.service");
    if !whole.chars().all(fits)
        || whole.starts_with(['-', '.'])
        || whole.len() > limits::UNIT_NAME_BYTES_MAX
    {
        doc.error(at.value.span(), format!("`{}` is not the name of a unit", shorten(name)), None);
        return None;
    }
    if template {
        let message = format!("`{}` is a template, not a unit", shorten(name));
        doc.error(at.value.span(), message, Some("name the instance after the @"));
        return None;
    }
    if whole == "heeler.service" {
        doc.error(at.value.span(), MANAGES_ITSELF, Some(UNDER_SYSTEMD));
        return None;
    }
    Some(whole.into())
}

fn manager(doc: &mut Document<'_>, at: Field<'_>) -> Option<Manager> {
    let word = doc.word(at, "a manager", &["user", "system"])?;
    Some(if word == "system" { Manager::System } else { Manager::User })
}
