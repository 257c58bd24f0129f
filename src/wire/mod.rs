//! The formats that leave a process: versioned, bounded, read tolerantly.
#![forbid(unsafe_code)]

pub mod control;
pub mod post;
pub mod puma;
pub mod resolve;
pub mod scout;
pub mod shim;
