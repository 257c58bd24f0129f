//! The loop of the scout that probes: questions in, each a task with a deadline, observations out.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::checks::Network;
use crate::checks::connect::{Progress, Shared, Tools};
use crate::model::ids::AskId;
use crate::model::limits;
use crate::model::observation::{Observation, Outcome};
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
    /// None: its time was over, and this is where it had got to.
    seen: Result<Observation, Overdue>,
}

struct Overdue {
    progress: Arc<Tools>,
    timeout: Duration,
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
    loop {
        tokio::select! {
            packet = packets.next() => {
                let Some(packet) = packet? else { return Ok(()) };
                scout.take(packet)?;
            }
            Some(done) = ended.recv() => {
                let mut packet = Vec::new();
                scout.answer(done).encode(&mut packet);
                packets.answer(packet);
            }
            () = tokio::time::sleep_until(scout.pulse.next().into()), if scout.in_flight > 0 => {
                scout.pulse.beat(Instant::now());
            }
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
                ToScout::Probe { ask, check, timeout } => self.probe(ask, check, timeout)?,
            }
        }
        Ok(())
    }

    fn probe(&mut self, ask: AskId, check: u32, limit: Duration) -> io::Result<()> {
        let known = self.checks.get(&check);
        let known = known.ok_or_else(|| io::Error::other("a check that was not defined"))?;
        let (settings, service) = (Arc::clone(&known.settings), Arc::clone(&known.service));
        let (all, shared) = (Arc::clone(&self.all), Arc::clone(&self.shared));
        let done = self.done.clone();
        if self.in_flight == 0 {
            self.pulse.begin(Instant::now());
        }
        self.in_flight += 1;
        tokio::spawn(async move {
            let of_service = timeout(limits::PROBE_QUEUE_MAX, service.acquire()).await;
            let of_all = timeout(limits::PROBE_QUEUE_MAX, all.acquire()).await;
            let began = Instant::now();
            let seen = match (&of_service, &of_all) {
                (Ok(_), Ok(_)) => attempt(settings, shared, limit).await,
                (Err(_), _) => {
                    Ok(Observation::unknown("too many probes of this service wait for an answer"))
                }
                (Ok(_), Err(_)) => Ok(Observation::unknown("too many probes wait for an answer")),
            };
            // The loop is gone only at the end of this process.
            let _sent = done.send(Done { ask, began, seen });
        });
        Ok(())
    }

    /// What the keeper is told.
    fn answer(&mut self, done: Done) -> Seen {
        let now = Instant::now();
        self.in_flight -= 1;
        let took = now.saturating_duration_since(done.began);
        let mut seen = match done.seen {
            Ok(seen) => seen,
            Err(Overdue { progress, timeout }) => {
                let seen = progress.progress.overdue(timeout);
                let late = took > timeout + limits::LATE || self.pulse.late_since(done.began, now);
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

/// Probes once, within its time. A probe that panics is heeler's own fault.
async fn attempt(
    settings: Arc<Network>,
    shared: Arc<Shared>,
    limit: Duration,
) -> Result<Observation, Overdue> {
    let tools = Arc::new(Tools { progress: Progress::default(), shared });
    let progress = Arc::clone(&tools);
    let mut probe = tokio::spawn(async move { settings.probe(&tools).await });
    match timeout(limit, &mut probe).await {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(_panicked)) => {
            Ok(Observation::unknown("the probe crashed: this is a bug of heeler"))
        }
        Err(_elapsed) => {
            probe.abort();
            Err(Overdue { progress, timeout: limit })
        }
    }
}
