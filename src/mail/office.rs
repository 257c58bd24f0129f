//! Which alerts go out next, and as what: pure, so that a flood can be played in a test.
//!
//! Alerts to the same people are one queue. One that stands alone goes as its own mail, in its incident's
//! thread; more than [`limits::DIGEST_ABOVE`] that wait at once become one digest. Nobody gets more mails
//! than the rate says: what comes above it waits, and goes in the digest that says so. One mail is on its
//! way at a time: where the first is not taken, no server has to be asked about the others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::model::limits;
use crate::model::rate::Rate;
use crate::model::time::Mono;

/// Who gets a mail, in the order they were named.
pub type People = Vec<Box<str>>;

/// What to send next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dispatch {
    /// To whom.
    pub to: People,
    /// The alerts' names, oldest first; one alone is a mail of its own.
    pub alerts: Vec<Box<str>>,
    /// How many of them the rate held back.
    pub held_back: usize,
}

impl Dispatch {
    /// Whether several are one mail, or something has to be said of what was held back.
    #[must_use]
    pub fn is_digest(&self) -> bool {
        self.alerts.len() > 1 || self.held_back > 0
    }
}

/// The post office.
#[derive(Debug, Default)]
pub struct Office {
    rate: Rate,
    queues: BTreeMap<People, VecDeque<Waiting>>,
    /// When each person got the last mails.
    sent: BTreeMap<Box<str>, VecDeque<Mono>>,
    /// What is on its way, until it is [`Office::taken`] or [`Office::put_back`].
    away: Option<Dispatch>,
    /// Failures of all servers, one after the other, and until when none is asked again.
    failures: u32,
    closed_until: Mono,
}

#[derive(Debug)]
struct Waiting {
    name: Box<str>,
    /// Not before this.
    due: Mono,
    /// A server said "later" to it so often.
    puts_off: u32,
    held: Held,
}

/// Whether the rate held it back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    Yes,
    No,
}

impl Office {
    /// An empty one.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, ..Self::default() }
    }

    /// Everybody gets so many from now on.
    pub fn change_rate(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// An alert came in. One that is there already is not taken twice.
    pub fn add(&mut self, name: Box<str>, to: People, now: Mono) {
        let queue = self.queues.entry(to).or_default();
        if !queue.iter().any(|waiting| waiting.name == name) {
            let due = now + limits::MAIL_LINGER;
            queue.push_back(Waiting { name, due, puts_off: 0, held: Held::No });
        }
    }

    /// It is not to be sent any more.
    pub fn remove(&mut self, name: &str) {
        for queue in self.queues.values_mut() {
            queue.retain(|waiting| &*waiting.name != name);
        }
        self.queues.retain(|_, queue| !queue.is_empty());
    }

    /// What is on its way.
    #[must_use]
    pub fn away(&self) -> Option<&Dispatch> {
        self.away.as_ref()
    }

    /// What to send now, if anything: it counts as on its way.
    pub fn next(&mut self, now: Mono) -> Option<Dispatch> {
        if self.away.is_some() || now < self.closed_until {
            return None;
        }
        self.forget_old(now);
        let mut best: Option<(Mono, People)> = None;
        for (to, queue) in &mut self.queues {
            let Some(due) = queue.iter().map(|waiting| waiting.due).min() else { continue };
            if due > now {
                continue;
            }
            if full(&self.sent, self.rate, to) {
                let late = queue.iter_mut().filter(|waiting| waiting.due <= now);
                late.for_each(|waiting| waiting.held = Held::Yes);
                continue;
            }
            if best.as_ref().is_none_or(|(first, _)| due < *first) {
                best = Some((due, to.clone()));
            }
        }
        let (_, to) = best?;
        let ready: Vec<_> =
            self.queues.get(&to)?.iter().filter(|waiting| waiting.due <= now).collect();
        let held_back = ready.iter().filter(|waiting| waiting.held == Held::Yes).count();
        let digest = held_back > 0 || ready.len() > limits::DIGEST_ABOVE;
        let count = if digest { limits::DIGEST_ALERTS_MAX } else { 1 };
        let chosen = &ready[..count.min(ready.len())];
        let alerts = chosen.iter().map(|waiting| waiting.name.clone()).collect();
        let held_back = chosen.iter().filter(|waiting| waiting.held == Held::Yes).count();
        let dispatch = Dispatch { to, alerts, held_back };
        self.away = Some(dispatch.clone());
        Some(dispatch)
    }

    /// When to ask again, at the latest.
    #[must_use]
    pub fn wakeup(&self) -> Mono {
        if self.away.is_some() {
            return Mono::NEVER;
        }
        let due = |(to, queue): (&People, &VecDeque<Waiting>)| {
            let due = queue.iter().map(|waiting| waiting.due).min().unwrap_or(Mono::NEVER);
            let free = to.iter().filter_map(|one| free_at(&self.sent, self.rate, one)).max();
            due.max(free.unwrap_or(Mono::ZERO)).max(self.closed_until)
        };
        self.queues.iter().map(due).min().unwrap_or(Mono::NEVER)
    }

    /// What was on its way has left: delivered, or refused for ever. It is counted for these people.
    pub fn taken(&mut self, got: &[Box<str>], now: Mono) {
        self.failures = 0;
        let Some(dispatch) = self.away.take() else { return };
        for one in got {
            self.sent.entry(one.clone()).or_default().push_back(now);
        }
        dispatch.alerts.iter().for_each(|name| self.remove(name));
    }

    /// A server said "later" to what was on its way: it alone waits. `left` is who it still has to reach.
    pub fn put_off(&mut self, left: People, got: &[Box<str>], now: Mono) {
        let Some(dispatch) = self.away.take() else { return };
        self.failures = 0;
        for one in got {
            self.sent.entry(one.clone()).or_default().push_back(now);
        }
        let queue = self.queues.remove(&dispatch.to).unwrap_or_default();
        let of_it = dispatch.alerts.iter().collect::<BTreeSet<_>>();
        let (mine, others): (VecDeque<_>, VecDeque<_>) =
            queue.into_iter().partition(|waiting| of_it.contains(&waiting.name));
        if !others.is_empty() {
            self.queues.insert(dispatch.to, others);
        }
        let queue = self.queues.entry(left).or_default();
        for mut waiting in mine {
            waiting.due = now + pause(waiting.puts_off);
            waiting.puts_off += 1;
            queue.push_back(waiting);
        }
    }

    /// No server could be reached: everything waits. Says for how long.
    pub fn put_back(&mut self, now: Mono) -> Duration {
        self.away = None;
        let wait = pause(self.failures);
        self.failures += 1;
        self.closed_until = now + wait;
        wait
    }

    /// Something has changed for the better: everything may be tried at once.
    pub fn reopen(&mut self, now: Mono) {
        self.failures = 0;
        self.closed_until = now;
        for waiting in self.queues.values_mut().flatten() {
            waiting.due = waiting.due.min(now);
        }
    }

    fn forget_old(&mut self, now: Mono) {
        for times in self.sent.values_mut() {
            while times.front().is_some_and(|at| now.since(*at) >= self.rate.window) {
                times.pop_front();
            }
        }
        self.sent.retain(|_, times| !times.is_empty());
    }
}

/// Whether one of these people may get no mail now.
fn full(sent: &BTreeMap<Box<str>, VecDeque<Mono>>, rate: Rate, to: &People) -> bool {
    to.iter().any(|one| free_at(sent, rate, one).is_some())
}

/// When somebody who has had all mails of a window may get one again.
fn free_at(sent: &BTreeMap<Box<str>, VecDeque<Mono>>, rate: Rate, one: &str) -> Option<Mono> {
    let times = sent.get(one)?;
    let over = times.len().checked_sub(rate.mails as usize)?;
    times.get(over).map(|at| *at + rate.window)
}

fn pause(failures: u32) -> Duration {
    limits::MAIL_RETRY_MIN.saturating_mul(1 << failures.min(16)).min(limits::MAIL_RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + SECOND * u32::try_from(seconds).expect("small")
    }

    fn ops() -> People {
        vec!["ops@example.com".into()]
    }

    fn add(office: &mut Office, count: usize, from: usize, now: Mono) {
        (from..from + count).for_each(|n| office.add(format!("a{n}").into(), ops(), now));
    }

    #[test]
    fn a_few_alerts_are_mails_of_their_own_and_a_burst_is_one() {
        for (count, mails) in [(1, 1), (3, 3), (4, 1), (250, 1), (251, 2)] {
            let mut office = Office::new(Rate::default());
            add(&mut office, count, 0, at(0));
            assert_eq!(office.next(at(0)), None, "others may come yet");
            let (mut sent, mut alerts) = (0, 0);
            while let Some(dispatch) = office.next(at(1)) {
                assert_eq!(office.next(at(1)), None, "one at a time");
                sent += 1;
                alerts += dispatch.alerts.len();
                office.taken(&dispatch.to, at(1));
            }
            assert_eq!((sent, alerts), (mails, count), "{count}");
            assert_eq!(office.wakeup(), Mono::NEVER);
        }
    }

    #[test]
    fn different_people_get_their_own() {
        let mut office = Office::new(Rate::default());
        add(&mut office, 9, 0, at(0));
        office.add("b".into(), vec!["dba@example.com".into()], at(0));
        let first = office.next(at(1)).expect("one");
        office.taken(&first.to, at(1));
        let second = office.next(at(1)).expect("another");
        assert_eq!([first.alerts.len(), second.alerts.len()], [1, 9]);
    }

    /// ALR-08: a service that flaps each second for an hour, with nothing else to hold it back: the mails
    /// are bounded by the rate, and every alert is told.
    #[test]
    fn alr_08_a_flood_is_bounded_and_nothing_is_left_out() {
        let mut office = Office::new(Rate::default());
        let (mut mails, mut told, mut held, mut largest) = (0, 0, 0, 0);
        for second in 0..3600 + 700 {
            if second < 3600 {
                add(&mut office, 1, second, at(second as u64));
            }
            while let Some(dispatch) = office.next(at(second as u64)) {
                mails += 1;
                told += dispatch.alerts.len();
                held += dispatch.held_back;
                largest = largest.max(dispatch.alerts.len());
                office.taken(&dispatch.to, at(second as u64));
            }
        }
        assert_eq!(told, 3600);
        assert!(mails <= 30 * 8, "{mails}");
        assert!(held > 3000 && largest == limits::DIGEST_ALERTS_MAX, "{held} {largest}");
    }

    #[test]
    fn the_rate_is_for_each_person_and_says_when_it_ends() {
        let rate = Rate { mails: 2, window: SECOND * 60 };
        let mut office = Office::new(rate);
        for n in 0..2 {
            add(&mut office, 1, n, at(n as u64));
            let dispatch = office.next(at(n as u64 + 1)).expect("within the rate");
            assert_eq!(dispatch.held_back, 0);
            office.taken(&dispatch.to, at(n as u64 + 1));
        }
        add(&mut office, 1, 2, at(3));
        office.add("both".into(), vec!["dba@x".into(), "ops@example.com".into()], at(3));
        office.add("dba".into(), vec!["dba@x".into()], at(3));
        assert_eq!(office.next(at(5)).expect("another person").to, [Box::from("dba@x")]);
        office.taken(&[], at(5));
        assert_eq!(office.next(at(5)), None);
        assert_eq!(office.wakeup(), at(61));
        let dispatch = office.next(at(61)).expect("the window is over");
        assert_eq!((dispatch.held_back, dispatch.is_digest()), (1, true));
    }

    #[test]
    fn servers_that_are_down_are_asked_less_and_less_and_then_all_goes() {
        let mut office = Office::new(Rate::default());
        add(&mut office, 1, 0, at(0));
        let (mut now, mut waits) = (at(1), Vec::new());
        for _ in 0..9 {
            assert!(office.next(now).is_some());
            waits.push(office.put_back(now).as_secs() / 60);
            now = office.wakeup();
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        add(&mut office, 9, 1, now);
        office.reopen(now);
        assert_eq!(office.next(now).expect("at once").alerts.len(), 10);
    }

    #[test]
    fn later_is_about_one_mail_and_those_who_have_it_get_it_no_more() {
        let mut office = Office::new(Rate::default());
        let both: People = vec!["a@x".into(), "b@x".into()];
        office.add("one".into(), both.clone(), at(0));
        office.add("two".into(), both, at(9));
        assert!(office.next(at(1)).is_some());
        office.put_off(vec!["b@x".into()], &["a@x".into()], at(1));
        assert_eq!(office.next(at(10)).expect("the other").alerts, [Box::from("two")]);
        office.taken(&[], at(10));
        assert_eq!(office.wakeup(), at(61));
        let again = office.next(at(61)).expect("again");
        assert_eq!((again.to, again.alerts), (vec!["b@x".into()], vec!["one".into()]));
    }
}
