//! The scout: heeler's eyes on the network, in a cage.
//!
//! A role of its own process: unprivileged, without capabilities, without a file to write. It is told
//! what to probe and answers with numbers and short texts; it decides nothing. What somebody who takes it
//! over can do is say false things about its own checks (and so trigger their rules) or nothing at all; and
//! use the logins of those checks, which it has while they are under way.
//!
//! A second one, of its own process too, delivers mail, so that what reads the network for the checks never
//! shares memory with its passwords. Who takes that one over can withhold mail, and has the passwords of the
//! mail servers; nothing else.
#![forbid(unsafe_code)]

mod line;
mod mail;
mod packets;
mod probes;
mod pulse;

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use crate::model::process::{Gid, Uid};
use crate::sys::sandbox;

/// Enters the role: `heeler scout ROLE USER`, where `USER` is `UID:GID` or `same`. Only the keeper calls
/// this; anything that is not as it passes it ends with code 2.
#[must_use]
pub fn run(role: Option<&str>, user: Option<&str>) -> ExitCode {
    let entered = || -> Result<OwnedFd, String> {
        let socket = sandbox::inherited_socket().map_err(|error| error.to_string())?;
        sandbox::enter(parse_user(user)?)?;
        Ok(socket)
    };
    let Ok(socket) = entered() else { return ExitCode::from(2) };
    match role {
        Some("mail") => mail::run(socket),
        Some("probe") => probes::run(socket),
        Some(_) | None => ExitCode::from(2),
    }
}

fn parse_user(user: Option<&str>) -> Result<Option<(Uid, Gid)>, String> {
    let user = user.ok_or("no user")?;
    if user == "same" {
        return Ok(None);
    }
    let (uid, gid) = user.split_once(':').ok_or("not a user")?;
    let number = |text: &str| text.parse::<u32>().map_err(|error| error.to_string());
    Ok(Some((Uid(number(uid)?), Gid(number(gid)?))))
}
