//! One turn of the loop: inputs into the engine, effects out of it, until nothing is left to do.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::effect::{Effect, Level};
use crate::engine::input::{Confirmation, Delivery, Input};
use crate::keeper::identify::Came;
use crate::keeper::jobs::read_record;
use crate::keeper::log::Event;
use crate::keeper::served::{ClaimId, Family, Holding, Seated};
use crate::keeper::{Keeper, now};
use crate::model::ids::{ActionId, AskId, ServiceName};
use crate::model::incident::{Alert, AlertKind, Cause};
use crate::model::job::Ladder;
use crate::model::process::{Pid, ProcessIdentity, Signal, Survivor, Uid};
use crate::model::service::Life;
use crate::model::text::Untrusted;
use crate::model::time::Now;
use crate::store::Message;
use crate::sys::clock;
use crate::sys::evidence;
use crate::sys::identity::{self, ClaimStamp, Found, Proved};
use crate::sys::oom::GroupKills;
use crate::sys::pidfile::{self, Seat, Stamp};
use crate::sys::records;
use crate::sys::signal::{self, Delivered};
use crate::sys::survey::{self, DeadMain, Hold, Left};
use crate::wire::shim::{
    ChildRecord, LADDER_FILE, LadderRecord, MAIN_FILE, MainRecord, Record, Slot, SlotFile,
};

/// What a watched descriptor stands for.
#[derive(Clone)]
pub(super) enum Source {
    /// A process of a service.
    Process(ServiceName, ProcessIdentity),
    /// The status pipe of a shim.
    Status(ActionId),
    /// A shim.
    Shim(ActionId),
    /// The scout's socket.
    ScoutSpeaks,
    /// The scout.
    ScoutEnded,
    /// The socket of the scout that mails.
    PostSpeaks,
    /// The scout that mails.
    PostEnded,
    /// A shim of an earlier keeper, or the foreground program that it keeps.
    Adopted(ActionId),
}

/// What the pool brings back.
pub(super) enum Done {
    /// The answer to `Identify` or `Hold`.
    Identified {
        service: ServiceName,
        ask: AskId,
        found: Found,
        came: Came,
        claim: ClaimId,
        seat: Option<Seat>,
    },
    /// The answer to `Sample`.
    Sampled(super::samples::Sampled),
    /// The answer to a `Probe` of files.
    Looked(super::looks::Looked),
    /// The processes of a Puma that has answered.
    PumaSeen(Box<super::pumas::PumaSeen>),
    /// A look that a person asked for.
    Tried(super::trials::Tried),
    /// A look at workers.
    CrewLooked(super::crews::CrewLooked),
    /// A look at workers for a person.
    RollSeen(super::roll::RollSeen),
    /// A worker that is to get a signal.
    WorkerProved(super::crews::WorkerProved),
    /// The answers to all `Survey`s of one turn.
    Surveyed(Surveyed),
    /// The password of a check was read.
    PasswordRead(super::passwords::PasswordRead),
    /// The configuration was read.
    Read(Box<super::reload::Read>),
    /// A mail server, and the same with what its files say.
    MailServer(Box<(crate::config::settings::MailServer, crate::wire::post::Server)>),
    /// Something that nobody waits for is done.
    Nothing,
}

/// A death whose survey is due at the end of the turn, with all others of it.
pub(super) struct DueSurvey {
    pub(super) service: ServiceName,
    /// Who asks: a service that came back under the same name does not.
    born: ClaimId,
    ask: AskId,
    dead: ProcessIdentity,
}

/// Who outlived the main processes that died in one turn.
pub(super) struct Surveyed {
    due: Vec<DueSurvey>,
    /// Of each of them.
    left: Vec<std::io::Result<Vec<Left>>>,
}

impl Keeper {
    /// Steps the engine with everything that happened, and does what it says.
    pub(super) fn turn(&mut self) {
        loop {
            while let Some(input) = self.inbox.pop_front() {
                self.engine_does(|engine, now, effects| engine.step(now, input, effects));
            }
            if self.surveys.is_empty() {
                break;
            }
            self.survey();
        }
        self.forget_ended();
        self.flush_scout();
        self.flush_post();
        self.remember();
    }

    /// Has the engine do something, and does what it asks for.
    pub(super) fn engine_does(&mut self, what: impl FnOnce(&mut Engine, Now, &mut Vec<Effect>)) {
        let mut effects = std::mem::take(&mut self.effects);
        what(&mut self.engine, now(), &mut effects);
        self.perform_all(&mut effects);
        self.effects = effects;
    }

    /// Gives the store what changed, and the barriers that operators wait behind.
    fn remember(&mut self) {
        if !self.dirty.is_empty() {
            let dirty = std::mem::take(&mut self.dirty);
            let memories = dirty.into_iter().filter_map(|name| {
                let memory = self.engine.memory(&name)?;
                Some((name, memory))
            });
            self.outgoing.push(Message::Remember(memories.collect()));
        }
        self.send_barriers();
        self.log.pass_on();
        // In one go: an alert is on disk before the memory that says it was told.
        if !self.outgoing.is_empty() {
            self.store.send(self.outgoing.drain(..));
        }
    }

    fn perform_all(&mut self, effects: &mut Vec<Effect>) {
        let mut effects = effects.drain(..).peekable();
        while let Some(effect) = effects.next() {
            match (effect, effects.next_if(|next| matches!(next, Effect::Sample { .. }))) {
                (
                    Effect::Confirm { service, ask: confirm, identity },
                    Some(Effect::Sample { service: same, ask: sample, .. }),
                ) if same == service => {
                    self.confirm_and_sample(service, [confirm, sample], identity);
                }
                (effect, sample) => {
                    self.perform(effect);
                    sample.into_iter().for_each(|sample| self.perform(sample));
                }
            }
        }
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Identify { service, ask } => self.identify(service, ask),
            Effect::Hold { service, ask, identity } => {
                let found = identity::identify_recorded(identity);
                if let Found::None(..) = found {
                    self.tell_missed_end(&service, identity);
                }
                self.identified(service, ask, found);
            }
            Effect::Unwatch { service, identity } => {
                self.let_go(&service, identity);
            }
            Effect::Confirm { service, ask, identity } => {
                let how = self.confirm(&service, identity);
                let held =
                    self.services.get(&service).and_then(|served| served.held.get(&identity));
                if how == Confirmation::Gone && held.is_some_and(|held| held.token.is_none()) {
                    // Nobody else will see its end.
                    self.let_go(&service, identity);
                }
                self.inbox.push_back(Input::Confirmed { service, ask, how });
            }
            Effect::Survey { service, ask, dead } => {
                let born = self.services.get(&service).map(|served| served.born);
                self.surveys.extend(born.map(|born| DueSurvey { service, born, ask, dead }));
            }
            Effect::Sample { service, ask, identity } => self.sample(service, ask, identity),
            Effect::LookAtCrew { service, ask, main, reloaded } => {
                self.look_at_crew(service, ask, main, reloaded);
            }
            Effect::AskPuma { service, ask, what } => self.command_puma(service, ask, what),
            Effect::SignalWorker { service, ask, main, worker, signal, why } => {
                self.signal_worker(service, ask, (main, worker), signal, why);
            }
            Effect::Probe { service, check, ask } => self.probe(service, check, ask),
            Effect::Run(job) => self.run(*job),
            Effect::Signal { service, ask, identity, signal, why } => {
                let result = self.signal(&service, identity, signal, why);
                self.inbox.push_back(Input::Signalled { service, ask, result });
            }
            Effect::RecordLadder { service, ladder } => self.record_ladder(&service, ladder),
            Effect::RemoveStalePidfile { service, dead } => {
                if let Some(served) = self.services.get(&service)
                    && let Life::Pidfile(path) = &served.def.life
                {
                    let path = path.clone();
                    if let Some(Seated { seat: Seat::Spot(spot), .. }) = &served.seated {
                        let _removed = spot.remove_if_names(dead);
                    } else {
                        let remove = move || {
                            let _removed = pidfile::remove_if_names(&path, dead);
                            Done::Nothing
                        };
                        self.pool.submit(remove);
                    }
                }
            }
            Effect::Persist { service } => {
                self.dirty.insert(service);
            }
            Effect::Alert(mut alert) => {
                if alert.incident.cause == Cause::Unkillable && alert.kind == AlertKind::Fired {
                    self.add_evidence(&mut alert);
                }
                self.log.say_alert(self.now().wall, &alert);
                self.outgoing.push(Message::Queue(alert));
            }
            Effect::Event(event) => self.note_event(event),
            Effect::Log { service, level, text } => {
                self.log.say(self.now().wall, level, service.as_str(), text);
            }
            Effect::Answer { request, reply } => self.answer_after_store(request, reply),
        }
    }

    /// What holds a process that does not die.
    fn add_evidence(&self, alert: &mut Alert) {
        let service = alert.incident.service.clone();
        let Some(served) = self.services.get(&service) else { return };
        for proved in served.held.values().filter_map(Holding::proved) {
            let evidence = evidence::glance(proved.held());
            let text = format!("pid {}: {evidence}", evidence.identity);
            let wall = self.now().wall;
            self.log.say(wall, Level::Info, service.as_str(), text.clone());
            alert.incident.tell(wall, text);
        }
    }

    // ---- holding ------------------------------------------------------------------------------

    /// Holds and watches a proved process, and records what its survey will need.
    pub(super) fn take_main(
        &mut self,
        service: &ServiceName,
        proved: Proved,
        stamp: Option<ClaimStamp>,
    ) {
        let (identity, session) = (proved.identity(), proved.session());
        let grouped = self.groups.is_some();
        let Some(served) = self.services.get_mut(service) else { return };
        served.proved_by = served.claim;
        // It may be held as a survivor: without a family, or without the right to signal it.
        let held = served.held.get(&identity).is_some_and(|held| held.proved().is_some());
        if held && served.families.contains_key(&identity) && served.stamp == stamp {
            return;
        }
        // Whoever leads a session needs no other proof of its descendants, but of those that left it.
        let leads = session == identity.pid.0 && !grouped;
        let sockets = if leads { Vec::new() } else { survey::sockets(&proved) };
        let record = MainRecord {
            identity,
            session: Pid(session),
            group: Pid(proved.pgrp()),
            claim: stamp.as_ref().and_then(claim_of).map(|claim| claim.numbers()),
            sockets: sockets.clone(),
        };
        served.stamp = stamp;
        served.families.clear();
        let memory = GroupKills::of(identity.pid);
        let group = self.groups.as_ref().and_then(|groups| groups.of_process(identity.pid));
        served.families.insert(identity, Family { session, sockets, group, memory });
        let written = records::write_record(&served.records, MAIN_FILE, &record.encode());
        if let Err(error) = written {
            let text = format!("failed to record its main process: {error}");
            self.log.say(self.now().wall, Level::Warning, service.as_str(), text);
        }
        if !held {
            self.let_go(service, identity);
            self.hold(service, Hold::Proved(proved));
        }
        self.start_came_up(service);
    }

    pub(super) fn hold(&mut self, service: &ServiceName, hold: Hold) {
        let identity = hold.held().identity();
        let token = match self.watch(hold.held(), Source::Process(service.clone(), identity)) {
            Ok(token) => Some(token),
            Err(error) => {
                let text = format!(
                    "failed to watch process {identity}, looking at it every interval instead \
                     (is fs.epoll.max_user_watches too low?): {error}"
                );
                self.log.say(self.now().wall, Level::Error, service.as_str(), text);
                None
            }
        };
        if let Some(served) = self.services.get_mut(service) {
            served.held.insert(identity, Holding { hold, token });
        }
    }

    /// Lets a process go. Answers whether it was held.
    pub(super) fn let_go(&mut self, service: &ServiceName, identity: ProcessIdentity) -> bool {
        let held = self.services.get_mut(service).and_then(|served| served.held.remove(&identity));
        let Some(held) = held else { return false };
        if let Some(token) = held.token {
            self.sources.remove(&token);
            let _unwatched = self.watcher.get_ref().remove(held.hold.held());
        }
        true
    }

    /// A watched process ended.
    pub(super) fn process_ended(&mut self, service: ServiceName, identity: ProcessIdentity) {
        if let Some(served) = self.services.get_mut(&service) {
            served.unit.died = Some((identity, clock::boottime_ms()));
        }
        if self.defer_exit(&service, identity) {
            // Its exit status is on its way; until then it is only watched no more.
            if let Some(held) =
                self.services.get(&service).and_then(|served| served.held.get(&identity))
            {
                let _unwatched = self.watcher.get_ref().remove(held.hold.held());
            }
            return;
        }
        if self.let_go(&service, identity) {
            self.died(service, identity, None);
        }
    }

    // ---- what a death leaves -----------------------------------------------------------------

    /// One pass over /proc for all main processes that died in this turn, in the pool: it takes as long
    /// as there are processes.
    fn survey(&mut self) {
        let due = std::mem::take(&mut self.surveys);
        let dead: Vec<_> = due.iter().map(|due| self.dead_main(&due.service, due.dead)).collect();
        let mains: HashSet<_> =
            self.services.values().flat_map(|served| served.families.keys().copied()).collect();
        if self.survey_took <= SURVEY_ON_THE_LOOP {
            // Nothing in it hangs, and a start waits for it: no thread is worth waking.
            let began = Instant::now();
            let left = survey_each(&dead, &mains);
            self.survey_took = began.elapsed();
            self.surveyed(Surveyed { left, due });
        } else {
            // So many processes that even a look at each is long.
            self.survey_took = Duration::ZERO;
            self.pool
                .submit(move || Done::Surveyed(Surveyed { left: survey_each(&dead, &mains), due }));
        }
    }

    /// Holds whoever is left, and tells the engine.
    pub(super) fn surveyed(&mut self, surveyed: Surveyed) {
        let Surveyed { due, left } = surveyed;
        for (DueSurvey { service, born, ask, .. }, left) in due.into_iter().zip(left) {
            if self.services.get(&service).is_none_or(|served| served.born != born) {
                continue;
            }
            let survivors = match left {
                Ok(left) => Ok(self.hold_survivors(&service, left)),
                Err(error) => {
                    let text = format!("failed to look for what was left behind: {error}");
                    Err(Untrusted::from(text.as_str()))
                }
            };
            self.inbox.push_back(Input::Surveyed { service, ask, survivors });
        }
    }

    fn hold_survivors(&mut self, service: &ServiceName, left: Vec<Left>) -> Vec<Survivor> {
        let mut survivors = Vec::new();
        for Left { survivor, hold, .. } in left {
            let served = self.services.get(service);
            // A successor that came up in the same session is no survivor.
            if served.is_none_or(|served| served.held.contains_key(&survivor.identity)) {
                continue;
            }
            self.hold(service, hold);
            survivors.push(survivor);
        }
        survivors
    }

    fn dead_main(&self, service: &ServiceName, dead: ProcessIdentity) -> DeadMain {
        let served = self.services.get(service);
        let family = served.and_then(|served| served.families.get(&dead));
        let session = family.map(|family| family.session);
        // A session that heeler's own start command began holds nobody but its descendants.
        let started = served
            .and_then(|served| {
                read_record::<ChildRecord>(&served.records, &Slot::Action.file(SlotFile::Child))
            })
            .map(|record| record.child)
            .filter(|leader| session == Some(leader.pid.0));
        let group = family.and_then(|family| family.group.clone());
        DeadMain {
            identity: dead,
            user: served.and_then(|served| served.owner).unwrap_or(Uid(u32::MAX)),
            sessions: started.into_iter().collect(),
            session: session.unwrap_or(0),
            sockets: family.map(|family| family.sockets.clone()).unwrap_or_default(),
            cgroup: served.and_then(|served| served.unit_group(dead)),
            own_group: group.or_else(|| self.group_of(service)),
        }
    }

    // ---- signals -----------------------------------------------------------------------------

    fn signal(
        &self,
        service: &ServiceName,
        identity: ProcessIdentity,
        what: Signal,
        why: &str,
    ) -> Delivery {
        let held = self.services.get(service).and_then(|served| served.held.get(&identity));
        let Some(held) = held else {
            // It ended, and was let go of.
            return Delivery::Gone;
        };
        let Some(proved) = held.proved() else {
            return Delivery::Refused(Untrusted::from("it belongs to another user"));
        };
        let text = format!("SIG{} to pid {identity}: {why}", what.name());
        let event = Event { name: "signal", incident: None };
        self.log.say_event(self.now().wall, service.as_str(), event, text);
        match signal::send(proved, what) {
            Delivered::Sent => {
                if what != Signal::Kill {
                    // A stopped process keeps TERM pending until it goes on.
                    let _delivered = signal::send(proved, Signal::Cont);
                }
                Delivery::Sent
            }
            Delivered::Gone => Delivery::Gone,
            Delivered::Failed(why) => Delivery::Refused(why),
        }
    }

    fn record_ladder(&self, service: &ServiceName, ladder: Option<Ladder>) {
        let Some(served) = self.services.get(service) else { return };
        let result = match ladder {
            Some(ladder) => {
                records::write_record(&served.records, LADDER_FILE, &LadderRecord(ladder).encode())
            }
            None => records::remove_record(&served.records, LADDER_FILE),
        };
        if let Err(error) = result {
            let text = format!("failed to record the stop: {error}");
            self.log.say(self.now().wall, Level::Warning, service.as_str(), text);
        }
    }

    // ---- descriptors -------------------------------------------------------------------------

    /// Watches a descriptor.
    ///
    /// # Errors
    /// When the kernel watches no more (`fs.epoll.max_user_watches`): whoever asked has to look.
    pub(super) fn watch(&mut self, fd: &impl AsFd, source: Source) -> std::io::Result<u64> {
        self.next_token += 1;
        let token = self.next_token;
        self.watcher.get_ref().add(fd.as_fd(), token)?;
        self.sources.insert(token, source);
        Ok(token)
    }

    /// Watches it no more.
    pub(super) fn unwatch_fd(&self, fd: &impl AsFd) {
        let _unwatched = self.watcher.get_ref().remove(fd.as_fd());
    }
}

/// A pass over all processes that took no longer is done on the loop the next time, too.
const SURVEY_ON_THE_LOOP: Duration = Duration::from_millis(10);

/// In one pass; where it cannot be told for all of them, in one for each, so that a process of one
/// service that cannot be examined holds up no other.
fn survey_each(
    dead: &[DeadMain],
    mains: &HashSet<ProcessIdentity>,
) -> Vec<std::io::Result<Vec<Left>>> {
    let Ok(left) = survey::survey(dead, mains) else {
        return dead.chunks(1).map(|one| survey::survey(one, mains)).collect();
    };
    let mut each: Vec<_> = dead.iter().map(|_| Ok(Vec::new())).collect();
    for left in left {
        if let Some(Ok(of)) = each.get_mut(left.dead) {
            of.push(left);
        }
    }
    each
}

/// The state of the pidfile in a claim.
pub(super) fn claim_of(stamp: &ClaimStamp) -> Option<Stamp> {
    match stamp {
        ClaimStamp::Pidfile(stamp, _) => Some(*stamp),
        ClaimStamp::Standing => None,
    }
}
