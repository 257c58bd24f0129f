//! `type = "program"`: what an end and an output mean. Pure; how programs are run is in `tests/plugins`.

use std::time::Duration;

use heeler::checks::{Probe, perfdata, program};
use heeler::config::settings::Settings;
use heeler::config::{LoadAs, parse_service};
use heeler::model::ids::ServiceName;
use heeler::model::job::{Ended, Outcome, Output};
use heeler::model::metric::{Metric, Reading, Value};
use heeler::model::observation::{self, Observation, Verdict};
use heeler::model::process::{Exit, Uid};
use heeler::model::text::Untrusted;

/// Reads an end by a check of these lines; and what its condition says.
fn judged(lines: &str, ended: Ended, output: Output) -> (Observation, Verdict) {
    let text = format!("user = \"nobody\"\n[[check]]\ntype = \"program\"\n{lines}\n");
    let who = LoadAs::new(Uid(0), Some("root".into()), |_| None);
    let name = ServiceName::parse("x").expect("a name");
    let parsed = parse_service(&name, "x.toml", &text, &Settings::of(&who), &who);
    let (definition, _) = parsed.unwrap_or_else(|found| panic!("{found:?}"));
    let Probe::Command(settings) = &definition.probes[0] else { panic!("another probe") };
    let check = &definition.service.checks[0];
    let outcome = Outcome { ended, output, took: Duration::from_millis(70) };
    let seen = program::read(settings, check.timeout, &outcome);
    let verdict = check.condition.judge(&seen, None);
    (seen, verdict)
}

fn output(text: &str) -> Output {
    Output { head: text.into(), ..Output::default() }
}

fn seen(lines: &str, ended: Ended, text: &str) -> Observation {
    judged(&format!("command = \"/bin/x\"\n{lines}"), ended, output(text)).0
}

fn code(code: i32) -> Ended {
    Ended::Exited(Exit::Code(code))
}

/// `ok`, `failed: ...`, `unknown: ...`
fn words(seen: &Observation) -> String {
    match &seen.outcome {
        observation::Outcome::Ok => "ok".to_owned(),
        observation::Outcome::Failed(why) => format!("failed: {why}"),
        observation::Outcome::Unknown(why) => format!("unknown: {why}"),
    }
}

fn value(seen: &Observation, name: &str) -> Option<Value> {
    let metric = match name {
        "exit_code" => Metric::ExitCode,
        "response_time" => Metric::ResponseTime,
        _ => Metric::Perfdata(name.into()),
    };
    seen.reading(&metric).map(|reading| match reading {
        Reading::Exact(value) => value,
        Reading::AtMost(_) => panic!("{name} is no bound"),
    })
}

const NAGIOS: &str = "style = \"nagios\"";

#[test]
fn plg_07_every_code_and_signal_means_what_its_style_says() {
    for number in 0..=255 {
        let exit = words(&seen("", code(number), "so it is"));
        let shell = match number {
            126 => " (by a shell: a command in it may not be executed)",
            127 => " (by a shell: a command in it was not found)",
            _ => "",
        };
        let expected = match number {
            0 => "ok".to_owned(),
            _ => format!("failed: failed with code {number}{shell}: so it is"),
        };
        assert_eq!(exit, expected);
        let nagios = words(&seen(NAGIOS, code(number), "so it is | a=1"));
        let expected = match number {
            0 => "ok".to_owned(),
            1 => "failed: WARNING (code 1): so it is".to_owned(),
            2 => "failed: CRITICAL (code 2): so it is".to_owned(),
            3 => "unknown: UNKNOWN (code 3): so it is".to_owned(),
            _ => format!("unknown: code {number}, which is no state of a Nagios plugin: so it is"),
        };
        assert_eq!(nagios, expected);
        let read = seen("", code(number), "");
        assert_eq!(value(&read, "exit_code"), Some(Value::Count(number.unsigned_abs().into())));
    }
    let quiet = "style = \"nagios\"\nwarning = \"ok\"";
    assert_eq!(words(&seen(quiet, code(1), "high")), "ok");
    assert_eq!(words(&seen(quiet, code(2), "high")), "failed: CRITICAL (code 2): high");
    for number in 1..=64 {
        let signal = Ended::Exited(Exit::Signal(number));
        let exit = seen("", signal.clone(), "");
        let named = Exit::Signal(number).to_string();
        assert_eq!(words(&exit), format!("failed: {named}"));
        assert_eq!(value(&exit, "exit_code"), None);
        assert_eq!(words(&seen(NAGIOS, signal, "")), format!("unknown: the plugin was {named}"));
    }
    assert_eq!(words(&seen("", Ended::Exited(Exit::Signal(11)), "")), "failed: killed by SIGSEGV");
}

#[test]
fn what_was_not_run_or_not_seen_to_end_is_not_the_targets_fault() {
    let stage = "execute".into();
    let error = "/bin/x does not exist".into();
    let not = seen("", Ended::NotExecuted { stage, error }, "");
    assert_eq!(
        words(&not),
        "unknown: it was not executed: failed to execute: /bin/x does not exist"
    );
    assert!(words(&seen("", Ended::Lost, "")).starts_with("unknown: it was lost"));
    let (late, verdict) = judged("command = \"/bin/x\"", Ended::TimedOut, output("a=1 | b=2\n"));
    assert_eq!(words(&late), "failed: timed out after 30s: a=1");
    assert_eq!(verdict, Verdict::Fail);
    assert_eq!(value(&late, "perfdata.b"), None, "it was ended while it printed");
    assert!(value(&late, "response_time").is_some());
    let cut = Output { head: "x x".into(), tail: "heeler: it goes on".into(), dropped_bytes: 9 };
    let (late, _) = judged("command = \"/bin/x\"\ntimeout = \"2s\"", Ended::TimedOut, cut);
    let told = "failed: timed out after 2s: x x [output cut: 9 bytes not kept]; it goes on";
    assert_eq!(words(&late), told);
}

#[test]
fn the_output_has_to_say_what_is_expected() {
    let lines = "expect = \"^done$\"";
    assert_eq!(words(&seen(lines, code(0), "began\r\ndone\n")), "ok");
    let other = "failed: its output does not match `^done$`: began";
    assert_eq!(words(&seen(lines, code(0), "began\nundone\n")), other);
    assert_eq!(words(&seen(lines, code(1), "done")), "failed: failed with code 1: done");
    let remark = "began\nheeler: x\nheeler: done";
    assert!(!words(&seen("expect = \"done\"", code(0), remark)).starts_with("ok"));
    let cut = Output { head: "began".into(), dropped_bytes: 5, ..Output::default() };
    let lines = format!("command = \"/bin/x\"\n{lines}");
    let (unsure, _) = judged(&lines, code(0), cut);
    assert!(words(&unsure).starts_with("unknown: its output does not match"), "{unsure:?}");
}

#[test]
fn conditions_look_at_code_time_and_numbers() {
    let verdict = |lines: &str, number: i32, text: &str| {
        judged(&format!("command = \"/bin/x\"\n{lines}"), code(number), output(text)).1
    };
    assert_eq!(verdict("if = \"exit_code = 2\"", 2, ""), Verdict::Fail);
    assert_eq!(verdict("if = \"exit_code = 2\"", 1, ""), Verdict::Pass);
    assert_eq!(verdict("if = \"response_time > 60ms\"", 0, ""), Verdict::Fail);
    let lines = "style = \"nagios\"\nif = \"failed or perfdata.load1 > 4\"";
    assert_eq!(verdict(lines, 0, "OK | load1=4.001;15;30;0;"), Verdict::Fail);
    assert_eq!(verdict(lines, 0, "OK | load1=3.9;15;30;0;"), Verdict::Pass);
    assert_eq!(verdict(lines, 0, "OK"), Verdict::Unknown, "no such number");
    assert_eq!(verdict(lines, 3, "? | load1=9"), Verdict::Unknown);
}

#[test]
fn changed_is_about_the_state_of_a_plugin_and_the_output_of_others() {
    let mark = |lines: &str, number, text| seen(lines, code(number), text).fingerprint;
    assert_eq!(mark(NAGIOS, 0, "a | x=1"), mark(NAGIOS, 0, "b | x=2"));
    assert_ne!(mark(NAGIOS, 0, "a"), mark(NAGIOS, 1, "a"));
    assert_ne!(mark("", 0, "a"), mark("", 0, "b"));
    assert_eq!(mark("", 0, "a"), mark("", 0, "a\nheeler: the command ran in /"));
    assert_eq!(seen("", Ended::TimedOut, "a").fingerprint, None);
}

#[test]
fn plg_09_nothing_that_a_program_prints_moves_a_cursor_or_begins_a_header() {
    let evil = b"\x1b]0;pwn\x07\x1b[2J\r\nBcc: x@evil\r\n\x00\xff\xfe%s%n\n\xed\xa0\x80";
    for (lines, ended) in [("", code(1)), (NAGIOS, code(2)), (NAGIOS, code(9)), ("", code(0))] {
        let lines = format!("command = \"/bin/x\"\n{lines}");
        let output = Output { head: Untrusted::new(evil), ..Output::default() };
        let (seen, _) = judged(&lines, ended, output);
        for shown in [words(&seen), seen.detail.to_string()] {
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            assert!(!shown.contains("Bcc"), "the first line only: {shown}");
        }
    }
}

fn numbers(text: &str) -> Vec<(String, Value)> {
    let named = |(metric, value): (Metric, Value)| {
        let name = metric.name().strip_prefix(perfdata::PREFIX).expect("a prefix").to_owned();
        (name, value)
    };
    perfdata::metrics(text).into_iter().map(named).collect()
}

fn number(text: &str) -> Option<Value> {
    numbers(&format!("x | a={text}")).first().map(|(_, value)| *value)
}

#[test]
fn numbers_have_the_unit_they_were_printed_with() {
    let ns = |ns| Some(Value::Duration(Duration::from_nanos(ns)));
    let decimal = |milli| Some(Value::Decimal(milli));
    let bytes = |bytes| Some(Value::Bytes(bytes));
    for (text, expected) in [
        ("1", decimal(1000)),
        ("+1.5c", decimal(1500)),
        (".5", decimal(500)),
        ("5.", decimal(5000)),
        ("0.30000000000000004", decimal(300)),
        ("-0.0", decimal(0)),
        ("61C", decimal(61_000)),
        ("0.012345s", ns(12_345_000)),
        ("1.2e-05s", ns(12_000)),
        ("3E+2ms", ns(300_000_000)),
        ("7us;10;20", ns(7000)),
        ("45.1234%;@10:20;~:10;0;100", Some(Value::Percent(45_123))),
        ("512B", bytes(512)),
        ("1.5KB", bytes(1500)),
        ("2MB;;;0;9", bytes(2_000_000)),
        ("2MiB", bytes(2 << 20)),
        ("3GB", bytes(3_000_000_000)),
        ("1TB", bytes(1_000_000_000_000)),
        ("18014398509481984", Some(Value::Decimal(18_014_398_509_481_984_000))),
        ("1e-999999999", decimal(0)),
        // None rather than a wrong one.
        ("18446744073709551616", None),
        ("1e19B", bytes(10_000_000_000_000_000_000)),
        ("1e20B", None),
        ("1e99999999999", None),
        ("99999999999999999999999999999999999999999999999999", None),
        ("-1", None),
        ("-0.1%", None),
        ("U", None),
        ("", None),
        (".", None),
        ("e5", None),
        ("0,5", None),
        ("1:2", None),
        ("0x10s", None),
        ("NaN", None),
        ("inf", None),
        ("1%%", None),
    ] {
        assert_eq!(number(text), expected, "{text:?}");
    }
}

#[test]
fn numbers_stand_behind_the_first_bar_of_the_first_line_and_of_the_rest() {
    let text = "DISK OK - free: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968\n\
                / 15272 MB (77%);\n\
                /boot 68 MB (69%); | /boot=68MB;88;93;0;98\n\
                /home=69357MB;253404;253409;0;253414\n\
                'a b''c = | d'=1 noequals =5 it's=3 'never closed=2\n";
    let bytes = |mega: u64| Value::Bytes(mega * 1_000_000);
    assert_eq!(
        numbers(text),
        [
            ("/".to_owned(), bytes(2643)),
            ("/boot".to_owned(), bytes(68)),
            ("/home".to_owned(), bytes(69_357)),
            ("a_b_c_____d".to_owned(), Value::Decimal(1000)),
            ("it_s".to_owned(), Value::Decimal(3000)),
        ]
    );
    assert_eq!(perfdata::summary(text), "DISK OK - free: / 3326 MB (56%);");
    assert!(numbers("no bar: a=1\nnor here: b=2").is_empty());
    let twice = "x | a=1 a=2 b=1 b=1 c=U c=1 c=1 d.e=1 'd e'=2 d_e=2 d_e=3";
    let known = numbers(twice).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(known, ["b", "d.e"], "which of two is meant nobody can tell");
}

#[test]
fn what_was_cut_off_is_no_number() {
    let cut = |text: &str| {
        let output = Output { head: text.into(), dropped_bytes: 1, ..Output::default() };
        let (seen, _) = judged("command = \"/bin/x\"", code(0), output);
        [value(&seen, "perfdata.a"), value(&seen, "perfdata.b")].map(|value| value.is_some())
    };
    assert_eq!(cut("x | a=1 b=2"), [true, false]);
    assert_eq!(cut("x | a=1 b=2 "), [true, true]);
    assert_eq!(cut("x|a=1"), [false, false]);
}

/// Any bytes, and any change of good ones: no panic, bounded in number and size.
#[test]
fn no_output_can_break_the_reading() {
    let good = "DISK OK | 'a ''b'=2643MB;5948;@5:~;0;U /home=-1.5e3%;; t=0.1s\nlong\nmore | \
                \u{e9}=1 b=99999999999999999999c;;;;\n";
    let pieces = ["'", "''", "=", ";", "|", "\n", "e", "-", ".", "9", "\u{fffd}", "\0", "U", " "];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("is below a usize")
    };
    for _ in 0..20_000 {
        let mut text: Vec<char> = good.chars().collect();
        for _ in 0..1 + random(8) {
            let at = random(text.len().max(2) - 1);
            match random(3) {
                0 => drop(text.drain(at..text.len().min(at + 1))),
                1 => text.splice(at..at, pieces[random(pieces.len())].chars()).for_each(drop),
                _ => text.truncate(at.max(1)),
            }
        }
        let text: String = text.into_iter().collect();
        for (metric, _) in perfdata::metrics(&text) {
            let name = metric.name();
            assert!(name.len() > perfdata::PREFIX.len() && name.len() < 512, "{name}");
            assert!(!name.contains(['\n', ' ', '\'']), "{name:?} of {text:?}");
        }
        assert!(!perfdata::summary(&text).contains(['|', '\n']));
    }
    let many: String = (0..100_000).map(|n| format!(" l{n}=1")).collect();
    assert_eq!(numbers(&format!("x |{many}")).len(), 256);
    let long = format!("x | {}=1 b=1", "a".repeat(70_000));
    assert_eq!(numbers(&long), [("b".to_owned(), Value::Decimal(1000))]);
}
