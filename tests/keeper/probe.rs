//! `heeler probe`: what is seen now, by the way of the real check, and nothing comes of it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::hanging::Hanging;
use crate::support::house::{House, PATIENCE, lines};
use crate::support::{Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\n";

/// Exit code, and the checks of the answer.
fn probe(house: &House, args: &[&str]) -> (i32, Vec<Value>) {
    let (code, out, err) = house.heeler(&[&["probe", "--json"], args].concat());
    let answer: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    (code, answer["checks"].as_array().expect("a list").clone())
}

fn verdicts(checks: &[Value]) -> Vec<&str> {
    checks.iter().map(|check| check["verdict"].as_str().expect("a word")).collect()
}

#[test]
fn each_kind_of_check_is_run_as_it_really_is() {
    let mut house = House::new("");
    let page = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = page.local_addr().expect("an address").port();
    house.write("srv/note", "hello\n");
    let note = house.path("srv/note");
    let checks = format!(
        "[[check]]\nif = \"memory > 1TiB\"\n\
         [[check]]\nif = \"cpu > 9000%\"\n\
         [[check]]\ntype = \"port\"\nport = {port}\nhost = \"127.0.0.1\"\n\
         [[check]]\nname = \"the note\"\ntype = \"file\"\npath = {note:?}\nif = \"failed or size > 1MB\"\n\
         [[check]]\nname = \"who\"\ntype = \"program\"\ncommand = \"id -u\"\n\
         [[check]]\ntype = \"system\"\nif = \"iowait > 100% or load1 > 9000\"\n"
    );
    house.daemon("shop", "", &format!("{QUICK}{checks}"));
    house.open();
    house.wait_up("shop", None);
    let (code, all) = probe(&house, &["shop"]);
    assert_eq!((code, verdicts(&all)), (0, vec!["pass"; 6]), "{all:#?}");
    let metric = |at: usize, name: &str| {
        let mut metrics = all[at]["metrics"].as_array().expect("a list").iter();
        let found = metrics.find(|one| one["metric"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {:#?}", all[at]))["value"].clone()
    };
    assert!(
        !metric(0, "memory").as_str().expect("a text").contains("at most"),
        "the number itself"
    );
    // A rate: it was looked at twice.
    assert!(metric(1, "cpu").as_str().expect("a text").ends_with('%'));
    metric(5, "iowait");
    let who = all[4]["detail"].as_str().expect("a text");
    assert!(who.contains(&nix::unistd::geteuid().to_string()), "{who}");
    drop(page);
    let (code, one) = probe(&house, &["shop", "3"]);
    assert_eq!((code, verdicts(&one)), (1, vec!["fail"]), "{one:#?}");
    let (code, out, _) = house.heeler(&["probe", "shop", "3"]);
    assert!(code == 1 && out.starts_with(" 3  FAIL     port") && out.contains("refused"), "{out}");
    for (which, code, says) in [
        ("the note", 0, "pass"),
        ("note", 0, "pass"),
        ("7", 4, "has no such check"),
        ("0", 4, "has no such check"),
        ("o", 4, "more than one check of shop"),
        ("\x1b[2J", 4, "has no such check"),
    ] {
        let (rc, out, err) = house.heeler(&["probe", "shop", which]);
        assert!(rc == code && (out + &err).contains(says), "{which}: {rc} {err}");
    }
    assert_eq!(house.heeler(&["probe", "nix"]).0, 4);
    house.heeler(&["stop", "shop"]);
    let (code, one) = probe(&house, &["shop", "memory"]);
    assert_eq!((code, verdicts(&one)), (1, vec!["unknown"]), "{one:#?}");
    assert!(one[0]["why"].as_str().expect("a text").contains("not running"), "{one:#?}");
}

#[test]
fn nothing_comes_of_it() {
    let mut house = House::new("");
    house.write("srv/shop.log", "begun\n");
    let (log, flag) = (house.path("srv/shop.log"), house.path("srv/flag"));
    house.write("srv/flag", "");
    // Looked at once when heeler begins, and then in an hour. What the next heeler finds changed restarts nothing:
    // what is seen of a service that is on its way down is dropped, the line too.
    let checks = format!(
        "[[check]]\nname = \"lines\"\ntype = \"file\"\npath = {log:?}\ncontent = \"ERROR\"\n\
         every = \"1h\"\nthen = \"alert\"\n\
         [[check]]\nname = \"flag\"\ntype = \"file\"\npath = {flag:?}\nevery = \"1h\"\nthen = \"restart\"\n\
         [[check]]\nname = \"change\"\ntype = \"file\"\npath = {flag:?}\nif = \"changed\"\n\
         every = \"1h\"\nthen = \"alert\"\n"
    );
    house.daemon("shop", "", &format!("{QUICK}{checks}"));
    house.open();
    let pid = house.wait_up("shop", None);
    let looked = || {
        let status = house.status("shop");
        let text = |at: usize| status["checks"][at]["text"].as_str().unwrap_or("").to_owned();
        (text(0).contains('(') && text(1).contains('(')).then_some(status["checks"].clone())
    };
    let kept = || house.path("run/svc/shop/check-0.past").exists().then_some(());
    wait_for("the real ones to have looked", PATIENCE, || looked().and_then(|_| kept()));
    let before = looked();
    let events = house.heeler(&["events", "shop", "--json"]).1;
    fs::write(&log, "begun\nERROR: the disk is on fire\n").expect("writes");
    fs::remove_file(&flag).expect("removes");
    for _ in 0..3 {
        let (code, all) = probe(&house, &["shop"]);
        // What the real one has not seen yet is seen by each, and left for it.
        assert_eq!((code, verdicts(&all)), (1, vec!["fail"; 3]), "{all:#?}");
    }
    assert_eq!(looked(), before, "the state of the checks");
    assert_eq!(house.pid("shop"), Some(pid));
    assert_eq!(house.heeler(&["events", "shop", "--json"]).1, events);
    assert!(house.mails().is_empty());
    assert!(house.log().contains("asked for a probe of shop"), "but who asked is known");
    house.kill_keeper();
    house.write("srv/flag", "");
    house.open();
    wait_for("the real one to see the line", PATIENCE, || {
        house.heeler(&["events", "shop"]).1.contains("ERROR: the disk is on fire").then_some(())
    });
}

/// PLG-08: a program never runs twice at once, whoever asks.
#[test]
fn who_asks_while_a_program_runs_gets_what_it_says() {
    let mut house = House::new("");
    let script = "#!/bin/sh\necho run >> \"$1\"; sleep 1; echo done\n";
    house.write("slow.sh", script);
    let path = house.path("slow.sh");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    let runs = house.path("srv/runs");
    let command = format!("{} {}", path.display(), runs.display());
    let check = format!(
        "[[check]]\nname = \"slow\"\ntype = \"program\"\ncommand = {command:?}\nevery = \"1h\"\n"
    );
    house.daemon("shop", "", &format!("{QUICK}{check}"));
    house.open();
    house.wait_up("shop", None);
    wait_for("the real one to run", PATIENCE, || (!lines(&runs).is_empty()).then_some(()));
    let before = lines(&runs).len();
    let house = &house;
    let answers: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..3).map(|_| scope.spawn(move || probe(house, &["shop", "slow"]))).collect();
        clients.into_iter().map(|client| client.join().expect("ends")).collect()
    });
    for (code, checks) in answers {
        assert_eq!((code, verdicts(&checks)), (0, vec!["pass"]), "{checks:#?}");
    }
    let after = lines(&runs).len();
    assert!(after <= before + 2, "three asked at once, {} runs", after - before);
}

#[test]
fn what_hangs_is_unknown_after_its_time_and_holds_up_nobody() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    let Some(hanging) = Hanging::make(&house.path("hangs")) else {
        eprintln!("SKIPPED for want of: /dev/fuse");
        return;
    };
    let file = hanging.at.join("file");
    let checks = format!(
        "[[check]]\nname = \"hangs\"\ntype = \"file\"\npath = {file:?}\ntimeout = \"1s\"\nevery = \"1h\"\n\
         [[check]]\nname = \"sleeps\"\ntype = \"program\"\ncommand = \"sleep 60\"\ntimeout = \"1s\"\n\
         every = \"1h\"\n\
         [[check]]\nname = \"fine\"\ntype = \"program\"\ncommand = \"true\"\nevery = \"1h\"\n"
    );
    house.daemon("shop", "", &format!("{QUICK}{checks}"));
    house.open();
    house.wait_up("shop", None);
    let begun = Instant::now();
    let (code, all) = probe(&house, &["shop"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(code, 1);
    assert_eq!((verdicts(&all)[0], verdicts(&all)[2]), ("unknown", "pass"), "{all:#?}");
    assert_ne!(verdicts(&all)[1], "pass", "{all:#?}");
    assert!(all[0]["why"].as_str().expect("a text").contains("does its file system hang?"));
    // A second one does not take a second thread.
    let (_, again) = probe(&house, &["shop", "hangs"]);
    assert!(
        again[0]["why"].as_str().expect("a text").contains("has not come back yet"),
        "{again:#?}"
    );
    assert_eq!(house.heeler(&["status", "shop"]).0, 0);
}
