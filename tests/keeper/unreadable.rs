//! A configuration that cannot be read, or not be trusted, at a reload: what was read before stays (CFG).

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::hanging::Hanging;
use crate::support::house::{House, PATIENCE, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\n";

/// Five services that are up, and what they are.
fn house() -> (House, Vec<(String, u32)>) {
    let mut house = House::new("");
    let names: Vec<_> = (0..5).map(|n| format!("s{n}")).collect();
    names.iter().for_each(|name| house.daemon(name, "", QUICK));
    house.open();
    let up = names.into_iter().map(|name| (name.clone(), house.wait_up(&name, None))).collect();
    (house, up)
}

fn all_go_on(house: &House, up: &[(String, u32)]) {
    for (name, pid) in up {
        assert_eq!(house.wait_up(name, None), *pid);
        assert_eq!(house.starts(name), [*pid]);
    }
}

fn refused(house: &House, words: &str) {
    let (code, told) = house.reload();
    assert!(code == 1 && told.contains(words), "{words:?} in {code}:\n{told}");
    assert!(told.contains("what was read before stays in force"), "{told}");
    let (_, status, _) = house.heeler(&["status"]);
    assert!(status.contains("configuration: it cannot be read"), "{status}");
}

fn good_again(house: &House) {
    assert_eq!(house.reload_well(), "nothing changes: 5 services as before\n");
    let (_, status, _) = house.heeler(&["status"]);
    assert!(!status.contains("configuration:"), "{status}");
}

#[test]
fn cfg_01_a_file_that_others_can_write_is_refused_and_the_old_one_stays() {
    let (house, up) = house();
    let file = house.path("conf.d/s0.toml");
    let changed = fs::read_to_string(&file).expect("is there") + "exit_delay = \"1s\"\n";
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("chmod");
    house.define("s0", &changed);
    mode(0o666);
    let (code, told) = house.reload();
    assert!(code == 1 && told.contains("s0.toml is writable by everybody"), "{code} {told}");
    assert!(told.contains("bad      s0.toml: its last good definition stays in force"), "{told}");
    assert!(!told.contains("changed  s0"), "{told}");
    mode(0o644);
    if can_run(&[Need::Root]) {
        chown(&file, Some(65534), None).expect("chown");
        let (code, told) = house.reload();
        assert!(code == 1 && told.contains("is owned by uid 65534"), "{code} {told}");
        chown(&file, Some(0), None).expect("chown");
    }
    all_go_on(&house, &up);
    // The directory itself: nothing in it is believed.
    let dir = house.path("conf.d");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("chmod");
    refused(&house, "is writable by everybody");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod");
    all_go_on(&house, &up);
    assert!(house.reload_well().contains("changed  s0\n           exit_delay"));
    all_go_on(&house, &up);
}

#[test]
fn cfg_11_a_directory_that_is_gone_or_empty_and_one_file_that_cannot_be_read() {
    let (house, up) = house();
    let (dir, aside) = (house.path("conf.d"), house.path("aside"));
    fs::rename(&dir, &aside).expect("rename");
    refused(&house, "failed to open the configuration directory");
    signal(house.keeper(), "HUP");
    wait_for("the signal to be heard", PATIENCE, || {
        house.log().contains("configuration not read (SIGHUP)").then_some(())
    });
    fs::create_dir(&dir).expect("mkdir");
    refused(&house, "there is not one file in it");
    fs::remove_dir(&dir).expect("rmdir");
    fs::write(&dir, "").expect("write");
    refused(&house, "failed to read the configuration directory");
    fs::remove_file(&dir).expect("remove");
    // Told once, by mail, and that it is over.
    let told = |house: &House, words: &str| {
        wait_for(words, PATIENCE, || {
            house.mails().iter().any(|mail| mail.contains(words)).then_some(())
        });
    };
    told(&house, "the configuration cannot be read");
    fs::rename(&aside, &dir).expect("rename");
    good_again(&house);
    told(&house, "over after");
    all_go_on(&house, &up);
    // One that is a directory where there should be a file.
    let file = house.path("conf.d/s3.toml");
    fs::rename(&file, house.path("s3")).expect("rename");
    fs::create_dir(&file).expect("mkdir");
    let (code, told) = house.reload();
    assert!(code == 1 && told.contains("s3.toml is a directory"), "{code} {told}");
    all_go_on(&house, &up);
    fs::remove_dir(&file).expect("rmdir");
    fs::rename(house.path("s3"), &file).expect("rename");
    good_again(&house);
}

/// It is read with the stack of a thread of the pool.
#[test]
fn a_file_that_nests_as_deeply_as_it_can_is_bad_and_no_more() {
    let (house, up) = house();
    let keeper = house.keeper();
    let nested = |open: &str, close: &str, times| open.repeat(times) + &close.repeat(times);
    let kinds = [
        format!("match = '{}'\n", nested("(", ")", 5000)),
        format!("match = '{}'\n", nested("(a|", ")*", 240)),
        format!("match = '{}a{}'\n", "[".repeat(9000), "]".repeat(9000)),
        format!("match = {}\n", nested("[", "]", 15_000)),
        format!("match = {}\n", nested("{a=", "}", 10_000)),
        format!("{}\n", nested("[", "]", 15_000)),
        format!("[a{}]\n", ".a".repeat(15_000)),
        format!("a{} = 1\n", ".a".repeat(15_000)),
        format!("[[check]]\ntype = 'process'\nwhen = '{}'\n", nested("not (", ")", 2000)),
    ];
    for text in kinds {
        house.define("deep", &text);
        let (code, told) = house.reload();
        let start: String = text.chars().take(60).collect();
        assert!(code == 1 && told.contains("deep.toml"), "{start}: {code} {told}");
        let (code, ..) = house.heeler(&["plan"]);
        assert_eq!((code, house.keeper()), (1, keeper), "{start}");
        house.undefine("deep");
    }
    all_go_on(&house, &up);
}

#[test]
fn cfg_11_an_empty_directory_at_a_start_has_nothing_forgotten() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/setpriv", "util-linux")]) {
        return;
    }
    // An ordinary user's heeler: without a heeler.toml its state is where XDG says.
    let mut house = House::new("");
    house.undefine("heeler");
    for (xdg, own) in [("xdg-state", "state"), ("xdg-run", "run")] {
        let dir = house.path(xdg);
        fs::create_dir(&dir).expect("mkdir");
        chown(&dir, Some(65534), Some(65534)).expect("chown");
        std::os::unix::fs::symlink(dir.join("heeler"), house.path(own)).expect("symlink");
    }
    let program = house.path("heeler");
    let copied = Command::new("install").args(["-m", "755", HEELER]).arg(&program).status();
    assert!(copied.expect("install").success());
    let opens = |house: &mut House| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&program)
            .env("HOME", house.path("xdg-state"))
            .env("XDG_STATE_HOME", house.path("xdg-state"))
            .env("XDG_RUNTIME_DIR", house.path("xdg-run"));
        house.open_by(command);
    };
    house.daemon("shop", "", QUICK);
    opens(&mut house);
    let pid = house.wait_up("shop", None);
    assert_eq!(house.heeler(&["stop", "shop"]).0, 0);
    assert_eq!(house.close(), Some(0));
    let file = house.path("conf.d/shop.toml");
    fs::rename(&file, house.path("aside")).expect("rename");
    opens(&mut house);
    assert!(house.log().contains("nothing is forgotten"), "{}", house.log());
    fs::rename(house.path("aside"), &file).expect("rename");
    // A file that is bad is there all the same.
    let text = fs::read_to_string(&file).expect("reads");
    fs::write(&file, format!("{text}colour = 1\n")).expect("writes");
    assert_eq!(house.reload().0, 1);
    fs::write(&file, text).expect("writes");
    assert!(house.reload_well().contains("added    shop"));
    assert_eq!(house.status("shop")["desired"]["want"], "down");
    assert_eq!(house.close(), Some(0));
    opens(&mut house);
    assert_eq!(house.status("shop")["desired"]["want"], "down");
    assert_eq!(house.starts("shop"), [pid]);
}

#[test]
fn cfg_14_a_directory_whose_file_system_hangs_holds_up_nothing() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let (house, up) = house();
    let (dir, aside) = (house.path("conf.d"), house.path("aside"));
    fs::rename(&dir, &aside).expect("rename");
    let Some(hanging) = Hanging::make(&dir) else {
        eprintln!("SKIPPED for want of: the right to mount a FUSE file system");
        return;
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        // Three who ask, one after the other, and one who signals.
        let asks: Vec<_> = (0..3)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(300));
                scope.spawn(|| refused(&house, "it could not be read within 10s"))
            })
            .collect();
        signal(house.keeper(), "HUP");
        // Meanwhile everything goes on.
        let (name, pid) = &up[0];
        signal(*pid, "KILL");
        let second = house.wait_up(name, Some(*pid));
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        assert_eq!(house.starts(name), [*pid, second]);
        asks.into_iter().for_each(|ask| ask.join().expect("was refused"));
    });
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    all_go_on(&house, &up[1..]);
    let threads =
        || fs::read_dir(format!("/proc/{}/task", house.keeper())).expect("it lives").count();
    assert!(threads() < 12, "{} threads: one reading hangs, not each", threads());
    drop(hanging);
    fs::remove_dir(&dir).expect("rmdir");
    fs::rename(&aside, &dir).expect("rename");
    wait_for("the file system to be gone", PATIENCE, || (house.reload().0 == 0).then_some(()));
    good_again(&house);
    all_go_on(&house, &up[1..]);
}
