//! A login over HTTP (`user`, `password_file`): whose it is, who is told it, and what of an answer may be
//! shown afterwards.
//!
//! The scheme is Basic (RFC 7617): whoever is told it has the password. So it goes to the server that was
//! configured, over TLS that is verified, or without leaving the machine; to nobody else. The keeper reads
//! the file for each probe, and here it is known only while that probe is under way.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{self, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::checks::given::{Given, Wrong};
use crate::checks::tls::{Trust, Verify};
use crate::model::password::Password;
use crate::model::text::escape;

/// The longest `user`.
const USER_BYTES_MAX: usize = 255;
/// What is shown of foreign bytes.
const SHOWN_BYTES: usize = 120;

/// Who logs in, and where the password is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Login {
    user: String,
    password_file: PathBuf,
}

impl Login {
    /// Of the keys `user` and `password_file`, where they are given.
    pub(super) fn of(given: &Given, url: Option<&Url>) -> Result<Option<Self>, Wrong> {
        let (user, password_file) = match (given.text("user"), given.path("password_file")) {
            (Some(user), Some(path)) => (user.to_owned(), path.to_owned()),
            (None, None) => return Ok(None),
            (Some(_), None) => {
                let hint =
                    "say where its password is: password_file = \"/etc/heeler/shop.password\"";
                return Err(Wrong::new("password_file", "a `user` needs a `password_file`", hint));
            }
            (None, Some(_)) => {
                let hint = "say whose password it is: user = \"monitor\"";
                return Err(Wrong::new("user", "a `password_file` needs a `user`", hint));
            }
        };
        let wrong = |message: &str, hint: &str| Err(Wrong::new("user", message, hint));
        if user.contains(':') || user.contains(char::is_control) || user.len() > USER_BYTES_MAX {
            return wrong("a `user` has no colon, no control character, and at most 255 bytes", "");
        }
        let is_said = |(name, _): &(String, String)| name.eq_ignore_ascii_case("authorization");
        if given.pairs("headers").iter().any(is_said) {
            return wrong("`headers` says an Authorization, and `user` another", "leave one out");
        }
        let near = given.has("unix") || url.is_none_or(is_loopback);
        match (url.map(Url::scheme), Trust::of(given).verify) {
            (Some("http"), _) if !near => wrong(
                "over http:// the password would be read by whoever is on the way",
                "use https://; in clear it only goes to 127.0.0.1, [::1] or a Unix socket",
            ),
            (Some("https"), Verify::None) if !near => wrong(
                "with verify = \"none\" the password would be told to whoever answers",
                "say whom to trust: ca_file = \"/etc/ssl/own-ca.pem\"",
            ),
            (_, Verify::Full | Verify::None) => Ok(Some(Self { user, password_file })),
        }
    }

    /// Where the password is.
    pub(super) fn password_file(&self) -> &Path {
        &self.password_file
    }

    /// What is told to the server.
    pub(super) fn credentials(&self, password: &Password) -> Credentials {
        let token = BASE64_STANDARD.encode(format!("{}:{}", self.user, password.reveal()));
        let mut value =
            HeaderValue::try_from(format!("Basic {token}")).expect("base64 is visible ASCII");
        value.set_sensitive(true);
        Credentials { value, quotes: Quotes(vec![password.reveal().into(), token.into()]) }
    }
}

/// Whether nothing that is sent there leaves the machine. A name is whatever its server says.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => {
            address == Ipv6Addr::LOCALHOST
                || address.to_ipv4_mapped().is_some_and(|mapped| mapped.is_loopback())
        }
        Some(Host::Domain(_)) | None => false,
    }
}

/// A login as it is told.
pub(super) struct Credentials {
    /// The value of `Authorization`.
    pub(super) value: HeaderValue,
    /// What may be shown of the answer.
    pub(super) quotes: Quotes,
}

/// What a status of 401 means for who is to mend it. `kept_from` is the server that was not told the
/// login, because a redirect led there.
pub(super) fn unauthorized(
    login: Option<&Login>,
    kept_from: Option<&str>,
    headers: &HeaderMap,
    quotes: &Quotes,
) -> String {
    let ways: Vec<_> = headers.get_all(header::WWW_AUTHENTICATE).iter().collect();
    let basic = |way: &&HeaderValue| way.as_bytes().to_ascii_lowercase().windows(5).any(is_basic);
    match (login, kept_from, ways.first()) {
        (Some(_), Some(server), _) => format!(
            "; it was redirected to {}, and the login is only for the server in `url`",
            escape(server)
        ),
        (_, None, Some(way)) if !ways.iter().any(basic) => {
            let way = quotes.beginning(way.as_bytes());
            format!("; it wants a login of another kind than Basic: {way}")
        }
        (Some(Login { user, password_file }), None, _) => format!(
            "; it does not take user \"{}\" with the password in {}: was one of them changed?",
            escape(user),
            password_file.display()
        ),
        (None, _, _) => "; it wants a login (`user` and `password_file`)".to_owned(),
    }
}

fn is_basic(window: &[u8]) -> bool {
    window == b"basic"
}

/// What of foreign bytes is shown: nothing where they hold what their sender was told in confidence. A page
/// that shows a request's headers would carry a password into logs and mails.
#[derive(Clone, Default)]
pub(super) struct Quotes(Vec<Box<str>>);

impl Quotes {
    /// The beginning of these bytes, in quotes.
    pub(super) fn beginning(&self, bytes: &[u8]) -> String {
        self.from(bytes, 0)
    }

    /// The same from some place on.
    pub(super) fn from(&self, bytes: &[u8], at: usize) -> String {
        let end = bytes.len().min(at + SHOWN_BYTES);
        let holds = |secret: &[u8]| {
            // Also one of which only a part would be shown.
            let (from, to) = (at.saturating_sub(secret.len()), end + secret.len());
            let near = &bytes[from..to.min(bytes.len())];
            near.windows(secret.len()).any(|part| part == secret)
        };
        if self.0.iter().any(|secret| holds(secret.as_bytes())) {
            return "something that is not shown, because the password is in it".to_owned();
        }
        let more = if end < bytes.len() { "..." } else { "" };
        format!("\"{}\"{more}", escape(&String::from_utf8_lossy(&bytes[at..end])))
    }
}

impl fmt::Debug for Quotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Quotes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_quoted_back_whole_or_in_part() {
        let login = Login { user: "monitor".to_owned(), password_file: "/p".into() };
        let password = Password::of_file("Sesam-1\n").expect("is one");
        let Credentials { value, quotes } = login.credentials(&password);
        // RFC 4648.
        assert_eq!(value.to_str().ok(), Some("Basic bW9uaXRvcjpTZXNhbS0x"));
        assert!(!format!("{value:?} {quotes:?} {login:?} {password:?}").contains("bW9u"));
        let token = "bW9uaXRvcjpTZXNhbS0x";
        for secret in ["Sesam-1", token] {
            for before in 0..=SHOWN_BYTES + 9 {
                let bytes = format!("{}{secret}{}", "x".repeat(before), "y".repeat(400));
                for at in 0..before + secret.len() + 9 {
                    let shown = quotes.from(bytes.as_bytes(), at);
                    let part = |from: usize| shown.contains(&secret[from..from + 3]);
                    assert!(!(0..=secret.len() - 3).any(part), "{before} {at}: {shown}");
                }
            }
        }
        assert_eq!(quotes.beginning(b"Sesam-2"), "\"Sesam-2\"");
        assert_eq!(Quotes::default().from(b"a\x1bSesam-1", 1), "\"\\u{1b}Sesam-1\"");
    }
}
