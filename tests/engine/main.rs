//! The settled semantics of the engine, each as a story under a fake clock (`story` says how to read one).

mod story;

mod checks;
mod clearing;
mod desired;
mod incidents;
mod limits;
mod orders;
mod restart_of_the_keeper;
mod starting;
mod stopping;
