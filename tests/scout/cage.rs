//! What the scout is: nobody, with nothing.

use std::fs;

use crate::server::Server;
use crate::support::house::{House, PATIENCE, pids};
use crate::support::{Need, can_run, wait_for};

/// The scout of a keeper.
pub(crate) fn scout_of(keeper: u32) -> Option<u32> {
    pids().into_iter().find(|pid| {
        let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        title.starts_with(b"heeler\0scout\0probe\0") && parent(*pid) == Some(keeper)
    })
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Waits for a scout other than this one.
pub(crate) fn wait_scout(house: &House, not: Option<u32>) -> u32 {
    wait_for("a scout", PATIENCE, || scout_of(house.keeper()).filter(|pid| Some(*pid) != not))
}

/// What heeler sees of the first check of a service.
pub(crate) fn seen(house: &House, name: &str) -> String {
    house.status(name)["checks"][0]["text"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn it_has_no_rights_and_no_way_to_any() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let server = Server::begin();
    let mut house = House::new("");
    server.page(&house, "page", "/ok", "every = \"300ms\"");
    house.open();
    let scout = wait_scout(&house, None);
    wait_for("a probe", PATIENCE, || (server.asked() > 2).then_some(()));
    let status = fs::read_to_string(format!("/proc/{scout}/status")).expect("it lives");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.unwrap_or_default().split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    };
    let uid = field("Uid");
    let uids: Vec<_> = uid.split(' ').collect();
    assert!(uids.iter().all(|id| *id != "0" && *id == uids[0]), "{uid}");
    assert_eq!(field("Groups"), "", "no supplementary groups");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    // Not dumpable: its /proc is root's, so nobody else of its user looks into it.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(format!("/proc/{scout}/environ")).expect("there").uid(), 0);
    let limits = fs::read_to_string(format!("/proc/{scout}/limits")).expect("there");
    for limit in ["Max core file size", "Max file size"] {
        let line = limits.lines().find(|line| line.starts_with(limit)).expect("is a limit");
        assert_eq!(
            line[limit.len()..].split_ascii_whitespace().collect::<Vec<_>>()[..2],
            ["0", "0"]
        );
    }
    assert_eq!(fs::read(format!("/proc/{scout}/environ")).expect("root reads it"), b"");
    let open: Vec<_> = fs::read_dir(format!("/proc/{scout}/fd"))
        .expect("there")
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    for target in &open {
        let expected = ["/dev/null", "socket:", "anon_inode:", "pipe:"];
        assert!(expected.iter().any(|kind| target.starts_with(kind)), "{open:?}");
    }
}

/// NET-19: heeler has no page of its own in this version; what speaks HTTP is its control socket. It neither
/// waits for itself nor lets its scout in.
#[test]
fn net_19_a_check_of_heelers_own_socket_is_answered_like_any_other() {
    let mut house = House::new("");
    let socket = house.path("run/control.sock");
    let check = format!(
        "[[check]]\nname = \"own\"\ntype = \"http\"\nurl = \"http://heeler/v1/status\"\nunix = {socket:?}\n\
         every = \"200ms\"\ntimeout = \"2s\"\n"
    );
    house.define("own", &check);
    house.daemon("shop", "", "every = \"300ms\"\nstart_period = \"100ms\"");
    house.open();
    let before = house.wait_up("shop", None);
    let words: &[&str] = match can_run(&[Need::Root]) {
        // The scout is hung up on before a byte of its question is read; which of the two it sees is chance.
        true => &["control.sock closed the connection", "control.sock failed: Connection reset"],
        false => &["200 OK"],
    };
    let said = |text: &str| words.iter().any(|words| text.contains(words));
    wait_for("its observation", PATIENCE, || said(&seen(&house, "own")).then_some(()));
    let (code, out, _) = house.heeler(&["probe", "own"]);
    assert!(said(&out), "{code} {out}");
    crate::support::house::signal(before, "KILL");
    house.wait_up("shop", Some(before));
}

#[test]
fn it_ends_with_its_keeper() {
    let server = Server::begin();
    let mut house = House::new("");
    server.page(&house, "page", "/ok", "every = \"300ms\"");
    house.open();
    let scout = wait_scout(&house, None);
    wait_for("it to be in its cage", PATIENCE, || (server.asked() > 0).then_some(()));
    // Even one that does not run, and so does not see its socket close.
    crate::support::house::signal(scout, "STOP");
    house.kill_keeper();
    wait_for("the scout to end", PATIENCE, || (!crate::support::house::alive(scout)).then_some(()));
}

#[test]
fn without_network_checks_there_is_none() {
    let mut house = House::new("");
    house.daemon("quick", "", "");
    house.open();
    house.wait_up("quick", None);
    assert_eq!(scout_of(house.keeper()), None);
}
