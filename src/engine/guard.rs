//! The guard of workers: which one may be taken away, and which may not, whatever a rule or a person says.
//!
//! No rule takes away the last capacity a service has. So nobody goes while another is not ready (it may
//! never be: old workers of a release whose successor cannot boot are all there is), nor while one that
//! went has no successor yet, nor when fewer than `min` would serve. One that serves nothing is no
//! capacity: it may go while the others are enough.

use std::fmt;

use crate::model::crew::{Duty, Member};
use crate::model::process::{Ours, ProcessIdentity};

/// Why a worker may not be taken away now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// It is not there any more.
    Gone,
    /// It is another user's.
    Foreign,
    /// Another one is not ready.
    Unbooted(ProcessIdentity),
    /// So many are on their way, and were not seen.
    Coming(usize),
    /// One that went has no successor yet.
    Missing {
        /// As many are there.
        there: usize,
        /// As many should be.
        wanted: usize,
    },
    /// Too few would serve.
    TooFew {
        /// As many would.
        serving: usize,
        /// As many have to.
        min: usize,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it is not there any more"),
            Self::Foreign => f.write_str("it belongs to another user"),
            Self::Unbooted(other) => write!(f, "worker {other} is not ready, and may never be"),
            Self::Coming(count) => {
                write!(f, "{count} more not ready by their master's word, and may never be")
            }
            Self::Missing { there, wanted } => {
                write!(f, "only {there} of {wanted} workers are there")
            }
            Self::TooFew { serving, min } => {
                write!(f, "only {serving} would serve without it, and min is {min}")
            }
        }
    }
}

/// Whether `target` may be taken away. `coming`: how many there are by their master's word that nobody
/// saw; `wanted`: how many workers there should be.
pub(crate) fn may_go(
    (crew, coming): (&[Member], usize),
    target: ProcessIdentity,
    min: usize,
    wanted: usize,
) -> Result<(), Refusal> {
    let Some(member) = crew.iter().find(|member| member.identity == target) else {
        return Err(Refusal::Gone);
    };
    if member.ours != Ours::Proved {
        return Err(Refusal::Foreign);
    }
    let others = || crew.iter().filter(|other| other.identity != target);
    if let Some(other) = others().find(|other| other.duty == Duty::Boots) {
        return Err(Refusal::Unbooted(other.identity));
    }
    if coming > 0 {
        return Err(Refusal::Coming(coming));
    }
    if crew.len() < wanted {
        return Err(Refusal::Missing { there: crew.len(), wanted });
    }
    let serving = others().filter(|other| other.duty == Duty::Serves).count();
    if serving < min {
        return Err(Refusal::TooFew { serving, min });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::crew::Leaving;
    use crate::model::observation::Observation;
    use crate::model::process::Pid;

    fn identity(pid: i32) -> ProcessIdentity {
        ProcessIdentity { pid: Pid(pid), started_ticks: 7 }
    }

    /// `s`erves, `b`oots, `f`rozen, `x`: another user's; numbered from 1.
    fn crew(letters: &str) -> Vec<Member> {
        let member = |(n, letter): (i32, char)| Member {
            identity: identity(n),
            title: "worker".into(),
            ours: if letter == 'x' { Ours::Foreign } else { Ours::Proved },
            age_ms: 1000,
            duty: match letter {
                'b' => Duty::Boots,
                'f' => Duty::Frozen,
                _ => Duty::Serves,
            },
            leaving: Leaving::No,
            fragile: None,
            release: None,
            seen: Observation::ok(),
        };
        (1..).zip(letters.chars()).map(member).collect()
    }

    #[test]
    fn the_last_capacity_stays() {
        use Refusal::{Foreign, Gone, Missing, TooFew, Unbooted};
        for (letters, target, min, wanted, expected) in [
            ("sss", 1, 2, 3, Ok(())),
            ("sss", 1, 3, 3, Err(TooFew { serving: 2, min: 3 })),
            ("s", 1, 1, 1, Err(TooFew { serving: 0, min: 1 })),
            ("s", 1, 0, 1, Ok(())),
            // A frozen one is no capacity: it may go while the others are enough, and is not counted.
            ("fss", 1, 2, 3, Ok(())),
            ("fss", 2, 2, 3, Err(TooFew { serving: 1, min: 2 })),
            ("ff", 1, 1, 2, Err(TooFew { serving: 0, min: 1 })),
            // While one is not ready, be it for ever, all others stay.
            ("bss", 2, 1, 3, Err(Unbooted(identity(1)))),
            ("bss", 3, 0, 3, Err(Unbooted(identity(1)))),
            ("bfs", 2, 0, 3, Err(Unbooted(identity(1)))),
            // The one that is not ready may go itself: it serves nobody.
            ("bss", 1, 2, 3, Ok(())),
            // One went, and its successor is not there yet.
            ("ss", 1, 1, 3, Err(Missing { there: 2, wanted: 3 })),
            ("xss", 1, 1, 3, Err(Foreign)),
            ("xss", 2, 1, 3, Ok(())),
            ("sss", 9, 1, 3, Err(Gone)),
            ("", 1, 0, 0, Err(Gone)),
        ] {
            let seen = may_go((&crew(letters), 0), identity(target), min, wanted);
            assert_eq!(seen, expected, "{letters} {target} min {min} wanted {wanted}");
        }
    }

    #[test]
    fn who_dies_at_boot_before_anybody_looks_counts() {
        let refused = may_go((&crew("sss"), 1), identity(1), 1, 3);
        assert_eq!(refused, Err(Refusal::Coming(1)));
        assert_eq!(may_go((&crew("sss"), 0), identity(1), 1, 3), Ok(()));
    }
}
