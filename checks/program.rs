//! `type = "program"`: any executable, or a Nagios plugin, run as the service's user.
//!
//! It is run by a shim as any command of the service (built environment, no terminal, stdin at its end),
//! ended with its whole process group when its time is over, and read here.
//!
//! Sources: Monitoring Plugins Development Guidelines, "Plugin Return Codes" (0 OK, 1 WARNING,
//! 2 CRITICAL, 3 UNKNOWN); POSIX sh, "Exit Status for Commands" (126 and 127).

use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};

use crate::checks::given::{Given, Key, KeyKind, Wrong};
use crate::checks::{CheckType, Probe, Unsaid, fingerprint, perfdata};
use crate::model::job::{Ended, Outcome, Output};
use crate::model::limits;
use crate::model::metric::{Metric, Reading, Value};
use crate::model::observation::{self, Observation};
use crate::model::process::Exit;
use crate::model::service::Command;
use crate::model::text::{Untrusted, escape};
use crate::model::units::show_duration;

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || {
        vec![Metric::ExitCode, Metric::ResponseTime, Metric::Perfdata(perfdata::PREFIX.into())]
    },
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(30),
    read: settings,
};

const KEYS: [Key; 4] = [
    Key {
        name: "command",
        kind: KeyKind::Command,
        example: "/usr/lib/nagios/plugins/check_load -w 4 -c 8",
    },
    Key { name: "style", kind: KeyKind::OneOf(&["exit", "nagios"]), example: "nagios" },
    Key { name: "warning", kind: KeyKind::OneOf(&["fail", "ok"]), example: "ok" },
    Key { name: "expect", kind: KeyKind::Pattern, example: "^finished" },
];

/// What to run, and what its end means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The program.
    pub command: Command,
    /// What its exit codes mean.
    pub style: Style,
    /// What its output has to say.
    pub expect: Option<Expect>,
}

/// What exit codes mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// 0 is good, anything else is not.
    Exit,
    /// The four states of a Nagios plugin.
    Nagios(Warning),
}

/// What a plugin's WARNING means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Warning {
    /// The target misbehaved.
    Fail,
    /// All is well.
    Ok,
}

/// What the output has to match; `^` and `$` are the ends of any line.
#[derive(Clone)]
pub struct Expect(Regex);

impl PartialEq for Expect {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Expect {}

impl std::fmt::Debug for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.0.as_str(), f)
    }
}

impl Expect {
    /// # Errors
    /// When it is not a regular expression, or too large a one.
    fn new(pattern: &str) -> Result<Self, regex::Error> {
        let mut builder = RegexBuilder::new(pattern);
        builder.multi_line(true).size_limit(limits::REGEX_BYTES_MAX).build().map(Self)
    }
}

fn settings(given: &Given) -> Result<Probe, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let command = given.command("command").cloned();
    match &command {
        None => wrong.push(Wrong::new("command", "this check does not say which `command`", "")),
        Some(command) if command.timeout.is_some() => wrong.push(Wrong::new(
            "command",
            "the command of a check has no `timeout` of its own",
            "write `timeout` in the check, beside `command`",
        )),
        Some(_) => {}
    }
    let warning = if given.text("warning") == Some("ok") { Warning::Ok } else { Warning::Fail };
    let style =
        if given.text("style") == Some("nagios") { Style::Nagios(warning) } else { Style::Exit };
    if style == Style::Exit && given.has("warning") {
        let hint = "add style = \"nagios\", or leave `warning` out";
        wrong.push(Wrong::new("warning", "only a Nagios plugin has a WARNING", hint));
    }
    let expect = match given.text("expect").map(Expect::new).transpose() {
        Ok(expect) => expect,
        Err(error) => {
            wrong.push(Wrong::new("expect", format!("`expect` is of no use: {error}"), ""));
            None
        }
    };
    match command {
        Some(command) if wrong.is_empty() => {
            Ok(Probe::Command(Settings { command, style, expect }))
        }
        Some(_) | None => Err(wrong),
    }
}

/// What its end and its output mean. `timeout` is how long it was given.
#[must_use]
pub fn read(settings: &Settings, timeout: Duration, outcome: &Outcome) -> Observation {
    let said = Said::of(&outcome.output);
    match &outcome.ended {
        Ended::Exited(exit) => exited(settings, *exit, &said, outcome.took),
        Ended::TimedOut => {
            let text = format!("timed out after {}", show_duration(timeout));
            let seen = Observation::failed(&said.after(&text));
            seen.with(Metric::ResponseTime, Value::Duration(outcome.took))
        }
        Ended::NotExecuted { .. } | Ended::Lost => {
            Observation::unknown(&said.after(&format!("it {}", outcome.ended)))
        }
    }
}

/// What heeler had to remark on a run, in lines for a log.
#[must_use]
pub fn remarks(output: &Output) -> Vec<String> {
    // A program may print such lines, too: they are no more trusted than any other.
    Said::of(output).own.iter().take(REMARKS_MAX).map(|line| escape(line)).collect()
}

/// A home that failed, what was left behind, what does not die, a hint.
const REMARKS_MAX: usize = 4;

fn exited(settings: &Settings, exit: Exit, said: &Said, took: Duration) -> Observation {
    let outcome = match judge(settings.style, exit) {
        (Judged::Good, _) => match &settings.expect {
            Some(expect) => expected(expect, said),
            None => observation::Outcome::Ok,
        },
        (Judged::Bad, words) => observation::Outcome::Failed(said.after(&words).as_str().into()),
        (Judged::Untold, words) => {
            observation::Outcome::Unknown(said.after(&words).as_str().into())
        }
    };
    let mut metrics = vec![(Metric::ResponseTime, Value::Duration(took))];
    if let Exit::Code(code) = exit
        && let Ok(code) = u64::try_from(code)
    {
        metrics.push((Metric::ExitCode, Value::Count(code)));
        metrics.extend(perfdata::metrics(said.whole_words()));
    }
    Observation {
        metrics: metrics.into_iter().map(|(name, value)| (name, Reading::Exact(value))).collect(),
        fingerprint: Some(changed(settings.style, exit, said)),
        detail: Untrusted::from(said.first_line().as_str()),
        ..Observation::of(outcome)
    }
}

/// Whether a code is good, in its own style.
enum Judged {
    Good,
    Bad,
    /// heeler cannot tell: the plugin could not.
    Untold,
}

fn judge(style: Style, exit: Exit) -> (Judged, String) {
    match (style, exit) {
        (_, Exit::Code(0)) => (Judged::Good, String::new()),
        (Style::Exit, Exit::Code(code)) => {
            let hint = match code {
                126 => " (by a shell: a command in it may not be executed)",
                127 => " (by a shell: a command in it was not found)",
                _ => "",
            };
            (Judged::Bad, format!("{exit}{hint}"))
        }
        (Style::Exit, Exit::Signal(_)) => (Judged::Bad, exit.to_string()),
        (Style::Nagios(Warning::Ok), Exit::Code(1)) => (Judged::Good, String::new()),
        (Style::Nagios(Warning::Fail), Exit::Code(1)) => {
            (Judged::Bad, "WARNING (code 1)".to_owned())
        }
        (Style::Nagios(_), Exit::Code(2)) => (Judged::Bad, "CRITICAL (code 2)".to_owned()),
        (Style::Nagios(_), Exit::Code(3)) => (Judged::Untold, "UNKNOWN (code 3)".to_owned()),
        (Style::Nagios(_), Exit::Code(code)) => {
            (Judged::Untold, format!("code {code}, which is no state of a Nagios plugin"))
        }
        (Style::Nagios(_), Exit::Signal(_)) => (Judged::Untold, format!("the plugin was {exit}")),
    }
}

fn expected(expect: &Expect, said: &Said) -> observation::Outcome {
    if expect.0.is_match(said.text.as_bytes()) {
        return observation::Outcome::Ok;
    }
    let pattern = escape(expect.0.as_str());
    let text = said.after(&format!("its output does not match `{pattern}`"));
    if said.dropped_bytes > 0 {
        // What would match may be in what was dropped.
        return observation::Outcome::Unknown(text.as_str().into());
    }
    observation::Outcome::Failed(text.as_str().into())
}

/// What `changed` is about: a plugin's state; of any other program its code and what it printed.
fn changed(style: Style, exit: Exit, said: &Said) -> u64 {
    let exit = exit.to_string();
    match style {
        Style::Nagios(_) => fingerprint([exit.as_bytes()]),
        Style::Exit => fingerprint([exit.as_bytes(), said.text.as_bytes()]),
    }
}

/// What the program printed, and what heeler has to add to it.
struct Said {
    text: String,
    /// heeler's own lines, without their mark.
    own: Vec<String>,
    dropped_bytes: u64,
}

/// How heeler's own lines begin; they are the last ones.
const OWN: &str = "heeler: ";

impl Said {
    fn of(output: &Output) -> Self {
        let mut lines: Vec<&str> =
            output.head.raw().lines().chain(output.tail.raw().lines()).collect();
        let mut own = Vec::new();
        while let Some(line) = lines.last().and_then(|line| line.strip_prefix(OWN)) {
            own.insert(0, line.to_owned());
            lines.pop();
        }
        Self { text: lines.join("\n"), own, dropped_bytes: output.dropped_bytes }
    }

    /// What surely was printed as it stands: a word at which the output was cut may have lost its end.
    fn whole_words(&self) -> &str {
        match self.text.rfind(char::is_whitespace) {
            Some(end) if self.dropped_bytes > 0 => &self.text[..end],
            None if self.dropped_bytes > 0 => "",
            Some(_) | None => &self.text,
        }
    }

    /// The first line that says something, without a plugin's numbers.
    fn first_line(&self) -> String {
        let line = self.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        perfdata::summary(line).to_owned()
    }

    /// These words, then what the program had to say, what was lost of it, and what heeler has to add.
    fn after(&self, words: &str) -> String {
        let line = self.first_line();
        let line = Untrusted::bounded(line.as_bytes(), LINE_BYTES_MAX);
        let mut text = words.to_owned();
        if !line.is_empty() {
            text.push_str(": ");
            text.push_str(line.raw());
        }
        if self.dropped_bytes > 0 {
            text.push_str(&format!(" [output cut: {} bytes not kept]", self.dropped_bytes));
        }
        for own in &self.own {
            text.push_str("; ");
            text.push_str(own);
        }
        text
    }
}

/// What is shown of a program's first line: what comes after it has to be seen, too.
const LINE_BYTES_MAX: usize = 256;
