//! How long an outage lasts, by who watches. A program rather than a test: it takes half an hour.
//!
//! `HEELER_TABLE=1 cargo test --test systemd table -- --nocapture`; `HEELER_TABLE=words` only does the
//! situations whose names have these words.

use std::thread;
use std::time::Duration;

use crate::host::can_boot;
use crate::situations::{ALL, Situation};
use crate::support::can_run;
use crate::watchers::Watcher;

/// What has not healed by then does not heal.
const PATIENCE: Duration = Duration::from_secs(150);

#[test]
fn table() {
    let Some(wanted) = std::env::var("HEELER_TABLE").ok() else { return };
    if !can_boot() || !can_run(&[Watcher::MONIT]) {
        return;
    }
    let rows: Vec<_> =
        ALL.into_iter().filter(|row| wanted == "1" || row.name.contains(&wanted)).collect();
    assert!(!rows.is_empty(), "no situation is called {wanted:?}");
    let mut table =
        "| situation | systemd alone | Monit's recipe | heeler |\n| --- | --- | --- | --- |\n"
            .to_owned();
    for row in rows {
        let seconds = row_of(row);
        let line = format!("| {} | {} |\n", row.name, seconds.join(" | "));
        println!("{line}");
        table += &line;
    }
    println!("seconds until the shop serves again\n{table}");
}

fn row_of(row: &'static Situation) -> Vec<String> {
    let cells = Watcher::ALL.map(|watcher| thread::spawn(move || cell(row, watcher)));
    cells.into_iter().map(|cell| cell.join().expect("the cell")).collect()
}

fn cell(row: &Situation, watcher: Watcher) -> String {
    let outcome = row.run(watcher, "", PATIENCE);
    if watcher == Watcher::Heeler {
        let (_, why, _) = outcome.host.heeler(&["why", "shop"]);
        println!("WHY, {}\n{why}", row.name);
    }
    match outcome.healed {
        Some((_, took)) => format!("{:.1}", took.as_secs_f64()),
        None => format!("not within {}", PATIENCE.as_secs()),
    }
}
