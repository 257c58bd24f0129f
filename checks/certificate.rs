//! `type = "certificate"`: whether a certificate is to be trusted, and for how long.
//!
//! Of a server, as it shows it in a TLS handshake; or of a PEM file, before it is put to use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::checks::connect::{Tools, Trouble, tcp};
use crate::checks::given::{Given, Key, KeyKind, Wrong};
use crate::checks::tls::{self, Met, Trust, Trusted, Verify};
use crate::checks::x509::{Facts, out_of_date, path};
use crate::checks::{CheckType, Network, Probe, Unsaid};
use crate::model::metric::{Metric, Value};
use crate::model::observation::Observation;
use crate::model::text::{Untrusted, escape};

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::ExpiresIn, Metric::ResponseTime],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(10),
    read,
};

const KEYS: [Key; 7] = [
    Key { name: "host", kind: KeyKind::Text, example: "www.example.com" },
    Key { name: "port", kind: KeyKind::Number { min: 1, max: 65_535 }, example: "443" },
    Key { name: "starttls", kind: KeyKind::OneOf(&["smtp"]), example: "smtp" },
    Key { name: "file", kind: KeyKind::Path, example: "/etc/ssl/shop.pem" },
    Key { name: "name", kind: KeyKind::Text, example: "www.example.com" },
    Key { name: "ca_file", kind: KeyKind::Path, example: "/etc/ssl/own-ca.pem" },
    Key { name: "verify", kind: KeyKind::OneOf(&["full", "none"]), example: "full" },
];

/// HTTPS (RFC 9110, section 4.2.2).
const HTTPS_PORT: u16 = 443;
/// One reply of a mail server; a line has at most 512 bytes (RFC 5321, section 4.5.3.1.5).
const REPLY_BYTES_MAX: usize = 8 << 10;
/// What is shown of one.
const SHOWN_BYTES: usize = 120;

/// What to probe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    place: Place,
    /// What the certificate has to be for; of a file nothing, where it is not said.
    name: Option<String>,
    trust: Trust,
}

/// Where the certificate is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Server { host: String, port: u16, before: Before },
    File(PathBuf),
}

/// What comes before the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Before {
    Nothing,
    Smtp,
}

fn read(given: &Given) -> Result<Probe, Vec<Wrong>> {
    let wrong = |key, message: &str, hint: &str| Err(vec![Wrong::new(key, message, hint)]);
    let name = given.text("name").or(given.text("host"));
    let place = match (given.text("host"), given.path("file")) {
        (Some(host), None) => {
            let port = given.number("port").and_then(|port| u16::try_from(port).ok());
            let before = match given.text("starttls") {
                Some(_) => Before::Smtp,
                None => Before::Nothing,
            };
            if before == Before::Smtp && port.is_none() {
                return wrong(
                    "port",
                    "with `starttls` a `port` is needed",
                    "for example: port = 25",
                );
            }
            Place::Server { host: host.to_owned(), port: port.unwrap_or(HTTPS_PORT), before }
        }
        (None, Some(file)) => {
            if let Some(key) = ["port", "starttls"].into_iter().find(|key| given.has(key)) {
                return wrong(key, &format!("`{key}` is for a `host`, not for a `file`"), "");
            }
            Place::File(file.to_owned())
        }
        (Some(_), Some(_)) => {
            return wrong("file", "`host` and `file` exclude each other", "make two checks of it");
        }
        (None, None) => {
            let hint = "for example: host = \"www.example.com\", or file = \"/etc/ssl/shop.pem\"";
            return wrong("host", "`host` is missing", hint);
        }
    };
    if let Some(name) = name
        && tls::server_name(name).is_none()
    {
        let key = if given.has("name") { "name" } else { "host" };
        let message = format!("`{}` is neither a DNS name nor an address", escape(name));
        return wrong(key, &message, "write an international name in punycode: xn--...");
    }
    let name = name.map(str::to_owned);
    let settings = Settings { place, name, trust: Trust::of(given) };
    Ok(Probe::Network(Network::Certificate(settings)))
}

/// Probes once.
pub async fn probe(settings: &Settings, tools: &Tools) -> Observation {
    let began = Instant::now();
    let looked = match &settings.place {
        Place::Server { host, port, before } => {
            of_server(settings, tools, host, *port, *before).await
        }
        Place::File(file) => of_file(settings, tools, file).await,
    };
    let looked = match looked {
        Ok(looked) => looked,
        Err(trouble) => return trouble.into(),
    };
    let path = path(&looked.chain, &looked.trusted.authorities);
    let mut seen = match (looked.complaint, path.first()) {
        (Some(why), _) => Observation::failed(&why),
        (None, Some(_)) => Observation::ok(),
        (None, None) => Observation::failed("what was shown is not a certificate"),
    };
    if let Some(own) = path.first() {
        seen.detail = Untrusted::from(own.told().as_str());
    }
    seen.fingerprint = looked.chain.first().map(fingerprint);
    if let Some(span) = path.iter().map(Facts::expires_in).min() {
        seen = seen.with(Metric::ExpiresIn, Value::Duration(span));
    }
    match settings.place {
        Place::Server { .. } => seen.with(Metric::ResponseTime, Value::Duration(began.elapsed())),
        Place::File(_) => seen,
    }
}

/// A chain, and what is wrong with it.
struct Looked {
    chain: Vec<CertificateDer<'static>>,
    trusted: Arc<Trusted>,
    complaint: Option<String>,
}

async fn of_server(
    settings: &Settings,
    tools: &Tools,
    host: &str,
    port: u16,
    before: Before,
) -> Result<Looked, Trouble> {
    let mut stream = tcp(tools, host, port).await?;
    match before {
        Before::Nothing => {}
        Before::Smtp => smtp(&mut stream).await?,
    }
    let name = settings.name.as_deref().unwrap_or(host);
    let Met { stream, chain, trusted } =
        tls::meet(tools, stream, name, &settings.trust, &[]).await?;
    let complaint = match (stream, settings.trust.verify) {
        (Ok(_), Verify::Full) => None,
        // An expired certificate is what this check is about, whoever vouches for it.
        (Ok(_), Verify::None) => out_of_date(&path(&chain, &trusted.authorities)),
        // Without a certificate there is nothing to describe but the failure.
        (Err(trouble), _) if chain.is_empty() => return Err(trouble),
        (Err(Trouble::Failed(why)), _) => Some(why),
        (Err(Trouble::Unknown(why)), _) => return Err(Trouble::Unknown(why)),
    };
    Ok(Looked { chain, trusted, complaint })
}

/// Who vouches for a file is asked only where a `ca_file` says who should: it may hold no more than the
/// certificate itself, and often an authority's.
async fn of_file(settings: &Settings, tools: &Tools, file: &Path) -> Result<Looked, Trouble> {
    let chain = tls::certificates(file, "the certificate file").await?;
    let roots = &tools.shared.roots;
    let own = settings.trust.ca_file.as_deref();
    let trusted = match own {
        Some(_) => roots.trusted(own).await?,
        // They only say where the chain ends.
        None => roots.trusted(None).await.unwrap_or_default(),
    };
    let (judges, name) = match settings.trust.verify {
        Verify::Full => (own.map(|_| trusted.as_ref()), settings.name.as_deref()),
        Verify::None => (None, None),
    };
    let complaint = out_of_date(&path(&chain, &trusted.authorities))
        .or_else(|| tls::complaint(&chain, judges, name));
    Ok(Looked { chain, trusted, complaint })
}

/// The first eight bytes of its SHA-256.
fn fingerprint(certificate: &CertificateDer<'static>) -> u64 {
    let digest = digest(&SHA256, certificate);
    u64::from_le_bytes(*digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes"))
}

/// Asks a mail server for TLS (RFC 3207).
async fn smtp(stream: &mut TcpStream) -> Result<(), Trouble> {
    let dialogue: [(&str, &[u8]); 3] =
        [("220", b"EHLO heeler.invalid\r\n"), ("250", b"STARTTLS\r\n"), ("220", b"")];
    for (wanted, next) in dialogue {
        let reply = reply(stream).await?;
        if !reply.starts_with(wanted.as_bytes()) {
            return Err(Trouble::Failed(format!(
                "the mail server does not offer TLS: it says {}, wanted {wanted}",
                Untrusted::bounded(&reply, SHOWN_BYTES)
            )));
        }
        let written = stream.write_all(next).await;
        written.map_err(|error| broken(&error.to_string()))?;
    }
    Ok(())
}

/// One whole reply: its last line has a space after the number (RFC 5321, section 4.2.1). More than that
/// would be a stranger's words before the handshake; they end as what does not speak TLS.
async fn reply(stream: &mut TcpStream) -> Result<Vec<u8>, Trouble> {
    let (mut reply, mut line) = (Vec::new(), 0);
    while reply.len() < REPLY_BYTES_MAX {
        let byte = match stream.read_u8().await {
            Ok(byte) => byte,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(broken("it was closed"));
            }
            Err(error) => return Err(broken(&error.to_string())),
        };
        reply.push(byte);
        if byte == b'\n' {
            if reply.get(line + 3) != Some(&b'-') {
                return Ok(reply);
            }
            line = reply.len();
        }
    }
    Err(Trouble::Failed("the mail server's reply does not end".to_owned()))
}

fn broken(why: &str) -> Trouble {
    Trouble::Failed(format!("the connection broke before TLS was agreed on: {why}"))
}
