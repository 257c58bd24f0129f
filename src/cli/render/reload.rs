//! `heeler reload-config` and `heeler plan`: what changed, or would; and the configuration's line in a
//! status.
#![forbid(unsafe_code)]

use crate::model::text::escape;
use crate::wire::control::{ConfigStatus, KeyDiff, ReloadAnswer, ServiceDiff};

/// What a reload did, or would do: first what is wrong, as `heeler validate` shows it.
#[must_use]
pub fn reload(answer: &ReloadAnswer) -> String {
    let mut out = String::new();
    for line in &answer.report_lines {
        out.push_str(&format!("{}\n", escape(line)));
    }
    if !answer.report_lines.is_empty() {
        out.push('\n');
    }
    let mut row = |word: &str, text: &str| {
        out.push_str(&format!("{word:<9}{text}\n"));
    };
    for change in &answer.settings {
        row("settings", &key(change));
    }
    for change in &answer.needs_restart {
        row("settings", &format!("{}; needs a restart of heeler", key(change)));
    }
    for service in &answer.services {
        let ServiceDiff { service: name, change, from, keys } = service;
        let from = from.as_ref().map(|from| format!("{} is now ", escape(from)));
        row(&escape(change), &format!("{}{}", from.unwrap_or_default(), escape(name)));
        for change in keys {
            row("", &format!("  {}", key(change)));
        }
        if change == "changed" && keys.is_empty() {
            row("", "  by heeler.toml");
        }
    }
    for bad in &answer.bad_files {
        row("bad", &format!("{}: {}", escape(&bad.file), escape(&bad.instead)));
    }
    for note in &answer.notes {
        row("note", &escape(note));
    }
    let nothing = answer.services.is_empty()
        && answer.settings.is_empty()
        && answer.needs_restart.is_empty()
        && answer.bad_files.is_empty();
    match (answer.unchanged, nothing) {
        (0, true) if !answer.good => {}
        (1, true) => out.push_str("nothing changes: 1 service as before\n"),
        (n, true) => out.push_str(&format!("nothing changes: {n} services as before\n")),
        (1, false) => out.push_str("1 service unchanged\n"),
        (n, false) => out.push_str(&format!("{n} services unchanged\n")),
    }
    out
}

fn key(change: &KeyDiff) -> String {
    let KeyDiff { key, old, new } = change;
    let said = |value: &str| if value.is_empty() { "(not said)".to_owned() } else { escape(value) };
    match (old.as_str(), new.as_str()) {
        ("", "") => escape(key),
        (old, new) => format!("{}: {} -> {}", escape(key), said(old), said(new)),
    }
}

/// What is wrong with the configuration, if anything.
#[must_use]
pub fn config_lines(config: &ConfigStatus) -> String {
    let mut out = String::new();
    let dir = escape(&config.dir);
    if let Some(why) = &config.trouble {
        out.push_str(&format!(
            "configuration: it cannot be read, what was read before stays in force: {}\n",
            escape(why)
        ));
    }
    for bad in &config.bad_files {
        out.push_str(&format!(
            "configuration: {} is bad, {}; `heeler validate {dir}` shows why\n",
            escape(&bad.file),
            escape(&bad.instead)
        ));
    }
    if !config.needs_restart.is_empty() {
        let keys = escape(&config.needs_restart.join(", "));
        out.push_str(&format!(
            "configuration: {keys} in heeler.toml: needs a restart of heeler (it touches no service)\n"
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::change::{BadFile, Change, Changes, Instead, KeyChange};
    use crate::model::ids::ServiceName;

    fn name(text: &str) -> ServiceName {
        ServiceName::parse(text).expect("a name")
    }

    #[test]
    fn everything_has_its_line_and_nothing_of_it_is_raw() {
        let change = |key: &str, old: &str, new: &str| KeyChange {
            key: key.to_owned(),
            old: old.to_owned(),
            new: new.to_owned(),
        };
        let bad = BadFile { file: "bad.toml".to_owned(), instead: Instead::LastGood };
        let changes = Changes {
            settings: vec![change("mail.rate", "", "\"1 per 1m\"")],
            needs_restart: vec![change("run_dir", "/run/a", "/run/b")],
            services: vec![
                Change::Added(name("new")),
                Change::Changed(name("web"), vec![change("every", "\"1s\"", "\"\u{1b}[2J\"")]),
                Change::Changed(name("x"), Vec::new()),
                Change::Renamed { from: name("a"), to: name("b"), keys: Vec::new() },
                Change::Removed(name("old")),
            ],
            unchanged: 1,
            wrong: true,
            bad_files: vec![bad],
            report: vec!["error: no\u{1b}[2J".to_owned()],
        };
        let answer = ReloadAnswer::new("/d".to_owned(), &changes, vec!["x goes on".to_owned()]);
        assert!(!answer.good);
        assert_eq!(
            reload(&answer),
            "error: no\\x1b[2J\n\n\
             settings mail.rate: (not said) -> \"1 per 1m\"\n\
             settings run_dir: /run/a -> /run/b; needs a restart of heeler\n\
             added    new\n\
             changed  web\n           every: \"1s\" -> \"\\x1b[2J\"\n\
             changed  x\n           by heeler.toml\n\
             renamed  a is now b\n\
             removed  old\n\
             bad      bad.toml: its last good definition stays in force\n\
             note     x goes on\n\
             1 service unchanged\n"
        );
        let same = Changes { unchanged: 3, ..Changes::default() };
        let answer = ReloadAnswer::new("/d".to_owned(), &same, Vec::new());
        assert_eq!(reload(&answer), "nothing changes: 3 services as before\n");
        let answer = ReloadAnswer::unusable("/d".to_owned(), vec!["error: gone".to_owned()]);
        assert_eq!(reload(&answer), "error: gone\n\n");
    }

    #[test]
    fn a_good_configuration_has_no_line() {
        let mut status = ConfigStatus {
            dir: "/d".to_owned(),
            trouble: None,
            bad_files: Vec::new(),
            needs_restart: Vec::new(),
        };
        assert_eq!(config_lines(&status), "");
        status.trouble = Some("/d: gone".to_owned());
        status.needs_restart = vec!["run_dir".to_owned()];
        assert_eq!(config_lines(&status).lines().count(), 2);
    }
}
