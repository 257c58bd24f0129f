//! The web server that HTTP checks ask, a process of its own, and the logs that helpers append.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::rig::Ground;

/// One record of a log: what is known of a start or of a request.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    /// `CLOCK_MONOTONIC`, in ns.
    pub(crate) at: u64,
    /// The number of the service or the page.
    pub(crate) id: u64,
}

/// Where the pages are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ports {
    pub(crate) pages: u16,
    /// Accepts, and never answers.
    pub(crate) silent: u16,
}

pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    pub(crate) ports: Ports,
}

impl Server {
    pub(crate) fn new(ground: &Ground, dir: &Path) -> Self {
        let log = dir.join("asked");
        fs::write(&log, "").expect("write");
        let (child, said) = helper(Command::new(ground.helper()).arg("serve").arg(&log));
        let mut ports = said.split_whitespace().map(|word| word.parse().expect("a port"));
        let [pages, silent] = [(); 2].map(|()| ports.next().expect("the server says two ports"));
        Self { child, log, ports: Ports { pages, silent } }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Record> {
        records(&self.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Runs a helper that goes on until its stdin closes; the line it says when it is ready.
pub(crate) fn helper(command: &mut Command) -> (Child, String) {
    // Ctrl-C is ours: this one ends when we do.
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().expect("the helper runs");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("is a pipe"));
    stdout.read_line(&mut line).expect("the helper says a line");
    (child, line)
}

/// Closes its stdin and waits for it.
pub(crate) fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _end = child.wait();
}

/// All of a log.
pub(crate) fn records(log: &Path) -> Vec<Record> {
    const RECORD: usize = 16;
    let log = fs::read(log).expect("the log is readable");
    let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
    log.chunks_exact(RECORD)
        .map(|record| Record { at: number(&record[..8]), id: number(&record[8..]) })
        .collect()
}
