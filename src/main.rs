//! heeler: which role this process has is decided here, before any runtime or argument parser exists.
//!
//! `shim`, `resolve`, `ask` and `scout` are heeler's own children: they must come up fast, single-threaded and without
//! anything they do not need. Everything else is a person at a command line.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use heeler::cli::{self, Local, Outside, Rc};
use heeler::keeper::{self, Options};
use heeler::tools::validate::Form;
use heeler::{puma, scout, shim, sys, tools, wire};

/// Where the configuration is, unless told otherwise.
const DEFAULT_DIR: &str = "/etc/heeler/conf.d";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|role| role.to_str()) {
        Some("shim") => shim::run(),
        Some("resolve") => tools::resolve::run(),
        Some(wire::puma::ROLE) => puma::run(),
        Some("scout") => {
            let word = |at: usize| args.get(at).and_then(|word| word.to_str());
            scout::run(word(2), word(3))
        }
        Some(_) | None => cli::main(args, Outside { local, columns: sys::terminal::columns }),
    }
}

/// What needs no daemon, and the daemon itself.
fn local(what: Local) -> ExitCode {
    match what {
        Local::Run { dir, demo } => {
            let dir = dir.unwrap_or_else(|| DEFAULT_DIR.into());
            keeper::main(&Options { dir, demo })
        }
        Local::Validate { dir, json } => {
            let form = if json { Form::Json } else { Form::Text };
            let dir = dir.unwrap_or_else(|| DEFAULT_DIR.into());
            let (report, code) = tools::validate::as_this_user(&dir, form);
            cli::print(&report, if code == 0 { Rc::Ok } else { Rc::Failed }).into()
        }
        Local::Doctor { dir, wanted } => {
            let dir = dir.unwrap_or_else(|| DEFAULT_DIR.into());
            let found = tools::doctor::examine(&dir);
            let columns = sys::terminal::columns;
            cli::doctor(found.findings, &found.socket, &wanted, columns).into()
        }
        Local::Plan { dir, json } => {
            let dir = dir.unwrap_or_else(|| DEFAULT_DIR.into());
            cli::show_plan(&tools::plan::as_this_user(&dir), json).into()
        }
        Local::RunAs { user, argv } => tools::run_as::run_as(&user, argv),
        Local::Env { who, dir } => {
            tools::env::env(&who, &dir.unwrap_or_else(|| DEFAULT_DIR.into()))
        }
    }
}
