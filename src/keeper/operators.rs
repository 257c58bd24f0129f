//! Operators: their questions answered from the engine, their orders handed to it, and the answers
//! held back until what they say is on disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::engine::effect::Level;
use crate::engine::input::Input;
use crate::keeper::Keeper;
use crate::keeper::control::{ControlEvent, ControlRequest};
use crate::keeper::intake::UNCLAIMED;
use crate::keeper::reload::Purpose;
use crate::keeper::rights::Peer;
use crate::keeper::served::File;
use crate::model::ids::{RequestId, ServiceName};
use crate::model::limits;
use crate::model::order::{Order, Reply};
use crate::model::process::{ProcessIdentity, Uid};
use crate::model::sample::{Needs, ProcessSample};
use crate::store::{Ack, Message};
use crate::sys::sampler;
use crate::wire::control::{
    ErrorAnswer, OrderAnswer, OrderEnd, OrderResult, Request, Response, ServiceStatus,
    StateTrouble, StatusAnswer, Usage, WhyAnswer,
};

/// CPU is a rate: a status that has nothing to compare with waits this long for a second sample.
const CPU_INTERVAL: Duration = Duration::from_millis(100);

/// What operators wait for.
#[derive(Default)]
pub(super) struct Operators {
    next: u64,
    /// Orders the engine has not answered.
    asked: BTreeMap<RequestId, (u64, ServiceName)>,
    /// Requests not answered as a whole.
    open: BTreeMap<u64, Open>,
    /// Answers of this turn, waiting for their barrier to be sent.
    fresh: Vec<(u64, OrderResult)>,
    /// Answers behind a barrier.
    behind: BTreeMap<u64, Behind>,
    /// Status requests waiting for their second sample.
    statuses: Vec<DueStatus>,
    /// What is wrong with the state folder.
    state: Option<StateTrouble>,
    /// Samples taken for people only.
    shown: BTreeMap<ServiceName, ProcessSample>,
}

struct Open {
    reply: Option<oneshot::Sender<Response>>,
    /// Whom it is about, in the order asked for.
    services: Vec<ServiceName>,
    results: Vec<OrderResult>,
    missing: usize,
}

impl Open {
    fn answer(self) -> OrderAnswer {
        let places: BTreeMap<_, _> =
            self.services.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        let mut results = self.results;
        results.sort_by_key(|result| places.get(&*result.service).copied());
        OrderAnswer::new(results)
    }
}

/// Answers that wait for a barrier, and until when.
struct Behind {
    until: Instant,
    answers: Vec<(u64, OrderResult)>,
}

struct DueStatus {
    at: Instant,
    services: Vec<ServiceName>,
    whose: Whose,
    reply: oneshot::Sender<Response>,
}

/// Who asks: heeler's own trouble is for those who may mend it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Masters,
    Anybodys,
}

impl Keeper {
    /// A request came in, or one was refused.
    pub(super) fn hear_operator(&mut self, event: ControlEvent) {
        let ControlRequest { peer, request, reply, follower } = match event {
            ControlEvent::Request(request) => request,
            ControlEvent::TooSlow { peer } => {
                let text =
                    format!("{} does not take the events it follows: hung up on", peer.who());
                self.say(Level::Warning, &text);
                return;
            }
            ControlEvent::Refused { peer, request, answer } => {
                self.say(
                    Level::Warning,
                    &format!("{} was refused {request:?}: {}", peer.who(), answer.text),
                );
                return;
            }
        };
        match request {
            Request::Status { services } => {
                // What has nothing to compare with is looked at twice.
                let fresh = services.iter().filter(|name| !self.was_shown(name)).count();
                let at = Instant::now() + if fresh > 0 { CPU_INTERVAL } else { Duration::ZERO };
                let whose = if self.is_master(&peer) { Whose::Masters } else { Whose::Anybodys };
                self.operators.statuses.push(DueStatus { at, services, whose, reply });
            }
            Request::Why { service } => {
                let answer = match (
                    self.engine.status(self.now(), &service),
                    self.engine.memory(&service),
                ) {
                    (Some(status), Some(memory)) => Response::Why(WhyAnswer::new(&status, &memory)),
                    _ => Response::Error(ErrorAnswer::no_such_service(service.as_str())),
                };
                let _delivered = reply.send(answer);
            }
            Request::Events { services, last, follow: _ } => {
                let answer = Response::Events(self.events.answer(services, last));
                // Nobody who has gone already is to be told more.
                if reply.send(answer).is_ok()
                    && let Some(to) = follower
                {
                    self.events.follow(peer, to);
                }
            }
            Request::Probe { service, check } => {
                self.say(Level::Info, &format!("{} asked for a probe of {service}", peer.who()));
                self.try_checks(&service, check.as_deref(), reply);
            }
            Request::Workers { service } => self.call_the_roll(service, reply),
            Request::Kill { service, pick } => {
                let who = peer.who();
                self.put_one(service, reply, |service, request| Input::WorkerOrdered {
                    service,
                    request,
                    pick,
                    who,
                });
            }
            Request::ReloadVerified { service, within } => {
                let who = peer.who();
                self.put_one(service, reply, |service, request| Input::VerifyOrdered {
                    service,
                    request,
                    within,
                    who,
                });
            }
            Request::Order { order, services, wait } => {
                self.order(&peer, order, services, wait, reply)
            }
            Request::ReloadConfig => {
                let by = peer.who().to_string();
                self.read_configuration(Purpose::Reload, by, Some(reply));
            }
            Request::Plan { dir } => {
                let dir = dir.map_or_else(|| self.conf.dir.clone(), PathBuf::from);
                self.read_configuration(Purpose::Plan(dir), peer.who().to_string(), Some(reply));
            }
            Request::MailTest { to } => {
                let text = format!("{} asked for a test of mail", peer.who());
                self.say(Level::Info, &text);
                self.test_mail(to, reply);
            }
        }
    }

    fn order(
        &mut self,
        peer: &Peer,
        order: Order,
        services: Vec<ServiceName>,
        wait: bool,
        reply: oneshot::Sender<Response>,
    ) {
        let id = self.open_request(services.clone(), reply);
        for service in services {
            if order != Order::Stop && self.is_unclaimed(&service) {
                let text = format!(
                    "{UNCLAIMED}: it can only be stopped (`heeler stop {service}`), until there is a \
                     {service}.toml again and `heeler reload-config`"
                );
                self.refuse(id, &service, text);
                continue;
            }
            let who = peer.who();
            self.put_to_engine(id, service, |service, request| Input::Ordered {
                service,
                request,
                order,
                who,
            });
        }
        if !wait {
            // The wish is on disk before it is said to be known; how it ends is not waited for.
            let Operators { asked, fresh, .. } = &mut self.operators;
            asked.retain(|_, (open, service)| {
                if *open == id {
                    let text = format!("{} was asked for", order.name());
                    fresh.push((id, OrderResult::accepted(service, text)));
                }
                *open != id
            });
        }
        self.finish(id);
    }

    /// A request about some services that the engine will answer for each.
    fn open_request(
        &mut self,
        services: Vec<ServiceName>,
        reply: oneshot::Sender<Response>,
    ) -> u64 {
        self.operators.next += 1;
        let id = self.operators.next;
        let open = Open { reply: Some(reply), services, results: Vec::new(), missing: 0 };
        self.operators.open.insert(id, open);
        id
    }

    /// Asks the engine for the one service that a request is about.
    fn put_one(
        &mut self,
        service: ServiceName,
        reply: oneshot::Sender<Response>,
        input: impl FnOnce(ServiceName, RequestId) -> Input,
    ) {
        let open = self.open_request(vec![service.clone()], reply);
        self.put_to_engine(open, service, input);
        self.finish(open);
    }

    /// Asks the engine for one service of a request.
    fn put_to_engine(
        &mut self,
        id: u64,
        service: ServiceName,
        input: impl FnOnce(ServiceName, RequestId) -> Input,
    ) {
        if !self.services.contains_key(&service) {
            self.refuse(id, &service, "it is not there any more".to_owned());
            return;
        }
        let Some(open) = self.operators.open.get_mut(&id) else { return };
        open.missing += 1;
        self.operators.next += 1;
        let request = RequestId(self.operators.next);
        self.operators.asked.insert(request, (id, service.clone()));
        self.inbox.push_back(input(service, request));
    }

    /// The engine is not asked for this service.
    fn refuse(&mut self, id: u64, service: &ServiceName, text: String) {
        let Some(open) = self.operators.open.get_mut(&id) else { return };
        let service = service.to_string();
        open.results.push(OrderResult { service, result: OrderEnd::Failed, text });
    }

    /// Whether it goes on though its file is gone.
    fn is_unclaimed(&self, service: &ServiceName) -> bool {
        self.services.get(service).is_some_and(|served| served.file == File::Gone)
    }

    /// The engine answered: the operator hears it once what was decided before is on disk.
    pub(super) fn answer_after_store(&mut self, request: RequestId, reply: Reply) {
        if let Some((id, service)) = self.operators.asked.remove(&request) {
            self.operators.fresh.push((id, OrderResult::replied(&service, &reply)));
        }
    }

    /// Puts the answers of this turn behind one barrier.
    pub(super) fn send_barriers(&mut self) {
        if self.operators.fresh.is_empty() {
            return;
        }
        self.operators.next += 1;
        let barrier = self.operators.next;
        let fresh = std::mem::take(&mut self.operators.fresh);
        let until = Instant::now() + limits::STORE_PATIENCE;
        self.operators.behind.insert(barrier, Behind { until, answers: fresh });
        self.outgoing.push(Message::Barrier(barrier));
    }

    /// The store said something.
    pub(super) fn hear_store(&mut self, ack: Ack) {
        match ack {
            Ack::Durable(barrier) => self.release(barrier, ""),
            Ack::NotDurable(barrier) => {
                self.release(barrier, " (not on disk: the state folder cannot be written)");
            }
            Ack::NotPersistent(trouble) => {
                let text = format!("the state cannot be written, it is kept in memory: {trouble}");
                self.say(Level::Error, &text);
                let since_unix_ms = self.now().wall.0;
                self.operators.state = Some(StateTrouble { since_unix_ms, trouble });
            }
            Ack::Persistent => {
                self.operators.state = None;
                self.say(Level::Info, "the state is on disk again");
            }
            Ack::Letter(letter) => self.post(*letter),
            Ack::Mail(standing) => self.mail_stands(standing),
            Ack::MailNote(text) => self.say(Level::Error, &text),
        }
    }

    fn release(&mut self, barrier: u64, note: &str) {
        let Some(Behind { answers, .. }) = self.operators.behind.remove(&barrier) else { return };
        for (id, mut result) in answers {
            result.text.push_str(note);
            if let Some(open) = self.operators.open.get_mut(&id) {
                open.results.push(result);
                open.missing = open.missing.saturating_sub(1);
            }
            self.finish(id);
        }
    }

    fn finish(&mut self, id: u64) {
        let done = self.operators.open.get(&id).is_some_and(|open| open.missing == 0);
        if let Some(mut open) = done.then(|| self.operators.open.remove(&id)).flatten()
            && let Some(reply) = open.reply.take()
        {
            // A client that went away took nothing back: what it asked for was done.
            let _delivered = reply.send(Response::Order(open.answer()));
        }
    }

    // ---- status ------------------------------------------------------------------------------

    /// What is due by time.
    pub(super) fn operators_due(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.operators.statuses)
            .into_iter()
            .partition(|status| now >= status.at);
        self.operators.statuses = later;
        let due: Vec<DueStatus> = due;
        let unheard = self.operators.behind.iter().filter(|(_, behind)| now >= behind.until);
        let unheard: Vec<u64> = unheard.map(|(barrier, _)| *barrier).collect();
        for barrier in unheard {
            let text =
                "the disk of the state folder does not answer; what it was given waits in memory";
            self.say(Level::Error, text);
            self.release(
                barrier,
                " (not on disk yet: the disk of the state folder does not answer)",
            );
        }
        for status in due {
            let mut answer = self.status(&status.services);
            if status.whose == Whose::Masters {
                answer.mail = self.mail_status();
                answer.config = Some(self.configuration_status());
                answer.state.clone_from(&self.operators.state);
            }
            let _delivered = status.reply.send(Response::Status(answer));
        }
    }

    /// When something of it is due next.
    pub(super) fn operators_wakeup(&self) -> Option<Instant> {
        let statuses = self.operators.statuses.iter().map(|status| status.at);
        statuses.chain(self.operators.behind.values().map(|behind| behind.until)).min()
    }

    fn status(&mut self, services: &[ServiceName]) -> StatusAnswer {
        let now = self.now();
        let mut answers = Vec::new();
        for name in services {
            let Some(status) = self.engine.status(now, name) else { continue };
            let before = self.operators.shown.get(name).cloned();
            let sample = status.main.and_then(|main| self.measure(name, main));
            let usage = sample.map(|sample| Usage::of(&sample, before.as_ref(), now.mono));
            let mut answer = ServiceStatus::new(&status, usage.unwrap_or_default());
            if self.unclaimed.contains(name) {
                answer.state = UNCLAIMED.to_owned();
            }
            answers.push(answer);
        }
        StatusAnswer::new(answers)
    }

    /// Whether somebody may know and do everything.
    fn is_master(&self, peer: &Peer) -> bool {
        [Uid(0), self.load_as.uid].contains(&peer.uid)
    }

    /// A service is watched no longer.
    pub(super) fn not_shown(&mut self, name: &ServiceName) {
        self.operators.shown.remove(name);
    }

    /// Whether there is an earlier sample of a service to compare with; if not, one is taken now.
    fn was_shown(&mut self, name: &ServiceName) -> bool {
        let main = self.engine.status(self.now(), name).and_then(|status| status.main);
        let Some(main) = main else { return true };
        let known = self.operators.shown.get(name).is_some_and(|sample| sample.identity == main);
        if !known {
            self.measure(name, main);
        }
        known
    }

    /// Samples a main process for people: only what never blocks.
    fn measure(&mut self, name: &ServiceName, main: ProcessIdentity) -> Option<ProcessSample> {
        let needs = Needs { rss: true, stat: true, ..Needs::default() };
        let held = self.services.get(name)?.held.get(&main)?;
        let sample = sampler::quick(held.hold.held(), needs, None).ok()?;
        self.operators.shown.insert(name.clone(), sample.clone());
        Some(sample)
    }
}
