//! Workers of a real Puma: the one that leaks, hangs or is in the way goes, and nobody else does.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::load::ask;
use crate::orphans::hold_the_lock;
use crate::shop::{Shop, Way, app, as_deploy, freeze, masters, title, workers, write};
use crate::support::house::{PATIENCE, alive, signal};
use crate::support::wait_for;
use crate::world::world;

/// How heeler asks this Puma.
const PUMA: &str = "
[puma]
state = \"/home/deploy/apps/shop/shared/pids/puma.state\"
current = \"/home/deploy/apps/shop/current\"
";
const CONTROL: &str = "
activate_control_app 'unix:///home/deploy/apps/shop/shared/pids/control.sock', { auth_token: 'sekret' }
worker_timeout 3600
";
const LEAK: &str = "
[[check]]
type = \"worker\"
if = \"memory > 150MiB\"
for = \"2 of 3\"
";

/// A shop whose Puma can be asked, with so many workers.
fn crew(way: Way, count: usize, ruby: &str, toml: &str) -> (Shop, u32, Vec<u32>) {
    let mut shop = Shop::new(way, &format!("{PUMA}workers = {count}\n{toml}"));
    write(&app("shared/extra.rb"), &format!("workers {count}\n{CONTROL}{ruby}"));
    let master = shop.open().master;
    let crew = all_serve(&shop, count);
    (shop, master, crew)
}

/// Waits until all workers serve, by heeler's own word; who they are, by their place.
fn all_serve(shop: &Shop, count: usize) -> Vec<u32> {
    let end = Instant::now() + PATIENCE;
    loop {
        let (code, out, err) = shop.house.heeler(&["workers", "shop"]);
        let master = masters();
        let mut crew = master.first().map(|master| workers(*master)).unwrap_or_default();
        if code == 0 && out.contains(&format!("up {count}/{count}")) && crew.len() == count {
            crew.sort_by_key(|pid| title(*pid));
            return crew;
        }
        assert!(Instant::now() < end, "waited for {count} workers: {code} {out}{err}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Makes a new release the current one.
fn deploy(more: &str) {
    let script = format!(
        "cd ~/apps/shop && cp -r releases/1 releases/2 && cd releases/2 && {more} && cd ../.. \
         && ln -s releases/2 new && mv -T new current"
    );
    let output = as_deploy(&script);
    assert!(output.status.success(), "{output:?}");
}

fn runs_in(pid: u32) -> String {
    let at = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    at.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Waits until every worker is another one, in the release `name`.
fn all_new(shop: &Shop, before: &[u32], name: &str) -> Vec<u32> {
    wait_for("the restart to complete", PATIENCE * 2, || {
        let now = workers(*masters().first()?);
        let new = |pid: &u32| !before.contains(pid) && runs_in(*pid) == name;
        (now.len() == before.len() && now.iter().all(new)).then_some(())
    });
    all_serve(shop, before.len())
}

/// Somebody who asks for a page all the time.
struct Trickle {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, u32)>,
}

impl Trickle {
    fn begin() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut asked, mut lost) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                asked += 1;
                // A busy machine is slow; that is no loss.
                if ask("/up", Duration::from_secs(5)) != Some(200) {
                    lost += 1;
                }
                // The pace, twenty a second.
                thread::sleep(Duration::from_millis(50));
            }
            (asked, lost)
        });
        Self { stop, thread }
    }

    /// Where workers go, Puma may hang up on one who has connected and not asked yet.
    fn lost_at_most(self, most: u32, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let (asked, lost) = self.thread.join().expect("it ends");
        println!("MEASURED {what}: {lost} of {asked} requests lost");
        assert!(asked > 0 && lost <= most, "{lost} of {asked} requests were lost");
    }
}

/// Has one worker take memory; which one.
fn leaks(mb: u32) -> u32 {
    let answer = request(&format!("/grow?mb={mb}"));
    let said = answer.split_once("\r\n\r\n").expect("an answer").1;
    let said: serde_json::Value = serde_json::from_str(said).expect("json");
    u32::try_from(said["pid"].as_u64().expect("a pid")).expect("a pid")
}

/// Asks once, and waits as long as it takes.
fn request(path: &str) -> String {
    let mut stream = TcpStream::connect("127.0.0.1:9292").expect("connects");
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    answer
}

fn wait_gone(pid: u32) {
    wait_for("the worker to go", PATIENCE, || (!alive(pid)).then_some(()));
}

fn without(crew: &[u32], pid: u32) -> BTreeSet<u32> {
    crew.iter().copied().filter(|other| *other != pid).collect()
}

fn wait_log(shop: &Shop, words: &str) {
    let end = Instant::now() + PATIENCE;
    while !shop.house.log().contains(words) {
        assert!(Instant::now() < end, "waited for {words:?} in the log");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Several looks later.
fn looks_pass(seconds: u64) {
    let began = Instant::now();
    wait_for("a few looks", PATIENCE, || (began.elapsed().as_secs() >= seconds).then_some(()));
}

// ---- one that leaks ---------------------------------------------------------------------------

#[test]
fn one_that_leaks_is_recycled() {
    world(|| leak_is_recycled(Way::Background));
}

#[test]
fn one_that_leaks_in_its_users_systemd() {
    world(|| leak_is_recycled(Way::Managed));
}

fn leak_is_recycled(way: Way) {
    let toml = format!("[workers]\nmin = 2\n{LEAK}then = \"recycle worker\"\n");
    let (mut shop, master, before) = crew(way, 3, "", &toml);
    let trickle = Trickle::begin();
    let began = Instant::now();
    let leaky = leaks(200);
    wait_gone(leaky);
    let after = all_serve(&shop, 3);
    println!("MEASURED a leak ({way:?}): over after {:.1} s", began.elapsed().as_secs_f64());
    trickle.lost_at_most(1, "one worker recycled");
    let others = without(&before, leaky);
    assert!(others.iter().all(|pid| after.contains(pid)), "{before:?} {after:?}");
    let mails = shop.wait_mails(1);
    assert!(mails[0].contains("> 150 MiB, 2 of 3"), "{}", mails[0]);
    assert_eq!((masters(), shop.starts()), (vec![master], 1), "{}", shop.house.log());
    assert!(!shop.house.log().contains("SIGKILL"), "{}", shop.house.log());
    shop.house.close();
}

#[test]
fn at_the_minimum_a_leak_is_held_back_and_told() {
    world(|| {
        let toml = format!("[workers]\nmin = 2\n{LEAK}then = \"kill worker\"\n");
        let (shop, _, before) = crew(Way::Background, 2, "", &toml);
        leaks(200);
        let mail = shop.wait_mails(1).remove(0).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(mail.contains("only 1 would serve without it, and min is 2"), "{mail}");
        looks_pass(5);
        assert_eq!(all_serve(&shop, 2), before);
    });
}

#[test]
fn the_budget_is_kept() {
    world(|| {
        let toml = format!(
            "[workers]\nmin = 1\nbudget = \"1 per 10m\"\n{LEAK}then = \"recycle worker\"\n"
        );
        let (shop, _, before) = crew(Way::Background, 2, "", &toml);
        let first = leaks(200);
        wait_gone(first);
        let between = all_serve(&shop, 2);
        let second = leaks(200);
        wait_log(
            &shop,
            &format!("worker {second} is held back: the budget of 1 per 10m is used up"),
        );
        looks_pass(3);
        assert_eq!(all_serve(&shop, 2), between);
        assert_ne!(before, between);
        let (code, out, _) = shop.house.heeler(&["workers", "shop"]);
        assert!(code == 0 && out.contains("0 of 1 actions left per 10m"), "{out}");
    });
}

#[test]
fn old_ones_are_replaced_one_by_one() {
    world(|| {
        let toml = "[workers]\nmin = 2\nbudget = \"100 per 10m\"\n[[check]]\ntype = \"worker\"\n\
                    if = \"age > 2s\"\nfor = \"1 of 1\"\nthen = \"recycle worker\"\n";
        let (mut shop, master, before) = crew(Way::Background, 3, "", toml);
        let trickle = Trickle::begin();
        wait_for("all to be replaced", PATIENCE, || {
            let serving = workers(master);
            assert!(serving.len() >= 2, "{serving:?}");
            before.iter().all(|pid| !alive(*pid)).then_some(())
        });
        trickle.lost_at_most(1, "three workers recycled for their age");
        let log = shop.house.log();
        shop.house.close();
        // Each one's end is seen before the next one is told.
        let mut going = 0;
        for line in log.lines() {
            going += i32::from(line.contains(" telling worker "));
            going -= i32::from(line.contains(" is gone after "));
            assert!((0..=1).contains(&going), "{line}\n{log}");
        }
    });
}

// ---- one that hangs ---------------------------------------------------------------------------

#[test]
fn one_that_is_stopped_goes_by_rule() {
    world(|| {
        let toml = "[workers]\nmin = 2\nstop_timeout = \"3s\"\n[[check]]\ntype = \"worker\"\n\
                    if = \"state = T\"\nfor = \"2 of 2\"\nthen = \"kill worker\"\n";
        let (shop, _, before) = crew(Way::Background, 3, "", toml);
        freeze(before[1]);
        wait_gone(before[1]);
        let after = all_serve(&shop, 3);
        assert!(without(&before, before[1]).iter().all(|pid| after.contains(pid)));
    });
}

#[test]
fn one_that_hears_nothing_goes_by_hand() {
    world(|| {
        let toml = "[workers]\nmin = 1\nstop_timeout = \"3s\"\n";
        let (shop, master, before) = crew(Way::Background, 2, "", toml);
        let locked = hold_the_lock();
        let pid = locked.to_string();
        let (code, out, err) = shop.house.heeler(&["kill", "shop", "--worker", &pid]);
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.contains(&format!("worker {pid} is gone after")), "{out}");
        let log = shop.house.log();
        assert!(
            log.contains(&format!("worker {pid} is still there after 3s: sending SIGKILL")),
            "{log}"
        );
        assert!(log.contains(&format!("worker {pid} before its KILL:")), "{log}");
        let after = all_serve(&shop, 2);
        assert!(without(&before, locked).iter().all(|pid| after.contains(pid)));
        for (words, why) in [
            (["--worker".to_owned(), master.to_string()], "that is the main process"),
            (["--worker".to_owned(), shop.house.keeper().to_string()], "there is no worker"),
            (["--stuck".to_owned(), "--json".to_owned()], "no worker is stuck"),
        ] {
            let args: Vec<&str> =
                ["kill", "shop"].into_iter().chain(words.iter().map(|w| &**w)).collect();
            let (code, out, err) = shop.house.heeler(&args);
            assert!(code == 1 && format!("{out}{err}").contains(why), "{args:?} {code} {out}{err}");
        }
        assert_eq!((masters(), all_serve(&shop, 2)), (vec![master], after));
    });
}

// ---- one that is in the way of a phased restart -------------------------------------------------

/// Puma itself would wait for an hour.
const PATIENT: &str = "worker_shutdown_timeout 3600\n";
const HURRIED: &str = "[workers]\nmin = 1\nstop_timeout = \"3s\"\n";

#[test]
fn the_first_in_line_is_stopped() {
    world(|| stuck(Way::Background, |crew| hang_up(crew[0])));
}

#[test]
fn the_last_in_line_is_stopped() {
    world(|| stuck(Way::Background, |crew| hang_up(crew[1])));
}

#[test]
fn the_first_in_line_is_stopped_in_its_users_systemd() {
    world(|| stuck(Way::Managed, |crew| hang_up(crew[0])));
}

#[test]
fn one_in_line_holds_the_lock() {
    world(|| stuck(Way::Background, |_| hold_the_lock()));
}

#[test]
fn one_in_line_holds_the_lock_in_its_users_systemd() {
    world(|| stuck(Way::Managed, |_| hold_the_lock()));
}

fn hang_up(pid: u32) -> u32 {
    freeze(pid);
    pid
}

fn stuck(way: Way, hang: fn(&[u32]) -> u32) {
    let (shop, master, before) = crew(way, 2, PATIENT, HURRIED);
    let stuck = hang(&before);
    deploy("true");
    let began = Instant::now();
    signal(master, "USR1");
    let after = all_new(&shop, &before, "2");
    println!(
        "MEASURED a phased restart, one stuck ({way:?}): {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let log = shop.house.log();
    assert!(
        log.contains(&format!("killing worker {stuck}: its master has waited for it for")),
        "{log}"
    );
    assert_eq!(log.matches("killing worker").count(), 1, "{log}");
    assert_eq!((masters(), shop.starts()), (vec![master], 1), "{log}");
    assert!(after.iter().all(|pid| runs_in(*pid) == "2"));
}

#[test]
fn who_says_nothing_of_time_kills_by_hand() {
    world(|| {
        let (shop, master, before) = crew(Way::Background, 2, PATIENT, "");
        let stuck = hang_up(before[0]);
        deploy("true");
        signal(master, "USR1");
        let waits = "its master has waited for it to go";
        wait_for("heeler to see it", PATIENCE, || {
            let (_, out, _) = shop.house.heeler(&["workers", "shop"]);
            let flat = out.split_whitespace().collect::<Vec<_>>().join(" ");
            (flat.contains(waits) && flat.contains("restarting 0/2, phase 1")).then_some(())
        });
        looks_pass(5);
        assert!(alive(stuck), "a long drain is not a hang");
        let (code, out, err) = shop.house.heeler(&["kill", "shop", "--stuck"]);
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.contains(&format!("worker {stuck} is gone after")), "{out}");
        all_new(&shop, &before, "2");
        assert_eq!(masters(), [master]);
    });
}

#[test]
fn a_long_drain_that_is_meant_is_respected() {
    world(|| {
        let (shop, master, before) = crew(Way::Background, 2, PATIENT, "");
        let drains = thread::spawn(|| request("/slow?s=8"));
        // Its request is on its way once a worker is busy with it: the other one answers meanwhile.
        looks_pass(1);
        deploy("true");
        signal(master, "USR1");
        all_new(&shop, &before, "2");
        let answer = drains.join().expect("it ends");
        assert!(
            answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200"),
            "{answer}"
        );
        let log = shop.house.log();
        assert!(!log.contains("to pid") && !log.contains("killing worker"), "{log}");
    });
}

// ---- new code that cannot boot -------------------------------------------------------------------

#[test]
fn while_the_new_code_raises_the_old_workers_survive() {
    world(|| cannot_boot(Way::Background));
}

#[test]
fn while_the_new_code_raises_in_its_users_systemd() {
    world(|| cannot_boot(Way::Managed));
}

fn cannot_boot(way: Way) {
    let rule = format!("{LEAK}then = \"kill worker\"\n");
    let toml = format!("[workers]\nmin = 1\nstop_timeout = \"3s\"\n{rule}");
    let (shop, master, before) = crew(way, 3, "worker_shutdown_timeout 5\n", &toml);
    deploy("touch BOOM");
    signal(master, "USR1");
    wait_for("the boot loop to be seen", PATIENCE, || {
        let (code, out, _) = shop.house.heeler(&["workers", "shop"]);
        (code == 1 && out.contains("boot-loop")).then_some(())
    });
    let old: Vec<u32> = before.iter().copied().filter(|pid| alive(*pid)).collect();
    assert_eq!(old.len(), 2, "{before:?} {old:?}");
    let trickle = Trickle::begin();
    leaks(200);
    wait_log(&shop, "is held back:");
    let stuck = shop.house.heeler(&["kill", "shop", "--worker", &old[0].to_string()]);
    assert_eq!(stuck.0, 1, "{stuck:?}");
    // Longer than a worker that went is missed for.
    let began = Instant::now();
    wait_for("more than a minute of it", PATIENCE * 3, || {
        assert!(old.iter().all(|pid| alive(*pid)), "{}", shop.house.log());
        (began.elapsed() > Duration::from_secs(65)).then_some(())
    });
    trickle.lost_at_most(0, "a boot loop for a minute");
    let log = shop.house.log();
    assert!(!log.contains(" to pid"), "somebody was signalled:\n{log}");
    // The way back.
    let output = as_deploy(
        "cd ~/apps/shop && ln -s releases/1 new && mv -T new current && \
         pumactl -S shared/pids/puma.state reload-worker-directory",
    );
    assert!(output.status.success(), "{output:?}");
    all_new(&shop, &before, "1");
    assert_eq!(masters(), [master]);
}

// ---- what will go off some day --------------------------------------------------------------------

/// The release that the master works in is pruned: nothing happens until a worker dies.
#[test]
fn a_pruned_release_is_told_before_it_goes_off() {
    world(|| {
        let (shop, master, before) = crew(Way::Background, 2, "", "");
        deploy("true");
        let output = as_deploy("cd / && rm -rf ~/apps/shop/releases/1");
        assert!(output.status.success(), "{output:?}");
        let mail = shop.wait_mails(1).remove(0).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(mail.contains("the directory that its master works in was deleted"), "{mail}");
        let wrong = shop.house.status("shop")["wrong"][0].to_string();
        assert!(wrong.contains("was deleted"), "{wrong}");
        assert_eq!(all_serve(&shop, 2), before, "it was acted on");
        let output = as_deploy(
            "cd ~/apps/shop && pumactl -S shared/pids/puma.state reload-worker-directory",
        );
        assert!(output.status.success(), "{output:?}");
        let mail = shop.wait_mails(2).remove(1);
        assert!(mail.contains("over after"), "{mail}");
        assert_eq!((masters(), shop.starts()), (vec![master], 1));
    });
}
