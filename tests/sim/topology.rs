//! Which services a seed has.

use std::sync::Arc;
use std::time::Duration;

use heeler::model::action::Action;
use heeler::model::check::{Check, CheckKind};
use heeler::model::condition::Condition;
use heeler::model::ids::{CheckIndex, ServiceName};
use heeler::model::metric::Metric;
use heeler::model::process::Signal;
use heeler::model::service::{
    Backoff, Command, Life, Mode, OnBoot, Reload, Service, StartLimit, Together,
};
use heeler::model::tolerance::Tolerance;
use heeler::model::unit::{Manager, Unit, UnitMain};

use crate::prng::Rng;

/// What no service here takes for a reason to end.
pub(crate) const RELOAD_SIGNAL: Signal = Signal::Hup;
/// Above this a check of the simulation is bad.
pub(crate) const MEMORY_LIMIT_BYTES: u64 = 500 << 20;

pub(crate) fn draw(rng: &mut Rng) -> Vec<Arc<Service>> {
    let count = 1 + rng.below(6);
    let mut services: Vec<Service> = Vec::new();
    for n in 0..count {
        let mut one = service(rng, n);
        // Only on those before it: no circles.
        if rng.chance(300) && !services.is_empty() {
            let at = rng.below(services.len() as u64);
            let parent = &services[usize::try_from(at).expect("an index")];
            one.depends_on.push(parent.name.clone());
        }
        services.push(one);
    }
    services.into_iter().map(Arc::new).collect()
}

fn service(rng: &mut Rng, n: u64) -> Service {
    let name = format!("s{n}{}", rng.pick(&["a", "web", "q9", "shop", "x"]));
    let life = life(rng, &name);
    defined(rng, ServiceName::parse(&name).expect("is a name"), life)
}

fn life(rng: &mut Rng, name: &str) -> Life {
    match rng.below(6) {
        0 | 1 => Life::Pidfile(format!("/run/{name}.pid").into()),
        2 => Life::Match(name.into()),
        3 => Life::Unit(Unit {
            name: format!("{name}.service").into(),
            manager: Manager::User,
            main: UnitMain::Manager,
        }),
        _ => Life::Run(command(rng, "run")),
    }
}

/// The same service as an edited file has it. `edition` is one that its checks were never of before.
pub(crate) fn edited(rng: &mut Rng, old: &Service, edition: u64) -> Service {
    let life =
        if rng.chance(250) { other_claim(rng, &old.life, edition) } else { old.life.clone() };
    let mut new = defined(rng, old.name.clone(), life);
    new.depends_on.clone_from(&old.depends_on);
    for check in &mut new.checks {
        check.label = format!("{} of {edition}", check.label).into();
    }
    // The oracle's own model of a check knows it from its first verdict on, or has known it all the time.
    if let [check] = &mut new.checks[..] {
        check.kind = CheckKind::Http;
        if let [was] = &old.checks[..]
            && is_modelled(old)
            && was.kind == CheckKind::Http
            && rng.chance(700)
        {
            check.label = was.label.clone();
            if rng.chance(600) {
                let Check { condition, tolerance, recover, every, .. } = was.clone();
                *check = Check { condition, tolerance, recover, every, ..check.clone() };
            }
        }
    }
    new
}

/// Whether what its check makes of what it sees can be told from outside.
pub(crate) fn is_modelled(def: &Service) -> bool {
    // What is held back is judged anew when it is not any more; and after a reload by signal without a
    // start period, of which no phase tells.
    let unseen = matches!(def.reload, Some(Reload::Signal(_))) && def.start_period.is_zero();
    def.checks.len() == 1 && def.depends_on.is_empty() && !unseen
}

/// Something else that says which process is the main one.
fn other_claim(rng: &mut Rng, old: &Life, edition: u64) -> Life {
    match old {
        Life::Pidfile(_) | Life::Match(_) if rng.chance(500) => {
            Life::Pidfile(format!("/run/{edition}.pid").into())
        }
        Life::Pidfile(_) | Life::Match(_) => Life::Match(format!("edition {edition}").into()),
        Life::Unit(unit) => {
            Life::Unit(Unit { name: format!("{edition}.service").into(), ..unit.clone() })
        }
        Life::Run(_) => Life::Run(command(rng, &format!("run{edition}"))),
        Life::Nothing => Life::Nothing,
    }
}

fn defined(rng: &mut Rng, name: ServiceName, life: Life) -> Service {
    let run = matches!(life, Life::Run(_));
    let every = secs(rng, 1, 10);
    let first = secs(rng, 2, 8);
    let mut def = Service {
        name,
        user: Some("deploy".into()),
        group: None,
        groups: Vec::new(),
        start: (!run && !rng.chance(60)).then(|| command(rng, "start")),
        stop: rng.chance(350).then(|| command(rng, "stop")),
        restart: (!run && rng.chance(350)).then(|| command(rng, "restart")),
        reload: reload(rng),
        life,
        stop_signal: rng.pick(&[Signal::Term, Signal::Quit]),
        env: Vec::new(),
        env_file: None,
        cwd: None,
        every,
        alert: Vec::new(),
        allow: Vec::new(),
        mode: if rng.chance(80) { Mode::Observe } else { Mode::Active },
        start_timeout: secs(rng, 1, 15),
        stop_timeout: secs(rng, 2, 10),
        start_period: if rng.chance(250) { Duration::ZERO } else { secs(rng, 1, 20) },
        exit_delay: if rng.chance(200) { Duration::ZERO } else { secs(rng, 1, 6) },
        start_limit: StartLimit {
            starts: u32::try_from(1 + rng.below(5)).expect("small"),
            window: secs(rng, 20, 90),
        },
        backoff: Backoff { first, last: first * u32::try_from(1 + rng.below(8)).expect("small") },
        depends_on: Vec::new(),
        restart_with: if rng.chance(300) { Together::Yes } else { Together::No },
        start_delay: if rng.chance(150) { secs(rng, 1, 20) } else { Duration::ZERO },
        on_boot: rng.pick(&[OnBoot::Start, OnBoot::Last, OnBoot::Last]),
        remind: secs(rng, 60, 900),
        workers: None,
        puma: None,
        checks: (0..rng.pick(&[0, 1, 1, 1, 2])).map(|at| check(rng, at, every)).collect(),
    };
    if !def.startable() {
        // Refused when it is loaded.
        def.checks.retain(|check| !check.then.iter().any(Action::repeats));
        for (at, check) in (0..).zip(&mut def.checks) {
            check.index = CheckIndex(at);
        }
    }
    def
}

fn reload(rng: &mut Rng) -> Option<Reload> {
    match rng.below(4) {
        0 => Some(Reload::Command(command(rng, "reload"))),
        1 => Some(Reload::Signal(RELOAD_SIGNAL)),
        _ => None,
    }
}

fn check(rng: &mut Rng, at: u16, every: Duration) -> Check {
    let then = match rng.below(10) {
        0 => vec![Action::Alert],
        1..=3 => vec![Action::Restart],
        4 => vec![Action::Alert, Action::Restart],
        5 => vec![Action::Stop],
        6 => vec![Action::Unmonitor],
        7 => vec![Action::Start],
        8 => vec![Action::Reload],
        _ => vec![Action::Exec(command(rng, "exec"))],
    };
    Check {
        index: CheckIndex(at),
        label: format!("memory{at}").into(),
        // Judged alike; asked for in another way.
        kind: if rng.chance(400) { CheckKind::Http } else { CheckKind::Process },
        condition: Condition::parse("memory > 500MiB", &[Metric::Memory]).expect("is one"),
        tolerance: tolerance(rng, every),
        recover: if rng.chance(700) { Tolerance::ONCE } else { tolerance(rng, every) },
        then,
        on_recovery: if rng.chance(200) { vec![Action::Alert] } else { Vec::new() },
        every,
        timeout: secs(rng, 1, 10),
        repeat: rng.chance(250).then(|| secs(rng, 10, 60)),
    }
}

fn tolerance(rng: &mut Rng, every: Duration) -> Tolerance {
    if rng.chance(250) {
        return Tolerance::Lasting(every * u32::try_from(1 + rng.below(3)).expect("small"));
    }
    let m = 1 + rng.below(5);
    let n = 1 + rng.below(m);
    Tolerance::Times { n: u8::try_from(n).expect("small"), m: u8::try_from(m).expect("small") }
}

fn command(rng: &mut Rng, word: &str) -> Command {
    Command {
        argv: vec![format!("/bin/{word}").into()],
        timeout: rng.chance(300).then(|| secs(rng, 1, 12)),
        env: Vec::new(),
        cwd: None,
        systemctl: None,
    }
}

fn secs(rng: &mut Rng, min: u64, max: u64) -> Duration {
    Duration::from_secs(min + rng.below(max - min + 1))
}
