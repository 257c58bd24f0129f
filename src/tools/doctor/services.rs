//! The services: their users, managers, units, pidfiles and commands, each looked at as the user it is
//! about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use crate::checks::Probe;
use crate::config::Definition;
use crate::model::action::Action;
use crate::model::finding::Finding;
use crate::model::limits;
use crate::model::service::{Command, Life, Reload, Service};
use crate::model::unit::{self, Manager, Standing, Unit, UnitFacts, UnitMain};
use crate::shim::AsUser;
use crate::sys::environment::needs_user_manager;
use crate::sys::identity::{self, Found, Owner};
use crate::sys::user;
use crate::tools::doctor::errand::{Errands, Whose};

/// Looks at every service.
pub(super) fn examine(all: &[&Definition], errands: &mut Errands) -> Vec<Finding> {
    let mut of: BTreeMap<Whose, Vec<&Definition>> = BTreeMap::new();
    for definition in all {
        let Service { user, group, env_file, env, .. } = &definition.service;
        let whose = Whose {
            user: user.clone(),
            group: group.clone(),
            env_file: env_file.clone(),
            env: env.clone(),
        };
        of.entry(whose).or_default().push(definition);
    }
    let mut findings = Vec::new();
    let mut users = BTreeSet::new();
    for (whose, theirs) in &of {
        match errands.ask(Some(whose), &|me| as_user(me, theirs)) {
            Ok(found) => {
                // Once for each user, however many groups of services it has.
                let new = |finding: &Finding| {
                    theirs.iter().any(|one| one.service.name.as_str() == finding.about)
                        || users.insert((finding.about.clone(), finding.text.clone()))
                };
                findings.extend(found.into_iter().filter(new));
            }
            Err(why) => {
                let user = whose.user.as_deref().unwrap_or("heeler's own user");
                let text = format!("nothing can be done as {user}: {why}");
                let names: Vec<_> = theirs.iter().map(|one| one.service.name.as_str()).collect();
                let todo = format!("it is the user of {}", few(&names));
                findings.push(Finding::error(&format!("user {user}"), text, todo));
            }
        }
    }
    for definition in all {
        findings.extend(pidfile(&definition.service, errands));
        if let Life::Unit(unit) = &definition.service.life {
            findings.push(unit_of(&definition.service, unit, errands));
        }
    }
    // The commands of one service stand together with the rest of it.
    findings.sort_by_key(|finding| {
        all.iter().position(|one| one.service.name.as_str() == finding.about).map_or(0, |at| at + 1)
    });
    findings
}

/// In a child that is the user.
fn as_user(me: &AsUser<'_>, theirs: &[&Definition]) -> Vec<Finding> {
    let name = &me.account().name;
    let about = format!("user {name}");
    let mut findings = vec![Finding::ok(&about, format!("uid {}", me.account().uid))];
    let needs_manager = |one: &&&Definition| {
        let by_unit =
            matches!(&one.service.life, Life::Unit(unit) if unit.manager == Manager::User);
        by_unit || commands(one).iter().any(|(_, command)| needs_user_manager(&command.argv))
    };
    let of_manager: Vec<_> =
        theirs.iter().filter(needs_manager).map(|one| one.service.name.as_str()).collect();
    if !of_manager.is_empty() {
        findings.extend(manager(me, &about, &few(&of_manager)));
    }
    findings.extend(theirs.iter().map(|one| commands_of(me, one)));
    for one in theirs {
        findings.extend(writable_pidfile(me, &one.service));
    }
    findings
}

fn manager(me: &AsUser<'_>, about: &str, services: &str) -> Vec<Finding> {
    let name = &me.account().name;
    let linger = format!("`loginctl enable-linger {name}` starts its user manager at boot");
    let mut findings = Vec::new();
    match me.lacks_manager() {
        Some(why) => {
            let text = format!(
                "no user manager, which {services} needs: {}",
                why.trim_start_matches("heeler: ")
            );
            findings.push(Finding::error(about, text, &linger));
        }
        None => findings.push(Finding::ok(about, "its user manager runs")),
    }
    if !Path::new("/var/lib/systemd/linger").join(name).exists() {
        let text = "lingering is off: its user manager, and all its units, end when it logs out";
        findings.push(Finding::warning(about, text, linger));
    }
    findings
}

/// Every command that heeler may run for a service, with its key.
fn commands(one: &Definition) -> Vec<(String, &Command)> {
    let service = &one.service;
    let mut all = Vec::new();
    let keys = [("start", &service.start), ("stop", &service.stop), ("restart", &service.restart)];
    all.extend(
        keys.iter().filter_map(|(key, command)| Some(((*key).to_owned(), command.as_ref()?))),
    );
    if let Some(Reload::Command(command)) = &service.reload {
        all.push(("reload".to_owned(), command));
    }
    if let Life::Run(command) = &service.life {
        all.push(("run".to_owned(), command));
    }
    for (check, probe) in service.checks.iter().zip(&one.probes) {
        if let Probe::Command(settings) = probe {
            all.push((format!("check {}", check.label), &settings.command));
        }
        for action in check.then.iter().chain(&check.on_recovery) {
            if let Action::Exec(command) = action {
                all.push((format!("exec of {}", check.label), command));
            }
        }
    }
    all
}

/// Whether the user can execute them, from where they would run.
fn commands_of(me: &AsUser<'_>, one: &Definition) -> Finding {
    let about = one.service.name.as_str();
    let all = commands(one);
    let mut wrong = Vec::new();
    for (key, command) in &all {
        let cwd = command.cwd.as_ref().or(one.service.cwd.as_ref());
        if let Some(why) = cwd.and_then(|cwd| me.kept_out_of(cwd)) {
            wrong.push(format!("{key}: {why}"));
        } else if let Err(why) = me.program_of(command) {
            wrong.push(format!("{key}: {why}"));
        }
    }
    let name = &me.account().name;
    match (wrong.is_empty(), all.len()) {
        (true, 0) => Finding::ok(about, "it has no commands"),
        (true, 1) => Finding::ok(about, format!("{name} can execute its command")),
        (true, count) => Finding::ok(about, format!("{name} can execute its {count} commands")),
        (false, _) => {
            let todo = format!("try it as heeler would: `heeler run-as {name} -- CMD`");
            Finding::error(about, wrong.join("; "), todo)
        }
    }
}

fn pidfile_path(service: &Service) -> Option<&Path> {
    match &service.life {
        Life::Pidfile(path) => Some(path),
        Life::Unit(Unit { main: UnitMain::Pidfile(path), .. }) => Some(path),
        Life::Unit(Unit { main: UnitMain::Manager | UnitMain::Match(_), .. })
        | Life::Match(_)
        | Life::Run(_)
        | Life::Nothing => None,
    }
}

/// A pidfile that is not there has to be made by somebody.
fn writable_pidfile(me: &AsUser<'_>, service: &Service) -> Option<Finding> {
    let path = pidfile_path(service)?;
    let dir = path.parent()?;
    let about = service.name.as_str();
    let name = &me.account().name;
    if path.symlink_metadata().is_ok() || access(dir, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
    {
        return None;
    }
    if let Some(why) = me.kept_out_of(dir) {
        return Some(Finding::error(
            about,
            format!("its pidfile's directory: {why}"),
            "make it, or correct `pidfile`",
        ));
    }
    let text =
        format!("there is no {} yet, and {name} cannot write in {}", path.display(), dir.display());
    Some(Finding::warning(
        about,
        text,
        "fine where a daemon writes it as root before it becomes its user",
    ))
}

/// What the daemon would make of the pidfile.
fn pidfile(service: &Service, errands: &mut Errands) -> Option<Finding> {
    let path = pidfile_path(service)?;
    let about = service.name.as_str();
    let shown = path.display();
    let found = errands.ask(None, &|_| {
        let Ok(account) = user::find(service.user.as_deref(), None) else { return Vec::new() };
        let owner = Owner::of(account.uid);
        vec![match identity::identify_pidfile(path, &owner) {
            Found::One(proved, _) => {
                Finding::ok(about, format!("{shown} names pid {}", proved.identity()))
            }
            Found::None(_, note) => {
                let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
                Finding::ok(about, format!("{shown} names no living process{note}"))
            }
            Found::Refused(why) => {
                let todo = "heeler will not touch what it names until that is so";
                Finding::error(about, format!("{shown}: {why}"), todo)
            }
            Found::Unknown(why) => Finding::error(about, format!("{shown}: {why}"), ""),
        }]
    });
    match found {
        Ok(mut found) => found.pop(),
        Err(why) => Some(Finding::error(about, format!("{shown}: {why}"), "")),
    }
}

/// What its manager says of a unit.
fn unit_of(service: &Service, unit: &Unit, errands: &mut Errands) -> Finding {
    let about = service.name.as_str();
    let user = match unit.manager {
        Manager::User => service.user.clone(),
        Manager::System => None,
    };
    let key: Box<str> = match unit.manager {
        Manager::User => user.clone().unwrap_or_default(),
        Manager::System => "(system)".into(),
    };
    let name = &unit.name;
    if errands.hanging.contains(&key) {
        return Finding::error(about, format!("{name}: its manager does not answer"), "");
    }
    let whose = Whose { user, ..Whose::default() };
    let argv = unit::show(unit.manager, name);
    let said = errands.run(Some(&whose), &argv, limits::UNIT_LOOK_TIMEOUT);
    let todo = match unit.manager {
        Manager::User => format!("`heeler run-as {} -- systemctl --user status {name}`", key),
        Manager::System => format!("`systemctl status {name}`"),
    };
    let said = match said {
        Ok(said) => said,
        Err(why) => {
            errands.hanging.insert(key);
            return Finding::error(about, format!("{name}: systemctl {why}"), todo);
        }
    };
    match UnitFacts::parse(name, &said).map(|facts| facts.standing) {
        Ok(Standing::Unusable(why)) | Err(why) => Finding::error(about, why, todo),
        Ok(Standing::Up(pid)) => Finding::ok(about, format!("{name} is up, pid {pid}")),
        Ok(Standing::Coming | Standing::Going) => Finding::ok(about, format!("{name} is there")),
        Ok(Standing::Down(end)) => Finding::ok(about, format!("{name} is there, and down: {end}")),
    }
}

/// Some names for a sentence.
fn few(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
