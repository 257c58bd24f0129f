//! Plain data: every word of the house, one type each. No I/O, no clock, no decisions.
//!
//! A value that exists is right: what can be wrong is refused where it is made (`parse`, `new`),
//! so nothing past `config` checks it again. These types are not `Serialize`: `wire` and `store`
//! have their own, so a word may change here without an old record losing its meaning.
#![forbid(unsafe_code)]

pub mod action;
pub mod change;
pub mod check;
pub mod condition;
pub mod crew;
pub mod event;
pub mod finding;
pub mod hazard;
pub mod ids;
pub mod incident;
pub mod intent;
pub mod job;
pub mod limits;
pub mod mark;
pub mod memory;
pub mod metric;
pub mod observation;
pub mod order;
pub mod password;
pub mod process;
pub mod puma;
pub mod rate;
pub mod sample;
pub mod selector;
pub mod service;
pub mod standing;
pub mod status;
pub mod text;
pub mod time;
pub mod tolerance;
pub mod unit;
pub mod units;
pub mod workers;
