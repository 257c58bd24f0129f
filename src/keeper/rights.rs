//! Who may see and do what. Pure: users and groups come resolved, credentials come from the kernel.
//!
//! root and heeler's own user may do everything. A service's user may look at it, restart and reload
//! it. More comes only by `allow`. Everyone else sees nothing: for them a service that exists and one
//! that does not are the same.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::ids::{GroupName, ServiceName};
use crate::model::intent::Who;
use crate::model::process::{Gid, Pid, Uid};
use crate::model::selector::Selector;
use crate::model::service::Right;
use crate::wire::control::{Allowed, ErrorAnswer, ErrorKind, Request};

/// Who is at the other end of a connection, as the kernel told when it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its effective user.
    pub uid: Uid,
    /// Its effective group and its supplementary groups.
    pub gids: Vec<Gid>,
    /// Its process, for the log; it may be gone, and the number used by another.
    pub pid: Pid,
}

impl Peer {
    /// The same as the model's word for who asked.
    #[must_use]
    pub fn who(&self) -> Who {
        Who::Operator { uid: self.uid, pid: self.pid }
    }
}

/// A user or a group, resolved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "each is the thing of its name")]
pub enum Principal {
    User(Uid),
    Group(Gid),
}

/// The rights on every service there is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rights {
    own: Uid,
    services: BTreeMap<ServiceName, OfService>,
    /// Everyone who has any right: what decides an accept, whatever the number of services.
    known: BTreeSet<Principal>,
}

/// What has to be known of one service.
#[derive(Clone, PartialEq, Eq, Debug)]
struct OfService {
    groups: Vec<GroupName>,
    grants: Vec<(Principal, Vec<Right>)>,
}

impl Rights {
    /// No services yet; `own` is the user heeler runs as.
    #[must_use]
    pub fn new(own: Uid) -> Self {
        Self { own, services: BTreeMap::new(), known: BTreeSet::new() }
    }

    /// Adds a service with its groups, its user and its `allow`. A grantee that cannot be resolved is left out.
    pub fn add(
        &mut self,
        service: ServiceName,
        groups: Vec<GroupName>,
        user: Uid,
        grants: impl IntoIterator<Item = (Principal, Vec<Right>)>,
    ) {
        let mut all = vec![(Principal::User(user), Right::OWNER.to_vec())];
        all.extend(grants.into_iter().filter(|(_, rights)| !rights.is_empty()));
        self.known.extend(all.iter().map(|(to, _)| *to));
        self.services.insert(service, OfService { groups, grants: all });
    }

    /// Whether the peer may do everything.
    #[must_use]
    pub fn everything(&self, peer: &Peer) -> bool {
        peer.uid == Uid(0) || peer.uid == self.own
    }

    /// Whether the peer may do anything at all.
    #[must_use]
    pub fn any(&self, peer: &Peer) -> bool {
        self.everything(peer)
            || self.known.contains(&Principal::User(peer.uid))
            || peer.gids.iter().any(|gid| self.known.contains(&Principal::Group(*gid)))
    }

    /// Whether the peer may do this with the service.
    #[must_use]
    pub fn allowed(&self, peer: &Peer, service: &ServiceName, right: Right) -> bool {
        self.of(peer, service).contains(&right)
    }

    /// The services the peer has any right on, by name.
    pub fn visible(&self, peer: &Peer) -> impl Iterator<Item = &ServiceName> {
        self.services.keys().filter(|service| !self.of(peer, service).is_empty())
    }

    /// Decides a request: all of it or nothing. What comes back names every service it is about, each
    /// once.
    ///
    /// # Errors
    /// What to answer instead. A service the peer may not see is answered like one that is not there.
    pub fn authorize(&self, peer: &Peer, request: Request) -> Result<Allowed, ErrorAnswer> {
        Ok(match request {
            Request::Status { services } if services.is_empty() => {
                Request::Status { services: self.seen_by(peer) }
            }
            Request::Status { services } => {
                let services = self.choose(peer, &services, Right::Status)?;
                Request::Status { services }
            }
            Request::Events { services, last, follow } if services.is_empty() => {
                let services = self.seen_by(peer);
                Request::Events { services, last, follow }
            }
            Request::Events { services, last, follow } => {
                let services = self.choose(peer, &services, Right::Status)?;
                Request::Events { services, last, follow }
            }
            Request::Why { service } => {
                self.check(peer, std::slice::from_ref(&service), Right::Status)?;
                Request::Why { service }
            }
            Request::Probe { service, check } => {
                self.check(peer, std::slice::from_ref(&service), Right::Status)?;
                Request::Probe { service, check }
            }
            Request::Workers { service } => {
                self.check(peer, std::slice::from_ref(&service), Right::Status)?;
                Request::Workers { service }
            }
            Request::Kill { service, pick } => {
                self.check(peer, std::slice::from_ref(&service), Right::Restart)?;
                Request::Kill { service, pick }
            }
            Request::ReloadVerified { service, within } => {
                self.check(peer, std::slice::from_ref(&service), Right::Reload)?;
                Request::ReloadVerified { service, within }
            }
            Request::Order { order, services, wait } => {
                let services = self.choose(peer, &services, order.right())?;
                Request::Order { order, services, wait }
            }
            Request::MailTest { to } => {
                self.only_masters(peer, "send test mails")?;
                Request::MailTest { to }
            }
            Request::ReloadConfig => {
                self.only_masters(peer, "have the configuration read")?;
                Request::ReloadConfig
            }
            Request::Plan { dir } => {
                self.only_masters(peer, "have the configuration read")?;
                Request::Plan { dir }
            }
        })
    }

    /// Whether the peer may hear of a service, where it asked for these.
    #[must_use]
    pub fn may_hear(&self, peer: &Peer, asked: &[Selector], service: &ServiceName) -> bool {
        let groups = self.services.get(service).map(|of| &*of.groups).unwrap_or_default();
        let chosen = asked.is_empty() || asked.iter().any(|one| one.chooses(service, groups));
        chosen && self.allowed(peer, service, Right::Status)
    }

    /// The services the peer may look at, by name.
    fn seen_by(&self, peer: &Peer) -> Vec<ServiceName> {
        let may = |service: &&ServiceName| self.allowed(peer, service, Right::Status);
        self.services.keys().filter(may).cloned().collect()
    }

    /// The services that are meant, each once: patterns and groups choose among those the peer may see.
    fn choose(
        &self,
        peer: &Peer,
        selectors: &[Selector],
        right: Right,
    ) -> Result<Vec<ServiceName>, ErrorAnswer> {
        let visible = OnceCell::new();
        let mut chosen = Vec::new();
        for selector in selectors {
            if let Selector::Name(name) = selector {
                chosen.push(name.clone());
                continue;
            }
            let visible = visible.get_or_init(|| self.visible(peer).collect::<Vec<_>>());
            let groups = |name: &ServiceName| self.services.get(name).map(|of| &*of.groups);
            let meant =
                |name: &&&ServiceName| selector.chooses(name, groups(name).unwrap_or_default());
            let before = chosen.len();
            chosen.extend(visible.iter().filter(meant).map(|name| (*name).clone()));
            if chosen.len() == before {
                return Err(ErrorAnswer::no_service_of(selector));
            }
        }
        let mut met = BTreeSet::new();
        chosen.retain(|name| met.insert(name.clone()));
        self.check(peer, &chosen, right)?;
        Ok(chosen)
    }

    fn only_masters(&self, peer: &Peer, what: &str) -> Result<(), ErrorAnswer> {
        if self.everything(peer) {
            return Ok(());
        }
        let text = format!("only root and heeler's own user may {what}");
        Err(ErrorAnswer::new(ErrorKind::NotAllowed, text))
    }

    fn check(&self, peer: &Peer, asked: &[ServiceName], right: Right) -> Result<(), ErrorAnswer> {
        // Unseen ones first, so that no mixture of names tells which of them exist.
        for service in asked {
            if self.of(peer, service).is_empty() {
                return Err(ErrorAnswer::no_such_service(service.as_str()));
            }
        }
        for service in asked {
            let held = self.of(peer, service);
            if !held.contains(&right) {
                let may = held.iter().map(|right| right.name()).collect::<Vec<_>>().join(", ");
                let text = format!(
                    "uid {} may not {} {service}, only: {may}; \
                     more is granted by `allow` in {service}.toml",
                    peer.uid,
                    right.name()
                );
                return Err(ErrorAnswer::new(ErrorKind::NotAllowed, text));
            }
        }
        Ok(())
    }

    /// What the peer may do with a service; nothing when there is no such service.
    fn of(&self, peer: &Peer, service: &ServiceName) -> Vec<Right> {
        let Some(OfService { grants, .. }) = self.services.get(service) else {
            return Vec::new();
        };
        if self.everything(peer) {
            return Right::ALL.to_vec();
        }
        let holds = |to: &Principal| match to {
            Principal::User(uid) => *uid == peer.uid,
            Principal::Group(gid) => peer.gids.contains(gid),
        };
        let held: Vec<_> = grants.iter().filter(|(to, _)| holds(to)).collect();
        let has = |right: &Right| held.iter().any(|(_, rights)| rights.contains(right));
        Right::ALL.into_iter().filter(has).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::order::{Order, WorkerPick};

    const OWN: u32 = 500;
    const DEPLOY: u32 = 1001;
    const ANNA: u32 = 1002;
    const OPS_GROUP: u32 = 77;

    fn name(text: &str) -> ServiceName {
        ServiceName::parse(text).expect("a good name")
    }

    /// `%web` is a group, here.
    fn selector(word: &str) -> Selector {
        match word.strip_prefix('%') {
            Some(group) => Selector::Group(GroupName::parse(group).expect("a group")),
            None if word == "all" => Selector::All,
            None => Selector::parse(word).expect("a name or a pattern"),
        }
    }

    fn peer(uid: u32, gids: &[u32]) -> Peer {
        Peer { uid: Uid(uid), gids: gids.iter().copied().map(Gid).collect(), pid: Pid(1) }
    }

    /// `shop` is deploy's; anna may start it; the group ops may do all. `db` is uid 900's alone.
    fn rights() -> Rights {
        let mut rights = Rights::new(Uid(OWN));
        let grants = [
            (Principal::User(Uid(ANNA)), vec![Right::Start]),
            (Principal::Group(Gid(OPS_GROUP)), Right::ALL.to_vec()),
            (Principal::User(Uid(1234)), Vec::new()),
        ];
        let web = vec![GroupName::parse("web").expect("a group")];
        rights.add(name("shop"), web.clone(), Uid(DEPLOY), grants);
        rights.add(name("db"), web, Uid(900), []);
        rights
    }

    #[test]
    fn who_may_do_what_with_shop() {
        use Right::{Monitor, Reload, Restart, Start, Status, Stop, Unmonitor};
        let all = vec![Status, Start, Stop, Restart, Reload, Monitor, Unmonitor];
        let table: [(&str, Peer, Vec<Right>, &[&str]); 8] = [
            ("root", peer(0, &[0]), all.clone(), &["db", "shop"]),
            ("heeler's own", peer(OWN, &[]), all.clone(), &["db", "shop"]),
            ("its user", peer(DEPLOY, &[]), vec![Status, Restart, Reload], &["shop"]),
            ("granted", peer(ANNA, &[]), vec![Start], &["shop"]),
            ("by group", peer(4000, &[5, OPS_GROUP]), all.clone(), &["shop"]),
            ("both", peer(DEPLOY, &[OPS_GROUP]), all, &["shop"]),
            ("an empty grant", peer(1234, &[]), vec![], &[]),
            ("a stranger whose gid is a uid", peer(4001, &[DEPLOY, 0, OWN]), vec![], &[]),
        ];
        let rights = rights();
        for (who, peer, may, sees) in table {
            for right in Right::ALL {
                let allowed = rights.allowed(&peer, &name("shop"), right);
                assert_eq!(allowed, may.contains(&right), "{who}: {}", right.name());
                assert!(!rights.allowed(&peer, &name("nothing"), right), "{who}");
            }
            let visible: Vec<_> = rights.visible(&peer).map(ServiceName::as_str).collect();
            assert_eq!(visible, sees, "{who}");
            assert_eq!(rights.any(&peer), !sees.is_empty(), "{who}");
        }
    }

    #[test]
    fn unknown_and_unseen_are_answered_alike_and_seen_is_told_apart() {
        let rights = rights();
        let stop = |services: &[&str]| Request::Order {
            order: Order::Stop,
            services: services.iter().map(|word| selector(word)).collect(),
            wait: true,
        };
        let refused =
            |uid, request| rights.authorize(&peer(uid, &[]), request).expect_err("refused");
        let unseen = refused(DEPLOY, stop(&["db"]));
        let unknown = refused(DEPLOY, stop(&["dx"]));
        assert_eq!(unseen.text.replace("db", "dx"), unknown.text);
        assert_eq!(
            (unseen.error, unknown.error),
            (ErrorKind::NoSuchService, ErrorKind::NoSuchService)
        );
        // One that is seen, first, does not give away the unseen one.
        assert_eq!(refused(DEPLOY, stop(&["shop", "db"])), unseen);
        let seen = refused(DEPLOY, stop(&["shop"]));
        assert_eq!(seen.error, ErrorKind::NotAllowed);
        assert_eq!(
            seen.text,
            "uid 1001 may not stop shop, only: status, restart, reload; \
             more is granted by `allow` in shop.toml"
        );
        // Who may only start it may not look at it.
        let status = |services| Request::Status { services };
        let seen = |services| Ok(Allowed::Status { services });
        let shop = || vec![selector("shop")];
        assert_eq!(refused(ANNA, status(shop())).error, ErrorKind::NotAllowed);
        assert_eq!(rights.authorize(&peer(ANNA, &[]), status(vec![])), seen(vec![]));
        let kill = |service| Request::Kill { service: name(service), pick: WorkerPick::Stuck };
        let workers = |service| Request::Workers { service: name(service) };
        assert_eq!(refused(ANNA, kill("shop")).error, ErrorKind::NotAllowed);
        assert_eq!(refused(ANNA, workers("shop")).error, ErrorKind::NotAllowed);
        assert_eq!(refused(DEPLOY, kill("db")), unseen);
        assert!(rights.authorize(&peer(DEPLOY, &[]), kill("shop")).is_ok());
        assert!(rights.authorize(&peer(DEPLOY, &[]), workers("shop")).is_ok());
        let verified = |service| Request::ReloadVerified { service: name(service), within: None };
        assert_eq!(refused(ANNA, verified("shop")).error, ErrorKind::NotAllowed);
        assert_eq!(refused(DEPLOY, verified("db")), unseen);
        assert!(rights.authorize(&peer(DEPLOY, &[]), verified("shop")).is_ok());
        let test = || Request::MailTest { to: vec!["ops@example.com".to_owned()] };
        assert_eq!(refused(DEPLOY, test()).error, ErrorKind::NotAllowed);
        let to = vec!["ops@example.com".to_owned()];
        assert_eq!(rights.authorize(&peer(OWN, &[]), test()), Ok(Allowed::MailTest { to }));
        let both = vec![name("db"), name("shop")];
        assert_eq!(rights.authorize(&peer(0, &[]), status(vec![])), seen(both));
        assert_eq!(refused(0, stop(&["shop", "dx"])), unknown);
    }

    /// CTL-01: a pattern or group tells nothing of what its peer may not see.
    #[test]
    fn patterns_and_groups_choose_among_what_the_peer_may_see() {
        let rights = rights();
        let restart = |uid, words: &[&str]| {
            let services = words.iter().map(|word| selector(word)).collect();
            let request = Request::Order { order: Order::Restart, services, wait: true };
            match rights.authorize(&peer(uid, &[]), request) {
                Ok(Allowed::Order { services, .. }) => {
                    services.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
                }
                Ok(other) => panic!("{other:?}"),
                Err(refused) => refused.text,
            }
        };
        for (uid, words, meant) in [
            (0, &["*"][..], "db shop"),
            (0, &["all"], "db shop"),
            (0, &["%web"], "db shop"),
            (0, &["s*", "shop", "%web"], "shop db"),
            (DEPLOY, &["*"], "shop"),
            (DEPLOY, &["all"], "shop"),
            (DEPLOY, &["%web"], "shop"),
            (DEPLOY, &["shop", "shop"], "shop"),
            (900, &["*", "%web", "all"], "db"),
        ] {
            assert_eq!(restart(uid, words), meant, "{uid} {words:?}");
        }
        assert_eq!(restart(DEPLOY, &["d*"]).replace("d*", "x*"), restart(DEPLOY, &["x*"]));
        assert!(restart(DEPLOY, &["d*"]).starts_with("no service matches d*"));
        assert!(restart(0, &["shop", "%bew"]).starts_with("no service is in group bew"));
        // What is seen and may not be done is told apart, and nothing is done.
        assert!(restart(ANNA, &["*"]).contains("uid 1002 may not restart shop, only: start"));
    }
}
