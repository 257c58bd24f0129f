//! A new configuration: a service defined anew, one that is watched no longer, a file that is bad.
//!
//! A definition is put in the place of the old one and everything goes on but what is about what changed:
//! whatever a service knows that nothing is said of here stays as it is. What is under way keeps the
//! deadline that it began with.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use crate::engine::crew::Counted;
use crate::engine::effect::Effect;
use crate::engine::resume::NO_LONGER_CHECKED;
use crate::engine::state::{Asked, CheckState, OpenIncident, Stage, State};
use crate::engine::{Cx, Engine, judge, within};
use crate::model::change::Kept;
use crate::model::check::Check;
use crate::model::ids::{CheckIndex, ServiceName};
use crate::model::incident::Cause;
use crate::model::limits;
use crate::model::order::{Order, ReplyResult};
use crate::model::service::{Life, Service};
use crate::model::status::RuleState;
use crate::model::time::Now;

/// What is wrong with a file in conf.d.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// In one line; the same title is the same trouble.
    pub title: String,
    /// Line by line.
    pub lines: Vec<String>,
}

/// Why a service is watched no longer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Farewell {
    /// Its file is gone.
    Gone,
    /// Its file is back: it is watched anew.
    Back,
    /// It goes on under this name, with what was in flight.
    Renamed(ServiceName),
}

impl Engine {
    /// A service is defined anew; `kept` says which of its checks before each of its checks now is.
    pub fn replace(
        &mut self,
        now: Now,
        def: Arc<Service>,
        kept: &[Kept],
        effects: &mut Vec<Effect>,
    ) {
        let name = def.name.clone();
        let parents = def.depends_on.clone();
        self.change(now, &name, effects, |state, cx| state.redefine(cx, def, kept));
        self.draw_edges(&name);
        self.has_parents(now, &name, &parents, effects);
    }

    /// A service is watched no longer, and left as it is: nothing is signalled, what runs goes on. What was
    /// in flight is the caller's.
    pub fn remove(
        &mut self,
        now: Now,
        name: &ServiceName,
        why: &Farewell,
        effects: &mut Vec<Effect>,
    ) {
        let Self { services, due, tally, common, .. } = self;
        let Some(mut state) = services.remove(name) else { return };
        due.remove(&(state.filed, name.clone()));
        tally.count(None, state.tallied);
        within(now, effects, common, &mut state, |state, cx| {
            state.part(cx, why);
            // There is nothing left to be remembered.
            cx.dirty = false;
        });
        self.rub_out_edges(name);
        self.tell_children(now, name, effects);
    }

    /// What a look at a service was missing is there now: it need not wait for the next.
    pub fn look_soon(&mut self, now: Now, name: &ServiceName, effects: &mut Vec<Effect>) {
        self.change(now, name, effects, |state, cx| state.look_at = cx.now.mono);
    }

    /// The file of a service is bad, so that an earlier definition is in force; or it is good.
    pub fn definition_is(
        &mut self,
        now: Now,
        name: &ServiceName,
        bad: Option<&Wrong>,
        effects: &mut Vec<Effect>,
    ) {
        self.change(now, name, effects, |state, cx| state.definition_is(cx, bad));
    }

    fn change(
        &mut self,
        now: Now,
        name: &ServiceName,
        effects: &mut Vec<Effect>,
        what: impl FnOnce(&mut State, &mut Cx<'_>),
    ) {
        if self.with(now, name, effects, what).is_none() {
            self.common.counters.strangers += 1;
            return;
        }
        self.tell_children(now, name, effects);
    }
}

impl State {
    fn redefine(&mut self, cx: &mut Cx<'_>, def: Arc<Service>, kept: &[Kept]) {
        let old = mem::replace(&mut self.def, def);
        self.carry_checks(cx, &old, kept);
        if old.remind != self.def.remind {
            self.remind_anew(cx.now);
        }
        if !old.is_claimed_like(&self.def) {
            self.claim_changed(cx);
        }
        if old.is_asked_like(&self.def) {
            self.verify_redefined();
        } else {
            self.verify_parts(cx, "its Puma is another one in the new configuration");
        }
        if self.def.puma.is_none() {
            self.no_hazards(cx, "it is no Puma any more");
        }
        // What it may do now that it might not do before is not to wait for the next interval.
        self.look_at = cx.now.mono;
        cx.dirty = true;
    }

    /// Gives each check what was known of it, and closes what was open of those that are gone.
    fn carry_checks(&mut self, cx: &mut Cx<'_>, old: &Service, kept: &[Kept]) {
        let def = Arc::clone(&self.def);
        let mut before: Vec<_> = mem::take(&mut self.checks).into_iter().map(Some).collect();
        let mut places: BTreeMap<CheckIndex, CheckIndex> = BTreeMap::new();
        let mut of_crew = Vec::new();
        for (check, kept) in def.checks.iter().zip(kept.iter().chain(std::iter::repeat(&Kept::New)))
        {
            let state = match kept {
                Kept::New => None,
                Kept::Same(place) | Kept::Other(place) => {
                    let at = usize::from(place.0);
                    let was = old.checks.get(at).filter(|was| was.kind == check.kind);
                    let state = was.and_then(|_| before.get_mut(at)?.take());
                    was.zip(state).map(|(was, state)| {
                        places.insert(*place, check.index);
                        let counted = counted(check, was, *kept);
                        of_crew.push((at, usize::from(check.index.0), counted));
                        carried(cx.now, check, counted, *kept, state)
                    })
                }
            };
            let due = judge::first_due(&def, check.every, cx.now.mono);
            self.checks.push(state.unwrap_or_else(|| judge::fresh(due, None)));
        }
        self.carry_crew(cx, old.workers.as_ref(), &of_crew);
        let gone = |cause: &&Cause| cause.place().is_some_and(|place| !places.contains_key(&place));
        let gone: Vec<_> = self.open.keys().filter(gone).copied().collect();
        for cause in gone {
            self.resolve(cx, cause, NO_LONGER_CHECKED);
        }
        let moved = |cause: Cause| {
            let place = cause.place().and_then(|place| places.get(&place));
            place.map_or(cause, |place| cause.at(*place))
        };
        for (cause, mut open) in mem::take(&mut self.open) {
            open.record.cause = moved(cause);
            self.open.insert(open.record.cause, open);
        }
        if let Some(last) = &mut self.last_incident {
            last.cause = moved(last.cause);
        }
        self.pending = mem::take(&mut self.pending)
            .into_iter()
            .filter_map(|(place, action)| {
                let place = *places.get(&place)?;
                let check = def.checks.get(usize::from(place.0))?;
                let asked = check.then.contains(&action) || check.on_recovery.contains(&action);
                asked.then_some((place, action))
            })
            .collect();
    }

    /// Open incidents that were told are told again as often as is said now.
    fn remind_anew(&mut self, now: Now) {
        for (cause, open) in mem::take(&mut self.open) {
            let told = open.record.told > 0;
            let tell_at = if told { self.tell_again_at(now, &open.record) } else { open.tell_at };
            self.open.insert(cause, Box::new(OpenIncident { tell_at, ..*open }));
        }
    }

    /// Something else says which process is the main one. The one that is held stays it until that was
    /// looked at; then it is as with any claim that changes.
    fn claim_changed(&mut self, cx: &mut Cx<'_>) {
        if self.def.life == Life::Nothing {
            self.has_no_process(cx);
            return;
        }
        match &mut self.stage {
            Stage::Clearing(clearing) => clearing.absence = None,
            Stage::Starting(starting) => {
                starting.stale = None;
                starting.dead_on_arrival = None;
            }
            Stage::Watching
            | Stage::StartPeriod { .. }
            | Stage::Stopping { .. }
            | Stage::Killing { .. }
            | Stage::Backoff { .. } => {}
        }
        self.asked.confirm = None;
        // Whether a process of a record lives was not asked of the claim.
        if self.asked.held.is_none() {
            self.asked.identify = None;
            self.identify(cx);
        }
    }

    /// It has no process any more, only checks: the one it had is let go of, whatever was under way with it.
    fn has_no_process(&mut self, cx: &mut Cx<'_>) {
        let how = "it has no process any more";
        self.dismiss_crew(cx, how);
        self.let_go(cx);
        self.asked = Asked::default();
        (self.leaving, self.recalled, self.last_main, self.gone_at) = (None, None, None, None);
        self.limit.down();
        self.enter(cx, Stage::Watching);
        for cause in [Cause::Down, Cause::UpUnwanted, Cause::Unclear, Cause::Unkillable] {
            self.resolve(cx, cause, how);
        }
        let about_a_process = |order| match order {
            Order::Start | Order::Stop | Order::Restart | Order::Reload => true,
            Order::Monitor | Order::Unmonitor => false,
        };
        self.answer(cx, about_a_process, ReplyResult::Failed, how);
    }

    /// Lets go of every process that is held, and of a stop that is under way.
    fn let_go(&mut self, cx: &mut Cx<'_>) {
        let service = self.def.name.clone();
        let survivors = match &mut self.stage {
            Stage::Clearing(clearing) => mem::take(&mut clearing.survivors),
            Stage::Stopping { .. } | Stage::Killing { .. } => {
                // A later keeper must not go on with it.
                cx.push(Effect::RecordLadder { service: service.clone(), ladder: None });
                Vec::new()
            }
            Stage::Watching
            | Stage::Starting(_)
            | Stage::StartPeriod { .. }
            | Stage::Backoff { .. } => Vec::new(),
        };
        let survivors = survivors.into_iter().map(|left| left.identity);
        for identity in survivors.chain(self.main.take()) {
            cx.push(Effect::Unwatch { service: service.clone(), identity });
        }
    }

    /// The last that is done with a service.
    fn part(&mut self, cx: &mut Cx<'_>, why: &Farewell) {
        let (how, next) = match why {
            Farewell::Gone => {
                self.let_go(cx);
                ("it is no longer watched: its file is gone", "nothing".to_owned())
            }
            Farewell::Back => {
                self.let_go(cx);
                ("its file is back", "it is watched".to_owned())
            }
            Farewell::Renamed(to) => {
                ("its file was renamed", format!("it is watched as {to} from now on"))
            }
        };
        for (_, open) in mem::take(&mut self.open) {
            self.close(cx, *open, how, next.clone());
        }
        let unfinished = format!("not finished: {how}");
        self.crew_parts(cx, &unfinished);
        self.verify_parts(cx, how);
        self.answer(cx, |_| true, ReplyResult::Failed, &unfinished);
    }

    fn definition_is(&mut self, cx: &mut Cx<'_>, bad: Option<&Wrong>) {
        let Some(Wrong { title, lines }) = bad else {
            self.resolve(cx, Cause::Definition, "it is good again");
            return;
        };
        let open = self.open.get(&Cause::Definition);
        if open.is_some_and(|open| open.record.title == *title) {
            return;
        }
        self.open_incident(cx, Cause::Definition, title.clone(), cx.now.mono + limits::TELL_AFTER);
        if let Some(open) = self.open.get_mut(&Cause::Definition) {
            // What a status shows is what is wrong with it now.
            open.record.title.clone_from(title);
            for line in lines {
                open.record.tell(cx.now.wall, line.clone());
            }
        }
    }
}

/// What is known of a check that is defined anew. What fires goes on firing until it is seen to be good.
fn carried(
    now: Now,
    check: &Check,
    counted: Counted,
    kept: Kept,
    mut state: CheckState,
) -> CheckState {
    match kept {
        Kept::Same(_) => {}
        Kept::New | Kept::Other(_) => {
            (state.last, state.asked, state.fingerprint, state.unknown) = (None, None, None, 0);
        }
    }
    match counted {
        Counted::Alike => {}
        Counted::Anew => state.window.clear(),
    }
    state.due = state.due.min(judge::next_slot(now.mono, check.every));
    state.repeat_at = match (check.repeat, state.repeat_at) {
        (Some(every), Some(at)) => Some(at.min(now.mono + every)),
        (Some(every), None) if state.window.state() == RuleState::Firing => Some(now.mono + every),
        (Some(_), None) | (None, _) => None,
    };
    state
}

/// Whether verdicts of before are of the same thing, and count alike.
fn counted(check: &Check, was: &Check, kept: Kept) -> Counted {
    let of = |check: &Check| (check.condition.clone(), check.tolerance, check.recover);
    match kept {
        Kept::Same(_) if of(check) == of(was) => Counted::Alike,
        Kept::New | Kept::Same(_) | Kept::Other(_) => Counted::Anew,
    }
}
