//! Everything the engine can ask for.

use crate::model::event::Event;
use crate::model::ids::{AskId, CheckIndex, RequestId, ServiceName};
use crate::model::incident::Alert;
use crate::model::job::{Job, Ladder};
use crate::model::order::Reply;
use crate::model::process::{ProcessIdentity, Signal};
use crate::model::puma::Ask;
use crate::model::time::Mono;

/// One thing to do. The shell does it and, where there is an id, answers exactly once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Find the service's main process, prove it, hold it, watch it. Answer: `Identified`.
    Identify {
        /// Whose.
        service: ServiceName,
        /// The question.
        ask: AskId,
    },
    /// Prove, hold and watch a process known from a record (an earlier keeper's main process), whatever
    /// its claim says now. Answer: `Identified`.
    Hold {
        /// Whose.
        service: ServiceName,
        /// The question.
        ask: AskId,
        /// Which process.
        identity: ProcessIdentity,
    },
    /// Let go of a process.
    Unwatch {
        /// Whose.
        service: ServiceName,
        /// Which.
        identity: ProcessIdentity,
    },
    /// Contradict the event stream: does the held process live, is its claim unchanged? Answer: `Confirmed`.
    Confirm {
        /// Whose.
        service: ServiceName,
        /// The question.
        ask: AskId,
        /// Which process.
        identity: ProcessIdentity,
    },
    /// Find what a dead main process left behind, hold and watch each. Answer: `Surveyed`.
    Survey {
        /// Whose.
        service: ServiceName,
        /// The question.
        ask: AskId,
        /// Who died.
        dead: ProcessIdentity,
    },
    /// Read what the conditions need, once. Answer: `Sampled`.
    Sample {
        /// Whose.
        service: ServiceName,
        /// The question.
        ask: AskId,
        /// Of which process.
        identity: ProcessIdentity,
    },
    /// Look at all workers of a main process, once for all checks of them. Answer: `CrewSeen`.
    LookAtCrew {
        /// Whose.
        service: ServiceName,
        /// The question.
        ask: AskId,
        /// Their main process.
        main: ProcessIdentity,
        /// When that was reloaded last: who is older is of an earlier generation.
        reloaded: Option<Mono>,
    },
    /// Tell a Puma something. Answer: `PumaAsked`.
    AskPuma {
        /// Whose.
        service: ServiceName,
        /// The question.
        ask: AskId,
        /// What.
        what: Ask,
    },
    /// Prove a worker, send it a signal (then CONT, unless it is KILL), and watch it. Answer:
    /// `WorkerSignalled`.
    SignalWorker {
        /// Whose.
        service: ServiceName,
        /// The question.
        ask: AskId,
        /// Its main process.
        main: ProcessIdentity,
        /// Which worker.
        worker: ProcessIdentity,
        /// Which signal.
        signal: Signal,
        /// For the log.
        why: &'static str,
    },
    /// Probe one check that is not about the process sample. Answer: `Observed`.
    Probe {
        /// Whose.
        service: ServiceName,
        /// Which check.
        check: CheckIndex,
        /// The question.
        ask: AskId,
    },
    /// Run a job by a shim. Answers: `Launched` for an Instance that was executed, and `Finished`.
    Run(Box<Job>),
    /// Send a signal to a held process, after proving it again; then CONT, unless it is KILL (a stopped
    /// process keeps TERM pending until CONT). Answer: `Signalled`.
    Signal {
        /// Whose.
        service: ServiceName,
        /// The question.
        ask: AskId,
        /// To which process.
        identity: ProcessIdentity,
        /// Which signal.
        signal: Signal,
        /// For the log.
        why: &'static str,
    },
    /// Record (or clear) the stop ladder in run_dir, once its first signal was sent, so that a new keeper
    /// keeps the grace. Not before: it would kill what was never told to go.
    RecordLadder {
        /// Whose.
        service: ServiceName,
        /// The ladder; `None`: it is over.
        ladder: Option<Ladder>,
    },
    /// Delete the pidfile if it still names this dead process.
    RemoveStalePidfile {
        /// Whose.
        service: ServiceName,
        /// Who is dead.
        dead: ProcessIdentity,
    },
    /// Store the service's memory (`Engine::memory`).
    Persist {
        /// Whose.
        service: ServiceName,
    },
    /// Put an alert on disk and from there on its way.
    Alert(Box<Alert>),
    /// Something worth telling happened: it goes into the history.
    Event(Event),
    /// Say something in the log.
    Log {
        /// About which service.
        service: ServiceName,
        /// How loud.
        level: Level,
        /// One line; foreign text in it is escaped.
        text: String,
    },
    /// Answer an operator, once everything persisted before it is on disk.
    Answer {
        /// Which request.
        request: RequestId,
        /// The answer.
        reply: Reply,
    },
}

/// How loud a log line is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// As it should be.
    Info,
    /// Somebody may want to know.
    Warning,
    /// Somebody has to know.
    Error,
}
