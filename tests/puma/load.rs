//! A steady load: so many requests a second, each on a connection of its own, whatever became of those
//! before. So one who is slow is not asked less.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Whoever waited so long for an answer has gone away.
const WAITS: Duration = Duration::from_secs(10);

/// One under way.
pub(crate) struct Load {
    state: Arc<(AtomicBool, AtomicUsize)>,
    thread: JoinHandle<Tally>,
}

/// How it went.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    pub(crate) asked: usize,
    /// No answer, or half of one.
    pub(crate) lost: usize,
    /// An answer other than 200.
    pub(crate) wrong: usize,
    /// How long the answers took from when they were to be asked for, shortest first.
    pub(crate) took: Vec<Duration>,
}

impl Load {
    pub(crate) fn begin(per_second: u32) -> Self {
        let state = Arc::new((AtomicBool::new(false), AtomicUsize::new(0)));
        let over = Arc::clone(&state);
        let thread = thread::spawn(move || {
            let began = Instant::now();
            let (answered, answers) = channel();
            for number in 0.. {
                let at = began + Duration::from_secs(1) * number / per_second;
                thread::sleep(at.saturating_duration_since(Instant::now()));
                if over.0.load(Ordering::Relaxed) {
                    break;
                }
                over.1.fetch_add(1, Ordering::Relaxed);
                let answered = answered.clone();
                thread::spawn(move || {
                    let code = ask("/up", WAITS);
                    answered.send((code, at.elapsed())).expect("the load waits for it");
                });
            }
            drop(answered);
            let mut tally = Tally::default();
            for (code, took) in answers {
                tally.asked += 1;
                tally.lost += usize::from(code.is_none());
                tally.wrong += usize::from(code.is_some_and(|code| code != 200));
                if code.is_some() {
                    tally.took.push(took);
                }
            }
            tally.took.sort();
            tally
        });
        Self { state, thread }
    }

    /// How many were asked so far.
    pub(crate) fn asked(&self) -> usize {
        self.state.1.load(Ordering::Relaxed)
    }

    /// Asks no more, and waits for the answers.
    pub(crate) fn end(self) -> Tally {
        self.state.0.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load")
    }
}

/// The code of a whole answer.
pub(crate) fn ask(path: &str, patience: Duration) -> Option<u16> {
    let address = SocketAddr::from(([127, 0, 0, 1], 9292));
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: shop\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    (length.parse() == Ok(body.len())).then_some(())?;
    head.split(' ').nth(1)?.parse().ok()
}
