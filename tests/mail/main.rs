//! Mail that arrives: the scout that mails, the outbox and the keeper against a real SMTP server that
//! misbehaves on order.

#[path = "../support/mod.rs"]
mod support;

mod delivery;
mod keeper;
mod outbox;
mod server;
