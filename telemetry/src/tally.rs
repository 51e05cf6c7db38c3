//! Counts by reason, by exceeded limit, and by tenant.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use fanfare_proto::{room::Tenant, v1::Reason};

/// Reason numbers start at these values, with at most `BLOCK` reasons each.
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
    /// Counts one reason. An unspecified reason (the peer has disconnected) is not counted.
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

    /// Counts one. A name that is not one of the limits is not counted.
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

/// Counts by tenant, for a bounded number of tenants: the first ones seen. All others share one
/// count under an empty name, which no tenant has.
#[derive(Debug)]
pub struct TenantTally {
    tenants_max: usize,
    counts: Mutex<HashMap<Tenant, u64>>,
    others: AtomicU64,
}

impl TenantTally {
    /// Counts up to `tenants_max` tenants; 0: counts nothing.
    pub fn new(tenants_max: usize) -> Self {
        Self { tenants_max, counts: Mutex::default(), others: AtomicU64::new(0) }
    }

    /// Adds to a tenant's count. The lock is held briefly.
    pub fn add(&self, tenant: &Tenant, count: usize) {
        if self.tenants_max == 0 {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = counts.get_mut(tenant) {
            *own += count as u64;
        } else if counts.len() < self.tenants_max {
            counts.insert(tenant.clone(), count as u64);
        } else {
            drop(counts);
            self.others.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// All counts, by name; empty if nothing is counted.
    pub fn counts(&self) -> Vec<(String, u64)> {
        if self.tenants_max == 0 {
            return Vec::new();
        }
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = counts.iter().map(|(name, count)| (name.as_str().to_owned(), *count)).collect();
        drop(counts);
        all.push((String::new(), self.others.load(Ordering::Relaxed)));
        all.sort_unstable();
        all
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
    fn tenants_are_bounded() {
        let tally = TenantTally::new(2);
        for (tenant, count) in [("b", 1), ("a", 2), ("c", 3), ("b", 4), ("d", 5)] {
            tally.add(&Tenant::new(tenant).unwrap(), count);
        }
        let counts = tally.counts();
        let counts: Vec<_> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(counts, [("", 8), ("a", 2), ("b", 5)]);
        let none = TenantTally::new(0);
        none.add(&Tenant::new("a").unwrap(), 1);
        assert!(none.counts().is_empty());
    }

    #[test]
    fn limits_are_counted_by_name() {
        let tally = LimitTally::new(&["a", "b"]);
        ["b", "b", "c"].into_iter().for_each(|limit| tally.count(limit));
        assert_eq!(tally.counts().collect::<Vec<_>>(), [("a", 0), ("b", 2)]);
    }
}
