//! What the oracles make of a new configuration: what was known of a service goes on, or does not.

use heeler::model::change::Kept;
use heeler::model::check::Check;
use heeler::model::service::Service;

use crate::oracles::tolerance::Model;
use crate::world::World;

impl World {
    /// It is defined anew, from `old`: what is known of its checks goes on with those that are kept.
    pub(crate) fn oracles_redefine(&mut self, svc: usize, old: &Service, kept: &[Kept]) {
        let (now, view) = (self.now, self.see(svc));
        let def = self.svcs[svc].def.clone();
        self.oracles.stale_requests(svc);
        let watched = &mut self.oracles.watched[svc];
        let mut before: Vec<_> = watched.models.drain(..).map(Some).collect();
        let models = def.checks.iter().zip(kept).map(|(check, kept)| {
            let counted = |check: &Check| (check.condition.clone(), check.tolerance, check.recover);
            let (place, same) = match kept {
                Kept::New => return Model::default(),
                Kept::Same(place) => (usize::from(place.0), true),
                Kept::Other(place) => (usize::from(place.0), false),
            };
            let model = before[place].take().expect("each is kept once");
            match same && counted(&old.checks[place]) == counted(check) {
                true => model,
                false => Model { firing: model.firing, ..Model::default() },
            }
        });
        watched.models = models.collect();
        // What its rules did before is not what an operator wished.
        watched.wish = watched.wish.filter(|wish| view.is_some_and(|view| view.desired == *wish));
        watched.starts.clear();
        watched.stop_timeouts.push((now, def.stop_timeout));
    }

    /// It goes on under another name.
    pub(crate) fn oracles_part(&mut self, svc: usize) {
        self.oracles.stale_requests(svc);
        let watched = &mut self.oracles.watched[svc];
        (watched.view, watched.old) = (None, None);
    }

    /// Nobody watches it any more, and nothing is remembered.
    pub(crate) fn oracles_forget(&mut self, svc: usize) {
        self.oracles.stale_requests(svc);
        let watched = &mut self.oracles.watched[svc];
        (watched.view, watched.old, watched.wish) = (None, None, None);
        (watched.credit, watched.last_start) = (false, None);
        watched.starts.clear();
        watched.untold.clear();
        for model in &mut watched.models {
            *model = Model::default();
        }
    }
}
