//! The idempotency keys of a log. They are exact for a server that has read the whole log and
//! appends to its end.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{config::Limits, engine::Receipt};

/// First answers by key.
#[derive(Debug, Default)]
pub(super) struct Keys {
    receipts: HashMap<String, Receipt>,
    /// Keys by age, in milliseconds since 1970. Each of them is in `receipts`.
    ages: VecDeque<(u64, String)>,
    /// Whether it has every key of the log that is not too old.
    pub(super) is_complete: bool,
}

impl Keys {
    pub(super) fn get(&self, key: &str) -> Option<&Receipt> {
        if key.is_empty() { None } else { self.receipts.get(key) }
    }

    pub(super) fn insert(&mut self, millis: u64, key: &str, receipt: &Receipt) {
        if !key.is_empty() && self.receipts.insert(key.to_owned(), receipt.clone()).is_none() {
            self.ages.push_back((millis, key.to_owned()));
        }
    }

    /// Removes keys that are too old or exceed the limit.
    pub(super) fn trim(&mut self, now_millis: u64, limits: &Limits) {
        let oldest = now_millis.saturating_sub(millis(limits.idempotency_age_max));
        while let Some((time, key)) = self.ages.front() {
            if *time >= oldest && self.ages.len() <= limits.idempotency_keys_max {
                break;
            }
            self.receipts.remove(key);
            self.ages.pop_front();
        }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
