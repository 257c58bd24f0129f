//! What the engine knows of one service between two inputs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::crew::Crew;
use crate::engine::dependency::Footing;
use crate::engine::hazards::Hazards;
use crate::engine::start_limit::StartRecord;
use crate::engine::table::Where;
use crate::engine::tolerance::Window;
use crate::engine::verified::Verify;
use crate::model::action::Action;
use crate::model::ids::{ActionId, AskId, CheckIndex, RequestId, ServiceName};
use crate::model::incident::{Cause, Incident};
use crate::model::intent::Intent;
use crate::model::job::{JobKind, Outcome};
use crate::model::limits;
use crate::model::memory::Acquaintance;
use crate::model::observation::Observation;
use crate::model::order::Order;
use crate::model::process::{Absence, Pid, ProcessIdentity, Survivor};
use crate::model::service::{Life, Service};
use crate::model::status::{Health, Phase};
use crate::model::time::{Mono, Now, Wall};
use crate::model::unit::UnitEnd;

/// One service.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) def: Arc<Service>,
    pub(crate) intent: Intent,
    /// The main process; the keeper holds it.
    pub(crate) main: Option<ProcessIdentity>,
    /// When it appeared, if it did under this keeper's eyes: what happened before is another one's.
    pub(crate) main_since: Mono,
    /// From when on it is judged: how things were before says nothing of now.
    pub(crate) judged_since: Mono,
    /// The last main process that is gone.
    pub(crate) last_main: Option<ProcessIdentity>,
    pub(crate) stage: Stage,
    /// When the stage began.
    pub(crate) since: Now,
    /// The process that somebody wants gone (a stop, or a restart), and on whose account: taken up again
    /// by a new keeper.
    pub(crate) leaving: Option<(ProcessIdentity, By)>,
    /// The main process an earlier keeper knew, until it is found again or known to be gone.
    pub(crate) recalled: Option<ProcessIdentity>,
    pub(crate) crew: Crew,
    /// What will go off some day, and since when it is known.
    pub(crate) hazards: Hazards,
    /// When something of it was taken away that the host brake counts, oldest first.
    pub(crate) braked: Vec<Mono>,
    /// The verified reload that is under way.
    pub(crate) verify: Option<Box<Verify>>,
    /// When its main process was reloaded last.
    pub(crate) reloaded: Option<Mono>,
    /// How the services it needs stand, and which main process each had last.
    pub(crate) parents: BTreeMap<ServiceName, Footing>,
    pub(crate) parents_mains: BTreeMap<ServiceName, ProcessIdentity>,
    /// Whether it was looked at before in this boot.
    pub(crate) acquaintance: Acquaintance,
    /// Not before this is it started by itself for the first time in a boot.
    pub(crate) delayed_until: Mono,
    /// What rules ask for while an exec runs, in order; done when it ended.
    pub(crate) pending: Vec<(CheckIndex, Action)>,
    /// The job in flight. There is never a second one.
    pub(crate) job: Option<RunningJob>,
    pub(crate) asked: Asked,
    /// When the last look for its main process began.
    pub(crate) look_began: Mono,
    /// When to look next (confirm, sample, or identify).
    pub(crate) look_at: Mono,
    pub(crate) limit: StartRecord,
    pub(crate) checks: Vec<CheckState>,
    pub(crate) waiters: Vec<Waiter>,
    /// Open incidents, by cause.
    pub(crate) open: BTreeMap<Cause, Box<OpenIncident>>,
    pub(crate) last_incident: Option<Incident>,
    pub(crate) incidents_opened: u32,
    /// When it was last noticed gone, for "up again after".
    pub(crate) gone_at: Option<Mono>,
    /// Why the last start failed, for replies.
    pub(crate) last_failure: Option<String>,
    /// The earliest deadline this service was filed under.
    pub(crate) filed: Mono,
    /// What it was counted as.
    pub(crate) tallied: Option<Health>,
}

/// A phase with what it waits for.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    Watching,
    Clearing(Clearing),
    Starting(Starting),
    StartPeriod { until: Mono },
    Stopping { target: ProcessIdentity, by: StopBy, kill_at: Mono },
    Killing { target: ProcessIdentity, look_at: Mono, told: Told, sent: Sent },
    Backoff { until: Mono },
}

/// Waiting until nothing is left of the old process and nobody else starts a new one.
#[derive(Clone, Debug)]
pub(crate) struct Clearing {
    /// Whether it is known who is left.
    pub(crate) surveyed: Surveyed,
    /// Whether it was said that this could not be told.
    pub(crate) survey_failed: bool,
    pub(crate) survivors: Vec<Survivor>,
    /// How its unit ended, where its manager has said so.
    pub(crate) ended: Option<UnitEnd>,
    /// What was said of how it is missing: each look finds the same again.
    pub(crate) said: Option<Absence>,
    /// How it is missing and when that was seen, once asked after the death.
    pub(crate) absence: Option<(Absence, Mono)>,
    /// An orderly exit: a successor is awaited until then.
    pub(crate) successor_until: Option<Mono>,
    /// Survivors are waited for no longer than this.
    pub(crate) deadline: Mono,
    /// What was said to survivors that hold a listening socket.
    pub(crate) reaping: Reaping,
    /// Signals to survivors that are not answered yet.
    pub(crate) telling: Vec<(AskId, ProcessIdentity)>,
    /// Survivors that have had their stop signal: only they are ever killed.
    pub(crate) told: Vec<ProcessIdentity>,
    /// When to look at the claim again.
    pub(crate) poll_at: Mono,
    /// A person asked for the start that follows: no limit.
    pub(crate) by: By,
    /// Whose doing the exit was: only after one that nobody here asked for a successor is awaited.
    pub(crate) exit: ExitKind,
    /// When it began.
    pub(crate) began: Mono,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExitKind {
    /// heeler stopped it.
    Ours,
    /// It went by itself, or somebody else took it.
    Unasked,
    /// There was none to begin with.
    NeverThere,
    /// There is none yet: heeler brought the manager of its user up, and the same start goes on.
    ManagerFirst,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Surveyed {
    Asked,
    /// It could not be told: asked again then.
    AgainAt(Mono),
    Answered,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reaping {
    /// Until then they may go by themselves.
    Patient(Mono),
    /// They were told to go; KILL then.
    Told(Mono),
    /// They were sent KILL.
    Killed,
}

#[derive(Clone, Debug)]
pub(crate) struct Starting {
    /// A start, or a restart or reload in one go: of those the old process is still the main one.
    pub(crate) kind: JobKind,
    /// What its job brings up.
    pub(crate) brings: Brings,
    /// Its job, while it runs.
    pub(crate) action: Option<ActionId>,
    /// How the job ended, and when.
    pub(crate) ended: Option<(Outcome, Mono)>,
    /// The process before a restart command.
    pub(crate) before: Option<ProcessIdentity>,
    pub(crate) deadline: Mono,
    pub(crate) poll_at: Mono,
    pub(crate) by: By,
    /// What the claim named when the start began, if that was dead.
    pub(crate) stale: Option<Pid>,
    /// Another dead process that the claim names since then, and since when.
    pub(crate) dead_on_arrival: Option<(Pid, Mono)>,
    /// Since when it cannot be told whether it came: its pidfile may be half written.
    pub(crate) unclear_since: Option<Mono>,
}

/// What a start brings up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Brings {
    /// The service.
    Service,
    /// The manager of its user, and with that perhaps the service.
    Manager,
}

/// On whose account a start is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    Operator,
    Heeler,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StopBy {
    /// The stop command runs, or ran and is waited for.
    Command,
    /// Its stop signal is on its way.
    Signalling,
    /// Its stop signal was sent.
    Ladder,
}

/// Whether a signal is known to have been delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    Unconfirmed,
    Confirmed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    NotYet,
    Yes,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RunningJob {
    pub(crate) action: ActionId,
    pub(crate) kind: JobKind,
    /// Past this it counts as lost: its shim should have ended it long ago.
    pub(crate) lost_at: Mono,
}

/// Questions not answered yet, at most one of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) identify: Option<(AskId, Mono)>,
    /// Which process `identify` asks to be held.
    pub(crate) held: Option<(AskId, ProcessIdentity)>,
    pub(crate) confirm: Option<(AskId, Mono)>,
    pub(crate) survey: Option<(AskId, Mono)>,
    pub(crate) sample: Option<(AskId, Mono)>,
    pub(crate) signal: Option<(AskId, Mono)>,
    pub(crate) reload: Option<(AskId, Mono)>,
}

#[derive(Clone, Debug)]
pub(crate) struct CheckState {
    pub(crate) window: Window,
    pub(crate) due: Mono,
    /// What it judged last.
    pub(crate) last: Option<Arc<Observation>>,
    /// The probe that is under way, and when it counts as lost.
    pub(crate) asked: Option<(AskId, Mono)>,
    /// When the last one that was sent out was.
    pub(crate) asked_at: Mono,
    /// When the last one that was answered was: what the next one finds happened since then.
    pub(crate) looked_at: Mono,
    /// What `changed` compares with.
    pub(crate) fingerprint: Option<u64>,
    /// Unknown observations in a row.
    pub(crate) unknown: u32,
    /// When alert and exec happen again.
    pub(crate) repeat_at: Option<Mono>,
}

#[derive(Clone, Debug)]
pub(crate) struct OpenIncident {
    pub(crate) record: Incident,
    /// When it is told next.
    pub(crate) tell_at: Mono,
    /// When it counts as over, once it looks so.
    pub(crate) settles_at: Option<Mono>,
    /// Since when it looks so: when it will have ended, if it did.
    pub(crate) mended: Option<Wall>,
    /// Whether it may be told, or may be a parent's doing.
    pub(crate) telling: Telling,
}

impl OpenIncident {
    /// One that goes on.
    pub(crate) fn of(record: Incident, tell_at: Mono) -> Self {
        Self { record, tell_at, settles_at: None, mended: None, telling: Telling::Free }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Telling {
    Free,
    HeldBack,
}

/// An operator who waits for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) request: RequestId,
    pub(crate) order: Order,
    /// The main process when the order came.
    pub(crate) before: Option<ProcessIdentity>,
    pub(crate) at: Mono,
}

impl State {
    /// Where the table finds it.
    pub(crate) fn place(&self) -> Where {
        match (&self.stage, self.main) {
            (Stage::Watching, None) if self.def.life != Life::Nothing => Where::Absent,
            // Where there is no process, there is none to be missed: its checks are what is there.
            (Stage::Watching, _) => Where::Present,
            (Stage::Clearing(_), _) => Where::Clearing,
            (Stage::Starting(_), _) => Where::Starting,
            (Stage::StartPeriod { .. }, _) => Where::StartPeriod,
            (Stage::Stopping { .. }, _) => Where::Stopping,
            (Stage::Killing { .. }, _) => Where::Killing,
            (Stage::Backoff { .. }, _) => Where::Backoff,
        }
    }

    /// The word for what it is doing.
    pub(crate) fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Watching => Phase::Watching,
            Stage::Clearing(_) => Phase::Clearing,
            Stage::Starting(starting) if starting.kind == JobKind::Reload => Phase::Reloading,
            Stage::Starting(_) => Phase::Starting,
            Stage::StartPeriod { .. } => Phase::StartPeriod,
            Stage::Stopping { .. } => Phase::Stopping,
            Stage::Killing { .. } => Phase::Killing,
            Stage::Backoff { .. } => Phase::Backoff,
        }
    }

    /// When something of this service is due next: the smallest of its named deadlines.
    pub(crate) fn next_due(&self) -> Mono {
        let stage = match &self.stage {
            Stage::Watching => Mono::NEVER,
            Stage::Clearing(clearing) => clearing.next_due(),
            Stage::Starting(starting) => starting.deadline.min(starting.poll_at),
            Stage::StartPeriod { until } | Stage::Backoff { until } => *until,
            Stage::Stopping { kill_at, .. } => *kill_at,
            Stage::Killing { look_at, .. } => *look_at,
        };
        let asks = [
            self.asked.identify,
            self.asked.confirm,
            self.asked.survey,
            self.asked.sample,
            self.asked.signal,
            self.asked.reload,
        ];
        let asks = asks.into_iter().flatten().map(|(_, until)| until);
        let incidents = self
            .open
            .values()
            .map(|open| open.settles_at.map_or(open.tell_at, |at| at.min(open.tell_at)));
        let asks = asks.chain(self.checks.iter().filter_map(|check| Some(check.asked?.1)));
        let repeats = self.checks.iter().filter_map(|check| check.repeat_at);
        let job = self.job.map(|job| job.lost_at);
        asks.chain(incidents)
            .chain(repeats)
            .chain(job)
            .chain(self.verify.as_ref().map(|verify| verify.next_due()))
            .chain([stage, self.look_at, self.crew.next_due()])
            .min()
            .unwrap_or(Mono::NEVER)
    }

    /// How often it is looked at while something is waited for.
    pub(crate) fn poll(&self) -> Duration {
        match self.def.life {
            Life::Unit(_) => limits::UNIT_POLL,
            Life::Pidfile(_) | Life::Match(_) | Life::Run(_) | Life::Nothing => {
                limits::SUCCESSOR_POLL
            }
        }
    }

    /// Whether the main process is up and may be judged and acted on.
    pub(crate) fn settled(&self) -> bool {
        self.place() == Where::Present
    }
}

impl Clearing {
    fn next_due(&self) -> Mono {
        match self.surveyed {
            Surveyed::AgainAt(at) => return at.min(self.poll_at),
            // An answer is awaited; the question has a deadline of its own.
            Surveyed::Asked => return self.poll_at,
            Surveyed::Answered if self.absence.is_none() => return self.poll_at,
            Surveyed::Answered => {}
        }
        // While a successor is waited for, nothing happens to survivors' deadline.
        let deadline = self.successor_until.map_or(self.deadline, |until| until.max(self.deadline));
        let survivors = if self.survivors.is_empty() {
            Mono::NEVER
        } else {
            match self.reaping {
                Reaping::Patient(until) | Reaping::Told(until) => until.min(deadline),
                Reaping::Killed => deadline,
            }
        };
        survivors.min(self.poll_at)
    }
}

/// The age of a moment, for people.
pub(crate) fn ago(now: Wall, then: Wall) -> String {
    crate::model::units::show_duration(now.since(then))
}
