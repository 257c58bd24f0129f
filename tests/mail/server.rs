//! An SMTP server with STARTTLS, TLS and AUTH that keeps what it gets, and misbehaves where it is told to.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::wait_for;

/// Where the server may misbehave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Banner,
    Ehlo,
    StartTls,
    Handshake,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// After the whole mail.
    End,
}

/// What it does there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Says nothing, and keeps the connection.
    Hang,
    /// Closes the connection.
    Drop,
    /// Says this.
    Say(&'static str),
    /// Says this without end, for as long as somebody listens.
    Endless(&'static str),
}

/// How it behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manners {
    pub(crate) fault: Option<(Step, Fault)>,
    /// Only where the recipient has this in it.
    pub(crate) only_for: Option<&'static str>,
    pub(crate) no_starttls: bool,
    /// `AUTH` as it offers it.
    pub(crate) auth: &'static str,
}

/// A mail as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) to: Vec<String>,
    pub(crate) from: String,
    /// As on the wire: dots stuffed, without the end mark.
    pub(crate) raw: String,
    pub(crate) encrypted: bool,
    pub(crate) login: Option<(String, String)>,
}

impl Received {
    /// As it was meant.
    pub(crate) fn text(&self) -> String {
        let lines = self.raw.split("\r\n").map(|line| line.strip_prefix('.').unwrap_or(line));
        lines.collect::<Vec<_>>().join("\r\n")
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let text = self.text();
        let (head, _) = text.split_once("\r\n\r\n")?;
        let head = head.replace("\r\n ", " ");
        head.split("\r\n")
            .find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
    }
}

#[derive(Default)]
struct State {
    manners: Manners,
    mails: Vec<Received>,
    /// Every command, with whether it came encrypted.
    commands: Vec<(String, bool)>,
    connections: usize,
}

/// The server.
pub(crate) struct Server {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
    listener: Option<TcpListener>,
    tls: Arc<ServerConfig>,
    implicit: bool,
}

impl Server {
    /// One that encrypts by STARTTLS, or from the first byte where `implicit`.
    pub(crate) fn start(papers: &Papers, implicit: bool, manners: Manners) -> Self {
        let state = Arc::new(Mutex::new(State { manners, ..State::default() }));
        let mut server =
            Self { port: 0, state, listener: None, tls: Arc::clone(&papers.server), implicit };
        server.up();
        server
    }

    /// Listens, at the same port as before.
    pub(crate) fn up(&mut self) {
        let bind = || TcpListener::bind(("127.0.0.1", self.port)).ok();
        let listener = wait_for("the port", Duration::from_secs(20), bind);
        self.port = listener.local_addr().expect("bound").port();
        let accepting = listener.try_clone().expect("dup");
        let (state, tls, implicit) =
            (Arc::clone(&self.state), Arc::clone(&self.tls), self.implicit);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let (state, tls) = (Arc::clone(&state), Arc::clone(&tls));
                lock(&state).connections += 1;
                std::thread::spawn(move || {
                    // A client that goes away is what these tests are about.
                    let _ended = Talk::new(stream, state, tls, implicit).hold();
                });
            }
        });
        self.listener = Some(listener);
    }

    /// Refuses connections.
    pub(crate) fn down(&mut self) {
        if let Some(listener) = self.listener.take() {
            let how = nix::sys::socket::Shutdown::Both;
            nix::sys::socket::shutdown(listener.as_raw_fd(), how).expect("shutdown");
        }
    }

    pub(crate) fn behave(&self, manners: Manners) {
        lock(&self.state).manners = manners;
    }

    pub(crate) fn mails(&self) -> Vec<Received> {
        lock(&self.state).mails.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// The commands so far, each with `!` before it where it came in clear.
    pub(crate) fn heard(&self) -> Vec<String> {
        let shown = |(text, encrypted): &(String, bool)| {
            format!("{}{text}", if *encrypted { "" } else { "!" })
        };
        lock(&self.state).commands.iter().map(shown).collect()
    }

    pub(crate) fn wait_mails(&self, count: usize) -> Vec<Received> {
        wait_for(&format!("{count} mails"), Duration::from_secs(40), || {
            Some(self.mails()).filter(|mails| mails.len() >= count)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no test thread panics with it")
}

/// Certificates for `localhost` and 127.0.0.1, and who signed them.
pub(crate) struct Papers {
    pub(crate) authority: String,
    server: Arc<ServerConfig>,
}

impl Papers {
    pub(crate) fn new() -> Self {
        Self::for_names(&["localhost", "127.0.0.1"])
    }

    pub(crate) fn for_names(names: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        // Each authority has a name of its own, so that one can be told from another.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("names");
        let own = params.signed_by(&key, &issuer).expect("a certificate").pem();
        let chain = vec![CertificateDer::from_pem_slice(own.as_bytes()).expect("pem")];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("pem");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("fits");
        Self { authority, server: Arc::new(server) }
    }
}

enum Line {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// One connection.
struct Talk {
    line: Option<Line>,
    state: Arc<Mutex<State>>,
    tls: Arc<ServerConfig>,
    implicit: bool,
    login: Option<(String, String)>,
}

impl Talk {
    fn new(
        stream: TcpStream,
        state: Arc<Mutex<State>>,
        tls: Arc<ServerConfig>,
        implicit: bool,
    ) -> Self {
        Self { line: Some(Line::Clear(stream)), state, tls, implicit, login: None }
    }

    fn hold(mut self) -> io::Result<()> {
        if self.implicit {
            self.encrypt()?;
        }
        self.fault(Step::Banner, "")?;
        self.say("220 test ESMTP")?;
        let (mut from, mut to) = (String::new(), Vec::new());
        loop {
            let command = self.read_line()?;
            let encrypted = self.encrypted();
            lock(&self.state).commands.push((command.clone(), encrypted));
            let word = command.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            match word.as_str() {
                "EHLO" => {
                    self.fault(Step::Ehlo, "")?;
                    let manners = lock(&self.state).manners.clone();
                    if !encrypted && !manners.no_starttls {
                        self.say("250-STARTTLS")?;
                    }
                    if !manners.auth.is_empty() {
                        self.say(&format!("250-AUTH {}", manners.auth))?;
                    }
                    self.say("250 8BITMIME")?;
                }
                "STARTTLS" => {
                    self.fault(Step::StartTls, "")?;
                    self.say("220 go")?;
                    self.encrypt()?;
                }
                "AUTH" => {
                    self.fault(Step::Auth, "")?;
                    self.authenticate(&command)?;
                }
                "MAIL" => {
                    self.fault(Step::Mail, "")?;
                    from = command;
                    self.say("250 ok")?;
                }
                "RCPT" => {
                    if self.fault(Step::Rcpt, &command)? == Said::Something {
                        continue;
                    }
                    to.push(between(&command));
                    self.say("250 ok")?;
                }
                "DATA" => {
                    self.fault(Step::Data, "")?;
                    self.say("354 go on")?;
                    let mut raw = String::new();
                    loop {
                        let line = self.read_line()?;
                        if line == "." {
                            break;
                        }
                        raw.push_str(&line);
                        raw.push_str("\r\n");
                    }
                    if self.fault(Step::End, "")? == Said::Something {
                        continue;
                    }
                    let encrypted = self.encrypted();
                    let mail = Received {
                        to: std::mem::take(&mut to),
                        from: between(&from),
                        raw,
                        encrypted,
                        login: self.login.clone(),
                    };
                    lock(&self.state).mails.push(mail);
                    self.say("250 queued as 4711")?;
                }
                "QUIT" => return self.say("221 bye"),
                _ => self.say("500 what?")?,
            }
        }
    }

    fn authenticate(&mut self, command: &str) -> io::Result<()> {
        let words: Vec<_> = command.split(' ').collect();
        let (user, password) = match words.as_slice() {
            ["AUTH", "PLAIN", first] => {
                let text = decode(first);
                let mut parts = text.split('\0').skip(1).map(str::to_owned);
                (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
            }
            _ => {
                self.say("334 VXNlcm5hbWU6")?;
                let user = decode(&self.read_line()?);
                self.say("334 UGFzc3dvcmQ6")?;
                (user, decode(&self.read_line()?))
            }
        };
        self.login = Some((user, password));
        self.say("235 welcome")
    }

    /// Misbehaves, if it is to do so here. An error ends the connection.
    fn fault(&mut self, step: Step, about: &str) -> io::Result<Said> {
        let manners = lock(&self.state).manners.clone();
        let Some((at, fault)) = manners.fault else { return Ok(Said::Nothing) };
        if at != step || manners.only_for.is_some_and(|text| !about.contains(text)) {
            return Ok(Said::Nothing);
        }
        let ended = || Err(io::Error::from(io::ErrorKind::ConnectionAborted));
        match fault {
            Fault::Hang => {
                // Until the other side has had enough.
                while self.read_line().is_ok() {}
                ended()
            }
            Fault::Drop => ended(),
            Fault::Say(text) => {
                self.say(text)?;
                if matches!(step, Step::Rcpt | Step::End) {
                    return Ok(Said::Something);
                }
                while self.read_line().is_ok() {}
                ended()
            }
            Fault::Endless(text) => loop {
                self.write(text.repeat(100).as_bytes())?;
            },
        }
    }

    fn encrypt(&mut self) -> io::Result<()> {
        self.fault(Step::Handshake, "")?;
        if let Some(Line::Clear(stream)) = self.line.take() {
            let connection =
                ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
            self.line = Some(Line::Tls(Box::new(StreamOwned::new(connection, stream))));
        }
        Ok(())
    }

    fn encrypted(&self) -> bool {
        matches!(self.line, Some(Line::Tls(_)))
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.write(format!("{text}\r\n").as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.line.as_mut().expect("there is a line") {
            Line::Clear(stream) => stream.write_all(bytes),
            Line::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Byte by byte: what comes after it may have to be read in another way.
    fn read_line(&mut self) -> io::Result<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\r\n") {
            match self.line.as_mut().expect("there is a line") {
                Line::Clear(stream) => stream.read_exact(&mut byte)?,
                Line::Tls(stream) => stream.read_exact(&mut byte)?,
            }
            line.push(byte[0]);
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if let Some(Line::Clear(stream)) = &self.line {
            // Already closed is as good.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Something,
    Nothing,
}

fn between(command: &str) -> String {
    let inner = command.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map(|(address, _)| address.to_owned()).unwrap_or_default()
}

/// Base64, as far as these tests need it.
fn decode(text: &str) -> String {
    const SIGNS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for sign in text.bytes().filter(|sign| *sign != b'=') {
        let value = SIGNS.iter().position(|known| *known == sign).expect("base64");
        bits = bits << 6 | u32::try_from(value).expect("six bits");
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    String::from_utf8(out).expect("text")
}
