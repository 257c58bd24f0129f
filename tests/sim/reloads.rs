//! The configuration changes, under the eyes of a keeper or while none runs: a file is edited, renamed,
//! removed, and comes back.

use std::sync::Arc;

use heeler::config::diff::kept;
use heeler::engine::replace::Farewell;
use heeler::model::ids::ServiceName;
use heeler::model::intent::{Desired, Intent, Who};
use heeler::model::memory::{Acquaintance, BootMemory, Memory};
use heeler::model::service::{Life, Service};

use crate::keeper::Stored;
use crate::topology;
use crate::world::{File, World, patience};

impl World {
    /// Something happens to the file of a service, and the keeper reads it.
    pub(crate) fn file_changes(&mut self, svc: usize) {
        if self.crews.masters.contains_key(&svc) {
            // What becomes of workers is told in stories.
            return;
        }
        match (self.svcs[svc].file, self.rng.below(10)) {
            (File::Gone | File::Unclaimed, _) => self.file_is_back(svc),
            (File::There, 0..=1) => self.file_is_removed(svc),
            (File::There, 2..=3) => self.file_is_renamed(svc),
            (File::There, _) => self.file_is_edited(svc),
        }
        self.plan_tick();
    }

    fn file_is_edited(&mut self, svc: usize) {
        self.editions += 1;
        let old = self.svcs[svc].def.clone();
        let mut new = topology::edited(&mut self.rng, &old, self.editions);
        if self.rng.chance(200) && svc > 0 {
            let parent = usize::try_from(self.rng.below(svc as u64)).expect("an index");
            new.depends_on = vec![self.svcs[parent].def.name.clone()];
        } else if self.rng.chance(200) {
            new.depends_on.clear();
        }
        if new.life != old.life {
            self.svcs[svc].pidfile = None;
        }
        self.redefine(svc, new);
    }

    fn redefine(&mut self, svc: usize, new: Service) {
        let (now, new) = (self.clock(), Arc::new(new));
        let old = std::mem::replace(&mut self.svcs[svc].def, Arc::clone(&new));
        self.patience = self.patience.max(patience(&new));
        self.note(|| format!("EDITED {new:?}"));
        let kept = kept(&old, &new, |_, _| true);
        self.oracles_redefine(svc, &old, &kept);
        let mut effects = Vec::new();
        if let Some(engine) = &mut self.engine {
            engine.replace(now, new, &kept, &mut effects);
        }
        self.carry_out(effects);
    }

    fn file_is_renamed(&mut self, svc: usize) {
        self.editions += 1;
        let (now, old) = (self.clock(), self.svcs[svc].def.name.clone());
        let name = ServiceName::parse(&format!("r{}", self.editions)).expect("a name");
        self.note(|| format!("RENAMED {old} to {name}"));
        let def = Service { name: name.clone(), ..Service::clone(&self.svcs[svc].def) };
        let mut effects = Vec::new();
        let memory = self.engine.as_mut().and_then(|engine| {
            let memory = engine.memory(&old)?.renamed(&old, &name, now.wall);
            engine.remove(now, &old, &Farewell::Renamed(name.clone()), &mut effects);
            Some(memory)
        });
        self.svcs[svc].def = Arc::new(def);
        self.svcs[svc].names.push(name.clone());
        self.held.retain(|(of, _)| *of != svc);
        if let Some(memory) = memory {
            // In one group with what is forgotten under the old name.
            self.store_later(Stored::Memory(svc, name.clone(), Box::new(memory.clone())));
            self.oracles_part(svc);
            self.carry_out(effects);
            self.begin_with(svc, Some(memory));
        }
        // Whoever needs it has its new name in the same reload.
        for child in 0..self.svcs.len() {
            let def = Service::clone(&self.svcs[child].def);
            let rename = |parent: ServiceName| if parent == old { name.clone() } else { parent };
            let depends_on: Vec<_> = def.depends_on.iter().cloned().map(rename).collect();
            if depends_on != def.depends_on {
                let def = Service { depends_on, ..def };
                match self.svcs[child].file {
                    File::There => self.redefine(child, def),
                    File::Gone | File::Unclaimed => self.svcs[child].def = Arc::new(def),
                }
            }
        }
    }

    fn file_is_removed(&mut self, svc: usize) {
        let (now, name) = (self.clock(), self.svcs[svc].def.name.clone());
        self.note(|| format!("REMOVED {name}"));
        self.svcs[svc].file = File::Gone;
        self.held.retain(|(of, _)| *of != svc);
        let mut effects = Vec::new();
        if let Some(engine) = &mut self.engine {
            engine.remove(now, &name, &Farewell::Gone, &mut effects);
            self.store_later(Stored::Forget(svc));
            self.oracles_forget(svc);
            self.carry_out(effects);
            self.found_without_file(svc);
        } else {
            self.oracles_forget(svc);
        }
    }

    /// Nothing is done with it. A foreground program that lives can be stopped.
    pub(crate) fn found_without_file(&mut self, svc: usize) {
        let lives = self.svcs[svc].launching.is_some() || !self.mains(svc).is_empty();
        self.store_later(Stored::Forget(svc));
        if self.engine.is_none() || !lives || !matches!(self.svcs[svc].def.life, Life::Run(_)) {
            self.svcs[svc].file = File::Gone;
            return;
        }
        self.svcs[svc].file = File::Unclaimed;
        let mut def = Service::clone(&self.svcs[svc].def);
        def.checks.clear();
        def.depends_on.clear();
        let (now, in_flight) = (self.clock(), self.in_flight(svc));
        let intent = Intent { desired: Desired::Unmonitored, by: Who::Config, at: now.wall };
        let boot = BootMemory { acquaintance: Acquaintance::Known, ..BootMemory::default() };
        let memory = Memory::fresh(intent, boot);
        let mut effects = Vec::new();
        if let Some(engine) = &mut self.engine {
            engine.add(now, Arc::new(def), Some(memory), &in_flight, &mut effects);
        }
        self.carry_out(effects);
    }

    /// A file that was gone is there again.
    pub(crate) fn file_is_back(&mut self, svc: usize) {
        let unclaimed = match self.svcs[svc].file {
            File::There => return,
            File::Gone => false,
            File::Unclaimed => true,
        };
        let (now, name) = (self.clock(), self.svcs[svc].def.name.clone());
        self.note(|| format!("BACK {name}"));
        let mut effects = Vec::new();
        if let Some(engine) = self.engine.as_mut().filter(|_| unclaimed) {
            engine.remove(now, &name, &Farewell::Back, &mut effects);
        }
        self.held.retain(|(of, _)| *of != svc);
        self.carry_out(effects);
        self.oracles_forget(svc);
        self.svcs[svc].file = File::There;
        if self.engine.is_some() {
            self.begin_with(svc, None);
            self.plan_tick();
        }
    }
}
