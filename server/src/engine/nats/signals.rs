//! Signals between servers: plain messages, delivered at most once. Signals of one server arrive in
//! the order in which it sent them, whether they are for one server or for all.

use std::sync::{Arc, atomic::Ordering};

use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::shared::Shared;
use crate::{
    engine::{Feed, FeedSender, ServerId, feed},
    error::Refusal,
};

/// The header with the server that sends a signal.
const SENDER: &str = "Fanfare-Server";
/// The header with a signal's position in the order of its sender.
const NUMBER: &str = "Fanfare-Number";
/// Signals that are sorted together.
const AT_ONCE: usize = 1024;

impl Shared {
    /// See [`crate::engine::Engine::signal`].
    pub(super) async fn signal(&self, to: Option<&ServerId>, bytes: Bytes) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(SENDER, self.server.as_str());
        let number = self.signals_sent.fetch_add(1, Ordering::Relaxed);
        headers.insert(NUMBER, number.to_string());
        let subject = self.store.names.signals(to);
        let publish = self.store.client.publish_with_headers(subject, headers, bytes);
        match timeout(self.config.request_timeout, publish).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Refusal::Storage("written")),
        }
    }
}

/// The signals to this server, beginning when NATS has confirmed the subscriptions.
pub(super) async fn follow(shared: &Arc<Shared>, tasks: &TaskTracker) -> Result<Feed<Bytes>, Refusal> {
    let failed = |_| Refusal::Storage("read");
    let (client, names) = (&shared.store.client, &shared.store.names);
    let own = client.subscribe(names.signals(Some(&shared.server))).await.map_err(failed)?;
    let all = client.subscribe(names.signals(None)).await.map_err(failed)?;
    // An answer to a later request proves that NATS has the subscriptions.
    let stream = names.leases_stream();
    if let Err(error) = shared.store.state(&stream).await {
        shared.restore_after(&error, &stream).await;
        return Err(error.refusal("read"));
    }
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
        // All signals sent before this one have arrived, perhaps on the other subscription.
        let mut messages = vec![message];
        for subscription in [&mut own, &mut all] {
            while messages.len() < AT_ONCE
                && let Some(Some(message)) = tokio::task::unconstrained(subscription.next()).now_or_never()
            {
                messages.push(message);
            }
        }
        messages.sort_by_cached_key(place);
        let is_wanted = |message: &Message| {
            let is_to_all = message.subject.as_str() == shared.store.names.signals(None);
            !is_to_all || header(message, SENDER) != shared.server.as_str()
        };
        let wanted = messages.into_iter().filter(is_wanted);
        if !sender.send_all(wanted.map(|message| (message.payload.clone(), message.payload.len()))) {
            return;
        }
    }
}

fn header<'a>(message: &'a Message, name: &str) -> &'a str {
    let headers = message.headers.as_ref();
    headers.and_then(|headers| headers.get(name)).map_or("", |value| value.as_str())
}

/// The server that sent a signal, and the signal's position in its order.
fn place(message: &Message) -> (String, u64) {
    (header(message, SENDER).to_owned(), header(message, NUMBER).parse().unwrap_or_default())
}
