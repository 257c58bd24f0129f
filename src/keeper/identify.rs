//! Which process is a service's main one: the claim is looked at on the loop where that cannot hang,
//! else in the pool; a unit's manager is asked by a job ([`super::units`]).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::engine::effect::{Effect, Level};
use crate::engine::input::{Confirmation, Input};
use crate::keeper::Keeper;
use crate::keeper::jobs::read_record;
use crate::keeper::samples::{at_once, observe};
use crate::keeper::served::{Seated, Served};
use crate::keeper::turn::{Done, claim_of};
use crate::model::ids::{AskId, ServiceName};
use crate::model::process::{Absence, Identification, ProcessIdentity};
use crate::model::service::Life;
use crate::model::text::Untrusted;
use crate::sys::identity::{self, Found, Owner};
use crate::sys::pidfile::Seat;
use crate::wire::shim::{ChildRecord, Slot, SlotFile};

/// How a process came to be the main one, as far as its manager told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Came {
    /// Nobody said.
    Somehow,
    /// Somebody asked its manager for it.
    InOrder,
}

/// What a look in the pool came to.
pub(super) struct Seen {
    found: Found,
    /// Where its pidfile can be looked at on the loop.
    seat: Option<Seat>,
}

impl From<Found> for Seen {
    fn from(found: Found) -> Self {
        Self { found, seat: None }
    }
}

impl Keeper {
    /// Whose process is looked for.
    pub(super) fn owner(&self, service: &ServiceName) -> Option<Owner> {
        let served = self.services.get(service)?;
        // What another claim proved is not known by this one.
        let proved = served.proved_by == served.claim;
        let known = served.families.keys().next_back().copied().filter(|_| proved);
        let known_by = served.stamp.as_ref().and_then(claim_of);
        let cgroup = served.unit.cgroup.clone().or_else(|| self.group_of(service));
        Some(Owner { known, known_by, cgroup, ..Owner::of(served.owner?) })
    }

    pub(super) fn identify(&mut self, service: ServiceName, ask: AskId) {
        let Some(served) = self.services.get(&service) else { return };
        let Some(owner) = self.owner(&service) else {
            let user = served.def.user.as_deref().unwrap_or("of heeler");
            let why =
                format!("the user {user} could not be looked up yet; does it exist? `id {user}`");
            let found = Found::Unknown(Untrusted::from(why.as_str()));
            self.identified(service, ask, found);
            return;
        };
        match served.def.life.clone() {
            Life::Run(_) => {
                let found = self.identify_instance(&service);
                self.identified(service, ask, found);
            }
            Life::Pidfile(_) | Life::Match(_) | Life::Unit(_) if served.in_pool.look => {
                // The last look has not come back, and its time is over: a second one would hang, too.
                let text = "the last look at it has not come back yet: does its file system hang? try `df`";
                self.identified(service, ask, Found::Unknown(Untrusted::from(text)));
            }
            Life::Pidfile(path) => match self.identify_here(&service, &owner) {
                Some(found) => self.identified(service, ask, found),
                None => self.look_in_pool(service, ask, Came::Somehow, move || {
                    let (found, seat) = identity::identify_pidfile_and_seat(&path, &owner);
                    Seen { found, seat }
                }),
            },
            Life::Nothing => {
                let found = Found::None(Absence::NoProcess, None);
                self.identified(service, ask, found);
            }
            Life::Match(pattern) => {
                let look = move || identity::identify_match(&pattern, &owner);
                self.look_in_pool(service, ask, Came::Somehow, look);
            }
            Life::Unit(_) => self.look_at_unit(service, ask),
        }
    }

    /// Looks at a pidfile on the loop, where that cannot hang. A claim is believed where its path was walked
    /// not long ago; that nothing lives there, where the path is seen to lead there now.
    fn identify_here(&self, service: &ServiceName, owner: &Owner) -> Option<Found> {
        let Seated { seat, walked, led: _ } = self.services.get(service)?.seated.as_ref()?;
        let found = identity::identify_at(seat, owner)?;
        let holds = match (&found, seat) {
            (Found::One(..), _) => walked.elapsed() < WALK_AGAIN,
            (Found::None(..), Seat::Spot(spot)) => spot.is_led_to(),
            (Found::None(..), Seat::Gap(_)) => true,
            (Found::Refused(_) | Found::Unknown(_), _) => walked.elapsed() < WALK_AGAIN_UNCLEAR,
        };
        holds.then_some(found)
    }

    pub(super) fn look_in_pool<S: Into<Seen>>(
        &mut self,
        service: ServiceName,
        ask: AskId,
        came: Came,
        look: impl FnOnce() -> S + Send + 'static,
    ) {
        let Some(served) = self.services.get_mut(&service) else { return };
        served.in_pool.look = true;
        let claim = served.claim;
        self.pool.submit(move || {
            let seen = catch_unwind(AssertUnwindSafe(look)).map_or_else(
                |_| {
                    let text = "the look at it crashed: this is a bug of heeler";
                    Found::Unknown(Untrusted::from(text)).into()
                },
                S::into,
            );
            let Seen { found, seat } = seen;
            Done::Identified { service, ask, found, came, claim, seat }
        });
    }

    /// The process of a foreground program is the one its shim recorded.
    fn identify_instance(&self, service: &ServiceName) -> Found {
        let recorded = self.services.get(service).and_then(|served| {
            read_record::<ChildRecord>(&served.records, &Slot::Instance.file(SlotFile::Child))
        });
        match recorded {
            Some(record) => identity::identify_recorded(record.child),
            None => Found::None(Absence::NoProcess, None),
        }
    }

    /// Takes in what identification found, on the loop or in the pool.
    pub(super) fn identified(&mut self, service: ServiceName, ask: AskId, found: Found) {
        self.identified_as(service, ask, found, Came::Somehow);
    }

    /// The same, with how it came to be there.
    pub(super) fn identified_as(
        &mut self,
        service: ServiceName,
        ask: AskId,
        found: Found,
        came: Came,
    ) {
        let found = match found {
            Found::One(proved, stamp) => {
                let identity = proved.identity();
                if let Some(served) = self.services.get_mut(&service) {
                    served.absence_note = None;
                }
                self.take_main(&service, proved, Some(stamp));
                match came {
                    Came::Somehow => Identification::One(identity),
                    Came::InOrder => Identification::Succeeded(identity),
                }
            }
            Found::None(absence, note) => {
                let said = self.services.get_mut(&service).map(|served| &mut served.absence_note);
                if let (Some(note), Some(said)) = (note, said)
                    && said.as_ref() != Some(&note)
                {
                    *said = Some(note.clone());
                    self.log.say(self.now().wall, Level::Info, service.as_str(), note.to_string());
                }
                Identification::None(absence)
            }
            Found::Refused(why) => Identification::Refused(why),
            Found::Unknown(why) => Identification::Unknown(why),
        };
        self.inbox.push_back(Input::Identified { service, ask, found });
    }

    pub(super) fn confirm(
        &mut self,
        service: &ServiceName,
        identity: ProcessIdentity,
    ) -> Confirmation {
        let Some(served) = self.services.get_mut(service) else { return Confirmation::Gone };
        let Some(held) = served.held.get(&identity) else { return Confirmation::Gone };
        let Some(proved) = held.proved() else { return Confirmation::Gone };
        if proved.is_alive() { claim_of_living(served) } else { Confirmation::Gone }
    }

    /// The same together with a sample, where that can be taken at once: what was read of a process says
    /// that it lives, and a look-up for both is enough.
    pub(super) fn confirm_and_sample(
        &mut self,
        service: ServiceName,
        [confirm, sample]: [AskId; 2],
        identity: ProcessIdentity,
    ) {
        let served = self.services.get_mut(&service);
        let quick = served.and_then(|served| {
            served.held.get(&identity)?.proved()?;
            let sample = at_once(served, identity)?.ok()?;
            Some((claim_of_living(served), observe(served, Ok(sample))))
        });
        let Some((how, seen)) = quick else {
            self.perform(Effect::Confirm { service: service.clone(), ask: confirm, identity });
            self.perform(Effect::Sample { service, ask: sample, identity });
            return;
        };
        self.inbox.push_back(Input::Confirmed { service: service.clone(), ask: confirm, how });
        self.inbox.push_back(Input::Sampled { service, ask: sample, seen });
    }
}

/// Whether what claims a main process that lives still does.
fn claim_of_living(served: &mut Served) -> Confirmation {
    // A unit's pidfile is no reason to ask its manager anew while the process lives.
    match (&served.def.life, &served.stamp, &mut served.seated) {
        (Life::Pidfile(_), Some(stamp), Some(Seated { seat: Seat::Spot(spot), walked, led })) => {
            let now = Instant::now();
            if now - *led >= WALK_AGAIN && now - *walked < WALK_AGAIN_UNCHANGED && spot.is_led_to()
            {
                *led = now;
            }
            if now - *led < WALK_AGAIN && stamp.holds() {
                Confirmation::Same
            } else {
                Confirmation::ClaimChanged
            }
        }
        // A file that may hang, or none seen yet: the pool looks.
        (Life::Pidfile(_), _, _) => Confirmation::ClaimChanged,
        (Life::Match(_) | Life::Run(_) | Life::Unit(_) | Life::Nothing, _, _) => Confirmation::Same,
    }
}

/// How long the place of a pidfile is taken for where its path leads, and a claim there for as good as when
/// it was walked to: its directory may have been replaced, or be another's by now.
const WALK_AGAIN: Duration = Duration::from_secs(60);
/// The same where the file is the one that proved the living process, and its path was seen to lead there.
const WALK_AGAIN_UNCHANGED: Duration = Duration::from_secs(600);
/// The same where what it says cannot be judged.
const WALK_AGAIN_UNCLEAR: Duration = Duration::from_secs(2);
