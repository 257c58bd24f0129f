//! What needs no daemon.
#![forbid(unsafe_code)]

pub mod validate;
