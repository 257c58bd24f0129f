//! What a dead main process left behind.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::process::Command;

use heeler::model::process::{Holding, Ours, Pid, Signal, Uid};
use heeler::sys::procfs;
use heeler::sys::signal::send;
use heeler::sys::survey::{self, DeadMain, Hold, survey};

use crate::lab::{self, Others, Process, SOON, WWW};
use crate::support::{Need, can_run, wait_for};

/// A leader with a family; it says `role pid` of each.
const FAMILY: &str = r#"
    use Socket;
    sub tell_as { print "$_[0] $$\n"; sleep 1000; exit }
    sub tcp { socket my $s, PF_INET, SOCK_STREAM, 0 or die; bind $s, sockaddr_in(0, INADDR_LOOPBACK) or die;
        if ($_[0]) { listen $s, 5 or die } $s }
    sub local_socket { socket my $s, PF_UNIX, SOCK_STREAM, 0 or die;
        bind $s, pack_sockaddr_un("\0heeler-test-$$") or die; listen $s, 5 or die; $s }
    unless (fork) { tell_as("plain") }
    unless (fork) { my $s = tcp(1); tell_as("tcp") }
    unless (fork) { my $s = tcp(0); tell_as("bound") }
    unless (fork) { my $s = local_socket(); tell_as("unix") }
    unless (fork) { unless (fork) { tell_as("double") } exit }
    unless (fork) { POSIX::setuid(65534); tell_as("foreign") }
    unless (fork) { setpgrp(0, 0); tell_as("group") }
    unless (fork) { POSIX::setsid(); tell_as("escaped") }
    print "leader $$\n"; wait; sleep 1000 while 1;
"#;

/// Starts the family below a leader made in this way, and gives the leader and the others by role.
fn family(how: &str) -> (Process, BTreeMap<String, Pid>, Others) {
    let program = format!("use POSIX; {how} {FAMILY}");
    let (leader, mut lines) = Process::perl(&program, 0);
    let mut roles = BTreeMap::new();
    while roles.len() < 9 {
        let line = lines.next().expect("a line").expect("readable");
        let (role, pid) = line.split_once(' ').expect("role and pid");
        roles.insert(role.to_owned(), Pid(pid.parse().expect("a number")));
    }
    assert_eq!(roles.remove("leader"), Some(leader.pid()));
    let others = Others(roles.values().map(|pid| lab::hold(*pid)).collect());
    (leader, roles, others)
}

/// Who was found, by role.
fn found(dead: &DeadMain, roles: &BTreeMap<String, Pid>) -> BTreeMap<String, (Holding, Ours)> {
    let left = survey(std::slice::from_ref(dead), &HashSet::new()).expect("surveyed");
    let name = |pid| roles.iter().find(|(_, of)| **of == pid).map(|(role, _)| role.clone());
    left.iter()
        .map(|left| {
            assert_eq!(left.dead, 0);
            assert!(left.survivor.title.raw().contains("perl"), "{}", left.survivor.title);
            let proved = matches!(left.hold, Hold::Proved(_));
            assert_eq!(proved, left.survivor.ours == Ours::Proved);
            assert_eq!(left.hold.held().identity(), left.survivor.identity);
            let role = name(left.survivor.identity.pid).expect("nobody else's process");
            (role, (left.survivor.holds, left.survivor.ours))
        })
        .collect()
}

fn can() -> bool {
    can_run(&[Need::Root, Need::Program("/usr/bin/perl", "perl-base")])
}

#[test]
fn exactly_the_session_of_a_dead_leader_is_left_of_it() {
    if !can() {
        return;
    }
    let (mut leader, roles, _others) = family("POSIX::setsid();");
    let _bystander = Process::idle(0);
    let dead = DeadMain {
        cgroup: None,
        own_group: None,
        identity: leader.identity(),
        user: Uid(0),
        sessions: vec![],
        session: 0,
        sockets: Vec::new(),
    };
    assert!(found(&dead, &roles).is_empty(), "while it lives nothing is left of it");
    leader.end();
    let expected = [
        ("plain", Holding::Nothing, Ours::Proved),
        ("tcp", Holding::ListeningSocket, Ours::Proved),
        ("bound", Holding::Nothing, Ours::Proved),
        ("unix", Holding::ListeningSocket, Ours::Proved),
        ("double", Holding::Nothing, Ours::Proved),
        ("foreign", Holding::Nothing, Ours::Foreign),
        ("group", Holding::Nothing, Ours::Proved),
    ];
    let expected: BTreeMap<String, (Holding, Ours)> =
        expected.into_iter().map(|(role, holds, ours)| (role.to_owned(), (holds, ours))).collect();
    assert_eq!(found(&dead, &roles), expected);
    // What is told to go goes, and a zombie is not left.
    for left in survey(std::slice::from_ref(&dead), &HashSet::new()).expect("surveyed") {
        if let Hold::Proved(proved) = &left.hold {
            let _ = send(proved, Signal::Kill);
            wait_for("its death", SOON, || (!proved.is_alive()).then_some(()));
        }
    }
    assert_eq!(found(&dead, &roles).into_keys().collect::<Vec<_>>(), ["foreign"]);
}

#[test]
fn a_zombie_is_not_a_survivor() {
    if !can() {
        return;
    }
    // The zombie's parent is outside the session: it stays a zombie after the leader's death.
    let program = r#"use POSIX; pipe(R, W);
        my $z = fork; unless ($z) { POSIX::setpgid(0, 0); syswrite W, "x"; sleep 1000; exit }
        sysread R, my $x, 1; my $m = fork; unless ($m) { POSIX::setpgid(0, $z); sleep 1000; exit }
        POSIX::setpgid($m, $z); print "$z\n$m\n"; sleep 1000"#;
    let (_parent, mut lines) = Process::perl(program, 0);
    let (leader, member) = (lab::number(&mut lines), lab::number(&mut lines));
    let others = Others(vec![lab::hold(leader), lab::hold(member)]);
    let dead = DeadMain {
        cgroup: None,
        own_group: None,
        identity: lab::identity_of(leader),
        user: Uid(0),
        sessions: vec![],
        session: 0,
        sockets: Vec::new(),
    };
    let _ = send(&others.0[0], Signal::Kill);
    wait_for("its death", SOON, || (!others.0[0].is_alive()).then_some(()));
    assert_eq!(procfs::stat(leader).expect("not waited for").state, 'Z');
    let left = survey(std::slice::from_ref(&dead), &HashSet::new()).expect("surveyed");
    assert_eq!(left.iter().map(|l| l.survivor.identity.pid).collect::<Vec<_>>(), [member]);
    let _ = send(&others.0[1], Signal::Kill);
    wait_for("its death", SOON, || (!others.0[1].is_alive()).then_some(()));
    assert!(survey(&[dead], &HashSet::new()).expect("surveyed").is_empty());
}

#[test]
fn a_group_leader_and_a_session_heeler_made_are_proofs_too() {
    if !can() {
        return;
    }
    let (mut leader, roles, _others) = family("setpgrp(0, 0);");
    let dead = DeadMain {
        cgroup: None,
        own_group: None,
        identity: leader.identity(),
        user: Uid(0),
        sessions: vec![],
        session: 0,
        sockets: Vec::new(),
    };
    leader.end();
    let names: Vec<_> = found(&dead, &roles).into_keys().collect();
    assert_eq!(names, ["bound", "double", "foreign", "plain", "tcp", "unix"]);
    // A main process that leads nothing, in the session its start command made.
    let program = r#"use POSIX; POSIX::setsid();
        my $m = fork; unless ($m) { setpgrp(0, 0); my $c = fork;
            unless ($c) { setpgrp(0, 0); sleep 1000; exit } print "$c\n"; sleep 1000; exit }
        print "$m\n"; sleep 1000"#;
    let (session, mut lines) = Process::perl(program, 0);
    let mut two = [lab::number(&mut lines), lab::number(&mut lines)];
    if procfs::stat(two[0]).expect("its stat").parent != session.pid() {
        two.reverse();
    }
    let [main, child] = two;
    let others = Others(vec![lab::hold(main), lab::hold(child)]);
    let identity = lab::identity_of(main);
    let _ = send(&others.0[0], Signal::Kill);
    wait_for("its death", SOON, || (!others.0[0].is_alive()).then_some(()));
    let alone = DeadMain {
        cgroup: None,
        own_group: None,
        identity,
        user: Uid(0),
        sessions: vec![],
        session: 0,
        sockets: Vec::new(),
    };
    let known = DeadMain {
        cgroup: None,
        own_group: None,
        sessions: vec![session.identity()],
        session: 0,
        sockets: Vec::new(),
        ..alone.clone()
    };
    let left = survey(&[alone, known], &HashSet::new()).expect("surveyed");
    let found: Vec<_> = left.iter().map(|l| (l.dead, l.survivor.identity.pid)).collect();
    assert_eq!(found, [(1, session.pid()), (1, child)]);
}

#[test]
fn two_dead_are_told_apart_in_one_pass() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let family = || {
        let lead = || Command::new("sleep").arg("1000").uid(WWW).process_group(0).spawn();
        let leader = lead().expect("a leader");
        let pid = i32::try_from(leader.id()).expect("a pid");
        let mut member = Command::new("sleep");
        let member = Process::start(member.arg("1000").uid(WWW).process_group(pid));
        (leader, member)
    };
    let (mut families, mut dead) = (vec![family(), family()], vec![]);
    for (leader, _) in &mut families {
        let identity = lab::identity_of(Pid(i32::try_from(leader.id()).expect("a pid")));
        dead.push(DeadMain {
            cgroup: None,
            own_group: None,
            identity,
            user: Uid(WWW),
            sessions: vec![],
            session: 0,
            sockets: Vec::new(),
        });
        leader.kill().and_then(|()| leader.wait().map(drop)).expect("ended");
    }
    let mut found: Vec<_> = survey(&dead, &HashSet::new())
        .expect("surveyed")
        .into_iter()
        .map(|left| (left.dead, left.survivor.identity))
        .collect();
    found.sort();
    assert_eq!(found, [(0, families[0].1.identity()), (1, families[1].1.identity())]);
}

/// A main process in a stranger's session: only its listening socket tells who came from it.
#[test]
fn a_listening_socket_tells_heirs_from_strangers_of_the_same_session() {
    if !can_run(&[Need::Root]) {
        return;
    }
    // The stranger gives a listening socket and a pair of sockets to everybody; the main process has
    // one of its own too. Between two forks more than a clock tick passes.
    let program = r#"use POSIX; use Socket; POSIX::setsid();
        sub later { select undef, undef, undef, 0.03 }
        sub listener { socket my $s, PF_INET, SOCK_STREAM, 0 or die;
            bind $s, sockaddr_in(0, INADDR_LOOPBACK) or die; listen $s, 5 or die; $s }
        socketpair my $one, my $two, AF_UNIX, SOCK_STREAM, 0 or die;
        my $given = listener(); later();
        unless (fork) { my $own = listener(); print "main $$\n"; later();
            unless (fork) { print "heir $$\n"; sleep 1000; exit }
            unless (fork) { POSIX::setsid(); print "successor $$\n"; sleep 1000; exit }
            unless (fork) { close $own; close $given; print "unsocketed $$\n"; sleep 1000; exit }
            sleep 1000; exit }
        later();
        unless (fork) { close $given; print "bystander $$\n"; sleep 1000; exit }
        sleep 1000"#;
    let (stranger, mut lines) = Process::perl(program, 0);
    let mut roles = BTreeMap::new();
    while roles.len() < 5 {
        let line = lines.next().expect("a line").expect("readable");
        let (role, pid) = line.split_once(' ').expect("a role and a number");
        roles.insert(role.to_owned(), Pid(pid.trim().parse().expect("a number")));
    }
    let others = Others(roles.values().map(|pid| lab::hold(*pid)).collect());
    let main = others.0.iter().find(|held| held.identity().pid == roles["main"]).expect("is held");
    let dead = DeadMain {
        cgroup: None,
        own_group: None,
        identity: main.identity(),
        user: Uid(0),
        sessions: vec![],
        session: stranger.pid().0,
        sockets: survey::sockets(main),
    };
    assert_eq!(dead.sockets.len(), 4);
    let _ = send(main, Signal::Kill);
    wait_for("its death", SOON, || (!main.is_alive()).then_some(()));
    let left = survey(&[dead], &HashSet::new()).expect("surveyed");
    let pids: Vec<_> = left.iter().map(|left| left.survivor.identity.pid).collect();
    assert_eq!(pids, [roles["heir"]], "{roles:?}");
    assert_eq!(left[0].survivor.holds, Holding::ListeningSocket);
}
