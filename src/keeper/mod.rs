#![forbid(unsafe_code)]

pub mod control;
pub mod rights;
