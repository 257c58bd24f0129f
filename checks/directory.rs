//! `type = "directory"`: that a directory is there, whose it is, and how many entries it has.
//!
//! Its age is the time since its own mtime: since an entry was made, removed or renamed in it. A write to
//! a file in it does not count (inode(7)). Entries are those that readdir(3) gives, less `.` and `..`.

use std::path::PathBuf;
use std::time::Duration;

use crate::checks::given::{Given, Key, KeyKind, Wrong};
use crate::checks::place::{self, Links, Place};
use crate::checks::rights::{self, Rights};
use crate::checks::{CheckType, Files, Probe, Unsaid, file, fingerprint};
use crate::model::limits;
use crate::model::metric::{Metric, Value};
use crate::model::observation::{Observation, Outcome};
use crate::model::text::Untrusted;
use crate::model::time::Now;

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::Entries, Metric::Age],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(5),
    read: |given| settings(given).map(|settings| Probe::Files(Files::Directory(settings))),
};

const KEYS: [Key; 5] = [
    Key { name: "path", kind: KeyKind::Path, example: "/var/spool/shop" },
    Key { name: "follow", kind: KeyKind::Flag, example: "true" },
    rights::OWNER,
    rights::GROUP,
    Key { example: "0755", ..rights::MODE },
];

/// What to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    path: PathBuf,
    links: Links,
    rights: Rights,
}

fn settings(given: &Given) -> Result<Settings, Vec<Wrong>> {
    let missing = || Wrong::new("path", "this check does not say `path`", "");
    let path = given.path("path").map(PathBuf::from).ok_or_else(missing);
    match (path, Rights::read(given)) {
        (Ok(path), Ok(rights)) => {
            let links = if given.flag("follow") { Links::Follow } else { Links::Refuse };
            Ok(Settings { path, links, rights })
        }
        (path, rights) => Err([path.err(), rights.err()].into_iter().flatten().collect()),
    }
}

/// Looks once.
#[must_use]
pub fn look(settings: &Settings, now: Now) -> Observation {
    let place = match place::find(&settings.path, settings.links) {
        Ok(place) => place,
        Err(miss) => {
            let absent = matches!(miss, place::Miss::Absent(_));
            let mut seen = Observation::from(miss);
            seen.fingerprint = absent.then(|| fingerprint([]));
            return seen;
        }
    };
    let path = settings.path.display();
    if !place.is_directory() {
        let mut seen = Observation::failed(&format!("{path} is {}, not a directory", place.is_a()));
        seen.fingerprint = Some(fingerprint([place.is_a().as_bytes()]));
        return seen;
    }
    let entries = count(&place);
    let told = |why: String| Untrusted::from(format!("{path}: {why}").as_str());
    let outcome = match (settings.rights.complaints(&place.stat), &entries) {
        (Ok(wrong), _) if !wrong.is_empty() => Outcome::Failed(told(wrong.join("; "))),
        (Err(why), _) => Outcome::Unknown(told(why)),
        (Ok(_), Err(error)) => Outcome::Unknown(told(format!("failed to list it: {error}"))),
        (Ok(_), Ok(_)) => Outcome::Ok,
    };
    let age = file::age(&place.stat, now);
    let mut seen = Observation::of(outcome).with(Metric::Age, Value::Duration(age));
    if let Ok(entries) = entries {
        seen = seen.with(Metric::Entries, Value::Count(entries));
    }
    let rights = rights::told(&place.stat);
    let (mtime, nanos) = (place.stat.st_mtime, place.stat.st_mtime_nsec);
    let state = format!("mtime {mtime}.{nanos:09}, {rights}");
    seen.fingerprint = Some(fingerprint([state.as_bytes()]));
    seen.detail = Untrusted::from(state.as_str());
    seen
}

/// Its entries, up to the bound.
fn count(place: &Place) -> std::io::Result<u64> {
    let mut count = 0;
    for entry in place.list()?.take(limits::ENTRIES_MAX) {
        entry?;
        count += 1;
    }
    Ok(count)
}
