//! What happens to the shop and to those who keep it. Each is the same for whoever watches; how long it
//! takes until the shop serves again is the answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::shop::{self, Up, wait_serving};
use crate::support::house::PATIENCE;
use crate::support::wait_for;
use crate::watchers::{Unit, Watcher};

/// Something that happens.
pub(crate) struct Situation {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    /// Makes it happen.
    pub(crate) happen: fn(&mut Host, Watcher, Up) -> Happened,
}

/// What happened, to be mended.
pub(crate) struct Happened {
    /// From when on the clock runs.
    began: Instant,
    /// The master that is no answer any more.
    gone: Option<u32>,
}

/// Long after a boot.
const UPTIME: Duration = Duration::from_secs(3600);

pub(crate) const RESTART: Situation = Situation {
    name: "an operator restarts it",
    unit: Unit::Enabled,
    happen: |host, watcher, up| {
        let began = Instant::now();
        watcher.order(host, "restart");
        Happened { began, gone: Some(up.master) }
    },
};

pub(crate) const MASTER_KILLED: Situation = Situation {
    name: "kill -9 of the master",
    unit: Unit::Enabled,
    happen: |host, _, up| kill(host, up.master),
};

pub(crate) const MASTER_KILLED_WORKER_LOCKED: Situation = Situation {
    name: "kill -9 of the master, a worker hangs in native code",
    unit: Unit::Enabled,
    happen: |host, _, up| {
        hold_the_lock(host, up.master);
        kill(host, up.master)
    },
};

pub(crate) const MASTER_KILLED_WORKER_STOPPED: Situation = Situation {
    name: "kill -9 of the master, a worker is stopped (SIGSTOP)",
    unit: Unit::Enabled,
    happen: |host, _, up| {
        host.shell(&format!("kill -STOP {}", up.worker));
        kill(host, up.master)
    },
};

pub(crate) const START_LIMIT: Situation = Situation {
    name: "kill -9 of the main process seven times, each as soon as it is there: too often for systemd; \
           from the last on",
    unit: Unit::Enabled,
    happen: |host, _, up| {
        let mut happened = kill(host, up.master);
        for _ in 0..6 {
            // systemd's own next one is there after a second; what does not come it gave up on.
            let end = Instant::now() + Duration::from_secs(3);
            let next = loop {
                let pid = host.deploy("systemctl --user show puma -p MainPID --value");
                match pid.trim().parse().ok().filter(|pid| !matches!(pid, 0 | 1)) {
                    Some(pid) if Some(pid) != happened.gone => break Some(pid),
                    Some(_) | None if Instant::now() > end => break None,
                    Some(_) | None => {}
                }
            };
            let Some(next) = next else { break };
            happened = kill(host, next);
        }
        happened
    },
};

pub(crate) const STOPPED_BEHIND: Situation = Situation {
    name: "systemctl --user stop, behind the watcher's back",
    unit: Unit::Enabled,
    happen: |host, _, up| {
        let began = Instant::now();
        host.deploy("systemctl --user stop puma");
        Happened { began, gone: Some(up.master) }
    },
};

pub(crate) const MANAGER_STOPPED: Situation = Situation {
    name: "the user manager is stopped (systemctl stop user@1500)",
    unit: Unit::OnlyThere,
    happen: |host, _, up| {
        let began = Instant::now();
        host.shell("systemctl stop user@1500");
        Happened { began, gone: Some(up.master) }
    },
};

pub(crate) const MANAGER_KILLED: Situation = Situation {
    name: "the user manager is killed (kill -9)",
    unit: Unit::OnlyThere,
    happen: |host, _, up| Happened { gone: Some(up.master), ..kill(host, manager(host)) },
};

pub(crate) const MANAGER_FROZEN: Situation = Situation {
    name: "the user manager hangs for 20 s (SIGSTOP), kill -9 of the master meanwhile; from its going on",
    unit: Unit::Enabled,
    happen: |host, _, up| {
        let manager = manager(host);
        host.shell(&format!("kill -STOP {manager}"));
        kill(host, up.master);
        thread::sleep(Duration::from_secs(20));
        let began = Instant::now();
        host.shell(&format!("kill -CONT {manager}"));
        Happened { began, gone: Some(up.master) }
    },
};

pub(crate) const LINGER_OFF_AND_ON: Situation = Situation {
    name: "lingering off for 30 s, and on again; from then on",
    unit: Unit::OnlyThere,
    happen: |host, _, up| {
        host.shell("loginctl disable-linger deploy");
        wait_for("deploy's runtime directory to go", PATIENCE * 2, || {
            (!host.path("/run/user/1500").exists()).then_some(())
        });
        thread::sleep(Duration::from_secs(20));
        let began = Instant::now();
        host.shell("loginctl enable-linger deploy");
        Happened { began, gone: Some(up.master) }
    },
};

pub(crate) const REBOOT: Situation = Situation {
    name: "reboot, the unit enabled; from process 1 on",
    unit: Unit::Enabled,
    happen: |host, _, _| {
        host.poweroff();
        let began = Instant::now();
        host.begin_boot(Duration::ZERO);
        Happened { began, gone: None }
    },
};

pub(crate) const REBOOT_NOT_ENABLED: Situation = Situation {
    name: "reboot, the unit not enabled; from process 1 on",
    unit: Unit::OnlyThere,
    happen: REBOOT.happen,
};

pub(crate) const ALL: [&Situation; 12] = [
    &RESTART,
    &MASTER_KILLED,
    &MASTER_KILLED_WORKER_STOPPED,
    &MASTER_KILLED_WORKER_LOCKED,
    &START_LIMIT,
    &STOPPED_BEHIND,
    &MANAGER_STOPPED,
    &MANAGER_KILLED,
    &MANAGER_FROZEN,
    &LINGER_OFF_AND_ON,
    &REBOOT,
    &REBOOT_NOT_ENABLED,
];

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) host: Host,
    /// Who serves again, and after how long.
    pub(crate) healed: Option<(Up, Duration)>,
}

impl Situation {
    /// A host whose shop is served, long after its boot.
    pub(crate) fn prepare(&self, watcher: Watcher, lines: &str) -> (Host, Up) {
        let mut host = Host::new();
        watcher.lay(&host, self.unit, lines);
        host.boot_as_if_up_for(UPTIME);
        match (watcher, self.unit) {
            // Monit, up before the user manager is, has failed to start it by now, and would try for half a
            // minute more.
            (Watcher::Systemd | Watcher::Monit, Unit::OnlyThere) => {
                host.wait_manager();
                host.deploy("systemctl --user start puma");
            }
            (Watcher::Systemd | Watcher::Monit, Unit::Enabled) | (Watcher::Heeler, _) => {}
        }
        let up = wait_serving(&host, None, PATIENCE);
        match watcher {
            Watcher::Systemd => {}
            Watcher::Monit => wait_for("monit to see it run", PATIENCE * 2, || {
                let said = host.exec(&["monit", "-c", "/etc/monit/shop.conf", "summary", "-B"]);
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                said.lines().any(|line| line.contains("shop") && line.contains("OK")).then_some(())
            }),
            Watcher::Heeler => {
                shop::wait_held(&host, "shop", None);
            }
        }
        (host, up)
    }

    /// Makes it happen and waits for the shop, at most so long.
    pub(crate) fn run(&self, watcher: Watcher, lines: &str, patience: Duration) -> Outcome {
        let (mut host, up) = self.prepare(watcher, lines);
        let happened = (self.happen)(&mut host, watcher, up);
        let healed = happened.mended(&host, patience);
        Outcome { host, healed }
    }
}

impl Happened {
    /// Who serves again, and after how long, if it is no longer than this.
    fn mended(&self, host: &Host, patience: Duration) -> Option<(Up, Duration)> {
        loop {
            match shop::up(host).filter(|up| Some(up.master) != self.gone) {
                Some(up) => return Some((up, self.began.elapsed())),
                None if self.began.elapsed() > patience => return None,
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

fn kill(host: &Host, pid: u32) -> Happened {
    let began = Instant::now();
    host.shell(&format!("kill -9 {pid}"));
    Happened { began, gone: Some(pid) }
}

/// deploy's `systemd --user`.
pub(crate) fn manager(host: &Host) -> u32 {
    let pid = host.shell("systemctl show user@1500 -p MainPID --value");
    pid.trim().parse().expect("it is up")
}

/// Has a worker hold Ruby's lock in native code, for as long as the host is there; which one.
pub(crate) fn hold_the_lock(host: &Host, master: u32) -> u32 {
    let mut stream = host.in_its_network(|| {
        let address = SocketAddr::from(([127, 0, 0, 1], 9292));
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.write_all(b"GET /gvl?s=3600 HTTP/1.0\r\n\r\n").expect("writes");
        stream
    });
    // The request is never answered; its connection stays open with the thread.
    thread::spawn(move || stream.read(&mut [0]));
    wait_for("a worker to sleep with the lock", PATIENCE, || {
        let workers = host.shell(&format!("pgrep -P {master}"));
        let mut workers = workers.lines().filter_map(|line| line.parse().ok());
        workers.find(|pid| is_locked(host, *pid))
    })
}

/// Whether a thread of a worker sleeps by the clock in the kernel, as nothing else in this application does.
fn is_locked(host: &Host, pid: u32) -> bool {
    let tasks = std::fs::read_dir(host.path(&format!("/proc/{pid}/task")));
    tasks.is_ok_and(|tasks| {
        tasks.flatten().any(|task| {
            std::fs::read_to_string(task.path().join("wchan"))
                .is_ok_and(|at| at.contains("nanosleep"))
        })
    })
}
