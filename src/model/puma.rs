//! `[puma]`: where a Puma can be asked, what it is asked, and what it said.

mod stats;

use std::fmt;
use std::path::PathBuf;

pub use stats::{Boot, Cluster, Form, Stats, Threads, Version, WorkerStatus};

use crate::model::process::Pid;
use crate::model::service::Command;
use crate::model::text::Untrusted;

/// `[puma]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Puma {
    /// Where it can be asked.
    pub control: Control,
    /// The link that a deploy points at the release to run.
    pub current: Option<PathBuf>,
    /// How many workers there should be; the most that were seen since it started where absent.
    pub workers: Option<u32>,
    /// How `current` goes back to the release before, when the new one fails.
    pub rollback: Option<Rollback>,
    /// What has to succeed in a new release before a worker of it is let in.
    pub release: Option<Command>,
}

/// Where a Puma can be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Control {
    /// Its state file says it.
    State(PathBuf),
    /// This is it.
    Url {
        /// The control server.
        url: ControlUrl,
        /// What lets us in.
        token: Token,
    },
}

/// What the control server wants to hear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Token {
    /// Nothing.
    None,
    /// This.
    Said(Secret),
    /// What is in this file, opened as the service's user.
    File(PathBuf),
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// A token as it can stand in a request: Puma compares it byte by byte and decodes nothing.
    #[must_use]
    pub fn token(text: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_graphic() && !b"&;#\"<>".contains(&byte);
        let sound = (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits);
        sound.then(|| Self(text.into()))
    }

    /// Any text.
    #[must_use]
    pub fn text(text: String) -> Self {
        Self(text.into())
    }

    /// The text itself, for where it has to go.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

const TOKEN_BYTES_MAX: usize = 1024;

/// The address of a control server, as `activate_control_app` has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ControlUrl {
    /// A socket in the file system; where not absolute, from the directory Puma was started in.
    Unix(PathBuf),
    /// A socket with an abstract name.
    Abstract(Box<str>),
    /// A port.
    Tcp {
        /// A name or an address, without the brackets of an IPv6 one.
        host: Box<str>,
        /// Its number.
        port: u16,
    },
}

impl ControlUrl {
    /// Parses one. What follows a `?` is for Puma alone (the socket's mode and backlog).
    ///
    /// # Errors
    /// Says what it is instead, and what to do.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (url, _options) = text.split_once('?').unwrap_or((text, ""));
        if url.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(UrlError::Odd);
        }
        if let Some(name) = url.strip_prefix("unix://@") {
            let fits = (1..=ABSTRACT_BYTES_MAX).contains(&name.len());
            return if fits { Ok(Self::Abstract(name.into())) } else { Err(UrlError::Odd) };
        }
        if let Some(path) = url.strip_prefix("unix://") {
            return if path.is_empty() { Err(UrlError::Odd) } else { Ok(Self::Unix(path.into())) };
        }
        if url.starts_with("ssl://") {
            return Err(UrlError::Tls);
        }
        let (host, port) = url
            .strip_prefix("tcp://")
            .and_then(|rest| rest.rsplit_once(':'))
            .ok_or(UrlError::Odd)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Odd)?;
        if bare.is_empty() || bare.contains(['/', '@', '[', ']']) {
            return Err(UrlError::Odd);
        }
        Ok(Self::Tcp { host: bare.into(), port })
    }
}

impl fmt::Display for ControlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Abstract(name) => write!(f, "unix://@{name}"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

/// `sun_path` less the NUL that makes a name abstract (unix(7)).
const ABSTRACT_BYTES_MAX: usize = 107;

/// Why a text is no address that heeler asks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UrlError {
    /// It is none.
    Odd,
    /// Behind it TLS is spoken.
    Tls,
}

impl UrlError {
    /// What would be one.
    pub const HINT: &'static str =
        "as in puma.rb: unix:///path, unix://@name or tcp://127.0.0.1:9293";
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Odd => "this is not the address of a control server",
            Self::Tls => {
                "heeler does not speak TLS with a control server: put it on a Unix socket \
                 (activate_control_app \"unix:///path\")"
            }
        })
    }
}

/// How `current` goes back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rollback {
    /// The link is made anew, as the service's user.
    Symlink,
    /// By this command.
    Command(Command),
}

/// All that heeler ever asks of a Puma.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// How it is.
    Stats,
    /// To fork from what `current` leads to now.
    ReloadWorkerDirectory,
    /// To replace its workers one by one.
    PhasedRestart,
    /// To execute itself anew.
    Restart,
}

impl Ask {
    /// Every one.
    pub const ALL: [Self; 4] =
        [Self::Stats, Self::ReloadWorkerDirectory, Self::PhasedRestart, Self::Restart];

    /// The word of the control server.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Stats => "stats",
            Self::ReloadWorkerDirectory => "reload-worker-directory",
            Self::PhasedRestart => "phased-restart",
            Self::Restart => "restart",
        }
    }
}

/// One thing to ask, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Where.
    pub control: Control,
    /// What.
    pub ask: Ask,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What the state file says of the master, where one was read.
    pub state: Option<StateFile>,
    /// What everybody on the machine could use to command it.
    pub exposed: Vec<Exposed>,
    /// What the control server said.
    pub said: Result<Said, Trouble>,
}

impl Answer {
    /// Nothing but why there is none.
    #[must_use]
    pub fn none(trouble: Trouble) -> Self {
        Self { state: None, exposed: Vec::new(), said: Err(trouble) }
    }

    /// How it is, where it said so.
    #[must_use]
    pub fn stats(&self) -> Option<&Stats> {
        match &self.said {
            Ok(Said::Stats(stats)) => Some(stats),
            Ok(Said::Accepted) | Err(_) => None,
        }
    }
}

/// What a state file says beside how to ask. It stays behind when its Puma ends, and phased restarts do
/// not rewrite it: it proves nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StateFile {
    /// The master's number, in its own pid namespace.
    pub master: Option<Pid>,
    /// The directory it was started in.
    pub running_from: Option<Untrusted>,
}

/// Something that everybody on the machine can get at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exposed {
    /// The state file, with the token in it, can be read.
    StateReadable,
    /// The state file can be written: whoever does has heeler ask elsewhere.
    StateWritable,
    /// The control socket can be connected to, and the server wants no token.
    ControlOpen,
    /// The control socket can be connected to; the token stands before commands, but one idle connection
    /// keeps everybody else from asking.
    ControlReachable,
}

impl Exposed {
    /// Every one.
    pub const ALL: [Self; 4] =
        [Self::StateReadable, Self::StateWritable, Self::ControlOpen, Self::ControlReachable];

    /// Its word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::StateReadable => "state-readable",
            Self::StateWritable => "state-writable",
            Self::ControlOpen => "control-open",
            Self::ControlReachable => "control-reachable",
        }
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StateReadable => {
                "everybody can read the state file and the token in it, and so stop this Puma: \
                 state_permission 0640, and chmod 0640 once (Puma 5.6 keeps the mode it finds)"
            }
            Self::StateWritable => "everybody can write the state file",
            Self::ControlOpen => {
                "everybody can command this Puma: its control socket is open and wants no token"
            }
            Self::ControlReachable => {
                "everybody can connect to the control server, and one idle connection keeps all others \
                 from asking: activate_control_app \"unix:///path?umask=0177\""
            }
        })
    }
}

/// A good answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// To [`Ask::Stats`].
    Stats(Stats),
    /// To a command: it was heard. Puma says so before it does anything, and whether it can or not.
    Accepted,
}

/// Why there is no good answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// What kind.
    pub kind: TroubleKind,
    /// More of it, for people.
    pub detail: Untrusted,
}

impl Trouble {
    /// Trouble of a kind.
    #[must_use]
    pub fn new(kind: TroubleKind, detail: &str) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.says())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

/// The kinds of trouble.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TroubleKind {
    /// heeler's own: the question was not asked.
    NotAsked,
    /// There is no state file, or no control socket.
    Absent,
    /// The state file (or the token's) cannot be read, or says nothing of use.
    State,
    /// An address that heeler does not ask at.
    Address,
    /// The service's user may not connect.
    Denied,
    /// Nobody listens.
    Refused,
    /// No connection, or no answer, in time.
    Silent,
    /// The token is wrong.
    Forbidden,
    /// It does not do that: an old Puma, one worker only, or `data_only`.
    Unavailable,
    /// The answer is not whole, or not one.
    Garbled,
}

impl TroubleKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::NotAsked,
        Self::Absent,
        Self::State,
        Self::Address,
        Self::Denied,
        Self::Refused,
        Self::Silent,
        Self::Forbidden,
        Self::Unavailable,
        Self::Garbled,
    ];

    /// Its word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NotAsked => "not-asked",
            Self::Absent => "absent",
            Self::State => "state",
            Self::Address => "address",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
            Self::Garbled => "garbled",
        }
    }

    /// The same for people.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::NotAsked => "Puma was not asked",
            Self::Absent => "Puma's control server is not there",
            Self::State => "failed to learn how to ask Puma",
            Self::Address => "heeler cannot ask there",
            Self::Denied => "the service's user may not connect to Puma's control server",
            Self::Refused => "Puma's control server refused the connection",
            Self::Silent => "Puma's control server did not answer in time",
            Self::Forbidden => "Puma's control server refused the token",
            Self::Unavailable => "Puma's control server does not do this",
            Self::Garbled => "Puma's control server gave no proper answer",
        }
    }

    /// Whether it says something of the Puma, and not of heeler or its configuration.
    #[must_use]
    pub fn is_pumas(self) -> bool {
        match self {
            Self::Refused | Self::Silent | Self::Garbled => true,
            Self::NotAsked
            | Self::Absent
            | Self::State
            | Self::Address
            | Self::Denied
            | Self::Forbidden
            | Self::Unavailable => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_puma() {
        let tcp = |host: &str, port| Ok(ControlUrl::Tcp { host: host.into(), port });
        for (text, expected) in [
            ("unix:///srv/pumactl.sock", Ok(ControlUrl::Unix("/srv/pumactl.sock".into()))),
            ("unix:///srv/a.sock?umask=0111", Ok(ControlUrl::Unix("/srv/a.sock".into()))),
            ("unix://tmp/a.sock", Ok(ControlUrl::Unix("tmp/a.sock".into()))),
            ("unix://@puma", Ok(ControlUrl::Abstract("puma".into()))),
            ("tcp://127.0.0.1:9293", tcp("127.0.0.1", 9293)),
            ("tcp://localhost:9293?low_latency=true", tcp("localhost", 9293)),
            ("tcp://[::1]:9293", tcp("::1", 9293)),
            ("ssl://127.0.0.1:9293?key=a&cert=b", Err(UrlError::Tls)),
            ("unix://", Err(UrlError::Odd)),
            ("unix://@", Err(UrlError::Odd)),
            ("unix:///a b", Err(UrlError::Odd)),
            ("tcp://:9293", Err(UrlError::Odd)),
            ("tcp://localhost:0", Err(UrlError::Odd)),
            ("tcp://localhost", Err(UrlError::Odd)),
            ("tcp://a/b:1", Err(UrlError::Odd)),
            ("http://localhost:9293", Err(UrlError::Odd)),
            ("auto", Err(UrlError::Odd)),
            ("", Err(UrlError::Odd)),
        ] {
            let parsed = ControlUrl::parse(text);
            if let Ok(url) = &parsed {
                assert_eq!(ControlUrl::parse(&url.to_string()).as_ref(), Ok(url), "{text}");
            }
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn a_token_cannot_be_more_than_a_token_and_is_not_shown() {
        let token = Secret::token("sek-ret_+=/").expect("a token");
        assert_eq!(format!("{token:?}"), "Secret");
        assert_eq!(token.reveal(), "sek-ret_+=/");
        for odd in ["", "a b", "a\r\nGET /halt", "a&b", "a;b", "a#b", "é", &"x".repeat(1025)] {
            assert_eq!(Secret::token(odd), None, "{odd:?}");
        }
    }
}
