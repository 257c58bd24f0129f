//! The service of the stories, its rules and processes.

use std::path::PathBuf;
use std::time::Duration;

use heeler::model::action::Action;
use heeler::model::check::{Check, CheckKind};
use heeler::model::condition::Condition;
use heeler::model::ids::{CheckIndex, ServiceName};
use heeler::model::metric::Metric;
use heeler::model::process::{Holding, Ours, Pid, ProcessIdentity, Signal, Survivor};
use heeler::model::puma::{Control, Puma, Rollback};
use heeler::model::service::{
    Backoff, Command, Life, Mode, OnBoot, Reload, Service, StartLimit, Together,
};
use heeler::model::text::Untrusted;
use heeler::model::tolerance::Tolerance;
use heeler::model::unit::{Manager, Systemctl, Unit, UnitMain, Verb};
use heeler::model::units::parse_duration;

/// The service of most stories: a pidfile, a start command, the defaults of DESIGN section 4. Its name
/// is one whose looks fall on round seconds.
pub(crate) fn cart() -> Service {
    Service {
        name: ServiceName::parse("cart").unwrap(),
        user: Some("deploy".into()),
        group: None,
        groups: Vec::new(),
        life: Life::Pidfile(PathBuf::from("/srv/cart/cart.pid")),
        start: Some(command("bin/start")),
        stop: None,
        restart: None,
        reload: None,
        stop_signal: Signal::Term,
        env: Vec::new(),
        env_file: None,
        cwd: None,
        every: span("10s"),
        alert: vec!["ops@example.com".into()],
        allow: Vec::new(),
        mode: Mode::Active,
        start_timeout: span("30s"),
        stop_timeout: span("30s"),
        start_period: span("60s"),
        exit_delay: span("5s"),
        start_limit: StartLimit { starts: 5, window: span("10m") },
        backoff: Backoff { first: span("30s"), last: span("30m") },
        depends_on: Vec::new(),
        restart_with: Together::No,
        start_delay: Duration::ZERO,
        on_boot: OnBoot::Last,
        remind: span("4h"),
        workers: None,
        puma: None,
        checks: Vec::new(),
    }
}

/// What makes it a Puma.
pub(crate) fn a_puma() -> Puma {
    Puma {
        control: Control::State(PathBuf::from("/srv/cart/puma.state")),
        current: Some(PathBuf::from("/srv/current")),
        workers: Some(2),
        rollback: Some(Rollback::Symlink),
        release: None,
    }
}

/// `cart`, changed.
pub(crate) fn cart_with(change: impl FnOnce(&mut Service)) -> Service {
    let mut service = cart();
    change(&mut service);
    service
}

/// `cart` as a foreground program kept by a shim.
pub(crate) fn foreground() -> Service {
    cart_with(|service| {
        service.life = Life::Run(command("bin/serve"));
        service.start = None;
    })
}

/// `cart` as a unit of the user's manager.
pub(crate) fn unit() -> Service {
    let call = |verb| {
        let unit = "cart.service".into();
        Command::systemctl(Systemctl { manager: Manager::User, verb, unit })
    };
    cart_with(|service| {
        service.life = Life::Unit(Unit {
            name: "cart.service".into(),
            manager: Manager::User,
            main: UnitMain::Manager,
        });
        service.start = Some(call(Verb::Start));
        service.stop = Some(call(Verb::Stop));
        service.reload = Some(Reload::Command(call(Verb::ReloadOrRestart)));
    })
}

pub(crate) fn command(line: &str) -> Command {
    Command {
        argv: line.split(' ').map(Into::into).collect(),
        timeout: None,
        env: Vec::new(),
        cwd: None,
        systemctl: None,
    }
}

/// A check of the main process: `if`, `for`, `then`.
pub(crate) fn rule(condition: &str, tolerance: &str, then: Action) -> Check {
    const METRICS: [Metric; 3] = [Metric::Memory, Metric::Cpu, Metric::Threads];
    Check {
        index: CheckIndex(0),
        label: condition.into(),
        kind: CheckKind::Process,
        condition: Condition::parse(condition, &METRICS).unwrap(),
        tolerance: Tolerance::parse(tolerance).unwrap(),
        recover: Tolerance::ONCE,
        then: vec![then],
        on_recovery: Vec::new(),
        every: span("10s"),
        timeout: span("5s"),
        repeat: None,
    }
}

/// A check of something else than the process.
pub(crate) fn probe(condition: &str, tolerance: &str, then: Action) -> Check {
    const METRICS: [Metric; 2] = [Metric::ResponseTime, Metric::Matches];
    Check {
        kind: CheckKind::Http,
        label: condition.into(),
        condition: Condition::parse(condition, &METRICS).unwrap(),
        ..rule("memory > 1GiB", tolerance, then)
    }
}

/// A service that is only its checks.
pub(crate) fn page(checks: Vec<Check>) -> Service {
    cart_with(|service| {
        service.life = Life::Nothing;
        service.start = None;
        service.checks = checks;
    })
}

pub(crate) fn span(text: &str) -> Duration {
    parse_duration(text).unwrap()
}

pub(crate) fn identity(pid: i32) -> ProcessIdentity {
    ProcessIdentity { pid: Pid(pid), started_ticks: u64::try_from(pid).unwrap() * 7 }
}

/// A process that outlives the main one: ours, holding nothing.
pub(crate) fn survivor(pid: i32) -> Survivor {
    Survivor {
        identity: identity(pid),
        title: Untrusted::from("cart: worker 0"),
        holds: Holding::Nothing,
        ours: Ours::Proved,
    }
}

/// The same, holding the listening socket.
pub(crate) fn listener(pid: i32) -> Survivor {
    Survivor { holds: Holding::ListeningSocket, ..survivor(pid) }
}
