//! `type = "filesystem"`: how full it is as df(1) tells it, and that it is mounted as it should be.
//!
//! df's percentage is `used / (used + available)`, rounded up, where blocks that are kept for root count
//! as neither. A file system without blocks (proc) has no usage, one without inodes (btrfs) none of
//! those. Sources: statvfs(3), proc_pid_mountinfo(5), proc_pid_fdinfo(5), fstab(5), df.c of coreutils.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{Statvfs, statvfs};

use crate::checks::given::{Given, Key, KeyKind, Wrong};
use crate::checks::system::kernel_file;
use crate::checks::{CheckType, Files, Probe, Unsaid, fingerprint};
use crate::model::metric::{Metric, Value};
use crate::model::observation::{Observation, Outcome};
use crate::model::text::{Untrusted, escape};

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::Used, Metric::Free, Metric::InodesUsed, Metric::InodesFree],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(5),
    read: |given| settings(given).map(|settings| Probe::Files(Files::Filesystem(settings))),
};

const KEYS: [Key; 3] = [
    Key { name: "path", kind: KeyKind::Path, example: "/data" },
    Key { name: "mounted", kind: KeyKind::Flag, example: "true" },
    Key { name: "flags", kind: KeyKind::Words, example: "[\"rw\", \"noexec\"]" },
];

/// What to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    path: PathBuf,
    mounted: Mounted,
    flags: Vec<String>,
}

/// Whether the path itself has to be a mount point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mounted {
    Must,
    Need,
    /// When /etc/fstab says that something is to be mounted there.
    AsFstab,
}

fn settings(given: &Given) -> Result<Settings, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let known = |flag: &&String| {
        !flag.is_empty()
            && flag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-=.".contains(&byte))
    };
    if let Some(odd) = given.words("flags").iter().find(|flag| !known(flag)) {
        let message = format!("{:?} is not a mount option", escape(odd));
        wrong.push(Wrong::new("flags", message, "write them as findmnt -o OPTIONS shows them"));
    }
    let Some(path) = given.path("path") else {
        wrong.push(Wrong::new("path", "this check does not say `path`", ""));
        return Err(wrong);
    };
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mounted = match (given.has("mounted"), given.flag("mounted")) {
        (false, _) => Mounted::AsFstab,
        (true, true) => Mounted::Must,
        (true, false) => Mounted::Need,
    };
    Ok(Settings { path: path.into(), mounted, flags: given.words("flags").to_vec() })
}

/// Looks once.
#[must_use]
pub fn look(settings: &Settings) -> Observation {
    let path = &settings.path;
    let stat = match statvfs(path) {
        Ok(stat) => stat,
        Err(error) => return refused(path, error),
    };
    let mount = match mount_of(path) {
        Ok(mount) => mount,
        Err(why) => {
            return Observation::unknown(&format!(
                "failed to tell how {} is mounted: {why}",
                path.display()
            ));
        }
    };
    let must = match settings.mounted {
        Mounted::Must => true,
        Mounted::Need => false,
        Mounted::AsFstab => kernel_file("/etc/fstab").is_ok_and(|table| is_in_fstab(&table, path)),
    };
    if must && !mount.is_at_path {
        // Its numbers would be those of the file system around it.
        let (path, around) = (path.display(), mount.point.display());
        let why = format!(
            "nothing is mounted on {path}: it is a directory of what is mounted on {around}"
        );
        let mut seen = Observation::failed(&why);
        seen.fingerprint = Some(fingerprint([b"not mounted".as_slice()]));
        return seen;
    }
    let missing: Vec<_> = settings.flags.iter().filter(|flag| !mount.has(flag)).cloned().collect();
    let mut seen = Observation::of(if missing.is_empty() {
        Outcome::Ok
    } else {
        let (missing, shown) = (missing.join(", "), mount.options.join(","));
        let path = path.display();
        let why = format!("{path} is mounted without {missing}: its options are {shown}");
        Outcome::Failed(Untrusted::from(why.as_str()))
    });
    for (metric, value) in usage(&Numbers::of(&stat)) {
        seen = seen.with(metric, value);
    }
    let options = mount.options.join(",");
    seen.fingerprint = Some(fingerprint([mount.kind.as_bytes(), options.as_bytes()]));
    seen.detail = Untrusted::from(format!("{} {options}", mount.kind).as_str());
    seen
}

/// What it means that the kernel gives no numbers.
fn refused(path: &Path, error: Errno) -> Observation {
    let shown = path.display();
    if matches!(error, Errno::ENOENT | Errno::ENOTDIR) {
        let mut seen = Observation::failed(&format!("{shown} does not exist"));
        seen.fingerprint = Some(fingerprint([]));
        return seen;
    }
    if DEAD.contains(&error) {
        return Observation::failed(&format!("{shown} does not work: {}", error.desc()));
    }
    Observation::unknown(&format!("failed to look at {shown}: {}", error.desc()))
}

/// It is there, and whoever serves it is not (fuse(4), nfs(5)), or its storage fails.
const DEAD: [Errno; 5] =
    [Errno::ENOTCONN, Errno::ESTALE, Errno::EIO, Errno::ESHUTDOWN, Errno::EHOSTDOWN];

/// The numbers of a statvfs that matter.
struct Numbers {
    unit_bytes: u64,
    blocks: u64,
    blocks_free: u64,
    blocks_available: u64,
    files: u64,
    files_free: u64,
}

impl Numbers {
    fn of(stat: &Statvfs) -> Self {
        Self {
            unit_bytes: stat.fragment_size(),
            blocks: stat.blocks(),
            blocks_free: stat.blocks_free(),
            blocks_available: stat.blocks_available(),
            files: stat.files(),
            files_free: stat.files_free(),
        }
    }
}

fn usage(numbers: &Numbers) -> Vec<(Metric, Value)> {
    let mut out = Vec::new();
    if numbers.blocks > 0 {
        let used = numbers.blocks.saturating_sub(numbers.blocks_free);
        let free = u128::from(numbers.blocks_available) * u128::from(numbers.unit_bytes);
        out.push((Metric::Used, percent(used, numbers.blocks_available)));
        out.push((Metric::Free, Value::Bytes(u64::try_from(free).unwrap_or(u64::MAX))));
    }
    if numbers.files > 0 {
        let used = numbers.files.saturating_sub(numbers.files_free);
        out.push((Metric::InodesUsed, percent(used, numbers.files_free)));
        out.push((Metric::InodesFree, Value::Count(numbers.files_free)));
    }
    out
}

/// Whole percents, rounded up; full where there is nothing of either.
fn percent(used: u64, available: u64) -> Value {
    let (used, all) = (u128::from(used), u128::from(used) + u128::from(available));
    let percent = if all == 0 { 100 } else { (used * 100).div_ceil(all) };
    Value::Percent(u64::try_from(percent).unwrap_or(100) * 1000)
}

/// The mount that a path is in.
#[derive(PartialEq, Eq, Debug)]
struct Mount {
    point: PathBuf,
    is_at_path: bool,
    kind: String,
    /// Those of the mount; behind them those of the file system that are not among them.
    options: Vec<String>,
    /// Whether either says that nothing can be written.
    read_only: bool,
}

impl Mount {
    fn has(&self, flag: &str) -> bool {
        match flag {
            "rw" => !self.read_only,
            "ro" => self.read_only,
            other => self.options.iter().any(|option| option == other),
        }
    }
}

fn mount_of(path: &Path) -> Result<Mount, String> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let held = open(path, flags, Mode::empty()).map_err(|error| error.desc().to_owned())?;
    let read = |name: &str| kernel_file(name).map_err(|error| format!("{name}: {error}"));
    let info = read(&format!("/proc/self/fdinfo/{}", held.as_raw_fd()))?;
    let id = mount_id(&info).ok_or("the kernel does not tell its mount")?;
    let table = read("/proc/self/mountinfo")?;
    let mount = parse_mount(&table, &id).ok_or("its mount is not in /proc/self/mountinfo")?;
    Ok(Mount { is_at_path: real_path(&held).is_some_and(|real| real == mount.point), ..mount })
}

/// The path without links.
fn real_path(held: &OwnedFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", held.as_raw_fd())).ok()
}

fn mount_id(info: &str) -> Option<String> {
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    Some(id.trim().to_owned())
}

/// A line is `36 35 98:0 /root /mnt rw,noatime shared:1 - ext4 /dev/sda1 rw,errors=continue`.
fn parse_mount(table: &str, id: &str) -> Option<Mount> {
    table.lines().find_map(|line| {
        let (own, shared) = line.split_once(" - ")?;
        let mut own = own.split(' ');
        if own.next() != Some(id) {
            return None;
        }
        let point = unescape(own.nth(3)?);
        let options = own.next()?;
        let mut shared = shared.splitn(3, ' ');
        let kind = shared.next()?.to_owned();
        let of_system = shared.nth(1).unwrap_or_default();
        let read_only =
            [options, of_system].iter().any(|all| all.split(',').any(|word| word == "ro"));
        let mut all: Vec<String> = vec![if read_only { "ro" } else { "rw" }.to_owned()];
        for option in options.split(',').chain(of_system.split(',')) {
            if !matches!(option, "rw" | "ro" | "") && !all.iter().any(|known| known == option) {
                all.push(option.to_owned());
            }
        }
        let (options, is_at_path) = (all, false);
        Some(Mount { point: point.into(), is_at_path, kind, options, read_only })
    })
}

/// Blanks and backslashes are written as octal numbers (proc_pid_mountinfo(5), fstab(5)).
fn unescape(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(text.to_owned(), |text, (code, byte)| text.replace(code, byte))
}

fn is_in_fstab(table: &str, path: &Path) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let device = fields.next().unwrap_or("#");
        let (point, options) =
            (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        let asked_for = !options.split(',').any(|option| option == "noauto");
        !device.starts_with('#') && asked_for && Path::new(&unescape(point)) == path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(blocks: [u64; 3], files: [u64; 2]) -> Numbers {
        let ([blocks, blocks_free, blocks_available], [files, files_free]) = (blocks, files);
        Numbers { unit_bytes: 4096, blocks, blocks_free, blocks_available, files, files_free }
    }

    #[test]
    fn percentages_are_those_of_df() {
        let used = |blocks| usage(&numbers(blocks, [0, 0])).first().map(|(_, value)| *value);
        // 5 % kept for root: full for everybody else at 95 of 100.
        assert_eq!(used([100, 5, 0]), Some(Value::Percent(100_000)));
        assert_eq!(used([100, 55, 50]), Some(Value::Percent(48_000)), "45 / 95 = 47.4");
        assert_eq!(used([100, 100, 95]), Some(Value::Percent(0)));
        assert_eq!(
            used([100_000, 99_999, 99_999]),
            Some(Value::Percent(1000)),
            "never 0 % of some"
        );
        assert_eq!(used([100, 0, 0]), Some(Value::Percent(100_000)));
        assert_eq!(used([0, 0, 0]), None, "proc");
        // Damaged numbers: more free than there is.
        assert_eq!(used([10, 20, 20]), Some(Value::Percent(0)));
    }

    #[test]
    fn huge_file_systems_do_not_overflow_and_btrfs_has_no_inodes() {
        let big = u64::MAX / 4096;
        let seen = usage(&numbers([big, big / 2, big / 2], [0, 0]));
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].1, Value::Percent(51_000));
        let most = usage(&numbers([u64::MAX, u64::MAX, u64::MAX], [u64::MAX, 1]));
        assert_eq!(most[1], (Metric::Free, Value::Bytes(u64::MAX)));
        assert_eq!(most[2], (Metric::InodesUsed, Value::Percent(100_000)));
        assert_eq!(most[3], (Metric::InodesFree, Value::Count(1)));
    }

    const TABLE: &str = "\
22 28 0:21 / /proc rw,nosuid - proc proc rw
36 35 98:0 /mnt1 /mnt\\040two\\134 rw,noatime shared:1 - ext3 /dev/root ro,errors=continue
37 35 98:1 / /x rw,noexec - ext4 /dev/a\\040b rw,discard
odd line
38 35";

    #[test]
    fn mounts_are_found_by_their_number() {
        let mount = parse_mount(TABLE, "36").expect("is there");
        assert_eq!((mount.point.to_str(), mount.kind.as_str()), (Some("/mnt two\\"), "ext3"));
        assert_eq!(mount.options, ["ro", "noatime", "errors=continue"]);
        assert!(
            mount.has("ro") && !mount.has("rw") && mount.has("noatime") && !mount.has("noexec")
        );
        let mount = parse_mount(TABLE, "37").expect("is there");
        assert!(mount.has("rw") && !mount.has("ro") && mount.has("noexec") && mount.has("discard"));
        assert_eq!(parse_mount(TABLE, "38"), None);
        assert_eq!(parse_mount(TABLE, "3"), None);
        assert_eq!(mount_id("pos:\t0\nflags:\t012\nmnt_id:\t37\n").as_deref(), Some("37"));
    }

    #[test]
    fn fstab_says_what_is_to_be_mounted() {
        let table = "# /dev/x /comment ext4\nUUID=1 /data ext4 rw 0 2\n/dev/y /my\\040data ext4\n\
                     /dev/z /sometimes ext4 noauto,user\nswap none swap\n\nhalf\n";
        for (path, wanted) in [
            ("/data", true),
            ("/data/", true),
            ("/my data", true),
            ("/data/x", false),
            ("/comment", false),
            ("/sometimes", false),
        ] {
            assert_eq!(is_in_fstab(table, Path::new(path)), wanted, "{path}");
        }
    }
}
