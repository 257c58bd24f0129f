//! The real binary with real processes: what a user sees.

#[path = "../support/mod.rs"]
mod support;

mod hostile;
mod life;
