//! A night compressed: what befalls real Pumas in a night, by chance, within minutes, under a steady load on
//! all of them; and an oracle of its own that asks heeler nothing (`eyes`): no worker taken against the guard,
//! no master touched, no two at a time, nobody over a limit for long, and in the end the last good release.
//!
//! ```text
//! cargo test --test puma night                                           a short one, always the same
//! HEELER_NIGHT_EVENTS=1000 HEELER_NIGHT_SEED=7 cargo test --test puma night -- --nocapture    a whole one
//! ```
//! Who plays what is by the seed; what meets what is up to the machine. A verified reload is not cut off by a
//! kill of heeler: nobody would end it, and whoever deploys is told so by the client.

mod apps;
mod eyes;
mod players;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::HEELER;
use crate::support::house::{House, PATIENCE};
use crate::world::world_within;

use self::apps::{Answer, App, now_ms};
use self::eyes::Eyes;
use self::players::{Event, Player};

/// The events of the short form.
const FEW: usize = 26;
/// What an event takes at most, on the average of all Pumas.
const EACH_MAX: Duration = Duration::from_secs(6);

#[test]
fn a_night_compressed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let events = number("HEELER_NIGHT_EVENTS").map_or(FEW, |n| usize::try_from(n).expect("small"));
    let seed = number("HEELER_NIGHT_SEED").unwrap_or(5);
    let limit = Duration::from_secs(240) + EACH_MAX * u32::try_from(events).expect("small");
    world_within(limit, move || Night::new(events, seed).passes());
}

/// SplitMix64.
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    /// Less than `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }
}

/// All that takes part.
struct Night {
    apps: Vec<App>,
    long: bool,
    age_s: u64,
    seed: u64,
    events: usize,
    played: AtomicUsize,
    house: Mutex<House>,
    socket: PathBuf,
    /// Read by whoever needs heeler to stay; written by who kills it.
    heeler_stays: RwLock<()>,
    /// Since when heeler runs; 0: it does not.
    keeper_ms: AtomicU64,
    eyes: Mutex<Eyes>,
    /// What is going on at each Puma: a place in [`Event::ALL`].
    going_on: Vec<AtomicUsize>,
    rows: Mutex<BTreeMap<Event, Row>>,
    not_begun: AtomicUsize,
    left_to_people: AtomicUsize,
    wrong: Mutex<Vec<String>>,
    is_wrong: AtomicBool,
    over: AtomicBool,
}

/// What one kind of event came to.
#[derive(Default, Clone)]
struct Row {
    took: Vec<Duration>,
    sent: usize,
    lost: usize,
    bad: usize,
}

impl Night {
    fn new(events: usize, seed: u64) -> Self {
        let long = events > FEW * 2;
        let count = if long { 5 } else { 4 };
        let apps: Vec<_> = (0..count).map(App::new).collect();
        let house = House::new("");
        // Longer than any verified reload may take: who is too old goes also while one is under way, and then
        // its end has to wait again.
        let age_s = if long { 40 } else { 20 };
        for app in &apps {
            house.define(&app.name, &app.definition(age_s));
        }
        Self {
            eyes: Mutex::new(Eyes::new(&apps)),
            going_on: apps.iter().map(|_| AtomicUsize::new(0)).collect(),
            apps,
            long,
            age_s,
            seed,
            events,
            played: AtomicUsize::new(0),
            socket: house.path("run/control.sock"),
            house: Mutex::new(house),
            heeler_stays: RwLock::new(()),
            keeper_ms: AtomicU64::new(0),
            rows: Mutex::new(BTreeMap::new()),
            not_begun: AtomicUsize::new(0),
            left_to_people: AtomicUsize::new(0),
            wrong: Mutex::new(Vec::new()),
            is_wrong: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    fn passes(self) {
        let began = Instant::now();
        self.house.lock().expect("nobody panics").open();
        self.keeper_ms.store(now_ms(), Ordering::Relaxed);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| self.watches());
            let clients = (0..self.apps.len() * 2).map(|at| {
                let night = &self;
                scope.spawn(move || night.asks(at / 2))
            });
            let clients: Vec<_> = clients.collect();
            let players = (0..self.apps.len()).map(|at| {
                let number = u64::try_from(at).expect("few");
                let player = Player::new(&self, at, Chance(self.seed ^ (number << 32)));
                scope.spawn(move || player.play())
            });
            let players = players.collect::<Vec<_>>();
            // All are waited for, whatever the first says.
            let ends: Vec<_> = players.into_iter().map(thread::ScopedJoinHandle::join).collect();
            if !ends.iter().all(Result::is_ok) {
                self.wrong("a player panicked: see above".to_owned());
            }
            self.over.store(true, Ordering::Relaxed);
            for helper in clients.into_iter().chain([watcher]) {
                helper.join().expect("it ends");
            }
        });
        println!("{}", self.table(began.elapsed()));
        let wrong = self.wrong.lock().expect("nobody panics");
        if let Some(first) = wrong.first() {
            for app in &self.apps {
                let output = app.output();
                let last = output.lines().rev().take(30).collect::<Vec<_>>();
                eprintln!(
                    "---- {}\n{}",
                    app.name,
                    last.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            let all = wrong.join("\n");
            panic!("seed {}: {first}\nall of it:\n{all}", self.seed);
        }
    }

    // ---- what goes on beside the players ----------------------------------------------------------

    /// Twenty times a second.
    fn watches(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let keeper_ms = self.keeper_ms.load(Ordering::Relaxed);
            let age_ms = self.age_s * 1000;
            let wrong = self.eyes().look(&self.apps, (keeper_ms > 0).then_some(keeper_ms), age_ms);
            for text in wrong {
                self.wrong(text);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Two for each Puma, ten requests a second each, every one with a connection of its own.
    fn asks(&self, at: usize) {
        let (app, mut rows) = (&self.apps[at], BTreeMap::<Event, Row>::new());
        // Before it is up the first time nothing is lost.
        while app.ask("/up", Duration::from_secs(1)) != Answer::Good
            && !self.over.load(Ordering::Relaxed)
        {
            thread::sleep(Duration::from_millis(50));
        }
        while !self.over.load(Ordering::Relaxed) {
            let began = self.goes_on(at);
            let answer = app.ask("/up", Duration::from_secs(3));
            // One that was sent before and is lost is lost to what came.
            let event = if began == Event::Calm { self.goes_on(at) } else { began };
            let row = rows.entry(event).or_default();
            row.sent += 1;
            match answer {
                Answer::Good => {}
                Answer::Wrong => row.bad += 1,
                Answer::Lost => row.lost += 1,
            }
            thread::sleep(Duration::from_millis(100));
        }
        let mut all = self.rows.lock().expect("nobody panics");
        for (event, row) in rows {
            let sum = all.entry(event).or_default();
            (sum.sent, sum.lost, sum.bad) =
                (sum.sent + row.sent, sum.lost + row.lost, sum.bad + row.bad);
        }
    }

    fn goes_on(&self, at: usize) -> Event {
        Event::ALL[self.going_on[at].load(Ordering::Relaxed)]
    }

    // ---- for the players --------------------------------------------------------------------------

    fn eyes(&self) -> MutexGuard<'_, Eyes> {
        self.eyes.lock().expect("nobody panics")
    }

    /// The number of the next one to be played.
    fn next_event(&self) -> Option<usize> {
        let number = self.played.fetch_add(1, Ordering::Relaxed);
        (number < self.events && !self.is_wrong()).then_some(number)
    }

    fn begins(&self, at: usize, event: Event) {
        let place = Event::ALL.iter().position(|one| *one == event).expect("it is one");
        self.going_on[at].store(place, Ordering::Relaxed);
    }

    fn ends(&self, at: usize, event: Event, took: Duration) {
        self.going_on[at].store(0, Ordering::Relaxed);
        self.rows.lock().expect("nobody panics").entry(event).or_default().took.push(took);
    }

    fn not_begun(&self) {
        self.not_begun.fetch_add(1, Ordering::Relaxed);
    }

    fn left_to_people(&self, at: usize) {
        println!("  {}: `current` was left as it was", self.apps[at].name);
        self.left_to_people.fetch_add(1, Ordering::Relaxed);
    }

    fn wrong(&self, text: String) {
        println!("WRONG {text}");
        self.wrong.lock().expect("nobody panics").push(text);
        self.is_wrong.store(true, Ordering::Relaxed);
    }

    fn is_wrong(&self) -> bool {
        self.is_wrong.load(Ordering::Relaxed)
    }

    /// Nobody kills heeler meanwhile.
    fn calls_heeler(&self) -> RwLockReadGuard<'_, ()> {
        self.heeler_stays.read().expect("nobody panics")
    }

    fn heeler(&self, args: &[&str]) -> (i32, String) {
        let client = Command::new(HEELER).env("HEELER_SOCKET", &self.socket).args(args).output();
        let client = client.expect("the client runs");
        let said = [client.stdout, client.stderr].concat();
        (client.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }

    /// `kill -9`, and it comes back after a while.
    fn kill_heeler(&self, pause: Duration) {
        let _alone = self.heeler_stays.write().expect("nobody panics");
        let mut house = self.house.lock().expect("nobody panics");
        self.keeper_ms.store(0, Ordering::Relaxed);
        house.kill_keeper();
        thread::sleep(pause.min(PATIENCE));
        house.open();
        self.keeper_ms.store(now_ms(), Ordering::Relaxed);
    }

    fn how_it_stands(&self, at: usize) -> String {
        let name = &self.apps[at].name;
        let (_, workers) = self.heeler(&["workers", name]);
        let (_, why) = self.heeler(&["why", name]);
        let (_, events) = self.heeler(&["events", name, "--last", "15"]);
        format!("{:#?}\n{workers}\n{why}\n{events}", self.eyes().seen[at].living())
    }

    // ---- the end ----------------------------------------------------------------------------------

    fn table(&self, took: Duration) -> String {
        let rows = self.rows.lock().expect("nobody panics").clone();
        let mut text = format!(
            "\nA NIGHT of {} events at {} Pumas of {} workers, seed {}: {:.0} s\n",
            self.events,
            self.apps.len(),
            apps::WORKERS,
            self.seed,
            took.as_secs_f64()
        );
        let head = ["events", "median s", "worst s", "budget s", "sent", "lost", "wrong"];
        let _infallible = write!(text, "{:34}", "");
        for word in head {
            let _infallible = write!(text, "{word:>10}");
        }
        let mut all = Row::default();
        for (event, row) in rows {
            let mut times = row.took.clone();
            times.sort();
            let seconds = |time: Option<&Duration>| {
                time.map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64()))
            };
            let columns = [
                times.len().to_string(),
                seconds(times.get(times.len() / 2)),
                seconds(times.last()),
                if event == Event::Calm {
                    "-".to_owned()
                } else {
                    event.budget(self.age_s).as_secs().to_string()
                },
                row.sent.to_string(),
                row.lost.to_string(),
                row.bad.to_string(),
            ];
            let _infallible = write!(text, "\n{:34}", event.words());
            for column in columns {
                let _infallible = write!(text, "{column:>10}");
            }
            (all.sent, all.lost, all.bad) =
                (all.sent + row.sent, all.lost + row.lost, all.bad + row.bad);
        }
        let share = |part: usize| 100.0 * part as f64 / all.sent.max(1) as f64;
        let _infallible = write!(
            text,
            "\nall night: {} requests, {} lost ({:.3} %), {} wrong ({:.3} %): {:.3} % answered well\n",
            all.sent,
            all.lost,
            share(all.lost),
            all.bad,
            share(all.bad),
            100.0 - share(all.lost) - share(all.bad)
        );
        let eyes = self.eyes();
        let sum = |of: fn(&eyes::Tally) -> usize| {
            eyes.seen.iter().map(|one| of(&one.tally)).sum::<usize>()
        };
        let over = eyes.seen.iter().map(|one| one.tally.over_ms).max().unwrap_or_default();
        let _infallible = writeln!(
            text,
            "workers taken by heeler {}, of these by force {}; told to go by Puma {}; longest over a limit {:.1} s; \
             reloads not begun {}, left to people {}; wrong {}",
            sum(|tally| tally.taken),
            sum(|tally| tally.forced),
            sum(|tally| tally.asked),
            over as f64 / 1e3,
            self.not_begun.load(Ordering::Relaxed),
            self.left_to_people.load(Ordering::Relaxed),
            self.wrong.lock().expect("nobody panics").len()
        );
        text
    }
}
