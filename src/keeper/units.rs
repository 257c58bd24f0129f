//! Units: their manager is asked by a short job, as its owner, how one stands; what it says is believed
//! only as far as /proc confirms it.

use std::path::Path;
use std::time::Duration;

use crate::keeper::Keeper;
use crate::keeper::identify::Came;
use crate::model::ids::{ActionId, AskId, ServiceName};
use crate::model::job::{AtDeadline, Ended, Job, JobKind, Outcome};
use crate::model::limits;
use crate::model::process::{Absence, Exit, Uid};
use crate::model::service::{Command, Life};
use crate::model::text::Untrusted;
use crate::model::unit::{self, Manager, Standing, Unit, UnitFacts, UnitMain};
use crate::model::units::show_duration;
use crate::sys::identity::{self, Found, Owner};
use crate::sys::{cgroup, clock};

impl Keeper {
    /// Has the manager of a unit asked. One look at a time for each service, few for each manager: one
    /// that hangs holds up its own units only.
    pub(super) fn look_at_unit(&mut self, service: ServiceName, ask: AskId) {
        // Nobody waits for an earlier question any more.
        self.units_waiting.retain(|(other, _)| *other != service);
        self.units_waiting.push_back((service, ask));
        self.run_unit_looks();
    }

    pub(super) fn run_unit_looks(&mut self) {
        for (service, ask) in std::mem::take(&mut self.units_waiting) {
            if self.has_room_for_look(&service) {
                self.run_unit_look(service, ask);
            } else {
                self.units_waiting.push_back((service, ask));
            }
        }
    }

    fn has_room_for_look(&self, service: &ServiceName) -> bool {
        let whose = |name: &ServiceName| self.services.get(name).and_then(|it| manager_of(it));
        let looks = || self.running.iter().filter(|job| job.kind == JobKind::Look);
        let of_manager = looks().filter(|job| whose(&job.service) == whose(service)).count();
        looks().count() < limits::UNIT_LOOKS_MAX
            && of_manager < limits::UNIT_LOOKS_PER_USER_MAX
            && looks().all(|job| job.service != *service)
    }

    fn run_unit_look(&mut self, service: ServiceName, ask: AskId) {
        let Some(served) = self.services.get(&service) else { return };
        let Life::Unit(unit) = &served.def.life else { return };
        let command = Command {
            argv: unit::show(unit.manager, &unit.name),
            timeout: None,
            env: Vec::new(),
            cwd: Some("/".into()),
            systemctl: None,
        };
        let user = match unit.manager {
            Manager::User => served.def.user.clone(),
            Manager::System => None,
        };
        let job = Job {
            action: ActionId(ask.0),
            service,
            kind: JobKind::Look,
            user,
            group: None,
            env: Vec::new(),
            env_file: None,
            cwd: None,
            deadline: self.now().mono + limits::UNIT_LOOK_TIMEOUT,
            reason: "look".to_owned(),
            main: None,
            at_deadline: AtDeadline::Group,
            input: None,
            command,
        };
        self.run(job);
    }

    /// The manager has answered, or has not.
    pub(super) fn unit_looked(
        &mut self,
        service: ServiceName,
        action: ActionId,
        outcome: &Outcome,
    ) {
        self.run_unit_looks();
        let ask = AskId(action.0);
        let Some(served) = self.services.get(&service) else { return };
        let Life::Unit(unit) = served.def.life.clone() else { return };
        let Some(owner) = self.owner(&service) else { return };
        let who = match unit.manager {
            Manager::User => format!("the user manager of {}", self.user_of(&service)),
            Manager::System => "systemd".to_owned(),
        };
        let why = match &outcome.ended {
            Ended::Exited(Exit::Code(0)) => {
                match UnitFacts::parse(&unit.name, outcome.output.head.raw()) {
                    Ok(facts) => return self.unit_stands(service, ask, &unit, owner, facts),
                    Err(why) => why,
                }
            }
            Ended::TimedOut => {
                let patience = show_duration(limits::UNIT_LOOK_TIMEOUT);
                let uid = owner.user;
                let unit = match unit.manager {
                    Manager::User => format!("user@{uid}"),
                    Manager::System => unit.name.to_string(),
                };
                format!(
                    "{who} does not answer within {patience}: is it stopped, or does it hang? \
                     `systemctl status {unit}`"
                )
            }
            Ended::Exited(_) if unit.manager == Manager::User && is_away(outcome) => {
                return self.manager_is_away(service, ask, owner.user);
            }
            Ended::Exited(_) | Ended::Lost | Ended::NotExecuted { .. } => {
                let last = outcome.output.last_line().unwrap_or_default();
                format!("{who} could not be asked: systemctl {}: {last}", outcome.ended)
            }
        };
        self.identified(service, ask, Found::Unknown(Untrusted::from(why.as_str())));
    }

    /// What the manager said, against what /proc says.
    fn unit_stands(
        &mut self,
        service: ServiceName,
        ask: AskId,
        unit: &Unit,
        mut owner: Owner,
        facts: UnitFacts,
    ) {
        let Some(served) = self.services.get_mut(&service) else { return };
        let main = match facts.standing {
            Standing::Up(main) => main,
            Standing::Coming => return self.identified(service, ask, none(Absence::Coming)),
            Standing::Going => return self.identified(service, ask, none(Absence::Going)),
            Standing::Down(end) => {
                return self.identified(service, ask, none(Absence::Inactive(end)));
            }
            Standing::Unusable(why) => {
                let found = Found::Unknown(Untrusted::from(why.as_str()));
                return self.identified(service, ask, found);
            }
        };
        let named = facts.cgroup.as_deref();
        owner.cgroup = named.and_then(|named| cgroup::of_unit(unit.manager, owner.user, named));
        served.unit.cgroup.clone_from(&owner.cgroup);
        let before = served.unit.restarts.replace(facts.restarts);
        let came = match before {
            Some(before) if facts.restarts <= before => Came::InOrder,
            Some(_) | None => Came::Somehow,
        };
        let manager = unit.manager;
        match unit.main.clone() {
            UnitMain::Manager => {
                let found = identity::identify_managed(manager, main, &owner);
                self.identified_as(service, ask, found, came);
            }
            UnitMain::Pidfile(path) => self.look_in_pool(service, ask, came, move || {
                identity::identify_managed_by_pidfile(&path, &owner)
            }),
            UnitMain::Match(pattern) => self.look_in_pool(service, ask, came, move || {
                identity::identify_managed_by_match(manager, &pattern, &owner)
            }),
        }
    }

    /// There is no user manager. Where lingering is on there is to be one: root may start it.
    fn manager_is_away(&mut self, service: ServiceName, ask: AskId, uid: Uid) {
        let user = self.user_of(&service);
        let since_boot = Duration::from_millis(clock::boottime_ms());
        let root = self.load_as.uid == Uid(0);
        self.look_in_pool(service, ask, Came::Somehow, move || {
            let lingers = Path::new(LINGER).join(&user).exists();
            match (lingers, root) {
                (true, _) if since_boot < limits::MANAGER_PATIENCE => none(Absence::ManagerComing),
                (true, true) => none(Absence::NoManager(uid)),
                (true, false) => Found::Unknown(Untrusted::from(
                    format!(
                        "{user} has no running user manager, though lingering is on: \
                         `systemctl restart user@{uid}` as root starts it"
                    )
                    .as_str(),
                )),
                (false, _) => Found::Unknown(Untrusted::from(
                    format!(
                        "{user} has no running user manager, and lingering is off: it ends with \
                         the last session of {user}; `loginctl enable-linger {user}` makes it, \
                         now and at every boot"
                    )
                    .as_str(),
                )),
            }
        });
    }

    /// The name of the service's user, for people and for paths.
    fn user_of(&self, service: &ServiceName) -> String {
        let served = self.services.get(service);
        let named = served.and_then(|served| served.def.user.as_deref());
        named.or(self.load_as.user.as_deref()).unwrap_or("root").to_owned()
    }
}

/// Where systemd-logind remembers who lingers (loginctl(1), enable-linger).
const LINGER: &str = "/var/lib/systemd/linger";

/// Which manager has a service's unit: the machine's, or that of a user.
fn manager_of(served: &super::served::Served) -> Option<Option<Uid>> {
    match &served.def.life {
        Life::Unit(Unit { manager: Manager::User, .. }) => Some(served.owner),
        Life::Unit(Unit { manager: Manager::System, .. }) => Some(None),
        Life::Pidfile(_) | Life::Match(_) | Life::Run(_) | Life::Nothing => None,
    }
}

/// Whether systemctl could not talk to a manager; its words for that are those of sd-bus, and the last are
/// the shim's own.
fn is_away(outcome: &Outcome) -> bool {
    let said = outcome.output.head.raw();
    ["Failed to connect to bus", "Transport endpoint is not connected", "no running user manager"]
        .iter()
        .any(|words| said.contains(words))
}

fn none(absence: Absence) -> Found {
    Found::None(absence, None)
}
