//! Events: the transitions of a service that are worth telling, in their order; and the bounded history
//! of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::ids::ServiceName;
use crate::model::limits;
use crate::model::time::Wall;

/// One transition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Of which service.
    pub service: ServiceName,
    /// When.
    pub at: Wall,
    /// What kind of thing happened.
    pub kind: EventKind,
    /// What, with values. Written by heeler; foreign text in it is escaped.
    pub text: Box<str>,
}

impl Event {
    /// An event whose text is cut at its bound.
    #[must_use]
    pub fn new(service: ServiceName, at: Wall, kind: EventKind, text: &str) -> Self {
        let mut cut: String = text.chars().take(limits::EVENT_CHARS_MAX).collect();
        if cut.len() < text.len() {
            cut.push_str("...");
        }
        Self { service, at, kind, text: cut.into() }
    }
}

/// What kind of thing happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EventKind {
    /// Somebody asked for something: who, and for what.
    Ordered,
    /// Its main process is gone.
    Exited,
    /// A main process is there.
    Started,
    /// heeler began to do something about it.
    Acted,
    /// What was done did not come out.
    Failed,
    /// Nothing more is tried for a while, or until what it needs is there.
    GaveUp,
    /// Something is wrong, a check's rule or a finding of heeler's own, with values.
    Fired,
    /// It is over.
    Resolved,
    /// Something that a check watches for it is not what it was.
    Changed,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Ordered,
        Self::Exited,
        Self::Started,
        Self::Acted,
        Self::Failed,
        Self::GaveUp,
        Self::Fired,
        Self::Resolved,
        Self::Changed,
    ];

    /// The word, for people, programs and records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Exited => "exited",
            Self::Started => "started",
            Self::Acted => "acted",
            Self::Failed => "failed",
            Self::GaveUp => "gave up",
            Self::Fired => "fired",
            Self::Resolved => "resolved",
            Self::Changed => "changed",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn of_name(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == word)
    }
}

/// The newest events of all services, oldest first. One service that never rests takes no more than its
/// share.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    events: VecDeque<Arc<Event>>,
    counts: BTreeMap<ServiceName, usize>,
}

impl History {
    /// Adds the newest; past a bound the oldest goes.
    pub fn push(&mut self, event: impl Into<Arc<Event>>) {
        let event = event.into();
        let count = self.counts.entry(event.service.clone()).or_default();
        *count += 1;
        let share = *count > limits::EVENTS_PER_SERVICE_MAX;
        let oldest = match share.then_some(&event.service) {
            Some(name) => self.events.iter().position(|old| old.service == *name),
            None => (self.events.len() >= limits::EVENTS_MAX).then_some(0),
        };
        self.events.push_back(event);
        if let Some(gone) = oldest.and_then(|at| self.events.remove(at))
            && let Some(count) = self.counts.get_mut(&gone.service)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&gone.service);
            }
        }
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.events.iter().map(|event| &**event)
    }

    /// The last so many of the services that are chosen, oldest first.
    #[must_use]
    pub fn last(&self, most: usize, chosen: impl Fn(&ServiceName) -> bool) -> Vec<&Event> {
        let newest = self.iter().rev().filter(|event| chosen(&event.service));
        let mut last: Vec<_> = newest.take(most).collect();
        last.reverse();
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(service: &str, n: usize) -> Event {
        let name = ServiceName::parse(service).expect("a name");
        Event::new(name, Wall(n as u64), EventKind::Started, &format!("pid {n}"))
    }

    fn moments(history: &History, service: &str) -> Vec<u64> {
        let of = |name: &ServiceName| name.as_str() == service;
        history.last(usize::MAX, of).iter().map(|event| event.at.0).collect()
    }

    #[test]
    fn who_never_rests_drives_out_its_own_past_and_nobody_elses() {
        let mut history = History::default();
        history.push(event("quiet", 0));
        let many = limits::EVENTS_PER_SERVICE_MAX * 3;
        for n in 1..=many {
            history.push(event("busy", n));
        }
        assert_eq!(moments(&history, "quiet"), [0]);
        let kept = moments(&history, "busy");
        assert_eq!(kept.len(), limits::EVENTS_PER_SERVICE_MAX);
        assert_eq!(kept.last().copied(), Some(many as u64));
        assert!(kept.windows(2).all(|two| two[0] + 1 == two[1]), "in order, without a gap");
    }

    #[test]
    fn all_together_keep_the_newest() {
        let mut history = History::default();
        for n in 0..limits::EVENTS_MAX + 100 {
            history.push(event(&format!("s{}", n % 400), n));
        }
        assert_eq!(history.iter().count(), limits::EVENTS_MAX);
        assert_eq!(history.iter().next().map(|event| event.at.0), Some(100));
        assert_eq!(history.counts.values().sum::<usize>(), limits::EVENTS_MAX);
        let last = history.last(2, |_| true);
        assert_eq!(
            last.iter().map(|event| event.at.0).collect::<Vec<_>>(),
            [limits::EVENTS_MAX as u64 + 98, limits::EVENTS_MAX as u64 + 99]
        );
    }

    #[test]
    fn a_long_text_is_cut_and_every_word_comes_back() {
        let name = ServiceName::parse("shop").expect("a name");
        let text = "\u{fc}".repeat(limits::EVENT_CHARS_MAX + 1);
        let event = Event::new(name, Wall(0), EventKind::Acted, &text);
        assert_eq!(event.text.chars().count(), limits::EVENT_CHARS_MAX + 3);
        for kind in EventKind::ALL {
            assert_eq!(EventKind::of_name(kind.name()), Some(kind));
        }
        assert_eq!(EventKind::of_name("exploded"), None);
    }
}
