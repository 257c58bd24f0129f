//! What a look at a Puma and its processes shows that will go off some day.

use crate::model::hazard::HazardKind;
use crate::model::puma::Exposed;
use crate::model::text::Untrusted;
use crate::model::time::Now;
use crate::model::units::show_duration;
use crate::model::workers::{Master, Presence, Release, Target, Worker, releases};

/// All of it, each with its words.
pub(super) fn find(
    now: Now,
    master: &Master,
    workers: &[Worker],
    target: Option<&Target>,
    exposed: &[Exposed],
) -> Vec<(HazardKind, Untrusted)> {
    let gone = |release: &&Release| release.presence == Presence::Deleted;
    let directory = master.release.as_ref().filter(gone).map(|release| {
        let path = &release.path;
        let text = format!(
            "the directory that its master works in was deleted ({path}): no worker it forks can \
             boot; have it read `current` anew (pumactl reload-worker-directory, or a restart)"
        );
        (HazardKind::DirectoryDeleted, text)
    });
    let program = master.program.filter(|presence| *presence == Presence::Deleted).map(|_| {
        let text =
            "the program that its master runs was deleted: it was upgraded and not restarted";
        (HazardKind::ProgramDeleted, text.to_owned())
    });
    let all = releases(workers);
    let mixed = (all.len() > 1).then(|| {
        let paths: Vec<_> = all.iter().map(|release| release.path.to_string()).collect();
        (HazardKind::Mixed, format!("its workers run different releases: {}", paths.join(", ")))
    });
    let found = [directory, program, mixed, never_restarted(now, workers, target)];
    let open: Vec<_> =
        exposed.iter().filter(|exposed| is_hazard(**exposed)).map(ToString::to_string).collect();
    let open = (!open.is_empty()).then(|| (HazardKind::Exposed, open.join("; ")));
    let found = found.into_iter().chain([open]).flatten();
    found.map(|(kind, text)| (kind, Untrusted::from(text.as_str()))).collect()
}

/// Whether somebody is to hear of it. Puma itself makes its control socket one that everybody can reach, and
/// the token stands before commands: of that the log tells.
pub(super) fn is_hazard(exposed: Exposed) -> bool {
    match exposed {
        Exposed::StateReadable | Exposed::StateWritable | Exposed::ControlOpen => true,
        Exposed::ControlReachable => false,
    }
}

/// `current` is newer than every worker, and none runs what it leads to.
fn never_restarted(
    now: Now,
    workers: &[Worker],
    target: Option<&Target>,
) -> Option<(HazardKind, String)> {
    let target = target?;
    let ago_ms = now.wall.0.checked_sub(target.changed_wall_ms)?;
    let before = |worker: &Worker| {
        let elsewhere = worker.release.as_ref().is_some_and(|at| at.path != target.path);
        elsewhere && worker.sample.age_ms > ago_ms
    };
    (!workers.is_empty() && workers.iter().all(before)).then(|| {
        let ago = show_duration(std::time::Duration::from_secs(ago_ms / 1000));
        let path = &target.path;
        let text = format!(
            "deployed but never restarted: `current` has led to {path} for {ago}, and every worker is \
             older and runs another release"
        );
        (HazardKind::NeverRestarted, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::process::{Ours, Pid, ProcessIdentity};
    use crate::model::sample::ProcessSample;
    use crate::model::time::{Mono, Wall};

    const NOW: Now = Now { mono: Mono::from_nanos(0), wall: Wall(10_000_000) };

    fn release(path: &str, presence: Presence) -> Option<Release> {
        Some(Release { path: path.into(), presence })
    }

    fn worker(age_ms: u64, path: &str) -> Worker {
        let sample = ProcessSample {
            identity: ProcessIdentity { pid: Pid(7), started_ticks: 1 },
            at: Mono::from_nanos(0),
            age_ms,
            cpu_ms: None,
            tree_cpu_ms: None,
            state: None,
            threads: None,
            rss_bytes: None,
            pss_bytes: None,
            private_bytes: None,
            tree_pss_bytes: None,
            fds: None,
            children: None,
            read_bytes: None,
            written_bytes: None,
        };
        Worker {
            sample,
            parent: Pid(1),
            title: "puma: cluster worker 0: 1 [shop]".into(),
            ours: Ours::Proved,
            release: release(path, Presence::There),
            program: None,
        }
    }

    fn kinds(master: &Master, workers: &[Worker], exposed: &[Exposed]) -> Vec<HazardKind> {
        // A minute ago.
        let target = Target { path: "/r2".into(), changed_wall_ms: NOW.wall.0 - 60_000 };
        find(NOW, master, workers, Some(&target), exposed).into_iter().map(|one| one.0).collect()
    }

    #[test]
    fn each_is_found_and_nothing_else() {
        use HazardKind::{
            DirectoryDeleted, Exposed as Open, Mixed, NeverRestarted, ProgramDeleted,
        };
        let there = Presence::There;
        let well = Master { state: None, release: release("/r2", there), program: Some(there) };
        let pruned = Master { release: release("/r1", Presence::Deleted), ..well.clone() };
        let upgraded = Master { program: Some(Presence::Deleted), ..well.clone() };
        let (old, new) = (worker(90_000, "/r1"), worker(30_000, "/r2"));
        // It was restarted, into a release that `current` does not lead to any more.
        let young = worker(30_000, "/r1");
        let reachable = Exposed::ControlReachable;
        for (master, workers, exposed, expected) in [
            (&well, vec![new.clone()], vec![reachable], vec![]),
            (&well, vec![], vec![], vec![]),
            (&pruned, vec![new.clone()], vec![], vec![DirectoryDeleted]),
            (&upgraded, vec![new.clone()], vec![], vec![ProgramDeleted]),
            (&well, vec![old.clone(), new.clone()], vec![], vec![Mixed]),
            (&well, vec![old.clone(), old.clone()], vec![], vec![NeverRestarted]),
            (&well, vec![old, young], vec![], vec![]),
            (&well, vec![new], vec![Exposed::StateReadable, reachable], vec![Open]),
        ] {
            assert_eq!(kinds(master, &workers, &exposed), expected, "{master:?} {workers:?}");
        }
    }
}
