//! The shop: one Puma cluster of the user deploy, and the heeler that watches it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::house::{House, PATIENCE, alive, pids, signal};
use crate::support::{wait_for, without_children};
use crate::world::DEPLOY;

/// How Puma is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// `puma .. &` in a shell: what most people have.
    Background,
    /// A script that puts it into a session of its own and waits until it is up.
    Script,
    /// In the foreground, by `run =`.
    Foreground,
    /// As a unit of deploy's own systemd, by commands and a pidfile.
    Unit,
    /// As a unit of deploy's own systemd, by `unit =`.
    Managed,
}

/// Short times, so that a test is short.
pub(crate) const QUICK: &str = "every = \"500ms\"\nstart_period = \"1s\"\nstop_timeout = \"3s\"\n";

/// The application, and heeler.
pub(crate) struct Shop {
    pub(crate) house: House,
    way: Way,
}

/// What the application says of itself.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) worker: u32,
    pub(crate) master: u32,
    pub(crate) said: serde_json::Value,
}

impl Up {
    /// A variable of its environment.
    pub(crate) fn env(&self, name: &str) -> Option<&str> {
        self.said["env"][name].as_str()
    }
}

impl Shop {
    /// Lays the application down and defines the service. Nothing runs yet.
    pub(crate) fn new(way: Way, lines: &str) -> Self {
        let app = app("");
        for dir in ["releases/1/config", "shared/pids", "shared/log"] {
            fs::create_dir_all(app.join(dir)).expect("mkdir");
        }
        let files = [
            ("releases/1/config.ru", include_str!("app/config.ru"), 0o644),
            ("releases/1/config/puma.rb", include_str!("app/puma.rb"), 0o644),
            ("start", include_str!("app/start"), 0o755),
            ("../../.config/systemd/user/puma.service", include_str!("app/puma.service"), 0o644),
        ];
        for (name, text, mode) in files {
            let path = app.join(name);
            fs::create_dir_all(path.parent().expect("is in a directory")).expect("mkdir");
            fs::write(&path, text).expect("write");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        }
        symlink("releases/1", app.join("current")).expect("link");
        own(Path::new("/home/deploy"));
        let shop = Self { house: House::new(""), way };
        shop.define(&shop.commands(), lines);
        shop
    }

    /// The lines of the definition that say how it is run.
    pub(crate) fn commands(&self) -> String {
        let log = app("shared/log/puma.log");
        let background = format!("puma -C config/puma.rb </dev/null >>{} 2>&1 &", log.display());
        match self.way {
            Way::Background => format!(
                "start = {{ run = {background:?}, shell = true, cwd = {:?} }}\n{}",
                app("current"),
                pidfile_line()
            ),
            Way::Script => format!("start = {:?}\n{}", app("start"), pidfile_line()),
            Way::Foreground => {
                format!(
                    "run = {{ run = \"puma -C config/puma.rb\", cwd = {:?} }}\n",
                    app("current")
                )
            }
            Way::Unit => format!(
                "start = \"systemctl --user start puma\"\nstop = \"systemctl --user stop puma\"\n{}",
                pidfile_line()
            ),
            Way::Managed => "unit = \"puma\"\n".to_owned(),
        }
    }

    /// Defines the service by these commands.
    pub(crate) fn define(&self, commands: &str, lines: &str) {
        let text = format!("user = \"deploy\"\n{commands}{QUICK}{lines}\n");
        self.house.define("shop", &text);
    }

    /// Starts heeler, which starts Puma; waits until it serves.
    pub(crate) fn open(&mut self) -> Up {
        if matches!(self.way, Way::Unit | Way::Managed) {
            start_manager();
        }
        self.house.open();
        self.wait_serving(None)
    }

    /// Waits until a master other than `not` serves, and is the one heeler holds.
    pub(crate) fn wait_serving(&self, not: Option<u32>) -> Up {
        let up =
            wait_for("puma to serve", PATIENCE * 2, || up().filter(|up| Some(up.master) != not));
        wait_for("heeler to hold it", PATIENCE, || {
            (self.house.pid("shop") == Some(up.master)).then_some(())
        });
        up
    }

    /// Tells how long this takes until a new master serves.
    pub(crate) fn timed(
        &mut self,
        what: &str,
        not: Option<u32>,
        disturb: impl FnOnce(&mut Self),
    ) -> Up {
        let began = Instant::now();
        disturb(self);
        let up =
            wait_for("puma to serve", PATIENCE * 2, || up().filter(|up| Some(up.master) != not));
        println!(
            "MEASURED {what} ({:?}): serves after {:.2} s",
            self.way,
            began.elapsed().as_secs_f64()
        );
        self.wait_serving(not);
        up
    }

    /// The mails, once there are `count`.
    pub(crate) fn wait_mails(&self, count: usize) -> Vec<String> {
        wait_for("the mails", PATIENCE, || {
            Some(self.house.mails()).filter(|mails| mails.len() >= count)
        })
    }

    /// What `heeler why shop` says.
    pub(crate) fn why(&self) -> String {
        self.house.heeler(&["why", "shop"]).1
    }

    /// Waits until `heeler why shop` has these words.
    pub(crate) fn wait_why(&self, words: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let why = self.why();
            if why.contains(words) {
                return why;
            }
            assert!(Instant::now() < end, "waited for {words:?} in\n{why}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How often heeler started it, by its own log.
    pub(crate) fn starts(&self) -> usize {
        self.house.log().lines().filter(|line| line.contains(" starting")).count()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = ["puma.log", "start.log"]
                .map(|name| fs::read_to_string(app("shared/log").join(name)).unwrap_or_default());
            eprintln!("---- puma's logs\n{}", logs.join("\n"));
            eprintln!("---- why\n{}", self.why());
            for pid in pids() {
                eprintln!("{pid} {}", title(pid));
            }
        }
    }
}

/// A path below the application.
pub(crate) fn app(below: &str) -> PathBuf {
    Path::new("/home/deploy/apps/shop").join(below)
}

fn pidfile_line() -> String {
    format!("pidfile = {:?}\n", app("shared/pids/puma.pid"))
}

/// Gives a tree to deploy.
pub(crate) fn own(path: &Path) {
    let meta = fs::symlink_metadata(path).expect("is there");
    std::os::unix::fs::lchown(path, Some(DEPLOY), Some(DEPLOY)).expect("lchown");
    if meta.is_dir() {
        fs::read_dir(path).expect("is a directory").flatten().for_each(|entry| own(&entry.path()));
    }
}

/// Writes a file of deploy's.
pub(crate) fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("write");
    chown(path, Some(DEPLOY), Some(DEPLOY)).expect("chown");
}

/// Starts the manager of deploy's units.
pub(crate) fn start_manager() {
    let status = Command::new("sh").args(["-c", include_str!("user_manager.sh")]).status();
    assert!(status.expect("sh runs").success(), "the user manager did not start");
}

/// Asks the application; a status of 200 and its body, within half a second.
pub(crate) fn get(path: &str) -> Option<String> {
    get_within(path, Duration::from_millis(500))
}

/// The body of an answer that has to come, on a busy machine too.
pub(crate) fn ask_for(path: &str) -> String {
    get_within(path, PATIENCE).expect("a worker answers")
}

fn get_within(path: &str, limit: Duration) -> Option<String> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], 9292)), limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: shop\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).is_some_and(|code| code == "200").then(|| body.to_owned())
}

/// Who serves now. An orphan, which serves on for a moment after its master's death, does not count.
pub(crate) fn up() -> Option<Up> {
    let said: serde_json::Value = serde_json::from_str(&get("/up")?).ok()?;
    let pid = |name: &str| u32::try_from(said[name].as_u64()?).ok();
    let up = Up { worker: pid("pid")?, master: pid("master")?, said };
    masters().contains(&up.master).then_some(up)
}

/// The living masters.
pub(crate) fn masters() -> Vec<u32> {
    let is = |pid: &u32| alive(*pid) && title(*pid).starts_with("puma 5");
    let found: Vec<u32> = pids().into_iter().filter(is).collect();
    let stat = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    without_children(&found, stat)
}

/// The living workers of a master, by its number in their titles.
pub(crate) fn workers(master: u32) -> Vec<u32> {
    let of = format!(": {master} [shop]");
    let worker = |pid: &u32| {
        let title = title(*pid);
        alive(*pid) && title.starts_with("puma: cluster worker") && title.contains(&of)
    };
    pids().into_iter().filter(worker).collect()
}

/// Lays a release down beside the first, with this `config.ru`.
pub(crate) fn add_release(number: u32, text: &str) {
    let release = app(&format!("releases/{number}"));
    fs::create_dir_all(release.join("config")).expect("mkdir");
    fs::write(release.join("config.ru"), text).expect("write");
    fs::copy(app("releases/1/config/puma.rb"), release.join("config/puma.rb")).expect("copy");
    own(&release);
}

/// Points `current` at a release, in one step.
pub(crate) fn point_at(number: u32) {
    let next = app("next");
    symlink(format!("releases/{number}"), &next).expect("link");
    fs::rename(&next, app("current")).expect("rename");
}

/// Tells Puma something, as deploy.
pub(crate) fn pumactl(command: &str) {
    let output = as_deploy(&format!("pumactl -S ~/apps/shop/shared/pids/puma.state {command}"));
    assert!(output.status.success(), "{output:?}");
}

/// The title of a process.
pub(crate) fn title(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}

/// What Puma wrote to its logs.
pub(crate) fn puma_log() -> String {
    ["puma.log", "start.log", "deploy.log"]
        .map(|name| fs::read_to_string(app("shared/log").join(name)).unwrap_or_default())
        .concat()
}

/// Runs a script as deploy in what is current, as a login of theirs would.
pub(crate) fn as_deploy(script: &str) -> Output {
    by_deploy(&app("current"), script).output().expect("setpriv runs")
}

/// The same, in this directory, yet to be run.
pub(crate) fn by_deploy(dir: &Path, script: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=1500", "--regid=1500", "--init-groups", "--reset-env", "env"])
        .args(["XDG_RUNTIME_DIR=/run/user/1500", "sh", "-c", script])
        .current_dir(dir);
    command
}

/// Stops a process, and waits until it is: another thread of it may run on for a moment.
pub(crate) fn freeze(pid: u32) {
    signal(pid, "STOP");
    wait_for("it to stop", PATIENCE, || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.starts_with('T').then_some(())
    });
}
