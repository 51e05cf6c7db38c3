//! Frames: the entries of a log. A frame holds consecutive events of one tenant that were stored
//! together.

use bytes::Bytes;
use fanfare_proto::cursor::{Cursor, Epoch};
use prost::Message;

use super::store::StoreError;
use crate::engine::StoredEvent;

/// A frame as it is stored. The first frame of a log holds no events: it gives the log its epoch.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Frame {
    #[prost(uint64, tag = "1")]
    pub(super) epoch: u64,
    /// The seq of the first event.
    #[prost(uint64, tag = "2")]
    pub(super) first: u64,
    /// Random; distinguishes this frame from any other with the same seqs.
    #[prost(fixed64, tag = "3")]
    pub(super) tag: u64,
    /// The tag of the previous frame; 0 in the first.
    #[prost(fixed64, tag = "4")]
    pub(super) previous: u64,
    /// The time of the append, in milliseconds of the appending server's clock.
    #[prost(uint64, tag = "5")]
    pub(super) millis: u64,
    /// The cost of all events of the log up to the end of this frame, in bytes.
    #[prost(uint64, tag = "6")]
    pub(super) bytes: u64,
    #[prost(message, repeated, tag = "7")]
    pub(super) events: Vec<FrameEvent>,
    /// The server that appended it.
    #[prost(string, tag = "8")]
    pub(super) server: String,
    /// The seq of the newest event of the log that changes the state; 0 if there is none.
    #[prost(uint64, tag = "9")]
    pub(super) state: u64,
}

/// An event of a frame.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FrameEvent {
    #[prost(message, required, tag = "1")]
    pub(super) event: StoredEvent,
    #[prost(string, tag = "2")]
    pub(super) idempotency_key: String,
}

/// Ephemeral events sent between servers. Those that were appended together with stored events are
/// published before the frame of the stored events. Other servers hold them until the preceding
/// events arrive.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Passing {
    /// The server that publishes them.
    #[prost(string, tag = "1")]
    pub(super) server: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) events: Vec<PassingEvent>,
    /// The tag of their frame; 0 if they have none.
    #[prost(fixed64, tag = "3")]
    pub(super) frame: u64,
    /// If they have no frame: the seq of the last stored event before them.
    #[prost(uint64, tag = "4")]
    pub(super) seq: u64,
}

/// An ephemeral event.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PassingEvent {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, required, tag = "2")]
    pub(super) event: StoredEvent,
    /// Number of events of the frame before it.
    #[prost(uint32, tag = "3")]
    pub(super) after: u32,
}

/// The end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The stream's sequence number of the last frame.
    pub(super) place: u64,
    pub(super) cursor: Cursor,
    /// The cost of all events ever appended to the log.
    pub(super) bytes: u64,
    /// When the last frame was appended.
    pub(super) millis: u64,
    /// The seq of the newest event of the log that changes the state; 0 if there is none.
    pub(super) state: u64,
}

/// A random tag.
pub(super) fn tag() -> u64 {
    rand::random::<u64>().max(1)
}

impl Frame {
    /// The first frame of a new log.
    pub(super) fn genesis(millis: u64) -> Self {
        let epoch = Epoch::random().number();
        Self { epoch, first: 1, tag: tag(), millis, ..Self::default() }
    }

    pub(super) fn read(bytes: Bytes) -> Result<Self, StoreError> {
        let frame = Self::decode(bytes).map_err(|_| StoreError::Damaged)?;
        if frame.first == 0 || frame.tag == 0 { Err(StoreError::Damaged) } else { Ok(frame) }
    }

    /// The seq of the last event. For a frame without events, the seq before it.
    pub(super) fn last(&self) -> u64 {
        self.first.saturating_add(self.events.len() as u64).saturating_sub(1)
    }

    /// The cursor just after an event of this frame.
    pub(super) fn cursor(&self, seq: u64) -> Cursor {
        Cursor { epoch: Epoch::kept(self.epoch), seq, tag: self.tag }
    }

    pub(super) fn head(&self, place: u64) -> Head {
        let (cursor, bytes, millis, state) = (self.cursor(self.last()), self.bytes, self.millis, self.state);
        Head { place, cursor, bytes, millis, state }
    }

    /// Whether it directly follows the end of a log.
    pub(super) fn follows(&self, end: Cursor) -> bool {
        self.epoch == end.epoch.number() && self.first == end.seq + 1 && self.previous == end.tag
    }

    /// Whether a cursor is just before this frame or within it, in the same history.
    pub(super) fn continues(&self, cursor: Cursor) -> bool {
        let is_within = (self.first..=self.last()).contains(&cursor.seq)
            || (self.events.is_empty() && cursor.seq + 1 == self.first);
        self.epoch == cursor.epoch.number() && ((is_within && self.tag == cursor.tag) || self.follows(cursor))
    }
}
