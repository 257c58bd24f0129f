//! The log: one line a happening, on standard error (under systemd that is the journal). The loop never
//! waits for it: a reader that stops costs lines, which are counted and said.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use crate::engine::effect::Level;
use crate::model::text::escape;
use crate::model::time::Wall;

const LINES_WAITING_MAX: usize = 4096;

/// The way into the log.
#[derive(Clone)]
pub(super) struct Log {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

enum Line {
    Text { at: Wall, level: Level, about: Box<str>, text: String },
    Flush(SyncSender<()>),
}

impl Log {
    /// Starts the log's thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let (lines, waiting) = sync_channel::<Line>(LINES_WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        std::thread::Builder::new().name("heeler-log".to_owned()).spawn(move || {
            while let Ok(line) = waiting.recv() {
                match line {
                    Line::Text { at, level, about, text } => write(at, level, &about, &text),
                    Line::Flush(done) => drop(done.try_send(())),
                }
                let lost = counter.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    write(
                        Wall::default(),
                        Level::Warning,
                        "heeler",
                        &format!("{lost} log lines were lost"),
                    );
                }
            }
        })?;
        Ok(Self { lines, lost })
    }

    /// Says something about heeler itself or a service.
    pub(super) fn say(&self, at: Wall, level: Level, about: &str, text: impl Into<String>) {
        let line = Line::Text { at, level, about: about.into(), text: text.into() };
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits a moment until what was said is written.
    pub(super) fn flush(&self, limit: std::time::Duration) {
        let (done, written) = sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            let _in_time = written.recv_timeout(limit);
        }
    }
}

fn write(at: Wall, level: Level, about: &str, text: &str) {
    let time = i64::try_from(at.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .filter(|_| at != Wall::default())
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
