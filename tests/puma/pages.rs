//! What only a page shows: a wrong answer, and a port that accepts while nobody answers.

use crate::shop::{Shop, Up, Way, ask_for, freeze, masters, workers};
use crate::world::world;

const PAGE: &str = "
[[check]]
type = \"http\"
url = \"http://127.0.0.1:9292/page\"
body = \"^ok$\"
timeout = \"1s\"
for = \"3 of 5\"
then = \"restart\"
";

#[test]
fn wrong_in_the_background() {
    world(|| a_wrong_page_is_restarted(Way::Background));
}

#[test]
fn wrong_in_its_users_systemd() {
    world(|| a_wrong_page_is_restarted(Way::Unit));
}

#[test]
fn silent_in_the_background() {
    world(|| a_silent_port_is_restarted(Way::Background));
}

#[test]
fn silent_in_the_foreground() {
    world(|| a_silent_port_is_restarted(Way::Foreground));
}

#[test]
fn silent_in_its_users_systemd() {
    world(|| a_silent_port_is_restarted(Way::Unit));
}

fn a_wrong_page_is_restarted(way: Way) {
    let mut shop = Shop::new(way, PAGE);
    let first = shop.open();
    assert_eq!(ask_for("/page"), "ok");
    let second = shop.timed("wrong body, 3 of 5, restart", Some(first.master), |_| {
        ask_for("/break");
    });
    let mail = told(&shop, &second);
    assert!(mail.contains("3 of 5"), "{mail}");
    assert!(mail.contains("out of order"), "the mail shows what came instead: {mail}");
}

fn a_silent_port_is_restarted(way: Way) {
    let mut shop = Shop::new(way, PAGE);
    let first = shop.open();
    let second =
        shop.timed("frozen, the port accepts, 3 of 5, restart", Some(first.master), |_| {
            freeze(first.master);
            workers(first.master).into_iter().for_each(freeze);
        });
    let mail = told(&shop, &second);
    let said = "accepts connections but did not answer within 1s";
    assert!(mail.contains(said), "{mail}");
}

/// The mail of it; and that there was one restart, of the one that is there.
fn told(shop: &Shop, now: &Up) -> String {
    let mails = shop.wait_mails(1);
    println!("MAIL\n{}", mails.join("\n=====\n"));
    println!("LOG\n{}", shop.house.log());
    assert_eq!(masters(), [now.master], "restarted more than once");
    mails[0].replace("=\r\n", "").replace("\r\n ", " ")
}
