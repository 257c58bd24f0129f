//! What a certificate says of itself (RFC 5280), for people and for `expires_in`.
//!
//! Whether any of it is true is for the verifier in [`crate::checks::tls`]; nothing here trusts anything.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// How many of its names are told.
const NAMES_TOLD: usize = 4;
/// Characters of one name that are told: a domain name has at most 253 (RFC 1035, section 2.3.4).
const NAME_CHARS: usize = 253;
/// Certificates of a chain that are looked at; a real one has three or four.
const CHAIN_MAX: usize = 10;

/// What a certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Whom it is about.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// From when it is valid, in seconds since 1970.
    pub not_before_s: i64,
    /// Until when, in seconds since 1970.
    pub not_after_s: i64,
    /// The names it is for.
    pub names: Vec<String>,
    /// Whether it says that it issued itself.
    pub own_issuer: bool,
    subject_der: Box<[u8]>,
    issuer_der: Box<[u8]>,
}

/// Where a moment lies in the life of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Age {
    /// It is not valid yet.
    Unborn,
    /// It is valid.
    Valid,
    /// It has expired.
    Expired,
}

impl Facts {
    /// Reads a certificate. None: it is not one.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names: Vec<_> = names
            .map(|names| names.value.general_names.iter().filter_map(general).collect())
            .unwrap_or_default();
        let validity = certificate.validity();
        Some(Self {
            subject: shown(certificate.subject())
                .or_else(|| names.first().cloned())
                .unwrap_or_else(|| "a certificate without a name".to_owned()),
            issuer: shown(certificate.issuer()).unwrap_or_else(|| "nobody named".to_owned()),
            not_before_s: validity.not_before.timestamp(),
            not_after_s: validity.not_after.timestamp(),
            names,
            own_issuer: certificate.subject().as_raw() == certificate.issuer().as_raw(),
            subject_der: certificate.subject().as_raw().into(),
            issuer_der: certificate.issuer().as_raw().into(),
        })
    }

    /// Whether it is valid now, by its dates alone.
    #[must_use]
    pub fn age(&self) -> Age {
        let now_s = now_s();
        if now_s < self.not_before_s {
            Age::Unborn
        } else if now_s > self.not_after_s {
            Age::Expired
        } else {
            Age::Valid
        }
    }

    /// How long it is still valid; zero once it is not.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.not_after_s - now_s()).unwrap_or(0))
    }

    /// `www.example.com, issued by R3, valid until 2027-01-31 10:00 UTC`.
    #[must_use]
    pub fn told(&self) -> String {
        let until = date(self.not_after_s);
        format!("{}, issued by {}, valid until {until}", self.subject, self.issuer)
    }

    /// The names it is for, the first few.
    #[must_use]
    pub fn names_told(&self) -> String {
        match (self.names.len(), self.names.len().saturating_sub(NAMES_TOLD)) {
            (0, _) => "no name at all".to_owned(),
            (_, 0) => self.names.join(", "),
            (_, more) => format!("{} and {more} more", self.names[..NAMES_TOLD].join(", ")),
        }
    }
}

/// The part of what a server showed that its validity rests on, from its own certificate up to the one
/// that a trusted authority issued. What it shows beyond that (an old cross-signature of a root) expires
/// without harm.
#[must_use]
pub fn path(shown: &[CertificateDer<'_>], trusted: &RootCertStore) -> Vec<Facts> {
    let mut rest: Vec<_> = shown.iter().take(CHAIN_MAX).map(|der| Facts::read(der)).collect();
    let Some(mut last) = rest.first_mut().and_then(Option::take) else { return Vec::new() };
    let mut path = Vec::new();
    loop {
        let issuer = last.issuer_der.clone();
        let ends = last.own_issuer || trusted.roots.iter().any(|root| is_named(root, &issuer));
        path.push(last);
        // Of two for the same name the younger: a server in the middle of a renewal shows both.
        let above = rest
            .iter_mut()
            .filter(|facts| facts.as_ref().is_some_and(|facts| facts.subject_der == issuer))
            .max_by_key(|facts| facts.as_ref().map(|facts| facts.not_after_s));
        match above.and_then(Option::take) {
            Some(above) if !ends => last = above,
            Some(_) | None => return path,
        }
    }
}

/// Says which certificate of a path is not valid today, by its dates.
#[must_use]
pub fn out_of_date(path: &[Facts]) -> Option<String> {
    let own = path.first()?;
    path.iter().find_map(|facts| {
        let Facts { subject, issuer, .. } = facts;
        let above = match facts == own {
            true => String::new(),
            false => format!(" (it is above {} in the chain)", own.subject),
        };
        match facts.age() {
            Age::Valid => None,
            Age::Expired => Some(format!(
                "the certificate has expired: {subject}, issued by {issuer}, was valid until {}{above}",
                date(facts.not_after_s)
            )),
            Age::Unborn => Some(format!(
                "the certificate is not valid yet: {subject}, issued by {issuer}, is valid from {}{above}",
                date(facts.not_before_s)
            )),
        }
    })
}

/// A moment as people read it, in UTC: a certificate means the same everywhere.
fn date(unix_s: i64) -> String {
    jiff::Timestamp::from_second(unix_s).map_or_else(
        |_| "a date beyond all calendars".to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

/// A trust anchor's name is kept without the header of its DER (two to five bytes).
fn is_named(root: &rustls::pki_types::TrustAnchor<'_>, name_der: &[u8]) -> bool {
    let header = name_der.len().checked_sub(root.subject.len());
    header.is_some_and(|bytes| (2..=5).contains(&bytes)) && name_der.ends_with(&root.subject)
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The common name, or else everything that it says.
fn shown(name: &X509Name<'_>) -> Option<String> {
    let common = name.iter_common_name().find_map(|part| part.as_str().ok()).map(str::to_owned);
    common.or_else(|| Some(name.to_string())).map(|text| cut(&text)).filter(|text| !text.is_empty())
}

fn general(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some(cut(name));
    }
    let GeneralName::IPAddress(bytes) = name else { return None };
    let address = match bytes.len() {
        4 => std::net::IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?),
        _ => std::net::IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?),
    };
    Some(address.to_string())
}

fn cut(text: &str) -> String {
    text.chars().take(NAME_CHARS).collect()
}
