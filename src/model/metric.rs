//! Named numbers with units. All are whole numbers: the engine has no floats.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::units;
use crate::model::workers::Place;

/// A named number that a condition may use. Which check type measures which is that type's word.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Metric {
    /// Proportional set size of the main process.
    Memory,
    /// Resident set size of the main process.
    Rss,
    /// Memory only the main process has (USS).
    Private,
    /// Proportional set size of the main process and all its descendants.
    MemoryTotal,
    /// Share of one core since the last sample.
    Cpu,
    /// The same, with all descendants.
    CpuTotal,
    /// How long the process has lived.
    Age,
    /// Its threads.
    Threads,
    /// Its direct children.
    Children,
    /// Its open descriptors.
    Fds,
    /// Bytes it read from storage, per second since the last sample.
    ReadRate,
    /// Bytes it wrote to storage, per second since the last sample.
    WriteRate,
    /// The letter of its state: R S D T Z ...
    State,
    /// How long the target took to answer.
    ResponseTime,
    /// The status code of an HTTP answer.
    Status,
    /// Bytes: of an HTTP body, of a file.
    Size,
    /// How long a certificate is still valid; zero once it is not.
    ExpiresIn,
    /// Records in a DNS answer.
    Answers,
    /// Share of echo requests without an answer.
    Loss,
    /// The exit code of a program.
    ExitCode,
    /// Entries of a directory.
    Entries,
    /// Lines that matched since the last look.
    Matches,
    /// Used space of a file system, as df counts it.
    Used,
    /// Space of a file system that is left for ordinary users.
    Free,
    /// Used inodes of a file system.
    InodesUsed,
    /// Inodes of a file system that are left.
    InodesFree,
    /// Load average over one minute.
    Load1,
    /// Load average over five minutes.
    Load5,
    /// Load average over fifteen minutes.
    Load15,
    /// Load average over one minute, per core.
    LoadPerCore,
    /// Share of the machine's CPU time spent waiting for storage.
    IoWait,
    /// Share of the machine's CPU time taken by its hypervisor.
    Steal,
    /// Memory of the machine that is not available.
    MemoryUsed,
    /// Memory of the machine that is available.
    MemoryAvailable,
    /// Used swap space.
    SwapUsed,
    /// Share of the last ten seconds in which something waited for a CPU (PSI).
    CpuPressure,
    /// The same for memory.
    MemoryPressure,
    /// The same for storage.
    IoPressure,
    /// Time since the machine was booted.
    Uptime,
    /// Bytes a network interface received per second since the last sample.
    ReceiveRate,
    /// Bytes a network interface sent per second since the last sample.
    SendRate,
    /// Errors and drops of a network interface since the last sample.
    Errors,
    /// The busier direction of a network interface, as a share of its speed.
    Saturation,
    /// Where the release that a worker runs stands to `current`: current, other, gone.
    Release,
    /// Whether a worker is of an earlier generation than its master's last reload: yes, no.
    Stale,
    /// Workers that said they had booted.
    Booted,
    /// Workers that their master knows of.
    Workers,
    /// Those of another phase than the master's.
    OldWorkers,
    /// Requests that wait for a thread.
    Backlog,
    /// Busy share of all threads.
    Busy,
    /// How many phased restarts a Puma has had since its program began.
    PumaPhase,
    /// Whether workers run more than one release: yes, no.
    Mixed,
    /// A number that a plugin printed, under its own label (`perfdata.LABEL`).
    Perfdata(Arc<str>),
}

impl Metric {
    /// The word in a condition.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Memory => "memory",
            Self::Rss => "rss",
            Self::Private => "private",
            Self::MemoryTotal => "memory_total",
            Self::Cpu => "cpu",
            Self::CpuTotal => "cpu_total",
            Self::Age => "age",
            Self::Threads => "threads",
            Self::Children => "children",
            Self::Fds => "fds",
            Self::ReadRate => "read_rate",
            Self::WriteRate => "write_rate",
            Self::State => "state",
            Self::ResponseTime => "response_time",
            Self::Status => "status",
            Self::Size => "size",
            Self::ExpiresIn => "expires_in",
            Self::Answers => "answers",
            Self::Loss => "loss",
            Self::ExitCode => "exit_code",
            Self::Entries => "entries",
            Self::Matches => "matches",
            Self::Used => "used",
            Self::Free => "free",
            Self::InodesUsed => "inodes_used",
            Self::InodesFree => "inodes_free",
            Self::Load1 => "load1",
            Self::Load5 => "load5",
            Self::Load15 => "load15",
            Self::LoadPerCore => "load_per_core",
            Self::IoWait => "iowait",
            Self::Steal => "steal",
            Self::MemoryUsed => "memory_used",
            Self::MemoryAvailable => "memory_available",
            Self::SwapUsed => "swap_used",
            Self::CpuPressure => "cpu_pressure",
            Self::MemoryPressure => "memory_pressure",
            Self::IoPressure => "io_pressure",
            Self::Uptime => "uptime",
            Self::ReceiveRate => "receive_rate",
            Self::SendRate => "send_rate",
            Self::Errors => "errors",
            Self::Saturation => "saturation",
            Self::Release => "release",
            Self::Stale => "stale",
            Self::Booted => "booted",
            Self::Workers => "workers",
            Self::OldWorkers => "old_workers",
            Self::Backlog => "backlog",
            Self::Busy => "busy",
            Self::PumaPhase => "puma_phase",
            Self::Mixed => "mixed",
            Self::Perfdata(name) => name,
        }
    }

    /// What its numbers are in.
    #[must_use]
    pub fn unit(&self) -> Unit {
        match self {
            Self::Memory
            | Self::Rss
            | Self::Private
            | Self::MemoryTotal
            | Self::Size
            | Self::Free
            | Self::MemoryAvailable => Unit::Bytes,
            Self::Cpu
            | Self::CpuTotal
            | Self::Loss
            | Self::Used
            | Self::InodesUsed
            | Self::IoWait
            | Self::Steal
            | Self::MemoryUsed
            | Self::SwapUsed
            | Self::CpuPressure
            | Self::MemoryPressure
            | Self::IoPressure
            | Self::Saturation
            | Self::Busy => Unit::Percent,
            Self::Age | Self::ResponseTime | Self::ExpiresIn | Self::Uptime => Unit::Duration,
            Self::Threads
            | Self::Children
            | Self::Fds
            | Self::Status
            | Self::Answers
            | Self::ExitCode
            | Self::Entries
            | Self::Matches
            | Self::InodesFree
            | Self::Errors
            | Self::Booted
            | Self::Workers
            | Self::OldWorkers
            | Self::Backlog
            | Self::PumaPhase => Unit::Count,
            Self::ReadRate | Self::WriteRate | Self::ReceiveRate | Self::SendRate => Unit::Rate,
            Self::Load1 | Self::Load5 | Self::Load15 | Self::LoadPerCore => Unit::Decimal,
            Self::State => Unit::Letter,
            Self::Release => Unit::Word(&Place::WORDS),
            Self::Stale | Self::Mixed => Unit::Word(&NO_YES),
            Self::Perfdata(_) => Unit::Any,
        }
    }
}

/// The words of a metric that is so or not; it may stand alone in a condition.
pub const NO_YES: [&str; 2] = ["no", "yes"];

/// What a metric is measured in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the unit of its name")]
pub enum Unit {
    Bytes,
    Percent,
    Duration,
    Count,
    Rate,
    /// A number with up to three decimals.
    Decimal,
    Letter,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Whatever unit it was written with.
    Any,
}

impl Unit {
    /// How a value in this unit is written in a condition.
    #[must_use]
    pub fn example(self) -> &'static str {
        match self {
            Self::Bytes => "650MiB",
            Self::Percent => "95%",
            Self::Duration => "6h",
            Self::Count => "20",
            Self::Rate => "10MB (per second)",
            Self::Decimal => "4.5",
            Self::Letter => "D",
            Self::Word(words) => words.last().copied().unwrap_or_default(),
            Self::Any => "20, 95%, 64MiB or 10s",
        }
    }
}

/// One measured or written number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Value {
    /// Bytes.
    Bytes(u64),
    /// Thousandths of a percent.
    Percent(u64),
    /// A span of time.
    Duration(Duration),
    /// A number of things.
    Count(u64),
    /// Bytes per second.
    Rate(u64),
    /// Thousandths of a number.
    Decimal(u64),
    /// A process state.
    Letter(char),
    /// A word of the metric's own list.
    Word(&'static str),
}

impl Value {
    /// yes or no.
    #[must_use]
    pub fn yes(is: bool) -> Self {
        Self::Word(NO_YES[usize::from(is)])
    }

    /// Its unit; a word's list is the metric's to know.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Word(_) => Unit::Word(&[]),
            Self::Bytes(_) => Unit::Bytes,
            Self::Percent(_) => Unit::Percent,
            Self::Duration(_) => Unit::Duration,
            Self::Count(_) => Unit::Count,
            Self::Rate(_) => Unit::Rate,
            Self::Decimal(_) => Unit::Decimal,
            Self::Letter(_) => Unit::Letter,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => f.write_str(&units::show_size(*bytes)),
            Self::Percent(milli) => f.write_str(&units::show_percent(*milli)),
            Self::Duration(span) => f.write_str(&units::show_duration(*span)),
            Self::Count(count) => write!(f, "{count}"),
            Self::Rate(rate) => write!(f, "{}/s", units::show_size(*rate)),
            Self::Decimal(milli) => f.write_str(&units::show_milli(*milli)),
            Self::Letter(letter) => write!(f, "{letter}"),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// A value as a probe read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// This is the value.
    Exact(Value),
    /// The value is at most this, and a closer look was not needed: PSS is never more than RSS, and
    /// costs far more to read.
    AtMost(Value),
}

impl Reading {
    /// The number, whether exact or an upper bound.
    #[must_use]
    pub fn value(self) -> Value {
        match self {
            Self::Exact(value) | Self::AtMost(value) => value,
        }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(f, "{value}"),
            Self::AtMost(value) => write!(f, "at most {value}"),
        }
    }
}
