//! `heeler status NAME`: all that is known of one service.
#![forbid(unsafe_code)]

use crate::cli::render::text::{columns, field};
use crate::cli::render::{Style, check_text, cpu, memory, span};
use crate::model::text::escape;
use crate::wire::control::ServiceStatus;

/// One service with its checks.
#[must_use]
pub fn detail(service: &ServiceStatus, style: &Style) -> String {
    let mut out = String::new();
    let name = escape(&service.service);
    out.push_str(&format!("{name}: "));
    out.push_str(&style.by_health(service.health, &escape(&service.state)));
    out.push('\n');
    let mut row = |label: &str, text: &str| {
        field(&mut out, style.width, &format!("  {label:<8}"), text);
    };
    row("since", &style.date_and_age(service.since_unix_ms));
    let wish = &service.desired;
    let at = style.date_and_time(wish.at_unix_ms);
    row("wanted", &escape(&format!("{}, by {} at {at}", wish.want, wish.by_text)));
    row("doing", &escape(&service.phase));
    row("process", &process(service));
    if !service.groups.is_empty() {
        row("groups", &escape(&service.groups.join(", ")));
    }
    for (n, wrong) in service.wrong.iter().enumerate() {
        row(if n == 0 { "wrong" } else { "" }, &escape(wrong));
    }
    let states = service.checks.iter().map(|check| columns(&escape(&check.state)));
    let widest = states.max().unwrap_or(0);
    for (n, check) in service.checks.iter().enumerate() {
        let title = if n == 0 { "checks" } else { "" };
        let label = format!("  {title:<8}{:<widest$}  ", escape(&check.state));
        field(&mut out, style.width, &label, &check_text(&check.label, &check.text));
    }
    out
}

fn process(service: &ServiceStatus) -> String {
    let Some(pid) = service.pid else {
        return "none".to_owned();
    };
    let mut parts = vec![format!("pid {pid}")];
    parts.extend(service.uptime_ms.map(|ms| format!("up {}", span(ms))));
    parts.extend(cpu(service).map(|cpu| format!("cpu {cpu}")));
    let kind = service.memory_kind.map(|kind| format!(" ({})", kind.name()));
    let memory = memory(service).map(|memory| format!("memory {memory}"));
    parts.extend(memory.map(|memory| memory + &kind.unwrap_or_default()));
    parts.join(", ")
}
