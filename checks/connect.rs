//! What all network probes begin with: names, connections, and where a probe had got to when its time
//! was over.
//!
//! A refused connection is the target's failure; a name that cannot be resolved, a socket that may not be
//! opened, a descriptor that is not there are heeler's ignorance (`Unknown`), and never restart anything.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;

use crate::checks::tls;
use crate::model::observation::{Observation, Outcome};
use crate::model::text::Untrusted;
use crate::model::units::show_duration;

/// What a probe is given.
#[derive(Debug, Default)]
pub struct Tools {
    /// Where it has got to.
    pub progress: Progress,
    /// What all probes share.
    pub shared: Arc<Shared>,
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
    /// An answer from this; its address, where it has one.
    Waiting(String, Option<SocketAddr>),
    /// The end of an answer that has begun; these words say what there is of it.
    Receiving(String),
}

impl Progress {
    /// The probe waits for this now.
    pub fn at(&self, stage: Stage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// What it means that the probe did not end within its time.
    #[must_use]
    pub fn overdue(&self, timeout: Duration) -> Observation {
        let within = show_duration(timeout);
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Stage::Beginning => Observation::unknown(&format!("it did not begin within {within}")),
            Stage::Resolving(name) => {
                Observation::unknown(&format!("the name {name} was not resolved within {within}"))
            }
            Stage::Connecting(to) => {
                Observation::failed(&format!("no connection to {to} within {within}"))
            }
            Stage::Receiving(what) => {
                Observation::failed(&format!("{what}, which did not end within {within}"))
            }
            Stage::Waiting(on, address) => {
                let waiting = address.and_then(backlog).filter(|waiting| *waiting > 0);
                let backlog = waiting.map_or_else(String::new, |waiting| {
                    format!("; {waiting} connections wait in its backlog to be accepted")
                });
                Observation::failed(&format!(
                    "{on} accepts connections but did not answer within {within}{backlog}"
                ))
            }
        }
    }
}

/// Resolves a name, or reads an address. Each name is resolved once at a time, however many probes ask:
/// a name server that hangs costs one thread for each name, not for each probe.
///
/// # Errors
/// When it has no address, or none can be had: heeler cannot tell what is there.
pub async fn resolve(tools: &Tools, host: &str) -> Result<Vec<IpAddr>, Trouble> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![address]);
    }
    tools.progress.at(Stage::Resolving(host.to_owned()));
    tools
        .shared
        .names
        .resolve(host)
        .await
        .map_err(|error| Trouble::Unknown(format!("failed to resolve {host}: {error}")))
}

/// Connects by TCP to the first address of a host that takes it.
///
/// # Errors
/// The trouble with the last address tried.
pub async fn tcp(tools: &Tools, host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let addresses = resolve(tools, host).await?;
    let mut last = Trouble::Unknown(format!("{host} has no address"));
    for address in addresses {
        let address = SocketAddr::new(address, port);
        tools.progress.at(Stage::Connecting(address.to_string()));
        match TcpStream::connect(address).await {
            Ok(stream) => {
                tools.progress.at(Stage::Waiting(address.to_string(), Some(address)));
                return Ok(stream);
            }
            Err(error) => last = connect_trouble(&address.to_string(), &error),
        }
    }
    Err(last)
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
        Err(error) => Err(connect_trouble(&shown, &error)),
    }
}

/// Whose trouble a failed connect is.
#[must_use]
pub fn connect_trouble(to: &str, error: &io::Error) -> Trouble {
    if error.kind() == ErrorKind::PermissionDenied {
        return Trouble::Unknown(format!(
            "the scout may not open {to}: it has no rights but those of everybody; \
             give the socket a mode that lets it in, or check the service by a port"
        ));
    }
    let text = format!("failed to connect to {to}: {error}");
    if is_ours(error) { Trouble::Unknown(text) } else { Trouble::Failed(text) }
}

/// Whether an error is about heeler's own means, not about the target.
fn is_ours(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(
            Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOBUFS
                | Errno::ENOMEM
                | Errno::EADDRNOTAVAIL
                | Errno::EAFNOSUPPORT
        )
    )
}

/// How many connections wait to be accepted by a listener on this machine (proc_pid_net(5): `rx_queue`
/// of a listening socket).
#[must_use]
pub fn backlog(address: SocketAddr) -> Option<u64> {
    let table = match address.ip() {
        IpAddr::V4(_) => "/proc/self/net/tcp",
        IpAddr::V6(_) => "/proc/self/net/tcp6",
    };
    let text = std::fs::read_to_string(table).ok()?;
    let waiting = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (_, port) = words.nth(1)?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let listens = words.nth(1)? == "0A";
        let (_, queue) = words.next()?.split_once(':')?;
        (listens && port == address.port()).then(|| u64::from_str_radix(queue, 16).ok())?
    };
    text.lines().find_map(waiting)
}

/// Names being resolved, each once.
#[derive(Debug, Default)]
struct Names(Mutex<HashMap<String, Arc<OnceCell<Found>>>>);

/// The addresses of a name, or why there are none.
type Found = Result<Vec<IpAddr>, String>;

impl Names {
    async fn resolve(&self, host: &str) -> Found {
        let cell = Arc::clone(
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(host.to_owned())
                .or_default(),
        );
        let found = cell.get_or_init(|| look_up(host)).await.clone();
        // The next probe asks anew.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
        found
    }
}

async fn look_up(host: &str) -> Found {
    let found = tokio::net::lookup_host((host, 0)).await.map_err(|error| error.to_string())?;
    let mut addresses: Vec<_> = found.map(|address| address.ip()).collect();
    addresses.dedup();
    Ok(addresses)
}
