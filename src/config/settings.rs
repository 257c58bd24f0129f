//! `heeler.toml`: the daemon's own settings and `[defaults]`.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::config::LoadAs;
use crate::config::defaults::{COMMON_KEYS, Defaults, address, per_window};
use crate::config::document::{Document, Field, field, get, shorten};
use crate::config::service::{OWN_KEYS, account};
use crate::model::limits;
use crate::model::process::Uid;
use crate::model::rate::Rate;
use crate::model::workers::Budget;

/// The daemon's own settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// What survives a reboot.
    pub state_dir: PathBuf,
    /// Locks and job records.
    pub run_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Who the scout runs as, where it was said.
    pub scout_user: Option<Box<str>>,
    /// Where the log goes, where it was said.
    pub log: Option<LogTo>,
    /// The name in mails, where the machine's own will not do.
    pub hostname: Option<Box<str>>,
    /// How mails go out; without it they become files.
    pub mail: Option<MailSettings>,
    /// How much heeler takes away by itself, on the whole machine.
    pub brake: Budget,
    /// What a service has that does not say otherwise.
    pub defaults: Defaults,
}

/// `log`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogTo {
    /// The journal, with fields.
    Journal,
    /// /dev/log.
    Syslog,
    /// A file.
    File(PathBuf),
}

impl fmt::Display for LogTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal => f.write_str("journal"),
            Self::Syslog => f.write_str("syslog"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// `[mail]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailSettings {
    /// The sender.
    pub from: Box<str>,
    /// The servers, in the order they are tried; with none mails become files.
    pub servers: Vec<MailServer>,
    /// How many mails each person gets.
    pub rate: Rate,
}

/// One of `servers`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailServer {
    /// Its name or address.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub tls: Tls,
    /// Who logs in, where a login is wanted.
    pub user: Option<Box<str>>,
    /// Where the password is; never in conf.d itself.
    pub password_file: Option<PathBuf>,
    /// The certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// How a mail connection is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tls {
    /// It begins in clear and must be upgraded.
    StartTls,
    /// From its first byte.
    Tls,
    /// Not at all; then nobody logs in.
    None,
}

const KEYS: [&str; 9] = [
    "state_dir",
    "run_dir",
    "socket",
    "log",
    "scout_user",
    "hostname",
    "mail",
    "brake",
    "defaults",
];
const LATER: [(&str, &str); 1] = [("web", "leave it out; `heeler status` shows the same")];
const SERVER_KEYS: [&str; 6] = ["host", "port", "tls", "user", "password_file", "ca_file"];

impl Settings {
    /// What is so without a `heeler.toml`: the system's directories for root, the user's own for
    /// others.
    #[must_use]
    pub fn of(who: &LoadAs) -> Self {
        let system = who.uid == Uid(0);
        let own =
            |xdg: &Option<PathBuf>| xdg.as_ref().filter(|_| !system).map(|dir| dir.join("heeler"));
        let home =
            who.home.as_ref().filter(|_| !system).map(|home| home.join(".local/state/heeler"));
        let state_dir =
            own(&who.xdg_state_home).or(home).unwrap_or_else(|| "/var/lib/heeler".into());
        let run_dir = if system { "/run/heeler".into() } else { state_dir.join("run") };
        let run_dir = own(&who.xdg_runtime_dir).unwrap_or(run_dir);
        let socket = run_dir.join(SOCKET);
        let defaults = Defaults::default();
        let (log, scout_user, hostname, mail) = (None, None, None, None);
        let brake = limits::HOST_BRAKE;
        Self { state_dir, run_dir, socket, log, scout_user, hostname, mail, brake, defaults }
    }

    /// Reads `heeler.toml`.
    pub(crate) fn read(doc: &mut Document<'_>, table: &DeTable<'_>, who: &LoadAs) -> Self {
        let mut out = Self::of(who);
        // A key of a service said here would look as if it were a default.
        let of_services = [&OWN_KEYS[..], &COMMON_KEYS].concat();
        let hint = "say it in the service's file, or under [defaults]";
        doc.misplaced(table, &of_services, "is a key of a service", hint);
        doc.known_keys(table, &KEYS, &of_services, &LATER);
        if let Some(dir) = get(doc, table, "state_dir", Document::path) {
            if who.uid != Uid(0) && who.xdg_runtime_dir.is_none() {
                out.run_dir = dir.join("run");
            }
            out.state_dir = dir;
        }
        if let Some(dir) = get(doc, table, "run_dir", Document::path) {
            out.run_dir = dir;
        }
        out.socket =
            get(doc, table, "socket", Document::path).unwrap_or_else(|| out.run_dir.join(SOCKET));
        if out.socket.as_os_str().len() > limits::SOCKET_PATH_BYTES_MAX {
            let at = field(table, "socket")
                .or_else(|| field(table, "run_dir"))
                .or_else(|| field(table, "state_dir"));
            let message = format!(
                "the control socket's path is longer than {} bytes",
                limits::SOCKET_PATH_BYTES_MAX
            );
            let hint = "say a shorter one: socket = \"/run/heeler.sock\"";
            doc.missing(at.map(|at| at.value.span()), message, hint);
        }
        out.log = get(doc, table, "log", log);
        out.scout_user = get(doc, table, "scout_user", account);
        out.hostname = get(doc, table, "hostname", hostname);
        out.mail = get(doc, table, "mail", mail);
        out.brake = get(doc, table, "brake", brake).unwrap_or(out.brake);
        if let Some(defaults) =
            get(doc, table, "defaults", |doc, at| doc.table(at, "write it as [defaults]"))
        {
            doc.misplaced(
                defaults,
                &OWN_KEYS,
                "cannot be a default",
                "say it in each service's own file",
            );
            doc.known_keys(defaults, &COMMON_KEYS, &OWN_KEYS, &[]);
            out.defaults = Defaults::read(doc, defaults, &out.defaults);
        }
        out
    }

    /// Whether a path is heeler's own.
    #[must_use]
    pub(crate) fn owns(&self, path: &Path) -> bool {
        path.starts_with(&self.run_dir) || path.starts_with(&self.state_dir)
    }
}

const SOCKET: &str = "control.sock";

fn log(doc: &mut Document<'_>, at: Field<'_>) -> Option<LogTo> {
    match doc.string(at, "journal")? {
        "journal" => Some(LogTo::Journal),
        "syslog" => Some(LogTo::Syslog),
        path if path.starts_with('/') && !path.ends_with('/') => Some(LogTo::File(path.into())),
        other => {
            let message = format!("`{}` is no place for a log", shorten(other));
            let hint = "say `journal`, `syslog`, or the whole path of a file; without `log` it is standard error";
            doc.error(at.value.span(), message, Some(hint));
            None
        }
    }
}

/// `30 per 10m`.
fn brake(doc: &mut Document<'_>, at: Field<'_>) -> Option<Budget> {
    let (actions, window) = per_window(doc, at, "a brake", "30 per 10m")?;
    Some(Budget { actions, window })
}

fn hostname(doc: &mut Document<'_>, at: Field<'_>) -> Option<Box<str>> {
    const BYTES_MAX: usize = 253;
    let text = doc.string(at, "web1.example.com")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.len() > BYTES_MAX || !text.chars().all(fits) {
        doc.error(at.value.span(), format!("`{}` is not a host name", shorten(text)), None);
        return None;
    }
    Some(text.into())
}

fn mail(doc: &mut Document<'_>, at: Field<'_>) -> Option<MailSettings> {
    let table = doc.table(at, "write it as [mail]")?;
    doc.known_keys(table, &["from", "servers", "rate"], &[], &[]);
    let from = get(doc, table, "from", address);
    if field(table, "from").is_none() {
        let hint = "for example: from = \"heeler@web1.example.com\"";
        doc.missing(Some(at.value.span()), "[mail] does not say who mails come `from`", hint);
    }
    let hint = "for example: servers = [{ host = \"127.0.0.1\", port = 25, tls = \"none\" }]";
    let items = get(doc, table, "servers", |doc, at| {
        let items = doc.list(at, hint)?;
        if items.len() > limits::MAIL_SERVERS_MAX {
            let message = format!("`servers` has more than {} entries", limits::MAIL_SERVERS_MAX);
            doc.error(at.value.span(), message, Some("two are enough to do without one"));
        }
        Some(items)
    });
    let rate = get(doc, table, "rate", rate).unwrap_or_default();
    let servers =
        items.unwrap_or_default().into_iter().filter_map(|item| server(doc, item, hint)).collect();
    Some(MailSettings { from: from?, servers, rate })
}

/// `30 per 10m`.
fn rate(doc: &mut Document<'_>, at: Field<'_>) -> Option<Rate> {
    let (mails, window) = per_window(doc, at, "a rate", "30 per 10m")?;
    Some(Rate { mails, window })
}

fn server(doc: &mut Document<'_>, at: Field<'_>, hint: &str) -> Option<MailServer> {
    let table = doc.table(at, hint)?;
    let hidden = "put it in a file that only root can read: password_file = \"...\"";
    doc.misplaced(table, &["password"], "does not belong into this file", hidden);
    doc.known_keys(table, &SERVER_KEYS, &["password"], &[]);
    let host = get(doc, table, "host", hostname_or_ip);
    if field(table, "host").is_none() {
        doc.missing(Some(at.value.span()), "this server has no `host`", hint);
    }
    let tls = match get(doc, table, "tls", |doc, at| {
        doc.word(at, "a kind of encryption", &["starttls", "tls", "none"])
    }) {
        Some(word) if word == "none" => Tls::None,
        Some(word) if word == "tls" => Tls::Tls,
        Some(_) | None => Tls::StartTls,
    };
    let port = match field(table, "port") {
        Some(at) => port(doc, at),
        None => Some(match tls {
            Tls::StartTls => 587,
            Tls::Tls => 465,
            Tls::None => 25,
        }),
    };
    let user = get(doc, table, "user", |doc, at| doc.string(at, "alert").map(Into::into));
    if let (Some(at), Tls::None) = (field(table, "user"), tls) {
        let message = "a login would send the password in clear";
        doc.error(at.value.span(), message, Some("tls = \"starttls\", or no `user`"));
    }
    let password_file = get(doc, table, "password_file", Document::path);
    if let (Some(at), None) = (field(table, "user"), field(table, "password_file")) {
        doc.missing(
            Some(at.value.span()),
            "a login needs a `password_file`",
            "say where the password is",
        );
    }
    let ca_file = get(doc, table, "ca_file", Document::path);
    Some(MailServer { host: host?, port: port?, tls, user, password_file, ca_file })
}

/// A name, or an address of either family.
fn hostname_or_ip(doc: &mut Document<'_>, at: Field<'_>) -> Option<Box<str>> {
    match at.value.get_ref().as_str() {
        Some(text) if text.parse::<std::net::IpAddr>().is_ok() => Some(text.into()),
        Some(_) | None => hostname(doc, at),
    }
}

fn port(doc: &mut Document<'_>, at: Field<'_>) -> Option<u16> {
    let number = at.value.get_ref().as_integer();
    let port = number
        .and_then(|number| u16::from_str_radix(number.as_str(), number.radix()).ok())
        .filter(|port| *port != 0);
    if port.is_none() {
        doc.expected("a port from 1 to 65535", at, Some("for example: port = 587"));
    }
    port
}
