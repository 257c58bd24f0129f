//! Servers that misbehave on order, certificates of every kind, and a probe as the scout runs it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use heeler::checks::connect::Tools;
use heeler::checks::{Network, Probe};
use heeler::config::error::render;
use heeler::config::settings::Settings;
use heeler::config::{LoadAs, parse_service};
use heeler::model::ids::ServiceName;
use heeler::model::observation::{Observation, Outcome};
use heeler::model::process::Uid;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Long enough that it is never what ends a probe.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Probes once, as a check with these lines would, within a minute.
pub(crate) fn probe(lines: &str) -> Observation {
    probe_within(lines, LONG)
}

/// The same within some time: what the caller makes of a probe that is not done by then.
pub(crate) fn probe_within(lines: &str, limit: Duration) -> Observation {
    probe_by(&Tools::default(), lines, limit)
}

/// The same with these tools.
pub(crate) fn probe_by(tools: &Tools, lines: &str, limit: Duration) -> Observation {
    let network = network(lines);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let seen = runtime.block_on(async {
        let probed = tokio::time::timeout(limit, network.probe(tools)).await;
        probed.unwrap_or_else(|_| tools.progress.overdue(limit))
    });
    runtime.shutdown_background();
    seen
}

/// Probes once; what was seen, and the most that the loop that all probes share computed without a turn for
/// anybody else. By the processor's clock: a machine that is busy with other things is no fault of a probe.
pub(crate) fn longest_stand(network: &Network) -> (Observation, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let seen = runtime.block_on(async {
        let tools = Tools::default();
        let mut probe = std::pin::pin!(network.probe(&tools));
        let computed = || -> Duration {
            let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
            nix::time::clock_gettime(clock).expect("a clock").into()
        };
        let (mut last, mut gap) = (computed(), Duration::ZERO);
        loop {
            tokio::select! {
                seen = &mut probe => return (seen, gap.max(computed() - last)),
                () = tokio::time::sleep(Duration::from_millis(1)) => {
                    gap = gap.max(computed() - last);
                    last = computed();
                }
            }
        }
    });
    runtime.shutdown_background();
    seen
}

/// What a check with these lines has to probe.
pub(crate) fn network(lines: &str) -> Network {
    let text = format!("[[check]]\n{lines}\n");
    let who = LoadAs::new(Uid(0), Some("root".into()), |_| None);
    let name = ServiceName::parse("web").expect("a name");
    let read = parse_service(&name, "web.toml", &text, &Settings::of(&who), &who);
    let (definition, _) = read.unwrap_or_else(|found| panic!("{}", render(&found)));
    let Some(Probe::Network(network)) = definition.probes.first() else {
        panic!("not a network probe: {text}")
    };
    // Over the wire and back, as it reaches the scout.
    let wire = serde_json::to_vec(network).expect("serializes");
    serde_json::from_slice(&wire).expect("comes back")
}

/// Why the target is said to have failed.
pub(crate) fn failure(seen: &Observation) -> String {
    match &seen.outcome {
        Outcome::Failed(why) => why.to_string(),
        Outcome::Ok | Outcome::Unknown(_) => panic!("not failed: {seen:?}"),
    }
}

/// Why nothing can be told.
pub(crate) fn ignorance(seen: &Observation) -> String {
    match &seen.outcome {
        Outcome::Unknown(why) => why.to_string(),
        Outcome::Ok | Outcome::Failed(_) => panic!("not unknown: {seen:?}"),
    }
}

/// One that answers each connection with a handler, which is given the request and the connection. It
/// lives as long as the test's process.
pub(crate) fn serve(handler: fn(&str, &mut dyn Wire)) -> SocketAddr {
    serve_with(move |stream| {
        let mut stream = stream;
        if let Some(request) = request(&mut stream) {
            handler(&request, &mut stream);
        }
    })
}

/// The same, of connections as they come.
pub(crate) fn serve_with(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let handler = Arc::new(handler);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handler = Arc::clone(&handler);
            thread::spawn(move || handler(stream));
        }
    });
    address
}

/// HTTPS that answers with `ok`, and shows this chain.
pub(crate) fn serve_tls(shown: &Shown) -> SocketAddr {
    let config = shown.config();
    serve_with(move |stream| {
        let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
        let mut stream = StreamOwned::new(session, stream);
        if request(&mut stream).is_some() {
            let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            stream.conn.send_close_notify();
            let _sent = stream.flush();
        }
    })
}

/// A connection of a server.
pub(crate) trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// Reads a request: its head, and as much of a body as its head says.
pub(crate) fn request(stream: &mut impl Read) -> Option<String> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => text.push(byte[0]),
            Ok(_) => return None,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let head = String::from_utf8_lossy(&text).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    stream.read_exact(&mut body).ok()?;
    text.extend(body);
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Runs a test again by itself, in a process of its own with these variables; false in the outer one,
/// which is then done.
pub(crate) fn alone(test: &str, env: &[(&str, &str)]) -> bool {
    const INNER: &str = "HEELER_TEST_ALONE";
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let own = std::env::current_exe().expect("this program");
    let mut command = Command::new(own);
    command.args(["--exact", test, "--nocapture"]).env(INNER, "1").envs(env.iter().copied());
    let output = command.output().expect("runs again");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("1 passed"), "{test} was not run: {out}");
    false
}

/// How long something takes.
pub(crate) fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let out = what();
    (out, began.elapsed())
}

/// An authority that issues whatever it is asked for.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: rcgen::Certificate,
}

/// What a server shows, and its key.
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) pem: String,
    key: Vec<u8>,
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy)]
pub(crate) enum Dates {
    Valid,
    Expired,
    Unborn,
}

impl Dates {
    fn put(self, params: &mut CertificateParams) {
        let (from, to) = match self {
            Self::Valid => (2020, 2090),
            Self::Expired => (2020, 2021),
            Self::Unborn => (2089, 2090),
        };
        params.not_before = rcgen::date_time_ymd(from, 1, 2);
        params.not_after = rcgen::date_time_ymd(to, 3, 4);
    }
}

impl Authority {
    /// One that trusts itself.
    pub(crate) fn new(name: &str, dates: Dates) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = Self::params(name, dates);
        let own = params.self_signed(&key).expect("a certificate");
        Self { issuer: Issuer::new(params, key), own }
    }

    /// One below it.
    pub(crate) fn below(&self, name: &str, dates: Dates) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = Self::params(name, dates);
        let own = params.signed_by(&key, &self.issuer).expect("a certificate");
        Self { issuer: Issuer::new(params, key), own }
    }

    fn params(name: &str, dates: Dates) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        dates.put(&mut params);
        params
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.own.pem()
    }

    /// Its own certificate.
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.own.der().clone()
    }

    /// A server's certificate.
    pub(crate) fn issue(&self, names: &[&str], dates: Dates) -> Shown {
        let (params, key) = server(names, dates);
        let own = params.signed_by(&key, &self.issuer).expect("a certificate");
        Shown { chain: vec![own.der().clone()], pem: own.pem(), key: key.serialize_der() }
    }
}

/// A certificate that signed itself, without being an authority's.
pub(crate) fn self_signed(names: &[&str], dates: Dates) -> Shown {
    let (params, key) = server(names, dates);
    let own = params.self_signed(&key).expect("a certificate");
    Shown { chain: vec![own.der().clone()], pem: own.pem(), key: key.serialize_der() }
}

/// The same that says it is an authority's, as `openssl req -x509` makes them.
pub(crate) fn self_signed_authority(names: &[&str]) -> Shown {
    let (mut params, key) = server(names, Dates::Valid);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).expect("a certificate");
    Shown { chain: vec![own.der().clone()], pem: own.pem(), key: key.serialize_der() }
}

fn server(names: &[&str], dates: Dates) -> (CertificateParams, KeyPair) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).expect("names");
    let first = names.first().cloned().unwrap_or_default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, first);
    dates.put(&mut params);
    (params, KeyPair::generate().expect("a key"))
}

impl Shown {
    /// With more certificates above its own.
    pub(crate) fn above(mut self, more: &[CertificateDer<'static>]) -> Self {
        self.chain.extend_from_slice(more);
        self
    }

    /// A server's side of TLS with it.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .expect("key and certificate are of each other");
        Arc::new(config)
    }
}

/// Does something with the file rights of nobody, in a thread of its own.
pub(crate) fn as_nobody<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        // Of this thread only, and of those it makes; nothing to give up where one is no root.
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        nix::unistd::setfsgid(nix::unistd::Gid::from_raw(65_534));
        what()
    });
    thread.join().expect("does not panic")
}
