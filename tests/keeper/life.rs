//! A service dies, is stopped, started, restarted; heeler ends and comes back.

use std::fs;
use std::time::Duration;

use crate::support::house::{House, PATIENCE, alive, signal};
use crate::support::wait_for;

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"2s\"\n";

#[test]
fn a_killed_daemon_is_brought_back_once_and_one_mail_tells_it() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    let first = house.wait_up("shop", None);
    signal(first, "KILL");
    let second = house.wait_up("shop", Some(first));
    assert_eq!(house.starts("shop"), [first, second]);
    assert_eq!(house.doubles("shop"), 0);
    let mails =
        wait_for("the mail", PATIENCE, || Some(house.mails()).filter(|mails| !mails.is_empty()));
    assert_eq!(mails.len(), 1, "{mails:?}");
    for part in
        ["shop: brought back", &format!("{first} is gone"), &format!("up again: pid {second}")]
    {
        assert!(mails[0].contains(part), "{part:?} is not in\n{}", mails[0]);
    }
    let (code, why, _) = house.heeler(&["why", "shop"]);
    assert_eq!(code, 0);
    assert!(why.contains(&format!("{first} is gone")), "{why}");
}

#[test]
fn a_foreground_program_is_kept_and_its_exit_status_is_told() {
    let mut house = House::new("");
    let run = house.command("shop", "foreground");
    house.define("shop", &format!("run = {run:?}\n{QUICK}"));
    house.open();
    let first = house.wait_up("shop", None);
    house.wait_starts("shop", &[first]);
    signal(first, "KILL");
    let second = house.wait_up("shop", Some(first));
    house.wait_starts("shop", &[first, second]);
    wait_for("the exit status in the mail", PATIENCE, || {
        house.mails().iter().any(|mail| mail.contains("killed by SIGKILL")).then_some(())
    });
}

#[test]
fn an_operator_stops_starts_and_restarts_and_is_told_when_it_is_so() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    let first = house.wait_up("shop", None);
    let (code, out, err) = house.heeler(&["restart", "shop"]);
    assert_eq!(code, 0, "{out}{err}");
    let second = house.pid("shop").expect("is up");
    assert!(second != first && !alive(first) && alive(second));
    assert_eq!(house.heeler(&["stop", "shop"]).0, 0);
    assert!(!alive(second));
    assert_eq!(house.heeler(&["status", "shop"]).0, 3);
    assert_eq!(house.heeler(&["stop", "shop"]).0, 0, "stopping what is down is done");
    assert_eq!(house.heeler(&["start", "shop"]).0, 0);
    let third = house.pid("shop").expect("is up");
    assert_eq!(house.starts("shop"), [first, second, third]);
    assert_eq!(house.heeler(&["start", "nosuch"]).0, 4);
    assert_eq!(house.heeler(&["unmonitor", "shop"]).0, 0);
    signal(third, "KILL");
    house.wait_words("shop", "down, not monitored");
    assert_eq!(house.starts("shop").len(), 3, "an unmonitored service is left alone");
    assert_eq!(house.heeler(&["monitor", "shop"]).0, 0);
    house.wait_up("shop", Some(third));
}

#[test]
fn heeler_ends_crashes_and_returns_without_touching_anything() {
    let mut house = House::new("");
    house.daemon("daemon", "", QUICK);
    let run = house.command("program", "foreground");
    house.define("program", &format!("run = {run:?}\n{QUICK}"));
    house.open();
    let (daemon, program) = (house.wait_up("daemon", None), house.wait_up("program", None));
    for crash in [false, true] {
        if crash {
            house.kill_keeper();
        } else {
            assert_eq!(house.close(), Some(0));
        }
        assert!(alive(daemon) && alive(program));
        house.open();
        assert_eq!(
            (house.wait_up("daemon", None), house.wait_up("program", None)),
            (daemon, program)
        );
    }
    // What an earlier heeler started is this one's to keep.
    signal(program, "KILL");
    signal(daemon, "KILL");
    house.wait_up("daemon", Some(daemon));
    house.wait_up("program", Some(program));
    wait_for("both to have started once more", PATIENCE, || {
        (house.starts("daemon").len() == 2 && house.starts("program").len() == 2).then_some(())
    });
}

/// KIL-01.
#[test]
fn what_ignores_term_is_killed_after_its_time_and_not_before() {
    let mut house = House::new("");
    house.daemon("deaf", "term=ignore", QUICK);
    house.open();
    let pid = house.wait_up("deaf", None);
    let began = std::time::Instant::now();
    let (code, out, _) = house.heeler(&["stop", "deaf"]);
    assert_eq!(code, 0, "{out}");
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(!alive(pid));
    assert!(house.log().contains("SIGKILL"));
}

/// ALR-08, by heeler's own starts; by a manager's: tests/systemd/units.rs.
#[test]
fn what_dies_after_each_start_is_one_incident_with_counts_until_it_has_been_well_for_a_while() {
    let mut house = House::new("");
    let limits = "start_limit = \"3 per 8s\"\nbackoff = \"1s to 2s\"\n";
    house.daemon("shop", "dies=1", &format!("{QUICK}{limits}"));
    house.open();
    wait_for("eight deaths", PATIENCE, || (house.starts("shop").len() > 8).then_some(()));
    let mails = house.mails();
    assert_eq!(mails.len(), 1, "{mails:#?}");
    println!("---- meanwhile\n{}{}", mails[0], house.heeler(&["status"]).1);
    let wrong = house.status("shop")["wrong"][0].as_str().map(str::to_owned);
    assert!(wrong.is_none_or(|wrong| wrong.contains("deaths without 8s of health between")));
    house.write("srv/shop.mended", "");
    let mails = wait_for("its end to be told", PATIENCE, || {
        Some(house.mails()).filter(|mails| mails.len() > 1)
    });
    println!("---- the end\n{}", mails[1]);
    let text = mails[1].split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("X-Heeler-Kind: resolved"), "{text}");
    assert!(text.contains("deaths without 8s of health between"), "{text}");
    assert_eq!((mails.len(), house.doubles("shop")), (2, 0));
}

#[test]
fn a_deploys_own_stop_and_start_is_not_raced() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    let first = house.wait_up("shop", None);
    // It goes in order, removing its pidfile; the deploy starts its own a second later.
    signal(first, "TERM");
    house.wait_words("shop", "successor");
    let start = house.command("shop", "");
    let status = std::process::Command::new("sh").arg("-c").arg(&start).status().expect("runs");
    assert!(status.success());
    let second = house.wait_up("shop", Some(first));
    assert_eq!(house.starts("shop"), [first, second]);
    assert_eq!(house.doubles("shop"), 0, "heeler started a second copy");
}

/// CRA-09.
#[test]
fn a_second_heeler_ends_at_once_and_leaves_the_first_alone() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    let pid = house.wait_up("shop", None);
    // The second time shows that the first time left the lock and the socket as they were.
    for _ in 0..2 {
        let began = std::time::Instant::now();
        let second = std::process::Command::new(crate::support::HEELER)
            .arg("run")
            .arg(house.path("conf.d"))
            .output()
            .expect("runs");
        assert_eq!(second.status.code(), Some(1));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let said = String::from_utf8_lossy(&second.stderr);
        assert!(said.contains("another heeler is running"), "{said}");
        assert_eq!(house.heeler(&["status", "shop"]).0, 0);
    }
    assert_eq!((house.pid("shop"), house.starts("shop")), (Some(pid), vec![pid]));
}

#[test]
fn a_bad_file_leaves_its_last_good_definition_in_force() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    let pid = house.wait_up("shop", None);
    house.close();
    let good = fs::read_to_string(house.path("conf.d/shop.toml")).expect("is there");
    house.define("shop", "pidfle = 7\n");
    house.open();
    assert_eq!(house.wait_up("shop", None), pid);
    let log = house.log();
    assert!(log.contains("last good definition stays in force") && log.contains("pidfle"), "{log}");
    house.close();
    house.define("shop", &good);
    house.open();
    assert_eq!(house.wait_up("shop", None), pid);
}
