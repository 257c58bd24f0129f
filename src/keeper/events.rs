//! What happened: kept, given to the store, and told to those who follow.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::engine::effect::Level;
use crate::keeper::Keeper;
use crate::keeper::rights::Peer;
use crate::model::event::{Event, History};
use crate::model::ids::ServiceName;
use crate::store::Message;
use crate::wire::control::EventsAnswer;

/// The events of the past, and who waits for those to come.
#[derive(Default)]
pub(super) struct Events {
    history: History,
    followers: Vec<Follower>,
}

/// A client that follows. What of it the client may hear is decided where it is written.
struct Follower {
    peer: Peer,
    to: mpsc::Sender<Arc<Event>>,
}

impl Events {
    /// After those that an earlier keeper saw.
    pub(super) fn after(history: History) -> Self {
        Self { history, followers: Vec::new() }
    }

    /// The newest of these services.
    pub(super) fn answer(&self, services: Vec<ServiceName>, last: Option<u32>) -> EventsAnswer {
        let services: BTreeSet<_> = services.into_iter().collect();
        let most = last.and_then(|last| usize::try_from(last).ok()).unwrap_or(usize::MAX);
        EventsAnswer::new(self.history.last(most, |name| services.contains(name)))
    }

    /// From now on somebody hears of each.
    pub(super) fn follow(&mut self, peer: Peer, to: mpsc::Sender<Arc<Event>>) {
        self.followers.retain(|follower| !follower.to.is_closed());
        self.followers.push(Follower { peer, to });
    }
}

impl Keeper {
    /// Something happened.
    pub(super) fn note_event(&mut self, event: Event) {
        let event = Arc::new(event);
        let mut slow = Vec::new();
        self.events.followers.retain(|follower| match follower.to.try_send(Arc::clone(&event)) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                slow.push(follower.peer.who());
                false
            }
        });
        for who in slow {
            self.say(Level::Warning, &format!("{who} follows the events too slowly: hung up on"));
        }
        self.events.history.push(Arc::clone(&event));
        self.outgoing.push(Message::Happened(event));
    }
}
