//! A subscription: a position in a tenant's events, and the rooms it wants.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use fanfare_proto::{
    cursor::{Cursor, Epoch},
    room::{Room, Tenant},
};

use super::{Channel, Hub, Inbox, Listener};
use crate::{
    engine::OldEngine,
    error::Refusal,
    event::Event,
    interest::{Interest, Since},
};

/// Events in one batch, at most.
const BATCH_EVENTS_MAX: usize = 512;
/// Bytes in one batch, at most, unless a single event is larger.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// Where a subscription reads next.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The log, after this seq.
    Log(u64),
    /// The window, from `position`; `seq` is the newest before it.
    Live { position: u64, seq: u64 },
}

/// Consecutive wanted events. Empty when there was nothing to read.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Arc<Event>>,
    /// The place reached: everything wanted before it has been given.
    pub(crate) cursor: Cursor,
    /// There is more to read at once.
    pub(crate) more: bool,
}

/// A live, resumable read. Dropping it stops the listening.
#[derive(Debug)]
pub(crate) struct Subscription {
    channel: Arc<Channel>,
    engine: Arc<dyn OldEngine>,
    listener: Arc<Listener>,
    interest: Interest,
    epoch: Epoch,
    place: Place,
}

impl Subscription {
    /// Begins after `after`, or now. `key` is what `inbox` gives when there is something to read.
    pub(crate) async fn open(
        hub: &Hub,
        engine: Arc<dyn OldEngine>,
        tenant: &Tenant,
        rooms: Vec<Room>,
        after: Option<Cursor>,
        inbox: &Arc<Inbox>,
        key: u64,
    ) -> Result<Self, Refusal> {
        let head = engine.head(tenant).await?;
        let channel = hub.channel(tenant, head.seq);
        let listener = Arc::new(Listener { ready: AtomicBool::new(false), key, inbox: inbox.clone() });
        let interest = Interest::default();
        let mut subscription =
            Self { channel, engine, listener, interest, epoch: head.epoch, place: Place::Log(0) };
        subscription.skip_to_end();
        match after {
            None => subscription.add(rooms),
            Some(after) => {
                // Refuses now what the log cannot give.
                subscription.engine.read(tenant, &Interest::default(), after, 1).await?;
                subscription.place = Place::Log(after.seq);
                subscription.add(rooms);
            }
        }
        Ok(subscription)
    }

    pub(crate) fn tenant(&self) -> &Tenant {
        &self.channel.tenant
    }

    /// Wants these rooms too, from the place reached on: every event of theirs later than [`Self::cursor`] will be
    /// read. Read to the end first, or events from before this call come too.
    pub(crate) fn add(&mut self, rooms: Vec<Room>) {
        let since = match self.place {
            Place::Log(seq) => Since { position: 0, seq },
            Place::Live { position, seq } => Since { position, seq },
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

    /// Wants these rooms no more.
    pub(crate) fn remove(&mut self, rooms: &[Room]) {
        let mut state = self.channel.lock();
        for room in rooms {
            if self.interest.remove(room) {
                state.unlisten(room, &self.listener);
            }
        }
    }

    /// Goes to the present, leaving out what is between.
    pub(crate) fn skip_to_end(&mut self) {
        let state = self.channel.lock();
        self.place = Place::Live { position: state.window.end(), seq: state.window.head() };
    }

    pub(crate) fn room_count(&self) -> usize {
        self.interest.rooms().len()
    }

    #[cfg(test)]
    pub(super) fn channel_listeners(&self) -> usize {
        self.channel.lock().listeners.len()
    }

    /// The place reached so far.
    pub(crate) fn cursor(&self) -> Cursor {
        let (Place::Log(seq) | Place::Live { seq, .. }) = self.place;
        Cursor::new(self.epoch, seq)
    }

    /// The next events. Call when the inbox has given the key, and again while `more` is set.
    pub(crate) async fn next(&mut self) -> Result<Batch, Refusal> {
        // Before reading, so that whatever is published from here on wakes again.
        self.listener.ready.store(false, Ordering::Release);
        if self.interest.is_empty() {
            self.skip_to_end();
        }
        loop {
            match self.place {
                Place::Live { position, seq } => match self.read_window(position) {
                    Some(batch) => return Ok(batch),
                    None => self.place = Place::Log(seq),
                },
                Place::Log(seq) => {
                    if let Some(position) = self.position_after(seq) {
                        self.place = Place::Live { position, seq };
                        continue;
                    }
                    let after = Cursor::new(self.epoch, seq);
                    let page = self
                        .engine
                        .read(&self.channel.tenant, &self.interest, after, BATCH_EVENTS_MAX)
                        .await?;
                    self.place = Place::Log(page.upto);
                    if !page.events.is_empty() {
                        let cursor = Cursor::new(self.epoch, page.upto);
                        return Ok(Batch { events: page.events, cursor, more: true });
                    }
                }
            }
        }
    }

    fn position_after(&self, seq: u64) -> Option<u64> {
        self.channel.lock().window.position_after(seq)
    }

    /// Reads the window from a position; `None` when the window has moved past it.
    fn read_window(&mut self, from: u64) -> Option<Batch> {
        let state = self.channel.lock();
        let window = &state.window;
        if from < window.first() {
            return None;
        }
        let (mut events, mut bytes, mut reached) = (Vec::new(), 0, window.end());
        let rooms = self.interest.rooms();
        window.visit(from, rooms, |position, event| {
            if !self.interest.wants_live(position, event) {
                return true;
            }
            bytes += event.cost_bytes();
            if !events.is_empty() && (events.len() == BATCH_EVENTS_MAX || bytes > BATCH_BYTES_MAX) {
                reached = position;
                return false;
            }
            events.push(event.clone());
            true
        });
        let (seq, more) = (window.seq_before(reached), reached < window.end());
        drop(state);
        self.place = Place::Live { position: reached, seq };
        Some(Batch { events, cursor: Cursor::new(self.epoch, seq), more })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let rooms: Vec<Room> = self.interest.rooms().cloned().collect();
        self.remove(&rooms);
    }
}
