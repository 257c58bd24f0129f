//! A program beside its service, and a service that is nothing but its programs.

use std::time::{Duration, Instant};

use crate::support::house::{House, PATIENCE, lines, signal};
use crate::support::{Need, can_run, wait_for};
use crate::{define, evil, house, wait_says};

#[test]
fn a_program_that_hangs_holds_up_nothing_of_its_service() {
    let mut house = house();
    let (command, file) = evil(&house, "hang", "hang");
    let check = format!(
        "every = \"300ms\"\nstart_period = \"200ms\"\n\
         [[check]]\ntype = \"program\"\ncommand = {command:?}\ntimeout = \"20s\"\n\
         every = \"300ms\"\nthen = \"restart\"\n"
    );
    house.daemon("shop", "", &check);
    house.open();
    let first = house.wait_up("shop", None);
    wait_for("the program to hang", PATIENCE, || (!lines(&file).is_empty()).then_some(()));
    let began = Instant::now();
    signal(first, "KILL");
    let second = house.wait_up("shop", Some(first));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let (code, out, err) = house.heeler(&["restart", "shop"]);
    assert_eq!(code, 0, "{out}{err}");
    let third = house.pid("shop").expect("is up");
    assert_eq!(house.starts("shop"), [first, second, third]);
    assert_eq!(house.doubles("shop"), 0);
    assert_eq!(lines(&file).len(), 1, "it hangs all the while");
    eprintln!("back after {took:?}");
}

#[test]
fn a_bad_answer_restarts_its_service() {
    let mut house = house();
    // It fails for as long as the first copy is there.
    let pidfile = house.path("srv/shop.pid");
    let marks = house.path("srv/shop.starts");
    let script =
        format!("test $(wc -l <{}) != 1 || test ! -s {}", marks.display(), pidfile.display());
    let check = format!(
        "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"5s\"\n\
         [[check]]\ntype = \"program\"\ncommand = {{ run = {script:?}, shell = true }}\n\
         every = \"300ms\"\nthen = \"restart\"\n"
    );
    house.daemon("shop", "", &check);
    house.open();
    let first = house.wait_up("shop", None);
    let second = house.wait_up("shop", Some(first));
    assert_eq!(house.starts("shop"), [first, second]);
    assert_eq!(house.doubles("shop"), 0);
}

/// A cron job's freshness: a service that has no process, and a user that has no home.
#[test]
fn a_service_may_be_nothing_but_a_program() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    let stamp = house.path("srv/backup.done");
    let fresh = format!("test -n \"$(find {} -mmin -60)\" && id -un", stamp.display());
    let text = format!(
        "user = \"nobody\"\nevery = \"300ms\"\n[[check]]\nname = \"the backup is fresh\"\ntype = \"program\"\n\
         command = {{ run = {fresh:?}, shell = true }}\nexpect = \"^nobody$\"\nevery = \"300ms\"\n"
    );
    house.define("backup", &text);
    house.write("srv/backup.done", "");
    house.open();
    let (_, state) = wait_says(&house, "backup", "failed");
    assert_eq!(state, "ok");
    std::fs::remove_file(&stamp).expect("remove");
    let (_, state) = wait_says(&house, "backup", "failed with code 1");
    assert_eq!(state, "firing");
    wait_for("the mail", PATIENCE, || {
        house.mails().iter().any(|mail| mail.contains("failed with code 1")).then_some(())
    });
    house.write("srv/backup.done", "");
    wait_for("the check to be well again", PATIENCE, || {
        (house.status("backup")["checks"][0]["state"] == "ok").then_some(())
    });
    wait_for("the mail of it", PATIENCE, || (house.mails().len() == 2).then_some(()));
    assert_eq!(house.status("backup")["pid"], serde_json::Value::Null);
}

/// A pattern that takes its time, and the pool that takes it off the loop.
#[test]
fn all_that_is_kept_of_much_output_is_matched() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    let command = "perl -e 'print q(01) x 32000; print qq(\\nno end\\n)'";
    define(&house, "long", command, "every = \"500ms\"\nexpect = \"[01]*1[01]{400}x\"");
    house.open();
    let (text, state) = wait_says(&house, "long", "does not match");
    assert_eq!(state, "firing", "{text}");
    assert!(text.contains("010101") && text.len() < 1200, "{text}");
}

/// So many programs at once and no more; a service that dies meanwhile is back as ever.
#[test]
fn programs_that_hang_everywhere_are_bounded_and_hold_up_no_action() {
    const SERVICES: usize = 40;
    let mut house = house();
    house.daemon("shop", "", "every = \"300ms\"\nstart_period = \"200ms\"\n");
    let (command, file) = evil(&house, "hang", "many");
    for n in 0..SERVICES {
        define(&house, &format!("many{n}"), &command, "every = \"300ms\"\ntimeout = \"60s\"");
    }
    house.open();
    let first = house.wait_up("shop", None);
    let refused = || {
        (0..SERVICES).find(|n| {
            let checks = house.status(&format!("many{n}"))["checks"].clone();
            checks.to_string().contains("too many programs of checks run already")
        })
    };
    wait_for("the bound to be told", PATIENCE, refused);
    assert_eq!(lines(&file).len(), heeler::model::limits::PROGRAMS_MAX);
    let began = Instant::now();
    signal(first, "KILL");
    house.wait_up("shop", Some(first));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}
