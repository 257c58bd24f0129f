//! heeler as a service of a booted host, and a unit of lingering deploy's own systemd: what happens to the
//! unit, to the manager and to the machine, and how heeler tells it. `table` has the seconds.

use std::time::{Duration, Instant};

use crate::host::{Host, can_boot};
use crate::shop::{APP, Up, lay_heeler, status, up, wait_held, wait_serving};
use crate::situations::{self, Situation, hold_the_lock, manager};
use crate::support::house::PATIENCE;
use crate::support::{wait_for, without_children};
use crate::watchers::{Unit, Watcher};

/// A shop that heeler holds; `None` where no host can be booted.
fn held(unit: Unit, lines: &str) -> Option<(Host, Up)> {
    let calm = Situation { unit, ..situations::RESTART };
    can_boot().then(|| calm.prepare(Watcher::Heeler, lines))
}

/// Has something happen to a shop that heeler watches; it has to be mended within a minute, which is less than
/// TimeoutStopSec, on a busy machine too.
fn mended(situation: &Situation) -> Option<(Host, String)> {
    if !can_boot() {
        return None;
    }
    let outcome = situation.run(Watcher::Heeler, "", Duration::from_secs(60));
    let (_, why, _) = outcome.host.heeler(&["why", "shop"]);
    let (up, took) = outcome.healed.unwrap_or_else(|| panic!("it was not mended\n{why}"));
    println!("MEASURED {}: {:.1} s\n{why}", situation.name, took.as_secs_f64());
    wait_for("heeler to hold it", PATIENCE, || {
        (status(&outcome.host, "shop")["pid"] == up.master).then_some(())
    });
    assert_eq!(masters(&outcome.host), [up.master]);
    Some((outcome.host, why))
}

/// What `heeler why shop` says, once it has these words.
fn wait_why(host: &Host, words: &str) -> String {
    let mut why = String::new();
    let end = Instant::now() + PATIENCE;
    while !why.contains(words) {
        assert!(Instant::now() < end, "waited for {words:?} in\n{why}");
        why = host.heeler(&["why", "shop"]).1;
    }
    why
}

/// The mails so far, each in one line.
fn mails(host: &Host) -> Vec<String> {
    let files = host.shell("find /var/lib/heeler/outbox -name '*.eml' | sort");
    let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    files
        .lines()
        .map(|file| one_line(host.read(file).replace("=\r\n", "").replace("=\n", "")))
        .collect()
}

/// The living masters.
fn masters(host: &Host) -> Vec<u32> {
    let found = host.exec(&["pgrep", "-f", "^puma 5"]);
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let found: Vec<u32> = found.lines().filter_map(|line| line.parse().ok()).collect();
    without_children(&found, |pid| host.read(&format!("/proc/{pid}/stat")))
}

#[test]
fn a_master_is_killed_and_systemd_or_heeler_brings_it_back() {
    let Some((host, why)) = mended(&situations::MASTER_KILLED) else { return };
    assert!(why.contains("its manager is bringing it up"), "{why}");
    assert_eq!(host.deploy("systemctl --user is-active puma").trim(), "active");
}

/// Without heeler this takes TimeoutStopSec: 90 s.
#[test]
fn a_worker_that_hangs_does_not_hold_its_unit_up() {
    let Some((host, first)) = held(Unit::Enabled, "stop_timeout = \"3s\"\n") else { return };
    let worker = hold_the_lock(&host, first.master);
    host.shell(&format!("kill -9 {}", first.master));
    let second = wait_serving(&host, Some(first.master), Duration::from_secs(60));
    assert_eq!(wait_held(&host, "shop", Some(first.master)), second.master);
    let why = host.heeler(&["why", "shop"]).1;
    assert!(why.contains(&format!("orphan {worker} holds a listening socket")), "{why}");
    assert_eq!(masters(&host), [second.master]);
}

#[test]
fn what_systemd_gives_up_on_comes_back() {
    let Some((_, why)) = mended(&situations::START_LIMIT) else { return };
    assert!(why.contains("up again"), "{why}");
}

#[test]
fn a_stop_behind_heelers_back_is_ended() {
    let Some((host, why)) = mended(&situations::STOPPED_BEHIND) else { return };
    assert!(why.contains("waiting 5s for a successor"), "{why}");
    wait_for("the mail", PATIENCE, || {
        mails(&host).iter().any(|mail| mail.contains("(Result=success)")).then_some(())
    });
}

#[test]
fn a_manager_that_was_stopped_is_started() {
    let Some((_, why)) = mended(&situations::MANAGER_STOPPED) else { return };
    assert!(why.contains("user@1500.service, is gone"), "{why}");
}

#[test]
fn a_manager_that_was_killed_is_started() {
    let Some((_, why)) = mended(&situations::MANAGER_KILLED) else { return };
    assert!(why.contains("user@1500.service, is gone"), "{why}");
}

/// Each of them finds the manager gone and has it started; nobody's starts are used up by that.
#[test]
fn ten_units_come_back_with_their_manager() {
    if !can_boot() {
        return;
    }
    let mut host = Host::new();
    let names: Vec<String> = (0..10).map(|n| format!("kept{n}")).collect();
    let texts: Vec<String> =
        names.iter().map(|name| format!("user = \"deploy\"\nunit = \"{name}\"\n")).collect();
    let services: Vec<_> =
        names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    lay_heeler(&host, &services);
    for name in &names {
        let unit = format!("/home/deploy/.config/systemd/user/{name}.service");
        host.write_deploys(&unit, "[Service]\nExecStart=/bin/sleep 1000000\n");
    }
    host.boot_as_if_up_for(Duration::from_secs(3600));
    let before: Vec<u32> = names.iter().map(|name| wait_held(&host, name, None)).collect();
    let began = Instant::now();
    host.shell(&format!("kill -9 {}", manager(&host)));
    for (name, pid) in names.iter().zip(before) {
        wait_held(&host, name, Some(pid));
    }
    println!("MEASURED ten units of a manager: {:.1} s", began.elapsed().as_secs_f64());
    // One start each at boot, one now; the manager may go and come once more while all want it.
    let journal = host.journal();
    assert!(
        journal.contains("(2 of 5 per 10m)") && !journal.contains("(4 of 5 per 10m)"),
        "{journal}"
    );
}

/// ALR-08: Restart=always without systemd's own start limit, dying each second for ever.
#[test]
fn a_unit_that_dies_for_ever_is_one_incident_with_counts_and_its_end_is_told() {
    if !can_boot() {
        return;
    }
    let mut host = Host::new();
    let service = "user = \"deploy\"\nunit = \"restless\"\nstart_limit = \"5 per 20s\"\n";
    lay_heeler(&host, &[("restless", service)]);
    let unit = |lasts: &str| {
        format!(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec=1\n\
             ExecStart=/bin/sleep {lasts}\n"
        )
    };
    let file = "/home/deploy/.config/systemd/user/restless.service";
    host.write_deploys(file, &unit("1"));
    host.boot_as_if_up_for(Duration::from_secs(3600));
    let restarts = || -> u32 {
        let shown = host.deploy("systemctl --user show restless -p NRestarts --value || true");
        shown.trim().parse().unwrap_or(0)
    };
    host.wait_manager();
    wait_for("twelve deaths", PATIENCE * 2, || (restarts() >= 12).then_some(()));
    let (_, said, _) = host.heeler(&["status"]);
    println!("---- meanwhile\n{said}");
    assert!(said.contains("deaths without 20s of health between"), "{said}");
    let told = mails(&host);
    println!("{told:#?}");
    assert_eq!(told.len(), 1, "{told:#?}");
    let restarts = restarts();
    host.write_deploys(file, &unit("1000000"));
    host.deploy("systemctl --user daemon-reload");
    let told = wait_for("its end to be told", PATIENCE * 2, || {
        Some(mails(&host)).filter(|mails| mails.len() > 1)
    });
    println!("---- the end, after {restarts} restarts by systemd\n{:#?}", told[1]);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[1].contains("X-Heeler-Kind: resolved"), "{}", told[1]);
    assert!(told[1].contains("deaths without 20s of health between"), "{}", told[1]);
}

/// systemctl itself would wait for 90 s.
#[test]
fn a_manager_that_hangs_is_told_and_waited_for() {
    let Some((host, first)) = held(Unit::Enabled, "") else { return };
    let manager = manager(&host);
    host.shell(&format!("kill -STOP {manager}; kill -9 {}", first.master));
    wait_why(&host, "the user manager of deploy does not answer within 5s");
    // A start is no use now, and is ended in time.
    let (code, out, err) = host.heeler(&["status", "shop"]);
    assert_ne!(code, 6, "{out}{err}");
    host.shell(&format!("kill -CONT {manager}"));
    let second = wait_serving(&host, Some(first.master), PATIENCE);
    assert_eq!(wait_held(&host, "shop", Some(first.master)), second.master);
    assert_eq!(masters(&host), [second.master]);
}

#[test]
fn lingering_off_is_told_with_the_way_out_and_on_is_seen() {
    let Some((host, first)) = held(Unit::OnlyThere, "") else { return };
    host.shell("loginctl disable-linger deploy");
    let why = wait_why(&host, "`loginctl enable-linger deploy` makes it");
    assert!(up(&host).is_none() && why.contains("lingering is off"), "{why}");
    host.shell("loginctl enable-linger deploy");
    let second = wait_serving(&host, Some(first.master), PATIENCE * 2);
    assert_eq!(wait_held(&host, "shop", Some(first.master)), second.master);
}

/// CRA-13.
#[test]
fn after_a_reboot_it_is_up_whoever_was_to_start_it() {
    for situation in [&situations::REBOOT, &situations::REBOOT_NOT_ENABLED] {
        let Some((host, _)) = mended(situation) else { return };
        assert_eq!(mails(&host), [""; 0], "a boot is nobody's mail");
    }
}

/// heeler is up seconds before the manager is.
#[test]
fn at_boot_a_late_manager_is_waited_for() {
    if !can_boot() {
        return;
    }
    let mut host = Host::new();
    Watcher::Heeler.lay(&host, Unit::OnlyThere, "");
    let late = "[Service]\nExecStartPre=/bin/sh -c 'until test -e /run/go; do sleep 0.05; done'\n";
    host.write("/etc/systemd/system/user@1500.service.d/late.conf", late);
    host.begin_boot(Duration::ZERO);
    let said = wait_for("heeler to wait for the manager", PATIENCE, || {
        let found = status(&host, "shop");
        found["state"].as_str().filter(|state| state.contains("manager")).map(str::to_owned)
    });
    println!("STATE {said}");
    host.write("/run/go", "");
    let first = wait_serving(&host, None, PATIENCE);
    assert_eq!(wait_held(&host, "shop", None), first.master);
    assert_eq!(mails(&host), [""; 0], "a boot is nobody's mail");
}

/// Capistrano's last step, by the user that deploys, without sudo; and nobody else's business.
#[test]
fn deploy_restarts_its_own_unit_and_others_see_nothing() {
    let Some((host, first)) = held(Unit::Enabled, "") else { return };
    let script = format!(
        "set -e; cd {APP}; cp -r releases/1 releases/2; ln -sfn releases/2 current.new; \
         mv -T current.new current; heeler reload shop; heeler status shop"
    );
    let said = host.deploy(&script);
    assert!(said.contains("shop") && said.contains("up"), "{said}");
    wait_for("workers of the new release", PATIENCE, || {
        let workers = host.shell(&format!("pgrep -P {}", first.master));
        let new = |pid: &str| {
            let cwd = host.exec(&["readlink", &format!("/proc/{pid}/cwd")]);
            String::from_utf8_lossy(&cwd.stdout).trim().ends_with("releases/2")
        };
        (workers.lines().count() == 2 && workers.lines().all(new)).then_some(())
    });
    assert_eq!(wait_serving(&host, None, PATIENCE).master, first.master, "no phased restart");
    host.deploy("heeler restart shop");
    let second = wait_serving(&host, Some(first.master), PATIENCE);
    // More than that is not its right, and nothing at all is another's.
    let stop = host.run_as("deploy", "heeler stop shop");
    assert_eq!(stop.status.code(), Some(5), "{stop:?}");
    for words in ["status", "status shop", "why shop", "restart shop", "reload shop", "stop shop"] {
        let other = host.run_as("other", &format!("heeler {words}"));
        let said = [other.stdout, other.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(other.status.code(), Some(5), "{words}: {said}");
        assert!(!said.contains(&second.master.to_string()) && !said.contains("deploy"), "{said}");
    }
    assert_eq!(wait_serving(&host, None, PATIENCE).master, second.master);
    assert_eq!(mails(&host), [""; 0], "a deploy is nobody's mail");
}

/// As people write it for rbenv: the unit's main process is a shell, Puma its child.
#[test]
fn behind_a_login_shell_the_master_is_found_by_its_title() {
    if !can_boot() {
        return;
    }
    let mut host = Host::new();
    Watcher::Heeler.lay(&host, Unit::OnlyThere, "match = \"^puma 5\"\n");
    let unit = include_str!("puma.service").replace(
        "ExecStart=/usr/bin/puma -C %h/apps/shop/current/config/puma.rb",
        "ExecStart=/bin/bash -lc 'puma -C %h/apps/shop/current/config/puma.rb; exit $?'",
    );
    assert!(unit.contains("bash -lc"));
    host.write_deploys("/home/deploy/.config/systemd/user/puma.service", &unit);
    host.boot();
    let first = wait_serving(&host, None, PATIENCE);
    assert_eq!(wait_held(&host, "shop", None), first.master);
    let shell = host.deploy("systemctl --user show puma -p MainPID --value");
    assert_ne!(shell.trim(), first.master.to_string());
    host.shell(&format!("kill -9 {}", first.master));
    let second = wait_serving(&host, Some(first.master), PATIENCE);
    assert_eq!(wait_held(&host, "shop", Some(first.master)), second.master);
    let (code, out, err) = host.heeler(&["stop", "shop"]);
    assert_eq!((code, masters(&host)), (0, vec![]), "{out}{err}");
}
