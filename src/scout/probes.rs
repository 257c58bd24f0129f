//! The loop of the scout that probes: questions in, each a task with a deadline, observations out.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::checks::Network;
use crate::checks::connect::{Progress, Shared, Tools};
use crate::model::ids::AskId;
use crate::model::limits;
use crate::model::observation::{Observation, Outcome};
use crate::model::password::Password;
use crate::scout::packets::{self, Packets, invalid};
use crate::scout::pulse::Pulse;
use crate::wire::scout::{Seen, ToScout};

/// Threads for names being resolved: one for each name whose server hangs.
const NAME_THREADS_MAX: usize = 64;

/// Probes until the keeper closes the socket (0), or says what is no question (2).
pub(super) fn run(socket: OwnedFd) -> ExitCode {
    packets::run(socket, NAME_THREADS_MAX, serve)
}

/// A check as the keeper defined it.
struct Known {
    settings: Arc<Network>,
    service: Arc<Semaphore>,
}

struct Scout {
    checks: HashMap<u32, Known>,
    services: HashMap<u32, Arc<Semaphore>>,
    all: Arc<Semaphore>,
    shared: Arc<Shared>,
    done: UnboundedSender<Done>,
    in_flight: usize,
    pulse: Pulse,
}

/// A probe that ended.
struct Done {
    ask: AskId,
    began: Instant,
    end: End,
}

/// How it ended.
enum End {
    /// By itself.
    Seen(Observation),
    /// Its time was over: what that means, and what its time was.
    Overdue(Observation, Duration),
}

async fn serve(mut packets: Packets) -> io::Result<()> {
    let (done, mut ended) = unbounded_channel();
    let mut scout = Scout {
        checks: HashMap::new(),
        services: HashMap::new(),
        all: Arc::new(Semaphore::new(limits::PROBES_MAX)),
        shared: Arc::default(),
        done,
        in_flight: 0,
        pulse: Pulse::new(Instant::now()),
    };
    // Set anew only where it has to be: there is a turn of this loop for each packet and each answer.
    let mut beat = pin!(tokio::time::sleep_until(scout.pulse.next().into()));
    let mut finished = Vec::new();
    loop {
        if beat.deadline() != scout.pulse.next().into() && scout.in_flight > 0 {
            beat.as_mut().reset(scout.pulse.next().into());
        }
        tokio::select! {
            packet = packets.next() => {
                let Some(packet) = packet? else { return Ok(()) };
                scout.take(packet)?;
            }
            _count = ended.recv_many(&mut finished, limits::PROBES_MAX) => {
                for done in finished.drain(..) {
                    let seen = scout.answer(done);
                    packets.say(|packet| seen.encode(packet));
                }
            }
            () = &mut beat, if scout.in_flight > 0 => scout.pulse.beat(Instant::now()),
        }
    }
}

impl Scout {
    fn take(&mut self, packet: &[u8]) -> io::Result<()> {
        let frames = ToScout::decode(packet).map_err(|error| invalid(&error.to_string()))?;
        for frame in frames {
            match frame {
                ToScout::Define { check, service, settings } => {
                    let settings = serde_json::from_slice(&settings)?;
                    let service = self.services.entry(service).or_insert_with(|| {
                        Arc::new(Semaphore::new(limits::PROBES_PER_SERVICE_MAX))
                    });
                    let service = Arc::clone(service);
                    self.checks.insert(check, Known { settings: Arc::new(settings), service });
                }
                ToScout::Forget { check } => {
                    self.checks.remove(&check);
                    // A service without checks has nobody but this map.
                    self.services.retain(|_, service| Arc::strong_count(service) > 1);
                }
                ToScout::Probe { ask, check, timeout, password } => {
                    self.probe(ask, check, timeout, password)?;
                }
            }
        }
        Ok(())
    }

    fn probe(
        &mut self,
        ask: AskId,
        check: u32,
        limit: Duration,
        password: Option<Password>,
    ) -> io::Result<()> {
        let known = self.checks.get(&check);
        let known = known.ok_or_else(|| io::Error::other("a check that was not defined"))?;
        let (settings, service) = (Arc::clone(&known.settings), Arc::clone(&known.service));
        let (all, shared) = (Arc::clone(&self.all), Arc::clone(&self.shared));
        let tools = Tools { progress: Progress::default(), shared, password };
        let done = self.done.clone();
        if self.in_flight == 0 {
            self.pulse.begin(Instant::now());
        }
        self.in_flight += 1;
        tokio::spawn(async move {
            let of_service = place(&service).await;
            let of_all = place(&all).await;
            let began = Instant::now();
            let end = match (&of_service, &of_all) {
                (Some(_), Some(_)) => attempt(&settings, tools, limit).await,
                (None, _) => End::Seen(Observation::unknown(
                    "too many probes of this service wait for an answer",
                )),
                (Some(_), None) => {
                    End::Seen(Observation::unknown("too many probes wait for an answer"))
                }
            };
            // The loop is gone only at the end of this process.
            let _sent = done.send(Done { ask, began, end });
        });
        Ok(())
    }

    /// What the keeper is told.
    fn answer(&mut self, done: Done) -> Seen {
        let now = Instant::now();
        self.in_flight -= 1;
        let took = now.saturating_duration_since(done.began);
        let mut seen = match done.end {
            End::Seen(seen) => seen,
            End::Overdue(seen, limit) => {
                let late = took > limit + limits::LATE || self.pulse.late_since(done.began, now);
                match seen.outcome {
                    Outcome::Failed(_) if late => Observation::unknown(
                        "heeler itself was late, so nothing can be said of the target",
                    ),
                    Outcome::Failed(_) | Outcome::Ok | Outcome::Unknown(_) => seen,
                }
            }
        };
        seen.took = took;
        Seen { ask: done.ask, seen }
    }
}

/// A place among those who probe at once, if there is one in time.
async fn place(places: &Semaphore) -> Option<SemaphorePermit<'_>> {
    match places.try_acquire() {
        Ok(place) => Some(place),
        Err(_full) => timeout(limits::PROBE_QUEUE_MAX, places.acquire()).await.ok()?.ok(),
    }
}

/// Probes once, within its time. A probe that panics is heeler's own fault.
async fn attempt(settings: &Network, tools: Tools, limit: Duration) -> End {
    match timeout(limit, caught(settings.probe(&tools))).await {
        Ok(Ok(seen)) => End::Seen(seen),
        Ok(Err(Panicked)) => {
            End::Seen(Observation::unknown("the probe crashed: this is a bug of heeler"))
        }
        Err(_elapsed) => End::Overdue(tools.progress.overdue(limit), limit),
    }
}

/// What comes of it, also where it panics. It is not looked at again after that.
async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(_panic) => Poll::Ready(Err(Panicked)),
    })
    .await
}

/// It did.
struct Panicked;

#[cfg(test)]
mod tests {
    use super::*;

    /// CRA-11: a probe that panics, at once or later, is an answer, and the loop goes on.
    #[tokio::test]
    async fn a_probe_that_panics_is_heelers_own_fault_and_ends_alone() {
        let at_once = caught(async { panic!("part of the test") });
        let later = caught(async {
            tokio::task::yield_now().await;
            panic!("part of the test")
        });
        let good = caught(async {
            tokio::task::yield_now().await;
            7
        });
        let (at_once, later, good): (Result<(), _>, Result<(), _>, _) =
            tokio::join!(at_once, later, good);
        assert!(at_once.is_err() && later.is_err());
        assert_eq!(good.ok(), Some(7));
    }
}
