//! Files under the real keeper: no line is missed while it restarts, and a file system that hangs hurts
//! only its own check.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::hanging::Hanging;
use crate::support::house::{House, PATIENCE, signal};
use crate::support::{Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstart_limit = \"100 per 1m\"\n";

fn append(house: &House, name: &str, text: &str) {
    let path = house.path(name);
    let mut file = fs::File::options().append(true).create(true).open(path).expect("open");
    file.write_all(text.as_bytes()).expect("write");
}

fn wait_mail(house: &House, words: &str) {
    wait_for(&format!("a mail with {words:?}"), PATIENCE, || {
        house.mails().iter().any(|mail| mail.replace("=\r\n", "").contains(words)).then_some(())
    });
}

/// Waits until the past that is written down is another one.
fn wait_kept(house: &House, not: &[u8]) -> Vec<u8> {
    wait_for("the past to be written down", PATIENCE, || {
        let kept = fs::read(house.path("run/svc/log/check-0.past")).ok()?;
        (kept != not).then_some(kept)
    })
}

fn wait_quiet(house: &House) {
    wait_for("the check to be well again", PATIENCE, || {
        (house.status("log")["checks"][0]["state"] == "ok").then_some(())
    });
}

#[test]
fn no_line_is_missed_while_heeler_restarts() {
    let mut house = House::new("");
    append(&house, "srv/log", "ERROR long ago\n");
    let log = house.path("srv/log");
    let check = "[[check]]\ntype = \"file\"\ncontent = \"ERROR\"\n";
    house.define("log", &format!("every = \"200ms\"\n{check}path = {log:?}\n"));
    house.open();
    let first = wait_kept(&house, b"");
    append(&house, "srv/log", "ERROR one\n");
    wait_mail(&house, "ERROR one");
    wait_kept(&house, &first);
    // What comes while an incident is open belongs to it, and is no mail of its own. An order is answered
    // when all before it is on disk: that it is over will not be forgotten.
    wait_quiet(&house);
    assert_eq!(house.heeler(&["monitor", "log"]).0, 0);
    let second = fs::read(house.path("run/svc/log/check-0.past")).expect("is written down");
    house.kill_keeper();
    append(&house, "srv/log", "ERROR two while nobody looks\n");
    fs::rename(&log, house.path("srv/log.1")).expect("rename");
    append(&house, "srv/log", "fine\n");
    house.open();
    wait_mail(&house, "ERROR two while nobody looks");
    wait_kept(&house, &second);
    wait_quiet(&house);
    assert_eq!(house.close(), Some(0));
    // What is written down and not understood is as good as nothing.
    fs::write(house.path("run/svc/log/check-0.past"), "{\"place\":1,").expect("write");
    append(&house, "srv/log", "ERROR three is not seen\n");
    house.open();
    wait_kept(&house, b"{\"place\":1,");
    append(&house, "srv/log", "ERROR four\n");
    wait_mail(&house, "ERROR four");
    let mails = house.mails().concat();
    assert!(!mails.contains("ERROR three") && !mails.contains("long ago"), "{mails}");
}

#[test]
fn a_file_system_that_hangs_hurts_only_its_own_check() {
    if !can_run(&[Need::Root, Need::Program("/dev/fuse", "a kernel with FUSE")]) {
        return;
    }
    const MANY: usize = 20;
    let mut house = House::new("");
    let Some(hanging) = Hanging::make(&house.path("hanging")) else {
        eprintln!("SKIPPED for want of: the right to mount FUSE");
        return;
    };
    for n in 0..MANY {
        let kind = ["file", "directory", "filesystem"][n % 3];
        let path = hanging.at.join(n.to_string());
        let check = format!("[[check]]\ntype = \"{kind}\"\npath = {path:?}\ntimeout = \"500ms\"\n");
        house.define(&format!("hangs{n}"), &format!("every = \"300ms\"\n{check}"));
    }
    let flag = house.path("srv/flag");
    let check = format!("[[check]]\ntype = \"file\"\npath = {flag:?}\nexists = \"no\"\n");
    // By their names they are looked at last; the one is a process, the other a file on a good disk.
    house.daemon("zealous", "", QUICK);
    house.define("zflag", &format!("every = \"300ms\"\n{check}"));
    house.open();
    let mut main = house.wait_up("zealous", None);
    for n in 0..MANY {
        wait_for("a hanging check to be unknown", PATIENCE, || {
            let text = house.status(&format!("hangs{n}"))["checks"].to_string();
            (text.contains("come back")).then_some(())
        });
    }
    let mut worst = Duration::ZERO;
    for _ in 0..3 {
        // Between two starts of heeler's own lies at least a second.
        std::thread::sleep(Duration::from_millis(1200));
        let began = Instant::now();
        signal(main, "KILL");
        main = house.wait_up("zealous", Some(main));
        worst = worst.max(began.elapsed());
    }
    let began = Instant::now();
    fs::write(&flag, "").expect("write");
    wait_for("the other check to fire", PATIENCE, || {
        let text = house.status("zflag")["checks"].to_string();
        text.contains("exists").then_some(())
    });
    let noticed = began.elapsed();
    let threads = fs::read_dir(format!("/proc/{}/task", house.keeper())).expect("it lives").count();
    eprintln!(
        "beside {MANY} checks that hang: back within {worst:?}, a flag noticed in {noticed:?}, \
         {threads} threads"
    );
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    assert!(noticed < Duration::from_secs(2), "{noticed:?}");
    assert!(threads < MANY + 12, "one each, not one for each look: {threads}");
    assert_eq!(house.doubles("zealous"), 0);
    let began = Instant::now();
    assert_eq!(house.close(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
