//! Requests to JetStream, with a time limit for each, and the meaning of their answers. Knows
//! nothing of logs and records.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client, HeaderMap, Message, Request, StatusCode, Subscriber,
    client::{RequestError, RequestErrorKind},
    header,
    jetstream::{
        self, Context,
        context::GetStreamErrorKind,
        message::StreamMessage,
        publish::PublishAck,
        response::Response,
        stream::{Info, LastRawMessageErrorKind, State},
    },
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use tokio::time::timeout;

use super::names::Names;
use crate::{engine::state::Meter, error::Refusal};

/// JetStream's error codes for a write that is refused because another write came first.
const CONFLICTS: [u64; 2] = [10_071, 10_164];
/// JetStream's error codes for a write or stream for which there is no space.
const NO_ROOM: [u64; 5] = [10_002, 10_023, 10_028, 10_047, 10_122];
/// JetStream's error code for a write that failed in the stream's store. The text gives the reason.
const STORE_FAILED: u64 = 10_077;
/// Texts that mean that there is no space.
const NO_ROOM_TEXTS: [&str; 3] = ["exceeded", "no space left", "insufficient"];
/// JetStream's error code for a stream that does not exist.
const NO_STREAM: u64 = 10_059;
/// Maximum size of one answer of a batched read.
const BATCH_BYTES_MAX: u32 = 4 << 20;

/// Marks a removed record, as the key-value buckets of NATS do.
const OPERATION: &str = "KV-Operation";
const REMOVED: &str = "DEL";

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StoreError {
    #[error("another write came first")]
    Conflict,
    #[error("there is no room: {0}")]
    NoRoom(String),
    #[error("the stream does not exist")]
    NoStream,
    #[error("the stream has no leader, or does not exist")]
    NoLeader,
    /// No server can answer for the stream at the moment, or the answer was lost.
    #[error("JetStream does not answer: {0}")]
    Unavailable(String),
    #[error("the message is larger than the servers allow")]
    TooLarge,
    #[error("JetStream refuses it: {0}")]
    Refused(String),
    #[error("an entry cannot be read")]
    Damaged,
}

impl StoreError {
    /// The refusal for the caller.
    pub(super) fn refusal(self, what: &'static str) -> Refusal {
        match self {
            Self::NoRoom(_) => Refusal::StoreFull,
            Self::TooLarge => Refusal::Invalid("the events are too large for one entry of the log".into()),
            Self::Conflict
            | Self::NoStream
            | Self::NoLeader
            | Self::Unavailable(_)
            | Self::Refused(_)
            | Self::Damaged => Refusal::Storage(what),
        }
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NoStream | Self::NoLeader | Self::Conflict)
    }

    pub(super) fn of_jetstream(error: &jetstream::Error) -> Self {
        let number = error.error_code().0;
        let text = error.to_string();
        match number {
            number if CONFLICTS.contains(&number) => Self::Conflict,
            number if NO_ROOM.contains(&number) => Self::NoRoom(text),
            STORE_FAILED if NO_ROOM_TEXTS.iter().any(|part| text.contains(part)) => Self::NoRoom(text),
            STORE_FAILED => Self::Unavailable(text),
            NO_STREAM => Self::NoStream,
            10_054 => Self::TooLarge,
            _ if error.code() == 503 => Self::Unavailable(text),
            _ => Self::Refused(text),
        }
    }
}

impl From<RequestError> for StoreError {
    fn from(error: RequestError) -> Self {
        match error.kind() {
            RequestErrorKind::MaxPayloadExceeded => Self::TooLarge,
            RequestErrorKind::InvalidSubject => Self::Refused(error.to_string()),
            RequestErrorKind::NoResponders => Self::NoLeader,
            RequestErrorKind::TimedOut | RequestErrorKind::Other => Self::Unavailable(error.to_string()),
        }
    }
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The stream's sequence number.
    pub(super) place: u64,
    pub(super) payload: Bytes,
    /// Marks the removal of the record of this subject.
    pub(super) is_removal: bool,
}

/// Data to write in addition to the payload.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extras {
    pub(super) is_removal: bool,
    /// When the message expires, in whole seconds.
    pub(super) ttl_seconds: Option<u64>,
}

/// Where a batched read begins.
#[derive(Debug, Clone)]
pub(super) enum Start {
    /// At the first message with at least this sequence number.
    Place(u64),
    /// At the first message that was stored at this time or later, in RFC 3339.
    Time(String),
}

/// A connection to JetStream.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) client: Client,
    pub(super) context: Context,
    pub(super) names: Names,
    pub(super) request_timeout: Duration,
    /// Measures writes, and reads of the end of logs.
    pub(super) commands: Arc<Meter>,
}

impl Store {
    /// Writes a message if the last one of its subject has the place `expected` (0: there is none).
    /// Returns its place.
    pub(super) async fn publish(
        &self,
        subject: String,
        payload: Bytes,
        expected: u64,
        extras: Extras,
    ) -> Result<u64, StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        if extras.is_removal {
            headers.insert(OPERATION, REMOVED);
        }
        if let Some(seconds) = extras.ttl_seconds {
            headers.insert(header::NATS_MESSAGE_TTL, format!("{seconds}s"));
        }
        let request = Request::new().payload(payload).headers(headers).timeout(Some(self.request_timeout));
        let answer = self.commands.measure(self.client.send_request(subject, request)).await?;
        if let Some(status) = answer.status {
            return Err(StoreError::Unavailable(status.to_string()));
        }
        match serde_json::from_slice::<Response<PublishAck>>(&answer.payload) {
            Ok(Response::Ok(ack)) => Ok(ack.sequence),
            Ok(Response::Err { error }) => Err(StoreError::of_jetstream(&error)),
            Err(_) => Err(StoreError::Damaged),
        }
    }

    /// The last message of a subject, read from the stream's leader.
    pub(super) async fn last(&self, stream: &str, subject: &str) -> Result<Option<Entry>, StoreError> {
        let unavailable = |error: String| StoreError::Unavailable(error);
        let stream =
            self.context.get_stream_no_info(stream).await.map_err(|error| unavailable(error.to_string()))?;
        let last = stream.get_last_raw_message_by_subject(subject);
        let answer = timeout(self.request_timeout, self.commands.measure(last)).await;
        match answer.map_err(|_| unavailable("timed out".into()))? {
            Ok(message) => Ok(Some(Entry::of_stream(message))),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(error) => Err(StoreError::of_jetstream(&error)),
                LastRawMessageErrorKind::InvalidSubject | LastRawMessageErrorKind::Other => {
                    Err(unavailable(error.to_string()))
                }
            },
        }
    }

    /// Up to `count` messages of a subject, in order. Any replica may answer, so the newest may be
    /// missing.
    pub(super) async fn read(
        &self,
        stream: &str,
        subject: &str,
        from: Start,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut request = json!({ "next_by_subj": subject, "batch": count, "max_bytes": BATCH_BYTES_MAX });
        match from {
            Start::Place(place) => request["seq"] = place.max(1).into(),
            Start::Time(time) => request["start_time"] = time.into(),
        }
        let inbox = self.client.new_inbox();
        let failed = |error: &dyn std::error::Error| StoreError::Unavailable(error.to_string());
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|e| failed(&e))?;
        let call = self.names.api(&format!("DIRECT.GET.{stream}"));
        let request = request.to_string();
        self.client.publish_with_reply(call, inbox, request.into()).await.map_err(|e| failed(&e))?;
        let entries = self.receive(&mut answers, count).await;
        let _ = answers.unsubscribe().await;
        entries
    }

    async fn receive(&self, answers: &mut Subscriber, count: usize) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        while entries.len() < count {
            let answer = timeout(self.request_timeout, answers.next()).await;
            let message = answer.ok().flatten();
            let Some(message) = message else { return Err(StoreError::Unavailable("timed out".into())) };
            match message.status {
                None => entries.push(Entry::of_message(message).ok_or(StoreError::Damaged)?),
                // The end of the batch.
                Some(status) if status.as_u16() == 204 => break,
                Some(StatusCode::NOT_FOUND) => break,
                Some(status) => return Err(StoreError::Unavailable(status.to_string())),
            }
        }
        Ok(entries)
    }

    /// The contents of a stream.
    pub(super) async fn state(&self, stream: &str) -> Result<State, StoreError> {
        self.info(stream).await.map(|info| info.state)
    }

    /// The description of a stream, from its leader.
    pub(super) async fn info(&self, stream: &str) -> Result<Info, StoreError> {
        let unavailable = |error: &dyn std::error::Error| StoreError::Unavailable(error.to_string());
        let answer = timeout(self.request_timeout, self.context.get_stream(stream)).await;
        let stream = answer.map_err(|error| unavailable(&error))?.map_err(|error| match error.kind() {
            GetStreamErrorKind::JetStream(error) => StoreError::of_jetstream(&error),
            _ => unavailable(&error),
        })?;
        Ok(stream.cached_info().clone())
    }

    /// Up to `limit` subjects of a stream that match a filter.
    pub(super) async fn subjects(
        &self,
        stream: &str,
        filter: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let unavailable = |error: &dyn std::error::Error| StoreError::Unavailable(error.to_string());
        let stream = self.context.get_stream_no_info(stream).await.map_err(|error| unavailable(&error))?;
        let subjects = stream.info_with_subjects(filter).await.map_err(|error| unavailable(&error))?;
        let subjects = subjects.map_ok(|(subject, _)| subject).take(limit);
        timeout(self.request_timeout * 4, subjects.try_collect())
            .await
            .map_err(|error| unavailable(&error))?
            .map_err(|error| unavailable(&error))
    }

    /// Removes the messages of a subject before a place.
    pub(super) async fn purge(&self, stream: &str, subject: &str, before: u64) -> Result<u64, StoreError> {
        let failed = |error: &dyn std::error::Error| StoreError::Unavailable(error.to_string());
        let stream = self.context.get_stream_no_info(stream).await.map_err(|error| failed(&error))?;
        let purge = stream.purge().filter(subject).sequence(before);
        let answer = timeout(self.request_timeout, purge).await;
        let answer = answer.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        Ok(answer.purged)
    }
}

impl Entry {
    fn of_stream(message: StreamMessage) -> Self {
        let is_removal = is_removal(&message.headers);
        Self { place: message.sequence, payload: message.payload, is_removal }
    }

    /// The entry of a message that was read directly or announced; `None` for other messages.
    pub(super) fn of_message(message: Message) -> Option<Self> {
        let headers = message.headers?;
        let place = headers.get(header::NATS_SEQUENCE)?.as_str().parse().ok()?;
        Some(Self { place, payload: message.payload, is_removal: is_removal(&headers) })
    }
}

/// Whether a message marks a record that was removed or has expired.
pub(super) fn is_removal(headers: &HeaderMap) -> bool {
    headers.get(OPERATION).is_some_and(|operation| operation.as_str() != "PUT")
        || headers.get(header::NATS_MARKER_REASON).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: u64, text: &str) -> StoreError {
        let error = json!({ "code": 503, "err_code": number, "description": text });
        StoreError::of_jetstream(&serde_json::from_value(error).unwrap())
    }

    #[test]
    fn a_failed_store_is_full_only_if_it_says_so() {
        for text in ["maximum bytes exceeded", "write 1.blk: no space left on device"] {
            assert!(matches!(of(10_077, text), StoreError::NoRoom(_)), "{text}");
        }
        for (number, text) in [(10_077, "store closed"), (10_124, "error")] {
            assert!(matches!(of(number, text), StoreError::Unavailable(_)), "{number}");
        }
    }
}
