//! heeler on machines that systemd has booted (`host`): as a service, beside lingering users and their
//! units. Needs root and Debian's own systemd; no container manager.

#[path = "../support/mod.rs"]
mod support;

mod boots;
mod doctor;
mod examples;
mod host;
mod mails;
mod service;
mod shop;
mod situations;
mod table;
mod units;
mod watchers;
