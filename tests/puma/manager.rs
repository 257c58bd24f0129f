//! `systemctl --user` by a heeler that root started with an environment of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::recovery::is_of_deploy;
use crate::shop::{Shop, Way, as_deploy, freeze, masters, start_manager, title, write};
use crate::support::HEELER;
use crate::support::house::signal;
use crate::world::world;

/// What an interactive root shell may carry along; each of these would break something.
fn dirty() -> Command {
    let mut command = Command::new(HEELER);
    for (name, value) in [
        ("XDG_RUNTIME_DIR", "/run/user/0"),
        ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/0/bus"),
        ("HOME", "/root"),
        ("USER", "root"),
        ("RUBYOPT", "-rno_such_library"),
        ("BUNDLE_GEMFILE", "/nowhere/Gemfile"),
        ("GEM_HOME", "/nowhere"),
        ("PATH", "/nowhere"),
        ("SYSTEMD_IGNORE_CHROOT", "0"),
        ("NOTIFY_SOCKET", "/nowhere/notify"),
    ] {
        command.env(name, value);
    }
    command
}

#[test]
fn without_a_manager_the_way_out_is_told() {
    world(|| {
        fs::remove_dir("/run/user/1500").expect("rmdir");
        let mut shop = Shop::new(Way::Unit, "");
        shop.house.open_by(dirty());
        let why = shop.wait_why("loginctl enable-linger deploy");
        let mails = shop.wait_mails(1);
        println!("MAIL\n{}", mails[0]);
        let mail = mails[0].replace("=\n", "");
        for part in ["/run/user/1500", "loginctl enable-linger deploy", "Failed to connect to bus"]
        {
            assert!(why.contains(part), "{part:?} is not in\n{why}");
            assert!(mail.contains(part), "{part:?} is not in\n{mail}");
        }
        start_manager();
        let up = shop.timed("a manager came, heeler start", None, |shop| {
            let (code, out, err) = shop.house.heeler(&["start", "shop"]);
            assert_eq!(code, 0, "{out}{err}");
        });
        is_of_deploy(&up);
        assert_eq!(masters(), [up.master]);
    });
}

#[test]
fn a_manager_that_went_is_told() {
    world(|| {
        // Its directory is there, and nobody listens in it.
        let mut shop = Shop::new(Way::Unit, "");
        shop.house.open_by(dirty());
        let mails = shop.wait_mails(1);
        println!("MAIL\n{}", mails[0]);
        let mail = mails[0].split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "Failed to connect to bus",
            "/run/user/1500 is there but neither systemd/private nor bus",
            "`systemctl restart user@1500`",
        ] {
            assert!(mail.contains(part), "{part:?} is not in\n{mail}");
        }
    });
}

/// Socket activation: the manager holds the very socket that Puma and its workers have, and gives it to
/// the next Puma. It is no orphan, whatever it holds.
#[test]
fn a_manager_that_keeps_the_socket_is_left_alone() {
    world(|| {
        let mut shop = Shop::new(Way::Unit, "");
        let socket = "[Socket]\nListenStream=127.0.0.1:9292\n";
        write(Path::new("/home/deploy/.config/systemd/user/puma.socket"), socket);
        start_manager();
        let output = as_deploy("systemctl --user start puma.socket");
        assert!(output.status.success(), "{output:?}");
        shop.house.open();
        let first = shop.wait_serving(None);
        let manager = parent(first.master);
        assert!(title(manager).contains("systemd --user"), "{}", title(manager));
        freeze(first.worker);
        let what = "kill -9 of a socket-activated master, a worker stopped";
        let second = shop.timed(what, Some(first.master), |_| signal(first.master, "KILL"));
        assert_eq!(parent(second.master), manager);
        assert_eq!(masters(), [second.master]);
        let log = shop.house.log();
        assert!(!log.contains(&format!("pid {manager} ")) && !log.contains("SIGKILL"), "{log}");
    });
}

/// The parent of a process.
fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let after = stat.rsplit(") ").next().expect("a stat");
    after.split(' ').nth(1).expect("a parent").parse().expect("a number")
}

#[test]
fn a_dirty_environment_stays_with_heeler() {
    world(|| {
        let mut shop = Shop::new(Way::Background, "");
        shop.house.open_by(dirty());
        let up = shop.wait_serving(None);
        is_of_deploy(&up);
        for name in ["RUBYOPT", "BUNDLE_GEMFILE", "GEM_HOME", "NOTIFY_SOCKET"] {
            assert_eq!(up.env(name), None);
        }
    });
}
