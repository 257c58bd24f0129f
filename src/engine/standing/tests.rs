//! Each situation of a Puma as a short story of looks; the last of them is what counts.

use super::*;
use crate::model::process::Ours;
use crate::model::puma::Threads;
use crate::model::sample::ProcessSample;
use crate::model::workers::{Presence, Release};

const START_WALL: u64 = 1_800_000_000_000;

/// One worker in an answer: place, pid, phase, whether booted; its last ping is now.
type Told = (u64, i32, u64, bool);

#[derive(Clone)]
struct Look {
    at_ms: u64,
    state: char,
    said: Result<Stats, Trouble>,
    workers: Vec<Worker>,
}

/// A look at a master that says this of its workers; it was started before `START_WALL`.
fn told(at_ms: u64, phase: u64, all: &[Told]) -> Look {
    let status = |(index, pid, of, booted): &Told| WorkerStatus {
        pid: Some(Pid(*pid)),
        index: Some(*index),
        phase: Some(*of),
        boot: if *booted { Boot::Booted } else { Boot::Booting },
        started_wall_ms: Some(START_WALL),
        checkin_wall_ms: Some(START_WALL + at_ms),
        threads: Threads::default(),
    };
    let count = |is: fn(&Told, u64) -> bool| all.iter().filter(|it| is(it, phase)).count() as u64;
    let cluster = Cluster {
        phase: Some(phase),
        workers: Some(all.len() as u64),
        booted: Some(count(|it, _| it.3)),
        old: Some(count(|it, phase| it.2 != phase)),
        each: all.iter().map(status).collect(),
    };
    let started_wall_ms = Some(START_WALL - 3_600_000);
    let stats = Stats { version: None, started_wall_ms, form: Form::Cluster(cluster) };
    Look { at_ms, state: 'S', said: Ok(stats), workers: Vec::new() }
}

fn trouble(at_ms: u64, kind: TroubleKind) -> Look {
    Look { at_ms, state: 'S', said: Err(Trouble::new(kind, "")), workers: Vec::new() }
}

fn process(index: u64, pid: i32, state: char, release: &str) -> Worker {
    let identity = ProcessIdentity { pid: Pid(pid), started_ticks: 5 };
    let sample = ProcessSample {
        identity,
        at: Mono::ZERO,
        age_ms: 0,
        cpu_ms: None,
        tree_cpu_ms: None,
        state: Some(state),
        threads: None,
        rss_bytes: None,
        pss_bytes: None,
        private_bytes: None,
        tree_pss_bytes: None,
        fds: None,
        children: None,
        read_bytes: None,
        written_bytes: None,
    };
    Worker {
        sample,
        parent: Pid(1000),
        title: format!("puma: cluster worker {index}: 1000 [shop]").as_str().into(),
        ours: Ours::Proved,
        release: Some(Release { path: release.into(), presence: Presence::There }),
        program: None,
    }
}

fn with(mut look: Look, change: impl FnOnce(&mut Look)) -> Look {
    change(&mut look);
    look
}

/// The standings after each look at a master that is an hour old and should have 3 workers.
fn story(looks: &[Look]) -> Vec<String> {
    story_of(looks, Duration::from_secs(3600), Some(3))
}

fn story_of(looks: &[Look], age: Duration, wanted: Option<u32>) -> Vec<String> {
    let mut observer = Observer::default();
    let identity = ProcessIdentity { pid: Pid(1000), started_ticks: 1 };
    let look = |look: &Look| {
        let mono = Mono::from_nanos(look.at_ms * 1_000_000);
        let now = Now { mono, wall: Wall(START_WALL + look.at_ms) };
        let main = Main { identity, state: Some(look.state), age };
        let workers: Vec<_> = look.workers.iter().collect();
        let (stats, workers) = (look.said.as_ref(), workers.as_slice());
        let seen = Seen { now, main: Some(main), orphans: 0, stats, workers, wanted };
        observer.look(&seen).to_string()
    };
    looks.iter().map(look).collect()
}

fn last(looks: &[Look]) -> String {
    story(looks).pop().expect("a look")
}

const ALL: [Told; 3] = [(0, 10, 0, true), (1, 11, 0, true), (2, 12, 0, true)];

#[test]
fn nobody_or_those_that_a_master_left() {
    let none = Trouble::new(TroubleKind::Absent, "");
    let mut observer = Observer::default();
    let now = Now::default();
    let mut look = |orphans| {
        let (main, stats, wanted) = (None, Err(&none), Some(3));
        observer.look(&Seen { now, main, orphans, stats, workers: &[], wanted })
    };
    assert_eq!(look(0), Standing::Down);
    assert_eq!(look(2), Standing::Orphans(2));
}

#[test]
fn as_it_should_be_or_fewer() {
    assert_eq!(last(&[told(0, 0, &ALL)]), "up 3/3");
    let single = Stats { form: Form::Single(Threads::default()), ..Stats::default() };
    assert_eq!(last(&[with(told(0, 0, &ALL), |it| it.said = Ok(single))]), "up 1/1");
    assert_eq!(last(&[told(0, 0, &ALL[..2])]), "degraded 2/3");
    // Not said how many: the most there were.
    let shrunk = [told(0, 0, &ALL), told(10_000, 0, &ALL[..2])];
    assert_eq!(story_of(&shrunk, BOOT_PATIENCE, None), ["up 3/3", "degraded 2/3"]);
    // One is stopped, one has not pinged for a while.
    let frozen = with(told(20_000, 0, &ALL), |it| {
        it.workers = vec![process(1, 11, 'T', "/r1")];
        let Ok(Stats { form: Form::Cluster(cluster), .. }) = &mut it.said else { panic!("told") };
        cluster.each[2].checkin_wall_ms = Some(START_WALL + 4_000);
    });
    assert_eq!(last(&[frozen]), "degraded 1/3");
}

#[test]
fn on_its_way_up() {
    let young = Duration::from_secs(20);
    for kind in [TroubleKind::Refused, TroubleKind::Absent, TroubleKind::State, TroubleKind::Silent]
    {
        let story = story_of(&[trouble(0, kind)], young, Some(3));
        assert_eq!(story, ["booting 0/3"], "{kind:?}");
    }
    let wrong = trouble(0, TroubleKind::Forbidden);
    assert!(story_of(&[wrong], young, Some(3))[0].starts_with("unclear: "), "no boot mends that");
    let booting: Vec<Told> =
        ALL.map(|(index, pid, phase, _)| (index, pid, phase, index < 1)).into();
    let just_begun = |look: Look| {
        with(look, |it| {
            let Ok(stats) = &mut it.said else { panic!("told") };
            stats.started_wall_ms = Some(START_WALL);
        })
    };
    assert_eq!(last(&[just_begun(told(5_000, 0, &booting))]), "booting 1/3");
    assert_eq!(last(&[told(5_000, 0, &booting)]), "degraded 1/3", "it began an hour ago");
}

#[test]
fn nobody_serves_though_the_master_does() {
    let booting: Vec<Told> = ALL.map(|(index, pid, phase, _)| (index, pid, phase, false)).into();
    let looks: Vec<_> = (0..8).map(|n| told(n * 10_000, 0, &booting)).collect();
    let boots = story(&looks);
    assert_eq!((boots[0].as_str(), boots[6].as_str()), ("booting 0/3", "booting 0/3"));
    assert_eq!(boots[7], "not answering for 1m10s: 0/3 serve");
    // All were up and hang in a C extension.
    let hung = |at_ms| {
        with(told(at_ms, 0, &ALL), |it| {
            let Ok(Stats { form: Form::Cluster(cluster), .. }) = &mut it.said else { panic!() };
            cluster.each.iter_mut().for_each(|it| it.checkin_wall_ms = Some(START_WALL));
        })
    };
    let story = story(&[hung(10_000), hung(20_000), hung(30_000)]);
    assert_eq!(story, ["up 3/3", "degraded 0/3", "not answering for 10s: 0/3 serve"]);
}

#[test]
fn a_restart_is_no_failure_and_a_mixture_is_none_of_it() {
    let phased: [Told; 3] = [(0, 20, 1, true), (1, 11, 0, true), (2, 12, 0, true)];
    let looks = [told(0, 0, &ALL), told(250, 1, &phased)];
    assert_eq!(last(&looks), "restarting 1/3, phase 1");
    let unbooted: [Told; 3] = [(0, 20, 1, false), (1, 11, 0, true), (2, 12, 0, true)];
    assert_eq!(last(&[told(0, 0, &ALL), told(250, 1, &unbooted)]), "restarting 0/3, phase 1");
    // Releases count where all serve: after reload-worker-directory and a death, say.
    let mixed = |releases: [&str; 3]| {
        with(told(0, 0, &ALL), |it| {
            let all = [(0, 10), (1, 11), (2, 12)].into_iter().zip(releases);
            it.workers = all.map(|((n, pid), at)| process(n, pid, 'S', at)).collect();
        })
    };
    assert_eq!(last(&[mixed(["/r1", "/r2", "/r1"])]), "mixed 3/3: 2 releases");
    assert_eq!(last(&[mixed(["/r1", "/r1", "/r1"])]), "up 3/3");
}

#[test]
fn a_boot_loop_is_known_by_the_third_that_is_never_seen_again() {
    let dying =
        |at_ms, pid| told(at_ms, 1, &[(0, pid, 1, false), (1, 11, 0, true), (2, 12, 0, true)]);
    let looks =
        [told(0, 0, &ALL), dying(250, 20), dying(500, 90), dying(750, 170), dying(1000, 260)];
    let story = story(&looks);
    assert_eq!(story[2], "restarting 0/3, phase 1");
    assert_eq!(story[3], "boot-loop: worker 0 began 3 times in 750ms; 2/3 serve");
    assert_eq!(story[4], "boot-loop: worker 0 began 4 times in 1s; 2/3 serve");
    // The code was mended: one of them lives.
    let mut mended = looks.to_vec();
    let whole: [Told; 3] = [(0, 300, 1, true), (1, 301, 1, true), (2, 302, 1, true)];
    mended.push(told(1250, 1, &whole));
    mended.push(told(1500, 1, &whole));
    assert_eq!(last(&mended), "up 3/3");
    // Its pid is in no way a new one: it takes its time.
    let slow: Vec<_> = (1..200).map(|n| dying(n * 250, 20)).collect();
    assert_eq!(last(&slow), "restarting 0/3, phase 1");
    // They boot, and die right after.
    let crash =
        |at_ms, pid| told(at_ms, 0, &[(0, pid, 0, true), (1, 11, 0, true), (2, 12, 0, true)]);
    let crashes = [told(0, 0, &ALL), crash(10_000, 20), crash(20_000, 90), crash(30_000, 170)];
    assert!(last(&crashes).starts_with("boot-loop: worker 0 began 3 times"), "{}", last(&crashes));
    // Replaced now and then, by whomever.
    let calm = [
        told(0, 0, &ALL),
        crash(10_000, 20),
        crash(20_000, 20),
        crash(30_000, 90),
        crash(40_000, 90),
        crash(50_000, 170),
    ];
    assert_eq!(last(&calm), "up 3/3");
}

#[test]
fn after_a_hot_restart_it_is_another_program() {
    let dying =
        |at_ms, pid| told(at_ms, 0, &[(0, pid, 0, false), (1, 11, 0, true), (2, 12, 0, true)]);
    let mut looks = vec![dying(0, 20), dying(250, 90), dying(500, 170)];
    let renewed: [Told; 3] = [(0, 300, 0, true), (1, 301, 0, true), (2, 302, 0, true)];
    looks.push(with(told(750, 0, &renewed), |it| {
        let Ok(stats) = &mut it.said else { panic!("told") };
        stats.started_wall_ms = Some(START_WALL);
    }));
    assert_eq!(last(&looks), "up 3/3");
}

#[test]
fn one_question_without_an_answer_is_no_diagnosis() {
    let silent = |at_ms| trouble(at_ms, TroubleKind::Silent);
    let story = story(&[silent(0), silent(12_000), silent(24_000), silent(36_000)]);
    assert!(story[..3].iter().all(|it| it.starts_with("unclear: ")), "{story:?}");
    let words = "wedged: its control server did not answer 4 times in 36s";
    assert_eq!(story[3], words);
    // It answered in between.
    let looks = [silent(0), silent(20_000), told(30_000, 0, &ALL), silent(40_000), silent(60_000)];
    assert!(last(&looks).starts_with("unclear: "), "{}", last(&looks));
    // Somebody else's trouble, however often.
    for kind in [TroubleKind::NotAsked, TroubleKind::Forbidden, TroubleKind::Refused] {
        let looks: Vec<_> = (0..20).map(|n| trouble(n * 10_000, kind)).collect();
        assert!(last(&looks).starts_with("unclear: "), "{kind:?}");
    }
}

#[test]
fn a_master_that_was_stopped_or_is_inside_the_kernel() {
    let of = |state, at_ms| with(told(at_ms, 0, &ALL), |it| it.state = state);
    assert_eq!(last(&[of('T', 0)]), "wedged: its master is stopped (state T)");
    assert_eq!(last(&[of('t', 0)]), "up 3/3", "somebody traces it");
    assert_eq!(last(&[of('D', 0), of('D', 1)]), "up 3/3", "a disk is slow");
    let stuck = [of('D', 0), of('D', 1), of('D', 2)];
    assert_eq!(last(&stuck), "wedged: its master waits inside the kernel (state D)");
    assert_eq!(last(&[of('D', 0), of('D', 1), of('S', 2), of('D', 3)]), "up 3/3");
}

#[test]
fn workers_are_known_by_their_place_not_by_a_number_of_another_namespace() {
    let (own, stranger) = (process(1, 5000, 'S', "/r1"), process(0, 11, 'S', "/r2"));
    let look = told(0, 2, &[(1, 11, 1, true)]);
    let stats = look.said.expect("told");
    let Form::Cluster(cluster) = &stats.form else { panic!("a cluster") };
    let found = process_of(&cluster.each[0], &[&stranger, &own]);
    assert_eq!(found.map(|worker| worker.identity().pid), Some(Pid(5000)));
    assert_eq!(phases_of(&own, &stats), Some(Phases { own: 1, master: 2 }));
    assert_eq!(phases_of(&stranger, &stats), None);
    assert_eq!(is_mixed(&stats, &[&own]), Some(false));
    assert_eq!(is_mixed(&stats, &[]), None);
}
