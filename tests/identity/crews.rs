//! Workers of a main process: who is one, what is read of each, and which of them may be signalled.

use std::fs;
use std::path::Path;

use heeler::model::process::{Ours, Pid, Signal, Uid};
use heeler::model::sample::Needs;
use heeler::model::workers::{Presence, Worker, WorkerNeeds};
use heeler::sys::sampler::Tree;
use heeler::sys::signal::{Delivered, send};
use heeler::sys::workers::{Crew, Pattern, Proving, look, prove, target};

use crate::lab::{self, NOBODY, Others, Process, SOON, WWW};
use crate::support::{Need, can_run, wait_for};

const NEEDS: [Need; 2] = [Need::Root, Need::Program("/usr/bin/perl", "perl-base")];
const WORKER: &str = r"^crew: worker \d+";
const ALL: WorkerNeeds = WorkerNeeds {
    process: Needs {
        pss_above_bytes: Some(0),
        rss: true,
        private: true,
        cpu: true,
        stat: true,
        fds: true,
        io: true,
        children: false,
        tree_cpu: false,
        tree_pss: false,
    },
    release: true,
};

/// A master that forks what `children` says, each with a title, and prints their numbers.
fn crew(children: &str, uid: u32) -> (Process, Vec<Pid>, Others) {
    let program = format!(
        r#"$0 = "crew: master"; my @all;
        sub hand {{ my ($title, $more) = @_; pipe my $in, my $out; my $pid = fork;
          unless ($pid) {{ $0 = $title; $more->() if $more; syswrite $out, "."; sleep 1000 while 1 }}
          close $out; sysread $in, my $b, 1; push @all, $pid; $pid }}
        {children}
        print join(" ", @all), "\n"; sleep 1000 while 1"#
    );
    let (process, mut lines) = Process::perl(&program, uid);
    let line = lines.next().expect("a line").expect("readable");
    let pids: Vec<Pid> =
        line.split_whitespace().map(|pid| Pid(pid.parse().expect("a number"))).collect();
    let others = Others(pids.iter().map(|pid| lab::hold(*pid)).collect());
    (process, pids, others)
}

fn of(uid: u32) -> Pattern {
    Pattern::new(WORKER, Uid(uid)).expect("a pattern")
}

fn see(main: &Process, uid: u32) -> Crew {
    look(lab::hold(main.pid()).held(), &of(uid), ALL, None).expect("seen")
}

fn pids(crew: &Crew) -> Vec<Pid> {
    crew.workers.iter().map(|hand| hand.worker.identity().pid).collect()
}

#[test]
fn children_and_grandchildren_are_found_by_title_and_read_once() {
    if !can_run(&NEEDS) {
        return;
    }
    let place = lab::Place::new();
    let (one, two) = (place.directory("r1", WWW), place.directory("r2 (deleted)", WWW));
    let program = format!(
        r#"hand("crew: worker 0", sub {{ chdir "{}" or die; my $x = "x" x (20 << 20);
             unless (fork) {{ $0 = "crew: worker 1"; sleep 1000 while 1 }} }});
           hand("crew: worker 2", sub {{ chdir "{}" or die }});
           hand("crew: log writer"); hand("");"#,
        one.display(),
        two.display()
    );
    let (main, forked, _others) = crew(&program, WWW);
    // A child has its title before it sleeps, and its last words to the crew cost it a moment.
    let seen = wait_for("three workers and their master asleep", SOON, || {
        let seen = see(&main, WWW);
        let states = seen.workers.iter().map(|hand| hand.worker.sample.state);
        let asleep = states.chain([seen.master.state]).all(|state| state == Some('S'));
        (seen.workers.len() == 3 && asleep).then_some(seen)
    });
    let by = |index: usize| -> &Worker {
        let title = format!("crew: worker {index}");
        &seen.workers.iter().find(|hand| hand.worker.title.raw() == title).expect("is one").worker
    };
    assert_eq!((by(0).identity().pid, by(2).identity().pid), (forked[0], forked[1]));
    assert_eq!((by(0).parent, by(1).parent), (main.pid(), forked[0]));
    let _grandchild = Others(vec![lab::hold(by(1).identity().pid)]);
    let sample = &by(0).sample;
    let (rss, pss) = (sample.rss_bytes.expect("rss"), sample.pss_bytes.expect("pss"));
    assert!(rss > 20 << 20 && pss > 10 << 20 && pss <= rss, "{rss} {pss}");
    assert!(sample.private_bytes.is_some() && sample.cpu_ms.is_some() && sample.fds.is_some());
    assert_eq!(sample.threads, Some(1));
    let path = |worker: &Worker| worker.release.clone().expect("readable").path.raw().to_owned();
    assert_eq!(path(by(0)), one.to_str().expect("text"));
    assert_eq!(path(by(2)), two.to_str().expect("text"), "a name may end like that");
    assert!(seen.workers.iter().all(|hand| hand.worker.ours == Ours::Proved));
    assert!(seen.workers.iter().all(|hand| hand.worker.program == Some(Presence::There)));
    let release = seen.master.release.expect("readable");
    assert_eq!(release.presence, Presence::There);
    // The same by a pass over all processes.
    let tree = Tree::scan().expect("a tree");
    let held = lab::hold(main.pid());
    let by_tree = look(held.held(), &of(WWW), ALL, Some(&tree)).expect("seen");
    assert_eq!(pids(&by_tree), pids(&see(&main, WWW)));
}

#[test]
fn a_release_that_was_deleted_is_seen_of_master_and_workers() {
    if !can_run(&NEEDS) {
        return;
    }
    let place = lab::Place::new();
    let release = place.directory("r1", WWW);
    let program = format!(
        r#"chdir "{}" or die; hand("crew: worker 0"); hand("crew: worker 1", sub {{ chdir "/" }});"#,
        release.display()
    );
    let (main, _, _others) = crew(&program, WWW);
    fs::remove_dir(&release).expect("removed");
    let seen = see(&main, WWW);
    let gone = |presence| match presence {
        Presence::Deleted => release.to_str().expect("text"),
        Presence::There => "/",
    };
    let of_workers: Vec<_> =
        seen.workers.iter().map(|hand| hand.worker.release.clone().expect("readable")).collect();
    assert_eq!(of_workers.iter().filter(|it| it.presence == Presence::Deleted).count(), 1);
    for it in of_workers.iter().chain(&seen.master.release) {
        assert_eq!(it.path.raw(), gone(it.presence));
    }
    assert_eq!(seen.master.release.expect("readable").presence, Presence::Deleted);
}

#[test]
fn nothing_is_read_that_was_not_asked_for() {
    if !can_run(&NEEDS) {
        return;
    }
    let (main, _, _others) = crew(r#"hand("crew: worker 0");"#, WWW);
    let held = lab::hold(main.pid());
    let seen = look(held.held(), &of(WWW), WorkerNeeds::default(), None).expect("seen");
    let worker = &seen.workers[0].worker;
    assert_eq!((&worker.release, worker.program, worker.sample.cpu_ms), (&None, None, None));
    assert_eq!((worker.sample.rss_bytes, worker.sample.pss_bytes), (None, None));
}

#[test]
fn workers_are_found_behind_elder_siblings_that_end_meanwhile() {
    if !can_run(&NEEDS) {
        return;
    }
    // The kernel goes on from where a child that ended was, and may pass over the next.
    let program = r#"$SIG{CHLD} = "IGNORE"; pipe my $go, my $gone;
        for my $n (1 .. 400) {
          next if fork;
          close $gone; sysread $go, my $b, 1; select undef, undef, undef, $n / 400; exit
        }
        hand("crew: worker $_", sub { close $gone }) for 0..4; close $gone;"#;
    let (main, _, _others) = crew(program, WWW);
    let siblings = || {
        let pid = main.pid();
        let children = fs::read(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split(|byte| *byte == b' ').count()
    };
    let mut looks = 0;
    while looks < 20 || siblings() > 20 {
        looks += 1;
        assert_eq!(see(&main, WWW).workers.len(), 5, "in look {looks}");
    }
}

#[test]
fn only_a_worker_may_be_signalled() {
    if !can_run(&NEEDS) {
        return;
    }
    let program = r#"my $w = hand("crew: worker 0"); hand("crew: log writer");
        hand("crew: worker 1", sub { $> = 65534; $< = 65534 });
        hand("crew: worker 2", sub { unless (fork) { $0 = "crew: worker 3"; sleep 1000 while 1 } });"#;
    let (main, forked, _others) = crew(program, 0);
    let held = lab::hold(main.pid());
    let main_held = held.held();
    let reason = |pid, uid| match prove(main_held, lab::identity_of(pid), &of(uid)) {
        Proving::Refused(why) => why.to_string(),
        other => panic!("{other:?} is not refused"),
    };
    assert!(reason(forked[1], 0).contains("calls itself \"crew: log writer\""));
    assert!(reason(forked[2], 0).contains("belongs to uid 65534, not to 0"));
    assert!(reason(forked[0], WWW).contains("belongs to uid 0, not to 33"));
    assert!(reason(main.pid(), 0).contains("the main process itself"));
    assert!(reason(Pid(1), 0).contains("not anybody's worker"));
    // A stranger with a worker's title.
    let (stranger, _, _strangers) = crew(r#"hand("crew: log writer"); $0 = "crew: worker 9";"#, 0);
    assert!(reason(stranger.pid(), 0).contains("does not descend from"));
    // A number that another process had before.
    let mut other = lab::identity_of(forked[0]);
    other.started_ticks -= 1;
    assert!(matches!(prove(main_held, other, &of(0)), Proving::Gone));

    // By the user that the workers have; a grandchild; and it is really signalled.
    let seen = wait_for("the grandchild", SOON, || {
        let seen = see(&main, 0);
        (seen.workers.len() == 4).then_some(seen)
    });
    let foreign: Vec<_> =
        seen.workers.iter().filter(|hand| hand.worker.ours == Ours::Foreign).collect();
    assert_eq!(foreign.len(), 1);
    assert_eq!(foreign[0].worker.identity().pid, forked[2]);
    assert!(matches!(
        prove(main_held, lab::identity_of(forked[2]), &of(NOBODY)),
        Proving::Proved(_)
    ));
    let grandchild = seen.workers.iter().find(|hand| hand.worker.parent == forked[3]);
    let grandchild = grandchild.expect("is there").worker.identity();
    let Proving::Proved(proved) = prove(main_held, grandchild, &of(0)) else {
        panic!("the grandchild is a worker")
    };
    assert_eq!(send(&proved, Signal::Kill), Delivered::Sent);
    wait_for("its end", SOON, || (!proved.is_alive()).then_some(()));
    assert!(matches!(prove(main_held, grandchild, &of(0)), Proving::Gone));
}

/// KIL-09.
#[test]
fn without_its_master_a_worker_is_nobodys() {
    if !can_run(&NEEDS) {
        return;
    }
    let (mut main, forked, _others) = crew(r#"hand("crew: worker 0");"#, WWW);
    let held = lab::hold(main.pid());
    main.end();
    let worker = lab::identity_of(forked[0]);
    // Its parent is another now, or its master's number is nobody's: either way it is not proved.
    match prove(held.held(), worker, &of(WWW)) {
        Proving::Unknown(why) => assert!(why.raw().contains("has ended"), "{why}"),
        other => panic!("{other:?} of a dead master"),
    }
    assert!(look(held.held(), &of(WWW), ALL, None).is_err());
}

#[test]
fn where_current_leads_is_known_with_the_time_it_was_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("releases/2")).expect("mkdir");
    std::os::unix::fs::symlink("releases/2", path("current")).expect("link");
    let seen = target(&path("current")).expect("leads somewhere");
    let real = fs::canonicalize(path("releases/2")).expect("is there");
    assert_eq!(Path::new(seen.path.raw()), real);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    let age = u64::try_from(now.as_millis()).expect("small") - seen.changed_wall_ms;
    assert!(age < 60_000, "{age}");
    fs::remove_dir(path("releases/2")).expect("removed");
    let dangling = target(&path("current")).expect_err("leads nowhere").to_string();
    assert!(dangling.contains("leads nowhere"), "{dangling}");
    fs::write(path("releases/2"), "").expect("a file");
    assert!(target(&path("current")).expect_err("is a file").raw().contains("directory"));
    assert!(target(&path("absent")).expect_err("is not there").raw().contains("is not there"));
}

/// Told, so that a change that makes it dear is seen; bounded far above, since machines differ.
#[test]
fn a_look_at_eight_workers_costs_little() {
    if !can_run(&NEEDS) {
        return;
    }
    let (main, _, _others) = crew(r#"hand("crew: worker $_") for 0..7;"#, WWW);
    let (held, of) = (lab::hold(main.pid()), of(WWW));
    let few = WorkerNeeds { release: true, ..WorkerNeeds::default() };
    for (what, needs) in [("titles and releases", few), ("everything", ALL)] {
        let began = std::time::Instant::now();
        for _ in 0..100 {
            let seen = look(held.held(), &of, needs, None).expect("seen");
            assert_eq!(seen.workers.len(), 8);
        }
        let each = began.elapsed() / 100;
        println!("MEASURED a look at 8 workers, {what}: {each:?}");
        assert!(each < std::time::Duration::from_millis(100), "{each:?}");
    }
    let began = std::time::Instant::now();
    for worker in look(held.held(), &of, few, None).expect("seen").workers {
        let proving = prove(held.held(), worker.held.identity(), &of);
        assert!(matches!(proving, Proving::Proved(_)), "{proving:?}");
    }
    println!("MEASURED a look and 8 proofs: {:?}", began.elapsed());
}
