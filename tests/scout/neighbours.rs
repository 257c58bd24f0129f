//! Nothing waits for anything else: what hangs, beside what is healthy. The same figures are taken
//! before and while everything hangs, in one run.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cage::seen;
use crate::server::Server;
use crate::support::house::{House, PATIENCE, signal};
use crate::support::{Need, can_run, wait_for};

const QUICK: &str = "every = \"500ms\"\nstart_period = \"200ms\"\nstart_limit = \"100 per 1m\"\n";
const PEERS: usize = 200;
const STARTS: usize = 20;
const PAGES: usize = 20;
/// How often a healthy page is probed.
const EVERY: Duration = Duration::from_millis(500);

/// What the healthy ones see.
struct Figures {
    /// The longest and the mean time from kill -9 to the next copy.
    away: [Duration; 2],
    /// The longest pause between two probes of one page.
    pause: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [worst, mean] = self.away;
        write!(
            f,
            "back after {mean:.1?} (mean of 5), {worst:.1?} (worst); longest pause between two probes \
             (every {EVERY:?}) {:.0?}",
            self.pause
        )
    }
}

fn figures(house: &House, server: &Server) -> Figures {
    let from = Instant::now();
    let mut away = Vec::new();
    for _ in 0..5 {
        // Between two starts of heeler's own lies at least a second.
        std::thread::sleep(Duration::from_millis(1200));
        let starts = house.starts("healthy");
        let began = Instant::now();
        signal(*starts.last().expect("was started"), "KILL");
        wait_for("the healthy one to be back", PATIENCE, || {
            (house.starts("healthy").len() > starts.len()).then_some(())
        });
        away.push(began.elapsed());
    }
    let to = Instant::now();
    let pauses = (0..PAGES).map(|n| server.longest_pause(&format!("/page{n}"), from, to));
    let worst = away.iter().max().copied().expect("five");
    let mean = away.iter().sum::<Duration>() / 5;
    Figures { away: [worst, mean], pause: pauses.max().expect("pages") }
}

/// A FUSE file system that never answers.
pub(crate) struct Dead {
    holder: Child,
    pub(crate) at: std::path::PathBuf,
}

impl Dead {
    pub(crate) fn make(house: &House) -> Option<Self> {
        let (at, ready) = (house.path("dead"), house.path("dead-ready"));
        fs::create_dir(&at).expect("mkdir");
        let script = "exec 3<>/dev/fuse && \
                      mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none \"$0\" && \
                      : > \"$1\" && exec sleep 1000";
        let mut shell = Command::new("sh");
        let mut holder = shell.args(["-c", script]).args([&at, &ready]).spawn().expect("sh");
        let made = wait_for("the file system", PATIENCE, || {
            let ended = holder.try_wait().expect("wait").is_some();
            (ended || ready.exists()).then_some(!ended)
        });
        made.then_some(Self { holder, at })
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.at).stderr(Stdio::null()).status();
    }
}

/// NET-01: four times as many as the case asks for, and what else can hang beside them.
#[test]
fn hung_peers_mail_server_files_and_commands_change_nothing_for_the_healthy() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let server = Server::begin();
    // Accepts and never says a word.
    let mail_server = TcpListener::bind("127.0.0.1:0").expect("bound");
    let mail_port = mail_server.local_addr().expect("an address").port();
    let mail = format!(
        "[mail]\nfrom = \"heeler@example.com\"\n\
         servers = [{{ host = \"127.0.0.1\", port = {mail_port}, tls = \"none\" }}]\n"
    );
    let mut house = House::new(&mail);
    house.daemon("healthy", "", &format!("{QUICK}alert = [\"ops@example.com\"]\n"));
    for n in 0..PAGES {
        let lines = format!("every = \"{}ms\"\ntimeout = \"2s\"", EVERY.as_millis());
        server.page(&house, &format!("page{n}"), &format!("/page{n}"), &lines);
    }
    house.open();
    let first = house.wait_up("healthy", None);
    let before = figures(&house, &server);
    eprintln!("before: {before}");
    assert_eq!(house.close(), Some(0));

    let dead = Dead::make(&house).expect("a dead file system (root, /dev/fuse)");
    let path = dead.at.join("file");
    for n in 0..PEERS {
        let lines = "every = \"1s\"\ntimeout = \"8s\"";
        server.page(&house, &format!("hung{n}"), "/hang", lines);
    }
    for n in 0..STARTS {
        let pidfile = house.path(&format!("srv/start{n}.pid"));
        let start = format!("pidfile = {pidfile:?}\nstart = \"/bin/sleep 1000\"\n{QUICK}");
        house.define(&format!("start{n}"), &start);
        let check = format!("[[check]]\ntype = \"file\"\npath = {path:?}\ntimeout = \"2s\"\n");
        house.define(&format!("file{n}"), &check);
    }
    house.open();
    assert_ne!(house.wait_up("healthy", None), first, "it was killed five times");
    wait_for("everything to hang", PATIENCE, || {
        let hung = seen(&house, &format!("hung{}", PEERS - 1));
        let file = seen(&house, &format!("file{}", STARTS - 1));
        (hung.contains("did not answer") && file.contains("file system hang")).then_some(())
    });
    let during = figures(&house, &server);
    eprintln!("during: {during}");
    // Figures are for people; the bounds here are those of a hang, not of speed.
    assert!(during.away[0] < Duration::from_secs(1), "{during}");
    assert!(during.pause < EVERY * 4, "{during}");
    drop(mail_server);
}
