//! The engine: the only interface to storage. It provides what servers share: each tenant's log,
//! records with compare-and-set, and signals between servers. Shared data must not live in the
//! memory of one server alone.
//!
//! An engine does not call other modules: the hub follows logs, and presence follows records.
//! Servers on the same store each have their own engine, a handle with a [`ServerId`].

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

/// The tenant of the server's own events, which prove that events are delivered. No token can name
/// this tenant, and it counts towards no limit.
pub(crate) const OWN_TENANT: &str = "fanfare-server";

/// The answer to the append of one draft.
#[derive(Debug, Clone)]
pub(crate) enum Appended {
    /// The event is in the log. An ephemeral event was passed on.
    Event(Arc<Event>),
    /// The receipt of the first event with the same idempotency key.
    Duplicate(Receipt),
}

/// The place of an event in its log.
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

/// Limits of a read: how many events it returns and how many it scans.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadLimits {
    /// Events per page.
    pub(crate) events_max: usize,
    /// Events that are scanned, wanted or not.
    pub(crate) scan_max: usize,
}

impl ReadLimits {
    /// Enough to check whether a log can be read after a cursor.
    pub(crate) const CHECK: Self = Self { events_max: 1, scan_max: 1 };
}

/// A consecutive part of a log, filtered by an interest.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) events: Vec<Arc<Event>>,
    /// Everything up to here was scanned.
    pub(crate) cursor: Cursor,
    /// The log had further events after the cursor when it was read.
    pub(crate) more: bool,
}

/// The id of a server of the group, valid while its process runs: 16 random hexadecimal digits.
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

/// A set of records. Keys are unique within a space, and a feed covers one space.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    /// One record per running server. These records expire.
    Leases,
    /// One record per server and tenant, if the server has sessions of the tenant.
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
    /// In a feed, `None` if the record was removed or has expired.
    pub(crate) value: Option<Bytes>,
    /// Grows with every change in the space, including removals. Never 0.
    pub(crate) revision: u64,
}

/// A change of a record, made only if the record has the expected revision.
#[derive(Debug, Clone)]
pub(crate) struct Replacement {
    /// `None` removes the record.
    pub(crate) value: Option<Bytes>,
    /// The revision to replace; 0 if there must be no record.
    pub(crate) expected: u64,
    /// After this time the record expires, unless it is replaced before.
    pub(crate) ttl: Option<Duration>,
}

/// The result of a [`Replacement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// The change was made, and the record now has this revision.
    Revision(u64),
    /// The record does not have the expected revision. Nothing was changed.
    Conflict,
}

/// The usage of an engine's limits. `None` if the store, not this process, has the limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Bytes of all logs.
    pub(crate) log_bytes: Option<usize>,
    /// The amount that waits to be written, and its limit. For limits per tenant: those of the
    /// fullest one.
    pub(crate) waiting: Option<(usize, usize)>,
}

/// The end of a log, and a feed of what follows.
pub(crate) type Followed = (Cursor, Feed<Arc<Event>>);
/// The records of a space, and a feed of their changes.
pub(crate) type Watched = (Vec<Record>, Feed<Record>);

/// Storage that servers share. Each tenant has one order of events: seqs 1, 2, 3 …, and an epoch
/// that changes when history was lost.
pub(crate) trait Engine: fmt::Debug + Send + Sync + 'static {
    /// The server that this handle belongs to.
    fn server(&self) -> &ServerId;

    /// Appends drafts of one tenant in order. Drafts with a known idempotency key are answered with
    /// the first receipt. The others get their places, are stored as durably as configured, and are
    /// announced to followers. Ephemeral events are announced in the same order but not stored. The
    /// append is atomic: either all of it happens or nothing does. There is one answer per draft.
    ///
    /// Changes of the current state are part of the append. [`Refusal::Revision`] if an entry has
    /// another revision than a draft expects; [`Refusal::StateEntries`] and [`Refusal::StateBytes`]
    /// if the state would become too large.
    ///
    /// After an error it is safe to append the same drafts again: a draft with an idempotency key
    /// is not stored twice.
    fn append<'a>(
        &'a self,
        tenant: &'a Tenant,
        batch: Vec<Draft>,
    ) -> BoxFuture<'a, Result<Vec<Appended>, Refusal>>;

    /// Reads the events after `after` that `interest` wants. Includes everything that was
    /// acknowledged on any server before the call. [`Refusal::Reset`] if the log does not reach
    /// back that far or has another history there.
    fn read<'a>(
        &'a self,
        tenant: &'a Tenant,
        interest: &'a Interest,
        after: Cursor,
        limits: ReadLimits,
    ) -> BoxFuture<'a, Result<Page, Refusal>>;

    /// The end of the tenant's log. Includes everything that was acknowledged on any server before
    /// the call.
    fn head<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Cursor, Refusal>>;

    /// The cursor of the event with a seq, from which the log can be read. If that event is older
    /// than the oldest readable cursor, returns the oldest readable cursor; if the seq is after the
    /// end of the log, returns the end.
    fn cursor_at<'a>(&'a self, tenant: &'a Tenant, seq: u64) -> BoxFuture<'a, Result<Cursor, Refusal>>;

    /// Entries of the current state of a room, sorted by key, after a key. Includes everything that
    /// was acknowledged on any server before the call.
    fn state_entries<'a>(
        &'a self,
        tenant: &'a Tenant,
        room: &'a Room,
        after: Option<&'a str>,
        limits: StateLimits,
    ) -> BoxFuture<'a, Result<StatePage, Refusal>>;

    /// Follows a tenant's log: every event after the returned cursor, in order, without a gap or a
    /// repeat, from any server, including ephemeral events. The feed ends when the engine can no
    /// longer guarantee this; then the follower reads the log and follows again.
    fn follow<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Followed, Refusal>>;

    /// At most `limit` tenants that have a log, in no particular order.
    fn tenants(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Tenant>, Refusal>>;

    /// A record, if it exists.
    fn record<'a>(&'a self, space: &'a Space, key: &'a str)
    -> BoxFuture<'a, Result<Option<Record>, Refusal>>;

    /// Replaces a record if it has the expected revision, as durably as events are stored. After an
    /// error, the outcome is unknown: read the record.
    fn replace<'a>(
        &'a self,
        space: &'a Space,
        key: &'a str,
        replacement: Replacement,
    ) -> BoxFuture<'a, Result<Replaced, Refusal>>;

    /// All records of a space, and a feed of every later change, in order per key. When the feed
    /// ends, changes may have been missed: call this again.
    fn records<'a>(&'a self, space: &'a Space) -> BoxFuture<'a, Result<Watched, Refusal>>;

    /// Sends bytes to one server or to all others. A signal arrives at most once, and soon or
    /// never.
    fn signal<'a>(&'a self, to: Option<&'a ServerId>, bytes: Bytes) -> BoxFuture<'a, Result<(), Refusal>>;

    /// The signals to this server from now on. When the feed ends, some were missed: call this
    /// again.
    fn signals(&self) -> BoxFuture<'_, Result<Feed<Bytes>, Refusal>>;

    /// The usage of the engine's limits.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// The state of the store, as far as the engine can determine it within about a second. The
    /// state of the feed is not included. Called at most once per second.
    fn state(&self) -> BoxFuture<'_, EngineState>;

    /// Removes expired data. Called every few seconds.
    fn sweep(&self) -> BoxFuture<'_, ()>;

    /// Resolves when everything that was acknowledged is durable, as configured. No appends follow.
    fn close(&self) -> BoxFuture<'_, ()>;
}
