//! Taps: readers along of everything that is published, for those who administer.
//!
//! What they want is followed like everything else in the hub, so that they get it whichever server published it. Nobody waits for
//! them: each has a bounded queue, and what does not fit is counted instead. While nobody reads along an event costs one look at an
//! atomic.

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

/// Readers along at once.
pub(crate) const READERS_MAX: usize = 64;
/// Events that wait for a reader.
const EVENTS_MAX: usize = 1024;
/// Bytes that wait for a reader, unless a single event is larger.
const BYTES_MAX: usize = 1 << 20;

/// All readers along.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// There are some.
    any: AtomicBool,
    /// Some of them read along of all tenants.
    any_of_all: AtomicBool,
    /// Written only when readers come and go; publishers share it.
    readers: RwLock<Vec<Arc<Reader>>>,
}

/// What a reader wants. What is empty restricts nothing.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) tenant: Option<Tenant>,
    /// A tenant that nobody shall see.
    pub(crate) hidden: Option<Tenant>,
    pub(crate) rooms: HashSet<Room>,
    /// Names of events, or full names of their types.
    pub(crate) names: HashSet<String>,
}

#[derive(Debug)]
struct Reader {
    wanted: Wanted,
    /// Followed as long as it reads along: the tenant that is named, or else all.
    _channel: Option<Arc<Channel>>,
    all: Option<Arc<AllTenants>>,
    queue: Mutex<Queue>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Behind the last of `events`.
    missed: u64,
}

/// A reader's place. Dropping it ends the reading along.
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
    /// How many read along.
    pub(crate) fn len(&self) -> usize {
        self.readers.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Reads along from now on; `None` when too many do.
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

    /// Whether somebody reads along.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// What follows all tenants, while somebody reads along of all.
    pub(super) fn all_tenants(&self) -> Option<Arc<AllTenants>> {
        if !self.any_of_all.load(Ordering::Relaxed) {
            return None;
        }
        let readers = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        readers.iter().find_map(|reader| reader.all.clone())
    }

    /// An event is published. Called in log order per tenant.
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
            // Once one is missed, so are those behind it until the reader knows, or it could not say where they are missing.
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
    /// The events that wait, and how many were missed behind them; resolves when there are some. May be dropped while waiting.
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
