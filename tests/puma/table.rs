//! How long the shop is unwell and what that costs, by who keeps it; and what a verified reload costs beside
//! Puma's own. Programs rather than tests: together they take an hour.
//!
//! `HEELER_TABLE=1 cargo test --test puma table -- --nocapture`; `HEELER_TABLE=words` only does the
//! situations whose names have these words. The second table is called "20 reloads".

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::keepers::{Keeper, Stand, Wants, all_workers, is_well, wait_until_well};
use crate::load::Load;
use crate::shop::{Way, freeze, point_at, pumactl};
use crate::situations::{ALL, Situation, deploys};
use crate::support::house::{PATIENCE, signal};
use crate::support::{can_run, wait_for};
use crate::verified::{GOOD, RAISES};
use crate::world::{LIMIT, NEEDS, run_inside, world};

/// Requests a second, of the first table and of the second.
const RATE: u32 = 50;
const RELOAD_RATE: u32 = 100;
/// Rows at once: their cells mostly wait.
const LANES: usize = 2;
/// A cell that is quicker than this is done three times.
const QUICK: f64 = 15.0;
const RELOADS: usize = 20;
/// How long the load lasts after each of them: longer than a verified one does.
const RELOAD_WINDOW: Duration = Duration::from_secs(16);
/// The name of a cell, for the test that is run again in a world.
const CELL: &str = "HEELER_TABLE_CELL";
/// What the line with its figures begins with.
const FIGURES: &str = "FIGURES ";

#[test]
fn table() {
    let Some(wanted) = std::env::var("HEELER_TABLE").ok() else { return };
    if !can_run(&NEEDS) || !can_run(&[Keeper::MONIT]) {
        return;
    }
    let chosen = |name: &str| wanted == "1" || name.contains(&wanted);
    let rows: Vec<(usize, usize)> = (0..ALL.len())
        .filter(|at| chosen(ALL[*at].name))
        .flat_map(|at| (0..ALL[at].ways.len()).map(move |way| (at, way)))
        .collect();
    assert!(!rows.is_empty() || chosen("20 reloads"), "no situation is called {wanted:?}");
    let next = AtomicUsize::new(0);
    let lane = || {
        let mut lines = Vec::new();
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            let line = line_of(*row);
            println!("{line}");
            lines.push((*row, line));
        }
        lines
    };
    let mut lines: Vec<_> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a lane")).collect()
    });
    lines.sort();
    let table: String = lines.into_iter().map(|(_, line)| line + "\n").collect();
    println!(
        "seconds until it is well: median (range); requests lost and answered wrongly, at {RATE} a second\n\
         | situation | | Puma alone | Monit's recipe | heeler |\n| --- | --- | --- | --- | --- |\n{table}"
    );
    if chosen("20 reloads") {
        println!("{}", reloads());
    }
}

/// One cell in its world; else that a cell says what is: a good release is well and a bad one is not.
#[test]
fn cell() {
    let Ok(cell) = std::env::var(CELL) else {
        return world(|| {
            let stand = Stand::open(Keeper::Nobody, Way::Script, "", "");
            let figures = measure(&stand, RATE, |stand| deploys(stand, 2, GOOD), seconds(60));
            assert!(figures["seconds"].as_f64().is_some(), "{figures}");
            // A worker that goes hangs up on whoever has connected and not asked yet.
            let count = |name: &str| figures[name].as_u64().expect("a number");
            assert!(count("lost") * 100 <= count("asked") && count("wrong") == 0, "{figures}");
            let figures = measure(&stand, RATE, |stand| deploys(stand, 3, RAISES), seconds(3));
            assert_eq!(figures["seconds"], Value::Null, "{figures}");
            assert!(!is_well(&BTreeSet::new(), Wants::Current));
            point_at(2);
            pumactl("reload-worker-directory");
            let healed = wait_until_well(&BTreeSet::new(), Wants::Current, seconds(60), |_| ());
            assert!(healed.is_some(), "it never was well again");
            // Each thing that keeps it from being well, by itself.
            let nobody = BTreeSet::new();
            point_at(1);
            assert!(!is_well(&nobody, Wants::Current), "nobody runs what is current");
            wait_for("all to answer", PATIENCE, || is_well(&nobody, Wants::Any).then_some(()));
            point_at(2);
            let one = all_workers()[0];
            assert!(!is_well(&[one].into(), Wants::Current), "it was to go");
            freeze(one);
            assert!(!is_well(&nobody, Wants::Current), "it does not answer");
            signal(one, "CONT");
            wait_for("it to answer", PATIENCE, || is_well(&nobody, Wants::Current).then_some(()));
        });
    };
    let figures = |figures: Value| println!("{FIGURES}{figures}");
    let words: Vec<_> =
        cell.split(' ').map(|word| word.parse::<usize>().expect("a number")).collect();
    match words[..] {
        [at, way, keeper, after_ms] => world(|| {
            let situation: &Situation = &ALL[at];
            let keeper = Keeper::ALL[keeper];
            let stand = Stand::open(keeper, situation.ways[way], situation.ruby, situation.toml);
            // Wherever its keeper is in its round.
            thread::sleep(Duration::from_millis(after_ms as u64));
            figures(measure(&stand, RATE, situation.happen, situation.limit));
            println!("STORY\n{}", stand.story());
        }),
        [keeper] => world(|| {
            let stand = Stand::open(Keeper::ALL[keeper], Way::Script, "", "");
            figures(reload(&stand));
        }),
        _ => panic!("{cell}: not a cell"),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn word(way: Way) -> &'static str {
    if way == Way::Managed { "a unit of its user" } else { "plain" }
}

/// Has it happen under a load.
fn measure(
    stand: &Stand,
    rate: u32,
    happen: impl FnOnce(&Stand) -> crate::situations::Happened,
    limit: Duration,
) -> Value {
    let load = Load::begin(rate);
    thread::sleep(seconds(1));
    let happened = happen(stand);
    let lead = happened.began.elapsed();
    let mut told = None;
    let healed = wait_until_well(&happened.gone, happened.wants, limit, |at| {
        if told.is_none() && at.as_millis() % 1000 < 50 && stand.has_told() {
            told = Some((lead + at).as_secs_f64());
        }
    });
    let tally = load.end();
    json!({
        "seconds": healed.map(|healed| (lead + healed).as_secs_f64()),
        "limit": limit.as_secs(),
        "told": told,
        "asked": tally.asked,
        "lost": tally.lost,
        "wrong": tally.wrong,
        "witness": happened.witness.filter(|_| healed.is_some())
            .map(|witness| witness.join().expect("the witness")),
        "deploy": happened.deploy.filter(|_| healed.is_some()).map(|deploy| deploy.ended().1),
    })
}

/// Runs a cell in its world; what it found.
fn run(cell: &str) -> Value {
    let said = run_inside("table::cell", LIMIT, &[(CELL, cell)]);
    let line = said.lines().find_map(|line| Some(line.split_once(FIGURES)?.1));
    println!("CELL {cell}\n{said}");
    serde_json::from_str(line.expect("the figures")).expect("JSON")
}

fn line_of((at, way): (usize, usize)) -> String {
    let cells = [0, 1, 2].map(|keeper| {
        thread::spawn(move || {
            let run = |after_ms| run(&format!("{at} {way} {keeper} {after_ms}"));
            let mut runs = vec![run(2500)];
            if runs[0]["seconds"].as_f64().is_some_and(|took| took < QUICK) {
                runs.extend([800, 4200].map(run));
            }
            shown(&runs)
        })
    });
    // One that fails shows it, and costs no other.
    let cells = cells.map(|cell| cell.join().unwrap_or_else(|_| "FAILED".into())).join(" | ");
    format!("| {} | {} | {cells} |", ALL[at].name, word(ALL[at].ways[way]))
}

fn shown(runs: &[Value]) -> String {
    let mut took: Vec<f64> = runs.iter().filter_map(|run| run["seconds"].as_f64()).collect();
    took.sort_by(f64::total_cmp);
    let limit = &runs[0]["limit"];
    let mut text = match took[..] {
        [] => format!("never within {limit}"),
        [one] => format!("{one:.1}"),
        [first, .., last] => {
            format!("{:.1} ({first:.1}–{last:.1})", took[took.len() / 2])
        }
    };
    if took.len() < runs.len() && !took.is_empty() {
        text += &format!(", {} never within {limit}", runs.len() - took.len());
    }
    if let (Some(told), []) = (runs[0]["told"].as_f64(), &took[..]) {
        text += &format!(", told after {told:.0}");
    }
    let sum = |name: &str| runs.iter().filter_map(|run| run[name].as_u64()).sum::<u64>();
    text += &format!("; {} of {} lost", sum("lost"), sum("asked"));
    if sum("wrong") > 0 {
        text += &format!(", {} wrong", sum("wrong"));
    }
    if let Some(witness) = runs[0]["witness"].as_str() {
        text += &format!("; {witness}");
    }
    format!("{text}; {} runs", runs.len()).replace("; 1 runs", "; 1 run")
}

// ---- a good release, again and again ----------------------------------------------------------

/// A good release, taken up by Puma's own phased restart or by heeler's verified one.
fn reload(stand: &Stand) -> Value {
    let load = Load::begin(RELOAD_RATE);
    thread::sleep(seconds(2));
    let happened = deploys(stand, 2, GOOD);
    let lead = happened.began.elapsed();
    let new = wait_until_well(&BTreeSet::new(), Wants::Current, seconds(60), |_| ());
    let (command, said) = happened.deploy.expect("a deploy").ended();
    thread::sleep(RELOAD_WINDOW.saturating_sub(happened.began.elapsed()));
    let tally = load.end();
    let ms = |took: &Duration| took.as_secs_f64() * 1000.0;
    json!({
        "new": new.map(|new| (lead + new).as_secs_f64()),
        "command": command.as_secs_f64(),
        "asked": tally.asked,
        "lost": tally.lost,
        "wrong": tally.wrong,
        "took": tally.took.iter().map(ms).collect::<Vec<_>>(),
        "said": said,
    })
}

fn reloads() -> String {
    let mut runs: [Vec<Value>; 2] = [Vec::new(), Vec::new()];
    for number in 0..RELOADS {
        // In turn, and each of them first half of the time.
        for which in [number % 2, 1 - number % 2] {
            let keeper = [0, 2][which];
            runs[which].push(run(&keeper.to_string()));
        }
    }
    let mut table = format!(
        "a good release, {RELOADS} runs each, {RELOAD_RATE} requests a second\n\
         | | `pumactl phased-restart` | `heeler reload --verified` |\n| --- | --- | --- |\n"
    );
    let mut line = |name: &str, of: fn(&[Value]) -> String| {
        table += &format!("| {name} | {} | {} |\n", of(&runs[0]), of(&runs[1]));
    };
    line("requests lost of all (95 %, Wilson)", |runs| share(runs, "lost"));
    line("wrong answers of all (95 %, Wilson)", |runs| share(runs, "wrong"));
    line("requests lost, run by run", |runs| {
        let each = runs.iter().map(|run| run["lost"].to_string());
        each.collect::<Vec<_>>().join(" ")
    });
    line("p50 / p99 / max of all, ms", latencies);
    line("seconds until all workers are new: median (range) [95 % of the median]", |runs| {
        median(runs, "new")
    });
    line("seconds until the command ends: the same", |runs| median(runs, "command"));
    table
}

fn share(runs: &[Value], name: &str) -> String {
    let sum = |name: &str| runs.iter().filter_map(|run| run[name].as_u64()).sum::<u64>();
    let (hits, all) = (sum(name), sum("asked"));
    let (low, high) = wilson(hits as f64, all as f64);
    format!("{hits} of {all} ({:.4} % to {:.4} %)", low * 100.0, high * 100.0)
}

/// Where a share is, nineteen times out of twenty (E. B. Wilson, 1927).
fn wilson(hits: f64, all: f64) -> (f64, f64) {
    let z = 1.96_f64;
    let share = hits / all;
    let wide = 1.0 + z * z / all;
    let middle = share + z * z / (2.0 * all);
    let half = z * (share * (1.0 - share) / all + z * z / (4.0 * all * all)).sqrt();
    (((middle - half) / wide).max(0.0), (middle + half) / wide)
}

fn latencies(runs: &[Value]) -> String {
    let of_run = |run: &Value| run["took"].as_array().cloned().unwrap_or_default();
    let mut all: Vec<f64> = runs.iter().flat_map(of_run).filter_map(|took| took.as_f64()).collect();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    format!("{:.1} / {:.1} / {:.0}", at(0.5), at(0.99), at(1.0))
}

fn median(runs: &[Value], name: &str) -> String {
    let mut all: Vec<f64> = runs.iter().filter_map(|run| run[name].as_f64()).collect();
    all.sort_by(f64::total_cmp);
    let (last, middle) = (all.len() - 1, all.len() / 2);
    // Of twenty: the 6th to the 15th have the median between them 95.9 times out of a hundred (binomial).
    format!(
        "{:.2} ({:.2}–{:.2}) [{:.2}–{:.2}]",
        (all[(all.len() - 1) / 2] + all[middle]) / 2.0,
        all[0],
        all[last],
        all[all.len() / 4],
        all[last - all.len() / 4],
    )
}

#[test]
fn a_share_is_where_wilson_says() {
    // The figures of many a textbook: 0 of 10 is 0 to 27.8 %, 5 of 10 is 23.7 % to 76.3 %.
    for (hits, low, high) in [(0.0, 0.0, 0.278), (5.0, 0.237, 0.763)] {
        let seen = wilson(hits, 10.0);
        assert!((seen.0 - low).abs() < 0.001 && (seen.1 - high).abs() < 0.001, "{seen:?}");
    }
}

/// The clock of a run starts with what happens.
#[test]
fn what_is_shown_is_what_was_seen() {
    let run = |took: Option<f64>, lost: u32| {
        let told = 7.0;
        json!({ "seconds": took, "limit": 60, "told": told, "asked": 100, "lost": lost, "wrong": 0 })
    };
    let shown = |runs: &[(Option<f64>, u32)]| {
        shown(&runs.iter().map(|(took, lost)| run(*took, *lost)).collect::<Vec<_>>())
    };
    assert_eq!(shown(&[(Some(2.0), 1)]), "2.0; 1 of 100 lost; 1 run");
    let three = [(Some(2.0), 1), (Some(9.0), 0), (Some(3.0), 4)];
    assert_eq!(shown(&three), "3.0 (2.0–9.0); 5 of 300 lost; 3 runs");
    assert_eq!(shown(&[(None, 3)]), "never within 60, told after 7; 3 of 100 lost; 1 run");
}
