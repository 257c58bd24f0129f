//! Others restart Puma while heeler watches: a deploy's own stop and start, a phased restart, a hot
//! restart. heeler takes what comes and starts nothing itself.

use std::thread;

use crate::shop::{Shop, Up, Way, app, as_deploy, freeze, masters, puma_log, up, workers};
use crate::support::house::{PATIENCE, alive, signal};
use crate::support::wait_for;
use crate::world::world;

/// Stops Puma as most deploys do, and waits until it is gone.
const STOP: &str = "pid=$(cat ../../shared/pids/puma.pid); kill -TERM $pid
while kill -0 $pid 2>/dev/null; do sleep 0.02; done\n";
/// Starts it as most deploys do.
const START: &str = "nohup puma -C ~/apps/shop/current/config/puma.rb </dev/null >>../../shared/log/deploy.log 2>&1 &\n";

#[test]
fn stop_and_start_at_once() {
    world(|| deployed(Way::Background, &format!("{STOP}{START}")));
}

#[test]
fn stop_and_start_three_seconds_later() {
    world(|| deployed(Way::Script, &format!("{STOP}sleep 3\n{START}")));
}

#[test]
fn pumactl_stop_and_start() {
    let stop = "pid=$(cat ../../shared/pids/puma.pid); pumactl -P ../../shared/pids/puma.pid stop
while kill -0 $pid 2>/dev/null; do sleep 0.02; done\n";
    world(move || deployed(Way::Background, &format!("{stop}{START}")));
}

#[test]
fn systemctl_restart() {
    world(|| deployed(Way::Unit, "systemctl --user restart puma"));
}

#[test]
fn systemctl_stop_and_start() {
    world(|| {
        deployed(Way::Unit, "systemctl --user stop puma; sleep 3; systemctl --user start puma")
    });
}

fn deployed(way: Way, script: &str) {
    // Longer than a deploy takes on a busy machine.
    let mut shop = Shop::new(way, "exit_delay = \"30s\"\n");
    let first = shop.open();
    let script = script.to_owned();
    let second = shop.timed("a deploy's own stop and start", Some(first.master), |_| {
        thread::spawn(move || {
            let output = as_deploy(&script);
            assert!(output.status.success(), "{output:?}");
        });
    });
    // A second copy would have been started by now, or be about to.
    wait_for("the start period to pass", PATIENCE, || {
        (shop.house.status("shop")["phase"] == "watching").then_some(())
    });
    assert_eq!(masters(), [second.master]);
    assert_eq!(shop.starts(), 1, "heeler raced the deploy:\n{}", shop.house.log());
    let log = puma_log();
    assert!(!log.contains("EADDRINUSE") && !log.contains("already"), "{log}");
    println!("LOG\n{}", shop.house.log());
}

/// What the deploy itself started, in a session that it shares with the deploy, dies: its workers hold
/// the socket for up to half a second.
#[test]
fn what_a_deploy_started_is_brought_back() {
    world(|| deploys_own_dies(false));
}

/// And one of them for ever.
#[test]
fn what_a_deploy_started_leaves_an_orphan() {
    world(|| deploys_own_dies(true));
}

fn deploys_own_dies(orphan: bool) {
    let mut shop = Shop::new(Way::Background, "");
    let first = shop.open();
    // Something else of theirs in the same session and group, which is nobody's business.
    let output =
        as_deploy(&format!("{STOP}sleep 1000 </dev/null >/dev/null 2>&1 &\necho $!\n{START}"));
    assert!(output.status.success(), "{output:?}");
    let bystander: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("its pid");
    let second = shop.wait_serving(Some(first.master));
    wait_for("both workers", PATIENCE, || (workers(second.master).len() == 2).then_some(()));
    if orphan {
        freeze(second.worker);
    }
    let what = format!("kill -9 of a deploy's own master, a worker stopped: {orphan}");
    let third = shop.timed(&what, Some(second.master), |_| signal(second.master, "KILL"));
    assert!(!alive(second.worker) && alive(bystander));
    assert_eq!(masters(), [third.master]);
    let log = puma_log();
    assert!(!log.contains("EADDRINUSE"), "{log}");
    let why = shop.why();
    println!("WHY\n{why}");
    let told = format!("orphan {} holds a listening socket: told to go", second.worker);
    assert_eq!(why.contains(&told), orphan, "{why}");
}

#[test]
fn a_phased_restart_is_left_alone() {
    world(|| restarted_in_place("USR1"));
}

#[test]
fn a_hot_restart_is_left_alone() {
    world(|| restarted_in_place("USR2"));
}

fn restarted_in_place(how: &str) {
    let mut shop = Shop::new(Way::Script, "");
    let first = shop.open();
    let two = || {
        wait_for("both workers", PATIENCE, || {
            let workers = workers(first.master);
            (workers.len() == 2).then_some(workers)
        })
    };
    let before = two();
    let log = shop.house.log();
    signal(first.master, how);
    let new = |up: &Up| !before.contains(&up.worker);
    let second = wait_for("a new worker to serve", PATIENCE, || up().filter(new));
    wait_for("the old workers to go", PATIENCE, || {
        before.iter().all(|pid| !alive(*pid)).then_some(())
    });
    let after = two();
    // Several looks later.
    let looked = std::time::Instant::now();
    wait_for("a few looks", PATIENCE, || (looked.elapsed().as_secs() >= 3).then_some(()));
    assert_eq!(second.master, first.master);
    assert_eq!(two(), after, "somebody restarted workers");
    assert_eq!(shop.house.pid("shop"), Some(first.master));
    assert_eq!(shop.house.log(), log, "heeler had something to say");
    assert!(shop.house.mails().is_empty());
    let named = std::fs::read_to_string(app("shared/pids/puma.pid")).expect("the pidfile");
    assert_eq!(named.trim(), first.master.to_string());
}
