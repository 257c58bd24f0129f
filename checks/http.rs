//! `type = "http"`: asks a web server, and judges its answer.
//!
//! HTTP semantics are those of RFC 9110. What was seen is what is said: a redirect is an answer like any
//! other unless `follow` says otherwise; nothing is decompressed, and no proxy of the environment is used.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use regex::bytes::{Regex, RegexBuilder};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Request, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::checks::connect::{Tools, Trouble, tcp, unix};
use crate::checks::exchange::{Answer, End, Keep, Read, Received, exchange, told};
use crate::checks::given::{Given, Key, KeyKind, Wrong};
use crate::checks::login::{Login, Quotes, unauthorized};
use crate::checks::tls::{self, Trust};
use crate::checks::x509;
use crate::checks::{CheckType, Network, Probe, Unsaid};
use crate::model::limits;
use crate::model::metric::{Metric, Value};
use crate::model::observation::Observation;
use crate::model::text::{Untrusted, escape};
use crate::model::units::{show_duration, show_size};

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::ResponseTime, Metric::Status, Metric::Size, Metric::ExpiresIn],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(10),
    read,
};

const fn key(name: &'static str, kind: KeyKind, example: &'static str) -> Key {
    Key { name, kind, example }
}

const KEYS: [Key; 16] = [
    key("url", KeyKind::Text, "http://127.0.0.1:3000/up"),
    key("unix", KeyKind::Path, "/run/shop/web.sock"),
    key("method", KeyKind::OneOf(&METHODS), "HEAD"),
    key("headers", KeyKind::Pairs, "{ Host = \"shop.example.com\" }"),
    key("send", KeyKind::Bytes, "{\\\"ping\\\": 1}"),
    key("status", KeyKind::Words, "[\"2xx\", 301]"),
    key("body", KeyKind::Pattern, "ok"),
    key("not_body", KeyKind::Pattern, "maintenance"),
    key("header", KeyKind::Pairs, "{ Content-Type = \"json\" }"),
    key("follow", KeyKind::Number { min: 0, max: 5 }, "1"),
    key("follow_to", KeyKind::OneOf(&["same-host", "any-host"]), "same-host"),
    key("user", KeyKind::Text, "monitor"),
    key("password_file", KeyKind::Path, "/etc/heeler/shop.password"),
    key("ca_file", KeyKind::Path, "/etc/ssl/own-ca.pem"),
    key("verify", KeyKind::OneOf(&["full", "none"]), "full"),
    key("max_body", KeyKind::Size, "64KiB"),
];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

const USER_AGENT: &str = concat!("heeler/", env!("CARGO_PKG_VERSION"));
/// What is read of a body where `max_body` does not say.
const BODY_BYTES: u64 = 1 << 20;
/// The most that it may say: the scout holds what it matches.
const BODY_BYTES_MAX: u64 = 16 << 20;
/// A URL to be redirected to; what everybody has to understand (RFC 9110, section 4.1).
const URL_BYTES_MAX: usize = 8000;
/// A body up to this is matched where it is; a larger one by a thread of its own.
const MATCHED_AT_ONCE_BYTES: usize = 4096;

/// What to probe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    url: Url,
    unix: Option<PathBuf>,
    method: String,
    headers: Vec<(String, String)>,
    send: String,
    status: Vec<Codes>,
    body: Option<String>,
    not_body: Option<String>,
    header: Vec<(String, String)>,
    follow: u8,
    follow_to: FollowTo,
    login: Option<Login>,
    trust: Trust,
    body_bytes_max: u64,
}

impl Settings {
    /// The file of the password that a probe needs.
    #[must_use]
    pub fn password_file(&self) -> Option<&Path> {
        self.login.as_ref().map(Login::password_file)
    }
}

/// Where a redirect may lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FollowTo {
    /// Within the server that was asked: its host and port, or https in place of http there.
    SameHost,
    /// Anywhere. Nothing that was configured for one server is told to another.
    AnyHost,
}

/// Status codes from the first to the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Codes(u16, u16);

fn read(given: &Given) -> Result<Probe, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let url = keep(&mut wrong, read_url(given));
    let login = keep(&mut wrong, Login::of(given, url.as_ref())).flatten();
    let status = match given.words("status") {
        [] => Some(vec![Codes(200, 299)]),
        words => keep(&mut wrong, words.iter().map(|word| Codes::parse(word)).collect()),
    };
    for (name, value) in given.pairs("headers") {
        keep(&mut wrong, read_header(name, value));
    }
    for (name, pattern) in given.pairs("header") {
        keep(&mut wrong, read_wanted(name, pattern));
    }
    let body_bytes_max = given.number("max_body").unwrap_or(BODY_BYTES);
    if !(1..=BODY_BYTES_MAX).contains(&body_bytes_max) {
        wrong.push(Wrong::new("max_body", "`max_body` has to be from 1B to 16MiB", ""));
    }
    if given.has("send") && matches!(given.text("method"), Some("GET" | "HEAD")) {
        let hint = "leave `method` out: with `send` it is POST";
        wrong.push(Wrong::new("send", "`GET` and `HEAD` send no body", hint));
    }
    if given.has("follow_to") && given.number("follow").is_none_or(|most| most == 0) {
        wrong.push(Wrong::new(
            "follow_to",
            "`follow_to` says nothing without `follow`",
            "follow = 1",
        ));
    }
    let unsaid = if given.has("send") { "POST" } else { "GET" };
    match (url, status) {
        (Some(url), Some(status)) if wrong.is_empty() => {
            Ok(Probe::Network(Network::Http(Box::new(Settings {
                url,
                unix: given.path("unix").map(Into::into),
                method: given.text("method").unwrap_or(unsaid).to_owned(),
                headers: given.pairs("headers").to_vec(),
                send: given.text("send").unwrap_or_default().to_owned(),
                status,
                body: given.text("body").map(str::to_owned),
                not_body: given.text("not_body").map(str::to_owned),
                header: given.pairs("header").to_vec(),
                follow: given.number("follow").and_then(|n| u8::try_from(n).ok()).unwrap_or(0),
                follow_to: match given.text("follow_to") {
                    Some("same-host") => FollowTo::SameHost,
                    Some(_) | None => FollowTo::AnyHost,
                },
                login,
                trust: Trust::of(given),
                body_bytes_max,
            }))))
        }
        (_, _) => Err(wrong),
    }
}

fn keep<T>(wrong: &mut Vec<Wrong>, result: Result<T, Wrong>) -> Option<T> {
    result.map_err(|error| wrong.push(error)).ok()
}

fn read_url(given: &Given) -> Result<Url, Wrong> {
    let bad = |message: String, hint: &str| Err(Wrong::new("url", message, hint));
    let example = "for example: url = \"http://127.0.0.1:3000/up\"";
    let Some(text) = given.text("url") else {
        return bad("`url` is missing".to_owned(), example);
    };
    let url = match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => url,
        Ok(_) => return bad("`url` has to begin with http:// or https://".to_owned(), example),
        Err(error) => return bad(format!("`url` is not a URL: {error}"), example),
    };
    if !url.username().is_empty() || url.password().is_some() {
        let hint =
            "say them apart: user = \"monitor\", password_file = \"/etc/heeler/shop.password\"";
        return bad("`url` cannot hold a user or a password".to_owned(), hint);
    }
    if url.scheme() == "https" && url.host_str().and_then(tls::server_name).is_none() {
        return bad("no certificate can be for the host in `url`".to_owned(), "");
    }
    if let Some(path) = given.path("unix") {
        if path.as_os_str().len() > limits::SOCKET_PATH_BYTES_MAX {
            let message = format!(
                "the path of a Unix socket has at most {} bytes",
                limits::SOCKET_PATH_BYTES_MAX
            );
            return Err(Wrong::new("unix", message, ""));
        }
        if url.scheme() != "http" {
            let hint = "with `unix` the URL only says which path is asked for";
            return bad("over a Unix socket `url` has to begin with http://".to_owned(), hint);
        }
    }
    Ok(url)
}

fn read_header(name: &str, value: &str) -> Result<(), Wrong> {
    let wrong = |message: String, hint: &str| Err(Wrong::new("headers", message, hint));
    let Ok(known) = HeaderName::try_from(name) else {
        return wrong(format!("`{}` is not the name of a header", escape(name)), "");
    };
    if HeaderValue::try_from(value).is_err() {
        return wrong(format!("the value of `{known}` has bytes that no header may have"), "");
    }
    if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(&known) {
        return wrong(format!("`{known}` is heeler's to say"), "leave it out");
    }
    Ok(())
}

fn read_wanted(name: &str, pattern: &str) -> Result<(), Wrong> {
    let wrong = |message: String| Err(Wrong::new("header", message, ""));
    if HeaderName::try_from(name).is_err() {
        return wrong(format!("`{}` is not the name of a header", escape(name)));
    }
    if pattern.len() > limits::PATTERN_BYTES_MAX || compile(pattern).is_err() {
        return wrong(format!("the pattern for `{}` is not a regular expression", escape(name)));
    }
    Ok(())
}

impl Codes {
    fn parse(word: &str) -> Result<Self, Wrong> {
        let code = |text: &str| {
            let code: u16 = text.trim().parse().ok()?;
            (text.trim().len() == 3 && (100..=999).contains(&code)).then_some(code)
        };
        let codes = match (word.strip_suffix("xx"), word.split_once('-')) {
            (Some(hundred), _) => code(&format!("{hundred}00")).map(|from| Self(from, from + 99)),
            (None, Some((from, to))) => code(from).zip(code(to)).map(|(from, to)| Self(from, to)),
            (None, None) => code(word).map(|code| Self(code, code)),
        };
        codes.filter(|Self(from, to)| from <= to).ok_or_else(|| {
            let message = format!("`{}` is not a status or a range of them", escape(word));
            Wrong::new("status", message, "for example: status = [\"2xx\", 301, \"400-404\"]")
        })
    }

    fn told(self) -> String {
        match self {
            Self(from, to) if from == to => from.to_string(),
            Self(from, to) if from % 100 == 0 && to == from + 99 => format!("{}xx", from / 100),
            Self(from, to) => format!("{from}-{to}"),
        }
    }
}

/// Probes once.
pub async fn probe(settings: &Settings, tools: &Tools) -> Observation {
    let began = Instant::now();
    let mut seen = Seen::default();
    let asked = ask(settings, tools, &mut seen).await;
    let took = began.elapsed();
    let observation = match asked {
        Ok(answer) => judge(settings, answer, took, &seen).await,
        Err(trouble) => trouble.into(),
    };
    match seen.expires_in {
        Some(span) => observation.with(Metric::ExpiresIn, Value::Duration(span)),
        None => observation,
    }
}

/// What was seen on the way to an answer.
#[derive(Debug, Default)]
struct Seen {
    expires_in: Option<Duration>,
    redirects: u8,
    /// The first server that was not told the login, because a redirect led there.
    kept_from: Option<String>,
    /// What of it may be shown.
    quotes: Quotes,
}

/// A request as it stands after so many redirects.
struct Asking {
    url: Url,
    method: Method,
    headers: HeaderMap,
    send: String,
}

/// Asks, and asks again where a redirect may be followed.
async fn ask(settings: &Settings, tools: &Tools, seen: &mut Seen) -> Result<Answer, Trouble> {
    let mut asking = Asking {
        url: settings.url.clone(),
        method: Method::try_from(settings.method.as_str()).unwrap_or_default(),
        headers: settings
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
            .collect(),
        send: settings.send.clone(),
    };
    match (&settings.login, &tools.password) {
        (Some(login), Some(password)) => {
            let credentials = login.credentials(password);
            asking.headers.insert(header::AUTHORIZATION, credentials.value);
            seen.quotes = credentials.quotes;
        }
        (Some(_), None) => {
            let why = "the probe came without its password: this is a bug of heeler";
            return Err(Trouble::Unknown(why.to_owned()));
        }
        (None, _) => {}
    }
    loop {
        let answer = ask_once(settings, tools, seen, &asking).await?;
        if seen.redirects == settings.follow || !redirects(answer.status) {
            return Ok(answer);
        }
        let Some(location) = answer.headers.get(header::LOCATION) else { return Ok(answer) };
        asking =
            follow(settings, asking, answer.status, location, seen).map_err(Trouble::Failed)?;
        seen.redirects += 1;
    }
}

fn redirects(status: StatusCode) -> bool {
    // 304 and 305 have no other place to go to (RFC 9110, section 15.4).
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The next request. Nothing that was configured for one server is told to another.
fn follow(
    settings: &Settings,
    from: Asking,
    status: StatusCode,
    location: &HeaderValue,
    seen: &mut Seen,
) -> Result<Asking, String> {
    let shown = seen.quotes.beginning(location.as_bytes());
    let refuse = |why: &str| format!("status {} to {shown}, {why}", told(status));
    let to = std::str::from_utf8(location.as_bytes()).ok().and_then(|to| from.url.join(to).ok());
    let to = to.ok_or_else(|| refuse("which is not a URL"))?;
    if to.as_str().len() > URL_BYTES_MAX {
        return Err(refuse("which is too long to be asked for"));
    }
    match (from.url.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err(refuse("which is not followed: it gives up TLS")),
        (_, _) => return Err(refuse("which is not followed: only http and https are")),
    }
    let port = |url: &Url| url.port_or_known_default();
    let upgrade = port(&from.url) == Some(80) && port(&to) == Some(443);
    let same_host = from.url.host_str() == to.host_str();
    let at_home = same_host && (port(&from.url) == port(&to) || upgrade);
    if settings.unix.is_some() && (!at_home || to.scheme() != "http") {
        return Err(refuse("which is not followed: it leaves the Unix socket"));
    }
    if settings.follow_to == FollowTo::SameHost && !at_home {
        let what = if same_host { "port" } else { "host" };
        return Err(refuse(&format!("which is not followed: it is another {what} (`follow_to`)")));
    }
    // 307 and 308 repeat the request as it was; the others become a GET (RFC 9110, section 15.4).
    let repeats = matches!(status.as_u16(), 307 | 308) || from.method == Method::HEAD;
    let (method, send) =
        if repeats { (from.method, from.send) } else { (Method::GET, String::new()) };
    if !at_home && !send.is_empty() {
        return Err(refuse("which is not followed: it would send the body to another server"));
    }
    let mut headers = if at_home { from.headers } else { HeaderMap::new() };
    if send.is_empty() {
        headers.remove(header::CONTENT_TYPE);
    }
    if settings.login.is_some() && to.origin() != settings.url.origin() {
        // It was said for that server. Once away it does not come back: whoever sends it on cannot say.
        headers.remove(header::AUTHORIZATION);
        seen.kept_from.get_or_insert_with(|| to.origin().ascii_serialization());
    }
    Ok(Asking { url: to, method, headers, send })
}

async fn ask_once(
    settings: &Settings,
    tools: &Tools,
    seen: &mut Seen,
    asking: &Asking,
) -> Result<Answer, Trouble> {
    let read = Read {
        bytes_max: settings.body_bytes_max,
        keep: if settings.body.is_some() || settings.not_body.is_some() {
            Keep::All
        } else {
            Keep::Beginning
        },
    };
    let request = request(asking);
    if let Some(path) = &settings.unix {
        let to = path.display().to_string();
        let stream = unix(tools, path).await?;
        return exchange(&tools.progress, &to, stream, request, read).await;
    }
    let host = asking.url.host_str().unwrap_or_default();
    let port = asking.url.port_or_known_default().unwrap_or(80);
    let to = format!("{host}:{port}");
    let stream = tcp(tools, host, port).await?;
    if asking.url.scheme() == "http" {
        return exchange(&tools.progress, &to, stream, request, read).await;
    }
    let met = tls::meet(tools, stream, host, &settings.trust, &[b"http/1.1"]).await?;
    let path = x509::path(&met.chain, &met.trusted.authorities);
    seen.expires_in = path.iter().map(x509::Facts::expires_in).min();
    exchange(&tools.progress, &to, met.stream?, request, read).await
}

fn request(asking: &Asking) -> Request {
    let mut request = Request::new(asking.method.clone(), asking.url.clone());
    if !asking.send.is_empty() {
        *request.body_mut() = Some(asking.send.clone().into());
    }
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.extend(asking.headers.clone());
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
}

async fn judge(settings: &Settings, answer: Answer, took: Duration, asked: &Seen) -> Observation {
    let Answer { status, headers, body } = answer;
    let (bytes, end, fingerprint) = (body.bytes, body.end, body.fingerprint);
    let mut complaints = Vec::new();
    if !settings.status.iter().any(|Codes(from, to)| (*from..=*to).contains(&status.as_u16())) {
        complaints.push(unwanted_status(settings, status, &headers, asked, &body));
    }
    complaints.extend(settings.header.iter().filter_map(|(name, pattern)| {
        let values: Vec<_> = headers.get_all(name.as_str()).iter().collect();
        let [first, ..] = values[..] else { return Some(format!("the header {name} is missing")) };
        let regex = compiled(pattern);
        let matched = values.iter().any(|value| regex.is_match(value.as_bytes()));
        let value = asked.quotes.beginning(first.as_bytes());
        (!matched).then(|| format!("the header {name} does not match \"{pattern}\": it is {value}"))
    }));
    complaints.extend(match_body(settings, body, &asked.quotes).await);
    let size = match end {
        End::Whole => show_size(bytes),
        End::Cut => format!("more than {} of body", show_size(bytes)),
    };
    let mut seen = match complaints.is_empty() {
        true => Observation::ok(),
        false => Observation::failed(&complaints.join("; ")),
    };
    seen = seen
        .with(Metric::ResponseTime, Value::Duration(took))
        .with(Metric::Status, Value::Count(status.as_u16().into()));
    // Of a body that was cut the size is not known: a condition on it then gives no verdict.
    if end == End::Whole {
        seen = seen.with(Metric::Size, Value::Bytes(bytes));
    }
    seen.fingerprint = Some(fingerprint);
    let detail = format!("{}, {size}, {}", told(status), show_duration(took));
    seen.detail = Untrusted::from(detail.as_str());
    seen
}

fn unwanted_status(
    settings: &Settings,
    status: StatusCode,
    headers: &HeaderMap,
    asked: &Seen,
    body: &Received,
) -> String {
    let Seen { redirects: hops, kept_from, quotes, .. } = asked;
    let wanted: Vec<_> = settings.status.iter().map(|codes| codes.told()).collect();
    let mut out = format!("status {}, wanted {}", told(status), wanted.join(" or "));
    if status == StatusCode::UNAUTHORIZED {
        let login = settings.login.as_ref();
        out.push_str(&unauthorized(login, kept_from.as_deref(), headers, quotes));
    }
    match headers.get(header::LOCATION) {
        Some(location) if redirects(status) => {
            let location = quotes.beginning(location.as_bytes());
            out.push_str(&format!("; it redirects to {location}"));
            match hops {
                0 => out.push_str(" (`follow = 1` would follow it)"),
                1 => out.push_str(" after the one redirect that was followed"),
                _ => out.push_str(&format!(" after the {hops} redirects that were followed")),
            }
        }
        Some(_) | None if body.bytes > 0 => {
            out.push_str(&format!("; the body begins with {}", quotes.beginning(&body.kept)));
        }
        Some(_) | None => {}
    }
    out
}

/// What is wrong with a body, by the patterns for it.
async fn match_body(settings: &Settings, body: Received, quotes: &Quotes) -> Option<String> {
    if settings.body.is_none() && settings.not_body.is_none() {
        return None;
    }
    if body.kept.len() <= MATCHED_AT_ONCE_BYTES {
        return complain(settings.body.as_deref(), settings.not_body.as_deref(), &body, quotes);
    }
    let (wanted, unwanted) = (settings.body.clone(), settings.not_body.clone());
    // Linear is not quick: a large pattern on a large body takes seconds, and the loop has none.
    let quotes = quotes.clone();
    let look = move || complain(wanted.as_deref(), unwanted.as_deref(), &body, &quotes);
    tokio::task::spawn_blocking(look).await.expect("matching does not panic")
}

/// What a pattern finds wrong with a body.
fn complain(
    wanted: Option<&str>,
    unwanted: Option<&str>,
    body: &Received,
    quotes: &Quotes,
) -> Option<String> {
    let found = |pattern: &str| compiled(pattern).find(&body.kept).map(|found| found.range());
    if let Some(pattern) = wanted
        && found(pattern).is_none()
    {
        let cut = match body.end {
            End::Whole => String::new(),
            End::Cut => format!(" in its first {} (`max_body`)", show_size(body.bytes)),
        };
        let begins = match body.kept.is_empty() {
            true => "it is empty".to_owned(),
            false => format!("it begins with {}", quotes.beginning(&body.kept)),
        };
        return Some(format!("the body does not match \"{pattern}\"{cut}: {begins}"));
    }
    let pattern = unwanted?;
    let at = found(pattern)?;
    Some(format!(
        "the body matches \"{pattern}\" (`not_body`): {}",
        quotes.from(&body.kept, at.start)
    ))
}

/// Compiled for each use: a thousand held ones cost eleven megabytes, compiling one a few microseconds.
fn compiled(pattern: &str) -> Regex {
    compile(pattern).expect("it was compiled when the configuration was read")
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(limits::REGEX_BYTES_MAX).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::given::Setting;

    /// https in place of http, on the same host: what was said for the server goes there, but not a login.
    #[test]
    fn a_login_is_not_told_to_another_scheme() {
        let mut given = Given::default();
        let texts = [("url", "http://127.0.0.1/"), ("user", "monitor")];
        texts.into_iter().for_each(|(key, text)| given.put(key, Setting::Text(text.to_owned())));
        given.put("password_file", Setting::Path("/p".into()));
        let Ok(Probe::Network(Network::Http(settings))) = read(&given) else { panic!("is good") };
        let names = [header::AUTHORIZATION, header::ACCEPT];
        for (to, kept) in
            [("https://127.0.0.1/", vec![&names[1]]), ("/b", vec![&names[0], &names[1]])]
        {
            let value = HeaderValue::from_static("x");
            let headers = names.iter().cloned().map(|name| (name, value.clone())).collect();
            let (url, send) = (settings.url.clone(), String::new());
            let from = Asking { url, method: Method::GET, headers, send };
            let mut seen = Seen::default();
            let location = HeaderValue::from_static(to);
            let to = follow(&settings, from, StatusCode::FOUND, &location, &mut seen);
            let to = to.expect("is followed");
            assert_eq!(to.headers.keys().collect::<Vec<_>>(), kept, "{}", to.url);
            assert_eq!(seen.kept_from.is_some(), to.url.scheme() == "https");
        }
    }
}
