//! At a start: which service is which, where files were renamed or removed while no heeler ran.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{self, diff};
use crate::engine::effect::Level;
use crate::engine::replace::Farewell;
use crate::keeper::Keeper;
use crate::keeper::dirs::{self, Move};
use crate::model::ids::ServiceName;
use crate::model::intent::Desired;
use crate::model::job::InFlight;
use crate::model::memory::Memory;
use crate::model::service::{Command, Life, Service};
use crate::store::Message;
use crate::sys::records;
use crate::wire::shim::LADDER_FILE;

impl Keeper {
    /// Gives memories and records the names that their services have now.
    pub(super) fn settle_names<'a>(
        &mut self,
        services: impl Iterator<Item = &'a Service>,
        memories: &mut BTreeMap<ServiceName, Memory>,
    ) -> Result<(), String> {
        let svc = self.conf.svc();
        dirs::finish(&svc).map_err(|error| {
            format!("failed to look through {}: {error}; may this user read it?", svc.display())
        })?;
        let defs: BTreeMap<_, _> =
            services.map(|service| (service.name.clone(), service)).collect();
        let after = defs.iter().map(|(name, def)| (name.clone(), def.claim_mark())).collect();
        let known = |name: &ServiceName, memory: &Memory| {
            // An earlier heeler did not write it down: then the name is all there is.
            memory.claim.or_else(|| Some(defs.get(name)?.claim_mark()))
        };
        let before = memories
            .iter()
            .filter_map(|(name, memory)| Some((name.clone(), known(name, memory)?)))
            .collect();
        let renamed = diff::renames(&before, &after);
        let moved = renamed.iter().filter_map(|(to, from)| {
            let claim = defs.get(to)?.claim_mark();
            Some(Move { from: from.clone(), to: to.clone(), claim })
        });
        if let Some((name, why)) = dirs::carry(&svc, &moved.collect::<Vec<_>>()).first() {
            // Whatever it has in flight cannot be told: nothing may be started beside it.
            return Err(format!(
                "failed to move the records of {name} in {}: {why}",
                svc.display()
            ));
        }
        let mut carried = Vec::new();
        for (to, from) in &renamed {
            let (Some(memory), Some(def)) = (memories.remove(from), defs.get(to)) else { continue };
            self.say(Level::Info, &format!("the file of {from} was renamed: it is {to} now"));
            let old = Service { name: from.clone(), ..Service::clone(def) };
            self.close_told(old, &memory, &Farewell::Renamed(to.clone()));
            self.store.send([Message::Forget(from.clone())]);
            carried.push((to.clone(), memory.renamed(from, to, self.now().wall)));
        }
        for (to, memory) in carried {
            // Remembered under this name from now on.
            self.dirty.insert(to.clone());
            memories.insert(to, memory);
        }
        Ok(())
    }

    /// Services whose files are gone. A foreground program of one that lives can be seen and stopped.
    pub(super) fn forget_all(&mut self, memories: BTreeMap<ServiceName, Memory>) {
        let svc = self.conf.svc();
        let mut gone: BTreeMap<_, _> =
            memories.into_iter().map(|(name, memory)| (name, Some(memory))).collect();
        // Of one that nothing is remembered of there is still its program.
        gone.extend(
            dirs::living(&svc)
                .into_iter()
                .filter(|name| !self.services.contains_key(name))
                .filter(|name| !gone.contains_key(name))
                .map(|name| (name, None))
                .collect::<Vec<_>>(),
        );
        for (name, memory) in gone {
            let stopped =
                memory.as_ref().is_some_and(|memory| memory.intent.desired == Desired::Down);
            let last = self.last_good(&name).map(|last| last.definition.service);
            let unknown = || config::heelers_own(&self.conf.settings);
            let def = Service { name: name.clone(), ..last.clone().unwrap_or_else(unknown) };
            if let Some(memory) = memory.filter(|_| last.is_some()) {
                self.close_told(def.clone(), &memory, &Farewell::Gone);
            }
            let records = self.conf.records_of(&name);
            if !stopped {
                // Nobody asked for its end but what an earlier definition of it said.
                drop(records::remove_record(&records, LADDER_FILE));
            }
            if dirs::instance_lives(&records) {
                let life = match def.life {
                    Life::Run(_) => def.life.clone(),
                    Life::Pidfile(_) | Life::Match(_) | Life::Unit(_) | Life::Nothing => {
                        Life::Run(unknown_program())
                    }
                };
                match self.take_in_unclaimed(Service { life, ..def }) {
                    Ok(()) => continue,
                    Err(why) => self.say(Level::Error, &why),
                }
            }
            let text = format!("{name} is no longer in conf.d: forgotten, and left as it is");
            self.say(Level::Info, &text);
            self.store.send([Message::Forget(name)]);
        }
        self.people_change();
    }

    /// Closes what was told of a service that is watched no longer, by an engine that knows of it for that.
    fn close_told(&mut self, def: Service, memory: &Memory, why: &Farewell) {
        if memory.open.is_empty() {
            return;
        }
        let name = def.name.clone();
        // What it would begin with is of no interest: nothing of it is done.
        let mut begun = Vec::new();
        let (now, nothing) = (self.now(), InFlight::Nothing);
        self.engine.add(now, Arc::new(def), Some(memory.clone()), &nothing, &mut begun);
        self.part_with(&name, why);
    }

    /// Files that were bad when an earlier keeper read them.
    pub(super) fn good_files_are_good(&mut self) {
        let standing = &self.conf.standing;
        let good = self.services.keys().filter(|name| !standing.is_bad(name));
        for name in good.cloned().collect::<Vec<_>>() {
            self.definition_is(&name, None);
        }
    }
}

/// A program that no definition is left of: its process is known by its shim's record.
fn unknown_program() -> Command {
    let argv = vec!["(its definition is lost)".into()];
    Command { argv, timeout: None, env: Vec::new(), cwd: None, systemctl: None }
}
