//! The lines that a file gained since the last look: each is matched once, whatever happened to the file.
//!
//! Where the last look ended is known by inode, offset and a hash of the bytes before it. The inode finds
//! a file that was renamed (logrotate's `create`); the hash tells a file that was emptied and grew again
//! (`copytruncate`), and an inode that was given to another file. The device is not asked: its number may
//! be another after a boot. In doubt a file is read from its beginning: a line told twice is better
//! than one missed. Sources: logrotate(8), inode(7).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::checks::fingerprint;
use crate::checks::place::{Place, Reach};
use crate::model::limits;

/// Which lines are looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Those that match this,
    pub content: Pattern,
    /// but not this.
    pub ignore: Option<Pattern>,
}

/// A regular expression on bytes.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// Where the last look ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seat {
    /// There was no file: the next one is read from its beginning.
    NoFile,
    /// Here.
    At(Mark),
}

/// A place in a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    inode: u64,
    offset_bytes: u64,
    /// Of the bytes before the offset.
    known_by: u64,
    line: Line,
}

/// What the line at a mark is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// A new one.
    Begins,
    /// The rest of one whose beginning was matched already.
    GoesOn,
}

/// What a look found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Heard {
    /// Lines that matched.
    pub matches: u64,
    /// The first of them, cut.
    pub first: Option<Vec<u8>>,
    /// Who could have chosen the file that the first of them is in.
    pub reach: Option<Reach>,
    /// What is left for the next look.
    pub unread_bytes: u64,
}

/// Whether a file may still grow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// A last line without an end may be half written.
    Open,
    /// Nobody writes it any more: what it ends with is a line.
    Final,
}

impl Pattern {
    /// Compiles one that the configuration has tried already.
    ///
    /// # Errors
    /// When it is none, or too large.
    pub fn new(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(text).size_limit(limits::REGEX_BYTES_MAX).build();
        built.map(Self).map_err(|error| error.to_string())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Wanted {
    fn is_met_by(&self, line: &[u8]) -> bool {
        let ignored = |line| self.ignore.as_ref().is_some_and(|ignore| ignore.0.is_match(line));
        self.content.0.is_match(line) && !ignored(line)
    }
}

/// Reads what is new. The first look ever only finds the end.
///
/// # Errors
/// As the kernel says; the next look begins where this one did.
pub fn follow(wanted: &Wanted, place: &Place, last: Option<&Seat>) -> io::Result<(Heard, Seat)> {
    let mut file = place.open()?;
    let meta = file.metadata()?;
    let start = Mark::start(meta.ino());
    let mut heard = Heard::default();
    let mut budget = limits::CONTENT_BYTES_PER_LOOK;
    let mark = match last {
        None => Mark::end(&file, meta.ino(), meta.len())?,
        Some(Seat::NoFile) => start,
        Some(Seat::At(mark)) if mark.inode == meta.ino() && mark.fits(&file) => mark.clone(),
        Some(Seat::At(mark)) => {
            let old = if mark.inode == meta.ino() {
                // Emptied, perhaps after a copy was made of it.
                place.beside(".1").filter(|_| mark.offset_bytes > 0)
            } else {
                place.sibling(mark.inode)
            };
            if let Some((mut old, reach)) = old.filter(|(old, _)| mark.fits(old)) {
                let from = Mark { inode: old.metadata()?.ino(), ..mark.clone() };
                // Its writer goes over to the new one when it is told to, which is later than the rename.
                let writer_is_here = meta.len() == 0 && mark.inode != meta.ino();
                let ending = if writer_is_here { Ending::Open } else { Ending::Final };
                let mark = read(wanted, &mut old, from, &mut budget, ending, &mut heard)?;
                heard.reach = heard.first.as_ref().map(|_| reach);
                if writer_is_here || heard.unread_bytes > 0 {
                    heard.unread_bytes = heard.unread_bytes.saturating_add(meta.len());
                    return Ok((heard, Seat::At(mark)));
                }
            }
            start
        }
    };
    let mark = read(wanted, &mut file, mark, &mut budget, Ending::Open, &mut heard)?;
    heard.reach = heard.reach.or_else(|| heard.first.as_ref().map(|_| place.reach));
    Ok((heard, Seat::At(mark)))
}

impl Mark {
    fn start(inode: u64) -> Self {
        Self { inode, offset_bytes: 0, known_by: fingerprint([]), line: Line::Begins }
    }

    /// The beginning of the last line, if it has no end yet; else the end.
    fn end(file: &File, inode: u64, size: u64) -> io::Result<Self> {
        let from = size.saturating_sub(limits::CONTENT_LINE_BYTES_MAX as u64);
        let mut last = vec![0; usize::try_from(size - from).unwrap_or(0)];
        if let Err(error) = file.read_exact_at(&mut last, from) {
            // Emptied just now: all that comes is new.
            let emptied = error.kind() == io::ErrorKind::UnexpectedEof;
            return if emptied { Ok(Self::start(inode)) } else { Err(error) };
        }
        let (offset_bytes, line) = match last.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => (from + end as u64 + 1, Line::Begins),
            None if from == 0 => (0, Line::Begins),
            None => (size, Line::GoesOn),
        };
        Ok(Self { inode, offset_bytes, known_by: known_by(file, offset_bytes)?, line })
    }

    /// Whether a file has, before the offset, what it had at the last look.
    fn fits(&self, file: &File) -> bool {
        known_by(file, self.offset_bytes).is_ok_and(|known_by| known_by == self.known_by)
    }
}

/// No file is known by this: bytes whose hash it is are read once more, and that is all.
const UNKNOWABLE: u64 = 0;

/// A hash of the bytes before an offset; an error where the file is shorter.
fn known_by(file: &File, offset_bytes: u64) -> io::Result<u64> {
    let count = offset_bytes.min(limits::CONTENT_KNOWN_BY_BYTES);
    let mut before = vec![0; usize::try_from(count).unwrap_or(0)];
    file.read_exact_at(&mut before, offset_bytes - count)?;
    // An empty part is not no part, so that a file of nothing is not one that was never read.
    Ok(if before.is_empty() { fingerprint([]) } else { fingerprint([before.as_slice()]) })
}

/// Reads lines from a mark on, as far as the budget goes, and says where it ended.
fn read(
    wanted: &Wanted,
    file: &mut File,
    from: Mark,
    budget_bytes: &mut u64,
    ending: Ending,
    heard: &mut Heard,
) -> io::Result<Mark> {
    file.seek(SeekFrom::Start(from.offset_bytes))?;
    let mut new = Vec::new();
    file.by_ref().take(*budget_bytes).read_to_end(&mut new)?;
    let all = (new.len() as u64) < *budget_bytes;
    *budget_bytes -= new.len() as u64;
    let mut line = from.line;
    let mut judge = |bytes: &[u8], line: Line| {
        let bytes = &bytes[..bytes.len().min(limits::CONTENT_LINE_BYTES_MAX)];
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if line == Line::Begins && wanted.is_met_by(bytes) {
            heard.matches += 1;
            let shown = &bytes[..bytes.len().min(limits::CONTENT_SHOWN_BYTES_MAX)];
            heard.first.get_or_insert_with(|| shown.to_vec());
        }
    };
    let mut rest = new.as_slice();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        judge(&rest[..end], line);
        line = Line::Begins;
        rest = &rest[end + 1..];
    }
    let over = rest.len() > limits::CONTENT_LINE_BYTES_MAX || (all && ending == Ending::Final);
    if over && !rest.is_empty() {
        judge(rest, line);
        line = Line::GoesOn;
    }
    if line == Line::GoesOn {
        rest = &[];
    }
    let offset_bytes = from.offset_bytes + (new.len() - rest.len()) as u64;
    heard.unread_bytes = if all { 0 } else { file.metadata()?.len().saturating_sub(offset_bytes) };
    // Emptied meanwhile, it must not be known again. What was heard of it counts.
    let known_by = known_by(file, offset_bytes).unwrap_or(UNKNOWABLE);
    Ok(Mark { inode: from.inode, offset_bytes, known_by, line })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::checks::place::{self, Links};

    /// A log, and a reader of it.
    struct Rig {
        dir: tempfile::TempDir,
        seat: Option<Seat>,
    }

    impl Rig {
        fn new(text: &[u8]) -> Self {
            let rig = Self { dir: tempfile::tempdir().expect("a directory"), seat: None };
            fs::write(rig.log(), text).expect("write");
            let mut rig = rig;
            assert_eq!(rig.look(), (0, None), "the first look only finds the end");
            rig
        }

        fn log(&self) -> PathBuf {
            self.dir.path().join("log")
        }

        fn rename(&self, to: &str) {
            fs::rename(self.log(), self.dir.path().join(to)).expect("rename");
        }

        fn append(&self, text: impl AsRef<[u8]>) {
            let mut log = File::options().append(true).create(true).open(self.log()).expect("open");
            log.write_all(text.as_ref()).expect("write");
        }

        fn whole(&mut self) -> Heard {
            let wanted = Wanted {
                content: Pattern::new("ERROR").expect("is one"),
                ignore: Some(Pattern::new("harmless").expect("is one")),
            };
            let place = place::find(Path::new(&self.log()), Links::Refuse).expect("is there");
            let (heard, seat) = follow(&wanted, &place, self.seat.as_ref()).expect("reads");
            // As over a restart of the keeper.
            let text = serde_json::to_string(&seat).expect("is JSON");
            self.seat = Some(serde_json::from_str(&text).expect("comes back"));
            heard
        }

        fn look(&mut self) -> (u64, Option<String>) {
            let heard = self.whole();
            let first = heard.first.map(|line| String::from_utf8_lossy(&line).into_owned());
            (heard.matches, first)
        }

        fn is_heard(&mut self, matches: u64, first: &str) {
            assert_eq!(self.look(), (matches, Some(first.to_owned())));
            assert_eq!(self.look(), (0, None), "each line once");
        }
    }

    #[test]
    fn new_lines_are_matched_once_and_whole() {
        let mut rig = Rig::new(b"ERROR before\nhalf a li");
        rig.append("ne ERROR 1\r\nERROR harmless\nfine\nERROR 2\nERR");
        rig.is_heard(2, "half a line ERROR 1");
        rig.append("OR 3");
        assert_eq!(rig.look(), (0, None), "it has no end yet");
        rig.append("\n");
        rig.is_heard(1, "ERROR 3");
        rig.append(b"\xff\x00ERROR\x1b[2J\n");
        rig.is_heard(1, "\u{fffd}\0ERROR\u{1b}[2J");
    }

    #[test]
    fn a_renamed_log_is_read_to_its_end() {
        for name in ["log.1", "log-20261121"] {
            let mut rig = Rig::new(b"one\n");
            rig.append("ERROR last of the old, without an end");
            rig.rename(name);
            rig.append("ERROR first of the new\n");
            rig.is_heard(2, "ERROR last of the old, without an end");
            rig.append("ERROR second\n");
            rig.is_heard(1, "ERROR second");
        }
    }

    #[test]
    fn a_renamed_log_is_followed_until_its_writer_goes_over_to_the_new_one() {
        let mut rig = Rig::new(b"one\n");
        let mut writer = File::options().append(true).open(rig.log()).expect("open");
        rig.rename("log.1");
        rig.append("");
        assert_eq!(rig.look(), (0, None));
        writer.write_all(b"ERROR after the rename\nERR").expect("write");
        rig.is_heard(1, "ERROR after the rename");
        writer.write_all(b"OR at last\n").expect("write");
        rig.append("ERROR in the new one\n");
        rig.is_heard(2, "ERROR at last");
    }

    #[test]
    fn a_log_that_was_taken_away_does_not_hide_the_new_one() {
        let mut rig = Rig::new(b"one\n");
        rig.append("ERROR lost with its file\n");
        fs::remove_file(rig.log()).expect("remove");
        rig.append("two\nERROR new\n");
        rig.is_heard(1, "ERROR new");
    }

    #[test]
    fn an_emptied_log_is_read_from_its_beginning_even_when_it_is_longer_now() {
        let mut rig = Rig::new(b"one\ntwo\nthree\n");
        fs::write(rig.log(), "ERROR short\n").expect("write");
        rig.is_heard(1, "ERROR short");
        fs::write(rig.log(), format!("ERROR begins\n{}", "more\n".repeat(100))).expect("write");
        rig.is_heard(1, "ERROR begins");
        fs::write(rig.log(), "").expect("write");
        assert_eq!(rig.look(), (0, None));
        rig.append("ERROR again\n");
        rig.is_heard(1, "ERROR again");
    }

    #[test]
    fn copytruncate_loses_no_line() {
        let mut rig = Rig::new(b"one\ntwo\n");
        rig.append("ERROR just before the copy\n");
        fs::copy(rig.log(), rig.dir.path().join("log.1")).expect("copy");
        fs::write(rig.log(), "ERROR after it\n").expect("write");
        rig.is_heard(2, "ERROR just before the copy");
    }

    /// Whoever owns the directory of a log has a file of others read under its name (not shown: it has two),
    /// and moves it aside like any old log. What comes in it then is still not theirs to choose and see.
    #[test]
    fn what_was_linked_from_elsewhere_is_not_shown_as_an_old_log_either() {
        for name in ["log.1", "log-20261121"] {
            let mut rig = Rig::new(b"");
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            fs::set_permissions(rig.dir.path(), open).expect("chmod");
            let elsewhere = tempfile::tempdir().expect("a directory");
            let secret = elsewhere.path().join("secret");
            fs::write(&secret, "secret\n").expect("write");
            fs::remove_file(rig.log()).expect("remove");
            fs::hard_link(&secret, rig.log()).expect("link");
            rig.whole();
            let mut writer = File::options().append(true).open(&secret).expect("open");
            writer.write_all(b"ERROR secret one\n").expect("write");
            assert_eq!(rig.whole().reach, Some(Reach::Planted));
            rig.rename(name);
            rig.append("");
            writer.write_all(b"ERROR secret two\n").expect("write");
            assert_eq!(rig.whole().reach, Some(Reach::Planted), "the writer is there still");
            writer.write_all(b"ERROR secret three\n").expect("write");
            rig.append("ERROR own\n");
            let heard = rig.whole();
            assert_eq!((heard.matches, heard.reach), (2, Some(Reach::Planted)));
            rig.append("ERROR own\n");
            assert_eq!(rig.whole().reach, Some(Reach::Plain));
        }
        // A copy that is none: its beginning is known, what follows is not.
        let mut rig = Rig::new(b"-----BEGIN\n");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(rig.dir.path(), open).expect("chmod");
        let elsewhere = tempfile::tempdir().expect("a directory");
        let secret = elsewhere.path().join("secret");
        fs::write(&secret, "-----BEGIN\nERROR secret\n").expect("write");
        fs::hard_link(&secret, rig.dir.path().join("log.1")).expect("link");
        fs::write(rig.log(), "").expect("write");
        let heard = rig.whole();
        assert_eq!((heard.matches, heard.reach), (1, Some(Reach::Planted)));
    }

    #[test]
    fn a_file_that_came_later_is_read_from_its_beginning() {
        let mut rig = Rig::new(b"");
        rig.seat = Some(Seat::NoFile);
        rig.append("ERROR at once\n");
        rig.is_heard(1, "ERROR at once");
    }

    #[test]
    fn one_look_reads_so_much_and_the_next_goes_on() {
        let mut rig = Rig::new(b"");
        let line = format!("ERROR {}\n", "x".repeat(993));
        rig.append(line.repeat(3000));
        let mut looks = Vec::new();
        while looks.last() != Some(&(0, 0)) {
            let heard = rig.whole();
            looks.push((heard.matches, heard.unread_bytes));
        }
        let all: u64 = looks.iter().map(|(matches, _)| matches).sum();
        assert_eq!(all, 3000, "{looks:?}");
        assert!(looks.len() == 4 && looks[0].1 > 1_900_000, "{looks:?}");
        // The old file is finished first, over as many looks as it takes.
        rig.append(line.repeat(3000));
        rig.rename("log.1");
        rig.append("ERROR new\n");
        let matches: Vec<_> = (0..4).map(|_| rig.whole().matches).collect();
        assert_eq!(matches.iter().sum::<u64>(), 3001, "{matches:?}");
        assert_eq!(rig.look(), (0, None));
    }

    #[test]
    fn a_line_without_end_is_cut_and_matched_once() {
        let mut rig = Rig::new(b"");
        rig.append(format!("ERROR {}", "y".repeat(3 << 20)));
        let matches: Vec<_> = (0..5).map(|_| rig.whole().matches).collect();
        assert_eq!(matches, [1, 0, 0, 0, 0]);
        rig.append("ERROR in its tail\nERROR next\n");
        rig.is_heard(1, "ERROR next");
        let mut long = Rig::new("z".repeat(100_000).as_bytes());
        long.append("ERROR\nERROR own\n");
        long.is_heard(1, "ERROR own");
    }
}
