//! Mandatory changes that cannot be stored at the moment. They are retried in order per user, so
//! that reports of bridges are not lost while the store refuses writes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{
    index::UserKey,
    user::{Context, User},
};

/// Maximum number of waiting changes; beyond that, the oldest are dropped.
const WAITING_MAX: usize = 65_536;

/// A change of a user's record.
pub(super) type Change = Arc<dyn Fn(&mut User, Context<'_>) + Send + Sync>;

/// All waiting changes, by number.
#[derive(Debug)]
pub(super) struct Backlog {
    queue: Mutex<Queue>,
    /// Every change up to this number has been made.
    done: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Queue {
    newest: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Number of waiting changes per user.
    of_user: HashMap<UserKey, usize>,
}

#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) key: UserKey,
    pub(super) change: Change,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

impl Backlog {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), done: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, key: UserKey, change: Change) {
        let mut queue = self.lock();
        queue.newest += 1;
        let newest = queue.newest;
        *queue.of_user.entry(key.clone()).or_default() += 1;
        queue.waiting.insert(newest, Waiting { key, change });
        if queue.waiting.len() > WAITING_MAX {
            tracing::error!("the store has been refusing for too long: some changes of sessions are lost");
            while queue.waiting.len() > WAITING_MAX / 2 {
                let Some(oldest) = queue.waiting.keys().next().copied() else { break };
                queue.remove(oldest);
            }
        }
    }

    /// The number of waiting changes, and the maximum.
    pub(super) fn usage(&self) -> (usize, usize) {
        (self.lock().waiting.len(), WAITING_MAX)
    }

    /// Whether changes of a user wait: later changes must then wait too.
    pub(super) fn has(&self, key: &UserKey) -> bool {
        self.lock().of_user.contains_key(key)
    }

    /// The waiting changes, grouped by user, in order.
    pub(super) fn by_user(&self) -> Vec<Vec<(u64, Waiting)>> {
        let queue = self.lock();
        let mut by_user: HashMap<&UserKey, Vec<(u64, Waiting)>> = HashMap::new();
        for (number, waiting) in &queue.waiting {
            by_user.entry(&waiting.key).or_default().push((*number, waiting.clone()));
        }
        by_user.into_values().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Removes a change that has been made.
    pub(super) fn finish(&self, number: u64) {
        let mut queue = self.lock();
        queue.remove(number);
        let reached = queue.waiting.keys().next().map_or(queue.newest, |oldest| oldest - 1);
        drop(queue);
        self.done.send_if_modified(|done| std::mem::replace(done, reached) != reached);
    }

    /// The number of the newest change.
    pub(super) fn newest(&self) -> u64 {
        self.lock().newest
    }

    /// Resolves when every change up to this number has been made.
    pub(super) async fn reached(&self, number: u64) {
        let is_reached = || self.lock().waiting.keys().next().is_none_or(|oldest| *oldest > number);
        let mut done = self.done.subscribe();
        while !is_reached() {
            // The sender lives as long as `self`.
            let _changed = done.changed().await;
        }
    }
}

impl Queue {
    fn remove(&mut self, number: u64) {
        let Some(Waiting { key, .. }) = self.waiting.remove(&number) else { return };
        if let Some(count) = self.of_user.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.of_user.remove(&key);
            }
        }
    }
}
