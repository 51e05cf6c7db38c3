//! The hub: a window of each tenant's recent events, and who waits for which rooms.
//!
//! Subscriptions *pull*: a published event goes into the window once and wakes those that wait for one of its
//! rooms; each reads from its own position when it can. So the hub never awaits a subscriber, there is no queue a
//! subscriber to overflow, and one that falls behind the window reads the log instead and comes
//! back without a gap or a repeat. Knows nothing of protocols.

mod listeners;
mod subscription;
mod tap;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicIsize, Ordering},
    },
    time::{Duration, Instant},
};

use fanfare_proto::room::{Room, Tenant};
use tokio::sync::Notify;

use crate::{config::Limits, event::Event, share};

use listeners::{Listeners, Part};
pub(crate) use subscription::Subscription;
pub(crate) use tap::{READERS_MAX as TAP_READERS_MAX, Tap, Taps, Wanted};
use window::Window;

/// How long a window is kept that nobody follows and that gets no events.
const IDLE_AGE_MAX: Duration = Duration::from_secs(60);

/// All tenants' channels.
#[derive(Debug)]
pub(crate) struct Hub {
    channels: RwLock<HashMap<Tenant, Arc<Channel>>>,
    limits: Limits,
    /// Bytes in all windows.
    bytes: AtomicIsize,
    /// Held while windows shrink, by one publisher.
    shrinking: Mutex<()>,
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
    listeners: HashMap<Room, Listeners>,
    /// When an event came last, or the channel was made.
    used_at: Instant,
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
pub(crate) struct Wakeups(Vec<Part>);

impl Hub {
    pub(crate) fn new(limits: Limits) -> Self {
        let (channels, bytes, shrinking, taps) = Default::default();
        Self { channels, limits, bytes, shrinking, taps }
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
        let (wakeups, growth) = self.channel(&event.draft.tenant, head).publish(event);
        self.grow(growth);
        wakeups
    }

    /// Accounts for what a window grew; all shrink when they have become too large together.
    fn grow(&self, growth: isize) {
        let bytes = self.bytes.fetch_add(growth, Ordering::Relaxed).saturating_add(growth);
        let max = self.limits.window_total_bytes_max;
        if usize::try_from(bytes).is_ok_and(|bytes| bytes > max)
            && let Ok(_one) = self.shrinking.try_lock()
        {
            let channels: Vec<Arc<Channel>> =
                self.channels.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            let mut sizes: Vec<usize> =
                channels.iter().map(|channel| channel.lock().window.bytes()).collect();
            let Some(level) = share::level(&mut sizes, max) else { return };
            let shrunk: isize = channels.iter().map(|channel| channel.shrink(level)).sum();
            self.bytes.fetch_add(shrunk, Ordering::Relaxed);
        }
    }

    /// Frees the windows that nobody follows and that get no events. Called now and then.
    pub(crate) fn sweep(&self) {
        let channels: Vec<Arc<Channel>> =
            self.channels.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for channel in channels {
            if channel.lock().used_at.elapsed() > IDLE_AGE_MAX {
                let tenant = channel.tenant.clone();
                drop(channel);
                self.release(&tenant);
            }
        }
    }

    /// Frees a tenant's window if nobody follows it; false when somebody does.
    pub(crate) fn release(&self, tenant: &Tenant) -> bool {
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        let Some(channel) = channels.get(tenant) else { return true };
        if Arc::strong_count(channel) > 1 {
            return false;
        }
        let growth = channel.shrink(0);
        channels.remove(tenant);
        self.bytes.fetch_add(growth, Ordering::Relaxed);
        true
    }

    /// The newest seq that a tenant's subscriptions know of, if there are some.
    pub(crate) fn head(&self, tenant: &Tenant) -> Option<u64> {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        channels.get(tenant).map(|channel| channel.lock().window.head())
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
        Self {
            tenant,
            state: Mutex::new(State { window, listeners: HashMap::new(), used_at: Instant::now() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event over; gives by how many bytes the window has grown.
    fn publish(&self, event: Arc<Event>) -> (Wakeups, isize) {
        let mut state = self.lock();
        let mut parts = Vec::new();
        for listeners in event.rooms().iter().filter_map(|room| state.listeners.get(room)) {
            parts.extend_from_slice(listeners.parts());
        }
        let before = state.window.bytes();
        state.window.push(event);
        state.used_at = Instant::now();
        (Wakeups(parts), growth(before, state.window.bytes()))
    }

    /// Shrinks the window to so many bytes; gives by how many it has grown.
    fn shrink(&self, bytes_max: usize) -> isize {
        let mut state = self.lock();
        let before = state.window.bytes();
        state.window.shrink(bytes_max);
        growth(before, state.window.bytes())
    }
}

/// Windows are far smaller than what these numbers hold.
fn growth(before: usize, after: usize) -> isize {
    let number = |size| isize::try_from(size).unwrap_or(isize::MAX);
    number(after) - number(before)
}

impl State {
    fn listen(&mut self, room: Room, listener: &Arc<Listener>) {
        self.listeners.entry(room).or_default().add(listener.clone());
    }

    fn unlisten(&mut self, room: &Room, listener: &Arc<Listener>) {
        let Some(listeners) = self.listeners.get_mut(room) else { return };
        listeners.remove(listener);
        if listeners.is_empty() {
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
