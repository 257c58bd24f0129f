//! The operator's side. (Only run-as and env until the client is merged.)
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use crate::tools;

/// The client.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let words: Option<Vec<String>> = args.into_iter().map(|arg| arg.into_string().ok()).collect();
    let words = words.unwrap_or_default();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [_, "run-as", user, "--", argv @ ..] if !argv.is_empty() => {
            tools::run_as::run_as(user, argv.iter().map(|arg| (*arg).to_owned()).collect())
        }
        [_, "env", user] => tools::env::env(user),
        _ => {
            eprintln!("heeler: usage: heeler run-as USER -- CMD.. | heeler env USER");
            ExitCode::from(2)
        }
    }
}
