//! Stored events, newest first: the only reader that reads the log backwards.
//!
//! A page is limited in events, bytes and the part of the log that is searched. Only a few pages
//! per caller are read concurrently. Knows nothing of permissions and protocols.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_proto::{cursor::Cursor, room::Tenant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    engine::{Engine, ReadLimits},
    error::Refusal,
    event::Event,
    interest::Interest,
};

/// Events of the log per read.
const READ_MAX: usize = 1000;
/// Maximum number of attempts to read a part of the log that is being trimmed.
const ATTEMPTS_MAX: usize = 3;
/// Pages per caller that are read concurrently. Further ones wait for their turn.
const READERS_PER_CALLER_MAX: usize = 2;

/// Reads tenants' logs backwards.
#[derive(Debug)]
pub(crate) struct History {
    engine: Arc<dyn Engine>,
    readers: Arc<Readers>,
}

/// The reader of a page: a tenant, and a user or service of it.
pub(crate) type Reader = (String, String);

/// The callers that currently read.
#[derive(Debug, Default)]
struct Readers(Mutex<HashMap<Reader, Arc<Semaphore>>>);

/// A caller's turn to read.
#[derive(Debug)]
struct Turn {
    readers: Arc<Readers>,
    reader: Reader,
    permit: Option<OwnedSemaphorePermit>,
}

/// The limits of a page, and of the part of the log that is searched for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageLimits {
    pub(crate) events_max: usize,
    /// Exceeded only by a single larger event.
    pub(crate) bytes_max: usize,
    pub(crate) scan_max: usize,
}

impl PageLimits {
    /// Bytes per page for gRPC callers.
    pub(crate) const BYTES_MAX: usize = 1 << 20;
    /// Events of the log that are searched per page.
    pub(crate) const SCAN_MAX: usize = 10_000;
}

/// Where a page begins. Empty means at the newest event.
pub(crate) fn before(text: &str) -> Result<Option<Cursor>, Refusal> {
    Cursor::after(text).map_err(|error| Refusal::Invalid(format!("before: {error}")))
}

/// A page of events.
#[derive(Debug)]
pub(crate) struct HistoryPage {
    /// Newest first.
    pub(crate) events: Vec<Arc<Event>>,
    /// The highest seq that an older event can have; 0 if there are no older events.
    pub(crate) next: u64,
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Reader, Arc<Semaphore>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the caller may read another page.
    async fn turn(self: &Arc<Self>, reader: Reader) -> Turn {
        let places = {
            let mut readers = self.lock();
            let new = || Arc::new(Semaphore::new(READERS_PER_CALLER_MAX));
            readers.entry(reader.clone()).or_insert_with(new).clone()
        };
        // Created before waiting, so that the entry is also removed if the caller gives up.
        let mut turn = Turn { readers: self.clone(), reader, permit: None };
        turn.permit = places.acquire_owned().await.ok();
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut readers = self.readers.lock();
        // Waiting callers hold a reference too.
        let is_idle = |places: &Arc<Semaphore>| {
            Arc::strong_count(places) == 1 && places.available_permits() == READERS_PER_CALLER_MAX
        };
        if readers.get(&self.reader).is_some_and(is_idle) {
            readers.remove(&self.reader);
        }
    }
}

impl History {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, readers: Arc::default() }
    }

    /// The newest events before a cursor that match the interest and `wants`. Also returns the
    /// cursor of the next page; `None` if there are no older events.
    pub(crate) async fn page(
        &self,
        reader: Reader,
        tenant: &Tenant,
        interest: &Interest,
        before: Option<Cursor>,
        limits: PageLimits,
        wants: impl Fn(&Event) -> bool + Send + Sync,
    ) -> Result<(HistoryPage, Option<Cursor>), Refusal> {
        let _turn = self.readers.turn(reader).await;
        let head = self.engine.head(tenant).await?;
        let until = match before {
            None => head.seq,
            Some(before) if before.epoch == head.epoch && before.seq <= head.seq.saturating_add(1) => {
                before.seq.saturating_sub(1)
            }
            Some(_) => return Err(Refusal::Reset(head)),
        };
        let page = self.read(tenant, interest, until, limits, wants).await?;
        let next = (page.next > 0).then(|| Cursor::new(head.epoch, page.next + 1));
        Ok((page, next))
    }

    /// Like [`Self::page`], for events with a seq up to `until` and a caller whose turn it is.
    pub(crate) async fn read(
        &self,
        tenant: &Tenant,
        interest: &Interest,
        until: u64,
        limits: PageLimits,
        wants: impl Fn(&Event) -> bool + Send + Sync,
    ) -> Result<HistoryPage, Refusal> {
        let mut page = HistoryPage { events: Vec::new(), next: until };
        let (mut searched, mut bytes) = (0, 0);
        while page.next > 0 && searched < limits.scan_max {
            let (events_left, bytes_left) =
                (limits.events_max - page.events.len(), limits.bytes_max.saturating_sub(bytes));
            if events_left == 0 || bytes_left == 0 {
                break;
            }
            let span = READ_MAX.min(limits.scan_max - searched);
            let is_first = page.events.is_empty();
            let part = Part { events_left, bytes_left, is_first, span };
            let found = self.part(tenant, interest, page.next, part, &wants).await?;
            searched += span;
            bytes += found.bytes;
            page.events.extend(found.events.into_iter().rev());
            page.next = found.next;
            if found.is_full {
                break;
            }
        }
        Ok(page)
    }

    /// Searches the part of the log that ends with a seq.
    async fn part(
        &self,
        tenant: &Tenant,
        interest: &Interest,
        until: u64,
        part: Part,
        wants: &(impl Fn(&Event) -> bool + Send + Sync),
    ) -> Result<Found, Refusal> {
        let mut attempts = 1;
        loop {
            match self.try_part(tenant, interest, until, part, wants).await {
                // The beginning of the part was trimmed while it was read.
                Err(Refusal::Reset(_)) if attempts < ATTEMPTS_MAX => attempts += 1,
                other => return other,
            }
        }
    }

    async fn try_part(
        &self,
        tenant: &Tenant,
        interest: &Interest,
        until: u64,
        part: Part,
        wants: &(impl Fn(&Event) -> bool + Send + Sync),
    ) -> Result<Found, Refusal> {
        let from = until.saturating_sub(part.span as u64);
        let mut cursor = self.engine.cursor_at(tenant, from).await?;
        // Events before the oldest one in the log cannot be read.
        let next = if cursor.seq == from { from } else { 0 };
        let mut found = Found { events: VecDeque::new(), bytes: 0, next, is_full: false };
        while cursor.seq < until {
            let limits = ReadLimits { events_max: READ_MAX, scan_max: READ_MAX };
            let page = self.engine.read(tenant, interest, cursor, limits).await?;
            let events = page.events.into_iter().filter(|event| event.seq <= until && wants(event));
            events.for_each(|event| found.take(event, part));
            if page.cursor == cursor || !page.more {
                break;
            }
            cursor = page.cursor;
        }
        Ok(found)
    }
}

/// A part of the log to search, and the remaining limits of the page.
#[derive(Debug, Clone, Copy)]
struct Part {
    events_left: usize,
    bytes_left: usize,
    /// The page has no event yet, so it takes one of any size.
    is_first: bool,
    /// The number of events to search.
    span: usize,
}

/// The newest matching events of a part.
#[derive(Debug)]
struct Found {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The highest seq that an older event can have.
    next: u64,
    /// There were more events than the page can take.
    is_full: bool,
}

impl Found {
    fn take(&mut self, event: Arc<Event>, part: Part) {
        self.bytes += event.cost_bytes();
        self.events.push_back(event);
        let least = usize::from(part.is_first);
        while self.events.len() > part.events_left
            || (self.bytes > part.bytes_left && self.events.len() > least)
        {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.cost_bytes());
            self.next = oldest.seq;
            self.is_full = true;
        }
    }
}

#[cfg(test)]
mod tests;
