//! Running commands as users, for real: root, real users (in a private mount namespace, so that
//! nothing is left on the machine), the real binary.

#[path = "../support/mod.rs"]
mod support;

mod credentials;
mod errors;
mod keeping;
mod speed;
mod world;
