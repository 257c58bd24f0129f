//! `heeler validate`: everything that is wrong with a configuration, without a daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Group, User, access};
use serde::Serialize;

use crate::checks::Probe;
use crate::config::error::{Diagnostic, Severity, summary};
use crate::config::trust::read_password;
use crate::config::{LoadAs, Loaded, load};
use crate::model::process::Uid;

/// How it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// For people.
    Text,
    /// For programs: a list of findings.
    Json,
}

/// [`validate`] for whoever runs this process.
#[must_use]
pub fn as_this_user(dir: &Path, form: Form) -> (String, u8) {
    validate(dir, &LoadAs::of_process(), form)
}

/// Reads a directory as `heeler run` would, and tells what it found, with the exit code: 0 when
/// every file is good (warnings or not), 1 otherwise.
#[must_use]
pub fn validate(dir: &Path, who: &LoadAs, form: Form) -> (String, u8) {
    let (findings, services) = match load(dir, who, None) {
        Ok(loaded) => {
            let mut findings = loaded.findings();
            findings.extend(unknown_accounts(&loaded));
            findings.extend(bad_passwords(&loaded, who));
            (findings, loaded.services.len())
        }
        Err(unusable) => (vec![*unusable], 0),
    };
    let errors = findings.iter().filter(|found| found.severity == Severity::Error).count();
    let report = match form {
        Form::Text => summary(&findings, services),
        Form::Json => json(&findings),
    };
    (report, u8::from(errors > 0))
}

/// One finding, as programs see it. Stable.
#[derive(Serialize)]
struct Finding<'a> {
    file: &'a str,
    line: Option<usize>,
    column: Option<usize>,
    severity: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
}

fn json(findings: &[Diagnostic]) -> String {
    let finding = |found| {
        let Diagnostic { severity, file, place, message, hint }: &Diagnostic = found;
        Finding {
            file,
            line: place.as_ref().map(|place| place.line),
            column: place.as_ref().map(|place| place.column),
            severity: severity.name(),
            message,
            hint: hint.as_deref(),
        }
    };
    let findings: Vec<_> = findings.iter().map(finding).collect();
    let mut out = serde_json::to_string_pretty(&findings).unwrap_or_else(|error| error.to_string());
    out.push('\n');
    out
}

/// Passwords that no check could log in with. The daemon reads them as it needs them, and says so then; here
/// it is said before.
fn bad_passwords(loaded: &Loaded, who: &LoadAs) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for loaded in &loaded.services {
        let files = loaded.definition.probes.iter().filter_map(|probe| match probe {
            Probe::Network(settings) => settings.password_file(),
            Probe::Sample | Probe::Workers | Probe::Puma | Probe::Files(_) | Probe::Command(_) => {
                None
            }
        });
        for path in files.collect::<BTreeSet<_>>() {
            let Err(message) = read_password(path, who.uid) else { continue };
            // Whoever may not look at it cannot tell.
            let denied = access(path, AccessFlags::R_OK) == Err(Errno::EACCES);
            let (severity, hint) = match denied && who.uid != Uid(0) {
                true => (Severity::Warning, "only root can tell: sudo heeler validate"),
                false => (Severity::Error, "until then the check that needs it is unknown"),
            };
            let file = loaded.path.to_string_lossy();
            findings.push(Diagnostic::of_file(severity, &file, message, Some(hint.to_owned())));
        }
    }
    findings
}

/// Users and groups this machine does not know now: a warning, since they may come later. The
/// daemon never asks this (the answer may take as long as a directory server likes); here a person
/// waits.
fn unknown_accounts(loaded: &Loaded) -> Vec<Diagnostic> {
    let mut asked: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    let mut findings = Vec::new();
    for loaded in &loaded.services {
        let user = loaded.definition.service.user.as_deref().map(|name| ("user", name));
        let group = loaded.definition.service.group.as_deref().map(|name| ("group", name));
        for (kind, name) in user.into_iter().chain(group) {
            let unknown = *asked.entry((kind, name)).or_insert_with(|| match kind {
                "user" => matches!(User::from_name(name), Ok(None)) && name.parse::<u32>().is_err(),
                _ => matches!(Group::from_name(name), Ok(None)) && name.parse::<u32>().is_err(),
            });
            if unknown {
                let message = format!("there is no {kind} `{name}` on this machine");
                let file = loaded.path.to_string_lossy();
                let hint = Some(format!("until there is, nothing can be done as `{name}`"));
                findings.push(Diagnostic::of_file(Severity::Warning, &file, message, hint));
            }
        }
    }
    findings
}
