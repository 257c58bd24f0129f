//! From verdicts to a rule state: the `for` and the `recover` of one check.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::status::RuleState;
use crate::model::time::Mono;
use crate::model::tolerance::Tolerance;

/// The last verdicts of one check. Unknown verdicts never get here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    bad: Run,
    good: Run,
    firing: Firing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Firing {
    #[default]
    No,
    Yes,
}

/// What one more verdict changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Change {
    /// Nothing that anybody need hear of.
    None,
    /// The tolerance is met, and was not firing before.
    Fired,
    /// The tolerance is met again while firing: the last action did not mend it.
    StillFiring,
    /// Enough good verdicts after firing.
    Resolved,
}

/// The verdicts of one kind: whether each of the last `m` was of it, and how long without a break.
#[derive(Clone, Debug, Default)]
struct Run {
    recent: VecDeque<bool>,
    unbroken: u32,
    since: Option<Mono>,
    last: Option<Mono>,
}

impl Window {
    /// Takes one verdict: `bad` when the condition held.
    pub(crate) fn push(
        &mut self,
        now: Mono,
        bad: bool,
        (tolerance, recover): (Tolerance, Tolerance),
        every: Duration,
    ) -> Change {
        self.bad.push(now, bad, every, tolerance);
        self.good.push(now, !bad, every, recover);
        match self.firing {
            Firing::No if self.bad.meets(now, tolerance) => {
                self.firing = Firing::Yes;
                self.bad = Run::default();
                self.good = Run::default();
                Change::Fired
            }
            Firing::Yes if self.good.meets(now, recover) => {
                self.firing = Firing::No;
                self.bad = Run::default();
                self.good = Run::default();
                Change::Resolved
            }
            Firing::Yes if self.bad.meets(now, tolerance) => {
                self.bad = Run::default();
                Change::StillFiring
            }
            Firing::No | Firing::Yes => Change::None,
        }
    }

    /// Empties the window: an action ended, or another process is judged now. Firing stays firing.
    pub(crate) fn clear(&mut self) {
        self.bad = Run::default();
        self.good = Run::default();
    }

    /// Takes up where an earlier keeper was: its incident is still open.
    pub(crate) fn resume_firing(&mut self) {
        self.firing = Firing::Yes;
    }

    /// ok, pending or firing.
    pub(crate) fn state(&self) -> RuleState {
        match self.firing {
            Firing::Yes => RuleState::Firing,
            Firing::No if self.bad.recent.iter().any(|bad| *bad) => RuleState::Pending,
            Firing::No => RuleState::Ok,
        }
    }

    /// `2 of the last 3`: for people, while pending or firing.
    pub(crate) fn progress(&self) -> (usize, usize) {
        (self.bad.recent.iter().filter(|bad| **bad).count(), self.bad.recent.len())
    }
}

impl Run {
    fn push(&mut self, now: Mono, of_it: bool, every: Duration, tolerance: Tolerance) {
        let window = match tolerance {
            Tolerance::Times { m, .. } => usize::from(m),
            Tolerance::Lasting(_) => 1,
        };
        self.recent.push_back(of_it);
        while self.recent.len() > window {
            self.recent.pop_front();
        }
        // A gap over two intervals proves nothing about the time between.
        let gap = self.last.is_some_and(|last| now.since(last) > every * 2 + every / 2);
        self.last = Some(now);
        if !of_it {
            (self.unbroken, self.since) = (0, None);
        } else if gap || self.since.is_none() {
            (self.unbroken, self.since) = (1, Some(now));
        } else {
            self.unbroken += 1;
        }
    }

    fn meets(&self, now: Mono, tolerance: Tolerance) -> bool {
        match tolerance {
            Tolerance::Times { n, .. } => {
                let of_it = self.recent.iter().filter(|is| **is).count();
                // Only a verdict of this kind may tip it: a good one never fires a check.
                self.recent.back() == Some(&true) && of_it >= usize::from(n)
            }
            Tolerance::Lasting(span) => {
                self.unbroken >= 2 && self.since.is_some_and(|since| now.since(since) >= span)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `b` (bad), `g` (good), one a second, `.` a second without a verdict; answers with one
    /// letter per verdict: `F`ired, `S`till firing, `R`esolved, `-` nothing.
    fn check(tolerance: &str, recover: &str, verdicts: &str, expected: &str) {
        let parse = |text| Tolerance::parse(text).expect("is a tolerance");
        let mut window = Window::default();
        let mut now = Mono::ZERO;
        let mut seen = String::new();
        for verdict in verdicts.chars() {
            now = now + Duration::from_secs(1);
            if verdict == '.' {
                continue;
            }
            let pair = (parse(tolerance), parse(recover));
            seen.push(match window.push(now, verdict == 'b', pair, Duration::from_secs(1)) {
                Change::None => '-',
                Change::Fired => 'F',
                Change::StillFiring => 'S',
                Change::Resolved => 'R',
            });
        }
        assert_eq!(seen, expected, "{tolerance}, recover {recover}: {verdicts}");
    }

    /// LOG-03 among them: good and bad in turn.
    #[test]
    fn n_of_m() {
        check("1 of 1", "1 of 1", "gbbg", "-FSR");
        check("3 of 5", "1 of 1", "bgbgb", "----F");
        check("3 of 5", "1 of 1", "bggbggb", "-------");
        check("3 of 5", "2 of 2", "bbbgbgg", "--F---R");
        // After firing the window refills before it is said again.
        check("2 of 3", "1 of 1", "bbbb", "-F-S");
        check("2 of 2", "1 of 1", "bbgbgb", "-FR---");
    }

    #[test]
    fn a_duration_needs_two_verdicts_and_no_gap() {
        check("3s", "1 of 1", "bbbb", "---F");
        check("3s", "1 of 1", "bbgbbbb", "------F");
        check("1s", "1 of 1", "b....b", "--");
        check("3s", "1 of 1", "b.bbb", "--F-");
        check("3s", "1 of 1", "b..bbbb", "----F");
        check("1s", "2s", "bbgggb", "-F--R-");
    }
}
