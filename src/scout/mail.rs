//! The loop of the scout that mails: letters in, one at a time out by SMTP, what became of them back.
//!
//! Sources: RFC 5321 (SMTP; 4.2.1 for what 4yz and 5yz mean), RFC 3207 (STARTTLS), RFC 4954 (AUTH),
//! RFC 8314 (TLS from the first byte). The conversation is lettre's; the connection, its encryption and
//! every deadline are ours, because a server is a stranger: what it says is counted ([`Wire`]), and what
//! it said in clear is forgotten once it speaks TLS (RFC 3207, 4.2).

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Quit, Rcpt, Starttls};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::model::limits;
use crate::model::text::Untrusted;
use crate::model::units::show_duration;
use crate::scout::line::Wire;
use crate::scout::packets::{self, Packets, invalid};
use crate::wire::post::{End, Fate, Letter, Parts, Posted, Security, Server, Setup, ToPost};

/// Threads for names being resolved: letters go one at a time, tests beside them.
const NAME_THREADS_MAX: usize = 2 * limits::MAIL_SERVERS_MAX;

/// Delivers until the keeper closes the socket (0), or says what is no message (2).
pub(super) fn run(socket: OwnedFd) -> ExitCode {
    packets::run(socket, NAME_THREADS_MAX, serve)
}

async fn serve(mut packets: Packets) -> io::Result<()> {
    let (done, mut ended) = unbounded_channel::<Posted>();
    let (mut parts, mut office) = (Parts::default(), None);
    loop {
        tokio::select! {
            packet = packets.next() => {
                let Some(packet) = packet? else { return Ok(()) };
                let messages = parts.take(packet);
                for message in messages.map_err(|error| invalid(&error.to_string()))? {
                    take(&mut office, message, &done)?;
                }
            }
            Some(posted) = ended.recv() => packets.answer(posted.packet()),
        }
    }
}

/// The servers, ready to be used.
struct Office {
    setup: Setup,
    /// What TLS with each of them trusts, made when first needed.
    tls: Vec<OnceCell<Arc<ClientConfig>>>,
    /// Alerts go one after the other.
    turn: Mutex<()>,
}

fn take(
    office: &mut Option<Arc<Office>>,
    message: ToPost,
    done: &UnboundedSender<Posted>,
) -> io::Result<()> {
    match (message, office) {
        (ToPost::Setup(setup), office @ None) => {
            let tls = setup.servers.iter().map(|_| OnceCell::new()).collect();
            *office = Some(Arc::new(Office { setup, tls, turn: Mutex::new(()) }));
        }
        (ToPost::Letter(letter), Some(office)) => {
            let (office, done) = (Arc::clone(office), done.clone());
            tokio::spawn(async move {
                // Somebody waits for the answer to a test: it does not queue behind a server that hangs.
                let _turn = match letter.only {
                    None => Some(office.turn.lock().await),
                    Some(_) => None,
                };
                let fates = office.deliver(&letter).await;
                // The loop is gone only at the end of this process.
                let _sent = done.send(Posted { id: letter.id, fates });
            });
        }
        (ToPost::Setup(_), Some(_)) | (ToPost::Letter(_), None) => {
            return Err(invalid("out of order"));
        }
    }
    Ok(())
}

impl Office {
    /// Tries the servers in turn, each with the recipients that no server has taken or refused yet.
    async fn deliver(&self, letter: &Letter) -> Vec<Fate> {
        let mut fates: Vec<_> = letter.to.iter().map(|_| fate(End::Unreachable, "")).collect();
        for (at, server) in self.setup.servers.iter().enumerate() {
            if letter.only.is_some_and(|only| only != at) {
                continue;
            }
            let left: Vec<_> = (0..fates.len())
                .filter(|to| matches!(fates[*to].end, End::Later | End::Unreachable))
                .collect();
            if left.is_empty() {
                break;
            }
            let limit = Duration::from_millis(self.setup.whole_ms);
            let mut talk =
                Talk { office: self, at, server, letter, left: &left, fates: &mut fates };
            let tried = match timeout(limit, talk.hold()).await {
                Ok(tried) => tried,
                Err(_) => Err(format!("it took longer than {}", show_duration(limit))),
            };
            if let Err(why) = tried {
                talk.unreachable(&why);
            }
        }
        fates
    }

    /// What is trusted of a server.
    async fn config(&self, at: usize, server: &Server) -> Result<Arc<ClientConfig>, String> {
        let make = || async { client_config(server).map(Arc::new) };
        self.tls[at].get_or_try_init(make).await.cloned()
    }
}

fn client_config(server: &Server) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &server.trusted {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let added =
                    certificate.map_err(|error| error.to_string()).and_then(|certificate| {
                        roots.add(certificate).map_err(|error| error.to_string())
                    });
                added.map_err(|error| format!("its ca_file has a bad certificate: {error}"))?;
            }
            if roots.is_empty() {
                return Err("its ca_file has no certificate (it has to be PEM)".to_owned());
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let text = "this machine trusts no certificates: install ca-certificates, \
                            or name a ca_file";
                return Err(text.to_owned());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// One letter with one server.
struct Talk<'a> {
    office: &'a Office,
    at: usize,
    server: &'a Server,
    letter: &'a Letter,
    /// Who has not got it yet.
    left: &'a [usize],
    fates: &'a mut [Fate],
}

impl Talk<'_> {
    /// The whole conversation. Errors are about the server; what concerns the letter is in its fates.
    async fn hold(&mut self) -> Result<(), String> {
        if let Some(why) = &self.server.broken {
            return Err(why.clone());
        }
        let from = address(&self.letter.from)?;
        let mut server = self.connect().await?;
        self.log_in(&mut server).await?;
        let sender = server.command(Mail::new(Some(from), Vec::new()));
        self.step("MAIL FROM", sender).await?;
        let mut takers = Vec::new();
        for to in self.left.iter().copied() {
            let rcpt = Rcpt::new(address(&self.letter.to[to])?, Vec::new());
            match self.answer("RCPT TO", server.command(rcpt)).await {
                Ok(_) => takers.push(to),
                Err(trouble) => self.about(&[to], trouble)?,
            }
        }
        if !takers.is_empty() {
            self.step("DATA", server.command(Data)).await?;
            match self.answer("the mail", server.message(self.letter.text.as_bytes())).await {
                Ok(answer) => {
                    let text = self.named(&said(&answer));
                    for to in takers {
                        self.fates[to] = fate(End::Delivered, &text);
                    }
                }
                Err(trouble) => self.about(&takers, trouble)?,
            }
        }
        // It has its mail: whether it says goodbye is nobody's concern.
        let _goodbye = timeout(GOODBYE, server.command(Quit)).await;
        Ok(())
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, String> {
        let limit = Duration::from_millis(self.office.setup.connect_ms);
        let Server { host, port, .. } = self.server;
        let connecting = TcpStream::connect((host.trim_matches(['[', ']']), *port));
        let stream = match timeout(limit, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("failed to connect: {error}")),
            Err(_) => return Err(format!("no connection within {}", show_duration(limit))),
        };
        let hello = ClientId::Domain(self.office.setup.hello.clone());
        match self.server.security {
            Security::None => {
                let wire = Box::new(Wire::new(stream, Greeting::Theirs.bytes()));
                let begun = AsyncSmtpConnection::connect_with_transport(wire, &hello);
                self.step("the greeting", begun).await
            }
            Security::Tls => self.encrypted(stream, Greeting::Theirs, &hello).await,
            Security::StartTls => {
                let stream = self.start_tls(stream, &hello).await?;
                self.encrypted(stream, Greeting::Given, &hello).await
            }
        }
    }

    /// Asks for STARTTLS in clear, says nothing else, and forgets whatever was said.
    async fn start_tls(&self, stream: TcpStream, hello: &ClientId) -> Result<TcpStream, String> {
        let failed = |error: io::Error| format!("failed to use the connection: {error}");
        let stream = stream.into_std().map_err(failed)?;
        let clear = TcpStream::from_std(stream.try_clone().map_err(failed)?).map_err(failed)?;
        let wire = Box::new(Wire::new(clear, Greeting::Theirs.bytes()));
        let begun = AsyncSmtpConnection::connect_with_transport(wire, hello);
        let mut server = self.step("the greeting", begun).await?;
        if !server.can_starttls() {
            let text = "it does not offer STARTTLS, so nothing was sent: an attacker on the way can \
                        hide the offer; set tls = \"tls\" (port 465), or \"none\" for a server on \
                        this machine";
            return Err(text.to_owned());
        }
        self.step("STARTTLS", server.command(Starttls)).await?;
        TcpStream::from_std(stream).map_err(failed)
    }

    async fn encrypted(
        &self,
        stream: TcpStream,
        greeting: Greeting,
        hello: &ClientId,
    ) -> Result<AsyncSmtpConnection, String> {
        let config = self.office.config(self.at, self.server).await?;
        let host = self.server.host.trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host} is not a name that a certificate can have"))?;
        let limit = Duration::from_millis(self.office.setup.command_ms);
        let stream = match timeout(limit, TlsConnector::from(config).connect(name, stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("failed to begin TLS: {error}")),
            Err(_) => return Err(format!("TLS did not begin within {}", show_duration(limit))),
        };
        let wire = Box::new(Wire::new(stream, greeting.bytes()));
        let begun = AsyncSmtpConnection::connect_with_transport(wire, hello);
        self.step("the greeting", begun).await
    }

    async fn log_in(&self, server: &mut AsyncSmtpConnection) -> Result<(), String> {
        let Some(login) = &self.server.login else { return Ok(()) };
        if self.server.security == Security::None {
            return Err("a login would send the password in clear".to_owned());
        }
        let credentials = Credentials::new(login.user.clone(), login.password.clone());
        let mechanisms = [Mechanism::Plain, Mechanism::Login];
        let known = mechanisms.iter().any(|one| server.server_info().supports_auth_mechanism(*one));
        if !known {
            return Err("it offers no login that heeler knows (PLAIN, LOGIN)".to_owned());
        }
        self.step("the login", server.auth(&mechanisms, &credentials)).await.map(drop)
    }

    /// One step with its deadline.
    async fn answer<T>(
        &self,
        step: &'static str,
        answer: impl Future<Output = Result<T, smtp::Error>>,
    ) -> Result<T, Trouble> {
        let limit = Duration::from_millis(self.office.setup.command_ms);
        match timeout(limit, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Trouble::of(step, &error)),
            Err(_) => {
                let within = show_duration(limit);
                Err(Trouble::Server(format!("it did not answer to {step} within {within}")))
            }
        }
    }

    /// The same, where anything but yes ends it.
    async fn step<T>(
        &self,
        step: &'static str,
        answer: impl Future<Output = Result<T, smtp::Error>>,
    ) -> Result<T, String> {
        self.answer(step, answer).await.map_err(|trouble| match trouble {
            Trouble::Server(text) | Trouble::Later(text) | Trouble::Never(text) => text,
        })
    }

    /// Notes what was said of the letter for these recipients.
    fn about(&mut self, to: &[usize], trouble: Trouble) -> Result<(), String> {
        let (end, text) = match trouble {
            Trouble::Server(text) => return Err(text),
            Trouble::Later(text) => (End::Later, text),
            Trouble::Never(text) => (End::Refused, text),
        };
        for to in to {
            self.fates[*to] = fate(end, &self.named(&text));
        }
        Ok(())
    }

    /// This server could not be used; what an earlier one said of the letter stays beside it.
    fn unreachable(&mut self, why: &str) {
        for to in self.left {
            let one = &mut self.fates[*to];
            if matches!(one.end, End::Later | End::Unreachable) {
                let before = if one.text.is_empty() { "" } else { "; " };
                let name = format!("{}:{}", self.server.host, self.server.port);
                let text = format!("{}{before}{name}: {why}", one.text.raw());
                *one = fate(one.end, &text);
            }
        }
    }

    fn named(&self, text: &str) -> String {
        format!("{}:{}: {text}", self.server.host, self.server.port)
    }
}

/// How long a server may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Who greets: after STARTTLS nobody does (RFC 3207, 4.2), and lettre begins with a greeting.
#[derive(Clone, Copy)]
enum Greeting {
    Theirs,
    Given,
}

impl Greeting {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Theirs => b"",
            Self::Given => b"220 TLS\r\n",
        }
    }
}

/// Why a step did not come out.
enum Trouble {
    /// The server itself: it hangs, is gone, or talks nonsense.
    Server(String),
    /// It said not now (4yz).
    Later(String),
    /// It said never (5yz).
    Never(String),
}

impl Trouble {
    fn of(step: &str, error: &smtp::Error) -> Self {
        use std::error::Error;
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        match error.status() {
            Some(code) if error.is_permanent() => {
                Self::Never(format!("it refused {step}: {code} {cause}"))
            }
            Some(code) => Self::Later(format!("it put off {step}: {code} {cause}")),
            None if cause.is_empty() => Self::Server(format!("failed at {step}: {error}")),
            None => Self::Server(format!("failed at {step}: {cause}")),
        }
    }
}

fn said(answer: &Response) -> String {
    let text: Vec<_> = answer.message().collect();
    format!("{} {}", answer.code(), text.join(" "))
}

fn fate(end: End, text: &str) -> Fate {
    Fate { end, text: Untrusted::bounded(text.as_bytes(), limits::SCOUT_TEXT_BYTES_MAX) }
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error| format!("{text} is not an address: {error}"))
}
