//! The lines of a log while its service dies and comes back: none is lost, and none is held against the
//! process that did not write it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::support::house::{House, PATIENCE, signal};
use crate::support::wait_for;

/// Its rules may act as soon as it is up.
const QUICK: &str = "every = \"300ms\"\nstart_period = \"0s\"\nexit_delay = \"100ms\"\n\
                     start_limit = \"100 per 1m\"\n";

/// A service with a rule about the lines of its log.
fn house_with(rule: &str, more: &str) -> House {
    let mut house = House::new("");
    house.write("srv/shop.log", "begun\n");
    let log = house.path("srv/shop.log");
    let lines = format!(
        "[[check]]\nname = \"lines\"\ntype = \"file\"\npath = {log:?}\ncontent = \"FATAL\"\n\
         every = \"200ms\"\nthen = \"{rule}\"\n{more}"
    );
    house.daemon("shop", "", &format!("{QUICK}{lines}"));
    house.open();
    house.wait_up("shop", None);
    let kept = house.path("run/svc/shop/check-0.past");
    wait_for("the log to have been read", PATIENCE, || kept.exists().then_some(()));
    house
}

fn says(log: &Path, line: &str) {
    let mut log = File::options().append(true).open(log).expect("opens");
    writeln!(log, "{line}").expect("writes");
}

fn events(house: &House) -> String {
    house.heeler(&["events", "shop", "--last", "500"]).1
}

#[test]
fn the_last_words_of_a_process_are_told_and_the_next_one_lives() {
    let house = house_with("restart", "");
    let log = house.path("srv/shop.log");
    let mut pid = house.wait_up("shop", None);
    for round in 1..=5 {
        let words = format!("FATAL: the disk is full ({round})");
        let before = house.starts("shop").len();
        // heeler sees both at once: a line seen before the death, or of the next process, is acted on, and rightly.
        signal(house.keeper(), "STOP");
        says(&log, &words);
        signal(pid, "KILL");
        signal(house.keeper(), "CONT");
        pid = house.wait_up("shop", Some(pid));
        wait_for("the line to be told", PATIENCE, || events(&house).contains(&words).then_some(()));
        house.wait_check("shop", "lines", "ok", "matches");
        assert_eq!(house.starts("shop").len(), before + 1, "{}", house.log());
    }
    assert!(!house.log().contains("restarting it because of"), "{}", house.log());
    for told in [house.log(), events(&house)] {
        assert!(told.contains("nothing is done about it (lines)"), "{told}");
    }
    let told = || house.mails().iter().any(|mail| mail.contains("FATAL: the disk is full (5)"));
    wait_for("the mail", PATIENCE, || told().then_some(()));
}

/// The place of a log moves on with each look, also of one that is answered while its service is stopped.
#[test]
fn a_line_beside_a_change_that_restarts_is_told() {
    let flag = tempfile::NamedTempFile::new().expect("a file");
    let path = flag.path();
    let house = house_with(
        "alert",
        &format!(
            "[[check]]\nname = \"change\"\ntype = \"file\"\npath = {path:?}\nif = \"changed\"\n\
             checksum = \"sha256\"\nevery = \"200ms\"\nthen = \"restart\"\n"
        ),
    );
    house.wait_check("shop", "change", "ok", "changed");
    let mut pid = house.wait_up("shop", None);
    for round in 1..=8 {
        let words = format!("FATAL: out of memory ({round})");
        fs::write(path, &words).expect("writes");
        says(&house.path("srv/shop.log"), &words);
        wait_for(&format!("the line {round} to be told"), PATIENCE, || {
            events(&house).contains(&words).then_some(())
        });
        pid = house.wait_up("shop", Some(pid));
    }
}
