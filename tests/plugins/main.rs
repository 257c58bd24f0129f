//! Programs of checks, for real: a real keeper, real shims, programs that do what they should not, and
//! Debian's monitoring-plugins.

#[path = "../support/mod.rs"]
mod support;

mod evil;
mod own;
mod real;

use crate::support::house::{House, PATIENCE};
use crate::support::wait_for;

/// Defines a service without a process that has one program, run as nobody; `lines` belong to its check.
fn define(house: &House, name: &str, command: &str, lines: &str) {
    let text = format!(
        "user = \"nobody\"\nevery = \"300ms\"\n[[check]]\ntype = \"program\"\ncommand = {command:?}\n{lines}\n"
    );
    house.define(name, &text);
}

/// A house with the evil programs in it.
fn house() -> House {
    let house = House::new("");
    house.write("srv/evil.sh", include_str!("evil.sh"));
    house
}

/// The command line of an evil program, and the file it writes to.
fn evil(house: &House, mode: &str, name: &str) -> (String, std::path::PathBuf) {
    let (script, file) = (house.path("srv/evil.sh"), house.path(&format!("srv/{name}.pids")));
    (format!("/bin/sh {} {mode} {}", script.display(), file.display()), file)
}

/// Waits until the first check of a service says this; gives its text and state.
fn wait_says(house: &House, name: &str, words: &str) -> (String, String) {
    let said = || {
        let check = house.status(name)["checks"][0].clone();
        let field = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
        (field("text"), field("state"))
    };
    wait_for(&format!("{name} to say {words:?}; it says {:?}", said()), PATIENCE, || {
        Some(said()).filter(|(text, _)| text.contains(words))
    })
}

/// The shims that run a service's program, or read on for what it left. Tests run at once: names differ.
fn shims(name: &str) -> Vec<u32> {
    let title = format!("heeler\0shim\0{name}\0probe\0");
    let mut pids = support::house::pids();
    pids.retain(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == title.as_bytes())
    });
    pids
}
