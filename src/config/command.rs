//! Commands: a text split as a shell would split it, a list, or the long form.
//!
//! `shell = true` runs the text by `/bin/sh -c`. `login = true` runs it by the user's own login
//! shell as
//! `-lc`: which shell that is only the built environment knows, so a small sh looks it up there.

use std::ops::Range;
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use crate::config::document::{Document, Field, field, get, shorten};
use crate::model::limits;
use crate::model::process::Signal;
use crate::model::service::{Command, Reload};

/// What a `stop` may say.
pub(crate) enum Stop {
    /// Run this.
    Command(Command),
    /// Begin the ladder with this.
    Signal(Signal),
}

const LOGIN: &str = "exec \"${SHELL:-/bin/sh}\" -lc \"$0\"";
const LONG_KEYS: [&str; 6] = ["run", "shell", "login", "timeout", "env", "cwd"];
const EXAMPLE: &str = "/usr/bin/program --option";

/// A command in any of its forms.
pub(crate) fn command(doc: &mut Document<'_>, at: Field<'_>) -> Option<Command> {
    let command = match at.value.get_ref() {
        DeValue::String(_) => words(doc, at, Shell::Hint).map(plain),
        DeValue::Array(_) => list(doc, at).map(plain),
        DeValue::Table(table) => long(doc, at, table),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            let hint = format!("for example: {} = {EXAMPLE:?}", at.key);
            doc.expected("a command", at, Some(&hint));
            None
        }
    }?;
    program(doc, at.value.span(), &command).then_some(command)
}

/// A `stop`: a command, or `{ signal = "TERM" }`.
pub(crate) fn stop(doc: &mut Document<'_>, at: Field<'_>) -> Option<Stop> {
    match by_signal(doc, at) {
        Some(at) => signal(doc, at).map(Stop::Signal),
        None => command(doc, at).map(Stop::Command),
    }
}

/// A `reload`: a command, or `{ signal = "HUP" }`.
pub(crate) fn reload(doc: &mut Document<'_>, at: Field<'_>) -> Option<Reload> {
    match by_signal(doc, at) {
        Some(at) => {
            let reloads = |signal: &Signal| !matches!(signal, Signal::Cont | Signal::Kill);
            named(doc, at, "a signal that may mean a reload", reloads).map(Reload::Signal)
        }
        None => command(doc, at).map(Reload::Command),
    }
}

/// The `signal` of the long form, which then has nothing else.
fn by_signal<'a>(doc: &mut Document<'_>, at: Field<'a>) -> Option<Field<'a>> {
    let table = at.value.get_ref().as_table()?;
    let signal = field(table, "signal")?;
    doc.known_keys(table, &["signal"], &[], &[]);
    Some(signal)
}

/// A signal that stops something, by its name.
pub(crate) fn signal(doc: &mut Document<'_>, at: Field<'_>) -> Option<Signal> {
    named(doc, at, "a signal that stops something", |signal| *signal != Signal::Cont)
}

fn named(
    doc: &mut Document<'_>,
    at: Field<'_>,
    what: &str,
    fits: impl Fn(&Signal) -> bool,
) -> Option<Signal> {
    let names: Vec<_> = Signal::NAMED.into_iter().filter(&fits).map(Signal::name).collect();
    let text = at.value.get_ref().as_str().unwrap_or_default();
    match Signal::parse(text).filter(&fits) {
        Some(signal) => Some(signal),
        None => doc.word(at, what, &names).and_then(|name| Signal::parse(&name)),
    }
}

/// `env`: a table of names and texts.
pub(crate) fn env(doc: &mut Document<'_>, at: Field<'_>) -> Option<Vec<(Box<str>, Box<str>)>> {
    let table = doc.table(at, "for example: env = { RAILS_ENV = \"production\" }")?;
    let mut out = Vec::new();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.chars().all(word)
            || name.starts_with(|c: char| c.is_ascii_digit())
            || name.is_empty()
        {
            let message = format!("`{}` is not a name of the environment", shorten(name));
            doc.error(key.span(), message, Some("names are letters, digits and _, no digit first"));
            continue;
        }
        // Unlike other texts this one may be empty.
        match value.get_ref().as_str() {
            Some(text) if text.contains('\0') => {
                doc.error(value.span(), format!("`{name}` has a NUL byte in it"), None);
            }
            Some(text) => out.push((name.into(), text.into())),
            None => {
                let hint = "the environment is text: put the value in quotes";
                doc.expected("a text in quotes", Field { key: name, value }, Some(hint));
            }
        }
    }
    Some(out)
}

fn plain(argv: Vec<Box<str>>) -> Command {
    Command { argv, timeout: None, env: Vec::new(), cwd: None, systemctl: None }
}

/// What is done about characters that only a shell would understand.
#[derive(Clone, Copy)]
enum Shell {
    /// Warn.
    Hint,
    /// There is one.
    Asked,
}

fn words(doc: &mut Document<'_>, at: Field<'_>, shell: Shell) -> Option<Vec<Box<str>>> {
    let text = doc.string(at, EXAMPLE)?;
    match shell {
        Shell::Asked => return Some(vec![text.into()]),
        Shell::Hint => {}
    }
    let Some(words) = shlex::split(text) else {
        let message = format!("a quote in `{}` is never closed, or it ends in a backslash", at.key);
        doc.error(at.value.span(), message, None);
        return None;
    };
    if let Some((range, what)) = meant_for_shell(text) {
        let place = doc.within(at.value, &range);
        let message = format!("{what} means nothing here: `{}` is run without a shell", at.key);
        let hint =
            format!("for a shell: {} = {{ run = \"...\", shell = true }}; else quote it", at.key);
        doc.warn(place, message, Some(&hint));
    }
    Some(words.into_iter().map(Into::into).collect())
}

/// The first thing in a text that only a shell would act on.
fn meant_for_shell(text: &str) -> Option<(Range<usize>, String)> {
    let (mut single, mut double, mut escaped, mut word_start) = (false, false, false, true);
    for (at, c) in text.char_indices() {
        let rest = &text[at + c.len_utf8()..];
        let opens = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '(' | '{');
        let found = match c {
            _ if escaped || single => false,
            '$' => rest.starts_with(opens),
            '`' => true,
            '|' | '&' | ';' | '<' | '>' | '*' => !double,
            '~' | '#' => word_start && !double,
            _ => false,
        };
        if found {
            return Some((at..at + c.len_utf8(), format!("`{c}`")));
        }
        word_start = c.is_whitespace() && !single && !double;
        let was_escaped = std::mem::take(&mut escaped);
        match c {
            _ if was_escaped => {}
            '\\' => escaped = !single,
            '\'' => single ^= !double,
            '"' => double ^= !single,
            _ => {}
        }
    }
    let first = text.split_whitespace().next()?;
    let name = first.split_once('=')?.0;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let assigns = !name.is_empty() && name.chars().all(word);
    let at = text.find(first)?;
    assigns.then(|| (at..at + name.len() + 1, format!("`{name}=`")))
}

fn list(doc: &mut Document<'_>, at: Field<'_>) -> Option<Vec<Box<str>>> {
    let mut argv: Vec<Box<str>> = Vec::new();
    let items = doc.list(at, "")?;
    let count = items.len();
    for item in items {
        match item.value.get_ref().as_str() {
            Some(text) if text.contains('\0') => {
                doc.error(item.value.span(), format!("`{}` has a NUL byte in it", at.key), None);
            }
            Some(text) => argv.push(text.into()),
            None => doc.expected("a list of texts", item, Some("put each argument in quotes")),
        }
    }
    (argv.len() == count).then_some(argv)
}

fn long(doc: &mut Document<'_>, at: Field<'_>, table: &DeTable<'_>) -> Option<Command> {
    if let Some(signal) = field(table, "signal") {
        let message = format!("`{}` cannot be a signal", at.key);
        doc.error(signal.value.span(), message, Some("a signal is for `stop` and `reload`"));
        return None;
    }
    doc.known_keys(table, &LONG_KEYS, &[], &[]);
    let shell = get(doc, table, "shell", Document::boolean).unwrap_or(false);
    let login = get(doc, table, "login", Document::boolean).unwrap_or(false);
    let asked = if shell || login { Shell::Asked } else { Shell::Hint };
    let Some(run) = field(table, "run") else {
        let message = format!("`{}` does not say what to run", at.key);
        doc.missing(
            Some(at.value.span()),
            message,
            &format!("for example: {{ run = {EXAMPLE:?} }}"),
        );
        return None;
    };
    let argv = match (run.value.get_ref(), asked) {
        (DeValue::Array(_), Shell::Asked) => {
            let message = "a shell is given one text, not a list";
            doc.error(
                run.value.span(),
                message,
                Some("write `run` as one text, or leave the shell out"),
            );
            None
        }
        (DeValue::Array(_), Shell::Hint) => list(doc, run),
        _ => words(doc, run, asked),
    };
    let argv = argv.map(|argv| match asked {
        Shell::Hint => argv,
        Shell::Asked => {
            let script = if login { Some(LOGIN.into()) } else { None };
            let sh = ["/bin/sh".into(), "-c".into()];
            sh.into_iter().chain(script).chain(argv).collect()
        }
    });
    let timeout = get(doc, table, "timeout", |doc, at| doc.duration(at, limits::SPAN_MIN));
    let env = get(doc, table, "env", env).unwrap_or_default();
    let cwd = get(doc, table, "cwd", Document::path);
    Some(Command { argv: argv?, timeout, env, cwd, systemctl: None })
}

/// Whether the program can be found: by its whole path, or on PATH by its bare name.
fn program(doc: &mut Document<'_>, at: Range<usize>, command: &Command) -> bool {
    let name = command.argv.first().map_or("", |word| word);
    if name.is_empty() {
        doc.error(
            at,
            "there is no program in this command",
            Some(&format!("for example: {EXAMPLE:?}")),
        );
        return false;
    }
    if name.starts_with('/') {
        doc.programs.push((PathBuf::from(name), at));
    } else if name.contains('/') {
        let message =
            format!("`{}` is neither a whole path nor a name to be found on PATH", shorten(name));
        doc.error(at, message, Some("begin it with /"));
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_shell_would_understand() {
        let cases = [
            ("a | b", Some("`|`")),
            ("a 'x | y' \"<z>\" b\\;c", None),
            ("a > /dev/null", Some("`>`")),
            ("a && b", Some("`&`")),
            ("a \"$(date)\"", Some("`$`")),
            ("a $HOME", Some("`$`")),
            ("a '$HOME' ^x$ $", None),
            ("ls *.rb", Some("`*`")),
            ("~/bin/a", Some("`~`")),
            ("a x~ y#z", None),
            ("a # b", Some("`#`")),
            ("RAILS_ENV=production bundle exec puma", Some("`RAILS_ENV=`")),
            ("a --x=y", None),
            ("a é`", Some("`` ` ``")),
        ];
        for (text, found) in cases {
            let seen = meant_for_shell(text).map(|(_, what)| what);
            let found = found.map(|what| what.replace("`` ` ``", "```"));
            assert_eq!(seen, found, "{text}");
        }
    }
}
