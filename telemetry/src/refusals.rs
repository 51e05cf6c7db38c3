//! Refusals since the start, by reason, for operators.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use fanfare_proto::v1::{Reason, RefusalCount};

/// The longest message that is stored, in bytes.
const MESSAGE_BYTES_MAX: usize = 256;

/// Counts of refusals, each with its last message. There is at most one entry per reason, and the
/// lock is held briefly.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<Reason, RefusalCount>>);

impl Refusals {
    /// Counts a refusal and stores its message, truncated to 256 bytes.
    pub fn add(&self, reason: Reason, mut message: String) {
        let end = (0..=MESSAGE_BYTES_MAX.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or_default());
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_reason = counts.entry(reason).or_default();
        of_reason.reason = reason.into();
        of_reason.count += 1;
        of_reason.last_at = Some(SystemTime::now().into());
        of_reason.last_message = message;
    }

    /// All counts, highest first.
    pub fn counts(&self) -> Vec<RefusalCount> {
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
        refusals.add(Reason::Shutdown, "closing".into());
        for message in ["first", "last"] {
            refusals.add(Reason::InvalidArgument, message.into());
        }
        let counts = refusals.counts();
        let told: Vec<_> =
            counts.iter().map(|one| (one.reason(), one.count, one.last_message.as_str())).collect();
        assert_eq!(told, [(Reason::InvalidArgument, 2, "last"), (Reason::Shutdown, 1, "closing")]);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let refusals = Refusals::default();
        refusals.add(Reason::Limit, format!("x{}", "é".repeat(500)));
        assert_eq!(refusals.counts()[0].last_message.len(), MESSAGE_BYTES_MAX - 1);
    }
}
