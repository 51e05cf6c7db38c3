//! Taps: readers of everything that is published, for administrators.
//!
//! A tap follows its tenants like every other reader of the hub, so it receives events published by
//! any server. Publishers do not wait for taps: each tap has a bounded queue, and events that do
//! not fit are counted as missed. Without taps, an event costs one read of an atomic.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use fanfare_proto::room::{Room, Tenant};
use tokio::sync::Notify;

use super::{AllTenants, Channel};
use crate::event::Event;

/// Maximum number of taps.
pub(crate) const READERS_MAX: usize = 64;
/// Events in one tap's queue.
const EVENTS_MAX: usize = 1024;
/// Bytes in one tap's queue, unless a single event is larger.
const BYTES_MAX: usize = 1 << 20;

/// All open taps.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// There is at least one reader.
    any: AtomicBool,
    /// At least one reader covers all tenants.
    any_of_all: AtomicBool,
    /// Locked for writing only when a reader is added or removed; publishers share it.
    readers: RwLock<Vec<Arc<Reader>>>,
}

/// The filters of a reader. An empty filter restricts nothing.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) tenant: Option<Tenant>,
    /// A tenant that is always excluded.
    pub(crate) hidden: Option<Tenant>,
    pub(crate) rooms: HashSet<Room>,
    /// Names of events or full names of their types.
    pub(crate) names: HashSet<String>,
}

#[derive(Debug)]
struct Reader {
    wanted: Wanted,
    /// Followed while the tap is open: the named tenant, or otherwise all tenants.
    _channel: Option<Arc<Channel>>,
    all: Option<Arc<AllTenants>>,
    queue: Mutex<Queue>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The number of events missed after the last of `events`.
    missed: u64,
}

/// A handle to a reader. Dropping it closes the tap.
#[derive(Debug)]
pub(crate) struct Tap {
    taps: Arc<Taps>,
    reader: Arc<Reader>,
}

impl Wanted {
    pub(crate) fn wants(&self, event: &Event) -> bool {
        let draft = &event.draft;
        self.tenant.as_ref().is_none_or(|tenant| *tenant == draft.tenant)
            && self.hidden.as_ref() != Some(&draft.tenant)
            && (self.rooms.is_empty() || draft.rooms.iter().any(|room| self.rooms.contains(room)))
            && (self.names.is_empty()
                || self.names.contains(&draft.kind.name)
                || self.names.contains(&draft.kind.full_name))
    }
}

impl Taps {
    /// The number of open taps.
    pub(crate) fn len(&self) -> usize {
        self.readers.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Opens a tap from now on; `None` if there are too many.
    pub(super) fn open(
        self: &Arc<Self>,
        wanted: Wanted,
        channel: Option<Arc<Channel>>,
        all: Option<Arc<AllTenants>>,
    ) -> Option<Tap> {
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        if readers.len() >= READERS_MAX {
            return None;
        }
        let (queue, notify) = Default::default();
        let reader = Arc::new(Reader { wanted, _channel: channel, all, queue, notify });
        readers.push(reader.clone());
        self.note(&readers);
        Some(Tap { taps: self.clone(), reader })
    }

    fn note(&self, readers: &[Arc<Reader>]) {
        self.any.store(!readers.is_empty(), Ordering::Relaxed);
        self.any_of_all.store(readers.iter().any(|reader| reader.all.is_some()), Ordering::Relaxed);
    }

    /// Whether there is a tap.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// The value that follows all tenants, if a tap covers all tenants.
    pub(super) fn all_tenants(&self) -> Option<Arc<AllTenants>> {
        if !self.any_of_all.load(Ordering::Relaxed) {
            return None;
        }
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        readers.iter().find_map(|reader| reader.all.clone())
    }

    /// Offers a published event to the readers. Called in log order per tenant.
    pub(super) fn offer(&self, event: &Arc<Event>) {
        for reader in self.readers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if reader.wanted.wants(event) {
                reader.put(event);
            }
        }
    }
}

impl Reader {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, event: &Arc<Event>) {
        {
            let mut queue = self.lock();
            let bytes = queue.bytes + event.cost_bytes();
            let full = queue.events.len() >= EVENTS_MAX || (bytes > BYTES_MAX && !queue.events.is_empty());
            // After one missed event, all later ones are missed until the reader has read the
            // count. Otherwise the reader would not know where events are missing.
            if full || queue.missed > 0 {
                queue.missed += 1;
                return;
            }
            queue.bytes = bytes;
            queue.events.push_back(event.clone());
        }
        self.notify.notify_one();
    }
}

impl Tap {
    /// The queued events and the number of events missed after them. Resolves when there is an
    /// event. May be dropped while waiting.
    pub(crate) async fn next(&self) -> (VecDeque<Arc<Event>>, u64) {
        loop {
            let Queue { events, missed, .. } = std::mem::take(&mut *self.reader.lock());
            if !events.is_empty() {
                return (events, missed);
            }
            self.reader.notify.notified().await;
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut readers = self.taps.readers.write().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| !Arc::ptr_eq(reader, &self.reader));
        self.taps.note(&readers);
    }
}
