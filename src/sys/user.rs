//! Users and groups as the machine's name service knows them (nsswitch.conf: files, LDAP, sssd).
//!
//! A look-up may hang and may parse bytes from the network: only a short-lived child does it, never
//! the keeper. What is not found is not found: there is no default account.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{self, Group, User, getgrouplist};

use crate::model::process::{Gid, Uid};
use crate::model::text::escape;

/// Everything a command's identity is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The user number; never the "no change" value of setresuid(2).
    pub uid: Uid,
    /// The primary group, or the configured one in its place.
    pub gid: Gid,
    /// Every group of the user, as `id` lists them (getgrouplist(3)).
    pub groups: Vec<Gid>,
    /// The home directory of the passwd entry; it may not exist.
    pub home: PathBuf,
    /// The login shell of the passwd entry; it may be `nologin` or empty.
    pub shell: PathBuf,
}

/// Why a name gave nobody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LookupError {
    /// There is no such user.
    NoUser(String),
    /// There is no such group.
    NoGroup(String),
    /// A number that setresuid(2) and setresgid(2) would take as "leave as it is".
    Reserved(String),
    /// The name service could not answer.
    Failed(String, Errno),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser(name) => {
                write!(f, "user not found: {} (see `getent passwd {0}`)", escape(name))
            }
            Self::NoGroup(name) => {
                write!(f, "group not found: {} (see `getent group {0}`)", escape(name))
            }
            Self::Reserved(name) => {
                write!(f, "{} has the number 4294967295, which means nobody at all", escape(name))
            }
            Self::Failed(name, errno) => {
                write!(f, "the name service failed to look up {}: {}", escape(name), errno.desc())
            }
        }
    }
}

/// Finds a user by name, or by the number of an existing entry; with `group` in place of the
/// primary group (the user's own groups stay). `None` is the user this process runs as.
///
/// # Errors
/// When there is none, or the name service fails. A number without an entry is "not found": it has
/// no groups and no home, and guessing them would be worse.
pub fn find(name: Option<&str>, group: Option<&str>) -> Result<Account, LookupError> {
    let user = match name {
        Some(name) => by_name_or_number(name)?,
        None => by_number(unistd::geteuid().as_raw())?,
    };
    let entry =
        CString::new(user.name.as_bytes()).map_err(|_| LookupError::NoUser(user.name.clone()))?;
    let groups = getgrouplist(&entry, user.gid)
        .map_err(|errno| LookupError::Failed(user.name.clone(), errno))?;
    let gid = match group {
        Some(group) => find_group(group)?,
        None => Gid(user.gid.as_raw()),
    };
    if user.uid.as_raw() == u32::MAX || gid.0 == u32::MAX {
        return Err(LookupError::Reserved(user.name));
    }
    Ok(Account {
        uid: Uid(user.uid.as_raw()),
        gid,
        groups: groups.into_iter().map(|gid| Gid(gid.as_raw())).collect(),
        name: user.name,
        home: user.dir,
        shell: user.shell,
    })
}

/// Finds a group by name, or by the number of an existing entry.
///
/// # Errors
/// When there is none, or the name service fails.
pub fn find_group(name: &str) -> Result<Gid, LookupError> {
    let mut found = Group::from_name(name);
    if let (Ok(None), Some(number)) = (&found, number(name)) {
        found = Group::from_gid(unistd::Gid::from_raw(number));
    }
    match found {
        Ok(Some(group)) => Ok(Gid(group.gid.as_raw())),
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH) => Err(LookupError::NoGroup(name.to_owned())),
        Err(errno) => Err(LookupError::Failed(name.to_owned(), errno)),
    }
}

fn by_name_or_number(name: &str) -> Result<User, LookupError> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH) => match number(name) {
            Some(number) => by_number(number),
            None => Err(LookupError::NoUser(name.to_owned())),
        },
        Err(errno) => Err(LookupError::Failed(name.to_owned(), errno)),
    }
}

fn by_number(uid: u32) -> Result<User, LookupError> {
    match User::from_uid(unistd::Uid::from_raw(uid)) {
        Ok(Some(user)) => Ok(user),
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH) => Err(LookupError::NoUser(uid.to_string())),
        Err(errno) => Err(LookupError::Failed(uid.to_string(), errno)),
    }
}

/// A plain decimal number: no sign, no blank.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_number_and_strangers_are_nobody() {
        let root = find(Some("root"), None).expect("root");
        assert_eq!((root.uid, root.gid), (Uid(0), Gid(0)));
        assert_eq!(find(Some("0"), None), Ok(root));
        for stranger in ["no-such-user", "", "4294967295", "3999999999", "+0", " 0", "-1", "root "]
        {
            let found = find(Some(stranger), None);
            assert!(matches!(found, Err(LookupError::NoUser(_))), "{stranger:?}: {found:?}");
        }
        assert!(matches!(find(Some("root"), Some("no-such-group")), Err(LookupError::NoGroup(_))));
    }
}
