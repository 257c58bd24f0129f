//! Looks that may hang, in the file pool: each has a deadline, and what it left is kept for the next one,
//! and for the next keeper.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::checks::{Files, Past};
use crate::engine::effect::Level;
use crate::keeper::Keeper;
use crate::keeper::turn::Done;
use crate::model::change::Kept;
use crate::model::ids::{AskId, CheckIndex, ServiceName};
use crate::model::observation::{Observation, Outcome};
use crate::sys::{clock, records};

/// A look that the pool has taken.
pub(super) struct Looked {
    service: ServiceName,
    ask: AskId,
    seen: Observation,
    /// Of a look at files.
    noted: Option<Noted>,
}

/// What a look at files left.
struct Noted {
    /// What was known before it, and what is known after it.
    before: Memory,
    after: Memory,
    /// Why it could not be written down.
    trouble: Option<String>,
}

/// What the keeper knows of one check's looks.
#[derive(Default)]
pub(super) struct Looking {
    /// The look that is in the pool; past its deadline nobody waits for it, but it is still there.
    out: Option<Out>,
    /// What the last look left for the next; `None` until what an earlier keeper wrote down is read.
    memory: Option<Memory>,
    /// Whether it was said that this cannot be written down: once is enough.
    said: bool,
    /// Whether heeler had something to remark on the last run of its program: it is logged once.
    pub(super) remarked: bool,
}

#[derive(Clone, Copy)]
struct Out {
    ask: AskId,
    /// When it is given up on.
    until: Instant,
    about: About,
}

/// What a look is about that is in the pool.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// What the check asks for.
    Now,
    /// What it asked for before it was defined anew: what was seen is nobody's.
    Before,
}

/// What the looks of one check have left.
#[derive(Clone, Default)]
struct Memory {
    past: Option<Past>,
    /// What of it is written down.
    kept: Option<Vec<u8>>,
}

/// Where the past of a check is written down, for the next keeper.
struct Notebook {
    records: PathBuf,
    name: String,
    files: Files,
}

impl Keeper {
    /// Looks at files.
    pub(super) fn look_at_files(
        &mut self,
        service: ServiceName,
        check: CheckIndex,
        ask: AskId,
        files: Files,
    ) {
        let now = self.now();
        let Some(served) = self.services.get_mut(&service) else { return };
        let timeout = served.def.checks.get(usize::from(check.0)).map(|check| check.timeout);
        let memory = served.looking.entry(check).or_default().memory.clone();
        let notebook = Notebook::of(&served.records, check, files);
        let look = move || {
            let mut before = memory.unwrap_or_else(|| notebook.read());
            // What the last look saw has been judged by now. Had it been written down any sooner, a
            // keeper that is killed in between would have lost it.
            let mut trouble = notebook.keep(&mut before).err();
            let began = clock::now().mono;
            let (mut seen, past) = notebook.files.look(before.past.clone(), now);
            seen.took = clock::now().mono.since(began);
            let mut after = Memory { past, ..before.clone() };
            if seen.outcome == Outcome::Ok {
                // Nothing was seen that could be lost: from here on nothing is missed.
                trouble = notebook.keep(&mut after).err();
            }
            (seen, Some(Noted { before, after, trouble }))
        };
        self.look_in(service, check, ask, timeout.unwrap_or_default(), look);
    }

    /// What a look at files goes on from, for one whose own past is not kept: found out in the pool.
    pub(super) fn past_of(
        &self,
        service: &ServiceName,
        check: CheckIndex,
        files: Files,
    ) -> impl FnOnce() -> Option<Past> + Send + use<> {
        let served = self.services.get(service);
        let memory = served.and_then(|served| served.looking.get(&check)?.memory.clone());
        let notebook = served.map(|served| Notebook::of(&served.records, check, files));
        move || memory.or_else(|| notebook.map(|notebook| notebook.read()))?.past
    }

    /// Judges something that may take its time.
    pub(super) fn judge_in_pool(
        &mut self,
        service: ServiceName,
        check: CheckIndex,
        ask: AskId,
        patience: Duration,
        judge: impl FnOnce() -> Observation + Send + 'static,
    ) {
        self.look_in(service, check, ask, patience, move || (judge(), None));
    }

    /// Has the pool look. Nobody waits for it longer than `patience`.
    fn look_in(
        &mut self,
        service: ServiceName,
        check: CheckIndex,
        ask: AskId,
        patience: Duration,
        look: impl FnOnce() -> (Observation, Option<Noted>) + Send + 'static,
    ) {
        let Some(served) = self.services.get_mut(&service) else { return };
        let looking = served.looking.entry(check).or_default();
        if looking.out.is_some() {
            let text = "the last look has not come back yet: does its file system hang? try `df`";
            let seen = Observation::unknown(text);
            self.observed(service, check, ask, seen);
            return;
        }
        let until = Instant::now() + patience;
        looking.out = Some(Out { ask, until, about: About::Now });
        self.looks.insert((until, service.clone(), check));
        self.pool.submit(move || {
            let (seen, noted) = catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| {
                (Observation::unknown("the look crashed: this is a bug of heeler"), None)
            });
            Done::Looked(Looked { service, ask, seen, noted })
        });
    }

    /// A look came back from the pool.
    pub(super) fn looked_in_pool(&mut self, looked: Looked) {
        let Looked { service, ask, seen, noted } = looked;
        let wall = self.now().wall;
        let Some(served) = self.services.get_mut(&service) else { return };
        // By the question: its check may have got another place since.
        let asked = |looking: &Looking| looking.out.is_some_and(|out| out.ask == ask);
        let found = served.looking.iter_mut().find(|(_, looking)| asked(looking));
        let Some((&check, looking)) = found else { return };
        let Some(out) = looking.out.take().filter(|out| out.about == About::Now) else { return };
        let in_time = self.looks.remove(&(out.until, service.clone(), check));
        if let Some(Noted { before, after, trouble }) = noted {
            // Nobody hears of what came too late, so the next look sees it again.
            looking.memory = Some(if in_time { after } else { before });
            if let Some(why) = trouble.filter(|_| !std::mem::replace(&mut looking.said, true)) {
                let text = format!("lines written while no heeler runs may be missed: {why}");
                self.log.say(wall, Level::Warning, service.as_str(), text);
            }
        }
        if in_time {
            self.observed(service, check, ask, seen);
        }
    }

    /// The checks of a service are others now: what is known of those that go on goes with them.
    pub(super) fn carry_looks(&mut self, service: &ServiceName, kept: &[Kept]) {
        let Some(served) = self.services.get_mut(service) else { return };
        let mut before = std::mem::take(&mut served.looking);
        let mut moved = Vec::new();
        for (place, kept) in (0..).map(CheckIndex).zip(kept) {
            let looking = match kept {
                Kept::New => None,
                Kept::Same(was) => {
                    if *was != place {
                        moved.push((*was, place));
                    }
                    before.remove(was)
                }
                // A look that hangs goes on hanging: there must not be a second one beside it.
                Kept::Other(was) => before.remove(was).and_then(|looking| looking.out).map(|out| {
                    let out = Some(Out { about: About::Before, ..out });
                    Looking { out, ..Looking::default() }
                }),
            };
            served.looking.extend(looking.map(|looking| (place, looking)));
        }
        let waited: BTreeSet<_> =
            self.looks.iter().filter(|(_, name, _)| name == service).map(|(at, ..)| *at).collect();
        self.looks.retain(|(_, name, _)| name != service);
        let still = served.looking.iter().filter_map(|(place, looking)| {
            let out = looking.out.filter(|out| out.about == About::Now)?;
            waited.contains(&out.until).then(|| (out.until, service.clone(), *place))
        });
        self.looks.extend(still);
        if let Err(error) = move_notebooks(&served.records, &moved) {
            let text = format!("lines written while no heeler runs may be missed: {error}");
            self.log.say(self.now().wall, Level::Warning, service.as_str(), text);
        }
    }

    /// Looks whose time is over.
    pub(super) fn looks_due(&mut self, now: Instant) {
        while self.looks.first().is_some_and(|(until, ..)| now >= *until) {
            let Some((_, service, check)) = self.looks.pop_first() else { return };
            let out =
                self.services.get(&service).and_then(|served| served.looking.get(&check)?.out);
            let Some(Out { ask, .. }) = out else { continue };
            let text = "it did not come back in time: does its file system hang? try `df`";
            let seen = Observation::unknown(text);
            self.observed(service, check, ask, seen);
        }
    }

    /// When the first of them is over.
    pub(super) fn looks_wakeup(&self) -> Option<Instant> {
        self.looks.first().map(|(until, ..)| *until)
    }
}

/// What was written down about checks goes with them to their new places.
fn move_notebooks(records: &Path, moved: &[(CheckIndex, CheckIndex)]) -> std::io::Result<()> {
    // By a name that is nobody's: they may change places with each other.
    let aside = |place: &CheckIndex| records.join(format!(".check-{}.moving", place.0));
    let mut result = Ok(());
    let mut rename = |from: PathBuf, to: PathBuf| match std::fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => result = Err(error),
        Ok(()) | Err(_) => {}
    };
    for (was, place) in moved {
        rename(records.join(notebook_of(*was)), aside(place));
    }
    for (_, place) in moved {
        rename(aside(place), records.join(notebook_of(*place)));
    }
    result
}

fn notebook_of(place: CheckIndex) -> String {
    format!("check-{}.past", place.0)
}

impl Notebook {
    fn of(records: &Path, check: CheckIndex, files: Files) -> Self {
        Self { records: records.to_owned(), name: notebook_of(check), files }
    }

    /// What an earlier keeper wrote down; what is missing, damaged or of other settings is nothing.
    fn read(&self) -> Memory {
        let kept = records::read_record(&self.records, &self.name).ok().flatten();
        let past = kept.as_deref().and_then(|kept| self.files.recall(kept));
        Memory { past, kept }
    }

    /// Writes the past down where it is not yet.
    fn keep(&self, memory: &mut Memory) -> Result<(), String> {
        let Some(now) = self.files.keep(memory.past.as_ref()) else { return Ok(()) };
        if memory.kept.as_ref() == Some(&now) {
            return Ok(());
        }
        let written = records::write_record(&self.records, &self.name, &now);
        let path = self.records.join(&self.name);
        written.map_err(|error| format!("failed to write {}: {error}", path.display()))?;
        memory.kept = Some(now);
        Ok(())
    }
}
