//! `heeler doctor`: what will not work is found, said with what to do, and nothing hangs it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::hanging::Hanging;
use crate::support::house::{House, PATIENCE, signal};
use crate::support::{Need, can_run, wait_for};

/// Exit code, and `grade about: text -> todo` of each finding.
fn doctor(house: &House) -> (i32, Vec<String>) {
    let dir = house.path("conf.d").display().to_string();
    let (code, out, err) = house.heeler(&["doctor", &dir, "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or("").to_owned();
    let findings = report["findings"].as_array().expect("a list").iter().map(|finding| {
        let [grade, about, said, todo] =
            ["grade", "about", "text", "todo"].map(|key| text(finding, key));
        format!("{grade} {about}: {said} -> {todo}")
    });
    (code, findings.collect())
}

#[track_caller]
fn says(findings: &[String], begin: &str, part: &str) {
    let found = findings.iter().any(|line| line.starts_with(begin) && line.contains(part));
    assert!(found, "no {begin:?} with {part:?} in\n{}", findings.join("\n"));
}

fn errors(findings: &[String]) -> Vec<&String> {
    findings.iter().filter(|line| line.starts_with("error ")).collect()
}

#[test]
fn a_sound_machine_has_no_errors_with_and_without_a_daemon() {
    let mut house = House::new("");
    house.daemon("shop", "", "alert = [\"ops@example.com\"]\n");
    let (code, found) = doctor(&house);
    assert!(code == 0 && errors(&found).is_empty(), "{found:#?}");
    says(&found, "ok shop", "can execute its command");
    says(&found, "ok shop", "names no living process");
    says(&found, "warning daemon", "no such file; is it running?");
    says(&found, "ok mail", "alerts go to ops@example.com");
    house.open();
    let pid = house.wait_up("shop", None);
    let (code, found) = doctor(&house);
    assert!(code == 0 && errors(&found).is_empty(), "{found:#?}");
    says(&found, "ok shop", &format!("names pid {pid}"));
    says(&found, "ok daemon", "heeler runs, you may see 1 service(s)");
    says(&found, "ok limits", "the running heeler may open");
    let (code, out, _) = house.heeler(&["doctor", &house.path("conf.d").display().to_string()]);
    assert!(code == 0 && out.contains("\nno errors, "), "{out}");
}

#[test]
fn what_will_not_work_is_an_error_with_what_to_do() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let open = TcpListener::bind("127.0.0.1:0").expect("binds");
    let opened = open.local_addr().expect("an address").port();
    let house = House::new("");
    let (password, settings) = (house.path("password"), house.path("conf.d/heeler.toml"));
    let mail = format!(
        "[mail]\nfrom = \"heeler@example.com\"\nservers = [\n\
         {{ host = \"127.0.0.1\", port = {}, user = \"u\", password_file = {password:?} }},\n\
         {{ host = \"127.0.0.1\", port = {opened}, tls = \"none\" }},\n]\n",
        closed.port()
    );
    let own = fs::read_to_string(&settings).expect("is there");
    house.write("conf.d/heeler.toml", &format!("{own}\n{mail}"));
    // Others may read it.
    house.write("password", "secret\n");
    house.write("private.sh", "#!/bin/sh\n");
    fs::set_permissions(house.path("private.sh"), fs::Permissions::from_mode(0o700))
        .expect("chmod");
    house.write("windows.sh", "#!/bin/sh\r\n");
    fs::set_permissions(house.path("windows.sh"), fs::Permissions::from_mode(0o755))
        .expect("chmod");
    let define = |name: &str, start: &str, lines: &str| {
        let pidfile = house.path(&format!("srv/{name}.pid"));
        let text =
            format!("user = \"nobody\"\npidfile = {pidfile:?}\nstart = {start:?}\n{lines}\n");
        house.define(name, &text);
    };
    define("private", &house.path("private.sh").display().to_string(), "");
    define("windows", &house.path("windows.sh").display().to_string(), "");
    define("missing", "no-such-program --daemon", "");
    define("kept-out", "true", "cwd = \"/root\"");
    define("by-manager", "systemctl --user start puma", "");
    define("linked", "true", "");
    std::os::unix::fs::symlink("/proc/1/stat", house.path("srv/linked.pid")).expect("links");
    let plugin = "[[check]]\ntype = \"program\"\ncommand = \"/usr/lib/nagios/plugins/no_such\"\n";
    define("plugin", "true", plugin);
    house.define("stranger", "user = \"no-such-user\"\nmatch = \"^stranger$\"\nstart = \"true\"\n");
    house.define("bad", "pidfle = 7\n");
    let (code, found) = doctor(&house);
    assert_eq!(code, 1, "{found:#?}");
    says(&found, "error configuration", "bad.toml is bad -> `heeler validate ");
    says(&found, "error private", "start: nobody may not execute");
    says(&found, "error windows", "has Windows line ends");
    says(&found, "error missing", "no-such-program is in no directory of PATH");
    says(&found, "error kept-out", "start: nobody may not enter /root");
    says(&found, "error plugin", "/usr/lib/nagios/plugins");
    says(&found, "error linked", "linked.pid");
    says(&found, "error user no-such-user", "user not found: no-such-user");
    says(&found, "error user no-such-user", "-> it is the user of stranger");
    says(&found, "error user nobody", "no user manager, which by-manager needs");
    says(&found, "error user nobody", "-> `loginctl enable-linger nobody`");
    says(&found, "warning user nobody", "lingering is off");
    says(&found, "error mail", "others may read it (mode 0644)");
    says(&found, "error mail", &format!("127.0.0.1:{} cannot be reached", closed.port()));
    says(&found, "ok mail", &format!("127.0.0.1:{opened} takes calls"));
    says(&found, "warning mail", "nobody is told of");
    assert!(!found.join("\n").contains("secret"), "{found:#?}");
}

#[test]
fn another_watchdog_is_named() {
    let house = House::new("");
    house.define("shop", "run = \"sleep 1000\"\n");
    let monit = house.path("monit");
    // By another process: while this one had it open for writing, another test's fork would too.
    let copied = Command::new("cp").arg("/bin/sleep").arg(&monit).status();
    assert!(copied.expect("cp").success());
    let mut other = Command::new(&monit).arg("1000").spawn().expect("runs");
    // The kernel lets its parent go on a moment before all of it is there.
    wait_for("its title", PATIENCE, || {
        let title = fs::read(format!("/proc/{}/cmdline", other.id())).expect("it lives");
        (!title.is_empty()).then_some(())
    });
    let (_, found) = doctor(&house);
    says(&found, "warning others", &format!("monit runs here, too (pid {})", other.id()));
    other.kill().expect("is ours");
    other.wait().expect("ends");
}

#[test]
fn nothing_hangs_it() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let house = House::new("");
    let Some(hanging) = Hanging::make(&house.path("hangs")) else {
        eprintln!("SKIPPED for want of: /dev/fuse");
        return;
    };
    let pidfile = hanging.at.join("shop.pid");
    house.define("shop", &format!("pidfile = {pidfile:?}\nstart = \"true\"\nuser = \"nobody\"\n"));
    house.define("fine", "run = \"sleep 1000\"\n");
    let begun = Instant::now();
    let (code, found) = doctor(&house);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(code, 1);
    says(&found, "error shop", "does a file system hang? try `df`");
    says(&found, "ok fine", "can execute its command");
}

/// ALR-10: that no alert gets out is an error of its own.
#[test]
fn alerts_that_do_not_get_out_are_an_error() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let mut house = House::new(&format!(
        "[mail]\nfrom = \"heeler@example.com\"\n\
         servers = [{{ host = \"127.0.0.1\", port = {}, tls = \"none\" }}]\n",
        closed.port()
    ));
    let quick = "every = \"300ms\"\nstart_period = \"200ms\"\nalert = [\"ops@example.com\"]\n";
    house.daemon("shop", "", quick);
    house.open();
    let pid = house.wait_up("shop", None);
    signal(pid, "KILL");
    wait_for("a mail to fail", PATIENCE, || {
        house.heeler(&["status"]).1.contains("mail is not delivered").then_some(())
    });
    let (code, found) = doctor(&house);
    assert_eq!(code, 1, "{found:#?}");
    says(&found, "error daemon", "mail is not delivered, 1 alert(s) wait");
}
