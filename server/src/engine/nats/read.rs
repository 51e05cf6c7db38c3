//! Reads of the log: finds a cursor's place in its stream, checks that it belongs to the same
//! history, and returns the events after it. The end comes from the leader; earlier frames may come
//! from any replica.

use fanfare_proto::{cursor::Cursor, room::Tenant};

use super::{
    frame::{Frame, Head},
    names::LogName,
    shared::{Attempts, Shared},
    store::{Entry, Start, StoreError},
};
use crate::{
    engine::{Page, ReadLimits},
    error::Refusal,
    interest::Interest,
};

/// Frames per read: the first one, and the maximum. Frames may be large, and most readers only need
/// to know whether the log has anything after their cursor.
const FRAMES_AT_ONCE: (usize, usize) = (4, 64);
/// Once a search is down to this many places, they are read one after the other.
const PLACES_LEFT: u64 = 32;

impl Shared {
    /// See [`crate::engine::Engine::read`].
    pub(super) async fn read(
        &self,
        tenant: &Tenant,
        interest: &Interest,
        after: Cursor,
        limits: ReadLimits,
    ) -> Result<Page, Refusal> {
        let name = self.store.names.log(tenant);
        let mut attempts = Attempts::within(self.config.deadline);
        let mut is_hinted = true;
        loop {
            let (last, place) = self.last_or_first(&name, &mut attempts, "read").await?;
            let head = self.note(tenant, &last, place);
            if after == head.cursor {
                return Ok(Page { events: Vec::new(), cursor: after, more: false });
            }
            if after.epoch != head.cursor.epoch || after.seq >= head.cursor.seq {
                return Err(Refusal::Reset(head.cursor));
            }
            let scan = Scan { shared: self, tenant, name: &name, interest, head, is_hinted };
            match scan.run(after, limits).await {
                Ok(Some(outcome)) => {
                    if !is_hinted {
                        self.places.forget(tenant);
                    }
                    return outcome;
                }
                // The remembered places may belong to a different history.
                Ok(None) if is_hinted => is_hinted = false,
                Ok(None) => return Err(Refusal::Reset(head.cursor)),
                Err(error) => {
                    if !error.is_passing() || !attempts.pause().await {
                        return Err(error.refusal("read"));
                    }
                }
            }
        }
    }

    /// See [`crate::engine::Engine::cursor_at`].
    pub(super) async fn cursor_at(&self, tenant: &Tenant, seq: u64) -> Result<Cursor, Refusal> {
        let (name, interest) = (self.store.names.log(tenant), Interest::default());
        let mut attempts = Attempts::within(self.config.deadline);
        loop {
            let (last, place) = self.last_or_first(&name, &mut attempts, "read").await?;
            let head = self.note(tenant, &last, place);
            let scan = Scan { shared: self, tenant, name: &name, interest: &interest, head, is_hinted: true };
            match scan.cursor_at(seq).await {
                Ok(Some(cursor)) => return Ok(cursor),
                // The remembered places may belong to a different history.
                Ok(None) => self.places.forget(tenant),
                Err(error) if !error.is_passing() => return Err(error.refusal("read")),
                Err(_) => {}
            }
            if !attempts.pause().await {
                return Err(Refusal::Storage("read"));
            }
        }
    }
}

/// A read up to a known end.
struct Scan<'a> {
    shared: &'a Shared,
    tenant: &'a Tenant,
    name: &'a LogName,
    interest: &'a Interest,
    head: Head,
    /// Whether remembered places are used.
    is_hinted: bool,
}

impl Scan<'_> {
    async fn entries(&self, place: u64, count: usize) -> Result<Vec<Entry>, StoreError> {
        let store = &self.shared.store;
        let entries = store.read(&self.name.stream, &self.name.subject, Start::Place(place), count).await?;
        if entries.is_empty() {
            // The end is further on: the replica that answered does not have it yet.
            return Err(StoreError::Unavailable("a replica lags behind".into()));
        }
        Ok(entries)
    }

    /// A page, or the reason why there is none; `None` if the log does not continue the cursor.
    async fn run(
        &self,
        after: Cursor,
        limits: ReadLimits,
    ) -> Result<Option<Result<Page, Refusal>>, StoreError> {
        let mut place = self.locate(after.seq + 1).await?;
        let (mut cursor, mut events, mut scanned) = (after, Vec::new(), 0);
        let mut count = limits.scan_max.clamp(FRAMES_AT_ONCE.0, FRAMES_AT_ONCE.1);
        while cursor.seq < self.head.cursor.seq {
            let entries = self.entries(place, count).await?;
            count = (count * 2).min(FRAMES_AT_ONCE.1);
            for entry in entries {
                place = entry.place + 1;
                let frame = Frame::read(entry.payload)?;
                if frame.last() <= cursor.seq && scanned == 0 {
                    continue;
                }
                if !frame.continues(cursor) {
                    // The next frames were removed meanwhile.
                    let page = Page { events, cursor, more: true };
                    return Ok((scanned > 0).then_some(Ok(page)));
                }
                self.shared.places.insert(self.tenant, frame.first, entry.place);
                let (epoch_and_tag, first) = (frame.cursor(0), frame.first);
                let skip = usize::try_from(cursor.seq + 1 - first).unwrap_or(usize::MAX);
                for (seq, entry) in (first..).zip(frame.events).skip(skip) {
                    let (before, stored) = (cursor, entry.event);
                    scanned += 1;
                    cursor = Cursor { seq, ..epoch_and_tag };
                    if self.interest.wants_at(seq, stored.rooms.iter().map(String::as_str)) {
                        match self.shared.event(self.tenant, cursor, stored) {
                            Ok(event) => events.push(event),
                            Err(refusal) if events.is_empty() => return Ok(Some(Err(refusal))),
                            // The events before it are returned first.
                            Err(_) => return Ok(Some(Ok(Page { events, cursor: before, more: true }))),
                        }
                    }
                    if events.len() >= limits.events_max || scanned >= limits.scan_max {
                        let more = seq < self.head.cursor.seq;
                        return Ok(Some(Ok(Page { events, cursor, more })));
                    }
                }
            }
        }
        Ok(Some(Ok(Page { events, cursor, more: false })))
    }

    /// The cursor at a seq, or at the nearest one; `None` if the frames do not lead there.
    async fn cursor_at(&self, seq: u64) -> Result<Option<Cursor>, StoreError> {
        let end = self.head.cursor;
        if seq >= end.seq {
            return Ok(Some(end));
        }
        let mut place = self.locate(seq.max(1)).await?;
        while place <= self.head.place {
            for entry in self.entries(place, FRAMES_AT_ONCE.0).await? {
                place = entry.place + 1;
                let frame = Frame::read(entry.payload)?;
                if frame.epoch != end.epoch.number() {
                    return Ok(None);
                }
                // The first frame of a log holds no events: it marks the beginning of the log.
                let is_start = frame.events.is_empty() && frame.last() == seq;
                if frame.first > seq && !is_start {
                    // This frame is the oldest, or begins just after the seq.
                    let before = frame.first.saturating_sub(1);
                    return Ok(Some(Cursor { seq: before, tag: frame.previous, ..end }));
                }
                if frame.last() >= seq {
                    return Ok(Some(frame.cursor(seq)));
                }
            }
        }
        Ok(None)
    }

    /// A place from which few frames lead to the one that holds a seq.
    async fn locate(&self, seq: u64) -> Result<u64, StoreError> {
        let mut low = None;
        let hint = self.shared.places.before(self.tenant, seq).filter(|_| self.is_hinted);
        if let Some(place) = hint {
            for entry in self.entries(place, 2).await? {
                if Frame::read(entry.payload)?.last() >= seq {
                    return Ok(place);
                }
                low = Some(entry.place);
            }
        }
        // A stream does not begin at place 1.
        let mut low = match low {
            Some(place) => place,
            None => self.entries(1, 1).await?.first().map_or(1, |entry| entry.place),
        };
        let mut end = self.head.place + 1;
        while end.saturating_sub(low) > PLACES_LEFT {
            let middle = low + (end - low) / 2;
            let Some(entry) = self.entries(middle, 1).await?.pop() else { break };
            let frame = Frame::read(entry.payload)?;
            self.shared.places.insert(self.tenant, frame.first, entry.place);
            if frame.first > seq {
                end = middle;
            } else if frame.last() >= seq {
                return Ok(entry.place);
            } else {
                low = entry.place;
            }
        }
        Ok(low)
    }
}
