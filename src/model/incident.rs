//! The span from fired to resolved, its story, and the alerts that tell it.

use crate::model::check::CheckKind;
use crate::model::hazard::HazardKind;
use crate::model::ids::{CheckIndex, ServiceName};
use crate::model::job::Output;
use crate::model::limits;
use crate::model::time::Wall;

/// One incident. Its mails share one thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incident {
    /// Of which service.
    pub service: ServiceName,
    /// Counts a service's incidents; with `opened` it names this one for ever.
    pub number: u32,
    /// What it is about.
    pub cause: Cause,
    /// What is wrong, with values: `memory (2710 MiB) > 2600 MiB, 3 of 5`.
    pub title: String,
    /// When it began.
    pub opened: Wall,
    /// When it ended.
    pub closed: Option<Wall>,
    /// What was seen, decided, done, and how it ended.
    pub story: Vec<StoryLine>,
    /// Lines dropped from the middle of the story.
    pub dropped_lines: u32,
    /// What the last command printed.
    pub output: Output,
    /// Alerts sent so far.
    pub told: u32,
    /// When the last one was.
    pub told_at: Wall,
}

impl Incident {
    /// The name of this incident, unique on this host: what Message-IDs and file names are made of.
    #[must_use]
    pub fn token(&self) -> String {
        format!("{}.{:x}.{}", self.service, self.opened.0, self.number)
    }

    /// Adds a line to the story; past the bound the middle goes, the beginning and the end stay.
    pub fn tell(&mut self, at: Wall, text: String) {
        if self.story.len() >= limits::STORY_LINES_MAX {
            self.story.remove(limits::STORY_LINES_MAX / 2);
            self.dropped_lines += 1;
        }
        self.story.push(StoryLine { at, text });
    }
}

/// What an incident is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// It is wanted up and is not.
    Down,
    /// It is wanted down and was found up.
    UpUnwanted,
    /// Something is there that heeler may not touch, or cannot tell about.
    Unclear,
    /// It does not die: KILL was sent and it is still there.
    Unkillable,
    /// It was stopped or unmonitored by a rule and waits for an operator.
    SetAside,
    /// Its file in conf.d is bad: an earlier definition of it is in force, or none.
    Definition,
    /// A check fired.
    Check(CheckKind, CheckIndex),
    /// A check cannot be told.
    CheckUnknown(CheckKind, CheckIndex),
    /// It will go off some day.
    Hazard(HazardKind),
    /// A worker did not go when its master told it to, and its master waits for it.
    StuckWorker,
}

impl Cause {
    /// The same of the check at another place; what is about no check stays what it is.
    #[must_use]
    pub fn at(self, place: CheckIndex) -> Self {
        match self {
            Self::Check(kind, _) => Self::Check(kind, place),
            Self::CheckUnknown(kind, _) => Self::CheckUnknown(kind, place),
            Self::Down
            | Self::UpUnwanted
            | Self::Unclear
            | Self::Unkillable
            | Self::SetAside
            | Self::Hazard(_)
            | Self::StuckWorker
            | Self::Definition => self,
        }
    }

    /// The place of the check that it is about.
    #[must_use]
    pub fn place(self) -> Option<CheckIndex> {
        match self {
            Self::Check(_, place) | Self::CheckUnknown(_, place) => Some(place),
            Self::Down
            | Self::UpUnwanted
            | Self::Unclear
            | Self::Unkillable
            | Self::SetAside
            | Self::Hazard(_)
            | Self::StuckWorker
            | Self::Definition => None,
        }
    }

    /// Whether a check or a look found it: it ends when nobody judges any more.
    #[must_use]
    pub fn is_of_check(&self) -> bool {
        self.place().is_some() || matches!(self, Self::Hazard(_) | Self::StuckWorker)
    }
}

/// One line of a story.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoryLine {
    /// When.
    pub at: Wall,
    /// What. Written by heeler; foreign text in it is escaped.
    pub text: String,
}

/// One alert: everything a mail needs, so that the mail answers itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alert {
    /// The incident as it stands.
    pub incident: Incident,
    /// Which alert of the incident this is, from 0. With the incident's token it makes the Message-ID,
    /// so that an alert told again after a crash is the same mail.
    pub sequence: u32,
    /// What it tells.
    pub kind: AlertKind,
    /// To whom; empty when nobody was named.
    pub to: Vec<Box<str>>,
    /// What happens next, in words.
    pub next: String,
}

/// What an alert tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlertKind {
    /// It began, and goes on.
    Fired,
    /// It began and is over already, before anybody was told: it was mended, or it was a thing of one
    /// moment, like a change.
    FiredAndResolved,
    /// It is over.
    Resolved,
    /// It still goes on.
    Reminder,
}

impl AlertKind {
    /// Every kind.
    pub const ALL: [Self; 4] =
        [Self::Fired, Self::FiredAndResolved, Self::Resolved, Self::Reminder];

    /// The word in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::FiredAndResolved => "fired-and-resolved",
            Self::Resolved => "resolved",
            Self::Reminder => "reminder",
        }
    }
}
