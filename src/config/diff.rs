//! What differs between two configurations: pure, for a reload and for `heeler plan`.
//!
//! Whether something differs is asked of what was read, with every default filled in; which keys differ,
//! for people, of the texts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use toml::de::{DeTable, DeValue};

use crate::checks::Probe;
use crate::config::document::shorten;
use crate::config::error::{Severity, summary};
use crate::config::settings::Settings;
use crate::config::{self, Loaded, LoadedService, Role};
use crate::model::change::{BadFile, Change, Changes, Instead, Kept, KeyChange};
use crate::model::check::{Check, CheckKind};
use crate::model::ids::{CheckIndex, ServiceName};
use crate::model::limits;
use crate::model::service::Service;
use crate::model::text::escape;
use crate::model::workers::Workers;

/// One service of a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// For the engine.
    pub service: &'a Service,
    /// What probes each of its checks.
    pub probes: &'a [Probe],
    /// Its file, where that is at hand.
    pub text: Option<&'a str>,
}

/// The configuration in force.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The daemon's own settings.
    pub settings: &'a Settings,
    /// Their text; empty without a `heeler.toml`.
    pub text: &'a str,
    /// The services, by name.
    pub services: &'a BTreeMap<ServiceName, Side<'a>>,
}

/// What a directory that was read changes.
#[must_use]
pub fn changes(before: &Before<'_>, loaded: &Loaded) -> Changes {
    let sided = |one| (LoadedService::name(one).clone(), LoadedService::side(one));
    let new: BTreeMap<_, _> = loaded.services.iter().map(sided).collect();
    let of_service = |bad: &config::BadFile| match &bad.role {
        Role::Service(name) => Some(name.clone()),
        Role::Settings | Role::Nameless => None,
    };
    let bad: BTreeSet<_> = loaded.bad.iter().filter_map(of_service).collect();
    let services = services(before.services, &new, &bad);
    let of_old = |change: &&Change| !matches!(change, Change::Added(_));
    let touched = services.iter().filter(of_old).count();
    let bad_files = loaded.bad.iter().map(|bad| BadFile {
        file: escape(&bad.path.file_name().unwrap_or_default().to_string_lossy()),
        instead: match &bad.role {
            Role::Settings if loaded.settings_text.is_some() => Instead::LastGood,
            Role::Settings => Instead::Defaults,
            Role::Service(name) if before.services.contains_key(name) => Instead::LastGood,
            Role::Service(_) | Role::Nameless => Instead::Nothing,
        },
    });
    let text = loaded.settings_text.as_deref().unwrap_or_default();
    let mut needs_restart = fixed(before.settings, &loaded.settings);
    let mut settings = settings(before.text, text);
    settings.retain(|change| !FIXED.contains(&&*change.key));
    if let (Some(log), None) = (&before.settings.log, &loaded.settings.log) {
        // Where it goes without being told is found out at a start.
        settings.retain(|change| change.key != "log");
        needs_restart.extend(change("log", &log.to_string(), ""));
    }
    Changes {
        settings,
        needs_restart,
        unchanged: before.services.len().saturating_sub(touched),
        services,
        wrong: loaded.findings().iter().any(|found| found.severity == Severity::Error),
        bad_files: bad_files.collect(),
        report: report(loaded),
    }
}

/// Keys that count from a start of heeler on.
const FIXED: [&str; 3] = ["state_dir", "run_dir", "socket"];

fn fixed(old: &Settings, new: &Settings) -> Vec<KeyChange> {
    let paths = |of: &Settings| [of.state_dir.clone(), of.run_dir.clone(), of.socket.clone()];
    let both = paths(old).into_iter().zip(paths(new));
    let told = FIXED.iter().zip(both).filter_map(|(key, (old, new))| {
        change(key, &old.to_string_lossy(), &new.to_string_lossy())
    });
    told.collect()
}

/// What `heeler validate` says of it, line by line; nothing where there is nothing to say.
fn report(loaded: &Loaded) -> Vec<String> {
    let findings = loaded.findings();
    if findings.is_empty() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    let mut bytes = 0;
    for line in summary(&findings, loaded.services.len()).lines() {
        bytes += line.len();
        if bytes > limits::CONFIG_REPORT_BYTES_MAX {
            lines.push("there is more: `heeler validate` shows it".to_owned());
            break;
        }
        lines.push(line.to_owned());
    }
    lines
}

/// What a new configuration does to the services of an old one. Those of `bad` files stay as they are; what
/// is not named does, too.
#[must_use]
pub fn services(
    old: &BTreeMap<ServiceName, Side<'_>>,
    new: &BTreeMap<ServiceName, Side<'_>>,
    bad: &BTreeSet<ServiceName>,
) -> Vec<Change> {
    let marks = |all: &BTreeMap<ServiceName, Side<'_>>| -> BTreeMap<_, _> {
        all.iter().map(|(name, side)| (name.clone(), side.service.claim_mark())).collect()
    };
    let mut after = marks(new);
    after.extend(marks(old).into_iter().filter(|(name, _)| bad.contains(name)));
    let renamed = renames(&marks(old), &after);
    let mut changes = Vec::new();
    for (name, side) in new {
        let change = match (renamed.get(name), old.get(name)) {
            (Some(from), _) => old.get(from).map(|was| Change::Renamed {
                from: from.clone(),
                to: name.clone(),
                keys: keys(was, side),
            }),
            // The one that had this name goes on under another.
            (None, Some(_)) if renamed.values().any(|from| from == name) => {
                Some(Change::Added(name.clone()))
            }
            (None, Some(was)) if differs(was, side) => {
                Some(Change::Changed(name.clone(), keys(was, side)))
            }
            (None, Some(_)) => None,
            (None, None) => Some(Change::Added(name.clone())),
        };
        changes.extend(change);
    }
    let gone = old.keys().filter(|name| {
        let stays = new.contains_key(*name) || bad.contains(*name);
        !stays && !renamed.values().any(|from| from == *name)
    });
    changes.extend(gone.cloned().map(Change::Removed));
    changes
}

/// Whether two definitions of a service are not the same.
fn differs(old: &Side<'_>, new: &Side<'_>) -> bool {
    old.service != new.service || old.probes != new.probes
}

/// Which services go on under another name: what says which process is theirs is the same, and nobody else
/// has it. New names to old ones.
#[must_use]
pub fn renames(
    old: &BTreeMap<ServiceName, u64>,
    new: &BTreeMap<ServiceName, u64>,
) -> BTreeMap<ServiceName, ServiceName> {
    let mut free: BTreeMap<u64, VecDeque<&ServiceName>> = BTreeMap::new();
    for (name, mark) in old.iter().filter(|(name, mark)| new.get(*name) != Some(mark)) {
        free.entry(*mark).or_default().push_back(name);
    }
    let mut renamed = BTreeMap::new();
    for (name, mark) in new.iter().filter(|(name, mark)| old.get(*name) != Some(mark)) {
        if let Some(from) = free.get_mut(mark).and_then(VecDeque::pop_front) {
            renamed.insert(name.clone(), from.clone());
        }
    }
    renamed
}

/// Which of the old checks each of the new ones is; `same_probe` says of two places whether what is probed
/// there is the same. Of checks that have one label only that tells which is which.
#[must_use]
pub fn kept(
    old: &Service,
    new: &Service,
    same_probe: impl Fn(CheckIndex, CheckIndex) -> bool,
) -> Vec<Kept> {
    let mut free: Vec<&Check> = old.checks.iter().collect();
    let mut kept = vec![Kept::New; new.checks.len()];
    let same = |was: &Check, check: &Check| same_probe(was.index, check.index);
    let equal = |was: &Check, check: &Check| {
        same(was, check) && Check { index: check.index, ..was.clone() } == *check
    };
    let named_alike = |was: &Check, check: &Check| was.mark() == check.mark() && same(was, check);
    let alone = |all: &[Check], mark: u64| all.iter().filter(|one| one.mark() == mark).count() == 1;
    let named = |was: &Check, check: &Check| {
        let mark = check.mark();
        was.mark() == mark && alone(&old.checks, mark) && alone(&new.checks, mark)
    };
    type Rule<'a> = (&'a dyn Fn(&Check, &Check) -> bool, fn(CheckIndex) -> Kept);
    let rules: [Rule<'_>; 3] =
        [(&equal, Kept::Same), (&named_alike, Kept::Same), (&named, Kept::Other)];
    for (fits, is) in rules {
        for (check, kept) in new.checks.iter().zip(&mut kept) {
            if *kept == Kept::New
                && let Some(at) = free.iter().position(|was| fits(was, check))
            {
                *kept = is(free.remove(at).index);
            }
        }
    }
    kept
}

/// The same, of services with what probes them.
#[must_use]
pub fn kept_checks(old: &Side<'_>, new: &Side<'_>) -> Vec<Kept> {
    let of = |side: &Side<'_>, place: CheckIndex| {
        let at = usize::from(place.0);
        let kind = side.service.checks.get(at).map(|check| check.kind);
        (kind, side.probes.get(at).cloned())
    };
    // Some are about what another table of the file says.
    let same_table = |kind| match kind {
        Some(CheckKind::Puma) => old.service.puma == new.service.puma,
        Some(CheckKind::Worker) => {
            old.service.workers.as_ref().map(Workers::who)
                == new.service.workers.as_ref().map(Workers::who)
        }
        Some(_) | None => true,
    };
    let same = |was, is| {
        let (was, is) = (of(old, was), of(new, is));
        was == is && same_table(was.0)
    };
    kept(old.service, new.service, same)
}

/// The keys of a service that differ. None where its own file says the same.
fn keys(old: &Side<'_>, new: &Side<'_>) -> Vec<KeyChange> {
    let (Some(old_text), Some(new_text)) = (old.text, new.text) else { return Vec::new() };
    let (before, after) = (parse(old_text), parse(new_text));
    let mut changes = between(&flat(&before, "", &["check"]), &flat(&after, "", &["check"]));
    let tables = |table| -> Vec<&DeTable<'_>> {
        let all = DeTable::get(table, "check").and_then(|all| all.get_ref().as_array());
        all.into_iter()
            .flat_map(|all| all.iter())
            .filter_map(|one| one.get_ref().as_table())
            .collect()
    };
    let (before, after) = (tables(&before), tables(&after));
    let named = |service: &Service, at: usize| {
        let label = service.checks.get(at).map(|check| shorten(&check.label)).unwrap_or_default();
        format!("check \"{label}\"")
    };
    let mut met = BTreeSet::new();
    let mut moved = false;
    for (at, kept) in kept_checks(old, new).iter().enumerate() {
        let name = named(new.service, at);
        let table = after.get(at).map(|table| flat(table, "", &[])).unwrap_or_default();
        match kept {
            Kept::New => changes.extend(change(&name, "", &line(&table))),
            Kept::Same(place) | Kept::Other(place) => {
                let was = usize::from(place.0);
                moved |= was != at;
                met.insert(was);
                let old = before.get(was).map(|table| flat(table, "", &[])).unwrap_or_default();
                let own = between(&old, &table).into_iter();
                changes.extend(
                    own.map(|own| KeyChange { key: format!("{name}: {}", own.key), ..own }),
                );
            }
        }
    }
    for (at, table) in before.iter().enumerate().filter(|(at, _)| !met.contains(at)) {
        changes.extend(change(&named(old.service, at), &line(&flat(table, "", &[])), ""));
    }
    if changes.is_empty() && moved {
        let key = "the order of its checks".to_owned();
        changes.push(KeyChange { key, old: String::new(), new: String::new() });
    }
    changes
}

/// The keys of `heeler.toml` that differ; what is not there says nothing.
#[must_use]
pub fn settings(old: &str, new: &str) -> Vec<KeyChange> {
    between(&flat(&parse(old), "", &[]), &flat(&parse(new), "", &[]))
}

fn parse(text: &str) -> DeTable<'_> {
    DeTable::parse_recoverable(text).0.into_inner()
}

/// Every key with its value, tables by their paths, but for those of `but`.
fn flat(table: &DeTable<'_>, above: &str, but: &[&str]) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (key, value) in table.iter().filter(|(key, _)| !but.contains(&&**key.get_ref())) {
        let path = format!("{above}{}", shorten(key.get_ref()));
        match value.get_ref() {
            DeValue::Table(inner) => out.extend(flat(inner, &format!("{path}."), &[])),
            value @ (DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)) => drop(out.insert(path, show(value))),
        }
    }
    out
}

fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(all) => {
            let all: Vec<_> = all.iter().map(|one| show(one.get_ref())).collect();
            format!("[{}]", all.join(", "))
        }
        DeValue::Table(table) => format!("{{ {} }}", line(&flat(table, "", &[]))),
    }
}

fn line(table: &BTreeMap<String, String>) -> String {
    let all: Vec<_> = table.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    all.join(", ")
}

fn between(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<KeyChange> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let value = |of: &BTreeMap<String, String>, key| of.get(key).cloned().unwrap_or_default();
    keys.into_iter().filter_map(|key| change(key, &value(old, key), &value(new, key))).collect()
}

/// How a key changed, if it did. Of long values what is shown is where they begin to differ.
fn change(key: &str, old: &str, new: &str) -> Option<KeyChange> {
    if old == new {
        return None;
    }
    let alike = old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count();
    let skipped = if alike > VALUE_CHARS_MAX / 2 { alike - VALUE_CHARS_MAX / 4 } else { 0 };
    let shown = |text: &str| {
        let part: String = text.chars().skip(skipped).take(VALUE_CHARS_MAX).collect();
        let before = if skipped > 0 { "..." } else { "" };
        let after = if text.chars().count() > skipped + VALUE_CHARS_MAX { "..." } else { "" };
        format!("{before}{}{after}", escape(&part))
    };
    Some(KeyChange { key: key.to_owned(), old: shown(old), new: shown(new) })
}

const VALUE_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;
    use crate::config::{Definition, LoadAs, parse_service};
    use crate::model::process::Uid;

    /// Services by name and text.
    fn read(files: &[(&str, &str)]) -> BTreeMap<ServiceName, (Definition, String)> {
        let who = LoadAs::new(Uid(0), None, |_| None);
        let settings = Settings::of(&who);
        let read = |(name, text): &(&str, &str)| {
            let name = ServiceName::parse(name).expect("a name");
            let (definition, _) =
                parse_service(&name, "test.toml", text, &settings, &who).expect("is good");
            (name, (definition, (*text).to_owned()))
        };
        files.iter().map(read).collect()
    }

    fn sides(all: &BTreeMap<ServiceName, (Definition, String)>) -> BTreeMap<ServiceName, Side<'_>> {
        all.iter()
            .map(|(name, (definition, text))| {
                let Definition { service, probes, .. } = definition;
                (name.clone(), Side { service, probes, text: Some(text) })
            })
            .collect()
    }

    /// What becomes of services, in words: `+added -removed ~changed(keys) old>new`.
    fn check(old: &[(&str, &str)], new: &[(&str, &str)], bad: &[&str], expected: &str) {
        let (old, new) = (read(old), read(new));
        let bad = bad.iter().map(|name| ServiceName::parse(name).expect("a name")).collect();
        let words = |keys: &[KeyChange]| {
            let all: Vec<_> =
                keys.iter().map(|one| format!("{} {} -> {}", one.key, one.old, one.new)).collect();
            all.join("; ")
        };
        let all: Vec<_> = services(&sides(&old), &sides(&new), &bad)
            .iter()
            .map(|change| match change {
                Change::Added(name) => format!("+{name}"),
                Change::Removed(name) => format!("-{name}"),
                Change::Changed(name, keys) => format!("~{name}({})", words(keys)),
                Change::Renamed { from, to, keys } => format!("{from}>{to}({})", words(keys)),
            })
            .collect();
        assert_eq!(all.join(" "), expected);
    }

    const A: &str = "pidfile = \"/run/a.pid\"\nstart = \"a\"\n";
    const B: &str = "pidfile = \"/run/b.pid\"\nstart = \"b\"\n";

    #[test]
    fn services_come_go_change_and_are_renamed() {
        check(&[("a", A)], &[("a", A)], &[], "");
        check(&[("a", A)], &[("a", "# a comment\nstart=\"a\"\npidfile='/run/a.pid'")], &[], "");
        check(&[("a", A)], &[("a", A), ("b", B)], &[], "+b");
        check(&[("a", A), ("b", B)], &[("b", B)], &[], "-a");
        check(&[("a", A), ("b", B)], &[("b", B)], &["a"], "");
        check(&[("a", A)], &[("b", A)], &[], "a>b()");
        let other = A.replace("start = \"a\"", "start = \"c\"\nevery = \"5s\"");
        let keys = "every  -> \"5s\"; start \"a\" -> \"c\"";
        check(&[("a", A)], &[("a", &other)], &[], &format!("~a({keys})"));
        check(&[("a", A)], &[("b", &other)], &[], &format!("a>b({keys})"));
        check(&[("a", A)], &[("b", B)], &[], "+b -a");
        // Two that change their names, and three that pass theirs on.
        check(&[("a", A), ("b", B)], &[("a", B), ("b", A)], &[], "b>a() a>b()");
        check(&[("a", A), ("b", B)], &[("b", A), ("c", B)], &[], "a>b() b>c()");
        // The old a is b, and the new a is somebody else.
        let c = B.replace("b.pid", "c.pid");
        check(&[("a", A)], &[("a", &c), ("b", A)], &[], "+a a>b()");
        // A bad file's service stays what it is: another file of the same process is another service.
        check(&[("a", A)], &[("b", A)], &["a"], "+b");
    }

    #[test]
    fn a_foreground_program_is_known_by_its_command_its_directory_and_its_variables() {
        let run = |cwd: &str, queue: &str| {
            format!("run = \"sidekiq\"\ncwd = \"{cwd}\"\nenv = {{ QUEUE = \"{queue}\" }}\n")
        };
        let (here, there, other) = (run("/a", "x"), run("/b", "x"), run("/a", "y"));
        check(&[("a", &here)], &[("b", &here)], &[], "a>b()");
        check(&[("a", &here)], &[("b", &there)], &[], "+b -a");
        check(&[("a", &here)], &[("b", &other)], &[], "+b -a");
    }

    #[test]
    fn checks_are_known_by_what_they_are_and_the_keys_that_differ_are_named() {
        let with = |checks: &str| format!("{A}{checks}");
        let memory = "[[check]]\nif = \"memory > 1GiB\"\n";
        let page = |url: &str, more: &str| {
            format!("[[check]]\ntype = \"http\"\nurl = \"http://127.0.0.1/{url}\"\n{more}")
        };
        let (up, down) = (page("up", ""), page("down", ""));
        let check = |old: &[&str], new: &[&str], kept_as: &[Kept], expected: &str| {
            let (old, new) = (with(&old.concat()), with(&new.concat()));
            let (was, is) = (read(&[("a", &old)]), read(&[("a", &new)]));
            let (was, is) = (sides(&was), sides(&is));
            let (was, is) = (was.values().next().expect("is"), is.values().next().expect("is"));
            assert_eq!(kept_checks(was, is), kept_as, "{old} {new}");
            check(&[("a", &old)], &[("a", &new)], &[], expected);
        };
        let (same, other) = (|n| Kept::Same(CheckIndex(n)), |n| Kept::Other(CheckIndex(n)));
        check(&[memory, &up], &[memory, &up], &[same(0), same(1)], "");
        check(
            &[memory, &up],
            &[&up, memory],
            &[same(1), same(0)],
            "~a(the order of its checks  -> )",
        );
        check(
            &[memory],
            &[&page("up", "for = \"2 of 3\"\n"), memory],
            &[Kept::New, same(0)],
            "~a(check \"http: failed\"  -> for = \"2 of 3\", type = \"http\", \
             url = \"http://127.0.0.1/up\")",
        );
        check(
            &[&up],
            &[&page("up", "for = \"2 of 3\"\n")],
            &[same(0)],
            "~a(check \"http: failed\": for  -> \"2 of 3\")",
        );
        check(
            &[&up],
            &[&down],
            &[other(0)],
            "~a(check \"http: failed\": url \"http://127.0.0.1/up\" -> \"http://127.0.0.1/down\")",
        );
        // Of two pages without a name only the address tells which is which.
        let third = page("third", "");
        check(
            &[&up, &down],
            &[&down, &third],
            &[same(1), Kept::New],
            "~a(check \"http: failed\"  -> type = \"http\", url = \"http://127.0.0.1/third\"; \
             check \"http: failed\" type = \"http\", url = \"http://127.0.0.1/up\" -> )",
        );
        check(
            &[memory, &up],
            &[&up],
            &[same(1)],
            "~a(check \"process: memory > 1024 MiB\" if = \"memory > 1GiB\" -> )",
        );
    }

    #[test]
    fn settings_are_told_by_their_paths_and_long_values_where_they_differ() {
        let words = |old: &str, new: &str| {
            let all = settings(old, new);
            let all: Vec<_> =
                all.iter().map(|one| format!("{} {} -> {}", one.key, one.old, one.new)).collect();
            all.join("; ")
        };
        assert_eq!(
            words("[mail]\nrate = \"1 per 1m\"", "hostname = \"x\"\n[mail]\nrate = \"2 per 1m\""),
            "hostname  -> \"x\"; mail.rate \"1 per 1m\" -> \"2 per 1m\""
        );
        let long = |end: &str| format!("hostname = \"{}{end}\"", "x".repeat(500));
        let told = words(&long("a"), &long("b"));
        assert!(told.contains("xxa\" -> ...") && told.ends_with("xxb\""), "{told}");
        assert!(told.len() < 400, "{told}");
        let garbage = words("= = =", "a = \"\u{1b}[2J\"\n[[[");
        assert!(!garbage.contains('\u{1b}'), "{garbage:?}");
    }
}
