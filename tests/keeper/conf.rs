//! Configuration that cannot be used, at the start of the real daemon (CFG).

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use crate::support::house::{House, signal};
use crate::support::{HEELER, Need, can_run};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\n";

#[test]
fn bad_files_are_all_told_and_the_others_are_watched() {
    let mut house = House::new("");
    house.daemon("good", "", QUICK);
    house.define("syntax", "pidfile = \n");
    house.define("unknown", "pidfle = \"/run/x.pid\"\nevery = \"-1s\"\n");
    house.define(
        "types",
        "pidfile = 7\nstop_timeout = \"1e18\"\n[[check]]\nif = \"memory > lots\"\n",
    );
    house.define("bad name", "pidfile = \"/run/x.pid\"\n");
    fs::write(house.path("conf.d/bytes.toml"), b"\xff\xfe\x00pidfile = 1").expect("write");
    let open = house.path("conf.d/open.toml");
    house.define("open", "pidfile = \"/run/x.pid\"\n");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).expect("chmod");
    nix::unistd::mkfifo(&house.path("conf.d/fifo.toml"), nix::sys::stat::Mode::S_IRWXU)
        .expect("mkfifo");
    house.write("conf.d/.swap.toml.swp", "rubbish");
    house.open();
    let first = house.wait_up("good", None);
    let log = house.log();
    for words in [
        "syntax.toml",
        "pidfle",
        "-1s",
        "types.toml",
        "1e18",
        "lots",
        "bad name",
        "bytes.toml",
        "open.toml",
        "fifo.toml",
    ] {
        assert!(log.contains(words), "{words:?} is not in\n{log}");
    }
    assert!(!log.contains("swap"), "{log}");
    signal(first, "KILL");
    house.wait_up("good", Some(first));
    assert_eq!(house.heeler(&["status", "syntax"]).0, 4);
}

fn start(dir: &Path) -> Output {
    Command::new(HEELER).arg("run").arg(dir).output().expect("heeler runs")
}

#[test]
fn a_directory_that_cannot_be_used_ends_the_start_and_says_why() {
    let house = House::new("");
    let file = house.path("conf.d/heeler.toml");
    let missing = house.path("missing");
    let open = house.path("open.d");
    fs::create_dir(&open).expect("mkdir");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("chmod");
    let mut unusable = vec![file, missing, open];
    if can_run(&[Need::Root]) {
        let theirs = house.path("theirs.d");
        fs::create_dir(&theirs).expect("mkdir");
        chown(&theirs, Some(65534), None).expect("chown");
        unusable.push(theirs);
    }
    for dir in unusable {
        let ended = start(&dir);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{}: {said}", dir.display());
        assert!(said.contains(&dir.display().to_string()), "{said}");
        eprintln!("{said}");
    }
}
