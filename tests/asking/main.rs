//! Asking a Puma, as its user: every version, every kind of trouble; and the fake one that makes it.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod fake;
mod keeper;
mod troubles;
mod users;
