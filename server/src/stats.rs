//! What the server has done since its start, for those who administer it: counters that cost an atomic addition, and no lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use fanfare_proto::latency::Histogram;

use crate::engine::Appended;

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    stored: AtomicU64,
    ephemeral: AtomicU64,
    refused: AtomicU64,
    duplicate: AtomicU64,
    calls: AtomicU64,
    subscriptions: AtomicU64,
    subscription_events: AtomicU64,
    /// From a checked request to its answer.
    pub(crate) append: Histogram,
}

/// The counters at some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) stored: u64,
    pub(crate) ephemeral: u64,
    pub(crate) refused: u64,
    pub(crate) duplicate: u64,
    pub(crate) calls: u64,
    pub(crate) subscriptions: u64,
    pub(crate) subscription_events: u64,
}

/// A subscription's place among those that are open; dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Stats>);

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Stats {
    /// So many requests to publish were refused.
    pub(crate) fn refused(&self, count: usize) {
        add(&self.refused, count as u64);
    }

    /// An event that was checked at `since` is in the log, or was there already, or was handed to those present.
    pub(crate) fn appended(&self, appended: &Appended, since: Instant) {
        let counter = match appended {
            Appended::Duplicate(_) => &self.duplicate,
            Appended::Event(event) if event.is_ephemeral() => &self.ephemeral,
            Appended::Event(_) => &self.stored,
        };
        add(counter, 1);
        self.append.record(since.elapsed());
    }

    /// A browser has called.
    pub(crate) fn called(&self) {
        add(&self.calls, 1);
    }

    /// A subscription is open.
    pub(crate) fn subscribed(self: &Arc<Self>) -> Counted {
        add(&self.subscriptions, 1);
        Counted(self.clone())
    }

    /// All counters.
    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            stored: read(&self.stored),
            ephemeral: read(&self.ephemeral),
            refused: read(&self.refused),
            duplicate: read(&self.duplicate),
            calls: read(&self.calls),
            subscriptions: read(&self.subscriptions),
            subscription_events: read(&self.subscription_events),
        }
    }
}

impl Counted {
    /// So many events were sent to it.
    pub(crate) fn sent(&self, events: usize) {
        add(&self.0.subscription_events, events as u64);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.subscriptions.fetch_sub(1, Ordering::Relaxed);
    }
}
