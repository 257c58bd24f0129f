//! Exits as events.

use std::os::fd::AsFd;

use heeler::model::limits;
use heeler::sys::watch::Watch;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::lab::{self, Process};

fn me() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Waits until the watch has something to say.
fn ready(watch: &Watch, timeout: PollTimeout) -> bool {
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, timeout).expect("polled") == 1
}

#[test]
fn an_exit_is_told_until_it_is_taken_away() {
    let (watch, mut tokens) = (Watch::new().expect("a watch"), Vec::new());
    let mut processes: Vec<_> = (0..3).map(|_| Process::idle(me())).collect();
    let held: Vec<_> = processes.iter().map(|process| lab::hold(process.pid())).collect();
    for (token, held) in held.iter().enumerate() {
        watch.add(held, token as u64 + (1 << 40)).expect("watched");
    }
    assert!(!ready(&watch, PollTimeout::ZERO));
    assert_eq!(watch.drain(&mut tokens).expect("drained"), 0);
    processes[1].end();
    assert!(ready(&watch, PollTimeout::from(5000u16)));
    for _ in 0..2 {
        tokens.clear();
        assert_eq!(watch.drain(&mut tokens).expect("drained"), 1);
        assert_eq!(tokens, [(1 << 40) + 1]);
    }
    watch.remove(&held[1]).expect("removed");
    assert!(watch.remove(&held[1]).is_err(), "it was not watched");
    assert!(!ready(&watch, PollTimeout::ZERO));
    // One that ended before it was watched is told at once.
    processes[2].end();
    watch.remove(&held[2]).expect("removed");
    watch.add(&held[2], 7).expect("watched");
    tokens.clear();
    watch.drain(&mut tokens).expect("drained");
    assert_eq!(tokens, [7]);
}

#[test]
fn none_of_many_exits_is_lost_and_one_drain_is_bounded() {
    let many = limits::WATCH_BATCH + 44;
    let watch = Watch::new().expect("a watch");
    let mut processes: Vec<_> = (0..many).map(|_| Process::idle(me())).collect();
    let held: Vec<_> = processes.iter().map(|process| lab::hold(process.pid())).collect();
    for (token, held) in held.iter().enumerate() {
        watch.add(held, token as u64).expect("watched");
    }
    processes.iter_mut().for_each(Process::end);
    let (mut seen, mut tokens) = (vec![0; many], Vec::new());
    while ready(&watch, PollTimeout::ZERO) {
        tokens.clear();
        let count = watch.drain(&mut tokens).expect("drained");
        assert!(count == tokens.len() && (1..=limits::WATCH_BATCH).contains(&count));
        for token in &tokens {
            let token = usize::try_from(*token).expect("a token");
            seen[token] += 1;
            watch.remove(&held[token]).expect("removed");
        }
    }
    assert!(seen.iter().all(|times| *times == 1));
}
