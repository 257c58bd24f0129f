//! A client that follows the events: one a line, for as long as it takes them.
#![forbid(unsafe_code)]

use std::sync::Arc;

use serde::Serialize;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::{ControlEvent, Taken, gone, http, send};
use crate::keeper::rights::{Peer, Rights};
use crate::model::event;
use crate::model::selector::Selector;
use crate::wire::control::{ErrorAnswer, ErrorKind, Event, EventsAnswer};

/// Who follows, and what it asked for.
pub(super) struct Follower {
    pub(super) peer: Peer,
    pub(super) asked: Vec<Selector>,
    pub(super) rights: watch::Receiver<Arc<Rights>>,
}

impl Follower {
    /// Tells the past, and then each event as it comes. Ends with the client, with the keeper, or when the
    /// client is too far behind.
    pub(super) async fn serve(
        self,
        stream: &mut UnixStream,
        past: EventsAnswer,
        mut coming: mpsc::Receiver<Arc<event::Event>>,
        keeper: &mpsc::Sender<ControlEvent>,
    ) {
        let mut bytes = http::stream_head().to_vec();
        past.events.iter().for_each(|event| line(&mut bytes, event));
        loop {
            match send(stream, &bytes).await {
                Taken::Whole => {}
                Taken::Gone => return,
                Taken::Late => {
                    let slow = ControlEvent::TooSlow { peer: self.peer.clone() };
                    // A keeper that is gone has nobody to tell.
                    drop(keeper.send(slow).await);
                    return;
                }
            }
            bytes.clear();
            let event = tokio::select! {
                event = coming.recv() => event,
                () = gone(stream) => return,
            };
            let Some(event) = event else { break };
            self.add(&mut bytes, &event);
            // What came together is written together.
            while bytes.len() < BATCH_BYTES
                && let Ok(event) = coming.try_recv()
            {
                self.add(&mut bytes, &event);
            }
        }
        let (kind, text) = if keeper.is_closed() {
            (ErrorKind::Stopping, "heeler is stopping")
        } else {
            (ErrorKind::TooSlow, "too far behind; ask again to see what was missed")
        };
        line(&mut bytes, &ErrorAnswer::new(kind, text));
        send(stream, &bytes).await;
    }

    /// Rights count from the moment they are changed.
    fn add(&self, bytes: &mut Vec<u8>, event: &event::Event) {
        if self.rights.borrow().may_hear(&self.peer, &self.asked, &event.service) {
            line(bytes, &Event::of(event));
        }
    }
}

const BATCH_BYTES: usize = 64 << 10;

fn line(bytes: &mut Vec<u8>, what: &impl Serialize) {
    bytes.extend(serde_json::to_vec(what).unwrap_or_default());
    bytes.push(b'\n');
}
