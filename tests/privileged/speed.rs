//! How long from asking for a shim to the command's first instruction.

use std::time::{Duration, Instant};

use crate::support::{Need, can_run};
use crate::world::{World, job};

/// Prints the numbers (`--nocapture`); fails only on what no busy machine explains.
#[test]
fn a_command_begins_within_milliseconds() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let (mut spawned, mut executed) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let began = Instant::now();
        let running = world.spawn(&job("deploy", &["true"]));
        spawned.push(began.elapsed());
        let mut fds = [nix::poll::PollFd::new(
            std::os::fd::AsFd::as_fd(&running.shim.status),
            nix::poll::PollFlags::POLLIN,
        )];
        nix::poll::poll(&mut fds, 10_000_u16).expect("poll");
        executed.push(began.elapsed());
        assert!(running.outcome().ended.succeeded());
        running.wait_for_exit();
    }
    for (what, mut spans) in [("spawn_shim returns", spawned), ("command executed", executed)] {
        spans.sort();
        eprintln!("{what}: median {:?}, p95 {:?}, max {:?}", spans[100], spans[190], spans[199]);
        assert!(spans[100] < Duration::from_millis(100), "{what}: {:?}", spans[100]);
    }
}
