//! Pidfiles that name what they must not. Nothing is signalled or started, the alert says why, and it
//! heals when the pidfile is right again.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::shop::{Shop, Way, app, masters, up};
use crate::support::house::{PATIENCE, alive, signal};
use crate::support::wait_for;
use crate::world::{DEPLOY, world};

#[test]
fn another_users_process() {
    world(|| {
        wrong_claim("runs as uid 1501", |_| {
            let victim = sleeper(1501, None);
            (name(victim.pid()), Some(victim))
        });
    });
}

#[test]
fn process_one() {
    world(|| wrong_claim("first process", |_| (name(1), None)));
}

#[test]
fn heeler_itself() {
    world(|| wrong_claim("heeler itself", |shop| (name(shop.house.keeper()), None)));
}

#[test]
fn a_thread() {
    world(|| {
        wrong_claim("is a thread id", |_| {
            let master = masters()[0];
            let tasks = fs::read_dir(format!("/proc/{master}/task")).expect("tasks");
            let ids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
            let thread = ids.filter(|id: &u32| *id != master).max().expect("puma has threads");
            (name(thread), None)
        });
    });
}

#[test]
fn a_fifo() {
    world(|| {
        wrong_claim("not a regular file", |_| {
            fs::remove_file(pidfile()).expect("remove");
            nix::unistd::mkfifo(&pidfile(), nix::sys::stat::Mode::from_bits_truncate(0o644))
                .expect("mkfifo");
            chown(pidfile(), Some(DEPLOY), Some(DEPLOY)).expect("chown");
            ((), None)
        });
    });
}

fn wrong_claim<T>(words: &str, wrong: impl FnOnce(&Shop) -> (T, Option<Victim>)) {
    let mut shop = Shop::new(Way::Background, "");
    let first = shop.open();
    let right = fs::read_to_string(pidfile()).expect("read");
    let (_, victim) = wrong(&shop);
    let why = shop.wait_why(words);
    let mails = shop.wait_mails(1);
    println!("MAIL\n{}", mails.join("\n=====\n"));
    println!("WHY\n{why}");
    assert!(mails.iter().any(|mail| mail.replace("\n  ", " ").contains(words)), "{mails:?}");
    assert!(victim.is_none_or(|victim| alive(victim.pid())), "the victim was killed");
    assert_eq!(masters(), [first.master]);
    // An order changes nothing about that: the master is held, and proved.
    fs::remove_file(pidfile()).expect("remove");
    crate::shop::write(&pidfile(), &right);
    wait_for("it to heal", PATIENCE, || {
        shop.house.status("shop")["incidents"].as_array().is_none_or(Vec::is_empty).then_some(())
    });
    assert_eq!(shop.house.pid("shop"), Some(first.master));
    assert_eq!(shop.wait_serving(None).master, first.master);
    assert_eq!(shop.starts(), 1, "{}", shop.house.log());
    assert!(!shop.house.log().contains("SIG"), "{}", shop.house.log());
    println!("LOG\n{}", shop.house.log());
}

#[test]
fn another_users_process_while_puma_is_dead() {
    world(|| {
        let mut shop = Shop::new(Way::Background, "");
        let first = shop.open();
        let victim = sleeper(1501, None);
        signal(shop.house.keeper(), "STOP");
        name(victim.pid());
        signal(first.master, "KILL");
        signal(shop.house.keeper(), "CONT");
        shop.wait_why("runs as uid 1501");
        let mails = shop.wait_mails(2);
        assert!(mails.iter().all(|mail| mail.contains("runs as uid 1501")), "{mails:#?}");
        assert!(
            mails.iter().all(|mail| mail.contains("until it can prove what is meant")),
            "{mails:#?}"
        );
        println!("MAIL\n{}", shop.house.mails().join("\n=====\n"));
        assert_eq!(shop.starts(), 1, "{}", shop.house.log());
        assert!(masters().is_empty() && alive(victim.pid()));
        let second = shop.timed("the wrong pidfile taken away", Some(first.master), |_| {
            fs::remove_file(pidfile()).expect("remove");
        });
        assert!(alive(victim.pid()));
        assert_eq!(masters(), [second.master]);
    });
}

#[test]
fn a_reused_number() {
    world(|| reused_number(false));
}

#[test]
fn a_reused_number_found_by_a_new_heeler() {
    world(|| reused_number(true));
}

/// While heeler does not look, Puma dies and its number is given to another process of deploy's.
fn reused_number(restart_heeler: bool) {
    let mut shop = Shop::new(Way::Background, "");
    let first = shop.open();
    // So old that clock ticks and coarse file times explain nothing any more.
    wait_for("the pidfile to age", PATIENCE, || {
        let written = fs::metadata(pidfile()).expect("stat").modified().expect("a time");
        (SystemTime::now().duration_since(written).ok()? > Duration::from_millis(2500))
            .then_some(())
    });
    if restart_heeler {
        shop.house.kill_keeper();
    } else {
        signal(shop.house.keeper(), "STOP");
    }
    signal(first.master, "KILL");
    wait_for("puma to be gone", PATIENCE, || {
        let gone = !fs::exists(format!("/proc/{}", first.master)).unwrap_or(true);
        (gone && up().is_none() && crate::shop::workers(first.master).is_empty()).then_some(())
    });
    let victim = sleeper(DEPLOY, Some(first.master));
    assert_eq!(victim.pid(), first.master);
    let second = shop.timed("the number of the dead master reused", Some(first.master), |shop| {
        if restart_heeler {
            shop.house.open();
        } else {
            signal(shop.house.keeper(), "CONT");
        }
    });
    println!("LOG\n{}", shop.house.log());
    println!("WHY\n{}", shop.why());
    assert!(alive(victim.pid()), "the victim was killed");
    assert_eq!(masters(), [second.master]);
}

fn pidfile() -> std::path::PathBuf {
    app("shared/pids/puma.pid")
}

/// Has deploy's pidfile name a process.
fn name(pid: u32) {
    let new = app("shared/pids/new");
    crate::shop::write(&new, &pid.to_string());
    fs::rename(new, pidfile()).expect("rename");
}

/// A process that must live on.
struct Victim(Child);

impl Victim {
    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("it is our child");
    }
}

/// A process of a user's; with this number, if one is wanted.
fn sleeper(uid: u32, wanted: Option<u32>) -> Victim {
    wait_for("a process with that number", PATIENCE, || {
        if let Some(pid) = wanted {
            fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("ns_last_pid");
        }
        let mut command = Command::new("/bin/sleep");
        command.arg("1000").uid(uid).gid(uid).stdin(Stdio::null());
        let victim = Victim(command.spawn().expect("sleep runs"));
        wanted.is_none_or(|pid| pid == victim.pid()).then_some(victim)
    })
}
