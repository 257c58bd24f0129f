//! Whether the scout itself was late: then a target that seems to be late may not be.

use std::time::{Duration, Instant};

use crate::model::limits;

/// How often the pulse is felt while probes are in flight.
const BEAT: Duration = Duration::from_millis(100);

/// The loop's pulse: a beat that comes late is a loop that did not run.
#[derive(Debug)]
pub(super) struct Pulse {
    next: Instant,
    /// When it was late last.
    late_at: Option<Instant>,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now + BEAT, late_at: None }
    }

    /// Nothing was in flight until now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.next = now + BEAT;
    }

    /// When the next beat is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// The loop runs.
    pub(super) fn beat(&mut self, now: Instant) {
        if now.saturating_duration_since(self.next) > limits::LATE {
            self.late_at = Some(now);
        }
        self.next = now + BEAT;
    }

    /// Whether it was late at some moment since then, or is now.
    pub(super) fn late_since(&self, since: Instant, now: Instant) -> bool {
        self.late_at.is_some_and(|at| at >= since)
            || now.saturating_duration_since(self.next) > limits::LATE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_did_not_run_is_remembered() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut pulse = Pulse::new(start);
        pulse.beat(ms(110));
        assert!(!pulse.late_since(start, ms(200)));
        assert!(pulse.late_since(start, ms(900)), "it is late at this moment");
        pulse.beat(ms(900));
        assert!(pulse.late_since(ms(800), ms(950)));
        assert!(!pulse.late_since(ms(910), ms(950)), "it was before");
    }
}
