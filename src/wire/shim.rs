//! Keeper and shim: the plan that goes in, the records of run_dir that come out.
//!
//! The plan is all or nothing: a frame with length, checksum and a commit mark at its very end.
//! The records are in `records`.
#![forbid(unsafe_code)]

mod records;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use records::{
    ChildRecord, JobRecord, LADDER_FILE, LadderRecord, MAIN_FILE, MainRecord, OutcomeRecord, Record,
};

use crate::model::ids::{ActionId, CheckIndex, ServiceName};
use crate::model::job::{AtDeadline, Job, JobKind};
use crate::model::limits;
use crate::model::process::{Pid, ProcessIdentity};
use crate::model::puma::Secret;
use crate::model::service::Command;
use crate::model::time::Mono;

/// The version this heeler writes and reads.
const VERSION: u64 = 1;

/// A service may have one action, one instance and one probe of each check in flight, each with its lock
/// and records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// start, stop, restart, reload, exec.
    Action,
    /// The program of `run =`, for its whole life.
    Instance,
    /// The question to a unit's manager.
    Look,
    /// The question to a Puma.
    Ask,
    /// The program of a check.
    Probe(CheckIndex),
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
    /// Held by the shim that reads on for a daemon which a check's program left with its output.
    Reader,
}

impl Slot {
    /// Those that a new keeper takes over.
    pub const ACTIONS: [Self; 2] = [Self::Action, Self::Instance];

    /// The slot of a kind of job.
    #[must_use]
    pub fn of(kind: JobKind) -> Self {
        match kind {
            JobKind::Instance => Self::Instance,
            JobKind::Look => Self::Look,
            JobKind::Ask => Self::Ask,
            JobKind::Probe(check) => Self::Probe(check),
            JobKind::Start | JobKind::Stop | JobKind::Restart | JobKind::Reload | JobKind::Exec => {
                Self::Action
            }
        }
    }

    /// The name of its file in `run_dir/svc/NAME`.
    #[must_use]
    pub fn file(self, file: SlotFile) -> String {
        let slot = match self {
            Self::Action => "action".to_owned(),
            Self::Instance => "instance".to_owned(),
            Self::Look => "look".to_owned(),
            Self::Ask => "ask".to_owned(),
            Self::Probe(check) => format!("{PROBE_FILES}{}", check.0),
        };
        let file = match file {
            SlotFile::Lock => "lock",
            SlotFile::Job => "job",
            SlotFile::Child => "child",
            SlotFile::Outcome => "outcome",
            SlotFile::Reader => "reader",
        };
        format!("{slot}.{file}")
    }
}

/// How the names of all files of probes begin.
pub const PROBE_FILES: &str = "probe-";

/// Everything a shim needs; it asks nobody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The boot it was made in (/proc/sys/kernel/random/boot_id).
    pub boot: Box<str>,
    /// The directory of the service's records, `run_dir/svc/NAME`.
    pub records: PathBuf,
    /// The control group that the command is put into; without one it stays in heeler's.
    pub cgroup: Option<Box<str>>,
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

// What follows is the plan's JSON.

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
    #[serde(default)]
    cgroup: Option<Box<str>>,
    action: u64,
    service: String,
    kind: String,
    #[serde(default)]
    check: Option<u16>,
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
    #[serde(default)]
    input: Option<String>,
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
    JobKind::ACTIONS
        .into_iter()
        .chain([JobKind::Look, JobKind::Ask])
        .find(|kind| kind.name() == name)
        .ok_or(RecordError::Value("a kind of job nobody knows"))
}

impl WirePlan {
    fn from_model(plan: &Plan) -> Result<Self, RecordError> {
        let job = &plan.job;
        Ok(Self {
            boot: plan.boot.clone(),
            records: text(&plan.records)?,
            cgroup: plan.cgroup.clone(),
            action: job.action.0,
            service: job.service.as_str().to_owned(),
            kind: job.kind.name().to_owned(),
            check: match job.kind {
                JobKind::Probe(check) => Some(check.0),
                JobKind::Start
                | JobKind::Stop
                | JobKind::Restart
                | JobKind::Reload
                | JobKind::Instance
                | JobKind::Look
                | JobKind::Ask
                | JobKind::Exec => None,
            },
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
            input: job.input.as_ref().map(|input| input.reveal().to_owned()),
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
            kind: match self.check {
                Some(check) => JobKind::Probe(CheckIndex(check)),
                None => kind(&self.kind)?,
            },
            command: Command {
                argv: self.command.argv,
                timeout: None,
                env: self.command.env,
                cwd: self.command.cwd.map(PathBuf::from),
                systemctl: None,
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
            input: self.input.map(Secret::text),
        };
        let (boot, records, cgroup) = (self.boot, self.records.into(), self.cgroup);
        Ok(Plan { boot, records, cgroup, job })
    }
}

#[cfg(test)]
mod tests;
