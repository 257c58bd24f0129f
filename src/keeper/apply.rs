//! A configuration that was read comes into force: as a difference, so that what did not change is not
//! touched. No process is, whatever changed.

use std::collections::BTreeMap;

use crate::checks::Probe;
use crate::config::settings::Settings;
use crate::config::{BadFile, Loaded, LoadedService, Role};
use crate::engine::replace::Farewell;
use crate::keeper::Keeper;
use crate::keeper::dirs::{self, Move};
use crate::keeper::intake::{Defined, wanted_by_its_file};
use crate::keeper::jobs::Running;
use crate::keeper::reload::text_mark;
use crate::keeper::served::File;
use crate::keeper::start::store_settings;
use crate::model::change::{Change, Changes, Instead};
use crate::model::ids::ServiceName;
use crate::model::memory::Memory;
use crate::model::service::{Life, Service};
use crate::store::Message;
use crate::store::definitions::DefinitionName;

/// What is to be done once all who part have parted.
#[derive(Default)]
struct Ahead {
    /// Services that come, with what is remembered of them.
    arriving: Vec<(ServiceName, Option<Memory>)>,
    /// Whose records get another name.
    moves: Vec<Move>,
    /// Programs whose name somebody else has now.
    displaced: Vec<Service>,
    notes: Vec<String>,
}

impl Keeper {
    /// Brings it into force. Answers what else is to be said about it.
    pub(super) fn apply(&mut self, loaded: Loaded, changes: &Changes) -> Vec<String> {
        let Loaded { settings, settings_text, services, bad, .. } = loaded;
        let in_place_of_settings =
            if settings_text.is_some() { Instead::LastGood } else { Instead::Defaults };
        self.adopt_settings(settings, settings_text);
        let mut defined: BTreeMap<_, _> =
            services.into_iter().map(|one| (one.name().clone(), one)).collect();
        let mut ahead = self.see_off(changes, &defined);
        self.carry_records(&mut ahead);
        let lost = self.recall_awaited(&defined, &bad, &mut ahead);
        for (name, memory) in std::mem::take(&mut ahead.arriving) {
            let Some(one) = defined.remove(&name) else { continue };
            if let Err(why) = self.arrive(one, memory) {
                ahead.notes.push(format!("{name} is not watched: {why}"));
            }
        }
        if let Some(lost) = lost {
            self.forget_all(lost);
        }
        for def in std::mem::take(&mut ahead.displaced) {
            let name = def.name.clone();
            match self.take_in_unclaimed(def) {
                Ok(()) => ahead.notes.push(format!(
                    "a program whose name another service has now goes on as {name}; \
                     `heeler stop {name}` stops it"
                )),
                Err(why) => ahead.notes.push(why),
            }
        }
        for (name, one) in defined {
            let LoadedService { definition, text, .. } = one;
            let mark = text_mark(&text);
            let Some(served) = self.services.get_mut(&name) else { continue };
            if served.text == mark
                && *served.def == definition.service
                && *served.probes == *definition.probes
            {
                continue;
            }
            if *served.def == definition.service && *served.probes == *definition.probes {
                served.text = mark;
            } else {
                self.redefine(definition, mark);
            }
            let file = DefinitionName::Service(name);
            self.outgoing.push(Message::SaveDefinition(file, text));
        }
        self.directory_is(None);
        self.files_are(&bad, in_place_of_settings, &changes.needs_restart);
        self.redefine_own();
        self.meet_people();
        ahead.notes
    }

    /// All who part do so before anybody comes: names may be passed on.
    fn see_off(
        &mut self,
        changes: &Changes,
        defined: &BTreeMap<ServiceName, LoadedService>,
    ) -> Ahead {
        let mut ahead = Ahead::default();
        let from: Vec<_> = changes
            .services
            .iter()
            .filter_map(|change| match change {
                Change::Renamed { from, .. } => Some(from),
                Change::Added(_) | Change::Changed(..) | Change::Removed(_) => None,
            })
            .collect();
        for change in &changes.services {
            match change {
                Change::Changed(..) => {}
                Change::Removed(name) => {
                    self.forget(name);
                    if self.unclaimed.contains(name) {
                        ahead.notes.push(format!(
                            "the program of {name} goes on, unclaimed; `heeler stop {name}` stops it"
                        ));
                    }
                }
                Change::Renamed { from: old, to, .. } => {
                    if self.services.contains_key(to) && !from.contains(&to) {
                        self.displace(to, &mut ahead);
                    }
                    let at = self.now().wall;
                    let memory = self.engine.memory(old);
                    let memory = memory.map(|memory| memory.renamed(old, to, at));
                    self.hand_on(old, to, &mut ahead);
                    ahead.arriving.push((to.clone(), memory));
                }
                Change::Added(name) => {
                    if self.unclaimed.contains(name) {
                        self.part_with(name, &Farewell::Back);
                        self.let_go_of(name);
                    } else if let Some(old) = defined.get(name).and_then(|one| self.left_by(one)) {
                        self.hand_on(&old, name, &mut ahead);
                    }
                    ahead.arriving.push((name.clone(), None));
                }
            }
        }
        ahead
    }

    /// The unclaimed program that is the new service's: its file came back under another name.
    fn left_by(&self, one: &LoadedService) -> Option<ServiceName> {
        let service = &one.definition.service;
        let same = |name: &&ServiceName| {
            let left = self.services.get(*name);
            left.is_some_and(|left| left.def.claim_mark() == service.claim_mark())
        };
        let run = matches!(service.life, Life::Run(_));
        self.unclaimed.iter().find(|name| run && same(name)).cloned()
    }

    /// A service goes on under another name.
    fn hand_on(&mut self, from: &ServiceName, to: &ServiceName, ahead: &mut Ahead) {
        self.part_with(from, &Farewell::Renamed(to.clone()));
        let Some(served) = self.let_go_of(from) else { return };
        let claim = served.def.claim_mark();
        ahead.moves.push(Move { from: from.clone(), to: to.clone(), claim });
        self.outgoing.push(Message::Forget(from.clone()));
    }

    /// The name of a service is another's from now on, and its own file is gone. A foreground program is
    /// still there to be stopped, under a name that is free.
    fn displace(&mut self, name: &ServiceName, ahead: &mut Ahead) {
        self.part_with(name, &Farewell::Gone);
        let Some(served) = self.let_go_of(name) else { return };
        self.outgoing.push(Message::Forget(name.clone()));
        if !matches!(served.def.life, Life::Run(_)) || !dirs::instance_lives(&served.records) {
            return;
        }
        let free = (1..u32::MAX)
            .filter_map(|n| ServiceName::parse(&format!("{name}.{n}")).ok())
            .take(NAMES_TRIED_MAX)
            .find(|free| !self.services.contains_key(free) && !self.conf.records_of(free).exists());
        let Some(free) = free else {
            ahead
                .notes
                .push(format!("the program of the former {name} goes on, and nobody watches it"));
            return;
        };
        let claim = served.def.claim_mark();
        ahead.moves.push(Move { from: name.clone(), to: free.clone(), claim });
        ahead.displaced.push(Service { name: free, ..Service::clone(&served.def) });
    }

    /// Records and running jobs go where their services go.
    fn carry_records(&mut self, ahead: &mut Ahead) {
        if ahead.moves.is_empty() {
            return;
        }
        let svc = self.conf.svc();
        for (name, why) in dirs::carry(&svc, &ahead.moves) {
            // Whatever it had in flight cannot be told: nothing may be started beside it.
            ahead
                .notes
                .push(format!("{name} is not watched: its records could not be moved: {why}"));
            ahead.arriving.retain(|(other, _)| *other != name);
            ahead.displaced.retain(|other| other.name != name);
            ahead.moves.retain(|one| one.to != name);
        }
        for Running { service, records, .. } in &mut self.running {
            if let Some(one) = ahead.moves.iter().find(|one| one.from == *service) {
                *records = svc.join(one.to.as_str());
                *service = one.to.clone();
            }
        }
    }

    /// A service comes.
    fn arrive(&mut self, one: LoadedService, memory: Option<Memory>) -> Result<(), String> {
        let LoadedService { definition, text, .. } = one;
        let name = definition.service.name.clone();
        let mark = text_mark(&text);
        let def = self.take_in(Defined { definition, text: mark, file: File::There })?;
        if memory.is_some() {
            // It is remembered under this name from now on.
            self.dirty.insert(name.clone());
        }
        self.begin(def, memory.map(wanted_by_its_file));
        self.outgoing.push(Message::SaveDefinition(DefinitionName::Service(name), text));
        Ok(())
    }

    /// After a start from an empty directory this is the first that has files: their services are who they
    /// were. Answers what is remembered of those that have none.
    fn recall_awaited(
        &mut self,
        defined: &BTreeMap<ServiceName, LoadedService>,
        bad: &[BadFile],
        ahead: &mut Ahead,
    ) -> Option<BTreeMap<ServiceName, Memory>> {
        let mut awaited = std::mem::take(&mut self.conf.awaited);
        if awaited.is_empty() {
            return None;
        }
        let services = defined.values().map(|one| &one.definition.service);
        if let Err(why) = self.settle_names(services, &mut awaited) {
            ahead.arriving.clear();
            ahead.notes.push(format!("nothing is watched: {why}"));
            self.conf.awaited = awaited;
            return None;
        }
        for (name, memory) in &mut ahead.arriving {
            *memory = memory.take().or_else(|| awaited.remove(name));
        }
        for bad in bad {
            if let Role::Service(name) = &bad.role {
                self.conf.awaited.extend(awaited.remove_entry(name));
            }
        }
        Some(awaited)
    }

    /// What of the daemon's own settings can change while it runs, does.
    fn adopt_settings(&mut self, new: Settings, text: Option<Box<str>>) {
        let old = &self.conf.settings;
        let new = Settings {
            state_dir: old.state_dir.clone(),
            run_dir: old.run_dir.clone(),
            socket: old.socket.clone(),
            log: new.log.clone().or_else(|| old.log.clone()),
            ..new
        };
        if let Some(text) = &text
            && self.conf.text != Some(text.clone())
        {
            let file = DefinitionName::Daemon;
            self.outgoing.push(Message::SaveDefinition(file, text.clone()));
        }
        if let Some(to) = new.log.as_ref().filter(|_| old.log != new.log) {
            self.log.write_to(to.clone());
        }
        let mails = (&old.mail, &old.hostname) != (&new.mail, &new.hostname);
        self.engine.brake_at(new.brake);
        (self.conf.settings, self.conf.text) = (new, text);
        if mails {
            let settings = &self.conf.settings;
            let about = store_settings(settings, &self.load_as, &self.boot_id);
            self.post_changes(about.host.clone());
            self.outgoing.push(Message::Deliver(Box::new(about.host), about.delivery));
        }
    }

    /// Services may have other users, and other people rights on them.
    pub(super) fn meet_people(&mut self) {
        let network = |probe: &Probe| matches!(probe, Probe::Network(_));
        let probes = self.services.values().any(|served| served.probes.iter().any(network));
        if probes || self.post.delivers() {
            self.people.need_scout(self.conf.settings.scout_user.as_deref());
        }
        self.people_change();
        self.look_up_people();
        self.plan_look_up();
    }
}

/// How many names are tried for a program whose own is another's now.
const NAMES_TRIED_MAX: usize = 64;
