//! The configuration, read anew: in the pool, because its file system may hang; applied on the loop as a
//! difference ([`super::apply`]), so that what did not change is not touched, and no process is.
//!
//! There is one reading at a time. Whoever asks during one gets the next, all of them the same: what was in
//! the directory when they asked is in what is read then.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::checks::Probe;
use crate::config::diff::{self, Before, Side};
use crate::config::error::{Diagnostic, Severity, render};
use crate::config::settings::Settings;
use crate::config::{self, LoadAs, Loaded};
use crate::engine::effect::Level;
use crate::keeper::Keeper;
use crate::keeper::served::File;
use crate::keeper::standing::Standing;
use crate::keeper::turn::Done;
use crate::model::change::{Change, Changes};
use crate::model::ids::ServiceName;
use crate::model::limits;
use crate::model::mark::mark;
use crate::model::memory::Memory;
use crate::model::service::Service;
use crate::model::units::show_duration;
use crate::store::definitions::{self, DefinitionName};
use crate::sys::heap;
use crate::wire::control::{ReloadAnswer, Response};

/// The configuration in force, and who wants it read.
pub(super) struct Conf {
    /// The directory, absolute.
    pub(super) dir: PathBuf,
    /// The settings in force.
    pub(super) settings: Settings,
    /// Their text, where there is a `heeler.toml`.
    pub(super) text: Option<Box<str>>,
    /// What is remembered of services whose files a start did not find, nor any other: in case the directory
    /// was not mounted.
    pub(super) awaited: BTreeMap<ServiceName, Memory>,
    /// What is wrong with it.
    pub(super) standing: Standing,
    asked: VecDeque<Asked>,
    reading: Option<Reading>,
    readings: u64,
    /// Whether the service manager was told that heeler reloads.
    announced: Announced,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Announced {
    Yes,
    No,
}

/// What the configuration is read for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To be in force.
    Reload,
    /// To say what it would change.
    Plan(PathBuf),
}

/// Somebody wants the configuration read.
struct Asked {
    purpose: Purpose,
    by: String,
    /// Nobody waits where it was a signal.
    reply: Option<oneshot::Sender<Response>>,
    /// When that is enough.
    until: Instant,
}

/// The reading that is in the pool. It stays until it comes back, however long its file system hangs.
struct Reading {
    number: u64,
    purpose: Purpose,
    asked: Vec<Asked>,
}

/// A reading that the pool has done.
pub(super) struct Read {
    number: u64,
    result: Outcome,
}

type Outcome = Result<(Loaded, Changes), Box<Diagnostic>>;

/// A service as it is in force, for the pool to compare with.
struct InForce {
    service: Arc<Service>,
    probes: Arc<[Probe]>,
    /// The mark of its text.
    text: u64,
}

impl Conf {
    pub(super) fn new(dir: &Path, settings: Settings, text: Option<Box<str>>) -> Self {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let (asked, reading, standing) = (VecDeque::new(), None, Standing::default());
        let (awaited, announced) = (BTreeMap::new(), Announced::No);
        Self { dir, settings, text, awaited, standing, asked, reading, readings: 0, announced }
    }

    /// Where the records of all services are.
    pub(super) fn svc(&self) -> PathBuf {
        self.settings.run_dir.join("svc")
    }

    /// Where the records of a service are.
    pub(super) fn records_of(&self, name: &ServiceName) -> PathBuf {
        self.svc().join(name.as_str())
    }
}

impl Keeper {
    /// Somebody wants the configuration read.
    pub(super) fn read_configuration(
        &mut self,
        purpose: Purpose,
        by: String,
        reply: Option<oneshot::Sender<Response>>,
    ) {
        let same = |other: &Asked| other.reply.is_none() && other.purpose == purpose;
        if reply.is_none() && self.conf.asked.iter().any(same) {
            // A signal that nobody waits for is one with those before it.
            return;
        }
        if purpose == Purpose::Reload {
            self.conf.announced = Announced::Yes;
            self.manager.reloading(self.now().mono);
        }
        let until = Instant::now() + limits::CONFIG_READ_TIMEOUT;
        self.conf.asked.push_back(Asked { purpose, by, reply, until });
        self.begin_reading();
    }

    /// Has the pool read for whoever asked first, and for all who want the same.
    fn begin_reading(&mut self) {
        if self.conf.reading.is_some() {
            return;
        }
        let Some(first) = self.conf.asked.front() else { return };
        let purpose = first.purpose.clone();
        let all = std::mem::take(&mut self.conf.asked);
        let (asked, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| one.purpose == purpose);
        self.conf.asked = others.into();
        self.conf.readings += 1;
        let number = self.conf.readings;
        let dir = match &purpose {
            Purpose::Reload => self.conf.dir.clone(),
            Purpose::Plan(dir) => dir.clone(),
        };
        self.conf.reading = Some(Reading { number, purpose, asked });
        let claimed = self.services.iter().filter(|(_, served)| served.file == File::There);
        let in_force: BTreeMap<_, _> = claimed
            .map(|(name, served)| {
                let (service, probes) = (Arc::clone(&served.def), Arc::clone(&served.probes));
                (name.clone(), InForce { service, probes, text: served.text })
            })
            .collect();
        let (settings, text) = (self.conf.settings.clone(), self.conf.text.clone());
        let who = self.load_as.clone();
        self.pool.submit(move || {
            let shown = dir.to_string_lossy().into_owned();
            let read = || read(&dir, &who, &settings, text.as_deref(), &in_force);
            let result = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
                let message = "reading it crashed: this is a bug of heeler".to_owned();
                Err(Box::new(Diagnostic::of_file(Severity::Error, &shown, message, None)))
            });
            Done::Read(Box::new(Read { number, result }))
        });
    }

    /// The pool has read it.
    pub(super) fn configuration_read(&mut self, read: Read) {
        let is = |reading: &mut Reading| reading.number == read.number;
        let Some(Reading { purpose, asked, .. }) = self.conf.reading.take_if(is) else { return };
        if asked.is_empty() {
            // All were told that it could not be read; the next who asks gets what is there then.
            self.say(Level::Warning, "the configuration was read too late, and is not used");
            self.begin_reading();
            self.reloads_are_over();
            return;
        }
        let answer = match purpose {
            Purpose::Reload => {
                let by: Vec<_> = asked.iter().map(|asked| asked.by.clone()).collect();
                self.reload(read.result, &by.join(", "))
            }
            Purpose::Plan(dir) => planned(&dir, read.result),
        };
        answer_all(asked, &answer);
        // What was read is not needed again.
        self.pool.submit(|| {
            heap::give_back();
            Done::Nothing
        });
        self.begin_reading();
        self.reloads_are_over();
    }

    /// The service manager hears when nobody waits for a reload any more.
    fn reloads_are_over(&mut self) {
        let reading = self.conf.reading.iter().flat_map(|reading| &reading.asked);
        let mut waiting = reading.chain(&self.conf.asked);
        if self.conf.announced == Announced::Yes
            && !waiting.any(|asked| asked.purpose == Purpose::Reload)
        {
            self.conf.announced = Announced::No;
            self.manager.ready(self.engine.tally());
        }
    }

    fn reload(&mut self, result: Outcome, by: &str) -> ReloadAnswer {
        let dir = self.conf.dir.to_string_lossy().into_owned();
        match result {
            Ok((loaded, _)) if loaded.is_empty() && !self.services.is_empty() => {
                let message = "there is not one file in it".to_owned();
                let hint =
                    "is it mounted? to have all services forgotten, leave an empty heeler.toml";
                let hint = Some(hint.to_owned());
                let empty = Diagnostic::of_file(Severity::Error, &dir, message, hint);
                self.not_reloaded(dir, &empty, by)
            }
            Ok((loaded, changes)) => {
                let notes = self.apply(loaded, &changes);
                self.say(
                    Level::Info,
                    &format!("configuration read ({by}): {}", in_short(&changes)),
                );
                let level = if changes.wrong { Level::Error } else { Level::Warning };
                for change in &changes.needs_restart {
                    let text = format!("`{}` needs a restart of heeler", change.key);
                    self.say(Level::Warning, &text);
                }
                let lines = changes.report.iter().filter(|line| !line.is_empty());
                lines.chain(&notes).for_each(|line| self.say(level, line));
                ReloadAnswer::new(dir, &changes, notes)
            }
            Err(unusable) => self.not_reloaded(dir, &unusable, by),
        }
    }

    /// The directory cannot be used: what is in force stays.
    fn not_reloaded(&mut self, dir: String, why: &Diagnostic, by: &str) -> ReloadAnswer {
        let text = render(std::slice::from_ref(why));
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.push("what was read before stays in force".to_owned());
        self.say(Level::Error, &format!("configuration not read ({by})"));
        lines.iter().for_each(|line| self.say(Level::Error, line));
        self.directory_is(Some(format!("{dir}: {}", why.message)));
        ReloadAnswer::unusable(dir, lines)
    }

    /// Who has waited for long enough is told so; the reading itself may hang for ever.
    pub(super) fn configuration_due(&mut self, now: Instant) {
        let conf = &mut self.conf;
        let mut late = Vec::new();
        let queue = conf.asked.drain(..).collect();
        conf.asked = sort_out(queue, now, &mut late).into();
        if let Some(reading) = &mut conf.reading {
            reading.asked = sort_out(std::mem::take(&mut reading.asked), now, &mut late);
        }
        for asked in late {
            let dir = match &asked.purpose {
                Purpose::Reload => self.conf.dir.clone(),
                Purpose::Plan(dir) => dir.clone(),
            };
            let patience = show_duration(limits::CONFIG_READ_TIMEOUT);
            let message = format!("it could not be read within {patience}");
            let hint = Some("does its file system hang? try `ls` there".to_owned());
            let dir = dir.to_string_lossy().into_owned();
            let hangs = Diagnostic::of_file(Severity::Error, &dir, message, hint);
            let answer = match asked.purpose {
                Purpose::Reload => self.not_reloaded(dir, &hangs, &asked.by),
                Purpose::Plan(_) => unusable(dir, &hangs),
            };
            answer_all(vec![asked], &answer);
        }
        self.reloads_are_over();
    }

    /// When that is due.
    pub(super) fn configuration_wakeup(&self) -> Option<Instant> {
        let reading = self.conf.reading.iter().flat_map(|reading| &reading.asked);
        reading.chain(&self.conf.asked).map(|asked| asked.until).min()
    }
}

/// Those who still wait; `late` gets the others.
fn sort_out(all: Vec<Asked>, now: Instant, late: &mut Vec<Asked>) -> Vec<Asked> {
    let (over, waiting) = all.into_iter().partition(|asked| now >= asked.until);
    late.extend::<Vec<_>>(over);
    waiting
}

fn answer_all(asked: Vec<Asked>, answer: &ReloadAnswer) {
    for reply in asked.into_iter().filter_map(|asked| asked.reply) {
        // A client that went away took nothing back.
        let _delivered = reply.send(Response::Reload(answer.clone()));
    }
}

fn planned(dir: &Path, result: Outcome) -> ReloadAnswer {
    let dir = dir.to_string_lossy().into_owned();
    match result {
        Ok((_, changes)) => ReloadAnswer::new(dir, &changes, Vec::new()),
        Err(why) => unusable(dir, &why),
    }
}

fn unusable(dir: String, why: &Diagnostic) -> ReloadAnswer {
    let text = render(std::slice::from_ref(why));
    ReloadAnswer::unusable(dir, text.lines().map(str::to_owned).collect())
}

/// Reads a directory and compares it with what is in force. For the pool: it may hang.
fn read(
    dir: &Path,
    who: &LoadAs,
    settings: &Settings,
    text: Option<&str>,
    in_force: &BTreeMap<ServiceName, InForce>,
) -> Outcome {
    let loaded = config::load(dir, who, text)?;
    let mut services: BTreeMap<_, _> =
        in_force.iter().map(|(name, one)| (name.clone(), one.side(None))).collect();
    let before = Before { settings, text: text.unwrap_or_default(), services: &services };
    let changes = diff::changes(&before, &loaded);
    // What those said that differ is on disk.
    let differ = changes.services.iter().filter_map(|change| match change {
        Change::Changed(name, _) | Change::Renamed { from: name, .. } => Some(name),
        Change::Added(_) | Change::Removed(_) => None,
    });
    let texts: Vec<_> = differ
        .filter_map(|name| {
            let file = DefinitionName::Service(name.clone());
            let text = definitions::load(&settings.state_dir, &file).ok()??;
            let one = in_force.get(name).filter(|one| one.text == text_mark(&text))?;
            Some((name, one, text))
        })
        .collect();
    if texts.is_empty() {
        return Ok((loaded, changes));
    }
    for (name, one, text) in &texts {
        services.insert((*name).clone(), one.side(Some(text)));
    }
    let before = Before { settings, text: text.unwrap_or_default(), services: &services };
    let changes = diff::changes(&before, &loaded);
    Ok((loaded, changes))
}

impl InForce {
    fn side<'a>(&'a self, text: Option<&'a str>) -> Side<'a> {
        Side { service: &self.service, probes: &self.probes, text }
    }
}

/// What stands for the text of a file.
pub(super) fn text_mark(text: &str) -> u64 {
    mark([text.as_bytes()])
}

/// What changes, on one line.
fn in_short(changes: &Changes) -> String {
    let mut parts = Vec::new();
    for change in &changes.services {
        parts.push(match change {
            Change::Added(name) => format!("{name} is new"),
            Change::Changed(name, keys) => match keys.as_slice() {
                [] => format!("{name} changed"),
                keys => {
                    let keys: Vec<_> = keys.iter().map(|one| one.key.as_str()).collect();
                    format!("{name} changed ({})", keys.join(", "))
                }
            },
            Change::Renamed { from, to, .. } => format!("{from} is {to} now"),
            Change::Removed(name) => format!("{name} is gone"),
        });
    }
    parts.extend(changes.settings.iter().map(|one| format!("heeler.toml: {}", one.key)));
    parts.push(format!("{} services unchanged", changes.unchanged));
    parts.join("; ")
}
