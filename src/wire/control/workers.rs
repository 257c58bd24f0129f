//! The workers of a service, as a look at them saw each.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::model::crew::{CrewView, Duty, Leaving, Member};
use crate::model::ids::ServiceName;
use crate::model::process::Ours;
use crate::model::standing::{Standing, Verdict};
use crate::model::workers::{Generation, Place, Target, Worker};
use crate::wire::control::{MemoryKind, Usage, VERSION};

/// How the workers of a service are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkersAnswer {
    /// [`VERSION`] of the keeper.
    pub version: u32,
    /// Which service.
    pub service: String,
    /// Overall, for programs.
    pub verdict: WorkersVerdict,
    /// How a Puma stands: up, booting, restarting, boot-loop, ...; absent for other masters.
    #[serde(default)]
    pub standing: Option<String>,
    /// The same with its numbers, for people; of other masters how many serve.
    pub text: String,
    /// What limits taking workers away.
    pub guard: Guard,
    /// The release that `current` leads to, where that is known.
    #[serde(default)]
    pub current: Option<String>,
    /// The workers, the oldest first.
    #[serde(default)]
    pub workers: Vec<WorkerRow>,
}

/// What a look came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkersVerdict {
    /// They serve, or are about to.
    Well,
    /// They do not as they should.
    Ill,
    /// It cannot be told.
    Unclear,
    /// There is no main process.
    NotRunning,
    /// A word of a newer keeper.
    #[serde(other)]
    Other,
}

impl WorkersVerdict {
    /// The wire's form of how a Puma stands.
    #[must_use]
    pub fn of(standing: &Standing) -> Self {
        if matches!(standing, Standing::Down | Standing::Orphans(_)) {
            return Self::NotRunning;
        }
        match standing.verdict() {
            Verdict::Well => Self::Well,
            Verdict::Ill => Self::Ill,
            Verdict::Unclear => Self::Unclear,
        }
    }
}

/// What limits taking workers away.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Guard {
    /// So many serve at least.
    pub min: u32,
    /// So many are to be there, by what was seen; 0 while nobody was.
    pub wanted: u64,
    /// So many may be taken away in a window,
    pub budget: u32,
    /// of this length.
    pub window_ms: u64,
    /// So many are left of them.
    pub left: u32,
    /// Who is being taken away.
    pub going: Option<i32>,
}

impl Guard {
    /// The wire's form.
    #[must_use]
    pub fn new(view: &CrewView) -> Self {
        Self {
            min: view.min,
            wanted: u64::try_from(view.wanted).unwrap_or(u64::MAX),
            budget: view.budget.actions,
            window_ms: u64::try_from(view.budget.window.as_millis()).unwrap_or(u64::MAX),
            left: view.left,
            going: view.going.map(|worker| worker.pid.0),
        }
    }
}

/// One worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number.
    pub pid: i32,
    /// What it calls itself.
    pub title: String,
    /// How long it has lived.
    pub age_ms: u64,
    /// Its memory.
    pub memory_bytes: Option<u64>,
    /// Which memory that is.
    pub memory_kind: Option<MemoryKind>,
    /// Its share of one core since heeler's last look, in thousandths of a percent; absent where there was
    /// none.
    pub cpu_milli_percent: Option<u64>,
    /// The letter of its state.
    pub state: Option<String>,
    /// serves, boots, frozen.
    pub duty: String,
    /// current, other, gone: where its release stands to `current`.
    pub release: Option<String>,
    /// The directory it works in.
    pub release_path: Option<String>,
    /// Whether it is of an earlier generation than its master's last reload.
    pub stale: Option<bool>,
    /// For how long its master has waited for it to go; absent where it does not.
    pub awaited_ms: Option<u64>,
    /// Whether it belongs to the user that workers are to belong to: no other is ever signalled.
    pub ours: bool,
}

impl WorkerRow {
    /// The wire's form of what was seen of one.
    #[must_use]
    pub fn new(
        (worker, member): (&Worker, &Member),
        (place, generation): (Option<Place>, Option<Generation>),
        usage: Usage,
        view: &CrewView,
    ) -> Self {
        let awaited = view.awaited.filter(|(of, _)| *of == member.identity);
        let awaited = awaited.map(|(_, waited)| waited).unwrap_or_default();
        let awaited_ms = u64::try_from(awaited.as_millis()).unwrap_or(u64::MAX);
        Self {
            pid: member.identity.pid.0,
            title: member.title.to_string(),
            age_ms: member.age_ms,
            memory_bytes: usage.memory.map(|(bytes, _)| bytes),
            memory_kind: usage.memory.map(|(_, kind)| kind),
            cpu_milli_percent: usage.cpu_milli_percent,
            state: worker.sample.state.map(String::from),
            duty: member.duty.word().to_owned(),
            release: place.map(|place| place.word().to_owned()),
            release_path: worker.release.as_ref().map(|release| release.path.to_string()),
            stale: generation.map(|generation| generation == Generation::Older),
            awaited_ms: (member.leaving == Leaving::Awaited).then_some(awaited_ms),
            ours: member.ours == Ours::Proved,
        }
    }
}

impl WorkersAnswer {
    /// Of this version. `standing` is a Puma's; of other masters the workers alone tell.
    #[must_use]
    pub fn new(
        service: &ServiceName,
        members: &[Member],
        standing: Option<&Standing>,
        view: &CrewView,
    ) -> Self {
        let serving = members.iter().filter(|member| member.duty == Duty::Serves).count();
        let wanted = view.wanted.max(members.len());
        let frozen = members.iter().any(|member| member.duty == Duty::Frozen);
        let enough = u64::try_from(serving).unwrap_or(u64::MAX) >= u64::from(view.min);
        let (verdict, text) = match standing {
            Some(standing) => (WorkersVerdict::of(standing), standing.to_string()),
            None if enough && !frozen && members.len() >= wanted => {
                (WorkersVerdict::Well, format!("{serving}/{wanted} serve"))
            }
            None => (WorkersVerdict::Ill, format!("{serving}/{wanted} serve")),
        };
        Self {
            version: VERSION,
            service: service.to_string(),
            verdict,
            standing: standing.map(|standing| standing.word().to_owned()),
            text,
            guard: Guard::new(view),
            current: None,
            workers: Vec::new(),
        }
    }

    /// Nothing but why there is nothing to show.
    #[must_use]
    pub fn nobody(
        service: &ServiceName,
        verdict: WorkersVerdict,
        text: String,
        view: &CrewView,
    ) -> Self {
        Self { verdict, text, standing: None, ..Self::new(service, &[], None, view) }
    }

    /// With its workers.
    #[must_use]
    pub fn with(self, mut workers: Vec<WorkerRow>, current: Option<&Target>) -> Self {
        workers.sort_by_key(|row| (std::cmp::Reverse(row.age_ms), row.pid));
        Self { workers, current: current.map(|target| target.path.to_string()), ..self }
    }
}
