//! Oracles 9, 10 and 11: after the calm everything is answered, told and right.

use heeler::model::check::CheckKind;
use heeler::model::incident::Cause;
use heeler::model::intent::Desired;
use heeler::model::service::Mode;
use heeler::model::status::Phase;

use crate::world::World;

impl World {
    pub(crate) fn judge_the_end(&mut self) {
        self.note(|| "END".to_owned());
        if self.engine.is_none() {
            self.broken(11, None, "there is no keeper at the end");
        }
        for (request, asked) in &self.oracles.requests {
            if asked.answers == 0 && !asked.excused {
                let text = format!("{:?} ({request}) was never answered", asked.order);
                self.broken(9, Some(asked.svc), &text);
            }
        }
        self.judge_the_end_of_crews();
        for svc in 0..self.svcs.len() {
            // It went again while the mail that says it is down was still true.
            let told = self.engine.as_ref().is_some_and(|engine| {
                engine.incidents(&self.svcs[svc].def.name).iter().any(|incident| {
                    incident.cause == Cause::Down && incident.closed.is_none() && incident.told > 0
                })
            });
            // What may be a parent's doing is told by the parent's mail.
            let alone = self.svcs[svc].def.depends_on.is_empty();
            if let Some(at) = self.oracles.watched[svc].untold.first()
                && !told
                && alone
            {
                let ago = self.now.since(*at);
                self.broken(10, Some(svc), &format!("a death {ago:?} ago was never told"));
            }
            self.judge_calm(svc);
        }
    }

    /// Whether a service it needs is not there to be built on.
    fn held_back(&self, svc: usize) -> bool {
        self.svcs[svc].def.depends_on.iter().any(|parent| {
            let at = self.index(parent);
            let fires = self.engine.as_ref().is_some_and(|engine| {
                let incidents = engine.incidents(parent);
                incidents
                    .iter()
                    .any(|one| one.closed.is_none() && matches!(one.cause, Cause::Check(..)))
            });
            self.see(at).is_some_and(|view| match view.desired {
                Desired::Unmonitored => false,
                Desired::Down => true,
                Desired::Up => view.main.is_none() || fires,
            })
        })
    }

    fn judge_calm(&mut self, svc: usize) {
        let def = self.svcs[svc].def.clone();
        let Some(view) = self.see(svc) else { return };
        if let Some(job) = &self.svcs[svc].job {
            self.broken(11, Some(svc), &format!("a job is left: {job:?}"));
        }
        let mains = self.mains(svc);
        let able = def.startable() && def.mode == Mode::Active && !self.held_back(svc);
        let fine = match view.desired {
            Desired::Up => mains.len() == 1 && view.main == mains.first().copied() || !able,
            Desired::Down | Desired::Unmonitored => view.main == mains.first().copied(),
        };
        let resting = matches!(view.phase, Phase::Watching | Phase::StartPeriod);
        if !fine || !resting {
            let text = format!("after the calm: {view:?}, and there are {mains:?}");
            self.broken(11, Some(svc), &text);
        }
        let engine = self.engine.as_ref().expect("it was there");
        let down = !able && mains.is_empty();
        for incident in engine.incidents(&def.name) {
            let may_stay = match incident.cause {
                Cause::SetAside | Cause::UpUnwanted => true,
                Cause::Down => down,
                // Hazards are of the world outside; nothing in here mends them.
                Cause::Unclear
                | Cause::Unkillable
                | Cause::Definition
                | Cause::StuckWorker
                | Cause::Hazard(_) => false,
                // Of some workers nothing makes an end: they get old, or nobody may take them away.
                Cause::Check(CheckKind::Worker, _) => true,
                Cause::Check(..) | Cause::CheckUnknown(..) => down,
            };
            if incident.closed.is_none() && !may_stay {
                let text = format!("left open: {:?} {}", incident.cause, incident.title);
                self.broken(11, Some(svc), &text);
            }
        }
    }
}
