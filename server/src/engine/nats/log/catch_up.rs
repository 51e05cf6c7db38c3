//! How a task reads missed frames from the leader.

use super::{
    super::{
        frame::Frame,
        keys::millis,
        shared::{Attempts, now_millis, stored_receipt},
        store::Start,
    },
    Log,
};
use crate::error::Refusal;

/// Number of frames per read.
const FRAMES_AT_ONCE: usize = 64;
/// How much the clocks of servers may differ.
const CLOCKS_DIFFER_MILLIS: u64 = 60_000;

impl Log {
    /// Brings the known end of the log to the leader's, frame by frame. If that is impossible, the
    /// log has lost history or is a different one: followers lose their feeds.
    pub(super) async fn catch_up(
        &mut self,
        attempts: &mut Attempts,
        what: &'static str,
    ) -> Result<(), Refusal> {
        let (last, place) = self.shared.last_or_first(&self.name, attempts, what).await?;
        // The ephemeral events of the following frames were announced before them.
        self.take_passing(place);
        let Some(head) = self.head else {
            self.adopt(&last, place);
            return Ok(());
        };
        let is_same = place == head.place && last.tag == head.cursor.tag;
        if is_same {
            self.is_sure = true;
            self.contact_at = tokio::time::Instant::now();
        } else if place > head.place && last.follows(head.cursor) {
            self.apply(&last, place);
            self.is_sure = true;
        } else if place > head.place && self.apply_up_to(place, attempts, what).await? {
            self.is_sure = true;
        } else {
            let to = last.head(place).cursor;
            if place > head.place && to.epoch == head.cursor.epoch && to.seq > head.cursor.seq {
                // Retention has removed the next frames, or another copy of the store has taken
                // over.
                tracing::warn!(tenant = %self.tenant, from = %head.cursor, %to,
                    "the log goes on, but what comes next is not in it");
            } else {
                tracing::warn!(tenant = %self.tenant, from = %head.cursor, %to,
                    "the log has another history than before");
            }
            self.lose();
            self.adopt(&last, place);
        }
        Ok(())
    }

    fn adopt(&mut self, last: &Frame, place: u64) {
        self.advance(last, place);
        self.is_sure = true;
    }

    /// Discards everything known of the log.
    fn lose(&mut self) {
        self.followers.clear();
        self.recent_tags.clear();
        self.keys = super::Keys::default();
        self.state = None;
        self.head = None;
        self.shared.places.forget(&self.tenant);
        self.fail(|| Refusal::Storage("written"));
    }

    /// Applies the frames up to a place; false if one does not follow its predecessor.
    async fn apply_up_to(
        &mut self,
        place: u64,
        attempts: &mut Attempts,
        what: &'static str,
    ) -> Result<bool, Refusal> {
        loop {
            let Some(head) = self.head else { return Ok(false) };
            if head.place >= place {
                return Ok(true);
            }
            let from = Start::Place(head.place + 1);
            let store = &self.shared.store;
            let read = store.read(&self.name.stream, &self.name.subject, from, FRAMES_AT_ONCE).await;
            match read {
                Ok(entries) if !entries.is_empty() => {
                    // The read may return frames that are newer than the leader's answer.
                    self.take_passing(entries.last().map_or(place, |entry| entry.place));
                    for entry in entries {
                        let frame = Frame::read(entry.payload).map_err(|error| error.refusal(what))?;
                        if !self.head.is_some_and(|head| frame.follows(head.cursor)) {
                            return Ok(false);
                        }
                        self.apply(&frame, entry.place);
                    }
                }
                // The replica that answered does not have the frames yet.
                Ok(_) => {
                    if !attempts.pause().await {
                        return Err(Refusal::Storage(what));
                    }
                }
                Err(error) => {
                    if !error.is_passing() || !attempts.pause().await {
                        return Err(error.refusal(what));
                    }
                }
            }
        }
    }

    /// Applies the frame that follows the known end.
    pub(super) fn apply(&mut self, frame: &Frame, place: u64) {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.tag() == frame.tag) {
            // The answer to the write was lost, but the frame was written.
            return self.commit(place);
        }
        self.advance(frame, place);
        let mut passing = self.held.take(frame).into_iter().peekable();
        for (after, (seq, entry)) in (0..).zip((frame.first..).zip(&frame.events)) {
            while let Some(event) = passing.next_if(|event| event.after <= after) {
                self.send_passing(event);
            }
            let cursor = frame.cursor(seq);
            self.change_state(seq, &entry.event);
            if self.keys.is_complete {
                let receipt = stored_receipt(cursor, &entry.event);
                self.keys.insert(frame.millis, &entry.idempotency_key, &receipt);
            }
            if self.followers.is_empty() {
                continue;
            }
            match self.shared.event(&self.tenant, cursor, entry.event.clone()) {
                Ok(event) => self.send(&event),
                Err(refusal) => {
                    // Followers get the reason when they read the log.
                    tracing::warn!(event = %cursor, %refusal, "the feeds of a log end");
                    self.followers.clear();
                }
            }
        }
        passing.for_each(|event| self.send_passing(event));
    }

    /// Reads the idempotency keys of the log that are not too old.
    pub(super) async fn load_keys(&mut self, attempts: &mut Attempts) -> Result<(), Refusal> {
        let Some(head) = self.head else { return Err(Refusal::Storage("read")) };
        let oldest = now_millis().saturating_sub(millis(self.shared.limits.idempotency_age_max));
        let mut read_to = if head.millis < oldest { head.place } else { 0 };
        let mut from = Start::Time(rfc3339(oldest.saturating_sub(CLOCKS_DIFFER_MILLIS)));
        while read_to < head.place {
            let store = &self.shared.store;
            let read = store.read(&self.name.stream, &self.name.subject, from.clone(), FRAMES_AT_ONCE).await;
            let entries = match read {
                Ok(entries) => entries,
                Err(error) if error.is_passing() => Vec::new(),
                Err(error) => return Err(error.refusal("read")),
            };
            // The last frame must be found; a lagging replica does not have it yet.
            if entries.is_empty() && !attempts.pause().await {
                tracing::warn!(tenant = %self.tenant, "the idempotency keys of a log cannot be read");
                return Err(Refusal::Storage("read"));
            }
            for entry in entries.into_iter().filter(|entry| entry.place <= head.place) {
                let frame = Frame::read(entry.payload).map_err(|error| error.refusal("read"))?;
                read_to = entry.place;
                from = Start::Place(read_to + 1);
                for (seq, event) in (frame.first..).zip(&frame.events) {
                    let receipt = stored_receipt(frame.cursor(seq), &event.event);
                    self.keys.insert(frame.millis, &event.idempotency_key, &receipt);
                }
                self.keys.trim(now_millis(), &self.shared.limits);
            }
        }
        self.keys.is_complete = true;
        Ok(())
    }
}

/// A time in milliseconds since 1970.
fn rfc3339(time_millis: u64) -> String {
    let seconds = i64::try_from(time_millis / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(time_millis % 1000).unwrap_or_default() * 1_000_000;
    prost_types::Timestamp { seconds, nanos }.to_string()
}
