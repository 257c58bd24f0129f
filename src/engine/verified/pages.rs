//! The pages of a service while its reload is verified: which of their answers count.
//!
//! Nobody can tell whether an old worker answered or a new one. So nothing counts before a new one is
//! ready, and a good answer only since the last of them was. What was bad before anything was begun is not
//! the new release's doing: it counts once it was good.

use std::collections::BTreeMap;

use crate::model::observation::Verdict;

/// Those that checks ask, by the place of the check.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    each: BTreeMap<usize, Page>,
    /// So many new workers are ready.
    ready: usize,
}

#[derive(Clone, Debug)]
struct Page {
    before: Before,
    /// Bad answers, one after the other.
    bad: u32,
    /// Good ones since the last new worker was ready.
    good: u32,
    /// And whether one since then could not be told: that is nobody's failure.
    unclear: bool,
}

/// How a page answered last before it was begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Before {
    /// Well, or it was not asked.
    Well,
    /// Badly.
    Badly,
}

impl Pages {
    pub(super) fn of(pages: impl IntoIterator<Item = (usize, Before)>) -> Self {
        let fresh = |before| Page { before, bad: 0, good: 0, unclear: false };
        let each = pages.into_iter().map(|(at, before)| (at, fresh(before))).collect();
        Self { each, ready: 0 }
    }

    /// So many new workers are ready now.
    pub(super) fn ready(&mut self, ready: usize) {
        if ready > self.ready {
            self.count_anew();
        }
        self.ready = ready;
    }

    /// From here on answers prove something.
    pub(super) fn count_anew(&mut self) {
        for page in self.each.values_mut() {
            (page.good, page.unclear) = (0, false);
        }
    }

    pub(super) fn answered(&mut self, at: usize, verdict: Verdict) {
        if self.ready == 0 {
            return;
        }
        let Some(page) = self.each.get_mut(&at) else { return };
        match (verdict, page.before) {
            (Verdict::Pass, _) => {
                page.before = Before::Well;
                page.bad = 0;
                page.good += 1;
            }
            (Verdict::Fail, Before::Well) => page.bad += 1,
            (Verdict::Fail, Before::Badly) => {}
            (Verdict::Unknown, _) => page.unclear = true,
        }
    }

    /// The most bad answers in a row of one page.
    pub(super) fn bad_in_a_row(&self) -> u32 {
        self.each.values().map(|page| page.bad).max().unwrap_or(0)
    }

    /// Whether each that should answer well did.
    pub(super) fn are_well(&self) -> bool {
        self.each.values().all(|page| {
            page.good > 0 || page.unclear || (page.before == Before::Badly && page.bad == 0)
        })
    }

    /// What they say for it, for the end of a sentence.
    pub(super) fn words(&self) -> String {
        if self.each.is_empty() {
            return ", no check looks at its pages".to_owned();
        }
        let good: u32 = self.each.values().map(|page| page.good).sum();
        let mut words = format!(", {good} good answers of its pages");
        let still = self.each.values().filter(|page| page.before == Before::Badly).count();
        if still > 0 {
            words.push_str(&format!(", {still} of them bad before and still so"));
        }
        let unclear = self.each.values().filter(|page| page.good == 0 && page.unclear).count();
        if unclear > 0 {
            words.push_str(&format!(", {unclear} of them could not be told"));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_once_a_new_worker_is_ready_and_good_ones_since_the_last_was() {
        let mut pages = Pages::of([(0, Before::Well)]);
        pages.answered(0, Verdict::Fail);
        pages.answered(0, Verdict::Fail);
        assert_eq!(pages.bad_in_a_row(), 0, "an old worker answered");
        pages.ready(1);
        pages.answered(0, Verdict::Pass);
        assert!(pages.are_well());
        pages.ready(2);
        assert!(!pages.are_well(), "the last one has not answered yet");
        pages.answered(0, Verdict::Fail);
        assert_eq!((pages.bad_in_a_row(), pages.are_well()), (1, false));
        pages.answered(0, Verdict::Pass);
        assert_eq!((pages.bad_in_a_row(), pages.are_well()), (0, true));
        // Another check of another kind is none of them.
        pages.answered(7, Verdict::Fail);
        assert_eq!(pages.bad_in_a_row(), 0);
    }

    #[test]
    fn what_was_bad_before_counts_once_it_was_good() {
        let mut pages = Pages::of([(0, Before::Badly), (1, Before::Well)]);
        pages.ready(1);
        pages.answered(1, Verdict::Pass);
        for _ in 0..5 {
            pages.answered(0, Verdict::Fail);
        }
        assert_eq!((pages.bad_in_a_row(), pages.are_well()), (0, true));
        assert_eq!(
            pages.words(),
            ", 1 good answers of its pages, 1 of them bad before and still so"
        );
        pages.answered(0, Verdict::Pass);
        pages.answered(0, Verdict::Fail);
        assert_eq!(pages.bad_in_a_row(), 1);
    }

    #[test]
    fn what_cannot_be_told_holds_nobody_up_and_is_said() {
        let mut pages = Pages::of([(3, Before::Well)]);
        pages.ready(1);
        assert!(!pages.are_well());
        pages.answered(3, Verdict::Unknown);
        assert!(pages.are_well());
        assert_eq!(pages.words(), ", 0 good answers of its pages, 1 of them could not be told");
        assert_eq!(Pages::default().words(), ", no check looks at its pages");
    }
}
