//! Events, as the control socket tells them: all at once, or one a line for as long as a client listens.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::model::event;
use crate::wire::control::VERSION;

/// What happened, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventsAnswer {
    /// [`VERSION`] of the keeper.
    pub version: u32,
    /// The newest of what is kept.
    pub events: Vec<Event>,
}

impl EventsAnswer {
    /// Of this version.
    #[must_use]
    pub fn new<'a>(events: impl IntoIterator<Item = &'a event::Event>) -> Self {
        Self { version: VERSION, events: events.into_iter().map(Event::of).collect() }
    }
}

/// One event. For a client that follows, each is a line of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at_unix_ms: u64,
    /// Of which service.
    pub service: String,
    /// ordered, exited, started, acted, failed, gave up, fired, resolved, changed.
    pub kind: String,
    /// What, with values.
    pub text: String,
}

impl Event {
    /// The wire's form of an event.
    #[must_use]
    pub fn of(event: &event::Event) -> Self {
        let event::Event { service, at, kind, text } = event;
        Self {
            at_unix_ms: at.0,
            service: service.to_string(),
            kind: kind.name().to_owned(),
            text: text.to_string(),
        }
    }
}
