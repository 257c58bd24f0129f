//! Probes of single checks: who carries each out, and what comes back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use crate::checks::{self, Files, Past, Probe};
use crate::engine::effect::Level;
use crate::engine::input::Input;
use crate::keeper::Keeper;
use crate::keeper::turn::Done;
use crate::model::ids::{ActionId, AskId, CheckIndex, ServiceName};
use crate::model::job::{AtDeadline, Job, JobKind, Outcome};
use crate::model::observation::{self, Observation};
use crate::model::time::Now;
use crate::sys::{clock, records};

/// A look that the pool has taken.
pub(super) struct Looked {
    service: ServiceName,
    check: CheckIndex,
    ask: AskId,
    seen: Observation,
    /// What was known before it, and what is known after it.
    before: Memory,
    after: Memory,
    /// Why the past could not be written down.
    trouble: Option<String>,
}

/// What the keeper knows of one check's probes.
#[derive(Default)]
pub(super) struct Probing {
    /// The look that is in the pool; past its deadline nobody waits for it, but it is still there.
    look: Option<Looking>,
    /// What the last look left for the next; `None` until what an earlier keeper wrote down is read.
    memory: Option<Memory>,
    /// Whether it was said that this cannot be written down: once is enough.
    said: bool,
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

#[derive(Clone, Copy)]
struct Looking {
    ask: AskId,
    /// When it is given up on.
    until: Instant,
    answered: bool,
}

impl Keeper {
    /// Carries out one probe. It has exactly one answer, whatever happens.
    pub(super) fn probe(&mut self, service: ServiceName, check: CheckIndex, ask: AskId) {
        let Some(served) = self.services.get(&service) else { return };
        match served.probes.get(usize::from(check.0)) {
            Some(Probe::Network(_)) => self.ask_scout(service, check, ask),
            Some(Probe::Files(files)) => {
                let files = files.clone();
                self.look_at_files(service, check, ask, files);
            }
            Some(Probe::Command(program)) => {
                let command = program.command.clone();
                self.run_program(service, check, ask, command);
            }
            Some(Probe::Sample) | None => {
                let seen = Observation::unknown("it has nothing to probe: this is a bug of heeler");
                self.inbox.push_back(Input::Observed { service, ask, check, seen });
            }
        }
    }

    /// Looks at files in the pool: they may hang.
    fn look_at_files(&mut self, service: ServiceName, check: CheckIndex, ask: AskId, files: Files) {
        let Some(served) = self.services.get_mut(&service) else { return };
        let timeout = served.def.checks.get(usize::from(check.0)).map(|check| check.timeout);
        let probing = served.probing.entry(check).or_default();
        if probing.look.is_some() {
            let text = "the last look has not come back yet: does its file system hang? try `df`";
            let seen = Observation::unknown(text);
            self.inbox.push_back(Input::Observed { service, ask, check, seen });
            return;
        }
        let until = Instant::now() + timeout.unwrap_or_default();
        probing.look = Some(Looking { ask, until, answered: false });
        let memory = probing.memory.clone();
        let name = format!("check-{}.past", check.0);
        let notebook = Notebook { records: served.records.clone(), name, files };
        let now = self.now();
        self.pool.submit(move || {
            let mut before = memory.unwrap_or_else(|| notebook.read());
            // What the last look saw has been judged by now. Had it been written down any sooner, a
            // keeper that is killed in between would have lost it.
            let mut trouble = notebook.keep(&mut before).err();
            let past = before.past.clone();
            let look = AssertUnwindSafe(|| timed(|| notebook.files.look(past, now)));
            let mut after = before.clone();
            let seen = match catch_unwind(look) {
                Ok((seen, past)) => {
                    after.past = past;
                    seen
                }
                Err(_) => Observation::unknown("the look crashed: this is a bug of heeler"),
            };
            if seen.outcome == observation::Outcome::Ok {
                // Nothing was seen that could be lost: from here on nothing is missed.
                trouble = notebook.keep(&mut after).err();
            }
            Done::Looked(Looked { service, check, ask, seen, before, after, trouble })
        });
    }

    /// A look came back from the pool.
    pub(super) fn looked_in_pool(&mut self, looked: Looked) {
        let Looked { service, check, ask, seen, before, after, trouble } = looked;
        let wall = self.now().wall;
        let Some(served) = self.services.get_mut(&service) else { return };
        let Some(probing) = served.probing.get_mut(&check) else { return };
        let look = probing.look.take();
        let in_time = look.is_some_and(|look| look.ask == ask && !look.answered);
        // Nobody hears of what came too late, so the next look sees it again.
        probing.memory = Some(if in_time { after } else { before });
        if let Some(why) = trouble.filter(|_| !std::mem::replace(&mut probing.said, true)) {
            let text = format!("lines written while no heeler runs may be missed: {why}");
            self.log.say(wall, Level::Warning, service.as_str(), text);
        }
        if in_time {
            self.inbox.push_back(Input::Observed { service, ask, check, seen });
        }
    }

    /// Looks whose time is over.
    pub(super) fn probes_due(&mut self, now: Instant) {
        for (service, served) in &mut self.services {
            for (check, probing) in &mut served.probing {
                let Some(look) = probing.look.as_mut() else { continue };
                if look.answered || now < look.until {
                    continue;
                }
                look.answered = true;
                let text = "it did not come back in time: does its file system hang? try `df`";
                let (service, check, ask) = (service.clone(), *check, look.ask);
                let seen = Observation::unknown(text);
                self.inbox.push_back(Input::Observed { service, ask, check, seen });
            }
        }
    }

    /// When the first of them is over.
    pub(super) fn probes_wakeup(&self) -> Option<Instant> {
        let all = self.services.values().flat_map(|served| served.probing.values());
        all.filter_map(|probing| probing.look)
            .filter(|look| !look.answered)
            .map(|look| look.until)
            .min()
    }

    /// Runs a program by a shim, as any command of the service.
    fn run_program(
        &mut self,
        service: ServiceName,
        check: CheckIndex,
        ask: AskId,
        command: crate::model::service::Command,
    ) {
        let Some(served) = self.services.get(&service) else { return };
        let def = &served.def;
        let Some(definition) = def.checks.get(usize::from(check.0)) else { return };
        let timeout = command.timeout.unwrap_or(definition.timeout);
        let main = served.families.keys().next_back().copied();
        let job = Job {
            action: ActionId(ask.0),
            service: service.clone(),
            kind: JobKind::Probe(check),
            user: def.user.clone(),
            group: def.group.clone(),
            env: def.env.clone(),
            env_file: def.env_file.clone(),
            cwd: def.cwd.clone(),
            deadline: self.now().mono + timeout,
            reason: definition.label.to_string(),
            main,
            at_deadline: AtDeadline::Group,
            command,
        };
        self.run(job);
    }

    /// A program of a check ended.
    pub(super) fn program_ended(
        &mut self,
        service: ServiceName,
        check: CheckIndex,
        action: ActionId,
        outcome: &Outcome,
    ) {
        let Some(served) = self.services.get(&service) else { return };
        let Some(Probe::Command(program)) = served.probes.get(usize::from(check.0)) else { return };
        let mut seen = checks::program::read(program, outcome);
        seen.took = outcome.took;
        let ask = AskId(action.0);
        self.inbox.push_back(Input::Observed { service, ask, check, seen });
    }
}

impl Notebook {
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

/// With how long it took.
fn timed<T>(look: impl FnOnce() -> (Observation, T)) -> (Observation, T) {
    let began: Now = clock::now();
    let (mut seen, rest) = look();
    seen.took = clock::now().mono.since(began.mono);
    (seen, rest)
}
