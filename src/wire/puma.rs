//! Keeper and the program that asks a Puma as the service's user: a question in, an answer out.
//!
//! Lines of words: a key, then numbers (`-` where there is none) or texts, in which everything but plain
//! characters is written `%XX`. The question comes on stdin, so that a token is in no command line and no
//! environment. Whoever answers is a program of the service's user: what is not exactly an answer is none.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::model::ids::ActionId;
use crate::model::job::{AtDeadline, Ended, Job, JobKind, Outcome};
use crate::model::limits;
use crate::model::process::{Exit, Pid};
use crate::model::puma::{
    Answer, Ask, Boot, Cluster, Control, ControlUrl, Exposed, Form, Question, Said, Secret,
    StateFile, Stats, Threads, Token, Trouble, TroubleKind, Version, WorkerStatus,
};
use crate::model::service::{Command, Service};
use crate::model::text::Untrusted;
use crate::model::time::Mono;

/// The role: how the program is called, and what it executes. Not the word "puma", which a service's
/// `match` may look for among its user's processes.
pub const ROLE: &str = "ask";
/// heeler itself, whoever may enter the directory it lies in (proc(5)).
pub const PROGRAM: &str = "/proc/self/exe";

const FIRST: &str = "heeler-ask 1";
const LAST: &str = "end";

/// The job that asks a service's Puma, where it is one. Nothing but what it needs is in its environment.
#[must_use]
pub fn job(service: &Service, ask: Ask, action: ActionId, deadline: Mono) -> Option<Job> {
    let control = service.puma.as_ref()?.control.clone();
    Some(Job {
        action,
        service: service.name.clone(),
        kind: JobKind::Ask,
        command: Command {
            argv: vec![PROGRAM.into(), ROLE.into()],
            timeout: None,
            env: Vec::new(),
            cwd: Some("/".into()),
            systemctl: None,
        },
        user: service.user.clone(),
        group: service.group.clone(),
        env: Vec::new(),
        env_file: None,
        cwd: None,
        deadline,
        reason: ask.word().to_owned(),
        main: None,
        at_deadline: AtDeadline::Group,
        input: Some(Question { control, ask }.encode()),
    })
}

impl Question {
    /// What goes to stdin.
    #[must_use]
    pub fn encode(&self) -> Secret {
        let mut lines = vec![FIRST.to_owned(), format!("ask {}", self.ask.word())];
        match &self.control {
            Control::State(path) => lines.push(format!("state {}", path_word(path))),
            Control::Url { url, token } => {
                lines.push(format!("url {}", word(&url.to_string())));
                match token {
                    Token::None => {}
                    Token::Said(secret) => lines.push(format!("token {}", word(secret.reveal()))),
                    Token::File(path) => lines.push(format!("token-file {}", path_word(path))),
                }
            }
        }
        lines.push(LAST.to_owned());
        Secret::text(lines.join("\n") + "\n")
    }

    /// Reads it; `None` when it is none.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut lines = Lines::begin(text)?;
        let ask = lines.value("ask")?;
        let ask = Ask::ALL.into_iter().find(|known| known.word() == ask)?;
        let control = match lines.value("state") {
            Some(path) => Control::State(path_of(path)?),
            None => {
                let url = ControlUrl::parse(&text_of(lines.value("url")?)?).ok()?;
                let said = lines.value("token");
                let file = lines.value("token-file");
                let token = match (said, file) {
                    (None, None) => Token::None,
                    (Some(token), None) => Token::Said(Secret::token(&text_of(token)?)?),
                    (None, Some(path)) => Token::File(path_of(path)?),
                    (Some(_), Some(_)) => return None,
                };
                Control::Url { url, token }
            }
        };
        lines.end()?;
        Some(Self { control, ask })
    }
}

impl Answer {
    /// What goes to stdout.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut lines = vec![FIRST.to_owned()];
        if let Some(StateFile { master, running_from }) = &self.state {
            lines.push(format!("master {}", number(master.map(pid_number))));
            lines.extend(running_from.as_ref().map(|path| format!("from {}", word(path.raw()))));
        }
        lines.extend(self.exposed.iter().map(|exposed| format!("exposed {}", exposed.word())));
        match &self.said {
            Ok(Said::Accepted) => lines.push("accepted".to_owned()),
            Ok(Said::Stats(stats)) => encode_stats(stats, &mut lines),
            Err(Trouble { kind, detail }) => {
                lines.push(format!("trouble {} {}", kind.word(), word(detail.raw())));
            }
        }
        lines.push(LAST.to_owned());
        lines.join("\n") + "\n"
    }

    /// Reads it; `None` when it is none.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut lines = Lines::begin(text)?;
        let state = match lines.value("master") {
            None => None,
            Some(master) => {
                let master = of_pid(number_of(master)?)?;
                let running_from = match lines.value("from") {
                    Some(path) => Some(Untrusted::bounded(text_of(path)?.as_bytes(), PATH_MAX)),
                    None => None,
                };
                Some(StateFile { master, running_from })
            }
        };
        let mut exposed = Vec::new();
        while let Some(found) = lines.value("exposed") {
            exposed.push(Exposed::ALL.into_iter().find(|known| known.word() == found)?);
        }
        if exposed.len() > Exposed::ALL.len() {
            return None;
        }
        let said = if let Some(trouble) = lines.value("trouble") {
            let (kind, detail) = trouble.split_once(' ')?;
            let kind = TroubleKind::ALL.into_iter().find(|known| known.word() == kind)?;
            Err(Trouble { kind, detail: Untrusted::from(text_of(detail)?.as_str()) })
        } else if lines.value("accepted").is_some() {
            Ok(Said::Accepted)
        } else {
            Ok(Said::Stats(decode_stats(&mut lines)?))
        };
        lines.end()?;
        Some(Self { state, exposed, said })
    }

    /// What came of the job that asked.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let not_asked = |why: &str| Self::none(Trouble::new(TroubleKind::NotAsked, why));
        match &outcome.ended {
            Ended::Exited(Exit::Code(0)) => Self::decode(outcome.output.head.raw())
                .unwrap_or_else(|| not_asked("what asked it said something else than an answer")),
            Ended::Exited(_) | Ended::TimedOut | Ended::NotExecuted { .. } | Ended::Lost => {
                let last = outcome.output.last_line().unwrap_or_default();
                let gap = if last.is_empty() { "" } else { ": " };
                not_asked(&format!("the program that asks it {}{gap}{last}", outcome.ended))
            }
        }
    }
}

fn encode_stats(stats: &Stats, lines: &mut Vec<String>) {
    let version = stats.version.map(|it| format!("version {} {} {}", it.major, it.minor, it.patch));
    lines.extend(version);
    lines.push(format!("started {}", number(stats.started_wall_ms)));
    match &stats.form {
        Form::Single(threads) => lines.push(format!("single {}", encode_threads(threads))),
        Form::Cluster(Cluster { phase, workers, booted, old, each }) => {
            let numbers = [*phase, *workers, *booted, *old].map(number);
            lines.push(format!("cluster {}", numbers.join(" ")));
            for worker in each {
                let WorkerStatus { pid, index, phase, boot, threads, .. } = worker;
                let booted = match boot {
                    Boot::Booting => 0,
                    Boot::Booted => 1,
                };
                let (started, checkin) = (worker.started_wall_ms, worker.checkin_wall_ms);
                let pid = pid.map(pid_number);
                let numbers =
                    [pid, *index, *phase, Some(booted), started, checkin].map(number).join(" ");
                lines.push(format!("worker {numbers} {}", encode_threads(threads)));
            }
        }
    }
}

fn decode_stats(lines: &mut Lines<'_>) -> Option<Stats> {
    let version = match lines.value("version") {
        Some(version) => {
            let [major, minor, patch] = numbers_of(version)?;
            Some(Version { major: major?, minor: minor?, patch: patch? })
        }
        None => None,
    };
    let started_wall_ms = number_of(lines.value("started")?)?;
    if let Some(threads) = lines.value("single") {
        let form = Form::Single(threads_of(numbers_of(threads)?));
        return Some(Stats { version, started_wall_ms, form });
    }
    let [phase, workers, booted, old] = numbers_of(lines.value("cluster")?)?;
    let mut each = Vec::new();
    while let Some(worker) = lines.value("worker") {
        if each.len() >= limits::WORKERS_MAX as usize {
            return None;
        }
        let [pid, index, phase, boot, started, checkin, a, b, c, d, e] = numbers_of(worker)?;
        let boot = match boot? {
            0 => Boot::Booting,
            1 => Boot::Booted,
            _ => return None,
        };
        each.push(WorkerStatus {
            pid: of_pid(pid)?,
            index,
            phase,
            boot,
            started_wall_ms: started,
            checkin_wall_ms: checkin,
            threads: threads_of([a, b, c, d, e]),
        });
    }
    let form = Form::Cluster(Cluster { phase, workers, booted, old, each });
    Some(Stats { version, started_wall_ms, form })
}

fn encode_threads(threads: &Threads) -> String {
    let Threads { backlog, running, capacity, most, requests } = *threads;
    [backlog, running, capacity, most, requests].map(number).join(" ")
}

fn threads_of([backlog, running, capacity, most, requests]: [Option<u64>; 5]) -> Threads {
    Threads { backlog, running, capacity, most, requests }
}

/// The lines between the first and the last, read one by one.
struct Lines<'a>(std::iter::Peekable<std::str::Split<'a, char>>);

impl<'a> Lines<'a> {
    fn begin(text: &'a str) -> Option<Self> {
        let mut lines = Self(text.split('\n').peekable());
        (lines.0.next()? == FIRST).then_some(lines)
    }

    /// What follows this key on the next line, if that has it.
    fn value(&mut self, key: &str) -> Option<&'a str> {
        let line =
            self.0.peek().copied().filter(|line| line.len() <= limits::PUMA_LINE_BYTES_MAX)?;
        let rest = line.strip_prefix(key)?;
        let value = if rest.is_empty() { rest } else { rest.strip_prefix(' ')? };
        self.0.next();
        Some(value)
    }

    /// Nothing follows but the last line.
    fn end(mut self) -> Option<()> {
        let rest = [self.0.next()?, self.0.next()?];
        (rest == [LAST, ""] && self.0.next().is_none()).then_some(())
    }
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// Decimal digits and nothing else, or `-`. The outer one: whether it is a number at all.
fn number_of(word: &str) -> Option<Option<u64>> {
    if word == "-" {
        return Some(None);
    }
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| word.parse().ok().map(Some)).flatten()
}

/// Exactly so many.
fn numbers_of<const N: usize>(words: &str) -> Option<[Option<u64>; N]> {
    let all = words.split(' ').map(number_of).collect::<Option<Vec<_>>>()?;
    all.try_into().ok()
}

fn pid_number(pid: Pid) -> u64 {
    u64::try_from(pid.0).unwrap_or(0)
}

/// 0 and negative numbers mean groups to kill(2): they must never look like a process.
fn of_pid(number: Option<u64>) -> Option<Option<Pid>> {
    match number {
        None => Some(None),
        Some(number) => {
            i32::try_from(number).ok().filter(|number| *number > 0).map(|pid| Some(Pid(pid)))
        }
    }
}

const PATH_MAX: usize = 4096;

fn path_word(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes())
}

fn path_of(word: &str) -> Option<PathBuf> {
    let bytes = unescaped(word)?;
    (!bytes.is_empty() && !bytes.contains(&0)).then(|| OsStr::from_bytes(&bytes).into())
}

fn word(text: &str) -> String {
    escaped(text.as_bytes())
}

fn text_of(word: &str) -> Option<String> {
    String::from_utf8(unescaped(word)?).ok()
}

/// One word of plain characters.
fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_graphic() && *byte != b'%' {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn unescaped(word: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(word.len());
    let mut bytes = word.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            byte if byte.is_ascii_graphic() => out.push(byte),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests;
