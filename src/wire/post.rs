//! Keeper and the scout that mails: servers and letters in, what became of each out.
//!
//! What the keeper says is JSON in parts, because a letter may be longer than a packet: frames as in
//! [`super::scout`], each with a mark (1: the last part of its message) and bytes. What comes back was
//! written by somebody who has read bytes from the network: numbers and short texts, nothing else.
#![forbid(unsafe_code)]

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::limits;
use crate::model::text::Untrusted;
use crate::wire::scout::{Garbage, cut, frame, frames};

/// From the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToPost {
    /// The way out; said once, before any letter.
    Setup(Setup),
    /// A letter to deliver.
    Letter(Letter),
}

/// The way out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Who we say we are (EHLO): letters, digits, dots, dashes.
    pub hello: String,
    /// How long a connection may take.
    pub connect_ms: u64,
    /// How long each answer may take.
    pub command_ms: u64,
    /// How long one server may take for one mail.
    pub whole_ms: u64,
    /// In the order they are tried.
    pub servers: Vec<Server>,
}

/// One mail server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Server {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub security: Security,
    /// Who logs in, with what.
    pub login: Option<Login>,
    /// Certificates to trust instead of the system's (PEM).
    pub trusted: Option<String>,
    /// Why it cannot be used at all, as the keeper found out.
    pub broken: Option<String>,
}

/// How a connection is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Security {
    /// It begins in clear and must be upgraded before anything is said.
    StartTls,
    /// From its first byte.
    Tls,
    /// Not at all; then nobody logs in.
    None,
}

/// Who logs in.
#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// One mail to some people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Letter {
    /// Its number; answered once.
    pub id: u64,
    /// The one server to try, by its place; none: all of them, until one takes it.
    pub only: Option<usize>,
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients: 1 to [`limits::RECIPIENTS_MAX`].
    pub to: Vec<String>,
    /// Headers and text.
    pub text: String,
}

/// What became of a letter, for each of its recipients in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Posted {
    /// Which letter.
    pub id: u64,
    /// For each recipient.
    pub fates: Vec<Fate>,
}

/// What became of a letter for one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fate {
    /// In one word.
    pub end: End,
    /// What the server said, or what went wrong.
    pub text: Untrusted,
}

/// What became of it, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A server has taken it.
    Delivered,
    /// A server said that it never will.
    Refused,
    /// A server said not now, about this letter.
    Later,
    /// No server could be brought so far as to talk about it.
    Unreachable,
}

impl End {
    const ALL: [Self; 4] = [Self::Delivered, Self::Refused, Self::Later, Self::Unreachable];
}

const PART: u8 = b'P';
const POSTED: u8 = b'O';
/// So much of a message in one packet.
const PART_BYTES: usize = 32 << 10;
const _: () = assert!(PART_BYTES < limits::SCOUT_PACKET_BYTES_MAX);

impl ToPost {
    /// The packets of this message, in order.
    #[must_use]
    pub fn packets(&self) -> Vec<Vec<u8>> {
        let text = serde_json::to_vec(self).expect("plain data becomes JSON");
        let count = text.len().div_ceil(PART_BYTES);
        let part = |(at, bytes): (usize, &[u8])| {
            let mut packet = Vec::with_capacity(bytes.len() + 6);
            frame(&mut packet, PART, |body| {
                body.push(u8::from(at + 1 == count));
                body.extend(bytes);
            });
            packet
        };
        text.chunks(PART_BYTES).enumerate().map(part).collect()
    }
}

/// The parts of a message that is not whole yet.
#[derive(Default)]
pub struct Parts(Vec<u8>);

impl Parts {
    /// Takes a packet in; gives the messages that are whole by it.
    ///
    /// # Errors
    /// When it is no packet of the keeper's.
    pub fn take(&mut self, packet: &[u8]) -> Result<Vec<ToPost>, Garbage> {
        let mut whole = Vec::new();
        for (kind, mut body) in frames(packet)? {
            if kind != PART {
                return Err(Garbage("a kind of frame that is none"));
            }
            let last = body.u8()? == 1;
            if self.0.len() + body.0.len() > limits::MAIL_MESSAGE_BYTES_MAX {
                return Err(Garbage("a message that is too long"));
            }
            self.0.extend(body.0);
            if last {
                let text = std::mem::take(&mut self.0);
                whole.push(serde_json::from_slice(&text).map_err(|_| Garbage("no message"))?);
            }
        }
        Ok(whole)
    }
}

impl Posted {
    /// The packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let mut packet = Vec::new();
        frame(&mut packet, POSTED, |body| {
            let fates = &self.fates[..self.fates.len().min(limits::RECIPIENTS_MAX)];
            body.extend(self.id.to_le_bytes());
            body.push(fates.len() as u8);
            for Fate { end, text } in fates {
                body.push(End::ALL.iter().position(|known| known == end).unwrap_or(0) as u8);
                let text = cut(text.raw(), limits::SCOUT_TEXT_BYTES_MAX);
                body.extend((text.len() as u16).to_le_bytes());
                body.extend(text.as_bytes());
            }
        });
        packet
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// When anything in it is not a frame: who sent it is not to be believed in anything.
    pub fn decode(packet: &[u8]) -> Result<Vec<Self>, Garbage> {
        frames(packet)?
            .into_iter()
            .map(|(kind, mut body)| {
                if kind != POSTED {
                    return Err(Garbage("a kind of frame that is none"));
                }
                let (id, count) = (body.u64()?, body.u8()?);
                let fates = (0..count)
                    .map(|_| {
                        let end = End::ALL.get(usize::from(body.u8()?));
                        let end = *end.ok_or(Garbage("an end that is none"))?;
                        Ok(Fate { end, text: body.text()? })
                    })
                    .collect::<Result<_, _>>()?;
                body.end(Self { id, fates })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(text: String) -> Letter {
        let to = vec!["ops@example.com".to_owned()];
        Letter { id: 7, only: None, from: "heeler@web1".to_owned(), to, text }
    }

    #[test]
    fn a_letter_longer_than_a_packet_comes_whole() {
        for bytes in [0, 1, PART_BYTES, 256 << 10] {
            let sent = letter("x".repeat(bytes));
            let packets = ToPost::Letter(sent.clone()).packets();
            let mut parts = Parts::default();
            let got: Vec<_> =
                packets.iter().flat_map(|packet| parts.take(packet).expect("is one")).collect();
            assert!(matches!(&got[..], [ToPost::Letter(one)] if *one == sent), "{bytes}");
            assert!(packets.iter().all(|packet| packet.len() < limits::SCOUT_PACKET_BYTES_MAX));
        }
    }

    #[test]
    fn what_became_of_it_comes_back_and_anything_else_is_garbage() {
        let fate = |end, text: &str| Fate { end, text: text.into() };
        let posted = Posted {
            id: u64::MAX,
            fates: vec![
                fate(End::Delivered, "250 ok"),
                fate(End::Refused, "550 no such user \u{fffd}"),
                fate(End::Later, ""),
                fate(End::Unreachable, &"\u{1f415}".repeat(999)),
            ],
        };
        let packet = posted.packet();
        let back = Posted::decode(&packet).expect("is one");
        assert_eq!(back[0].fates[..3], posted.fates[..3]);
        assert_eq!(back[0].fates[3].text.raw().len(), limits::SCOUT_TEXT_BYTES_MAX);
        for end in 1..packet.len() {
            assert!(Posted::decode(&packet[..end]).is_err(), "cut at {end}");
            let mut changed = packet.clone();
            for byte in 0..=255 {
                changed[end] = byte;
                let _decoded = (Posted::decode(&changed), Parts::default().take(&changed));
            }
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let login = Login { user: "alert".to_owned(), password: "geheim".to_owned() };
        assert!(!format!("{login:?}").contains("geheim"));
    }
}
