//! Where log lines go: standard error, the journal's own protocol, syslog, a file. All on the log's thread:
//! any of them may be slow, or gone.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use crate::config::settings::LogTo;
use crate::config::trust::{Refusal, Rule};
use crate::engine::effect::Level;
use crate::keeper::log::{Event, Line, OWN};
use crate::model::limits;
use crate::model::process::Uid;
use crate::model::text::escape;
use crate::model::time::Wall;

/// systemd.journal-fields(7), "Journal Native Protocol".
const JOURNAL: &str = "/run/systemd/journal/socket";
/// syslog(3).
const SYSLOG: &str = "/dev/log";
/// The facility "daemon" (syslog(3)), as the priority counts it.
const DAEMON: u8 = 3 << 3;
/// How long a reader that is behind is waited for, for each line.
const READER_PATIENCE: Duration = Duration::from_millis(250);
/// How often it is looked whether the file was moved away.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where lines go.
pub(super) enum Sink {
    Stderr,
    Journal(Datagrams),
    Syslog(Datagrams),
    File(LogFile),
}

impl Sink {
    /// The journal, where it is what standard error is connected to (systemd.exec(5), `JOURNAL_STREAM`).
    pub(super) fn by_default(journal_stream: Option<&OsStr>) -> Self {
        let same = journal_stream.and_then(OsStr::to_str).is_some_and(|said| {
            let facts = nix::sys::stat::fstat(io::stderr());
            facts.is_ok_and(|facts| said == format!("{}:{}", facts.st_dev, facts.st_ino))
        });
        let journal = same.then(|| Datagrams::to(JOURNAL).ok()).flatten();
        journal.map_or(Self::Stderr, Self::Journal)
    }

    /// What the settings say. The error is a sentence.
    pub(super) fn of(to: &LogTo) -> Result<Self, String> {
        let socket =
            |path| Datagrams::to(path).map_err(|error| format!("failed to make a socket: {error}"));
        match to {
            LogTo::Journal => socket(JOURNAL).map(Self::Journal),
            LogTo::Syslog => socket(SYSLOG).map(Self::Syslog),
            LogTo::File(path) => LogFile::open(path).map(Self::File),
        }
    }

    /// Its name for people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Stderr => "standard error".to_owned(),
            Self::Journal(_) => "the journal".to_owned(),
            Self::Syslog(_) => "syslog".to_owned(),
            Self::File(file) => file.path.display().to_string(),
        }
    }

    /// Whether somebody may be watching it who will see nothing more.
    pub(super) fn is_stderr(&self) -> bool {
        matches!(self, Self::Stderr)
    }

    /// Begins the file anew, where its name now leads.
    pub(super) fn reopen(&mut self) {
        if let Self::File(file) = self {
            file.look_at = Instant::now();
        }
    }

    /// Writes a line. One that was not taken is lost.
    pub(super) fn write(&mut self, line: &Line) -> io::Result<()> {
        match self {
            Self::Stderr => {
                // Nobody is left to tell when standard error is gone.
                let _written = io::stderr().write_all(plain(line).as_bytes());
                Ok(())
            }
            Self::Journal(socket) => socket.send(&native(line)),
            Self::Syslog(socket) => socket.send(classic(line).as_bytes()),
            Self::File(file) => file.write(&plain(line)),
        }
    }

    /// Says on standard error that lines are being lost; where the journal is, that would go there, too.
    pub(super) fn complain(&self, error: &io::Error) {
        match self {
            Self::Stderr | Self::Journal(_) => {}
            Self::Syslog(_) | Self::File(_) => {
                let words = self.words();
                let text = format!("heeler: failed to write the log to {words}: {error}\n");
                let _written = io::stderr().write_all(text.as_bytes());
            }
        }
    }
}

/// The line as a person reads it.
fn plain(line: &Line) -> String {
    let Line { at, about, .. } = line;
    let time = zoned(*at)
        .map_or_else(String::new, |time| format!("{} ", time.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z")));
    format!("{time}{about}: {}{}\n", word(line.level), text(line))
}

/// The line for syslog, as RFC 3164 has it.
fn classic(line: &Line) -> String {
    let priority = DAEMON | severity(line.level);
    let time = zoned(line.at).unwrap_or_else(jiff::Zoned::now).strftime("%b %e %H:%M:%S");
    let (own, word) = (std::process::id(), word(line.level));
    format!("<{priority}>{time} heeler[{own}]: {}{word}{}", prefix(line), text(line))
}

/// The line for the journal. No value has a line break in it, so none needs the binary form.
fn native(line: &Line) -> Vec<u8> {
    let mut fields = format!(
        "MESSAGE={}{}\nPRIORITY={}\nSYSLOG_FACILITY={}\nSYSLOG_IDENTIFIER=heeler\n",
        prefix(line),
        text(line),
        severity(line.level),
        DAEMON >> 3,
    );
    let service = Some(&*line.about).filter(|about| *about != OWN);
    let Event { name, incident } = line.event.as_ref().unwrap_or(&Event::NONE);
    let more = [
        ("HEELER_SERVICE", service),
        ("HEELER_EVENT", Some(*name).filter(|name| !name.is_empty())),
        ("HEELER_INCIDENT", incident.as_deref()),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            fields.push_str(&format!("{name}={}\n", escape(value)));
        }
    }
    fields.into_bytes()
}

/// Which service it is about; not where the identifier says it already.
fn prefix(line: &Line) -> String {
    if &*line.about == OWN { String::new() } else { format!("{}: ", line.about) }
}

fn text(line: &Line) -> String {
    let mut text = escape(&line.text);
    if text.len() > limits::LOG_LINE_BYTES_MAX {
        let fits = |at: &usize| text.is_char_boundary(*at);
        text.truncate((0..=limits::LOG_LINE_BYTES_MAX).rev().find(fits).unwrap_or(0));
        text.push_str("...");
    }
    text
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Info => "",
        Level::Warning => "warning: ",
        Level::Error => "error: ",
    }
}

/// As syslog(3) counts.
fn severity(level: Level) -> u8 {
    match level {
        Level::Info => 6,
        Level::Warning => 4,
        Level::Error => 3,
    }
}

fn zoned(at: Wall) -> Option<jiff::Zoned> {
    let ms = i64::try_from(at.0).ok()?;
    let time = jiff::Timestamp::from_millisecond(ms).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::system()))
}

/// A socket and to whom it speaks: looked up by name each time, since a reader that was restarted is
/// another one.
pub(super) struct Datagrams {
    socket: UnixDatagram,
    to: PathBuf,
}

impl Datagrams {
    pub(super) fn to(path: impl Into<PathBuf>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(READER_PATIENCE))?;
        Ok(Self { socket, to: path.into() })
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, &self.to).map(|_| ())
    }
}

/// A file of heeler's own, and the name it is looked for under once it was moved away.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    look_at: Instant,
}

impl LogFile {
    fn open(path: &Path) -> Result<Self, String> {
        let file = open(path)?;
        Ok(Self { path: path.to_owned(), file, look_at: Instant::now() + LOOK_AGAIN })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let now = Instant::now();
        if now >= self.look_at {
            self.look_at = now + LOOK_AGAIN;
            if self.was_moved()? {
                self.file = open(&self.path).map_err(io::Error::other)?;
            }
        }
        self.file.write_all(line.as_bytes())
    }

    /// Whether the name leads to another file by now.
    fn was_moved(&self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) => Ok((own.dev(), own.ino()) != (there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Opens the log file, made where absent. Nobody else may lead heeler's pen elsewhere: whatever the name
/// leads to must be a file of heeler's own with no other name.
fn open(path: &Path) -> Result<File, String> {
    let shown = escape(&path.to_string_lossy());
    let fail = |why: String| format!("failed to open the log {shown}: {why}");
    let own = Uid(nix::unistd::geteuid().as_raw());
    let name = path.file_name().ok_or_else(|| fail("it is no file name".to_owned()))?;
    let path = folder(path, own).map_err(fail)?.join(name);
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|error| fail(error.to_string()))?;
    let facts = file.metadata().map_err(|error| fail(error.to_string()))?;
    if !facts.is_file() || facts.nlink() != 1 || Uid(facts.uid()) != own {
        let what = format!("it has to be a file of uid {own} with no other name; move it away");
        return Err(fail(what));
    }
    Ok(file)
}

/// The directory of the log. A group may write in it, as in /var/log of some distributions, since what is
/// opened there is judged by itself; above it only the trusted may.
fn folder(path: &Path, own: Uid) -> Result<PathBuf, String> {
    let rule = Rule::root_and([own]);
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    let strict = match rule.resolve(dir) {
        Ok(resolved) => return Ok(resolved.path),
        Err(Refusal::Io(error)) => return Err(error.to_string()),
        Err(Refusal::Unsafe { message, hint }) => format!("{message}; {hint}"),
    };
    let above = dir.parent().and_then(|above| rule.resolve(above).ok());
    let (Some(above), Some(name)) = (above, dir.file_name()) else { return Err(strict) };
    let dir = above.path.join(name);
    let facts = fs::symlink_metadata(&dir).map_err(|error| error.to_string())?;
    if facts.is_dir() { Ok(dir) } else { Err(strict) }
}

impl Event {
    const NONE: Self = Self { name: "", incident: None };
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn line(about: &str, text: &str) -> Line {
        let at = Wall(1_777_857_302_113);
        Line { at, level: Level::Warning, about: about.into(), text: text.to_owned(), event: None }
    }

    /// What a reader at a socket gets of one line.
    fn heard(sink: fn(Datagrams) -> Sink, line: &Line) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let reader = UnixDatagram::bind(dir.path().join("socket")).expect("binds");
        let to = Datagrams::to(dir.path().join("socket")).expect("a socket");
        sink(to).write(line).expect("is taken");
        let mut bytes = vec![0; 1 << 16];
        let n = reader.recv(&mut bytes).expect("something");
        String::from_utf8(bytes[..n].to_vec()).expect("text")
    }

    #[test]
    fn the_journal_gets_fields_and_foreign_text_makes_none() {
        let mut told = line("shop", "it said \"x\nPRIORITY=0\u{1b}[2J\"");
        told.event = Some(Event { name: "fired", incident: Some("shop.1.2".to_owned()) });
        let heard = heard(Sink::Journal, &told);
        let expected = "MESSAGE=shop: it said \"x\\nPRIORITY=0\\x1b[2J\"\nPRIORITY=4\nSYSLOG_FACILITY=3\n\
                        SYSLOG_IDENTIFIER=heeler\nHEELER_SERVICE=shop\nHEELER_EVENT=fired\n\
                        HEELER_INCIDENT=shop.1.2\n";
        assert_eq!(heard, expected);
    }

    #[test]
    fn what_is_about_heeler_itself_says_its_name_once() {
        let journal = heard(Sink::Journal, &line("heeler", "reading"));
        assert!(journal.starts_with("MESSAGE=reading\n"), "{journal}");
        assert!(!journal.contains("HEELER_"), "{journal}");
        let syslog = heard(Sink::Syslog, &line("heeler", "x\n<0>forged"));
        assert!(syslog.starts_with("<28>May  4 "), "{syslog}");
        let tail = format!(" heeler[{}]: warning: x\\n<0>forged", std::process::id());
        assert!(syslog.ends_with(&tail), "{syslog}");
        let of_service = heard(Sink::Syslog, &line("shop", "down"));
        assert!(of_service.ends_with("]: shop: warning: down"), "{of_service}");
    }

    #[test]
    fn a_line_is_bounded() {
        let text = "\u{1f415}".repeat(limits::LOG_LINE_BYTES_MAX);
        let heard = heard(Sink::Journal, &line("shop", &text));
        assert!(heard.len() < limits::LOG_LINE_BYTES_MAX + 200, "{}", heard.len());
        assert!(heard.contains("\u{1f415}...\n"));
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("heeler.log");
        let mut sink = Sink::of(&LogTo::File(path.clone())).expect("opens");
        sink.write(&line("shop", "first")).expect("writes");
        fs::rename(&path, dir.path().join("heeler.log.1")).expect("renames");
        sink.reopen();
        sink.write(&line("shop", "second")).expect("writes");
        let read = |path: &Path| fs::read_to_string(path).expect("reads");
        assert!(read(&path).ends_with("shop: warning: second\n"), "{}", read(&path));
        let old = read(&dir.path().join("heeler.log.1"));
        assert!(old.contains("first") && !old.contains("second"), "{old}");
        // Without a word, too, and not before it is due to be looked at.
        fs::remove_file(&path).expect("removes");
        let Sink::File(file) = &mut sink else { panic!("a file") };
        file.look_at = Instant::now();
        sink.write(&line("shop", "third")).expect("writes");
        assert!(read(&path).ends_with("third\n"));
    }

    #[test]
    fn a_pen_is_led_nowhere_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let precious = dir.path().join("precious");
        fs::write(&precious, "precious").expect("writes");
        let log = dir.path().join("log");
        let refused = |what: &str| {
            let opened = Sink::of(&LogTo::File(log.clone()));
            assert!(opened.is_err_and(|why| why.contains("failed to open the log")), "{what}");
            fs::remove_file(&log).or_else(|_| fs::remove_dir(&log)).expect("removes");
        };
        symlink(&precious, &log).expect("links");
        refused("a link");
        fs::hard_link(&precious, &log).expect("links");
        refused("a second name");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        refused("a FIFO");
        fs::create_dir(&log).expect("a directory");
        refused("a directory");
        assert_eq!(fs::read_to_string(&precious).expect("reads"), "precious");
        // A link on the way that somebody else could turn elsewhere.
        let open = dir.path().join("open");
        fs::create_dir(&open).expect("creates");
        symlink(dir.path(), open.join("way")).expect("links");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&open, mode).expect("chmod");
        let through = Sink::of(&LogTo::File(open.join("way/log")));
        assert!(through.is_err_and(|why| why.contains("writable by everybody")));
        // In it there is no harm: what is opened is judged.
        assert!(Sink::of(&LogTo::File(open.join("log"))).is_ok());
    }
}
