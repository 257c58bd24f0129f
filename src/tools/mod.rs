//! What needs no daemon.
#![forbid(unsafe_code)]

pub mod validate;
pub mod env;
pub mod resolve;
pub mod run_as;
