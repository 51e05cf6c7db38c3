//! Latency measurement: a histogram of fixed size that counts without locks or allocations.
//!
//! Times are counted in microseconds: exactly up to 7, and above that in eight equal steps between
//! powers of two. A percentile is therefore at most an eighth above the exact value. Readers take
//! snapshots and subtract them, so that any number of readers can use their own intervals.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::v1::Latency;

/// Steps between two powers of two, as a power of two.
const STEP_BITS: u32 = 3;
const STEPS: usize = 1 << STEP_BITS;
/// Times from 2 to the power of this (more than an hour) count as the longest.
const BITS_MAX: u32 = 32;
const BUCKETS: usize = (BITS_MAX - STEP_BITS + 1) as usize * STEPS;

/// Counts of times since its creation.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    buckets: Box<[u64; BUCKETS]>,
    sum_micros: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_micros: AtomicU64::new(0) }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), sum_micros: 0 }
    }
}

fn bucket(micros: u64) -> usize {
    let bits = u64::BITS - micros.leading_zeros();
    if bits <= STEP_BITS {
        return usize::try_from(micros).unwrap_or_default();
    }
    if bits > BITS_MAX {
        return BUCKETS - 1;
    }
    let shift = bits - STEP_BITS - 1;
    let step = usize::try_from(micros >> shift).unwrap_or_default() - STEPS;
    (shift as usize + 1) * STEPS + step
}

/// The longest time of a bucket, in microseconds.
const fn longest(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (shift, step) = (bucket / STEPS - 1, bucket % STEPS);
    (((STEPS + step + 1) as u64) << shift) - 1
}

impl Histogram {
    /// Records a time: two atomic additions.
    pub fn record(&self, time: Duration) {
        self.record_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Records a time in microseconds.
    pub fn record_micros(&self, micros: u64) {
        self.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The current counts.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (to, from) in snapshot.buckets.iter_mut().zip(&self.buckets) {
            *to = from.load(Ordering::Relaxed);
        }
        snapshot.sum_micros = self.sum_micros.load(Ordering::Relaxed);
        snapshot
    }

    /// The counts since `last`, which becomes the current snapshot.
    pub fn since(&self, last: &mut Snapshot) -> Latency {
        let now = self.snapshot();
        let counts: Vec<u64> =
            now.buckets.iter().zip(last.buckets.iter()).map(|(now, last)| now - last).collect();
        *last = now;
        let count: u64 = counts.iter().sum();
        if count == 0 {
            return Latency::default();
        }
        let highest = counts.iter().rposition(|n| *n > 0).unwrap_or_default();
        // The smallest time that `percent` of the times do not exceed.
        let percentile = |percent: u64| {
            let rank = (count * percent).div_ceil(100);
            let mut seen = 0;
            let at = counts.iter().position(|n| {
                seen += n;
                seen >= rank
            });
            longest(at.unwrap_or(highest))
        };
        Latency {
            count,
            p50_micros: percentile(50),
            p99_micros: percentile(99),
            max_micros: longest(highest),
        }
    }
}

impl Snapshot {
    /// Number of recorded times.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all times, in microseconds.
    pub const fn sum_micros(&self) -> u64 {
        self.sum_micros
    }

    /// Number of times below a number of microseconds: exact for powers of two, otherwise the times
    /// in whole buckets below it.
    pub fn count_below(&self, micros: u64) -> u64 {
        let whole = self.buckets.iter().enumerate().take_while(|(at, _)| longest(*at) < micros);
        whole.map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(sorted: &[u64], percent: usize) -> u64 {
        sorted[(sorted.len() * percent).div_ceil(100) - 1]
    }

    fn near(exact: u64, said: u64) -> bool {
        said >= exact && said <= exact + exact / 8
    }

    proptest! {
        #[test]
        fn percentiles_are_upper_bounds_at_most_an_eighth_above_the_exact_value(
            // The same number of times for each magnitude, instead of a uniform distribution.
            times in prop::collection::vec((0..32u32, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1)), 1..300),
        ) {
            let histogram = Histogram::default();
            times.iter().for_each(|time| histogram.record_micros(*time));
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let said = histogram.since(&mut Snapshot::default());
            prop_assert_eq!(said.count, times.len() as u64);
            for (percent, said) in [(50, said.p50_micros), (99, said.p99_micros), (100, said.max_micros)] {
                prop_assert!(near(exact(&sorted, percent), said), "{}: {} for {}", percent, said, exact(&sorted, percent));
            }
        }
    }

    #[test]
    fn each_bucket_ends_where_the_next_begins() {
        for at in 0..BUCKETS - 1 {
            assert_eq!((bucket(longest(at)), bucket(longest(at) + 1)), (at, at + 1));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn counts_below_a_power_of_two_are_exact() {
        let histogram = Histogram::default();
        [0, 7, 8, 63, 64, 1023, 1024].into_iter().for_each(|micros| histogram.record_micros(micros));
        let snapshot = histogram.snapshot();
        assert_eq!([8, 64, 1024, 2048].map(|below| snapshot.count_below(below)), [2, 4, 6, 7]);
        assert_eq!((snapshot.count(), snapshot.sum_micros()), (7, 2189));
    }

    #[test]
    fn each_reader_has_its_own_intervals() {
        let histogram = Histogram::default();
        let (mut often, mut rarely) = (Snapshot::default(), Snapshot::default());
        histogram.record(Duration::from_millis(1));
        assert_eq!(histogram.since(&mut often).count, 1);
        assert_eq!(histogram.since(&mut often), Latency::default());
        histogram.record(Duration::from_micros(3));
        assert_eq!(histogram.since(&mut often).max_micros, 3);
        let all = histogram.since(&mut rarely);
        assert_eq!((all.count, all.p50_micros), (2, 3));
    }
}
