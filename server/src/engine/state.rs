//! What engines report about their stores, for operators.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use fanfare_proto::{
    latency::{Histogram, Snapshot},
    v1::{EngineProblem, Latency},
};

/// Latencies of commands to a store. Counting one is an atomic addition.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    histogram: Histogram,
    /// The counts at the last read.
    last: Mutex<Snapshot>,
}

impl Meter {
    /// Measures how long work takes, if it succeeds.
    pub(crate) async fn measure<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let since = Instant::now();
        let done = work.await?;
        self.histogram.record(since.elapsed());
        Ok(done)
    }

    /// The latencies since the last call.
    pub(crate) fn read(&self) -> Latency {
        self.histogram.since(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A problem that prevents publishing.
pub(crate) fn outage(text: impl Into<String>) -> EngineProblem {
    EngineProblem { text: text.into(), stops_publishing: true }
}

/// A problem that does not prevent publishing.
pub(crate) fn warning(text: impl Into<String>) -> EngineProblem {
    EngineProblem { text: text.into(), stops_publishing: false }
}

/// A time in microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
