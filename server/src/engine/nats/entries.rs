//! The current state of rooms. Each entry is a record of its own, and one more record per tenant
//! stores the place in the log up to which the entries are current. Appends do not write entries.
//! Before a server reads the state, validates a change of it, or trims the log, it brings the
//! entries up to the newest event of the log that changes the state. So a crash loses no change,
//! and several servers may do this at once: an older event never replaces an entry.

use std::{collections::HashMap, sync::Arc};

use fanfare_proto::{
    cursor::{Cursor, Epoch},
    room::{Room, Tenant},
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use prost::Message;

use super::{
    frame::Head,
    names::{text, token},
    setup::REMOVAL_SECONDS,
    shared::{Attempts, Shared, now_millis},
    store::{Entry, Extras, StoreError},
};
use crate::{
    engine::{
        ReadLimits, StateEntry, StateLimits, StatePage, StoredEvent,
        entries::{EntryKey, PageBuilder, StateIndex, is_over},
    },
    error::Refusal,
    event::Event,
    interest::Interest,
};

/// Entries that are read or written concurrently.
const AT_ONCE: usize = 32;
/// Maximum number of entries in a listing, including those removed recently.
const LISTED_MAX: usize = 1_000_000;
/// Limits of one read of the log.
const READ: ReadLimits = ReadLimits { events_max: 1024, scan_max: 1024 };
/// How much longer a record is stored than its entry lasts, because the clocks of servers differ.
const ENDED_SECONDS: u64 = 60;

/// A stored entry, or the place up to which the entries of a tenant are current.
#[derive(Clone, PartialEq, Message)]
struct StateRecord {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(fixed64, tag = "3")]
    tag: u64,
    /// Absent: the entry was removed.
    #[prost(message, optional, tag = "4")]
    event: Option<StoredEvent>,
}

impl StateRecord {
    fn at(cursor: Cursor, event: Option<StoredEvent>) -> Self {
        Self { epoch: cursor.epoch.number(), seq: cursor.seq, tag: cursor.tag, event }
    }

    fn cursor(&self) -> Cursor {
        Cursor { epoch: Epoch::kept(self.epoch), seq: self.seq, tag: self.tag }
    }

    fn read(entry: Entry) -> Result<Self, StoreError> {
        Self::decode(entry.payload).map_err(|_| StoreError::Damaged)
    }

    fn expires_at(&self) -> Option<u64> {
        self.event.as_ref()?.state.as_ref()?.expires_at
    }
}

impl Shared {
    /// See [`crate::engine::Engine::state_entries`].
    pub(super) async fn state_entries(
        &self,
        tenant: &Tenant,
        room: &Room,
        after: Option<&str>,
        limits: StateLimits,
    ) -> Result<StatePage, Refusal> {
        let head = self.end_of(tenant).await?;
        let mut page = PageBuilder::new(limits);
        if head.state == 0 {
            return Ok(page.finish(head.cursor, false));
        }
        self.bring_state(tenant, head).await?;
        let stream = self.store.names.records_stream();
        let prefix = self.store.names.state_of_room(tenant, room.as_str());
        let subjects = self.store.subjects(&stream, &format!("{prefix}*"), LISTED_MAX).await;
        let subjects = subjects.map_err(|error| error.refusal("read"))?;
        let key = |subject: String| text(subject.strip_prefix(&prefix)?);
        let mut keys: Vec<String> = subjects.into_iter().filter_map(key).collect();
        keys.retain(|key| after.is_none_or(|after| key.as_str() > after));
        keys.sort_unstable();
        let read = keys.into_iter().map(|key| {
            let subject = format!("{prefix}{}", token(&key));
            let (store, stream) = (&self.store, stream.as_str());
            async move { store.last(stream, &subject).await.map(|entry| (key, entry)) }
        });
        let mut read = futures_util::stream::iter(read).buffered(AT_ONCE);
        let (mut more, now) = (false, now_millis());
        while let Some((key, entry)) = read.try_next().await.map_err(|error| error.refusal("read"))? {
            let Some(entry) = entry.filter(|entry| !entry.is_removal) else { continue };
            let record = StateRecord::read(entry).map_err(|error| error.refusal("read"))?;
            let (place, expires_at) = (record.cursor(), record.expires_at());
            if place.epoch != head.cursor.epoch || is_over(expires_at, now) {
                continue;
            }
            let Some(stored) = record.event else { continue };
            more = !page.fits(stored.payload.len());
            if more {
                break;
            }
            page.push(StateEntry { event: self.event(tenant, place, stored)?, key, expires_at });
        }
        Ok(page.finish(head.cursor, more))
    }

    /// The end of a tenant's log, read from the leader.
    async fn end_of(&self, tenant: &Tenant) -> Result<Head, Refusal> {
        let name = self.store.names.log(tenant);
        let mut attempts = Attempts::within(self.config.deadline);
        let (last, place) = self.last_or_first(&name, &mut attempts, "read").await?;
        Ok(self.note(tenant, &last, place))
    }

    /// All entries of a tenant at the end of its log. Some may be newer than that.
    pub(super) async fn load_state(&self, tenant: &Tenant, head: Head) -> Result<StateIndex<()>, Refusal> {
        let mut index = StateIndex::default();
        if head.state == 0 {
            // Earlier events need not be read.
            self.note_reached(tenant, head.cursor).await.map_err(|error| error.refusal("read"))?;
            return Ok(index);
        }
        self.bring_state(tenant, head).await?;
        let names = &self.store.names;
        let (stream, filter) = (names.records_stream(), names.state_of_tenant(tenant));
        let subjects = self.store.subjects(&stream, &filter, LISTED_MAX).await;
        let subjects = subjects.map_err(|error| error.refusal("read"))?;
        let read = subjects.into_iter().map(|subject| {
            let (store, stream) = (&self.store, stream.as_str());
            async move { store.last(stream, &subject).await.map(|entry| (subject, entry)) }
        });
        let mut read = futures_util::stream::iter(read).buffer_unordered(AT_ONCE);
        while let Some((subject, entry)) = read.try_next().await.map_err(|error| error.refusal("read"))? {
            let Some(entry) = entry.filter(|entry| !entry.is_removal) else { continue };
            let record = StateRecord::read(entry).map_err(|error| error.refusal("read"))?;
            let mut tokens = subject.rsplit('.').map(text);
            let (Some(Some(key)), Some(Some(room))) = (tokens.next(), tokens.next()) else { continue };
            let (seq, expires_at) = (record.seq, record.expires_at());
            if record.epoch != head.cursor.epoch.number() {
                continue;
            }
            if let Some(event) = record.event {
                index.put(EntryKey { room, key }, seq, event.payload.len(), expires_at, ());
            }
        }
        Ok(index)
    }

    /// Brings the entries up to the newest event of the log that changes the state, unless they are
    /// current.
    pub(super) async fn bring_state(&self, tenant: &Tenant, head: Head) -> Result<(), Refusal> {
        let (stream, subject) = (self.store.names.records_stream(), self.store.names.state_reached(tenant));
        let failed = |error: StoreError| error.refusal("read");
        let reached = self.store.last(&stream, &subject).await.map_err(failed)?;
        let reached = reached.map(StateRecord::read).transpose().map_err(failed)?;
        let reached = reached.map(|reached| reached.cursor());
        let reached = reached.filter(|reached| reached.epoch == head.cursor.epoch);
        if reached.is_some_and(|reached| reached.seq >= head.state) {
            return Ok(());
        }
        let mut after = match reached {
            Some(reached) => reached,
            None => self.cursor_at(tenant, 0).await?,
        };
        while after.seq < head.state {
            let page = match self.read(tenant, &Interest::everything(), after, READ).await {
                Ok(page) => page,
                Err(Refusal::Reset(_)) => {
                    // The log no longer reaches back to that place, so all of its events are
                    // applied.
                    let oldest = self.cursor_at(tenant, 0).await?;
                    if oldest.epoch != head.cursor.epoch || oldest == after {
                        return Err(Refusal::Storage("read"));
                    }
                    tracing::warn!(%tenant, from = %after, to = %oldest, "changes of the state are lost");
                    after = oldest;
                    continue;
                }
                Err(other) => return Err(other),
            };
            if page.cursor == after {
                return Err(Refusal::Storage("read"));
            }
            self.write_entries(tenant, &page.events).await.map_err(failed)?;
            after = page.cursor;
            self.note_reached(tenant, after).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Writes the changes of events: for each entry, only the newest.
    async fn write_entries(&self, tenant: &Tenant, events: &[Arc<Event>]) -> Result<(), StoreError> {
        let mut newest: HashMap<(&str, &str), &Arc<Event>> = HashMap::new();
        for event in events {
            let Some(change) = &event.draft.state else { continue };
            newest.extend(event.rooms().iter().map(|room| ((room.as_str(), change.key.as_str()), event)));
        }
        let writes = newest.into_iter().map(|((room, key), event)| {
            let prefix = self.store.names.state_of_room(tenant, room);
            (format!("{prefix}{}", token(key)), event.clone())
        });
        let writes: Vec<_> = writes.collect();
        let writes = writes.into_iter().map(|(subject, event)| self.write_entry(subject, event));
        futures_util::stream::iter(writes).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Writes an entry, unless there is a newer one.
    async fn write_entry(&self, subject: String, event: Arc<Event>) -> Result<(), StoreError> {
        let (Some(change), Ok(cursor)) = (&event.draft.state, event.id.parse::<Cursor>()) else {
            return Ok(());
        };
        let stored = (!change.is_removal).then(|| StoredEvent::of(&event.draft, 0, 0));
        let lasting = |end: u64| end.saturating_sub(now_millis()) / 1000 + ENDED_SECONDS;
        let ttl_seconds = match change.expires_at {
            _ if change.is_removal => Some(REMOVAL_SECONDS),
            end => end.map(lasting),
        };
        let extras = Extras { is_removal: change.is_removal, ttl_seconds };
        // The payload already contains the id.
        let stored = stored.map(|stored| StoredEvent { id_field: None, ..stored });
        let record = StateRecord::at(cursor, stored).encode_to_vec();
        let is_newer = |held: &StateRecord| held.epoch == cursor.epoch.number() && held.seq >= cursor.seq;
        self.write_unless(subject, record, extras, is_newer).await
    }

    /// Records the place up to which the entries are current.
    async fn note_reached(&self, tenant: &Tenant, cursor: Cursor) -> Result<(), StoreError> {
        let subject = self.store.names.state_reached(tenant);
        let record = StateRecord::at(cursor, None).encode_to_vec();
        let is_further = |held: &StateRecord| held.epoch == cursor.epoch.number() && held.seq >= cursor.seq;
        self.write_unless(subject, record, Extras::default(), is_further).await
    }

    /// Writes a record, unless the stored one makes the write unnecessary.
    async fn write_unless(
        &self,
        subject: String,
        record: Vec<u8>,
        extras: Extras,
        is_needless: impl Fn(&StateRecord) -> bool,
    ) -> Result<(), StoreError> {
        let stream = self.store.names.records_stream();
        let mut attempts = Attempts::within(self.config.request_timeout);
        loop {
            let held = self.store.last(&stream, &subject).await?;
            let place = held.as_ref().map_or(0, |held| held.place);
            // The mark of an expired record has no content.
            if held.is_some_and(|held| StateRecord::read(held).is_ok_and(|held| is_needless(&held))) {
                return Ok(());
            }
            match self.store.publish(subject.clone(), record.clone().into(), place, extras).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict) if attempts.pause().await => {}
                Err(error) => return Err(error),
            }
        }
    }
}
