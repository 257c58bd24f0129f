//! The only unsafe, setuid, kill and fork. Small safe functions over the newtypes of `model`.

pub mod accept;
pub mod clock;
pub mod evidence;
pub mod identity;
pub mod peer;
mod pidfd;
pub mod pidfile;
pub mod procfs;
pub mod sampler;
pub mod signal;
pub mod survey;
pub mod watch;
pub mod defaults;
pub mod environment;
pub mod fork;
pub mod lock;
pub mod privilege;
pub mod records;
pub mod selfexe;
pub mod spawn;
pub mod user;
