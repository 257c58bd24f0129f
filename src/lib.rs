//! heeler: a watchdog for Linux services.

pub mod cli;
pub mod config;
pub mod engine;
pub mod keeper;
pub mod mail;
pub mod model;
pub mod shim;
pub mod store;
pub mod sys;
pub mod tools;
pub mod wire;

#[path = "../checks/mod.rs"]
pub mod checks;
