//! heeler's own means are short, or much is asked of them at once: it says so, forgets nothing, and goes on.

use std::fs;
use std::path::PathBuf;

use crate::support::house::{House, PATIENCE, pids, signal};
use crate::support::{Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"2s\"\n\
                     start_limit = \"1000 per 1m\"\n";

/// A control group in which nothing new is born.
struct NoForks(PathBuf);

impl NoForks {
    fn make(house: &House) -> Option<Self> {
        // A number of this process may be that of another one in another namespace.
        let house = house.path("");
        let name = house.file_name()?;
        let places = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        places.iter().find_map(|mount| {
            let group = Self(PathBuf::from(mount).join(name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join("pids.max"), "max").ok().map(|()| group)
        })
    }
}

impl Drop for NoForks {
    fn drop(&mut self) {
        // It is empty once its keeper has ended.
        wait_for("its group to be empty", PATIENCE, || fs::remove_dir(&self.0).ok());
    }
}

/// RES-01.
#[test]
fn res_01_what_cannot_be_started_now_is_said_and_started_once_it_can_be() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let house = House::new("");
    let Some(group) = NoForks::make(&house) else {
        assert!(!can_run(&[Need::Program("/sys/fs/cgroup/pids", "a pids controller")]));
        return;
    };
    // It goes before the group does.
    let mut house = house;
    let alert = "alert = [\"ops@example.com\"]\n";
    house.daemon("shop", "", &format!("{QUICK}{alert}"));
    let run = house.command("program", "foreground");
    house.define("program", &format!("run = {run:?}\n{QUICK}{alert}"));
    house.daemon("other", "", QUICK);
    house.open();
    let names = ["shop", "program"];
    let before = names.map(|name| house.wait_up(name, None));
    let other = house.wait_up("other", None);
    house.wait_starts("program", &before[1..]);
    fs::write(group.0.join("cgroup.procs"), house.keeper().to_string()).expect("moved");
    fs::write(group.0.join("pids.max"), "1").expect("limited");
    before.into_iter().for_each(|pid| signal(pid, "KILL"));
    for name in names {
        let words = format!(
            "{name}: error: was not executed: failed to start the shim: no process can be made now"
        );
        wait_for("it to be said", PATIENCE, || house.log().contains(&words).then_some(()));
        assert_eq!(house.starts(name).len(), 1);
    }
    // It still watches, and answers; and tells nobody that the service is to blame.
    assert_eq!(house.pid("other"), Some(other));
    let (_, why, _) = house.heeler(&["why", "shop"]);
    assert!(why.contains("no process can be made now"), "{why}");
    wait_for("a mail that says so", PATIENCE, || {
        let says = |mail: &String| {
            // Its lines are broken where they are long.
            let words: Vec<_> = mail.split_whitespace().collect();
            words.join(" ").contains("no process can be made now")
        };
        house.mails().iter().any(says).then_some(())
    });
    fs::write(group.0.join("pids.max"), "max").expect("lifted");
    for (name, before) in names.iter().zip(before) {
        house.wait_up(name, Some(before));
        assert_eq!(house.doubles(name), 0);
    }
    assert_eq!(house.close(), Some(0));
}

/// RES-03: what a keeper with little memory does not get, it does without; one that dies of it loses nothing.
#[test]
fn res_03_a_keeper_with_little_memory_goes_on_or_is_followed_by_one_that_does() {
    let mut house = House::new("");
    let names: Vec<_> = (0..20).map(|n| format!("s{n}")).collect();
    for name in &names {
        house.daemon(name, "", QUICK);
    }
    house.open();
    let mut last: Vec<_> = names.iter().map(|name| house.wait_up(name, None)).collect();
    let keeper = house.keeper();
    let status = fs::read_to_string(format!("/proc/{keeper}/status")).expect("it lives");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("VmSize");
    let kib: u64 = size.trim().trim_end_matches(" kB").parse().expect("a number");
    let most = (kib << 10) + (8 << 20);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(keeper).expect("a pid"));
    limit(pid, most);
    for round in 0..5 {
        for _ in 0..20 {
            house.heeler(&["status", "--json"]);
        }
        last.iter().for_each(|pid| signal(*pid, "KILL"));
        for (name, last) in names.iter().zip(&mut last) {
            *last = house.wait_up(name, Some(*last));
            assert_eq!(house.doubles(name), 0, "round {round}");
        }
    }
    assert_eq!(house.keeper(), keeper);
    assert_eq!(house.close(), Some(0), "{}", house.log());
}

/// prlimit(2) for the address space of another process.
fn limit(pid: nix::unistd::Pid, bytes: u64) {
    let done = std::process::Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--as={bytes}:{bytes}")])
        .status();
    assert!(done.expect("prlimit (util-linux)").success());
}

/// RES-12: two hundred children of the keeper end in the same moment, each in its own way.
#[test]
fn res_12_all_that_end_at_once_are_heard_each_for_itself() {
    const MANY: usize = 200;
    let mut house = House::new("");
    let gate = house.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("a pipe");
    for n in 0..MANY {
        let run = format!("read x <{}; exit {}", gate.display(), n + 1);
        let text = format!(
            "run = {{ run = {run:?}, shell = true }}\nevery = \"1s\"\nstart_period = \"100ms\"\n"
        );
        house.define(&format!("s{n}"), &text);
    }
    // Whoever reads sees the end where the last writer goes; who begins later waits for another writer.
    let writer = fs::File::options().read(true).write(true).open(&gate).expect("opens");
    house.open();
    let before: Vec<_> = (0..MANY).map(|n| house.wait_up(&format!("s{n}"), None)).collect();
    let keeper = house.keeper();
    for pid in &before {
        wait_for("it to read", PATIENCE, || {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten();
            let mut open = open.filter_map(|fd| fs::read_link(fd.path()).ok());
            open.any(|target| target == gate).then_some(())
        });
    }
    drop(writer);
    for (n, before) in before.into_iter().enumerate() {
        let name = format!("s{n}");
        house.wait_up(&name, Some(before));
        let (own, code) = (format!("{name}: "), format!("code {}", n + 1));
        let log = house.log();
        let mut own = log.lines().filter(|line| line.contains(&own));
        assert!(
            own.any(|line| line.ends_with(&code) || line.contains(&format!("{code} "))),
            "{name}"
        );
    }
    wait_for("all to be reaped", PATIENCE, || {
        (crate::resources::zombies(keeper) == 0).then_some(())
    });
    // Those of the first runs may be on their way out.
    let shims = || {
        pids()
            .into_iter()
            .filter(|pid| {
                let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                title.starts_with(b"heeler\0shim\0s")
                    && fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                        stat.rsplit_once(") ").is_some_and(|(_, rest)| {
                            rest.split(' ').nth(1) == Some(&keeper.to_string())
                        })
                    })
            })
            .count()
    };
    wait_for("one shim for each", PATIENCE, || (shims() == MANY).then_some(()));
}

/// RES-11.
#[test]
fn res_11_four_thousand_checks_are_kept_within_the_budget() {
    const SERVICES: usize = 64;
    const CHECKS: usize = 64;
    let mut house = House::new("");
    let check = |n: usize| format!("[[check]]\nif = \"memory > {}GiB\"\n", n + 1);
    let checks: String = (0..CHECKS).map(check).collect();
    for n in 0..SERVICES {
        house.daemon(&format!("s{n}"), "", &format!("every = \"5s\"\n{checks}"));
    }
    house.open();
    for n in 0..SERVICES {
        house.wait_up(&format!("s{n}"), None);
    }
    let (_, out, _) = house.heeler(&["status", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let services = all["services"].as_array().expect("a list");
    let checks: usize =
        services.iter().map(|one| one["checks"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(checks, SERVICES * CHECKS);
    let status = fs::read_to_string(format!("/proc/{}/status", house.keeper())).expect("it lives");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: u64 = rss.trim().trim_end_matches(" kB").parse().expect("a number");
    eprintln!("RES-11: {kib} KiB with {checks} checks");
    // The budget of the threat model (T21); a debug build is larger than what is shipped.
    assert!(kib < 40 << 10, "{kib} KiB");
}
