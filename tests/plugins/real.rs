//! Debian's monitoring-plugins, as they come.

use crate::support::house::{House, PATIENCE};
use crate::support::{Need, can_run, wait_for};
use crate::{define, wait_says};

const DIR: &str = "/usr/lib/nagios/plugins";

#[test]
fn debians_plugins_run_unchanged_and_their_numbers_are_metrics() {
    let package = Need::Program("/usr/lib/nagios/plugins/check_load", "monitoring-plugins-basic");
    if !can_run(&[Need::Root, package]) {
        return;
    }
    let mut house = House::new("");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let closed = {
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        other.local_addr().expect("an address").port()
    };
    // What each is asked, the condition, and what the check then says.
    let cases = [
        ("check_dummy 0 fine", "exit_code = 0", "exit_code (0)"),
        ("check_dummy 1 'so so'", "failed", "failed (WARNING (code 1): WARNING: so so)"),
        ("check_dummy 2 broken", "failed", "failed (CRITICAL (code 2): CRITICAL: broken)"),
        ("check_dummy 3 lost", "failed", "failed (UNKNOWN (code 3): UNKNOWN: lost)"),
        ("check_load -w 1000 -c 2000", "perfdata.load15 < 1000", "perfdata.load15 ("),
        ("check_disk -w 1% -c 1% -p /", "perfdata./ > 1MB", "perfdata./ ("),
        ("check_procs -w 1:99999", "perfdata.procs > 1", "perfdata.procs ("),
        ("check_users -w 999 -c 999", "perfdata.users < 1000", "perfdata.users ("),
        ("check_swap -w 1% -c 1% -n ok", "perfdata.swap < 1024TB", "perfdata.swap ("),
        (&format!("check_tcp -H 127.0.0.1 -p {port}"), "perfdata.time < 9s", "perfdata.time ("),
        (&format!("check_tcp -H 127.0.0.1 -p {closed}"), "failed", "failed (CRITICAL (code 2): "),
        (&format!("check_http -H 127.0.0.1 -p {closed}"), "failed", "failed (CRITICAL (code 2): "),
    ];
    for (n, (command, condition, _)) in cases.iter().enumerate() {
        let lines = format!("style = \"nagios\"\nevery = \"1s\"\nif = {condition:?}");
        define(&house, &format!("case{n}"), &format!("{DIR}/{command}"), &lines);
    }
    house.open();
    for (n, (command, condition, words)) in cases.iter().enumerate() {
        let name = format!("case{n}");
        let (text, _) = wait_says(&house, &name, words);
        eprintln!("{command}: {text}");
        assert!(!text.contains("no value"), "{command}: {text}");
        if !condition.starts_with("failed") {
            wait_for(&format!("{command} to be judged: {text}"), PATIENCE, || {
                (house.status(&name)["checks"][0]["state"] == "firing").then_some(())
            });
        }
    }
}
