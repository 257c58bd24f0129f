//! Starts that fail, hang, or come late.

use std::fs;
use std::time::{Duration, Instant};

use crate::shop::{Shop, Way, app, masters, up, write};
use crate::support::house::{PATIENCE, alive, pids, signal};
use crate::support::wait_for;
use crate::world::world;

const BROKEN: &str = "\nno_such_setting 7\n";
const WHAT_IT_SAYS: &str = "no_such_setting";

#[test]
fn one_that_fails_says_why() {
    world(|| broken_configuration(Way::Script));
}

#[test]
fn one_in_the_foreground_that_fails_says_why() {
    world(|| broken_configuration(Way::Foreground));
}

fn broken_configuration(way: Way) {
    let mut shop = Shop::new(way, "");
    let config = app("current/config/puma.rb");
    let good = fs::read_to_string(&config).expect("read");
    write(&config, &(good.clone() + BROKEN));
    shop.house.open();
    let mails = shop.wait_mails(1);
    println!("MAIL\n{}", mails[0]);
    let why = shop.wait_why(WHAT_IT_SAYS);
    println!("WHY\n{why}");
    assert!(mails[0].contains(WHAT_IT_SAYS), "{}", mails[0]);
    assert!(mails[0].contains("code 1"), "{}", mails[0]);
    write(&config, &good);
    let up = shop.timed("mended configuration, heeler start", None, |shop| {
        let (code, out, err) = shop.house.heeler(&["start", "shop"]);
        assert_eq!(code, 0, "{out}{err}");
    });
    assert_eq!(masters(), [up.master]);
}

/// `puma &`: the shell ends with code 0 before Puma has even read its configuration. All that can be said
/// is that nothing came; what Puma prints later is nobody's.
#[test]
fn one_in_the_background_that_fails_is_told() {
    world(|| {
        let mut shop = Shop::new(Way::Background, "start_timeout = \"3s\"\n");
        let text = fs::read_to_string(app("current/config/puma.rb")).expect("read");
        write(&app("current/config/puma.rb"), &(text + BROKEN));
        let command = "puma -C config/puma.rb &";
        let commands = format!(
            "pidfile = {:?}\nstart = {{ run = {command:?}, shell = true, cwd = {:?} }}\n",
            app("shared/pids/puma.pid"),
            app("current")
        );
        shop.define(&commands, "start_timeout = \"3s\"\n");
        shop.house.open();
        let mails = shop.wait_mails(1);
        println!("MAIL\n{}", mails[0]);
        println!("WHY\n{}", shop.why());
        println!("LOG\n{}", shop.house.log());
        assert!(mails[0].contains("no process within 3s"), "{}", mails[0]);
    });
}

#[test]
fn one_that_hangs_has_its_deadline_and_delays_nobody() {
    world(|| {
        // Long enough for a busy machine to bring the other one back within it.
        let mut shop = Shop::new(Way::Script, "start_timeout = \"8s\"\n");
        shop.house.daemon("other", "", crate::shop::QUICK);
        write(&app("hang"), "");
        shop.house.open();
        let first = shop.house.wait_up("other", None);
        let hanging = || {
            let sleeps = |pid: &u32| crate::shop::title(*pid) == "sleep 1000";
            pids().into_iter().find(sleeps)
        };
        let stuck = wait_for("the start command to hang", PATIENCE, hanging);
        // Between two starts of its own heeler keeps a second, whatever dies.
        let since = Instant::now();
        wait_for("a second", PATIENCE, || {
            (since.elapsed() > Duration::from_millis(1100)).then_some(())
        });
        let killed = Instant::now();
        signal(first, "KILL");
        let second = shop.house.wait_up("other", Some(first));
        println!("MEASURED another service meanwhile: {} ms", killed.elapsed().as_millis());
        assert!(alive(stuck) || hanging().is_some());
        assert_eq!(shop.house.starts("other"), [first, second]);
        let why = shop.wait_why("8s");
        println!("WHY\n{why}");
        let mails = shop.wait_mails(1);
        println!("MAIL\n{}", mails.join("\n=====\n"));
        wait_for("the hanging command to be ended", PATIENCE, || (!alive(stuck)).then_some(()));
        fs::remove_file(app("hang")).expect("remove");
        let up = shop.timed("a start that no longer hangs", None, |_| {});
        assert_eq!(masters(), [up.master]);
    });
}

#[test]
fn one_that_comes_late_is_taken_and_never_killed() {
    world(|| {
        let mut shop = Shop::new(Way::Script, "start_timeout = \"2s\"\n");
        write(&app("late"), "");
        shop.house.open();
        let first = wait_for("puma to serve at last", PATIENCE, up).master;
        fs::remove_file(app("late")).expect("remove");
        println!("WHY\n{}", shop.why());
        wait_for("heeler to take it", PATIENCE, || {
            (shop.house.pid("shop") == Some(first)).then_some(())
        });
        // What later starts left comes up to a bound port, and goes.
        wait_for("the others to be gone", PATIENCE, || {
            let waiting = pids().into_iter().any(|pid| crate::shop::title(pid).contains("sleep 4"));
            (!waiting && masters() == [first]).then_some(())
        });
        let still = Instant::now();
        wait_for("a while", PATIENCE, || (still.elapsed() > Duration::from_secs(3)).then_some(()));
        assert_eq!(masters(), [first]);
        assert_eq!(shop.wait_serving(None).master, first);
        assert!(!shop.house.log().contains("SIGTERM") && !shop.house.log().contains("SIGKILL"));
        println!("LOG\n{}", shop.house.log());
    });
}
