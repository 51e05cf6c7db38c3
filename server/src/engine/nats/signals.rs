//! Signals between servers: plain messages, at most once.

use std::sync::Arc;

use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::shared::Shared;
use crate::{
    engine::{Feed, FeedSender, ServerId, feed},
    error::Refusal,
};

/// Names the server that sends a signal.
const SENDER: &str = "Fanfare-Server";

impl Shared {
    /// See [`crate::engine::Engine::signal`].
    pub(super) async fn signal(&self, to: Option<&ServerId>, bytes: Bytes) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(SENDER, self.server.as_str());
        let subject = self.store.names.signals(to);
        let publish = self.store.client.publish_with_headers(subject, headers, bytes);
        match timeout(self.config.request_timeout, publish).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Refusal::Storage("written")),
        }
    }
}

/// The signals to this server, from when NATS has confirmed the subscriptions.
pub(super) async fn follow(shared: &Arc<Shared>, tasks: &TaskTracker) -> Result<Feed<Bytes>, Refusal> {
    let failed = |_| Refusal::Storage("read");
    let (client, names) = (&shared.store.client, &shared.store.names);
    let own = client.subscribe(names.signals(Some(&shared.server))).await.map_err(failed)?;
    let all = client.subscribe(names.signals(None)).await.map_err(failed)?;
    // The answer to a later request shows that the subscriptions have arrived.
    let state = shared.store.state(&names.leases_stream()).await;
    state.map_err(|error| error.refusal("read"))?;
    let (sender, feed) = feed();
    tasks.spawn(run(shared.clone(), own, all, sender));
    Ok(feed)
}

async fn run(shared: Arc<Shared>, mut own: Subscriber, mut all: Subscriber, sender: FeedSender<Bytes>) {
    let mut losses = shared.losses.clone();
    losses.mark_unchanged();
    loop {
        let message = tokio::select! {
            message = own.next() => message,
            message = all.next() => message,
            _ = losses.changed() => return,
            () = shared.cancel.cancelled() => return,
        };
        let Some(message) = message else { return };
        let is_own = message.headers.as_ref().and_then(|headers| headers.get(SENDER));
        let is_own = is_own.is_some_and(|from| from.as_str() == shared.server.as_str());
        let is_to_all = message.subject.as_str() == shared.store.names.signals(None);
        if is_own && is_to_all {
            continue;
        }
        let bytes = message.payload.len();
        if !sender.send(message.payload, bytes) {
            return;
        }
    }
}
