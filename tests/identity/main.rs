//! Which process is meant: the real kernel, real processes, real users. Case ids are those of the
//! fault list (PID: pidfiles and identity, KIL: signals).
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it wants, and everything else fails it"
)]

#[path = "../support/mod.rs"]
mod support;

mod claims;
mod crews;
mod lab;
mod matching;
mod namespace;
mod pidfiles;
mod sampling;
mod signals;
mod surveys;
mod watching;
