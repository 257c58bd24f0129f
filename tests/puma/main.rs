//! A real Puma dies and heeler brings it back, as its user. Each test has a machine of its own
//! (`world`), and in it one Puma cluster of the user deploy (`shop`), which Puma's port keeps single.

#[path = "../support/mod.rs"]
mod support;

mod asked;
mod claims;
mod deploys;
mod manager;
mod memory;
mod night;
mod orphans;
mod pages;
mod recovery;
mod shop;
mod starts;
mod stops;
mod units;
mod verified;
mod workers;
mod world;
