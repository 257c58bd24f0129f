//! Requests: how they are written as method, target and body, and read back.
#![forbid(unsafe_code)]

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::ids::{GroupName, NameError, ServiceName};
use crate::model::limits;
use crate::model::order::{Order, WorkerPick};
use crate::model::process::Pid;
use crate::model::selector::Selector;
use crate::wire::control::{ErrorAnswer, ErrorKind};

/// What a client asks. It may choose services by patterns and groups; once the request was allowed each is
/// named ([`Allowed`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request<S = Selector> {
    /// How services stand.
    Status {
        /// Which; none is all the client may see.
        services: Vec<S>,
    },
    /// Why a service stands as it does.
    Why {
        /// Which.
        service: ServiceName,
    },
    /// What happened.
    Events {
        /// To which; none is all the client may see.
        services: Vec<S>,
        /// How many, the newest; all that are kept where it does not say.
        last: Option<u32>,
        /// And what happens from now on?
        follow: Follow,
    },
    /// Run checks once, and do nothing about it.
    Probe {
        /// Of which service.
        service: ServiceName,
        /// Which: a label, a number from 1, or a part of one label; all where it does not say.
        check: Option<String>,
    },
    /// How its workers are.
    Workers {
        /// Of which service.
        service: ServiceName,
    },
    /// Take a worker away.
    Kill {
        /// Of which service.
        service: ServiceName,
        /// Which.
        pick: WorkerPick,
    },
    /// Have a Puma take up its new release, and see that to its end.
    ReloadVerified {
        /// Of which service.
        service: ServiceName,
        /// How long it may take; [`limits::VERIFY_TIMEOUT`] where it does not say.
        within: Option<Duration>,
    },
    /// Do something.
    Order {
        /// What.
        order: Order,
        /// With which; at least one.
        services: Vec<S>,
        /// Whether the answer waits until it is known how it ended.
        wait: bool,
    },
    /// Read the configuration anew.
    ReloadConfig,
    /// Say what reading a directory would do.
    Plan {
        /// Which, absolute; the keeper's own where it is not said.
        dir: Option<String>,
    },
    /// Send a test mail by each server.
    MailTest {
        /// To whom; nobody: to all who get alerts.
        to: Vec<String>,
    },
}

/// Whether a client goes on listening.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// It wants what there is.
    No,
    /// It wants what comes, too.
    Yes,
}

/// A request that was allowed.
pub type Allowed = Request<ServiceName>;

/// A request as HTTP says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded {
    /// GET or POST.
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    /// JSON; empty for GET.
    pub body: String,
}

#[derive(Serialize, Deserialize)]
struct OrderBody {
    order: String,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    all: bool,
    #[serde(default = "waits")]
    wait: bool,
}

#[derive(Serialize, Deserialize)]
struct ProbeBody {
    service: String,
    check: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KillBody {
    service: String,
    worker: Option<i32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadVerifiedBody {
    service: String,
    timeout_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct MailTestBody {
    #[serde(default)]
    to: Vec<String>,
}

/// Something without a word to be said; `{}` or nothing.
#[derive(Serialize, Deserialize)]
struct EmptyBody {}

#[derive(Serialize, Deserialize)]
struct PlanBody {
    #[serde(default)]
    dir: Option<String>,
}

fn waits() -> bool {
    true
}

const STATUS: &str = "/v1/status";
const WHY: &str = "/v1/why";
const EVENTS: &str = "/v1/events";
const PROBE: &str = "/v1/probe";
const WORKERS: &str = "/v1/workers";
const KILL: &str = "/v1/kill";
const RELOAD_VERIFIED: &str = "/v1/reload-verified";
const ORDER: &str = "/v1/order";
const MAIL_TEST: &str = "/v1/mail-test";
const RELOAD_CONFIG: &str = "/v1/reload-config";
const PLAN: &str = "/v1/plan";

impl Request {
    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> Encoded {
        let get = |target| Encoded { method: "GET", target, body: String::new() };
        match self {
            Self::Status { services } => get(target(STATUS, pairs_of(services))),
            Self::Why { service } => get(format!("{WHY}?service={service}")),
            Self::Events { services, last, follow } => {
                let mut pairs = pairs_of(services);
                pairs.extend(last.map(|last| ("last", last.to_string())));
                if *follow == Follow::Yes {
                    pairs.push(("follow", "true".to_owned()));
                }
                get(target(EVENTS, pairs))
            }
            Self::Probe { service, check } => {
                let body = ProbeBody { service: service.to_string(), check: check.clone() };
                let body = serde_json::json!(body).to_string();
                Encoded { method: "POST", target: PROBE.to_owned(), body }
            }
            Self::Workers { service } => get(format!("{WORKERS}?service={service}")),
            Self::Kill { service, pick } => {
                let worker = match pick {
                    WorkerPick::Pid(pid) => Some(pid.0),
                    WorkerPick::Stuck => None,
                };
                let body = serde_json::json!(KillBody { service: service.to_string(), worker });
                Encoded { method: "POST", target: KILL.to_owned(), body: body.to_string() }
            }
            Self::ReloadVerified { service, within } => {
                let timeout_ms =
                    within.map(|within| u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
                let body = ReloadVerifiedBody { service: service.to_string(), timeout_ms };
                let body = serde_json::json!(body).to_string();
                Encoded { method: "POST", target: RELOAD_VERIFIED.to_owned(), body }
            }
            Self::Order { order, services, wait } => {
                let mut body = OrderBody {
                    order: order.name().to_owned(),
                    services: Vec::new(),
                    groups: Vec::new(),
                    all: false,
                    wait: *wait,
                };
                for selector in services {
                    match selector {
                        Selector::Name(name) => body.services.push(name.to_string()),
                        Selector::Pattern(pattern) => body.services.push(pattern.to_string()),
                        Selector::Group(group) => body.groups.push(group.to_string()),
                        Selector::All => body.all = true,
                    }
                }
                post(ORDER, body)
            }
            Self::MailTest { to } => post(MAIL_TEST, MailTestBody { to: to.clone() }),
            Self::ReloadConfig => post(RELOAD_CONFIG, EmptyBody {}),
            Self::Plan { dir } => post(PLAN, PlanBody { dir: dir.clone() }),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// Says what about it is not a request.
    pub fn decode(method: &str, target: &str, body: &[u8]) -> Result<Self, ErrorAnswer> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let expected = match path {
            STATUS | WHY | EVENTS | WORKERS => "GET",
            PROBE | KILL | RELOAD_VERIFIED | ORDER | MAIL_TEST | RELOAD_CONFIG | PLAN => "POST",
            _ => {
                let text = "nothing is here; this heeler answers /v1/status, /v1/why, /v1/events, \
                            /v1/workers, /v1/probe, /v1/kill, /v1/reload-verified, /v1/order, \
                            /v1/mail-test, /v1/reload-config and /v1/plan";
                return Err(ErrorAnswer::new(ErrorKind::NoSuchPath, text));
            }
        };
        if method != expected {
            let text = format!("this path wants {expected}");
            return Err(ErrorAnswer::new(ErrorKind::WrongMethod, text));
        }
        if expected == "GET" && !body.is_empty() {
            return Err(bad("a GET has no body"));
        }
        match path {
            PROBE if query.is_empty() => Self::decode_probe(body),
            KILL if query.is_empty() => Self::decode_kill(body),
            RELOAD_VERIFIED if query.is_empty() => Self::decode_reload_verified(body),
            ORDER if query.is_empty() => Self::decode_order(body),
            MAIL_TEST if query.is_empty() => Self::decode_mail_test(body),
            RELOAD_CONFIG if query.is_empty() => Self::decode_reload(body),
            PLAN if query.is_empty() => Self::decode_plan(body),
            PROBE | KILL | RELOAD_VERIFIED | ORDER | MAIL_TEST | RELOAD_CONFIG | PLAN => {
                Err(bad("it is asked for by its body alone"))
            }
            WHY => Ok(Self::Why { service: one_service(query)? }),
            WORKERS => Ok(Self::Workers { service: one_service(query)? }),
            EVENTS => Self::decode_events(pairs(query)?),
            _ => Ok(Self::Status { services: services_of(pairs(query)?)? }),
        }
    }

    fn decode_events(mut pairs: Vec<(&str, String)>) -> Result<Self, ErrorAnswer> {
        let (mut last, mut follow) = (None, Follow::No);
        for (_, value) in pairs.extract_if(.., |(key, _)| *key == "last") {
            let number = value.parse().map_err(|_| bad("last is not a number of events"))?;
            last = Some(number);
        }
        for (_, value) in pairs.extract_if(.., |(key, _)| *key == "follow") {
            follow = match value.as_str() {
                "true" => Follow::Yes,
                "false" => Follow::No,
                _ => return Err(bad("follow is true or false")),
            };
        }
        Ok(Self::Events { services: services_of(pairs)?, last, follow })
    }

    fn decode_probe(body: &[u8]) -> Result<Self, ErrorAnswer> {
        let ProbeBody { service, check } = serde_json::from_slice(body).map_err(|error| {
            bad(format!("the body is not a probe ({error}); write {{\"service\":\"NAME\"}}"))
        })?;
        let service = ServiceName::parse(&service).map_err(no_name)?;
        Ok(Self::Probe { service, check })
    }

    fn decode_kill(body: &[u8]) -> Result<Self, ErrorAnswer> {
        let KillBody { service, worker } = serde_json::from_slice(body).map_err(|error| {
            bad(format!(
                "the body does not say which worker ({error}); \
                 write {{\"service\":\"NAME\",\"worker\":77}}, or no worker for the stuck one"
            ))
        })?;
        let service = ServiceName::parse(&service).map_err(no_name)?;
        let pick = match worker {
            None => WorkerPick::Stuck,
            Some(pid) if pid > 1 => WorkerPick::Pid(Pid(pid)),
            Some(_) => return Err(bad("this is not the number of a worker")),
        };
        Ok(Self::Kill { service, pick })
    }

    fn decode_reload_verified(body: &[u8]) -> Result<Self, ErrorAnswer> {
        let ReloadVerifiedBody { service, timeout_ms } =
            serde_json::from_slice(body).map_err(|error| {
                bad(format!(
                    "the body is not a verified reload ({error}); \
                     write {{\"service\":\"NAME\",\"timeout_ms\":600000}}"
                ))
            })?;
        let service = ServiceName::parse(&service).map_err(no_name)?;
        let within = timeout_ms.map(Duration::from_millis);
        if within.is_some_and(|within| !limits::VERIFY_TIMEOUTS.contains(&within)) {
            let (least, most) = (limits::VERIFY_TIMEOUTS.start(), limits::VERIFY_TIMEOUTS.end());
            return Err(bad(format!(
                "timeout_ms is from {} to {}",
                least.as_millis(),
                most.as_millis()
            )));
        }
        Ok(Self::ReloadVerified { service, within })
    }

    fn decode_mail_test(body: &[u8]) -> Result<Self, ErrorAnswer> {
        let MailTestBody { to } = serde_json::from_slice(body).map_err(|error| {
            bad(format!(
                "the body is not a mail test ({error}); write {{\"to\":[\"ops@example.com\"]}}"
            ))
        })?;
        if to.len() > limits::RECIPIENTS_MAX {
            return Err(bad(format!("more than {} recipients", limits::RECIPIENTS_MAX)));
        }
        Ok(Self::MailTest { to })
    }

    fn decode_reload(body: &[u8]) -> Result<Self, ErrorAnswer> {
        if !body.is_empty() {
            let read = serde_json::from_slice::<EmptyBody>(body);
            read.map_err(|error| {
                bad(format!("a reload has nothing to say ({error}); write {{}}"))
            })?;
        }
        Ok(Self::ReloadConfig)
    }

    fn decode_plan(body: &[u8]) -> Result<Self, ErrorAnswer> {
        let PlanBody { dir } = serde_json::from_slice(body).map_err(|error| {
            bad(format!(
                "the body is not a plan ({error}); write {{\"dir\":\"/etc/heeler/conf.d\"}}"
            ))
        })?;
        if dir.as_ref().is_some_and(|dir| !dir.starts_with('/') || dir.contains('\0')) {
            return Err(bad("`dir` has to be an absolute path"));
        }
        Ok(Self::Plan { dir })
    }

    fn decode_order(body: &[u8]) -> Result<Self, ErrorAnswer> {
        let body: OrderBody = serde_json::from_slice(body).map_err(|error| {
            bad(format!(
                "the body is not an order ({error}); \
                 write {{\"order\":\"restart\",\"services\":[\"NAME\"],\"wait\":true}}"
            ))
        })?;
        let order = Order::ALL.into_iter().find(|order| order.name() == body.order);
        let words = Order::ALL.map(Order::name).join(", ");
        let order =
            order.ok_or_else(|| bad(format!("this is not an order; orders are {words}")))?;
        let words = body.services.iter().map(|word| Selector::parse(word).map_err(no_name));
        let groups = body.groups.iter().map(|name| group(name));
        let all = body.all.then_some(Ok(Selector::All));
        let services: Vec<_> = words.chain(groups).chain(all).collect::<Result<_, _>>()?;
        if services.is_empty() {
            return Err(bad("an order names at least one service"));
        }
        Ok(Self::Order { order, services: few(services)?, wait: body.wait })
    }
}

fn post(target: &str, body: impl Serialize) -> Encoded {
    let body = serde_json::json!(body).to_string();
    Encoded { method: "POST", target: target.to_owned(), body }
}

/// The pairs of a query.
fn pairs(query: &str) -> Result<Vec<(&str, String)>, ErrorAnswer> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode(value).ok_or_else(|| bad("the query has a bad % escape"))?;
        Ok((key, value))
    });
    pairs.collect()
}

/// The one service that a query is about.
fn one_service(query: &str) -> Result<ServiceName, ErrorAnswer> {
    match services_of(pairs(query)?)?.as_slice() {
        [Selector::Name(service)] => Ok(service.clone()),
        _ => Err(bad("this wants exactly one service=NAME")),
    }
}

/// The services that are chosen by `service=NAME` and `group=NAME`. Other keys are a mistake: a misspelt one
/// would otherwise ask for everything.
fn services_of(pairs: Vec<(&str, String)>) -> Result<Vec<Selector>, ErrorAnswer> {
    let services = pairs.into_iter().map(|(key, value)| match key {
        "service" => Selector::parse(&value).map_err(no_name),
        "group" => group(&value),
        _ => Err(bad("the query has a key that means nothing here, beside service and group")),
    });
    few(services.collect::<Result<_, _>>()?)
}

/// The other way round. Whoever asks for all asks for no more than who names none.
fn pairs_of(services: &[Selector]) -> Vec<(&'static str, String)> {
    let pair = |selector: &Selector| match selector {
        Selector::Name(name) => Some(("service", name.to_string())),
        Selector::Pattern(pattern) => Some(("service", pattern.to_string())),
        Selector::Group(group) => Some(("group", group.to_string())),
        Selector::All => None,
    };
    services.iter().filter_map(pair).collect()
}

fn target(path: &str, pairs: Vec<(&str, String)>) -> String {
    let pairs: Vec<_> =
        pairs.iter().map(|(key, value)| format!("{key}={}", percent_encode(value))).collect();
    let mark = if pairs.is_empty() { "" } else { "?" };
    format!("{path}{mark}{}", pairs.join("&"))
}

/// Each pattern and group costs a look at every service.
fn few(services: Vec<Selector>) -> Result<Vec<Selector>, ErrorAnswer> {
    let many = services.iter().filter(|one| !matches!(one, Selector::Name(_))).count();
    if many > limits::CONTROL_PATTERNS_MAX {
        let most = limits::CONTROL_PATTERNS_MAX;
        return Err(bad(format!(
            "{many} patterns and groups; {most} are looked at in one request"
        )));
    }
    Ok(services)
}

fn group(name: &str) -> Result<Selector, ErrorAnswer> {
    GroupName::parse(name).map(Selector::Group).map_err(no_name)
}

fn no_name(why: NameError) -> ErrorAnswer {
    bad(why.to_string())
}

fn percent_encode(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.@-*!".contains(c);
    text.chars()
        .map(|c| if plain(c) { c.to_string() } else { format!("%{:02x}", u32::from(c)) })
        .collect()
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

fn bad(text: impl Into<String>) -> ErrorAnswer {
    ErrorAnswer::new(ErrorKind::BadRequest, text)
}
