//! The hub: a window of each tenant's recent events, and who waits for which rooms.
//!
//! Subscriptions *pull*: a published event goes into the window once and wakes those that wait for one of its
//! rooms; each reads from its own position when it can. So the hub never awaits a subscriber, there is no queue a
//! subscriber to overflow, and one that falls behind the window reads the log instead and comes
//! back without a gap or a repeat. Knows nothing of protocols.

mod subscription;
mod tap;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use fanfare_proto::room::{Room, Tenant};
use tokio::sync::Notify;

use crate::{config::Limits, event::Event};

pub(crate) use subscription::{Interest, Subscription};
pub(crate) use tap::{READERS_MAX as TAP_READERS_MAX, Tap, Taps, Wanted};
use window::Window;

/// All tenants' channels.
#[derive(Debug)]
pub(crate) struct Hub {
    channels: RwLock<HashMap<Tenant, Arc<Channel>>>,
    limits: Limits,
    /// Who reads along.
    pub(crate) taps: Arc<Taps>,
}

/// One tenant's window and listeners. Its lock is short: never held while waking, encoding or awaiting.
#[derive(Debug)]
pub(crate) struct Channel {
    tenant: Tenant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    window: Window,
    /// Copied on write when a publisher still holds the list.
    listeners: HashMap<Room, Arc<Vec<Arc<Listener>>>>,
}

/// One subscription's place to be woken at.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Woken and not yet read.
    ready: AtomicBool,
    key: u64,
    inbox: Arc<Inbox>,
}

/// What one reader waits on, for one or many subscriptions. Holds a subscription's key at most once, so it is
/// bounded by the number of subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    ready: Mutex<Vec<u64>>,
    notify: Notify,
}

/// Whom to wake for an event, to be done without any lock.
#[derive(Debug)]
#[must_use]
pub(crate) struct Wakeups(Vec<Arc<Vec<Arc<Listener>>>>);

impl Hub {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { channels: RwLock::default(), limits, taps: Arc::default() }
    }

    /// The tenant's channel; `head` is the newest seq of its log, read before this call.
    pub(crate) fn channel(&self, tenant: &Tenant, head: u64) -> Arc<Channel> {
        if let Some(channel) = self.channels.read().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return channel.clone();
        }
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Channel::new(tenant.clone(), head, &self.limits));
        channels.entry(tenant.clone()).or_insert_with(new).clone()
    }

    /// Takes an event over. Engines call it in log order, once an event; `head` is the newest seq of the log before it.
    pub(crate) fn publish(&self, event: Arc<Event>, head: u64) -> Wakeups {
        self.taps.offer(&event);
        self.channel(&event.draft.tenant, head).publish(event)
    }
}

impl Hub {
    /// The tenants that somebody follows, in no particular order.
    pub(crate) fn followed(&self) -> Vec<Tenant> {
        let channels: Vec<Arc<Channel>> =
            self.channels.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let followed = channels.iter().filter(|channel| !channel.lock().listeners.is_empty());
        followed.map(|channel| channel.tenant.clone()).collect()
    }
}

impl Channel {
    fn new(tenant: Tenant, head: u64, limits: &Limits) -> Self {
        let window = Window::new(head, limits.window_events_max, limits.window_bytes_max);
        Self { tenant, state: Mutex::new(State { window, listeners: HashMap::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, event: Arc<Event>) -> Wakeups {
        let mut state = self.lock();
        let lists = event.rooms().iter().filter_map(|room| state.listeners.get(room).cloned()).collect();
        state.window.push(event);
        Wakeups(lists)
    }
}

impl State {
    fn listen(&mut self, room: Room, listener: &Arc<Listener>) {
        Arc::make_mut(self.listeners.entry(room).or_default()).push(listener.clone());
    }

    fn unlisten(&mut self, room: &Room, listener: &Arc<Listener>) {
        let Some(list) = self.listeners.get_mut(room) else { return };
        let list_mut = Arc::make_mut(list);
        if let Some(at) = list_mut.iter().position(|l| Arc::ptr_eq(l, listener)) {
            list_mut.swap_remove(at);
        }
        if list_mut.is_empty() {
            self.listeners.remove(room);
        }
    }
}

impl Wakeups {
    /// Wakes everybody, each once.
    pub(crate) fn wake(self) {
        for list in self.0 {
            for listener in list.iter() {
                listener.wake();
            }
        }
    }
}

impl Listener {
    fn wake(&self) {
        if !self.ready.swap(true, Ordering::AcqRel) {
            self.inbox.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
            self.inbox.notify.notify_one();
        }
    }
}

impl Inbox {
    /// Waits until subscriptions have something to read, and gives their keys.
    pub(crate) async fn ready(&self) -> Vec<u64> {
        loop {
            let keys = std::mem::take(&mut *self.ready.lock().unwrap_or_else(PoisonError::into_inner));
            if !keys.is_empty() {
                return keys;
            }
            self.notify.notified().await;
        }
    }
}
