//! The real binary with real processes: what a user sees.

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod chosen;
mod clocks;
mod conf;
mod crash;
mod daemon;
mod dependants;
mod disk;
mod doctor;
mod events;
mod hostile;
mod kill;
mod life;
mod lines;
mod many_reloads;
mod pidfile;
mod probe;
mod reload;
mod rename;
mod resources;
mod short;
mod strangers;
mod surroundings;
mod unclaimed;
mod unreadable;
mod waits;
