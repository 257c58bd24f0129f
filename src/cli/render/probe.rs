//! `heeler probe NAME`: what each check sees, and what its condition makes of it.
#![forbid(unsafe_code)]

use crate::cli::render::text::field;
use crate::cli::render::{Style, check_text, span_exact};
use crate::model::text::escape;
use crate::wire::control::{Health, ProbeAnswer, ProbeVerdict, ProbedCheck};

/// The checks of a service that were run once.
#[must_use]
pub fn probe(answer: &ProbeAnswer, style: &Style) -> String {
    let name = escape(&answer.service);
    if answer.checks.is_empty() {
        return format!("{name} has no checks: only its process is watched\n");
    }
    let mut out = String::new();
    for check in &answer.checks {
        one(&mut out, check, style);
    }
    out
}

fn one(out: &mut String, check: &ProbedCheck, style: &Style) {
    let (word, health) = match check.verdict {
        ProbeVerdict::Pass => ("pass", Health::Good),
        ProbeVerdict::Fail => ("FAIL", Health::Down),
        ProbeVerdict::Unknown => ("unknown", Health::Wanting),
        ProbeVerdict::Other => ("?", Health::Other),
    };
    let label = format!("{:>2}  {word:<7}  ", check.number);
    let mut line = String::new();
    field(&mut line, style.width, &label, &check_text(&check.label, &check.text));
    out.push_str(&line.replacen(word, &style.by_health(health, word), 1));
    // What the condition does not show already.
    let mut seen = vec![escape(&check.check_type)];
    if let Some(why) = check.why.as_deref().filter(|why| !check.text.contains(why)) {
        seen.push(escape(&format!("{}: {why}", check.outcome)));
    }
    if let Some(detail) = check.detail.as_deref().filter(|detail| !check.text.contains(detail)) {
        seen.push(escape(detail));
    }
    let metrics = check.metrics.iter();
    seen.extend(metrics.map(|one| escape(&format!("{} {}", one.metric, one.value))));
    if check.took_ms > 0 {
        seen.push(format!("took {}", span_exact(check.took_ms)));
    }
    field(out, style.width, &" ".repeat(13), &seen.join(", "));
}
