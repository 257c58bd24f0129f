//! The only unsafe, setuid, kill and fork. Small safe functions over the newtypes of `model`.

pub mod defaults;
pub mod environment;
pub mod fork;
pub mod lock;
pub mod privilege;
pub mod records;
pub mod selfexe;
pub mod spawn;
pub mod user;
