//! Records: the last message of a subject, replaced by compare-and-set. A removed record is also a
//! message, which expires later; an expired record leaves such a message too. So revisions, which
//! are places in the stream, grow with every change. A feed always delivers the newest value of
//! each record; it may skip a value that is replaced quickly.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Message,
    jetstream::{
        consumer::{AckPolicy, DeliverPolicy, push},
        stream::ConsumerErrorKind,
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::{
    names::{text, token},
    setup::REMOVAL_SECONDS,
    shared::{Attempts, Shared},
    store::{Entry, Extras, StoreError, is_removal},
};
use crate::{
    engine::{Feed, FeedSender, Record, Replaced, Replacement, Space, feed},
    error::Refusal,
};

/// The interval of heartbeats on an idle feed. The feed ends after two missing heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long NATS retains the consumer of a feed that has gone.
const CONSUMER_IDLE: Duration = Duration::from_secs(30);
/// Maximum number of records in a snapshot.
const SNAPSHOT_MAX: usize = 1_000_000;

impl Shared {
    async fn last_record(&self, space: &Space, key: &str) -> Result<Option<Entry>, StoreError> {
        let (stream, start) = self.store.names.space(space);
        self.store.last(&stream, &format!("{start}{}", token(key))).await
    }

    /// See [`crate::engine::Engine::record`].
    pub(super) async fn record(&self, space: &Space, key: &str) -> Result<Option<Record>, Refusal> {
        let mut attempts = Attempts::within(self.config.deadline);
        loop {
            match self.last_record(space, key).await {
                Ok(entry) => {
                    let entry = entry.filter(|entry| !entry.is_removal);
                    return Ok(entry.map(|entry| record(key, entry.payload, entry.place)));
                }
                Err(error) if !error.is_passing() => return Err(error.refusal("read")),
                Err(error) => {
                    self.restore_after(&error, &self.store.names.space(space).0).await;
                    if !attempts.pause().await {
                        return Err(error.refusal("read"));
                    }
                }
            }
        }
    }

    /// See [`crate::engine::Engine::replace`].
    pub(super) async fn replace(
        &self,
        space: &Space,
        key: &str,
        replacement: Replacement,
    ) -> Result<Replaced, Refusal> {
        let (stream, start) = self.store.names.space(space);
        self.replace_at(&stream, format!("{start}{}", token(key)), replacement).await
    }

    /// Replaces the record of a subject in a stream.
    pub(super) async fn replace_at(
        &self,
        stream: &str,
        subject: String,
        replacement: Replacement,
    ) -> Result<Replaced, Refusal> {
        match self.try_replace(stream, subject, replacement).await {
            Ok(replaced) => Ok(replaced),
            Err(error) => {
                self.restore_after(&error, stream).await;
                Err(error.refusal("written"))
            }
        }
    }

    async fn try_replace(
        &self,
        stream: &str,
        subject: String,
        replacement: Replacement,
    ) -> Result<Replaced, StoreError> {
        let extras = Extras {
            is_removal: replacement.value.is_none(),
            ttl_seconds: match (&replacement.value, replacement.ttl) {
                (None, _) => Some(REMOVAL_SECONDS),
                (Some(_), ttl) => ttl.map(whole_seconds),
            },
        };
        let value = replacement.value.unwrap_or_default();
        let write =
            async |expected| match self.store.publish(subject.clone(), value.clone(), expected, extras).await
            {
                Ok(place) => Ok(Some(place)),
                Err(StoreError::Conflict) => Ok(None),
                Err(error) => Err(error),
            };
        let mut place = write(replacement.expected).await?;
        if place.is_none() && replacement.expected == 0 {
            // There is no record, but there may be the mark of a removed one.
            let last = self.store.last(stream, &subject).await?;
            if let Some(mark) = last.filter(|entry| entry.is_removal) {
                place = write(mark.place).await?;
            }
        }
        Ok(place.map_or(Replaced::Conflict, Replaced::Revision))
    }

    /// See [`crate::engine::Engine::records`].
    pub(super) async fn records(&self, space: &Space) -> Result<(Vec<Record>, Reader), Refusal> {
        let failed = |error: &dyn std::error::Error| {
            tracing::debug!(%error, "records cannot be followed");
            Refusal::Storage("read")
        };
        let (stream, start) = self.store.names.space(space);
        let store = &self.store;
        let consumer = push::Config {
            deliver_subject: store.client.new_inbox(),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            filter_subject: format!("{start}*"),
            max_deliver: 1,
            idle_heartbeat: HEARTBEAT,
            flow_control: true,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: CONSUMER_IDLE,
            ..push::Config::default()
        };
        let create = store.context.create_consumer_on_stream(consumer, stream.as_str());
        let created = tokio::time::timeout(self.config.deadline, create).await;
        let consumer = match created.map_err(|error| failed(&error))? {
            Ok(consumer) => consumer,
            Err(error) => {
                if let ConsumerErrorKind::JetStream(error) = error.kind() {
                    self.restore_after(&StoreError::of_jetstream(&error), &stream).await;
                }
                return Err(failed(&error));
            }
        };
        let pending = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(|error| failed(&error))?;
        let mut reader = Reader { messages, prefix: start, seen: 0 };
        let mut snapshot = Vec::new();
        let end = tokio::time::Instant::now() + self.config.deadline;
        while reader.seen < pending {
            let next = tokio::time::timeout_at(end, reader.next()).await;
            let Some(record) = next.ok().flatten() else { return Err(Refusal::Storage("read")) };
            snapshot.push(record);
            if snapshot.len() >= SNAPSHOT_MAX {
                return Err(Refusal::Storage("read"));
            }
        }
        Ok((latest(snapshot), reader))
    }
}

/// Reads the changes after a snapshot of records.
#[allow(missing_debug_implementations, reason = "the messages have none")]
pub(super) struct Reader {
    messages: push::Messages,
    prefix: String,
    /// Number of messages that have arrived.
    seen: u64,
}

impl Reader {
    /// The next change; `None` if one was missed, or might have been.
    async fn next(&mut self) -> Option<Record> {
        let message = match self.messages.next().await? {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%error, "a feed of records ends");
                return None;
            }
        };
        let info = message.info().ok()?;
        let (place, number) = (info.stream_sequence, info.consumer_sequence);
        self.seen += 1;
        if number != self.seen {
            return None;
        }
        let Message { subject, payload, headers, .. } = message.message;
        let key = text(subject.strip_prefix(self.prefix.as_str())?)?;
        let is_removal = headers.is_some_and(|headers| is_removal(&headers));
        let value = (!is_removal).then_some(payload);
        Some(Record { key: key.into(), value, revision: place })
    }

    /// Feeds changes to a follower until the follower or the feed ends.
    pub(super) async fn run(mut self, sender: FeedSender<Record>, shared: Arc<Shared>) {
        let mut losses = shared.losses.clone();
        losses.mark_unchanged();
        loop {
            let record = tokio::select! {
                record = self.next() => record,
                _ = losses.changed() => return,
                () = shared.cancel.cancelled() => return,
                () = tokio::time::sleep(HEARTBEAT), if sender.is_closed() => return,
            };
            let Some(record) = record else { return };
            let bytes = record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
            if !sender.send(record, bytes) {
                return;
            }
        }
    }
}

/// The feed of a reader.
pub(super) fn feed_of(
    shared: &Arc<Shared>,
    reader: Reader,
    tasks: &tokio_util::task::TaskTracker,
) -> Feed<Record> {
    let (sender, feed) = feed();
    tasks.spawn(reader.run(sender, shared.clone()));
    feed
}

fn record(key: &str, value: Bytes, revision: u64) -> Record {
    Record { key: key.into(), value: Some(value), revision }
}

/// The newest value of each key that is not removed: a record may change while the snapshot is
/// read.
fn latest(records: Vec<Record>) -> Vec<Record> {
    let mut newest = std::collections::HashMap::new();
    for record in records {
        newest.insert(record.key.clone(), record);
    }
    newest.into_values().filter(|record| record.value.is_some()).collect()
}

/// Rounds up, because NATS counts in whole seconds.
fn whole_seconds(ttl: Duration) -> u64 {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    seconds.max(1)
}
