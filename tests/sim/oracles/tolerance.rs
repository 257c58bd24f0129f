//! Oracle 4: a check fires when its tolerance says so, by a model on its own terms.

use std::time::Duration;

use heeler::model::incident::Cause;
use heeler::model::intent::Desired;
use heeler::model::metric::{Metric, Value};
use heeler::model::observation::{Observation, Outcome};
use heeler::model::status::Phase;
use heeler::model::time::Mono;
use heeler::model::tolerance::Tolerance;

use crate::oracles::View;
use crate::topology::{MEMORY_LIMIT_BYTES, is_modelled};
use crate::world::World;

/// One check's tolerance, on its own terms: the verdicts since the window was last emptied.
#[derive(Default)]
pub(super) struct Model {
    pub(super) bad: Vec<(Mono, bool)>,
    pub(super) good: Vec<(Mono, bool)>,
    pub(super) firing: bool,
}

impl World {
    pub(super) fn judge_sample(&mut self, svc: usize, view: View, seen: &Observation) {
        let def = self.svcs[svc].def.clone();
        let acting = view.phase == Phase::Watching && view.desired == Desired::Up;
        let bytes = seen.reading(&Metric::Memory).map(|reading| reading.value());
        if acting && view.main.is_some() && seen.outcome == Outcome::Ok && def.checks.len() == 1 {
            let bad = bytes > Some(Value::Bytes(MEMORY_LIMIT_BYTES));
            let check = &def.checks[0];
            let model = &mut self.oracles.watched[svc].models[0];
            model.push(self.now, bad, (check.tolerance, check.recover), check.every);
        }
        if !is_modelled(&def) {
            return;
        }
        let check = &def.checks[0];
        let cause = Cause::Check(check.kind, check.index);
        let engine = self.engine.as_ref().expect("it was just asked");
        let fires = engine
            .incidents(&def.name)
            .iter()
            .any(|incident| incident.closed.is_none() && incident.cause == cause);
        // What is not wanted up is not judged.
        let wanted = self.see(svc).is_some_and(|view| view.desired == Desired::Up);
        let model = self.oracles.watched[svc].models[0].firing && wanted;
        if fires != model {
            let text =
                format!("{} {}: fires {fires}, should {model}", check.label, check.tolerance);
            self.broken(4, Some(svc), &text);
        }
    }
}

impl Model {
    fn push(&mut self, now: Mono, bad: bool, (to, back): (Tolerance, Tolerance), every: Duration) {
        self.bad.push((now, bad));
        self.good.push((now, !bad));
        if !self.firing && met(&self.bad, to, every) {
            (self.firing, self.bad, self.good) = (true, Vec::new(), Vec::new());
        } else if self.firing && met(&self.good, back, every) {
            (self.firing, self.bad, self.good) = (false, Vec::new(), Vec::new());
        } else if self.firing && met(&self.bad, to, every) {
            self.bad.clear();
        }
    }
}

/// The definition: N of the last M, the last one being one of them; or every one for so long, at least
/// two, without a gap of over two intervals (and a half: looks are not on time to the nanosecond).
fn met(verdicts: &[(Mono, bool)], tolerance: Tolerance, every: Duration) -> bool {
    let Some((now, true)) = verdicts.last().copied() else {
        return false;
    };
    match tolerance {
        Tolerance::Times { n, m } => {
            let recent = verdicts.iter().rev().take(usize::from(m));
            recent.filter(|(_, is)| *is).count() >= usize::from(n)
        }
        Tolerance::Lasting(span) => {
            let mut first = now;
            let mut count = 0;
            for (at, is) in verdicts.iter().rev() {
                if !is || first.since(*at) > every * 2 + every / 2 {
                    break;
                }
                first = *at;
                count += 1;
            }
            count >= 2 && now.since(first) >= span
        }
    }
}
