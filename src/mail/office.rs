//! Which alerts go out next, and as what: pure, so that a flood can be played in a test.
//!
//! Alerts to the same people are one queue. One that stands alone goes as its own mail, in its incident's
//! thread; more than [`limits::DIGEST_ABOVE`] that wait at once become one digest. What goes down together
//! is not told in the same second: after a mail the next to the same people waits a little, and in a storm
//! longer, so that it comes as few digests and not one by one. Nobody gets more mails
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
    /// Who had a mail a moment ago: what comes for them is gathered.
    gathering: BTreeMap<People, Gathering>,
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

/// Since when, for how long, and after what.
#[derive(Clone, Copy, Debug)]
struct Gathering {
    since: Mono,
    lasts: Duration,
    after: Kind,
}

/// What a mail was.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Alert,
    Digest,
}

impl Gathering {
    fn until(self) -> Mono {
        self.since + self.lasts
    }
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
        let gathered = self.gathering.get(&to).map_or(Mono::ZERO, |gathering| gathering.until());
        let queue = self.queues.entry(to).or_default();
        if !queue.iter().any(|waiting| waiting.name == name) {
            let due = gathered.max(now + limits::MAIL_LINGER);
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
        let queue = self.queues.get(&to)?;
        let due: Vec<_> = queue.iter().filter(|waiting| waiting.due <= now).collect();
        // Who is due takes along who came a moment later, but nobody whom a server told to wait.
        let takes = |waiting: &&Waiting| waiting.due <= now || waiting.puts_off == 0;
        let together: Vec<_> = queue.iter().filter(takes).collect();
        let held = due.iter().any(|waiting| waiting.held == Held::Yes);
        let apart = match self.gathering.get(&to).map(|gathering| gathering.after) {
            // What goes on in a digest's tail has no thread of its own.
            Some(Kind::Digest) => 1,
            Some(Kind::Alert) | None => limits::DIGEST_ABOVE,
        };
        let chosen = if held || together.len() > apart {
            &together[..together.len().min(limits::DIGEST_ALERTS_MAX)]
        } else {
            due.get(..1)?
        };
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
        if !got.is_empty() {
            self.gather(&dispatch, now);
        }
    }

    /// A mail went out. Where it had waited for others itself more is coming, and the next waits longer.
    fn gather(&mut self, sent: &Dispatch, now: Mono) {
        let lasts = match self.gathering.get(&sent.to) {
            Some(before) if now < before.until() => before.lasts,
            Some(before) => before.lasts.saturating_mul(2).min(limits::MAIL_GATHER_MAX),
            None => limits::MAIL_GATHER_MIN,
        };
        let after = if sent.is_digest() { Kind::Digest } else { Kind::Alert };
        let gathering = Gathering { since: now, lasts, after };
        for waiting in self.queues.get_mut(&sent.to).into_iter().flatten() {
            if waiting.due > now {
                waiting.due = waiting.due.max(gathering.until());
            }
        }
        self.gathering.insert(sent.to.clone(), gathering);
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
        // As long again with nothing to tell, and the next one is told at once.
        self.gathering.retain(|_, gathering| now < gathering.until() + gathering.lasts);
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

    /// Ten units of one manager that died, as the machine gets round to them: the first is not kept waiting.
    #[test]
    fn what_goes_down_together_is_told_together() {
        for apart_ms in [0, 40, 130, 300, 700] {
            let mut office = Office::new(Rate::default());
            let mut mails = Vec::new();
            for ms in (0..30_000).step_by(10) {
                let now = Mono::ZERO + Duration::from_millis(ms);
                if ms < 10 * apart_ms.max(1) && ms % apart_ms.max(1) == 0 {
                    let count = if apart_ms == 0 { 10 } else { 1 };
                    add(&mut office, count, usize::try_from(ms).expect("small"), now);
                }
                while let Some(dispatch) = office.next(now) {
                    mails.push((ms, dispatch.alerts.len()));
                    office.taken(&dispatch.to, now);
                }
            }
            assert!(mails.len() <= 2, "{apart_ms} ms apart: {mails:?}");
            assert_eq!(mails.iter().map(|(_, alerts)| alerts).sum::<usize>(), 10, "{mails:?}");
            assert_eq!(mails[0].0, 1000, "the first is not kept waiting: {mails:?}");
            assert!(mails.last().is_some_and(|(ms, _)| *ms <= 11_000), "{mails:?}");
        }
    }

    #[test]
    fn two_in_a_row_are_two_mails_and_one_that_stands_alone_again_is_told_at_once() {
        let mut office = Office::new(Rate::default());
        let mut told = Vec::new();
        for second in 0..100 {
            if [0, 4, 50].contains(&second) {
                add(&mut office, 1, second, at(second as u64));
            }
            while let Some(dispatch) = office.next(at(second as u64)) {
                assert_eq!(dispatch.alerts.len(), 1);
                told.push(second);
                office.taken(&dispatch.to, at(second as u64));
            }
        }
        assert_eq!(told, [1, 11, 51]);
    }

    /// ALR-08: a service that flaps each second for an hour, with nothing else to hold it back: the mails
    /// are one a minute, and every alert is told.
    #[test]
    fn alr_08_a_flood_is_bounded_and_nothing_is_left_out() {
        let mut office = Office::new(Rate::default());
        let (mut mails, mut told, mut oldest) = (0, 0, 0);
        for second in 0..3600 + 700 {
            if second < 3600 {
                add(&mut office, 1, second, at(second as u64));
            }
            while let Some(dispatch) = office.next(at(second as u64)) {
                mails += 1;
                told += dispatch.alerts.len();
                oldest = oldest.max(dispatch.alerts.len());
                assert_eq!(dispatch.held_back, 0, "the rate is not needed for that");
                office.taken(&dispatch.to, at(second as u64));
            }
        }
        assert_eq!(told, 3600);
        assert!(mails <= 65 && oldest <= 61, "{mails} {oldest}");
    }

    /// Where the rate allows less, it holds back, and the digests say so.
    #[test]
    fn what_the_rate_holds_back_is_counted() {
        let rate = Rate { mails: 2, window: SECOND * 600 };
        let mut office = Office::new(rate);
        let (mut mails, mut told, mut held, mut largest) = (0, 0, 0, 0);
        for second in 0..3600 + 1300 {
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
        assert!(mails <= 2 * 9 && held > 3000, "{mails} {held}");
        assert_eq!(largest, limits::DIGEST_ALERTS_MAX);
    }

    #[test]
    fn the_rate_is_for_each_person_and_says_when_it_ends() {
        let rate = Rate { mails: 2, window: SECOND * 60 };
        let mut office = Office::new(rate);
        for n in 0..2 {
            add(&mut office, 1, n, at(12 * n as u64));
            let now = at(12 * n as u64 + 1);
            let dispatch = office.next(now).expect("within the rate");
            assert_eq!(dispatch.held_back, 0);
            office.taken(&dispatch.to, now);
        }
        add(&mut office, 1, 2, at(14));
        office.add("both".into(), vec!["dba@x".into(), "ops@example.com".into()], at(14));
        office.add("dba".into(), vec!["dba@x".into()], at(14));
        assert_eq!(office.next(at(40)).expect("another person").to, [Box::from("dba@x")]);
        office.taken(&[], at(40));
        assert_eq!(office.next(at(40)), None);
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
