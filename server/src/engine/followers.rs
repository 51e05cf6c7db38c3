//! The followers of one log that this process owns.

use std::sync::Arc;

use super::{Feed, FeedSender, feed};
use crate::event::Event;

/// Kept under the lock of their log, which makes the order of feeds the log's.
#[derive(Debug, Default)]
pub(crate) struct Followers(Vec<FeedSender<Arc<Event>>>);

impl Followers {
    /// Follows from here on.
    pub(crate) fn add(&mut self) -> Feed<Arc<Event>> {
        let (sender, feed) = feed();
        self.0.push(sender);
        feed
    }

    /// Announces events to all, and wakes each once.
    pub(crate) fn send<'e>(&mut self, events: impl Iterator<Item = &'e Arc<Event>> + Clone) {
        self.0.retain(|follower| {
            follower.send_all(events.clone().map(|event| (event.clone(), event.cost_bytes())))
        });
    }

    /// Ends all feeds: their followers read the log, and follow again.
    pub(crate) fn cut(&mut self) {
        self.0.clear();
    }

    /// Whether somebody follows.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.0.retain(|follower| !follower.is_closed());
        self.0.is_empty()
    }
}
