//! What the service manager is told, and its watchdog (sd_notify(3), sd_watchdog_enabled(3)): a datagram
//! each, to the socket that it named in the environment.
//!
//! The watchdog is answered by the loop itself, once it has turned, and by nobody else: a loop that hangs
//! is noticed. What the manager's queue has no room for is owed and sent later; the loop waits for nothing.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::model::status::Tally;
use crate::model::time::Mono;

/// How soon the status follows a change: many may come at once.
const STATUS_GAP: Duration = Duration::from_secs(1);
/// When what was not taken is offered again, because there was no room, or nobody to take it.
const AGAIN_FULL: Duration = Duration::from_secs(1);
/// See [`AGAIN_FULL`].
const AGAIN_GONE: Duration = Duration::from_secs(10);
/// States that are owed at most: none is more than some bytes, and only a manager that hangs owes any.
const OWED_MAX: usize = 8;

/// The service manager, where there is one.
pub(super) struct Manager {
    line: Option<Line>,
    watchdog: Option<Watchdog>,
    /// The counts last told, once heeler is ready.
    told: Option<Tally>,
    /// Counts are told no sooner.
    quiet_until: Instant,
}

/// The way to it.
struct Line {
    socket: UnixDatagram,
    to: SocketAddr,
    owed: VecDeque<String>,
    again_at: Instant,
}

/// How often it wants a sign of life, and when the next one is due.
struct Watchdog {
    every: Duration,
    at: Instant,
}

impl Manager {
    /// Reads what it said in the environment. What cannot be used of it is said, and no more.
    pub(super) fn of(env: impl Fn(&str) -> Option<OsString>) -> (Self, Option<String>) {
        let now = Instant::now();
        let mut manager = Self { line: None, watchdog: None, told: None, quiet_until: now };
        let Some(name) = env("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return (manager, None);
        };
        match Line::to(&name, now) {
            Ok(line) => manager.line = Some(line),
            Err(error) => {
                let text = format!("failed to reach the service manager at {name:?}: {error}");
                return (manager, Some(text));
            }
        }
        let number = |name| env(name)?.to_str()?.parse::<u64>().ok();
        // The variable may be a parent's that did not clean it.
        let ours = env("WATCHDOG_PID")
            .is_none_or(|_| number("WATCHDOG_PID") == Some(std::process::id().into()));
        // Twice as often as asked for, as sd_watchdog_enabled(3) has it.
        manager.watchdog = number("WATCHDOG_USEC")
            .filter(|us| ours && *us > 0)
            .map(|us| Watchdog { every: Duration::from_micros(us / 2), at: now });
        (manager, None)
    }

    /// heeler is up.
    pub(super) fn ready(&mut self, tally: Tally) {
        self.told = Some(tally);
        self.tell(format!("READY=1\nSTATUS={tally}"));
    }

    /// The configuration is read anew, until [`Manager::ready`].
    pub(super) fn reloading(&mut self, now: Mono) {
        let us = now.as_nanos() / 1000;
        self.tell(format!("RELOADING=1\nMONOTONIC_USEC={us}\nSTATUS=reading the configuration"));
    }

    /// heeler ends.
    pub(super) fn stopping(&mut self) {
        self.tell("STOPPING=1\nSTATUS=ending; all services go on as they are".to_owned());
    }

    /// The loop has turned: a sign of life if one is due, the counts if they changed, what is owed.
    pub(super) fn turned(&mut self, tally: Tally) {
        let Some(line) = &mut self.line else { return };
        let now = Instant::now();
        if now >= line.again_at {
            line.pay(now);
        }
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| now >= watchdog.at) {
            // One that is not taken is not owed: the next turn has its own.
            let taken = line.send("WATCHDOG=1").is_ok();
            watchdog.at = now + if taken { watchdog.every } else { watchdog.every.min(AGAIN_FULL) };
        }
        if self.told.is_some_and(|told| told != tally) && now >= self.quiet_until {
            self.quiet_until = now + STATUS_GAP;
            self.told = Some(tally);
            self.tell(format!("STATUS={tally}"));
        }
    }

    /// When the loop has to turn for it.
    pub(super) fn wakeup(&self, tally: Tally) -> Option<Instant> {
        let line = self.line.as_ref()?;
        let owed = Some(line.again_at).filter(|_| !line.owed.is_empty());
        let changed = self.told.is_some_and(|told| told != tally);
        let counts = Some(self.quiet_until).filter(|_| changed);
        let alive = self.watchdog.as_ref().map(|watchdog| watchdog.at);
        [owed, counts, alive].into_iter().flatten().min()
    }

    fn tell(&mut self, state: String) {
        let Some(line) = &mut self.line else { return };
        if line.owed.len() >= OWED_MAX {
            line.owed.pop_front();
        }
        line.owed.push_back(state);
        line.pay(Instant::now());
    }
}

impl Line {
    fn to(name: &OsString, now: Instant) -> io::Result<Self> {
        let to = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("it is neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, to, owed: VecDeque::new(), again_at: now })
    }

    fn send(&self, state: &str) -> io::Result<()> {
        self.socket.send_to_addr(state.as_bytes(), &self.to).map(|_| ())
    }

    /// Sends what is owed, in order, as far as it is taken.
    fn pay(&mut self, now: Instant) {
        while let Some(state) = self.owed.front() {
            if let Err(error) = self.send(state) {
                let full = error.kind() == io::ErrorKind::WouldBlock;
                self.again_at = now + if full { AGAIN_FULL } else { AGAIN_GONE };
                return;
            }
            self.owed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use crate::model::status::Health;

    use super::*;

    fn tally(services: usize) -> Tally {
        let mut tally = Tally::default();
        (0..services).for_each(|_| tally.count(Some(Health::Good), None));
        tally
    }

    fn manager(pairs: &[(&str, &[u8])]) -> (Manager, Option<String>) {
        Manager::of(|name| {
            let value = pairs.iter().find(|(key, _)| *key == name)?.1;
            Some(OsString::from_vec(value.to_vec()))
        })
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut all = Vec::new();
        let mut bytes = [0; 256];
        while let Ok(n) = socket.recv(&mut bytes) {
            all.push(String::from_utf8_lossy(&bytes[..n]).into_owned());
        }
        all
    }

    /// Listens at a path or, beginning with `@`, at an abstract name.
    fn listen(name: &str) -> UnixDatagram {
        let at = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        let socket = UnixDatagram::bind_addr(&at.expect("an address")).expect("binds");
        socket.set_nonblocking(true).expect("non-blocking");
        socket
    }

    #[test]
    fn states_go_to_a_path_or_an_abstract_name_and_counts_when_they_change() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify").to_string_lossy().into_owned();
        let abstract_name = format!("@heeler-test-{}", std::process::id());
        for name in [path, abstract_name] {
            let socket = listen(&name);
            let (mut manager, note) = manager(&[("NOTIFY_SOCKET", name.as_bytes())]);
            assert_eq!(note, None);
            manager.turned(tally(1));
            assert_eq!(heard(&socket), [""; 0], "nothing before it is ready");
            manager.ready(tally(1));
            manager.turned(tally(1));
            assert_eq!(heard(&socket), ["READY=1\nSTATUS=1 service: 1 as wanted"]);
            assert_eq!(manager.wakeup(tally(1)), None, "nothing is due");
            manager.turned(tally(2));
            manager.turned(tally(3));
            assert_eq!(heard(&socket), ["STATUS=2 services: 2 as wanted"], "not each at once");
            assert!(manager.wakeup(tally(3)).is_some());
            manager.reloading(Mono::from_nanos(7_000_000));
            manager.stopping();
            let said = heard(&socket);
            assert!(said[0].starts_with("RELOADING=1\nMONOTONIC_USEC=7000\n"), "{said:?}");
            assert!(said[1].starts_with("STOPPING=1\n"), "{said:?}");
        }
    }

    #[test]
    fn a_full_queue_is_owed_in_order_and_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify").to_string_lossy().into_owned();
        let socket = listen(&path);
        let (mut manager, _) = manager(&[("NOTIFY_SOCKET", path.as_bytes())]);
        let line = manager.line.as_ref().expect("a line");
        let mut fillers = 0;
        while line.send("filler").is_ok() {
            fillers += 1;
        }
        manager.reloading(Mono::ZERO);
        manager.ready(tally(1));
        let due = manager.wakeup(tally(1)).expect("it is offered again");
        assert!(due > Instant::now());
        assert_eq!(heard(&socket).len(), fillers, "none of it was taken");
        manager.line.as_mut().expect("a line").again_at = Instant::now();
        manager.turned(tally(1));
        let said = heard(&socket);
        assert!(said[0].starts_with("RELOADING=1") && said[1].starts_with("READY=1"), "{said:?}");
        assert_eq!(manager.wakeup(tally(1)), None);
    }

    #[test]
    fn signs_of_life_come_twice_as_often_as_asked_for_and_only_by_turning() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify").to_string_lossy().into_owned();
        let socket = listen(&path);
        let own = std::process::id().to_string();
        let env: [(&str, &[u8]); 3] = [
            ("NOTIFY_SOCKET", path.as_bytes()),
            ("WATCHDOG_USEC", b"30000000"),
            ("WATCHDOG_PID", own.as_bytes()),
        ];
        let (mut manager, _) = manager(&env);
        for _ in 0..3 {
            manager.turned(Tally::default());
        }
        assert_eq!(heard(&socket), ["WATCHDOG=1"]);
        let due = manager.wakeup(Tally::default()).expect("the next");
        let left = due.saturating_duration_since(Instant::now());
        assert!(left > Duration::from_secs(14) && left <= Duration::from_secs(15), "{left:?}");
    }

    #[test]
    fn what_is_not_meant_for_this_process_or_makes_no_sense_is_passed_by() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify").to_string_lossy().into_owned();
        let _socket = listen(&path);
        assert!(manager(&[]).0.line.is_none());
        assert!(manager(&[("NOTIFY_SOCKET", b"")]).0.line.is_none());
        let (none, note) = manager(&[("NOTIFY_SOCKET", b"vsock:2:1234")]);
        assert!(none.line.is_none() && note.is_some_and(|note| note.contains("vsock:2:1234")));
        let named: (&str, &[u8]) = ("NOTIFY_SOCKET", path.as_bytes());
        for (usec, pid) in [("30000000", "1"), ("30000000", "x"), ("0", ""), ("-5", ""), ("x", "")]
        {
            let pid = if pid.is_empty() { std::process::id().to_string() } else { pid.to_owned() };
            let env = [named, ("WATCHDOG_USEC", usec.as_bytes()), ("WATCHDOG_PID", pid.as_bytes())];
            assert!(manager(&env).0.watchdog.is_none(), "{usec} {pid}");
        }
        // Nobody listens there any more: owed, and nothing worse.
        let (mut gone, _) = manager(&[("NOTIFY_SOCKET", b"/nonexistent/notify")]);
        gone.ready(tally(1));
        assert!(gone.wakeup(tally(1)).is_some());
    }
}
