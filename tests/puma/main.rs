//! A real Puma dies and heeler brings it back, as its user. Each test has a machine of its own
//! (`world`), and in it one Puma cluster of the user deploy (`shop`), which Puma's port keeps single.

#[path = "../support/mod.rs"]
mod support;

#[path = "../mail/server.rs"]
#[expect(dead_code, reason = "the tests of mail use the rest")]
mod server;

mod asked;
mod claims;
mod deploys;
mod keepers;
mod load;
mod mails;
mod manager;
mod memory;
mod night;
mod orphans;
mod pages;
mod recovery;
mod shop;
mod situations;
mod starts;
mod stops;
mod table;
mod units;
mod verified;
mod workers;
mod world;
