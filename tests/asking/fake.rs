//! The fake Puma does what a real one does in each of its situations (`reference/puma.md`).

use std::fs;
use std::time::{Duration, Instant};

use heeler::model::puma::{Ask, Boot, Cluster, Said, Trouble, TroubleKind};

use crate::support::fake_puma::{FakePuma, NEED, title, works_in};
use crate::support::house::{PATIENCE, alive, signal};
use crate::support::{can_run, wait_for};

fn births(cluster: &Cluster) -> Vec<i32> {
    cluster.each.iter().filter_map(|worker| worker.pid).map(|pid| pid.0).collect()
}

#[test]
fn it_looks_like_one_and_serves() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&[]);
    let master = puma.master();
    let up = puma.wait_up(3);
    let own = format!("puma 8.0.2 (unix://{}) [shop]", puma.path("app.sock").display());
    assert_eq!(title(master), own);
    let mut titles: Vec<_> = puma.workers().iter().map(|pid| title(*pid)).collect();
    titles.sort();
    let expected = [0, 1, 2].map(|index| format!("puma: cluster worker {index}: {master} [shop]"));
    assert_eq!(titles, expected);
    let (release, pid) = puma.get().expect("an answer");
    assert_eq!(release, puma.path("releases/1"));
    assert!(births(&up).contains(&i32::try_from(pid).expect("a pid")));
    puma.signal("TERM");
    wait_for("its end", PATIENCE, || puma.workers().is_empty().then_some(()));
    // The master goes last, and its pidfile with it.
    let gone = || (!puma.path("puma.pid").exists()).then_some(());
    wait_for("its pidfile to be gone", PATIENCE, gone);
    assert!(puma.path("puma.state").exists());
}

#[test]
fn a_phased_restart_takes_one_after_the_other_to_the_new_release() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&[]);
    let before = births(&puma.wait_up(3));
    let two = puma.release(2);
    puma.point_at(2);
    puma.set("boot", "0.3");
    assert_eq!(puma.ask(Ask::PhasedRestart).said, Ok(Said::Accepted));
    let half = puma.wait_cluster("the first to be replaced", |it| it.old == Some(2));
    assert_eq!(half.phase, Some(1));
    let after = puma.wait_up(3);
    assert!(births(&after).iter().all(|pid| !before.contains(pid)));
    assert!(puma.workers().iter().all(|pid| works_in(*pid) == two));
}

#[test]
fn a_release_that_cannot_boot_loops_and_the_others_serve_on_until_it_is_rolled_back() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&[]);
    let before = births(&puma.wait_up(3));
    puma.broken_release(2);
    puma.point_at(2);
    puma.signal("USR1");
    let mut seen = Vec::new();
    wait_for("three that die at boot", PATIENCE, || {
        let cluster = puma.wait_cluster("an answer", |it| it.phase == Some(1));
        let young = cluster.each.iter().find(|it| it.boot == Boot::Booting)?;
        if !seen.contains(&young.pid) {
            seen.push(young.pid);
        }
        (seen.len() >= 3).then_some(())
    });
    assert_eq!(puma.get().expect("an answer").0, puma.path("releases/1"));
    // The link alone mends nothing: the master works in the broken release.
    puma.point_at(1);
    let still = puma.wait_cluster("an answer", |_| true);
    assert_eq!((still.booted, still.old), (Some(2), Some(2)));
    assert_eq!(puma.ask(Ask::ReloadWorkerDirectory).said, Ok(Said::Accepted));
    let after = puma.wait_up(3);
    assert_eq!(after.phase, Some(1), "a phase is no release");
    assert!(births(&after).iter().all(|pid| !before.contains(pid)));
    assert!(puma.workers().iter().all(|pid| works_in(*pid) == puma.path("releases/1")));
}

#[test]
fn a_hot_restart_keeps_the_master_and_so_does_a_phased_one_with_preload() {
    if !can_run(&[NEED]) {
        return;
    }
    for (options, ask) in [(&[][..], Ask::Restart), (&["preload"][..], Ask::PhasedRestart)] {
        let puma = FakePuma::start(options);
        let (master, before) = (puma.master(), puma.wait_up(3));
        let started = puma.ask(Ask::Stats).stats().expect("an answer").started_wall_ms;
        let second = Instant::now() + Duration::from_secs(1);
        wait_for("another second", PATIENCE, || (Instant::now() > second).then_some(()));
        assert_eq!(puma.ask(ask).said, Ok(Said::Accepted));
        wait_for("a newer program", PATIENCE, || {
            let answer = puma.ask(Ask::Stats);
            (answer.stats()?.started_wall_ms > started).then_some(())
        });
        let after = puma.wait_up(3);
        assert_eq!((puma.master(), after.phase), (master, Some(0)));
        assert!(births(&after).iter().all(|pid| !births(&before).contains(pid)));
        let fell_back = puma.log().contains("phased-restart called but not available");
        assert_eq!(fell_back, ask == Ask::PhasedRestart);
    }
}

#[test]
fn one_that_ignores_term_is_killed_by_its_master_in_time_and_holds_up_the_others() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::new();
    puma.set("ignore-term", "0");
    let mut puma = puma;
    puma.run(&["shutdown-timeout=1"]);
    puma.wait_up(3);
    puma.unset("ignore-term");
    let began = Instant::now();
    puma.signal("USR1");
    let stuck = puma.wait_cluster("the restart to begin", |it| it.phase == Some(1));
    assert_eq!(stuck.old, Some(3), "the first stands before all others");
    puma.wait_up(3);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn an_orphan_holds_the_listeners_and_no_other_puma_can_start() {
    if !can_run(&[NEED]) {
        return;
    }
    let mut puma = FakePuma::new();
    puma.set("orphan", "1");
    puma.run(&[]);
    let orphan = puma.wait_up(3).each[1].pid.expect("a pid").0;
    let orphan = u32::try_from(orphan).expect("a pid");
    puma.signal("KILL");
    wait_for("the others to go", PATIENCE, || (puma.workers() == [orphan]).then_some(()));
    assert!(puma.get().is_some(), "it serves on");
    // Connected, and never an answer: its master's control server is nobody's.
    let trouble = puma.ask(Ask::Stats).said.expect_err("nobody");
    assert_eq!(trouble.kind, TroubleKind::Silent, "{trouble}");
    let second = std::process::Command::new("perl")
        .arg(puma.path("puma.pl"))
        .arg(puma.path(""))
        .output()
        .expect("perl runs");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("already a server bound"), "{said}");
    assert!(alive(orphan));
    signal(orphan, "KILL");
}

#[test]
fn a_deleted_release_is_a_time_bomb() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&[]);
    puma.wait_up(3);
    puma.release(2);
    puma.point_at(2);
    fs::remove_dir_all(puma.path("releases/1")).expect("removed");
    assert!(works_in(puma.master()).to_string_lossy().ends_with(" (deleted)"));
    puma.wait_up(3);
    signal(puma.workers()[0], "KILL");
    puma.wait_cluster("a worker that cannot boot", |it| it.booted == Some(2));
    assert_eq!(puma.ask(Ask::ReloadWorkerDirectory).said, Ok(Said::Accepted));
    puma.wait_up(3);
}

#[test]
fn a_master_that_shuts_down_takes_connections_and_says_nothing() {
    if !can_run(&[NEED]) {
        return;
    }
    let puma = FakePuma::start(&[]);
    puma.wait_up(3);
    puma.set("drain", "5");
    puma.signal("TERM");
    wait_for("its end to begin", PATIENCE, || (!puma.path("app.sock").exists()).then_some(()));
    let trouble: Trouble = puma.ask(Ask::Stats).said.expect_err("no answer");
    assert_eq!(trouble.kind, TroubleKind::Silent, "{trouble}");
}
