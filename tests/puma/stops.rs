//! Orders about a Puma whose master is stopped (SIGSTOP): it is told to go and to go on, so it needs no KILL.

use std::time::{Duration, Instant};

use crate::shop::{QUICK, Shop, Way, freeze, masters};
use crate::support::house::alive;
use crate::world::world;

#[test]
fn started_in_the_background() {
    world(|| stopped_master_obeys(Way::Background));
}

#[test]
fn kept_in_the_foreground() {
    world(|| stopped_master_obeys(Way::Foreground));
}

#[test]
fn kept_by_its_users_systemd() {
    world(|| stopped_master_obeys(Way::Unit));
}

fn stopped_master_obeys(way: Way) {
    let mut shop = Shop::new(way, "");
    // On a busy machine Puma takes a while, told to go and awake.
    let patient = format!("user = \"deploy\"\n{}{}", shop.commands(), QUICK.replace("3s", "20s"));
    shop.house.define("shop", &patient);
    let first = shop.open();
    freeze(first.master);
    let began = Instant::now();
    let (code, out, err) = shop.house.heeler(&["stop", "shop"]);
    println!("MEASURED stop of a stopped master ({way:?}): {:.2} s", began.elapsed().as_secs_f64());
    assert_eq!(code, 0, "{out}{err}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(!alive(first.master) && masters().is_empty());
    assert!(!shop.house.log().contains("SIGKILL"), "{}", shop.house.log());
    assert_eq!(shop.house.status("shop")["desired"]["want"], "down");

    assert_eq!(shop.house.heeler(&["start", "shop"]).0, 0);
    let second = shop.wait_serving(Some(first.master));
    freeze(second.master);
    let third = shop.timed("restart of a stopped master", Some(second.master), |shop| {
        let (code, out, err) = shop.house.heeler(&["restart", "shop"]);
        assert_eq!(code, 0, "{out}{err}");
    });
    assert_eq!(masters(), [third.master]);
    assert!(!shop.house.log().contains("SIGKILL"), "{}", shop.house.log());
    assert!(shop.house.mails().is_empty(), "{:?}", shop.house.mails());
}
