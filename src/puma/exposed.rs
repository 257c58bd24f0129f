//! What everybody on the machine could use to command a Puma, or to keep it from being asked.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::model::puma::{ControlUrl, Exposed, Secret};

/// Of a state file.
pub(super) fn of_state(path: &Path) -> Vec<Exposed> {
    let mode = mode_for_others(path);
    let kinds = [(0o4, Exposed::StateReadable), (0o2, Exposed::StateWritable)];
    kinds.into_iter().filter(|(bit, _)| mode & bit != 0).map(|(_, exposed)| exposed).collect()
}

/// Of a control server.
pub(super) fn of_control(url: &ControlUrl, token: Option<&Secret>) -> Option<Exposed> {
    let reachable = match url {
        ControlUrl::Unix(path) => mode_for_others(path) & 0o2 != 0,
        // Neither has an owner.
        ControlUrl::Abstract(_) | ControlUrl::Tcp { .. } => true,
    };
    let how = if token.is_some() { Exposed::ControlReachable } else { Exposed::ControlOpen };
    reachable.then_some(how)
}

/// What others may do with a file: nothing, where they cannot get to it.
fn mode_for_others(path: &Path) -> u32 {
    let Ok(path) = fs::canonicalize(path) else { return 0 };
    let mode = |path: &Path| fs::symlink_metadata(path).map_or(0, |facts| facts.mode());
    let passable = path.ancestors().skip(1).all(|above| mode(above) & 0o1 != 0);
    if passable { mode(&path) & 0o7 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_others_cannot_get_to_is_not_exposed() {
        let dir = tempfile::tempdir().expect("a directory");
        let chmod = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
        };
        let state = dir.path().join("puma.state");
        fs::write(&state, "pid: 7\n").expect("write");
        chmod(dir.path(), 0o755);
        for (mode, expected) in [
            (0o640, vec![]),
            (0o644, vec![Exposed::StateReadable]),
            (0o666, vec![Exposed::StateReadable, Exposed::StateWritable]),
        ] {
            chmod(&state, mode);
            assert_eq!(of_state(&state), expected, "{mode:o}");
        }
        let unix = ControlUrl::Unix(state.clone());
        let token = Secret::token("sekret");
        assert_eq!(of_control(&unix, None), Some(Exposed::ControlOpen));
        assert_eq!(of_control(&unix, token.as_ref()), Some(Exposed::ControlReachable));
        chmod(dir.path(), 0o750);
        assert_eq!(of_state(&state), []);
        assert_eq!(of_control(&unix, None), None);
        let tcp = ControlUrl::Tcp { host: "127.0.0.1".into(), port: 1 };
        assert_eq!(of_control(&tcp, token.as_ref()), Some(Exposed::ControlReachable));
        assert_eq!(of_state(&dir.path().join("absent")), []);
    }
}
