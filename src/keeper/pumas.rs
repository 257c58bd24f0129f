//! Pumas: asked by a short job as the service's user, once for all its checks that are due; then its
//! processes are looked at in the pool, and how it stands is judged by both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checks;
use crate::engine::effect::Level;
use crate::engine::input::Input;
use crate::engine::standing::{Main, Observer, Seen, is_mixed};
use crate::keeper::Keeper;
use crate::keeper::crews::{Known, needs_of};
use crate::keeper::hazards;
use crate::keeper::roll::Shown;
use crate::keeper::turn::Done;
use crate::model::crew::PumaView;
use crate::model::ids::{ActionId, AskId, CheckIndex, ServiceName};
use crate::model::job::{JobKind, Outcome};
use crate::model::limits;
use crate::model::observation::{Observation, Outcome as ObservedOutcome};
use crate::model::process::ProcessIdentity;
use crate::model::puma::{Answer, Ask, Exposed, Form, Said, Stats, Trouble, TroubleKind};
use crate::model::service::Service;
use crate::model::standing::Standing;
use crate::model::text::Untrusted;
use crate::model::time::Mono;
use crate::model::units::show_duration;
use crate::model::workers::{Master, Target, Worker, WorkerNeeds};
use crate::sys::clock;
use crate::sys::identity::{self, Found};
use crate::sys::workers::{self, Pattern};
use crate::wire;

/// What is known of a service's Puma.
#[derive(Default)]
pub(super) struct PumaKnown {
    /// Checks that wait for its next answer.
    waiting: Vec<(CheckIndex, AskId)>,
    /// The question about its workers that waits for it, too.
    crew: Option<(AskId, Option<Mono>)>,
    /// What it is to be told, before it is asked anything else.
    command: Option<(AskId, Ask)>,
    /// How it stood when it was seen last.
    pub(super) standing: Option<Standing>,
    observer: Observer,
    /// What was told of it already.
    exposed: Vec<Exposed>,
}

impl PumaKnown {
    fn is_asked_for(&self) -> bool {
        !self.waiting.is_empty() || self.crew.is_some() || self.command.is_some()
    }
}

/// Its processes, as the pool saw them, and what it had said before.
pub(super) struct PumaSeen {
    service: ServiceName,
    answer: Answer,
    took: Duration,
    main: Option<ProcessIdentity>,
    crew: Result<Crew, Untrusted>,
    /// As its service was defined when it was asked.
    of: Arc<Service>,
}

/// Its processes, and where its deploys point.
struct Crew {
    master: Master,
    workers: Vec<Worker>,
    target: Result<Target, Untrusted>,
}

impl Keeper {
    /// Asks a Puma for a check. One question at a time for each, few at once: one that hangs holds up
    /// nobody else.
    pub(super) fn probe_puma(&mut self, service: ServiceName, check: CheckIndex, ask: AskId) {
        let Some(served) = self.services.get_mut(&service) else { return };
        // Where one hangs, nobody waits for the oldest questions any more.
        if served.puma.waiting.len() >= 2 * limits::CHECKS_PER_SERVICE_MAX {
            served.puma.waiting.remove(0);
        }
        served.puma.waiting.push((check, ask));
        self.ask_puma_soon(service);
    }

    /// Asks a Puma for the look at its workers.
    pub(super) fn ask_for_crew(
        &mut self,
        service: ServiceName,
        ask: AskId,
        reloaded: Option<Mono>,
    ) {
        let Some(served) = self.services.get_mut(&service) else { return };
        served.puma.crew = Some((ask, reloaded));
        self.ask_puma_soon(service);
    }

    /// Asks a Puma as soon as there is room for the question.
    pub(super) fn ask_puma_soon(&mut self, service: ServiceName) {
        if self.look_at_it_hangs(&service) {
            return;
        }
        if !self.pumas_waiting.contains(&service) {
            self.pumas_waiting.push_back(service);
        }
        self.ask_pumas();
    }

    /// The last look at its processes does not come back (a worker whose memory is locked, a release on a
    /// mount that hangs): whoever waits hears that it cannot be told, each time anybody asks.
    fn look_at_it_hangs(&mut self, service: &ServiceName) -> bool {
        let Some(served) = self.services.get_mut(service) else { return false };
        let Some(since) = served.in_pool.puma else { return false };
        let over = since.elapsed();
        if over < limits::FILE_POOL_DEADLINE {
            return false;
        }
        let over = show_duration(Duration::from_secs(over.as_secs()));
        let _people = self.ask_for_roll(service);
        let Some(served) = self.services.get_mut(service) else { return false };
        let why = format!("the last look at its processes has not come back for {over}");
        let why = Untrusted::from(why.as_str());
        let (waiting, crew) = (std::mem::take(&mut served.puma.waiting), served.puma.crew.take());
        let workers = Err(&why);
        self.show_roll(service, &Shown { workers, target: None, standing: None, stats: None });
        if let Some((ask, _)) = crew {
            let (service, seen, puma) = (service.clone(), Err(why.clone()), None);
            self.inbox.push_back(Input::CrewSeen { service, ask, seen, puma });
        }
        for (check, ask) in waiting {
            let seen = Observation::of(ObservedOutcome::Unknown(why.clone()));
            self.observed(service.clone(), check, ask, seen);
        }
        true
    }

    /// Those that do not come back.
    pub(super) fn pumas_due(&mut self, now: Instant) {
        while self.pumas_in_pool.first().is_some_and(|(until, _)| now >= *until) {
            let Some((_, service)) = self.pumas_in_pool.pop_first() else { return };
            self.look_at_it_hangs(&service);
        }
    }

    /// When the first of them is over its time.
    pub(super) fn pumas_wakeup(&self) -> Option<Instant> {
        self.pumas_in_pool.first().map(|(until, _)| *until)
    }

    /// Where or as whom it is asked is said otherwise: what is known of it is of another, what it was to be
    /// told is told to nobody, and whoever waits for its answer waits for the next.
    pub(super) fn ask_puma_anew(&mut self, service: &ServiceName) {
        let Some(served) = self.services.get_mut(service) else { return };
        let PumaKnown { waiting, crew, .. } = std::mem::take(&mut served.puma);
        served.puma = PumaKnown { waiting, crew, ..PumaKnown::default() };
        let roll = served.crew.roll.everybody();
        for reply in roll {
            self.call_the_roll(service.clone(), reply);
        }
        self.ask_puma_soon(service.clone());
    }

    /// Asks those whose turn it is.
    pub(super) fn ask_pumas(&mut self) {
        for service in std::mem::take(&mut self.pumas_waiting) {
            let asks = || self.running.iter().filter(|job| job.kind == JobKind::Ask);
            let in_pool = self.services.get(&service).is_some_and(|it| it.in_pool.puma.is_some());
            if in_pool
                || asks().count() >= limits::PUMA_ASKS_MAX
                || asks().any(|job| job.service == service)
            {
                self.pumas_waiting.push_back(service);
            } else {
                self.ask_puma(&service);
            }
        }
    }

    /// Tells a Puma something.
    pub(super) fn command_puma(&mut self, service: ServiceName, ask: AskId, what: Ask) {
        let Some(served) = self.services.get_mut(&service) else { return };
        served.puma.command = Some((ask, what));
        if !self.pumas_waiting.contains(&service) {
            self.pumas_waiting.push_back(service);
        }
        self.ask_pumas();
    }

    fn ask_puma(&mut self, service: &ServiceName) {
        let Some(served) = self.services.get(service) else { return };
        if let Some((ask, what)) = served.puma.command {
            let deadline = self.now().mono + limits::PUMA_ASK_TIMEOUT;
            if let Some(job) = wire::puma::job(&served.def, what, ActionId(ask.0), deadline) {
                self.run(job);
            }
            return;
        }
        let of_check = served.puma.waiting.first().map(|(_, ask)| *ask);
        let of_crew = served.puma.crew.map(|(ask, _)| ask);
        let for_people = self.ask_for_roll(service);
        let Some(ask) = of_check.or(of_crew).or(for_people) else { return };
        let Some(served) = self.services.get(service) else { return };
        let deadline = self.now().mono + limits::PUMA_ASK_TIMEOUT;
        if let Some(job) = wire::puma::job(&served.def, Ask::Stats, ActionId(ask.0), deadline) {
            self.run(job);
        }
    }

    /// It has answered, or has not: now its processes.
    pub(super) fn puma_answered(
        &mut self,
        service: ServiceName,
        action: ActionId,
        outcome: &Outcome,
    ) {
        let answer = Answer::of(outcome);
        let told = self
            .services
            .get_mut(&service)
            .and_then(|served| served.puma.command.take_if(|(ask, _)| ask.0 == action.0));
        if let Some((ask, _)) = told {
            let heard = match answer.said {
                Ok(Said::Accepted | Said::Stats(_)) => Ok(()),
                Err(trouble) => Err(trouble),
            };
            self.inbox.push_back(Input::PumaAsked { service: service.clone(), ask, heard });
            if self.services.get(&service).is_some_and(|served| served.puma.is_asked_for()) {
                self.pumas_waiting.push_back(service);
            }
            self.ask_pumas();
            return;
        }
        self.tell_exposed(&service, &answer);
        let pattern = self.pattern_of(&service);
        let Some(served) = self.services.get_mut(&service) else { return };
        let main = served.families.keys().next_back().copied();
        let main = main.filter(|main| served.held.contains_key(main));
        let needs = needs_of(&served.def).and(served.crew.roll.needs());
        let current = served.def.puma.as_ref().and_then(|puma| puma.current.clone());
        let began = Instant::now();
        served.in_pool.puma = Some(began);
        self.pumas_in_pool.insert((began + limits::FILE_POOL_DEADLINE, service.clone()));
        let of = Arc::clone(&served.def);
        let took = outcome.took;
        self.pool.submit(move || {
            let crew = catch_unwind(AssertUnwindSafe(|| {
                crew_in_pool(main, &*pattern?, needs, current.as_deref())
            }));
            let crew = crew.unwrap_or_else(|_| {
                Err("the look at the workers crashed: this is a bug of heeler".into())
            });
            Done::PumaSeen(Box::new(PumaSeen { service, answer, took, main, crew, of }))
        });
        self.ask_pumas();
    }

    /// What everybody could do to it, and nobody is alerted of, is told once, not with each answer.
    fn tell_exposed(&mut self, service: &ServiceName, answer: &Answer) {
        let wall = self.now().wall;
        let Some(served) = self.services.get_mut(service) else { return };
        for exposed in answer.exposed.iter().filter(|one| !hazards::is_hazard(**one)) {
            if !served.puma.exposed.contains(exposed) {
                served.puma.exposed.push(*exposed);
                self.log.say(wall, Level::Warning, service.as_str(), exposed.to_string());
            }
        }
    }

    /// All checks that waited have their answer.
    pub(super) fn puma_seen(&mut self, seen: PumaSeen) {
        let PumaSeen { service, answer, took, main, crew, of } = seen;
        let now = self.now();
        let Some(served) = self.services.get_mut(&service) else { return };
        if let Some(began) = served.in_pool.puma.take() {
            self.pumas_in_pool.remove(&(began + limits::FILE_POOL_DEADLINE, service.clone()));
        }
        if !of.is_asked_like(&served.def) {
            self.ask_puma_soon(service);
            return;
        }
        // One that cannot be looked at is judged by its word alone.
        let asked = served.puma.crew.take();
        let exposed = &answer.exposed;
        let found = crew.as_ref().ok().map(|Crew { master, workers, target }| {
            hazards::find(now, master, workers, target.as_ref().ok(), exposed)
        });
        let (state, all, target, refused) = match crew {
            Ok(Crew { master, workers, target }) => (master.state, workers, target, None),
            Err(why) => (None, Vec::new(), Err(why.clone()), Some(why)),
        };
        let workers: Vec<&Worker> = all.iter().collect();
        let age_ms = |main: ProcessIdentity| {
            clock::boottime_ms().saturating_sub(clock::ticks_to_ms(main.started_ticks))
        };
        let main = main.map(|identity| Main {
            identity,
            state,
            age: Duration::from_millis(age_ms(identity)),
        });
        let no_stats = Trouble::new(TroubleKind::Garbled, "it was not asked for its stats");
        let stats = match &answer.said {
            Ok(Said::Stats(stats)) => Ok(stats),
            Ok(Said::Accepted) => Err(&no_stats),
            Err(trouble) => Err(trouble),
        };
        let wanted = served.def.puma.as_ref().and_then(|puma| puma.workers);
        let look = Seen { now, main, orphans: 0, stats, workers: &workers, wanted };
        let standing = served.puma.observer.look(&look);
        let mixed = stats.ok().and_then(|stats| is_mixed(stats, &workers));
        let seen = checks::puma::observe(&answer, &standing, mixed);
        let seen = Observation { took, ..seen };
        let words = standing.to_string();
        let looping = matches!(standing, Standing::BootLoop { .. }).then(|| words.clone());
        served.puma.standing = Some(standing.clone());
        let workers = refused.as_ref().map_or(Ok(&*all), Err);
        let directory = target.clone().map(|target| target.path);
        let (target, standing) = (target.as_ref().ok(), Some(&standing));
        self.show_roll(&service, &Shown { workers, target, standing, stats: stats.ok() });
        let Some(served) = self.services.get_mut(&service) else { return };
        if let Some((ask, reloaded)) = asked {
            let known = Known { target, reloaded, stats: stats.ok() };
            let seen = match refused {
                None => Ok(served.muster(now, &all, &known)),
                Some(why) => Err(why),
            };
            let service = service.clone();
            let puma = stats.ok().map(|stats| view(stats, words, looping, directory));
            self.inbox.push_back(Input::CrewSeen { service, ask, seen, puma });
        }
        if let Some(found) = found {
            self.inbox.push_back(Input::Hazards { service: service.clone(), found });
        }
        let Some(served) = self.services.get_mut(&service) else { return };
        for (check, ask) in std::mem::take(&mut served.puma.waiting) {
            self.observed(service.clone(), check, ask, seen.clone());
        }
        self.ask_pumas();
    }
}

/// What a Puma says, for the engine.
fn view(
    stats: &Stats,
    words: String,
    looping: Option<String>,
    target: Result<Untrusted, Untrusted>,
) -> PumaView {
    let cluster = match &stats.form {
        Form::Cluster(cluster) => Some(cluster),
        Form::Single(_) => None,
    };
    PumaView {
        phase: cluster.and_then(|cluster| cluster.phase),
        started_wall_ms: stats.started_wall_ms,
        workers: cluster.and_then(|cluster| cluster.workers),
        booted: cluster.and_then(|cluster| cluster.booted),
        old: cluster.and_then(|cluster| cluster.old),
        looping,
        words,
        target,
    }
}

/// In the pool the process is held anew: the loop may let go of it meanwhile.
fn crew_in_pool(
    main: Option<ProcessIdentity>,
    pattern: &Pattern,
    needs: WorkerNeeds,
    current: Option<&Path>,
) -> Result<Crew, Untrusted> {
    let Some(Found::One(proved, _)) = main.map(identity::identify_recorded) else {
        return Err(Untrusted::from("it ended meanwhile"));
    };
    let crew = workers::look(proved.held(), pattern, needs, None)?;
    let workers = crew.workers.into_iter().map(|hand| hand.worker).collect();
    let unsaid = || Untrusted::from("is not said in [puma]");
    let target = current.ok_or_else(unsaid).and_then(workers::target);
    Ok(Crew { master: crew.master, workers, target })
}
