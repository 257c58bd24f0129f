//! Probes of single checks: who carries each out; and the programs, which are run by shims.

use std::time::Instant;

use crate::checks::{self, Probe};
use crate::engine::effect::Level;
use crate::keeper::Keeper;
use crate::keeper::jobs::Answers;
use crate::model::change::Kept;
use crate::model::ids::{ActionId, AskId, CheckIndex, ServiceName};
use crate::model::job::{AtDeadline, Job, JobKind, Outcome};
use crate::model::limits;
use crate::model::observation::Observation;
use crate::model::service::Command;

/// A probe that waits: for other programs to end, or for its password to be read.
pub(super) struct Waiting {
    pub(super) service: ServiceName,
    pub(super) check: CheckIndex,
    pub(super) ask: AskId,
    /// When it waits no longer.
    pub(super) until: Instant,
}

impl Keeper {
    /// Carries out one probe. It has exactly one answer, whatever happens.
    pub(super) fn probe(&mut self, service: ServiceName, check: CheckIndex, ask: AskId) {
        if self.waits_for_trial(&service, check, ask) {
            return;
        }
        let Some(served) = self.services.get(&service) else { return };
        match served.probes.get(usize::from(check.0)) {
            Some(Probe::Network(_)) => self.ask_scout(service, check, ask),
            Some(Probe::Files(files)) => {
                let files = files.clone();
                self.look_at_files(service, check, ask, files);
            }
            Some(Probe::Command(_)) => {
                let until = Instant::now() + limits::PROBE_QUEUE_MAX;
                self.programs_waiting.push_back(Waiting { service, check, ask, until });
                self.run_programs();
            }
            Some(Probe::Puma) => self.probe_puma(service, check, ask),
            Some(Probe::Sample | Probe::Workers) | None => {
                let seen = Observation::unknown("it has nothing to probe: this is a bug of heeler");
                self.observed(service, check, ask, seen);
            }
        }
    }

    /// A job ended that nobody waits for any more: what waits for room has some.
    pub(super) fn make_room(&mut self) {
        self.run_programs();
        self.run_unit_looks();
        self.ask_pumas();
    }

    /// Runs those programs there is room for: many of them due at once must leave room for actions.
    fn run_programs(&mut self) {
        let probes = |job: &&super::Running| matches!(job.kind, JobKind::Probe(_));
        while self.running.iter().filter(probes).count() < limits::PROGRAMS_MAX {
            let Some(Waiting { service, check, ask, .. }) = self.programs_waiting.pop_front()
            else {
                return;
            };
            self.run_program(service, check, ask);
        }
    }

    /// The checks of a service are others now: of what waits and runs for them, what goes on is heard, and
    /// what is left of the others is not.
    pub(super) fn carry_programs(&mut self, service: &ServiceName, kept: &[Kept]) {
        let place = |was: CheckIndex| {
            let at = kept.iter().position(|kept| *kept == Kept::Same(was));
            at.and_then(|at| u16::try_from(at).ok()).map(CheckIndex)
        };
        let mut void = Vec::new();
        self.programs_waiting.retain_mut(|waiting| {
            if waiting.service != *service {
                return true;
            }
            let now = place(waiting.check);
            waiting.check = now.unwrap_or(waiting.check);
            void.extend(now.is_none().then_some(waiting.ask));
            now.is_some()
        });
        for running in self.running.iter_mut().filter(|running| running.service == *service) {
            if let Answers::Check(was) = running.answers {
                running.answers = place(was).map_or(Answers::Nobody, Answers::Check);
                void.extend(place(was).is_none().then_some(AskId(running.action.0)));
            }
        }
        void.into_iter().for_each(|ask| self.trial_is_void(ask));
    }

    /// Programs that have waited for too long.
    pub(super) fn programs_due(&mut self, now: Instant) {
        while self.programs_waiting.front().is_some_and(|waiting| now >= waiting.until) {
            let Some(Waiting { service, check, ask, .. }) = self.programs_waiting.pop_front()
            else {
                return;
            };
            let seen = Observation::unknown("too many programs of checks run already");
            self.observed(service, check, ask, seen);
        }
    }

    /// When the first of them has.
    pub(super) fn programs_wakeup(&self) -> Option<Instant> {
        self.programs_waiting.front().map(|waiting| waiting.until)
    }

    /// Runs a program by a shim, as any command of the service.
    fn run_program(&mut self, service: ServiceName, check: CheckIndex, ask: AskId) {
        let Some(served) = self.services.get(&service) else { return };
        let (at, def) = (usize::from(check.0), &served.def);
        let Some(command) = self.program_of(&service, check) else { return };
        let Some(definition) = def.checks.get(at) else { return };
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
            deadline: self.now().mono + definition.timeout,
            reason: definition.label.to_string(),
            main,
            at_deadline: AtDeadline::Group,
            input: None,
            command,
        };
        self.run(job);
    }

    /// The question of the run of a check's program that is under way, or waits for others to end.
    pub(super) fn program_under_way(
        &self,
        service: &ServiceName,
        check: CheckIndex,
    ) -> Option<AskId> {
        let waiting = self.programs_waiting.iter();
        let waiting = waiting.filter(|one| one.service == *service && one.check == check);
        let running = self.running.iter();
        let running = running
            .filter(|job| job.service == *service && job.answers == Answers::Check(check))
            .map(|job| AskId(job.action.0));
        running.chain(waiting.map(|one| one.ask)).next()
    }

    fn program_of(&self, service: &ServiceName, check: CheckIndex) -> Option<Command> {
        match self.services.get(service)?.probes.get(usize::from(check.0))? {
            Probe::Command(program) => Some(program.command.clone()),
            Probe::Sample | Probe::Workers | Probe::Puma | Probe::Network(_) | Probe::Files(_) => {
                None
            }
        }
    }

    /// A program of a check ended.
    pub(super) fn program_ended(
        &mut self,
        service: ServiceName,
        check: CheckIndex,
        action: ActionId,
        outcome: &Outcome,
    ) {
        self.run_programs();
        let wall = self.now().wall;
        let Some(served) = self.services.get_mut(&service) else { return };
        let at = usize::from(check.0);
        let (Some(Probe::Command(program)), Some(definition)) =
            (served.probes.get(at).cloned(), served.def.checks.get(at))
        else {
            return;
        };
        let timeout = definition.timeout;
        let remarks = checks::program::remarks(&outcome.output);
        let looking = served.looking.entry(check).or_default();
        let before = std::mem::replace(&mut looking.remarked, !remarks.is_empty());
        for remark in remarks.iter().filter(|_| !before) {
            let text = format!("{}: {remark}", definition.label);
            self.log.say(wall, Level::Warning, service.as_str(), text);
        }
        let ask = AskId(action.0);
        let is_matched = program.expect.is_some();
        let read = move |outcome: &Outcome| Observation {
            took: outcome.took,
            ..checks::program::read(&program, timeout, outcome)
        };
        if is_matched {
            // A pattern may take its time with all that a program printed.
            let outcome = outcome.clone();
            let judge = move || read(&outcome);
            self.judge_in_pool(service, check, ask, limits::FILE_POOL_DEADLINE, judge);
            return;
        }
        let seen = read(outcome);
        self.observed(service, check, ask, seen);
    }
}
