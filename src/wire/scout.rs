//! Keeper and scout: checks and questions in, observations out.
//!
//! A packet (SOCK_SEQPACKET keeps their boundaries) holds one or more frames: kind (1 byte), length
//! (4 bytes, little endian), body. Numbers are fixed; settings are JSON that only the scout reads;
//! from a scout, which has read bytes from the network, comes nothing but numbers and two short texts.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use crate::model::ids::AskId;
use crate::model::limits;
use crate::model::metric::{Metric, Reading, Unit, Value};
use crate::model::observation::{Observation, Outcome};
use crate::model::password::Password;
use crate::model::text::Untrusted;

/// From the keeper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToScout {
    /// The settings of a check, to be kept under this number.
    Define {
        /// The number.
        check: u32,
        /// Probes of one service count against it first; this is its number.
        service: u32,
        /// `checks::Network` as JSON.
        settings: Box<[u8]>,
    },
    /// It is not asked for any more.
    Forget {
        /// The number; never used again.
        check: u32,
    },
    /// Probe it.
    Probe {
        /// The question.
        ask: AskId,
        /// Which check.
        check: u32,
        /// How long it may take.
        timeout: Duration,
        /// What it logs in with, where it does: for this probe, and not kept.
        password: Option<Password>,
    },
}

/// From the scout: what one probe saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The answered question.
    pub ask: AskId,
    /// What was seen.
    pub seen: Observation,
}

/// Why a packet is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Garbage(pub(super) &'static str);

impl fmt::Display for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const DEFINE: u8 = b'D';
const FORGET: u8 = b'F';
const PROBE: u8 = b'P';
const SEEN: u8 = b'S';
const HEAD_BYTES: usize = 5;

/// What a scout may report, by its number in a frame. Only ever appended to.
const METRICS: [Metric; 6] = [
    Metric::ResponseTime,
    Metric::Status,
    Metric::Size,
    Metric::ExpiresIn,
    Metric::Answers,
    Metric::Loss,
];

impl ToScout {
    /// Appends the frame to a packet.
    pub fn encode(&self, packet: &mut Vec<u8>) {
        match self {
            Self::Define { check, service, settings } => frame(packet, DEFINE, |body| {
                body.extend(check.to_le_bytes());
                body.extend(service.to_le_bytes());
                body.extend(&**settings);
            }),
            Self::Forget { check } => {
                frame(packet, FORGET, |body| body.extend(check.to_le_bytes()))
            }
            Self::Probe { ask, check, timeout, password } => frame(packet, PROBE, |body| {
                body.extend(ask.0.to_le_bytes());
                body.extend(check.to_le_bytes());
                body.extend(nanos(*timeout).to_le_bytes());
                body.extend(password.iter().flat_map(|password| password.reveal().bytes()));
            }),
        }
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// When anything in it is not a frame.
    pub fn decode(packet: &[u8]) -> Result<Vec<Self>, Garbage> {
        frames(packet)?
            .into_iter()
            .map(|(kind, mut body)| match kind {
                DEFINE => {
                    let (check, service) = (body.u32()?, body.u32()?);
                    Ok(Self::Define { check, service, settings: body.0.into() })
                }
                FORGET => {
                    let check = body.u32()?;
                    body.end(Self::Forget { check })
                }
                PROBE => {
                    let (ask, check) = (AskId(body.u64()?), body.u32()?);
                    let timeout = Duration::from_nanos(body.u64()?);
                    let password = match std::str::from_utf8(body.0) {
                        Ok("") => None,
                        Ok(text) => Password::of_file(text),
                        Err(_) => return Err(Garbage("a password that is no text")),
                    };
                    Ok(Self::Probe { ask, check, timeout, password })
                }
                _ => Err(Garbage("a kind of frame that is none")),
            })
            .collect()
    }
}

impl Seen {
    /// Appends the frame to a packet.
    pub fn encode(&self, packet: &mut Vec<u8>) {
        let (outcome, why) = match &self.seen.outcome {
            Outcome::Ok => (0, None),
            Outcome::Failed(why) => (1, Some(why)),
            Outcome::Unknown(why) => (2, Some(why)),
        };
        frame(packet, SEEN, |body| {
            body.extend(self.ask.0.to_le_bytes());
            body.push(outcome);
            body.extend(nanos(self.seen.took).to_le_bytes());
            body.push(u8::from(self.seen.fingerprint.is_some()));
            body.extend(self.seen.fingerprint.unwrap_or_default().to_le_bytes());
            let metrics: Vec<_> = self.seen.metrics.iter().filter_map(number).collect();
            body.push(metrics.len() as u8);
            for (metric, value) in metrics {
                body.push(metric);
                body.extend(value.to_le_bytes());
            }
            for text in [why, Some(&self.seen.detail)] {
                let text = text.map(Untrusted::raw).unwrap_or_default();
                let text = cut(text, limits::SCOUT_TEXT_BYTES_MAX);
                body.extend((text.len() as u16).to_le_bytes());
                body.extend(text.as_bytes());
            }
        });
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// When anything in it is not a frame: who sent it is not to be believed in anything.
    pub fn decode(packet: &[u8]) -> Result<Vec<Self>, Garbage> {
        frames(packet)?
            .into_iter()
            .map(|(kind, mut body)| {
                if kind != SEEN {
                    return Err(Garbage("a kind of frame that is none"));
                }
                let ask = AskId(body.u64()?);
                let outcome = body.u8()?;
                let took = Duration::from_nanos(body.u64()?);
                let fingerprint = match (body.u8()?, body.u64()?) {
                    (0, _) => None,
                    (1, number) => Some(number),
                    (_, _) => return Err(Garbage("a fingerprint that is none")),
                };
                let count = body.u8()?;
                let metrics = (0..count).map(|_| reading(&mut body)).collect::<Result<_, _>>()?;
                let (why, detail) = (body.text()?, body.text()?);
                let outcome = match outcome {
                    0 => Outcome::Ok,
                    1 => Outcome::Failed(why),
                    2 => Outcome::Unknown(why),
                    _ => return Err(Garbage("an outcome that is none")),
                };
                let seen =
                    Observation { metrics, took, fingerprint, detail, ..Observation::of(outcome) };
                body.end(Self { ask, seen })
            })
            .collect()
    }
}

/// The number of a metric, and its value as one.
fn number((metric, reading): &(Metric, Reading)) -> Option<(u8, u64)> {
    let at = METRICS.iter().position(|known| known == metric)?;
    let value = match reading.value() {
        Value::Bytes(n)
        | Value::Percent(n)
        | Value::Count(n)
        | Value::Rate(n)
        | Value::Decimal(n) => n,
        Value::Duration(span) => nanos(span),
        Value::Letter(_) | Value::Word(_) => return None,
    };
    Some((u8::try_from(at).ok()?, value))
}

fn reading(body: &mut Body<'_>) -> Result<(Metric, Reading), Garbage> {
    let metric = METRICS.get(usize::from(body.u8()?)).ok_or(Garbage("a metric that is none"))?;
    let number = body.u64()?;
    let value = match metric.unit() {
        Unit::Bytes => Value::Bytes(number),
        Unit::Percent => Value::Percent(number),
        Unit::Duration => Value::Duration(Duration::from_nanos(number)),
        Unit::Count => Value::Count(number),
        Unit::Rate => Value::Rate(number),
        Unit::Decimal => Value::Decimal(number),
        Unit::Letter | Unit::Word(_) | Unit::Any => {
            return Err(Garbage("a metric without a number"));
        }
    };
    Ok((metric.clone(), Reading::Exact(value)))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// The beginning of a text, in whole characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

pub(super) fn frame(packet: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    packet.push(kind);
    let at = packet.len();
    packet.extend([0; 4]);
    write(packet);
    let length = u32::try_from(packet.len() - at - 4).unwrap_or(u32::MAX);
    packet[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

pub(super) fn frames(mut packet: &[u8]) -> Result<Vec<(u8, Body<'_>)>, Garbage> {
    let mut out = Vec::new();
    while !packet.is_empty() {
        let (head, rest) =
            packet.split_first_chunk::<HEAD_BYTES>().ok_or(Garbage("half a frame"))?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (body, rest) = rest.split_at_checked(length).ok_or(Garbage("half a frame"))?;
        out.push((head[0], Body(body)));
        packet = rest;
    }
    Ok(out)
}

/// What is left of a frame.
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Garbage> {
        let (taken, rest) =
            self.0.split_first_chunk().ok_or(Garbage("a frame that is too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Garbage> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Garbage> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Garbage> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn text(&mut self) -> Result<Untrusted, Garbage> {
        let length = usize::from(self.take().map(u16::from_le_bytes)?);
        if length > limits::SCOUT_TEXT_BYTES_MAX {
            return Err(Garbage("a text that is too long"));
        }
        let (text, rest) =
            self.0.split_at_checked(length).ok_or(Garbage("a frame that is too short"))?;
        self.0 = rest;
        Ok(Untrusted::new(text))
    }

    pub(super) fn end<T>(&self, value: T) -> Result<T, Garbage> {
        if self.0.is_empty() { Ok(value) } else { Err(Garbage("a frame that is too long")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Seen> {
        let failed = Observation {
            fingerprint: Some(u64::MAX),
            detail: "503 Service Unavailable".into(),
            took: Duration::from_millis(7),
            ..Observation::failed("status 503 \u{fffd}")
        }
        .with(Metric::ResponseTime, Value::Duration(Duration::from_millis(7)))
        .with(Metric::Status, Value::Count(503))
        .with(Metric::Loss, Value::Percent(12_500));
        [Observation::ok(), failed, Observation::unknown("no name")]
            .into_iter()
            .zip(1..)
            .map(|(seen, ask)| Seen { ask: AskId(ask), seen })
            .collect()
    }

    fn question(password: Option<Password>) -> ToScout {
        ToScout::Probe { ask: AskId(7), check: 3, timeout: Duration::from_secs(10), password }
    }

    #[test]
    fn observations_and_questions_come_back() {
        let mut packet = Vec::new();
        samples().iter().for_each(|seen| seen.encode(&mut packet));
        assert_eq!(Seen::decode(&packet), Ok(samples()));
        let asked = vec![
            ToScout::Define { check: 3, service: 9, settings: (*b"{}").into() },
            ToScout::Forget { check: 2 },
            question(None),
            question(Password::of_file("geheim")),
        ];
        let mut packet = Vec::new();
        asked.iter().for_each(|frame| frame.encode(&mut packet));
        assert_eq!(ToScout::decode(&packet), Ok(asked));
        assert_eq!(ToScout::decode(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_is_cut_anywhere_is_garbage_and_nothing_panics() {
        let mut packet = Vec::new();
        samples()[1].encode(&mut packet);
        for end in 1..packet.len() {
            assert!(Seen::decode(&packet[..end]).is_err(), "cut at {end}");
            let mut changed = packet.clone();
            for byte in 0..=255 {
                changed[end] = byte;
                let _decoded = (Seen::decode(&changed), ToScout::decode(&changed));
            }
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = "\u{1f415}".repeat(1000);
        let mut packet = Vec::new();
        Seen { ask: AskId(1), seen: Observation::failed(&long) }.encode(&mut packet);
        let back = Seen::decode(&packet).expect("is one");
        let Outcome::Failed(why) = &back[0].seen.outcome else { panic!("{back:?}") };
        assert_eq!(why.raw().len(), limits::SCOUT_TEXT_BYTES_MAX);
        assert!(!why.raw().contains('\u{fffd}'));
    }
}
