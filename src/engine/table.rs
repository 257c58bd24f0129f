//! Desired x where x class: the whole decision of the lifecycle in one table.
//!
//! An input is first classified, then looked up here, then carried out by `lifecycle`. The table knows
//! no data: a cell says what kind of thing happens, never to whom. Every cell is spelled out; what
//! cannot happen is `Impossible`, which is counted and shown, and does nothing.

use crate::model::intent::Desired;

/// Where a service is. `Absent` and `Present` are the phase "watching", without and with a main process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Where {
    /// Watching; there is no main process.
    Absent,
    /// Watching; its main process is held.
    Present,
    /// Its main process is gone; what it left is waited for, and a successor.
    Clearing,
    /// A start is under way.
    Starting,
    /// Its main process is new: actions are held.
    StartPeriod,
    /// Its main process was told to go.
    Stopping,
    /// Its main process was sent KILL.
    Killing,
    /// The next start waits.
    Backoff,
}

impl Where {
    /// Every place, for coverage.
    pub const ALL: [Self; 8] = [
        Self::Absent,
        Self::Present,
        Self::Clearing,
        Self::Starting,
        Self::StartPeriod,
        Self::Stopping,
        Self::Killing,
        Self::Backoff,
    ];
}

/// What kind of thing happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// A living, acceptable process was identified, other than the one held.
    Appeared,
    /// There is none.
    Missing,
    /// The held main process is gone.
    Died,
    /// Everything waited for in clearing is over.
    Cleared,
    /// The start ended without a process.
    StartFailed,
    /// What this phase waits for is overdue.
    Late,
    /// An operator or a rule wants it started.
    WishStart,
    /// An operator or a rule wants it down; `desired` says so already.
    WishStop,
    /// An operator or a rule wants it restarted.
    WishRestart,
    /// An operator or a rule wants it reloaded.
    WishReload,
    /// It is to be left alone; `desired` says so already.
    WishLeave,
}

impl Class {
    /// Every class, for coverage.
    pub const ALL: [Self; 11] = [
        Self::Appeared,
        Self::Missing,
        Self::Died,
        Self::Cleared,
        Self::StartFailed,
        Self::Late,
        Self::WishStart,
        Self::WishStop,
        Self::WishRestart,
        Self::WishReload,
        Self::WishLeave,
    ];
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Move {
    /// Nothing; what is under way goes on.
    Hold,
    /// Take the process as the main one; its start period begins.
    Adopt,
    /// The same, and say that it was wanted down. Never a reason to kill.
    AdoptUnwanted,
    /// Take it, and stop it: heeler's own start came up after somebody said stop.
    AdoptAndStop,
    /// Begin clearing.
    Clear,
    /// Start, within the start limit.
    Start,
    /// Start, whatever the limit says: a person asked.
    StartNow,
    /// Stop, and then do what is desired.
    Stop,
    /// Have it reload; whatever is desired goes on.
    Reload,
    /// Send KILL; after a stop command that did not help, begin the ladder.
    Kill,
    /// KILL did not help: say so, look again, start no second copy.
    Unkillable,
    /// The start failed: tell, and try again within the limit.
    Retry,
    /// The start period is over.
    Settle,
    /// Watch, without a main process.
    Rest,
    /// Not possible: counted and shown.
    Impossible,
}

/// The table.
#[expect(clippy::match_same_arms, reason = "a table is read by its rows")]
pub fn decide(desired: Desired, at: Where, class: Class) -> Move {
    use Class as C;
    use Desired::{Down, Unmonitored, Up};
    use Where as W;
    match (at, class, desired) {
        // A process is there.
        (W::Absent | W::Present | W::StartPeriod, C::Appeared, Up | Unmonitored) => Move::Adopt,
        (W::Clearing | W::Starting | W::Backoff, C::Appeared, Up | Unmonitored) => Move::Adopt,
        (W::Absent | W::Clearing | W::Backoff, C::Appeared, Down) => Move::AdoptUnwanted,
        (W::Starting, C::Appeared, Down) => Move::AdoptAndStop,
        (W::Present | W::StartPeriod, C::Appeared, Down) => Move::AdoptUnwanted,
        (W::Stopping | W::Killing, C::Appeared, _) => Move::Hold,

        // There is none.
        (W::Absent, C::Missing, Up) => Move::Clear,
        (W::Absent, C::Missing, Down | Unmonitored) => Move::Hold,
        // A held process without a claim goes on being held: its pidfd is better proof than a file.
        (W::Present | W::StartPeriod | W::Stopping | W::Killing, C::Missing, _) => Move::Hold,
        (W::Clearing | W::Starting | W::Backoff, C::Missing, _) => Move::Hold,

        // The main process is gone.
        (W::Present | W::StartPeriod, C::Died, Up) => Move::Clear,
        (W::Present | W::StartPeriod, C::Died, Down | Unmonitored) => Move::Rest,
        (W::Stopping | W::Killing, C::Died, _) => Move::Clear,
        // A restart command takes the old process away; the new one is still awaited.
        (W::Starting, C::Died, _) => Move::Hold,
        (W::Absent | W::Clearing | W::Backoff, C::Died, _) => Move::Impossible,

        // Nothing is left of the old one.
        (W::Clearing, C::Cleared, Up) => Move::Start,
        (W::Clearing, C::Cleared, Down | Unmonitored) => Move::Rest,
        (_, C::Cleared, _) => Move::Impossible,

        // A start came to nothing.
        (W::Starting, C::StartFailed, Up) => Move::Retry,
        (W::Starting, C::StartFailed, Down | Unmonitored) => Move::Rest,
        (_, C::StartFailed, _) => Move::Impossible,

        // Overdue.
        (W::StartPeriod, C::Late, _) => Move::Settle,
        (W::Starting, C::Late, Up) => Move::Retry,
        (W::Starting, C::Late, Down | Unmonitored) => Move::Rest,
        (W::Stopping, C::Late, _) => Move::Kill,
        (W::Killing, C::Late, _) => Move::Unkillable,
        // Somebody may have started it while we waited: clearing looks before it starts.
        (W::Backoff, C::Late, Up) => Move::Clear,
        (W::Backoff, C::Late, Down | Unmonitored) => Move::Rest,
        (W::Absent | W::Present | W::Clearing, C::Late, _) => Move::Impossible,

        // Start it.
        (W::Absent | W::Backoff, C::WishStart | C::WishRestart, Up) => Move::StartNow,
        (W::Present, C::WishStart, Up) => Move::Hold,
        (W::StartPeriod, C::WishStart, Up) => Move::Hold,
        (W::Clearing | W::Starting | W::Stopping | W::Killing, C::WishStart, Up) => Move::Hold,

        // Restart it. One that is being started or cleared up is as good as restarted.
        (W::Present | W::StartPeriod, C::WishRestart, Up) => Move::Stop,
        (W::Clearing | W::Starting | W::Stopping | W::Killing, C::WishRestart, Up) => Move::Hold,

        // Reload it. Who asks that of what is not there, or not wanted up, is told so before.
        (W::Present | W::StartPeriod, C::WishReload, Up | Unmonitored) => Move::Reload,
        (W::Present | W::StartPeriod, C::WishReload, Down) => Move::Impossible,
        (W::Absent | W::Clearing | W::Starting | W::Backoff, C::WishReload, _) => Move::Impossible,
        (W::Stopping | W::Killing, C::WishReload, _) => Move::Impossible,

        // Stop it.
        (W::Present | W::StartPeriod, C::WishStop, Down) => Move::Stop,
        (W::Absent, C::WishStop, Down) => Move::Hold,
        (W::Backoff, C::WishStop, Down) => Move::Rest,
        // A start under way is stopped as soon as there is something to stop.
        (W::Clearing | W::Starting | W::Stopping | W::Killing, C::WishStop, Down) => Move::Hold,

        // Leave it alone.
        (W::Backoff, C::WishLeave, Unmonitored) => Move::Rest,
        (W::Absent | W::Present | W::StartPeriod, C::WishLeave, Unmonitored) => Move::Hold,
        (W::Clearing | W::Starting | W::Stopping | W::Killing, C::WishLeave, Unmonitored) => {
            Move::Hold
        }

        // A wish changes `desired` first.
        (_, C::WishStart | C::WishRestart, Down | Unmonitored) => Move::Impossible,
        (_, C::WishStop, Up | Unmonitored) => Move::Impossible,
        (_, C::WishLeave, Up | Down) => Move::Impossible,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESIRED: [Desired; 3] = [Desired::Up, Desired::Down, Desired::Unmonitored];

    fn cells() -> impl Iterator<Item = (Desired, Where, Class, Move)> {
        DESIRED.into_iter().flat_map(|desired| {
            Where::ALL.into_iter().flat_map(move |at| {
                Class::ALL
                    .into_iter()
                    .map(move |class| (desired, at, class, decide(desired, at, class)))
            })
        })
    }

    #[test]
    fn nothing_is_started_that_is_not_wanted_up() {
        for (desired, at, class, what) in cells() {
            if matches!(what, Move::Start | Move::StartNow | Move::Retry) {
                assert_eq!(desired, Desired::Up, "{at:?} {class:?}");
            }
        }
    }

    #[test]
    fn nothing_is_stopped_unless_somebody_said_so() {
        for (desired, at, class, what) in cells() {
            if what == Move::Stop {
                assert!(
                    matches!(class, Class::WishStop | Class::WishRestart),
                    "{desired:?} {at:?} {class:?}"
                );
            }
            if what == Move::Kill {
                assert_eq!((at, class), (Where::Stopping, Class::Late));
            }
            if what == Move::AdoptAndStop {
                assert_eq!((desired, at), (Desired::Down, Where::Starting));
            }
        }
    }

    #[test]
    fn no_second_copy_is_started_beside_a_living_one() {
        let living = [Where::Present, Where::StartPeriod, Where::Stopping, Where::Killing];
        for (_, at, class, what) in cells() {
            if living.contains(&at) {
                assert!(!matches!(what, Move::Start | Move::StartNow), "{at:?} {class:?}");
            }
        }
    }
}
