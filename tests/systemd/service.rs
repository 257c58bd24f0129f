//! heeler as a service, by the unit that is shipped: what it survives, what survives it, and what the
//! journal says of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::{Host, can_boot};
use crate::shop::{lay_heeler, status, wait_held};
use crate::support::house::PATIENCE;
use crate::support::wait_for;

/// A program that heeler keeps.
const KEPT: &str = "run = \"sleep 1000000\"\n";
/// A daemon that leaves its start command behind.
const DAEMON: &str = "pidfile = \"/run/daemon.pid\"\nstart = { run = \"setsid --fork sh -c 'echo $$ >/run/daemon.pid; \
                      exec sleep 1000000' </dev/null >/dev/null 2>&1\", shell = true }\n";

/// A host with heeler as a service, up.
fn open(services: &[(&str, &str)], settings: &str) -> Host {
    let mut host = Host::new();
    lay_heeler(&host, services);
    host.write("/etc/heeler/conf.d/heeler.toml", settings);
    host.boot();
    host
}

fn property(host: &Host, name: &str) -> String {
    host.shell(&format!("systemctl show -p {name} --value heeler")).trim().to_owned()
}

/// Waits until a property of the unit is so.
fn wait_property(host: &Host, name: &str, value: &str) {
    let what = format!("{name} to be {value}; it is {}", property(host, name));
    wait_for(&what, PATIENCE, || (property(host, name) == value).then_some(()));
}

/// The processes of services, each with the moment it was started.
fn held(host: &Host, names: &[&str]) -> BTreeMap<String, (u32, String)> {
    let started = |pid: u32| {
        let stat = host.read(&format!("/proc/{pid}/stat"));
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(20).map(str::to_owned))
    };
    let one = |name: &&str| {
        let pid = wait_held(host, name, None);
        ((*name).to_owned(), (pid, started(pid).expect("it lives")))
    };
    names.iter().map(one).collect()
}

#[test]
fn the_shipped_unit_is_right_and_gives_commands_nothing_of_heelers() {
    if !can_boot() {
        return;
    }
    let host = open(&[("kept", KEPT), ("daemon", DAEMON)], "");
    let verified = host.exec(&["systemd-analyze", "verify", "/etc/systemd/system/heeler.service"]);
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !said.contains("heeler"), "{said}");
    wait_property(&host, "StatusText", "2 services: 2 as wanted");
    assert_eq!(property(&host, "SubState"), "running");
    let own = property(&host, "MainPID");
    for (name, (pid, _)) in held(&host, &["kept", "daemon"]) {
        let environ = host.read(&format!("/proc/{pid}/environ"));
        for foreign in
            ["NOTIFY", "WATCHDOG", "JOURNAL", "INVOCATION", "RUNTIME_DIRECTORY", "STATE_D"]
        {
            assert!(!environ.contains(foreign), "{name}: {environ:?}");
        }
        let limits = host.read(&format!("/proc/{pid}/limits"));
        let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
        assert!(files.split_whitespace().nth(3) == Some("1024"), "{name}: {files}");
        assert_eq!(host.read(&format!("/proc/{pid}/oom_score_adj")).trim(), "0", "{name}");
        let status = host.read(&format!("/proc/{pid}/status"));
        let lines = |text: &str| -> Vec<String> {
            let of_interest = ["Umask", "NoNewPrivs", "Seccomp:", "CapBnd", "SigIgn"];
            let kept = |line: &&str| of_interest.iter().any(|word| line.starts_with(word));
            text.lines().filter(kept).map(str::to_owned).collect()
        };
        let process_1 = host.read("/proc/1/status");
        let bounding = lines(&process_1).into_iter().find(|line| line.starts_with("CapBnd"));
        assert!(lines(&status).contains(&bounding.expect("a line")), "{name}: {status}");
        for line in ["Umask:\t0022", "NoNewPrivs:\t0", "Seccomp:\t0", "SigIgn:\t0000000000000000"] {
            assert!(lines(&status).contains(&line.to_owned()), "{name}: {line}: {status}");
        }
        let namespace = |pid: &str| host.shell(&format!("readlink /proc/{pid}/ns/mnt"));
        assert_eq!(namespace(&pid.to_string()), namespace("1"), "{name}");
    }
    for (path, mode) in [("/run/heeler", "755"), ("/var/lib/heeler", "700")] {
        assert_eq!(host.shell(&format!("stat -c %a {path}")).trim(), mode, "{path}");
    }
    assert_eq!(host.shell("stat -c %a /run/heeler/control.sock").trim(), "666");
    assert!(!own.is_empty());
}

/// CRA-05: stop, restart, crash and upgrade, with fifty programs that heeler keeps.
#[test]
fn whatever_becomes_of_heeler_no_watched_process_is_touched() {
    if !can_boot() {
        return;
    }
    let names: Vec<String> = (0..50).map(|n| format!("kept{n}")).collect();
    let mut services: Vec<_> = names.iter().map(|name| (name.as_str(), KEPT)).collect();
    services.push(("daemon", DAEMON));
    let mut host = Host::new();
    lay_heeler(&host, &services);
    // A program that can be replaced: the rig's own is a mount.
    let dir = "/etc/systemd/system/heeler.service.d";
    let start = "[Service]\nExecStart=\nExecStart=/opt/heeler run /etc/heeler/conf.d\n";
    host.write(&format!("{dir}/own.conf"), start);
    host.write("/opt/.keep", "");
    fs::copy(crate::support::HEELER, host.path("/opt/heeler")).expect("copies");
    host.boot();
    let all: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
    let before = held(&host, &all);
    let same = |host: &Host, what: &str| assert_eq!(held(host, &all), before, "{what}");

    host.shell("systemctl restart heeler");
    same(&host, "a restart");
    host.shell("systemctl stop heeler");
    assert_eq!(property(&host, "ActiveState"), "inactive");
    let lives = |(pid, _): &(u32, String)| host.path(&format!("/proc/{pid}/stat")).exists();
    assert!(before.values().all(lives), "a stop took something");
    host.shell("systemctl start heeler");
    same(&host, "a stop");
    host.shell("systemctl kill --kill-whom=main -s KILL heeler");
    wait_property(&host, "NRestarts", "1");
    same(&host, "a crash");
    host.shell("cp /opt/heeler /opt/new && mv /opt/new /opt/heeler && systemctl restart heeler");
    same(&host, "an upgrade");
    let deleted =
        host.shell("ls -l /proc/*/exe 2>/dev/null | grep -c '/opt/heeler (deleted)' || true");
    assert_eq!(deleted.trim(), "50", "shims of the old program");
    assert_eq!(host.shell("systemctl reload heeler && echo fine").trim(), "fine");
    same(&host, "a reload");
    // They are still its own: a death is seen, with how it ended, and one mail told nobody of more.
    let (first, _) = before["kept7"].clone();
    host.shell(&format!("kill -9 {first}"));
    wait_held(&host, "kept7", Some(first));
    let (_, why, _) = host.heeler(&["why", "kept7"]);
    assert!(why.contains("killed by SIGKILL"), "{why}");
    let starts = host.shell("journalctl -u heeler -o cat HEELER_EVENT=fired-and-resolved | wc -l");
    assert!(matches!(starts.trim(), "0" | "1"), "{starts}");
}

fn group(host: &Host, pid: &str) -> String {
    let line = host.shell(&format!("grep ^0:: /proc/{pid}/cgroup"));
    line.trim().trim_start_matches("0::/system.slice/").to_owned()
}

fn groups(host: &Host) -> Vec<String> {
    let list = "cd /sys/fs/cgroup/system.slice/heeler.service && ls -d */ | sort";
    host.shell(list).lines().map(|line| line.trim_end_matches('/').to_owned()).collect()
}

#[test]
fn each_service_has_a_control_group_of_its_own_over_every_end_of_heeler() {
    if !can_boot() {
        return;
    }
    let mut host = Host::new();
    lay_heeler(&host, &[("kept", KEPT), ("daemon", DAEMON), ("brief", KEPT)]);
    // First as an installation that does not leave its group to heeler.
    let delegate = "/etc/systemd/system/heeler.service.d/delegate.conf";
    host.write(delegate, "[Service]\nDelegate=no\n");
    host.boot();
    let names = ["kept", "daemon", "brief"];
    let before = held(&host, &names);
    assert!(host.journal().contains("no control group was left to heeler"), "{}", host.journal());
    let pid = |name: &str| before[name].0.to_string();
    assert_eq!(group(&host, &pid("kept")), "heeler.service");
    // Then as one that does: what runs stays where it is, and new ones have their own.
    host.shell(&format!("rm {delegate} && systemctl daemon-reload && systemctl restart heeler"));
    assert_eq!(held(&host, &names), before);
    let main = |host: &Host| group(host, &property(host, "MainPID"));
    assert_eq!(main(&host), "heeler.service/keeper");
    assert_eq!(group(&host, &pid("kept")), "heeler.service");
    for name in ["kept", "daemon", "brief"] {
        host.shell(&format!("kill -9 {}", pid(name)));
        wait_held(&host, name, Some(before[name].0));
    }
    let before = held(&host, &names);
    let own = |host: &Host| {
        for name in ["kept", "daemon"] {
            let (pid, _) = &before[name];
            assert_eq!(
                unmarked(&group(host, &pid.to_string())),
                format!("heeler.service/svc-{name}")
            );
        }
    };
    own(&host);
    let all =
        |host: &Host| groups(host).iter().map(|name| unmarked(name).to_owned()).collect::<Vec<_>>();
    assert_eq!(all(&host), ["keeper", "svc-brief", "svc-daemon", "svc-kept"]);
    assert_eq!(host.heeler(&["stop", "brief"]).0, 0);
    for end in [
        "systemctl restart heeler",
        "systemctl kill --kill-whom=main -s KILL heeler; while systemctl is-active -q heeler; do :; done; \
         until systemctl is-active -q heeler; do :; done",
        "systemctl stop heeler; systemctl start heeler",
    ] {
        host.shell(end);
        let now = held(&host, &["kept", "daemon"]);
        assert!(now.iter().all(|(name, one)| before[name] == *one), "{end}");
        assert_eq!(main(&host), "heeler.service/keeper", "{end}");
        own(&host);
    }
    // Nothing was in it any more.
    assert_eq!(all(&host), ["keeper", "svc-daemon", "svc-kept"]);
    assert_eq!(host.heeler(&["start", "brief"]).0, 0);
    let (brief, _) = held(&host, &["brief"])["brief"].clone();
    assert_eq!(unmarked(&group(&host, &brief.to_string())), "heeler.service/svc-brief");
}

/// A service's control group without what says which definition it is of.
fn unmarked(group: &str) -> &str {
    group.split_once('~').map_or(group, |(name, _)| name)
}

/// A server that forks a worker into a session of its own, as another user where it is told one; the worker
/// holds the port, ignores TERM's first second, and outlives its master.
const ESCAPING: &str = r#"use strict; use IO::Socket::INET; use POSIX ();
my ($pidfile, $port, $uid) = @ARGV;
my $socket = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$port", Listen => 5, ReuseAddr => 1) or die "$!";
if (!fork) { POSIX::setsid(); if ($uid) { POSIX::setgid($uid); POSIX::setuid($uid) } sleep 1 while 1 }
open my $file, '>', $pidfile or die; print $file "$$\n"; close $file;
sleep 1 while 1;
"#;

/// KIL-05: what left its session, by the control group and its socket.
#[test]
fn what_escaped_its_session_and_holds_the_port_is_known_by_the_control_group() {
    if !can_boot() {
        return;
    }
    let mut host = Host::new();
    let service = |name: &str, port: u32, uid: &str, user: &str| {
        let server = format!("perl /opt/escaping.pl /run/own/{name}.pid {port} {uid}");
        let start = format!("setsid --fork {server} </dev/null >/dev/null 2>&1");
        format!(
            "{user}pidfile = \"/run/own/{name}.pid\"\nstart = {{ run = {start:?}, shell = true }}\n\
             start_timeout = \"20s\"\nstop_timeout = \"5s\"\n"
        )
    };
    let of_root = service("of-root", 7001, "1501", "");
    let of_deploy = service("of-deploy", 7002, "", "user = \"deploy\"\n");
    lay_heeler(&host, &[("of-root", &of_root), ("of-deploy", &of_deploy)]);
    host.write("/opt/escaping.pl", ESCAPING);
    let own = "d /run/own 1777 root root -\n";
    host.write("/etc/tmpfiles.d/own.conf", own);
    host.boot();
    for name in ["of-root", "of-deploy"] {
        let first = wait_held(&host, name, None);
        let died = Instant::now();
        host.shell(&format!("kill -9 {first}"));
        wait_held(&host, name, Some(first));
        println!(
            "MEASURED {name} with an escaped worker is back: {:.1} s",
            died.elapsed().as_secs_f64()
        );
        let (_, why, _) = host.heeler(&["why", name]);
        assert!(why.contains("listening socket") || why.contains("SIGTERM"), "{why}");
        assert!(died.elapsed() < Duration::from_secs(15), "{:?}", died.elapsed());
    }
}

/// CRA-12: a loop that hangs is found by the watchdog; no service notices.
#[test]
fn a_heeler_that_hangs_is_started_again_by_the_watchdog() {
    if !can_boot() {
        return;
    }
    let mut host = Host::new();
    lay_heeler(&host, &[("kept", KEPT), ("daemon", DAEMON)]);
    let soon = "[Service]\nWatchdogSec=2\n";
    host.write("/etc/systemd/system/heeler.service.d/soon.conf", soon);
    host.boot();
    let before = held(&host, &["kept", "daemon"]);
    // It lives through several periods when it does not hang.
    let asked = Instant::now();
    wait_for("three periods", PATIENCE, || {
        status(&host, "kept");
        (asked.elapsed() > Duration::from_secs(6)).then_some(())
    });
    assert_eq!(property(&host, "NRestarts"), "0");
    let hung = Instant::now();
    host.shell("systemctl kill --kill-whom=main -s STOP heeler");
    wait_property(&host, "NRestarts", "1");
    let took = hung.elapsed();
    println!("MEASURED a hung heeler is back, WatchdogSec=2: {:.1} s", took.as_secs_f64());
    // Up to one period until it is missed, one second of RestartSec, and what a busy machine takes.
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert_eq!(held(&host, &["kept", "daemon"]), before);
    assert!(host.journal().contains("heeler.service: Watchdog timeout"), "{}", host.journal());
}

/// Lines of heeler's in the journal, as objects, that match.
fn lines(host: &Host, matches: &str) -> Vec<serde_json::Value> {
    let text = host.shell(&format!("journalctl -b --no-pager -o json {matches}"));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn the_journal_has_fields_to_look_by() {
    if !can_boot() {
        return;
    }
    let quick = format!("{DAEMON}start_period = \"0s\"\nalert = [\"ops@localhost\"]\n");
    let host = open(&[("daemon", &quick)], "");
    let first = wait_held(&host, "daemon", None);
    host.shell(&format!("kill -9 {first}"));
    let told = wait_for("the alert", PATIENCE, || {
        lines(&host, "HEELER_SERVICE=daemon HEELER_EVENT=fired-and-resolved").pop()
    });
    let field = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(field("SYSLOG_IDENTIFIER"), "heeler");
    assert_eq!(field("_SYSTEMD_UNIT"), "heeler.service");
    assert_eq!(field("_TRANSPORT"), "journal");
    assert_eq!(field("PRIORITY"), "6");
    assert!(field("HEELER_INCIDENT").starts_with("daemon."), "{told}");
    assert!(field("MESSAGE").contains("to ops@localhost: "), "{told}");
    let died = lines(&host, "HEELER_SERVICE=daemon PRIORITY=3");
    let gone = format!("daemon: the main process {first} is gone");
    let text = |line: &serde_json::Value| line["MESSAGE"].as_str().unwrap_or_default().to_owned();
    assert!(died.iter().any(|line| text(line).starts_with(&gone)), "{died:?}");
    // Nothing came by standard error, so nothing is there twice.
    assert_eq!(lines(&host, "_SYSTEMD_UNIT=heeler.service _TRANSPORT=stdout").len(), 0);
}

#[test]
fn a_journal_that_hangs_or_goes_holds_nobody_up_and_what_was_lost_is_counted() {
    if !can_boot() {
        return;
    }
    let often = format!("{DAEMON}start_period = \"0s\"\nstart_limit = \"1000 per 1m\"\n");
    let host = open(&[("daemon", &often)], "");
    let mut last = wait_held(&host, "daemon", None);
    host.shell("systemctl kill --kill-whom=main -s STOP systemd-journald");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("non-blocking");
    let journal = host.path("/run/systemd/journal/socket");
    while filler.send_to(b"MESSAGE=filler\n", &journal).is_ok() {}
    let began = Instant::now();
    for _ in 0..10 {
        host.shell(&format!("kill -9 {last}"));
        last = wait_held(&host, "daemon", Some(last));
    }
    // A second lies between two starts of one service, whatever the log does.
    println!(
        "MEASURED 10 deaths with a journal that hangs: {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(property(&host, "NRestarts"), "0");
    host.shell("systemctl kill --kill-whom=main -s CONT systemd-journald");
    wait_for("the loss to be told", PATIENCE, || {
        lines(&host, "HEELER_EVENT=log-lines-lost").pop().map(|line| line["MESSAGE"].to_string())
    });
    // A new journal is spoken to without another word.
    host.shell("systemctl restart systemd-journald");
    host.shell(&format!("kill -9 {last}"));
    let mark = format!("main process {last} is gone");
    wait_for("the new journal to have it", PATIENCE, || {
        host.journal().contains(&mark).then_some(())
    });
}

#[test]
fn the_log_goes_to_syslog_or_a_file_where_that_is_wanted() {
    if !can_boot() {
        return;
    }
    let mut host = open(&[("kept", KEPT)], "log = \"syslog\"\n");
    wait_held(&host, "kept", None);
    // Its log and the journal are threads and processes of their own.
    let by_syslog = wait_for("lines by syslog", PATIENCE, || {
        let lines = lines(&host, "SYSLOG_IDENTIFIER=heeler _TRANSPORT=syslog");
        Some(lines).filter(|lines| !lines.is_empty())
    });
    assert!(by_syslog.iter().all(|line| line["SYSLOG_FACILITY"] == "3"), "{by_syslog:?}");
    host.write("/etc/heeler/conf.d/heeler.toml", "log = \"/var/log/heeler.log\"\n");
    host.reboot();
    let first = wait_held(&host, "kept", None);
    assert_eq!(host.shell("stat -c %a /var/log/heeler.log").trim(), "640");
    // As logrotate does it.
    host.shell("mv /var/log/heeler.log /var/log/heeler.log.1 && systemctl reload heeler");
    host.shell(&format!("kill -9 {first}"));
    wait_for("the new file", PATIENCE, || {
        host.read("/var/log/heeler.log").contains(&format!("{first} is gone")).then_some(())
    });
    assert!(Path::new(&host.path("/var/log/heeler.log.1")).exists());
}
