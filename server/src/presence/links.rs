//! The bridges' links to this server, as far as their sessions are concerned.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use fanfare_proto::v1::{EndSession, LeaveRooms};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All links, by number.
#[derive(Debug, Default)]
pub(crate) struct Links {
    by_number: Mutex<HashMap<u64, Arc<Link>>>,
    newest: AtomicU64,
}

/// A bridge's link.
#[derive(Debug, Default)]
pub(crate) struct Link {
    number: u64,
    bridge: Mutex<Bridge>,
    /// Sessions to end, by id. Bounded by the number of the bridge's sessions.
    ends: Mutex<HashMap<String, EndSession>>,
    /// Sessions that must leave rooms, by id. Bounded by the sessions and the removals in their
    /// records.
    leaves: Mutex<HashMap<String, LeaveRooms>>,
    changed: Notify,
    /// Cancelled when the bridge must link again.
    pub(crate) closing: CancellationToken,
}

/// An order to a bridge.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Order {
    End(EndSession),
    Leave(LeaveRooms),
}

/// The bridge of a link.
#[derive(Debug, Clone, Default)]
pub(super) struct Bridge {
    pub(super) name: Arc<str>,
    /// Identifies the bridge's process.
    pub(super) instance: Arc<str>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// Opens a link of a bridge.
    pub(super) fn open(&self) -> Arc<Link> {
        let number = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let link = Arc::new(Link { number, ..Link::default() });
        locked(&self.by_number).insert(number, link.clone());
        link
    }

    pub(super) fn remove(&self, number: u64) {
        locked(&self.by_number).remove(&number);
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<Link>> {
        locked(&self.by_number).get(&number).cloned()
    }

    /// Makes all bridges link again.
    pub(super) fn close_all(&self) {
        locked(&self.by_number).values().for_each(|link| link.closing.cancel());
    }
}

impl Link {
    /// Identifies this link among all links of this server; later links have higher numbers.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Sets the name and the process of the bridge.
    pub(crate) fn introduce(&self, bridge: &str, instance: &str) {
        *locked(&self.bridge) = Bridge { name: bridge.into(), instance: instance.into() };
    }

    pub(super) fn bridge(&self) -> Bridge {
        locked(&self.bridge).clone()
    }

    /// Orders the bridge to end a session.
    pub(super) fn end(&self, end: EndSession) {
        locked(&self.ends).insert(end.session_id.clone(), end);
        self.changed.notify_one();
    }

    /// Gives the bridge an order.
    pub(super) fn order(&self, order: Order) {
        let leave = match order {
            Order::End(end) => return self.end(end),
            Order::Leave(leave) => leave,
        };
        match locked(&self.leaves).entry(leave.session_id.clone()) {
            Entry::Vacant(entry) => _ = entry.insert(leave),
            Entry::Occupied(mut entry) => {
                let rooms = &mut entry.get_mut().rooms;
                let new = leave.rooms.into_iter().filter(|room| !rooms.contains(room));
                let new: Vec<String> = new.collect();
                rooms.extend(new);
            }
        }
        self.changed.notify_one();
    }

    /// The sessions that the bridge must end, and those that must leave rooms; resolves when there
    /// are any.
    pub(crate) async fn orders(&self) -> (Vec<EndSession>, Vec<LeaveRooms>) {
        loop {
            let ends = std::mem::take(&mut *locked(&self.ends));
            let leaves = std::mem::take(&mut *locked(&self.leaves));
            if !ends.is_empty() || !leaves.is_empty() {
                return (ends.into_values().collect(), leaves.into_values().collect());
            }
            self.changed.notified().await;
        }
    }
}
