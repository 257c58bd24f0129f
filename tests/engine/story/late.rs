//! Answers that the silent world owed, given when the story says so.

use heeler::engine::input::Input;
use heeler::model::ids::CheckIndex;
use heeler::model::observation::Observation;
use heeler::model::process::Identification;

use super::Story;

impl Story {
    /// Gives the answer to `identify` that the silent world owed.
    pub(crate) fn identify_is_answered(&mut self, found: Identification) {
        let ask = self.unanswered.remove("identify").expect("it was asked");
        self.input(Input::Identified { service: self.def.name.clone(), ask, found });
    }

    /// Gives the answer to `sample` that the silent world owed.
    pub(crate) fn sample_is_answered(&mut self, seen: Observation) {
        let ask = self.unanswered.remove("sample").expect("it was asked");
        self.input(Input::Sampled { service: self.def.name.clone(), ask, seen });
    }

    /// Gives the answer to the look at its workers that the silent world owed.
    pub(crate) fn crew_is_answered(&mut self) {
        let ask = self.unanswered.remove("crew").expect("it was asked");
        let seen = Ok(self.world.muster());
        let (service, puma) = (self.def.name.clone(), self.world.puma.clone());
        self.input(Input::CrewSeen { service, ask, seen, puma });
    }

    /// And this one says why there is none.
    pub(crate) fn crew_cannot_be_seen(&mut self, why: &str) {
        let ask = self.unanswered.remove("crew").expect("it was asked");
        let (service, seen) = (self.def.name.clone(), Err(why.into()));
        self.input(Input::CrewSeen { service, ask, seen, puma: None });
    }

    /// Gives the answer to `probe` that the silent world owed.
    pub(crate) fn probe_is_answered(&mut self, seen: Observation) {
        let ask = self.unanswered.remove("probe").expect("it was asked");
        let service = self.def.name.clone();
        self.input(Input::Observed { service, ask, check: CheckIndex(0), seen });
    }

    /// The answer to a probe never came, and nobody waits for it any more.
    pub(crate) fn forgets_the_probe(&mut self) {
        self.unanswered.remove("probe");
    }

    /// So many late answers were given on purpose.
    pub(crate) fn late_answers_were_counted(&mut self, count: u64) {
        self.late_answers += count;
        assert_eq!(self.engine.counters().dropped_answers, self.late_answers);
    }
}
