//! Dependencies: what a service's trouble means for those that need it.
//!
//! A parent that is down or firing holds its children back: their checks run and show, but nothing is
//! done and nobody is told of what is the parent's doing. A parent that nobody watches holds nothing back.
//! Edges are drawn at load, without circles; here a circle would only cost a bounded number of steps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use crate::engine::effect::Effect;
use crate::engine::judge;
use crate::engine::start_limit::Permission;
use crate::engine::state::{Stage, State};
use crate::engine::table::{Class, Where};
use crate::engine::tolerance::Window;
use crate::engine::{Cx, Engine};
use crate::model::event::EventKind;
use crate::model::ids::ServiceName;
use crate::model::incident::Cause;
use crate::model::intent::Desired;
use crate::model::limits;
use crate::model::process::ProcessIdentity;
use crate::model::service::{Life, Mode, Together};
use crate::model::time::Now;

/// What a service is to those that need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Footing {
    standing: Standing,
    /// Its main process: another one means that it was restarted.
    main: Option<ProcessIdentity>,
}

/// Whether others can build on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It is up, and nothing is wrong that its checks tell.
    Fine,
    /// It is not there.
    Down,
    /// One of its checks fires.
    Firing,
    /// It was stopped on purpose.
    Stopped,
    /// Nobody wants to know.
    Aside,
}

impl Standing {
    fn holds_back(self) -> bool {
        match self {
            Self::Down | Self::Firing | Self::Stopped => true,
            Self::Fine | Self::Aside => false,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fine => "is up",
            Self::Down => "is down",
            Self::Firing => "is in trouble",
            Self::Stopped => "was stopped",
            Self::Aside => "is not monitored",
        })
    }
}

/// Who needs whom, and what each parent's footing was when its children last heard of it.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    children: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    told: BTreeMap<ServiceName, Footing>,
}

impl Engine {
    /// A service is there: it is entered under its parents, of which it hears how they stand now.
    pub(super) fn draw_edges(&mut self, child: &ServiceName) {
        self.rub_out_edges(child);
        let Some(state) = self.services.get(child) else { return };
        for parent in &state.def.depends_on {
            self.edges.children.entry(parent.clone()).or_default().insert(child.clone());
            // Without children nobody was told for a while.
            match self.services.get(parent) {
                Some(state) => self.edges.told.insert(parent.clone(), state.footing()),
                None => self.edges.told.remove(parent),
            };
        }
    }

    /// A service is gone, or has other parents now.
    pub(super) fn rub_out_edges(&mut self, child: &ServiceName) {
        self.edges.children.retain(|_, children| {
            children.remove(child);
            !children.is_empty()
        });
    }

    /// A service of which others hear may stand otherwise now: they are told, and theirs.
    pub(super) fn tell_children(
        &mut self,
        now: Now,
        parent: &ServiceName,
        effects: &mut Vec<Effect>,
    ) {
        if self.edges.children.is_empty() {
            return;
        }
        let mut changed = VecDeque::from([parent.clone()]);
        // Each service is told at most once for each other: a circle would end here.
        let mut left = self.services.len().saturating_mul(self.services.len()).max(1);
        while let Some(parent) = changed.pop_front() {
            let Some(children) = self.edges.children.get(&parent).cloned() else { continue };
            let footing = self.services.get(&parent).map(|state| state.footing());
            let before = match footing {
                Some(footing) => self.edges.told.insert(parent.clone(), footing),
                None => self.edges.told.remove(&parent),
            };
            if before == footing {
                continue;
            }
            if footing.is_some_and(|footing| footing.standing.holds_back()) {
                self.say_whom_it_holds_back(now, &parent, effects);
            }
            for child in children {
                left = left.saturating_sub(1);
                if left == 0 {
                    return;
                }
                let stands = |state: &mut State, cx: &mut Cx<'_>| {
                    state.parent_stands(cx, &parent, footing);
                };
                if self.with(now, &child, effects, stands).is_some() {
                    changed.push_back(child);
                }
            }
        }
    }

    /// One cause, one mail: whoever reads the parent's is told what else is out of service for it.
    fn say_whom_it_holds_back(
        &mut self,
        now: Now,
        parent: &ServiceName,
        effects: &mut Vec<Effect>,
    ) {
        let held = self.who_needs(parent);
        if !held.is_empty() {
            let text = format!("held back until that is over: {}", listed(&held));
            self.with(now, parent, effects, |state, cx| state.narrate_new(cx, text));
        }
    }

    /// Those wanted up that need a service, directly or by others, in order.
    fn who_needs(&self, parent: &ServiceName) -> BTreeSet<ServiceName> {
        let mut all = BTreeSet::new();
        let mut next = vec![parent];
        while let Some(children) = next.pop().map(|of| self.edges.children.get(of)) {
            next.extend(children.into_iter().flatten().filter(|child| all.insert(*child)));
        }
        let wanted = |name: &&&ServiceName| {
            **name != parent
                && self
                    .services
                    .get(**name)
                    .is_some_and(|state| state.intent.desired == Desired::Up)
        };
        all.iter().filter(wanted).map(|name| (*name).clone()).collect()
    }

    /// A child has these parents now: it hears of those that are new, and no more of the others.
    pub(super) fn has_parents(
        &mut self,
        now: Now,
        child: &ServiceName,
        parents: &[ServiceName],
        effects: &mut Vec<Effect>,
    ) {
        let Some(state) = self.services.get(child) else { return };
        let gone = state.parents.keys().filter(|parent| !parents.contains(parent));
        let new = parents.iter().filter(|parent| !state.parents.contains_key(*parent));
        let heard: Vec<_> = gone
            .map(|parent| (parent.clone(), None))
            .chain(new.filter_map(|parent| {
                Some((parent.clone(), Some(self.services.get(parent)?.footing())))
            }))
            .collect();
        for (parent, footing) in heard {
            self.with(now, child, effects, |state, cx| {
                if footing.is_none() {
                    state.parents_mains.remove(&parent);
                }
                state.parent_stands(cx, &parent, footing);
            });
        }
        self.tell_children(now, child, effects);
    }

    /// A new child hears how its parents stand.
    pub(super) fn hear_parents(&mut self, child: &ServiceName) {
        let Some(state) = self.services.get(child) else { return };
        let parents = state.def.depends_on.clone();
        let footings: Vec<_> = parents
            .into_iter()
            .filter_map(|parent| {
                let footing = self.services.get(&parent)?.footing();
                Some((parent, footing))
            })
            .collect();
        if let Some(state) = self.services.get_mut(child) {
            state.parents = footings.into_iter().collect();
            let mains = state
                .parents
                .iter()
                .filter_map(|(parent, footing)| Some((parent.clone(), footing.main?)));
            state.parents_mains = mains.collect();
        }
    }
}

/// `a, b, c`, and how many more there are.
fn listed(names: &BTreeSet<ServiceName>) -> String {
    let first: Vec<_> =
        names.iter().take(limits::HELD_BACK_NAMED_MAX).map(ServiceName::as_str).collect();
    match names.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

impl State {
    /// What it is to those that need it.
    fn footing(&self) -> Footing {
        let stands = match self.stage {
            Stage::Watching | Stage::StartPeriod { .. } | Stage::Starting(_) => self.main.is_some(),
            Stage::Clearing(_)
            | Stage::Stopping { .. }
            | Stage::Killing { .. }
            | Stage::Backoff { .. } => false,
        };
        let up = stands || self.def.life == Life::Nothing;
        let fires = self.open.keys().any(|cause| matches!(cause, Cause::Check(..)));
        let standing = match self.intent.desired {
            Desired::Unmonitored => Standing::Aside,
            Desired::Down => Standing::Stopped,
            Desired::Up if !up => Standing::Down,
            Desired::Up if fires => Standing::Firing,
            Desired::Up => Standing::Fine,
        };
        Footing { standing, main: self.main.filter(|_| up) }
    }

    /// Why nothing is done and nobody told, if that is so: `postgres is down, which it needs`.
    pub(super) fn held_back(&self) -> Option<String> {
        let (parent, footing) =
            self.parents.iter().find(|(_, footing)| footing.standing.holds_back())?;
        Some(format!("{parent} {}, which it needs", footing.standing))
    }

    /// A parent stands otherwise now; `None`: it is not watched any more.
    fn parent_stands(&mut self, cx: &mut Cx<'_>, parent: &ServiceName, footing: Option<Footing>) {
        let was_held = self.held_back().is_some();
        match footing {
            Some(footing) => self.parents.insert(parent.clone(), footing),
            None => self.parents.remove(parent),
        };
        match (was_held, self.held_back()) {
            (false, Some(why)) => {
                self.happened(cx, EventKind::GaveUp, format!("held back: {why}"));
            }
            (true, None) => {
                let how = match footing {
                    Some(_) => format!("{parent} is there again"),
                    None => format!("{parent} is needed no longer, or not watched any more"),
                };
                self.let_go_on(cx, &how);
            }
            (true, Some(_)) | (false, None) => {}
        }
        if let Some(new) = footing.and_then(|footing| footing.main) {
            let old = self.parents_mains.insert(parent.clone(), new);
            if old.is_some_and(|old| old != new) {
                self.parent_restarted(cx, parent);
            }
        }
    }

    /// A parent has another main process now.
    fn parent_restarted(&mut self, cx: &mut Cx<'_>, parent: &ServiceName) {
        let wanted = self.intent.desired == Desired::Up
            && self.def.mode == Mode::Active
            && self.place() == Where::Present;
        if self.def.restart_with == Together::No || !wanted || self.held_back().is_some() {
            return;
        }
        let now = cx.now.mono;
        if cx.brake.ask(now).is_err() {
            let text = format!("not restarted with {parent}: {}", cx.brake.words());
            self.happened(cx, EventKind::GaveUp, text);
            return;
        }
        if self.limit.ask(now, self.def.start_limit, self.def.backoff) == Permission::Go {
            self.takes_away(cx);
            self.happened(cx, EventKind::Acted, format!("restarting it with {parent}"));
            self.happen(cx, Class::WishRestart, None);
        }
    }

    /// Nothing holds it back any more: what it did not do it does now, if there is still reason to.
    fn let_go_on(&mut self, cx: &mut Cx<'_>, how: &str) {
        let text = format!("no longer held back: {how}");
        self.happened(cx, EventKind::Resolved, text);
        self.crew.forget_verdicts();
        let untold: Vec<_> = self
            .open
            .iter()
            .filter(|(cause, open)| cause.is_of_check() && open.record.told == 0)
            .map(|(cause, _)| *cause)
            .collect();
        for cause in untold {
            // It was the parent's doing. If it is not, it is found again, and told.
            self.open.remove(&cause);
            cx.dirty = true;
            let place = cause.place().map(|place| usize::from(place.0));
            let Some(check) = place.and_then(|place| self.checks.get_mut(place)) else { continue };
            if matches!(cause, Cause::CheckUnknown(..)) {
                check.unknown = 0;
            } else {
                check.window = Window::default();
                check.repeat_at = None;
            }
        }
        // What was asked while the parent was away says nothing of now.
        judge::forget_answers(self, cx.now.mono);
        let patience = self.def.start_timeout.max(limits::TELL_AFTER);
        for open in self.open.values_mut() {
            open.tell_at = open.tell_at.min(cx.now.mono + patience);
        }
        if matches!(self.place(), Where::Absent) {
            self.look_at = cx.now.mono;
        }
    }
}
