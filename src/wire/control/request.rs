//! Requests: how they are written as method, target and body, and read back.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::model::ids::ServiceName;
use crate::model::limits;
use crate::model::order::Order;
use crate::wire::control::{ErrorAnswer, ErrorKind};

/// What a client asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// How services stand. A client names none to ask for all it may see; once the request was
    /// allowed they are always named.
    Status {
        /// Which.
        services: Vec<ServiceName>,
    },
    /// Why a service stands as it does.
    Why {
        /// Which.
        service: ServiceName,
    },
    /// Do something.
    Order {
        /// What.
        order: Order,
        /// With which; at least one, each once.
        services: Vec<ServiceName>,
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
    services: Vec<String>,
    #[serde(default = "waits")]
    wait: bool,
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
            Self::Status { services } => {
                let mut target = STATUS.to_owned();
                for (n, service) in services.iter().enumerate() {
                    target.push(if n == 0 { '?' } else { '&' });
                    target.push_str(&format!("service={service}"));
                }
                get(target)
            }
            Self::Why { service } => get(format!("{WHY}?service={service}")),
            Self::Order { order, services, wait } => {
                let services = services.iter().map(ToString::to_string).collect();
                post(ORDER, OrderBody { order: order.name().to_owned(), services, wait: *wait })
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
            STATUS | WHY => "GET",
            ORDER | MAIL_TEST | RELOAD_CONFIG | PLAN => "POST",
            _ => {
                let text = "nothing is here; this heeler answers /v1/status, /v1/why, /v1/order, \
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
            ORDER if query.is_empty() => Self::decode_order(body),
            MAIL_TEST if query.is_empty() => Self::decode_mail_test(body),
            RELOAD_CONFIG if query.is_empty() => Self::decode_reload(body),
            PLAN if query.is_empty() => Self::decode_plan(body),
            ORDER | MAIL_TEST | RELOAD_CONFIG | PLAN => {
                Err(bad("it is asked for by its body alone"))
            }
            WHY => match <[ServiceName; 1]>::try_from(services_of(query)?) {
                Ok([service]) => Ok(Self::Why { service }),
                Err(_) => Err(bad("why wants exactly one service=NAME")),
            },
            _ => Ok(Self::Status { services: services_of(query)? }),
        }
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
        let mut services = Vec::new();
        for name in &body.services {
            let service = parse_name(name)?;
            if !services.contains(&service) {
                services.push(service);
            }
        }
        if services.is_empty() {
            return Err(bad("an order names at least one service"));
        }
        Ok(Self::Order { order, services, wait: body.wait })
    }
}

fn post(target: &str, body: impl Serialize) -> Encoded {
    let body = serde_json::json!(body).to_string();
    Encoded { method: "POST", target: target.to_owned(), body }
}

/// The `service=NAME` pairs of a query, each name once. Other keys are a mistake: a misspelt one
/// would otherwise ask for everything.
fn services_of(query: &str) -> Result<Vec<ServiceName>, ErrorAnswer> {
    let mut services = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some(("service", name)) = pair.split_once('=') else {
            return Err(bad("the query has only service=NAME"));
        };
        let name = percent_decode(name).ok_or_else(|| bad("the query has a bad % escape"))?;
        let service = parse_name(&name)?;
        if !services.contains(&service) {
            services.push(service);
        }
    }
    Ok(services)
}

fn parse_name(name: &str) -> Result<ServiceName, ErrorAnswer> {
    ServiceName::parse(name).map_err(|why| bad(why.to_string()))
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
