//! A subscription: a position in a tenant's events, and the rooms it wants.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use fanfare_proto::{
    cursor::Cursor,
    room::{Room, Tenant},
};

use super::{
    Hub,
    channel::{Channel, Inbox, Listener},
};
use crate::{
    engine::{Page, ReadLimits},
    error::Refusal,
    event::Event,
    interest::{Interest, Since},
};

/// Maximum number of events per batch.
const BATCH_EVENTS_MAX: usize = 512;
/// Maximum number of bytes per batch, unless a single event is larger.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Bounds of one read of the log. Other subscriptions are served between two reads.
const READ: ReadLimits = ReadLimits { events_max: BATCH_EVENTS_MAX, scan_max: 4096 };

/// Where a subscription reads next.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The log, after this cursor.
    Log(Cursor),
    /// The window, from `position`. Events of the log up to the cursor are skipped, because the
    /// window may lag behind what was already read from the log.
    Live { position: u64, cursor: Cursor },
}

/// Consecutive wanted events. Empty if there was nothing to read.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Arc<Event>>,
    /// The place reached: every wanted event before it has been returned.
    pub(crate) cursor: Cursor,
    /// More can be read immediately.
    pub(crate) more: bool,
}

/// A live read that can be resumed. Dropping it ends the subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Arc<Hub>,
    channel: Arc<Channel>,
    listener: Arc<Listener>,
    interest: Interest,
    place: Place,
    /// The history that `place` belongs to.
    generation: u64,
    /// Events per read of the log: fewer if events are large.
    page_events: usize,
}

impl Subscription {
    /// Begins after `after`, or at the end of the log without it. `inbox` returns `key` when there
    /// is something to read.
    pub(crate) async fn open(
        hub: &Arc<Hub>,
        tenant: &Tenant,
        rooms: Vec<Room>,
        after: Option<Cursor>,
        inbox: &Arc<Inbox>,
        key: u64,
    ) -> Result<Self, Refusal> {
        let channel = hub.channel(tenant).await?;
        let listener = Arc::new(Listener { ready: AtomicBool::new(false), key, inbox: inbox.clone() });
        let start = match after {
            None => hub.engine().head(tenant).await?,
            Some(after) => {
                // Refuses now if the log does not reach back to this cursor.
                let nothing = Interest::default();
                hub.engine().read(tenant, &nothing, after, ReadLimits::CHECK).await?;
                after
            }
        };
        let generation = channel.lock().generation;
        let (hub, place) = (hub.clone(), Place::Log(start));
        let mut subscription = Self {
            hub,
            channel,
            listener,
            interest: Interest::default(),
            place,
            generation,
            page_events: BATCH_EVENTS_MAX,
        };
        if after.is_none() {
            subscription.skip_to(start);
        }
        subscription.add(rooms);
        Ok(subscription)
    }

    pub(crate) fn tenant(&self) -> &Tenant {
        self.channel.tenant()
    }

    /// Adds rooms from the place reached: every event of these rooms later than [`Self::cursor`]
    /// will be read. Read to the end first; otherwise events from before this call are returned
    /// too.
    pub(crate) fn add(&mut self, rooms: Vec<Room>) {
        let since = match self.place {
            Place::Log(cursor) => Since { position: 0, seq: cursor.seq },
            Place::Live { position, cursor } => Since { position, seq: cursor.seq },
        };
        self.add_since(rooms, since);
        self.listener.wake();
    }

    fn add_since(&mut self, rooms: Vec<Room>, since: Since) {
        let mut state = self.channel.lock();
        for room in rooms {
            if self.interest.add(room.clone(), since) {
                state.listen(room, &self.listener);
            }
        }
    }

    /// Adds all rooms, from the place reached.
    pub(crate) fn add_everything(&mut self) {
        if !self.interest.is_everything() {
            self.interest.add_everything();
            self.channel.lock().listen_to_everything(&self.listener);
        }
        self.listener.wake();
    }

    pub(crate) fn remove(&mut self, rooms: &[Room]) {
        let mut state = self.channel.lock();
        for room in rooms {
            if self.interest.remove(room) {
                state.unlisten(room, &self.listener);
            }
        }
    }

    /// Skips to the end of the window.
    pub(crate) fn skip_to_end(&mut self) {
        self.skip_to(self.cursor());
    }

    /// Skips to the end of the window or to `cursor`, whichever is later.
    fn skip_to(&mut self, cursor: Cursor) {
        let state = self.channel.lock();
        let cursor = later(cursor, state.window.head());
        self.place = Place::Live { position: state.window.end(), cursor };
    }

    pub(crate) fn room_count(&self) -> usize {
        self.interest.rooms().len()
    }

    #[cfg(test)]
    pub(super) fn channel_listeners(&self) -> usize {
        self.channel.lock().rooms_with_listeners()
    }

    /// The place reached so far.
    pub(crate) const fn cursor(&self) -> Cursor {
        let (Place::Log(cursor) | Place::Live { cursor, .. }) = self.place;
        cursor
    }

    /// Whether the next events come from the log, which may require a long scan.
    pub(crate) const fn reads_log(&self) -> bool {
        matches!(self.place, Place::Log(_))
    }

    /// The next events. Call this when the inbox has returned the key, and again while `more` is
    /// set. [`Refusal::Reset`] if the next events are lost; the subscription then continues at the
    /// end of the window.
    pub(crate) async fn next(&mut self) -> Result<Batch, Refusal> {
        // Cleared before reading, so that every event published from here on wakes the reader
        // again.
        self.listener.ready.store(false, Ordering::Release);
        if self.interest.is_empty() {
            self.skip_to_end();
        }
        loop {
            self.check_history()?;
            match self.place {
                Place::Live { position, cursor } => match self.read_window(position, cursor) {
                    Some(batch) => return batch,
                    None => self.place = Place::Log(cursor),
                },
                Place::Log(cursor) => {
                    if self.enter_window(cursor) {
                        continue;
                    }
                    let page = self.read_log(cursor).await?;
                    if !page.events.is_empty() {
                        return Ok(Batch { events: page.events, cursor: page.cursor, more: true });
                    }
                    if !page.more && !self.enter_window(page.cursor) {
                        // The window has a history that the log no longer has. It will be reset,
                        // and the reset wakes the reader.
                        return Ok(Batch { events: Vec::new(), cursor: page.cursor, more: false });
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// The next events and, at the end of the window, also those that are only in the log so far.
    /// If `more` is not set, everything that was in the log before the call has been read, even if
    /// the window lags.
    pub(crate) async fn next_of_log(&mut self) -> Result<Batch, Refusal> {
        let mut batch = self.next().await?;
        let head = self.hub.engine().head(self.channel.tenant()).await?;
        if !batch.more && batch.cursor.epoch == head.epoch && batch.cursor.seq < head.seq {
            let page = self.read_log(batch.cursor).await?;
            batch.events.extend(page.events);
            (batch.cursor, batch.more) = (page.cursor, page.more);
        }
        Ok(batch)
    }

    /// A page of the log after a cursor.
    async fn read_log(&mut self, cursor: Cursor) -> Result<Page, Refusal> {
        let limits = ReadLimits { events_max: self.page_events, ..READ };
        let engine = self.hub.engine();
        let page = engine.read(self.channel.tenant(), &self.interest, cursor, limits).await?;
        let page = self.bound(page);
        self.place = Place::Log(page.cursor);
        Ok(page)
    }

    /// Continues in the window after a cursor, if the window has the next events.
    fn enter_window(&mut self, cursor: Cursor) -> bool {
        let position = self.channel.lock().window.position_after(cursor);
        if let Some(position) = position {
            self.place = Place::Live { position, cursor };
        }
        position.is_some()
    }

    /// Cuts a page to the bytes of a batch and adapts the size of the next read.
    fn bound(&mut self, mut page: Page) -> Page {
        let mut bytes = 0;
        let fits = page.events.iter().take_while(|event| {
            bytes += event.cost_bytes();
            bytes <= BATCH_BYTES_MAX
        });
        let count = fits.count().max(1);
        if count < page.events.len() {
            page.events.truncate(count);
            if let Some(last) = page.events.last() {
                page.cursor = Cursor { seq: last.seq, tag: last.tag, ..page.cursor };
            }
            page.more = true;
            self.page_events = count + 1;
        } else {
            self.page_events = (self.page_events * 2).min(BATCH_EVENTS_MAX);
        }
        page
    }

    /// If history was lost, returns [`Refusal::Reset`] once and moves to the end of the window.
    fn check_history(&mut self) -> Result<(), Refusal> {
        let state = self.channel.lock();
        if state.generation == self.generation {
            return Ok(());
        }
        self.generation = state.generation;
        let cursor = state.window.head();
        // A place in the log may already belong to the new history. Then reading the log decides.
        if let Place::Log(place) = self.place
            && place.epoch == cursor.epoch
            && place.seq <= cursor.seq
        {
            return Ok(());
        }
        self.place = Place::Live { position: state.window.end(), cursor };
        Err(Refusal::Reset(cursor))
    }

    /// Reads the window from a position. `None` if the window has moved past it. At the end of the
    /// window, refuses if the next event of the log cannot be read.
    fn read_window(&mut self, from: u64, after: Cursor) -> Option<Result<Batch, Refusal>> {
        let state = self.channel.lock();
        let window = &state.window;
        if from < window.first() {
            return None;
        }
        let (mut events, mut bytes, mut reached) = (Vec::new(), 0, window.end());
        let look = |position: u64, seq: u64, event: &Arc<Event>| {
            // An ephemeral event that precedes what was read from the log would arrive out of
            // order.
            let is_known = if event.is_ephemeral() { seq < after.seq } else { seq <= after.seq };
            if is_known || !self.interest.wants_live(position, event) {
                return true;
            }
            bytes += event.cost_bytes();
            if !events.is_empty() && (events.len() == BATCH_EVENTS_MAX || bytes > BATCH_BYTES_MAX) {
                reached = position;
                return false;
            }
            events.push(event.clone());
            true
        };
        if self.interest.is_everything() {
            window.visit_all(from, look);
        } else {
            window.visit(from, self.interest.rooms(), look);
        }
        let cursor = later(after, window.cursor_before(reached));
        let more = reached < window.end();
        let blocked_by = state.blocked_by.clone().filter(|_| events.is_empty() && !more);
        drop(state);
        self.place = Place::Live { position: reached, cursor };
        Some(match blocked_by {
            Some(type_name) => Err(Refusal::NewerCatalog(type_name)),
            None => Ok(Batch { events, cursor, more }),
        })
    }
}

/// The later of two places of one history.
const fn later(a: Cursor, b: Cursor) -> Cursor {
    if b.seq > a.seq { b } else { a }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let rooms: Vec<Room> = self.interest.rooms().cloned().collect();
        self.remove(&rooms);
        if self.interest.is_everything() {
            self.channel.lock().unlisten_to_everything(&self.listener);
        }
    }
}
