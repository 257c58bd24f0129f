//! What dead main processes left behind, for many of them in one pass over /proc.
//!
//! A process proves to be a descendant by its session or process group: both are inherited by fork
//! and can be joined from outside in no other way (setsid(2), setpgid(2)), and the kernel gives a
//! number to no new process while a session or group is named by it. So whoever is in the session
//! (or group) with the dead leader's number came from it - unless a *new* process has that number.
//! A descendant that called setsid itself is found by a control group, where the service has one.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;

use nix::unistd::{self, getpgid, getsid};

use crate::model::limits;
use crate::model::process::{Holding, Ours, Pid, ProcessIdentity, Survivor, Uid};
use crate::model::unit::Manager;
use crate::sys::accept::{Facts, Kind, Rule};
use crate::sys::identity::{Gathered, Held, Proved, gather};
use crate::sys::{cgroup, pidfd, procfs};

/// A dead main process whose descendants are looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadMain {
    /// Which process it was.
    pub identity: ProcessIdentity,
    /// The service's user.
    pub user: Uid,
    /// Leaders of sessions that heeler itself made for this service (its start command's), where the
    /// main process was in one without having made it.
    pub sessions: Vec<ProcessIdentity>,
    /// The session it was in, whoever made it; 0 when not known.
    pub session: i32,
    /// The inodes of its sockets ([`sockets`]).
    pub sockets: Vec<u64>,
    /// The control group of its unit.
    pub cgroup: Option<UnitGroup>,
    /// The control group that heeler starts it in. Others may live there for good that its start brought up,
    /// so it says whose a process is only of one that holds the dead one's own socket.
    pub own_group: Option<Box<str>>,
}

/// The control group of a unit: whoever is in it is the unit's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitGroup {
    /// As in /proc/PID/cgroup.
    pub path: Box<str>,
    /// Whose unit: in the groups of a user's manager only that user's processes are the service's.
    pub manager: Manager,
    /// When the main process was known to be dead, in milliseconds since boot. What began shortly before
    /// that, or later, may be its successor in the same group.
    pub noticed_boot_ms: u64,
}

impl UnitGroup {
    fn holds(&self, facts: &Facts) -> bool {
        let old = u64::try_from(limits::CGROUP_SURVIVOR_AGE_MIN.as_millis()).unwrap_or(u64::MAX);
        facts.cgroup.as_deref().is_some_and(|cgroup| within(cgroup, &self.path))
            && facts.started_boot_ms.saturating_add(old) <= self.noticed_boot_ms
    }
}

/// Whether a group is this one, or below it.
fn within(cgroup: &str, group: &str) -> bool {
    cgroup.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The inodes of the sockets of a living main process. They mean nothing without it: a number may be
/// given again once nobody has the socket.
#[must_use]
pub fn sockets(main: &Proved) -> Vec<u64> {
    let sockets = sockets_of(main.identity().pid, limits::MAIN_FDS_MAX).unwrap_or_default();
    sockets.into_iter().map(|(_, inode)| inode).collect()
}

/// One process that outlived a dead main process.
#[derive(Debug)]
pub struct Left {
    /// The place of the dead one in the question.
    pub dead: usize,
    /// What is known of the process.
    pub survivor: Survivor,
    /// The process, held.
    pub hold: Hold,
}

/// A survivor, with or without the right to signal it.
#[derive(Debug)]
pub enum Hold {
    /// Of the service's user.
    Proved(Proved),
    /// Of another: to be waited for only.
    Foreign(Held),
}

impl Hold {
    /// What can be watched.
    #[must_use]
    pub fn held(&self) -> &Held {
        match self {
            Self::Proved(proved) => proved.held(),
            Self::Foreign(held) => held,
        }
    }
}

/// Looks through all processes once. Two system calls for each; /proc is read only for those found.
/// `mains` are the main processes of all services: one script may have started several of them in one
/// session, and what lives under another service's main is that service's, not left behind.
/// Not on the loop: it takes as long as there are processes.
///
/// # Errors
/// When /proc cannot be listed, or a process that may be one of them cannot be held or examined (no
/// descriptor is free, /proc hides it): then it is not known whether anybody is left.
pub fn survey(dead: &[DeadMain], mains: &HashSet<ProcessIdentity>) -> io::Result<Vec<Left>> {
    let wanted = wanted(dead)?;
    let mut tables = SocketTables::default();
    let mut left = Vec::new();
    let members = members(dead)?;
    let near = own_members(dead)?;
    if wanted.is_empty() && members.is_empty() && dead.iter().all(|main| main.sockets.is_empty()) {
        return Ok(left);
    }
    let ours = [procfs::heeler(), procfs::heelers_parent()];
    for pid in procfs::pids()?.into_iter().filter(|pid| !ours.contains(pid)) {
        let descent = || match descends(pid, &wanted) {
            Some(index) => Ok(Some(index)),
            None => match members.get(&pid) {
                Some(index) => Ok(Some(*index)),
                None => heir(pid, dead, &near),
            },
        };
        let Some(index) = descent()? else { continue };
        // Each costs a descriptor: whoever leaves thousands must not take those of other services.
        if left.iter().filter(|other: &&Left| other.dead == index).count() >= limits::SURVIVORS_MAX
        {
            continue;
        }
        let (held, facts) = match gather(pid) {
            Gathered::Process(held, facts) => (held, facts),
            Gathered::Unclear(reason) => return Err(io::Error::other(reason)),
            Gathered::Gone | Gathered::Zombie { .. } | Gathered::Thread(_) => continue,
        };
        // Once more, now that it is held.
        if descent()? != Some(index) || facts.kind == Kind::Kernel || !held.is_alive() {
            continue;
        }
        if serves_another(held.identity(), mains) {
            continue;
        }
        let by_session = descends(pid, &wanted).is_some();
        let by_group = dead[index].cgroup.as_ref().filter(|group| group.holds(&facts));
        if !by_session && members.contains_key(&pid) && by_group.is_none() {
            continue;
        }
        let user = dead[index].user;
        let started = near[index].contains(&pid) && in_group(&dead[index], &facts);
        if near[index].contains(&pid) && !started && !by_session && by_group.is_none() {
            // It went elsewhere, or the number is another's by now.
            continue;
        }
        let units_own = by_group.is_some_and(|group| group.manager == Manager::System)
            || (started && user == Uid(0));
        let ours = if units_own || (facts.uid_real == user && facts.uid_effective == user) {
            Ours::Proved
        } else {
            Ours::Foreign
        };
        let by_number = by_session || by_group.is_some();
        let inherited = |inode| by_number || dead[index].sockets.contains(&inode);
        let holds = match tables.listens(&held, inherited)? {
            true => Holding::ListeningSocket,
            // What it shares with the dead one is no more than, say, the output of a deploy over ssh.
            false if !by_number => continue,
            false => Holding::Nothing,
        };
        // Not its command line: a process can have root wait for ever for that one (FUSE, userfaultfd).
        let title = procfs::name(pid);
        let survivor = Survivor { identity: held.identity(), title, holds, ours };
        let hold = match ours {
            Ours::Proved => Hold::Proved(Proved::new(held, Rule::Descendant)),
            Ours::Foreign => Hold::Foreign(held),
        };
        left.push(Left { dead: index, survivor, hold });
    }
    Ok(left)
}

/// Who is in the control groups of the dead, as they are now.
fn members(dead: &[DeadMain]) -> io::Result<HashMap<Pid, usize>> {
    let mut members = HashMap::new();
    for (index, main) in dead.iter().enumerate() {
        if let Some(group) = &main.cgroup {
            let pids = cgroup::processes(&group.path)?;
            members.extend(pids.into_iter().map(|pid| (pid, index)));
        }
    }
    Ok(members)
}

/// Who is in the groups that heeler starts the dead ones in.
fn own_members(dead: &[DeadMain]) -> io::Result<Vec<HashSet<Pid>>> {
    let members = |main: &DeadMain| match &main.own_group {
        Some(group) => Ok(cgroup::processes(group)?.into_iter().collect()),
        None => Ok(HashSet::new()),
    };
    dead.iter().map(members).collect()
}

fn in_group(dead: &DeadMain, facts: &Facts) -> bool {
    let group = dead.own_group.as_deref().zip(facts.cgroup.as_deref());
    group.is_some_and(|(own, of)| within(of, own))
}

/// The numbers that name sessions and groups of the dead, each with the place of its dead.
struct Wanted {
    sessions: HashMap<i32, usize>,
    groups: HashMap<i32, usize>,
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.groups.is_empty()
    }
}

fn wanted(dead: &[DeadMain]) -> io::Result<Wanted> {
    let mut wanted = Wanted { sessions: HashMap::new(), groups: HashMap::new() };
    for (index, main) in dead.iter().enumerate() {
        let pid = main.identity.pid;
        // Process 1's session is not a service's; numbers below mean "my own" to the kernel.
        if pid.0 > 1 && owner_of(main.identity)? == Number::Free {
            wanted.sessions.insert(pid.0, index);
            wanted.groups.insert(pid.0, index);
        }
        for leader in &main.sessions {
            if leader.pid.0 > 1 && owner_of(*leader)? != Number::Reused {
                wanted.sessions.insert(leader.pid.0, index);
            }
        }
    }
    Ok(wanted)
}

/// What became of a process's number.
#[derive(PartialEq, Eq)]
enum Number {
    /// Nobody living has it.
    Free,
    /// It is still that process's.
    Same,
    /// A new process has it: sessions and groups of that number are the new one's.
    Reused,
}

fn owner_of(identity: ProcessIdentity) -> io::Result<Number> {
    Ok(match gather(identity.pid) {
        Gathered::Process(held, _) if held.identity() == identity => Number::Same,
        // A zombie still has its number, so a new process cannot.
        Gathered::Gone | Gathered::Zombie { .. } => Number::Free,
        Gathered::Process(..) | Gathered::Thread(_) => Number::Reused,
        Gathered::Unclear(reason) => return Err(io::Error::other(reason)),
    })
}

/// Whose descendant a process is.
fn descends(pid: Pid, wanted: &Wanted) -> Option<usize> {
    let number = unistd::Pid::from_raw(pid.0);
    let session = getsid(Some(number)).ok()?;
    if let Some(index) = wanted.sessions.get(&session.as_raw()) {
        return Some(*index);
    }
    wanted.groups.get(&getpgid(Some(number)).ok()?.as_raw()).copied()
}

/// Whether a process is a main process, or lives under one.
fn serves_another(process: ProcessIdentity, mains: &HashSet<ProcessIdentity>) -> bool {
    let mut above = process;
    for _ in 0..limits::ANCESTORS_MAX {
        if mains.contains(&above) {
            return true;
        }
        let Ok(parent) = procfs::stat(above.pid).map(|stat| stat.parent) else { return false };
        if parent.0 <= 1 {
            return false;
        }
        let Ok(stat) = procfs::stat(parent) else { return false };
        above = ProcessIdentity { pid: parent, started_ticks: stat.started_ticks };
    }
    false
}

/// The inodes of listening sockets by network namespace, each read once per survey.
#[derive(Default)]
struct SocketTables(HashMap<std::path::PathBuf, HashSet<u64>>);

impl SocketTables {
    /// Whether a process has a descriptor of a listening socket (TCP or Unix) of its namespace, among
    /// these.
    fn listens(&mut self, held: &Held, among: impl Fn(u64) -> bool) -> io::Result<bool> {
        let pid = held.identity().pid;
        let mut sockets = sockets_of(pid, limits::SURVIVOR_FDS_MAX)?;
        sockets.retain(|(_, inode)| among(*inode));
        if sockets.is_empty() {
            return Ok(false);
        }
        let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/net")) else { return Ok(false) };
        let listening = self.0.entry(namespace).or_insert_with(|| listening_near(pid));
        Ok(sockets.iter().any(|(fd, inode)| {
            // Not on the table's word alone: a Unix socket's name may hold a line break, so anybody
            // can write a line into net/unix that says that another one's socket listens.
            listening.contains(inode) && pidfd::accepts_connections(held, *fd).unwrap_or(true)
        }))
    }
}

/// Whose socket a younger process of the same user and session has inherited, or of the control group that
/// heeler started the dead one in. One that is older (or as old, in clock ticks) may have given the main
/// process that socket; one in a session of its own that heeler did not start may be a successor that got it
/// from the same giver (socket activation). What root started may have become any user's.
fn heir(pid: Pid, dead: &[DeadMain], groups: &[HashSet<Pid>]) -> io::Result<Option<usize>> {
    let Ok(session) = getsid(Some(unistd::Pid::from_raw(pid.0))) else { return Ok(None) };
    let grouped = |at: usize| groups[at].contains(&pid);
    let near = |(at, main): &(usize, &DeadMain)| {
        (main.session == session.as_raw() || grouped(*at)) && !main.sockets.is_empty()
    };
    if !dead.iter().enumerate().any(|main| near(&main)) {
        return Ok(None);
    }
    let Ok(owner) = fs::metadata(format!("/proc/{pid}")).map(|facts| facts.uid()) else {
        return Ok(None);
    };
    let began = match procfs::stat(pid) {
        Ok(stat) => stat.started_ticks,
        Err(error) if procfs::is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let may_be = |(at, main): (usize, &DeadMain)| {
        let own = main.user.0 == owner || (main.user == Uid(0) && grouped(at));
        near(&(at, main)) && own && began > main.identity.started_ticks
    };
    if !dead.iter().enumerate().any(may_be) {
        return Ok(None);
    }
    let sockets = sockets_of(pid, limits::SURVIVOR_FDS_MAX)?;
    let has = |main: &DeadMain| sockets.iter().any(|(_, inode)| main.sockets.contains(inode));
    Ok(dead.iter().enumerate().position(|(at, main)| may_be((at, main)) && has(main)))
}

/// The sockets of a process: descriptor and inode. One that is gone, or that nobody may look into, has
/// none.
fn sockets_of(pid: Pid, fds_max: usize) -> io::Result<Vec<(i32, u64)>> {
    let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries,
        Err(error)
            if procfs::is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    Ok(entries
        .take(fds_max)
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let target = fs::read_link(&path).ok()?;
            let inode =
                target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
            Some((path.file_name()?.to_str()?.parse().ok()?, inode))
        })
        .collect())
}

/// Every listening socket in the network namespace of a process (proc_pid_net(5)).
fn listening_near(pid: Pid) -> HashSet<u64> {
    let mut inodes = HashSet::new();
    for (table, parse) in [
        ("tcp", tcp_listener as fn(&str) -> Option<u64>),
        ("tcp6", tcp_listener),
        ("unix", unix_listener),
    ] {
        let Ok(file) = File::open(format!("/proc/{pid}/net/{table}")) else { continue };
        let lines = BufReader::new(file.take(limits::SOCKET_TABLE_BYTES_MAX)).split(b'\n');
        let lines = lines.map_while(Result::ok);
        inodes.extend(lines.filter_map(|line| parse(&String::from_utf8_lossy(&line))));
    }
    inodes
}

/// The inode of a line of net/tcp whose state is LISTEN.
fn tcp_listener(line: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    (words.nth(3)? == "0A").then(|| words.nth(5))??.parse().ok()
}

/// The inode of a line of net/unix whose socket accepts connections (flag 0x10000).
fn unix_listener(line: &str) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
    (flags & 0x1_0000 != 0).then(|| words.nth(2))??.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_listening_sockets_give_an_inode() {
        let tcp = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
            1000        0 12345 1 0000000000000000 100 0 0 10 0";
        assert_eq!(tcp_listener(tcp), Some(12345));
        assert_eq!(tcp_listener(&tcp.replace(" 0A ", " 01 ")), None);
        let unix = "0000000000000000: 00000002 00000000 00010000 0001 01 777 /run/a b";
        assert_eq!(unix_listener(unix), Some(777));
        assert_eq!(unix_listener(&unix.replace("00010000", "00000000")), None);
        for odd in
            ["", "sl local", "Num RefCount Protocol Flags Type St Inode Path", "0A", "\u{fffd}"]
        {
            assert_eq!(tcp_listener(odd).or_else(|| unix_listener(odd)), None);
        }
    }

    #[test]
    fn what_cannot_be_examined_is_not_nobody() {
        // In a process of its own: the limit of descriptors holds for all threads.
        if std::env::var_os("HEELER_TEST_NO_DESCRIPTORS").is_none() {
            let exe = std::env::current_exe().expect("this test");
            let name = "sys::survey::tests::what_cannot_be_examined_is_not_nobody";
            let status = std::process::Command::new(exe)
                .args(["--exact", name, "--nocapture"])
                .env("HEELER_TEST_NO_DESCRIPTORS", "1")
                .status();
            assert!(status.expect("runs").success());
            return;
        }
        // Nobody has the dead one's number; whoever is in this session was the start command's. A session
        // made here: the one we were given may have no number in this namespace, and us alone in it.
        let session = unistd::setsid().expect("leads no group").as_raw();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let leader = ProcessIdentity {
            pid: Pid(session),
            started_ticks: procfs::stat(Pid(session)).expect("ours").started_ticks,
        };
        let dead = DeadMain {
            identity: ProcessIdentity { pid: Pid(i32::MAX - 1), started_ticks: 1 },
            user: Uid(0),
            sessions: vec![leader],
            session: 0,
            sockets: Vec::new(),
            cgroup: None,
            own_group: None,
        };
        let (soft, hard) = nix::sys::resource::getrlimit(LIMIT).expect("getrlimit");
        nix::sys::resource::setrlimit(LIMIT, 64, hard).expect("setrlimit");
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        // Enough to list /proc, not to hold a process and read its files.
        taken.pop();
        let left = survey(&[dead], &HashSet::new());
        nix::sys::resource::setrlimit(LIMIT, soft, hard).expect("setrlimit");
        other.kill().and_then(|()| other.wait()).expect("ended");
        assert!(left.is_err(), "{left:?}");
    }

    const LIMIT: nix::sys::resource::Resource = nix::sys::resource::Resource::RLIMIT_NOFILE;

    #[test]
    fn nobody_makes_anothers_socket_listen_by_a_line_break_in_a_name() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
        let Gathered::Process(us, _) = gather(Pid(std::process::id().cast_signed())) else {
            panic!("we are there");
        };
        let (talks, _other) = UnixStream::pair().expect("a pair");
        let inode = nix::sys::stat::fstat(&talks).expect("fstat").st_ino;
        let line = format!("heeler\n0000000000000000: 00000002 00000000 00010000 0001 01 {inode}");
        let forged = SocketAddr::from_abstract_name(&line).expect("a name");
        let listener = UnixListener::bind_addr(&forged).expect("bound");
        assert!(
            listening_near(us.identity().pid).contains(&inode),
            "the kernel writes names as they are"
        );
        let accepts =
            |socket: &dyn std::os::fd::AsRawFd| pidfd::accepts_connections(&us, socket.as_raw_fd());
        assert_eq!(accepts(&talks), Some(false));
        assert_eq!(accepts(&listener), Some(true));
    }
}
