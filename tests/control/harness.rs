//! The real server in a thread of its own, with a loop that answers by the names of services, and raw
//! clients.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use heeler::keeper::control::{ControlEvent, ControlRequest, ControlSocket};
use heeler::keeper::rights::{Principal, Rights};
use heeler::model::change::Changes;
use heeler::model::event::{Event, EventKind};
use heeler::model::ids::{GroupName, ServiceName};
use heeler::model::order::{Reply, ReplyResult, WorkerPick};
use heeler::model::process::Uid;
use heeler::model::service::Right;
use heeler::model::time::Wall;
use heeler::wire::control::{
    Allowed, ErrorAnswer, ErrorKind, EventsAnswer, Guard, Health, MailTestAnswer, OrderAnswer,
    OrderEnd, OrderResult, ProbeAnswer, ProbeVerdict, ProbedCheck, ReloadAnswer, Request, Response,
    ServiceStatus, StatusAnswer, VERSION, WhyAnswer, Wish, WorkersAnswer, WorkersVerdict,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// The user without a name that owns the service `theirs`.
pub(crate) const THEIRS: u32 = 54_321;
/// The user that may only see and start `theirs`.
pub(crate) const GRANTED: u32 = 54_322;
/// The user that has no right at all.
pub(crate) const STRANGER: u32 = 54_323;

/// A status of this service is six million bytes.
pub(crate) const BIG: &str = "big";
pub(crate) const BIG_BYTES: usize = 6_000_000;

type Followers = Arc<Mutex<Vec<mpsc::Sender<Arc<Event>>>>>;

/// How a server ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// Like a keeper that is killed.
    Killed,
    /// The loop ends first.
    Orderly,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    /// What the loop heard and did, line by line.
    log: Arc<Mutex<Vec<String>>>,
    /// Who follows the events.
    followers: Followers,
    /// Lets the orders to `slow` end.
    slow_may_end: watch::Sender<bool>,
    end: Option<oneshot::Sender<End>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Services: `shop` is up, `db` is down, `bad` fails at every order, `slow` ends when it is let,
    /// `theirs` is another user's.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
        let socket = dir.path().join("run/control.sock");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (slow_may_end, slow) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let (path, told) = (socket.clone(), Arc::clone(&log));
        let followers = Followers::default();
        let (following, followed) = (Arc::clone(&followers), Arc::clone(&followers));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let serving = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let socket = ControlSocket::bind(&path).expect("the socket binds");
                let (_rights, rights) = watch::channel(Arc::new(rights()));
                let (send, receive) = mpsc::channel(8);
                ready.send(()).expect("the test waits");
                let serving = socket.serve(rights, send);
                let mut living = Box::pin(fake_loop(receive, told, slow, following));
                tokio::pin!(serving);
                let end = tokio::select! {
                    () = &mut serving => panic!("the server ended by itself"),
                    () = &mut living => panic!("the loop ended by itself"),
                    end = ended => end,
                };
                if let Ok(End::Orderly) = end {
                    drop(living);
                    followed.lock().expect("the followers").clear();
                    serving.await;
                }
            });
        });
        is_ready.recv_timeout(Duration::from_secs(10)).expect("the server starts");
        Self { dir, socket, log, followers, slow_may_end, end: Some(end), thread: Some(serving) }
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("the log").clone()
    }

    pub(crate) fn let_slow_end(&self) {
        self.slow_may_end.send_replace(true);
    }

    /// Something happens to a service. As the keeper does: who is too far behind is let go.
    pub(crate) fn happens(&self, service: &str, text: &str) {
        let event = Arc::new(event(service, 7000, text));
        let mut followers = self.followers.lock().expect("the followers");
        followers.retain(|follower| follower.try_send(Arc::clone(&event)).is_ok());
    }

    pub(crate) fn followers(&self) -> usize {
        self.followers.lock().expect("the followers").len()
    }

    /// Ends it, and waits until it has.
    pub(crate) fn stop(&mut self, how: End) {
        if let Some(end) = self.end.take() {
            end.send(how).expect("the server lives");
        }
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not panic");
        }
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream
    }

    /// Sends bytes, and reads the whole answer.
    pub(crate) fn tell(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may refuse before it has read everything.
        drop(stream.write_all(bytes));
        answer(stream)
    }

    /// Asks for the status of `shop` and wants it.
    pub(crate) fn must_be_well(&self) {
        let answer = self.tell(&get("/v1/status?service=shop"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
    }
}

/// Reads until the server closes; a reset after the answer is as good.
pub(crate) fn answer(mut stream: UnixStream) -> String {
    let mut bytes = Vec::new();
    drop(stream.read_to_end(&mut bytes));
    String::from_utf8(bytes).expect("an answer is text")
}

pub(crate) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: heeler\r\n\r\n").into_bytes()
}

pub(crate) fn order(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST /v1/order HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn rights() -> Rights {
    let name = |text| ServiceName::parse(text).expect("a good name");
    let own = Uid(nix::unistd::geteuid().as_raw());
    let mut rights = Rights::new(own);
    let group = |name| vec![GroupName::parse(name).expect("a good name")];
    for (service, of) in
        [("shop", "web"), ("db", "back"), ("bad", "web"), ("slow", "back"), (BIG, "big")]
    {
        rights.add(name(service), group(of), own, []);
    }
    let grant = (Principal::User(Uid(GRANTED)), vec![Right::Status, Right::Start]);
    rights.add(name("theirs"), group("web"), Uid(THEIRS), [grant]);
    rights
}

async fn fake_loop(
    mut events: mpsc::Receiver<ControlEvent>,
    log: Arc<Mutex<Vec<String>>>,
    slow: watch::Receiver<bool>,
    followers: Followers,
) {
    let mut answering = JoinSet::new();
    let say = |text: String| log.lock().expect("the log").push(text);
    while let Some(event) = events.recv().await {
        match event {
            ControlEvent::Refused { peer, request, answer } => {
                say(format!("refused uid {} {request:?}: {:?}", peer.uid, answer.error));
            }
            ControlEvent::TooSlow { peer } => say(format!("uid {} is too slow", peer.uid)),
            ControlEvent::Request(ControlRequest { peer, request, reply, follower }) => {
                followers.lock().expect("the followers").extend(follower);
                assert!(peer.pid.0 > 0);
                say(format!("uid {} {request:?}", peer.uid));
                let (mut slow, log) = (slow.clone(), Arc::clone(&log));
                answering.spawn(async move {
                    if matches!(&request, Request::Order { services, wait: true, .. }
                        if services.iter().any(|service| service.as_str() == "slow"))
                    {
                        slow.wait_for(|may| *may).await.expect("the test lives");
                        log.lock().expect("the log").push("slow ended".to_owned());
                    }
                    drop(reply.send(respond(&request)));
                });
            }
        }
    }
}

fn respond(request: &Allowed) -> Response {
    match request {
        Request::Status { services } => {
            Response::Status(StatusAnswer::new(services.iter().map(status).collect()))
        }
        Request::Why { service } => Response::Why(WhyAnswer {
            version: 1,
            service: service.to_string(),
            state: "up".to_owned(),
            incidents: Vec::new(),
            desired: None,
        }),
        Request::ReloadConfig | Request::Plan { .. } => {
            let dir = "/etc/heeler/conf.d".to_owned();
            Response::Reload(ReloadAnswer::new(dir, &Changes::default(), Vec::new()))
        }
        Request::Events { services, last, follow: _ } => {
            let past = [event("shop", 1000, "up: pid 4107"), event("theirs", 2000, "up: pid 9")];
            let mut events: Vec<_> =
                past.into_iter().filter(|event| services.contains(&event.service)).collect();
            let most = last.map_or(usize::MAX, |last| last as usize);
            events.drain(..events.len().saturating_sub(most));
            Response::Events(EventsAnswer::new(&events))
        }
        Request::Probe { service, check } => {
            let verdict = match check.as_deref() {
                None => ProbeVerdict::Pass,
                Some("bad") => ProbeVerdict::Fail,
                Some(_) => {
                    let text = format!("{service} has no such check");
                    return Response::Error(ErrorAnswer::new(ErrorKind::NoSuchCheck, text));
                }
            };
            Response::Probe(ProbeAnswer::new(service, vec![probed(verdict)]))
        }
        Request::Workers { service } => {
            let verdict = match service.as_str() {
                "bad" => WorkersVerdict::Ill,
                _ => WorkersVerdict::NotRunning,
            };
            let text = "nobody\x1b[2J is there".to_owned();
            let guard =
                Guard { min: 1, wanted: 0, budget: 3, window_ms: 600_000, left: 3, going: None };
            Response::Workers(Box::new(WorkersAnswer {
                version: VERSION,
                service: service.to_string(),
                verdict,
                standing: None,
                text,
                guard,
                current: None,
                workers: Vec::new(),
            }))
        }
        Request::Kill { service, pick } => {
            let reply = match pick {
                WorkerPick::Pid(pid) => {
                    let text = format!("worker {pid} is gone after 1s");
                    Reply { result: ReplyResult::Done, text }
                }
                WorkerPick::Stuck => {
                    let text = "no worker is stuck".to_owned();
                    Reply { result: ReplyResult::Failed, text }
                }
            };
            Response::Order(OrderAnswer::new(vec![OrderResult::replied(service, &reply)]))
        }
        Request::ReloadVerified { service, within } => {
            let reply = match within {
                None => {
                    let text = "verified after 12s".to_owned();
                    Reply { result: ReplyResult::Done, text }
                }
                Some(within) => {
                    let text = format!("its time is over: {within:?}\x1b[2J");
                    Reply { result: ReplyResult::Failed, text }
                }
            };
            Response::Order(OrderAnswer::new(vec![OrderResult::replied(service, &reply)]))
        }
        Request::MailTest { to } => Response::MailTest(MailTestAnswer {
            version: VERSION,
            to: to.clone(),
            servers: Vec::new(),
            text: "no mail server".to_owned(),
        }),
        Request::Order { order, services, wait } => {
            let result = |service: &ServiceName| match (service.as_str(), wait) {
                ("bad", _) => OrderResult {
                    service: service.to_string(),
                    result: OrderEnd::Failed,
                    text: "it did not\x1b[2J come up".to_owned(),
                },
                (_, true) => OrderResult {
                    service: service.to_string(),
                    result: OrderEnd::Done,
                    text: format!("{} done", order.name()),
                },
                (_, false) => OrderResult::accepted(service, "recorded".to_owned()),
            };
            Response::Order(OrderAnswer::new(services.iter().map(result).collect()))
        }
    }
}

pub(crate) fn probed(verdict: ProbeVerdict) -> ProbedCheck {
    ProbedCheck {
        number: 1,
        label: "page".to_owned(),
        check_type: "http".to_owned(),
        verdict,
        text: "failed (503\x1b[2J)".to_owned(),
        outcome: "failed".to_owned(),
        why: Some("503\x1b[2J".to_owned()),
        detail: None,
        metrics: Vec::new(),
        took_ms: 12,
    }
}

fn event(service: &str, at_ms: u64, text: &str) -> Event {
    let name = ServiceName::parse(service).expect("a good name");
    Event::new(name, Wall(at_ms), EventKind::Started, text)
}

fn status(service: &ServiceName) -> ServiceStatus {
    let up = service.as_str() != "db";
    let wrong = if service.as_str() == BIG { "w".repeat(BIG_BYTES) } else { String::new() };
    ServiceStatus {
        service: service.to_string(),
        state: if up { "up" } else { "down" }.to_owned(),
        health: if up { Health::Good } else { Health::Down },
        phase: "watching".to_owned(),
        since_unix_ms: 0,
        desired: Wish {
            want: "up".to_owned(),
            by: "config".to_owned(),
            by_text: "the configuration".to_owned(),
            uid: None,
            pid: None,
            rule: None,
            at_unix_ms: 0,
        },
        pid: up.then_some(4107),
        uptime_ms: None,
        cpu_milli_percent: None,
        memory_bytes: None,
        memory_kind: None,
        wrong: Some(wrong).filter(|wrong| !wrong.is_empty()).into_iter().collect(),
        checks: Vec::new(),
        groups: Vec::new(),
    }
}

/// Copies a program to where every user may execute it. A child does the writing: a descriptor of ours
/// would leak into whatever another test forks meanwhile, and executing the copy would fail (ETXTBSY).
pub(crate) fn for_everyone(server: &Server, program: &Path) -> PathBuf {
    let copy = server.dir.path().join("program");
    if !copy.exists() {
        let done = Command::new("install").args(["-m", "755"]).arg(program).arg(&copy).status();
        assert!(done.expect("install runs").success());
    }
    copy
}
