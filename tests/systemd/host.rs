//! A machine that systemd has booted: process 1, journal, buses, logind and lingering users, in
//! namespaces of its own, from this machine's own packages. It needs root and nothing else of whoever
//! runs the test, boots in a second, reboots with what was written to its disk, and is gone when it is
//! dropped, however the test ends (`ground.sh`).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use crate::support::house::{PATIENCE, alive, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

/// The uid of deploy, who lingers.
pub(crate) const DEPLOY: u32 = 1500;
/// Another user, who has nothing to do with it.
pub(crate) const OTHER: u32 = 1501;

/// Units of the machine's packages that a host does without.
const MASKED: [&str; 10] = [
    "console-getty.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "systemd-journal-flush.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-random-seed.service",
    "systemd-tmpfiles-clean.timer",
];

/// Whether hosts can be booted here.
pub(crate) fn can_boot() -> bool {
    can_run(&[
        Need::Root,
        Need::Program("/lib/systemd/systemd", "systemd"),
        Need::Program("/lib/systemd/system/dbus.service", "dbus"),
        Need::Program("/usr/lib/systemd/user/dbus.socket", "dbus-user-session"),
        Need::Program("/usr/share/pam-configs/systemd", "libpam-systemd"),
        Need::Program("/usr/bin/setpriv", "util-linux"),
        Need::Program("/usr/bin/puma", "puma"),
    ])
}

/// One host.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    ground: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Its process 1, while it is up.
    leader: Option<u32>,
}

impl Host {
    /// Lays one down, with its users. It is not booted: files can be put in their places before.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("heeler-host-").tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::write(dir.path().join("boot.sh"), include_str!("boot.sh")).expect("write");
        let mut ground = Command::new("unshare")
            .args(["--mount", "setsid", "sh", "-c", include_str!("ground.sh"), "sh"])
            .args([dir.path(), Path::new(HEELER)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let orders = ground.stdin.take();
        let answers = BufReader::new(ground.stdout.take().expect("piped"));
        let mut host = Self { dir, ground, orders, answers, leader: None };
        host.hear("ready");
        host.furnish();
        host
    }

    fn furnish(&self) {
        for gone in ["etc/systemd/system", "etc/systemd/user", "usr/lib/systemd/system-generators"]
        {
            fs::remove_dir_all(self.path(gone)).expect("it is of the copy");
        }
        for left in ["etc/heeler", "var/lib/heeler"] {
            // By a heeler of this machine, as the README's first command runs one: nothing of this host's.
            let _none = fs::remove_dir_all(self.path(left));
        }
        for level in ["2", "3", "4", "5"] {
            // Scripts of packages; without systemd-sysv-generator nobody looks at them anyway.
            let _none = fs::remove_dir_all(self.path(&format!("etc/rc{level}.d")));
        }
        for unit in MASKED {
            self.link("/dev/null", &format!("/etc/systemd/system/{unit}"));
        }
        self.write("/etc/machine-id", "5e1f0000000000000000000000000001\n");
        self.write("/etc/hostname", "web1\n");
        let _none = fs::remove_file(self.path("etc/resolv.conf"));
        for (file, field) in [("passwd", 2), ("group", 2), ("shadow", 0), ("gshadow", 0)] {
            let old = fs::read_to_string(self.path(&format!("etc/{file}"))).unwrap_or_default();
            let ours = ["deploy", "other", "1500", "1501"];
            let mut text: String = old
                .lines()
                .filter(|line| {
                    let mut words = line.split(':');
                    let id = words.clone().nth(field).unwrap_or_default();
                    !ours.contains(&id) && !ours.contains(&words.next().unwrap_or_default())
                })
                .flat_map(|line| [line, "\n"])
                .collect();
            for (name, id) in [("deploy", DEPLOY), ("other", OTHER)] {
                text += &match file {
                    "passwd" => format!("{name}:x:{id}:{id}::/home/{name}:/bin/bash\n"),
                    "group" => format!("{name}:x:{id}:\n"),
                    "shadow" => format!("{name}:*:19000:0:99999:7:::\n"),
                    _ => format!("{name}:*::\n"),
                };
            }
            if file.contains("shadow") {
                self.write_private(&format!("/etc/{file}"), &text);
            } else {
                self.write(&format!("/etc/{file}"), &text);
            }
        }
        for (name, id) in [("deploy", DEPLOY), ("other", OTHER)] {
            let home = self.path(&format!("home/{name}"));
            fs::create_dir_all(&home).expect("mkdir");
            chown(home, Some(id), Some(id)).expect("chown");
        }
        self.write("/var/lib/systemd/linger/deploy", "");
    }

    /// A path in the host, as this process sees it. Links from the root on are not for it.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        let below = below.trim_start_matches('/');
        match self.leader {
            Some(leader) => Path::new(&format!("/proc/{leader}/root")).join(below),
            None => {
                let ground = format!("/proc/{}/root", self.ground.id());
                let dir = self.dir.path().strip_prefix("/").expect("is absolute");
                Path::new(&ground).join(dir).join("ground/root").join(below)
            }
        }
    }

    /// Writes a file of root's, with the directories above it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("is in a directory")).expect("mkdir");
        fs::write(path, text).expect("write");
    }

    /// The same, for nobody else to read.
    pub(crate) fn write_private(&self, path: &str, text: &str) {
        self.write(path, text);
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path(path), private).expect("chmod");
    }

    /// Writes a file of deploy's, with the directories above it.
    pub(crate) fn write_deploys(&self, path: &str, text: &str) {
        self.write(path, text);
        let home = self.path("home/deploy");
        let mut path = self.path(path);
        while path.starts_with(&home) && path != home {
            chown(&path, Some(DEPLOY), Some(DEPLOY)).expect("chown");
            path.pop();
        }
    }

    /// Gives a tree to deploy.
    pub(crate) fn own_by_deploy(&self, path: &str) {
        let path = self.path(path);
        let status = Command::new("chown").args(["-Rh", "1500:1500"]).arg(path).status();
        assert!(status.expect("chown runs").success());
    }

    /// Makes a symbolic link.
    pub(crate) fn link(&self, to: &str, path: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("is in a directory")).expect("mkdir");
        std::os::unix::fs::symlink(to, path).expect("link");
    }

    /// The text of a file; empty when it is not there.
    pub(crate) fn read(&self, path: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(path)).unwrap_or_default()).into_owned()
    }

    /// Boots it, and waits until systemd says that it runs; a failed unit is a failure.
    pub(crate) fn boot(&mut self) {
        self.boot_as_if_up_for(Duration::ZERO);
    }

    /// The same, with clocks that say that it has been up for a while: what is done differently just after
    /// a boot is over.
    pub(crate) fn boot_as_if_up_for(&mut self, uptime: Duration) {
        self.begin_boot(uptime);
        let mut said = String::new();
        let state = wait_for("the host to be up", PATIENCE, || {
            let output = self.exec(&["systemctl", "is-system-running", "--wait"]);
            said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            ["running", "degraded"].contains(&said.as_str()).then(|| said.clone())
        });
        let failed = self.shell("systemctl --failed --no-legend --plain");
        assert_eq!(state, "running", "failed units: {failed}");
    }

    /// Boots it, and waits for no more than that its process 1 is there.
    pub(crate) fn begin_boot(&mut self, uptime: Duration) {
        assert!(self.leader.is_none(), "it is up");
        self.order(&format!("boot {}", uptime.as_secs()));
        let file = self.dir.path().join("leader");
        let dir = self.dir.path().to_owned();
        let leader = wait_for("process 1 of the host", PATIENCE, || {
            let text = fs::read_to_string(&file).ok()?;
            Some(text.trim().parse().unwrap_or_else(|_| panic!("{text:?} in {}", dir.display())))
        });
        fs::remove_file(&file).expect("was there");
        self.leader = Some(leader);
        wait_for("systemd to be process 1", PATIENCE, || {
            assert!(alive(leader), "the host died: {}", self.console());
            let name = fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
            (name.trim() == "systemd").then_some(())
        });
    }

    /// Waits until the manager of deploy's units can be asked.
    pub(crate) fn wait_manager(&self) {
        self.shell("systemctl start user@1500.service");
    }

    /// An orderly shutdown.
    pub(crate) fn poweroff(&mut self) {
        self.go_down("poweroff");
    }

    /// An orderly shutdown, and what was on its disk is booted again.
    pub(crate) fn reboot(&mut self) {
        self.go_down("reboot");
        self.boot();
    }

    fn go_down(&mut self, word: &str) {
        let leader = self.leader.expect("it is up");
        // The order may be cut off by what it brings about.
        let _cut = self.exec(&["systemctl", "--no-block", word]);
        wait_for("the host to go down", PATIENCE * 2, || (!alive(leader)).then_some(()));
        self.forget_boot();
    }

    /// The power goes.
    pub(crate) fn cut_power(&mut self) {
        signal(self.leader.expect("it is up"), "KILL");
        self.forget_boot();
    }

    fn forget_boot(&mut self) {
        self.leader = None;
        self.order("clear");
        self.hear("cleared");
    }

    /// Its process 1, by the test's own numbers.
    pub(crate) fn leader(&self) -> u32 {
        self.leader.expect("it is up")
    }

    /// A command in it, as root, with an environment of its own.
    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.leader()))
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--time"])
            .args(["--wdns=/", "--", "env", "-i", "LANG=C.UTF-8", "HOME=/root", "TERM=dumb"])
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(argv)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command as root.
    pub(crate) fn exec(&self, argv: &[&str]) -> Output {
        self.command(argv).output().expect("nsenter runs")
    }

    /// Runs a script as root, which has to be well; what it printed.
    pub(crate) fn shell(&self, script: &str) -> String {
        good(script, self.exec(&["sh", "-c", script]))
    }

    /// Runs a script as a user, as a login of theirs would.
    pub(crate) fn run_as(&self, user: &str, script: &str) -> Output {
        let uid = self.shell(&format!("id -u {user}")).trim().to_owned();
        let runtime = format!("XDG_RUNTIME_DIR=/run/user/{uid}");
        let (uid, gid) = (format!("--reuid={uid}"), format!("--regid={uid}"));
        self.exec(&[
            "setpriv",
            &uid,
            &gid,
            "--init-groups",
            "--reset-env",
            "env",
            &runtime,
            "bash",
            "-c",
            script,
        ])
    }

    /// Runs a script as deploy, which has to be well; what it printed.
    pub(crate) fn deploy(&self, script: &str) -> String {
        good(script, self.run_as("deploy", script))
    }

    /// Does something in its network, on a thread that ends with it.
    pub(crate) fn in_its_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.leader())).expect("it is up");
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
                work()
            });
            inside.join().expect("the work ends")
        })
    }

    /// The client of the host's heeler, as root: exit code, stdout, stderr.
    pub(crate) fn heeler(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.exec(&[&["heeler"], args].concat());
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Its directory, whose name everything of it carries.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the journal has.
    pub(crate) fn journal(&self) -> String {
        let output = self.exec(&["journalctl", "--no-pager", "--output=short-precise"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What process 1 printed.
    pub(crate) fn console(&self) -> String {
        fs::read_to_string(self.dir.path().join("console")).unwrap_or_default()
    }

    fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("the ground is there");
        writeln!(orders, "{order}").expect("the ground listens");
    }

    fn hear(&mut self, answer: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the ground answers");
        assert_eq!(line.trim(), answer);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() && self.leader.is_some_and(alive) {
            eprintln!("---- the host's console\n{}", self.console());
            eprintln!("---- the host's journal\n{}", self.journal());
        }
        drop(self.orders.take());
        let ended = self.ground.wait();
        if !std::thread::panicking() {
            assert!(ended.expect("wait").success(), "the ground was not cleared");
        }
    }
}

fn good(script: &str, output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{out}{err}", output.status);
    out
}
