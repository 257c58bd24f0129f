//! Pidfiles that are traps, and pidfiles that may be deleted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use heeler::model::process::{Pid, ProcessIdentity, Uid};
use heeler::sys::identity::{Found, identify_pidfile};
use heeler::sys::pidfile::{Gap, Reading, Removal, Writers, read, remove_if_names};

use crate::lab::{self, NOBODY, Place, Process, WWW, link, owner};
use crate::support::{Need, can_run};

fn claim(path: &Path) -> heeler::sys::pidfile::Claim {
    match read(path) {
        Reading::Claim(claim) => claim,
        other => panic!("{other:?}, not a claim"),
    }
}

fn not_safe(path: &Path, words: &str) {
    match read(path) {
        Reading::Unsafe(text) => assert!(text.raw().contains(words), "{text:?} lacks {words:?}"),
        other => panic!("{} was not refused with {words:?}: {other:?}", path.display()),
    }
}

#[test]
fn pid_07_a_users_link_leads_only_to_that_users_files() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let place = Place::new();
    let (dir, of_root) = (place.directory("run", WWW), place.pidfile("root.pid", "4242\n", 0));
    for (name, target) in [
        ("stat", PathBuf::from("/proc/1/stat")),
        ("shadow", "/etc/shadow".into()),
        ("other", of_root.clone()),
        ("up", "../root.pid".into()),
        ("proc", format!("/proc/{}/fd/0", std::process::id()).into()),
    ] {
        let path = dir.join(name);
        link(&target, &path, WWW);
        match read(&path) {
            Reading::Unsafe(text) => assert!(!text.raw().contains("4242"), "{text}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    // Root's link to a user's directory, in which a file of root lies.
    lab::write(&dir.join("planted"), "4242\n", 0);
    link(&dir, &place.path("by-root"), 0);
    not_safe(&place.path("by-root/planted"), "of uid 0");
    // A third user's file.
    lab::write(&dir.join("third"), "4242\n", NOBODY);
    not_safe(&dir.join("third"), "of uid 65534");
}

#[test]
fn links_as_deployments_make_them_are_followed() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let place = Place::new();
    let (dir, shared) = (place.directory("shop", WWW), place.directory("shared", WWW));
    lab::write(&shared.join("puma.pid"), "77\n", WWW);
    // /srv/shop/current -> absolute, by the user, through directories of root.
    link(&shared, &dir.join("current"), WWW);
    let found = claim(&dir.join("current/puma.pid"));
    assert_eq!((found.pid, found.owner, found.writers), (Pid(77), Uid(WWW), Writers::Others));
    // /var/run -> /run, by root, stays root's.
    let of_root = place.pidfile("root.pid", "78", 0);
    link(&of_root, &place.path("link.pid"), 0);
    assert_eq!(claim(&place.path("link.pid")).writers, Writers::OnlyRoot);
    fs::set_permissions(&of_root, fs::Permissions::from_mode(0o664)).expect("its mode");
    assert_eq!(claim(&of_root).writers, Writers::Others);
    let sticky = tempfile::Builder::new().tempfile_in("/tmp").expect("a file in /tmp");
    fs::write(sticky.path(), "79").expect("written");
    assert_eq!(claim(sticky.path()).writers, Writers::Others);
}

#[test]
fn pid_08_what_is_not_a_regular_file_is_refused_at_once() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let place = Place::new();
    let fifo = place.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("a FIFO");
    let socket = place.path("socket");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let begun = Instant::now();
    not_safe(&fifo, "a FIFO");
    not_safe(&socket, "a socket");
    not_safe(Path::new("/dev/zero"), "a device");
    not_safe(Path::new("/dev/tty"), "a device");
    not_safe(Path::new("/run"), "a directory");
    not_safe(Path::new("/"), "a directory");
    let sparse = place.pidfile("sparse", "", WWW);
    fs::File::options().write(true).open(&sparse).and_then(|f| f.set_len(1 << 40)).expect("large");
    assert!(matches!(read(&sparse), Reading::NotPid));
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[test]
fn pid_10_endless_paths_end() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let place = Place::new();
    let (one, two) = (place.path("one"), place.path("two"));
    link(&two, &one, WWW);
    link(&one, &two, WWW);
    not_safe(&one, "too many symbolic links");
    let deep: PathBuf = place.path(&"d/".repeat(300));
    fs::create_dir_all(&deep).expect("300 levels");
    not_safe(&deep.join("x.pid"), "too many steps");
    let missing = place.path(&format!("{}x.pid", "n/".repeat(3000)));
    assert!(matches!(read(&missing), Reading::Absent(_)));
    assert!(matches!(read(&place.path(&"n".repeat(5000))), Reading::Unreadable(_)));
    let file = place.pidfile("file", "1", 0);
    assert!(matches!(read(&file.join("below")), Reading::Unsafe(_)));
    let odd = place.path("a\n\x1b[2Jb");
    link(Path::new("/etc/shadow"), &odd, WWW);
    match identify_pidfile(&odd, &owner(WWW)) {
        Found::Refused(text) => assert!(!text.to_string().chars().any(char::is_control)),
        other => panic!("{other:?}"),
    }
}

/// Two releases, and a link of root's to the first.
fn releases(place: &Place) -> (PathBuf, PathBuf, PathBuf) {
    let (one, two) = (place.directory("r1", 0), place.directory("r2", 0));
    let current = place.path("current");
    link(&one, &current, 0);
    (one, two, current)
}

/// On a file system of this machine.
fn gap(path: &Path) -> Gap {
    match read(path) {
        Reading::Absent(Some(gap)) if gap.is_open() => gap,
        other => panic!("{other:?}, not a gap"),
    }
}

#[test]
fn a_gap_is_open_until_its_path_leads_elsewhere_or_something_is_there() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let place = Place::new();
    let (one, two, current) = releases(&place);
    let path = current.join("puma.pid");
    let of_file = gap(&path);
    fs::write(one.join("puma.pid"), "1").expect("written");
    assert!(!of_file.is_open(), "the file is there");
    fs::remove_file(one.join("puma.pid")).expect("removed");
    let (of_file, of_directory) = (gap(&path), gap(&current.join("tmp/pids/puma.pid")));
    fs::create_dir(one.join("tmp")).expect("made");
    assert!(!of_directory.is_open(), "its directory came");
    fs::remove_file(&current).expect("removed");
    assert!(!of_file.is_open(), "the path ends before");
    link(&two, &current, 0);
    assert!(!of_file.is_open(), "the next release");
    let of_file = gap(&path);
    fs::rename(&two, place.path("r3")).expect("renamed");
    place.directory("r2", 0);
    assert!(!of_file.is_open(), "another directory of that name");
    link(&place.path("nowhere"), &path, 0);
    assert!(matches!(read(&path), Reading::Absent(None)), "behind a link a walk alone sees");
    assert!(matches!(read(Path::new("/proc/self/none.pid")), Reading::Absent(None)), "no disk");
}

#[test]
fn a_spot_is_led_to_while_its_path_ends_in_the_same_directory_of_the_same_owner() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let place = Place::new();
    let (one, two, current) = releases(&place);
    let path = current.join("puma.pid");
    for release in [&one, &two] {
        fs::write(release.join("puma.pid"), "1").expect("written");
    }
    let spot = || claim(&path).spot.expect("of root's links alone");
    let at = spot();
    assert!(at.is_led_to());
    fs::set_permissions(&one, fs::Permissions::from_mode(0o777)).expect("its mode");
    assert!(!at.is_led_to(), "others may write there now");
    let at = spot();
    assert!(at.is_led_to());
    fs::remove_file(&current).expect("removed");
    link(&two, &current, 0);
    assert!(!at.is_led_to(), "the next release");
    link(&path, &place.path("puma.pid"), 0);
    let linked = claim(&place.path("puma.pid")).spot.expect("of root's links alone");
    assert!(!linked.is_led_to(), "the link may lead elsewhere at any moment");
    link(&path, &place.path("shop.pid"), 0);
    assert!(!claim(&place.path("shop.pid")).spot.expect("the same").is_led_to());
}

#[test]
fn a_pidfile_is_deleted_only_while_it_names_the_dead() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let (place, mut process) = (Place::new(), Process::idle(WWW));
    let (pid, identity) = (process.pid(), process.identity());
    let path = place.pidfile("x.pid", &pid.to_string(), WWW);
    let kept = |path: &Path, identity, words: &str| match remove_if_names(path, identity) {
        Removal::Kept(text) => assert!(text.raw().contains(words) && path.exists(), "{text}"),
        other => panic!("{other:?}, not kept with {words:?}"),
    };
    kept(&path, identity, "lives");
    // A new process has the number, and the file may be its own.
    let before = ProcessIdentity { started_ticks: 1, ..identity };
    kept(&path, before, "may have written it");
    process.end();
    kept(&place.pidfile("other.pid", "4194303", WWW), identity, "names another process");
    kept(&place.pidfile("odd.pid", "x", WWW), identity, "does not begin");
    assert_eq!(remove_if_names(&path, identity), Removal::Removed);
    assert_eq!(remove_if_names(&path, identity), Removal::Absent);
    // A user's link into somebody else's directory.
    let (dir, target) = (place.directory("run", WWW), place.pidfile("t", &pid.to_string(), WWW));
    link(&target, &dir.join("x.pid"), WWW);
    kept(&dir.join("x.pid"), identity, "symbolic link");
    assert!(target.exists());
}
