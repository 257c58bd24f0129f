//! `heeler man`: the manual page, made from the very definition of the command line. man(7) macros.
#![forbid(unsafe_code)]

use clap::{Arg, Command};

/// The page; `heeler man | man -l -` shows it.
#[must_use]
pub(super) fn page(command: &Command) -> String {
    let version = command.get_version().unwrap_or_default();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut out =
        format!(".TH HEELER 8 \"\" \"heeler {}\" \"System Administration\"\n", roff(version));
    section(&mut out, "NAME");
    let about = about.trim_end_matches('.');
    let first = about.chars().next().map(|first| first.to_lowercase().to_string());
    let rest = about.chars().skip(1).collect::<String>();
    line(&mut out, &format!("heeler - {}{rest}", first.unwrap_or_default()));
    section(&mut out, "SYNOPSIS");
    out.push_str(".B heeler\n[\\fIOPTIONS\\fR] \\fICOMMAND\\fR\n");
    section(&mut out, "DESCRIPTION");
    for text in DESCRIPTION {
        out.push_str(".PP\n");
        line(&mut out, text);
    }
    section(&mut out, "OPTIONS");
    command.get_arguments().for_each(|arg| argument(&mut out, arg));
    section(&mut out, "COMMANDS");
    for word in command.get_subcommands().filter(|word| !word.is_hide_set()) {
        describe(&mut out, word, "heeler");
    }
    section(&mut out, "EXIT STATUS");
    for (code, meaning) in EXIT {
        out.push_str(&format!(".TP\n.B {code}\n"));
        line(&mut out, meaning);
    }
    section(&mut out, "FILES");
    for (path, meaning) in FILES {
        out.push_str(&format!(".TP\n.I {}\n", roff(path)));
        line(&mut out, meaning);
    }
    section(&mut out, "ENVIRONMENT");
    for (name, meaning) in ENVIRONMENT {
        out.push_str(&format!(".TP\n.B {}\n", roff(name)));
        line(&mut out, meaning);
    }
    out
}

const DESCRIPTION: [&str; 3] = [
    "A root daemon reads one TOML file per service from its configuration directory, runs checks on schedule, \
     and starts, stops and restarts each service as its own user, with that user's real environment. It sees \
     a death at once, and mails what happened.",
    "Where a command takes NAME|PATTERN, a pattern in quotes stands for the names it matches: * any text, ? one \
     character, [a-c] one of these, [!a-c] one of the others. Only services that the caller may see are \
     matched.",
    "The control socket speaks HTTP/1.1 and JSON: curl --unix-socket /run/heeler/control.sock \
     http://heeler/v1/status",
];

const EXIT: [(u8, &str); 7] = [
    (0, "Done, or all is well."),
    (1, "It was tried and did not come out."),
    (2, "The command line is not one."),
    (3, "The service is not running."),
    (4, "There is no such service, or none that the caller may see."),
    (5, "The caller may not."),
    (6, "There is no daemon to ask."),
];

const FILES: [(&str, &str); 4] = [
    (
        "/etc/heeler/conf.d",
        "The configuration: heeler.toml for the daemon, every other *.toml a service.",
    ),
    ("/var/lib/heeler", "What survives a reboot: wishes, incidents, events, alerts on their way."),
    ("/run/heeler", "Locks and records of what is in flight."),
    ("/run/heeler/control.sock", "The control socket."),
];

const ENVIRONMENT: [(&str, &str); 2] = [
    ("HEELER_SOCKET", "The control socket, where --socket does not say it."),
    ("NO_COLOR", "No colour, where it is set to anything."),
];

fn section(out: &mut String, title: &str) {
    out.push_str(&format!(".SH {title}\n"));
}

/// A command with its arguments, and those below it.
fn describe(out: &mut String, command: &Command, before: &str) {
    let path = format!("{before} {}", command.get_name());
    let below: Vec<_> = command.get_subcommands().filter(|word| !word.is_hide_set()).collect();
    if !below.is_empty() {
        below.iter().for_each(|word| describe(out, word, &path));
        return;
    }
    let usage: Vec<_> = command.get_positionals().map(usage).collect();
    let usage = usage.join(" ");
    out.push_str(&format!(".SS \"{} {}\"\n", roff(&path), roff(&usage)));
    if let Some(about) = command.get_about() {
        line(out, &format!("{about}."));
    }
    let own = command.get_arguments().filter(|arg| arg.get_id() != "help" && !arg.is_global_set());
    own.for_each(|arg| argument(out, arg));
}

fn usage(arg: &Arg) -> String {
    let name = name_of(arg);
    let many = arg.get_num_args().is_some_and(|many| many.max_values() > 1)
        || matches!(arg.get_action(), clap::ArgAction::Append);
    let dots = if many { "..." } else { "" };
    if arg.is_required_set() { format!("{name}{dots}") } else { format!("[{name}{dots}]") }
}

fn name_of(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    if names.is_empty() { arg.get_id().as_str().to_uppercase() } else { names.join(" ") }
}

fn argument(out: &mut String, arg: &Arg) {
    if arg.is_hide_set() {
        return;
    }
    let value = arg.get_action().takes_values().then(|| name_of(arg));
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let names: Vec<_> = short.into_iter().chain(long).collect();
    let head = match (names.is_empty(), value) {
        (true, value) => value.unwrap_or_default(),
        (false, Some(value)) => format!("{} {value}", names.join(", ")),
        (false, None) => names.join(", "),
    };
    out.push_str(&format!(".TP\n.B {}\n", roff(&head)));
    let values: Vec<_> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let flag = !arg.get_action().takes_values();
    match (flag || values.is_empty(), help.is_empty()) {
        (true, _) => line(out, &help),
        (false, true) => line(out, &values.join(", ")),
        (false, false) => line(out, &format!("{help}: {}", values.join(", "))),
    }
}

/// One line of text, however it begins.
fn line(out: &mut String, text: &str) {
    let text = roff(text);
    let guard = if text.starts_with(['.', '\'']) { "\\&" } else { "" };
    out.push_str(&format!("{guard}{text}\n"));
}

/// Escapes what means something to roff.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq").replace('\n', " ")
}
