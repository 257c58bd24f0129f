//! The whole way: a real heeler, a real service, a real mail server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::server::{Fault, Manners, Papers, Server, Step};
use crate::support::hanging::Hanging;
use crate::support::house::{House, PATIENCE, alive, pids, signal};
use crate::support::{Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"0s\"\nalert = [\"ops@example.com\"]\n";
const AUTH: Manners =
    Manners { fault: None, only_for: None, no_starttls: false, auth: "PLAIN LOGIN" };

/// A house whose mail goes to these servers, with a login.
fn house(servers: &[&Server], papers: &Papers, more: &str) -> House {
    let one = |house: &str, server: &&Server| {
        format!(
            "{{ host = \"localhost\", port = {}, user = \"alert\", password_file = \"{house}/password\", \
             ca_file = \"{house}/ca.pem\" }}",
            server.port
        )
    };
    let house = House::new("");
    let dir = house.path("").display().to_string();
    let dir = dir.trim_end_matches('/');
    let all: Vec<_> = servers.iter().map(|server| one(dir, server)).collect();
    let old = fs::read_to_string(house.path("conf.d/heeler.toml")).expect("reads");
    let mail = format!("[mail]\nfrom = \"heeler@web1\"\nservers = [{}]\n{more}\n", all.join(", "));
    house.write("conf.d/heeler.toml", &format!("{old}{mail}"));
    house.write("ca.pem", &papers.authority);
    house.write("password", "geheim\n");
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(house.path("password"), mode).expect("chmod");
    house
}

/// The mail scout of a house.
fn scout(house: &House) -> Option<u32> {
    pids().into_iter().find(|pid| {
        let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        title.starts_with(b"heeler\0scout\0mail\0") && parent == Some(house.keeper()) && alive(*pid)
    })
}

fn waiting(house: &House) -> usize {
    fs::read_dir(house.path("state/outbox/queue")).map(Iterator::count).unwrap_or(0)
}

fn mail_status(house: &House) -> serde_json::Value {
    let (_, out, _) = house.heeler(&["status", "--json"]);
    serde_json::from_str::<serde_json::Value>(&out).expect("JSON")["mail"].clone()
}

/// The shop comes up, and is killed: something to mail about. Who it was.
fn a_death(house: &mut House) -> u32 {
    house.daemon("shop", "", QUICK);
    house.open();
    let first = house.wait_up("shop", None);
    signal(first, "KILL");
    first
}

#[test]
fn a_death_becomes_a_mail_and_then_nothing_of_it_stays() {
    let papers = Papers::new();
    let server = Server::start(&papers, false, AUTH);
    let mut house = house(&[&server], &papers, "");
    house.daemon("shop", "", QUICK);
    house.open();
    let first = house.wait_up("shop", None);
    assert_eq!(scout(&house), None, "nobody is needed yet");
    signal(first, "KILL");
    house.wait_up("shop", Some(first));
    let mail = server.wait_mails(1).remove(0);
    assert_eq!(
        (mail.to.as_slice(), mail.from.as_str()),
        (&["ops@example.com".to_owned()][..], "heeler@web1")
    );
    assert!(mail.encrypted && mail.login == Some(("alert".to_owned(), "geheim".to_owned())));
    let subject = mail.header("Subject").expect("a subject");
    assert!(
        subject.contains("shop: brought back after") && subject.contains("is gone"),
        "{subject}"
    );
    wait_for("the queue to be empty", PATIENCE, || (waiting(&house) == 0).then_some(()));
    wait_for("the status to say so", PATIENCE, || {
        (mail_status(&house)["waiting"] == 0).then_some(())
    });
    let there = scout(&house).expect("it stays for a moment");
    let memory = fs::read_to_string(format!("/proc/{there}/smaps_rollup")).unwrap_or_default();
    eprintln!("mail scout: {:?}", memory.lines().find(|line| line.starts_with("Pss:")));
    wait_for("the scout to go", PATIENCE, || (scout(&house).is_none()).then_some(()));
    assert!(!house.log().contains("replaced"), "{}", house.log());
    assert!(!house.log().contains("geheim"), "a password in the log");
    assert!(house.mails().is_empty(), "no files: it was delivered");
}

/// ALR-05, ALR-09, ALR-10: the server is down, the keeper is killed, the server is up: once, and said.
#[test]
fn a_server_that_was_down_and_a_keeper_that_was_killed_lose_nothing() {
    let papers = Papers::new();
    let mut server = Server::start(&papers, false, AUTH);
    server.down();
    let mut house = house(&[&server], &papers, "");
    let first = a_death(&mut house);
    house.wait_up("shop", Some(first));
    let status = wait_for("it to be seen", PATIENCE, || {
        Some(mail_status(&house)).filter(|mail| mail["trouble"].is_string())
    });
    assert_eq!(status["waiting"], 1, "{status}");
    assert!(status["trouble"].as_str().expect("words").contains("refused"), "{status}");
    let (code, out, _) = house.heeler(&["status"]);
    assert!(code == 0 && out.contains("mail is not delivered since"), "{out}");
    assert!(out.contains("1 alert waits"), "{out}");
    assert_eq!(house.log().matches("mail cannot be delivered").count(), 1);
    house.kill_keeper();
    server.up();
    house.open();
    let mail = server.wait_mails(1).remove(0);
    assert!(mail.header("Message-ID").is_some_and(|id| id.starts_with("<heeler.shop.")));
    wait_for("the queue to be empty", PATIENCE, || (waiting(&house) == 0).then_some(()));
    assert_eq!(server.mails().len(), 1, "once");
}

#[test]
fn a_mail_test_says_what_each_server_did_and_frees_what_waits() {
    let papers = Papers::new();
    let mut bad = Server::start(&papers, false, AUTH);
    let mut good = Server::start(&papers, false, AUTH);
    bad.down();
    good.down();
    let mut house = house(&[&bad, &good], &papers, "");
    a_death(&mut house);
    wait_for("it to fail", PATIENCE, || house.log().contains("mail cannot be").then_some(()));
    good.up();
    let (code, out, _) = house.heeler(&["mail", "test", "anna@example.com"]);
    assert_eq!(code, 1, "one of two failed: {out}");
    assert!(out.contains(&format!("localhost:{}: FAILED: failed to connect", bad.port)), "{out}");
    assert!(out.contains(&format!("localhost:{}: taken: 250 queued", good.port)), "{out}");
    let mails = good.wait_mails(2);
    assert_eq!(mails[0].to, ["anna@example.com"]);
    assert!(mails[0].header("Subject").is_some_and(|subject| subject.contains("test of heeler's")));
    assert_eq!(mails[1].to, ["ops@example.com"], "what waited did not wait for its next try");
    wait_for("it to be said", PATIENCE, || {
        house.log().contains("mail goes out again").then_some(())
    });
    bad.up();
    let (code, out, _) = house.heeler(&["mail", "test", "--json"]);
    assert_eq!(code, 0, "{out}");
    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(answer["to"], serde_json::json!(["ops@example.com"]), "all who get alerts");
    assert_eq!(answer["servers"][0]["delivered"], true, "{answer}");
}

#[test]
fn without_servers_it_says_where_mails_are() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    let (code, out, _) = house.heeler(&["mail", "test"]);
    assert_eq!(code, 1);
    let folder = house.path("state/outbox").display().to_string();
    assert!(out.contains("mails become files") && out.contains(&folder), "{out}");
    assert!(mail_status(&house).is_null());
}

#[test]
fn a_password_that_others_can_read_is_refused_by_name() {
    let papers = Papers::new();
    let server = Server::start(&papers, false, AUTH);
    let mut house = house(&[&server], &papers, "");
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(house.path("password"), mode).expect("chmod");
    house.daemon("shop", "", QUICK);
    house.open();
    let (code, out, _) = house.heeler(&["mail", "test"]);
    assert_eq!(code, 1);
    let path = house.path("password").display().to_string();
    assert!(out.contains(&path) && out.contains("chmod 600"), "{out}");
    assert_eq!(server.connections(), 0, "nobody was asked");
}

/// ALR-05: while the mail server hangs, everything else goes on as if there were none.
#[test]
fn a_mail_server_that_hangs_holds_up_nothing() {
    let papers = Papers::new();
    let hang = Some((Step::Banner, Fault::Hang));
    let server = Server::start(&papers, false, Manners { fault: hang, ..AUTH });
    let mut house = house(&[&server], &papers, "");
    house.daemon("shop", "", QUICK);
    house.daemon("desk", "", QUICK);
    house.open();
    let shop = house.wait_up("shop", None);
    signal(shop, "KILL");
    wait_for("the server to be asked", PATIENCE, || (server.connections() > 0).then_some(()));
    let mut took = Vec::new();
    let mut pid = house.wait_up("desk", None);
    for _ in 0..3 {
        let began = Instant::now();
        signal(pid, "KILL");
        let starts = house.starts("desk").len();
        wait_for("its start", PATIENCE, || (house.starts("desk").len() > starts).then_some(()));
        took.push(began.elapsed());
        pid = house.wait_up("desk", Some(pid));
    }
    eprintln!("with a hanging mail server: {took:?}");
    assert!(took.iter().min().is_some_and(|best| *best < Duration::from_millis(300)), "{took:?}");
    // The scout is killed in the middle of it: what it had is not lost.
    let old = scout(&house).expect("it waits for the server");
    server.behave(AUTH);
    signal(old, "KILL");
    wait_for("it to be said", PATIENCE, || house.log().contains("is replaced").then_some(()));
    assert_eq!(house.heeler(&["mail", "test"]).0, 0, "a new one");
    let of_shop = |mails: Vec<crate::server::Received>| {
        let told = mails.iter().any(|mail| mail.text().contains("shop: brought back"));
        told.then_some(())
    };
    wait_for("the mail of shop", PATIENCE, || of_shop(server.mails()));
}

#[test]
fn a_recipient_that_is_refused_is_told_loudly_and_kept() {
    let papers = Papers::new();
    let never = Some((Step::Rcpt, Fault::Say("550 5.1.1 no such user")));
    let server = Server::start(&papers, false, Manners { fault: never, ..AUTH });
    let mut house = house(&[&server], &papers, "");
    a_death(&mut house);
    wait_for("it to be said", PATIENCE, || {
        house.log().contains("refused for ever for ops@example.com").then_some(())
    });
    wait_for("the queue to be empty", PATIENCE, || (waiting(&house) == 0).then_some(()));
    assert_eq!(house.mails().len(), 1);
    assert!(house.log().contains("550 5.1.1 no such user"), "{}", house.log());
}

/// Points a house's mail at one server, or at none.
fn points_to(house: &House, server: Option<&Server>) {
    let text = fs::read_to_string(house.path("conf.d/heeler.toml")).expect("reads");
    let before = text.split("[mail]").next().expect("there is a beginning");
    let dir = house.path("");
    let servers = server.map(|server| {
        format!(
            "{{ host = \"localhost\", port = {}, user = \"alert\", password_file = \"{}password\", \
             ca_file = \"{}ca.pem\" }}",
            server.port,
            dir.display(),
            dir.display()
        )
    });
    let servers = servers.unwrap_or_default();
    let mail = format!("[mail]\nfrom = \"heeler@web2\"\nservers = [{servers}]\n");
    house.write("conf.d/heeler.toml", &format!("{before}{mail}"));
    house.reload_well();
}

#[test]
fn what_waits_for_a_server_that_is_down_goes_to_the_one_that_a_reload_names() {
    let papers = Papers::new();
    let mut old = Server::start(&papers, false, AUTH);
    let new = Server::start(&papers, false, AUTH);
    old.down();
    let mut house = house(&[&old], &papers, "");
    let first = a_death(&mut house);
    house.wait_up("shop", Some(first));
    wait_for("it to fail", PATIENCE, || house.log().contains("mail cannot be").then_some(()));
    points_to(&house, Some(&new));
    let mail = new.wait_mails(1).remove(0);
    assert!(mail.header("Subject").is_some_and(|subject| subject.contains("shop: brought back")));
    wait_for("the queue to be empty", PATIENCE, || (waiting(&house) == 0).then_some(()));
    wait_for("the status to say so", PATIENCE, || {
        mail_status(&house)["trouble"].is_null().then_some(())
    });
    old.up();
    let (code, out, _) = house.heeler(&["mail", "test", "anna@example.com"]);
    assert!(code == 0 && out.contains(&format!("localhost:{}: taken", new.port)), "{out}");
    assert_eq!((new.wait_mails(2).len(), old.mails().len()), (2, 0), "each once");
}

#[test]
fn mails_become_files_and_are_sent_again_as_a_reload_says() {
    let papers = Papers::new();
    let server = Server::start(&papers, false, AUTH);
    let mut house = house(&[&server], &papers, "");
    house.daemon("shop", "", QUICK);
    house.open();
    let mut pid = house.wait_up("shop", None);
    for (to, sent, files) in [(None, 0, 1), (Some(&server), 1, 1), (None, 1, 2)] {
        points_to(&house, to);
        signal(pid, "KILL");
        pid = house.wait_up("shop", Some(pid));
        wait_for("the mail", PATIENCE, || {
            (server.mails().len() == sent && house.mails().len() == files).then_some(())
        });
        assert_eq!(mail_status(&house).is_null(), to.is_none(), "{to:?}", to = to.is_some());
    }
    assert!(server.mails().iter().all(|mail| mail.from == "heeler@web2"));
}

#[test]
fn a_letter_that_an_old_server_holds_at_a_reload_goes_to_the_new_one_once_that_gives_up() {
    let papers = Papers::new();
    let slow = Manners { fault: Some((Step::Data, Fault::Hang)), ..AUTH };
    let old = Server::start(&papers, false, slow);
    let new = Server::start(&papers, false, AUTH);
    let mut house = house(&[&old], &papers, "");
    let first = a_death(&mut house);
    house.wait_up("shop", Some(first));
    wait_for("the old one to be asked", PATIENCE, || (old.connections() > 0).then_some(()));
    let talks = scout(&house).expect("it talks to the old one");
    points_to(&house, Some(&new));
    // Who has begun is let finish; this one does not.
    assert_eq!((scout(&house), new.mails().len()), (Some(talks), 0));
    signal(talks, "KILL");
    new.wait_mails(1);
    wait_for("the queue to be empty", PATIENCE, || (waiting(&house) == 0).then_some(()));
    assert_eq!((new.mails().len(), old.mails().len()), (1, 0));
}

/// What one server needs is on a file system that is dead: the next server takes the mail all the same.
#[test]
fn files_of_a_server_that_hang_cost_that_server_only() {
    if !can_run(&[Need::Root, Need::Program("/dev/fuse", "a kernel with FUSE")]) {
        return;
    }
    let papers = Papers::new();
    let first = Server::start(&papers, false, AUTH);
    let second = Server::start(&papers, false, AUTH);
    let mut house = house(&[&first, &second], &papers, "");
    let hanging =
        Hanging::make(&house.path("hanging")).expect("a dead file system (root, /dev/fuse)");
    let text = fs::read_to_string(house.path("conf.d/heeler.toml")).expect("reads");
    let (good, dead) = (house.path("password"), hanging.at.join("password"));
    let (good, dead) = (format!("{good:?}"), format!("{dead:?}"));
    house.write("conf.d/heeler.toml", &text.replacen(&good, &dead, 1));
    house.daemon("shop", "", QUICK);
    house.open();
    for count in 1..=2 {
        let pid = house.wait_up("shop", None);
        signal(pid, "KILL");
        house.wait_up("shop", Some(pid));
        second.wait_mails(count);
        wait_for("the scout to go", PATIENCE, || scout(&house).is_none().then_some(()));
    }
    assert_eq!(first.connections(), 0);
    // The second scout asked for nothing that the first one still waits for.
    let (code, out, _) = house.heeler(&["mail", "test"]);
    assert!(code == 1 && out.contains("was not read in time: does its file system hang?"), "{out}");
    assert_eq!(house.close(), Some(0));
}
