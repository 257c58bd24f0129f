//! `heeler plan` without a daemon: a directory beside what was last in force.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use crate::config::diff::{Before, changes};
use crate::config::error::render;
use crate::config::{LoadAs, Loaded, LoadedService, load};
use crate::model::change::Changes;
use crate::wire::control::ReloadAnswer;

/// [`plan`] for whoever runs this process.
#[must_use]
pub fn as_this_user(dir: &Path) -> ReloadAnswer {
    plan(dir, &LoadAs::of_process())
}

/// What a daemon that starts with this directory would find changed.
#[must_use]
pub fn plan(dir: &Path, who: &LoadAs) -> ReloadAnswer {
    let shown = dir.to_string_lossy().into_owned();
    let loaded = match load(dir, who, None) {
        Ok(loaded) => loaded,
        Err(why) => {
            let text = render(std::slice::from_ref(&*why));
            return ReloadAnswer::unusable(shown, text.lines().map(str::to_owned).collect());
        }
    };
    // The last good definitions are files as in conf.d.
    let kept = loaded.settings.state_dir.join("last-good");
    let kept_shown = kept.display();
    let (changes, note) = match std::fs::read_dir(&kept) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let note = format!("no heeler runs, and nothing was ever in force here ({kept_shown})");
            (beside(None, &loaded), note)
        }
        Err(error) => {
            let note =
                format!("no heeler runs, and what was last in force cannot be read: {error}");
            return unreadable(shown, &loaded, note);
        }
        Ok(_) => match load(&kept, who, None) {
            Ok(before) => {
                let note =
                    format!("no heeler runs: this is beside what was last in force ({kept_shown})");
                (beside(Some(&before), &loaded), note)
            }
            Err(why) => {
                let note = format!(
                    "no heeler runs, and what was last in force cannot be read: {}",
                    why.message
                );
                return unreadable(shown, &loaded, note);
            }
        },
    };
    ReloadAnswer::new(shown, &changes, vec![note])
}

/// Only what is wrong with the directory itself can be told.
fn unreadable(dir: String, loaded: &Loaded, note: String) -> ReloadAnswer {
    let Changes { report, bad_files, .. } = beside(None, loaded);
    let changes = Changes { report, bad_files, ..Changes::default() };
    ReloadAnswer { good: false, ..ReloadAnswer::new(dir, &changes, vec![note]) }
}

fn beside(before: Option<&Loaded>, loaded: &Loaded) -> Changes {
    let sided = |one| (LoadedService::name(one).clone(), LoadedService::side(one));
    let services: BTreeMap<_, _> =
        before.into_iter().flat_map(|before| &before.services).map(sided).collect();
    let before = Before {
        settings: before.map_or(&loaded.settings, |before| &before.settings),
        text: before.and_then(|before| before.settings_text.as_deref()).unwrap_or_default(),
        services: &services,
    };
    changes(&before, loaded)
}
