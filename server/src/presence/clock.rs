//! The server's steady clock: it starts at the machine's time and is never adjusted afterwards.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug)]
pub(super) struct Clock {
    start_millis: u64,
    start: Instant,
    #[cfg(test)]
    pub(super) skipped_millis: std::sync::atomic::AtomicU64,
}

impl Clock {
    pub(super) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            start_millis: millis(now),
            start: Instant::now(),
            #[cfg(test)]
            skipped_millis: Default::default(),
        }
    }

    /// The current time in milliseconds since 1970.
    pub(super) fn now(&self) -> u64 {
        #[cfg(test)]
        let skipped = self.skipped_millis.load(std::sync::atomic::Ordering::Relaxed);
        #[cfg(not(test))]
        let skipped = 0;
        self.start_millis + skipped + millis(self.start.elapsed())
    }

    /// The time that remains until `then`.
    pub(super) fn until(&self, then: u64) -> Duration {
        Duration::from_millis(then.saturating_sub(self.now()))
    }
}

/// A duration in milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
