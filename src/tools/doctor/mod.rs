//! `heeler doctor`: whether this machine lets heeler do what its configuration says. Works without a
//! daemon, changes nothing, and cannot be hung: whatever may take its time (a name service, a network
//! file system, a manager, a mail server) is asked by a child with a deadline, as the user it is about.

mod errand;
mod machine;
mod mail;
mod services;

use std::path::{Path, PathBuf};

use crate::config::settings::Settings;
use crate::config::{self, LoadAs, Loaded};
use crate::model::finding::Finding;
use crate::tools::doctor::errand::Errands;

/// What was found, and where a daemon of this configuration would be asked.
#[derive(Debug)]
pub struct Examination {
    /// In the order in which things depend on each other.
    pub findings: Vec<Finding>,
    /// Its control socket.
    pub socket: PathBuf,
}

/// Examines the machine for a configuration. The calling process must have one thread.
#[must_use]
pub fn examine(dir: &Path) -> Examination {
    let who = LoadAs::of_process();
    let mut errands = Errands::begin();
    let (loaded, mut findings) = configuration(dir, &who, &mut errands);
    let settings = loaded.as_ref().map_or_else(|| Settings::of(&who), |all| all.settings.clone());
    let loaded = loaded.map(|all| all.services).unwrap_or_default();
    let all: Vec<_> = loaded.iter().map(|loaded| &loaded.definition).collect();
    findings.extend(machine::examine(&settings, &who, all.len(), &mut errands));
    findings.extend(services::examine(&all, &mut errands));
    findings.extend(mail::examine(&settings, &all, &who, &mut errands));
    Examination { findings, socket: settings.socket }
}

/// Reads the configuration, unless its directory hangs.
fn configuration(
    dir: &Path,
    who: &LoadAs,
    errands: &mut Errands,
) -> (Option<Loaded>, Vec<Finding>) {
    let about = "configuration";
    let shown = dir.display();
    let tried = errands.ask(None, &|_| {
        drop(config::load(dir, who, None));
        Vec::new()
    });
    if let Err(why) = tried {
        let text = format!("{shown} cannot be read: {why}");
        return (None, vec![Finding::error(about, text, "see `df` and `ls` there")]);
    }
    let loaded = match config::load(dir, who, None) {
        Ok(loaded) => loaded,
        Err(unusable) => {
            let todo = unusable.hint.unwrap_or_default();
            return (None, vec![Finding::error(about, unusable.message, todo)]);
        }
    };
    let validate = format!("`heeler validate {shown}` says all that is wrong");
    let count = loaded.services.len();
    let mut findings = Vec::new();
    for bad in &loaded.bad {
        let text = format!("{} is bad", bad.path.display());
        findings.push(Finding::error(about, text, &validate));
    }
    let warnings = loaded.warnings.len();
    if warnings > 0 {
        let text = format!("{warnings} warning(s) about {shown}");
        findings.push(Finding::warning(about, text, &validate));
    }
    findings.push(match count {
        0 => Finding::warning(
            about,
            format!("{shown} has no services"),
            "a service is a file NAME.toml",
        ),
        1 => Finding::ok(about, format!("{shown}: 1 service")),
        count => Finding::ok(about, format!("{shown}: {count} services")),
    });
    (Some(loaded), findings)
}
