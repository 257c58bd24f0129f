//! The socket's file and directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use heeler::keeper::control::ControlSocket;

use crate::harness::{End, Server};
use crate::support::{Need, can_run};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o7777
}

fn bind(path: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async { ControlSocket::bind(path).map(drop) })
}

#[test]
fn it_is_open_to_all_in_a_directory_that_is_not_and_goes_away_in_the_end() {
    let mut server = Server::start();
    let dir = server.socket.parent().expect("a directory").to_owned();
    assert_eq!((mode(&server.socket), mode(&dir)), (0o666, 0o755));
    assert_eq!(fs::read_dir(&dir).expect("the directory").count(), 1, "nothing else is left there");
    server.stop(End::Killed);
    assert!(!server.socket.exists());
}

#[test]
fn a_dead_keepers_socket_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control.sock");
    drop(UnixListener::bind(&path).expect("it binds"));
    assert!(UnixStream::connect(&path).is_err(), "it is dead");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let _inside = runtime.as_ref().expect("a runtime").enter();
    let _socket = ControlSocket::bind(&path).expect("it is replaced");
    UnixStream::connect(&path).expect("it lives");
}

#[test]
fn where_others_could_put_theirs_it_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control.sock");
    fs::write(&path, "precious").expect("a file");
    assert!(bind(&path).expect_err("not a socket").contains("something that is not a socket"));
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
    fs::remove_file(&path).expect("it is removed");
    bind(&path).expect("now it is free");
    for mode in [0o777, 0o1777, 0o775] {
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).expect("chmod");
        assert!(
            bind(&path).expect_err("others may write").contains("only root and heeler's own user")
        );
    }
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    let deep = dir.path().join("a/b/control.sock");
    assert!(bind(&deep).expect_err("only one level is made").contains("failed to make"));
    assert!(bind(Path::new("control.sock")).is_err(), "relative to what?");
}

/// Who owns a directory above could turn the path elsewhere at any moment.
#[test]
fn a_directory_above_that_is_anothers_is_refused() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(dir.path().join("theirs/ours")).expect("directories");
    std::os::unix::fs::chown(dir.path().join("theirs"), Some(54_321), None).expect("chown");
    for path in ["theirs/ours/control.sock", "theirs/new/control.sock"] {
        let told = bind(&dir.path().join(path)).expect_err("it is another's");
        assert!(told.contains("uid 54321's"), "{told}");
    }
    assert!(!dir.path().join("theirs/new").exists(), "nothing is made there");
    // By a symbolic link of ours as well.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("theirs/ours", &link).expect("a link");
    assert!(bind(&link.join("control.sock")).is_err());
}

#[test]
fn curl_works() {
    if !can_run(&[Need::Program("/usr/bin/curl", "curl")]) {
        return;
    }
    let server = Server::start();
    let curl = |args: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--unix-socket"]).arg(&server.socket).args(args);
        let output = curl_output(&mut curl);
        serde_json::from_str::<serde_json::Value>(&output).expect("JSON")
    };
    let status = curl(&["http://heeler/v1/status?service=shop&service=db"]);
    assert_eq!(status["services"][1]["service"], "db");
    assert_eq!(curl(&["http://heeler/v1/status"])["services"].as_array().map(Vec::len), Some(6));
    let body = r#"{"order":"restart","services":["shop"]}"#;
    assert_eq!(curl(&["-d", body, "http://heeler/v1/order"])["results"][0]["result"], "done");
    assert_eq!(curl(&["http://heeler/v1/why?service=nix"])["error"], "no_such_service");
}

fn curl_output(curl: &mut Command) -> String {
    let output = curl.output().expect("curl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
