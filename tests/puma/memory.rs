//! A master that grows is restarted by rule, once, and the mail has the values.

use crate::shop::{Shop, Way, ask_for, masters};
use crate::world::world;

const RULE: &str = "
[[check]]
if = \"memory > 150MiB\"
for = \"2 of 3\"
then = \"restart\"
";

#[test]
fn in_the_background() {
    world(|| restarted_for_its_memory(Way::Background));
}

#[test]
fn in_its_users_systemd() {
    world(|| restarted_for_its_memory(Way::Unit));
}

fn restarted_for_its_memory(way: Way) {
    let mut shop = Shop::new(way, RULE);
    let first = shop.open();
    let second = shop.timed("memory > 150MiB, restart", Some(first.master), |_| {
        ask_for("/leak?mb=200");
    });
    let mails = shop.wait_mails(1);
    println!("MAIL\n{}", mails.join("\n=====\n"));
    println!("LOG\n{}", shop.house.log());
    assert_eq!(masters(), [second.master], "restarted more than once");
    assert!(mails[0].contains("> 150 MiB, 2 of 3"), "{}", mails[0]);
}
