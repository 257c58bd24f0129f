//! The scout with the real keeper: its cage, its death, its lies, and its neighbours that hang.

mod cage;
mod login;
mod neighbours;
mod replaced;
mod server;

#[path = "../support/mod.rs"]
mod support;
