//! The rules of the house, held by a test that reads the source. Each rule proves itself on a planted
//! violation, so a rule that stopped biting fails too.

use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom. A room may always import from itself; `sys` and `wire` are split where only
/// a part is allowed. No circles: a room only names rooms that do not name it.
const WALLS: [(&str, &[&str]); 17] = [
    ("model", &[]),
    ("engine", &["model"]),
    ("sys", &["model"]),
    ("checks", &["model"]),
    ("config", &["model", "checks"]),
    ("wire", &["model"]),
    ("mail", &["model"]),
    ("store", &["model", "wire", "mail"]),
    ("shim", &["model", "sys", "wire::shim"]),
    ("scout", &["model", "checks", "wire::scout", "wire::post", "sys::sandbox"]),
    ("puma", &["model", "wire::puma"]),
    ("cli", &["model", "wire::control"]),
    (
        "tools",
        &[
            "model",
            "sys",
            "checks",
            "config",
            "engine",
            "wire::shim",
            "wire::resolve",
            "wire::control",
            "shim",
        ],
    ),
    ("keeper", &["model", "engine", "sys", "checks", "config", "wire", "mail", "store"]),
    ("lib", &[]),
    // The roles are told apart here, so it names them all.
    ("main", &["cli", "keeper", "puma", "scout", "shim", "tools", "sys", "model", "wire"]),
    ("tests", &[]),
];

/// What the pure rooms may not even mention: clocks, I/O, randomness, async, hash maps.
const IMPURE: [&str; 14] = [
    "std::fs",
    "std::io",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "tokio",
    "nix::",
    "libc",
];
const PURE: [&str; 3] = ["model", "engine", "mail"];

const LINES_MAX: usize = 600;
const COLUMNS_MAX: usize = 110;

/// One source file.
#[derive(Clone)]
struct Source {
    path: PathBuf,
    room: String,
    text: String,
}

#[test]
fn the_house_is_tidy() {
    let complaints = inspect(&sources());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_rule_bites() {
    let planted = [
        ("src/engine/x.rs", "use crate::sys::signal;\n", "may not import crate::sys"),
        ("src/cli/x.rs", "fn f() { crate::keeper::main() }\n", "may not import crate::keeper"),
        (
            "src/shim/x.rs",
            "use crate::wire::control::Request;\n",
            "may not import crate::wire::control",
        ),
        ("src/config/x.rs", "use crate::{model, store};\n", "may not import crate::store"),
        ("checks/x.rs", "use crate::sys::procfs;\n", "may not import crate::sys"),
        ("src/engine/x.rs", "use std::time::Instant;\n", "mentions Instant"),
        ("src/model/x.rs", "use std::collections::HashMap;\n", "mentions HashMap"),
        ("src/keeper/x.rs", "fn f() { unsafe { g() } }\n", "unsafe outside sys"),
        ("src/keeper/mod.rs", "//! No guard.\n", "lacks #![forbid(unsafe_code)]"),
        ("src/keeper/x.rs", "#[allow(dead_code)]\nfn f() {}\n", "#[allow]"),
        ("src/keeper/x.rs", &"\n".repeat(LINES_MAX + 1), "lines"),
        ("src/keeper/x.rs", &"x".repeat(COLUMNS_MAX + 1), "columns"),
        ("src/keeper/x.rs", "fn f() { std::thread::sleep(d) }\n", "sleeps"),
        ("src/keeper/x.rs", "// TODO later\n", "unfinished"),
        ("tests/x.rs", "#[ignore]\nfn f() {}\n", "ignored without a reason"),
    ];
    for (path, text, expected) in planted {
        let source =
            Source { path: path.into(), room: room_of(Path::new(path)), text: text.to_owned() };
        let complaints = inspect(&[source]);
        assert!(
            complaints.iter().any(|complaint| complaint.contains(expected)),
            "{path} with {text:.40?} was not met with {expected:?}: {complaints:?}"
        );
    }
    assert!(sources().len() > 50, "the source was not found");
}

#[test]
fn the_walls_have_no_circles() {
    for (room, imports) in WALLS {
        for import in imports {
            let base = import.split("::").next().unwrap_or(import);
            let back = WALLS.iter().find(|(name, _)| *name == base).map(|(_, imports)| *imports);
            assert!(!back.unwrap_or(&[]).contains(&room), "{room} and {import} import each other");
        }
    }
}

fn inspect(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let mut complain = |line: usize, what: &str| {
            complaints.push(format!("{}:{line}: {what}", source.path.display()));
        };
        if source.room != "tests" {
            walls(source, &mut complain);
            purity(source, &mut complain);
            safety(source, &mut complain);
        }
        manners(source, &mut complain);
    }
    complaints
}

fn walls(source: &Source, complain: &mut impl FnMut(usize, &str)) {
    let allowed = WALLS.iter().find(|(room, _)| *room == source.room).map(|(_, imports)| *imports);
    let Some(allowed) = allowed else {
        complain(1, &format!("the room {:?} is not in the table of walls", source.room));
        return;
    };
    for (number, line) in code_lines(source) {
        for import in imports_in(line) {
            let base = import.split("::").next().unwrap_or(&import).to_owned();
            let own = base == source.room || base == "lib";
            let ok = own
                || allowed.iter().any(|allowed| *allowed == base)
                || allowed.iter().any(|allowed| import.starts_with(allowed));
            if !ok {
                complain(number, &format!("{} may not import crate::{import}", source.room));
            }
        }
    }
}

/// Every `crate::a::b` (or `heeler::a::b`, in main) of a line, as `a::b`; of `crate::{a, b}` each.
fn imports_in(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for prefix in ["crate::", "heeler::"] {
        for (at, _) in line.match_indices(prefix) {
            let rest = &line[at + prefix.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let group = group.split('}').next().unwrap_or(group);
                found.extend(group.split(',').map(|word| word.trim().to_owned()));
            } else {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
                let path = &rest[..end.unwrap_or(rest.len())];
                let two: Vec<_> =
                    path.split("::").filter(|word| !word.is_empty()).take(2).collect();
                found.push(two.join("::"));
            }
        }
    }
    found
}

fn purity(source: &Source, complain: &mut impl FnMut(usize, &str)) {
    if !PURE.contains(&source.room.as_str()) {
        return;
    }
    for (number, line) in code_lines(source) {
        for word in IMPURE.iter().filter(|word| line.contains(**word)) {
            complain(number, &format!("{} is pure and mentions {word}", source.room));
        }
    }
}

fn safety(source: &Source, complain: &mut impl FnMut(usize, &str)) {
    if source.room == "sys" {
        return;
    }
    let head = source.path.ends_with("mod.rs") && source.path.components().count() <= 3;
    if head && !source.text.contains("#![forbid(unsafe_code)]") {
        complain(1, "this room lacks #![forbid(unsafe_code)]");
    }
    for (number, line) in code_lines(source) {
        if line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
            complain(number, "unsafe outside sys");
        }
    }
}

fn manners(source: &Source, complain: &mut impl FnMut(usize, &str)) {
    let lines = source.text.lines().count();
    if lines > LINES_MAX && source.room != "tests" {
        complain(lines, &format!("has {lines} lines: is it still one idea?"));
    }
    // This file names what it forbids.
    if source.path.ends_with("tidy.rs") {
        return;
    }
    let mut tests = source.room == "tests";
    for (at, line) in source.text.lines().enumerate() {
        tests |= line.contains("#[cfg(test)]");
        let number = at + 1;
        if line.chars().count() > COLUMNS_MAX && !line.contains('"') && !line.contains("//") {
            complain(number, "has too many columns");
        }
        if line.contains("#[allow(") {
            complain(number, "#[allow] instead of #[expect(.., reason)]");
        }
        if line.trim_start().starts_with("#[ignore]") {
            complain(number, "ignored without a reason");
        }
        for word in ["TODO", "FIXME", "XXX", "unimplemented!", "todo!"] {
            if line.contains(word) {
                complain(number, &format!("unfinished: {word}"));
            }
        }
        if !tests && line.contains("thread::sleep") {
            complain(number, "sleeps instead of waiting for a condition with a deadline");
        }
    }
}

/// The lines that are code, numbered from 1; comments cannot import anything.
fn code_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.text.lines().enumerate().map(|(at, line)| (at + 1, line));
    lines
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number, if line.contains("unsafe_code") { "" } else { line }))
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for dir in ["src", "checks", "tests"] {
        collect(&root.join(dir), root, &mut found);
    }
    found
}

fn collect(dir: &Path, root: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("the source tree is readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, root, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let relative = path.strip_prefix(root).expect("is below the root").to_owned();
            let text = fs::read_to_string(&path).expect("source is text");
            found.push(Source { room: room_of(&relative), path: relative, text });
        }
    }
}

fn room_of(path: &Path) -> String {
    let mut parts = path.iter().map(|part| part.to_string_lossy().into_owned());
    match (parts.next().as_deref(), parts.next()) {
        (Some("src"), Some(second)) => second.trim_end_matches(".rs").to_owned(),
        (Some(first), _) => first.to_owned(),
        (None, _) => String::new(),
    }
}
