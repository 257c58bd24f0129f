//! What can go wrong. Each seed draws a subset with rates; everything that happened is counted.

use std::collections::BTreeMap;

use crate::prng::Rng;

/// One kind of trouble.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    Crash,
    OrderlyExit,
    Deploy,
    Hang,
    Unkillable,
    SlowStart,
    FailingStart,
    HangingStart,
    LateDaemon,
    NotExecuted,
    JobLost,
    StopFails,
    RestartFails,
    ReloadInPlace,
    LostExit,
    DoubleExit,
    LateAnswer,
    MissingAnswer,
    Unidentifiable,
    RefusedSignal,
    ForeignPidfile,
    PidReuse,
    PidfileRemoved,
    Survivors,
    MemoryGrowth,
    UnknownSample,
    Operator,
    SecondCopy,
    ClockJump,
    WallJump,
    LateTick,
    KeeperKill,
    KillBetween,
    SlowStore,
    FailingSurvey,
    ManagerAtWork,
    Reload,
    // Of workers.
    WorkerLeaks,
    StuckWorker,
    FrozenWorker,
    FragileWorker,
    ForeignWorker,
    WorkerCrash,
    NoSuccessor,
    CrewUnseen,
    CrewAnswerLate,
    CrewAnswerMissing,
    CrewOperator,
    BadRelease,
    PumaMute,
    PumaIdle,
    DeadlyReload,
    GrowsInReload,
    HangingRelease,
}

impl Fault {
    pub(crate) const ALL: [Self; 37] = [
        Self::Crash,
        Self::OrderlyExit,
        Self::Deploy,
        Self::Hang,
        Self::Unkillable,
        Self::SlowStart,
        Self::FailingStart,
        Self::HangingStart,
        Self::LateDaemon,
        Self::NotExecuted,
        Self::JobLost,
        Self::StopFails,
        Self::RestartFails,
        Self::ReloadInPlace,
        Self::LostExit,
        Self::DoubleExit,
        Self::LateAnswer,
        Self::MissingAnswer,
        Self::Unidentifiable,
        Self::RefusedSignal,
        Self::ForeignPidfile,
        Self::PidReuse,
        Self::PidfileRemoved,
        Self::Survivors,
        Self::MemoryGrowth,
        Self::UnknownSample,
        Self::Operator,
        Self::SecondCopy,
        Self::ClockJump,
        Self::WallJump,
        Self::LateTick,
        Self::KeeperKill,
        Self::KillBetween,
        Self::SlowStore,
        Self::FailingSurvey,
        Self::ManagerAtWork,
        Self::Reload,
    ];

    /// Those of workers, drawn from a stream of their own.
    pub(crate) const CREW: [Self; 17] = [
        Self::WorkerLeaks,
        Self::StuckWorker,
        Self::FrozenWorker,
        Self::FragileWorker,
        Self::ForeignWorker,
        Self::WorkerCrash,
        Self::NoSuccessor,
        Self::CrewUnseen,
        Self::CrewAnswerLate,
        Self::CrewAnswerMissing,
        Self::CrewOperator,
        Self::BadRelease,
        Self::PumaMute,
        Self::PumaIdle,
        Self::DeadlyReload,
        Self::GrowsInReload,
        Self::HangingRelease,
    ];

    /// Those that strike at a moment of their own; the others lie in wait for something to spoil.
    pub(crate) const MISCHIEF: [Self; 17] = [
        Self::Crash,
        Self::OrderlyExit,
        Self::Deploy,
        Self::Hang,
        Self::Unkillable,
        Self::Unidentifiable,
        Self::RefusedSignal,
        Self::ForeignPidfile,
        Self::PidReuse,
        Self::PidfileRemoved,
        Self::MemoryGrowth,
        Self::UnknownSample,
        Self::SecondCopy,
        Self::ClockJump,
        Self::WallJump,
        Self::KeeperKill,
        Self::Reload,
    ];
}

/// The faults of one seed.
#[derive(Debug)]
pub(crate) struct Faults {
    /// How readily each strikes: its own permille times this, in percent.
    rates: BTreeMap<Fault, u64>,
    pub(crate) counts: BTreeMap<Fault, u64>,
    pub(crate) calm: bool,
}

impl Faults {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let share = rng.pick(&[100, 300, 500, 800]);
        let rates = Fault::ALL.into_iter().filter(|_| rng.chance(share)).collect::<Vec<_>>();
        let rates = rates.into_iter().map(|fault| (fault, rng.pick(&[30, 100, 200]))).collect();
        Self { rates, counts: BTreeMap::new(), calm: false }
    }

    /// Those of workers beside them.
    pub(crate) fn draw_crew(&mut self, rng: &mut Rng) {
        let share = rng.pick(&[100, 300, 500, 800]);
        for fault in Fault::CREW {
            if rng.chance(share) {
                self.rates.insert(fault, rng.pick(&[30, 100, 200]));
            }
        }
    }

    /// Whether it strikes here, where it would in so many of a thousand cases.
    pub(crate) fn strikes(&mut self, rng: &mut Rng, fault: Fault, permille: u64) -> bool {
        let rate = self.rates.get(&fault).copied().unwrap_or(0);
        let strikes = !self.calm && rate > 0 && rng.chance(permille * rate / 100);
        if strikes {
            *self.counts.entry(fault).or_default() += 1;
        }
        strikes
    }

    /// One of those that strike by themselves, if this seed has any.
    pub(crate) fn mischief(&mut self, rng: &mut Rng) -> Option<Fault> {
        let mine: Vec<_> =
            Fault::MISCHIEF.into_iter().filter(|fault| self.rates.contains_key(fault)).collect();
        if self.calm || mine.is_empty() {
            return None;
        }
        Some(rng.pick(&mine))
    }

    pub(crate) fn count(&mut self, fault: Fault) {
        *self.counts.entry(fault).or_default() += 1;
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        !self.calm && self.rates.contains_key(&fault)
    }
}
