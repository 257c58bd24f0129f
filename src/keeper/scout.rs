//! The keeper's side of the scout: questions out, observations in, and a new scout for one that died,
//! hangs, or says what it cannot know.
//!
//! Whatever happens to it, every question has exactly one answer: what it saw, or Unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::checks::Probe;
use crate::engine::effect::Level;
use crate::keeper::Keeper;
use crate::keeper::cage::Caged;
use crate::keeper::turn::Source;
use crate::model::change::Kept;
use crate::model::ids::{AskId, CheckIndex, ServiceName};
use crate::model::limits;
use crate::model::observation::Observation;
use crate::model::password::Password;
use crate::model::process::{Gid, Uid};
use crate::wire::scout::{Seen, ToScout};

/// A scout that lived no longer than this is replaced with a growing pause.
const SHORT_LIFE: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Who the scout is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ScoutUser {
    /// heeler is not root: the scout is whoever heeler is.
    Same,
    /// Not looked up yet.
    Unknown,
    /// This one.
    Known(Uid, Gid),
}

/// The scout, and what it was asked.
#[derive(Default)]
pub(super) struct Scout {
    instance: Option<Instance>,
    asked: BTreeMap<AskId, Asked>,
    /// When each answer has to be there, soonest first.
    overdue: BTreeSet<(Instant, AskId)>,
    /// The numbers it knows services by, and their checks; none is used twice.
    numbers: BTreeMap<ServiceName, Numbers>,
    next_number: u32,
    /// How many lived but a moment, one after the other, and when the next may begin.
    short_lives: u32,
    not_before: Option<Instant>,
    buffer: Vec<u8>,
}

struct Instance {
    caged: Caged,
    defined: BTreeSet<u32>,
}

struct Numbers {
    service: u32,
    checks: BTreeMap<CheckIndex, u32>,
}

struct Asked {
    service: ServiceName,
    check: CheckIndex,
    /// When the answer has to be there.
    until: Instant,
}

impl Keeper {
    /// Asks the scout to probe a check, once the password that it needs was read.
    pub(super) fn ask_scout(&mut self, service: ServiceName, check: CheckIndex, ask: AskId) {
        match self.password_file(&service, check) {
            Some(_) => self.read_password_for(service, check, ask),
            None => self.tell_scout(service, check, ask, None),
        }
    }

    /// Asks the scout to probe a check, with what it needs to log in.
    pub(super) fn tell_scout(
        &mut self,
        service: ServiceName,
        check: CheckIndex,
        ask: AskId,
        password: Option<Password>,
    ) {
        if let Err(why) = self.scout_there() {
            self.observed(service, check, ask, Observation::unknown(&why));
            return;
        }
        let Some((settings, timeout)) = self.services.get(&service).and_then(|served| {
            let at = usize::from(check.0);
            let Probe::Network(settings) = served.probes.get(at)? else { return None };
            Some((settings, served.def.checks.get(at)?.timeout))
        }) else {
            return;
        };
        let Scout { numbers, next_number: next, instance, .. } = &mut self.scout;
        let mut fresh = || {
            *next = next.wrapping_add(1);
            *next
        };
        let numbers = numbers
            .entry(service.clone())
            .or_insert_with(|| Numbers { service: fresh(), checks: BTreeMap::new() });
        let number = *numbers.checks.entry(check).or_insert_with(&mut fresh);
        let Some(instance) = instance else { return };
        if instance.defined.insert(number) {
            let settings = serde_json::to_vec(settings).unwrap_or_default().into();
            instance.say(&ToScout::Define { check: number, service: numbers.service, settings });
        }
        instance.say(&ToScout::Probe { ask, check: number, timeout, password });
        let until = Instant::now() + timeout + 2 * limits::PROBE_QUEUE_MAX + limits::SCOUT_GRACE;
        self.scout.asked.insert(ask, Asked { service, check, until });
        self.scout.overdue.insert((until, ask));
    }

    /// The checks of a service are others now: those it goes on asking about keep their numbers.
    pub(super) fn scout_carries(&mut self, service: &ServiceName, kept: &[Kept]) {
        let mut before = self.scout.take_numbers(service);
        for (place, kept) in (0..).map(CheckIndex).zip(kept) {
            if let Kept::Same(was) = kept
                && let Some(number) = before.remove(was)
            {
                self.scout.number(service, place, number);
            }
        }
        self.scout_forgets(before.into_values());
    }

    /// A service is watched no longer.
    pub(super) fn scout_loses(&mut self, service: &ServiceName) {
        let numbers = self.scout.take_numbers(service);
        self.scout.numbers.remove(service);
        self.scout_forgets(numbers.into_values());
    }

    /// What it is asked about them already is answered all the same.
    fn scout_forgets(&mut self, numbers: impl Iterator<Item = u32>) {
        let Some(instance) = &mut self.scout.instance else { return };
        for check in numbers {
            if instance.defined.remove(&check) {
                instance.say(&ToScout::Forget { check });
            }
        }
    }

    /// Makes sure that there is a scout.
    fn scout_there(&mut self) -> Result<(), String> {
        if self.scout.instance.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        if let Some(at) = self.scout.not_before.filter(|at| now < *at) {
            let wait = crate::model::units::show_duration(at - now);
            return Err(format!(
                "heeler's scout ended again and again: a new one begins in {wait}"
            ));
        }
        let caged = self.cage("probe", [Source::ScoutSpeaks, Source::ScoutEnded])?;
        self.scout.instance = Some(Instance { caged, defined: BTreeSet::new() });
        Ok(())
    }

    /// Gives the scout what it was asked in this turn.
    pub(super) fn flush_scout(&mut self) {
        let Some(instance) = &mut self.scout.instance else { return };
        if let Err(why) = instance.caged.flush() {
            self.replace_scout(&why);
        }
    }

    /// The scout says something.
    pub(super) fn scout_speaks(&mut self) {
        let mut buffer = std::mem::take(&mut self.scout.buffer);
        let result = self.hear_scout(&mut buffer);
        self.scout.buffer = buffer;
        if let Err(why) = result {
            self.replace_scout(&why);
        }
    }

    fn hear_scout(&mut self, buffer: &mut Vec<u8>) -> Result<(), String> {
        // Not more than this before the loop goes on: a scout that never stops must not hold it up.
        for _ in 0..limits::PROBES_MAX {
            let Some(instance) = &self.scout.instance else { return Ok(()) };
            let Some(packet) = instance.caged.receive(buffer)? else { return Ok(()) };
            let all =
                Seen::decode(packet).map_err(|error| format!("it talks nonsense: {error}"))?;
            for Seen { ask, seen } in all {
                let asked = self.scout.asked.remove(&ask);
                let asked = asked.ok_or("it answers what it was not asked")?;
                self.scout.overdue.remove(&(asked.until, ask));
                self.observed(asked.service, asked.check, ask, seen);
            }
        }
        Ok(())
    }

    /// The scout ended.
    pub(super) fn scout_ended(&mut self) {
        // What it said last is heard first.
        self.scout_speaks();
        let end = self.scout.instance.as_ref().and_then(|instance| instance.caged.end());
        if let Some(how) = end {
            self.replace_scout(&how);
        }
    }

    /// The scout is to be this user.
    pub(super) fn scout_is(&mut self, user: Option<(Uid, Gid)>) {
        if self.scout.instance.as_ref().is_some_and(|instance| instance.caged.user != user) {
            self.replace_scout("it is to be another user");
        }
    }

    /// Ends the scout, if it has not ended; what it was asked is Unknown. The next question brings a new
    /// one.
    fn replace_scout(&mut self, why: &str) {
        let Some(instance) = self.scout.instance.take() else { return };
        let asked = std::mem::take(&mut self.scout.asked);
        self.scout.overdue.clear();
        let text = format!(
            "the scout (pid {}) is replaced: {why}; {} probes in flight are unknown",
            instance.caged.pid,
            asked.len()
        );
        self.say(Level::Warning, &text);
        let now = Instant::now();
        let scout = &mut self.scout;
        if now.saturating_duration_since(instance.caged.since) < SHORT_LIFE {
            let pause = FIRST_PAUSE.saturating_mul(1 << scout.short_lives.min(16));
            scout.not_before = Some(now + pause.min(LONGEST_PAUSE));
            scout.short_lives += 1;
        } else {
            scout.short_lives = 0;
        }
        self.put_down(instance.caged);
        let unknown = Observation::unknown(&format!("heeler's scout was replaced: {why}"));
        for (ask, asked) in asked {
            self.observed(asked.service, asked.check, ask, unknown.clone());
        }
    }

    /// What is due by time: a scout that takes nothing, or does not answer.
    pub(super) fn scout_due(&mut self, now: Instant) {
        let Some(instance) = &mut self.scout.instance else { return };
        if let Err(why) = instance.caged.flush() {
            self.replace_scout(&why);
            return;
        }
        let Scout { asked, overdue, .. } = &mut self.scout;
        while let Some((until, ask)) = overdue.first().copied().filter(|(until, _)| now >= *until) {
            if now.saturating_duration_since(until) <= limits::LATE {
                self.replace_scout("it does not answer");
                return;
            }
            // It is the keeper that did not run: the scout gets its time, too.
            let until = now + limits::SCOUT_GRACE;
            overdue.pop_first();
            overdue.insert((until, ask));
            if let Some(asked) = asked.get_mut(&ask) {
                asked.until = until;
            }
        }
    }

    /// When that is due.
    pub(super) fn scout_wakeup(&self) -> Option<Instant> {
        let instance = self.scout.instance.as_ref()?;
        let retry = instance.caged.wakeup();
        self.scout.overdue.first().map(|(until, _)| *until).into_iter().chain(retry).min()
    }
}

impl Scout {
    /// The numbers of a service's checks, no longer in use.
    fn take_numbers(&mut self, service: &ServiceName) -> BTreeMap<CheckIndex, u32> {
        let numbers = self.numbers.get_mut(service);
        numbers.map(|numbers| std::mem::take(&mut numbers.checks)).unwrap_or_default()
    }

    /// One of them is still in use, at this place.
    fn number(&mut self, service: &ServiceName, place: CheckIndex, number: u32) {
        if let Some(numbers) = self.numbers.get_mut(service) {
            numbers.checks.insert(place, number);
        }
    }
}

impl Instance {
    fn say(&mut self, frame: &ToScout) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let packets = &mut self.caged.packets;
        match packets.back_mut() {
            Some(last) if last.len() + bytes.len() <= PACKET_BYTES => last.extend(bytes),
            Some(_) | None => packets.push_back(bytes),
        }
    }
}

/// So many bytes of questions go in one packet.
const PACKET_BYTES: usize = 32 << 10;
const _: () = assert!(PACKET_BYTES < limits::SCOUT_PACKET_BYTES_MAX);
