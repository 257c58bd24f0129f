//! A heeler of its own for a test: configuration, state, run_dir and services in one directory, and
//! nothing left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::{HEELER, wait_for};

/// Long enough for a loaded machine; a test that needs it all is a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One heeler and its services.
pub struct House {
    dir: tempfile::TempDir,
    keeper: Option<Child>,
}

impl House {
    /// An empty house. `settings` is added to its heeler.toml.
    pub fn new(settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("heeler-test-").tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let house = Self { dir, keeper: None };
        fs::create_dir(house.path("conf.d")).expect("conf.d");
        fs::create_dir(house.path("srv")).expect("srv");
        fs::set_permissions(house.path("srv"), fs::Permissions::from_mode(0o777)).expect("chmod");
        let own = format!(
            "state_dir = {:?}\nrun_dir = {:?}\nsocket = {:?}\n{settings}\n",
            house.path("state"),
            house.path("run"),
            house.path("run/control.sock"),
        );
        house.write("conf.d/heeler.toml", &own);
        house.write("srv/service.pl", include_str!("service.pl"));
        house
    }

    /// A path in the house.
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Writes a file, readable by all.
    pub fn write(&self, below: &str, text: &str) {
        fs::write(self.path(below), text).expect("write");
        fs::set_permissions(self.path(below), fs::Permissions::from_mode(0o644)).expect("chmod");
    }

    /// Defines a service by its text.
    pub fn define(&self, name: &str, text: &str) {
        self.write(&format!("conf.d/{name}.toml"), text);
    }

    /// Defines a daemon: `service.pl` with these options, and these lines added to its definition.
    pub fn daemon(&self, name: &str, options: &str, lines: &str) {
        let start = self.command(name, options);
        let pidfile = self.path(&format!("srv/{name}.pid"));
        self.define(name, &format!("pidfile = {pidfile:?}\nstart = {start:?}\n{lines}\n"));
    }

    /// The command line of `service.pl`.
    pub fn command(&self, name: &str, options: &str) -> String {
        let (script, srv) = (self.path("srv/service.pl"), self.path("srv"));
        format!("/usr/bin/perl {} {} {name} {options}", script.display(), srv.display())
    }

    /// Starts heeler and waits until it can be asked.
    pub fn open(&mut self) {
        self.open_by(Command::new(HEELER));
    }

    /// The same, by a command that is to end in `heeler`.
    pub fn open_by(&mut self, mut command: Command) {
        let log =
            fs::File::options().append(true).create(true).open(self.path("log")).expect("log");
        let keeper = command
            .arg("run")
            .arg(self.path("conf.d"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .expect("heeler starts");
        self.keeper = Some(keeper);
        wait_for("heeler to answer", PATIENCE, || {
            let keeper = self.keeper.as_mut().expect("was started");
            if let Some(end) = keeper.try_wait().expect("wait") {
                panic!("heeler ended ({end}):\n{}", self.log());
            }
            self.ask(&["status"]).filter(|output| output.status.code() != Some(6))
        });
    }

    fn ask(&self, args: &[&str]) -> Option<Output> {
        let socket = self.path("run/control.sock");
        Command::new(HEELER).env("HEELER_SOCKET", socket).args(args).output().ok()
    }

    /// The keeper's pid.
    pub fn keeper(&self) -> u32 {
        self.keeper.as_ref().expect("heeler runs").id()
    }

    /// `kill -9` for the keeper.
    pub fn kill_keeper(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.kill().expect("kill");
            keeper.wait().expect("wait");
        }
    }

    /// TERM for the keeper; its exit code.
    pub fn close(&mut self) -> Option<i32> {
        let mut keeper = self.keeper.take()?;
        signal(keeper.id(), "TERM");
        let end = wait_for("heeler to end", PATIENCE, || keeper.try_wait().expect("wait"));
        end.code()
    }

    /// Runs the client; exit code, stdout, stderr.
    pub fn heeler(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.ask(args).expect("the client runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Has the configuration read anew; exit code and what was printed.
    pub fn reload(&self) -> (i32, String) {
        let (code, out, err) = self.heeler(&["reload-config"]);
        (code, out + &err)
    }

    /// The same, where all of it is good.
    pub fn reload_well(&self) -> String {
        let (code, out) = self.reload();
        assert_eq!(code, 0, "{out}");
        out
    }

    /// Removes the definition of a service.
    pub fn undefine(&self, name: &str) {
        fs::remove_file(self.path(&format!("conf.d/{name}.toml"))).expect("remove");
    }

    /// Waits until a keeper has noted down what the files say: who is killed before knows no rename and no change.
    pub fn wait_noted(&self) {
        let files = fs::read_dir(self.path("conf.d")).expect("conf.d").flatten();
        for name in files.map(|file| file.file_name()) {
            let noted = self.path("state/last-good").join(&name);
            let service = format!("\"service\":{:?}", noted.file_stem().unwrap_or_default());
            let remembered = || {
                let journal = fs::read_to_string(self.path("state/journal")).unwrap_or_default();
                name == "heeler.toml" || journal.contains(&service)
            };
            wait_for(&format!("{name:?} to be noted"), PATIENCE, || {
                (noted.exists() && remembered()).then_some(())
            });
        }
    }

    /// Gives the file of a service another name.
    pub fn rename(&self, from: &str, to: &str) {
        let file = |name: &str| self.path(&format!("conf.d/{name}.toml"));
        fs::rename(file(from), file(to)).expect("rename");
    }

    /// The status of one service, as JSON.
    pub fn status(&self, name: &str) -> serde_json::Value {
        let (_, out, err) = self.heeler(&["status", "--json", name]);
        let all: serde_json::Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out:?} {err:?}"));
        all["services"][0].clone()
    }

    /// The main process heeler knows.
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.status(name)["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    }

    /// Waits until heeler holds a main process other than `not`.
    pub fn wait_up(&self, name: &str, not: Option<u32>) -> u32 {
        wait_for(&format!("{name} to be up"), PATIENCE, || {
            self.pid(name).filter(|pid| Some(*pid) != not && alive(*pid))
        })
    }

    /// Waits until the status words contain a text.
    pub fn wait_words(&self, name: &str, words: &str) -> serde_json::Value {
        wait_for(
            &format!("{name} to be {words:?}; it is {:?}", self.status(name)),
            PATIENCE,
            || {
                let status = self.status(name);
                status["state"]
                    .as_str()
                    .is_some_and(|state| state.contains(words))
                    .then_some(status)
            },
        )
    }

    /// Waits until a check is in this state and its text says these words; the text.
    pub fn wait_check(&self, name: &str, label: &str, state: &str, words: &str) -> String {
        let what = format!("{label} to be {state} with {words:?}");
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status(name);
            let all = status["checks"].as_array();
            let check = all.into_iter().flatten().find(|check| check["label"] == label);
            let text = check.and_then(|check| check["text"].as_str()).unwrap_or_default();
            if text.contains(words) && check.is_some_and(|check| check["state"] == state) {
                return text.to_owned();
            }
            assert!(Instant::now() < end, "waited for {what}; it is {check:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The pids of all starts of a service, by its own word.
    pub fn starts(&self, name: &str) -> Vec<u32> {
        lines(&self.path(&format!("srv/{name}.starts")))
            .iter()
            .filter_map(|line| line.split(' ').next()?.parse().ok())
            .collect()
    }

    /// Waits until these are the starts of a service (a foreground program says so a moment after its exec).
    pub fn wait_starts(&self, name: &str, pids: &[u32]) {
        wait_for(&format!("the starts of {name} to be {pids:?}"), PATIENCE, || {
            (self.starts(name) == pids).then_some(())
        });
    }

    /// How often a copy found another one, by its own word.
    pub fn doubles(&self, name: &str) -> usize {
        lines(&self.path(&format!("srv/{name}.doubles"))).len()
    }

    /// The mails in the outbox, oldest first, whole.
    pub fn mails(&self) -> Vec<String> {
        let mut files: Vec<_> = fs::read_dir(self.path("state/outbox"))
            .map(|dir| dir.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.retain(|path: &PathBuf| path.extension().is_some_and(|ext| ext == "eml"));
        files.sort();
        files
            .iter()
            .filter_map(|path| fs::read(path).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    /// What heeler said so far, and all of it: what a client was answered by now is in it.
    pub fn log(&self) -> String {
        self.wait_written();
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The log has a thread of its own, which is woken when a turn of the loop is over. Once first the loop and
    /// then that thread sleep, all is written.
    fn wait_written(&self) {
        let Some(keeper) = &self.keeper else { return };
        let tasks = PathBuf::from(format!("/proc/{}/task", keeper.id()));
        let read =
            |task: &Path, file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
        let is_log = |task: &PathBuf| read(task, "comm").trim() == "heeler-log";
        let all = fs::read_dir(&tasks).into_iter().flatten().flatten();
        let writer = all.map(|entry| entry.path()).find(is_log);
        // One that hangs writes no more.
        let end = Instant::now() + Duration::from_millis(500);
        for task in [Some(tasks.join(keeper.id().to_string())), writer].into_iter().flatten() {
            let works = || {
                let stat = read(&task, "stat");
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['R', 'D']))
            };
            while works() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- heeler's log\n{}", self.log());
        }
        self.kill_keeper();
        // Shims and services outlive the keeper by design; their command lines or directories name the house.
        let own = self.dir.path().to_string_lossy().into_owned();
        // Children of `service.pl` have neither; they are in the session or group of one that noted itself.
        let noted: Vec<u32> = fs::read_dir(self.path("srv"))
            .map(|dir| dir.flatten().flat_map(|entry| lines(&entry.path())).collect::<Vec<_>>())
            .unwrap_or_default()
            .iter()
            .filter_map(|line| line.split(' ').next()?.parse().ok())
            .filter(|pid| *pid > 1)
            .collect();
        for _ in 0..3 {
            for pid in pids() {
                let number = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
                let above = [nix::unistd::getsid(Some(number)), nix::unistd::getpgid(Some(number))];
                let of_noted = above
                    .iter()
                    .flatten()
                    .any(|above| noted.contains(&u32::try_from(above.as_raw()).unwrap_or(0)));
                let about = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
                    .map(|dir| {
                        dir.flatten().filter_map(|fd| fs::read_link(fd.path()).ok()).collect()
                    })
                    .unwrap_or_default();
                let named = [about, environ]
                    .iter()
                    .any(|text| String::from_utf8_lossy(text).contains(&own));
                let holds = open.iter().any(|path: &PathBuf| path.starts_with(&own));
                if (named || holds || of_noted) && pid != std::process::id() {
                    signal(pid, "KILL");
                }
            }
        }
    }
}

/// Sends a signal, by name.
pub fn signal(pid: u32, name: &str) {
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().expect("a signal");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    // One that is gone already needs no signal.
    let _sent = nix::sys::signal::kill(pid, signal);
}

/// Whether a process is there and not a zombie.
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with(['Z', 'X'])
    })
}

/// All processes.
pub fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The lines of a file; none when it is not there.
pub fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path)
        .map(|text| text.lines().map(str::to_owned).collect())
        .unwrap_or_default()
}
