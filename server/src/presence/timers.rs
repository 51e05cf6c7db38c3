//! When users' records must be checked again because a grace period or recovery window ends.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use super::index::UserKey;

#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BinaryHeap<Reverse<(u64, UserKey)>>,
    /// The next time per user; other entries of the queue are obsolete.
    next: HashMap<UserKey, u64>,
}

impl Timers {
    /// Sets when a user is checked; `None` means never.
    pub(super) fn set(&mut self, key: &UserKey, at: Option<u64>) {
        match at {
            None => _ = self.next.remove(key),
            Some(at) => {
                if self.next.insert(key.clone(), at) != Some(at) {
                    self.queue.push(Reverse((at, key.clone())));
                }
            }
        }
    }

    /// Up to `limit` users that are due.
    pub(super) fn due(&mut self, now: u64, limit: usize) -> Vec<UserKey> {
        let mut due = Vec::new();
        while due.len() < limit && self.earliest().is_some_and(|at| at <= now) {
            let Some(Reverse((at, key))) = self.queue.pop() else { break };
            if self.next.get(&key) == Some(&at) {
                self.next.remove(&key);
                due.push(key);
            }
        }
        due
    }

    /// The earliest time, which may be obsolete.
    pub(super) fn earliest(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }
}
