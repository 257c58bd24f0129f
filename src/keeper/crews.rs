//! The workers of a service: looked at in the pool, once for all checks of them; proved there again
//! before one gets a signal, which the loop sends.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checks;
use crate::checks::worker::About;
use crate::engine::effect::Level;
use crate::engine::input::{Delivery, Input};
use crate::engine::standing::{phases_of, process_of, serves};
use crate::keeper::Keeper;
use crate::keeper::roll::Roll;
use crate::keeper::served::Served;
use crate::keeper::turn::Done;
use crate::model::check::CheckKind;
use crate::model::crew::{Duty, Leaving, Member, Muster};
use crate::model::ids::{AskId, ServiceName};
use crate::model::limits;
use crate::model::observation::Observation;
use crate::model::process::{ProcessIdentity, Signal, Uid};
use crate::model::puma::{Boot, Form, Stats, WorkerStatus};
use crate::model::sample::{Needs, ProcessSample};
use crate::model::service::Service;
use crate::model::text::Untrusted;
use crate::model::time::{Mono, Now};
use crate::model::workers::{self, Generation, Target, Worker, WorkerNeeds};
use crate::sys::evidence;
use crate::sys::identity::{self, Found, Proved};
use crate::sys::signal::{self, Delivered};
use crate::sys::survey::Hold;
use crate::sys::workers::{Pattern, Proving, look, prove};

/// What the keeper knows of the workers of one service.
#[derive(Default)]
pub(super) struct Crew {
    /// Who is one; `None` until its user is known.
    pattern: Option<Arc<Pattern>>,
    /// The last sample of each, for rates.
    pub(super) samples: BTreeMap<ProcessIdentity, ProcessSample>,
    /// A look is in the pool.
    looking: bool,
    /// Who wants to see them.
    pub(super) roll: Roll,
}

/// A look that the pool has taken.
pub(super) struct CrewLooked {
    service: ServiceName,
    ask: AskId,
    reloaded: Option<Mono>,
    seen: Result<Vec<Worker>, Untrusted>,
}

/// What is known of all of them beside what each process shows.
pub(super) struct Known<'a> {
    pub(super) target: Option<&'a Target>,
    pub(super) reloaded: Option<Mono>,
    /// What their Puma says.
    pub(super) stats: Option<&'a Stats>,
}

/// A worker that the pool has proved, or not.
pub(super) struct WorkerProved {
    service: ServiceName,
    ask: AskId,
    signal: Signal,
    why: &'static str,
    /// By what it was proved; `None` where nobody can say who is a worker.
    pattern: Option<Arc<Pattern>>,
    proving: Result<Proving, Untrusted>,
    /// What was seen of it before its KILL.
    evidence: Option<Untrusted>,
    /// When the proof was asked for.
    began: Instant,
}

/// What all conditions on workers together need.
pub(super) fn needs_of(service: &Service) -> WorkerNeeds {
    let checks = service.checks.iter().filter(|check| check.kind == CheckKind::Worker);
    let needs = checks.map(|check| checks::worker::needs(&check.condition));
    let state = WorkerNeeds {
        // By its state it is known whether one is frozen.
        process: Needs { stat: true, ..Needs::default() },
        release: service.puma.is_some(),
    };
    needs.fold(state, WorkerNeeds::and)
}

impl Crew {
    /// The service is defined anew: who is a worker may be said otherwise.
    pub(super) fn is_told_anew(&mut self) {
        self.pattern = None;
    }
}

impl Keeper {
    /// Looks at all workers of a main process.
    pub(super) fn look_at_crew(
        &mut self,
        service: ServiceName,
        ask: AskId,
        main: ProcessIdentity,
        reloaded: Option<Mono>,
    ) {
        let pattern = self.pattern_of(&service);
        let Some(served) = self.services.get_mut(&service) else { return };
        let refused = match &pattern {
            Err(why) => Some(why.clone()),
            Ok(_) if served.crew.looking => {
                Some(Untrusted::from("the last look at its workers has not come back yet"))
            }
            Ok(_) => None,
        };
        if served.def.puma.is_some() && pattern.is_ok() {
            // Its own word belongs to it.
            self.ask_for_crew(service, ask, reloaded);
            return;
        }
        if let Some(why) = refused {
            let (seen, puma) = (Err(why), None);
            self.inbox.push_back(Input::CrewSeen { service, ask, seen, puma });
            return;
        }
        let Ok(pattern) = pattern else { return };
        served.crew.looking = true;
        let needs = needs_of(&served.def);
        self.pool.submit(move || {
            let look = || {
                let main = held(main)?;
                let crew = look(main.held(), &pattern, needs, None)?;
                Ok(crew.workers.into_iter().map(|hand| hand.worker).collect())
            };
            let seen = catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| {
                Err(Untrusted::from("the look at its workers crashed: this is a bug of heeler"))
            });
            Done::CrewLooked(CrewLooked { service, ask, reloaded, seen })
        });
    }

    /// Takes in what the pool saw.
    pub(super) fn crew_looked(&mut self, looked: CrewLooked) {
        let CrewLooked { service, ask, reloaded, seen } = looked;
        let now = self.now();
        let Some(served) = self.services.get_mut(&service) else { return };
        served.crew.looking = false;
        let known = Known { target: None, reloaded, stats: None };
        let seen = seen.map(|workers| served.muster(now, &workers, &known));
        self.inbox.push_back(Input::CrewSeen { service, ask, seen, puma: None });
    }

    /// Has the pool prove a worker: its title, which may block, is part of the proof.
    pub(super) fn signal_worker(
        &mut self,
        service: ServiceName,
        ask: AskId,
        (main, worker): (ProcessIdentity, ProcessIdentity),
        signal: Signal,
        why: &'static str,
    ) {
        let began = Instant::now();
        let pattern = self.pattern_of(&service);
        let pattern = match pattern {
            Ok(pattern) => pattern,
            Err(refused) => {
                let (pattern, proving, evidence) = (None, Err(refused), None);
                self.worker_proved(WorkerProved {
                    service,
                    ask,
                    signal,
                    why,
                    pattern,
                    proving,
                    evidence,
                    began,
                });
                return;
            }
        };
        self.pool.submit(move || {
            let prove = || {
                let proving = prove(held(main)?.held(), worker, &pattern);
                let evidence = match &proving {
                    Proving::Proved(proved) if signal == Signal::Kill => {
                        Some(evidence::collect(proved.held()).to_string())
                    }
                    Proving::Proved(_)
                    | Proving::Gone
                    | Proving::Refused(_)
                    | Proving::Unknown(_) => None,
                };
                Ok((proving, evidence.map(|text| Untrusted::from(text.as_str()))))
            };
            let proved = catch_unwind(AssertUnwindSafe(prove)).unwrap_or_else(|_| {
                Err(Untrusted::from("the proof of a worker crashed: this is a bug of heeler"))
            });
            let (proving, evidence) = match proved {
                Ok((proving, evidence)) => (Ok(proving), evidence),
                Err(why) => (Err(why), None),
            };
            let pattern = Some(pattern);
            Done::WorkerProved(WorkerProved {
                service,
                ask,
                signal,
                why,
                pattern,
                proving,
                evidence,
                began,
            })
        });
    }

    /// Sends a proved worker its signal, and watches it.
    pub(super) fn worker_proved(&mut self, proved: WorkerProved) {
        let WorkerProved { service, ask, signal, why, pattern, proving, evidence, began } = proved;
        let known = self.services.get(&service).and_then(|served| served.crew.pattern.clone());
        let as_ever = known.zip(pattern).is_some_and(|(now, then)| Arc::ptr_eq(&now, &then));
        let result = match proving {
            // The engine has given it up, and may mean another one by now.
            Ok(Proving::Proved(_)) if began.elapsed() >= limits::ASK_TIMEOUT => {
                Delivery::Refused(Untrusted::from("its proof came too late"))
            }
            Ok(Proving::Proved(_)) if !as_ever => {
                Delivery::Refused(Untrusted::from("who is a worker is said otherwise meanwhile"))
            }
            Ok(Proving::Proved(proved)) => self.tell_worker(&service, proved, signal, why),
            Ok(Proving::Gone) => Delivery::Gone,
            Ok(Proving::Refused(why) | Proving::Unknown(why)) | Err(why) => Delivery::Refused(why),
        };
        self.inbox.push_back(Input::WorkerSignalled { service, ask, result, evidence });
    }

    fn tell_worker(
        &mut self,
        service: &ServiceName,
        proved: Proved,
        what: Signal,
        why: &str,
    ) -> Delivery {
        let identity = proved.identity();
        let text = format!("SIG{} to pid {identity}: {why}", what.name());
        self.log.say(self.now().wall, Level::Info, service.as_str(), text);
        let delivery = match signal::send(&proved, what) {
            Delivered::Sent => {
                if what != Signal::Kill {
                    // A stopped process keeps TERM pending until it goes on.
                    let _delivered = signal::send(&proved, Signal::Cont);
                }
                Delivery::Sent
            }
            Delivered::Gone => Delivery::Gone,
            Delivered::Failed(why) => Delivery::Refused(why),
        };
        let held = self.services.get(service).is_some_and(|one| one.held.contains_key(&identity));
        if delivery == Delivery::Sent && !held {
            self.hold(service, Hold::Proved(proved));
        }
        delivery
    }

    /// Who is a worker of a service.
    pub(super) fn pattern_of(&mut self, service: &ServiceName) -> Result<Arc<Pattern>, Untrusted> {
        let Some(served) = self.services.get_mut(service) else {
            return Err(Untrusted::from("the service is not there any more"));
        };
        if let Some(pattern) = &served.crew.pattern {
            return Ok(Arc::clone(pattern));
        }
        let Some(workers) = &served.def.workers else {
            return Err(Untrusted::from("it has no [workers] in its file"));
        };
        let user = match &workers.user {
            None => served.owner,
            Some(name) => name.parse().ok().map(Uid).or_else(|| self.people.user(name)),
        };
        let Some(user) = user else {
            return Err(Untrusted::from("the user of its workers could not be looked up yet"));
        };
        let pattern = Arc::new(Pattern::new(&workers.pattern, user)?);
        served.crew.pattern = Some(Arc::clone(&pattern));
        Ok(pattern)
    }
}

impl Served {
    /// What a look at its workers means for each, for the engine: the next one is compared with it.
    pub(super) fn muster(&mut self, now: Now, workers: &[Worker], known: &Known<'_>) -> Muster {
        let members = self.members_of(now, workers, known);
        let samples = workers.iter().map(|worker| (worker.identity(), worker.sample.clone()));
        self.crew.samples = samples.collect();
        let all: Vec<&Worker> = workers.iter().collect();
        Muster { members, coming: known.stats.map_or(0, |stats| coming(stats, &all)) }
    }

    /// What a look at its workers means for each.
    pub(super) fn members_of(
        &self,
        now: Now,
        workers: &[Worker],
        known: &Known<'_>,
    ) -> Vec<Member> {
        let needs = needs_of(&self.def);
        let all: Vec<&Worker> = workers.iter().collect();
        let awaited = known.stats.and_then(|stats| awaited(stats, &all));
        workers
            .iter()
            .map(|worker| {
                let release = worker.release.as_ref();
                let place = release.and_then(|release| workers::place(release, known.target));
                let about = About { place, generation: generation(worker, now, known) };
                let previous = self.crew.samples.get(&worker.identity());
                let seen = checks::worker::observe(worker, previous, about, needs);
                let status = known.stats.and_then(|stats| status_of(worker, stats));
                let leaving =
                    if awaited == Some(worker.identity()) { Leaving::Awaited } else { Leaving::No };
                Member { duty: duty(worker, status, &all, now), leaving, ..member(worker, seen) }
            })
            .collect()
    }
}

/// Of which generation it is: by its master's word, else by the last reload that heeler made.
pub(super) fn generation(worker: &Worker, now: Now, known: &Known<'_>) -> Option<Generation> {
    if let Some(phases) = known.stats.and_then(|stats| phases_of(worker, stats)) {
        return workers::generation(worker.identity(), Some(phases), None);
    }
    let age = Duration::from_millis(worker.sample.age_ms);
    known.reloaded.map(|reloaded| match now.mono.since(reloaded) < age {
        true => Generation::Older,
        false => Generation::Present,
    })
}

/// The one worker a Puma waits for in a phased restart: when all have booted it tells the first of an
/// older phase to go, and does nothing more until that one went (cluster.rb, `check_workers`).
fn awaited(stats: &Stats, workers: &[&Worker]) -> Option<ProcessIdentity> {
    let Form::Cluster(cluster) = &stats.form else { return None };
    let phase = cluster.phase?;
    let all_booted = cluster.each.iter().all(|status| status.boot == Boot::Booted);
    let old = cluster.each.iter().find(|status| status.phase.is_some_and(|own| own < phase))?;
    let process = process_of(old, workers).filter(|_| all_booted)?;
    Some(process.identity())
}

/// Who is not ready by the master's word and was not seen. One in whose place another process is seen is
/// known by that.
fn coming(stats: &Stats, workers: &[&Worker]) -> usize {
    let Form::Cluster(cluster) = &stats.form else { return 0 };
    let booting = cluster.each.iter().filter(|status| status.boot == Boot::Booting);
    booting.filter(|status| process_of(status, workers).is_none()).count()
}

fn status_of<'s>(worker: &Worker, stats: &'s Stats) -> Option<&'s WorkerStatus> {
    let Form::Cluster(cluster) = &stats.form else { return None };
    cluster.each.iter().find(|status| process_of(status, &[worker]).is_some())
}

/// Whether it is capacity: by its master's word where there is one, else by its process alone.
fn duty(worker: &Worker, status: Option<&WorkerStatus>, all: &[&Worker], now: Now) -> Duty {
    let stopped = matches!(worker.sample.state, Some('T' | 't'));
    let young = Duration::from_millis(worker.sample.age_ms) < limits::WORKER_BOOTS;
    match status {
        Some(status) if status.boot == Boot::Booting => Duty::Boots,
        Some(status) if serves(status, all, now.wall) => Duty::Serves,
        Some(_) => Duty::Frozen,
        None if stopped => Duty::Frozen,
        None if young => Duty::Boots,
        None => Duty::Serves,
    }
}

/// What is known of a worker by looking at it alone.
fn member(worker: &Worker, seen: Observation) -> Member {
    Member {
        identity: worker.identity(),
        title: worker.title.clone(),
        ours: worker.ours,
        age_ms: worker.sample.age_ms,
        duty: Duty::Serves,
        leaving: Leaving::No,
        fragile: worker.fragile(),
        release: worker.release.as_ref().map(|release| release.path.clone()),
        seen,
    }
}

/// In the pool the main process is held anew: the loop may let go of it meanwhile.
pub(super) fn held(main: ProcessIdentity) -> Result<Proved, Untrusted> {
    match identity::identify_recorded(main) {
        Found::One(proved, _) => Ok(proved),
        Found::None(..) => Err(Untrusted::from("its main process ended meanwhile")),
        Found::Refused(why) | Found::Unknown(why) => Err(why),
    }
}
