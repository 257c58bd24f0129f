//! `kill -9` of the keeper and of shims at any moment, while services die and operators ask for things.
//!
//! The seed is printed; `HEELER_CHAOS_SEED` replays its choices, `HEELER_CHAOS_KILLS` sets how many kills
//! of the keeper there are (a third as many of shims).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::house::{House, PATIENCE, alive, lines, signal};
use crate::support::{HEELER, wait_for};

/// Where heeler waits before KILL: a second for the deaf one, more than it needs for the reluctant one.
const DEAF_STOP_TIMEOUT: Duration = Duration::from_secs(1);
const COMMON: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstart_timeout = \"6s\"\n\
                      exit_delay = \"300ms\"\nstart_limit = \"1000 per 5s\"\n";

#[test]
fn keeper_and_shims_are_killed_at_any_moment() {
    let kills: usize = from_env("HEELER_CHAOS_KILLS").unwrap_or(36);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let seed = from_env("HEELER_CHAOS_SEED")
        .unwrap_or_else(|| u64::try_from(now & 0xffff_ffff).expect("fits"));
    eprintln!("HEELER_CHAOS_SEED={seed} HEELER_CHAOS_KILLS={kills}");
    let mut chaos = Chaos::new(seed);
    for round in 0..kills {
        chaos.round(Victim::Keeper);
        if round % 3 == 0 {
            chaos.round(Victim::Shim);
        }
    }
    chaos.calm();
}

fn from_env<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// The services, by what is special about them.
const NAMES: [&str; 7] = ["quick", "late", "heavy", "reluctant", "deaf", "program", "sleepy"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Keeper,
    Shim,
}

struct Chaos {
    house: House,
    random: Random,
    coroner: Coroner,
    /// What may be wanted of each: one word, or more where an order was not answered.
    wishes: BTreeMap<&'static str, BTreeSet<&'static str>>,
    /// Orders that make a process go.
    stops: BTreeMap<&'static str, usize>,
    /// Processes killed here, as `name pid`; true: heeler knew them, wanted up.
    killed: BTreeMap<(&'static str, u32), bool>,
    shims_killed: usize,
}

/// An order under way.
struct Asked {
    name: &'static str,
    order: &'static str,
    client: Child,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut house = House::new("");
        house.daemon("quick", "", COMMON);
        house.daemon("late", "delay=0.7", COMMON);
        let slow = format!("sleep 0.6; exec {}", house.command("heavy", ""));
        let pidfile = house.path("srv/heavy.pid");
        let start = format!("start = {{ run = {slow:?}, shell = true }}");
        house.define("heavy", &format!("pidfile = {pidfile:?}\n{start}\n{COMMON}"));
        house.daemon("reluctant", "term=0.8", &format!("{COMMON}stop_timeout = \"4s\"\n"));
        house.daemon("deaf", "term=ignore", &format!("{COMMON}stop_timeout = \"1s\"\n"));
        for (name, options) in [("program", "foreground"), ("sleepy", "foreground term=0.5")] {
            let run = house.command(name, options);
            house.define(name, &format!("run = {run:?}\n{COMMON}stop_timeout = \"4s\"\n"));
        }
        house.open();
        for name in NAMES {
            house.wait_up(name, None);
        }
        let coroner = Coroner::new(house.path("srv"));
        Self {
            random: Random(seed),
            coroner,
            wishes: NAMES.map(|name| (name, BTreeSet::from(["up"]))).into(),
            stops: BTreeMap::new(),
            killed: BTreeMap::new(),
            shims_killed: 0,
            house,
        }
    }

    /// A few things happen, and in the middle of them somebody is killed.
    fn round(&mut self, victim: Victim) {
        let known = self.status();
        let mut asked = Vec::new();
        let mut busy = BTreeSet::new();
        for _ in 0..1 + self.random.below(3) {
            let name = NAMES[self.random.below(NAMES.len())];
            if !busy.insert(name) {
                continue;
            }
            match self.random.below(5) {
                0 | 1 => self.kill_service(name, &known),
                2 | 3 => asked.extend(self.ask(name, "restart")),
                _ if self.wishes[name].contains("down") => asked.extend(self.ask(name, "start")),
                _ => asked.extend(self.ask(name, "stop")),
            }
        }
        std::thread::sleep(self.random.moment());
        match victim {
            Victim::Keeper => {
                self.house.kill_keeper();
                // Kills in a row are this test's doing, not the sign of a poisoned state.
                let _ = fs::remove_file(self.house.path("state/starts"));
                self.settle_orders(asked);
                self.house.open();
                self.check_wishes();
            }
            Victim::Shim => {
                self.kill_shim();
                self.settle_orders(asked);
            }
        }
    }

    fn kill_service(&mut self, name: &'static str, known: &BTreeMap<String, serde_json::Value>) {
        let Some(pid) = self.house.starts(name).last().copied() else {
            return;
        };
        if !alive(pid) || !is_service(pid, name) {
            return;
        }
        let told = known.get(name).is_some_and(|status| {
            status["pid"].as_u64() == Some(u64::from(pid))
                && status["desired"]["want"] == "up"
                && matches!(status["phase"].as_str(), Some("watching" | "start period"))
        });
        let wanted = self.wishes[name].iter().eq(["up"].iter());
        // A keeper that had no time to note a process down cannot have its death told by the next one.
        let journal = fs::read_to_string(self.house.path("state/journal")).unwrap_or_default();
        let noted = journal.contains(&format!("\"main\":{{\"pid\":{pid},"));
        self.killed.insert((name, pid), told && wanted && noted);
        signal(pid, "KILL");
    }

    fn ask(&mut self, name: &'static str, order: &'static str) -> Option<Asked> {
        if matches!(order, "stop" | "restart") {
            *self.stops.entry(name).or_default() += 1;
        }
        let client = Command::new(HEELER)
            .env("HEELER_SOCKET", self.house.path("run/control.sock"))
            .args([order, name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Asked { name, order, client })
    }

    /// Waits for all answers. One that said done is a promise; any other leaves both possible.
    fn settle_orders(&mut self, asked: Vec<Asked>) {
        for Asked { name, order, mut client } in asked {
            let done = client.wait().expect("the client ends").success();
            let wish = if order == "stop" { "down" } else { "up" };
            let wishes = self.wishes.get_mut(name).expect("all are there");
            if done {
                wishes.clear();
            } else if order == "start" {
                // The stop before it may hold after all: then what it brought up is told to go.
                *self.stops.entry(name).or_default() += 1;
            }
            wishes.insert(wish);
        }
    }

    fn status(&self) -> BTreeMap<String, serde_json::Value> {
        let (_, out, err) = self.house.heeler(&["status", "--json"]);
        let all: serde_json::Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out:?} {err:?}"));
        let services = all["services"].as_array().cloned().unwrap_or_default();
        services
            .into_iter()
            .map(|one| (one["service"].as_str().unwrap_or("").to_owned(), one))
            .collect()
    }

    /// A keeper that came back wants what was acknowledged.
    fn check_wishes(&mut self) {
        for (name, status) in self.status() {
            let desired = status["desired"]["want"].as_str().expect("a wish").to_owned();
            let (_, wishes) =
                self.wishes.iter_mut().find(|(known, _)| **known == name).expect("a known service");
            assert!(
                wishes.contains(desired.as_str()),
                "{name} is wanted {desired:?}, and what was asked is {wishes:?}"
            );
            wishes.retain(|wish| *wish == desired);
        }
    }

    /// Kills one shim, a running action's if there is one.
    fn kill_shim(&mut self) {
        let shims = shims(&self.house.path("run"));
        if shims.is_empty() {
            return;
        }
        let shim = shims[self.random.below(shims.len())];
        signal(shim, "KILL");
        self.shims_killed += 1;
    }

    /// Everything is left in peace: what must hold now.
    fn calm(&mut self) {
        for name in NAMES {
            // A copy killed before it had written its pidfile makes one start fail, after its time.
            wait_for(&format!("{name} to be started"), PATIENCE, || {
                let (code, out, err) = self.house.heeler(&["start", name]);
                if code != 0 {
                    eprintln!("start {name}: {code} {out}{err}");
                }
                (code == 0).then_some(())
            });
        }
        for name in NAMES {
            let pid = self.house.wait_up(name, None);
            // A foreground program says so a moment after its exec.
            wait_for(&format!("{name} to be {pid} by its own word"), PATIENCE, || {
                (self.house.starts(name).last() == Some(&pid)).then_some(())
            });
            let doubles = self.house.doubles(name);
            assert_eq!(doubles, 0, "{name} was started beside a living copy");
        }
        self.check_ends();
        self.check_mails();
        let run = self.house.path("run");
        wait_for("only the shims of the two programs to be left", PATIENCE, || {
            (shims(&run).len() <= 2).then_some(())
        });
        eprintln!(
            "{} starts, {} services killed, {} shims killed, {} mails",
            NAMES.iter().map(|name| self.house.starts(name).len()).sum::<usize>(),
            self.killed.len(),
            self.shims_killed,
            self.house.mails().len()
        );
    }

    /// Every copy that ended was killed here, or was told to go and had its time.
    fn check_ends(&mut self) {
        let deaths = self.coroner.end();
        for name in NAMES {
            let times = |file: &str| -> BTreeMap<u32, f64> {
                let mut first = BTreeMap::new();
                for line in lines(&self.house.path(&format!("srv/{name}.{file}"))) {
                    let (pid, at) = line.split_once(' ').expect("pid and time");
                    first
                        .entry(pid.parse().expect("a pid"))
                        .or_insert_with(|| at.parse().expect("a time"));
                }
                first
            };
            let (terms, ends) = (times("terms"), times("stops"));
            let orders = self.stops.get(name).copied().unwrap_or_default();
            assert!(
                terms.len() <= orders,
                "{name} was told to go {} times for {orders} orders",
                terms.len()
            );
            for pid in self.house.starts(name) {
                if alive(pid) || self.killed.contains_key(&(name, pid)) || ends.contains_key(&pid) {
                    continue;
                }
                let term =
                    terms.get(&pid).unwrap_or_else(|| panic!("{name} {pid} was killed untold"));
                assert_eq!(name, "deaf", "{pid} was killed while it was going");
                let death = deaths.get(&pid).expect("the coroner saw it");
                let had = death - term;
                // It notes the signal when it gets round to it, on a busy machine some time after it was sent.
                assert!(had >= DEAF_STOP_TIMEOUT.as_secs_f64() - 0.3, "{pid} had only {had:.3} s");
            }
        }
    }

    /// Every death of a known process has its place in a mail; no Message-ID names two things.
    fn check_mails(&self) {
        let told: Vec<_> =
            self.killed.iter().filter(|(_, told)| **told).map(|(of, _)| *of).collect();
        assert!(told.len() >= 3, "of {} deaths only {told:?} are to be told", self.killed.len());
        let end = Instant::now() + PATIENCE;
        loop {
            let mails = self.house.mails();
            let missing: Vec<_> = told
                .iter()
                .filter(|(name, pid)| {
                    let told = |mail: &String| mail.contains(&format!("{pid} is gone"));
                    // An incident of so many deaths that its mail leaves lines out, and says so: then the
                    // log has them all.
                    let cut = |mail: &String| {
                        mail.contains(&format!("] {name}: ")) && mail.contains(" more ...]")
                    };
                    let line = format!("{name}: error: the main process {pid} is gone");
                    let left_out = mails.iter().any(cut) && self.house.log().contains(&line);
                    !(mails.iter().any(told) || left_out)
                })
                .collect();
            if missing.is_empty() {
                break;
            }
            let log = || self.house.log();
            assert!(Instant::now() < end, "no mail tells of {missing:?}:\n{}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
        let mut ids = BTreeSet::new();
        for mail in self.house.mails() {
            let id = mail
                .lines()
                .find(|line| line.starts_with("Message-ID:"))
                .expect("has an id")
                .to_owned();
            assert!(ids.insert(id), "two mails with one Message-ID: {mail}");
        }
    }
}

/// Whether a process is (still) this service.
fn is_service(pid: u32, name: &str) -> bool {
    let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&title).starts_with(&format!("service {name}"))
}

/// The shims of a house: they hold a lock of its run_dir.
fn shims(run: &Path) -> Vec<u32> {
    crate::support::house::pids()
        .into_iter()
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "heeler-shim\n")
        })
        .filter(|pid| {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|path| path.starts_with(run))
        })
        .collect()
}

/// Notes when each copy of each service ends.
struct Coroner {
    over: Arc<AtomicBool>,
    deaths: Arc<Mutex<BTreeMap<u32, f64>>>,
    thread: Option<JoinHandle<()>>,
}

impl Coroner {
    fn new(srv: PathBuf) -> Self {
        let (over, deaths) =
            (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let (is_over, seen) = (Arc::clone(&over), Arc::clone(&deaths));
        let watch = move || {
            let mut watched = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                for name in NAMES {
                    let starts = lines(&srv.join(format!("{name}.starts")));
                    let pids = starts
                        .iter()
                        .filter_map(|line| line.split(' ').next()?.parse::<u32>().ok());
                    let mut deaths = seen.lock().expect("not poisoned");
                    watched.extend(pids.filter(|pid| !deaths.contains_key(pid)));
                    watched.retain(|pid| {
                        let lives = alive(*pid);
                        if !lives {
                            let now = SystemTime::now().duration_since(UNIX_EPOCH);
                            let now = now.expect("after 1970");
                            deaths.insert(*pid, now.as_secs_f64());
                        }
                        lives
                    });
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        Self { over, deaths, thread: Some(std::thread::spawn(watch)) }
    }

    fn end(&mut self) -> BTreeMap<u32, f64> {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("ends");
        }
        std::mem::take(&mut self.deaths.lock().expect("not poisoned"))
    }
}

impl Drop for Coroner {
    fn drop(&mut self) {
        self.end();
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("less than a usize")
    }

    /// Mostly within the first moments, where things are half done; sometimes long after.
    fn moment(&mut self) -> Duration {
        let most_ms = [5, 40, 200, 800, 2000][self.below(5)];
        Duration::from_millis(self.next() % most_ms)
    }
}
