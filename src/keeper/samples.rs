//! One sample per service for all its checks; what may block is read in the pool.

use std::panic::catch_unwind;

use crate::checks;
use crate::engine::input::Input;
use crate::keeper::Keeper;
use crate::keeper::served::Served;
use crate::keeper::turn::Done;
use crate::model::check::CheckKind;
use crate::model::ids::{AskId, ServiceName};
use crate::model::observation::{Observation, Outcome};
use crate::model::process::ProcessIdentity;
use crate::model::sample::{Needs, ProcessSample};
use crate::model::service::Service;
use crate::model::text::Untrusted;
use crate::sys::identity::{self, Found};
use crate::sys::sampler::{self, Tree};

/// A sample taken in the pool.
pub(super) struct Sampled {
    service: ServiceName,
    ask: AskId,
    sample: Result<ProcessSample, Untrusted>,
}

/// What all conditions of a service together need.
pub(super) fn needs_of(service: &Service) -> Needs {
    let checks = service.checks.iter().filter(|check| check.kind == CheckKind::Process);
    checks.map(|check| checks::process::needs(&check.condition)).fold(Needs::default(), Needs::and)
}

impl Keeper {
    /// Takes the one sample of a service.
    pub(super) fn sample(&mut self, service: ServiceName, ask: AskId, identity: ProcessIdentity) {
        let Some(served) = self.services.get_mut(&service) else { return };
        if let Some(sample) = at_once(served, identity) {
            self.sampled(Sampled { service, ask, sample });
            return;
        }
        let needs = served.needs;
        if served.in_pool.sample {
            let sample = Err(Untrusted::from("the last look at the process has not come back yet"));
            self.sampled(Sampled { service, ask, sample });
            return;
        }
        served.in_pool.sample = true;
        self.pool.submit(move || {
            let sample = catch_unwind(|| sample_in_pool(identity, needs)).unwrap_or_else(|_| {
                Err(Untrusted::from("the look at the process crashed: this is a bug of heeler"))
            });
            Done::Sampled(Sampled { service, ask, sample })
        });
    }

    /// Takes in what the pool brought.
    pub(super) fn sampled_in_pool(&mut self, sampled: Sampled) {
        if let Some(served) = self.services.get_mut(&sampled.service) {
            served.in_pool.sample = false;
        }
        self.sampled(sampled);
    }

    /// Turns a sample into the observation that all process checks of the service judge.
    fn sampled(&mut self, sampled: Sampled) {
        let Sampled { service, ask, sample } = sampled;
        let Some(served) = self.services.get_mut(&service) else { return };
        let seen = observe(served, sample);
        self.inbox.push_back(Input::Sampled { service, ask, seen });
    }
}

/// The sample, where it can be taken on the loop; none where that may block.
pub(super) fn at_once(
    served: &Served,
    identity: ProcessIdentity,
) -> Option<Result<ProcessSample, Untrusted>> {
    let needs = served.needs;
    let Some(held) = served.held.get(&identity) else {
        return Some(Err(Untrusted::from("it ended meanwhile")));
    };
    if needs.may_block() || of_tree(needs) {
        return None;
    }
    let sample = sampler::quick(held.hold.held(), needs, None);
    let is_all = !sample.as_ref().is_ok_and(|sample| needs.wants_pss(sample.rss_bytes));
    is_all.then_some(sample)
}

/// What a sample shows after the one before.
pub(super) fn observe(
    served: &mut Served,
    sample: Result<ProcessSample, Untrusted>,
) -> Observation {
    match sample {
        Ok(sample) => {
            let before = served.last_sample.as_ref();
            let seen = checks::process::observe(&sample, before, served.needs);
            served.last_sample = Some(sample);
            seen
        }
        Err(why) => Observation::of(Outcome::Unknown(why)),
    }
}

fn of_tree(needs: Needs) -> bool {
    needs.children || needs.tree_cpu || needs.tree_pss
}

/// In the pool the process is held anew: the loop may let go of it meanwhile.
pub(super) fn sample_in_pool(
    identity: ProcessIdentity,
    needs: Needs,
) -> Result<ProcessSample, Untrusted> {
    let Found::One(proved, _) = identity::identify_recorded(identity) else {
        return Err(Untrusted::from("it ended meanwhile"));
    };
    let tree = match of_tree(needs).then(Tree::scan) {
        Some(Err(error)) => {
            let text = format!("failed to read the process tree: {error}");
            return Err(Untrusted::from(text.as_str()));
        }
        Some(Ok(tree)) => Some(tree),
        None => None,
    };
    let sample = sampler::quick(proved.held(), needs, tree.as_ref())?;
    sampler::slow(proved.held(), needs, tree.as_ref(), sample)
}
