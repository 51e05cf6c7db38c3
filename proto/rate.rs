//! Rate limits: a rate with a burst, by the generic cell rate algorithm.

use std::{fmt, hash::Hash, num::NonZeroU32, time::Duration};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

/// A number per second in the long run, and a number at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run; at least 1.
    pub per_second: u32,
    /// At once; at least 1.
    pub burst: u32,
}

impl Rate {
    fn quota(self) -> Quota {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Quota::per_second(at_least_one(self.per_second)).allow_burst(at_least_one(self.burst))
    }
}

fn wait(until: NotUntil<<DefaultClock as governor::clock::Clock>::Instant>) -> Duration {
    until.wait_time_from(DefaultClock::default().now())
}

/// Limits one client.
pub struct Limiter(DefaultDirectRateLimiter);

impl Limiter {
    /// A limiter with an unused burst.
    pub fn new(rate: Rate) -> Self {
        Self(RateLimiter::direct(rate.quota()))
    }

    /// Counts one action, or refuses it with the time after which it may be retried.
    pub fn check(&self) -> Result<(), Duration> {
        self.0.check().map_err(wait)
    }
}

/// Limits many clients, each separately.
pub struct KeyedLimiter<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    burst: u32,
}

impl<K: Hash + Eq + Clone> KeyedLimiter<K> {
    /// A limiter without clients.
    pub fn new(rate: Rate) -> Self {
        Self { limiter: RateLimiter::keyed(rate.quota()), burst: rate.burst.max(1) }
    }

    /// Counts one action, or refuses it with the time after which it may be retried.
    pub fn check(&self, key: &K) -> Result<(), Duration> {
        self.limiter.check_key(key).map_err(wait)
    }

    /// Counts several actions at once: all or none. More than the burst count as the burst, so that
    /// a large request is slow but not impossible.
    pub fn check_many(&self, key: &K, count: usize) -> Result<(), Duration> {
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(self.burst);
        let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
        // The inner error (more than the burst) cannot occur.
        self.limiter.check_key_n(key, count).unwrap_or(Ok(())).map_err(wait)
    }

    /// Evicts clients that have been idle long enough to have their full burst again. Call it
    /// regularly.
    pub fn forget(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for KeyedLimiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLimiter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_the_next_one_is_told_how_long_to_wait() {
        let limiter = Limiter::new(Rate { per_second: 1, burst: 3 });
        for _ in 0..3 {
            assert_eq!(limiter.check(), Ok(()));
        }
        let wait = limiter.check().unwrap_err();
        assert!(wait > Duration::from_millis(500) && wait <= Duration::from_secs(1), "{wait:?}");
    }

    #[test]
    fn each_key_has_its_own_rate() {
        let limiter = KeyedLimiter::new(Rate { per_second: 1, burst: 1 });
        assert!(limiter.check(&"a").is_ok() && limiter.check(&"a").is_err() && limiter.check(&"b").is_ok());
        limiter.forget();
        assert!(limiter.check(&"a").is_err(), "forgetting must not forgive");
    }

    #[test]
    fn many_are_counted_whole_or_not_at_all_and_never_refused_for_good() {
        let limiter = KeyedLimiter::new(Rate { per_second: 1, burst: 10 });
        assert_eq!(limiter.check_many(&"a", 6), Ok(()));
        assert!(limiter.check_many(&"a", 6).is_err());
        assert_eq!(limiter.check_many(&"a", 4), Ok(()), "what was refused is not counted");
        assert_eq!(limiter.check_many(&"b", 1000), Ok(()), "more than the burst is the burst");
        let wait = limiter.check_many(&"b", 1000).unwrap_err();
        assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10), "{wait:?}");
    }
}
