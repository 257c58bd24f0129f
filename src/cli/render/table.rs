//! `heeler status`: one service, one row.
#![forbid(unsafe_code)]

use crate::cli::render::text::{columns, wrap};
use crate::cli::render::{Style, cpu, memory, span};
use crate::model::text::escape;
use crate::wire::control::ServiceStatus;

/// The table of services. Where it does not fit, the columns that tell least go first; then the state
/// and what is wrong are wrapped. Unlimited in width, nothing is.
#[must_use]
pub fn table(services: &[ServiceStatus], style: &Style) -> String {
    let mut table: Vec<Column> =
        COLUMNS.into_iter().map(|kind| kind.fill(services, style)).collect();
    table.retain(|column| {
        column.kind == Kind::Service || column.cells.iter().any(|c| !c.is_empty())
    });
    if let Some(width) = style.width {
        fit(&mut table, width);
    }
    let mut out = String::new();
    let titles: Vec<_> = table.iter().map(|column| vec![column.kind.title().to_owned()]).collect();
    write_row(&mut out, &table, &titles, |_, cell| cell.to_owned());
    for (row, service) in services.iter().enumerate() {
        let cells: Vec<_> =
            table.iter().map(|column| wrap(&column.cells[row], column.width)).collect();
        write_row(&mut out, &table, &cells, |kind, cell| match kind {
            Kind::State => style.by_health(service.health, cell),
            Kind::Service
            | Kind::Since
            | Kind::Pid
            | Kind::Uptime
            | Kind::Cpu
            | Kind::Memory
            | Kind::Wrong => cell.to_owned(),
        });
    }
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Service,
    State,
    Since,
    Pid,
    Uptime,
    Cpu,
    Memory,
    Wrong,
}

const COLUMNS: [Kind; 8] = [
    Kind::Service,
    Kind::State,
    Kind::Since,
    Kind::Pid,
    Kind::Uptime,
    Kind::Cpu,
    Kind::Memory,
    Kind::Wrong,
];
/// What a narrow terminal does without, first to last.
const DROPPED: [Kind; 5] = [Kind::Since, Kind::Pid, Kind::Cpu, Kind::Uptime, Kind::Memory];
const GAP: usize = 2;
/// What the wrapped columns are left at least.
const STATE_MIN: usize = 16;
const WRONG_MIN: usize = 24;

struct Column {
    kind: Kind,
    cells: Vec<String>,
    width: usize,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::Service => "SERVICE",
            Self::State => "STATE",
            Self::Since => "SINCE",
            Self::Pid => "PID",
            Self::Uptime => "UPTIME",
            Self::Cpu => "CPU",
            Self::Memory => "MEMORY",
            Self::Wrong => "WRONG",
        }
    }

    fn fill(self, services: &[ServiceStatus], style: &Style) -> Column {
        let cells: Vec<_> = services.iter().map(|service| self.cell(service, style)).collect();
        let natural = cells.iter().map(|cell| columns(cell)).max().unwrap_or(0);
        Column { kind: self, width: natural.max(columns(self.title())), cells }
    }

    fn cell(self, service: &ServiceStatus, style: &Style) -> String {
        match self {
            Self::Service => escape(&service.service),
            Self::State => escape(&service.state),
            Self::Since => style.moment(service.since_unix_ms),
            Self::Pid => service.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            Self::Uptime => service.uptime_ms.map(span).unwrap_or_default(),
            Self::Cpu => cpu(service).unwrap_or_default(),
            Self::Memory => memory(service).unwrap_or_default(),
            Self::Wrong => escape(&service.wrong.join("; ")),
        }
    }

    /// Numbers are compared down a column, so they end together.
    fn is_number(self) -> bool {
        match self {
            Self::Pid | Self::Uptime | Self::Cpu | Self::Memory => true,
            Self::Service | Self::State | Self::Since | Self::Wrong => false,
        }
    }

    /// The least a column can do with.
    fn least(self, natural: usize) -> usize {
        match self {
            Self::State => natural.min(STATE_MIN),
            Self::Wrong => natural.min(WRONG_MIN),
            Self::Service | Self::Since | Self::Pid | Self::Uptime | Self::Cpu | Self::Memory => {
                natural
            }
        }
    }
}

/// Drops columns until the least of each fits, then gives what is left first to the state, as far as
/// it needs it and to half, and the rest to what is wrong.
fn fit(table: &mut Vec<Column>, width: usize) {
    let least = |table: &[Column]| -> usize {
        let gaps = GAP * table.len().saturating_sub(1);
        table.iter().map(|column| column.kind.least(column.width)).sum::<usize>() + gaps
    };
    for kind in DROPPED {
        if least(table) <= width {
            break;
        }
        table.retain(|column| column.kind != kind);
    }
    let mut spare = width.saturating_sub(least(table));
    let has_wrong = table.iter().any(|column| column.kind == Kind::Wrong);
    for column in table {
        let least = column.kind.least(column.width);
        let share = if column.kind == Kind::State && has_wrong { spare / 2 } else { spare };
        let given = share.min(column.width - least);
        spare -= given;
        column.width = least + given;
    }
}

fn write_row(
    out: &mut String,
    table: &[Column],
    cells: &[Vec<String>],
    paint: impl Fn(Kind, &str) -> String,
) {
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..height {
        let mut row = String::new();
        let mut pending = 0;
        for (column, lines) in table.iter().zip(cells) {
            let text = lines.get(line).map_or("", String::as_str);
            let pad = column.width.saturating_sub(columns(text));
            let (before, after) = if column.kind.is_number() { (pad, 0) } else { (0, pad) };
            pending += before;
            // Spaces only before something: no line ends in them.
            if !text.is_empty() {
                row.push_str(&" ".repeat(pending));
                row.push_str(&paint(column.kind, text));
                pending = 0;
            }
            pending += after + GAP;
        }
        out.push_str(&row);
        out.push('\n');
    }
}
