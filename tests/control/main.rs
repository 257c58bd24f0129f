//! The control socket and the command line, each against the real other: the real server with a loop
//! that only answers, attacked by raw clients, by curl, by other users and by the real binary.

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod commands;
mod follow;
mod harness;
mod peers;
mod printed;
mod render;
mod socket;
