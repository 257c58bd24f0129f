//! EXE-11: an exec that fails says why, and what to do.

use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Need, can_run};
use crate::world::{World, job, text};

#[test]
fn exe_11_each_failure_of_the_exec_has_its_words() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let locked = world.path("locked").join("x.sh");
    std::fs::write(&locked, "#!/bin/sh\n").expect("write");
    let cases = [
        (world.file("crlf", "#!/bin/sh\r\necho\r\n", 0o755), "interpreter /bin/sh\\r not found"),
        (
            world.file("missing", "#! /no/such/ruby -w\n", 0o755),
            "interpreter /no/such/ruby not found",
        ),
        (world.file("bare", "echo hi\n", 0o755), "#!/bin/sh in its first line"),
        (world.file("mode", "#!/bin/sh\n", 0o644), "deploy may not execute"),
        (world.file("elf", "\x7fELF", 0o755), "neither a program for this machine"),
        (world.path("").display().to_string(), "is a directory"),
        (world.path("none/x").display().to_string(), "none does not exist"),
        (locked.display().to_string(), "deploy may not search the directory"),
        ("./relative".to_owned(), "relative does not exist"),
        ("nosuchprogram".to_owned(), "is in no directory of PATH"),
        (String::new(), "the command is empty"),
    ];
    for (program, words) in cases {
        let why = world.refusal(&job("deploy", &[&program]));
        assert!(why.contains(words), "{program}: {why}");
    }
    let long = "x".repeat(200_000);
    assert!(world.refusal(&job("deploy", &["echo", &long])).contains("128 KiB"));
}

#[test]
fn exe_11_a_file_being_written_is_tried_again() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let path = world.path("busy");
    std::fs::copy("/bin/true", &path).expect("copy");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let writer = OpenOptions::new().append(true).open(&path).expect("open");
    let program = path.display().to_string();
    let why = world.refusal(&job("deploy", &[&program]));
    assert!(why.contains("open for writing"), "{why}");
    let running = world.spawn(&job("deploy", &[&program]));
    drop(writer);
    assert!(running.outcome().ended.succeeded());
}

#[test]
fn exe_11_a_setuid_script_gives_nothing() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let script = world.file("setuid", "#!/bin/sh\nid -u\n", 0o4755);
    assert_eq!(text(&world.outcome(&job("deploy", &[&script]))), "1500");
}

#[test]
fn the_process_limit_of_a_user_is_named() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/prlimit", "util-linux")]) {
        return;
    }
    let world = World::new();
    // The limit is inherited; setresuid(2) counts the processes the user had before: one is over it.
    let holder = world.spawn(&job("deploy", &["sleep", "30"]));
    assert_eq!(holder.status(), Some(b'L'));
    let output = std::process::Command::new("prlimit")
        .args(["--nproc=0:0", crate::support::HEELER, "run-as", "deploy", "--", "id"])
        .output()
        .expect("run");
    let error = String::from_utf8_lossy(&output.stderr);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(holder.child().child.pid.0),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("kill");
    holder.end();
    assert!(error.contains("the process limit of user deploy is reached"), "{error}");
}
