//! What was refused since the start, by reason, for operators.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use fanfare_proto::v1::{Reason, RefusalCount};

use crate::{error::Refusal, ingest};

/// The longest message that is kept, in bytes.
const MESSAGE_BYTES_MAX: usize = 256;

/// Counts of refusals. There is one entry per reason at most, and the lock is short.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<Reason, RefusalCount>>);

impl Refusals {
    /// Something was refused.
    pub(crate) fn add(&self, refusal: &Refusal) {
        let (reason, mut message) = (refusal.reason(), refusal.to_string());
        let end = (0..=MESSAGE_BYTES_MAX.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or_default());
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_reason = counts.entry(reason).or_default();
        of_reason.reason = reason.into();
        of_reason.count += 1;
        of_reason.last_at = Some(ingest::now());
        of_reason.last_message = message;
    }

    /// All counts, the highest first.
    pub(crate) fn counts(&self) -> Vec<RefusalCount> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts: Vec<RefusalCount> = counts.values().cloned().collect();
        counts.sort_unstable_by(|a, b| (b.count, a.reason).cmp(&(a.count, b.reason)));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason_with_the_last_message() {
        let refusals = Refusals::default();
        refusals.add(&Refusal::Shutdown);
        refusals.add(&Refusal::Invalid("é".repeat(500)));
        refusals.add(&Refusal::Invalid("last".into()));
        let counts = refusals.counts();
        let told: Vec<_> =
            counts.iter().map(|one| (one.reason(), one.count, one.last_message.as_str())).collect();
        let shutdown = Refusal::Shutdown.to_string();
        assert_eq!(told, [(Reason::InvalidArgument, 2, "last"), (Reason::Shutdown, 1, &*shutdown)]);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let refusals = Refusals::default();
        refusals.add(&Refusal::Invalid("é".repeat(500)));
        assert!(refusals.counts()[0].last_message.len() <= MESSAGE_BYTES_MAX);
    }
}
