//! A file system that hangs, made without a FUSE library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::house::PATIENCE;
use super::wait_for;

/// A FUSE file system that never answers. Whoever looks at a file in it waits until it is dropped.
pub struct Hanging {
    holder: Child,
    /// Where it is mounted.
    pub at: PathBuf,
}

impl Hanging {
    /// Mounts one on a new directory; `None` where that is not allowed.
    pub fn make(at: &Path) -> Option<Self> {
        let at = at.to_path_buf();
        fs::create_dir(&at).expect("mkdir");
        let ready = at.with_extension("ready");
        let script = "exec 3<>/dev/fuse && \
                      mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none \"$0\" && \
                      : > \"$1\" && exec sleep 1000";
        let mut holder = Command::new("sh")
            .args(["-c", script])
            .args([&at, &ready])
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        let made = wait_for("the file system", PATIENCE, || {
            let ended = holder.try_wait().expect("wait").is_some();
            (ended || ready.exists()).then_some(!ended)
        });
        made.then_some(Self { holder, at })
    }

    /// Its server dies: from here on it does not hang, it fails.
    pub fn die(&mut self) {
        self.holder.kill().expect("kill");
        self.holder.wait().expect("wait");
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // With its holder the connection goes, and everybody who waits wakes with an error.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
