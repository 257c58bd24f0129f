//! The configuration is read anew: what changed comes into force, what did not is not touched (CFG).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::house::{House, PATIENCE, alive, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"2s\"\n";

#[test]
fn services_come_change_and_go_and_no_process_is_touched() {
    let mut house = House::new("");
    let run = house.command("run", "foreground");
    house.define("run", &format!("run = {run:?}\n{QUICK}"));
    house.daemon("same", "", QUICK);
    house.daemon("other", "", QUICK);
    house.daemon("gone", "", QUICK);
    house.open();
    let before = ["run", "same", "other", "gone"].map(|name| house.wait_up(name, None));
    house.wait_noted();
    house.daemon("new", "", QUICK);
    house.daemon("other", "", &format!("{QUICK}exit_delay = \"1s\"\n"));
    house.undefine("gone");
    let told = house.reload_well();
    for line in [
        "added    new",
        "changed  other\n           exit_delay: (not said) -> \"1s\"",
        "removed  gone",
    ] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    assert!(told.ends_with("2 services unchanged\n"), "{told}");
    let new = house.wait_up("new", None);
    let after = ["run", "same", "other"].map(|name| house.wait_up(name, None));
    assert_eq!(after, before[..3]);
    assert!(alive(before[3]), "a service whose file is gone is left as it is");
    assert_eq!(house.heeler(&["status", "gone"]).0, 4);
    assert_eq!(house.reload_well(), "nothing changes: 4 services as before\n");
    // It is there, and it is kept.
    signal(new, "KILL");
    house.wait_up("new", Some(new));
    // The one that is gone is nobody's any more.
    signal(before[3], "KILL");
    house.heeler(&["restart", "same"]);
    assert_eq!(house.starts("gone"), [before[3]]);
    // And when its file is back it is started.
    house.daemon("gone", "", QUICK);
    assert!(house.reload_well().contains("added    gone"));
    house.wait_up("gone", Some(before[3]));
}

#[test]
fn of_very_many_bad_files_some_are_named_and_all_are_counted() {
    let mut house = House::new("");
    for index in 10..60 {
        house.define(&format!("s{index}"), "pidfle = \"/run/x.pid\"\n");
    }
    house.open();
    let mail = wait_for("a mail", PATIENCE, || house.mails().pop());
    let flat = mail.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["heeler: 50 files are bad: s10.toml is bad", "; and 42 more"] {
        assert!(flat.contains(part), "{part:?} is not in\n{mail}");
    }
    assert!(!flat.contains("s18.toml is bad"), "{mail}");
}

#[test]
fn a_hangup_is_a_reload_and_many_of_them_are_one() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    let first = house.wait_up("shop", None);
    let start = house.command("shop", "mb=1");
    let pidfile = house.path("srv/shop.pid");
    house.define("shop", &format!("pidfile = {pidfile:?}\nstart = {start:?}\n{QUICK}"));
    for _ in 0..1000 {
        signal(house.keeper(), "HUP");
    }
    wait_for("the reload", PATIENCE, || house.log().contains("shop changed (start)").then_some(()));
    assert_eq!(house.wait_up("shop", None), first);
    let read = house.log().lines().filter(|line| line.contains("configuration read")).count();
    assert!(read < 500, "{read} readings for 1000 signals");
    signal(first, "KILL");
    let second = house.wait_up("shop", Some(first));
    let title = fs::read(format!("/proc/{second}/cmdline")).expect("it lives");
    assert!(!title.is_empty());
    assert!(house.log().contains("mb=1"), "the new command starts it:\n{}", house.log());
}

#[test]
fn another_pidfile_is_looked_at_and_the_old_process_is_let_go_of_untouched() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.daemon("shop2", "", QUICK);
    house.open();
    let (first, second) = (house.wait_up("shop", None), house.wait_up("shop2", None));
    // `shop2` is watched as `shop` from now on.
    house.undefine("shop2");
    house.daemon("shop2", "", QUICK);
    let theirs = fs::read_to_string(house.path("conf.d/shop2.toml")).expect("is there");
    house.undefine("shop2");
    house.define("shop", &format!("{theirs}exit_delay = \"1s\"\n"));
    house.reload_well();
    assert_eq!(house.wait_up("shop", Some(first)), second);
    assert!(alive(first) && alive(second));
    signal(second, "KILL");
    house.wait_up("shop", Some(second));
    assert_eq!((house.starts("shop").len(), house.starts("shop2").len()), (1, 2));
    assert_eq!((house.doubles("shop"), house.doubles("shop2")), (0, 0));
}

#[test]
fn cfg_05_actions_finish_and_nothing_is_started_twice() {
    let mut house = House::new("");
    // No start ends before it is there.
    let gate = house.path("srv/gate");
    let slow = |house: &House, name: &str, lines: &str| {
        let began = house.path(&format!("srv/{name}.began"));
        let slow = format!(
            "echo x >> {}; until test -e {}; do sleep 0.05; done; exec {}",
            began.display(),
            gate.display(),
            house.command(name, "")
        );
        let pidfile = house.path(&format!("srv/{name}.pid"));
        let start = format!("start = {{ run = {slow:?}, shell = true }}\n");
        format!("pidfile = {pidfile:?}\n{start}{QUICK}{lines}")
    };
    let names: Vec<_> = (0..8).map(|n| format!("s{n}")).collect();
    for name in &names {
        house.define(name, &slow(&house, name, ""));
    }
    house.open();
    let began = |name: &str| {
        fs::read_to_string(house.path(&format!("srv/{name}.began")))
            .map(|text| text.lines().count())
            .unwrap_or(0)
    };
    wait_for("all starts to run", PATIENCE, || {
        names.iter().all(|name| began(name) == 1).then_some(())
    });
    // Two change, two are renamed, two go, two stay; all of it while they start.
    house.define("s0", &slow(&house, "s0", "exit_delay = \"1s\"\n"));
    house.define("s1", &slow(&house, "s1", "stop_timeout = \"9s\"\n").replace(QUICK, ""));
    house.rename("s2", "t2");
    house.rename("s3", "t3");
    house.undefine("s4");
    house.undefine("s5");
    let told = house.reload_well();
    for line in ["changed  s0", "renamed  s2 is now t2", "removed  s4", "2 services unchanged"] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    fs::write(&gate, "").expect("opens");
    for (service, name) in
        [("s0", "s0"), ("s1", "s1"), ("t2", "s2"), ("t3", "s3"), ("s6", "s6"), ("s7", "s7")]
    {
        let pid = house.wait_up(service, None);
        assert_eq!((house.starts(name), house.doubles(name), began(name)), (vec![pid], 0, 1));
    }
    // Those that are watched no longer were started all the same: what runs is not touched.
    for name in ["s4", "s5"] {
        wait_for("its start to end", PATIENCE, || (house.starts(name).len() == 1).then_some(()));
        assert_eq!(began(name), 1);
    }
    fs::remove_file(&gate).expect("closes");
    // In the middle of a restart: what is told to go goes, and is nobody's then.
    let mut client = Command::new(HEELER)
        .env("HEELER_SOCKET", house.path("run/control.sock"))
        .args(["restart", "s6", "s7"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the client runs");
    wait_for("both restarts to start", PATIENCE, || {
        (began("s6") == 2 && began("s7") == 2).then_some(())
    });
    house.undefine("s6");
    house.rename("s7", "t7");
    house.reload_well();
    fs::write(&gate, "").expect("opens");
    let end = wait_for("the client to be answered", PATIENCE, || client.try_wait().expect("wait"));
    assert_eq!(end.code(), Some(1));
    house.wait_up("t7", None);
    wait_for("both to have come up", PATIENCE, || {
        (house.starts("s6").len() == 2 && house.starts("s7").len() == 2).then_some(())
    });
    assert_eq!((house.doubles("s6"), house.doubles("s7")), (0, 0));
    assert_eq!((began("s6"), began("s7")), (2, 2));
}

#[test]
fn cfg_05_the_state_of_unchanged_checks_is_kept() {
    let mut house = House::new("");
    let mark = house.path("srv/bad");
    let check = |more: &str| {
        let command = format!("test ! -e {}", mark.display());
        format!(
            "[[check]]\ntype = \"program\"\nname = \"mark\"\n\
             command = {{ run = {command:?}, shell = true }}\nevery = \"300ms\"\nfor = \"3 of 3\"\n\
             then = \"alert\"\n{more}"
        )
    };
    let other = "[[check]]\ntype = \"filesystem\"\npath = \"/\"\nevery = \"1h\"\n";
    house.define("checks", &check(""));
    house.open();
    let state = |at: usize| house.status("checks")["checks"][at]["state"].clone();
    wait_for("the first look", PATIENCE, || (state(0) == "ok").then_some(()));
    house.write("srv/bad", "");
    wait_for("it to fire", PATIENCE, || (state(0) == "firing").then_some(()));
    let since = house.status("checks")["since_unix_ms"].clone();
    // It is the second now, and goes on firing; nobody is told again.
    house.define("checks", &format!("{other}{}", check("")));
    assert!(house.reload_well().contains("changed  checks"));
    assert_eq!(state(1), "firing");
    assert_eq!(house.status("checks")["since_unix_ms"], since);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(state(1), "firing");
    let alerts = || house.log().matches("over: failed").count();
    assert_eq!(alerts(), 0, "{}", house.log());
    fs::remove_file(house.path("srv/bad")).expect("remove");
    wait_for("it to be over", PATIENCE, || (state(1) == "ok").then_some(()));
    house.write("srv/bad", "");
    wait_for("it to fire again", PATIENCE, || (state(1) == "firing").then_some(()));
    // The check is gone, and its incident with it.
    house.define("checks", other);
    house.reload_well();
    assert!(house.log().contains("it is no longer checked"), "{}", house.log());
    assert_eq!(house.status("checks")["wrong"], serde_json::json!([]));
}

#[test]
fn settings_that_can_change_do_and_others_are_named() {
    let mut house = House::new("[defaults]\nexit_delay = \"5s\"\n");
    house.daemon("shop", "", QUICK);
    house.open();
    let pid = house.wait_up("shop", None);
    let old = fs::read_to_string(house.path("conf.d/heeler.toml")).expect("is there");
    let elsewhere = house.path("elsewhere");
    let new = old
        .replace("exit_delay = \"5s\"", "exit_delay = \"1s\"")
        .replace("[defaults]", "hostname = \"web1.example.com\"\n[defaults]")
        .replace(
            &format!("run_dir = {:?}", house.path("run")),
            &format!("run_dir = {elsewhere:?}"),
        );
    house.write("conf.d/heeler.toml", &new);
    let told = house.reload_well();
    for line in [
        "settings defaults.exit_delay: \"5s\" -> \"1s\"",
        "settings hostname: (not said) -> \"web1.example.com\"",
        "needs a restart of heeler",
        "changed  shop\n           by heeler.toml",
    ] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    assert!(!elsewhere.exists());
    let (_, status, _) = house.heeler(&["status"]);
    assert!(status.contains("run_dir in heeler.toml: needs a restart of heeler"), "{status}");
    // The mails come from there now.
    signal(pid, "KILL");
    house.wait_up("shop", Some(pid));
    let mail = wait_for("the mail", PATIENCE, || house.mails().pop());
    assert!(mail.contains("[web1.example.com] shop"), "{mail}");
    house.write("conf.d/heeler.toml", &old);
    house.reload_well();
    assert!(!house.heeler(&["status"]).1.contains("needs a restart"));
}

#[test]
fn a_bad_file_leaves_what_was_in_force_and_is_told() {
    let mut house = House::new("");
    house.daemon("shop", "", &format!("{QUICK}alert = [\"ops@example.com\"]\n"));
    house.open();
    let pid = house.wait_up("shop", None);
    let good = fs::read_to_string(house.path("conf.d/shop.toml")).expect("is there");
    house.define("shop", &format!("{good}stop_timout = \"1s\"\n"));
    house.define("new", "pidfle = \"/run/x.pid\"\n");
    house.write("conf.d/no good name.toml", "");
    let (code, told) = house.reload();
    assert_eq!(code, 1, "{told}");
    // As `heeler validate` says it, all of it.
    for part in [
        "shop.toml",
        "stop_timout = \"1s\"\n  | ^^^^^^^^^^^",
        "did you mean `stop_timeout`?",
        "pidfle",
        "no good name.toml",
        "bad      shop.toml: its last good definition stays in force",
        "bad      new.toml: there is no good definition of it, so it is not watched",
        "nothing changes",
    ] {
        let expected = part != "nothing changes";
        assert_eq!(told.contains(part), expected, "{part:?} in\n{told}");
    }
    assert_eq!(house.wait_up("shop", None), pid);
    let wrong = house.status("shop")["wrong"].to_string();
    assert!(wrong.contains("shop.toml is bad: its last good definition stays in force"), "{wrong}");
    let (_, status, _) = house.heeler(&["status"]);
    for part in ["shop.toml is bad", "new.toml is bad", "heeler validate"] {
        assert!(status.contains(part), "{part:?} is not in\n{status}");
    }
    let mails =
        wait_for("two mails", PATIENCE, || Some(house.mails()).filter(|mails| mails.len() >= 2));
    let all = mails.join("\n");
    assert_eq!(mails.len(), 2, "{all}");
    for part in [
        "shop: shop.toml is bad: its last good definition",
        "heeler: 2 files are bad",
        "unknown key `stop_timout`",
        "heeler reload-config",
    ] {
        let flat = all.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(part), "{part:?} is not in\n{flat}");
    }
    // Told once, be it read again, and by another keeper.
    assert_eq!(house.reload().0, 1);
    house.kill_keeper();
    house.open();
    assert_eq!(house.wait_up("shop", None), pid);
    assert!(house.log().contains("shop.toml is bad: its last good definition stays in force"));
    house.define("shop", &good);
    house.undefine("new");
    fs::remove_file(house.path("conf.d/no good name.toml")).expect("remove");
    assert_eq!(house.reload_well(), "nothing changes: 1 service as before\n");
    wait_for("both to be told to be over", PATIENCE, || (house.mails().len() == 4).then_some(()));
    assert_eq!(house.status("shop")["wrong"], serde_json::json!([]));
    assert!(!house.heeler(&["status"]).1.contains("bad"));
}

#[test]
fn a_bad_heeler_toml_leaves_the_settings_and_the_services_go_on_with_them() {
    let mut house = House::new("[defaults]\nexit_delay = \"1s\"\n");
    house.daemon("shop", "", QUICK);
    house.open();
    let pid = house.wait_up("shop", None);
    let good = fs::read_to_string(house.path("conf.d/heeler.toml")).expect("is there");
    house.write("conf.d/heeler.toml", &good.replace("exit_delay", "exit_dely"));
    house.daemon("more", "", QUICK);
    let (code, told) = house.reload();
    assert_eq!(code, 1);
    assert!(
        told.contains("did you mean `exit_delay`?") && told.contains("added    more"),
        "{told}"
    );
    assert!(told.contains("bad      heeler.toml: its last good definition stays"), "{told}");
    assert_eq!(house.wait_up("shop", None), pid);
    house.wait_up("more", None);
    let mail = wait_for("the mail", PATIENCE, || house.mails().pop());
    assert!(mail.contains("heeler: heeler.toml is bad"), "{mail}");
    house.write("conf.d/heeler.toml", &good);
    house.reload_well();
}

#[test]
fn a_plan_says_what_a_reload_would_do_and_does_nothing() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.daemon("page", "", QUICK);
    house.open();
    let pid = house.wait_up("shop", None);
    house.wait_up("page", None);
    let other = house.path("other.d");
    fs::create_dir(&other).expect("mkdir");
    for name in ["heeler.toml", "shop.toml"] {
        fs::copy(house.path("conf.d").join(name), other.join(name)).expect("copy");
    }
    let shop = fs::read_to_string(other.join("shop.toml")).expect("is there");
    let longer = shop.replace("stop_timeout = \"2s\"", "stop_timeout = \"7s\"");
    fs::write(other.join("shop.toml"), &longer).expect("write");
    fs::write(other.join("new.toml"), shop.replace("shop", "new")).expect("write");
    let plan = |house: &House| house.heeler(&["plan", &other.to_string_lossy()]);
    let lines = [
        "added    new",
        "changed  shop\n           stop_timeout: \"2s\" -> \"7s\"",
        "removed  page",
        "0 services unchanged",
    ];
    let (code, told, _) = plan(&house);
    assert_eq!(code, 0, "{told}");
    for line in lines {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    let (code, json, _) = house.heeler(&["plan", "--json", &other.to_string_lossy()]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json["good"]), (0, &serde_json::json!(true)));
    assert_eq!(json["services"][1]["keys"][0]["new"], "\"7s\"");
    let (_, nothing, _) = house.heeler(&["plan"]);
    assert_eq!(nothing, "nothing changes: 2 services as before\n");
    assert_eq!(house.wait_up("shop", None), pid);
    assert_eq!(house.status("new"), serde_json::Value::Null);
    // Bad files are an exit code, and what else would change is told.
    fs::write(other.join("bad.toml"), "pidfle = 1\n").expect("write");
    let (code, told, _) = plan(&house);
    assert_eq!(code, 1);
    assert!(told.contains("did you mean `pidfile`?") && told.contains("removed  page"), "{told}");
    let missing = house.path("missing.d");
    let (code, told, _) = house.heeler(&["plan", &missing.to_string_lossy()]);
    assert!(code == 1 && told.contains("missing.d"), "{code} {told}");
    // Without a daemon it is beside what was last in force.
    fs::remove_file(other.join("bad.toml")).expect("remove");
    assert_eq!(house.close(), Some(0));
    let (code, told, err) = plan(&house);
    assert_eq!(code, 0, "{told}{err}");
    for line in lines.into_iter().chain(["note     no heeler runs"]) {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
}

#[test]
fn rights_count_from_the_reload_on() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    house.daemon("shop", "", &format!("user = \"root\"\n{QUICK}"));
    house.open();
    house.wait_up("shop", None);
    let program = house.path("heeler");
    let copied = Command::new("install").args(["-m", "755", HEELER]).arg(&program).status();
    assert!(copied.expect("install").success());
    let nobody = |house: &House, args: &[&str]| {
        let mut client = Command::new(&program);
        client
            .env("HEELER_SOCKET", house.path("run/control.sock"))
            .args(args)
            .uid(65534)
            .gid(65534);
        let output = client.output().expect("the client runs");
        output.status.code()
    };
    assert_eq!(nobody(&house, &["status"]), Some(5));
    let allow = "allow = { nobody = [\"status\"] }\n";
    house.daemon("shop", "", &format!("user = \"root\"\n{QUICK}{allow}"));
    house.reload_well();
    wait_for("nobody to be let in", PATIENCE, || {
        (nobody(&house, &["status", "shop"]) == Some(0)).then_some(())
    });
    assert_eq!(nobody(&house, &["stop", "shop"]), Some(5));
    assert_eq!(nobody(&house, &["reload-config"]), Some(5));
    assert_eq!(nobody(&house, &["plan", "/"]), Some(5));
    house.daemon("shop", "", &format!("user = \"root\"\n{QUICK}"));
    house.reload_well();
    assert_eq!(nobody(&house, &["status"]), Some(5));
    // A user that was not known before: its service is started as it is.
    let world = house.path("srv");
    fs::set_permissions(&world, fs::Permissions::from_mode(0o777)).expect("chmod");
    house.daemon("theirs", "", &format!("user = \"daemon\"\n{QUICK}"));
    house.reload_well();
    let pid = house.wait_up("theirs", None);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    assert!(status.contains("\nUid:\t1\t1\t1\t1\n"), "{status}");
}
