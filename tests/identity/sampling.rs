//! Numbers of a process, against what the process was made to do.

use heeler::model::sample::Needs;
use heeler::sys::sampler::{Tree, quick, slow};

use crate::lab::{self, Others, Process, SOON, WWW};
use crate::support::{Need, can_run, wait_for};

const ALL: Needs = Needs {
    pss_above_bytes: Some(0),
    rss: true,
    private: true,
    cpu: true,
    stat: true,
    fds: true,
    io: true,
    children: true,
    tree_cpu: true,
    tree_pss: true,
};
const MIB: u64 = 1 << 20;

/// ENV-09: of a tree, too.
#[test]
fn a_sample_says_what_the_process_did() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/perl", "perl-base")]) {
        return;
    }
    // 64 MiB, ten more descriptors, a child with 32 MiB that computes for 300 ms.
    let program = r#"my $n = 32 << 20; my $x = "x" x (2 * $n); my @f; open $f[$_], "<", "/dev/null" for 0..9;
        my $c = fork; unless ($c) { my $y = "y" x $n; 1 while times < 0.3; print "$$\n"; sleep 1000 }
        sleep 1000"#;
    let (process, mut lines) = Process::perl(program, WWW);
    let child = lab::number(&mut lines);
    let _others = Others(vec![lab::hold(child)]);
    let proved = lab::hold(process.pid());
    let tree = Tree::scan().expect("a tree");
    assert_eq!(tree.descendants(process.identity()), Some(vec![lab::identity_of(child)]));
    let sample = quick(proved.held(), ALL, Some(&tree)).expect("sampled");
    assert_eq!(sample.pss_bytes, None, "not by the quick part");
    let sample = slow(proved.held(), ALL, Some(&tree), sample).expect("sampled");
    let rss = sample.rss_bytes.expect("rss");
    assert!((64 * MIB..160 * MIB).contains(&rss), "{rss}");
    let (pss, uss) = (sample.pss_bytes.expect("pss"), sample.private_bytes.expect("uss"));
    assert!(uss <= pss && pss <= rss + MIB, "{uss} {pss} {rss}");
    let tree_pss = sample.tree_pss_bytes.expect("tree pss");
    assert!(tree_pss > pss + 30 * MIB && tree_pss < pss + 160 * MIB, "{tree_pss} {pss}");
    assert!(sample.fds.is_some_and(|fds| (13..30).contains(&fds)), "{:?}", sample.fds);
    assert_eq!((sample.children, sample.threads), (Some(1), Some(1)));
    assert!(sample.state.is_some() && sample.read_bytes.is_some() && sample.age_ms < 60_000);
    let tree_cpu = sample.tree_cpu_ms.expect("tree cpu");
    assert!(tree_cpu >= sample.cpu_ms.expect("cpu") + 200, "{sample:?}");
}

#[test]
fn only_what_is_needed_is_read() {
    let process = Process::idle(nix::unistd::geteuid().as_raw());
    let proved = lab::hold(process.pid());
    let sample = quick(proved.held(), Needs::default(), None).expect("sampled");
    let sample = slow(proved.held(), Needs::default(), None, sample).expect("sampled");
    assert_eq!((sample.cpu_ms, sample.rss_bytes, sample.fds), (None, None, None));
    assert_eq!((sample.pss_bytes, sample.read_bytes), (None, None));
    // Resident size below the limit: PSS is below it as well and is not read.
    let needs = Needs { pss_above_bytes: Some(1 << 40), ..Needs::default() };
    let sample = quick(proved.held(), needs, None).expect("sampled");
    assert!(sample.rss_bytes.is_some());
    assert_eq!(slow(proved.held(), needs, None, sample).expect("sampled").pss_bytes, None);
}

/// ENV-09.
#[test]
fn what_is_not_known_is_absent_and_the_dead_have_no_sample() {
    let mut process = Process::idle(nix::unistd::geteuid().as_raw());
    let proved = lab::hold(process.pid());
    let tree = Tree::default();
    let sample = quick(proved.held(), ALL, Some(&tree)).expect("sampled");
    assert_eq!((sample.children, sample.tree_cpu_ms), (None, None), "not zero");
    let kept = sample.clone();
    let sample = slow(proved.held(), ALL, Some(&tree), sample).expect("sampled");
    assert_eq!(sample.tree_pss_bytes, None, "not zero");
    let full = Tree::scan().expect("a tree");
    process.end();
    assert!(quick(proved.held(), ALL, Some(&full)).is_err());
    assert!(slow(proved.held(), ALL, Some(&full), kept).is_err());
    let gone = wait_for("a tree without it", SOON, || Tree::scan().ok());
    assert_eq!(gone.descendants(proved.identity()), None);
}

#[test]
fn cpu_time_goes_by_the_clock_where_nothing_else_is_asked_and_the_dead_have_none() {
    if !can_run(&[Need::Program("/usr/bin/perl", "perl-base")]) {
        return;
    }
    let program = r#"1 while times < 0.3; print "$$\n"; sleep 1000"#;
    let (mut process, mut lines) = Process::perl(program, nix::unistd::geteuid().as_raw());
    let pid = lab::number(&mut lines);
    let proved = lab::hold(process.pid());
    let cpu = Needs { cpu: true, ..Needs::default() };
    let rss = Needs { rss: true, ..Needs::default() };
    let stat = Needs { stat: true, ..Needs::default() };
    let look = |needs| quick(proved.held(), needs, None);
    let (clock, file) =
        (look(cpu.and(rss)).expect("sampled"), look(stat.and(rss)).expect("sampled"));
    assert_eq!((clock.state, clock.threads), (None, None), "nobody asked");
    let [by_clock, by_file] = [&clock, &file].map(|sample| sample.cpu_ms.expect("cpu"));
    // It sleeps now; a tick is 10 ms, and user and system time are cut to it each.
    assert!(
        (300..5000).contains(&by_clock) && by_clock.abs_diff(by_file) <= 20,
        "{clock:?} {file:?}"
    );
    let [by_statm, by_stat] = [&clock, &file].map(|sample| sample.rss_bytes.expect("rss"));
    assert!(by_statm > MIB && by_statm.abs_diff(by_stat) < MIB, "{clock:?} {file:?}");
    let dead = |how: &str| {
        for needs in [cpu, rss, stat, cpu.and(rss), cpu.and(stat)] {
            assert!(look(needs).is_err(), "{how}: {needs:?}");
        }
    };
    let pid = nix::unistd::Pid::from_raw(pid.0);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("is killed");
    wait_for("its end", SOON, || (!proved.is_alive()).then_some(()));
    dead("nobody has waited for it");
    process.end();
    dead("its number is free");
}
