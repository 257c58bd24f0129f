//! What all network probes begin with: names, connections, and where a probe had got to when its time
//! was over.
//!
//! A refused connection is the target's failure; a name that cannot be resolved, a socket that may not be
//! opened, a route or a descriptor that is not there are heeler's ignorance (`Unknown`), and never restart
//! anything.
//!
//! Sources: connect(2), unix(7), ip(7) for the errors; RFC 8305 for several addresses;
//! proc_pid_net(5) for the backlog.

use std::fs::File;
use std::future::Future;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::checks::names::{Names, look_up};
use crate::checks::tls;
use crate::model::observation::{Observation, Outcome};
use crate::model::password::Password;
use crate::model::text::Untrusted;
use crate::model::units::show_duration;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// How long an address has for itself before the next is tried beside it (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// What a probe is given.
#[derive(Debug, Default)]
pub struct Tools {
    /// Where it has got to.
    pub progress: Progress,
    /// What all probes share.
    pub shared: Arc<Shared>,
    /// What it logs in with, where it does.
    pub password: Option<Password>,
}

/// What all probes of a scout share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Names being resolved.
    names: Names,
    /// Certificates to trust.
    pub roots: tls::Roots,
}

/// Why a probe goes no further.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The target misbehaved.
    Failed(String),
    /// heeler cannot tell.
    Unknown(String),
}

impl From<Trouble> for Observation {
    fn from(trouble: Trouble) -> Self {
        Self::of(match trouble {
            Trouble::Failed(why) => Outcome::Failed(Untrusted::from(why.as_str())),
            Trouble::Unknown(why) => Outcome::Unknown(Untrusted::from(why.as_str())),
        })
    }
}

/// Where a probe has got to, for the one who ends it when its time is over.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Stage>);

/// What a probe waits for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Stage {
    /// Nothing yet.
    #[default]
    Beginning,
    /// The addresses of this name.
    Resolving(String),
    /// A connection to this.
    Connecting(String),
    /// A connection to one of these.
    Trying(Vec<SocketAddr>),
    /// An answer from this, which took a connection; its address, where it has one.
    Waiting(String, Option<SocketAddr>),
    /// The end of an answer that has begun; these words say what there is of it.
    Receiving(String),
    /// An answer from this, without a connection.
    Asking(String),
}

impl Progress {
    /// The probe waits for this now.
    pub fn at(&self, stage: Stage) {
        *locked(&self.0) = stage;
    }

    /// What it means that the probe did not end within its time.
    #[must_use]
    pub fn overdue(&self, timeout: Duration) -> Observation {
        let within = show_duration(timeout);
        let stage = locked(&self.0).clone();
        match stage {
            Stage::Beginning => Observation::unknown(&format!("it did not begin within {within}")),
            Stage::Resolving(name) => Observation::unknown(&format!(
                "the name {name} was not resolved within {within}: its name server does not answer; \
                 see `getent ahosts {name}`"
            )),
            Stage::Connecting(to) => {
                Observation::failed(&format!("no connection to {to} within {within}"))
            }
            Stage::Receiving(what) => {
                Observation::failed(&format!("{what}, which did not end within {within}"))
            }
            Stage::Trying(addresses) => {
                let waiting = addresses.iter().find_map(|address| backlog(*address));
                let to = shown(&addresses);
                Observation::failed(&format!(
                    "no connection to {to} within {within}{}",
                    in_backlog(waiting)
                ))
            }
            Stage::Waiting(on, address) => Observation::failed(&format!(
                "{on} accepts connections but did not answer within {within}{}",
                in_backlog(address.and_then(backlog))
            )),
            Stage::Asking(whom) => {
                Observation::failed(&format!("no answer from {whom} within {within}"))
            }
        }
    }
}

/// None waiting says nothing: the one that hangs may have been accepted.
fn in_backlog(waiting: Option<u64>) -> String {
    match waiting {
        None | Some(0) => String::new(),
        Some(1) => "; 1 connection waits in its backlog to be accepted".to_owned(),
        Some(many) => format!("; {many} connections wait in its backlog to be accepted"),
    }
}

/// Resolves a name, or reads an address. Each name is resolved once at a time, however many probes ask:
/// a name server that hangs costs one thread for each name, not for each probe. Nothing is kept for the
/// next probe: what the machine's own cache forgot is to be seen.
///
/// # Errors
/// When it has no address, or none can be had: heeler cannot tell what is there.
pub async fn resolve(tools: &Tools, host: &str) -> Result<Vec<IpAddr>, Trouble> {
    let unbracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = unbracketed.unwrap_or(host).parse() {
        return Ok(vec![address]);
    }
    tools.progress.at(Stage::Resolving(host.to_owned()));
    match tools.shared.names.resolve(host, look_up(host.to_owned())).await {
        Ok(addresses) if addresses.is_empty() => {
            Err(Trouble::Unknown(format!("failed to resolve {host}: it has no address")))
        }
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(Trouble::Unknown(format!("failed to resolve {host}: {error}"))),
    }
}

/// The addresses of a host to be tried with this port, best first, IPv6 and IPv4 in turn.
///
/// # Errors
/// Those of [`resolve`].
pub async fn addresses(tools: &Tools, host: &str, port: u16) -> Result<Vec<SocketAddr>, Trouble> {
    let found = in_turn(resolve(tools, host).await?);
    Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// Connects by TCP to the first address of a host that takes it.
///
/// # Errors
/// The trouble with each address.
pub async fn tcp(tools: &Tools, host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let addresses = addresses(tools, host, port).await?;
    tools.progress.at(Stage::Trying(addresses.clone()));
    let (address, stream) = match addresses[..] {
        [only] => (only, connect(only).await?),
        _ => race(addresses, connect).await?,
    };
    tools.progress.at(Stage::Waiting(address.to_string(), Some(address)));
    Ok(stream)
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Trouble> {
    let told = |error: &io::Error| connect_trouble(&address.to_string(), error);
    let stream = TcpStream::connect(address).await.map_err(|error| told(&error))?;
    // Where nobody listens, a connection may meet itself: the kernel lends it the very port it asks for
    // (a simultaneous open, RFC 9293, section 3.5).
    match stream.local_addr() {
        Ok(own) if own == address => Err(told(&io::Error::from(ErrorKind::ConnectionRefused))),
        Ok(_) => Ok(stream),
        Err(error) => Err(told(&error)),
    }
}

/// Tries addresses until one does: each begins when the one before it failed, or had its time for itself;
/// so a dead one costs a moment, not the deadline.
///
/// # Errors
/// When none did: what was the matter with each. One that failed by itself is the target's failure.
pub async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<(SocketAddr, T), Trouble>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Trouble>> + Send + 'static,
{
    let mut failures = Vec::new();
    let mut running = JoinSet::new();
    let mut waiting = addresses.into_iter();
    let mut next = waiting.next();
    loop {
        if let Some(address) = next.take() {
            let attempt = attempt(address);
            running.spawn(async move { (address, attempt.await) });
            next = waiting.next();
        }
        let ended = if next.is_some() {
            timeout(STAGGER, running.join_next()).await
        } else {
            Ok(running.join_next().await)
        };
        match ended {
            Ok(Some(Ok((address, Ok(value))))) => return Ok((address, value)),
            Ok(Some(Ok((_, Err(trouble))))) => failures.push(trouble),
            Ok(Some(Err(_panicked))) => {
                failures
                    .push(Trouble::Unknown("the probe crashed: this is a bug of heeler".into()));
            }
            Ok(None) => return Err(together(failures)),
            Err(_elapsed) => {}
        }
    }
}

/// An address that this machine has no way to says nothing against one that refused.
fn together(failures: Vec<Trouble>) -> Trouble {
    let (mut texts, mut failed) = (Vec::new(), false);
    for trouble in failures {
        match trouble {
            Trouble::Failed(text) => {
                failed = true;
                texts.push(text);
            }
            Trouble::Unknown(text) => texts.push(text),
        }
    }
    let text = texts.join("; ");
    if failed { Trouble::Failed(text) } else { Trouble::Unknown(text) }
}

/// Connects to a Unix socket.
///
/// # Errors
/// Where it may not be opened heeler cannot tell; anything else is the target's failure.
pub async fn unix(tools: &Tools, path: &Path) -> Result<UnixStream, Trouble> {
    let shown = path.display().to_string();
    tools.progress.at(Stage::Connecting(shown.clone()));
    match UnixStream::connect(path).await {
        Ok(stream) => {
            tools.progress.at(Stage::Waiting(shown, None));
            Ok(stream)
        }
        Err(error) => Err(unix_trouble(path, &shown, &error)),
    }
}

fn unix_trouble(path: &Path, shown: &str, error: &io::Error) -> Trouble {
    let why = match error.raw_os_error().unwrap_or_default() {
        libc::EACCES | libc::EPERM => {
            return Trouble::Unknown(format!(
                "failed to open {shown}: the scout has no rights but those of everybody; give the \
                 socket and its directories modes that let it in, or check the service by a port"
            ));
        }
        libc::ENOENT | libc::ENOTDIR => "there is no such socket",
        libc::EAGAIN => "its backlog is full: nobody accepts what waits there",
        libc::EPROTOTYPE => "it is a socket of another type than a stream",
        // The kernel refuses what is no socket with the same word (unix(7)).
        libc::ECONNREFUSED => match std::fs::metadata(path) {
            Ok(found) if !found.file_type().is_socket() => "it is not a socket",
            Ok(_) | Err(_) => "nobody listens on it",
        },
        _ => return connect_trouble(shown, error),
    };
    Trouble::Failed(format!("failed to connect to {shown}: {why}"))
}

/// A UDP socket that takes datagrams from one address only, and is told of what refuses its own
/// (udp(7)).
///
/// # Errors
/// Those of socket(2), bind(2) and connect(2), for [`connect_trouble`].
pub async fn udp(address: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// Whose trouble a failed connect (or a question without a connection) is, in words.
#[must_use]
pub fn connect_trouble(to: &str, error: &io::Error) -> Trouble {
    trouble(&format!("failed to connect to {to}"), error)
}

/// Whose trouble an error of a socket is, in words that begin with what was done.
#[must_use]
pub fn trouble(done: &str, error: &io::Error) -> Trouble {
    let told = |why: &str| format!("{done}: {why}");
    let refused = || Trouble::Failed(told("it was refused: nobody listens there"));
    match error.raw_os_error().unwrap_or_default() {
        libc::ECONNREFUSED => refused(),
        libc::ETIMEDOUT => Trouble::Failed(told("it timed out: nothing came back")),
        libc::ECONNRESET => Trouble::Failed(told("it was reset by the other side")),
        libc::EHOSTUNREACH | libc::EHOSTDOWN => Trouble::Failed(told(
            "it is unreachable: a router or a firewall on the way says so, or nobody in its network \
             answers for it",
        )),
        libc::ENETUNREACH | libc::ENETDOWN => Trouble::Unknown(told(
            "the network is unreachable: this machine has no route there; see `ip route`",
        )),
        libc::EACCES | libc::EPERM => Trouble::Unknown(told(
            "this machine forbids it; see its firewall and `ip route` for what is prohibited",
        )),
        libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT => Trouble::Unknown(told(
            "this machine has no address of its own for it: no free port is left, or this family of \
             addresses is off",
        )),
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => {
            Trouble::Unknown(told(&format!("heeler has no means left: {error}")))
        }
        _ if error.kind() == ErrorKind::ConnectionRefused => refused(),
        _ => Trouble::Failed(told(&error.to_string())),
    }
}

/// How many connections wait to be accepted by a listener on this machine: `rx_queue` of a listening
/// socket (proc_pid_net(5)). None where the address is not one of this machine, or nobody listens.
#[must_use]
pub fn backlog(address: SocketAddr) -> Option<u64> {
    // Only an address of this machine can be bound (bind(2)).
    UdpSocket::bind((address.ip(), 0)).ok()?;
    let tables = [("/proc/self/net/tcp", 8), ("/proc/self/net/tcp6", 32)];
    tables.into_iter().find_map(|(path, digits)| {
        let lines = BufReader::new(File::open(path).ok()?).lines().skip(1);
        // Listeners come first; behind them may be a line for each of a million connections.
        lines
            .map_while(|line| listener(&line.ok()?, digits))
            .find(|listener| listener.serves(address))
            .map(|listener| listener.waiting)
    })
}

/// A line of the kernel's table.
struct Listener {
    ip: IpAddr,
    port: u16,
    waiting: u64,
}

impl Listener {
    fn serves(&self, address: SocketAddr) -> bool {
        // One of all IPv6 addresses serves IPv4 too, unless it said otherwise (ipv6(7)).
        let everywhere = match self.ip {
            IpAddr::V4(ip) => ip.is_unspecified() && address.is_ipv4(),
            IpAddr::V6(ip) => ip.is_unspecified(),
        };
        self.port == address.port()
            && (everywhere || self.ip.to_canonical() == address.ip().to_canonical())
    }
}

/// `0: 0100007F:0CEA 00000000:0000 0A 00000000:00000002 ..`: place, own address, other address, state,
/// tx_queue:rx_queue. None on the first line that is no listener's.
fn listener(line: &str, digits: usize) -> Option<Listener> {
    let mut words = line.split_ascii_whitespace();
    let (ip, port) = words.nth(1)?.split_once(':')?;
    let is_listening = words.nth(1)? == "0A";
    let (_, waiting) = words.next()?.split_once(':')?;
    if !is_listening || ip.len() != digits {
        return None;
    }
    // Words of four bytes, each as the processor holds it.
    let words = ip.as_bytes().chunks(8).map(|word| {
        let number = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(number.to_ne_bytes())
    });
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) => IpAddr::V4(Ipv4Addr::from(bytes)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener { ip, port, waiting: u64::from_str_radix(waiting, 16).ok()? })
}

/// Each once, the families in turn beginning with the resolver's favourite (RFC 8305, section 4), and no
/// more than are tried.
fn in_turn(found: Vec<IpAddr>) -> Vec<IpAddr> {
    let favourite = found.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == favourite);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut out = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] || out.len() >= ADDRESSES_MAX {
            out.truncate(ADDRESSES_MAX);
            return out;
        }
        for address in pair.into_iter().flatten() {
            if !out.contains(&address) {
                out.push(address);
            }
        }
    }
}

/// Addresses in words.
fn shown(addresses: &[SocketAddr]) -> String {
    let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    shown.join(" or ")
}

/// What is behind these locks is whole between any two statements.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_a_thousand_addresses_are_not_tried() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let found = ["::1", "::2", "127.0.0.1", "::1", "127.0.0.1"].map(ip).to_vec();
        assert_eq!(in_turn(found), ["::1", "127.0.0.1", "::2"].map(ip));
        let many = (0..1000_u32).map(|number| Ipv4Addr::from(number).into()).collect();
        assert_eq!(in_turn(many).len(), ADDRESSES_MAX);
        assert_eq!(in_turn(Vec::new()), Vec::<IpAddr>::new());
    }

    #[test]
    fn what_failed_outweighs_what_could_not_be_told() {
        let failed = || Trouble::Failed("a".to_owned());
        let unknown = || Trouble::Unknown("b".to_owned());
        assert_eq!(together(vec![unknown(), failed()]), Trouble::Failed("b; a".to_owned()));
        assert_eq!(together(vec![unknown(), unknown()]), Trouble::Unknown("b; b".to_owned()));
    }

    #[test]
    fn lines_of_the_kernels_tables_are_read() {
        let four = "   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000002 00:00000000 00000000";
        let found = listener(four, 8).expect("a listener");
        assert_eq!((found.ip, found.port, found.waiting), (Ipv4Addr::LOCALHOST.into(), 3306, 2));
        assert!(listener(&four.replace(" 0A ", " 01 "), 8).is_none());
        assert!(listener(four, 32).is_none());
        for end in 0..60 {
            let _any = listener(&four[..end], 8);
        }
        assert!(listener(&four.replace("0100007F", "0100é07"), 8).is_none());
    }
}
