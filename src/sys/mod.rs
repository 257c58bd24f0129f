//! The only unsafe, setuid, kill and fork. Small safe functions over the newtypes of `model`.

pub mod accept;
pub mod alarm;
pub mod cgroup;
pub mod clock;
pub mod defaults;
pub mod environment;
pub mod evidence;
pub mod fork;
pub mod heap;
pub mod identity;
pub mod lock;
pub mod peer;
mod pidfd;
pub mod pidfile;
pub mod privilege;
pub mod procfs;
pub mod records;
pub mod sampler;
pub mod sandbox;
pub mod selfexe;
pub mod signal;
pub mod spawn;
pub mod survey;
pub mod terminal;
pub mod user;
mod vitals;
pub mod watch;
