//! Which services have workers, and what is said of these.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use heeler::model::action::Action;
use heeler::model::check::{Check, CheckKind};
use heeler::model::condition::Condition;
use heeler::model::ids::CheckIndex;
use heeler::model::metric::Metric;
use heeler::model::puma::{Control, Puma, Rollback};
use heeler::model::service::{Command, Service};
use heeler::model::tolerance::Tolerance;
use heeler::model::workers::{Budget, Fragile, Kill, Workers};

use crate::crew::{Crews, Master};
use crate::prng::Rng;

/// Gives some of the services workers.
pub(crate) fn draw(seed: u64, defs: &mut [Arc<Service>]) -> Crews {
    let mut rng = Rng::new(seed ^ 0x7c3a_91e5_0f6b_d284);
    let mut masters = BTreeMap::new();
    // They cost much time; a long run has many.
    if rng.chance(250) {
        for (svc, def) in defs.iter_mut().enumerate() {
            if rng.chance(500) {
                let size = 1 + rng.below(6);
                *def = Arc::new(with_workers(&mut rng, (**def).clone(), size));
                masters.insert(svc, Master::new(usize::try_from(size).expect("small")));
            }
        }
    }
    Crews { rng, masters, workers: BTreeMap::new() }
}

fn with_workers(rng: &mut Rng, mut def: Service, size: u64) -> Service {
    let min = 1 + rng.below(size);
    def.workers = Some(Workers {
        pattern: "^worker".into(),
        user: None,
        stop_timeout: rng.chance(700).then(|| Duration::from_secs(1 + rng.below(10))),
        min: u32::try_from(min).expect("small"),
        budget: Budget {
            actions: u32::try_from(1 + rng.below(3)).expect("small"),
            window: Duration::from_secs(5 + rng.below(30)),
        },
        kill: if rng.chance(250) { Kill::Refused(Fragile::Postgres) } else { Kill::Allowed },
    });
    if rng.chance(600) {
        def.puma = Some(Puma {
            control: Control::State(PathBuf::from("/srv/puma.state")),
            current: Some(PathBuf::from("/srv/current")),
            workers: Some(u32::try_from(size).expect("small")),
            rollback: match rng.below(3) {
                0 => None,
                1 => Some(Rollback::Symlink),
                _ => Some(Rollback::Command(command("rollback"))),
            },
            release: rng.chance(200).then(|| command("trial")),
        });
    }
    for _ in 0..rng.pick(&[1, 1, 2]) {
        let at = u16::try_from(def.checks.len()).expect("few");
        def.checks.push(check(rng, at));
    }
    def
}

fn check(rng: &mut Rng, at: u16) -> Check {
    let (label, condition, metric) = match rng.below(4) {
        0 => ("age", "age > 90s", Metric::Age),
        _ => ("leak", "memory > 500MiB", Metric::Memory),
    };
    Check {
        index: CheckIndex(at),
        label: format!("{label}{at}").into(),
        kind: CheckKind::Worker,
        condition: Condition::parse(condition, &[metric]).expect("is one"),
        tolerance: rng.pick(&[Tolerance::ONCE, Tolerance::Times { n: 2, m: 3 }]),
        recover: Tolerance::ONCE,
        then: match rng.below(5) {
            0 => vec![Action::Alert],
            1 | 2 => vec![Action::RecycleWorker],
            _ => vec![Action::KillWorker],
        },
        on_recovery: Vec::new(),
        every: Duration::from_secs(1 + rng.below(6)),
        timeout: Duration::from_secs(5),
        repeat: None,
    }
}

fn command(word: &str) -> Command {
    Command {
        argv: vec![format!("/bin/{word}").into()],
        timeout: None,
        env: Vec::new(),
        cwd: None,
        systemctl: None,
    }
}
