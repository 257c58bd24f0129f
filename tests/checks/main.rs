//! The types of checks against the real thing: servers, programs, files; and against servers that
//! misbehave on order.

mod certificate;
mod dns;
mod files;
mod host;
mod http;
mod login;
mod port;
mod program;
mod servers;
mod watched;

#[path = "../support/mod.rs"]
mod support;
