//! Who keeps the shop: nobody but Puma and, where it is one of its units, systemd; Monit by the recipe that
//! people have; or heeler. And whether the shop is well, by nobody's word but what is seen of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::shop::{
    Shop, Way, app, as_deploy, by_deploy, get, masters, point_at, start_manager, title, write,
};
use crate::support::house::{PATIENCE, alive, pids};
use crate::support::{HEELER, Need, wait_for};
use crate::units::restarted_by_systemd;

/// One who keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keeper {
    Nobody,
    Monit,
    Heeler,
}

impl Keeper {
    pub(crate) const ALL: [Self; 3] = [Self::Nobody, Self::Monit, Self::Heeler];

    pub(crate) const MONIT: Need = Need::Program("/usr/bin/monit", "monit");
}

/// As many workers as the shop has.
pub(crate) const WORKERS: usize = 3;

/// The shop under its keeper.
pub(crate) struct Stand {
    shop: Shop,
    keeper: Keeper,
    monit: Option<Child>,
}

/// A command that has a release taken up.
pub(crate) struct Deploy(JoinHandle<(Duration, Output)>);

impl Stand {
    /// Opens the shop. `ruby` is added to Puma's configuration, `toml` to heeler's.
    pub(crate) fn open(keeper: Keeper, way: Way, ruby: &str, toml: &str) -> Self {
        let mut shop = Shop::new(way, "");
        write(&app("shared/control"), "");
        write(&app("shared/extra.rb"), &format!("workers {WORKERS}\n{ruby}"));
        if way == Way::Managed {
            restarted_by_systemd();
        }
        if keeper == Keeper::Heeler {
            let text = format!("user = \"deploy\"\n{}{HEELERS}{toml}\n", shop.commands());
            shop.house.define("shop", &text);
            shop.open();
            wait_for("the start period to pass", PATIENCE, || {
                (shop.house.status("shop")["phase"] == "watching").then_some(())
            });
            shop.house.wait_check("shop", "stands", "ok", "up 3/3");
        } else {
            let start = if way == Way::Managed {
                start_manager();
                "systemctl --user start puma"
            } else {
                "~/apps/shop/start"
            };
            let output = as_deploy(start);
            assert!(output.status.success(), "{output:?}");
        }
        let mut stand = Self { shop, keeper, monit: None };
        stand.wait_well();
        if keeper == Keeper::Monit {
            stand.open_monit(way);
        }
        stand
    }

    fn wait_well(&self) {
        wait_for("all workers to answer", PATIENCE, || {
            is_well(&BTreeSet::new(), Wants::Current).then_some(())
        });
    }

    fn open_monit(&mut self, way: Way) {
        let file = self.shop.house.path("monitrc");
        let dir = self.shop.house.path("");
        fs::write(&file, monitrc(&dir, way)).expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
        let monit = |words: &[&str]| {
            let mut command = Command::new("/usr/bin/monit");
            command.arg("-c").arg(&file).args(words).stdin(Stdio::null());
            command
        };
        self.monit = Some(monit(&["-I"]).stdout(Stdio::null()).spawn().expect("monit starts"));
        wait_for("monit to see it run", PATIENCE, || {
            let said = monit(&["summary", "-B"]).output().expect("monit runs");
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            said.lines().any(|line| line.contains("shop") && line.contains("OK")).then_some(())
        });
    }

    /// Makes this release the current one, and has it taken up as a deploy would: by `pumactl`, or by
    /// `heeler reload --verified` where heeler is there.
    pub(crate) fn deploy(&self, number: u32) -> Deploy {
        point_at(number);
        let mut command = if self.keeper == Keeper::Heeler {
            let mut command = Command::new(HEELER);
            command.env("HEELER_SOCKET", self.shop.house.path("run/control.sock"));
            command.args(["reload", "shop", "--verified"]);
            command
        } else {
            let state = app("shared/pids/puma.state");
            // Not from what is current: that may lead nowhere.
            by_deploy(Path::new("/"), &format!("pumactl -S {} phased-restart", state.display()))
        };
        Deploy(thread::spawn(move || {
            let began = Instant::now();
            let output = command.stdin(Stdio::null()).output().expect("it runs");
            (began.elapsed(), output)
        }))
    }

    /// Whether its keeper has mailed anything.
    pub(crate) fn has_told(&self) -> bool {
        self.keeper == Keeper::Heeler && !self.shop.house.mails().is_empty()
    }

    /// What its keeper has to say, for whoever wonders about a figure.
    pub(crate) fn story(&self) -> String {
        match self.keeper {
            Keeper::Nobody => String::new(),
            Keeper::Monit => {
                fs::read_to_string(self.shop.house.path("monit.log")).unwrap_or_default()
            }
            Keeper::Heeler => self.shop.house.log(),
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Some(mut monit) = self.monit.take() {
            monit.kill().expect("kill");
            monit.wait().expect("wait");
        }
    }
}

impl Deploy {
    /// How long it took and what it said, once it is over.
    pub(crate) fn ended(self) -> (Duration, String) {
        let (took, output) = self.0.join().expect("the command");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (took, format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr)))
    }
}

/// heeler's definition but for its commands: what README and conf.d/examples/puma.toml say, at Monit's pace.
const HEELERS: &str = "
every = \"5s\"
start_period = \"2s\"
stop_timeout = \"10s\"

[puma]
state = \"/home/deploy/apps/shop/shared/pids/puma.state\"
current = \"/home/deploy/apps/shop/current\"
workers = 3
rollback = \"symlink\"

[[check]]
type = \"puma\"
name = \"stands\"
for = \"3 of 5\"

[[check]]
type = \"http\"
url = \"http://127.0.0.1:9292/page\"
body = \"^ok$\"
timeout = \"5s\"
for = \"3 of 5\"
then = \"restart\"

[[check]]
type = \"worker\"
if = \"memory > 150MiB\"
for = \"3 of 5\"
then = \"recycle worker\"

[[check]]
type = \"worker\"
if = \"state = T\"
for = \"3 of 5\"
then = \"kill worker\"
";

/// The recipe that Rails guides have and most monitrc of Puma are made of, with the two rules that people
/// add to it most: the page and the memory of all.
fn monitrc(dir: &Path, way: Way) -> String {
    let shop = app("");
    let shop = shop.display();
    let pidfile = app("shared/pids/puma.pid");
    let (start, stop) = if way == Way::Managed {
        let systemctl = "XDG_RUNTIME_DIR=/run/user/$(id -u) /usr/bin/systemctl --user";
        (format!("{systemctl} start puma"), format!("{systemctl} stop puma"))
    } else {
        let stop = format!("/usr/bin/pumactl -S {shop}shared/pids/puma.state stop");
        (format!("{shop}start"), stop)
    };
    let own = |name: &str| PathBuf::from(dir).join(name).display().to_string();
    format!(
        "set daemon 5\nset log {}\nset pidfile {}\nset idfile {}\nset statefile {}\n\
         set httpd unixsocket {} allow monit:monit\n\
         check process shop with pidfile {}\n  \
           start program = \"/bin/bash -c '{start}'\" as uid \"deploy\" and gid \"deploy\"\n  \
           stop program = \"/bin/bash -c '{stop}'\" as uid \"deploy\" and gid \"deploy\"\n  \
           if failed host 127.0.0.1 port 9292 protocol http request \"/page\" with timeout 5 seconds \
             for 3 cycles then restart\n  \
           if totalmem > 300 MB for 3 cycles then restart\n",
        own("monit.log"),
        own("monit.pid"),
        own("monit.id"),
        own("monit.state"),
        own("monit.sock"),
        pidfile.display(),
    )
}

/// Which release its workers are to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wants {
    /// What `current` leads to.
    Current,
    /// Any: `current` leads nowhere.
    Any,
}

/// Every worker there is, whosever it is, by its title.
pub(crate) fn all_workers() -> Vec<u32> {
    let is = |pid: &u32| alive(*pid) && title(*pid).starts_with("puma: cluster worker");
    let mut found: Vec<_> = pids().into_iter().filter(is).collect();
    found.sort_by_key(|pid| title(*pid));
    found
}

/// Whether one master has all its workers and no other is left, none of those that were to go, all run
/// what they should, and every one of them answers.
pub(crate) fn is_well(gone: &BTreeSet<u32>, wants: Wants) -> bool {
    let crew = all_workers();
    let [master] = masters()[..] else { return false };
    let wanted = match wants {
        Wants::Current => match fs::canonicalize(app("current")) {
            Ok(path) => Some(path),
            Err(_) => return false,
        },
        Wants::Any => None,
    };
    let fits = |pid: &u32| {
        let works_in = fs::read_link(format!("/proc/{pid}/cwd")).ok();
        !gone.contains(pid)
            && parent(*pid) == Some(master)
            && (wanted.is_none() || works_in == wanted)
    };
    crew.len() == WORKERS && crew.iter().all(fits) && all_answer(&crew)
}

/// Whether each of them answers when all are asked at once.
fn all_answer(crew: &[u32]) -> bool {
    let asked: Vec<_> = (0..8 * WORKERS)
        .map(|_| {
            thread::spawn(|| {
                let said: serde_json::Value = serde_json::from_str(&get("/slow?s=0.1")?).ok()?;
                u32::try_from(said["pid"].as_u64()?).ok()
            })
        })
        .collect();
    let heard: BTreeSet<u32> =
        asked.into_iter().filter_map(|one| one.join().expect("a client")).collect();
    crew.iter().all(|pid| heard.contains(pid))
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

/// Whether it is well within this time and stays so for a while; and after how long it was.
pub(crate) fn wait_until_well(
    gone: &BTreeSet<u32>,
    wants: Wants,
    limit: Duration,
    mut meanwhile: impl FnMut(Duration),
) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() <= limit {
        let at = began.elapsed();
        if is_well(gone, wants) {
            // What was only begun is not over: a master that will die of it in a moment looks well.
            thread::sleep(STAYS);
            if is_well(gone, wants) {
                return Some(at);
            }
        }
        meanwhile(at);
        thread::sleep(Duration::from_millis(20));
    }
    None
}

/// Who is well so long after is well.
const STAYS: Duration = Duration::from_secs(3);
