//! `type = "dns"`: whether a name server answers, and with what.
//!
//! One question to one server, without the machine's resolver: what is probed is that server. An answer
//! counts only if it comes from the address that was asked, with the number and the question that were
//! sent (RFC 5452, section 9); of its records only those count that the asked name leads to.
//!
//! Sources: RFC 1035 (format, TCP, response codes), RFC 7766 (an answer that was cut short is asked for by
//! TCP).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use regex::bytes::RegexBuilder;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use simple_dns::rdata::RData;
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
    header_buffer,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::checks::connect::{self, Stage, Tools, Trouble, connect_trouble};
use crate::checks::given::{Given, Key, KeyKind, Wrong};
use crate::checks::nameserver::{PORT, Server, first_server, server};
use crate::checks::{CheckType, Network, Probe, Unsaid, fingerprint};
use crate::model::limits;
use crate::model::metric::{Metric, Value};
use crate::model::observation::Observation;
use crate::model::text::Untrusted;

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::ResponseTime, Metric::Answers],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(10),
    read: |given| read(given).map(|settings| Probe::Network(Network::Dns(settings))),
};

const RECORDS: [&str; 9] = ["A", "AAAA", "CNAME", "MX", "TXT", "NS", "SRV", "PTR", "SOA"];

const KEYS: [Key; 5] = [
    // Not `name`: that is what a check itself is called, and two may ask for one name.
    Key { name: "query", kind: KeyKind::Text, example: "www.example.com" },
    Key { name: "record", kind: KeyKind::OneOf(&RECORDS), example: "A" },
    Key { name: "server", kind: KeyKind::Text, example: "127.0.0.1:53" },
    Key { name: "expect", kind: KeyKind::Pattern, example: "^192\\.0\\.2\\." },
    Key { name: "protocol", kind: KeyKind::OneOf(&["udp", "tcp"]), example: "udp" },
];

/// A datagram may be lost without anybody's fault, so the question is repeated.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The longest message there can be: its length has two bytes (RFC 1035, section 4.2.2).
const MESSAGE_BYTES_MAX: usize = 65_535;
/// The shortest record: the root's name, type, class, time to live and length (RFC 1035, section 4.1.3).
const RECORD_BYTES_MIN: usize = 11;
/// The shortest question.
const QUESTION_BYTES_MIN: usize = 5;
/// The head of a message.
const HEAD_BYTES: usize = 12;
/// Aliases that are followed from the asked name; servers follow no more either.
const ALIASES_MAX: usize = 16;
/// A message up to this is read where it is; a longer one can be made to take a second (thousands of names that
/// are pointers to pointers, aliases that differ in their last letter), and the loop has none. What fits into a
/// datagram that need not be split (RFC 9715, section 3) is shorter.
const READ_AT_ONCE_BYTES: usize = 1400;
/// So many longer ones are read at once: each may hold some ten megabytes.
static READERS: Semaphore = Semaphore::const_new(4);
/// Records shown.
const SHOWN: usize = 4;

/// What to probe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    name: String,
    record: Record,
    server: Option<Server>,
    expect: Option<String>,
    protocol: Protocol,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Protocol {
    Udp,
    Tcp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(clippy::upper_case_acronyms, reason = "so they are written")]
enum Record {
    A,
    AAAA,
    CNAME,
    MX,
    TXT,
    NS,
    SRV,
    PTR,
    SOA,
}

fn read(given: &Given) -> Result<Settings, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let record = match given.text("record") {
        Some("AAAA") => Record::AAAA,
        Some("CNAME") => Record::CNAME,
        Some("MX") => Record::MX,
        Some("TXT") => Record::TXT,
        Some("NS") => Record::NS,
        Some("SRV") => Record::SRV,
        Some("PTR") => Record::PTR,
        Some("SOA") => Record::SOA,
        Some(_) | None => Record::A,
    };
    let name = match given.text("query") {
        None => {
            wrong.push(Wrong::new("query", "it does not say which name to ask for", ""));
            String::new()
        }
        Some(name) => match name.parse() {
            Ok(address) if record == Record::PTR => reverse(address),
            Ok(_) => {
                let hint = "an address has a name by record = \"PTR\"";
                wrong.push(Wrong::new("query", "`query` is an address, not a name", hint));
                String::new()
            }
            Err(_) => {
                // The library does not mind labels without letters.
                if !name.is_ascii() || name.contains("..") || Name::new(name).is_err() {
                    let hint = "labels of at most 63 letters, 255 in all; international names in \
                                punycode (xn--...)";
                    wrong.push(Wrong::new("query", "`query` is not a domain name", hint));
                }
                name.to_owned()
            }
        },
    };
    let server = given.text("server").map(|text| {
        server(text).unwrap_or_else(|| {
            let hint =
                "an address or a name, with or without a port: \"127.0.0.1:5353\", \"[::1]:53\"";
            wrong.push(Wrong::new("server", "`server` is not an address or a name", hint));
            Server { host: String::new(), port: PORT }
        })
    });
    let expect = given.text("expect").map(str::to_owned);
    let protocol =
        if given.text("protocol") == Some("tcp") { Protocol::Tcp } else { Protocol::Udp };
    let settings = Settings { name, record, server, expect, protocol };
    if wrong.is_empty() { Ok(settings) } else { Err(wrong) }
}

/// The name under which an address has its PTR record (RFC 1035, section 3.5; RFC 3596, section 2.5).
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().rev().map(|byte| {
                let (high, low) = (byte >> 4, byte & 15);
                format!("{low:x}.{high:x}.")
            });
            nibbles.collect::<String>() + "ip6.arpa"
        }
    }
}

/// Probes once.
pub async fn probe(settings: &Settings, tools: &Tools) -> Observation {
    match attempt(settings, tools).await {
        Ok(seen) => seen,
        Err(trouble) => trouble.into(),
    }
}

async fn attempt(settings: &Settings, tools: &Tools) -> Result<Observation, Trouble> {
    let server = match &settings.server {
        Some(server) => server.clone(),
        None => first_server().await?,
    };
    let addresses = connect::addresses(tools, &server.host, server.port).await?;
    let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    tools.progress.at(Stage::Asking(format!("the name server {}", shown.join(" or "))));
    let began = Instant::now();
    let inquiry = Inquiry::new(settings)?;
    let (_, answers) = connect::race(addresses, |address| inquiry.clone().put(address)).await?;
    let took = began.elapsed();
    let count = answers.len() as u64;
    let seen = match answers.iter().map(String::len).sum::<usize>() {
        // As with a body: linear is not quick.
        many if many > READ_AT_ONCE_BYTES => {
            let settings = settings.clone();
            aside(move || judge(&settings, &answers)).await??
        }
        _few => judge(settings, &answers)?,
    };
    Ok(seen
        .with(Metric::ResponseTime, Value::Duration(took))
        .with(Metric::Answers, Value::Count(count)))
}

/// Does something that takes its time, by a thread of its own.
async fn aside<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> Result<T, Trouble> {
    let reader = READERS.acquire().await;
    let done = tokio::task::spawn_blocking(move || {
        let _reader = reader;
        what()
    });
    done.await
        .map_err(|_| Trouble::Unknown("the probe crashed: this is a bug of heeler".to_owned()))
}

/// The records in words, sorted, and whether one is as expected.
fn judge(settings: &Settings, answers: &[String]) -> Result<Observation, Trouble> {
    let shown: Vec<_> = answers.iter().take(SHOWN).map(String::as_str).collect();
    let more = answers.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let shown = format!("{}{more}", shown.join(", "));
    let mut seen = match &settings.expect {
        None => Observation::ok(),
        Some(pattern) => {
            let built = RegexBuilder::new(pattern).size_limit(limits::REGEX_BYTES_MAX).build();
            let expect = built.map_err(|error| {
                Trouble::Unknown(format!("failed to compile `expect`: {error}"))
            })?;
            if answers.iter().any(|answer| expect.is_match(answer.as_bytes())) {
                Observation::ok()
            } else {
                let (record, name) = (settings.record, &settings.name);
                Observation::failed(&format!(
                    "no {record:?} record of {name} matches `expect`: {shown}"
                ))
            }
        }
    };
    seen.fingerprint = Some(fingerprint(answers.iter().map(String::as_bytes)));
    seen.detail = Untrusted::from(shown.as_str());
    Ok(seen)
}

/// A question on its way.
#[derive(Clone)]
struct Inquiry {
    id: u16,
    name: String,
    record: Record,
    protocol: Protocol,
    packet: Vec<u8>,
}

impl Inquiry {
    fn new(settings: &Settings) -> Result<Self, Trouble> {
        let cannot = |why: String| Trouble::Unknown(format!("failed to make the question: {why}"));
        let mut id = [0; 2];
        // An id that can be guessed is an answer that can be forged.
        SystemRandom::new().fill(&mut id).map_err(|error| cannot(error.to_string()))?;
        let id = u16::from_be_bytes(id);
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(&settings.name).map_err(|error| cannot(error.to_string()))?;
        packet.questions.push(Question::new(
            name,
            QTYPE::TYPE(settings.record.code()),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        let packet = packet.build_bytes_vec().map_err(|error| cannot(error.to_string()))?;
        let (record, protocol) = (settings.record, settings.protocol);
        Ok(Self { id, name: settings.name.clone(), record, protocol, packet })
    }

    /// Asks one server: the texts of the records, sorted.
    async fn put(self, server: SocketAddr) -> Result<Vec<String>, Trouble> {
        match self.protocol {
            Protocol::Udp => match self.by_udp(server).await? {
                Some(answers) => Ok(answers),
                None => self.by_tcp(server).await,
            },
            Protocol::Tcp => self.by_tcp(server).await,
        }
    }

    /// None: the answer was cut short.
    async fn by_udp(&self, server: SocketAddr) -> Result<Option<Vec<String>>, Trouble> {
        let whom = format!("the name server {server}");
        let trouble = |error: io::Error| connect_trouble(&whom, &error);
        let socket = connect::udp(server).await.map_err(trouble)?;
        let mut message = Vec::with_capacity(MESSAGE_BYTES_MAX);
        loop {
            socket.send(&self.packet).await.map_err(trouble)?;
            let again = tokio::time::Instant::now() + ASK_AGAIN;
            loop {
                message.clear();
                let received = tokio::time::timeout_at(again, socket.recv_buf(&mut message)).await;
                match received {
                    Err(_elapsed) => break,
                    Ok(received) => {
                        received.map_err(trouble)?;
                    }
                }
                if !self.is_answered_by(&message) {
                    continue;
                }
                if header_buffer::has_flags(&message, PacketFlag::TRUNCATION) == Ok(true) {
                    return Ok(None);
                }
                match self.records(std::mem::take(&mut message), &whom).await {
                    // What was not asked may be a stranger's: what is true may still come.
                    Err(Refusal::NotOurs) => message = Vec::with_capacity(MESSAGE_BYTES_MAX),
                    Err(Refusal::Trouble(trouble)) => return Err(trouble),
                    Ok(answers) => return Ok(Some(answers)),
                }
            }
        }
    }

    async fn by_tcp(&self, server: SocketAddr) -> Result<Vec<String>, Trouble> {
        let whom = format!("the name server {server}");
        let stream = TcpStream::connect(server).await;
        let mut stream =
            stream.map_err(|error| connect_trouble(&format!("{whom} by TCP"), &error))?;
        let broke = |error: io::Error| {
            Trouble::Failed(if error.kind() == io::ErrorKind::UnexpectedEof {
                format!("{whom} closed the connection before its answer was whole")
            } else {
                format!("the connection to {whom} broke: {error}")
            })
        };
        let length = u16::try_from(self.packet.len()).unwrap_or(u16::MAX);
        let framed = [&length.to_be_bytes(), self.packet.as_slice()].concat();
        stream.write_all(&framed).await.map_err(broke)?;
        let length = stream.read_u16().await.map_err(broke)?;
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await.map_err(broke)?;
        let not_ours =
            || Trouble::Failed(format!("what {whom} answered is not about what it was asked"));
        if !self.is_answered_by(&message) {
            return Err(not_ours());
        }
        self.records(message, &whom).await.map_err(|refusal| match refusal {
            Refusal::NotOurs => not_ours(),
            Refusal::Trouble(trouble) => trouble,
        })
    }

    /// Whether a message is an answer, with our number.
    fn is_answered_by(&self, message: &[u8]) -> bool {
        header_buffer::id(message) == Ok(self.id)
            && header_buffer::has_flags(message, PacketFlag::RESPONSE) == Ok(true)
    }

    /// The records that an answer gives for the question.
    async fn records(&self, message: Vec<u8>, whom: &str) -> Result<Vec<String>, Refusal> {
        if !self.is_about_it(&message) {
            return Err(Refusal::NotOurs);
        }
        if message.len() <= READ_AT_ONCE_BYTES {
            return self.read(&message, whom);
        }
        let (inquiry, whom) = (self.clone(), whom.to_owned());
        aside(move || inquiry.read(&message, &whom)).await.map_err(Refusal::Trouble)?
    }

    /// Whether a message repeats the question, or fails without one. A server that floods with what is not
    /// ours must not have all of it read: as the first name in it, the question's cannot be a pointer.
    fn is_about_it(&self, message: &[u8]) -> bool {
        let asked = &self.packet[HEAD_BYTES..];
        let repeated = message.get(HEAD_BYTES..HEAD_BYTES + asked.len());
        match header_buffer::questions(message) {
            Ok(0) => header_buffer::rcode(message) != Ok(RCODE::NoError),
            Ok(1) => repeated.is_some_and(|repeated| repeated.eq_ignore_ascii_case(asked)),
            Ok(_) | Err(_) => false,
        }
    }

    fn read(&self, message: &[u8], whom: &str) -> Result<Vec<String>, Refusal> {
        let failed = |why: String| Refusal::Trouble(Trouble::Failed(why));
        let malformed = |why: String| {
            failed(format!("the answer of {whom} is malformed: {}", why.to_lowercase()))
        };
        if !counts_fit(message) {
            return Err(malformed("it promises more records than it has bytes for".to_owned()));
        }
        let packet = Packet::parse(message).map_err(|error| malformed(error.to_string()))?;
        let name = Name::new(&self.name).map_err(|error| malformed(error.to_string()))?;
        let code = packet.rcode();
        match packet.questions.as_slice() {
            [asked]
                if asked.qname == name
                    && asked.qtype == QTYPE::TYPE(self.record.code())
                    && asked.qclass == QCLASS::CLASS(CLASS::IN) => {}
            // A server that cannot, or will not, need not repeat the question.
            [] if code != RCODE::NoError => {}
            _ => return Err(Refusal::NotOurs),
        }
        if code != RCODE::NoError {
            return Err(failed(format!("{whom} answered {}", denial(code, &self.name))));
        }
        let mut found = self.follow(name, &packet.answers).map_err(failed)?;
        found.sort();
        Ok(found)
    }

    /// The texts of the records at the end of the aliases that begin with the name, in this answer.
    fn follow<'a>(
        &self,
        name: Name<'a>,
        answers: &[ResourceRecord<'a>],
    ) -> Result<Vec<String>, String> {
        let mut chain = vec![name];
        loop {
            let here = chain.last().expect("it begins with the asked name");
            let at_here = || answers.iter().filter(|rr| rr.class == CLASS::IN && rr.name == *here);
            let found: Vec<_> = at_here().filter_map(|rr| self.record.text(&rr.rdata)).collect();
            if !found.is_empty() {
                return Ok(found);
            }
            let alias = at_here().find_map(|rr| {
                if let RData::CNAME(target) = &rr.rdata { Some(target.0.clone()) } else { None }
            });
            let record = self.record;
            match alias {
                None if chain.len() == 1 => {
                    return Err(format!("{} has no {record:?} record", self.name));
                }
                None => {
                    let name = &self.name;
                    return Err(format!(
                        "{name} is an alias of {here}, for which no {record:?} record came"
                    ));
                }
                Some(target) if chain.contains(&target) => {
                    return Err(format!("the aliases of {} go in a circle", self.name));
                }
                Some(_) if chain.len() > ALIASES_MAX => {
                    return Err(format!("{} has more than {ALIASES_MAX} aliases", self.name));
                }
                Some(target) => chain.push(target),
            }
        }
    }
}

/// Why an answer gives no records.
enum Refusal {
    /// It answers something else.
    NotOurs,
    /// It answers what was asked, and not well.
    Trouble(Trouble),
}

/// Whether a message could hold as many records as its head says: the parser makes room for all of them
/// before it reads one.
fn counts_fit(message: &[u8]) -> bool {
    let counts = [
        header_buffer::answers(message),
        header_buffer::name_servers(message),
        header_buffer::additional_records(message),
    ];
    let records: usize = counts.into_iter().flatten().map(usize::from).sum();
    let questions = header_buffer::questions(message).map_or(0, usize::from);
    let least = HEAD_BYTES + questions * QUESTION_BYTES_MIN + records * RECORD_BYTES_MIN;
    least <= message.len()
}

/// A code that is not success, in words (RFC 1035, section 4.1.1).
fn denial(code: RCODE, name: &str) -> String {
    match code {
        RCODE::NameError => format!("NXDOMAIN: there is no name {name}"),
        RCODE::ServerFailure => "SERVFAIL: it failed to find out".to_owned(),
        RCODE::Refused => "REFUSED: it does not want to answer this machine".to_owned(),
        RCODE::FormatError => "FORMERR: it does not understand the question".to_owned(),
        RCODE::NotImplemented => "NOTIMP: it does not know such questions".to_owned(),
        RCODE::NoError
        | RCODE::YXDOMAIN
        | RCODE::YXRRSET
        | RCODE::NXRRSET
        | RCODE::NOTAUTH
        | RCODE::NOTZONE
        | RCODE::BADVERS
        | RCODE::Reserved => "with an error that is none for a question".to_owned(),
    }
}

impl Record {
    fn code(self) -> TYPE {
        match self {
            Self::A => TYPE::A,
            Self::AAAA => TYPE::AAAA,
            Self::CNAME => TYPE::CNAME,
            Self::MX => TYPE::MX,
            Self::TXT => TYPE::TXT,
            Self::NS => TYPE::NS,
            Self::SRV => TYPE::SRV,
            Self::PTR => TYPE::PTR,
            Self::SOA => TYPE::SOA,
        }
    }

    /// The text of a record of this type, as zone files have it, without quotes and the last dot.
    fn text(self, data: &RData<'_>) -> Option<String> {
        Some(match (self, data) {
            (Self::A, RData::A(a)) => Ipv4Addr::from(a.address).to_string(),
            (Self::AAAA, RData::AAAA(aaaa)) => Ipv6Addr::from(aaaa.address).to_string(),
            (Self::CNAME, RData::CNAME(target)) => target.to_string(),
            (Self::MX, RData::MX(mx)) => format!("{} {}", mx.preference, mx.exchange),
            (Self::NS, RData::NS(server)) => server.to_string(),
            (Self::PTR, RData::PTR(name)) => name.to_string(),
            (Self::SRV, RData::SRV(srv)) => {
                format!("{} {} {} {}", srv.priority, srv.weight, srv.port, srv.target)
            }
            (Self::TXT, RData::TXT(text)) => match String::try_from(text.clone()) {
                Ok(text) => text,
                Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            },
            (Self::SOA, RData::SOA(soa)) => format!(
                "{} {} {} {} {} {} {}",
                soa.mname, soa.rname, soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum
            ),
            _other_type => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_names() {
        let reverse = |text: &str| reverse(text.parse().expect("an address"));
        assert_eq!(reverse("192.0.2.7"), "7.2.0.192.in-addr.arpa");
        let six = reverse("2001:db8::567:89ab");
        assert_eq!(six, "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
    }

    #[test]
    fn a_head_that_promises_what_cannot_be_there_is_not_parsed() {
        let mut message = vec![0; HEAD_BYTES];
        assert!(counts_fit(&message));
        message[7] = 1;
        assert!(!counts_fit(&message));
        message.extend([0; RECORD_BYTES_MIN]);
        assert!(counts_fit(&message));
        message[10] = 255;
        assert!(!counts_fit(&message));
    }
}
