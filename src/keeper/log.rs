//! The log: one line a happening, on standard error (under systemd that is the journal). The loop never
//! waits for it: a reader that stops costs lines, which are counted and said.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use crate::engine::effect::Level;
use crate::model::text::escape;
use crate::model::time::Wall;

const TURNS_WAITING_MAX: usize = 1024;
/// How long the last lines may take.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(500);

/// The way into the log. What is said is kept until [`Log::pass_on`]: its thread is woken once a turn, and
/// not while an action waits to begin.
pub(super) struct Log {
    said: RefCell<Vec<Line>>,
    lines: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

struct Line {
    at: Wall,
    level: Level,
    about: Box<str>,
    text: String,
}

enum Message {
    Lines(Vec<Line>),
    Flush(SyncSender<()>),
}

impl Log {
    /// Starts the log's thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let (lines, waiting) = sync_channel::<Message>(TURNS_WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        std::thread::Builder::new().name("heeler-log".to_owned()).spawn(move || {
            while let Ok(message) = waiting.recv() {
                match message {
                    Message::Lines(lines) => lines.iter().for_each(write),
                    Message::Flush(done) => drop(done.try_send(())),
                }
                let lost = counter.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let text = format!("{lost} log lines were lost");
                    let at = Wall::default();
                    write(&Line { at, level: Level::Warning, about: "heeler".into(), text });
                }
            }
        })?;
        Ok(Self { said: RefCell::new(Vec::new()), lines, lost })
    }

    /// Says something about heeler itself or a service.
    pub(super) fn say(&self, at: Wall, level: Level, about: &str, text: impl Into<String>) {
        self.said.borrow_mut().push(Line { at, level, about: about.into(), text: text.into() });
    }

    /// Hands what was said to the log's thread.
    pub(super) fn pass_on(&self) {
        let said = self.said.take();
        if said.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(Message::Lines(lines))) =
            self.lines.try_send(Message::Lines(said))
        {
            let lines = u64::try_from(lines.len()).unwrap_or(u64::MAX);
            self.lost.fetch_add(lines, Ordering::Relaxed);
        }
    }

    /// Waits a moment until what was said is written.
    pub(super) fn flush(&self, limit: std::time::Duration) {
        self.pass_on();
        let (done, written) = sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            let _in_time = written.recv_timeout(limit);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush(LAST_WORDS);
    }
}

fn write(line: &Line) {
    let Line { at, level, about, text } = line;
    let time = i64::try_from(at.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .filter(|_| *at != Wall::default())
        .map_or_else(String::new, |time| {
            let zoned = time.to_zoned(jiff::tz::TimeZone::system());
            format!("{} ", zoned.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z"))
        });
    let word = match level {
        Level::Info => "",
        Level::Warning => "warning: ",
        Level::Error => "error: ",
    };
    let line = format!("{time}{about}: {word}{}\n", escape(text));
    // Nobody is left to tell when standard error is gone.
    let _written = std::io::stderr().write_all(line.as_bytes());
}
