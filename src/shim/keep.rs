//! Keeping one command: the gate, the deadline, the output, the end. Never a wait without a bound
//! but the deadline itself.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::unistd::pipe2;

use super::capture::Capture;
use super::child::{self, Last};
use super::orphans;
use super::report::{Message, Reader, Stage};
use crate::model::job::{AtDeadline, Ended, Job, JobKind, Outcome};
use crate::model::limits;
use crate::model::process::{Exit, Pid};
use crate::model::text::Untrusted;
use crate::model::time::Mono;
use crate::sys::clock;
use crate::sys::fork::{Child, ChildEnds, fork_child, sealed_input};

/// Who is told how it goes, in this order.
pub trait Witness {
    /// The child waits at the gate. Nothing is executed when this fails.
    ///
    /// # Errors
    /// When the child could not be recorded.
    fn child_waits(&mut self, child: Pid) -> io::Result<()>;
    /// The command has been executed.
    fn executed(&mut self);
    /// It printed something.
    fn output(&mut self, bytes: &[u8]);
    /// heeler has to add this to what it printed.
    fn remark(&mut self, line: &str);
    /// It ended, or never began. Called exactly once.
    fn ended(&mut self, outcome: &Outcome);
}

/// Signals of this process to pass on to the command, for a caller at a terminal.
pub type Interrupts = SignalFd;

/// The output pipe after the end: somebody may still hold its other end.
#[derive(Debug)]
pub struct Leftover(Option<File>);

impl Leftover {
    /// Whether somebody does.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }

    /// Reads and forgets until nobody does.
    pub fn drain(self) {
        let Some(mut pipe) = self.0 else { return };
        if fcntl(&pipe, FcntlArg::F_SETFL(OFlag::empty())).is_ok() {
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
    }
}

/// Runs a job to its end. The calling process must have one thread.
pub fn keep(
    job: &Job,
    last: Last<'_>,
    cgroup: Option<&str>,
    interrupts: Option<&Interrupts>,
    witness: &mut dyn Witness,
) -> Leftover {
    let began = now();
    let tell = |witness: &mut dyn Witness, ended, output| {
        witness.ended(&Outcome { ended, output, took: now().since(began) });
    };
    if job.deadline <= began {
        let ended = not_executed("begin in time", "its deadline had passed before it could");
        tell(witness, ended, Capture::of(job.kind).finish(&[]));
        return Leftover(None);
    }
    if is_probe(job) {
        orphans::adopt();
    }
    let mut kept = match Kept::begin(job, last, cgroup, witness) {
        Ok(kept) => kept,
        Err((stage, error)) => {
            let ended = not_executed(stage.words(), &explain_own(stage, &error));
            tell(witness, ended, Capture::of(job.kind).finish(&[]));
            return Leftover(None);
        }
    };
    while kept.phase != Phase::Done {
        kept.wait(interrupts, witness);
        kept.judge_time(witness);
    }
    let (ended, mut own_lines) = kept.verdict();
    own_lines.extend(kept.left.take());
    own_lines.iter().for_each(|line| witness.remark(line));
    let output = kept.capture.finish(&own_lines);
    tell(witness, ended, output);
    Leftover(kept.output)
}

fn explain_own(stage: Stage, error: &io::Error) -> String {
    match (stage, Errno::from_raw(error.raw_os_error().unwrap_or_default())) {
        (Stage::MakeProcess, Errno::EAGAIN) => {
            "the process limit of heeler or of the machine is reached (pids.max, TasksMax=, \
             kernel.pid_max)"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

fn not_executed(stage: &str, error: &str) -> Ended {
    Ended::NotExecuted { stage: stage.into(), error: Untrusted::from(error) }
}

/// A check's program or a look changes nothing, so nothing of it has to live on.
fn is_probe(job: &Job) -> bool {
    matches!(job.kind, JobKind::Probe(_) | JobKind::Look | JobKind::Ask)
}

/// Where a kept command is, and until when at the latest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It has until its deadline.
    Running,
    /// It was told to end; KILL comes then.
    Ending(Mono),
    /// It was killed; past this it counts as unkillable.
    Killed(Mono),
    /// The child is dead; its output is waited for until then.
    Closing(Mono),
    /// Nothing is waited for any more.
    Done,
}

/// Whether the command was executed.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Progress {
    /// The child is at this step.
    At(Stage),
    /// This step failed.
    Failed(Stage, String),
    /// The deadline came at this step.
    Late(Stage),
    /// It was.
    Executed,
}

struct Kept<'a> {
    job: &'a Job,
    /// Until it is reaped.
    child: Option<Child>,
    /// Whether its pidfd said so; it is not reaped before the group is dealt with.
    child_dead: bool,
    exit: Option<Exit>,
    report: Option<Reader>,
    output: Option<File>,
    capture: Capture,
    phase: Phase,
    progress: Progress,
    timed_out: bool,
    notes: Vec<String>,
    hints: Vec<String>,
    /// What a check's program left behind.
    left: Option<String>,
}

impl<'a> Kept<'a> {
    /// Forks the child, has it recorded, opens the gate.
    fn begin(
        job: &'a Job,
        last: Last<'_>,
        cgroup: Option<&str>,
        witness: &mut dyn Witness,
    ) -> Result<Self, (Stage, io::Error)> {
        let make = |error| (Stage::MakeProcess, error);
        let (output, output_end) = pipe().map_err(make)?;
        let (report, report_end) = pipe().map_err(make)?;
        let (gate_end, gate) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| make(errno.into()))?;
        let input = job.input.as_ref().map(|input| sealed_input(input.reveal().as_bytes()));
        let input = input.transpose().map_err(make)?;
        let ends = ChildEnds { input, output: output_end, report: report_end, gate: gate_end };
        // The child's ends are closed here with `fork_child`, so that their end of file is seen.
        let child = fork_child(ends, |side| child::run(&side, job, last, cgroup)).map_err(make)?;
        // From here on an early return closes the gate unopened: the child ends by itself.
        let record = |error| (Stage::RecordProcess, error);
        witness.child_waits(child.pid()).map_err(record)?;
        File::from(gate).write_all(&[1]).map_err(record)?;
        Ok(Self {
            job,
            child: Some(child),
            child_dead: false,
            exit: None,
            report: Some(Reader::new(report)),
            output: Some(output),
            capture: Capture::of(job.kind),
            phase: Phase::Running,
            progress: Progress::At(Stage::WaitAtGate),
            timed_out: false,
            notes: Vec::new(),
            hints: Vec::new(),
            left: None,
        })
    }

    /// Waits for the next thing to happen, or the present phase's time, and takes it in.
    fn wait(&mut self, interrupts: Option<&Interrupts>, witness: &mut dyn Witness) {
        let [mut said, mut printed, mut died, mut interrupted] = [false; 4];
        {
            let pidfd = self.child.as_ref().filter(|_| !self.child_dead).map(|c| c.pidfd().as_fd());
            let report = self.report.as_ref().map(|report| report.pipe().as_fd());
            let output = self.output.as_ref().map(AsFd::as_fd);
            let interrupts = interrupts.map(AsFd::as_fd);
            // Of the report only its end is waited for (it needs no flag): to be woken by every step
            // of the child would take the processor from it a dozen times on its way to the exec.
            let (end, news) = (PollFlags::empty(), PollFlags::POLLIN);
            let mut watched: Vec<(BorrowedFd<'_>, PollFlags, &mut bool)> = [
                (report, end, &mut said),
                (output, news, &mut printed),
                (pidfd, news, &mut died),
                (interrupts, news, &mut interrupted),
            ]
            .into_iter()
            .filter_map(|(fd, wanted, flag)| fd.map(|fd| (fd, wanted, flag)))
            .collect();
            let mut fds: Vec<PollFd<'_>> =
                watched.iter().map(|(fd, wanted, _)| PollFd::new(*fd, *wanted)).collect();
            if poll(&mut fds, self.patience()).is_err() {
                return;
            }
            for ((_, _, flag), fd) in watched.iter_mut().zip(&fds) {
                **flag = fd.any().unwrap_or(true);
            }
        }
        if let (true, Some(interrupts)) = (interrupted, interrupts) {
            self.pass_on(interrupts);
        }
        if said {
            self.hear(witness);
        }
        if printed {
            self.read_output(witness);
        }
        if died {
            self.child_died(witness);
        }
    }

    /// How long the present phase may take, rounded up to the milliseconds of poll(2).
    fn patience(&self) -> PollTimeout {
        let until = self.until();
        if until == Mono::NEVER {
            return PollTimeout::NONE;
        }
        let span = until.since(now()).min(LONGEST_POLL) + Duration::from_micros(999);
        PollTimeout::try_from(span).unwrap_or(PollTimeout::ZERO)
    }

    fn until(&self) -> Mono {
        match self.phase {
            Phase::Running => self.job.deadline,
            Phase::Ending(until) | Phase::Killed(until) | Phase::Closing(until) => until,
            Phase::Done => Mono::ZERO,
        }
    }

    /// Moves on when the present phase's time is over.
    fn judge_time(&mut self, witness: &mut dyn Witness) {
        if now() < self.until() {
            return;
        }
        match self.phase {
            Phase::Running => {
                self.hear(witness);
                self.end();
            }
            Phase::Ending(_) => self.kill(),
            Phase::Killed(_) | Phase::Closing(_) => self.phase = Phase::Done,
            Phase::Done => {}
        }
        if self.phase == Phase::Done {
            self.reap();
        }
    }

    /// The deadline: TERM, and CONT since a stopped process would keep TERM for later.
    fn end(&mut self) {
        if let Progress::At(stage) = self.progress.clone() {
            // Not the command yet: our own code, hanging as root or as the user.
            self.progress = Progress::Late(stage);
            self.signal(Signal::SIGKILL);
            self.phase = Phase::Killed(now() + limits::KILL_TIMEOUT);
            return;
        }
        self.timed_out = true;
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
        self.phase = Phase::Ending(now() + limits::JOB_GRACE);
    }

    fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.phase = if self.child_dead {
            Phase::Closing(now() + limits::OUTPUT_PATIENCE)
        } else {
            Phase::Killed(now() + limits::KILL_TIMEOUT)
        };
    }

    fn signal(&self, signal: Signal) {
        match (&self.child, self.job.at_deadline) {
            (Some(child), AtDeadline::Group) => child.signal_group(signal),
            (Some(child), AtDeadline::DirectChild) => child.signal(signal),
            (None, _) => {}
        }
    }

    fn pass_on(&self, interrupts: &Interrupts) {
        let Ok(Some(info)) = interrupts.read_signal() else {
            return;
        };
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        if let (Some(child), Ok(signal)) = (&self.child, Signal::try_from(number)) {
            child.signal_group(signal);
        }
    }

    /// What the child says; the end of it is the exec, or the child's end.
    fn hear(&mut self, witness: &mut dyn Witness) {
        let Some(report) = &mut self.report else {
            return;
        };
        let (messages, over) = report.read();
        for message in messages {
            match (message, &self.progress) {
                (Message::Stage(stage), Progress::At(_)) => self.progress = Progress::At(stage),
                (Message::Failed(why), Progress::At(stage)) => {
                    self.progress = Progress::Failed(*stage, why);
                }
                (Message::Note(note), _) => self.notes.push(note),
                (Message::Hint(hint), _) => self.hints.push(hint),
                (Message::Stage(_) | Message::Failed(_), _) => {}
            }
        }
        if over {
            self.report = None;
            if self.progress == Progress::At(Stage::Execute) {
                self.progress = Progress::Executed;
                witness.executed();
            }
        }
    }

    fn read_output(&mut self, witness: &mut dyn Witness) {
        let Some(pipe) = &mut self.output else { return };
        // One read a turn: a command that never stops printing must not keep the deadline away.
        let mut chunk = [0; 64 << 10];
        match pipe.read(&mut chunk) {
            Ok(0) => self.output = None,
            Ok(read) => {
                self.capture.take(&chunk[..read]);
                witness.output(&chunk[..read]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.output = None,
        }
        self.close_if_silent();
    }

    fn child_died(&mut self, witness: &mut dyn Witness) {
        self.hear(witness);
        self.child_dead = true;
        let in_group_ending =
            matches!(self.phase, Phase::Ending(_)) && self.job.at_deadline == AtDeadline::Group;
        if !in_group_ending {
            self.phase = Phase::Closing(now() + limits::OUTPUT_PATIENCE);
        }
        self.close_if_silent();
    }

    /// With the child dead and nobody holding its output there is nothing to wait for.
    fn close_if_silent(&mut self) {
        if !self.child_dead || self.output.is_some() {
            return;
        }
        if let Phase::Ending(_) = self.phase {
            // The rest of the group may have closed its output and live on.
            self.signal(Signal::SIGKILL);
        }
        self.phase = Phase::Done;
        self.reap();
    }

    fn reap(&mut self) {
        if is_probe(self.job) {
            // While the child is not reaped, the group's number is its own.
            self.signal(Signal::SIGKILL);
        }
        let Some(child) = self.child.take() else { return };
        let group = child.pid();
        // One that does not give an exit is unkillable: init reaps it one day.
        if let Ok(Ok(exit)) = child.reap() {
            self.exit = Some(exit);
        }
        if is_probe(self.job) {
            self.left = orphans::left_behind(group);
        }
    }

    /// How it ended, and what heeler has to add to the output.
    fn verdict(&self) -> (Ended, Vec<String>) {
        let mut own_lines = self.notes.clone();
        let how = |exit: Option<Exit>| {
            exit.map_or_else(|| "without a word".to_owned(), |e| e.to_string())
        };
        let ended = match (&self.progress, self.exit) {
            (Progress::Failed(stage, why), _) => not_executed(stage.words(), why),
            (Progress::Late(stage), _) => not_executed(stage.words(), late(*stage)),
            (Progress::At(stage), exit) => {
                not_executed(stage.words(), &format!("the process ended there, {}", how(exit)))
            }
            (Progress::Executed, _) if self.timed_out => Ended::TimedOut,
            (Progress::Executed, Some(exit)) => Ended::Exited(exit),
            // Somebody else reaped it: how it ended cannot be told.
            (Progress::Executed, None) => Ended::Lost,
        };
        if !ended.succeeded() {
            own_lines.extend(self.hints.iter().cloned());
        }
        if self.timed_out && self.exit.is_none() {
            own_lines
                .push("heeler: it does not die even by SIGKILL (stuck in the kernel?)".to_owned());
        }
        (ended, own_lines)
    }
}

/// Why a step can take until the deadline.
fn late(stage: Stage) -> &'static str {
    match stage {
        Stage::FindUser => {
            "there was no answer before the deadline (does LDAP or sssd hang? try `getent passwd`)"
        }
        Stage::BuildEnvironment | Stage::ChangeDirectory | Stage::FindProgram | Stage::Execute => {
            "it did not come to an end before the deadline (does a file system hang? try `df`)"
        }
        Stage::MakeProcess
        | Stage::RecordProcess
        | Stage::WaitAtGate
        | Stage::EnterGroup
        | Stage::ResetSignals
        | Stage::BeginSession
        | Stage::ResetLimits
        | Stage::CloseDescriptors
        | Stage::SeparateKeys
        | Stage::BecomeUser
        | Stage::ProveUser => "it did not come to an end before the deadline",
    }
}

/// Now, on the clock of deadlines.
fn now() -> Mono {
    clock::now().mono
}

/// A day: poll(2) counts milliseconds in 32 bits, and looking again costs nothing.
const LONGEST_POLL: Duration = Duration::from_secs(86_400);

/// A pipe whose read end never blocks.
fn pipe() -> io::Result<(File, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read.into(), write))
}
