//! `heeler workers`: a look at the workers for a person. It is fresh, by the way of the engine's own looks
//! (a Puma is asked, too), and leaves nothing behind: no window, no sample for the next look, no action.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::keeper::Keeper;
use crate::keeper::crews::{Known, generation, held};
use crate::keeper::turn::Done;
use crate::model::crew::{CrewView, Member};
use crate::model::ids::{AskId, ServiceName};
use crate::model::limits;
use crate::model::puma::Stats;
use crate::model::sample::{Needs, ProcessSample};
use crate::model::standing::Standing;
use crate::model::text::Untrusted;
use crate::model::time::Now;
use crate::model::workers::{Target, Worker, WorkerNeeds, place};
use crate::sys::workers;
use crate::wire::control::{
    ErrorAnswer, ErrorKind, Response, Usage, WorkerRow, WorkersAnswer, WorkersVerdict,
};

/// A rate over less than this says more of the clock than of the worker.
const RATE_OVER_MIN: Duration = Duration::from_millis(250);

/// Who wants to see the workers of a service.
#[derive(Default)]
pub(super) struct Roll {
    /// For them a look is still to begin.
    waiting: Vec<oneshot::Sender<Response>>,
    /// For them one is under way.
    looking: Vec<oneshot::Sender<Response>>,
}

impl Roll {
    /// All of them, to be heard anew.
    pub(super) fn everybody(&mut self) -> Vec<oneshot::Sender<Response>> {
        let mut all = std::mem::take(&mut self.looking);
        all.append(&mut self.waiting);
        all
    }

    /// What the look that is under way has to read for them.
    pub(super) fn needs(&self) -> WorkerNeeds {
        if self.looking.is_empty() { WorkerNeeds::default() } else { NEEDS }
    }
}

const NEEDS: WorkerNeeds = WorkerNeeds {
    process: Needs {
        pss_above_bytes: Some(0),
        rss: true,
        private: false,
        stat: true,
        cpu: true,
        fds: false,
        io: false,
        children: false,
        tree_cpu: false,
        tree_pss: false,
    },
    release: true,
};

fn no_workers(service: &ServiceName) -> Response {
    let text = format!("{service} has no [workers] in its file");
    Response::Error(ErrorAnswer::new(ErrorKind::BadRequest, text))
}

/// What a look for people saw.
pub(super) struct Shown<'a> {
    pub(super) workers: Result<&'a [Worker], &'a Untrusted>,
    pub(super) target: Option<&'a Target>,
    /// Of a Puma.
    pub(super) standing: Option<&'a Standing>,
    pub(super) stats: Option<&'a Stats>,
}

/// A look that the pool has taken.
pub(super) struct RollSeen {
    service: ServiceName,
    seen: Result<Vec<Worker>, Untrusted>,
}

impl Keeper {
    /// A person wants to see the workers.
    pub(super) fn call_the_roll(&mut self, service: ServiceName, reply: oneshot::Sender<Response>) {
        let now = self.now();
        let answer = match (self.engine.crew(now, &service), self.services.get_mut(&service)) {
            (Some(view), Some(served)) => {
                let running = self.engine.status(now, &service).is_some_and(|it| it.main.is_some());
                let roll = &mut served.crew.roll;
                roll.waiting.retain(|waiting| !waiting.is_closed());
                if !running {
                    let (verdict, text) = (WorkersVerdict::NotRunning, "not running".to_owned());
                    let nobody = WorkersAnswer::nobody(&service, verdict, text, &view);
                    Response::Workers(Box::new(nobody))
                } else if roll.waiting.len() >= limits::ROLL_WAITING_MAX {
                    let text = "as many want to see its workers as are shown at once; try again";
                    Response::Error(ErrorAnswer::new(ErrorKind::Busy, text))
                } else {
                    roll.waiting.push(reply);
                    self.look_for_roll(service);
                    return;
                }
            }
            (None, Some(_)) => no_workers(&service),
            (_, None) => Response::Error(ErrorAnswer::no_such_service(service.as_str())),
        };
        let _delivered = reply.send(answer);
    }

    fn look_for_roll(&mut self, service: ServiceName) {
        let Some(served) = self.services.get_mut(&service) else { return };
        if served.def.puma.is_some() {
            self.ask_puma_soon(service);
            return;
        }
        let roll = &mut served.crew.roll;
        if !roll.looking.is_empty() || roll.waiting.is_empty() {
            return;
        }
        roll.looking = std::mem::take(&mut roll.waiting);
        let main = self.engine.status(self.now(), &service).and_then(|status| status.main);
        let pattern = match (self.pattern_of(&service), main) {
            (Ok(pattern), Some(main)) => Ok((pattern, main)),
            (Err(why), _) => Err(why),
            (Ok(_), None) => Err(Untrusted::from("it ended meanwhile")),
        };
        let (pattern, main) = match pattern {
            Ok(found) => found,
            Err(why) => {
                self.roll_seen(RollSeen { service, seen: Err(why) });
                return;
            }
        };
        self.pool.submit(move || {
            let look = || {
                let crew = workers::look(held(main)?.held(), &pattern, NEEDS, None)?;
                Ok(crew.workers.into_iter().map(|hand| hand.worker).collect())
            };
            let seen = catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| {
                Err(Untrusted::from("the look at its workers crashed: this is a bug of heeler"))
            });
            Done::RollSeen(RollSeen { service, seen })
        });
    }

    /// Takes in what the pool saw.
    pub(super) fn roll_seen(&mut self, seen: RollSeen) {
        let RollSeen { service, seen } = seen;
        let workers = seen.as_deref();
        self.show_roll(&service, &Shown { workers, target: None, standing: None, stats: None });
        self.look_for_roll(service);
    }

    /// A Puma is about to be asked: for these people, too. What question that is, if there is no other.
    pub(super) fn ask_for_roll(&mut self, service: &ServiceName) -> Option<AskId> {
        let roll = &mut self.services.get_mut(service)?.crew.roll;
        roll.looking.append(&mut roll.waiting);
        (!roll.looking.is_empty()).then(|| self.trial_ask())
    }

    /// Shows everybody who waited for it what a look saw.
    pub(super) fn show_roll(&mut self, service: &ServiceName, shown: &Shown<'_>) {
        let now = self.now();
        let Some(served) = self.services.get_mut(service) else { return };
        let waiting = std::mem::take(&mut served.crew.roll.looking);
        if waiting.is_empty() {
            return;
        }
        let Some(view) = self.engine.crew(now, service) else {
            for reply in waiting {
                let _delivered = reply.send(no_workers(service));
            }
            return;
        };
        let Some(served) = self.services.get(service) else { return };
        let known = Known { target: shown.target, reloaded: view.reloaded, stats: shown.stats };
        let answer = match shown.workers {
            Ok(workers) => {
                let members = served.members_of(now, workers, &known);
                let rows = rows(now, (workers, &members), &known, &view, |worker| {
                    served.crew.samples.get(&worker.identity())
                });
                WorkersAnswer::new(service, &members, shown.standing, &view)
                    .with(rows, shown.target)
            }
            Err(why) => {
                let standing = shown.standing.map(|standing| format!("{standing}; "));
                let standing = standing.unwrap_or_default();
                let text = format!("{standing}its workers cannot be looked at: {why}");
                WorkersAnswer::nobody(service, WorkersVerdict::Unclear, text, &view)
            }
        };
        for reply in waiting {
            let _delivered = reply.send(Response::Workers(Box::new(answer.clone())));
        }
    }
}

fn rows<'a>(
    now: Now,
    (workers, members): (&'a [Worker], &[Member]),
    known: &Known<'_>,
    view: &CrewView,
    sample_before: impl Fn(&Worker) -> Option<&'a ProcessSample>,
) -> Vec<WorkerRow> {
    let row = |(worker, member): (&'a Worker, &Member)| {
        let release = worker.release.as_ref();
        let place = release.and_then(|release| place(release, known.target));
        let generation = generation(worker, now, known);
        let before = sample_before(worker)
            .filter(|before| worker.sample.at.since(before.at) >= RATE_OVER_MIN);
        let usage = Usage::of(&worker.sample, before, now.mono);
        WorkerRow::new((worker, member), (place, generation), usage, view)
    };
    workers.iter().zip(members).map(row).collect()
}
