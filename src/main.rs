//! argv -> role, decided before any runtime or argument parser is built.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    match args.get(1).and_then(|role| role.to_str()) {
        Some("shim") => heeler::shim::run(),
        Some("resolve") => heeler::tools::resolve::run(),
        Some(_) | None => heeler::cli::main(args),
    }
}
