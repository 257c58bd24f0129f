//! The one table: a column for each watchdog, then the ratios.

use std::fmt;

use crate::meter::Noise;
use crate::peers::Watchdog;

/// A figure.
#[derive(Clone, Copy)]
pub(crate) enum Value {
    Is(f64),
    /// What was waited for did not come while it was measured.
    AtLeast(f64),
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Is(value)
    }
}

/// What the rounds of one case gave: a place for each of [`Watchdog::ALL`].
pub(crate) struct Outcome<T> {
    pub(crate) case: String,
    pub(crate) runs: [Option<Runs<T>>; Watchdog::ALL.len()],
}

/// What the rounds of one watchdog gave.
pub(crate) struct Runs<T> {
    pub(crate) results: Vec<T>,
    pub(crate) noise: Vec<Noise>,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self { results: Vec::new(), noise: Vec::new() }
    }
}

impl<T> Outcome<T> {
    /// One line: a figure of each watchdog.
    pub(crate) fn row<V: Into<Value>>(&self, name: &str, of: impl Fn(&[T]) -> Option<V>) {
        let all = self.figures(|runs| of(&runs.results).map(Into::into));
        let Some(all) = all else { return };
        let [heeler, monit, .., limit] = all;
        let ratios = [ratio(monit, heeler), ratio(heeler, limit)];
        line(&format!("{}: {name}", self.case), all.into_iter().chain(ratios).map(figure));
    }

    /// A line of figures that have no ratio.
    pub(crate) fn count(&self, name: &str, of: impl Fn(&[T]) -> usize) {
        let all = self.figures(|runs| Some(Value::Is(of(&runs.results) as f64)));
        let Some(all) = all else { return };
        line(&format!("{}: {name}", self.case), all.into_iter().chain([None; 2]).map(figure));
    }

    /// How noisy the machine was meanwhile: the last line of a case.
    pub(crate) fn noise(&self) {
        let of = |runs: &Option<Runs<T>>| {
            let all = runs.as_ref().map(|runs| runs.noise.as_slice()).unwrap_or_default();
            let load = all.iter().map(|noise| noise.load).reduce(f64::max)?;
            let foreign = all.iter().map(|noise| noise.foreign).sum::<f64>() / all.len() as f64;
            Some(format!("{load:.2} / {foreign:.2}"))
        };
        if self.runs.iter().any(Option::is_some) {
            let all = self.runs.iter().map(of).chain([None, None]);
            line(&format!("{}: noise", self.case), all.map(|said| said.unwrap_or_else(none)));
        }
    }

    /// `None` where the case was not run at all.
    fn figures(
        &self,
        of: impl Fn(&Runs<T>) -> Option<Value>,
    ) -> Option<[Option<Value>; Watchdog::ALL.len()]> {
        self.runs.iter().any(Option::is_some).then(|| {
            let mut all = [None; Watchdog::ALL.len()];
            for (at, runs) in all.iter_mut().zip(&self.runs) {
                *at = runs.as_ref().filter(|runs| !runs.results.is_empty()).and_then(&of);
            }
            all
        })
    }
}

/// The table's head.
pub(crate) fn heading() {
    let names = Watchdog::ALL.into_iter().map(Watchdog::name);
    line("", names.chain(RATIOS));
    let dashes = Watchdog::ALL.map(|_| "-".repeat(COLUMN - 1) + ":");
    line(
        &"-".repeat(WIDTH),
        dashes.into_iter().chain([(); 2].map(|()| "-".repeat(RATIO - 1) + ":")),
    );
}

const RATIOS: [&str; 2] = ["Monit ÷ heeler", "heeler ÷ limit"];
const WIDTH: usize = 72;
const COLUMN: usize = 11;
const RATIO: usize = 14;

fn line(what: &str, columns: impl Iterator<Item = impl fmt::Display>) {
    let mut text = format!("| {what:WIDTH$} |");
    for (at, column) in columns.enumerate() {
        let width = if at < Watchdog::ALL.len() { COLUMN } else { RATIO };
        text += &format!(" {column:>width$} |");
    }
    println!("{text}");
}

/// Nothing where one of them is bounded from the wrong side, or nothing.
fn ratio(above: Option<Value>, below: Option<Value>) -> Option<Value> {
    match (above?, below?) {
        (_, Value::Is(below)) if below <= 0.0 => None,
        (Value::Is(above), Value::Is(below)) => Some(Value::Is(above / below)),
        (Value::AtLeast(above), Value::Is(below)) => Some(Value::AtLeast(above / below)),
        (Value::Is(_) | Value::AtLeast(_), Value::AtLeast(_)) => None,
    }
}

/// Three digits that count.
fn figure(value: Option<Value>) -> String {
    let digits = |value: f64| match value {
        value if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    };
    match value {
        None => none(),
        Some(Value::Is(value)) => digits(value),
        Some(Value::AtLeast(value)) => format!("≥ {}", digits(value)),
    }
}

fn none() -> String {
    "–".to_owned()
}

/// The nearest rank.
pub(crate) fn percentile(mut all: Vec<f64>, share: f64) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(((all.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied()
}

/// The median.
pub(crate) fn median(all: impl Iterator<Item = f64>) -> Option<f64> {
    percentile(all.collect(), 0.5)
}

pub(crate) fn count(services: usize) -> String {
    if services == 1 { "1 service".to_owned() } else { format!("{services} services") }
}

pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
