//! The machine: kernel, clock, limits, state folder, sandbox, and who else watches here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{self, FsType, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};

use crate::config::LoadAs;
use crate::config::settings::Settings;
use crate::model::finding::Finding;
use crate::model::limits;
use crate::model::process::{Pid, Uid};
use crate::model::units::show_size;
use crate::shim::AsUser;
use crate::sys::user::{self, LookupError};
use crate::sys::{clock, pidfd, procfs};
use crate::tools::doctor::errand::Errands;

/// Descriptors a keeper needs beside those of its services.
const OWN_DESCRIPTORS: u64 = 256;
/// A process's pidfd, its two open files of /proc, and a shim's pipe.
const DESCRIPTORS_OF_SERVICE: u64 = 4;
/// Less than this is soon full.
const STATE_BYTES_MIN: u64 = 64 << 20;
/// heeler did not exist before (2026-01-01): a clock that says so is wrong.
const SINCE_MS: u64 = 1_767_225_600_000;
/// Other programs that restart what they watch.
const WATCHDOGS: [&str; 6] = ["monit", "god", "eye", "bluepill", "supervisord", "circusd"];

/// One part, looked at by a child.
type Part<'a> = &'a dyn Fn(&AsUser<'_>) -> Vec<Finding>;

/// Looks at everything that is the same for all services.
pub(super) fn examine(
    settings: &Settings,
    who: &LoadAs,
    services: usize,
    errands: &mut Errands,
) -> Vec<Finding> {
    let mut findings = limits_of(&settings.run_dir, services);
    let parts: [(&str, Part<'_>); 5] = [
        ("kernel", &|_| kernel(who.uid)),
        ("clock", &|_| clock_of(&settings.state_dir)),
        ("state", &|_| state(&settings.state_dir, &settings.run_dir)),
        ("sandbox", &|_| sandbox(settings.scout_user.as_deref(), who.uid)),
        ("others", &|_| others()),
    ];
    for (about, look) in parts {
        match errands.ask(None, look) {
            Ok(found) => findings.extend(found),
            Err(why) => findings.push(Finding::error(about, why, "")),
        }
    }
    findings
}

// ---- limits ------------------------------------------------------------------------------------

fn limits_of(run_dir: &Path, services: usize) -> Vec<Finding> {
    let about = "limits";
    let wanted = OWN_DESCRIPTORS + DESCRIPTORS_OF_SERVICE * services as u64;
    let keeper = keeper_of(run_dir);
    let (whose, files) = match keeper.and_then(open_files_of) {
        Some(files) => ("the running heeler", files),
        None => ("a heeler started from here", own_open_files()),
    };
    let text = format!("{whose} may open {files} files, and {services} service(s) want {wanted}");
    let mut findings = vec![if files < wanted {
        let todo = "raise LimitNOFILE= in heeler's unit, or `ulimit -Hn`";
        Finding::error(about, text, todo)
    } else {
        Finding::ok(about, text)
    }];
    let watches = fs::read_to_string("/proc/sys/fs/epoll/max_user_watches").ok();
    if let Some(watches) = watches.and_then(|text| text.trim().parse::<u64>().ok())
        && watches < wanted
    {
        let text = format!("the kernel watches {watches} descriptors for a user");
        let todo = format!("sysctl fs.epoll.max_user_watches={}", wanted * 4);
        findings.push(Finding::warning(about, text, todo));
    }
    findings
}

fn own_open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard)
}

/// Who holds the keeper's lock, by /proc/locks.
fn keeper_of(run_dir: &Path) -> Option<Pid> {
    let inode = fs::metadata(run_dir.join("keeper.lock")).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let mut lines = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| {
        let of = words.get(5).and_then(|place| place.rsplit(':').next());
        words.get(1) == Some(&"FLOCK") && of.and_then(|of| of.parse().ok()) == Some(inode)
    })?;
    line.get(4)?.parse().ok().map(Pid)
}

fn open_files_of(pid: Pid) -> Option<u64> {
    let bytes = procfs::read(pid, "limits", limits::PROC_FILE_BYTES_MAX).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

// ---- kernel ------------------------------------------------------------------------------------

fn kernel(own: Uid) -> Vec<Finding> {
    let about = "kernel";
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut findings = vec![Finding::ok(about, format!("Linux {}", release.trim()))];
    if !pidfd::is_there() {
        let text =
            "it has no pidfd_open: deaths cannot be seen, and nothing can be signalled safely";
        findings.push(Finding::error(about, text, "heeler needs Linux 5.3 or newer"));
    }
    findings.push(match cgroups() {
        Some(text) => Finding::ok(about, text),
        None => {
            let text = "no control groups are mounted: units (`unit =`) cannot be watched";
            Finding::warning(about, text, "heeler does without; systemd mounts them")
        }
    });
    if !Path::new("/proc/pressure/cpu").exists() {
        let text = "no pressure (PSI): the metrics cpu_pressure, memory_pressure and io_pressure have no value";
        findings.push(Finding::warning(about, text, "boot with psi=1, or do without"));
    }
    if !Path::new("/proc/self/io").exists() {
        let text = "no I/O accounting: read_rate and write_rate have no value";
        findings.push(Finding::warning(
            about,
            text,
            "a kernel with CONFIG_TASK_IO_ACCOUNTING has it",
        ));
    }
    findings.extend(hidden_processes(own));
    findings
}

fn cgroups() -> Option<&'static str> {
    let at = |path: &str| Path::new(path).exists();
    if at("/sys/fs/cgroup/cgroup.controllers") {
        Some("control groups: unified (v2)")
    } else if at("/sys/fs/cgroup/unified/cgroup.controllers") {
        Some("control groups: old ones with a unified beside them (hybrid)")
    } else if at("/sys/fs/cgroup/systemd") {
        Some("control groups: old ones (v1)")
    } else {
        None
    }
}

fn hidden_processes(own: Uid) -> Option<Finding> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    // What was mounted last is what is seen.
    let proc = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some("/proc"))?;
    let hidden = [
        "hidepid=1",
        "hidepid=2",
        "hidepid=4",
        "hidepid=noaccess",
        "hidepid=invisible",
        "hidepid=ptraceable",
        "subset=pid",
    ];
    let option = hidden.into_iter().find(|option| proc.contains(option))?;
    (own != Uid(0) || option == "subset=pid").then(|| {
        let text = format!("/proc is mounted with {option}: other users' processes cannot be seen");
        Finding::error(
            "kernel",
            text,
            "run heeler as root, or mount /proc without it (gid= lets a group see)",
        )
    })
}

// ---- clock -------------------------------------------------------------------------------------

fn clock_of(state_dir: &Path) -> Vec<Finding> {
    let about = "clock";
    let now = clock::now().wall.0;
    let set = "set it (`timedatectl set-ntp true`): certificates and mails depend on it";
    if now < SINCE_MS {
        return vec![Finding::error(about, "it is years behind", set)];
    }
    let journal = fs::metadata(state_dir.join("journal")).ok();
    let written_ms =
        journal.and_then(|facts| u64::try_from(facts.mtime()).ok()).unwrap_or(0) * 1000;
    if written_ms > now + 60_000 {
        return vec![Finding::warning(
            about,
            "heeler's own state was written in the future: it was set back",
            set,
        )];
    }
    vec![match clock::is_synchronized() {
        Some(false) => Finding::warning(about, "nothing keeps it right", set),
        Some(true) => Finding::ok(about, "kept right by NTP"),
        None => Finding::ok(about, "plausible; whether NTP keeps it cannot be told here"),
    }]
}

// ---- state -------------------------------------------------------------------------------------

fn state(state_dir: &Path, run_dir: &Path) -> Vec<Finding> {
    let mut findings = vec![place("state", state_dir)];
    let there = nearest(state_dir);
    let kind = there.and_then(|dir| statfs(dir).ok()).map(|facts| facts.filesystem_type());
    let shown = state_dir.display();
    let network = [statfs::NFS_SUPER_MAGIC, statfs::SMB_SUPER_MAGIC, FUSE, CIFS];
    if kind.is_some_and(|kind| kind == statfs::TMPFS_MAGIC) {
        let text =
            format!("{shown} is in memory: wishes, incidents and alerts do not survive a reboot");
        findings.push(Finding::warning("state", text, "set state_dir in heeler.toml to a disk"));
    } else if kind.is_some_and(|kind| network.contains(&kind)) {
        let text = format!("{shown} is on a network file system, which may hang");
        findings.push(Finding::warning(
            "state",
            text,
            "set state_dir in heeler.toml to a local disk",
        ));
    }
    findings.push(place("run_dir", run_dir));
    findings
}

const FUSE: FsType = FsType(0x6573_5546);
const CIFS: FsType = FsType(0xFF53_4D42_u32 as libc::__fsword_t);

/// Whether heeler can write there, and whether there is room.
fn place(about: &str, dir: &Path) -> Finding {
    let shown = dir.display();
    let Some(there) = nearest(dir) else {
        return Finding::error(about, format!("nothing of {shown} is there"), "");
    };
    if let Err(errno) = access(there, AccessFlags::W_OK | AccessFlags::X_OK) {
        let text = format!("{} cannot be written: {}", there.display(), errno.desc());
        return Finding::error(
            about,
            text,
            format!("it must be heeler's own; or set {about}_dir in heeler.toml"),
        );
    }
    let facts = match statvfs(there) {
        Ok(facts) => facts,
        Err(errno) => return Finding::error(about, format!("{shown}: {}", errno.desc()), ""),
    };
    if facts.flags().contains(FsFlags::ST_RDONLY) {
        return Finding::error(
            about,
            format!("{shown} is on a read-only file system"),
            "mount it writable",
        );
    }
    let free = facts.blocks_available().saturating_mul(facts.fragment_size());
    let inodes = facts.files_available();
    let text = format!("{shown}: {} free", show_size(free));
    if free < STATE_BYTES_MIN {
        return Finding::warning(about, text, "free some space there (df -h)");
    }
    if facts.files() > 0 && inodes < 1000 {
        return Finding::warning(
            about,
            format!("{shown}: {inodes} inodes free"),
            "remove files there (df -i)",
        );
    }
    Finding::ok(about, text)
}

/// The directory itself, or the nearest above it that is there.
fn nearest(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| dir.is_dir())
}

// ---- sandbox -----------------------------------------------------------------------------------

fn sandbox(named: Option<&str>, own: Uid) -> Vec<Finding> {
    let about = "sandbox";
    if own != Uid(0) {
        let text = "without root, what reads from the network is this very user";
        return vec![Finding::warning(about, text, "as root it is a user of its own")];
    }
    let name = named.unwrap_or("heeler");
    vec![match (user::find(Some(name), None), named) {
        (Ok(account), _) if account.uid == Uid(0) => {
            let text = format!("scout_user {name} is root");
            Finding::error(about, text, "name another in heeler.toml: `useradd -r heeler`")
        }
        (Ok(account), _) if account.name == "nobody" => {
            let text = "network checks run as \"nobody\", with whom other daemons may share it";
            Finding::warning(about, text, "`useradd -r heeler` makes a user of its own")
        }
        (Ok(account), _) => Finding::ok(about, format!("network checks run as {}", account.name)),
        (Err(LookupError::NoUser(_)), None) => {
            let text = "there is no user \"heeler\": network checks run as \"nobody\", with whom other \
                        daemons may share it";
            Finding::warning(about, text, "`useradd -r heeler` makes one")
        }
        (Err(why), _) => {
            Finding::error(about, why.to_string(), "network checks and mail need that user")
        }
    }]
}

// ---- others ------------------------------------------------------------------------------------

fn others() -> Vec<Finding> {
    let about = "others";
    let Ok(pids) = procfs::pids() else {
        let text = "the processes of this machine cannot be listed";
        return vec![Finding::error(about, text, "is /proc mounted?")];
    };
    let named = pids.into_iter().filter_map(|pid| {
        let name = procfs::read(pid, "comm", limits::PROC_FILE_BYTES_MAX).ok()?;
        let known =
            WATCHDOGS.into_iter().find(|known| known.as_bytes() == name.trim_ascii_end())?;
        Some((known, pid))
    });
    let mut found: Vec<_> = named.collect();
    found.dedup_by_key(|(name, _)| *name);
    let warn = |(name, pid): (&str, Pid)| {
        let text = format!("{name} runs here, too (pid {pid})");
        let todo =
            format!("take out of {name} what heeler watches: two watchdogs start two copies");
        Finding::warning(about, text, todo)
    };
    let warnings: Vec<_> = found.into_iter().map(warn).collect();
    if warnings.is_empty() {
        return vec![Finding::ok(about, "no other watchdog runs here")];
    }
    warnings
}
