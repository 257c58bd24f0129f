//! `heeler workers NAME`: how they stand, and one row for each.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::cli::render::text::{columns, field};
use crate::cli::render::{Style, span};
use crate::model::text::escape;
use crate::model::units::{self, show_duration};
use crate::wire::control::{Health, WorkerRow, WorkersAnswer, WorkersVerdict};

/// What is said of a worker beside its numbers is left so much room.
const TEXT_MIN: usize = 28;
/// What a narrow terminal does without, first to last.
const DROPPED: [&str; 3] = ["CPU", "AGE", "MEMORY"];

/// Its title, its cells and its width in columns.
type Column = (&'static str, Vec<String>, usize);

/// The workers of a service, the oldest first.
#[must_use]
pub fn workers(answer: &WorkersAnswer, style: &Style) -> String {
    let health = match answer.verdict {
        WorkersVerdict::Well => Health::Good,
        WorkersVerdict::Ill | WorkersVerdict::NotRunning => Health::Down,
        WorkersVerdict::Unclear => Health::Wanting,
        WorkersVerdict::Other => Health::Other,
    };
    let text = escape(&answer.text);
    let mut out = String::new();
    let head = format!("{text}; {}", guard(answer));
    field(&mut out, style.width, &format!("{}  ", escape(&answer.service)), &head);
    out = out.replacen(&text, &style.by_health(health, &text), 1);
    if let Some(current) = &answer.current {
        field(&mut out, style.width, "current  ", &escape(current));
    }
    if answer.workers.is_empty() {
        return out;
    }
    let mut table: Vec<Column> = COLUMNS
        .into_iter()
        .map(|(title, cell)| {
            let cells: Vec<_> = answer.workers.iter().map(cell).collect();
            let width = cells.iter().map(|cell| columns(cell)).max().unwrap_or(0);
            (title, cells, width.max(columns(title)))
        })
        .collect();
    for dropped in DROPPED {
        let wide: usize = table.iter().map(|(_, _, width)| width + 2).sum();
        if style.width.is_some_and(|width| wide + TEXT_MIN > width) {
            table.retain(|(title, ..)| *title != dropped);
        }
    }
    let row = |cell: &dyn Fn(&Column) -> String| {
        let cells = table.iter().map(|column| format!("{:>1$}  ", cell(column), column.2));
        cells.collect::<String>()
    };
    field(&mut out, style.width, &row(&|(title, ..)| (*title).to_owned()), "WORKER");
    for (at, worker) in answer.workers.iter().enumerate() {
        let label = row(&|(_, cells, _)| cells.get(at).cloned().unwrap_or_default());
        let mut line = String::new();
        field(&mut line, style.width, &label, &about(worker));
        let duty = escape(&worker.duty);
        let health = match worker.duty.as_str() {
            "serves" => Health::Good,
            "boots" => Health::Wanting,
            "frozen" => Health::Down,
            _ => Health::Other,
        };
        out.push_str(&line.replacen(&duty, &style.by_health(health, &duty), 1));
    }
    out
}

type Cell = fn(&WorkerRow) -> String;

const COLUMNS: [(&str, Cell); 6] = [
    ("PID", |worker| worker.pid.to_string()),
    ("AGE", |worker| span(worker.age_ms)),
    ("MEMORY", |worker| worker.memory_bytes.map(units::show_size).unwrap_or_default()),
    ("CPU", |worker| worker.cpu_milli_percent.map(units::show_percent).unwrap_or_default()),
    ("S", |worker| worker.state.as_deref().map(escape).unwrap_or_default()),
    ("DUTY", |worker| escape(&worker.duty)),
];

/// What limits taking workers away.
fn guard(answer: &WorkersAnswer) -> String {
    let guard = &answer.guard;
    let window = show_duration(Duration::from_millis(guard.window_ms));
    let mut text = format!("min {}", guard.min);
    if guard.wanted > 0 {
        text.push_str(&format!(" of {}", guard.wanted));
    }
    text.push_str(&format!(", {} of {} actions left per {window}", guard.left, guard.budget));
    if let Some(going) = guard.going {
        text.push_str(&format!(", {going} is being taken away"));
    }
    text
}

/// What is to be said of one beside its numbers: what is out of the ordinary, then who it is.
fn about(worker: &WorkerRow) -> String {
    let mut parts = Vec::new();
    if let Some(waited) = worker.awaited_ms {
        parts.push(format!("its master has waited for it to go for {}", span(waited)));
    }
    if !worker.ours {
        parts.push("another user's, never signalled".to_owned());
    }
    if worker.stale == Some(true) {
        parts.push("of an older generation".to_owned());
    }
    parts.push(escape(&worker.title));
    let path = worker.release_path.as_deref().map(escape).unwrap_or_default();
    match &worker.release {
        Some(release) => parts.push(format!("release {}: {path}", escape(release))),
        None if path.is_empty() => {}
        None => parts.push(format!("in {path}")),
    }
    parts.join(", ")
}
