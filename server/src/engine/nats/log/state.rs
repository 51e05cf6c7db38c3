//! How a task validates state changes of drafts. The result is exact, because the server that
//! writes the next frame of a log has read all of it.

use std::collections::{BTreeMap, HashSet};

use super::{
    super::{
        frame::Head,
        shared::{Attempts, now_millis},
    },
    Log,
};
use crate::{
    engine::{
        StoredEvent,
        entries::{EntryKey, StateIndex},
    },
    error::Refusal,
    event::Draft,
};

impl Log {
    /// Notes the batches of the attempt that conflict with the state at the end of the log, and
    /// returns that end. They are refused when the frame is committed; a frame that is not is
    /// judged again. A conflict is never based on an end that another server may have moved.
    pub(super) async fn judge_state(&mut self, head: Head, attempts: &mut Attempts) -> Result<Head, Refusal> {
        let waiting = self.attempt.iter().flat_map(|attempt| &attempt.waiting);
        if !waiting.flat_map(|one| &one.drafts).any(|draft| draft.state.is_some()) {
            return Ok(head);
        }
        if self.state.is_none() {
            self.state = Some(self.load_state(head, attempts).await?);
        }
        let (mut head, mut refusals) = (head, self.refusals(head));
        if !refusals.is_empty() {
            self.is_sure = false;
            head = self.end(attempts, "written").await?;
            if !self.keys.is_complete {
                self.load_keys(attempts).await?;
            }
            if self.state.is_none() {
                self.state = Some(self.load_state(head, attempts).await?);
            }
            refusals = self.refusals(head);
        }
        if let Some(attempt) = &mut self.attempt {
            attempt.refusals = refusals;
        }
        Ok(head)
    }

    /// The batches of the attempt that conflict with the state, by their index.
    fn refusals(&mut self, head: Head) -> BTreeMap<usize, Refusal> {
        let (Some(attempt), Some(state)) = (&self.attempt, &mut self.state) else {
            return BTreeMap::new();
        };
        // Expired entries stay in the store for a while, but no longer count.
        while !state.end(now_millis()).is_empty() {}
        let (mut trial, mut seen, mut refusals) =
            (state.trial(head.cursor.seq + 1), HashSet::new(), BTreeMap::new());
        for (place, one) in attempt.waiting.iter().enumerate() {
            let mut own = HashSet::new();
            let is_new = |draft: &&Draft| {
                let key = draft.idempotency_key.as_str();
                let is_known = self.keys.get(key).is_some() || seen.contains(key);
                key.is_empty() || (!is_known && own.insert(key.to_owned()))
            };
            match trial.add(one.drafts.iter().filter(is_new), &self.shared.limits) {
                Ok(()) => seen.extend(own),
                Err(refusal) => _ = refusals.insert(place, refusal),
            }
        }
        refusals
    }

    async fn load_state(&self, head: Head, attempts: &mut Attempts) -> Result<StateIndex<()>, Refusal> {
        loop {
            match self.shared.load_state(&self.tenant, head).await {
                Err(Refusal::Storage(_)) if attempts.pause().await => {}
                other => return other,
            }
        }
    }

    /// Applies the state change of an event in the log, if the state is loaded.
    pub(super) fn change_state(&mut self, seq: u64, event: &StoredEvent) {
        let (Some(state), Some(change)) = (&mut self.state, &event.state) else { return };
        for room in &event.rooms {
            let place = EntryKey::new(room, &change.key);
            if change.is_removal {
                state.remove_by(&place, seq);
            } else {
                state.put(place, seq, event.payload.len(), change.expires_at, ());
            }
        }
    }
}
