//! `heeler doctor`: what the daemon says of itself beside what was found without it, and the report.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::client::{self, Answer, Failure, Patience, ask};
use crate::cli::commands::style;
use crate::cli::render;
use crate::cli::{Rc, print};
use crate::model::finding::{Finding, Grade};
use crate::wire::control::{Request, StatusAnswer, VERSION};

/// Where the daemon is asked, and how the report looks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// As JSON.
    pub json: bool,
}

/// Adds what the daemon says and shows all of it; `configured` is where the daemon of the configuration is.
#[must_use]
pub fn doctor(
    mut findings: Vec<Finding>,
    configured: &Path,
    wanted: &Wanted,
    columns: fn() -> Option<u16>,
) -> Rc {
    let socket = match &wanted.socket {
        Some(given) => given.clone(),
        None if configured.exists() => configured.to_owned(),
        None => client::socket_path(None),
    };
    findings.extend(daemon(&socket));
    let bad = findings.iter().any(|finding| finding.grade == Grade::Error);
    let text =
        if wanted.json { json(&findings) } else { render::doctor(&findings, &style(columns)) };
    print(&text, if bad { Rc::Failed } else { Rc::Ok })
}

fn daemon(socket: &Path) -> Vec<Finding> {
    let about = "daemon";
    let request = Request::Status { services: Vec::new() };
    let answer: Answer<StatusAnswer> = match ask(socket, &request, Patience::Short) {
        Ok(answer) => answer,
        Err(Failure { rc: Rc::NotAllowed, .. }) => {
            return vec![Finding::ok(about, "heeler runs, and has nothing to tell you")];
        }
        Err(Failure { text, .. }) => return vec![Finding::warning(about, text, "")],
    };
    let StatusAnswer { services, mail, state, .. } = answer.value;
    let mut findings =
        vec![Finding::ok(about, format!("heeler runs, you may see {} service(s)", services.len()))];
    if let Some(mail) = mail.filter(|mail| mail.failing_since_unix_ms.is_some()) {
        let why = mail.trouble.unwrap_or_default();
        let text = format!("mail is not delivered, {} alert(s) wait: {why}", mail.waiting);
        findings.push(Finding::error(
            about,
            text,
            "`heeler mail test` says what each server answers",
        ));
    }
    if let Some(state) = state {
        let text = format!("its state is kept in memory only: {}", state.trouble);
        findings.push(Finding::error(about, text, "free the state folder; it goes on by itself"));
    }
    findings
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    findings: Vec<Line<'a>>,
}

/// One finding, as programs see it. Stable.
#[derive(Serialize)]
struct Line<'a> {
    grade: &'a str,
    about: &'a str,
    text: &'a str,
    todo: Option<&'a str>,
}

fn json(findings: &[Finding]) -> String {
    let line = |finding| {
        let Finding { grade, about, text, todo }: &Finding = finding;
        Line { grade: grade.name(), about, text, todo: todo.as_deref() }
    };
    let report = Report { version: VERSION, findings: findings.iter().map(line).collect() };
    serde_json::to_string(&report).unwrap_or_default() + "\n"
}
