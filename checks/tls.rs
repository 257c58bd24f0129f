//! TLS for probes: which certificates are trusted, and what a server shows.
//!
//! A chain that is not to be trusted is the target's failure, described by what it showed; authorities
//! that cannot be read are heeler's ignorance (`Unknown`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::checks::connect::{Tools, Trouble};
use crate::checks::given::Given;
use crate::checks::x509::{Age, Facts, out_of_date, path};

/// A `ca_file`; the largest bundle of all public authorities has a quarter of it.
const CA_FILE_BYTES_MAX: u64 = 1 << 20;
/// How old the system's certificates may be: `update-ca-certificates` changes them under a scout that
/// runs for months.
const SYSTEM_AGE_MAX: Duration = Duration::from_secs(3600);

/// Whom a probe trusts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Trust {
    /// Only the certificates of this PEM file; none: the system's. A server's own certificate in it is
    /// trusted as it is.
    pub ca_file: Option<PathBuf>,
    /// What of a server's certificate is verified.
    pub verify: Verify,
}

impl Trust {
    /// Of the keys `ca_file` and `verify`.
    #[must_use]
    pub fn of(given: &Given) -> Self {
        let verify = match given.text("verify") {
            Some("none") => Verify::None,
            Some(_) | None => Verify::Full,
        };
        Self { ca_file: given.path("ca_file").map(Into::into), verify }
    }
}

/// What of a server's certificate is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Chain, dates and name.
    #[default]
    Full,
    /// Nothing: whoever answers is spoken to.
    None,
}

/// Certificates to trust, read when they are first needed and shared by all probes.
#[derive(Debug, Default)]
pub struct Roots {
    system: tokio::sync::Mutex<Option<(Instant, Arc<Trusted>)>>,
    files: Mutex<HashMap<PathBuf, (Stamp, Arc<Trusted>)>>,
}

/// What is trusted; by default, nobody.
#[derive(Debug)]
pub struct Trusted {
    /// Authorities.
    pub authorities: RootCertStore,
    /// Certificates that a `ca_file` names: a server that shows one of them needs no issuer.
    named: Vec<CertificateDer<'static>>,
}

/// A handshake, and what was shown in it.
#[derive(Debug)]
pub struct Met<S> {
    /// The connection, or why there is none.
    pub stream: Result<TlsStream<S>, Trouble>,
    /// The chain the server showed, its own certificate first; also where it was not trusted.
    pub chain: Vec<CertificateDer<'static>>,
    /// Who was trusted.
    pub trusted: Arc<Trusted>,
}

/// Speaks TLS on a connection. `name` is what the server is asked for, and what its certificate has to
/// be for.
///
/// # Errors
/// `Failed`: no TLS, a refusal, or a certificate that is not to be trusted, in words. `Unknown`: the
/// certificates to trust cannot be read.
pub async fn connect<S>(
    tools: &Tools,
    stream: S,
    name: &str,
    trust: &Trust,
) -> Result<TlsStream<S>, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    meet(tools, stream, name, trust, &[]).await?.stream
}

/// The same, with what was shown. `protocols` is what is offered by ALPN (RFC 7301).
///
/// # Errors
/// When it was not even tried: the certificates to trust cannot be read, or `name` is no name.
pub async fn meet<S>(
    tools: &Tools,
    stream: S,
    name: &str,
    trust: &Trust,
    protocols: &[&[u8]],
) -> Result<Met<S>, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = server_name(name).ok_or_else(|| {
        Trouble::Unknown(format!("{name} is neither a DNS name nor an address: no certificate is"))
    })?;
    let trusted = match trust.verify {
        Verify::Full => tools.shared.roots.trusted(trust.ca_file.as_deref()).await?,
        Verify::None => Arc::default(),
    };
    let witness = Arc::new(Witness { trusted, verify: trust.verify, chain: Mutex::default() });
    let config = Arc::new(config(Arc::clone(&witness), protocols));
    let met = TlsConnector::from(config).connect(asked, stream).await;
    let chain = witness.chain.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let stream =
        met.map_err(|error| Trouble::Failed(words(&error, &chain, &witness.trusted, name)));
    Ok(Met { stream, chain, trusted: Arc::clone(&witness.trusted) })
}

/// What a server can be asked for: a DNS name or an address.
#[must_use]
pub fn server_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).ok()
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(ring::default_provider()));

impl Roots {
    /// Who is trusted: the certificates of a file, or else the system's.
    ///
    /// # Errors
    /// When they cannot be read: `Unknown`.
    pub async fn trusted(&self, ca_file: Option<&Path>) -> Result<Arc<Trusted>, Trouble> {
        match ca_file {
            Some(path) => self.of_file(path).await,
            None => self.of_system().await,
        }
    }

    async fn of_system(&self) -> Result<Arc<Trusted>, Trouble> {
        // Held while they are read: whoever else needs them waits for this one reading.
        let mut system = self.system.lock().await;
        if let Some((read, trusted)) = &*system
            && read.elapsed() < SYSTEM_AGE_MAX
        {
            return Ok(Arc::clone(trusted));
        }
        let authorities = off_the_loop(|| {
            let mut authorities = RootCertStore::empty();
            authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Ok(authorities)
        })
        .await
        .map_err(Trouble::Unknown)?;
        if authorities.is_empty() {
            return Err(Trouble::Unknown(
                "this system has no certificates of authorities: install the package \
                 ca-certificates, or name a `ca_file`"
                    .to_owned(),
            ));
        }
        let trusted = Arc::new(Trusted { authorities, named: Vec::new() });
        *system = Some((Instant::now(), Arc::clone(&trusted)));
        Ok(trusted)
    }

    async fn of_file(&self, path: &Path) -> Result<Arc<Trusted>, Trouble> {
        let files = || self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let known = files().get(path).cloned();
        let own = path.to_owned();
        let read = off_the_loop(move || {
            let mut pem = PemFile::open(&own, "ca_file")?;
            match known {
                Some((stamp, trusted)) if stamp == pem.stamp => Ok((stamp, trusted)),
                Some(_) | None => {
                    let named = pem.certificates()?;
                    let mut authorities = RootCertStore::empty();
                    authorities.add_parsable_certificates(named.iter().cloned());
                    Ok((pem.stamp, Arc::new(Trusted { authorities, named })))
                }
            }
        });
        let (stamp, trusted) = read.await.map_err(Trouble::Unknown)?;
        files().insert(path.to_owned(), (stamp, Arc::clone(&trusted)));
        Ok(trusted)
    }
}

/// The certificates of a PEM file, in its order. `key` is what names it in the configuration.
///
/// # Errors
/// When it cannot be read or holds none, with its path and what to do.
pub(super) async fn certificates(
    path: &Path,
    key: &'static str,
) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let path = path.to_owned();
    let read = off_the_loop(move || PemFile::open(&path, key)?.certificates());
    read.await.map_err(Trouble::Unknown)
}

/// Reads where a file system that hangs holds up nobody else.
async fn off_the_loop<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(_ended) => Err("failed to read certificates: the reading crashed".to_owned()),
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

struct PemFile {
    file: File,
    stamp: Stamp,
    shown: String,
}

impl PemFile {
    fn open(path: &Path, key: &str) -> Result<Self, String> {
        let shown = format!("{key} {}", path.display());
        // A FIFO in its place must not be waited for.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.map_err(|error| unreadable(&shown, &error))?;
        let about = file.metadata().map_err(|error| unreadable(&shown, &error))?;
        if !about.is_file() || about.len() > CA_FILE_BYTES_MAX {
            return Err(format!("{shown} is not a file of at most 1 MiB: name a PEM file"));
        }
        let stamp = Stamp {
            device: about.dev(),
            inode: about.ino(),
            bytes: about.len(),
            changed: (about.mtime(), about.mtime_nsec()),
        };
        Ok(Self { file, stamp, shown })
    }

    fn certificates(&mut self) -> Result<Vec<CertificateDer<'static>>, String> {
        let mut bytes = Vec::new();
        let read = self.file.by_ref().take(CA_FILE_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(|error| unreadable(&self.shown, &error))?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        found.ok().filter(|found| !found.is_empty()).ok_or_else(|| {
            format!("{} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", self.shown)
        })
    }
}

fn unreadable(shown: &str, error: &io::Error) -> String {
    let help = if error.kind() == ErrorKind::PermissionDenied {
        ": network checks read as an ordinary user; name a file that holds certificates only, never a \
         key, and that all may read"
    } else if error.kind() == ErrorKind::NotFound {
        ": correct the path"
    } else {
        ""
    };
    format!("failed to read {shown}: {error}{help}")
}

/// Verifies as asked, and keeps what was shown.
#[derive(Debug)]
struct Witness {
    trusted: Arc<Trusted>,
    verify: Verify,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

/// What one handshake is done with.
fn config(witness: Arc<Witness>, protocols: &[&[u8]]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .expect("ring knows TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(witness)
        .with_no_client_auth();
    // Each probe is a full handshake: it is the certificate of today that counts.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

impl Default for Trusted {
    fn default() -> Self {
        Self { authorities: RootCertStore::empty(), named: Vec::new() }
    }
}

impl Trusted {
    /// Whether somebody trusted vouches for a certificate today.
    fn vouches(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.named.contains(own) {
            // Dates are all that an issuer would have vouched for.
            let age = Facts::read(own).ok_or(CertificateError::BadEncoding)?.age();
            return match age {
                Age::Valid => Ok(()),
                Age::Unborn => Err(CertificateError::NotValidYet.into()),
                Age::Expired => Err(CertificateError::Expired.into()),
            };
        }
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(own)?,
            &self.authorities,
            above,
            now,
            PROVIDER.signature_verification_algorithms.all,
        )
    }
}

/// What is wrong with a chain: who vouches for it, if that is asked, and whether it is for a name.
pub(super) fn complaint(
    chain: &[CertificateDer<'_>],
    judges: Option<&Trusted>,
    name: Option<&str>,
) -> Option<String> {
    let (own, above) = chain.split_first()?;
    let judge = || {
        judges.map_or(Ok(()), |trusted| trusted.vouches(own, above, UnixTime::now()))?;
        match name.and_then(server_name) {
            Some(name) => verify_server_name(&ParsedCertificate::try_from(own)?, &name),
            None => Ok(()),
        }
    };
    let nobody = Trusted::default();
    match judge() {
        Ok(()) => None,
        Err(Error::InvalidCertificate(why)) => {
            Some(distrust(&why, chain, judges.unwrap_or(&nobody), name.unwrap_or_default()))
        }
        Err(error) => Some(format!("the certificate is not valid: {error}")),
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(own).chain(above).map(|shown| shown.clone().into_owned());
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
        match self.verify {
            Verify::Full => {
                self.trusted.vouches(own, above, now)?;
                verify_server_name(&ParsedCertificate::try_from(own)?, name)?;
            }
            Verify::None => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, own, signed, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, own, signed, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a handshake failed.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours, and it grows")]
fn words(error: &io::Error, chain: &[CertificateDer<'_>], trusted: &Trusted, name: &str) -> String {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return if error.kind() == ErrorKind::UnexpectedEof {
            "the connection was closed in the middle of the TLS handshake".to_owned()
        } else {
            format!("the TLS handshake failed: {error}")
        };
    };
    match tls {
        Error::InvalidCertificate(why) => distrust(why, chain, trusted, name),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            "what answers does not speak TLS".to_owned()
        }
        Error::AlertReceived(alert) => {
            format!("the server ended the TLS handshake: {}", plain(&format!("{alert:?}")))
        }
        Error::PeerIncompatible(_) => {
            "the server has no version or cipher of TLS 1.2 or 1.3 in common with heeler".to_owned()
        }
        Error::NoCertificatesPresented => "the server showed no certificate".to_owned(),
        _ => format!("the TLS handshake failed: {tls}"),
    }
}

/// Why a certificate is not to be trusted.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours, and it grows")]
fn distrust(
    why: &CertificateError,
    chain: &[CertificateDer<'_>],
    trusted: &Trusted,
    name: &str,
) -> String {
    let path = path(chain, &trusted.authorities);
    let Some(own) = path.first() else {
        return "the server showed something that is not a certificate".to_owned();
    };
    let told = own.told();
    match why {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => out_of_date(&path)
            .unwrap_or_else(|| format!("the certificate is not valid today: {told}")),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate is not for {name}: it is for {}; {told}", own.names_told())
        }
        CertificateError::UnknownIssuer if own.own_issuer => format!(
            "the certificate is not trusted: it signed itself; {told}; if this is right, name it \
             as `ca_file`"
        ),
        CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => format!(
            "the certificate is not trusted: an authority is named {}, but did not sign it; {told}",
            own.issuer
        ),
        CertificateError::UnknownIssuer => {
            let last = path.last().unwrap_or(own);
            format!(
                "the certificate is not trusted: {} is not a known authority, and the server shows \
                 no link from it to one; {told}",
                last.issuer
            )
        }
        _ => {
            let shown = format!("{why:?}");
            let word = shown.split(['(', ' ', '{']).next().unwrap_or(&shown);
            match shown.contains("CaUsedAsEndEntity") {
                true => format!(
                    "the certificate is not trusted: it is an authority's, not a server's; {told}; \
                     if this is right, name it as `ca_file`"
                ),
                false => format!("the certificate is not valid: {}; {told}", plain(word)),
            }
        }
    }
}

/// `HandshakeFailure` as `handshake failure`.
fn plain(camel: &str) -> String {
    let mut out = String::new();
    for c in camel.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
