//! Numbers of a process, against what the process was made to do.

use heeler::model::sample::Needs;
use heeler::sys::sampler::{Tree, quick, slow};

use crate::lab::{self, Others, Process, SOON, WWW};
use crate::support::{Need, can_run, wait_for};

const ALL: Needs = Needs {
    pss_above_bytes: Some(0),
    rss: true,
    private: true,
    stat: true,
    fds: true,
    io: true,
    children: true,
    tree_cpu: true,
    tree_pss: true,
};
const MIB: u64 = 1 << 20;

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
