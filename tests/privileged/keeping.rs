//! The shim as a parent: locks, deadlines, output, and what outlives what.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use heeler::model::job::{AtDeadline, Ended, JobKind};
use heeler::model::process::{Exit, Pid};
use heeler::wire::shim::Plan;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid as RawPid;

use crate::support::{Need, can_run, wait_for};
use crate::world::{World, job, lives, now, text};

const SOON: Duration = Duration::from_secs(10);
/// A deadline by which a command has begun, on a busy machine too.
const BEGUN: Duration = Duration::from_secs(2);

fn end(pid: Pid, signal: Signal) {
    kill(RawPid::from_raw(pid.0), signal).expect("kill");
}

/// Waits for a file of a pid, written by a test's command.
fn pid_in(world: &World, name: &str) -> Pid {
    let path = world.path("deploy").join(name);
    wait_for(name, SOON, || fs::read_to_string(&path).ok()?.trim().parse().ok().map(Pid))
}

#[test]
fn the_lock_is_busy_for_the_life_of_the_command_and_free_when_its_end_is_told() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let running = world.spawn(&job("deploy", &["sh", "-c", "ls -l /proc/$$/fd; exec sleep 30"]));
    assert_eq!(running.status(), Some(b'L'), "executed");
    assert!(world.lock().is_none(), "an action lives");
    let record = running.child();
    assert_eq!(record.shim.pid, running.shim.pid);
    assert!(record.cgroup.starts_with('/'));
    let stat = fs::read_to_string(format!("/proc/{}/stat", record.child.pid)).expect("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a stat").1.split_whitespace().collect();
    assert_eq!(fields[3], record.child.pid.to_string(), "its own session");
    assert_eq!(fields[19], record.child.started_ticks.to_string());
    let title = fs::read_to_string(format!("/proc/{}/cmdline", running.shim.pid)).expect("title");
    assert_eq!(title, "heeler\0shim\0shop\0start\0");
    // What is meant for heeler does not end the command.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        end(running.shim.pid, signal);
    }
    end(record.child.pid, Signal::SIGUSR1);
    assert_eq!(running.status(), None);
    assert!(world.lock().is_some(), "free as soon as the end is told");
    let outcome = running.outcome();
    assert_eq!(outcome.ended, Ended::Exited(Exit::Signal(10)));
    assert!(!text(&outcome).contains("lock"), "the command had the lock: {}", text(&outcome));
    assert_eq!(running.wait_for_exit(), Exit::Code(0));
}

#[test]
fn a_killed_shim_frees_the_lock_and_leaves_the_command_alone() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let running = world.spawn(&job("deploy", &["sleep", "30"]));
    assert_eq!(running.status(), Some(b'L'));
    let child = running.child().child.pid;
    end(running.shim.pid, Signal::SIGKILL);
    assert_eq!(running.status(), None);
    assert_eq!(running.recorded(), None);
    assert_eq!(running.wait_for_exit(), Exit::Signal(9));
    assert!(world.lock().is_some());
    assert!(lives(child));
    end(child, Signal::SIGKILL);
}

#[test]
fn a_plan_cut_anywhere_executes_nothing() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let job = job("deploy", &["touch", "mark"]);
    let plan = Plan { boot: "test".into(), records: world.records(), cgroup: None, job };
    let frame = plan.encode().expect("encode");
    for cut in 0..frame.len() {
        let running = world.spawn_plan(&frame[..cut]);
        assert_eq!(running.status(), None, "cut at {cut}");
        assert_eq!(running.wait_for_exit(), Exit::Code(2), "cut at {cut}");
    }
    assert!(!world.path("deploy").join("mark").exists());
    assert!(world.spawn_plan(&frame).outcome().ended.succeeded());
    assert!(world.path("deploy").join("mark").exists(), "the whole plan does");
}

#[test]
fn exe_16_a_daemon_that_keeps_stdout_is_not_waited_for_and_lives_on() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let script = "(while echo still here; do sleep 0.02; done; echo died >died) & \
                  echo $! >daemon; echo started";
    let began = Instant::now();
    let running = world.spawn(&job("deploy", &["sh", "-c", script]));
    let outcome = running.outcome();
    assert!(outcome.ended.succeeded());
    // Waited for, it would be there until the job's deadline.
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(world.lock().is_some(), "the action is over");
    let daemon = pid_in(&world, "daemon");
    // It prints on for many pipe-fuls of turns: it must neither block nor get SIGPIPE.
    std::thread::sleep(Duration::from_millis(300));
    assert!(lives(daemon) && lives(running.shim.pid));
    end(daemon, Signal::SIGKILL);
    assert_eq!(running.wait_for_exit(), Exit::Code(0), "drained to the end, then gone");
}

#[test]
fn exe_17_much_output_costs_no_memory() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let script = "echo first; head -c 104857600 /dev/zero | tr '\\0' x; echo; echo last; \
                  echo $$ >ready; read x <go";
    nix::unistd::mkfifo(
        &world.path("deploy").join("go"),
        nix::sys::stat::Mode::from_bits_truncate(0o666),
    )
    .expect("fifo");
    std::os::unix::fs::chown(world.path("deploy").join("go"), Some(1500), None).expect("chown");
    let running = world.spawn(&job("deploy", &["sh", "-c", script]));
    assert_eq!(running.status(), Some(b'L'));
    let field = |name: &str| {
        let status =
            fs::read_to_string(format!("/proc/{}/status", running.shim.pid)).expect("status");
        let line = status.lines().find(|line| line.starts_with(name)).expect("a field").to_owned();
        line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("kB")
    };
    let before_kb = field("RssAnon");
    pid_in(&world, "ready");
    let after_kb = field("RssAnon");
    fs::write(world.path("deploy").join("go"), "go\n").expect("go");
    let outcome = running.outcome();
    assert!(after_kb < before_kb + 1024, "{before_kb} kB -> {after_kb} kB");
    assert!(outcome.output.head.raw().starts_with("first\n"));
    assert!(outcome.output.tail.raw().ends_with("\nlast\n"));
    assert_eq!(outcome.output.dropped_bytes, 6 + 104_857_600 + 1 + 5 - 8192);
}

#[test]
fn at_the_deadline_only_the_direct_child_is_ended() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let script = "sleep 30 & echo $! >late; exec sleep 30";
    let mut job = job("deploy", &["sh", "-c", script]);
    job.deadline = now() + BEGUN;
    let running = world.spawn(&job);
    let outcome = running.outcome();
    assert_eq!(outcome.ended, Ended::TimedOut);
    let late = pid_in(&world, "late");
    assert!(lives(late), "the service that comes up late");
    assert!(!lives(running.child().child.pid));
    end(late, Signal::SIGKILL);
}

#[test]
fn at_the_deadline_the_whole_group_is_ended_even_if_it_ignores_term() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    // The child goes at TERM; its own child ignores it, and has let go of the output.
    let script = "(trap '' TERM; exec sleep 31) >/dev/null 2>&1 & echo $! >stubborn; exec sleep 30";
    let mut quiet = job("deploy", &["sh", "-c", script]);
    quiet.kind = JobKind::Exec;
    quiet.at_deadline = AtDeadline::Group;
    quiet.deadline = now() + BEGUN;
    assert_eq!(world.outcome(&quiet).ended, Ended::TimedOut);
    let stubborn = pid_in(&world, "stubborn");
    wait_for("the group's end", SOON, || (!lives(stubborn)).then_some(()));
    fs::remove_file(world.path("deploy").join("stubborn")).expect("remove");
    // And one that stays, holding the output: KILL after the grace.
    let script = "trap '' TERM; echo $$ >stubborn; while :; do sleep 0.1; done";
    let mut loud = quiet.clone();
    loud.command.argv[2] = script.into();
    loud.deadline = now() + BEGUN;
    let outcome = world.outcome(&loud);
    assert_eq!(outcome.ended, Ended::TimedOut);
    assert!(outcome.took > Duration::from_secs(5), "it had its grace: {:?}", outcome.took);
    assert!(!lives(pid_in(&world, "stubborn")));
}

#[test]
fn a_stopped_command_is_continued_to_be_ended_and_a_passed_deadline_begins_nothing() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let mut stopped = job("deploy", &["sh", "-c", "kill -STOP $$"]);
    stopped.deadline = now() + BEGUN;
    let outcome = world.outcome(&stopped);
    assert_eq!(outcome.ended, Ended::TimedOut);
    // Not continued, it would be there until KILL, five seconds after its deadline.
    assert!(outcome.took < BEGUN + Duration::from_secs(4), "{:?}", outcome.took);
    stopped.deadline = now();
    assert!(world.refusal(&stopped).starts_with("begin in time: "));
}

#[test]
fn a_directory_or_file_that_hangs_costs_only_the_deadline_and_is_named() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    // The user database is a pipe nobody writes to: the look-up hangs, as with a dead LDAP.
    let fifo = world.path("passwd.fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("fifo");
    let none = None::<&str>;
    nix::mount::mount(Some(&fifo), "/etc/passwd", none, nix::mount::MsFlags::MS_BIND, none)
        .expect("bind mount");
    let mut hung = job("deploy", &["true"]);
    hung.deadline = now() + BEGUN;
    let began = Instant::now();
    let why = world.refusal(&hung);
    assert!(why.starts_with("find the user: there was no answer before the deadline"), "{why}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(world.lock().is_some());
    // Mounted over the world's own file, it would keep that from being removed.
    nix::mount::umount("/etc/passwd").expect("unmount");
}

#[test]
fn a_child_whose_shim_died_before_the_exec_executes_nothing() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    // The system's locale is a pipe: the child, already deploy, hangs while it reads it.
    let defaults = world.path("default");
    fs::create_dir(&defaults).expect("mkdir");
    fs::set_permissions(&defaults, fs::Permissions::from_mode(0o755)).expect("chmod");
    let fifo = defaults.join("locale");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("fifo");
    let none = None::<&str>;
    nix::mount::mount(Some(&defaults), "/etc/default", none, nix::mount::MsFlags::MS_BIND, none)
        .expect("bind mount");
    let running = world.spawn(&job("deploy", &["touch", "mark"]));
    // Opening it for writing waits until the child reads it: it is there.
    let mut writer = fs::File::options().write(true).open(&fifo).expect("open");
    let child = running.child().child.pid;
    end(running.shim.pid, Signal::SIGKILL);
    assert_eq!(running.wait_for_exit(), Exit::Signal(9));
    assert!(world.lock().is_some(), "a child on its way does not hold the lock");
    std::io::Write::write_all(&mut writer, b"LANG=C.UTF-8\n").expect("answer");
    drop(writer);
    wait_for("the child's end", SOON, || (!lives(child)).then_some(()));
    assert!(!world.path("deploy").join("mark").exists(), "it was executed without a keeper");
}

#[test]
fn an_instance_has_no_deadline_and_records_in_its_own_slot() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let mut job = job("deploy", &["sh", "-c", "sleep 0.3; exit 3"]);
    job.kind = JobKind::Instance;
    job.deadline = heeler::model::time::Mono::NEVER;
    let running = world.spawn(&job);
    running.end();
    assert_eq!(running.recorded(), None);
    let bytes = fs::read(world.records().join("instance.outcome")).expect("a record");
    let record = <heeler::wire::shim::OutcomeRecord as heeler::wire::shim::Record>::decode(&bytes);
    assert_eq!(record.expect("decodes").outcome.ended, Ended::Exited(Exit::Code(3)));
}

#[test]
fn the_resolver_answers_line_by_line() {
    use heeler::wire::resolve::{Answer, Question};
    use std::io::{BufRead, BufReader, Write};
    if !can_run(&[Need::Root]) {
        return;
    }
    let world = World::new();
    let resolver = heeler::sys::spawn::spawn_resolver(&world.exe).expect("spawn");
    let mut stdin = fs::File::from(resolver.stdin);
    for question in [
        Question::User("deploy".into()),
        Question::Group("ops".into()),
        Question::User("nosuchuser".into()),
        Question::Group("nosuchgroup".into()),
    ] {
        stdin.write_all(question.encode().as_bytes()).expect("ask");
    }
    drop(stdin);
    let exit =
        wait_for("its end", SOON, || heeler::sys::spawn::reap(&resolver.pidfd).expect("reap"));
    assert_eq!(exit, Exit::Code(0));
    let lines = BufReader::new(fs::File::from(resolver.stdout)).lines();
    let answers: Vec<Answer> =
        lines.map(|line| Answer::decode(&line.expect("a line")).expect("an answer")).collect();
    let name = |name: &str| name.to_owned();
    let home = world.path("deploy");
    use heeler::model::process::{Gid, Uid};
    assert_eq!(
        answers,
        [
            Answer::User { name: name("deploy"), uid: Uid(1500), gid: Gid(1500), home },
            Answer::Group { name: name("ops"), gid: Gid(1601) },
            Answer::Missing { name: name("nosuchuser") },
            Answer::Missing { name: name("nosuchgroup") },
        ]
    );
}
