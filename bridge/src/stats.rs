//! What the bridge has done since its start, for administrators. Counting costs a few atomic
//! additions per batch, however many sessions get it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fanfare_proto::{
    latency::{Histogram, Snapshot},
    v1::{BridgeStats, TransportSessions},
};

use crate::event::Event;

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    events: AtomicU64,
    deliveries: AtomicU64,
    overflows: AtomicU64,
    /// From the server's acceptance of an event until all sessions were handed it.
    delivery: Histogram,
    report: Mutex<Report>,
}

/// The last report.
#[derive(Debug)]
struct Report {
    snapshot: Snapshot,
    next: Instant,
}

impl Default for Report {
    fn default() -> Self {
        Self { snapshot: Snapshot::default(), next: Instant::now() }
    }
}

/// The sessions of one moment.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) sessions: Vec<TransportSessions>,
    pub(crate) queued_bytes: u64,
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

impl Stats {
    /// Events came over the link.
    pub(crate) fn count_events(&self, events: usize) {
        add(&self.events, events);
    }

    /// A shard handed events to its sessions.
    pub(crate) fn count_deliveries(&self, deliveries: usize, overflows: usize) {
        add(&self.deliveries, deliveries);
        self.count_overflows(overflows);
    }

    /// All shards have handed events to their sessions.
    pub(crate) fn record(&self, events: &[Arc<Event>]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let times = events.iter().map(|event| event.delivery.time_micros);
        for accepted in times.filter(|time| *time > 0) {
            self.delivery.record_micros(now.saturating_sub(accepted));
        }
    }

    /// Sessions were closed because they did not read fast enough.
    pub(crate) fn count_overflows(&self, sessions: usize) {
        add(&self.overflows, sessions);
    }

    /// When the server is to be told next.
    pub(crate) fn due(&self) -> Instant {
        self.report().next
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server is told, again after an interval.
    pub(crate) fn next_report(&self, census: Census, interval: Duration) -> BridgeStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut report = self.report();
        report.next = Instant::now() + interval;
        BridgeStats {
            sessions: census.sessions,
            queued_bytes: census.queued_bytes,
            events: read(&self.events),
            deliveries: read(&self.deliveries),
            overflows: read(&self.overflows),
            delivery: Some(self.delivery.since(&mut report.snapshot)),
            ..BridgeStats::default()
        }
    }
}
