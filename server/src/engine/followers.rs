//! The followers of one log that this process owns.

use std::sync::Arc;

use super::{Feed, FeedSender, feed};
use crate::event::Event;

/// Protected by the lock of the log, so feeds have the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Followers(Vec<FeedSender<Arc<Event>>>);

impl Followers {
    /// Adds a follower; its feed begins with the next event.
    pub(crate) fn add(&mut self) -> Feed<Arc<Event>> {
        let (sender, feed) = feed();
        self.0.push(sender);
        feed
    }

    /// Sends events to all followers, and wakes each of them once.
    pub(crate) fn send<'e>(&mut self, events: impl Iterator<Item = &'e Arc<Event>> + Clone) {
        self.0.retain(|follower| {
            follower.send_all(events.clone().map(|event| (event.clone(), event.cost_bytes())))
        });
    }

    /// Ends all feeds: followers read the log and follow again.
    pub(crate) fn cut(&mut self) {
        self.0.clear();
    }

    /// Whether there are no followers.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.0.retain(|follower| !follower.is_closed());
        self.0.is_empty()
    }
}
