//! The engine's seam before it could be shared. It goes as soon as nothing uses it.

use std::{fmt, sync::Arc};

use fanfare_proto::{cursor::Cursor, room::Tenant};
use futures_util::{FutureExt as _, future::BoxFuture};
use prost_types::Timestamp;

use crate::{
    error::Refusal,
    event::{Draft, Event},
    interest::Interest,
};

/// The answer to an append.
#[derive(Debug, Clone)]
pub(crate) struct OldAppended {
    pub(crate) id: String,
    pub(crate) seq: u64,
    pub(crate) time: Timestamp,
    pub(crate) duplicate: bool,
}

impl OldAppended {
    /// The first answer to the append of an event.
    pub(crate) fn to(event: &Event) -> Self {
        Self { id: event.id.clone(), seq: event.seq, time: event.draft.time, duplicate: false }
    }
}

/// What an append that has begun will come to.
pub(crate) type Answer = BoxFuture<'static, Result<OldAppended, Refusal>>;

/// Some consecutive part of a log, reduced to some rooms.
#[derive(Debug)]
pub(crate) struct OldPage {
    pub(crate) events: Vec<Arc<Event>>,
    /// Everything up to this seq has been looked at.
    pub(crate) upto: u64,
}

/// Storage of logs. Per tenant: one order, `seq` 1, 2, 3 … without holes, an epoch that changes when history was
/// lost. An engine hands every appended event to the hub exactly once, in log order, before
/// it answers the append.
pub(crate) trait OldEngine: fmt::Debug + Send + Sync + 'static {
    /// Begins to store the event (ephemeral ones only pass through). Events that are begun one after the other are in
    /// the log in this order; what becomes of them may be awaited together. A known idempotency key gets its
    /// first answer again.
    fn begin(&self, draft: Draft) -> BoxFuture<'_, Result<Answer, Refusal>>;

    /// Stores the event and gives it its place.
    fn append(&self, draft: Draft) -> BoxFuture<'_, Result<OldAppended, Refusal>> {
        async move { self.begin(draft).await?.await }.boxed()
    }

    /// The events after `after` that `interest` wants, at most `limit`; [`Refusal::Reset`] when the log does
    /// not reach back that far or has another epoch.
    fn read<'a>(
        &'a self,
        tenant: &'a Tenant,
        interest: &'a Interest,
        after: Cursor,
        limit: usize,
    ) -> BoxFuture<'a, Result<OldPage, Refusal>>;

    /// The end of the tenant's log.
    fn head<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<Cursor, Refusal>>;

    /// The tenants that have a log, in no particular order.
    fn tenants(&self) -> Vec<Tenant>;

    /// Keeps records of sessions by key, or lets go of them, as durably as events.
    fn keep(&self, records: Arc<[OldRecord]>) -> BoxFuture<'_, Result<(), Refusal>>;

    /// The records that were kept before this process began.
    fn kept(&self) -> Vec<(String, Vec<u8>)>;

    /// Lets go of what is too old, in all logs. Called now and then; appends do it for their own log.
    fn sweep(&self);

    /// Resolves when everything is where it belongs; no appends follow.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What is kept under a key; nothing: let go of.
pub(crate) type OldRecord = (String, Option<Vec<u8>>);
