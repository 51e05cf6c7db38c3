//! Signals between the servers of one process, for engines whose store belongs to one process.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::{Feed, FeedSender, ServerId, feed};

/// The servers that listen.
#[derive(Debug, Default)]
pub(crate) struct Signals(Mutex<Vec<(ServerId, FeedSender<Bytes>)>>);

impl Signals {
    /// The signals to this server, from now on.
    pub(crate) fn listen(&self, server: &ServerId) -> Feed<Bytes> {
        let (sender, feed) = feed();
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|(_, listener)| !listener.is_closed());
        listeners.push((server.clone(), sender));
        feed
    }

    /// Sends to one server, or to all but the sender.
    pub(crate) fn send(&self, from: &ServerId, to: Option<&ServerId>, bytes: &Bytes) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|(server, listener)| {
            let is_meant = to.map_or(server != from, |to| to == server);
            !is_meant || listener.send(bytes.clone(), bytes.len())
        });
    }
}
