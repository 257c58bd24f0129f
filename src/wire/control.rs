//! The stable JSON of the control socket: what `heeler status --json` and `curl --unix-socket` show.
//!
//! Promises to readers, kept within one [`VERSION`]: a field never changes its name, unit or meaning;
//! new fields and new words may appear, so unknown ones are to be passed over. Numbers carry their
//! unit in their name; times are milliseconds since 1970, UTC.
//!
//! ```text
//! GET  /v1/status?service=NAME&group=NAME        200 StatusAnswer   (nothing: all the peer may see)
//! GET  /v1/why?service=NAME                      200 WhyAnswer
//! GET  /v1/events?service=NAME&last=10           200 EventsAnswer   (nothing: all the peer may see)
//! GET  /v1/events?follow=true                    200 one Event a line, for as long as both are there
//! POST /v1/probe {"service":"NAME","check":"memory"}  200 ProbeAnswer   (no check: all of its checks)
//! GET  /v1/workers?service=NAME                  200 WorkersAnswer  (by a fresh look)
//! POST /v1/kill {"service":"NAME","worker":77}   200 OrderAnswer   (no worker: the stuck one)
//! POST /v1/reload-verified {"service":"NAME","timeout_ms":600000}   200 OrderAnswer   (at its end)
//! POST /v1/order {"order":"restart","services":["NAME"],"groups":[],"all":false,"wait":true}   200 OrderAnswer
//! POST /v1/mail-test {"to":["ops@example.com"]}  200 MailTestAnswer (nobody named: all who get alerts)
//! POST /v1/reload-config {}                      200 ReloadAnswer
//! POST /v1/plan {"dir":"/etc/heeler/conf.d"}     200 ReloadAnswer   (no dir: the keeper's own)
//! anything refused                               4xx or 5xx, ErrorAnswer
//! ```
//!
//! A service may be a pattern of names, too: `web-*`, `db[12]`. It stands for those that match among the
//! ones the peer may see.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::model::ids::ServiceName;
use crate::model::incident::{self, Cause};
use crate::model::intent::{Desired, Intent, Who};
use crate::model::memory::Memory;
use crate::model::order::{Reply, ReplyResult};
use crate::model::sample::ProcessSample;
use crate::model::selector::Selector;
use crate::model::status::{self, Status};
use crate::model::time::Mono;

mod events;
mod probe;
mod reload;
mod request;
mod workers;

pub use events::{Event, EventsAnswer};
pub use probe::{Measured, ProbeAnswer, ProbeVerdict, ProbedCheck};
pub use reload::{BadFileNote, ConfigStatus, KeyDiff, ReloadAnswer, ServiceDiff};
pub use request::{Allowed, Encoded, Follow, Request};
pub use workers::{Guard, WorkerRow, WorkersAnswer, WorkersVerdict};

/// The version every answer carries and every path begins with.
pub const VERSION: u32 = 1;

/// An answer: exactly one of these, as one JSON object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each holds the answer of its name")]
pub enum Response {
    Status(StatusAnswer),
    Why(WhyAnswer),
    Events(EventsAnswer),
    Probe(ProbeAnswer),
    Workers(Box<WorkersAnswer>),
    Order(OrderAnswer),
    MailTest(MailTestAnswer),
    Reload(ReloadAnswer),
    Error(ErrorAnswer),
}

/// How services stand.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// [`VERSION`] of the keeper.
    pub version: u32,
    /// In the order asked for; all by name when none was named.
    pub services: Vec<ServiceStatus>,
    /// How mail stands, for root and heeler's own user; absent where mails become files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailStatus>,
    /// How the configuration stands, for root and heeler's own user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigStatus>,
    /// What is wrong with the state folder, for root and heeler's own user; absent when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateTrouble>,
}

impl StatusAnswer {
    /// Of this version.
    #[must_use]
    pub fn new(services: Vec<ServiceStatus>) -> Self {
        Self { version: VERSION, services, mail: None, config: None, state: None }
    }
}

/// What is to survive cannot be written, and is kept in memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StateTrouble {
    /// Since when.
    pub since_unix_ms: u64,
    /// What failed, why, and what to do.
    pub trouble: String,
}

/// How mail stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MailStatus {
    /// Alerts that no mail server has taken yet.
    pub waiting: u64,
    /// Since when delivery fails; absent while it works.
    pub failing_since_unix_ms: Option<u64>,
    /// Why.
    pub trouble: Option<String>,
}

/// What came of a test of mail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MailTestAnswer {
    /// [`VERSION`] of the keeper.
    pub version: u32,
    /// To whom.
    pub to: Vec<String>,
    /// For each server, in the order they are tried; empty where there is none.
    pub servers: Vec<MailTestResult>,
    /// What is to be said beside that, for people.
    pub text: String,
}

/// What one mail server did with a test mail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MailTestResult {
    /// `HOST:PORT`.
    pub server: String,
    /// Whether it took the mail for everybody.
    pub delivered: bool,
    /// What it said, or what went wrong.
    pub text: String,
}

/// How one service stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub service: String,
    /// The state in words, for people: `up`, `down (stopped by root)`.
    pub state: String,
    /// Overall, for programs.
    pub health: Health,
    /// What heeler is doing: watching, clearing, starting, start period, stopping, killing, backoff.
    pub phase: String,
    /// Since when it is in that state.
    pub since_unix_ms: u64,
    /// What is wanted of it.
    pub desired: Wish,
    /// Its main process.
    pub pid: Option<i32>,
    /// How long that process has lived.
    pub uptime_ms: Option<u64>,
    /// Its share of one core, in thousandths of a percent, as last measured.
    pub cpu_milli_percent: Option<u64>,
    /// Its memory as last measured.
    pub memory_bytes: Option<u64>,
    /// Which memory that is.
    pub memory_kind: Option<MemoryKind>,
    /// What is wrong, with values; empty when nothing is.
    #[serde(default)]
    pub wrong: Vec<String>,
    /// Its checks, in the order of its file.
    #[serde(default)]
    pub checks: Vec<CheckStatus>,
    /// Its groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl ServiceStatus {
    /// The wire's form of a status; `usage` is what was last measured of its main process.
    #[must_use]
    pub fn new(status: &Status, usage: Usage) -> Self {
        let check = |check: &status::CheckStatus| CheckStatus {
            label: check.label.to_string(),
            state: check.state.name().to_owned(),
            text: check.text.clone(),
        };
        Self {
            service: status.service.to_string(),
            state: status.words.clone(),
            health: Health::of(status.health),
            phase: status.phase.name().to_owned(),
            since_unix_ms: status.since.0,
            desired: Wish::of(&status.intent),
            pid: status.main.map(|main| main.pid.0),
            uptime_ms: usage.uptime_ms,
            cpu_milli_percent: usage.cpu_milli_percent,
            memory_bytes: usage.memory.map(|(bytes, _)| bytes),
            memory_kind: usage.memory.map(|(_, kind)| kind),
            wrong: status.wrong.clone(),
            checks: status.checks.iter().map(check).collect(),
            groups: status.groups.iter().map(ToString::to_string).collect(),
        }
    }
}

/// What was last measured of a main process; what was not is absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// How long it has lived.
    pub uptime_ms: Option<u64>,
    /// Its share of one core, in thousandths of a percent.
    pub cpu_milli_percent: Option<u64>,
    /// Bytes, and which.
    pub memory: Option<(u64, MemoryKind)>,
}

impl Usage {
    /// From the last sample, and the one before it for the CPU. Samples of two different processes
    /// give no CPU.
    #[must_use]
    pub fn of(sample: &ProcessSample, before: Option<&ProcessSample>, now: Mono) -> Self {
        let lived_ms = u64::try_from(now.since(sample.at).as_millis()).unwrap_or(u64::MAX);
        let pss = sample.pss_bytes.map(|bytes| (bytes, MemoryKind::Pss));
        let rss = sample.rss_bytes.map(|bytes| (bytes, MemoryKind::Rss));
        let cpu = before.filter(|before| before.identity == sample.identity).and_then(|before| {
            let span_ms = u64::try_from(sample.at.since(before.at).as_millis()).ok()?;
            let used_ms = sample.cpu_ms?.checked_sub(before.cpu_ms?)?;
            used_ms.checked_mul(100_000)?.checked_div(span_ms)
        });
        Self {
            uptime_ms: Some(sample.age_ms.saturating_add(lived_ms)),
            cpu_milli_percent: cpu,
            memory: pss.or(rss),
        }
    }
}

/// Overall.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As wanted, and no check fires.
    Good,
    /// Something is wrong or under way.
    Wanting,
    /// Wanted up and not there.
    Down,
    /// Stopped or unmonitored: nobody wants to know.
    SetAside,
    /// A word of a newer keeper.
    #[serde(other)]
    Other,
}

impl Health {
    fn of(health: status::Health) -> Self {
        match health {
            status::Health::Good => Self::Good,
            status::Health::Wanting => Self::Wanting,
            status::Health::Down => Self::Down,
            status::Health::SetAside => Self::SetAside,
        }
    }
}

/// Which memory a number tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryKind {
    /// Proportional set size.
    Pss,
    /// Resident set size: counts shared pages in full.
    Rss,
    /// A word of a newer keeper.
    #[serde(other)]
    Other,
}

impl MemoryKind {
    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pss => "pss",
            Self::Rss => "rss",
            Self::Other => "other",
        }
    }
}

/// What is wanted, by whom, since when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wish {
    /// up, down, unmonitored.
    pub want: String,
    /// config, operator, rule.
    pub by: String,
    /// The same in words: `root (pid 123)`.
    pub by_text: String,
    /// The operator's.
    pub uid: Option<u32>,
    /// The operator's client.
    pub pid: Option<i32>,
    /// The rule's label.
    pub rule: Option<String>,
    /// When it was asked for.
    pub at_unix_ms: u64,
}

impl Wish {
    fn of(intent: &Intent) -> Self {
        let want = match intent.desired {
            Desired::Up => "up",
            Desired::Down => "down",
            Desired::Unmonitored => "unmonitored",
        };
        let (by, uid, pid, rule) = match &intent.by {
            Who::Config => ("config", None, None, None),
            Who::Operator { uid, pid } => ("operator", Some(uid.0), Some(pid.0), None),
            Who::Rule(label) => ("rule", None, None, Some(label.to_string())),
        };
        Self {
            want: want.to_owned(),
            by: by.to_owned(),
            by_text: intent.by.to_string(),
            uid,
            pid,
            rule,
            at_unix_ms: intent.at.0,
        }
    }
}

/// A check as it stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Its label.
    pub label: String,
    /// ok, pending, firing.
    pub state: String,
    /// The condition with its last values.
    pub text: String,
}

/// Why a service stands as it does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WhyAnswer {
    /// [`VERSION`] of the keeper.
    pub version: u32,
    /// Which service.
    pub service: String,
    /// Its state now, in words.
    pub state: String,
    /// The open incidents; when none is open the last one; empty when there never was one.
    pub incidents: Vec<Incident>,
    /// What is wanted of it; absent where an older keeper answers.
    #[serde(default)]
    pub desired: Option<Wish>,
}

impl WhyAnswer {
    /// From what the engine remembers.
    #[must_use]
    pub fn new(status: &Status, memory: &Memory) -> Self {
        let last = memory.last.iter().filter(|_| memory.open.is_empty());
        Self {
            version: VERSION,
            service: status.service.to_string(),
            state: status.words.clone(),
            incidents: memory.open.iter().chain(last).map(Incident::of).collect(),
            desired: Some(Wish::of(&status.intent)),
        }
    }
}

/// One incident.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Incident {
    /// Its name, unique on this host.
    pub id: String,
    /// down, up_unwanted, unclear, unkillable, set_aside, definition, check, check_unknown, hazard.
    pub cause: String,
    /// The type of the check it is about.
    pub check_type: Option<String>,
    /// The place of that check in its file, from 0.
    pub check_index: Option<u16>,
    /// What is wrong, with values.
    pub title: String,
    /// When it began.
    pub opened_unix_ms: u64,
    /// When it ended.
    pub closed_unix_ms: Option<u64>,
    /// What was seen, decided, done, and how it ended.
    #[serde(default)]
    pub story: Vec<StoryLine>,
    /// Lines dropped from the middle of the story.
    #[serde(default)]
    pub dropped_lines: u32,
    /// What the last command printed, escaped, line by line.
    #[serde(default)]
    pub output_lines: Vec<String>,
    /// Alerts sent so far.
    #[serde(default)]
    pub alerts_sent: u32,
}

impl Incident {
    fn of(incident: &incident::Incident) -> Self {
        let (cause, check) = match incident.cause {
            Cause::Down => ("down", None),
            Cause::UpUnwanted => ("up_unwanted", None),
            Cause::Unclear => ("unclear", None),
            Cause::Unkillable => ("unkillable", None),
            Cause::SetAside => ("set_aside", None),
            Cause::Definition => ("definition", None),
            Cause::Hazard(_) => ("hazard", None),
            Cause::StuckWorker => ("stuck_worker", None),
            Cause::Check(kind, index) => ("check", Some((kind, index))),
            Cause::CheckUnknown(kind, index) => ("check_unknown", Some((kind, index))),
        };
        let line = |line: &incident::StoryLine| StoryLine {
            at_unix_ms: line.at.0,
            text: line.text.clone(),
        };
        Self {
            id: incident.token(),
            cause: cause.to_owned(),
            check_type: check.map(|(kind, _)| kind.name().to_owned()),
            check_index: check.map(|(_, index)| index.0),
            title: incident.title.clone(),
            opened_unix_ms: incident.opened.0,
            closed_unix_ms: incident.closed.map(|at| at.0),
            story: incident.story.iter().map(line).collect(),
            dropped_lines: incident.dropped_lines,
            output_lines: incident.output.lines(),
            alerts_sent: incident.told,
        }
    }
}

/// One line of a story.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoryLine {
    /// When.
    pub at_unix_ms: u64,
    /// What.
    pub text: String,
}

/// What came of an order, per service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OrderAnswer {
    /// [`VERSION`] of the keeper.
    pub version: u32,
    /// In the order asked for.
    pub results: Vec<OrderResult>,
}

impl OrderAnswer {
    /// Of this version.
    #[must_use]
    pub fn new(results: Vec<OrderResult>) -> Self {
        Self { version: VERSION, results }
    }
}

/// What came of an order for one service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OrderResult {
    /// Which service.
    pub service: String,
    /// What came of it.
    pub result: OrderEnd,
    /// One sentence: what was done, how it ended, what to look at.
    pub text: String,
}

impl OrderResult {
    /// The engine's reply.
    #[must_use]
    pub fn replied(service: &ServiceName, reply: &Reply) -> Self {
        let result = match reply.result {
            ReplyResult::Done => OrderEnd::Done,
            ReplyResult::Failed => OrderEnd::Failed,
        };
        Self { service: service.to_string(), result, text: reply.text.clone() }
    }

    /// The answer to an order that nobody waits for: it is recorded and under way.
    #[must_use]
    pub fn accepted(service: &ServiceName, text: String) -> Self {
        Self { service: service.to_string(), result: OrderEnd::Accepted, text }
    }
}

/// What came of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderEnd {
    /// What was asked is so.
    Done,
    /// It is not.
    Failed,
    /// It is under way; nobody waits for it.
    Accepted,
    /// A word of a newer keeper.
    #[serde(other)]
    Other,
}

/// A refusal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// [`VERSION`] of the keeper.
    pub version: u32,
    /// For programs.
    pub error: ErrorKind,
    /// For people: what, why, what to do.
    pub text: String,
}

impl ErrorAnswer {
    /// Of this version.
    #[must_use]
    pub fn new(error: ErrorKind, text: impl Into<String>) -> Self {
        Self { version: VERSION, error, text: text.into() }
    }

    /// The one answer for a service that is unknown and for one the peer may not see: nobody learns
    /// which services exist by asking.
    #[must_use]
    pub fn no_such_service(name: &str) -> Self {
        let text = format!("no such service: {name}; `heeler status` lists those you may see");
        Self::new(ErrorKind::NoSuchService, text)
    }

    /// The same for a pattern or group without a service.
    #[must_use]
    pub fn no_service_of(selector: &Selector) -> Self {
        let text = match selector {
            Selector::Name(name) => return Self::no_such_service(name.as_str()),
            Selector::Pattern(pattern) => format!("no service matches {pattern}"),
            Selector::Group(group) => format!("no service is in group {group}"),
            Selector::All => "there are no services".to_owned(),
        };
        let text = format!("{text}; `heeler status` lists those you may see");
        Self::new(ErrorKind::NoSuchService, text)
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It is not a request this keeper understands.
    BadRequest,
    /// There is nothing at this path.
    NoSuchPath,
    /// The path asks for another method.
    WrongMethod,
    /// The request or its answer would be too large.
    TooLarge,
    /// There is no such service, or the peer may not see it.
    NoSuchService,
    /// The service has no such check, or several.
    NoSuchCheck,
    /// The peer may see the service, and may not do this with it.
    NotAllowed,
    /// Too many clients.
    Busy,
    /// The keeper ends.
    Stopping,
    /// A client that follows is too far behind.
    TooSlow,
    /// A word of a newer keeper.
    #[serde(other)]
    Other,
}

#[cfg(test)]
#[path = "control/tests.rs"]
mod tests;
