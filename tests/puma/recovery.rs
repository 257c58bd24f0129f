//! `kill -9` of the master: exactly one new Puma, serving, as its user, and one mail that tells it.

use crate::shop::{Shop, Up, Way, masters, workers};
use crate::support::house::PATIENCE;
use crate::support::house::{alive, signal};
use crate::support::wait_for;
use crate::world::{DEPLOY, world};

#[test]
fn started_in_the_background() {
    world(|| killed_and_brought_back(Way::Background));
}

#[test]
fn started_by_a_script() {
    world(|| killed_and_brought_back(Way::Script));
}

#[test]
fn kept_in_the_foreground() {
    world(|| killed_and_brought_back(Way::Foreground));
}

/// EXE-18, with a lingering user in a booted machine: tests/systemd/units.rs.
#[test]
fn kept_by_its_users_systemd() {
    world(|| killed_and_brought_back(Way::Unit));
}

fn killed_and_brought_back(way: Way) {
    let mut shop = Shop::new(way, "");
    let first = shop.open();
    is_of_deploy(&first);
    let old_workers = wait_for("both workers", PATIENCE, || {
        Some(workers(first.master)).filter(|workers| workers.len() == 2)
    });
    let second =
        shop.timed("kill -9 of the master", Some(first.master), |_| signal(first.master, "KILL"));
    is_of_deploy(&second);
    assert_eq!(masters(), [second.master]);
    assert!(old_workers.iter().all(|pid| !alive(*pid)), "workers of the old one live");
    wait_for("its workers", PATIENCE, || (workers(second.master).len() == 2).then_some(()));
    let mails = shop.wait_mails(1);
    println!("MAIL\n{}", mails[0]);
    assert_eq!(mails.len(), 1, "{mails:#?}");
    let gone = format!("the main process {} is gone", first.master);
    for part in ["shop: brought back", &gone, &format!("up again: pid {}", second.master)] {
        assert!(mails[0].contains(part), "{part:?} is not in\n{}", mails[0]);
    }
    assert_eq!(shop.starts(), 2, "the first one and the one after the death");
    assert!(shop.why().contains(&gone), "{}", shop.why());
}

/// As deploy in every respect, whoever started heeler and with whatever environment.
pub(crate) fn is_of_deploy(up: &Up) {
    for id in ["uid", "euid", "gid"] {
        assert_eq!(up.said[id], DEPLOY, "{id}");
    }
    assert_eq!(up.said["groups"], serde_json::json!([DEPLOY, 1502]));
    assert_eq!(up.env("HOME"), Some("/home/deploy"));
    assert_eq!(up.env("USER"), Some("deploy"));
    assert_eq!(up.env("LOGNAME"), Some("deploy"));
    assert_eq!(up.env("XDG_RUNTIME_DIR"), Some("/run/user/1500"));
    assert_eq!(up.env("TMPDIR"), None, "heeler's own environment came through");
}
