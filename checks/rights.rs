//! `owner`, `group` and `mode` of files and directories.
//!
//! Names are looked up in /etc/passwd and /etc/group and nowhere else: a name service may hang, may ask
//! the network, and heeler is root (promise 7). Users of a directory service are written as numbers.
//! Sources: passwd(5), group(5), inode(7).

use std::fs::File;
use std::io::Read;

use nix::sys::stat::FileStat;

use crate::checks::given::{Given, Key, KeyKind, Wrong};
use crate::model::limits;
use crate::model::text::escape;

/// The key of this name.
pub const OWNER: Key = Key { name: "owner", kind: KeyKind::Text, example: "root" };
/// The key of this name.
pub const GROUP: Key = Key { name: "group", kind: KeyKind::Text, example: "www-data" };
/// The key of this name.
pub const MODE: Key = Key { name: "mode", kind: KeyKind::Text, example: "0644" };

/// Whose it has to be, and who may do what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rights {
    owner: Option<Who>,
    group: Option<Who>,
    mode: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Who {
    Id(u32),
    Name(String),
}

impl Rights {
    /// What the keys ask for.
    ///
    /// # Errors
    /// When a mode is not one.
    pub fn read(given: &Given) -> Result<Self, Wrong> {
        let who = |key| given.text(key).map(who);
        let mode = given.text(MODE.name).map(parse_mode).transpose()?;
        Ok(Self { owner: who(OWNER.name), group: who(GROUP.name), mode })
    }

    /// What is not as it has to be, in words.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn complaints(&self, stat: &FileStat) -> Result<Vec<String>, String> {
        let mut out = Vec::new();
        let mut compare =
            |word: &str, who: &Option<Who>, id: u32, table: &str| -> Result<(), String> {
                let Some(who) = who else { return Ok(()) };
                let (wanted, name) = match who {
                    Who::Id(id) => (*id, id.to_string()),
                    Who::Name(name) => (look_up(name, table)?, escape(name)),
                };
                if id != wanted {
                    out.push(format!("its {word} is {id}, not {name}"));
                }
                Ok(())
            };
        compare("owner", &self.owner, stat.st_uid, "/etc/passwd")?;
        compare("group", &self.group, stat.st_gid, "/etc/group")?;
        let mode = stat.st_mode & 0o7777;
        if let Some(wanted) = self.mode.filter(|wanted| *wanted != mode) {
            out.push(format!("its mode is {mode:04o}, not {wanted:04o}"));
        }
        Ok(out)
    }
}

/// Whose a thing is, and who may do what, in one line.
#[must_use]
pub fn told(stat: &FileStat) -> String {
    format!("mode {:04o}, owner {}, group {}", stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)
}

fn who(text: &str) -> Who {
    text.parse().map_or_else(|_| Who::Name(text.to_owned()), Who::Id)
}

fn parse_mode(text: &str) -> Result<u32, Wrong> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    u32::from_str_radix(text, 8).ok().filter(|_| digits).ok_or_else(|| {
        let message = format!("`mode` is three or four octal digits, not {:?}", escape(text));
        Wrong::new(MODE.name, message, "for example: mode = \"0644\"")
    })
}

fn look_up(name: &str, table: &str) -> Result<u32, String> {
    let fail = |why: &str| format!("failed to look up {} in {table}: {why}", escape(name));
    let mut text = Vec::new();
    let file = File::open(table).map_err(|error| fail(&error.to_string()))?;
    file.take(limits::NAMES_FILE_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|error| fail(&error.to_string()))?;
    id_in(&text, name).ok_or_else(|| fail("it is not there; write its number instead"))
}

/// The third field of the line with this name.
fn id_in(table: &[u8], name: &str) -> Option<u32> {
    table.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        if fields.next() != Some(name.as_bytes()) {
            return None;
        }
        str::from_utf8(fields.nth(1)?).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::given::Setting;

    #[test]
    fn names_are_found_whole() {
        let table = b"root:x:0:0:root:/root:/bin/sh\nroo:x:7:7::/:\nodd\n:x:5\nbad:x:y:\n";
        assert_eq!(id_in(table, "root"), Some(0));
        assert_eq!(id_in(table, "roo"), Some(7));
        assert_eq!(["r", "odd", "bad", "x"].map(|name| id_in(table, name)), [None; 4]);
        assert_eq!(look_up("root", "/etc/group"), Ok(0));
        let why = look_up("no-such-user", "/etc/passwd").expect_err("nobody");
        assert!(why.ends_with("it is not there; write its number instead"), "{why}");
    }

    #[test]
    fn each_difference_is_told() {
        let mut given = Given::default();
        for (key, text) in [("owner", "root"), ("group", "12"), ("mode", "640")] {
            given.put(key, Setting::Text(text.to_owned()));
        }
        let rights = Rights::read(&given).expect("is right");
        let mut stat = nix::sys::stat::stat("/").expect("/");
        (stat.st_uid, stat.st_gid, stat.st_mode) = (33, 0, 0o104_755);
        let told = rights.complaints(&stat).expect("can be told").join("; ");
        let all = "its owner is 33, not root; its group is 0, not 12; its mode is 4755, not 0640";
        assert_eq!(told, all);
        (stat.st_uid, stat.st_gid, stat.st_mode) = (0, 12, 0o100_640);
        assert_eq!(rights.complaints(&stat), Ok(Vec::new()));
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!(parse_mode("0644"), Ok(0o644));
        assert_eq!(parse_mode("2755"), Ok(0o2755));
        for text in ["", "7", "64", "0999", "+644", "u=rw", "00644"] {
            assert!(parse_mode(text).is_err(), "{text}");
        }
    }
}
