//! What a service, its user or its surroundings may do to heeler, and must not get by it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::house::{House, PATIENCE, alive, signal};
use crate::support::{HEELER, Need, can_run, wait_for};

const QUICK: &str = "every = \"300ms\"\nstart_period = \"200ms\"\nstop_timeout = \"2s\"\n";

/// Whatever a process listens on is what clearing would take away: `NAME` writes its pidfile and stays.
const LISTENER: &str = r#"
use IO::Socket::INET;
my ($dir, $name, $children) = @ARGV;
my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', LocalPort => 0) or die $!;
{ open my $f, '>', "$dir/$name.new" or die; print $f "$$\n"; close $f; rename "$dir/$name.new", "$dir/$name.pid" or die }
for (1 .. $children) { last if !fork() }
sleep 1000 while 1;
"#;

#[test]
fn a_service_that_another_ones_start_began_is_not_what_that_one_left_behind() {
    let mut house = House::new("");
    house.write("srv/listener.pl", LISTENER);
    let srv = house.path("srv");
    let srv = srv.display();
    // No session of their own: both are in that of the start command of whoever started them.
    let both = format!(
        "for name in web api; do\n\
         kill -0 $(cat {srv}/$name.pid 2>/dev/null) 2>/dev/null && continue\n\
         nohup perl {srv}/listener.pl {srv} $name 1 >/dev/null 2>&1 &\n\
         while ! kill -0 $(cat {srv}/$name.pid 2>/dev/null) 2>/dev/null; do sleep 0.05; done\n\
         done\n"
    );
    house.write("srv/both.sh", &both);
    let define = |house: &House, name: &str| {
        let lines = format!(
            "pidfile = \"{srv}/{name}.pid\"\nstart = \"/bin/sh {srv}/both.sh {name}\"\n{QUICK}"
        );
        house.define(name, &lines);
    };
    define(&house, "web");
    house.open();
    let web = house.wait_up("web", None);
    wait_for("the other one to be up", PATIENCE, || srv_pid(&house, "api"));
    assert_eq!(house.close(), Some(0));
    define(&house, "api");
    house.open();
    let api = house.wait_up("api", None);
    assert_eq!(house.wait_up("web", None), web);
    signal(web, "KILL");
    let second = house.wait_up("web", Some(web));
    assert!(alive(api), "heeler took away a healthy service:\n{}", house.log());
    assert_eq!(house.pid("api"), Some(api));
    let told = house.log().lines().filter(|line| line.contains("SIGTERM")).count();
    assert_eq!(told, 1, "the dead one's own child, and nobody of the other's:\n{}", house.log());
    for main in [second, api] {
        let _children = Command::new("pkill").args(["-KILL", "-P", &main.to_string()]).status();
        signal(main, "KILL");
    }
}

fn srv_pid(house: &House, name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(house.path(&format!("srv/{name}.pid"))).ok()?;
    text.trim().parse().ok().filter(|pid| alive(*pid))
}

/// An ignored SIGCHLD passes an exec; the kernel then reaps shims by itself.
#[test]
fn heeler_started_with_sigchld_ignored_works_all_the_same() {
    let mut house = House::new("");
    house.daemon("shop", "", QUICK);
    let mut ignoring = Command::new("perl");
    ignoring.args(["-e", "$SIG{CHLD} = 'IGNORE'; exec @ARGV or die $!", HEELER]);
    house.open_by(ignoring);
    let first = house.wait_up("shop", None);
    signal(first, "KILL");
    house.wait_up("shop", Some(first));
}

/// Who can replace run_dir or state_dir writes heeler's records and definitions.
#[test]
fn what_heeler_knows_is_not_kept_where_a_user_can_replace_it() {
    if !can_run(&[Need::Root]) {
        return;
    }
    for key in ["run_dir", "state_dir"] {
        let house = House::new("");
        let home = house.path("home");
        std::fs::create_dir(&home).expect("a directory");
        std::os::unix::fs::chown(&home, Some(65534), None).expect("chown");
        let other = if key == "run_dir" { "state_dir" } else { "run_dir" };
        let settings = format!(
            "{key} = {:?}\n{other} = {:?}\nsocket = {:?}\n",
            home.join("dir"),
            house.path("other"),
            house.path("own/control.sock"),
        );
        house.write("conf.d/heeler.toml", &settings);
        // It ends by itself; `timeout` is for a heeler that does not.
        let mut heeler = Command::new("timeout");
        let heeler =
            heeler.args(["20", HEELER, "run"]).arg(house.path("conf.d")).output().expect("runs");
        let text = String::from_utf8_lossy(&heeler.stderr);
        assert!(!heeler.status.success() && text.contains("uid 65534"), "{key}: {text}");
    }
}

/// A file system whose server never answers, as a dead NFS: whoever looks into it waits for ever.
struct Hung(std::process::Child, std::path::PathBuf);

impl Hung {
    fn mount(at: std::path::PathBuf) -> Self {
        std::fs::create_dir(&at).expect("a directory");
        let options = "fd=3,rootmode=40000,user_id=0,group_id=0,allow_other";
        let script = format!(
            "exec 3<>/dev/fuse && mount -i -t fuse -o {options} hung {} && echo up && exec sleep 1000",
            at.display()
        );
        let mut server = Command::new("bash")
            .args(["-c", &script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("bash");
        let mut up = [0; 3];
        let stdout = server.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(stdout, &mut up).expect("the mount");
        Self(server, at)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // With its server gone, whoever waits in it is told.
        let _killed = self.0.kill().and_then(|()| self.0.wait());
        let _unmounted = Command::new("umount").arg("-l").arg(&self.1).status();
    }
}

/// More of them than the pool has threads, each with a pidfile that now leads where looking never ends.
#[test]
fn pidfiles_that_lead_into_a_hung_file_system_hold_up_no_other_service() {
    if !can_run(&[Need::Root]) || !std::path::Path::new("/dev/fuse").exists() {
        return;
    }
    let mut house = House::new("");
    let hung = Hung::mount(house.path("hung"));
    let names: Vec<_> = (1..=5).map(|n| format!("evil{n}")).collect();
    for name in names.iter().map(String::as_str).chain(["shop"]) {
        house.daemon(name, "", QUICK);
    }
    house.open();
    let evil: Vec<_> = names.iter().map(|name| house.wait_up(name, None)).collect();
    let shop = house.wait_up("shop", None);
    for name in &names {
        let link = house.path(&format!("srv/{name}.link"));
        std::os::unix::fs::symlink(house.path("hung/x.pid"), &link).expect("link");
        std::fs::rename(&link, house.path(&format!("srv/{name}.pid"))).expect("rename");
    }
    wait_for("somebody to look into it", PATIENCE, || {
        let tasks = format!("/proc/{}/task", house.keeper());
        let names = std::fs::read_dir(tasks).ok()?.flatten();
        let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        (names.filter(|name| name.trim() == "heeler-files").count() >= 4).then_some(())
    });
    signal(shop, "KILL");
    house.wait_up("shop", Some(shop));
    drop(hung);
    for pid in evil {
        signal(pid, "KILL");
    }
}

/// Every survivor that is waited for costs a descriptor.
#[test]
fn a_service_that_leaves_a_thousand_processes_holds_up_no_other() {
    let mut house = House::new("");
    house.daemon("swarm", "swarm=1200", QUICK);
    house.daemon("shop", "", QUICK);
    let mut few = Command::new("sh");
    // A small limit, and one that heeler cannot raise.
    few.args(["-c", "ulimit -n 700; exec \"$@\"", "sh", HEELER]).process_group(0);
    house.open_by(few);
    let (swarm, shop) = (house.wait_up("swarm", None), house.wait_up("shop", None));
    signal(swarm, "KILL");
    house.wait_words("swarm", "clearing");
    signal(shop, "KILL");
    house.wait_up("shop", Some(shop));
    house.wait_words("swarm", "clearing");
    let _gone = Command::new("pkill").args(["-KILL", "-s", &swarm.to_string()]).status();
    house.wait_up("swarm", Some(swarm));
}
