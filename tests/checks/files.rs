//! What the file pool looks at, against the real thing: files that a user planted, mounts, df, the kernel.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use heeler::checks::{Files, Past, Probe};
use heeler::config::settings::Settings;
use heeler::config::{LoadAs, parse_service};
use heeler::model::ids::ServiceName;
use heeler::model::metric::{Metric, Value};
use heeler::model::observation::{FailedBy, Observation, Outcome};
use heeler::model::process::Uid;
use heeler::sys::clock;

use crate::support::hanging::Hanging;
use crate::support::{Need, can_run};

const WWW: u32 = 33;

/// A check as a definition has it, and what its last look left.
struct Looker {
    files: Files,
    past: Option<Past>,
}

impl Looker {
    fn new(keys: &str) -> Self {
        let text = format!("[[check]]\n{keys}\n");
        let name = ServiceName::parse("x").expect("a name");
        let who = LoadAs::new(Uid(0), Some("root".into()), |_| None);
        let read = parse_service(&name, "x.toml", &text, &Settings::of(&who), &who);
        let (definition, _) = read.unwrap_or_else(|found| panic!("{text}: {found:?}"));
        let Some(Probe::Files(files)) = definition.probes.into_iter().next() else {
            panic!("{text} is not for the pool")
        };
        Self { files, past: None }
    }

    fn look(&mut self) -> Observation {
        let (seen, past) = self.files.look(self.past.take(), clock::now());
        self.past = past;
        seen
    }
}

fn look(keys: &str) -> Observation {
    Looker::new(keys).look()
}

/// Words, and what they mean.
fn told(seen: &Observation) -> (&'static str, String) {
    match &seen.outcome {
        Outcome::Ok => ("ok", String::new()),
        Outcome::Failed(why) => ("failed", why.to_string()),
        Outcome::Unknown(why) => ("unknown", why.to_string()),
    }
}

fn is(seen: &Observation, kind: &str, words: &str) {
    let (seen, why) = told(seen);
    assert!(seen == kind && why.contains(words), "{seen}: {why:?}, not {kind}: {words:?}");
}

fn value(seen: &Observation, metric: &Metric) -> Option<Value> {
    seen.reading(metric).map(|reading| reading.value())
}

struct Rig(tempfile::TempDir);

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).expect("write");
        self.path(name)
    }

    fn append(&self, name: &str, text: &str) {
        use std::io::Write;
        let mut file = fs::File::options().append(true).open(self.path(name)).expect("open");
        file.write_all(text.as_bytes()).expect("write");
    }
}

fn file(path: &Path, keys: &str) -> String {
    format!("type = \"file\"\npath = {path:?}\n{keys}")
}

#[test]
fn env_08_nothing_of_a_planted_files_content_is_told() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let rig = Rig::new();
    // As /etc/shadow: root's alone.
    let secret = rig.write("secret", "");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("chmod");
    let own = rig.path("own");
    fs::create_dir(&own).expect("mkdir");
    chown(&own, Some(WWW), None).expect("chown");
    // A link in the file's place, a link on the way, and a second name.
    let planted = |name: &str, to: &Path| {
        symlink(to, own.join(name)).expect("link");
        std::os::unix::fs::lchown(own.join(name), Some(WWW), None).expect("lchown");
    };
    planted("log", &secret);
    planted("way", rig.0.path());
    fs::hard_link(&secret, own.join("hard")).expect("link");
    for (path, words) in [("log", "symbolic link"), ("way/secret", "symbolic link of uid 33")] {
        let seen = look(&file(&own.join(path), "content = \".\""));
        is(&seen, "unknown", words);
    }
    let mut followed: Vec<_> = ["log", "way/secret", "hard"]
        .map(|path| Looker::new(&file(&own.join(path), "content = \".\"\nfollow = true")))
        .into();
    for looker in &mut followed {
        is(&looker.look(), "ok", "");
    }
    rig.append("secret", "root:hash\n");
    for looker in &mut followed {
        let seen = looker.look();
        is(&seen, "failed", "a new line matches; not shown");
        assert!(!format!("{seen:?}").contains("hash"), "{seen:?}");
    }
    // The same file by its own name.
    let mut own = Looker::new(&file(&rig.write("plain", ""), "content = \".\""));
    own.look();
    rig.append("plain", "an \x1b[2J error\n");
    is(&own.look(), "failed", "a new line matches: an \\x1b[2J error");
}

#[test]
fn pid_08_what_is_no_file_is_never_opened() {
    let rig = Rig::new();
    nix::unistd::mkfifo(&rig.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let _listener = std::os::unix::net::UnixListener::bind(rig.path("socket")).expect("bind");
    for (path, words) in [
        (rig.path("fifo"), "is a FIFO, not a file"),
        (rig.path("socket"), "is a socket, not a file"),
        (rig.0.path().to_owned(), "is a directory, not a file"),
        ("/dev/zero".into(), "is a device, not a file"),
        ("/dev/tty".into(), "is a device, not a file"),
    ] {
        let began = Instant::now();
        let seen = look(&file(&path, "content = \".\"\nchecksum = \"sha256\""));
        is(&seen, "failed", words);
        assert!(began.elapsed() < Duration::from_millis(100), "{path:?}: {:?}", began.elapsed());
    }
    is(
        &look(&format!("type = \"directory\"\npath = {:?}", rig.path("fifo"))),
        "failed",
        "is a FIFO",
    );
}

#[test]
fn a_file_is_there_or_must_not_be() {
    let rig = Rig::new();
    let path = rig.write("here", "four");
    let gone = rig.path("gone");
    is(&look(&file(&path, "")), "ok", "");
    is(&look(&file(&gone, "")), "failed", "gone does not exist");
    is(&look(&file(&gone, "exists = \"no\"")), "ok", "");
    is(&look(&file(&path, "exists = \"no\"")), "failed", "it is a file, last changed");
    symlink("nowhere", rig.path("dangling")).expect("link");
    is(&look(&file(&rig.path("dangling"), "")), "unknown", "symbolic link");
    let odd = look("type = \"file\"\npath = \"/nowhere/\\u001b[2J\"");
    is(&odd, "failed", "\\x1b[2J does not exist");
    let seen = look(&file(&path, ""));
    assert_eq!(value(&seen, &Metric::Size), Some(Value::Bytes(4)));
    let future = std::time::SystemTime::now() + Duration::from_secs(9999);
    fs::File::options().write(true).open(&path).expect("open").set_modified(future).expect("touch");
    let seen = look(&file(&path, ""));
    assert_eq!(value(&seen, &Metric::Age), Some(Value::Duration(Duration::ZERO)));
    let past = std::time::SystemTime::now() - Duration::from_secs(7200);
    fs::File::options().write(true).open(&path).expect("open").set_modified(past).expect("touch");
    let Some(Value::Duration(age)) = value(&look(&file(&path, "")), &Metric::Age) else {
        panic!("no age")
    };
    assert!((7200..7210).contains(&age.as_secs()), "{age:?}");
}

/// Lines were written once; what else is wrong lasts, and then so does the failure.
#[test]
fn a_failure_by_lines_alone_is_told_apart() {
    let rig = Rig::new();
    let path = rig.write("log", "");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
    for (mode, failed_by) in [("0640", FailedBy::Lines), ("0600", FailedBy::State)] {
        let mut looker = Looker::new(&file(&path, &format!("content = \".\"\nmode = \"{mode}\"")));
        assert_eq!(looker.look().failed_by, FailedBy::State);
        rig.append("log", "an error\n");
        let seen = looker.look();
        is(&seen, "failed", "a new line matches: an error");
        assert_eq!(seen.failed_by, failed_by, "{mode}");
    }
}

#[test]
fn owner_group_and_mode_are_compared() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let rig = Rig::new();
    let path = rig.write("file", "");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
    chown(&path, Some(WWW), Some(0)).expect("chown");
    let rights = "owner = \"www-data\"\ngroup = \"root\"\nmode = \"0640\"";
    is(&look(&file(&path, rights)), "ok", "");
    is(&look(&file(&path, "owner = \"root\"")), "failed", "its owner is 33, not root");
    is(&look(&file(&path, "mode = \"0600\"")), "failed", "its mode is 0640, not 0600");
    is(&look(&file(&path, "owner = \"nobody-here\"")), "unknown", "write its number instead");
    let directory = format!("type = \"directory\"\npath = {:?}\nmode = \"1777\"", rig.0.path());
    is(&look(&directory), "failed", "its mode is 0755, not 1777");
}

#[test]
fn checksums_are_those_of_sha256sum_and_are_taken_anew_only_after_a_change() {
    let rig = Rig::new();
    let path = rig.write("file", "abc");
    let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    is(&look(&file(&path, &format!("checksum = \"sha256:{sum}\""))), "ok", "");
    let one = "checksum = \"sha1:a9993e364706816aba3e25717850c26c9cd0d89d\"";
    is(&look(&file(&path, one)), "ok", "");
    let other = format!("checksum = \"sha256:{}\"", "0".repeat(64));
    is(&look(&file(&path, &other)), "failed", &format!("its sha256 is {sum}, not 000"));
    is(&look(&file(&path, "checksum = \"sha256\"\nmax_read = \"2B\"")), "unknown", "max_read");

    let mut looker = Looker::new(&file(&path, "checksum = \"sha256\""));
    let first = looker.look().fingerprint;
    assert!(first.is_some());
    // The same content in a new file, at a new time, is no change; one byte is.
    fs::remove_file(&path).expect("remove");
    rig.write("file", "abc");
    assert_eq!(looker.look().fingerprint, first);
    rig.write("file", "abd");
    let second = looker.look().fingerprint;
    assert_ne!(second, first);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_ne!(looker.look().fingerprint, second);
    fs::remove_file(&path).expect("remove");
    let gone = looker.look().fingerprint;
    assert!(gone.is_some() && gone != second, "that it went is a change");
}

#[test]
fn a_directorys_entries_are_counted() {
    let rig = Rig::new();
    let keys = format!("type = \"directory\"\npath = {:?}", rig.0.path());
    for name in ["a", ".b", "c"] {
        rig.write(name, "");
    }
    let mut looker = Looker::new(&keys);
    let seen = looker.look();
    is(&seen, "ok", "");
    assert_eq!(value(&seen, &Metric::Entries), Some(Value::Count(3)));
    assert!(value(&seen, &Metric::Age).is_some());
    is(
        &look(&format!("type = \"directory\"\npath = {:?}", rig.path("x"))),
        "failed",
        "does not exist",
    );
    is(&look(&format!("type = \"directory\"\npath = {:?}", rig.path("a"))), "failed", "is a file");
}

/// Something mounted, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, args: &[&str]) -> Option<Self> {
        fs::create_dir(at).expect("mkdir");
        let output = Command::new("mount").args(args).arg(at).output().expect("mount");
        if !output.status.success() {
            eprintln!("SKIPPED: {}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn filesystem(path: &Path, keys: &str) -> String {
    format!("type = \"filesystem\"\npath = {path:?}\n{keys}")
}

/// The two percentages that df prints of a path.
fn df(path: &Path) -> [Option<Value>; 2] {
    let output = Command::new("df").arg("--output=pcent,ipcent").arg(path).output().expect("df");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().nth(1).unwrap_or_default().to_owned();
    let mut words = line.split_ascii_whitespace();
    [(); 2].map(|()| {
        let percent: u64 = words.next()?.strip_suffix('%')?.parse().ok()?;
        Some(Value::Percent(percent * 1000))
    })
}

#[test]
fn env_06_percentages_are_those_of_df() {
    let rig = Rig::new();
    let agrees = |path: &Path| {
        // Others write beside us: a percent may pass between two looks.
        crate::support::wait_for("df and heeler to agree", Duration::from_secs(10), || {
            let before = df(path);
            let seen = look(&filesystem(path, ""));
            is(&seen, "ok", "");
            let own = [Metric::Used, Metric::InodesUsed].map(|metric| value(&seen, &metric));
            (own == before).then_some(())
        });
    };
    agrees(Path::new("/"));
    agrees(rig.0.path());
    let seen = look(&filesystem(Path::new("/proc"), ""));
    is(&seen, "ok", "");
    assert_eq!(seen.metrics, [], "proc has no size");
    is(&look(&filesystem(&rig.path("gone"), "")), "failed", "does not exist");
    if !can_run(&[Need::Root, Need::Program("/usr/sbin/mkfs.ext4", "e2fsprogs")]) {
        return;
    }
    // 5 % are kept for root; a fifth of the rest is used.
    let image = rig.path("image");
    fs::File::create(&image).expect("create").set_len(32 << 20).expect("grow");
    let made = Command::new("mkfs.ext4").args(["-q", "-m", "5"]).arg(&image).status();
    assert!(made.expect("mkfs").success());
    let at = rig.path("disk");
    let Some(_mounted) = Mounted::new(&at, &["-o", "loop", &image.display().to_string()]) else {
        return;
    };
    fs::write(at.join("data"), vec![1; 6 << 20]).expect("write");
    nix::unistd::sync();
    agrees(&at);
    let Some(Value::Bytes(free)) = value(&look(&filesystem(&at, "")), &Metric::Free) else {
        panic!("no free space")
    };
    assert!((10 << 20..26 << 20).contains(&free), "{free}");
}

#[test]
fn env_07_a_directory_on_which_nothing_is_mounted_is_not_mounted() {
    let rig = Rig::new();
    let at = rig.path("da ta");
    fs::create_dir(&at).expect("mkdir");
    let seen = look(&filesystem(&at, "mounted = true"));
    is(&seen, "failed", "nothing is mounted on");
    assert_eq!(seen.metrics, [], "not the usage of /");
    is(&look(&filesystem(&at, "")), "ok", "");
    is(&look(&filesystem(Path::new("/"), "mounted = true")), "ok", "");
    fs::remove_dir(&at).expect("rmdir");
    if !can_run(&[Need::Root]) {
        return;
    }
    let args = ["-t", "tmpfs", "-o", "size=1m,ro,noexec", "none"];
    let Some(_mounted) = Mounted::new(&at, &args) else { return };
    let mut looker = Looker::new(&filesystem(&at, "mounted = true\nflags = [\"noexec\"]"));
    let before = looker.look();
    is(&before, "ok", "");
    is(
        &look(&filesystem(&at, "flags = \"rw\"")),
        "failed",
        "is mounted without rw: its options are ro",
    );
    is(&look(&filesystem(&at, "flags = [\"ro\", \"nosuid\"]")), "failed", "without nosuid");
    let again = Command::new("mount").args(["-o", "remount,rw,noexec"]).arg(&at).status();
    assert!(again.expect("mount").success());
    let after = looker.look();
    assert_ne!(after.fingerprint, before.fingerprint, "{before:?} {after:?}");
    symlink(&at, rig.path("link")).expect("link");
    is(&look(&filesystem(&rig.path("link"), "mounted = true")), "ok", "");
}

#[test]
fn env_06_a_file_system_whose_server_died_does_not_work() {
    if !can_run(&[Need::Root, Need::Program("/dev/fuse", "a kernel with FUSE")]) {
        return;
    }
    let rig = Rig::new();
    let Some(mut hanging) = Hanging::make(&rig.path("dead")) else {
        eprintln!("SKIPPED for want of: the right to mount FUSE");
        return;
    };
    hanging.die();
    let seen = look(&filesystem(&hanging.at, ""));
    is(&seen, "failed", "does not work: ");
    is(&look(&file(&hanging.at.join("x"), "")), "unknown", "failed to look at");
}

#[test]
fn the_machine_and_its_loopback_are_seen() {
    let mut looker = Looker::new("type = \"system\"\nif = \"load1 > 1000\"");
    is(&looker.look(), "ok", "");
    let mut spun = 0u64;
    crate::support::wait_for("time of a CPU to pass", Duration::from_secs(10), || {
        spun = spun.wrapping_add(1);
        value(&looker.look(), &Metric::Cpu)
    });
    let mut looker = Looker::new("type = \"network\"\ninterface = \"lo\"");
    is(&looker.look(), "ok", "");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    socket.send_to(&[0; 1000], socket.local_addr().expect("bound")).expect("send");
    let seen = looker.look();
    let Some(Value::Rate(rate)) = value(&seen, &Metric::SendRate) else { panic!("{seen:?}") };
    assert!(rate >= 1000, "{seen:?}");
    assert!(value(&seen, &Metric::Errors).is_some(), "{seen:?}");
    assert_eq!(value(&seen, &Metric::Saturation), None, "lo has no speed");
    is(
        &look("type = \"network\"\ninterface = \"nosuch0\""),
        "failed",
        "there is no interface nosuch0",
    );
}

#[test]
fn an_interface_that_was_set_down_is_down() {
    if !can_run(&[Need::Root, Need::Program("/usr/sbin/ip", "iproute2")]) {
        return;
    }
    let ip = |args: &str| {
        let status = Command::new("ip").args(args.split(' ')).status();
        status.expect("ip").success()
    };
    let (one, two) = (format!("ha{}", std::process::id()), format!("hb{}", std::process::id()));
    if !ip(&format!("link add {one} type veth peer name {two}")) {
        eprintln!("SKIPPED for want of: a kernel with veth");
        return;
    }
    let mut looker = Looker::new(&format!("type = \"network\"\ninterface = \"{one}\""));
    let down = looker.look();
    let no_carrier = ip(&format!("link set {one} up")).then(|| looker.look());
    let up = ip(&format!("link set {two} up")).then(|| looker.look());
    assert!(ip(&format!("link del {one}")));
    is(&down, "failed", "it is not set up");
    is(&no_carrier.expect("is up"), "failed", "lowerlayerdown");
    is(&up.expect("is up"), "ok", "");
    is(&looker.look(), "failed", "there is no interface");
}
