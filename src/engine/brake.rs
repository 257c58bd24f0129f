//! The host brake: how much heeler takes away by itself of what runs on this machine, all services together.
//!
//! Trouble of the machine (a network that is gone, a disk that is full, a clock that jumped) looks like
//! trouble of every service. To restart them all mends none, and takes away what still serves. What is down
//! is brought up whatever this brake says: nobody is harmed by that.

use std::time::Duration;

use crate::engine::Cx;
use crate::engine::state::State;
use crate::model::limits;
use crate::model::time::Mono;
use crate::model::workers::Budget;

/// What was taken away by restarts that rules asked for, and of workers.
#[derive(Debug)]
pub(crate) struct Brake {
    budget: Budget,
    /// When, oldest first; none older than the window.
    taken: Vec<Mono>,
}

impl Default for Brake {
    fn default() -> Self {
        Self { budget: limits::HOST_BRAKE, taken: Vec::new() }
    }
}

impl Brake {
    /// So much is normal from now on. What was taken before counts.
    pub(crate) fn set(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// Asks for one more.
    ///
    /// # Errors
    ///
    /// When the next may be taken.
    pub(crate) fn ask(&mut self, now: Mono) -> Result<(), Mono> {
        self.taken.retain(|at| now.since(*at) < self.budget.window);
        let over = (self.taken.len() + 1).checked_sub(self.bound()).filter(|over| *over > 0);
        match over.and_then(|over| self.taken.get(over - 1)) {
            Some(first) => Err(*first + self.budget.window),
            None => Ok(()),
        }
    }

    /// One was taken. It gets a moment of its own: several at once are several, and each is known again by it.
    pub(crate) fn took(&mut self, now: Mono) -> Mono {
        let mut at = now;
        while self.taken.binary_search(&at).is_ok() {
            at = at + Duration::from_nanos(1);
        }
        self.insert(at);
        at
    }

    /// One was taken then, as a service remembers: by an earlier keeper, or by this one before the service
    /// got another name, which counts once.
    pub(crate) fn recall(&mut self, at: Mono) {
        if self.taken.binary_search(&at).is_err() {
            self.insert(at);
        }
    }

    fn insert(&mut self, at: Mono) {
        let place = self.taken.partition_point(|other| *other <= at);
        self.taken.insert(place, at);
        let over = self.taken.len().saturating_sub(limits::HOST_BRAKE_KEPT_MAX);
        self.taken.drain(..over);
    }

    /// What it says when it holds somebody back.
    pub(crate) fn words(&self) -> String {
        format!(
            "the host brake of {} is used up (so much was restarted by rules or taken away of workers on \
             this machine), which looks like trouble of the machine",
            self.budget
        )
    }

    fn bound(&self) -> usize {
        let bound = usize::try_from(self.budget.actions).unwrap_or(usize::MAX);
        bound.min(limits::HOST_BRAKE_KEPT_MAX)
    }
}

impl State {
    /// Something of it is taken away without an order: it counts for all, and is remembered.
    pub(super) fn takes_away(&mut self, cx: &mut Cx<'_>) {
        let at = cx.brake.took(cx.now.mono);
        self.braked.push(at);
        let over = self.braked.len().saturating_sub(limits::HOST_BRAKE_REMEMBERED_MAX);
        self.braked.drain(..over);
        cx.dirty = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(secs: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn beyond_its_budget_it_says_when_the_next_may_be_taken() {
        let mut brake = Brake::default();
        brake.set(Budget { actions: 2, window: Duration::from_secs(60) });
        assert_eq!(brake.ask(at(0)), Ok(()));
        brake.took(at(20));
        // Of an earlier keeper, heard of later; and again, of a service that got another name.
        brake.recall(at(10));
        brake.recall(at(10));
        assert_eq!(brake.ask(at(30)), Err(at(70)));
        assert_eq!(brake.ask(at(69)), Err(at(70)));
        assert_eq!(brake.ask(at(70)), Ok(()));
        // A smaller budget counts what was taken before.
        brake.took(at(70));
        brake.took(at(71));
        brake.set(Budget { actions: 1, window: Duration::from_secs(60) });
        assert_eq!(brake.ask(at(75)), Err(at(131)));
    }

    #[test]
    fn what_it_remembers_is_bounded() {
        let mut brake = Brake::default();
        brake.set(Budget { actions: 1_000_000, window: Duration::from_secs(60) });
        let moments = limits::HOST_BRAKE_KEPT_MAX as u64 + 10;
        for moment in 0..moments {
            brake.took(at(1) + Duration::from_nanos(moment));
        }
        assert_eq!(brake.taken.len(), limits::HOST_BRAKE_KEPT_MAX);
        assert_eq!(brake.ask(at(2)), Err(at(61) + Duration::from_nanos(10)));
    }
}
