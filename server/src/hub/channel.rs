//! One tenant's window and listeners.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fanfare_proto::{
    cursor::Cursor,
    room::{Room, Tenant},
};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    listeners::{Listeners, Part},
    tap::Taps,
    window::Window,
};
use crate::{config::Limits, event::Event, share::growth};

/// The lock is held only briefly: never while waking, encoding or awaiting.
#[derive(Debug)]
pub(super) struct Channel {
    tenant: Tenant,
    state: Mutex<State>,
    /// Notified when the window has grown.
    grown: Notify,
    /// Ends the task that follows the log.
    pub(super) end: CancellationToken,
    _ends: DropGuard,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) window: Window,
    /// How often history was lost. Positions from an earlier generation are invalid.
    pub(super) generation: u64,
    /// The type of the next event of the log, if no catalog of this server has it.
    pub(super) blocked_by: Option<String>,
    listeners: HashMap<Room, Listeners>,
    /// Listeners to all rooms.
    everything: Listeners,
    /// When the last events arrived or, without events, when the channel was created.
    used_at: Instant,
}

/// The handle by which one subscription is woken.
#[derive(Debug)]
pub(super) struct Listener {
    /// The subscription was woken and has not read yet.
    pub(super) ready: AtomicBool,
    pub(super) key: u64,
    pub(super) inbox: Arc<Inbox>,
}

/// Wakes one reader, on behalf of one or many subscriptions. Holds each subscription's key at most
/// once, so the number of subscriptions bounds its size.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    ready: Mutex<Vec<u64>>,
    notify: Notify,
}

impl Channel {
    pub(super) fn new(tenant: Tenant, cursor: Cursor, limits: &Limits) -> Self {
        let window = Window::new(cursor, limits.window_events_max, limits.window_bytes_max);
        let state = State {
            window,
            generation: 0,
            blocked_by: None,
            listeners: HashMap::new(),
            everything: Listeners::default(),
            used_at: Instant::now(),
        };
        let end = CancellationToken::new();
        let ends = end.clone().drop_guard();
        Self { tenant, state: Mutex::new(state), grown: Notify::new(), end, _ends: ends }
    }

    pub(super) const fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds events in log order and skips those that the window already has. Wakes the listeners of
    /// their rooms and offers the events to the taps. Returns the growth of the window in bytes.
    /// Only one task calls this.
    pub(super) fn publish(&self, events: impl IntoIterator<Item = Arc<Event>>, taps: &Taps) -> isize {
        let (mut parts, mut tapped): (Vec<Part>, Vec<Arc<Event>>) = Default::default();
        let has_taps = taps.any();
        let growth = {
            let mut state = self.lock();
            let state = &mut *state;
            let before = state.window.bytes();
            for event in events {
                if !event.is_ephemeral() && event.seq <= state.window.head().seq {
                    continue;
                }
                for listeners in event.rooms().iter().filter_map(|room| state.listeners.get(room)) {
                    parts.extend_from_slice(listeners.parts());
                }
                parts.extend_from_slice(state.everything.parts());
                if has_taps {
                    tapped.push(event.clone());
                }
                state.window.push(event);
            }
            state.used_at = Instant::now();
            growth(before, state.window.bytes())
        };
        self.wake(&parts);
        tapped.iter().for_each(|event| taps.offer(event));
        growth
    }

    /// Blocks the channel at an event whose type no catalog of this server has: subscriptions end
    /// there. `None` unblocks it.
    pub(super) fn block(&self, type_name: Option<String>) {
        let parts: Vec<Part> = {
            let mut state = self.lock();
            if state.blocked_by == type_name {
                return;
            }
            state.blocked_by = type_name;
            state.all_parts()
        };
        self.wake(&parts);
    }

    /// History was lost: notifies every subscription and restarts the window at `cursor`.
    pub(super) fn reset(&self, cursor: Cursor) -> isize {
        let (parts, growth) = {
            let mut state = self.lock();
            let before = state.window.bytes();
            state.window.reset(cursor);
            state.generation += 1;
            (state.all_parts(), growth(before, state.window.bytes()))
        };
        self.wake(&parts);
        growth
    }

    /// Wakes listeners and the tasks that wait for the window to grow. Called without the lock.
    fn wake(&self, parts: &[Part]) {
        parts.iter().flat_map(|part| part.iter()).for_each(|listener| listener.wake());
        self.grown.notify_waiters();
    }

    /// Resolves when the window has reached this cursor, has another history, or is blocked.
    pub(super) async fn reaches(&self, cursor: Cursor) {
        loop {
            let grown = self.grown.notified();
            {
                let state = self.lock();
                let head = state.window.head();
                let is_reached = head.epoch != cursor.epoch || head.seq >= cursor.seq;
                if is_reached || state.blocked_by.is_some() {
                    return;
                }
            }
            grown.await;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.lock().window.bytes()
    }

    pub(super) fn idle_for(&self) -> Duration {
        self.lock().used_at.elapsed()
    }

    pub(super) fn has_listeners(&self) -> bool {
        let state = self.lock();
        !state.listeners.is_empty() || !state.everything.is_empty()
    }

    /// Shrinks the window to `bytes_max`. Returns its growth in bytes, which is zero or negative.
    pub(super) fn shrink(&self, bytes_max: usize) -> isize {
        let mut state = self.lock();
        let before = state.window.bytes();
        state.window.shrink(bytes_max);
        growth(before, state.window.bytes())
    }
}

impl State {
    pub(super) fn listen(&mut self, room: Room, listener: &Arc<Listener>) {
        self.listeners.entry(room).or_default().add(listener.clone());
    }

    pub(super) fn unlisten(&mut self, room: &Room, listener: &Arc<Listener>) {
        let Some(listeners) = self.listeners.get_mut(room) else { return };
        listeners.remove(listener);
        if listeners.is_empty() {
            self.listeners.remove(room);
        }
    }

    pub(super) fn listen_to_everything(&mut self, listener: &Arc<Listener>) {
        self.everything.add(listener.clone());
    }

    pub(super) fn unlisten_to_everything(&mut self, listener: &Arc<Listener>) {
        self.everything.remove(listener);
    }

    fn all_parts(&self) -> Vec<Part> {
        let all = self.listeners.values().chain([&self.everything]);
        all.flat_map(|listeners| listeners.parts().to_vec()).collect()
    }

    #[cfg(test)]
    pub(super) fn rooms_with_listeners(&self) -> usize {
        self.listeners.len()
    }
}

impl Listener {
    pub(super) fn wake(&self) {
        if !self.ready.swap(true, Ordering::AcqRel) {
            self.inbox.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
            self.inbox.notify.notify_one();
        }
    }
}

impl Inbox {
    /// Waits until subscriptions have something to read, and returns their keys.
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
