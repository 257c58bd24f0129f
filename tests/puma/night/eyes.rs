//! What the test sees with its own eyes: the process table, twenty times a second, and what each Puma wrote of
//! itself. heeler is not asked. From this the oracle tells who took a worker away, and whether that was right.
//!
//! Nobody is blamed for what could not be known: a state of things counts once it is older than a look.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use crate::shop::title;
use crate::support::house::pids;

use super::apps::{App, MIN, STOP_TIMEOUT, WORKERS, now_ms};

/// What is younger may not have been seen by heeler: a look each half second, and a Puma that answers late.
const KNOWABLE_MS: u64 = 2000;
/// A worker that hangs is known by three pings that did not come.
const HUNG_KNOWABLE_MS: u64 = 25_000;
/// After so long heeler takes a missing worker for gone for good.
const SHORT_MAX_MS: u64 = 60_000;
/// Before a worker's end is judged, all that was written of it is to be there.
const LATE_MS: u64 = 700;
/// What a worker boots in, at most, on a machine that is busy; and a look.
const BOOT: Duration = Duration::from_secs(8);
const INTERVAL: Duration = Duration::from_secs(1);

/// A number and the moment it was born.
type Id = (u32, u64);

/// What was seen of one Puma.
#[derive(Default)]
pub(super) struct Seen {
    masters: BTreeMap<Id, Master>,
    workers: BTreeMap<Id, Worker>,
    /// What was written of processes that the table does not have yet.
    unread: Vec<(u64, String, u32)>,
    read: u64,
    /// When all its workers were there and ready.
    whole_ms: u64,
    /// A release is on its way in.
    pub(super) reloading: bool,
    pub(super) tally: Tally,
}

/// What the oracle counted.
#[derive(Default, Clone, Copy, Debug)]
pub(super) struct Tally {
    /// Workers that heeler took away, and those of them by force.
    pub(super) taken: usize,
    pub(super) forced: usize,
    /// By Puma itself.
    pub(super) asked: usize,
    /// The longest that one was over a limit while nothing spoke against taking it away.
    pub(super) over_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Master {
    first_ms: u64,
    gone_ms: Option<u64>,
    /// By the test.
    killed: bool,
}

#[derive(Clone, Debug)]
struct Worker {
    master: u32,
    first_ms: u64,
    ready_ms: Option<u64>,
    asked_ms: Option<u64>,
    told_ms: Option<u64>,
    gone_ms: Option<u64>,
    stopped_ms: Option<u64>,
    hangs_ms: Option<u64>,
    grows_ms: Option<u64>,
    over_ms: u64,
    killed: bool,
    judged: bool,
    release: PathBuf,
}

/// One living Ruby, as the table has it.
struct Line {
    id: Id,
    parent: u32,
    title: String,
    stopped: bool,
}

/// What a look told of time.
pub(super) struct Look {
    pub(super) now_ms: u64,
    pub(super) before_ms: u64,
    /// Since when heeler runs; `None`: it does not.
    pub(super) keeper_ms: Option<u64>,
    /// From which age on a worker is to go.
    pub(super) age_ms: u64,
}

/// All Pumas.
pub(super) struct Eyes {
    pub(super) seen: Vec<Seen>,
    rubies: Vec<Line>,
    /// When it was looked last.
    pub(super) before_ms: u64,
}

impl Eyes {
    pub(super) fn new(apps: &[App]) -> Self {
        let seen = apps.iter().map(|_| Seen::default()).collect();
        Self { seen, rubies: Vec::new(), before_ms: now_ms() }
    }

    /// Looks at everything. Answers what is wrong.
    pub(super) fn look(
        &mut self,
        apps: &[App],
        keeper_ms: Option<u64>,
        age_ms: u64,
    ) -> Vec<String> {
        // First the table: whoever is written of was born before.
        let now_ms = now_ms();
        let rubies = rubies(&self.rubies);
        let look = Look { now_ms, before_ms: self.before_ms, keeper_ms, age_ms };
        self.before_ms = now_ms;
        let mut wrong = Vec::new();
        for (app, seen) in apps.iter().zip(&mut self.seen) {
            seen.processes(app, &rubies, now_ms);
            seen.read_log(app, now_ms, &mut wrong);
            seen.judge(app, &look, &mut wrong);
        }
        self.rubies = rubies;
        wrong
    }
}

impl Seen {
    // ---- what is there --------------------------------------------------------------------------

    fn processes(&mut self, app: &App, rubies: &[Line], now_ms: u64) {
        let of = format!("[{}]", app.name);
        let mut there = Vec::new();
        for line in rubies.iter().filter(|line| line.title.ends_with(&of)) {
            if let Some(master) = master_of(&line.title) {
                there.push(line.id);
                let first = Worker::new(master, now_ms);
                let one = self.workers.entry(line.id).or_insert(first);
                if line.stopped {
                    one.stopped_ms.get_or_insert(now_ms);
                } else {
                    one.stopped_ms = None;
                }
            } else if !rubies.iter().any(|of| of.id.0 == line.parent && of.title == line.title) {
                // A child of its own that has no title yet is none.
                there.push(line.id);
                let first = Master { first_ms: now_ms, gone_ms: None, killed: false };
                self.masters.entry(line.id).or_insert(first);
            }
        }
        for (id, one) in &mut self.masters {
            if !there.contains(id) {
                one.gone_ms.get_or_insert(now_ms);
            }
        }
        for (id, one) in &mut self.workers {
            if !there.contains(id) {
                one.gone_ms.get_or_insert(now_ms);
            }
        }
    }

    fn read_log(&mut self, app: &App, now_ms: u64, wrong: &mut Vec<String>) {
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(app.dir.join("run/log")) {
            let moved = file.seek(SeekFrom::Start(self.read));
            let _whole = moved.and_then(|_| file.read_to_string(&mut text));
        }
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        self.read += u64::try_from(whole).expect("small");
        let lines = text[..whole].lines().filter_map(|line| {
            let mut words = line.split(' ');
            let at = words.next()?.parse().ok()?;
            let what = words.next()?.to_owned();
            Some((at, what, words.next()?.parse().ok()?))
        });
        self.unread.extend(lines);
        for (at, what, pid) in std::mem::take(&mut self.unread) {
            if what == "double" {
                wrong.push(format!("{}: a second master, {pid}, beside a living one", app.name));
                continue;
            }
            let found = self.workers.iter_mut().rfind(|((of, _), one)| {
                *of == pid && one.gone_ms.is_none_or(|gone| gone + LATE_MS > now_ms)
            });
            match found {
                Some((_, one)) => one.is_told(at, &what, pid),
                None if what != "master" && at + LATE_MS > now_ms => {
                    self.unread.push((at, what, pid));
                }
                None => {}
            }
        }
    }

    /// Its one master.
    pub(super) fn master(&self) -> Option<u32> {
        let mut living = self.masters.iter().filter(|(_, one)| one.gone_ms.is_none());
        living.next().map(|((pid, _), _)| *pid)
    }

    /// Its ready workers that nothing is wrong with, by number.
    pub(super) fn sound(&self) -> Vec<u32> {
        let living = self.workers.iter().filter(|(_, one)| one.is_there() && one.is_sound());
        living.map(|((pid, _), _)| *pid).collect()
    }

    /// Who hangs and is still there.
    pub(super) fn hanging(&self) -> Option<u32> {
        let hangs = |one: &Worker| one.gone_ms.is_none() && one.hangs_ms.is_some();
        self.workers.iter().find(|(_, one)| hangs(one)).map(|((pid, _), _)| *pid)
    }

    /// Everything of it is as it should be, in this release.
    pub(super) fn is_healthy(&self, release: &PathBuf) -> bool {
        let living: Vec<_> = self.workers.values().filter(|one| one.gone_ms.is_none()).collect();
        let master = self.master();
        living.len() == WORKERS
            && living.iter().all(|one| {
                one.is_there()
                    && one.is_sound()
                    && Some(one.master) == master
                    && one.told_ms.is_none()
                    && one.asked_ms.is_none()
                    && one.release == *release
            })
    }

    /// Everybody who is there.
    pub(super) fn living(&self) -> impl std::fmt::Debug + use<> {
        let living = self.workers.iter().filter(|(_, one)| one.gone_ms.is_none());
        (self.masters.clone(), living.map(|(id, one)| (*id, one.clone())).collect::<Vec<_>>())
    }

    /// The test kills it.
    pub(super) fn kills(&mut self, pid: u32) {
        let worker = self.workers.iter_mut().rfind(|((of, _), _)| *of == pid);
        if let Some((_, one)) = worker {
            one.killed = true;
        }
        let master = self.masters.iter_mut().rfind(|((of, _), _)| *of == pid);
        if let Some((_, one)) = master {
            one.killed = true;
        }
    }

    // ---- what is right --------------------------------------------------------------------------

    fn judge(&mut self, app: &App, look: &Look, wrong: &mut Vec<String>) {
        let now_ms = look.now_ms;
        let living = self.masters.iter().filter(|(_, one)| one.gone_ms.is_none());
        let living: Vec<_> = living.map(|(id, _)| *id).collect();
        if living.len() > 1 {
            wrong.push(format!("{}: {} masters: {living:?}", app.name, living.len()));
        }
        for ((pid, _), one) in &self.masters {
            if one.gone_ms == Some(now_ms) && !one.killed && one.first_ms + 500 < now_ms {
                wrong.push(format!("{}: its master {pid} went, and nobody should have", app.name));
            }
        }
        let due = |one: &Worker| {
            let at = one.told_ms.or(one.gone_ms).filter(|at| at + LATE_MS < now_ms)?;
            (!one.judged).then_some(at)
        };
        let ends = self.workers.iter().filter_map(|(id, one)| Some((*id, due(one)?)));
        for (id, at) in ends.collect::<Vec<_>>() {
            if let Some(text) = self.judge_end(id, at, look) {
                let all: Vec<_> = self.workers.iter().filter(|(_, one)| one.lived(at)).collect();
                wrong.push(format!("{}: at {at} {text}; all workers: {all:#?}", app.name));
            }
        }
        self.judge_limits(app, look, wrong);
        let there = self.workers.values().filter(|one| one.is_there()).count();
        if there >= WORKERS {
            self.whole_ms = now_ms;
        }
        let old = |gone: Option<u64>| gone.is_none_or(|gone| gone + SHORT_MAX_MS > now_ms);
        self.workers.retain(|_, one| old(one.gone_ms));
        self.masters.retain(|_, one| old(one.gone_ms));
    }

    /// Whoever went: by whom, and whether that was right.
    fn judge_end(&mut self, id: Id, at: u64, look: &Look) -> Option<String> {
        let one = self.workers.get_mut(&id)?;
        one.judged = true;
        let one = one.clone();
        let lost_master = self.masters.iter().any(|((pid, _), master)| {
            *pid == one.master && master.gone_ms.is_some_and(|gone| gone <= at + 1000)
        });
        let by_puma = one.asked_ms.is_some_and(|asked| asked <= at + 200);
        if one.ready_ms.is_none() || lost_master || (one.killed && one.told_ms.is_none()) {
            return None;
        }
        if by_puma && one.told_ms.is_some() {
            self.tally.asked += 1;
            return None;
        }
        // Nobody else is left.
        self.tally.taken += 1;
        self.tally.forced += usize::from(one.told_ms.is_none());
        let pid = id.0;
        let others: Vec<_> = self
            .workers
            .iter()
            .filter(|(other, other_one)| **other != id && other_one.master == one.master)
            .collect();
        let unbooted = others.iter().find(|(_, other)| {
            other.lived(at)
                && other.first_ms + KNOWABLE_MS < at
                && other.ready_ms.is_none_or(|ready| ready > at)
        });
        if let Some(((other, _), _)) = unbooted {
            return Some(format!("worker {pid} was taken while {other} was not ready"));
        }
        let serving = others.iter().filter(|(_, other)| other.serves_by_all_known(at)).count();
        if serving < MIN {
            return Some(format!("worker {pid} was taken while {serving} others served"));
        }
        let ready = |other: &Worker| other.ready_ms.is_some_and(|ready| ready <= at);
        let there = others.iter().filter(|(_, other)| other.lived(at) && ready(other)).count();
        let short = at.saturating_sub(self.whole_ms);
        let known = look.keeper_ms.is_some_and(|since| since + KNOWABLE_MS < self.whole_ms);
        let is_short = (KNOWABLE_MS..SHORT_MAX_MS - KNOWABLE_MS).contains(&short);
        if there + 1 < WORKERS && self.whole_ms > 0 && known && is_short {
            return Some(format!("worker {pid} was taken while one was missing, for {short} ms"));
        }
        None
    }

    /// Whoever is too old or too big goes, one after the other, while nothing speaks against it.
    fn judge_limits(&mut self, app: &App, look: &Look, wrong: &mut Vec<String>) {
        let now_ms = look.now_ms;
        let there: Vec<_> = self.workers.values().filter(|one| one.gone_ms.is_none()).collect();
        let whole = there.len() == WORKERS && there.iter().all(|one| one.ready_ms.is_some());
        // What hangs is not counted, and what hangs is taken away for its age.
        let serving = there.iter().filter(|one| one.is_sound()).count() > MIN;
        let watched = look.keeper_ms.is_some_and(|since| since + KNOWABLE_MS < now_ms);
        let calm = whole && serving && watched && !self.reloading;
        let limit = (STOP_TIMEOUT + BOOT + INTERVAL) * u32::try_from(WORKERS).expect("few");
        let limit_ms = u64::try_from(limit.as_millis()).expect("small");
        for ((pid, _), one) in &mut self.workers {
            let too_old = one.gone_ms.is_none() && one.first_ms + look.age_ms < now_ms;
            if calm && one.gone_ms.is_none() && (too_old || one.grows_ms.is_some()) {
                one.over_ms += now_ms - look.before_ms;
            }
            self.tally.over_ms = self.tally.over_ms.max(one.over_ms);
            if one.over_ms > limit_ms {
                one.over_ms = 0;
                wrong.push(format!(
                    "{}: worker {pid} is over its limit for {limit:?}: {one:?}",
                    app.name
                ));
            }
        }
    }
}

impl Worker {
    fn new(master: u32, first_ms: u64) -> Self {
        Self {
            master,
            first_ms,
            ready_ms: None,
            asked_ms: None,
            told_ms: None,
            gone_ms: None,
            stopped_ms: None,
            hangs_ms: None,
            grows_ms: None,
            over_ms: 0,
            killed: false,
            judged: false,
            release: PathBuf::new(),
        }
    }

    fn is_told(&mut self, at: u64, what: &str, pid: u32) {
        let place = match what {
            "ready" => {
                self.release = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
                &mut self.ready_ms
            }
            "asked" => &mut self.asked_ms,
            "told" => &mut self.told_ms,
            "hangs" => &mut self.hangs_ms,
            "grows" => &mut self.grows_ms,
            _ => return,
        };
        place.get_or_insert(at);
    }

    /// It lives and has booted.
    fn is_there(&self) -> bool {
        self.gone_ms.is_none() && self.ready_ms.is_some()
    }

    fn is_sound(&self) -> bool {
        self.stopped_ms.is_none() && self.hangs_ms.is_none() && self.grows_ms.is_none()
    }

    fn lived(&self, at: u64) -> bool {
        self.first_ms <= at && self.gone_ms.is_none_or(|gone| gone > at)
    }

    /// Whether it served at that moment, by all that could be known then.
    fn serves_by_all_known(&self, at: u64) -> bool {
        let there = self.gone_ms.is_none_or(|gone| gone + KNOWABLE_MS > at)
            && self.ready_ms.is_some_and(|ready| ready <= at);
        let stopped = self.stopped_ms.is_some_and(|since| since + KNOWABLE_MS < at);
        let hangs = self.hangs_ms.is_some_and(|since| since + HUNG_KNOWABLE_MS < at);
        there && !stopped && !hangs
    }
}

fn master_of(title: &str) -> Option<u32> {
    title.strip_prefix("puma: cluster worker ")?.split_whitespace().nth(1)?.parse().ok()
}

/// Every living Ruby. A worker's title is its last.
fn rubies(before: &[Line]) -> Vec<Line> {
    let line = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let fields: Vec<_> = tail.split_whitespace().collect();
        let (state, parent) = (*fields.first()?, fields.get(1)?.parse().ok()?);
        let id = (pid, fields.get(19)?.parse().ok()?);
        // A script has the name it was executed by.
        let ruby = ["(puma", "(ruby"].iter().any(|name| head.ends_with(name));
        if matches!(state, "Z" | "X") || !ruby {
            return None;
        }
        let known = before.iter().find(|line| line.id == id && master_of(&line.title).is_some());
        let title = known.map_or_else(|| title(pid), |line| line.title.clone());
        Some(Line { id, parent, title, stopped: state == "T" })
    };
    pids().into_iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One master, since 1 s, and so many workers, ready since 2 s, as numbers from 10.
    fn seen(workers: u32) -> Seen {
        let mut seen = Seen { whole_ms: 100_000, ..Seen::default() };
        let master = Master { first_ms: 1000, gone_ms: None, killed: false };
        seen.masters.insert((9, 9), master);
        for pid in 10..10 + workers {
            let worker = Worker { ready_ms: Some(2000), ..Worker::new(9, 1500) };
            seen.workers.insert((pid, 1), worker);
        }
        seen
    }

    fn worker(seen: &mut Seen, pid: u32) -> &mut Worker {
        seen.workers.get_mut(&(pid, 1)).expect("there is")
    }

    /// What is wrong at 100 s, where no worker lives for more than 10 minutes.
    fn wrong(seen: &mut Seen) -> String {
        let app = App::named("x");
        let look =
            Look { now_ms: 100_000, before_ms: 99_950, keeper_ms: Some(1000), age_ms: 600_000 };
        let mut wrong = Vec::new();
        seen.judge(&app, &look, &mut wrong);
        wrong.iter().map(|text| text.split("; all").next().unwrap_or_default()).collect()
    }

    #[test]
    fn who_was_told_by_heeler_is_judged_and_who_was_asked_by_puma_is_not() {
        let mut all = seen(4);
        worker(&mut all, 10).told_ms = Some(90_000);
        assert_eq!(wrong(&mut all), "");
        assert_eq!((all.tally.taken, all.tally.asked), (1, 0));
        let mut all = seen(1);
        worker(&mut all, 10).asked_ms = Some(89_990);
        worker(&mut all, 10).told_ms = Some(90_000);
        assert_eq!(wrong(&mut all), "");
        assert_eq!((all.tally.taken, all.tally.asked), (0, 1));
    }

    #[test]
    fn one_that_is_not_ready_speaks_against_it_once_that_can_be_known() {
        for (born, expected) in
            [(89_500, ""), (80_000, "x: at 90000 worker 10 was taken while 13 was not ready")]
        {
            let mut all = seen(4);
            *worker(&mut all, 13) = Worker::new(9, born);
            worker(&mut all, 10).told_ms = Some(90_000);
            all.whole_ms = 89_900;
            assert_eq!(wrong(&mut all), expected);
        }
    }

    #[test]
    fn the_last_that_serve_stay() {
        for (stopped, hangs, expected) in [
            (80_000, 60_000, "x: at 90000 worker 10 was taken while 1 others served"),
            (89_500, 60_000, ""),
            (80_000, 80_000, ""),
        ] {
            let mut all = seen(4);
            worker(&mut all, 11).stopped_ms = Some(stopped);
            worker(&mut all, 12).hangs_ms = Some(hangs);
            // By force: it said nothing.
            worker(&mut all, 10).gone_ms = Some(90_000);
            assert_eq!(wrong(&mut all), expected, "{stopped} {hangs}");
            assert_eq!(all.tally.forced, 1);
        }
    }

    #[test]
    fn one_that_is_missing_speaks_against_it() {
        for (whole, expected) in [
            (89_000, ""),
            (80_000, "x: at 90000 worker 10 was taken while one was missing, for 10000 ms"),
            (20_000, ""),
        ] {
            let mut all = seen(3);
            worker(&mut all, 10).told_ms = Some(90_000);
            all.whole_ms = whole;
            assert_eq!(wrong(&mut all), expected);
        }
    }

    #[test]
    fn who_goes_by_the_tests_doing_or_with_the_master_is_nobodys_fault() {
        let mut all = seen(1);
        worker(&mut all, 10).killed = true;
        worker(&mut all, 10).gone_ms = Some(90_000);
        assert_eq!((wrong(&mut all).as_str(), all.tally.taken), ("", 0));
        let mut all = seen(1);
        worker(&mut all, 10).gone_ms = Some(90_000);
        all.masters.get_mut(&(9, 9)).expect("one").gone_ms = Some(89_990);
        assert_eq!((wrong(&mut all).as_str(), all.tally.taken), ("", 0));
    }

    #[test]
    fn one_master_and_nobody_touches_it() {
        let mut all = seen(4);
        let second = Master { first_ms: 1000, gone_ms: None, killed: false };
        all.masters.insert((8, 8), second);
        assert_eq!(wrong(&mut all), "x: 2 masters: [(8, 8), (9, 9)]");
        for (killed, expected) in
            [(false, "x: its master 9 went, and nobody should have"), (true, "")]
        {
            let mut all = seen(4);
            let master = Master { first_ms: 1000, gone_ms: Some(100_000), killed };
            all.masters.insert((9, 9), master);
            assert_eq!(wrong(&mut all), expected);
        }
    }

    #[test]
    fn who_is_over_a_limit_is_not_there_for_long() {
        let limit_ms = 48_000;
        for (over, expected) in [(limit_ms - 100, false), (limit_ms, true)] {
            let mut all = seen(4);
            worker(&mut all, 10).grows_ms = Some(50_000);
            worker(&mut all, 10).over_ms = over;
            assert_eq!(wrong(&mut all).contains("is over its limit"), expected);
            assert!(all.tally.over_ms > over, "a tick more");
        }
        let mut all = seen(4);
        // Another one is not ready: nobody may go meanwhile.
        worker(&mut all, 11).ready_ms = None;
        worker(&mut all, 10).grows_ms = Some(50_000);
        wrong(&mut all);
        assert_eq!(all.tally.over_ms, 0);
    }
}
