//! What is held against a service until it has been healthy for a whole window: heeler's own starts of it,
//! with what is waited for beyond their limit, and its returns from death.

use std::time::Duration;

use crate::model::limits;
use crate::model::memory::BootMemory;
use crate::model::service::{Backoff, StartLimit};
use crate::model::time::Mono;

/// The record of automatic starts of one service. An operator's starts and adopted ones never get here.
#[derive(Clone, Debug, Default)]
pub(crate) struct StartRecord {
    /// Oldest first; none older than the window.
    starts: Vec<Mono>,
    /// Back-offs since the last healthy window.
    backoffs: u32,
    /// Returns from a death since then.
    returns: u32,
    /// Until when the current one lasts.
    until: Option<Mono>,
    /// Since when it has been up without a break.
    healthy_since: Option<Mono>,
}

/// Whether an automatic start may happen now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Permission {
    /// It may.
    Go,
    /// Two starts keep a gap; the next is due then.
    Gap(Mono),
    /// The limit is used up; the next is due then.
    BackOff(Mono),
}

impl StartRecord {
    /// Asks for a start. A back-off begins here, and doubles with each that begins.
    pub(crate) fn ask(&mut self, now: Mono, limit: StartLimit, backoff: Backoff) -> Permission {
        match self.until {
            Some(until) if until > now => return Permission::BackOff(until),
            // The wait is over: one start is free, whatever the window says.
            Some(_) => return Permission::Go,
            None => {}
        }
        self.starts.retain(|start| now.since(*start) < limit.window);
        let last = self.starts.last().copied();
        let used_up = self.starts.len() >= usize::try_from(limit.starts).unwrap_or(usize::MAX);
        // Waits longer than the window would empty it: only health ends the trouble.
        if used_up || self.troubled() {
            let doubled = backoff.first.saturating_mul(2u32.saturating_pow(self.backoffs.min(16)));
            let until = now + doubled.min(backoff.last).max(limits::START_GAP_MIN);
            self.backoffs += 1;
            self.until = Some(until);
            return Permission::BackOff(until);
        }
        match last.map(|last| last + limits::START_GAP_MIN) {
            Some(gap_ends) if gap_ends > now => Permission::Gap(gap_ends),
            Some(_) | None => Permission::Go,
        }
    }

    /// An automatic start was made. Answers which one in the window it is.
    pub(crate) fn started(&mut self, now: Mono, limit: StartLimit) -> usize {
        self.starts.retain(|start| now.since(*start) < limit.window);
        let bound = usize::try_from(limit.starts).unwrap_or(usize::MAX).min(STARTS_KEPT_MAX);
        if self.starts.len() >= bound {
            self.starts.remove(0);
        }
        self.starts.push(now);
        self.until = None;
        self.healthy_since = None;
        self.starts.len()
    }

    /// It is there again after a death that was nobody's wish.
    pub(crate) fn returned(&mut self) {
        self.returns = self.returns.saturating_add(1);
    }

    /// Which death this would be since it was last healthy for a window, if it is one of many.
    pub(crate) fn one_of_many(&self) -> Option<u32> {
        (self.returns >= limits::RETURNS_ORDINARY).then(|| self.returns.saturating_add(1))
    }

    /// Whether it dies again and again: to be up for a moment is no health then.
    pub(crate) fn restless(&self) -> bool {
        self.returns > limits::RETURNS_ORDINARY
    }

    /// It is up.
    pub(crate) fn up(&mut self, now: Mono) {
        self.healthy_since.get_or_insert(now);
    }

    /// It is not up any more.
    pub(crate) fn down(&mut self) {
        self.healthy_since = None;
    }

    /// Forgets, after one full window of health. Answers whether there was anything to forget.
    pub(crate) fn forgive(&mut self, now: Mono, window: Duration) -> bool {
        let healthy = self.healthy_since.is_some_and(|since| now.since(since) >= window);
        let any = self.troubled() || self.returns > 0 || !self.starts.is_empty();
        let forgives = healthy && any;
        if forgives {
            *self = Self { healthy_since: self.healthy_since, ..Self::default() };
        }
        forgives
    }

    /// An operator took it in hand: the current wait is off.
    pub(crate) fn overrule(&mut self) {
        self.until = None;
    }

    /// Whether it had to back off since it was last healthy for a window.
    pub(crate) fn troubled(&self) -> bool {
        self.backoffs > 0
    }

    /// Whether the current wait is the first since it was last healthy for a window.
    pub(crate) fn first_backoff(&self) -> bool {
        self.backoffs == 1
    }

    /// What survives the keeper.
    pub(crate) fn remember(&self, memory: &mut BootMemory) {
        memory.starts.clone_from(&self.starts);
        memory.backoffs = self.backoffs;
        memory.returns = self.returns;
        memory.backoff_until = self.until;
        memory.healthy_since = self.healthy_since;
    }

    /// Takes up what an earlier keeper remembered.
    pub(crate) fn recall(memory: &BootMemory) -> Self {
        Self {
            starts: memory.starts.clone(),
            backoffs: memory.backoffs,
            returns: memory.returns,
            until: memory.backoff_until,
            healthy_since: memory.healthy_since,
        }
    }
}

/// A limit of a million starts is no reason to remember a million.
const STARTS_KEPT_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: StartLimit = StartLimit { starts: 3, window: Duration::from_secs(600) };
    const BACKOFF: Backoff =
        Backoff { first: Duration::from_secs(30), last: Duration::from_secs(100) };

    fn at(secs: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn beyond_the_limit_the_wait_doubles_to_its_bound() {
        let mut record = StartRecord::default();
        for secs in [0, 2, 4] {
            assert_eq!(record.ask(at(secs), LIMIT, BACKOFF), Permission::Go);
            record.started(at(secs), LIMIT);
        }
        let mut now = 6;
        for wait in [30, 60, 100, 100] {
            assert_eq!(record.ask(at(now), LIMIT, BACKOFF), Permission::BackOff(at(now + wait)));
            assert_eq!(
                record.ask(at(now + 1), LIMIT, BACKOFF),
                Permission::BackOff(at(now + wait))
            );
            now += wait;
            assert_eq!(record.ask(at(now), LIMIT, BACKOFF), Permission::Go);
            record.started(at(now), LIMIT);
            now += 1;
        }
    }

    #[test]
    fn a_wait_longer_than_the_window_is_no_health() {
        let mut record = StartRecord::default();
        for secs in [0, 2, 4] {
            record.started(at(secs), LIMIT);
        }
        assert_eq!(record.ask(at(6), LIMIT, BACKOFF), Permission::BackOff(at(36)));
        record.started(at(1000), LIMIT);
        assert_eq!(record.ask(at(2000), LIMIT, BACKOFF), Permission::BackOff(at(2060)));
    }

    #[test]
    fn a_gap_is_kept_and_a_healthy_window_forgives() {
        let mut record = StartRecord::default();
        record.started(at(10), LIMIT);
        assert_eq!(record.ask(at(10), LIMIT, BACKOFF), Permission::Gap(at(11)));
        record.started(at(12), LIMIT);
        record.started(at(14), LIMIT);
        assert_eq!(record.ask(at(16), LIMIT, BACKOFF), Permission::BackOff(at(46)));
        record.started(at(46), LIMIT);
        record.up(at(47));
        assert!(!record.forgive(at(640), LIMIT.window));
        assert!(record.troubled());
        assert!(record.forgive(at(647), LIMIT.window));
        assert!(!record.troubled());
        assert_eq!(record.ask(at(648), LIMIT, BACKOFF), Permission::Go);
    }
}
