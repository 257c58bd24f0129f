//! `heeler reload shop --verified` on a real Puma under a steady load: what is good stays, what is not is
//! taken back, and who came meanwhile was served.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Load, Tally};
use crate::shop::{
    Shop, Up, Way, add_release, app, as_deploy, ask_for, freeze, masters, point_at, pumactl, title,
    workers, write,
};
use crate::support::house::{PATIENCE, alive, signal};
use crate::support::{HEELER, wait_for};
use crate::world::world;

pub(crate) const GOOD: &str = include_str!("app/config.ru");
pub(crate) const RAISES: &str = "raise 'boom'\n";
pub(crate) const WRONG: &str =
    "run(->(_) { [500, { 'content-type' => 'text/plain' }, ['oops']] })\n";

const PUMA: &str = "
[[check]]
type = \"puma\"
name = \"stands\"

[[check]]
type = \"http\"
url = \"http://127.0.0.1:9292/page\"
body = \"^ok$\"
timeout = \"5s\"
for = \"3 of 5\"
then = \"restart\"

[puma]
state = \"/home/deploy/apps/shop/shared/pids/puma.state\"
current = \"/home/deploy/apps/shop/current\"
workers = 2
";
/// Puma itself waits so long for a worker.
const PATIENT: &str = "worker_shutdown_timeout 3600\n";
const ROLLBACK: &str = "rollback = \"symlink\"\n";

#[test]
fn good_by_a_script() {
    world(|| is_verified(Way::Script));
}

#[test]
fn good_in_its_users_systemd() {
    world(|| is_verified(Way::Managed));
}

#[test]
fn raising_by_a_script() {
    world(|| cannot_boot(Way::Script));
}

#[test]
fn raising_in_its_users_systemd() {
    world(|| cannot_boot(Way::Managed));
}

#[test]
fn wrong_by_a_script() {
    world(|| answers_wrongly(Way::Script));
}

#[test]
fn wrong_in_its_users_systemd() {
    world(|| answers_wrongly(Way::Managed));
}

#[test]
fn without_a_rollback() {
    world(|| {
        let (shop, first) = open(Way::Script, "");
        add_release(2, RAISES);
        let load = steady();
        let reload = Reload::onto(2, &shop, &[]);
        assert_eq!(reload.code, 1, "{reload:?}");
        assert!(reload.err.contains("there is no `rollback` in its file"), "{reload:?}");
        let typed = "Point `current` back and tell Puma `pumactl reload-worker-directory`";
        assert!(reload.err.contains(typed), "{reload:?}");
        assert_eq!(current(), release(2), "nobody allowed heeler to touch it");
        assert_eq!(releases_of(first.master).iter().filter(|dir| **dir == release(1)).count(), 1);
        // What it says does it.
        point_at(1);
        pumactl("reload-worker-directory");
        is_whole_again(&shop);
        ends_without_a_loss(load, "without a rollback", &reload);
        all_run(1, &first);
    });
}

#[test]
fn what_cannot_go_well_is_not_begun() {
    world(|| {
        let (shop, first) = open(Way::Script, ROLLBACK);
        let before = workers(first.master);
        let reload = Reload::onto(9, &shop, &["--timeout", "1m"]);
        assert_eq!(reload.code, 1, "{reload:?}");
        assert!(reload.err.contains("not begun: `current`"), "{reload:?}");
        assert!(reload.err.contains("Puma would die of a restart"), "{reload:?}");
        assert_eq!(workers(first.master), before);
        point_at(1);
        // A worker is missing: nobody knows then whom to blame.
        fs::write(app("releases/1/config.ru"), RAISES).expect("write");
        signal(before[0], "KILL");
        shop.house.wait_check("shop", "stands", "firing", "boot-loop");
        let reload = Reload::onto(1, &shop, &["--json"]);
        assert_eq!(reload.code, 1, "{reload:?}");
        let said: serde_json::Value = serde_json::from_str(&reload.out).expect("JSON");
        let result = &said["results"][0];
        assert_eq!((&result["service"], &result["result"]), (&"shop".into(), &"failed".into()));
        let text = result["text"].as_str().expect("a text");
        assert!(text.contains("not begun: it is not whole before"), "{text}");
    });
}

/// A phased restart of it is a full one, and Puma says nothing of that.
#[test]
fn preloaded_and_good() {
    world(|| {
        let (shop, first) = open_preloaded();
        add_release(2, GOOD);
        let load = steady();
        let reload = Reload::onto(2, &shop, &[]);
        ends_without_a_loss(load, "a good release, preloaded", &reload);
        assert_eq!(reload.code, 0, "{reload:?}");
        assert!(reload.out.contains("Puma made a full restart of it"), "{reload:?}");
        assert!(reload.out.contains(" (by a full restart: "), "{reload:?}");
        all_run(2, &first);
    });
}

/// And takes the master with it.
#[test]
fn preloaded_and_raising() {
    world(|| {
        let (shop, first) = open_preloaded();
        add_release(2, RAISES);
        let reload = Reload::onto(2, &shop, &[]);
        assert_eq!(reload.code, 1, "{reload:?}");
        assert!(reload.err.contains("its master died of the new release"), "{reload:?}");
        let began = Instant::now();
        let second = shop.wait_serving(Some(first.master));
        let down = (reload.took + began.elapsed()).as_secs_f64();
        println!("MEASURED a preloaded release that raises: serves again after {down:.1} s");
        is_whole_again(&shop);
        all_run(1, &second);
        assert_eq!(shop.starts(), 2, "{}", shop.house.log());
    });
}

#[test]
fn slowly_but_well() {
    world(|| {
        let (shop, first) = open(Way::Script, ROLLBACK);
        add_release(2, &format!("sleep 4\n{GOOD}"));
        let load = steady();
        let reload = Reload::onto(2, &shop, &[]);
        ends_without_a_loss(load, "a release that boots in 4 s", &reload);
        assert_eq!(reload.code, 0, "{reload:?}");
        assert!(reload.took > Duration::from_secs(18), "two of 4 s, and ten: {reload:?}");
        all_run(2, &first);
    });
}

/// Puma itself would wait for it for an hour.
#[test]
fn the_first_old_worker_is_stuck() {
    world(|| old_worker_is_stuck(Way::Script, 0));
}

#[test]
fn the_last_old_worker_is_stuck_in_its_users_systemd() {
    world(|| old_worker_is_stuck(Way::Managed, 1));
}

/// Where nobody says how long a worker may take, it is waited for, and `--timeout` ends it.
#[test]
fn an_old_worker_that_may_drain_is_waited_for() {
    world(|| {
        let (shop, first) = open_with(Way::Script, ROLLBACK, "extra.rb", PATIENT);
        let before = sorted(workers(first.master));
        freeze(before[0]);
        add_release(2, GOOD);
        let reload = thread::scope(|scope| {
            let reload = scope.spawn(|| Reload::onto(2, &shop, &["--timeout", "8s"]));
            wait_for("its time to be over", PATIENCE, || {
                shop.house.log().contains("taken back: its time is over").then_some(())
            });
            assert!(alive(before[0]), "it may drain: {}", shop.house.log());
            // It goes at last, and what was begun ends.
            signal(before[0], "CONT");
            reload.join().expect("heeler")
        });
        is_taken_back(&shop, &first, &reload, "its time is over: ");
        assert!(!shop.house.log().contains("killing worker"), "{}", shop.house.log());
    });
}

#[test]
fn pruned_and_good() {
    world(|| {
        let (shop, first) = open(Way::Script, ROLLBACK);
        add_release(2, GOOD);
        let load = steady();
        prune(2, 1);
        let reload = Reload::onto(2, &shop, &[]);
        ends_without_a_loss(load, "a good release, the one before is pruned", &reload);
        assert_eq!(reload.code, 0, "{reload:?}");
        all_run(2, &first);
    });
}

#[test]
fn pruned_and_raising() {
    world(|| {
        let (shop, first) = open(Way::Script, ROLLBACK);
        let old = workers(first.master);
        add_release(2, RAISES);
        let load = steady();
        prune(2, 1);
        let reload = Reload::onto(2, &shop, &[]);
        ends_without_a_loss(load, "a release that raises, the one before is pruned", &reload);
        stays_where_it_is(&shop, &first, &reload, "the new release does not boot");
        let left = workers(first.master);
        assert!(old.iter().any(|pid| left.contains(pid)), "the old ones serve: {old:?} {left:?}");
        ask_for("/up");
    });
}

#[test]
fn pruned_and_wrong() {
    world(|| {
        // Its page stays wrong until the next release, and a restart for that would be in the way of it.
        let lines = PUMA.replace("then = \"restart\"", "then = \"alert\"");
        let (shop, first) = opened(Shop::new(Way::Script, &format!("{lines}{ROLLBACK}")));
        add_release(2, WRONG);
        add_release(3, GOOD);
        prune(2, 1);
        let reload = Reload::onto(2, &shop, &[]);
        stays_where_it_is(&shop, &first, &reload, "bad answers in a row of its pages");
        // A release that is good is taken up as ever.
        wait_for("Puma to be whole", PATIENCE, || {
            (releases_of(first.master).len() == 2).then_some(())
        });
        is_whole_again(&shop);
        let reload = Reload::onto(3, &shop, &[]);
        assert_eq!(reload.code, 0, "{reload:?}");
        all_run(3, &first);
    });
}

#[test]
fn a_deploy_task() {
    world(|| {
        let (shop, first) = open(Way::Script, ROLLBACK);
        write(&app("capistrano.rb"), include_str!("app/capistrano.rb"));
        write(&app("heeler.rake"), include_str!("../../conf.d/examples/capistrano.rake"));
        let socket = shop.house.path("run/control.sock");
        let deploy = |number| {
            point_at(number);
            let output = as_deploy(&format!(
                "HEELER_SOCKET={} HEELER={HEELER} ruby ~/apps/shop/capistrano.rb ~/apps/shop/heeler.rake",
                socket.display()
            ));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.success(), text(&output.stdout), text(&output.stderr))
        };
        add_release(2, GOOD);
        add_release(3, RAISES);
        let (good, out, err) = deploy(2);
        assert!(good && out.contains("shop: verified after"), "{out}{err}");
        assert!(out.ends_with("deployed\n"), "{out}{err}");
        all_run(2, &first);
        let (good, out, err) = deploy(3);
        assert!(!good && err.contains("the new release does not boot"), "{out}{err}");
        assert!(!out.contains("deployed"), "{out}{err}");
        is_whole_again(&shop);
        all_run(2, &first);
    });
}

/// Points `current` at a release, and removes another.
fn prune(number: u32, gone: u32) {
    point_at(number);
    fs::remove_dir_all(release(gone)).expect("remove");
}

/// There is nowhere to go back to: `current` stays, its master lives, and the way out is said.
fn stays_where_it_is(shop: &Shop, first: &Up, reload: &Reload, why: &str) {
    assert_eq!(reload.code, 1, "{reload:?}");
    assert!(reload.err.contains(why), "{reload:?}");
    let gone = format!("{} is gone", release(1).display());
    assert!(reload.err.contains(&gone), "{reload:?}");
    assert_eq!(current(), release(2), "it leads nowhere else");
    assert_eq!((masters(), shop.starts()), (vec![first.master], 1), "{}", shop.house.log());
}

fn old_worker_is_stuck(way: Way, place: usize) {
    let toml = format!("{ROLLBACK}\n[workers]\nstop_timeout = \"3s\"\n");
    let (shop, first) = open_with(way, &toml, "extra.rb", PATIENT);
    let before = sorted(workers(first.master));
    freeze(before[place]);
    add_release(2, GOOD);
    let reload = Reload::onto(2, &shop, &[]);
    assert_eq!(reload.code, 0, "{reload:?}");
    let killed = format!("killing worker {}: its master has waited for it", before[place]);
    assert!(reload.out.contains(&killed), "{reload:?}");
    let log = shop.house.log();
    assert_eq!(log.matches("killing worker").count(), 1, "{log}");
    all_run(2, &first);
}

fn sorted(mut workers: Vec<u32>) -> Vec<u32> {
    workers.sort_by_key(|pid| title(*pid));
    workers
}

fn is_verified(way: Way) {
    let (shop, first) = open(way, ROLLBACK);
    let before = workers(first.master);
    add_release(2, GOOD);
    let load = steady();
    let reload = Reload::onto(2, &shop, &["--timeout", "2m"]);
    ends_without_a_loss(load, "a good release", &reload);
    assert_eq!(reload.code, 0, "{reload:?}");
    assert!(reload.out.contains("shop: 2 of 2 workers are new and ready\n"), "{reload:?}");
    let last = reload.out.lines().last().expect("says something");
    let said = format!("all workers run {}", release(2).display());
    assert!(last.starts_with("shop: verified after ") && last.contains(&said), "{last}");
    assert!(last.ends_with(" good answers of its pages"), "{last}");
    all_run(2, &first);
    assert!(before.iter().all(|pid| !workers(first.master).contains(pid)));
    assert!(shop.house.mails().is_empty(), "{:?}", shop.house.mails());
}

fn cannot_boot(way: Way) {
    let (shop, first) = open(way, ROLLBACK);
    add_release(2, RAISES);
    let load = steady();
    let reload = Reload::onto(2, &shop, &[]);
    ends_without_a_loss(load, "a release that raises at boot", &reload);
    is_taken_back(&shop, &first, &reload, "the new release does not boot (boot-loop");
}

fn answers_wrongly(way: Way) {
    let (shop, first) = open(way, ROLLBACK);
    add_release(2, WRONG);
    let load = steady();
    let reload = Reload::onto(2, &shop, &[]);
    let tally = load.end();
    tell(&tally, "a release that answers 500", &reload);
    assert!(hardly_any(&tally), "{tally:?} {reload:?}");
    assert!(tally.wrong > 0, "it was never let in: {reload:?}");
    is_taken_back(&shop, &first, &reload, "bad answers in a row of its pages");
    let after = steady();
    wait_for("some requests", PATIENCE, || (after.asked() > 200).then_some(()));
    ends_without_a_loss(after, "afterwards", &reload);
}

fn is_taken_back(shop: &Shop, first: &Up, reload: &Reload, why: &str) {
    assert_eq!(reload.code, 1, "{reload:?}");
    let said = format!("all workers run {} again after ", release(1).display());
    assert!(reload.err.contains(&said) && reload.err.contains(why), "{reload:?}");
    assert!(reload.out.contains("the new release is taken back: "), "{reload:?}");
    is_whole_again(shop);
    all_run(1, first);
    assert_eq!(shop.starts(), 1, "{}", shop.house.log());
}

/// Under the same master, and `current` says so, too.
fn all_run(number: u32, first: &Up) {
    assert_eq!(current(), release(number));
    assert_eq!(releases_of(first.master), [release(number), release(number)]);
    ask_for("/up");
}

fn open(way: Way, rollback: &str) -> (Shop, Up) {
    opened(Shop::new(way, &format!("{PUMA}{rollback}")))
}

fn open_preloaded() -> (Shop, Up) {
    open_with(Way::Script, ROLLBACK, "preload", "")
}

/// With a file of this text beside what Puma is configured by.
fn open_with(way: Way, toml: &str, file: &str, text: &str) -> (Shop, Up) {
    let shop = Shop::new(way, &format!("{PUMA}{toml}"));
    write(&app("shared").join(file), text);
    opened(shop)
}

fn opened(mut shop: Shop) -> (Shop, Up) {
    write(&app("shared/control"), "");
    let first = shop.open();
    wait_for("the start period to pass", PATIENCE, || {
        (shop.house.status("shop")["phase"] == "watching").then_some(())
    });
    is_whole_again(&shop);
    (shop, first)
}

fn is_whole_again(shop: &Shop) {
    shop.house.wait_check("shop", "stands", "ok", "failed (no: up 2/2)");
}

fn release(number: u32) -> PathBuf {
    app(&format!("releases/{number}"))
}

fn current() -> PathBuf {
    fs::canonicalize(app("current")).expect("leads somewhere")
}

/// Where its workers work.
fn releases_of(master: u32) -> Vec<PathBuf> {
    let of = |pid| fs::read_link(format!("/proc/{pid}/cwd")).ok();
    workers(master).into_iter().filter_map(of).collect()
}

/// How one went.
#[derive(Debug)]
struct Reload {
    code: i32,
    out: String,
    err: String,
    took: Duration,
}

impl Reload {
    /// Points `current` at a release, as a deploy does, and has it reloaded.
    fn onto(number: u32, shop: &Shop, options: &[&str]) -> Self {
        point_at(number);
        let began = Instant::now();
        let words = [&["reload", "shop", "--verified"], options].concat();
        let (code, out, err) = shop.house.heeler(&words);
        Self { code, out, err, took: began.elapsed() }
    }
}

/// No more than Puma alone loses: a worker that goes hangs up on whoever has connected and not asked yet
/// (`table`).
fn hardly_any(tally: &Tally) -> bool {
    tally.lost * 100 <= tally.asked
}

fn steady() -> Load {
    Load::begin(100)
}

fn ends_without_a_loss(load: Load, what: &str, reload: &Reload) {
    let tally = load.end();
    tell(&tally, what, reload);
    assert!(tally.asked > 0 && hardly_any(&tally) && tally.wrong == 0, "{tally:?} {reload:?}");
}

fn tell(tally: &Tally, what: &str, reload: &Reload) {
    let Tally { asked, lost, wrong, took } = tally;
    println!(
        "MEASURED {what}: {:.1} s, {asked} requests, {lost} lost, {wrong} wrong, slowest {} ms\n{}{}",
        reload.took.as_secs_f64(),
        took.last().map_or(0, Duration::as_millis),
        reload.out,
        reload.err
    );
}
