//! The pure core: a function of inputs. It reads no clock, does no I/O and holds nothing that can act.
#![forbid(unsafe_code)]

pub mod effect;
pub mod input;
