//! The keeper's side of the scout that mails: letters out, what became of them in. It is there only while
//! there is something to deliver; a new one comes for one that died, hangs, or says what it cannot know.
//!
//! Whatever happens to it, every letter has exactly one answer. The store decides what is sent and keeps
//! it until then; passwords are read anew for each scout, in the pool, and are nowhere but in its socket.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::config::settings::{MailServer, MailSettings, Tls};
use crate::config::trust::{Secret, read_password, read_trusted};
use crate::engine::effect::Level;
use crate::keeper::Keeper;
use crate::keeper::cage::Caged;
use crate::keeper::turn::{Done, Source};
use crate::mail::digest::test_mail;
use crate::mail::{self, HostFacts};
use crate::model::limits;
use crate::model::process::{Gid, Uid};
use crate::model::units::show_duration;
use crate::store::{MailStanding, Message};
use crate::wire::control::{MailStatus, MailTestAnswer, MailTestResult, Response, VERSION};
use crate::wire::post::{End, Fate, Letter, Login, Posted, Security, Server, Setup, ToPost};

/// Numbers of test letters have this bit; those of the store do not.
const TEST: u64 = 1 << 63;
/// Answers heard before the loop goes on: a scout that never stops must not hold it up.
const ANSWERS_MAX: usize = 64;

/// The way out for mail.
pub(super) struct Post {
    mail: Option<Arc<MailSettings>>,
    host: HostFacts,
    folder: PathBuf,
    instance: Option<Instance>,
    /// The files of the servers that are being read for the next scout.
    reading: Option<Reading>,
    /// The servers whose files the pool has not come back from.
    in_pool: Vec<MailServer>,
    /// Of which servers.
    read: Knows,
    /// Not given to a scout yet.
    waiting: VecDeque<Letter>,
    asked: BTreeMap<u64, Asked>,
    tests: Vec<Test>,
    next_test: u64,
    standing: MailStanding,
    buffer: Vec<u8>,
}

struct Instance {
    caged: Caged,
    knows: Knows,
    /// Since when it has nothing to do.
    idle_since: Instant,
}

/// The files of the servers, read each for itself: one that hangs costs its own server, no other.
struct Reading {
    since: Instant,
    mail: Arc<MailSettings>,
    /// What is known so far, in their order.
    servers: Vec<Option<Server>>,
}

/// What a scout was told about servers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Knows {
    /// What is so.
    Now,
    /// What was so: it finishes what it has, and gets nothing more.
    Before,
}

struct Asked {
    recipients: usize,
    /// When the answer has to be there.
    until: Instant,
}

/// A test that somebody waits for.
struct Test {
    reply: oneshot::Sender<Response>,
    to: Vec<String>,
    /// The letters that are not answered.
    missing: BTreeSet<u64>,
    /// By server, in their order.
    results: BTreeMap<u64, MailTestResult>,
}

impl Post {
    /// The way out that heeler.toml says, if any.
    pub(super) fn new(mail: Option<MailSettings>, host: HostFacts, state_dir: &Path) -> Self {
        Self {
            mail: mail.filter(|mail| !mail.servers.is_empty()).map(Arc::new),
            host,
            folder: state_dir.join("outbox"),
            instance: None,
            reading: None,
            in_pool: Vec::new(),
            read: Knows::Now,
            waiting: VecDeque::new(),
            asked: BTreeMap::new(),
            tests: Vec::new(),
            next_test: TEST,
            standing: MailStanding::default(),
            buffer: Vec::new(),
        }
    }

    /// Whether mails go out by SMTP.
    pub(super) fn delivers(&self) -> bool {
        self.mail.is_some()
    }

    /// How long the scout may take for a letter.
    fn patience(&self) -> Duration {
        let servers = self.mail.as_ref().map_or(1, |mail| mail.servers.len());
        limits::MAIL_TIMEOUT * u32::try_from(servers).unwrap_or(u32::MAX) + limits::SCOUT_GRACE
    }
}

impl Keeper {
    /// The store has a letter to deliver.
    pub(super) fn post(&mut self, letter: Letter) {
        self.post.waiting.push_back(letter);
        self.hand_over();
    }

    /// Gives what waits to the scout, or sees to it that there is one.
    fn hand_over(&mut self) {
        let until = Instant::now() + self.post.patience();
        let idle = self.post.asked.is_empty();
        let outdated = |instance: &mut Instance| instance.knows == Knows::Before && idle;
        if let Some(instance) = self.post.instance.take_if(outdated) {
            self.put_down(instance.caged);
            self.outgoing.push(Message::TryMail);
        }
        let post = &mut self.post;
        if post.instance.as_ref().is_some_and(|instance| instance.knows == Knows::Before) {
            // What it has is answered first: one mail is not to go out twice.
        } else if let Some(instance) = &mut post.instance {
            for letter in post.waiting.drain(..) {
                post.asked.insert(letter.id, Asked { recipients: letter.to.len(), until });
                instance.caged.packets.extend(ToPost::Letter(letter).packets());
            }
        } else if post.reading.is_none() && !post.waiting.is_empty() {
            let Some(mail) = post.mail.clone() else { return };
            self.read_servers(mail);
        }
    }

    fn read_servers(&mut self, mail: Arc<MailSettings>) {
        let own = self.load_as.uid;
        let hung = self.post.in_pool.clone();
        let servers: Vec<_> =
            mail.servers.iter().map(|one| hung.contains(one).then(|| unread(one))).collect();
        for one in mail.servers.iter().filter(|one| !hung.contains(one)) {
            if !self.post.in_pool.contains(one) {
                let one = one.clone();
                self.post.in_pool.push(one.clone());
                self.pool.submit(move || {
                    let server = with_files(&one, own);
                    Done::MailServer(Box::new((one, server)))
                });
            }
        }
        self.post.reading = Some(Reading { since: Instant::now(), mail, servers });
        self.go_on_reading();
    }

    /// The files of a server were read.
    pub(super) fn mail_server_read(&mut self, of: &MailServer, server: &Server) {
        self.post.in_pool.retain(|one| one != of);
        if let Some(Reading { mail, servers, .. }) = &mut self.post.reading {
            let of_it = mail.servers.iter().zip(servers).filter(|(one, _)| *one == of);
            of_it.for_each(|(_, known)| *known = Some(server.clone()));
        }
        self.go_on_reading();
    }

    /// Once all is known a scout can do something.
    fn go_on_reading(&mut self) {
        let whole = |reading: &mut Reading| reading.servers.iter().all(Option::is_some);
        if let Some(Reading { servers, .. }) = self.post.reading.take_if(whole) {
            self.post_ready(servers.into_iter().flatten().collect());
        }
    }

    fn post_ready(&mut self, servers: Vec<Server>) {
        if self.post.waiting.is_empty() || self.post.instance.is_some() {
            return;
        }
        if std::mem::replace(&mut self.post.read, Knows::Now) == Knows::Before {
            // The servers are others since.
            self.hand_over();
            return;
        }
        match self.new_post(servers) {
            Ok(instance) => self.post.instance = Some(instance),
            Err(why) => {
                self.post_fails(&why);
                return;
            }
        }
        self.hand_over();
    }

    fn new_post(&mut self, servers: Vec<Server>) -> Result<Instance, String> {
        let mut caged = self.cage("mail", [Source::PostSpeaks, Source::PostEnded])?;
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let setup = Setup {
            hello: mail::hello(&self.post.host),
            connect_ms: ms(limits::MAIL_CONNECT_TIMEOUT),
            command_ms: ms(limits::MAIL_COMMAND_TIMEOUT),
            whole_ms: ms(limits::MAIL_TIMEOUT),
            servers,
        };
        caged.packets.extend(ToPost::Setup(setup).packets());
        Ok(Instance { caged, knows: Knows::Now, idle_since: Instant::now() })
    }

    /// Nothing can be sent now: everything that waits has its answer.
    fn post_fails(&mut self, why: &str) {
        for letter in std::mem::take(&mut self.post.waiting) {
            self.answered(lost(letter.id, letter.to.len(), why));
        }
    }

    /// A letter has its answer.
    fn answered(&mut self, posted: Posted) {
        if posted.id & TEST == 0 {
            self.outgoing.push(Message::Posted(posted));
            return;
        }
        let tests = &mut self.post.tests;
        let Some(at) = tests.iter().position(|test| test.missing.contains(&posted.id)) else {
            return;
        };
        let test = &mut tests[at];
        test.missing.remove(&posted.id);
        if let Some(result) = test.results.get_mut(&posted.id) {
            result.delivered = posted.fates.iter().all(|fate| fate.end == End::Delivered);
            let mut texts: Vec<_> = posted.fates.iter().map(|fate| fate.text.to_string()).collect();
            texts.dedup();
            result.text = texts.join("; ");
        }
        if test.missing.is_empty() {
            let Test { reply, to, results, missing: _ } = tests.swap_remove(at);
            let servers: Vec<_> = results.into_values().collect();
            if servers.iter().any(|server| server.delivered) {
                // Mail goes out: what waits for its next try need not wait.
                self.outgoing.push(Message::TryMail);
            }
            let text = String::new();
            let answer = MailTestAnswer { version: VERSION, to, servers, text };
            let _delivered = reply.send(Response::MailTest(answer));
        }
    }

    /// Gives the scout what it was asked in this turn.
    pub(super) fn flush_post(&mut self) {
        let Some(instance) = &mut self.post.instance else { return };
        if let Err(why) = instance.caged.flush() {
            self.replace_post(&why);
        }
    }

    /// The scout says something.
    pub(super) fn post_speaks(&mut self) {
        let mut buffer = std::mem::take(&mut self.post.buffer);
        let result = self.hear_post(&mut buffer);
        self.post.buffer = buffer;
        if let Err(why) = result {
            self.replace_post(&why);
        } else if self.post.instance.as_ref().is_some_and(|one| one.knows == Knows::Before) {
            // Perhaps that was the last that it had.
            self.hand_over();
        }
    }

    fn hear_post(&mut self, buffer: &mut Vec<u8>) -> Result<(), String> {
        for _ in 0..ANSWERS_MAX {
            let Some(instance) = &self.post.instance else { return Ok(()) };
            let Some(packet) = instance.caged.receive(buffer)? else { return Ok(()) };
            let all =
                Posted::decode(packet).map_err(|error| format!("it talks nonsense: {error}"))?;
            for posted in all {
                let asked = self.post.asked.get(&posted.id);
                let asked = asked.ok_or("it answers what it was not asked")?;
                if asked.recipients != posted.fates.len() {
                    return Err("it answers for others than it was asked".to_owned());
                }
                self.post.asked.remove(&posted.id);
                if let Some(instance) = &mut self.post.instance {
                    instance.idle_since = Instant::now();
                }
                self.answered(posted);
            }
        }
        Ok(())
    }

    /// The settings of mail are others now.
    pub(super) fn post_changes(&mut self, host: HostFacts) {
        let mail = self.conf.settings.mail.clone();
        self.post.mail = mail.filter(|mail| !mail.servers.is_empty()).map(Arc::new);
        self.post.host = host;
        if self.post.reading.is_some() {
            self.post.read = Knows::Before;
        }
        self.post_outdated();
        if self.post.mail.is_none() {
            self.post.standing = MailStanding::default();
            self.post_fails("there is no mail server in heeler.toml any more");
        }
    }

    /// The scout that mails is to be this user.
    pub(super) fn post_is(&mut self, user: Option<(Uid, Gid)>) {
        if self.post.instance.as_ref().is_some_and(|instance| instance.caged.user != user) {
            self.post_outdated();
        }
    }

    fn post_outdated(&mut self) {
        if let Some(instance) = &mut self.post.instance {
            instance.knows = Knows::Before;
        }
        self.hand_over();
    }

    /// The scout ended.
    pub(super) fn post_ended(&mut self) {
        // What it said last is heard first.
        self.post_speaks();
        let end = self.post.instance.as_ref().and_then(|instance| instance.caged.end());
        if let Some(how) = end {
            self.replace_post(&how);
        }
    }

    /// Ends a scout that is no good; its letters are tried again, when the store says.
    fn replace_post(&mut self, why: &str) {
        let Some(instance) = self.post.instance.take() else { return };
        let asked = std::mem::take(&mut self.post.asked);
        let text = format!(
            "the mail scout (pid {}) is replaced: {why}; {} letters are tried again",
            instance.caged.pid,
            asked.len()
        );
        self.say(Level::Warning, &text);
        self.put_down(instance.caged);
        let why = format!("heeler's mail scout was replaced: {why}");
        for (id, asked) in asked {
            self.answered(lost(id, asked.recipients, &why));
        }
        if instance.knows == Knows::Before {
            // The servers of now have not been tried.
            self.outgoing.push(Message::TryMail);
        }
    }

    /// What is due by time: a scout with nothing to do, one that does not answer, files that hang.
    pub(super) fn post_due(&mut self, now: Instant) {
        self.flush_post();
        let over = |reading: &&mut Reading| now >= reading.since + limits::MAIL_FILES_TIMEOUT;
        if let Some(Reading { mail, servers, .. }) = self.post.reading.as_mut().filter(over) {
            for (one, known) in mail.servers.iter().zip(servers) {
                known.get_or_insert_with(|| unread(one));
            }
            self.go_on_reading();
        }
        let mut hung = false;
        for asked in self.post.asked.values_mut().filter(|asked| now >= asked.until) {
            if now.saturating_duration_since(asked.until) > limits::LATE {
                // It is the keeper that did not run: the scout gets its time, too.
                asked.until = now + limits::SCOUT_GRACE;
            } else {
                hung = true;
            }
        }
        if hung {
            self.replace_post("it does not answer");
        }
        let idle = |instance: &mut Instance| now >= instance.idle_since + limits::MAIL_IDLE;
        if self.post.asked.is_empty()
            && let Some(instance) = self.post.instance.take_if(idle)
        {
            self.put_down(instance.caged);
        }
    }

    /// When that is due.
    pub(super) fn post_wakeup(&self) -> Option<Instant> {
        let post = &self.post;
        let files = post.reading.as_ref();
        let files = files.map(|reading| reading.since + limits::MAIL_FILES_TIMEOUT);
        let retry = post.instance.as_ref().and_then(|instance| instance.caged.wakeup());
        let idle = post.instance.as_ref().filter(|_| post.asked.is_empty());
        let idle = idle.map(|instance| instance.idle_since + limits::MAIL_IDLE);
        let asked = post.asked.values().map(|asked| asked.until);
        asked.chain(files).chain(retry).chain(idle).min()
    }

    // ---- what people see -----------------------------------------------------------------------

    /// The store says how mail stands.
    pub(super) fn mail_stands(&mut self, standing: MailStanding) {
        match (&self.post.standing.trouble, &standing.trouble) {
            (None, Some((_, why))) => {
                let (age, waiting) = (show_duration(limits::MAIL_AGE_MAX), standing.waiting);
                let text = format!(
                    "mail cannot be delivered, {waiting} alerts wait: {why}; it is tried again for {age}, \
                     and `heeler mail test` tries at once"
                );
                self.say(Level::Error, &text);
            }
            (Some(_), None) => self.say(Level::Info, "mail goes out again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.post.standing = standing;
    }

    /// The same for a status; none where mails become files.
    pub(super) fn mail_status(&self) -> Option<MailStatus> {
        self.post.mail.as_ref()?;
        let MailStanding { waiting, trouble } = &self.post.standing;
        Some(MailStatus {
            waiting: *waiting as u64,
            failing_since_unix_ms: trouble.as_ref().map(|(since, _)| since.0),
            trouble: trouble.as_ref().map(|(_, why)| why.clone()),
        })
    }

    /// Sends a test mail by each server, to those named, else to all who get alerts.
    pub(super) fn test_mail(&mut self, to: Vec<String>, reply: oneshot::Sender<Response>) {
        let mut named: Vec<Box<str>> = to.into_iter().map(Into::into).collect();
        if named.is_empty() {
            let all: BTreeSet<_> = self
                .services
                .values()
                .flat_map(|served| served.def.alert.iter().cloned())
                .collect();
            named.extend(all.into_iter().take(limits::RECIPIENTS_MAX));
        }
        let people = mail::envelope(&named, &self.post.host);
        let to: Vec<_> = people.into_iter().map(|(_, address)| address).collect();
        let Some(mail) = self.post.mail.clone() else {
            let folder = self.post.folder.display();
            let text = format!(
                "there is no mail server in heeler.toml ([mail] servers): mails become files in {folder}"
            );
            let answer = MailTestAnswer { version: VERSION, to, servers: Vec::new(), text };
            let _delivered = reply.send(Response::MailTest(answer));
            return;
        };
        let now = self.now().wall;
        let (mut missing, mut results) = (BTreeSet::new(), BTreeMap::new());
        for (at, MailServer { host, port, .. }) in mail.servers.iter().enumerate() {
            self.post.next_test += 1;
            let (id, server) = (self.post.next_test, format!("{host}:{port}"));
            let text = test_mail(&named, &server, &self.post.host, now);
            missing.insert(id);
            results.insert(id, MailTestResult { server, delivered: false, text: String::new() });
            self.post.waiting.push_back(Letter {
                id,
                only: Some(at),
                from: mail::envelope_sender(&self.post.host),
                to: to.clone(),
                text: String::from_utf8_lossy(&text).into_owned(),
            });
        }
        self.post.tests.push(Test { reply, to, missing, results });
        self.hand_over();
    }
}

/// The answer to a letter that nobody answers.
fn lost(id: u64, recipients: usize, why: &str) -> Posted {
    let fate = Fate { end: End::Unreachable, text: why.into() };
    Posted { id, fates: vec![fate; recipients] }
}

/// A server of whose files nothing is known.
fn bare(MailServer { host, port, tls, .. }: &MailServer) -> Server {
    Server {
        host: host.to_string(),
        port: *port,
        security: match tls {
            Tls::StartTls => Security::StartTls,
            Tls::Tls => Security::Tls,
            Tls::None => Security::None,
        },
        login: None,
        trusted: None,
        broken: None,
    }
}

/// A server whose files do not come.
fn unread(server: &MailServer) -> Server {
    let why =
        "its password_file or ca_file was not read in time: does its file system hang? try `df`";
    Server { broken: Some(why.to_owned()), ..bare(server) }
}

/// A server with what its files say. What is wrong with them is said as what came of trying it.
fn with_files(server: &MailServer, own: Uid) -> Server {
    let MailServer { user, password_file, ca_file, .. } = server;
    let mut out = bare(server);
    if let (Some(user), Some(path)) = (user, password_file) {
        match read_password(path, own) {
            Ok(password) => {
                let password = password.reveal().to_owned();
                out.login = Some(Login { user: user.to_string(), password });
            }
            Err(why) => out.broken = Some(why),
        }
    }
    if let Some(path) = ca_file {
        match read_trusted(path, own, Secret::No, limits::CA_BYTES_MAX) {
            Ok(text) => out.trusted = Some(text),
            Err(why) => out.broken = Some(format!("the ca_file {why}")),
        }
    }
    out
}
