//! The configuration: every mistake and the message that comes back for it.
//!
//! `good/*.toml` and `bad/*.toml` are read as a service of their name (`settings-*.toml` as
//! heeler.toml; a first line `# user mode` reads them without root). What comes out stands beside
//! them in
//! `.expected`; `HEELER_BLESS=1 cargo test --test config` writes it anew.

#[path = "../support/mod.rs"]
mod support;

mod directory;
mod examples;
mod mutations;

use std::path::{Path, PathBuf};
use std::time::Duration;

use heeler::config::error::{Diagnostic, render};
use heeler::config::settings::Settings;
use heeler::config::{Definition, LoadAs, parse_service, parse_settings};
use heeler::model::action::Action;
use heeler::model::check::{Check, CheckKind};
use heeler::model::ids::ServiceName;
use heeler::model::process::Uid;
use heeler::model::service::{Command, Life, OnBoot, Reload};
use heeler::model::unit::Unit;
use heeler::model::units::show_duration;

#[test]
fn good_files_say_what_they_say() {
    compare("good");
}

/// Among them CFG-03 (wrong TOML, keys, types and numbers), CFG-08 (regular expressions), CFG-12
/// (heeler managing itself); the file's name has the case's number.
#[test]
fn bad_files_get_their_message() {
    compare("bad");
}

#[test]
fn cfg_08_a_regular_expression_cannot_hang_or_fill_the_loader() {
    let bombs = [
        "(x{1000}){1000}",
        "((((a*)*)*)*)*{9999}",
        "\\\\p{L}{5000}",
        &"(".repeat(4000),
        &"x".repeat(9000),
    ];
    for pattern in bombs {
        let start = std::time::Instant::now();
        let (good, shown) = outcome("x", &format!("match = \"{pattern}\"\n"));
        assert!(!good && shown.contains("x.toml:1:9"), "{shown}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[test]
fn cfg_12_heeler_cannot_be_told_to_manage_itself() {
    let itself = [
        "match = \"heeler\"",
        "match = \"run\"",
        "match = \"\"",
        "match = \"^/usr/bin\"",
        "pidfile = \"/run/heeler/svc/x.pid\"",
        "pidfile = \"/var/lib/heeler/x.pid\"",
        "pidfile = \"/var/run/heeler.pid\"",
        "run = \"heeler run\"",
        "run = [\"/opt/heeler\", \"run\", \"/etc/heeler\"]",
    ];
    for line in itself {
        assert!(!outcome("x", line).0, "{line}");
    }
    for line in ["match = \"^puma\"", "pidfile = \"/run/heelers.pid\"", "run = \"runner heeler\""] {
        assert!(outcome("x", line).0, "{line}");
    }
}

#[test]
fn without_root_everything_is_below_the_users_own_directories() {
    let env = |name: &str| match name {
        "HOME" => Some("/home/me".into()),
        "XDG_STATE_HOME" => Some("relative/ignored".into()),
        "XDG_RUNTIME_DIR" => Some("/run/user/1000".into()),
        _ => None,
    };
    let settings = |uid| Settings::of(&LoadAs::new(Uid(uid), None, env));
    let own = settings(1000);
    assert_eq!(own.state_dir, Path::new("/home/me/.local/state/heeler"));
    assert_eq!(own.socket, Path::new("/run/user/1000/heeler/control.sock"));
    let system = settings(0);
    assert_eq!(system.state_dir, Path::new("/var/lib/heeler"));
    assert_eq!(system.socket, Path::new("/run/heeler/control.sock"));
}

/// Root, in a directory that does not matter.
fn root() -> LoadAs {
    LoadAs::new(Uid(0), Some("root".into()), |_| None)
}

fn files(kind: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(kind);
    let entries = std::fs::read_dir(dir).expect("the examples are there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "toml"));
    files.sort();
    files
}

fn compare(kind: &str) {
    let mut wrong = Vec::new();
    let files = files(kind);
    assert!(!files.is_empty(), "no examples in {kind}");
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let stem = path.file_stem().expect("has a name").to_string_lossy().into_owned();
        let (good, shown) = outcome(&stem, &text);
        let expected = path.with_extension("expected");
        if std::env::var_os("HEELER_BLESS").is_some() {
            std::fs::write(&expected, &shown).expect("writable");
        }
        let before = std::fs::read_to_string(&expected).unwrap_or_default();
        if shown != before || good != (kind == "good") {
            wrong.push(format!("{}\nexpected:\n{before}\ngot:\n{shown}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
}

/// Whether a definition is good, and what people see of it.
fn outcome(stem: &str, text: &str) -> (bool, String) {
    let user_mode = LoadAs::new(Uid(1000), Some("me".into()), |name| {
        (name == "HOME").then(|| "/home/me".into())
    });
    let who = if text.starts_with("# user mode") { user_mode } else { root() };
    if stem.starts_with("settings-") {
        return match parse_settings("heeler.toml", text, &who) {
            Ok((settings, warnings)) => (true, format!("{}{settings:#?}\n", render(&warnings))),
            Err(found) => (false, render(&found)),
        };
    }
    let name = ServiceName::parse(stem).expect("a service's name");
    match parse_service(&name, &format!("{stem}.toml"), text, &Settings::of(&who), &who) {
        Ok((definition, warnings)) => (true, summary(&definition, &warnings)),
        Err(found) => (false, render(&found)),
    }
}

fn summary(definition: &Definition, warnings: &[Diagnostic]) -> String {
    let Definition { service, probes, .. } = definition;
    let argv = |command: &Command| {
        let Command { argv, timeout, env, cwd, systemctl } = command;
        if let Some(call) = systemctl {
            return call.to_string();
        }
        let mut out = format!("{argv:?}");
        out.extend(timeout.map(|timeout| format!(" timeout {}", show_duration(timeout))));
        out.extend((!env.is_empty()).then(|| format!(" env {env:?}")));
        out.extend(cwd.as_ref().map(|cwd| format!(" cwd {cwd:?}")));
        out
    };
    let life = match &service.life {
        Life::Pidfile(path) => format!("pidfile {}", path.display()),
        Life::Match(pattern) => format!("match {pattern}"),
        Life::Run(command) => format!("run {}", argv(command)),
        Life::Unit(Unit { name, manager, main }) => {
            format!("unit {name} of the manager {manager:?}, main process by {main:?}")
        }
        Life::Nothing => "no process".to_owned(),
    };
    let mut out = vec![life, format!("user {:?}, group {:?}", service.user, service.group)];
    if !service.groups.is_empty() {
        out.push(format!("groups {:?}", service.groups));
    }
    for (key, command) in
        [("start", &service.start), ("stop", &service.stop), ("restart", &service.restart)]
    {
        out.extend(command.as_ref().map(|command| format!("{key} {}", argv(command))));
    }
    out.extend(service.reload.as_ref().map(|reload| match reload {
        Reload::Command(command) => format!("reload {}", argv(command)),
        Reload::Signal(signal) => format!("reload by SIG{}", signal.name()),
    }));
    out.push(format!("stop_signal {}, mode {:?}", service.stop_signal.name(), service.mode));
    out.push(format!(
        "env {:?}, env_file {:?}, cwd {:?}",
        service.env, service.env_file, service.cwd
    ));
    out.push(format!("alert {:?}", service.alert));
    out.extend(
        service.allow.iter().map(|grant| format!("allow {:?} {:?}", grant.to, grant.rights)),
    );
    out.push(format!(
        "every {:?}, start {:?}, stop {:?}, period {:?}, delay {:?}, remind {:?}",
        service.every,
        service.start_timeout,
        service.stop_timeout,
        service.start_period,
        service.exit_delay,
        service.remind
    ));
    out.push(format!("start_limit {}, {:?}", service.start_limit, service.backoff));
    if !service.depends_on.is_empty() {
        let (parents, together) = (&service.depends_on, service.restart_with);
        out.push(format!("depends_on {parents:?}, restart_with {together:?}"));
    }
    if (service.start_delay, service.on_boot) != (Duration::ZERO, OnBoot::Last) {
        out.push(format!("start_delay {:?}, on_boot {:?}", service.start_delay, service.on_boot));
    }
    out.extend(service.workers.as_ref().map(|workers| format!("{workers:?}")));
    out.extend(service.puma.as_ref().map(|puma| format!("{puma:?}")));
    for (check, probe) in service.checks.iter().zip(probes) {
        out.push(told(check));
        if !matches!(check.kind, CheckKind::Process | CheckKind::Worker | CheckKind::Puma) {
            out.push(format!("    timeout {:?}: {probe:?}", check.timeout));
        }
    }
    out.join("\n") + "\n" + &render(warnings)
}

fn told(check: &Check) -> String {
    let actions = |actions: &[Action]| actions.iter().map(ToString::to_string).collect::<Vec<_>>();
    let Check {
        index,
        label,
        kind: _,
        condition,
        tolerance,
        recover,
        then,
        on_recovery,
        every,
        timeout: _,
        repeat,
    } = check;
    let (index, then, otherwise) = (index.0, actions(then), actions(on_recovery));
    format!(
        "check {index}: {label:?} if {condition}, {tolerance}, recover {recover}, \
         then {then:?}, else {otherwise:?}, every {every:?}, repeat {repeat:?}"
    )
}
