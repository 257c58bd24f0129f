//! What happens in a night: each Puma has somebody who plays one event after the other by chance, and waits
//! until the test's own eyes see it healthy again.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::house::signal;

use super::apps::{App, Release, now_ms};
use super::{Chance, Night};

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Event {
    /// Nothing, or what goes on all the time: workers go for their age.
    Calm,
    KillWorker,
    KillMaster,
    StopWorker,
    /// Too many for any of them to be taken away, until one goes on.
    StopThree,
    /// It is taken away for its age.
    HangWorker,
    /// An operator takes it away.
    HangWorkerByHand,
    LeakWorker,
    GoodRelease,
    /// A good one that boots for seconds.
    SlowRelease,
    RaisingRelease,
    WrongRelease,
    KillHeeler,
}

impl Event {
    pub(super) const ALL: [Self; 13] = [
        Self::Calm,
        Self::KillWorker,
        Self::KillMaster,
        Self::StopWorker,
        Self::StopThree,
        Self::HangWorker,
        Self::HangWorkerByHand,
        Self::LeakWorker,
        Self::GoodRelease,
        Self::SlowRelease,
        Self::RaisingRelease,
        Self::WrongRelease,
        Self::KillHeeler,
    ];

    /// How often of a hundred, and after how many seconds at the latest it has to be healthy again, beside the
    /// age that is waited for. Measured on two busy cores, and three times that.
    fn weight_and_budget(self) -> (u64, u64) {
        match self {
            Self::Calm => (0, 0),
            Self::KillWorker => (22, 30),
            Self::KillMaster => (12, 60),
            Self::StopWorker => (12, 45),
            Self::StopThree => (4, 60),
            Self::HangWorker => (3, 60),
            Self::HangWorkerByHand => (8, 45),
            Self::LeakWorker => (13, 60),
            Self::GoodRelease => (9, 120),
            Self::SlowRelease => (3, 180),
            Self::RaisingRelease => (5, 120),
            Self::WrongRelease => (5, 120),
            Self::KillHeeler => (4, 60),
        }
    }

    pub(super) fn budget(self, age_s: u64) -> Duration {
        let age = if self == Self::HangWorker { age_s } else { 0 };
        Duration::from_secs(self.weight_and_budget().1 + age)
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Calm => "nothing but age",
            Self::KillWorker => "kill -9 of a worker",
            Self::KillMaster => "kill -9 of the master",
            Self::StopWorker => "SIGSTOP of a worker",
            Self::StopThree => "SIGSTOP of three, CONT of one",
            Self::HangWorker => "a worker holds the GVL: by age",
            Self::HangWorkerByHand => "a worker holds the GVL: by hand",
            Self::LeakWorker => "a worker leaks",
            Self::GoodRelease => "a good release",
            Self::SlowRelease => "a good release that boots slowly",
            Self::RaisingRelease => "a release that raises",
            Self::WrongRelease => "a release that answers 500",
            Self::KillHeeler => "kill -9 of heeler",
        }
    }

    fn draw(chance: &mut Chance, long: bool) -> Self {
        loop {
            let mut left = chance.below(100);
            for event in Self::ALL {
                let (weight, _) = event.weight_and_budget();
                if left < weight {
                    // They wait for the age of a worker, or are waited for by it.
                    if matches!(event, Self::HangWorker | Self::SlowRelease) && !long {
                        break;
                    }
                    return event;
                }
                left -= weight;
            }
        }
    }
}

/// Who plays with one Puma.
pub(super) struct Player<'a> {
    pub(super) night: &'a Night,
    pub(super) at: usize,
    pub(super) chance: Chance,
    releases: u32,
    /// The last release that was let in.
    good: u32,
}

impl<'a> Player<'a> {
    pub(super) fn new(night: &'a Night, at: usize, chance: Chance) -> Self {
        Self { night, at, chance, releases: 1, good: 1 }
    }

    fn app(&self) -> &'a App {
        &self.night.apps[self.at]
    }

    /// Plays until all events of the night are played, or something is wrong.
    pub(super) fn play(mut self) {
        self.until_healthy(Event::Calm, Duration::from_secs(120));
        while let Some(number) = self.night.next_event() {
            let pause = self.chance.below(500);
            thread::sleep(Duration::from_millis(pause));
            let event = Event::draw(&mut self.chance, self.night.long);
            let beside = self.chance.below(100) < 20;
            self.night.begins(self.at, event);
            let began = Instant::now();
            println!(
                "{number} {} {}{}",
                self.app().name,
                event.words(),
                if beside { ", and more" } else { "" }
            );
            self.one(event, beside);
            let budget =
                event.budget(self.night.age_s) + Duration::from_secs(if beside { 45 } else { 0 });
            self.until_healthy(event, budget.saturating_sub(began.elapsed()));
            self.night.ends(self.at, event, began.elapsed());
        }
        self.until_healthy(Event::Calm, Duration::from_secs(60));
    }

    fn until_healthy(&self, event: Event, budget: Duration) {
        let end = Instant::now() + budget.max(Duration::from_secs(5));
        let release = self.app().release_dir(self.good);
        // What was done last is to be seen first.
        let done_ms = now_ms();
        while !self.night.is_wrong() {
            let healthy = {
                let eyes = self.night.eyes();
                eyes.before_ms > done_ms + 100 && eyes.seen[self.at].is_healthy(&release)
            };
            if healthy && self.app().current() == release {
                return;
            }
            if Instant::now() > end {
                let why = self.night.how_it_stands(self.at);
                self.night.wrong(format!(
                    "{}: not healthy in time after {event:?}: {why}",
                    self.app().name
                ));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn one(&mut self, event: Event, beside: bool) {
        match event {
            Event::Calm => {}
            Event::KillWorker => self.kill_worker(),
            Event::KillMaster => {
                if beside {
                    // It lives on, and holds the socket.
                    self.stop_worker();
                }
                self.kill_master();
                return;
            }
            Event::StopWorker => self.stop_worker(),
            Event::StopThree => return self.stop_three(),
            Event::HangWorker => self.hang_worker(),
            Event::HangWorkerByHand => {
                self.hang_worker();
                self.take_by_hand();
            }
            Event::LeakWorker => self.asks("/grow?mb=150"),
            Event::GoodRelease => return self.deploy(Release::Good, beside),
            Event::SlowRelease => return self.deploy(Release::Slow, beside),
            Event::RaisingRelease => return self.deploy(Release::Raising, beside),
            Event::WrongRelease => return self.deploy(Release::Wrong, beside),
            Event::KillHeeler => {
                let pause = self.chance.below(2000);
                self.night.kill_heeler(Duration::from_millis(pause));
            }
        }
        if beside {
            self.besides();
        }
    }

    /// Something else before the first is over.
    fn besides(&mut self) {
        let pause = self.chance.below(1500);
        thread::sleep(Duration::from_millis(pause));
        if self.chance.below(2) == 0 { self.kill_worker() } else { self.stop_worker() }
    }

    // ---- what is done -----------------------------------------------------------------------------

    /// One that nothing is wrong with, if there is any.
    fn some_worker(&mut self) -> Option<u32> {
        let workers = self.night.eyes().seen[self.at].sound();
        let at = self.chance.below(u64::try_from(workers.len()).expect("few"));
        workers.get(usize::try_from(at).expect("few")).copied()
    }

    fn kill_worker(&mut self) {
        if let Some(pid) = self.some_worker() {
            self.night.eyes().seen[self.at].kills(pid);
            signal(pid, "KILL");
        }
    }

    fn kill_master(&self) {
        let mut eyes = self.night.eyes();
        if let Some(pid) = eyes.seen[self.at].master() {
            eyes.seen[self.at].kills(pid);
            signal(pid, "KILL");
        }
    }

    fn stop_worker(&mut self) {
        if let Some(pid) = self.some_worker() {
            signal(pid, "STOP");
        }
    }

    fn stop_three(&self) {
        let three: Vec<_> = self.night.eyes().seen[self.at].sound().into_iter().take(3).collect();
        for pid in &three {
            signal(*pid, "STOP");
        }
        // That is the event: three are stopped for so long.
        thread::sleep(Duration::from_secs(5));
        if let [.., last] = three[..] {
            signal(last, "CONT");
        }
    }

    /// Whoever takes the request.
    fn asks(&self, path: &str) {
        let _answer = self.app().ask(path, Duration::from_secs(2));
    }

    fn hang_worker(&self) {
        self.asks("/hang");
    }

    fn take_by_hand(&self) {
        let end = Instant::now() + Event::HangWorkerByHand.budget(0);
        while !self.night.is_wrong() && Instant::now() < end {
            let Some(pid) = self.night.eyes().seen[self.at].hanging() else { return };
            let _heeler_stays = self.night.calls_heeler();
            let pid = pid.to_string();
            let (code, said) = self.night.heeler(&["kill", &self.app().name, "--worker", &pid]);
            if code != 0 {
                println!("  {}: not taken by hand: {}", self.app().name, said.trim());
                thread::sleep(Duration::from_millis(500));
            }
        }
    }

    // ---- releases -----------------------------------------------------------------------------------

    /// As a deploy does it. Where heeler would not begin, it is tried again.
    fn deploy(&mut self, how: Release, beside: bool) {
        let app = self.app();
        self.releases += 1;
        let number = self.releases;
        app.release(number, how);
        for _ in 0..20 {
            app.point_at(number);
            self.night.eyes().seen[self.at].reloading = true;
            let (code, said) = self.reload(beside);
            self.night.eyes().seen[self.at].reloading = false;
            let began = !said.contains("not begun");
            match (code, how) {
                (0, Release::Good | Release::Slow) => {
                    self.good = number;
                    return;
                }
                (0, Release::Raising | Release::Wrong) => {
                    return self.night.wrong(format!("{}: {how:?} was verified: {said}", app.name));
                }
                (_, Release::Good | Release::Slow) if began && !beside => {
                    return self
                        .night
                        .wrong(format!("{}: a good one was refused: {said}", app.name));
                }
                (_, _) if began => break,
                (_, _) => {
                    println!("  {}: {}", app.name, said.trim());
                    self.night.not_begun();
                    app.point_at(self.good);
                    thread::sleep(Duration::from_millis(700));
                }
            }
        }
        if app.current() != app.release_dir(self.good) {
            // A person does what heeler says it could not.
            self.night.left_to_people(self.at);
            app.point_at(self.good);
            app.pumactl("phased-restart");
        }
    }

    fn reload(&mut self, beside: bool) -> (i32, String) {
        let (night, name) = (self.night, self.app().name.clone());
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                let _heeler_stays = night.calls_heeler();
                night.heeler(&["reload", &name, "--verified", "--timeout", "60s"])
            });
            if beside {
                self.besides();
            }
            client.join().expect("the client ends")
        })
    }
}
