//! Jobs in flight: spawning shims, hearing from them, and taking over those of an earlier keeper.
//!
//! A shim says `executed` on its status pipe and closes it once the outcome is in place. A shim that an
//! earlier keeper spawned has no pipe to this one: its lock and its records are looked at instead, and
//! where it keeps a foreground program only when that or the shim itself ended.

mod left;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::engine::effect::Level;
use crate::engine::input::Input;
use crate::keeper::Keeper;
use crate::keeper::turn::Source;
use crate::model::ids::{ActionId, CheckIndex, ServiceName};
use crate::model::job::{Ended, Job, JobKind, Outcome, Output};
use crate::model::process::{Exit, ProcessIdentity};
use crate::model::text::Untrusted;
use crate::sys::identity::{self, Found, Proved};
use crate::sys::lock::{self, TryLock};
use crate::sys::records;
use crate::sys::spawn::{self, EXECUTED, Shim};
use crate::wire::shim::{ChildRecord, JobRecord, OutcomeRecord, Plan, Record, Slot, SlotFile};

/// How often the records of an earlier keeper's shim are looked at.
const ADOPTED_POLL: Duration = Duration::from_millis(50);
/// How often it is looked whether a shim that cannot be watched is to be reaped.
const UNWATCHED_POLL: Duration = Duration::from_secs(1);

/// A job in flight. It goes on when its service is forgotten, and is heard to its end.
pub(super) struct Running {
    pub(super) service: ServiceName,
    /// Where its records are: those of its service when it began.
    pub(super) records: PathBuf,
    pub(super) slot: Slot,
    pub(super) action: ActionId,
    pub(super) kind: JobKind,
    pub(super) answers: Answers,
    voice: Voice,
    /// The foreground program's process, once executed.
    child: Option<ProcessIdentity>,
    /// What was started was seen, be it gone again.
    came: bool,
}

/// What a job's end answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answers {
    /// A question of the engine, as the job's kind says.
    Engine,
    /// The probe of the check that has this place now.
    Check(CheckIndex),
    /// Nothing any more: what it was asked about was defined anew.
    Nobody,
}

/// How a shim is heard.
enum Voice {
    /// By its pipe, under this token.
    Pipe { status: OwnedFd, token: u64 },
    /// By looking.
    Records { look_at: Instant },
    /// By the end of the shim or of the foreground program it keeps, each watched under its token.
    Ends([(Proved, u64); 2]),
}

impl Keeper {
    /// Spawns the shim of a job. Whatever goes wrong is the job's outcome: nothing was executed.
    pub(super) fn run(&mut self, job: Job) {
        let (service, action, kind) = (job.service.clone(), job.action, job.kind);
        if let Err((stage, error)) = self.spawn(job) {
            let ended =
                Ended::NotExecuted { stage: stage.into(), error: Untrusted::from(error.as_str()) };
            let outcome = Outcome { ended, output: Output::default(), took: Duration::ZERO };
            match kind {
                JobKind::Probe(check) => {
                    self.program_ended(service, check, action, &outcome);
                    return;
                }
                JobKind::Look => {
                    self.unit_looked(service, action, &outcome);
                    return;
                }
                JobKind::Ask => {
                    self.puma_answered(service, action, &outcome);
                    return;
                }
                JobKind::Start
                | JobKind::Stop
                | JobKind::Restart
                | JobKind::Reload
                | JobKind::Instance
                | JobKind::Exec => {}
            }
            self.log.say(
                self.now().wall,
                Level::Error,
                service.as_str(),
                outcome.ended.to_string(),
            );
            self.inbox.push_back(Input::Finished { service, action, outcome });
        }
    }

    fn spawn(&mut self, job: Job) -> Result<(), (&'static str, String)> {
        let said = |stage: &'static str| move |error: std::io::Error| (stage, error.to_string());
        let slot = Slot::of(job.kind);
        let Some(served) = self.services.get(&job.service) else {
            return Err(("find the service", "it is not there any more".to_owned()));
        };
        let dir = served.records.clone();
        let lock = match lock::try_lock(&dir.join(slot.file(SlotFile::Lock))) {
            Ok(TryLock::Taken(lock)) => lock,
            Ok(TryLock::Busy) => {
                let what = match slot {
                    Slot::Look | Slot::Ask | Slot::Probe(_) => {
                        "an earlier run of it is still under way"
                    }
                    Slot::Action | Slot::Instance => "an earlier action still runs",
                };
                return Err(("take its lock", what.to_owned()));
            }
            Err(error) => return Err(said("take its lock")(error)),
        };
        let record = JobRecord {
            boot: self.boot_id.clone(),
            action: job.action,
            kind: job.kind,
            cause: job.reason.clone(),
            before: job.main,
            deadline: job.deadline,
            claim: Some(served.def.claim_mark()),
        };
        for old in [SlotFile::Child, SlotFile::Outcome] {
            records::remove_record(&dir, &slot.file(old)).map_err(said("record the action"))?;
        }
        // Nobody takes a probe, a look or a question over: its time is short, and it changed nothing.
        if !matches!(job.kind, JobKind::Probe(_) | JobKind::Look | JobKind::Ask) {
            records::write_record(&dir, &slot.file(SlotFile::Job), &record.encode())
                .map_err(said("record the action"))?;
        }
        let (service, action, kind) = (job.service.clone(), job.action, job.kind);
        let cgroup = self.group_of_command(&service, kind);
        let records = dir.clone();
        let plan = Plan { boot: self.boot_id.clone(), records: dir, cgroup, job };
        let plan = plan.encode().map_err(|error| ("write the plan", error.to_string()))?;
        let title = [service.as_str(), kind.name()];
        let Shim { pidfd, status, .. } =
            spawn::spawn_shim(&self.exe, title, &plan, lock).map_err(no_shim)?;
        // It is spawned, so it is heard one way or the other.
        let look_at = Instant::now() + ADOPTED_POLL;
        let voice = match self.watch(&status, Source::Status(action)) {
            Ok(token) => Voice::Pipe { status, token },
            Err(error) => {
                let text = format!("failed to watch a shim, looking at its records: {error}");
                self.log.say(self.now().wall, Level::Error, service.as_str(), text);
                Voice::Records { look_at }
            }
        };
        let shim_token = self.watch(&pidfd, Source::Shim(action)).map_err(|_| look_at);
        self.shims.insert(action, (shim_token, pidfd));
        let (child, came) = (None, false);
        let answers = match kind {
            JobKind::Probe(check) => Answers::Check(check),
            JobKind::Start
            | JobKind::Stop
            | JobKind::Restart
            | JobKind::Reload
            | JobKind::Exec
            | JobKind::Look
            | JobKind::Ask
            | JobKind::Instance => Answers::Engine,
        };
        let running = Running { service, records, slot, action, kind, answers, voice, child, came };
        self.running.push(running);
        Ok(())
    }

    /// The control group that a command is put into, where heeler has some to give: what brings the service
    /// up is put where the service is. What runs beside it would look like something that it left.
    fn group_of_command(&self, service: &ServiceName, kind: JobKind) -> Option<Box<str>> {
        match kind {
            JobKind::Start | JobKind::Restart | JobKind::Instance => self.group_of(service),
            JobKind::Stop
            | JobKind::Reload
            | JobKind::Exec
            | JobKind::Probe(_)
            | JobKind::Look
            | JobKind::Ask => None,
        }
    }

    /// A service's own control group.
    pub(super) fn group_of(&self, service: &ServiceName) -> Option<Box<str>> {
        let def = &self.services.get(service)?.def;
        self.groups.as_ref().map(|groups| groups.of(service, def.claim_mark()))
    }

    /// The status pipe of a shim became readable.
    pub(super) fn shim_speaks(&mut self, action: ActionId) {
        let Some(at) = self.running.iter().position(|running| running.action == action) else {
            return;
        };
        let Voice::Pipe { status, .. } = &self.running[at].voice else { return };
        let mut bytes = [0; 16];
        // Without a copy of the descriptor: when none is left, an unread pipe would be told without end.
        match nix::unistd::read(status, &mut bytes) {
            Ok(0) => self.job_over(at),
            Ok(n) if bytes[..n].contains(&EXECUTED) => self.executed(at),
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.job_over(at),
        }
    }

    /// A shim ended: it is reaped, and heard for the last time.
    pub(super) fn shim_ended(&mut self, action: ActionId) {
        let Some((token, pidfd)) = self.shims.get(&action) else { return };
        if let Ok(None) = spawn::reap(pidfd) {
            return;
        }
        // Reaped, or nothing there to reap: either way it ended, and a descriptor that stays readable
        // would be told again without end.
        if let Ok(token) = token {
            self.unwatch_fd(pidfd);
            self.sources.remove(token);
        }
        self.shims.remove(&action);
        // Its pipe is closed with it; that is heard by itself.
    }

    /// The foreground program was executed: it is the service's main process.
    fn executed(&mut self, at: usize) {
        let running = &self.running[at];
        if running.kind != JobKind::Instance {
            return;
        }
        let (service, action, slot) = (running.service.clone(), running.action, running.slot);
        let Some(child) = read_child(&running.records, slot, action) else { return };
        match identity::identify_recorded(child) {
            Found::One(proved, _) => {
                self.running[at].child = Some(child);
                self.take_main(&service, proved, None);
                self.inbox.push_back(Input::Launched { service, action, identity: child });
            }
            // It ended already; its outcome says how.
            Found::None(..) | Found::Refused(_) | Found::Unknown(_) => {}
        }
    }

    /// A shim has nothing more to say: the outcome is in place, or the shim is lost.
    fn job_over(&mut self, at: usize) {
        let running = &mut self.running[at];
        let look_at = Instant::now() + ADOPTED_POLL;
        let heard = std::mem::replace(&mut running.voice, Voice::Records { look_at });
        self.hear_no_more(&heard);
        let running = &self.running[at];
        let outcome = read_outcome(&running.records, running.slot, running.action);
        if outcome.is_none() && lives(&running.records, running.slot, running.action) {
            self.shim_lost(at);
            return;
        }
        let running = self.running.swap_remove(at);
        let outcome = outcome.unwrap_or_else(|| Outcome {
            ended: lost(&running.records, running.slot, running.action),
            output: Output::default(),
            took: Duration::ZERO,
        });
        let service = running.service;
        // Until the service is there the start is under way.
        if running.kind.brings_up() && !outcome.ended.failed() && !running.came {
            self.start_came_up(&service);
        } else if running.slot == Slot::Action {
            consume(&running.records, running.action);
        }
        if let Some(child) = running.child {
            self.instance_ended(&service, child, exit_of(&outcome));
        }
        let action = running.action;
        match running.answers {
            Answers::Check(check) => self.program_ended(service, check, action, &outcome),
            Answers::Nobody => self.make_room(),
            Answers::Engine if running.kind == JobKind::Look => {
                self.unit_looked(service, action, &outcome);
            }
            Answers::Engine if running.kind == JobKind::Ask => {
                self.puma_answered(service, action, &outcome);
            }
            Answers::Engine => {
                self.inbox.push_back(Input::Finished { service, action, outcome });
            }
        }
    }

    fn hear_no_more(&mut self, voice: &Voice) {
        let watched = match voice {
            Voice::Pipe { status, token } => vec![(status.as_fd(), token)],
            Voice::Ends(both) => both.iter().map(|(who, token)| (who.as_fd(), token)).collect(),
            Voice::Records { .. } => Vec::new(),
        };
        for (fd, token) in watched {
            let _unwatched = self.watcher.get_ref().remove(fd);
            self.sources.remove(token);
        }
    }

    /// The shim of an earlier keeper ended, or the program it keeps: its records say what that means.
    pub(super) fn adopted_ended(&mut self, action: ActionId) {
        let Some(at) = self.running.iter().position(|running| running.action == action) else {
            return;
        };
        let look_at = Instant::now();
        let heard = std::mem::replace(&mut self.running[at].voice, Voice::Records { look_at });
        self.hear_no_more(&heard);
    }

    /// Waits for the end of an earlier keeper's shim and of its foreground program instead of looking.
    fn wait_for_ends(&mut self, at: usize, record: &ChildRecord) {
        let hold = |identity| match identity::identify_recorded(identity) {
            Found::One(proved, _) => Some(proved),
            Found::None(..) | Found::Refused(_) | Found::Unknown(_) => None,
        };
        let (Some(shim), Some(child)) = (hold(record.shim), hold(record.child)) else { return };
        let action = record.action;
        let Ok(of_shim) = self.watch(&shim, Source::Adopted(action)) else {
            // Looking goes on.
            return;
        };
        let Ok(of_child) = self.watch(&child, Source::Adopted(action)) else {
            self.sources.remove(&of_shim);
            return;
        };
        self.running[at].voice = Voice::Ends([(shim, of_shim), (child, of_child)]);
    }

    /// Somebody killed the shim, and what it kept lives on. A foreground program goes on as any process
    /// that an earlier keeper started; a command is still the action, until it ends or its time is over.
    fn shim_lost(&mut self, at: usize) {
        let running = &self.running[at];
        let (service, kind) = (running.service.clone(), running.kind);
        if kind == JobKind::Instance {
            if running.child.is_none() {
                self.executed(at);
            }
            self.running.swap_remove(at);
        }
        let text = format!("the shim of its {} is gone; what it ran goes on", kind.name());
        self.log.say(self.now().wall, Level::Warning, service.as_str(), text);
    }

    /// A start is over once what it started is there and its command ended, whichever is last.
    pub(super) fn start_came_up(&mut self, service: &ServiceName) {
        let Some(served) = self.services.get(service) else { return };
        let Some(record) =
            read_record::<JobRecord>(&served.records, &Slot::Action.file(SlotFile::Job))
        else {
            return;
        };
        let came = served
            .held
            .iter()
            .any(|(identity, held)| held.proved().is_some() && Some(*identity) != record.before);
        if !came {
            return;
        }
        match self.running.iter_mut().find(|running| running.action == record.action) {
            Some(running) => running.came = true,
            None => consume(&served.records, record.action),
        }
    }

    /// The main process of a `run` service is gone. How is known a moment later, from its shim.
    pub(super) fn defer_exit(&mut self, service: &ServiceName, identity: ProcessIdentity) -> bool {
        let heard = self.running.iter().any(|running| {
            running.slot == Slot::Instance
                && running.service == *service
                && running.child == Some(identity)
        });
        if heard {
            let at = Instant::now() + EXIT_STATUS_WAIT;
            self.deferred_exits.push((at, service.clone(), identity));
        }
        heard
    }

    fn instance_ended(
        &mut self,
        service: &ServiceName,
        child: ProcessIdentity,
        exit: Option<Exit>,
    ) {
        self.deferred_exits.retain(|(_, name, identity)| (name, identity) != (service, &child));
        if self.let_go(service, child) {
            self.died(service.clone(), child, exit);
        }
    }

    /// What is due by time: exits whose status never came, records of adopted shims.
    pub(super) fn jobs_due(&mut self, now: Instant) {
        let due: Vec<_> =
            self.deferred_exits.iter().filter(|(at, ..)| now >= *at).cloned().collect();
        for (_, service, identity) in due {
            self.instance_ended(&service, identity, None);
        }
        let looks: Vec<_> = self
            .running
            .iter_mut()
            .filter_map(|running| match &mut running.voice {
                Voice::Records { look_at } if now >= *look_at => {
                    *look_at = now + ADOPTED_POLL;
                    Some(running.action)
                }
                Voice::Records { .. } | Voice::Pipe { .. } | Voice::Ends(_) => None,
            })
            .collect();
        for action in looks {
            self.look_at_adopted(action);
        }
        let reapable: Vec<_> = self
            .shims
            .iter_mut()
            .filter_map(|(action, (token, _))| match token {
                Err(look_at) if now >= *look_at => {
                    *look_at = now + UNWATCHED_POLL;
                    Some(*action)
                }
                Ok(_) | Err(_) => None,
            })
            .collect();
        for action in reapable {
            self.shim_ended(action);
        }
    }

    /// When something of a job is due next.
    pub(super) fn jobs_wakeup(&self) -> Option<Instant> {
        let looks = self.running.iter().filter_map(|running| match running.voice {
            Voice::Records { look_at } => Some(look_at),
            Voice::Pipe { .. } | Voice::Ends(_) => None,
        });
        let reaps = self.shims.values().filter_map(|(token, _)| token.err());
        looks.chain(reaps).chain(self.deferred_exits.iter().map(|(at, ..)| *at)).min()
    }

    fn look_at_adopted(&mut self, action: ActionId) {
        let Some(at) = self.running.iter().position(|running| running.action == action) else {
            return;
        };
        let running = &self.running[at];
        let (records, slot) = (running.records.clone(), running.slot);
        let record: Option<ChildRecord> = read_record(&records, &slot.file(SlotFile::Child));
        let record = record.filter(|record| record.action == action);
        if running.child.is_none() && record.is_some() {
            self.executed(at);
        }
        // Not before its lock is free: the next action may follow at once.
        let lock = lock::try_lock(&records.join(slot.file(SlotFile::Lock)));
        let free = matches!(lock, Ok(TryLock::Taken(_)));
        drop(lock);
        let ended = read_outcome(&records, slot, action).is_some();
        if free && (ended || slot == Slot::Instance || !lives(&records, slot, action)) {
            self.job_over(at);
        } else if let Some(record) = record.filter(|_| slot == Slot::Instance && !ended) {
            self.wait_for_ends(at, &record);
        }
    }
}

/// Why there is no shim. That no process can be made is heeler's own trouble, and fork(2) has no words for it.
fn no_shim(error: std::io::Error) -> (&'static str, String) {
    let text = match error.raw_os_error() {
        Some(libc::EAGAIN) => format!(
            "no process can be made now ({error}): is a limit reached (pids.max of heeler's control group, \
             ulimit -u, kernel.threads-max)?"
        ),
        Some(_) | None => error.to_string(),
    };
    ("start the shim", text)
}

/// How long the exit status of a `run` program is waited for once it is known to be dead.
const EXIT_STATUS_WAIT: Duration = Duration::from_millis(200);

/// The action is over: a later keeper has nothing to take over.
fn consume(records: &Path, action: ActionId) {
    let name = Slot::Action.file(SlotFile::Job);
    if read_record::<JobRecord>(records, &name).is_some_and(|record| record.action == action) {
        let _gone = records::remove_record(records, &name);
    }
}

/// How the program ended, where it is known.
fn exit_of(outcome: &Outcome) -> Option<Exit> {
    match outcome.ended {
        Ended::Exited(exit) => Some(exit),
        Ended::TimedOut | Ended::NotExecuted { .. } | Ended::Lost => None,
    }
}

/// Reads a record; one that is missing or not understood is none: reality decides, not records.
pub(super) fn read_record<R: Record>(records: &Path, name: &str) -> Option<R> {
    R::decode(&records::read_record(records, name).ok()??).ok()
}

fn read_child(records: &Path, slot: Slot, action: ActionId) -> Option<ProcessIdentity> {
    let record: ChildRecord = read_record(records, &slot.file(SlotFile::Child))?;
    (record.action == action).then_some(record.child)
}

/// What is known of an action whose shim left no outcome. A shim records its child before it lets it
/// execute anything.
fn lost(records: &Path, slot: Slot, action: ActionId) -> Ended {
    match read_child(records, slot, action) {
        Some(_) => Ended::Lost,
        None => Ended::NotExecuted {
            stage: "begin".into(),
            error: "its shim was killed; see the kernel's log for the out-of-memory killer".into(),
        },
    }
}

/// Whether the command that a shim executed is still there.
fn lives(records: &Path, slot: Slot, action: ActionId) -> bool {
    read_child(records, slot, action)
        .is_some_and(|child| matches!(identity::identify_recorded(child), Found::One(..)))
}

fn read_outcome(records: &Path, slot: Slot, action: ActionId) -> Option<Outcome> {
    let record: OutcomeRecord = read_record(records, &slot.file(SlotFile::Outcome))?;
    (record.action == action).then_some(record.outcome)
}
