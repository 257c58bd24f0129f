//! Errands: children that look at something as a user, and are ended when they take too long.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::finding::{Finding, Grade};
use crate::model::job::{Ended, Job, JobKind, Outcome};
use crate::model::limits;
use crate::model::process::Pid;
use crate::shim::{AsUser, Last, Witness, keep};
use crate::sys::clock;
use crate::tools::run_as;

/// What may still be done, and what was found to hang.
pub(super) struct Errands {
    until: Instant,
    /// Whose managers did not answer: asking them again would take as long again.
    pub(super) hanging: BTreeSet<Box<str>>,
}

/// Whose child it is: user, group, and a file of environment that it reads.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Whose {
    pub(super) user: Option<Box<str>>,
    pub(super) group: Option<Box<str>>,
    pub(super) env_file: Option<PathBuf>,
    pub(super) env: Vec<(Box<str>, Box<str>)>,
}

impl Errands {
    /// From now on there is so much time for all of them.
    pub(super) fn begin() -> Self {
        Self { until: Instant::now() + limits::DOCTOR_TIME, hanging: BTreeSet::new() }
    }

    /// Has a child find something out; `None` is heeler's own user.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) fn ask(
        &mut self,
        whose: Option<&Whose>,
        look: &dyn Fn(&AsUser<'_>) -> Vec<Finding>,
    ) -> Result<Vec<Finding>, String> {
        let answer = |me: &AsUser<'_>| look(me).iter().map(encode).collect::<String>();
        let job = self.job(whose, vec!["true".to_owned()], limits::DOCTOR_ERRAND_TIME)?;
        let (ended, printed) = run(&job, Last::Ask(&answer));
        if ended.succeeded() {
            let text = String::from_utf8_lossy(&printed);
            return Ok(text.lines().filter_map(decode).collect());
        }
        Err(match ended {
            // The words of these are about a command; here there is none but ours.
            Ended::TimedOut => "it took too long: does a file system hang? try `df`".to_owned(),
            Ended::NotExecuted { error, .. } => error.to_string(),
            Ended::Exited(_) | Ended::Lost => format!("the look at it {ended}"),
        })
    }

    /// Runs a command; what it printed.
    ///
    /// # Errors
    /// Why it did not succeed.
    pub(super) fn run(
        &mut self,
        whose: Option<&Whose>,
        argv: &[Box<str>],
        time: Duration,
    ) -> Result<String, String> {
        let argv = argv.iter().map(ToString::to_string).collect();
        let job = self.job(whose, argv, time)?;
        let (ended, printed) = run(&job, Last::Execute);
        let text = String::from_utf8_lossy(&printed).into_owned();
        if ended.succeeded() {
            return Ok(text);
        }
        let last = text.lines().next_back().map(|line| format!(": {line}")).unwrap_or_default();
        Err(format!("{ended}{last}"))
    }

    fn job(&self, whose: Option<&Whose>, argv: Vec<String>, time: Duration) -> Result<Job, String> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("not looked at: the time for all of this is over".to_owned());
        }
        let whose = whose.cloned().unwrap_or_default();
        Ok(Job {
            user: whose.user,
            group: whose.group,
            env: whose.env,
            env_file: whose.env_file,
            cwd: Some("/".into()),
            kind: JobKind::Look,
            deadline: clock::now().mono + time.min(left),
            ..run_as::job("", argv)
        })
    }
}

fn run(job: &Job, last: Last<'_>) -> (Ended, Vec<u8>) {
    let mut collector = Collector { ended: Ended::Lost, printed: Vec::new() };
    // What holds the output is a stranger's; nobody reads on for it.
    drop(keep(job, last, None, None, &mut collector));
    (collector.ended, collector.printed)
}

/// Keeps what a child printed, up to a bound.
struct Collector {
    ended: Ended,
    printed: Vec<u8>,
}

impl Witness for Collector {
    fn child_waits(&mut self, _child: Pid) -> std::io::Result<()> {
        Ok(())
    }

    fn executed(&mut self) {}

    fn output(&mut self, bytes: &[u8]) {
        let room = limits::RECORD_BYTES_MAX.saturating_sub(self.printed.len());
        self.printed.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn remark(&mut self, _line: &str) {}

    fn ended(&mut self, outcome: &Outcome) {
        self.ended = outcome.ended.clone();
    }
}

/// A finding on its way from a child.
#[derive(Serialize, Deserialize)]
struct Line {
    grade: String,
    about: String,
    text: String,
    todo: Option<String>,
}

fn encode(finding: &Finding) -> String {
    let Finding { grade, about, text, todo } = finding.clone();
    let line = Line { grade: grade.name().to_owned(), about, text, todo };
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

/// A child of another user may have said anything.
fn decode(line: &str) -> Option<Finding> {
    let Line { grade, about, text, todo } = serde_json::from_str(line).ok()?;
    let grade = Grade::ALL.into_iter().find(|one| one.name() == grade)?;
    Some(Finding { grade, about, text, todo })
}
