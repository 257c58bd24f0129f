//! Who is who: user and group names looked up by a short-lived child, because a name service may hang
//! and may parse bytes from the network. Until a name is known its service is Unknown, not down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::engine::effect::Level;
use crate::keeper::Keeper;
use crate::keeper::rights::{Principal, Rights};
use crate::keeper::scout::ScoutUser;
use crate::model::limits;
use crate::model::process::{Gid, Uid};
use crate::model::service::{Grantee, Right, Service};
use crate::sys::selfexe::SelfExe;
use crate::sys::spawn;
use crate::wire::resolve;

/// One round of look-ups: everything that was answered, or why nothing was.
pub(super) type Answer = Result<Vec<resolve::Answer>, String>;

/// What is known of users and groups.
pub(super) struct People {
    own: Uid,
    users: BTreeMap<Box<str>, (Uid, Gid)>,
    groups: BTreeMap<Box<str>, Gid>,
    rights: watch::Sender<Arc<Rights>>,
    answers: UnboundedSender<Answer>,
    /// Whether a child is out: one that does not even die must not become many.
    asking: Arc<AtomicBool>,
    /// Who the scout may be, the first that there is; nobody where no service needs one.
    scouts: Vec<Box<str>>,
    /// What was said of names: once is enough.
    said: BTreeSet<String>,
}

impl People {
    /// Nobody but heeler's own user is known yet.
    pub(super) fn new(
        own: Uid,
        own_name: Option<&str>,
        answers: UnboundedSender<Answer>,
    ) -> (Self, watch::Receiver<Arc<Rights>>) {
        let (rights, seen) = watch::channel(Arc::new(Rights::new(own)));
        let gid = Gid(nix::unistd::getegid().as_raw());
        let users = own_name.map(|name| (name.into(), (own, gid))).into_iter().collect();
        let (asking, said) = (Arc::default(), BTreeSet::new());
        let (groups, scouts) = (BTreeMap::new(), Vec::new());
        (Self { own, users, groups, rights, answers, asking, scouts, said }, seen)
    }

    /// The uid of a service's user, when it is known.
    pub(super) fn owner(&self, service: &Service) -> Option<Uid> {
        match &service.user {
            None => Some(self.own),
            Some(name) => self.users.get(name).map(|(uid, _)| *uid),
        }
    }

    /// A user by name, when it is known.
    pub(super) fn user(&self, name: &str) -> Option<Uid> {
        self.users.get(name).map(|(uid, _)| *uid)
    }

    /// A scout is needed: `named` in heeler.toml, else `heeler`, else `nobody`.
    pub(super) fn need_scout(&mut self, named: Option<&str>) {
        if self.own == Uid(0) {
            self.scouts = match named {
                Some(name) => vec![name.into()],
                None => DEFAULT_SCOUTS.map(Into::into).to_vec(),
            };
        }
    }

    /// Who the scout is to be.
    pub(super) fn scout(&self) -> ScoutUser {
        if self.own != Uid(0) {
            return ScoutUser::Same;
        }
        let known = self.scouts.iter().find_map(|name| self.users.get(name));
        known.map_or(ScoutUser::Unknown, |(uid, gid)| ScoutUser::Known(*uid, *gid))
    }

    /// Sends the child out for every name that is not known; its answers come to the loop.
    pub(super) fn look_up(&self, exe: &SelfExe, services: impl Iterator<Item = Arc<Service>>) {
        let questions = self.unknown(services);
        if questions.is_empty() || self.asking.load(Ordering::Acquire) {
            return;
        }
        let answers = self.answers.clone();
        let child = match spawn::spawn_resolver(exe) {
            Ok(child) => child,
            Err(error) => {
                let _sent =
                    answers.send(Err(format!("failed to start the look-up of users: {error}")));
                return;
            }
        };
        self.asking.store(true, Ordering::Release);
        let asking = Arc::clone(&self.asking);
        let spawn::Resolver { pidfd, stdin, stdout } = child;
        let thread =
            std::thread::Builder::new().name("heeler-people".to_owned()).spawn(move || {
                let _sent = answers.send(ask(File::from(stdin), File::from(stdout), &questions));
                // It may be stuck in the kernel: only this thread waits for that.
                spawn::end_child(&pidfd);
                asking.store(false, Ordering::Release);
            });
        if let Err(error) = thread {
            self.asking.store(false, Ordering::Release);
            let _sent =
                self.answers.send(Err(format!("failed to start the look-up of users: {error}")));
        }
    }

    fn unknown(&self, services: impl Iterator<Item = Arc<Service>>) -> String {
        let mut questions = BTreeSet::new();
        if self.scout() == ScoutUser::Unknown {
            let names = self.scouts.iter().map(|name| resolve::Question::User(name.to_string()));
            questions.extend(names.map(|name| name.encode()));
        }
        for service in services {
            let grantees = service.allow.iter().map(|grant| grant.to.clone());
            let workers = service.workers.as_ref().and_then(|workers| workers.user.clone());
            let users = service.user.clone().into_iter().chain(workers).map(Grantee::User);
            for name in users.chain(grantees) {
                let question = match name {
                    Grantee::User(name) if !self.users.contains_key(&name) => {
                        resolve::Question::User(name.into())
                    }
                    Grantee::Group(name) if !self.groups.contains_key(&name) => {
                        resolve::Question::Group(name.into())
                    }
                    Grantee::User(_) | Grantee::Group(_) => continue,
                };
                questions.insert(question.encode());
            }
        }
        questions.into_iter().collect()
    }

    /// Forgets names that nobody uses any more.
    fn keep_only(&mut self, services: &[Arc<Service>]) {
        let grantees = || services.iter().flat_map(|service| &service.allow).map(|grant| &grant.to);
        let mut users: BTreeSet<&str> = self.scouts.iter().map(|name| &**name).collect();
        let mut groups: BTreeSet<&str> = BTreeSet::new();
        users.extend(services.iter().filter_map(|service| service.user.as_deref()));
        let workers = services.iter().filter_map(|service| service.workers.as_ref());
        users.extend(workers.filter_map(|workers| workers.user.as_deref()));
        for to in grantees() {
            match to {
                Grantee::User(name) => users.insert(name),
                Grantee::Group(name) => groups.insert(name),
            };
        }
        let own = self.own;
        self.users.retain(|name, (uid, _)| *uid == own || users.contains(&**name));
        self.groups.retain(|name, _| groups.contains(&**name));
        self.said.clear();
    }

    fn principal(&self, to: &Grantee) -> Option<Principal> {
        match to {
            Grantee::User(name) => self.users.get(name).map(|(uid, _)| Principal::User(*uid)),
            Grantee::Group(name) => self.groups.get(name).copied().map(Principal::Group),
        }
    }

    /// Makes the rights anew from what is known.
    pub(super) fn publish(&self, services: impl Iterator<Item = Arc<Service>>) {
        let mut rights = Rights::new(self.own);
        for service in services {
            // A service whose user is not known yet is root's alone until it is.
            let user = self.owner(&service).unwrap_or(self.own);
            let grants: Vec<(Principal, Vec<Right>)> = service
                .allow
                .iter()
                .filter_map(|grant| Some((self.principal(&grant.to)?, grant.rights.clone())))
                .collect();
            rights.add(service.name.clone(), service.groups.clone(), user, grants);
        }
        self.rights.send_replace(Arc::new(rights));
    }
}

impl Keeper {
    /// The child answered.
    pub(super) fn hear_people(&mut self, answer: Answer) {
        let answers = match answer {
            Ok(answers) => answers,
            Err(text) => {
                self.say(Level::Error, &text);
                return;
            }
        };
        for answer in answers {
            match answer {
                resolve::Answer::User { name, uid, gid, .. } => {
                    self.people.users.insert(name.into(), (uid, gid));
                }
                resolve::Answer::Group { name, gid } => {
                    self.people.groups.insert(name.into(), gid);
                }
                resolve::Answer::Missing { name } if name == DEFAULT_SCOUTS[0] => {
                    let text = "there is no user \"heeler\" for the network checks: they run as \"nobody\", \
                                with whom other daemons may share it; `useradd -r heeler` makes one";
                    self.say_once(text.to_owned());
                }
                resolve::Answer::Missing { name } => {
                    self.say_once(format!("there is no user or group {name:?} on this machine"));
                }
                resolve::Answer::Failed { name, error } => {
                    self.say_once(format!("failed to look up {name:?}: {error}"));
                }
            }
        }
        let mut found = Vec::new();
        for (name, served) in &mut self.services {
            let before = std::mem::replace(&mut served.owner, self.people.owner(&served.def));
            if before.is_none() && served.owner.is_some() {
                found.push(name.clone());
            }
        }
        for name in found {
            // Until now it could not be looked for.
            self.engine_does(|engine, now, effects| engine.look_soon(now, &name, effects));
        }
        self.people.publish(self.services.values().map(|served| Arc::clone(&served.def)));
        self.scouts_change();
    }

    /// Other services are watched now, or others may do something with them.
    pub(super) fn people_change(&mut self) {
        let services: Vec<_> =
            self.services.values().map(|served| Arc::clone(&served.def)).collect();
        self.people.keep_only(&services);
        self.people.publish(services.into_iter());
        self.scouts_change();
    }

    /// Whether some service's user is still unknown.
    pub(super) fn somebody_unknown(&self) -> bool {
        self.services.values().any(|served| served.owner.is_none())
    }

    fn say_once(&mut self, text: String) {
        if !self.people.said.contains(&text) {
            self.say(Level::Error, &text);
            self.people.said.insert(text);
        }
    }

    /// A name that is not known yet, a service's user or one in its `allow`, is looked up again after a
    /// while.
    pub(super) fn plan_look_up(&mut self) {
        let services = self.services.values().map(|served| Arc::clone(&served.def));
        let unknown = !self.people.unknown(services).is_empty();
        self.look_up_at = unknown.then(|| Instant::now() + AGAIN);
    }

    /// Sends the child out again.
    pub(super) fn look_up_people(&self) {
        self.people
            .look_up(&self.exe, self.services.values().map(|served| Arc::clone(&served.def)));
    }
}

/// Asks the child, for as long as it is not silent for too long.
fn ask(mut stdin: File, mut stdout: File, questions: &str) -> Answer {
    let fail =
        |error: &dyn std::fmt::Display| format!("failed to look up users and groups: {error}");
    // A pipe takes 64 KiB at once; a child that reads nothing is met by the deadline below.
    let sent = write_all(&mut stdin, questions.as_bytes());
    drop(stdin);
    let mut text = Vec::new();
    let result = sent.and_then(|()| read_all(&mut stdout, &mut text));
    let lines = String::from_utf8_lossy(&text);
    let answers: Vec<_> = lines.lines().filter_map(resolve::Answer::decode).collect();
    match result {
        Err(error) if answers.is_empty() => Err(fail(&error)),
        Ok(()) | Err(_) => Ok(answers),
    }
}

/// Who the scout is where nobody said it.
const DEFAULT_SCOUTS: [&str; 2] = ["heeler", "nobody"];
/// How long after a look-up an unknown name is looked up again.
const AGAIN: Duration = Duration::from_secs(30);
/// How long the child may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

fn ready(file: &File, flags: PollFlags) -> std::io::Result<()> {
    let timeout = PollTimeout::try_from(PATIENCE).map_err(std::io::Error::other)?;
    match poll(&mut [PollFd::new(file.as_fd(), flags)], timeout)? {
        0 => Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the name service does not answer; is LDAP or SSSD down?",
        )),
        _ => Ok(()),
    }
}

fn write_all(file: &mut File, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                ready(file, PollFlags::POLLOUT)?
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_all(file: &mut File, text: &mut Vec<u8>) -> std::io::Result<()> {
    let mut chunk = [0; 4096];
    while text.len() < limits::RECORD_BYTES_MAX {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => text.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                ready(file, PollFlags::POLLIN)?
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
