//! A real Puma is asked, and how it stands is told: by its own word, and by what its processes are.

use crate::shop::{Shop, Way, add_release, app, freeze, point_at, pumactl, workers, write};
use crate::support::house::signal;
use crate::world::world;

const CHECKS: &str = "
[puma]
state = \"/home/deploy/apps/shop/shared/pids/puma.state\"
current = \"/home/deploy/apps/shop/current\"
workers = 2

[[check]]
type = \"puma\"
name = \"stands\"

[[check]]
type = \"puma\"
name = \"mixture\"
if = \"mixed\"
";

#[test]
fn started_by_a_script() {
    world(|| is_asked(Way::Script));
}

#[test]
fn in_its_users_systemd() {
    world(|| is_asked(Way::Unit));
}

fn is_asked(way: Way) {
    let mut shop = Shop::new(way, CHECKS);
    write(&app("shared/control"), "");
    let master = shop.open().master;
    let stands = |state: &str, words: &str| shop.house.wait_check("shop", "stands", state, words);
    stands("ok", "failed (no: up 2/2)");
    let log = shop.house.log();
    assert!(log.contains("everybody can connect to the control server"), "{log}");

    // One is stopped: the master has not noticed, and would not for a minute.
    let frozen = workers(master)[0];
    freeze(frozen);
    stands("firing", "failed (degraded 1/2)");
    signal(frozen, "CONT");
    stands("ok", "failed (no: up 2/2)");

    // A release that cannot boot: the master tries for ever, the other worker serves on.
    add_release(2, include_str!("app/config.ru"));
    add_release(3, "raise 'boom'\n");
    point_at(3);
    signal(master, "USR1");
    let text = stands("firing", "failed (boot-loop: worker 0 began");
    assert!(text.contains("1/2 serve"), "{text}");
    point_at(1);
    pumactl("reload-worker-directory");
    stands("ok", "failed (no: up 2/2)");

    // Replacements run what the master works in: its stats say nothing of it.
    point_at(2);
    pumactl("reload-worker-directory");
    signal(workers(master)[0], "KILL");
    shop.house.wait_check("shop", "mixture", "firing", "mixed (yes)");
    stands("ok", "failed (no: mixed 2/2: 2 releases)");
    pumactl("phased-restart");
    shop.house.wait_check("shop", "mixture", "ok", "mixed (no)");

    freeze(master);
    stands("firing", "failed (wedged: its master is stopped (state T))");
    signal(master, "CONT");
    stands("ok", "failed (no: up 2/2)");
    assert_eq!(shop.starts(), 1, "nothing of it is a reason to start: {}", shop.house.log());
}
