//! What engines say of their stores, for operators.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use fanfare_proto::{
    latency::{Histogram, Snapshot},
    v1::{EngineProblem, Latency},
};

/// How long the commands to a store take. Counting one is an atomic addition.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    histogram: Histogram,
    /// What was counted when it was read last.
    last: Mutex<Snapshot>,
}

impl Meter {
    /// Counts how long some work takes, if it succeeds.
    pub(crate) async fn measure<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let since = Instant::now();
        let done = work.await?;
        self.histogram.record(since.elapsed());
        Ok(done)
    }

    /// What was counted since the last call.
    pub(crate) fn read(&self) -> Latency {
        self.histogram.since(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Something that is wrong, and because of which events cannot be published.
pub(crate) fn outage(text: impl Into<String>) -> EngineProblem {
    EngineProblem { text: text.into(), stops_publishing: true }
}

/// Something that is wrong while events can be published.
pub(crate) fn warning(text: impl Into<String>) -> EngineProblem {
    EngineProblem { text: text.into(), stops_publishing: false }
}

/// A time in microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
