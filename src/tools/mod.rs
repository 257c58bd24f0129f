//! What needs no daemon.
#![forbid(unsafe_code)]

pub mod doctor;
pub mod env;
pub mod resolve;
pub mod run_as;
pub mod validate;
