//! A relay's counters, and whether it can make progress.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fanfare_proto::latency::Histogram;
use fanfare_telemetry::{Health, Page, Source};
use futures_util::future::BoxFuture;

/// Counts since the start of the process.
#[derive(Debug)]
pub struct Counters {
    pub(super) published: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) partitions: AtomicU64,
    /// The age of the oldest row when rows were last read, in milliseconds.
    oldest_millis: AtomicU64,
    /// From the start of a row's transaction to its acknowledgement.
    pub(super) delay: Histogram,
    problem: Mutex<Option<String>>,
}

impl Default for Counters {
    fn default() -> Self {
        let (published, duplicates, refused, retries, partitions, oldest_millis) = Default::default();
        let problem = Mutex::new(Some("the database is not connected yet".to_owned()));
        let delay = Histogram::default();
        Self { published, duplicates, refused, retries, partitions, oldest_millis, delay, problem }
    }
}

impl Counters {
    pub(super) fn add(count: &AtomicU64, more: usize) {
        count.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(super) fn look(&self, partitions: usize, oldest: Duration) {
        self.partitions.store(partitions as u64, Ordering::Relaxed);
        let millis = u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX);
        self.oldest_millis.store(millis, Ordering::Relaxed);
    }

    /// Sets or clears the problem that prevents the relay from working.
    pub(super) fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

impl Health for Counters {
    fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[allow(clippy::cast_precision_loss, reason = "a double is precise enough for an age")]
fn seconds(millis: &AtomicU64) -> f64 {
    millis.load(Ordering::Relaxed) as f64 / 1e3
}

impl Source for Counters {
    fn fill<'a>(&'a self, page: &'a mut Page) -> BoxFuture<'a, ()> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        page.counter(
            "fanfare_relay_published_total",
            "Rows that were acknowledged and deleted",
            count(&self.published),
        );
        page.counter(
            "fanfare_relay_duplicates_total",
            "Of these, rows whose event was in the log already",
            count(&self.duplicates),
        );
        page.counter(
            "fanfare_relay_refused_total",
            "Rows that were refused for good and moved aside",
            count(&self.refused),
        );
        page.counter(
            "fanfare_relay_retries_total",
            "Batches and connections that failed and are tried again",
            count(&self.retries),
        );
        page.gauge("fanfare_relay_partitions", "Partitions of this relay, of 32", count(&self.partitions));
        page.level(
            "fanfare_relay_oldest_row_seconds",
            "Age of the oldest row of this relay's partitions at the last look; 0 when there is none",
            seconds(&self.oldest_millis),
        );
        page.times(
            "fanfare_relay_delay_seconds",
            "From the beginning of a row's transaction to the acknowledgement of its event",
            &self.delay.snapshot(),
        );
        page.gauge(
            "fanfare_relay_ready",
            "1 while database and server can be used",
            u64::from(self.problem().is_none()),
        );
        Box::pin(std::future::ready(()))
    }
}
