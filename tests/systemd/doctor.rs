//! `heeler doctor` in a booted host: units, user managers and lingering, as they are.

use std::time::Instant;

use crate::host::{Host, can_boot};
use crate::shop::wait_held;
use crate::situations::{self, Situation, manager};
use crate::support::house::PATIENCE;
use crate::watchers::{Unit, Watcher};

/// Exit code, and `grade about: text` of each finding, one a line.
fn doctor(host: &Host) -> (i32, String) {
    let (code, out, err) = host.heeler(&["doctor", "--json"]);
    let report: serde_json::Value =
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let word =
        |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or("").to_owned();
    let line = |finding| {
        let [grade, about, text] = ["grade", "about", "text"].map(|key| word(finding, key));
        format!("{grade} {about}: {text}\n")
    };
    (code, report["findings"].as_array().expect("a list").iter().map(line).collect())
}

#[test]
fn it_knows_what_a_unit_of_a_user_needs() {
    if !can_boot() {
        return;
    }
    let calm = Situation { unit: Unit::Enabled, ..situations::RESTART };
    let (host, up) = calm.prepare(Watcher::Heeler, "");
    let (code, found) = doctor(&host);
    assert_eq!(code, 0, "{found}");
    for line in [
        "ok user deploy: its user manager runs",
        &format!("ok shop: puma.service is up, pid {}", up.master),
        "ok shop: deploy can execute its ",
        "ok daemon: heeler runs, you may see 1 service(s)",
    ] {
        assert!(found.contains(line), "no {line:?} in\n{found}");
    }
    // A manager that hangs costs its own time, once.
    let pid = manager(&host);
    host.shell(&format!("kill -STOP {pid}"));
    let begun = Instant::now();
    let (code, found) = doctor(&host);
    host.shell(&format!("kill -CONT {pid}"));
    assert!(begun.elapsed() < PATIENCE, "{:?}\n{found}", begun.elapsed());
    assert!(code == 1 && found.contains("error shop: puma.service: systemctl "), "{found}");
    wait_held(&host, "shop", None);

    host.write("/etc/heeler/conf.d/other.toml", "user = \"deploy\"\nunit = \"no-such\"\n");
    let (code, found) = doctor(&host);
    assert!(code == 1 && !found.contains("error shop"), "{found}");
    assert!(found.contains("error other: there is no unit no-such.service"), "{found}");

    host.shell("loginctl disable-linger deploy; systemctl stop user@1500.service");
    let (code, found) = doctor(&host);
    assert_eq!(code, 1, "{found}");
    assert!(
        found.contains("error user deploy: no user manager, which other, shop needs"),
        "{found}"
    );
    assert!(found.contains("warning user deploy: lingering is off"), "{found}");
}
