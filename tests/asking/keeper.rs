//! A check of type "puma", end to end: asked once for all, judged by more than one answer.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::fake_puma::{FakePuma, NEED};
use crate::support::hanging::Hanging;
use crate::support::house::{House, PATIENCE, signal};
use crate::support::{can_run, wait_for};

struct Shop {
    house: House,
    puma: FakePuma,
}

impl Shop {
    /// Started by heeler; up.
    fn open(lines: &str) -> Self {
        let mut house = House::new("");
        let puma = FakePuma::lay(house.path("srv/shop"));
        let dir = house.path("srv/shop");
        let text = format!(
            "run = \"/usr/bin/perl {0}/puma.pl {0} ping=0.2\"\nevery = \"300ms\"\nstart_period = \"1s\"\n\
             [puma]\nstate = \"{0}/puma.state\"\ncurrent = \"{0}/current\"\nworkers = 3\n{lines}\n",
            dir.display()
        );
        house.define("shop", &text);
        house.open();
        house.wait_up("shop", None);
        Self { house, puma }
    }

    fn wait_check(&self, label: &str, state: &str, words: &str) -> String {
        self.house.wait_check("shop", label, state, words)
    }
}

#[test]
fn how_it_stands_is_told_and_a_boot_loop_is_a_failure() {
    if !can_run(&[NEED]) {
        return;
    }
    let shop = Shop::open(
        "[[check]]\ntype = \"puma\"\nname = \"stands\"\nfor = \"2 of 3\"\n\
         [[check]]\ntype = \"puma\"\nname = \"numbers\"\nif = \"booted < 3 and workers >= 3\"\n\
         [[check]]\ntype = \"puma\"\nname = \"mixture\"\nif = \"mixed\"\n",
    );
    shop.wait_check("stands", "ok", "failed (no: up 3/3)");
    shop.wait_check("numbers", "ok", "booted (3) < 3 and workers (3) >= 3");
    shop.wait_check("mixture", "ok", "mixed (no) = yes");
    // What everybody can do to it is said once: by mail where somebody has to mend it.
    let open = |mail: &String| mail.contains("everybody can read the state file");
    let told = || shop.house.mails().iter().filter(|mail| open(mail)).count();
    wait_for("the mail", PATIENCE, || (told() == 1).then_some(()));
    let log = shop.house.log();
    assert_eq!(log.matches("everybody can connect to the control server").count(), 1, "{log}");
    assert!(!log.contains("sekret"), "{log}");

    // A death after reload-worker-directory: two releases, and nothing in the stats says so.
    shop.puma.release(2);
    shop.puma.point_at(2);
    shop.puma.ask(heeler::model::puma::Ask::ReloadWorkerDirectory);
    signal(shop.puma.workers()[0], "KILL");
    shop.wait_check("mixture", "firing", "mixed (yes) = yes");
    shop.wait_check("stands", "ok", "failed (no: mixed 3/3: 2 releases)");

    shop.puma.broken_release(3);
    shop.puma.point_at(3);
    shop.puma.signal("USR1");
    let text = shop.wait_check("stands", "firing", "boot-loop: worker 0 began");
    assert!(text.contains("; 2/3 serve)"), "{text}");
    shop.wait_check("numbers", "firing", "booted (2) < 3");
    shop.puma.point_at(2);
    shop.puma.ask(heeler::model::puma::Ask::ReloadWorkerDirectory);
    shop.wait_check("stands", "ok", "failed (no: up 3/3)");
    shop.wait_check("mixture", "ok", "mixed (no)");
}

#[test]
fn what_cannot_be_told_is_unknown_and_a_stopped_master_is_wedged() {
    if !can_run(&[NEED]) {
        return;
    }
    let shop = Shop::open("[[check]]\ntype = \"puma\"\nname = \"stands\"\n");
    shop.wait_check("stands", "ok", "failed (no: up 3/3)");
    shop.puma.set("stats", "garbage");
    shop.wait_check("stands", "ok", "unclear: Puma's control server gave no proper answer");
    shop.puma.unset("stats");
    shop.wait_check("stands", "ok", "failed (no: up 3/3)");
    // A wrong token is the configuration's trouble, whoever wrote it.
    let state = shop.puma.path("puma.state");
    let good = fs::read_to_string(&state).expect("readable");
    fs::write(&state, good.replace("sekret", "wrong")).expect("written");
    shop.wait_check("stands", "ok", "refused the token");
    fs::write(&state, good).expect("written");
    shop.wait_check("stands", "ok", "failed (no: up 3/3)");

    shop.puma.signal("STOP");
    shop.wait_check("stands", "firing", "wedged: its master is stopped (state T)");
    shop.puma.signal("CONT");
    shop.wait_check("stands", "ok", "failed (no: up 3/3)");
    // A person can ask, too.
    let (code, out, err) = shop.house.heeler(&["probe", "shop"]);
    assert!(code == 0 && out.contains("up 3/3"), "{code} {out} {err}");
}

/// A release on a mount that hangs, or a worker whose memory is locked: the look at its processes never ends.
#[test]
fn a_look_that_hangs_is_said_and_over_once_it_does_not() {
    if !can_run(&[NEED]) {
        return;
    }
    let shop = Shop::open("[[check]]\ntype = \"puma\"\nname = \"stands\"\n");
    let Some(hanging) = Hanging::make(&shop.house.path("hanging")) else {
        eprintln!("SKIPPED for want of: the right to mount FUSE");
        return;
    };
    shop.wait_check("stands", "ok", "failed (no: up 3/3)");
    let (current, aside) = (shop.puma.path("current"), shop.puma.path("current.aside"));
    fs::rename(&current, &aside).expect("rename");
    symlink(hanging.at.join("release"), &current).expect("link");
    shop.wait_check("stands", "ok", "the last look at its processes has not come back for");
    // Who asks by hand hears it, too.
    let (code, out, err) = shop.house.heeler(&["workers", "shop"]);
    assert!(format!("{out}{err}").contains("has not come back for"), "{code} {out} {err}");
    fs::rename(&aside, &current).expect("rename");
    drop(hanging);
    shop.wait_check("stands", "ok", "failed (no: up 3/3)");
}
