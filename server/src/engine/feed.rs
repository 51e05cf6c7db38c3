//! A bounded queue from an engine to one follower. A follower that is too slow loses the whole
//! feed, never single items: the feed ends, and the follower starts again from the store.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

/// Maximum number of items in a feed.
const ITEMS_MAX: usize = if cfg!(test) { 512 } else { 65_536 };
/// Maximum number of bytes in a feed.
const BYTES_MAX: usize = 64 << 20;

/// The follower's end.
#[derive(Debug)]
pub(crate) struct Feed<T>(Arc<Shared<T>>);

/// The engine's end. Dropping the last one ends the feed.
#[derive(Debug)]
pub(crate) struct FeedSender<T> {
    shared: Weak<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<T>,
    bytes: usize,
    has_ended: bool,
}

pub(crate) fn feed<T>() -> (FeedSender<T>, Feed<T>) {
    let queue = Queue { items: VecDeque::new(), bytes: 0, has_ended: false };
    let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Notify::new() });
    (FeedSender { shared: Arc::downgrade(&shared) }, Feed(shared))
}

impl<T> Queue<T> {
    fn push(&mut self, item: T, bytes: usize) {
        if self.items.len() >= ITEMS_MAX || self.bytes.saturating_add(bytes) > BYTES_MAX {
            self.items = VecDeque::new();
            self.has_ended = true;
        }
        if !self.has_ended {
            self.items.push_back(item);
            self.bytes += bytes;
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Feed<T> {
    /// All waiting items, in order; resolves when there is at least one. `None` once the feed has
    /// ended and every item before the end was taken.
    pub(crate) async fn next(&mut self) -> Option<VecDeque<T>> {
        loop {
            let changed = self.0.changed.notified();
            {
                let mut queue = self.0.lock();
                if !queue.items.is_empty() {
                    queue.bytes = 0;
                    return Some(std::mem::take(&mut queue.items));
                }
                if queue.has_ended {
                    return None;
                }
            }
            changed.await;
        }
    }
}

impl<T> FeedSender<T> {
    /// Enqueues an item with its cost in bytes. False if the follower has gone or has lost the
    /// feed; the sender is then useless.
    pub(crate) fn send(&self, item: T, bytes: usize) -> bool {
        self.send_all([(item, bytes)])
    }

    /// Enqueues items with their cost in bytes, and wakes the follower once.
    pub(crate) fn send_all(&self, items: impl IntoIterator<Item = (T, usize)>) -> bool {
        let Some(shared) = self.shared.upgrade() else { return false };
        let is_open = {
            let mut queue = shared.lock();
            for (item, bytes) in items {
                queue.push(item, bytes);
            }
            !queue.has_ended
        };
        shared.changed.notify_one();
        is_open
    }

    /// Whether the follower has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.strong_count() == 0
    }
}

impl<T> Drop for FeedSender<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().has_ended = true;
            shared.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn items_arrive_in_order_and_the_end_after_them() {
        let (sender, mut feed) = feed();
        assert!(sender.send(1, 8) && sender.send(2, 8));
        drop(sender);
        assert_eq!(feed.next().await.unwrap(), [1, 2]);
        assert_eq!(feed.next().await, None);
    }

    #[tokio::test]
    async fn a_follower_that_is_too_slow_loses_the_feed_as_a_whole() {
        let (sender, mut feed) = feed();
        assert!(sender.send(0, BYTES_MAX));
        assert!(!sender.send(1, 1));
        assert!(!sender.send(2, 1), "nothing follows a gap");
        assert_eq!(feed.next().await, None);
    }

    #[tokio::test]
    async fn a_sender_learns_that_its_follower_has_gone() {
        let (sender, feed) = feed();
        drop(feed);
        assert!(sender.is_closed() && !sender.send(1, 1));
    }
}
