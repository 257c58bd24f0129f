//! The formats that leave a process: versioned, bounded, read tolerantly.
#![forbid(unsafe_code)]

pub mod resolve;
pub mod shim;
