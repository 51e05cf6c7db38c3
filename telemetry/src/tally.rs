//! Counts of refusals: by reason, and by the limit that was exceeded.

use std::sync::atomic::{AtomicU64, Ordering};

use fanfare_proto::v1::Reason;

/// Reasons are numbered from these, at most so many from each.
const BLOCKS: [i32; 2] = [1000, 2000];
const BLOCK: usize = 64;

/// Counts by reason.
#[derive(Debug)]
pub struct ReasonTally([AtomicU64; BLOCK * BLOCKS.len()]);

impl Default for ReasonTally {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BLOCK * BLOCKS.len()])
    }
}

impl ReasonTally {
    /// Counts one. What has no reason (the peer is gone) is not counted.
    pub fn count(&self, reason: Reason) {
        for (at, from) in BLOCKS.into_iter().enumerate() {
            let offset = usize::try_from(i32::from(reason) - from).ok().filter(|offset| *offset < BLOCK);
            if let Some(offset) = offset {
                self.0[at * BLOCK + offset].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// All counts, by the code of the reason.
    pub fn counts(&self) -> impl Iterator<Item = (String, u64)> {
        let numbers = BLOCKS.into_iter().flat_map(|from| from..from + 64);
        numbers.zip(&self.0).filter_map(|(number, count)| {
            let reason = Reason::try_from(number).ok()?;
            Some((reason.code(), count.load(Ordering::Relaxed)))
        })
    }
}

/// Counts by the name of a limit.
#[derive(Debug)]
pub struct LimitTally {
    names: &'static [&'static str],
    counts: Box<[AtomicU64]>,
}

impl LimitTally {
    /// Counts for these limits.
    pub fn new(names: &'static [&'static str]) -> Self {
        Self { names, counts: names.iter().map(|_| AtomicU64::new(0)).collect() }
    }

    /// Counts one. What is none of the limits is not counted.
    pub fn count(&self, limit: &str) {
        if let Some(at) = self.names.iter().position(|name| *name == limit) {
            self.counts[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All counts.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.names.iter().copied().zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_count_of_its_own() {
        let (tally, all) = (ReasonTally::default(), 1..10_000);
        let reasons: Vec<Reason> = all.filter_map(|number| Reason::try_from(number).ok()).collect();
        for (times, reason) in reasons.iter().enumerate() {
            (0..=times).for_each(|_| tally.count(*reason));
        }
        let expected: Vec<(String, u64)> = reasons.iter().map(|reason| reason.code()).zip(1..).collect();
        assert_eq!(tally.counts().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn limits_are_counted_by_name() {
        let tally = LimitTally::new(&["a", "b"]);
        ["b", "b", "c"].into_iter().for_each(|limit| tally.count(limit));
        assert_eq!(tally.counts().collect::<Vec<_>>(), [("a", 0), ("b", 2)]);
    }
}
