//! Files get other names: what they define goes on under those, with its wish, its records and its locks;
//! at a reload and while no heeler runs.

use std::fs;
use std::time::Duration;

use crate::support::house::{House, PATIENCE, alive, signal};
use crate::support::wait_for;

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"2s\"\n";

/// How the names come into force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Reload,
    /// And then `kill -9`, at once.
    ReloadAndCrash,
    /// While none runs.
    Start,
}

const EACH: [By; 3] = [By::Reload, By::ReloadAndCrash, By::Start];

impl By {
    fn comes_into_force(self, house: &mut House, rename: impl FnOnce(&House)) {
        house.wait_noted();
        if self == Self::Start {
            house.kill_keeper();
        }
        rename(house);
        match self {
            Self::Reload => drop(house.reload_well()),
            Self::ReloadAndCrash => {
                house.reload_well();
                house.kill_keeper();
                house.open();
            }
            Self::Start => house.open(),
        }
    }
}

fn runs(house: &House, name: &str, script: &str) {
    let run = house.command(script, "foreground");
    house.define(name, &format!("run = {run:?}\n{QUICK}"));
}

#[test]
fn a_foreground_program_goes_on_under_its_new_name_and_is_never_there_twice() {
    for by in EACH {
        let mut house = House::new("");
        runs(&house, "old", "shop");
        house.open();
        let first = house.wait_up("old", None);
        house.wait_starts("shop", &[first]);
        by.comes_into_force(&mut house, |house| house.rename("old", "new"));
        assert_eq!(house.wait_up("new", None), first, "{by:?}");
        assert_eq!(house.heeler(&["status", "old"]).0, 4);
        assert!(!house.path("run/svc/old").exists(), "{by:?}");
        assert!(house.path("run/svc/new/instance.child").exists(), "{by:?}");
        signal(first, "KILL");
        let second = house.wait_up("new", Some(first));
        house.wait_starts("shop", &[first, second]);
        assert_eq!(house.heeler(&["restart", "new"]).0, 0, "{by:?}");
        let third = house.wait_up("new", Some(second));
        house.wait_starts("shop", &[first, second, third]);
        assert_eq!(house.doubles("shop"), 0, "{by:?}");
        // And back, with a change.
        by.comes_into_force(&mut house, |house| {
            house.undefine("new");
            runs(house, "old", "shop");
            let text = fs::read_to_string(house.path("conf.d/old.toml")).expect("is there");
            house.define("old", &text.replace("\"2s\"", "\"3s\""));
        });
        assert_eq!(house.wait_up("old", None), third, "{by:?}");
        assert_eq!(house.heeler(&["stop", "old"]).0, 0);
        assert!(!alive(third));
        // How it ended its shim writes where its records are now.
        wait_for("how it ended", PATIENCE, || {
            house.path("run/svc/old/instance.outcome").exists().then_some(())
        });
        assert_eq!((house.starts("shop").len(), house.doubles("shop")), (3, 0), "{by:?}");
    }
}

#[test]
fn two_programs_that_change_names_stay_who_they_are() {
    for by in EACH {
        let mut house = House::new("");
        runs(&house, "a", "first");
        runs(&house, "b", "second");
        house.open();
        let (first, second) = (house.wait_up("a", None), house.wait_up("b", None));
        house.wait_starts("first", &[first]);
        house.wait_starts("second", &[second]);
        assert_eq!(house.heeler(&["unmonitor", "a"]).0, 0);
        by.comes_into_force(&mut house, |house| {
            house.rename("a", "c");
            house.rename("b", "a");
            house.rename("c", "b");
        });
        assert_eq!((house.wait_up("b", None), house.wait_up("a", None)), (first, second), "{by:?}");
        assert_eq!(house.status("b")["desired"]["want"], "unmonitored", "{by:?}");
        assert_eq!(house.status("a")["desired"]["want"], "up", "{by:?}");
        for (name, script, pid) in [("a", "second", second), ("b", "first", first)] {
            assert_eq!(house.heeler(&["restart", name]).0, 0);
            let next = house.wait_up(name, Some(pid));
            house.wait_starts(script, &[pid, next]);
            assert_eq!(house.doubles(script), 0, "{by:?}");
        }
    }
}

#[test]
fn a_stopped_service_stays_stopped_and_what_is_open_is_closed_under_the_old_name() {
    for by in EACH {
        let mut house = House::new("");
        house.daemon("old", "", &format!("{QUICK}alert = [\"ops@example.com\"]\n"));
        let text = fs::read_to_string(house.path("conf.d/old.toml")).expect("is there");
        house.open();
        let pid = house.wait_up("old", None);
        assert_eq!(house.heeler(&["stop", "old"]).0, 0);
        assert!(!alive(pid));
        by.comes_into_force(&mut house, |house| {
            house.undefine("old");
            house.define("new", &format!("{text}exit_delay = \"1s\"\n"));
        });
        let status = house.status("new");
        assert_eq!(status["desired"]["want"], "down", "{by:?}: {status}");
        assert_eq!(status["desired"]["by"], "operator", "{by:?}");
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(house.starts("old"), [pid], "{by:?}");
        // The wish is remembered under the new name.
        house.kill_keeper();
        let _ = fs::remove_file(house.path("state/starts"));
        house.open();
        assert_eq!(house.status("new")["desired"]["want"], "down", "{by:?}");
        assert_eq!(house.heeler(&["start", "new"]).0, 0);
        house.wait_up("new", Some(pid));
    }
}

#[test]
fn a_start_under_way_is_the_start_under_the_new_name() {
    for by in EACH {
        let mut house = House::new("");
        let began = house.path("srv/began");
        let gate = house.path("srv/gate");
        let slow = format!(
            "echo x >> {}; until test -e {}; do sleep 0.05; done; exec {}",
            began.display(),
            gate.display(),
            house.command("shop", "")
        );
        let pidfile = house.path("srv/shop.pid");
        let start = format!("start = {{ run = {slow:?}, shell = true }}");
        house.define("old", &format!("pidfile = {pidfile:?}\n{start}\n{QUICK}"));
        house.open();
        wait_for("the start", PATIENCE, || began.exists().then_some(()));
        by.comes_into_force(&mut house, |house| house.rename("old", "new"));
        house.wait_words("new", "starting");
        fs::write(gate, "").expect("opens");
        let pid = house.wait_up("new", None);
        assert_eq!((house.starts("shop"), house.doubles("shop")), (vec![pid], 0), "{by:?}");
        assert_eq!(fs::read_to_string(&began).expect("is there"), "x\n", "{by:?}");
    }
}

#[test]
fn a_stop_under_way_keeps_its_time_under_the_new_name() {
    for by in EACH {
        let mut house = House::new("");
        house.daemon("old", "term=ignore", &QUICK.replace("2s", "4s"));
        house.open();
        let pid = house.wait_up("old", None);
        let told = std::time::Instant::now();
        assert_eq!(house.heeler(&["stop", "old", "--no-wait"]).0, 0);
        let ladder = house.path("run/svc/old/ladder");
        wait_for("its stop signal", PATIENCE, || ladder.exists().then_some(()));
        let journal = fs::read_to_string(house.path("state/journal")).expect("a journal");
        assert!(journal.contains("\"desired\":\"down\""), "who does not wait was told too soon");
        by.comes_into_force(&mut house, |house| house.rename("old", "new"));
        wait_for("it to be killed", PATIENCE, || (!alive(pid)).then_some(()));
        let took = told.elapsed();
        assert!(took > Duration::from_millis(3900) && took < Duration::from_secs(12), "{took:?}");
        house.wait_words("new", "stopped by");
        assert_eq!(house.starts("old"), [pid], "{by:?}");
    }
}

/// Something is in the way of its records: it is not watched, and what somebody wished for it is not lost.
#[test]
fn a_wish_outlives_a_rename_whose_records_cannot_be_moved() {
    let mut house = House::new("");
    runs(&house, "old", "shop");
    house.open();
    let first = house.wait_up("old", None);
    assert_eq!(house.heeler(&["stop", "old"]).0, 0);
    assert!(!alive(first));
    let in_the_way = house.path("run/svc/.moving-new/something");
    fs::create_dir_all(&in_the_way).expect("mkdir");
    house.rename("old", "new");
    let (_, out, err) = house.heeler(&["reload-config"]);
    assert!(format!("{out}{err}").contains("its records could not be moved"), "{out} {err}");
    assert_eq!(house.heeler(&["status", "new"]).0, 4);

    // The next reload takes it in as who it was, and so does a next heeler.
    fs::remove_dir_all(in_the_way.parent().expect("has one")).expect("remove");
    house.heeler(&["reload-config"]);
    let status = house.status("new");
    assert_eq!(status["desired"]["want"], "down", "{status}");
    house.wait_starts("shop", &[first]);
    house.kill_keeper();
    house.open();
    let status = house.status("new");
    assert_eq!(status["desired"]["want"], "down", "{status}");
    house.wait_starts("shop", &[first]);
}
