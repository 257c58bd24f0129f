//! The disk under heeler's state: full, read-only, hanging; and what is on it: planted, newer, damaged.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use crate::crash::Mount;
use crate::support::house::{House, PATIENCE, alive, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"2s\"\n\
                     start_limit = \"1000 per 1m\"\n";

/// Writes until nothing more fits.
fn fill(dir: &Path) {
    let filler = dir.join("filler");
    let mut file = fs::File::create(filler).expect("creates");
    while std::io::Write::write_all(&mut file, &[0; 512]).is_ok() {}
}

/// Uses up all inodes.
fn use_up_inodes(dir: &Path) {
    let made = (0..).take_while(|n| fs::write(dir.join(format!("filler{n}")), "").is_ok());
    assert!(made.count() > 0);
}

fn remount(at: &Path, flags: MsFlags) {
    mount(None::<&str>, at, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>)
        .expect("remount");
}

fn said(house: &House, text: &str) -> usize {
    house.log().lines().filter(|line| line.contains(text)).count()
}

/// A disk becomes unusable, and usable again: heeler says so once each, forgets nothing, and brings its
/// services back all the while.
fn through_trouble(
    house: &mut House,
    heeler: Command,
    spoil: impl FnOnce(&Path),
    mend: impl FnOnce(&Path),
) {
    let state = house.path("state");
    house.daemon("shop", "", QUICK);
    house.daemon("other", "", QUICK);
    house.open_by(heeler);
    let first = house.wait_up("shop", None);
    house.wait_up("other", None);
    assert_eq!(house.heeler(&["stop", "other"]).0, 0, "a wish that is on disk");
    let journal = || fs::read_to_string(state.join("journal")).expect("is there");
    let before = journal();
    spoil(&state);
    signal(first, "KILL");
    let second = house.wait_up("shop", Some(first));
    wait_for("heeler to say it", PATIENCE, || {
        (said(house, "the state cannot be written") == 1).then_some(())
    });
    let (code, out, err) = house.heeler(&["stop", "shop"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("not on disk"), "{out}");
    let (_, status, _) = house.heeler(&["status"]);
    assert!(status.contains("heeler's own state is kept in memory since"), "{status}");
    assert!(journal().starts_with(before.trim_end()), "what was there is hurt");
    assert!(!alive(second));
    mend(&state);
    wait_for("it to heal", PATIENCE, || {
        house.log().contains("the state is on disk again").then_some(())
    });
    assert_eq!(said(house, "the state cannot be written"), 1, "{}", house.log());
    let (_, status, _) = house.heeler(&["status"]);
    assert!(!status.contains("kept in memory"), "{status}");
    // What was wished meanwhile holds for the next one.
    house.kill_keeper();
    house.open();
    assert_eq!(house.status("shop")["desired"]["want"], "down");
    assert_eq!(house.status("other")["desired"]["want"], "down");
}

/// RES-04.
#[test]
fn a_full_state_disk_is_said_once_costs_nothing_and_heals() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    let _disk = Mount::tmpfs(house.path("state"), "64k");
    let mend = |state: &Path| fs::remove_file(state.join("filler")).expect("removes");
    through_trouble(&mut house, Command::new(HEELER), fill, mend);
}

/// RES-05. A disk with errors is made read-only by the kernel, whatever is open on it; nobody else can do
/// that, so the writes fail by themselves here.
#[test]
fn a_read_only_state_disk_is_said_once_costs_nothing_and_heals() {
    let mut house = House::new("");
    let mark = house.path("read_only");
    let source = READ_ONLY.replace("MARK", &mark.to_string_lossy());
    let Some(library) = preload(&house, "read_only", &source) else { return };
    let mut heeler = Command::new(HEELER);
    heeler.env("LD_PRELOAD", library);
    let spoil = |_: &Path| fs::write(&mark, "").expect("writes");
    let mend = |_: &Path| fs::remove_file(&mark).expect("removes");
    through_trouble(&mut house, heeler, spoil, mend);
    assert!(house.log().contains("make the file system writable"), "{}", house.log());
}

/// RES-05.
#[test]
fn a_state_disk_without_inodes_is_said_once_costs_nothing_and_heals() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let mut house = House::new("");
    let _disk = Mount::tmpfs(house.path("state"), "1m,nr_inodes=32");
    // The journal is there and can grow; an alert needs a file of its own.
    house.daemon("shop", "", QUICK);
    house.open();
    let first = house.wait_up("shop", None);
    use_up_inodes(&house.path("state"));
    signal(first, "KILL");
    house.wait_up("shop", Some(first));
    wait_for("heeler to say it", PATIENCE, || {
        (said(&house, "the state cannot be written") == 1).then_some(())
    });
    assert_eq!(house.mails().len(), 0);
    for entry in fs::read_dir(house.path("state")).expect("lists").flatten() {
        if entry.file_name().to_string_lossy().starts_with("filler") {
            fs::remove_file(entry.path()).expect("removes");
        }
    }
    wait_for("the mail", PATIENCE, || (house.mails().len() == 1).then_some(()));
    wait_for("it to heal", PATIENCE, || {
        house.log().contains("the state is on disk again").then_some(())
    });
}

/// RES-04, RES-05: a watchdog that does not watch because a disk is full is none.
#[test]
fn heeler_starts_on_a_disk_that_takes_nothing_and_begins_to_keep_when_it_does() {
    if !can_run(&[Need::Root]) {
        return;
    }
    for read_only in [false, true] {
        let mut house = House::new("");
        let disk = house.path("disk");
        let _disk = Mount::tmpfs(disk.clone(), "64k");
        let settings = fs::read_to_string(house.path("conf.d/heeler.toml")).expect("reads");
        let below = settings.replace("/state\"", "/disk/heeler/state\"");
        house.write("conf.d/heeler.toml", &below);
        if read_only {
            remount(&disk, MsFlags::MS_RDONLY);
        } else {
            // Not even a directory.
            remount_inodes(&disk, 2);
            fill(&disk);
        }
        house.daemon("shop", "", QUICK);
        house.open();
        let first = house.wait_up("shop", None);
        signal(first, "KILL");
        house.wait_up("shop", Some(first));
        assert_eq!(said(&house, "the state cannot be written"), 1, "{}", house.log());
        let (code, out, _) = house.heeler(&["unmonitor", "shop"]);
        assert!(code == 0 && out.contains("not on disk"), "{code} {out}");
        if read_only {
            remount(&disk, MsFlags::empty());
        } else {
            fs::remove_file(disk.join("filler")).expect("removes");
            remount_inodes(&disk, 1000);
        }
        wait_for("it to begin", PATIENCE, || {
            house.log().contains("the state is on disk again").then_some(())
        });
        house.kill_keeper();
        house.open();
        assert_eq!(house.status("shop")["desired"]["want"], "unmonitored");
        assert!(fs::read_dir(disk.join("heeler/state/outbox")).is_ok());
        house.kill_keeper();
    }
}

fn remount_inodes(at: &Path, inodes: u32) {
    let data = format!("size=64k,nr_inodes={inodes}");
    mount(None::<&str>, at, None::<&str>, MsFlags::MS_REMOUNT, Some(&*data)).expect("remount");
}

/// While MARK is there no file of the state folder can be written.
const READ_ONLY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>
static int spoilt(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return strstr(path, "/state/") && access("MARK", F_OK) == 0;
}
ssize_t write(int fd, const void *bytes, size_t n) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  if (spoilt(fd)) { errno = EROFS; return -1; }
  return real(fd, bytes, n);
}
"#;

/// While MARK is there every fsync and fdatasync waits.
const HANGING: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static void hang(void) { while (access("MARK", F_OK) == 0) usleep(20000); }
int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  hang();
  return real(fd);
}
int fdatasync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
  hang();
  return real(fd);
}
"#;

/// A library to be preloaded; none where there is no compiler.
pub(crate) fn preload(house: &House, name: &str, source: &str) -> Option<PathBuf> {
    if !can_run(&[Need::Program("/usr/bin/cc", "a C compiler")]) {
        return None;
    }
    let (code, library) = (format!("{name}.c"), house.path(&format!("{name}.so")));
    house.write(&code, &format!("#include <stdio.h>\n#include <string.h>\n{source}"));
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-D_GNU_SOURCE", "-w", "-o"]).arg(&library).arg(house.path(&code));
    assert!(cc.status().expect("cc").success());
    Some(library)
}

#[test]
fn a_disk_that_hangs_is_not_noticed_by_the_loop() {
    let mut house = House::new("");
    let mark = house.path("hang");
    let source = HANGING.replace("MARK", &mark.to_string_lossy());
    let Some(library) = preload(&house, "hanging", &source) else { return };
    let mut command = Command::new(HEELER);
    command.env("LD_PRELOAD", library);
    house.daemon("shop", "", QUICK);
    house.open_by(command);
    let mut last = house.wait_up("shop", None);
    fs::write(&mark, "").expect("writes");
    for _ in 0..3 {
        signal(last, "KILL");
        let began = Instant::now();
        last = house.wait_up("shop", Some(last));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
    // An operator is told how it is, and does not wait for the disk.
    let began = Instant::now();
    let (code, out, err) = house.heeler(&["stop", "shop"]);
    let took = began.elapsed();
    assert!(code == 0 && out.contains("does not answer"), "{code} {out}{err}");
    assert!((Duration::from_secs(5)..Duration::from_secs(9)).contains(&took), "{took:?}");
    assert!(!alive(last));
    // Nor is who does not wait for the outcome told that his wish is recorded.
    let (code, out, err) = house.heeler(&["stop", "shop", "--no-wait"]);
    assert!(code == 0 && (out + &err).contains("does not answer"), "{code} {err}");
    fs::remove_file(&mark).expect("removes");
    let (code, out, _) = house.heeler(&["stop", "shop"]);
    assert!(code == 0 && !out.contains("not on disk"), "{out}");
    // heeler's end does not wait for it, either.
    fs::write(&mark, "").expect("writes");
    assert_eq!(house.heeler(&["start", "shop"]).0, 0);
    let began = Instant::now();
    assert_eq!(house.close(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(house.log().contains("not everything could be written"), "{}", house.log());
}

/// CRA-06: links that somebody planted in the state folder lead nothing of heeler's out of it.
#[test]
fn nothing_is_written_through_planted_links() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    house.open();
    house.wait_up("shop", None);
    house.close();
    let precious = house.path("precious");
    fs::write(&precious, "precious").expect("writes");
    let state = house.path("state");
    let names = ["journal", ".journal.tmp", "starts", ".starts.tmp", "last-good/shop.toml"];
    let names = names.into_iter().chain(["last-good/.shop.toml.tmp", "outbox/.dropped.tmp"]);
    for name in names {
        let _ = fs::remove_file(state.join(name));
        symlink(&precious, state.join(name)).expect("links");
    }
    house.open();
    let first = house.wait_up("shop", None);
    signal(first, "KILL");
    house.wait_up("shop", Some(first));
    assert_eq!(house.heeler(&["stop", "shop"]).0, 0);
    house.close();
    assert_eq!(fs::read_to_string(&precious).expect("reads"), "precious");
    // It was set aside, and a journal of heeler's own is in its place.
    assert!(fs::symlink_metadata(state.join("journal")).expect("is there").is_file());
    house.open();
    assert_eq!(house.status("shop")["desired"]["want"], "down");
}

/// A service is up before its start command has ended; then its records are all there.
fn start_is_over(house: &House, name: &str) {
    let outcome = house.path(&format!("run/svc/{name}/action.outcome"));
    wait_for("its start to be over", PATIENCE, || outcome.exists().then_some(()));
}

/// CRA-08: a newer heeler ran here. What it wrote is not understood, not destroyed, and nothing that runs
/// is started a second time for it.
#[test]
fn what_a_newer_heeler_left_is_left() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    let run = house.command("program", "foreground");
    house.define("program", &format!("run = {run:?}\n{QUICK}"));
    house.open();
    let (shop, program) = (house.wait_up("shop", None), house.wait_up("program", None));
    start_is_over(&house, "shop");
    house.wait_starts("program", &[program]);
    house.kill_keeper();
    let newer = |path: &Path| {
        let text = fs::read_to_string(path).expect("reads");
        let later = text.replacen("\"v\":1", "\"v\":2", 1);
        assert_ne!(text, later, "{}", path.display());
        fs::write(path, later).expect("writes");
    };
    for record in ["shop/main", "shop/action.child", "shop/action.outcome", "program/main"] {
        newer(&house.path("run/svc").join(record));
    }
    for record in ["program/instance.child", "program/instance.job"] {
        newer(&house.path("run/svc").join(record));
    }
    // The checksum of this very text.
    let journal = "\nd0d2f3c1 {\"v\":2,\"all\":\"new\"}\n";
    fs::write(house.path("state/journal"), journal).expect("writes");
    house.open();
    assert_eq!(house.wait_up("shop", None), shop);
    assert!(house.log().contains("was written by a newer heeler"), "{}", house.log());
    let aside = fs::read_dir(house.path("state")).expect("lists").flatten();
    let aside = aside.map(|entry| entry.path());
    let kept = aside.filter(|path| path.to_string_lossy().contains("journal.newer-"));
    let kept: Vec<_> = kept.map(|path| fs::read_to_string(path).expect("reads")).collect();
    assert_eq!(kept, [journal]);
    // It cannot tell which process the program is, and its shim's lock keeps a second copy away.
    wait_for("heeler to try", PATIENCE, || {
        house.log().contains("an earlier action still runs").then_some(())
    });
    assert!(alive(program));
    assert_eq!((house.starts("program"), house.doubles("program")), (vec![program], 0));
}

/// Real records of run_dir with a bad byte, over and over: no process is touched by what they say.
#[test]
fn a_bad_byte_in_any_record_touches_nothing() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    let run = house.command("program", "foreground");
    house.define("program", &format!("run = {run:?}\n{QUICK}"));
    house.open();
    let before = [house.wait_up("shop", None), house.wait_up("program", None)];
    start_is_over(&house, "shop");
    house.wait_starts("program", &before[1..]);
    let mut stranger = Command::new("sleep").arg("1000").spawn().expect("sleep");
    let records: Vec<_> = ["shop", "program"]
        .iter()
        .flat_map(|name| fs::read_dir(house.path("run/svc").join(name)).expect("lists").flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_none_or(|ext| ext != "lock"))
        .collect();
    assert!(records.len() >= 6, "{records:?}");
    // Another record and another byte of it each time, in steps that share no factor with their lengths.
    for (round, value) in (0..20).zip([b'0', b'9', b'"', b'-', 0, 0xff, b'}'].into_iter().cycle()) {
        house.kill_keeper();
        let _ = fs::remove_file(house.path("state/starts"));
        let good: Vec<_> = records.iter().map(|path| fs::read(path).expect("reads")).collect();
        for (path, good) in records.iter().zip(&good).filter(|(_, good)| !good.is_empty()) {
            let mut bad = good.clone();
            let at = (round * 37 + 11) % bad.len();
            bad[at] = value;
            fs::write(path, bad).expect("writes");
        }
        house.open();
        assert_eq!(house.wait_up("shop", None), before[0], "round {round}");
        assert!(before.iter().all(|pid| alive(*pid)), "round {round}");
        assert!(
            !house.log().contains("SIGTERM") && !house.log().contains("SIGKILL"),
            "{}",
            house.log()
        );
        for (path, good) in records.iter().zip(good) {
            fs::write(path, good).expect("writes");
        }
    }
    assert_eq!((house.starts("shop"), house.doubles("shop")), (vec![before[0]], 0));
    assert_eq!((house.starts("program"), house.doubles("program")), (vec![before[1]], 0));
    assert!(stranger.try_wait().expect("wait").is_none());
    stranger.kill().expect("kill");
    stranger.wait().expect("wait");
}
