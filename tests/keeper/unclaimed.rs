//! A foreground program whose file is gone goes on, is seen, can be stopped, and is taken back when its
//! file returns.

use std::time::Duration;

use crate::support::house::{House, PATIENCE, alive, signal};
use crate::support::wait_for;

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"2s\"\n";

fn runs(house: &House, name: &str, script: &str) {
    let run = house.command(script, "foreground");
    let check = "[[check]]\nif = \"threads > 1000\"\nthen = \"restart\"\n";
    house.define(name, &format!("run = {run:?}\n{QUICK}{check}"));
}

fn is_unclaimed(house: &House, name: &str, pid: u32) {
    let status = house.status(name);
    assert_eq!(status["pid"], pid, "{status}");
    let state = status["state"].as_str().unwrap_or_default();
    assert!(state.contains("unclaimed"), "{status}");
}

/// A house whose one program has lost its file; its pid.
fn house() -> (House, u32) {
    let mut house = House::new("");
    runs(&house, "shop", "shop");
    house.daemon("other", "", QUICK);
    house.open();
    let pid = house.wait_up("shop", None);
    house.wait_starts("shop", &[pid]);
    house.undefine("shop");
    let told = house.reload_well();
    assert!(told.contains("removed  shop"), "{told}");
    assert!(told.contains("note     the program of shop goes on, unclaimed"), "{told}");
    is_unclaimed(&house, "shop", pid);
    (house, pid)
}

#[test]
fn it_can_be_seen_and_stopped_and_nothing_else() {
    let (mut house, pid) = house();
    for order in ["start", "restart", "reload", "monitor", "unmonitor"] {
        let (code, _, err) = house.heeler(&[order, "shop"]);
        assert!(code == 1 && err.contains("can only be stopped"), "{order}: {code} {err}");
    }
    // A reload, a new heeler: it is still there, and still nobody's.
    house.reload_well();
    is_unclaimed(&house, "shop", pid);
    house.kill_keeper();
    house.open();
    wait_for("it to be found", PATIENCE, || (house.pid("shop") == Some(pid)).then_some(()));
    is_unclaimed(&house, "shop", pid);
    let (code, out, err) = house.heeler(&["stop", "shop"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(!alive(pid));
    wait_for("it to be forgotten", PATIENCE, || {
        (house.heeler(&["status", "shop"]).0 == 4).then_some(())
    });
    assert_eq!(house.starts("shop"), [pid]);
    // Its name is free for somebody else.
    runs(&house, "shop", "another");
    house.reload_well();
    house.wait_up("shop", Some(pid));
}

#[test]
fn it_is_not_kept_up_and_forgotten_when_it_ends() {
    let (house, pid) = house();
    signal(pid, "KILL");
    wait_for("it to be forgotten", PATIENCE, || {
        (house.heeler(&["status", "shop"]).0 == 4).then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(house.starts("shop"), [pid]);
    assert!(house.mails().is_empty(), "{:?}", house.mails());
}

#[test]
fn it_is_taken_back_with_its_file_be_that_under_another_name() {
    for name in ["shop", "store"] {
        for while_none_runs in [false, true] {
            let (mut house, pid) = house();
            if while_none_runs {
                house.kill_keeper();
            }
            runs(&house, name, "shop");
            if while_none_runs {
                house.open();
            } else {
                house.reload_well();
            }
            assert_eq!(house.wait_up(name, None), pid, "{name} {while_none_runs}");
            house.wait_words(name, "up");
            assert_eq!(house.status(name)["desired"]["want"], "up", "{name} {while_none_runs}");
            // Kept up again, and there once.
            signal(pid, "KILL");
            let second = house.wait_up(name, Some(pid));
            house.wait_starts("shop", &[pid, second]);
            assert_eq!(house.heeler(&["restart", name]).0, 0);
            let third = house.wait_up(name, Some(second));
            house.wait_starts("shop", &[pid, second, third]);
            assert_eq!(house.doubles("shop"), 0);
        }
    }
}

#[test]
fn removed_while_none_runs_it_is_unclaimed_too() {
    let mut house = House::new("");
    runs(&house, "shop", "shop");
    house.daemon("other", "", QUICK);
    house.open();
    let (pid, other) = (house.wait_up("shop", None), house.wait_up("other", None));
    house.kill_keeper();
    house.undefine("shop");
    house.undefine("other");
    house.daemon("third", "", QUICK);
    house.open();
    wait_for("it to be found", PATIENCE, || (house.pid("shop") == Some(pid)).then_some(()));
    is_unclaimed(&house, "shop", pid);
    assert_eq!(house.heeler(&["status", "other"]).0, 4);
    assert!(alive(other));
    assert_eq!(house.heeler(&["stop", "shop"]).0, 0);
    assert!(!alive(pid));
}

#[test]
fn one_whose_name_another_has_now_is_seen_under_a_name_of_its_own() {
    let mut house = House::new("");
    runs(&house, "a", "first");
    runs(&house, "b", "second");
    house.open();
    let (first, second) = (house.wait_up("a", None), house.wait_up("b", None));
    house.wait_starts("first", &[first]);
    house.wait_starts("second", &[second]);
    // `a` is `b` now, and what was `b` has no file any more.
    house.undefine("b");
    house.rename("a", "b");
    let told = house.reload_well();
    assert!(told.contains("renamed  a is now b"), "{told}");
    assert_eq!(house.wait_up("b", None), first);
    is_unclaimed(&house, "b.1", second);
    assert_eq!(house.heeler(&["stop", "b.1"]).0, 0);
    assert!(!alive(second) && alive(first));
    assert_eq!((house.doubles("first"), house.doubles("second")), (0, 0));
}
