//! What the rig promises, and the least that heeler does in it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::host::{Host, can_boot};
use crate::shop::{enable_shop, lay_heeler, lay_shop, wait_held, wait_serving};
use crate::support::house::{PATIENCE, alive, pids};
use crate::support::wait_for;

#[test]
fn a_host_boots_and_reboots_with_a_lingering_deploy() {
    if !can_boot() {
        return;
    }
    let began = Instant::now();
    let mut host = Host::new();
    lay_shop(&host);
    enable_shop(&host);
    host.boot();
    println!("MEASURED a host boots: {:.2} s", began.elapsed().as_secs_f64());
    host.wait_manager();
    wait_serving(&host, None, PATIENCE);
    assert_eq!(host.deploy("systemctl --user is-active puma").trim(), "active");
    // The very thing that people cannot make Monit do.
    let argv = ["run-as", "deploy", "--", "systemctl", "--user", "is-active", "puma"];
    let (code, out, err) = host.heeler(&argv);
    assert_eq!((code, out.trim()), (0, "active"), "{err}");
    let other = host.run_as("other", "systemctl --user is-active puma");
    assert!(!other.status.success(), "{other:?}");

    let boot_id = host.read("/proc/sys/kernel/random/boot_id");
    host.write("/var/lib/kept", "on disk");
    host.write("/run/lost", "in memory");
    let began = Instant::now();
    host.reboot();
    println!("MEASURED a host reboots: {:.2} s", began.elapsed().as_secs_f64());
    assert_ne!(host.read("/proc/sys/kernel/random/boot_id"), boot_id);
    assert_eq!(host.read("/var/lib/kept"), "on disk");
    assert!(!host.path("/run/lost").exists());
    let uptime: f64 = host.shell("cut -d' ' -f1 /proc/uptime").trim().parse().expect("a number");
    assert!(uptime < began.elapsed().as_secs_f64() + 1.0, "up for {uptime} s");
    wait_serving(&host, None, PATIENCE);

    host.cut_power();
    host.boot();
    assert_eq!(host.read("/var/lib/kept"), "on disk");
    host.poweroff();
}

#[test]
fn heeler_is_a_service_and_brings_back_a_plain_one() {
    if !can_boot() {
        return;
    }
    let mut host = Host::new();
    let start = "echo $$ >/run/plain.pid; exec sleep 1000000";
    let plain = format!(
        "pidfile = \"/run/plain.pid\"\nstart = {{ run = {:?}, shell = true }}\n",
        format!("setsid sh -c '{start}' </dev/null >/dev/null 2>&1 &")
    );
    lay_heeler(&host, &[("plain", &plain)]);
    host.boot();
    let first = wait_held(&host, "plain", None);
    host.shell(&format!("kill -9 {first}"));
    let second = wait_held(&host, "plain", Some(first));
    // heeler ends and comes, and touches nothing.
    host.shell("systemctl restart heeler");
    assert_eq!(wait_held(&host, "plain", None), second);
    host.shell("systemctl kill --kill-whom=main -s KILL heeler");
    wait_for("systemd to start heeler again", PATIENCE, || {
        (host.shell("systemctl show -p NRestarts --value heeler").trim() == "1").then_some(())
    });
    assert_eq!(wait_held(&host, "plain", None), second);
    host.reboot();
    wait_held(&host, "plain", None);
}

/// What is left of hosts: processes, control groups, mounts that carry this name.
fn left(name: &str) -> Vec<String> {
    let mut left = Vec::new();
    // One that its parent has not waited for yet holds nothing.
    for pid in pids().into_iter().filter(|pid| alive(*pid)) {
        for file in ["cgroup", "mountinfo", "cmdline"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            if String::from_utf8_lossy(&text).contains(name) && pid != std::process::id() {
                let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                left.push(format!("{pid} {file} {words}"));
            }
        }
    }
    for mount in fs::read_to_string("/proc/mounts").expect("/proc/mounts").lines() {
        let mut words = mount.split(' ').skip(1);
        let (place, kind) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let group = Path::new(place).join(name);
        if kind == "cgroup2" && group.exists() {
            left.push(group.display().to_string());
        }
    }
    left
}

fn name_of(host: &Host) -> String {
    host.dir().file_name().expect("has a name").to_string_lossy().into_owned()
}

#[test]
fn nothing_of_a_host_is_left() {
    if !can_boot() {
        return;
    }
    let mounts = || fs::read_to_string("/proc/self/mounts").expect("/proc");
    let before = mounts();
    for round in 0..5 {
        let mut host = Host::new();
        host.boot();
        let name = name_of(&host);
        assert!(left(&name).len() > 10, "nothing is recognised: {:?}", left(&name));
        match round % 3 {
            0 => host.poweroff(),
            1 => host.reboot(),
            // It is dropped while it is up.
            _ => {}
        }
        drop(host);
        assert_eq!(left(&name), [""; 0]);
        assert!(!Path::new("/tmp").join(name).exists());
    }
    let mut name = String::new();
    let failed = catch_unwind(AssertUnwindSafe(|| {
        let mut host = Host::new();
        name = name_of(&host);
        host.boot();
        host.shell("false");
    }));
    assert!(failed.is_err());
    assert_eq!(left(&name), [""; 0]);
    assert_eq!(mounts(), before);
}

const HOLD: &str = "HEELER_TEST_HOLD";

/// The other half of [`a_killed_test_leaves_nothing`]: boots a host, tells its name, and stays.
#[test]
fn holds_a_host_when_asked() {
    let Some(file) = std::env::var_os(HOLD) else { return };
    let mut host = Host::new();
    host.boot();
    fs::write(file, name_of(&host)).expect("write");
    std::thread::park();
}

#[test]
fn a_killed_test_leaves_nothing() {
    if !can_boot() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("name");
    let mut test = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "boots::holds_a_host_when_asked", "--nocapture"])
        .env(HOLD, &file)
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    let name = wait_for("its host", PATIENCE, || {
        fs::read_to_string(&file).ok().filter(|name| !name.is_empty())
    });
    assert!(left(&name).len() > 10);
    test.kill().expect("kill");
    test.wait().expect("wait");
    wait_for("its host to be gone", PATIENCE, || left(&name).is_empty().then_some(()));
    wait_for("its directory to be gone", PATIENCE, || {
        (!dir.path().join(&name).exists()).then_some(())
    });
}
