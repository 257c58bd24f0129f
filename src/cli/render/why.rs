//! `heeler why NAME`: what happened, what was done, how it ended, what to do next.
#![forbid(unsafe_code)]

use crate::cli::render::text::field;
use crate::cli::render::{Style, span};
use crate::model::text::escape;
use crate::wire::control::{Incident, WhyAnswer};

/// The open incidents of a service, or its last one.
#[must_use]
pub fn why(answer: &WhyAnswer, style: &Style) -> String {
    let mut out = String::new();
    let name = escape(&answer.service);
    field(&mut out, style.width, &format!("{name}: "), &escape(&answer.state));
    if answer.incidents.is_empty() {
        out.push_str("nothing has happened since heeler watches it\n");
    }
    for incident in &answer.incidents {
        out.push('\n');
        one(&mut out, incident, style);
        field(&mut out, style.width, "  next    ", &next(&name, answer, incident));
    }
    out
}

fn one(out: &mut String, incident: &Incident, style: &Style) {
    let which =
        if incident.closed_unix_ms.is_some() { "last incident: " } else { "open incident: " };
    field(out, style.width, which, &escape(&incident.title));
    let mut row = |label: &str, text: &str| field(out, style.width, &format!("  {label:<8}"), text);
    row("began", &style.date_and_age(incident.opened_unix_ms));
    match incident.closed_unix_ms {
        Some(closed) => {
            let lasted = span(closed.saturating_sub(incident.opened_unix_ms));
            row("ended", &format!("{}, after {lasted}", style.date_and_time(closed)));
        }
        None => row("ended", "not yet"),
    }
    let alerts = match incident.alerts_sent {
        0 => "nobody yet".to_owned(),
        1 => "1 alert".to_owned(),
        more => format!("{more} alerts"),
    };
    row("told", &alerts);
    // The engine takes lines out of the middle, where the story is at its bound.
    let gap = (incident.dropped_lines > 0).then_some(incident.story.len() / 2);
    for (n, line) in incident.story.iter().enumerate() {
        if gap == Some(n) {
            out.push_str(&format!("  [... {} lines not kept ...]\n", incident.dropped_lines));
        }
        let label = format!("  {}  ", style.moment(line.at_unix_ms));
        field(out, style.width, &label, &escape(&line.text));
    }
    if !incident.output_lines.is_empty() {
        out.push_str("  output of the last command\n");
        for line in &incident.output_lines {
            field(out, style.width, "    | ", &escape(line));
        }
    }
}

/// What an operator can do; what heeler does by itself is said too, so that nobody fights it.
fn next(name: &str, answer: &WhyAnswer, incident: &Incident) -> String {
    if incident.closed_unix_ms.is_some() {
        return "nothing to do: it is over".to_owned();
    }
    match incident.cause.as_str() {
        "down" if answer.state.starts_with("up") => {
            "nothing to do: it is up again, and this is over once it has stayed so".to_owned()
        }
        "down" => format!(
            "heeler goes on trying; when the cause is mended, `heeler start {name}` tries at once. \
             `heeler stop {name}` ends the trying"
        ),
        "up_unwanted" => format!(
            "it was stopped on purpose, so heeler leaves it alone: `heeler monitor {name}` if it is \
             to be kept up, `heeler stop {name}` to stop it"
        ),
        "unclear" => format!(
            "heeler touches nothing it cannot prove to be {name}: see what the line above names, \
             and mend that; it looks again by itself"
        ),
        "unkillable" => {
            "it hangs in the kernel: look at its disk or network file system; heeler starts \
                         no second copy and goes on as soon as it is gone"
                .to_owned()
        }
        "set_aside" => match answer.desired.as_ref().filter(|wish| wish.by == "operator") {
            Some(wish) => format!(
                "it is as {} wants it: {}; `heeler {} {name}` ends that",
                escape(&wish.by_text),
                escape(&wish.want),
                if wish.want == "down" { "start" } else { "monitor" },
            ),
            None => format!(
                "a rule took it out of service: `heeler start {name}` puts it back when it is mended"
            ),
        },
        "definition" => {
            "mend the file and `heeler reload-config`; `heeler validate` shows all that is wrong"
                .to_owned()
        }
        "check" => {
            format!("`heeler status {name}` shows the values now; it ends when they are good again")
        }
        "check_unknown" => {
            "heeler could not tell, so it does not act: mend what keeps it from looking".to_owned()
        }
        _ => format!("look with `heeler status {name}`"),
    }
}
