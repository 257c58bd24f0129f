//! Orders to many: by pattern, by group, to all.

use crate::support::house::House;

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nexit_delay = \"100ms\"\n";

fn house() -> House {
    let mut house = House::new("[defaults]\ngroups = [\"all-of-us\"]\n");
    house.daemon("web-1", "", &format!("groups = [\"web\", \"eu\"]\n{QUICK}"));
    house.daemon("web-2", "", &format!("groups = [\"web\"]\n{QUICK}"));
    house.daemon("db", "", QUICK);
    house.open();
    house
}

#[test]
fn each_of_a_group_is_restarted_and_nobody_else() {
    let house = house();
    let before = ["web-1", "web-2", "db"].map(|name| house.wait_up(name, None));
    let (code, out, err) = house.heeler(&["restart", "--group", "web"]);
    assert_eq!(code, 0, "{out}{err}");
    let lines: Vec<_> = out.lines().collect();
    let [first, second] = lines[..] else { panic!("{out}") };
    assert!(
        first.starts_with("web-1: up after ") && second.starts_with("web-2: up after "),
        "{out}"
    );
    let after = ["web-1", "web-2", "db"].map(|name| house.pid(name).expect("is up"));
    assert!(after[0] != before[0] && after[1] != before[1] && after[2] == before[2]);
    assert_eq!(house.status("web-1")["groups"], serde_json::json!(["web", "eu"]));
    assert_eq!(house.status("db")["groups"], serde_json::json!(["all-of-us"]));
    let (code, out, _) = house.heeler(&["status", "web-1"]);
    assert!(code == 0 && out.contains("groups  web, eu"), "{out}");
}

#[test]
fn one_that_fails_is_told_beside_those_that_do_not() {
    let mut house = house();
    house.define("web-3", "match = \"no such process anywhere\"\n");
    house.close();
    house.open();
    for name in ["web-1", "web-2"] {
        house.wait_up(name, None);
    }
    let (code, out, err) = house.heeler(&["start", "web-*"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("web-1: ") && out.contains("web-2: ") && !out.contains("web-3"), "{out}");
    assert!(err.contains("heeler: web-3: there is no start command"), "{err}");
    assert_eq!(house.heeler(&["stop", "web-[12]", "--group", "all-of-us"]).0, 0);
    for (args, code) in [
        (&["status", "web-[12]"][..], 3),
        (&["status", "--group", "all-of-us"], 3),
        (&["status", "x*"], 4),
        (&["stop", "--group", "x"], 4),
        (&["start", "--all", "--no-wait"], 0),
    ] {
        assert_eq!(house.heeler(args).0, code, "{args:?}");
    }
    house.wait_up("db", None);
}
