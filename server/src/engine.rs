//! The engine: the only seam to storage. It keeps what servers share: each tenant's log, records
//! with compare-and-set, and signals between servers. Nothing else may live in one server's memory
//! alone.
//!
//! An engine pushes into nobody: the hub follows logs, and presence follows records. Servers on
//! the same store each hold their own engine, a handle with a [`ServerId`].

#[cfg(test)]
mod conformance;
pub(crate) mod disk;
mod entries;
mod feed;
mod followers;
pub(crate) mod memory;
pub(crate) mod nats;
mod records;
pub(crate) mod redis;
mod signals;
pub(crate) mod state;
mod stored;
#[cfg(test)]
pub(crate) mod tests;
mod userinfo;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_proto::{
    cursor::Cursor,
    room::{Room, Tenant},
    v1::EngineState,
};
use futures_util::future::BoxFuture;
use prost_types::Timestamp;

pub(crate) use self::{
    entries::{StateChange, StateEntry, StateLimits, StatePage, now_millis},
    feed::{Feed, FeedSender, feed},
    followers::Followers,
    records::Records,
    signals::Signals,
    stored::{StoredEvent, Unreadable},
};
use crate::{
    error::Refusal,
    event::{Draft, Event},
    interest::Interest,
};

/// The tenant of the server's own events, by which it proves that it delivers. No token can name it, and it counts in no
/// limit.
pub(crate) const OWN_TENANT: &str = "fanfare-server";

/// The answer to the append of one draft.
#[derive(Debug, Clone)]
pub(crate) enum Appended {
    /// It is in the log now; an ephemeral event has passed through.
    Event(Arc<Event>),
    /// The first answer to the same idempotency key.
    Duplicate(Receipt),
}

/// Where an event is in its log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Receipt {
    pub(crate) id: String,
    pub(crate) seq: u64,
    pub(crate) time: Timestamp,
}

impl Appended {
    pub(crate) fn receipt(&self) -> Receipt {
        match self {
            Self::Event(event) => event.receipt(),
            Self::Duplicate(receipt) => receipt.clone(),
        }
    }

    pub(crate) const fn is_duplicate(&self) -> bool {
        matches!(self, Self::Duplicate(_))
    }
}

/// How much a read may return, and how much it may look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadLimits {
    /// Events in the page.
    pub(crate) events_max: usize,
    /// Events that are looked at, wanted or not.
    pub(crate) scan_max: usize,
}

impl ReadLimits {
    /// Enough to learn whether a log goes on after a cursor.
    pub(crate) const CHECK: Self = Self { events_max: 1, scan_max: 1 };
}

/// A consecutive part of a log, reduced to the rooms of an interest.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) events: Vec<Arc<Event>>,
    /// Everything up to here has been looked at.
    pub(crate) cursor: Cursor,
    /// The log went on behind the cursor when it was read.
    pub(crate) more: bool,
}

/// A server of the group, for as long as its process lives: 16 random hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServerId(Arc<str>);

impl ServerId {
    pub(crate) fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()).into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ServerId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// A set of records. Keys are unique within it, and a feed covers one of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    /// One record per server that is alive; they expire.
    Leases,
    /// One record per server and tenant of which the server has sessions.
    Occupancy,
    /// One record per revocation of tokens.
    Revocations,
    /// One record per user of a tenant.
    Users(Tenant),
}

/// A record: a value under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Arc<str>,
    /// Absent in a feed when the record was removed or has expired.
    pub(crate) value: Option<Bytes>,
    /// Grows with every change within the space, removals included. Never 0.
    pub(crate) revision: u64,
}

/// A change of a record, made only if the record is as expected.
#[derive(Debug, Clone)]
pub(crate) struct Replacement {
    /// Absent: removes the record.
    pub(crate) value: Option<Bytes>,
    /// The revision that is replaced; 0 when there must be no record.
    pub(crate) expected: u64,
    /// When the record expires by itself, if it is not replaced before.
    pub(crate) ttl: Option<Duration>,
}

/// What became of a [`Replacement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// It was made, and this is the record's revision now.
    Revision(u64),
    /// The record is not as expected. Nothing was changed.
    Conflict,
}

/// What is used of an engine's limits; absent where the store has the limit, not this process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Bytes of all logs.
    pub(crate) log_bytes: Option<usize>,
    /// What waits to be written, and how much may: of limits per tenant the fullest one.
    pub(crate) waiting: Option<(usize, usize)>,
}

/// The end of a log, and what comes after it.
pub(crate) type Followed = (Cursor, Feed<Arc<Event>>);
/// The records of a space, and what becomes of them.
pub(crate) type Watched = (Vec<Record>, Feed<Record>);

/// Storage that servers share. Per tenant there is one order of events: seqs 1, 2, 3 …, and an
/// epoch that changes when history was lost.
pub(crate) trait Engine: fmt::Debug + Send + Sync + 'static {
    /// The server that this handle belongs to.
    fn server(&self) -> &ServerId;

    /// Appends drafts of one tenant, in their order: idempotency keys are looked up, the others
    /// get their places, are stored as durably as configured, and are announced to followers.
    /// Ephemeral events are announced in the same order and stored nowhere. All of it happens or
    /// nothing does. There is one answer per draft.
    ///
    /// The changes of the current state that drafts carry are part of it. [`Refusal::Revision`] when
    /// an entry has another revision than a draft expects; [`Refusal::StateEntries`] and
    /// [`Refusal::StateBytes`] when the state would become too large.
    ///
    /// After an error it is safe to append the same drafts again; none is stored twice if it has an
    /// idempotency key.
    fn append<'a>(
        &'a self,
        tenant: &'a Tenant,
        batch: Vec<Draft>,
    ) -> BoxFuture<'a, Result<Vec<Appended>, Refusal>>;

    /// The events after `after` that `interest` wants. Sees everything that was acknowledged
    /// anywhere before the call. [`Refusal::Reset`] when the log does not reach back that far, or
    /// has another history there.
    fn read<'a>(
        &'a self,
        tenant: &'a Tenant,
        interest: &'a Interest,
        after: Cursor,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Page, Refusal>>;

    /// The end of the tenant's log. Sees everything that was acknowledged anywhere before the call.
    fn head<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Cursor, Refusal>>;

    /// The cursor of the event with a seq: from there on the log can be read. The oldest cursor that can be
    /// read from when that one is later, and the end of the log when it is earlier.
    fn cursor_at<'a>(&'a self, tenant: &'a Tenant, seq: u64) -> BoxFuture<'a, Result<Cursor, Refusal>>;

    /// Entries of the current state of a room, by key, after a key. Sees everything that was
    /// acknowledged anywhere before the call.
    fn state_entries<'a>(
        &'a self,
        tenant: &'a Tenant,
        room: &'a Room,
        after: Option<&'a str>,
        limits: StateLimits,
    ) -> BoxFuture<'a, Result<StatePage, Refusal>>;

    /// Follows a tenant's log: every event after the cursor, in order, without a gap or a repeat,
    /// whichever server appended it. Ephemeral events are among them. The feed ends when the
    /// engine cannot promise that any longer; then the follower reads the log and follows again.
    fn follow<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Followed, Refusal>>;

    /// Up to so many tenants that have a log, in no particular order.
    fn tenants(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Tenant>, Refusal>>;

    /// A record, if there is one.
    fn record<'a>(&'a self, space: &'a Space, key: &'a str)
    -> BoxFuture<'a, Result<Option<Record>, Refusal>>;

    /// Replaces a record if it is as expected, as durably as events are stored. After an error the
    /// outcome is unknown: read the record.
    fn replace<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
        replacement: Replacement,
    ) -> BoxFuture<'a, Result<Replaced, Refusal>>;

    /// All records of a space, and a feed of every later change, in order per key. When the feed
    /// ends, changes may have been missed: ask again.
    fn records<'a>(&'a self, space: &'a Space) -> BoxFuture<'a, Result<Watched, Refusal>>;

    /// Sends bytes to a server, or to all others: at most once, and soon or never.
    fn signal<'a>(&'a self, to: Option<&'a ServerId>, bytes: Bytes) -> BoxFuture<'a, Result<(), Refusal>>;

    /// The signals to this server from now on. When the feed ends, some were missed: ask again.
    fn signals(&self) -> BoxFuture<'_, Result<Feed<Bytes>, Refusal>>;

    /// What is used of its limits.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// How the store is, as far as the engine can tell within about a second; it says nothing of
    /// the feed. Called once a second at most.
    fn state(&self) -> BoxFuture<'_, EngineState>;

    /// Removes what is too old. Called every few seconds.
    fn sweep(&self) -> BoxFuture<'_, ()>;

    /// Resolves when everything that was acknowledged is where it belongs. No appends follow.
    fn close(&self) -> BoxFuture<'_, ()>;
}
