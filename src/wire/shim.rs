//! Keeper and shim: the plan that goes in, the records of run_dir that come out.
//!
//! The plan is all or nothing: a frame with length, checksum and a commit mark at its very end.
//! The records are JSON with a version, because an old shim may meet a newer keeper: fields may be
//! added (a reader passes over what it does not know), a meaning never changes under a version.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::ids::{ActionId, ServiceName};
use crate::model::job::{AtDeadline, Ended, Job, JobKind, Ladder, Outcome, Output};
use crate::model::limits;
use crate::model::process::{Exit, Pid, ProcessIdentity};
use crate::model::service::Command;
use crate::model::text::Untrusted;
use crate::model::time::Mono;

/// The version this heeler writes and reads.
const VERSION: u64 = 1;

/// A service may have one action and one instance in flight, each with a lock and records of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// start, stop, restart, exec.
    Action,
    /// The program of `run =`, for its whole life.
    Instance,
}

/// One file of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotFile {
    /// Never unlinked; who holds it lives.
    Lock,
    /// [`JobRecord`].
    Job,
    /// [`ChildRecord`].
    Child,
    /// [`OutcomeRecord`].
    Outcome,
}

/// The file of [`LadderRecord`].
pub const LADDER_FILE: &str = "ladder";
/// The file of [`MainRecord`].
pub const MAIN_FILE: &str = "main";

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Action, Self::Instance];

    /// The slot of a kind of job.
    #[must_use]
    pub fn of(kind: JobKind) -> Self {
        match kind {
            JobKind::Instance => Self::Instance,
            JobKind::Start | JobKind::Stop | JobKind::Restart | JobKind::Exec => Self::Action,
        }
    }

    /// The name of its file in `run_dir/svc/NAME`.
    #[must_use]
    pub fn file(self, file: SlotFile) -> &'static str {
        match (self, file) {
            (Self::Action, SlotFile::Lock) => "action.lock",
            (Self::Action, SlotFile::Job) => "action.job",
            (Self::Action, SlotFile::Child) => "action.child",
            (Self::Action, SlotFile::Outcome) => "action.outcome",
            (Self::Instance, SlotFile::Lock) => "instance.lock",
            (Self::Instance, SlotFile::Job) => "instance.job",
            (Self::Instance, SlotFile::Child) => "instance.child",
            (Self::Instance, SlotFile::Outcome) => "instance.outcome",
        }
    }
}

/// Everything a shim needs; it asks nobody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The boot it was made in (/proc/sys/kernel/random/boot_id).
    pub boot: Box<str>,
    /// The directory of the service's records, `run_dir/svc/NAME`.
    pub records: PathBuf,
    /// What to do.
    pub job: Job,
}

impl Plan {
    /// The framed plan.
    ///
    /// # Errors
    /// When a path in it is not UTF-8 text, or it is too long.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let body = serde_json::to_vec(&WirePlan::from_model(self)?)
            .map_err(|error| RecordError::Garbage(error.to_string()))?;
        let length = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= limits::RECORD_BYTES_MAX)
            .ok_or(RecordError::TooLong)?;
        let mut frame = Vec::with_capacity(body.len() + FRAME_BYTES);
        frame.extend_from_slice(MAGIC);
        frame.extend_from_slice(&VERSION.to_le_bytes());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&checksum(&body).to_le_bytes());
        frame.extend_from_slice(&body);
        frame.extend_from_slice(COMMIT);
        Ok(frame)
    }

    /// Reads a frame that is there as a whole.
    ///
    /// # Errors
    /// On anything else, be it one byte short or long: then nothing may be executed.
    pub fn decode(frame: &[u8]) -> Result<Self, RecordError> {
        let rest = frame.strip_prefix(MAGIC).ok_or(RecordError::Incomplete)?;
        let (version, rest) = rest.split_first_chunk().ok_or(RecordError::Incomplete)?;
        let version = u64::from_le_bytes(*version);
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let (length, rest) = rest.split_first_chunk().ok_or(RecordError::Incomplete)?;
        let (sum, rest) = rest.split_first_chunk().ok_or(RecordError::Incomplete)?;
        let body = rest.strip_suffix(COMMIT).ok_or(RecordError::Incomplete)?;
        if usize::try_from(u32::from_le_bytes(*length)) != Ok(body.len())
            || u64::from_le_bytes(*sum) != checksum(body)
        {
            return Err(RecordError::Incomplete);
        }
        serde_json::from_slice::<WirePlan>(body)
            .map_err(|error| RecordError::Garbage(error.to_string()))?
            .into_model()
    }
}

const MAGIC: &[u8; 8] = b"heelPLAN";
const COMMIT: &[u8; 8] = b"COMMITTD";
/// What a frame has beside its body: magic, version, length, checksum, commit mark.
const FRAME_BYTES: usize = 8 + 8 + 4 + 8 + 8;
/// A plan's frame at its longest.
pub const PLAN_BYTES_MAX: usize = limits::RECORD_BYTES_MAX + FRAME_BYTES;

/// FNV-1a: any single changed byte changes it. Against accidents; nobody hostile can write here.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Why bytes are not a plan or a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// Longer than [`limits::RECORD_BYTES_MAX`].
    TooLong,
    /// A plan without its beginning, its end, or with another checksum.
    Incomplete,
    /// Of a version this heeler does not know.
    Version(u64),
    /// Not the JSON it should be.
    Garbage(String),
    /// A value that cannot be; which.
    Value(&'static str),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("it is too long"),
            Self::Incomplete => f.write_str("it is not complete"),
            Self::Version(version) => {
                write!(f, "it has version {version}, this heeler knows {VERSION}")
            }
            Self::Garbage(why) => write!(f, "it is damaged: {why}"),
            Self::Value(what) => write!(f, "it is damaged: {what}"),
        }
    }
}

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

/// `ladder`: by the keeper, before the first signal of a stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LadderRecord(pub Ladder);

/// `main`: by the keeper, whenever the main process changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MainRecord {
    /// Who.
    pub identity: ProcessIdentity,
    /// Its session.
    pub session: Pid,
    /// Its process group.
    pub group: Pid,
}

// What follows is the JSON itself.

#[derive(Serialize, Deserialize, Clone, Copy)]
struct WireIdentity {
    pid: i32,
    started_ticks: u64,
}

impl From<ProcessIdentity> for WireIdentity {
    fn from(identity: ProcessIdentity) -> Self {
        Self { pid: identity.pid.0, started_ticks: identity.started_ticks }
    }
}

impl TryFrom<WireIdentity> for ProcessIdentity {
    type Error = RecordError;

    fn try_from(wire: WireIdentity) -> Result<Self, RecordError> {
        // 0 and negative numbers mean groups to kill(2): they must never look like a process.
        if wire.pid <= 0 {
            return Err(RecordError::Value("a process number that is none"));
        }
        Ok(Self { pid: Pid(wire.pid), started_ticks: wire.started_ticks })
    }
}

#[derive(Serialize, Deserialize)]
struct WireCommand {
    argv: Vec<Box<str>>,
    #[serde(default)]
    env: Vec<(Box<str>, Box<str>)>,
    cwd: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct WirePlan {
    boot: Box<str>,
    records: String,
    action: u64,
    service: String,
    kind: String,
    command: WireCommand,
    user: Option<Box<str>>,
    group: Option<Box<str>>,
    env: Vec<(Box<str>, Box<str>)>,
    env_file: Option<String>,
    cwd: Option<String>,
    deadline_ns: Option<u64>,
    at_deadline: WireAtDeadline,
    reason: String,
    main: Option<WireIdentity>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireAtDeadline {
    DirectChild,
    Group,
}

fn text(path: &std::path::Path) -> Result<String, RecordError> {
    path.to_str().map(str::to_owned).ok_or(RecordError::Value("a path that is not UTF-8 text"))
}

fn kind(name: &str) -> Result<JobKind, RecordError> {
    JobKind::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or(RecordError::Value("a kind of job nobody knows"))
}

impl WirePlan {
    fn from_model(plan: &Plan) -> Result<Self, RecordError> {
        let job = &plan.job;
        Ok(Self {
            boot: plan.boot.clone(),
            records: text(&plan.records)?,
            action: job.action.0,
            service: job.service.as_str().to_owned(),
            kind: job.kind.name().to_owned(),
            command: WireCommand {
                argv: job.command.argv.clone(),
                env: job.command.env.clone(),
                cwd: job.command.cwd.as_deref().map(text).transpose()?,
            },
            user: job.user.clone(),
            group: job.group.clone(),
            env: job.env.clone(),
            env_file: job.env_file.as_deref().map(text).transpose()?,
            cwd: job.cwd.as_deref().map(text).transpose()?,
            deadline_ns: (job.deadline != Mono::NEVER).then(|| job.deadline.as_nanos()),
            at_deadline: match job.at_deadline {
                AtDeadline::DirectChild => WireAtDeadline::DirectChild,
                AtDeadline::Group => WireAtDeadline::Group,
            },
            reason: job.reason.clone(),
            main: job.main.map(WireIdentity::from),
        })
    }

    fn into_model(self) -> Result<Plan, RecordError> {
        if self.command.argv.is_empty() {
            return Err(RecordError::Value("a command without a program"));
        }
        let job = Job {
            action: ActionId(self.action),
            service: ServiceName::parse(&self.service)
                .map_err(|_| RecordError::Value("a service name that is none"))?,
            kind: kind(&self.kind)?,
            command: Command {
                argv: self.command.argv,
                timeout: None,
                env: self.command.env,
                cwd: self.command.cwd.map(PathBuf::from),
            },
            user: self.user,
            group: self.group,
            env: self.env,
            env_file: self.env_file.map(PathBuf::from),
            cwd: self.cwd.map(PathBuf::from),
            deadline: self.deadline_ns.map_or(Mono::NEVER, Mono::from_nanos),
            at_deadline: match self.at_deadline {
                WireAtDeadline::DirectChild => AtDeadline::DirectChild,
                WireAtDeadline::Group => AtDeadline::Group,
            },
            reason: self.reason,
            main: self.main.map(ProcessIdentity::try_from).transpose()?,
        };
        Ok(Plan { boot: self.boot, records: self.records.into(), job })
    }
}

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

/// Head and tail in one, each byte possibly replaced by a three-byte mark, and heeler's own lines.
const KEPT_BYTES_MAX: usize =
    3 * (limits::OUTPUT_HEAD_BYTES + limits::OUTPUT_TAIL_BYTES) + 4 * limits::UNTRUSTED_BYTES_MAX;

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
}

impl Record for MainRecord {
    fn encode(&self) -> Vec<u8> {
        encode(WireMain {
            identity: self.identity.into(),
            session: self.session.0,
            group: self.group.0,
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let wire: WireMain = decode(bytes)?;
        Ok(Self {
            identity: wire.identity.try_into()?,
            session: Pid(wire.session),
            group: Pid(wire.group),
        })
    }
}

#[cfg(test)]
#[path = "shim_tests.rs"]
mod tests;
