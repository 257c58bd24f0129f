//! conf.d/examples: what a stranger copies has to hold, the lines that are commented out too.

use std::collections::BTreeMap;
use std::path::Path;

use heeler::config::error::render;
use heeler::config::settings::Settings;
use heeler::config::{load, parse_service};
use heeler::model::ids::ServiceName;

use crate::root;
use crate::support::{Need, can_run};

/// The examples, by the names that their services would have.
fn examples() -> BTreeMap<String, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf.d/examples");
    let entries = std::fs::read_dir(dir).expect("they are there").flatten();
    let toml =
        entries.map(|entry| entry.path()).filter(|path| path.extension() == Some("toml".as_ref()));
    toml.map(|path| {
        let stem = path.file_stem().expect("has a name").to_string_lossy().into_owned();
        (stem, std::fs::read_to_string(&path).expect("readable"))
    })
    .collect()
}

/// With what is commented out taken in: tables and keys at the beginning of a comment.
fn taken_in(text: &str) -> String {
    let code = |rest: &str| {
        let key = rest.split(['=', ' ']).next().unwrap_or_default();
        let table = rest.starts_with("[[");
        table || rest.contains(" = ") && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let line = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if code(rest) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn every_example_is_good_and_says_what_it_is() {
    let examples = examples();
    assert!(examples.len() >= 15, "{:?}", examples.keys());
    let settings = Settings::of(&root());
    let mut optional = 0;
    for (stem, text) in &examples {
        assert!(text.starts_with("# "), "{stem} does not begin by saying what it is");
        assert!(text.lines().all(|line| line.len() <= 120), "{stem} has a line too long to read");
        let whole = taken_in(text);
        optional += usize::from(whole != *text);
        for text in [text, &whole] {
            let name = ServiceName::parse(stem).expect("a service's name");
            match parse_service(&name, &format!("{stem}.toml"), text, &settings, &root()) {
                Ok((_, warnings)) => assert!(warnings.is_empty(), "{}", render(&warnings)),
                Err(found) => panic!("{}", render(&found)),
            }
        }
    }
    assert!(optional >= 3, "nothing that is commented out was found");
}

#[test]
fn all_examples_at_once_do_not_stand_in_each_others_way() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let dir = tempfile::tempdir_in("/tmp").expect("a directory");
    for (stem, text) in examples() {
        std::fs::write(dir.path().join(format!("{stem}.toml")), text).expect("writable");
    }
    let loaded = load(dir.path(), &root(), None).unwrap_or_else(|refusal| panic!("{refusal}"));
    let bad: String = loaded.bad.iter().map(|bad| render(&bad.diagnostics)).collect();
    assert!(loaded.bad.is_empty(), "{bad}");
    assert_eq!(loaded.services.len(), examples().len());
    assert!(loaded.warnings.is_empty(), "{}", render(&loaded.warnings));
}

/// The directory that ships has them in it, and they are not watched.
#[test]
fn examples_are_not_loaded_with_the_directory_above_them() {
    if !can_run(&[Need::Root]) {
        return;
    }
    let dir = tempfile::tempdir_in("/tmp").expect("a directory");
    std::fs::create_dir(dir.path().join("examples")).expect("mkdir");
    for place in ["demo.toml", "examples/nginx.toml"] {
        std::fs::write(dir.path().join(place), "run = \"sleep 9\"\n").expect("writable");
    }
    let loaded = load(dir.path(), &root(), None).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(loaded.services.len(), 1);
    assert!(loaded.bad.is_empty() && loaded.warnings.is_empty(), "{}", render(&loaded.warnings));
}
