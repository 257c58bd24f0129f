//! The files of one directory, one after the other, and what only shows between them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::config::document::Document;
use crate::config::edges;
use crate::config::error::{Diagnostic, Severity};
use crate::config::service::{place_of, service};
use crate::config::settings::Settings;
use crate::config::trust::{Contents, Refusal, Rule};
use crate::config::{
    BadFile, Definition, LoadAs, Loaded, LoadedService, Parsed, Role, SETTINGS_FILE,
    parse_settings, verdict,
};
use crate::model::ids::ServiceName;
use crate::model::limits;
use crate::model::process::Uid;
use crate::model::service::{Life, Service};
use crate::model::text::escape;

/// What was loaded so far.
pub(crate) struct Loader<'a> {
    dir: &'a Path,
    who: &'a LoadAs,
    loaded: Loaded,
    /// Pidfiles and start commands, and who has them.
    claims: BTreeMap<String, ServiceName>,
    /// Programs of root's commands, and why they are refused.
    programs: BTreeMap<PathBuf, Option<(String, String)>>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(dir: &'a Path, who: &'a LoadAs) -> Self {
        let settings = Settings::of(who);
        let (services, bad, warnings) = (Vec::new(), Vec::new(), Vec::new());
        let loaded = Loaded { settings, settings_text: None, services, bad, warnings };
        Self { dir, who, loaded, claims: BTreeMap::new(), programs: BTreeMap::new() }
    }

    pub(crate) fn finish(mut self) -> Loaded {
        edges::drop_unsound(self.dir, &mut self.loaded);
        self.loaded
    }

    /// Takes in one file.
    pub(crate) fn file(
        &mut self,
        name: &OsStr,
        read: Result<Contents, Refusal>,
        last_settings: Option<&str>,
    ) {
        let path = self.dir.join(name);
        let shown = path.to_string_lossy().into_owned();
        let read = read
            .map_err(|refusal| refused(&shown, refusal))
            .and_then(|contents| text(&shown, contents));
        if name == SETTINGS_FILE {
            return self.settings(path, &shown, read, last_settings);
        }
        let stem = name.to_string_lossy();
        let role = match ServiceName::parse(stem.strip_suffix(".toml").unwrap_or(&stem)) {
            Ok(name) => name,
            Err(error) => {
                let hint = Some("the file's name without .toml is the service's name".to_owned());
                let wrong = Diagnostic::of_file(Severity::Error, &shown, error.to_string(), hint);
                self.loaded.bad.push(BadFile {
                    role: Role::Nameless,
                    path,
                    diagnostics: vec![wrong],
                });
                return;
            }
        };
        match read.and_then(|text| Ok((self.service(&role, &shown, &text)?, text))) {
            Ok(((definition, warnings), text)) => {
                self.loaded.warnings.extend(warnings);
                self.loaded.services.push(LoadedService { definition, text: text.into(), path });
            }
            Err(diagnostics) => {
                self.loaded.bad.push(BadFile { role: Role::Service(role), path, diagnostics });
            }
        }
    }

    fn settings(
        &mut self,
        path: PathBuf,
        shown: &str,
        read: Result<String, Vec<Diagnostic>>,
        last: Option<&str>,
    ) {
        let good = match read.and_then(|text| Ok((parse_settings(shown, &text, self.who)?, text))) {
            Ok(((settings, warnings), text)) => {
                self.loaded.warnings.extend(warnings);
                Some((settings, text))
            }
            Err(diagnostics) => {
                self.loaded.bad.push(BadFile { role: Role::Settings, path, diagnostics });
                let parse = |text| parse_settings(SETTINGS_FILE, text, self.who).ok();
                last.and_then(|text| Some((parse(text)?.0, text.to_owned())))
            }
        };
        if let Some((settings, text)) = good {
            self.loaded.settings = settings;
            self.loaded.settings_text = Some(text.into());
        }
    }

    fn service(&mut self, name: &ServiceName, shown: &str, text: &str) -> Parsed<Definition> {
        let (mut doc, table) = Document::parse(shown, text);
        let defined = service(&mut doc, name, table.get_ref(), &self.loaded.settings, self.who);
        if let Some(Definition { service, .. }) = &defined {
            if self.who.uid == Uid(0)
                && matches!(service.user.as_deref(), None | Some("root" | "0"))
            {
                self.judge_programs(&mut doc);
            }
            self.claim(&mut doc, service, table.get_ref());
        }
        verdict(defined, doc.findings())
    }

    /// What root runs must be changeable by root alone, or who can change it is root.
    fn judge_programs(&mut self, doc: &mut Document<'_>) {
        for (program, at) in std::mem::take(&mut doc.programs) {
            let refusal = self.programs.entry(program).or_insert_with_key(|program| {
                match Rule::root_and([]).resolve(program) {
                    Err(Refusal::Unsafe { message, hint }) => Some((message, hint)),
                    // What is not there cannot be judged; starting it will tell.
                    Ok(_) | Err(Refusal::Io(_)) => None,
                }
            });
            if let Some((message, hint)) = refusal {
                let message = format!("root would run this, but {message}");
                let hint = format!("say `user`, so that it does not run as root; or {hint}");
                doc.error(at, message, Some(&hint));
            }
        }
    }

    /// Two services with one pidfile or one start command would fight over one process.
    fn claim(&mut self, doc: &mut Document<'_>, service: &Service, table: &DeTable<'_>) {
        let pidfile = match &service.life {
            Life::Pidfile(path) => Some(("pidfile", path.to_string_lossy().into_owned())),
            Life::Unit(unit) => Some(("unit", unit.name.to_string())),
            Life::Match(_) | Life::Run(_) | Life::Nothing => None,
        };
        let start = service.start.as_ref().map(|start| {
            (
                "start",
                format!("{} {:?} {start}", service.user.as_deref().unwrap_or_default(), start.cwd),
            )
        });
        for (key, value) in pidfile.into_iter().chain(start) {
            let other =
                self.claims.entry(format!("{key} {value}")).or_insert_with(|| service.name.clone());
            if *other != service.name {
                let message = format!("service `{other}` has the same `{key}`");
                let hint = "both would act on one process; keep one of them";
                doc.warn(place_of(table, key), message, Some(hint));
            }
        }
    }
}

fn refused(shown: &str, refusal: Refusal) -> Vec<Diagnostic> {
    let (message, hint) = match refusal {
        Refusal::Unsafe { message, hint } => (format!("refused to read it: {message}"), Some(hint)),
        Refusal::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => (
            format!("refused to read it: it has more than {} bytes", limits::CONFIG_FILE_BYTES_MAX),
            None,
        ),
        Refusal::Io(error) => (format!("failed to read it: {error}"), None),
    };
    vec![Diagnostic::of_file(Severity::Error, shown, message, hint)]
}

fn text(shown: &str, contents: Contents) -> Result<String, Vec<Diagnostic>> {
    String::from_utf8(contents.bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let lossy = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let place = Some(crate::config::error::Place::of(&lossy, &(good..good + 1)));
        let message = "this is not UTF-8 text".to_owned();
        vec![Diagnostic {
            severity: Severity::Error,
            file: escape(shown).into(),
            place,
            message,
            hint: None,
        }]
    })
}
