//! What is wrong with the configuration: told as an incident of the service it is about, or of heeler
//! itself, shown in a status.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::error::{Diagnostic, Severity};
use crate::config::{self, BadFile, Role};
use crate::engine::replace::Wrong;
use crate::keeper::Keeper;
use crate::keeper::served::File;
use crate::model::change::{Instead, KeyChange};
use crate::model::ids::ServiceName;
use crate::model::job::InFlight;
use crate::model::limits;
use crate::model::memory::Memory;
use crate::model::{self};
use crate::wire::control::{BadFileNote, ConfigStatus};

/// So many files are named where many are bad: a mail has one line for that.
const NAMED_MAX: usize = 8;

/// How the configuration stands.
#[derive(Default)]
pub(super) struct Standing {
    /// Why the directory could not be read when that was last tried.
    directory: Option<String>,
    /// Files that are not used.
    bad: Vec<model::change::BadFile>,
    /// Whose files are bad of those that are watched.
    services: BTreeSet<ServiceName>,
    /// What is wrong with the other files.
    others: Option<Wrong>,
    /// Keys that count from the next start of heeler on.
    needs_restart: Vec<String>,
}

impl Standing {
    /// Whether the file of a service that is watched is bad.
    pub(super) fn is_bad(&self, name: &ServiceName) -> bool {
        self.services.contains(name)
    }
}

impl Keeper {
    /// heeler's own trouble is told under its own name, to those who are named for all services.
    pub(super) fn begin_own(&mut self, memory: Option<Memory>) {
        let own = Arc::new(self.own_definition());
        let nothing = InFlight::Nothing;
        self.engine_does(|engine, now, effects| engine.add(now, own, memory, &nothing, effects));
    }

    /// Others may be named now.
    pub(super) fn redefine_own(&mut self) {
        let own = Arc::new(self.own_definition());
        self.engine_does(|engine, now, effects| engine.replace(now, own, &[], effects));
    }

    fn own_definition(&self) -> model::service::Service {
        let mut own = config::heelers_own(&self.conf.settings);
        if own.alert.is_empty() {
            // Nobody is named for all: everybody who is named for any.
            let all: BTreeSet<_> = self
                .services
                .values()
                .flat_map(|served| served.def.alert.iter().cloned())
                .collect();
            own.alert.extend(all.into_iter().take(limits::RECIPIENTS_MAX));
        }
        own
    }

    /// The files of a directory that was read: which are bad, and what is in force in their place.
    pub(super) fn files_are(&mut self, bad: &[BadFile], settings: Instead, fixed: &[KeyChange]) {
        let mut standing = Standing {
            needs_restart: fixed.iter().map(|change| change.key.clone()).collect(),
            ..Standing::default()
        };
        let (mut others, mut lines) = (Vec::new(), Vec::new());
        for one in bad {
            let name = one.path.file_name().unwrap_or_default().to_string_lossy();
            let file = model::text::escape(&name);
            let served = |name: &&ServiceName| {
                self.services.get(*name).is_some_and(|served| served.file == File::There)
            };
            let (service, instead) = match &one.role {
                Role::Settings => (None, settings),
                Role::Service(name) => match Some(name).filter(served) {
                    Some(name) => (Some(name.clone()), Instead::LastGood),
                    None => (None, Instead::Nothing),
                },
                Role::Nameless => (None, Instead::Nothing),
            };
            let told = one.diagnostics.iter().filter(|found| found.severity == Severity::Error);
            let told = told.take(limits::CONFIG_TOLD_MAX).map(in_one_line);
            let title = format!("{file} is bad: {}", instead.words());
            match service {
                Some(name) => {
                    let wrong = Wrong { title, lines: told.collect() };
                    self.definition_is(&name, Some(&wrong));
                    standing.services.insert(name);
                }
                None => {
                    lines.extend(told);
                    others.push(title);
                }
            }
            standing.bad.push(model::change::BadFile { file, instead });
        }
        standing.others = match others.len() {
            0 => None,
            1 => Some(Wrong { title: others.remove(0), lines }),
            many => {
                // The lines say why; `status` and `validate` name them all.
                let more = others.split_off(many.min(NAMED_MAX)).len();
                if more > 0 {
                    others.push(format!("and {more} more"));
                }
                let title = format!("{many} files are bad: {}", others.join("; "));
                Some(Wrong { title, lines })
            }
        };
        if let Some(wrong) = &mut standing.others {
            wrong.lines.truncate(limits::CONFIG_TOLD_MAX);
        }
        let before = std::mem::replace(&mut self.conf.standing, standing);
        for name in before.services {
            if !self.conf.standing.is_bad(&name) {
                self.definition_is(&name, None);
            }
        }
        self.tell_own();
    }

    /// The directory could not be read, and why; or it could.
    pub(super) fn directory_is(&mut self, trouble: Option<String>) {
        self.conf.standing.directory = trouble;
        self.tell_own();
    }

    fn tell_own(&mut self) {
        let standing = &self.conf.standing;
        let directory = standing.directory.as_ref().map(|why| Wrong {
            title: "the configuration cannot be read: what was read before stays in force"
                .to_owned(),
            lines: vec![why.clone()],
        });
        let wrong = directory.or_else(|| standing.others.clone());
        self.definition_is(&ServiceName::heeler(), wrong.as_ref());
    }

    pub(super) fn definition_is(&mut self, name: &ServiceName, bad: Option<&Wrong>) {
        self.engine_does(|engine, now, effects| engine.definition_is(now, name, bad, effects));
    }

    /// For a status: how the configuration stands.
    pub(super) fn configuration_status(&self) -> ConfigStatus {
        let Standing { directory, bad, needs_restart, .. } = &self.conf.standing;
        ConfigStatus {
            dir: self.conf.dir.to_string_lossy().into_owned(),
            trouble: directory.clone(),
            bad_files: bad.iter().map(BadFileNote::of).collect(),
            needs_restart: needs_restart.clone(),
        }
    }
}

/// `shop.toml:3:1: unknown key; did you mean ...?`
fn in_one_line(found: &Diagnostic) -> String {
    let Diagnostic { file, place, message, hint, .. } = found;
    let place = place.as_ref().map(|at| format!(":{}:{}", at.line, at.column)).unwrap_or_default();
    let hint = hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{file}{place}: {message}{hint}")
}
