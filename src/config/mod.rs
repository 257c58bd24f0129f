//! conf.d: one directory is the whole configuration.
//!
//! `heeler.toml` in it holds the daemon's own settings; every other `*.toml` is one service, named
//! by its file. Files whose names begin with a dot or do not end in `.toml` are not looked at (so
//! `x.toml~` and
//! `.x.toml.swp` are not), nor are directories below. One bad file never prevents the others.
#![forbid(unsafe_code)]

mod check;
mod command;
pub mod defaults;
pub mod diff;
mod document;
mod edges;
pub mod error;
mod life;
mod loader;
mod probe;
mod puma;
mod service;
pub mod settings;
pub mod trust;
mod workers;

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::checks::Probe;
use crate::config::diff::Side;
use crate::config::document::Document;
use crate::config::error::{Diagnostic, Severity};
use crate::config::loader::Loader;
use crate::config::settings::Settings;
use crate::config::trust::{Refusal, Resolved, Rule};
use crate::model::ids::ServiceName;
use crate::model::limits;
use crate::model::process::Uid;
use crate::model::service::{Life, Service};
use crate::model::text::escape;

/// For whom the configuration is read, and what of the environment counts. Nothing here is looked
/// up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadAs {
    /// Who heeler runs as.
    pub uid: Uid,
    /// The name of that user, where it is known: `user` may say it without being root.
    pub user: Option<Box<str>>,
    /// `run --demo` by root: a tree of this user (who called sudo) is accepted, with a warning.
    pub demo_owner: Option<Uid>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
}

impl LoadAs {
    /// For this process as it runs.
    #[must_use]
    pub fn of_process() -> Self {
        let uid = Uid(nix::unistd::geteuid().as_raw());
        Self::new(uid, None, |name| std::env::var_os(name))
    }

    /// Takes what counts out of an environment.
    #[must_use]
    pub fn new(uid: Uid, user: Option<Box<str>>, env: impl Fn(&str) -> Option<OsString>) -> Self {
        // As the XDG specification says: a relative path is to be ignored.
        let dir = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            uid,
            user,
            demo_owner: None,
            home: dir("HOME"),
            xdg_state_home: dir("XDG_STATE_HOME"),
            xdg_runtime_dir: dir("XDG_RUNTIME_DIR"),
        }
    }
}

/// A directory read.
#[derive(Debug)]
pub struct Loaded {
    /// The settings in force.
    pub settings: Settings,
    /// The text they came from, to be kept as the last good one; `None` without a `heeler.toml`.
    pub settings_text: Option<Box<str>>,
    /// The good services, by name.
    pub services: Vec<LoadedService>,
    /// The bad files, by path.
    pub bad: Vec<BadFile>,
    /// What is probably not meant.
    pub warnings: Vec<Diagnostic>,
}

impl Loaded {
    /// Everything that is wrong or probably not meant, in the order it is told.
    #[must_use]
    pub fn findings(&self) -> Vec<Diagnostic> {
        let bad = self.bad.iter().flat_map(|bad| &bad.diagnostics);
        bad.chain(&self.warnings).cloned().collect()
    }

    /// Whether there is not one file to be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.bad.is_empty() && self.settings_text.is_none()
    }
}

/// Puts those that others need before them.
pub fn parents_first<T>(all: &mut Vec<T>, service: impl Fn(&T) -> &Service) {
    edges::parents_first(all, service);
}

/// What one file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    /// For the engine.
    pub service: Service,
    /// What probes each of its checks, in their order.
    pub probes: Vec<Probe>,
    /// Where it names the services it needs, in their order.
    pub parents_at: Vec<Range<usize>>,
}

/// One good service.
#[derive(Debug)]
pub struct LoadedService {
    /// What its file says.
    pub definition: Definition,
    /// Its definition as written, to be kept as the last good one.
    pub text: Box<str>,
    /// Its file.
    pub path: PathBuf,
}

impl LoadedService {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.definition.service.name
    }

    /// For comparing.
    #[must_use]
    pub fn side(&self) -> Side<'_> {
        let Definition { service, probes, .. } = &self.definition;
        Side { service, probes, text: Some(&self.text) }
    }
}

/// One file that is not used.
#[derive(Debug)]
pub struct BadFile {
    /// What it should have been.
    pub role: Role,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, warnings included.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a file is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// `heeler.toml`.
    Settings,
    /// A service.
    Service(ServiceName),
    /// Its name cannot be a service's.
    Nameless,
}

/// Reads a directory. A bad `heeler.toml` is replaced by `last_settings` (the text of the last good
/// one), else by the defaults.
///
/// # Errors
/// When the directory itself cannot be used.
pub fn load(
    dir: &Path,
    who: &LoadAs,
    last_settings: Option<&str>,
) -> Result<Loaded, Box<Diagnostic>> {
    let shown = escape(&dir.to_string_lossy());
    let root = who.uid == Uid(0);
    let rule = Rule::root_and(if root { who.demo_owner } else { Some(who.uid) });
    let (mut resolved, names) = open(dir, &rule).map_err(|(message, hint)| {
        Box::new(Diagnostic::of_file(Severity::Error, &shown, message, Some(hint)))
    })?;
    let mut loader = Loader::new(dir, who);
    for name in settings_first(names) {
        let read = rule
            .read(&resolved.path, &name, limits::CONFIG_FILE_BYTES_MAX)
            .inspect(|contents| resolved.owners.extend(&contents.owners));
        loader.file(&name, read, last_settings);
    }
    let mut loaded = loader.finish();
    let mut warn = |message: &str, hint: Option<&str>| {
        let (message, hint) = (message.to_owned(), hint.map(str::to_owned));
        let warning = Diagnostic::of_file(Severity::Warning, &shown, message, hint);
        loaded.warnings.push(warning);
    };
    if root && resolved.owners.iter().any(|owner| *owner != Uid(0)) {
        warn(
            "an ordinary user can change this, and so command root: for a demonstration only",
            None,
        );
    }
    if loaded.services.is_empty() && loaded.bad.is_empty() {
        warn("no services here", Some("a service is a file NAME.toml"));
    }
    Ok(loaded)
}

/// Finds the directory and what in it is to be read; else a message and a hint.
fn open(dir: &Path, rule: &Rule) -> Result<(Resolved, Vec<OsString>), (String, String)> {
    let failed = |to: &str, error: io::Error| {
        let message = format!("failed to {to} the configuration directory: {error}");
        (message, WHICH_DIR.to_owned())
    };
    let absolute = std::path::absolute(dir).map_err(|error| failed("find", error))?;
    let resolved = rule.resolve(&absolute).map_err(|refusal| match refusal {
        Refusal::Io(error) => failed("open", error),
        Refusal::Unsafe { message, hint } => {
            (format!("refused to use the configuration directory: {message}"), hint)
        }
    })?;
    let names = names(&resolved.path).map_err(|error| failed("read", error))?;
    if names.len() > limits::CONFIG_FILES_MAX {
        let message = format!("there are more than {} files", limits::CONFIG_FILES_MAX);
        return Err((message, "is this the right directory?".to_owned()));
    }
    Ok((resolved, names))
}

const WHICH_DIR: &str = "say which directory: heeler run DIR, heeler validate DIR";
const SETTINGS_FILE: &str = "heeler.toml";

/// A good value with its warnings, or everything that is wrong, warnings included.
pub type Parsed<T> = Result<(T, Vec<Diagnostic>), Vec<Diagnostic>>;

/// Parses one definition; reads nothing else. Returns the service with its warnings. `file` is its
/// name for people.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn parse_service(
    name: &ServiceName,
    file: &str,
    text: &str,
    settings: &Settings,
    who: &LoadAs,
) -> Parsed<Definition> {
    let (mut doc, table) = Document::parse(file, text);
    let service = service::service(&mut doc, name, table.get_ref(), settings, who);
    verdict(service, doc.findings())
}

/// What heeler's own trouble is told as: a service without a process and without checks.
#[must_use]
pub fn heelers_own(settings: &Settings) -> Service {
    service::bare(ServiceName::heeler(), Life::Nothing, settings.defaults.clone())
}

/// Parses a `heeler.toml`; reads nothing else.
///
/// # Errors
/// Everything that is wrong with it, warnings included.
pub fn parse_settings(file: &str, text: &str, who: &LoadAs) -> Parsed<Settings> {
    let (mut doc, table) = Document::parse(file, text);
    let settings = Settings::read(&mut doc, table.get_ref(), who);
    verdict(Some(settings), doc.findings())
}

fn verdict<T>(value: Option<T>, found: Vec<Diagnostic>) -> Parsed<T> {
    let wrong = found.iter().any(|found| found.severity == Severity::Error);
    match value {
        Some(value) if !wrong => Ok((value, found)),
        Some(_) | None => Err(found),
    }
}

/// What a directory's names say should be read.
fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            names.push(name);
        }
        if names.len() > limits::CONFIG_FILES_MAX {
            break;
        }
    }
    names.sort();
    Ok(names)
}

/// The settings before the services that build on them.
fn settings_first(names: Vec<OsString>) -> impl Iterator<Item = OsString> {
    let (settings, services): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| name == SETTINGS_FILE);
    settings.into_iter().chain(services)
}
