//! `type = "file"`: that a file is there, whose it is, what is in it, and what it gained.
//!
//! Only regular files are ever read, and a line of one is shown only when nobody else could have chosen
//! which file that is ([`place`]). Sources: inode(7) for times and modes; FIPS 180-4 for the checksums.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::{FileStat, fstat};
use ring::digest::{self, Context};
use serde::{Deserialize, Serialize};

use crate::checks::given::{Given, Key, KeyKind, Wrong};
use crate::checks::place::{self, Links, Miss, Place, Reach};
use crate::checks::rights::{self, Rights};
use crate::checks::tail::{self, Pattern, Seat, Wanted};
use crate::checks::{CheckType, Files, Probe, Unsaid, fingerprint};
use crate::model::limits;
use crate::model::metric::{Metric, Value};
use crate::model::observation::{FailedBy, Observation, Outcome};
use crate::model::text::{Untrusted, escape};
use crate::model::time::Now;
use crate::model::units::{show_duration, show_size};

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::Matches, Metric::Size, Metric::Age],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(5),
    read: |given| settings(given).map(|settings| Probe::Files(Files::File(settings))),
};

const KEYS: [Key; 10] = [
    Key { name: "path", kind: KeyKind::Path, example: "/var/log/shop.log" },
    Key { name: "exists", kind: KeyKind::OneOf(&["yes", "no"]), example: "no" },
    Key { name: "follow", kind: KeyKind::Flag, example: "true" },
    rights::OWNER,
    rights::GROUP,
    rights::MODE,
    Key { name: "checksum", kind: KeyKind::Text, example: "sha256" },
    Key { name: "max_read", kind: KeyKind::Size, example: "64MiB" },
    Key { name: "content", kind: KeyKind::Pattern, example: "ERROR|FATAL" },
    Key { name: "ignore", kind: KeyKind::Pattern, example: "connection reset" },
];

/// What to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    path: PathBuf,
    presence: Presence,
    links: Links,
    rights: Rights,
    checksum: Option<Checksum>,
    max_read_bytes: u64,
    wanted: Option<Wanted>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Presence {
    Needed,
    Forbidden,
}

/// A checksum to take, and what it has to be.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Checksum {
    algorithm: Algorithm,
    expected_hex: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    Sha256,
    Sha1,
}

/// What a look leaves for the next.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Past {
    /// Where the reading of lines ended.
    seat: Option<Seat>,
    /// The last checksum, for as long as the file is unchanged.
    digest: Option<Digest>,
}

/// A checksum that was taken of a file in this state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Digest {
    stamp: [i64; 7],
    algorithm: Algorithm,
    hex: String,
}

/// What is written down for the next keeper.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Of the settings that say which file it is.
    place: u64,
    past: Past,
}

fn settings(given: &Given) -> Result<Settings, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let path = given.path("path").map(PathBuf::from);
    if path.is_none() {
        wrong.push(Wrong::new("path", "this check does not say `path`", ""));
    }
    let presence =
        if given.text("exists") == Some("no") { Presence::Forbidden } else { Presence::Needed };
    if presence == Presence::Forbidden {
        let others = ["owner", "group", "mode", "checksum", "content", "ignore"];
        wrong.extend(others.into_iter().filter(|key| given.has(key)).map(|key| {
            let message = format!("`{key}` says nothing of a file that must not exist");
            Wrong::new(key, message, "leave it out, or leave out exists = \"no\"")
        }));
    }
    if given.has("ignore") && !given.has("content") {
        let hint = "content = \"...\" says which lines to look for";
        wrong.push(Wrong::new("ignore", "`ignore` takes lines out of `content`", hint));
    }
    let mut pattern = |key| match given.text(key).map(Pattern::new)? {
        Ok(pattern) => Some(pattern),
        Err(why) => {
            wrong.push(Wrong::new(key, format!("`{key}` is no regular expression: {why}"), ""));
            None
        }
    };
    let (content, ignore) = (pattern("content"), pattern("ignore"));
    let rights = Rights::read(given).map_err(|error| wrong.push(error));
    let checksum = given.text("checksum").map_or(Ok(None), parse_checksum);
    let checksum = checksum.map_err(|error| wrong.push(error));
    match (path, rights, checksum) {
        (Some(path), Ok(rights), Ok(checksum)) if wrong.is_empty() => Ok(Settings {
            path,
            presence,
            links: if given.flag("follow") { Links::Follow } else { Links::Refuse },
            rights,
            checksum,
            max_read_bytes: given.number("max_read").unwrap_or(limits::CHECKSUM_BYTES_MAX),
            wanted: content.map(|content| Wanted { content, ignore }),
        }),
        _ => Err(wrong),
    }
}

/// `sha256`, `sha1`, `none`, or one of the first two with what it has to be behind a colon.
fn parse_checksum(text: &str) -> Result<Option<Checksum>, Wrong> {
    let (word, hex) = text.split_once(':').map_or((text, None), |(word, hex)| (word, Some(hex)));
    let algorithm = match word {
        "none" if hex.is_none() => return Ok(None),
        "sha256" => Algorithm::Sha256,
        "sha1" => Algorithm::Sha1,
        _ => {
            let message = format!("{:?} is not a checksum", escape(text));
            let hint = "write \"sha256\" to notice a change, \"sha256:...\" for one that must stay as it is";
            return Err(Wrong::new("checksum", message, hint));
        }
    };
    let digits = 2 * algorithm.ring().output_len();
    let expected_hex = hex.map(str::to_ascii_lowercase);
    if let Some(hex) = &expected_hex
        && (hex.len() != digits || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        let message = format!("a checksum by {word} is {digits} hexadecimal digits");
        return Err(Wrong::new("checksum", message, &format!("`{word}sum FILE` prints it")));
    }
    Ok(Some(Checksum { algorithm, expected_hex }))
}

impl Algorithm {
    fn ring(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha1 => "sha1",
        }
    }
}

/// What has to be written down, so that no line is missed while no heeler runs.
pub(super) fn keep(settings: &Settings, past: &Past) -> Option<Vec<u8>> {
    let kept = Kept { place: settings.place(), past: past.clone() };
    serde_json::to_vec(&kept).ok()
}

/// Reads it back.
pub(super) fn recall(settings: &Settings, kept: &[u8]) -> Option<Past> {
    let kept: Kept = serde_json::from_slice(kept).ok()?;
    (kept.place == settings.place()).then_some(kept.past)
}

impl Settings {
    /// Stands for which file it is. A new `content` goes on where the old one was: what is written
    /// while the configuration is changed is not missed.
    fn place(&self) -> u64 {
        let links = match self.links {
            Links::Refuse => b"refuse".as_slice(),
            Links::Follow => b"follow",
        };
        let lines = if self.wanted.is_some() { b"lines".as_slice() } else { b"" };
        fingerprint([self.path.as_os_str().as_encoded_bytes(), links, lines])
    }
}

/// Looks once.
#[must_use]
pub fn look(settings: &Settings, past: Option<Past>, now: Now) -> (Observation, Option<Past>) {
    let past = past.unwrap_or_default();
    let place = match place::find(&settings.path, settings.links) {
        Ok(place) => place,
        Err(Miss::Absent(why)) => {
            let mut seen = match settings.presence {
                Presence::Needed => Observation::failed(&why),
                Presence::Forbidden => Observation::ok(),
            };
            seen.fingerprint = Some(fingerprint([]));
            seen.detail = Untrusted::from(why.as_str());
            return (seen, Some(Past { seat: past.seat.or(Some(Seat::NoFile)), digest: None }));
        }
        Err(miss) => return (miss.into(), Some(past)),
    };
    let age = age(&place.stat, now);
    if settings.presence == Presence::Forbidden {
        let path = settings.path.display();
        let ago = show_duration(age);
        let why = format!("{path} exists: it is {}, last changed {ago} ago", place.is_a());
        let mut seen = Observation::failed(&why).with(Metric::Age, Value::Duration(age));
        seen.fingerprint = Some(fingerprint([b"there".as_slice()]));
        return (seen, Some(past));
    }
    if !place.is_file() {
        let why = format!("{} is {}, not a file", settings.path.display(), place.is_a());
        let mut seen = Observation::failed(&why);
        seen.fingerprint = Some(fingerprint([place.is_a().as_bytes()]));
        return (seen, Some(past));
    }
    look_at(settings, &place, past, now)
}

/// Looks at a regular file.
fn look_at(
    settings: &Settings,
    place: &Place,
    past: Past,
    now: Now,
) -> (Observation, Option<Past>) {
    let (mut wrong, mut untold) = (Vec::new(), Vec::new());
    match settings.rights.complaints(&place.stat) {
        Ok(complaints) => wrong.extend(complaints),
        Err(why) => untold.push(why),
    }
    let mut digest = None;
    if let Some(checksum) = &settings.checksum {
        match take(checksum.algorithm, settings.max_read_bytes, place, past.digest) {
            Ok(taken) => {
                let other = checksum.expected_hex.as_ref().filter(|hex| **hex != taken.hex);
                if let Some(expected) = other {
                    let name = checksum.algorithm.name();
                    wrong.push(format!("its {name} is {}, not {expected}", taken.hex));
                }
                digest = Some(taken);
            }
            Err(why) => untold.push(why),
        }
    }
    let mut seat = past.seat;
    let mut matches = None;
    let mut failed_by = FailedBy::State;
    if let Some(wanted) = &settings.wanted {
        match tail::follow(wanted, place, seat.as_ref()) {
            Ok((heard, next)) => {
                seat = Some(next);
                matches = Some(heard.matches);
                if heard.matches > 0 && wrong.is_empty() {
                    failed_by = FailedBy::Lines;
                }
                wrong.extend(heard_in_words(&heard));
                if heard.unread_bytes > limits::CONTENT_BEHIND_BYTES_MAX {
                    let left = show_size(heard.unread_bytes);
                    untold.push(format!(
                        "it grows faster than it is read, {left} are left: use a smaller `every`"
                    ));
                }
            }
            Err(error) => untold.push(format!("failed to read its lines: {error}")),
        }
    }
    let size = u64::try_from(place.stat.st_size).unwrap_or(0);
    let path = settings.path.display();
    let told =
        |words: Vec<String>| Untrusted::from(format!("{path}: {}", words.join("; ")).as_str());
    let state = state(&place.stat, settings.checksum.as_ref().map(|_| digest.as_ref()));
    let mut seen = Observation::of(if !wrong.is_empty() {
        Outcome::Failed(told(wrong))
    } else if !untold.is_empty() {
        Outcome::Unknown(told(untold))
    } else {
        Outcome::Ok
    });
    seen = seen
        .with(Metric::Size, Value::Bytes(size))
        .with(Metric::Age, Value::Duration(age(&place.stat, now)));
    if let Some(matches) = matches {
        seen = seen.with(Metric::Matches, Value::Count(matches));
    }
    seen.failed_by = failed_by;
    seen.fingerprint = state.as_ref().map(|state| fingerprint([state.as_bytes()]));
    seen.detail = Untrusted::from(state.unwrap_or_default().as_str());
    // A checksum of a file that changed just now could stand for two contents: clocks of files are coarse.
    let fresh = |digest: &Digest| now.wall.0 / 1000 <= digest.stamp[5].max(0).cast_unsigned() + 2;
    let digest = digest.filter(|digest| !fresh(digest));
    (seen, Some(Past { seat, digest }))
}

/// What lines that matched are told as.
fn heard_in_words(heard: &tail::Heard) -> Option<String> {
    let first = heard.first.as_deref()?;
    let count = match heard.matches {
        1 => "a new line matches".to_owned(),
        many => format!("{many} new lines match"),
    };
    Some(match heard.reach.unwrap_or(Reach::Planted) {
        Reach::Plain => format!("{count}: {}", escape(&String::from_utf8_lossy(first))),
        Reach::Planted => {
            format!("{count}; not shown, because others can choose which file this is")
        }
    })
}

/// What `changed` is about, in words: the content (by its checksum, or else by size and time), owner
/// and mode. `None` where it cannot be told. The inode is not in it: a file put in place anew with
/// the same content is the same.
fn state(stat: &FileStat, digest: Option<Option<&Digest>>) -> Option<String> {
    let content = match digest {
        None => {
            format!("{} bytes, mtime {}.{:09}", stat.st_size, stat.st_mtime, stat.st_mtime_nsec)
        }
        Some(digest) => {
            let digest = digest?;
            format!("{} {}", digest.algorithm.name(), digest.hex)
        }
    };
    Some(format!("{content}, {}", rights::told(stat)))
}

/// How long ago it was last written; zero where that is in the future.
pub(super) fn age(stat: &FileStat, now: Now) -> Duration {
    let nanos = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    let ms = i128::from(now.wall.0) - nanos / 1_000_000;
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// What changes when a file does. The change time is in it because nobody can set that one.
fn stamp(stat: &FileStat) -> [i64; 7] {
    [
        stat.st_dev.cast_signed(),
        stat.st_ino.cast_signed(),
        stat.st_size,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec,
    ]
}

/// Takes a checksum, or gives the last one where the file is unchanged since.
fn take(
    algorithm: Algorithm,
    max_read_bytes: u64,
    place: &Place,
    last: Option<Digest>,
) -> Result<Digest, String> {
    let before = stamp(&place.stat);
    if let Some(last) = last.filter(|last| last.stamp == before && last.algorithm == algorithm) {
        return Ok(last);
    }
    let size = u64::try_from(place.stat.st_size).unwrap_or(0);
    let large = || {
        let (size, most) = (show_size(size), show_size(max_read_bytes));
        format!("it has {size}, and a checksum is taken of at most {most} (`max_read`)")
    };
    if size > max_read_bytes {
        return Err(large());
    }
    let fail = |error: std::io::Error| format!("failed to read it: {error}");
    let mut file = place.open().map_err(fail)?;
    let hex = hash(algorithm, &mut file, max_read_bytes).map_err(fail)?.ok_or_else(large)?;
    let after = fstat(&file).map_err(|error| fail(error.into()))?;
    if stamp(&after) != before {
        return Err("it changed while it was read: its checksum comes with a later look".to_owned());
    }
    Ok(Digest { stamp: before, algorithm, hex })
}

/// The checksum in hexadecimal digits; `None` where there is more than may be read.
fn hash(algorithm: Algorithm, file: &mut File, most_bytes: u64) -> std::io::Result<Option<String>> {
    let mut context = Context::new(algorithm.ring());
    let mut chunk = vec![0; 64 << 10];
    let mut left = most_bytes;
    loop {
        let count = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(rest) = left.checked_sub(count as u64) else { return Ok(None) };
        left = rest;
        context.update(&chunk[..count]);
    }
    let digest = context.finish();
    Ok(Some(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()))
}
