//! Services are taken in, let go of, and defined anew: at the start, and when the configuration says so.
//! No process is touched by any of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Definition;
use crate::config::diff::{self, Side};
use crate::engine::effect::Level;
use crate::engine::replace::Farewell;
use crate::keeper::Keeper;
use crate::keeper::crews::Crew;
use crate::keeper::dirs;
use crate::keeper::jobs::{Answers, read_record};
use crate::keeper::pumas::PumaKnown;
use crate::keeper::samples::needs_of;
use crate::keeper::served::{ClaimId, Family, File, InPool, Served, UnitKnown};
use crate::keeper::start::make_dir;
use crate::model::ids::ServiceName;
use crate::model::intent::{Desired, Intent, Who};
use crate::model::job::JobKind;
use crate::model::memory::{Acquaintance, BootMemory, Memory};
use crate::model::service::{Life, Service};
use crate::model::status::Phase;
use crate::model::workers::Workers;
use crate::store::Message;
use crate::sys::identity::ClaimStamp;
use crate::sys::pidfile::Stamp;
use crate::sys::records;
use crate::wire::shim::{LADDER_FILE, MAIN_FILE, MainRecord};

/// A service as its file has it, or had it.
pub(super) struct Defined {
    pub(super) definition: Definition,
    /// A mark of the file's text.
    pub(super) text: u64,
    pub(super) file: File,
}

impl Keeper {
    /// Takes a service in: its records, its user. The engine does not know of it yet.
    pub(super) fn take_in(&mut self, defined: Defined) -> Result<Arc<Service>, String> {
        let Defined { definition: Definition { service, probes, .. }, text, file } = defined;
        let def = Arc::new(service);
        let records = self.conf.records_of(&def.name);
        make_dir(&records, 0o700)?;
        let main = read_record::<MainRecord>(&records, MAIN_FILE);
        let claim = main.as_ref().and_then(|main| main.claim).map(Stamp::from_numbers);
        let stamp = match (&def.life, claim) {
            (Life::Pidfile(_), Some(claim)) => Some(ClaimStamp::Pidfile(claim, None)),
            (
                Life::Pidfile(_) | Life::Match(_) | Life::Run(_) | Life::Unit(_) | Life::Nothing,
                _,
            ) => None,
        };
        let family = main.map(|main| {
            let session = main.session.0;
            (main.identity, Family { session, sockets: main.sockets, group: None, memory: None })
        });
        let born = self.new_claim();
        let served = Served {
            text,
            file,
            born,
            claim: born,
            proved_by: born,
            owner: self.people.owner(&def),
            records,
            needs: needs_of(&def),
            seated: None,
            in_pool: InPool::default(),
            stamp,
            held: BTreeMap::new(),
            families: family.into_iter().collect(),
            absence_note: None,
            last_sample: None,
            crew: Crew::default(),
            unit: UnitKnown::default(),
            puma: PumaKnown::default(),
            probes: probes.into(),
            looking: BTreeMap::new(),
            def: Arc::clone(&def),
        };
        if file == File::Gone {
            self.unclaimed.insert(def.name.clone());
        }
        self.services.insert(def.name.clone(), Box::new(served));
        Ok(def)
    }

    /// The engine begins with a service that was taken in.
    pub(super) fn begin(&mut self, def: Arc<Service>, memory: Option<Memory>) {
        let in_flight = self.in_flight(&def.name);
        self.engine_does(|engine, now, effects| engine.add(now, def, memory, &in_flight, effects));
    }

    /// Lets go of a service, once the engine has: what is held and asked for it. What runs goes on, and is
    /// heard to its end.
    pub(super) fn let_go_of(&mut self, name: &ServiceName) -> Option<Box<Served>> {
        let held = self.services.get(name).map(|served| served.held.keys().copied());
        for identity in held.into_iter().flatten().collect::<Vec<_>>() {
            self.let_go(name, identity);
        }
        let mut served = self.services.remove(name)?;
        self.unclaimed.remove(name);
        self.dirty.remove(name);
        self.looks.retain(|(_, service, _)| service != name);
        self.units_waiting.retain(|(service, _)| service != name);
        self.pumas_waiting.retain(|service| service != name);
        self.deferred_exits.retain(|(_, service, _)| service != name);
        self.surveys.retain(|due| due.service != *name);
        self.carry_programs(name, &[]);
        self.carry_passwords(name, &[]);
        self.answers_are_nobodys(name, |kind| matches!(kind, JobKind::Look | JobKind::Ask));
        self.scout_loses(name);
        self.not_shown(name);
        for reply in served.crew.roll.everybody() {
            self.call_the_roll(name.clone(), reply);
        }
        Some(served)
    }

    /// What these jobs of a service are asked about is not so any more.
    fn answers_are_nobodys(&mut self, name: &ServiceName, which: impl Fn(JobKind) -> bool) {
        let jobs = self.running.iter_mut();
        for running in jobs.filter(|one| one.service == *name && which(one.kind)) {
            running.answers = Answers::Nobody;
        }
    }

    /// A service is defined anew. Everything goes on but what is about what changed.
    pub(super) fn redefine(&mut self, definition: Definition, text: u64) {
        let Definition { service, probes, .. } = definition;
        let (name, fresh) = (service.name.clone(), self.new_claim());
        let Some(served) = self.services.get_mut(&name) else { return };
        let old = Side { service: &served.def, probes: &served.probes, text: None };
        let new = Side { service: &service, probes: &probes, text: None };
        let kept = diff::kept_checks(&old, &new);
        let claimed_alike = old.service.is_claimed_like(&service);
        let who = |def: &Service| {
            let who = def.workers.as_ref().map(Workers::who);
            who.map(|(pattern, user)| (pattern.to_owned(), user.map(str::to_owned)))
        };
        let same_workers = claimed_alike && who(old.service) == who(&service);
        let asked_alike = old.service.is_asked_like(&service);
        let def = Arc::new(service);
        served.needs = needs_of(&def);
        served.owner = self.people.owner(&def);
        if !same_workers {
            served.crew.is_told_anew();
        }
        (served.def, served.probes, served.text) = (Arc::clone(&def), probes.into(), text);
        if !claimed_alike {
            served.claim = fresh;
            (served.seated, served.stamp, served.absence_note) = (None, None, None);
            served.unit = UnitKnown::default();
            // A look that hangs is about another place.
            served.in_pool.look = false;
            self.units_waiting.retain(|(service, _)| *service != name);
            self.answers_are_nobodys(&name, |kind| kind == JobKind::Look);
        }
        if !asked_alike {
            self.answers_are_nobodys(&name, |kind| kind == JobKind::Ask);
            self.ask_puma_anew(&name);
        }
        self.carry_looks(&name, &kept);
        self.carry_programs(&name, &kept);
        self.carry_passwords(&name, &kept);
        self.scout_carries(&name, &kept);
        self.engine_does(|engine, now, effects| engine.replace(now, def, &kept, effects));
    }

    /// A service's file is gone. A foreground program of heeler's stays there to be stopped.
    pub(super) fn forget(&mut self, name: &ServiceName) {
        self.part_with(name, &Farewell::Gone);
        let Some(served) = self.let_go_of(name) else { return };
        let lives =
            matches!(served.def.life, Life::Run(_)) && dirs::instance_lives(&served.records);
        if lives {
            match self.take_in_unclaimed(Service::clone(&served.def)) {
                Ok(()) => return,
                Err(why) => self.say(Level::Error, &why),
            }
        }
        self.say(Level::Info, &format!("{name} is no longer watched, and left as it is"));
        // Whoever has this name next is somebody else.
        for record in [MAIN_FILE, LADDER_FILE] {
            drop(records::remove_record(&served.records, record));
        }
        self.outgoing.push(Message::Forget(name.clone()));
    }

    /// The engine parts with a service.
    pub(super) fn part_with(&mut self, name: &ServiceName, why: &Farewell) {
        self.engine_does(|engine, now, effects| engine.remove(now, name, why, effects));
    }

    fn new_claim(&mut self) -> ClaimId {
        self.next_claim += 1;
        ClaimId(self.next_claim)
    }

    // ---- unclaimed ---------------------------------------------------------------------------

    /// A foreground program goes on whose file is gone: it can be seen and stopped, nothing else is done
    /// with it. It is taken in with what its file last said of it.
    pub(super) fn take_in_unclaimed(&mut self, mut def: Service) -> Result<(), String> {
        def.checks.clear();
        def.depends_on.clear();
        let name = def.name.clone();
        let definition = Definition { service: def, probes: Vec::new(), parents_at: Vec::new() };
        let def = self.take_in(Defined { definition, text: 0, file: File::Gone })?;
        self.say(Level::Warning, &format!("{name}: {UNCLAIMED}; `heeler stop {name}` stops it"));
        let at = self.now().wall;
        let intent = Intent { desired: Desired::Unmonitored, by: Who::Config, at };
        // Nothing of it waits for a boot.
        let boot = BootMemory { acquaintance: Acquaintance::Known, ..BootMemory::default() };
        let memory = Memory::fresh(intent, boot);
        self.begin(def, Some(memory));
        Ok(())
    }

    /// Unclaimed programs that ended are forgotten.
    pub(super) fn forget_ended(&mut self) {
        let ended = |name: &&ServiceName| {
            let status = self.engine.status(self.now(), name);
            let rests = status.is_none_or(|is| is.main.is_none() && is.phase == Phase::Watching);
            rests && self.services.get(*name).is_none_or(|one| !dirs::instance_lives(&one.records))
        };
        let ended: Vec<_> = self.unclaimed.iter().filter(ended).cloned().collect();
        for name in ended {
            self.forget(&name);
        }
    }
}

/// The file of a service is there: whatever a configuration before it wanted.
pub(super) fn wanted_by_its_file(mut memory: Memory) -> Memory {
    if memory.intent.by == Who::Config {
        memory.intent.desired = Desired::Up;
    }
    memory
}

/// What is said of a foreground program without a file.
pub(super) const UNCLAIMED: &str = "unclaimed: it goes on, but its file is gone";
