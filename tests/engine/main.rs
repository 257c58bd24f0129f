//! The settled semantics of the engine, each as a story under a fake clock (`story` says how to read one).
#![expect(clippy::unwrap_used, reason = "a story that cannot be told is a failed test")]

mod story;

mod brake;
mod checks;
mod clearing;
mod dependencies;
mod desired;
mod events;
mod hazards;
mod incidents;
mod limits;
mod once;
mod orders;
mod probes;
mod reloads;
mod replacing;
mod restart_of_the_keeper;
mod starting;
mod stopping;
mod stuck;
mod taken_back;
mod town;
mod units;
mod verified;
mod workers;
