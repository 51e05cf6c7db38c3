//! The writer's knowledge of a tenant's log, and the clock that determines the age of events and
//! idempotency keys.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    config::{Limits, Retention},
    engine::{Receipt, entries::StateIndex},
};

/// The log's own clock, in milliseconds. It continues from the end of the log at the rate of a
/// monotonic clock. So a change of the machine's clock ages nothing, and time without a running
/// server does not count.
#[derive(Debug)]
pub(super) struct Clock {
    start: u64,
    since: Instant,
}

impl Clock {
    /// `last` is the newest time in the log; 0 for a new log, whose clock starts at the machine's
    /// time.
    pub(super) fn new(last: u64) -> Self {
        Self { start: if last == 0 { wall() } else { last }, since: Instant::now() }
    }

    pub(super) fn now(&self) -> u64 {
        let passed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.start.saturating_add(passed)
    }
}

/// The machine's time in milliseconds since 1970.
fn wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    #[cfg(test)]
    let now = now + Duration::from_millis(STEP_MILLIS.load(std::sync::atomic::Ordering::Relaxed));
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// How far a test has set the machine's clock forward.
#[cfg(test)]
pub(super) static STEP_MILLIS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// A tenant's log, as far as the writer needs it.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) number: u32,
    pub(super) head: u64,
    /// The newest seq in the table of logs; absent if the table has no row for the log.
    pub(super) noted: Option<u64>,
    /// The newest seq whose event was removed from the disk. Events are removed later, many at
    /// once.
    pub(super) removed: u64,
    /// The time of the last append, by the log's clock.
    pub(super) used_at: u64,
    /// The time and cost of each event, oldest first.
    pub(super) retained: VecDeque<(u64, u64)>,
    pub(super) bytes: u64,
    pub(super) keys: HashMap<String, Receipt>,
    pub(super) key_ages: VecDeque<(u64, String)>,
    pub(super) state: StateIndex<()>,
}

impl Log {
    /// The seq before the oldest event.
    pub(super) fn base(&self) -> u64 {
        self.head - self.retained.len() as u64
    }

    /// Whether the log has been empty for `age_max`.
    pub(super) fn is_idle(&self, now: u64, age_max: Duration) -> bool {
        let age_max = u64::try_from(age_max.as_millis()).unwrap_or(u64::MAX);
        let is_empty = self.retained.is_empty() && self.keys.is_empty() && self.state.is_empty();
        is_empty && now.saturating_sub(self.used_at) >= age_max
    }

    /// Removes events that exceed the retention.
    pub(super) fn trim(&mut self, now: u64, retention: &Retention) {
        let age_max = u64::try_from(retention.age_max.as_millis()).unwrap_or(u64::MAX);
        while let Some((at, cost)) = self.retained.front() {
            let old = now.saturating_sub(*at) > age_max;
            if !old && self.retained.len() <= retention.events_max && self.bytes <= retention.bytes_max as u64
            {
                break;
            }
            self.bytes -= cost;
            self.retained.pop_front();
        }
    }

    /// Removes and returns idempotency keys that are too old or exceed the limit.
    pub(super) fn forget_keys(&mut self, now: u64, limits: &Limits) -> Vec<String> {
        let age_max = u64::try_from(limits.idempotency_age_max.as_millis()).unwrap_or(u64::MAX);
        let mut forgotten = Vec::new();
        while let Some((at, _)) = self.key_ages.front() {
            if now.saturating_sub(*at) <= age_max && self.key_ages.len() <= limits.idempotency_keys_max {
                break;
            }
            let Some((_, key)) = self.key_ages.pop_front() else { break };
            self.keys.remove(&key);
            forgotten.push(key);
        }
        forgotten
    }
}
