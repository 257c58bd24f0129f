//! Everything that can happen to the engine.

use std::time::Duration;

use crate::model::crew::{Muster, PumaView};
use crate::model::hazard::HazardKind;
use crate::model::ids::{ActionId, AskId, CheckIndex, RequestId, ServiceName};
use crate::model::intent::Who;
use crate::model::job::Outcome;
use crate::model::observation::Observation;
use crate::model::order::{Order, WorkerPick};
use crate::model::process::{Exit, Identification, ProcessIdentity, Survivor};
use crate::model::puma::Trouble;
use crate::model::text::Untrusted;

/// One thing that happened. Every question of the engine ([`crate::engine::effect::Effect`] with an id)
/// is answered by exactly one input; a late or second answer is counted and dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// Time passed: something is due.
    Tick,
    /// Answers `Identify` and `Hold`. On `One` the keeper already holds and watches the process.
    Identified {
        /// Whose.
        service: ServiceName,
        /// Which question.
        ask: AskId,
        /// What was found.
        found: Identification,
    },
    /// A watched process is gone: its pidfd became readable.
    Exited {
        /// Whose.
        service: ServiceName,
        /// Which process.
        identity: ProcessIdentity,
        /// How, where heeler's own shim was its parent.
        exit: Option<Exit>,
    },
    /// Answers `Survey`.
    Surveyed {
        /// Whose.
        service: ServiceName,
        /// Which question.
        ask: AskId,
        /// Who is left, each watched by the keeper already; or why that cannot be told.
        survivors: Result<Vec<Survivor>, Untrusted>,
    },
    /// Answers `Sample`: one observation for all process checks of the service.
    Sampled {
        /// Whose.
        service: ServiceName,
        /// Which question.
        ask: AskId,
        /// What was seen.
        seen: Observation,
    },
    /// Answers `LookAtCrew`.
    CrewSeen {
        /// Whose.
        service: ServiceName,
        /// Which question.
        ask: AskId,
        /// Who is there, or why that cannot be told.
        seen: Result<Muster, Untrusted>,
        /// What their Puma says.
        puma: Option<PumaView>,
    },
    /// Answers `AskPuma`: it heard, or why not.
    PumaAsked {
        /// Whose.
        service: ServiceName,
        /// Which question.
        ask: AskId,
        /// Whether it heard.
        heard: Result<(), Trouble>,
    },
    /// An operator wants a reload that is seen to its end; already allowed.
    VerifyOrdered {
        /// Of which service.
        service: ServiceName,
        /// The request to answer.
        request: RequestId,
        /// How long it may take.
        within: Option<Duration>,
        /// By whom.
        who: Who,
    },
    /// All that a look found which will go off some day; what is missing is not so any more.
    Hazards {
        /// Whose.
        service: ServiceName,
        /// What, and in words.
        found: Vec<(HazardKind, Untrusted)>,
    },
    /// Answers `SignalWorker`.
    WorkerSignalled {
        /// Whose.
        service: ServiceName,
        /// Which question.
        ask: AskId,
        /// What came of it.
        result: Delivery,
        /// What was seen of it before a KILL.
        evidence: Option<Untrusted>,
    },
    /// An operator wants a worker gone; already allowed.
    WorkerOrdered {
        /// Of which service.
        service: ServiceName,
        /// The request to answer.
        request: RequestId,
        /// Which.
        pick: WorkerPick,
        /// By whom.
        who: Who,
    },
    /// Answers `Probe`.
    Observed {
        /// Whose.
        service: ServiceName,
        /// Which question.
        ask: AskId,
        /// Which check.
        check: CheckIndex,
        /// What was seen.
        seen: Observation,
    },
    /// Answers `Confirm`: whether the held process lives and its claim is unchanged.
    Confirmed {
        /// Whose.
        service: ServiceName,
        /// Which question.
        ask: AskId,
        /// How it is.
        how: Confirmation,
    },
    /// A `Run` of kind Instance: the program was executed and this is its process, held and watched.
    Launched {
        /// Whose.
        service: ServiceName,
        /// Which action.
        action: ActionId,
        /// Its process.
        identity: ProcessIdentity,
    },
    /// Answers `Run`: the job ended. For an Instance: its program ended, or never began.
    Finished {
        /// Whose.
        service: ServiceName,
        /// Which action.
        action: ActionId,
        /// How.
        outcome: Outcome,
    },
    /// Something is known beside what was told, for the story of what is open.
    Remarked {
        /// About which service.
        service: ServiceName,
        /// One sentence; foreign text in it is escaped.
        text: String,
    },
    /// Answers `Signal`.
    Signalled {
        /// Whose.
        service: ServiceName,
        /// Which question.
        ask: AskId,
        /// What came of it.
        result: Delivery,
    },
    /// An operator's order, already allowed.
    Ordered {
        /// To which service.
        service: ServiceName,
        /// The request to answer.
        request: RequestId,
        /// What.
        order: Order,
        /// By whom.
        who: Who,
    },
}

/// How a held process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Confirmation {
    /// It lives, and what claimed it still does.
    Same,
    /// It lives, but the claim (pidfile) changed: identify again.
    ClaimChanged,
    /// It does not live: its exit was missed.
    Gone,
}

/// What came of a signal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// It was delivered.
    Sent,
    /// The process was gone already: as good.
    Gone,
    /// It was not sent: the process could not be proved to be the one meant.
    Refused(Untrusted),
}
