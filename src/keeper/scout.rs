//! The keeper's side of the scout: questions out, observations in, and a new scout for one that died,
//! hangs, or says what it cannot know.
//!
//! Whatever happens to it, every question has exactly one answer: what it saw, or Unknown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::checks::Probe;
use crate::engine::effect::Level;
use crate::engine::input::Input;
use crate::keeper::Keeper;
use crate::keeper::turn::Source;
use crate::model::ids::{AskId, CheckIndex, ServiceName};
use crate::model::limits;
use crate::model::observation::Observation;
use crate::model::process::{Gid, Pid, Uid};
use crate::sys::spawn;
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
    /// The numbers it knows checks and services by.
    numbers: BTreeMap<(ServiceName, CheckIndex), u32>,
    services: BTreeMap<ServiceName, u32>,
    /// How many lived but a moment, one after the other, and when the next may begin.
    short_lives: u32,
    not_before: Option<Instant>,
    buffer: Vec<u8>,
}

struct Instance {
    pid: Pid,
    pidfd: OwnedFd,
    socket: OwnedFd,
    tokens: [u64; 2],
    since: Instant,
    defined: BTreeSet<u32>,
    /// Packets it has not taken yet; the last is still being filled.
    packets: VecDeque<Vec<u8>>,
    /// Since when it takes none.
    deaf_since: Option<Instant>,
}

struct Asked {
    service: ServiceName,
    check: CheckIndex,
    /// When the answer has to be there.
    until: Instant,
}

impl Keeper {
    /// Asks the scout to probe a check.
    pub(super) fn ask_scout(&mut self, service: ServiceName, check: CheckIndex, ask: AskId) {
        if let Err(why) = self.scout_there() {
            self.observed(service, check, ask, Observation::unknown(&why));
            return;
        }
        let Some((settings, timeout)) = self.services.get(&service).and_then(|served| {
            let at = usize::from(check.0);
            let Probe::Network(settings) = served.probes.get(at)? else { return None };
            Some((settings.clone(), served.def.checks.get(at)?.timeout))
        }) else {
            return;
        };
        let scout = &mut self.scout;
        let next = scout.numbers.len() as u32;
        let number = *scout.numbers.entry((service.clone(), check)).or_insert(next);
        let next = scout.services.len() as u32;
        let of_service = *scout.services.entry(service.clone()).or_insert(next);
        let Some(instance) = &mut scout.instance else { return };
        if instance.defined.insert(number) {
            let settings = serde_json::to_vec(&settings).unwrap_or_default().into();
            instance.say(&ToScout::Define { check: number, service: of_service, settings });
        }
        instance.say(&ToScout::Probe { ask, check: number, timeout });
        let until = Instant::now() + timeout + 2 * limits::PROBE_QUEUE_MAX + limits::SCOUT_GRACE;
        scout.asked.insert(ask, Asked { service, check, until });
        scout.overdue.insert((until, ask));
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
        let user = match self.people.scout() {
            ScoutUser::Same => None,
            ScoutUser::Known(uid, gid) => Some((uid, gid)),
            ScoutUser::Unknown => {
                return Err("the user of heeler's scout could not be looked up yet".to_owned());
            }
        };
        let failed = |error| format!("failed to start heeler's scout: {error}");
        let spawn::Scout { pid, pidfd, socket } =
            spawn::spawn_scout(&self.exe, "probe", user).map_err(failed)?;
        let watched = self
            .watch(&socket, Source::ScoutSpeaks)
            .and_then(|first| Ok([first, self.watch(&pidfd, Source::ScoutEnded)?]));
        let tokens = watched.map_err(|error| {
            spawn::end_child(&pidfd);
            failed(error)
        })?;
        let defined = BTreeSet::new();
        let (packets, deaf_since) = (VecDeque::new(), None);
        let since = now;
        self.scout.instance =
            Some(Instance { pid, pidfd, socket, tokens, since, defined, packets, deaf_since });
        Ok(())
    }

    /// Gives the scout what it was asked in this turn.
    pub(super) fn flush_scout(&mut self) {
        let Some(instance) = &mut self.scout.instance else { return };
        if let Err(why) = instance.flush() {
            self.replace_scout(&why);
        }
    }

    /// The scout says something.
    pub(super) fn scout_speaks(&mut self) {
        let mut buffer = std::mem::take(&mut self.scout.buffer);
        buffer.resize(limits::SCOUT_PACKET_BYTES_MAX, 0);
        let result = self.hear_scout(&mut buffer);
        self.scout.buffer = buffer;
        if let Err(why) = result {
            self.replace_scout(&why);
        }
    }

    fn hear_scout(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        // Not more than this before the loop goes on: a scout that never stops must not hold it up.
        for _ in 0..limits::PROBES_MAX {
            let Some(instance) = &self.scout.instance else { return Ok(()) };
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
            let length = match recv(instance.socket.as_raw_fd(), buffer, flags) {
                // Its end is told by its pidfd, with how it ended.
                Ok(0) | Err(Errno::EAGAIN | Errno::ECONNRESET) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(format!("failed to hear it: {}", error.desc())),
                Ok(length) => length,
            };
            let packet = buffer.get(..length).ok_or("it said more than fits a packet")?;
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
        let Some(instance) = &self.scout.instance else { return };
        let how = match spawn::reap(&instance.pidfd) {
            Ok(Some(exit)) => format!("it ended: {exit}"),
            Ok(None) => return,
            Err(error) => format!("it ended, nobody knows how: {error}"),
        };
        self.replace_scout(&how);
    }

    /// Ends the scout, if it has not ended; what it was asked is Unknown. The next question brings a new
    /// one.
    fn replace_scout(&mut self, why: &str) {
        let Some(instance) = self.scout.instance.take() else { return };
        let asked = std::mem::take(&mut self.scout.asked);
        self.scout.overdue.clear();
        let text = format!(
            "the scout (pid {}) is replaced: {why}; {} probes in flight are unknown",
            instance.pid,
            asked.len()
        );
        self.say(Level::Warning, &text);
        self.unwatch_fd(&instance.socket);
        self.unwatch_fd(&instance.pidfd);
        for token in instance.tokens {
            self.sources.remove(&token);
        }
        let now = Instant::now();
        let scout = &mut self.scout;
        if now.saturating_duration_since(instance.since) < SHORT_LIFE {
            let pause = FIRST_PAUSE.saturating_mul(1 << scout.short_lives.min(16));
            scout.not_before = Some(now + pause.min(LONGEST_PAUSE));
            scout.short_lives += 1;
        } else {
            scout.short_lives = 0;
        }
        // It may be stuck in the kernel: the loop does not wait for its end.
        let pidfd = instance.pidfd;
        let end = move || {
            spawn::end_child(&pidfd);
            crate::keeper::turn::Done::Nothing
        };
        self.pool.submit(end);
        let unknown = Observation::unknown(&format!("heeler's scout was replaced: {why}"));
        for (ask, asked) in asked {
            self.observed(asked.service, asked.check, ask, unknown.clone());
        }
    }

    /// What is due by time: a scout that takes nothing, or does not answer.
    pub(super) fn scout_due(&mut self, now: Instant) {
        let Some(instance) = &mut self.scout.instance else { return };
        if let Err(why) = instance.flush() {
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
        let retry = instance.deaf_since.map(|_| Instant::now() + DEAF_POLL);
        self.scout.overdue.first().map(|(until, _)| *until).into_iter().chain(retry).min()
    }

    fn observed(&mut self, service: ServiceName, check: CheckIndex, ask: AskId, seen: Observation) {
        self.inbox.push_back(Input::Observed { service, ask, check, seen });
    }
}

/// How soon a packet that the scout did not take is offered again.
const DEAF_POLL: Duration = Duration::from_millis(5);

impl Instance {
    fn say(&mut self, frame: &ToScout) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        match self.packets.back_mut() {
            Some(last) if last.len() + bytes.len() <= PACKET_BYTES => last.extend(bytes),
            Some(_) | None => self.packets.push_back(bytes),
        }
    }

    /// Sends what it takes.
    fn flush(&mut self) -> Result<(), String> {
        while let Some(packet) = self.packets.front() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), packet, flags) {
                Ok(_) => {
                    self.packets.pop_front();
                    self.deaf_since = None;
                }
                Err(Errno::EAGAIN) => {
                    let since = *self.deaf_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > limits::SCOUT_GRACE {
                        return Err("it takes no more questions".to_owned());
                    }
                    return Ok(());
                }
                Err(Errno::EINTR) => {}
                // Its end is told by its pidfd.
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
                Err(error) => return Err(format!("failed to ask it: {}", error.desc())),
            }
        }
        Ok(())
    }
}

/// So many bytes of questions go in one packet.
const PACKET_BYTES: usize = 32 << 10;
const _: () = assert!(PACKET_BYTES < limits::SCOUT_PACKET_BYTES_MAX);
