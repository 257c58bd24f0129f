//! What keeper and shim leave in `run_dir/svc/NAME` for each other and for their successors.
//!
//! JSON with a version, because an old shim may meet a newer keeper: fields may be added (a reader
//! passes over what it does not know), a meaning never changes under a version.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{RecordError, VERSION, WireIdentity, kind};
use crate::model::ids::ActionId;
use crate::model::job::{Ended, JobKind, Ladder, Outcome, Output};
use crate::model::limits;
use crate::model::process::{Exit, Pid, ProcessIdentity};
use crate::model::text::Untrusted;
use crate::model::time::Mono;

/// The file of [`LadderRecord`].
pub const LADDER_FILE: &str = "ladder";
/// The file of [`MainRecord`].
pub const MAIN_FILE: &str = "main";

/// A record of run_dir.
pub trait Record: Sized {
    /// The bytes to put on disk.
    fn encode(&self) -> Vec<u8>;

    /// Reads them back.
    ///
    /// # Errors
    /// When they are not a record of a version that is known.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError>;
}

/// `{slot}.job`: by the keeper, before the spawn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobRecord {
    /// The boot it belongs to.
    pub boot: Box<str>,
    /// Which action.
    pub action: ActionId,
    /// What for.
    pub kind: JobKind,
    /// Why, for people.
    pub cause: String,
    /// The main process before.
    pub before: Option<ProcessIdentity>,
    /// When it has to have ended.
    pub deadline: Mono,
    /// What said which process was the service's ([`crate::model::service::Service::claim_mark`]).
    pub claim: Option<u64>,
}

/// `{slot}.child`: by the shim, while the child waits at the gate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildRecord {
    /// Which action.
    pub action: ActionId,
    /// The shim itself.
    pub shim: ProcessIdentity,
    /// Its child; also the session and process group of the command.
    pub child: ProcessIdentity,
    /// The child's cgroup, as /proc/PID/cgroup names it.
    pub cgroup: String,
}

/// `{slot}.outcome`: by the shim, at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutcomeRecord {
    /// Of which action.
    pub action: ActionId,
    /// How it ended.
    pub outcome: Outcome,
}

/// `ladder`: by the keeper, after the first signal of a stop: who it names was told to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LadderRecord(pub Ladder);

/// `main`: by the keeper, whenever the main process or its claim changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MainRecord {
    /// Who.
    pub identity: ProcessIdentity,
    /// Its session.
    pub session: Pid,
    /// Its process group.
    pub group: Pid,
    /// The state of the pidfile that it was proved by (`sys::pidfile::Stamp`).
    pub claim: Option<[i64; 6]>,
    /// The inodes of its sockets when it was proved.
    pub sockets: Vec<u64>,
}

// What follows is the JSON itself.

/// Every record on disk: its version beside its fields.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u64,
    #[serde(flatten)]
    fields: T,
}

/// What is read first, so that a newer record is "newer" and not "damaged".
#[derive(Deserialize)]
struct VersionOnly {
    v: u64,
}

fn encode(fields: impl Serialize) -> Vec<u8> {
    // Serialising plain fields to memory cannot fail; a record that is empty would read as damaged.
    serde_json::to_vec(&Versioned { v: VERSION, fields }).unwrap_or_default()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let garbage = |error: serde_json::Error| RecordError::Garbage(error.to_string());
    if bytes.len() > limits::RECORD_BYTES_MAX {
        return Err(RecordError::TooLong);
    }
    let version = serde_json::from_slice::<VersionOnly>(bytes).map_err(garbage)?.v;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    Ok(serde_json::from_slice::<Versioned<T>>(bytes).map_err(garbage)?.fields)
}

#[derive(Serialize, Deserialize)]
struct WireJob {
    boot: Box<str>,
    action: u64,
    kind: String,
    cause: String,
    before: Option<WireIdentity>,
    deadline_ns: Option<u64>,
    // Absent in the records of heelers that did not know it.
    #[serde(default)]
    claim: Option<u64>,
}

impl Record for JobRecord {
    fn encode(&self) -> Vec<u8> {
        encode(WireJob {
            boot: self.boot.clone(),
            action: self.action.0,
            kind: self.kind.name().to_owned(),
            cause: self.cause.clone(),
            before: self.before.map(WireIdentity::from),
            deadline_ns: (self.deadline != Mono::NEVER).then(|| self.deadline.as_nanos()),
            claim: self.claim,
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: WireJob = decode(bytes)?;
        Ok(Self {
            boot: wire.boot,
            action: ActionId(wire.action),
            kind: kind(&wire.kind)?,
            cause: wire.cause,
            before: wire.before.map(ProcessIdentity::try_from).transpose()?,
            deadline: wire.deadline_ns.map_or(Mono::NEVER, Mono::from_nanos),
            claim: wire.claim,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct WireChild {
    action: u64,
    shim: WireIdentity,
    child: WireIdentity,
    cgroup: String,
}

impl Record for ChildRecord {
    fn encode(&self) -> Vec<u8> {
        encode(WireChild {
            action: self.action.0,
            shim: self.shim.into(),
            child: self.child.into(),
            cgroup: self.cgroup.clone(),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: WireChild = decode(bytes)?;
        Ok(Self {
            action: ActionId(wire.action),
            shim: wire.shim.try_into()?,
            child: wire.child.try_into()?,
            cgroup: wire.cgroup,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct WireOutcome {
    action: u64,
    ended: WireEnded,
    head: String,
    tail: String,
    dropped_bytes: u64,
    took_ns: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireEnded {
    Code(i32),
    Signal(i32),
    TimedOut,
    NotExecuted { stage: Box<str>, error: String },
    Lost,
}

impl Record for OutcomeRecord {
    fn encode(&self) -> Vec<u8> {
        let output = &self.outcome.output;
        encode(WireOutcome {
            action: self.action.0,
            ended: match &self.outcome.ended {
                Ended::Exited(Exit::Code(code)) => WireEnded::Code(*code),
                Ended::Exited(Exit::Signal(signal)) => WireEnded::Signal(*signal),
                Ended::TimedOut => WireEnded::TimedOut,
                Ended::NotExecuted { stage, error } => {
                    WireEnded::NotExecuted { stage: stage.clone(), error: error.raw().to_owned() }
                }
                Ended::Lost => WireEnded::Lost,
            },
            head: output.head.raw().to_owned(),
            tail: output.tail.raw().to_owned(),
            dropped_bytes: output.dropped_bytes,
            took_ns: u64::try_from(self.outcome.took.as_nanos()).unwrap_or(u64::MAX),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: WireOutcome = decode(bytes)?;
        let bounded = |text: &str| Untrusted::bounded(text.as_bytes(), KEPT_BYTES_MAX);
        let outcome = Outcome {
            ended: match wire.ended {
                WireEnded::Code(code) => Ended::Exited(Exit::Code(code)),
                WireEnded::Signal(signal) => Ended::Exited(Exit::Signal(signal)),
                WireEnded::TimedOut => Ended::TimedOut,
                WireEnded::NotExecuted { stage, error } => {
                    Ended::NotExecuted { stage, error: error.as_str().into() }
                }
                WireEnded::Lost => Ended::Lost,
            },
            output: Output {
                head: bounded(&wire.head),
                tail: bounded(&wire.tail),
                dropped_bytes: wire.dropped_bytes,
            },
            took: Duration::from_nanos(wire.took_ns),
        };
        Ok(Self { action: ActionId(wire.action), outcome })
    }
}

/// The most that is kept, each byte possibly replaced by a three-byte mark, and heeler's own lines.
const KEPT_BYTES_MAX: usize = 3 * limits::OUTPUT_PROBE_BYTES + 4 * limits::UNTRUSTED_BYTES_MAX;
const _: () =
    assert!(limits::OUTPUT_HEAD_BYTES + limits::OUTPUT_TAIL_BYTES <= limits::OUTPUT_PROBE_BYTES);

#[derive(Serialize, Deserialize)]
struct WireLadder {
    identity: WireIdentity,
    kill_at_ns: u64,
}

impl Record for LadderRecord {
    fn encode(&self) -> Vec<u8> {
        encode(WireLadder {
            identity: self.0.identity.into(),
            kill_at_ns: self.0.kill_at.as_nanos(),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: WireLadder = decode(bytes)?;
        let kill_at = Mono::from_nanos(wire.kill_at_ns);
        Ok(Self(Ladder { identity: wire.identity.try_into()?, kill_at }))
    }
}

#[derive(Serialize, Deserialize)]
struct WireMain {
    identity: WireIdentity,
    session: i32,
    group: i32,
    // Absent in the records of heelers that did not know them.
    #[serde(default)]
    claim: Option<[i64; 6]>,
    #[serde(default)]
    sockets: Vec<u64>,
}

impl Record for MainRecord {
    fn encode(&self) -> Vec<u8> {
        encode(WireMain {
            identity: self.identity.into(),
            session: self.session.0,
            group: self.group.0,
            claim: self.claim,
            sockets: self.sockets.clone(),
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: WireMain = decode(bytes)?;
        Ok(Self {
            identity: wire.identity.try_into()?,
            session: Pid(wire.session),
            group: Pid(wire.group),
            claim: wire.claim,
            sockets: wire.sockets,
        })
    }
}
