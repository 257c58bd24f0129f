//! Probes of single checks: who carries each out, and what comes back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::checks::{self, Files, Past, Probe};
use crate::engine::effect::Level;
use crate::engine::input::Input;
use crate::keeper::Keeper;
use crate::keeper::turn::Done;
use crate::model::ids::{ActionId, AskId, CheckIndex, ServiceName};
use crate::model::job::{AtDeadline, Job, JobKind, Outcome};
use crate::model::limits;
use crate::model::observation::Observation;
use crate::model::time::Now;
use crate::sys::clock;

/// A look that the pool has taken.
pub(super) struct Looked {
    service: ServiceName,
    check: CheckIndex,
    ask: AskId,
    seen: Observation,
    past: Option<Past>,
}

/// What the keeper knows of one check's probes.
#[derive(Default)]
pub(super) struct Probing {
    /// The look that is in the pool; past its deadline nobody waits for it, but it is still there.
    look: Option<Looking>,
    /// What the last look left for the next.
    past: Option<Past>,
    /// Whether heeler had something to remark on the last run of its program: it is logged once.
    remarked: bool,
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
        let Some(served) = self.services.get(&service) else { return };
        let timeout = served.def.checks.get(usize::from(check.0)).map(|check| check.timeout);
        let now = self.now();
        let look = move |past| timed(|| files.look(past, now));
        self.probe_in_pool(service, check, ask, timeout.unwrap_or_default(), look);
    }

    /// Has the pool look. Nobody waits for it longer than `patience`.
    fn probe_in_pool(
        &mut self,
        service: ServiceName,
        check: CheckIndex,
        ask: AskId,
        patience: Duration,
        look: impl FnOnce(Option<Past>) -> (Observation, Option<Past>) + Send + 'static,
    ) {
        let Some(served) = self.services.get_mut(&service) else { return };
        let probing = served.probing.entry(check).or_default();
        if probing.look.is_some() {
            let text = "the last look has not come back yet: does its file system hang? try `df`";
            let seen = Observation::unknown(text);
            self.inbox.push_back(Input::Observed { service, ask, check, seen });
            return;
        }
        probing.look = Some(Looking { ask, until: Instant::now() + patience, answered: false });
        let past = probing.past.take();
        self.pool.submit(move || {
            let (seen, past) = catch_unwind(AssertUnwindSafe(|| look(past))).unwrap_or_else(|_| {
                (Observation::unknown("the look crashed: this is a bug of heeler"), None)
            });
            Done::Looked(Looked { service, check, ask, seen, past })
        });
    }

    /// A look came back from the pool.
    pub(super) fn looked_in_pool(&mut self, looked: Looked) {
        let Looked { service, check, ask, seen, past } = looked;
        let Some(served) = self.services.get_mut(&service) else { return };
        let Some(probing) = served.probing.get_mut(&check) else { return };
        let look = probing.look.take();
        probing.past = past;
        if look.is_some_and(|look| look.ask == ask && !look.answered) {
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
        let timeout = definition.timeout;
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
        let Some(served) = self.services.get_mut(&service) else { return };
        let at = usize::from(check.0);
        let (Some(Probe::Command(program)), Some(definition)) =
            (served.probes.get(at).cloned(), served.def.checks.get(at))
        else {
            return;
        };
        let timeout = definition.timeout;
        let program_is_matched = program.expect.is_some();
        let remarks = checks::program::remarks(&outcome.output);
        let probing = served.probing.entry(check).or_default();
        let before = std::mem::replace(&mut probing.remarked, !remarks.is_empty());
        for remark in remarks.iter().filter(|_| !before) {
            let text = format!("{}: {remark}", definition.label);
            self.log.say(clock::now().wall, Level::Warning, service.as_str(), text);
        }
        let ask = AskId(action.0);
        let read = move |outcome: &Outcome| Observation {
            took: outcome.took,
            ..checks::program::read(&program, timeout, outcome)
        };
        if program_is_matched {
            // A pattern may take its time with all that a program printed.
            let outcome = outcome.clone();
            let look = move |past| (read(&outcome), past);
            self.probe_in_pool(service, check, ask, limits::FILE_POOL_DEADLINE, look);
            return;
        }
        let seen = read(outcome);
        self.inbox.push_back(Input::Observed { service, ask, check, seen });
    }
}

/// With how long it took.
fn timed<T>(look: impl FnOnce() -> (Observation, T)) -> (Observation, T) {
    let began: Now = clock::now();
    let (mut seen, rest) = look();
    seen.took = clock::now().mono.since(began.mono);
    (seen, rest)
}
