//! Who a command is, and what it is given: EXE-01 to 10, 14, 15, 19, 21.

use std::process::Command as Process;

use heeler::model::job::Ended;
use heeler::model::process::Exit;

use crate::support::{HEELER, Need, can_run};
use crate::world::{LONG_NAME, World, job, text};

/// What a shell that a careless admin started heeler from may hand down: secrets, ignored signals,
/// 20 descriptors (one on the password file), a umask, priority, a raised file limit and OOM score.
const DIRTY: &str = r#"
export FOO_SECRET=hunter2 BASH_ENV=/tmp/evil RUBYOPT=-revil NOTIFY_SOCKET=/run/n
export LD_LIBRARY_PATH=/evil
export SSH_AUTH_SOCK=/a SUDO_USER=x PYTHONPATH=/p TERM=xterm LISTEN_FDS=3
export XDG_RUNTIME_DIR=/run/user/0
trap '' TERM HUP PIPE USR1 INT CHLD
for n in $(seq 10 28); do eval "exec $n</dev/null"; done
exec 29</etc/shadow
umask 077
echo 300 >/proc/self/oom_score_adj
cd /root
exec nice -n -5 prlimit --nofile=4096:10000 "$@"
"#;

/// Credentials, signals and capabilities: read by the command itself, since a shell blocks signals
/// while it starts another program.
const STATUS: [&str; 4] = [
    "grep",
    "-E",
    "^(Uid|Gid|Groups|Sig(Blk|Ign)|CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs)",
    "/proc/self/status",
];

/// The rest of what an exec keeps, as the kernel shows it.
const REPORT: &str = r#"
id; umask; pwd
for n in 0 1 2; do echo "fd $n $(readlink /proc/$$/fd/$n | sed 's/:.*//')"; done
ps -o ni=,cls=,tty= -p $$ | xargs
cat /proc/$$/oom_score_adj
grep 'open files' /proc/$$/limits | xargs
[ "$(ps -o sid= -p $$ | xargs)" = "$$" ] && [ "$(ps -o pgid= -p $$ | xargs)" = "$$" ] && echo leads
"#;

fn dirty(argv: &[&str]) -> String {
    let output = Process::new("bash")
        .args(["-c", DIRTY, "bash", HEELER, "run-as", "deploy", "--"])
        .args(argv)
        .output()
        .expect("run");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn exe_03_the_environment_is_the_table_byte_for_byte() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let expected = [
        &format!("HOME={}", world.path("deploy").display()),
        "USER=deploy",
        "LOGNAME=deploy",
        "SHELL=/bin/bash",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        "HEELER_SERVICE=run-as",
        "HEELER_ACTION=exec",
        "HEELER_REASON=asked for on the command line",
    ];
    if std::path::Path::new("/etc/default/locale").exists() {
        let locale = std::fs::read_to_string("/etc/default/locale").expect("read");
        assert!(!locale.contains("\nLANG="), "this machine has a locale; the test knows none");
    }
    assert_eq!(dirty(&["cat", "/proc/self/environ"]), expected.join("\0") + "\0");
    let shown = Process::new(HEELER).args(["env", "deploy"]).output().expect("run");
    assert_eq!(String::from_utf8_lossy(&shown.stdout), expected.join("\n") + "\n");
}

/// EXE-05, EXE-06, EXE-19.
#[test]
fn exe_05_06_19_nothing_of_a_dirty_shell_gets_through() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let report = dirty(&["sh", "-c", REPORT]);
    let home = world.path("deploy").display().to_string();
    // Hard: 524288 where heeler may raise it (CAP_SYS_RESOURCE), else what it had itself.
    let caps = std::fs::read_to_string("/proc/self/status").expect("read");
    let caps = caps.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("caps");
    let may_raise = u64::from_str_radix(caps, 16).expect("hex") & (1 << 24) != 0;
    let hard = if may_raise { 524_288 } else { 10_000 };
    let expected = format!(
        "uid=1500(deploy) gid=1500(deploy) groups=1500(deploy),1601(ops),1602(web),1603(db)\n\
         0022\n{home}\nfd 0 /dev/null\nfd 1 pipe\nfd 2 pipe\n0 TS ?\n0\n\
         Max open files 1024 {hard} files\nleads\n"
    );
    assert_eq!(report, expected);
    let none = "0000000000000000";
    let expected = format!(
        "Uid:\t1500\t1500\t1500\t1500\nGid:\t1500\t1500\t1500\t1500\n\
         Groups:\t1500 1601 1602 1603 \nSigBlk:\t{none}\nSigIgn:\t{none}\nCapInh:\t{none}\n\
         CapPrm:\t{none}\nCapEff:\t{none}\nCapAmb:\t{none}\nNoNewPrivs:\t0\n"
    );
    assert_eq!(dirty(&STATUS), expected);
    // The fourth is the directory that ls itself reads.
    assert_eq!(dirty(&["ls", "/proc/self/fd"]), "0\n1\n2\n3\n");
}

#[test]
fn the_shim_itself_gives_the_same_as_run_as() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let lines = |text: &str| -> Vec<String> {
        // The file limit differs: the keeper's own is the shim's, not the dirty shell's.
        text.lines().filter(|line| !line.contains("open files")).map(str::to_owned).collect()
    };
    for argv in [&["sh", "-c", REPORT][..], &STATUS, &["ls", "/proc/self/fd"]] {
        let shim = text(&world.outcome(&job("deploy", argv))).replace("\\t", "\t");
        assert_eq!(lines(&shim), lines(&dirty(argv)));
    }
}

#[test]
fn credentials_are_those_of_setpriv() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/setpriv", "util-linux")]) {
        return;
    }
    let world = World::new();
    let what = ["grep", "-E", "^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapAmb)", "/proc/self/status"];
    for user in ["deploy", "many", "ghost"] {
        let theirs = Process::new("setpriv")
            .args(["--reuid", user, "--regid", user, "--init-groups", "--reset-env"])
            .args(what)
            .output()
            .expect("setpriv");
        assert_eq!(world.run_as(user, &what).stdout, theirs.stdout, "{user}");
    }
}

/// EXE-01, EXE-02.
#[test]
fn exe_01_02_groups_are_those_of_id() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    for (user, groups) in [("deploy", 4), ("many", 202), (LONG_NAME, 1)] {
        let id = Process::new("id").args(["-G", user]).output().expect("id");
        let ours = world.run_as(user, &["id", "-G"]);
        let sorted = |bytes: &[u8]| {
            let mut all: Vec<String> =
                String::from_utf8_lossy(bytes).split_whitespace().map(str::to_owned).collect();
            all.sort();
            all
        };
        assert_eq!(sorted(&ours.stdout), sorted(&id.stdout), "{user}");
        assert_eq!(sorted(&ours.stdout).len(), groups, "{user}");
    }
}

#[test]
fn exe_07_nobody_is_never_root() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let mark = world.path("mark").display().to_string();
    for user in ["nosuchuser", "59123", "", "4294967295", "minus"] {
        let why = world.refusal(&job(user, &["touch", &mark]));
        assert!(why.starts_with("find the user: "), "{user:?}: {why}");
    }
    let mut wrong_group = job("deploy", &["touch", &mark]);
    wrong_group.group = Some("nosuchgroup".into());
    assert!(world.refusal(&wrong_group).contains("group not found: nosuchgroup"));
    assert!(!world.path("mark").exists(), "something was executed");
}

#[test]
fn exe_08_a_home_that_fails_is_told_and_a_configured_directory_that_fails_is_an_error() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let lines = text(&world.outcome(&job("ghost", &["pwd"])));
    assert_eq!(
        lines,
        "/\nheeler: the command ran in /, since its home failed: /nowhere does not exist"
    );
    let lines = text(&world.outcome(&job("locked", &["pwd"])));
    assert!(lines.starts_with("/\n") && lines.contains("locked may not enter"), "{lines}");
    let mut configured = job("deploy", &["pwd"]);
    configured.cwd = Some(world.path("locked").join("deep"));
    let why = world.refusal(&configured);
    let dir = world.path("locked").display().to_string();
    assert!(why.starts_with("change directory: deploy may not search the directory"), "{why}");
    assert!(why.contains(&dir), "{why}");
}

#[test]
fn exe_10_a_user_without_a_shell_runs_commands() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let outcome = world.outcome(&job("ghost", &["sh", "-c", "echo $SHELL $(id -un)"]));
    assert!(text(&outcome).starts_with("/bin/sh ghost\n"), "{}", text(&outcome));
}

#[test]
fn exe_14_a_refused_drop_executes_nothing_and_names_the_step() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/unshare", "util-linux")]) {
        return;
    }
    let world = World::new();
    let refused = |before: &[&str], call: &str| {
        let output = Process::new(before[0])
            .args(&before[1..])
            .args([HEELER, "run-as", "deploy", "--", "id"])
            .output()
            .expect("run");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{error}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(error.contains(&format!("failed to become the user: {call}: ")), "{error}");
    };
    // Root of a user namespace that knows no other user, and root without the right.
    refused(&["unshare", "-U", "-r"], "setgroups");
    refused(&["setpriv", "--bounding-set=-setgid"], "setgroups");
    refused(&["setpriv", "--bounding-set=-setuid"], "setresuid");
    drop(world);
}

#[test]
fn without_root_there_is_only_oneself() {
    if !can_run(&[Need::Root, Need::Program("/usr/bin/setpriv", "util-linux")]) {
        return;
    }
    let world = World::new();
    let copy = world.path("heeler");
    // By another process: while this one had it open for writing, another test's fork would too.
    let copied = Process::new("cp").arg(HEELER).arg(&copy).status().expect("cp");
    assert!(copied.success());
    let as_deploy = |user: &str| {
        Process::new("setpriv")
            .args(["--reuid", "deploy", "--regid", "deploy", "--init-groups"])
            .arg(&copy)
            .args(["run-as", user, "--", "id", "-un"])
            .output()
            .expect("run")
    };
    let own = as_deploy("deploy");
    assert_eq!(String::from_utf8_lossy(&own.stdout), "deploy\n", "{own:?}");
    for other in ["root", "many", "nosuchuser"] {
        let refused = as_deploy(other);
        assert_eq!(refused.status.code(), Some(5), "{refused:?}");
        assert!(refused.stdout.is_empty());
    }
}

#[test]
fn exe_15_arguments_are_passed_literally() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let odd = ["a b", "\"q\" 'r'", "$(id)", "; rm -rf /", "*", "", "-n", "ü\\"];
    let argv = [&["printf", "<%s>"][..], &odd].concat();
    let expected: String = odd.iter().map(|arg| format!("<{arg}>")).collect();
    assert_eq!(text(&world.outcome(&job("deploy", &argv))), expected);
}

#[test]
fn exe_21_another_group_keeps_the_users_own() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let mut job = job("deploy", &["id"]);
    job.group = Some("other".into());
    let outcome = world.outcome(&job);
    let id = "uid=1500(deploy) gid=1604(other) \
              groups=1604(other),1500(deploy),1601(ops),1602(web),1603(db)";
    assert_eq!(text(&outcome), id);
    assert_eq!(outcome.ended, Ended::Exited(Exit::Code(0)));
}

#[test]
fn a_missing_user_manager_is_explained_when_the_command_fails() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let argv = ["sh", "-c", "echo no bus; exit 1 # systemctl --user start x"];
    let lines = text(&world.outcome(&job("deploy", &argv)));
    assert!(lines.contains("/run/user/1500 is missing"), "{lines}");
    assert!(lines.ends_with("`loginctl enable-linger deploy` makes it, now and at every boot"));
    let fine = ["sh", "-c", "exit 0 # systemctl --user start x"];
    assert_eq!(text(&world.outcome(&job("deploy", &fine))), "");
}
