//! What is in flight for a service that a keeper takes in: left by an earlier keeper, or by the service while
//! it was forgotten or had another name.

use std::path::Path;
use std::time::Instant;

use super::{
    ADOPTED_POLL, Answers, Running, Voice, exit_of, read_child, read_outcome, read_record,
};
use crate::engine::effect::Level;
use crate::engine::input::Input;
use crate::keeper::Keeper;
use crate::model::ids::ServiceName;
use crate::model::job::{InFlight, JobKind};
use crate::model::process::ProcessIdentity;
use crate::sys::lock::{self, TryLock};
use crate::sys::records;
use crate::wire::shim::{
    ChildRecord, JobRecord, LADDER_FILE, LadderRecord, MAIN_FILE, MainRecord, Slot, SlotFile,
};

impl Keeper {
    /// At start: what an earlier keeper left in flight for a service.
    pub(in crate::keeper) fn in_flight(&mut self, service: &ServiceName) -> InFlight {
        let Some(served) = self.services.get(service) else { return InFlight::Nothing };
        let records = served.records.clone();
        let mut left = InFlight::Nothing;
        for slot in [Slot::Instance, Slot::Action] {
            let busy = lock::try_lock(&records.join(slot.file(SlotFile::Lock)));
            let busy = matches!(busy, Ok(TryLock::Busy));
            let record: Option<JobRecord> = read_record(&records, &slot.file(SlotFile::Job));
            // What was meant then may be somebody else's process now: a file that has the name of one that
            // was forgotten, or was edited meanwhile.
            let claim = served.def.claim_mark();
            let meant = |record: &JobRecord| {
                slot == Slot::Instance || record.claim.is_none_or(|mark| mark == claim)
            };
            let Some(record) = record.filter(|it| it.boot == self.boot_id && meant(it)) else {
                continue;
            };
            let (action, kind, deadline) = (record.action, record.kind, record.deadline);
            // Without its shim: the command still runs, or it ended and nobody took its outcome yet, or
            // nobody could say how.
            let late = self.now().mono >= deadline + served.def.start_timeout;
            let outcome = read_outcome(&records, slot, action);
            let open = slot == Slot::Action
                && !late
                && (read_child(&records, slot, action).is_some() || outcome.is_some());
            let words = match &outcome {
                Some(outcome) if slot == Slot::Action => outcome.ended.to_string(),
                Some(_) | None => "is still under way".to_owned(),
            };
            if !busy && !open && (slot == Slot::Instance || outcome.is_none()) {
                continue;
            }
            // Of one that is heard, its service was forgotten meanwhile, or got another name.
            let heard = self.running.iter().any(|running| running.action == action);
            let whose = if heard { "its" } else { "an earlier heeler's" };
            let text = format!("{whose} {} {words}", kind.name());
            self.log.say(self.now().wall, Level::Info, service.as_str(), text);
            let came = has_come(&records, &record);
            if !busy && (!open || came && outcome.is_some()) {
                // Nothing depends on it any more: it is long ago, or what it started was there. That may have
                // gone again since.
                let _gone = records::remove_record(&records, &slot.file(SlotFile::Job));
                continue;
            }
            let child = read_child(&records, slot, action);
            let adopted = (!heard).then(|| Running {
                service: service.clone(),
                records: records.clone(),
                slot,
                action,
                kind,
                answers: Answers::Engine,
                voice: Voice::Records { look_at: Instant::now() + ADOPTED_POLL },
                child: child.filter(|_| kind == JobKind::Instance),
                came,
            });
            self.running.extend(adopted);
            // A foreground program that runs is found by its record, like any other main process.
            if kind != JobKind::Instance || child.is_none() {
                left = InFlight::Job { action, kind, deadline, before: record.before };
            }
        }
        if left == InFlight::Nothing
            && let Some(LadderRecord(ladder)) = read_record(&records, LADDER_FILE)
        {
            left = InFlight::Ladder(ladder);
        }
        left
    }

    /// The program of a `run` service ended while no keeper ran: how it did is in its shim's records,
    /// until the next start takes their place.
    pub(in crate::keeper) fn tell_missed_end(
        &mut self,
        service: &ServiceName,
        identity: ProcessIdentity,
    ) {
        let Some(served) = self.services.get(service) else { return };
        let name = Slot::Instance.file(SlotFile::Child);
        let Some(record) = read_record::<ChildRecord>(&served.records, &name)
            .filter(|record| record.child == identity)
        else {
            return;
        };
        let action = record.action;
        if self.running.iter().any(|running| running.action == action) {
            // Its shim is still heard.
            return;
        }
        let Some(outcome) = read_outcome(&served.records, Slot::Instance, action) else { return };
        let exit = exit_of(&outcome);
        self.inbox.push_back(Input::Exited { service: service.clone(), identity, exit });
        self.inbox.push_back(Input::Finished { service: service.clone(), action, outcome });
    }
}

/// Whether an earlier keeper saw what this start was to bring up.
fn has_come(records: &Path, record: &JobRecord) -> bool {
    let main = read_record::<MainRecord>(records, MAIN_FILE).map(|record| record.identity);
    let command = read_child(records, Slot::Action, record.action);
    record.kind.brings_up()
        && main != record.before
        && main.zip(command).is_some_and(|(main, it)| main.started_ticks >= it.started_ticks)
}
