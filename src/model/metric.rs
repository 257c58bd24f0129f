//! Named numbers with units. All are whole numbers: the engine has no floats.

use std::fmt;
use std::time::Duration;

use crate::model::units;

/// A named number that a condition may use. Which check type measures which is that type's word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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
}

impl Metric {
    /// The word in a condition.
    #[must_use]
    pub fn name(self) -> &'static str {
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
        }
    }

    /// What its numbers are in.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Memory | Self::Rss | Self::Private | Self::MemoryTotal => Unit::Bytes,
            Self::Cpu | Self::CpuTotal => Unit::Percent,
            Self::Age => Unit::Duration,
            Self::Threads | Self::Children | Self::Fds => Unit::Count,
            Self::ReadRate | Self::WriteRate => Unit::Rate,
            Self::State => Unit::Letter,
        }
    }
}

/// What a metric is measured in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the unit of its name")]
pub enum Unit {
    Bytes,
    Percent,
    Duration,
    Count,
    Rate,
    Letter,
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
            Self::Letter => "D",
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
    /// A process state.
    Letter(char),
}

impl Value {
    /// Its unit.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Bytes(_) => Unit::Bytes,
            Self::Percent(_) => Unit::Percent,
            Self::Duration(_) => Unit::Duration,
            Self::Count(_) => Unit::Count,
            Self::Rate(_) => Unit::Rate,
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
            Self::Letter(letter) => write!(f, "{letter}"),
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
