//! A machine for one test: the test binary runs the test again inside namespaces of its own, with the
//! user deploy in a private copy of /etc/passwd. Whatever happens in there ends with it.

use std::any::type_name;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Need, can_run, wait_for};

/// The uid of deploy.
pub(crate) const DEPLOY: u32 = 1500;

const INSIDE: &str = "HEELER_TEST_INSIDE";
/// No test takes this long.
pub(crate) const LIMIT: Duration = Duration::from_secs(150);

/// Runs a test in a machine of its own. The test is found again by the name of its closure.
pub(crate) fn world<F: FnOnce()>(test: F) {
    world_within(LIMIT, test);
}

/// The same for one that takes longer.
pub(crate) fn world_within<F: FnOnce()>(limit: Duration, test: F) {
    let name = type_name::<F>().trim_end_matches("::{{closure}}");
    let name = name.split_once("::").expect("a test is in a module").1;
    if let Some(dir) = std::env::var_os(INSIDE) {
        fs::write(Path::new(&dir).join("ran"), name).expect("the mark");
        test();
        return;
    }
    if can_run(&NEEDS) {
        println!("{}", run_inside(name, limit, &[]));
    }
}

/// What a world needs of the machine.
pub(crate) const NEEDS: [Need; 6] = [
    Need::Root,
    Need::Program("/usr/bin/puma", "puma"),
    Need::Program("/lib/systemd/systemd", "systemd"),
    Need::Program("/usr/lib/systemd/user/dbus.socket", "dbus-user-session"),
    Need::Program("/usr/bin/setpriv", "util-linux"),
    Need::Program("/usr/sbin/ip", "iproute2"),
];

/// Runs the test of this name in a machine of its own, with these variables; what it printed.
pub(crate) fn run_inside(name: &str, limit: Duration, variables: &[(&str, &str)]) -> String {
    let dir = tempfile::Builder::new().prefix("heeler-puma-").tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let group = ControlGroup::new(dir.path());
    let output = dir.path().join("output");
    let file = fs::File::create(&output).expect("the output");
    let enter = "echo $$ >\"$1/cgroup.procs\"; shift; exec \"$@\"";
    let mut child = Command::new("sh")
        .args(["-c", enter, "sh"])
        .arg(&group.0)
        .args(["unshare", "--mount", "--pid", "--cgroup", "--ipc", "--net", "--fork"])
        .args([
            "--kill-child=KILL",
            "--mount-proc",
            "--",
            "sh",
            "-c",
            include_str!("world.sh"),
            "sh",
        ])
        .arg(dir.path())
        .arg(std::env::current_exe().expect("this binary"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .envs(variables.iter().copied())
        .env(INSIDE, dir.path())
        .env("TMPDIR", dir.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("dup"))
        .stderr(file)
        .spawn()
        .expect("unshare runs");
    let end = std::time::Instant::now() + limit;
    let status = wait_for("the test in its world to end", limit * 2, || {
        if std::time::Instant::now() > end {
            child.kill().expect("kill");
        }
        child.try_wait().expect("wait")
    });
    let said = String::from_utf8_lossy(&fs::read(&output).unwrap_or_default()).into_owned();
    assert!(status.success(), "{said}\n{name} failed in its world: {status}");
    assert!(dir.path().join("ran").exists(), "{said}\n{name} did not run in its world");
    said
}

/// A control group for everything of one world, removed with it.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn new(dir: &Path) -> Self {
        let mounts = fs::read_to_string("/proc/mounts").expect("/proc/mounts");
        let mount = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let place = words.nth(1)?;
            (words.next() == Some("cgroup2")).then(|| PathBuf::from(place))
        });
        let name = dir.file_name().expect("has a name");
        let group = mount.expect("cgroup2 is mounted").join(name);
        fs::create_dir(&group).expect("a control group");
        Self(group)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        fn remove(group: &Path) -> std::io::Result<()> {
            for entry in fs::read_dir(group)?.flatten() {
                if entry.file_type()?.is_dir() {
                    remove(&entry.path())?;
                }
            }
            fs::remove_dir(group)
        }
        // The last of its processes may still be on their way out.
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while remove(&self.0).is_err() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
