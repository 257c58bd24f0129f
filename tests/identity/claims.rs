//! What a pidfile may claim, and of whom.

use std::fs;
use std::path::Path;
use std::sync::mpsc;

use heeler::model::process::Absence;
use heeler::sys::accept::Rule;
use heeler::sys::clock;
use heeler::sys::identity::{Found, Owner, identify_pidfile, identify_recorded};
use heeler::sys::procfs;

use crate::lab::{self, NOBODY, Place, Process, SOON, WWW, none, one, owner, refused, unknown};
use crate::support::{Need, can_run, wait_for};

#[test]
fn pid_01_a_users_pidfile_cannot_name_process_1() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let place = Place::new();
    for uid in [WWW, 0] {
        let path = place.pidfile("x.pid", "1\n", uid);
        refused(identify_pidfile(&path, &owner(WWW)), "first process");
    }
}

#[test]
fn nor_another_users_process_nor_one_of_root() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let place = Place::new();
    for uid in [0, NOBODY] {
        let process = Process::idle(uid);
        let path = place.pidfile("x.pid", &process.pid().to_string(), WWW);
        refused(identify_pidfile(&path, &owner(WWW)), "runs as uid");
    }
    let process = Process::idle(WWW);
    let path = place.pidfile("x.pid", &process.pid().to_string(), NOBODY);
    refused(identify_pidfile(&path, &owner(WWW)), "belongs to uid 65534");
}

#[test]
fn pid_03_nor_heeler_itself_nor_its_parent() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let place = Place::new();
    let path = place.pidfile("x.pid", &std::process::id().to_string(), 0);
    refused(identify_pidfile(&path, &owner(0)), "heeler itself");
    let path = place.pidfile("x.pid", &std::os::unix::process::parent_id().to_string(), 0);
    refused(identify_pidfile(&path, &owner(0)), "parent of heeler");
}

#[test]
fn pid_04_root_may_name_any_process_where_only_root_writes() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let (place, process) = (Place::new(), Process::idle(NOBODY));
    let path = place.pidfile("x.pid", &process.pid().to_string(), 0);
    let (proved, _) = one(identify_pidfile(&path, &owner(WWW)));
    assert_eq!((proved.identity(), proved.rule()), (process.identity(), Rule::OnlyRootWrites));
    // Not where somebody else could have put the file.
    let shared = place.directory("shared", WWW).join("x.pid");
    lab::write(&shared, &process.pid().to_string(), 0);
    refused(identify_pidfile(&shared, &owner(WWW)), "uid 33 but leads to x.pid of uid 0");
}

#[test]
fn pid_05_a_user_may_name_a_process_of_its_own() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let (place, process) = (Place::new(), Process::idle(WWW));
    let path = place.directory("run", WWW).join("x.pid");
    lab::write(&path, &format!(" {}\r\nmore\n", process.pid()), WWW);
    let (proved, stamp) = one(identify_pidfile(&path, &owner(WWW)));
    assert_eq!((proved.identity(), proved.rule()), (process.identity(), Rule::User));
    assert!(proved.is_alive());
    assert_eq!(proved.session(), procfs::stat(process.pid()).expect("its stat").session);
    assert!(proved.is_alive() && stamp.holds());
    // Written anew with the same text: another claim all the same.
    fs::remove_file(&path).expect("removed");
    assert!(proved.is_alive() && !stamp.holds());
    lab::write(&path, &process.pid().to_string(), WWW);
    assert!(proved.is_alive() && !stamp.holds());
}

#[test]
fn a_dead_process_is_gone_before_and_after_it_is_waited_for() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let (place, mut process) = (Place::new(), Process::idle(WWW));
    let (pid, identity) = (process.pid(), process.identity());
    let path = place.pidfile("x.pid", &pid.to_string(), WWW);
    let (proved, _) = one(identify_pidfile(&path, &owner(WWW)));
    assert!(matches!(identify_recorded(identity), Found::One(..)));
    process.end();
    assert!(!proved.is_alive());
    assert_eq!(none(identify_pidfile(&path, &owner(WWW))).0, Absence::Stale(pid));
    assert_eq!(none(identify_recorded(identity)).0, Absence::NoProcess);
    fs::remove_file(&path).expect("removed");
    assert_eq!(none(identify_pidfile(&path, &owner(WWW))).0, Absence::NoPidfile);
    let nowhere = place.path("no/such/x.pid");
    assert_eq!(none(identify_pidfile(&nowhere, &owner(WWW))).0, Absence::NoPidfile);
}

#[test]
fn pid_14_a_name_made_to_break_parsers_is_parsed_and_shown_escaped() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/perl", "perl-base")]) {
        return;
    }
    let name =
        r#"open F, ">", "/proc/self/comm"; print F ") R 1 (x\n"; close F; print "1\n"; sleep 1000"#;
    let mut command = std::process::Command::new("perl");
    std::os::unix::process::CommandExt::uid(&mut command, WWW);
    let hostile = format!("\x1b[2J{}", "x".repeat(100_000));
    let process =
        Process::start(command.args(["-e", name, &hostile]).stdout(std::process::Stdio::null()));
    let pid = process.pid();
    wait_for("the name", SOON, || {
        procfs::read(pid, "comm", 64).ok().filter(|name| name.starts_with(b") R 1"))
    });
    let stat = procfs::stat(pid).expect("its stat");
    assert_eq!(stat.parent, procfs::heeler());
    let place = Place::new();
    let path = place.pidfile("x.pid", &pid.to_string(), WWW);
    assert_eq!(one(identify_pidfile(&path, &owner(WWW))).0.identity(), process.identity());
    let title = lab::title(pid);
    assert!(title.raw().chars().count() <= 1024);
    assert!(!title.to_string().chars().any(char::is_control), "{title}");
}

#[test]
fn pid_15_a_zombie_is_dead_and_its_parent_is_named() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/perl", "perl-base")]) {
        return;
    }
    let program = r#"my $p = fork; if (!$p) { sleep 1000 } print "$p\n"; sleep 1000"#;
    let (parent, mut lines) = Process::perl(program, WWW);
    let pid = lab::number(&mut lines);
    let proved = lab::hold(pid);
    let place = Place::new();
    let path = place.pidfile("x.pid", &pid.to_string(), WWW);
    let (_, _) = one(identify_pidfile(&path, &owner(WWW)));
    let _ = heeler::sys::signal::send(&proved, heeler::model::process::Signal::Kill);
    wait_for("its death", SOON, || (!proved.is_alive()).then_some(()));
    assert_eq!(procfs::stat(pid).expect("a zombie has a stat").state, 'Z');
    assert!(!proved.is_alive());
    let (absence, note) = none(identify_pidfile(&path, &owner(WWW)));
    assert_eq!(absence, Absence::Stale(pid));
    assert!(note.contains(&format!("zombie, parent PID {}", parent.pid())), "{note}");
}

#[test]
fn pid_16_a_thread_id_is_not_a_process() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let (tell, told) = mpsc::channel();
    let (release, wait) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        // SAFETY: gettid takes nothing and cannot fail.
        tell.send(unsafe { libc::gettid() }).expect("told");
        let _ = wait.recv();
    });
    let tid = told.recv().expect("a thread id");
    let place = Place::new();
    let path = place.pidfile("x.pid", &tid.to_string(), 0);
    let reason = refused(identify_pidfile(&path, &owner(0)), "thread id");
    assert!(reason.raw().contains(&std::process::id().to_string()), "{reason} names the process");
    drop(release);
    thread.join().expect("joined");
}

#[test]
fn pid_19_a_pidfile_older_than_its_process_is_stale_whoever_has_the_number() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let (place, process) = (Place::new(), Process::idle(NOBODY));
    let path = place.pidfile("x.pid", &process.pid().to_string(), WWW);
    let boot = clock::boot_window();
    lab::set_modified(&path, boot.earliest_ms - 86_400_000);
    let (absence, note) = none(identify_pidfile(&path, &owner(WWW)));
    assert_eq!(absence, Absence::Stale(process.pid()));
    assert!(note.contains("before this boot"), "{note}");
    // Within this boot, but before the process began; also when it is of the very user.
    let process = Process::idle(WWW);
    let path = place.pidfile("x.pid", &process.pid().to_string(), WWW);
    let begun_ms = clock::ticks_to_ms(process.identity().started_ticks);
    lab::set_modified(&path, boot.earliest_ms + begun_ms - 3000);
    let (_, note) = none(identify_pidfile(&path, &owner(WWW)));
    assert!(note.contains("began after"), "{note}");
    // Unless it was proved before: then only the clock can have changed.
    let known = Owner { known: Some(process.identity()), ..owner(WWW) };
    assert_eq!(one(identify_pidfile(&path, &known)).0.rule(), Rule::Recorded);
    // A hot restart keeps an old process under a new pidfile.
    lab::set_modified(&path, clock::now().wall.0 + 3_600_000);
    one(identify_pidfile(&path, &owner(WWW)));
}

#[test]
fn pid_20_a_thread_of_the_kernel_is_never_touched() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let kernel = procfs::pids()
        .expect("/proc")
        .into_iter()
        .find(|pid| procfs::stat(*pid).is_ok_and(|stat| stat.kernel_thread));
    let Some(kernel) = kernel else {
        eprintln!("SKIPPED: no thread of the kernel is to be seen from this container");
        return;
    };
    let place = Place::new();
    let path = place.pidfile("x.pid", &kernel.to_string(), 0);
    refused(identify_pidfile(&path, &owner(0)), "thread of the kernel");
}

#[test]
fn what_is_no_number_is_unknown_and_never_repeated() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let place = Place::new();
    for text in ["", "root:secret:1\n", "1  trailing", "-1", "99999999"] {
        let path = place.pidfile("x.pid", text, WWW);
        unknown(identify_pidfile(&path, &owner(WWW)), "does not begin with a process number");
    }
    refused(identify_pidfile(Path::new("x.pid"), &owner(WWW)), "begin at the root");
}
