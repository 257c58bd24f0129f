//! How processes and commands live and die, and what else happens to them.

use std::time::Duration;

use heeler::engine::input::Input;
use heeler::model::ids::ActionId;
use heeler::model::job::{Ended, Job, JobKind, Outcome, Output};
use heeler::model::process::{Exit, Identification, Pid, ProcessIdentity};
use heeler::model::service::Life;
use heeler::model::time::Mono;

use crate::faults::Fault;
use crate::world::{Ev, JobStep, Manner, Pidfile, Proc, Role, Shim, Starter, World};

const SUCCESS: Ended = Ended::Exited(Exit::Code(0));
const FAILURE: Ended = Ended::Exited(Exit::Code(1));

impl World {
    // ---- processes ---------------------------------------------------------------------------

    /// A main process begins. Beside a living one it mostly fails: its port is taken.
    pub(crate) fn spawn_main(
        &mut self,
        svc: usize,
        by: Starter,
        instance: Option<ActionId>,
    ) -> Option<ProcessIdentity> {
        let beside = !self.mains(svc).is_empty();
        if beside && (self.faults.calm || self.rng.chance(700)) {
            return None;
        }
        let identity = self.new_identity(None);
        let deaf = self.faults.strikes(&mut self.rng, Fault::Hang, 100);
        let proc = Proc {
            svc,
            role: Role::Main,
            parent: None,
            by,
            born: self.now,
            deaf_until: if deaf { Mono::NEVER } else { Mono::ZERO },
            stuck_until: Mono::ZERO,
            outlives: false,
            instance,
        };
        self.procs.insert(identity, proc);
        self.note(|| format!("WORLD {} begins by {by:?}: {identity:?}", self.svcs[svc].def.name));
        for _ in 0..self.rng.below(3) {
            self.spawn_child(svc, identity);
        }
        Some(identity)
    }

    fn spawn_child(&mut self, svc: usize, parent: ProcessIdentity) {
        let outlives = self.faults.strikes(&mut self.rng, Fault::Survivors, 300);
        let deaf = outlives && self.rng.chance(400);
        let role = Role::Child {
            holds_socket: self.rng.chance(600),
            foreign: outlives && self.rng.chance(150),
        };
        let identity = self.new_identity(None);
        let proc = Proc {
            svc,
            role,
            parent: Some(parent),
            by: Starter::Other,
            born: self.now,
            deaf_until: if deaf { Mono::NEVER } else { Mono::ZERO },
            stuck_until: Mono::ZERO,
            outlives,
            instance: None,
        };
        self.procs.insert(identity, proc);
    }

    pub(crate) fn write_pidfile(&mut self, svc: usize, identity: ProcessIdentity) {
        if self.alive(identity) && matches!(self.svcs[svc].def.life, Life::Pidfile(_)) {
            let written = self.now;
            self.svcs[svc].pidfile = Some(Pidfile { pid: identity.pid, written });
        }
    }

    /// Somebody else starts it; a `run` service nobody else can.
    pub(crate) fn started_by_other(&mut self, svc: usize) {
        if matches!(self.svcs[svc].def.life, Life::Run(_)) {
            return;
        }
        if let Some(identity) = self.spawn_main(svc, Starter::Other, None) {
            let wait = self.rng.span(0, 300);
            self.after(wait, Ev::WritePidfile { svc, identity });
        }
    }

    /// Its stop signal reached it.
    pub(crate) fn told_to_go(&mut self, identity: ProcessIdentity) {
        let now = self.now;
        let Some(proc) = self.procs.get(&identity) else {
            return;
        };
        if proc.deaf_until > now {
            return;
        }
        let stop_timeout = self.svcs[proc.svc].def.stop_timeout;
        let slow = self.faults.strikes(&mut self.rng, Fault::Hang, 100);
        let wait = if slow { self.rng.share(stop_timeout, 80, 130) } else { self.rng.span(1, 700) };
        let orderly = self.rng.chance(800);
        let manner = if orderly { Manner::Orderly } else { Manner::Crash };
        self.after(wait, Ev::Exit { identity, exit: Exit::Code(0), manner });
    }

    pub(crate) fn killed(&mut self, identity: ProcessIdentity) {
        let Some(proc) = self.procs.get(&identity) else {
            return;
        };
        let wait = proc.stuck_until.since(self.now) + self.rng.span(0, 5);
        let (exit, manner) = (Exit::Signal(9), Manner::Crash);
        self.after(wait, Ev::Exit { identity, exit, manner });
    }

    pub(crate) fn exit(&mut self, identity: ProcessIdentity, exit: Exit, manner: Manner) {
        let stuck_until = self.procs.get(&identity).map_or(Mono::ZERO, |proc| proc.stuck_until);
        if stuck_until > self.now {
            // It ends as soon as it can.
            let wait = stuck_until.since(self.now);
            self.after(wait, Ev::Exit { identity, exit, manner });
            return;
        }
        let Some(proc) = self.procs.remove(&identity) else {
            return;
        };
        let svc = proc.svc;
        if proc.role == Role::Main {
            self.note(|| format!("WORLD main {identity:?} ends: {exit}, {manner:?}"));
            let names_it = self.svcs[svc].pidfile.is_some_and(|file| file.pid == identity.pid);
            if manner == Manner::Orderly && names_it {
                self.svcs[svc].pidfile = None;
            }
        }
        let children: Vec<_> = self
            .procs
            .iter()
            .filter(|(_, child)| child.parent == Some(identity))
            .map(|(child, proc)| (*child, proc.outlives))
            .collect();
        for (child, outlives) in children {
            let wait = if outlives { self.rng.span(1000, 60_000) } else { self.rng.span(0, 400) };
            let (exit, manner) = (Exit::Code(0), Manner::Crash);
            self.after(wait, Ev::Exit { identity: child, exit, manner });
        }
        self.tell_exit(svc, identity, exit, proc.instance.is_some());
        if let Some(action) = proc.instance {
            self.instance_ended(svc, action, Ended::Exited(exit));
        }
    }

    fn tell_exit(&mut self, svc: usize, identity: ProcessIdentity, exit: Exit, known: bool) {
        let held = self.held.remove(&(svc, identity));
        if !held || self.engine.is_none() {
            return;
        }
        if self.faults.strikes(&mut self.rng, Fault::LostExit, 100) {
            return;
        }
        let service = self.svcs[svc].def.name.clone();
        let input = Input::Exited { service, identity, exit: known.then_some(exit) };
        let again = self.faults.strikes(&mut self.rng, Fault::DoubleExit, 150);
        for _ in 0..1 + u32::from(again) {
            let wait = self.rng.span(0, 10);
            self.input_later(wait, input.clone());
        }
    }

    // ---- commands ----------------------------------------------------------------------------

    pub(crate) fn begin_job(&mut self, svc: usize, job: &Job) {
        let shim =
            Shim { action: job.action, kind: job.kind, deadline: job.deadline, before: job.main };
        if job.kind == JobKind::Instance {
            self.svcs[svc].launching = Some(job.action);
        } else {
            self.svcs[svc].job = Some(shim);
            self.svcs[svc].outcome = None;
        }
        self.crew_job(svc, job);
        let (steps, mut end, ended) = self.plan(svc, job);
        let patience = job.deadline.since(self.now);
        let ended = if end >= patience && job.kind != JobKind::Instance {
            end = patience + self.rng.span(0, 4000);
            Ended::TimedOut
        } else {
            ended
        };
        for (wait, step) in steps {
            self.after(wait, Ev::Job { svc, action: job.action, step });
        }
        if job.kind != JobKind::Instance || ended != SUCCESS {
            let step = JobStep::End(ended);
            self.after(end, Ev::Job { svc, action: job.action, step });
        }
    }

    /// What a command will do and when, when it ends, and how.
    fn plan(&mut self, svc: usize, job: &Job) -> (Vec<(Duration, JobStep)>, Duration, Ended) {
        let soon = self.rng.span(2, 400);
        let later = soon + self.rng.span(1, 600);
        if self.faults.strikes(&mut self.rng, Fault::NotExecuted, 100) {
            let stage = "find the user".into();
            let error = "no such user".into();
            return (Vec::new(), soon, Ended::NotExecuted { stage, error });
        }
        if self.faults.strikes(&mut self.rng, Fault::JobLost, 60) {
            // Its shim is killed; the command may have been on its way, and goes on.
            let steps = match job.kind {
                JobKind::Start if self.rng.chance(500) => self.plan_start(svc, soon, later).0,
                JobKind::Start
                | JobKind::Stop
                | JobKind::Restart
                | JobKind::Reload
                | JobKind::Exec
                | JobKind::Instance
                | JobKind::Look
                | JobKind::Ask
                | JobKind::Probe(_) => Vec::new(),
            };
            return (steps, soon, Ended::Lost);
        }
        let never = Duration::from_secs(100_000);
        match job.kind {
            JobKind::Start => self.plan_start(svc, soon, later),
            JobKind::Stop => match self.faults.strikes(&mut self.rng, Fault::StopFails, 400) {
                true if self.rng.chance(500) => (Vec::new(), never, SUCCESS),
                true => (Vec::new(), later, FAILURE),
                false => (vec![(soon, JobStep::Term)], later, SUCCESS),
            },
            JobKind::Restart if self.faults.strikes(&mut self.rng, Fault::RestartFails, 400) => {
                let end = if self.rng.chance(300) { never } else { later };
                (Vec::new(), end, FAILURE)
            }
            JobKind::Restart if self.faults.strikes(&mut self.rng, Fault::ReloadInPlace, 300) => {
                (Vec::new(), later, SUCCESS)
            }
            // What it reloads goes on, or is replaced as by a restart.
            JobKind::Reload if self.rng.chance(600) => {
                (Vec::new(), later, if self.rng.chance(800) { SUCCESS } else { FAILURE })
            }
            JobKind::Reload | JobKind::Restart => {
                let respawn = later + self.rng.span(300, 1500);
                let steps = vec![(soon, JobStep::Term), (respawn, JobStep::Respawn)];
                (steps, respawn + self.rng.span(0, 500), SUCCESS)
            }
            JobKind::Instance => {
                if self.faults.strikes(&mut self.rng, Fault::FailingStart, 250) {
                    return (Vec::new(), soon, FAILURE);
                }
                (vec![(soon, JobStep::Launch)], Duration::ZERO, SUCCESS)
            }
            JobKind::Exec | JobKind::Look | JobKind::Ask | JobKind::Probe(_) => {
                let end = if self.rng.chance(100) { never } else { later };
                (Vec::new(), end, if self.rng.chance(800) { SUCCESS } else { FAILURE })
            }
        }
    }

    fn plan_start(
        &mut self,
        svc: usize,
        soon: Duration,
        later: Duration,
    ) -> (Vec<(Duration, JobStep)>, Duration, Ended) {
        let timeout = self.svcs[svc].def.start_timeout;
        if self.faults.strikes(&mut self.rng, Fault::FailingStart, 300) {
            return (Vec::new(), soon, FAILURE);
        }
        let mut pidfile_after = self.rng.span(0, 300);
        let mut spawn = soon;
        let mut end = later;
        if self.faults.strikes(&mut self.rng, Fault::SlowStart, 300) {
            pidfile_after = self.rng.share(timeout, 60, 250);
        }
        if self.faults.strikes(&mut self.rng, Fault::LateDaemon, 300) {
            spawn = later + self.rng.share(timeout, 10, 150);
        }
        if self.faults.strikes(&mut self.rng, Fault::HangingStart, 200) {
            end = Duration::from_secs(100_000);
            if self.rng.chance(500) {
                return (Vec::new(), end, SUCCESS);
            }
        }
        (vec![(spawn, JobStep::Spawn { pidfile_after })], end, SUCCESS)
    }

    pub(crate) fn job_step(&mut self, svc: usize, action: ActionId, step: JobStep) {
        match step {
            JobStep::Spawn { pidfile_after } => {
                if let Some(identity) = self.spawn_main(svc, Starter::Heeler, None) {
                    self.after(pidfile_after, Ev::WritePidfile { svc, identity });
                }
            }
            JobStep::Launch => {
                self.svcs[svc].launching = None;
                let Some(identity) = self.spawn_main(svc, Starter::Heeler, Some(action)) else {
                    self.instance_ended(svc, action, FAILURE);
                    return;
                };
                if self.engine.is_some() && self.ask_is_from(heeler::model::ids::AskId(action.0)) {
                    self.held.insert((svc, identity));
                    let service = self.svcs[svc].def.name.clone();
                    self.step(Input::Launched { service, action, identity });
                }
            }
            JobStep::Term => {
                if let Identification::One(identity) = self.claimed(svc) {
                    self.told_to_go(identity);
                }
            }
            JobStep::Respawn => {
                if let Some(identity) = self.spawn_main(svc, Starter::Heeler, None) {
                    let wait = self.rng.span(0, 200);
                    self.after(wait, Ev::WritePidfile { svc, identity });
                }
            }
            JobStep::End(ended) => self.job_ended(svc, action, ended),
        }
    }

    fn job_ended(&mut self, svc: usize, action: ActionId, ended: Ended) {
        if self.svcs[svc].launching == Some(action) {
            self.svcs[svc].launching = None;
            self.instance_ended(svc, action, ended);
            return;
        }
        let shim = self.svcs[svc].job.take_if(|shim| shim.action == action);
        let Some(shim) = shim else { return };
        self.note(|| format!("WORLD job {:?} {action} ends: {ended}", shim.kind));
        let outcome = Outcome { ended, output: Output::default(), took: Duration::from_millis(5) };
        self.svcs[svc].outcome = Some((shim, outcome.clone()));
        if outcome.ended.succeeded() {
            self.crew_job_succeeded(svc, action);
        }
        self.tell_finished(svc, action, outcome);
    }

    fn instance_ended(&mut self, svc: usize, action: ActionId, ended: Ended) {
        let outcome = Outcome { ended, output: Output::default(), took: Duration::from_millis(5) };
        self.tell_finished(svc, action, outcome);
    }

    fn tell_finished(&mut self, svc: usize, action: ActionId, outcome: Outcome) {
        if self.engine.is_none() {
            return;
        }
        let service = self.svcs[svc].def.name.clone();
        let input = Input::Finished { service, action, outcome };
        if let Some(wait) = self.latency() {
            self.input_later(wait, input);
        }
    }

    // ---- mischief ----------------------------------------------------------------------------

    pub(crate) fn mischief(&mut self, fault: Fault) {
        let svc = usize::try_from(self.rng.below(self.svcs.len() as u64)).expect("an index");
        let main = self.mains(svc).first().copied();
        let until = self.now + self.rng.span(500, 25_000);
        self.note(|| format!("MISCHIEF {fault:?} {}", self.svcs[svc].def.name));
        self.faults.count(fault);
        let unknown = self.rng.chance(500);
        let truth = &mut self.svcs[svc];
        match fault {
            Fault::Unidentifiable if unknown => truth.unknown_until = until,
            Fault::Unidentifiable => truth.refused_until = until,
            Fault::RefusedSignal => truth.deaf_signals_until = until,
            Fault::MemoryGrowth => truth.big_until = until + Duration::from_secs(20),
            Fault::UnknownSample => truth.unseen_until = until,
            Fault::PidfileRemoved => truth.pidfile = None,
            Fault::SecondCopy => self.started_by_other(svc),
            Fault::ForeignPidfile => self.stranger(svc, None),
            Fault::PidReuse => {
                let stale = self.svcs[svc].pidfile.map(|file| file.pid);
                self.stranger(svc, stale);
            }
            Fault::Reload => self.file_changes(svc),
            Fault::ClockJump => self.jump_clock(),
            Fault::WallJump => self.jump_wall(),
            Fault::KeeperKill => {
                if self.engine.is_some() {
                    self.kill_keeper();
                }
            }
            Fault::Crash => self.end_main(main, Exit::Signal(11), Manner::Crash),
            Fault::OrderlyExit => self.end_main(main, Exit::Code(0), Manner::Orderly),
            Fault::Deploy => {
                self.end_main(main, Exit::Code(0), Manner::Orderly);
                let wait = self.rng.span(20, 6000);
                self.after(wait, Ev::StartedByOther { svc });
            }
            Fault::Hang => self.harden(main, until, Mono::ZERO),
            Fault::Unkillable => self.harden(main, until, until),
            Fault::SlowStart
            | Fault::FailingStart
            | Fault::HangingStart
            | Fault::LateDaemon
            | Fault::NotExecuted
            | Fault::JobLost
            | Fault::StopFails
            | Fault::RestartFails
            | Fault::ReloadInPlace
            | Fault::LostExit
            | Fault::DoubleExit
            | Fault::LateAnswer
            | Fault::MissingAnswer
            | Fault::Survivors
            | Fault::FailingSurvey
            | Fault::ManagerAtWork
            | Fault::Operator
            | Fault::LateTick
            | Fault::KillBetween
            | Fault::WorkerLeaks
            | Fault::StuckWorker
            | Fault::FrozenWorker
            | Fault::FragileWorker
            | Fault::ForeignWorker
            | Fault::WorkerCrash
            | Fault::NoSuccessor
            | Fault::CrewUnseen
            | Fault::CrewAnswerLate
            | Fault::CrewAnswerMissing
            | Fault::CrewOperator
            | Fault::BadRelease
            | Fault::PumaMute
            | Fault::PumaIdle
            | Fault::DeadlyReload
            | Fault::SlowStore => {}
        }
    }

    fn end_main(&mut self, main: Option<ProcessIdentity>, exit: Exit, manner: Manner) {
        if let Some(identity) = main {
            self.exit(identity, exit, manner);
        }
    }

    fn harden(&mut self, main: Option<ProcessIdentity>, deaf_until: Mono, stuck_until: Mono) {
        if let Some(proc) = main.and_then(|identity| self.procs.get_mut(&identity)) {
            proc.deaf_until = deaf_until;
            proc.stuck_until = proc.stuck_until.max(stuck_until);
        }
    }

    /// A process that is nobody's business: it takes a dead pid, or gets into the pidfile.
    fn stranger(&mut self, svc: usize, wanted: Option<Pid>) {
        let identity = self.new_identity(wanted);
        let proc = Proc {
            svc: usize::MAX,
            role: Role::Stranger,
            parent: None,
            by: Starter::Other,
            born: self.now,
            deaf_until: Mono::ZERO,
            stuck_until: Mono::ZERO,
            outlives: false,
            instance: None,
        };
        self.procs.insert(identity, proc);
        let pidfile = matches!(self.svcs[svc].def.life, Life::Pidfile(_));
        if wanted.is_none() && pidfile {
            let written = self.now;
            self.svcs[svc].pidfile = Some(Pidfile { pid: identity.pid, written });
        }
        let wait = self.rng.span(500, 40_000);
        let (exit, manner) = (Exit::Code(0), Manner::Crash);
        self.after(wait, Ev::Exit { identity, exit, manner });
    }

    // ---- calm --------------------------------------------------------------------------------

    /// Everything that is not heeler's to mend is mended.
    pub(crate) fn calm(&mut self) {
        self.note(|| "CALM".to_owned());
        self.faults.calm = true;
        let now = self.now;
        for svc in &mut self.svcs {
            svc.refused_until = now;
            svc.unknown_until = now;
            svc.deaf_signals_until = now;
            svc.big_until = now;
            svc.unseen_until = now;
        }
        for proc in self.procs.values_mut() {
            proc.deaf_until = now;
            proc.stuck_until = now;
        }
        self.crew_calm();
        let gone: Vec<_> = self
            .procs
            .iter()
            .filter(|(_, proc)| match proc.role {
                Role::Stranger => true,
                Role::Child { .. } => proc.outlives,
                Role::Main => false,
            })
            .map(|(identity, _)| *identity)
            .collect();
        for identity in gone {
            let wait = self.rng.span(0, 20_000);
            let (exit, manner) = (Exit::Code(0), Manner::Crash);
            self.after(wait, Ev::Exit { identity, exit, manner });
        }
        for svc in 0..self.svcs.len() {
            self.one_copy(svc);
            self.file_is_back(svc);
        }
    }

    /// Second copies go, and the one that stays has its pidfile.
    fn one_copy(&mut self, svc: usize) {
        let mains = self.mains(svc);
        let claimed = match self.claimed(svc) {
            Identification::One(identity) | Identification::Succeeded(identity) => Some(identity),
            Identification::None(_) | Identification::Refused(_) | Identification::Unknown(_) => {
                mains.first().copied()
            }
        };
        for identity in mains {
            if Some(identity) == claimed {
                self.write_pidfile(svc, identity);
            } else {
                self.exit(identity, Exit::Code(0), Manner::Crash);
            }
        }
        if claimed.is_none() {
            self.svcs[svc].pidfile = None;
        }
    }
}
