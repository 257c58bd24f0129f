//! Services that need each other, with real processes: one cause is one mail (LOG-05).

use std::fs;

use crate::support::house::{House, PATIENCE, alive, signal};
use crate::support::wait_for;

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstart_timeout = \"2s\"\n";
/// A page that asks the database.
const PAGE: &str =
    "kill -0 $(cat $1/postgres.pid 2>&1) 2>/dev/null && exit 0\necho 500: no database\nexit 2\n";
/// What answers badly without the database, and is restarted for it.
const APPS: [&str; 5] = ["app1", "app2", "app3", "jobs", "search"];

/// The database is killed and cannot come back until its disk is mended. The page of each of five
/// dependants needs it; two of them die of it, and one of those needs the other.
#[test]
fn log_05_the_database_is_down_one_mail_names_five_and_they_come_back_parents_first() {
    let mut house = House::new("");
    let back_off = "start_limit = \"2 per 5s\"\nbackoff = \"500ms to 1s\"\n";
    house.daemon("postgres", "", &format!("{QUICK}{back_off}alert = [\"dba@example.com\"]"));
    house.write("srv/page.sh", PAGE);
    let page =
        format!("/bin/sh {} {}", house.path("srv/page.sh").display(), house.path("srv").display());
    for name in APPS {
        let needs = if name == "search" { "\"postgres\", \"jobs\"" } else { "\"postgres\"" };
        let page = format!(
            "[[check]]\ntype = \"program\"\nname = \"page\"\ncommand = {page:?}\nthen = \"restart\"\n\
             every = \"300ms\"\n"
        );
        let lines = format!(
            "{QUICK}depends_on = [{needs}]\nexit_delay = \"100ms\"\nalert = [\"web@example.com\"]\n{page}"
        );
        house.daemon(name, "", &lines);
    }
    house.open();
    let database = house.wait_up("postgres", None);
    let before: Vec<u32> = APPS.iter().map(|name| house.wait_up(name, None)).collect();
    for name in APPS {
        house.wait_check(name, "page", "ok", "");
        house.wait_words(name, "up");
    }
    assert_eq!(house.mails(), [""; 0]);
    let calm = house.heeler(&["events"]).1.lines().count();

    house.write("srv/postgres.fail", "");
    signal(database, "KILL");
    for name in APPS {
        house.wait_check(name, "page", "firing", "no database");
    }
    for pid in &before[3..] {
        signal(*pid, "KILL");
    }
    for (name, is) in APPS.iter().zip(["up", "up", "up", "down", "down"]) {
        // The nearest of those it needs.
        let of = if *name == "search" { "jobs" } else { "postgres" };
        house.wait_words(name, &format!("{is}, held back: {of} is down, which it needs"));
        let why = house.heeler(&["why", name]).1;
        assert!(why.contains(&format!("{of} is down, which it needs")), "{why}");
    }
    let mails =
        wait_for("the mail", PATIENCE, || Some(house.mails()).filter(|mails| !mails.is_empty()));
    println!("---- the alert\n{}", mails.join("----\n"));
    let [alert] = mails.as_slice() else { panic!("one mail, not {}", mails.len()) };
    assert!(alert.contains("X-Heeler-Service: postgres\r\n"), "{alert}");
    let text = alert.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("held back until that is over: app1, app2, app3, jobs, search"),
        "{alert}"
    );
    // It stays so over some of the database's own starts, which fail.
    let failed = || house.log().matches("start command failed").count();
    let so_far = failed();
    wait_for("more starts to fail", PATIENCE, || (failed() > so_far + 2).then_some(()));
    assert_eq!(house.mails().len(), 1);
    for ((name, pid), lives) in APPS.iter().zip(&before).zip([true, true, true, false, false]) {
        assert_eq!((house.starts(name), alive(*pid)), (vec![*pid], lives), "{name}");
    }
    println!("---- meanwhile\n{}", house.heeler(&["status"]).1);

    fs::remove_file(house.path("srv/postgres.fail")).expect("mended");
    house.wait_up("postgres", Some(database));
    for (name, pid) in APPS.iter().zip(&before).skip(3) {
        house.wait_up(name, Some(*pid));
    }
    for name in APPS {
        house.wait_check(name, "page", "ok", "");
    }
    let mails = wait_for("the end to be told", PATIENCE, || {
        Some(house.mails()).filter(|mails| mails.len() > 1)
    });
    // Their own deaths end after that, and are nobody's mail.
    for name in ["jobs", "search"] {
        wait_for("its death to be over", PATIENCE, || {
            house.heeler(&["why", name]).1.contains("over: up since as pid").then_some(())
        });
    }
    assert_eq!(house.mails(), mails);
    println!("---- the end\n{}", mails[1..].join("----\n"));
    let [_, over] = mails.as_slice() else { panic!("two mails, not {}", mails.len()) };
    assert!(over.contains("X-Heeler-Kind: resolved\r\n"), "{over}");
    assert!(over.contains("X-Heeler-Service: postgres\r\n"), "{over}");
    let events: String =
        house.heeler(&["events"]).1.lines().skip(calm).flat_map(|line| [line, "\n"]).collect();
    println!("---- what happened\n{events}");
    for (name, pid) in APPS.iter().zip(&before).take(3) {
        assert_eq!((house.starts(name), house.pid(name)), (vec![*pid], Some(*pid)), "{name}");
    }
    // By their own words.
    let began = |name: &str| {
        let text = fs::read_to_string(house.path(&format!("srv/{name}.starts"))).expect("it ran");
        let last = text.lines().last().and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok());
        (text.lines().count(), last.expect("a time"))
    };
    let [(dbs, db), (jobs, job), (searches, search)] = ["postgres", "jobs", "search"].map(began);
    assert_eq!((dbs, jobs, searches), (2, 2, 2), "once each");
    assert!(db < job && job < search, "{db} {job} {search}");
}
