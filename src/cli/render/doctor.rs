//! `heeler doctor`: one finding, one line, and what to do about it.
#![forbid(unsafe_code)]

use crate::cli::render::Style;
use crate::cli::render::text::{columns, field};
use crate::model::finding::{Finding, Grade};
use crate::model::text::escape;
use crate::wire::control::Health;

/// All findings, and how many are bad.
#[must_use]
pub fn doctor(findings: &[Finding], style: &Style) -> String {
    let widest = findings.iter().map(|finding| columns(&escape(&finding.about))).max().unwrap_or(0);
    let widest = widest.min(ABOUT_MAX);
    let mut out = String::new();
    for finding in findings {
        let word = finding.grade.name();
        let label = format!("{word:<7}  {:<widest$}  ", escape(&finding.about));
        let mut lines = String::new();
        field(&mut lines, style.width, &label, &escape(&finding.text));
        out.push_str(&lines.replacen(word, &style.by_health(tone(finding.grade), word), 1));
        if let Some(todo) = &finding.todo {
            field(
                &mut out,
                style.width,
                &format!("{:<1$}", "", widest + 11),
                &format!("-> {}", escape(todo)),
            );
        }
    }
    let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count();
    let said = |count: usize, what: &str| match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let (errors, warnings) = (count(Grade::Error), count(Grade::Warning));
    out.push_str(&format!("{}, {}\n", said(errors, "error"), said(warnings, "warning")));
    out
}

/// A longer name stands alone in its column.
const ABOUT_MAX: usize = 24;

fn tone(grade: Grade) -> Health {
    match grade {
        Grade::Ok => Health::Good,
        Grade::Warning => Health::Wanting,
        Grade::Error => Health::Down,
    }
}
