//! The log: one line a happening, to where [`LogTo`] says; otherwise to the journal when a service manager
//! connected standard error to it, else to standard error. The loop never waits for it: a reader that
//! stops costs lines, which are counted and said.

mod sink;

use std::cell::RefCell;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use crate::config::settings::LogTo;
use crate::engine::effect::Level;
use crate::keeper::log::sink::Sink;
use crate::model::incident::Alert;
use crate::model::time::Wall;

const TURNS_WAITING_MAX: usize = 1024;
/// How long the last lines may take.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How soon it is tried again to get rid of lines where the last one was not taken.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What a line is about, when it is about heeler itself.
const OWN: &str = "heeler";

/// The way into the log. What is said is kept until [`Log::pass_on`]: its thread is woken once a turn, and
/// not while an action waits to begin.
pub(super) struct Log {
    said: RefCell<Vec<Line>>,
    lines: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

/// One happening.
struct Line {
    at: Wall,
    level: Level,
    about: Box<str>,
    text: String,
    event: Option<Event>,
}

/// What programs that read the journal may want to pick lines by.
pub(super) struct Event {
    /// What happened: one word.
    pub(super) name: &'static str,
    /// The incident that it belongs to ([`crate::model::incident::Incident::token`]).
    pub(super) incident: Option<String>,
}

enum Message {
    Lines(Vec<Line>),
    Flush(SyncSender<()>),
    To(LogTo),
    /// The file was moved away: a new one is begun.
    Reopen,
}

impl Log {
    /// Starts the log's thread. `journal_stream` is what the service manager said of standard error.
    pub(super) fn start(journal_stream: Option<OsString>) -> std::io::Result<Self> {
        Self::start_at(Sink::by_default(journal_stream.as_deref()))
    }

    fn start_at(sink: Sink) -> std::io::Result<Self> {
        let (lines, waiting) = sync_channel::<Message>(TURNS_WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let mut writer = Writer { sink, dropped: Arc::clone(&lost), lost: 0, again_at: None };
        std::thread::Builder::new()
            .name("heeler-log".to_owned())
            .spawn(move || writer.run(&waiting))?;
        Ok(Self { said: RefCell::new(Vec::new()), lines, lost })
    }

    /// Says something about heeler itself or a service.
    pub(super) fn say(&self, at: Wall, level: Level, about: &str, text: impl Into<String>) {
        self.line(Line { at, level, about: about.into(), text: text.into(), event: None });
    }

    /// The same, of an event that programs may look for.
    pub(super) fn say_event(&self, at: Wall, about: &str, event: Event, text: String) {
        let event = Some(event);
        self.line(Line { at, level: Level::Info, about: about.into(), text, event });
    }

    /// Says that an alert is on its way.
    pub(super) fn say_alert(&self, at: Wall, alert: &Alert) {
        let Alert { incident, kind, to, .. } = alert;
        let event = Event { name: kind.name(), incident: Some(incident.token()) };
        let to = if to.is_empty() { String::new() } else { format!(" to {}", to.join(", ")) };
        let text = format!("alert ({}){to}: {}", kind.name(), incident.title);
        self.say_event(at, incident.service.as_str(), event, text);
    }

    fn line(&self, line: Line) {
        self.said.borrow_mut().push(line);
    }

    /// From the next line on it goes there.
    pub(super) fn write_to(&self, to: LogTo) {
        self.pass_on();
        self.tell(Message::To(to));
    }

    /// Begins a new file, where it is one.
    pub(super) fn reopen(&self) {
        self.pass_on();
        self.tell(Message::Reopen);
    }

    fn tell(&self, message: Message) {
        // With so many turns waiting it is a log that hangs; the file is looked at anyway.
        let _taken = self.lines.try_send(message);
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
    pub(super) fn flush(&self, limit: Duration) {
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

/// The log's thread.
struct Writer {
    sink: Sink,
    /// Lines that did not come through to this thread.
    dropped: Arc<AtomicU64>,
    /// Lines that nobody took, and that this was not said of yet.
    lost: u64,
    /// The last line was not taken: when the loss is told again.
    again_at: Option<Instant>,
}

impl Writer {
    fn run(&mut self, waiting: &Receiver<Message>) {
        loop {
            let message = match self.again_at {
                None => waiting.recv().ok(),
                Some(at) => {
                    use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
                    match waiting.recv_timeout(at.saturating_duration_since(Instant::now())) {
                        Ok(message) => Some(message),
                        Err(Timeout) => {
                            self.tell_loss();
                            continue;
                        }
                        Err(Disconnected) => None,
                    }
                }
            };
            match message {
                Some(Message::Lines(lines)) => lines.iter().for_each(|line| self.write(line)),
                Some(Message::Flush(done)) => drop(done.try_send(())),
                Some(Message::To(to)) => self.turn_to(&to),
                Some(Message::Reopen) => self.sink.reopen(),
                None => return,
            }
            self.lost += self.dropped.swap(0, Ordering::Relaxed);
            if self.lost > 0 && self.again_at.is_none_or(|at| Instant::now() >= at) {
                self.tell_loss();
            }
        }
    }

    fn write(&mut self, line: &Line) {
        if let Err(error) = self.sink.write(line) {
            if self.lost == 0 {
                self.sink.complain(&error);
            }
            self.lost += 1;
            self.again_at.get_or_insert_with(|| Instant::now() + TRY_AGAIN);
        }
    }

    fn tell_loss(&mut self) {
        let lost = self.lost;
        let text = format!("{lost} log lines were lost");
        let told = own(Level::Warning, text, "log-lines-lost");
        match self.sink.write(&told) {
            Ok(()) => (self.lost, self.again_at) = (0, None),
            Err(_) => self.again_at = Some(Instant::now() + TRY_AGAIN),
        }
    }

    fn turn_to(&mut self, to: &LogTo) {
        match Sink::of(to) {
            Ok(sink) => {
                if self.sink.is_stderr() {
                    let text = format!("the log goes on in {}", sink.words());
                    self.write(&own(Level::Info, text, "log-moved"));
                }
                self.sink = sink;
            }
            Err(why) => {
                let text = format!("{why}; the log stays in {}", self.sink.words());
                self.write(&own(Level::Error, text, "log-not-moved"));
            }
        }
    }
}

/// A line of the log's own.
fn own(level: Level, text: String, name: &'static str) -> Line {
    let event = Some(Event { name, incident: None });
    Line { at: crate::keeper::now().wall, level, about: OWN.into(), text, event }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::keeper::log::sink::Datagrams;

    #[test]
    fn a_reader_that_stops_or_goes_costs_lines_that_are_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let reader = UnixDatagram::bind(&path).expect("binds");
        let log = Log::start_at(Sink::Syslog(Datagrams::to(&path).expect("a socket")));
        let log = log.expect("starts");
        let began = Instant::now();
        for n in 0..40 {
            log.say(Wall(1), Level::Info, "shop", format!("line {n}"));
            log.pass_on();
        }
        assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
        drop(reader);
        for n in 0..5 {
            log.say(Wall(1), Level::Info, "shop", format!("nobody hears line {n}"));
        }
        log.flush(Duration::from_secs(30));
        std::fs::remove_file(&path).expect("removes");
        let reader = UnixDatagram::bind(&path).expect("binds");
        log.say(Wall(1), Level::Info, "shop", "back");
        log.pass_on();
        reader.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        let mut told = String::new();
        while !told.contains("were lost") {
            let mut bytes = [0; 256];
            let n = reader.recv(&mut bytes).expect("the loss is told");
            told.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
        let lost: u32 = told
            .split(" log lines were lost")
            .next()
            .and_then(|text| text.rsplit(' ').next()?.parse().ok())
            .expect("a count");
        assert!((5..=45).contains(&lost), "{told}");
    }
}
