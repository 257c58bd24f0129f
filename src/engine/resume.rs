//! What survives the keeper: how a service is taken in, what is taken up again, what is remembered.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::Cx;
use crate::engine::crew::Crew;
use crate::engine::hazards::Hazards;
use crate::engine::judge;
use crate::engine::lifecycle::{death, tells_death};
use crate::engine::notify::remind_after;
use crate::engine::start_limit::StartRecord;
use crate::engine::state::{
    Asked, Brings, By, OpenIncident, RunningJob, Stage, Starting, State, StopBy,
};
use crate::model::check::{Check, CheckKind};
use crate::model::event::EventKind;
use crate::model::ids::CheckIndex;
use crate::model::incident::{Cause, Incident};
use crate::model::intent::{Desired, Intent, Who};
use crate::model::job::{InFlight, JobKind};
use crate::model::limits;
use crate::model::memory::{Acquaintance, BootMemory, Memory};
use crate::model::process::ProcessIdentity;
use crate::model::service::{Mode, OnBoot, Service};
use crate::model::time::{Mono, Now};

impl State {
    /// A service as it is taken in, before its first look, and what was open of it.
    pub(super) fn begin(now: Now, def: Arc<Service>, memory: Option<Memory>) -> (Self, Resumed) {
        let remembered = memory.is_some();
        let mut memory = memory.unwrap_or_else(|| {
            let intent = Intent { desired: Desired::Up, by: Who::Config, at: now.wall };
            Memory::fresh(intent, BootMemory::default())
        });
        let booted = memory.boot.acquaintance == Acquaintance::New;
        let acquaintance = match (booted, def.on_boot) {
            (false, _) => memory.boot.acquaintance,
            // What is new in conf.d has nothing to do with a boot.
            (true, OnBoot::Leave) if remembered => Acquaintance::Left,
            (true, OnBoot::Start | OnBoot::Leave | OnBoot::Last) => Acquaintance::Known,
        };
        if booted && remembered && def.on_boot == OnBoot::Start {
            memory.intent = Intent { desired: Desired::Up, by: Who::Config, at: now.wall };
            memory.open.retain(|incident| incident.cause != Cause::SetAside);
        }
        let delayed_until = if booted { now.mono + def.start_delay } else { now.mono };
        let known = |check: &Check| {
            let mut seen = memory.fingerprints.iter();
            seen.find(|(of, _)| *of == check.mark()).map(|(_, fingerprint)| *fingerprint)
        };
        let first = |every| judge::first_due(&def, every, now.mono);
        let fresh = |check: &Check| judge::fresh(first(check.every), known(check));
        let checks: Vec<_> = def.checks.iter().map(fresh).collect();
        let soonest = checks.iter().map(|check| check.due).fold(first(def.every), Mono::min);
        let look_at = soonest.max(now.mono + std::time::Duration::from_millis(1));
        let resumed = Resumed {
            open: memory.open,
            marks: memory.checks,
            verifying: memory.boot.verifying.is_some(),
        };
        let state = Self {
            intent: memory.intent,
            main: None,
            main_since: Mono::ZERO,
            judged_since: Mono::ZERO,
            last_main: memory.boot.main,
            recalled: memory.boot.main,
            stage: Stage::Watching,
            since: now,
            leaving: memory.boot.leaving.map(|identity| (identity, resumed_by(&def))),
            crew: Crew::recall(&memory.boot),
            hazards: Hazards::default(),
            braked: memory.boot.braked.clone(),
            verify: None,
            reloaded: None,
            parents: BTreeMap::new(),
            parents_mains: BTreeMap::new(),
            acquaintance,
            delayed_until,
            pending: Vec::new(),
            job: None,
            asked: Asked::default(),
            look_began: now.mono,
            look_at,
            limit: StartRecord::recall(&memory.boot),
            checks,
            waiters: Vec::new(),
            open: BTreeMap::new(),
            last_incident: memory.last,
            incidents_opened: memory.incidents_opened,
            gone_at: None,
            last_failure: None,
            filed: Mono::NEVER,
            tallied: None,
            def,
        };
        (state, resumed)
    }

    /// What an earlier keeper had open: since then a check may have got another place in the file, or be
    /// gone.
    pub(super) fn resume_open(&mut self, cx: &mut Cx<'_>, resumed: Resumed) {
        for mut record in resumed.open {
            let place = match record.cause {
                Cause::Check(kind, index) | Cause::CheckUnknown(kind, index) => {
                    self.place_of_check(kind, index, &resumed.marks)
                }
                Cause::Hazard(_) if self.def.puma.is_none() => None,
                Cause::StuckWorker if self.def.workers.is_none() => None,
                Cause::Down
                | Cause::UpUnwanted
                | Cause::Unclear
                | Cause::Unkillable
                | Cause::SetAside
                | Cause::Definition
                | Cause::StuckWorker
                | Cause::Hazard(_) => Some(CheckIndex(0)),
            };
            match place {
                Some(place) => {
                    record.cause = record.cause.at(place);
                    self.resume_incident(cx.now, record);
                }
                None => {
                    let open = OpenIncident::of(record, cx.now.mono);
                    let next = self.what_next(cx.now.mono);
                    self.close(cx, open, NO_LONGER_CHECKED, next);
                }
            }
        }
        if resumed.verifying {
            self.verify_was_left(cx);
        }
    }

    /// Where the check is now that had this place among checks with these marks. Checks that nothing tells
    /// apart are told apart by their order.
    fn place_of_check(
        &self,
        kind: CheckKind,
        index: CheckIndex,
        marks: &[u64],
    ) -> Option<CheckIndex> {
        let at = usize::from(index.0);
        let checks = self.def.checks.iter().filter(|check| check.kind == kind);
        let Some(mark) = marks.get(at) else {
            // Of a heeler that did not write them down.
            return checks.map(|check| check.index).find(|place| *place == index);
        };
        let before = marks.iter().take(at).filter(|other| *other == mark).count();
        checks.filter(|check| check.mark() == *mark).map(|check| check.index).nth(before)
    }

    /// An incident that an earlier keeper had open: told at once if it never was, else reminded of.
    pub(super) fn resume_incident(&mut self, now: Now, record: Incident) {
        if let Cause::Check(kind, index) = record.cause {
            let at = usize::from(index.0);
            match (self.def.checks.get(at), self.checks.get_mut(at)) {
                // It fires for some worker; which is seen once all are judged anew.
                (Some(check), Some(_)) if kind == CheckKind::Worker => {
                    let span = check.tolerance.span(check.every) + check.every;
                    self.crew.resume_firing(at, now.mono + span);
                }
                (_, Some(state)) => state.window.resume_firing(),
                (_, None) => {}
            }
        }
        let tell_at = self.tell_again_at(now, &record);
        self.open.insert(record.cause, Box::new(OpenIncident::of(record, tell_at)));
    }

    /// When an incident is told next of which only its record is known.
    pub(super) fn tell_again_at(&self, now: Now, record: &Incident) -> Mono {
        let by_operator = matches!(self.intent.by, Who::Operator { .. });
        let tell_at = if record.told == 0 && record.cause == Cause::SetAside && by_operator {
            let first = self.def.remind * crate::engine::orders::REMIND_OPERATOR_TIMES;
            now.mono + first.saturating_sub(now.wall.since(record.opened))
        } else if record.told == 0 {
            now.mono + limits::TELL_AFTER
        } else {
            let remind = remind_after(record.cause, self.def.remind);
            now.mono + remind.saturating_sub(now.wall.since(record.told_at))
        };
        // Nobody is reminded within the first moments: the incident may be over already.
        tell_at.max(now.mono + limits::TELL_AFTER)
    }

    /// Takes up what is in flight, and looks.
    pub(super) fn take_up(&mut self, cx: &mut Cx<'_>, in_flight: &InFlight) {
        let now = cx.now.mono;
        match *in_flight {
            InFlight::Nothing => {}
            InFlight::Job { action, kind, deadline, before } => {
                let lost_at = deadline.max(now) + limits::ASK_TIMEOUT;
                if kind != JobKind::Instance {
                    self.job = Some(RunningJob { action, kind, lost_at });
                }
                match (kind, before) {
                    (
                        JobKind::Start | JobKind::Restart | JobKind::Reload | JobKind::Instance,
                        _,
                    ) => {
                        // Counted from when it began: keepers that come and go must not stretch it.
                        let whole = self.def.start_timeout;
                        let command = self.def.start.as_ref().and_then(|start| start.timeout);
                        let left = deadline + whole.saturating_sub(command.unwrap_or(whole));
                        let deadline = (now + whole).min(left.max(now));
                        let starting = Starting {
                            kind,
                            brings: Brings::Service,
                            action: Some(action),
                            ended: None,
                            before,
                            deadline,
                            poll_at: now + self.poll(),
                            by: By::Heeler,
                            stale: before.map(|before| before.pid),
                            dead_on_arrival: None,
                            unclear_since: None,
                        };
                        self.stage = Stage::Starting(starting);
                        if matches!(kind, JobKind::Restart | JobKind::Reload) {
                            // Until the command takes it away, the old process is the main one.
                            self.main = before;
                        } else {
                            self.recall_death(cx, before);
                        }
                    }
                    (JobKind::Stop, Some(target)) => {
                        let kill_at = deadline.max(now + self.def.stop_timeout);
                        self.main = Some(target);
                        self.stage = Stage::Stopping { target, by: StopBy::Command, kill_at };
                    }
                    (JobKind::Stop, None)
                    | (JobKind::Exec | JobKind::Look | JobKind::Ask | JobKind::Probe(_), _) => {}
                }
            }
            InFlight::Ladder(ladder) => {
                self.main = Some(ladder.identity);
                self.leaving =
                    self.leaving.or_else(|| Some((ladder.identity, resumed_by(&self.def))));
                let kill_at = ladder.kill_at;
                let target = ladder.identity;
                self.stage = Stage::Stopping { target, by: StopBy::Ladder, kill_at };
            }
        }
        match self.main {
            Some(target) => self.hold(cx, target),
            None => self.identify(cx),
        }
    }

    /// An earlier keeper started it because this process was gone, and was itself gone before that was
    /// on disk: it is told now.
    pub(super) fn recall_death(&mut self, cx: &mut Cx<'_>, before: Option<ProcessIdentity>) {
        let Some(dead) = before.filter(|_| before == self.recalled) else {
            return;
        };
        let asked = self.leaving.is_some_and(|(target, _)| target == dead);
        // An incident may be open of this death, or of one before it.
        let told = self
            .open
            .get(&Cause::Down)
            .is_some_and(|open| open.record.story.iter().any(|line| tells_death(&line.text, dead)));
        if asked || told || self.intent.desired != Desired::Up {
            return;
        }
        self.gone_at.get_or_insert(cx.now.mono);
        let title = death(dead, None);
        let tell_at = cx.now.mono + limits::TELL_AFTER;
        self.open_incident_as(cx, Some(EventKind::Exited), Cause::Down, title, tell_at);
    }

    /// What its checks of changes saw last.
    fn fingerprints(&self) -> Vec<(u64, u64)> {
        let all = self.def.checks.iter().zip(&self.checks);
        all.filter(|(check, _)| check.condition.is_of_change())
            .filter_map(|(check, state)| Some((check.mark(), state.fingerprint?)))
            .collect()
    }

    /// What must survive the keeper.
    pub(super) fn remember(&self) -> Memory {
        let mut boot = BootMemory {
            main: self.main.or(self.recalled).or(match self.stage {
                // Until it is cleared up after, the dead one still matters.
                Stage::Clearing(_) => self.last_main,
                Stage::Backoff { .. }
                | Stage::Watching
                | Stage::Starting(_)
                | Stage::StartPeriod { .. }
                | Stage::Stopping { .. }
                | Stage::Killing { .. } => None,
            }),
            leaving: self.leaving.map(|(identity, _)| identity),
            acquaintance: self.acquaintance,
            braked: self.braked.clone(),
            workers_taken: self.crew.taken(),
            verifying: self.verify.as_ref().map(|verify| verify.began()),
            ..BootMemory::default()
        };
        self.limit.remember(&mut boot);
        Memory {
            intent: self.intent.clone(),
            incidents_opened: self.incidents_opened,
            open: self.open.values().map(|open| open.record.clone()).collect(),
            last: self.last_incident.clone(),
            fingerprints: self.fingerprints(),
            claim: Some(self.def.claim_mark()),
            checks: self.def.checks.iter().map(Check::mark).collect(),
            boot,
        }
    }
}

/// What an earlier keeper had open of a service.
pub(super) struct Resumed {
    open: Vec<Incident>,
    /// Those of the checks that they count by.
    marks: Vec<u64>,
    /// A verified reload was under way.
    verifying: bool,
}

/// How an incident of a check ends whose check is not there any more.
pub(super) const NO_LONGER_CHECKED: &str = "it is no longer checked";

/// On whose account a stop is that an earlier keeper began. Nobody remembers, so the start after it is
/// counted; where only operators act it was one's.
fn resumed_by(def: &Service) -> By {
    match def.mode {
        Mode::Active => By::Heeler,
        Mode::Observe => By::Operator,
    }
}
