//! Signals reach the proved process, or nobody.

use heeler::model::process::Signal;
use heeler::sys::evidence;
use heeler::sys::procfs;
use heeler::sys::signal::{Delivered, send};

use crate::lab::{self, Process, SOON, WWW};
use crate::support::{Need, can_run, wait_for};

#[test]
fn kil_02_a_stopped_process_takes_term_once_it_continues() {
    let process = Process::idle(nix::unistd::geteuid().as_raw());
    let proved = lab::hold(process.pid());
    let raw = nix::unistd::Pid::from_raw(process.pid().0);
    nix::sys::signal::kill(raw, nix::sys::signal::Signal::SIGSTOP).expect("stopped");
    wait_for("the stop", SOON, || {
        procfs::stat(process.pid()).ok().filter(|stat| stat.state == 'T')
    });
    assert_eq!(send(&proved, Signal::Term), Delivered::Sent);
    assert!(proved.is_alive(), "TERM waits");
    assert_eq!(send(&proved, Signal::Cont), Delivered::Sent);
    wait_for("its death", SOON, || (!proved.is_alive()).then_some(()));
}

#[test]
fn kil_03_a_process_that_went_by_itself_is_as_good_as_signalled() {
    let mut process = Process::idle(nix::unistd::geteuid().as_raw());
    let proved = lab::hold(process.pid());
    assert_eq!(send(&proved, Signal::Kill), Delivered::Sent);
    wait_for("its death", SOON, || (!proved.is_alive()).then_some(()));
    assert_eq!(send(&proved, Signal::Term), Delivered::Gone, "a zombie");
    process.end();
    assert_eq!(send(&proved, Signal::Term), Delivered::Gone, "waited for");
}

#[test]
fn kil_14_a_traced_process_dies_of_kill() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let process = Process::idle(WWW);
    let pid = process.pid().0;
    let proved = lab::hold(process.pid());
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_ATTACH uses neither address nor data.
    let attached = unsafe { libc::ptrace(libc::PTRACE_ATTACH, pid, null, null) };
    assert_eq!(attached, 0, "{}", std::io::Error::last_os_error());
    wait_for("the trace stop", SOON, || {
        procfs::stat(process.pid()).ok().filter(|stat| stat.state == 't')
    });
    let evidence = evidence::collect(proved.held());
    assert_eq!(evidence.state, Some('t'));
    assert!(evidence.to_string().starts_with("state t"), "{evidence}");
    assert_eq!(send(&proved, Signal::Kill), Delivered::Sent);
    wait_for("its death", SOON, || (!proved.is_alive()).then_some(()));
    assert_eq!(evidence::collect(proved.held()).state, None, "nothing is known of the dead");
}

#[test]
fn evidence_names_where_a_process_waits() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let process = Process::idle(WWW);
    let proved = lab::hold(process.pid());
    let evidence = wait_for("it to sleep", SOON, || {
        Some(evidence::collect(proved.held())).filter(|evidence| evidence.state == Some('S'))
    });
    assert_eq!(evidence.identity, process.identity());
    assert!(evidence.fds.is_some_and(|fds| fds >= 3), "{evidence}");
    let names = |text: &Option<heeler::model::text::Untrusted>| {
        text.as_ref().is_some_and(|text| text.raw().contains("nanosleep"))
    };
    let readable = evidence.wchan.is_some() || evidence.stack.is_some();
    assert!(!readable || names(&evidence.wchan) || names(&evidence.stack), "{evidence:?}");
}
