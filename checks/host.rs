//! `type = "host"`: whether a host answers echo requests (ping).
//!
//! By the kernel's own datagram sockets for ICMP, which need no root (icmp(7): `ping_group_range`): it
//! numbers the requests of each socket and hands over only its replies. What a reply says is still
//! checked: the address it comes from, its number, and bytes that only the request had (RFC 792, RFC 4443,
//! sections 4.1 and 4.2).

use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::checks::connect::{self, Stage, Tools, Trouble};
use crate::checks::given::{Given, Key, KeyKind, Wrong};
use crate::checks::{CheckType, Network, Probe, Unsaid};
use crate::model::metric::{Metric, Value};
use crate::model::observation::Observation;
use crate::model::text::Untrusted;
use crate::model::units::show_duration;

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::ResponseTime, Metric::Loss],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(10),
    read: |given| read(given).map(|settings| Probe::Network(Network::Host(settings))),
};

const KEYS: [Key; 3] = [
    Key { name: "host", kind: KeyKind::Text, example: "192.0.2.1" },
    Key { name: "count", kind: KeyKind::Number { min: 1, max: 20 }, example: "3" },
    Key { name: "interval", kind: KeyKind::Duration { floor_ms: 10 }, example: "200ms" },
];

const COUNT: u16 = 3;
const INTERVAL: Duration = Duration::from_millis(200);
/// The longest `interval`: with the most requests it is less than half a minute.
const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// How long the reply to the last request is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// One is told by ICMP for each request; a socket that has more to say is not listened to for ever.
const ERRORS_PER_REQUEST_MAX: usize = 4;
/// Type, code, checksum, identifier, sequence (RFC 792).
const HEAD_BYTES: usize = 8;
/// Random bytes in each request of a probe.
const TOKEN_BYTES: usize = 16;
/// ICMP has no ports, but a socket connected to port 0 does not say to whom (getpeername(2): ENOTCONN).
const NO_PORT: u16 = 1;
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// What to probe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    host: String,
    count: u16,
    interval: Duration,
}

fn read(given: &Given) -> Result<Settings, Vec<Wrong>> {
    let Some(host) = given.text("host").map(str::to_owned) else {
        return Err(vec![Wrong::new("host", "it does not say which `host`", "")]);
    };
    let interval = given.duration("interval").unwrap_or(INTERVAL);
    if interval > INTERVAL_MAX {
        let message = format!("`interval` is at most {}", show_duration(INTERVAL_MAX));
        let hint = "how often the host is pinged at all is `every`";
        return Err(vec![Wrong::new("interval", message, hint)]);
    }
    let count = given.number("count").and_then(|count| u16::try_from(count).ok());
    Ok(Settings { host, count: count.unwrap_or(COUNT), interval })
}

/// Probes once.
pub async fn probe(settings: &Settings, tools: &Tools) -> Observation {
    match attempt(settings, tools).await {
        Ok(series) => series.told(),
        // Whatever the failure, nothing came back.
        Err(trouble @ Trouble::Failed(_)) => {
            Observation::from(trouble).with(Metric::Loss, Value::Percent(100_000))
        }
        Err(trouble @ Trouble::Unknown(_)) => trouble.into(),
    }
}

async fn attempt(settings: &Settings, tools: &Tools) -> Result<Series, Trouble> {
    let addresses = connect::addresses(tools, &settings.host, NO_PORT).await?;
    tools.progress.at(Stage::Asking(settings.host.clone()));
    let ping = |address| ping(address, settings.count, settings.interval);
    connect::race(addresses, ping).await.map(|(_, series)| series)
}

/// Requests, each with the time its reply took.
struct Series(Vec<(Instant, Option<Duration>)>);

impl Series {
    fn replies(&self) -> impl Iterator<Item = Duration> {
        self.0.iter().filter_map(|(_, took)| *took)
    }

    fn told(&self) -> Observation {
        let mut times: Vec<_> = self.replies().collect();
        times.sort();
        let (sent, came) = (self.0.len() as u64, times.len() as u64);
        let lost = sent - came;
        let mut seen =
            Observation::ok().with(Metric::Loss, Value::Percent(lost * 100_000 / sent.max(1)));
        // The median; of two in the middle, the better.
        if let Some(median) = times.get(times.len().saturating_sub(1) / 2) {
            seen = seen.with(Metric::ResponseTime, Value::Duration(*median));
        }
        seen.detail = Untrusted::from(format!("{came} of {sent} echo requests answered").as_str());
        seen
    }
}

/// Sends the requests, and gathers what comes back.
async fn ping(address: SocketAddr, count: u16, interval: Duration) -> Result<Series, Trouble> {
    let mut echo = Echo::open(address).await?;
    let mut series = Series(Vec::new());
    let (mut last_trouble, mut errors) = (None, 0);
    loop {
        let sent = series.0.len();
        let last = series.0.last().map(|(at, _)| *at);
        let is_complete = sent == usize::from(count);
        let until = match last {
            Some(last) if is_complete => last + PATIENCE,
            Some(last) if Instant::now() < last + interval => last + interval,
            Some(_) | None => {
                series.0.push((Instant::now(), None));
                if let Err(error) = echo.send(sent as u16).await {
                    last_trouble = Some(error);
                }
                continue;
            }
        };
        match timeout_at(until, echo.receive()).await {
            Ok(Ok(Some(sequence))) => {
                if let Some((at, took)) = series.0.get_mut(usize::from(sequence)) {
                    // The first reply counts: a network may double them.
                    took.get_or_insert(at.elapsed());
                }
                if is_complete && series.replies().count() == sent {
                    return Ok(series);
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                last_trouble = Some(error);
                errors += 1;
                if errors > ERRORS_PER_REQUEST_MAX * usize::from(count) {
                    break;
                }
            }
            Err(_elapsed) if is_complete => break,
            Err(_elapsed) => {}
        }
    }
    if series.replies().next().is_some() {
        return Ok(series);
    }
    let address = address.ip();
    Err(match last_trouble {
        None => Trouble::Failed(format!("none of {count} echo requests to {address} was answered")),
        Some(error) => {
            let done = format!("none of {count} echo requests to {address} was answered");
            connect::trouble(&done, &error)
        }
    })
}

/// A socket for the echo of one address.
struct Echo {
    socket: UdpSocket,
    peer: SocketAddr,
    /// What the kernel numbers this socket's requests with.
    identifier: [u8; 2],
    token: [u8; TOKEN_BYTES],
    request: u8,
    reply: u8,
}

impl Echo {
    async fn open(address: SocketAddr) -> Result<Self, Trouble> {
        let (family, protocol, request, reply) = match address {
            SocketAddr::V4(_) => {
                (AddressFamily::Inet, SockProtocol::Icmp, ECHO_REQUEST_V4, ECHO_REPLY_V4)
            }
            SocketAddr::V6(_) => {
                (AddressFamily::Inet6, SockProtocol::IcmpV6, ECHO_REQUEST_V6, ECHO_REPLY_V6)
            }
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Datagram, flags, protocol).map_err(not_allowed)?;
        let told = |error: io::Error| {
            connect::trouble(&format!("failed to send echo requests to {}", address.ip()), &error)
        };
        // Of a datagram socket, whatever its protocol, std and tokio use only what they all have.
        let socket = UdpSocket::from_std(StdUdpSocket::from(socket)).map_err(told)?;
        // Connected, it is told of what ICMP has against its requests.
        socket.connect(address).await.map_err(told)?;
        let peer = socket.peer_addr().map_err(told)?;
        let identifier = socket.local_addr().map_err(told)?.port().to_be_bytes();
        let mut token = [0; TOKEN_BYTES];
        let random = SystemRandom::new().fill(&mut token);
        random.map_err(|error| told(io::Error::other(error.to_string())))?;
        Ok(Self { socket, peer, identifier, token, request, reply })
    }

    async fn send(&mut self, sequence: u16) -> io::Result<()> {
        // The kernel puts checksum and identifier in.
        let mut packet = vec![self.request, 0, 0, 0, 0, 0];
        packet.extend(sequence.to_be_bytes());
        packet.extend(self.token);
        self.socket.send(&packet).await.map(drop)
    }

    /// The sequence of a reply; None for what is none of ours.
    async fn receive(&mut self) -> io::Result<Option<u16>> {
        let mut packet = [0; HEAD_BYTES + TOKEN_BYTES + 1];
        let (length, from) = self.socket.recv_from(&mut packet).await?;
        let [kind, 0, _, _, i, j, s, t, token @ ..] = &packet[..] else { return Ok(None) };
        let is_ours = length == HEAD_BYTES + TOKEN_BYTES
            && from.ip() == self.peer.ip()
            && *kind == self.reply
            && [*i, *j] == self.identifier
            && token.starts_with(&self.token);
        Ok(is_ours.then(|| u16::from_be_bytes([*s, *t])))
    }
}

fn not_allowed(errno: Errno) -> Trouble {
    if matches!(errno, Errno::EACCES | Errno::EPERM) {
        return Trouble::Unknown(
            "the kernel does not let the scout send echo requests; allow it by \
             sysctl net.ipv4.ping_group_range=\"0 2147483647\""
                .to_owned(),
        );
    }
    connect::trouble("failed to open a socket for echo requests", &errno.into())
}
