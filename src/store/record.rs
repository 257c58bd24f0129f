//! The words on disk. The types of `model` are taken apart field by field and put together again,
//! so a new field there does not compile here until somebody has decided how it is kept.
//!
//! Within one format version fields may be added (with a default) and are ignored by older readers;
//! everything else is a new version.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::check::CheckKind;
use crate::model::hazard::HazardKind;
use crate::model::ids::{CheckIndex, ServiceName};
use crate::model::incident::{Alert, AlertKind, Cause, Incident, StoryLine};
use crate::model::intent::{Desired, Intent, Who};
use crate::model::job::Output;
use crate::model::memory::{Acquaintance, BootMemory, Memory};
use crate::model::process::{Pid, ProcessIdentity, Uid};
use crate::model::text::Untrusted;
use crate::model::time::{Mono, Wall};

/// The version of everything written here.
pub(super) const FORMAT: u32 = 1;

/// The part that every version has.
#[derive(Deserialize)]
pub(super) struct Version {
    pub(super) v: u32,
}

/// One line of the journal. `Open` is [`IncidentRecord`] and `Boot` is [`BootRecord`] when written;
/// both are read as `Value` first, so that one word this version does not know (a check type of a
/// newer heeler) costs that incident and not the wish.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry<Open = Value, Boot = Value> {
    pub(super) v: u32,
    pub(super) boot: String,
    pub(super) service: String,
    /// Absent: the service was forgotten.
    pub(super) memory: Option<MemoryRecord<Open, Boot>>,
}

/// [`Memory`].
#[derive(Serialize, Deserialize)]
pub(super) struct MemoryRecord<Open, Boot> {
    intent: IntentRecord,
    incidents_opened: u32,
    open: Vec<Open>,
    last: Option<Open>,
    /// Absent in journals of an earlier heeler.
    #[serde(default)]
    fingerprints: Vec<(u64, u64)>,
    #[serde(default)]
    claim: Option<u64>,
    #[serde(default)]
    checks: Vec<u64>,
    boot: Boot,
}

impl From<&Memory> for MemoryRecord<IncidentRecord, BootRecord> {
    fn from(memory: &Memory) -> Self {
        let Memory { intent, incidents_opened, open, last, fingerprints, claim, checks, boot } =
            memory;
        Self {
            intent: intent.into(),
            incidents_opened: *incidents_opened,
            open: open.iter().map(Into::into).collect(),
            last: last.as_ref().map(Into::into),
            fingerprints: fingerprints.clone(),
            claim: *claim,
            checks: checks.clone(),
            boot: boot.into(),
        }
    }
}

impl MemoryRecord<Value, Value> {
    /// The memory, and how many parts of it were not understood and are left out.
    pub(super) fn restore(self) -> (Memory, u32) {
        fn part<T: DeserializeOwned>(value: Value, unknown: &mut u32) -> Option<T> {
            let read = serde_json::from_value(value).ok();
            *unknown += u32::from(read.is_none());
            read
        }
        let Self { intent, incidents_opened, open, last, fingerprints, claim, checks, boot } = self;
        let mut unknown = 0;
        let mut incident = |value| {
            part::<IncidentRecord>(value, &mut unknown).and_then(|i| Incident::try_from(i).ok())
        };
        let open = open.into_iter().filter_map(&mut incident).collect();
        let last = last.and_then(&mut incident);
        let boot = part::<BootRecord>(boot, &mut unknown).map(Into::into).unwrap_or_default();
        let intent = intent.into();
        let memory =
            Memory { intent, incidents_opened, open, last, fingerprints, claim, checks, boot };
        (memory, unknown)
    }
}

#[derive(Serialize, Deserialize)]
struct IntentRecord {
    desired: DesiredRecord,
    by: WhoRecord,
    at_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DesiredRecord {
    Up,
    Down,
    Unmonitored,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WhoRecord {
    Config,
    Operator { uid: u32, pid: i32 },
    Rule(Box<str>),
}

impl From<&Intent> for IntentRecord {
    fn from(intent: &Intent) -> Self {
        let Intent { desired, by, at } = intent;
        let desired = match desired {
            Desired::Up => DesiredRecord::Up,
            Desired::Down => DesiredRecord::Down,
            Desired::Unmonitored => DesiredRecord::Unmonitored,
        };
        let by = match by {
            Who::Config => WhoRecord::Config,
            Who::Operator { uid, pid } => WhoRecord::Operator { uid: uid.0, pid: pid.0 },
            Who::Rule(label) => WhoRecord::Rule(label.clone()),
        };
        Self { desired, by, at_ms: at.0 }
    }
}

impl From<IntentRecord> for Intent {
    fn from(record: IntentRecord) -> Self {
        let IntentRecord { desired, by, at_ms } = record;
        let desired = match desired {
            DesiredRecord::Up => Desired::Up,
            DesiredRecord::Down => Desired::Down,
            DesiredRecord::Unmonitored => Desired::Unmonitored,
        };
        let by = match by {
            WhoRecord::Config => Who::Config,
            WhoRecord::Operator { uid, pid } => Who::Operator { uid: Uid(uid), pid: Pid(pid) },
            WhoRecord::Rule(label) => Who::Rule(label),
        };
        Self { desired, by, at: Wall(at_ms) }
    }
}

/// [`Incident`].
#[derive(Serialize, Deserialize)]
pub(super) struct IncidentRecord {
    service: String,
    number: u32,
    cause: CauseRecord,
    title: String,
    opened_ms: u64,
    closed_ms: Option<u64>,
    story: Vec<StoryRecord>,
    dropped_lines: u32,
    output: OutputRecord,
    told: u32,
    told_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CauseRecord {
    Down,
    UpUnwanted,
    Unclear,
    Unkillable,
    SetAside,
    Definition,
    Check(KindRecord, u16),
    CheckUnknown(KindRecord, u16),
    Hazard(HazardRecord),
    StuckWorker,
}

/// A type of check, by its word in a configuration.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct KindRecord(CheckKind);

impl TryFrom<String> for KindRecord {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        let kind = CheckKind::ALL.into_iter().find(|kind| kind.name() == word);
        kind.map(Self).ok_or_else(|| format!("no type of check is called {word:?}"))
    }
}

impl From<KindRecord> for String {
    fn from(KindRecord(kind): KindRecord) -> Self {
        kind.name().to_owned()
    }
}

/// What was found, by its word.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct HazardRecord(HazardKind);

impl TryFrom<String> for HazardRecord {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        let kind = HazardKind::ALL.into_iter().find(|kind| kind.word() == word);
        kind.map(Self).ok_or_else(|| format!("nothing that is found is called {word:?}"))
    }
}

impl From<HazardRecord> for String {
    fn from(HazardRecord(kind): HazardRecord) -> Self {
        kind.word().to_owned()
    }
}

#[derive(Serialize, Deserialize)]
struct StoryRecord {
    at_ms: u64,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct OutputRecord {
    head: String,
    tail: String,
    dropped_bytes: u64,
}

impl From<&Incident> for IncidentRecord {
    fn from(incident: &Incident) -> Self {
        let Incident {
            service,
            number,
            cause,
            title,
            opened,
            closed,
            story,
            dropped_lines,
            output: Output { head, tail, dropped_bytes },
            told,
            told_at,
        } = incident;
        let line =
            |StoryLine { at, text }: &StoryLine| StoryRecord { at_ms: at.0, text: text.clone() };
        Self {
            service: service.as_str().to_owned(),
            number: *number,
            cause: (*cause).into(),
            title: title.clone(),
            opened_ms: opened.0,
            closed_ms: closed.map(|at| at.0),
            story: story.iter().map(line).collect(),
            dropped_lines: *dropped_lines,
            output: OutputRecord {
                head: head.raw().to_owned(),
                tail: tail.raw().to_owned(),
                dropped_bytes: *dropped_bytes,
            },
            told: *told,
            told_at_ms: told_at.0,
        }
    }
}

impl TryFrom<IncidentRecord> for Incident {
    type Error = NotUnderstood;

    fn try_from(record: IncidentRecord) -> Result<Self, NotUnderstood> {
        let IncidentRecord {
            service,
            number,
            cause,
            title,
            opened_ms,
            closed_ms,
            story,
            dropped_lines,
            output: OutputRecord { head, tail, dropped_bytes },
            told,
            told_at_ms,
        } = record;
        // Bounded when it was taken in, and by the length of a record since.
        let text = |kept: String| Untrusted::bounded(kept.as_bytes(), kept.len());
        let line = |StoryRecord { at_ms, text }| StoryLine { at: Wall(at_ms), text };
        Ok(Self {
            service: ServiceName::recall(&service).map_err(|_| NotUnderstood)?,
            number,
            cause: cause.into(),
            title,
            opened: Wall(opened_ms),
            closed: closed_ms.map(Wall),
            story: story.into_iter().map(line).collect(),
            dropped_lines,
            output: Output { head: text(head), tail: text(tail), dropped_bytes },
            told,
            told_at: Wall(told_at_ms),
        })
    }
}

impl From<Cause> for CauseRecord {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Down => Self::Down,
            Cause::UpUnwanted => Self::UpUnwanted,
            Cause::Unclear => Self::Unclear,
            Cause::Unkillable => Self::Unkillable,
            Cause::SetAside => Self::SetAside,
            Cause::Definition => Self::Definition,
            Cause::Hazard(kind) => Self::Hazard(HazardRecord(kind)),
            Cause::StuckWorker => Self::StuckWorker,
            Cause::Check(kind, CheckIndex(index)) => Self::Check(KindRecord(kind), index),
            Cause::CheckUnknown(kind, CheckIndex(index)) => {
                Self::CheckUnknown(KindRecord(kind), index)
            }
        }
    }
}

impl From<CauseRecord> for Cause {
    fn from(record: CauseRecord) -> Self {
        match record {
            CauseRecord::Down => Self::Down,
            CauseRecord::UpUnwanted => Self::UpUnwanted,
            CauseRecord::Unclear => Self::Unclear,
            CauseRecord::Unkillable => Self::Unkillable,
            CauseRecord::SetAside => Self::SetAside,
            CauseRecord::Definition => Self::Definition,
            CauseRecord::Hazard(HazardRecord(kind)) => Self::Hazard(kind),
            CauseRecord::StuckWorker => Self::StuckWorker,
            CauseRecord::Check(kind, index) => Self::Check(kind.0, CheckIndex(index)),
            CauseRecord::CheckUnknown(kind, index) => Self::CheckUnknown(kind.0, CheckIndex(index)),
        }
    }
}

/// [`BootMemory`].
#[derive(Serialize, Deserialize)]
pub(super) struct BootRecord {
    main: Option<IdentityRecord>,
    starts_ns: Vec<u64>,
    backoffs: u32,
    /// Absent in journals of an earlier heeler.
    #[serde(default)]
    returns: u32,
    healthy_since_ns: Option<u64>,
    backoff_until_ns: Option<u64>,
    leaving: Option<IdentityRecord>,
    /// Absent in journals of an earlier heeler, which had looked at what it wrote of.
    #[serde(default)]
    acquaintance: AcquaintanceRecord,
    /// All absent in journals of an earlier heeler, and where there is nothing to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    braked_ns: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    workers_taken_ns: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verifying_ns: Option<u64>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum AcquaintanceRecord {
    New,
    Left,
    #[default]
    Known,
}

#[derive(Serialize, Deserialize)]
struct IdentityRecord {
    pid: i32,
    started_ticks: u64,
}

impl From<&BootMemory> for BootRecord {
    fn from(memory: &BootMemory) -> Self {
        let BootMemory {
            main,
            starts,
            backoffs,
            returns,
            healthy_since,
            backoff_until,
            acquaintance,
            leaving,
            braked,
            workers_taken,
            verifying,
        } = memory;
        let identity = |ProcessIdentity { pid, started_ticks }: ProcessIdentity| IdentityRecord {
            pid: pid.0,
            started_ticks,
        };
        Self {
            main: main.map(identity),
            starts_ns: starts.iter().map(|at| at.as_nanos()).collect(),
            backoffs: *backoffs,
            returns: *returns,
            healthy_since_ns: healthy_since.map(Mono::as_nanos),
            backoff_until_ns: backoff_until.map(Mono::as_nanos),
            leaving: leaving.map(identity),
            acquaintance: match acquaintance {
                Acquaintance::New => AcquaintanceRecord::New,
                Acquaintance::Left => AcquaintanceRecord::Left,
                Acquaintance::Known => AcquaintanceRecord::Known,
            },
            braked_ns: braked.iter().map(|at| at.as_nanos()).collect(),
            workers_taken_ns: workers_taken.iter().map(|at| at.as_nanos()).collect(),
            verifying_ns: verifying.map(Mono::as_nanos),
        }
    }
}

impl From<BootRecord> for BootMemory {
    fn from(record: BootRecord) -> Self {
        let BootRecord {
            main,
            starts_ns,
            backoffs,
            returns,
            healthy_since_ns,
            backoff_until_ns,
            leaving,
            acquaintance,
            braked_ns,
            workers_taken_ns,
            verifying_ns,
        } = record;
        let identity = |IdentityRecord { pid, started_ticks }| ProcessIdentity {
            pid: Pid(pid),
            started_ticks,
        };
        Self {
            main: main.map(identity),
            starts: starts_ns.into_iter().map(Mono::from_nanos).collect(),
            backoffs,
            returns,
            healthy_since: healthy_since_ns.map(Mono::from_nanos),
            backoff_until: backoff_until_ns.map(Mono::from_nanos),
            leaving: leaving.map(identity),
            acquaintance: match acquaintance {
                AcquaintanceRecord::New => Acquaintance::New,
                AcquaintanceRecord::Left => Acquaintance::Left,
                AcquaintanceRecord::Known => Acquaintance::Known,
            },
            braked: braked_ns.into_iter().map(Mono::from_nanos).collect(),
            workers_taken: workers_taken_ns.into_iter().map(Mono::from_nanos).collect(),
            verifying: verifying_ns.map(Mono::from_nanos),
        }
    }
}

/// [`Alert`], as it waits in the queue.
#[derive(Serialize, Deserialize)]
pub(super) struct AlertRecord {
    v: u32,
    incident: IncidentRecord,
    sequence: u32,
    kind: AlertKindRecord,
    to: Vec<Box<str>>,
    next: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AlertKindRecord {
    Fired,
    FiredAndResolved,
    Resolved,
    Reminder,
}

impl From<&Alert> for AlertRecord {
    fn from(alert: &Alert) -> Self {
        let Alert { incident, sequence, kind, to, next } = alert;
        let kind = match kind {
            AlertKind::Fired => AlertKindRecord::Fired,
            AlertKind::FiredAndResolved => AlertKindRecord::FiredAndResolved,
            AlertKind::Resolved => AlertKindRecord::Resolved,
            AlertKind::Reminder => AlertKindRecord::Reminder,
        };
        Self {
            v: FORMAT,
            incident: incident.into(),
            sequence: *sequence,
            kind,
            to: to.clone(),
            next: next.clone(),
        }
    }
}

impl TryFrom<AlertRecord> for Alert {
    type Error = NotUnderstood;

    fn try_from(record: AlertRecord) -> Result<Self, NotUnderstood> {
        let AlertRecord { v: _, incident, sequence, kind, to, next } = record;
        let kind = match kind {
            AlertKindRecord::Fired => AlertKind::Fired,
            AlertKindRecord::FiredAndResolved => AlertKind::FiredAndResolved,
            AlertKindRecord::Resolved => AlertKind::Resolved,
            AlertKindRecord::Reminder => AlertKind::Reminder,
        };
        Ok(Self { incident: incident.try_into()?, sequence, kind, to, next })
    }
}

/// A record holds a name that is none.
#[derive(Debug)]
pub(super) struct NotUnderstood;
