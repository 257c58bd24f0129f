//! What survives, on real files, real kills and a really full disk.

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod damage;
mod events;
mod fixtures;
mod made;
mod mails;
mod space;
mod thread;
